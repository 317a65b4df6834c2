#include "provision/audit/files.h"

#include "attestd/base/io.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum att_rc file_of(const char *dir, const struct audit_tile *tile,
                           char ret[AUDIT_FILE_ROOM], struct att_err *err)
{
    char path[AUDIT_PATH_MAX];
    audit_tile_path(tile, path);
    int n = snprintf(ret, AUDIT_FILE_ROOM, "%s/%s", dir, path);
    return n > 0 && n < AUDIT_FILE_ROOM ? ATT_OK
                                        : att_fail(err, ATT_E_LIMIT, "%s: too long a path", dir);
}

/* Makes the folder of a file; the entry of each new folder in its own is durable. */
static enum att_rc make_folder(char *file, struct att_err *err)
{
    char *slash = strrchr(file, '/');
    if (!slash || slash == file) {
        return ATT_OK;
    }
    *slash = 0;
    enum att_rc rc = ATT_OK;
    if (access(file, F_OK) != 0) {
        rc = make_folder(file, err);
        if (!rc) {
            rc = att_io_mkdirs(file, 0755, err);
        }
        if (!rc) {
            rc = att_io_sync_folder_of(file, err);
        }
    }
    *slash = '/';
    return rc;
}

enum att_rc audit_files_put(const char *dir, const struct audit_tile *tile, struct att_slice bytes,
                            struct att_err *err)
{
    char file[AUDIT_FILE_ROOM];
    enum att_rc rc = file_of(dir, tile, file, err);
    if (!rc) {
        rc = make_folder(file, err);
    }
    return rc ? rc : att_io_write_file(file, bytes, 0644, err);
}

void audit_files_drop_partial(const char *dir, int level, uint64_t index)
{
    char file[AUDIT_FILE_ROOM];
    const struct audit_tile tile = {level, index, 1};
    if (file_of(dir, &tile, file, NULL)) {
        return;
    }
    *strrchr(file, '/') = 0; /* …/NNN.p */
    DIR *folder = opendir(file);
    const struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        if (entry->d_name[0] != '.') {
            (void)unlinkat(dirfd(folder), entry->d_name, 0);
        }
    }
    if (folder) {
        closedir(folder);
        (void)rmdir(file);
    }
}

/* The narrowest partial one that is wider; 0: there is none. */
static unsigned wider(const char *dir, const struct audit_tile *tile)
{
    char file[AUDIT_FILE_ROOM];
    unsigned found = 0;
    if (file_of(dir, tile, file, NULL)) {
        return 0;
    }
    *strrchr(file, '/') = 0; /* …/NNN.p */
    DIR *folder = opendir(file);
    const struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        char *end = NULL;
        unsigned long width = strtoul(entry->d_name, &end, 10);
        if (*end == 0 && width > tile->width && width < AUDIT_TILE_WIDTH &&
            (found == 0 || width < found)) {
            found = (unsigned)width;
        }
    }
    if (folder) {
        closedir(folder);
    }
    return found;
}

/* Cuts a wider tile or bundle to the width that was asked for. */
static enum att_rc cut(struct att_buf *bytes, size_t from, const struct audit_tile *tile,
                       struct att_err *err)
{
    struct att_slice rest = ATT_SLICE(bytes->ptr + from, bytes->len - from), entry;
    if (tile->level != AUDIT_ENTRIES) {
        size_t want = (size_t)tile->width * AUDIT_HASH_LEN;
        if (rest.len < want) {
            return att_fail(err, ATT_E_PARSE, "audit log: a tile of %zu bytes, expected %zu",
                            rest.len, want);
        }
        bytes->len = from + want;
        return ATT_OK;
    }
    for (unsigned i = 0; i < tile->width; i++) {
        enum att_rc rc = audit_bundle_next(&rest, &entry, err);
        if (rc) {
            return rc;
        }
    }
    bytes->len -= rest.len;
    return ATT_OK;
}

static enum att_rc read_tile(const char *dir, const struct audit_tile *tile,
                             struct att_buf *ret_bytes, struct att_err *err)
{
    char file[AUDIT_FILE_ROOM];
    enum att_rc rc = file_of(dir, tile, file, err);
    return rc ? rc : att_io_read_file(file, AUDIT_TILE_MAX, ret_bytes, err);
}

enum att_rc audit_files_get(const char *dir, const struct audit_tile *tile,
                            struct att_buf *ret_bytes, struct att_err *err)
{
    size_t from = ret_bytes->len;
    enum att_rc rc = read_tile(dir, tile, ret_bytes, tile->width < AUDIT_TILE_WIDTH ? NULL : err);
    if (rc != ATT_E_NOTFOUND || tile->width == AUDIT_TILE_WIDTH) {
        return rc;
    }
    /* The full one last: it is there before the partial ones go. */
    struct audit_tile from_this = {tile->level, tile->index, wider(dir, tile)};
    rc = from_this.width ? read_tile(dir, &from_this, ret_bytes, NULL) : ATT_E_NOTFOUND;
    if (rc == ATT_E_NOTFOUND) {
        from_this.width = AUDIT_TILE_WIDTH;
        rc = read_tile(dir, &from_this, ret_bytes, err);
    }
    return rc ? rc : cut(ret_bytes, from, tile, err);
}

enum att_rc audit_files_hash(void *user, unsigned level, uint64_t index,
                             struct audit_hash *ret_hash, struct att_err *err)
{
    struct audit_files_reader *r = user;
    uint64_t hashes = r->size >> 8 * level, tile = index / AUDIT_TILE_WIDTH;
    if (index >= hashes) {
        return att_fail(err, ATT_E_INVAL, "audit log: hash %llu of level %u is not below the size",
                        (unsigned long long)index, level);
    }
    uint64_t left = hashes - tile * AUDIT_TILE_WIDTH;
    struct audit_tile want = {(int)level, tile,
                              left < AUDIT_TILE_WIDTH ? (unsigned)left : AUDIT_TILE_WIDTH};
    if (r->tile.len == 0 || want.level != r->at.level || want.index != r->at.index) {
        att_buf_reset(&r->tile);
        enum att_rc rc = audit_files_get(r->dir, &want, &r->tile, err);
        if (!rc && r->tile.len != (size_t)want.width * AUDIT_HASH_LEN) {
            rc = att_fail(err, ATT_E_PARSE, "audit log: a tile of %zu bytes, expected %zu",
                          r->tile.len, (size_t)want.width * AUDIT_HASH_LEN);
        }
        if (rc) {
            att_buf_reset(&r->tile);
            return rc;
        }
        r->at = want;
    }
    memcpy(ret_hash->bytes, r->tile.ptr + index % AUDIT_TILE_WIDTH * AUDIT_HASH_LEN,
           AUDIT_HASH_LEN);
    return ATT_OK;
}
