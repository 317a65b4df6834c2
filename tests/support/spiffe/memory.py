#!/usr/bin/python3
"""memory.py PID: does that process hold the private key (P-256, PKCS #8 as PEM) that comes on standard input? In whatever it
can write to: the key's own 32 bytes, or a line of the PEM with some of them. Says how often, exit status 1 if at all. Root's."""
import base64
import subprocess
import sys

GIANT = 1 << 33  # a sanitizer's shadow is larger, and no copy is in it

pem = sys.stdin.buffer.read()
der = subprocess.run(["openssl", "pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], input=pem, stdout=subprocess.PIPE, check=True).stdout
at = der.index(b"\x02\x01\x01\x04\x20") + 5  # ECPrivateKey: version 1, privateKey OCTET STRING (RFC 5915 §3)
wanted = {"key": der[at:at + 32]}
for begin in range(at - at % 48, at + 32, 48):
    first, end = max(begin, at), min(begin + 48, at + 32)
    first += -(first - begin) % 3
    wanted["line of PEM at %d" % begin] = base64.b64encode(der[first:end - (end - first) % 3])
found = {name: 0 for name in wanted}
read = 0
with open("/proc/%s/maps" % sys.argv[1], encoding="ascii") as maps, open("/proc/%s/mem" % sys.argv[1], "rb", 0) as mem:
    for line in maps:
        places, rights = line.split()[:2]
        begin, end = (int(one, 16) for one in places.split("-"))
        if rights[1] != "w" or end - begin > GIANT:
            continue
        before = b""
        for offset in range(begin, end, 1 << 20):
            try:
                mem.seek(offset)
                got = mem.read(min(1 << 20, end - offset))
            except OSError:
                before = b""
                continue
            read += len(got)
            for name, one in wanted.items():
                found[name] += (before[-63:] + got).count(one) - before[-63:].count(one)
            before = got
print(read, "bytes read:", ", ".join("%s %d" % pair for pair in found.items()))
if not read:
    sys.exit("nothing could be read")
sys.exit(1 if any(found.values()) else 0)
