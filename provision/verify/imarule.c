#include "provision/verify/imarule.h"

#include "provision/verify/members.h"

#include <stdlib.h>
#include <string.h>

void verify_imarule_done(struct verify_imarule *rule)
{
    for (size_t i = 0; i < rule->n_lists; i++) {
        verify_imalist_free(rule->lists[i].list);
    }
    for (size_t i = 0; i < rule->n_keys; i++) {
        verify_imasig_key_done(&rule->keys[i]);
    }
    *rule = (struct verify_imarule){0};
}

/* A list member of at most max, and at least least where it is there; absent and it may be: 0. */
static enum att_rc list_of(const json_t *json, const char *member, size_t least, size_t max,
                           bool optional, const json_t **ret, struct att_err *err)
{
    const json_t *list = json_object_get(json, member);
    size_t n = json_array_size(list);
    if ((list || !optional) && (!json_is_array(list) || n < least || n > max)) {
        return att_fail(err, ATT_E_PARSE, "%s: expected a list of %zu-%zu", member, least, max);
    }
    *ret = list;
    return ATT_OK;
}

/* ---- allow lists ----------------------------------------------------------------------------- */

static enum att_rc allow_parse(const json_t *json, struct verify_imarule *rule,
                               struct verify_ima_allow *allow, struct att_err *err)
{
    static const char *const known[] = {"sha256", "label", "notBefore", "notAfter", NULL};
    enum att_rc rc = verify_member_only(json, known, err);
    rc = rc ? rc
            : verify_member_hex(json_object_get(json, "sha256"), "sha256", ATT_SHA256_LEN,
                                allow->sha256, err);
    rc = rc ? rc
            : verify_member_text(json, "label", VERIFY_IMA_REASON_MAX, true, &allow->label, err);
    rc = rc ? rc : verify_member_time(json, "notBefore", &allow->not_before, err);
    rc = rc ? rc : verify_member_time(json, "notAfter", &allow->not_after, err);
    if (!rc && allow->not_before && allow->not_after && allow->not_after <= allow->not_before) {
        rc = att_fail(err, ATT_E_PARSE, "notAfter is not after notBefore");
    }
    for (size_t i = 0; !rc && i < rule->n_lists; i++) {
        if (memcmp(rule->lists[i].sha256, allow->sha256, ATT_SHA256_LEN) == 0) {
            rc = att_fail(err, ATT_E_PARSE, "sha256: there is one before with this digest");
        }
    }
    return rc;
}

static enum att_rc allows_parse(const json_t *json, struct verify_imarule *rule,
                                struct att_err *err)
{
    const json_t *list = NULL;
    enum att_rc rc = list_of(json, "allowlists", 1, VERIFY_IMA_LISTS_MAX, false, &list, err);
    for (size_t i = 0; !rc && i < json_array_size(list); i++) {
        struct att_err why = {0};
        rc = allow_parse(json_array_get(list, i), rule, &rule->lists[i], &why);
        if (rc) {
            return att_fail(err, rc, "allowlists[%zu]: %s", i, why.msg);
        }
        rule->n_lists++;
    }
    return rc;
}

bool verify_ima_allow_valid(const struct verify_ima_allow *allow, int64_t now)
{
    return (!allow->not_before || now >= allow->not_before) &&
           (!allow->not_after || now <= allow->not_after);
}

const struct verify_ima_allow *verify_imarule_unbound(const struct verify_imarule *rule)
{
    for (size_t i = 0; i < rule->n_lists; i++) {
        if (!rule->lists[i].list) {
            return &rule->lists[i];
        }
    }
    return NULL;
}

void verify_imarule_bind(struct verify_imarule *rule, struct verify_imalist *list)
{
    for (size_t i = 0; i < rule->n_lists; i++) {
        struct verify_ima_allow *allow = &rule->lists[i];
        if (!allow->list &&
            memcmp(allow->sha256, verify_imalist_sha256(list), ATT_SHA256_LEN) == 0) {
            allow->list = verify_imalist_ref(list);
        }
    }
}

/* ---- what else is allowed -------------------------------------------------------------------- */

static enum att_rc exclude_parse(const json_t *json, struct verify_ima_exclude *exclude,
                                 struct att_err *err)
{
    static const char *const known[] = {"prefix", "reason", NULL};
    enum att_rc rc = verify_member_only(json, known, err);
    rc = rc ? rc
            : verify_member_text(json, "prefix", VERIFY_IMA_PREFIX_MAX, false, &exclude->prefix,
                                 err);
    rc = rc ? rc
            : verify_member_text(json, "reason", VERIFY_IMA_REASON_MAX, false, &exclude->reason,
                                 err);
    if (rc) {
        return rc;
    }
    exclude->len = strlen(exclude->prefix);
    if (exclude->prefix[0] != '/') {
        return att_fail(err, ATT_E_PARSE, "prefix: expected the beginning of a path, with \"/\"");
    }
    if (strcmp(exclude->prefix, "/") == 0) {
        return att_fail(err, ATT_E_PARSE, "prefix: \"/\" would exclude every file");
    }
    if (strchr(exclude->prefix, ' ')) {
        return att_fail(err, ATT_E_PARSE,
                        "prefix: it has a space, for which the kernel writes \"_\" in IMA's list");
    }
    return ATT_OK;
}

