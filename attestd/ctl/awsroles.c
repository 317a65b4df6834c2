#include "attestd/ctl/awsroles.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "attestd/base/json.h"
#include "attestd/base/secret.h"
#include "attestd/ctl/sigv4.h"
#include "certs/chain.h"
#include "provision/acme/http.h"

#include <openssl/bn.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define VALUES_MAX  1000
#define CHAIN_MAX   5 /* intermediate certificates ("X-Amz-X509-Chain") */
#define KEY_ID_MAX  128
#define SECRET_MAX  256
#define SESSION_MAX ((size_t)12 << 10)
#define TYPE        "application/json"

/* ---- the request ---- */

void awsroles_request_done(struct awsroles_request *r)
{
    struct att_buf *all[] = {&r->body,      &r->x509,           &r->chain,
                             &r->canonical, &r->signed_headers, &r->to_sign};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        att_buf_done(all[i]);
    }
}

static enum att_rc put_body(const struct conf_exchange *p, struct att_buf *body,
                            struct att_err *err)
{
    const struct conf_aws *aws = &p->aws;
    att_autojson *json = json_pack("{s:s, s:s, s:s}", "profileArn", aws->profile_arn, "roleArn",
                                   aws->role_arn, "trustAnchorArn", aws->trust_anchor_arn);
    bool good = json != NULL;
    if (good && aws->duration_s) {
        good = json_object_set_new(json, "durationSeconds", json_integer(aws->duration_s)) == 0;
    }
    if (good && aws->session_name) {
        good = json_object_set_new(json, "roleSessionName", json_string(aws->session_name)) == 0;
    }
    return good ? att_json_dump(json, false, body, err)
                : att_fail(err, ATT_E_INVAL, "the profile's ARNs: expected UTF-8 text");
}

static enum att_rc put_serial(const X509 *cert, struct awsroles_request *r, struct att_err *err)
{
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    char *text = number ? BN_bn2dec(number) : NULL;
    bool good = text && strlen(text) < sizeof r->serial;
    if (good) {
        memcpy(r->serial, text, strlen(text) + 1);
    }
    OPENSSL_free(text);
    BN_free(number);
    return good ? ATT_OK
                : att_fail(err, ATT_E_INVAL, "the certificate's serial number is too long");
}

static enum att_rc put_cert(const X509 *cert, struct att_buf *text, struct att_err *err)
{
    att_autobuf der = {0};
    enum att_rc rc = certs_cert_der(cert, &der, err);
    att_buf_b64(text, att_buf_slice(&der));
    return rc ? rc : att_buf_ok(text, err);
}

/* Intermediates only: the trust anchor is known there. */
static enum att_rc put_certs(const STACK_OF(X509) * chain, struct awsroles_request *r,
                             struct att_err *err)
{
    int n = 0;
    enum att_rc rc = put_cert(sk_X509_value(chain, 0), &r->x509, err);
    for (int i = 1; rc == ATT_OK && i < sk_X509_num(chain); i++) {
        const X509 *cert = sk_X509_value(chain, i);
        if (X509_NAME_cmp(X509_get_subject_name(cert), X509_get_issuer_name(cert)) == 0) {
            continue;
        }
        att_buf_put_str(&r->chain, n ? "," : "");
        rc = put_cert(cert, &r->chain, err);
        n++;
    }
    if (rc == ATT_OK && n > CHAIN_MAX) {
        rc = att_fail(err, ATT_E_LIMIT, "%d intermediate certificates, at most %d", n, CHAIN_MAX);
    }
    return rc;
}

/* Host as it is sent: without the port that https has anyway. ret_path: from the endpoint. */
static enum att_rc put_host(const struct conf_exchange *p, struct awsroles_request *r,
                            const char **ret_path, struct att_err *err)
{
    const char *host = p->endpoint + strlen("https://");
    size_t len = strcspn(host, "/");
    *ret_path = host[len] ? host + len : "/";
    if (len > 4 && strncmp(host + len - 4, ":443", 4) == 0) {
        len -= 4;
    }
    if (len >= sizeof r->host) {
        return att_fail(err, ATT_E_INVAL, "endpoint: the host's name is too long");
    }
    memcpy(r->host, host, len);
    r->host[len] = 0;
    return ATT_OK;
}

