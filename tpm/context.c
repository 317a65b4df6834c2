#include "tpm/context.h"

#include "attestd/base/clock.h"
#include "tpm/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <tss2/tss2_tctildr.h>

#define SRK_HANDLE_DEFAULT 0x81000001u
#define PERSISTENT_FIRST   0x81000000u
#define PERSISTENT_LAST    0x817fffffu /* the owner's and endorsement's range */

static void quiet_tss(void)
{
    (void)setenv("TSS2_LOG", "all+NONE", 0);
}

/* ---- calls -------------------------------------------------------------------------------- */

static void pause_ms(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&ts, &ts) != 0 && errno == EINTR) {
    }
}

bool tpm_again(struct tpm_context *ctx, TSS2_RC rc, unsigned *tries)
{
    unsigned n = (*tries)++;

    switch (tpm_errors_number(rc)) {
    case TPM2_RC_RETRY:
    case TPM2_RC_YIELDED:
    case TPM2_RC_TESTING:
    case TPM2_RC_NV_RATE:
        if (n >= 8) {
            return false;
        }
        pause_ms(1u << n);
        return true;
    case TPM2_RC_OBJECT_MEMORY:
    case TPM2_RC_OBJECT_HANDLES:
    case TPM2_RC_MEMORY:
        if (n >= TPM_CACHE_MAX + 4) {
            return false;
        }
        if (!tpm_make_room(ctx)) {
            pause_ms(5);
        }
        return true;
    case TPM2_RC_SESSION_MEMORY:
    case TPM2_RC_SESSION_HANDLES:
    case TPM2_RC_CONTEXT_GAP:
        if (n >= 4) {
            return false;
        }
        if (ctx->session.pinned) {
            pause_ms(5);
        } else {
            tpm_session_drop(ctx);
        }
        return true;
    default:
        if (rc != TSS2_RC_SUCCESS && tpm_errors_number(rc) == 0) {
            /* Not the TPM's own answer: the connection broke, or ESYS did, which after an error of
             * its own (a response whose HMAC is wrong, say) takes no further call. */
            ctx->alive = false;
            ctx->esys_stuck = (rc & TSS2_RC_LAYER_MASK) != TSS2_TCTI_RC_LAYER;
        } else if (tpm_errors_map(rc) == ATT_E_GONE) {
            ctx->alive = false;
        }
        return false;
    }
}

enum att_rc tpm_begin(struct tpm_context *ctx, struct att_err *err)
{
    ctx->srk.pinned = false;
    ctx->ak.pinned = false;
    ctx->session.pinned = false;
    for (size_t i = 0; i < TPM_CACHE_MAX; i++) {
        ctx->cache.slots[i].pinned = false;
    }
    if (!ctx->alive) {
        return att_fail(err, ATT_E_GONE, "the TPM at %s is gone; it has to be reopened", ctx->tcti);
    }
    return ATT_OK;
}

/* TPM2_FlushContext past ESYS: a handle that it does not know, or ESYS is stuck. */
static void flush_handle(struct tpm_context *ctx, TPM2_HANDLE handle)
{
    uint8_t answer[64];
    size_t len = sizeof(answer);
    att_autobuf command = {0};
    att_buf_be16(&command, TPM2_ST_NO_SESSIONS);
    att_buf_be32(&command, 14);
    att_buf_be32(&command, TPM2_CC_FlushContext);
    att_buf_be32(&command, handle);
    if (att_buf_ok(&command, NULL) == ATT_OK &&
        Tss2_Tcti_Transmit(ctx->tcti_ctx, command.len, command.ptr) == TSS2_RC_SUCCESS) {
        (void)Tss2_Tcti_Receive(ctx->tcti_ctx, &len, answer, TSS2_TCTI_TIMEOUT_BLOCK);
    }
}

/* So that nothing of ours stays in a TPM without a resource manager. */
static void flush_raw(struct tpm_context *ctx, ESYS_TR tr)
{
    TPM2_HANDLE handle = 0;
    if (Esys_TR_GetTpmHandle(ctx->esys, tr, &handle) == TSS2_RC_SUCCESS) {
        flush_handle(ctx, handle);
    }
}

