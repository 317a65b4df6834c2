/* What the two halves of the client share. Internal to this folder. */
#ifndef ATTESTD_PROVISION_ACME_CLIENT_SESSION_H
#define ATTESTD_PROVISION_ACME_CLIENT_SESSION_H

#include "provision/acme/client.h"

struct acme_client {
    char *base_url;
    char directory[ACME_DIRECTORY_PATH_MAX + 1]; /* its name below base_url */
    size_t origin_len;                           /* of base_url: scheme, host, port */
    struct acme_http *http;
    struct acme_signer signer;
    json_t *jwk;
    char thumbprint[ACME_THUMBPRINT_LEN];
    char *kid;
    bool have_dir;
    struct acme_directory dir;
    char nonces[ACME_CLIENT_NONCES][256];
    size_t n_nonces;
    struct acme_client_last last;
};

/* POST and the JSON object of its answer. ret_response may be NULL. */
ATT_MUST_USE enum att_rc acme_client_post_json(struct acme_client *client,
                                               const struct acme_client_post *post,
                                               json_t **ret_json,
                                               struct acme_http_response *ret_response,
                                               struct att_err *err);
/* A copy of the answer's Location, which must be one of the issuer's URLs. */
ATT_MUST_USE enum att_rc acme_client_location(const struct acme_client *client,
                                              const struct acme_http_response *response,
                                              char **ret_url, struct att_err *err);

#endif
