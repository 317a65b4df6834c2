/* What spiffed asks beside who a caller is: has anything in force changed, the bundle, the
 * revocation list (proc/workload_proto.h). */
#include "attestd/base/hash.h"
#include "attestd/host/federation.h"
#include "attestd/host/internal.h"
#include "attestd/proc/workload_proto.h"
#include "certs/chain.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

/* ---- WATCH --------------------------------------------------------------------------------- */

static void put_agent(const struct agent *agent, struct agent_now now, struct att_buf *text)
{
    bool serving =
        agent_life_serving(&agent->rec.life) && !agent_sched_expired(&agent->rec.dates, now);
    att_buf_printf(text, "%s %d %s %s\n", agent->rec.name, serving, agent->rec.serial,
                   agent->rec.key_id);
}

/* The lists in force, one of each authority; n 0: none has come yet. */
struct lists {
    X509_CRL *v[HOST_CRLS_MAX];
    size_t n;
};

static void lists_done(struct lists *lists)
{
    while (lists->n > 0) {
        X509_CRL_free(lists->v[--lists->n]);
    }
}

/* One list: its number. Several: a number that is another when any of theirs is. */
static uint64_t lists_number(const struct lists *lists)
{
    uint8_t sha256[ATT_SHA256_LEN];
    att_autobuf text = {0};
    struct certs_crl_info info = {0};
    for (size_t i = 0; i < lists->n; i++) {
        if (certs_crl_info(lists->v[i], &info, NULL) != ATT_OK) {
            return 0;
        }
        att_buf_printf(&text, "%llu %lld\n", (unsigned long long)info.number,
                       (long long)info.this_update);
    }
    if (lists->n < 2) {
        return info.number;
    }
    att_sha256(sha256, att_buf_slice(&text));
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(sha256));
    return att_cur_be64(&cur);
}

/* Over all that an answer of VIEW, BUNDLE or CRL is made of; never 0. Under lock. */
static uint64_t standing_of(struct host *host)
{
    uint8_t sha256[ATT_SHA256_LEN];
    att_autobuf text = {0};
    struct agent_now now = host_now();
    att_buf_printf(&text, "%lld %llu\n", (long long)host->started_at,
                   (unsigned long long)host->view_version);
    for (size_t i = 0; i < host->crls.n; i++) {
        const struct host_crl *one = &host->crls.v[i];
        att_buf_printf(&text, "%s %llu %lld\n", one->file,
                       (unsigned long long)(one->crl ? one->info.number : 0),
                       (long long)one->info.this_update);
    }
    struct agent *agent;
    for (size_t i = 0; (agent = agent_registry_at(host->reg, i)); i++) {
        put_agent(agent, now, &text);
    }
    att_sha256(sha256, att_buf_slice(&text));
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(sha256));
    uint64_t number = att_cur_be64(&cur);
    return number ? number : 1;
}

static enum att_rc watch(struct host *host, const struct proc_op *op, const struct proc_value *v,
                         struct att_buf *ret_payload, struct att_err *err)
{
    uint64_t known_entries = v[PROC_WORKLOAD_WATCH_REQ_ENTRIES].num, entries;
    uint64_t known_standing = v[PROC_WORKLOAD_WATCH_REQ_STANDING].num, standing;
    int64_t until_ms = att_boottime_ms() + PROC_CHANGES_WAIT_MS;
    {
        HOST_LOCKED(host);
        for (;;) {
            entries = host_local_mix(host->local, host->selectors ? host->selectors->number : 0);
            standing = standing_of(host);
            int64_t left_ms = until_ms - att_boottime_ms();
            if (entries != known_entries || standing != known_standing || left_ms <= 0 ||
                atomic_load(&host->stop)) {
                break;
            }
            /* A certificate that ends wakes nobody. */
            host_wait(host, left_ms < PROC_WATCH_STEP_MS ? left_ms : PROC_WATCH_STEP_MS);
        }
    }
    const struct proc_value reply[] = {[PROC_WORKLOAD_WATCH_REP_ENTRIES] = proc_num(entries),
                                       [PROC_WORKLOAD_WATCH_REP_STANDING] = proc_num(standing)};
    return proc_reply_encode(op, reply, ret_payload, err);
}

/* ---- the lists in force -------------------------------------------------------------------- */

/* Nothing is unsaid while some have not been fetched yet: of an authority whose list has not come,
 * the one that was kept stands until all are there. */
static void lists_now(struct host *host, struct lists *ret)
{
    bool whole;
    {
        HOST_LOCKED(host);
        whole = host_crls_whole(&host->crls);
        for (size_t i = 0; i < host->crls.n; i++) {
            X509_CRL *crl = host->crls.v[i].crl;
            if (crl && X509_CRL_up_ref(crl) == 1) {
                ret->v[ret->n++] = crl;
            }
        }
    }
    if (!whole) {
        host_crls_kept(host->paths.crl, ret->v, &ret->n);
    }
}

