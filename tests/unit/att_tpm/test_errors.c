/* tpm/errors: what a response code means to the caller. */
#include "tests/unit/att_tpm/common.h"
#include "tpm/errors.h"

static void maps_tpm_codes(void **state)
{
    static const struct {
        uint32_t tss_rc;
        enum att_rc want;
    } table[] = {
        {0, ATT_OK},
        {0x921, ATT_E_LOCKOUT},       /* TPM_RC_LOCKOUT */
        {0x922, ATT_E_RETRY},         /* TPM_RC_RETRY */
        {0x90a, ATT_E_RETRY},         /* TPM_RC_TESTING */
        {0x902, ATT_E_RETRY},         /* TPM_RC_OBJECT_MEMORY */
        {0x903, ATT_E_RETRY},         /* TPM_RC_SESSION_MEMORY */
        {0x901, ATT_E_RETRY},         /* TPM_RC_CONTEXT_GAP */
        {0x128, ATT_E_RETRY},         /* TPM_RC_PCR_CHANGED */
        {0x98e, ATT_E_AUTH},          /* TPM_RC_AUTH_FAIL, session 1 */
        {0x9a2, ATT_E_AUTH},          /* TPM_RC_BAD_AUTH, session 1 */
        {0xa8b, ATT_E_NOTFOUND},      /* TPM_RC_HANDLE, session 2 */
        {0x18b, ATT_E_NOTFOUND},      /* TPM_RC_HANDLE, handle 1 */
        {0x99d, ATT_E_DENIED},        /* TPM_RC_POLICY_FAIL, session 1 */
        {0x126, ATT_E_DENIED},        /* TPM_RC_POLICY */
        {0x12f, ATT_E_DENIED},        /* TPM_RC_AUTH_UNAVAILABLE */
        {0x185, ATT_E_DENIED},        /* TPM_RC_HIERARCHY, handle 1 */
        {0x1df, ATT_E_AUTH},          /* TPM_RC_INTEGRITY, parameter 1 */
        {0x2c4, ATT_E_INVAL},         /* TPM_RC_VALUE, parameter 2 */
        {0x100, ATT_E_GONE},          /* TPM_RC_INITIALIZE */
        {0x910, ATT_E_GONE},          /* TPM_RC_REFERENCE_H0 */
        {0x918, ATT_E_GONE},          /* TPM_RC_REFERENCE_S0 */
        {0x14a, ATT_E_CONFLICT},      /* TPM_RC_NV_UNINITIALIZED */
        {0x14c, ATT_E_CONFLICT},      /* TPM_RC_NV_DEFINED */
        {0x143, ATT_E_UNSUPPORTED},   /* TPM_RC_COMMAND_CODE */
        {0x2e6, ATT_E_UNSUPPORTED},   /* TPM_RC_CURVE, parameter 2 */
        {0x101, ATT_E_IO},            /* TPM_RC_FAILURE */
        {0x000c0921, ATT_E_LOCKOUT},  /* the same through a resource manager */
        {0x000b0902, ATT_E_RETRY},    /* the resource manager's own memory */
        {0x000a000a, ATT_E_GONE},     /* TCTI I/O error */
        {0x000a0008, ATT_E_GONE},     /* TCTI: no connection */
        {0x00070007, ATT_E_GONE},     /* ESYS lost its sequence */
        {0x0007001b, ATT_E_PROTOCOL}, /* ESYS: the response's HMAC is wrong */
        {0x00070017, ATT_E_NOMEM},    /* ESYS: no memory */
        {0x00090011, ATT_E_PROTOCOL}, /* MU: malformed */
        {0x00070018, ATT_E_INTERNAL}, /* ESYS: bad handle */
        {0x5ff, ATT_E_INTERNAL},      /* a maker's own code */
    };
    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        if (tpm_errors_map(table[i].tss_rc) != table[i].want) {
            fail_msg("0x%06x: %s, expected %s", table[i].tss_rc,
                     att_rc_name(tpm_errors_map(table[i].tss_rc)), att_rc_name(table[i].want));
        }
    }
}

static void says_what_happened(void **state)
{
    struct att_err err = {0};
    (void)state;
    assert_int_equal(tpm_fail(&err, 0x921, "signing"), ATT_E_LOCKOUT);
    assert_int_equal(err.domain, ATT_DOM_TSS);
    assert_int_equal(err.native, 0x921);
    assert_non_null(strstr(err.msg, "signing: "));
    assert_non_null(strstr(err.msg, "lockout"));
    assert_non_null(strstr(err.msg, "0x000921"));
    att_err_clear(&err);
    /* "Success" as a failure is never passed on as ATT_OK. */
    assert_int_equal(tpm_fail(&err, 0, "signing"), ATT_E_INTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(maps_tpm_codes),
                                       cmocka_unit_test(says_what_happened)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
