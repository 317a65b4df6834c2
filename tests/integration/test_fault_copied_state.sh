#!/usr/bin/env bash
# A copy of the whole state folder on another machine (another swtpm, the same issuer): no key, no account,
# no certificate comes of it. keyd refuses by name, attestd reports it, and the first host goes on.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
job_make_tpm
job_write_conf
job_start_all
agents=(alpha)
job_enrolled_with "${agents[@]}"

wait_for 60 fault_idle "${agents[@]}" # no file comes or goes while it is copied
mkdir -p "$dir/thief/run"
swtpm_make "$dir/thief/tpm"
trap 'status=$?; job_stop thief-attestd KILL; job_stop thief-keyd KILL; swtpm_stop "$dir/thief/tpm"; set +e; (exit "$status"); job_cleanup' EXIT
swtpm_start "$dir/thief/tpm" > /dev/null
xargs -a "$dir/tmp/extends" -n 40 env TPM2TOOLS_TCTI="$(cat "$dir/thief/tpm/tcti")" tpm2_pcrextend
# Even where its EK is one that the issuer would trust.
cp "$dir/thief/tpm/ek-roots.pem" "$dir/ek-roots/thief.pem"
kill -HUP "$(job_pid issuerd)"
cp -a "$dir/state" "$dir/thief/state"
sed -e "s,$dir/state,$dir/thief/state," -e "s,$dir/run,$dir/thief/run," \
    -e "s,tcti: .*,tcti: \"$(cat "$dir/thief/tpm/tcti")\"," "$dir/attestd.yaml" > "$dir/thief/attestd.yaml"
hosts=$(ctl --json host list | jq -c '[.hosts[].id]')
issued=$(ctl --json cert list | jq '.certificates | length')
job_start thief-keyd "$bin/attestd-keyd" --config "$dir/thief/attestd.yaml"
job_start thief-attestd "$bin/attestd" --config "$dir/thief/attestd.yaml"
tctl() { "$bin/attestctl" --socket "$dir/thief/run/control.sock" "$@"; }
wait_for 30 tctl status
foreign() { [ "$(tctl --json status | jq -r .tpm.state)" = foreignTpm ]; }
wait_for 30 foreign || job_fail "state: $(tctl --json status | jq -c .tpm)"
tctl --json status | jq -e '.tpm.reason | test("sealed in another TPM")' > /dev/null || job_fail "$(tctl --json status | jq -c .tpm)"
reported() { [ "$(tctl --json status | jq -r .lastError.reason)" = foreignTpm ]; }
wait_for 30 reported || job_fail "attestd does not report it: $(tctl --json status | jq -c .lastError)"
wait_for 30 grep -aq 'keyd.failed.*foreignTpm' "$dir/log/thief-keyd.log" || job_fail "keyd's log"
ok "keyd refuses by name, attestd reports it"

fault_refused 'another TPM|foreignTpm' "$bin/attestctl" --socket "$dir/thief/run/control.sock" agent rotate alpha
fault_refused 'another TPM|foreignTpm' "$bin/attestctl" --socket "$dir/thief/run/control.sock" quote --nonce 00112233445566778899aabbccddeeff --out "$dir/thief/quote"
job_alive thief-keyd && job_alive thief-attestd || job_fail "a daemon ended"
[ "$hosts" = "$(ctl --json host list | jq -c '[.hosts[].id]')" ] || job_fail "the issuer knows another host now"
[ "$issued" = "$(ctl --json cert list | jq '.certificates | length')" ] || job_fail "the copy got a certificate"
# The key blobs: the other TPM does not load them, whoever asks.
for pem in "$dir"/thief/state/keyd/agents/*.pem; do
    ! openssl pkey -in "$pem" -noout 2> /dev/null || job_fail "openssl reads $pem"
done
cmp "$dir/state/keyd/host.pem" "$dir/thief/state/keyd/host.pem" || job_fail "the copy's host secret was made anew"
ok "no key, no account, no certificate"

job_stop thief-attestd
job_stop thief-keyd
fault_rotates "${agents[@]}"
fault_whole "${agents[@]}"
echo "copied state: nothing usable"
