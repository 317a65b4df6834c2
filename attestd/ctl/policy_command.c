/* attestctl policy show, sign, test: policies in files, without a daemon; dryrun and its output. */
#include "attestd/ctl/source.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/base/text.h"
#include "provision/verify/draft.h"
#include "provision/verify/policy_signed.h"

#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

static const char *arg(const struct ctl_args *args, const char *name)
{
    return json_string_value(json_object_get(args->json, name));
}

enum att_rc ctl_policy_load(const char *path, struct verify_policy **ret, struct att_buf *ret_text,
                            struct att_err *err)
{
    att_autobuf mine = ATT_BUF_INIT(VERIFY_POLICY_SIGNED_MAX);
    struct att_buf *text = ret_text ? ret_text : &mine;
    enum att_rc rc = att_io_read_file(path, VERIFY_POLICY_SIGNED_MAX, text, err);
    if (rc == ATT_OK) {
        rc = verify_policy_parse(att_buf_slice(text), ret, err);
        if (rc) {
            att_err_prefix(err, "%s", path);
        }
    }
    return rc ? rc : ctl_allowlists_beside(path, *ret, err);
}

/* ---- show ------------------------------------------------------------------------------------ */

static void print_window(int64_t from, int64_t until)
{
    char text[ATT_TIME_TEXT_LEN];
    if (from) {
        att_time_text(text, from);
        printf(" from %s", text);
    }
    if (until) {
        att_time_text(text, until);
        printf(" until %s", text);
    }
}

/* A file may be anybody's: nothing in it steers the terminal. */
static void print_text(const char *before, const char *text, const char *after)
{
    char clean[VERIFY_TEXT_MAX + 1];
    snprintf(clean, sizeof clean, "%s", text);
    att_text_clean(clean);
    printf("%s%s%s", before, clean, after);
}

static void print_variant(const struct verify_policy *policy, const struct verify_variant *variant)
{
    static const char *const kinds[] = {"?", "digest", "signer", "text", "pattern"};
    printf("      %-7s ", kinds[variant->kind]);
    if (variant->text) {
        print_text("\"", variant->text, "\"");
    } else {
        char hex[2 * PARSE_DIGEST_MAX + 1];
        att_hex(hex, ATT_SLICE(variant->digest, variant->kind == VERIFY_VARIANT_DIGEST
                                                    ? policy->digest_len
                                                    : ATT_SHA256_LEN));
        printf("%s", hex);
    }
    if (variant->label) {
        print_text("  (", variant->label, ")");
    }
    print_window(variant->not_before, variant->not_after);
    printf("\n");
}

static void print_pcrs(const char *what, uint32_t mask)
{
    if (mask) {
        printf("%s", what);
        for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
            if (mask >> pcr & 1) {
                printf(" %u", pcr);
            }
        }
        printf("\n");
    }
}

static void print_ima(const struct verify_imarule *rule)
{
    char hex[2 * ATT_SHA256_LEN + 1];
    if (!rule->given) {
        return;
    }
    printf("  pcr%-2d ima\n", PARSE_IMA_PCR);
    for (size_t i = 0; i < rule->n_lists; i++) {
        const struct verify_ima_allow *allow = &rule->lists[i];
        att_hex(hex, ATT_SLICE_ARRAY(allow->sha256));
        printf("      allowlist %s", hex);
        if (allow->label) {
            print_text("  (", allow->label, ")");
        }
        print_window(allow->not_before, allow->not_after);
        if (allow->list) {
            printf(", %zu entries\n", verify_imalist_count(allow->list));
        } else {
            printf(", not in this folder\n");
        }
    }
    for (size_t i = 0; i < rule->n_excludes; i++) {
        print_text("      excluded  ", rule->excludes[i].prefix, "");
        print_text("*  (", rule->excludes[i].reason, ")\n");
    }
    for (size_t i = 0; i < rule->n_keys; i++) {
        att_hex(hex, ATT_SLICE_ARRAY(rule->keys[i].cert_sha256));
        printf("      signed by certificate %s\n", hex);
    }
}

