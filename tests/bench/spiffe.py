#!/usr/bin/python3
"""Measures api.sock of a running quickstart by frames: calls one after another on one connection, how long after an
agent's files changed its streams are told, and what a stream costs. Needs root: the agent of the bench is a user."""
import argparse
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

UID, AGENT, STREAMS = 2200, "spiffe-bench", 1000
HEALTH, CHAIN, SIGN = "/grpc.health.v1.Health/Check", "/attestd.v1.Signer/Chain", "/attestd.v1.Signer/Sign"


def client(sock, samples):
    """As the agent: a row each, then a line with the time for each message of a stream."""
    import streams
    digest = hashlib.sha256(b"a trade").digest()
    for name, path, body in (("health", HEALTH, b""), ("chain", CHAIN, b""), ("sign", SIGN, b"\x10\x01\x1a\x20" + digest)):
        one, times = streams.connect(sock), []
        for at in range(samples + 20):
            began = time.perf_counter()
            stream = one.call(path, body)
            while stream not in one.ended:
                one.read()
                if one.over:
                    sys.exit("the connection ended")
            if one.ended[stream] != 0:
                sys.exit(f"{name}: status {one.ended[stream]}")
            if at >= 20:
                times.append((time.perf_counter() - began) * 1000)
        print(json.dumps({"name": name, "times": times}), flush=True)
    one = streams.connect(sock)
    one.call()
    while not one.over:
        one.answered.clear()
        one.read()
        if one.answered:
            print(json.dumps({"message": time.time()}), flush=True)


def as_agent(folder, *args):
    # pylint: disable=consider-using-with
    return subprocess.Popen(["/usr/bin/python3", *args], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            user=UID, group=UID, extra_groups=[])


def measure_streams(folder, sock, pid, pss_kib):
    before = pss_kib(pid)
    many = as_agent(folder, folder + "/streams.py", "many", sock, str(STREAMS))
    held = json.loads(many.stdout.readline())["answered"]
    cost = (pss_kib(pid) - before) / held
    many.communicate()
    print(json.dumps({"name": "spiffe/stream", "unit": "KiB", "p50": round(cost, 2), "n": held}))


def main():
    from stack import Control, have_certificates, pss_kib, row, settle
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--floor-tpm", type=float, required=True, help="a raw TPM2_Sign, ms")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rotations", type=int, default=20)
    args = parser.parse_args()
    sock = os.path.join(args.dir, "run/public/api.sock")
    os.chmod(args.dir, 0o711)  # other users reach the socket
    admin = Control(os.path.join(args.dir, "issuer-run/admin.sock"))
    control = Control(os.path.join(args.dir, "run/control.sock"))
    entry = {"name": AGENT, "owner": "bench@bank.example", "hosts": ["ek:" + admin.call("host.list")["hosts"][0]["id"]],
             "workload": {"uid": UID}, "key": "tpm", "profile": "trading"}
    admin.call("entry.apply", text=json.dumps({"trust_domain": "bank.example", "agents": [entry]}), filename="bench")
    have_certificates(control, [AGENT], 120)
    with open(os.path.join(args.dir, "spiffed.pid"), encoding="ascii") as file:
        pid = int(file.read())
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in (os.path.join(here, "spiffe.py"), os.path.join(here, "../support/spiffe/streams.py")):
            shutil.copy(name, folder)
        settle(control, AGENT)
        running = as_agent(folder, folder + "/spiffe.py", "client", sock, str(args.samples))
        for _ in range(3):
            got = json.loads(running.stdout.readline())
            floor = {"floor_p50": args.floor_tpm} if got["name"] == "sign" else {}
            row("spiffe/" + got["name"], "ms", got["times"], **floor)
        running.stdout.readline()  # the stream's first message
        pushes = []
        for _ in range(args.rotations):
            control.call("agent.rotate", name=AGENT)
            told = json.loads(running.stdout.readline())["message"]
            changed = os.lstat(os.path.join(args.dir, "state/host/agents", AGENT)).st_ctime
            pushes.append((told - changed) * 1000)
            settle(control, AGENT)
        row("spiffe/push", "ms", pushes)
        running.kill()
        running.communicate()
        measure_streams(folder, sock, pid, pss_kib)
    return 0


if sys.argv[1] == "client":
    client(sys.argv[2], int(sys.argv[3]))
else:
    sys.exit(main())
