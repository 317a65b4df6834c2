#include "provision/acme/problem.h"

#include "attestd/base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ACME_URN "urn:ietf:params:acme:error:"
#define OUR_URN  "urn:attestd:error:"

struct kind {
    const char *word;
    int status;
};

static const struct kind kinds[ACME_P_COUNT] = {
    [ACME_P_NONE] = {"", 500},
    [ACME_P_ACCOUNT_DOES_NOT_EXIST] = {"accountDoesNotExist", 400},
    [ACME_P_ALREADY_REPLACED] = {"alreadyReplaced", 409},
    [ACME_P_ALREADY_REVOKED] = {"alreadyRevoked", 400},
    [ACME_P_BAD_ATTESTATION_STATEMENT] = {"badAttestationStatement", 403},
    [ACME_P_BAD_CSR] = {"badCSR", 400},
    [ACME_P_BAD_NONCE] = {"badNonce", 400},
    [ACME_P_BAD_PUBLIC_KEY] = {"badPublicKey", 400},
    [ACME_P_BAD_REVOCATION_REASON] = {"badRevocationReason", 400},
    [ACME_P_BAD_SIGNATURE_ALGORITHM] = {"badSignatureAlgorithm", 400},
    [ACME_P_CAA] = {"caa", 403},
    [ACME_P_COMPOUND] = {"compound", 403},
    [ACME_P_CONNECTION] = {"connection", 400},
    [ACME_P_DNS] = {"dns", 400},
    [ACME_P_EXTERNAL_ACCOUNT_REQUIRED] = {"externalAccountRequired", 403},
    [ACME_P_INCORRECT_RESPONSE] = {"incorrectResponse", 403},
    [ACME_P_INVALID_CONTACT] = {"invalidContact", 400},
    [ACME_P_INVALID_PROFILE] = {"invalidProfile", 400},
    [ACME_P_MALFORMED] = {"malformed", 400},
    [ACME_P_ORDER_NOT_READY] = {"orderNotReady", 403},
    [ACME_P_RATE_LIMITED] = {"rateLimited", 429},
    [ACME_P_REJECTED_IDENTIFIER] = {"rejectedIdentifier", 403},
    [ACME_P_SERVER_INTERNAL] = {"serverInternal", 500},
    [ACME_P_TLS] = {"tls", 400},
    [ACME_P_UNAUTHORIZED] = {"unauthorized", 403},
    [ACME_P_UNSUPPORTED_CONTACT] = {"unsupportedContact", 400},
    [ACME_P_UNSUPPORTED_IDENTIFIER] = {"unsupportedIdentifier", 400},
    [ACME_P_USER_ACTION_REQUIRED] = {"userActionRequired", 403},
};

const char *acme_problem_word(enum acme_problem_type type)
{
    return (size_t)type < ACME_P_COUNT ? kinds[type].word : "";
}

enum acme_problem_type acme_problem_by_word(const char *word)
{
    for (size_t i = ACME_P_NONE + 1; word && i < ACME_P_COUNT; i++) {
        if (strcmp(kinds[i].word, word) == 0) {
            return (enum acme_problem_type)i;
        }
    }
    return ACME_P_NONE;
}

int acme_problem_status(enum acme_problem_type type)
{
    return (size_t)type < ACME_P_COUNT ? kinds[type].status : 500;
}

void acme_problem_set(struct acme_problem *ret_problem, enum acme_problem_type type,
                      const char *fmt, ...)
{
    *ret_problem = (struct acme_problem){.type = type, .status = acme_problem_status(type)};
    va_list args;
    va_start(args, fmt);
    vsnprintf(ret_problem->detail, sizeof ret_problem->detail, fmt, args);
    va_end(args);
    att_text_clean(ret_problem->detail); /* it may quote a peer, cut within a character */
}

void acme_problem_add(struct acme_problem *problem, const char *reason, const char *detail)
{
    if (problem->n_sub < ACME_SUBPROBLEMS_MAX) {
        struct acme_subproblem *sub = &problem->sub[problem->n_sub++];
        *sub = (struct acme_subproblem){0};
        snprintf(sub->reason, sizeof sub->reason, "%s", reason);
        snprintf(sub->detail, sizeof sub->detail, "%s", detail ? detail : "");
        att_text_clean(sub->detail);
    }
}

void acme_problem_add_name(struct acme_problem *problem, enum acme_problem_type type,
                           const char *dns, const char *detail)
{
    size_t before = problem->n_sub;
    acme_problem_add(problem, acme_problem_word(type), detail);
    if (problem->n_sub > before) {
        struct acme_subproblem *sub = &problem->sub[before];
        sub->acme = true;
        snprintf(sub->dns, sizeof sub->dns, "%.250s", dns);
        att_text_clean(sub->dns);
    }
}

