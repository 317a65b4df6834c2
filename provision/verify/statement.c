#include "provision/verify/steps.h"

#include "tpm/parse/sig.h"

const char *verify_statement_name(uint16_t type)
{
    switch (type) {
    case PARSE_ATTEST_NV:
        return "a TPM2_NV_Certify";
    case PARSE_ATTEST_CERTIFY:
        return "a TPM2_Certify";
    case PARSE_ATTEST_QUOTE:
        return "a TPM2_Quote";
    case PARSE_ATTEST_CREATION:
        return "a TPM2_CertifyCreation";
    case 0x8015:
        return "a TPM2_GetCommandAuditDigest";
    case 0x8016:
        return "a TPM2_GetSessionAuditDigest";
    case 0x8019:
        return "a TPM2_GetTime";
    default:
        return "no statement known here";
    }
}

bool verify_step_area(struct att_slice area, const char *what, struct parse_public *ret_pub,
                      struct verify_verdict *verdict)
{
    struct att_err err = {0};
    if (parse_public_parse(area, ret_pub, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "%s: %s", what, err.msg);
        return false;
    }
    return true;
}

bool verify_step_statement(struct att_slice bytes, uint16_t type, const char *what,
                           struct verify_statement *ret_statement, struct verify_verdict *verdict)
{
    struct verify_statement statement = {0};
    struct att_err err = {0};
    if (bytes.len > PARSE_ATTEST_MAX) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "%s: %zu bytes, at most %d are taken", what,
                    bytes.len, PARSE_ATTEST_MAX);
        return false;
    }
    if (parse_attest_header(bytes, &statement.magic, &statement.type, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "%s: %s", what, err.msg);
        return false;
    }
    if (statement.magic == PARSE_MAGIC && statement.type == type) {
        if (parse_attest_parse(bytes, &statement.attest, &err)) {
            verify_fail(verdict, VERIFY_REASON_MALFORMED, "%s: %s", what, err.msg);
            return false;
        }
        statement.parsed = true;
    }
    *ret_statement = statement;
    return true;
}

bool verify_step_signature(struct att_slice bytes, const char *what, struct verify_verdict *verdict)
{
    struct parse_sig sig;
    struct att_err err = {0};
    if (parse_sig_parse(bytes, &sig, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "%s: %s", what, err.msg);
        return false;
    }
    return true;
}
