/* An agent's manifest: which files make it what it is, with their digests (docs/PROTOCOL.md, "An
 * agent's manifest"). JSON on the outside; what is signed and quoted is its root, SHA-256 over one
 * canonical encoding of everything in it but root and signature. Pure: no file is opened here. */
#ifndef ATTESTD_PROVISION_MANIFEST_MANIFEST_H
#define ATTESTD_PROVISION_MANIFEST_MANIFEST_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"

#define MANIFEST_MAX        ((size_t)3 << 20) /* bytes of a document */
#define MANIFEST_FILES_MAX  8192
#define MANIFEST_LINKS_MAX  1024
#define MANIFEST_DIRS_MAX   256
#define MANIFEST_PATH_MAX   1023 /* bytes of a path or of a link's target */
#define MANIFEST_SIG_MAX    4096 /* characters of a signature */
#define MANIFEST_BUNDLE_MAX 16   /* model-signing bundles */

enum manifest_role {
    MANIFEST_FILE = 0, /* no more is said of it */
    MANIFEST_EXECUTABLE,
    MANIFEST_SCRIPT,
    MANIFEST_PACKAGE,
    MANIFEST_MODEL,
    MANIFEST_PROMPT,
    MANIFEST_TOOLS,
    MANIFEST_CONFIG,
    MANIFEST_ROLE_COUNT
};
const char *manifest_role_name(enum manifest_role role); /* "executable"; never NULL */
bool manifest_role_parse(struct att_slice name, enum manifest_role *ret_role);

struct manifest_file {
    char *path; /* see manifest_path_check */
    enum manifest_role role;
    uint64_t size;
    uint8_t sha256[ATT_SHA256_LEN];
    /* The digest by which fs-verity knows the file: SHA-256, blocks of 4096 bytes, no salt, unless
     * it had been enabled with others before. */
    uint8_t verity[ATT_SHA256_LEN];
};
struct manifest_link {
    char *path, *target;
};

/* Owns; {0} is an empty one. Lists are in the order of their paths' bytes, each path once in all of
 * files and links. */
struct manifest {
    struct manifest_file *files;
    size_t n_files;
    struct manifest_link *links; /* symbolic links inside of dirs */
    size_t n_links;
    char **dirs; /* folders with nothing in them that is not listed, at any depth */
    size_t n_dirs;
    uint8_t root[ATT_SHA256_LEN];
    char *signature; /* detached JWS over the root (sign.h); NULL: none */
};
void manifest_done(struct manifest *manifest);

/* Absolute, no empty, "." or ".." component, no "/" at its end, UTF-8 without control characters,
 * at most MANIFEST_PATH_MAX bytes: one spelling for each file. */
bool manifest_path_ok(const char *path);

/* Borrow what they are given, copy it. ATT_E_LIMIT names the cap; ATT_E_INVAL the path. */
ATT_MUST_USE enum att_rc manifest_add_file(struct manifest *manifest,
                                           const struct manifest_file *file, struct att_err *err);
ATT_MUST_USE enum att_rc manifest_add_link(struct manifest *manifest, const char *path,
                                           const char *target, struct att_err *err);
ATT_MUST_USE enum att_rc manifest_add_dir(struct manifest *manifest, const char *path,
                                          struct att_err *err);
/* Sorts, and computes the root. ATT_E_EXISTS names a path that stands there twice. */
ATT_MUST_USE enum att_rc manifest_finish(struct manifest *manifest, struct att_err *err);

/* Of a finished one. Appended; one spelling for one manifest, ends with a newline. */
ATT_MUST_USE enum att_rc manifest_encode(const struct manifest *manifest, struct att_buf *ret_text,
                                         struct att_err *err);
/* Strict: version 1, no unknown member, lists in order, and the root it names is the one computed
 * from the rest (ATT_E_AUTH manifestRoot). Says nothing about the signature. */
ATT_MUST_USE enum att_rc manifest_parse(struct att_slice text, struct manifest *ret_manifest,
                                        struct att_err *err);

/* NULL: not listed. */
const struct manifest_file *manifest_find_file(const struct manifest *manifest, const char *path);
const struct manifest_link *manifest_find_link(const struct manifest *manifest, const char *path);

#endif
