#!/usr/bin/env bash
# Two of a kind: a second attestd, attestd-keyd or attest-issuerd on the same state or the same sockets is
# refused with exit code 1 and a sentence that says why, and the first does not notice.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/fault.sh
. "$ATT_SOURCE_DIR/tests/support/fault.sh"
job_setup
trap 'status=$?; job_stop keyd2 KILL; set +e; (exit "$status"); job_cleanup' EXIT
job_make_tpm
job_write_conf
job_start_all
agents=(alpha)
job_enrolled_with "${agents[@]}"

# second_conf NAME: attestd.yaml with a state_dir and a run_dir of its own, changed by further sed scripts
second_conf() {
    local name=$1
    shift
    sed -e "s,^state_dir:.*,state_dir: $dir/state2," -e "s,^run_dir:.*,run_dir: $dir/run2," "$@" \
        "$dir/attestd.yaml" > "$dir/$name.yaml"
}
mkdir -p "$dir/run2" "$dir/issuer-run2"

# ---- attestd ----
fault_refused "another attestd \(pid $(job_pid attestd)\) uses this state_dir" "$bin/attestd" --config "$dir/attestd.yaml"
fault_refused "another attestd \(pid $(job_pid attestd)\) uses this state_dir" "$bin/attestd" --config "$dir/attestd.yaml" --run-dir "$dir/run2"
second_conf same-run -e "s,^run_dir:.*,run_dir: $dir/run,"
fault_refused 'control\.sock.*another process' "$bin/attestd" --config "$dir/same-run.yaml"
ctl status > /dev/null || job_fail "the first attestd's control socket is gone"
ok "a second attestd: state_dir, run_dir"

# ---- attestd-keyd ----
fault_refused "another keyd uses this folder" "$bin/attestd-keyd" --config "$dir/attestd.yaml"
fault_refused 'keyd\.sock: another process serves this socket' "$bin/attestd-keyd" --config "$dir/same-run.yaml"
[ -S "$dir/run/keyd/keyd.sock" ] || job_fail "the first keyd's socket is gone"
ok "a second attestd-keyd: state_dir, run_dir"

# ---- attestd-keyd with a state of its own on the same TPM: it may, but the first goes on ----
second_conf same-tpm
job_start keyd2 "$bin/attestd-keyd" --config "$dir/same-tpm.yaml"
fault_rotates "${agents[@]}"
job_stop keyd2
fault_rotates "${agents[@]}"
ok "another keyd on the same TPM, with a state of its own: the first goes on"

# ---- attest-issuerd ----
fault_refused "another attest-issuerd .*$dir/issuer" "$bin/attest-issuerd" --config "$dir/issuer.yaml"
sed -e "s,^run_dir:.*,run_dir: $dir/issuer-run2," -e 's,^listen:.*,listen: "127.0.0.1:0",' "$dir/issuer.yaml" > "$dir/issuer2.yaml"
fault_refused "another attest-issuerd .*$dir/issuer" "$bin/attest-issuerd" --config "$dir/issuer2.yaml"
"$bin/attest-issuerd" --config "$dir/issuer.yaml" --check > "$dir/tmp/check" 2>&1 || { cat "$dir/tmp/check"; job_fail "--check beside a running issuer"; }
ok "a second attest-issuerd: state_dir; --check beside a running one"
# A state of its own, but the first one's sockets.
sed -e "s,^state_dir:.*,state_dir: $dir/issuer2," "$dir/issuer.yaml" > "$dir/issuer3.yaml"
"$bin/attest-issuerd" --config "$dir/issuer3.yaml" init > "$dir/log/init2.log" 2>&1
fault_refused 'cannot listen|another process' "$bin/attest-issuerd" --config "$dir/issuer3.yaml"
sed -e 's,^listen:.*,listen: "127.0.0.1:0",' "$dir/issuer3.yaml" > "$dir/issuer4.yaml"
fault_refused 'admin\.sock.*another process' "$bin/attest-issuerd" --config "$dir/issuer4.yaml"
ctl issuer status > /dev/null || job_fail "the first issuer's admin socket is gone"
ok "a second attest-issuerd: port, admin socket"

fault_rotates "${agents[@]}"
fault_whole "${agents[@]}"
echo "second processes: all refused"
