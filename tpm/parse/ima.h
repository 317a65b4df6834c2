/* IMA's measurement list, as the kernel shows it: binary (little endian, packed) or ASCII. Kernel:
 * security/integrity/ima/ima_fs.c and ima_template_lib.c. Since Linux 5.8 each bank of PCR 10 is
 * extended with that bank's hash of the template data, whatever hash the list shows (SHA-1, or that
 * of its name for lists like binary_runtime_measurements_sha256, Linux 6.10).
 *
 * Template data, which is what is hashed: for each field its length (u32 LE) and its bytes; of the
 * template "ima" the 20 bytes of the file's digest and the name padded to 256 with zeroes. */
#ifndef TPM_PARSE_IMA_H
#define TPM_PARSE_IMA_H

#include "attestd/base/buf.h"
#include "attestd/base/err.h"
#include "attestd/base/slice.h"
#include "tpm/parse/pcr.h"
#include "tpm/parse/types.h"

#define PARSE_IMA_MAX       ((size_t)64 << 20)  /* bytes of a list */
#define PARSE_IMA_ENTRY_MAX ((size_t)256 << 10) /* bytes of an entry, or of its line */
#define PARSE_IMA_PCR       10                  /* CONFIG_IMA_MEASURE_PCR_IDX */
#define PARSE_IMA_PARTS     3                   /* slices whose concatenation is hashed */
#define PARSE_IMA_TEMPLATES 8
#define PARSE_IMA_FIELDS    9

enum parse_ima_field {
    PARSE_IMA_END = 0,
    PARSE_IMA_D,            /* "d": 20 bytes, SHA-1 or MD5 and zeroes */
    PARSE_IMA_D_NG,         /* "d-ng": "sha256:" NUL digest */
    PARSE_IMA_D_NGV2,       /* "d-ngv2": "ima:sha256:" or "verity:sha256:", NUL, digest */
    PARSE_IMA_N,            /* "n": name without NUL */
    PARSE_IMA_N_NG,         /* "n-ng": name and NUL; the kernel writes "_" for each space */
    PARSE_IMA_SIG,          /* "sig": the file's security.ima */
    PARSE_IMA_D_MODSIG,     /* as d-ng, or empty */
    PARSE_IMA_MODSIG,       /* appended PKCS#7 signature, or empty */
    PARSE_IMA_BUF,          /* what was measured itself: keys, kexec's command line… */
    PARSE_IMA_EVMSIG,       /* portable EVM signature, or empty */
    PARSE_IMA_XATTRNAMES,   /* "a|b" and NUL */
    PARSE_IMA_XATTRLENGTHS, /* u32 each */
    PARSE_IMA_XATTRVALUES,
    PARSE_IMA_UINT32, /* iuid, igid */
    PARSE_IMA_UINT16, /* imode */
};

struct parse_ima_template {
    const char *name;
    enum parse_ima_field fields[PARSE_IMA_FIELDS];
};
/* ima, ima-ng, ima-sig, ima-buf, ima-modsig, evm-sig, ima-ngv2, ima-sigv2; NULL for any other. */
const struct parse_ima_template *parse_ima_template_by_name(struct att_slice name);
/* "sig", "n-ng"…; the i-th of the template. */
const char *parse_ima_field_name(const struct parse_ima_template *tmpl, size_t i);

/* One entry. Borrows the list's bytes, of an ASCII list also the iterator's scratch: valid until
 * the next call. */
struct parse_ima_entry {
    size_t number; /* from 0, the boot_aggregate */
    size_t offset; /* of its first byte in the list */
    size_t size;   /* bytes in the list */
    uint32_t pcr;  /* < 24 */
    const struct parse_ima_template *tmpl;
    struct att_slice shown; /* the template hash that the list shows */
    /* That hash is all zeroes: the kernel could not measure (a file that was open for writing),
     * extended all ones, and nothing of the rest is bound to anything. */
    bool violation;
    struct att_slice parts[PARSE_IMA_PARTS]; /* what was hashed */
    size_t n_parts;
    struct att_slice fields[PARSE_IMA_FIELDS]; /* contents, in the template's order */
    size_t n_fields;
    /* of d, d-ng, d-ngv2, n, n-ng */
    char kind[8];          /* "ima", "verity"; empty where the template does not say */
    char alg[16];          /* the kernel's name of the hash; "sha1" for template "ima" */
    struct att_slice file; /* digest of the file, or of what was measured */
    struct att_slice name; /* path or name, without NUL */
};

