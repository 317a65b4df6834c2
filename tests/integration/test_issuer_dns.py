#!/usr/bin/env python3
"""RFC 8555, RFC 9773 and http-01 by a raw client against a real attest-issuerd: orders for DNS names, what a
name may answer and where the issuer does not go for it, finalize, revocation, change of keys, deactivation,
renewal information, rate limits. Each refusal by its type and its sentence."""
import datetime
import http.server
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import test_issuer_acme as base
from test_issuer_acme import Client, Issuer, Key, b64, check, dump, error, ticket

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PROOFS = {}  # token: key authorization
RULES = {}  # name: what it does instead
SLOW = threading.Event()


class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.headers.get("Host", "").split(":")[0]
        token = self.path.rsplit("/", 1)[-1]
        rule = RULES.get(name)
        if rule:
            rule(self, token)
        elif token in PROOFS:
            self.give(PROOFS[token] + "\n")
        else:
            self.give("no", 404)

    def give(self, text, status=200, **headers):
        body = text.encode()
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def redirect(to):
    return lambda web, token: web.give("", 302, Location=to.replace("TOKEN", token))


class DnsIssuer(Issuer):
    extra = ""

    def __init__(self, directory, web):
        self.web = web
        super().__init__(directory)

    def write_config(self, lifetime):
        super().write_config(lifetime)
        with open(self.config, "a") as f:
            f.write(f"""dns:
  profiles:
    - {{ name: legacy, lifetime: 2d, names: ["*.legacy.localhost"] }}
    - {{ name: short, lifetime: 1h, names: ["*.short.localhost", "*.legacy.localhost"] }}
  http_port: {self.web}
  allow: ["127.0.0.1/32"]
  timeout: 2s
{self.extra}""")

    def restart(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        self.process.wait(30)
        if os.path.exists(f"{self.dir}/run/admin.sock"):
            os.unlink(f"{self.dir}/run/admin.sock")
        self.start()


def dns(*names):
    return [{"type": "dns", "value": n} for n in names]


def account(issuer, kind="ec"):
    c = Client(issuer, kind)
    r, b = c.register(ticket(issuer))
    check("an account", r.status == 201, b)
    return c


def order(c, *names, **more):
    r, b = c.post("newOrder", {"identifiers": dns(*names), **more})
    b["url"] = r.getheader("Location")
    return r, b


def thumbprint(key):
    import hashlib
    return b64(hashlib.sha256(dump(dict(sorted(key.jwk.items())))).digest())


def settle(c, url):
    deadline = time.time() + 30
    while True:
        r, b = c.post(url, b"")
        if r.status != 200 or b["status"] not in ("pending", "processing") or time.time() > deadline:
            return b
        time.sleep(0.05)


def answer(c, authz_url, proof=True):
    """Answers an authorization's challenge and waits for the end; the authorization."""
    _, authz = c.post(authz_url, b"")
    challenge = authz["challenges"][0]
    if proof:
        PROOFS[challenge["token"]] = challenge["token"] + "." + thumbprint(c.key)
    r, b = c.post(challenge["url"], {})
    check("the challenge is taken", r.status == 200 and f'<{authz_url}>;rel="up"' in ",".join(r.msg.get_all("Link")),
          (b, r.msg.get_all("Link")))
    return settle(c, authz_url)


def csr(key, names, cn=None, extension=None):
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else []))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), False)
    if extension:
        builder = builder.add_extension(extension, False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def issue(c, *names, key=None, **more):
    """The certificate as it came: PEM, and its order."""
    r, o = order(c, *names, **more)
    check(f"order {names}", r.status == 201, o)
    for url in o["authorizations"]:
        a = answer(c, url)
        check(f"authorization {names}", a["status"] == "valid", a)
    key = key or ec.generate_private_key(ec.SECP256R1())
    r, b = c.post(o["finalize"], {"csr": b64(csr(key, names))})
    check(f"finalize {names}", r.status == 200 and b["status"] == "valid", b)
    r, pem = fetch(c, b["certificate"])
    return pem, {**b, "url": o["url"]}, r


def fetch(c, url):
    path = url[len(c.issuer.base) - len("/acme"):]
    return c.issuer.http("POST", path, dump(c.jws(url, b"")), {"Content-Type": "application/jose+json"})


def leaf(pem):
    return x509.load_pem_x509_certificate(pem)


def der(cert):
    return cert.public_bytes(serialization.Encoding.DER)


# python3-cryptography of Debian 12 (38) has not the names of Debian 13's.
def not_before(cert):
    return getattr(cert, "not_valid_before_utc", None) or cert.not_valid_before


def not_after(cert):
    return getattr(cert, "not_valid_after_utc", None) or cert.not_valid_after


# ---- orders


def test_orders(issuer, c):
    cases = [
        ("a wildcard", dns("*.legacy.localhost"), {}, "rejectedIdentifier", "wildcard"),
        ("no name", dns("-.legacy.localhost"), {}, "malformed", "DNS name"),
        ("an address", dns("127.0.0.1"), {}, "malformed", "DNS name"),
        ("a final dot", dns("a.legacy.localhost."), {}, "malformed", "DNS name"),
        ("a name of no profile", dns("a.legacy.localhost", "a.elsewhere.localhost"), {}, "rejectedIdentifier",
         "does not allow"),
        ("the suffix itself", dns("legacy.localhost"), {}, "rejectedIdentifier", "does not allow"),
        ("a name of another profile", dns("a.short.localhost"), {"profile": "legacy"}, "rejectedIdentifier",
         "does not allow"),
    ]
    for name, ids, more, want, words in cases:
        r, b = c.post("newOrder", {"identifiers": ids, **more})
        sub = b.get("subproblems", [{}])[0]
        check(f"order: {name}", r.status in (400, 403) and error(b) == want and error(sub) == want
              and words in sub.get("detail", "") and sub.get("identifier") == ids[-1], b)
    r, b = order(c, "a.legacy.localhost", profile="trading")
    check("an agents' profile", r.status == 400 and error(b) == "invalidProfile", b)
    r, b = c.post("newOrder", {"identifiers": dns("a.legacy.localhost")
                               + [{"type": "spiffe-id", "value": "spiffe://bank.example/agent/a"}]})
    check("two types", error(b) == "unsupportedIdentifier", b)
    r, o = order(c, "B.legacy.localhost", "a.Legacy.localhost", "b.legacy.localhost")
    check("names in lowercase, none twice", r.status == 201 and o["status"] == "pending" and o["profile"] == "legacy"
          and o["identifiers"] == dns("a.legacy.localhost", "b.legacy.localhost") and len(o["authorizations"]) == 2, o)
    r, b = order(c, "a.short.localhost")
    check("the profile that allows the name", b["profile"] == "short", b)
    r, b = c.post(o["finalize"], {"csr": b64(csr(ec.generate_private_key(ec.SECP256R1()), ["a.legacy.localhost"]))})
    check("finalize too early", r.status == 403 and error(b) == "orderNotReady", b)
    r, b = c.post(o["url"], {})
    check("an order with a payload", error(b) == "malformed", b)
    other = account(issuer)
    for url in [o["url"], o["authorizations"][0], o["finalize"]]:
        r, b = other.post(url, b"")
        check(f"another's {url.rsplit('/', 2)[1]}", r.status == 403 and error(b) == "unauthorized", b)
    r, b = c.post(c.kid.replace("/account/", "/orders/"), b"")
    check("the list of orders", o["url"] in b["orders"], b)
    r, b = other.post(c.kid.replace("/account/", "/orders/"), b"")
    check("another's list", error(b) == "unauthorized", b)


# ---- what a name may answer, and where nobody is led


def test_validation(issuer, c):
    web = issuer.web
    big = lambda w, t: w.give("x" * 70000)  # noqa: E731
    here = f"http://127.0.0.1:{web}/.well-known/acme-challenge/TOKEN"
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))

    def hops(n):
        def rule(w, token):
            left = int(w.path.split("left=")[1].split("/")[0]) if "left=" in w.path else n
            if left:
                w.give("", 302, Location=f"http://{w.headers['Host']}/left={left - 1}/{token}")
            else:
                w.give(PROOFS[token])
        return rule

    cases = [
        ("plain", None, None),
        ("ten", hops(10), None),
        ("here", redirect(here), None),
        ("eleven", hops(11), ("connection", "more than 10 redirects")),
        ("wrong", lambda w, t: w.give("something else"), ("incorrectResponse", "something else")),
        ("missing", lambda w, t: w.give("no", 404), ("unauthorized", "status 404")),
        ("big", big, ("unauthorized", "more than 65536 bytes")),
        ("heads", lambda w, t: w.give("x", 200, **{f"X-{i}": "y" * 8000 for i in range(12)}),
         ("unauthorized", "headers are of more than")),
        ("slow", lambda w, t: SLOW.wait(10), ("connection", "did not answer within")),
        ("ftp", redirect(f"ftp://127.0.0.1:{web}/TOKEN"), ("connection", "elsewhere than http")),
        ("file", redirect("file:///etc/hostname"), ("connection", "elsewhere than http")),
        ("gopher", redirect(f"gopher://127.0.0.1:{web}/x"), ("connection", "elsewhere than http")),
        ("port", redirect(f"http://127.0.0.1:{closed.getsockname()[1]}/TOKEN"), ("connection", "is not 80 or 443")),
        ("user", redirect(f"http://u:p@127.0.0.1:{web}/TOKEN"), ("connection", "")),
        ("loopback", redirect(f"http://127.0.0.2:{web}/TOKEN"), ("connection", "127.0.0.2 is loopback")),
        ("decimal", redirect(f"http://2130706434:{web}/TOKEN"), ("connection", "127.0.0.2 is loopback")),
        ("unspecified", redirect(f"http://0.0.0.0:{web}/TOKEN"), ("connection", "0.0.0.0 is unspecified")),
        ("metadata", redirect("http://169.254.169.254/latest"), ("connection", "169.254.169.254 is link-local")),
        ("private", redirect("http://10.1.2.3/"), ("connection", "10.1.2.3 is private")),
        ("multicast", redirect("http://224.0.0.1/"), ("connection", "224.0.0.1 is multicast")),
        ("six", redirect(f"http://[::1]:{web}/TOKEN"), ("connection", "::1 is loopback")),
        ("mapped", redirect(f"http://[::ffff:127.0.0.1]:{web}/TOKEN"), ("connection", "an IPv4 address in IPv6")),
        ("unique", redirect("http://[fd00::1]/"), ("connection", "fd00::1 is private")),
        ("local", redirect("http://[fe80::1]/"), ("connection", "fe80::1 is link-local")),
    ]
    for name, rule, want in cases:
        host = f"{name}.legacy.localhost"
        RULES.pop(host, None)
        if rule:
            RULES[host] = rule
        r, o = order(c, host)
        a = answer(c, o["authorizations"][0])
        challenge = a["challenges"][0]
        if not want:
            check(f"validation: {name}", a["status"] == "valid" and challenge["status"] == "valid"
                  and "validated" in challenge, a)
            continue
        problem = challenge.get("error", {})
        _, o = c.post(o["url"], b"")
        check(f"validation: {name}", a["status"] == "invalid" and error(problem) == want[0]
              and want[1] in problem["detail"] and o["status"] == "invalid" and error(o["error"]) == want[0], (a, o))
    closed.close()


