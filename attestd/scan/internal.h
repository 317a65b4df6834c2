/* Between the files of this folder. */
#ifndef ATTESTD_SCAN_INTERNAL_H
#define ATTESTD_SCAN_INTERNAL_H

#include "attestd/scan/scan.h"
#include "attestd/scan/tree.h"

#define SCAN_REFS_MAX  64 /* files that one file of a unit names */
#define SCAN_HOMES_MAX 4096
#define SCAN_HOME_MS   60000 /* no user holds the scan up by what is at home */

/* A file that a unit names. The path is wiped: nobody knows what a broken file has in its place. */
struct scan_ref {
    bool credential;
    uint32_t line;
    char name[SCAN_NAME_MAX + 1];
    char path[1024];
};

struct scan_refs {
    size_t n;
    bool more; /* than there is room for */
    struct scan_ref list[SCAN_REFS_MAX];
};

/* What is known of a file before it is read. */
struct scan_place {
    enum scan_source source;
    enum scan_format format;
    const char *unit;  /* NULL: none */
    const char *names; /* fields that are credentials by the format, between spaces; or NULL */
    enum scan_kind kind;
    const char *name; /* of a SCAN_WHOLE */
    bool binary;      /* is looked at for shapes also where it is no text */
    bool shadowed;    /* another file is in its place */
    bool quiet;       /* a device is no news: a masked unit */
    struct scan_refs *refs;
};

struct scan_home {
    char name[64], path[SCAN_PATH_MAX];
    uid_t uid;
};

/* Which files were read, so that one that two places name is looked at once. */
struct scan_seen {
    struct {
        dev_t dev;
        ino_t ino;
    } * slots;
    size_t n;
};

struct scan_ctx {
    const struct scan_options *options;
    struct scan_findings *findings;
    struct att_secret buf;
    struct scan_root root;
    struct scan_home *homes;
    size_t n_homes;
    struct scan_seen seen;
    /* the file or process that is being parsed */
    const struct scan_place *place;
    struct scan_finding now;
    size_t in_place;
    size_t unit_from;      /* the first finding of the unit in work */
    int64_t home_until_ms; /* CLOCK_BOOTTIME: what one home may take */
};

/* scan.c */
/* Reads and parses one file. *ret_st may be NULL. False: it is not there, or was skipped. */
bool scan_file(struct scan_ctx *ctx, const struct scan_root *root, const char *path,
               const struct scan_place *place);
/* The same for bytes that are in ctx->buf; ctx->now says whose. */
void scan_bytes(struct scan_ctx *ctx, struct scan_text text, const struct scan_place *place,
                void (*parse)(struct scan_text, const struct scan_sink *));
/* Each file that a pattern (of fnmatch(3), in each component) names; returns how many. */
size_t scan_glob(struct scan_ctx *ctx, const struct scan_root *root, const char *pattern,
                 const struct scan_place *place);
void scan_skipped(struct scan_ctx *ctx, const struct scan_root *root, const char *path,
                  enum scan_skip why);
/* Whether a home's time is over; then it is said, and nothing more of it is looked at. */
bool scan_too_late(struct scan_ctx *ctx, const struct scan_root *root, const char *path);
/* False: it was there before. */
bool scan_first(struct scan_seen *seen, const struct stat *st);

enum att_rc scan_homes_load(struct scan_ctx *ctx, struct att_err *err);
void scan_homes(struct scan_ctx *ctx);
void scan_system(struct scan_ctx *ctx);
void scan_units(struct scan_ctx *ctx);
void scan_processes(struct scan_ctx *ctx);
enum att_rc scan_paths_check(struct scan_ctx *ctx, struct att_err *err);
void scan_paths(struct scan_ctx *ctx);
bool scan_home_root(struct scan_ctx *ctx, const struct scan_home *home, struct scan_root *ret);
/* units_path.c: specifiers resolved, '*' for what is not known. home NULL: the system's manager.
 * False: no path that could be a file's. */
bool scan_specifiers(char *ret, size_t size, const char *path, const char *unit, const char *home);

#endif
