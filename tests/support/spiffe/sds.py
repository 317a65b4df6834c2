#!/usr/bin/env python3
"""A client of Envoy's Secret Discovery Service v3 by gRPC's own Python library, which follows the rules of xDS, or breaks
one of them where it is told to.

sds.py STUBS SOCKET fetch NAME…            one FetchSecrets
sds.py STUBS SOCKET stream NAME…           StreamSecrets; then a line of stdin is a command:
    ack | nack TEXT | mismatch             answers the last response
    stale NAME…                            answers with a nonce that was never sent, naming others
    names NAME… | none                     subscribes to other names, acknowledging the last response
    early NAME…                            the same without nonce or version
    end                                    half-closes
sds.py STUBS SOCKET raw type=URL | names=N | long=N | bytes=HEX | empty   one StreamSecrets that is to be refused
One JSON object a line on stdout; a call's end is {"code", "message"}.
"""
import hashlib
import json
import queue
import subprocess
import sys
import threading
import time

sys.path.insert(0, sys.argv[1])
import grpc  # noqa: E402
import secret_pb2  # noqa: E402

SERVICE = "/envoy.service.secret.v3.SecretDiscoveryService/"
TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
channel = grpc.insecure_channel("unix://" + sys.argv[2])
last = None
names = []


def say(**what):
    what["ms"] = int(time.time() * 1000)
    print(json.dumps(what), flush=True)


def der_sha(kind, pem):
    """SHA-256 of the DER, by openssl: what is read here is PEM that openssl reads, too."""
    got = subprocess.run(["openssl", kind, "-outform", "DER"], input=pem, stdout=subprocess.PIPE, check=True)
    return hashlib.sha256(got.stdout).hexdigest()


def show(answer):
    secrets = {}
    for one in answer.resources:
        assert one.type_url == TYPE, one.type_url
        secret = secret_pb2.Secret.FromString(one.value)
        context = secret.validation_context
        secrets[secret.name] = {"kind": secret.WhichOneof("type"),
                                "roots": context.trusted_ca.inline_bytes.count(b"BEGIN CERTIFICATE"),
                                "root": der_sha("x509", context.trusted_ca.inline_bytes),
                                "crl": der_sha("crl", context.crl.inline_bytes) if context.HasField("crl") else "",
                                "leafOnly": context.only_verify_leaf_cert_crl}
    assert answer.type_url == TYPE, answer.type_url
    say(version=answer.version_info, nonce=answer.nonce, secrets=secrets, names=",".join(sorted(secrets)))


def request(nonce="", version="", error=None, of=None):
    got = secret_pb2.DiscoveryRequest(version_info=version, resource_names=names if of is None else of, type_url=TYPE,
                                      response_nonce=nonce)
    if error is not None:
        got.error_detail.code = 13
        got.error_detail.message = error
    return got


def requests(outgoing):
    yield from iter(outgoing.get, None)


def obey(line, outgoing, accepted):
    """accepted: the version before the last response (a NACK names it)."""
    global names
    word, *rest = line.split()
    if word == "ack":
        outgoing.put(request(last.nonce, last.version_info))
    elif word == "nack":
        outgoing.put(request(last.nonce, accepted, " ".join(rest)))
    elif word == "mismatch":
        outgoing.put(request(last.nonce, "0123456789abcdef"))
    elif word == "stale":
        outgoing.put(request("977", last.version_info, of=rest))
    elif word == "early":
        names = rest
        outgoing.put(request())
    elif word in ("names", "none"):
        names = rest
        outgoing.put(request(last.nonce, last.version_info))
    elif word == "end":
        outgoing.put(None)
    say(did=word)


def stream(of):
    global last, names
    names = of
    outgoing = queue.Queue()
    outgoing.put(request())
    call = channel.stream_stream(SERVICE + "StreamSecrets", secret_pb2.DiscoveryRequest.SerializeToString,
                                 secret_pb2.DiscoveryResponse.FromString)(requests(outgoing))

    def commands():
        for line in sys.stdin:
            obey(line, outgoing, "")

    threading.Thread(target=commands, daemon=True).start()
    for answer in call:
        last = answer
        show(answer)
    say(code="OK", message="")


def raw(what):
    word, _, value = what.partition("=")
    data = {"type": lambda: secret_pb2.DiscoveryRequest(type_url=value, resource_names=["ROOTCA"]).SerializeToString(),
            "names": lambda: request(of=[f"n{i}" for i in range(int(value))]).SerializeToString(),
            "long": lambda: request(of=["n" * int(value)]).SerializeToString(),
            "version": lambda: request(version="v" * int(value), of=["ROOTCA"]).SerializeToString(),
            "empty": lambda: request(of=[]).SerializeToString(),
            "bytes": lambda: bytes.fromhex(value)}[word]()
    wait = threading.Event()

    def one():
        yield data
        wait.wait(30)

    try:
        for answer in channel.stream_stream(SERVICE + "StreamSecrets", lambda x: x,
                                            secret_pb2.DiscoveryResponse.FromString)(one(), timeout=20):
            show(answer)
    finally:
        wait.set()


def run(command, *args):
    if command == "fetch":
        show(channel.unary_unary(SERVICE + "FetchSecrets", secret_pb2.DiscoveryRequest.SerializeToString,
                                 secret_pb2.DiscoveryResponse.FromString)(request(of=args), timeout=20))
    elif command == "stream":
        stream(list(args))
    elif command == "raw":
        raw(args[0])
    else:
        sys.exit("unknown command " + command)


try:
    run(*sys.argv[3:])
except grpc.RpcError as end:
    say(code=end.code().name, message=end.details())
