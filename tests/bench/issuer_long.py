#!/usr/bin/env python3
"""Area "issuer-long": attest-issuerd as a process, over HTTPS, with hosts that renew by themselves (tests/support/fleet:
software TPMs of OpenSSL keys, evidence that the issuer judges), on SQLite and on a PostgreSQL of its own.

Rows, for each store: the most certificates a second (every host renews without a pause); at 70 % of that p50 and p99 of
what an order's requests waited for, in an empty store; again with HOSTS hosts and CERTS certificates in it, with the
operator's calls beside it; with PENDING orders that nobody comes back to, until they are swept; and a row for each
minute of MINUTES, with the process's resident memory. Clients work on the same cores. Prints rows of JSON."""
import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fill

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """trust_domain: bank.example
listen: "127.0.0.1:{port}"
url: "https://127.0.0.1:8443/acme"
state_dir: {dir}/state
run_dir: {dir}/run
policies_dir: {dir}/policies
store: "{store}"
control_group: none
log_level: warn
limits:
  account_orders: 1000000
  account_fruitless_orders: 1000000
  host_orders: 1000000
  address_requests: 100000000
ek:
  roots_dir: {dir}/ek
enrolment: {{ boot: none, pcrs: "{pcrs}", logs: [firmware] }}
profiles:
  - {{ name: trading, lifetime: 1h, keys: [tpm], boot: none, pcrs: "{pcrs}", logs: [firmware] }}
"""
PCRS = "sha256:0,1,2,3,4,5,6,7,14,16"


def say(text):
    print(text, file=sys.stderr, flush=True)


