/* What a TPM response code means to the caller. */
#ifndef ATT_TPM_ERRORS_H
#define ATT_TPM_ERRORS_H

#include "attestd/base/err.h"

#include <stdint.h>

/* Maps a TSS2_RC (from the TPM, or from a layer of the TSS) to what the caller can do about it:
 *   LOCKOUT  dictionary-attack lockout: wait, never reset
 *   RETRY    retry, yielded, testing, out of object/session/NV memory, PCR changed, NV rate
 *   GONE     the device, socket or resource manager went away, or the TPM needs a Startup: reopen
 *   AUTH     a wrong authValue
 *   DENIED   a policy, attribute or hierarchy forbids it
 *   NOTFOUND no such handle or NV index
 *   CONFLICT an NV index or handle is there already, or is locked
 *   UNSUPPORTED, NOMEM, PROTOCOL (a malformed response), INVAL, INTERNAL: as their names say
 * Zero is ATT_OK; whatever is not known is ATT_E_INTERNAL. (TPM 2.0 Part 2 §6.6; TSS 2.0 Overview
 * §3.6) */
enum att_rc tpm_errors_map(uint32_t tss_rc);

/* Fills err with the mapped code, domain ATT_DOM_TSS, native = tss_rc and a sentence
 * "<what>: <Tss2_RC_Decode text> (0x…)"; returns the mapped code. A zero tss_rc is a bug of ours.
 */
enum att_rc tpm_errors_set(struct att_err *err, uint32_t tss_rc, const char *file, int line,
                           const char *what);

#define tpm_fail(err, tss_rc, what) tpm_errors_set((err), (tss_rc), __FILE__, __LINE__, (what))

#endif
