/* verify_agent (M4): one thing wrong at a time, all the rest consistent. The cases are the rows of
 * "What must be proved" and the bug classes that verifiers shipped. */
#include "tests/unit/verify/harness.h"

#include "attestd/base/enc.h"
#include "provision/evidence/attobj.h"

#define AT(s)                                                                                      \
    if (stage != (s)) {                                                                            \
        return;                                                                                    \
    }

static EVP_PKEY *stranger; /* a key that no TPM here holds */

/* ---- the key's statement --------------------------------------------------------------------- */

static void att_obj_trailing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_buf_u8(&f->att_obj, 0);
    f->agent_in.att_obj = att_buf_slice(&f->att_obj);
}

static void evidence_trailing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_buf_u8(&f->evidence, 0);
    f->agent_in.evidence = att_buf_slice(&f->evidence);
}

static void quote_trailing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_buf_u8(&f->quote_bytes, 0);
    f->agent_in.quoted.attest = att_buf_slice(&f->quote_bytes);
}

static void quote_sig_trailing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_buf_u8(&f->quote_sig, 0);
    f->agent_in.quoted.signature = att_buf_slice(&f->quote_sig);
}

static void srk_trailing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_buf_u8(&f->srk.area, 0);
    f->agent_in.srk_pub = att_buf_slice(&f->srk.area);
}

static void quote_huge(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    for (int i = 0; i < PARSE_ATTEST_MAX; i++) {
        att_buf_u8(&f->quote_bytes, 0);
    }
    f->agent_in.quoted.attest = att_buf_slice(&f->quote_bytes);
}

static void no_pcrs(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.quoted.pcrs = NULL;
}

static void no_evidence(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.evidence = (struct att_slice){0};
}

static void no_srk(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.srk_pub = (struct att_slice){0};
}

static void store_not_allowed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.key_stores = VERIFY_KEY_HSM | VERIFY_KEY_MEMORY;
}

/* A kind that this version cannot judge is no evidence at all. */
static void store_lies(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    uint8_t *at = memmem(f->evidence.ptr, f->evidence.len, "\x63tpm", 4);
    assert_non_null(at);
    memcpy(at, "\x63hsm", 4);
}

/* The host presents the AK certificate of another enrolment of the same AK. */
static void ak_cert_other(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.ak.ak_cert = att_buf_slice(&f->ek_cert);
}

/* The record is of another AK than the certificate that came. */
static void ak_other_record(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    struct parse_public pub = f->ak.pub;
    assert_int_equal(parse_public_set_pkey(&pub, stranger, NULL), ATT_OK);
    att_buf_reset(&f->scratch);
    assert_int_equal(parse_public_encode(&pub, &f->scratch, NULL), ATT_OK);
    f->agent_in.ak.ak_pub = att_buf_slice(&f->scratch);
    f->agent_in.ak.ak_cert = (struct att_slice){0};
}

static void ak_unrestricted(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ak.pub.attrs &= ~PARSE_OA_RESTRICTED;
}

static void ak_duplicable(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ak.pub.attrs &= ~PARSE_OA_FIXED_TPM;
}

static void certify_no_magic(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->magic_certify = 0x80000000;
}

static void certify_is_creation(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    struct att_slice name = f->certify.u.certify.name;
    f->certify.type = PARSE_ATTEST_CREATION;
    f->certify.u.creation.object_name = name;
    f->certify.u.creation.creation_hash = ATT_SLICE_ARRAY(f->proof);
}

static void certify_is_quote(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    f->certify.type = PARSE_ATTEST_QUOTE;
    f->certify.u.quote.pcr_select = ATT_SLICE_LIT("\0\0\0\1\0\x0b\3\1\0\0");
    f->certify.u.quote.pcr_digest = ATT_SLICE_ARRAY(f->proof);
}

/* The contents are whatever the caller wrote into the index: here, a key's Names. */
static void certify_is_nv(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    struct att_slice name = f->certify.u.certify.name;
    f->certify.type = PARSE_ATTEST_NV;
    f->certify.u.nv.index_name = name;
    f->certify.u.nv.offset = 0;
    f->certify.u.nv.contents = parse_name_slice(&f->key_qualified);
}

