#include "provision/issuer/signer.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "attestd/proc/caller.h"
#include "attestd/proc/hsm_proto.h"
#include "attestd/proc/peer.h"
#include "certs/chain.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/issuer/ca_files.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIGN_TIMEOUT_MS 8000  /* a request waits for it */
#define MAKE_TIMEOUT_MS 60000 /* some HSMs take their time for a key */
#define LOOK_TIMEOUT_MS 2000
/* After a time-out nobody waits for the HSM again for so long: a revocation list is signed while
 * the writer's turn is held. */
#define PAUSE_MS    5000
#define KEYFILE_MAX 1024
#define PATH_ROOM   ISSUER_CA_PATH
#define NAME_ROOM   80
#define TRIED       "attest-issuerd: is this key there?"
#define HSM_REF     "hsm:"
#define FILE_REF    "file:"
#define SUFFIX_KEY  ".key"
#define SUFFIX_HSM  ".hsm"

_Static_assert(ISSUER_CKA_ID_LEN == PROC_HSM_KEY_ID_LEN, "CKA_ID");

struct issuer_hsm {
    atomic_int refs;
    struct proc_caller *signer, *maker, *looker;
    atomic_llong not_before_ms; /* by the boot clock: until then signatures fail at once */
};

/* ---- the way there --------------------------------------------------------------------------- */

static enum att_rc new_callers(struct issuer_hsm *hsm, const char *socket, uid_t user,
                               struct att_err *err)
{
    const struct {
        struct proc_caller **ret;
        int64_t timeout_ms;
    } all[] = {{&hsm->signer, SIGN_TIMEOUT_MS},
               {&hsm->maker, MAKE_TIMEOUT_MS},
               {&hsm->looker, LOOK_TIMEOUT_MS}};
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < sizeof all / sizeof all[0]; i++) {
        rc = proc_caller_new(socket, "hsmd", user, proc_hsm_table, all[i].timeout_ms, all[i].ret,
                             err);
    }
    return rc;
}

static enum att_rc server_user(const struct conf_issuer *conf, uid_t *ret_user, struct att_err *err)
{
    struct proc_users users = {{0}, 0};
    *ret_user = geteuid();
    if (!conf->ca || !conf->ca->hsm_user) {
        return ATT_OK;
    }
    enum att_rc rc = proc_users_add(&users, conf->ca->hsm_user, err);
    if (rc) {
        att_err_prefix(err, "ca.hsm_user");
        return rc;
    }
    *ret_user = users.uids[0];
    return ATT_OK;
}

enum att_rc issuer_hsm_new(const struct conf_issuer *conf, struct issuer_hsm **ret_hsm,
                           struct att_err *err)
{
    char socket[1100];
    uid_t user = 0;
    *ret_hsm = NULL;
    if (!conf->hsm) {
        return ATT_OK;
    }
    enum att_rc rc = server_user(conf, &user, err);
    struct issuer_hsm *hsm = rc ? NULL : calloc(1, sizeof *hsm);
    if (!rc && !hsm) {
        rc = att_fail(err, ATT_E_NOMEM, "hsm: no memory");
    }
    if (rc) {
        return rc;
    }
    atomic_init(&hsm->refs, 1);
    if (conf->ca && conf->ca->hsm_dir) {
        snprintf(socket, sizeof socket, "%.1000s/hsm.sock", conf->ca->hsm_dir);
    } else {
        snprintf(socket, sizeof socket, "%.1000s/hsm/hsm.sock", conf->run_dir);
    }
    rc = new_callers(hsm, socket, user, err);
    if (rc) {
        issuer_hsm_put(hsm);
        return rc;
    }
    *ret_hsm = hsm;
    return ATT_OK;
}

void issuer_hsm_put(struct issuer_hsm *hsm)
{
    if (hsm && atomic_fetch_sub(&hsm->refs, 1) == 1) {
        proc_caller_free(hsm->signer);
        proc_caller_free(hsm->maker);
        proc_caller_free(hsm->looker);
        free(hsm);
    }
}

json_t *issuer_hsm_json(struct issuer_hsm *hsm)
{
    proc_autoanswer answer = {0};
    struct att_err err = {0};
    json_t *json = NULL;
    if (!hsm) {
        return json_pack("{s:b}", "configured", 0);
    }
    enum att_rc rc = proc_call(hsm->looker, PROC_HSM_INFO, NULL, -1, &answer, &err);
    if (!rc) {
        rc = att_json_parse(answer.msg.v[PROC_HSM_INFO_REP_JSON].bytes, PROC_HSM_INFO_MAX, &json,
                            &err);
    }
    if (rc) {
        return json_pack("{s:b, s:s, s:s}", "configured", 1, "state", "hsmdAway", "reason",
                         err.msg);
    }
    json_object_set_new(json, "configured", json_true());
    return json;
}

