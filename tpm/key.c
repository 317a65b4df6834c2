#include "tpm/key.h"

#include "attestd/base/hash.h"
#include "tpm/internal.h"

/* ---- authValues --------------------------------------------------------------------------- */

enum att_rc tpm_key_auth_derive(struct att_slice host_secret, struct att_slice seed_id,
                                uint8_t ret_auth[TPM_KEY_AUTH_LEN], struct att_err *err)
{
    static const char label[] = "attestd-key-auth/1";
    if (host_secret.len < 16 || seed_id.len == 0) {
        return att_fail(err, ATT_E_INVAL,
                        "deriving an authValue from a secret of %zu and a seed id of %zu bytes",
                        host_secret.len, seed_id.len);
    }
    for (unsigned counter = 0; counter < 256; counter++) {
        uint8_t auth[TPM_KEY_AUTH_LEN];
        att_autobuf info = {0};
        att_buf_put(&info, label, sizeof(label) - 1);
        att_buf_u8(&info, (uint8_t)counter);
        att_buf_put_slice(&info, seed_id);
        enum att_rc rc = att_buf_ok(&info, err);
        if (rc == ATT_OK) {
            rc = att_hkdf_sha256(auth, sizeof(auth), host_secret, (struct att_slice){0},
                                 att_buf_slice(&info), err);
        }
        bool usable = rc == ATT_OK && auth[TPM_KEY_AUTH_LEN - 1] != 0;
        if (usable) {
            memcpy(ret_auth, auth, sizeof(auth));
        }
        att_wipe(auth, sizeof(auth));
        if (rc != ATT_OK || usable) {
            return rc;
        }
    }
    return att_fail(err, ATT_E_CRYPTO, "no authValue without a trailing zero byte");
}

static size_t slots_used(const struct tpm_context *ctx);
static size_t slots_allowed(const struct tpm_context *ctx);

/* ---- creating ----------------------------------------------------------------------------- */

static enum att_rc take_created(const TPM2B_PUBLIC *pub, const TPM2B_PRIVATE *priv,
                                struct tpm_blob *blob, struct att_err *err)
{
    enum att_rc rc = tpm_from_public(pub, &blob->pub, err);
    if (rc == ATT_OK) {
        rc = tpm_put_2b(&blob->priv, priv->size, priv->buffer, sizeof(priv->buffer),
                        "a private area", err);
    }
    return rc;
}

struct creation {
    TPM2B_SENSITIVE_CREATE sensitive;
    TPM2B_PUBLIC template;
    TPM2B_PRIVATE *priv;
    TPM2B_PUBLIC *pub;
};

static void creation_done(struct creation *c)
{
    att_wipe(&c->sensitive, sizeof(c->sensitive));
    Esys_Free(c->priv);
    Esys_Free(c->pub);
}

static TSS2_RC create_by(struct tpm_context *ctx, ESYS_TR parent, ESYS_TR auth, ESYS_TR encrypts,
                         struct creation *c)
{
    static const TPM2B_DATA no_data = {0};
    static const TPML_PCR_SELECTION no_pcrs = {0};
    TSS2_RC trc;
    TPM_CALL(ctx, trc,
             Esys_Create(ctx->esys, parent, auth, encrypts, ESYS_TR_NONE, &c->sensitive,
                         &c->template, &no_data, &no_pcrs, &c->priv, &c->pub, NULL, NULL, NULL));
    return trc;
}

/* Under the storage parent the policy session authorises, the salted one encrypts. */
static TSS2_RC create_under_parent(struct tpm_context *ctx, ESYS_TR parent, ESYS_TR policy,
                                   void *arg)
{
    ESYS_TR session;
    if (tpm_session_get(ctx, TPMA_SESSION_DECRYPT, &session, NULL) != ATT_OK) {
        return TSS2_ESYS_RC_GENERAL_FAILURE;
    }
    return create_by(ctx, parent, policy, session, arg);
}

