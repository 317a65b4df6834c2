#!/usr/bin/env python3
"""A hostile ACME client against a real attest-issuerd over TLS 1.3: nonces, accounts, EAB, orders,
and everything that must be refused. Raw JWS, so that wrong ones can be made."""
import base64
import hashlib
import hmac
import http.client
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
    from cryptography.x509.oid import NameOID
except ImportError:
    print("python3-cryptography is missing")
    sys.exit(77)

BIN = os.path.join(os.environ.get("ATT_BIN_DIR", "build/bin"), "attest-issuerd")
FAILED = []
COUNT = 0


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


class Key:
    def __init__(self, kind="ec"):
        self.kind = kind
        self.key = (rsa.generate_private_key(65537, 2048) if kind == "rsa"
                    else ec.generate_private_key(ec.SECP256R1()))
        n = self.key.public_key().public_numbers()
        if kind == "rsa":
            self.alg = "RS256"
            self.jwk = {"e": b64(n.e.to_bytes(3, "big")), "kty": "RSA",
                        "n": b64(n.n.to_bytes(256, "big"))}
        else:
            self.alg = "ES256"
            self.jwk = {"crv": "P-256", "kty": "EC", "x": b64(n.x.to_bytes(32, "big")),
                        "y": b64(n.y.to_bytes(32, "big"))}

    def sign(self, data):
        if self.kind == "rsa":
            return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self.key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class Issuer:
    def __init__(self, directory):
        self.dir = directory
        probe = socket.socket()
        probe.bind(("127.0.0.1", 0))
        self.port = probe.getsockname()[1]
        probe.close()
        self.base = f"https://127.0.0.1:{self.port}/acme"
        os.mkdir(f"{directory}/ek")
        self.make_root()
        self.config = f"{directory}/issuer.yaml"
        self.write_config("1h")
        subprocess.run([BIN, "--config", self.config, "init"], check=True)
        again = subprocess.run([BIN, "--config", self.config, "init"], stderr=subprocess.DEVNULL)
        check("a second init is refused", again.returncode == 1, again.returncode)
        subprocess.run([BIN, "--config", self.config, "--check"], check=True,
                       stdout=subprocess.DEVNULL)
        self.start()
        self.ctx = ssl.create_default_context(cafile=f"{directory}/state/ca/tls-root.pem")

    def make_root(self):
        key = ec.generate_private_key(ec.SECP256R1())
        import datetime
        now = datetime.datetime(2026, 1, 1)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A maker")])
        cert = (x509.CertificateBuilder().subject_name(name).issuer_name(name)
                .public_key(key.public_key()).serial_number(7).not_valid_before(now)
                .not_valid_after(now + datetime.timedelta(days=36500))
                .add_extension(x509.BasicConstraints(True, None), critical=True)
                .sign(key, hashes.SHA256()))
        with open(f"{self.dir}/ek/root.pem", "wb") as f:
            f.write(cert.public_bytes(serialization.Encoding.PEM))

    def write_config(self, lifetime):
        with open(self.config, "w") as f:
            f.write(f"""trust_domain: bank.example
listen: "127.0.0.1:{self.port}"
url: "{self.base}"
state_dir: {self.dir}/state
run_dir: {self.dir}/run
policies_dir: {self.dir}/policies
control_group: none
log: json
ek: {{ roots_dir: {self.dir}/ek }}
enrolment: {{ boot: none, pcrs: "sha256:0,7", ek: certificate, ak_lifetime: 7d }}
profiles:
  - {{ name: trading, description: one, lifetime: {lifetime}, keys: [tpm], boot: none, pcrs: "sha256:0,7" }}
""")

    def start(self):
        self.log = open(f"{self.dir}/log", "ab")
        self.process = subprocess.Popen([BIN, "--config", self.config], stderr=self.log)
        for _ in range(1200):
            if os.path.exists(f"{self.dir}/run/admin.sock"):
                try:
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                    return
                except OSError:
                    pass
            time.sleep(0.1)
        raise SystemExit("the issuer did not start: " + open(f"{self.dir}/log").read())

    def admin(self, op, **args):
        s = socket.socket(socket.AF_UNIX)
        s.connect(f"{self.dir}/run/admin.sock")
        body = dump({"op": op, "args": args})
        s.sendall(struct.pack(">I", len(body)) + body)
        f = s.makefile("rb")
        size = struct.unpack(">I", f.read(4))[0]
        reply = json.loads(f.read(size))
        s.close()
        return reply

    def http(self, method, path, body=None, headers=None):
        c = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.ctx, timeout=30)
        c.request(method, path, body, headers or {})
        r = c.getresponse()
        data = r.read()
        c.close()
        return r, data

    def nonce(self):
        r, _ = self.http("HEAD", "/acme/newNonce")
        return r.getheader("Replay-Nonce")


