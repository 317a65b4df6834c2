/* One connection to one TPM. Everything in tpm/ takes it first.
 *
 * Not thread-safe: the TPM is serial and so is a context. Give it to a queue (tpm/queue.h), whose
 * worker is then the only thread that uses it.
 *
 * When a function returns ATT_E_GONE, the device or its manager went away (or the TPM was reset);
 * nothing works any more until tpm_context_reopen(). No caller holds TPM handles: keys are named by
 * their blobs (tpm/tss2pem.h) and loaded again where needed, so nothing else has to be done after a
 * reopen. Whatever this library loads, it flushes; nothing that is not ours is ever flushed. */
#ifndef ATT_TPM_CONTEXT_H
#define ATT_TPM_CONTEXT_H

#include "attestd/base/buf.h"
#include "attestd/base/err.h"
#include "tpm/parse/name.h"

#include <stdbool.h>
#include <stdint.h>

struct tpm_context;

#define TPM_BANKS_MAX 8

/* {0} but for tcti is the default. */
struct tpm_options {
    /* The TCTI, explicit: "device:/dev/tpmrm0", "swtpm:path=/abs/sock", "tabrmd:…". Copied. */
    const char *tcti;
    /* Authorisation of the owner and endorsement hierarchies; empty as a rule. Copied, locked. */
    struct att_slice owner_auth;
    struct att_slice endorsement_auth;
    /* Persistent handle at which an SRK is looked for; 0 means 0x81000001. Used only when its
     * public area is one of ours and its authValue is empty; else a transient primary is made. */
    uint32_t srk_handle;
    /* The SRK's Name as recorded at an earlier start, copied; empty: the first one that this
     * context uses, over reopenings. Another SRK (TPM cleared, TPM swapped, somebody on the bus) is
     * then ATT_E_DENIED, reason "srkName". */
    struct att_slice srk_name;
    /* Persistent handle of the AK; 0: the AK is a transient primary. When nothing is there and
     * ak_persist is set, the AK is stored there by the first use. */
    uint32_t ak_handle;
    bool ak_persist;
    /* An RSA-2048 AK in place of that on P-256, for servers that take no other. Making it costs a
     * chip seconds, each time that it connects. */
    bool ak_rsa;
    /* Nobody else uses this TPM, and no resource manager stands between
     * (tpm_context_single_client): what is loaded when we connect was left by a process that was
     * killed, and is flushed. */
    bool exclusive;
    /* Loaded keys kept; 0: what the TPM guarantees, less what primaries and a load need. */
    uint32_t cache_slots;
};

/* True for TCTIs that serve one client at a time and lead to the bare TPM: swtpm, /dev/tpm0. */
bool tpm_context_single_client(const char *tcti);
/* Connects; sends TPM2_Startup(CLEAR) to a TPM that has had none. ATT_E_GONE when there is nobody
 * at the TCTI, reason "tpmBusy", "tpmDenied" or "tpmMissing" where a device's errno says why,
 * ATT_E_INVAL for a string that names no known TCTI (device, swtpm, mssim,
 * tabrmd). Sets TSS2_LOG=all+NONE in the environment unless it is set: errors come back, they are
 * not printed. */
ATT_MUST_USE enum att_rc tpm_context_open(const struct tpm_options *options,
                                          struct tpm_context **ret_ctx, struct att_err *err);
/* Flushes what we loaded and closes. */
void tpm_context_free(struct tpm_context *ctx);
/* Closes and connects anew to the same TCTI. On failure the context stays closed (ATT_E_GONE from
 * every call) and may be reopened again later. */
ATT_MUST_USE enum att_rc tpm_context_reopen(struct tpm_context *ctx, struct att_err *err);
/* Looks whether the owner hierarchy has a password; if so, auth is it from now on, in place of
 * options.owner_auth, and is tried once, by a command that changes nothing. A password that nobody
 * asks for is not used. ATT_E_DENIED, reason "ownerPassword": there is one, and auth is empty (then
 * nothing is tried) or another. Copied, locked. */
ATT_MUST_USE enum att_rc tpm_context_owner(struct tpm_context *ctx, struct att_slice auth,
                                           struct att_err *err);
/* False after an ATT_E_GONE until a reopen succeeds. */
bool tpm_context_alive(const struct tpm_context *ctx);
/* Counts the successful opens: a new number means that transient state was lost. */
uint64_t tpm_context_generation(const struct tpm_context *ctx);

struct tpm_info {
    uint32_t manufacturer;     /* TPM_PT_MANUFACTURER, "IBM\0" as 0x49424d00 */
    char manufacturer_text[5]; /* its printable characters */
    char vendor[17];           /* TPM_PT_VENDOR_STRING_1…4, printable */
    uint64_t firmware_version; /* TPM_PT_FIRMWARE_VERSION_1 ‖ _2 */
    uint32_t spec_revision;    /* TPM_PT_REVISION, e.g. 164 */
    /* Dictionary-attack state (TPM 2.0 Part 1 §19.8) */
    bool in_lockout;
    bool owner_auth_set; /* the owner hierarchy has a password */
    uint32_t lockout_counter, lockout_max, lockout_interval_s, lockout_recovery_s;
    uint32_t transient_min;   /* TPM_PT_HR_TRANSIENT_MIN: slots guaranteed */
    uint32_t transient_avail; /* TPM_PT_HR_TRANSIENT_AVAIL now */
    uint32_t context_gap_max, nv_buffer_max;
    size_t banks_count; /* PCR banks that have at least one PCR, TPM_ALG_ID, in the TPM's order */
    uint16_t banks[TPM_BANKS_MAX];
};
bool tpm_info_has_bank(const struct tpm_info *info, uint16_t bank);

ATT_MUST_USE enum att_rc tpm_context_info(struct tpm_context *ctx, struct tpm_info *ret_info,
                                          struct att_err *err);

struct tpm_clock {
    uint64_t time_ms;  /* since the TPM got power */
    uint64_t clock_ms; /* monotonic over its life, but for power loss and Clear */
    uint32_t reset_count, restart_count;
    bool safe;
};

/* TPM2_ReadClock: unsigned, for our own bookkeeping; proof is in a quote. */
ATT_MUST_USE enum att_rc tpm_context_clock(struct tpm_context *ctx, struct tpm_clock *ret_clock,
                                           struct att_err *err);
/* len bytes of the TPM's RNG, over the encrypted session. */
ATT_MUST_USE enum att_rc tpm_context_random(struct tpm_context *ctx, uint8_t *ret, size_t len,
                                            struct att_err *err);

/* How many handles of a kind the TPM has now, ours and others': for tests and `doctor`. Behind a
 * resource manager only our own are seen. */
enum tpm_handle_kind {
    TPM_HANDLES_TRANSIENT,
    TPM_HANDLES_PERSISTENT,
    TPM_HANDLES_LOADED_SESSION,
    TPM_HANDLES_SAVED_SESSION,
};
ATT_MUST_USE enum att_rc tpm_context_count_handles(struct tpm_context *ctx,
                                                   enum tpm_handle_kind kind, size_t *ret_count,
                                                   struct att_err *err);

/* The SRK in use: TPMT_PUBLIC bytes appended, and its Name; either may be NULL. persistent tells
 * whether it was found at options.srk_handle. */
ATT_MUST_USE enum att_rc tpm_context_srk(struct tpm_context *ctx, struct att_buf *ret_pub,
                                         struct parse_name *ret_name, bool *ret_persistent,
                                         struct att_err *err);

#endif
