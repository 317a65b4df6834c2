/* Does what lies on a disk agree with a manifest? The comparison, for attestctl, which looks
 * itself, and attestd, which has whod look. */
#ifndef ATTESTD_PROVISION_MANIFEST_CHECK_H
#define ATTESTD_PROVISION_MANIFEST_CHECK_H

#include "provision/manifest/manifest.h"

#define MANIFEST_BATCH        16 /* paths measured by one call */
#define MANIFEST_FINDINGS_MAX 64 /* kept; all are counted */
#define MANIFEST_FOLDERS_MAX  8192
#define MANIFEST_DEPTH_MAX    64

enum manifest_kind {
    MANIFEST_ABSENT = 0,
    MANIFEST_REGULAR,
    MANIFEST_SYMLINK,
    MANIFEST_FOLDER,
    /* A device, FIFO, socket, a file that the kernel makes up, one behind a link on the way: text
     * says so, or is empty. */
    MANIFEST_OTHER,
    MANIFEST_UNREADABLE, /* what stands there is not known now (text: why), and may be good */
    MANIFEST_NOT_YET,    /* the same, for want of time */
};

/* What stands at a path. No symbolic link is followed, nor one on the way. */
struct manifest_seen {
    enum manifest_kind kind;
    uint64_t size;
    bool has_verity; /* the kernel's word: what is read is what was enabled */
    uint8_t verity[ATT_SHA256_LEN];
    bool has_sha256; /* not read where fs-verity answers, nor where the size is another */
    uint8_t sha256[ATT_SHA256_LEN];
    uint32_t dev_major,
        dev_minor; /* of the file system that a regular file lies on; 0, 0: not told */
    char text[MANIFEST_PATH_MAX + 1]; /* a link's target; or why */
};

struct manifest_ask {
    const char *path;
    uint64_t size; /* a file of another size need not be read; UINT64_MAX: of any */
};

/* A name in a folder. */
struct manifest_name {
    char name[256];
    enum manifest_kind kind; /* as readdir tells it; MANIFEST_UNREADABLE where nothing does */
};

struct manifest_prober {
    void *user;
    /* ret has n places. An error is one of the prober's (whod away), not of a file. */
    enum att_rc (*measure)(void *user, const struct manifest_ask *asks, size_t n,
                           struct manifest_seen *ret, struct att_err *err);
    /* All names of a folder but "." and "..", in any order; the caller frees *ret_names. A folder
     * that is not there has none; what is no folder is ATT_E_DENIED; one that cannot be read now is
     * ATT_E_IO. */
    enum att_rc (*list)(void *user, const char *path, struct manifest_name **ret_names,
                        size_t *ret_n, struct att_err *err);
};

enum manifest_trouble {
    MANIFEST_CHANGED = 1,
    MANIFEST_MISSING,
    MANIFEST_EXTRA,
    MANIFEST_NOT_ONE,
    MANIFEST_UNKNOWN, /* it could not be looked at: neither a difference nor agreement */
};

struct manifest_finding {
    enum manifest_trouble trouble;
    char path[MANIFEST_PATH_MAX + 1];
    char text[240]; /* a sentence without the path: both digests, or what it is */
};
const char *manifest_trouble_name(enum manifest_trouble trouble); /* "changed" … */

struct manifest_report {
    /* Findings, of which the first MANIFEST_FINDINGS_MAX are kept, and a difference in any case. */
    size_t n;
    size_t n_unknown; /* of them MANIFEST_UNKNOWN */
    struct manifest_finding findings[MANIFEST_FINDINGS_MAX];
    size_t by_verity, by_sha256; /* files that agree, and how that is known */
    /* The device of the first file that agrees; of another another one was told. */
    bool has_device, devices_differ;
    uint32_t dev_major, dev_minor;
};

/* Everything is compared, whatever was found before. ATT_OK also with findings. */
ATT_MUST_USE enum att_rc manifest_check(const struct manifest *manifest,
                                        const struct manifest_prober *prober,
                                        struct manifest_report *ret_report, struct att_err *err);
/* ATT_OK without findings; ATT_E_DENIED modelDigest with the first difference and how many findings
 * there are; ATT_E_RETRY notMeasured where no difference was seen and something could not be looked
 * at: another time says more. */
ATT_MUST_USE enum att_rc manifest_report_err(const struct manifest_report *report,
                                             struct att_err *err);

#endif