class Client:
    def __init__(self, issuer, kind="ec"):
        self.issuer, self.key, self.kid = issuer, Key(kind), None

    def jws(self, target, payload, **changes):
        header = {"alg": self.key.alg, "nonce": self.issuer.nonce(), "url": target}
        if self.kid:
            header["kid"] = self.kid
        else:
            header["jwk"] = self.key.jwk
        header.update(changes)
        header = {k: v for k, v in header.items() if v is not None}
        p = b64(dump(header))
        b = b64(payload if isinstance(payload, bytes) else dump(payload))
        return {"protected": p, "payload": b,
                "signature": b64(self.key.sign(f"{p}.{b}".encode()))}

    def send(self, url, body, content="application/jose+json"):
        path = url[len(self.issuer.base) - len("/acme"):]
        raw = body if isinstance(body, bytes) else dump(body)
        r, data = self.issuer.http("POST", path, raw, {"Content-Type": content})
        try:
            out = json.loads(data)
        except ValueError:
            out = {}
        return r, out

    def post(self, noun, payload, **changes):
        url = noun if noun.startswith("https") else f"{self.issuer.base}/{noun}"
        return self.send(url, self.jws(url, payload, **changes))

    def eab(self, ticket):
        p = b64(dump({"alg": "HS256", "kid": ticket["kid"], "url": f"{self.issuer.base}/newAccount"}))
        b = b64(dump(self.key.jwk))
        mac = base64.urlsafe_b64decode(ticket["macKey"] + "=")
        return {"protected": p, "payload": b,
                "signature": b64(hmac.new(mac, f"{p}.{b}".encode(), hashlib.sha256).digest())}

    def register(self, ticket):
        r, body = self.post("newAccount", {"termsOfServiceAgreed": True,
                                           "externalAccountBinding": self.eab(ticket)})
        if r.status in (200, 201):
            self.kid = r.getheader("Location")
        return r, body


def error(body):
    return body.get("type", "").rsplit(":", 1)[-1]


def reason(body):
    return body.get("subproblems", [{}])[0].get("type", "").rsplit(":", 1)[-1]


def ticket(issuer, **args):
    reply = issuer.admin("ticket.create", **args)
    check("ticket.create", reply["ok"], reply)
    return reply["result"]["ticket"]


def test_tls(issuer):
    old = ssl.create_default_context(cafile=f"{issuer.dir}/state/ca/tls-root.pem")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        with socket.create_connection(("127.0.0.1", issuer.port)) as s:
            old.wrap_socket(s, server_hostname="127.0.0.1").close()
        check("TLS 1.2 is refused", False)
    except (ssl.SSLError, ConnectionError):
        check("TLS 1.2 is refused", True)
    with socket.create_connection(("127.0.0.1", issuer.port)) as s:
        s.sendall(b"GET /acme/directory HTTP/1.1\r\nHost: x\r\n\r\n")
        s.settimeout(5)
        try:
            check("no HTTP in the clear", not s.recv(100).startswith(b"HTTP"))
        except (socket.timeout, ConnectionError):
            check("no HTTP in the clear", True)


def raw(issuer, data, wait=60):
    s = issuer.ctx.wrap_socket(socket.create_connection(("127.0.0.1", issuer.port)),
                               server_hostname="127.0.0.1")
    s.settimeout(wait)
    got = b""
    try:
        s.sendall(data)
        while True:
            more = s.recv(65536)
            if not more:
                break
            got += more
            if b"\r\n\r\n" in got:
                break
    except (OSError, ssl.SSLError):
        pass
    s.close()
    return got


