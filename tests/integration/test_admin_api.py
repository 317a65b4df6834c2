#!/usr/bin/env python3
"""The admin API over HTTPS against a real attest-issuerd: client certificates of a CA with a revocation list, tokens of
an OpenID provider that serves its keys over TLS, roles with scopes, four eyes over both transports, attestctl as the
client, and everything that must be refused, by the reason that it is refused for."""
import base64
import datetime
import hashlib
import hmac
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    print("python3-cryptography is missing")
    sys.exit(77)

BINS = os.environ.get("ATT_BIN_DIR", "build/bin")
ISSUERD = os.path.join(BINS, "attest-issuerd")
CTL = os.path.join(BINS, "attestctl")
FAILED = []
COUNT = 0
EK = [hashlib.sha256(b"host %d" % i).hexdigest() for i in range(8)]
TD = "bank.example"


def check(what, ok, found=""):
    global COUNT
    COUNT += 1
    if not ok:
        FAILED.append(what)
        print(f"FAILED {what}: {found}")


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def dump(obj):
    return json.dumps(obj, separators=(",", ":")).encode()


def write(path, data):
    """In one step, so that nobody reads a part."""
    with open(path + ".new", "wb") as f:
        f.write(data)
    os.rename(path + ".new", path)


# ---- certificates -----------------------------------------------------------------------------------------------------

def utc(days):
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None) + datetime.timedelta(days=days)


def name_of(cn, org="Bank"):
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, org), x509.NameAttribute(NameOID.COMMON_NAME, cn)])


class CA:
    def __init__(self, directory, name, org="Bank"):
        self.dir, self.name = directory, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = name_of(name, org)
        self.cert = (x509.CertificateBuilder().subject_name(subject).issuer_name(subject)
                     .public_key(self.key.public_key()).serial_number(x509.random_serial_number())
                     .not_valid_before(utc(-10)).not_valid_after(utc(3000))
                     .add_extension(x509.BasicConstraints(True, 0), critical=True)
                     .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False),
                                    critical=True)
                     .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
                     .sign(self.key, hashes.SHA256()))
        self.pem = f"{directory}/{name}.pem"
        write(self.pem, self.cert.public_bytes(serialization.Encoding.PEM))

    def issue(self, who, eku=ExtendedKeyUsageOID.CLIENT_AUTH, days=(-1, 30), uri=None, ip=None, subject=None):
        key = ec.generate_private_key(ec.SECP256R1())
        b = (x509.CertificateBuilder().subject_name(name_of(who) if subject is None else subject).issuer_name(self.cert.subject)
             .public_key(key.public_key()).serial_number(x509.random_serial_number())
             .not_valid_before(utc(days[0])).not_valid_after(utc(days[1]))
             .add_extension(x509.BasicConstraints(False, None), critical=True)
             .add_extension(x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True)
             .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                 self.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value), critical=False)
             .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False))
        if eku:
            b = b.add_extension(x509.ExtendedKeyUsage(eku if isinstance(eku, list) else [eku]), critical=False)
        names = [x509.UniformResourceIdentifier(uri)] if uri else []
        if ip:
            import ipaddress
            names.append(x509.IPAddress(ipaddress.ip_address(ip)))
        if names:
            b = b.add_extension(x509.SubjectAlternativeName(names), critical=subject is not None)
        cert = b.sign(self.key, hashes.SHA256())
        stem = f"{self.dir}/{self.name}-{who}-{len(os.listdir(self.dir))}"
        write(stem + ".crt", cert.public_bytes(serialization.Encoding.PEM))
        write(stem + ".key", key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                               serialization.NoEncryption()))
        return cert, stem + ".crt", stem + ".key"

    def crl(self, revoked=(), days=(-1, 5)):
        b = (x509.CertificateRevocationListBuilder().issuer_name(self.cert.subject)
             .last_update(utc(days[0])).next_update(utc(days[1]))
             .add_extension(x509.CRLNumber(int(time.time() * 1000)), critical=False)
             .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False))
        for cert in revoked:
            b = b.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(cert.serial_number)
                                          .revocation_date(utc(-0.5)).build())
        write(f"{self.dir}/{self.name}.crl",
              b.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return f"{self.dir}/{self.name}.crl"


# ---- an OpenID provider -------------------------------------------------------------------------------------------------

class Key:
    def __init__(self, kid, kind="ec"):
        self.kid, self.kind = kid, kind
        self.key = (rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1()))
        n = self.key.public_key().public_numbers()
        self.jwk = ({"kty": "RSA", "e": b64(n.e.to_bytes(3, "big")), "n": b64(n.n.to_bytes(256, "big"))}
                    if kind == "rsa" else {"kty": "EC", "crv": "P-256", "x": b64(n.x.to_bytes(32, "big")),
                                           "y": b64(n.y.to_bytes(32, "big"))})
        self.jwk.update({"kid": kid, "use": "sig"})

    def sign(self, alg, data):
        if alg == "none":
            return b""
        if alg == "HS256":  # the public key as if it were a secret
            pem = self.key.public_key().public_bytes(serialization.Encoding.PEM,
                                                     serialization.PublicFormat.SubjectPublicKeyInfo)
            return hmac.new(pem, data, hashlib.sha256).digest()
        if self.kind == "rsa":
            pad = (padding.PSS(padding.MGF1(hashes.SHA256()), 32) if alg == "PS256" else padding.PKCS1v15())
            return self.key.sign(data, pad, hashes.SHA256())
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class Provider:
    def __init__(self, ca):
        _, crt, key = ca.issue("idp", ExtendedKeyUsageOID.SERVER_AUTH, ip="127.0.0.1")
        self.keys = [Key("k1"), Key("r1", "rsa")]
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                doc = {"issuer": outer.url, "jwks_uri": outer.url + "/keys"}
                if self.path == "/keys":
                    outer.asked += 1
                    doc = {"keys": [k.jwk for k in outer.keys]}
                elif self.path != "/.well-known/openid-configuration":
                    self.send_error(404)
                    return
                body = dump(doc)
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(crt, key)
        self.server.socket = ctx.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, sub="alice", key=None, alg=None, header=None, drop=(), **claims):
        key = key or self.keys[0]
        alg = alg or ("RS256" if key.kind == "rsa" else "ES256")
        now = int(time.time())
        body = {"iss": self.url, "sub": sub, "aud": "attestd-admin", "iat": now, "exp": now + 600, "tid": "bank"}
        body.update(claims)
        head = {"alg": alg, "typ": "JWT", "kid": key.kid}
        head.update(header or {})
        for d in drop:
            body.pop(d, None)
            head.pop(d, None)
        data = f"{b64(dump(head))}.{b64(dump(body))}".encode()
        return data.decode() + "." + b64(key.sign(alg, data))


