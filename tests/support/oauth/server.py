#!/usr/bin/env python3
"""An OAuth token endpoint made of oauthlib, which takes JWT-SVIDs that python3-jwt verifies by what their issuer publishes.

server.py PORT CERT KEY ISSUER CA_FILE AUDIENCE [CLIENT_CA [SUBJECT [SUBJECT2]]]

/token   RFC 8693, RFC 7523 §2.1 and §2.2 (client "robot"), form or JSON; /late/token has a clock an hour ahead,
/other/token trusts another issuer, /once/token takes each assertion once, /never/token none. /whoami says whose a token is.
With CLIENT_CA (RFC 8705): clients must show a certificate of it, client "robot" is SUBJECT's (a URI), tokens are JWTs of
this server bound to the certificate (client "robot2" is SUBJECT2's); those of /unbound and /foreign are not, /opaque's say nothing, /long's last a day.
/introspect tells what a token is, /resource wants its certificate. OAUTH_TLS=1.1, 1.2: that version of TLS and no other.
The rest answers as no token endpoint should.
One line of standard output for each request: path, status, length of what came.
"""
import base64
import hashlib
import http.server
import json
import os
import secrets
import ssl
import sys
import time
import urllib.parse
import urllib.request

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from oauthlib.oauth2 import BearerToken, InvalidClientError, InvalidGrantError, InvalidRequestError, OAuth2Error
from oauthlib.oauth2 import RequestValidator, TokenEndpoint, UnsupportedGrantTypeError
from oauthlib.oauth2.rfc6749.grant_types.base import GrantTypeBase

PORT, CERT, KEY, ISSUER, CA_FILE, AUDIENCE, *MORE = sys.argv[1:]
CLIENT_CA, SUBJECT, SUBJECT2 = (MORE + ["", "", ""])[:3]
CLIENTS = {"robot": SUBJECT, "robot2": SUBJECT2}
URN = "urn:ietf:params:oauth:"
EXCHANGE, BEARER = URN + "grant-type:token-exchange", URN + "grant-type:jwt-bearer"
owners = {}  # of the tokens that were given
used = set()  # "jti"s of /once
signer = ec.generate_private_key(ec.SECP256R1())  # of tokens that are bound


def thumbprint(der):
    """RFC 8705 §3.1."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def uris(der):
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def bound_token(request, refresh_token=False):
    """What the request's certificate is, the token says; or not, where the path wants a server that is wrong."""
    if not CLIENT_CA or request.uri.startswith("/opaque"):
        return secrets.token_urlsafe(30)
    claims = {"iss": "https://oauth.example", "sub": request.user, "exp": int(time.time()) + lifetime["s"]}
    if request.uri.startswith("/foreign"):
        claims["cnf"] = {"x5t#S256": thumbprint(b"another")}
    elif not request.uri.startswith("/unbound"):
        claims["cnf"] = {"x5t#S256": thumbprint(base64.b64decode(request.headers["peer"]))}
    return jwt.encode(claims, signer, algorithm="ES256")


def published(path, context=ssl.create_default_context(cafile=CA_FILE)):
    with urllib.request.urlopen(ISSUER + path, context=context, timeout=10) as answer:
        return json.load(answer)


def verified(token, request):
    """The claims, or invalid_grant with the library's own words."""
    document = published("/.well-known/openid-configuration")
    keys = {key["kid"]: jwt.PyJWK(key) for key in published(urllib.parse.urlsplit(document["jwks_uri"]).path)["keys"]}
    late = request.uri.startswith("/late")
    trusted = "https://other.example" if request.uri.startswith("/other") else document["issuer"]
    try:
        key = keys[jwt.get_unverified_header(token)["kid"]].key
        claims = jwt.decode(token, key, algorithms=["ES256"], audience=AUDIENCE, issuer=trusted, leeway=-3600 if late else 0,
                          options={"require": ["exp", "iat", "iss", "aud", "sub"], "verify_iat": not late})
        if request.uri.startswith("/never") or (request.uri.startswith("/once") and claims["jti"] in used):
            raise jwt.InvalidTokenError("the assertion was used already")
        used.add(claims["jti"])
        return claims
    except (jwt.InvalidTokenError, KeyError) as error:
        raise InvalidGrantError(description=str(error), request=request) from error


class Validator(RequestValidator):
    def save_bearer_token(self, token, request, *args, **kwargs):
        owners[token["access_token"]] = {"sub": request.user, "scope": token.get("scope", ""), "grant": request.grant_type,
                                         "peer": request.headers.get("peer", "")}


