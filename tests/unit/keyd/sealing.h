/* A keyd with sealing on, its policy key and folder of policies. */
#ifndef ATT_TESTS_KEYD_SEALING_H
#define ATT_TESTS_KEYD_SEALING_H

#include "tests/unit/keyd/common.h"

#include "tpm/counter.h"
#include "tpm/parent.h"
#include "tpm/parse/pcr_policy.h"
#include "tpm/quote.h"
#include "tpm/tss2pem.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <signal.h>

#define REF   "attestd/test"
#define INDEX PARSE_SEAL_COUNTER_DEFAULT

static EVP_PKEY *policy_key, *strangers_key;

struct sealed {
    struct swtpm tpm;
    struct fixture f;
    char policies[200], pem[200];
    struct keyd_opts opts;
};

static inline struct parse_pcr_set pcrs_now(const struct sealed *s)
{
    struct tpm_context *ctx = NULL;
    struct att_err err = {0};
    const struct tpm_options options = {.tcti = s->tpm.tcti};
    const struct parse_pcr_sel sel = {PARSE_ALG_SHA256, 1u << 7 | 1u << 16};
    struct parse_pcr_set set;
    assert_ok(tpm_context_open(&options, &ctx, &err));
    assert_ok(tpm_quote_pcr_read(ctx, &sel, &set, &err));
    tpm_context_free(ctx);
    return set;
}

struct spec {
    const char *file;
    uint32_t version, counter;
    bool recovery, by_stranger;
    uint32_t reset_count;
    int64_t not_after;
    size_t boots; /* 0: one */
};

static inline void write_policy(const struct sealed *s, const struct spec *spec,
                                const struct parse_pcr_set *pcrs)
{
    struct parse_pcr_boot boots[PARSE_PCR_POLICY_BOOTS_MAX];
    size_t n = spec->boots ? spec->boots : 1;
    for (size_t i = 0; i < n; i++) { /* the last one is what is asked for */
        boots[i] = (struct parse_pcr_boot){.label = "good", .pcrs = *pcrs};
        boots[i].pcrs.value[16][0] ^= (uint8_t)(n - 1 - i);
        put(boots[i].label, sizeof boots[i].label, "good%zu", i);
    }
    struct parse_pcr_policy policy = {.name = "fleet",
                                      .version = spec->version,
                                      .ref = REF,
                                      .counter = spec->counter,
                                      .recovery = spec->recovery,
                                      .reset_count = spec->reset_count,
                                      .not_after = spec->not_after,
                                      .n_boots = n,
                                      .boots = boots};
    att_autobuf text = {0};
    struct att_err err = {0};
    char path[300];
    put(path, sizeof path, "%s/%s", s->policies, spec->file);
    assert_ok(parse_pcr_policy_sign(&policy, spec->by_stranger ? strangers_key : policy_key, &text,
                                    &err));
    assert_ok(att_io_write_file(path, att_buf_slice(&text), 0644, &err));
}

static inline void remove_policy(const struct sealed *s, const char *file)
{
    char path[300];
    put(path, sizeof path, "%s/%s", s->policies, file);
    assert_int_equal(unlink(path), 0);
}

/* keyd must be stopped: swtpm serves one. */
static inline void extend16(const struct sealed *s)
{
    static const char *const argv[] = {
        "tpm2_pcrextend",
        "16:sha256=00000000000000000000000000000000000000000000000000000000000000aa", NULL};
    assert_int_equal(swtpm_tool(&s->tpm, argv), 0);
}

static inline void reset16(const struct sealed *s)
{
    assert_int_equal(swtpm_tool(&s->tpm, (const char *const[]){"tpm2_pcrreset", "16", NULL}), 0);
}

