#!/usr/bin/env python3
"""What must hold of an issuer's and a host's state after any accident, when all is settled again.

usage: state_check.py DIR AGENT...   (DIR as tests/support/job.sh lays it out)

Issuer: every intent has one outcome, serial numbers are unique, every issued certificate is the one
its row speaks of. Host: every JSON file parses, no half files, every key that keyd lists loads in
the TPM and signs, is on disk, and is the one that its agent's record and installed chain speak of, or
the agent's next, or a retired one whose certificate has not ended.
"""
import glob
import json
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import time

failures = []


def check(holds, text):
    if not holds:
        failures.append(text)


# ---- keyd's socket: be32 length, be32 id, be16 operation, fields (attestd/proc/ipc.h) ----
KEY_LIST, KEY_CSR = 17, 19


def field(data):
    return struct.pack(">I", len(data)) + data


class Keyd:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(path)

    def receive(self, n):
        data = b""
        while len(data) < n:
            part = self.sock.recv(n - len(data))
            if not part:
                raise EOFError("keyd closed")
            data += part
        return data

    def call(self, op, *fields):
        payload = b"".join(field(f) for f in fields)
        self.sock.sendall(struct.pack(">IIH", len(payload) + 6, 7, op) + payload)
        body = self.receive(struct.unpack(">I", self.receive(4))[0])
        ident, reply = struct.unpack(">IH", body[:6])
        assert (ident, reply) == (7, op | 0x8000), (ident, hex(reply))
        if body[6] != 0:
            raise RuntimeError(body[7:].decode(errors="replace"))
        return body[7:]


def take(data):
    n = struct.unpack(">I", data[:4])[0]
    return data[4:4 + n], data[4 + n:]


def keys_of(keyd):
    """key id → (agent, state, spki)"""
    keys, after = {}, b""
    while True:
        reply = keyd.call(KEY_LIST, after)
        count, rest = struct.unpack(">I", reply[:4])[0], reply[4:]
        if count == 0:
            return keys
        for _ in range(count):
            record, rest = take(rest)
            key_id, record = take(record)
            agent, record = take(record)
            state, record = take(record)
            record = record[8:]
            for _ in ("keyStore", "keyType", "name"):
                _, record = take(record)
            spki, record = take(record)
            keys[key_id.decode()] = (agent.decode(), state.decode(), spki)
            after = key_id


def openssl(*args, data=None):
    return subprocess.run(["openssl", *args], input=data, check=True, capture_output=True).stdout


# ---- the host ----
def check_host(base, agents):
    state = base + "/state"
    for path in glob.glob(base + "/state/**/*", recursive=True):
        name = os.path.basename(path)
        check(".tmp" not in name and ".bad" not in name and not name.endswith(".new"),
              "left behind: " + path)
        if path.endswith(".json"):
            try:
                json.load(open(path, encoding="utf-8"))
            except ValueError as e:
                check(False, f"{path}: {e}")
    keyd = Keyd(base + "/run/keyd/keyd.sock")
    keys = keys_of(keyd)
    in_tpm = {os.path.basename(p)[:-4] for p in glob.glob(state + "/keyd/agents/*.pem")}
    in_hsm = {os.path.basename(p)[:-4] for p in glob.glob(state + "/keyd/agents/*.hsm")} # waste too: there is none
    on_disk = in_tpm | in_hsm
    sidecars = {os.path.basename(p)[:-5] for p in glob.glob(state + "/keyd/agents/*.json")}
    check(on_disk == set(keys), f"keys listed {set(keys)}, on disk {on_disk}")
    # The sidecar of a destroyed key goes when the folder is synced next: with the next key that is made.
    check(in_tpm <= sidecars and len(sidecars - in_tpm) < 64, f"keys {in_tpm}, sidecars {sidecars}")
    for key_id, (agent, status, spki) in keys.items():
        try:
            csr, _ = take(keyd.call(KEY_CSR, key_id.encode(), b"spiffe://bank.example/agent/" + agent.encode()))
            openssl("req", "-inform", "DER", "-verify", "-noout", data=csr)
        except (RuntimeError, subprocess.CalledProcessError) as e:
            check(False, f"key {key_id} of {agent} does not sign: {e}")
    serials = {}
    mine_of_all = 0
    for agent in agents:
        record = json.load(open(f"{state}/host/records/{agent}.json", encoding="utf-8"))
        mine = {k: v[1] for k, v in keys.items() if v[0] == agent}
        # The key in force, the next one, made ahead, and those that were replaced; nothing else.
        spoken_of = {record["keyId"]: "active", record["nextKeyId"]: "new"}
        spoken_of |= {r["keyId"]: "retired" for r in record["retired"]}
        check(mine == spoken_of and len(mine) == 2 + len(record["retired"]), f"{agent}: keys {mine}, record {record}")
        check(len(record["retired"]) <= 8, f"{agent}: record {record}")
        for retired in record["retired"]: # destroyed within a second or two of the end
            check(retired["notAfter"] > time.time() - 10, f"{agent}: {retired} has ended")
        mine_of_all += len(mine)
        chain = f"{state}/host/agents/{agent}/chain.pem"
        spki = openssl("pkey", "-pubin", "-outform", "DER",
                       data=openssl("x509", "-in", chain, "-noout", "-pubkey"))
        check(spki == keys[record["keyId"]][2], f"{agent}: the chain is for another key")
        with open(f"{state}/host/agents/{agent}/key.uri", encoding="ascii") as uri:
            check(uri.read().rstrip("\n").endswith("id=" + "".join("%" + record["keyId"][i:i + 2] for i in range(0, 32, 2))),
                  f"{agent}: key.uri names another key")
        serials[agent] = openssl("x509", "-in", chain, "-noout", "-serial").decode().split("=")[1].strip().lower()
        check(subprocess.run(["openssl", "x509", "-in", chain, "-noout", "-checkend", "0"],
                             capture_output=True).returncode == 0, f"{agent}: expired")
    check(mine_of_all == len(keys), f"{len(keys)} keys, of {agents} {mine_of_all}")
    return serials


