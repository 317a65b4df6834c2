#!/usr/bin/env python3
"""A client of api.sock by gRPC's own Python library, with stubs generated from the published protocol.

client.py STUBS SOCKET COMMAND…: one JSON object a line on stdout; a call's end is {"code", "message"}.
"""
import hashlib
import json
import sys
import time

sys.path.insert(0, sys.argv[1])
import grpc  # noqa: E402
import health_pb2  # noqa: E402
import health_pb2_grpc  # noqa: E402
import signer_pb2  # noqa: E402
import signer_pb2_grpc  # noqa: E402
import workload_pb2  # noqa: E402
import workload_pb2_grpc  # noqa: E402

MARK = (("workload.spiffe.io", "true"),)
channel = grpc.insecure_channel("unix://" + sys.argv[2])
workload = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
signer = signer_pb2_grpc.SignerStub(channel)
health = health_pb2_grpc.HealthStub(channel)


def say(**what):
    what["ms"] = int(time.time() * 1000)
    print(json.dumps(what), flush=True)


def took():
    """Since the call was made: not what the interpreter's start took."""
    return int((time.monotonic() - began) * 1000)


def ended(error):
    say(code=error.code().name, message=error.details(), took=took())


def sha(data):
    return hashlib.sha256(data).hexdigest()


def show_bundles(answer):
    say(bundles={name: sha(der) for name, der in answer.bundles.items()},
        sizes=[len(der) for der in answer.bundles.values()],
        roots={name: certificates(der) for name, der in answer.bundles.items()}, crl=[sha(one) for one in answer.crl])


def show_chain(answer):
    say(id=answer.spiffe_id, key=answer.key_id, leaf=sha(answer.chain[0]), chain=len(answer.chain),
        bundle=len(answer.bundle), notAfter=answer.not_after, store=answer.key_store)


