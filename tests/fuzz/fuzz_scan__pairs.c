/* A file of each form, a process's environment and its arguments, as attestctl migrate scan reads
 * them. The first byte chooses the form. */
#include "attestd/scan/judge.h"
#include "attestd/scan/pairs.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bounds {
    const uint8_t *from, *to;
};

static void within(const struct bounds *b, struct att_slice s)
{
    /* "password" of a .netrc is our own word */
    if (s.len && !att_slice_eq_str(s, "password") && (s.ptr < b->from || s.ptr + s.len > b->to)) {
        __builtin_trap();
    }
}

static void show(struct att_slice name)
{
    char text[SCAN_NAME_MAX + 1];
    scan_name_show(text, name);
    size_t len = strlen(text);
    bool clean =
        strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-:") == len;
    if (len == 0 || len > SCAN_NAME_MAX || !(clean || strcmp(text, "(withheld)") == 0)) {
        __builtin_trap();
    }
}

static void pair(void *user, const struct scan_pair *p)
{
    within(user, p->name);
    within(user, p->value);
    show(p->name);
    struct scan_verdict v = scan_judge(p->name, p->value);
    if (v.kind >= SCAN_KINDS || v.confidence > SCAN_HIGH ||
        (v.kind == SCAN_NONE) != (v.confidence == SCAN_NO)) {
        __builtin_trap();
    }
    v = scan_judge_field(p->name, p->value, SCAN_PASSWORD);
    if ((v.kind == SCAN_NONE) != (v.confidence == SCAN_NO)) {
        __builtin_trap();
    }
}

static void file(void *user, const char *at, struct att_slice name, struct att_slice path,
                 uint32_t line)
{
    (void)at;
    (void)line;
    within(user, name);
    within(user, path);
    show(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > 65536) {
        return 0;
    }
    size_t len = size - 1;
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy) {
        return 0;
    }
    memcpy(copy, data + 1, len);
    struct bounds bounds = {copy, copy + len};
    const struct scan_sink sink = {&bounds, pair, NULL, file, NULL};
    struct scan_text text = {copy, len};
    unsigned form = data[0] % (SCAN_WHOLE + 4u);
    if (form == SCAN_WHOLE + 1u) {
        scan_environ(text, &sink);
    } else if (form == SCAN_WHOLE + 2u) {
        scan_cmdline(text, &sink);
    } else if (form == SCAN_WHOLE + 3u) {
        scan_parse(SCAN_HISTORY, text, &sink);
    } else {
        scan_parse((enum scan_format)form, text, &sink);
    }
    free(copy);
    return 0;
}
