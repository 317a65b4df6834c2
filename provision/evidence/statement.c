#include "provision/evidence/statement.h"

#include "provision/evidence/cbor.h"
#include "provision/evidence/manifest.h"

#include <stdlib.h>
#include <string.h>

/* In deterministic order: shorter names first, then bytewise. */
enum {
    HSM,
    LOGS,
    LEVEL,
    DEVICE,
    KEY_NAME,
    KEY_SPKI,
    HSM_TOKEN,
    KEY_STORE,
    SELECTORS,
    IDENTIFIER,
    COMMAND_LINE,
    HOST_LOG_HEAD,
    MANIFEST_ROOT,
    MEMBERS
};
static const char *const members[MEMBERS] = {
    "hsm",      "logs",      "level",      "device",      "keyName",     "keySpki",     "hsmToken",
    "keyStore", "selectors", "identifier", "commandLine", "hostLogHead", "manifestRoot"};
#define MAY                                                                                        \
    ((1u << HSM) | (1u << DEVICE) | (1u << KEY_NAME) | (1u << KEY_SPKI) | (1u << HSM_TOKEN) |      \
     (1u << COMMAND_LINE) | (1u << MANIFEST_ROOT))
#define MANDATORY ((size_t)MEMBERS - 7)
#define MUST      ((1u << MEMBERS) - 1 - MAY)

#define KEY_STORE_TPM "tpm"
#define KEY_STORE_HSM "hsm"
#define LEVEL_MAX     3

/* The words; which of them is good enough is the verifier's to say. */
static const char *const stores[] = {KEY_STORE_TPM, KEY_STORE_HSM, "memory", "exportable"};

void evidence_statement_done(struct evidence_statement *statement)
{
    if (statement) {
        for (size_t i = 0; i < EVIDENCE_SELECTORS_MAX; i++) {
            free(statement->selectors[i]);
        }
        evidence_logs_done(&statement->logs);
        *statement = (struct evidence_statement){0};
    }
}

static void put(const struct evidence_statement *s, struct att_buf *ret_cbor)
{
    evidence_cbor_put_map(ret_cbor, MANDATORY + (s->hsm[0] ? 1u : 0u) +
                                        (s->key_name_len ? 1u : 0u) + (s->has_key_spki ? 1u : 0u) +
                                        (s->has_hsm_token ? 1u : 0u) +
                                        (s->has_manifest_root ? 1u : 0u) +
                                        (s->has_device ? 1u : 0u) + (s->command_line[0] ? 1u : 0u));
    if (s->hsm[0]) {
        evidence_cbor_put_text(ret_cbor, members[HSM]);
        evidence_cbor_put_text(ret_cbor, s->hsm);
    }
    evidence_cbor_put_text(ret_cbor, members[LOGS]);
    evidence_manifest_put(&s->logs, ret_cbor);
    evidence_cbor_put_text(ret_cbor, members[LEVEL]);
    evidence_cbor_put_uint(ret_cbor, s->level);
    if (s->has_device) {
        evidence_cbor_put_text(ret_cbor, members[DEVICE]);
        evidence_cbor_put_array(ret_cbor, 2);
        evidence_cbor_put_uint(ret_cbor, s->device_major);
        evidence_cbor_put_uint(ret_cbor, s->device_minor);
    }
    if (s->key_name_len) {
        evidence_cbor_put_text(ret_cbor, members[KEY_NAME]);
        evidence_cbor_put_bytes(ret_cbor, ATT_SLICE(s->key_name, s->key_name_len));
    }
    if (s->has_key_spki) {
        evidence_cbor_put_text(ret_cbor, members[KEY_SPKI]);
        evidence_cbor_put_bytes(ret_cbor, ATT_SLICE_ARRAY(s->key_spki));
    }
    if (s->has_hsm_token) {
        evidence_cbor_put_text(ret_cbor, members[HSM_TOKEN]);
        evidence_cbor_put_array(ret_cbor, 3);
        evidence_cbor_put_text(ret_cbor, s->hsm_token.manufacturer);
        evidence_cbor_put_text(ret_cbor, s->hsm_token.model);
        evidence_cbor_put_text(ret_cbor, s->hsm_token.serial);
    }
    evidence_cbor_put_text(ret_cbor, members[KEY_STORE]);
    evidence_cbor_put_text(ret_cbor, s->key_store);
    evidence_cbor_put_text(ret_cbor, members[SELECTORS]);
    evidence_cbor_put_array(ret_cbor, s->n_selectors);
    for (size_t i = 0; i < s->n_selectors; i++) {
        evidence_cbor_put_text(ret_cbor, s->selectors[i]);
    }
    evidence_cbor_put_text(ret_cbor, members[IDENTIFIER]);
    evidence_cbor_put_text(ret_cbor, s->identifier);
    if (s->command_line[0]) {
        evidence_cbor_put_text(ret_cbor, members[COMMAND_LINE]);
        evidence_cbor_put_text(ret_cbor, s->command_line);
    }
    evidence_cbor_put_text(ret_cbor, members[HOST_LOG_HEAD]);
    evidence_cbor_put_bytes(ret_cbor, ATT_SLICE_ARRAY(s->host_log_head));
    if (s->has_manifest_root) {
        evidence_cbor_put_text(ret_cbor, members[MANIFEST_ROOT]);
        evidence_cbor_put_bytes(ret_cbor, ATT_SLICE_ARRAY(s->manifest_root));
    }
}