static void print_policy(const struct verify_policy *policy)
{
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE_ARRAY(policy->signer));
    printf("policy %s version %u, bank %s,%s", policy->name, policy->version,
           parse_alg_name(policy->bank), policy->is_signed ? " signed by " : " not signed");
    printf("%s", policy->is_signed ? hex : "");
    print_window(policy->not_before, policy->not_after);
    printf("\n");
    print_pcrs("PCRs by value:", policy->pcr_mask);
    print_pcrs("PCRs left open:", policy->unjudged);
    for (size_t i = 0; i < policy->components.n; i++) {
        const struct verify_component *c = &policy->components.list[i];
        printf("  pcr%-2u %-28s", c->pcr, c->id);
        print_text(" ", c->type, "");
        print_text(c->name[0] ? " " : "", c->name, "");
        printf(", %s%s%s\n", verify_count_word(c->count), c->severity ? ", " : "",
               c->severity ? verify_severity_word(c->severity) : "");
        for (size_t v = 0; v < c->n_variants; v++) {
            print_variant(policy, &c->variants[v]);
        }
    }
    print_ima(&policy->ima);
}

/* What a policy over PCR values in a TPM would name; PCRs whose values cannot be told are left out.
 */
static void print_values(const struct verify_policy *policy)
{
    uint8_t values[VERIFY_POLICY_VALUES_MAX][PARSE_DIGEST_MAX];
    size_t n = 0;
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if (verify_policy_values(policy, pcr, att_now_utc_s(), NULL, values, &n, NULL)) {
            continue;
        }
        for (size_t i = 0; i < n; i++) {
            char hex[2 * PARSE_DIGEST_MAX + 1];
            att_hex(hex, ATT_SLICE(values[i], policy->digest_len));
            printf("  pcr%-2u value now: %s\n", pcr, hex);
        }
    }
}

static bool is_path(const char *name)
{
    size_t len = strlen(name);
    return strchr(name, '/') || (len > 5 && strcmp(name + len - 5, ".json") == 0);
}

/* The issuer's by name; a file, which has a "/" or ends in .json, without asking anybody. */
enum ctl_exit ctl_policy_show(const struct ctl_ctx *ctx, const struct ctl_args *args,
                              const json_t *result)
{
    (void)result;
    verify_autopolicy *policy = NULL;
    struct att_err err = {0};
    const char *name = arg(args, "name");
    if (!is_path(name)) {
        att_autojson *answer = NULL;
        enum ctl_exit exit_code = ctl_call(ctx, true, "policy.show", args->json, &answer);
        if (exit_code == CTL_OK && ctx->json) {
            ctl_print_json(answer);
        } else if (exit_code == CTL_OK) {
            ctl_print_object(answer, 0);
        }
        return exit_code;
    }
    err.rc = ctl_policy_load(name, &policy, NULL, &err);
    if (err.rc) {
        return ctl_report(&err);
    }
    if (ctx->json) {
        char hex[2 * ATT_SHA256_LEN + 1];
        att_hex(hex, ATT_SLICE_ARRAY(policy->signer));
        att_autojson *json =
            json_pack("{s:b, s:O}", "signed", policy->is_signed, "policy", policy->json);
        if (policy->is_signed) {
            json_object_set_new(json, "signer", json_string(hex));
        }
        ctl_print_json(json);
    } else {
        print_policy(policy);
        print_values(policy);
    }
    return CTL_OK;
}

/* ---- sign ------------------------------------------------------------------------------------ */

static enum att_rc read_key(const char *path, EVP_PKEY **ret, struct att_err *err)
{
    FILE *file = fopen(path, "re");
    if (!file) {
        return att_fail(err, ATT_E_NOTFOUND, "%s: cannot be opened", path);
    }
    EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    (void)fclose(file);
    if (!key) {
        return att_fail_openssl(err, ATT_E_PARSE, "%s: no private key in PEM", path);
    }
    *ret = key;
    return ATT_OK;
}

