/* Renewal information (RFC 9773): the issuer may want certificates renewed before their time. */
#include "attestd/base/enc.h"
#include "attestd/host/internal.h"
#include "certs/chain.h"
#include "certs/install.h"
#include "certs/oid.h"
#include "provision/acme/requests.h"

#include <openssl/bn.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#define AT_A_TIME 32    /* agents asked for in one round of the host's thread */
#define LEAST_MS  60000 /* between two questions about one, whatever the issuer says */
#define MOST_MS   86400000
#define FAILED_MS 1800000 /* after a failure; RFC 9773 §4.3.3 */

struct question {
    char name[AGENT_NAME_MAX + 1];
    char serial[72];
};

static enum att_rc cert_id(struct host *host, const char *name, char ret[ACME_CERT_ID_LEN],
                           struct att_err *err)
{
    struct acme_cert_id id = {0};
    certs_autostack *chain = NULL;
    att_autobuf pem = {0}, uri = {0};
    enum att_rc rc = certs_install_load(host->paths.agents, name, &pem, &uri, err);
    if (rc == ATT_OK) {
        rc = certs_pem_parse(att_buf_slice(&pem), &chain, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    X509 *leaf = sk_X509_value(chain, 0);
    const ASN1_OCTET_STRING *aki = X509_get0_authority_key_id(leaf);
    const ASN1_INTEGER *serial = X509_get0_serialNumber(leaf);
    size_t aki_len = aki ? (size_t)ASN1_STRING_length(aki) : 0;
    size_t serial_len = (size_t)ASN1_STRING_length(serial);
    if (!aki_len || aki_len > sizeof id.aki || !serial_len || serial_len > sizeof id.serial) {
        return att_fail(err, ATT_E_UNSUPPORTED, "%s: its certificate has no identifier", name);
    }
    memcpy(id.aki, ASN1_STRING_get0_data(aki), aki_len);
    memcpy(id.serial, ASN1_STRING_get0_data(serial), serial_len);
    id.aki_len = aki_len;
    id.serial_len = serial_len;
    return acme_cert_id_encode(&id, ret, err);
}

/* Those whose turn it is; the lock is held only for this. */
static size_t collect(struct host *host, bool at_once, struct question ret[AT_A_TIME])
{
    HOST_LOCKED(host);
    int64_t now = att_boottime_ms();
    size_t n = 0;
    for (size_t i = 0; i < agent_registry_count(host->reg); i++) {
        struct agent *agent = agent_registry_at(host->reg, i);
        if (at_once) {
            agent->renewal_asked_ms = 0;
        }
        if (n == AT_A_TIME || agent->rec.life.state != AGENT_VALID || agent->forced ||
            agent->renewal_asked_ms > now) {
            continue;
        }
        snprintf(ret[n].name, sizeof ret[n].name, "%s", agent->rec.name);
        snprintf(ret[n].serial, sizeof ret[n].serial, "%s", agent->rec.serial);
        n++;
    }
    return n;
}

/* RFC 9773 §4.2: at a moment of the window, or at once when that lies behind; never later than it
 * was planned without. */
static bool take(struct host *host, const struct question *q, const struct acme_renewal_info *info,
                 int64_t next_ms)
{
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, q->name);
    if (!agent || strcmp(agent->rec.serial, q->serial) != 0 ||
        agent->rec.life.state != AGENT_VALID) {
        return false;
    }
    int64_t span = info->end - info->start;
    int64_t moment = info->start + (int64_t)(host_random() % (uint64_t)(span + 1));
    agent->renewal_asked_ms = att_boottime_ms() + next_ms;
    if (moment > att_now_utc_s()) {
        agent->rec.dates.renew_at =
            moment < agent->rec.dates.renew_at ? moment : agent->rec.dates.renew_at;
        return false;
    }
    agent->forced = true;
    return true;
}

static void ask_later(struct host *host, const char *name)
{
    HOST_LOCKED(host);
    struct agent *agent = agent_registry_find(host->reg, name);
    if (agent) {
        agent->renewal_asked_ms = att_boottime_ms() + FAILED_MS;
    }
}

static enum att_rc ask(struct host *host, struct acme_client *client, const struct question *q,
                       struct att_err *err)
{
    char id[ACME_CERT_ID_LEN];
    struct acme_renewal_info info = {0};
    enum att_rc rc = cert_id(host, q->name, id, err);
    if (rc == ATT_OK) {
        rc = acme_client_renewal_info(client, id, &info, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    int64_t next = acme_client_last(client)->retry_after_s * 1000;
    next = next < LEAST_MS ? LEAST_MS : next > MOST_MS ? MOST_MS : next;
    if (take(host, q, &info, next)) {
        att_log(ATT_INFO, "agent.renewalAsked", ATT_S("agent", q->name), ATT_S("serial", q->serial),
                ATT_S("why", info.explanation));
        host_wake(host);
    }
    acme_renewal_info_done(&info);
    return ATT_OK;
}

void host_renewal_poll(struct host *host, struct acme_client *client, bool at_once)
{
    struct question questions[AT_A_TIME];
    const struct acme_directory *dir = NULL;
    if (acme_client_directory(client, false, &dir, NULL) != ATT_OK || !dir->renewal_info) {
        return;
    }
    size_t n = collect(host, at_once, questions);
    for (size_t i = 0; i < n && !atomic_load(&host->stop); i++) {
        struct att_err err = {0};
        enum att_rc rc = ask(host, client, &questions[i], &err);
        if (rc != ATT_OK) {
            att_log_err(ATT_INFO, "agent.renewalInfo", &err);
            ask_later(host, questions[i].name);
        }
        if (rc == ATT_E_UNREACHABLE || rc == ATT_E_TIMEOUT || rc == ATT_E_GONE) {
            return;
        }
    }
}

bool host_renewal_replaces(struct host *host, struct acme_client *client,
                           const struct agent_record *rec, char ret[ACME_CERT_ID_LEN])
{
    struct att_err err = {0};
    const struct acme_directory *dir = NULL;
    if (!rec->serial[0] || acme_client_directory(client, false, &dir, NULL) != ATT_OK ||
        !dir->renewal_info) {
        return false;
    }
    if (cert_id(host, rec->name, ret, &err) != ATT_OK) {
        att_log_err(ATT_DEBUG, "agent.replaces", &err); /* withdrawn, say: then it is a new one */
        return false;
    }
    return true;
}

bool host_renewal_refused(struct acme_client *client)
{
    const struct acme_client_last *last = acme_client_last(client);
    enum acme_problem_type type = last->problem.type;
    return last->has_problem && (type == ACME_P_ALREADY_REPLACED || type == ACME_P_MALFORMED ||
                                 type == ACME_P_UNAUTHORIZED);
}
