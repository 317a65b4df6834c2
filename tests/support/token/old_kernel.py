#!/usr/bin/python3
"""Runs a program as on a kernel before 6.5, which has neither SO_PEERPIDFD nor SO_PASSRIGHTS, and stops it in pidfd_open when asked to.

usage: old_kernel.py HOLD PROGRAM [ARGUMENT…]
By a seccomp filter: getsockopt and setsockopt of these two are ENOPROTOOPT; pidfd_open waits as long as the file HOLD is
there. Prints "held" when a call begins to wait. The program keeps this process's pid."""
import ctypes
import fcntl
import os
import platform
import socket
import struct
import sys
import time

SOL_SOCKET, SO_PEERPIDFD, SO_PASSRIGHTS, ENOPROTOOPT = 1, 77, 83, 92
GETSOCKOPT, SETSOCKOPT, SECCOMP = {"x86_64": (55, 54, 317), "aarch64": (209, 208, 277)}[platform.machine()]
PIDFD_OPEN = 434
ALLOW, ERRNO, USER_NOTIF = 0x7FFF0000, 0x00050000, 0x7FC00000
NOTIF_RECV, NOTIF_SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
libc = ctypes.CDLL(None, use_errno=True)


def install():
    """The filter's listener."""
    program = [(LOAD, 0, 0, 0), (EQUAL, 0, 1, PIDFD_OPEN), (RETURN, 0, 0, USER_NOTIF), (EQUAL, 1, 0, GETSOCKOPT),
               (EQUAL, 0, 6, SETSOCKOPT), (LOAD, 0, 0, 24), (EQUAL, 0, 4, SOL_SOCKET), (LOAD, 0, 0, 32),
               (EQUAL, 1, 0, SO_PEERPIDFD), (EQUAL, 0, 1, SO_PASSRIGHTS), (RETURN, 0, 0, ERRNO | ENOPROTOOPT),
               (RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    fprog = struct.pack("=H6xQ", len(program), ctypes.addressof(code))
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    fd = libc.syscall(SECCOMP, 1, 8, fprog)  # SECCOMP_SET_MODE_FILTER, FLAG_NEW_LISTENER
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return fd


def supervise(listener, hold):
    while True:
        call = bytearray(80)
        try:
            fcntl.ioctl(listener, NOTIF_RECV, call)
        except OSError:  # interrupted; or nobody is left
            if os.getppid() == 1:
                return
            continue
        if os.path.exists(hold):
            print("held", flush=True)
        while os.path.exists(hold):
            time.sleep(0.01)
        try:
            fcntl.ioctl(listener, NOTIF_SEND, call[:8] + struct.pack("=qiI", 0, 0, CONTINUE))
        except OSError:  # the caller was killed
            pass


def main():
    hold, program = sys.argv[1], sys.argv[2:]
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        libc.prctl(1, 15, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGTERM
        _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
        supervise(fds[0], hold)
        os._exit(0)
    theirs.close()
    listener = install()
    try:
        socket.socket().getsockopt(SOL_SOCKET, SO_PEERPIDFD)
        raise SystemExit("the filter does not hold")
    except OSError as error:
        if error.errno != ENOPROTOOPT:
            raise
    socket.send_fds(ours, [b"."], [listener])
    os.close(listener)
    os.execv(program[0], program)


main()