/* Agent key of another TPM: that TPM's AK certified it. */
static void certify_by_other_tpm(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    f->certify_signer = stranger;
}

static void certify_by_itself(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    f->certify_signer = f->agent.pkey;
}

static void certify_sig_sha384(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    struct evidence_attobj obj;
    assert_int_equal(evidence_attobj_parse(f->agent_in.att_obj, &obj, NULL), ATT_OK);
    att_buf_reset(&f->scratch);
    forge_sign(f->ak.pkey, PARSE_ALG_SHA384, obj.cert_info, &f->scratch);
    obj.sig = att_buf_slice(&f->scratch);
    att_autobuf again = {0};
    assert_int_equal(evidence_attobj_encode(&obj, &again, NULL), ATT_OK);
    att_buf_reset(&f->att_obj);
    att_buf_put_slice(&f->att_obj, att_buf_slice(&again));
    f->agent_in.att_obj = att_buf_slice(&f->att_obj);
}

static void certify_alg_rs256(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    struct evidence_attobj obj;
    assert_int_equal(evidence_attobj_parse(f->agent_in.att_obj, &obj, NULL), ATT_OK);
    obj.alg = EVIDENCE_COSE_RS256;
    att_autobuf again = {0};
    assert_int_equal(evidence_attobj_encode(&obj, &again, NULL), ATT_OK);
    att_buf_reset(&f->att_obj);
    att_buf_put_slice(&f->att_obj, att_buf_slice(&again));
    f->agent_in.att_obj = att_buf_slice(&f->att_obj);
}

/* Another order's token, or another account's thumbprint: the host made it for that one. */
static void certify_other_order(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->certified_key_authorization =
        "b3RoZXItdG9rZW4tMDAwMg.1XbWNzZ2VfdGh1bWJwcmludF8wMDAwMDAwMDAwMDAwMDA";
}

static void certify_no_nonce(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    f->certify.extra_data = (struct att_slice){0};
}

/* certInfo is good and of the key in the TPM; pubArea is of the attacker's key in software. */
static void certify_name_swap(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    struct parse_public pub = f->agent.pub;
    assert_int_equal(parse_public_set_pkey(&pub, stranger, NULL), ATT_OK);
    att_buf_reset(&f->agent.area);
    assert_int_equal(parse_public_encode(&pub, &f->agent.area, NULL), ATT_OK);
}

static void certify_empty_name(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    f->certify.u.certify.name = (struct att_slice){0};
}

/* ---- the key --------------------------------------------------------------------------------- */

/* Imported: it may claim sensitiveDataOrigin, but is not fixedTPM. */
static void key_imported(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->agent.pub.attrs &= ~(PARSE_OA_FIXED_TPM | PARSE_OA_FIXED_PARENT);
    f->agent.pub.attrs |= PARSE_OA_SENSITIVE_DATA_ORIGIN;
}

static void key_not_fixed_tpm(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->agent.pub.attrs &= ~PARSE_OA_FIXED_TPM;
}

static void key_not_fixed_parent(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->agent.pub.attrs &= ~PARSE_OA_FIXED_PARENT;
}

static void key_from_outside(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->agent.pub.attrs &= ~PARSE_OA_SENSITIVE_DATA_ORIGIN;
}

static void key_restricted(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->agent.pub.attrs |= PARSE_OA_RESTRICTED;
    f->agent.pub.scheme = (struct parse_scheme){.alg = PARSE_ALG_ECDSA, .hash = PARSE_ALG_SHA256};
}

static void key_decrypts(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->agent.pub.attrs |= PARSE_OA_DECRYPT;
}

static void key_does_not_sign(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->agent.pub.attrs &= ~PARSE_OA_SIGN;
    f->agent.pub.attrs |= PARSE_OA_DECRYPT;
}

static void key_admin_with_policy(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->agent.pub.attrs |= PARSE_OA_ADMIN_WITH_POLICY;
}

static void key_without_user_auth(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->agent.pub.attrs &= ~PARSE_OA_USER_WITH_AUTH;
}

static void key_with_policy(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->agent.pub.policy_len = ATT_SHA256_LEN;
    memset(f->agent.pub.policy, 0x77, ATT_SHA256_LEN);
}

