#include "provision/verify/imalist.h"

#include "attestd/base/enc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define VERITY 4U /* bit of a kind, beside 1–3 for the hash */

struct item {
    uint32_t name, digest; /* offsets in bytes */
    uint32_t next;         /* of the same name, as index + 1 */
    uint32_t hash;         /* of the name */
    uint32_t line;
    uint16_t name_len;
    uint8_t kind;
};

struct verify_imalist {
    atomic_int refs;
    uint8_t sha256[ATT_SHA256_LEN];
    struct item *items;
    size_t n, room;
    uint64_t seed;     /* of the hashes: of the list's text, so that nobody can aim at it */
    uint32_t *table;   /* the first item of each name, as index + 1; 0: free */
    uint32_t *entries; /* every item, by name and digest; the same */
    size_t mask;       /* places of either - 1 */
    struct att_buf bytes;
};

static const struct {
    const char *name, *alg;
    size_t len;
} kinds[8] = {[1] = {"sha256", "sha256", 32},        [2] = {"sha384", "sha384", 48},
              [3] = {"sha512", "sha512", 64},        [5] = {"verity:sha256", "sha256", 32},
              [6] = {"verity:sha384", "sha384", 48}, [7] = {"verity:sha512", "sha512", 64}};

unsigned verify_imalist_kind(const char *kind, const char *alg, size_t digest_len)
{
    for (unsigned i = 1; i <= 3; i++) {
        if (strcmp(kinds[i].alg, alg) == 0 && kinds[i].len == digest_len) {
            return strcmp(kind, "verity") == 0 ? i | VERITY : i;
        }
    }
    return 0;
}

const char *verify_imalist_kind_name(unsigned kind)
{
    return kind < 8 && kinds[kind].name ? kinds[kind].name : "?";
}

size_t verify_imalist_kind_len(unsigned kind)
{
    return kind < 8 ? kinds[kind].len : 0;
}

struct verify_imalist *verify_imalist_ref(struct verify_imalist *list)
{
    if (list) {
        atomic_fetch_add(&list->refs, 1);
    }
    return list;
}

void verify_imalist_free(struct verify_imalist *list)
{
    if (list && atomic_fetch_sub(&list->refs, 1) == 1) {
        att_buf_done(&list->bytes);
        free(list->items);
        free(list->table);
        free(list->entries);
        free(list);
    }
}

void verify_imalist_cleanup(struct verify_imalist **list)
{
    verify_imalist_free(*list);
    *list = NULL;
}

const uint8_t *verify_imalist_sha256(const struct verify_imalist *list)
{
    return list->sha256;
}

size_t verify_imalist_count(const struct verify_imalist *list)
{
    return list->n;
}

size_t verify_imalist_memory(const struct verify_imalist *list)
{
    return sizeof(*list) + list->room * sizeof(list->items[0]) +
           2 * (list->mask + 1) * sizeof(list->table[0]) + list->bytes.cap;
}

/* ---- the table ------------------------------------------------------------------------------- */

/* FNV-1a, with the mixing of MurmurHash3 behind it. */
static uint64_t hash_on(uint64_t h, const uint8_t *ptr, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        h = (h ^ ptr[i]) * 0x100000001b3U;
    }
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdU;
    return h ^ h >> 33;
}

static uint32_t hash_of(const struct verify_imalist *list, struct att_slice name)
{
    return (uint32_t)hash_on(list->seed, name.ptr, name.len);
}

static uint32_t hash_entry(const struct verify_imalist *list, uint32_t name_hash, unsigned kind,
                           const uint8_t *digest)
{
    return (uint32_t)hash_on(list->seed ^ (uint64_t)name_hash << 8 ^ kind, digest, kinds[kind].len);
}

static struct att_slice name_of(const struct verify_imalist *list, const struct item *item)
{
    return ATT_SLICE(list->bytes.ptr + item->name, item->name_len);
}

/* The place of a name: of its first item, or the free one where that would be. */
static uint32_t *place_of(const struct verify_imalist *list, struct att_slice name, uint32_t hash)
{
    for (size_t at = hash & list->mask;; at = (at + 1) & list->mask) {
        uint32_t *place = &list->table[at];
        if (*place == 0) {
            return place;
        }
        const struct item *item = &list->items[*place - 1];
        if (item->hash == hash && att_slice_eq(name_of(list, item), name)) {
            return place;
        }
    }
}

