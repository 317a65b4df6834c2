/* ACME objects, both directions (RFC 8555 §7.1, docs/PROTOCOL.md M0, M3–M5).
 *
 * Parsers of server answers (…_parse) ignore unknown members, as a client must (RFC 8555 §7.1), but
 * are strict about type, length and number of the known ones. Parsers of requests (…_request_parse)
 * do too, and their errors carry an ACME word as reason. Structs own their strings: …_done. */
#ifndef ATTESTD_PROVISION_ACME_OBJECTS_H
#define ATTESTD_PROVISION_ACME_OBJECTS_H

#include "provision/acme/jws.h"
#include "provision/acme/problem.h"

#define ACME_OBJECT_MAX      ((size_t)1 << 20)
#define ACME_VALUES_MAX      4096 /* JSON values in a request */
#define ACME_IDENTIFIERS_MAX 16
#define ACME_CHALLENGES_MAX  16
#define ACME_KNOWN_MAX       16 /* log digests in `known` */
#define ACME_LOGS_MAX        4  /* names in `logs` */
#define ACME_LOG_NAME_LEN    16 /* with the NUL */
#define ACME_PROFILES_MAX    64

/* ---- status ------------------------------------------------------------------------------ */
enum acme_status {
    ACME_S_NONE = 0, /* absent or unknown to us */
    ACME_S_PENDING,
    ACME_S_READY,
    ACME_S_PROCESSING,
    ACME_S_VALID,
    ACME_S_INVALID,
    ACME_S_DEACTIVATED,
    ACME_S_EXPIRED,
    ACME_S_REVOKED,
};
const char *acme_status_word(enum acme_status status); /* "" for NONE */
enum acme_status acme_status_by_word(const char *word);

/* ---- what evidence is asked for: members of a challenge and of the M1 response ------------- */
struct acme_wanted {
    char pcr_selection[96]; /* "sha256:0,1,2,7"; "" = no quote wanted */
    char logs[ACME_LOGS_MAX][ACME_LOG_NAME_LEN];
    size_t n_logs;
    uint8_t known[ACME_KNOWN_MAX][32];
    size_t n_known;
    /* The member "evidence": ["hsm", "hsmToken"]: optional members of evidence that the issuer
     * reads beyond those that every issuer does. Words that are not known here are passed over. */
    bool reads_hsm, reads_hsm_token;
};
#define ACME_READS_MAX 16
/* Reads or sets the members pcrSelection, logs, known, evidence of obj. All of them absent is fine
 * (a foreign server's challenge). */
ATT_MUST_USE enum att_rc acme_wanted_parse(const json_t *obj, struct acme_wanted *ret_wanted,
                                           struct att_err *err);
ATT_MUST_USE enum att_rc acme_wanted_encode(const struct acme_wanted *wanted, json_t *obj,
                                            struct att_err *err);

/* ---- directory (M0) ------------------------------------------------------------------------ */
struct acme_profile {
    char *name, *description;
};
struct acme_directory {
    char *new_nonce, *new_account, *new_order; /* required */
    /* ours; NULL = a plain ACME server, or (new_token) one that mints no tokens */
    char *new_attestation_key, *host_view, *new_token;
    char *revoke_cert, *key_change, *renewal_info; /* NULL = absent */
    bool external_account_required;
    struct acme_profile profiles[ACME_PROFILES_MAX];
    size_t n_profiles;
    int version;        /* meta.attestd.version; 0 = absent */
    char *trust_domain; /* meta.attestd.trustDomain; NULL = absent */
};
ATT_MUST_USE enum att_rc acme_directory_parse(const json_t *json, struct acme_directory *ret_dir,
                                              struct att_err *err);
ATT_MUST_USE enum att_rc acme_directory_encode(const struct acme_directory *dir, json_t **ret_json,
                                               struct att_err *err);
void acme_directory_done(struct acme_directory *dir);

/* ---- identifiers --------------------------------------------------------------------------- */
#define ACME_ID_SPIFFE    "spiffe-id"
#define ACME_ID_PERMANENT "permanent-identifier"
#define ACME_ID_DNS       "dns"
struct acme_identifier {
    char type[32];
    char value[512];
};
ATT_MUST_USE enum att_rc acme_identifier_parse(const json_t *json, struct acme_identifier *ret_id,
                                               struct att_err *err);
ATT_MUST_USE enum att_rc acme_identifier_encode(const struct acme_identifier *id, json_t **ret_json,
                                                struct att_err *err);

/* ---- account ------------------------------------------------------------------------------- */
struct acme_account {
    enum acme_status status;
    char *orders;    /* URL; NULL = absent */
    json_t *contact; /* array of strings; NULL = absent */
    json_t *eab;     /* externalAccountBinding as sent; NULL = absent */
};
ATT_MUST_USE enum att_rc acme_account_parse(const json_t *json, struct acme_account *ret_account,
                                            struct att_err *err);