enum ctl_exit ctl_policy_sign(const struct ctl_ctx *ctx, const struct ctl_args *args,
                              const json_t *result)
{
    (void)result;
    verify_autopolicy *policy = NULL;
    att_autobuf text = ATT_BUF_INIT(VERIFY_POLICY_SIGNED_MAX), envelope = {0};
    uint8_t signer[ATT_SHA256_LEN];
    char hex[2 * ATT_SHA256_LEN + 1];
    EVP_PKEY *key = NULL;
    struct att_err err = {0};
    enum att_rc rc = ctl_policy_load(arg(args, "policy"), &policy, &text, &err);
    rc = rc ? rc : read_key(arg(args, "key"), &key, &err);
    rc = rc ? rc : verify_policy_sign(att_buf_slice(&text), key, &envelope, signer, &err);
    EVP_PKEY_free(key);
    rc = rc ? rc : att_io_write_file(args->out, att_buf_slice(&envelope), 0644, &err);
    if (rc) {
        err.rc = rc;
        return ctl_report(&err);
    }
    att_hex(hex, ATT_SLICE_ARRAY(signer));
    if (ctx->json) {
        att_autojson *json =
            json_pack("{s:s, s:s, s:I, s:s}", "file", args->out, "name", policy->name, "version",
                      (json_int_t)policy->version, "signer", hex);
        ctl_print_json(json);
    } else {
        printf("%s: policy %s version %u signed\npolicy_signers: [ \"%s\" ]\n", args->out,
               policy->name, policy->version, hex);
    }
    return CTL_OK;
}

/* ---- test ------------------------------------------------------------------------------------ */

enum att_rc ctl_signer_arg(const char *hex, uint8_t ret[1][ATT_SHA256_LEN], size_t *ret_n,
                           struct att_err *err)
{
    *ret_n = 0;
    if (!hex) {
        return ATT_OK;
    }
    struct att_err why = {0};
    if (att_unhex_exact(ret[0], ATT_SHA256_LEN, hex, &why)) {
        return att_fail(err, ATT_E_INVAL, "--policy-signer: expected 64 hex digits");
    }
    *ret_n = 1;
    return ATT_OK;
}

static enum ctl_exit print_verdict(const struct ctl_ctx *ctx, const struct verify_verdict *verdict)
{
    struct att_err err = {0};
    att_autojson *json = NULL;
    att_autobuf text = {0};
    if (ctx->json) {
        if (verify_verdict_json(verdict, &json, &err) != ATT_OK) {
            return ctl_report(&err);
        }
        ctl_print_json(json);
    } else {
        verify_verdict_text(verdict, &text);
        fputs(att_buf_cstr(&text) ? att_buf_cstr(&text) : "", stdout);
    }
    return verify_verdict_err(verdict, &err) == ATT_OK ? CTL_OK : ctl_report(&err);
}

enum ctl_exit ctl_policy_test(const struct ctl_ctx *ctx, const struct ctl_args *args,
                              const json_t *result)
{
    (void)result;
    verify_autopolicy *policy = NULL;
    verify_autoverdict *verdict = verify_verdict_new();
    ATT_CLEANUP(ctl_source_done) struct ctl_source source = {0};
    uint8_t signers[1][ATT_SHA256_LEN];
    struct verify_policy_in in = {.signers = (const uint8_t(*)[ATT_SHA256_LEN])signers};
    struct att_err err = {0};
    enum att_rc rc = verdict ? ctl_policy_load(arg(args, "policy"), &policy, NULL, &err)
                             : att_fail(&err, ATT_E_NOMEM, "no memory");
    rc = rc ? rc
            : ctl_source_read(arg(args, "source"), arg(args, "values"), arg(args, "pcrs"), &source,
                              &err);
    rc = rc ? rc : ctl_signer_arg(arg(args, "policy-signer"), signers, &in.n_signers, &err);
    in.now = att_now_utc_s();
    if (!rc && arg(args, "at")) {
        rc = att_time_parse(arg(args, "at"), &in.now, &err);
        if (rc) {
            att_err_prefix(&err, "--at");
        }
    }
    if (rc) {
        err.rc = rc;
        return ctl_report(&err);
    }
    in.policy = policy;
    in.quoted = &source.pcrs;
    (void)!verify_policy_try(&in, &source.logs, source.bits | policy->logs, verdict);
    if (source.replayed && !ctx->json) {
        printf("note: PCR values are those of the log itself, no TPM vouches for them\n");
    }
    return print_verdict(ctx, verdict);
}

