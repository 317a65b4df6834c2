# shellcheck shell=bash
# shellcheck disable=SC2154,SC2016 # from tests/boot/guest; what stands in single quotes is for the guest's shell
# tests/boot/guest: every unit of the packages in force, by the kernel's word (user, capabilities, seccomp, AppArmor) and by
# systemd's (running, exposure); and the issuer's three units, with its authorities in an HSM and its log signed by the TPM.
# guest has its functions.

# What the kernel says of a process: its user, no capability, no new privileges, a seccomp filter.
confined() { # confined PID USER [CAPABILITIES]
    local said none=0000000000000000 caps=${3:-0000000000000000}
    said=$(guest "id -nu \$(sed -n 's/^Uid:\t\([0-9]*\).*/\1/p' /proc/$1/status)
        sed -n 's/^\(Cap[PEBA][a-z]*\|NoNewPrivs\|Seccomp\):\t/\1=/p' /proc/$1/status" | tr '\n' ' ')
    [ "$said" = "$2 CapPrm=$caps CapEff=$caps CapBnd=$caps CapAmb=$none NoNewPrivs=1 Seccomp=2 " ] ||
        fail "process $1: $said"
}
exposure() { guest "systemd-analyze security --no-pager $1" | sed -n 's/^.*Overall exposure level for [^:]*: \([0-9.]*\).*/\1/p'; }
# The kernel's word on AppArmor: it is confined by its own profile, which enforces.
profiled() { # profiled UNIT [PROFILE]
    local said
    said=$(guest "cat /proc/$(pid_of "$1")/attr/current")
    [ "$said" = "${2:-$1} (enforce)" ] || fail "AppArmor of $1: $said"
}
exposures=''
unit_holds() { # unit_holds UNIT USER PROFILE [CAPABILITIES]
    local said
    confined "$(pid_of "$1")" "$2" "${4:-}"
    profiled "$1" "$3"
    said=$(exposure "$1")
    # At most 2.0: one digit behind the point is what systemd prints.
    [[ $said =~ ^(1\.[0-9]|0\.[0-9]|2\.0)$ ]] || fail "systemd-analyze security $1: $said, at most 2.0 is wanted"
    exposures+=" $1 $said"
}
# The packages' services, from the packages; each has to be in the list that unit_holds was asked.
units_complete() {
    local unit
    guest 'dpkg -L attestd attest-issuerd attest-issuerd-tpm | sed -n "s,.*/systemd/system/\(.*\)\.service$,\1,p" | sort -u' > "$work/units"
    [ "$(wc -l < "$work/units")" -ge 10 ] || fail "units of the packages: $(cat "$work/units")"
    while read -r unit; do
        case $unit in *@) ;; *) unit="$unit " ;; esac # an instance stands for its template
        [[ "$exposures " == *" $unit"* ]] || fail "$unit was not looked at: $exposures"
    done < "$work/units"
}
guest_units_case() {
    unit_holds attestd attestd attestd
    unit_holds attestd-keyd attestd-keyd attestd-keyd
    unit_holds attestd-whod attestd-who attestd-whod 0000000000080004 # CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH
    unit_holds attestd-tokend attestd-tokend attestd-tokend
    unit_holds attestd-spiffed attestd-spiffed attestd-spiffed
    unit_holds attestd-hsmd attestd-hsm attestd-hsmd
    unit_holds attestd-hsmd@second attestd-hsm attestd-hsmd
    unit_holds attest-issuerd attest-issuerd attest-issuerd
    unit_holds attest-issuerd-hsm attest-issuerd-hsm attest-issuerd-hsm
    unit_holds attest-issuerd-tpm attest-issuerd-tpm attest-issuerd-tpm
    units_complete
    ok "each in its unit's user, without capabilities but whod's two, under seccomp and its own enforcing AppArmor profile; systemd-analyze security:$exposures"
}

