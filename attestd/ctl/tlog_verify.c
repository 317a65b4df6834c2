/* A log as it is published, entry by entry and tile by tile. */
#include "attestd/ctl/tlog.h"

#include "attestd/base/io.h"
#include "provision/acme/http.h"

#include <stdio.h>
#include <string.h>

#define WIDTH     256
#define FILE_MAX  ((size_t)WIDTH * (2 + 65535))
#define PATH_ROOM 128

/* ---- where it lies
 * ------------------------------------------------------------------------------ */

enum att_rc tlog_source_open(const char *where, const char *ca, struct tlog_source *ret_source,
                             struct att_err *err)
{
    struct tlog_source source = {.where = where};
    if (strncmp(where, "https://", 8) == 0) {
        if (!ca) {
            return att_fail(err, ATT_E_INVAL, "%s: --ca FILE is missing: whom to believe there",
                            where);
        }
        const struct acme_http_config config = {.ca_file = ca, .proxy_from_env = true};
        enum att_rc rc = acme_http_new(&config, &source.http, err);
        if (rc) {
            return rc;
        }
    }
    *ret_source = source;
    return ATT_OK;
}

void tlog_source_close(struct tlog_source *source)
{
    acme_http_free(source->http);
    source->http = NULL;
}

static enum att_rc get_url(const struct tlog_source *source, const char *url, size_t max,
                           struct att_buf *ret_bytes, struct att_err *err)
{
    struct acme_http_response response = {0};
    const struct acme_http_request request = {.method = "GET", .url = url, .max_body = max};
    enum att_rc rc = acme_http_perform(source->http, &request, &response, err);
    if (!rc && response.status != 200) {
        rc = att_fail(err, response.status == 404 ? ATT_E_NOTFOUND : ATT_E_PROTOCOL,
                      "%s: HTTP status %d", url, response.status);
    }
    if (!rc) {
        att_buf_put_slice(ret_bytes, att_buf_slice(&response.body));
        rc = att_buf_ok(ret_bytes, err);
    }
    acme_http_response_done(&response);
    return rc;
}

enum att_rc tlog_source_get(const struct tlog_source *source, const char *path, size_t max,
                            struct att_buf *ret_bytes, struct att_err *err)
{
    char full[4096];
    size_t len = strlen(source->where);
    while (len > 1 && source->where[len - 1] == '/') {
        len--;
    }
    if (snprintf(full, sizeof full, "%.*s/%s", (int)len, source->where, path) >= (int)sizeof full) {
        return att_fail(err, ATT_E_INVAL, "%.80s…: too long", source->where);
    }
    return source->http ? get_url(source, full, max, ret_bytes, err)
                        : att_io_read_file(full, max, ret_bytes, err);
}

/* ---- tiles
 * -------------------------------------------------------------------------------------- */

/* level -1: entries. Three digits a group, all but the last with an x. */
static void tile_path(int level, uint64_t index, unsigned width, char ret[PATH_ROOM])
{
    char at[PATH_ROOM] = "", next[PATH_ROOM];
    snprintf(at, sizeof at, "%03u", (unsigned)(index % 1000));
    for (index /= 1000; index; index /= 1000) {
        snprintf(next, sizeof next, "x%03u/%.100s", (unsigned)(index % 1000), at);
        memcpy(at, next, sizeof at);
    }
    char kind[16] = "entries", part[16] = "";
    if (level >= 0) {
        snprintf(kind, sizeof kind, "%d", level);
    }
    if (width < WIDTH) {
        snprintf(part, sizeof part, ".p/%u", width);
    }
    snprintf(ret, PATH_ROOM, "tile/%s/%.80s%s", kind, at, part);
}

/* A partial tile may be gone once the full one is there, which begins with it: then *ret_more is
 * true, and else there is nothing behind its width. */
static enum att_rc get_tile(const struct tlog_source *source, int level, uint64_t index,
                            unsigned width, struct att_buf *ret_bytes, bool *ret_more,
                            struct att_err *err)
{
    char path[PATH_ROOM];
    struct att_err why = {0};
    tile_path(level, index, width, path);
    enum att_rc rc = tlog_source_get(source, path, FILE_MAX, ret_bytes, &why);
    *ret_more = rc == ATT_E_NOTFOUND && width < WIDTH;
    if (*ret_more) {
        char whole[PATH_ROOM];
        tile_path(level, index, WIDTH, whole);
        att_err_clear(&why);
        rc = tlog_source_get(source, whole, FILE_MAX, ret_bytes, &why);
    }
    if (rc == ATT_E_NOTFOUND) {
        return tlog_refuse(err, ATT_E_AUTH, "logTruncated",
                           "%s: is not there, though the checkpoint speaks for it", path);
    }
    if (rc && err) {
        *err = why;
    }
    return rc;
}

/* Our entries say which record they are: attestd-decision/1, number, time, kind, outcome, reason,
 * commitment. */
bool tlog_entry_ok(struct att_slice entry, uint64_t seq)
{
    char begin[64];
    unsigned lines = 0;
    size_t len = (size_t)snprintf(begin, sizeof begin, "attestd-decision/1\n%llu\n",
                                  (unsigned long long)seq);
    for (size_t i = 0; i < entry.len; i++) {
        lines += entry.ptr[i] == '\n';
    }
    return entry.len > len && memcmp(entry.ptr, begin, len) == 0 && lines == 7 &&
           entry.ptr[entry.len - 1] == '\n';
}

