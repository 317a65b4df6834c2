#!/usr/bin/python3
"""A workload that speaks p11-kit's RPC by hand, to do what no stock client does.

usage: rpc.py COMMAND SOCKET [ARGUMENT…]
  early     writes its first call before it is answered; prints what comes back
  flood N   connects and hangs up N times
  hold N    N connections, each past its version; prints how many are served, waits for its input
  users N   the same, each of another user (root only)
  exec      signs, then becomes another script of the same interpreter, which signs on the same
            connection until it is refused; prints the refusal
  tool      signs, then starts a program that writes to the inherited connection
  pass      signs, then hands its connection to a process that was there before
  reuse     a process connects and ends, and another gets its pid, both before anybody looks; whoever
            holds the connection then must not be served (root only); with a third argument it prints "connected"
            and waits for a line before the pid gets to another
  leave     asks for a signature and ends without waiting for it
  wait      asks for a signature, prints "asked", and reads the answer at the next line of input
  fork      signs; a child of multiprocessing signs on the connection that it inherited, and then four on
            connections of their own; prints who was served: "inherited …", "parent …", "child PID RV"
  storm N   forks N children as fast as it can; every second one connects and ends at once, the others sign;
            prints how many were served
  midway    C_SignInit, prints "begun", C_Sign at the next line of input; prints what it answers
  watch N   N connections; signs on the first every 20 ms, and prints "MS RV found N" (UTC milliseconds;
            private keys that a search finds) when that changes, "MS lost" at the end of the connection
  many N NAME [UID]  N processes of this name, each with a connection and a signature; prints "pids PID…" and "up I" for each, and for each
            line of input I what a signature of the I-th (from 0; "all": of one after the other) answers: "I RV"
  deaf N    N calls without reading an answer; prints "deaf" and waits for its input"""
import multiprocessing
import os
import select
import socket
import struct
import subprocess
import sys
import time

HANDSHAKE = b"PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"
NULL = 0xFFFFFFFF


def u32(n):
    return struct.pack(">I", n)


def u64(n):
    return struct.pack(">Q", n)


def field(data):
    return u32(len(data)) + data


def message(number, args, body):
    text = u32(number) + field(args) + body
    return struct.pack(">III", 1, 6, len(text)) + b"client" + text


INITIALIZE = message(1, b"ayyay", b"\1" + field(HANDSHAKE) + b"\0\1" + field(b"\0"))


class Gone(Exception):
    pass


class Client:
    def __init__(self, conn, session=None, key=None):
        self.conn, self.session, self.key = conn, session, key

    def take(self, n):
        got = b""
        while len(got) < n:
            try:
                part = self.conn.recv(n - len(got))
            except ConnectionResetError:
                part = b""
            if not part:
                raise Gone()
            got += part
        return got

    def answer(self):
        """(rv, what stands behind the answer's signature)"""
        _, options, length = struct.unpack(">III", self.take(12))
        self.take(options)
        text = self.take(length)
        number, n = struct.unpack(">II", text[:8])
        rest = text[8 + n:]
        return (struct.unpack(">Q", rest[:8])[0], b"") if number == 0 else (0, rest)

    def call(self, number, args, body):
        self.conn.sendall(message(number, args, body))
        return self.answer()

    def must(self, number, args, body):
        rv, rest = self.call(number, args, body)
        if rv:
            raise SystemExit(f"call {number}: {rv:#x}")
        return rest

    def open(self):
        self.conn.sendall(INITIALIZE)
        if self.answer()[0]:
            raise SystemExit("C_Initialize")
        self.session = struct.unpack(">Q", self.must(10, b"uu", u64(1) + u64(4)))[0]
        private = u32(0) + b"\1" + u32(8) + u64(3)  # CKA_CLASS = CKO_PRIVATE_KEY
        self.must(26, b"uaA", u64(self.session) + u32(1) + private)
        found = self.must(27, b"ufu", u64(self.session) + u32(1))
        self.key = struct.unpack(">Q", found[5:13])[0]
        self.must(28, b"u", u64(self.session))
        return self

    def found(self):
        private = u32(0) + b"\1" + u32(8) + u64(3)
        self.must(26, b"uaA", u64(self.session) + u32(1) + private)
        n = struct.unpack(">I", self.must(27, b"ufu", u64(self.session) + u32(4))[1:5])[0]
        self.must(28, b"u", u64(self.session))
        return n

    def ask(self):
        """CKR of C_SignInit; C_Sign is on its way when it is 0."""
        rv, _ = self.call(42, b"uMu", u64(self.session) + u32(0x1041) + u32(NULL) + u64(self.key))
        if rv:
            return rv
        self.conn.sendall(message(43, b"uayfy", u64(self.session) + b"\1" + field(b"\1" * 32) + u32(64)))
        return 0

    def sign(self):
        rv = self.ask()
        if rv:
            return rv
        rv, rest = self.answer()
        if rv == 0 and len(rest) != 5 + 64:
            raise SystemExit("not a signature")
        return rv


