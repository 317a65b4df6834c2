/* The `ima` rule of a boot policy (format 2, with ima among its logs): what IMA may have measured.
 *
 *   "ima": {"allowlists": [{"sha256": hex, "label"?, "notBefore"?, "notAfter"?}, …],
 *           "excludes": [{"prefix": "/tmp/", "reason": text}, …]?,
 *           "templates": ["ima-ng", …]?,
 *           "certificates": [base64 of a DER certificate, …]?,
 *           "severity"?, "remedy"?}
 *
 * allowlists: 1-16, each by the SHA-256 of its text (imalist.h), with a window of its own; an entry
 * is allowed where one of those that are valid now has its name with its digest. excludes: 0-64
 * prefixes of paths that may have any digest, each with a reason; a name that an allow list has,
 * valid now or not, is never excluded. templates: default all but "ima", whose digests are SHA-1 or
 * MD5. certificates: 0-16, no two of one key id; an entry whose file signature (IMA's "sig" field)
 * one of their keys made over the digest is allowed under any name. */
#ifndef ATTESTD_VERIFY_IMARULE_H
#define ATTESTD_VERIFY_IMARULE_H

#include "provision/verify/findings.h"
#include "provision/verify/imalist.h"
#include "provision/verify/imasig.h"

#define VERIFY_IMA_LISTS_MAX    16
#define VERIFY_IMA_EXCLUDES_MAX 64
#define VERIFY_IMA_PREFIX_MAX   1024
#define VERIFY_IMA_REASON_MAX   256

struct verify_ima_allow {
    uint8_t sha256[ATT_SHA256_LEN];
    const char *label;             /* NULL: none; borrowed from the policy, as all texts here */
    int64_t not_before, not_after; /* UTC seconds; 0: open */
    struct verify_imalist *list;   /* owned; NULL: not bound yet */
};
struct verify_ima_exclude {
    const char *prefix, *reason;
    size_t len; /* of prefix */
};

struct verify_imarule {
    bool given; /* the policy has an ima rule */
    struct verify_ima_allow lists[VERIFY_IMA_LISTS_MAX];
    size_t n_lists;
    struct verify_ima_exclude excludes[VERIFY_IMA_EXCLUDES_MAX];
    size_t n_excludes;
    const struct parse_ima_template *templates[PARSE_IMA_TEMPLATES];
    size_t n_templates;
    struct verify_imasig_key keys[VERIFY_IMASIG_KEYS_MAX];
    size_t n_keys;
    enum verify_severity severity; /* UNSET: the policy's for the finding's id */
    const char *remedy;            /* NULL: the finding's own */
};

/* json NULL: none is given. It must stay as long as the rule does. On failure nothing is owned. */
ATT_MUST_USE enum att_rc verify_imarule_parse(const json_t *json, struct verify_imarule *ret,
                                              struct att_err *err);
void verify_imarule_done(struct verify_imarule *rule);

/* The first list that is not bound; NULL: all are, the rule may be judged by. */
const struct verify_ima_allow *verify_imarule_unbound(const struct verify_imarule *rule);
/* Binds a list wherever the rule names its digest; takes references of its own. */
void verify_imarule_bind(struct verify_imarule *rule, struct verify_imalist *list);
bool verify_ima_allow_valid(const struct verify_ima_allow *allow, int64_t now);

#endif
