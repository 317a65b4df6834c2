#include "provision/verify/quote.h"

#include "attestd/base/enc.h"
#include "provision/verify/steps.h"
#include "tpm/parse/sig.h"

#include <stdio.h>
#include <string.h>

#define HEX_SHOWN 40 /* bytes of a structure that a sentence shows at most */

static const char *hex_of(struct att_slice bytes, char ret[2 * HEX_SHOWN + 4])
{
    struct att_slice shown = ATT_SLICE(bytes.ptr, bytes.len < HEX_SHOWN ? bytes.len : HEX_SHOWN);
    att_hex(ret, shown);
    if (bytes.len > HEX_SHOWN) {
        memcpy(ret + (size_t)2 * HEX_SHOWN, "...", 4);
    }
    return ret;
}

/* ---- form ------------------------------------------------------------------------------------ */

bool verify_step_quote_form(const struct verify_quoted *quoted, struct verify_statement *ret_quote,
                            struct verify_verdict *verdict)
{
    if (!quoted->pcrs || !quoted->logs) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "%s are missing",
                    quoted->pcrs ? "the logs" : "the PCR values");
        return false;
    }
    return verify_step_statement(quoted->attest, PARSE_ATTEST_QUOTE, "quote.attest", ret_quote,
                                 verdict) &&
           verify_step_signature(quoted->signature, "quote.sig", verdict);
}

/* ---- the statement --------------------------------------------------------------------------- */

static bool check_header(const struct verify_statement *quote, struct verify_verdict *verdict)
{
    /* A restricted key signs nothing with this magic that the TPM did not make: Part 1, 23.3.3. */
    if (quote->magic != PARSE_MAGIC) {
        verify_fail(verdict, VERIFY_REASON_QUOTE_MAGIC,
                    "quote.attest starts with 0x%08x, expected TPM_GENERATED 0x%08x", quote->magic,
                    PARSE_MAGIC);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_QUOTE_MAGIC, "quote.attest starts with TPM_GENERATED");
    if (quote->type != PARSE_ATTEST_QUOTE || !quote->parsed) {
        verify_fail(verdict, VERIFY_REASON_QUOTE_TYPE,
                    "quote.attest has type 0x%04x (%s), expected 0x%04x (a TPM2_Quote)",
                    quote->type, verify_statement_name(quote->type), PARSE_ATTEST_QUOTE);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_QUOTE_TYPE, "quote.attest is a TPM2_Quote");
    return true;
}

static bool check_signature(const struct verify_quoted *quoted, const struct parse_public *ak,
                            struct verify_verdict *verdict)
{
    struct att_err err = {0};
    if (parse_sig_verify(ak, quoted->signature, quoted->attest, &err)) {
        verify_fail(verdict, VERIFY_REASON_QUOTE_SIGNATURE, "quote.sig: %s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_QUOTE_SIGNATURE,
                "the quote is signed by the AK, with the AK's own scheme");
    return true;
}

static bool check_signer(const struct parse_attest *attest, const struct parse_name *ak_name,
                         const char *what, struct verify_verdict *verdict)
{
    struct parse_name expected = {0}, owner = {0};
    struct att_err err = {0};
    if (parse_name_qualified(PARSE_RH_ENDORSEMENT, ak_name, 1, &expected, &err) ||
        parse_name_qualified(PARSE_RH_OWNER, ak_name, 1, &owner, &err)) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "qualified Name of the AK: %s", err.msg);
        return false;
    }
    if (att_slice_eq(attest->qualified_signer, parse_name_slice(&expected))) {
        return true;
    }
    char found[2 * HEX_SHOWN + 4], wanted[2 * HEX_SHOWN + 4];
    bool in_owner = att_slice_eq(attest->qualified_signer, parse_name_slice(&owner));
    verify_fail(verdict, VERIFY_REASON_AK_HIERARCHY,
                "%s.qualifiedSigner is %s%s, expected %s (a primary of the endorsement hierarchy)",
                what, hex_of(attest->qualified_signer, found),
                in_owner ? " (a primary of the owner hierarchy)" : "",
                hex_of(parse_name_slice(&expected), wanted));
    return false;
}