static enum acme_problem_type type_of_rc(enum att_rc rc)
{
    switch (rc) {
    case ATT_E_PARSE:
    case ATT_E_INVAL:
    case ATT_E_LIMIT:
        return ACME_P_MALFORMED;
    case ATT_E_DENIED:
    case ATT_E_AUTH:
        return ACME_P_UNAUTHORIZED;
    case ATT_E_RETRY:
        return ACME_P_RATE_LIMITED;
    default:
        return ACME_P_SERVER_INTERNAL;
    }
}

void acme_problem_from_err(struct acme_problem *ret_problem, const struct att_err *err)
{
    enum acme_problem_type type = acme_problem_by_word(err->reason);
    if (type != ACME_P_NONE) {
        acme_problem_set(ret_problem, type, "%s", err->msg);
        return;
    }
    if (err->reason[0]) {
        acme_problem_set(ret_problem, ACME_P_BAD_ATTESTATION_STATEMENT,
                         "the evidence was refused: %s", err->reason);
        acme_problem_add(ret_problem, err->reason, err->msg);
        return;
    }
    type = type_of_rc(err->rc);
    /* What went wrong inside is for the log, not for whoever asked. */
    acme_problem_set(ret_problem, type, "%s",
                     type == ACME_P_SERVER_INTERNAL ? "the issuer failed; try later" : err->msg);
}

/* ---- to JSON --------------------------------------------------------------------------------- */
/* A detail may quote what a peer sent; jansson refuses text that is not UTF-8. */
static json_t *safe_string(const char *text)
{
    json_t *json = json_string(text);
    if (json) {
        return json;
    }
    char ascii[ACME_DETAIL_LEN];
    size_t len = strnlen(text, sizeof ascii - 1);
    for (size_t i = 0; i < len; i++) {
        ascii[i] = (char)(text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?');
    }
    return json_stringn(ascii, len);
}

static int add_type(json_t *obj, bool acme, const char *word)
{
    char urn[96];
    snprintf(urn, sizeof urn, "%s%s", acme ? ACME_URN : OUR_URN, word);
    return json_object_set_new(obj, "type", safe_string(urn));
}

static int add_subproblems(json_t *obj, const struct acme_problem *problem)
{
    json_t *array = json_array();
    int bad = 0;
    for (size_t i = 0; i < problem->n_sub && i < ACME_SUBPROBLEMS_MAX; i++) {
        json_t *sub = json_object();
        bad |= add_type(sub, problem->sub[i].acme, problem->sub[i].reason);
        bad |= json_object_set_new(sub, "detail", safe_string(problem->sub[i].detail));
        if (problem->sub[i].dns[0]) {
            json_t *id = json_pack("{s:s}", "type", "dns");
            bad |= json_object_set_new(id, "value", safe_string(problem->sub[i].dns));
            bad |= json_object_set_new(sub, "identifier", id);
        }
        bad |= json_array_append_new(array, sub);
    }
    return bad | json_object_set_new(obj, "subproblems", array);
}

enum att_rc acme_problem_encode(const struct acme_problem *problem, json_t **ret_json,
                                struct att_err *err)
{
    att_autojson *obj = json_object();
    int bad = 0;
    if (problem->type != ACME_P_NONE) {
        bad |= add_type(obj, true, acme_problem_word(problem->type));
    } else if (problem->reason[0]) {
        bad |= add_type(obj, false, problem->reason);
    } else {
        bad |= json_object_set_new(obj, "type", json_string("about:blank"));
    }
    bad |= json_object_set_new(obj, "status", json_integer(problem->status));
    bad |= json_object_set_new(obj, "detail", safe_string(problem->detail));
    if (problem->type == ACME_P_BAD_SIGNATURE_ALGORITHM) { /* RFC 8555 §6.2 */
        bad |= json_object_set_new(obj, "algorithms", json_pack("[s, s]", "ES256", "RS256"));
    }
    if (problem->n_sub) {
        bad |= add_subproblems(obj, problem);
    }
    if (!obj || bad) {
        return att_fail(err, ATT_E_NOMEM, "problem document: no memory");
    }
    *ret_json = obj;
    obj = NULL;
    return ATT_OK;
}

/* ---- from JSON ------------------------------------------------------------------------------- */
/* Copies what fits; nothing of a peer's text may steer a terminal or a log. */
static void copy_text(char *ret, size_t room, const json_t *text)
{
    const char *from = json_string_value(text);
    size_t len = from ? strnlen(from, room - 1) : 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)from[i];
        ret[i] = c < 0x20 || c == 0x7f ? '?' : from[i];
    }
    /* A character cut in the middle goes whole. */
    while (from && from[len] && len && ((unsigned char)from[len] & 0xc0) == 0x80) {
        len--;
    }
    ret[len] = 0;
}