void tpm_obj_done(struct tpm_obj *obj)
{
    if (obj->tr == ESYS_TR_NONE) {
        return;
    }
    /* On a dead context Esys_Finalize frees what ESYS holds. */
    if (!obj->ctx->alive && obj->ctx->esys_stuck && !obj->persistent) {
        flush_raw(obj->ctx, obj->tr);
    } else if (obj->ctx->alive) {
        if (obj->persistent) {
            (void)Esys_TR_Close(obj->ctx->esys, &obj->tr);
        } else if (Esys_FlushContext(obj->ctx->esys, obj->tr) != TSS2_RC_SUCCESS) {
            (void)Esys_TR_Close(obj->ctx->esys, &obj->tr);
        }
    }
    obj->tr = ESYS_TR_NONE;
}

bool tpm_make_room(struct tpm_context *ctx)
{
    if (tpm_cache_drop_lru(ctx)) {
        return true;
    }
    struct tpm_primary *primaries[] = {&ctx->ak, &ctx->srk};
    for (size_t i = 0; i < 2; i++) {
        struct tpm_primary *p = primaries[i];
        if (p->tr != ESYS_TR_NONE && !p->persistent && !p->pinned) {
            struct tpm_obj obj = {.ctx = ctx, .tr = p->tr};
            tpm_obj_done(&obj);
            p->tr = ESYS_TR_NONE;
            return true;
        }
    }
    return false;
}

/* ---- capabilities ------------------------------------------------------------------------- */

static TSS2_RC capability(struct tpm_context *ctx, TPM2_CAP cap, uint32_t first, uint32_t count,
                          TPMI_YES_NO *ret_more, TPMS_CAPABILITY_DATA **ret_data)
{
    TSS2_RC rc;
    TPM_CALL(ctx, rc,
             Esys_GetCapability(ctx->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, cap, first,
                                count, ret_more, ret_data));
    return rc;
}

/* Calls see(property, value) for each property of the group. */
static enum att_rc each_property(struct tpm_context *ctx, uint32_t first, struct tpm_info *info,
                                 void (*see)(struct tpm_info *, uint32_t, uint32_t),
                                 struct att_err *err)
{
    uint32_t next = first;
    for (unsigned rounds = 0; rounds < 8; rounds++) {
        tpm_autofree TPMS_CAPABILITY_DATA *data = NULL;
        TPMI_YES_NO more = TPM2_NO;
        TSS2_RC rc =
            capability(ctx, TPM2_CAP_TPM_PROPERTIES, next, TPM2_MAX_TPM_PROPERTIES, &more, &data);
        if (rc != TSS2_RC_SUCCESS) {
            return tpm_fail(err, rc, "reading the TPM's properties");
        }
        const TPML_TAGGED_TPM_PROPERTY *list = &data->data.tpmProperties;
        if (data->capability != TPM2_CAP_TPM_PROPERTIES || list->count > TPM2_MAX_TPM_PROPERTIES) {
            return att_fail(err, ATT_E_PROTOCOL, "the TPM answered GetCapability with another one");
        }
        for (uint32_t i = 0; i < list->count; i++) {
            if ((list->tpmProperty[i].property & 0xffffff00u) == first) {
                see(info, list->tpmProperty[i].property, list->tpmProperty[i].value);
                next = list->tpmProperty[i].property + 1;
            }
        }
        if (!more || list->count == 0 || (next & 0xffffff00u) != first) {
            return ATT_OK;
        }
    }
    return ATT_OK;
}

static void put_printable(char *ret, uint32_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8) {
        char c = (char)((value >> shift) & 0x7f);
        if (c > ' ' && c < 0x7f) {
            size_t len = strlen(ret);
            ret[len] = c;
            ret[len + 1] = '\0';
        }
    }
}

