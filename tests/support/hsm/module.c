/* A PKCS#11 module for tests: SoftHSM's functions, which misbehave when they are told to.
 *
 * ATT_TEST_HSM names a file of lines, read at each call:
 *   FUNCTION hang              does not come back while the line is there
 *   FUNCTION die               ends the process by SIGKILL, before the function does anything
 *   FUNCTION rv NUMBER [N]     returns that CK_RV, N times a process (default: always)
 *   FUNCTION after NUMBER [N]  does it, then returns that CK_RV
 *   FUNCTION slow MS           comes back after that time
 *   spoil YES                  C_Sign returns signatures with a bit changed
 *   flags NUMBER               CKF_ bits that C_GetTokenInfo adds
 *   count PATH                 each C_Login appends a line there
 * FUNCTION is one of those below. */
#include <dlfcn.h>
#include <fcntl.h>
#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINES_MAX 16

static CK_FUNCTION_LIST *real, table;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void pause_ms(long ms)
{
    const struct timespec wait = {ms / 1000, (ms % 1000) * 1000000};
    (void)nanosleep(&wait, NULL);
}

/* The line of this function, without its name; false: none. */
static bool find(const char *function, char ret[256])
{
    const char *path = getenv("ATT_TEST_HSM");
    FILE *file = path ? fopen(path, "re") : NULL;
    bool found = false;
    char line[256];
    size_t len = strlen(function);
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, function, len) == 0 && line[len] == ' ') {
            line[strcspn(line, "\n")] = 0;
            strcpy(ret, line + len + 1);
            found = true;
        }
    }
    if (file) {
        fclose(file);
    }
    return found;
}

