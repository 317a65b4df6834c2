/* issuer.yaml → struct; see conf.h for errors. */
#ifndef CONF_ISSUER_CONF_H
#define CONF_ISSUER_CONF_H

#include "attestd/conf/conf.h"

#define CONF_PROFILES_MAX     64
#define CONF_DENY_MAX         256
#define CONF_PROFILE_HSMS_MAX 16
#define CONF_LOGS_MAX         3
#define CONF_SIGNERS_MAX      16
#define CONF_ENROLMENT        "enrolment" /* no profile has this name */
#define CONF_ATTESTATION_CA                                                                        \
    "attestation-ca" /* likewise: of AKs of the attestation CA's endpoints */
#define CONF_LIFETIME_MIN_S   120
#define CONF_MEMORY_MAX_S     900 /* of a profile that allows memory keys */
#define CONF_EXPORTABLE_MAX_S 600 /* … exportable ones, of which there may be copies */

/* EK certificates by whose attributes a TPM is refused (reason firmwareDenied). */
struct conf_deny {
    char *manufacturer; /* four characters as the TPM spells them, "STM ", or TCG text "id:53544D20"
                         */
    char **versions;    /* "1.258.0.0" or TCG text "id:00010102"; none: every version */
    unsigned n_versions;
    /* derived */
    char manufacturer_id[12]; /* "id:53544D20" */
};
struct conf_ek {
    char *roots_dir;
    struct conf_deny *deny;
    unsigned n_deny;
};
struct conf_enrolment {
    char *boot; /* boot policy's name, or "none" */
    char *pcrs;
    char **logs; /* "firmware", "systemd", "ima" */
    unsigned n_logs;
    char **policy_signers; /* SHA-256 of keys that may sign boot's policy, hex; none: anybody */
    unsigned n_policy_signers;
    char *mode; /* "enforce", "warn", "observe", until an operator says otherwise */
    char *ek;   /* "certificate" or "inventory" */
    char *ak_lifetime;
    /* derived */
    bool boot_none, ek_inventory;
    uint8_t signers[CONF_SIGNERS_MAX][32];
    int64_t ak_lifetime_s;
};
struct conf_profile {
    char *name;
    char *description;
    char *lifetime;
    char **keys; /* "tpm" "hsm" "memory" "exportable" */
    unsigned n_keys;
    char **key_types; /* "ec-p256" (the default), "rsa-2048", "rsa-3072" */
    unsigned n_key_types;
    char **hsms; /* names of hosts' HSM modules that may have an agent's key; none: any */
    unsigned n_hsms;
    char *boot;
    char *pcrs;
    char **logs;
    unsigned n_logs;
    char **policy_signers; /* as in enrolment */
    unsigned n_policy_signers;
    char *mode;
    /* What the storage parent of a TPM's key must be: "none" (any, or none), "7" (PolicyPCR of PCR
     * 7 as quoted), or the authPolicy in hex (attestctl policy seal-parent); "none" unless set */
    char *parent_policy;
    char *retention; /* of its decision records; NULL: they stay */
    /* derived */
    uint8_t signers[CONF_SIGNERS_MAX][32];
    bool boot_none;
    int64_t lifetime_s, retention_s;
    bool parent_pcr7;
    bool has_parent_policy;
    uint8_t parent_policy_bytes[ATT_SHA256_LEN];
};
/* Certificates for DNS names by http-01, for services without a TPM: off where the section is not
 * there. Their root is one of its own. */
#define CONF_DNS_NAMES_MAX 64
#define CONF_RANGES_MAX    64
struct conf_dns_profile {
    char *name; /* no other profile has it */
    char *description;
    char *lifetime; /* 7d */
    char **names;   /* that may be asked for: "host.example", "*.legacy.example" */
    unsigned n_names;
    /* derived */
    int64_t lifetime_s;
};
struct conf_range {
    bool v6;
    unsigned bits;
    uint8_t address[16]; /* 4 bytes where it is not v6 */
};
struct conf_dns {
    struct conf_dns_profile *profiles;
    unsigned n_profiles;
    unsigned http_port; /* 80; where http-01 asks, and one of the ports that a redirect may name */
    char **allow;       /* address ranges to which validation may connect although they are private,
                         * loopback, link-local or otherwise not the public's */
    unsigned n_allow;
    char *timeout; /* 10s; of a validation, redirects included */
    /* derived */
    struct conf_range ranges[CONF_RANGES_MAX]; /* of allow */
    int64_t timeout_s;
};
/* Certificates for permanent identifiers by device-attest-01 with a standard statement, for clients
 * that bring an AK certificate of our attestation CA: off where the section is not there. Under the
 * same root as DNS names. */