static bool check_hierarchy(const struct parse_attest *quote, const struct parse_attest *other,
                            const struct parse_public *ak, struct verify_verdict *verdict)
{
    struct parse_name name = {0};
    struct att_err err = {0};
    if (parse_public_name(ak, &name, &err)) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "Name of the AK: %s", err.msg);
        return false;
    }
    if ((other && !check_signer(other, &name, "certInfo", verdict)) ||
        !check_signer(quote, &name, "quote", verdict)) {
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_AK_HIERARCHY,
                "the AK is a primary of the endorsement hierarchy");
    return true;
}

static bool check_nonce(const struct parse_attest *attest, struct att_slice expected,
                        struct verify_verdict *verdict)
{
    char found[2 * HEX_SHOWN + 4], wanted[2 * HEX_SHOWN + 4];
    if (expected.len != ATT_SHA256_LEN || !att_slice_eq_secret(attest->extra_data, expected)) {
        verify_fail(verdict, VERIFY_REASON_QUOTE_NONCE,
                    "quote.extraData is %s, expected %s (this request, its key, evidence and logs)",
                    hex_of(attest->extra_data, found), hex_of(expected, wanted));
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_QUOTE_NONCE, "quote.extraData is %s, as expected",
                hex_of(expected, wanted));
    return true;
}

/* ---- PCRs ------------------------------------------------------------------------------------ */

/* Raw bytes, not meaning: a TPM signs an empty selection, a bank it does not have, a bank twice. */
static bool check_selection(const struct parse_attest *attest, const struct parse_pcr_set *pcrs,
                            const struct parse_pcr_sel *selection, struct verify_verdict *verdict)
{
    uint8_t raw[PARSE_PCR_RAW_LEN];
    char text[PARSE_PCR_TEXT_MAX], found[2 * HEX_SHOWN + 4], wanted[2 * HEX_SHOWN + 4];
    struct att_err err = {0};
    if (parse_pcr_sel_raw(selection, raw, &err) || parse_pcr_sel_text(selection, text, &err)) {
        verify_fail(verdict, VERIFY_REASON_PCR_SELECTION, "the selection asked for: %s", err.msg);
        return false;
    }
    if (!att_slice_eq(attest->u.quote.pcr_select, ATT_SLICE_ARRAY(raw))) {
        verify_fail(verdict, VERIFY_REASON_PCR_SELECTION,
                    "the quote's TPML_PCR_SELECTION is %s, expected exactly %s (%s)",
                    hex_of(attest->u.quote.pcr_select, found), hex_of(ATT_SLICE_ARRAY(raw), wanted),
                    text);
        return false;
    }
    if (pcrs->sel.bank != selection->bank || pcrs->sel.mask != selection->mask ||
        pcrs->digest_len != parse_alg_digest_len(selection->bank)) {
        const char *bank = parse_alg_name(pcrs->sel.bank);
        verify_fail(verdict, VERIFY_REASON_PCR_SELECTION,
                    "the values sent are of bank %s, PCRs 0x%06x, expected exactly those of %s",
                    bank ? bank : "unknown", pcrs->sel.mask, text);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_PCR_SELECTION, "the quote covers exactly %s", text);
    return true;
}

/* By the signing scheme's hash, not the bank's: Part 3 clause 18.4. */
static bool check_digest(const struct parse_attest *attest, const struct parse_pcr_set *pcrs,
                         const struct parse_public *ak, struct verify_verdict *verdict)
{
    uint8_t digest[PARSE_DIGEST_MAX];
    size_t len = 0;
    char found[2 * HEX_SHOWN + 4], wanted[2 * HEX_SHOWN + 4];
    struct att_err err = {0};
    if (parse_pcr_set_digest(pcrs, ak->scheme.hash, digest, &len, &err)) {
        verify_fail(verdict, VERIFY_REASON_PCR_DIGEST, "pcrs: %s", err.msg);
        return false;
    }
    if (!att_slice_eq(attest->u.quote.pcr_digest, ATT_SLICE(digest, len))) {
        verify_fail(verdict, VERIFY_REASON_PCR_DIGEST,
                    "the quote's pcrDigest is %s, the values sent give %s",
                    hex_of(attest->u.quote.pcr_digest, found),
                    hex_of(ATT_SLICE(digest, len), wanted));
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_PCR_DIGEST, "the values sent are the quoted ones");
    return true;
}

