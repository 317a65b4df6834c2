#!/usr/bin/python3
"""The gRPC transport over a socket pair, by a client that writes HTTP/2 frames itself: what is answered, what is refused
and how, and that a peer cannot make it keep or do more than its bounds allow."""
import os
import socket
import struct
import subprocess
import sys
import time

try:
    import hpack
except ImportError:
    print("skipped: no python3-hpack")
    sys.exit(77)

SERVER = os.path.join(os.environ["ATT_BIN_DIR"], "..", "tests-bin", "grpc-transport")
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CALM = 11  # ENHANCE_YOUR_CALM
PATIENCE = 60


def need(condition, text):
    if not condition:
        print("FAILED:", text)
        sys.exit(1)


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def message(body, compressed=0):
    return struct.pack(">BI", compressed, len(body)) + body


def request(path="/t.T/Echo", drop=(), change=(), extra=()):
    """The headers as gRPC-core sends them; drop: names left out; change: (name, value) instead; extra: at the end."""
    headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost"),
               ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", "raw")]
    headers = [(name, dict(change).get(name, value)) for name, value in headers if name not in drop]
    return headers + list(extra)


class Peer:
    """One connection; the server's process ends with it."""

    def __init__(self, slow_ms=30000, hello_ms=5000, writer=0, hello=True, window=None, read=True):
        self.socket, theirs = socket.socketpair()
        if writer:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        theirs_fd = os.dup(theirs.fileno())
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$0" "$@" 3<&{theirs_fd} {theirs_fd}<&-', SERVER, str(slow_ms), str(hello_ms),
             str(writer)], pass_fds=[theirs_fd], stderr=subprocess.PIPE)
        os.close(theirs_fd)
        theirs.close()
        self.socket.settimeout(PATIENCE)
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()
        self.buffer, self.log, self.next = b"", None, 1
        if hello:
            settings = struct.pack(">HI", 4, window) if window is not None else b""
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, data):
        self.socket.sendall(data)

    def try_send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # cut already: what the test is about

    def call(self, headers, body=message(b"hello"), end=True):
        stream, self.next = self.next, self.next + 2
        block = self.encoder.encode(headers)
        data = frame(HEADERS, END_HEADERS | (0 if body is not None else END_STREAM), stream, block)
        if body is not None:
            data += frame(DATA, END_STREAM if end else 0, stream, body)
        self.send(data)
        return stream

    def exactly(self, n):
        while len(self.buffer) < n:
            got = self.socket.recv(65536)
            if not got:
                return None
            self.buffer += got
        got, self.buffer = self.buffer[:n], self.buffer[n:]
        return got

    def frame(self):
        """(kind, flags, stream, payload); None: the connection is over."""
        try:
            head = self.exactly(9)
            if head is None:
                return None
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            payload = self.exactly(int.from_bytes(head[:3], "big"))
        except ConnectionResetError:
            return None
        return kind, flags, stream, payload

    def answer(self, stream, grant=True):
        """The end of a call: {"headers": …, "data": …, "trailers": …} or {"reset": code}; "goaway": code; "end"."""
        got = {"headers": None, "data": b"", "trailers": None}
        while True:
            one = self.frame()
            if one is None:
                return dict(got, end=True)
            kind, flags, of, payload = one
            if kind == GOAWAY:
                got["goaway"] = struct.unpack(">I", payload[4:8])[0]
            if kind == HEADERS:
                fields = dict(self.decoder.decode(payload))
                if of == stream:
                    got["trailers" if got["headers"] else "headers"] = fields
            if kind == DATA and payload and grant:
                self.send(frame(WINDOW, 0, 0, struct.pack(">I", len(payload))) +
                          frame(WINDOW, 0, of, struct.pack(">I", len(payload))))
            if of != stream:
                continue
            if kind == DATA:
                got["data"] += payload
            if kind == RST:
                return dict(got, reset=struct.unpack(">I", payload)[0])
            if kind in (HEADERS, DATA) and flags & END_STREAM:
                return got

    def unary(self, *args, **kwargs):
        return self.answer(self.call(*args, **kwargs))

    def end(self):
        self.socket.close()
        log = self.process.stderr.read().decode()
        status = self.process.wait(PATIENCE)
        need(status == 0, f"the server ended with {status}: {log}")
        return log


