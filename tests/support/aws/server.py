#!/usr/bin/env python3
"""IAM Roles Anywhere's CreateSession, and STS's GetCallerIdentity for what it gave: a server that verifies.

server.py PORT CERT KEY ROOTS RECORD

CreateSession (POST /sessions): the canonical request is made anew by botocore from what came, the string to sign and the
signature (SigV4-X509) are checked with the certificate, the chain by openssl verify against ROOTS, then serial number,
region, date, ARNs. What is wrong is refused by the name in CHECKS. The last good request is written to RECORD. /late has
a clock ten minutes ahead; the other paths answer as the service never should.
GetCallerIdentity (POST /): SigV4 with a session's secret, checked by botocore making the same signature.
One line of standard output for each request: path, status, name.
"""
import base64
import binascii
import datetime
import hashlib
import http.server
import json
import re
import secrets
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.parse

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

PORT, CERT, KEY, ROOTS, RECORD = sys.argv[1:]
REGION = "eu-central-1"
ANCHOR = f"arn:aws:rolesanywhere:{REGION}:111122223333:trust-anchor/t"
PROFILE = f"arn:aws:rolesanywhere:{REGION}:111122223333:profile/p"
ROLE = "arn:aws:iam::111122223333:role/agents"
FORM = re.compile(r"(AWS4-X509-(?:ECDSA|RSA)-SHA256) Credential=([0-9]+)/([0-9]{8})/([a-z0-9-]+)/rolesanywhere/aws4_request, "
                  r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]+)")
sessions = {}
lock = threading.Lock()


class Refused(Exception):
    def __init__(self, name, text, status=403):
        super().__init__(text)
        self.name, self.status = name, status


def now(path=""):
    ahead = datetime.timedelta(minutes=10 if path.startswith("/late") else 0)
    return datetime.datetime.utcnow().replace(microsecond=0) + ahead


def from_base64(text, what):
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Refused("CertificateFormException", f"{what}: {error}") from error


def load(der):
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise Refused("CertificateFormException", str(error)) from error


def check_signature(cert, algorithm, signature, text):
    key = cert.public_key()
    kind = "RSA" if isinstance(key, rsa.RSAPublicKey) else "ECDSA"
    if algorithm != f"AWS4-X509-{kind}-SHA256":
        raise Refused("AlgorithmException", f"{algorithm} with a key for {kind}")
    try:
        if kind == "RSA":
            key.verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
        else:
            key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise Refused("SignatureDoesNotMatch", "the signature is another request's") from error


def check_chain(cert, chain, at):
    if not cert.not_valid_before <= at <= cert.not_valid_after:
        raise Refused("CertificateExpiredException", f"until {cert.not_valid_after}")
    usage = cert.extensions.get_extension_for_class(x509.KeyUsage).value
    basic = [e for e in cert.extensions if isinstance(e.value, x509.BasicConstraints)]
    if not usage.digital_signature or any(e.value.ca for e in basic):
        raise Refused("CertificateUsageException", "no end entity's certificate for signatures")
    with tempfile.NamedTemporaryFile("wb") as leaf, tempfile.NamedTemporaryFile("wb") as middle:
        leaf.write(cert.public_bytes(serialization.Encoding.PEM))
        for one in chain:
            middle.write(one.public_bytes(serialization.Encoding.PEM))
        leaf.flush()
        middle.flush()
        between = ["-untrusted", middle.name] if chain else []
        verify = subprocess.run(["openssl", "verify", "-x509_strict", "-CAfile", ROOTS, *between, leaf.name],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if verify.returncode != 0:
        why = re.search(r"error [0-9]+ at .*", verify.stdout)
        raise Refused("UntrustedCertificateException" if why else "InternalServerException", why.group() if why else verify.stdout)


def canonical(method, url, headers, names, body):
    request = AWSRequest(method, url, data=body, headers={name: headers[name] for name in names})
    return SigV4Auth(Credentials("a", "b"), "rolesanywhere", REGION).canonical_request(request)


def check_request(path, headers, body):
    """Whose it is: the certificate."""
    parts = FORM.fullmatch(headers.get("Authorization", ""))
    if not parts:
        raise Refused("IncompleteSignature", "Authorization: not of its form")
    algorithm, serial, day, region, names, signature = parts.groups()
    names = names.split(";")
    for name in ("host", "x-amz-date", "x-amz-x509", "content-type") + (("x-amz-x509-chain",) if "X-Amz-X509-Chain" in headers else ()):
        if name not in names:
            raise Refused("UnsignedHeaderException", f"{name} is not signed")
        if not headers.get(name):
            raise Refused("MissingHeaderException", f"no {name}")
    if region != REGION:
        raise Refused("RegionException", region)
    date = headers["X-Amz-Date"]
    if date[:8] != day:
        raise Refused("ScopeException", f"{day}, the date is {date}")
    skew = abs((datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ") - now(path)).total_seconds())
    if skew > 300:
        raise Refused("RequestExpired", f"{date} is {skew:.0f} s from here")
    cert = load(from_base64(headers["X-Amz-X509"], "X-Amz-X509"))
    chain = [load(from_base64(one, "X-Amz-X509-Chain")) for one in headers.get("X-Amz-X509-Chain", "").split(",") if one]
    if len(chain) > 5:
        raise Refused("ChainLengthException", str(len(chain)))
    if serial != str(cert.serial_number):
        raise Refused("SerialNumberException", f"{serial}, the certificate's is {cert.serial_number}")
    text = canonical("POST", f"https://{headers['Host']}{path}", headers, names, body)
    digest = hashlib.sha256(text.encode()).hexdigest()
    check_signature(cert, algorithm, bytes.fromhex(signature),
                    f"{algorithm}\n{date}\n{day}/{region}/rolesanywhere/aws4_request\n{digest}".encode())
    check_chain(cert, chain, now(path))
    return cert


def check_body(path, body):
    """The ARNs are members of the body, or parameters of the URL (AWS's own helper sends them so)."""
    try:
        asked = {**dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query)), **json.loads(body)}
    except ValueError as error:
        raise Refused("ValidationException", f"the body: {error}", 400) from error
    for name, expected in (("trustAnchorArn", ANCHOR), ("profileArn", PROFILE), ("roleArn", ROLE)):
        if asked.get(name) != expected:
            raise Refused("ResourceNotFoundException", f"{name}: {asked.get(name)}", 404)
    seconds = asked.get("durationSeconds", 3600)
    if not isinstance(seconds, int) or not 900 <= seconds <= 43200:
        raise Refused("ValidationException", f"durationSeconds: {seconds}", 400)
    if not re.fullmatch(r"[\w=,.@-]{2,64}", asked.get("roleSessionName", "none")):
        raise Refused("ValidationException", "roleSessionName", 400)
    return seconds, asked.get("roleSessionName")


def create_session(path, headers, body):
    cert = check_request(path, headers, body)
    seconds, name = check_body(path, body)
    uri = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.UniformResourceIdentifier)[0]
    made = {
        "accessKeyId": "ASIA" + secrets.token_hex(8).upper(),
        "secretAccessKey": base64.b64encode(secrets.token_bytes(30)).decode(),
        "sessionToken": base64.b64encode(secrets.token_bytes(300)).decode(),
        # a session that ends at once, for who tests its end
        "expiration": (now() + datetime.timedelta(seconds=8 if path.startswith("/short") else seconds)).isoformat() + "Z",
    }
    with lock:
        sessions[made["accessKeyId"]] = {**made, "uri": uri, "name": name or format(cert.serial_number, "x")}
    with open(RECORD, "w", encoding="ascii") as record:
        json.dump({"path": path, "headers": dict(headers), "body": body.decode()}, record)
    return 201, json.dumps({"credentialSet": [{"credentials": made, "roleArn": ROLE}], "subjectArn": "arn:x"})


