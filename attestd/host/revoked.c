#include "attestd/host/revoked.h"

#include "attestd/base/io.h"
#include "attestd/host/internal.h"
#include "certs/install.h"
#include "certs/oid.h"
#include "provision/acme/client.h"

#include <inttypes.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#define RETRY_MS  ((int64_t)30000)   /* after a failure */
#define LATEST_MS ((int64_t)3600000) /* a revocation is heard of at once: it changes the view */

void host_crls_done(struct host_crls *crls)
{
    for (size_t i = 0; i < crls->n; i++) {
        X509_CRL_free(crls->v[i].crl);
    }
    *crls = (struct host_crls){.n = 0};
}

void host_crls_name(struct host_crls *crls, const struct host_crl_files *files)
{
    struct host_crls fresh = {.n = 0};
    for (size_t i = 0; i < files->n; i++) {
        struct host_crl *to = &fresh.v[fresh.n++];
        for (size_t k = 0; k < crls->n; k++) {
            if (strcmp(crls->v[k].file, files->v[i]) == 0) {
                *to = crls->v[k];
                crls->v[k].crl = NULL;
            }
        }
        memcpy(to->file, files->v[i], sizeof to->file);
    }
    host_crls_done(crls);
    *crls = fresh;
}

/* ---- what was kept --------------------------------------------------------------------------- */

bool host_crls_whole(const struct host_crls *crls)
{
    size_t n = 0;
    while (n < crls->n && crls->v[n].crl) {
        n++;
    }
    return n > 0 && n == crls->n;
}

/* By name and key: two generations of an authority may have one name. */
static bool same_issuer(X509_CRL *a, X509_CRL *b)
{
    bool same = X509_NAME_cmp(X509_CRL_get_issuer(a), X509_CRL_get_issuer(b)) == 0;
    AUTHORITY_KEYID *x = X509_CRL_get_ext_d2i(a, NID_authority_key_identifier, NULL, NULL);
    AUTHORITY_KEYID *y = X509_CRL_get_ext_d2i(b, NID_authority_key_identifier, NULL, NULL);
    if (same && x && y && x->keyid && y->keyid) {
        same = ASN1_OCTET_STRING_cmp(x->keyid, y->keyid) == 0;
    }
    AUTHORITY_KEYID_free(x);
    AUTHORITY_KEYID_free(y);
    return same;
}

static bool has_issuer(X509_CRL *const *lists, size_t n, X509_CRL *crl)
{
    while (n > 0 && !same_issuer(lists[n - 1], crl)) {
        n--;
    }
    return n > 0;
}

/* The next one of the file; NULL: no more. */
static X509_CRL *next_kept(BIO *bio)
{
    att_autobuf der = ATT_BUF_INIT(CERTS_CRL_MAX);
    certs_autocrl *crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL);
    X509_CRL *checked = NULL;
    int len = crl ? i2d_X509_CRL(crl, NULL) : 0;
    uint8_t *at = len > 0 ? att_buf_extend(&der, (size_t)len) : NULL;
    if (!at || i2d_X509_CRL(crl, &at) != len ||
        certs_crl_parse(att_buf_slice(&der), &checked, NULL) != ATT_OK) {
        return NULL;
    }
    return checked;
}

void host_crls_kept(const char *path, X509_CRL **lists, size_t *n)
{
    att_autobuf pem = ATT_BUF_INIT(HOST_CRLS_MAX * 2 * CERTS_CRL_MAX);
    if (att_io_read_file(path, HOST_CRLS_MAX * 2 * CERTS_CRL_MAX, &pem, NULL)) {
        return;
    }
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    X509_CRL *crl = NULL;
    while (bio && *n < HOST_CRLS_MAX && (crl = next_kept(bio))) {
        if (has_issuer(lists, *n, crl)) {
            X509_CRL_free(crl);
        } else {
            lists[(*n)++] = crl;
        }
    }
    BIO_free(bio);
}

/* ---- whose certificates it names --------------------------------------------------------------
 */

/* A serial number says something together with its CA only: is the list of the CA that signed this
 * agent's certificate? Where no chain is installed nobody is served by it, and what is named goes:
 * a kill between withdrawal and record must not leave a key that signs. */
