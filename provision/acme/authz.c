#include "provision/acme/member.h"
#include "provision/acme/objects.h"

#include "attestd/base/enc.h"

#include <stdlib.h>
#include <string.h>

#define TOKEN_LEN_MIN 22 /* 128 bits, RFC 8555 §8.3 */
#define TOKEN_LEN_MAX ((size_t)256)

/* ---- challenge ---------------------------------------------------------------------------------
 */
void acme_challenge_done(struct acme_challenge *challenge)
{
    if (challenge) {
        free(challenge->url);
        free(challenge->token);
        *challenge = (struct acme_challenge){0};
    }
}

static enum att_rc take_token(const json_t *json, struct acme_challenge *challenge,
                              struct att_err *err)
{
    enum att_rc rc = acme_member_text(json, "token", TOKEN_LEN_MAX, false, &challenge->token, err);
    att_autobuf raw = {0};
    if (rc == ATT_OK && (strlen(challenge->token) < TOKEN_LEN_MIN ||
                         att_unb64u(&raw, att_slice_str(challenge->token), NULL) != ATT_OK)) {
        rc = att_fail(err, ATT_E_PARSE, "\"token\": expected at least 128 bits of base64url");
    }
    return rc;
}

static bool type_known(const char *type)
{
    return strcmp(type, ACME_CHALLENGE_DEVICE_ATTEST) == 0;
}

/* The members that each type has: RFC 8555 §7.1.5, §8; ours for device-attest-01. */
static enum att_rc take_challenge(const json_t *json, struct acme_challenge *challenge,
                                  struct att_err *err)
{
    const char *status = NULL;
    enum att_rc rc = acme_member_fixed(json, "type", challenge->type, sizeof challenge->type, err);
    if (rc == ATT_OK) {
        rc = acme_member_url(json, "url", false, &challenge->url, err);
    }
    if (rc == ATT_OK) {
        rc = att_json_str(json, "status", &status, err);
        challenge->status = acme_status_by_word(status);
    }
    if (rc == ATT_OK && type_known(challenge->type)) {
        rc = take_token(json, challenge, err);
    }
    if (rc == ATT_OK) {
        rc = acme_member_time(json, "validated", &challenge->validated_at, err);
    }
    if (rc == ATT_OK && type_known(challenge->type)) {
        rc = acme_wanted_parse(json, &challenge->wanted, err);
    }
    const json_t *error = json_object_get(json, "error");
    if (rc == ATT_OK && error) {
        challenge->has_error = true;
        rc = acme_problem_parse_json(error, &challenge->error, err);
    }
    return rc;
}

enum att_rc acme_challenge_parse(const json_t *json, struct acme_challenge *ret_challenge,
                                 struct att_err *err)
{
    struct acme_challenge challenge = {0};
    enum att_rc rc = take_challenge(json, &challenge, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "challenge");
        acme_challenge_done(&challenge);
        return rc;
    }
    *ret_challenge = challenge;
    return ATT_OK;
}

enum att_rc acme_challenge_encode(const struct acme_challenge *challenge, json_t **ret_json,
                                  struct att_err *err)
{
    att_autojson *json = json_object();
    json_t *error = NULL;
    int bad = acme_put_text(json, "type", challenge->type);
    bad |= acme_put_text(json, "url", challenge->url);
    bad |= acme_put_text(json, "status", acme_status_word(challenge->status));
    bad |= acme_put_text(json, "token", challenge->token);
    bad |= acme_put_time(json, "validated", challenge->validated_at);
    bad |= acme_wanted_encode(&challenge->wanted, json, err) != ATT_OK;
    if (challenge->has_error) {
        bad |= acme_problem_encode(&challenge->error, &error, NULL) != ATT_OK;
        bad |= json_object_set_new(json, "error", error);
    }
    if (!json || bad) {
        return att_fail(err, ATT_E_NOMEM, "challenge: no memory, or a text is not UTF-8");
    }
    *ret_json = json;
    json = NULL;
    return ATT_OK;
}

/* ---- authorization -----------------------------------------------------------------------------
 */
void acme_authz_done(struct acme_authz *authz)
{
    if (authz) {
        for (size_t i = 0; i < authz->n_challenges; i++) {
            acme_challenge_done(&authz->challenges[i]);
        }
        free(authz->challenges);
        *authz = (struct acme_authz){0};
    }
}

const struct acme_challenge *acme_authz_find(const struct acme_authz *authz, const char *type)
{
    for (size_t i = 0; i < authz->n_challenges; i++) {
        if (strcmp(authz->challenges[i].type, type) == 0) {
            return &authz->challenges[i];
        }
    }
    return NULL;
}

static enum att_rc take_challenges(const json_t *json, struct acme_authz *authz,
                                   struct att_err *err)
{
    const json_t *array = json_object_get(json, "challenges");
    size_t n = json_array_size(array);
    if (!json_is_array(array) || n > ACME_CHALLENGES_MAX) {
        return att_fail(err, ATT_E_PARSE, "\"challenges\": expected an array of at most %d",
                        ACME_CHALLENGES_MAX);
    }
    authz->challenges = calloc(n ? n : 1, sizeof *authz->challenges);
    if (!authz->challenges) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(array, i);
        const char *type = json_string_value(json_object_get(one, "type"));
        if (!type || !type_known(type)) {
            continue; /* RFC 8555 §7.5.1: a client answers those it understands */
        }
        enum att_rc rc = acme_challenge_parse(one, &authz->challenges[authz->n_challenges], err);
        if (rc != ATT_OK) {
            return rc;
        }
        authz->n_challenges++;
    }
    return ATT_OK;
}

static enum att_rc take_authz(const json_t *json, struct acme_authz *authz, struct att_err *err)
{
    const char *status = NULL;
    enum att_rc rc =
        acme_identifier_parse(json_object_get(json, "identifier"), &authz->identifier, err);
    if (rc == ATT_OK) {
        rc = att_json_str(json, "status", &status, err);
        authz->status = acme_status_by_word(status);
    }
    if (rc == ATT_OK) {
        rc = acme_member_time(json, "expires", &authz->expires_at, err);
    }
    return rc == ATT_OK ? take_challenges(json, authz, err) : rc;
}

enum att_rc acme_authz_parse(const json_t *json, struct acme_authz *ret_authz, struct att_err *err)
{
    struct acme_authz authz = {0};
    enum att_rc rc = take_authz(json, &authz, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "authorization");
        acme_authz_done(&authz);
        return rc;
    }
    *ret_authz = authz;
    return ATT_OK;
}

enum att_rc acme_authz_encode(const struct acme_authz *authz, json_t **ret_json,
                              struct att_err *err)
{
    att_autojson *json = json_object();
    json_t *challenges = json_array(), *identifier = NULL;
    int bad = acme_identifier_encode(&authz->identifier, &identifier, NULL) != ATT_OK;
    bad |= json_object_set_new(json, "identifier", identifier);
    bad |= acme_put_text(json, "status", acme_status_word(authz->status));
    bad |= acme_put_time(json, "expires", authz->expires_at);
    for (size_t i = 0; i < authz->n_challenges; i++) {
        json_t *one = NULL;
        bad |= acme_challenge_encode(&authz->challenges[i], &one, NULL) != ATT_OK;
        bad |= json_array_append_new(challenges, one);
    }
    bad |= json_object_set_new(json, "challenges", challenges);
    if (!json || bad) {
        return att_fail(err, ATT_E_NOMEM, "authorization: no memory, or a text is not UTF-8");
    }
    *ret_json = json;
    json = NULL;
    return ATT_OK;
}
