#include "attestd/proc/keyd_proto.h"
#include "attestd/proc/keyd_token.h"

#include <string.h>

/* name, type, least, most, longest item */
#define F_AGENT                                                                                    \
    {                                                                                              \
        "agent", PROC_TEXT, 1, PROC_AGENT_MAX, 0                                                   \
    }
#define F_KEY_ID                                                                                   \
    {                                                                                              \
        "keyId", PROC_TEXT, PROC_KEY_ID_LEN, PROC_KEY_ID_LEN, 0                                    \
    }
#define F_SELECTION                                                                                \
    {                                                                                              \
        "pcrSelection", PROC_TEXT, 1, 256, 0                                                       \
    }
#define F_LOG_MANIFEST                                                                             \
    {                                                                                              \
        "logManifest", PROC_BYTES, 1, PROC_LOG_MANIFEST_MAX, 0                                     \
    }
#define F_PCRS                                                                                     \
    {                                                                                              \
        "pcrs", PROC_TEXT, 2, PROC_PCRS_MAX, 0                                                     \
    }
#define F_STRUCT(name)                                                                             \
    {                                                                                              \
        name, PROC_BYTES, 1, PROC_TPM_STRUCT_MAX, 0                                                \
    }
#define F_SHA256(name)                                                                             \
    {                                                                                              \
        name, PROC_BYTES, 32, 32, 0                                                                \
    }
#define F_SPKI                                                                                     \
    {                                                                                              \
        "spki", PROC_BYTES, 1, PROC_TPM_STRUCT_MAX, 0                                              \
    }
#define F_NAME(name)                                                                               \
    {                                                                                              \
        name, PROC_BYTES, 2, 66, 0                                                                 \
    }
#define F_HANDLE                                                                                   \
    {                                                                                              \
        "handle", PROC_U64, 0, 0, 0                                                                \
    }
#define F_STATE                                                                                    \
    {                                                                                              \
        "state", PROC_TEXT, 1, 15, 0                                                               \
    }
#define F_CREATED                                                                                  \
    {                                                                                              \
        "createdAt", PROC_U64, 0, 0, 0                                                             \
    }
#define F_STRUCT_MAYBE(name)                                                                       \
    {                                                                                              \
        name, PROC_BYTES, 0, PROC_TPM_STRUCT_MAX, 0                                                \
    }
#define F_STORE                                                                                    \
    {                                                                                              \
        "keyStore", PROC_TEXT, 1, PROC_KEY_STORE_MAX, 0                                            \
    }
#define F_HSM                                                                                      \
    {                                                                                              \
        "hsm", PROC_TEXT, 0, PROC_HSM_NAME_MAX, 0                                                  \
    }
#define KEY_RECORD                                                                                 \
    {                                                                                              \
        {                                                                                          \
            F_KEY_ID, F_AGENT, F_STATE, F_CREATED, F_STORE, {"keyType", PROC_TEXT, 1, 15, 0},      \
                {"name", PROC_BYTES, 0, 66, 0}, F_SPKI, F_HSM,                                     \
            {                                                                                      \
                "usual", PROC_U32, 0, 1, 0                                                         \
            }                                                                                      \
        }                                                                                          \
    }

const struct proc_shape proc_key_record_shape = KEY_RECORD;