def test_bad_http(issuer):
    for data in [b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00\xff" * 200,
                 b"POST /acme/newOrder HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                 b"POST /acme/newOrder HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
                 b"POST /acme/newOrder HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                 b"POST /acme/newOrder HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n",
                 b"GET /acme/directory HTTP/1.1\r\n" + b"A: b\r\n" * 20000 + b"\r\n",
                 b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"BREW /acme/newOrder HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"GET http://evil.example/acme/directory HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"GET /acme/../acme/directory HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"GET /acme/order/%00%2e%2e HTTP/1.1\r\nHost: x\r\n\r\n"]:
        raw(issuer, data, 2)
        check(f"alive after {data[:40]!r}", issuer.process.poll() is None)
    big = raw(issuer, b"POST /acme/newOrder HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 65536)
    check("9 MB are too much", big.startswith(b"HTTP/1.1 413") or big == b"", big[:40])
    r, _ = issuer.http("GET", "/acme/directory")
    check("still serving", r.status == 200, r.status)


def test_directory(issuer):
    r, data = issuer.http("GET", "/acme/directory")
    d = json.loads(data)
    check("directory", r.status == 200 and d["newOrder"] == f"{issuer.base}/newOrder", d)
    check("meta", d["meta"]["externalAccountRequired"] is True
          and d["meta"]["profiles"] == {"trading": "one"}
          and d["meta"]["attestd"] == {"version": 1, "trustDomain": "bank.example"}, d["meta"])
    check("index link", 'rel="index"' in (r.getheader("Link") or ""))
    nonces = {issuer.nonce() for _ in range(20)}
    check("nonces differ", len(nonces) == 20 and None not in nonces)


def test_account(issuer):
    c = Client(issuer)
    r, b = c.post("newAccount", {})
    check("no EAB", r.status == 403 and error(b) == "externalAccountRequired", b)
    t = ticket(issuer)
    for name, change, want in [("MAC key", {"macKey": b64(b"\0" * 32)}, "unauthorized"),
                               ("kid", {"kid": "nobody"}, "unauthorized")]:
        r, b = c.register({**t, **change})
        check(f"EAB with another {name}", error(b) == want and c.kid is None, b)
    eab = c.eab(t)
    other = Client(issuer)
    r, b = other.post("newAccount", {"externalAccountBinding": eab})
    check("EAB of another key", r.status >= 400, b)
    r, b = c.register(t)
    check("account", r.status == 201 and b["status"] == "valid"
          and b["externalAccountBinding"]["payload"], b)
    kid = c.kid
    c.kid = None
    r, b = c.post("newAccount", {"onlyReturnExisting": True})
    check("existing", r.status == 200 and r.getheader("Location") == kid, b)
    c.kid = kid
    rs = Client(issuer, "rsa")
    r, b = rs.register(ticket(issuer))
    check("RS256 account", r.status == 201, b)
    r, b = rs.post(rs.kid, b"")
    check("RS256 POST-as-GET", r.status == 200, b)
    return c, rs


def test_jws(issuer, c, rs):
    url = f"{issuer.base}/newOrder"
    payload = {"identifiers": [{"type": "spiffe-id", "value": "spiffe://bank.example/agent/a"}]}
    good = c.jws(url, payload)
    p, b, s = good["protected"], good["payload"], good["signature"]
    bodies = {
        "compact": f"{p}.{b}.{s}".encode(),
        "general": {"payload": b, "signatures": [{"protected": p, "signature": s}]},
        "unprotected header": {**good, "header": {"kid": "x"}},
        "detached": {"protected": p, "signature": s},
        "unknown member": {**good, "x": 1},
        "doubled member": dump(good)[:-1] + b',"payload":"e30"}',
        "trailing bytes": dump(good) + b" x",
        "array": [good],
        "empty": b"",
        "padding": {**good, "payload": b + "="},
    }
    for name, body in bodies.items():
        r, out = c.send(url, body)
        check(f"JWS {name}", r.status == 400 and error(out) == "malformed", out)
        check(f"nonce with {name}", bool(r.getheader("Replay-Nonce")))
    for name, change, want in [
            ("alg none", {"alg": "none"}, "badSignatureAlgorithm"),
            ("alg HS256", {"alg": "HS256"}, "badSignatureAlgorithm"),
            ("alg ES384", {"alg": "ES384"}, "badSignatureAlgorithm"),
            ("RS256 by an EC key", {"alg": "RS256"}, None),
            ("jwk and kid", {"jwk": c.key.jwk}, "malformed"),
            ("neither jwk nor kid", {"kid": None}, "malformed"),
            ("crit", {"crit": ["x"], "x": 1}, "malformed"),
            ("b64 false", {"b64": False}, "malformed"),
            ("no url", {"url": None}, "malformed"),
            ("no nonce", {"nonce": None}, "badNonce"),
            ("odd nonce", {"nonce": "a+b"}, "malformed"),  # RFC 8555 §6.5.2
            ("foreign nonce", {"nonce": b64(os.urandom(36))}, "badNonce"),
            ("another url", {"url": f"{issuer.base}/newAccount"}, "unauthorized"),
            ("another host", {"url": "https://evil.example/acme/newOrder"}, "unauthorized"),
            ("foreign kid", {"kid": "https://evil.example/acme/account/1"}, "accountDoesNotExist"),
            ("another's kid", {"kid": rs.kid}, None)]:
        r, out = c.send(url, c.jws(url, payload, **change))
        check(f"JWS {name}", 400 <= r.status < 500 and want in (None, error(out)), (r.status, out))
        if want == "badSignatureAlgorithm":
            check(f"algorithms for {name}", set(out.get("algorithms", [])) == {"ES256", "RS256"}, out)
    body = c.jws(url, payload)
    body["payload"] = b64(dump({"identifiers": []}))
    r, out = c.send(url, body)
    check("changed payload", r.status >= 400 and error(out) == "unauthorized", out)
    body = c.jws(url, payload)
    first, _ = c.send(url, body)
    second, out = c.send(url, body)
    check("replay", second.status == 400 and error(out) == "badNonce", out)
    for content in ["application/json", "text/plain", ""]:
        r, out = c.send(url, c.jws(url, payload), content)
        check(f"415 for {content!r}", r.status == 415 and error(out) == "malformed", out)


def test_nonce_race(issuer, c):
    url = c.kid
    body = c.jws(url, b"")
    results = []

    def go():
        results.append(c.send(url, body)[0].status)

    threads = [threading.Thread(target=go) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    check("one nonce, eight tries", sorted(results) == [200] + [400] * 7, results)


def test_orders(issuer, c):
    entry = ("trust_domain: bank.example\nagents:\n"
             "  - {name: a, owner: o@x, hosts: ['label:zone=t'], workload: {uid: 1}, key: tpm, profile: trading}\n")
    reply = issuer.admin("entry.apply", text=entry, filename="e.yaml")
    check("entry.apply", reply["ok"] and reply["result"]["added"] == ["a"], reply)
    reply = issuer.admin("entry.apply", text=entry, filename="e.yaml")
    check("entry.apply again", reply["result"]["unchanged"] == ["a"], reply)
    reply = issuer.admin("entry.apply", text=entry.replace("uid", "uidd"), filename="e.yaml")
    check("a bad entry names its line", not reply["ok"] and "e.yaml:3" in reply["error"]["message"], reply)
    for name, payload, want, word in [
            ("no host", {"identifiers": [{"type": "spiffe-id", "value": "spiffe://bank.example/agent/a"}]},
             "rejectedIdentifier", "hostUnknown"),
            ("another domain", {"identifiers": [{"type": "spiffe-id", "value": "spiffe://evil/agent/a"}]},
             "rejectedIdentifier", "notAssigned"),
            ("dns", {"identifiers": [{"type": "dns", "value": "x"}]}, "unsupportedIdentifier", ""),
            ("none", {"identifiers": []}, "malformed", ""),
            ("not JSON", b"x", "malformed", "")]:
        r, b = c.post("newOrder", payload)
        check(f"order: {name}", error(b) == want and reason(b) == word, b)
    r, b = c.post("newAttestationKey", {"ekPub": "AA"})
    check("M1 of nonsense", 400 <= r.status < 500, b)
    r, b = c.post("ak/nobody", {"proof": "AA"})
    check("M2 of nobody", 400 <= r.status < 500, b)
    r, b = c.post("hostView", b"")
    check("hostView without a host", r.status == 403 and reason(b) == "hostUnknown", b)
    for noun in ["order/x", "authz/x", "challenge/x", "certificate/x"]:
        r, b = c.post(noun, b"")
        check(f"{noun} is nothing", r.status == 404, (r.status, b))
    check("nothing issued", issuer.admin("cert.list")["result"]["certificates"] == [])


def test_admin(issuer):
    status = issuer.admin("status")["result"]
    check("status", status["tls"]["version"] == "TLSv1.3" and status["tls"]["group"] != ""
          and status["agents"] == 1, status)
    check("unknown op", issuer.admin("x.y")["error"]["reason"] == "usage")
    check("unknown argument", issuer.admin("host.list", x=1)["error"]["reason"] == "usage")
    deadline = time.time() + 60  # the head is signed once a second at most
    while True:
        reply = issuer.admin("audit.verify")
        if not reply["ok"] or reply["result"].get("signedHead", {}).get("seq", 0) > 0 or time.time() > deadline:
            break
        time.sleep(0.1)
    check("audit.verify", reply["ok"] and reply["result"]["records"] > 3
          and reply["result"]["signedHead"]["seq"] > 0, reply)


def test_signals(issuer, c):
    issuer.write_config("2h")
    issuer.process.send_signal(signal.SIGHUP)
    deadline = time.time() + 60
    while time.time() < deadline:
        if issuer.admin("status")["result"]["profiles"][0]["lifetimeS"] == 7200:
            break
        time.sleep(0.1)
    check("SIGHUP", issuer.admin("status")["result"]["profiles"][0]["lifetimeS"] == 7200)
    with open(issuer.config, "a") as f:
        f.write("nonsense: 1\n")
    issuer.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    check("a bad configuration changes nothing", issuer.process.poll() is None
          and issuer.admin("status")["result"]["profiles"][0]["lifetimeS"] == 7200)
    bad = subprocess.run([BIN, "--config", issuer.config, "--check"], capture_output=True, text=True)
    check("--check says where", bad.returncode == 1 and "issuer.yaml:" in bad.stderr, bad.stderr)
    issuer.write_config("2h")
    # kill -9, and everything that was answered is still there
    issuer.process.kill()
    issuer.process.wait()
    os.unlink(f"{issuer.dir}/run/admin.sock")
    issuer.start()
    r, b = c.post(c.kid, b"")
    check("the account survives kill -9", r.status == 200, b)
    check("the audit log, too", issuer.admin("audit.verify")["ok"])
    issuer.process.send_signal(signal.SIGTERM)
    check("SIGTERM ends it with 0", issuer.process.wait(15) == 0)
    check("the socket is gone", not os.path.exists(f"{issuer.dir}/run/admin.sock"))


def main():
    usage = subprocess.run([BIN, "--nonsense"], capture_output=True)
    check("usage is 2", usage.returncode == 2, usage.returncode)
    check("--help is 0", subprocess.run([BIN, "--help"], capture_output=True).returncode == 0)
    directory = tempfile.mkdtemp(prefix="issuer-acme-")
    issuer = None
    try:
        issuer = Issuer(directory)
        test_tls(issuer)
        test_directory(issuer)
        c, rs = test_account(issuer)
        test_jws(issuer, c, rs)
        test_nonce_race(issuer, c)
        test_orders(issuer, c)
        test_admin(issuer)
        test_bad_http(issuer)
        test_signals(issuer, c)
    finally:
        if issuer and issuer.process.poll() is None:
            issuer.process.kill()
            issuer.process.wait()
        if FAILED and os.path.exists(f"{directory}/log"):
            print(open(f"{directory}/log", errors="replace").read()[-6000:])
        shutil.rmtree(directory)
    print(f"{COUNT - len(FAILED)} of {COUNT} checks hold")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
