#include "provision/issuer/kinds.h"

#include "provision/issuer/ca.h"
#include "provision/issuer/dns_ca.h"

#include <string.h>

const struct issuer_kind issuer_kinds[ISSUER_KINDS] = {
    {"agent", "workload", "Workload", "workload", "workload", "bundle.pem", false, true},
    {"ak", "attestation", "Attestation", "attest", "attestation", "ak-roots.pem", false, false},
    {"dns", "dns", "DNS", "dns", "dns", "dns-roots.pem", false, false},
    {"tls", "tls", "Issuer TLS", "tls", NULL, "tls-root.pem", true, true},
};

const struct issuer_kind *issuer_kind_of(const char *kind)
{
    for (size_t i = 0; i < ISSUER_KINDS; i++) {
        if (strcmp(issuer_kinds[i].kind, kind) == 0) {
            return &issuer_kinds[i];
        }
    }
    return NULL;
}

const struct issuer_kind *issuer_kind_by_word(const char *word)
{
    for (size_t i = 0; i < ISSUER_KINDS; i++) {
        if (strcmp(issuer_kinds[i].word, word) == 0) {
            return &issuer_kinds[i];
        }
    }
    return NULL;
}

X509 *issuer_kind_first_root(const struct issuer *issuer, const char *kind)
{
    const struct issuer_ca *ca = issuer->ca;
    return strcmp(kind, "agent") == 0 ? ca->workload_root
           : strcmp(kind, "ak") == 0  ? ca->attest_root
           : strcmp(kind, "tls") == 0 ? ca->tls_root
           : issuer->dns_ca           ? issuer->dns_ca->root
                                      : NULL;
}
