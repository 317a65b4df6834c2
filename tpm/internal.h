/* What the files of tpm/ share: the context's inside, handles that flush themselves, the way a TSS
 * call is made. The only header of ours that shows TSS types; included by the sources of tpm/
 * alone. */
#ifndef ATT_TPM_INTERNAL_H
#define ATT_TPM_INTERNAL_H

#include "attestd/base/hash.h"
#include "attestd/base/secret.h"
#include "tpm/certify.h"
#include "tpm/context.h"
#include "tpm/errors.h"
#include "tpm/key.h"
#include "tpm/parent.h"
#include "tpm/parse/public.h"
#include "tpm/parse/sig.h"
#include "tpm/session.h"
#include "tpm/templates.h"

#include <string.h>

#include <tss2/tss2_esys.h>
#include <tss2/tss2_mu.h>

#define TPM_CACHE_MAX 16u
#define TPM_SAVED_MAX 256u

/* A primary of ours, made or found when first needed. tr is ESYS_TR_NONE when it is not there. */
struct tpm_primary {
    ESYS_TR tr;
    bool persistent; /* not ours to flush */
    bool pinned;     /* in use by the operation that runs now */
    struct att_buf area;
    struct parse_name name;
};

struct tpm_loaded {
    ESYS_TR tr; /* ESYS_TR_NONE: free slot */
    bool pinned;
    uint64_t last_used;
    struct parse_name name;
};

/* saved.c; bytes: TPMS_CONTEXT, empty: a free place */
struct tpm_saved {
    struct parse_name name;
    struct att_buf bytes;
    uint64_t last_used;
    bool gated; /* its parent's policy was met for it: it outlasts the connection */
};

struct tpm_parent; /* parent.c */

struct tpm_context {
    char *tcti;
    TSS2_TCTI_CONTEXT *tcti_ctx;
    ESYS_CONTEXT *esys;
    bool alive;
    bool esys_stuck; /* dead because of ESYS, while the connection is good */
    uint64_t generation;

    struct att_secret owner_auth, endorsement_auth;
    uint32_t srk_handle, ak_handle;
    bool ak_persist, exclusive;
    enum tpm_template ak_template;
    struct parse_name srk_pin;

    struct {
        ESYS_TR tr;
        bool pinned;
        uint32_t uses, max_uses, max_idle_ms;
        int64_t last_used_ms;
        uint64_t started;
    } session;
    struct tpm_primary srk, ak;
    struct {
        struct tpm_loaded slots[TPM_CACHE_MAX];
        uint32_t slots_wanted;
        uint64_t tick, hits, misses, restores, evictions;
    } cache;
    struct tpm_parent *parent; /* NULL: objects stand under the SRK */
    struct tpm_saved saved[TPM_SAVED_MAX];
    uint32_t transient_min, nv_chunk;
    bool counts_known; /* of the last TPM2_ReadClock */
    uint32_t reset_count, restart_count;
};

/* ---- calls ---------------------------------------------------------------------------------- */

/* TPM_CALL(ctx, rc, Esys_…(…)): makes the call; again, a bounded number of times, when the TPM asks
 * for that or has no room (what we can spare is then flushed first). A lost connection marks the
 * context dead, and no call is made on a dead one. */
bool tpm_again(struct tpm_context *ctx, TSS2_RC rc, unsigned *tries);
/* ossl.c: around a call, so that ESYS gets one OpenSSL context for all its hashing. */
void tpm_ossl_enter(void);
TSS2_RC tpm_ossl_leave(TSS2_RC rc); /* rc, as it is */
bool tpm_ossl_inside(void);
void tpm_ossl_hmac_done(void); /* ossl_hmac.c: the end of the call; what is left of it goes */
#define TPM_CALL(ctx, rc, call)                                                                    \
    for (unsigned tries_ = 0; (rc) = (ctx)->alive ? (tpm_ossl_enter(), tpm_ossl_leave(call))       \
                                                  : TSS2_TCTI_RC_NO_CONNECTION,                    \
                  tpm_again((ctx), (rc), &tries_);) {                                              \
    }

/* First thing in every public operation: ATT_E_GONE on a dead context; unpins everything. */
ATT_MUST_USE enum att_rc tpm_begin(struct tpm_context *ctx, struct att_err *err);
/* The TPM's error number without the index of handle, parameter or session, as 0x0xx, 0x1xx or
 * 0x9xx; 0 when the code is not the TPM's. */
uint32_t tpm_errors_number(TSS2_RC rc);
bool tpm_errors_is_param(TSS2_RC rc); /* a format-one code about a parameter */

/* ---- objects -------------------------------------------------------------------------------- */

