#!/usr/bin/python3
"""Streams of api.sock by frames, where gRPC's library does not do what a test wants.

streams.py many SOCKET N: N streams of Signer.Watch, 128 a connection; a JSON line when each was answered or has ended;
    goes on until standard input ends.
streams.py exec SOCKET [NAME]: one stream (with NAME: of SDS, for that secret); after its first answer the process executes itself again as "after", which keeps the
    connection and tells what comes on it.
streams.py late SOCKET [AUDIENCE]: FetchX509SVID; after a line on standard input, answered or not, the process executes
    itself again as "after". With AUDIENCE: Signer.Chain until it is answered, then after a line FetchJWTSVID, and so on.
streams.py unread SOCKET N: N calls of StreamSecrets (ROOTCA) on one connection that may not be sent; a JSON line of how
    many began to be answered when nothing new had come for two seconds; then they are read, and a line of how many
    were answered whole.
streams.py chain SOCKET: Signer.Chain once, PINGs answered.
streams.py reuse SOCKET: a process asks for Chain and ends; another gets its pid; after a line on standard input, what
    came for the first, with no PING answered. In a PID namespace of its own.
streams.py become SOCKET FIRST SECOND: asks for Chain under the name FIRST until it is answered, then as SECOND on the
    same connection until that is over.
streams.py sign SOCKET NAME: a signature, asked for under this name.
streams.py linger SOCKET: connections that send a TCP socket along, which nobody but the receiver has any more and whose
    close waits for a minute (SO_LINGER): read with the preface, or unread behind what is no HTTP/2; a JSON line of how
    many could be sent. Not over before a line on standard input.
streams.py hold SOCKET N: N connections with a stream of Signer.Watch each; a JSON line of how many were answered; goes on
    until standard input ends.
streams.py idle SOCKET N: N connections that ask for nothing; "over" when all have been ended.
"""
import array
import json
import os
import select
import socket
import struct
import sys
import time

import hpack

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\4\x08\0\0\0\0\0\x3f\0\0\0"
CALL = [(":method", "POST"), (":scheme", "http"), (":authority", "localhost"), ("te", "trailers"), ("content-type", "application/grpc")]

SECRET = b"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


class Connection:
    def __init__(self, sock):
        self.socket, self.buffer = sock, b""
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.answered, self.ended, self.next, self.over = set(), {}, 1, False
        self.pongs = True
        self.began, self.whole, self.bytes = set(), set(), {}

    def call(self, path="/attestd.v1.Signer/Watch", body=b"", extra=(), end=True):
        block = self.encoder.encode([(":path", path)] + CALL + list(extra))
        message = struct.pack(">BI", 0, len(body)) + body
        self.socket.sendall(struct.pack(">I", len(block))[1:] + struct.pack(">BBI", HEADERS, 4, self.next) + block +
                            struct.pack(">I", len(message))[1:] + struct.pack(">BBI", DATA, int(end), self.next) + message)
        self.next += 2
        return self.next - 2

    def read(self):
        try:
            got = self.socket.recv(65536)
        except ConnectionResetError:
            got = b""
        self.over = not got
        self.buffer += got
        while len(self.buffer) >= 9 and len(self.buffer) >= 9 + int.from_bytes(self.buffer[:3], "big"):
            length = int.from_bytes(self.buffer[:3], "big")
            kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
            payload, self.buffer = self.buffer[9:9 + length], self.buffer[9 + length:]
            self.take(kind, flags, stream, payload)

    def take(self, kind, flags, stream, payload):
        if kind == HEADERS:
            fields = dict(self.decoder.decode(payload))
            self.began.add(stream)
            if "grpc-status" in fields:
                self.ended[stream] = int(fields["grpc-status"])
        elif kind == PING and self.pongs and not flags & 1:
            self.socket.sendall(b"\0\0\x08\x06\1\0\0\0\0" + payload)
        elif kind == DATA:
            self.answered.add(stream)
            self.count(stream, payload)
        elif kind == RST:
            self.ended.setdefault(stream, -1)


    def count(self, stream, payload):
        """Of a stream's first message: whether it is whole."""
        start, got = self.bytes.get(stream, (b"", 0))
        start = (start + payload)[:5] if len(start) < 5 else start
        got += len(payload)
        self.bytes[stream] = start, got
        if len(start) == 5 and got >= 5 + int.from_bytes(start[1:], "big"):
            self.whole.add(stream)


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.sendall(HELLO)
    return Connection(sock)


