# shellcheck shell=sh
# A private software TPM in a folder: source this file, then
#   swtpm_make DIR     make it (EK and platform certificates by a CA of its own in DIR/ca)
#   swtpm_start DIR    start it; DIR/tcti holds the TCTI string
#   swtpm_stop DIR     power off (stop and start is a reset)
# and find DIR/ek-roots.pem, the EK certificates' root and intermediate. The socket serves one client
# at a time.

swtpm_make() {
    mkdir -p "$1/state" "$1/ca" || return 1
    _swtpm_dir=$(cd "$1" && pwd -P) || return 1
    # A socket's path has at most 107 bytes.
    if [ "$(printf %s "$_swtpm_dir/sock.ctrl" | wc -c)" -gt 107 ]; then
        echo "swtpm_make: $_swtpm_dir: the path is too long for a unix socket" >&2
        return 1
    fi
    cat >"$_swtpm_dir/localca.conf" <<EOF
statedir = $_swtpm_dir/ca
signingkey = $_swtpm_dir/ca/signkey.pem
issuercert = $_swtpm_dir/ca/issuercert.pem
certserial = $_swtpm_dir/ca/certserial
EOF
    cat >"$_swtpm_dir/localca.options" <<EOF
--platform-manufacturer attestd
--platform-version 1
--platform-model swtpm
EOF
    cat >"$_swtpm_dir/setup.conf" <<EOF
create_certs_tool = $(command -v swtpm_localca)
create_certs_tool_config = $_swtpm_dir/localca.conf
create_certs_tool_options = $_swtpm_dir/localca.options
active_pcr_banks = sha256
EOF
    if ! swtpm_setup --tpm2 --tpm-state "$_swtpm_dir/state" --config "$_swtpm_dir/setup.conf" \
        --create-ek-cert --create-platform-cert --lock-nvram --not-overwrite \
        >"$_swtpm_dir/setup.log" 2>&1; then
        cat "$_swtpm_dir/setup.log" >&2
        return 1
    fi
    cat "$_swtpm_dir/ca/issuercert.pem" "$_swtpm_dir/ca/swtpm-localca-rootca-cert.pem" \
        >"$_swtpm_dir/ek-roots.pem" || return 1
    printf 'swtpm:path=%s/sock\n' "$_swtpm_dir" >"$_swtpm_dir/tcti"
}

swtpm_start() {
    _swtpm_dir=$(cd "$1" && pwd -P) || return 1
    swtpm_stop "$_swtpm_dir"
    swtpm socket --tpm2 --server "type=unixio,path=$_swtpm_dir/sock" \
        --ctrl "type=unixio,path=$_swtpm_dir/sock.ctrl" --flags not-need-init,startup-clear \
        --tpmstate "dir=$_swtpm_dir/state" --pid "file=$_swtpm_dir/pid" \
        --log "file=$_swtpm_dir/swtpm.log,truncate" --daemon || return 1
    _swtpm_n=0
    # Looked up, not tried out: swtpm turns a client away while it still has another.
    until [ -s "$_swtpm_dir/pid" ] &&
        [ "$(grep -cE " 00010000 .* $_swtpm_dir/sock(\\.ctrl)?\$" /proc/net/unix)" = 2 ]; do
        _swtpm_n=$((_swtpm_n + 1))
        if [ "$_swtpm_n" -gt 100 ]; then
            echo "swtpm_start: no socket in $_swtpm_dir" >&2
            return 1
        fi
        sleep 0.05
    done
}

swtpm_stop() {
    [ -s "$1/pid" ] || return 0
    _swtpm_pid=$(cat "$1/pid")
    # Only a process that is the swtpm of this folder.
    if tr '\0' ' ' <"/proc/$_swtpm_pid/cmdline" 2>/dev/null | grep -qF "$(cd "$1" && pwd -P)/sock"; then
        kill -9 "$_swtpm_pid" 2>/dev/null
        while kill -0 "$_swtpm_pid" 2>/dev/null; do
            sleep 0.02
        done
    fi
    rm -f "$1/pid" "$1/sock" "$1/sock.ctrl"
}