# ---- the issuer -----------------------------------------------------------------------------------------------------------

class Issuer:
    def __init__(self, directory):
        self.dir = directory
        os.mkdir(f"{directory}/ek")
        CA(f"{directory}/ek", "maker")
        self.ca = CA(directory, "staff")
        self.ca.crl()
        self.idp = Provider(CA(directory, "idp-ca"))
        self.config = f"{directory}/issuer.yaml"
        self.write_config()
        subprocess.run([ISSUERD, "--config", self.config, "init"], check=True, stdout=subprocess.DEVNULL)
        self.start()

    def write_config(self, more="", crl=None):
        iss = self.idp.url
        write(self.config, f"""trust_domain: {TD}
listen: "127.0.0.1:0"
url: "https://127.0.0.1:8443/acme"
state_dir: {self.dir}/state
run_dir: {self.dir}/run
policies_dir: {self.dir}/policies
control_group: none
log: json
ek: {{ roots_dir: {self.dir}/ek }}
enrolment: {{ boot: none, pcrs: "sha256:0,7", ek: certificate, ak_lifetime: 7d }}
profiles:
  - {{ name: trading, description: one, lifetime: 1h, keys: [tpm], boot: none, pcrs: "sha256:0,7" }}
admin:
  listen: "127.0.0.1:0"
  client_ca_file: {self.dir}/staff.pem
  client_crl_file: {crl or self.dir + "/staff.crl"}
  agents: true
  oidc:
    - issuer: {iss}
      audience: attestd-admin
      algs: [ES256, RS256, PS256]
      ca_file: {self.dir}/idp-ca.pem
      claims: ["tid=bank"]
      leeway: 5s
  people:
    - {{ name: alice, ids: ["uid:{os.getuid()}", "x509:CN=alice,O=Bank", "oidc:{iss}#alice"] }}
  bindings:
    - {{ principals: ["person:alice"], roles: [registrar, approver, revoker] }}
    - {{ principals: ["x509:CN=bob,O=Bank", "oidc:{iss}#bob"], roles: [approver, revoker] }}
    - {{ principals: ["x509:CN=hosts,O=Bank"], roles: [registrar, approver, revoker], labels: ["zone=trading"] }}
    - {{ principals: ["x509:CN=agents,O=Bank"], roles: [registrar, revoker], paths: ["spiffe://{TD}/agent/trading-*"],
        labels: ["zone=trading"] }}
    - {{ principals: ["oidc:{iss}#repo:bank/*"], roles: [registrar] }}
    - {{ principals: ["x509:CN=carol,O=Bank"], roles: [auditor] }}
{more}""".encode())

    def start(self):
        self.log = f"{self.dir}/log"
        self.process = subprocess.Popen([ISSUERD, "--config", self.config], stderr=open(self.log, "ab"))
        self.port = self.wait("admin.listening")["port"]
        self.wait("issuer.ready")
        self.root = f"{self.dir}/state/ca/tls-root.pem"

    def lines(self):
        with open(self.log, errors="replace") as f:
            for line in f:
                try:
                    yield json.loads(line)
                except ValueError:
                    pass

    def wait(self, event, count=1, **match):
        deadline = time.time() + 120
        while time.time() < deadline:
            found = [x for x in self.lines() if x.get("event") == event
                     and all(x.get(k) == v for k, v in match.items())]
            if len(found) >= count:
                return found[-1]
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise SystemExit(f"no {event} in the log: " + open(self.log, errors="replace").read()[-3000:])

    def sock(self, op, **args):
        s = socket.socket(socket.AF_UNIX)
        s.connect(f"{self.dir}/run/admin.sock")
        body = dump({"op": op, "args": args})
        s.sendall(struct.pack(">I", len(body)) + body)
        f = s.makefile("rb")
        reply = json.loads(f.read(struct.unpack(">I", f.read(4))[0]))
        s.close()
        return reply

    def context(self, cert=None):
        ctx = ssl.create_default_context(cafile=self.root)
        if cert:
            ctx.load_cert_chain(cert[1], cert[2])
        return ctx

    def raw(self, body, cert=None, token=None, method="POST", path="/admin/v1", content="application/json"):
        c = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context(cert), timeout=120)
        headers = {"Content-Type": content} if content else {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}" if " " not in token else token
        c.request(method, path, body, headers)
        r = c.getresponse()
        data = r.read()
        c.close()
        return r, json.loads(data)

    def call(self, op, cert=None, token=None, rid=None, **args):
        body = dump({"op": op, "args": args, "id": rid or b64(os.urandom(16))})
        for _ in range(100):
            r, answer = self.raw(body, cert, token)
            if r.status != 503:
                break
            time.sleep(0.2)  # the provider's keys are being fetched
        return r.status, answer

    def refused(self, what, status, reason, answer):
        found, body = answer
        check(what, found == status and not body["ok"] and body["error"]["reason"] == reason, answer)

    def records(self, kind):
        return [r["record"] for r in self.sock("audit.list", kind=kind, limit=1000)["result"]["records"]]


