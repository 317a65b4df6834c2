/* Anti-replay nonces without a row per nonce (RFC 8555 §6.5): issuer id ‖ boot epoch ‖ counter ‖
 * MAC, spent in a bounded sliding window in memory. The MAC key is random per object, so a nonce
 * never outlives the process that made it. Thread-safe. */
#ifndef ATTESTD_PROVISION_ACME_NONCE_H
#define ATTESTD_PROVISION_ACME_NONCE_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"

#define ACME_NONCE_TEXT       49 /* 36 bytes as base64url, and a NUL */
#define ACME_NONCE_WINDOW_MIN ((size_t)64)
#define ACME_NONCE_WINDOW_MAX ((size_t)1 << 24)

struct acme_nonces;

/* window: how many of the latest nonces can still be spent (one bit each); rounded up to 64.
 * boot_epoch: any number that differs from start to start (the UTC start time in ms will do). */
ATT_MUST_USE enum att_rc acme_nonces_new(uint32_t issuer_id, uint64_t boot_epoch, size_t window,
                                         struct acme_nonces **ret_nonces, struct att_err *err);
void acme_nonces_free(struct acme_nonces *nonces);
void acme_nonces_issue(struct acme_nonces *nonces, char ret[ACME_NONCE_TEXT]);
/* ATT_OK exactly once per nonce issued. Otherwise reason "badNonce": ATT_E_PARSE (form), ATT_E_AUTH
 * (another issuer, another epoch, a wrong MAC), ATT_E_CONFLICT (spent, or fell out of the window).
 */
ATT_MUST_USE enum att_rc acme_nonces_spend(struct acme_nonces *nonces, const char *text,
                                           struct att_err *err);

#endif
