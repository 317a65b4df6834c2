/* Is this a genuine TPM, and is this its EK? (M1) Checks ekTemplate, ekChain, ekCertMismatch,
 * firmwareDenied. Nothing here is fetched from an address that anybody named. */
#ifndef ATTESTD_VERIFY_EK_H
#define ATTESTD_VERIFY_EK_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"
#include "provision/verify/verdict.h"

#define VERIFY_ID_HEX       65 /* 64 hex digits and NUL */
#define VERIFY_EK_CERT_MAX  ((size_t)8192)
#define VERIFY_EK_CHAIN_MAX 8
#define VERIFY_PUBLIC_MAX   ((size_t)1024)

/* Certificates to build paths with. Self-signed ones are anchors (EK: makers' roots; AK: the
 * attestation root); the rest only help to build the path. Read-only once filled: then any number
 * of threads may use it. */
struct verify_roots;

ATT_MUST_USE enum att_rc verify_roots_new(struct verify_roots **ret_roots, struct att_err *err);
/* Every certificate of a PEM file; text between the blocks is skipped, a block that does not parse
 * is ATT_E_PARSE. ret_n (may be NULL) is how many there were; none is ATT_E_PARSE. */
ATT_MUST_USE enum att_rc verify_roots_add_pem(struct verify_roots *roots, struct att_slice pem,
                                              size_t *ret_n, struct att_err *err);
size_t verify_roots_anchors(const struct verify_roots *roots); /* 0: nothing would be accepted */
void verify_roots_free(struct verify_roots *roots);
void verify_roots_cleanup(struct verify_roots **roots);
#define verify_autoroots ATT_CLEANUP(verify_roots_cleanup) struct verify_roots

/* A maker whose firmware is refused. No versions: all of them. */
struct verify_deny {
    const char *manufacturer;    /* 4 characters as in TPM_PT_MANUFACTURER: "STM ", "IFX" */
    const char *const *versions; /* "a.b.c.d", each 0–65535; "a.b" denies every a.b.*.* */
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
    const struct verify_roots *roots; /* makers' */
    const struct verify_deny *deny;
    size_t n_deny;
    bool inventory; /* profile `ek: inventory`: a TPM without an EK certificate may come */
    int64_t now;    /* UTC seconds */
};

struct verify_ek_facts {
    char id[VERIFY_ID_HEX];    /* EK id: hex SHA-256 of the SPKI DER */
    const char *template_name; /* static: "L-1 (RSA 2048)", … */
    bool from_certificate;     /* false: inventory mode */
    char manufacturer[9];      /* from the certificate (or claimed in inventory mode), 8 hex */
    char model[65];            /* TCG attribute; "" if none */
    char version[33];          /* TCG attribute text "id:00020003"; "" if none */
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
                                                      const struct verify_roots *roots,
                                                      const char *expected_id, int64_t now,
                                                      struct verify_verdict *verdict,
                                                      struct verify_ek_facts *ret);
/* firmwareDenied with the version that a quote signed; claimed: what M1 said, NULL if nothing. A
 * claim that is not what the TPM signs is refused, too. Appends the check. */
ATT_MUST_USE enum verify_result verify_firmware(const struct verify_deny *deny, size_t n_deny,
                                                const char *manufacturer_hex,
                                                uint64_t quoted_version, const uint64_t *claimed,
                                                struct verify_verdict *verdict);

#endif