def csv(*lines):
    return "ek,label,labels\n" + "".join(line + "\n" for line in lines)


def entry(name, hosts="label:zone=trading"):
    return (f"trust_domain: {TD}\nagents:\n  - {{name: {name}, owner: o@x, hosts: ['{hosts}'], workload: {{uid: 1}}, "
            "key: tpm, profile: trading}\n")


# ---- tests ---------------------------------------------------------------------------------------------------------------

def test_certificates(i):
    ca, good = i.ca, i.ca.issue("carol")
    status, body = i.call("status", good)
    check("a good certificate", status == 200 and body["result"]["trustDomain"] == TD, body)
    i.refused("no certificate", 401, "certMissing", i.call("status"))
    i.refused("a foreign CA's", 401, "certUntrusted", i.call("status", CA(i.dir, "foreign").issue("carol")))
    i.refused("the same name under another root", 401, "certUntrusted",
              i.call("status", CA(i.dir, "staff2", "Bank").issue("carol")))
    i.refused("expired", 401, "certExpired", i.call("status", ca.issue("carol", days=(-9, -1))))
    i.refused("not yet valid", 401, "certNotYet", i.call("status", ca.issue("carol", days=(1, 9))))
    i.refused("a server's", 401, "certPurpose", i.call("status", ca.issue("carol", ExtendedKeyUsageOID.SERVER_AUTH)))
    i.refused("without extended key usage", 401, "certPurpose", i.call("status", ca.issue("carol", None)))
    i.refused("a SPIFFE ID of our trust domain by the staff's CA", 401, "certName",
              i.call("status", ca.issue("carol", uri=f"spiffe://{TD}/agent/carol")))
    i.refused("no name at all", 401, "certName", i.call("status", ca.issue("x", subject=x509.Name([]))))
    i.refused("nobody bound", 403, "roleMissing", i.call("status", ca.issue("mallory")))
    i.refused("another organisation's alice", 403, "roleMissing",
              i.call("status", ca.issue("alice", subject=name_of("alice", "Other"))))
    i.refused("a certificate and a token", 401, "credentials", i.call("status", good, i.idp.token()))
    # Revoked: the list is replaced while the issuer runs, and on a connection that was good before.
    c = http.client.HTTPSConnection("127.0.0.1", i.port, context=i.context(good), timeout=120)

    def again():
        c.request("POST", "/admin/v1", dump({"op": "status"}), {"Content-Type": "application/json"})
        r = c.getresponse()
        return r.status, json.loads(r.read())

    check("kept connection", again()[0] == 200)
    ca.crl([good[0]])
    deadline = time.time() + 60
    while time.time() < deadline:
        answer = again()
        if answer[0] != 200:
            break
        time.sleep(0.2)
    i.refused("revoked, on a connection that was good", 401, "certRevoked", answer)
    c.close()
    other = ca.issue("carol")
    check("another of the same name", i.call("status", other)[0] == 200)
    ca.crl([], days=(-9, -1))
    deadline = time.time() + 60
    while time.time() < deadline:
        answer = i.call("status", other)
        if answer[0] != 200:
            break
        time.sleep(0.2)
    i.refused("a list that has ended", 401, "crlStale", answer)
    ca.crl([good[0]])
    deadline = time.time() + 60
    while time.time() < deadline and i.call("status", other)[0] != 200:
        time.sleep(0.2)
    i.carol, i.bob, i.alice = other, ca.issue("bob"), ca.issue("alice")
    i.hosts, i.agents = ca.issue("hosts"), ca.issue("agents")
    # By our own workload CA, but never issued: the store decides.
    key = serialization.load_pem_private_key(open(f"{i.dir}/state/ca/workload-ca.key", "rb").read(), None) \
        if os.path.exists(f"{i.dir}/state/ca/workload-ca.key") else None
    if key:
        forged = CA.__new__(CA)
        pem = open(f"{i.dir}/state/ca/workload-ca.crt", "rb").read()
        forged.dir, forged.name, forged.key, forged.cert = i.dir, "forged", key, x509.load_pem_x509_certificate(pem)
        cert = forged.issue("x", [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH], uri=f"spiffe://{TD}/agent/x", subject=x509.Name([]))
        with open(cert[1], "ab") as f:
            f.write(pem)
        i.refused("an agent's that the store does not know", 401, "certRevoked", i.call("status", cert))


