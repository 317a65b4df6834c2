#!/usr/bin/env python3
"""An ACME server with device-attest-01 that does what it should not: no stock server can be made to.

server.py DIR PORT: makes DIR/root.pem (TLS and certificates) and DIR/ak.key, ak-ca.pem, serves
https://127.0.0.1:PORT/dir. DIR/case says what goes wrong from now on ("good": nothing); DIR/seen has
one line for each challenge that was answered: the payload's members and the statement's.
server.py DIR ak AK.pem OUT.pem [DAYS]: a certificate of that AK."""
import base64
import datetime
import http.server
import json
import os
import ssl
import sys

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    print("python3-cryptography is missing")
    sys.exit(77)

DIR = sys.argv[1]
PERMANENT = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.3")
AK_EKU = x509.ObjectIdentifier("2.23.133.8.3")
NOW = datetime.datetime.utcnow
HOUR = datetime.timedelta(hours=1)


def path(name):
    return os.path.join(DIR, name)


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def pem(cert):
    return cert.public_bytes(serialization.Encoding.PEM)


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def permanent(value):
    text = value.encode()
    inner = b"\x0c" + bytes([len(text)]) + text
    return x509.OtherName(PERMANENT, b"\x30" + bytes([len(inner)]) + inner)


def authority(text):
    key = ec.generate_private_key(ec.SECP256R1())
    ski = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    cert = (x509.CertificateBuilder().subject_name(name(text)).issuer_name(name(text))
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(NOW() - 24 * 30 * HOUR).not_valid_after(NOW() + 24 * 30 * HOUR)
            .add_extension(x509.BasicConstraints(True, None), True).add_extension(usage, True)
            .add_extension(ski, False).sign(key, hashes.SHA256()))
    return key, cert


def leaf(ca, public, sans, eku, begin=None, end=None, is_ca=False, subject=None):
    key, cert = ca
    usage = x509.KeyUsage(True, False, False, False, False, is_ca, False, False, False)
    builder = (x509.CertificateBuilder().subject_name(subject or x509.Name([]))
               .issuer_name(cert.subject).public_key(public)
               .serial_number(x509.random_serial_number())
               .not_valid_before(begin or NOW() - HOUR).not_valid_after(end or NOW() + HOUR)
               .add_extension(x509.BasicConstraints(is_ca, None), True).add_extension(usage, True)
               .add_extension(x509.ExtendedKeyUsage([eku]), False)
               .add_extension(x509.SubjectAlternativeName(sans), subject is None)
               .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
               .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
                              False))
    return builder.sign(key, hashes.SHA256())


def case():
    with open(path("case"), encoding="ascii") as f:
        return f.read().strip()


CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