static bool same_digest(const struct verify_imalist *list, const struct item *item, unsigned kind,
                        const uint8_t *digest)
{
    return item->kind == kind &&
           memcmp(list->bytes.ptr + item->digest, digest, kinds[kind].len) == 0;
}

/* The same of an entry: of the one with this name and digest. */
static uint32_t *place_of_entry(const struct verify_imalist *list, struct att_slice name,
                                uint32_t name_hash, unsigned kind, const uint8_t *digest)
{
    for (size_t at = hash_entry(list, name_hash, kind, digest) & list->mask;;
         at = (at + 1) & list->mask) {
        uint32_t *place = &list->entries[at];
        if (*place == 0) {
            return place;
        }
        const struct item *item = &list->items[*place - 1];
        if (item->hash == name_hash && same_digest(list, item, kind, digest) &&
            att_slice_eq(name_of(list, item), name)) {
            return place;
        }
    }
}

static enum att_rc enter(struct verify_imalist *list, uint32_t i, struct att_err *err)
{
    struct item *item = &list->items[i];
    struct att_slice name = name_of(list, item);
    uint32_t *entry =
        place_of_entry(list, name, item->hash, item->kind, list->bytes.ptr + item->digest);
    uint32_t *place = place_of(list, name, item->hash);
    if (*entry) {
        return att_fail(err, ATT_E_PARSE,
                        "IMA allow list: line %u: the same name and digest as line %u", item->line,
                        list->items[*entry - 1].line);
    }
    item->next = *place;
    *place = *entry = i + 1;
    return ATT_OK;
}

static enum att_rc make_table(struct verify_imalist *list, struct att_err *err)
{
    size_t places = 16;
    while (places < 2 * list->n) {
        places *= 2;
    }
    list->table = calloc(places, sizeof(list->table[0]));
    list->entries = calloc(places, sizeof(list->entries[0]));
    list->mask = places - 1;
    if (!list->table || !list->entries) {
        return att_fail(err, ATT_E_NOMEM, "no memory for an IMA allow list");
    }
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; !rc && i < list->n; i++) {
        rc = enter(list, (uint32_t)i, err);
    }
    return rc;
}

/* ---- reading --------------------------------------------------------------------------------- */

static enum att_rc bad_line(size_t line, struct att_err *err, const char *what)
{
    return att_fail(err, ATT_E_PARSE, "IMA allow list: line %zu: %s", line, what);
}