bool verify_step_quote(const struct verify_quoted *quoted, const struct verify_statement *quote,
                       const struct parse_attest *other, const struct parse_public *ak,
                       struct att_slice extra_data, const struct parse_pcr_sel *selection,
                       struct verify_verdict *verdict)
{
    return check_header(quote, verdict) && check_signature(quoted, ak, verdict) &&
           check_hierarchy(&quote->attest, other, ak, verdict) &&
           check_nonce(&quote->attest, extra_data, verdict) &&
           check_selection(&quote->attest, quoted->pcrs, selection, verdict) &&
           check_digest(&quote->attest, quoted->pcrs, ak, verdict);
}

/* ---- the boot -------------------------------------------------------------------------------- */

/* A log as far as it was replayed; room holds it where it has a tail. */
static bool replayed_part(const struct evidence_log *log, size_t used, struct att_buf *room,
                          struct att_slice *ret, struct verify_verdict *verdict)
{
    struct att_slice whole = verify_step_whole(log, room);
    if (att_buf_ok(room, NULL) || used > whole.len) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "no memory for the %s log", log->name);
        return false;
    }
    *ret = ATT_SLICE(whole.ptr, used);
    return true;
}

/* The logs are those that were wanted, and so replayed; another that came along is not looked at.
 */
static void judge_policy(const struct verify_boot *boot, const struct verify_logs_wanted *wanted,
                         const struct verify_quoted *quoted, const struct verify_replayed *replayed,
                         struct verify_verdict *verdict)
{
    struct verify_policy_in in = {.policy = boot->policy,
                                  .signers = boot->signers,
                                  .n_signers = boot->n_signers,
                                  .mode = boot->mode,
                                  .now = boot->now,
                                  .quoted = quoted->pcrs,
                                  .memo = boot->memo};
    att_autobuf systemd = {0}, ima = {0};
    if (wanted->logs & VERIFY_LOG_FIRMWARE) {
        in.firmware = att_buf_slice(&evidence_logs_find(quoted->logs, "firmware")->data);
    }
    if (wanted->logs & VERIFY_LOG_SYSTEMD &&
        !replayed_part(evidence_logs_find(quoted->logs, "systemd"), replayed->systemd_used,
                       &systemd, &in.systemd, verdict)) {
        return;
    }
    if (boot->policy && boot->policy->ima.given) {
        in.ima_log = evidence_logs_find(quoted->logs, "ima");
        if (!replayed_part(in.ima_log, replayed->ima_used, &ima, &in.ima, verdict)) {
            return;
        }
    }
    verify_policy_check(&in, verdict);
}

bool verify_step_boot(const struct verify_boot *boot, const struct verify_quoted *quoted,
                      struct verify_replayed *ret_replayed, struct verify_verdict *verdict)
{
    struct verify_replayed replayed = {0};
    struct verify_logs_wanted wanted = {
        .logs = boot->logs, .memo = boot->memo, .ret_replayed = &replayed};
    if (!boot->boot_none && boot->policy) {
        wanted.logs |= boot->policy->logs;
        /* With an ima rule they are findings of the policy. */
        wanted.violations_allowed = boot->policy->ima_violations || boot->policy->ima.given;
    }
    verify_logs(&wanted, quoted->pcrs, quoted->logs, verdict);
    if (verify_verdict_failed(verdict)) {
        return false;
    }
    if (ret_replayed) {
        *ret_replayed = replayed;
    }
    if (boot->boot_none) {
        static const char why[] = "the profile says boot: none";
        verify_skip(verdict, VERIFY_REASON_POLICY_MISSING, "%s", why);
        verify_skip(verdict, VERIFY_REASON_POLICY_UNSIGNED, "%s", why);
        verify_skip(verdict, VERIFY_REASON_POLICY_SIGNER, "%s", why);
        verify_skip(verdict, VERIFY_REASON_POLICY_NOT_YET_VALID, "%s", why);
        verify_skip(verdict, VERIFY_REASON_POLICY_EXPIRED, "%s", why);
        verify_skip(verdict, VERIFY_REASON_BOOT_POLICY, "%s", why);
        return true;
    }
    judge_policy(boot, &wanted, quoted, &replayed, verdict);
    return !verify_verdict_failed(verdict);
}

