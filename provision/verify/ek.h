/* Is this a genuine TPM, and is this its EK? (M1) Checks, in order: malformed,
 * ekTemplate, ekChain, ekCertMismatch, firmwareDenied. Nothing here is fetched from an address that
 * anybody named. */
#ifndef ATTESTD_VERIFY_EK_H
#define ATTESTD_VERIFY_EK_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"
#include "certs/ekcert.h"
#include "provision/verify/verdict.h"

#define VERIFY_ID_HEX 65 /* 64 hex digits and NUL */

/* A maker whose firmware is refused. No versions: all of them. */
struct verify_deny {
    /* 4 characters as in TPM_PT_MANUFACTURER, "STM ", "IFX", or the TCG's text "id:53544D20" */
    const char *manufacturer;
    /* "a.b.c.d", each 0–65535; "a.b", or "id:" and 8 hex digits, denies every a.b.*.* */
    const char *const *versions;
    size_t n_versions;
};

/* ATT_E_PARSE when an entry has not that form: for the configuration. */
ATT_MUST_USE enum att_rc verify_deny_check(const struct verify_deny *deny, struct att_err *err);

/* What M1 said, and what the operator pinned. Slices are borrowed for the call. */
struct verify_ek_in {
    struct att_slice ek_cert;         /* DER; empty only with inventory */
    const struct att_slice *ek_chain; /* DER, the host's help in building the path */
    size_t n_ek_chain;
    struct att_slice ek_pub; /* TPMT_PUBLIC */
    char manufacturer[9];    /* as claimed: 8 hex, e.g. "53544d20"; "" when not said */
    bool have_version;       /* as claimed: firmware version */
    uint64_t version;
    bool half;       /* the version is known by its upper half at most, and no TPM will sign the
                      * rest: a rule finer than what is known denies what it may be about */
    bool no_ek_area; /* ek_pub was made from the certificate: its template proves nothing */
    const struct certs_ek_store *roots; /* makers' */
    const struct verify_deny *deny;
    size_t n_deny;
    bool inventory; /* profile `ek: inventory`: a TPM without an EK certificate may come */
    int64_t now;    /* UTC seconds */
};

struct verify_ek_facts {
    char id[VERIFY_ID_HEX];    /* EK id: hex SHA-256 of the SPKI DER */
    const char *template_name; /* static: "L-1" … */
    bool from_certificate;     /* false: inventory mode */
    /* The TCG attributes as the certificate has them ("id:53544D20"); in inventory mode
     * manufacturer and version are the host's claim in that form. "" where there is none. */
    char manufacturer[CERTS_EK_ATTR_MAX + 1];
    char model[CERTS_EK_ATTR_MAX + 1];
    char version[CERTS_EK_ATTR_MAX + 1];
    char cert_sha256[VERIFY_ID_HEX]; /* of the certificate without NV padding; "" if none */
};

/* Appends its checks to the verdict; ret is filled only when all of them passed. */
ATT_MUST_USE enum verify_result verify_ek(const struct verify_ek_in *in,
                                          struct verify_verdict *verdict,
                                          struct verify_ek_facts *ret);

/* EK id of any EK certificate from NV (M1 otherEkCerts; attestctl): NV padding (0x00 or 0xff after
 * the DER) is cut, nothing is verified. ATT_E_PARSE when it is no certificate. */
ATT_MUST_USE enum att_rc verify_ek_id_of_cert(struct att_slice cert, char ret_id[VERIFY_ID_HEX],
                                              struct att_err *err);
/* The path, EKU and CA checks alone (ekChain), for `attestctl verify`, which has no EK public area;
 * and ekCertMismatch against an EK id. */
ATT_MUST_USE enum verify_result verify_ek_certificate(struct att_slice ek_cert,
                                                      const struct certs_ek_store *roots,
                                                      const char *expected_id, int64_t now,
                                                      struct verify_verdict *verdict,
                                                      struct verify_ek_facts *ret);
/* firmwareDenied with the version that a quote signed; manufacturer as in verify_ek_facts; claimed:
 * what M1 said, NULL if nothing. A claim that is not what the TPM signs is refused, too. Appends
 * the check. */
ATT_MUST_USE enum verify_result verify_firmware(const struct verify_deny *deny, size_t n_deny,
                                                const char *manufacturer, uint64_t quoted_version,
                                                const uint64_t *claimed,
                                                struct verify_verdict *verdict);
/* The same where no TPM has signed a version: manufacturer and version as the EK certificate has
 * them, claimed: the host's word on the version's upper half, 8 hex digits, or "". A rule that is
 * finer than what is known denies what it may be about. */
ATT_MUST_USE enum verify_result verify_firmware_unsigned(const struct verify_deny *deny,
                                                         size_t n_deny, const char *manufacturer,
                                                         const char *version, const char *claimed,
                                                         struct verify_verdict *verdict);

#endif