static enum att_rc put_times(const struct conf_exchange *p, int64_t now, struct awsroles_request *r,
                             struct att_err *err)
{
    time_t at = (time_t)now;
    struct tm tm;
    char day[9];
    if (!gmtime_r(&at, &tm) || strftime(r->date, sizeof r->date, "%Y%m%dT%H%M%SZ", &tm) != 16 ||
        strftime(day, sizeof day, "%Y%m%d", &tm) != 8) {
        return att_fail(err, ATT_E_INVAL, "the clock: no such time");
    }
    int len =
        snprintf(r->scope, sizeof r->scope, "%s/%s/rolesanywhere/aws4_request", day, p->aws.region);
    return len > 0 && (size_t)len < sizeof r->scope
               ? ATT_OK
               : att_fail(err, ATT_E_INVAL, "region: too long");
}

static enum att_rc canonical(struct awsroles_request *r, const char *path, struct att_err *err)
{
    struct sigv4_header headers[] = {
        {"content-type", TYPE},
        {"host", r->host},
        {"x-amz-date", r->date},
        {"x-amz-x509", att_buf_cstr(&r->x509)},
        {"x-amz-x509-chain", att_buf_cstr(&r->chain)},
    };
    const struct sigv4_request request = {
        .method = "POST",
        .path = path,
        .headers = headers,
        .n_headers = sizeof headers / sizeof headers[0] - (r->chain.len ? 0 : 1),
        .body = att_buf_slice(&r->body),
    };
    if (!headers[3].value || !headers[4].value) {
        return att_fail(err, ATT_E_NOMEM, "CreateSession");
    }
    enum att_rc rc = sigv4_canonical(&request, &r->canonical, &r->signed_headers, err);
    return rc ? rc
              : sigv4_string_to_sign(r->algorithm, r->date, r->scope, att_buf_slice(&r->canonical),
                                     &r->to_sign, err);
}

enum att_rc awsroles_prepare(const struct conf_exchange *p, const STACK_OF(X509) * chain,
                             enum apiclient_key_type type, int64_t now,
                             struct awsroles_request *ret_request, struct att_err *err)
{
    const char *path = NULL;
    struct awsroles_request r = {.algorithm = type == APICLIENT_RSA ? "AWS4-X509-RSA-SHA256"
                                                                    : "AWS4-X509-ECDSA-SHA256"};
    enum att_rc rc = put_body(p, &r.body, err);
    rc = rc ? rc : put_serial(sk_X509_value(chain, 0), &r, err);
    rc = rc ? rc : put_certs(chain, &r, err);
    rc = rc ? rc : put_host(p, &r, &path, err);
    rc = rc ? rc : put_times(p, now, &r, err);
    rc = rc ? rc : canonical(&r, path, err);
    if (rc != ATT_OK) {
        awsroles_request_done(&r);
        return rc;
    }
    *ret_request = r;
    return ATT_OK;
}

enum att_rc awsroles_authorization(const struct awsroles_request *r, struct att_slice signature,
                                   struct att_buf *ret_value, struct att_err *err)
{
    att_buf_printf(ret_value, "%s Credential=%s/%s, SignedHeaders=", r->algorithm, r->serial,
                   r->scope);
    att_buf_put_slice(ret_value, att_buf_slice(&r->signed_headers));
    att_buf_put_str(ret_value, ", Signature=");
    att_buf_hex(ret_value, signature);
    return att_buf_ok(ret_value, err);
}

/* ---- the answer ---- */

static enum att_rc bad(struct att_err *err, const char *reason, const char *what)
{
    (void)att_fail(err, ATT_E_PROTOCOL, "CreateSession's answer: %s", what);
    att_err_reason(err, reason);
    return ATT_E_PROTOCOL;
}