def many(path, n):
    connections = []
    for at in range(n):
        if at % 128 == 0:
            connections.append(connect(path))
        connections[-1].call()
    done = 0
    while done < n:
        for sock in select.select([one.socket for one in connections], [], [], 60)[0]:
            next(one for one in connections if one.socket is sock).read()
        done = sum(len(one.answered | set(one.ended)) for one in connections)
        if any(one.over for one in connections):
            sys.exit("a connection ended")
    codes = {}
    for one in connections:
        for code in one.ended.values():
            codes[code] = codes.get(code, 0) + 1
    print(json.dumps({"answered": sum(len(one.answered) for one in connections), "ended": codes}), flush=True)
    sys.stdin.read()


def exec_itself(path, name=""):
    one = connect(path)
    if name:
        one.call("/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
                 b"\x1a" + bytes([len(name)]) + name.encode() + b"\x22" + bytes([len(SECRET)]) + SECRET, end=False)
    else:
        one.call()
    while not one.answered and not one.ended:
        one.read()
    print(json.dumps({"answered": len(one.answered)}), flush=True)
    os.set_inheritable(one.socket.fileno(), True)
    os.execv(sys.executable, [sys.executable, os.path.abspath(__file__), "after", str(one.socket.fileno())])


def unread(path, n):
    one = connect(path)
    one.socket.sendall(b"\0\0\x06\4\0\0\0\0\0" + struct.pack(">HI", 4, 0))  # a window of 0 for each stream
    for _ in range(n):
        one.call("/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets", b"\x1a\x06ROOTCA", end=False)
    while not one.over and (not one.began or select.select([one.socket], [], [], 2)[0]):
        one.read()
    print(json.dumps({"began": len(one.began - set(one.ended))}), flush=True)
    one.socket.sendall(b"\0\0\x06\4\0\0\0\0\0" + struct.pack(">HI", 4, 0x7fffffff))
    while len(one.whole) < n and not one.ended and not one.over:
        one.read()
    print(json.dumps({"whole": len(one.whole), "ended": list(one.ended.values())}), flush=True)


def late(path, audience=None):
    one = connect(path)
    body = b""
    one.socket.sendall(b"\0\0\x06\4\0\0\0\0\0" + struct.pack(">HI", 1, 0))  # what comes is read by another decoder
    if audience:
        one.call("/attestd.v1.Signer/Chain")
        while not one.ended and not one.over:
            one.read()
        print("known", flush=True)
        sys.stdin.readline()
        body = b"\x0a" + bytes([len(audience)]) + audience.encode()
    one.call("/SpiffeWorkloadAPI/FetchJWTSVID" if audience else "/SpiffeWorkloadAPI/FetchX509SVID", body,
             extra=[("workload.spiffe.io", "true")])
    print("asked", flush=True)
    sys.stdin.readline()
    os.set_inheritable(one.socket.fileno(), True)
    os.execv(sys.executable, [sys.executable, os.path.abspath(__file__), "after", str(one.socket.fileno())])


def after(fd):
    one = Connection(socket.socket(fileno=fd))
    answers = 0
    while not one.over and not one.ended:
        one.read()
        answers += len(one.answered)
        one.answered.clear()
    print(json.dumps({"after": answers, "ended": list(one.ended.values()), "over": one.over}), flush=True)


def chain(path):
    one = connect(path)
    one.call("/attestd.v1.Signer/Chain")
    while not one.over and not one.ended:
        one.read()
    print(json.dumps({"answered": len(one.answered), "ended": list(one.ended.values())}), flush=True)


