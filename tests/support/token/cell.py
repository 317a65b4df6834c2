#!/usr/bin/python3
"""A caller of both sockets: cell.py FOLDER PKCS11.SOCK API.SOCK. FOLDER has rpc.py and streams.py. Prints "pkcs11 ANSWER" and
"spiffe ANSWER": "served", or what it was told."""
import struct
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import rpc  # noqa: E402
import streams  # noqa: E402


def pkcs11(path):
    conn = rpc.versioned(path)
    if not conn:
        return "turned away"
    try:
        client = rpc.Client(conn).open()
        return "served" if client.found() == 1 and client.sign() == 0 else "no signature"
    except SystemExit as told:  # a call that was refused
        return str(told)
    except struct.error:  # nothing was found
        return "no key"
    except rpc.Gone:
        return "gone"


def spiffe(path):
    conn = streams.connect(path)
    conn.socket.settimeout(30)
    stream = conn.call("/attestd.v1.Signer/Chain")
    while stream not in conn.ended and not conn.over:
        conn.read()
    status = conn.ended.get(stream, "end")
    return "served" if status == 0 and stream in conn.answered else f"status {status}"


print("pkcs11", pkcs11(sys.argv[2]))
print("spiffe", spiffe(sys.argv[3]))
