/* What is wrong with statement and key, for test_agent.c: each makes one thing wrong. Included
 * once. */
#ifndef ATTESTD_TESTS_VERIFY_AGENT_KEY_H
#define ATTESTD_TESTS_VERIFY_AGENT_KEY_H

#include "tpm/parse/seal_policy.h"
#include "tests/unit/verify/harness.h"

#include "provision/evidence/attobj.h"

#define AT(s)                                                                                      \
    if (stage != (s)) {                                                                            \
        return;                                                                                    \
    }

extern EVP_PKEY *stranger; /* a key that no TPM here holds */

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

/* PolicyPCR of PCR 7 with this value, as the parent's only policy. */
static inline void parent_by_pcr7(struct forge *f, const uint8_t value[PARSE_DIGEST_MAX])
{
    struct parse_pcr_set own = {.sel = {PARSE_ALG_SHA256, 1U << 7}, .digest_len = ATT_SHA256_LEN};
    struct parse_seal_branch branch = {.sel = own.sel};
    uint8_t digest[PARSE_DIGEST_MAX];
    size_t len = 0;
    memcpy(own.value[7], value, PARSE_DIGEST_MAX);
    assert_int_equal(parse_pcr_set_digest(&own, PARSE_ALG_SHA256, digest, &len, NULL), ATT_OK);
    memcpy(branch.pcr_digest, digest, sizeof(branch.pcr_digest));
    assert_int_equal(parse_seal_branch_digest(&branch, f->parent.pub.policy, NULL), ATT_OK);
    f->parent.pub.policy_len = PARSE_POLICY_LEN;
}

static void parent_pcr7_other(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        parent_by_pcr7(f, (const uint8_t[PARSE_DIGEST_MAX]){1});
    }
    if (stage == FORGE_DONE) {
        f->agent_in.parent_pcr7 = true;
    }
}

static void parent_pcr7_no_parent(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->no_parent = true;
    }
    if (stage == FORGE_DONE) {
        f->agent_in.parent_pcr7 = true;
    }
}

static void parent_pcr7_not_quoted(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.parent_pcr7 = true;
    f->pcrs.sel.mask &= ~(1U << 7);
}

#endif