static enum att_rc create_under_srk(struct tpm_context *ctx, struct creation *c, TSS2_RC *ret_trc,
                                    struct att_err *err)
{
    ESYS_TR srk, session;
    enum att_rc rc = tpm_srk_get(ctx, &srk, err);
    if (rc == ATT_OK) {
        rc = tpm_session_get(ctx, TPMA_SESSION_DECRYPT, &session, err);
    }
    if (rc == ATT_OK) {
        *ret_trc = create_by(ctx, srk, session, ESYS_TR_NONE, c);
    }
    return rc;
}

/* TPM2_Create: the sensitive part goes encrypted over the salted session (Part 1 §21). */
static enum att_rc create(struct tpm_context *ctx, bool under_parent, struct creation *c,
                          struct tpm_blob *blob, struct att_err *err)
{
    TSS2_RC trc = TSS2_RC_SUCCESS;
    /* The TPM needs a transient slot for a moment; it would refuse first, and we flush then. */
    if (slots_used(ctx) >= slots_allowed(ctx)) {
        (void)tpm_cache_drop_lru(ctx);
    }
    enum att_rc rc = under_parent ? tpm_parent_use(ctx, create_under_parent, c, &trc, err)
                                  : create_under_srk(ctx, c, &trc, err);
    if (rc == ATT_OK && trc != TSS2_RC_SUCCESS) {
        rc = tpm_fail(err, trc,
                      under_parent ? "creating an object under the storage parent"
                                   : "creating an object under the SRK");
    }
    if (rc == ATT_OK) {
        rc = take_created(c->pub, c->priv, blob, err);
    }
    if (rc == ATT_OK) {
        blob->parent_handle = under_parent ? TPM2_RH_OWNER : tpm_srk_blob_handle(ctx);
        blob->parent_name = under_parent ? *tpm_parent_name(ctx) : ctx->srk.name;
    }
    return rc;
}

enum att_rc tpm_blob_create_srk(struct tpm_context *ctx, struct att_slice area,
                                struct tpm_blob *ret_blob, struct att_err *err)
{
    tpm_autoblob blob = {.type = TPM_BLOB_KEY, .empty_auth = true};
    ATT_CLEANUP(creation_done) struct creation c = {0};
    enum att_rc rc = tpm_to_public(area, &c.template, err);
    if (rc == ATT_OK) {
        rc = create(ctx, false, &c, &blob, err);
    }
    if (rc == ATT_OK) {
        *ret_blob = blob;
        blob = (struct tpm_blob){0};
    }
    return rc;
}

enum att_rc tpm_blob_create(struct tpm_context *ctx, enum tpm_template which, struct att_slice auth,
                            struct att_slice data, struct tpm_blob *ret_blob, struct att_err *err)
{
    att_autobuf area = {0};
    tpm_autoblob blob = {.type = which == TPM_TEMPLATE_SEALED ? TPM_BLOB_SEALED : TPM_BLOB_KEY,
                         .empty_auth = auth.len == 0};
    ATT_CLEANUP(creation_done) struct creation c = {0};
    TPMS_SENSITIVE_CREATE *s = &c.sensitive.sensitive;