struct conf_device_profile {
    char *name; /* no other profile has it */
    char *description;
    char *lifetime; /* 1d */
    /* derived */
    int64_t lifetime_s;
};
struct conf_devices {
    struct conf_device_profile *profiles;
    unsigned n_profiles;
    /* Serves attestation-ca/attest and attestation-ca/secret, in the dialect of Smallstep's
     * attestation CA; false unless set. */
    bool attestation_ca;
    char *ak_lifetime; /* 1d; of the AK certificates that those give */
    /* derived */
    int64_t ak_lifetime_s;
};
/* What one account, host or source address may do within 10 minutes; beyond that it is answered 429
 * rateLimited. 0 (addresses only): no limit. */
#define CONF_LIMIT_ORDERS     2048
#define CONF_LIMIT_FRUITLESS  512
#define CONF_LIMIT_ENROLMENTS 64
#define CONF_LIMIT_STEP       32
struct conf_limits {
    unsigned account_orders;           /* CONF_LIMIT_ORDERS */
    unsigned account_fruitless_orders; /* CONF_LIMIT_FRUITLESS; of those without a certificate */
    unsigned account_enrolments;       /* CONF_LIMIT_ENROLMENTS */
    unsigned host_orders;              /* CONF_LIMIT_ORDERS */
    unsigned address_requests;         /* 600000 */
    unsigned address_accounts;         /* 2000; newAccount requests */
    unsigned address_step;             /* CONF_LIMIT_STEP; messages to attestation-ca/ */
};
struct conf_issuer_tls {
    char *cert_file, *key_file;
};
/* Revocation lists. */
struct conf_crl {
    char *listen;   /* "0.0.0.0:8080": served in the clear there, too; NULL: only beside ACME */
    char *url;      /* "http://crl.bank.example": stands in leaves, /workload.crl behind it */
    char *lifetime; /* 24h, from thisUpdate to nextUpdate */
};

/* The admin verbs over HTTPS, and who may use which (docs/ADMIN.md). */
#define CONF_ADMIN_LIST_MAX 64
enum conf_admin_role {
    CONF_ROLE_REGISTRAR = 1,
    CONF_ROLE_APPROVER = 2,
    CONF_ROLE_REVOKER = 4,
    CONF_ROLE_CA_OPERATOR = 8,
    CONF_ROLE_AUDITOR = 16,
};
/* "registrar" …; NULL: no such. */
const char *conf_admin_role_name(enum conf_admin_role role);
struct conf_admin_oidc {
    char *issuer;   /* "https://idp.bank.example", as the tokens' iss has it */
    char *audience; /* as their aud names us */
    char **algs;    /* "ES256" "RS256" "PS256"; ES256 and RS256 */
    unsigned n_algs;
    char *jwks_file, *ca_file; /* exactly one: keys from a file, or fetched under these roots */
    char **claims;             /* "tid=…": each must be there, as a text */
    unsigned n_claims;
    char *leeway;       /* 60s, at most 300s */
    char *max_lifetime; /* 24h; a token that ends later is refused */
    /* derived */
    int64_t leeway_s, max_lifetime_s;
};
/* One person or pipeline, by whatever credentials. */
struct conf_admin_person {
    char *name;
    char **ids; /* "uid:1000", "spiffe://…", "x509:CN=…", "oidc:ISSUER#SUB" */
    unsigned n_ids;
};
struct conf_admin_binding {
    char **principals; /* such an id, or the beginning of one and "*"; or "person:NAME" */
    unsigned n_principals;
    char **roles;
    unsigned n_roles;
    char **paths; /* "spiffe://bank.example/agent/trading-*": agents; none and no labels: all */
    unsigned n_paths;
    char **labels; /* "zone=trading": hosts that have all of them */
    unsigned n_labels;
    /* derived */
    unsigned role_set; /* of enum conf_admin_role */
};
struct conf_admin {
    char *listen; /* "0.0.0.0:8444"; NULL: the socket only */
    bool *four_eyes_set, *agents_set;
    char *client_ca_file;    /* PEM roots of clients' certificates; NULL: none */
    char *client_crl_file;   /* PEM lists of that CA, or "none" */
    char *proposal_lifetime; /* 7d */
    struct conf_admin_oidc *oidc;
    unsigned n_oidc;
    struct conf_admin_person *people;
    unsigned n_people;
    struct conf_admin_binding *bindings;
    unsigned n_bindings;
    /* derived */
    bool four_eyes; /* true unless the file says false */
    bool agents;    /* false unless the file says true: agents' certificates are a credential */
    bool no_crl;
    char listen_host[64];
    uint16_t listen_port;
    int64_t proposal_lifetime_s;
};
/* JWT-SVIDs and what other people's services read of us: OpenID discovery, keys, SPIFFE bundle. Off
 * where the section is not there. */
