/* Signed notes and checkpoints, as C2SP signed-note and tlog-checkpoint describe them. */
#include "attestd/ctl/tlog.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/base/text.h"

#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ED25519   1
#define SIG_BYTES 68 /* id and signature */

enum att_rc tlog_refuse(struct att_err *err, enum att_rc rc, const char *reason, const char *fmt,
                        ...)
{
    char text[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    att_text_clean(text);
    (void)att_fail(err, rc, "%s", text);
    att_err_reason(err, reason);
    return rc;
}

static bool sha256(const void *a, size_t a_len, const void *b, size_t b_len, uint8_t ret[32])
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
              EVP_DigestUpdate(md, a, a_len) == 1 && EVP_DigestUpdate(md, b, b_len) == 1 &&
              EVP_DigestFinal_ex(md, ret, NULL) == 1;
    EVP_MD_CTX_free(md);
    return ok;
}

/* ---- keys
 * ---------------------------------------------------------------------------------------- */

static bool plain(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (name[i] < '!' || name[i] > '~' || name[i] == '+') {
            return false;
        }
    }
    return len > 0 && len <= TLOG_NAME_MAX;
}

static bool read_key(const char *text, struct tlog_key *key)
{
    uint8_t hash[32], tail[2 + 32] = {'\n', ED25519};
    att_autobuf raw = ATT_BUF_INIT(64);
    const char *first = strchr(text, '+'), *second = first ? strchr(first + 1, '+') : NULL;
    if (!second || second - first != 9 || !plain(text, (size_t)(first - text)) ||
        att_unb64(&raw, att_slice_str(second + 1), NULL) || raw.len != 33 ||
        raw.ptr[0] != ED25519) {
        return false;
    }
    char id[9];
    snprintf(id, sizeof id, "%.8s", first + 1);
    snprintf(key->name, sizeof key->name, "%.*s", (int)(first - text), text);
    memcpy(key->key, raw.ptr + 1, 32);
    memcpy(tail + 2, key->key, 32);
    return att_unhex_exact(key->id, 4, id, NULL) == ATT_OK &&
           sha256(key->name, strlen(key->name), tail, sizeof tail, hash) &&
           memcmp(hash, key->id, 4) == 0;
}

enum att_rc tlog_key_parse(struct att_slice text, struct tlog_key *ret_key, struct att_err *err)
{
    char line[TLOG_NAME_MAX + 80];
    struct tlog_key key;
    while (text.len && text.ptr[text.len - 1] == '\n') {
        text.len--;
    }
    bool fits = text.len > 0 && text.len < sizeof line && !memchr(text.ptr, 0, text.len);
    snprintf(line, sizeof line, "%.*s", fits ? (int)text.len : 0,
             fits ? (const char *)text.ptr : "");
    if (!fits || !read_key(line, &key)) {
        return tlog_refuse(err, ATT_E_PARSE, "logKey",
                           "expected the log's verifier key, NAME+ID+BASE64 (Ed25519)");
    }
    *ret_key = key;
    return ATT_OK;
}

enum att_rc tlog_key_get(const char *word, struct tlog_key *ret_key, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(4096);
    if (tlog_key_parse(att_slice_str(word), ret_key, NULL) == ATT_OK) {
        return ATT_OK;
    }
    enum att_rc rc = att_io_read_file(word, 4096, &text, err);
    rc = rc ? rc : tlog_key_parse(att_buf_slice(&text), ret_key, err);
    if (rc) {
        att_err_prefix(err, "--key %s", word);
    }
    return rc;
}

/* ---- notes
 * -------------------------------------------------------------------------------------- */

static bool signature_holds(const struct tlog_key *key, struct att_slice text,
                            const uint8_t sig[64])
{
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key->key, 32);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = pkey && md && EVP_DigestVerifyInit(md, NULL, NULL, NULL, pkey) == 1 &&
              EVP_DigestVerify(md, sig, 64, text.ptr, text.len) == 1;
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(pkey);
    return ok;
}