def test_slow_targets(issuer, c):
    """Some that do not answer delay nobody."""
    RULES["stuck.legacy.localhost"] = lambda w, t: SLOW.wait(20)
    waiting = []
    for _ in range(12):
        _, o = order(c, "stuck.legacy.localhost")
        _, a = c.post(o["authorizations"][0], b"")
        r, b = c.post(a["challenges"][0]["url"], {})
        check("processing, with Retry-After", b["status"] == "processing" and r.getheader("Retry-After") == "1", b)
        waiting.append(o["authorizations"][0])
    _, o = order(c, "quick.legacy.localhost")
    check("another is validated", answer(c, o["authorizations"][0])["status"] == "valid")
    _, last = c.post(waiting[-1], b"")
    check("while they are waited for", last["status"] == "pending", last)


def test_resume(issuer, c):
    """What was under way when the process died is asked again."""
    RULES["again.legacy.localhost"] = lambda w, t: SLOW.wait(20)
    _, o = order(c, "again.legacy.localhost")
    _, a = c.post(o["authorizations"][0], b"")
    token = a["challenges"][0]["token"]
    PROOFS[token] = token + "." + thumbprint(c.key)
    c.post(a["challenges"][0]["url"], {})
    issuer.process.kill()
    del RULES["again.legacy.localhost"]
    issuer.restart(signal.SIGKILL)
    check("resumed after kill -9", settle(c, o["authorizations"][0])["status"] == "valid")
    r, b = c.post(a["challenges"][0]["url"], {})
    check("answered again, it is told as it is", r.status == 200 and b["status"] == "valid", b)