def test_tls(i):
    for version, what in [(ssl.TLSVersion.TLSv1_2, "TLS 1.2")]:
        ctx = ssl.create_default_context(cafile=i.root)
        ctx.maximum_version = version
        try:
            ctx.wrap_socket(socket.create_connection(("127.0.0.1", i.port), 30), server_hostname="127.0.0.1")
            check(f"{what} is refused", False)
        except ssl.SSLError as e:
            check(f"{what} is refused", "VERSION" in str(e) or "version" in str(e), e)
    s = socket.create_connection(("127.0.0.1", i.port), 30)
    s.sendall(b"POST /admin/v1 HTTP/1.1\r\n\r\n")
    s.settimeout(60)
    try:
        said = s.recv(100)
    except OSError:
        said = b""
    check("HTTP in the clear gets no HTTP", not said.startswith(b"HTTP"), said)
    s.close()


def test_http(i):
    body = dump({"op": "status"})
    for what, want, kw in [("GET", 405, {"method": "GET"}), ("another path", 404, {"path": "/admin/v2"}),
                           ("text", 415, {"content": "text/plain"}), ("no type", 415, {"content": None})]:
        r, _ = i.raw(body, i.carol, **kw)
        check(f"{what}: {want}", r.status == want, r.status)
    for what, bad in [("not JSON", b"x"), ("an array", b"[]"), ("a member twice", b'{"op":"status","op":"status"}'),
                      ("an unknown member", dump({"op": "status", "as": "root"})), ("no op", b"{}"),
                      ("args of another type", dump({"op": "status", "args": []})),
                      ("a short id", dump({"op": "status", "id": "x"}))]:
        r, _ = i.raw(bad, i.carol)
        check(f"{what}: 400", r.status == 400, r.status)
    status, answer = i.call("x.y", i.carol)
    check("an unknown operation", status == 400 and answer["error"]["reason"] == "usage", answer)
    status, answer = i.call("host.list", i.carol, x=1)
    check("an unknown argument", status == 400 and answer["error"]["reason"] == "usage", answer)
    try:
        r, answer = i.raw(b"x" * (9 << 20), i.carol)
        check("9 MiB: 413", r.status == 413, r.status)
    except (OSError, ValueError, http.client.HTTPException):
        check("9 MiB: ended", True)


