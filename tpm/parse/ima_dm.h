/* What device-mapper tells IMA about a device's tables (Linux 5.15 and later, where IMA's policy
 * has "measure func=CRITICAL_DATA label=device-mapper"): entries of template ima-buf with the names
 * dm_table_load, dm_device_resume, dm_table_clear, dm_device_remove, dm_device_rename. Kernel:
 * Documentation/admin-guide/device-mapper/dm-ima.rst, drivers/md/dm-ima.c. The text is the entry's
 * buffer, of which the template hash is; names in it are escaped (a "\" before each of "\;=,"),
 * so that no name can play a member.
 *
 *   dm_version=V;name=N,uuid=U,major=254,minor=0,minor_count=1,num_targets=1;
 *   target_index=0,target_begin=0,target_len=2048,target_name=verity,…;     (load)
 *   active_table_hash=sha256:HEX;current_device_capacity=2048;              (resume) */
#ifndef TPM_PARSE_IMA_DM_H
#define TPM_PARSE_IMA_DM_H

#include "attestd/base/hash.h"
#include "tpm/parse/ima.h"

#define PARSE_IMA_DM_MAX ((size_t)64 << 10) /* bytes of a text that is read */

enum parse_ima_dm_kind {
    PARSE_IMA_DM_NONE = 0, /* no word of device-mapper's */
    PARSE_IMA_DM_LOAD,     /* a table, or a part of one, was put beside the active one */
    PARSE_IMA_DM_RESUME,   /* that table is the active one now */
    PARSE_IMA_DM_OTHER,    /* clear, remove, rename: no further table comes into force by it */
};

struct parse_ima_dm {
    enum parse_ima_dm_kind kind;
    bool has_device; /* of LOAD always; a RESUME without a table names no device */
    uint32_t major, minor;
    /* of LOAD: the whole table is one verity target whose root hash is of 32 bytes, which checks
     * every block at each read and fails what does not have its digest. Otherwise why not. */
    bool is_verity;
    const char *why; /* static */
    uint8_t root[ATT_SHA256_LEN];
    /* of LOAD: SHA-256 of the text; of RESUME: what the kernel calls the active table, has_table */
    bool has_table;
    uint8_t table[ATT_SHA256_LEN];
};

/* ATT_E_PARSE: it is one of device-mapper's by its name, and its text has not the form; ATT_E_LIMIT
 * beyond PARSE_IMA_DM_MAX. Entries of files and of others are PARSE_IMA_DM_NONE. */
ATT_MUST_USE enum att_rc parse_ima_dm(const struct parse_ima_entry *entry,
                                      struct parse_ima_dm *ret_dm, struct att_err *err);

#endif