static inline int setup(void **state)
{
    static const struct swtpm_options without_certs = {.no_ek_cert = true};
    struct sealed *s = calloc(1, sizeof *s);
    struct att_err err = {0};
    assert_ok(swtpm_new(&s->tpm, &without_certs, &err));
    s->f.tpm = &s->tpm;
    make_folder(&s->f);
    put(s->policies, sizeof s->policies, "%s/policies", s->f.base);
    put(s->pem, sizeof s->pem, "%s/policy.pem", s->f.base);
    assert_int_equal(mkdir(s->policies, 0755), 0);
    FILE *pem = fopen(s->pem, "w");
    assert_non_null(pem);
    assert_int_equal(PEM_write_PUBKEY(pem, policy_key), 1);
    assert_int_equal(fclose(pem), 0);
    s->opts = options(&s->f);
    s->opts.sealing = (struct keyd_sealing){KEYD_PCR_SIGNED, s->pem, REF, s->policies};
    *state = s;
    return 0;
}

static inline int teardown(void **state)
{
    struct sealed *s = *state;
    proc_keyd_free(s->f.client);
    stop(&s->f);
    remove_folder(s->f.base);
    swtpm_done(&s->tpm);
    free(s);
    return 0;
}

static inline json_t *sealing(struct fixture *f)
{
    json_t *info = NULL;
    struct att_err err = {0};
    assert_ok(proc_keyd_info(f->client, &info, &err));
    json_t *sealing = json_incref(json_object_get(info, "sealing"));
    json_decref(info);
    assert_non_null(sealing);
    return sealing;
}

static inline json_int_t number(struct fixture *f, const char *a, const char *b)
{
    json_t *json = sealing(f);
    const json_t *value = json_object_get(json, a);
    json_int_t n = json_integer_value(b ? json_object_get(value, b) : value);
    json_decref(json);
    return n;
}

static inline void file_state(struct fixture *f, const char *file, char ret[64])
{
    json_t *json = sealing(f);
    const json_t *list = json_object_get(json, "policies");
    snprintf(ret, 64, "not listed");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(one, "file")), file) == 0) {
            snprintf(ret, 64, "%s", json_string_value(json_object_get(one, "state")));
        }
    }
    json_decref(json);
}

static inline void why_sealed(struct fixture *f, char ret[512])
{
    att_autojson *info = NULL;
    struct att_err err = {0};
    assert_ok(proc_keyd_info(f->client, &info, &err));
    snprintf(ret, 512, "%s", json_string_value(json_object_get(info, "reason")));
}

/* An agent's key in use, its id. */
static inline void make_key(struct fixture *f, const char *agent, char ret_id[PROC_KEY_ID_LEN + 1])
{
    struct proc_key key = {0};
    struct att_err err = {0};
    assert_ok(proc_keyd_key_create(f->client, agent, "tpm", &key, &err));
    assert_ok(proc_keyd_key_activate(f->client, key.key_id, &err));
    memcpy(ret_id, key.key_id, PROC_KEY_ID_LEN + 1);
    proc_key_done(&key);
}

static inline enum att_rc signs(struct fixture *f, const char *id, const char *spiffe,
                                struct att_err *err)
{
    att_autobuf csr = {0};
    return proc_keyd_key_csr(f->client, id, spiffe, &csr, err);
}

static inline void parent_of(const struct fixture *f, const char *file, struct parse_name *ret)
{
    att_autobuf text = {0};
    tpm_autoblob blob = {0};
    struct att_err err = {0};
    read_whole(f, file, &text);
    assert_ok(tpm_tss2pem_parse(att_buf_slice(&text), &blob, &err));
    *ret = blob.parent_name;
}

static inline bool same_parent(const struct fixture *f, const char *file, const char *as)
{
    struct parse_name a, b;
    parent_of(f, file, &a);
    parent_of(f, as, &b);
    return att_slice_eq(parse_name_slice(&a), parse_name_slice(&b));
}

static const struct spec v1 = {.file = "a.json", .version = 1, .counter = INDEX};

static inline int group_setup(void **state)
{
    (void)state;
    policy_key = EVP_EC_gen("P-256");
    strangers_key = EVP_EC_gen("P-256");
    return !swtpm_available() || !policy_key || !strangers_key;
}

static inline int group_teardown(void **state)
{
    (void)state;
    EVP_PKEY_free(policy_key);
    EVP_PKEY_free(strangers_key);
    return 0;
}

#define WITH_TPM(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif
