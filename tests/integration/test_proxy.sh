#!/usr/bin/env bash
# The issuer behind balancers that say by the PROXY protocol whose a connection is: haproxy with both versions and its
# health checks, and raw headers, each one wrong in one way. Two sources are limited apart, a balancer is not one address
# among others, and who is no balancer cannot say anything.
# shellcheck disable=SC2154 # dir, bin and port come from job.sh, the ports of haproxy from port_into
set -euo pipefail
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
command -v curl > /dev/null || job_skip "no curl"
job_setup
job_make_tpm
job_write_conf
port_into metrics
port_into third
cat >> "$dir/issuer.yaml" << END
threads: 1
metrics_listen: 127.0.0.1:$metrics
log_level: debug
proxy_from: [127.0.0.9, 127.0.0.16/28]
limits: { address_requests: 20 }
END
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1 || job_fail "init"
# shellcheck disable=SC2016 # the inner shell expands
job_start issuerd bash -c 'ulimit -n 256; exec "$@"' sh "$bin/attest-issuerd" --config "$dir/issuer.yaml"
wait_for 30 ctl issuer status

cat > "$dir/proxy.py" << 'PY'
import os, re, select, signal, socket, ssl, struct, subprocess, sys, time

port, root, metrics, pid, conf = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
BALANCER, HOST = "127.0.0.9", "127.0.0.1"
SIGN = b"\r\n\r\n\0\r\nQUIT\n"
DIRECTORY = b"GET /acme/directory HTTP/1.1\r\nHost: issuer\r\n\r\n"
context = ssl.create_default_context(cafile=root)


def check(what, good, found=""):
    if not good:
        sys.exit(f"FAIL: {what}: {found}")
    print(f"ok: {what}", flush=True)


def v1(source, family="TCP4"):
    return f"PROXY {family} {source} 10.0.0.1 4711 443\r\n".encode()


def v2(source, tlvs=b"", command=1):
    six = ":" in source
    family = socket.AF_INET6 if six else socket.AF_INET
    to = "::1" if six else "10.0.0.1"
    body = socket.inet_pton(family, source) + socket.inet_pton(family, to) + struct.pack(">HH", 4711, 443) + tlvs
    return SIGN + bytes([0x20 | command, 0x21 if six else 0x11]) + struct.pack(">H", len(body)) + body


def connect(source):
    s = socket.socket()
    s.settimeout(60)
    s.bind((source, 0))
    s.connect(("127.0.0.1", port))
    return s


def client(header, source=BALANCER, together=False, pieces=False):
    """TLS behind a header; an SSL object with its socket, and how to move bytes."""
    s = connect(source)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not together:
        for part in [header[i:i + 1] for i in range(len(header))] if pieces else [header] if header else []:
            s.sendall(part)
            time.sleep(0.002 if pieces else 0)
        return context.wrap_socket(s, server_hostname="127.0.0.1")
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(into, out, server_hostname="127.0.0.1")
    first = header
    while True:
        try:
            tls.do_handshake()
            s.sendall(out.read())
            return tls
        except ssl.SSLWantReadError:
            s.sendall(first + out.read()) # header and ClientHello in one segment
            first = b""
            into.write(s.recv(65536))


def status(tls, seconds=60):
    tls.settimeout(seconds)
    tls.sendall(DIRECTORY)
    head = tls.recv(4096)
    rest = re.search(rb"Content-Length: (\d+)", head)
    body = len(head.split(b"\r\n\r\n", 1)[1])
    while rest and body < int(rest[1]):
        body += len(tls.recv(4096))
    return int(head.split()[1])


def asked(header, n=1, **how):
    with client(header, **how) as tls:
        return [status(tls) for _ in range(n)]