static void see_property(struct tpm_info *info, uint32_t property, uint32_t value)
{
    switch (property) {
    case TPM2_PT_MANUFACTURER:
        info->manufacturer = value;
        put_printable(info->manufacturer_text, value);
        break;
    case TPM2_PT_VENDOR_STRING_1:
    case TPM2_PT_VENDOR_STRING_2:
    case TPM2_PT_VENDOR_STRING_3:
    case TPM2_PT_VENDOR_STRING_4:
        if (strlen(info->vendor) <= 12) {
            put_printable(info->vendor, value);
        }
        break;
    case TPM2_PT_FIRMWARE_VERSION_1:
        info->firmware_version |= (uint64_t)value << 32;
        break;
    case TPM2_PT_FIRMWARE_VERSION_2:
        info->firmware_version |= value;
        break;
    case TPM2_PT_REVISION:
        info->spec_revision = value;
        break;
    case TPM2_PT_PERMANENT:
        info->in_lockout = (value & TPMA_PERMANENT_INLOCKOUT) != 0;
        info->owner_auth_set = (value & TPMA_PERMANENT_OWNERAUTHSET) != 0;
        break;
    case TPM2_PT_LOCKOUT_COUNTER:
        info->lockout_counter = value;
        break;
    case TPM2_PT_MAX_AUTH_FAIL:
        info->lockout_max = value;
        break;
    case TPM2_PT_LOCKOUT_INTERVAL:
        info->lockout_interval_s = value;
        break;
    case TPM2_PT_LOCKOUT_RECOVERY:
        info->lockout_recovery_s = value;
        break;
    case TPM2_PT_HR_TRANSIENT_MIN:
        info->transient_min = value;
        break;
    case TPM2_PT_HR_TRANSIENT_AVAIL:
        info->transient_avail = value;
        break;
    case TPM2_PT_CONTEXT_GAP_MAX:
        info->context_gap_max = value;
        break;
    case TPM2_PT_NV_BUFFER_MAX:
        info->nv_buffer_max = value;
        break;
    default:
        break;
    }
}

bool tpm_info_has_bank(const struct tpm_info *info, uint16_t bank)
{
    for (size_t i = 0; i < info->banks_count; i++) {
        if (info->banks[i] == bank) {
            return true;
        }
    }
    return false;
}

static enum att_rc read_banks(struct tpm_context *ctx, struct tpm_info *info, struct att_err *err)
{
    tpm_autofree TPMS_CAPABILITY_DATA *data = NULL;
    TSS2_RC rc = capability(ctx, TPM2_CAP_PCRS, 0, 1, NULL, &data);
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, rc, "reading the TPM's PCR banks");
    }
    const TPML_PCR_SELECTION *list = &data->data.assignedPCR;
    if (data->capability != TPM2_CAP_PCRS || list->count > TPM2_NUM_PCR_BANKS) {
        return att_fail(err, ATT_E_PROTOCOL, "the TPM answered GetCapability with another one");
    }
    for (uint32_t i = 0; i < list->count; i++) {
        const TPMS_PCR_SELECTION *sel = &list->pcrSelections[i];
        uint8_t any = 0;
        for (uint8_t b = 0; b < sel->sizeofSelect && b < sizeof(sel->pcrSelect); b++) {
            any |= sel->pcrSelect[b];
        }
        if (any != 0 && info->banks_count < TPM_BANKS_MAX) {
            info->banks[info->banks_count++] = sel->hash;
        }
    }
    return ATT_OK;
}

enum att_rc tpm_context_info(struct tpm_context *ctx, struct tpm_info *ret_info,
                             struct att_err *err)
{
    struct tpm_info info = {0};
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK) {
        rc = each_property(ctx, TPM2_PT_FIXED, &info, see_property, err);
    }
    if (rc == ATT_OK) {
        rc = each_property(ctx, TPM2_PT_VAR, &info, see_property, err);
    }
    if (rc == ATT_OK) {
        rc = read_banks(ctx, &info, err);
    }
    if (rc == ATT_OK) {
        *ret_info = info;
    }
    return rc;
}

