/* Slot, token, sessions, login. */
#include "pkcs11/token/internal.h"

#include <stdlib.h>
#include <string.h>

struct token_module token_self;

static void pad(CK_UTF8CHAR *at, size_t room, const char *text)
{
    size_t len = strlen(text);
    memset(at, ' ', room);
    memcpy(at, text, len < room ? len : room);
}

/* ---- birth ----------------------------------------------------------------------------------- */

static void session_free(struct session *s)
{
    token_peer_forget(s->handle);
    EVP_MD_CTX_free(s->digest);
    token_rsa_end(&s->sign_rsa);
    token_rsa_end(&s->verify_rsa);
    free(s->found);
    free(s);
}

static void close_all(void)
{
    for (size_t i = 0; i < SESSIONS_MAX; i++) {
        if (token_self.sessions[i]) {
            session_free(token_self.sessions[i]);
            token_self.sessions[i] = NULL;
        }
    }
    token_self.session_count = 0;
    token_self.logged_in = false; /* PKCS#11 2.40 §5.6: with the last session the login ends */
}

void token_module_reset(const struct token_store *store)
{
    close_all();
    token_set_forget_all();
    token_self = (struct token_module){.store = store};
}

CK_RV token_C_Initialize(void *args)
{
    (void)args; /* calls are serial: no locks are needed */
    if (token_self.initialized) {
        return CKR_CRYPTOKI_ALREADY_INITIALIZED;
    }
    token_self.initialized = true;
    return CKR_OK;
}

CK_RV token_C_Finalize(void *reserved)
{
    if (reserved) {
        return CKR_ARGUMENTS_BAD;
    }
    if (!token_self.initialized) {
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    }
    close_all();
    token_self.initialized = false;
    return CKR_OK;
}

CK_RV token_C_GetInfo(CK_INFO *info)
{
    if (!token_self.initialized) {
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    }
    if (!info) {
        return CKR_ARGUMENTS_BAD;
    }
    *info = (CK_INFO){.cryptokiVersion = {2, 40}, .libraryVersion = {0, 1}};
    pad(info->manufacturerID, sizeof info->manufacturerID, "attestd");
    pad(info->libraryDescription, sizeof info->libraryDescription, "attestd agent token");
    return CKR_OK;
}

/* ---- slot and token ---------------------------------------------------------------------------
 */

static CK_RV check_slot(CK_SLOT_ID slot)
{
    return !token_self.initialized                      ? CKR_CRYPTOKI_NOT_INITIALIZED
           : slot != SLOT || token_self.store->no_slots ? CKR_SLOT_ID_INVALID
                                                        : CKR_OK;
}

/* Lists: the length alone, or as much as there is room for. */
static CK_RV give_list(const CK_ULONG *from, CK_ULONG n, CK_ULONG *list, CK_ULONG *count)
{
    if (!count) {
        return CKR_ARGUMENTS_BAD;
    }
    CK_ULONG room = *count;
    *count = n;
    if (!list) {
        return CKR_OK;
    }
    if (room < n) {
        return CKR_BUFFER_TOO_SMALL;
    }
    if (n) {
        memcpy(list, from, n * sizeof *list);
    }
    return CKR_OK;
}

CK_RV token_C_GetSlotList(CK_BBOOL present, CK_SLOT_ID *list, CK_ULONG *count)
{
    static const CK_ULONG slots[] = {SLOT};
    (void)present;
    if (!token_self.initialized) {
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    }
    return give_list(slots, token_self.store->no_slots ? 0 : 1, list, count);
}

CK_RV token_C_GetSlotInfo(CK_SLOT_ID slot, CK_SLOT_INFO *info)
{
    CK_RV rv = check_slot(slot);
    if (rv != CKR_OK || !info) {
        return rv != CKR_OK ? rv : CKR_ARGUMENTS_BAD;
    }
    *info = (CK_SLOT_INFO){.flags = CKF_TOKEN_PRESENT};
    pad(info->slotDescription, sizeof info->slotDescription, "attestd");
    pad(info->manufacturerID, sizeof info->manufacturerID, "attestd");
    return CKR_OK;
}

