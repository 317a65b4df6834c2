/* An exchange profile: refused, or whole, and no field of it is one that the grant sets. */
#include "attestd/conf/exchange.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_exchange *x = NULL;
    if (conf_exchange_parse(ATT_SLICE(data, size), &x, NULL, NULL) != ATT_OK) {
        return 0;
    }
    bool aws = x->grant == CONF_GRANT_AWS_ROLES_ANYWHERE;
    bool jwt = !aws && x->grant != CONF_GRANT_CLIENT_CREDENTIALS;
    if (aws !=
            (x->aws.role_arn && x->aws.profile_arn && x->aws.trust_anchor_arn && x->aws.region) ||
        (x->client_tls && (aws || !x->client_id)) || (x->bound_required && !x->client_tls) ||
        (x->grant == CONF_GRANT_CLIENT_CREDENTIALS && !x->client_tls) || jwt != !!x->audience) {
        abort();
    }
    if (strncmp(x->endpoint, "https://", 8) != 0 || !x->token || !x->ca_file || x->timeout_s < 1 ||
        x->timeout_s > 60 || x->lifetime_s < 1 ||
        (x->grant == CONF_GRANT_CLIENT_ASSERTION && !x->client_id)) {
        abort();
    }
    for (size_t i = 0; i < x->n_fields; i++) {
        if (strcmp(x->fields[i].name, "grant_type") == 0 || !x->fields[i].value[0]) {
            abort();
        }
    }
    conf_exchange_free(x);
    return 0;
}
