#include "attestd/workload/cmdline.h"

#include <string.h>

/* Options by letter. Those of none of the three, and long ones, are not understood. */
struct interpreter {
    const char *name;
    const char *flags;  /* stand alone */
    const char *values; /* the rest of the argument, or the next one, belongs to it */
    const char *tails;  /* the rest of the argument belongs to it, never the next one */
};

static const struct interpreter interpreters[] = {
    {"python", "bBdEiIOPqsSuvx", "WX", ""},
    {"pypy", "bBdEiIOPqsSuvx", "WX", ""},
    {"bash", "abefhkmnptuvxBCEHPT", "oO", ""},
    {"dash", "abCefmnuvVx", "o", ""},
    {"sh", "abCefhkmnptuvx", "o", ""},
    {"ksh", "abCefhkmnptuvx", "o", ""},
    {"zsh", "abefhkmnptuvx", "o", ""},
    {"perl", "acfnpstTuUwWX", "I", "0DFiMml"},
    {"ruby", "alnpsvw", "ICr", "FKTW0"},
    {"node", "", "r", ""},
    {"nodejs", "", "r", ""},
};

/* "python", "python3", "python3.11" */
static const struct interpreter *find(struct att_slice exe)
{
    const uint8_t *slash = exe.len ? memrchr(exe.ptr, '/', exe.len) : NULL;
    size_t skip = slash ? (size_t)(slash - exe.ptr) + 1 : 0;
    struct att_slice name = ATT_SLICE(exe.ptr + skip, exe.len - skip);
    while (name.len && ((name.ptr[name.len - 1] >= '0' && name.ptr[name.len - 1] <= '9') ||
                        name.ptr[name.len - 1] == '.')) {
        name.len--;
    }
    for (size_t i = 0; i < sizeof interpreters / sizeof *interpreters; i++) {
        if (att_slice_eq_str(name, interpreters[i].name)) {
            return &interpreters[i];
        }
    }
    return NULL;
}

static bool next_arg(struct att_slice *rest, struct att_slice *ret_arg)
{
    if (rest->len == 0) {
        return false;
    }
    const uint8_t *end = memchr(rest->ptr, 0, rest->len);
    size_t len = end ? (size_t)(end - rest->ptr) : rest->len;
    *ret_arg = ATT_SLICE(rest->ptr, len);
    size_t taken = end ? len + 1 : len;
    *rest = ATT_SLICE(rest->ptr + taken, rest->len - taken);
    return true;
}

enum meaning { NOT_UNDERSTOOD, ALONE, TAKES_NEXT };

/* One argument of letters: "-uB", "-Wignore", "-W". */
static enum meaning option(const struct interpreter *of, struct att_slice arg)
{
    for (size_t i = 1; i < arg.len; i++) {
        char c = (char)arg.ptr[i];
        if (c == 0 || c == '-') {
            return NOT_UNDERSTOOD;
        }
        if (strchr(of->values, c)) {
            bool last = i + 1 == arg.len;
            bool shell = c == 'o' || c == 'O'; /* whose letters behind it are options again */
            return last ? TAKES_NEXT : shell ? NOT_UNDERSTOOD : ALONE;
        }
        if (strchr(of->tails, c)) {
            return ALONE;
        }
        if (!strchr(of->flags, c)) {
            return NOT_UNDERSTOOD;
        }
    }
    return ALONE;
}

bool workload_cmdline_script(struct att_slice exe, struct att_slice cmdline,
                             struct att_slice *ret_script)
{
    const struct interpreter *of = find(exe);
    struct att_slice arg;
    if (!of || !next_arg(&cmdline, &arg)) {
        return false;
    }
    while (next_arg(&cmdline, &arg)) {
        bool dash = arg.len && arg.ptr[0] == '-';
        bool plus = arg.len && arg.ptr[0] == '+' && strchr(of->values, 'o'); /* a shell's set +x */
        if (att_slice_eq_str(arg, "--")) {
            if (!next_arg(&cmdline, &arg) || arg.len == 0) {
                return false;
            }
            *ret_script = arg;
            return true;
        }
        if (!dash && !plus) {
            *ret_script = arg;
            return arg.len > 0;
        }
        enum meaning meaning = arg.len > 1 ? option(of, arg) : NOT_UNDERSTOOD; /* "-": stdin */
        if (meaning == NOT_UNDERSTOOD || (meaning == TAKES_NEXT && !next_arg(&cmdline, &arg))) {
            return false;
        }
    }
    return false;
}