# ---- the issuer ----
def check_issuer(base, serials):
    db = sqlite3.connect(f"file:{base}/issuer/issuer.db?mode=ro", uri=True)
    check(db.execute("PRAGMA integrity_check").fetchone()[0] == "ok", "integrity_check")
    rows = db.execute("SELECT serial, status, pem, ord, kind FROM certs").fetchall()
    check(len({r[0] for r in rows}) == len(rows), "a serial number twice")
    by_serial = {}
    orders = {}
    for serial, status, pem, order, kind in rows:
        check(status in ("issued", "abandoned", "revoked"), f"{serial}: {status} has no outcome")
        by_serial[serial.lower().lstrip("0")] = status
        if pem:
            real = openssl("x509", "-noout", "-serial", data=pem.encode()).decode().split("=")[1].strip().lower()
            check(real.lstrip("0") == serial.lower().lstrip("0"), f"row {serial} holds certificate {real}")
        if status != "abandoned" and kind == "agent":
            check(order not in orders, f"order {order} has two certificates")
            orders[order] = serial
    intents, outcomes = [], {}
    for (text,) in db.execute("SELECT record FROM audit ORDER BY seq"):
        record = json.loads(text)
        if record["kind"] == "intent":
            intents.append(record["serial"])
        elif record["kind"] in ("issued", "abandoned"):
            check(record["serial"] in intents, f"{record['serial']}: {record['kind']} without an intent")
            outcomes.setdefault(record["serial"], []).append(record["kind"])
    check(len(set(intents)) == len(intents), "two intents for one serial number")
    check(sorted(intents) == sorted(r[0] for r in rows), "intents and certificates differ")
    for serial in intents:
        check(len(outcomes.get(serial, [])) == 1, f"{serial}: outcomes {outcomes.get(serial)}")
    for order, status, cert in db.execute("SELECT id, status, cert FROM orders"):
        check(status != "processing", f"order {order} is processing for ever")
        check((status == "valid") == bool(cert), f"order {order} is {status}, certificate \"{cert}\"")
    for agent, serial in serials.items():
        check(by_serial.get(serial.lstrip("0")) == "issued", f"{agent}: serves {serial}, which is {by_serial.get(serial.lstrip('0'))}")
    return len(rows)


def main():
    base, agents = sys.argv[1], sys.argv[2:]
    serials = check_host(base, agents)
    count = check_issuer(base, serials)
    for text in failures:
        print("FAIL:", text)
    if failures:
        sys.exit(1)
    print(f"state: {len(serials)} agents, {count} certificates, all whole")


main()
