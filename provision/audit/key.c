#include "provision/audit/key.h"

#include "attestd/base/io.h"
#include "attestd/base/secret.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define PATH_ROOM 4096
#define PEM_MAX   4096

void audit_key_done(struct audit_key *key)
{
    EVP_PKEY_free(key->key);
    *key = (struct audit_key){0};
}

static enum att_rc path_of(char ret[PATH_ROOM], const char *state_dir, const char *name,
                           const char *ending, struct att_err *err)
{
    int n = snprintf(ret, PATH_ROOM, "%s/ca/%s.%s", state_dir, name, ending);
    return n > 0 && n < PATH_ROOM ? ATT_OK
                                  : att_fail(err, ATT_E_LIMIT, "%s: too long a path", state_dir);
}

static enum att_rc read_key(const char *path, EVP_PKEY **ret_key, struct att_err *err)
{
    struct stat st;
    struct att_buf pem = ATT_BUF_INIT(PEM_MAX);
    if (stat(path, &st) != 0) {
        return att_fail_errno(err, errno == ENOENT ? ATT_E_NOTFOUND : ATT_E_IO, "%s", path);
    }
    if (st.st_mode & (S_IRWXG | S_IRWXO)) {
        return att_fail(err, ATT_E_DENIED, "%s: mode %04o lets others at the key, expected 0600",
                        path, (unsigned)(st.st_mode & 07777));
    }
    enum att_rc rc = att_io_read_file(path, PEM_MAX, &pem, err);
    BIO *bio = rc ? NULL : BIO_new_mem_buf(pem.ptr, (int)pem.len);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    att_wipe(pem.ptr, pem.len);
    att_buf_done(&pem);
    if (!rc && (!key || !EVP_PKEY_is_a(key, "ED25519"))) {
        rc = att_fail_openssl(err, ATT_E_PARSE, "%s: expected one Ed25519 private key", path);
    }
    if (rc) {
        EVP_PKEY_free(key);
        return rc;
    }
    *ret_key = key;
    return ATT_OK;
}

static enum att_rc read_vkey(const char *path, struct audit_vkey *ret_vkey, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(AUDIT_VKEY_MAX);
    enum att_rc rc = att_io_read_file(path, AUDIT_VKEY_MAX, &text, err);
    if (!rc) {
        rc = audit_vkey_parse(att_buf_slice(&text), ret_vkey, err);
        if (rc) {
            att_err_prefix(err, "%s", path);
        }
    }
    return rc;
}

enum att_rc audit_key_load(const char *state_dir, const char *name, struct audit_key *ret_key,
                           struct att_err *err)
{
    char path[PATH_ROOM];
    uint8_t raw[AUDIT_ED25519_LEN];
    size_t len = sizeof raw;
    struct audit_key key = {0};
    enum att_rc rc = path_of(path, state_dir, name, "key", err);
    if (!rc) {
        rc = read_key(path, &key.key, err);
    }
    if (!rc) {
        rc = path_of(path, state_dir, name, "vkey", err);
    }
    if (!rc) {
        rc = read_vkey(path, &key.vkey, err);
        rc = rc == ATT_E_NOTFOUND ? ATT_E_CONFLICT : rc;
    }
    if (!rc && (EVP_PKEY_get_raw_public_key(key.key, raw, &len) != 1 ||
                memcmp(raw, key.vkey.key, sizeof raw) != 0)) {
        rc = att_fail(err, ATT_E_CONFLICT, "%s: is not the verifier of %s.key beside it", path,
                      name);
    }
    if (rc) {
        audit_key_done(&key);
        return rc;
    }
    *ret_key = key;
    return ATT_OK;
}

static enum att_rc save_key(const char *path, EVP_PKEY *key, struct att_err *err)
{
    BIO *bio = BIO_new(BIO_s_secmem());
    if (!bio || PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1) {
        BIO_free(bio);
        return att_fail_openssl(err, ATT_E_CRYPTO, "%s: write private key", path);
    }
    char *pem = NULL;
    long len = BIO_get_mem_data(bio, &pem);
    enum att_rc rc = att_io_write_file(path, ATT_SLICE(pem, (size_t)len), 0600, err);
    BIO_free(bio);
    return rc;
}

enum att_rc audit_key_new(const char *origin, struct audit_key *ret_key, struct att_err *err)
{
    uint8_t raw[AUDIT_ED25519_LEN];
    size_t len = sizeof raw;
    struct audit_key key = {.key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")};
    enum att_rc rc = key.key && EVP_PKEY_get_raw_public_key(key.key, raw, &len) == 1
                         ? ATT_OK
                         : att_fail_openssl(err, ATT_E_CRYPTO, "audit log: make a key");
    if (!rc) {
        rc = audit_vkey_make(origin, raw, &key.vkey, err);
    }
    if (rc) {
        audit_key_done(&key);
        return rc;
    }
    *ret_key = key;
    return ATT_OK;
}

enum att_rc audit_key_save(const char *state_dir, const struct audit_key *key, struct att_err *err)
{
    char path[PATH_ROOM], text[AUDIT_VKEY_MAX + 1];
    enum att_rc rc = path_of(path, state_dir, "log", "vkey", err);
    if (!rc) {
        audit_vkey_text(&key->vkey, text);
        strcat(text, "\n");
        rc = att_io_write_file(path, att_slice_str(text), 0644, err);
    }
    if (!rc) {
        rc = path_of(path, state_dir, "log", "key", err);
    }
    return rc ? rc : save_key(path, key->key, err);
}
