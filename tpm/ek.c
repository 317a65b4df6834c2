#include "tpm/ek.h"

#include "tpm/ak.h"
#include "tpm/internal.h"
#include "tpm/nv.h"

#include <openssl/asn1.h>
#include <openssl/x509.h>

#define NV_EK_FIRST    0x01c00002u
#define NV_EK_LAST     0x01c0001fu
#define NV_CHAIN_FIRST 0x01c00100u
#define NV_CHAIN_LAST  0x01c001ffu
#define CHAIN_BYTES    (16u * 1024u)

/* TCG EK Credential Profile 2.5 §2.2.1.4, TCG Registry of Reserved TPM 2.0 Handles; in the order in
 * which we like them. */
static const struct {
    enum parse_ek_template kind;
    uint32_t nv_index, handle;
} kinds[] = {
    {PARSE_EK_H2, 0x01c00014, 0x81010014}, {PARSE_EK_L2, 0x01c0000a, 0x81010002},
    {PARSE_EK_H3, 0x01c00016, 0x81010016}, {PARSE_EK_H1, 0x01c00012, 0x81010012},
    {PARSE_EK_L1, 0x01c00002, 0x81010001}, {PARSE_EK_H6, 0x01c0001c, 0x8101001c},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

void tpm_ek_certs_done(struct tpm_ek_certs *certs)
{
    for (size_t i = 0; i < TPM_EK_CERTS_MAX; i++) {
        att_buf_done(&certs->certs[i].der);
    }
    for (size_t i = 0; i < TPM_EK_CHAIN_MAX; i++) {
        att_buf_done(&certs->chain[i]);
    }
    certs->certs_count = certs->chain_count = certs->skipped_count = 0;
}

void tpm_ek_done(struct tpm_ek *ek)
{
    att_buf_done(&ek->cert);
    att_buf_done(&ek->pub);
}

/* ---- certificates ------------------------------------------------------------------------- */

/* The length of the certificate that bytes begin with, 0 when they begin with none. What follows in
 * NV is padding and never looked at; the DER is kept as it is. */
static size_t certificate_len(struct att_slice bytes)
{
    const unsigned char *p = bytes.ptr;
    X509 *cert = d2i_X509(NULL, &p, (long)bytes.len);
    size_t len = cert ? (size_t)(p - bytes.ptr) : 0;
    X509_free(cert);
    return len;
}

static enum parse_ek_template kind_of_index(uint32_t nv_index)
{
    for (size_t i = 0; i < KINDS; i++) {
        if (kinds[i].nv_index == nv_index) {
            return kinds[i].kind;
        }
    }
    return PARSE_EK_NONE;
}

static void skip(struct tpm_ek_certs *certs, uint32_t index)
{
    if (certs->skipped_count < TPM_EK_SKIPPED_MAX) {
        certs->skipped[certs->skipped_count++] = index;
    }
}

/* An index that cannot be read, or holds something else, does not keep us from the others; a TPM
 * that is gone does. */
static enum att_rc read_certificate(struct tpm_context *ctx, uint32_t index,
                                    struct tpm_ek_certs *certs, struct att_buf *ret_der,
                                    struct att_err *err)
{
    att_autobuf bytes = {0};
    struct att_err why = {0};
    enum att_rc rc = tpm_nv_read(ctx, index, TPM_EK_CERT_MAX, &bytes, &why);
    if (rc == ATT_E_GONE || rc == ATT_E_NOMEM) {
        return att_fail_native(err, rc, why.domain, why.native, "%s", why.msg);
    }
    if (rc == ATT_OK) {
        size_t len = certificate_len(att_buf_slice(&bytes));
        att_buf_put(ret_der, bytes.ptr, len);
        return att_buf_ok(ret_der, err);
    }
    skip(certs, index);
    return ATT_OK;
}

static enum att_rc read_leaves(struct tpm_context *ctx, struct tpm_ek_certs *certs,
                               struct att_err *err)
{
    uint32_t indices[32];
    size_t count = 0;
    enum att_rc rc = tpm_nv_list(ctx, NV_EK_FIRST, NV_EK_LAST, indices, 32, &count, err);
    for (size_t i = 0; rc == ATT_OK && i < count && certs->certs_count < TPM_EK_CERTS_MAX; i++) {
        struct tpm_ek_cert *cert = &certs->certs[certs->certs_count];
        /* Certificates are at even indices of the high range; 3, 4, b and c are nonces and
         * templates of the low range (§2.2.1.4, §2.2.1.5). */
        bool low = indices[i] == 0x01c00002 || indices[i] == 0x01c0000a;
        if (!low && (indices[i] < 0x01c00012 || indices[i] % 2 != 0)) {
            continue;
        }
        rc = read_certificate(ctx, indices[i], certs, &cert->der, err);
        if (rc == ATT_OK && cert->der.len != 0) {
            cert->nv_index = indices[i];
            cert->kind = kind_of_index(indices[i]);
            certs->certs_count++;
        }
    }
    return rc;
}

/* The chain's certificates follow one another over the indices' ends (§2.2.1.5.2). */
static enum att_rc read_chain(struct tpm_context *ctx, struct tpm_ek_certs *certs,
                              struct att_err *err)
{
    uint32_t indices[16];
    size_t count = 0;
    att_autobuf bytes = ATT_BUF_INIT(CHAIN_BYTES);
    enum att_rc rc = tpm_nv_list(ctx, NV_CHAIN_FIRST, NV_CHAIN_LAST, indices, 16, &count, err);
    for (size_t i = 0; rc == ATT_OK && i < count; i++) {
        struct att_err why = {0};
        if (indices[i] != NV_CHAIN_FIRST + i) {
            break;
        }
        if (tpm_nv_read(ctx, indices[i], CHAIN_BYTES - bytes.len, &bytes, &why) != ATT_OK) {
            skip(certs, indices[i]);
            if (why.rc == ATT_E_GONE || why.rc == ATT_E_NOMEM) {
                return att_fail_native(err, why.rc, why.domain, why.native, "%s", why.msg);
            }
            break;
        }
    }
    struct att_slice left = att_buf_slice(&bytes);
    while (rc == ATT_OK && left.len != 0 && certs->chain_count < TPM_EK_CHAIN_MAX) {
        size_t len = certificate_len(left);
        if (len == 0) {
            break;
        }
        struct att_buf *der = &certs->chain[certs->chain_count++];
        att_buf_put(der, left.ptr, len);
        rc = att_buf_ok(der, err);
        left = ATT_SLICE(left.ptr + len, left.len - len);
    }
    return rc;
}

enum att_rc tpm_ek_read_certs(struct tpm_context *ctx, struct tpm_ek_certs *ret_certs,
                              struct att_err *err)
{
    tpm_autoekcerts certs = {0};
    enum att_rc rc = read_leaves(ctx, &certs, err);
    if (rc == ATT_OK) {
        rc = read_chain(ctx, &certs, err);
    }
    if (rc == ATT_OK) {
        *ret_certs = certs;
        certs = (struct tpm_ek_certs){0};
    }
    return rc;
}

/* ---- the key ------------------------------------------------------------------------------ */

/* Is this the certificate's key? The bit strings of the two SubjectPublicKeyInfos are compared: so
 * it works for makers' certificates whose algorithm is id-RSAES-OAEP, which OpenSSL does not
 * decode. */
static enum att_rc compare(struct att_slice cert_der, struct att_slice area, struct att_err *err)
{
    att_autobuf spki_der = {0};
    struct parse_public pub;
    const unsigned char *p = cert_der.ptr, *bits = NULL;
    int bits_len = 0;
    enum att_rc rc = parse_public_parse(area, &pub, err);
    if (rc == ATT_OK) {
        rc = parse_public_spki(&pub, &spki_der, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    X509 *cert = d2i_X509(NULL, &p, (long)cert_der.len);
    const ASN1_BIT_STRING *have = cert ? X509_get0_pubkey_bitstr(cert) : NULL;
    p = spki_der.ptr;
    X509_PUBKEY *spki = d2i_X509_PUBKEY(NULL, &p, (long)spki_der.len);
    bool same =
        have && spki && X509_PUBKEY_get0_param(NULL, &bits, &bits_len, NULL, spki) == 1 &&
        att_slice_eq(ATT_SLICE(bits, (size_t)bits_len),
                     ATT_SLICE(ASN1_STRING_get0_data(have), (size_t)ASN1_STRING_length(have)));
    X509_PUBKEY_free(spki);
    X509_free(cert);
    if (!same) {
        rc = att_fail(err, ATT_E_DENIED,
                      "the TPM's endorsement key is not the one in its EK certificate");
        att_err_reason(err, "ekCertMismatch");
    }
    return rc;
}

static enum att_rc check_kind(struct att_slice area, enum parse_ek_template kind,
                              struct att_err *err)
{
    struct parse_public pub;
    enum parse_ek_template have = PARSE_EK_NONE;
    enum att_rc rc = parse_public_parse(area, &pub, err);
    if (rc == ATT_OK) {
        rc = parse_public_check_ek(&pub, &have, err);
    }
    if (rc == ATT_OK && have != kind) {
        rc = att_fail(err, ATT_E_DENIED, "an EK of template %s where %s was expected",
                      parse_ek_template_name(have), parse_ek_template_name(kind));
        att_err_reason(err, "ekTemplate");
    }
    return rc;
}

static enum att_rc create_ek(struct tpm_context *ctx, enum parse_ek_template kind,
                             struct tpm_obj *ret_obj, struct att_buf *ret_area, struct att_err *err)
{
    struct parse_public template;
    att_autobuf area = {0};
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    enum att_rc rc = parse_public_ek_template(kind, &template, err);
    if (rc == ATT_OK) {
        rc = parse_public_encode(&template, &area, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_create_primary(ctx, ESYS_TR_RH_ENDORSEMENT, att_buf_slice(&area), &obj, ret_area,
                                err);
    }
    if (rc == ATT_OK) {
        rc = check_kind(att_buf_slice(ret_area), kind, err);
    }
    if (rc == ATT_OK) {
        *ret_obj = obj;
        obj.tr = ESYS_TR_NONE;
    }
    return rc;
}

static enum att_rc fits(struct att_slice area, enum parse_ek_template kind, struct att_slice cert,
                        struct att_err *err)
{
    enum att_rc rc = check_kind(area, kind, err);
    return rc == ATT_OK && cert.len != 0 ? compare(cert, area, err) : rc;
}

/* Opens the persistent EK of this kind; ATT_E_NOTFOUND when none fits. */
static enum att_rc open_ek(struct tpm_context *ctx, uint32_t handle, enum parse_ek_template kind,
                           struct att_slice cert, struct tpm_obj *ret_obj, struct att_buf *ret_area,
                           struct att_err *err)
{
    bool there = false;
    att_autobuf area = {0};
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    enum att_rc rc = tpm_handle_exists(ctx, handle, &there, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (!there || tpm_open_persistent(ctx, handle, &obj, &area, NULL, NULL) != ATT_OK ||
        fits(att_buf_slice(&area), kind, cert, NULL) != ATT_OK) {
        return ATT_E_NOTFOUND; /* an expected answer: no message */
    }
    att_buf_put_slice(ret_area, att_buf_slice(&area));
    rc = att_buf_ok(ret_area, err);
    if (rc == ATT_OK) {
        *ret_obj = obj;
        obj.tr = ESYS_TR_NONE;
    }
    return rc;
}

/* ---- finding ------------------------------------------------------------------------------ */

static enum att_rc try_kind(struct tpm_context *ctx, size_t i, const struct tpm_ek_cert *cert,
                            struct tpm_ek *ret_ek, struct att_err *err)
{
    tpm_autoek ek = {.kind = kinds[i].kind};
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    struct att_slice der = cert ? att_buf_slice(&cert->der) : (struct att_slice){0};
    enum att_rc rc = open_ek(ctx, kinds[i].handle, ek.kind, der, &obj, &ek.pub, err);
    if (rc == ATT_OK) {
        ek.persistent = kinds[i].handle;
    } else if (rc == ATT_E_NOTFOUND) {
        rc = create_ek(ctx, ek.kind, &obj, &ek.pub, err);
        if (rc == ATT_OK) {
            rc = fits(att_buf_slice(&ek.pub), ek.kind, der, err);
        }
    }
    if (rc == ATT_OK && cert) {
        ek.nv_index = cert->nv_index;
        att_buf_put_slice(&ek.cert, der);
        rc = att_buf_ok(&ek.cert, err);
    }
    if (rc == ATT_OK) {
        *ret_ek = ek;
        ek = (struct tpm_ek){0};
    }
    return rc;
}

static const struct tpm_ek_cert *cert_of(const struct tpm_ek_certs *certs,
                                         enum parse_ek_template kind)
{
    for (size_t i = 0; i < certs->certs_count; i++) {
        if (certs->certs[i].kind == kind) {
            return &certs->certs[i];
        }
    }
    return NULL;
}

/* First round: kinds with a certificate. Second, only when there was none of those: without. */
static enum att_rc find(struct tpm_context *ctx, const struct tpm_ek_certs *certs,
                        enum parse_ek_template only, bool with_cert, struct tpm_ek *ret_ek,
                        struct att_err *err)
{
    enum att_rc rc = ATT_E_NOTFOUND;
    for (size_t i = 0; i < KINDS; i++) {
        const struct tpm_ek_cert *cert = cert_of(certs, kinds[i].kind);
        bool plain = kinds[i].kind == PARSE_EK_L2 || kinds[i].kind == PARSE_EK_L1;
        bool wanted = only == PARSE_EK_NONE ? with_cert || plain : kinds[i].kind == only;
        if (!wanted || (cert != NULL) != with_cert) {
            continue;
        }
        struct att_err why = {0};
        rc = try_kind(ctx, i, cert, ret_ek, &why);
        if (rc == ATT_OK) {
            att_err_clear(err);
            return rc;
        }
        att_err_clear(err);
        if (err) {
            *err = why;
        }
        if (rc == ATT_E_GONE || rc == ATT_E_NOMEM || rc == ATT_E_LOCKOUT) {
            return rc;
        }
    }
    return rc;
}

enum att_rc tpm_ek_find(struct tpm_context *ctx, const struct tpm_ek_certs *certs,
                        enum parse_ek_template only, struct tpm_ek *ret_ek, struct att_err *err)
{
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc != ATT_OK) {
        return rc;
    }
    rc = find(ctx, certs, only, true, ret_ek, err);
    if (rc == ATT_E_NOTFOUND) {
        rc = find(ctx, certs, only, false, ret_ek, err);
    }
    return rc == ATT_E_NOTFOUND ? att_fail(err, rc, "the TPM has no endorsement key of this kind")
                                : rc;
}

/* ---- activation --------------------------------------------------------------------------- */

static enum att_rc take_2b(struct att_slice bytes, uint8_t *ret, size_t room, uint16_t *ret_size,
                           const char *what, struct att_err *err)
{
    struct att_cur cur = att_cur_init(bytes);
    struct att_slice content = att_cur_take_be16(&cur, room);
    if (!att_cur_done(&cur) || content.len == 0) {
        return att_fail(err, ATT_E_PARSE, "%s of %zu bytes is no TPM2B of 1…%zu bytes", what,
                        bytes.len, room);
    }
    memcpy(ret, content.ptr, content.len);
    *ret_size = (uint16_t)content.len;
    return ATT_OK;
}

static enum att_rc activate_failed(TSS2_RC trc, struct att_err *err)
{
    if (!tpm_errors_is_param(trc)) {
        return tpm_fail(err, trc, "activating a credential");
    }
    enum att_rc rc = att_fail_native(err, ATT_E_AUTH, ATT_DOM_TSS, trc,
                                     "the credential is not for this EK and AK, or was altered "
                                     "(0x%06x)",
                                     trc);
    att_err_reason(err, "activation");
    return rc;
}

/* The object again, and still the same key as when it was found. */
static enum att_rc reopen_ek(struct tpm_context *ctx, const struct tpm_ek *ek,
                             struct tpm_obj *ret_obj, struct att_err *err)
{
    att_autobuf area = {0};
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    enum att_rc rc;
    if (ek->persistent != 0) {
        rc = tpm_open_persistent(ctx, ek->persistent, &obj, &area, NULL, err);
    } else {
        rc = create_ek(ctx, ek->kind, &obj, &area, err);
    }
    if (rc == ATT_OK && !att_slice_eq(att_buf_slice(&area), att_buf_slice(&ek->pub))) {
        rc = att_fail(err, ATT_E_DENIED, "the endorsement key changed since it was found");
        att_err_reason(err, "ekCertMismatch");
    }
    if (rc == ATT_OK) {
        *ret_obj = obj;
        obj.tr = ESYS_TR_NONE;
    }
    return rc;
}

static enum att_rc activate(struct tpm_context *ctx, const struct tpm_ek *ek,
                            const TPM2B_ID_OBJECT *credential, const TPM2B_ENCRYPTED_SECRET *secret,
                            struct att_buf *ret_value, struct att_err *err)
{
    tpm_autoobj policy = TPM_OBJ_INIT(ctx);
    tpm_autoobj obj = TPM_OBJ_INIT(ctx);
    struct parse_public pub;
    ESYS_TR session, ak;
    TPM2B_DIGEST *value = NULL;
    TSS2_RC trc;
    /* The session first: its salt wants the SRK's slot, which the EK may need afterwards. */
    enum att_rc rc = tpm_session_get(ctx, TPMA_SESSION_ENCRYPT, &session, err);
    ctx->srk.pinned = false;
    if (rc == ATT_OK) {
        rc = tpm_ak_acquire(ctx, &ak, err);
    }
    if (rc == ATT_OK) {
        rc = parse_public_parse(att_buf_slice(&ek->pub), &pub, err);
    }
    if (rc == ATT_OK) {
        rc = reopen_ek(ctx, ek, &obj, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_session_ek_policy(ctx, &pub, &policy, err);
    }
    if (rc == ATT_OK) { /* the policy may have used the session with other attributes */
        rc = tpm_session_get(ctx, TPMA_SESSION_ENCRYPT, &session, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    TPM_CALL(ctx, trc,
             Esys_ActivateCredential(ctx->esys, ak, obj.tr, ESYS_TR_PASSWORD, policy.tr, session,
                                     credential, secret, &value));
    if (trc != TSS2_RC_SUCCESS) {
        return activate_failed(trc, err);
    }
    rc = tpm_put_2b(ret_value, value->size, value->buffer, sizeof(value->buffer), "a credential",
                    err);
    att_wipe(value, sizeof(*value));
    Esys_Free(value);
    return rc;
}

enum att_rc tpm_ek_activate(struct tpm_context *ctx, const struct tpm_ek *ek,
                            struct att_slice credential, struct att_slice secret,
                            struct att_buf *ret_value, struct att_err *err)
{
    TPM2B_ID_OBJECT id = {0};
    TPM2B_ENCRYPTED_SECRET sec = {0};
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK) {
        rc = take_2b(credential, id.credential, sizeof(id.credential), &id.size, "credentialBlob",
                     err);
    }
    if (rc == ATT_OK) {
        rc = take_2b(secret, sec.secret, sizeof(sec.secret), &sec.size, "encryptedSecret", err);
    }
    return rc == ATT_OK ? activate(ctx, ek, &id, &sec, ret_value, err) : rc;
}
