#!/usr/bin/env python3
"""A device-attest-01 client on python3-acme, the library under certbot: accounts, JWS, nonces, orders,
polling and problem documents are the library's, which knows neither the challenge nor the type of
identifier; both are told to it by its own means. TPM, CBOR and CSR as in client.py.

acme_client.py BASE ROOTS SOCKET TICKET AKCHAIN [case]: prints the reason of the refusal as the
library has it, or "valid". case: nonce, name, quote, order as in client.py; type (an identifier's
type that nobody knows); again (the challenge is answered again), twice (the order is finalized again); revoke."""
import datetime
import hashlib
import json
import os
import sys

os.environ["REQUESTS_CA_BUNDLE"] = sys.argv[2]
try:
    import josepy as jose
    from acme import challenges, client, errors, messages
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ImportError as e:
    print(f"python3-acme is missing: {e}")
    sys.exit(77)
import client as raw  # noqa: E402  (the file beside this one)


@challenges.ChallengeResponse.register
class DeviceAttest01Response(challenges.KeyAuthorizationChallengeResponse):
    typ = "device-attest-01"
    att_obj: str = jose.field("attObj")


@challenges.Challenge.register
class DeviceAttest01(challenges.KeyAuthorizationChallenge):
    response_cls = DeviceAttest01Response
    typ = response_cls.typ

    def validation(self, account_key, **kwargs):
        return hashlib.sha256(self.key_authorization(account_key).encode()).digest()


def problem(error):
    """The last word of our subproblem's type; what the library made of the document."""
    error = (error.subproblems or (error,))[0]
    return error.typ.rsplit(":", 1)[1]


def ordered(acme, identifier, kind, csr_pem):
    """What new_order() does for names that stand in a CSR."""
    # pylint: disable=protected-access
    name = messages.Identifier(typ=messages.IdentifierType(kind), value=identifier)
    response = acme._post(acme.directory["newOrder"], messages.NewOrder(identifiers=[name]))
    body = messages.Order.from_json(response.json())
    authorizations = [acme._authzr_from_response(acme._post_as_get(url), uri=url) for url in body.authorizations]
    return messages.OrderResource(body=body, uri=response.headers["Location"], authorizations=authorizations, csr_pem=csr_pem)


def account(base, ticket):
    key = jose.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    net = client.ClientNetwork(key, alg=jose.ES256, user_agent="a-device/1")
    directory = client.ClientV2.get_directory(base + "/directory", net)
    acme = client.ClientV2(directory, net)
    if not acme.external_account_required():
        raise SystemExit("the directory does not ask for an external account")
    binding = messages.ExternalAccountBinding.from_data(key.public_key(), ticket["kid"], ticket["macKey"], directory)
    acme.new_account(messages.NewRegistration(external_account_binding=binding, terms_of_service_agreed=True))
    return acme, key


def run(acme, account_key, tpm, certs, case):
    x5c = [c.public_bytes(serialization.Encoding.DER) for c in certs]
    san = certs[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    ek_id = san.get_values_for_type(x509.OtherName)[0].value[-64:].decode()
    ak, _ = tpm.primary(raw.ENDORSEMENT, raw.p256(raw.FIXED | raw.RESTRICTED | raw.SIGN, scheme=raw.ECDSA))
    srk, _ = tpm.primary(raw.OWNER, raw.p256(raw.FIXED | raw.RESTRICTED | raw.DECRYPT, sym=b"\0\6\0\x80\0\x43"))
    key, public = tpm.key(srk)
    request = raw.csr(tpm, key, raw.spki_of(public), ek_id)
    pem = x509.load_der_x509_csr(request).public_bytes(serialization.Encoding.PEM)

    order = ordered(acme, "0" * 64 if case == "order" else ek_id, "no-such-type" if case == "type" else "permanent-identifier", pem)
    offered = [c for c in order.authorizations[0].body.challenges if isinstance(c.chall, DeviceAttest01)]
    if len(offered) != 1:
        raise SystemExit(f"no device-attest-01: {order.authorizations[0]}")
    extra = offered[0].chall.validation(account_key)
    made, signature = tpm.certify(key, ak, b"" if case == "nonce" else extra)
    if case == "quote":
        made, signature = tpm.quote(ak, extra)
    tpm.flush(ak)
    stated = tpm.make(srk)[1] if case == "name" else public
    statement = raw.cbor({"attStmt": {"ver": "2.0", "x5c": x5c, "pubArea": stated, "certInfo": made, "sig": signature, "alg": -7},
                          "fmt": "tpm"})
    answer = DeviceAttest01Response(att_obj=raw.b64(statement))
    acme.answer_challenge(offered[0], answer)
    deadline = datetime.datetime.now() + datetime.timedelta(seconds=60)
    order = acme.finalize_order(acme.poll_authorizations(order, deadline), deadline)
    leaf = raw.certificates(order.fullchain_pem.encode())[0]
    names = list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if len(names) != 1 or not isinstance(names[0], x509.OtherName) or names[0].value[-64:].decode() != ek_id:
        raise SystemExit(f"another certificate than was ordered: {names}")
    if leaf.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo) != raw.spki_of(public):
        raise SystemExit("a certificate for another key")
    if case == "again":
        acme.answer_challenge(offered[0], answer)
    if case == "twice":
        acme.finalize_order(order, deadline)
    if case == "revoke":
        if hasattr(jose, "ComparableX509"):  # josepy 1, of Debian 12
            import OpenSSL
            leaf = jose.ComparableX509(OpenSSL.crypto.X509.from_cryptography(leaf))
        acme.revoke(leaf, 1)
        return "revoked"
    return "valid"


def main():
    base, _, path, ticket, chain = sys.argv[1:6]
    case = sys.argv[6] if len(sys.argv) > 6 else ""
    with open(ticket, encoding="ascii") as f:
        acme, key = account(base, json.load(f))
    with open(chain, "rb") as f:
        certs = raw.certificates(f.read())
    try:
        return run(acme, key, raw.Tpm(path), certs, case)
    except messages.Error as e:
        return problem(e)
    except errors.ValidationError as e:
        return problem(e.failed_authzrs[0].body.challenges[0].error)


if __name__ == "__main__":
    print(main())