/* ---- a key that is there --------------------------------------------------------------------- */

struct remote {
    struct issuer_hsm *hsm;
    EVP_PKEY *pub;
    uint8_t id[ISSUER_CKA_ID_LEN];
};

static void release(void *user)
{
    struct remote *remote = user;
    issuer_hsm_put(remote->hsm);
    EVP_PKEY_free(remote->pub);
    free(remote);
}

/* Whatever is wrong there, a signature may come later, and a client has done nothing wrong. */
static enum att_rc away(struct issuer_hsm *hsm, enum att_rc rc, struct att_err *err)
{
    if (rc == ATT_E_TIMEOUT) {
        atomic_store(&hsm->not_before_ms, att_boottime_ms() + PAUSE_MS);
    }
    if (!err->reason[0]) {
        att_err_reason(err, rc == ATT_E_UNREACHABLE || rc == ATT_E_GONE ? "hsmAway" : "hsmFailed");
    }
    att_err_prefix(err, "the HSM");
    err->rc = ATT_E_RETRY;
    return ATT_E_RETRY;
}

static enum att_rc hold_up(const struct issuer_hsm *hsm, struct att_err *err)
{
    if (att_boottime_ms() >= atomic_load(&hsm->not_before_ms)) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_RETRY, "the HSM did not answer within %d s; it is asked again soon",
                    SIGN_TIMEOUT_MS / 1000);
    att_err_reason(err, "hsmBusy");
    return ATT_E_RETRY;
}

/* A signature that the certificate's key does not verify never leaves this process. */
static enum att_rc check_signature(EVP_PKEY *pub, struct att_slice digest, struct att_slice der,
                                   struct att_err *err)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pub, NULL);
    bool ok = ctx && EVP_PKEY_verify_init(ctx) == 1 &&
              EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()) == 1 &&
              EVP_PKEY_verify(ctx, der.ptr, der.len, digest.ptr, digest.len) == 1;
    EVP_PKEY_CTX_free(ctx);
    if (ok) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_RETRY,
                    "what the HSM answered is no signature by the key of the certificate");
    att_err_reason(err, "hsmSignature");
    return ATT_E_RETRY;
}

static enum att_rc sign(void *user, struct att_slice digest, struct att_buf *ret_der,
                        struct att_err *err)
{
    struct remote *remote = user;
    proc_autoanswer answer = {0};
    struct att_err why = {0};
    const struct proc_value values[] = {[PROC_HSM_SIGN_REQ_KEY_ID] =
                                            proc_bytes(ATT_SLICE_ARRAY(remote->id)),
                                        [PROC_HSM_SIGN_REQ_DIGEST] = proc_bytes(digest)};
    enum att_rc rc = hold_up(remote->hsm, err);
    if (rc) {
        return rc;
    }
    rc = proc_call(remote->hsm->signer, PROC_HSM_SIGN, values, -1, &answer, &why);
    if (rc) {
        rc = away(remote->hsm, rc, &why);
        if (err) {
            *err = why;
        }
        return rc;
    }
    struct att_slice raw = answer.msg.v[PROC_HSM_SIGN_REP_SIGNATURE].bytes;
    size_t before = ret_der->len;
    if (raw.len == (size_t)2 * CERTS_P256_LEN) {
        rc = certs_sig_der(ATT_SLICE(raw.ptr, CERTS_P256_LEN),
                           ATT_SLICE(raw.ptr + CERTS_P256_LEN, CERTS_P256_LEN), ret_der, err);
    }
    return rc ? rc
              : check_signature(remote->pub, digest,
                                ATT_SLICE(ret_der->ptr + before, ret_der->len - before), err);
}