/* Hashes a bundle's entries behind those that are there. */
static enum att_rc hash_bundle(struct att_slice bytes, uint64_t index, unsigned width, bool more,
                               struct att_buf *hashes, struct att_err *err)
{
    struct att_cur cur = att_cur_init(bytes);
    for (unsigned i = 0; i < width; i++) {
        uint8_t hash[TLOG_HASH];
        uint64_t seq = index * WIDTH + i + 1;
        struct att_slice entry = att_cur_take_be16(&cur, UINT16_MAX);
        if (cur.failed) {
            return tlog_refuse(err, ATT_E_AUTH, "logEntries",
                               "bundle %llu ends before its entry %u of %u",
                               (unsigned long long)index, i + 1, width);
        }
        if (!tlog_entry_ok(entry, seq)) {
            return tlog_refuse(err, ATT_E_AUTH, "logEntry",
                               "entry %llu is not that of decision %llu",
                               (unsigned long long)seq - 1, (unsigned long long)seq);
        }
        tlog_leaf(entry, hash);
        att_buf_put(hashes, hash, sizeof hash);
    }
    if (!more && !att_cur_done(&cur)) {
        return tlog_refuse(err, ATT_E_AUTH, "logEntries",
                           "bundle %llu has more than its %u entries", (unsigned long long)index,
                           width);
    }
    return att_buf_ok(hashes, err);
}

static enum att_rc hash_entries(const struct tlog_source *source, uint64_t size,
                                struct att_buf *hashes, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    att_autobuf bytes = ATT_BUF_INIT(FILE_MAX);
    for (uint64_t from = 0; !rc && from < size; from += WIDTH) {
        unsigned width = size - from < WIDTH ? (unsigned)(size - from) : WIDTH;
        bool more = false;
        att_buf_reset(&bytes);
        rc = get_tile(source, -1, from / WIDTH, width, &bytes, &more, err);
        rc = rc ? rc : hash_bundle(att_buf_slice(&bytes), from / WIDTH, width, more, hashes, err);
    }
    return rc;
}

/* One level: each tile is what its hashes must be. */
static enum att_rc compare_level(const struct tlog_source *source, int level,
                                 const struct att_buf *hashes, uint64_t *n_tiles,
                                 struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    uint64_t n = hashes->len / TLOG_HASH;
    att_autobuf bytes = ATT_BUF_INIT(FILE_MAX);
    for (uint64_t from = 0; !rc && from < n; from += WIDTH) {
        unsigned width = n - from < WIDTH ? (unsigned)(n - from) : WIDTH;
        size_t len = (size_t)width * TLOG_HASH;
        bool more = false;
        att_buf_reset(&bytes);
        rc = get_tile(source, level, from / WIDTH, width, &bytes, &more, err);
        if (!rc && (bytes.len < len || (bytes.len > len && !more) ||
                    memcmp(bytes.ptr, hashes->ptr + (size_t)from * TLOG_HASH, len) != 0)) {
            rc = tlog_refuse(err, ATT_E_AUTH, "logTile",
                             "tile %llu of level %d is not what the entries give",
                             (unsigned long long)(from / WIDTH), level);
        }
        *n_tiles += rc ? 0 : 1;
    }
    return rc;
}

/* In place: from a level's hashes those of the next. */
static enum att_rc next_level(struct att_buf *hashes, struct att_err *err)
{
    uint64_t n = hashes->len / TLOG_HASH / WIDTH;
    for (uint64_t i = 0; i < n; i++) {
        uint8_t root[TLOG_HASH];
        enum att_rc rc = tlog_root(hashes->ptr + (size_t)i * WIDTH * TLOG_HASH, WIDTH, root, err);
        if (rc) {
            return rc;
        }
        memcpy(hashes->ptr + (size_t)i * TLOG_HASH, root, TLOG_HASH);
    }
    hashes->len = (size_t)n * TLOG_HASH;
    return ATT_OK;
}

static enum att_rc check_root(const uint8_t *hashes, const struct tlog_head *head,
                              const char *reason, const char *what, struct att_err *err)
{
    uint8_t root[TLOG_HASH];
    enum att_rc rc = tlog_root(hashes, head->size, root, err);
    return rc || memcmp(root, head->root, TLOG_HASH) == 0
               ? rc
               : tlog_refuse(err, ATT_E_AUTH, reason, "%s (size %llu)", what,
                             (unsigned long long)head->size);
}

enum att_rc tlog_verify(const struct tlog_source *source, const struct tlog_head *head,
                        const struct tlog_head *since, uint64_t *ret_tiles, struct att_err *err)
{
    uint64_t tiles = 0;
    if (head->size > TLOG_SIZE_MAX) {
        return att_fail(err, ATT_E_LIMIT, "a log of %llu entries: at most %llu are verified",
                        (unsigned long long)head->size, (unsigned long long)TLOG_SIZE_MAX);
    }
    if (since && since->size > head->size) {
        return tlog_refuse(err, ATT_E_AUTH, "logTruncated",
                           "the log has %llu entries and had %llu at the earlier checkpoint",
                           (unsigned long long)head->size, (unsigned long long)since->size);
    }
    att_autobuf hashes = ATT_BUF_INIT((size_t)head->size * TLOG_HASH + 1);
    enum att_rc rc = hash_entries(source, head->size, &hashes, err);
    rc = rc ? rc
            : check_root(hashes.ptr, head, "logRoot", "the entries do not give the signed root",
                         err);
    if (!rc && since) {
        rc = check_root(hashes.ptr, since, "logForked",
                        "the log does not continue the earlier checkpoint: its first entries are "
                        "others",
                        err);
    }
    for (int level = 0; !rc && hashes.len; level++) {
        rc = compare_level(source, level, &hashes, &tiles, err);
        rc = rc ? rc : next_level(&hashes, err);
    }
    if (!rc) {
        *ret_tiles = tiles;
    }
    return rc;
}