def status_of(got):
    fields = got["trailers"] or got["headers"] or {}
    return fields.get("grpc-status"), fields.get("grpc-message", "")


def refused(what, got, code, words):
    status, text = status_of(got)
    need(status == str(code) and words in text, f"{what}: {got}")


def answers():
    peer = Peer()
    got = peer.unary(request())
    need(got["headers"] == {":status": "200", "content-type": "application/grpc"}, got)
    need(got["data"] == message(b"hello"), got)
    need(got["trailers"] == {"grpc-status": "0", "grpc-message": "100%25 %C3%BC%0A"}, got)
    for authority in ("localhost", "%2Frun%2Fattestd%2Fpublic%2Fapi.sock", "/run/attestd/public/api.sock", ""):
        need(status_of(peer.unary(request(change=[(":authority", authority)])))[0] == "0", authority)
    need(status_of(peer.unary(request(drop=[":authority"])))[0] == "0", "no :authority")
    for kind in ("application/grpc+proto", "application/grpc;x=y"):
        need(status_of(peer.unary(request(change=[("content-type", kind)])))[0] == "0", kind)
    # A message in pieces: one byte a frame; nothing of a request may be lost between calls.
    whole = message(b"in pieces")
    stream = peer.call(request(), whole[:1], end=False)
    for at in range(1, len(whole)):
        peer.send(frame(DATA, END_STREAM if at + 1 == len(whole) else 0, stream, whole[at:at + 1]))
    need(peer.answer(stream)["data"] == whole, "in pieces")
    need(peer.unary(request(), message(b""))["data"] == message(b""), "an empty message")
    longest = peer.unary(request(), message(b"")[:0] + message(b"x" * 16000))
    need(len(longest["data"]) == 16005, "16000 bytes")
    need(peer.answer(peer.call(request("/t.T/Many"), message(struct.pack(">I", 3000000))))["data"][5:] == bytes(3000000),
         "3 MB through flow control")
    marked = peer.unary(request("/t.T/Marked", extra=[("mark.example", "true")]))
    need(status_of(marked)[0] == "0", marked)
    peer.send(frame(PING, 0, 0, b"12345678"))
    while True:
        kind, flags, _, payload = peer.frame()
        if kind == PING:
            need(flags == ACK and payload == b"12345678", "PING")
            break
    print("ok: unary and streamed answers, every form of :authority, messages in pieces, flow control;", peer.end().count("ended"),
          "calls")


