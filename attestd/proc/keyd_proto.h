/* What keyd can be asked: the operations of its socket (run_dir/keyd/keyd.sock), with the exact
 * fields of each request and reply, in order. The table in keyd_proto.c is the contract; the names
 * below index struct proc_msg.v. No operation signs a digest that the caller chose.
 *
 * Names of members are those of docs/PROTOCOL.md. TPM structures travel there as here: TPMT_PUBLIC,
 * TPMS_ATTEST and TPMT_SIGNATURE without a size prefix, TPM2B_ID_OBJECT and
 * TPM2B_ENCRYPTED_SECRET with theirs. */
#ifndef ATTESTD_PROC_KEYD_PROTO_H
#define ATTESTD_PROC_KEYD_PROTO_H

#include "attestd/proc/ipc.h"

#define PROC_KEYD_VERSION     3
#define PROC_KEY_ID_LEN       32 /* lowercase hex of 16 random bytes */
#define PROC_AGENT_MAX        64 /* as an entry's name (certs/san.h) */
#define PROC_HSM_NAME_MAX     32 /* of a module, as in attestd.yaml */
#define PROC_TPM_STRUCT_MAX   2048
#define PROC_CERT_MAX         8192
#define PROC_JWS_PAYLOAD_MAX  ((uint32_t)192 << 10)
#define PROC_LOG_MANIFEST_MAX 4096
#define PROC_EVIDENCE_MAX     65536
#define PROC_KEYAUTH_MAX      512
#define PROC_URL_MAX          1024
#define PROC_ISSUER_URL_MAX   2048
#define PROC_PCRS_MAX         8192

enum proc_keyd_op {
    PROC_KEYD_INFO = 1,
    PROC_KEYD_IDENTITY = 2,
    PROC_KEYD_ACCOUNT = 3,
    PROC_KEYD_ACCOUNT_SIGN = 4,
    PROC_KEYD_ENROL_PROVE = 5,
    PROC_KEYD_SIGN_START = 6,
    PROC_KEYD_SIGN_PART = 7,
    PROC_KEYD_SIGN_END = 8,
    PROC_KEYD_ISSUER = 9,
    PROC_KEYD_KEY_CREATE = 16,
    PROC_KEYD_KEY_LIST = 17,
    PROC_KEYD_KEY_EVIDENCE = 18,
    PROC_KEYD_KEY_CSR = 19,
    PROC_KEYD_KEY_ACTIVATE = 20,
    PROC_KEYD_KEY_RETIRE = 21,
    PROC_KEYD_KEY_DESTROY = 22,
    PROC_KEYD_USER_QUOTE = 32,
    PROC_KEYD_FREEZE = 40,
    PROC_KEYD_THAW = 41,
    PROC_KEYD_KEY_CERTIFY = 48,
    PROC_KEYD_KEY_CSR_DEVICE = 49,
    PROC_KEYD_AK_CREATION = 50,
    PROC_KEYD_AK_ACTIVATE = 51,
};

/* INFO: () → json. Always answers, also when the TPM is away or foreign. A JSON object:
 *   {"version": 3, "state": "ready" | "starting" | "tpmGone" | "tpmSilent" | "foreignTpm" |
 *             "sealed" | "failed",           sealed: the boot is not approved; tpmSilent: a command
 * has had no answer for a minute "reason": text?                       why the state is not "ready"
 *    "tpm": {"manufacturer": "<8 hex>", "manufacturerText": "IBM", "firmware": "<16 hex>",
 *            "lockoutCounter": N, "lockoutMax": N, "inLockout": bool, "slotsFree": N,
 *            "banks": ["sha256", …], "srk": "persistent" | "transient", "ekCertificate": bool,
 *            "nvSkipped": [NV index of an EK certificate that was not read …]}
 *            (absent before the TPM answered for the first time)
 *    "ops": {"<operation>": {"n": N, "p50Us": N, "p95Us": N}, …},
 *    "instance": "<32 hex>",               another one after each start of keyd
 *    "stores": [{"name": "tpm", "keys": N, "keysMax": N, "durable": bool} …],    durable: its keys
 *                                          outlive keyd; memory has "open": N, keys ready to sign;
 *                                          hsm has "modules": [{"name", "keys", "keysMax", "state",
 *                                          "word", "reason", "pin", "waste": N, "token":
 *                                          {"manufacturer", "model", "serial"}} …], the default
 *                                          first (no token: it was not seen yet), and "elsewhere":
 *                                          [{"name", "keys"} …], modules that the configuration
 *                                          names no more
 *    "keys": N, "bad": ["<file set aside>", …], "frozen": ["<agent>", …],
 *    "sealing": {"pcr": "none" | "7" | "signed", and but for none: "open": bool, "opened": N,
 *            "refused": N, "pcrChanged": N, "keysOutside": N, "by": {"policy", "version", "boot",
 *            "recovery"}?, "policies": [{"file", "state", "name", "version", "recovery"} …]?,
 *            "counter": {"index", "value", "missing"} | null?,
 *            "now": {"resetCount": N, "pcrs": {…}}?       while sealed}
 *    "sandbox": {"profile", "seccomp", "landlock", "reason"?}}                                   */