const struct proc_op proc_keyd_table[] = {
    {PROC_KEYD_INFO, PROC_OP_AGAIN, "INFO", {{{0}}}, {{{"json", PROC_TEXT, 2, PROC_INFO_MAX, 0}}}},
    {PROC_KEYD_IDENTITY,
     PROC_OP_AGAIN,
     "IDENTITY",
     {{{0}}},
     {{{"ekCerts", PROC_LIST, 0, 16, PROC_CERT_MAX},
       {"ekChain", PROC_LIST, 0, 12, PROC_CERT_MAX},
       {"ekCert", PROC_BYTES, 0, PROC_CERT_MAX, 0},
       F_STRUCT("ekPub"),
       F_STRUCT("akPub"),
       F_STRUCT("srkPub"),
       F_NAME("akName"),
       {"manufacturer", PROC_TEXT, 8, 8, 0},
       {"firmware", PROC_TEXT, 16, 16, 0},
       {"resetCount", PROC_U32, 0, UINT32_MAX, 0},
       {"restartCount", PROC_U32, 0, UINT32_MAX, 0}}}},
    {PROC_KEYD_ACCOUNT,
     PROC_OP_AGAIN,
     "ACCOUNT",
     {{{0}}},
     {{{"jwk", PROC_TEXT, 2, 512, 0}, {"thumbprint", PROC_TEXT, 43, 43, 0}, F_SPKI}}},
    {PROC_KEYD_ACCOUNT_SIGN,
     PROC_OP_AGAIN,
     "ACCOUNT_SIGN",
     {{{"protected", PROC_TEXT, 2, 4096, 0}, {"payload", PROC_BYTES, 0, PROC_JWS_PAYLOAD_MAX, 0}}},
     {{{"signature", PROC_BYTES, 64, 64, 0}}}},
    {PROC_KEYD_SIGN_START, 0, "SIGN_START", {{{"protected", PROC_TEXT, 2, 4096, 0}}}, {{F_HANDLE}}},
    {PROC_KEYD_SIGN_PART,
     0,
     "SIGN_PART",
     {{F_HANDLE, {"offset", PROC_U64, 0, 0, 0}, {"chunk", PROC_BYTES, 1, PROC_JWS_PAYLOAD_MAX, 0}}},
     {{{0}}}},
    {PROC_KEYD_SIGN_END,
     0,
     "SIGN_END",
     {{F_HANDLE, {"length", PROC_U64, 0, 0, 0}}},
     {{{"signature", PROC_BYTES, 64, 64, 0}}}},
    {PROC_KEYD_ENROL_PROVE,
     PROC_OP_AGAIN,
     "ENROL_PROVE",
     {{F_STRUCT("credentialBlob"),
       F_STRUCT("encryptedSecret"),
       {"akUrl", PROC_TEXT, 1, PROC_URL_MAX, 0},
       F_SHA256("m1Sha256"),
       F_SHA256("m1ReplySha256"),
       F_SHA256("nonce"),
       F_SELECTION,
       F_LOG_MANIFEST}},
     {{F_SHA256("proof"), F_STRUCT("attest"), F_STRUCT("sig"), F_PCRS}}},
    {PROC_KEYD_ISSUER,
     PROC_OP_AGAIN,
     "ISSUER",
     {{{"url", PROC_TEXT, 1, PROC_ISSUER_URL_MAX, 0}}},
     {{{0}}}},
    {PROC_KEYD_KEY_CREATE,
     0,
     "KEY_CREATE",
     {{F_AGENT, {"keyStore", PROC_TEXT, 1, 15, 0}, {"keyType", PROC_TEXT, 1, 15, 0}, F_HSM}},
     KEY_RECORD},
    {PROC_KEYD_KEY_LIST,
     PROC_OP_AGAIN,
     "KEY_LIST",
     {{{"after", PROC_TEXT, 0, PROC_KEY_ID_LEN, 0}}},
     {{{"records", PROC_LIST, 0, PROC_KEY_PAGE, PROC_KEY_RECORD_MAX}}}},
    {PROC_KEYD_KEY_EVIDENCE,
     PROC_OP_AGAIN,
     "KEY_EVIDENCE",
     {{F_KEY_ID,
       {"keyAuthorization", PROC_TEXT, 1, PROC_KEYAUTH_MAX, 0},
       {"evidence", PROC_BYTES, 1, PROC_EVIDENCE_MAX, 0},
       F_SELECTION}},
     {{F_STRUCT_MAYBE("certInfo"), F_STRUCT_MAYBE("certSig"), F_STRUCT("attest"),
       F_STRUCT("quoteSig"), F_PCRS, F_STRUCT_MAYBE("pubArea"), F_STRUCT_MAYBE("srkPub"),
       F_STRUCT_MAYBE("parentPub")}}},
    {PROC_KEYD_KEY_CSR,
     PROC_OP_AGAIN,
     "KEY_CSR",
     {{F_KEY_ID, {"spiffeId", PROC_TEXT, 1, 2048, 0}}},
     {{{"csr", PROC_BYTES, 1, PROC_CERT_MAX, 0}}}},
    {PROC_KEYD_KEY_ACTIVATE, PROC_OP_AGAIN, "KEY_ACTIVATE", {{F_KEY_ID}}, {{{0}}}},
    {PROC_KEYD_KEY_RETIRE, PROC_OP_AGAIN, "KEY_RETIRE", {{F_KEY_ID}}, {{{0}}}},
    {PROC_KEYD_KEY_DESTROY, PROC_OP_AGAIN, "KEY_DESTROY", {{F_KEY_ID}}, {{{0}}}},
    {PROC_KEYD_KEY_TOKEN,
     PROC_OP_AGAIN,
     "KEY_TOKEN",
     {{F_KEY_ID,
       {"serial", PROC_TEXT, 1, 64, 0},
       {"nonce", PROC_TEXT, 1, 255, 0},
       {"spiffeId", PROC_TEXT, 1, 512, 0},
       {"audience", PROC_LIST, 1, PROC_AUDIENCES_MAX, PROC_AUDIENCE_MAX}}},
     {{{"proof", PROC_TEXT, 1, PROC_PROOF_MAX, 0}}}},
    {PROC_KEYD_USER_QUOTE,
     PROC_OP_AGAIN,
     "USER_QUOTE",
     {{{"nonce", PROC_BYTES, 8, 64, 0}, F_SELECTION, F_LOG_MANIFEST}},
     {{F_STRUCT("attest"), F_STRUCT("sig"), F_PCRS, F_SHA256("extraData")}}},
    {PROC_KEYD_KEY_CERTIFY,
     PROC_OP_AGAIN,
     "KEY_CERTIFY",
     {{F_KEY_ID, {"keyAuthorization", PROC_TEXT, 1, PROC_KEYAUTH_MAX, 0}}},
     {{F_STRUCT("certInfo"), F_STRUCT("certSig"), F_STRUCT("pubArea")}}},
    {PROC_KEYD_KEY_CSR_DEVICE,
     PROC_OP_AGAIN,
     "KEY_CSR_DEVICE",
     {{F_KEY_ID, {"identifier", PROC_TEXT, 1, PROC_IDENTIFIER_MAX, 0}}},
     {{{"csr", PROC_BYTES, 1, PROC_CERT_MAX, 0}}}},
    {PROC_KEYD_AK_CREATION,
     PROC_OP_AGAIN,
     "AK_CREATION",
     {{{0}}},
     {{F_STRUCT("createData"), F_STRUCT("createAttestation"), F_STRUCT("createSignature")}}},
    {PROC_KEYD_AK_ACTIVATE,
     PROC_OP_AGAIN,
     "AK_ACTIVATE",
     {{F_STRUCT("credentialBlob"), F_STRUCT("encryptedSecret")}},
     {{{"secret", PROC_BYTES, 1, PROC_AK_SECRET_MAX, 0}}}},
    {PROC_KEYD_FREEZE, PROC_OP_AGAIN, "FREEZE", {{F_AGENT}}, {{{0}}}},
    {PROC_KEYD_THAW, PROC_OP_AGAIN, "THAW", {{F_AGENT}}, {{{0}}}},
    {0, 0, NULL, {{{0}}}, {{{0}}}},
};

static bool alnum(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool proc_agent_name_ok(struct att_slice name)
{
    if (name.len == 0 || name.len > PROC_AGENT_MAX || !alnum(name.ptr[0])) {
        return false;
    }
    for (size_t i = 0; i < name.len; i++) {
        if (!alnum(name.ptr[i]) && !memchr("._-", name.ptr[i], 3)) {
            return false;
        }
    }
    return true;
}

bool proc_key_id_ok(struct att_slice key_id)
{
    for (size_t i = 0; i < key_id.len; i++) {
        uint8_t c = key_id.ptr[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f')) {
            return false;
        }
    }
    return key_id.len == PROC_KEY_ID_LEN;
}