enum att_rc tpm_handle_list(struct tpm_context *ctx, uint32_t first, uint32_t last,
                            uint32_t *ret_handles, size_t max, size_t *ret_count,
                            struct att_err *err)
{
    size_t count = 0;
    uint32_t next = first;
    for (unsigned rounds = 0; rounds < 64; rounds++) {
        tpm_autofree TPMS_CAPABILITY_DATA *data = NULL;
        TPMI_YES_NO more = TPM2_NO;
        TSS2_RC rc = capability(ctx, TPM2_CAP_HANDLES, next, TPM2_MAX_CAP_HANDLES, &more, &data);
        if (rc != TSS2_RC_SUCCESS) {
            return tpm_fail(err, rc, "listing the TPM's handles");
        }
        const TPML_HANDLE *list = &data->data.handles;
        if (data->capability != TPM2_CAP_HANDLES || list->count > TPM2_MAX_CAP_HANDLES) {
            return att_fail(err, ATT_E_PROTOCOL, "the TPM answered GetCapability with another one");
        }
        for (uint32_t i = 0; i < list->count; i++) {
            if (list->handle[i] < next || list->handle[i] > last) {
                *ret_count = count;
                return ATT_OK;
            }
            if (ret_handles && count < max) {
                ret_handles[count] = list->handle[i];
            }
            count += !ret_handles || count < max;
            next = list->handle[i] + 1;
        }
        if (!more || list->count == 0) {
            break;
        }
    }
    *ret_count = count;
    return ATT_OK;
}

enum att_rc tpm_handle_exists(struct tpm_context *ctx, uint32_t handle, bool *ret_exists,
                              struct att_err *err)
{
    size_t count = 0;
    enum att_rc rc = tpm_handle_list(ctx, handle, handle, NULL, 0, &count, err);
    if (rc == ATT_OK) {
        *ret_exists = count == 1;
    }
    return rc;
}

enum att_rc tpm_context_count_handles(struct tpm_context *ctx, enum tpm_handle_kind kind,
                                      size_t *ret_count, struct att_err *err)
{
    static const struct {
        uint32_t first, last;
    } ranges[] = {
        [TPM_HANDLES_TRANSIENT] = {TPM2_TRANSIENT_FIRST, TPM2_TRANSIENT_LAST},
        [TPM_HANDLES_PERSISTENT] = {TPM2_PERSISTENT_FIRST, TPM2_PERSISTENT_LAST},
        [TPM_HANDLES_LOADED_SESSION] = {TPM2_LOADED_SESSION_FIRST, TPM2_LOADED_SESSION_LAST},
        [TPM_HANDLES_SAVED_SESSION] = {TPM2_ACTIVE_SESSION_FIRST, TPM2_ACTIVE_SESSION_LAST},
    };
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (kind < TPM_HANDLES_LOADED_SESSION) {
        return tpm_handle_list(ctx, ranges[kind].first, ranges[kind].last, NULL, 0, ret_count, err);
    }
    /* Session handles come back with the first octet of their own type (Part 3 §30.2), so ranges
     * say nothing; a TPM has at most 64, which one answer holds. */
    tpm_autofree TPMS_CAPABILITY_DATA *data = NULL;
    TSS2_RC trc =
        capability(ctx, TPM2_CAP_HANDLES, ranges[kind].first, TPM2_MAX_CAP_HANDLES, NULL, &data);
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "listing the TPM's sessions");
    }
    *ret_count = data->data.handles.count;
    return ATT_OK;
}

/* ---- open and close ----------------------------------------------------------------------- */

static enum att_rc check_tcti(const char *tcti, struct att_err *err)
{
    /* tctildr would load any shared object or run a command that a string names. */
    static const char *const known[] = {"device", "swtpm", "mssim", "tabrmd"};
    for (size_t i = 0; tcti && i < sizeof(known) / sizeof(known[0]); i++) {
        size_t len = strlen(known[i]);
        if (strncmp(tcti, known[i], len) == 0 && (tcti[len] == '\0' || tcti[len] == ':')) {
            return ATT_OK;
        }
    }
    return att_fail(err, ATT_E_INVAL,
                    "tcti \"%.100s\": expected device:…, swtpm:…, mssim:… or tabrmd:…",
                    tcti ? tcti : "");
}

static void disconnect(struct tpm_context *ctx)
{
    if (ctx->esys) {
        tpm_session_drop(ctx);
        tpm_cache_drop_all(ctx);
        tpm_primary_done(ctx, &ctx->ak);
        tpm_primary_done(ctx, &ctx->srk);
        Esys_Finalize(&ctx->esys);
    }
    if (ctx->tcti_ctx) {
        Tss2_TctiLdr_Finalize(&ctx->tcti_ctx);
    }
    tpm_saved_forget_ungated(ctx);
    ctx->esys = NULL;
    ctx->tcti_ctx = NULL;
    ctx->alive = ctx->esys_stuck = false;
}