static bool known_store(const char *name)
{
    for (size_t i = 0; i < sizeof stores / sizeof stores[0]; i++) {
        if (strcmp(name, stores[i]) == 0) {
            return true;
        }
    }
    return false;
}

bool evidence_hsm_name_ok(const char *name)
{
    size_t len = strnlen(name, EVIDENCE_HSM_NAME_MAX + 1);
    return len > 0 && len <= EVIDENCE_HSM_NAME_MAX && !strchr("._-", name[0]) &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

bool evidence_hsm_token_equal(const struct evidence_hsm_token *a,
                              const struct evidence_hsm_token *b)
{
    return strcmp(a->manufacturer, b->manufacturer) == 0 && strcmp(a->model, b->model) == 0 &&
           strcmp(a->serial, b->serial) == 0;
}

static bool printable(const char *text)
{
    for (; *text; text++) {
        if (*text < 0x20 || *text > 0x7e) {
            return false;
        }
    }
    return true;
}

bool evidence_hsm_token_ok(const struct evidence_hsm_token *token)
{
    return printable(token->manufacturer) && printable(token->model) && printable(token->serial);
}

static enum att_rc check_hsm(const struct evidence_statement *s, enum att_rc code,
                             struct att_err *err)
{
    if (s->hsm[0] && strcmp(s->key_store, KEY_STORE_HSM) != 0) {
        return att_fail(err, code, "evidence: hsm goes with keyStore \"hsm\", found \"%s\"",
                        s->key_store);
    }
    if (s->hsm[0] && !evidence_hsm_name_ok(s->hsm)) {
        return att_fail(err, code, "evidence: hsm is no module's name");
    }
    if (s->has_hsm_token && !s->hsm[0]) {
        return att_fail(err, code, "evidence: hsmToken goes with hsm, which is not there");
    }
    if (s->has_hsm_token && !evidence_hsm_token_ok(&s->hsm_token)) {
        return att_fail(err, code, "evidence: hsmToken: expected printable ASCII");
    }
    return ATT_OK;
}

/* A key in a TPM is told by its Name, any other by its SubjectPublicKeyInfo, and never by both. */
static enum att_rc check_key(const struct evidence_statement *s, enum att_rc code,
                             struct att_err *err)
{
    if (!known_store(s->key_store)) {
        return att_fail(err, code,
                        "evidence: keyStore \"%s\", expected tpm, hsm, memory or exportable",
                        s->key_store);
    }
    bool tpm = strcmp(s->key_store, KEY_STORE_TPM) == 0;
    if (tpm == s->has_key_spki || tpm != (s->key_name_len > 0)) {
        return att_fail(err, code, "evidence: keyStore \"%s\" goes with %s, found %s%s%s",
                        s->key_store, tpm ? "keyName" : "keySpki", s->key_name_len ? "keyName" : "",
                        s->has_key_spki ? " keySpki" : "",
                        s->key_name_len || s->has_key_spki ? "" : "neither");
    }
    /* TPM 2.0 Part 2 clause 10.5: nameAlg ‖ digest of 32, 48 or 64 bytes. */
    if (tpm && s->key_name_len != 34 && s->key_name_len != 50 && s->key_name_len != 66) {
        return att_fail(err, code, "evidence: keyName of %zu bytes is no TPM Name",
                        s->key_name_len);
    }
    return ATT_OK;
}

/* Values, for both directions. */
static enum att_rc check(const struct evidence_statement *s, enum att_rc code, struct att_err *err)
{
    if (s->identifier[0] == 0) {
        return att_fail(err, code, "evidence: identifier is empty");
    }
    enum att_rc rc = check_key(s, code, err);
    rc = rc != ATT_OK ? rc : check_hsm(s, code, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (s->level > LEVEL_MAX) {
        return att_fail(err, code, "evidence: level %u, at most %d", s->level, LEVEL_MAX);
    }
    if (s->has_device && !s->has_manifest_root) {
        return att_fail(err, code, "evidence: device goes with manifestRoot");
    }
    return ATT_OK;
}

enum att_rc evidence_statement_encode(const struct evidence_statement *statement,
                                      struct att_buf *ret_cbor, struct att_err *err)
{
    enum att_rc rc = check(statement, ATT_E_INVAL, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (!evidence_text_ok(att_slice_str(statement->identifier))) {
        return att_fail(err, ATT_E_INVAL, "evidence: identifier is not plain UTF-8");
    }
    if (statement->command_line[0] && !evidence_text_ok(att_slice_str(statement->command_line))) {
        return att_fail(err, ATT_E_INVAL, "evidence: commandLine is not plain UTF-8");
    }
    if (statement->n_selectors > EVIDENCE_SELECTORS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "evidence: more than %d selectors",
                        EVIDENCE_SELECTORS_MAX);
    }
    for (size_t i = 0; i < statement->n_selectors; i++) {
        struct att_slice text = att_slice_str(statement->selectors[i]);
        if (text.len >= EVIDENCE_SELECTOR_LEN || !evidence_text_ok(text)) {
            return att_fail(err, ATT_E_INVAL, "evidence: selector %zu is too long or not UTF-8", i);
        }
    }
    size_t before = ret_cbor->len;
    put(statement, ret_cbor);
    rc = att_buf_ok(ret_cbor, err);
    if (rc == ATT_OK && ret_cbor->len - before > EVIDENCE_STATEMENT_MAX) {
        rc = att_fail(err, ATT_E_LIMIT, "evidence: %zu bytes, at most %zu", ret_cbor->len - before,
                      EVIDENCE_STATEMENT_MAX);
    }
    return rc;
}

static enum att_rc take_digest(struct evidence_cbor *cbor, const char *what,
                               uint8_t ret[ATT_SHA256_LEN], struct att_err *err)
{
    struct att_slice bytes = {0};
    enum att_rc rc = evidence_cbor_bytes(cbor, what, ATT_SHA256_LEN, &bytes, err);
    if (rc == ATT_OK && bytes.len != ATT_SHA256_LEN) {
        rc = att_fail(err, ATT_E_PARSE, "%s: expected 32 bytes, found %zu", what, bytes.len);
    }
    if (rc == ATT_OK) {
        memcpy(ret, bytes.ptr, ATT_SHA256_LEN);
    }
    return rc;
}

static enum att_rc take_selectors(struct evidence_cbor *cbor, struct evidence_statement *s,
                                  struct att_err *err)
{
    size_t n = 0;
    char text[EVIDENCE_SELECTOR_LEN];
    enum att_rc rc = evidence_cbor_array(cbor, "selectors", EVIDENCE_SELECTORS_MAX, &n, err);
    for (; rc == ATT_OK && s->n_selectors < n; s->n_selectors++) {
        rc = evidence_cbor_text(cbor, "selector", text, sizeof text, err);
        if (rc == ATT_OK && !(s->selectors[s->n_selectors] = strdup(text))) {
            rc = att_fail(err, ATT_E_NOMEM, "selectors: no memory");
        }
    }
    return rc;
}

/* Block device number, as stat tells it of the files. */
static enum att_rc take_device(struct evidence_cbor *cbor, struct evidence_statement *s,
                               struct att_err *err)
{
    size_t n = 0;
    uint64_t major = 0, minor = 0;
    enum att_rc rc = evidence_cbor_array(cbor, "device", 2, &n, err);
    if (rc == ATT_OK && n != 2) {
        rc = att_fail(err, ATT_E_PARSE, "device: expected [major, minor]");
    }
    if (rc == ATT_OK) {
        rc = evidence_cbor_uint(cbor, "device major", UINT32_MAX, &major, err);
    }
    if (rc == ATT_OK) {
        rc = evidence_cbor_uint(cbor, "device minor", UINT32_MAX, &minor, err);
    }
    s->has_device = true;
    s->device_major = (uint32_t)major;
    s->device_minor = (uint32_t)minor;
    return rc;
}

static enum att_rc take_command_line(struct evidence_cbor *cbor, struct evidence_statement *s,
                                     struct att_err *err)
{
    enum att_rc rc =
        evidence_cbor_text(cbor, "commandLine", s->command_line, sizeof s->command_line, err);
    return rc == ATT_OK && s->command_line[0] == 0
               ? att_fail(err, ATT_E_PARSE, "commandLine: empty")
               : rc;
}

static enum att_rc take_hsm(struct evidence_cbor *cbor, struct evidence_statement *s,
                            struct att_err *err)
{
    enum att_rc rc = evidence_cbor_text(cbor, "hsm", s->hsm, sizeof s->hsm, err);
    return rc == ATT_OK && s->hsm[0] == 0 ? att_fail(err, ATT_E_PARSE, "hsm: empty") : rc;
}

/* [manufacturer, model, serial] */
static enum att_rc take_hsm_token(struct evidence_cbor *cbor, struct evidence_statement *s,
                                  struct att_err *err)
{
    struct evidence_hsm_token *token = &s->hsm_token;
    size_t n = 0;
    enum att_rc rc = evidence_cbor_array(cbor, "hsmToken", 3, &n, err);
    if (rc == ATT_OK && n != 3) {
        rc = att_fail(err, ATT_E_PARSE, "hsmToken: expected [manufacturer, model, serial]");
    }
    if (rc == ATT_OK) {
        rc = evidence_cbor_text(cbor, "hsmToken manufacturer", token->manufacturer,
                                sizeof token->manufacturer, err);
    }
    if (rc == ATT_OK) {
        rc = evidence_cbor_text(cbor, "hsmToken model", token->model, sizeof token->model, err);
    }
    if (rc == ATT_OK) {
        rc = evidence_cbor_text(cbor, "hsmToken serial", token->serial, sizeof token->serial, err);
    }
    s->has_hsm_token = true;
    return rc;
}

static enum att_rc take_member(struct evidence_cbor *cbor, size_t member,
                               struct evidence_statement *s, struct att_err *err)
{
    struct att_slice bytes = {0};
    uint64_t level = 0;
    enum att_rc rc;
    switch (member) {
    case HSM:
        return take_hsm(cbor, s, err);
    case LOGS:
        return evidence_manifest_take(cbor, &s->logs, err);
    case LEVEL:
        rc = evidence_cbor_uint(cbor, "level", LEVEL_MAX, &level, err);
        s->level = (unsigned)level;
        return rc;
    case DEVICE:
        return take_device(cbor, s, err);
    case KEY_NAME:
        rc = evidence_cbor_bytes(cbor, "keyName", sizeof s->key_name, &bytes, err);
        if (rc == ATT_OK && bytes.len) {
            memcpy(s->key_name, bytes.ptr, bytes.len);
        }
        s->key_name_len = bytes.len;
        return rc == ATT_OK && bytes.len == 0 ? att_fail(err, ATT_E_PARSE, "keyName: empty") : rc;
    case KEY_SPKI:
        s->has_key_spki = true;
        return take_digest(cbor, "keySpki", s->key_spki, err);
    case HSM_TOKEN:
        return take_hsm_token(cbor, s, err);
    case KEY_STORE:
        return evidence_cbor_text(cbor, "keyStore", s->key_store, sizeof s->key_store, err);
    case SELECTORS:
        return take_selectors(cbor, s, err);
    case IDENTIFIER:
        return evidence_cbor_text(cbor, "identifier", s->identifier, sizeof s->identifier, err);
    case COMMAND_LINE:
        return take_command_line(cbor, s, err);
    case HOST_LOG_HEAD:
        return take_digest(cbor, "hostLogHead", s->host_log_head, err);
    default:
        s->has_manifest_root = true;
        return take_digest(cbor, "manifestRoot", s->manifest_root, err);
    }
}

static enum att_rc take(struct evidence_cbor *cbor, struct evidence_statement *s,
                        struct att_err *err)
{
    size_t n = 0, member = 0;
    unsigned seen = 0;
    enum att_rc rc = evidence_cbor_map(cbor, "evidence", MEMBERS, &n, err);
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        rc = evidence_cbor_key(cbor, "evidence", members, MEMBERS, &seen, &member, err);
        if (rc == ATT_OK) {
            rc = take_member(cbor, member, s, err);
        }
    }
    if (rc == ATT_OK) {
        rc = evidence_cbor_have("evidence", members, MUST, seen, err);
    }
    if (rc == ATT_OK) {
        rc = evidence_cbor_end(cbor, "evidence", err);
    }
    return rc == ATT_OK ? check(s, ATT_E_PARSE, err) : rc;
}

enum att_rc evidence_statement_parse(struct att_slice cbor,
                                     struct evidence_statement *ret_statement, struct att_err *err)
{
    if (cbor.len > EVIDENCE_STATEMENT_MAX) {
        return att_fail(err, ATT_E_LIMIT, "evidence: %zu bytes, at most %zu", cbor.len,
                        EVIDENCE_STATEMENT_MAX);
    }
    struct evidence_cbor reader = {cbor};
    struct evidence_statement statement = {0};
    att_autobuf again = ATT_BUF_INIT(EVIDENCE_STATEMENT_MAX + 1024);
    enum att_rc rc = take(&reader, &statement, err);
    if (rc == ATT_OK) {
        put(&statement, &again);
        if (!att_slice_eq(att_buf_slice(&again), cbor)) {
            rc = att_fail(err, ATT_E_PARSE, "evidence: not the deterministic encoding");
        }
    }
    if (rc != ATT_OK) {
        evidence_statement_done(&statement);
        return rc;
    }
    *ret_statement = statement;
    return ATT_OK;
}