static enum att_rc remote_key(struct issuer_hsm *hsm, const uint8_t id[ISSUER_CKA_ID_LEN],
                              const EVP_PKEY *pub, EVP_PKEY **ret_key, struct att_err *err)
{
    att_autobuf spki = {0};
    struct remote *remote = calloc(1, sizeof *remote);
    if (!remote) {
        return att_fail(err, ATT_E_NOMEM, "hsm: no memory");
    }
    memcpy(remote->id, id, sizeof remote->id);
    atomic_fetch_add(&hsm->refs, 1);
    remote->hsm = hsm;
    enum att_rc rc = certs_key_spki(pub, &spki, err);
    if (!rc) {
        rc = certs_key_from_spki(att_buf_slice(&spki), &remote->pub, err);
    }
    const struct certs_signer signer = {.sign = sign, .release = release, .user = remote};
    if (!rc) {
        rc = certs_key_remote_new(remote->pub, &signer, ret_key, err);
    }
    if (rc) {
        release(remote);
    }
    return rc;
}

static enum att_rc refuse_store(const char *what, struct att_err *err)
{
    enum att_rc rc =
        att_fail(err, ATT_E_INVAL,
                 "%s: the key is in an HSM, and the configuration has no section hsm", what);
    att_err_reason(err, "caKeyStore");
    return rc;
}

/* ---- by reference ---------------------------------------------------------------------------- */

enum att_rc issuer_key_open(struct issuer_hsm *hsm, const char *state_dir, const char *ref,
                            const X509 *cert, EVP_PKEY **ret_key, struct att_err *err)
{
    uint8_t id[ISSUER_CKA_ID_LEN];
    certs_autokey *key = NULL;
    enum att_rc rc = ATT_OK;
    if (strncmp(ref, FILE_REF, sizeof FILE_REF - 1) == 0) {
        rc = issuer_key_load(hsm, state_dir, ref + sizeof FILE_REF - 1, cert, &key, err);
    } else if (strncmp(ref, HSM_REF, sizeof HSM_REF - 1) == 0) {
        rc = hsm ? att_unhex_exact(id, sizeof id, ref + sizeof HSM_REF - 1, err)
                 : refuse_store(ref, err);
        if (!rc) {
            rc = remote_key(hsm, id, X509_get0_pubkey(cert), &key, err);
        }
    } else {
        rc = att_fail(err, ATT_E_PARSE, "\"%.40s\": expected file:NAME or hsm:CKA_ID", ref);
    }
    if (!rc) {
        *ret_key = key;
        key = NULL;
    }
    return rc;
}

/* ---- NAME.hsm -------------------------------------------------------------------------------- */

enum att_rc issuer_keyfile_parse(struct att_slice text, uint8_t ret_id[ISSUER_CKA_ID_LEN],
                                 struct att_err *err)
{
    att_autojson *json = NULL;
    const char *hex = NULL;
    enum att_rc rc = att_json_parse(text, KEYFILE_MAX, &json, err);
    if (!rc && (!json_is_object(json) || json_object_size(json) != 2 ||
                json_integer_value(json_object_get(json, "version")) != 1)) {
        rc = att_fail(err, ATT_E_PARSE, "expected {\"version\": 1, \"ckaId\": …}");
    }
    if (!rc) {
        rc = att_json_str(json, "ckaId", &hex, err);
    }
    return rc ? rc : att_unhex_exact(ret_id, ISSUER_CKA_ID_LEN, hex, err);
}

enum att_rc issuer_key_note(const char *state_dir, const char *name, const char *ref,
                            struct att_err *err)
{
    char path[PATH_ROOM], file[NAME_ROOM + 8];
    att_autobuf text = {0};
    if (strncmp(ref, HSM_REF, sizeof HSM_REF - 1) != 0) {
        return ATT_OK;
    }
    att_autojson *json = json_pack("{s:i, s:s}", "version", 1, "ckaId", ref + sizeof HSM_REF - 1);
    snprintf(file, sizeof file, "%.79s" SUFFIX_HSM, name);
    issuer_ca_path(path, state_dir, file);
    enum att_rc rc = json ? att_json_dump(json, false, &text, err)
                          : att_fail(err, ATT_E_NOMEM, "%s: no memory", file);
    return rc ? rc : att_io_write_file(path, att_buf_slice(&text), 0600, err);
}