/* An iterator. Borrows the bytes; for an ASCII list it has a scratch buffer, as long as the longest
 * line at most. */
struct parse_ima {
    struct att_slice bytes;
    bool ascii;
    size_t shown_len;   /* bytes of the template hash that it shows: 20, 32, 48 or 64 */
    size_t pos, number; /* of the next entry */
    struct att_buf scratch;
};

/* Looks at the first entry for the form. An empty list is ATT_E_PARSE, more than PARSE_IMA_MAX
 * ATT_E_LIMIT. */
ATT_MUST_USE enum att_rc parse_ima_init(struct parse_ima *ret_list, struct att_slice bytes,
                                        struct att_err *err);
void parse_ima_done(struct parse_ima *list);
/* The next entry; ATT_E_NOTFOUND at the end, err untouched. Messages begin "pcr10 entry 41: …" and
 * name the offset. A template or a hash that is not known, a field that is not as long as it says,
 * is ATT_E_PARSE. After an error the iterator must not be used again. The hash that the list shows
 * is not compared with the data: parse_ima_replay does. */
ATT_MUST_USE enum att_rc parse_ima_next(struct parse_ima *list, struct parse_ima_entry *ret_entry,
                                        struct att_err *err);

/* What a list leaves behind in the PCRs of one bank. */
struct parse_ima_pcrs {
    uint16_t bank;
    size_t digest_len;
    uint8_t value[PARSE_PCR_COUNT][PARSE_DIGEST_MAX];
    uint32_t with_entries;
    size_t last_entry[PARSE_PCR_COUNT];
    size_t n_entries, n_violations, first_violation; /* the latter: number of the entry */
    size_t used;                                     /* bytes of the list that were replayed */
};

/* How to replay. */
struct parse_ima_replay {
    uint16_t bank;
    /* Values before the first entry, digest_len bytes each; NULL: zeroes. */
    const uint8_t (*start)[PARSE_DIGEST_MAX];
    /* What a replay of the list's first used bytes gave, which the caller knows to be the same:
     * goes on from there, start is not looked at. NULL: from the beginning. */
    const struct parse_ima_pcrs *after;
    /* Bytes that must be replayed, a whole number of entries: the signed part. SIZE_MAX: all. */
    size_t at_least;
    /* Behind at_least the replay ends where PCR 10 has this value (the bank's length), or at the
     * list's end. NULL: at at_least. */
    const uint8_t *until;
};
/* Each entry's data must have the hash that the list shows ("template hash does not match its
 * data", named), all of them are extended; violations extend all ones, whatever their data. Behind
 * until nothing is looked at. ATT_E_PARSE as in parse_ima_next, and where at_least is inside an
 * entry or behind the end. */
ATT_MUST_USE enum att_rc parse_ima_replay(struct att_slice bytes,
                                          const struct parse_ima_replay *how,
                                          struct parse_ima_pcrs *ret_pcrs, struct att_err *err);

/* {"format": "ima-binary" | "ima-ascii", "events": [{"event": N, "pcr": 10, "template": "ima-ng",
 * "digests": {"sha1": hex, "sha256": hex}, "digestCoversPayload": bool, "violation": true?,
 * "payload": {"digest": "sha256:<hex>", "kind"?: "verity", "path": …, …}}], "pcrs": {"sha256":
 * {"10": hex}, …}}. digests: of the template data, computed; of a violation what was extended.
 * digestCoversPayload is false for violations and where the list shows another hash. The caller
 * owns the result. */
ATT_MUST_USE enum att_rc parse_ima_explain(struct att_slice bytes, json_t **ret_json,
                                           struct att_err *err);

#endif
