"""Asks whod or attestd's workload service as tokend does: a pidfd beside a frame (attestd/proc/ipc.h).

  ask.py WHOD.SOCK who PID [FILE...]      ask.py WHOD.SOCK same PID IDENTITY
  ask.py WORKLOAD.SOCK identify PID [ACCEPTED_MS]      ask.py WORKLOAD.SOCK view AGENT
  ask.py WHOD.SOCK flood PID N [LIMITED]  N who one after the other, or until LIMITED were too many; prints how often
                                          which answer came

Prints JSON; a refusal is {"error": code, "reason": …, "message": …} and exit code 1.
"""
import array
import json
import os
import socket
import struct
import sys


class Refused(Exception):
    def __init__(self, code, reason, message):
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


def u32(n):
    return struct.pack(">I", n)


def u64(n):
    return struct.pack(">Q", n)


def blob(b):
    return u32(len(b)) + b


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        part = self.data[self.at : self.at + n]
        assert len(part) == n, "short reply"
        self.at += n
        return part

    def num(self, n):
        return int.from_bytes(self.take(n), "big")

    def blob(self):
        return self.take(self.num(4))

    def list(self):
        return [self.blob() for _ in range(self.num(4))]

    def end(self):
        assert self.at == len(self.data), "bytes left in a reply"


class Asker:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(path)
        self.id = 0

    def call(self, op, payload, fd=None):
        self.id += 1
        body = u32(self.id) + struct.pack(">H", op) + payload
        frame = blob(body)
        extra = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        sent = self.sock.sendmsg([frame], extra)
        self.sock.sendall(frame[sent:])
        reply = Reader(self.recv(int.from_bytes(self.recv(4), "big")))
        assert reply.num(4) == self.id and reply.num(2) == op | 0x8000
        if reply.num(1):
            raise Refused(*(reply.blob().decode() for _ in range(3)))
        return reply

    def recv(self, n):
        data = b""
        while len(data) < n:
            part = self.sock.recv(n - len(data))
            if not part:
                raise Refused("gone", "", "the peer closed the connection")
            data += part
        return data

    def who(self, pid, pidfd, files=(), accepted_ms=0):
        payload = u32(pid) + u64(accepted_ms) + u32(len(files)) + b"".join(blob(f.encode()) for f in files) + u32(0)
        r = self.call(1, payload, pidfd)
        out = {"identity": r.blob().hex(), "pid": r.num(4), "uid": r.num(4), "euid": r.num(4), "gid": r.num(4)}
        out |= {"parent": r.num(4), "startTime": r.num(8)}
        for name in ("unit", "invocationId", "cgroup", "exePath"):
            out[name] = r.blob().decode()
        out["exeSha256"] = r.blob().hex()
        out["scriptPath"] = r.blob().decode()
        out["scriptSha256"] = r.blob().hex()
        out["files"] = [item.hex() for item in r.list()]
        r.end()
        return out

    def same(self, pid, pidfd, identity):
        r = self.call(2, u32(pid) + blob(bytes.fromhex(identity)), pidfd)
        return {"same": r.num(4)}

    def identify(self, pid, pidfd, accepted_ms=0, service="pkcs11"):
        r = self.call(1, u32(pid) + u64(accepted_ms) + blob(service.encode()), pidfd)
        out = {"agent": r.blob().decode(), "identity": r.blob().hex()}
        r.end()
        return out

    def view(self, agent):
        r = self.call(2, blob(agent.encode()))
        out = {"spiffeId": r.blob().decode(), "keyId": r.blob().decode(), "notAfter": r.num(8)}
        out |= {"chain": [c.hex() for c in r.list()], "bundle": [c.hex() for c in r.list()]}
        out |= {"generation": r.num(8), "keyStore": r.blob().decode()}
        r.end()
        return out


def flood(asker, pid, pidfd, n, limited):
    counts = {}
    for _ in range(n):
        if counts.get("rateLimited", 0) >= limited:
            break
        try:
            asker.who(pid, pidfd)
            word = "ok"
        except Refused as refused:
            word = refused.reason or refused.code
        counts[word] = counts.get(word, 0) + 1
    return counts


def main():
    path, what, *args = sys.argv[1:]
    asker = Asker(path)
    try:
        if what == "view":
            print(json.dumps(asker.view(args[0])))
            return 0
        pid = int(args[0])
        pidfd = os.pidfd_open(pid)
        if what == "who":
            out = asker.who(pid, pidfd, args[1:])
        elif what == "same":
            out = asker.same(pid, pidfd, args[1])
        elif what == "flood":
            out = flood(asker, pid, pidfd, int(args[1]), int(args[2]) if args[2:] else int(args[1]))
        else:
            out = asker.identify(pid, pidfd, int(args[1]) if args[1:] else 0)
        print(json.dumps(out))
        return 0
    except Refused as refused:
        print(json.dumps({"error": refused.code, "reason": refused.reason, "message": refused.message}))
        return 1


if __name__ == "__main__":
    sys.exit(main())
