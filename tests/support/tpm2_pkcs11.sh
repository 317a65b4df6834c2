# shellcheck shell=bash
# shellcheck disable=SC2034 # tpm2_pkcs11_serial is for who sources this
# A token "third" of tpm2-pkcs11 with a swtpm of its own. Source this after job.sh.

# tpm2_pkcs11_make FOLDER MODULE: $tpm2_pkcs11_serial, and the environment that the module needs. The TPM is job_start's
# "third-tpm".
tpm2_pkcs11_make() {
    local folder=$1 tool
    mkdir -p "$folder/state" "$folder/store" "$folder/shims"
    job_start third-tpm swtpm socket --tpm2 --tpmstate "dir=$folder/state" --server "type=unixio,path=$folder/sock" \
        --ctrl "type=unixio,path=$folder/sock.ctrl" --flags not-need-init,startup-clear
    wait_for 20 test -S "$folder/sock"
    export TPM2_PKCS11_STORE=$folder/store TPM2_PKCS11_TCTI=swtpm:path=$folder/sock TPM2_PKCS11_LOG_LEVEL=0
    # swtpm has no resource manager: what a tool leaves loaded is flushed after it.
    for tool in tpm2_createprimary tpm2_create tpm2_load tpm2_unseal; do
        printf '#!/bin/sh\n/usr/bin/%s "$@"\ncode=$?\n/usr/bin/tpm2_flushcontext -t > /dev/null\nexit $code\n' "$tool" > "$folder/shims/$tool"
        chmod 755 "$folder/shims/$tool"
    done
    tpm2_pkcs11_run tpm2_ptool init --path "$folder/store" > /dev/null
    tpm2_pkcs11_run tpm2_ptool addtoken --pid 1 --label third --sopin 08154711 --userpin 47110815 --path "$folder/store" > /dev/null
    tpm2_pkcs11_run pkcs11-tool --module "$2" --list-slots > "$folder/slots" 2> /dev/null
    for tool in -t -l -s; do
        tpm2_pkcs11_run tpm2_flushcontext "$tool"
    done
    tpm2_pkcs11_serial=$(sed -n 's/^ *serial num *: *\([^ ]*\).*/\1/p' "$folder/slots" | head -n 1)
}
tpm2_pkcs11_run() {
    local tcti=$TPM2_PKCS11_TCTI
    env TPM2TOOLS_TCTI="$tcti" TCTI="$tcti" TSS2_LOG=all+NONE PATH="${TPM2_PKCS11_STORE%/store}/shims:$PATH" "$@"
}