bool verify_step_facts(const struct verify_boot *boot, const struct verify_quoted *quoted,
                       const struct verify_statement *quote, struct verify_quote_facts *ret,
                       struct verify_verdict *verdict)
{
    struct verify_quote_facts facts = {.clock = verify_clock_of(&quote->attest)};
    struct att_err err = {0};
    if (verify_manifest_sha256(quoted->logs, facts.manifest_sha256, &err)) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "log manifest: %s", err.msg);
        return false;
    }
    (void)snprintf(facts.boot, sizeof(facts.boot), "%s",
                   boot->boot_none ? "none" : boot->policy->name);
    facts.policy_version = boot->boot_none ? 0 : boot->policy->version;
    *ret = facts;
    return true;
}

enum verify_result verify_quote(const struct verify_quoted *quoted, struct att_slice ak_pub,
                                struct att_slice extra_data, const struct verify_boot *boot,
                                struct verify_verdict *verdict, struct verify_quote_facts *ret)
{
    static const enum verify_reason plan[] = {VERIFY_REASON_MALFORMED,
                                              VERIFY_REASON_AK_ATTRIBUTES,
                                              VERIFY_REASON_QUOTE_MAGIC,
                                              VERIFY_REASON_QUOTE_TYPE,
                                              VERIFY_REASON_QUOTE_SIGNATURE,
                                              VERIFY_REASON_AK_HIERARCHY,
                                              VERIFY_REASON_QUOTE_NONCE,
                                              VERIFY_REASON_PCR_SELECTION,
                                              VERIFY_REASON_PCR_DIGEST,
                                              VERIFY_REASON_LOG_MISSING,
                                              VERIFY_REASON_LOG_REPLAY,
                                              VERIFY_REASON_POLICY_MISSING,
                                              VERIFY_REASON_POLICY_UNSIGNED,
                                              VERIFY_REASON_POLICY_SIGNER,
                                              VERIFY_REASON_POLICY_NOT_YET_VALID,
                                              VERIFY_REASON_POLICY_EXPIRED,
                                              VERIFY_REASON_BOOT_POLICY};
    struct verify_statement quote;
    struct parse_public ak;
    struct verify_quote_facts facts;
    if (verify_verdict_failed(verdict)) {
        return VERIFY_REFUSED;
    }
    verify_plan(verdict, plan, sizeof(plan) / sizeof(plan[0]));
    if (!verify_step_area(ak_pub, "akPub", &ak, verdict) ||
        !verify_step_quote_form(quoted, &quote, verdict)) {
        return VERIFY_REFUSED;
    }
    verify_pass(verdict, VERIFY_REASON_MALFORMED, "every structure parses whole");
    if (!verify_step_ak(&ak, verdict) ||
        !verify_step_quote(quoted, &quote, NULL, &ak, extra_data, &boot->selection, verdict) ||
        !verify_step_boot(boot, quoted, NULL, verdict) ||
        !verify_step_facts(boot, quoted, &quote, &facts, verdict) ||
        verify_verdict_result(verdict) != VERIFY_ACCEPTED) {
        return VERIFY_REFUSED;
    }
    if (ret) {
        *ret = facts;
    }
    return VERIFY_ACCEPTED;
}