def connect(path):
    conn = socket.socket(socket.AF_UNIX)
    conn.settimeout(20)
    conn.connect(path)
    return conn


def versioned(path):
    """Past the version byte, or None."""
    conn = connect(path)
    try:
        conn.sendall(b"\0")
        return conn if conn.recv(1) else None
    except OSError:
        return None


def opened(path):
    conn = versioned(path)
    if not conn:
        raise SystemExit("turned away")
    client = Client(conn).open()
    if client.sign():
        raise SystemExit("the first signature")
    return client


def cmd_early(path):
    conn = connect(path)
    conn.sendall(b"\0" + INITIALIZE)
    print("connected", flush=True)
    sys.stdin.readline()
    print("answered" if conn.recv(1) else "turned away")


def cmd_flood(path, n):
    for _ in range(int(n)):
        try:
            connect(path).close()
        except BlockingIOError:  # the backlog is full
            time.sleep(0.01)


def cmd_hold(path, n):
    held = []
    for _ in range(int(n)):
        try:
            conn = connect(path)
            held.append(conn)
            conn.sendall(b"\0")
        except (BrokenPipeError, ConnectionResetError):  # turned away already
            pass
    until, waiting, served = time.monotonic() + 60, list(held), 0
    while waiting and time.monotonic() < until:  # some are not even accepted
        for conn in select.select(waiting, [], [], max(0, until - time.monotonic()))[0]:
            waiting.remove(conn)
            until = time.monotonic() + 5  # behind the latest answer
            try:
                served += conn.recv(1) == b"\0"
            except ConnectionResetError:
                pass
    print(served, flush=True)
    sys.stdin.readline()


def cmd_users(path, n):
    held = []
    for i in range(int(n)):
        os.setresuid(70000 + i, 70000 + i, 0)
        held.append(versioned(path))
        os.setresuid(0, 0, 0)
    print(len([conn for conn in held if conn]), flush=True)
    sys.stdin.readline()


def cmd_exec(path):
    client = opened(path)
    os.set_inheritable(client.conn.fileno(), True)
    os.execv(sys.executable, [sys.executable, sys.argv[0], "resume", str(client.conn.fileno()), str(client.session),
                              str(client.key)])


def cmd_resume(fd, session, key):
    conn = socket.socket(fileno=int(fd))
    conn.settimeout(20)
    client = Client(conn, int(session), int(key))
    for _ in range(200):
        rv = client.sign()
        if rv:
            print(f"refused {rv:#x}")
            # … and for good
            print(f"again {client.sign():#x}")
            return
        time.sleep(0.05)
    raise SystemExit("another program signs on")


def cmd_tool(path):
    client = opened(path)
    os.set_inheritable(client.conn.fileno(), True)
    args = [sys.executable, sys.argv[0], "resume", str(client.conn.fileno()), str(client.session), str(client.key)]
    tool = subprocess.run(args, close_fds=False, stderr=subprocess.PIPE, check=False)
    if tool.returncode == 0 or b"Gone" not in tool.stderr:
        raise SystemExit(f"the tool was served: {tool.stderr.decode()}")
    try:
        client.sign()
    except (Gone, OSError):
        print("lost for both")


def cmd_pass(path):
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _, fds, _, _ = socket.recv_fds(theirs, 64, 1)
        try:
            rv = Client(socket.socket(fileno=fds[0]), 1, 64).sign()
            print(f"served {rv:#x}")
        except (Gone, OSError):
            print("lost")
        os._exit(0)
    client = opened(path)
    socket.send_fds(ours, [b"."], [client.conn.fileno()])
    os.waitpid(pid, 0)