def test_tokens(i):
    idp = i.idp
    k, r = idp.keys
    for what, token in [("ES256", idp.token("bob")), ("RS256", idp.token("bob", r)), ("PS256", idp.token("bob", r, "PS256")),
                        ("an access token", idp.token("bob", header={"typ": "at+jwt"})),
                        ("one of several audiences", idp.token("bob", aud=["x", "attestd-admin"])),
                        ("a repository's", idp.token("repo:bank/infra:ref:refs/heads/main"))]:
        status, body = i.call("status", token=token)
        check(f"a token: {what}", status == 200, body)
    now = int(time.time())
    foreign = Key("k1")
    for what, reason, token in [
            ("alg none", "tokenAlg", idp.token(alg="none")),
            ("HS256 with the public key", "tokenAlg", idp.token(alg="HS256")),
            ("ES384", "tokenAlg", idp.token(header={"alg": "ES384"})),
            ("RS256 said of an EC key", "tokenAlg", idp.token(header={"alg": "RS256"})),
            ("ES256 said of an RSA key", "tokenAlg", idp.token(key=r, header={"alg": "ES256"})),
            ("PS256 said of PKCS #1 v1.5", "tokenSignature", idp.token(key=r, alg="RS256", header={"alg": "PS256"})),
            ("another key of the same kid", "tokenSignature", idp.token(key=foreign)),
            ("its own key in the header", "tokenSignature", idp.token(key=foreign, header={"jwk": foreign.jwk})),
            ("a kid that nobody has", "tokenKid", idp.token(header={"kid": "nobody"})),
            ("no kid", "tokenKid", idp.token(drop=["kid"])),
            ("crit", "tokenForm", idp.token(header={"crit": ["x"], "x": 1})),
            ("a logout token", "tokenForm", idp.token(header={"typ": "logout+jwt"})),
            ("another issuer", "tokenIssuer", idp.token(iss="https://evil.example")),
            ("no issuer", "tokenIssuer", idp.token(drop=["iss"])),
            ("another audience", "tokenAudience", idp.token(aud="somebody-else")),
            ("no audience", "tokenAudience", idp.token(drop=["aud"])),
            ("another tenant", "tokenClaim", idp.token(tid="other")),
            ("no tenant", "tokenClaim", idp.token(drop=["tid"])),
            ("expired", "tokenExpired", idp.token(exp=now - 60)),
            ("no exp", "tokenForm", idp.token(drop=["exp"])),
            ("not yet", "tokenNotYet", idp.token(nbf=now + 300)),
            ("made in the future", "tokenNotYet", idp.token(iat=now + 300)),
            ("for ever", "tokenLifetime", idp.token(exp=now + 10 * 86400)),
            ("no subject", "tokenSubject", idp.token(drop=["sub"])),
            ("not a token", "tokenForm", "x.y"),
            ("another scheme", "tokenForm", "Basic YTpi"),
            ("20 KiB", "tokenForm", idp.token(x="y" * 20000))]:
        i.refused(f"token: {what}", 401, reason, i.call("status", token=token))
    good = idp.token("bob")
    head, claims, sig = good.split(".")
    mine = b64(dump({**json.loads(base64.urlsafe_b64decode(claims + "==")), "sub": "alice"}))
    i.refused("token: changed claims", 401, "tokenSignature", i.call("status", token=f"{head}.{mine}.{sig}"))
    i.refused("token: somebody without a role", 403, "roleMissing", i.call("status", token=idp.token("mallory")))
    i.refused("token: a pattern's beginning only", 403, "roleMissing", i.call("status", token=idp.token("repo:bankrobbers/x")))
    # A new key is found, and strangers' kids make nobody fetch more than once in ten seconds.
    asked = idp.asked
    for n in range(20):
        i.raw(dump({"op": "status"}), token=idp.token(header={"kid": f"no-{n}"}))
    check("unknown kids fetch seldom", idp.asked - asked <= 2, idp.asked - asked)
    idp.keys.append(Key("k2"))
    deadline = time.time() + 60
    while time.time() < deadline:
        status, body = i.call("status", token=idp.token("bob", idp.keys[2]))
        if status == 200:
            break
        time.sleep(0.5)
    check("a rotated key", status == 200, body)


def test_roles(i):
    import_args = {"text": csv(f"{EK[0]},h0,zone=trading"), "filename": "hosts.csv"}
    for what, op, cert, args in [
            ("an auditor registers", "host.import", i.carol, import_args),
            ("an auditor revokes", "cert.revoke", i.carol, {"serial": "00"}),
            ("an approver registers", "entry.apply", i.bob, {"text": entry("trading-a")}),
            ("an approver reads the audit log", "audit.list", i.bob, {}),
            ("a registrar erases records", "audit.erase", i.alice, {"seq": 1, "reason": "x"}),
            ("a registrar of agents approves", "host.approve", i.agents, {"id": EK[0]}),
            ("an approver is no registrar of tickets", "ticket.create", i.bob, {})]:
        i.refused(what, 403, "roleMissing", i.call(op, cert, **args))
    for what, op, cert, args in [
            ("hosts of another label", "host.import", i.hosts, {"text": csv(f"{EK[1]},h1,zone=retail")}),
            ("hosts without labels", "host.import", i.hosts, {"text": csv(f"{EK[1]},h1,")}),
            ("agents by one who has hosts", "entry.apply", i.hosts, {"text": entry("trading-a")}),
            ("hosts by one who has agents", "host.import", i.agents, {"text": csv(f"{EK[1]},h1,zone=trading")}),
            ("an agent of another name", "entry.apply", i.agents, {"text": entry("retail-a")}),
            ("an agent on others' hosts", "entry.apply", i.agents, {"text": entry("trading-a", "label:zone=retail")}),
            ("an agent on a host by its EK", "entry.apply", i.agents, {"text": entry("trading-a", "ek:" + EK[1])}),
            ("tickets with a scope", "ticket.create", i.hosts, {}),
            ("all certificates with a scope", "cert.renew", i.hosts, {"all": True, "reason": "x"}),
            ("a boot policy with a scope", "policy.mode", i.agents, {"profile": "trading", "mode": "warn"})]:
        i.refused(f"out of scope: {what}", 403, "roleScope", i.call(op, cert, **args))
    status, body = i.call("host.import", i.hosts, text=csv(f"{EK[1]},h1,zone=trading"), dryRun=True)
    check("in scope: hosts, dry", status == 200 and body["result"]["added"] == [EK[1]], body)
    status, body = i.call("entry.apply", i.agents, text=entry("trading-a"), dryRun=True)
    check("in scope: an agent, dry", status == 200 and body["result"]["added"] == ["trading-a"], body)
    check("an auditor reads", i.call("audit.list", i.carol)[0] == 200)
    recorded = [r for r in i.records("admin") if r.get("principal") == "x509:CN=carol,O=Bank"]
    check("refusals are recorded with who and what", any(
        r["outcome"] == "refused" and r["reason"] == "roleMissing" and r["subject"] == "host.import"
        and r["address"] == "127.0.0.1" for r in recorded), recorded)
    strangers = [r for r in i.records("admin") if "principal" in r and not r["principal"]]
    check("strangers, too, but not for ever", 0 < len(strangers) <= 32, len(strangers))