/* A TPM that nobody has started (swtpm without its startup flag) is started here. */
static enum att_rc ensure_started(struct tpm_context *ctx, struct att_err *err)
{
    tpm_autofree TPMS_CAPABILITY_DATA *data = NULL;
    TSS2_RC rc = capability(ctx, TPM2_CAP_TPM_PROPERTIES, TPM2_PT_FIXED, 1, NULL, &data);
    if (tpm_errors_number(rc) == TPM2_RC_INITIALIZE) {
        ctx->alive = true;
        TPM_CALL(ctx, rc, Esys_Startup(ctx->esys, TPM2_SU_CLEAR));
        if (tpm_errors_number(rc) == TPM2_RC_INITIALIZE) { /* somebody was faster */
            ctx->alive = true;
            rc = TSS2_RC_SUCCESS;
        }
    }
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, rc, "starting the TPM");
    }
    return ATT_OK;
}

bool tpm_context_single_client(const char *tcti)
{
    return strncmp(tcti, "swtpm", 5) == 0 ||
           (strncmp(tcti, "device:", 7) == 0 && !strstr(tcti, "tpmrm"));
}

static enum att_rc flush_leftovers(struct tpm_context *ctx, struct att_err *err)
{
    /* Constants, not expressions: TSS's macros shift into an int's sign. */
    static const uint32_t transient_first = TPM2_TRANSIENT_FIRST;
    static const uint32_t transient_last = TPM2_TRANSIENT_LAST;
    TPM2_HANDLE handles[TPM_CACHE_MAX];
    size_t n = 0;
    enum att_rc rc =
        tpm_handle_list(ctx, transient_first, transient_last, handles, TPM_CACHE_MAX, &n, err);
    for (size_t i = 0; rc == ATT_OK && i < n && i < TPM_CACHE_MAX; i++) {
        flush_handle(ctx, handles[i]);
    }
    static const uint32_t sessions[] = {TPM2_LOADED_SESSION_FIRST, TPM2_ACTIVE_SESSION_FIRST};
    for (size_t kind = 0; rc == ATT_OK && kind < 2; kind++) {
        tpm_autofree TPMS_CAPABILITY_DATA *data = NULL;
        TSS2_RC trc =
            capability(ctx, TPM2_CAP_HANDLES, sessions[kind], TPM2_MAX_CAP_HANDLES, NULL, &data);
        if (trc != TSS2_RC_SUCCESS) {
            return tpm_fail(err, trc, "listing the TPM's sessions");
        }
        if (data->capability != TPM2_CAP_HANDLES ||
            data->data.handles.count > TPM2_MAX_CAP_HANDLES) {
            return att_fail(err, ATT_E_PROTOCOL, "the TPM answered GetCapability with another one");
        }
        for (UINT32 i = 0; i < data->data.handles.count; i++) {
            flush_handle(ctx, data->data.handles.handle[i]);
        }
    }
    return rc;
}

/* tctildr does not say why a device cannot be opened: its errno, and the word for it; 0 and ""
 * where it can, or is none. */
static const char *why_closed(const char *tcti, int *ret_errno)
{
    *ret_errno = 0;
    if (strncmp(tcti, "device:", 7) != 0) {
        return "";
    }
    int fd = open(tcti + 7, O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        return "";
    }
    *ret_errno = errno;
    switch (errno) {
    case EBUSY:
        return "tpmBusy";
    case EACCES:
    case EPERM:
        return "tpmDenied";
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return "tpmMissing";
    default:
        return "";
    }
}

/* The TPM was off since: another boot may be running. A TPM keeps saved contexts over a TPM Restart
 * and a TPM Resume (Part 1 §30.3), and the kernel's resource manager carries loaded objects over a
 * night by them; what was loaded through a policy has to pass it again. */
static void note_counts(struct tpm_context *ctx, const struct tpm_clock *clock)
{
    if (ctx->counts_known &&
        (ctx->reset_count != clock->reset_count || ctx->restart_count != clock->restart_count)) {
        tpm_cache_drop_all(ctx);
        tpm_saved_forget_all(ctx);
    }
    ctx->counts_known = true;
    ctx->reset_count = clock->reset_count;
    ctx->restart_count = clock->restart_count;
}

