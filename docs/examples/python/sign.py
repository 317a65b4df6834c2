#!/usr/bin/python3
"""Signs a file with the agent's key, which stays where it is. Packages: python3-grpcio, and to generate the two modules
protobuf-compiler, protobuf-compiler-grpc:
    protoc -I /usr/share/attestd/proto --python_out=. --grpc_out=. \\
        --plugin=protoc-gen-grpc=/usr/bin/grpc_python_plugin signer.proto
    ./sign.py FILE > FILE.sig     the signature; the chain, PEM, goes to FILE.chain.pem
    ./sign.py --watch             a line for each certificate from now on
RSA keys sign by PKCS#1 here."""
import hashlib
import os
import ssl
import sys

import grpc

import signer_pb2
import signer_pb2_grpc

TIMEOUT_S = 20


def sign(signer, path):
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).digest()
    chain = signer.Chain(signer_pb2.ChainRequest(), timeout=TIMEOUT_S)
    with open(path + ".chain.pem", "w", encoding="ascii") as file:
        file.writelines(ssl.DER_cert_to_PEM_cert(der) for der in chain.chain)
    request = signer_pb2.SignRequest(algorithm=signer_pb2.ALGORITHM_ECDSA, digest=digest, key_id=chain.key_id)
    try:
        answer = signer.Sign(request, timeout=TIMEOUT_S)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        request.algorithm = signer_pb2.ALGORITHM_RSA_PKCS1
        answer = signer.Sign(request, timeout=TIMEOUT_S)
    sys.stdout.buffer.write(answer.signature)


def watch(signer):
    for chain in signer.Watch(signer_pb2.ChainRequest()):
        print(chain.spiffe_id, "key", chain.key_id, "in", chain.key_store, "until", chain.not_after, flush=True)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: sign.py FILE > FILE.sig | sign.py --watch")
    socket = os.environ.get("SPIFFE_ENDPOINT_SOCKET", "unix:///run/attestd/public/api.sock")
    with grpc.insecure_channel(socket) as channel:
        signer = signer_pb2_grpc.SignerStub(channel)
        try:
            watch(signer) if sys.argv[1] == "--watch" else sign(signer, sys.argv[1])
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")


main()