#define CONF_JWT_ISSUER_MAX     255
#define CONF_JWT_LIFETIME_MIN_S 30
#define CONF_JWT_LIFETIME_MAX_S 3600
struct conf_jwt {
    char *issuer; /* "https://id.bank.example": the tokens' iss; the one of its trust domain */
    char *listen; /* "0.0.0.0:8445": discovery, keys and bundle over TLS; NULL: nowhere */
    char *cert_file, *key_file; /* both or neither; NULL: the certificate of `listen` above */
    char *keys;                 /* "file" or "hsm": where new signing keys are made; file */
    char *lifetime;             /* 5m; of a token */
    char *evidence_max_age;     /* 1h; how old a certificate's verdict may be */
    char *rotate;               /* 30d; how long a key signs */
    char *publish_wait;         /* 1h; from a key's publication to its first signature */
    /* derived */
    bool keys_hsm;
    char listen_host[64];
    uint16_t listen_port;
    int64_t lifetime_s, evidence_max_age_s, rotate_s, publish_wait_s;
};

/* Other trust domains, whose bundles agents may be given (SPIFFE Federation §5). None where the
 * section is not there. */
#define CONF_FEDERATION_MAX 16
struct conf_federated {
    char *name;        /* "partner.example" */
    char *url;         /* of its bundle endpoint */
    char *profile;     /* https_web, or "https_spiffe" */
    char *ca_file;     /* https_web: PEM roots of the endpoint's certificate; NULL: the system's */
    char *spiffe_id;   /* https_spiffe: the endpoint's */
    char *bundle_file; /* https_spiffe: the bundle by which it is believed the first time */
    /* derived */
    bool by_spiffe;
};
struct conf_federation {
    struct conf_federated *trust_domains;
    unsigned n_trust_domains;
    char **allow; /* as dns.allow: ranges that are not the public's, to which it may connect */
    unsigned n_allow;
    char *refresh_min; /* 1m; between two looks, whatever the bundle's hint says */
    char *refresh_max; /* 1h */
    char *timeout;     /* 10s; of one look */
    /* derived */
    struct conf_range ranges[CONF_RANGES_MAX]; /* of allow */
    int64_t refresh_min_s, refresh_max_s, timeout_s;
};
/* NULL: not one of them; conf may be NULL. */
const struct conf_federated *conf_federated(const struct conf_federation *conf, const char *name);

/* The name of the person with this id; NULL: nobody's. */
const char *conf_admin_person(const struct conf_admin *admin, const char *id);
/* Does this binding speak of who has this id? */
bool conf_admin_binds(const struct conf_admin *admin, const struct conf_admin_binding *binding,
                      const char *id);
bool conf_admin_pattern_fits(const char *pattern, const char *text);

/* Where the authorities' keys are, and how they are replaced. */
struct conf_ca {
    char *keys;         /* "file" or "hsm": where `init` and `ca prepare` make new ones; file */
    char *hsm_user;     /* who serves hsm_dir/hsm.sock, beside root; NULL: the issuer's own user */
    char *hsm_dir;      /* the folder of attestd-hsmd's socket; NULL: run_dir/hsm */
    char *publish_wait; /* 24h; from a new root's publication to the first certificate under it */
};

/* A TPM of this machine that signs the audit log's checkpoints, too, and guards them by a counter:
 * attest-issuerd-tpm's. Off where the section is not there. */
struct conf_log_tpm {
    char *tcti;             /* device:/dev/tpmrm0 */
    char *dir;              /* the folder of its socket; run_dir/tpm */
    char *user;             /* who serves there, beside root; NULL: the issuer's own user */
    char *state_dir;        /* /var/lib/attest-issuerd-tpm */
    char *counter;          /* its NV index; 0x01804c47 */
    char *counter_interval; /* 1h; the counter rises so often at most, as a mean: NV wears */
    /* The TPM's owner password; NULL: the systemd credential LOGTPM_CREDENTIAL, if there is one */
    char *owner_password_file;
    /* derived */
    uint32_t counter_index;
    int64_t counter_interval_s;
};

