/* LD_PRELOAD: code of somebody else inside a program that is an agent. Before that program's main
 * it signs with the agent's key by p11-kit's client (ATT_TEST_MODULE) and prints "signed" or why
 * not. */
#include <dlfcn.h>
#include <p11-kit/pkcs11.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned long sign(const char *module)
{
    void *lib = dlopen(module, RTLD_NOW);
    CK_C_GetFunctionList get = lib ? (CK_C_GetFunctionList)dlsym(lib, "C_GetFunctionList") : NULL;
    CK_FUNCTION_LIST *f;
    CK_SLOT_ID slot;
    CK_SESSION_HANDLE session;
    CK_OBJECT_HANDLE key = 0;
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_ATTRIBUTE wanted = {CKA_CLASS, &class, sizeof class};
    CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0};
    CK_BYTE digest[32] = {1}, signature[64];
    CK_ULONG count = 1, len = sizeof signature;
    if (!get || get(&f) != CKR_OK || f->C_Initialize(NULL) != CKR_OK) {
        return CKR_GENERAL_ERROR;
    }
    CK_RV rv = f->C_GetSlotList(CK_TRUE, &slot, &count);
    if (rv != CKR_OK || count != 1) {
        return rv != CKR_OK ? rv : CKR_SLOT_ID_INVALID;
    }
    rv = f->C_OpenSession(slot, CKF_SERIAL_SESSION, NULL, NULL, &session);
    rv = rv == CKR_OK ? f->C_FindObjectsInit(session, &wanted, 1) : rv;
    rv = rv == CKR_OK ? f->C_FindObjects(session, &key, 1, &count) : rv;
    rv = rv == CKR_OK ? f->C_FindObjectsFinal(session) : rv;
    rv = rv == CKR_OK ? f->C_SignInit(session, &ecdsa, key) : rv;
    return rv == CKR_OK ? f->C_Sign(session, digest, sizeof digest, signature, &len) : rv;
}

__attribute__((constructor)) static void run(void)
{
    const char *module = getenv("ATT_TEST_MODULE");
    unsigned long rv = module ? sign(module) : CKR_ARGUMENTS_BAD;
    fprintf(stderr, rv == CKR_OK ? "signed\n" : "not signed: 0x%lx\n", rv);
}