/* A transient object or session that is flushed at the end of its scope. */
struct tpm_obj {
    struct tpm_context *ctx;
    ESYS_TR tr;
    bool persistent; /* only closed */
};
#define TPM_OBJ_INIT(c) ((struct tpm_obj){.ctx = (c), .tr = ESYS_TR_NONE})
void tpm_obj_done(struct tpm_obj *obj);
#define tpm_autoobj ATT_CLEANUP(tpm_obj_done) struct tpm_obj

static inline void tpm_esys_free(void *ptr)
{
    void *mem;
    memcpy(&mem, ptr, sizeof(mem));
    Esys_Free(mem);
}
#define tpm_autofree ATT_CLEANUP(tpm_esys_free)

/* Frees one object of ours that is not pinned: the least recently used key, the AK, the SRK. False
 * when there is none. */
bool tpm_make_room(struct tpm_context *ctx);

/* The handles in first…last that the TPM has, ascending, by GetCapability: at most max into
 * ret_handles; with NULL there they are only counted. */
ATT_MUST_USE enum att_rc tpm_handle_list(struct tpm_context *ctx, uint32_t first, uint32_t last,
                                         uint32_t *ret_handles, size_t max, size_t *ret_count,
                                         struct att_err *err);
ATT_MUST_USE enum att_rc tpm_handle_exists(struct tpm_context *ctx, uint32_t handle,
                                           bool *ret_exists, struct att_err *err);
/* Opens a persistent object and reads its public area (appended, TPMT_PUBLIC; Name checked) and
 * qualified name (may be NULL). */
ATT_MUST_USE enum att_rc tpm_open_persistent(struct tpm_context *ctx, uint32_t handle,
                                             struct tpm_obj *ret_obj, struct att_buf *ret_area,
                                             struct parse_name *ret_qualified, struct att_err *err);
/* TPM2_CreatePrimary with the template area; ret_area gets its TPMT_PUBLIC. */
ATT_MUST_USE enum att_rc tpm_create_primary(struct tpm_context *ctx, ESYS_TR hierarchy,
                                            struct att_slice area, struct tpm_obj *ret_obj,
                                            struct att_buf *ret_area, struct att_err *err);
/* The SRK and the AK, pinned. */
ATT_MUST_USE enum att_rc tpm_srk_get(struct tpm_context *ctx, ESYS_TR *ret_tr, struct att_err *err);
ATT_MUST_USE enum att_rc tpm_ak_acquire(struct tpm_context *ctx, ESYS_TR *ret_tr,
                                        struct att_err *err);
void tpm_primary_done(struct tpm_context *ctx, struct tpm_primary *primary);
/* A transient SRK of the other variant that has this Name, for blobs made under it; ATT_E_DENIED,
 * reason "foreignParent", when there is none. */
ATT_MUST_USE enum att_rc tpm_srk_other(struct tpm_context *ctx, struct att_slice name,
                                       struct tpm_obj *ret_obj, struct att_err *err);
uint32_t tpm_srk_blob_handle(const struct tpm_context *ctx);

/* Sets a hierarchy's authorisation and gives the session for it: the password session where the
 * authValue is empty, else an HMAC session (the salted one, or before there is an SRK ret_tmp,
 * which the caller flushes). */
ATT_MUST_USE enum att_rc tpm_hierarchy_session(struct tpm_context *ctx, ESYS_TR hierarchy,
                                               struct tpm_obj *ret_tmp, ESYS_TR *ret_session,
                                               struct att_err *err);

/* The same under the SRK with any template and no authValue, a key. */
ATT_MUST_USE enum att_rc tpm_blob_create_srk(struct tpm_context *ctx, struct att_slice area,
                                             struct tpm_blob *ret_blob, struct att_err *err);
/* Loads a blob whose parent is an SRK; no policy is asked for. */
ATT_MUST_USE enum att_rc tpm_blob_load_srk(struct tpm_context *ctx, const struct tpm_blob *blob,
                                           struct tpm_obj *ret_obj, struct att_err *err);
/* Loads a blob under its parent; not cached. Errors as tpm_key_sign(). */
ATT_MUST_USE enum att_rc tpm_blob_load(struct tpm_context *ctx, const struct tpm_blob *blob,
                                       struct tpm_obj *ret_obj, struct att_err *err);
/* The key from the cache, or loaded into it; pinned, with its authValue set in ESYS. Pair with
 * tpm_key_release(), which takes the authValue out again. */
ATT_MUST_USE enum att_rc tpm_key_acquire(struct tpm_context *ctx, const struct tpm_blob *key,
                                         struct att_slice auth, ESYS_TR *ret_tr,
                                         struct att_err *err);
void tpm_key_release(struct tpm_context *ctx, ESYS_TR tr);
void tpm_cache_drop_all(struct tpm_context *ctx);
bool tpm_cache_drop_lru(struct tpm_context *ctx);

/* saved.c: saves the loaded key's context, unless it is there; brings a key back by it (false:
 * there is none, or the TPM did not take it: load the blob); forgets one, those that are not gated,
 * all. */
