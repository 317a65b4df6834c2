#!/usr/bin/python3
"""Measures api.sock of a running quickstart by frames: calls one after another on one connection, how long after an
agent's files changed its streams are told, what a stream costs, and what many agents with streams do. Needs root: each
agent of the bench is a user. The quickstart's issuer is configured for tokens and exportable keys, and its keyd started
again with --exporter, its spiffed as a user of its own."""
import argparse
import hashlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

UID, AGENT, STREAMS = 2200, "spiffe-bench", 1000
UID_OUT, AGENT_OUT = 2201, "spiffe-bench-out"
UID_CROWD, SERVICE = 2300, 2299
HEALTH, CHAIN, SIGN = "/grpc.health.v1.Health/Check", "/attestd.v1.Signer/Chain", "/attestd.v1.Signer/Sign"
SVID, TOKEN = "/SpiffeWorkloadAPI/FetchX509SVID", "/SpiffeWorkloadAPI/FetchJWTSVID"
MARK = [("workload.spiffe.io", "true")]
AUDIENCES = [f"https://api-{at}.example" for at in range(10)]
PROFILE = """  - name: exported
    description: agents whose keys are given away
    lifetime: 10m
    keys: [tpm, exportable]
    boot: ovmf-guest
    pcrs: "sha256:0,1,2,3,4,5,6,7,8,9,14"
    logs: [firmware]
jwt:
  issuer: "https://127.0.0.1:%d"
  listen: "127.0.0.1:%d"
"""


def audience(text):
    return b"\x0a" + bytes([len(text)]) + text.encode()


def client(sock, samples):
    """As the agent: a row each, then a line with the time for each message of a stream."""
    import streams
    digest = hashlib.sha256(b"a trade").digest()
    for name, path, body in (("health", HEALTH, b""), ("chain", CHAIN, b""), ("sign", SIGN, b"\x10\x01\x1a\x20" + digest),
                             ("token-kept", TOKEN, audience(AUDIENCES[0]))):
        one, times = streams.connect(sock), []
        for at in range(samples + 20):
            began = time.perf_counter()
            stream = one.call(path, body, MARK if path == TOKEN else ())
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


def svids(sock, samples):
    """FetchX509SVID until the answer is whole; each is a stream of its own, 100 on a connection. Paced: a user's agents
    are given 50 keys in a second at most."""
    import streams
    times = []
    for at in range(samples + 20):
        if at % 100 == 0:
            one = streams.connect(sock)
        began = time.perf_counter()
        stream = one.call(SVID, b"", MARK)
        while stream not in one.whole:
            one.read()
            if one.over or stream in one.ended:
                sys.exit(f"FetchX509SVID: status {one.ended.get(stream)}")
        if at >= 20:
            times.append((time.perf_counter() - began) * 1000)
        time.sleep(0.025)
    print(json.dumps({"name": "svid", "times": times}), flush=True)


def member(sock, uid, held, turn, told, fresh):
    """One of a crowd: its streams, and on its turn tokens that nobody has asked for before."""
    import streams
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    one = streams.connect(sock)
    for _ in range(held):
        one.call()
    times, began, stream = [], 0, 0
    ready = False
    while not one.over:
        if not ready and len(one.answered) == held:
            ready = True
            os.write(told, b".")
        if not stream and ready and turn in select.select([one.socket, turn], [], [])[0]:
            os.read(turn, 1)
            began, stream = time.perf_counter(), one.call(TOKEN, audience(AUDIENCES[0]), MARK)
        one.read()
        if stream and stream in one.ended:
            if one.ended[stream] != 0:
                os._exit(1)
            times.append((time.perf_counter() - began) * 1000)
            stream = 0
            if len(times) < fresh:
                began, stream = time.perf_counter(), one.call(TOKEN, audience(AUDIENCES[len(times)]), MARK)
            else:
                os.write(told, (json.dumps(times) + "\n").encode())
    os._exit(1)


