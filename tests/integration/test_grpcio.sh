#!/usr/bin/env bash
# The matrix of gRPC's own Python library (python3-grpcio), its stubs generated from the published protocols, with real
# processes: every method with the header missing, doubled or with another value, for nobody's agent, for one whose key is
# in the TPM and for one who is given a key; wrong audiences and tokens, malformed, compressed and too long requests, the
# methods that answer UNIMPLEMENTED, deadlines, cancelled streams, a hundred calls and streams at once, rotations, health, reflection.
set -euo pipefail
export JOB_KEY=exportable JOB_LIFETIME=10m
# shellcheck disable=SC2154 # dir, bin and id_port come from job.sh and port_into
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
# shellcheck source=../support/spiffe.sh
. "$ATT_SOURCE_DIR/tests/support/spiffe.sh"
spiffe_setup matrix.py hpack workload.proto signer.proto health.proto reflection_v1alpha.proto
user=62001 tpm_user=62004 stranger=62005 api=https://api.example
job_make_tpm
job_write_conf
id_port=
port_into id_port
printf 'jwt:\n  issuer: "https://127.0.0.1:%s"\n  listen: "127.0.0.1:%s"\n' "$id_port" "$id_port" >> "$dir/issuer.yaml"
status=0
trap 'status=$?; job_stop follow KILL; set +e; (exit $status); job_cleanup' EXIT
job_start_keyd() { job_start keyd "$bin/attestd-keyd" --config "$dir/attestd.yaml" --signer $service --exporter $service; }
spiffe_start_all
{
    printf 'trust_domain: bank.example\nagents:\n'
    printf '  - {name: %s, owner: "x@bank.example", hosts: ["ek:'"$(job_host_id)"'"], workload: {uid: %s}, key: %s, profile: trading, audiences: ["'$api'"]}\n' \
        alpha $user exportable hard $tpm_user tpm
} > "$dir/agents.yaml"
ctl entry apply -f "$dir/agents.yaml" > "$dir/tmp/apply" 2>&1 || { cat "$dir/tmp/apply"; job_fail "entry apply"; }
for name in alpha hard; do wait_for 60 job_settled $name; done

matrix() { # matrix WHO USER AT-LEAST: every check holds, and so many there are
    (client "$2" "$1" $api) > "$dir/tmp/$1" 2> "$dir/tmp/$1.err" || {
        jq -c 'select(.ok == false)' "$dir/tmp/$1"
        cat "$dir/tmp/$1.err"
        job_fail "$1"
    }
    checks=$(wc -l < "$dir/tmp/$1")
    [ "$checks" -ge "$3" ] || job_fail "$1: $checks checks, expected $3"
    ok "$1: $checks checks"
}
matrix stranger $stranger 45
matrix agent $tpm_user 20
matrix exportable $user 10

leaf() { openssl x509 -in "$dir/state/host/agents/alpha/chain.pem" -outform DER | sha256sum | cut -d' ' -f1; }
follow follow $user follow 4
current() { [ "$(last follow .leaf)" = "$(leaf)" ]; }
wait_for 30 lines follow 1
for n in 1 2 3; do
    before=$(leaf)
    ctl agent rotate alpha > /dev/null
    rotated() { [ "$(leaf)" != "$before" ] && current; }
    wait_for 60 rotated || { cat "$dir/log/follow.log"; job_fail "rotation $n"; }
done
ok "one stream had each of three rotations"
job_stop spiffed
! grep -E 'ERROR: AddressSanitizer|runtime error|LeakSanitizer' "$dir"/log/*.log || job_fail "sanitizer"
echo "grpcio $(/usr/bin/python3 -c 'import grpc; print(grpc.__version__)'): all held"
