/* The second signature of a checkpoint, by an issuer's TPM: C2SP signed-note, type 0x02 (ECDSA on
 * P-256 with SHA-256, the key id of the SubjectPublicKeyInfo alone). */
#include "attestd/ctl/tlog.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <string.h>

#define ECDSA    2
#define KEY_LINE 1024
#define DASH     "\xe2\x80\x94 "
#define COUNTER  "\ntpm-counter "

/* ---- keys
 * ---------------------------------------------------------------------------------------- */

static EVP_PKEY *public_key(const uint8_t spki[TLOG_SPKI])
{
    char curve[32] = "";
    const unsigned char *at = spki;
    EVP_PKEY *key = d2i_PUBKEY(NULL, &at, TLOG_SPKI);
    bool ok = key && at == spki + TLOG_SPKI && EVP_PKEY_is_a(key, "EC") &&
              EVP_PKEY_get_group_name(key, curve, sizeof curve, NULL) == 1 &&
              strcmp(curve, "prime256v1") == 0;
    if (!ok) {
        EVP_PKEY_free(key);
        return NULL;
    }
    return key;
}

/* NAME+ID+BASE64 */
static bool read_key(const char *line, struct tlog_tpm_key *key)
{
    uint8_t hash[32];
    unsigned hash_len = 0;
    char id[9];
    att_autobuf raw = ATT_BUF_INIT(256);
    size_t name = strcspn(line, "+ \t");
    if (name == 0 || name > TLOG_NAME_MAX || line[name] != '+' || strlen(line) < name + 11 ||
        line[name + 9] != '+' || att_unb64(&raw, att_slice_str(line + name + 10), NULL) ||
        raw.len != 1 + TLOG_SPKI || raw.ptr[0] != ECDSA) {
        return false;
    }
    snprintf(key->name, sizeof key->name, "%.*s", (int)name, line);
    snprintf(id, sizeof id, "%.8s", line + name + 1);
    memcpy(key->spki, raw.ptr + 1, TLOG_SPKI);
    EVP_PKEY *pkey = public_key(key->spki);
    EVP_PKEY_free(pkey);
    return pkey && att_unhex_exact(key->id, 4, id, NULL) == ATT_OK &&
           EVP_Digest(key->spki, TLOG_SPKI, hash, &hash_len, EVP_sha256(), NULL) == 1 &&
           memcmp(hash, key->id, 4) == 0;
}

enum att_rc tlog_tpm_keys_parse(struct att_slice text, struct tlog_tpm_keys *ret_keys,
                                struct att_err *err)
{
    struct tlog_tpm_keys keys = {.n = 0};
    size_t at = 0;
    bool ok = true;
    while (ok && at < text.len) {
        char line[KEY_LINE];
        const uint8_t *end = memchr(text.ptr + at, '\n', text.len - at);
        size_t len = end ? (size_t)(end - text.ptr) - at : text.len - at;
        ok = len < sizeof line && !memchr(text.ptr + at, 0, len);
        if (ok && len) {
            memcpy(line, text.ptr + at, len);
            line[len] = 0;
            ok = keys.n < TLOG_TPM_KEYS_MAX && read_key(line, &keys.key[keys.n]);
            keys.n++;
        }
        at += len + 1;
    }
    if (!ok || keys.n == 0) {
        return tlog_refuse(err, ATT_E_PARSE, "logTpmKey",
                           "expected verifier keys of TPMs, NAME+ID+BASE64 (P-256), a line each, 1 "
                           "to %d",
                           TLOG_TPM_KEYS_MAX);
    }
    *ret_keys = keys;
    return ATT_OK;
}

enum att_rc tlog_tpm_keys_get(const char *word, struct tlog_tpm_keys *ret_keys, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(TLOG_NOTE_MAX);
    struct att_err why = {0};
    if (tlog_tpm_keys_parse(att_slice_str(word), ret_keys, &why) == ATT_OK) {
        return ATT_OK;
    }
    enum att_rc rc = att_io_read_file(word, TLOG_NOTE_MAX, &text, err);
    if (rc == ATT_E_NOTFOUND && strchr(word, '+')) { /* a key, then, and not a good one */
        rc = why.rc;
        if (err) {
            *err = why;
        }
    }
    rc = rc ? rc : tlog_tpm_keys_parse(att_buf_slice(&text), ret_keys, err);
    if (rc) {
        att_err_prefix(err, "--tpm-key %s", word);
    }
    return rc;
}

