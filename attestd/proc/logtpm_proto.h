/* What attest-issuerd-tpm can be asked, by attest-issuerd and nobody else: a second signature on
 * checkpoints of the audit log, by a key in the TPM. */
#ifndef ATTESTD_PROC_LOGTPM_PROTO_H
#define ATTESTD_PROC_LOGTPM_PROTO_H

#include "attestd/proc/ipc.h"

#define PROC_LOGTPM_SPKI_LEN   91 /* P-256, DER */
#define PROC_LOGTPM_ORIGIN_MAX 255
#define PROC_LOGTPM_TEXT_MAX   400 /* a checkpoint without its signatures */
#define PROC_LOGTPM_BEFORE_MAX 1024
#define PROC_LOGTPM_SIG_MAX    72
#define PROC_LOGTPM_HASH_LEN   32
#define PROC_LOGTPM_PROOF_MAX  65

enum proc_logtpm_op { PROC_LOGTPM_STATE = 1, PROC_LOGTPM_SIGN = 2, PROC_LOGTPM_RAISE = 3 };

/* Every operation can answer
 *   ATT_E_RETRY    the TPM has not answered yet; ATT_E_GONE: it is away. Later, then
 *   ATT_E_DENIED   "foreignTpm": key and secret are of another TPM, or it was cleared;
 *                  "ownerPassword": the TPM's owner hierarchy has a password, and none is given, or
 *                  another
 *   ATT_E_CONFLICT "counterGone": the counter is not there any more; "counterForeign": at its place
 *                  is one that this process did not make; "logTpmRecord": what is remembered does
 *                  not parse
 *   ATT_E_AUTH     "logRolledBack": what is remembered is older than the counter
 *   "ownerPasswordFile", with the code that fits: the password's file cannot be used
 * and none of these but the first line's goes away by itself. */

/* STATE: () → spki, counter, was, origin ("": nothing was signed), size, root, lastCounter, before
 * (as struct audit_cosigned says). */
enum {
    PROC_LOGTPM_STATE_REP_SPKI,
    PROC_LOGTPM_STATE_REP_COUNTER,
    PROC_LOGTPM_STATE_REP_WAS,
    PROC_LOGTPM_STATE_REP_ORIGIN,
    PROC_LOGTPM_STATE_REP_SIZE,
    PROC_LOGTPM_STATE_REP_ROOT,
    PROC_LOGTPM_STATE_REP_LAST_COUNTER,
    PROC_LOGTPM_STATE_REP_BEFORE,
};

/* SIGN: text, old (leaves of the tree that was signed last), proof (RFC 9162 §2.1.4 between the
 * two) → signature (DER). ATT_E_PARSE "logNote": not a checkpoint as we write them, to the byte;
 * ATT_E_AUTH "logOrigin", "logRolledBack" (a smaller tree, a lower number), "logForked" (the proof
 * does not lead from one to the other); ATT_E_CONFLICT "logOld": old is not what was signed last;
 * ATT_E_DENIED "counterValue"; ATT_E_LIMIT "counterEarly": the number may not be the counter's next
 * one yet. Signing again what was signed last is not refused. */
enum { PROC_LOGTPM_SIGN_REQ_TEXT, PROC_LOGTPM_SIGN_REQ_OLD, PROC_LOGTPM_SIGN_REQ_PROOF };
enum { PROC_LOGTPM_SIGN_REP_SIGNATURE };

/* RAISE: counter → (). To the number of what was signed last, at most one step; ATT_E_DENIED
 * "counterValue" for another. Where it stands already nothing is done. */
enum { PROC_LOGTPM_RAISE_REQ_COUNTER };

extern const struct proc_op proc_logtpm_table[];

#endif
