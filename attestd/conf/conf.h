/* Configuration files → structs. A file is checked whole: conf_*_load either gives a struct in
 * which everything holds, or every error that was found, each with file:line, field, the form
 * expected and what stood there. YAML aliases, anchors, tags and duplicate keys are errors; so is
 * an unknown key. Nothing is read but the file itself. */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include "attestd/conf/listener.h"
#include "attestd/base/buf.h"
#include "attestd/base/hash.h"
#include "attestd/base/log.h"

#define CONF_FILE_MAX   1048576 /* bytes of any YAML file */
#define CONF_ERRORS_MAX 64
#define CONF_NAME_MAX   64
#define CONF_PCRS_MAX   24 /* PCR indices 0 … 23 */

/* ---- errors ---- */
struct conf_error {
    int line;        /* 1-based; 0: the file as a whole */
    char field[128]; /* "profiles[1].lifetime"; may be empty */
    char text[384];  /* "expected …, found …" */
};
struct conf_errors {
    size_t n;       /* entries in v */
    size_t dropped; /* found beyond CONF_ERRORS_MAX */
    struct conf_error v[CONF_ERRORS_MAX];
};
/* One line: "FILE:LINE: field: text". Appended, without a newline. */
void conf_error_text(const struct conf_error *error, const char *file, struct att_buf *ret_text);

/* ---- forms shared by several files ---- */
/* [a-z0-9][a-z0-9._-]{0,63} */
ATT_MUST_USE enum att_rc conf_name_check(const char *text, struct att_err *err);
/* "sha256:0,1,2,7": one bank of sha256, sha384, sha512; indices 0 … 23, ascending, at least one. */
ATT_MUST_USE enum att_rc conf_pcrs_check(const char *text, struct att_err *err);
/* https://host[:port][/path] without user, query, fragment or trailing slash. */
ATT_MUST_USE enum att_rc conf_url_check(const char *text, struct att_err *err);
/* The same in the clear: http://… */
ATT_MUST_USE enum att_rc conf_http_url_check(const char *text, struct att_err *err);

/* ---- attestd.yaml ---- */
struct conf_attestd_issuer {
    char *url;     /* base URL; the directory is <url>/directory; NULL: in the ticket file */
    char *ca_file; /* this, or ca_sha256, or neither (then from the ticket file) */
    char *ca_sha256;
    uint8_t ca_sha256_bytes[ATT_SHA256_LEN];
};
/* Another server in place of an attest-issuerd: plain RFC 8555 with device-attest-01. */
struct conf_attestd_eab {
    char *kid;
    char *key_file; /* the MAC key in base64url, as the server's operator gives it */
};
struct conf_attestd_attestation_ca { /* in Smallstep's dialect (docs/PROTOCOL.md) */
    char *url;                       /* …/attest and …/secret below it */
    char *ca_file;                   /* for TLS; acme.ca_file unless set */
};
struct conf_attestd_acme {
    char *directory; /* the whole URL; its origin is conf_acme_origin's */
    char *ca_file;   /* for TLS: this or ca_sha256 */
    char *ca_sha256;
    uint8_t ca_sha256_bytes[ATT_SHA256_LEN];
    char *roots;                  /* anchors of the certificates, PEM; ca_file unless set */
    char *agents;                 /* file of agents (acme_agents.h) */
    struct conf_attestd_eab *eab; /* NULL: none */
    struct conf_attestd_attestation_ca *attestation_ca; /* this … */
    char *ak_certificate;                               /* … or a chain from elsewhere, PEM */
    char *ak; /* kind of the AK: "rsa-2048" (step-ca takes no other) unless set, or "ec-p256" */
};
struct conf_attestd_tpm {
    char *tcti; /* "device:/dev/tpmrm0" unless set */
    char *pcr;  /* "none", "7" or "signed": what gates the loading of keys; "none" unless set */
    /* with "signed" alone */
    char *policy_key; /* PEM file, P-256; required */
    char *policy_ref; /* text; "attestd" unless set */
    char *policies;   /* folder of signed PCR policies; "/etc/attestd/pcr-policies" unless set */
};
#define CONF_SIGNATURES_MAX 1000000
struct conf_attestd_signatures { /* of each agent, by keyd */
    uint32_t per_second;         /* 0: any number */
    uint32_t burst;              /* 0 in the file: twice per_second */
};
struct conf_attestd_logs {
    char *firmware, *systemd, *ima; /* paths; never NULL; an absent file is a log not sent */
};

