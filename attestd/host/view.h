/* The issuer's view of this host (docs/PROTOCOL.md M7): a signed document, read and judged. Pure.
 */
#ifndef ATTESTD_HOST_VIEW_H
#define ATTESTD_HOST_VIEW_H

#include "attestd/agent/registry.h"
#include "attestd/base/json.h"
#include "certs/chain.h"
#include "certs/oid.h"

struct host_federation;

#define HOST_VIEW_MAX ((size_t)8 << 20)
#define HOST_VIEW_TYP "attestd-hostview"

/* The revocation lists that a view names: files beside ACME, below crl/. */
#define HOST_CRLS_MAX      6
#define HOST_CRL_FILE_ROOM 48
#define HOST_CRL_FIRST     "workload.crl" /* where it names none */
struct host_crl_files {
    char v[HOST_CRLS_MAX][HOST_CRL_FILE_ROOM];
    size_t n;
};

#define HOST_RETIRED_MAX 16 /* roots of the issuer's TLS that a view says are over */

/* Owns; host_view_done. Strings in entries point into json. */
struct host_view {
    json_t *json; /* the payload */
    uint64_t version;
    int64_t issued_at;
    const char *trust_domain, *host_id;
    char host_state[16]; /* "approved", "pending", "banned", … */
    struct agent_entry *entries;
    size_t n_entries;
    STACK_OF(X509) * bundle; /* workload roots */
    struct att_slice bundle_pem;
    struct host_crl_files crls;
    STACK_OF(X509) * issuer_roots; /* what the issuer's TLS and views are under; NULL: not said */
    uint8_t retired[HOST_RETIRED_MAX][ATT_SHA256_LEN]; /* and what they no longer are */
    size_t n_retired;
    struct host_federation *federation; /* other trust domains; never NULL */
};
void host_view_done(struct host_view *view);

/* Whom a view must be signed by: a chain to one of roots, or to a root with this SHA-256 that comes
 * in x5c. Exactly one of the two. */
struct host_view_anchor {
    const STACK_OF(X509) * roots;
    const uint8_t *root_sha256;
    const char *host_id; /* ours (EK id); NULL or empty: not known yet */
};
/* Chain (purpose hostView, at at_s; 0: at the document's own issuedAt, for a cached one),
 * signature, form, and that it is about this host. ATT_E_AUTH, reason "hostViewSigner",
 * "hostViewSignature" or "hostViewHost"; ATT_E_PARSE. */
ATT_MUST_USE enum att_rc host_view_parse(struct att_slice jws,
                                         const struct host_view_anchor *anchor, int64_t at_s,
                                         struct host_view *ret_view, struct att_err *err);
/* The payload alone. */
ATT_MUST_USE enum att_rc host_view_payload_parse(struct att_slice json, struct host_view *ret_view,
                                                 struct att_err *err);

#endif
