/* What an HSM's module states of a key (docs/PROTOCOL.md M4, fmt "attestd-hsm"): a map in
 * deterministic CBOR, the name of each attribute that it tells → true or false. Statements of the
 * module, not proof. */
#ifndef ATTESTD_PROVISION_EVIDENCE_HSMATTRS_H
#define ATTESTD_PROVISION_EVIDENCE_HSMATTRS_H

#include "attestd/base/buf.h"

#define EVIDENCE_HSM_ATTRS_MAX ((size_t)512) /* bytes of the CBOR */

enum evidence_hsm_attr {
    EVIDENCE_HSM_LOCAL, /* "local": CKA_LOCAL; the others likewise, PKCS#11 2.40 §4.9 */
    EVIDENCE_HSM_ALWAYS_SENSITIVE,
    EVIDENCE_HSM_NEVER_EXTRACTABLE,
    EVIDENCE_HSM_SENSITIVE,
    EVIDENCE_HSM_EXTRACTABLE,
    EVIDENCE_HSM_TOKEN,
    EVIDENCE_HSM_PRIVATE,
    EVIDENCE_HSM_SIGN,
    EVIDENCE_HSM_DECRYPT,
    EVIDENCE_HSM_UNWRAP,
    EVIDENCE_HSM_DERIVE,
    EVIDENCE_HSM_COPYABLE,
    EVIDENCE_HSM_MODIFIABLE,
    EVIDENCE_HSM_COUNT,
};

struct evidence_hsm_attrs {
    uint32_t stated, holds; /* bit i: attribute i is told; it is true */
};

/* ATT_E_INVAL: a bit that is no attribute, or one that holds and is not stated. Appends. */
ATT_MUST_USE enum att_rc evidence_hsm_attrs_encode(const struct evidence_hsm_attrs *attrs,
                                                   struct att_buf *ret_cbor, struct att_err *err);
ATT_MUST_USE enum att_rc evidence_hsm_attrs_parse(struct att_slice cbor,
                                                  struct evidence_hsm_attrs *ret_attrs,
                                                  struct att_err *err);
/* Is it a key that was made in the token and never leaves it? local, alwaysSensitive,
 * neverExtractable, sensitive, token, private, sign have to be told and true, extractable told and
 * false; decrypt, unwrap and derive not true. ATT_E_DENIED names the attribute. */
ATT_MUST_USE enum att_rc evidence_hsm_attrs_check(const struct evidence_hsm_attrs *attrs,
                                                  struct att_err *err);

#endif