CK_RV token_C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    CK_RV rv = check_slot(slot);
    if (rv != CKR_OK || !info) {
        return rv != CKR_OK ? rv : CKR_ARGUMENTS_BAD;
    }
    *info = (CK_TOKEN_INFO){
        /* USER_PIN_INITIALIZED without LOGIN_REQUIRED: stock clients then ask for no PIN. */
        .flags = CKF_RNG | CKF_WRITE_PROTECTED | CKF_TOKEN_INITIALIZED | CKF_USER_PIN_INITIALIZED,
        .ulMaxSessionCount = SESSIONS_MAX,
        .ulSessionCount = token_self.session_count,
        .ulMaxRwSessionCount = CK_UNAVAILABLE_INFORMATION,
        .ulRwSessionCount = CK_UNAVAILABLE_INFORMATION,
        .ulMaxPinLen = 255,
        .ulMinPinLen = 0,
        .ulTotalPublicMemory = CK_UNAVAILABLE_INFORMATION,
        .ulFreePublicMemory = CK_UNAVAILABLE_INFORMATION,
        .ulTotalPrivateMemory = CK_UNAVAILABLE_INFORMATION,
        .ulFreePrivateMemory = CK_UNAVAILABLE_INFORMATION,
    };
    pad(info->label, sizeof info->label, "attestd");
    pad(info->manufacturerID, sizeof info->manufacturerID, "attestd");
    pad(info->model, sizeof info->model, "agent");
    /* The same on every host, so that one URI names it in the whole fleet. */
    pad(info->serialNumber, sizeof info->serialNumber, "1");
    pad(info->utcTime, sizeof info->utcTime, "");
    return CKR_OK;
}

/* Of the key that the agent has now. */
static bool key_is_rsa(void)
{
    return token_set_refresh() == CKR_OK && token_self.current &&
           att_keytype_is_rsa(token_self.current->type);
}

/* Digests are served but not advertised: a provider that found them here would send whole TLS
 * transcripts through the socket. */
CK_RV token_C_GetMechanismList(CK_SLOT_ID slot, CK_MECHANISM_TYPE *list, CK_ULONG *count)
{
    static const CK_ULONG mechanisms[] = {CKM_ECDSA};
    CK_RV rv = check_slot(slot);
    if (rv != CKR_OK) {
        return rv;
    }
    return key_is_rsa() ? give_list(token_rsa_mechanisms, TOKEN_RSA_MECHANISMS, list, count)
                        : give_list(mechanisms, 1, list, count);
}

CK_RV token_C_GetMechanismInfo(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info)
{
    CK_RV rv = check_slot(slot);
    if (rv != CKR_OK || !info) {
        return rv != CKR_OK ? rv : CKR_ARGUMENTS_BAD;
    }
    if (token_rsa_is_mechanism(type) && key_is_rsa()) { /* verifying: up to RSA-4096 */
        *info = (CK_MECHANISM_INFO){2048, 4096, CKF_SIGN | CKF_VERIFY};
        return CKR_OK;
    }
    switch (type) {
    case CKM_ECDSA: /* verifying: up to P-521 */
        *info = (CK_MECHANISM_INFO){
            256, 521, CKF_SIGN | CKF_VERIFY | CKF_EC_F_P | CKF_EC_NAMEDCURVE | CKF_EC_UNCOMPRESS};
        return CKR_OK;
    case CKM_SHA_1:
    case CKM_SHA256:
    case CKM_SHA384:
    case CKM_SHA512:
        *info = (CK_MECHANISM_INFO){0, 0, CKF_DIGEST};
        return CKR_OK;
    default:
        return CKR_MECHANISM_INVALID;
    }
}

CK_RV token_C_WaitForSlotEvent(CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved)
{
    (void)slot;
    (void)reserved;
    if (!token_self.initialized) {
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    }
    /* Waiting would block the connection, whose calls are serial. */
    return flags & CKF_DONT_BLOCK ? CKR_NO_EVENT : CKR_FUNCTION_NOT_SUPPORTED;
}

/* ---- sessions ---------------------------------------------------------------------------------
 */

