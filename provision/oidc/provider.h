/* The keys of one OpenID provider: from a file, or fetched from its discovery document (OpenID
 * Connect Discovery 1.0 §4) over TLS under a named root, by a thread of their own. Who asks for a
 * key never waits for the network. */
#ifndef PROVISION_OIDC_PROVIDER_H
#define PROVISION_OIDC_PROVIDER_H

#include "provision/oidc/jwks.h"

#define OIDC_DISCOVERY_MAX ((size_t)64 << 10)

struct oidc_provider_config {
    const char *issuer;    /* "https://idp.example"; copied, as the others */
    const char *jwks_file; /* or */
    const char *ca_file;   /* PEM: the only roots that its server is believed by */
    /* 0: what stands behind it */
    int64_t refresh_ms; /* 10 min: fetched again after */
    int64_t
        unknown_ms;   /* 10 s: at most so often for a kid that is not known, and after a failure */
    int64_t stale_ms; /* 24 h: keys that could not be refreshed for so long are no good */
    int fetch_timeout_ms; /* 10 s, each of the two requests */
};

struct oidc_provider;

/* A file is read at once: what is wrong with it is the error. Nothing is fetched yet. */
ATT_MUST_USE enum att_rc oidc_provider_new(const struct oidc_provider_config *config,
                                           struct oidc_provider **ret_provider,
                                           struct att_err *err);
/* Ends the thread. NULL is fine. */
void oidc_provider_free(struct oidc_provider *provider);
/* Starts fetching, where keys are fetched; the first question does so, too. */
void oidc_provider_start(struct oidc_provider *provider);

/* Gives a key of this kid that may verify this algorithm; the caller frees it (EVP_PKEY_free).
 * ATT_E_RETRY, reason "keysPending": they are being fetched, ask again in a second. ATT_E_AUTH:
 * "tokenKid" (no such key), "tokenAlg" (not for this algorithm), "keysStale". Thread-safe. */
ATT_MUST_USE enum att_rc oidc_provider_key(struct oidc_provider *provider, const char *kid,
                                           enum oidc_alg alg, EVP_PKEY **ret_key,
                                           struct att_err *err);
/* How many fetches were begun. */
uint64_t oidc_provider_fetches(struct oidc_provider *provider);

/* A discovery document: its issuer must be the one that was asked (§4.3). ret_jwks_uri is malloc'd.
 * ATT_E_PARSE with reason "discovery". */
ATT_MUST_USE enum att_rc oidc_discovery_parse(struct att_slice text, const char *issuer,
                                              char **ret_jwks_uri, struct att_err *err);

#endif
