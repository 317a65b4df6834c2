/* Problem documents: RFC 7807 with the types of RFC 8555 §6.7 and its subproblems (§6.7.1). */
#ifndef ATTESTD_PROVISION_ACME_PROBLEM_H
#define ATTESTD_PROVISION_ACME_PROBLEM_H

#include "attestd/base/json.h"

#define ACME_PROBLEM_MAX     ((size_t)64 << 10) /* bytes of a document */
#define ACME_SUBPROBLEMS_MAX 8
#define ACME_SUB_NAME_LEN    256 /* with the NUL */
#define ACME_REASON_LEN      40  /* with the NUL, as in struct att_err */
#define ACME_DETAIL_LEN      400

#define ACME_PROBLEM_CONTENT_TYPE "application/problem+json"

enum acme_problem_type {
    ACME_P_NONE = 0, /* a type that we do not know, or none ("about:blank") */
    ACME_P_ACCOUNT_DOES_NOT_EXIST,
    ACME_P_ALREADY_REPLACED, /* RFC 9773 */
    ACME_P_ALREADY_REVOKED,
    ACME_P_BAD_ATTESTATION_STATEMENT, /* draft-ietf-acme-device-attest */
    ACME_P_BAD_CSR,
    ACME_P_BAD_NONCE,
    ACME_P_BAD_PUBLIC_KEY,
    ACME_P_BAD_REVOCATION_REASON,
    ACME_P_BAD_SIGNATURE_ALGORITHM,
    ACME_P_CAA,
    ACME_P_COMPOUND,
    ACME_P_CONNECTION,
    ACME_P_DNS,
    ACME_P_EXTERNAL_ACCOUNT_REQUIRED,
    ACME_P_INCORRECT_RESPONSE,
    ACME_P_INVALID_CONTACT,
    ACME_P_INVALID_PROFILE, /* draft-ietf-acme-profiles */
    ACME_P_MALFORMED,
    ACME_P_ORDER_NOT_READY,
    ACME_P_RATE_LIMITED,
    ACME_P_REJECTED_IDENTIFIER,
    ACME_P_SERVER_INTERNAL,
    ACME_P_TLS,
    ACME_P_UNAUTHORIZED,
    ACME_P_UNSUPPORTED_CONTACT,
    ACME_P_UNSUPPORTED_IDENTIFIER,
    ACME_P_USER_ACTION_REQUIRED,
    ACME_P_COUNT
};

/* One reason below a problem. reason is the word after "urn:attestd:error:", or after
 * "urn:ietf:params:acme:error:" when acme is set. */
struct acme_subproblem {
    char reason[ACME_REASON_LEN];
    char detail[ACME_DETAIL_LEN];
    bool acme;
    char dns[ACME_SUB_NAME_LEN]; /* the DNS name that it is about (RFC 8555 §6.7.1); "": none */
};

/* Plain value, no ownership. {0} is a valid empty problem. */
struct acme_problem {
    enum acme_problem_type type;
    int status; /* HTTP */
    char
        reason[ACME_REASON_LEN]; /* top-level type when it is urn:attestd:error:<reason>; else "" */
    char detail[ACME_DETAIL_LEN];
    struct acme_subproblem sub[ACME_SUBPROBLEMS_MAX];
    size_t n_sub;
    int retry_after_s; /* not part of the document: for the Retry-After header; 0 = none */
};

/* The word after "urn:ietf:params:acme:error:"; "" for ACME_P_NONE. */
const char *acme_problem_word(enum acme_problem_type type);
/* ACME_P_NONE when unknown. */
enum acme_problem_type acme_problem_by_word(const char *word);
/* The HTTP status that goes with it. */
int acme_problem_status(enum acme_problem_type type);

/* Sets type, its usual status and the detail. */
void acme_problem_set(struct acme_problem *ret_problem, enum acme_problem_type type,
                      const char *fmt, ...) ATT_PRINTF(3, 4);
/* Adds urn:attestd:error:<reason>; beyond the maximum it is dropped (the first reasons matter). */
void acme_problem_add(struct acme_problem *problem, const char *reason, const char *detail);
/* Adds a problem with one DNS name of an order. */
void acme_problem_add_name(struct acme_problem *problem, enum acme_problem_type type,
                           const char *dns, const char *detail);
/* From an error of this library or of a verifier: a reason that is an ACME word gives that type;
 * any other reason gives badAttestationStatement with it as the subproblem; without a reason the
 * code decides (PARSE, INVAL, LIMIT: malformed; DENIED, AUTH: unauthorized; RETRY: rateLimited;
 * else serverInternal, whose detail tells nothing). */
void acme_problem_from_err(struct acme_problem *ret_problem, const struct att_err *err);

/* {"type", "status", "detail", "subproblems"?, "algorithms"? (badSignatureAlgorithm, RFC 8555
 * §6.2)} */
ATT_MUST_USE enum att_rc acme_problem_encode(const struct acme_problem *problem, json_t **ret_json,
                                             struct att_err *err);
/* Lenient as a client must be: unknown members are ignored, over-long text is cut, control
 * characters become "?"; anything that is not an object is ATT_E_PARSE. */
ATT_MUST_USE enum att_rc acme_problem_parse(struct att_slice text, struct acme_problem *ret_problem,
                                            struct att_err *err);
/* The same from an `error` member. */
ATT_MUST_USE enum att_rc acme_problem_parse_json(const json_t *obj,
                                                 struct acme_problem *ret_problem,
                                                 struct att_err *err);
/* The problem as a failed call's error: reason = the first subproblem's word (else the type's
 * word); code by what the caller can do: akUnknown, akStale, activation → ATT_E_REENROL;
 * rateLimited, serverInternal and status ≥ 500 → ATT_E_RETRY; orderNotReady → ATT_E_CONFLICT;
 * accountDoesNotExist → ATT_E_NOTFOUND; malformed, badNonce, badSignatureAlgorithm, … →
 * ATT_E_PROTOCOL; everything else → ATT_E_DENIED. Domain HTTP. */
enum att_rc acme_problem_to_err(const struct acme_problem *problem, struct att_err *err);

#endif
