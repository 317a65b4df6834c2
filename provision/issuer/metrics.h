/* What the issuer counts, and whether it can do its work: GET /metrics, /live and /ready on a
 * listener of its own (docs/OPERATIONS.md). The counters are the process's; labels are words of
 * ours, of which there are only so many. */
#ifndef PROVISION_ISSUER_METRICS_H
#define PROVISION_ISSUER_METRICS_H

#include "attestd/base/metrics.h"
#include "provision/issuer/context.h"
#include "provision/issuer/proxy.h"

/* One request was answered. resource: a route's noun, or a word of ours (static). */
void issuer_metrics_request(const char *resource, int status, int64_t us);
/* A decision record was written: kind, outcome and, of a refusal, reason. Also where its
 * transaction is undone afterwards. */
void issuer_metrics_decision(const char *kind, const char *outcome, const char *reason);
/* A nonce was refused, with this result of acme_nonces_spend. */
void issuer_metrics_nonce(enum att_rc rc);
/* Somebody was told to come back later. */
void issuer_metrics_limited(enum issuer_limit_kind kind);
/* A balancer's connection was ended for its header. */
void issuer_metrics_proxy(enum issuer_proxy_result why);
/* Its label; each kind has one. */
const char *issuer_metrics_limit_word(enum issuer_limit_kind kind);

/* ---- can it do its work? ----------------------------------------------------------------------
 */

/* Main thread, each turn: looks at the store and the authorities, and says in the log what changed.
 */
void issuer_health_look(struct issuer *issuer);
/* From now on it is not ready: it ends. */
void issuer_health_drain(struct issuer *issuer);
/* NULL: ready. Otherwise why not, a word: "starting", "draining", "store", "ca", "auditLog",
 * "stalled". Any thread. */
const char *issuer_health_why(struct issuer *issuer);
/* Does the main loop turn? Any thread. */
bool issuer_health_live(struct issuer *issuer);

/* ---- the listener -----------------------------------------------------------------------------
 */

/* All of it. */
ATT_MUST_USE enum att_rc issuer_metrics_write(struct issuer *issuer, enum att_metrics_form form,
                                              struct att_buf *ret_text, struct att_err *err);
struct issuer_metrics_server;
/* *ret_server NULL: the configuration wants none. */
ATT_MUST_USE enum att_rc issuer_metrics_server_new(struct issuer *issuer,
                                                   struct issuer_metrics_server **ret_server,
                                                   struct att_err *err);
void issuer_metrics_server_free(struct issuer_metrics_server *server); /* NULL is fine */
uint16_t issuer_metrics_server_port(const struct issuer_metrics_server *server);

#endif
