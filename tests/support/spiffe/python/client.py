#!/usr/bin/env python3
"""A program that knows SPIFFE and nothing of attestd: the library "spiffe" of PyPI, at the Workload API that
SPIFFE_ENDPOINT_SOCKET names. Answers are lines of JSON.

client.py svid                     fetch_x509_context once
client.py watch                    X509Source: a line at first and at each update
client.py refused                  X509Source of who is given no key, with a timeout
client.py bundles                  fetch_x509_bundles, fetch_jwt_bundles
client.py token AUDIENCE           fetch_jwt_svid, judged by validate_jwt_svid; another from JwtSource, judged by its own bundles
client.py validate AUDIENCE TOKEN  validate_jwt_svid
"""
import json
import logging
import sys
import threading
import time

import grpc
from spiffe import JwtSource, JwtSvid, WorkloadApiClient, X509Source
from spiffe.errors import PySpiffeError

TIMEOUT = 30.0


def say(**what):
    print(json.dumps(what), flush=True)


def ended(error):
    """Where the answer came by gRPC, its code and message; and the words that the library's user reads."""
    one = error
    while one is not None and not isinstance(one, grpc.Call):
        one = one.__cause__
    if one is None:
        say(code="error", message=str(error), said=str(error))
    else:
        say(code=one.code().name, message=one.details(), said=str(error))


def show(context, verify):
    svid = context.default_svid
    line = {"id": str(svid.spiffe_id), "serial": f"{svid.leaf.serial_number:x}", "chain": len(svid.cert_chain),
            "minutes": int((svid.leaf.not_valid_after_utc - svid.leaf.not_valid_before_utc).total_seconds() / 60)}
    if verify:
        roots = context.x509_bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain).x509_authorities
        line["verified"] = svid.private_key.public_key() == svid.leaf.public_key() and leads(svid.cert_chain, roots)
    say(**line)


def leads(chain, roots):
    """Each certificate is signed by the next, and the last by one of the roots; raises where a signature is not right."""
    for one, issuer in zip(chain, chain[1:]):
        one.verify_directly_issued_by(issuer)
    issuers = [root for root in roots if root.subject == chain[-1].issuer]
    for root in issuers:
        chain[-1].verify_directly_issued_by(root)
    return bool(issuers)


def svid():
    with WorkloadApiClient(default_timeout=TIMEOUT) as client:
        show(client.fetch_x509_context(), False)


def watch():
    with X509Source(timeout_in_seconds=TIMEOUT) as source:
        new = threading.Event()
        source.subscribe_for_updates(new.set)
        while True:
            show(source.get_x509_context(), True)
            new.wait()
            new.clear()


def refused():
    began = time.monotonic()
    try:
        X509Source(timeout_in_seconds=5.0)
        say(code="OK", message="")
    except PySpiffeError as error:
        say(code="error", message=str(error), seconds=round(time.monotonic() - began, 1))


def bundles():
    with WorkloadApiClient(default_timeout=TIMEOUT) as client:
        tokens = client.fetch_jwt_bundles()
        for one in client.fetch_x509_bundles().bundles:
            say(domain=str(one.trust_domain), serials=[f"{root.serial_number:x}" for root in one.x509_authorities],
                kids=sorted(tokens.get_bundle_for_trust_domain(one.trust_domain).jwt_authorities))


def token(audience):
    with WorkloadApiClient(default_timeout=TIMEOUT) as client:
        got = client.fetch_jwt_svid({audience})
        remote = client.validate_jwt_svid(got.token, audience)
    with JwtSource(timeout_in_seconds=TIMEOUT) as source:
        again = source.fetch_svid({audience})
        local = JwtSvid.parse_and_validate(again.token, source.get_bundle_for_trust_domain(again.spiffe_id.trust_domain),
                                           {audience})
    say(code="OK", id=str(got.spiffe_id), remote=str(remote.spiffe_id), local=str(local.spiffe_id), token=got.token)


def validate(audience, text):
    with WorkloadApiClient(default_timeout=TIMEOUT) as client:
        say(code="OK", id=str(client.validate_jwt_svid(text, audience).spiffe_id))


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr)
    commands = {"svid": svid, "watch": watch, "refused": refused, "bundles": bundles, "token": token, "validate": validate}
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        sys.exit("usage: client.py " + " | ".join(commands) + " [ARGUMENT…]")
    try:
        commands[sys.argv[1]](*sys.argv[2:])
    except PySpiffeError as failure:
        ended(failure)