/* ---- the signature
 * --------------------------------------------------------------------------------- */

static bool holds(const struct tlog_tpm_key *key, struct att_slice text, struct att_slice sig)
{
    EVP_PKEY *pkey = public_key(key->spki);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = pkey && md && EVP_DigestVerifyInit(md, NULL, EVP_sha256(), NULL, pkey) == 1 &&
              EVP_DigestVerify(md, sig.ptr, sig.len, text.ptr, text.len) == 1;
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(pkey);
    return ok;
}

/* Whose line it is: an index of keys; -1: nobody's whom we know. */
static int whose(const char *line, const struct tlog_tpm_keys *keys, struct att_buf *ret_raw)
{
    const char *space =
        strncmp(line, DASH, sizeof DASH - 1) == 0 ? strchr(line + sizeof DASH - 1, ' ') : NULL;
    att_buf_reset(ret_raw);
    if (!space || att_unb64(ret_raw, att_slice_str(space + 1), NULL) || ret_raw->len < 5) {
        return -1;
    }
    line += sizeof DASH - 1;
    for (size_t i = 0; i < keys->n; i++) {
        const struct tlog_tpm_key *key = &keys->key[i];
        if (strlen(key->name) == (size_t)(space - line) &&
            memcmp(key->name, line, (size_t)(space - line)) == 0 &&
            memcmp(key->id, ret_raw->ptr, 4) == 0) {
            return (int)i;
        }
    }
    return -1;
}

/* The text says where the counter stood: its fourth line, where it is that; else 0. */
static uint64_t counter_of(const char *text)
{
    const char *at = text;
    uint64_t value = 0;
    for (int i = 0; at && i < 3; i++) {
        at = strchr(at + (i > 0), '\n');
    }
    if (!at || strncmp(at, COUNTER, sizeof COUNTER - 1) != 0) {
        return 0;
    }
    at += sizeof COUNTER - 1;
    size_t len = strspn(at, "0123456789");
    for (size_t i = 0; len <= 19 && i < len; i++) {
        value = 10 * value + (uint64_t)(at[i] - '0');
    }
    return len <= 19 && at[len] == '\n' ? value : 0;
}

enum att_rc tlog_tpm_check(struct att_slice note, const struct tlog_tpm_keys *keys,
                           struct tlog_tpm_seen *ret_seen, struct att_err *err)
{
    att_autobuf copy = ATT_BUF_INIT(TLOG_NOTE_MAX + 1), raw = ATT_BUF_INIT(TLOG_NOTE_MAX);
    struct tlog_tpm_seen seen = {.which = -1};
    char *stop = NULL, *save = NULL;
    att_buf_put_slice(&copy, note);
    char *all = att_buf_cstr(&copy) ? (char *)copy.ptr : NULL;
    for (char *at = all ? strstr(all, "\n\n") : NULL; at; at = strstr(at + 1, "\n\n")) {
        stop = at;
    }
    if (!stop || strlen(all) != note.len) {
        return tlog_refuse(err, ATT_E_PARSE, "logNote",
                           "expected a signed checkpoint: text, an empty line, signatures");
    }
    struct att_slice text = ATT_SLICE(note.ptr, (size_t)(stop - all) + 1);
    for (char *line = strtok_r(stop + 2, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        int i = whose(line, keys, &raw);
        if (i >= 0 && !holds(&keys->key[i], text, ATT_SLICE(raw.ptr + 4, raw.len - 4))) {
            return tlog_refuse(err, ATT_E_AUTH, "logTpmSignature",
                               "the checkpoint's signature by the TPM does not hold");
        }
        seen.which = i >= 0 ? i : seen.which;
    }
    if (seen.which < 0) {
        return tlog_refuse(err, ATT_E_AUTH, "logTpmMissing",
                           "the checkpoint is not signed by the TPM of --tpm-key");
    }
    stop[1] = 0;
    seen.counter = counter_of(all);
    *ret_seen = seen;
    return ATT_OK;
}