static bool is_of_chain(struct host *host, const char *name, X509_CRL *crl)
{
    att_autobuf pem = {0}, uri = {0};
    certs_autostack *chain = NULL;
    struct att_err why = {0};
    enum att_rc rc = certs_install_load(host->paths.agents, name, &pem, &uri, &why);
    if (rc == ATT_E_NOTFOUND) {
        return true;
    }
    if (rc == ATT_OK) {
        rc = certs_pem_parse(att_buf_slice(&pem), &chain, &why);
    }
    if (rc == ATT_OK && sk_X509_num(chain) < 2) {
        rc = att_fail(&why, ATT_E_PARSE, "the chain has no intermediate");
    }
    if (rc == ATT_OK) {
        rc = certs_crl_verify(crl, sk_X509_value(chain, 1), att_now_utc_s(), &why);
        /* A list that is late still says what was revoked. */
        if (rc != ATT_OK &&
            (strcmp(why.reason, "crlStale") == 0 || strcmp(why.reason, "crlNotYet") == 0)) {
            rc = ATT_OK;
        }
    }
    if (rc != ATT_OK && host->crls.n < 2) { /* one of several is another authority's */
        att_err_prefix(&why, "%s", name);
        att_log_err(ATT_ERROR, "crl.notOfThisChain", &why);
    }
    return rc == ATT_OK;
}

/* What of an agent the list (NULL: the ban of the host, which names everything) names and is not on
 * its way out already. Under lock. */
static bool names_current(const struct agent *agent, X509_CRL *crl)
{
    return agent_life_serving(&agent->rec.life) && !agent->revoked &&
           (!crl || certs_crl_has(crl, agent->rec.serial));
}

static bool names_retired(const struct agent_retired *one, X509_CRL *crl)
{
    return !one->revoked && (!crl || certs_crl_has(crl, one->serial));
}

static bool is_named(struct host *host, size_t i, X509_CRL *crl, char ret_name[AGENT_NAME_MAX + 1],
                     bool *ret_end)
{
    HOST_LOCKED(host);
    const struct agent *agent = agent_registry_at(host->reg, i);
    *ret_end = !agent;
    if (!agent) {
        return false;
    }
    memcpy(ret_name, agent->rec.name, AGENT_NAME_MAX + 1);
    bool named = names_current(agent, crl);
    for (size_t k = 0; !named && k < agent->rec.n_retired; k++) {
        named = names_retired(&agent->rec.retired[k], crl);
    }
    return named;
}