void tpm_saved_keep(struct tpm_context *ctx, ESYS_TR tr, const struct parse_name *name, bool gated);
bool tpm_saved_load(struct tpm_context *ctx, const struct parse_name *name,
                    struct tpm_obj *ret_obj);
void tpm_saved_forget(struct tpm_context *ctx, const struct parse_name *name);
void tpm_saved_forget_ungated(struct tpm_context *ctx);
void tpm_saved_forget_all(struct tpm_context *ctx);

/* Creates an object under the storage parent, or where none is set under the SRK: template,
 * authValue, data (both secret; data may be empty). */
ATT_MUST_USE enum att_rc tpm_blob_create(struct tpm_context *ctx, enum tpm_template which,
                                         struct att_slice auth, struct att_slice data,
                                         struct tpm_blob *ret_blob, struct att_err *err);
ATT_MUST_USE enum att_rc tpm_set_auth(struct tpm_context *ctx, ESYS_TR tr, struct att_slice auth,
                                      struct att_err *err);

/* ---- sessions ------------------------------------------------------------------------------- */

/* The salted HMAC session, with continueSession and these attributes for the next command. */
ATT_MUST_USE enum att_rc tpm_session_get(struct tpm_context *ctx, TPMA_SESSION attributes,
                                         ESYS_TR *ret_tr, struct att_err *err);
/* A policy session satisfied for an EK with this public area (policy A or B of the TCG profile). */
ATT_MUST_USE enum att_rc tpm_session_ek_policy(struct tpm_context *ctx,
                                               const struct parse_public *ek,
                                               struct tpm_obj *ret_session, struct att_err *err);

/* A policy session (SHA-256) in which nothing was asserted yet. */
ATT_MUST_USE enum att_rc tpm_session_policy(struct tpm_context *ctx, struct tpm_obj *ret_session,
                                            struct att_err *err);

/* ---- the storage parent ---------------------------------------------------------------------- */

/* Is this the Name of the context's storage parent? */
bool tpm_parent_is(const struct tpm_context *ctx, const struct parse_name *name);
/* Its Name; NULL: there is none. */
const struct parse_name *tpm_parent_name(const struct tpm_context *ctx);
/* Counts a load by a saved context. */
void tpm_parent_restored(struct tpm_context *ctx);
/* One command with the parent's authorisation; its result comes back in ret_trc when ATT_OK. */
typedef TSS2_RC tpm_parent_fn(struct tpm_context *ctx, ESYS_TR parent, ESYS_TR session, void *arg);
ATT_MUST_USE enum att_rc tpm_parent_use(struct tpm_context *ctx, tpm_parent_fn *fn, void *arg,
                                        TSS2_RC *ret_trc, struct att_err *err);
/* The NV index, where it is defined, and whether its Name is the policy counter's. */
ATT_MUST_USE enum att_rc tpm_counter_open(struct tpm_context *ctx, uint32_t index,
                                          struct tpm_obj *ret_obj, bool *ret_ours,
                                          struct att_err *err);
/* As tpm_quote_pcr_read, within an operation. */
ATT_MUST_USE enum att_rc tpm_pcr_read(struct tpm_context *ctx, const struct parse_pcr_sel *sel,
                                      struct parse_pcr_set *ret_values, struct att_err *err);

/* saved.c: what was loaded through the policy, for when its slot is wanted. */
void tpm_saved_put(struct tpm_context *ctx, const struct parse_name *name, ESYS_TR tr);
bool tpm_saved_get(struct tpm_context *ctx, const struct parse_name *name, struct tpm_obj *ret_obj);
void tpm_saved_drop(struct tpm_context *ctx, const struct parse_name *name);
void tpm_saved_drop_all(struct tpm_context *ctx);

/* ---- marshalling ---------------------------------------------------------------------------- */

ATT_MUST_USE enum att_rc tpm_to_public(struct att_slice area, TPM2B_PUBLIC *ret_pub,
                                       struct att_err *err);
ATT_MUST_USE enum att_rc tpm_from_public(const TPM2B_PUBLIC *pub, struct att_buf *ret_area,
                                         struct att_err *err);
ATT_MUST_USE enum att_rc tpm_from_signature(const TPMT_SIGNATURE *sig, struct att_buf *ret_bytes,
                                            struct att_err *err);
ATT_MUST_USE enum att_rc tpm_to_data(struct att_slice bytes, TPM2B_DATA *ret_data,
                                     struct att_err *err);
/* Appends what a TPM2B holds, its size checked against the room that TSS gives it. */
ATT_MUST_USE enum att_rc tpm_put_2b(struct att_buf *ret_bytes, uint16_t size, const uint8_t *bytes,
                                    size_t room, const char *what, struct att_err *err);

#endif