/* "com.amazonaws…#AccessDeniedException", "AccessDeniedException:http://…" */
static enum att_rc refused(const struct conf_exchange *p, int status, const char *error_type,
                           const json_t *json, struct att_err *err)
{
    static const char *const texts[] = {"message", "Message", NULL};
    const char *type =
        error_type[0] ? error_type : json_string_value(json_object_get(json, "__type"));
    const char *text = NULL;
    char name[96] = "";
    for (size_t i = 0; texts[i] && !text; i++) {
        text = json_string_value(json_object_get(json, texts[i]));
    }
    if (type) {
        const char *hash = strchr(type, '#');
        type = hash ? hash + 1 : type;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(type, ":"), type);
    }
    return exchange_refused(p->endpoint, status, name, text, err);
}

static const char *field(const json_t *credentials, const char *name, size_t max)
{
    const json_t *value = json_object_get(credentials, name);
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);
    bool good = text && len >= 1 && len <= max;
    for (size_t i = 0; good && i < len; i++) {
        good = text[i] > 0x20 && text[i] < 0x7f;
    }
    return good ? text : NULL;
}

/* RFC 3339 in UTC; parts of a second are let go. */
static int64_t expiration(const json_t *credentials)
{
    const char *text = json_string_value(json_object_get(credentials, "expiration"));
    char whole[ATT_TIME_TEXT_LEN];
    int64_t at = 0;
    size_t digits =
        text && strlen(text) > 20 && text[19] == '.' ? strspn(text + 20, "0123456789") : 0;
    if (digits && digits <= 9 && strcmp(text + 20 + digits, "Z") == 0) {
        snprintf(whole, sizeof whole, "%.19sZ", text);
        text = whole;
    }
    return text && att_time_parse(text, &at, NULL) == ATT_OK ? at : 0;
}

static enum att_rc write_out(const char *id, const char *secret, const char *session,
                             int64_t expires_at, struct att_buf *ret, struct att_err *err)
{
    char until[ATT_TIME_TEXT_LEN];
    att_time_text(until, expires_at);
    att_autojson *json =
        json_pack("{s:i, s:s, s:s, s:s, s:s}", "Version", 1, "AccessKeyId", id, "SecretAccessKey",
                  secret, "SessionToken", session, "Expiration", until);
    if (!json) {
        return att_fail(err, ATT_E_NOMEM, "CreateSession");
    }
    enum att_rc rc = att_json_dump(json, false, ret, err);
    return rc == ATT_OK && !att_buf_cstr(ret) ? att_fail(err, ATT_E_NOMEM, "CreateSession") : rc;
}

static enum att_rc take(const json_t *json, int64_t now, struct exchange_token *ret_token,
                        struct att_err *err)
{
    const json_t *set = json_array_get(json_object_get(json, "credentialSet"), 0);
    const json_t *credentials = json_object_get(set, "credentials");
    const char *id = field(credentials, "accessKeyId", KEY_ID_MAX);
    const char *secret = field(credentials, "secretAccessKey", SECRET_MAX);
    const char *session = field(credentials, "sessionToken", SESSION_MAX);
    int64_t expires_at = expiration(credentials), left = expires_at - now;
    if (!id || !secret || !session) {
        return bad(err, "answerToken",
                   "expected credentialSet[0].credentials with accessKeyId, secretAccessKey and "
                   "sessionToken of visible characters");
    }
    if (expires_at == 0 || left < 1) {
        return bad(err, "answerLifetime", "expected an expiration that is to come (RFC 3339)");
    }
    struct exchange_token made = {.token = ATT_BUF_INIT(EXCHANGE_TOKEN_MAX + 1),
                                  .lifetime_s =
                                      left > EXCHANGE_LIFETIME_MAX ? EXCHANGE_LIFETIME_MAX : left};
    enum att_rc rc = write_out(id, secret, session, expires_at, &made.token, err);
    if (rc != ATT_OK) {
        exchange_token_done(&made);
        return rc;
    }
    *ret_token = made;
    return ATT_OK;
}