# ---- finalize and certificate


def test_finalize(issuer, c):
    name = "f.legacy.localhost"
    _, o = order(c, name)
    check("valid", answer(c, o["authorizations"][0])["status"] == "valid")
    key = ec.generate_private_key(ec.SECP256R1())
    good = csr(key, [name])
    broken = bytearray(good)
    broken[-5] ^= 1
    for what, bad, words in [
            ("another name", csr(key, ["x.legacy.localhost"]), "not ordered"),
            ("one name more", csr(key, [name, "x.legacy.localhost"]), "not ordered"),
            ("another CN", csr(key, [name], "x.legacy.localhost"), "no subject, or a CN"),
            ("no name", csr(key, []), "does not name"),
            ("must-staple", csr(key, [name], None, x509.TLSFeature([x509.TLSFeatureType.status_request])),
             "extension that is not issued"),
            ("P-521", csr(ec.generate_private_key(ec.SECP521R1()), [name]), "P-256, P-384 or RSA"),
            ("RSA 1024", csr(rsa.generate_private_key(65537, 1024), [name]), "P-256, P-384 or RSA"),
            ("a broken signature", bytes(broken), "self-signature"),
            ("bytes behind it", good + b"\0", "DER"),
            ("the account's key", csr(c.key.key, [name]), "account key"),
            ("nonsense", b"x", "DER")]:
        r, b = c.post(o["finalize"], {"csr": b64(bad)})
        check(f"CSR: {what}", r.status == 400 and error(b) == "badCSR" and words in b["detail"], b)
    _, b = c.post(o["url"], b"")
    check("a bad CSR leaves the order ready", b["status"] == "ready", b)
    r, b = c.post(o["finalize"], {"csr": b64(csr(key, [name], name.upper()))})
    check("a good one", r.status == 200 and b["status"] == "valid", b)
    r, b2 = c.post(o["finalize"], {"csr": b64(good)})
    check("finalize twice", r.status == 403 and error(b2) == "orderNotReady", b2)
    r, pem = fetch(c, b["certificate"])
    cert = leaf(pem)
    san = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    life = not_after(cert) - not_before(cert)
    check("the leaf", san.critical and san.value.get_values_for_type(x509.DNSName) == [name]
          and not list(cert.subject) and life == datetime.timedelta(days=2, seconds=60), pem)
    check("under a root of its own", "DNS CA" in cert.issuer.rfc4514_string(), cert.issuer)
    check("no alternate", not any("alternate" in link for link in r.msg.get_all("Link")))