enum { PROC_INFO_REP_JSON };
#define PROC_INFO_MAX 250000 /* below a frame; holds all names that can be frozen */

/* IDENTITY: () → ekCerts (every EK certificate in NV, DER), ekChain (DER; makers' chain in NV),
 * ekCert (the chosen one, DER; empty where the TPM has none), ekPub, akPub, srkPub (TPMT_PUBLIC),
 * akName (TPM Name), manufacturer (8 hex), firmware (16 hex), resetCount, restartCount (of the
 * TPM's clock, so that the daemon knows that this is another boot). */
enum {
    PROC_IDENTITY_REP_EK_CERTS,
    PROC_IDENTITY_REP_EK_CHAIN,
    PROC_IDENTITY_REP_EK_CERT,
    PROC_IDENTITY_REP_EK_PUB,
    PROC_IDENTITY_REP_AK_PUB,
    PROC_IDENTITY_REP_SRK_PUB,
    PROC_IDENTITY_REP_AK_NAME,
    PROC_IDENTITY_REP_MANUFACTURER,
    PROC_IDENTITY_REP_FIRMWARE,
    PROC_IDENTITY_REP_RESET_COUNT,
    PROC_IDENTITY_REP_RESTART_COUNT,
};

/* ACCOUNT: () → jwk (the public JWK: crv, kty, x, y), thumbprint (RFC 7638, 43 characters), spki
 * (DER). The key is made at first use and kept sealed. */
enum { PROC_ACCOUNT_REP_JWK, PROC_ACCOUNT_REP_THUMBPRINT, PROC_ACCOUNT_REP_SPKI };

/* ACCOUNT_SIGN: protected (the JWS protected header, JSON text before base64url), payload (bytes
 * before base64url; empty for POST-as-GET) → signature (r ‖ s, 64 bytes, over
 * b64u(protected) "." b64u(payload)). The header must be {"alg": "ES256", "nonce", "url", and
 * exactly one of "jwk" (our own key) and "kid" (under the issuer URL)}; "url" must lie under the
 * configured issuer URL: same scheme, host, port, and path at or below it.
 * ATT_E_DENIED: reasons jwsAlg, jwsUrl, jwsKid, jwsJwk, jwsHeader. */
enum { PROC_ACCOUNT_SIGN_REQ_PROTECTED, PROC_ACCOUNT_SIGN_REQ_PAYLOAD };
enum { PROC_ACCOUNT_SIGN_REP_SIGNATURE };

/* The same for payloads beyond PROC_JWS_PAYLOAD_MAX (the client does this by itself): SIGN_START:
 * protected → handle. SIGN_PART: handle, offset, chunk → (); all chunks but the last have whole
 * groups of 3 bytes. SIGN_END: handle, length → signature. keyd hashes what comes; at most
 * PROC_JWS_TOTAL_MAX bytes; a series that rests for 30 s is dropped. */
#define PROC_JWS_TOTAL_MAX ((size_t)12 << 20)
enum { PROC_SIGN_START_REQ_PROTECTED };
enum { PROC_SIGN_START_REP_HANDLE };
enum { PROC_SIGN_PART_REQ_HANDLE, PROC_SIGN_PART_REQ_OFFSET, PROC_SIGN_PART_REQ_CHUNK };
enum { PROC_SIGN_END_REQ_HANDLE, PROC_SIGN_END_REQ_LENGTH };

/* ISSUER: url → (). The base URL that a ticket names which attestd was given on its control socket.
 * In force until another ticket names another, and for good once the account key has signed as an
 * account there. ATT_E_CONFLICT issuerOther when the configuration or the account is another one's:
 * a daemon cannot turn the account key to another issuer. */
enum { PROC_ISSUER_REQ_URL };

/* ENROL_PROVE (M2): credentialBlob, encryptedSecret, akUrl (under the issuer URL; else ATT_E_DENIED
 * akUrl), m1Sha256 (SHA-256 of the M1 payload bytes), m1ReplySha256 (of the response body), nonce
 * (32), pcrSelection (text), logManifest (CBOR) → proof (32), attest, sig, pcrs (JSON text, the
 * wire's "pcrs" member). The credential and K never leave keyd. ATT_E_AUTH activation: the TPM
 * would not activate the credential. */
