/* Another trust domain's bundle, as its endpoint (or who stands for it) sends it. What is taken
 * keeps its bounds, has no secret in it, and comes back from the form in which it is kept. */
#include "provision/federation/bundle.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct federation_bundle *bundle)
{
    static const char *const secrets[] = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"};
    if (sk_X509_num(bundle->roots) > FEDERATION_ROOTS_MAX || bundle->sequence < -1 ||
        bundle->hint_s < -1 || json_array_size(bundle->keys) > FEDERATION_KEYS_MAX) {
        abort();
    }
    for (size_t i = 0; i < json_array_size(bundle->keys); i++) {
        const json_t *jwk = json_array_get(bundle->keys, i);
        for (size_t k = 0; k < sizeof secrets / sizeof secrets[0]; k++) {
            if (json_object_get(jwk, secrets[k])) {
                abort();
            }
        }
        if (json_string_length(json_object_get(jwk, "kid")) == 0) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct federation_bundle bundle, again;
    json_t *json = NULL;
    if (federation_bundle_parse(ATT_SLICE(data, size), "partner.example", &bundle, NULL) !=
        ATT_OK) {
        return 0;
    }
    check(&bundle);
    if (federation_bundle_to_json(&bundle, &json, NULL) != ATT_OK) {
        abort();
    }
    if (federation_bundle_from_json(json, &again, NULL) != ATT_OK ||
        sk_X509_num(again.roots) != sk_X509_num(bundle.roots) ||
        !json_equal(again.keys, bundle.keys)) {
        abort();
    }
    bool any = sk_X509_num(bundle.roots) > 0 || json_array_size(bundle.keys) > 0;
    if ((federation_bundle_shared(&bundle, &again) != NULL) != any) {
        abort();
    }
    json_decref(json);
    federation_bundle_done(&again);
    federation_bundle_done(&bundle);
    return 0;
}