def cmd_reuse(path, wait=None):
    conn = socket.socket(socket.AF_UNIX)
    conn.settimeout(20)
    first = os.fork()
    if first == 0:
        conn.connect(path)
        conn.sendall(b"\0")
        os._exit(0)
    os.waitpid(first, 0)
    if wait:
        print("connected", flush=True)
        sys.stdin.readline()
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
    try:
        if conn.recv(1):
            Client(conn).open()
            print("served")
        else:
            print("turned away")
    except (Gone, OSError):
        print("lost")
    os.kill(second, 9)


def cmd_leave(path):
    opened(path).ask()
    os._exit(0)


def cmd_wait(path):
    client = opened(path)
    client.ask()
    print("asked", flush=True)
    sys.stdin.readline()
    rv, rest = client.answer()
    print(f"{rv:#x} {len(rest)}")


def outcome(client):
    try:
        return f"{client.sign():#x}"
    except (Gone, OSError):
        return "lost"


def own_connection(path):
    client = Client(versioned(path)).open()
    return os.getpid(), outcome(client)


def cmd_fork(path):
    client = opened(path)
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=lambda: print("inherited", outcome(client), flush=True))
    child.start()
    child.join()
    print("parent", outcome(client), flush=True)
    print("parent again", *own_connection(path), flush=True)
    with fork.Pool(4) as pool:
        for pid, said in pool.map(own_connection, [path] * 4, chunksize=1):
            print("child", pid, said, flush=True)


def storm_child(path, ends):
    conn = connect(path)
    conn.sendall(b"\0")
    if ends or not conn.recv(1):
        return 1
    return 0 if Client(conn).open().sign() == 0 else 1


def cmd_storm(path, n):
    served = alive = 0
    for i in range(int(n)):
        if os.fork() == 0:
            status = 1
            try:
                status = storm_child(path, i % 2)
            except (Gone, OSError):
                pass
            os._exit(status)
        alive += 1
        if alive == 40:
            served += os.waitstatus_to_exitcode(os.wait()[1]) == 0
            alive -= 1
    for _ in range(alive):
        served += os.waitstatus_to_exitcode(os.wait()[1]) == 0
    print(served)


def cmd_midway(path):
    client = opened(path)
    client.must(42, b"uMu", u64(client.session) + u32(0x1041) + u32(NULL) + u64(client.key))
    print("begun", flush=True)
    sys.stdin.readline()
    rv, _ = client.call(43, b"uayfy", u64(client.session) + b"\1" + field(b"\1" * 32) + u32(64))
    print(f"{rv:#x} then {client.sign():#x}")


def cmd_watch(path, n):
    held = [opened(path)] + [Client(versioned(path)).open() for _ in range(int(n) - 1)]
    said = ""
    while True:
        try:
            now = f"{held[0].sign():#x} found {held[0].found()}"
        except (Gone, OSError):
            now = "lost"
        if now != said:
            print(int(time.time() * 1000), now, flush=True)
        said = now
        if now == "lost":
            return
        time.sleep(0.02)


def many_child(path, number, orders):
    client = None
    while not client:  # a user's processes may connect so many times a second only
        try:
            client = opened(path)
        except (SystemExit, OSError):
            time.sleep(0.1)
    os.write(1, f"up {number}\n".encode())  # by one call each: hundreds write to one file
    while orders.recv(1):
        os.write(1, f"{number} {outcome(client)}\n".encode())
        orders.sendall(b".")


def cmd_many(path, n, name, uid=None):
    with open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write(name)  # the children's, too
    if uid:
        os.setresuid(int(uid), int(uid), int(uid))
    orders, pids = [], []
    for number in range(int(n)):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            for other in [*orders, ours]:
                other.close()
            many_child(path, number, theirs)
            os._exit(0)
        theirs.close()
        orders.append(ours)
        pids.append(pid)
    print("pids", *pids, flush=True)
    for line in sys.stdin:
        if line.strip() != "all":
            orders[int(line)].sendall(b".")
            continue
        for order in orders:
            order.setblocking(False)
            try:
                order.recv(4096)  # that it has answered others
            except BlockingIOError:
                pass
            order.setblocking(True)
            order.sendall(b".")
            order.recv(1)


def cmd_deaf(path, n):
    client = opened(path)
    client.conn.setblocking(False)
    frame = message(64, b"ufy", u64(client.session) + u32(4096))  # C_GenerateRandom
    sent = 0
    for _ in range(int(n)):
        try:
            sent += client.conn.send(frame)
        except BlockingIOError:
            time.sleep(0.001)
    print("deaf", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    globals()["cmd_" + sys.argv[1]](*sys.argv[2:])
