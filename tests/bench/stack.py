#!/usr/bin/env python3
"""Measures a running quickstart: renewals through attestd's control socket, memory of the processes."""
import argparse
import json
import os
import socket
import struct
import sys
import threading
import time


def read_exact(sock, length):
    data = b""
    while len(data) < length:
        part = sock.recv(length - len(data))
        if not part:
            raise ConnectionError("the daemon closed the connection")
        data += part
    return data


class Control:
    """One connection to a control socket (docs/PROTOCOL.md, Local sockets)."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(path)

    def call(self, operation, **args):
        body = json.dumps({"op": operation, "args": args}).encode()
        self.sock.sendall(struct.pack(">I", len(body)) + body)
        (length,) = struct.unpack(">I", read_exact(self.sock, 4))
        reply = json.loads(read_exact(self.sock, length))
        if not reply["ok"]:
            raise RuntimeError(f"{operation}: {reply['error']}")
        return reply["result"]


def percentile(values, share):
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))]


def row(name, unit, values, **extra):
    line = {"name": name, "unit": unit, "p50": round(percentile(values, 0.5), 3),
            "p99": round(percentile(values, 0.99), 3), **extra, "n": len(values)}
    print(json.dumps(line))


def settle(control, name):
    """Until the agent's next key is made ahead, as it is long before a renewal is due."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        agent = control.call("agent.show", name=name)
        if agent["state"] == "valid" and not agent["busy"] and agent.get("nextKeyId"):
            return
        time.sleep(0.005)
    raise TimeoutError(f"{name} has no next key")


def rotate_many(path, name, times, out, stages, settled=False):
    control = Control(path)
    for _ in range(times):
        if settled:
            settle(control, name)
        start = time.monotonic()
        result = control.call("agent.rotate", name=name)
        out.append((time.monotonic() - start) * 1000)
        for stage, value in (result.get("stages") or {}).items():
            stages.setdefault(stage, []).append(value)


def processor_ms(directory):
    """Processor time that each process has used so far."""
    used = {}
    for name, file in (("attestd", "attestd.pid"), ("keyd", "keyd.pid"), ("issuer", "issuerd.pid"), ("swtpm", "tpm/pid")):
        try:
            with open(os.path.join(directory, file), encoding="ascii") as pid:
                with open(f"/proc/{int(pid.read())}/stat", encoding="ascii") as stat:
                    fields = stat.read().rpartition(")")[2].split()
        except FileNotFoundError:
            continue  # a hardware TPM
        used[name] = (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")
    return used


def entries(names, host):
    return json.dumps({"trust_domain": "bank.example", "agents": [
        {"name": n, "owner": "bench@bank.example", "hosts": ["ek:" + host], "workload": {"uid": 2000 + i},
         "key": "tpm", "profile": "trading"} for i, n in enumerate(names)]})


def have_certificates(control, names, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        listed = {a["name"]: a.get("serial") for a in control.call("agent.list")["agents"]}
        if all(listed.get(n) for n in names):
            return
        time.sleep(0.2)
    raise TimeoutError("not every agent got a certificate")


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        for line in rollup:
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def measure_memory(directory, label):
    total = 0
    for name in ("attestd", "keyd"):
        with open(os.path.join(directory, name + ".pid"), encoding="ascii") as file:
            kib = pss_kib(int(file.read()))
        total += kib
        row(f"memory/{label}/{name}", "MiB", [kib / 1024])
    row(f"memory/{label}", "MiB", [total / 1024])
    with open(os.path.join(directory, "issuerd.pid"), encoding="ascii") as file:
        row(f"memory/{label}/issuer", "MiB", [pss_kib(int(file.read())) / 1024])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--floor", type=float, default=0)
    parser.add_argument("--renewals", type=int, default=200)
    parser.add_argument("--renewal", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    path = os.path.join(args.dir, "run/control.sock")
    admin = Control(os.path.join(args.dir, "issuer-run/admin.sock"))
    control = Control(path)
    host = admin.call("host.list")["hosts"][0]["id"]
    if args.memory:
        measure_memory(args.dir, "2-agents")
    if args.renewal:
        names = [f"bench-{i}" for i in range(8)]
        admin.call("entry.apply", text=entries(names, host), filename="bench")
        have_certificates(control, names, 120)
        times, stages = [], {}
        before = processor_ms(args.dir)
        rotate_many(path, names[0], args.renewals, times, stages, settled=True)
        after = processor_ms(args.dir)
        row("renewal/1-client", "ms", times, floor_p50=args.floor)
        for stage, values in stages.items():
            row(f"renewal/1-client/{stage}", "ms", values)
        for name, used in after.items():  # means; unlike the rest independent of what else the machine does
            row(f"renewal/1-client/cpu/{name}", "ms", [(used - before[name]) / args.renewals])
        times = []
        threads = [threading.Thread(target=rotate_many, args=(path, n, args.renewals // 4, times, {})) for n in names]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        row("renewal/8-clients", "ms", times, floor_p50=args.floor,
            rate=round(len(times) / (time.monotonic() - start), 1))
    if args.memory:
        names = [f"crowd-{i}" for i in range(100)]
        admin.call("entry.apply", text=entries(names, host), filename="bench")
        have_certificates(control, names, 300)
        measure_memory(args.dir, "100-agents")
    return 0


if __name__ == "__main__":
    sys.exit(main())
