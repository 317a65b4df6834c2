#!/usr/bin/env python3
"""Every host of a folder that tests/support/fleet writes shakes hands with every other one: handshakes.py DIR.
TLS 1.3 with both certificates, by Python's ssl (OpenSSL), each with the bundle of the view that it has now. Prints how many
handshakes there were, and ends with 1 at the first failure, which it names."""
import base64
import json
import ssl
import sys
import tempfile
from pathlib import Path


def context(side, folder, host):
    ctx = ssl.SSLContext(side)
    ctx.minimum_version = ssl.TLSVersion.TLSv1_3
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_REQUIRED
    # The chain first: a host hears of a root before it gets a certificate by it.
    ctx.load_cert_chain(folder / f"{host}.pem")
    jws = json.loads((folder / f"{host}.view").read_text())
    payload = jws["payload"]
    view = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    ctx.load_verify_locations(cadata=view["bundle"])
    return ctx


def shake(server_ctx, client_ctx):
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_ctx.wrap_bio(to_server, to_client, server_side=True)
    client = client_ctx.wrap_bio(to_client, to_server)
    done = set()
    for _ in range(20):
        for name, end in (("client", client), ("server", server)):
            if name not in done:
                try:
                    end.do_handshake()
                    done.add(name)
                except ssl.SSLWantReadError:
                    pass
        if len(done) == 2:
            return
    raise ssl.SSLError("the handshake came to no end")


def main():
    folder = Path(sys.argv[1])
    hosts = sorted(int(p.stem) for p in folder.glob("*.pem"))
    with tempfile.TemporaryDirectory() as copy:  # what all have at one moment, as far as a copy goes
        for host in hosts:
            # The view after the chain: it is the same or a later one, as in the host.
            for suffix in ("pem", "view"):
                (Path(copy) / f"{host}.{suffix}").write_bytes((folder / f"{host}.{suffix}").read_bytes())
        both = {h: (context(ssl.PROTOCOL_TLS_SERVER, Path(copy), h), context(ssl.PROTOCOL_TLS_CLIENT, Path(copy), h)) for h in hosts}
    n = 0
    for a in hosts:
        for b in hosts:
            if a != b:
                try:
                    shake(both[a][0], both[b][1])
                except ssl.SSLError as e:
                    sys.exit(f"host {b} at host {a}: {e}")
                n += 1
    print(n)


if __name__ == "__main__":
    main()