/* One line of signature: whose it is (0: another's, 1: this key's and holds, -1: does not). */
static int look_at_line(const char *line, const struct tlog_key *key, struct att_slice text)
{
    static const char dash[] = "\xe2\x80\x94 ";
    att_autobuf raw = ATT_BUF_INIT(TLOG_NOTE_MAX);
    size_t name = strlen(key->name);
    if (strncmp(line, dash, sizeof dash - 1) != 0) {
        return -1;
    }
    line += sizeof dash - 1;
    const char *space = strchr(line, ' ');
    if (!space || att_unb64(&raw, att_slice_str(space + 1), NULL) || raw.len < 5) {
        return -1;
    }
    if ((size_t)(space - line) != name || strncmp(line, key->name, name) != 0 ||
        memcmp(raw.ptr, key->id, 4) != 0) {
        return 0;
    }
    return raw.len == SIG_BYTES && signature_holds(key, text, raw.ptr + 4) ? 1 : -1;
}

static enum att_rc check_signatures(char *lines, const struct tlog_key *key, struct att_slice text,
                                    struct att_err *err)
{
    bool found = false;
    while (*lines) {
        char *end = strchr(lines, '\n');
        if (!end) {
            return tlog_refuse(err, ATT_E_PARSE, "logNote", "the checkpoint ends within a line");
        }
        *end = 0;
        int holds = look_at_line(lines, key, text);
        if (holds < 0) {
            return tlog_refuse(err, ATT_E_AUTH, "logSignature",
                               "a signature of the checkpoint does not hold, or is none");
        }
        found = found || holds;
        lines = end + 1;
    }
    return found ? ATT_OK
                 : tlog_refuse(err, ATT_E_AUTH, "logSignature",
                               "the checkpoint is not signed by the key of %s", key->name);
}

static bool read_number(const char *line, uint64_t *ret)
{
    uint64_t n = 0;
    size_t len = strspn(line, "0123456789");
    if (len == 0 || len > 18 || line[len] || (len > 1 && line[0] == '0')) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        n = 10 * n + (uint64_t)(line[i] - '0');
    }
    *ret = n;
    return true;
}

/* Also an empty one: a checkpoint has its three in the first three. */
static char *next_line(char **rest)
{
    char *line = *rest, *end = line ? strchr(line, '\n') : NULL;
    *rest = end ? end + 1 : NULL;
    if (end) {
        *end = 0;
    }
    return end ? line : NULL;
}

static bool read_head(char *text, struct tlog_head *head)
{
    att_autobuf root = ATT_BUF_INIT(64);
    char *origin = next_line(&text), *size = next_line(&text), *hash = next_line(&text);
    if (!hash || strlen(origin) > TLOG_NAME_MAX || !read_number(size, &head->size) ||
        att_unb64(&root, att_slice_str(hash), NULL) || root.len != TLOG_HASH) {
        return false;
    }
    snprintf(head->origin, sizeof head->origin, "%s", origin);
    memcpy(head->root, root.ptr, TLOG_HASH);
    return true;
}

