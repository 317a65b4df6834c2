#include "provision/audit/note.h"

#include "attestd/base/enc.h"
#include "attestd/base/text.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#define ALG_ED25519 1
#define DASH        "\xe2\x80\x94 " /* U+2014 and a space */
#define SIG_LEN     64
#define COUNTER     "tpm-counter "

static enum att_rc bad(struct att_err *err, const char *reason, const char *what)
{
    enum att_rc rc = att_fail(err, ATT_E_PARSE, "audit log: %s", what);
    att_err_reason(err, reason);
    return rc;
}

/* ---- verifiers' keys
 * ---------------------------------------------------------------------------- */

bool audit_name_ok(struct att_slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] <= ' ' || name.ptr[i] > '~' || name.ptr[i] == '+') {
            return false;
        }
    }
    return name.len > 0 && name.len <= AUDIT_NAME_MAX;
}

static uint32_t key_id(const char *name, const uint8_t key[AUDIT_ED25519_LEN])
{
    uint8_t hash[ATT_SHA256_LEN];
    const struct att_slice parts[] = {att_slice_str(name), ATT_SLICE_LIT("\n\1"),
                                      ATT_SLICE(key, AUDIT_ED25519_LEN)};
    att_sha256_v(hash, parts, 3);
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(hash));
    return att_cur_be32(&cur);
}

enum att_rc audit_vkey_make(const char *name, const uint8_t key[AUDIT_ED25519_LEN],
                            struct audit_vkey *ret_vkey, struct att_err *err)
{
    if (!audit_name_ok(att_slice_str(name))) {
        return att_fail(err, ATT_E_INVAL,
                        "audit log: \"%.80s\" is no name of a log: expected 1 to %d printable "
                        "characters without spaces and \"+\"",
                        name, AUDIT_NAME_MAX);
    }
    struct audit_vkey vkey = {.id = key_id(name, key)};
    snprintf(vkey.name, sizeof vkey.name, "%s", name);
    memcpy(vkey.key, key, sizeof vkey.key);
    *ret_vkey = vkey;
    return ATT_OK;
}

void audit_vkey_text(const struct audit_vkey *vkey, char ret[AUDIT_VKEY_MAX])
{
    att_autobuf base64 = {0};
    uint8_t key[1 + AUDIT_ED25519_LEN] = {ALG_ED25519};
    memcpy(key + 1, vkey->key, AUDIT_ED25519_LEN);
    att_buf_b64(&base64, ATT_SLICE_ARRAY(key));
    const char *text = att_buf_cstr(&base64);
    snprintf(ret, AUDIT_VKEY_MAX, "%s+%08x+%s", vkey->name, (unsigned)vkey->id, text ? text : "");
}

static bool read_vkey(struct att_slice text, struct audit_vkey *vkey)
{
    att_autobuf key = ATT_BUF_INIT(256), id = ATT_BUF_INIT(16);
    const uint8_t *plus = text.len ? memchr(text.ptr, '+', text.len) : NULL;
    size_t name = plus ? (size_t)(plus - text.ptr) : 0;
    if (!name || text.len < name + 11 || text.ptr[name + 9] != '+' ||
        !audit_name_ok(ATT_SLICE(text.ptr, name)) || att_unhex(&id, ATT_SLICE(plus + 1, 8), NULL) ||
        att_unb64(&key, ATT_SLICE(plus + 10, text.len - name - 10), NULL) ||
        key.len != 1 + AUDIT_ED25519_LEN || key.ptr[0] != ALG_ED25519) {
        return false;
    }
    struct att_cur cur = att_cur_init(att_buf_slice(&id));
    uint32_t said = att_cur_be32(&cur);
    memcpy(vkey->name, text.ptr, name);
    vkey->name[name] = 0;
    return audit_vkey_make(vkey->name, key.ptr + 1, vkey, NULL) == ATT_OK && vkey->id == said;
}

enum att_rc audit_vkey_parse(struct att_slice text, struct audit_vkey *ret_vkey,
                             struct att_err *err)
{
    struct audit_vkey vkey;
    if (text.len && text.ptr[text.len - 1] == '\n') {
        text.len--;
    }
    if (text.len >= AUDIT_VKEY_MAX || !read_vkey(text, &vkey)) {
        return bad(err, "logKey", "expected a verifier key, NAME+KEYID+BASE64, of Ed25519");
    }
    *ret_vkey = vkey;
    return ATT_OK;
}

/* ---- notes
 * -------------------------------------------------------------------------------------- */

