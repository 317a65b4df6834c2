/* The smaller parts of objects.h: status words, identifiers, what evidence is wanted. */
#include "provision/acme/objects.h"

#include "attestd/base/enc.h"
#include "provision/acme/member.h"

#include <stdio.h>
#include <string.h>

static const char *const status_words[] = {
    [ACME_S_NONE] = "",
    [ACME_S_PENDING] = "pending",
    [ACME_S_READY] = "ready",
    [ACME_S_PROCESSING] = "processing",
    [ACME_S_VALID] = "valid",
    [ACME_S_INVALID] = "invalid",
    [ACME_S_DEACTIVATED] = "deactivated",
    [ACME_S_EXPIRED] = "expired",
    [ACME_S_REVOKED] = "revoked",
};
#define STATUS_COUNT (sizeof status_words / sizeof status_words[0])

const char *acme_status_word(enum acme_status status)
{
    return (size_t)status < STATUS_COUNT ? status_words[status] : "";
}

enum acme_status acme_status_by_word(const char *word)
{
    for (size_t i = 1; word && i < STATUS_COUNT; i++) {
        if (strcmp(status_words[i], word) == 0) {
            return (enum acme_status)i;
        }
    }
    return ACME_S_NONE;
}

void acme_key_authorization(const char *token, const char *thumbprint, struct att_buf *ret_text)
{
    att_buf_put_str(ret_text, token);
    att_buf_u8(ret_text, '.');
    att_buf_put_str(ret_text, thumbprint);
}

/* ---- identifiers -------------------------------------------------------------------------------
 */
enum att_rc acme_identifier_parse(const json_t *json, struct acme_identifier *ret_id,
                                  struct att_err *err)
{
    struct acme_identifier id = {0};
    enum att_rc rc = acme_member_fixed(json, "type", id.type, sizeof id.type, err);
    if (rc == ATT_OK) {
        rc = acme_member_fixed(json, "value", id.value, sizeof id.value, err);
    }
    if (rc == ATT_OK) {
        *ret_id = id;
    } else {
        att_err_prefix(err, "identifier");
    }
    return rc;
}

enum att_rc acme_identifier_encode(const struct acme_identifier *id, json_t **ret_json,
                                   struct att_err *err)
{
    json_t *json = json_pack("{s:s, s:s}", "type", id->type, "value", id->value);
    if (!json) {
        return att_fail(err, ATT_E_INVAL, "identifier: not UTF-8, or no memory");
    }
    *ret_json = json;
    return ATT_OK;
}

/* ---- what is wanted ----------------------------------------------------------------------------
 */
static enum att_rc parse_names(const json_t *array, struct acme_wanted *wanted, struct att_err *err)
{
    if (array && (!json_is_array(array) || json_array_size(array) > ACME_LOGS_MAX)) {
        return att_fail(err, ATT_E_PARSE, "\"logs\": expected an array of at most %d names",
                        ACME_LOGS_MAX);
    }
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *name = json_string_value(json_array_get(array, i));
        if (!name || strlen(name) >= ACME_LOG_NAME_LEN || !acme_text_ok(name)) {
            return att_fail(err, ATT_E_PARSE, "\"logs\": name %zu is no log's name", i);
        }
        memcpy(wanted->logs[wanted->n_logs++], name, strlen(name) + 1);
    }
    return ATT_OK;
}

static enum att_rc parse_known(const json_t *array, struct acme_wanted *wanted, struct att_err *err)
{
    if (array && (!json_is_array(array) || json_array_size(array) > ACME_KNOWN_MAX)) {
        return att_fail(err, ATT_E_PARSE, "\"known\": expected an array of at most %d digests",
                        ACME_KNOWN_MAX);
    }
    for (size_t i = 0; i < json_array_size(array); i++) {
        enum att_rc rc = att_unhex_exact(wanted->known[wanted->n_known], 32,
                                         json_string_value(json_array_get(array, i)), err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "\"known\"");
            return rc;
        }
        wanted->n_known++;
    }
    return ATT_OK;
}

static enum att_rc parse_reads(const json_t *array, struct acme_wanted *wanted, struct att_err *err)
{
    if (array && (!json_is_array(array) || json_array_size(array) > ACME_READS_MAX)) {
        return att_fail(err, ATT_E_PARSE, "\"evidence\": expected an array of at most %d names",
                        ACME_READS_MAX);
    }
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *name = json_string_value(json_array_get(array, i));
        if (!name) {
            return att_fail(err, ATT_E_PARSE, "\"evidence\": name %zu is no text", i);
        }
        wanted->reads_hsm |= strcmp(name, "hsm") == 0;
        wanted->reads_hsm_token |= strcmp(name, "hsmToken") == 0;
    }
    return ATT_OK;
}

enum att_rc acme_wanted_parse(const json_t *obj, struct acme_wanted *ret_wanted,
                              struct att_err *err)
{
    struct acme_wanted wanted = {0};
    enum att_rc rc = ATT_OK;
    if (json_object_get(obj, "pcrSelection")) {
        rc = acme_member_fixed(obj, "pcrSelection", wanted.pcr_selection,
                               sizeof wanted.pcr_selection, err);
    }
    if (rc == ATT_OK) {
        rc = parse_names(json_object_get(obj, "logs"), &wanted, err);
    }
    if (rc == ATT_OK) {
        rc = parse_known(json_object_get(obj, "known"), &wanted, err);
    }
    if (rc == ATT_OK) {
        rc = parse_reads(json_object_get(obj, "evidence"), &wanted, err);
    }
    if (rc == ATT_OK) {
        *ret_wanted = wanted;
    }
    return rc;
}

enum att_rc acme_wanted_encode(const struct acme_wanted *wanted, json_t *obj, struct att_err *err)
{
    if (wanted->n_logs > ACME_LOGS_MAX || wanted->n_known > ACME_KNOWN_MAX) {
        return att_fail(err, ATT_E_INVAL, "more than %d logs or %d digests", ACME_LOGS_MAX,
                        ACME_KNOWN_MAX);
    }
    if (!wanted->pcr_selection[0]) {
        return ATT_OK;
    }
    json_t *logs = json_array(), *known = json_array();
    int bad = acme_put_text(obj, "pcrSelection", wanted->pcr_selection);
    for (size_t i = 0; i < wanted->n_logs; i++) {
        bad |= json_array_append_new(logs, json_string(wanted->logs[i]));
    }
    for (size_t i = 0; i < wanted->n_known; i++) {
        char hex[65];
        att_hex(hex, ATT_SLICE_ARRAY(wanted->known[i]));
        bad |= json_array_append_new(known, json_string(hex));
    }
    bad |= json_object_set_new(obj, "logs", logs);
    bad |= json_object_set_new(obj, "known", known);
    json_t *reads = json_array();
    if (wanted->reads_hsm) {
        bad |= json_array_append_new(reads, json_string("hsm"));
    }
    if (wanted->reads_hsm_token) {
        bad |= json_array_append_new(reads, json_string("hsmToken"));
    }
    if (!reads || json_array_size(reads)) {
        bad |= json_object_set(obj, "evidence", reads);
    }
    json_decref(reads);
    return bad ? att_fail(err, ATT_E_NOMEM, "pcrSelection, logs, known, evidence: no memory")
               : ATT_OK;
}
