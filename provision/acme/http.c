#include "provision/acme/http.h"

#include "attestd/base/clock.h"
#include "provision/acme/member.h"
#include "provision/acme/pin.h"

#include <curl/curl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#define CONNECT_TIMEOUT_MS 10000
#define HEADER_LINE_MAX    ((size_t)8 << 10)
#define SENT_LINE_MAX      ((size_t)17 << 10) /* a token of 16 KiB */

struct acme_http {
    CURLM *multi;
    CURL *easy;
    char *ca_file, *cert_file, *key_file;
    const STACK_OF(X509) * client_chain; /* borrowed */
    EVP_PKEY *client_key;                /* borrowed */
    struct acme_pin pin;
    bool proxy_from_env, tls12, system_roots;
    acme_http_address_fn *address;
    void *address_user;
    const char *address_why; /* of the exchange under way: what the last refused address is */
    int connect_timeout_ms;
    atomic_bool cancelled;
};

/* One exchange. */
struct exchange {
    struct acme_http *http;
    struct acme_http_response response;
    bool too_big;
};

/* ---- life --------------------------------------------------------------------------------------
 */
static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_ready;

static void curl_start(void)
{
    curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static enum att_rc copy_config(const struct acme_http_config *config, struct acme_http *http,
                               struct att_err *err)
{
    http->proxy_from_env = config->proxy_from_env;
    http->tls12 = config->tls12;
    http->client_chain = config->client_chain;
    http->client_key = config->client_key;
    http->system_roots = config->system_roots;
    http->address = config->address;
    http->address_user = config->address_user;
    http->pin.peer = config->peer;
    http->pin.peer_user = config->peer_user;
    http->connect_timeout_ms =
        config->connect_timeout_ms > 0 ? config->connect_timeout_ms : CONNECT_TIMEOUT_MS;
    http->cert_file = config->cert_file ? strdup(config->cert_file) : NULL;
    http->key_file = config->key_file ? strdup(config->key_file) : NULL;
    if ((config->cert_file && !http->cert_file) || (config->key_file && !http->key_file)) {
        return att_fail(err, ATT_E_NOMEM, "HTTPS client: no memory");
    }
    if (config->ca_sha256) {
        http->pin.pinned = true;
        memcpy(http->pin.sha256, config->ca_sha256, sizeof http->pin.sha256);
        return ATT_OK;
    }
    if (config->system_roots || config->peer) {
        return ATT_OK;
    }
    http->ca_file = strdup(config->ca_file);
    return http->ca_file ? ATT_OK : att_fail(err, ATT_E_NOMEM, "HTTPS client: no memory");
}

enum att_rc acme_http_new(const struct acme_http_config *config, struct acme_http **ret_http,
                          struct att_err *err)
{
    int ways = (config->ca_file != NULL) + (config->ca_sha256 != NULL) + config->system_roots +
               (config->peer != NULL);
    if (ways != 1) {
        return att_fail(err, ATT_E_INVAL,
                        "HTTPS client: exactly one of ca_file, ca_sha256, system_roots and peer");
    }
    if (pthread_once(&curl_once, curl_start) != 0 || curl_ready != CURLE_OK) {
        return att_fail(err, ATT_E_INTERNAL, "libcurl does not start");
    }
    struct acme_http *http = calloc(1, sizeof *http);
    if (!http) {
        return att_fail(err, ATT_E_NOMEM, "HTTPS client: no memory");
    }
    enum att_rc rc = copy_config(config, http, err);
    http->multi = curl_multi_init();
    http->easy = curl_easy_init();
    if (rc == ATT_OK && (!http->multi || !http->easy)) {
        rc = att_fail(err, ATT_E_NOMEM, "HTTPS client: no memory");
    }
    if (rc != ATT_OK) {
        acme_http_free(http);
        return rc;
    }
    *ret_http = http;
    return ATT_OK;
}

void acme_http_free(struct acme_http *http)
{
    if (http) {
        curl_easy_cleanup(http->easy);
        curl_multi_cleanup(http->multi);
        free(http->ca_file);
        free(http->cert_file);
        free(http->key_file);
        free(http);
    }
}

void acme_http_response_done(struct acme_http_response *response)
{
    if (response) {
        att_buf_done(&response->body);
        *response = (struct acme_http_response){.retry_after_s = -1};
    }
}

void acme_http_cancel(struct acme_http *http, bool cancel)
{
    atomic_store(&http->cancelled, cancel);
    if (cancel) {
        (void)curl_multi_wakeup(http->multi);
    }
}

bool acme_http_cancelled(const struct acme_http *http)
{
    return atomic_load(&http->cancelled);
}

static enum att_rc cancelled(struct att_err *err)
{
    return att_fail(err, ATT_E_GONE, "cancelled");
}

enum att_rc acme_http_sleep(struct acme_http *http, int64_t ms, struct att_err *err)
{
    int64_t until = att_boottime_ms() + ms;
    while (!acme_http_cancelled(http)) {
        int64_t left = until - att_boottime_ms();
        if (left <= 0) {
            return ATT_OK;
        }
        (void)curl_multi_poll(http->multi, NULL, 0, left > 60000 ? 60000 : (int)left, NULL);
    }
    return cancelled(err);
}

/* ---- TLS ---------------------------------------------------------------------------------------
 */
static bool use_client(SSL_CTX *ctx, const struct acme_http *http)
{
    int n = http->client_chain ? sk_X509_num(http->client_chain) : 0;
    bool ok = n > 0 && SSL_CTX_use_certificate(ctx, sk_X509_value(http->client_chain, 0)) == 1 &&
              SSL_CTX_use_PrivateKey(ctx, http->client_key) == 1;
    for (int i = 1; ok && i < n; i++) {
        ok = SSL_CTX_add1_chain_cert(ctx, sk_X509_value(http->client_chain, i)) == 1;
    }
    return ok;
}

static CURLcode on_ssl_ctx(CURL *easy, void *ssl_ctx, void *user)
{
    struct acme_http *http = user;
    (void)easy;
    if (SSL_CTX_set_min_proto_version(ssl_ctx, http->tls12 ? TLS1_2_VERSION : TLS1_3_VERSION) !=
        1) {
        return CURLE_SSL_CONNECT_ERROR;
    }
    /* OpenSSL before 3.5 does not know the hybrid group and refuses the whole list. */
    if (SSL_CTX_set1_groups_list(ssl_ctx, ACME_HTTP_GROUPS) != 1) {
        ERR_clear_error();
        if (SSL_CTX_set1_groups_list(ssl_ctx, "X25519:P-256:P-384") != 1) {
            return CURLE_SSL_CONNECT_ERROR;
        }
    }
    if (http->client_key && !use_client(ssl_ctx, http)) {
        return CURLE_SSL_CERTPROBLEM;
    }
    SSL_CTX_set_cert_verify_callback(ssl_ctx, acme_pin_verify, &http->pin);
    return CURLE_OK;
}

static void note_group(struct exchange *exchange)
{
    struct curl_tlssessioninfo *info = NULL;
    if (curl_easy_getinfo(exchange->http->easy, CURLINFO_TLS_SSL_PTR, &info) != CURLE_OK || !info ||
        info->backend != CURLSSLBACKEND_OPENSSL || !info->internals) {
        return;
    }
    SSL *ssl = info->internals;
    const char *name = SSL_group_to_name(ssl, (int)SSL_get_negotiated_group(ssl));
    snprintf(exchange->response.tls_group, sizeof exchange->response.tls_group, "%s",
             name ? name : "");
}

/* ---- what arrives ------------------------------------------------------------------------------
 */
/* A value that does not fit, or has control characters, is left out rather than cut. */
static void keep(char *ret, size_t room, struct att_slice value)
{
    ret[0] = 0;
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] < 0x20 || value.ptr[i] >= 0x7f) {
            return;
        }
    }
    if (value.len < room) {
        memcpy(ret, value.ptr, value.len);
        ret[value.len] = 0;
    }
}