def closed(s, seconds):
    s.settimeout(seconds)
    try:
        while s.recv(4096):
            pass
        return True
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def refused():
    text = subprocess.run(["curl", "-sS", "--max-time", "30", f"http://127.0.0.1:{metrics}/metrics"],
                          check=True, capture_output=True, text=True).stdout
    return {k: int(float(v)) for k, v in re.findall(r'attest_issuer_proxy_refused_total\{reason="(\w+)"\} (\S+)', text) if float(v)}


def soon(what, test, seconds=60):
    until = time.monotonic() + seconds
    while not test():
        if time.monotonic() > until:
            sys.exit(f"FAIL: {what}")
        time.sleep(0.1)


# ---- who is a balancer, and who is not
check("a host without a header", asked(b"", source=HOST) == [200])
check("version 1", asked(v1("192.0.2.1")) == [200])
check("version 2", asked(v2("192.0.2.2")) == [200])
check("a balancer of a range", asked(v2("192.0.2.2"), source="127.0.0.20") == [200])
check("LOCAL", asked(SIGN + b"\x20\0\0\0") == [200])
check("UNKNOWN", asked(b"PROXY UNKNOWN\r\n") == [200])
check("TLVs", asked(v2("192.0.2.2", b"\x04\0\x40" + b"x" * 64)) == [200])
check("in pieces, version 1", asked(v1("192.0.2.1"), pieces=True) == [200])
check("in pieces, version 2", asked(v2("192.0.2.2"), pieces=True) == [200])
for header in v1("192.0.2.1"), v2("192.0.2.2", b"\x04\0\x01x"):
    check("header and ClientHello in one segment", client(header, together=True).version() == "TLSv1.3")
check("nothing was refused", refused() == {}, refused())
for header in v1("192.0.2.66"), v2("192.0.2.66"):
    s = connect(HOST)
    s.sendall(header)
    check("a header of who is no balancer ends in TLS", closed(s, 10))
    s = connect("127.0.0.8")
    s.sendall(header)
    check("nor of the address beside it", closed(s, 10))
check("and is not counted", refused() == {}, refused())

# ---- whose a connection is
answers = asked(v2("198.51.100.1"), 25)
check("a source has its limit", answers == [200] * 20 + [429] * 5, answers)
check("in a new connection and by the other version, too", asked(v1("198.51.100.1")) == [429])
check("by IPv4 in IPv6, too", asked(v2("::ffff:198.51.100.1")) == [429])
check("and by another balancer", asked(v2("198.51.100.1"), source="127.0.0.21") == [429])
check("another source has its own", asked(v2("198.51.100.2")) == [200])
check("a source of IPv6", asked(v2("2001:db8:1::1"), 25)[19:21] == [200, 429])
check("counts by its /64", asked(v2("2001:db8:1::2")) == [429])
check("another /64", asked(v2("2001:db8:1:1::1")) == [200])
check("LOCAL is the balancer's own", asked(SIGN + b"\x20\0\0\0", 25)[-1] == 429)
check("UNKNOWN, too", asked(b"PROXY UNKNOWN\r\n") == [429])
check("which is not its hosts'", asked(v2("198.51.100.3")) == [200])
check("LOCAL says nobody's address", asked(v2("198.51.100.4", command=0)) == [429])

# ---- refusals, each once
wrong = {
    "proxyMissing": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100,
    "proxyTooLong": b"PROXY UNKNOWN " + b"x" * 200,
    "proxyLine": b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 65536\r\n",
    "proxyVersion": SIGN + b"\x31\x11\0\0",
    "proxyCommand": SIGN + b"\x22\x11\0\0",
    "proxyFamily": SIGN + b"\x21\x12\0\x0c" + b"x" * 12,
    "proxyAddress": SIGN + b"\x21\x21\0\x0c" + b"x" * 12,
    "proxyTlv": SIGN + b"\x21\x11\0\x0f" + b"x" * 12 + b"\x04\0\x01",
}
want = {}
for name, bytes_ in wrong.items():
    s = connect(BALANCER)
    s.sendall(bytes_)
    check(f"{name}: ended at once", closed(s, 10))
    want[name] = 1
    check(f"{name}: counted", refused() == want, refused())
