#!/usr/bin/env bash
# What strangers can do to the issuer with nothing but connections: take all its places, trickle, fill
# its memory with bodies that never end, send JSON that is small for them and large for it. Somebody
# else, from another address, is served all the while.
set -euo pipefail
# shellcheck disable=SC2154 # dir, bin and port come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
job_make_tpm
job_write_conf
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1
# shellcheck disable=SC2016 # the inner shell expands
job_start issuerd bash -c 'ulimit -n 256; exec "$@"' sh "$bin/attest-issuerd" --config "$dir/issuer.yaml"
wait_for 30 ctl issuer status
grep -q 'issuer.sandbox' "$dir/log/issuerd.log" || job_fail "no word of the sandbox"

cat > "$dir/strangers.py" << 'PY'
import resource, socket, ssl, sys, time, threading

port, root, pid = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.create_default_context(cafile=root)
anyone = ssl.create_default_context()
anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE


def connect(source):
    s = socket.socket()
    s.settimeout(120)
    s.bind((source, 0))
    s.connect(("127.0.0.1", port))
    return s


def request(text, source="127.0.0.1", seconds=120):
    """The status of an answer, from a new connection; None when there is none."""
    try:
        with context.wrap_socket(connect(source), server_hostname="127.0.0.1") as s:
            s.settimeout(seconds)
            s.sendall(text)
            head = s.recv(64)
            return int(head.split()[1]) if head.startswith(b"HTTP/1.1 ") else None
    except (OSError, ValueError):
        return None


DIRECTORY = b"GET /acme/directory HTTP/1.1\r\nHost: issuer\r\nConnection: close\r\n\r\n"


def served(what):
    until = time.monotonic() + 120
    while request(DIRECTORY) != 200:
        if time.monotonic() > until:
            sys.exit(f"FAIL: {what}: an honest client is not served")
    print(f"ok: {what}: an honest client is served")


def resident():
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS"):
                return int(line.split()[1]) // 1024


def closed(s, seconds):
    s.settimeout(seconds)
    try:
        return s.recv(1) == b""
    except ConnectionError:
        return True
    except OSError:
        return False


def post(path, length):
    return (f"POST /acme/{path} HTTP/1.1\r\nHost: issuer\r\nContent-Type: application/jose+json\r\n"
            f"Content-Length: {length}\r\nConnection: close\r\n\r\n").encode()


served("at first")

# ---- all places ----
idle = []
for _ in range(400):
    try:
        s = connect("127.0.0.2")
    except OSError:
        break
    idle.append(s)
served(f"{len(idle)} idle connections of one address")
for s in idle:
    s.close()


# ---- 5000 addresses, each with one ----
def strangers(count):
    """Connections that nobody uses, each from an address of its own; those that the kernel has no room for yet, too."""
    those = []
    for i in range(count):
        s = socket.socket()
        s.setblocking(False)
        s.bind((f"127.1.{i >> 8}.{i & 255}", 0))
        s.connect_ex(("127.0.0.1", port))
        those.append(s)
    return those


resource.setrlimit(resource.RLIMIT_NOFILE, (min(9000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
before = resident()
idle = strangers(5000)
time.sleep(3)
begun = time.monotonic()
served("5000 idle connections of as many addresses")
took, grew = time.monotonic() - begun, resident() - before
if took > 60 or grew > (1200 if sys.argv[4] == "sanitized" else 400):
    sys.exit(f"FAIL: served after {took:.0f} s, memory grew by {grew} MiB")
print(f"ok: after {took:.1f} s, memory grew by {grew} MiB")
for s in idle:
    s.close()
if len(sys.argv) > 5:
    sys.exit()

# ---- a handshake that never ends ----
# Ended by the issuer's clock, which runs whatever comes, and before the peer is through with its bytes.
begun, ended = time.monotonic(), False
slow = connect("127.0.0.2")
for byte in b"\x16\x03\x01\x02\x00\x01" + b"\x00" * 60:
    try:
        slow.send(bytes([byte]))
    except OSError:
        ended = True
        break
    if closed(slow, 0.5):
        ended = True
        break
took = time.monotonic() - begun
if not ended or took <= 10:
    sys.exit(f"FAIL: a trickled handshake: ended {ended} after {took:.0f} s")
print(f"ok: a trickled handshake was ended after {took:.0f} s")

# ---- bodies that never end ----
before, peak, stop = resident(), 0, threading.Event()


def watch():
    global peak
    while not stop.is_set():
        peak = max(peak, resident())
        time.sleep(0.05)


watcher = threading.Thread(target=watch)
watcher.start()
bodies, piece = [], b"x" * 65536
for _ in range(60):
    try:
        s = anyone.wrap_socket(connect("127.0.0.2"))
        s.settimeout(2)
        s.sendall(post("nothing/here", 8 << 20))
        for _ in range(127):
            s.sendall(piece)
        bodies.append(s)
    except OSError:
        pass
served("bodies that never end")
stop.set()
watcher.join()
for s in bodies:
    s.close()
limit = 256 * (4 if sys.argv[4] == "sanitized" else 1) + 150
if peak - before > limit:
    sys.exit(f"FAIL: memory grew by {peak - before} MiB, at most {limit} expected")
print(f"ok: memory grew by {peak - before} MiB at most")

# ---- small JSON, large values ----
bomb = b"{\"a\":[" + b"{}," * ((8 << 20) // 3 - 16) + b"{}]}"
begun = time.monotonic()
status = request(post("newAccount", len(bomb)) + bomb, "127.0.0.2")
if status != 413:
    sys.exit(f"FAIL: 8 MiB for newAccount: {status}, 413 expected")
before = resident()
status = request(post("ak/x", len(bomb)) + bomb, "127.0.0.2")
if status != 400 or resident() - before > (600 if sys.argv[4] == "sanitized" else 150):
    sys.exit(f"FAIL: values for ak: {status}, memory grew by {resident() - before} MiB")
small = b"{\"protected\":[" + b"{}," * 60000 + b"{}]}"
status = request(post("newAccount", len(small)) + small, "127.0.0.2")
if status != 400:
    sys.exit(f"FAIL: values for newAccount: {status}, 400 expected")
print(f"ok: JSON of many values is refused before it is built, {time.monotonic() - begun:.1f} s for three")
served("at last")
PY
# AddressSanitizer keeps what was freed for a while.
build=$(grep -q 'sanitizer build' "$dir/log/issuerd.log" && echo sanitized || echo plain)
python3 "$dir/strangers.py" "$port" "$dir/issuer/ca/tls-root.pem" "$(job_pid issuerd)" "$build"
lines=$(grep -c 'accept.failed' "$dir/log/issuerd.log" || true)
[ "$lines" -le 10 ] || job_fail "$lines lines about accept"
wait_for 30 grep -q 'connections.ended' "$dir/log/issuerd.log" || job_fail "nothing says that connections were ended"

# With the descriptors that its unit has there are places for all of them.
job_stop issuerd
# shellcheck disable=SC2016 # the inner shell expands
job_start issuerd bash -c 'ulimit -n 8192; exec "$@"' sh "$bin/attest-issuerd" --config "$dir/issuer.yaml"
wait_for 30 ctl issuer status
python3 "$dir/strangers.py" "$port" "$dir/issuer/ca/tls-root.pem" "$(job_pid issuerd)" "$build" idle
job_stop issuerd
echo "strangers: all held"
