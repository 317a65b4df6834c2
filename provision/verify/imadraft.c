#include "provision/verify/imadraft.h"

#include <stdlib.h>
#include <string.h>

static bool begins_with_one(struct att_slice name, const char *const *prefixes)
{
    for (size_t i = 0; prefixes && prefixes[i]; i++) {
        size_t len = strlen(prefixes[i]);
        if (name.len >= len && memcmp(name.ptr, prefixes[i], len) == 0) {
            return true;
        }
    }
    return false;
}

static void take_entry(const struct parse_ima_entry *entry, const char *const *excludes,
                       struct att_buf *lines, struct verify_imadraft_sum *sum)
{
    const struct verify_imalist_entry line = {
        .name = entry->name,
        .kind = verify_imalist_kind(entry->kind, entry->alg, entry->file.len),
        .digest = entry->file.ptr};
    if (entry->violation) {
        sum->n_violations++;
    } else if (att_slice_eq_str(entry->name, "boot_aggregate") || entry->name.len == 0 ||
               begins_with_one(entry->name, excludes)) {
        return; /* of the boot itself, or left open */
    } else if (!line.kind) {
        sum->n_weak++;
    } else {
        verify_imalist_put(lines, &line);
    }
}

enum att_rc verify_imadraft_lines(struct att_slice ima, const char *const *excludes,
                                  struct att_buf *lines, struct verify_imadraft_sum *ret,
                                  struct att_err *err)
{
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    struct verify_imadraft_sum sum = {0};
    enum att_rc rc = parse_ima_init(&list, ima, err);
    while (!rc) {
        struct parse_ima_entry entry;
        rc = parse_ima_next(&list, &entry, err);
        if (!rc) {
            take_entry(&entry, excludes, lines, &sum);
        }
    }
    rc = rc == ATT_E_NOTFOUND ? att_buf_ok(lines, err) : rc;
    if (!rc) {
        *ret = sum;
    }
    return rc;
}

/* ---- sorting --------------------------------------------------------------------------------- */

static int compare(struct att_slice a, struct att_slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.ptr, b.ptr, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static struct att_slice name_of(struct att_slice line)
{
    const uint8_t *space = memchr(line.ptr, ' ', line.len);
    return space ? ATT_SLICE(space, line.len - (size_t)(space - line.ptr)) : ATT_SLICE(NULL, 0);
}

static int by_name(const void *a, const void *b)
{
    const struct att_slice *one = a, *other = b;
    int order = compare(name_of(*one), name_of(*other));
    return order ? order : compare(*one, *other);
}

static size_t cut_lines(struct att_slice text, struct att_slice *ret_lines)
{
    size_t n = 0;
    for (size_t pos = 0; pos < text.len;) {
        const uint8_t *end = memchr(text.ptr + pos, '\n', text.len - pos);
        size_t len = end ? (size_t)(end - text.ptr) + 1 - pos : text.len - pos;
        if (ret_lines) {
            ret_lines[n] = ATT_SLICE(text.ptr + pos, len);
        }
        n++;
        pos += len;
    }
    return n;
}

enum att_rc verify_imadraft_list(struct att_slice lines, const char *comment, struct att_buf *ret,
                                 struct att_err *err)
{
    size_t n = cut_lines(lines, NULL);
    struct att_slice *list = calloc(n ? n : 1, sizeof(*list));
    if (!list) {
        return att_fail(err, ATT_E_NOMEM, "no memory for an IMA allow list");
    }
    (void)cut_lines(lines, list);
    qsort(list, n, sizeof(*list), by_name);
    ret->max = VERIFY_IMALIST_BYTES_MAX;
    att_buf_put_str(ret, VERIFY_IMALIST_HEADER);
    if (comment) {
        att_buf_printf(ret, "# %s\n", comment);
    }
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || compare(list[i - 1], list[i]) != 0) {
            att_buf_put_slice(ret, list[i]);
        }
    }
    free(list);
    verify_autoimalist *made = NULL;
    enum att_rc rc = att_buf_ok(ret, err);
    rc = rc ? rc : verify_imalist_parse(att_buf_slice(ret), &made, err);
    return rc == ATT_E_PARSE ? ATT_E_INVAL : rc;
}
