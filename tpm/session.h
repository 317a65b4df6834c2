/* The one HMAC session that a context keeps: salted by the SRK (whose Name is checked against the
 * public area computed here), AES-128-CFB parameter encryption, SHA-256. It is made at first use,
 * reused, and renewed after max_uses commands or max_idle_ms without one: an idle session can hold
 * up everybody else's (TPM_PT_CONTEXT_GAP_MAX, 255 on some parts). Policy sessions are internal,
 * one per use, always flushed. */
#ifndef ATT_TPM_SESSION_H
#define ATT_TPM_SESSION_H

#include "tpm/context.h"

#define TPM_SESSION_MAX_USES    200u
#define TPM_SESSION_MAX_IDLE_MS 10000u

/* 0 keeps the default. max_uses 1 means a new session for each command. */
void tpm_session_set_limits(struct tpm_context *ctx, uint32_t max_uses, uint32_t max_idle_ms);
/* Flushes the session when it has been idle for too long; call it from time to time (the queue
 * does). */
void tpm_session_idle(struct tpm_context *ctx);
/* Flushes the session, if there is one. */
void tpm_session_drop(struct tpm_context *ctx);
/* Sessions started since open: for tests and metrics. */
uint64_t tpm_session_started(const struct tpm_context *ctx);

#endif