# ---- the issuer's units: as docs/OPERATIONS.md has them, authorities in a SoftHSM token ----
guest_issuer_token() { # prints the token's serial number
    guest 'set -e
        install -d -o attest-issuerd-hsm -g attest-issuerd -m 700 /var/lib/softhsm/authorities
        printf "directories.tokendir = /var/lib/softhsm/authorities\nobjectstore.backend = file\n" > /etc/softhsm/authorities.conf
        chmod 644 /etc/softhsm/authorities.conf
        SOFTHSM2_CONF=/etc/softhsm/authorities.conf setpriv --reuid attest-issuerd-hsm --regid attest-issuerd --clear-groups \
            softhsm2-util --init-token --free --label authorities --pin 4712 --so-pin 08154711 > /dev/null
        (umask 077 && mkdir -p /etc/credstore && echo 4712 > /etc/credstore/attest-issuerd.hsm-pin)
        mkdir -p /etc/systemd/system/attest-issuerd-hsm.service.d
        printf "[Service]\nEnvironment=SOFTHSM2_CONF=/etc/softhsm/authorities.conf\nReadWritePaths=/var/lib/softhsm/authorities\n" > /etc/systemd/system/attest-issuerd-hsm.service.d/softhsm.conf
        ls /var/lib/softhsm/authorities | tr -d - | cut -c 17-' | tail -n 1
}
guest_issuer_conf() { # SERIAL
    guest "mkdir -p /etc/attestd/ek-roots
cat > /etc/attestd/ek-roots/swtpm.pem << 'END'
$(cat "$work/tpm/ek-roots.pem")
END
cat > /etc/attestd/issuer.yaml << 'END'
trust_domain: guest.example
listen: \"127.0.0.1:8443\"
url: \"https://localhost:8443/acme\"
ek:
  roots_dir: /etc/attestd/ek-roots
enrolment:
  boot: guest
  pcrs: \"sha256:$pcrs\"
  logs: [firmware]
ca:
  keys: hsm
  hsm_dir: /run/attest-issuerd-hsm
  hsm_user: attest-issuerd-hsm
hsm:
  module: /usr/lib/softhsm/libsofthsm2.so
  token: \"pkcs11:token=authorities;serial=$1\"
  files: [ /etc/softhsm/authorities.conf, /var/lib/softhsm/authorities ]
profiles:
  - name: trading
    description: agents that trade
    lifetime: 1h
    keys: [tpm]
    boot: guest
    pcrs: \"sha256:$pcrs\"
    logs: [firmware]
END"
}
inner_ctl='attestctl --issuer /run/attest-issuerd/admin.sock --json'
inner_issuer_is() { guest "$inner_ctl ca status" > "$work/ca.json" && jq -e ".hsm.state == \"$1\"" "$work/ca.json"; }
inner_issuer_keys() { # the five authorities sign: --check has each do so
    guest 'setpriv --reuid attest-issuerd --regid attest-issuerd --clear-groups attest-issuerd --check' > "$work/answer" 2>&1 || fail "attest-issuerd --check: $(cat "$work/answer")"
}
guest_issuer_case() {
    local serial
    serial=$(guest_issuer_token) || fail "the issuer's token: $serial"
    guest_issuer_conf "$serial"
    guest 'set -e
        install -d -o attest-issuerd -g attest-issuerd -m 700 /var/lib/attest-issuerd
        systemctl daemon-reload
        systemctl enable --now attest-issuerd-hsm
        setpriv --reuid attest-issuerd --regid attest-issuerd --clear-groups attest-issuerd init
        systemctl enable --now attest-issuerd' > "$work/answer" 2>&1 ||
        fail "attest-issuerd: $(cat "$work/answer"; guest 'journalctl -b --no-pager -u "attest-issuerd*" | tail -n 30')"
    wait_for 120 inner_issuer_is ready
    inner_issuer_keys
    [ "$(guest 'find /var/lib/attest-issuerd/ca -name "*.hsm" | wc -l; find /var/lib/attest-issuerd/ca -name "*-ca.key" -o -name "*-root.key" | wc -l' | tr '\n' ' ')" = "5 0 " ] ||
        fail "the issuer's keys: $(guest 'ls -l /var/lib/attest-issuerd/ca')"
    guest 'kill -9 $(systemctl show -p MainPID --value attest-issuerd-hsm)'
    wait_for 120 inner_issuer_is ready
    guest 'systemctl restart attest-issuerd'
    wait_for 120 inner_issuer_is ready
    inner_issuer_keys
    ok "the issuer's units: five authorities in a token, PIN as a credential; kill -9 of the module's process and a restart of the issuer: they sign"
}
guest_issuer_rebooted() {
    wait_for 300 inner_issuer_is ready
    inner_issuer_keys
    inner_decides
    inner_log_signed
    ok "after the reboot the issuer's units serve, too, and the TPM signs the log on"
}