static int hex_digit(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "verity:sha256:" and its kind; the rest of the line stays. 0: none. */
static unsigned take_kind(struct att_slice *line)
{
    for (unsigned kind = 7; kind >= 1; kind--) {
        size_t len = kinds[kind].name ? strlen(kinds[kind].name) : 0;
        if (len && line->len > len && memcmp(line->ptr, kinds[kind].name, len) == 0 &&
            line->ptr[len] == ':') {
            *line = ATT_SLICE(line->ptr + len + 1, line->len - len - 1);
            return kind;
        }
    }
    return 0;
}

static bool take_digest(struct att_slice *line, size_t len, struct att_buf *bytes)
{
    if (line->len < 2 * len + 1 || line->ptr[2 * len] != ' ') {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(line->ptr[2 * i]), low = hex_digit(line->ptr[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        att_buf_u8(bytes, (uint8_t)(high << 4 | low));
    }
    *line = ATT_SLICE(line->ptr + 2 * len + 1, line->len - 2 * len - 1);
    return true;
}

static bool plain(uint8_t c)
{
    return c > 0x20 && c != 0x7f && c != '\\';
}

/* Bytes of one character in UTF-8 (RFC 3629) at the beginning; 0: none is there. */
static size_t utf8_len(struct att_slice text)
{
    const uint8_t *p = text.ptr;
    size_t len = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (len == 0 || p[0] > 0xf4 || len > text.len) {
        return 0;
    }
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool outside = (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf4 && p[1] > 0x8f);
    return overlong || outside ? 0 : len;
}

static bool is_text(struct att_slice text)
{
    for (size_t i = 0, len = 0; i < text.len; i += len) {
        len = utf8_len(ATT_SLICE(text.ptr + i, text.len - i));
        if (len == 0 || text.ptr[i] == 0) {
            return false;
        }
    }
    return true;
}

static bool take_escape(struct att_slice text, uint8_t *ret)
{
    if (text.len < 4 || text.ptr[0] != '\\' || text.ptr[1] != 'x') {
        return false;
    }
    int high = hex_digit(text.ptr[2]), low = hex_digit(text.ptr[3]);
    *ret = (uint8_t)((unsigned)high << 4 | (unsigned)low);
    return high >= 0 && low >= 0 && *ret != 0;
}

/* Are these bytes written as text? One text for one name: what may stand as it is does. */
static bool written_so(struct att_slice name, struct att_slice text)
{
    size_t at = 0;
    for (size_t i = 0, len = 0; i < name.len; i += len) {
        len = utf8_len(ATT_SLICE(name.ptr + i, name.len - i));
        bool raw = len > 1 || (len == 1 && plain(name.ptr[i]));
        len = len ? len : 1;
        size_t takes = raw ? len : 4;
        if (text.len - at < takes || (raw && memcmp(text.ptr + at, name.ptr + i, len) != 0) ||
            (!raw && text.ptr[at] != '\\')) {
            return false;
        }
        at += takes;
    }
    return at == text.len;
}

static bool take_name(struct att_slice text, struct att_buf *bytes)
{
    size_t start = bytes->len;
    for (size_t i = 0; i < text.len;) {
        uint8_t c = text.ptr[i];
        size_t len = 1;
        if (!plain(c)) {
            if (!take_escape(ATT_SLICE(text.ptr + i, text.len - i), &c)) {
                return false;
            }
            len = 4;
        }
        att_buf_u8(bytes, c);
        i += len;
    }
    return att_buf_ok(bytes, NULL) || /* the caller says so */
           (text.len > 0 && written_so(ATT_SLICE(bytes->ptr + start, bytes->len - start), text));
}

static struct item *new_item(struct verify_imalist *list)
{
    if (list->n == list->room) {
        size_t room = list->room ? 2 * list->room : 64;
        struct item *items = realloc(list->items, room * sizeof(*items));
        if (!items) {
            return NULL;
        }
        list->items = items;
        list->room = room;
    }
    return &list->items[list->n++];
}

static enum att_rc take_entry(struct verify_imalist *list, struct att_slice line, size_t number,
                              struct att_err *err)
{
    unsigned kind = take_kind(&line);
    if (!kind) {
        return bad_line(number, err,
                        "expected \"sha256:\", \"sha384:\" or \"sha512:\", with \"verity:\" before "
                        "it for fs-verity digests");
    }
    struct item *item = new_item(list);
    if (!item) {
        return att_fail(err, ATT_E_NOMEM, "no memory for an IMA allow list");
    }
    *item = (struct item){.kind = (uint8_t)kind, .line = (uint32_t)number};
    item->digest = (uint32_t)list->bytes.len;
    if (!take_digest(&line, kinds[kind].len, &list->bytes)) {
        return bad_line(number, err,
                        "expected the digest in hex, lower case, as long as its hash has it, and a "
                        "space");
    }
    item->name = (uint32_t)list->bytes.len;
    if (!take_name(line, &list->bytes)) {
        return bad_line(number, err,
                        "expected a name without spaces and control characters (\"\\xHH\" for "
                        "such a byte and for those that are not UTF-8, \"_\" for a space, as the "
                        "kernel writes it)");
    }
    size_t len = list->bytes.len - item->name;
    if (len > VERIFY_IMALIST_NAME_MAX) {
        return bad_line(number, err, "its name is longer than 4096 bytes");
    }
    item->name_len = (uint16_t)len;
    if (att_buf_ok(&list->bytes, NULL)) {
        return att_fail(err, ATT_E_NOMEM, "no memory for an IMA allow list");
    }
    item->hash = hash_of(list, name_of(list, item));
    return ATT_OK;
}

static enum att_rc take_lines(struct verify_imalist *list, struct att_slice text,
                              struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    size_t pos = sizeof(VERIFY_IMALIST_HEADER) - 1;
    for (size_t number = 2; !rc && pos < text.len; number++) {
        const uint8_t *start = text.ptr + pos;
        const uint8_t *end = memchr(start, '\n', text.len - pos);
        if (!end) {
            return bad_line(number, err, "the last line has no newline: the list was cut");
        }
        struct att_slice line = ATT_SLICE(start, (size_t)(end - start));
        pos += line.len + 1;
        if (line.len == 0) {
            return bad_line(number, err, "it is empty");
        }
        if (line.len > VERIFY_IMALIST_LINE_MAX) {
            return bad_line(number, err, "it is longer than 32768 bytes");
        }
        if (line.ptr[0] == '#' && !is_text(line)) {
            return bad_line(number, err, "expected a comment in UTF-8");
        }
        if (line.ptr[0] != '#') {
            rc = take_entry(list, line, number, err);
        }
    }
    return rc;
}

enum att_rc verify_imalist_parse(struct att_slice text, struct verify_imalist **ret,
                                 struct att_err *err)
{
    size_t head = sizeof(VERIFY_IMALIST_HEADER) - 1;
    if (text.len > VERIFY_IMALIST_BYTES_MAX) {
        return att_fail(err, ATT_E_LIMIT, "IMA allow list: %zu bytes, at most %zu", text.len,
                        VERIFY_IMALIST_BYTES_MAX);
    }
    if (text.len < head || memcmp(text.ptr, VERIFY_IMALIST_HEADER, head) != 0) {
        return bad_line(1, err, "expected \"# attestd IMA allow list 1\"");
    }
    verify_autoimalist *list = calloc(1, sizeof(*list));
    if (!list) {
        return att_fail(err, ATT_E_NOMEM, "no memory for an IMA allow list");
    }
    atomic_init(&list->refs, 1);
    list->bytes.max = VERIFY_IMALIST_BYTES_MAX;
    att_sha256(list->sha256, text);
    memcpy(&list->seed, list->sha256, sizeof(list->seed));
    enum att_rc rc = take_lines(list, text, err);
    if (!rc && list->n == 0) {
        rc = att_fail(err, ATT_E_PARSE, "IMA allow list: it has no entry");
    }
    rc = rc ? rc : make_table(list, err);
    if (!rc) {
        *ret = list;
        list = NULL;
    }
    return rc;
}

/* ---- looking up ------------------------------------------------------------------------------ */

struct verify_imalist_entry verify_imalist_at(const struct verify_imalist *list, size_t i)
{
    const struct item *item = &list->items[i];
    return (struct verify_imalist_entry){
        .name = name_of(list, item), .kind = item->kind, .digest = list->bytes.ptr + item->digest};
}

bool verify_imalist_next(const struct verify_imalist *list, struct att_slice name, size_t *at,
                         struct verify_imalist_entry *ret)
{
    uint32_t i = *at == 0 ? *place_of(list, name, hash_of(list, name)) : list->items[*at - 1].next;
    if (i == 0) {
        return false;
    }
    *at = i;
    *ret = verify_imalist_at(list, i - 1);
    return true;
}

bool verify_imalist_has(const struct verify_imalist *list, struct att_slice name, unsigned kind,
                        const uint8_t *digest, bool *ret_named)
{
    uint32_t hash = hash_of(list, name);
    *ret_named = *place_of(list, name, hash) != 0;
    return kind && *ret_named && *place_of_entry(list, name, hash, kind, digest) != 0;
}

void verify_imalist_put(struct att_buf *buf, const struct verify_imalist_entry *entry)
{
    att_buf_put_str(buf, verify_imalist_kind_name(entry->kind));
    att_buf_u8(buf, ':');
    att_buf_hex(buf, ATT_SLICE(entry->digest, verify_imalist_kind_len(entry->kind)));
    att_buf_u8(buf, ' ');
    for (size_t i = 0, len = 0; i < entry->name.len; i += len) {
        const uint8_t *c = entry->name.ptr + i;
        len = utf8_len(ATT_SLICE(c, entry->name.len - i));
        if (len > 1 || (len == 1 && plain(*c))) {
            att_buf_put(buf, c, len);
        } else {
            att_buf_printf(buf, "\\x%02x", *c);
            len = 1;
        }
    }
    att_buf_u8(buf, '\n');
}