def refusals():
    peer = Peer()
    echo, no = request, lambda *names: request(drop=names)
    refused("unknown method", peer.unary(echo("/t.T/Other")), 12, "no such method")
    refused("a long path", peer.unary(echo("/" + "t" * 500)), 12, "no such method")
    refused("te", peer.unary(no("te")), 13, "te: trailers")
    refused("te", peer.unary(echo(change=[("te", "gzip")])), 13, "te: trailers")
    refused("encoding", peer.unary(echo(extra=[("grpc-encoding", "gzip")])), 12, "only identity")
    need(peer.unary(echo(extra=[("grpc-encoding", "gzip")]))["headers"]["grpc-accept-encoding"] == "identity", "accepted")
    need(status_of(peer.unary(echo(extra=[("grpc-encoding", "identity")])))[0] == "0", "identity")
    for bad in ("1", "S", "123456789S", "1x", "-1S", ""):
        refused(bad, peer.unary(echo(extra=[("grpc-timeout", bad)])), 13, "grpc-timeout")
    refused("no message", peer.unary(echo(), None), 13, "no request message")
    refused("a cut prefix", peer.unary(echo(), message(b"hello")[:3]), 13, "cut off")
    refused("a cut message", peer.unary(echo(), message(b"hello")[:-1]), 13, "cut off")
    refused("two messages", peer.unary(echo(), message(b"a") + message(b"b")), 13, "more than one")
    refused("compressed", peer.unary(echo(), message(b"hello", compressed=1)), 13, "compressed")
    refused("too long", peer.unary(echo(), struct.pack(">BI", 0, 65537)), 8, "longer than 64 KiB")
    refused("far too long", peer.unary(echo(), struct.pack(">BI", 0, 0xffffffff)), 8, "longer than 64 KiB")
    for marks in ([], [("mark.example", "false")], [("mark.example", "true")] * 2):
        refused("mark", peer.unary(echo("/t.T/Marked", extra=marks)), 3, "mark.example must be there exactly once")
    for method, header, http in (("GET", "application/grpc", "405"), ("POST", "application/json", "415"),
                                 ("POST", "application/grpc-web", "415")):
        got = peer.unary(echo(change=[(":method", method), ("content-type", header)]))
        need(got["headers"] == {":status": http}, got)
    began = time.monotonic()
    refused("deadline", peer.unary(echo("/t.T/Never", extra=[("grpc-timeout", "300m")])), 4, "time is over")
    need(time.monotonic() - began >= 0.29, "too early")
    need(status_of(peer.unary(echo()))[0] == "0", "the connection goes on")
    # RFC 9113 §8.1.1: malformed, so a stream error of type PROTOCOL_ERROR
    for what, headers in (("no :path", no(":path")), ("no :method", no(":method")), ("no :scheme", no(":scheme")),
                          ("two :path", [(":path", "/t.T/Echo")] + echo()),
                          ("two te", echo(extra=[("te", "trailers")])),
                          ("upper case", echo(extra=[("Upper", "x")])),
                          ("a pseudo-header last", no(":authority") + [(":authority", "x")]),
                          ("an unknown pseudo-header", [(":other", "x")] + echo()),
                          ("connection", echo(extra=[("connection", "close")])),
                          ("a relative path", echo("t.T/Echo")),
                          ("a scheme", echo(change=[(":scheme", "ftp")])),
                          ("a NUL", echo(extra=[("x", "a\0b")]))):
        got = peer.unary(headers)
        need(got.get("reset") == 1, f"{what}: {got}")
    need(status_of(peer.unary(echo()))[0] == "0", "the connection goes on")
    print("ok: what is not gRPC, or not HTTP/2, is refused with its own code and reason; the connection goes on")
    peer.end()


def cut(what, peer, words, code=CALM):
    """Wants the connection ended with a GOAWAY, and the reason told to the handler."""
    goaway = None
    while True:
        one = peer.frame()
        if one is None:
            break
        if one[0] == GOAWAY:
            goaway = struct.unpack(">I", one[3][4:8])[0]
    log = peer.end()
    need("cut " + words in log, f"{what}: {log}")
    need(goaway in (code, None), f"{what}: GOAWAY {goaway}")  # None: its end overtook it
    return goaway


