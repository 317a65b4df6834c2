/* systemd.unit(5), "SPECIFIERS", as far as they occur in paths. */
#include "attestd/scan/internal.h"

#include <stdio.h>
#include <string.h>

struct out {
    char *ptr;
    size_t len, size;
    bool full;
};

static void add(struct out *o, const char *text, size_t len)
{
    if (o->len + len + 1 > o->size) {
        o->full = true;
        return;
    }
    memcpy(o->ptr + o->len, text, len);
    o->len += len;
    o->ptr[o->len] = 0;
}

static void directory(struct out *o, const char *home, const char *below, const char *system)
{
    if (home) {
        add(o, home, strlen(home));
        add(o, below, strlen(below));
    } else {
        add(o, system, strlen(system));
    }
}

/* foo@bar.service: foo is the prefix, bar the instance, which a template has not got. */
static void of_unit(struct out *o, char what, const char *unit)
{
    const char *dot = strrchr(unit, '.'), *at = strchr(unit, '@');
    size_t stem = dot ? (size_t)(dot - unit) : strlen(unit);
    size_t prefix = at && (size_t)(at - unit) < stem ? (size_t)(at - unit) : stem;
    size_t from = prefix < stem ? prefix + 1 : stem;
    switch (what) {
    case 'n':
    case 'N':
        add(o, unit, from);
        if (prefix < stem) {
            add(o, from < stem ? unit + from : "*", from < stem ? stem - from : 1);
        }
        add(o, unit + stem, what == 'n' ? strlen(unit + stem) : 0);
        break;
    case 'p':
        add(o, unit, prefix);
        break;
    default: /* i, I: escaped or not is another text only where it has a '-' or '\' */
        if (from < stem && (what == 'i' || !strpbrk(unit + from, "-\\"))) {
            add(o, unit + from, stem - from);
        } else {
            add(o, "*", 1);
        }
    }
}

static void specifier(struct out *o, char what, const char *unit, const char *home)
{
    switch (what) {
    case '%':
        add(o, "%", 1);
        break;
    case 'n':
    case 'N':
    case 'p':
    case 'i':
    case 'I':
        of_unit(o, what, unit);
        break;
    case 'E':
        directory(o, home, "/.config", "/etc");
        break;
    case 'S':
        directory(o, home, "/.local/state", "/var/lib");
        break;
    case 'C':
        directory(o, home, "/.cache", "/var/cache");
        break;
    case 'L':
        directory(o, home, "/.local/state/log", "/var/log");
        break;
    case 'h':
        directory(o, home, "", "/root");
        break;
    case 't':
        add(o, home ? "*" : "/run", home ? 1 : 4);
        break;
    case 'T':
        add(o, "/tmp", 4);
        break;
    case 'V':
        add(o, "/var/tmp", 8);
        break;
    default:
        add(o, "*", 1);
    }
}

bool scan_specifiers(char *ret, size_t size, const char *path, const char *unit, const char *home)
{
    struct out o = {ret, 0, size, false};
    ret[0] = 0;
    for (; *path; path++) {
        if (*path == '%' && path[1]) {
            specifier(&o, *++path, unit, home);
        } else {
            add(&o, path, 1);
        }
    }
    return !o.full && ret[0] == '/';
}
