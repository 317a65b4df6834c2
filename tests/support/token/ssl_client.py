"""ssl_client.py PORT CA CHAIN KEY: 20 handshakes with Python's own ssl; the key's file is agent-key.pem, so that
OpenSSL's configuration must name the provider. See docs/AGENTS.md."""
import socket
import ssl
import sys

port, ca, chain, key = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(chain, key)
for _ in range(20):
    with socket.create_connection(("localhost", int(port))) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
            print(tls.recv(100).split()[1].decode(), tls.version())
