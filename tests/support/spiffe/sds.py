#!/usr/bin/env python3
"""A client of Envoy's Secret Discovery Service v3 by gRPC's own Python library, which follows the rules of xDS, or breaks
one of them where it is told to.

sds.py STUBS SOCKET fetch NAME…            one FetchSecrets
sds.py STUBS SOCKET key NAME               the same; only the private key, as it came
sds.py STUBS SOCKET burst N NAME           N times at once, by connections of 100 each: how many ended how
sds.py STUBS SOCKET stream [version=V] NAME…   StreamSecrets, as a client that has V already; then a line of stdin is a command:
    ack | nack TEXT | mismatch             answers the last response
    old                                    answers the last but one
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
last = before = None
names = []


def say(**what):
    what["ms"] = int(time.time() * 1000)
    print(json.dumps(what), flush=True)


def der_sha(kind, pem):
    """SHA-256 of the DER, by openssl: what is read here is PEM that openssl reads, too."""
    got = subprocess.run(["openssl", kind, "-outform", "DER"], input=pem, stdout=subprocess.PIPE, check=True)
    return hashlib.sha256(got.stdout).hexdigest()


def certificate(secret):
    """The chain's first certificate and whether the key is its own, by openssl; of the key only its digest is told."""
    chain, key = secret.certificate_chain.inline_bytes, secret.private_key.inline_bytes
    of_leaf = subprocess.run(["openssl", "x509", "-noout", "-pubkey"], input=chain, stdout=subprocess.PIPE, check=True)
    of_key = subprocess.run(["openssl", "pkey", "-pubout"], input=key, stdout=subprocess.PIPE, check=True)
    again = subprocess.run(["openssl", "pkcs8", "-topk8", "-nocrypt"], input=key, stdout=subprocess.PIPE, check=True)
    return {"kind": "tls_certificate", "chain": chain.count(b"BEGIN CERTIFICATE"), "leaf": der_sha("x509", chain),
            "fits": of_leaf.stdout == of_key.stdout, "pkcs8": again.stdout == key, "key": hashlib.sha256(key).hexdigest()}


def show(answer):
    came = int(time.time() * 1000)
    secrets = {}
    for one in answer.resources:
        assert one.type_url == TYPE, one.type_url
        secret = secret_pb2.Secret.FromString(one.value)
        if secret.WhichOneof("type") == "tls_certificate":
            secrets[secret.name] = certificate(secret.tls_certificate)
            continue
        context = secret.validation_context
        secrets[secret.name] = {"kind": secret.WhichOneof("type"),
                                "roots": context.trusted_ca.inline_bytes.count(b"BEGIN CERTIFICATE"),
                                "root": der_sha("x509", context.trusted_ca.inline_bytes),
                                "crl": der_sha("crl", context.crl.inline_bytes) if context.HasField("crl") else "",
                                "leafOnly": context.only_verify_leaf_cert_crl}
    assert answer.type_url == TYPE, answer.type_url
    say(version=answer.version_info, nonce=answer.nonce, secrets=secrets, names=",".join(sorted(secrets)), came=came)


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
    elif word == "old":
        outgoing.put(request(before.nonce, before.version_info))
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
    global last, before, names
    names = [one for one in of if not one.startswith("version=")]
    outgoing = queue.Queue()
    outgoing.put(request(version="".join(one[8:] for one in of if one.startswith("version="))))
    call = channel.stream_stream(SERVICE + "StreamSecrets", secret_pb2.DiscoveryRequest.SerializeToString,
                                 secret_pb2.DiscoveryResponse.FromString)(requests(outgoing))

    def commands():
        for line in sys.stdin:
            obey(line, outgoing, "")

    threading.Thread(target=commands, daemon=True).start()
    for answer in call:
        before, last = last, answer
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


def fetch(by=channel):
    return by.unary_unary(SERVICE + "FetchSecrets", secret_pb2.DiscoveryRequest.SerializeToString,
                          secret_pb2.DiscoveryResponse.FromString)


def burst(n, name):
    began = time.monotonic()
    channels = [grpc.insecure_channel("unix://" + sys.argv[2], (("grpc.use_local_subchannel_pool", 1),))
                for _ in range((n + 99) // 100)]
    calls = [fetch(channels[at // 100]).future(request(of=[name]), timeout=50) for at in range(n)]
    ends = {}
    for call in calls:
        end = "OK" if call.code() == grpc.StatusCode.OK else call.code().name + " " + call.details()
        ends[end] = ends.get(end, 0) + 1
    say(ends=ends, took=int(1000 * (time.monotonic() - began)))


def run(command, *args):
    if command == "fetch":
        show(fetch()(request(of=args), timeout=20))
    elif command == "key":
        answer = fetch()(request(of=args), timeout=20)
        sys.stdout.write(secret_pb2.Secret.FromString(answer.resources[0].value).tls_certificate.private_key.inline_bytes.decode())
    elif command == "burst":
        burst(int(args[0]), args[1])
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
