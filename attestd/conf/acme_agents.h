/* The agents of a host whose certificates come from another server than an attest-issuerd: nobody
 * but this file says which there are (acme.agents of attestd.yaml).
 *
 *   agents:
 *     - name: portfolio-rebalancer
 *       identifier: ek            the permanent identifier to order; ek unless set: this TPM's EK
 * id key: tpm                  the only kind that such a server can be shown; tpm unless set
 *       profile: device           of the server (its directory's); none unless set
 *       workload: { uid: 1001, unit: rebalancer.service }     one, or a list of alternatives
 *
 * workload is as in entries (entries.h), with manifest. Immutable once made; see conf.h for errors.
 */
#ifndef CONF_ACME_AGENTS_H
#define CONF_ACME_AGENTS_H

#include "attestd/conf/entries.h"

#define CONF_IDENTIFIER_MAX 255
#define CONF_IDENTIFIER_EK  "ek"

struct conf_acme_agent {
    char *name;
    char *identifier; /* NULL: this TPM's EK id */
    char *profile;    /* NULL: none is asked for */
    struct conf_workload *workload;
    size_t n_workload;
};
struct conf_acme_agents {
    struct conf_acme_agent *agents; /* names differ */
    size_t n;
};

/* 1 to CONF_IDENTIFIER_MAX printable characters of ASCII, none of them '/' or a space
 * (draft-ietf-acme-device-attest §3). */
bool conf_identifier_ok(const char *text);

ATT_MUST_USE enum att_rc conf_acme_agents_parse(struct att_slice yaml,
                                                struct conf_acme_agents **ret_agents,
                                                struct conf_errors *errors, struct att_err *err);
ATT_MUST_USE enum att_rc conf_acme_agents_load(const char *path,
                                               struct conf_acme_agents **ret_agents,
                                               struct conf_errors *errors, struct att_err *err);
void conf_acme_agents_free(struct conf_acme_agents *agents);

#endif