s = connect(BALANCER)
s.sendall(SIGN + b"\x21\x11\x02\x09") # 537 bytes
check("a length beyond the bound: ended before its bytes come", closed(s, 10))
want["proxyTooLong"] += 1
s = connect(BALANCER)
s.sendall(v2("192.0.2.1")[:20])
time.sleep(0.3)
s.close()
want["proxyCut"] = 1
soon("proxyCut", lambda: refused() == want)
check("proxyCut: counted", True)
connect(BALANCER).close()
time.sleep(0.5)
check("a check that only connects is not counted", refused() == want, refused())
slow, silent, from_ = connect(BALANCER), connect(BALANCER), time.monotonic()
slow.sendall(b"PROXY TCP4 192.0.2.1")
check("proxyLate: half a header", closed(slow, 60) and time.monotonic() - from_ > 13, time.monotonic() - from_)
check("proxyLate: none", closed(silent, 30))
want["proxyLate"] = 2
check("proxyLate: counted", refused() == want, refused())
check("others are served", asked(v2("198.51.100.9")) == [200])

# ---- places: 128 here, from 96 on the address with the most gives back what is beyond 32
def fill(source):
    peers = []
    for i in range(100):
        try:
            peers.append(client(v2(source(i))))
            status(peers[-1])
        except (OSError, IndexError):
            pass # ended as the newest without a request
    time.sleep(1)
    left = 0
    for p in peers:
        p.setblocking(False)
        try:
            left += p.recv(1) != b""
        except ssl.SSLWantReadError:
            left += 1
        except OSError:
            pass
        p.close()
    return left


left = fill(lambda i: f"203.0.113.{i}")
check("a hundred hosts of one balancer keep their connections", left == 100, left)
time.sleep(1)
left = fill(lambda i: f"2001:db8:2:0:{i:x}::1")
check("a hundred of one host do not", left < 70, left)

time.sleep(1)


def nobodys():
    """A hundred that have not said yet whose they are: before a handshake has to hurry (2 s) none goes."""
    from_, peers = time.monotonic(), [connect(BALANCER) for _ in range(100)]
    time.sleep(0.8)
    ended = len(select.select(peers, [], [], 0)[0])
    late = time.monotonic() - from_ > 1.8
    for p in peers:
        p.close()
    time.sleep(0.5)
    return None if late else ended


ended = next((n for n in (nobodys() for _ in range(20)) if n is not None), None)
check("what is nobody's yet does not count for its balancer's address", ended == 0, ended)

# ---- the list is read again
text = open(conf, encoding="utf-8").read()
open(conf, "w", encoding="utf-8").write(text.replace("proxy_from: [127.0.0.9, 127.0.0.16/28]", "proxy_from: [127.0.0.16/28]"))
os.kill(pid, signal.SIGHUP)


def served(source, header):
    try:
        return asked(header, source=source) in ([200], [429])
    except (OSError, ValueError, IndexError):
        return False


soon("SIGHUP", lambda: served(BALANCER, b""))
check("who is no balancer any more needs no header", not served(BALANCER, v2("198.51.100.20")))
check("who still is does", served("127.0.0.20", v2("198.51.100.20")))
open(conf, "w", encoding="utf-8").write(text)
os.kill(pid, signal.SIGHUP)
soon("SIGHUP", lambda: served(BALANCER, v2("198.51.100.21")))
check("and back", True)
PY
python3 "$dir/proxy.py" "$port" "$dir/issuer/ca/tls-root.pem" "$metrics" "$(job_pid issuerd)" "$dir/issuer.yaml"
# The first refusal at once, the others at most every 10 s together.
grep -qE 'proxy.refused.*proxyMissing.*127\.0\.0\.9' "$dir/log/issuerd.log" || job_fail "no line of the first refusal: $(grep proxy.refused "$dir/log/issuerd.log")"
grep -q 'peer=198.51.100.1' "$dir/log/issuerd.log" || job_fail "the log does not name the source"
! grep -q '192.0.2.66' "$dir/log/issuerd.log" || job_fail "a stranger's header was believed"
fault_sanitizers