/* UTF-8 without control characters but newlines. */
static bool text_ok(struct att_slice bytes)
{
    char buf[8];
    for (size_t i = 0; i < bytes.len;) {
        bool ok = true;
        size_t n = 1;
        if (bytes.ptr[i] != '\n') {
            size_t left = bytes.len - i < 4 ? bytes.len - i : 4;
            memcpy(buf, bytes.ptr + i, left);
            buf[left] = 0;
            ok = buf[0] != 0;
            n = ok ? att_text_next(buf, &ok) : 1;
        }
        if (!ok) {
            return false;
        }
        i += n;
    }
    return true;
}

/* "— NAME BASE64" without its newline. */
static bool read_sig(struct att_slice line, struct audit_note_sig *sig)
{
    att_autobuf bytes = ATT_BUF_INIT(AUDIT_NOTE_MAX);
    if (line.len < sizeof DASH || memcmp(line.ptr, DASH, sizeof DASH - 1) != 0) {
        return false;
    }
    line = ATT_SLICE(line.ptr + sizeof DASH - 1, line.len - (sizeof DASH - 1));
    const uint8_t *space = memchr(line.ptr, ' ', line.len);
    if (!space) {
        return false;
    }
    sig->name = ATT_SLICE(line.ptr, (size_t)(space - line.ptr));
    sig->base64 = ATT_SLICE(space + 1, line.len - sig->name.len - 1);
    if (!audit_name_ok(sig->name) || att_unb64(&bytes, sig->base64, NULL) || bytes.len < 5) {
        return false;
    }
    struct att_cur cur = att_cur_init(att_buf_slice(&bytes));
    sig->id = att_cur_be32(&cur);
    return true;
}

enum att_rc audit_note_parse(struct att_slice bytes, struct audit_note *ret_note,
                             struct att_err *err)
{
    struct audit_note note = {0};
    size_t end = bytes.len; /* of the text: behind the last empty line stand the signatures */
    if (bytes.len > AUDIT_NOTE_MAX) {
        return att_fail(err, ATT_E_LIMIT, "audit log: a note of %zu bytes, expected at most %zu",
                        bytes.len, AUDIT_NOTE_MAX);
    }
    while (end >= 2 && memcmp(bytes.ptr + end - 2, "\n\n", 2) != 0) {
        end--;
    }
    if (end < 2 || bytes.ptr[bytes.len - 1] != '\n' || !text_ok(bytes)) {
        return bad(err, "logNote", "expected a signed note: text, an empty line, signatures");
    }
    note.text = ATT_SLICE(bytes.ptr, end - 1);
    while (end < bytes.len) {
        const uint8_t *at = bytes.ptr + end;
        const uint8_t *stop = memchr(at, '\n', bytes.len - end);
        size_t len = stop ? (size_t)(stop - at) : 0;
        if (note.n == AUDIT_NOTE_SIGS_MAX || !read_sig(ATT_SLICE(at, len), &note.sig[note.n])) {
            return bad(err, "logNote", "a note's signature line: expected \"— NAME BASE64\"");
        }
        note.n++;
        end += len + 1;
    }
    if (!note.n) {
        return bad(err, "logNote", "a note without a signature");
    }
    *ret_note = note;
    return ATT_OK;
}

static bool sig_holds(const struct audit_note *note, const struct audit_note_sig *sig,
                      const struct audit_vkey *vkey)
{
    att_autobuf bytes = ATT_BUF_INIT(AUDIT_NOTE_MAX);
    if (att_unb64(&bytes, sig->base64, NULL) || bytes.len != 4 + SIG_LEN) {
        return false;
    }
    EVP_PKEY *key =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, vkey->key, AUDIT_ED25519_LEN);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = key && md && EVP_DigestVerifyInit(md, NULL, NULL, NULL, key) == 1 &&
              EVP_DigestVerify(md, bytes.ptr + 4, SIG_LEN, note->text.ptr, note->text.len) == 1;
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(key);
    return ok;
}

enum att_rc audit_note_verify(const struct audit_note *note, const struct audit_vkey *vkey,
                              struct att_err *err)
{
    bool any = false, all = true;
    for (size_t i = 0; i < note->n; i++) {
        if (note->sig[i].id == vkey->id && att_slice_eq_str(note->sig[i].name, vkey->name)) {
            any = true;
            all = all && sig_holds(note, &note->sig[i], vkey);
        }
    }
    if (any && all) {
        return ATT_OK;
    }
    enum att_rc rc =
        att_fail(err, ATT_E_AUTH, "audit log: %s %s",
                 any ? "a signature does not hold, of the key" : "the checkpoint is not signed by",
                 vkey->name);
    att_err_reason(err, "logSignature");
    return rc;
}

