/* An allow list for IMA's measurement list: which file may have which digest. A text of its own,
 * named by its SHA-256 in a boot policy's `ima` rule (imarule.h):
 *
 *   # attestd IMA allow list 1
 *   sha256:<hex> /usr/bin/bash
 *   verity:sha256:<hex> /srv/models/weights.bin
 *
 * The first line is exactly that. Each further one ends in a newline and is a comment ("#…") or an
 * entry: the digest in hex, lower case, as IMA's ASCII list shows it (sha256, sha384 or sha512 of
 * the file, or its fs-verity digest), one space, the name. The name is what the kernel writes: the
 * path with "_" for each space, or the name of what was measured (ima-buf). Bytes of it below 0x21,
 * 0x7f, the backslash and those that are not UTF-8 are written \xHH, and no others. A name may
 * stand in several lines, a line only once. Comments are UTF-8.
 *
 * Parsing does no I/O; a list is never changed afterwards and is counted, for any number of
 * threads. */
#ifndef ATTESTD_VERIFY_IMALIST_H
#define ATTESTD_VERIFY_IMALIST_H

#include "attestd/base/buf.h"
#include "attestd/base/err.h"
#include "attestd/base/hash.h"
#include "tpm/parse/ima.h"

#define VERIFY_IMALIST_HEADER    "# attestd IMA allow list 1\n"
#define VERIFY_IMALIST_BYTES_MAX ((size_t)16 << 20)
#define VERIFY_IMALIST_LINE_MAX                                                                    \
    32768                            /* bytes, of a comment too: shorter than a part of an upload */
#define VERIFY_IMALIST_NAME_MAX 4096 /* bytes; PATH_MAX */

struct verify_imalist;

/* ATT_E_PARSE names the line; ATT_E_LIMIT beyond the caps. */
ATT_MUST_USE enum att_rc verify_imalist_parse(struct att_slice text, struct verify_imalist **ret,
                                              struct att_err *err);
/* One more owner; each gives it back with verify_imalist_free (NULL is fine). */
struct verify_imalist *verify_imalist_ref(struct verify_imalist *list);
void verify_imalist_free(struct verify_imalist *list);
void verify_imalist_cleanup(struct verify_imalist **list);
#define verify_autoimalist ATT_CLEANUP(verify_imalist_cleanup) struct verify_imalist

const uint8_t *verify_imalist_sha256(const struct verify_imalist *list); /* of its text */
size_t verify_imalist_count(const struct verify_imalist *list);          /* entries */
size_t verify_imalist_memory(const struct verify_imalist *list);         /* bytes it occupies */

/* What kind of digest it is: fs-verity's or the file's, and the hash. 0: none that a list may have
 * (SHA-1, MD5, one whose length is not its algorithm's). */
unsigned verify_imalist_kind(const char *kind, const char *alg, size_t digest_len);
/* "sha256", "verity:sha512"… */
const char *verify_imalist_kind_name(unsigned kind);
size_t verify_imalist_kind_len(unsigned kind); /* bytes of the digest */

/* One entry of a name. Borrows from the list. */
struct verify_imalist_entry {
    struct att_slice name;
    unsigned kind;
    const uint8_t *digest; /* verify_imalist_kind_len */
};
/* The entries of a name, one after the other: at is 0 for the first, and is moved. False: no
 * further one. */
bool verify_imalist_next(const struct verify_imalist *list, struct att_slice name, size_t *at,
                         struct verify_imalist_entry *ret);
/* Every entry, in the order of the text; i below the count. */
struct verify_imalist_entry verify_imalist_at(const struct verify_imalist *list, size_t i);
/* Is this name there with this digest? ret_named: with another, at least. */
bool verify_imalist_has(const struct verify_imalist *list, struct att_slice name, unsigned kind,
                        const uint8_t *digest, bool *ret_named);

/* Appends an entry's line. */
void verify_imalist_put(struct att_buf *buf, const struct verify_imalist_entry *entry);

#endif