static enum att_rc connect_tpm(struct tpm_context *ctx, struct att_err *err)
{
    TSS2_RC rc = Tss2_TctiLdr_Initialize(ctx->tcti, &ctx->tcti_ctx);
    if (rc == TSS2_RC_SUCCESS) {
        rc = Esys_Initialize(&ctx->esys, ctx->tcti_ctx, NULL);
    } else {
        /* tpm2-tss 4.1 leaves an empty context behind, which its Finalize does not know; before
         * and after, the pointer is NULL. */
        free(ctx->tcti_ctx);
        ctx->tcti_ctx = NULL;
    }
    if (rc != TSS2_RC_SUCCESS) {
        enum att_rc mapped = tpm_errors_map(rc);
        disconnect(ctx);
        /* Whatever keeps us from connecting, the caller can only try again later. */
        if (mapped != ATT_E_NOMEM) {
            mapped = ATT_E_GONE;
        }
        int why = 0;
        const char *word = why_closed(ctx->tcti, &why);
        att_fail_native(err, mapped, ATT_DOM_TSS, rc, "no TPM at %s (0x%06x)%s%s", ctx->tcti, rc,
                        why ? ": " : "", why ? strerror(why) : "");
        att_err_reason(err, word);
        return mapped;
    }
    ctx->alive = true;
    enum att_rc result = ensure_started(ctx, err);
    struct tpm_info info;
    if (result == ATT_OK && ctx->exclusive) {
        result = flush_leftovers(ctx, err);
    }
    struct tpm_clock clock;
    if (result == ATT_OK) {
        result = tpm_context_info(ctx, &info, err);
    }
    if (result == ATT_OK) {
        result = tpm_context_clock(ctx, &clock, err);
    }
    if (result != ATT_OK) {
        disconnect(ctx);
        return result;
    }
    ctx->transient_min = info.transient_min;
    ctx->nv_chunk = info.nv_buffer_max;
    ctx->generation++;
    return ATT_OK;
}

static enum att_rc apply_options(struct tpm_context *ctx, const struct tpm_options *options,
                                 struct att_err *err)
{
    if (options->srk_handle &&
        (options->srk_handle < PERSISTENT_FIRST || options->srk_handle > PERSISTENT_LAST)) {
        return att_fail(err, ATT_E_INVAL, "srk_handle 0x%08x: expected 0x81000000…0x817fffff",
                        options->srk_handle);
    }
    if (options->ak_handle &&
        (options->ak_handle < PERSISTENT_FIRST || options->ak_handle > PERSISTENT_LAST)) {
        return att_fail(err, ATT_E_INVAL, "ak_handle 0x%08x: expected 0x81000000…0x817fffff",
                        options->ak_handle);
    }
    ctx->srk_handle = options->srk_handle ? options->srk_handle : SRK_HANDLE_DEFAULT;
    ctx->ak_handle = options->ak_handle;
    ctx->ak_persist = options->ak_persist;
    ctx->ak_template = options->ak_rsa ? TPM_TEMPLATE_AK_RSA : TPM_TEMPLATE_AK;
    ctx->exclusive = options->exclusive;
    ctx->cache.slots_wanted =
        options->cache_slots > TPM_CACHE_MAX ? TPM_CACHE_MAX : options->cache_slots;
    if (options->srk_name.len != 0) {
        enum att_rc rc = parse_name_parse(options->srk_name, &ctx->srk_pin, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    ctx->tcti = strdup(options->tcti);
    if (!ctx->tcti) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a TPM context");
    }
    enum att_rc rc = ATT_OK;
    if (options->owner_auth.len != 0) {
        rc = att_secret_copy(&ctx->owner_auth, options->owner_auth, err);
    }
    if (rc == ATT_OK && options->endorsement_auth.len != 0) {
        rc = att_secret_copy(&ctx->endorsement_auth, options->endorsement_auth, err);
    }
    return rc;
}

enum att_rc tpm_context_open(const struct tpm_options *options, struct tpm_context **ret_ctx,
                             struct att_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    enum att_rc rc = check_tcti(options->tcti, err);
    if (rc != ATT_OK) {
        return rc;
    }
    (void)pthread_once(&once, quiet_tss);
    struct tpm_context *ctx = calloc(1, sizeof(*ctx));
    if (!ctx) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a TPM context");
    }
    ctx->session.tr = ctx->srk.tr = ctx->ak.tr = ESYS_TR_NONE;
    ctx->session.max_uses = TPM_SESSION_MAX_USES;
    ctx->session.max_idle_ms = TPM_SESSION_MAX_IDLE_MS;
    for (size_t i = 0; i < TPM_CACHE_MAX; i++) {
        ctx->cache.slots[i].tr = ESYS_TR_NONE;
    }
    rc = apply_options(ctx, options, err);
    if (rc == ATT_OK) {
        rc = connect_tpm(ctx, err);
    }
    if (rc != ATT_OK) {
        tpm_context_free(ctx);
        return rc;
    }
    *ret_ctx = ctx;
    return ATT_OK;
}

