#!/usr/bin/env bash
# How soon api.sock's streams are told, from the change of the host's own files to the message: rotations, a revocation,
# and the trust domain's own bundle, which gets a second root and loses the first. Each within a second (of several the
# best: the machine may be busy); each message is the whole state; what is signed after each holds by the bundle then.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
spiffe_setup client.py "cryptography, hpack" workload.proto signer.proto health.proto
user=62001
job_make_tpm
job_write_conf
printf 'ca:\n  publish_wait: 1s\n' >> "$dir/issuer.yaml"
status=0
trap 'status=$?; for one in bundles watch; do job_stop $one KILL; done; set +e; (exit $status); job_cleanup' EXIT
spiffe_start_all
host=$dir/state/host
cat > "$dir/agents.yaml" << END
trust_domain: bank.example
agents:
  - {name: alpha, owner: "x@bank.example", hosts: ["ek:$(job_host_id)"], workload: {uid: $user}, key: tpm, profile: trading}
END
ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
wait_for 60 job_settled alpha
job_start_streams() {
    follow bundles $user bundles
    follow watch $user watch
    wait_for 30 lines bundles 1
    wait_for 30 lines watch 1
}
wait_for 30 test -S "$socket"
job_start_streams
changed_ms() { stat -c %.3Z "$1" | tr -d .; } # when the file was put in place
# after LOG FILE: milliseconds from the file's change to the last message
after() { echo $(($(last "$1" .ms) - $(changed_ms "$2"))); }
best=100000
note() { # note WHAT MS: negative where the file was touched once more since
    [ "$2" -lt 0 ] || [ "$2" -ge "$best" ] || best=$2
    echo "   $1: $2 ms after the host's file"
}
soon() { [ "$best" -lt 1000 ] || job_fail "$1: no push within a second; the best after $best ms"; best=100000; }

# ---- rotations ----
for _ in 1 2 3; do
    key=$(last watch .key)
    ctl agent rotate alpha > /dev/null
    other_key() { [ "$(last watch .key)" != "$key" ]; }
    wait_for 60 other_key
    note rotation "$(after watch "$host/agents/alpha")"
    wait_for 60 job_settled alpha
done
soon "a rotation"

# ---- a revocation list ----
for _ in 1 2 3; do
    list=$(last bundles '.crl[0]') serial=$(job_serial alpha)
    ctl cert revoke "$serial" --reason superseded > /dev/null
    other_list() { [ "$(last bundles '.crl[0]')" != "$list" ]; }
    wait_for 60 other_list
    note "revocation list" "$(after bundles "$host/crl.pem")"
    fresh() { [ "$(job_serial alpha)" != "$serial" ] && job_settled alpha; }
    wait_for 60 fresh
done
soon "a revocation list"
ok "rotations and revocation lists are pushed within a second"

# ---- the bundle grows, and shrinks ----
job_stop watch KILL # it may have ended: for a moment there was no certificate
rm "$dir/log/watch.log"
follow watch $user watch
wait_for 30 last_is watch .bundle 1
roots() { last_is bundles '.roots["spiffe://bank.example"]' "$1"; }
signs() { as $user sign > "$dir/tmp/sign" 2>&1 && [ "$(jq -r .verified "$dir/tmp/sign")" = true ]; }
step_is() { [ "$(ctl --json ca rotate workload "${@:2}" | jq -r .step)" = "$1" ]; }
first=$(last bundles '.bundles["spiffe://bank.example"]')
step_is prepared --start --new-root || job_fail "no new root"
step_is published || job_fail "the new root is not published"
wait_for 60 roots 2
note "a second root" "$(after bundles "$host/bundle.pem")"
second_of_watch() { last_is watch .bundle 2; }
wait_for 30 second_of_watch
wait_for 60 step_is activated || job_fail "not activated: $(ctl ca rotate workload)"
serial=$(job_serial alpha)
ctl agent rotate alpha > /dev/null
renewed() { [ "$(job_serial alpha)" != "$serial" ] && job_settled alpha; }
wait_for 60 renewed
wait_for 30 signs
outgoing=$(ctl --json ca status | jq -r '.generations[] | select(.state == "outgoing" and .kind == "workload") | .id')
ctl ca retire "$outgoing" --force > /dev/null
wait_for 60 roots 1
note "the first root goes" "$(after bundles "$host/bundle.pem")"
soon "the bundle"
only_one() { last_is watch .bundle 1; }
wait_for 30 only_one
[ "$(last bundles '.bundles["spiffe://bank.example"]')" != "$first" ] || job_fail "the root that went is the one that is served"
[ "$(last bundles '.bundles["spiffe://bank.example"]')" = "$(openssl x509 -in "$host/bundle.pem" -outform DER | sha256sum | cut -d' ' -f1)" ] ||
    job_fail "another root than the host's"
wait_for 30 signs
ok "a second root is pushed, and that the first has gone; signatures hold by what is served"
[ "$(grep -c '"code"' "$dir/log/bundles.log")" = 0 ] || { cat "$dir/log/bundles.log"; job_fail "the stream ended meanwhile"; }
for one in bundles watch; do job_stop $one KILL; done
job_stop spiffed
! grep -lE 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "pushes: all held"