# ---- revocation


def test_revoke(issuer, c):
    other = account(issuer)
    key = ec.generate_private_key(ec.SECP256R1())
    pem, _, _ = issue(c, "r.legacy.localhost", key=key)
    cert = der(leaf(pem))
    for what, body, want in [("reason 2", {"certificate": b64(cert), "reason": 2}, "badRevocationReason"),
                             ("reason 7", {"certificate": b64(cert), "reason": 7}, "badRevocationReason"),
                             ("reason -1", {"certificate": b64(cert), "reason": -1}, "badRevocationReason"),
                             ("a word", {"certificate": b64(cert), "reason": "keyCompromise"}, "badRevocationReason"),
                             ("no certificate", {"reason": 1}, "malformed"),
                             ("nonsense", {"certificate": b64(b"x")}, "malformed")]:
        r, b = c.post("revokeCert", body)
        check(f"revokeCert: {what}", r.status == 400 and error(b) == want, b)
    r, b = other.post("revokeCert", {"certificate": b64(cert)})
    check("by another account", r.status == 403 and error(b) == "unauthorized", b)
    stranger = Client(issuer)
    r, b = stranger.post("revokeCert", {"certificate": b64(cert)})
    check("by another key", r.status == 403 and error(b) == "unauthorized", b)
    forged = (x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(leaf(pem).issuer)
              .public_key(key.public_key()).serial_number(leaf(pem).serial_number)
              .not_valid_before(not_before(leaf(pem))).not_valid_after(not_after(leaf(pem)))
              .sign(key, hashes.SHA256()))
    own = Client(issuer)
    own.key.key = key
    n = key.public_key().public_numbers()
    own.key.jwk = {"crv": "P-256", "kty": "EC", "x": b64(n.x.to_bytes(32, "big")), "y": b64(n.y.to_bytes(32, "big"))}
    for what, who in [("key", own), ("account", c)]:
        r, b = who.post("revokeCert", {"certificate": b64(der(forged))})
        check(f"a certificate that is not ours, by its {what}", r.status == 404 and error(b) == "malformed", b)
    r, b = own.post("revokeCert", {"certificate": b64(cert), "reason": 1})
    check("by its key", r.status == 200 and b == {}, (r.status, b))
    for who in (own, c):
        r, b = who.post("revokeCert", {"certificate": b64(cert)})
        check("twice", r.status == 400 and error(b) == "alreadyRevoked", b)
    pem, o, _ = issue(c, "r.legacy.localhost")
    r, b = c.post("revokeCert", {"certificate": b64(der(leaf(pem)))})
    check("by its account", r.status == 200, b)
    r, b = c.post(o["certificate"], b"")
    check("a revoked certificate is not given", r.status == 400 and "revoked" in b["detail"], b)
    rows = issuer.admin("cert.list", name="r.legacy.localhost")["result"]["certificates"]
    check("reasons in the store", sorted((x["status"], x["reason"]) for x in rows)
          == [("revoked", "keyCompromise"), ("revoked", "unspecified")], rows)