/* Their DER, one after the other, and number; ret_der empty: this host has none. */
static void crl_now(struct host *host, struct att_buf *ret_der, uint64_t *ret_number)
{
    struct lists lists = {.n = 0};
    lists_now(host, &lists);
    *ret_der = ATT_BUF_INIT(HOST_CRLS_MAX * CERTS_CRL_MAX);
    *ret_number = lists_number(&lists);
    for (size_t i = 0; i < lists.n; i++) {
        int len = i2d_X509_CRL(lists.v[i], NULL);
        uint8_t *at = len > 0 ? att_buf_extend(ret_der, (size_t)len) : NULL;
        if (!at || i2d_X509_CRL(lists.v[i], &at) != len) {
            att_buf_reset(ret_der);
            break;
        }
    }
    lists_done(&lists);
}

/* ---- BUNDLE -------------------------------------------------------------------------------- */

struct bundle {
    STACK_OF(X509) * roots;
    char trust_domain[sizeof(((struct host *)0)->trust_domain)];
    uint64_t crl_number, crl_size;
};

static enum att_rc read_bundle(struct host *host, struct bundle *ret, struct att_err *err)
{
    HOST_LOCKED(host);
    /* Roots of a server that knows of no trust domain are no SPIFFE bundle. */
    if (!host->bundle || sk_X509_num(host->bundle) == 0 || host->trust_domain[0] == '\0') {
        (void)!att_fail(err, ATT_E_NOTFOUND, "%s",
                        host->conf && host->conf->acme
                            ? "the server names no trust domain: no SPIFFE bundle"
                            : "the issuer has not said yet which roots to trust");
        att_err_reason(err, "noBundle");
        return ATT_E_NOTFOUND;
    }
    ret->roots = X509_chain_up_ref(host->bundle);
    memcpy(ret->trust_domain, host->trust_domain, sizeof(ret->trust_domain));
    return ret->roots ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory for a bundle");
}

static enum att_rc bundle(struct host *host, const struct proc_op *op, struct att_buf *ret_payload,
                          struct att_err *err)
{
    struct bundle now = {0};
    struct att_slice items[PROC_BUNDLE_MAX];
    att_autobuf ders = {0};
    size_t n = 0;
    enum att_rc rc = read_bundle(host, &now, err);
    if (rc == ATT_OK) {
        att_autobuf der = {0};
        crl_now(host, &der, &now.crl_number);
        now.crl_size = der.len;
        rc = host_put_ders(now.roots, PROC_BUNDLE_MAX, &ders, items, &n, err);
    }
    if (rc == ATT_OK) {
        const struct proc_value reply[] = {
            [PROC_WORKLOAD_BUNDLE_REP_TRUST_DOMAIN] = proc_text(now.trust_domain),
            [PROC_WORKLOAD_BUNDLE_REP_BUNDLE] = {.items = items, .item_count = n},
            [PROC_WORKLOAD_BUNDLE_REP_CRL_NUMBER] = proc_num(now.crl_number),
            [PROC_WORKLOAD_BUNDLE_REP_CRL_SIZE] = proc_num(now.crl_size)};
        rc = proc_reply_encode(op, reply, ret_payload, err);
    }
    certs_stack_cleanup(&now.roots);
    return rc;
}

/* ---- CRL ----------------------------------------------------------------------------------- */

static enum att_rc crl(struct host *host, const struct proc_op *op, const struct proc_value *v,
                       struct att_buf *ret_payload, struct att_err *err)
{
    uint64_t offset = v[PROC_WORKLOAD_CRL_REQ_OFFSET].num;
    att_autobuf der = {0};
    uint64_t number = 0;
    crl_now(host, &der, &number);
    if (der.len == 0 || number != v[PROC_WORKLOAD_CRL_REQ_NUMBER].num) {
        enum att_rc rc = att_fail(err, ATT_E_RETRY, "another revocation list is in force");
        att_err_reason(err, "crlOther");
        return rc;
    }
    if (offset >= der.len) {
        return att_fail(err, ATT_E_INVAL, "offset %llu in lists of %zu bytes",
                        (unsigned long long)offset, der.len);
    }
    size_t left = der.len - (size_t)offset;
    struct att_slice part =
        ATT_SLICE(der.ptr + offset, left < PROC_CRL_PART_MAX ? left : PROC_CRL_PART_MAX);
    const struct proc_value reply[] = {[PROC_WORKLOAD_CRL_REP_BYTES] = proc_bytes(part)};
    return proc_reply_encode(op, reply, ret_payload, err);
}

enum att_rc host_standing_answer(struct host *host, const struct proc_op *op,
                                 const struct proc_value *v, struct att_buf *ret_payload,
                                 struct att_err *err)
{
    switch (op->op) {
    case PROC_WORKLOAD_WATCH:
        return watch(host, op, v, ret_payload, err);
    case PROC_WORKLOAD_BUNDLE:
        return bundle(host, op, ret_payload, err);
    case PROC_WORKLOAD_FEDERATION: {
        HOST_LOCKED(host);
        return host_federation_answer(host->federation, op, v, ret_payload, err);
    }
    case PROC_WORKLOAD_CRL:
        return crl(host, op, v, ret_payload, err);
    default:
        return att_fail(err, ATT_E_UNSUPPORTED, "operation %u is not served", op->op);
    }
}
