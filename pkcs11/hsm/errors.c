#include "pkcs11/hsm/internal.h"

#include <stdio.h>

/* PKCS#11 2.40 §11.1. */
static const struct {
    CK_RV rv;
    const char *name;
    enum att_rc rc;
    const char *reason;
    bool again;
} table[] = {
    /* Gone, or failing: everything anew may help; if not, waiting does. */
    {CKR_SESSION_HANDLE_INVALID, "CKR_SESSION_HANDLE_INVALID", ATT_E_GONE, "tokenGone", true},
    {CKR_SESSION_CLOSED, "CKR_SESSION_CLOSED", ATT_E_GONE, "tokenGone", true},
    {CKR_DEVICE_ERROR, "CKR_DEVICE_ERROR", ATT_E_GONE, "tokenGone", true},
    {CKR_DEVICE_REMOVED, "CKR_DEVICE_REMOVED", ATT_E_GONE, "tokenGone", true},
    {CKR_TOKEN_NOT_PRESENT, "CKR_TOKEN_NOT_PRESENT", ATT_E_GONE, "tokenGone", true},
    {CKR_TOKEN_NOT_RECOGNIZED, "CKR_TOKEN_NOT_RECOGNIZED", ATT_E_GONE, "tokenGone", true},
    {CKR_SLOT_ID_INVALID, "CKR_SLOT_ID_INVALID", ATT_E_GONE, "tokenGone", true},
    {CKR_CRYPTOKI_NOT_INITIALIZED, "CKR_CRYPTOKI_NOT_INITIALIZED", ATT_E_GONE, "tokenGone", true},
    {CKR_GENERAL_ERROR, "CKR_GENERAL_ERROR", ATT_E_GONE, "tokenGone", true},
    {CKR_FUNCTION_FAILED, "CKR_FUNCTION_FAILED", ATT_E_GONE, "tokenGone", true},
    {CKR_USER_NOT_LOGGED_IN, "CKR_USER_NOT_LOGGED_IN", ATT_E_GONE, "loginLost", true},
    {CKR_OBJECT_HANDLE_INVALID, "CKR_OBJECT_HANDLE_INVALID", ATT_E_NOTFOUND, "keyGone", true},
    {CKR_KEY_HANDLE_INVALID, "CKR_KEY_HANDLE_INVALID", ATT_E_NOTFOUND, "keyGone", true},
    /* An operator's. */
    {CKR_PIN_INCORRECT, "CKR_PIN_INCORRECT", ATT_E_AUTH, "pinRefused", false},
    {CKR_PIN_INVALID, "CKR_PIN_INVALID", ATT_E_AUTH, "pinRefused", false},
    {CKR_PIN_LEN_RANGE, "CKR_PIN_LEN_RANGE", ATT_E_AUTH, "pinRefused", false},
    {CKR_PIN_EXPIRED, "CKR_PIN_EXPIRED", ATT_E_AUTH, "pinRefused", false},
    {CKR_PIN_LOCKED, "CKR_PIN_LOCKED", ATT_E_LOCKOUT, "pinLocked", false},
    {CKR_USER_PIN_NOT_INITIALIZED, "CKR_USER_PIN_NOT_INITIALIZED", ATT_E_DENIED, "pinNotSet",
     false},
    {CKR_USER_ANOTHER_ALREADY_LOGGED_IN, "CKR_USER_ANOTHER_ALREADY_LOGGED_IN", ATT_E_CONFLICT,
     "otherUser", false},
    {CKR_USER_TOO_MANY_TYPES, "CKR_USER_TOO_MANY_TYPES", ATT_E_CONFLICT, "otherUser", false},
    {CKR_TOKEN_WRITE_PROTECTED, "CKR_TOKEN_WRITE_PROTECTED", ATT_E_DENIED, "tokenReadOnly", false},
    {CKR_SESSION_READ_ONLY, "CKR_SESSION_READ_ONLY", ATT_E_DENIED, "tokenReadOnly", false},
    {CKR_KEY_FUNCTION_NOT_PERMITTED, "CKR_KEY_FUNCTION_NOT_PERMITTED", ATT_E_DENIED, "keyUse",
     false},
    {CKR_ATTRIBUTE_READ_ONLY, "CKR_ATTRIBUTE_READ_ONLY", ATT_E_UNSUPPORTED, "moduleLacks", false},
    {CKR_DEVICE_MEMORY, "CKR_DEVICE_MEMORY", ATT_E_LIMIT, "tokenFull", false},
    {CKR_HOST_MEMORY, "CKR_HOST_MEMORY", ATT_E_NOMEM, "", false},
    /* The module or the token cannot do what is needed. */
    {CKR_FUNCTION_NOT_SUPPORTED, "CKR_FUNCTION_NOT_SUPPORTED", ATT_E_UNSUPPORTED, "moduleLacks",
     false},
    {CKR_MECHANISM_INVALID, "CKR_MECHANISM_INVALID", ATT_E_UNSUPPORTED, "moduleLacks", false},
    {CKR_MECHANISM_PARAM_INVALID, "CKR_MECHANISM_PARAM_INVALID", ATT_E_UNSUPPORTED, "moduleLacks",
     false},
    {CKR_DOMAIN_PARAMS_INVALID, "CKR_DOMAIN_PARAMS_INVALID", ATT_E_UNSUPPORTED, "moduleLacks",
     false},
    {CKR_CURVE_NOT_SUPPORTED, "CKR_CURVE_NOT_SUPPORTED", ATT_E_UNSUPPORTED, "moduleLacks", false},
    {CKR_KEY_TYPE_INCONSISTENT, "CKR_KEY_TYPE_INCONSISTENT", ATT_E_UNSUPPORTED, "moduleLacks",
     false},
    {CKR_ATTRIBUTE_TYPE_INVALID, "CKR_ATTRIBUTE_TYPE_INVALID", ATT_E_UNSUPPORTED, "moduleLacks",
     false},
    {CKR_ATTRIBUTE_VALUE_INVALID, "CKR_ATTRIBUTE_VALUE_INVALID", ATT_E_UNSUPPORTED, "moduleLacks",
     false},
    {CKR_TEMPLATE_INCOMPLETE, "CKR_TEMPLATE_INCOMPLETE", ATT_E_UNSUPPORTED, "moduleLacks", false},
    {CKR_TEMPLATE_INCONSISTENT, "CKR_TEMPLATE_INCONSISTENT", ATT_E_UNSUPPORTED, "moduleLacks",
     false},
    {CKR_NEED_TO_CREATE_THREADS, "CKR_NEED_TO_CREATE_THREADS", ATT_E_UNSUPPORTED, "moduleLacks",
     false},
    {CKR_CANT_LOCK, "CKR_CANT_LOCK", ATT_E_UNSUPPORTED, "moduleLacks", false},
    /* Busy. */
    {CKR_SESSION_COUNT, "CKR_SESSION_COUNT", ATT_E_RETRY, "tokenBusy", false},
    {CKR_OPERATION_ACTIVE, "CKR_OPERATION_ACTIVE", ATT_E_RETRY, "tokenBusy", true},
    {CKR_OPERATION_NOT_INITIALIZED, "CKR_OPERATION_NOT_INITIALIZED", ATT_E_RETRY, "tokenBusy",
     true},
    {CKR_FUNCTION_CANCELED, "CKR_FUNCTION_CANCELED", ATT_E_RETRY, "tokenBusy", false},
    /* The module does not do what it was asked. */
    {CKR_BUFFER_TOO_SMALL, "CKR_BUFFER_TOO_SMALL", ATT_E_PROTOCOL, "moduleAnswer", false},
    {CKR_DATA_LEN_RANGE, "CKR_DATA_LEN_RANGE", ATT_E_PROTOCOL, "moduleAnswer", false},
    {CKR_DATA_INVALID, "CKR_DATA_INVALID", ATT_E_PROTOCOL, "moduleAnswer", false},
    {CKR_ARGUMENTS_BAD, "CKR_ARGUMENTS_BAD", ATT_E_PROTOCOL, "moduleAnswer", false},
};