static void key_sha1_scheme(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->agent.pub.scheme = (struct parse_scheme){.alg = PARSE_ALG_ECDSA, .hash = PARSE_ALG_SHA1};
}

/* ---- its place ------------------------------------------------------------------------------- */

static void key_owner_is_endorsement(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->hierarchy = PARSE_RH_ENDORSEMENT;
}

static void key_under_null(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->hierarchy = PARSE_RH_NULL;
}

/* The key is under some parent; the sent one is another. */
static void key_foreign_parent(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    struct parse_public pub = f->parent.pub;
    assert_int_equal(parse_public_set_pkey(&pub, stranger, NULL), ATT_OK);
    att_buf_reset(&f->parent.area);
    assert_int_equal(parse_public_encode(&pub, &f->parent.area, NULL), ATT_OK);
    f->agent_in.parent_pub = att_buf_slice(&f->parent.area);
}

static void key_parent_left_out(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.parent_pub = (struct att_slice){0};
}

/* LoadExternal: no parent at all; the qualified Name is the Name. */
static void key_external(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    f->certify.u.certify.qualified_name = parse_name_slice(&f->agent.name);
}

static void parent_duplicable(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->parent.pub.attrs &= ~(PARSE_OA_FIXED_TPM | PARSE_OA_FIXED_PARENT);
}

static void parent_signs(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->parent.pub.attrs |= PARSE_OA_SIGN;
    f->parent.pub.attrs &= ~(PARSE_OA_RESTRICTED | PARSE_OA_DECRYPT);
    f->parent.pub.sym = (struct parse_sym){.alg = PARSE_ALG_NULL};
}

static void srk_not_standard(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->srk.pub.attrs &= ~PARSE_OA_NO_DA;
}

static void srk_duplicable(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->srk.pub.attrs &= ~PARSE_OA_FIXED_TPM;
}

static const uint8_t issued_policy[ATT_SHA256_LEN] = {1};

static void parent_policy_other(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.parent_policy = ATT_SLICE_ARRAY(issued_policy);
}

static void parent_policy_avoidable(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->parent.pub.attrs |= PARSE_OA_USER_WITH_AUTH;
    }
    if (stage == FORGE_DONE) {
        f->agent_in.parent_policy = ATT_SLICE(f->parent.pub.policy, f->parent.pub.policy_len);
    }
}

static void parent_policy_no_parent(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->no_parent = true;
    }
    if (stage == FORGE_DONE) {
        f->agent_in.parent_policy = ATT_SLICE(f->parent.pub.policy, f->parent.pub.policy_len);
    }
}

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

/* ---- what must be accepted ------------------------------------------------------------------- */

static void honest_no_parent(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->no_parent = true;
}

static void honest_policy_parent(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.parent_policy = ATT_SLICE(f->parent.pub.policy, f->parent.pub.policy_len);
}

static void honest_resumed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.restart_count++;
}

static void honest_no_record(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->no_previous = true;
}

static void honest_boot_none(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.boot.boot_none = true;
    f->agent_in.boot.policy = NULL;
}

static void honest_srk_zero_unique_key(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    struct parse_public template_pub;
    parse_public_srk_template(&template_pub, 1);
    assert_int_equal(parse_public_set_pkey(&template_pub, f->srk.pkey, NULL), ATT_OK);
    f->srk.pub = template_pub;
}