/* ---- dryrun ---------------------------------------------------------------------------------- */

static const char *name_of(const json_t *host)
{
    const char *label = json_string_value(json_object_get(host, "label"));
    return label && *label ? "label" : "host";
}

static void print_host(const json_t *host)
{
    char label[100], outcome[32], at[40], detail[400];
    const json_t *findings = json_object_get(host, "findings");
    printf("%-7s %-24s %s  %s\n", ctl_text(host, "outcome", outcome, sizeof outcome),
           ctl_text(host, name_of(host), label, sizeof label), ctl_text(host, "at", at, sizeof at),
           json_object_get(host, "detail") ? ctl_text(host, "detail", detail, sizeof detail) : "");
    for (size_t i = 0; i < json_array_size(findings); i++) {
        const json_t *f = json_array_get(findings, i);
        char severity[32], id[64], remedy[300];
        printf("        %-6s %-20s %s\n               -> %s\n",
               ctl_text(f, "severity", severity, sizeof severity), ctl_text(f, "id", id, sizeof id),
               ctl_text(f, "detail", detail, sizeof detail),
               ctl_text(f, "remedy", remedy, sizeof remedy));
    }
}

static void add_up(json_t *total, const json_t *page)
{
    static const char *const counts[] = {"passed", "refused", "unknown"};
    for (size_t i = 0; i < 3; i++) {
        json_int_t n = json_integer_value(json_object_get(total, counts[i])) +
                       json_integer_value(json_object_get(page, counts[i]));
        json_object_set_new(total, counts[i], json_integer(n));
    }
    json_array_extend(json_object_get(total, "hosts"), json_object_get(page, "hosts"));
}

/* Page by page: a fleet does not fit one answer. Exit 1 where a host would be refused. */
enum ctl_exit ctl_policy_dryrun(const struct ctl_ctx *ctx, const struct ctl_args *args,
                                const json_t *result)
{
    (void)result;
    att_autojson *asked = json_copy(args->json), *total = json_pack("{s:[]}", "hosts");
    for (bool more = true; more;) {
        att_autojson *page = NULL;
        enum ctl_exit exit_code = ctl_call(ctx, true, "policy.dryrun", asked, &page);
        if (exit_code != CTL_OK) {
            return exit_code;
        }
        const json_t *hosts = json_object_get(page, "hosts");
        for (size_t i = 0; !ctx->json && i < json_array_size(hosts); i++) {
            print_host(json_array_get(hosts, i));
        }
        add_up(total, page);
        more = json_is_string(json_object_get(page, "next"));
        json_object_set(asked, "after", json_object_get(page, "next"));
    }
    json_int_t refused = json_integer_value(json_object_get(total, "refused"));
    if (ctx->json) {
        ctl_print_json(total);
    } else {
        printf("%lld pass, %lld would be refused, %lld without evidence\n",
               (long long)json_integer_value(json_object_get(total, "passed")), (long long)refused,
               (long long)json_integer_value(json_object_get(total, "unknown")));
    }
    return refused ? CTL_FAILED : CTL_OK;
}
