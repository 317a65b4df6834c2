/* What attestd remembers of its host: state_dir/host/host.json. */
#ifndef ATTESTD_HOST_RECORD_H
#define ATTESTD_HOST_RECORD_H

#include "attestd/base/buf.h"

#define HOST_RECORD_MAX ((size_t)64 << 10)
#define HOST_URL_MAX    2048

/* Strings are NUL-terminated and empty when unknown. */
struct host_record {
    char issuer_url[HOST_URL_MAX + 1]; /* base URL that all of this belongs to */
    char ca_sha256[65];                /* hex, when the pin came from a ticket */
    char kid[HOST_URL_MAX + 1];        /* account URL */
    char thumbprint[44];               /* of the account key that kid is for */
    char ak_url[HOST_URL_MAX + 1];     /* AK record at the issuer */
    int64_t ak_expires_at;             /* UTC seconds */
    int64_t ak_enrolled_at;
    char ak_name[133]; /* hex of the AK's Name */
    char host_id[65];  /* EK id */
    bool approved;
    int64_t reset_count, restart_count; /* of the enrolment's boot */
    char firmware[17];
};

ATT_MUST_USE enum att_rc host_record_encode(const struct host_record *rec, struct att_buf *ret_text,
                                            struct att_err *err);
/* Strict: every member, nothing else, in bounds. */
ATT_MUST_USE enum att_rc host_record_parse(struct att_slice text, struct host_record *ret_rec,
                                           struct att_err *err);
/* ATT_E_NOTFOUND when absent; one that does not parse is set aside as .bad (ATT_E_PARSE). */
ATT_MUST_USE enum att_rc host_record_load(const char *path, struct host_record *ret_rec,
                                          struct att_err *err);
ATT_MUST_USE enum att_rc host_record_save(const char *path, const struct host_record *rec,
                                          struct att_err *err);

#endif