void audit_note_line(const char *name, uint32_t id, struct att_slice sig, struct att_buf *note)
{
    att_autobuf bytes = {0};
    att_buf_be32(&bytes, id);
    att_buf_put_slice(&bytes, sig);
    att_buf_put_str(note, DASH);
    att_buf_put_str(note, name);
    att_buf_u8(note, ' ');
    att_buf_b64(note, att_buf_slice(&bytes));
    att_buf_u8(note, '\n');
    note->failed = note->failed || bytes.failed;
}

enum att_rc audit_note_sign(struct att_slice text, const struct audit_vkey *vkey, EVP_PKEY *key,
                            struct att_buf *note, struct att_err *err)
{
    uint8_t sig[SIG_LEN];
    size_t len = SIG_LEN;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md && EVP_DigestSignInit(md, NULL, NULL, NULL, key) == 1 &&
              EVP_DigestSign(md, sig, &len, text.ptr, text.len) == 1 && len == SIG_LEN;
    EVP_MD_CTX_free(md);
    if (!ok) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "audit log: sign a checkpoint");
    }
    audit_note_line(vkey->name, vkey->id, ATT_SLICE_ARRAY(sig), note);
    return att_buf_ok(note, err);
}

/* ---- checkpoints
 * -------------------------------------------------------------------------------- */

void audit_checkpoint_text(const struct audit_checkpoint *checkpoint, struct att_buf *ret_text)
{
    att_buf_printf(ret_text, "%s\n%llu\n", checkpoint->origin,
                   (unsigned long long)checkpoint->size);
    att_buf_b64(ret_text, ATT_SLICE_ARRAY(checkpoint->root.bytes));
    att_buf_u8(ret_text, '\n');
    if (checkpoint->counter) {
        att_buf_printf(ret_text, COUNTER "%llu\n", (unsigned long long)checkpoint->counter);
    }
}

static struct att_slice next_line(struct att_slice *rest)
{
    const uint8_t *stop = rest->len ? memchr(rest->ptr, '\n', rest->len) : NULL;
    size_t len = stop ? (size_t)(stop - rest->ptr) : 0;
    struct att_slice line = ATT_SLICE(rest->ptr, len);
    *rest = stop ? ATT_SLICE(stop + 1, rest->len - len - 1) : ATT_SLICE(NULL, 0);
    return line;
}

static bool read_size(struct att_slice line, uint64_t *ret_size)
{
    uint64_t size = 0;
    for (size_t i = 0; i < line.len; i++) {
        if (line.ptr[i] < '0' || line.ptr[i] > '9') {
            return false;
        }
        uint64_t digit = (uint64_t)(line.ptr[i] - '0');
        if (size > (AUDIT_SIZE_MAX - digit) / 10) {
            return false;
        }
        size = 10 * size + digit;
    }
    *ret_size = size;
    return line.len == 1 || (line.len > 0 && line.ptr[0] != '0');
}

/* The extension line of ours, where it is the first of them; others are passed over. */
static bool read_counter(struct att_slice line, uint64_t *ret_counter)
{
    const struct att_slice word = ATT_SLICE_LIT(COUNTER);
    if (line.len < word.len || memcmp(line.ptr, word.ptr, word.len) != 0) {
        return true;
    }
    return read_size(ATT_SLICE(line.ptr + word.len, line.len - word.len), ret_counter) &&
           *ret_counter > 0;
}

enum att_rc audit_checkpoint_parse(struct att_slice text, struct audit_checkpoint *ret_checkpoint,
                                   struct att_err *err)
{
    struct audit_checkpoint c = {0};
    att_autobuf root = ATT_BUF_INIT(64);
    struct att_slice rest = text, origin = next_line(&rest), size = next_line(&rest),
                     hash = next_line(&rest);
    if (!audit_name_ok(origin) || !read_size(size, &c.size) || att_unb64(&root, hash, NULL) ||
        root.len != AUDIT_HASH_LEN) {
        return bad(err, "logCheckpoint", "expected a checkpoint: origin, size, base64 of the root");
    }
    if (!read_counter(next_line(&rest), &c.counter)) {
        return bad(err, "logCheckpoint",
                   "a checkpoint's line \"tpm-counter\": expected a number from 1 on behind it");
    }
    memcpy(c.origin, origin.ptr, origin.len);
    memcpy(c.root.bytes, root.ptr, AUDIT_HASH_LEN);
    *ret_checkpoint = c;
    return ATT_OK;
}
