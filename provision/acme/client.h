/* An ACME client's session with one issuer (RFC 8555, docs/PROTOCOL.md M0–M7). Calls are
 * synchronous and made by one thread at a time; acme_client_cancel may be called from any thread.
 *
 * Errors: a problem document becomes an att_err by acme_problem_to_err (reason = the issuer's word)
 * and stays readable by acme_client_last. badNonce is retried inside with the returned nonce, at
 * most ACME_CLIENT_NONCE_TRIES times. Nothing else is retried: the caller decides, with
 * acme_client_last()->retry_after_s and acme_backoff_ms. */
#ifndef ATTESTD_PROVISION_ACME_CLIENT_H
#define ATTESTD_PROVISION_ACME_CLIENT_H

#include "provision/acme/http.h"
#include "provision/acme/objects.h"
#include "provision/acme/requests.h"

#define ACME_CLIENT_NONCE_TRIES 4
#define ACME_DIRECTORY_PATH_MAX 1024
#define ACME_CLIENT_NONCES      8 /* nonces kept for later requests */
#define ACME_CERT_MAX           ((size_t)256 << 10)
#define ACME_HOST_VIEW_MAX      ((size_t)8 << 20)
#define ACME_HOST_VIEW_WAIT_MAX 60

struct acme_client_config {
    const char *base_url;  /* "https://host:port/acme": the directory is <base_url>/directory … */
    const char *directory; /* … unless it has a name of its own there ("dir", "a/b/dir"); NULL */
    struct acme_http_config http;
    struct acme_signer signer;     /* of the account key; its user must outlive the client */
    struct att_slice account_spki; /* DER, the account's public key; copied */
    const char *kid;               /* account URL if known already; else NULL */
};

/* Of the latest exchange. */
struct acme_client_last {
    int status;            /* HTTP; 0 = no answer */
    int64_t retry_after_s; /* -1 = the issuer said nothing */
    bool has_problem;
    struct acme_problem problem;
    char tls_group[32];
};

struct acme_client;

ATT_MUST_USE enum att_rc acme_client_new(const struct acme_client_config *config,
                                         struct acme_client **ret_client, struct att_err *err);
void acme_client_free(struct acme_client *client);
void acme_client_cancel(struct acme_client *client, bool cancel);
const struct acme_client_last *acme_client_last(const struct acme_client *client);
/* RFC 7638 thumbprint of the account key. */
const char *acme_client_thumbprint(const struct acme_client *client);
/* The account URL; NULL before there is one. */
const char *acme_client_kid(const struct acme_client *client);
ATT_MUST_USE enum att_rc acme_client_set_kid(struct acme_client *client, const char *kid,
                                             struct att_err *err);

/* The directory, fetched on first use and kept; refresh fetches it again. Borrowed until the next
 * refresh. Every URL in it must be https and have base_url's scheme, host and port. */
ATT_MUST_USE enum att_rc acme_client_directory(struct acme_client *client, bool refresh,
                                               const struct acme_directory **ret_dir,
                                               struct att_err *err);

/* Any signed request, for what the functions below do not cover. payload {NULL, 0} is POST-as-GET.
 * ATT_OK for 2xx, and for 304 (only if if_none_match was set); else the problem as an error. */
struct acme_client_post {
    const char *url;
    struct att_slice payload;
    /* NULL, or who writes the payload for each try anew: it has the request's nonce in it. */
    enum att_rc (*payload_of)(void *user, const char *nonce, struct att_buf *ret_payload,
                              struct att_err *err);
    void *user;                                  /* of payload_of */
    const char *accept, *if_none_match, *prefer; /* NULL = absent */
    size_t max_body;                             /* 0 = ACME_HTTP_BODY_MAX */
    int timeout_ms;                              /* 0 = ACME_HTTP_TIMEOUT_MS */
    bool use_jwk; /* sign with the key itself, not kid (newAccount) */
};
ATT_MUST_USE enum att_rc acme_client_post(struct acme_client *client,
                                          const struct acme_client_post *post,
                                          struct acme_http_response *ret_response,
                                          struct att_err *err);

/* newAccount (RFC 8555 §7.3), with EAB when eab_kid is not NULL. Remembers the account URL. An
 * account that exists already is ATT_OK. existing_only: ATT_E_NOTFOUND when there is none. */
ATT_MUST_USE enum att_rc acme_client_new_account(struct acme_client *client, const char *eab_kid,
                                                 struct att_slice eab_mac, bool existing_only,
                                                 struct att_err *err);
/* M1. payload is sent as it is (its SHA-256 enters the key schedule), and the body is given back as
 * it came (so does its SHA-256). ret_url: the AK URL, caller frees. */
ATT_MUST_USE enum att_rc acme_client_new_attestation_key(struct acme_client *client,
                                                         struct att_slice payload,
                                                         struct att_buf *ret_body, char **ret_url,
                                                         struct att_err *err);
