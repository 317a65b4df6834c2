/* Directory, account, order, authorization, challenge from an issuer; newAccount, newOrder and
 * finalize from a client. What parses can be written and parsed again. */
#include "provision/acme/objects.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ROUND(type)                                                                                \
    do {                                                                                           \
        struct acme_##type object = {0}, back = {0};                                               \
        json_t *again = NULL;                                                                      \
        if (acme_##type##_parse(json, &object, NULL) == ATT_OK) {                                  \
            if (acme_##type##_encode(&object, &again, NULL) != ATT_OK ||                           \
                acme_##type##_parse(again, &back, NULL) != ATT_OK) {                               \
                __builtin_trap();                                                                  \
            }                                                                                      \
            acme_##type##_done(&back);                                                             \
            acme_##type##_done(&object);                                                           \
            json_decref(again);                                                                    \
        }                                                                                          \
    } while (0)

static void requests(struct att_slice text)
{
    struct acme_account_request account = {0};
    struct acme_order_request order = {0};
    struct att_buf csr = {0};
    if (acme_account_request_parse(text, &account, NULL) == ATT_OK) {
        acme_account_request_done(&account);
    }
    if (acme_order_request_parse(text, &order, NULL) == ATT_OK) {
        acme_order_request_done(&order);
    }
    (void)!acme_finalize_request_parse(text, &csr, NULL);
    att_buf_done(&csr);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *json = NULL;
    requests(ATT_SLICE(data, size));
    if (att_json_parse(ATT_SLICE(data, size), ACME_OBJECT_MAX, &json, NULL) != ATT_OK) {
        return 0;
    }
    ROUND(directory);
    ROUND(account);
    ROUND(order);
    ROUND(authz);
    ROUND(challenge);
    json_decref(json);
    return 0;
}
