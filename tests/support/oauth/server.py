#!/usr/bin/env python3
"""An OAuth token endpoint made of oauthlib, which takes JWT-SVIDs that python3-jwt verifies by what their issuer publishes.

server.py PORT CERT KEY ISSUER CA_FILE AUDIENCE

/token   RFC 8693, RFC 7523 §2.1 and §2.2 (client "robot"), form or JSON; /late/token has a clock an hour ahead,
/other/token trusts another issuer. /whoami says whose a token is. The rest answers as no token endpoint should.
One line of standard output for each request: path, status, length of what came.
"""
import http.server
import json
import ssl
import sys
import time
import urllib.parse
import urllib.request

import jwt
from oauthlib.oauth2 import BearerToken, InvalidClientError, InvalidGrantError, InvalidRequestError, OAuth2Error
from oauthlib.oauth2 import RequestValidator, TokenEndpoint, UnsupportedGrantTypeError
from oauthlib.oauth2.rfc6749.grant_types.base import GrantTypeBase

PORT, CERT, KEY, ISSUER, CA_FILE, AUDIENCE = sys.argv[1:]
URN = "urn:ietf:params:oauth:"
EXCHANGE, BEARER = URN + "grant-type:token-exchange", URN + "grant-type:jwt-bearer"
owners = {}  # of the tokens that were given


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
        return jwt.decode(token, key, algorithms=["ES256"], audience=AUDIENCE, issuer=trusted, leeway=-3600 if late else 0,
                          options={"require": ["exp", "iat", "iss", "aud", "sub"], "verify_iat": not late})
    except (jwt.InvalidTokenError, KeyError) as error:
        raise InvalidGrantError(description=str(error), request=request) from error


class Validator(RequestValidator):
    def save_bearer_token(self, token, request, *args, **kwargs):
        owners[token["access_token"]] = {"sub": request.user, "scope": token.get("scope", ""), "grant": request.grant_type}


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
        if member("client_assertion_type") != URN + "client-assertion-type:jwt-bearer" or request.client_id != "robot":
            raise InvalidClientError(description="no such client", request=request)
        return member("client_assertion")

    def create_token_response(self, request, token_handler):
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        try:
            if request.duplicate_params:
                raise InvalidRequestError(description="twice: " + request.duplicate_params[0], request=request)
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
    "", BearerToken(grant.request_validator, expires_in=lambda request: lifetime["s"]),
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
        return self.answer(401, "{}")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
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
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        lifetime["s"] = 4 if self.path.startswith("/short") else 600
        headers, text, status = endpoint.create_token_response(self.path, "POST", body, headers)
        return self.answer(status, text, headers)


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(CERT, KEY)
server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print("ready", flush=True)
server.serve_forever()
