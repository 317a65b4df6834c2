#!/usr/bin/env python3
"""What a federated trust domain's test needs, by libraries that are not ours.

federation.py fetch STUBS SOCKET DIR                     one FetchX509SVID into DIR: key.pem, chain.pem, own.pem (roots), and
                                                         fed-TRUST_DOMAIN.pem for each federated bundle
federation.py mtls SERVER ROOTS CLIENT ROOTS             TLS 1.3 between two such folders, each believing these roots alone;
                                                         prints {"server": SPIFFE ID, "client": …} as the other side saw it
federation.py serve PORT CERT KEY FILE                   an HTTPS server that answers FILE's content to every GET; where there
                                                         is a FILE.status, with that status instead
federation.py jwks CERT                                  a bundle with this P-256 root alone
"""
import base64
import http.server
import json
import os
import socket
import ssl
import sys
import threading


def pem(der):
    """One or more DER certificates in a row."""
    text = ""
    while der:
        octets = der[1] & 0x7f if der[1] & 0x80 else 0
        size = 2 + octets + (int.from_bytes(der[2:2 + octets], "big") if octets else der[1])
        text += ssl.DER_cert_to_PEM_cert(der[:size])
        der = der[size:]
    return text


def fetch(stubs, path, folder):
    sys.path.insert(0, stubs)
    import grpc
    import workload_pb2
    import workload_pb2_grpc
    from cryptography.hazmat.primitives import serialization
    stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(grpc.insecure_channel("unix://" + path))
    stream = stub.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=(("workload.spiffe.io", "true"),), timeout=30)
    answer = next(iter(stream))
    stream.cancel()
    one = answer.svids[0]
    key = serialization.load_der_private_key(one.x509_svid_key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    texts = {"key.pem": key, "chain.pem": pem(one.x509_svid), "own.pem": pem(one.bundle)}
    for name, der in answer.federated_bundles.items():
        assert name.startswith("spiffe://"), name
        texts["fed-" + name[9:] + ".pem"] = pem(der)
    for name, text in texts.items():
        with open(os.path.join(folder, name), "w", encoding="ascii") as file:
            file.write(text)


def context(side, folder, roots):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if side == "server" else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(os.path.join(folder, "chain.pem"), os.path.join(folder, "key.pem"))
    made.load_verify_locations(roots)
    return made


def uris(tls):
    return [value for kind, value in tls.getpeercert().get("subjectAltName", ()) if kind == "URI"]


def mtls(server, server_roots, client, client_roots):
    ends = socket.socketpair()
    seen = {}

    def serve():
        try:
            with context("server", server, server_roots).wrap_socket(ends[0], server_side=True) as tls:
                seen["client"] = uris(tls)[0]
                tls.sendall(b"trade")
        except OSError as error:
            seen["refused"] = "server: " + str(error)
            ends[0].close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with context("client", client, client_roots).wrap_socket(ends[1]) as tls:
            seen["server"] = uris(tls)[0]
            assert tls.recv(5) == b"trade"
    except (OSError, AssertionError) as error:
        seen.setdefault("refused", "client: " + str(error))
        ends[1].close()
    thread.join()
    print(json.dumps(seen))


def serve(port, cert, key, path):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            status = 200
            if os.path.exists(path + ".status"):
                with open(path + ".status", encoding="ascii") as file:
                    status = int(file.read())
            with open(path, "rb") as file:
                body = file.read()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    print("ready", flush=True)
    server.serve_forever()


def jwks(path):
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    with open(path, "rb") as file:
        cert = x509.load_pem_x509_certificate(file.read())
    point = cert.public_key().public_numbers()
    x, y = (base64.urlsafe_b64encode(n.to_bytes(32, "big")).rstrip(b"=").decode() for n in (point.x, point.y))
    der = base64.b64encode(cert.public_bytes(Encoding.DER)).decode()
    print(json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "x509-svid", "x5c": [der]}],
                      "spiffe_sequence": 1000000}))


if __name__ == "__main__":
    {"fetch": fetch, "mtls": mtls, "serve": serve, "jwks": jwks}[sys.argv[1]](*sys.argv[2:])
