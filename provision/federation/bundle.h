/* Another trust domain's bundle (SPIFFE Trust Domain and Bundle §4): a JWK Set as bytes from
 * outside, and the form in which the issuer keeps it and hands it on. No I/O. */
#ifndef PROVISION_FEDERATION_BUNDLE_H
#define PROVISION_FEDERATION_BUNDLE_H

#include "attestd/base/json.h"

#include <openssl/x509.h>

#define FEDERATION_BUNDLE_MAX    ((size_t)256 << 10) /* bytes of text */
#define FEDERATION_ELEMENTS_MAX  128                 /* of "keys", ignored ones included */
#define FEDERATION_ROOTS_MAX     32
#define FEDERATION_ROOTS_DER_MAX ((size_t)64 << 10) /* bytes, of all roots together */
#define FEDERATION_KEYS_MAX      32
#define FEDERATION_KEYS_TEXT_MAX ((size_t)60 << 10) /* bytes of JSON, of all keys together */
#define FEDERATION_KID_MAX       255

/* federation_bundle_done. A bundle without anything is one: all trust is withdrawn (§4.1.3). */
struct federation_bundle {
    STACK_OF(X509) * roots; /* of X.509-SVIDs; never NULL */
    json_t *keys; /* of JWT-SVIDs: public JWKs of their own members alone, "kid", and "alg" where
                     it was there; never NULL */
    int64_t sequence; /* -1: it has none */
    int64_t hint_s;   /* seconds; -1: it has none */
    size_t ignored; /* elements of other uses, those of X.509-SVIDs without a certificate, and keys
                       of kinds that no JWT-SVID is signed by */
};
void federation_bundle_done(struct federation_bundle *bundle);

/* text: of trust_domain, by the word of its endpoint. Elements whose "use" is missing or another
 * are ignored (§4.2.2), and so are an x509-svid without x5c, or with an empty one, and what
 * follows x5c's first certificate (X509-SVID §6.2). ATT_E_PARSE (ATT_E_LIMIT: the first two), by
 * reason:
 *   bundleSize        more than FEDERATION_BUNDLE_MAX bytes
 *   bundleKeys        more elements, roots, keys, or bytes of either, than the above
 *   bundleForm        not a JSON object without duplicates, "keys" no array of objects, sequence
 *                     or hint no whole number of at least 0
 *   bundlePrivateKey  private or symmetric key material, in whichever element
 *   bundleRoot        x509-svid: x5c does not begin with a certificate, that of a self-signed CA;
 *                     or it is there twice
 *   bundleRootKey     … the element's own key is not its certificate's
 *   bundleDomain      … the certificate says (URI name) that it is another trust domain's, or its
 *                     names cannot be read
 *   bundleKid         jwt-svid: no kid of 1 … 255 characters, or one that is there twice
 *   bundleKey         … not a public key on P-256, P-384 or P-521, nor RSA of 2048 … 4096 bits */
ATT_MUST_USE enum att_rc federation_bundle_parse(struct att_slice text, const char *trust_domain,
                                                 struct federation_bundle *ret_bundle,
                                                 struct att_err *err);

/* {"roots": PEM, one root after the other, or "", "keys": [JWK…]}: the same bundle has the same
 * text. The caller owns it. */
ATT_MUST_USE enum att_rc federation_bundle_to_json(const struct federation_bundle *bundle,
                                                   json_t **ret_json, struct att_err *err);
/* Its reader, for what the issuer kept; sequence and hint are not in it (-1). */
ATT_MUST_USE enum att_rc federation_bundle_from_json(const json_t *json,
                                                     struct federation_bundle *ret_bundle,
                                                     struct att_err *err);

/* Does one of a's roots, or keys, have the same public key as one of b's? Then whoever holds it
 * speaks for both. NULL: no; else "a root" or "a key of JWT-SVIDs". */
const char *federation_bundle_shared(const struct federation_bundle *a,
                                     const struct federation_bundle *b);

/* Has either the same roots and keys as the other, and any at all? */
bool federation_bundle_same(const struct federation_bundle *a, const struct federation_bundle *b);

#endif
