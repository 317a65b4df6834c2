"""Rows as an issuer of long standing has them, by SQL: hosts with an EK, an account and an AK each; certificates of
agents, of which one a host is in force with its bytes (1.4 kB of PEM, 300 bytes of TBS) and the others ended; orders that
wait. Values are of the lengths of real ones; none of these hosts can ask for anything, since no such key exists."""
import subprocess
import time

SERIES = {
    "sqlite": "WITH RECURSIVE s(i) AS (SELECT {a} UNION ALL SELECT i + 1 FROM s WHERE i < {b}) ",
    "postgres": "",
}
FROM = {"sqlite": "s", "postgres": "generate_series({a}, {b}) AS s(i)"}
# 64 hexadecimal digits of a number, spread over the keys' space, and bytes
HEX = {
    "sqlite": "substr(printf('%08x%08x', (i * 2654435761) & 4294967295, i) || '{z}', 1, {n})",
    "postgres": "substr(md5(i::text) || md5(i::text || '{z}'), 1, {n})",
}
TEXT = {"sqlite": "printf('%.{n}c', 'A')", "postgres": "repeat('A', {n})"}
BYTES = {"sqlite": "zeroblob({n})", "postgres": "decode(repeat('00', {n}), 'hex')"}
NONE = {"sqlite": "x''", "postgres": "''::bytea"}
BATCH = 100000


class Db:
    def __init__(self, kind, place):
        self.kind, self.place = kind, place.removeprefix("postgres:")

    def command(self):
        if self.kind == "sqlite":
            return ["sqlite3", "-bail", "-cmd", ".timeout 60000", self.place]
        return ["psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-d", self.place]

    def sql(self, text):
        done = subprocess.run(self.command(), input=text, text=True, capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{text[:300]}: {done.stderr[-400:]}")
        return done.stdout

    def there(self):
        try:
            return self.kind == "sqlite" or self.sql("SELECT 1;").strip() == "1"
        except RuntimeError:
            return False

    def number(self, sql):
        return int(self.sql(sql + ";").split()[-1])

    def part(self, table, columns, values, first, last):
        series = SERIES[self.kind].format(a=first, b=last)
        source = FROM[self.kind].format(a=first, b=last)
        self.sql(f"INSERT INTO {table} ({columns}) {series}SELECT {values} FROM {source};")

    def insert(self, table, columns, values, n):
        for first in range(1, n + 1, BATCH):
            self.part(table, columns, values, first, min(n, first + BATCH - 1))

    def hex(self, n=64, z="0" * 48):
        return HEX[self.kind].format(n=n, z=z)

    def text(self, n):
        return TEXT[self.kind].format(n=n)

    def bytes(self, n):
        return BYTES[self.kind].format(n=n) if n else NONE[self.kind]

    def fill(self, hosts, certs):
        now = int(time.time())
        ident = "'f' || " + self.hex(25)
        verdict = '{"lastVerdict":{"at":"2026-11-29T00:00:00Z","outcome":"granted","reason":"","what":"renewal"},"other":"'
        notes = f"'{verdict}' || {self.text(780)} || '\"}}'"
        self.insert("accounts", "id, thumbprint, jwk, status, ticket, eab, contact, created_at",
                    f"{ident}, 'f' || {self.hex(42)}, {self.text(140)}, 'valid', 'filled', '', '', {now}", hosts)
        self.insert("hosts", "id, label, labels, state, account, reason, manufacturer, model, version, ek_source, notes, created_at,"
                    " updated_at, seen_at, registered_by, view_seen",
                    f"{self.hex()}, 'filled-' || i, 'zone=filled', 'approved', 'f' || {self.hex(42)}, '', '49424d00', 'swtpm', '1',"
                    f" 'certificate', {notes}, {now}, {now}, {now}, '', 0", hosts)
        self.insert("host_eks", "ek, host, proven", f"{self.hex()}, {self.hex()}, 1", hosts)
        self.insert("aks", "id, account, ek, host, state, ended_reason, pcr_selection, logs, profile_boot, facts, cert, clock, secret, nonce,"
                    " pub, name, ek_pub, m1, clock_ms, reset_count, restart_count, safe, firmware, created_at, expires_at",
                    f"{ident}, {ident}, {self.hex()}, {self.hex()}, 'valid', '', 'sha256:0,1,2,3,4,5,6,7', 'firmware', '', '', {self.text(1300)},"
                    f" '', {self.bytes(0)}, {self.bytes(0)}, {self.bytes(90)}, {self.bytes(34)}, {self.bytes(316)}, {self.bytes(0)},"
                    f" 0, 0, 0, 1, {self.bytes(8)}, {now}, {now + 604800}", hosts)
        cert = "serial, id, kind, status, subject, account, host, ord, profile, pem, decision, reason, replaced, tbs, not_before, not_after," \
               " created_at, ended_at"
        # i of certificate 1 … hosts is the host's own: those are in force.
        live = f"'f' || {self.hex(31)}, {ident}, 'agent', 'issued', 'spiffe://bank.example/agent/filled-' || (i % 5000), {ident}, {self.hex()}," \
               f" {ident}, 'trading', {self.text(1400)}, {self.text(26)}, '', '', {self.bytes(300)}, {now - 60} - i % 80000, {now + 86400} - i % 80000," \
               f" {now - 60} - i % 80000, 0"
        self.insert("certs", cert, live, min(hosts, certs))
        of = f"{self.hex().replace('(i * 2654435761)', f'((1 + i % {hosts}) * 2654435761)').replace(', i)', f', 1 + i % {hosts})')}" \
            if self.kind == "sqlite" else self.hex().replace("i::text", f"(1 + i % {hosts})::text")
        ended = f"'e' || {self.hex(31)}, 'e' || {self.hex(25)}, 'agent', 'issued', 'spiffe://bank.example/agent/filled-' || (i % 5000)," \
                f" '', {of}, 'e' || {self.hex(25)}, 'trading', '', {self.text(26)}, '', '', {self.bytes(0)}," \
                f" {now - 90000} - i, {now - 86400} - i, {now - 90000} - i, 0"
        self.insert("certs", cert, ended, max(0, certs - hosts))
        self.sql("ANALYZE;")

    def pending_orders(self, n, swept_in_s):
        """All to be swept at once: an hour after their end (SWEEP_AGE_S of the issuer)."""
        now = int(time.time()) - 3600
        self.sql(f"INSERT INTO accounts (id, thumbprint, jwk, status, ticket, eab, contact, created_at)"
                 f" VALUES ('pending', 'pending', '{{}}', 'valid', '', '', '', {now});")
        ident = "'f' || " + self.hex(25)
        self.insert("orders", "id, account, host, ak, identifier_type, identifier, profile, status, chall_status, error, token, pcr_selection,"
                    " logs, policy, entry, entry_version, clock, decision, cert, measured, authz, replaces, parent, key_spki, created_at,"
                    " expires_at, verdict_at",
                    f"{ident}, 'pending', {self.hex()}, '', 'spiffe-id', 'spiffe://bank.example/agent/filled', 'trading', 'pending', 'pending', '',"
                    f" 'f' || {self.hex(31)}, 'sha256:0,1,2,3,4,5,6,7', 'firmware', 'none', 'filled', 1, '', '', '', '', '', '', '',"
                    f" {self.bytes(0)}, {now}, {now} + {swept_in_s}, 0", n)
