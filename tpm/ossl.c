/* ESYS (tss2 3.2 and 4.1) makes a whole OSSL_LIB_CTX for each hash, each HMAC and each nonce, so as
 * to stay out of the default context, where a TPM provider might be: a quarter of a millisecond
 * each, a dozen times for one command of the HMAC session, ten times what a swtpm needs for the
 * command itself. There is no setting against it. So the program's definitions of these two
 * functions stand before libcrypto's, and give one private context to all calls that are made
 * inside TPM_CALL; it is as far from the default context as those it stands for. Every other call
 * goes through unchanged. */
#include "tpm/internal.h"

#include <dlfcn.h>
#include <openssl/crypto.h>
#include <pthread.h>

typedef OSSL_LIB_CTX *new_fn(void);
typedef void free_fn(OSSL_LIB_CTX *ctx);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static new_fn *real_new;
static free_fn *real_free;
static OSSL_LIB_CTX *shared; /* to the end of the process */
static _Thread_local unsigned inside;

static void set_up(void)
{
    void *found_new = dlsym(RTLD_NEXT, "OSSL_LIB_CTX_new");
    void *found_free = dlsym(RTLD_NEXT, "OSSL_LIB_CTX_free");
    /* ISO C has no cast from an object pointer to a function pointer; POSIX has the values equal.
     */
    memcpy(&real_new, &found_new, sizeof(real_new));
    memcpy(&real_free, &found_free, sizeof(real_free));
    shared = real_new ? real_new() : NULL;
}

void tpm_ossl_enter(void)
{
    inside++;
}

TSS2_RC tpm_ossl_leave(TSS2_RC rc)
{
    tpm_ossl_hmac_done();
    inside--;
    return rc;
}

bool tpm_ossl_inside(void)
{
    return inside != 0;
}

OSSL_LIB_CTX *OSSL_LIB_CTX_new(void)
{
    pthread_once(&once, set_up);
    if (inside != 0 && shared) {
        return shared;
    }
    return real_new ? real_new() : NULL;
}

void OSSL_LIB_CTX_free(OSSL_LIB_CTX *ctx)
{
    pthread_once(&once, set_up);
    if ((!ctx || ctx != shared) && real_free) {
        real_free(ctx);
    }
}
