#!/usr/bin/env python3
"""Hostile peers of attestd's sockets, for integration tests.

usage: peers.py unix {ctl|keyd} SOCKET     garbage frames, slow peers, many connections
       peers.py denied SOCKET...           as uid 65534: connecting, or else every answer, is refused
       peers.py tls PORT ALIVE...          the issuer's port; ALIVE is a command that must keep working
"""
import json
import os
import random
import re
import socket
import ssl
import struct
import subprocess
import sys
import time

random.seed(7)


def die(text):
    print("FAIL:", text)
    sys.exit(1)


# ---- unix sockets ----
def unix(path, timeout=20.0):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.connect(path)  # waits for a place in the queue, which a timeout would not
    s.settimeout(timeout)
    return s


def read_all(s):
    data = b""
    try:
        while True:
            part = s.recv(65536)
            if not part:
                return data
            data += part
    except (ConnectionError, socket.timeout):
        return data


def frame(data):
    return struct.pack(">I", len(data)) + data


GARBAGE_CTL = [
    b"\0\0\0\0", b"\xff\xff\xff\xff", frame(b"x"), frame(b"{}"), frame(b"[]"), frame(b"null"), frame(b'"op"'),
    frame(b'{"op":1}'), frame(b'{"op":"status","op":"status"}'), frame(b'{"op":"status"} trailing'),
    frame(b'{"op":"status","args":[]}'), frame(b'{"op":"' + b"a" * 100000 + b'"}'), frame(b"[" * 200000),
    frame(b'{"op":"agent.show","args":{"name":"../../etc/passwd"}}'),
    frame(b'{"op":"agent.show","args":{"name":"\\u0000"}}'), frame(b'{"op":"agent.show","args":{"name":["alpha"]}}'),
    frame(b"\xff\xfe\x00\x80" * 100), b"GET / HTTP/1.1\r\n\r\n",
]


def keyd_frame(ident, op, payload):
    return frame(struct.pack(">IH", ident, op) + payload)


GARBAGE_KEYD = [
    b"\0\0\0\0", b"\xff\xff\xff\xff", frame(b"x"), frame(b"xxxxx"), keyd_frame(1, 0, b""), keyd_frame(1, 0xffff, b""),
    keyd_frame(1, 0x8001, b""), keyd_frame(1, 1, b"trailing"), keyd_frame(1, 16, b""),
    keyd_frame(1, 16, b"\xff\xff\xff\xff"), keyd_frame(1, 16, frame(b"../../x")), keyd_frame(1, 16, frame(b"a" * 65)),
    keyd_frame(1, 19, frame(b"0" * 32) + frame(b"spiffe://x/agent/y")), keyd_frame(1, 22, frame(b"../" * 11)),
    keyd_frame(1, 4, frame(b"{}") + frame(b"x" * 196609)), keyd_frame(1, 7, b"\xff" * 16),
    keyd_frame(1, 5, frame(b"\0" * 10) * 8), keyd_frame(1, 32, frame(b"12345678") + frame(b"sha1:0") + frame(b"\x80")),
    frame(b"y" * 262145),
]


def attack_unix(kind, path):
    garbage = GARBAGE_CTL if kind == "ctl" else GARBAGE_KEYD
    limit = 36 if kind == "ctl" else 16  # 32, and 4 that are for root, who we are, alone
    alive = frame(b'{"op":"no.such"}') if kind == "ctl" else keyd_frame(9, 1, b"")

    def answers(s=None):
        s = s or unix(path)
        s.sendall(alive)
        head = s.recv(4)
        return len(head) == 4

    for data in garbage:
        s = unix(path)
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass
        reply = read_all(s)
        s.close()
        if kind == "ctl" and len(reply) > 4:
            if json.loads(reply[4:4 + struct.unpack(">I", reply[:4])[0]])["ok"] and data != frame(b'{"op":"status"}'):
                die(f"{path}: {data[:60]!r} was accepted: {reply[:80]!r}")
        if kind == "keyd" and len(reply) > 10 and reply[10] != 1:
            die(f"{path}: {data[:60]!r} was accepted: {reply[:80]!r}")
    for _ in range(200):
        data = random.randbytes(random.randrange(1, 300))
        s = unix(path)
        try:
            s.sendall(frame(data) if random.random() < 0.7 else data)
            s.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass
        read_all(s)
        s.close()
    if not answers():
        die(f"{path}: silent after garbage")
    # Peers that say half a frame and wait, while others are served.
    slow = []
    for _ in range(limit - 4):
        s = unix(path)
        s.sendall(b"\0\0")
        slow.append(s)
    time.sleep(0.3)
    if not answers():
        die(f"{path}: slow peers keep others out")
    for s in slow:
        s.close()
    # More connections than there is room for: turned away, not kept waiting; then served again.
    many = [unix(path) for _ in range(100)]
    waiting, turned, until = list(many), 0, time.monotonic() + 60
    for s in many:
        s.settimeout(0.05)
    while turned < 100 - limit and time.monotonic() < until:
        for s in list(waiting):
            try:
                ended = s.recv(1) == b""
            except socket.timeout:
                continue
            except ConnectionError:
                ended = True
            turned += ended
            waiting.remove(s)
    if turned < 100 - limit:
        die(f"{path}: {100 - turned} of 100 connections are kept, at most {limit} expected")
    for s in many:
        s.close()
    for _ in range(600):
        try:
            if answers():
                break
        except ConnectionError:
            pass
        time.sleep(0.1)
    else:
        die(f"{path}: silent after 100 connections")
    print(f"ok: {kind} socket: garbage, slow peers, 100 connections")