/* RFC 8555 §6.5.1: a client ignores a nonce with any other character. */
static void keep_nonce(struct acme_http_response *response, struct att_slice value)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    keep(response->nonce, sizeof response->nonce, value);
    if (response->nonce[strspn(response->nonce, allowed)]) {
        response->nonce[0] = 0;
    }
}

static void keep_type(struct acme_http_response *response, struct att_slice value)
{
    const uint8_t *end = value.len ? memchr(value.ptr, ';', value.len) : NULL;
    if (end) {
        value.len = (size_t)(end - value.ptr);
    }
    while (value.len && value.ptr[value.len - 1] == ' ') {
        value.len--;
    }
    keep(response->content_type, sizeof response->content_type, value);
    for (char *c = response->content_type; *c; c++) {
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
    }
}

static void keep_etag(struct acme_http_response *response, struct att_slice value)
{
    if (value.len > 2 && value.ptr[0] == 'W' && value.ptr[1] == '/') {
        value = ATT_SLICE(value.ptr + 2, value.len - 2);
    }
    if (value.len >= 2 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"') {
        value = ATT_SLICE(value.ptr + 1, value.len - 2);
    }
    keep(response->etag, sizeof response->etag, value);
}

/* RFC 9110 §10.2.3: seconds or a date. */
static void keep_retry_after(struct acme_http_response *response, struct att_slice value)
{
    char text[64];
    keep(text, sizeof text, value);
    if (text[0] && strspn(text, "0123456789") == strlen(text)) {
        response->retry_after_s = strlen(text) > 9 ? 999999999 : strtoll(text, NULL, 10);
        return;
    }
    time_t at = text[0] ? curl_getdate(text, NULL) : -1;
    if (at >= 0) {
        int64_t left = (int64_t)at - att_now_utc_s();
        response->retry_after_s = left > 0 ? left : 0;
    }
}

