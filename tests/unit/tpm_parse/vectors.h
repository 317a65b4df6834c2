/* What the tests of tpm/parse share: files of tests/vectors and of the shared vectors, and the
 * checks that every parser of exact structures must pass. */
#ifndef TESTS_UNIT_TPM_PARSE_VECTORS_H
#define TESTS_UNIT_TPM_PARSE_VECTORS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attestd/base/buf.h"
#include "attestd/base/io.h"

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        struct att_err assert_err = {0};                                                           \
        struct att_err *err = &assert_err;                                                         \
        if ((call) != ATT_OK) {                                                                    \
            fail_msg("%s: %s", #call, assert_err.msg);                                             \
        }                                                                                          \
    } while (0)

/* The call (which uses `err`) fails with this code, this reason word and this text in its message.
 */
#define assert_refused(call, code, why, text)                                                      \
    do {                                                                                           \
        struct att_err assert_err = {0};                                                           \
        struct att_err *err = &assert_err;                                                         \
        assert_int_equal((call), (code));                                                          \
        assert_int_equal(assert_err.rc, (code));                                                   \
        assert_string_equal(assert_err.reason, (why));                                             \
        if (!strstr(assert_err.msg, (text))) {                                                     \
            fail_msg("\"%s\" does not say \"%s\"", assert_err.msg, (text));                        \
        }                                                                                          \
    } while (0)

static inline void read_file_at(const char *folder, const char *name, struct att_buf *ret)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    struct att_err err = {0};
    if (att_io_read_file(path, (size_t)8 << 20, ret, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
}

/* tests/vectors/tpm/NAME */
static inline void read_vector(const char *name, struct att_buf *ret)
{
    const char *root = getenv("ATT_VECTORS");
    char folder[900];
    snprintf(folder, sizeof folder, "%s/tpm", root ? root : "tests/vectors");
    read_file_at(folder, name, ret);
}

/* The shared vectors, which are not part of this tree: NULL when they are not here. */
static inline const char *shared_vectors(void)
{
    static char path[900];
    const char *named = getenv("ATTESTD_VECTORS"), *source = getenv("ATT_SOURCE_DIR");
    if (named) {
        snprintf(path, sizeof path, "%s", named);
    } else {
        snprintf(path, sizeof path, "%s/../shared/vectors", source ? source : ".");
    }
    char probe[1000];
    snprintf(probe, sizeof probe, "%s/README.md", path);
    FILE *f = fopen(probe, "r");
    if (!f) {
        return NULL;
    }
    fclose(f);
    return path;
}

/* Every proper prefix and every one-byte extension of bytes must be refused. Each try has a heap
 * copy of exactly its length, so that a read past the end is seen. */
static inline void assert_exact(struct att_slice bytes, enum att_rc (*parse)(struct att_slice))
{
    for (size_t len = 0; len < bytes.len; len++) {
        uint8_t *copy = malloc(len ? len : 1);
        assert_non_null(copy);
        memcpy(copy, bytes.ptr, len);
        enum att_rc rc = parse(ATT_SLICE(copy, len));
        free(copy);
        if (rc == ATT_OK) {
            fail_msg("the first %zu of %zu bytes were accepted", len, bytes.len);
        }
    }
    uint8_t *longer = malloc(bytes.len + 1);
    assert_non_null(longer);
    memcpy(longer, bytes.ptr, bytes.len);
    longer[bytes.len] = 0;
    enum att_rc rc = parse(ATT_SLICE(longer, bytes.len + 1));
    free(longer);
    assert_int_not_equal(rc, ATT_OK);
}

#endif