def propose(i, what, **how):
    status, body = i.call(what.pop("op"), **how, **what)
    check("a proposal", status == 200 and "proposal" in body["result"], body)
    return body["result"].get("proposal", {}).get("id", "none")


def test_four_eyes(i):
    line = csv(f"{EK[0]},h0,zone=trading")
    p = propose(i, {"op": "host.import", "text": line, "filename": "hosts.csv"}, token=i.idp.token("alice"))
    check("nothing is registered yet", i.sock("host.list")["result"]["hosts"] == [])
    i.refused("alice approves her own, by token", 409, "fourEyes",
              i.call("proposal.approve", token=i.idp.token("alice"), id=p))
    i.refused("alice by certificate", 409, "fourEyes", i.call("proposal.approve", i.alice, id=p))
    reply = i.sock("proposal.approve", id=p)
    check("alice over the socket", not reply["ok"] and reply["error"]["reason"] == "fourEyes", reply)
    i.refused("an auditor approves it", 403, "roleMissing", i.call("proposal.approve", i.carol, id=p))
    i.refused("a registrar alone", 403, "roleMissing", i.call("proposal.approve", i.agents, id=p))
    status, body = i.call("proposal.show", i.bob, id=p)
    check("what it would do", body["result"].get("effect", {}).get("added") == [EK[0]]
          and body["result"]["stale"] is False and body["result"]["by"] == "person:alice", body)
    status, body = i.call("proposal.approve", i.bob, id=p)
    check("bob approves", status == 200 and body["result"]["added"] == [EK[0]], body)
    i.refused("twice", 409, "proposalClosed", i.call("proposal.approve", i.bob, id=p))
    done = [r for r in i.records("host") if r.get("detail") == "imported"]
    check("the record names both", len(done) == 1 and done[0]["principal"] == "x509:CN=bob,O=Bank"
          and done[0]["proposedBy"] == "person:alice", done)
    # Whoever registered it does not approve it later either, by whatever door.
    i.refused("the registrar relabels", 409, "fourEyes", i.call("host.approve", i.alice, id=EK[0]))
    i.refused("the approver relabels alone", 409, "fourEyes",
              i.call("host.approve", i.bob, id=EK[0], labels={"zone": "retail"}))
    # Over the socket a proposal, too; what changed meanwhile makes it stale.
    reply = i.sock("entry.apply", text=entry("trading-a"), filename="e.yaml")
    first = reply["result"]["proposal"]["id"]
    check("a proposal over the socket", reply["result"]["proposal"]["by"] == "person:alice", reply)
    second = propose(i, {"op": "entry.apply", "text": entry("trading-a").replace("o@x", "p@x")}, cert=i.agents)
    status, body = i.call("proposal.approve", i.bob, id=second)
    check("the pipeline's first", status == 200 and body["result"]["added"] == ["trading-a"], body)
    i.refused("stale", 409, "proposalStale", i.call("proposal.approve", i.bob, id=first))
    status, body = i.call("proposal.reject", i.bob, id=first, reason="old")
    check("rejected", status == 200 and body["result"]["proposal"]["state"] == "rejected", body)
    # An approver of a label, and hosts of another.
    p = propose(i, {"op": "host.import", "text": csv(f"{EK[2]},h2,zone=retail")}, cert=i.alice)
    i.refused("an approver of other hosts", 403, "roleScope", i.call("proposal.approve", i.hosts, id=p))
    check("nothing half done", all(h["id"] != EK[2] for h in i.sock("host.list")["result"]["hosts"]))
    # Who lost the role meanwhile has proposed nothing.
    p = propose(i, {"op": "entry.apply", "text": entry("trading-b")}, token=i.idp.token("repo:bank/infra:x"))
    i.write_config()
    text = open(i.config).read().replace("#repo:bank/*", "#repo:bonk/*")
    write(i.config, text.encode())
    reload(i)
    i.refused("a proposer who may not any more", 403, "roleMissing", i.call("proposal.approve", i.bob, id=p))
    i.write_config()
    reload(i)


