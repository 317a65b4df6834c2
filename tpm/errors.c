#include "tpm/errors.h"

#include "tpm/internal.h"

#include <stdio.h>

#include <tss2/tss2_rc.h>

uint32_t tpm_errors_number(TSS2_RC rc)
{
    uint32_t layer = rc & TSS2_RC_LAYER_MASK;
    uint32_t code = rc & 0xffffu;
    bool from_tpm = layer == TSS2_TPM_RC_LAYER || layer == TSS2_RESMGR_TPM_RC_LAYER ||
                    layer == TSS2_RESMGR_RC_LAYER;

    /* Below 0x80 it is a base code of the resource manager, not a TPM's (Part 2 §6.6.3). */
    if (!from_tpm || code < TPM2_RC_FMT1) {
        return 0;
    }
    if (code & TPM2_RC_FMT1) {
        return code & 0xbfu; /* the error, without P and N */
    }
    return code & 0x97fu; /* version 2.0 and severity, without reserved bits */
}

bool tpm_errors_is_param(TSS2_RC rc)
{
    return tpm_errors_number(rc) != 0 && (rc & TPM2_RC_FMT1) && (rc & TPM2_RC_P);
}

static enum att_rc map_tpm_state(uint32_t number)
{
    switch (number) {
    case TPM2_RC_LOCKOUT:
        return ATT_E_LOCKOUT;
    case TPM2_RC_RETRY:
    case TPM2_RC_YIELDED:
    case TPM2_RC_TESTING:
    case TPM2_RC_CANCELED:
    case TPM2_RC_NEEDS_TEST:
    case TPM2_RC_NV_RATE:
    case TPM2_RC_NV_UNAVAILABLE:
    case TPM2_RC_OBJECT_MEMORY:
    case TPM2_RC_SESSION_MEMORY:
    case TPM2_RC_MEMORY:
    case TPM2_RC_SESSION_HANDLES:
    case TPM2_RC_OBJECT_HANDLES:
    case TPM2_RC_CONTEXT_GAP:
    case TPM2_RC_TOO_MANY_CONTEXTS:
    case TPM2_RC_PCR_CHANGED:
    case TPM2_RC_NV_SPACE:
        return ATT_E_RETRY;
    case TPM2_RC_INITIALIZE: /* it was reset and nobody has started it: reopening does */
    case TPM2_RC_REBOOT:
    case TPM2_RC_REFERENCE_H0: /* our objects or sessions are no longer there */
    case TPM2_RC_REFERENCE_H1:
    case TPM2_RC_REFERENCE_H2:
    case TPM2_RC_REFERENCE_H3:
    case TPM2_RC_REFERENCE_H4:
    case TPM2_RC_REFERENCE_H5:
    case TPM2_RC_REFERENCE_H6:
    case TPM2_RC_REFERENCE_S0:
    case TPM2_RC_REFERENCE_S1:
    case TPM2_RC_REFERENCE_S2:
    case TPM2_RC_REFERENCE_S3:
    case TPM2_RC_REFERENCE_S4:
    case TPM2_RC_REFERENCE_S5:
    case TPM2_RC_REFERENCE_S6:
        return ATT_E_GONE;
    case TPM2_RC_FAILURE: /* failure mode: only a reset helps */
    case TPM2_RC_UPGRADE:
        return ATT_E_IO;
    default:
        return ATT_E_INTERNAL;
    }
}

static enum att_rc map_tpm(uint32_t number)
{
    switch (number) {
    case TPM2_RC_AUTH_FAIL:
    case TPM2_RC_BAD_AUTH:
    case TPM2_RC_NONCE:
    case TPM2_RC_SIGNATURE:
    case TPM2_RC_INTEGRITY:
        return ATT_E_AUTH;
    case TPM2_RC_POLICY_FAIL:
    case TPM2_RC_POLICY:
    case TPM2_RC_POLICY_CC:
    case TPM2_RC_EXPIRED:
    case TPM2_RC_TICKET:
    case TPM2_RC_AUTH_TYPE:
    case TPM2_RC_AUTH_UNAVAILABLE:
    case TPM2_RC_AUTH_MISSING:
    case TPM2_RC_HIERARCHY:
    case TPM2_RC_DISABLED:
    case TPM2_RC_PCR:
    case TPM2_RC_LOCALITY:
    case TPM2_RC_PP:
    case TPM2_RC_NV_AUTHORIZATION:
    case TPM2_RC_ATTRIBUTES:
    case TPM2_RC_PARENT:
    case TPM2_RC_BINDING:
        return ATT_E_DENIED;
    case TPM2_RC_HANDLE:
        return ATT_E_NOTFOUND;
    case TPM2_RC_NV_DEFINED:
    case TPM2_RC_NV_LOCKED:
    case TPM2_RC_NV_UNINITIALIZED:
        return ATT_E_CONFLICT;
    case TPM2_RC_COMMAND_CODE:
    case TPM2_RC_CURVE:
    case TPM2_RC_HASH:
    case TPM2_RC_SCHEME:
    case TPM2_RC_ASYMMETRIC:
    case TPM2_RC_SYMMETRIC:
    case TPM2_RC_KEY_SIZE:
    case TPM2_RC_MODE:
    case TPM2_RC_KDF:
        return ATT_E_UNSUPPORTED;
    case TPM2_RC_VALUE:
    case TPM2_RC_SIZE:
    case TPM2_RC_RANGE:
    case TPM2_RC_TYPE:
    case TPM2_RC_KEY:
    case TPM2_RC_ECC_POINT:
    case TPM2_RC_NV_RANGE:
    case TPM2_RC_NV_SIZE:
    case TPM2_RC_INSUFFICIENT:
    case TPM2_RC_SENSITIVE:
    case TPM2_RC_SELECTOR:
    case TPM2_RC_RESERVED_BITS:
    case TPM2_RC_TAG:
        return ATT_E_INVAL;
    default:
        return map_tpm_state(number);
    }
}

