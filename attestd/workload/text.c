#include "attestd/workload/text.h"

#include <string.h>

#define STAT_PARENT 4
#define STAT_START  22
#define STAT_STACK  28

/* ---- numbers and lines ---- */

/* A decimal number of at most max, without sign, and nothing else. */
static bool number(struct att_slice text, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;
    if (text.len == 0 || text.len > 20) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        uint64_t digit = (uint64_t)text.ptr[i] - '0';
        if (digit > 9 || value > (UINT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *ret = value;
    return value <= max;
}

/* Up to the first of end, which is taken, too; false when nothing is left. */
static bool next(struct att_slice *text, char end, struct att_slice *ret_part)
{
    if (text->len == 0) {
        return false;
    }
    const uint8_t *at = memchr(text->ptr, end, text->len);
    size_t len = at ? (size_t)(at - text->ptr) : text->len;
    *ret_part = ATT_SLICE(text->ptr, len);
    size_t taken = at ? len + 1 : len;
    *text = ATT_SLICE(text->ptr + taken, text->len - taken);
    return true;
}

static bool starts(struct att_slice text, const char *with)
{
    size_t len = strlen(with);
    return text.len >= len && memcmp(text.ptr, with, len) == 0;
}

static bool ends(struct att_slice text, const char *with)
{
    size_t len = strlen(with);
    return text.len >= len && memcmp(text.ptr + text.len - len, with, len) == 0;
}

static struct att_slice behind(struct att_slice text, size_t n)
{
    return ATT_SLICE(text.ptr + n, text.len - n);
}

/* ---- stat ---- */

static enum att_rc bad_stat(struct att_err *err, const char *what)
{
    return att_fail(err, ATT_E_PARSE, "/proc/PID/stat: %s", what);
}

/* The fields from the third (state) on. */
static enum att_rc parse_fields(struct att_slice rest, struct workload_stat *stat,
                                struct att_err *err)
{
    struct att_slice part;
    uint64_t value = 0;
    int field = 3;
    if (!next(&rest, ' ', &part) || part.len != 1) {
        return bad_stat(err, "no state behind the name");
    }
    stat->state = (char)part.ptr[0];
    while (field < STAT_STACK && next(&rest, ' ', &part)) {
        field++;
        bool wanted = field == STAT_PARENT || field == STAT_START || field == STAT_STACK;
        if (wanted && !number(part, field == STAT_PARENT ? INT32_MAX : UINT64_MAX, &value)) {
            return bad_stat(err, "a field is not a number");
        }
        if (field == STAT_PARENT) {
            stat->parent = (uint32_t)value;
        } else if (field == STAT_START) {
            stat->start_time = value;
        } else if (field == STAT_STACK) {
            stat->start_stack = value;
        }
    }
    return field == STAT_STACK ? ATT_OK : bad_stat(err, "fewer than 28 fields");
}

enum att_rc workload_stat_parse(struct att_slice text, struct workload_stat *ret_stat,
                                struct att_err *err)
{
    struct workload_stat stat = {0};
    struct att_slice part, rest = text;
    uint64_t value = 0;
    if (!next(&rest, ' ', &part) || !number(part, INT32_MAX, &value) || value == 0 ||
        !starts(rest, "(")) {
        return bad_stat(err, "does not begin with a pid and a name");
    }
    stat.pid = (uint32_t)value;
    const uint8_t *close = memrchr(rest.ptr, ')', rest.len);
    size_t used = close ? (size_t)(close - rest.ptr) + 1 : rest.len;
    if (!starts(behind(rest, used), " ")) {
        return bad_stat(err, "the name has no end");
    }
    enum att_rc rc = parse_fields(behind(rest, used + 1), &stat, err);
    if (rc == ATT_OK) {
        *ret_stat = stat;
    }
    return rc;
}

/* ---- status ---- */

/* Numbers between tabs; at most max of them. 0: not of this form. */
static size_t numbers(struct att_slice text, uint32_t *ret, size_t max)
{
    struct att_slice part;
    size_t n = 0;
    while (next(&text, '\t', &part)) {
        uint64_t value;
        if (n == max || !number(part, UINT32_MAX, &value)) {
            return 0;
        }
        ret[n++] = (uint32_t)value;
    }
    return n;
}

enum { KEY_TGID = 1, KEY_PID = 2, KEY_PARENT = 4, KEY_UID = 8, KEY_GID = 16, KEY_NSPID = 32 };
#define KEYS_WANTED (KEY_TGID | KEY_PID | KEY_PARENT | KEY_UID | KEY_GID)
#define NS_MAX      32 /* pid namespaces nest no deeper */

/* Which key this line is (0: none of ours); false: it is and has not its form. */
static bool parse_line(struct att_slice line, struct workload_status *s, unsigned *ret_key)
{
    const struct {
        const char *key;
        unsigned bit;
        uint32_t *to;
        size_t n;
    } keys[] = {{"Tgid:\t", KEY_TGID, &s->tgid, 1},
                {"Pid:\t", KEY_PID, &s->pid, 1},
                {"PPid:\t", KEY_PARENT, &s->parent, 1},
                {"Uid:\t", KEY_UID, s->uid, WORKLOAD_IDS},
                {"Gid:\t", KEY_GID, s->gid, WORKLOAD_IDS}};
    *ret_key = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (starts(line, keys[i].key)) {
            *ret_key = keys[i].bit;
            return numbers(behind(line, strlen(keys[i].key)), keys[i].to, keys[i].n) == keys[i].n;
        }
    }
    if (starts(line, "NSpid:\t")) {
        uint32_t pids[NS_MAX + 1];
        size_t n = numbers(behind(line, 7), pids, NS_MAX + 1);
        *ret_key = KEY_NSPID;
        s->ns_depth = (uint32_t)n;
        s->ns_pid = n ? pids[n - 1] : 0;
        return n > 0;
    }
    return true;
}

enum att_rc workload_status_parse(struct att_slice text, struct workload_status *ret_status,
                                  struct att_err *err)
{
    struct workload_status status = {0};
    struct att_slice line;
    unsigned seen = 0;
    while (next(&text, '\n', &line)) {
        unsigned key;
        if (!parse_line(line, &status, &key) || (seen & key)) {
            return att_fail(err, ATT_E_PARSE, "/proc/PID/status: \"%.*s\" has not its form",
                            (int)(line.len < 40 ? line.len : 40), (const char *)line.ptr);
        }
        seen |= key;
    }
    if ((seen & KEYS_WANTED) != KEYS_WANTED) {
        return att_fail(err, ATT_E_PARSE,
                        "/proc/PID/status: Tgid, Pid, PPid, Uid or Gid is missing");
    }
    if (!(seen & KEY_NSPID)) { /* a kernel without pid namespaces */
        status.ns_depth = 1;
        status.ns_pid = status.pid;
    }
    *ret_status = status;
    return ATT_OK;
}

/* ---- fdinfo ---- */

enum att_rc workload_fdinfo_parse(struct att_slice text, uint32_t *ret_pid, struct att_err *err)
{
    struct att_slice line;
    while (next(&text, '\n', &line)) {
        if (!starts(line, "Pid:\t")) {
            continue;
        }
        uint64_t pid;
        struct att_slice value = behind(line, 5);
        if (att_slice_eq_str(value, "-1")) {
            return att_fail(err, ATT_E_GONE, "the process has ended");
        }
        if (number(value, INT32_MAX, &pid) && pid > 0) {
            *ret_pid = (uint32_t)pid;
            return ATT_OK;
        }
        break;
    }
    (void)!att_fail(err, ATT_E_INVAL, "the descriptor is not a pidfd of a process that we can see");
    att_err_reason(err, "notPidfd");
    return ATT_E_INVAL;
}

/* ---- cgroup ---- */

enum att_rc workload_cgroup_parse(struct att_slice text, struct att_slice *ret_path,
                                  struct att_err *err)
{
    struct att_slice line;
    while (next(&text, '\n', &line)) {
        if (starts(line, "0::")) {
            struct att_slice path = behind(line, 3);
            if (!starts(path, "/")) {
                return att_fail(err, ATT_E_PARSE,
                                "/proc/PID/cgroup: the v2 path does not begin with /");
            }
            *ret_path = path;
            return ATT_OK;
        }
    }
    return att_fail(err, ATT_E_NOTFOUND, "/proc/PID/cgroup: no v2 hierarchy");
}

/* systemd.unit(5): a name of a unit that exists, not of a template. */
static bool unit_ok(struct att_slice name, bool slice)
{
    static const char *const kinds[] = {".service", ".scope", ".socket", ".mount", ".swap"};
    bool kind = slice && ends(name, ".slice") && name.len > 6;
    for (size_t i = 0; !slice && i < sizeof kinds / sizeof *kinds; i++) {
        kind |= ends(name, kinds[i]) && name.len > strlen(kinds[i]);
    }
    if (!kind || name.len > 255 || name.ptr[0] == '@' || name.ptr[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        char c = (char)name.ptr[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!letter && (c == 0 || !strchr(":-_.\\@", c))) {
            return false;
        }
    }
    /* "name@.service" is a template; a slice has no instances at all */
    const uint8_t *at = memchr(name.ptr, '@', name.len);
    if (slice) {
        return !at;
    }
    return !at || at[1] != '.' || memrchr(name.ptr, '.', name.len) != at + 1;
}

/* The next component without the '_' that systemd puts before names that the kernel might use. */
static bool component(struct att_slice *path, struct att_slice *ret_part)
{
    while (starts(*path, "/")) {
        *path = behind(*path, 1);
    }
    if (!next(path, '/', ret_part)) {
        return false;
    }
    if (starts(*ret_part, "_")) {
        *ret_part = behind(*ret_part, 1);
    }
    return true;
}

struct att_slice workload_cgroup_unit(struct att_slice path)
{
    struct att_slice part;
    while (component(&path, &part)) {
        if (unit_ok(part, true)) {
            continue;
        }
        return unit_ok(part, false) ? part : ATT_SLICE(NULL, 0);
    }
    return ATT_SLICE(NULL, 0);
}

bool workload_cgroup_in_slice(struct att_slice path, const char *slice)
{
    struct att_slice part;
    while (component(&path, &part) && unit_ok(part, true)) {
        if (att_slice_eq_str(part, slice)) {
            return true;
        }
    }
    return false;
}

bool workload_invocation_ok(struct att_slice text)
{
    if (text.len != 32) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        char c = (char)text.ptr[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) {
            return false;
        }
    }
    return true;
}
