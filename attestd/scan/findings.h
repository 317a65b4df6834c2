/* What a scan found and what it did not look at. There is no field in which a value, a part of one
 * or a digest of one could be kept: names pass scan_name_show, the rest are paths, units and
 * numbers. */
#ifndef ATTESTD_SCAN_FINDINGS_H
#define ATTESTD_SCAN_FINDINGS_H

#include "attestd/base/err.h"
#include "attestd/scan/judge.h"

#include <sys/types.h>

#define SCAN_FINDINGS_MAX   100000
#define SCAN_FINDINGS_PLACE 256 /* of one file or process */
#define SCAN_UNIT_MAX       255
#define SCAN_PATH_MAX       4096
#define SCAN_SKIP_EXAMPLES  32

enum scan_source {
    SCAN_SRC_UNIT, /* a unit's file or drop-in */
    SCAN_SRC_ENVFILE,
    SCAN_SRC_CREDENTIAL, /* a well-known credential file, a key's file, a credential store */
    SCAN_SRC_FILE,       /* below a folder that was named */
    SCAN_SRC_ENVIRON,    /* of a process */
    SCAN_SRC_ARGUMENT,
    SCAN_SRC_HISTORY, /* of a shell or client */
    SCAN_SOURCES
};

struct scan_finding {
    enum scan_source source;
    enum scan_kind kind;
    enum scan_confidence confidence;
    const char *path; /* the file, or the process's executable; kept by the findings */
    const char *unit; /* "" where there is none; kept by the findings */
    const char *at;   /* static: "Environment", "ExecStart", "comment", … or "" */
    char name[SCAN_NAME_MAX + 1];
    uint32_t line;   /* 0: none */
    uint32_t pid;    /* of a process, else 0 */
    uint32_t more;   /* other processes of the same unit, user and executable with the same */
    uid_t uid;       /* the file's owner, the process's user */
    mode_t mode;     /* the file's permissions */
    bool overridden; /* a later drop-in takes it off; it is still in the file */
};

enum scan_skip {
    SCAN_SKIP_DENIED,  /* not permitted */
    SCAN_SKIP_LINK,    /* a symbolic link that somebody else could turn elsewhere */
    SCAN_SKIP_SPECIAL, /* a FIFO, device, socket */
    SCAN_SKIP_LARGE,   /* more than SCAN_FILE_MAX */
    SCAN_SKIP_BINARY,
    SCAN_SKIP_CHANGED,  /* while it was read; what was read was looked at */
    SCAN_SKIP_OTHER_FS, /* another file system below a home or a named folder */
    SCAN_SKIP_OUTSIDE,  /* a user's unit names a file outside of the user's home */
    SCAN_SKIP_ABSENT,   /* a unit names a file that is not there, without '-' */
    SCAN_SKIP_LINE,     /* a line that has not its form; looked at for shapes */
    SCAN_SKIP_SLOW,     /* a process whose memory did not answer in time */
    SCAN_SKIP_CUT,      /* of a process's environment or arguments only the first SCAN_FILE_MAX */
    SCAN_SKIP_MANY,     /* more entries, files or findings than there is room for */
    SCAN_SKIP_FAILED,   /* the system refused for another reason */
    SCAN_SKIPS
};
const char *scan_skip_id(enum scan_skip skip);
const char *scan_skip_text(enum scan_skip skip);
/* Whether something was not looked at because of it (not: a line, a comment, an absent file). */
bool scan_skip_matters(enum scan_skip skip);

struct scan_skipped {
    uint64_t n;
    struct {
        const char *path; /* kept by the findings */
        uint32_t line;
    } examples[SCAN_SKIP_EXAMPLES];
    size_t n_examples;
};

struct scan_findings {
    struct scan_finding *list;
    size_t n, cap;
    struct scan_skipped skipped[SCAN_SKIPS];
    struct {
        uint64_t files, units, processes, homes;
    } looked;
    char **texts; /* paths and units, each once in a row */
    size_t n_texts, cap_texts;
};

void scan_findings_done(struct scan_findings *findings);
/* A copy that lives as long as the findings do; NULL: no memory. */
const char *scan_findings_text(struct scan_findings *findings, const char *text);
/* Copies *finding, whose path and unit come from scan_findings_text. What is beyond
 * SCAN_FINDINGS_MAX, or finds no memory, is counted as skipped. */
void scan_findings_add(struct scan_findings *findings, const struct scan_finding *finding);
/* path: copied; NULL: none. line 0: the whole file. */
void scan_findings_skip(struct scan_findings *findings, enum scan_skip skip, const char *path,
                        uint32_t line);
/* Sorts, and makes one of the same finding in several processes. */
void scan_findings_merge(struct scan_findings *findings);
/* Whether everything was looked at. */
bool scan_findings_complete(const struct scan_findings *findings);

/* A path or unit for a terminal or JSON: control characters, backslashes and what is not UTF-8 as
 * \xHH, a part that has a key's shape as "(withheld)". Cut at size, which is at least 8. */
void scan_escape(char *ret, size_t size, const char *text);

#endif