def reuse(path):
    sock = socket.socket(socket.AF_UNIX)
    first = os.fork()
    if first == 0:
        sock.connect(path)
        sock.sendall(HELLO)
        Connection(sock).call("/attestd.v1.Signer/Chain")
        os._exit(0)
    os.waitpid(first, 0)
    second = 0
    for _ in range(2000):
        with open("/proc/sys/kernel/ns_last_pid", "w", encoding="ascii") as last:
            last.write(str(first - 1))
        second = os.fork()
        if second == 0:
            time.sleep(60)
            os._exit(0)
        if second == first:
            break
        os.kill(second, 9)
        os.waitpid(second, 0)
    print("reused" if second == first else "not reused", second, flush=True)
    sys.stdin.readline()
    one = Connection(sock)
    one.pongs = False
    while not one.over and not one.ended:
        one.read()
    print(json.dumps({"answered": len(one.answered), "ended": list(one.ended.values()), "over": one.over}), flush=True)
    os.kill(second, 9)


def lingering(listener):
    """A connected socket with unsent bytes; the other end, which never reads."""
    one = socket.create_connection(listener.getsockname())
    other, _ = listener.accept()
    one.setblocking(False)
    try:
        while True:
            one.send(bytes(65536))
    except BlockingIOError:
        pass
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
    return one, other


def linger(path):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen(8)
    kept, sent = [], 0
    for at in range(6):
        one, other = lingering(listener)
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        kept += [other, sock]
        try:
            if at % 2:
                sock.sendall(b"GET / HTTP/1.1\r\n" * 3)
            sock.sendmsg([HELLO], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [one.fileno()]))])
            sent += 1
        except (PermissionError, BrokenPipeError, ConnectionResetError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        one.close()  # the last is in the socket's queue now
    print(json.dumps({"sent": sent}), flush=True)
    sys.stdin.readline()


def name_itself(name):
    with open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(name)


def become(path, first, second):
    name_itself(first)
    one = connect(path)
    one.call("/attestd.v1.Signer/Chain")
    while not one.over and not one.ended:
        one.read()
    name_itself(second)
    while not one.over:
        try:
            one.call("/attestd.v1.Signer/Chain")
            time.sleep(0.2)
        except (BrokenPipeError, ConnectionResetError):
            pass
        one.read()
    print(json.dumps({"answered": len(one.answered), "ended": sorted(set(one.ended.values()))}), flush=True)


def sign(path, name):
    name_itself(name)
    one = connect(path)
    one.call("/attestd.v1.Signer/Sign", b"\x10\x01\x1a\x20" + b"d" * 32)  # ECDSA, 32 bytes of digest
    while not one.over and not one.ended:
        one.read()
    print(json.dumps({"answered": len(one.answered), "ended": list(one.ended.values())}), flush=True)


def hold(path, n):
    connections = []
    for _ in range(n):
        try:
            one = connect(path)
            one.call()
            connections.append(one)
            while not one.over and not one.answered:
                one.read()
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused
    print(json.dumps({"answered": sum(len(one.answered) for one in connections)}), flush=True)
    sys.stdin.read()


def idle(path, n):
    connections = []
    for _ in range(n):
        try:
            connections.append(connect(path))
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused
    print("connected", flush=True)
    for one in connections:
        while not one.over:
            one.read()
    print("over", flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "many":
        many(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "chain":
        chain(sys.argv[2])
    elif sys.argv[1] == "become":
        become(*sys.argv[2:])
    elif sys.argv[1] == "sign":
        sign(*sys.argv[2:])
    elif sys.argv[1] == "linger":
        linger(sys.argv[2])
    elif sys.argv[1] == "hold":
        hold(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "idle":
        idle(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "reuse":
        reuse(sys.argv[2])
    elif sys.argv[1] == "unread":
        unread(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "late":
        late(*sys.argv[2:])
    elif sys.argv[1] == "exec":
        exec_itself(*sys.argv[2:])
    else:
        after(int(sys.argv[2]))
