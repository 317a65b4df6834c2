/* A forge for evidence: a TPM made of OpenSSL keys, and an honest host around it, in which any one
 * thing can be made wrong while all the rest stays consistent. For tests only.
 *
 * forge_new() makes the keys; forge_build() derives everything else in stages and calls the test's
 * function before each: what it changes there is what the later stages are made of. */
#ifndef ATTESTD_TESTS_FORGE_H
#define ATTESTD_TESTS_FORGE_H

#include "provision/evidence/hsmattrs.h"
#include "provision/evidence/statement.h"
#include "provision/verify/agent.h"
#include "provision/verify/ek.h"
#include "provision/verify/enrol.h"
#include "tpm/parse/attest.h"
#include "tpm/parse/eventlog.h"
#include "tpm/parse/public.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

/* What is added to the times in certificates: for a forge whose verifier has a real clock. */
extern int64_t forge_shift_s;
#define FORGE_NOW        INT64_C(1795449600) /* 2026-11-23T16:00:00Z */
#define FORGE_EVENTS     48
#define FORGE_IDENTIFIER "spiffe://bank.example/agent/portfolio-rebalancer"
#define FORGE_KEYAUTH    "Zm9yZ2UtdG9rZW4tMDAwMQ.1XbWNzZ2VfdGh1bWJwcmludF8wMDAwMDAwMDAwMDAwMDA"

enum forge_ek { FORGE_EK_P256, FORGE_EK_RSA, FORGE_EK_P384 };
enum forge_kind { FORGE_ORDER, FORGE_ENROL };

/* What is settled before each call; the name says what may be changed there. */
enum forge_stage {
    FORGE_KEYS,     /* keys, public areas, EK certificate's spec, events, clock, expectations */
    FORGE_PCRS,     /* pcrs, as the events give them: what the TPM will quote */
    FORGE_LOG,      /* events again: what the host will say */
    FORGE_CERTIFY,  /* certify (TPMS_ATTEST) */
    FORGE_EVIDENCE, /* statement */
    FORGE_QUOTE,    /* quote (TPMS_ATTEST) */
    FORGE_DONE,     /* every byte, and the inputs in, enrol_in, ek_in */
};

struct forge_key {
    EVP_PKEY *pkey;
    struct parse_public pub;
    struct att_buf area; /* TPMT_PUBLIC, made after FORGE_KEYS */
    struct parse_name name;
};

struct forge_event {
    uint32_t pcr, type;
    uint8_t digest[ATT_SHA256_LEN];
    uint8_t data[512];
    size_t data_len;
};

/* What the EK certificate is made of. */
struct forge_ek_cert {
    EVP_PKEY *subject; /* NULL: the EK's */
    bool ca, no_eku, no_san, self_signed, foreign_issuer;
    int64_t not_before, not_after;
    const char *manufacturer, *model, *version; /* "id:49424D00" … */
    size_t padding;                             /* bytes of 0xff after the DER, as in NV */
};

struct forge {
    /* -- made by forge_new -- */
    enum forge_kind kind;
    struct forge_key ek, ak, srk, parent, agent;
    EVP_PKEY *account, *maker_root_key, *maker_ca_key, *att_root_key, *att_ca_key;
    EVP_PKEY *certify_signer, *quote_signer; /* the AK's, borrowed; change to sign with another */
    X509 *maker_root, *maker_ca, *att_root, *att_ca;
    struct certs_ek_store *roots;
    struct forge_ek_cert ek_cert_spec;
    bool no_parent;    /* the key stands right under the SRK */
    bool memory;       /* the agent's key is in no TPM: fmt attestd-host */
    bool exportable;   /* … a key that its agent is given, with memory */
    bool hsm;          /* with memory: fmt attestd-hsm; certify_bytes, certify_sig are
                          its attributes (CBOR) and its r ‖ s over them */
    EVP_PKEY *outside; /* with memory: this key (RSA, say) and not the agent's; borrowed */
    int hsm_alg;       /* COSE; 0: by the key's type */
    struct evidence_hsm_attrs attrs;
    EVP_PKEY *hsm_signer;             /* the agent's unless set, borrowed */
    uint32_t ak_hierarchy, hierarchy; /* of the AK, of the SRK */
    struct verify_clock clock;        /* what the TPM says now */
    struct verify_clock previous;     /* what the issuer has on record */
    bool no_previous;
    struct parse_pcr_sel selection;
    struct forge_event events[FORGE_EVENTS];
    size_t n_events;
    const char *identifier, *key_authorization; /* the order's */
    const char *quoted_key_authorization;       /* what the host binds to; default the order's */
    const char *certified_key_authorization;
    uint8_t proof[ATT_SHA256_LEN], extra[ATT_SHA256_LEN]; /* enrolment */
    uint32_t magic_certify, magic_quote;
    /* -- made by forge_build -- */
    struct parse_pcr_set pcrs;
    struct evidence_logs logs;
    struct verify_policy *policy;
    struct parse_attest certify, quote;
    struct parse_name signer, key_qualified; /* qualified Names */
    struct evidence_statement statement;
    struct att_buf ek_cert, ak_cert, certify_bytes, certify_sig, evidence, quote_bytes, quote_sig,
        att_obj, log_bytes, csr, scratch;
    uint8_t certify_extra[ATT_SHA256_LEN], quote_extra[ATT_SHA256_LEN];
    uint8_t selection_raw[PARSE_PCR_RAW_LEN], pcr_digest[PARSE_DIGEST_MAX];
    struct att_slice chain[1]; /* maker's intermediate, DER */
    struct att_buf chain_der;
    struct verify_ek_in ek_in;
    struct verify_enrol_in enrol_in;
    struct verify_agent_in agent_in;
};

typedef void (*forge_mutate)(struct forge *forge, enum forge_stage stage);

struct forge *forge_new(enum forge_ek ek, enum forge_kind kind);
void forge_free(struct forge *forge);
/* Aborts the test program when anything cannot be made. mutate may be NULL. */
void forge_build(struct forge *forge, forge_mutate mutate);

/* A fresh P-256 key; the caller frees it (EVP_PKEY_free). */
EVP_PKEY *forge_p256(void);
/* TPMT_SIGNATURE over bytes, ECDSA with the named hash; appends. */
void forge_sign(EVP_PKEY *key, uint16_t hash, struct att_slice bytes, struct att_buf *ret_sig);
/* DER SubjectPublicKeyInfo; appends. */
void forge_spki(EVP_PKEY *key, struct att_buf *ret_der);
/* An event whose digest is of its data; at the end of the list. */
struct forge_event *forge_event_add(struct forge *forge, uint32_t pcr, uint32_t type,
                                    const char *data);
/* EFI_SIGNATURE-less UEFI_VARIABLE_DATA of this name and one byte of content. */
struct forge_event *forge_event_variable(struct forge *forge, uint32_t pcr, uint32_t type,
                                         const char *name, uint8_t content);
/* The boot policy in JSON that allows exactly forge->pcrs; appends. */
void forge_policy_json(const struct forge *forge, struct att_buf *ret_json);
#endif