/* The word of a type URN; *ret_acme tells which namespace. False for any other type. */
static bool type_word(const json_t *obj, char ret_word[ACME_REASON_LEN], bool *ret_acme)
{
    const char *urn = json_string_value(json_object_get(obj, "type"));
    if (!urn) {
        return false;
    }
    *ret_acme = strncmp(urn, ACME_URN, strlen(ACME_URN)) == 0;
    const char *prefix = *ret_acme ? ACME_URN : OUR_URN;
    const char *word = urn + strlen(prefix);
    if (strncmp(urn, prefix, strlen(prefix)) != 0 || strlen(word) >= ACME_REASON_LEN) {
        return false;
    }
    for (const char *c = word; *c; c++) {
        if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9'))) {
            return false;
        }
    }
    snprintf(ret_word, ACME_REASON_LEN, "%s", word);
    return word[0] != 0;
}

static void parse_subproblems(const json_t *array, struct acme_problem *problem)
{
    for (size_t i = 0; i < json_array_size(array) && problem->n_sub < ACME_SUBPROBLEMS_MAX; i++) {
        const json_t *obj = json_array_get(array, i);
        struct acme_subproblem sub = {0};
        if (type_word(obj, sub.reason, &sub.acme)) {
            const json_t *id = json_object_get(obj, "identifier");
            copy_text(sub.detail, sizeof sub.detail, json_object_get(obj, "detail"));
            copy_text(sub.dns, sizeof sub.dns, json_object_get(id, "value"));
            problem->sub[problem->n_sub++] = sub;
        }
    }
}

enum att_rc acme_problem_parse(struct att_slice text, struct acme_problem *ret_problem,
                               struct att_err *err)
{
    att_autojson *obj = NULL;
    enum att_rc rc = att_json_parse(text, ACME_PROBLEM_MAX, &obj, err);
    if (rc != ATT_OK) {
        return rc;
    }
    return acme_problem_parse_json(obj, ret_problem, err);
}

enum att_rc acme_problem_parse_json(const json_t *obj, struct acme_problem *ret_problem,
                                    struct att_err *err)
{
    if (!json_is_object(obj)) {
        return att_fail(err, ATT_E_PARSE, "problem document: expected an object");
    }
    struct acme_problem problem = {0};
    char word[ACME_REASON_LEN] = "";
    bool acme = false;
    if (type_word(obj, word, &acme)) {
        problem.type = acme ? acme_problem_by_word(word) : ACME_P_NONE;
        if (!acme) {
            memcpy(problem.reason, word, sizeof word);
        }
    }
    json_int_t status = json_integer_value(json_object_get(obj, "status"));
    problem.status = status >= 100 && status <= 599 ? (int)status : 0;
    copy_text(problem.detail, sizeof problem.detail, json_object_get(obj, "detail"));
    parse_subproblems(json_object_get(obj, "subproblems"), &problem);
    *ret_problem = problem;
    return ATT_OK;
}

/* ---- to an error ------------------------------------------------------------------------------
 */
static enum att_rc rc_of_type(const struct acme_problem *problem)
{
    switch (problem->type) {
    case ACME_P_RATE_LIMITED:
    case ACME_P_SERVER_INTERNAL:
        return ATT_E_RETRY;
    case ACME_P_ORDER_NOT_READY:
        return ATT_E_CONFLICT;
    case ACME_P_ACCOUNT_DOES_NOT_EXIST:
        return ATT_E_NOTFOUND;
    case ACME_P_MALFORMED:
    case ACME_P_BAD_NONCE:
    case ACME_P_BAD_PUBLIC_KEY:
    case ACME_P_BAD_SIGNATURE_ALGORITHM:
        return ATT_E_PROTOCOL;
    default:
        return problem->status >= 500 || problem->status == 429 ? ATT_E_RETRY : ATT_E_DENIED;
    }
}

/* Reasons that a new enrolment cures. */
static bool wants_enrolment(const char *reason)
{
    return strcmp(reason, "akUnknown") == 0 || strcmp(reason, "akStale") == 0 ||
           strcmp(reason, "activation") == 0;
}

enum att_rc acme_problem_to_err(const struct acme_problem *problem, struct att_err *err)
{
    const char *word = acme_problem_word(problem->type);
    const char *reason = problem->n_sub ? problem->sub[0].reason : "";
    if (!reason[0]) {
        reason = word[0] ? word : problem->reason;
    }
    const char *detail =
        problem->n_sub && problem->sub[0].detail[0] ? problem->sub[0].detail : problem->detail;
    enum att_rc rc = wants_enrolment(reason) ? ATT_E_REENROL : rc_of_type(problem);
    rc = att_fail_native(err, rc, ATT_DOM_HTTP, problem->status, "the issuer refused (%s): %s",
                         reason[0] ? reason : "no reason given", detail[0] ? detail : "no details");
    att_err_reason(err, reason);
    return rc;
}