/* M2: payload to the AK URL, body back. */
ATT_MUST_USE enum att_rc acme_client_activate(struct acme_client *client, const char *ak_url,
                                              struct att_slice payload, struct att_buf *ret_body,
                                              struct att_err *err);
/* M3. ret_url: the order's URL, caller frees; caller calls acme_order_done. */
ATT_MUST_USE enum att_rc acme_client_new_order(struct acme_client *client,
                                               const struct acme_order_request *request,
                                               struct acme_order *ret_order, char **ret_url,
                                               struct att_err *err);
/* POST-as-GET of an order or authorization. */
ATT_MUST_USE enum att_rc acme_client_order(struct acme_client *client, const char *url,
                                           struct acme_order *ret_order, struct att_err *err);
ATT_MUST_USE enum att_rc acme_client_authz(struct acme_client *client, const char *url,
                                           struct acme_authz *ret_authz, struct att_err *err);
/* M4. The challenge comes back valid, pending/processing, or invalid: then ATT_OK is not returned
 * but its error as by acme_problem_to_err. */
ATT_MUST_USE enum att_rc acme_client_challenge(struct acme_client *client, const char *url,
                                               struct att_slice payload,
                                               struct acme_challenge *ret_challenge,
                                               struct att_err *err);
/* M5. */
ATT_MUST_USE enum att_rc acme_client_finalize(struct acme_client *client, const char *url,
                                              struct att_slice csr_der,
                                              struct acme_order *ret_order, struct att_err *err);
/* POST-as-GET of the order until its status is none of those in `while_pending` (pending only when
 * asked) and processing, obeying Retry-After (else 1 s doubling to 8 s), or until timeout_ms
 * passed: ATT_E_TIMEOUT. An invalid order is ATT_E_DENIED (or as its error says). */
ATT_MUST_USE enum att_rc acme_client_wait_order(struct acme_client *client, const char *url,
                                                bool while_pending, int64_t timeout_ms,
                                                struct acme_order *ret_order, struct att_err *err);
/* M6. PEM, appended; what is in it is for the caller to check. */
ATT_MUST_USE enum att_rc acme_client_certificate(struct acme_client *client, const char *url,
                                                 struct att_buf *ret_pem, struct att_err *err);
/* M7. version 0 = we have none, answer at once. ret_changed false: nothing new within wait_s and
 * ret_jws is untouched. The JWS is given as it came; acme_jws_parse_signed reads it. */
ATT_MUST_USE enum att_rc acme_client_host_view(struct acme_client *client, uint64_t version,
                                               int wait_s, bool *ret_changed,
                                               struct att_buf *ret_jws, struct att_err *err);

/* M8. payload_of writes {"proof"} for a nonce. The answer's object is the caller's.
 * ATT_E_UNSUPPORTED, reason "tokensOff": the issuer mints none. */
ATT_MUST_USE enum att_rc acme_client_new_token(
    struct acme_client *client,
    enum att_rc (*payload_of)(void *user, const char *nonce, struct att_buf *ret_payload,
                              struct att_err *err),
    void *user, int timeout_ms, json_t **ret_json, struct att_err *err);

/* A revocation list: <base_url>/crl/FILE ("workload.crl"), unsigned GET. number 0: we have
 * none. ret_changed false: that is still the latest, and ret_der is untouched. What is in it is for
 * the caller to check. ATT_E_NOTFOUND: the issuer has no such thing. */
#define ACME_CRL_MAX ((size_t)8 << 20)
ATT_MUST_USE enum att_rc acme_client_crl(struct acme_client *client, const char *file,
                                         uint64_t number, bool *ret_changed,
                                         struct att_buf *ret_der, struct att_err *err);

/* RFC 9773 §4.1: GET of the renewal information of a certificate. ATT_E_UNSUPPORTED: the issuer has
 * none. Caller calls acme_renewal_info_done; acme_client_last()->retry_after_s says when to ask
 * again. */
ATT_MUST_USE enum att_rc acme_client_renewal_info(struct acme_client *client, const char *cert_id,
                                                  struct acme_renewal_info *ret_info,
                                                  struct att_err *err);

/* How long to wait before try number `attempt` (0, 1, …): base·2^attempt up to max, then uniformly
 * between half of that and all of it. */
int64_t acme_backoff_ms(unsigned attempt, int64_t base_ms, int64_t max_ms);
/* Retry-After when the issuer gave one (at most max_ms, never below base_ms), else acme_backoff_ms.
 */
int64_t acme_client_delay_ms(const struct acme_client *client, unsigned attempt, int64_t base_ms,
                             int64_t max_ms);
/* Sleeps; ATT_E_GONE when cancelled. */
ATT_MUST_USE enum att_rc acme_client_sleep(struct acme_client *client, int64_t ms,
                                           struct att_err *err);

#endif