def denied(paths):
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    for path in paths:
        try:
            s = unix(path)
        except PermissionError:
            continue
        except FileNotFoundError:
            die(f"{path}: not there")
        s.sendall(frame(b'{"op":"status"}') if "keyd" not in path else keyd_frame(1, 1, b""))
        reply = read_all(s)
        if reply and b'"denied"' not in reply:
            die(f"{path}: uid 65534 got {reply[:80]!r}")
        die(f"{path}: uid 65534 could connect (mode {oct(os.stat(path).st_mode)})")
    print("ok: another uid is kept out")


# ---- the issuer's port ----
def tcp(port):
    s = socket.create_connection(("127.0.0.1", port), timeout=20)
    return s


def tls(port):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    return ctx.wrap_socket(tcp(port))


def exchange(port, data):
    """All bytes of the answer. The peer may close while we send."""
    s = tls(port)
    s.settimeout(8)
    try:
        s.sendall(data)
    except (ConnectionError, ssl.SSLError, socket.timeout):
        pass
    answer = b""
    try:
        while True:
            part = s.recv(65536)
            if not part:
                break
            answer += part
            if answer.count(b"HTTP/1.") and b"\r\n\r\n" in answer and len(answer) > 1 << 20:
                break
    except (ConnectionError, ssl.SSLError, socket.timeout, OSError):
        pass
    s.close()
    return answer


def statuses(answer):
    return [int(code) for code in re.findall(rb"HTTP/1\.[01] (\d{3})", answer)]


H = b"Host: 127.0.0.1\r\n"
CLOSE = b"Connection: close\r\n"
GET = b"GET /acme/directory HTTP/1.1\r\n" + H

