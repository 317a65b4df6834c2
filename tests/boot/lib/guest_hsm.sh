# shellcheck shell=bash
# shellcheck disable=SC2154,SC2016 # from tests/boot/guest; what stands in single quotes is for the guest's shell
# tests/boot/guest: agents with keys in two HSM modules (SoftHSM), served by the packaged units attestd-hsmd.service and
# attestd-hsmd@second.service under systemd and AppArmor, their PINs as systemd credentials. guest has its functions, the
# package softhsm2 in the guest, and `keys: [tpm, hsm]` in the issuer's profile.

# As docs/OPERATIONS.md has it: a token, its PIN, a drop-in, the configuration.
guest_hsm_module() { # NAME CREDENTIAL UNIT: prints the token's serial number
    guest "set -e
        install -d -o attestd-hsm -g attestd-ipc -m 700 /var/lib/softhsm/$1
        printf 'directories.tokendir = /var/lib/softhsm/$1\nobjectstore.backend = file\n' > /etc/softhsm/attestd-$1.conf
        chmod 644 /etc/softhsm/attestd-$1.conf
        chmod 755 /etc/softhsm /var/lib/softhsm
        SOFTHSM2_CONF=/etc/softhsm/attestd-$1.conf setpriv --reuid attestd-hsm --regid attestd-ipc --clear-groups \
            softhsm2-util --init-token --free --label $1 --pin 4711$1 --so-pin 08154711 > /dev/null
        (umask 077 && mkdir -p /etc/credstore && echo 4711$1 > /etc/credstore/$2)
        mkdir -p /etc/systemd/system/$3.d
        printf '[Service]\nEnvironment=SOFTHSM2_CONF=/etc/softhsm/attestd-$1.conf\nReadWritePaths=/var/lib/softhsm/$1\n' > /etc/systemd/system/$3.d/softhsm.conf
        ls /var/lib/softhsm/$1 | tr -d - | cut -c 17-" | tail -n 1
}
guest_hsm_conf() { # SERIAL SERIAL
    guest "cat >> /etc/attestd/attestd.yaml << 'END'
hsm:
  module: /usr/lib/softhsm/libsofthsm2.so
  token: \"pkcs11:token=default;serial=$1\"
  files: [ /etc/softhsm/attestd-default.conf, /var/lib/softhsm/default ]
hsms:
  - name: second
    module: /usr/lib/softhsm/libsofthsm2.so
    token: \"pkcs11:token=second;serial=$2\"
    files: [ /etc/softhsm/attestd-second.conf, /var/lib/softhsm/second ]
END
for program in attestd /usr/libexec/attestd/attestd-keyd /usr/libexec/attestd/attestd-hsmd '/usr/libexec/attestd/attestd-hsmd --module second'; do
    \$program --check || exit 1
done"
}
guest_hsm_entries() {
    cat >> "$work/agents.yaml" << END
  - { name: in-default, owner: test@bank.example, hosts: [ "ek:$ek" ], workload: { unit: in-default.service }, key: hsm, profile: trading }
  - { name: in-second, owner: test@bank.example, hosts: [ "ek:$ek" ], workload: { unit: in-second.service }, key: hsm, hsm: second, profile: trading }
END
    ictl entry apply -f "$work/agents.yaml" > /dev/null
}
guest_hsm_signs() { # AGENT...: a service of that name does, and its certificate's key verifies it
    local name
    for name in "$@"; do
        by_unit "$name" > "$work/answer" || fail "$name.service does not sign: $(cat "$work/answer")"
        good "$name" < <(tail -n 1 "$work/answer")
    done
}
guest_hsm_modules_are() { status_is '[.hsm.modules[] | "\(.name)=\(.state)"] | join(" ") == "'"$1"'"'; }

