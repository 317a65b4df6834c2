#!/usr/bin/env python3
"""A stock device-attest-01 client for permanent identifiers, in raw JWS and raw TPM commands on a
swtpm's socket: it makes the AK again from its template, has it certify a key, and orders.

client.py BASE ROOTS SOCKET TICKET AKCHAIN [case]: prints the reason of the refusal, or "valid".
case: what is made wrong: nonce, name, quote, old (a statement of another order); order (another
identifier); csrkey; spiffe (the CSR asks for an agent's name)."""
import base64
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import struct
import sys
import urllib.parse

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import (
        decode_dss_signature, encode_dss_signature)
except ImportError:
    print("python3-cryptography is missing")
    sys.exit(77)


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def dump(obj):
    return json.dumps(obj, separators=(",", ":")).encode()


# ---- TPM (TCG TPM 2.0 Part 3) ----

ENDORSEMENT, OWNER = 0x4000000B, 0x40000001
FIXED = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10
RESTRICTED, DECRYPT, SIGN = 1 << 16, 1 << 17, 1 << 18
NULL, ECDSA, SHA256 = b"\0\x10", b"\0\x18\0\x0b", 0x000B
AUTH = struct.pack(">IHBH", 0x40000009, 0, 1, 0)


def tpm2b(data):
    return struct.pack(">H", len(data)) + data


def take2b(data):
    n = struct.unpack(">H", data[:2])[0]
    return data[2:2 + n], data[2 + n:]


def p256(attrs, sym=NULL, scheme=NULL):
    return (struct.pack(">HHIH", 0x23, SHA256, attrs, 0) + sym + scheme + b"\0\x03" + NULL
            + tpm2b(b"") + tpm2b(b""))


class Tpm:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)

    def ask(self, code, handles, params, has_handle=False):
        body = struct.pack(f">{len(handles)}I", *handles)
        auths = AUTH * (2 if code == 0x148 else 1)
        body += struct.pack(">I", len(auths)) + auths + params
        self.socket.sendall(struct.pack(">HII", 0x8002, 10 + len(body), code) + body)
        answer = b""
        while len(answer) < 10 or len(answer) < struct.unpack(">I", answer[2:6])[0]:
            more = self.socket.recv(4096)
            if not more:
                raise SystemExit("the TPM went away")
            answer += more
        rc = struct.unpack(">I", answer[6:10])[0]
        if rc:
            raise SystemExit(f"TPM command {code:#x}: {rc:#x}")
        at, handle = 10, None
        if has_handle:
            handle, at = struct.unpack(">I", answer[10:14])[0], 14
        size = struct.unpack(">I", answer[at:at + 4])[0]
        return handle, answer[at + 4:at + 4 + size]

    def primary(self, hierarchy, public):
        handle, out = self.ask(0x131, [hierarchy], tpm2b(b"\0\0\0\0") + tpm2b(public) + tpm2b(b"")
                               + b"\0\0\0\0", True)
        return handle, take2b(out)[0]

    def make(self, parent):
        _, out = self.ask(0x153, [parent], tpm2b(b"\0\0\0\0") + tpm2b(p256(FIXED | SIGN))
                          + tpm2b(b"") + b"\0\0\0\0")
        private, out = take2b(out)
        return private, take2b(out)[0]

    def key(self, parent):
        private, public = self.make(parent)
        handle, _ = self.ask(0x157, [parent], tpm2b(private) + tpm2b(public), True)
        return handle, public

    def certify(self, key, ak, extra):
        _, out = self.ask(0x148, [key, ak], tpm2b(extra) + NULL)
        return take2b(out)

    def quote(self, ak, extra):
        selection = struct.pack(">IHB", 1, SHA256, 3) + b"\x01\0\0"
        _, out = self.ask(0x158, [ak], tpm2b(extra) + NULL + selection)
        return take2b(out)

    def flush(self, handle):
        """A TPM has room for three."""
        self.socket.sendall(struct.pack(">HIII", 0x8001, 14, 0x165, handle))
        if self.socket.recv(10)[6:10] != bytes(4):
            raise SystemExit("TPM2_FlushContext")

    def sign(self, key, digest):
        _, out = self.ask(0x15D, [key], tpm2b(digest) + ECDSA
                          + struct.pack(">HIH", 0x8024, 0x40000007, 0))
        r, out = take2b(out[4:])
        return encode_dss_signature(int.from_bytes(r, "big"),
                                    int.from_bytes(take2b(out)[0], "big"))


