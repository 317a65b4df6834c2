#!/usr/bin/env python3
"""A matrix of calls of api.sock by gRPC's own Python library, with stubs generated from the published protocol: each line
of JSON is one check, {"check", "ok", "got"}; it exits 1 where one fails.

matrix.py STUBS SOCKET stranger | agent | exportable AUDIENCE: as nobody's agent, one whose key is in the TPM, one who is
    given a key
matrix.py STUBS SOCKET follow N: FetchX509SVID, N answers: a line with the certificate's digest for each
"""
import hashlib
import json
import sys
import threading
import time

sys.path.insert(0, sys.argv[1])
import grpc  # noqa: E402
import health_pb2  # noqa: E402
import health_pb2_grpc  # noqa: E402
import reflection_v1alpha_pb2 as reflection  # noqa: E402
import reflection_v1alpha_pb2_grpc  # noqa: E402
import signer_pb2  # noqa: E402
import signer_pb2_grpc  # noqa: E402
import workload_pb2 as w  # noqa: E402
import workload_pb2_grpc  # noqa: E402

NAME = "workload.spiffe.io"
MARK = ((NAME, "true"),)
channel = grpc.insecure_channel("unix://" + sys.argv[2])
api = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
signer = signer_pb2_grpc.SignerStub(channel)
health = health_pb2_grpc.HealthStub(channel)
failed = 0


def check(name, good, got=""):
    global failed
    failed += not good
    print(json.dumps({"check": name, "ok": bool(good), "got": str(got)}), flush=True)


def bundles():
    return METHODS["FetchX509Bundles"](metadata=MARK)


def outcome(call):
    """(code, message, first answer) of a call: a stream's first answer, or how it ended without one."""
    try:
        made = call()
        if hasattr(made, "cancel"):
            try:
                return "OK", "", next(made)
            finally:
                made.cancel()
        return "OK", "", made
    except StopIteration:
        return "OK", "no message", None
    except grpc.RpcError as error:
        return error.code().name, error.details(), None


# Each method of the Workload API with a request that is right.
METHODS = {
    "FetchX509SVID": lambda **how: api.FetchX509SVID(w.X509SVIDRequest(), timeout=20, **how),
    "FetchX509Bundles": lambda **how: api.FetchX509Bundles(w.X509BundlesRequest(), timeout=20, **how),
    "FetchJWTSVID": lambda **how: api.FetchJWTSVID(w.JWTSVIDRequest(audience=["https://api.example"]), timeout=20, **how),
    "FetchJWTBundles": lambda **how: api.FetchJWTBundles(w.JWTBundlesRequest(), timeout=20, **how),
    "ValidateJWTSVID": lambda **how: api.ValidateJWTSVID(
        w.ValidateJWTSVIDRequest(audience="https://api.example", svid="a.b.c"), timeout=20, **how),
}


def ends(name, call, code, words=""):
    got = outcome(call)
    check(name, got[0] == code and words in got[1], got[:2])


def headers():
    """Missing, doubled, with another value, in capitals: refused for everybody, before who it is matters."""
    wrong = {"missing": (), "doubled": MARK + MARK, "false": ((NAME, "false"),), "empty": ((NAME, ""),), "True": ((NAME, "True"),),
             "another's": (("workload.example", "true"),)}
    for method, call in METHODS.items():
        for what, metadata in wrong.items():
            ends(f"{method}, header {what}", lambda: call(metadata=metadata), "INVALID_ARGUMENT", NAME)


def unknown():
    """What the standard has or may have, and this server has not."""
    for path in ("/SpiffeWorkloadAPI/FetchWITSVID", "/SpiffeWorkloadAPI/FetchWITBundles", "/SpiffeWorkloadAPI/Nothing",
                 "/spiffe.workload.SpiffeWorkloadAPI/FetchX509SVID", "/nothing.Nobody/Call"):
        call = channel.unary_unary(path, request_serializer=lambda _: b"", response_deserializer=bytes)
        ends(path, lambda: call(None, metadata=MARK, timeout=20), "UNIMPLEMENTED")
    call = channel.unary_unary("/SpiffeWorkloadAPI/FetchJWTSVID", request_serializer=lambda _: b"\xff\xff\xff",
                               response_deserializer=bytes)
    ends("a request that is no protobuf", lambda: call(None, metadata=MARK, timeout=20), "INVALID_ARGUMENT")
    ends("compressed", lambda: api.FetchJWTSVID(w.JWTSVIDRequest(audience=["x" * 200]), metadata=MARK, timeout=20,
                                               compression=grpc.Compression.Gzip), "UNIMPLEMENTED")
    # Bytes that no client sends by itself: 64 KiB are the most a request may have.
    ends("too long", lambda: api.FetchJWTSVID(w.JWTSVIDRequest(audience=["x" * 70000]), metadata=MARK, timeout=20), "RESOURCE_EXHAUSTED")