/* How often a counted line may still act. */
static bool may_act(const char *function, const char *line, long times)
{
    static struct {
        char line[300];
        long used;
    } seen[LINES_MAX];
    char whole[300];
    bool may = true;
    if (times <= 0) {
        return true;
    }
    snprintf(whole, sizeof whole, "%.32s %.255s", function, line);
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < LINES_MAX; i++) {
        if (!seen[i].line[0]) {
            strcpy(seen[i].line, whole);
        }
        if (strcmp(seen[i].line, whole) == 0) {
            may = seen[i].used++ < times;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return may;
}

/* CKR_OK: go on. *ret_after: what to return when it is done. */
static CK_RV act(const char *function, CK_RV *ret_after)
{
    char line[256], word[16];
    unsigned long rv = 0;
    long times = 0;
    *ret_after = CKR_OK;
    if (!find(function, line) || sscanf(line, "%15s", word) != 1) {
        return CKR_OK;
    }
    int got = sscanf(line, "%*s %li %ld", (long *)&rv, &times);
    if (strcmp(word, "hang") == 0) {
        while (find(function, line) && strcmp(line, "hang") == 0) {
            pause_ms(20);
        }
    } else if (strcmp(word, "die") == 0) {
        kill(getpid(), SIGKILL);
    } else if (strcmp(word, "slow") == 0 && got >= 1) {
        pause_ms((long)rv);
    } else if (got >= 1 && may_act(function, line, times)) {
        if (strcmp(word, "rv") == 0) {
            return rv;
        }
        *ret_after = strcmp(word, "after") == 0 ? rv : CKR_OK;
    }
    return CKR_OK;
}

#define BAD(function, declaration, call)                                                           \
    static CK_RV bad_##function declaration                                                        \
    {                                                                                              \
        CK_RV after, rv = act(#function, &after);                                                  \
        if (rv == CKR_OK) {                                                                        \
            rv = real->function call;                                                              \
        }                                                                                          \
        return rv == CKR_OK ? after : rv;                                                          \
    }

BAD(C_Initialize, (void *args), (args))
BAD(C_GetSlotList, (CK_BBOOL present, CK_SLOT_ID *list, CK_ULONG *count), (present, list, count))
BAD(C_OpenSession,
    (CK_SLOT_ID slot, CK_FLAGS flags, void *application, CK_NOTIFY notify, CK_SESSION_HANDLE *ret),
    (slot, flags, application, notify, ret))
BAD(C_GetSessionInfo, (CK_SESSION_HANDLE session, CK_SESSION_INFO *info), (session, info))
BAD(C_FindObjectsInit, (CK_SESSION_HANDLE session, CK_ATTRIBUTE *attrs, CK_ULONG count),
    (session, attrs, count))
BAD(C_DestroyObject, (CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object), (session, object))
BAD(C_SignInit, (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key),
    (session, mechanism, key))

static CK_RV sign(CK_SESSION_HANDLE session, unsigned char *data, CK_ULONG len,
                  unsigned char *signature, CK_ULONG *signature_len)
{
    char line[256];
    CK_RV rv = real->C_Sign(session, data, len, signature, signature_len);
    if (rv == CKR_OK && signature && *signature_len && find("spoil", line)) {
        signature[*signature_len - 1] ^= 1;
    }
    return rv;
}

static CK_RV bad_C_Sign(CK_SESSION_HANDLE session, unsigned char *data, CK_ULONG len,
                        unsigned char *signature, CK_ULONG *signature_len)
{
    CK_RV after, rv = act("C_Sign", &after);
    if (rv == CKR_OK) {
        rv = sign(session, data, len, signature, signature_len);
    }
    return rv == CKR_OK ? after : rv;
}

BAD(C_GenerateKeyPair,
    (CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_ATTRIBUTE *public,
     CK_ULONG public_count, CK_ATTRIBUTE *private, CK_ULONG private_count,
     CK_OBJECT_HANDLE *ret_public, CK_OBJECT_HANDLE *ret_private),
    (session, mechanism, public, public_count, private, private_count, ret_public, ret_private))

static CK_RV bad_C_Login(CK_SESSION_HANDLE session, CK_USER_TYPE user, unsigned char *pin,
                         CK_ULONG len)
{
    char path[256];
    if (find("count", path)) {
        int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        (void)!write(fd, "C_Login\n", 8);
        close(fd);
    }
    CK_RV after, rv = act("C_Login", &after);
    if (rv == CKR_OK) {
        rv = real->C_Login(session, user, pin, len);
    }
    return rv == CKR_OK ? after : rv;
}

static CK_RV bad_C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO *info)
{
    char flags[256];
    CK_RV after, rv = act("C_GetTokenInfo", &after);
    if (rv == CKR_OK) {
        rv = real->C_GetTokenInfo(slot, info);
    }
    if (rv == CKR_OK && find("flags", flags)) {
        info->flags |= strtoul(flags, NULL, 0);
    }
    return rv == CKR_OK ? after : rv;
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **ret)
{
    const char *path = "/usr/lib/softhsm/libsofthsm2.so";
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    CK_C_GetFunctionList get;
    if (!library) {
        return CKR_GENERAL_ERROR;
    }
    *(void **)&get = dlsym(library, "C_GetFunctionList");
    CK_RV rv = get ? get(&real) : CKR_GENERAL_ERROR;
    if (rv != CKR_OK) {
        return rv;
    }
    table = *real;
    table.C_GetFunctionList = C_GetFunctionList;
    table.C_Initialize = bad_C_Initialize;
    table.C_GetSlotList = bad_C_GetSlotList;
    table.C_GetTokenInfo = bad_C_GetTokenInfo;
    table.C_OpenSession = bad_C_OpenSession;
    table.C_GetSessionInfo = bad_C_GetSessionInfo;
    table.C_Login = bad_C_Login;
    table.C_FindObjectsInit = bad_C_FindObjectsInit;
    table.C_DestroyObject = bad_C_DestroyObject;
    table.C_SignInit = bad_C_SignInit;
    table.C_Sign = bad_C_Sign;
    table.C_GenerateKeyPair = bad_C_GenerateKeyPair;
    *ret = &table;
    return CKR_OK;
}
