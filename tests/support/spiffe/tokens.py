#!/usr/bin/env python3
"""JWT-SVIDs by a library that is not ours (python3-jwt).

tokens.py check ISSUER CA_FILE AUDIENCE TOKEN: as a relying party does, by discovery; prints the claims.
tokens.py forge KEY_FILE KID AUDIENCE: tokens that are each wrong in one thing, "reason token" a line; the first is right.
"""
import base64
import json
import ssl
import sys
import time
import urllib.request

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def check(issuer, ca_file, audience, token):
    context = ssl.create_default_context(cafile=ca_file)

    def get(url):
        with urllib.request.urlopen(url, context=context, timeout=20) as answer:
            assert answer.headers["Content-Type"] == "application/json", answer.headers
            return json.load(answer)

    document = get(issuer + "/.well-known/openid-configuration")
    assert document["issuer"] == issuer, document
    keys = {key["kid"]: jwt.PyJWK(key) for key in get(document["jwks_uri"])["keys"]}
    kid = jwt.get_unverified_header(token)["kid"]
    claims = jwt.decode(token, keys[kid].key, algorithms=document["id_token_signing_alg_values_supported"],
                        audience=audience, issuer=issuer,
                        options={"require": ["exp", "iat", "iss", "aud", "sub", "jti"]})
    bundle = get(issuer + "/bundle")
    uses = sorted(key["use"] for key in bundle["keys"])
    assert set(uses) == {"jwt-svid", "x509-svid"} and bundle["spiffe_sequence"] > 0, bundle
    print(json.dumps(claims))


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def forge(key_file, kid, audience):
    with open(key_file, "rb") as file:
        key = load_pem_private_key(file.read(), None)
    now = int(time.time())
    good = {"iss": "https://x.example", "sub": "spiffe://bank.example/agent/alpha", "aud": audience,
            "exp": now + 200, "iat": now, "jti": "1"}

    def made(reason, claims=None, key=key, alg="ES256", kid=kid, drop=None):
        body = {**good, **(claims or {})}
        if drop:
            del body[drop]
        print(reason, jwt.encode(body, key, algorithm=alg, headers={"kid": kid}))

    made("OK")
    made("tokenAudience", {"aud": "https://other.example"})
    made("tokenDomain", {"sub": "spiffe://other.example/agent/alpha"})
    made("tokenSubject", drop="sub")
    made("tokenExpired", {"exp": now - 60, "iat": now - 360})
    made("tokenForm", drop="exp")
    made("tokenNotYet", {"nbf": now + 600})
    made("tokenAlg", key=None, alg="none")
    made("tokenAlg", key="a secret of thirty-two characters", alg="HS256")
    made("tokenAlg", key=ed25519.Ed25519PrivateKey.generate(), alg="EdDSA")
    made("tokenKid", kid="nobody's")
    token = jwt.encode(good, key, algorithm="ES256", headers={"kid": kid})
    head, claims, signature = token.split(".")
    print("tokenSignature", ".".join((head, b64(json.dumps({**good, "sub": good["sub"] + "x"}).encode()).decode(),
                                      signature)))
    doubled = b64(('{"alg":"ES256","alg":"ES256","kid":"%s"}' % kid).encode()).decode()
    print("tokenForm", ".".join((doubled, claims, signature)))
    print("tokenForm", token + ".x")
    print("tokenForm", jwt.encode(good, key, algorithm="ES256", headers={"kid": kid, "typ": "attestd-token"}))


{"check": check, "forge": forge}[sys.argv[1]](*sys.argv[2:])
