#include "provision/audit/tile.h"

#include <stdio.h>
#include <string.h>

#define GROUPS_MAX 7 /* of three digits: more than 2^63 */

void audit_tile_path(const struct audit_tile *tile, char *ret)
{
    char groups[GROUPS_MAX * 5 + 1] = "", level[12];
    uint64_t rest = tile->index;
    char *at = groups + sizeof groups - 1;
    do { /* 1234067: x001/x234/067 */
        char group[8];
        int n = snprintf(group, sizeof group, "%s%03u%s", at[0] ? "x" : "", (unsigned)(rest % 1000),
                         at[0] ? "/" : "");
        at -= n;
        memcpy(at, group, (size_t)n);
        rest /= 1000;
    } while (rest > 0);
    snprintf(level, sizeof level, "%d", tile->level);
    int n = snprintf(ret, AUDIT_PATH_MAX, "tile/%s/%s",
                     tile->level == AUDIT_ENTRIES ? "entries" : level, at);
    if (tile->width < AUDIT_TILE_WIDTH) {
        snprintf(ret + n, AUDIT_PATH_MAX - (size_t)n, ".p/%u", tile->width);
    }
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Reads loosely; that it was the one spelling is seen by writing it again. */
static bool read_index(const char **at, uint64_t *ret_index)
{
    uint64_t index = 0;
    for (unsigned g = 0; g < GROUPS_MAX; g++) {
        bool more = **at == 'x';
        const char *d = *at + (more ? 1 : 0);
        if (!digit(d[0]) || !digit(d[1]) || !digit(d[2])) {
            return false;
        }
        uint64_t group = (uint64_t)((d[0] - '0') * 100 + (d[1] - '0') * 10 + (d[2] - '0'));
        if (index > (AUDIT_SIZE_MAX - group) / 1000) {
            return false;
        }
        index = index * 1000 + group;
        *at = d + 3;
        if (!more) {
            *ret_index = index;
            return true;
        }
        if (*(*at)++ != '/') {
            return false;
        }
    }
    return false;
}

static bool read_tile(const char *at, struct audit_tile *tile)
{
    static const char start[] = "tile/", entries[] = "entries/";
    if (strncmp(at, start, sizeof start - 1) != 0) {
        return false;
    }
    at += sizeof start - 1;
    if (strncmp(at, entries, sizeof entries - 1) == 0) {
        tile->level = AUDIT_ENTRIES;
        at += sizeof entries - 1;
    } else if (at[0] >= '0' && at[0] < '0' + AUDIT_LEVELS && at[1] == '/') {
        tile->level = at[0] - '0';
        at += 2;
    } else {
        return false;
    }
    if (!read_index(&at, &tile->index)) {
        return false;
    }
    tile->width = AUDIT_TILE_WIDTH;
    if (at[0] != '.') {
        return at[0] == 0;
    }
    if (strncmp(at, ".p/", 3) != 0) {
        return false;
    }
    at += 3;
    for (tile->width = 0; digit(*at) && tile->width < AUDIT_TILE_WIDTH; at++) {
        tile->width = tile->width * 10 + (unsigned)(*at - '0');
    }
    return *at == 0 && tile->width > 0 && tile->width < AUDIT_TILE_WIDTH;
}

enum att_rc audit_tile_parse(const char *path, struct audit_tile *ret_tile, struct att_err *err)
{
    struct audit_tile tile;
    char again[AUDIT_PATH_MAX];
    if (strnlen(path, AUDIT_PATH_MAX) < AUDIT_PATH_MAX && read_tile(path, &tile)) {
        audit_tile_path(&tile, again);
        if (strcmp(again, path) == 0) {
            *ret_tile = tile;
            return ATT_OK;
        }
    }
    return att_fail(err, ATT_E_PARSE, "\"%.60s\" is no tile's path", path);
}

void audit_bundle_put(struct att_buf *bundle, struct att_slice entry)
{
    att_buf_field_be16(bundle, entry);
}

enum att_rc audit_bundle_next(struct att_slice *rest, struct att_slice *ret_entry,
                              struct att_err *err)
{
    struct att_cur cur = att_cur_init(*rest);
    struct att_slice entry = att_cur_take_be16(&cur, UINT16_MAX);
    if (cur.failed) {
        enum att_rc rc = att_fail(err, ATT_E_PARSE, "audit log: an entry bundle ends in an entry");
        att_err_reason(err, "logEntries");
        return rc;
    }
    *ret_entry = entry;
    *rest = ATT_SLICE(cur.ptr, cur.left);
    return ATT_OK;
}
