/* From the module to a login: C_Initialize, the token's slot, the kept session, C_Login. */
#include "pkcs11/hsm/internal.h"

#include <p11-kit/p11-kit.h>
#include <stdio.h>
#include <string.h>

#define SLOTS_MAX 256

/* Fields of CK_TOKEN_INFO are padded with blanks, without a NUL. */
static bool field_is(const unsigned char *field, size_t room, const char *text)
{
    size_t len = strlen(text);
    if (len > room || memcmp(field, text, len) != 0) {
        return false;
    }
    for (size_t i = len; i < room; i++) {
        if (field[i] != ' ') {
            return false;
        }
    }
    return true;
}

/* For people: what is not ASCII becomes a dot. room is field's and one more. */
static void field_take(char *ret, const unsigned char *field, size_t len)
{
    while (len && (field[len - 1] == ' ' || field[len - 1] == 0)) {
        len--;
    }
    for (size_t i = 0; i < len; i++) {
        ret[i] = field[i] >= 0x20 && field[i] < 0x7f ? (char)field[i] : '.';
    }
    ret[len] = 0;
}

static enum att_rc initialize(struct hsm *hsm, struct att_err *err)
{
    if (hsm->fresh) {
        hsm->fresh = false;
        return ATT_OK;
    }
    if (hsm->initialized) {
        hsm->initialized = false;
        (void)p11_kit_module_finalize(hsm->module);
    }
    CK_RV rv = p11_kit_module_initialize(hsm->module);
    if (rv != CKR_OK) {
        return hsm_errors_set(rv, "C_Initialize", err);
    }
    hsm->initialized = true;
    return ATT_OK;
}

static bool is_it(const struct hsm *hsm, const CK_TOKEN_INFO *info)
{
    return field_is(info->label, sizeof info->label, hsm->label) &&
           field_is(info->serialNumber, sizeof info->serialNumber, hsm->serial) &&
           (!hsm->manufacturer[0] ||
            field_is(info->manufacturerID, sizeof info->manufacturerID, hsm->manufacturer)) &&
           (!hsm->model[0] || field_is(info->model, sizeof info->model, hsm->model));
}

/* failed: what a slot answered that could not be looked at; CKR_OK: none. */
static enum att_rc no_such_token(const struct hsm *hsm, CK_ULONG count, CK_RV failed,
                                 struct att_err *err)
{
    char number[32];
    const char *name = hsm_errors_name(failed);
    snprintf(number, sizeof number, "CK_RV 0x%lx", failed);
    (void)!att_fail_native(err, ATT_E_GONE, ATT_DOM_PKCS11, failed,
                           "no token with label \"%s\" and serial \"%s\" in %lu slots%s%s",
                           hsm->label, hsm->serial, count,
                           failed == CKR_OK ? "" : "; C_GetTokenInfo of one: ",
                           failed == CKR_OK ? ""
                           : name[0]        ? name
                                            : number);
    att_err_reason(err, "tokenGone");
    return ATT_E_GONE;
}

enum att_rc hsm_find_slot(struct hsm *hsm, CK_SLOT_ID *ret_slot, CK_TOKEN_INFO *ret,
                          struct att_err *err)
{
    CK_SLOT_ID slots[SLOTS_MAX];
    CK_ULONG count = SLOTS_MAX;
    CK_RV rv = hsm->module->C_GetSlotList(CK_TRUE, slots, &count);
    if (rv != CKR_OK || count > SLOTS_MAX) {
        return hsm_errors_set(rv != CKR_OK ? rv : CKR_BUFFER_TOO_SMALL, "C_GetSlotList", err);
    }
    unsigned found = 0;
    CK_RV failed = CKR_OK;
    for (CK_ULONG i = 0; i < count; i++) {
        CK_TOKEN_INFO info;
        rv = hsm->module->C_GetTokenInfo(slots[i], &info);
        if (rv == CKR_OK && is_it(hsm, &info)) {
            *ret_slot = slots[i];
            *ret = info;
            found++;
        }
        failed = rv == CKR_OK ? failed : rv;
    }
    if (found <= 1) {
        return found ? ATT_OK : no_such_token(hsm, count, failed, err);
    }
    (void)!att_fail(err, ATT_E_CONFLICT, "%u tokens with label \"%s\" and serial \"%s\"", found,
                    hsm->label, hsm->serial);
    att_err_reason(err, "tokenAmbiguous");
    return ATT_E_CONFLICT;
}

enum hsm_pin hsm_pin_of(CK_FLAGS flags)
{
    return !(flags & CKF_USER_PIN_INITIALIZED) ? HSM_PIN_NOT_SET
           : flags & CKF_USER_PIN_LOCKED       ? HSM_PIN_LOCKED
           : flags & CKF_USER_PIN_FINAL_TRY    ? HSM_PIN_FINAL_TRY
           : flags & CKF_USER_PIN_COUNT_LOW    ? HSM_PIN_COUNT_LOW
                                               : HSM_PIN_OK;
}

/* A token that wants no login has no PIN to lose. */
static void note_pin(struct hsm *hsm, CK_FLAGS flags)
{
    pthread_mutex_lock(&hsm->lock);
    hsm->info.pin = flags & CKF_LOGIN_REQUIRED ? hsm_pin_of(flags) : HSM_PIN_OK;
    pthread_mutex_unlock(&hsm->lock);
}

