/* One order's evidence (M4), and its CSR (M5). A statement of fmt "attestd-host" (a memory key) has
 * no TPM2_Certify: the six checks certifyType … keyParent are then reported as skipped, and
 * evidenceMismatch compares keySpki instead of keyName. One of fmt "attestd-hsm" is signed by the
 * key itself over SHA-256(keyAuthorization ‖ attributes) (certifySignature, certifyNonce),
 * keyAttributes are what its module states, keyHsm is about the module that the host says has it
 * (skipped for a key in none), keyType is of the key's own size and exponent; certifyType,
 * certifyName and keyParent are skipped. All others are the same for all. Checks of verify_agent,
 * in order: malformed, keyStore, keyType, keyHsm, akUnknown, akAttributes, certifyType,
 * certifySignature, certifyNonce, certifyName, keyAttributes, keyParent, quoteMagic, quoteType,
 * quoteSignature, akHierarchy, quoteNonce, pcrSelection, pcrDigest, tpmCleared, clockRollback,
 * akStale, evidenceMismatch, logMissing, logReplay, policyMissing, policyUnsigned, policySigner,
 * policyNotYetValid, policyExpired, bootPolicy. Of verify_csr: malformed, csrSignature, csrName,
 * csrAccountKey, csrKey. */
#ifndef ATTESTD_VERIFY_AGENT_H
#define ATTESTD_VERIFY_AGENT_H

#include "provision/evidence/statement.h"
#include "attestd/base/keytype.h"
#include "provision/verify/quote.h"

/* Kinds of key a profile may allow. */
#define VERIFY_KEY_TPM    1U
#define VERIFY_KEY_HSM    2U
#define VERIFY_KEY_MEMORY 4U
/* In memory, too, and the agent is given it on demand: docs/AGENTS.md. */
#define VERIFY_KEY_EXPORTABLE 8U
/* Types of key: bit i stands for enum att_keytype i. */
#define VERIFY_TYPE(type) (1U << (type))

/* What the verifier remembers of the AK. */
struct verify_ak_record {
    struct att_slice ak_pub;  /* TPMT_PUBLIC */
    struct att_slice ak_cert; /* DER of the AK certificate that was issued; empty: not compared */
    /* The clock of the last statement accepted from this AK; NULL only in `attestctl verify`, which
     * has no record: the three clock checks are then reported as skipped. */
    const struct verify_clock *clock;
    /* That of the AK's enrolment (M2): an AK speaks for one (resetCount, restartCount) and one
     * firmware. NULL together with clock. */
    const struct verify_clock *enrolled;
    int64_t expires_at; /* 0: not judged */
};

struct verify_agent_in {
    /* -- what the host sent -- */
    struct att_slice att_obj; /* CBOR; empty: the members below are given instead */
    struct att_slice ak_cert; /* x5c[0] */
    struct att_slice certify_sig, cert_info, pub_area;
    struct att_slice spki; /* fmt "attestd-host"; the three before are empty then */
    /* CBOR; fmt "attestd-hsm", which has certify_sig (r ‖ s) and spki beside it */
    struct att_slice attributes;
    struct att_slice evidence; /* CBOR */
    struct verify_quoted quoted;
    struct att_slice srk_pub;    /* TPMT_PUBLIC */
    struct att_slice parent_pub; /* TPMT_PUBLIC; empty when the SRK is the parent */
    /* -- what is expected -- */
    const char *key_authorization;
    const char *identifier; /* the order's: "spiffe://…" or the EK id */
    uint32_t key_stores;    /* VERIFY_KEY_* that the profile allows */
    uint32_t entry_store;   /* VERIFY_KEY_* that the entry names; 0: there is no entry here */
    uint32_t key_types;     /* VERIFY_TYPE(…) that the profile allows */
    uint32_t entry_type;    /* … that the entry names; 0: there is no entry here */
    /* Names of HSM modules, one of which the host has to say the key of kind "hsm" is in; n_hsms 0:
     * any, and hosts need not say. */
    const char *const *hsms;
    size_t n_hsms;
    /* That the entry names: another one is refused, none is not; NULL: none. */
    const char *entry_hsm;
    struct verify_ak_record ak;
    struct verify_boot boot;
    /* With sealing on: the parent's authPolicy (empty: not demanded) and userWithAuth clear. No key
     * outside a TPM meets that. */
    struct att_slice parent_policy;
    /* Instead: the parent's authPolicy must be PolicyPCR of PCR 7 as it is quoted. */
    bool parent_pcr7;
    /* `attestctl verify DIR` only: srkPub is not among the files, keyParent is reported as skipped.
     */
    bool no_parents;
};

struct verify_agent_facts {
    struct verify_quote_facts quote;
    struct parse_name key_name;    /* len 0: the key is in no TPM */
    uint8_t spki[VERIFY_SPKI_MAX]; /* of the key judged: what verify_csr compares with */
    size_t spki_len;
    const char *key_store;               /* static: "tpm", "hsm", "memory", "exportable" */
    const char *key_type;                /* static: "ec-p256", "rsa-2048" … */
    char hsm[EVIDENCE_HSM_NAME_MAX + 1]; /* HSM module, by the host's word; "": not said */
    bool has_hsm_token;
    struct evidence_hsm_token hsm_token; /* by the module's word */
    bool have_manifest_root;
    uint8_t manifest_root[ATT_SHA256_LEN];
    /* Of the host's own log; zeros: it keeps none. Also of a statement that was quoted for this
     * order and refused for what is behind it (the boot): the only fact of a refusal. */
    uint8_t host_log_head[ATT_SHA256_LEN];
    unsigned level;  /* 0–3, as evidence states it */
    size_t ima_used; /* bytes of IMA's list and its tail that lead to the quoted PCR 10 */
    size_t systemd_used;
    /* The key's parent opens by this authPolicy alone (SHA-256). */
    bool parent_sealed;
    uint8_t parent_policy[ATT_SHA256_LEN];
    bool has_device; /* where all measured files lie, by the host's word */
    uint32_t device_major, device_minor;
    char command_line[EVIDENCE_COMMAND_LINE_MAX + 1]; /* the kernel's, by the host's word; or "" */
};

ATT_MUST_USE enum verify_result verify_agent(const struct verify_agent_in *in,
                                             struct verify_verdict *verdict,
                                             struct verify_agent_facts *ret);

/* csr: DER PKCS#10. identifier: the only name it may ask for. certified_spki: from
 * verify_agent_facts. account_spkis: DER of the keys of accounts that it must not be (the order's
 * account at least; the store may add the rest). */
ATT_MUST_USE enum verify_result verify_csr(struct att_slice csr, const char *identifier,
                                           struct att_slice certified_spki,
                                           const struct att_slice *account_spkis,
                                           size_t n_account_spkis, struct verify_verdict *verdict);

#endif