def public():
    """For everybody: health and reflection."""
    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=20)
    check("health", answer.status == health_pb2.HealthCheckResponse.SERVING, answer.status)
    ends("health of an unknown service", lambda: health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=20), "NOT_FOUND")
    stub = reflection_v1alpha_pb2_grpc.ServerReflectionStub(channel)
    ask = iter([reflection.ServerReflectionRequest(list_services="*"),
                reflection.ServerReflectionRequest(file_containing_symbol="nobody.Nothing")])
    answers = list(stub.ServerReflectionInfo(ask, timeout=20))
    names = [one.name for one in answers[0].list_services_response.service]
    check("reflection: services", {"SpiffeWorkloadAPI", "attestd.v1.Signer", "grpc.health.v1.Health"} <= set(names), names)
    check("reflection: what is not there", answers[1].error_response.error_code == 5, answers[1].error_response)


def stranger(audience):
    headers()
    unknown()
    public()
    for method, call in METHODS.items():
        ends(f"{method}, nobody's agent", lambda: call(metadata=MARK), "PERMISSION_DENIED", "notAssigned")
    for name, call in (("Sign", lambda: signer.Sign(signer_pb2.SignRequest(algorithm=1, digest=bytes(32)), timeout=20)),
                       ("Chain", lambda: signer.Chain(signer_pb2.ChainRequest(), timeout=20)),
                       ("Watch", lambda: signer.Watch(signer_pb2.ChainRequest(), timeout=20))):
        ends(f"{name}, nobody's agent", call, "PERMISSION_DENIED", "notAssigned")
    check("nobody's agent has the same refusal as before, after all that", outcome(METHODS["FetchJWTBundles"])[0] == "INVALID_ARGUMENT")
    del audience


def tokens(audience):
    code, message, answer = outcome(lambda: api.FetchJWTSVID(w.JWTSVIDRequest(audience=[audience]), metadata=MARK, timeout=30))
    check("FetchJWTSVID", code == "OK" and len(answer.svids) == 1, (code, message))
    token = answer.svids[0].svid
    ends("an audience that is not allowed", lambda: api.FetchJWTSVID(
        w.JWTSVIDRequest(audience=["https://other.example"]), metadata=MARK, timeout=20), "PERMISSION_DENIED", "audienceDenied")
    ends("one of two audiences is not allowed", lambda: api.FetchJWTSVID(
        w.JWTSVIDRequest(audience=[audience, "https://other.example"]), metadata=MARK, timeout=20), "PERMISSION_DENIED", "audienceDenied")
    ends("no audience", lambda: api.FetchJWTSVID(w.JWTSVIDRequest(), metadata=MARK, timeout=20), "INVALID_ARGUMENT", "audience")
    ends("nine audiences", lambda: api.FetchJWTSVID(w.JWTSVIDRequest(audience=[f"a{n}" for n in range(9)]), metadata=MARK, timeout=20),
         "INVALID_ARGUMENT", "audience")
    ends("another's SPIFFE ID", lambda: api.FetchJWTSVID(
        w.JWTSVIDRequest(audience=[audience], spiffe_id="spiffe://bank.example/agent/nobody"), metadata=MARK, timeout=20),
         "PERMISSION_DENIED", "spiffe_id")

    def judged(name, words, **request):
        ends("ValidateJWTSVID: " + name, lambda: api.ValidateJWTSVID(w.ValidateJWTSVIDRequest(**request), metadata=MARK, timeout=20),
             "INVALID_ARGUMENT" if words else "OK", words)
    judged("right", "", audience=audience, svid=token)
    judged("another audience", "tokenAudience", audience="https://other.example", svid=token)
    judged("no audience", "audience", svid=token)
    judged("no token", "svid", audience=audience)
    judged("another signature", "tokenSignature", audience=audience, svid=token[:-40] + "A" * 40)
    judged("no form", "tokenForm", audience=audience, svid="a.b")