def show_svid(answer):
    """The key belongs to the leaf, the leaf to the roots; how the key is held, by the issuer's word in the leaf."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    one = answer.svids[0]
    leaf = x509.load_der_x509_certificate(one.x509_svid[:der_len(one.x509_svid)])
    key = serialization.load_der_private_key(one.x509_svid_key, None)
    again = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    uris = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.UniformResourceIdentifier)
    held = [one.value.value for one in leaf.extensions if isinstance(one.value, x509.UnrecognizedExtension)]
    life = (leaf.not_valid_after - leaf.not_valid_before).total_seconds()
    say(svids=len(answer.svids), id=one.spiffe_id, uris=uris, leaf=sha(leaf.public_bytes(form[0])),
        fits=key.public_key().public_bytes(*form) == leaf.public_key().public_bytes(*form), key=sha(one.x509_svid_key),
        pkcs8=again == one.x509_svid_key, bundle=sha(one.bundle), crl=[sha(one) for one in answer.crl],
        marked=any(b"exportable" in one for one in held), life=life,
        federated={name: sha(der) for name, der in answer.federated_bundles.items()})


def der_len(data):
    """Of the first of several values in a row."""
    octets = data[1] & 0x7f if data[1] & 0x80 else 0
    return 2 + octets + (int.from_bytes(data[2:2 + octets], "big") if octets else data[1])


def certificates(data):
    """How many there are in a row."""
    n = 0
    while data:
        data = data[der_len(data):]
        n += 1
    return n


def stream(call, show):
    try:
        for answer in call:
            show(answer)
        say(code="OK", message="")
    except grpc.RpcError as error:
        ended(error)


def sign(key_id="", spiffe_id="", algorithm=1, digest=None, quiet=False):
    """Signs and verifies with the public key of the certificate in force."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    chain = signer.Chain(signer_pb2.ChainRequest(), timeout=20)
    digest = hashlib.sha256(b"a trade").digest() if digest is None else digest
    answer = signer.Sign(signer_pb2.SignRequest(algorithm=algorithm, digest=digest, key_id=key_id,
                                                spiffe_id=spiffe_id), timeout=20)
    verified = False
    if answer.key_id == chain.key_id:
        public = x509.load_der_x509_certificate(chain.chain[0]).public_key()
        public.verify(answer.signature, digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        verified = True
    if not quiet:
        say(signature=len(answer.signature), key=answer.key_id, verified=verified)


def forever():
    """A signature ten times a second; a line when the outcome changes."""
    last = None
    while True:
        try:
            sign(quiet=True)
            now = "OK"
        except grpc.RpcError as error:
            now = error.code().name
        if now != last:
            say(code=now)
            last = now
        time.sleep(0.1)


def run(command, *args):
    if command == "bundles":
        stream(workload.FetchX509Bundles(workload_pb2.X509BundlesRequest(), metadata=MARK), show_bundles)
    elif command == "bundles-for":
        stream(workload.FetchX509Bundles(workload_pb2.X509BundlesRequest(), metadata=MARK, timeout=float(args[0])),
               show_bundles)
    elif command == "bundles-with":
        metadata = tuple(tuple(one.split("=")) for one in args)
        stream(workload.FetchX509Bundles(workload_pb2.X509BundlesRequest(), metadata=metadata), show_bundles)
    elif command == "svid":
        stream(workload.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=MARK), show_svid)
    elif command == "jwt":
        for call in (lambda: workload.FetchJWTSVID(workload_pb2.JWTSVIDRequest(audience=["a"]), metadata=MARK),
                     lambda: list(workload.FetchJWTBundles(workload_pb2.JWTBundlesRequest(), metadata=MARK)),
                     lambda: workload.ValidateJWTSVID(workload_pb2.ValidateJWTSVIDRequest(), metadata=MARK)):
            try:
                call()
                say(code="OK")
            except grpc.RpcError as error:
                ended(error)
    elif command == "token":  # TOKEN [id=SPIFFE_ID] AUDIENCE…
        ids = [one[3:] for one in args if one.startswith("id=")]
        answer = workload.FetchJWTSVID(workload_pb2.JWTSVIDRequest(
            audience=[one for one in args if not one.startswith("id=")], spiffe_id=ids[0] if ids else ""),
            metadata=MARK, timeout=30)
        say(code="OK", id=answer.svids[0].spiffe_id, token=answer.svids[0].svid, svids=len(answer.svids), took=took())
    elif command == "jwt-bundles":
        stream(workload.FetchJWTBundles(workload_pb2.JWTBundlesRequest(), metadata=MARK),
               lambda one: say(kids={name: [key["kid"] for key in json.loads(keys)["keys"]]
                                     for name, keys in one.bundles.items()}))
    elif command == "validate":
        from google.protobuf import json_format
        answer = workload.ValidateJWTSVID(workload_pb2.ValidateJWTSVIDRequest(audience=args[0], svid=args[1]),
                                          metadata=MARK, timeout=30)
        say(code="OK", id=answer.spiffe_id, claims=json_format.MessageToDict(answer.claims))
    elif command == "watch":
        stream(signer.Watch(signer_pb2.ChainRequest()), show_chain)
    elif command == "chain":
        show_chain(signer.Chain(signer_pb2.ChainRequest(), timeout=20))
    elif command == "sign":
        sign(**dict(one.split("=") for one in args))
    elif command == "sign-with":
        algorithm, length, key_id, spiffe_id = args
        sign(key_id=key_id, spiffe_id=spiffe_id, algorithm=int(algorithm), digest=b"x" * int(length))
    elif command == "sign-forever":
        forever()
    elif command == "health":
        answer = health.Check(health_pb2.HealthCheckRequest(service=args[0] if args else ""), timeout=20)
        say(status=health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    elif command == "health-watch":
        stream(health.Watch(health_pb2.HealthCheckRequest(service=args[0] if args else "")),
               lambda one: say(status=health_pb2.HealthCheckResponse.ServingStatus.Name(one.status)))
    elif command == "health-twice":
        first = health.Watch(health_pb2.HealthCheckRequest())
        next(first)
        stream(health.Watch(health_pb2.HealthCheckRequest()), lambda one: say(status="second"))
    elif command == "wit":
        for call in ("FetchWITSVID", "FetchWITBundles"):
            try:
                channel.unary_unary("/SpiffeWorkloadAPI/" + call)(b"", metadata=MARK, timeout=20)
            except grpc.RpcError as error:
                ended(error)
    else:
        sys.exit("unknown command " + command)


began = time.monotonic()
try:
    run(*sys.argv[3:])
except grpc.RpcError as end:
    ended(end)
