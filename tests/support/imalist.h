/* IMA lists and systemd's log for tests: written independently of the parsers, after the kernel's
 * ima_fs.c and systemd's tpm2-util.c. Abort the test program when anything cannot be made. */
#ifndef ATTESTD_TESTS_IMALIST_H
#define ATTESTD_TESTS_IMALIST_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"

#define IMALIST_EXTRA 7

struct imalist_entry {
    const char *tmpl;   /* "ima-ngv2"… */
    const char *prefix; /* "ima:sha256", "sha256"; NULL: template "ima" */
    struct att_slice file;
    const char *name;
    struct att_slice extra[IMALIST_EXTRA]; /* the fields behind */
    size_t n_extra;
    bool violation;
};

/* Template data as it is hashed; appends. */
void imalist_data(const struct imalist_entry *entry, struct att_buf *ret);
/* The entry as the kernel shows it, PCR 10, with the SHA-1 template hash; appends. */
void imalist_binary(const struct imalist_entry *entry, struct att_buf *ret);
void imalist_ascii(const struct imalist_entry *entry, struct att_buf *ret);
/* value ← SHA-256(value ‖ SHA-256(template data)), or all ones for a violation. */
void imalist_extend(const struct imalist_entry *entry, uint8_t value[ATT_SHA256_LEN]);
/* An ima-ngv2 entry with a digest that is the SHA-256 of name. digest must outlive it. */
struct imalist_entry imalist_file(const char *name, uint8_t digest[ATT_SHA256_LEN]);

/* A record of systemd's log, as systemd-pcrextend writes it; digest NULL: of the string. */
void systemdlog_record(struct att_buf *ret, unsigned pcr, const char *type, const char *string,
                       const uint8_t *digest);
void systemdlog_extend(const char *string, uint8_t value[ATT_SHA256_LEN]);

#endif