def wait_for(what, ready, seconds=600):
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            sys.exit(f"issuer_long: waited in vain for {what}")
        time.sleep(0.1)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class Stack:
    """A store, an issuer, and hosts that come and go."""

    def __init__(self, args, store):
        self.args, self.kind = args, store
        self.dir = Path(tempfile.mkdtemp(prefix="att-long."))
        self.postgres = self.fleet = self.issuer = self.pgdir = None
        for name in ("ek", "log"):
            (self.dir / name).mkdir()
        self.port = free_port()
        place = str(self.dir / "issuer.db")
        if store == "postgres":
            self.pgdir = Path(tempfile.mkdtemp(prefix="att-pg."))
            self.pgdir.chmod(0o755)
            env = dict(os.environ, ATT_TEST_FSYNC="on")
            self.postgres = subprocess.Popen(
                [ROOT / "tests/support/postgres.sh", "serve", self.pgdir, "-c", "shared_buffers=128MB", "-c", "max_wal_size=4GB"],
                stdout=open(self.dir / "log/postgres", "w"), stderr=subprocess.STDOUT, env=env)
            place = f"postgres:host={self.pgdir} user=att dbname=postgres"
        self.db = fill.Db(store, place)
        wait_for("PostgreSQL", self.db.there, 120)
        (self.dir / "issuer.yaml").write_text(CONFIG.format(port=self.port, dir=self.dir, store=place, pcrs=PCRS))

    def start_fleet(self, rate, hosts):
        """The hosts of an earlier fleet stay; each fleet has TPMs of its own."""
        for name in ("roots", "admin", "enrolled", "stop", "certs", "orders"):
            (self.dir / name).unlink(missing_ok=True)
        self.fleet = subprocess.Popen([self.args.tests_bin / "fleet", self.dir, str(self.port), str(hosts)],
                                      stdout=open(self.dir / "log/fleet", "a"), stderr=subprocess.STDOUT,
                                      env=dict(os.environ, FLEET_RATE=str(rate)))
        wait_for("the hosts' TPMs", (self.dir / "roots").exists)
        if self.issuer is None:
            self.start_issuer()
        else:
            self.issuer.send_signal(signal.SIGHUP)  # the new makers' roots
            time.sleep(2)  # not asserted: without them the fleet fails
        (self.dir / "tls-root.pem").write_bytes((self.dir / "state/ca/tls-root.pem").read_bytes())
        (self.dir / "admin").symlink_to(self.dir / "run/admin.sock")
        wait_for("enrolment", lambda: self.alive() and (self.dir / "enrolled").exists())

    def alive(self):
        if self.fleet.poll() is not None:
            sys.exit("issuer_long: the fleet ended:\n" + (self.dir / "log/fleet").read_text()[-2000:])
        return True

    def start_issuer(self):
        program = [self.args.bin / "attest-issuerd", "--config", self.dir / "issuer.yaml"]
        subprocess.run([*program, "init"], check=True, stdout=subprocess.DEVNULL, stderr=open(self.dir / "log/init", "w"))
        self.issuer = subprocess.Popen(program, stdout=open(self.dir / "log/issuer", "w"), stderr=subprocess.STDOUT)
        wait_for("the issuer", lambda: self.ctl("issuer", "status", check=False).returncode == 0, 60)

    def ctl(self, *words, check=True):
        return subprocess.run([self.args.bin / "attestctl", "--json", "--issuer", self.dir / "run/admin.sock", *words],
                              check=check, capture_output=True, text=True)

    def stop_fleet(self):
        (self.dir / "stop").touch()
        wait_for("the fleet's end", lambda: self.fleet.poll() is not None)
        if self.fleet.returncode:
            sys.exit("issuer_long: the fleet failed:\n" + (self.dir / "log/fleet").read_text()[-2000:])

    def certs(self, since_ms=0):
        """[(unix ms, waited ms)] of what came since then."""
        path = self.dir / "certs"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(int(f[3]), int(f[4]) / 1000) for f in lines if len(f) == 5 and int(f[3]) >= since_ms]

    def rss(self, field="VmRSS"):
        for line in Path(f"/proc/{self.issuer.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        return 0

    def end(self):
        for process, word in ((self.fleet, signal.SIGKILL), (self.issuer, signal.SIGTERM), (self.postgres, signal.SIGINT)):
            if process and process.poll() is None:
                process.send_signal(word)
                process.wait()
        shutil.rmtree(self.dir)
        if self.pgdir:
            shutil.rmtree(self.pgdir)


def row(name, waits, **more):
    waits = sorted(waits)
    p50, p99 = statistics.median(waits), waits[int(0.99 * (len(waits) - 1) + 0.5)]
    print(json.dumps({"name": f"issuer-long/{name}", "unit": "ms", "p50": round(p50, 2), "p99": round(p99, 2),
                      "p99_by_p50": round(p99 / p50, 2), "n": len(waits), "load": round(os.getloadavg()[0], 1), **more}), flush=True)


def watch(stack, name, seconds, **more):
    """Certificates of so many seconds, after a second for what is under way."""
    time.sleep(1)
    since = int(time.time() * 1000)
    cpu = cpu_of(stack.issuer.pid)
    until = time.monotonic() + seconds
    while time.monotonic() < until and stack.alive():
        time.sleep(0.2)
    waits = [w for _, w in stack.certs(since)]
    if not waits:
        sys.exit(f"issuer_long: no certificate in {seconds} s of {name}")
    row(f"{stack.kind}/{name}", waits, rate=round(len(waits) / seconds, 1), rss_kib=stack.rss(),
        cpu_ms=round(1000 * (cpu_of(stack.issuer.pid) - cpu) / len(waits), 2), **more)
    return len(waits) / seconds


def cpu_of(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def operator(stack, name):
    """The calls of an operator, each once: ms."""
    for words in (("issuer", "status"), ("host", "list"), ("cert", "list"), ("cert", "list", "--name", "portfolio-rebalancer", "--limit", "10"),
                  ("ca", "status"), ("audit", "list", "--limit", "100")):
        at = time.monotonic()
        done = stack.ctl(*words, check=False)
        ms = (time.monotonic() - at) * 1000
        print(json.dumps({"name": f"issuer-long/{stack.kind}/{name}/{'-'.join(words).replace('--', '')}", "unit": "ms", "p50": round(ms, 1),
                          "ok": done.returncode == 0, "n": 1}), flush=True)


def pending(stack, orders, rate):
    """Orders that nobody comes back to: the same rate beside them, then they are gone."""
    before = stack.rss()
    stack.db.pending_orders(orders, swept_in_s=30)
    watch(stack, f"pending-{orders}", stack.args.seconds, offered=rate)
    began = time.monotonic()
    wait_for("the sweep", lambda: stack.db.number("SELECT COUNT(*) FROM orders WHERE entry = 'filled'") == 0, 1800)
    print(json.dumps({"name": f"issuer-long/{stack.kind}/pending-swept", "unit": "s", "p50": round(time.monotonic() - began, 1),
                      "rss_kib_before": before, "rss_kib": stack.rss(), "rss_kib_peak": stack.rss("VmHWM"), "n": orders}), flush=True)


def run(args, store):
    stack = Stack(args, store)
    try:
        stack.start_fleet(0, args.clients)
        most = watch(stack, "most", args.seconds)
        stack.stop_fleet()
        rate = round(0.7 * most, 1)
        stack.start_fleet(rate, args.hosts_live)
        watch(stack, "70-percent", args.seconds, offered=rate)
        for minute in range(args.minutes):
            watch(stack, f"minute-{minute + 1}", 59, offered=rate)
        if args.certs:
            say(f"{store}: {args.hosts} hosts and {args.certs} certificates")
            stack.db.fill(args.hosts, args.certs)
            watch(stack, f"filled-{args.certs}", args.seconds, offered=rate)
            operator(stack, f"filled-{args.certs}")
        if args.pending:
            pending(stack, args.pending, rate)
        stack.stop_fleet()
    finally:
        stack.end()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", type=Path, default=ROOT / "build/bench/bin")
    p.add_argument("--tests-bin", type=Path, default=ROOT / "build/bench/tests-bin")
    p.add_argument("--store", action="append", choices=["sqlite", "postgres"])
    p.add_argument("--clients", type=int, default=8, help="hosts that renew without a pause, for the most there is")
    p.add_argument("--hosts-live", type=int, default=64, help="hosts that renew at 70 %%")
    p.add_argument("--seconds", type=int, default=30, help="of each measurement")
    p.add_argument("--minutes", type=int, default=10)
    p.add_argument("--hosts", type=int, default=100000, help="in the store")
    p.add_argument("--certs", type=int, default=1000000, help="in the store; 0: not filled")
    p.add_argument("--pending", type=int, default=100000, help="orders; 0: none")
    args = p.parse_args()
    for store in args.store or ["sqlite", "postgres"]:
        run(args, store)


if __name__ == "__main__":
    main()