def spki_of(public):
    x, rest = take2b(public[-68:])
    point = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"),
                                          int.from_bytes(take2b(rest)[0], "big"), ec.SECP256R1())
    return point.public_key().public_bytes(serialization.Encoding.DER,
                                           serialization.PublicFormat.SubjectPublicKeyInfo)


# ---- PEM, DER and CBOR ----

def certificates(pem):
    """Debian 12's cryptography has one at a time only."""
    end = b"-----END CERTIFICATE-----"
    return [x509.load_pem_x509_certificate(one + end) for one in pem.split(end)[:-1]]


def der(tag, *parts):
    body = b"".join(parts)
    n = len(body)
    size = bytes([n]) if n < 128 else bytes([0x81, n]) if n < 256 else bytes([0x82]) + struct.pack(">H", n)
    return bytes([tag]) + size + body


def csr(tpm, key, spki, name, uri=None):
    subject = der(0x30, der(0x31, der(0x30, b"\x06\x03\x55\x04\x03", der(0x0C, name.encode()))))
    attributes = b""
    if uri:
        san = der(0x30, b"\x06\x03\x55\x1d\x11", der(0x04, der(0x30, der(0x86, uri.encode()))))
        attributes = der(0x30, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e",
                         der(0x31, der(0x30, san)))
    info = der(0x30, b"\x02\x01\0", subject, spki, der(0xA0, attributes))
    signature = tpm.sign(key, hashlib.sha256(info).digest())
    return der(0x30, info, b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02",
               der(0x03, b"\0", signature))


def head(major, n):
    if n < 24:
        return bytes([major << 5 | n])
    return bytes([major << 5 | 24, n]) if n < 256 else bytes([major << 5 | 25]) + struct.pack(">H", n)


def cbor(value):
    if isinstance(value, int):
        return head(1, -1 - value) if value < 0 else head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value)) + value.encode()
    if isinstance(value, list):
        return head(4, len(value)) + b"".join(map(cbor, value))
    return head(5, len(value)) + b"".join(cbor(k) + cbor(v) for k, v in value.items())


# ---- ACME ----

class Acme:
    def __init__(self, base, roots):
        self.base, self.at = base, urllib.parse.urlsplit(base)
        self.tls = ssl.create_default_context(cafile=roots)
        self.key = ec.generate_private_key(ec.SECP256R1())
        n = self.key.public_key().public_numbers()
        self.jwk = {"crv": "P-256", "kty": "EC", "x": b64(n.x.to_bytes(32, "big")),
                    "y": b64(n.y.to_bytes(32, "big"))}
        self.thumbprint = b64(hashlib.sha256(dump(self.jwk)).digest())
        self.kid = None

    def http(self, method, url, body=None):
        c = http.client.HTTPSConnection(self.at.hostname, self.at.port, context=self.tls, timeout=60)
        c.request(method, urllib.parse.urlsplit(url).path, body,
                  {"Content-Type": "application/jose+json"})
        r = c.getresponse()
        data = r.read()
        c.close()
        return r.status, r.headers, data

    def post(self, url, payload):
        nonce = self.http("HEAD", self.base + "/newNonce")[1]["Replay-Nonce"]
        protected = {"alg": "ES256", "nonce": nonce, "url": url}
        protected.update({"kid": self.kid} if self.kid else {"jwk": self.jwk})
        part = b64(dump(protected)) + "." + ("" if payload is None else b64(dump(payload)))
        r, s = decode_dss_signature(self.key.sign(part.encode(), ec.ECDSA(hashes.SHA256())))
        head_, body = part.split(".")
        return self.http("POST", url, dump({"protected": head_, "payload": body, "signature": b64(
            r.to_bytes(32, "big") + s.to_bytes(32, "big"))}))

    def account(self, ticket):
        url = self.base + "/newAccount"
        protected = b64(dump({"alg": "HS256", "kid": ticket["kid"], "url": url}))
        payload = b64(dump(self.jwk))
        mac = base64.urlsafe_b64decode(ticket["macKey"] + "=" * (-len(ticket["macKey"]) % 4))
        signature = b64(hmac.new(mac, f"{protected}.{payload}".encode(), "sha256").digest())
        status, headers, body = self.post(url, {
            "termsOfServiceAgreed": True,
            "externalAccountBinding": {"protected": protected, "payload": payload,
                                       "signature": signature}})
        if status != 201:
            raise SystemExit(f"newAccount: {status} {body}")
        self.kid = headers["Location"]