def caller_identity(headers, body):
    parts = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=([A-Z0-9]+)/([0-9]{8})/([a-z0-9-]+)/sts/aws4_request, "
                         r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})", headers.get("Authorization", ""))
    session = sessions.get(parts.group(1)) if parts else None
    if not session or headers.get("X-Amz-Security-Token") != session["sessionToken"]:
        raise Refused("InvalidClientTokenId", "no such session")
    if session["expiration"] < now().isoformat() + "Z":
        raise Refused("ExpiredToken", session["expiration"])
    request = AWSRequest("POST", f"https://{headers['Host']}/", data=body,
                         headers={name: headers[name] for name in parts.group(4).split(";")})
    request.context["timestamp"] = headers["X-Amz-Date"]
    signer = SigV4Auth(Credentials(session["accessKeyId"], session["secretAccessKey"]), "sts", parts.group(3))
    text = signer.string_to_sign(request, signer.canonical_request(request))
    if signer.signature(text, request) != parts.group(5):
        raise Refused("SignatureDoesNotMatch", "another secret's signature")
    arn = f"arn:aws:sts::111122223333:assumed-role/agents/{session['name']}"
    return ('<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
            f"<Arn>{arn}</Arn><UserId>{session['uri']}</UserId><Account>111122223333</Account></GetCallerIdentityResult>"
            "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></GetCallerIdentityResponse>")


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, status, body, headers=None, name="-"):
        print(self.path, status, name, flush=True)
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        secret = {"accessKeyId": "ASIA", "secretAccessKey": "s", "sessionToken": "t", "expiration": "2099-01-01T00:00:00Z"}

        def given(**more):
            return json.dumps({"credentialSet": [{"credentials": {**secret, **more}}]})
        odd = {
            "/redirect": (307, "{}", {"Location": f"https://127.0.0.1:{PORT}/sessions"}),
            "/none": (201, "{}"), "/html": (201, "<html>"), "/past": (201, given(expiration="2020-01-01T00:00:00Z")),
            "/lines": (201, given(secretAccessKey="a\nb")), "/huge": (201, given(more="x" * 70000)),
            "/busy": (503, "later"), "/echo": (403, json.dumps({"message": "\x1b[31m" + self.headers.get("Authorization", "")})),
        }
        try:
            if self.path in odd:
                return self.answer(*odd[self.path])
            if self.path == "/":
                return self.answer(200, caller_identity(self.headers, body), {"Content-Type": "text/xml"})
            return self.answer(*create_session(self.path, self.headers, body))
        except Refused as error:
            return self.answer(error.status, json.dumps({"message": str(error)}), {"X-Amzn-ErrorType": error.name}, error.name)


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(CERT, KEY)
server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print("ready", flush=True)
server.serve_forever()
