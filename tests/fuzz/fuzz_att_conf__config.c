/* Configuration files: refused with at least one error, or whole. */
#include "attestd/conf/issuer_conf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct conf_errors errors;
    struct conf_attestd *host = NULL;
    struct conf_issuer *issuer = NULL;
    struct att_slice yaml = {data, size};
    enum att_rc rc = conf_attestd_parse(yaml, &host, &errors, NULL);
    if ((rc == ATT_OK) != (host != NULL) || (rc == ATT_OK) != (errors.n == 0)) {
        abort();
    }
    conf_attestd_free(host);
    rc = conf_issuer_parse(yaml, &issuer, &errors, NULL);
    if ((rc == ATT_OK) != (issuer != NULL) || (rc == ATT_OK) != (errors.n == 0)) {
        abort();
    }
    if (issuer && (issuer->n_profiles == 0 || issuer->profiles[0].lifetime_s < 120)) {
        abort();
    }
    conf_issuer_free(issuer);
    return 0;
}