def crowd(sock, agents, held, fresh):
    """As root: a process for each agent; a line when all their streams are answered, after a line on standard input one
    with the times of each fresh token, one agent after another. Until standard input ends."""
    told, tell = os.pipe()
    members = []
    for at in range(agents):
        turn, give = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(1200)
            member(sock, UID_CROWD + at, held, turn, tell, fresh)
        members.append((pid, give))
    try:
        got = b""
        while len(got) < agents:
            if not select.select([told], [], [], 120)[0]:
                sys.exit(f"{len(got)} of {agents} agents have their streams")
            got += os.read(told, agents)
        print(json.dumps({"streams": agents * held}), flush=True)
        sys.stdin.readline()
        times = []
        for _, give in members:
            os.write(give, b".")
            got = b""
            while not got.endswith(b"\n"):
                if not select.select([told], [], [], 60)[0]:
                    sys.exit("a fresh token did not come")
                got += os.read(told, 65536)
            times += json.loads(got)
        print(json.dumps({"times": times}), flush=True)
        sys.stdin.read()
    finally:
        for pid, _ in members:
            os.kill(pid, signal.SIGKILL)


def restart(folder, name, *more, **who):
    """One of quickstart's daemons, with further arguments, as quickstart starts it."""
    file = os.path.join(folder, name + ".pid")
    with open(file, encoding="ascii") as text:
        pid = int(text.read())
    with open(f"/proc/{pid}/cmdline", "rb") as text:
        words = [word.decode() for word in text.read().split(b"\0")[:-1]]
    os.kill(pid, signal.SIGTERM)
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.05)
    with open(os.path.join(folder, name + ".log"), "ab") as log:
        # pylint: disable=consider-using-with
        begun = subprocess.Popen([*words, *more], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                 **who)
    with open(file, "w", encoding="ascii") as text:
        text.write(str(begun.pid))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def configure(folder):
    """Tokens, and keys that are given away: the issuer's configuration, a user for spiffed (root is nobody who is given keys),
    and leave for it."""
    port = free_port()
    with open(os.path.join(folder, "issuer.yaml"), "a+", encoding="ascii") as conf:
        conf.seek(0)
        if "name: exported" not in conf.read():
            conf.write(PROFILE % (port, port))
    restart(folder, "issuerd")
    restart(folder, "whod", "--client", "0", "--client", str(SERVICE))
    restart(folder, "keyd", "--signer", "0", "--signer", str(SERVICE), "--exporter", str(SERVICE))
    restart(folder, "attestd", "--spiffed-user", str(SERVICE))
    os.chmod(os.path.join(folder, "attestd.yaml"), 0o644)
    os.chmod(os.path.join(folder, "run"), 0o755)
    os.chown(os.path.join(folder, "run/public"), SERVICE, 0)
    restart(folder, "spiffed", "--attestd-user", "0", "--whod-user", "0", "--keyd-user", "0", user=SERVICE, group=SERVICE,
            extra_groups=[0])
    until = time.monotonic() + 30
    while not os.path.exists(os.path.join(folder, "run/public/api.sock")) and time.monotonic() < until:
        time.sleep(0.1)


