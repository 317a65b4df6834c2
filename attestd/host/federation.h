/* What a view says of other trust domains: their bundles, and which agents are given them. */
#ifndef ATTESTD_HOST_FEDERATION_H
#define ATTESTD_HOST_FEDERATION_H

#include "attestd/base/json.h"
#include "attestd/proc/workload_proto.h"

#include <openssl/x509.h>

struct host_federated {
    char trust_domain[PROC_TRUST_DOMAIN_MAX + 1];
    struct att_buf roots;                            /* DER, one behind the other */
    struct att_slice root[PROC_FEDERATED_ROOTS_MAX]; /* … where each stands */
    size_t n_roots;
    struct att_buf keys;   /* JSON text of a JWK Set */
    struct att_buf agents; /* names, a newline behind each */
};

/* In the view's order. Immutable once made. */
struct host_federation {
    struct host_federated v[PROC_FEDERATED_MAX];
    size_t n;
    uint64_t number; /* over all of it; never 0 */
};

/* Of a view's "federation" and its entries' "federatesWith"; without them it is empty. own: the
 * view's trust domain, which is not among them. ATT_E_PARSE, ATT_E_LIMIT, ATT_E_NOMEM. */
ATT_MUST_USE enum att_rc host_federation_new(const json_t *view, const char *own,
                                             struct host_federation **ret_federation,
                                             struct att_err *err);
void host_federation_free(struct host_federation *federation); /* NULL is fine */

/* FEDERATION (proc/workload_proto.h); federation NULL: nothing is known yet. */
ATT_MUST_USE enum att_rc host_federation_answer(const struct host_federation *federation,
                                                const struct proc_op *op,
                                                const struct proc_value *v,
                                                struct att_buf *ret_payload, struct att_err *err);

#endif
