#!/usr/bin/env python3
"""Measures the token service of a running quickstart: signatures by stock p11-kit clients under users of
their own, beside the same store used directly. Needs root: each agent of the bench is a user."""
import argparse
import glob
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from stack import Control, have_certificates

FIRST_UID = 2100
CROWD = 16


def entries(host, agents):
    return json.dumps({"trust_domain": "bank.example", "agents": [
        {"name": name, "owner": "bench@bank.example", "hosts": ["ek:" + host], "workload": {"uid": uid},
         "key": store, "profile": profile} for name, uid, store, profile in agents]})


def emit(name, unit, p50, n, **extra):
    print(json.dumps({"name": name, "unit": unit, "p50": p50, **{k: v for k, v in extra.items() if v is not None}, "n": n}))


class Program:
    """The bench's C program: begins when told to, so that several begin together."""

    def __init__(self, args, command, module, count, threads=1, uid=None, env=None):
        environment = {"PATH": os.environ["PATH"], "P11_KIT_SERVER_ADDRESS": "unix:path=" + args.socket, **(env or {})}
        user = {} if uid is None else {"user": uid, "group": uid, "extra_groups": []}
        # pylint: disable=consider-using-with
        self.process = subprocess.Popen([args.program, command, module, str(count), str(threads)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, **user)
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{command} did not begin")

    def begin(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self):
        out, _ = self.process.communicate()
        if self.process.returncode != 0:
            raise RuntimeError("the bench's program failed")
        return json.loads(out)

    def run(self):
        self.begin()
        return self.result()


def measure_store(args, store, uid, floor):
    """One connection, many connections, handshakes."""
    one = Program(args, "sign", args.module, args.samples, uid=uid).run()
    emit(f"token/{store}", "ms", one["p50"], one["n"], p99=one["p99"], floor_p50=floor,
         rate=round(one["n"] / one["seconds"], 1), floor_rate=round(1000 / floor, 1))
    many = Program(args, "loop", args.module, args.seconds, threads=CROWD, uid=uid).run()
    emit(f"token/{store}/16-connections", "ms", many["p50"], many["n"], p99=many["p99"],
         rate=round(many["n"] / many["seconds"], 1), floor_rate=round(1000 / floor, 1))
    tls = Program(args, "tls", args.module, max(args.samples // 4, 20), uid=uid).run()
    emit(f"token/{store}/tls13", "ms", tls["p50"], tls["n"], p99=tls["p99"], rate=round(tls["n"] / tls["seconds"], 1))


def measure_crowd(args, floor):
    """16 agents at once: each signature may cost the TPM a ContextLoad."""
    programs = [Program(args, "loop", args.module, args.seconds, uid=FIRST_UID + 10 + i) for i in range(CROWD)]
    for program in programs:
        program.begin()
    results = [program.result() for program in programs]
    emit("token/tpm/16-agents", "ms", round(statistics.median(r["p50"] for r in results), 4), sum(r["n"] for r in results),
         p99=max(r["p99"] for r in results), rate=round(sum(r["n"] / r["seconds"] for r in results), 1),
         floor_rate=round(1000 / floor, 1))


def measure_fairness(args):
    """One agent's latency beside a neighbour that signs over 16 connections as fast as it can."""
    victim, neighbour = FIRST_UID + 10, FIRST_UID + 11
    alone = Program(args, "sign", args.module, args.samples, uid=victim).run()
    flood = Program(args, "loop", args.module, args.seconds * 3, threads=CROWD, uid=neighbour)
    beside = Program(args, "sign", args.module, args.samples // 2, uid=victim)
    flood.begin()
    time.sleep(0.5)
    got = beside.run()
    flood.result()
    emit("token/tpm/victim-alone", "ms", alone["p50"], alone["n"], p99=alone["p99"])
    emit("token/tpm/victim-beside-flood", "ms", got["p50"], got["n"], p99=got["p99"], floor_p50=alone["p50"])


def private_kib(pid):
    total = 0
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        for line in rollup:
            if line.startswith("Private_"):
                total += int(line.split()[1])
    return total


def children(pid):
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(path, encoding="ascii") as file:
            found += [int(child) for child in file.read().split()]
    return found


def measure_idle(args, uid):
    with open(os.path.join(args.dir, "tokend.pid"), encoding="ascii") as file:
        tokend = int(file.read())
    before, tokend_before = set(children(tokend)), private_kib(tokend)
    program = Program(args, "idle", args.module, args.idle, uid=uid)
    held = [private_kib(pid) for pid in children(tokend) if pid not in before]
    grown = private_kib(tokend) - tokend_before
    program.process.communicate("\n")
    emit("token/idle-connection", "KiB", statistics.median(held), len(held), p99=max(held))
    emit("token/idle-connection/tokend", "KiB", round(grown / len(held), 2), len(held))


def running(pid):
    """A child of ours that ended and was not waited for is not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def restart_keyd(args):
    """Ends keyd; what this gives starts it again."""
    with open(os.path.join(args.dir, "keyd.pid"), encoding="ascii") as file:
        pid = int(file.read())
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        command = [part.decode() for part in file.read().split(b"\0") if part]
    os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + 30
    while running(pid):
        if time.monotonic() > until:
            raise TimeoutError("keyd does not end")
        time.sleep(0.01)
    return lambda: start(args, "keyd", command)


def start(args, name, command, env=None):
    with open(os.path.join(args.dir, name + ".log"), "ab") as log:
        # pylint: disable=consider-using-with
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                   env={**os.environ, **(env or {})})
    with open(os.path.join(args.dir, name + ".pid"), "w", encoding="ascii") as file:
        file.write(str(process.pid))
    return process


def measure_restart(args, uid):
    """From keyd's start to the first signature."""
    begin = restart_keyd(args)
    program = Program(args, "first", args.module, 30, uid=uid)
    begin()
    got = program.run()
    emit("token/first-after-restart", "ms", got["p50"], 1)


def allow_stores(args):
    """Profiles for keys in memory and in an HSM, beside quickstart's own; read without a restart."""
    with open(os.path.join(args.dir, "issuer.yaml"), encoding="utf-8") as file:
        text = file.read()
    trading = text[text.index("  - name: trading"):]
    with open(os.path.join(args.dir, "issuer.yaml"), "a", encoding="utf-8") as file:
        for store in ("memory", "hsm"):
            file.write(trading.replace("trading", store, 1).replace("1h", "15m").replace("[tpm]", f"[{store}]"))
    with open(os.path.join(args.dir, "issuerd.pid"), encoding="ascii") as file:
        os.kill(int(file.read()), signal.SIGHUP)


def make_hsm(args):
    """A SoftHSM token behind attestd-hsmd, known to keyd after a restart; None without SoftHSM. Gives hsmd and
    what a program needs to use the token directly."""
    module = "/usr/lib/softhsm/libsofthsm2.so"
    if not os.path.exists(module):
        return None
    home = os.path.join(args.dir, "hsm")
    os.makedirs(os.path.join(home, "tokens"))
    conf = os.path.join(home, "softhsm2.conf")
    with open(conf, "w", encoding="ascii") as file:
        file.write(f"directories.tokendir = {home}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
    env = {"SOFTHSM2_CONF": conf}
    subprocess.run(["softhsm2-util", "--init-token", "--free", "--label", "bench", "--pin", "47110815", "--so-pin", "08154711"],
                   check=True, stdout=subprocess.DEVNULL, env={**os.environ, **env})
    serial = os.listdir(home + "/tokens")[0].replace("-", "")[16:]
    pin = os.path.join(args.dir, "hsm.pin")
    with open(os.open(pin, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="ascii") as file:
        file.write("47110815\n")
    with open(os.path.join(args.dir, "attestd.yaml"), "a", encoding="utf-8") as file:
        file.write(f'hsm:\n  module: {module}\n  token: "pkcs11:token=bench;serial={serial}?pin-source=file:{pin}"\n'
                   f"  files: [{home}]\n")
    with open(os.path.join(args.dir, "keyd.pid"), encoding="ascii") as file:
        keyd = os.readlink(f"/proc/{int(file.read())}/exe")
    hsmd = start(args, "hsmd", [os.path.join(os.path.dirname(keyd), "attestd-hsmd"), "--config",
                                os.path.join(args.dir, "attestd.yaml")], env)
    restart_keyd(args)()
    return hsmd, module, {**env, "BENCH_TOKEN": "bench", "BENCH_PIN": "47110815"}


def measure_other_stores(args, admin, control, host):
    allow_stores(args)
    hsm = make_hsm(args)
    agents = [("token-memory", FIRST_UID + 1, "memory", "memory")]
    if hsm:
        agents.append(("token-hsm", FIRST_UID + 2, "hsm", "hsm"))
    until = time.monotonic() + 30
    while True:
        try:
            admin.call("entry.apply", text=entries(host, agents), filename="bench")
            break
        except RuntimeError:  # the issuer has not read its profiles yet
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
    try:
        have_certificates(control, [a[0] for a in agents], 60)
        floor = Program(args, "software", "-", args.samples).run()
        measure_store(args, "memory", FIRST_UID + 1, floor["p50"])
        if hsm:
            floor = Program(args, "sign", hsm[1], args.samples, env=hsm[2]).run()
            measure_store(args, "hsm", FIRST_UID + 2, floor["p50"])
    finally:
        if hsm:
            hsm[0].terminate()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", required=True)
    parser.add_argument("--program", required=True)
    parser.add_argument("--module", required=True)
    parser.add_argument("--floor-tpm", type=float, required=True, help="a raw TPM2_Sign, ms")
    parser.add_argument("--floor-load", type=float, required=True, help="a raw TPM2_ContextLoad and TPM2_Sign, ms")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=5)
    args = parser.parse_args()
    args.socket = os.path.join(args.dir, "run/public/pkcs11.sock")
    os.chmod(args.dir, 0o711)  # other users reach the socket
    with tempfile.TemporaryDirectory() as copy:
        os.chmod(copy, 0o755)
        subprocess.run(["cp", args.program, copy + "/program"], check=True)
        args.program = copy + "/program"
        admin = Control(os.path.join(args.dir, "issuer-run/admin.sock"))
        control = Control(os.path.join(args.dir, "run/control.sock"))
        host = admin.call("host.list")["hosts"][0]["id"]
        agents = [("token-tpm", FIRST_UID, "tpm", "trading")]
        agents += [(f"token-crowd-{i}", FIRST_UID + 10 + i, "tpm", "trading") for i in range(CROWD)]
        admin.call("entry.apply", text=entries(host, agents), filename="bench")
        have_certificates(control, [a[0] for a in agents], 120)
        measure_store(args, "tpm", FIRST_UID, args.floor_tpm)
        measure_crowd(args, args.floor_load)
        measure_fairness(args)
        connect = Program(args, "connect", args.module, max(args.samples // 10, 20), uid=FIRST_UID).run()
        emit("token/connect", "ms", connect["p50"], connect["n"], p99=connect["p99"],
             rate=round(connect["n"] / connect["seconds"], 1))
        measure_idle(args, FIRST_UID)
        measure_restart(args, FIRST_UID)
        measure_other_stores(args, admin, control, host)
    return 0


if __name__ == "__main__":
    sys.exit(main())