enum att_rc tlog_head_open(struct att_slice note, const struct tlog_key *key,
                           struct tlog_head *ret_head, struct att_err *err)
{
    static char empty[1];
    att_autobuf copy = ATT_BUF_INIT(TLOG_NOTE_MAX + 1);
    struct tlog_head head = {0};
    if (note.len > TLOG_NOTE_MAX) {
        return tlog_refuse(err, ATT_E_LIMIT, "logNote", "a checkpoint of %zu bytes", note.len);
    }
    att_buf_put_slice(&copy, note);
    char *all = att_buf_cstr(&copy) ? (char *)copy.ptr : empty;
    char *stop = NULL;
    for (char *at = strstr(all, "\n\n"); at; at = strstr(at + 1, "\n\n")) {
        stop = at;
    }
    if (!stop || strlen(all) != note.len) {
        return tlog_refuse(err, ATT_E_PARSE, "logNote",
                           "expected a signed checkpoint: text, an empty line, signatures");
    }
    struct att_slice text = ATT_SLICE(note.ptr, (size_t)(stop - all) + 1);
    enum att_rc rc = check_signatures(stop + 2, key, text, err);
    stop[1] = 0;
    if (!rc && !read_head(all, &head)) {
        rc = tlog_refuse(err, ATT_E_PARSE, "logCheckpoint",
                         "expected a checkpoint's three lines: origin, size, root");
    }
    if (!rc && strcmp(head.origin, key->name) != 0) {
        rc = tlog_refuse(err, ATT_E_AUTH, "logOrigin", "the checkpoint is of the log %s, not %s",
                         head.origin, key->name);
    }
    if (!rc) {
        *ret_head = head;
    }
    return rc;
}

/* ---- the tree, by pairing from below (what stands alone at an end goes up as it is)
 * ------------- */

void tlog_leaf(struct att_slice entry, uint8_t ret[TLOG_HASH])
{
    if (!sha256("\0", 1, entry.ptr, entry.len, ret)) {
        memset(ret, 0, TLOG_HASH);
    }
}

void tlog_node(const uint8_t left[TLOG_HASH], const uint8_t right[TLOG_HASH],
               uint8_t ret[TLOG_HASH])
{
    uint8_t both[1 + 2 * TLOG_HASH] = {1};
    memcpy(both + 1, left, TLOG_HASH);
    memcpy(both + 1 + TLOG_HASH, right, TLOG_HASH);
    if (!sha256(both, sizeof both, "", 0, ret)) {
        memset(ret, 0, TLOG_HASH);
    }
}

enum att_rc tlog_root(const uint8_t *hashes, uint64_t n, uint8_t ret[TLOG_HASH],
                      struct att_err *err)
{
    att_autobuf row = ATT_BUF_INIT((size_t)n * TLOG_HASH + 1);
    if (n == 0) {
        return sha256("", 0, "", 0, ret) ? ATT_OK : att_fail(err, ATT_E_CRYPTO, "no SHA-256");
    }
    att_buf_put(&row, hashes, (size_t)n * TLOG_HASH);
    enum att_rc rc = att_buf_ok(&row, err);
    for (; !rc && n > 1; n = (n + 1) / 2) {
        for (uint64_t i = 0; i < n / 2; i++) {
            uint8_t node[TLOG_HASH];
            tlog_node(row.ptr + 2 * i * TLOG_HASH, row.ptr + (2 * i + 1) * TLOG_HASH, node);
            memcpy(row.ptr + i * TLOG_HASH, node, TLOG_HASH);
        }
        if (n % 2) {
            memmove(row.ptr + n / 2 * TLOG_HASH, row.ptr + (n - 1) * TLOG_HASH, TLOG_HASH);
        }
    }
    if (!rc) {
        memcpy(ret, row.ptr, TLOG_HASH);
    }
    return rc;
}

/* From above: the last hash of the path is the root's other child. */
bool tlog_path_root(uint64_t index, uint64_t size, const uint8_t leaf[TLOG_HASH],
                    const uint8_t (*path)[TLOG_HASH], size_t n, uint8_t ret[TLOG_HASH])
{
    uint8_t below[TLOG_HASH];
    uint64_t k = 1;
    if (index >= size || (size == 1) != (n == 0)) {
        return false;
    }
    if (size == 1) {
        memcpy(ret, leaf, TLOG_HASH);
        return true;
    }
    while (k < size - k) {
        k *= 2;
    }
    bool left = index < k;
    if (!tlog_path_root(left ? index : index - k, left ? k : size - k, leaf, path, n - 1, below)) {
        return false;
    }
    tlog_node(left ? below : path[n - 1], left ? path[n - 1] : below, ret);
    return true;
}
