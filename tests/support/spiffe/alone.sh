# shellcheck shell=bash
# spiffed with nobody whom it could ask, after job_setup: start_alone [OPTION…]; $socket is where it serves.
start_alone() {
    # shellcheck disable=SC2154 # dir and bin come from job.sh
    cat > "$dir/attestd.yaml" << YAML
issuer: {url: "https://127.0.0.1:1/acme", ca_file: $dir/none.pem}
tpm: {tcti: "swtpm:path=$dir/none"}
state_dir: $dir/state
run_dir: $dir/run
control_group: none
YAML
    socket=$dir/run/public/api.sock
    mkdir -p "$dir/run/public"
    job_start spiffed "$bin/attestd-spiffed" --config "$dir/attestd.yaml" "$@"
    wait_for 30 test -S "$socket"
}
