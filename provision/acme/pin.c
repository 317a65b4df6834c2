#include "provision/acme/pin.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509_vfy.h>
#include <string.h>

static bool is_pinned(const X509 *cert, const struct acme_pin *pin)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    return cert && X509_digest(cert, EVP_sha256(), digest, &len) == 1 && len == ATT_SHA256_LEN &&
           memcmp(digest, pin->sha256, ATT_SHA256_LEN) == 0;
}

static X509 *find_pinned(X509_STORE_CTX *store_ctx, const struct acme_pin *pin)
{
    STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(store_ctx);
    for (int i = 0; i < sk_X509_num(sent); i++) {
        X509 *cert = sk_X509_value(sent, i);
        if (is_pinned(cert, pin)) {
            return cert;
        }
    }
    return NULL;
}

static int refuse(X509_STORE_CTX *store_ctx, struct acme_pin *pin, int code, const char *why)
{
    /* What is left in the queue would hide from libcurl that this was a refusal. */
    ERR_clear_error();
    X509_STORE_CTX_set_error(store_ctx, code);
    pin->why = why;
    return 0;
}

static int verify(X509_STORE_CTX *store_ctx, struct acme_pin *pin)
{
    if (X509_verify_cert(store_ctx) == 1) {
        return 1;
    }
    int code = X509_STORE_CTX_get_error(store_ctx);
    code = code == X509_V_OK ? X509_V_ERR_UNSPECIFIED : code;
    return refuse(store_ctx, pin, code, X509_verify_cert_error_string(code));
}

static int verify_pinned(X509_STORE_CTX *store_ctx, struct acme_pin *pin)
{
    X509 *root = find_pinned(store_ctx, pin);
    if (!root) {
        return refuse(store_ctx, pin, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
                      "the server did not send the pinned root certificate");
    }
    STACK_OF(X509) *anchors = sk_X509_new_null();
    if (!anchors || sk_X509_push(anchors, root) <= 0) {
        sk_X509_free(anchors);
        return refuse(store_ctx, pin, X509_V_ERR_OUT_OF_MEM, "no memory");
    }
    X509_STORE_CTX_set0_trusted_stack(store_ctx, anchors);
    int good = verify(store_ctx, pin);
    if (good == 1) {
        STACK_OF(X509) *chain = X509_STORE_CTX_get0_chain(store_ctx);
        int n = sk_X509_num(chain);
        if (n < 1 || !is_pinned(sk_X509_value(chain, n - 1), pin)) {
            good = refuse(store_ctx, pin, X509_V_ERR_CERT_UNTRUSTED,
                          "the server's chain does not end in the pinned root");
        }
    }
    X509_STORE_CTX_set0_trusted_stack(store_ctx, NULL); /* the context outlives anchors */
    sk_X509_free(anchors);
    return good;
}

static int verify_by_peer(X509_STORE_CTX *store_ctx, struct acme_pin *pin)
{
    const char *why = pin->peer(pin->peer_user, store_ctx);
    if (why) {
        return refuse(store_ctx, pin, X509_V_ERR_APPLICATION_VERIFICATION, why);
    }
    ERR_clear_error();
    X509_STORE_CTX_set_error(store_ctx, X509_V_OK);
    return 1;
}

int acme_pin_verify(X509_STORE_CTX *store_ctx, void *arg)
{
    struct acme_pin *pin = arg;
    if (pin->peer) {
        return verify_by_peer(store_ctx, pin);
    }
    return pin->pinned ? verify_pinned(store_ctx, pin) : verify(store_ctx, pin);
}