# ---- accounts


def key_change(c, new, url=None, account_url=None, old=None, signer=None):
    target = f"{c.issuer.base}/keyChange"
    p = b64(dump({"alg": new.alg, "jwk": new.jwk, "url": url or target}))
    b = b64(dump({"account": account_url or c.kid, "oldKey": old or c.key.jwk}))
    inner = {"protected": p, "payload": b, "signature": b64((signer or new).sign(f"{p}.{b}".encode()))}
    return c.post("keyChange", inner)


def test_key_change(issuer, c):
    taken = account(issuer)
    new = Key("rsa")
    for what, args, want in [
            ("another inner url", {"url": f"{issuer.base}/newAccount"}, "malformed"),
            ("another account", {"account_url": taken.kid}, "malformed"),
            ("another old key", {"old": taken.key.jwk}, "malformed")]:
        r, b = key_change(c, new, **args)
        check(f"keyChange: {what}", r.status == 400 and error(b) == want, b)
    r, b = key_change(c, new, signer=Key("rsa"))
    check("keyChange: not signed by the new key", r.status == 403 and error(b) == "unauthorized", b)
    r, b = c.post("keyChange", b"x")
    check("keyChange: nonsense", r.status == 400 and error(b) == "malformed", b)
    r, b = key_change(c, taken.key)
    check("keyChange: another's key", r.status == 409 and r.getheader("Location") == taken.kid, (r.status, b))
    pem, _, _ = issue(c, "k.legacy.localhost")
    old = c.key
    r, b = key_change(c, new)
    check("keyChange", r.status == 200 and b["status"] == "valid", b)
    r, b = c.post(c.kid, b"")
    check("the old key is refused", r.status == 403 and error(b) == "unauthorized", b)
    c.key = new
    r, b = c.post(c.kid, b"")
    check("the new key is taken", r.status == 200, b)
    kid, c.kid = c.kid, None
    r, b = c.post("newAccount", {"onlyReturnExisting": True})
    check("and finds the account", r.status == 200 and r.getheader("Location") == kid, b)
    c.kid = kid
    r, b = c.post("revokeCert", {"certificate": b64(der(leaf(pem)))})
    check("the certificates are the account's still", r.status == 200, b)
    again = Client(issuer)
    again.key = old
    r, b = again.post("newAccount", {"onlyReturnExisting": True})
    check("the old key has no account", error(b) == "accountDoesNotExist", b)