/* Looked at again: it may have been renewed meanwhile. */
static void withdraw(struct host *host, const char *name, X509_CRL *crl)
{
    char serials[1 + AGENT_RETIRED_MAX][65];
    size_t n = 0;
    bool current = false;
    {
        HOST_LOCKED(host);
        struct agent *agent = agent_registry_find(host->reg, name);
        if (agent && names_current(agent, crl)) {
            agent->revoked = current = true;
            memcpy(serials[n++], agent->rec.serial, sizeof(serials[0]));
        }
        for (size_t i = 0; agent && i < agent->rec.n_retired; i++) {
            struct agent_retired *one = &agent->rec.retired[i];
            if (names_retired(one, crl)) {
                one->revoked = true; /* over: keyd destroys it, then the record forgets it */
                agent->retire_not_before_ms = 0;
                memcpy(serials[n++], one->serial, sizeof(serials[0]));
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        att_log(ATT_WARN, "agent.revoked", ATT_S("agent", name), ATT_S("serial", serials[i]),
                ATT_S("key", current && i == 0 ? "inForce" : "retired"));
    }
    host_wake(host);
}

static void hold_against(struct host *host, X509_CRL *crl)
{
    bool end = false;
    for (size_t i = 0; !end; i++) {
        char name[AGENT_NAME_MAX + 1];
        if (is_named(host, i, crl, name, &end) && (!crl || is_of_chain(host, name, crl))) {
            withdraw(host, name, crl);
        }
    }
}

void host_banned(struct host *host)
{
    hold_against(host, NULL);
}

/* ---- getting it -------------------------------------------------------------------------------
 */

static uint64_t known(struct host *host, size_t i, bool at_once, bool *ret_due)
{
    HOST_LOCKED(host);
    const struct host_crl *one = &host->crls.v[i];
    *ret_due = at_once || att_boottime_ms() >= one->next_ms;
    return one->crl ? one->info.number : 0;
}

static void due_in(struct host *host, size_t i, int64_t ms)
{
    HOST_LOCKED(host);
    host->crls.v[i].next_ms = att_boottime_ms() + ms;
}

enum att_rc host_crls_keep(const struct host *host, size_t i, X509_CRL *crl, struct att_err *err)
{
    att_autobuf pem = ATT_BUF_INIT(HOST_CRLS_MAX * 2 * CERTS_CRL_MAX);
    X509_CRL *all[HOST_CRLS_MAX];
    size_t n = 0, own;
    bool whole = true;
    for (size_t k = 0; k < host->crls.n; k++) {
        X509_CRL *one = k == i ? crl : host->crls.v[k].crl;
        whole = whole && one;
        if (one) {
            all[n++] = one;
        }
    }
    own = n;
    if (!whole) {
        host_crls_kept(host->paths.crl, all, &n);
    }
    enum att_rc rc = ATT_OK;
    for (size_t k = 0; k < n && !rc; k++) {
        uint8_t *der = NULL;
        int len = i2d_X509_CRL(all[k], &der);
        rc = len > 0 ? certs_crl_dump(ATT_SLICE(der, (size_t)len), &pem, err)
                     : att_fail(err, ATT_E_NOMEM, "no memory for a list");
        OPENSSL_free(der);
    }
    while (n > own) {
        X509_CRL_free(all[--n]);
    }
    return rc ? rc : att_io_write_file(host->paths.crl, att_buf_slice(&pem), 0644, err);
}

/* The number of what was kept of the same authority, where this process has none of it yet. */
static uint64_t kept_number(const struct host *host, X509_CRL *crl)
{
    X509_CRL *kept[HOST_CRLS_MAX];
    struct certs_crl_info info = {0};
    uint64_t number = 0;
    size_t n = 0;
    host_crls_kept(host->paths.crl, kept, &n);
    while (n > 0) {
        X509_CRL *one = kept[--n];
        if (same_issuer(one, crl) && certs_crl_info(one, &info, NULL) == ATT_OK) {
            number = info.number;
        }
        X509_CRL_free(one);
    }
    return number;
}

static enum att_rc accept(struct host *host, size_t i, struct att_slice der, uint64_t have,
                          struct att_err *err)
{
    certs_autocrl *crl = NULL;
    struct certs_crl_info info = {0};
    enum att_rc rc = certs_crl_parse(der, &crl, err);
    if (!rc) {
        rc = certs_crl_info(crl, &info, err);
    }
    if (!rc && !host->crls.v[i].crl) {
        have = kept_number(host, crl);
    }
    if (!rc && info.number < have) {
        rc = att_fail(err, ATT_E_PROTOCOL, "CRL number %" PRIu64 " after %" PRIu64, info.number,
                      have);
        att_err_reason(err, "crlNumber");
    }
    if (rc) {
        return rc;
    }
    /* Before the file: a full disk keeps nobody in service. */
    hold_against(host, crl);
    rc = host_crls_keep(host, i, crl, err);
    int64_t half_ms = (info.next_update - info.this_update) * 500;
    half_ms = half_ms < LATEST_MS ? half_ms : LATEST_MS;
    HOST_LOCKED(host);
    struct host_crl *one = &host->crls.v[i];
    X509_CRL *old = one->crl;
    one->crl = crl;
    one->info = info;
    one->next_ms = att_boottime_ms() + (rc ? RETRY_MS : half_ms);
    crl = old; /* freed at the end */
    return rc;
}

static enum att_rc fetch(struct host *host, struct acme_client *client, size_t i, bool at_once,
                         struct att_err *err)
{
    bool due = false, changed = false;
    uint64_t have = known(host, i, at_once, &due);
    if (!due) {
        return ATT_OK;
    }
    att_autobuf der = ATT_BUF_INIT(CERTS_CRL_MAX);
    due_in(host, i, RETRY_MS);
    enum att_rc rc = acme_client_crl(client, host->crls.v[i].file, have, &changed, &der, err);
    if (rc == ATT_E_NOTFOUND) {
        return ATT_OK; /* an issuer that has none, of an earlier version */
    }
    if (!rc && changed) {
        rc = accept(host, i, att_buf_slice(&der), have, err);
    }
    if (rc) {
        att_err_prefix(err, "revocation list");
    }
    return rc;
}

enum att_rc host_crl_poll(struct host *host, struct acme_client *client, bool at_once,
                          struct att_err *err)
{
    static const struct host_crl_files first = {{HOST_CRL_FIRST}, 1};
    enum att_rc rc = ATT_OK;
    if (host->crls.n == 0) {
        HOST_LOCKED(host);
        host_crls_name(&host->crls, &first);
    }
    for (size_t i = 0; i < host->crls.n; i++) {
        struct att_err why = {0};
        enum att_rc one = fetch(host, client, i, at_once, &why);
        if (one && !rc) {
            rc = one;
            *err = why;
        }
    }
    /* Only this thread replaces them. Whoever was renewed, or skipped because another left the
     * registry, while a list was held against all is found now. */
    for (size_t i = 0; i < host->crls.n; i++) {
        if (host->crls.v[i].crl) {
            hold_against(host, host->crls.v[i].crl);
        }
    }
    return rc;
}

json_t *host_crl_json(const struct host *host)
{
    const struct host_crl *first = &host->crls.v[0];
    const struct certs_crl_info *info = &first->info;
    return host->crls.n && first->crl
               ? json_pack("{s:I, s:o, s:o, s:I, s:I}", "number", (json_int_t)info->number,
                           "thisUpdate", host_time_json(info->this_update), "nextUpdate",
                           host_time_json(info->next_update), "entries",
                           (json_int_t)info->n_entries, "lists", (json_int_t)host->crls.n)
               : NULL;
}
