#!/usr/bin/env python3
"""Area "issuer-lists": an operator's lists from an attest-issuerd whose store has HOSTS hosts and CERTS certificates, on
SQLite and on a PostgreSQL of its own. A row for each call: how long attestctl took, how long its first line took, what
processor time the issuer and attestctl used, the most memory that each of them held, and how long a ticket takes
meanwhile, which waits for whoever has the store. Prints rows of JSON."""
import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import issuer_long

ROOT = Path(__file__).resolve().parents[2]
CALLS = (("issuer", "status"), ("host", "list"), ("--json", "host", "list"), ("host", "list", "--state", "pending"),
         ("host", "show", "filled-77"), ("cert", "list", "--limit", "5000"), ("cert", "list", "--limit", "{certs}"),
         ("cert", "list", "--name", "filled-77", "--limit", "10"), ("entry", "list"), ("audit", "list", "--limit", "1000"))


class Tickets(threading.Thread):
    """Something that writes, again and again."""

    def __init__(self, program):
        super().__init__()
        self.program, self.done, self.worst = program, threading.Event(), 0

    def run(self):
        while not self.done.is_set():
            at = time.monotonic()
            subprocess.run([*self.program, "ticket", "create"], check=True, capture_output=True)
            self.worst = max(self.worst, time.monotonic() - at)

    def stop(self):
        self.done.set()
        self.join()
        return round(1000 * self.worst, 1)


def maker_root(folder):
    """Somebody's: no host of this store comes by itself."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=maker",
                    "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", folder / "key", "-out", folder / "maker.pem"],
                   check=True, capture_output=True)
    (folder / "key").unlink()


def reset_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def measured(stack, program, words, writes):
    tickets = Tickets(program) if writes else None
    if tickets:
        tickets.start()
    reset_peak(stack.issuer.pid)
    before, cpu, at = stack.rss("VmRSS"), issuer_long.cpu_of(stack.issuer.pid), time.monotonic()
    done = subprocess.Popen([*program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = done.stdout.read(1)
    first_ms = 1000 * (time.monotonic() - at)
    lines = first.count(b"\n")
    while chunk := done.stdout.read(65536):  # held nowhere: a child's peak begins with what we have
        lines += chunk.count(b"\n")
    problem = done.stderr.read().decode()
    _, status, usage = os.wait4(done.pid, 0)
    done.returncode = os.waitstatus_to_exitcode(status)
    row = {"p50": round(1000 * (time.monotonic() - at), 1), "first_ms": round(first_ms, 1), "lines": lines,
           "issuer_cpu_ms": round(1000 * (issuer_long.cpu_of(stack.issuer.pid) - cpu)),
           "issuer_rss_kib": before, "issuer_peak_kib": stack.rss("VmHWM"),
           "client_cpu_ms": round(1000 * (usage.ru_utime + usage.ru_stime)), "client_peak_kib": usage.ru_maxrss}
    if tickets:
        row["ticket_worst_ms"] = tickets.stop()
    if done.returncode:
        row["refused"] = re.sub(r"/\S*/", "", problem.strip())
    return row


def run(args, store):
    stack = issuer_long.Stack(args, store)
    try:
        maker_root(stack.dir / "ek")
        stack.start_issuer()
        issuer_long.say(f"{store}: {args.hosts} hosts and {args.certs} certificates")
        stack.db.fill(args.hosts, args.certs)
        program = [args.bin / "attestctl", "--timeout", "600", "--issuer", stack.dir / "run/admin.sock"]
        for words in CALLS:
            words = [w.format(certs=args.certs) for w in words]
            for writes in (False, True):
                name = "-".join(words).replace("--", "") + ("/beside-tickets" if writes else "")
                print(json.dumps({"name": f"issuer-lists/{store}/{name}", "unit": "ms", "n": 1,
                                  "load": round(os.getloadavg()[0], 1), **measured(stack, program, words, writes)}), flush=True)
    finally:
        stack.end()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--bin", type=Path, default=ROOT / "build/bench/bin")
    p.add_argument("--store", action="append", choices=["sqlite", "postgres"])
    p.add_argument("--hosts", type=int, default=100000)
    p.add_argument("--certs", type=int, default=200000)
    args = p.parse_args()
    if args.hosts < 1 or args.certs < args.hosts:
        sys.exit("issuer_lists: expected --hosts of at least 1 and --certs of at least as many")
    for store in args.store or ["sqlite", "postgres"]:
        run(args, store)


if __name__ == "__main__":
    main()