# ---- the log's TPM: the package's unit, beside keyd at the same device (docs/OPERATIONS.md, "A TPM for the log") ----
inner_state=/var/lib/attest-issuerd
inner_log_is() { [ "$(guest "sed -n 2p $inner_state/audit-log/checkpoint")" -ge "$1" ]; }
inner_decides() { # a decision, which is published
    guest "$inner_ctl ticket create" > /dev/null || fail "no ticket of the guest's issuer"
    guest "$inner_ctl audit list --limit 1" > "$work/audit.json" || fail "the guest's records: $(cat "$work/audit.json")"
    wait_for 120 inner_log_is "$(jq .head.seq "$work/audit.json")"
}
inner_log_verify() { guest "attestctl audit verify $inner_state/audit-log --key $inner_state/ca/log.vkey --tpm-key $1" > "$work/answer"; }
inner_log_signed() {
    inner_log_verify "$inner_state/audit.tpm.vkey" || fail "audit verify --tpm-key: $(cat "$work/answer")"
    grep -q 'signed by the TPM, too; its counter is [1-9]' "$work/answer" || fail "audit verify --tpm-key says: $(cat "$work/answer")"
}
# attestd's rule gives the device to keyd alone: a local one lets group tss at it, too.
guest_logtpm_on() {
    guest 'set -e
        echo "SUBSYSTEM==\"tpmrm\", KERNEL==\"tpmrm[0-9]*\", GROUP=\"tss\", MODE=\"0660\"" > /etc/udev/rules.d/73-local.rules
        udevadm control --reload
        udevadm trigger -c change -s tpmrm
        udevadm settle
        printf "log_tpm: { dir: /run/attest-issuerd-tpm, user: attest-issuerd-tpm }\n" >> /etc/attestd/issuer.yaml
        systemctl enable --now attest-issuerd-tpm
        systemctl restart attest-issuerd' > "$work/answer" 2>&1 ||
        fail "attest-issuerd-tpm: $(cat "$work/answer"; guest 'journalctl -b --no-pager -u "attest-issuerd*" | tail -n 30')"
    [ "$(guest 'stat -c "%U %G %a" /dev/tpmrm0')" = "attestd-keyd tss 660" ] || fail "the device: $(guest 'ls -l /dev/tpmrm0')"
    wait_for 120 inner_issuer_is ready
}
# As it was: keyd's alone.
guest_logtpm_off() {
    guest 'set -e
        systemctl stop attest-issuerd
        systemctl disable --now attest-issuerd-tpm
        sed -i "/^log_tpm:/d" /etc/attestd/issuer.yaml
        systemctl start attest-issuerd
        rm /etc/udev/rules.d/73-local.rules
        udevadm control --reload
        udevadm trigger -c change -s tpmrm
        udevadm settle' > "$work/answer" 2>&1 || fail "without attest-issuerd-tpm: $(cat "$work/answer")"
    wait_for 120 inner_issuer_is ready
}
guest_logtpm_case() {
    local pid
    guest_logtpm_on
    pid=$(pid_of attest-issuerd-tpm)
    [ "$(guest "ls -l /proc/$pid/fd" | grep -c '/dev/tpmrm0$')" -ge 1 ] || fail "attest-issuerd-tpm has not /dev/tpmrm0 open"
    ! guest 'setpriv --reuid attest-issuerd --regid attest-issuerd --clear-groups bash -c "exec 3<> /dev/tpmrm0"' > /dev/null ||
        fail "the issuer itself can open the TPM"
    inner_decides
    inner_log_signed
    ! inner_log_verify "$inner_state/ca/log.vkey" || fail "any key is a TPM's: $(cat "$work/answer")"
    inner_issuer_keys # --check asks the process, too
    guest "kill -9 $pid"
    inner_decides
    inner_log_signed
    guest 'systemctl stop attest-issuerd-tpm'
    ! guest 'setpriv --reuid attest-issuerd --regid attest-issuerd --clear-groups attest-issuerd --check' > "$work/answer" 2>&1 ||
        fail "--check without attest-issuerd-tpm is content"
    grep -q logTpmAway "$work/answer" || fail "--check without attest-issuerd-tpm: $(cat "$work/answer")"
    guest 'systemctl start attest-issuerd-tpm'
    inner_decides
    inner_log_signed
    wait_for 60 status_is '.tpm.state == "ready"'
    ok "the log's TPM beside keyd: signed by the guest's TPM, also after kill -9 and a restart of the unit; --check names a unit that is stopped"
}