static const struct forged_case cases[] = {
    {"honest", NULL, VERIFY_REASON_NONE},
    {"honest, key right under the SRK", honest_no_parent, VERIFY_REASON_NONE},
    {"honest, parent's policy demanded", honest_policy_parent, VERIFY_REASON_NONE},
    {"honest, resumed from suspend", honest_resumed, VERIFY_REASON_NONE},
    {"honest, no record", honest_no_record, VERIFY_REASON_NONE},
    {"honest, boot none", honest_boot_none, VERIFY_REASON_NONE},
    {"honest, SRK of the other template", honest_srk_zero_unique_key, VERIFY_REASON_NONE},

    {"attObj with a byte more", att_obj_trailing, VERIFY_REASON_MALFORMED},
    {"evidence with a byte more", evidence_trailing, VERIFY_REASON_MALFORMED},
    {"quote with a byte more", quote_trailing, VERIFY_REASON_MALFORMED},
    {"quote's signature with a byte more", quote_sig_trailing, VERIFY_REASON_MALFORMED},
    {"srkPub with a byte more", srk_trailing, VERIFY_REASON_MALFORMED},
    {"quote beyond its cap", quote_huge, VERIFY_REASON_MALFORMED},
    {"no PCR values", no_pcrs, VERIFY_REASON_MALFORMED},
    {"no evidence", no_evidence, VERIFY_REASON_MALFORMED},
    {"no srkPub", no_srk, VERIFY_REASON_MALFORMED},

    {"profile allows no TPM keys", store_not_allowed, VERIFY_REASON_KEY_STORE},
    {"evidence says hsm", store_lies, VERIFY_REASON_MALFORMED},
    {"another AK certificate", ak_cert_other, VERIFY_REASON_AK_UNKNOWN},
    {"another AK on record", ak_other_record, VERIFY_REASON_AK_UNKNOWN},
    {"AK unrestricted", ak_unrestricted, VERIFY_REASON_AK_ATTRIBUTES},
    {"AK not fixedTPM", ak_duplicable, VERIFY_REASON_AK_ATTRIBUTES},

    {"certify without magic", certify_no_magic, VERIFY_REASON_CERTIFY_TYPE},
    {"CertifyCreation as Certify", certify_is_creation, VERIFY_REASON_CERTIFY_TYPE},
    {"quote as Certify", certify_is_quote, VERIFY_REASON_CERTIFY_TYPE},
    {"NV_Certify as Certify", certify_is_nv, VERIFY_REASON_CERTIFY_TYPE},
    {"key of another TPM", certify_by_other_tpm, VERIFY_REASON_CERTIFY_SIGNATURE},
    {"key certifies itself", certify_by_itself, VERIFY_REASON_CERTIFY_SIGNATURE},
    {"signature with another hash than the AK's", certify_sig_sha384,
     VERIFY_REASON_CERTIFY_SIGNATURE},
    {"attObj names RS256", certify_alg_rs256, VERIFY_REASON_CERTIFY_SIGNATURE},
    {"certify of another order", certify_other_order, VERIFY_REASON_CERTIFY_NONCE},
    {"certify without nonce", certify_no_nonce, VERIFY_REASON_CERTIFY_NONCE},
    {"pubArea of another key", certify_name_swap, VERIFY_REASON_CERTIFY_NAME},
    {"certify without Name", certify_empty_name, VERIFY_REASON_CERTIFY_NAME},

    {"imported key", key_imported, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key not fixedTPM", key_not_fixed_tpm, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key not fixedParent", key_not_fixed_parent, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key from outside", key_from_outside, VERIFY_REASON_KEY_ATTRIBUTES},
    {"restricted key", key_restricted, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key that decrypts", key_decrypts, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key that does not sign", key_does_not_sign, VERIFY_REASON_KEY_ATTRIBUTES},
    {"adminWithPolicy", key_admin_with_policy, VERIFY_REASON_KEY_ATTRIBUTES},
    {"no userWithAuth", key_without_user_auth, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key signs with SHA-1", key_sha1_scheme, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key with a policy", key_with_policy, VERIFY_REASON_KEY_ATTRIBUTES},

    {"key in the endorsement hierarchy", key_owner_is_endorsement, VERIFY_REASON_KEY_PARENT},
    {"key in the null hierarchy", key_under_null, VERIFY_REASON_KEY_PARENT},
    {"foreign parent", key_foreign_parent, VERIFY_REASON_KEY_PARENT},
    {"parent left out", key_parent_left_out, VERIFY_REASON_KEY_PARENT},
    {"LoadExternal key", key_external, VERIFY_REASON_KEY_PARENT},
    {"parent duplicable", parent_duplicable, VERIFY_REASON_KEY_PARENT},
    {"parent is a signing key", parent_signs, VERIFY_REASON_KEY_PARENT},
    {"SRK with other attributes", srk_not_standard, VERIFY_REASON_KEY_PARENT},
    {"SRK duplicable", srk_duplicable, VERIFY_REASON_KEY_PARENT},
    {"parent with another policy", parent_policy_other, VERIFY_REASON_KEY_PARENT},
    {"parent's policy can be passed by", parent_policy_avoidable, VERIFY_REASON_KEY_PARENT},
    {"policy demanded, no parent", parent_policy_no_parent, VERIFY_REASON_KEY_PARENT},

    {"quote without magic", quote_no_magic, VERIFY_REASON_QUOTE_MAGIC},
    {"Certify as quote", quote_is_certify, VERIFY_REASON_QUOTE_TYPE},
    {"NV_Certify as quote", quote_is_nv, VERIFY_REASON_QUOTE_TYPE},
    {"NV_Certify whose contents look like PCRs", quote_is_nv_like_pcrs, VERIFY_REASON_QUOTE_TYPE},
    {"quote by another key", quote_other_key, VERIFY_REASON_QUOTE_SIGNATURE},
    {"quote by the agent's key", quote_by_agent_key, VERIFY_REASON_QUOTE_SIGNATURE},
    {"quote signed with SHA-1", quote_sig_sha1, VERIFY_REASON_QUOTE_SIGNATURE},
    {"AK in the owner hierarchy", ak_in_owner, VERIFY_REASON_AK_HIERARCHY},
    {"quote's signer is not qualified", quote_signer_differs, VERIFY_REASON_AK_HIERARCHY},
    {"quote of another order", quote_other_order, VERIFY_REASON_QUOTE_NONCE},
    {"quote of another account", quote_other_account, VERIFY_REASON_QUOTE_NONCE},
    {"constant nonce", quote_constant_nonce, VERIFY_REASON_QUOTE_NONCE},
    {"empty nonce", quote_empty_nonce, VERIFY_REASON_QUOTE_NONCE},
    {"short nonce", quote_short_nonce, VERIFY_REASON_QUOTE_NONCE},
    {"evidence swapped after the quote", evidence_swapped, VERIFY_REASON_QUOTE_NONCE},

    {"other PCRs", selection_other, VERIFY_REASON_PCR_SELECTION},
    {"empty selection", selection_empty, VERIFY_REASON_PCR_SELECTION},
    {"selection of count 0", selection_count_0, VERIFY_REASON_PCR_SELECTION},
    {"bank twice", selection_bank_twice, VERIFY_REASON_PCR_SELECTION},
    {"selection in two parts", selection_split, VERIFY_REASON_PCR_SELECTION},
    {"SHA-1 bank", selection_sha1, VERIFY_REASON_PCR_SELECTION},
    {"sizeofSelect 4", selection_wide, VERIFY_REASON_PCR_SELECTION},
    {"values that are not quoted", pcrs_not_quoted, VERIFY_REASON_PCR_SELECTION},
    {"PCR value changed", pcr_value_changed, VERIFY_REASON_PCR_DIGEST},
    {"digest of other values", pcr_digest_changed, VERIFY_REASON_PCR_DIGEST},

    {"clock backwards", clock_back, VERIFY_REASON_CLOCK_ROLLBACK},
    {"restartCount backwards", restart_back, VERIFY_REASON_CLOCK_ROLLBACK},
    {"resumed, clock backwards", resumed_clock_back, VERIFY_REASON_CLOCK_ROLLBACK},
    {"TPM cleared", cleared, VERIFY_REASON_TPM_CLEARED},
    {"resetCount down", cleared_reset_down, VERIFY_REASON_TPM_CLEARED},
    {"resetCount 0 and clock back", cleared_from_0, VERIFY_REASON_TPM_CLEARED},
    {"quote of an earlier boot", earlier_boot, VERIFY_REASON_TPM_CLEARED},
    {"rebooted since the enrolment", rebooted, VERIFY_REASON_AK_STALE},
    {"firmware changed", firmware_changed, VERIFY_REASON_AK_STALE},
    {"enrolment expired", ak_expired, VERIFY_REASON_AK_STALE},
    {"certify of another boot than the quote", certify_of_other_boot, VERIFY_REASON_AK_STALE},

    {"evidence names another agent", evidence_other_agent, VERIFY_REASON_EVIDENCE_MISMATCH},
    {"evidence names a longer name", evidence_longer_name, VERIFY_REASON_EVIDENCE_MISMATCH},
    {"evidence names another key", evidence_other_key, VERIFY_REASON_EVIDENCE_MISMATCH},
    {"evidence lists another log", evidence_other_log, VERIFY_REASON_EVIDENCE_MISMATCH},
    {"evidence lists no log", evidence_without_log, VERIFY_REASON_EVIDENCE_MISMATCH},

    {"log without bytes", log_without_bytes, VERIFY_REASON_LOG_MISSING},
    {"log with other bytes than its digest", log_other_bytes, VERIFY_REASON_LOG_MISSING},
    {"log that was asked for is not there", log_wanted_ima, VERIFY_REASON_LOG_MISSING},
    {"policy wants another log", policy_wants_log, VERIFY_REASON_LOG_MISSING},
    {"event dropped", log_event_dropped, VERIFY_REASON_LOG_REPLAY},
    {"event added", log_event_added, VERIFY_REASON_LOG_REPLAY},
    {"digest changed", log_digest_changed, VERIFY_REASON_LOG_REPLAY},
    {"payload rewritten", log_payload_rewritten, VERIFY_REASON_LOG_REPLAY},
    {"type rewritten", log_type_rewritten, VERIFY_REASON_LOG_REPLAY},
    {"type rewritten to one with a checked payload", log_type_rewritten_to_hashed,
     VERIFY_REASON_LOG_REPLAY},
    {"type unknown", log_type_unknown, VERIFY_REASON_LOG_REPLAY},
    {"event called EV_NO_ACTION", log_type_no_action, VERIFY_REASON_LOG_REPLAY},
    {"two separators", log_separator_twice, VERIFY_REASON_LOG_REPLAY},
    {"no separator", log_separator_missing, VERIFY_REASON_LOG_REPLAY},
    {"separator of an error", log_separator_error, VERIFY_REASON_LOG_REPLAY},
    {"PCR without events, but with a value", pcr_without_events, VERIFY_REASON_LOG_REPLAY},
    {"hibernated", hibernated, VERIFY_REASON_LOG_REPLAY},

    {"no policy", policy_missing, VERIFY_REASON_POLICY_MISSING},
    {"policy expired", policy_expired, VERIFY_REASON_POLICY_EXPIRED},
    {"policy not yet valid", policy_not_yet, VERIFY_REASON_POLICY_EXPIRED},
    {"boot not allowed", policy_other_boot, VERIFY_REASON_BOOT_POLICY},
    {"policy for a PCR that is not quoted", policy_not_quoted, VERIFY_REASON_BOOT_POLICY},
    {"policy for another bank", policy_other_bank, VERIFY_REASON_BOOT_POLICY},
};

static void run(const struct forged_case *c, enum forge_ek ek)
{
    struct forge *forge = forge_new(ek, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_agent_facts facts;
    memset(&facts, 0x5a, sizeof(facts));
    forge_build(forge, c->mutate);
    enum verify_result result = verify_agent(&forge->agent_in, verdict, &facts);
    if (c->reason == VERIFY_REASON_NONE) {
        assert_accepted(verdict, c->name);
        assert_int_equal(result, VERIFY_ACCEPTED);
        assert_memory_equal(facts.key_name.bytes, forge->agent.name.bytes, forge->agent.name.len);
        assert_int_equal(facts.quote.clock.reset_count, forge->clock.reset_count);
    } else {
        assert_refused(verdict, c->reason, c->name);
        assert_int_equal(result, VERIFY_REFUSED);
        const uint8_t *bytes = (const uint8_t *)&facts;
        for (size_t i = 0; i < sizeof(facts); i++) {
            assert_int_equal(bytes[i], 0x5a); /* ret_x is untouched on failure */
        }
    }
    forge_free(forge);
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        run(&cases[i], FORGE_EK_P256);
    }
}

static void test_facts(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_agent_facts facts = {0};
    forge_build(forge, honest_resumed);
    assert_int_equal(verify_agent(&forge->agent_in, verdict, &facts), VERIFY_ACCEPTED);
    att_autobuf spki = {0};
    forge_spki(forge->agent.pkey, &spki);
    assert_true(att_slice_eq(ATT_SLICE(facts.spki, facts.spki_len), att_buf_slice(&spki)));
    assert_string_equal(facts.key_store, "tpm");
    assert_string_equal(facts.quote.boot, "forge");
    assert_int_equal(facts.quote.policy_version, 3);
    assert_true(facts.quote.resumed);
    assert_int_equal(facts.level, 1);
    assert_true(facts.have_manifest_root);
    assert_memory_equal(facts.manifest_root, forge->statement.manifest_root, ATT_SHA256_LEN);
    uint8_t manifest[ATT_SHA256_LEN];
    assert_int_equal(verify_manifest_sha256(&forge->logs, manifest, NULL), ATT_OK);
    assert_memory_equal(facts.quote.manifest_sha256, manifest, sizeof(manifest));
    forge_free(forge);
}

/* Skipped is said, with why. */
static void test_skips_say_why(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    forge_build(forge, honest_boot_none);
    forge->agent_in.boot.logs = 0;
    forge->agent_in.no_parents = true;
    forge->agent_in.ak.clock = NULL;
    struct verify_agent_facts facts;
    assert_int_equal(verify_agent(&forge->agent_in, verdict, &facts), VERIFY_ACCEPTED);
    assert_string_equal(facts.quote.boot, "none");
    static const enum verify_reason skipped[] = {
        VERIFY_REASON_KEY_PARENT,     VERIFY_REASON_TPM_CLEARED,    VERIFY_REASON_CLOCK_ROLLBACK,
        VERIFY_REASON_AK_STALE,       VERIFY_REASON_LOG_MISSING,    VERIFY_REASON_LOG_REPLAY,
        VERIFY_REASON_POLICY_MISSING, VERIFY_REASON_POLICY_EXPIRED, VERIFY_REASON_BOOT_POLICY};
    for (size_t i = 0; i < sizeof(skipped) / sizeof(skipped[0]); i++) {
        const struct verify_check *check = find_check(verdict, skipped[i]);
        assert_int_equal(check->outcome, VERIFY_SKIP);
        assert_true(check->detail[0] != '\0');
    }
    forge_free(forge);
}

/* Policy findings are collected, all of them. */
static void test_findings(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    forge_build(forge, policy_expired);
    forge->policy->pcrs[0].values[1][0] ^= 1;
    forge->policy->pcrs[7].values[1][0] ^= 1;
    assert_int_equal(verify_agent(&forge->agent_in, verdict, NULL), VERIFY_REFUSED);
    unsigned expired = 0, boot = 0;
    for (size_t i = 0; i < verdict->n_checks; i++) {
        const struct verify_check *check = &verdict->checks[i];
        expired += check->reason == VERIFY_REASON_POLICY_EXPIRED;
        if (check->reason == VERIFY_REASON_BOOT_POLICY) {
            assert_int_equal(check->outcome, VERIFY_FAIL);
            assert_non_null(strstr(check->detail, boot ? "pcr7" : "pcr0"));
            boot++;
        }
    }
    assert_int_equal(expired, 1);
    assert_int_equal(boot, 2);
    forge_free(forge);
}

static void test_replay_names_event(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    forge_build(forge, log_payload_rewritten);
    assert_int_equal(verify_agent(&forge->agent_in, verdict, NULL), VERIFY_REFUSED);
    const char *detail = verify_verdict_refusal(verdict)->detail;
    assert_non_null(strstr(detail, "pcr7 event 3"));
    assert_non_null(strstr(detail, "payload does not match its digest"));
    forge_free(forge);
}

/* Nothing more is run on a verdict that failed already. */
static void test_stops(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    forge_build(forge, NULL);
    verify_fail(verdict, VERIFY_REASON_HOST_BANNED, "banned");
    assert_int_equal(verify_agent(&forge->agent_in, verdict, NULL), VERIFY_REFUSED);
    assert_int_equal(verdict->n_checks, 1);
    forge_free(forge);
}

static int setup(void **state)
{
    (void)state;
    stranger = forge_p256();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    EVP_PKEY_free(stranger);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_skips_say_why),
        cmocka_unit_test(test_findings),
        cmocka_unit_test(test_replay_names_event),
        cmocka_unit_test(test_stops),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
