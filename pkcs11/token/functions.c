/* The function list: what is served, and a refusal in every other place, since a NULL in it would
 * crash p11-kit. */
#include "pkcs11/token/internal.h"

/* PKCS#11 2.40 §5: a function that is not served is there, and answers CKR_FUNCTION_NOT_SUPPORTED.
 */
#define NOT_SERVED(name, ...)                                                                      \
    static CK_RV name(__VA_ARGS__)                                                                 \
    {                                                                                              \
        return CKR_FUNCTION_NOT_SUPPORTED;                                                         \
    }

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
NOT_SERVED(no_C_InitToken, CK_SLOT_ID slot_id, CK_BYTE *pin, CK_ULONG pin_len, CK_BYTE *label)
NOT_SERVED(no_C_InitPIN, CK_SESSION_HANDLE session, CK_BYTE *pin, CK_ULONG pin_len)
NOT_SERVED(no_C_SetPIN, CK_SESSION_HANDLE session, CK_BYTE *old_pin, CK_ULONG old_len,
           CK_BYTE *new_pin, CK_ULONG new_len)
NOT_SERVED(no_C_GetOperationState, CK_SESSION_HANDLE session, CK_BYTE *operation_state,
           CK_ULONG *operation_state_len)
NOT_SERVED(no_C_SetOperationState, CK_SESSION_HANDLE session, CK_BYTE *operation_state,
           CK_ULONG operation_state_len, CK_OBJECT_HANDLE encryption_key,
           CK_OBJECT_HANDLE authentiation_key)
NOT_SERVED(no_C_EncryptInit, CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
           CK_OBJECT_HANDLE key)
NOT_SERVED(no_C_Encrypt, CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len,
           CK_BYTE *encrypted_data, CK_ULONG *encrypted_data_len)
NOT_SERVED(no_C_EncryptUpdate, CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len,
           CK_BYTE *encrypted_part, CK_ULONG *encrypted_part_len)
NOT_SERVED(no_C_EncryptFinal, CK_SESSION_HANDLE session, CK_BYTE *last_encrypted_part,
           CK_ULONG *last_encrypted_part_len)
NOT_SERVED(no_C_DecryptInit, CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
           CK_OBJECT_HANDLE key)
NOT_SERVED(no_C_Decrypt, CK_SESSION_HANDLE session, CK_BYTE *encrypted_data,
           CK_ULONG encrypted_data_len, CK_BYTE *data, CK_ULONG *data_len)
NOT_SERVED(no_C_DecryptUpdate, CK_SESSION_HANDLE session, CK_BYTE *encrypted_part,
           CK_ULONG encrypted_part_len, CK_BYTE *part, CK_ULONG *part_len)
NOT_SERVED(no_C_DecryptFinal, CK_SESSION_HANDLE session, CK_BYTE *last_part,
           CK_ULONG *last_part_len)
NOT_SERVED(no_C_DigestKey, CK_SESSION_HANDLE session, CK_OBJECT_HANDLE key)
NOT_SERVED(no_C_SignRecoverInit, CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
           CK_OBJECT_HANDLE key)
NOT_SERVED(no_C_SignRecover, CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG data_len,
           CK_BYTE *signature, CK_ULONG *signature_len)
NOT_SERVED(no_C_VerifyRecoverInit, CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
           CK_OBJECT_HANDLE key)
NOT_SERVED(no_C_VerifyRecover, CK_SESSION_HANDLE session, CK_BYTE *signature,
           CK_ULONG signature_len, CK_BYTE *data, CK_ULONG *data_len)
NOT_SERVED(no_C_DigestEncryptUpdate, CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len,
           CK_BYTE *encrypted_part, CK_ULONG *encrypted_part_len)
NOT_SERVED(no_C_DecryptDigestUpdate, CK_SESSION_HANDLE session, CK_BYTE *encrypted_part,
           CK_ULONG encrypted_part_len, CK_BYTE *part, CK_ULONG *part_len)
NOT_SERVED(no_C_SignEncryptUpdate, CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG part_len,
           CK_BYTE *encrypted_part, CK_ULONG *encrypted_part_len)
NOT_SERVED(no_C_DecryptVerifyUpdate, CK_SESSION_HANDLE session, CK_BYTE *encrypted_part,
           CK_ULONG encrypted_part_len, CK_BYTE *part, CK_ULONG *part_len)
NOT_SERVED(no_C_GenerateKey, CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
           CK_ATTRIBUTE *templ, CK_ULONG count, CK_OBJECT_HANDLE *key)
NOT_SERVED(no_C_GenerateKeyPair, CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
           CK_ATTRIBUTE *public_key_template, CK_ULONG public_key_attribute_count,
           CK_ATTRIBUTE *private_key_template, CK_ULONG private_key_attribute_count,
           CK_OBJECT_HANDLE *public_key, CK_OBJECT_HANDLE *private_key)
NOT_SERVED(no_C_WrapKey, CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
           CK_OBJECT_HANDLE wrapping_key, CK_OBJECT_HANDLE key, CK_BYTE *wrapped_key,
           CK_ULONG *wrapped_key_len)
