/* The JSON messages of enrolment, M1 and M2, and the response to the device-attest-01 challenge,
 * M4: both ends (docs/PROTOCOL.md). Pure: no TPM, no network, no signature is judged.
 *
 * Requests are parsed strictly (unknown members are refused, reason "malformed"): both ends are
 * ours. Responses are parsed as a client must: unknown members are ignored. Structs own; …_done. */
#ifndef ATTESTD_PROVISION_ENROL_MESSAGES_H
#define ATTESTD_PROVISION_ENROL_MESSAGES_H

#include "provision/acme/objects.h"
#include "provision/enrol/schedule.h"
#include "provision/evidence/attobj.h"
#include "provision/evidence/logs.h"
#include "tpm/parse/pcr.h"

#define ENROL_CERT_MAX        ((size_t)8 << 10)
#define ENROL_CERTS_MAX       8                 /* in ekChain and in otherEkCerts each */
#define ENROL_TPM_MAX         ((size_t)2 << 10) /* bytes of any one TPM structure */
#define ENROL_M1_MAX          ((size_t)192 << 10)
#define ENROL_VALUES_MAX      4096         /* JSON values in a message */
#define ENROL_EVIDENCE_MAX    ACME_JWS_MAX /* payload of M2 and M4: logs are in it */
#define ENROL_M4_REST_MAX     ((size_t)64 << 10)
#define ENROL_MANIFEST_MAX    ((size_t)3 << 20)
#define ENROL_MANIFEST_GZ_MAX ((size_t)1 << 20)
#define ENROL_URL_MAX         ACME_URL_MAX

/* {"attest": b64u(TPMS_ATTEST), "sig": b64u(TPMT_SIGNATURE)} */
struct enrol_quote {
    struct att_buf attest, sig;
};

/* ---- M1 request ---------------------------------------------------------------------------- */
struct enrol_m1_request {
    struct att_buf ek_cert; /* DER without NV padding; empty: a TPM without one */
    struct att_buf ek_chain[ENROL_CERTS_MAX];
    size_t n_ek_chain;
    struct att_buf ek_pub, ak_pub; /* TPMT_PUBLIC */
    struct att_buf other_ek_certs[ENROL_CERTS_MAX];
    size_t n_other_ek_certs;
    char manufacturer[9]; /* TPM_PT_MANUFACTURER, 8 lowercase hex digits */
    char version[17];     /* firmware version, 16 lowercase hex digits */
};
/* Appends the payload's text: keep these bytes, K needs their SHA-256. */
ATT_MUST_USE enum att_rc enrol_m1_request_encode(const struct enrol_m1_request *request,
                                                 struct att_buf *ret_payload, struct att_err *err);
ATT_MUST_USE enum att_rc enrol_m1_request_parse(struct att_slice payload,
                                                struct enrol_m1_request *ret_request,
                                                struct att_err *err);
void enrol_m1_request_done(struct enrol_m1_request *request);

/* ---- M1 response --------------------------------------------------------------------------- */
struct enrol_m1_response {
    int64_t expires_at;              /* UTC seconds */
    struct att_buf credential_blob;  /* TPM2B_ID_OBJECT, with its size prefix */
    struct att_buf encrypted_secret; /* TPM2B_ENCRYPTED_SECRET, with its size prefix */
    uint8_t nonce[ENROL_NONCE_LEN];
    struct acme_wanted wanted; /* pcrSelection is always there: M2 always has a quote */
};
ATT_MUST_USE enum att_rc enrol_m1_response_encode(const struct enrol_m1_response *response,
                                                  struct att_buf *ret_body, struct att_err *err);
ATT_MUST_USE enum att_rc enrol_m1_response_parse(struct att_slice body,
                                                 struct enrol_m1_response *ret_response,
                                                 struct att_err *err);
void enrol_m1_response_done(struct enrol_m1_response *response);

/* ---- M2 ------------------------------------------------------------------------------------ */
struct enrol_m2_request {
    uint8_t proof[ATT_SHA256_LEN];
    struct enrol_quote quote;
    struct parse_pcr_set pcrs;
    struct evidence_logs logs;
};
/* known: digests that the M1 response named; those logs travel without data. */
ATT_MUST_USE enum att_rc enrol_m2_request_encode(const struct enrol_m2_request *request,
                                                 const uint8_t (*known)[ATT_SHA256_LEN],
                                                 size_t n_known, struct att_buf *ret_payload,
                                                 struct att_err *err);
ATT_MUST_USE enum att_rc enrol_m2_request_parse(struct att_slice payload,
                                                struct enrol_m2_request *ret_request,
                                                struct att_err *err);
void enrol_m2_request_done(struct enrol_m2_request *request);

struct enrol_m2_response {
    struct att_buf ak_certificate; /* PEM text */
    int64_t expires_at;
    char host_id[65];   /* EK id, hex */
    bool host_approved; /* state "approved"; otherwise "pending" */
};
ATT_MUST_USE enum att_rc enrol_m2_response_encode(const struct enrol_m2_response *response,
                                                  struct att_buf *ret_body, struct att_err *err);
ATT_MUST_USE enum att_rc enrol_m2_response_parse(struct att_slice body,
                                                 struct enrol_m2_response *ret_response,
                                                 struct att_err *err);
void enrol_m2_response_done(struct enrol_m2_response *response);

/* ---- M4: the challenge's response ------------------------------------------------------------ */
struct enrol_m4_request {
    struct att_buf attobj;   /* CBOR: evidence/attobj.h */
    char *ak_url;            /* malloc'd */
    struct att_buf evidence; /* CBOR: evidence/statement.h; its exact bytes are signed */
    struct enrol_quote quote;
    struct parse_pcr_set pcrs;
    struct evidence_logs logs;
    /* TPMT_PUBLIC. parent_pub empty: the parent is the SRK; srk_pub empty: the key is in no TPM. */
    struct att_buf srk_pub, parent_pub;
    uint32_t parent_counter; /* NV index of the parent's policy counter; 0: none */
    struct att_buf manifest; /* the agent's manifest; empty: none. It travels packed */
};
ATT_MUST_USE enum att_rc enrol_m4_request_encode(const struct enrol_m4_request *request,
                                                 const uint8_t (*known)[ATT_SHA256_LEN],
                                                 size_t n_known, struct att_buf *ret_payload,
                                                 struct att_err *err);
/* Members other than attObj are draft-ietf-acme-device-attest extensions; unknown ones are ignored
 * here (the draft says so), missing ones of ours are "malformed", and so is more than
 * ENROL_M4_REST_MAX outside logs and manifest. */
ATT_MUST_USE enum att_rc enrol_m4_request_parse(struct att_slice payload,
                                                struct enrol_m4_request *ret_request,
                                                struct att_err *err);
void enrol_m4_request_done(struct enrol_m4_request *request);

#endif