def abuse():
    peer = Peer()
    peer.try_send(b"".join(frame(SETTINGS, 0, 0) for _ in range(2000)))
    cut("SETTINGS", peer, "a flood of small frames or resets")
    peer = Peer()
    peer.try_send(b"".join(frame(PING, 0, 0, b"12345678") for _ in range(20000)))
    cut("PING", peer, "a flood of")
    peer = Peer()
    peer.try_send(b"".join(frame(PRIORITY, 0, 1, b"\0\0\0\0\1") for _ in range(2000)))
    cut("PRIORITY", peer, "a flood of small frames or resets")
    peer = Peer()
    stream = peer.call(request(), b"", end=False)
    peer.try_send(b"".join(frame(DATA, 0, stream) for _ in range(2000)))
    cut("empty DATA", peer, "a flood of small frames or resets")
    peer = Peer()  # CVE-2023-44487
    for _ in range(1000):
        stream, peer.next = peer.next, peer.next + 2
        peer.try_send(frame(HEADERS, END_HEADERS, stream, peer.encoder.encode(request("/t.T/Never"))) +
                      frame(RST, 0, stream, struct.pack(">I", 8)))
    cut("rapid reset", peer, "a flood of small frames or resets")
    # Whoever takes a stream's first message and cancels it, as SPIFFE libraries fetch once, may do so as fast as he can, with
    # the WINDOW_UPDATE that his library adds.
    peer = Peer()
    for _ in range(3000):
        stream = peer.call(request("/t.T/Once"))
        while True:
            one = peer.frame()
            need(one is not None, "cut for what a library does")
            if one[0] == HEADERS:
                peer.decoder.decode(one[3])
            if one[0] == DATA and one[2] == stream:
                break
        peer.send(frame(WINDOW, 0, 0, struct.pack(">I", len(one[3]))) + frame(RST, 0, stream, struct.pack(">I", 8)))
    need(status_of(peer.unary(request()))[0] == "0", "the connection goes on")
    for _ in range(1000):  # a stream is reset once: those after it cost what they cost
        peer.try_send(frame(RST, 0, stream, struct.pack(">I", 8)))
    cut("the same stream again", peer, "a flood of small frames or resets")
    peer = Peer()  # CVE-2025-8671: the server is made to reset; as dear as the client's own reset
    began, one = time.monotonic(), ()
    for _ in range(20):  # fewer at a time than may be open
        for _ in range(50):
            stream, peer.next = peer.next, peer.next + 2
            peer.try_send(frame(HEADERS, END_HEADERS, stream, peer.encoder.encode(request("/t.T/Never"))) +
                          frame(DATA, END_STREAM, stream, message(b"hello")) +
                          frame(WINDOW, 0, stream, struct.pack(">I", 0x7fffffff)))  # beyond what a window may be
        while one is not None and (one := peer.frame()) and one[:1] + one[2:3] != (RST, stream):
            pass
    log = peer.end()
    most = 1000 / (1 + 2 + 5) + 100 / 8 * (time.monotonic() - began) + 40
    need("cut a flood of small frames or resets" in log, log)
    need(log.count("ended") < most, f"{log.count('ended')} calls were begun, {most} at most")
    peer = Peer()
    peer.try_send(b"".join(frame(WINDOW, 0, 0, struct.pack(">I", 1)) for _ in range(2000)))
    cut("WINDOW_UPDATE", peer, "a flood of small frames or resets")
    print("ok: floods of SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty DATA, the rapid reset by either side: cut; resets after a message: not")
    for stream, what in ((0, "a connection's"), (1, "a stream's")):  # RFC 9113 §6.9.1
        peer = Peer()
        peer.call(request("/t.T/Never"))
        for _ in range(2):
            peer.try_send(frame(WINDOW, 0, stream, struct.pack(">I", 0x7fffffff)))
        kind = RST if stream else GOAWAY
        code = next((struct.unpack(">I", one[3][-4:] if stream else one[3][4:8])[0]
                     for one in iter(peer.frame, None) if one[0] == kind), None)
        need(code == 3, f"{what} window beyond 2^31-1: {code}")
        peer.end()
    print("ok: windows beyond 2^31-1: FLOW_CONTROL_ERROR")
    peer = Peer()
    block = peer.encoder.encode(request())
    peer.try_send(frame(HEADERS, 0, 1, block[:1]) + b"".join(frame(CONTINUATION, 0, 1, b"") for _ in range(5)))
    cut("CONTINUATION", peer, "a header block in too many parts or bytes")
    peer = Peer()
    peer.try_send(frame(HEADERS, 0, 1, block[:1]) + frame(CONTINUATION, 0, 1, bytes(16000)) + frame(CONTINUATION, 0, 1, bytes(16000)) +
                  frame(CONTINUATION, 0, 1, bytes(16000)))
    cut("a long block", peer, "", CALM)
    peer = Peer()  # one byte a header on the wire, 4000 decoded
    peer.try_send(frame(HEADERS, END_HEADERS, 1, peer.encoder.encode(request(extra=[("x", "y" * 3900)])) + b"\xbe" * 2000))
    cut("HPACK bomb", peer, "the headers of a request are too many or too long")
    peer = Peer()
    peer.call(request(extra=[(f"x{i}", "y") for i in range(100)]))
    cut("many headers", peer, "the headers of a request are too many or too long")
    print("ok: CONTINUATION flood, long header blocks, HPACK bombs, many headers: cut")
    peer = Peer(hello=False)
    peer.try_send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    cut("HTTP/1.1", peer, "not HTTP/2")
    peer = Peer(hello=False, hello_ms=200)
    cut("silence", peer, "no HTTP/2 preface in time")
    peer = Peer()
    peer.try_send(frame(DATA, 0, 5, b"x" * 5))
    need(any(one[0] == GOAWAY for one in iter(peer.frame, None)), "DATA on an idle stream")
    peer.end()
    print("ok: another protocol, silence, frames out of order: cut")