#define CONF_HSMS_MAX         4 /* modules of one host, each with an attestd-hsmd of its own */
#define CONF_HSM_NAME_MAX     32
#define CONF_HSM_FILES_MAX    16
#define CONF_HSM_SESSIONS_MAX 8
#define CONF_HSM_DEFAULT      "default" /* what the section hsm is called */
struct conf_attestd_hsm {               /* for attestd-hsmd; keyd looks at name and user only */
    char *name;                         /* conf_name_check, at most CONF_HSM_NAME_MAX; differ */
    char *user;                         /* as whom its attestd-hsmd runs; NULL: keyd's --hsm-user */
    char *module;                       /* path of the PKCS#11 module */
    char *token;                        /* RFC 7512 URI; conf_p11uri_parse has its parts */
    char **files; /* what the module may read and, where their modes let it, write */
    unsigned n_files;
    char *sandbox;     /* "local" or "network" */
    uint32_t sessions; /* side by side; 4 unless set */
    bool network;      /* derived from sandbox */
};

struct conf_attestd {
    struct conf_attestd_issuer *issuer; /* NULL: section absent, everything comes from a ticket */
    struct conf_attestd_acme *acme;     /* NULL: the issuer is an attest-issuerd; else issuer is */
    struct conf_attestd_tpm *tpm;       /* never NULL after load, like the rest */
    char *state_dir;                    /* /var/lib/attestd */
    char *run_dir;                      /* /run/attestd */
    char *ticket_file;                  /* NULL: none configured */
    struct conf_attestd_logs *logs;
    struct conf_attestd_signatures *signatures;
    /* The host's default first, then as in the file; the section hsm is one of them. */
    struct conf_attestd_hsm *hsms;
    unsigned n_hsms;              /* 0: this host has no HSM */
    struct conf_attestd_hsm *hsm; /* NULL after load */
    char *default_hsm;            /* hsms[0].name after load; NULL without any */
    char *log;                    /* "text" or "json" */
    char *log_level;              /* "debug" "info" "warn" "error" */
    char *metrics_listen; /* "unix:/PATH", ADDRESS:PORT, or "none", which it is unless set */
    char *control_group;  /* "attestd-admin"; "" or "none" in the file: NULL, root only */
    /* derived */
    bool log_json;
    enum att_log_level log_least;
    struct conf_listener metrics_at;
};

/* ATT_E_PARSE: err says how many errors, and the first; errors (may be NULL) has them all. */
ATT_MUST_USE enum att_rc conf_attestd_load(const char *path, struct conf_attestd **ret_conf,
                                           struct conf_errors *errors, struct att_err *err);
ATT_MUST_USE enum att_rc conf_attestd_parse(struct att_slice yaml, struct conf_attestd **ret_conf,
                                            struct conf_errors *errors, struct att_err *err);
void conf_attestd_free(struct conf_attestd *conf);

/* Bytes of "https://host[:port]" in a directory's URL; its path follows, with the slash. */
size_t conf_acme_origin(const char *directory);

/* NULL: this host has none of that name. */
const struct conf_attestd_hsm *conf_attestd_hsm_find(const struct conf_attestd *conf,
                                                     const char *name);

/* Sections of attestd.yaml that may be overridden on the command line; the value is checked like
 * the file's (absolute path). */
ATT_MUST_USE enum att_rc conf_path_set(char **path, const char *value, struct att_err *err);

#endif