class AssertionGrant(GrantTypeBase):
    """One class for the three: which member has the assertion, and what else must be there."""

    def subject(self, request):
        def member(name):
            return getattr(request, name, None)

        if request.grant_type == EXCHANGE:
            if member("subject_token_type") != URN + "token-type:jwt":
                raise InvalidRequestError(description="subject_token_type", request=request)
            return member("subject_token")
        if request.grant_type == BEARER:
            return member("assertion")
        if request.grant_type != "client_credentials":
            raise UnsupportedGrantTypeError(request=request)
        if member("client_assertion_type") != URN + "client-assertion-type:jwt-bearer" or request.client_id not in CLIENTS:
            raise InvalidClientError(description="no such client", request=request)
        return member("client_assertion")

    def certificate_user(self, request):
        """RFC 8705 §2.1, with the metadata tls_client_auth_san_uri."""
        found = uris(base64.b64decode(request.headers["peer"]))
        if CLIENTS.get(request.client_id, "") not in found:
            raise InvalidClientError(description=f"client {request.client_id} is not {found[0]}", request=request)
        return found[0]

    def create_token_response(self, request, token_handler):
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        try:
            if request.duplicate_params:
                raise InvalidRequestError(description="twice: " + request.duplicate_params[0], request=request)
            if CLIENT_CA and request.grant_type == "client_credentials" and not getattr(request, "client_assertion", None):
                request.user = self.certificate_user(request)
            else:
                token = self.subject(request)
                if not token:
                    raise InvalidRequestError(description="no assertion", request=request)
                request.user = verified(token, request)["sub"]
            request.scopes = (request.scope or "").split()
            made = token_handler.create_token(request, refresh_token=False)
            if request.grant_type == EXCHANGE:
                made["issued_token_type"] = URN + "token-type:access_token"
            self.request_validator.save_bearer_token(made, request)
        except OAuth2Error as error:
            return headers, error.json, error.status_code
        return headers, json.dumps(made), 200


grant = AssertionGrant(request_validator=Validator())
lifetime = {"s": 600}
endpoint = TokenEndpoint(
    "", BearerToken(grant.request_validator, token_generator=bound_token, expires_in=lambda request: lifetime["s"]),
    {EXCHANGE: grant, BEARER: grant, "client_credentials": grant, "": grant})


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def answer(self, status, body, headers=None):
        self.log(status)
        body = body if isinstance(body, bytes) else body.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log(self, status):
        print(self.path, status, self.headers.get("Content-Length", "0"), flush=True)

    def do_GET(self):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.path == "/whoami" and token in owners:
            return self.answer(200, json.dumps(owners[token]))
        if self.path == "/resource" and CLIENT_CA:
            return self.resource(token)
        return self.answer(401, "{}")

    def peer(self):
        return self.connection.getpeercert(binary_form=True) if CLIENT_CA else b""

    def resource(self, token):
        """RFC 8705 §3: the certificate of this connection, or the token is worth nothing."""
        try:
            claims = jwt.decode(token, signer.public_key(), algorithms=["ES256"], issuer="https://oauth.example")
        except jwt.InvalidTokenError as error:
            return self.answer(401, json.dumps({"error": "invalid_token", "why": str(error)}))
        if claims.get("cnf", {}).get("x5t#S256") != thumbprint(self.peer()):
            return self.answer(401, json.dumps({"error": "invalid_token", "why": "another certificate"}))
        return self.answer(200, json.dumps({"sub": claims["sub"], "peer": uris(self.peer())[0]}))

    def introspect(self, body):
        """RFC 7662 §2.2, RFC 8705 §3.2."""
        token = urllib.parse.parse_qs(body).get("token", [""])[0]
        if token not in owners or self.path.startswith("/inactive"):
            return self.answer(200, json.dumps({"active": False}))
        cnf = {} if self.path.startswith("/unbound") else {
            "cnf": {"x5t#S256": thumbprint(base64.b64decode(owners[token]["peer"]))}}
        return self.answer(200, json.dumps({"active": True, "sub": owners[token]["sub"], **cnf}))

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path.endswith("/introspect"):
            return self.introspect(body)
        if self.path.endswith("/token"):
            return self.token(body)
        sent = next(iter(urllib.parse.parse_qs(body).get("subject_token", ["?"])))
        bearer = {"access_token": "abc", "token_type": "Bearer", "expires_in": 600}
        odd = {
            "/redirect": (307, "{}", {"Location": f"https://127.0.0.1:{PORT}/token"}),
            "/huge": (200, json.dumps({**bearer, "more": "x" * 70000})),
            "/none": (200, json.dumps({"token_type": "Bearer", "expires_in": 600})),
            "/html": (200, "<html>welcome</html>"),
            "/dpop": (200, json.dumps({**bearer, "token_type": "DPoP"})),
            "/lines": (200, json.dumps({**bearer, "access_token": "abc\r\nX: y"})),
            "/over": (200, json.dumps({**bearer, "expires_in": 0})),
            "/echo": (400, json.dumps({"error": "invalid_grant", "error_description": "\x1b[31mbad " + sent})),
            "/busy": (503, "try later"),
        }
        if self.path == "/slow":
            self.log(0)
            try:
                while True:  # a byte at a time, for ever: no read of it times out
                    self.wfile.write(b"H")
                    time.sleep(0.2)
            except OSError:
                return None
        return self.answer(*odd[self.path])

    def token(self, body):
        if self.headers["Content-Type"] == "application/json":  # as some services want it
            body = urllib.parse.urlencode(json.loads(body))
        headers = {"Content-Type": "application/x-www-form-urlencoded", "peer": base64.b64encode(self.peer()).decode()}
        lifetime["s"] = {"short": 4, "long": 86400}.get(self.path.split("/")[1], 600)
        headers, text, status = endpoint.create_token_response(self.path, "POST", body, headers)
        return self.answer(status, text, headers)


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(CERT, KEY)
if CLIENT_CA:
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(CLIENT_CA)
only = {"1.1": ssl.TLSVersion.TLSv1_1, "1.2": ssl.TLSVersion.TLSv1_2}.get(os.environ.get("OAUTH_TLS", ""))
if only == ssl.TLSVersion.TLSv1_1:
    tls.set_ciphers("DEFAULT@SECLEVEL=0")  # else OpenSSL 3 does not speak it at all
if only:
    tls.minimum_version = tls.maximum_version = only
server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print("ready", flush=True)
server.serve_forever()
