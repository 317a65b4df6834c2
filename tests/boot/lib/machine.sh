# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # the parts of one script: work and dir come from the script
# Machines: a folder each, $work/vm/NAME, with a TPM (swtpm, EK certificate), the firmware's variables and a disk. One runs
# at a time. The firmware knows Secure Boot, but keeps its variables without SMM. The disk has no cache that a power cut could lose (writethrough):
# what the guest's kernel had not written is lost.

qemu='' hand_fd=''

# wait_for SECONDS COMMAND...: as in job.sh, but asking twice a second: what asks takes the processor from the emulation.
wait_for() {
    local until=$(($(date +%s) + $1 * ${JOB_PATIENCE:-4}))
    shift
    until "$@" > "$dir/tmp/wait" 2>&1; do
        if [ "$(date +%s)" -ge "$until" ]; then
            echo "waited in vain for: $*"
            cat "$dir/tmp/wait"
            return 1
        fi
        sleep 0.5
    done
}

# machine_make NAME [secureboot | plain]
machine_make() {
    local vm=$work/vm/$1
    mkdir -p "$vm/tpm"
    swtpm_make "$vm/tpm"
    machine_firmware "$1" "${2:-secureboot}"
    swtpm_start "$vm/tpm"
    # As the maker's certificate tells it before the machine is there (P-384: what attestd prefers here).
    TPM2TOOLS_TCTI=$(cat "$vm/tpm/tcti") tpm2_nvread 0x1c00016 2> /dev/null | openssl x509 -inform DER -noout -pubkey |
        openssl pkey -pubin -outform DER | sha256sum | cut -d' ' -f1 > "$vm/ek"
    swtpm_stop "$vm/tpm"
    rm -rf "$work/seed"
    mkdir -p "$work/seed/pcr-policies"
    printf 'log: text\nlog_level: info\ncontrol_group: none\n%s' "${machine_conf:-}" > "$work/seed/attestd.yaml"
    truncate -s 64M "$vm/disk"
    mkfs.ext4 -q -O verity -b 4096 -d "$work/seed" "$vm/disk"
}

# Variables with Secure Boot on under OVMF's test keys, or without any key.
machine_firmware() {
    case $2 in
    secureboot) cp /usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd "$work/vm/$1/vars.fd" ;;
    plain) cp /usr/share/OVMF/OVMF_VARS_4M.fd "$work/vm/$1/vars.fd" ;;
    esac
}

# machine_put NAME PATH FILE: onto the disk of a machine that is off
machine_put() {
    e2fsck -fy "$work/vm/$1/disk" > "$work/fsck" 2>&1 || [ $? -le 1 ] || fail "e2fsck: $(cat "$work/fsck")"
    printf 'cd %s\nrm %s\nwrite %s %s\n' "$(dirname "$2")" "$(basename "$2")" "$3" "$(basename "$2")" | debugfs -w -f - "$work/vm/$1/disk" > "$work/debugfs" 2>&1 || fail "debugfs: $(cat "$work/debugfs")"
}

machine_tpm_start() { # as QEMU wants it: it sends the data's socket over the control channel
    swtpm socket --tpm2 --tpmstate "dir=$1/tpm/state" --ctrl "type=unixio,path=$1/tpm/ctrl" \
        --pid "file=$1/tpm/qemu-pid" --log "file=$1/tpm/swtpm.log,truncate" --daemon
}

# machine_on NAME ESP [QEMU OPTIONS...]: power; the ticket, if the machine has one, is a credential over fw_cfg
machine_on() {
    local vm=$work/vm/$1 esp=$2 ticket=()
    shift 2
    machine=$vm
    [ ! -e "$vm/ticket" ] || ticket=(-fw_cfg "name=opt/io.systemd.credentials/attestd.ticket,file=$vm/ticket")
    machine_tpm_start "$vm"
    rm -f "$work/hand.in" "$work/hand.out"
    : > "$vm/console" # of this boot
    mkfifo "$work/hand.in" "$work/hand.out"
    booted_at=$(now_ms)
    qemu-system-x86_64 -machine q35,smm=off -accel tcg -cpu Nehalem,+rdrand -m 384 -display none -monitor none -no-reboot \
        -drive if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd \
        -drive "if=pflash,format=raw,unit=1,file=$vm/vars.fd" \
        -chardev "socket,id=tpm,path=$vm/tpm/ctrl" -tpmdev emulator,id=tpm0,chardev=tpm -device tpm-crb,tpmdev=tpm0 \
        -drive "if=none,id=esp,format=raw,readonly=on,file=$esp" -device virtio-blk-pci,drive=esp,bootindex=0 \
        -drive "if=none,id=disk,format=raw,cache=writethrough,file=$vm/disk" -device virtio-blk-pci,drive=disk \
        -netdev user,id=net -device virtio-net-pci,netdev=net,romfile= -device virtio-rng-pci \
        -device virtio-serial-pci -chardev "pipe,id=hand,path=$work/hand" -device virtserialport,chardev=hand,name=hand \
        -serial "file:$vm/console" "${ticket[@]}" "$@" < /dev/null > "$work/qemu.log" 2>&1 &
    qemu=$!
    [ -z "$hand_fd" ] || exec {hand_fd}<&-
    exec {hand_fd}<> "$work/hand.out"
}

# machine_up: until its first process listens. A boot takes 20 s of processor time, on a laden machine many minutes of the
# wall clock: what ends a wait in vain is the processor time, or an hour.
machine_up() {
    local line='' n=0 spent
    while [ "$line" != up ]; do
        IFS= read -r -t 1 -u "$hand_fd" line && continue
        spent=$(machine_spent) || fail "QEMU ended: $(cat "$work/qemu.log"; tail -n 20 "$machine/console")"
        n=$((n + 1))
        [ $((n % 120)) -ne 0 ] || say "      booting: $spent s of processor time in $(since "$booted_at")"
        [ "$spent" -ge 300 ] || [ $n -ge 3600 ] || continue
        fail "the guest did not come up within $spent s of processor time, $(since "$booted_at")"
    done
}
machine_spent() { # QEMU's processor time in seconds
    awk -v hz="$(getconf CLK_TCK)" '{ print int(($14 + $15) / hz) }' "/proc/$qemu/stat" 2> /dev/null
}

# machine_cut: power off in mid-flight, TPM and all
machine_cut() {
    [ -n "$qemu" ] || return 0
    kill -9 "$qemu" 2> /dev/null || true
    wait "$qemu" 2> /dev/null || true
    qemu=''
    [ ! -s "$machine/tpm/qemu-pid" ] || kill -9 "$(cat "$machine/tpm/qemu-pid")" 2> /dev/null || true
    rm -f "$machine/tpm/qemu-pid" "$machine/tpm/ctrl"
}

# guest COMMAND: its output; its status
guest() {
    local line
    printf '%s\n' "$(base64 -w0 <<< "$1")" > "$work/hand.in"
    IFS= read -r -t 600 -u "$hand_fd" line || fail "no answer from the guest to: $1"
    base64 -d <<< "${line% *}"
    return "${line##* }"
}

guest_off() { # in order
    guest 'sync; umount /state || mount -o remount,ro /state; sync' > /dev/null || true
    machine_cut
}