def reload(i):
    n = len([x for x in i.lines() if x.get("event") == "reload.done"])
    i.process.send_signal(signal.SIGHUP)
    i.wait("reload.done", n + 1)


def test_requests(i):
    rid = b64(os.urandom(16))
    status, body = i.call("ticket.create", i.alice, rid=rid)
    check("a ticket", status == 200 and body["result"]["ticket"]["macKey"], body)
    i.refused("the same request again", 409, "requestDone", i.call("ticket.create", i.alice, rid=rid))
    i.refused("by the same person's token", 409, "requestDone",
              i.call("ticket.create", token=i.idp.token("alice"), rid=rid))
    r, body = i.raw(dump({"op": "ticket.create"}), i.alice)
    check("a change without an id", r.status == 400 and body["error"]["reason"] == "usage", body)
    ban = b64(os.urandom(16))
    i.refused("one that is refused", 404, "hostUnknown", i.call("host.evict", i.alice, rid=ban, id="nobody"))
    status, body = i.call("host.ban", i.alice, rid=ban, id=EK[3], reason="lost")
    check("is not spent", status == 200 and body["result"]["state"] == "banned", body)
    banned = [r for r in i.records("host") if r.get("detail") == "banned"]
    check("a ban's record", banned and banned[-1]["person"] == "alice"
          and banned[-1]["principal"] == "x509:CN=alice,O=Bank", banned)
    i.refused("a ban out of scope", 403, "roleScope", i.call("host.ban", i.hosts, id=EK[4], reason="x"))
    status, body = i.call("host.ban", i.hosts, id=EK[0], reason="x")
    check("a ban in scope", status == 200, body)


def ctl(i, *words, cert=None, token=None, more=()):
    args = [CTL, "--issuer", f"https://127.0.0.1:{i.port}", "--cacert", i.root]
    args += ["--cert", cert[1], "--key", cert[2]] if cert else []
    if token:
        write(f"{i.dir}/token", token.encode() + b"\n")
        args += ["--token-file", f"{i.dir}/token"]
    return subprocess.run([*args, *more, *words], capture_output=True, text=True, timeout=300)


def test_attestctl(i):
    over_socket = subprocess.run([CTL, "--issuer", f"{i.dir}/run/admin.sock", "--json", "host", "list"],
                                 capture_output=True, text=True)
    by_cert = ctl(i, "--json", "host", "list", cert=i.carol)
    by_token = ctl(i, "host", "list", "--json", token=i.idp.token("bob"))
    check("the same JSON over all three", over_socket.stdout == by_cert.stdout == by_token.stdout != ""
          and by_cert.returncode == by_token.returncode == 0, (over_socket, by_cert, by_token))
    # Pages, as over the socket: each host once; wrong limits and cursors by name.
    whole = [h["id"] for h in json.loads(by_cert.stdout)["hosts"]]
    seen, after = [], {}
    while True:
        status, answer = i.call("host.list", i.carol, limit=1, **after)
        page = answer["result"]
        seen += [h["id"] for h in page["hosts"]]
        if status != 200 or "next" not in page:
            break
        after = {"after": page["next"]}
    check("pages over HTTPS", status == 200 and seen == whole and len(whole) > 1, (seen, whole))
    i.refused("a limit of none over HTTPS", 400, "usage", i.call("host.list", i.carol, limit=0))
    i.refused("a cursor that is none over HTTPS", 400, "usage", i.call("host.list", i.carol, after="x"))
    one = ctl(i, "--json", "host", "list", "--limit", "1", "--after", whole[0], cert=i.carol)
    check("attestctl --after over HTTPS", one.returncode == 0 and [h["id"] for h in json.loads(one.stdout)["hosts"]] == whole[1:2], one)
    for what, code, word, run in [
            ("nobody", 4, "certMissing", ctl(i, "host", "list")),
            ("no role", 4, "roleMissing", ctl(i, "host", "ban", EK[0], "--reason", "x", cert=i.carol)),
            ("refused", 1, "hostUnknown", ctl(i, "host", "show", "nobody", cert=i.carol)),
            ("two credentials", 1, "usage", ctl(i, "host", "list", cert=i.carol, token="x")),
            ("no key", 1, "usage", ctl(i, "host", "list", more=["--cert", i.carol[1]])),
            ("usage", 2, "usage", ctl(i, "host", "approve", cert=i.carol)),
            ("a server that is not ours", 1, "issuerTls", subprocess.run(
                [CTL, "--issuer", f"https://127.0.0.1:{i.port}", "--cacert", f"{i.dir}/staff.pem", "host", "list"],
                capture_output=True, text=True)),
            ("nobody there", 3, "", subprocess.run(
                [CTL, "--issuer", "https://127.0.0.1:1", "--cacert", i.root, "host", "list"],
                capture_output=True, text=True))]:
        check(f"attestctl: {what}", run.returncode == code and word in run.stderr, run)
    rid = b64(os.urandom(16))
    one = ctl(i, "--json", "ticket", "create", cert=i.alice, more=["--request-id", rid])
    two = ctl(i, "--json", "ticket", "create", cert=i.alice, more=["--request-id", rid])
    check("attestctl --request-id", one.returncode == 0 and two.returncode == 1 and "requestDone" in two.stderr, two)