enum {
    PROC_ENROL_PROVE_REQ_CREDENTIAL_BLOB,
    PROC_ENROL_PROVE_REQ_ENCRYPTED_SECRET,
    PROC_ENROL_PROVE_REQ_AK_URL,
    PROC_ENROL_PROVE_REQ_M1_SHA256,
    PROC_ENROL_PROVE_REQ_M1_REPLY_SHA256,
    PROC_ENROL_PROVE_REQ_NONCE,
    PROC_ENROL_PROVE_REQ_PCR_SELECTION,
    PROC_ENROL_PROVE_REQ_LOG_MANIFEST,
};
enum {
    PROC_ENROL_PROVE_REP_PROOF,
    PROC_ENROL_PROVE_REP_ATTEST,
    PROC_ENROL_PROVE_REP_SIG,
    PROC_ENROL_PROVE_REP_PCRS,
};

/* KEY_CREATE: agent, keyStore ("tpm", "hsm", "memory", "exportable"), keyType ("ec-p256"; in an HSM
 * also "rsa-2048", "rsa-3072"), hsm (which of the host's modules, where keyStore is "hsm"; empty:
 * its default) → one key record (below). A new key in that store, state "new". ATT_E_UNSUPPORTED
 * keyStore, keyType, hsmModule: not one of this keyd's stores, of that store's types, of this
 * host's modules. ATT_E_LIMIT: the agent's keys, or the store's, or all, are as many as there may
 * be. Not repeated by the client: after a lost connection KEY_LIST tells whether it was made. */
enum {
    PROC_KEY_CREATE_REQ_AGENT,
    PROC_KEY_CREATE_REQ_KEY_STORE,
    PROC_KEY_CREATE_REQ_KEY_TYPE,
    PROC_KEY_CREATE_REQ_HSM,
};

/* A key record: keyId, agent, state ("new", "active", "retired"), createdAt (UTC seconds),
 * keyStore, keyType (as above), name (TPM Name; empty where the store is no TPM), spki (DER), hsm
 * (the module that has it; empty where the store is no HSM), usual (1: where a key of this store is
 * made when no module is named; 0: in another module). */
enum {
    PROC_KEY_REC_KEY_ID,
    PROC_KEY_REC_AGENT,
    PROC_KEY_REC_STATE,
    PROC_KEY_REC_CREATED_AT,
    PROC_KEY_REC_KEY_STORE,
    PROC_KEY_REC_KEY_TYPE,
    PROC_KEY_REC_NAME,
    PROC_KEY_REC_SPKI,
    PROC_KEY_REC_HSM,
    PROC_KEY_REC_USUAL,
};
extern const struct proc_shape proc_key_record_shape;

/* KEY_LIST: after (a keyId, or empty for the start) → records (a page in keyId order, each encoded
 * by proc_key_record_shape; an empty page is the end). */
enum { PROC_KEY_LIST_REQ_AFTER };
enum { PROC_KEY_LIST_REP_RECORDS };
#define PROC_KEY_PAGE       100
#define PROC_KEY_STORE_MAX  10
#define PROC_KEY_RECORD_MAX 4096

/* KEY_EVIDENCE (M4): keyId, keyAuthorization (token "." thumbprint, of OUR account: else
 * ATT_E_DENIED keyAuthorization), evidence (CBOR; keyStore must be this key's, keyName its Name or
 * keySpki the digest of its spki, hsm (where it is there) its module, hsmToken (where it is there)
 * what that module says of its token (INFO's "token"), and the identifier's agent this key's agent:
 * else ATT_E_DENIED evidenceKey, evidenceAgent), pcrSelection → certInfo (TPMS_ATTEST), certSig,
 * attest, quoteSig, pcrs (JSON text), pubArea, srkPub, parentPub (empty: the parent is the SRK).
 * certInfo, certSig, pubArea and srkPub are empty where the store states nothing by itself
 * ("memory", "exportable").
 * "hsm": certInfo is what the module states of the key (CBOR, provision/evidence/hsmattrs.h),
 * certSig the key's r ‖ s (RSA: RSASSA-PSS) over SHA-256(keyAuthorization ‖ that); pubArea and
 * srkPub are empty. */
enum {
    PROC_KEY_EVIDENCE_REQ_KEY_ID,
    PROC_KEY_EVIDENCE_REQ_KEY_AUTHORIZATION,
    PROC_KEY_EVIDENCE_REQ_EVIDENCE,
    PROC_KEY_EVIDENCE_REQ_PCR_SELECTION,
};
enum {
    PROC_KEY_EVIDENCE_REP_CERT_INFO,
    PROC_KEY_EVIDENCE_REP_CERT_SIG,
    PROC_KEY_EVIDENCE_REP_ATTEST,
    PROC_KEY_EVIDENCE_REP_QUOTE_SIG,
    PROC_KEY_EVIDENCE_REP_PCRS,
    PROC_KEY_EVIDENCE_REP_PUB_AREA,
    PROC_KEY_EVIDENCE_REP_SRK_PUB,
    PROC_KEY_EVIDENCE_REP_PARENT_PUB,
};