CK_RV token_session(CK_SESSION_HANDLE handle, struct session **ret_session)
{
    if (!token_self.initialized) {
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    }
    for (size_t i = 0; handle && i < SESSIONS_MAX; i++) {
        if (token_self.sessions[i] && token_self.sessions[i]->handle == handle) {
            *ret_session = token_self.sessions[i];
            return CKR_OK;
        }
    }
    return CKR_SESSION_HANDLE_INVALID;
}

CK_RV token_C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify,
                          CK_SESSION_HANDLE *session)
{
    CK_RV rv = check_slot(slot);
    (void)app;
    (void)notify;
    /* libp11 0.4.12 waits for ever when it cannot open a session in a forked child (a worker of
     * nginx, say) on the slot that its parent had. Nobody's agent gets one, and finds nothing in
     * it. */
    if (token_self.initialized && token_self.store->no_slots && slot == SLOT) {
        rv = CKR_OK;
    }
    if (rv != CKR_OK || !session) {
        return rv != CKR_OK ? rv : CKR_ARGUMENTS_BAD;
    }
    if (!(flags & CKF_SERIAL_SESSION)) {
        return CKR_SESSION_PARALLEL_NOT_SUPPORTED;
    }
    for (size_t i = 0; i < SESSIONS_MAX; i++) {
        if (token_self.sessions[i]) {
            continue;
        }
        struct session *s = calloc(1, sizeof *s);
        if (!s) {
            return CKR_HOST_MEMORY;
        }
        s->handle = ++token_self.next_session;
        s->rw = flags & CKF_RW_SESSION; /* nothing can be written in it either */
        token_self.sessions[i] = s;
        token_self.session_count++;
        *session = s->handle;
        return CKR_OK;
    }
    return CKR_SESSION_COUNT;
}

CK_RV token_C_CloseSession(CK_SESSION_HANDLE session)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    for (size_t i = 0; rv == CKR_OK && i < SESSIONS_MAX; i++) {
        if (token_self.sessions[i] == s) {
            token_self.sessions[i] = NULL;
            token_self.session_count--;
            token_self.logged_in = token_self.logged_in && token_self.session_count;
            session_free(s);
            break;
        }
    }
    return rv;
}

CK_RV token_C_CloseAllSessions(CK_SLOT_ID slot)
{
    CK_RV rv = check_slot(slot);
    if (rv == CKR_OK) {
        close_all();
    }
    return rv;
}

CK_RV token_C_GetSessionInfo(CK_SESSION_HANDLE session, CK_SESSION_INFO *info)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv != CKR_OK || !info) {
        return rv != CKR_OK ? rv : CKR_ARGUMENTS_BAD;
    }
    *info = (CK_SESSION_INFO){
        .slotID = SLOT,
        .state = token_self.logged_in ? (s->rw ? CKS_RW_USER_FUNCTIONS : CKS_RO_USER_FUNCTIONS)
                                      : (s->rw ? CKS_RW_PUBLIC_SESSION : CKS_RO_PUBLIC_SESSION),
        .flags = CKF_SERIAL_SESSION | (s->rw ? CKF_RW_SESSION : 0),
    };
    return CKR_OK;
}

/* No PIN opens anything here, so any is taken: programs that insist on a login go on. */
CK_RV token_C_Login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG len)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    (void)pin;
    (void)len;
    if (rv != CKR_OK) {
        return rv;
    }
    if (user != CKU_USER) {
        return user == CKU_CONTEXT_SPECIFIC ? CKR_OPERATION_NOT_INITIALIZED : CKR_USER_TYPE_INVALID;
    }
    if (token_self.logged_in) {
        return CKR_USER_ALREADY_LOGGED_IN;
    }
    token_self.logged_in = true;
    return CKR_OK;
}

CK_RV token_C_Logout(CK_SESSION_HANDLE session)
{
    struct session *s;
    CK_RV rv = token_session(session, &s);
    if (rv == CKR_OK && !token_self.logged_in) {
        rv = CKR_USER_NOT_LOGGED_IN;
    }
    if (rv == CKR_OK) {
        token_self.logged_in = false;
    }
    return rv;
}