def connected(path):
    from stack import Control
    until = time.monotonic() + 60
    while True:
        try:
            return Control(path)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def synced_record(folder, samples):
    """What an export's record costs at least: 400 bytes appended and synced, on the file system of the host's log."""
    path, times = os.path.join(folder, "state/host/bench-record"), []
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(samples):
        began = time.perf_counter()
        os.write(file, bytes(400))
        os.fdatasync(file)
        times.append((time.perf_counter() - began) * 1000)
    os.close(file)
    os.unlink(path)
    return round(sorted(times)[len(times) // 2], 4)


def pid_of(folder, name):
    with open(os.path.join(folder, name + ".pid"), encoding="ascii") as file:
        return int(file.read())


def measure_crowd(args, folder, sock, control, others):
    """Resident memory of attestd and spiffed with many agents and two streams for each, and fresh tokens of all of them:
    32 at once are an agent's."""
    from stack import have_certificates, pss_kib, row
    names = [f"spiffe-crowd-{at}" for at in range(args.agents)]
    entries = others + [{**others[0], "name": name, "workload": {"uid": UID_CROWD + at}} for at, name in enumerate(names)]
    admin = connected(os.path.join(args.dir, "issuer-run/admin.sock"))  # the first one was idle for too long
    admin.call("entry.apply", text=json.dumps({"trust_domain": "bank.example", "agents": entries}), filename="bench")
    have_certificates(control, names, 600)
    # pylint: disable=consider-using-with
    many = subprocess.Popen(["/usr/bin/python3", folder + "/spiffe.py", "crowd", sock, str(args.agents), "2", str(args.fresh)],
                            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    held = json.loads(many.stdout.readline())["streams"]
    label, total = f"memory/{args.agents}-agents-{held}-streams", 0
    for name in ("attestd", "spiffed"):
        kib = pss_kib(pid_of(args.dir, name))
        total += kib
        row(f"{label}/{name}", "MiB", [kib / 1024])
    row(label, "MiB", [total / 1024])
    many.stdin.write("\n")
    many.stdin.flush()
    row("spiffe/token-fresh", "ms", json.loads(many.stdout.readline())["times"], floor_p50=args.floor_tpm)
    many.communicate()


def as_agent(folder, *args, uid=UID):
    # pylint: disable=consider-using-with
    return subprocess.Popen(["/usr/bin/python3", *args], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            user=uid, group=uid, extra_groups=[])


def measure_streams(folder, sock, pid, pss_kib):
    before = pss_kib(pid)
    many = as_agent(folder, folder + "/streams.py", "many", sock, str(STREAMS))
    held = json.loads(many.stdout.readline())["answered"]
    cost = (pss_kib(pid) - before) / held
    many.communicate()
    print(json.dumps({"name": "spiffe/stream", "unit": "KiB", "p50": round(cost, 2), "n": held}))


def main():
    from stack import have_certificates, pss_kib, row, settle
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--floor-tpm", type=float, required=True, help="a raw TPM2_Sign, ms")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rotations", type=int, default=20)
    parser.add_argument("--agents", type=int, default=100, help="of the crowd, two streams each")
    parser.add_argument("--fresh", type=int, default=10, choices=range(1, 11), help="fresh tokens for each of the crowd")
    args = parser.parse_args()
    args.dir = os.path.abspath(args.dir)
    sock = os.path.join(args.dir, "run/public/api.sock")
    os.chmod(args.dir, 0o711)  # other users reach the socket
    configure(args.dir)
    admin = connected(os.path.join(args.dir, "issuer-run/admin.sock"))
    control = connected(os.path.join(args.dir, "run/control.sock"))
    entry = {"name": AGENT, "owner": "bench@bank.example", "hosts": ["ek:" + admin.call("host.list")["hosts"][0]["id"]],
             "workload": {"uid": UID}, "key": "tpm", "profile": "trading", "audiences": AUDIENCES}
    given = {**entry, "name": AGENT_OUT, "workload": {"uid": UID_OUT}, "key": "exportable", "profile": "exported"}
    admin.call("entry.apply", text=json.dumps({"trust_domain": "bank.example", "agents": [entry, given]}), filename="bench")
    have_certificates(control, [AGENT, AGENT_OUT], 120)
    pid = pid_of(args.dir, "spiffed")
    here = os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        for name in (os.path.join(here, "spiffe.py"), os.path.join(here, "../support/spiffe/streams.py")):
            shutil.copy(name, folder)
        settle(control, AGENT)
        running = as_agent(folder, folder + "/spiffe.py", "client", sock, str(args.samples))
        least = None  # a call that asks nobody and looks at no caller
        for _ in range(4):
            got = json.loads(running.stdout.readline())
            floor = {"floor_p50": args.floor_tpm if got["name"] == "sign" else least} if least else {}
            least = least or round(sorted(got["times"])[len(got["times"]) // 2], 4)
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
        settle(control, AGENT_OUT)
        running = as_agent(folder, folder + "/spiffe.py", "svids", sock, str(args.samples), uid=UID_OUT)
        times = json.loads(running.communicate()[0])["times"]
        row("spiffe/svid", "ms", times, floor_p50=synced_record(args.dir, args.samples))
        measure_crowd(args, folder, sock, control, [entry, given])
    return 0


if sys.argv[1] == "client":
    client(sys.argv[2], int(sys.argv[3]))
elif sys.argv[1] == "svids":
    svids(sys.argv[2], int(sys.argv[3]))
elif sys.argv[1] == "crowd":
    crowd(sys.argv[2], *map(int, sys.argv[3:]))
else:
    sys.exit(main())
