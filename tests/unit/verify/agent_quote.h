/* What is wrong with quote, clock, evidence, logs and policy, for test_agent.c: each makes one
 * thing wrong. Included once. */
#ifndef ATTESTD_TESTS_VERIFY_AGENT_QUOTE_H
#define ATTESTD_TESTS_VERIFY_AGENT_QUOTE_H

#include "tests/unit/verify/agent_key.h"

/* ---- the quote ------------------------------------------------------------------------------- */

/* CVE-2024-29038, CVE-2024-29040 */
static void quote_no_magic(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->magic_quote = 0;
}

static void quote_is_certify(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->quote.type = PARSE_ATTEST_CERTIFY;
    f->quote.u.certify.name = parse_name_slice(&f->agent.name);
    f->quote.u.certify.qualified_name = parse_name_slice(&f->key_qualified);
}

static void quote_is_nv(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->quote.type = PARSE_ATTEST_NV;
    f->quote.u.nv.index_name = parse_name_slice(&f->agent.name);
    f->quote.u.nv.offset = 0;
    f->quote.u.nv.contents = ATT_SLICE_LIT("anything the caller wrote");
}

/* Crafted so that the bytes, read as a quote, are the selection asked for and the digest of any
 * PCR values: the index's contents are the attacker's choice. */
static void quote_is_nv_like_pcrs(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    struct att_slice select = f->quote.u.quote.pcr_select, digest = f->quote.u.quote.pcr_digest;
    att_buf_reset(&f->scratch);
    att_buf_put_slice(&f->scratch, select);
    att_buf_field_be16(&f->scratch, digest);
    f->quote.type = PARSE_ATTEST_NV;
    f->quote.u.nv.index_name = (struct att_slice){0};
    f->quote.u.nv.offset = 0;
    f->quote.u.nv.contents = att_buf_slice(&f->scratch);
}

static void quote_other_key(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->quote_signer = stranger;
}

static void quote_by_agent_key(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->quote_signer = f->agent.pkey;
}

static void quote_sig_sha1(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_buf_reset(&f->quote_sig);
    forge_sign(f->ak.pkey, PARSE_ALG_SHA1, att_buf_slice(&f->quote_bytes), &f->quote_sig);
    f->agent_in.quoted.signature = att_buf_slice(&f->quote_sig);
}

static void ak_in_owner(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ak_hierarchy = PARSE_RH_OWNER;
}

static void quote_signer_differs(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->quote.qualified_signer = parse_name_slice(&f->ak.name);
}

static void quote_other_order(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->quoted_key_authorization =
        "b3RoZXItdG9rZW4tMDAwMg.1XbWNzZ2VfdGh1bWJwcmludF8wMDAwMDAwMDAwMDAwMDA";
}

/* The same token, made for another account: replay by a thief of the evidence. */
static void quote_other_account(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->quoted_key_authorization =
        "Zm9yZ2UtdG9rZW4tMDAwMQ.b3RoZXJfYWNjb3VudF90aHVtYnByaW50XzAwMDAwMDAwMDA";
}

/* CVE-2026-6420 */
static void quote_constant_nonce(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    static const uint8_t zeros[ATT_SHA256_LEN] = {0};
    f->quote.extra_data = ATT_SLICE_ARRAY(zeros);
}

static void quote_empty_nonce(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->quote.extra_data = (struct att_slice){0};
}

static void quote_short_nonce(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->quote.extra_data.len--;
}

/* Evidence exchanged after the quote was made. */
static void evidence_swapped(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->statement.level = 3;
    att_buf_reset(&f->evidence);
    assert_int_equal(evidence_statement_encode(&f->statement, &f->evidence, NULL), ATT_OK);
    f->agent_in.evidence = att_buf_slice(&f->evidence);
}

/* ---- PCRs ------------------------------------------------------------------------------------ */

static void selection(struct forge *f, struct att_slice raw)
{
    f->quote.u.quote.pcr_select = raw;
}

/* CVE-2024-29039 */
static void selection_other(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    selection(f, ATT_SLICE_LIT("\0\0\0\1\0\x0b\3\xff\x40\0"));
}

/* A TPM without the bank keeps the entry, zeroes its bitmap and signs the hash of nothing. */
static void selection_empty(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    selection(f, ATT_SLICE_LIT("\0\0\0\1\0\x0b\3\0\0\0"));
    att_sha256(f->pcr_digest, (struct att_slice){0});
}

static void selection_count_0(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    selection(f, ATT_SLICE_LIT("\0\0\0\0"));
    att_sha256(f->pcr_digest, (struct att_slice){0});
}

static void selection_bank_twice(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    att_buf_reset(&f->scratch);
    att_buf_put(&f->scratch, "\0\0\0\2", 4);
    att_buf_put(&f->scratch, f->selection_raw + 4, 6);
    att_buf_put(&f->scratch, f->selection_raw + 4, 6);
    selection(f, att_buf_slice(&f->scratch));
}

static void selection_split(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    selection(f, ATT_SLICE_LIT("\0\0\0\2\0\x0b\3\xff\0\0\0\x0b\3\0\x40\1"));
}

static void selection_sha1(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    selection(f, ATT_SLICE_LIT("\0\0\0\1\0\x04\3\xff\x40\1"));
}

static void selection_wide(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    selection(f, ATT_SLICE_LIT("\0\0\0\1\0\x0b\4\xff\x40\1\0"));
}

/* CVE-2022-0317: values beside those that the quote covers. */
static void pcrs_not_quoted(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->pcrs.sel.mask |= 1U << 12;
}

static void pcr_value_changed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->pcrs.value[4][0] ^= 1;
}

static void pcr_digest_changed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->pcr_digest[31] ^= 1;
}

/* ---- clock ----------------------------------------------------------------------------------- */

