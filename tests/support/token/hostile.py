#!/usr/bin/python3
"""A workload that breaks the protocol of p11-kit in every way it can think of.

usage: hostile.py SOCKET FRAMES [SEED]
Sends that many frames: served calls with random arguments, and broken ones, over as many
connections as it takes. Prints how many connections that were."""
import random
import select
import socket
import struct
import sys

CALLS = {
    2: "", 3: "", 4: "yfu", 5: "u", 6: "u", 7: "ufu", 8: "uu", 10: "uu", 11: "u", 12: "u", 13: "u", 18: "uuay",
    19: "u", 20: "uaA", 21: "uuaA", 22: "uu", 23: "uu", 24: "uufA", 25: "uuaA", 26: "uaA", 27: "ufu", 28: "u",
    37: "uM", 38: "uayfy", 39: "uay", 41: "ufy", 42: "uMu", 43: "uayfy", 44: "uay", 45: "ufy", 48: "uMu",
    49: "uayay", 50: "uay", 51: "uay", 63: "uay", 64: "ufy", 65: "u", 9: "uayz", 30: "uayfy", 60: "uMuufy",
}
HANDSHAKE = b"PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"
TYPES = [0, 1, 2, 3, 0x11, 0x12, 0x80, 0x81, 0x100, 0x101, 0x102, 0x103, 0x108, 0x129, 0x162, 0x180, 0x181,
         0x40000211, 0x40000213, 0x40000600, 0x80000001]
NUMBERS = [0, 1, 2, 3, 64, 65, 66, 67, 128, 2**31, 2**32 - 1, 2**32, 2**40 + 1, 2**63, 2**64 - 1]
MECHANISMS = [0x1041, 0x220, 0x250, 0x270, 1, 0xD, 0x1087, 0xFFFFFFFF]


def field(data):
    return struct.pack(">I", len(data)) + data


def number(rng):
    return struct.pack(">Q", rng.choice(NUMBERS) if rng.random() < 0.4 else rng.randrange(1, 4))


def attribute(rng):
    kind = rng.choice(TYPES)
    out = struct.pack(">IB", kind, rng.random() < 0.95)
    if out[4]:
        if kind in (0, 0x80, 0x100):
            out += struct.pack(">IQ", 8, rng.choice([0, 1, 2, 3, 4]))
        elif kind in (1, 2, 0x103, 0x108, 0x162):
            out += struct.pack(">IB", 1, rng.randrange(2))
        else:
            data = rng.randbytes(rng.randrange(80))
            out += struct.pack(">I", len(data)) + field(data)
    return out


def argument(rng, kind):
    if kind == "u":
        return number(rng)
    if kind == "y":
        return rng.randbytes(1)
    if kind == "M":
        return struct.pack(">II", rng.choice(MECHANISMS), 0xFFFFFFFF)
    if kind == "ay":
        return b"\1" + field(rng.randbytes(rng.choice([0, 20, 32, 64, 500, 5000])))
    if kind == "z":
        return field(rng.randbytes(8))
    if kind in ("fy", "fu"):
        return struct.pack(">I", rng.choice([0, 1, 32, 64, 200, 4000, 2**31]))
    count = rng.choice([0, 1, 2, 3, 10, 40])
    if kind == "aA":
        return struct.pack(">I", count) + b"".join(attribute(rng) for _ in range(count))
    rooms = b"".join(struct.pack(">II", rng.choice(TYPES), rng.choice([0, 1, 8, 300, 4096])) for _ in range(count))
    return struct.pack(">I", count) + rooms


def split(args):
    at = 0
    while at < len(args):
        size = 2 if args[at] in "af" else 1
        yield args[at:at + size]
        at += size


def frame(rng, call, body, args, code):
    message = struct.pack(">I", call) + field(args.encode()) + body
    data = struct.pack(">III", code, 6, len(message)) + b"client" + message
    roll = rng.random()
    if roll < 0.002:  # broken anywhere
        at = rng.randrange(len(data))
        data = data[:at] + rng.randbytes(1) + data[at + 1:]
    elif roll < 0.003:  # a length that announces much
        at = rng.choice([4, 8])
        data = data[:at] + struct.pack(">I", rng.choice([2**31, 2**32 - 1, 70000])) + data[at + 4:]
    elif roll < 0.004:
        data = data[:rng.randrange(len(data))]
    return data


def start(path):
    conn = socket.socket(socket.AF_UNIX)
    conn.settimeout(10)
    conn.connect(path)
    body = b"\1" + field(HANDSHAKE) + b"\0\1" + field(b"\0")
    message = struct.pack(">I", 1) + field(b"ayyay") + body
    conn.sendall(b"\1")
    conn.recv(1)  # whoever writes on before is turned away
    conn.sendall(struct.pack(">III", 1, 6, len(message)) + b"client" + message)
    return conn


def drain(conn):
    while select.select([conn], [], [], 0)[0]:
        if not conn.recv(1 << 20):
            return False
    return True


def main():
    path, frames = sys.argv[1], int(sys.argv[2])
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    sent = connections = 0
    while sent < frames:
        conn = start(path)
        connections += 1
        try:
            while sent < frames and drain(conn):
                call = rng.choice(list(CALLS))
                args = CALLS[call]
                # C_Finalize would end the fun: rarely
                if call == 2 and rng.random() < 0.99:
                    continue
                body = b"".join(argument(rng, kind) for kind in split(args))
                conn.sendall(frame(rng, call, body, args, rng.randrange(1, 2**32)))
                sent += 1
        except OSError:
            pass
        conn.close()
    print(f"{sent} frames over {connections} connections")


main()