def test_limits(i):
    # Connections that say nothing, and one that trickles: others are served meanwhile.
    quiet = [socket.create_connection(("127.0.0.1", i.port), 30) for _ in range(300)]
    deadline, status, slow = time.time() + 120, 0, None
    while time.time() < deadline and not slow:
        try:  # among so many, one that says nothing for a moment may be ended
            slow = i.context(i.carol).wrap_socket(socket.create_connection(("127.0.0.1", i.port), 30),
                                                  server_hostname="127.0.0.1")
            slow.sendall(b"POST /admin/v1 HTTP/1.1\r\nHost: x\r\n")
        except OSError:
            slow = None
            time.sleep(0.1)
    while time.time() < deadline and status != 200:
        try:
            status = i.call("status", i.carol)[0]
        except OSError:
            time.sleep(0.5)
    check("served beside 300 idle connections", status == 200, status)
    # Who leaves before his answer takes nobody with him.
    body = dump({"op": "audit.list", "args": {"limit": 1000}})
    ctx = i.context(i.carol)
    for n in range(60):
        try:
            s = ctx.wrap_socket(socket.create_connection(("127.0.0.1", i.port), 30), server_hostname="127.0.0.1")
            s.sendall(b"POST /admin/v1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                      b"Content-Length: %d\r\n\r\n" % len(body) + body)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
        except OSError:
            pass
    status, deadline = 0, time.time() + 60
    while time.time() < deadline and status != 200:
        try:
            status = i.call("status", i.carol)[0]
        except OSError:
            time.sleep(0.5)
    check("served after clients that left", status == 200 and i.process.poll() is None, status)
    for s in [*quiet, slow]:
        s.close()


def test_check(i):
    bad = [("an unknown role", 'roles: [auditor]', 'roles: [auditer]'),
           ("a star that is not the end", '#repo:bank/*"', '#*repo"'),
           ("everybody", '"x509:CN=carol,O=Bank"', '"*"'),
           ("nobody's person", 'person:alice', 'person:alise'),
           ("a path of another domain", f'spiffe://{TD}/agent/trading', 'spiffe://other.example/agent/trading'),
           ("an unknown algorithm", 'algs: [ES256, RS256, PS256]', 'algs: [HS256]'),
           ("a leeway of an hour", 'leeway: 5s', 'leeway: 1h'),
           ("a label without a value", 'labels: ["zone=trading"]', 'labels: ["zone"]'),
           ("two sources of keys", '      audience:', f'      jwks_file: {i.dir}/x\n      audience:')]
    good = open(i.config).read()
    line_of = {t: good[:good.index(t)].count("\n") + 1 for _, t, _ in bad}
    for what, old, new in bad:
        write(f"{i.dir}/bad.yaml", good.replace(old, new, 1).encode())
        run = subprocess.run([ISSUERD, "--config", f"{i.dir}/bad.yaml", "--check"], capture_output=True, text=True)
        near = [f"bad.yaml:{line_of[old] + d}:" for d in (-2, -1, 0, 1)]
        check(f"--check: {what}", run.returncode == 1 and any(n in run.stderr for n in near), (near, run.stderr))
    run = subprocess.run([ISSUERD, "--config", i.config, "--check"], capture_output=True, text=True)
    check("--check: good", run.returncode == 0, run.stderr)


def main():
    directory = tempfile.mkdtemp(prefix="admin-api-")
    os.chmod(directory, 0o755)
    i = None
    try:
        i = Issuer(directory)
        for test in [test_certificates, test_tls, test_http, test_tokens, test_roles, test_four_eyes, test_requests,
                     test_attestctl, test_limits, test_check]:
            started = time.time()
            test(i)
            print(f"{test.__name__}: {time.time() - started:.1f} s")
        check("audit.verify", i.sock("audit.verify")["ok"])
        i.process.send_signal(signal.SIGTERM)
        check("SIGTERM ends it with 0", i.process.wait(60) == 0)
    finally:
        if i and i.process.poll() is None:
            i.process.kill()
            i.process.wait()
        if FAILED and os.path.exists(f"{directory}/log"):
            print(open(f"{directory}/log", errors="replace").read()[-6000:])
        shutil.rmtree(directory)
    print(f"{COUNT - len(FAILED)} of {COUNT} checks hold")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