enum att_rc hsm_check_token(struct hsm *hsm, CK_SLOT_ID slot, struct att_err *err)
{
    CK_TOKEN_INFO info;
    CK_RV rv = hsm->module->C_GetTokenInfo(slot, &info);
    if (rv != CKR_OK) {
        return hsm_errors_set(rv, "C_GetTokenInfo", err);
    }
    if (!field_is(info.serialNumber, sizeof info.serialNumber, hsm->serial)) {
        return hsm_errors_set(CKR_DEVICE_REMOVED, "the slot holds another token", err);
    }
    note_pin(hsm, info.flags);
    return ATT_OK;
}

/* What can be known without spending one of the token's tries. */
static enum att_rc check_pin_flags(CK_FLAGS flags, struct att_err *err)
{
    enum hsm_pin pin = hsm_pin_of(flags);
    if (pin == HSM_PIN_NOT_SET) {
        (void)!att_fail(err, ATT_E_DENIED, "the token's user PIN has not been set");
        att_err_reason(err, "pinNotSet");
        return ATT_E_DENIED;
    }
    if (pin == HSM_PIN_LOCKED || pin == HSM_PIN_FINAL_TRY) {
        (void)!att_fail(err, ATT_E_LOCKOUT,
                        pin == HSM_PIN_LOCKED
                            ? "the token's user PIN is locked"
                            : "the token allows one more try of its user PIN: log in by hand, or "
                              "set the PIN anew");
        att_err_reason(err, "pinLocked");
        return ATT_E_LOCKOUT;
    }
    return ATT_OK;
}

static enum att_rc login(struct hsm *hsm, struct att_err *err)
{
    enum att_rc rc = hsm->may_login ? hsm->may_login(hsm->user, err) : ATT_OK;
    if (rc != ATT_OK) {
        return rc;
    }
    CK_RV rv = hsm->module->C_Login(hsm->parked, CKU_USER, hsm->pin->ptr, (CK_ULONG)hsm->pin->len);
    if (rv == CKR_OK || rv == CKR_USER_ALREADY_LOGGED_IN) {
        return ATT_OK;
    }
    rc = hsm_errors_set(rv, "C_Login", err);
    if (rc == ATT_E_AUTH || rc == ATT_E_LOCKOUT) {
        struct att_err why = {0};
        rc = hsm_errors_set(rv,
                            "C_Login: the token does not take this PIN, which is not tried "
                            "again",
                            &why);
        pthread_mutex_lock(&hsm->lock);
        hsm->refused = true;
        hsm->why_refused = why;
        pthread_mutex_unlock(&hsm->lock);
        if (hsm->pin_refused) {
            hsm->pin_refused(hsm->user);
        }
    }
    return rc;
}

static unsigned limit_of(CK_ULONG max, unsigned wanted)
{
    return max == CK_EFFECTIVELY_INFINITE || max == CK_UNAVAILABLE_INFORMATION || max > wanted
               ? wanted
               : (unsigned)max;
}

static void note(struct hsm *hsm, CK_SLOT_ID slot, const CK_TOKEN_INFO *info)
{
    pthread_mutex_lock(&hsm->lock);
    /* One of the token's sessions is the login's; a token with one gives us that for all. */
    unsigned all = limit_of(info->ulMaxSessionCount, hsm->sessions_wanted + 1);
    all = limit_of(info->ulMaxRwSessionCount, all);
    hsm->slot = slot;
    hsm->login_required = (info->flags & CKF_LOGIN_REQUIRED) != 0;
    hsm->limit = all > 1 ? all - 1 : 1;
    hsm->open_count = hsm->idle_count = 0;
    if (all <= 1) {
        hsm->open_count = hsm->idle_count = 1;
        hsm->idle[0] = hsm->parked;
    }
    field_take(hsm->info.label, info->label, sizeof info->label);
    field_take(hsm->info.serial, info->serialNumber, sizeof info->serialNumber);
    field_take(hsm->info.manufacturer, info->manufacturerID, sizeof info->manufacturerID);
    field_take(hsm->info.model, info->model, sizeof info->model);
    snprintf(hsm->info.firmware, sizeof hsm->info.firmware, "%u.%u", info->firmwareVersion.major,
             info->firmwareVersion.minor);
    hsm->info.sessions = hsm->limit;
    hsm->info.connections++;
    pthread_mutex_unlock(&hsm->lock);
}

enum att_rc hsm_connect(struct hsm *hsm, struct att_err *err)
{
    CK_SLOT_ID slot = 0;
    CK_TOKEN_INFO info;
    enum att_rc rc = initialize(hsm, err);
    if (rc == ATT_OK) {
        rc = hsm_find_slot(hsm, &slot, &info, err);
    }
    if (rc == ATT_OK) {
        note_pin(hsm, info.flags);
    }
    if (rc == ATT_OK && (info.flags & CKF_LOGIN_REQUIRED)) {
        rc = check_pin_flags(info.flags, err);
    }
    if (rc == ATT_OK) {
        CK_RV rv = hsm->module->C_OpenSession(slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL,
                                              &hsm->parked);
        rc = rv == CKR_OK ? ATT_OK : hsm_errors_set(rv, "C_OpenSession", err);
    }
    if (rc == ATT_OK && (info.flags & CKF_LOGIN_REQUIRED)) {
        rc = login(hsm, err);
    }
    if (rc == ATT_OK) {
        note(hsm, slot, &info);
    }
    return rc;
}