NOT_SERVED(no_C_UnwrapKey, CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
           CK_OBJECT_HANDLE unwrapping_key, CK_BYTE *wrapped_key, CK_ULONG wrapped_key_len,
           CK_ATTRIBUTE *templ, CK_ULONG attribute_count, CK_OBJECT_HANDLE *key)
NOT_SERVED(no_C_DeriveKey, CK_SESSION_HANDLE session, CK_MECHANISM *mechanism,
           CK_OBJECT_HANDLE base_key, CK_ATTRIBUTE *templ, CK_ULONG attribute_count,
           CK_OBJECT_HANDLE *key)
/* Legacy (PKCS#11 2.40 §5.15): nothing runs in parallel. */
static CK_RV not_parallel(CK_SESSION_HANDLE session)
{
    return CKR_FUNCTION_NOT_PARALLEL;
}
#pragma GCC diagnostic pop

static CK_RV get_function_list(CK_FUNCTION_LIST **ret_list)
{
    if (!ret_list) {
        return CKR_ARGUMENTS_BAD;
    }
    *ret_list = token_module_functions();
    return CKR_OK;
}

static CK_FUNCTION_LIST functions = {
    .version = {2, 40},
    .C_Initialize = token_C_Initialize,
    .C_Finalize = token_C_Finalize,
    .C_GetInfo = token_C_GetInfo,
    .C_GetFunctionList = get_function_list,
    .C_GetSlotList = token_C_GetSlotList,
    .C_GetSlotInfo = token_C_GetSlotInfo,
    .C_GetTokenInfo = token_C_GetTokenInfo,
    .C_GetMechanismList = token_C_GetMechanismList,
    .C_GetMechanismInfo = token_C_GetMechanismInfo,
    .C_InitToken = no_C_InitToken,
    .C_InitPIN = no_C_InitPIN,
    .C_SetPIN = no_C_SetPIN,
    .C_OpenSession = token_C_OpenSession,
    .C_CloseSession = token_C_CloseSession,
    .C_CloseAllSessions = token_C_CloseAllSessions,
    .C_GetSessionInfo = token_C_GetSessionInfo,
    .C_GetOperationState = no_C_GetOperationState,
    .C_SetOperationState = no_C_SetOperationState,
    .C_Login = token_C_Login,
    .C_Logout = token_C_Logout,
    .C_CreateObject = token_C_CreateObject,
    .C_CopyObject = token_C_CopyObject,
    .C_DestroyObject = token_C_DestroyObject,
    .C_GetObjectSize = token_C_GetObjectSize,
    .C_GetAttributeValue = token_C_GetAttributeValue,
    .C_SetAttributeValue = token_C_SetAttributeValue,
    .C_FindObjectsInit = token_C_FindObjectsInit,
    .C_FindObjects = token_C_FindObjects,
    .C_FindObjectsFinal = token_C_FindObjectsFinal,
    .C_EncryptInit = no_C_EncryptInit,
    .C_Encrypt = no_C_Encrypt,
    .C_EncryptUpdate = no_C_EncryptUpdate,
    .C_EncryptFinal = no_C_EncryptFinal,
    .C_DecryptInit = no_C_DecryptInit,
    .C_Decrypt = no_C_Decrypt,
    .C_DecryptUpdate = no_C_DecryptUpdate,
    .C_DecryptFinal = no_C_DecryptFinal,
    .C_DigestInit = token_C_DigestInit,
    .C_Digest = token_C_Digest,
    .C_DigestUpdate = token_C_DigestUpdate,
    .C_DigestKey = no_C_DigestKey,
    .C_DigestFinal = token_C_DigestFinal,
    .C_SignInit = token_C_SignInit,
    .C_Sign = token_C_Sign,
    .C_SignUpdate = token_C_SignUpdate,
    .C_SignFinal = token_C_SignFinal,
    .C_SignRecoverInit = no_C_SignRecoverInit,
    .C_SignRecover = no_C_SignRecover,
    .C_VerifyInit = token_C_VerifyInit,
    .C_Verify = token_C_Verify,
    .C_VerifyUpdate = token_C_VerifyUpdate,
    .C_VerifyFinal = token_C_VerifyFinal,
    .C_VerifyRecoverInit = no_C_VerifyRecoverInit,
    .C_VerifyRecover = no_C_VerifyRecover,
    .C_DigestEncryptUpdate = no_C_DigestEncryptUpdate,
    .C_DecryptDigestUpdate = no_C_DecryptDigestUpdate,
    .C_SignEncryptUpdate = no_C_SignEncryptUpdate,
    .C_DecryptVerifyUpdate = no_C_DecryptVerifyUpdate,
    .C_GenerateKey = no_C_GenerateKey,
    .C_GenerateKeyPair = no_C_GenerateKeyPair,
    .C_WrapKey = no_C_WrapKey,
    .C_UnwrapKey = no_C_UnwrapKey,
    .C_DeriveKey = no_C_DeriveKey,
    .C_SeedRandom = token_C_SeedRandom,
    .C_GenerateRandom = token_C_GenerateRandom,
    .C_GetFunctionStatus = not_parallel,
    .C_CancelFunction = not_parallel,
    .C_WaitForSlotEvent = token_C_WaitForSlotEvent,
};

CK_FUNCTION_LIST *token_module_functions(void)
{
    return &functions;
}