def each():
    """Many request messages in one call: the handler has each as soon as it is whole."""
    peer = Peer()
    stream = peer.call(request("/t.T/Each"), message(b"12345") + message(b"123456")[:7], end=False)
    peer.send(frame(DATA, 0, stream, message(b"123456")[7:] + message(b"1234") + message(b"")))
    peer.send(frame(DATA, END_STREAM, stream))
    got = peer.answer(stream)
    need(status_of(got)[0] == "0" and got["data"].endswith(message(b"")), got)
    need(status_of(peer.unary(request("/t.T/Each"), None))[0] == "0", "no message at all")
    refused("a cut one", peer.unary(request("/t.T/Each"), message(b"12345") + message(b"12345")[:6]), 13, "cut off")
    refused("too long", peer.unary(request("/t.T/Each"), message(b"1234") + struct.pack(">BI", 0, 65537)), 8, "longer than")
    refused("ended by the handler", peer.unary(request("/t.T/Each"), message(b"123") + message(b"12345")), 5, "three")
    log = peer.end()
    sizes = [int(line.split()[1]) for line in log.splitlines() if line.startswith("message ")]
    need(sizes == [5, 6, 4, 0, 5, 4, 3], f"each message once: {sizes}")
    peer = Peer(slow_ms=500)
    stream = peer.call(request("/t.T/Each"), message(b"1234"), end=False)
    time.sleep(1.2)  # between messages there is no hurry
    peer.send(frame(DATA, 0, stream, message(b"1234")[:7]))
    refused("half a message", peer.answer(stream), 4, "did not come in time")
    peer.end()
    peer = Peer()
    stream = peer.call(request("/t.T/Each"), message(b"1234"), end=False)
    peer.try_send(b"".join(frame(DATA, 0, stream, message(b"1234") * 1000) for _ in range(2)))
    cut("messages", peer, "a flood of request messages")
    peer = Peer(window=0)  # few of them, but each is answered with 3 MB
    stream = peer.call(request("/t.T/Secret"), message(bytes(3000)), end=False)
    peer.try_send(b"".join(frame(DATA, 0, stream, message(bytes(3000))) for _ in range(10)))
    cut("messages with long answers", peer, "a flood of request messages")
    peer = Peer(window=0x7fffffff)  # who reads each may ask as often
    peer.send(frame(WINDOW, 0, 0, struct.pack(">I", 0x70000000)))
    stream = peer.call(request("/t.T/Secret"), message(bytes(3000)), end=False)
    for turn in range(10):
        got = 0
        while got < 3000005:
            kind, _, _, payload = peer.frame()
            got += len(payload) if kind == DATA else 0
        peer.send(frame(DATA, 0, stream, message(b"ok" if turn == 9 else bytes(3000))))
    need(status_of(peer.answer(stream))[0] == "0", "read and asked again")
    peer.end()
    print("ok: many request messages in one call, each as it comes; cut ones, long ones and floods are refused")


