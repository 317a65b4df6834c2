#!/usr/bin/env bash
# The root of the issuer's own TLS is replaced while a host lives on it (docs/OPERATIONS.md): the host hears of the new root
# by its view before anything is under it, renews at every step, also after a restart of both; a ticket of before enrols
# through the new root; a host that was away until the old root is gone says what is wrong, and comes back by the new pin.
set -euo pipefail
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
job_setup
job_make_tpm
job_write_conf
printf 'ca:\n  publish_wait: 1s\n' >> "$dir/issuer.yaml"
ok() { echo "ok: $*"; }
sed -i "s#^\( *\)ca_file:.*#\1ca_file: $dir/old-root.pem#" "$dir/attestd.yaml"
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > "$dir/log/init.log" 2>&1 || { cat "$dir/log/init.log"; job_fail init; }
cp "$dir/issuer/ca/tls-root.pem" "$dir/old-root.pem"
job_start_issuer
ctl policy apply -f "$job_vectors/policy.json" > /dev/null
ctl ticket create --host job --out "$dir/ticket.json" > /dev/null
job_start_keyd
job_start_attestd
job_enrolled_with market-data
host=$dir/state/host
renews() { # WHAT: a new certificate, over a connection of its own
    local before
    wait_for 60 job_settled market-data
    before=$(job_serial market-data)
    ctl agent rotate market-data > "$dir/tmp/rotate" 2>&1 || { cat "$dir/tmp/rotate"; job_fail "$1: no renewal"; }
    renewed() { [ "$(job_serial market-data)" != "$before" ]; }
    wait_for 60 renewed || job_fail "$1: the same certificate"
}
step_is() { [ "$(ctl --json ca rotate tls "${@:2}" | jq -r .step)" = "$1" ]; }
pin_of() { openssl x509 -in "$1" -outform DER | openssl dgst -sha256 -r | cut -d' ' -f1; }
served() { # WHAT CAFILE
    curl -sS --cacert "$2" "$job_url/directory" > /dev/null 2> "$dir/tmp/curl" || { cat "$dir/tmp/curl"; job_fail "$1"; }
}
job_url=https://127.0.0.1:$port/acme
old_pin=$(pin_of "$dir/old-root.pem")
served "before" "$dir/old-root.pem"

# ---- published: the host has both, nothing is under the new one ----
step_is prepared --start || job_fail "not prepared"
step_is published || job_fail "not published"
learned() { find "$host" -name 'issuer-roots-*.pem' -exec grep -c BEGIN {} +; }
has() { [ "$(learned)" = "$1" ]; }
wait_for 60 has 2 || job_fail "the host has not heard of the new root"
ctl ticket create --host late --for 2h --out "$dir/late.json" > /dev/null
[ "$(jq -r .caSha256 "$dir/late.json")" = "$old_pin" ] || job_fail "the ticket does not pin the root in use"
renews "published"

# ---- activated ----
wait_for 60 step_is activated || job_fail "not activated: $(ctl ca rotate tls)"
ctl ca bundle tls --out "$dir/both.pem" > /dev/null
cmp "$dir/both.pem" "$dir/issuer/ca/tls-root.pem" || job_fail "tls-root.pem is not the bundle"
served "who has the old root only" "$dir/old-root.pem"
served "who has both" "$dir/both.pem"
jq -r .root "$dir/issuer/ca/tls-root.json" > "$dir/new-root.pem"
served "who has the new root only" "$dir/new-root.pem"
[ "$(ctl --json status | jq -r .issuer.roots)" = view ] || job_fail "status does not say where the roots are from"
renews "activated"
job_stop issuerd KILL
job_start_issuer
served "after a restart of the issuer" "$dir/new-root.pem"
renews "the issuer was started anew"
job_stop attestd KILL
job_start_attestd
wait_for 60 job_settled market-data
renews "attestd was started anew"
ctl ca rotate tls > "$dir/tmp/wait"
grep caInUse "$dir/tmp/wait" > /dev/null || { cat "$dir/tmp/wait"; job_fail "an open ticket keeps the old root: caInUse is not said"; }
ok "old, new and both: every handshake succeeds, the host renews at each step and after restarts"

# ---- a host that is away now, with the old pin and nothing learned; the old root goes ----
job_stop attestd
mkdir "$dir/learned"
mv "$host"/issuer-roots-*.pem "$host/view.jws" "$dir/learned/"
outgoing=$(ctl --json ca status | jq -r '.generations[] | select(.state == "outgoing" and .kind == "tls") | .id')
ctl ca retire "$outgoing" --force > /dev/null
! curl -sS --cacert "$dir/old-root.pem" "$job_url/directory" > /dev/null 2>&1 || job_fail "the old root still leads there"
served "the new root" "$dir/new-root.pem"
grep -c BEGIN "$dir/issuer/ca/tls-root.pem" > "$dir/tmp/n"
[ "$(cat "$dir/tmp/n")" = 1 ] || job_fail "tls-root.pem has the old root"
job_start_attestd
says_so() { grep issuerTls "$dir/log/attestd.log" > /dev/null; }
wait_for 60 says_so || job_fail "the host does not say that it does not know the issuer"
job_stop attestd
sed -i "s#^\( *\)ca_file:.*#\1ca_file: $dir/new-root.pem#" "$dir/attestd.yaml"
job_start_attestd
wait_for 60 job_settled market-data
renews "the way back"
ctl audit verify > /dev/null || job_fail "the audit chain"
ok "a host that was away: issuerTls, and back by the new root"