if ! PATH=$PATH:/usr/sbin command -v haproxy > /dev/null; then
    echo "left out: no haproxy"
    exit 0
fi
port_into first
port_into second
port_into web
cat > "$dir/haproxy.cfg" << END
global
    stats socket $dir/haproxy.sock level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 2m
    timeout server 2m
frontend first
    bind 127.0.0.1:$first
    default_backend first
backend first
    default-server check inter 500ms fall 2 rise 1 source 127.0.0.9
    server i1 127.0.0.1:$port send-proxy check-send-proxy
frontend second
    bind 127.0.0.1:$second
    default_backend second
backend second
    default-server check inter 500ms fall 2 rise 1 source 127.0.0.9
    server i1 127.0.0.1:$port send-proxy-v2 check-send-proxy check-ssl verify required ca-file $dir/issuer/ca/tls-root.pem
# As docs/OPERATIONS.md has it: health by the metrics' listener, which takes no header.
frontend third
    bind 127.0.0.1:$third
    default_backend third
backend third
    option httpchk GET /ready
    default-server check port $metrics inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions send-proxy-v2 source 127.0.0.9
    server i1 127.0.0.1:$port
# A check of a port that is named comes without a header unless check-send-proxy is there: not taken for a working issuer.
frontend without
    bind 127.0.0.1:$web
    default_backend without
backend without
    default-server check inter 500ms fall 2 rise 1 source 127.0.0.9
    server i1 127.0.0.1:$port send-proxy-v2 port $port check-ssl verify none
END
job_start haproxy env PATH="$PATH:/usr/sbin" haproxy -db -f "$dir/haproxy.cfg"
up() { # BACKEND STATE: 2 is running, 0 is down
    [ "$(echo "show servers state $1" | python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.stdin.buffer.read())
print(s.makefile().read())' "$dir/haproxy.sock" | awk '$4 == "i1" { print $6 }')" = "$2" ]
}
wait_for 30 up first 2
wait_for 30 up second 2
wait_for 30 up third 2
wait_for 30 up without 0
sleep 3
{ up first 2 && up second 2 && up third 2; } || job_fail "the health checks do not hold"
ok "haproxy's checks: with check-send-proxy, in the clear and over TLS; without, the issuer is not in"

# code SOURCE PORT TIMES: the last answer's
code() {
    local i n
    for ((i = 0; i < $3; i++)); do
        n=$(curl -sS --max-time 60 -o "$dir/tmp/body" -w '%{http_code}' --interface "$1" --cacert "$dir/issuer/ca/tls-root.pem" "https://127.0.0.1:$2/acme/directory")
    done
    echo "$n"
}
[ "$(code 127.0.0.2 "$second" 21)" = 429 ] || job_fail "no limit of 127.0.0.2 behind haproxy"
[ "$(code 127.0.0.3 "$second" 2)" = 200 ] || job_fail "127.0.0.3 has the limit of another host"
[ "$(code 127.0.0.2 "$first" 1)" = 429 ] || job_fail "version 1 counts for another address than version 2"
[ "$(code 127.0.0.3 "$first" 2)" = 200 ] || job_fail "127.0.0.3 by version 1"
[ "$(code 127.0.0.2 "$third" 1) $(code 127.0.0.3 "$third" 2)" = "429 200" ] || job_fail "with health by /ready"
[ "$(code 127.0.0.4 "$first" 21)" = 429 ] || job_fail "no limit of 127.0.0.4 by version 1"
ok "two hosts behind haproxy are limited apart, by send-proxy and send-proxy-v2"
grep -q 'peer=127.0.0.3' "$dir/log/issuerd.log" || job_fail "the log does not name the host behind haproxy"
fault_sanitizers