static void clock_back(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.clock_ms = f->previous.clock_ms - 1;
}

static void restart_back(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.restart_count = 0;
}

static void resumed_clock_back(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.restart_count++;
    f->clock.clock_ms = 1;
}

static void cleared(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock = (struct verify_clock){
        .clock_ms = 100, .safe = true, .firmware_version = f->clock.firmware_version};
}

static void cleared_reset_down(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.reset_count = 3;
    f->clock.restart_count = 0;
    f->clock.clock_ms = 900000;
}

static void cleared_from_0(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->previous.reset_count = f->clock.reset_count = 0;
    f->previous.restart_count = f->clock.restart_count = 0;
    f->clock.clock_ms = 10;
}

static void rebooted(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.reset_count++;
    f->clock.restart_count = 0;
}

/* A quote of an earlier boot is a quote with a lower resetCount than the record's. */
static void earlier_boot(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.reset_count--;
}

static void firmware_changed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.firmware_version++;
}

static void ak_expired(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.ak.expires_at = FORGE_NOW;
}

static void certify_of_other_boot(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    f->certify.clock.reset_count--;
}

/* ---- evidence -------------------------------------------------------------------------------- */

static void evidence_other_agent(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_EVIDENCE)
    (void)snprintf(f->statement.identifier, sizeof(f->statement.identifier), "%s",
                   "spiffe://bank.example/agent/market-data");
}

static void evidence_longer_name(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_EVIDENCE)
    (void)snprintf(f->statement.identifier, sizeof(f->statement.identifier), "%s2",
                   FORGE_IDENTIFIER);
}

static void evidence_other_key(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_EVIDENCE)
    f->statement.key_name[5] ^= 1;
}

static void evidence_other_log(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_EVIDENCE)
    f->statement.logs.log[0].sha256[0] ^= 1;
}

static void evidence_without_log(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_EVIDENCE)
    evidence_logs_done(&f->statement.logs);
}

/* ---- logs and policy ------------------------------------------------------------------------- */

static void log_without_bytes(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_buf_done(&f->logs.log[0].data);
    f->logs.log[0].has_data = false;
}

static void log_other_bytes(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->logs.log[0].data.ptr[f->logs.log[0].data.len - 1] ^= 1;
}

static void log_wanted_ima(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.boot.logs |= VERIFY_LOG_IMA;
}

static void log_event_dropped(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_LOG)
    f->n_events--;
}

static void log_event_added(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_LOG)
    (void)forge_event_add(f, 14, PARSE_EV_IPL, "MokList");
}

static void log_digest_changed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_LOG)
    f->events[1].digest[0] ^= 1;
}

static struct forge_event *event_of(struct forge *f, uint32_t pcr, uint32_t type)
{
    for (size_t i = 0; i < f->n_events; i++) {
        if (f->events[i].pcr == pcr && f->events[i].type == type) {
            return &f->events[i];
        }
    }
    fail_msg("no such event");
    return NULL;
}

/* Secure Boot was off; the log's text says on. Digest and replay are untouched. */
static void log_payload_rewritten(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_LOG)
    struct forge_event *event = event_of(f, 7, PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG);
    event->data[event->data_len - 1] ^= 1;
}

/* The loader's measurement is called a comment. */
static void log_type_rewritten(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_LOG)
    event_of(f, 4, PARSE_EV_EFI_BOOT_SERVICES_APPLICATION)->type = PARSE_EV_POST_CODE;
}

static void log_type_rewritten_to_hashed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_LOG)
    event_of(f, 4, PARSE_EV_EFI_BOOT_SERVICES_APPLICATION)->type = PARSE_EV_EFI_ACTION;
}

static void log_type_unknown(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_LOG)
    event_of(f, 7, PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG)->type = 0x7fff0001;
}

static void log_type_no_action(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_LOG)
    event_of(f, 4, PARSE_EV_EFI_BOOT_SERVICES_APPLICATION)->type = PARSE_EV_NO_ACTION;
}

static void log_separator_twice(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    *forge_event_add(f, 6, PARSE_EV_SEPARATOR, "") = *event_of(f, 6, PARSE_EV_SEPARATOR);
}

static void log_separator_missing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    struct forge_event *event = event_of(f, 2, PARSE_EV_SEPARATOR);
    event->type = PARSE_EV_EFI_BOOT_SERVICES_DRIVER;
}

static void log_separator_error(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    struct forge_event *event = event_of(f, 2, PARSE_EV_SEPARATOR);
    event->data[0] = 1;
    att_sha256(event->digest, ATT_SLICE(event->data, event->data_len));
}

/* Extended behind the log's back. */
static void pcr_without_events(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_PCRS)
    memset(f->pcrs.value[16], 0x42, ATT_SHA256_LEN);
}

/* Hibernation: PCRs start anew, resetCount stays, and the log is of before. */
static void hibernated(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->clock.restart_count++;
    }
    if (stage == FORGE_PCRS) {
        memset(f->pcrs.value, 0, sizeof(f->pcrs.value));
    }
}

static void policy_missing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.boot.policy = NULL;
}

static void policy_expired(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->policy->not_after = FORGE_NOW - 1;
}

static void policy_not_yet(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->policy->not_before = FORGE_NOW + 1;
}

/* A healthy log and quote of a boot that nobody allowed. */
static void policy_other_boot(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->policy->pcrs[4].values[0][0] ^= 1;
    f->policy->pcrs[4].values[1][0] ^= 1;
}

static void policy_not_quoted(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->policy->pcr_mask |= 1U << 11;
}

static void policy_other_bank(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->policy->bank = PARSE_ALG_SHA384;
    f->policy->digest_len = 48;
}

static void policy_wants_log(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->policy->logs |= VERIFY_LOG_SYSTEMD;
}

#endif
