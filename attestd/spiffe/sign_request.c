#include "attestd/spiffe/sign_request.h"

#include "signer.pb-c.h"

#include <string.h>

static bool is_rsa(const Attestd__V1__SignRequest *request)
{
    return request->algorithm == ATTESTD__V1__ALGORITHM__ALGORITHM_RSA_PKCS1 ||
           request->algorithm == ATTESTD__V1__ALGORITHM__ALGORITHM_RSA_PSS;
}

/* NULL: it is in order. */
static const char *wrong(const Attestd__V1__SignRequest *request)
{
    size_t len = request->digest.len, id_len = strlen(request->key_id);
    if (!is_rsa(request) && request->algorithm != ATTESTD__V1__ALGORITHM__ALGORITHM_ECDSA) {
        return "algorithm: ECDSA, RSA_PKCS1 or RSA_PSS expected";
    }
    if (is_rsa(request) && len != 32 && len != 48 && len != 64) {
        return "digest: 32, 48 or 64 bytes expected for RSA";
    }
    if (len < 20 || len > 64) {
        return "digest: 20 to 64 bytes expected";
    }
    if (id_len && (id_len != PROC_KEY_ID_LEN ||
                   strspn(request->key_id, "0123456789abcdef") != PROC_KEY_ID_LEN)) {
        return "key_id: 32 lowercase hexadecimal digits expected, as Chain answers";
    }
    if (strlen(request->spiffe_id) > PROC_SPIFFE_ID_MAX) {
        return "spiffe_id: 512 bytes at most";
    }
    return NULL;
}

static void take(const Attestd__V1__SignRequest *request, struct sign_request *ret)
{
    *ret = (struct sign_request){.digest_len = request->digest.len};
    if (is_rsa(request)) {
        ret->scheme = request->algorithm == ATTESTD__V1__ALGORITHM__ALGORITHM_RSA_PKCS1 ? 1 : 2;
    }
    memcpy(ret->digest, request->digest.data, request->digest.len);
    memcpy(ret->key_id, request->key_id, strlen(request->key_id));
    memcpy(ret->spiffe_id, request->spiffe_id, strlen(request->spiffe_id));
}

const char *sign_request_parse(struct att_slice message, struct sign_request *ret)
{
    Attestd__V1__SignRequest *request =
        attestd__v1__sign_request__unpack(NULL, message.len, message.ptr);
    const char *why = request ? wrong(request) : "the request is no SignRequest";
    if (!why) {
        take(request, ret);
    }
    if (request) {
        attestd__v1__sign_request__free_unpacked(request, NULL);
    }
    return why;
}