def certificate(server, order):
    """What is given for the order's CSR."""
    what, public, ident = case(), order["csr"].public_key(), order["identifier"]
    ca, sans, eku, more = server.root, [permanent(ident)], CLIENT, {}
    if what == "otherkey":
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
    elif what == "otherid":
        sans = [permanent("somebody-else")]
    elif what == "twoids":
        sans = [permanent(ident), permanent("somebody-else")]
    elif what == "noid":
        sans = [x509.DNSName(ident[:60])]
    elif what == "expired":
        more = {"begin": NOW() - 3 * HOUR, "end": NOW() - 2 * HOUR}
    elif what == "short":
        more = {"end": NOW() + datetime.timedelta(seconds=20)}
    elif what == "ancient":
        more = {"begin": datetime.datetime(1960, 1, 1)}
    elif what == "future":
        more = {"begin": NOW() + 48 * HOUR, "end": NOW() + 72 * HOUR}
    elif what == "wrongroot":
        ca = authority("root")
    elif what == "noeku":
        eku = ExtendedKeyUsageOID.CODE_SIGNING
    elif what == "isca":
        more = {"is_ca": True, "subject": name("a CA")}
    return pem(leaf(ca, public, sans, eku, **more))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, obj, kind="application/json", location=None):
        body = obj if isinstance(obj, bytes) else json.dumps(obj).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Replay-Nonce", base64.urlsafe_b64encode(os.urandom(18)).decode())
        if location:
            self.send_header("Location", location)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def problem(self, status, word):
        self.answer(status, {"type": "urn:ietf:params:acme:error:" + word, "detail": "as asked for"},
                    "application/problem+json")

    def url(self, at):
        return self.server.base + at

    def do_HEAD(self):
        self.answer(200, b"")

    def do_GET(self):
        if self.path != "/dir":
            return self.answer(200, b"")
        other = "https://other.example" if case() == "origin" else self.server.base
        self.answer(200, {"newNonce": self.url("/nonce"), "newAccount": self.url("/account"),
                          "newOrder": other + "/order"})

    def order_object(self, order):
        ident = "somebody-else" if case() == "otherorder" else order["identifier"]
        obj = {"status": order["status"],
               "identifiers": [{"type": "permanent-identifier", "value": ident}],
               "authorizations": [self.url("/authz/%d" % order["n"])],
               "finalize": self.url("/finalize/%d" % order["n"])}
        if order["status"] == "valid":
            obj["certificate"] = self.url("/cert/%d" % order["n"])
        return obj

    def challenge(self, order):
        return {"type": "http-01" if case() == "nochallenge" else "device-attest-01",
                "url": self.url("/challenge/%d" % order["n"]), "token": order["token"],
                "status": "valid" if order["status"] != "pending" else "pending"}

    def new_order(self, payload):
        if case() == "noidentifier":
            return self.problem(400, "unsupportedIdentifier")
        n = len(self.server.orders)
        order = {"n": n, "status": "pending", "identifier": payload["identifiers"][0]["value"],
                 "token": base64.urlsafe_b64encode(os.urandom(24)).decode()}
        self.server.orders.append(order)
        return self.answer(201, self.order_object(order), location=self.url("/order/%d" % n))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = unb64(body["payload"])
        payload = json.loads(text) if text else None
        noun, _, number = self.path[1:].partition("/")
        if noun == "account":
            return self.answer(201, {"status": "valid"}, location=self.url("/account/1"))
        if noun == "order" and not number:
            return self.new_order(payload)
        order = self.server.orders[int(number)]
        if noun == "authz":
            return self.answer(200, {
                "identifier": {"type": "permanent-identifier", "value": order["identifier"]},
                "status": "pending" if order["status"] == "pending" else "valid",
                "challenges": [self.challenge(order)]})
        if noun == "challenge":
            with open(path("seen"), "a", encoding="ascii") as f:
                statement = unb64(payload["attObj"])
                f.write("%s %s\n" % (",".join(sorted(payload)), statement.hex()))
            order["status"] = "ready"
            return self.answer(200, self.challenge(order))
        if noun == "finalize":
            order["csr"] = x509.load_der_x509_csr(unb64(payload["csr"]))
            order["status"] = "valid"
        if noun == "cert":
            kind = "text/html" if case() == "html" else "application/pem-certificate-chain"
            return self.answer(200, certificate(self.server, order), kind)
        return self.answer(200, self.order_object(order))


def make_ak():
    with open(sys.argv[3], "rb") as f:
        public = serialization.load_pem_public_key(f.read())
    with open(path("ak.key"), "rb") as f:
        key = serialization.load_pem_private_key(f.read(), None)
    with open(path("ak-ca.pem"), "rb") as f:
        cert = x509.load_pem_x509_certificate(f.read())
    days = float(sys.argv[5]) if len(sys.argv) > 5 else 7
    end = NOW() + days * 24 * HOUR
    with open(sys.argv[4], "wb") as f:
        f.write(pem(leaf((key, cert), public, [permanent("whoever")], AK_EKU,
                         begin=min(NOW(), end) - HOUR, end=end)))


def main():
    if sys.argv[2] == "ak":
        return make_ak()
    ak_key, ak_ca = authority("attestation CA")
    with open(path("ak-ca.pem"), "wb") as f:
        f.write(pem(ak_ca))
    with open(path("ak.key"), "wb") as f:
        f.write(ak_key.private_bytes(serialization.Encoding.PEM,
                                     serialization.PrivateFormat.PKCS8,
                                     serialization.NoEncryption()))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
    server.base = "https://127.0.0.1:" + sys.argv[2]
    server.root, server.orders = authority("root"), []
    key = ec.generate_private_key(ec.SECP256R1())
    import ipaddress
    tls = leaf(server.root, key.public_key(),
               [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))],
               ExtendedKeyUsageOID.SERVER_AUTH, subject=name("server"))
    with open(path("tls.pem"), "wb") as f:
        f.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                  serialization.NoEncryption()) + pem(tls))
    with open(path("root.tmp"), "wb") as f:
        f.write(pem(server.root[1]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path("tls.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    os.rename(path("root.tmp"), path("root.pem"))
    server.serve_forever()


main()
