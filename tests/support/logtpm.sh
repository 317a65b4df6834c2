# shellcheck shell=bash
# shellcheck disable=SC2154 # from job.sh and auditlog.sh
# A TPM that signs the issuer's audit log: source this after auditlog.sh; then logtpm_make (before log_setup's issuer is
# started again) and logtpm_start. $tpmkey: the TPM's verifier key.

logtpm_make() { # logtpm_make FOLDER: a swtpm of its own
    # shellcheck source=../../scripts/lib/swtpm.sh
    . "$ATT_SOURCE_DIR/scripts/lib/swtpm.sh"
    swtpm_make "$1" && logtpm_power "$1"
}
# swtpm in the foreground, so that job_cleanup ends it
logtpm_power() { # logtpm_power FOLDER
    job_start "swtpm-${1##*/}" swtpm socket --tpm2 --tpmstate "dir=$1/state" --server "type=unixio,path=$1/sock" \
        --ctrl "type=unixio,path=$1/sock.ctrl" --flags not-need-init,startup-clear
    wait_for 20 test -S "$1/sock"
}
logtpm_conf() { # logtpm_conf FOLDER STATE: the section of issuer.yaml
    cat << END
log_tpm:
  tcti: "$(cat "$1/tcti")"
  dir: $dir/tpm-run
  state_dir: $2
  counter_interval: ${logtpm_interval:-60s}
END
}
logtpm_start() { job_start logtpm "$bin/attest-issuerd-tpm" --config "$dir/issuer.yaml"; }
tpmkey=
log_tpm_verify() { log_verify "$@" --tpm-key "${tpmkey:-$dir/issuer/audit.tpm.vkey}"; }
log_counter() { sed -n '4s/^tpm-counter //p' "$1/checkpoint"; }
