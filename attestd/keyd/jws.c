/* ACCOUNT_SIGN, in one request or, for payloads that do not fit a frame, in parts: keyd hashes the
 * signing input itself as it comes, behind a header that it has checked. */
#include "attestd/keyd/account.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"

#include <openssl/evp.h>
#include <string.h>

#define IDLE_MS 30000 /* a series that has not gone on for so long gives its place up */

/* b64u of a chunk goes into the hash; chunks before the last have whole groups of 3 bytes. */
static enum att_rc hash_chunk(EVP_MD_CTX *ctx, struct att_slice chunk, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(PROC_FRAME_MAX * 2);
    att_buf_b64u(&text, chunk);
    enum att_rc rc = att_buf_ok(&text, err);
    if (rc == ATT_OK && EVP_DigestUpdate(ctx, text.ptr, text.len) != 1) {
        rc = att_fail_openssl(err, ATT_E_CRYPTO, "SHA-256");
    }
    return rc;
}

/* A digest context that has taken b64u(header) "." */
static enum att_rc begin(struct att_slice header, EVP_MD_CTX **ret, struct att_err *err)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    enum att_rc rc = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1
                         ? hash_chunk(ctx, header, err)
                         : att_fail_openssl(err, ATT_E_CRYPTO, "SHA-256");
    if (rc == ATT_OK && EVP_DigestUpdate(ctx, ".", 1) != 1) {
        rc = att_fail_openssl(err, ATT_E_CRYPTO, "SHA-256");
    }
    if (rc != ATT_OK) {
        EVP_MD_CTX_free(ctx);
        return rc;
    }
    *ret = ctx;
    return ATT_OK;
}

static enum att_rc finish(struct keyd *keyd, const struct proc_op *op, EVP_MD_CTX *ctx,
                          struct att_buf *ret_payload, struct att_err *err)
{
    uint8_t digest[ATT_SHA256_LEN];
    if (EVP_DigestFinal_ex(ctx, digest, NULL) != 1) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "SHA-256");
    }
    att_autobuf raw = ATT_BUF_INIT(128);
    enum att_rc rc = keyd_account_sign(keyd, digest, &raw, err);
    const struct proc_value values[] = {
        [PROC_ACCOUNT_SIGN_REP_SIGNATURE] = {.bytes = att_buf_slice(&raw)}};
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}

KEYD_OPERATION(account_sign)
{
    struct att_slice header = request->v[PROC_ACCOUNT_SIGN_REQ_PROTECTED].bytes;
    EVP_MD_CTX *ctx = NULL;
    enum att_rc rc = keyd_account_check_header(keyd, header, err);
    if (rc == ATT_OK) {
        rc = begin(header, &ctx, err);
    }
    if (rc == ATT_OK) {
        rc = hash_chunk(ctx, request->v[PROC_ACCOUNT_SIGN_REQ_PAYLOAD].bytes, err);
    }
    if (rc == ATT_OK) {
        rc = finish(keyd, op, ctx, ret_payload, err);
    }
    EVP_MD_CTX_free(ctx);
    return rc;
}

/* ---- in parts ------------------------------------------------------------------------------ */

/* lock is held by all of these. */
static struct keyd_series *find(struct keyd *keyd, uint64_t handle)
{
    for (size_t i = 0; i < KEYD_SERIES_MAX; i++) {
        if (keyd->series[i].ctx && keyd->series[i].handle == handle) {
            return &keyd->series[i];
        }
    }
    return NULL;
}

static void end(struct keyd_series *series)
{
    EVP_MD_CTX_free(series->ctx);
    *series = (struct keyd_series){0};
}

static struct keyd_series *free_place(struct keyd *keyd)
{
    int64_t now = att_boottime_ms();
    for (size_t i = 0; i < KEYD_SERIES_MAX; i++) {
        struct keyd_series *series = &keyd->series[i];
        if (series->ctx && now - series->used_ms > IDLE_MS) {
            end(series);
        }
        if (!series->ctx) {
            return series;
        }
    }
    return NULL;
}