# name, bytes, most answers that a server may give, statuses allowed (None: any that is no success)
SMUGGLING = [
    ("two lengths", b"POST /acme/new-nonce HTTP/1.1\r\n" + H + b"Content-Length: 4\r\nContent-Length: 60\r\n" + CLOSE + b"\r\nabcd" + GET + CLOSE + b"\r\n", 1),
    ("length and chunked", b"POST /acme/new-order HTTP/1.1\r\n" + H + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n" + CLOSE + b"\r\n0\r\n\r\n" + GET + CLOSE + b"\r\n", 1),
    ("chunked, obscured", b"POST /acme/new-order HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nTransfer-Encoding : chunked\r\n" + CLOSE + b"\r\n0\r\n\r\n" + GET + CLOSE + b"\r\n", 1),
    ("negative length", b"POST /acme/new-order HTTP/1.1\r\n" + H + b"Content-Length: -1\r\n" + CLOSE + b"\r\n" + GET + CLOSE + b"\r\n", 1),
    ("length with a sign", b"POST /acme/new-order HTTP/1.1\r\n" + H + b"Content-Length: +4\r\n" + CLOSE + b"\r\nabcd", 1),
    ("length of 20 digits", b"POST /acme/new-order HTTP/1.1\r\n" + H + b"Content-Length: 99999999999999999999\r\n" + CLOSE + b"\r\nabcd", 1),
    ("NUL in a header", GET + b"X-A: a\0b\r\n" + CLOSE + b"\r\n", 1),
    ("a bare CR", GET + b"X-A: a\rX-B: b\r\n" + CLOSE + b"\r\n", 1),
    ("chunk of 2^64", b"POST /acme/new-order HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n" + CLOSE + b"\r\nffffffffffffffff1\r\nabcd\r\n0\r\n\r\n", 1),
    ("headers of 100 KiB", GET + b"X-A: " + b"a" * 102400 + b"\r\n" + CLOSE + b"\r\n", 1),
    ("10000 headers", GET + b"".join(b"X-%d: a\r\n" % i for i in range(10000)) + CLOSE + b"\r\n", 1),
    ("not HTTP", b"\x16\x03\x01" + os.urandom(400) + b"\r\n\r\n", 1),
    ("TRACE", b"TRACE /acme/directory HTTP/1.1\r\n" + H + CLOSE + b"\r\n", 1),
    ("CONNECT", b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + H + CLOSE + b"\r\n", 1),
    ("path upward", b"GET /acme/../../etc/passwd HTTP/1.1\r\n" + H + CLOSE + b"\r\n", 1),
    ("absolute URI of another host", b"GET http://example.org/acme/directory HTTP/1.1\r\n" + H + CLOSE + b"\r\n", 1),
]


def attack_tls(port, alive):
    def check(what):
        done = subprocess.run(alive, capture_output=True, timeout=60)
        if done.returncode != 0:
            die(f"the issuer does not answer after {what}: {done.stderr.decode()[-200:]}")
        answer = exchange(port, GET + CLOSE + b"\r\n")
        if statuses(answer) != [200]:
            die(f"the directory after {what}: {answer[:200]!r}")

    check("nothing")
    for _ in range(60):
        s = tcp(port)
        s.sendall(random.randbytes(random.randrange(1, 600)))
        s.close()
    check("garbage")
    # A real ClientHello, cut at many places, and left open.
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    hello_maker = ctx.wrap_bio(into, out)
    try:
        hello_maker.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = out.read()
    open_ones = []
    for cut in range(1, len(hello), max(1, len(hello) // 60)):
        s = tcp(port)
        s.sendall(hello[:cut])
        open_ones.append(s)
    check("half hellos that stay open")
    for s in open_ones:
        s.close()
    check("half hellos")
    # TLS 1.2 is not spoken.
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    try:
        old.wrap_socket(tcp(port))
        die("TLS 1.2 was accepted")
    except (ssl.SSLError, ConnectionError):
        pass
    # In the clear.
    s = tcp(port)
    s.settimeout(8)
    s.sendall(GET + b"\r\n")
    try:
        if b"HTTP/" in s.recv(4096):
            die("HTTP in the clear was answered")
    except (ConnectionError, socket.timeout):
        pass
    s.close()
    # Slowloris: 100 connections that send a header byte now and then.
    slow = []
    for _ in range(100):
        s = tls(port)
        s.sendall(GET + b"X-Slow: ")
        slow.append(s)
    for _ in range(3):
        for s in slow:
            try:
                s.sendall(b"a")
            except (ConnectionError, ssl.SSLError):
                pass
        check("slow headers")
    for s in slow:
        s.close()
    # A body beyond the limit, announced and sent, and one that is only sent.
    body = b"x" * (9 << 20)
    answer = exchange(port, b"POST /acme/new-order HTTP/1.1\r\n" + H + b"Content-Type: application/jose+json\r\nContent-Length: %d\r\n" % len(body) + CLOSE + b"\r\n" + body)
    if any(code < 400 for code in statuses(answer)):
        die(f"a body of 9 MiB: {answer[:200]!r}")
    check("a body of 9 MiB")
    chunk = b"10000\r\n" + b"y" * 0x10000 + b"\r\n"
    answer = exchange(port, b"POST /acme/new-order HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n" + CLOSE + b"\r\n" + chunk * 160 + b"0\r\n\r\n")
    if any(code < 400 for code in statuses(answer)):
        die(f"chunks of 10 MiB: {answer[:200]!r}")
    check("chunks of 10 MiB")
    for name, data, most in SMUGGLING:
        answer = exchange(port, data)
        codes = statuses(answer)
        if len(codes) > most:
            die(f"{name}: {len(codes)} answers {codes}: a request was smuggled")
        if name not in ("a bare CR", "NUL in a header", "absolute URI of another host") and any(c < 400 for c in codes):
            die(f"{name}: answered {codes}")
        check(name)
    # Two requests in one go are two requests, in order: pipelining is no smuggling.
    answer = exchange(port, GET + b"\r\n" + GET + CLOSE + b"\r\n")
    if statuses(answer) not in ([200, 200], [200]):
        die(f"pipelining: {statuses(answer)}")
    print("ok: the issuer's port: garbage, half hellos, slowloris, large bodies, smuggling")


if __name__ == "__main__":
    if sys.argv[1] == "unix":
        attack_unix(sys.argv[2], sys.argv[3])
    elif sys.argv[1] == "denied":
        denied(sys.argv[2:])
    elif sys.argv[1] == "tls":
        attack_tls(int(sys.argv[2]), sys.argv[3:])
    else:
        sys.exit(__doc__)