def reason(problem):
    if isinstance(problem, bytes):
        problem = json.loads(problem)
    problem = problem.get("error", problem)
    return problem.get("subproblems", [problem])[0]["type"].rsplit(":", 1)[1]


def main():
    base, roots, path, ticket, chain = sys.argv[1:6]
    case = sys.argv[6] if len(sys.argv) > 6 else ""
    with open(chain, "rb") as f:
        certs = certificates(f.read())
    x5c = [c.public_bytes(serialization.Encoding.DER) for c in certs]
    san = certs[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    ek_id = san.get_values_for_type(x509.OtherName)[0].value[-64:].decode()
    acme = Acme(base, roots)
    with open(ticket) as f:
        acme.account(json.load(f))
    tpm = Tpm(path)
    ak, ak_public = tpm.primary(ENDORSEMENT, p256(FIXED | RESTRICTED | SIGN, scheme=ECDSA))
    if spki_of(ak_public) != certs[0].public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo):
        raise SystemExit("the AK of the template is not the one that was certified")
    srk, _ = tpm.primary(OWNER, p256(FIXED | RESTRICTED | DECRYPT, sym=b"\0\6\0\x80\0\x43"))
    key, public = tpm.key(srk)
    identifier = "0" * 64 if case == "order" else ek_id

    status, headers, body = acme.post(base + "/newOrder", {"identifiers": [
        {"type": "permanent-identifier", "value": identifier}]})
    if status != 201:
        return reason(body)
    order, url = json.loads(body), headers["Location"]
    authz = json.loads(acme.post(order["authorizations"][0], None)[2])
    challenge = authz["challenges"][0]
    token = challenge["token"] if case != "old" else b64(b"0" * 24)
    extra = hashlib.sha256(f"{token}.{acme.thumbprint}".encode()).digest()
    made, signature = tpm.certify(key, ak, b"" if case == "nonce" else extra)
    if case == "quote":
        made, signature = tpm.quote(ak, extra)
    tpm.flush(ak)
    stated = tpm.make(srk)[1] if case == "name" else public
    statement = {"ver": "2.0", "x5c": x5c, "pubArea": stated, "certInfo": made, "sig": signature,
                 "alg": -7}
    body = acme.post(challenge["url"], {"attObj": b64(cbor({"attStmt": statement, "fmt": "tpm"}))})[2]
    answer = json.loads(body)
    if answer.get("status") != "valid":
        return reason(answer)

    asked = tpm.key(srk) if case == "csrkey" else (key, public)
    request = csr(tpm, asked[0], spki_of(asked[1]), ek_id,
                  "spiffe://bank.example/agent/portfolio-rebalancer" if case == "spiffe" else None)
    status, _, body = acme.post(order["finalize"], {"csr": b64(request)})
    if status != 200:
        return reason(body)
    pem = acme.post(json.loads(body)["certificate"], None)[2]
    leaf = certificates(pem)[0]
    names = list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if len(names) != 1 or not isinstance(names[0], x509.OtherName) or \
            names[0].value[-64:].decode() != ek_id or \
            [u.dotted_string for u in usage] != ["1.3.6.1.5.5.7.3.2"]:
        raise SystemExit(f"another certificate than was ordered: {names} {usage}")
    if json.loads(acme.post(url, None)[2])["status"] != "valid":
        raise SystemExit("the order is not valid")
    return "valid"


if __name__ == "__main__":
    print(main())