enum att_rc issuer_key_load(struct issuer_hsm *hsm, const char *state_dir, const char *name,
                            const X509 *cert, EVP_PKEY **ret_key, struct att_err *err)
{
    char in_file[PATH_ROOM], in_hsm[PATH_ROOM], file[NAME_ROOM + 8];
    char ref[ISSUER_KEYREF_MAX] = HSM_REF;
    uint8_t id[ISSUER_CKA_ID_LEN];
    att_autobuf text = {0};
    snprintf(file, sizeof file, "%.79s" SUFFIX_KEY, name);
    issuer_ca_path(in_file, state_dir, file);
    snprintf(file, sizeof file, "%.79s" SUFFIX_HSM, name);
    issuer_ca_path(in_hsm, state_dir, file);
    if (access(in_hsm, F_OK) != 0) {
        certs_autokey *key = NULL;
        enum att_rc rc = certs_key_load(in_file, &key, err);
        if (!rc) {
            rc = certs_cert_matches_key(cert, key, err);
        }
        if (!rc) {
            *ret_key = key;
            key = NULL;
        }
        return rc;
    }
    if (access(in_file, F_OK) == 0) {
        enum att_rc rc = att_fail(
            err, ATT_E_CONFLICT, "%s: there is %s.hsm, too: which one is the key? Remove the other",
            in_file, name);
        att_err_reason(err, "caKeyTwice");
        return rc;
    }
    enum att_rc rc = att_io_read_file(in_hsm, KEYFILE_MAX, &text, err);
    if (!rc) {
        rc = issuer_keyfile_parse(att_buf_slice(&text), id, err);
        if (rc) {
            att_err_prefix(err, "%s", in_hsm);
        }
    }
    if (!rc) {
        att_hex(ref + sizeof HSM_REF - 1, ATT_SLICE_ARRAY(id));
        rc = issuer_key_open(hsm, state_dir, ref, cert, ret_key, err);
    }
    return rc;
}

/* ---- making ---------------------------------------------------------------------------------- */

static enum att_rc make_in_hsm(struct issuer_hsm *hsm, char ret_ref[ISSUER_KEYREF_MAX],
                               EVP_PKEY **ret_key, struct att_err *err)
{
    uint8_t id[ISSUER_CKA_ID_LEN];
    proc_autoanswer answer = {0};
    certs_autokey *pub = NULL;
    enum att_rc rc = att_random(id, sizeof id, err);
    const struct proc_value values[] = {[PROC_HSM_CREATE_REQ_KEY_ID] =
                                            proc_bytes(ATT_SLICE_ARRAY(id)),
                                        [PROC_HSM_CREATE_REQ_TYPE] = proc_text("ec-p256")};
    if (!rc) {
        rc = proc_call(hsm->maker, PROC_HSM_CREATE, values, -1, &answer, err);
        if (rc) {
            att_err_prefix(err, "making a key in the HSM");
        }
    }
    if (!rc) {
        rc = certs_key_from_spki(answer.msg.v[PROC_HSM_KEY_REP_SPKI].bytes, &pub, err);
    }
    if (!rc) {
        rc = remote_key(hsm, id, pub, ret_key, err);
    }
    if (!rc) {
        memcpy(ret_ref, HSM_REF, sizeof HSM_REF);
        att_hex(ret_ref + sizeof HSM_REF - 1, ATT_SLICE_ARRAY(id));
    }
    return rc;
}

enum att_rc issuer_key_make(struct issuer_hsm *hsm, bool in_hsm, const char *state_dir,
                            const char *name, char ret_ref[ISSUER_KEYREF_MAX], EVP_PKEY **ret_key,
                            struct att_err *err)
{
    char path[PATH_ROOM], file[NAME_ROOM + 8];
    certs_autokey *key = NULL;
    if (in_hsm) {
        return hsm ? make_in_hsm(hsm, ret_ref, ret_key, err) : refuse_store(name, err);
    }
    snprintf(file, sizeof file, "%.79s" SUFFIX_KEY, name);
    issuer_ca_path(path, state_dir, file);
    enum att_rc rc = certs_key_generate(&key, err);
    if (!rc) {
        rc = certs_key_save(key, path, err);
    }
    if (!rc) {
        snprintf(ret_ref, ISSUER_KEYREF_MAX, FILE_REF "%.79s", name);
        *ret_key = key;
        key = NULL;
    }
    return rc;
}

enum att_rc issuer_key_try(EVP_PKEY *key, struct att_err *err)
{
    att_autobuf der = {0}, spki = {0};
    certs_autokey *pub = NULL; /* a key held elsewhere only signs */
    enum att_rc rc = certs_sign(key, att_slice_str(TRIED), &der, err);
    if (!rc) {
        rc = certs_key_spki(key, &spki, err);
    }
    if (!rc) {
        rc = certs_key_from_spki(att_buf_slice(&spki), &pub, err);
    }
    return rc ? rc : certs_sig_verify(pub, att_slice_str(TRIED), att_buf_slice(&der), err);
}