void tpm_context_free(struct tpm_context *ctx)
{
    if (!ctx) {
        return;
    }
    disconnect(ctx);
    tpm_parent_unset(ctx);
    tpm_saved_forget_all(ctx);
    att_buf_done(&ctx->srk.area);
    att_buf_done(&ctx->ak.area);
    att_secret_done(&ctx->owner_auth);
    att_secret_done(&ctx->endorsement_auth);
    free(ctx->tcti);
    free(ctx);
}

enum att_rc tpm_context_reopen(struct tpm_context *ctx, struct att_err *err)
{
    disconnect(ctx);
    return connect_tpm(ctx, err);
}

bool tpm_context_alive(const struct tpm_context *ctx)
{
    return ctx->alive;
}

uint64_t tpm_context_generation(const struct tpm_context *ctx)
{
    return ctx->generation;
}

/* ---- clock and random --------------------------------------------------------------------- */

enum att_rc tpm_context_clock(struct tpm_context *ctx, struct tpm_clock *ret_clock,
                              struct att_err *err)
{
    tpm_autofree TPMS_TIME_INFO *info = NULL;
    TSS2_RC rc;
    enum att_rc result = tpm_begin(ctx, err);
    if (result != ATT_OK) {
        return result;
    }
    TPM_CALL(ctx, rc, Esys_ReadClock(ctx->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &info));
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, rc, "reading the TPM's clock");
    }
    *ret_clock = (struct tpm_clock){.time_ms = info->time,
                                    .clock_ms = info->clockInfo.clock,
                                    .reset_count = info->clockInfo.resetCount,
                                    .restart_count = info->clockInfo.restartCount,
                                    .safe = info->clockInfo.safe == TPM2_YES};
    note_counts(ctx, ret_clock);
    return ATT_OK;
}

enum att_rc tpm_context_random(struct tpm_context *ctx, uint8_t *ret, size_t len,
                               struct att_err *err)
{
    enum att_rc result = tpm_begin(ctx, err);
    size_t have = 0;
    while (result == ATT_OK && have < len) {
        tpm_autofree TPM2B_DIGEST *bytes = NULL;
        ESYS_TR session;
        TSS2_RC rc;
        result = tpm_session_get(ctx, TPMA_SESSION_ENCRYPT, &session, err);
        if (result != ATT_OK) {
            return result;
        }
        uint16_t want = (uint16_t)(len - have < 32 ? len - have : 32);
        TPM_CALL(ctx, rc,
                 Esys_GetRandom(ctx->esys, session, ESYS_TR_NONE, ESYS_TR_NONE, want, &bytes));
        if (rc != TSS2_RC_SUCCESS) {
            return tpm_fail(err, rc, "reading random bytes from the TPM");
        }
        if (bytes->size == 0 || bytes->size > want) {
            return att_fail(err, ATT_E_PROTOCOL, "the TPM gave %u random bytes for %u", bytes->size,
                            want);
        }
        memcpy(ret + have, bytes->buffer, bytes->size);
        have += bytes->size;
        att_wipe(bytes->buffer, bytes->size);
    }
    return result;
}