void keyd_series_done(struct keyd *keyd)
{
    for (size_t i = 0; i < KEYD_SERIES_MAX; i++) {
        end(&keyd->series[i]);
    }
}

KEYD_OPERATION(sign_start)
{
    struct att_slice header = request->v[PROC_SIGN_START_REQ_PROTECTED].bytes;
    uint64_t handle = 0;
    EVP_MD_CTX *ctx = NULL;
    enum att_rc rc = keyd_account_check_header(keyd, header, err);
    if (rc == ATT_OK) {
        rc = att_random((uint8_t *)&handle, sizeof handle, err);
    }
    if (rc == ATT_OK) {
        rc = begin(header, &ctx, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    pthread_mutex_lock(&keyd->lock);
    struct keyd_series *series = free_place(keyd);
    if (series) {
        *series = (struct keyd_series){handle, ctx, 0, false, att_boottime_ms()};
    }
    pthread_mutex_unlock(&keyd->lock);
    if (!series) {
        EVP_MD_CTX_free(ctx);
        return att_fail(err, ATT_E_RETRY, "%d signatures in parts are under way", KEYD_SERIES_MAX);
    }
    const struct proc_value values[] = {[PROC_SIGN_START_REP_HANDLE] = {.num = handle}};
    return proc_reply_encode(op, values, ret_payload, err);
}

static enum att_rc add_part(struct keyd_series *series, uint64_t offset, struct att_slice chunk,
                            struct att_err *err)
{
    if (!series) {
        return att_fail(err, ATT_E_NOTFOUND, "no such signature in parts, or idle for too long");
    }
    if (offset != series->len || series->closed) {
        return att_fail(err, ATT_E_CONFLICT,
                        "offset %llu, expected %llu; only the last part may have bytes beyond "
                        "groups of 3",
                        (unsigned long long)offset, (unsigned long long)series->len);
    }
    if (series->len + chunk.len > ACME_JWS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "a payload of more than %zu bytes", ACME_JWS_MAX);
    }
    enum att_rc rc = hash_chunk(series->ctx, chunk, err);
    series->len += chunk.len;
    series->closed = chunk.len % 3 != 0;
    series->used_ms = att_boottime_ms();
    return rc;
}

KEYD_OPERATION(sign_part)
{
    pthread_mutex_lock(&keyd->lock);
    struct keyd_series *series = find(keyd, request->v[PROC_SIGN_PART_REQ_HANDLE].num);
    enum att_rc rc = add_part(series, request->v[PROC_SIGN_PART_REQ_OFFSET].num,
                              request->v[PROC_SIGN_PART_REQ_CHUNK].bytes, err);
    if (rc != ATT_OK && series) {
        end(series); /* a hash that missed a part must not be signed */
    }
    pthread_mutex_unlock(&keyd->lock);
    return rc == ATT_OK ? proc_reply_encode(op, NULL, ret_payload, err) : rc;
}

KEYD_OPERATION(sign_end)
{
    struct keyd_series taken = {0};
    pthread_mutex_lock(&keyd->lock);
    struct keyd_series *series = find(keyd, request->v[PROC_SIGN_END_REQ_HANDLE].num);
    if (series) {
        taken = *series;
        *series = (struct keyd_series){0};
    }
    pthread_mutex_unlock(&keyd->lock);
    enum att_rc rc = ATT_OK;
    if (!taken.ctx) {
        rc = att_fail(err, ATT_E_NOTFOUND, "no such signature in parts, or idle for too long");
    } else if (taken.len != request->v[PROC_SIGN_END_REQ_LENGTH].num) {
        rc = att_fail(err, ATT_E_CONFLICT, "%llu bytes came, not as many as meant",
                      (unsigned long long)taken.len);
    } else {
        rc = finish(keyd, op, taken.ctx, ret_payload, err);
    }
    end(&taken);
    return rc;
}
