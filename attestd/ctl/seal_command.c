/* attestctl policy seal-sign, seal-recover, seal-show, seal-parent: signed PCR policies, by which a
 * TPM opens a host's keys. Needs no daemon and no TPM; the private key never leaves the machine
 * that signs. */
#include "attestd/ctl/ctl.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "tpm/parse/pcr_file.h"
#include "tpm/parse/pcr_policy.h"

#include <inttypes.h>
#include <openssl/bio.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REF_DEFAULT "attestd"
#define PCRS_MAX    ((size_t)1 << 22) /* of a file with PCR values: an explained log is long */
#define KEY_MAX     65536

static const char *text_of(const struct ctl_args *args, const char *name)
{
    return json_string_value(json_object_get(args->json, name));
}

static void key_free(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}

static enum att_rc read_private(const char *path, EVP_PKEY **ret, struct att_err *err)
{
    att_autobuf pem = ATT_BUF_INIT(KEY_MAX);
    enum att_rc rc = att_io_read_file(path, KEY_MAX, &pem, err);
    if (rc != ATT_OK) {
        return rc;
    }
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    *ret = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    OPENSSL_cleanse(pem.ptr, pem.len);
    return *ret ? ATT_OK
                : att_fail_openssl(err, ATT_E_PARSE, "%s: expected a PEM private key", path);
}

static enum att_rc read_public(const char *path, struct parse_public *ret, struct att_err *err)
{
    att_autobuf pem = ATT_BUF_INIT(PARSE_POLICY_KEY_PEM_MAX);
    enum att_rc rc = att_io_read_file(path, PARSE_POLICY_KEY_PEM_MAX, &pem, err);
    if (rc == ATT_OK) {
        rc = parse_seal_policy_key_pem(att_buf_slice(&pem), ret, err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "%s", path);
        }
    }
    return rc;
}

/* ---- PCR values of a boot ------------------------------------------------------------------ */

/* Of what the file has, the selected ones. */
static enum att_rc select_values(const struct parse_pcr_set *have, const struct parse_pcr_sel *sel,
                                 struct parse_pcr_set *ret, struct att_err *err)
{
    uint32_t lacking = sel->mask & ~have->sel.mask;
    if (have->sel.bank != sel->bank || lacking) {
        char text[PARSE_PCR_TEXT_MAX] = "another bank";
        const struct parse_pcr_sel missing = {sel->bank, lacking};
        if (have->sel.bank == sel->bank) {
            (void)!parse_pcr_sel_text(&missing, text, NULL);
        }
        return att_fail(err, ATT_E_PARSE, "it has no values of %s", text);
    }
    *ret = (struct parse_pcr_set){.sel = *sel, .digest_len = have->digest_len};
    for (unsigned i = 0; i < PARSE_PCR_COUNT; i++) {
        if (sel->mask & 1u << i) {
            memcpy(ret->value[i], have->value[i], have->digest_len);
        }
    }
    return ATT_OK;
}

/* {"sha256": {…}}, or that as the member "pcrs": of eventlog show --json, of what status says of a
 * sealed host. An explained log may have several banks. */
static enum att_rc values_from_json(struct att_slice text, const struct parse_pcr_sel *sel,
                                    struct parse_pcr_set *ret, struct att_err *err)
{
    att_autojson *root = NULL;
    att_autojson *bank = json_object();
    struct parse_pcr_set have;
    enum att_rc rc = att_json_parse(text, PCRS_MAX, &root, err);
    if (rc != ATT_OK) {
        return rc;
    }
    json_t *pcrs = json_object_get(root, "pcrs");
    json_t *values = json_object_get(pcrs ? pcrs : root, parse_alg_name(sel->bank));
    if (!values || json_object_set(bank, parse_alg_name(sel->bank), values) != 0) {
        return att_fail(err, ATT_E_PARSE, "it has no PCR values of bank %s",
                        parse_alg_name(sel->bank));
    }
    rc = parse_pcr_set_from_json(bank, NULL, &have, err);
    return rc == ATT_OK ? select_values(&have, sel, ret, err) : rc;
}

static enum att_rc values_from_file(const char *path, const struct parse_pcr_sel *sel,
                                    struct parse_pcr_set *ret, struct att_err *err)
{
    att_autobuf bytes = ATT_BUF_INIT(PCRS_MAX);
    struct att_err why = {0};
    enum att_rc rc = att_io_read_file(path, PCRS_MAX, &bytes, err);
    if (rc != ATT_OK) {
        return rc;
    }
    bool json = bytes.len && (bytes.ptr[0] == '{' || bytes.ptr[0] == '\n' || bytes.ptr[0] == ' ');
    rc = json ? values_from_json(att_buf_slice(&bytes), sel, ret, &why)
              : parse_pcr_file_parse(att_buf_slice(&bytes), sel, ret, &why);
    return rc == ATT_OK ? rc : att_fail(err, rc, "%s: %s", path, why.msg);
}