static int place_of(CK_RV rv)
{
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].rv == rv) {
            return (int)i;
        }
    }
    return -1;
}

const char *hsm_errors_name(CK_RV rv)
{
    int at = place_of(rv);
    return at < 0 ? "" : table[at].name;
}

enum att_rc hsm_errors_rc(CK_RV rv)
{
    int at = place_of(rv);
    return at < 0 ? ATT_E_PROTOCOL : table[at].rc;
}

bool hsm_errors_again(CK_RV rv)
{
    int at = place_of(rv);
    return at >= 0 && table[at].again;
}

const char *hsm_pin_name(enum hsm_pin pin)
{
    static const char *const names[] = {"unknown",  "ok",     "countLow",
                                        "finalTry", "locked", "notSet"};
    return names[pin];
}

enum att_rc hsm_errors_set(CK_RV rv, const char *what, struct att_err *err)
{
    int at = place_of(rv);
    char number[32];
    snprintf(number, sizeof number, "CK_RV 0x%lx", rv);
    enum att_rc rc = att_fail_native(err, hsm_errors_rc(rv), ATT_DOM_PKCS11, rv, "%s: %s", what,
                                     at < 0 ? number : table[at].name);
    att_err_reason(err, at < 0 ? "moduleAnswer" : table[at].reason);
    return rc;
}

enum att_rc hsm_call_failed(struct hsm_call *call, CK_RV rv, const char *what, struct att_err *err)
{
    call->rv = rv;
    return hsm_errors_set(rv, what, err);
}