/* Codes that the TSS's own layers make. */
static enum att_rc map_layer(uint32_t layer, uint32_t base)
{
    switch (base) {
    case TSS2_BASE_RC_NO_CONNECTION:
    case TSS2_BASE_RC_IO_ERROR:
    case TSS2_BASE_RC_NO_TPM:
        return ATT_E_GONE;
    case TSS2_BASE_RC_BAD_SEQUENCE: /* ESYS or TCTI lost its place and only a new one helps */
        return ATT_E_GONE;
    case TSS2_BASE_RC_GENERAL_FAILURE:
        return layer == TSS2_TCTI_RC_LAYER || layer == TSS2_RESMGR_RC_LAYER ? ATT_E_GONE
                                                                            : ATT_E_CRYPTO;
    case TSS2_BASE_RC_TRY_AGAIN:
        return ATT_E_RETRY;
    case TSS2_BASE_RC_MEMORY:
        return ATT_E_NOMEM;
    case TSS2_BASE_RC_MALFORMED_RESPONSE:
    case TSS2_BASE_RC_INSUFFICIENT_RESPONSE:
    case TSS2_BASE_RC_INSUFFICIENT_BUFFER:
    case TSS2_BASE_RC_RSP_AUTH_FAILED: /* the response's HMAC: somebody is on the bus */
    case TSS2_BASE_RC_BAD_SIZE:
    case TSS2_BASE_RC_HASH_MISMATCH:
        return ATT_E_PROTOCOL;
    case TSS2_BASE_RC_NOT_SUPPORTED:
    case TSS2_BASE_RC_NOT_IMPLEMENTED:
    case TSS2_BASE_RC_INCOMPATIBLE_TCTI:
    case TSS2_BASE_RC_ABI_MISMATCH:
        return ATT_E_UNSUPPORTED;
    case TSS2_BASE_RC_BAD_VALUE:
        return layer == TSS2_MU_RC_LAYER ? ATT_E_PROTOCOL : ATT_E_INVAL;
    case TSS2_BASE_RC_NOT_PERMITTED:
        return ATT_E_IO;
    default:
        return ATT_E_INTERNAL;
    }
}

enum att_rc tpm_errors_map(uint32_t tss_rc)
{
    if (tss_rc == TSS2_RC_SUCCESS) {
        return ATT_OK;
    }
    uint32_t number = tpm_errors_number(tss_rc);
    if (number != 0) {
        return map_tpm(number);
    }
    return map_layer(tss_rc & TSS2_RC_LAYER_MASK, tss_rc & 0xffffu);
}

enum att_rc tpm_errors_set(struct att_err *err, uint32_t tss_rc, const char *file, int line,
                           const char *what)
{
    if (tss_rc == TSS2_RC_SUCCESS) {
        return att_err_set(err, ATT_E_INTERNAL, ATT_DOM_TSS, 0, file, line,
                           "%s: reported as a failure without an error code", what);
    }
    enum att_rc rc = tpm_errors_map(tss_rc);
    /* What the TSS says of a lost connection ("wrong order") is no help to an operator. */
    bool lost = rc == ATT_E_GONE && tpm_errors_number(tss_rc) == 0;
    return att_err_set(err, rc, ATT_DOM_TSS, tss_rc, file, line, "%s: %s%s (0x%06x)", what,
                       lost ? "the TPM does not answer: " : "", Tss2_RC_Decode(tss_rc), tss_rc);
}