struct conf_issuer {
    char *trust_domain;
    char *listen; /* "127.0.0.1:8443", "[::1]:8443" */
    char *url;    /* the configured base URL */
    char *
        *proxy_from; /* balancers, which say whose a connection is (PROXY protocol); mostly none */
    unsigned n_proxy_from;
    char *state_dir; /* /var/lib/attest-issuerd */
    char *run_dir;   /* /run/attest-issuerd: admin.sock */
    /* The database: a path, or a PostgreSQL that several issuers share, as provision/store/store.h
     * says; state_dir/issuer.db where the file says nothing */
    char *store;
    char *store_password_file; /* of a PostgreSQL; NULL: none. "credential:NAME" in the file is
                                  systemd's, and here its path, or the same text where systemd gave
                                  this process none */
    char *policies_dir; /* /etc/attestd/policies: boot policy NAME is the file NAME.json there */
    unsigned threads;   /* 1 … 64; 2 */
    bool *eab_required_set; /* as in the file */
    struct conf_ek *ek;
    struct conf_enrolment *enrolment;
    struct conf_profile *profiles; /* at least one; names differ */
    unsigned n_profiles;
    struct conf_dns *dns;               /* NULL: no certificates for DNS names */
    struct conf_devices *devices;       /* NULL: none for permanent identifiers */
    struct conf_limits *limits;         /* never NULL */
    struct conf_issuer_tls *tls;        /* NULL: issued under the issuer's own TLS root */
    struct conf_crl *crl;               /* NULL: the defaults */
    struct conf_admin *admin;           /* NULL: the socket only, without four eyes */
    struct conf_ca *ca;                 /* NULL: the defaults */
    struct conf_jwt *jwt;               /* NULL: no tokens */
    struct conf_federation *federation; /* NULL: none */
    struct conf_log_tpm *log_tpm;       /* NULL: no TPM signs the log */
    struct conf_attestd_hsm *hsm;       /* for attestd-hsmd --issuer; NULL: no key is in an HSM */
    /* Metrics and health: ADDRESS:PORT, "unix:PATH" (unix:run_dir/metrics.sock), or "none" */
    char *metrics_listen;
    char *drain_notice;      /* after SIGTERM, not ready and serving still; NULL: none */
    char *drain_timeout;     /* 10s; what requests that were begun have then */
    char *ca_warning;        /* 90d; a CA that ends sooner is warned of */
    char *evidence_lifetime; /* 400d; messages and logs that were judged */
    char *log, *log_level, *control_group; /* as in attestd.yaml */
    /* derived */
    int64_t evidence_lifetime_s, ca_warning_s;
    bool ca_keys_hsm;
    int64_t ca_publish_wait_s;
    bool eab_required;    /* true unless the file says false */
    char listen_host[64]; /* address without brackets */
    uint16_t listen_port; /* 0: any free port */
    char crl_host[64];
    uint16_t crl_port;
    struct conf_listener metrics_at;
    struct conf_range proxies[CONF_RANGES_MAX]; /* of proxy_from */
    int64_t drain_notice_s, drain_timeout_s;
    int64_t crl_lifetime_s;
    bool log_json;
    enum att_log_level log_least;
};

ATT_MUST_USE enum att_rc conf_issuer_load(const char *path, struct conf_issuer **ret_conf,
                                          struct conf_errors *errors, struct att_err *err);
ATT_MUST_USE enum att_rc conf_issuer_parse(struct att_slice yaml, struct conf_issuer **ret_conf,
                                           struct conf_errors *errors, struct att_err *err);
void conf_issuer_free(struct conf_issuer *conf);
/* NULL when there is none of that name. */
const struct conf_profile *conf_issuer_profile(const struct conf_issuer *conf, const char *name);
/* Of the section dns; NULL when there is none of that name. */
const struct conf_dns_profile *conf_dns_profile(const struct conf_issuer *conf, const char *name);
const struct conf_device_profile *conf_device_profile(const struct conf_issuer *conf,
                                                      const char *name);
/* name: lowercase. */
bool conf_dns_profile_allows(const struct conf_dns_profile *profile, const char *name);

#endif