ATT_MUST_USE enum att_rc acme_account_encode(const struct acme_account *account, json_t **ret_json,
                                             struct att_err *err);
void acme_account_done(struct acme_account *account);

/* RFC 8555 §7.3: at most 8 texts of at most ACME_TEXT_MAX bytes without control characters. */
ATT_MUST_USE enum att_rc acme_contact_check(const json_t *contact, struct att_err *err);

/* newAccount's payload, RFC 8555 §7.3. */
struct acme_account_request {
    bool only_return_existing, terms_agreed;
    json_t *contact; /* NULL = absent */
    json_t *eab;     /* NULL = absent */
};
ATT_MUST_USE enum att_rc acme_account_request_parse(struct att_slice payload,
                                                    struct acme_account_request *ret_request,
                                                    struct att_err *err);
ATT_MUST_USE enum att_rc acme_account_request_encode(const struct acme_account_request *request,
                                                     struct att_buf *ret_payload,
                                                     struct att_err *err);
void acme_account_request_done(struct acme_account_request *request);

/* ---- order --------------------------------------------------------------------------------- */
struct acme_order {
    enum acme_status status;
    int64_t expires_at; /* UTC seconds; 0 = absent */
    struct acme_identifier identifiers[ACME_IDENTIFIERS_MAX];
    size_t n_identifiers;
    char *profile; /* NULL = absent */
    char *authorizations[ACME_IDENTIFIERS_MAX];
    size_t n_authorizations;
    char *finalize;    /* required */
    char *certificate; /* NULL = absent */
    bool has_error;
    struct acme_problem error;
};
ATT_MUST_USE enum att_rc acme_order_parse(const json_t *json, struct acme_order *ret_order,
                                          struct att_err *err);
ATT_MUST_USE enum att_rc acme_order_encode(const struct acme_order *order, json_t **ret_json,
                                           struct att_err *err);
void acme_order_done(struct acme_order *order);

/* newOrder's payload (M3). notBefore and notAfter are refused ("malformed"): profiles decide. */
struct acme_order_request {
    struct acme_identifier identifiers[ACME_IDENTIFIERS_MAX];
    size_t n_identifiers; /* 1 … */
    char *profile;        /* NULL = absent */
    char *replaces;       /* RFC 9773; NULL = absent */
};
ATT_MUST_USE enum att_rc acme_order_request_parse(struct att_slice payload,
                                                  struct acme_order_request *ret_request,
                                                  struct att_err *err);
ATT_MUST_USE enum att_rc acme_order_request_encode(const struct acme_order_request *request,
                                                   struct att_buf *ret_payload,
                                                   struct att_err *err);
void acme_order_request_done(struct acme_order_request *request);

/* finalize's payload (M5): {"csr": b64u(DER)}; "badCSR" when it is not that. */
#define ACME_CSR_MAX ((size_t)16 << 10)
ATT_MUST_USE enum att_rc acme_finalize_request_parse(struct att_slice payload,
                                                     struct att_buf *ret_csr_der,
                                                     struct att_err *err);
ATT_MUST_USE enum att_rc acme_finalize_request_encode(struct att_slice csr_der,
                                                      struct att_buf *ret_payload,
                                                      struct att_err *err);

/* ---- authorization and challenge ----------------------------------------------------------- */
#define ACME_CHALLENGE_DEVICE_ATTEST "device-attest-01"
#define ACME_CHALLENGE_HTTP          "http-01"
struct acme_challenge {
    char type[32];
    char *url;
    enum acme_status status;
    char *token;          /* NULL = absent (challenge types that we do not know) */
    int64_t validated_at; /* 0 = absent */
    struct acme_wanted wanted;
    bool has_error;
    struct acme_problem error;
};
ATT_MUST_USE enum att_rc acme_challenge_parse(const json_t *json,
                                              struct acme_challenge *ret_challenge,
                                              struct att_err *err);
ATT_MUST_USE enum att_rc acme_challenge_encode(const struct acme_challenge *challenge,
                                               json_t **ret_json, struct att_err *err);
void acme_challenge_done(struct acme_challenge *challenge);

struct acme_authz {
    struct acme_identifier identifier;
    enum acme_status status;
    int64_t expires_at;                /* 0 = absent */
    struct acme_challenge *challenges; /* parsing keeps only types that we know */
    size_t n_challenges;
};
ATT_MUST_USE enum att_rc acme_authz_parse(const json_t *json, struct acme_authz *ret_authz,
                                          struct att_err *err);
ATT_MUST_USE enum att_rc acme_authz_encode(const struct acme_authz *authz, json_t **ret_json,
                                           struct att_err *err);
void acme_authz_done(struct acme_authz *authz);
/* NULL when there is none; borrowed from authz. */
const struct acme_challenge *acme_authz_find(const struct acme_authz *authz, const char *type);

/* token "." thumbprint, RFC 8555 §8.1; appended. */
void acme_key_authorization(const char *token, const char *thumbprint, struct att_buf *ret_text);

#endif
