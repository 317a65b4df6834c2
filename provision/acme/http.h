/* HTTPS client for one issuer: TLS 1.3 unless tls12, own trust anchor only, no redirects, bounded
 * bodies.
 *
 * One object is used by one thread at a time (connections are kept and reused); acme_http_cancel
 * may be called from any thread. The process must ignore SIGPIPE. */
#ifndef ATTESTD_PROVISION_ACME_HTTP_H
#define ATTESTD_PROVISION_ACME_HTTP_H

#include "attestd/base/buf.h"

#include <openssl/x509.h>

struct sockaddr;

#define ACME_HTTP_BODY_MAX   ((size_t)1 << 20) /* answer body unless the request says otherwise */
#define ACME_HTTP_GROUPS     "X25519MLKEM768:X25519:P-256:P-384" /* what OpenSSL lacks is left out */
#define ACME_HTTP_TIMEOUT_MS 30000

/* Judges a server by its certificates as they came (store_ctx: leaf and untrusted ones) instead of
 * by roots and name. NULL: it is the one; else why not, a sentence that outlives the exchange. */
typedef const char *acme_http_peer_fn(void *user, X509_STORE_CTX *store_ctx);
/* Asked for each address right before it is connected to. NULL: it may be; else what it is, static.
 */
typedef const char *acme_http_address_fn(void *user, const struct sockaddr *address);

/* Exactly one of ca_file, ca_sha256, system_roots and peer. Copied. */
struct acme_http_config {
    const char *ca_file;      /* PEM; the system's roots are not used beside it */
    const uint8_t *ca_sha256; /* 32 bytes: SHA-256 of the root's DER. The server must send that root
                                 at the end of its chain, which is then verified in full */
    const char *cert_file;    /* PEM, leaf first: shown to a server that asks; NULL: none */
    const char *key_file;     /* PEM, of it */
    /* The same where the key is held elsewhere (certs/key.h): leaf first. Borrowed for as long as
     * the client lives; NULL: none. */
    const STACK_OF(X509) * client_chain;
    EVP_PKEY *client_key;
    bool system_roots; /* of the distribution, as libcurl finds them */
    acme_http_peer_fn *peer;
    void *peer_user;
    acme_http_address_fn *address; /* NULL: any */
    void *address_user;
    bool proxy_from_env;    /* obey https_proxy/no_proxy; otherwise never a proxy */
    bool tls12;             /* TLS 1.2, too: for servers that are not ours */
    int connect_timeout_ms; /* 0 = 10 s */
};

struct acme_http_request {
    const char *method; /* "GET", "HEAD", "POST" */
    const char *url;    /* https only */
    const char *content_type;
    const char *accept;         /* NULL = any */
    const char *if_none_match;  /* version without quotes; NULL = absent */
    const char *prefer;         /* "wait=50"; NULL = absent */
    const char *bearer;         /* a token (RFC 6750 §2.1); NULL = absent */
    const char *const *headers; /* more of them, "Name: value", NULL-terminated; NULL: none */
    struct att_slice body;
    size_t max_body; /* 0 = ACME_HTTP_BODY_MAX */
    int timeout_ms;  /* of the whole exchange; 0 = ACME_HTTP_TIMEOUT_MS */
};

/* Header values are bounded; longer ones, and ones with control characters, are left empty. */
struct acme_http_response {
    int status;
    char content_type[128]; /* without parameters, lowercase */
    char nonce[256];        /* Replay-Nonce; empty unless base64url */
    char location[2048];
    char etag[128];        /* without W/ and quotes */
    int64_t retry_after_s; /* from seconds or an HTTP date; -1 = absent */
    char error_type[96];   /* X-Amzn-ErrorType */
    char tls_group[32];    /* e.g. "X25519MLKEM768"; of the connection used */
    struct att_buf body;
};

struct acme_http;

ATT_MUST_USE enum att_rc acme_http_new(const struct acme_http_config *config,
                                       struct acme_http **ret_http, struct att_err *err);
void acme_http_free(struct acme_http *http);
/* ATT_OK means an answer was read, whatever its status. ATT_E_UNREACHABLE (connect, DNS, reset),
 * ATT_E_TIMEOUT, ATT_E_AUTH (the server's certificate; reason "issuerTls"), ATT_E_DENIED (all its
 * addresses are such that none is connected to; reason "addressRefused"), ATT_E_LIMIT (body too
 * big), ATT_E_GONE (cancelled), ATT_E_INVAL (not https). The caller calls
 * acme_http_response_done. */
ATT_MUST_USE enum att_rc acme_http_perform(struct acme_http *http,
                                           const struct acme_http_request *request,
                                           struct acme_http_response *ret_response,
                                           struct att_err *err);
void acme_http_response_done(struct acme_http_response *response);
/* The running exchange and all later ones fail at once with ATT_E_GONE, until cancel is false. */
void acme_http_cancel(struct acme_http *http, bool cancel);
bool acme_http_cancelled(const struct acme_http *http);
/* Sleeps ms or until cancelled: ATT_E_GONE. */
ATT_MUST_USE enum att_rc acme_http_sleep(struct acme_http *http, int64_t ms, struct att_err *err);

#endif
