/* The issuer's revocation list on this host: fetched, kept for peers to use, and held against the
 * certificates of this host's own agents. */
#ifndef ATTESTD_HOST_REVOKED_H
#define ATTESTD_HOST_REVOKED_H

#include "attestd/base/json.h"
#include "certs/crl.h"

struct host;
struct acme_client;

/* Under the host's lock. {0}: none yet. */
struct host_crl {
    X509_CRL *crl;
    struct certs_crl_info info;
    int64_t next_ms; /* CLOCK_BOOTTIME: when it is asked for again, whatever happens */
};
void host_crl_done(struct host_crl *crl);

/* Fetches the list when it is due, or at once. What is new is written to paths.crl (0644, PEM) and
 * in force: an agent whose certificate it names goes out of service and loses its keys, and a
 * retired key whose certificate it names is destroyed. The list in force is held against all agents
 * each time, whatever became of the fetch. Host thread. A list that is older than the one in force
 * is refused (ATT_E_PROTOCOL, reason "crlNumber"). */
ATT_MUST_USE enum att_rc host_crl_poll(struct host *host, struct acme_client *client, bool at_once,
                                       struct att_err *err);
/* {"number", "thisUpdate", "nextUpdate", "entries"}; NULL when there is none. The lock is held. */
json_t *host_crl_json(const struct host *host);

#endif
