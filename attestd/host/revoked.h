/* The issuer's revocation list on this host: fetched, kept for peers to use, and held against the
 * certificates of this host's own agents. */
#ifndef ATTESTD_HOST_REVOKED_H
#define ATTESTD_HOST_REVOKED_H

#include "attestd/base/json.h"
#include "attestd/host/view.h"
#include "certs/crl.h"

struct host;
struct acme_client;

/* Under the host's lock. */
struct host_crl {
    char file[HOST_CRL_FILE_ROOM]; /* at the issuer */
    X509_CRL *crl;                 /* NULL: none yet */
    struct certs_crl_info info;
    int64_t next_ms; /* CLOCK_BOOTTIME: when it is asked for again, whatever happens */
};
/* One of each authority whose certificates may be in force; {0}: no view yet. */
struct host_crls {
    struct host_crl v[HOST_CRLS_MAX];
    size_t n;
};
void host_crls_done(struct host_crls *crls);
/* These are to be had from now on; a list that is named no more goes. The lock is held; host
 * thread. */
void host_crls_name(struct host_crls *crls, const struct host_crl_files *files);

/* Has each of them come? Until then what was kept of the others stands. The lock is held. */
bool host_crls_whole(const struct host_crls *crls);
/* Appends to lists (room for HOST_CRLS_MAX, *n of them there) those in the file path whose issuer
 * has none among them; the caller frees them. What is no list ends the reading. */
void host_crls_kept(const char *path, X509_CRL **lists, size_t *n);

/* Writes paths.crl: all lists, with crl in the place of number i; of authorities whose list has not
 * come to this process, what the file has. Host thread: nobody else changes them. */
ATT_MUST_USE enum att_rc host_crls_keep(const struct host *host, size_t i, X509_CRL *crl,
                                        struct att_err *err);

/* Fetches each list when it is due, or at once. What is new is written to paths.crl (0644, PEM, one
 * after the other; until all have come, with what an earlier process kept of the authorities whose
 * list has not) and in force: an agent whose certificate it names goes out of service and loses
 * its keys, and a retired key whose certificate it names is destroyed. The list in force is held
 * against all agents each time, whatever became of the fetch. Host thread. A list that is older
 * than the one in force, or kept, is refused (ATT_E_PROTOCOL, reason "crlNumber"). */
ATT_MUST_USE enum att_rc host_crl_poll(struct host *host, struct acme_client *client, bool at_once,
                                       struct att_err *err);
/* The issuer says that this host is banned: all agents as if a list named them. A list names what
 * the issuer's database knows, which after an older backup was restored is not everything. */
void host_banned(struct host *host);
/* {"number", "thisUpdate", "nextUpdate", "entries"} of the first, with "lists", how many there are;
 * NULL when there is none. The lock is held. */
json_t *host_crl_json(const struct host *host);

#endif