def limits():
    peer = Peer()
    refused_at = []
    for _ in range(140):
        peer.call(request("/t.T/Never"))
    while len(refused_at) < 12:  # before a handler sees them (RFC 9113 §5.1.2)
        kind, flags, stream, payload = peer.frame()
        if kind == RST:
            need(struct.unpack(">I", payload)[0] == 7, "REFUSED_STREAM")
            refused_at.append(stream)
    need(refused_at == list(range(257, 281, 2)), refused_at)
    need(peer.end().count("ended") == 128, "128 calls")
    peer = Peer()  # five unfinished requests of 60 kB are more than all may be together
    for stream in [peer.call(request(), struct.pack(">BI", 0, 60000), end=False) for _ in range(5)]:
        for _ in range(4):
            peer.send(frame(DATA, 0, stream, bytes(14900)))
        if stream == 9:
            refused("unfinished requests", peer.answer(stream), 8, "requests under way")
    peer.end()
    print("ok: 128 streams a connection, 256 KiB of unfinished requests")


def slow():
    peer = Peer(slow_ms=500, window=0)  # a stream that may not send: its own end, nobody else's
    stream = peer.call(request("/t.T/Many"), message(struct.pack(">I", 1000)))
    got = peer.answer(stream)
    need(got.get("reset") == 8, got)
    need("cut a stream is not read" in peer.end(), "a stream that is not read")
    peer = Peer(slow_ms=500)  # a request that does not end
    refused("half a request", peer.unary(request(), message(b"hello")[:7], end=False), 4, "did not come in time")
    need(status_of(peer.unary(request()))[0] == "0", "the next one")
    peer.end()
    peer = Peer(slow_ms=500)  # headers that do not end
    peer.send(frame(HEADERS, 0, 1, peer.encoder.encode(request())))
    cut("half of the headers", peer, "a request's headers did not come in time")
    peer = Peer(slow_ms=500)  # a socket that is not read
    peer.send(frame(WINDOW, 0, 0, struct.pack(">I", 0x7fff0000)))
    peer.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0x7fffffff)))
    for _ in range(8):
        peer.call(request("/t.T/Many"), message(struct.pack(">I", 4000000)))
    peer.process.wait(PATIENCE)
    need("cut it does not read" in peer.end(), "a socket that is not read")
    # Every millisecond a new state for a reader that takes one after a second: he gets what is newest, not a backlog.
    peer = Peer(window=65536)
    stream = peer.call(request("/t.T/Latest"), message(b""))
    got = b""
    while len(got) < 65535:  # as much as the connection may have in flight at first
        kind, flags, of, payload = peer.frame()
        got += payload if kind == DATA else b""
    time.sleep(1)
    peer.send(frame(WINDOW, 0, 0, struct.pack(">I", 10 ** 6)) + frame(WINDOW, 0, stream, struct.pack(">I", 10 ** 6)))
    while len(got) < 3 * 65541:
        kind, flags, of, payload = peer.frame()
        got += payload if kind == DATA else b""
    states = [int(got[at * 65541 + 5:at * 65541 + 13]) for at in range(3)]
    need(states[2] - states[0] > 50, states)
    peer.end()
    print("ok: who does not read is cut, stream or connection; a slow reader gets the newest state:", states)