static void keep_header(struct acme_http_response *response, struct att_slice name,
                        struct att_slice value)
{
    static const char *const names[] = {"Replay-Nonce", "Location",    "Content-Type",
                                        "ETag",         "Retry-After", "X-Amzn-ErrorType"};
    size_t which = 0;
    while (which < sizeof names / sizeof names[0] &&
           (name.len != strlen(names[which]) ||
            strncasecmp((const char *)name.ptr, names[which], name.len) != 0)) {
        which++;
    }
    switch (which) {
    case 0:
        keep_nonce(response, value);
        break;
    case 1:
        keep(response->location, sizeof response->location, value);
        break;
    case 2:
        keep_type(response, value);
        break;
    case 3:
        keep_etag(response, value);
        break;
    case 4:
        keep_retry_after(response, value);
        break;
    case 5:
        keep(response->error_type, sizeof response->error_type, value);
        break;
    default:
        break;
    }
}

static size_t on_header(char *line, size_t one, size_t len, void *user)
{
    struct exchange *exchange = user;
    size_t given = one * len;
    if (given > HEADER_LINE_MAX) {
        return given; /* none of ours is that long */
    }
    if (given >= 5 && memcmp(line, "HTTP/", 5) == 0) { /* a new answer: what came before is void */
        size_t max = exchange->response.body.max;
        acme_http_response_done(&exchange->response);
        exchange->response.body.max = max;
        note_group(exchange);
        return given;
    }
    struct att_slice left = ATT_SLICE(line, given);
    const uint8_t *colon = memchr(left.ptr, ':', left.len);
    if (!colon) {
        return given;
    }
    struct att_slice name = ATT_SLICE(left.ptr, (size_t)(colon - left.ptr));
    struct att_slice value = ATT_SLICE(colon + 1, left.len - name.len - 1);
    while (value.len && (value.ptr[0] == ' ' || value.ptr[0] == '\t')) {
        value = ATT_SLICE(value.ptr + 1, value.len - 1);
    }
    while (value.len && strchr(" \t\r\n", value.ptr[value.len - 1])) {
        value.len--;
    }
    keep_header(&exchange->response, name, value);
    return given;
}

static size_t on_body(char *bytes, size_t one, size_t len, void *user)
{
    struct exchange *exchange = user;
    struct att_buf *body = &exchange->response.body;
    att_buf_put(body, bytes, one * len);
    if (body->failed) {
        exchange->too_big = true;
        return 0;
    }
    return one * len;
}

/* ---- one exchange ------------------------------------------------------------------------------
 */