static enum att_rc excludes_parse(const json_t *json, struct verify_imarule *rule,
                                  struct att_err *err)
{
    const json_t *list = NULL;
    enum att_rc rc = list_of(json, "excludes", 0, VERIFY_IMA_EXCLUDES_MAX, true, &list, err);
    for (size_t i = 0; !rc && i < json_array_size(list); i++) {
        struct att_err why = {0};
        rc = exclude_parse(json_array_get(list, i), &rule->excludes[i], &why);
        if (rc) {
            return att_fail(err, rc, "excludes[%zu]: %s", i, why.msg);
        }
        rule->n_excludes++;
    }
    return rc;
}

/* All but "ima", whose digest is SHA-1 or MD5. */
static void default_templates(struct verify_imarule *rule)
{
    static const char *const names[] = {"ima-ng",  "ima-sig",  "ima-buf",  "ima-modsig",
                                        "evm-sig", "ima-ngv2", "ima-sigv2"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        rule->templates[rule->n_templates++] = parse_ima_template_by_name(att_slice_str(names[i]));
    }
}

static enum att_rc templates_parse(const json_t *json, struct verify_imarule *rule,
                                   struct att_err *err)
{
    const json_t *list = NULL;
    enum att_rc rc = list_of(json, "templates", 1, PARSE_IMA_TEMPLATES, true, &list, err);
    if (rc) {
        return rc;
    }
    if (!list) {
        default_templates(rule);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        const struct parse_ima_template *tmpl =
            name ? parse_ima_template_by_name(att_slice_str(name)) : NULL;
        bool twice = false;
        for (size_t k = 0; k < rule->n_templates; k++) {
            twice = twice || rule->templates[k] == tmpl;
        }
        if (!tmpl || twice || strcmp(tmpl->name, "ima") == 0) {
            return att_fail(err, ATT_E_PARSE,
                            "templates[%zu]: expected ima-ng, ima-sig, ima-buf, ima-modsig, "
                            "evm-sig, ima-ngv2 or ima-sigv2, each once (ima has SHA-1 only)",
                            i);
        }
        rule->templates[rule->n_templates++] = tmpl;
    }
    return ATT_OK;
}

static enum att_rc certificates_parse(const json_t *json, struct verify_imarule *rule,
                                      struct att_err *err)
{
    const json_t *list = NULL;
    enum att_rc rc = list_of(json, "certificates", 1, VERIFY_IMASIG_KEYS_MAX, true, &list, err);
    for (size_t i = 0; !rc && i < json_array_size(list); i++) {
        struct att_err why = {0};
        rc = verify_imasig_key_parse(json_string_value(json_array_get(list, i)), &rule->keys[i],
                                     &why);
        if (rc) {
            return att_fail(err, rc, "certificates[%zu]: %s", i, why.msg);
        }
        rule->n_keys++;
        for (size_t k = 0; k < i; k++) {
            if (memcmp(rule->keys[k].keyid, rule->keys[i].keyid, sizeof(rule->keys[i].keyid)) ==
                0) {
                return att_fail(err, ATT_E_PARSE,
                                "certificates[%zu]: its key has the id of certificates[%zu]'s", i,
                                k);
            }
        }
    }
    return rc;
}

enum att_rc verify_imarule_parse(const json_t *json, struct verify_imarule *ret,
                                 struct att_err *err)
{
    static const char *const known[] = {"allowlists", "excludes", "templates", "certificates",
                                        "severity",   "remedy",   NULL};
    struct att_err why = {0};
    if (!json) {
        *ret = (struct verify_imarule){0};
        return ATT_OK;
    }
    struct verify_imarule *rule = calloc(1, sizeof(*rule));
    if (!rule) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a boot policy");
    }
    rule->given = true;
    enum att_rc rc = verify_member_only(json, known, &why);
    rc = rc ? rc : allows_parse(json, rule, &why);
    rc = rc ? rc : excludes_parse(json, rule, &why);
    rc = rc ? rc : templates_parse(json, rule, &why);
    rc = rc ? rc : certificates_parse(json, rule, &why);
    rc = rc ? rc : verify_member_severity(json, &rule->severity, &why);
    rc = rc ? rc
            : verify_member_text(json, "remedy", VERIFY_REMEDY_MAX - 1, true, &rule->remedy, &why);
    if (rc) {
        verify_imarule_done(rule);
        free(rule);
        return att_fail(err, rc, "boot policy: ima: %s", why.msg);
    }
    *ret = *rule;
    free(rule);
    return ATT_OK;
}