    if (auth.len > sizeof(s->userAuth.buffer) || data.len > sizeof(s->data.buffer)) {
        return att_fail(err, ATT_E_LIMIT, "authValue of %zu or data of %zu bytes is too long",
                        auth.len, data.len);
    }
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK) {
        rc = tpm_template_encode(which, &area, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_to_public(att_buf_slice(&area), &c.template, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    s->userAuth.size = (uint16_t)auth.len;
    s->data.size = (uint16_t)data.len;
    if (auth.len != 0) {
        memcpy(s->userAuth.buffer, auth.ptr, auth.len);
    }
    if (data.len != 0) {
        memcpy(s->data.buffer, data.ptr, data.len);
    }
    rc = create(ctx, ctx->parent != NULL, &c, &blob, err);
    if (rc == ATT_OK) {
        rc = tpm_template_match(which, att_buf_slice(&blob.pub), err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    *ret_blob = blob;
    blob = (struct tpm_blob){0};
    return ATT_OK;
}

enum att_rc tpm_key_create(struct tpm_context *ctx, struct att_slice auth,
                           struct tpm_blob *ret_blob, struct att_err *err)
{
    if (auth.len != TPM_KEY_AUTH_LEN || auth.ptr[TPM_KEY_AUTH_LEN - 1] == 0) {
        return att_fail(err, ATT_E_INVAL,
                        "a key's authValue of %zu bytes: expected %u of which the last is not zero",
                        auth.len, TPM_KEY_AUTH_LEN);
    }
    return tpm_blob_create(ctx, TPM_TEMPLATE_AGENT, auth, (struct att_slice){0}, ret_blob, err);
}

/* ---- loading ------------------------------------------------------------------------------ */

static enum att_rc load_failed(const struct tpm_blob *blob, TSS2_RC trc, struct att_err *err)
{
    enum att_rc rc;
    switch (tpm_errors_is_param(trc) ? tpm_errors_number(trc) : 0) {
    case TPM2_RC_INTEGRITY:
    case TPM2_RC_SIZE:
    case TPM2_RC_SENSITIVE:
    case TPM2_RC_BINDING:
    case TPM2_RC_VALUE:
    case TPM2_RC_INSUFFICIENT:
    case TPM2_RC_ATTRIBUTES:
    case TPM2_RC_TYPE:
    case TPM2_RC_HASH:
    case TPM2_RC_KEY:
        break;
    default:
        return tpm_fail(err, trc, "loading a sealed blob");
    }
    /* The TPM cannot tell a foreign blob from an altered one; the recorded parent can. */
    bool parent_known = blob->parent_name.len != 0;
    rc = att_fail_native(err, ATT_E_DENIED, ATT_DOM_TSS, trc,
                         parent_known ? "the sealed blob was altered: the TPM refuses it (0x%06x)"
                                      : "sealed under another TPM or SRK, or altered: the TPM "
                                        "refuses the blob (0x%06x)",
                         trc);
    att_err_reason(err, parent_known ? "blobIntegrity" : "foreignParent");
    return rc;
}

struct load {
    TPM2B_PUBLIC pub;
    TPM2B_PRIVATE priv;
    ESYS_TR tr;
};

static enum att_rc load_parts(const struct tpm_blob *blob, struct load *ret, struct att_err *err)
{
    *ret = (struct load){.tr = ESYS_TR_NONE};
    if (blob->priv.len > sizeof(ret->priv.buffer)) {
        return att_fail(err, ATT_E_LIMIT, "a private area of %zu bytes: at most %zu",
                        blob->priv.len, sizeof(ret->priv.buffer));
    }
    ret->priv.size = (uint16_t)blob->priv.len;
    memcpy(ret->priv.buffer, blob->priv.ptr, blob->priv.len);
    return tpm_to_public(att_buf_slice(&blob->pub), &ret->pub, err);
}

static TSS2_RC load_by(struct tpm_context *ctx, ESYS_TR parent, ESYS_TR session, void *arg)
{
    struct load *load = arg;
    TSS2_RC trc;
    TPM_CALL(ctx, trc,
             Esys_Load(ctx->esys, parent, session, ESYS_TR_NONE, ESYS_TR_NONE, &load->priv,
                       &load->pub, &load->tr));
    return trc;
}

static enum att_rc loaded(struct tpm_context *ctx, const struct tpm_blob *blob,
                          const struct load *load, TSS2_RC trc, struct tpm_obj *ret_obj,
                          struct att_err *err)
{
    if (trc != TSS2_RC_SUCCESS) {
        return load_failed(blob, trc, err);
    }
    *ret_obj = (struct tpm_obj){.ctx = ctx, .tr = load->tr};
    return ATT_OK;
}

enum att_rc tpm_blob_load(struct tpm_context *ctx, const struct tpm_blob *blob,
                          struct tpm_obj *ret_obj, struct att_err *err)
{
    struct load load;
    TSS2_RC trc = TSS2_RC_SUCCESS;
    if (!tpm_parent_is(ctx, &blob->parent_name)) {
        return tpm_blob_load_srk(ctx, blob, ret_obj, err);
    }
    enum att_rc rc = load_parts(blob, &load, err);
    if (rc == ATT_OK) {
        rc = tpm_parent_use(ctx, load_by, &load, &trc, err);
    }
    return rc == ATT_OK ? loaded(ctx, blob, &load, trc, ret_obj, err) : rc;
}

enum att_rc tpm_blob_load_srk(struct tpm_context *ctx, const struct tpm_blob *blob,
                              struct tpm_obj *ret_obj, struct att_err *err)
{
    struct load load;
    tpm_autoobj other = TPM_OBJ_INIT(ctx);
    ESYS_TR parent, session;
    enum att_rc rc = load_parts(blob, &load, err);
    if (rc == ATT_OK) {
        rc = tpm_srk_get(ctx, &parent, err);
    }
    struct att_slice wanted = parse_name_slice(&blob->parent_name);
    if (rc == ATT_OK && wanted.len != 0 &&
        !att_slice_eq(wanted, parse_name_slice(&ctx->srk.name))) {
        rc = tpm_srk_other(ctx, wanted, &other, err);
        parent = other.tr;
    }
    if (rc == ATT_OK) {
        rc = tpm_session_get(ctx, 0, &session, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    return loaded(ctx, blob, &load, load_by(ctx, parent, session, &load), ret_obj, err);
}

/* ---- cache -------------------------------------------------------------------------------- */

static size_t slots_allowed(const struct tpm_context *ctx)
{
    if (ctx->cache.slots_wanted != 0) {
        return ctx->cache.slots_wanted;
    }
    /* What the TPM guarantees, less the AK and a transient SRK. */
    size_t taken = ctx->srk.persistent ? 0 : 1;
    taken += ctx->ak.persistent ? 0 : 1;
    size_t have = ctx->transient_min > taken ? ctx->transient_min - taken : 1;
    return have < TPM_CACHE_MAX ? have : TPM_CACHE_MAX;
}

static void drop_slot(struct tpm_context *ctx, struct tpm_loaded *slot)
{
    struct tpm_obj obj = {.ctx = ctx, .tr = slot->tr};
    *slot = (struct tpm_loaded){.tr = ESYS_TR_NONE};
    tpm_obj_done(&obj);
}

static size_t slots_used(const struct tpm_context *ctx)
{
    size_t used = 0;
    for (size_t i = 0; i < TPM_CACHE_MAX; i++) {
        used += ctx->cache.slots[i].tr != ESYS_TR_NONE;
    }
    return used;
}

bool tpm_cache_drop_lru(struct tpm_context *ctx)
{
    struct tpm_loaded *oldest = NULL;
    for (size_t i = 0; i < TPM_CACHE_MAX; i++) {
        struct tpm_loaded *slot = &ctx->cache.slots[i];
        if (slot->tr != ESYS_TR_NONE && !slot->pinned &&
            (!oldest || slot->last_used < oldest->last_used)) {
            oldest = slot;
        }
    }
    if (!oldest) {
        return false;
    }
    ctx->cache.evictions++;
    tpm_saved_keep(ctx, oldest->tr, &oldest->name, false);
    drop_slot(ctx, oldest);
    return true;
}

void tpm_cache_drop_all(struct tpm_context *ctx)
{
    for (size_t i = 0; i < TPM_CACHE_MAX; i++) {
        drop_slot(ctx, &ctx->cache.slots[i]);
    }
}

static struct tpm_loaded *find_slot(struct tpm_context *ctx, const struct parse_name *name)
{
    for (size_t i = 0; i < TPM_CACHE_MAX; i++) {
        struct tpm_loaded *slot = &ctx->cache.slots[i];
        if (slot->tr != ESYS_TR_NONE &&
            att_slice_eq(parse_name_slice(&slot->name), parse_name_slice(name))) {
            return slot;
        }
    }
    return NULL;
}

static struct tpm_loaded *free_slot(struct tpm_context *ctx)
{
    while (slots_used(ctx) >= slots_allowed(ctx) && tpm_cache_drop_lru(ctx)) {
    }
    for (size_t i = 0; i < TPM_CACHE_MAX; i++) {
        if (ctx->cache.slots[i].tr == ESYS_TR_NONE) {
            return &ctx->cache.slots[i];
        }
    }
    return NULL;
}

/* A key that was loaded before comes back by its saved context. One of the storage parent's needs
 * no policy then, in this boot: its context is saved as soon as it is loaded. */
static enum att_rc load_or_restore(struct tpm_context *ctx, const struct tpm_blob *key,
                                   const struct parse_name *name, struct tpm_obj *ret_obj,
                                   struct att_err *err)
{
    bool gated = tpm_parent_is(ctx, &key->parent_name);
    if (tpm_saved_load(ctx, name, ret_obj)) {
        if (gated) {
            tpm_parent_restored(ctx);
        }
        return ATT_OK;
    }
    enum att_rc rc = tpm_blob_load(ctx, key, ret_obj, err);
    if (rc == ATT_OK && gated) {
        tpm_saved_keep(ctx, ret_obj->tr, name, true);
    }
    return rc;
}

static enum att_rc acquire_slot(struct tpm_context *ctx, const struct tpm_blob *key,
                                struct tpm_loaded **ret_slot, struct att_err *err)
{
    struct parse_name name;
    enum att_rc rc = tpm_blob_name(key, &name, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct tpm_loaded *slot = find_slot(ctx, &name);
    if (slot) {
        ctx->cache.hits++;
    } else {
        tpm_autoobj obj = TPM_OBJ_INIT(ctx);
        ctx->cache.misses++;
        (void)free_slot(ctx); /* make room before the load, not after it failed */
        rc = load_or_restore(ctx, key, &name, &obj, err);
        if (rc != ATT_OK) {
            return rc;
        }
        slot = free_slot(ctx);
        if (!slot) {
            return att_fail(err, ATT_E_INTERNAL, "no free slot in the key cache");
        }
        *slot = (struct tpm_loaded){.tr = obj.tr, .name = name};
        obj.tr = ESYS_TR_NONE;
    }
    slot->pinned = true;
    slot->last_used = ++ctx->cache.tick;
    *ret_slot = slot;
    return ATT_OK;
}

enum att_rc tpm_key_acquire(struct tpm_context *ctx, const struct tpm_blob *key,
                            struct att_slice auth, ESYS_TR *ret_tr, struct att_err *err)
{
    struct tpm_loaded *slot;
    if (key->type != TPM_BLOB_KEY) {
        return att_fail(err, ATT_E_INVAL, "a sealed data object is no key");
    }
    enum att_rc rc = acquire_slot(ctx, key, &slot, err);
    if (rc == ATT_OK) {
        rc = tpm_set_auth(ctx, slot->tr, auth, err);
    }
    if (rc == ATT_OK) {
        *ret_tr = slot->tr;
    }
    return rc;
}

void tpm_key_release(struct tpm_context *ctx, ESYS_TR tr)
{
    if (tpm_set_auth(ctx, tr, (struct att_slice){0}, NULL) != ATT_OK) {
        return; /* the context is dead; its objects go with it */
    }
}

enum att_rc tpm_key_load(struct tpm_context *ctx, const struct tpm_blob *key, struct att_err *err)
{
    struct tpm_loaded *slot;
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK && key->type != TPM_BLOB_KEY) {
        rc = att_fail(err, ATT_E_INVAL, "a sealed data object is no key");
    }
    return rc == ATT_OK ? acquire_slot(ctx, key, &slot, err) : rc;
}

void tpm_key_evict(struct tpm_context *ctx, const struct tpm_blob *key)
{
    struct parse_name name;
    if (tpm_blob_name(key, &name, NULL) == ATT_OK) {
        struct tpm_loaded *slot = find_slot(ctx, &name);
        if (slot) {
            drop_slot(ctx, slot);
        }
        tpm_saved_forget(ctx, &name);
    }
}

void tpm_key_cache_stats(const struct tpm_context *ctx, struct tpm_cache_stats *ret_stats)
{
    *ret_stats = (struct tpm_cache_stats){.slots = slots_allowed(ctx),
                                          .used = slots_used(ctx),
                                          .hits = ctx->cache.hits,
                                          .misses = ctx->cache.misses,
                                          .restores = ctx->cache.restores,
                                          .evictions = ctx->cache.evictions};
}

/* ---- signing ------------------------------------------------------------------------------ */

static enum att_rc put_coordinate(uint8_t ret[32], struct att_slice number, struct att_err *err)
{
    while (number.len > 32 && number.ptr[0] == 0) {
        number = ATT_SLICE(number.ptr + 1, number.len - 1);
    }
    if (number.len > 32) {
        return att_fail(err, ATT_E_PROTOCOL, "the TPM's signature is not a P-256 one");
    }
    memset(ret, 0, 32 - number.len);
    memcpy(ret + 32 - number.len, number.ptr, number.len);
    return ATT_OK;
}

static enum att_rc take_signature(const TPMT_SIGNATURE *tpm_sig, struct tpm_signature *ret_sig,
                                  struct att_err *err)
{
    att_autobuf bytes = {0}, der = {0};
    struct parse_sig sig;
    struct tpm_signature out = {0};
    enum att_rc rc = tpm_from_signature(tpm_sig, &bytes, err);
    if (rc == ATT_OK) {
        rc = parse_sig_parse(att_buf_slice(&bytes), &sig, err);
    }
    if (rc == ATT_OK && (sig.alg != PARSE_ALG_ECDSA || sig.hash != PARSE_ALG_SHA256)) {
        rc = att_fail(err, ATT_E_PROTOCOL,
                      "the TPM signed with 0x%04x and 0x%04x: expected ECDSA with SHA-256", sig.alg,
                      sig.hash);
    }
    if (rc == ATT_OK) {
        rc = put_coordinate(out.raw, sig.r, err);
    }
    if (rc == ATT_OK) {
        rc = put_coordinate(out.raw + 32, sig.s, err);
    }
    if (rc == ATT_OK) {
        rc = parse_sig_der(&sig, &der, err);
    }
    if (rc == ATT_OK && der.len > sizeof(out.der)) {
        rc = att_fail(err, ATT_E_INTERNAL, "an ECDSA signature of %zu bytes", der.len);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    memcpy(out.der, der.ptr, der.len);
    out.der_len = der.len;
    *ret_sig = out;
    return ATT_OK;
}

enum att_rc tpm_key_sign(struct tpm_context *ctx, const struct tpm_blob *key, struct att_slice auth,
                         const uint8_t digest[32], struct tpm_signature *ret_sig,
                         struct att_err *err)
{
    static const TPMT_SIG_SCHEME scheme = {.scheme = TPM2_ALG_ECDSA,
                                           .details.ecdsa.hashAlg = TPM2_ALG_SHA256};
    static const TPMT_TK_HASHCHECK no_ticket = {.tag = TPM2_ST_HASHCHECK,
                                                .hierarchy = TPM2_RH_NULL};
    TPM2B_DIGEST hash = {.size = 32};
    tpm_autofree TPMT_SIGNATURE *sig = NULL;
    ESYS_TR tr = ESYS_TR_NONE, session;
    TSS2_RC trc = TSS2_RC_SUCCESS;
    memcpy(hash.buffer, digest, 32);
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK) {
        rc = tpm_key_acquire(ctx, key, auth, &tr, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    rc = tpm_session_get(ctx, 0, &session, err);
    if (rc == ATT_OK) {
        TPM_CALL(ctx, trc,
                 Esys_Sign(ctx->esys, tr, session, ESYS_TR_NONE, ESYS_TR_NONE, &hash, &scheme,
                           &no_ticket, &sig));
        if (trc != TSS2_RC_SUCCESS) {
            rc = tpm_fail(err, trc, "signing");
        }
    }
    tpm_key_release(ctx, tr);
    return rc == ATT_OK ? take_signature(sig, ret_sig, err) : rc;
}