def test_deactivation(issuer, c):
    _, o = order(c, "x.legacy.localhost", "y.legacy.localhost")
    url = o["authorizations"][0]
    for body in [{"status": "valid"}, {}, b"x"]:
        r, b = c.post(url, body)
        check(f"authorization: {body}", r.status == 400 and error(b) == "malformed", b)
    check("valid", answer(c, url)["status"] == "valid")
    r, b = c.post(url, {"status": "deactivated"})
    check("deactivated", r.status == 200 and b["status"] == "deactivated", b)
    _, b = c.post(o["url"], b"")
    check("its order ends", b["status"] == "invalid", b)
    _, other = c.post(o["authorizations"][1], b"")
    r, b = c.post(other["challenges"][0]["url"], {})
    check("its other challenge, too", r.status == 400 and "over" in b["detail"], b)
    gone = account(issuer)
    r, b = gone.post(gone.kid, {"contact": ["mailto:x@bank.example"]})
    check("contact", r.status == 200 and b["contact"] == ["mailto:x@bank.example"], b)
    r, b = gone.post(gone.kid, {"status": "deactivated"})
    check("account deactivated", r.status == 200 and b["status"] == "deactivated", b)
    r, b = order(gone, "a.legacy.localhost")
    check("a deactivated account", r.status == 403 and error(b) == "unauthorized", b)


# ---- renewal information