/* KEY_CSR (M5): keyId, spiffeId (last path segment = this key's agent, else ATT_E_DENIED csrAgent)
 * → csr (DER). */
enum { PROC_KEY_CSR_REQ_KEY_ID, PROC_KEY_CSR_REQ_SPIFFE_ID };
enum { PROC_KEY_CSR_REP_CSR };

/* KEY_ACTIVATE: keyId → (). The key becomes its agent's active one; an earlier active one becomes
 * "retired" in the same step, and still signs. KEY_RETIRE: keyId → (): active → retired.
 * KEY_DESTROY: keyId → (): the key is gone when it answers; absent is ATT_OK. A loss of power may
 * undo KEY_ACTIVATE and KEY_DESTROY: the caller compares KEY_LIST with its own records when it
 * starts. */
enum { PROC_KEY_STATE_REQ_KEY_ID };

/* For another server than an attest-issuerd; ATT_E_DENIED notAcme unless keyd's own configuration
 * has the section acme. KEY_CERTIFY: keyId, keyAuthorization (as in KEY_EVIDENCE) → certInfo
 * (TPMS_ATTEST, extraData SHA-256(keyAuthorization)), certSig, pubArea. ATT_E_UNSUPPORTED keyStore:
 * the key is in no TPM. KEY_CSR_DEVICE: keyId, identifier (a permanent identifier) → csr (DER). */
enum { PROC_KEY_CERTIFY_REQ_KEY_ID, PROC_KEY_CERTIFY_REQ_KEY_AUTHORIZATION };
enum {
    PROC_KEY_CERTIFY_REP_CERT_INFO,
    PROC_KEY_CERTIFY_REP_CERT_SIG,
    PROC_KEY_CERTIFY_REP_PUB_AREA,
};
enum { PROC_KEY_CSR_DEVICE_REQ_KEY_ID, PROC_KEY_CSR_DEVICE_REQ_IDENTIFIER };
/* An attestation CA in Smallstep's dialect; ATT_E_DENIED notAcme unless the section acme names one.
 * AK_CREATION: () → createData, createAttestation, createSignature. AK_ACTIVATE: credentialBlob,
 * encryptedSecret → secret, which that dialect wants back: the one thing that is ever given away of
 * an activation, and never where attest-issuerd's enrolment rests on it. ATT_E_AUTH activation. */
enum {
    PROC_AK_CREATION_REP_DATA,
    PROC_AK_CREATION_REP_ATTESTATION,
    PROC_AK_CREATION_REP_SIGNATURE,
};
enum { PROC_AK_ACTIVATE_REQ_CREDENTIAL_BLOB, PROC_AK_ACTIVATE_REQ_ENCRYPTED_SECRET };
enum { PROC_AK_ACTIVATE_REP_SECRET };
#define PROC_IDENTIFIER_MAX 255
#define PROC_AK_SECRET_MAX  64

/* USER_QUOTE: nonce (8–64 bytes), pcrSelection, logManifest → attest, sig, pcrs (JSON text),
 * extraData (32). extraData = SHA-256("attestd-user-q/1" ‖ nonce ‖ SHA-256(log manifest)). */
enum {
    PROC_USER_QUOTE_REQ_NONCE,
    PROC_USER_QUOTE_REQ_PCR_SELECTION,
    PROC_USER_QUOTE_REQ_LOG_MANIFEST
};
enum {
    PROC_USER_QUOTE_REP_ATTEST,
    PROC_USER_QUOTE_REP_SIG,
    PROC_USER_QUOTE_REP_PCRS,
    PROC_USER_QUOTE_REP_EXTRA_DATA,
};

/* FREEZE, THAW: agent → (). While frozen (kept on disk) KEY_CREATE, KEY_EVIDENCE, KEY_CSR and
 * KEY_ACTIVATE for this agent are ATT_E_DENIED frozen, also those that wait when FREEZE comes. */
enum { PROC_FREEZE_REQ_AGENT };

/* The table; ends with a NULL name. */
extern const struct proc_op proc_keyd_table[];

/* "[a-z0-9][a-z0-9._-]*", at most PROC_AGENT_MAX; and 32 lowercase hex digits. */
bool proc_agent_name_ok(struct att_slice name);
bool proc_key_id_ok(struct att_slice key_id);

#endif