static struct curl_slist *headers_of(const struct acme_http_request *request)
{
    const struct {
        const char *format, *value;
    } lines[] = {
        {"Content-Type: %s", request->content_type},       {"Accept: %s", request->accept},
        {"If-None-Match: \"%s\"", request->if_none_match}, {"Prefer: %s", request->prefer},
        {"Authorization: Bearer %s", request->bearer},
    };
    /* No 100-continue: it costs a round trip and saves nothing here. */
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");
    for (size_t i = 0; list && i < sizeof lines / sizeof lines[0]; i++) {
        char line[SENT_LINE_MAX];
        if (!lines[i].value) {
            continue;
        }
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        int len = snprintf(line, sizeof line, lines[i].format, lines[i].value);
#pragma GCC diagnostic pop
        struct curl_slist *more = len > 0 && (size_t)len < sizeof line && acme_text_ok(line)
                                      ? curl_slist_append(list, line)
                                      : NULL;
        if (!more) {
            curl_slist_free_all(list);
        }
        list = more;
    }
    for (size_t i = 0; list && request->headers && request->headers[i]; i++) {
        struct curl_slist *more =
            strlen(request->headers[i]) < SENT_LINE_MAX && acme_text_ok(request->headers[i])
                ? curl_slist_append(list, request->headers[i])
                : NULL;
        if (!more) {
            curl_slist_free_all(list);
        }
        list = more;
    }
    return list;
}

static CURLcode set_trust(struct acme_http *http)
{
    CURL *easy = http->easy;
    CURLcode bad = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, http->pin.peer ? 0L : 2L);
    bad |=
        curl_easy_setopt(easy, CURLOPT_SSLVERSION,
                         (long)(http->tls12 ? CURL_SSLVERSION_TLSv1_2 : CURL_SSLVERSION_TLSv1_3));
    if (http->cert_file) {
        bad |= curl_easy_setopt(easy, CURLOPT_SSLCERT, http->cert_file);
        bad |= curl_easy_setopt(easy, CURLOPT_SSLKEY, http->key_file);
        bad |= curl_easy_setopt(easy, CURLOPT_KEYPASSWD, ""); /* nobody is asked for one */
    }
    if (!http->system_roots) {
        /* NULL takes the distribution's defaults away: nothing but our anchor is trusted. */
        bad |= curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
        bad |= curl_easy_setopt(easy, CURLOPT_CAINFO, http->ca_file);
    }
    bad |= curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
    bad |= curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, http);
    /* No resumption: every connection checks the certificate. */
    bad |= curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
    return bad;
}

static curl_socket_t on_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct acme_http *http = user;
    (void)purpose;
    const char *why = http->address(http->address_user, &address->addr);
    if (why) {
        http->address_why = why;
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static CURLcode set_transport(struct acme_http *http, const struct acme_http_request *request)
{
    CURL *easy = http->easy;
    CURLcode bad = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https");
    bad |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    bad |= curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    bad |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_USERAGENT, "attestd/" ATT_VERSION);
    if (!http->proxy_from_env) {
        bad |= curl_easy_setopt(easy, CURLOPT_PROXY, "");
    }
    if (http->address) {
        bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_socket);
        bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, http);
    }
    bad |= curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)http->connect_timeout_ms);
    bad |= curl_easy_setopt(
        easy, CURLOPT_TIMEOUT_MS,
        (long)(request->timeout_ms > 0 ? request->timeout_ms : ACME_HTTP_TIMEOUT_MS));
    return bad;
}

static CURLcode set_request(CURL *easy, const struct acme_http_request *request,
                            struct curl_slist *headers, struct exchange *exchange)
{
    CURLcode bad = curl_easy_setopt(easy, CURLOPT_URL, request->url);
    bad |= curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    if (strcmp(request->method, "HEAD") == 0) {
        bad |= curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (strcmp(request->method, "POST") == 0) {
        bad |= curl_easy_setopt(easy, CURLOPT_POST, 1L);
        bad |= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.len);
        bad |= curl_easy_setopt(easy, CURLOPT_POSTFIELDS,
                                request->body.len ? (const char *)request->body.ptr : "");
    }
    bad |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    bad |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
    return bad;
}

