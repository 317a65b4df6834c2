#!/usr/bin/python3
"""A pid that is used again between connect and check, on a kernel without SO_PEERPIDFD and with the daemons as shipped.

usage: pid_reuse.py before|between token|spiffe SOCKET DAEMON UID
Root's, in the unit of an agent (by its unit) in the first PID namespace; beside this file rpc.py and streams.py, which speak
to the sockets. A process of user UID that is in no unit connects, asks and ends; one of the agent's own, of the same
user, gets its number. Whoever holds the connection then tries to go on as that agent.
  before   DAEMON, the server's main process, is stopped while all that happens: it has accepted nothing yet
  between  DAEMON has the number by SO_PEERCRED and is held by ptrace at pidfd_open, which is to open it
Prints "agent OUTCOME" (the newcomer's like, by a connection of its own: served), "kernel OLD" (the socket option is
unknown), "held PID" (between), "reused PID", and the outcome for whoever holds the first one's connection."""
import ctypes
import os
import platform
import signal
import socket
import struct
import sys
import time

import rpc
import streams

SO_PEERPIDFD, ENOPROTOOPT = 77, 92
SEIZE, INTERRUPT, SYSCALL, DETACH, GETREGSET, WALL = 0x4206, 0x4207, 24, 17, 0x4204, 0x40000000
TRACE_SYSGOOD, NT_PRSTATUS, PIDFD_OPEN = 1, 1, 434
STRANGERS = "/sys/fs/cgroup/strangers"
# Where NT_PRSTATUS of x86-64 has the call's number and its first argument.
ORIG_RAX, RDI = 15, 14
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, pid, addr=0, data=0):
    if libc.ptrace(request, pid, addr, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request:#x}: {os.strerror(number)}")


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]


def call_of(pid):
    """Number and first argument of the system call at which the process stands."""
    regs = (ctypes.c_uint64 * 27)()
    iov = Iovec(ctypes.addressof(regs), ctypes.sizeof(regs))
    ptrace(GETREGSET, pid, NT_PRSTATUS, ctypes.addressof(iov))
    return regs[ORIG_RAX], regs[RDI]


def trace(pid):
    ptrace(SEIZE, pid, 0, TRACE_SYSGOOD)
    ptrace(INTERRUPT, pid)
    os.waitpid(pid, WALL)
    ptrace(SYSCALL, pid)


def hold_at_open(pid, number):
    """Until the traced process is about to open this number."""
    while True:
        _, status = os.waitpid(pid, WALL)
        if not os.WIFSTOPPED(status):
            raise SystemExit(f"the daemon ended: {status}")
        stop = os.WSTOPSIG(status)
        if stop == signal.SIGTRAP | 0x80 and call_of(pid) == (PIDFD_OPEN, number):
            return
        event = stop in (signal.SIGTRAP, signal.SIGTRAP | 0x80) or status >> 16
        ptrace(SYSCALL, pid, 0, 0 if event else stop)


def as_user(uid):
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def say(*words):
    print(*words, flush=True)


# ---- the two sockets ----

class Token:
    def __init__(self, conn):
        self.conn = conn

    def ask(self):
        self.conn.sendall(b"\0")

    def outcome(self):
        try:
            if not self.conn.recv(1):
                return "turned away"
            client = rpc.Client(self.conn).open()
            return f"served {client.sign():#x}"
        except struct.error:
            return "no key"
        except (rpc.Gone, OSError):
            return "lost"


class Spiffe:
    def __init__(self, conn):
        self.stream = streams.Connection(conn)

    def ask(self):
        self.stream.socket.sendall(streams.HELLO)
        self.stream.call("/attestd.v1.Signer/Chain")

    def outcome(self):
        try:
            while not self.stream.over and not self.stream.ended:
                self.stream.read()
        except OSError:
            return "lost"
        if self.stream.answered:
            return "served"
        return f"refused {list(self.stream.ended.values())}" if self.stream.ended else "lost"


def connection(kind):
    conn = socket.socket(socket.AF_UNIX)
    conn.settimeout(90)
    return conn, {"token": Token, "spiffe": Spiffe}[kind](conn)


# ---- the processes ----

def agent(kind, path, uid):
    """One of the agent's own, by a connection of its own."""
    pid = os.fork()
    if pid == 0:
        as_user(uid)
        conn, client = connection(kind)
        conn.connect(path)
        client.ask()
        say("agent", client.outcome())
        os._exit(0)
    os.waitpid(pid, 0)


def stranger(conn, client, path, uid):
    """In no unit: connects with what its parent holds, too, asks and ends. Its number."""
    pid = os.fork()
    if pid == 0:
        with open(STRANGERS + "/cgroup.procs", "w", encoding="ascii") as procs:
            procs.write("0")
        as_user(uid)
        conn.connect(path)
        client.ask()
        os.kill(os.getpid(), signal.SIGKILL)
    return pid


def take_number(number, uid):
    """A process of the agent's own that has this number."""
    for _ in range(2000):
        with open("/proc/sys/kernel/ns_last_pid", "w", encoding="ascii") as last:
            last.write(str(number - 1))
        pid = os.fork()
        if pid == 0:
            as_user(uid)
            while True:
                time.sleep(60)
        if pid == number:
            return pid
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    raise SystemExit(f"pid {number} is somebody else's")


def main(when, kind, path, daemon, uid):
    daemon, uid = int(daemon), int(uid)
    if platform.machine() != "x86_64":
        raise SystemExit("x86-64 only")
    os.makedirs(STRANGERS, exist_ok=True)
    agent(kind, path, uid)
    conn, client = connection(kind)
    try:
        conn.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        say("kernel", "old" if error.errno == ENOPROTOOPT else error)
    if when == "before":
        os.kill(daemon, signal.SIGSTOP)
    else:
        trace(daemon)
    first = stranger(conn, client, path, uid)
    os.waitpid(first, 0)
    if when == "between":
        hold_at_open(daemon, first)
        say("held", first)
        time.sleep(1)  # the newcomer begins well after the accept: clock ticks, of 10 ms
    second = take_number(first, uid)
    say("reused", second)
    if when == "before":
        os.kill(daemon, signal.SIGCONT)
    else:
        ptrace(DETACH, daemon)
    say(client.outcome())
    os.kill(second, signal.SIGKILL)


main(*sys.argv[1:])