def secrets():
    """What is secret: not to who is refused meanwhile, wiped where it was sent from, and counted while it waits."""
    peer = Peer(window=0)  # it waits: nothing of it may be sent
    stream = peer.call(request("/t.T/Secret"), message(b"123"), end=False)
    peer.send(frame(DATA, 0, stream, message(b"no")) + frame(WINDOW, 0, stream, struct.pack(">I", 60000)))
    got = peer.answer(stream)
    refused("refused while it waits", got, 7, "no")
    need(got["data"] == b"", got)
    log = peer.end()
    need(log.index("waits 3005") < log.index("waits 0") and "left" not in log, log)
    peer = Peer(window=0)  # a good end takes nothing back
    stream = peer.call(request("/t.T/Secret"), message(b"123"), end=False)
    peer.send(frame(DATA, 0, stream, message(b"ok")) + frame(WINDOW, 0, stream, struct.pack(">I", 60000)))
    need(peer.answer(stream)["data"] == message(b"s" * 3000), "before a good end")
    peer.end()
    # A part of it is sent: the rest is not, though there is room for it, and it is no answer. Who is slow is cut in the
    # same way, which is not to be mistaken for it.
    peer = Peer(window=1000, slow_ms=1000 * 2 * PATIENCE)
    stream = peer.call(request("/t.T/Secret"), message(b"123"), end=False)
    got = 0
    while got < 1000:
        kind, _, _, payload = peer.frame()
        got += len(payload) if kind == DATA else 0
    peer.send(frame(DATA, 0, stream, message(b"no")) + frame(WINDOW, 0, stream, struct.pack(">I", 60000)))
    got = peer.answer(stream)
    need(got.get("reset") == 8 and got["data"] == b"" and not got["trailers"], got)
    log = peer.end()
    need(log.rstrip().splitlines()[-1] == "closed" and "waits 0" in log, log)
    peer = Peer(window=100000)
    stream = peer.call(request("/t.T/Secret"), message(b"x" * 20), end=False)
    got = 0
    while got < 20005:
        kind, _, _, payload = peer.frame()
        got += len(payload) if kind == DATA else 0
    peer.send(frame(DATA, 0, stream, message(b"x" * 21)))  # a newer one in the place of one that waits
    time.sleep(0.2)
    peer.send(frame(DATA, END_STREAM, stream))
    peer.answer(stream)
    log = peer.end()
    need("wiped" in log and "left" not in log, log)
    need([line for line in log.splitlines() if line.startswith("waits")][-1] == "waits 0", log)
    print("ok: a secret that waits is not sent to who is refused, one that was sent is wiped; both are counted")
    for end in "closed", "does not read":  # what the socket had no room for, when the connection ends
        peer = Peer(window=0x7fffffff, slow_ms=30000 if end == "closed" else 300)
        peer.send(frame(WINDOW, 0, 0, struct.pack(">I", 0x7fff0000)))
        for _ in range(16):
            peer.call(request("/t.T/Secret"), message(b"x" * 60), end=False)
        if end == "closed":  # more than the socket holds is on its way
            while peer.frame()[0] != DATA:
                pass
        else:
            peer.process.wait(PATIENCE)
        log = peer.end()
        need("unread wiped" in log and "unread left" not in log, log)
    print("ok: of a secret that was never read nothing is left, whoever ended the connection")


def writer():
    peer = Peer(writer=os.getpid())
    need(status_of(peer.unary(request()))[0] == "0", "the writer's own bytes")
    child = os.fork()
    if child == 0:
        peer.try_send(frame(PING, 0, 0, b"12345678"))
        os._exit(0)
    os.waitpid(child, 0)
    cut("a child", peer, "another process writes on its connection")
    peer, (spare, other) = Peer(writer=os.getpid()), os.pipe()
    send, peer.send = peer.send, lambda data: socket.send_fds(peer.socket, [data], [spare])
    stream, peer.send = peer.call(request()), send
    got = peer.answer(stream)
    os.close(spare)
    os.close(other)
    need(got["headers"] is None and got.get("end"), f"served with a descriptor: {got}")
    need("cut it sends descriptors" in peer.end(), "a descriptor: not said")
    print("ok: a child that inherited the connection, a descriptor that is sent along: cut, and nothing of it served")


answers()
refusals()
each()
abuse()
limits()
slow()
secrets()
writer()
print("gRPC transport: all held")