enum att_rc awsroles_answer(const struct conf_exchange *p, int status, const char *error_type,
                            struct att_slice body, int64_t now, struct exchange_token *ret_token,
                            struct att_err *err)
{
    att_autojson *json = NULL;
    if (status >= 300 && status < 400) {
        return bad(err, "redirect", "a redirect, which is not followed");
    }
    bool parsed =
        att_json_parse_few(body, EXCHANGE_ANSWER_MAX, VALUES_MAX, &json, NULL) == ATT_OK &&
        json_is_object(json);
    if (status != 200 && status != 201) {
        return refused(p, status, error_type, parsed ? json : NULL, err);
    }
    return parsed ? take(json, now, ret_token, err)
                  : bad(err, "answerForm", "expected a JSON object");
}

/* ---- over HTTPS ---- */

/* The headers that are signed, and the signature; ret: borrows from lines. */
static enum att_rc header_lines(const struct awsroles_request *r, struct att_slice signature,
                                struct att_buf lines[5], const char *ret[6], struct att_err *err)
{
    att_buf_printf(&lines[0], "Host: %s", r->host);
    att_buf_printf(&lines[1], "X-Amz-Date: %s", r->date);
    att_buf_put_str(&lines[2], "X-Amz-X509: ");
    att_buf_put_slice(&lines[2], att_buf_slice(&r->x509));
    att_buf_put_str(&lines[3], "Authorization: ");
    enum att_rc rc = awsroles_authorization(r, signature, &lines[3], err);
    size_t n = 4;
    if (r->chain.len) {
        att_buf_put_str(&lines[4], "X-Amz-X509-Chain: ");
        att_buf_put_slice(&lines[4], att_buf_slice(&r->chain));
        n = 5;
    }
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        ret[i] = att_buf_cstr(&lines[i]);
        rc = ret[i] ? ATT_OK : att_fail(err, ATT_E_NOMEM, "CreateSession");
    }
    ret[n] = NULL;
    return rc;
}

static enum att_rc post(const struct conf_exchange *p, const struct awsroles_request *r,
                        const char *const *lines, struct exchange_token *ret_token,
                        struct att_err *err)
{
    struct acme_http *http = NULL;
    const struct acme_http_config config = {
        .ca_file = p->ca_file, .proxy_from_env = true, .tls12 = true};
    const struct acme_http_request request = {
        .method = "POST",
        .url = p->endpoint,
        .content_type = TYPE,
        .accept = TYPE,
        .headers = lines,
        .body = att_buf_slice(&r->body),
        .max_body = EXCHANGE_ANSWER_MAX,
        .timeout_ms = (int)p->timeout_s * 1000,
    };
    struct acme_http_response response = {0};
    enum att_rc rc = acme_http_new(&config, &http, err);
    rc = rc ? rc : acme_http_perform(http, &request, &response, err);
    if (rc == ATT_OK) {
        rc = awsroles_answer(p, response.status, response.error_type, att_buf_slice(&response.body),
                             att_now_utc_s(), ret_token, err);
        if (response.body.ptr) {
            att_wipe(response.body.ptr, response.body.cap);
        }
        acme_http_response_done(&response);
    }
    acme_http_free(http);
    return rc;
}

enum att_rc awsroles_run(const struct conf_exchange *p, const struct apiclient_agent *agent,
                         struct exchange_token *ret_token, struct att_err *err)
{
    struct awsroles_request r = {0};
    struct att_buf lines[5] = {0};
    const char *pointers[6];
    uint8_t digest[ATT_SHA256_LEN];
    att_autobuf signature = {0};
    enum att_rc rc = awsroles_prepare(p, agent->chain, agent->type, att_now_utc_s(), &r, err);
    if (rc == ATT_OK) {
        att_sha256(digest, att_buf_slice(&r.to_sign));
        rc = apiclient_sign(agent, digest, &signature, err);
    }
    rc = rc ? rc : header_lines(&r, att_buf_slice(&signature), lines, pointers, err);
    rc = rc ? rc : post(p, &r, pointers, ret_token, err);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        att_buf_done(&lines[i]);
    }
    awsroles_request_done(&r);
    return rc;
}