static enum att_rc curl_error(CURLcode code, const char *text, const struct exchange *exchange,
                              const char *url, struct att_err *err)
{
    enum att_rc rc = ATT_E_UNREACHABLE;
    const char *reason = "";
    if (exchange->too_big) {
        return att_fail(err, ATT_E_LIMIT, "%s: the answer has more than %zu bytes", url,
                        exchange->response.body.max);
    }
    if (code == CURLE_COULDNT_CONNECT && exchange->http->address_why) {
        rc = att_fail(err, ATT_E_DENIED, "%s: its address is %s", url, exchange->http->address_why);
        att_err_reason(err, "addressRefused");
        return rc;
    }
    if (exchange->http->pin.why) { /* whatever libcurl makes of it */
        code = CURLE_PEER_FAILED_VERIFICATION;
        text = exchange->http->pin.why;
    }
    switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
        rc = ATT_E_TIMEOUT;
        break;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
        rc = ATT_E_AUTH;
        reason = "issuerTls";
        break;
    case CURLE_SSL_CERTPROBLEM:
        rc = ATT_E_INVAL;
        reason = "clientCert";
        break;
    case CURLE_SSL_CACERT_BADFILE:
        rc = ATT_E_INVAL;
        reason = "issuerTls";
        break;
    case CURLE_OUT_OF_MEMORY:
        rc = ATT_E_NOMEM;
        break;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        rc = ATT_E_INVAL;
        break;
    case CURLE_WEIRD_SERVER_REPLY:
        rc = ATT_E_PROTOCOL;
        break;
    default:
        break;
    }
    rc = att_fail_native(err, rc, ATT_DOM_CURL, code, "%s: %s", url,
                         text[0] ? text : curl_easy_strerror(code));
    att_err_reason(err, reason);
    return rc;
}

/* Runs the multi handle until the exchange ended or somebody cancelled. */
static enum att_rc drive(struct acme_http *http, CURLcode *ret_code, struct att_err *err)
{
    int running = 1;
    for (;;) {
        if (acme_http_cancelled(http)) {
            return cancelled(err);
        }
        CURLMcode bad = curl_multi_perform(http->multi, &running);
        if (bad != CURLM_OK) {
            return att_fail(err, ATT_E_INTERNAL, "libcurl: %s", curl_multi_strerror(bad));
        }
        if (!running) {
            break;
        }
        (void)curl_multi_poll(http->multi, NULL, 0, 1000, NULL);
    }
    int left = 0;
    const CURLMsg *msg = curl_multi_info_read(http->multi, &left);
    *ret_code = msg && msg->msg == CURLMSG_DONE ? msg->data.result : CURLE_RECV_ERROR;
    return ATT_OK;
}

static enum att_rc run(struct acme_http *http, const struct acme_http_request *request,
                       struct exchange *exchange, struct att_err *err)
{
    char text[CURL_ERROR_SIZE] = "";
    CURLcode code = curl_easy_setopt(http->easy, CURLOPT_ERRORBUFFER, text);
    if (code != CURLE_OK || curl_multi_add_handle(http->multi, http->easy) != CURLM_OK) {
        return att_fail(err, ATT_E_INTERNAL, "libcurl does not take the request");
    }
    enum att_rc rc = drive(http, &code, err);
    long status = 0;
    (void)curl_easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_multi_remove_handle(http->multi, http->easy);
    (void)curl_easy_setopt(http->easy, CURLOPT_ERRORBUFFER, NULL);
    if (rc != ATT_OK) {
        return rc;
    }
    if (code != CURLE_OK) {
        return curl_error(code, text, exchange, request->url, err);
    }
    if (status < 100 || status > 599) {
        return att_fail(err, ATT_E_PROTOCOL, "%s: HTTP status %ld", request->url, status);
    }
    exchange->response.status = (int)status;
    return ATT_OK;
}

enum att_rc acme_http_perform(struct acme_http *http, const struct acme_http_request *request,
                              struct acme_http_response *ret_response, struct att_err *err)
{
    if (!request->url || !acme_url_ok(request->url)) {
        return att_fail(err, ATT_E_INVAL, "\"%.80s\" is not an https URL",
                        request->url ? request->url : "");
    }
    struct exchange exchange = {.http = http};
    exchange.response.retry_after_s = -1;
    exchange.response.body.max = request->max_body ? request->max_body : ACME_HTTP_BODY_MAX;
    struct curl_slist *headers = headers_of(request);
    http->pin.why = NULL;
    http->address_why = NULL;
    curl_easy_reset(http->easy); /* options only: connections live in the multi handle */
    CURLcode bad = set_trust(http);
    bad |= set_transport(http, request);
    bad |= set_request(http->easy, request, headers, &exchange);
    enum att_rc rc = headers && bad == CURLE_OK
                         ? run(http, request, &exchange, err)
                         : att_fail(err, ATT_E_INTERNAL, "libcurl does not take the request");
    curl_slist_free_all(headers);
    if (rc != ATT_OK) {
        acme_http_response_done(&exchange.response);
        return rc;
    }
    *ret_response = exchange.response;
    return ATT_OK;
}
