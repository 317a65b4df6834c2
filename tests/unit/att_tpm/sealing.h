/* A policy key and signed PCR policies for tests of the storage parent. */
#ifndef ATT_TESTS_UNIT_ATT_TPM_SEALING_H
#define ATT_TESTS_UNIT_ATT_TPM_SEALING_H

#include "tests/unit/att_tpm/common.h"
#include "tpm/counter.h"
#include "tpm/parent.h"
#include "tpm/quote.h"
#include "tpm/seal.h"

#include <openssl/ec.h>

#define TEST_REF     "attestd/test"
#define TEST_COUNTER PARSE_SEAL_COUNTER_DEFAULT

static const uint8_t counter_auth[] = {9, 8, 7, 6, 5};
#define COUNTER_AUTH ATT_SLICE_ARRAY(counter_auth)

struct policy_key {
    EVP_PKEY *pkey;
    struct parse_public pub;
    struct parse_name name;
    uint8_t authorize[PARSE_POLICY_LEN];
};

static inline void policy_key_new(struct policy_key *ret)
{
    ret->pkey = EVP_EC_gen("P-256");
    assert_non_null(ret->pkey);
    assert_ok(parse_seal_policy_key(ret->pkey, &ret->pub, err));
    assert_ok(parse_public_name(&ret->pub, &ret->name, err));
    parse_seal_authorize(&ret->name, att_slice_str(TEST_REF), ret->authorize);
}

static inline void policy_key_done(struct policy_key *key)
{
    EVP_PKEY_free(key->pkey);
    *key = (struct policy_key){0};
}

static inline struct parse_pcr_set pcrs_now(struct tpm_context *ctx, uint32_t mask)
{
    const struct parse_pcr_sel sel = {PARSE_ALG_SHA256, mask};
    struct parse_pcr_set set;
    assert_ok(tpm_quote_pcr_read(ctx, &sel, &set, err));
    return set;
}

/* A policy of one boot; {0} but for what the test sets. */
struct policy_spec {
    uint32_t version, counter;
    bool recovery;
    uint32_t reset_count;
};

/* Signed, read back and checked, appended to what opens the parent. */
static inline void add_policy(struct tpm_parent_policy *to, const struct policy_key *key,
                              const struct policy_spec *spec, const struct parse_pcr_set *pcrs)
{
    struct parse_pcr_boot boot = {.label = "good", .pcrs = *pcrs};
    struct parse_pcr_policy policy = {.name = "fleet",
                                      .version = spec->version,
                                      .ref = TEST_REF,
                                      .counter = spec->counter,
                                      .recovery = spec->recovery,
                                      .reset_count = spec->reset_count,
                                      .not_after = spec->recovery ? 4102444800 : 0,
                                      .n_boots = 1,
                                      .boots = &boot};
    att_autobuf text = {0};
    parse_autopcrpolicy *again = NULL;
    assert_ok(parse_pcr_policy_sign(&policy, key->pkey, &text, err));
    assert_ok(parse_pcr_policy_parse(att_buf_slice(&text), &again, err));
    assert_ok(parse_pcr_policy_verify(again, &key->pub, TEST_REF, err));
    assert_ok(tpm_parent_policy_add(to, again, err));
}

static inline void set_key(struct tpm_parent_policy *to, const struct policy_key *key)
{
    assert_ok(parse_public_encode(&key->pub, &to->key, err));
    memcpy(to->ref, TEST_REF, sizeof(TEST_REF));
}

/* The context gets this parent, opened by one policy of version 1 for the PCRs as they are. */
static inline void use_parent(struct tpm_context *ctx, const struct tpm_blob *parent,
                              const struct policy_key *key, const struct policy_spec *spec,
                              const struct parse_pcr_set *pcrs)
{
    struct tpm_parent_policy policy = {0};
    set_key(&policy, key);
    add_policy(&policy, key, spec, pcrs);
    assert_ok(tpm_parent_set(ctx, parent, &policy, err));
}

static inline void extend_pcr(struct tpm_context *ctx, unsigned pcr, uint8_t with)
{
    uint8_t digest[32];
    memset(digest, with, sizeof(digest));
    assert_ok(tpm_quote_pcr_extend(ctx, pcr, PARSE_ALG_SHA256, ATT_SLICE_ARRAY(digest), err));
}

static inline struct tpm_parent_stats stats_of(struct tpm_context *ctx)
{
    struct tpm_parent_stats stats;
    tpm_parent_stats(ctx, &stats);
    return stats;
}

#endif