def cert_id(cert):
    aki = cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    serial = cert.serial_number
    return b64(aki) + "." + b64(serial.to_bytes((serial.bit_length() + 8) // 8, "big"))


def info(issuer, text, method="GET"):
    r, data = issuer.http(method, f"/acme/renewalInfo/{text}")
    return r, (base.json.loads(data) if data else {})


def when(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_ari(issuer, c):
    pem, _, _ = issue(c, "ari.legacy.localhost")
    cert = leaf(pem)
    text = cert_id(cert)
    r, b = info(issuer, text)
    start, end = when(b["suggestedWindow"]["start"]), when(b["suggestedWindow"]["end"])
    check("a window within its life", r.status == 200 and time.time() < start < end, b)
    check("Retry-After", r.getheader("Retry-After") == str(2 * 86400 // 20), r.getheader("Retry-After"))
    r, _ = info(issuer, text, "POST")
    check("renewalInfo is not posted to", r.status == 405 and r.getheader("Allow") == "GET, HEAD", r.status)
    aki, serial = text.split(".")
    for what, bad, status in [("unknown", f"{aki}.{b64(bytes([1] * 16))}", 404),
                              ("another authority", f"{b64(bytes(20))}.{serial}", 404),
                              ("no dot", aki, 400), ("no serial", f"{aki}.", 400), ("not base64url", f"{aki}.+", 400),
                              ("a negative serial", f"{aki}.{b64(bytes([0x80] * 16))}", 400),
                              ("too long", f"{aki}.{b64(bytes([1] * 30))}", 400)]:
        r, b = info(issuer, bad)
        check(f"renewalInfo: {what}", r.status == status and error(b) == "malformed", (r.status, b))
    # replaces
    stranger = account(issuer)
    for what, who, names, value, want in [
            ("another account's", stranger, ["ari.legacy.localhost"], text, "unauthorized"),
            ("other names", c, ["b.legacy.localhost"], text, "malformed"),
            ("no certificate", c, ["ari.legacy.localhost"], f"{aki}.{b64(bytes([1] * 16))}", "malformed"),
            ("nonsense", c, ["ari.legacy.localhost"], "x", "malformed")]:
        r, b = order(who, *names, replaces=value)
        check(f"replaces: {what}", r.status >= 400 and error(b) == want, b)
    r, o = order(c, "ari.legacy.localhost", replaces=text)
    check("replaces", r.status == 201, o)
    r, b = order(c, "ari.legacy.localhost", replaces=text)
    check("replaces twice", r.status == 409 and error(b) == "alreadyReplaced", (r.status, b))
    c.post(o["authorizations"][0], {"status": "deactivated"})
    new, _, _ = issue(c, "ari.legacy.localhost", replaces=text)
    check("an order that died replaces nothing", leaf(new).serial_number != cert.serial_number)
    r, b = order(c, "ari.legacy.localhost", replaces=text)
    check("replaced for good", r.status == 409 and error(b) == "alreadyReplaced", b)
    # an operator's word
    for args, word in [({}, "usage"), ({"all": True, "profile": "legacy"}, "usage"), ({"profile": "nobody"}, "usage")]:
        reply = issuer.admin("cert.renew", reason="x", **args)
        check(f"cert.renew {args}", not reply["ok"] and reply["error"]["reason"] == word, reply)
    time.sleep(1.1)
    check("cert.renew", issuer.admin("cert.renew", profile="legacy", reason="rotation")["ok"])
    _, b = info(issuer, cert_id(leaf(new)))
    check("the window is in the past", when(b["suggestedWindow"]["end"]) <= time.time(), b)
    time.sleep(1.1)
    newer, _, _ = issue(c, "ari.legacy.localhost")
    _, b = info(issuer, cert_id(leaf(newer)))
    check("not for what was made since", when(b["suggestedWindow"]["start"]) > time.time(), b)
    short, _, _ = issue(c, "ari.short.localhost")
    c.post("revokeCert", {"certificate": b64(der(leaf(short)))})
    _, b = info(issuer, cert_id(leaf(short)))
    check("a revoked one should be renewed", when(b["suggestedWindow"]["end"]) <= time.time(), b)


# ---- chains, limits


def test_alternate(issuer, c):
    directory = f"{issuer.dir}/state/ca"
    ca = x509.load_pem_x509_certificate(open(f"{directory}/dns-ca.crt", "rb").read())
    root = ec.generate_private_key(ec.SECP256R1())
    cross = (x509.CertificateBuilder().subject_name(ca.subject)
             .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Corporate Root")]))
             .public_key(ca.public_key()).serial_number(77).not_valid_before(not_before(ca))
             .not_valid_after(not_after(ca)).add_extension(x509.BasicConstraints(True, 0), True)
             .sign(root, hashes.SHA256()))
    text = cross.public_bytes(serialization.Encoding.PEM)
    with open(f"{directory}/dns-alternate.pem", "wb") as f:
        f.write(open(f"{directory}/tls-root.crt", "rb").read())
    bad = base.subprocess.run([base.BIN, "--config", issuer.config, "--check"], capture_output=True, text=True)
    check("another's certificate as an alternate", bad.returncode == 1 and "dns-alternate.pem" in bad.stderr, bad.stderr)
    with open(f"{directory}/dns-alternate.pem", "wb") as f:
        f.write(text)
    issuer.restart()
    pem, o, r = issue(c, "alt.legacy.localhost")
    links = [x for x in r.msg.get_all("Link") if 'rel="alternate"' in x]
    check("Link rel=alternate", len(links) == 1, r.msg.get_all("Link"))
    url = re.match("<(.*)>", links[0]).group(1)
    r, other = fetch(c, url)
    check("the same leaf by another chain", leaf(other) == leaf(pem) and other.endswith(text) and not pem.endswith(text),
          other)
    check("and back", any(o["certificate"] in x for x in r.msg.get_all("Link")), r.msg.get_all("Link"))


def limits(issuer, text):
    issuer.extra = f"limits: {text}\n" if text else ""
    issuer.write_config("1h")
    issuer.restart()


def test_limits(issuer):
    limits(issuer, "{ account_fruitless_orders: 3 }")
    c = account(issuer)
    for i in range(3):
        check("an order", order(c, "a.legacy.localhost")[0].status == 201)
    r, b = order(c, "a.legacy.localhost")
    check("limits.account_fruitless_orders", r.status == 429 and error(b) == "rateLimited"
          and int(r.getheader("Retry-After")) > 0, (r.status, b))
    check("another account", order(account(issuer), "a.legacy.localhost")[0].status == 201)
    limits(issuer, "{ address_accounts: 2 }")
    for i in range(3):
        r, b = Client(issuer).post("newAccount", {"onlyReturnExisting": True})
        check(f"limits.address_accounts {i}", error(b) == ("rateLimited" if i == 2 else "accountDoesNotExist")
              and (i < 2 or int(r.getheader("Retry-After")) > 0), b)
    limits(issuer, "{ address_requests: 20 }")
    seen = [issuer.http("GET", "/acme/directory")[0] for _ in range(25)]
    codes = [r.status for r in seen]
    check("limits.address_requests", codes.count(429) >= 5 and 200 in codes and seen[-1].getheader("Retry-After") == "60",
          codes)
    r, _ = issuer.http("POST", "/acme/newOrder", b"{}", {"Content-Type": "application/jose+json"})
    check("a nonce with 429", r.status == 429 and r.getheader("Replay-Nonce"), r.status)
    limits(issuer, "")


def test_off(issuer, c):
    """Turned off by a reload: no new validation, no new order; on again only by a restart."""
    r, o = order(c, "off.legacy.localhost")
    with open(issuer.config) as f:
        text = f.read()
    with open(issuer.config, "w") as f:
        f.write(text[:text.index("dns:")])
    issuer.process.send_signal(signal.SIGHUP)
    deadline = time.time() + 20
    while time.time() < deadline:
        r, b = c.post("newOrder", {"identifiers": dns("off.legacy.localhost")})
        if r.status != 201:
            break
        time.sleep(0.1)
    check("off", error(b) == "unsupportedIdentifier", b)
    _, a = c.post(o["authorizations"][0], b"")
    r, b = c.post(a["challenges"][0]["url"], {})
    check("no validation", error(b) == "unsupportedIdentifier", b)


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # the issuer hangs up on what is too big
    threading.Thread(target=server.serve_forever, daemon=True).start()
    directory = tempfile.mkdtemp(prefix="issuer-dns-")
    issuer = None
    try:
        issuer = DnsIssuer(directory, server.server_address[1])
        c, rs = account(issuer), account(issuer, "rsa")
        test_orders(issuer, c)
        test_validation(issuer, c)
        test_slow_targets(issuer, rs)
        test_resume(issuer, rs)
        test_finalize(issuer, c)
        test_revoke(issuer, c)
        test_key_change(issuer, c)
        test_deactivation(issuer, c)
        test_ari(issuer, c)
        test_alternate(issuer, c)
        test_limits(issuer)
        test_off(issuer, c)
        SLOW.set()
        issuer.process.send_signal(signal.SIGTERM)
        check("SIGTERM ends it with 0", issuer.process.wait(30) == 0)
    finally:
        SLOW.set()
        if issuer and issuer.process.poll() is None:
            issuer.process.kill()
            issuer.process.wait()
        if base.FAILED and os.path.exists(f"{directory}/log"):
            print(open(f"{directory}/log", errors="replace").read()[-4000:])
        shutil.rmtree(directory)
    print(f"{base.COUNT - len(base.FAILED)} of {base.COUNT} checks hold")
    return 1 if base.FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