static enum att_rc take_boot(const char *word, const struct parse_pcr_sel *sel,
                             struct parse_pcr_boot *ret, struct att_err *err)
{
    const char *equals = strchr(word, '=');
    size_t len = equals ? (size_t)(equals - word) : 0;
    if (len < 1 || len > PARSE_PCR_POLICY_NAME_MAX) {
        return att_fail(err, ATT_E_INVAL, "\"%.80s\": expected LABEL=FILE", word);
    }
    memcpy(ret->label, word, len);
    ret->label[len] = 0;
    return values_from_file(equals + 1, sel, &ret->pcrs, err);
}

static enum att_rc take_boots(char **words, const struct parse_pcr_sel *sel,
                              struct parse_pcr_policy *policy, struct att_err *err)
{
    size_t n = 0;
    while (words && words[n]) {
        n++;
    }
    if (n < 1 || n > PARSE_PCR_POLICY_BOOTS_MAX) {
        return att_fail(err, ATT_E_INVAL, "expected -- and 1-%d times LABEL=FILE behind it",
                        PARSE_PCR_POLICY_BOOTS_MAX);
    }
    policy->boots = calloc(n, sizeof *policy->boots);
    if (!policy->boots) {
        return att_fail(err, ATT_E_NOMEM, "boots");
    }
    policy->n_boots = n;
    for (size_t i = 0; i < n; i++) {
        enum att_rc rc = take_boot(words[i], sel, &policy->boots[i], err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    return ATT_OK;
}

/* ---- signing ------------------------------------------------------------------------------- */

static enum att_rc copy(const char *from, char *ret, size_t room, const char *what,
                        struct att_err *err)
{
    if (strlen(from) >= room) {
        return att_fail(err, ATT_E_INVAL, "--%s: at most %zu characters", what, room - 1);
    }
    memcpy(ret, from, strlen(from) + 1);
    return ATT_OK;
}

static enum att_rc take_number(const struct ctl_args *args, const char *name, uint32_t *ret,
                               struct att_err *err)
{
    json_int_t n = json_integer_value(json_object_get(args->json, name));
    if (n < 0 || n > UINT32_MAX) {
        return att_fail(err, ATT_E_INVAL, "--%s: expected 0-%u", name, UINT32_MAX);
    }
    *ret = (uint32_t)n;
    return ATT_OK;
}

static enum att_rc take_counter(const char *word, uint32_t *ret, struct att_err *err)
{
    char *end = NULL;
    unsigned long index = PARSE_SEAL_COUNTER_DEFAULT;
    if (word && strcmp(word, "none") == 0) {
        return ATT_OK;
    }
    if (word) {
        index = strtoul(word, &end, 16);
    }
    if ((end && *end) || index > UINT32_MAX || !parse_seal_counter_ok((uint32_t)index)) {
        return att_fail(err, ATT_E_INVAL,
                        "--counter: expected none or an NV index 0x01800000-0x01bfffff");
    }
    *ret = (uint32_t)index;
    return ATT_OK;
}

static enum att_rc fill(const struct ctl_args *args, bool recovery, struct parse_pcr_policy *policy,
                        struct att_err *err)
{
    struct parse_pcr_sel sel;
    const char *ref = text_of(args, "ref"), *until = text_of(args, "until");
    enum att_rc rc = copy(text_of(args, "name"), policy->name, sizeof policy->name, "name", err);
    if (rc == ATT_OK) {
        rc = copy(ref ? ref : REF_DEFAULT, policy->ref, sizeof policy->ref, "ref", err);
    }
    if (rc == ATT_OK) {
        rc = take_number(args, "version", &policy->version, err);
    }
    if (rc == ATT_OK && until) {
        rc = att_time_parse(until, &policy->not_after, err);
    }
    if (rc == ATT_OK && recovery) {
        policy->recovery = true;
        rc = take_number(args, "reset-count", &policy->reset_count, err);
    } else if (rc == ATT_OK) {
        rc = take_counter(text_of(args, "counter"), &policy->counter, err);
    }
    if (rc == ATT_OK) {
        rc = parse_pcr_sel_parse(text_of(args, "pcrs"), &sel, err);
    }
    return rc == ATT_OK ? take_boots(args->rest, &sel, policy, err) : rc;
}

static void boots_free(struct parse_pcr_policy *policy)
{
    free(policy->boots);
}

static enum ctl_exit make(const struct ctl_args *args, bool recovery)
{
    ATT_CLEANUP(boots_free) struct parse_pcr_policy policy = {0};
    ATT_CLEANUP(key_free) EVP_PKEY *key = NULL;
    att_autobuf text = {0};
    struct att_err err = {0};
    enum att_rc rc = fill(args, recovery, &policy, &err);
    if (rc == ATT_OK) {
        rc = read_private(text_of(args, "key"), &key, &err);
    }
    if (rc == ATT_OK) {
        rc = parse_pcr_policy_sign(&policy, key, &text, &err);
    }
    if (rc == ATT_OK) {
        rc = att_io_write_file(args->out, att_buf_slice(&text), 0644, &err);
    }
    if (rc != ATT_OK) {
        return ctl_report(&err);
    }
    printf("%s: %s %s version %" PRIu32 ", %zu boot%s%s\n", args->out,
           recovery ? "recovery approval" : "PCR policy", policy.name, policy.version,
           policy.n_boots, policy.n_boots == 1 ? "" : "s",
           recovery         ? ", for one boot of one TPM"
           : policy.counter ? ""
                            : ", without a counter: older ones stay valid");
    return CTL_OK;
}

static enum ctl_exit seal_sign(const struct ctl_ctx *ctx, const struct ctl_args *args,
                               const json_t *result)
{
    (void)ctx;
    (void)result;
    return make(args, false);
}

static enum ctl_exit seal_recover(const struct ctl_ctx *ctx, const struct ctl_args *args,
                                  const json_t *result)
{
    (void)ctx;
    (void)result;
    return make(args, true);
}

/* ---- showing ------------------------------------------------------------------------------- */

static json_t *boots_json(const struct parse_pcr_policy *policy)
{
    json_t *list = json_array();
    for (size_t i = 0; i < policy->n_boots; i++) {
        json_t *pcrs = NULL;
        if (parse_pcr_set_json(&policy->boots[i].pcrs, &pcrs, NULL) == ATT_OK) {
            json_array_append_new(
                list, json_pack("{s:s, s:o}", "label", policy->boots[i].label, "pcrs", pcrs));
        }
    }
    return list;
}

static json_t *policy_json(const struct parse_pcr_policy *policy, bool checked)
{
    char digest[65], key[2 * sizeof policy->key.bytes + 1], after[ATT_TIME_TEXT_LEN] = "";
    att_hex(digest, ATT_SLICE_ARRAY(policy->digest));
    att_hex(key, parse_name_slice(&policy->key));
    if (policy->not_after) {
        att_time_text(after, policy->not_after);
    }
    json_t *json =
        json_pack("{s:s, s:I, s:s, s:s, s:b, s:b, s:s, s:s, s:o}", "name", policy->name, "version",
                  (json_int_t)policy->version, "policyRef", policy->ref, "policyKey", key,
                  "recovery", (int)policy->recovery, "signatureChecked", (int)checked, "notAfter",
                  after, "digest", digest, "boots", boots_json(policy));
    if (policy->counter) {
        json_object_set_new(json, "counter", json_sprintf("0x%08" PRIx32, policy->counter));
    }
    if (policy->recovery) {
        json_object_set_new(json, "resetCount", json_integer((json_int_t)policy->reset_count));
    }
    return json;
}

static void print_policy(const struct parse_pcr_policy *policy, bool checked)
{
    printf("%s %s version %" PRIu32 ", policyRef %s\n",
           policy->recovery ? "recovery approval" : "PCR policy", policy->name, policy->version,
           policy->ref);
    if (policy->recovery) {
        printf("  for the boot with resetCount %" PRIu32 "\n", policy->reset_count);
    } else if (policy->counter) {
        printf("  refused by a host whose counter at 0x%08" PRIx32 " is above %" PRIu32 "\n",
               policy->counter, policy->version);
    } else {
        printf("  no counter: it can be replayed for ever\n");
    }
    printf("  signatures %s\n", checked ? "are the key's" : "not checked (no --key)");
    for (size_t i = 0; i < policy->n_boots; i++) {
        char text[PARSE_PCR_TEXT_MAX] = "";
        (void)!parse_pcr_sel_text(&policy->boots[i].pcrs.sel, text, NULL);
        printf("  boot %s (%s)\n", policy->boots[i].label, text);
        for (unsigned p = 0; p < PARSE_PCR_COUNT; p++) {
            char hex[2 * PARSE_DIGEST_MAX + 1];
            if (policy->boots[i].pcrs.sel.mask & 1u << p) {
                att_hex(hex, ATT_SLICE(policy->boots[i].pcrs.value[p],
                                       policy->boots[i].pcrs.digest_len));
                printf("    %2u  %s\n", p, hex);
            }
        }
    }
}

static enum ctl_exit seal_show(const struct ctl_ctx *ctx, const struct ctl_args *args,
                               const json_t *result)
{
    const char *path = text_of(args, "FILE"), *key_path = text_of(args, "key");
    parse_autopcrpolicy *policy = NULL;
    att_autobuf text = ATT_BUF_INIT(PARSE_PCR_POLICY_MAX);
    struct parse_public key;
    struct att_err err = {0};
    (void)result;
    enum att_rc rc = att_io_read_file(path, PARSE_PCR_POLICY_MAX, &text, &err);
    if (rc == ATT_OK) {
        rc = parse_pcr_policy_parse(att_buf_slice(&text), &policy, &err);
    }
    if (rc == ATT_OK && key_path) {
        rc = read_public(key_path, &key, &err);
        if (rc == ATT_OK) {
            rc = parse_pcr_policy_verify(policy, &key, NULL, &err);
        }
    }
    if (rc != ATT_OK) {
        return ctl_report(&err);
    }
    if (ctx->json) {
        att_autojson *json = policy_json(policy, key_path != NULL);
        ctl_print_json(json);
    } else {
        print_policy(policy, key_path != NULL);
    }
    return CTL_OK;
}

static enum ctl_exit seal_parent(const struct ctl_ctx *ctx, const struct ctl_args *args,
                                 const json_t *result)
{
    struct parse_public key;
    struct parse_name name;
    struct att_err err = {0};
    const char *ref = text_of(args, "ref");
    uint8_t policy[PARSE_POLICY_LEN];
    char hex[2 * PARSE_POLICY_LEN + 1], name_hex[2 * sizeof name.bytes + 1];
    (void)result;
    enum att_rc rc = read_public(text_of(args, "key"), &key, &err);
    if (rc == ATT_OK) {
        rc = parse_public_name(&key, &name, &err);
    }
    if (rc != ATT_OK) {
        return ctl_report(&err);
    }
    parse_seal_authorize(&name, att_slice_str(ref ? ref : REF_DEFAULT), policy);
    att_hex(hex, ATT_SLICE_ARRAY(policy));
    att_hex(name_hex, parse_name_slice(&name));
    if (ctx->json) {
        att_autojson *json = json_pack("{s:s, s:s, s:s}", "parentPolicy", hex, "policyKey",
                                       name_hex, "policyRef", ref ? ref : REF_DEFAULT);
        ctl_print_json(json);
    } else {
        printf("%s\n", hex);
    }
    return CTL_OK;
}

const struct ctl_command ctl_seal_commands[] = {
    {.noun = "policy",
     .verb = "seal-sign",
     .help = "sign the boots in which hosts' sealed keys may be used: -- LABEL=FILE…",
     .params = {{CTL_OPTION, "key", NULL, true},
                {CTL_OPTION, "name", NULL, true},
                {CTL_NUMBER, "version", NULL, true},
                {CTL_OPTION, "pcrs", NULL, true},
                {CTL_OPTION, "out", NULL, true},
                {CTL_OPTION, "ref", NULL, false},
                {CTL_OPTION, "counter", NULL, false},
                {CTL_OPTION, "until", NULL, false}},
     .takes_rest = true,
     .show = seal_sign},
    {.noun = "policy",
     .verb = "seal-recover",
     .help = "sign a recovery approval, for one boot of one TPM: -- LABEL=FILE",
     .params = {{CTL_OPTION, "key", NULL, true},
                {CTL_OPTION, "name", NULL, true},
                {CTL_NUMBER, "version", NULL, true},
                {CTL_OPTION, "pcrs", NULL, true},
                {CTL_OPTION, "out", NULL, true},
                {CTL_NUMBER, "reset-count", NULL, true},
                {CTL_OPTION, "until", NULL, true},
                {CTL_OPTION, "ref", NULL, false}},
     .takes_rest = true,
     .show = seal_recover},
    {.noun = "policy",
     .verb = "seal-show",
     .help = "what a signed PCR policy says; with --key, whether that key signed it",
     .params = {{CTL_POSITIONAL, "FILE", NULL, true}, {CTL_OPTION, "key", NULL, false}},
     .show = seal_show},
    {.noun = "policy",
     .verb = "seal-parent",
     .help = "the authPolicy of storage parents under a policy key, for parent_policy of a profile",
     .params = {{CTL_OPTION, "key", NULL, true}, {CTL_OPTION, "ref", NULL, false}},
     .show = seal_parent},
    {.noun = NULL},
};