# After the work, before the third boot.
guest_hsm_case() {
    local first second
    first=$(guest_hsm_module default attestd.hsm-pin attestd-hsmd.service) || fail "the token: $first"
    second=$(guest_hsm_module second attestd.hsm-pin.second attestd-hsmd@second.service) || fail "the second token: $second"
    guest_hsm_conf "$first" "$second" > "$work/answer" || fail "configuration: $(cat "$work/answer")"
    guest 'systemctl daemon-reload && systemctl enable --now attestd-hsmd attestd-hsmd@second && systemctl restart attestd-keyd' > "$work/answer" 2>&1 ||
        fail "attestd-hsmd: $(cat "$work/answer"; guest 'journalctl -b --no-pager -u "attestd-hsmd*" | tail -n 20')"
    wait_for 60 guest_hsm_modules_are "default=ready second=ready"
    guest_hsm_entries
    wait_for 120 guest 'test -e /var/lib/attestd/host/agents/in-default/chain.pem && test -e /var/lib/attestd/host/agents/in-second/chain.pem'
    guest_hsm_signs in-default in-second
    local unit
    for unit in attestd-hsmd attestd-hsmd@second; do
        confined "$(pid_of $unit)" attestd-hsm
        [ "$(guest "cat /proc/$(pid_of $unit)/attr/current")" = "attestd-hsmd (enforce)" ] || fail "AppArmor of $unit: $(guest "cat /proc/$(pid_of $unit)/attr/current")"
    done
    # One module's user reads no other's PIN, nor keyd's or attestd's own files.
    [ "$(guest 'stat -c "%U %G %a" /run/attestd/hsm /run/attestd/hsm/default /run/attestd/hsm/second/hsm.sock' | tr '\n' ' ')" = "root root 755 attestd-hsm attestd-ipc 750 attestd-hsm attestd-ipc 660 " ] ||
        fail "sockets: $(guest 'ls -lR /run/attestd/hsm')"
    ok "agents in two HSM modules sign; each in a unit of its own, confined, PIN as a credential; systemd-analyze security: $(exposure attestd-hsmd)"

    guest 'kill -9 $(systemctl show -p MainPID --value attestd-hsmd)'
    guest_hsm_signs in-second
    wait_for 60 guest_hsm_modules_are "default=ready second=ready"
    guest_hsm_signs in-default
    guest 'systemctl stop attestd-hsmd@second'
    ! by_unit in-second > "$work/answer" 2>&1 || fail "in-second signs without its module"
    guest_hsm_signs in-default
    guest 'systemctl start attestd-hsmd@second'
    wait_for 60 guest_hsm_modules_are "default=ready second=ready"
    guest_hsm_signs in-second
    ok "kill -9 of one module's process, a stop of the other's: each time the other one signs on"

    guest 'systemctl restart attestd-hsmd'
    wait_for 60 guest_hsm_modules_are "default=ready second=ready"
    guest_hsm_signs in-default in-second
    guest 'systemctl restart attestd-keyd'
    wait_for 60 guest_hsm_modules_are "default=ready second=ready"
    guest_hsm_signs in-default in-second
    ok "systemctl restart of a module's process, then of attestd-keyd: both modules' keys sign"
    # The token, not the folder that the unit has by ReadWritePaths=.
    guest 'mkdir /var/lib/softhsm/away && mv /var/lib/softhsm/default/* /var/lib/softhsm/away/'
    wait_for 60 guest_hsm_modules_are "default=tokenGone second=ready"
    ! by_unit in-default > "$work/answer" 2>&1 || fail "in-default signs without its token"
    guest_hsm_signs in-second
    guest 'mv /var/lib/softhsm/away/* /var/lib/softhsm/default/'
    wait_for 60 guest_hsm_modules_are "default=ready second=ready"
    guest_hsm_signs in-default
    ok "a token that is gone: tokenGone, the other module's agent signs on; back again, it signs"
}
# After the third boot: by themselves.
guest_hsm_rebooted() {
    wait_for 120 guest_hsm_modules_are "default=ready second=ready"
    guest_hsm_signs in-default in-second
    ok "after the reboot both modules serve their keys"
}