def deadlines():
    began = time.monotonic()
    try:
        for _ in api.FetchX509Bundles(w.X509BundlesRequest(), metadata=MARK, timeout=1.5):
            pass
        check("a stream's deadline", False, "it ended")
    except grpc.RpcError as error:
        check("a stream's deadline", error.code() == grpc.StatusCode.DEADLINE_EXCEEDED and 1 < time.monotonic() - began < 20, error.code())
    ends("a call whose time is over", lambda: signer.Chain(signer_pb2.ChainRequest(), timeout=0.000001), "DEADLINE_EXCEEDED")


def cancelled():
    """A stream that its client ends; the connection goes on, and the server has its place again: 1500 one after another, as
    libraries fetch once."""
    call = api.FetchX509Bundles(w.X509BundlesRequest(), metadata=MARK)
    next(call)
    call.cancel()
    try:
        next(call)
        check("a cancelled stream", False, "an answer")
    except (grpc.RpcError, StopIteration):
        check("a cancelled stream", call.code() == grpc.StatusCode.CANCELLED, call.code())
    codes = {}
    for _ in range(1500):
        code = outcome(bundles)[0]
        codes[code] = codes.get(code, 0) + 1
    check("1500 streams, each cancelled after its first message", codes == {"OK": 1500}, codes)


def at_once():
    """A hundred calls, and a hundred streams beside each other, on one connection."""
    codes, lock = {}, threading.Lock()

    def one():
        code, message, _ = outcome(lambda: signer.Chain(signer_pb2.ChainRequest(), timeout=60))
        with lock:
            codes[code + message] = codes.get(code + message, 0) + 1
    threads = [threading.Thread(target=one) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check("a hundred calls at once", codes == {"OK": 100}, codes)
    streams = [api.FetchX509Bundles(w.X509BundlesRequest(), metadata=MARK, timeout=60) for _ in range(100)]
    whole = sum(bool(next(stream).bundles) for stream in streams)
    for stream in streams:
        stream.cancel()
    check("a hundred streams at once", whole == 100, whole)
    codes = {}
    futures = [signer.Sign.future(signer_pb2.SignRequest(algorithm=1, digest=bytes(32)), timeout=60) for _ in range(20)]
    for future in futures:
        code = future.code().name
        codes[code] = codes.get(code, 0) + 1
    check("twenty signatures at once", set(codes) <= {"OK", "UNAVAILABLE"} and codes.get("OK", 0) > 0, codes)


def agent(audience):
    """Whose key is in the TPM."""
    ends("FetchX509SVID", lambda: METHODS["FetchX509SVID"](metadata=MARK), "PERMISSION_DENIED", "never leaves its store")
    code, message, answer = outcome(bundles)
    check("FetchX509Bundles", code == "OK" and list(answer.bundles) == ["spiffe://bank.example"], (code, message))
    code, message, answer = outcome(lambda: METHODS["FetchJWTBundles"](metadata=MARK))
    keys = json.loads(answer.bundles["spiffe://bank.example"])["keys"] if code == "OK" else []
    check("FetchJWTBundles", keys and all(one["kty"] == "EC" and one["kid"] for one in keys), (code, message, keys))
    ends("Sign: a digest that is too short", lambda: signer.Sign(
        signer_pb2.SignRequest(algorithm=1, digest=b"x"), timeout=20), "INVALID_ARGUMENT", "digest")
    tokens(audience)
    deadlines()
    cancelled()
    at_once()


def exportable(audience):
    """Who is given a key."""
    code, message, answer = outcome(lambda: METHODS["FetchX509SVID"](metadata=MARK))
    check("FetchX509SVID", code == "OK" and len(answer.svids) == 1 and answer.svids[0].x509_svid_key, (code, message))
    check("… has all that the standard demands", code == "OK" and answer.svids[0].spiffe_id and answer.svids[0].x509_svid and answer.svids[0].bundle)
    tokens(audience)


def follow(n):
    """A stream over rotations."""
    call = api.FetchX509SVID(w.X509SVIDRequest(), metadata=MARK, timeout=300)
    for _, answer in zip(range(int(n)), call):
        data = answer.svids[0].x509_svid
        octets = data[1] & 0x7f if data[1] & 0x80 else 0
        end = 2 + octets + (int.from_bytes(data[2:2 + octets], "big") if octets else data[1])
        print(json.dumps({"leaf": hashlib.sha256(data[:end]).hexdigest()}), flush=True)


{"stranger": stranger, "agent": agent, "exportable": exportable, "follow": follow}[sys.argv[3]](sys.argv[4])
sys.exit(1 if failed else 0)
