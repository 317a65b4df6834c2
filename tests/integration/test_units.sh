#!/usr/bin/env bash
# The units, users, folders and AppArmor profiles as files: what systemd and apparmor_parser say of them without running them.
# systemd's exposure of each service is at most 2.0. With packages in build/deb and lintian here: what lintian says of them.
set -euo pipefail
: "${ATT_SOURCE_DIR:?}" "${ATT_BIN_DIR:?}"
command -v systemd-analyze > /dev/null || { echo "skipped: no systemd-analyze"; exit 77; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/att-units.XXXXXX")
trap 'rm -rf "$dir"' EXIT
ok() { echo "ok: $*"; }
fail() {
    echo "FAIL: $*"
    exit 1
}
units=$ATT_SOURCE_DIR/scripts/systemd
grep -q '^SystemCallFilter=~.*process_vm_readv process_vm_writev' "$ATT_SOURCE_DIR/scripts/systemd/attestd-whod.service" ||
    { echo "attestd-whod.service allows other processes' memory"; exit 1; }
services=(attestd attestd-keyd attestd-whod attestd-tokend attestd-spiffed attestd-hsmd attest-issuerd attest-issuerd-hsm attest-issuerd-tpm)
[ "$(find "$units" -name '*.service' | wc -l)" = $((${#services[@]} + 1)) ] || fail "a service that this test does not know"

# ---- one HSM module or several: one unit -------------------------------------------------------------------
# The template is the single unit, but for the module's name.
of_module() { # FILE NAME: what the unit says, without remarks
    sed -e '/^#/d; /^Description=/d' -e "s/%i/$2/g" -e "s/^\(LoadCredential=attestd.hsm-pin\):.*/\1/" "$1"
}
diff <(of_module "$units/attestd-hsmd.service" default) <(of_module "$units/attestd-hsmd@.service" default) ||
    fail "attestd-hsmd.service and attestd-hsmd@.service differ"
grep -qx 'LoadCredential=attestd.hsm-pin:attestd.hsm-pin.%i' "$units/attestd-hsmd@.service" || fail "modules share a PIN"
grep -qx 'RuntimeDirectory=attestd/hsm/%i' "$units/attestd-hsmd@.service" || fail "modules share a folder"
ok "attestd-hsmd@.service is attestd-hsmd.service for a module by name"

# ---- exposure --------------------------------------------------------------------------------------------
exposure() { # exposure FILE: the figure, without systemd running
    SYSTEMD_LOG_LEVEL=err systemd-analyze security --offline=yes --no-pager "$1" 2> /dev/null |
        sed -n 's/^.*Overall exposure level for [^:]*: \([0-9.]*\).*/\1/p'
}
too_much() { ! awk -v e="$1" 'BEGIN { exit !(e != "" && e <= 2.0) }'; }
for service in "${services[@]}"; do
    figure=$(exposure "$units/$service.service")
    ! too_much "$figure" || fail "$service.service: exposure \"$figure\", 2.0 at most"
    printf '    %-16s %s\n' "$service" "$figure"
done
# The figure does move: without its filters and name spaces the same service is over the limit.
mkdir "$dir/bare"
grep -vE '^(SystemCall|Protect|Private|Restrict|NoNew|CapabilityB)' "$units/attestd-keyd.service" > "$dir/bare/attestd-keyd.service"
too_much "$(exposure "$dir/bare/attestd-keyd.service")" || fail "a service without a sandbox passes"
ok "systemd-analyze security: each service at most 2.0"

# ---- what every service has --------------------------------------------------------------------------------
for service in "${services[@]}"; do
    for line in Type=notify 'Restart=always' 'WatchdogSec=[0-9]+' 'NoNewPrivileges=yes' 'LimitCORE=0' 'User=att[a-z-]+' 'CapabilityBoundingSet=.*'; do
        grep -qxE "$line" "$units/$service.service" || fail "$service.service has no $line"
    done
done
for service in attestd attestd-keyd; do
    grep -qx 'LoadCredential=attestd.ticket' "$units/$service.service" || fail "$service.service does not take the ticket as a credential"
done
! grep -l 'LoadCredential=attestd.ticket' "$units"/*.service | grep -vE '/attestd(-keyd)?\.service$' || fail "somebody else gets the ticket"
ok "notify, restart, watchdog, a user each; the ticket is a credential of two"

# ---- verify ------------------------------------------------------------------------------------------------
mkdir "$dir/units"
for unit in "$units"/*.service "$units"/*.socket; do
    sed "s,=/usr/\(sbin\|libexec/attestd\)/,=$ATT_BIN_DIR/," "$unit" > "$dir/units/${unit##*/}"
done
verify() { SYSTEMD_UNIT_PATH=$1: systemd-analyze verify --man=no --recursive-errors=no "$2" > "$dir/verify" 2>&1 && [ ! -s "$dir/verify" ]; }
for unit in "$dir"/units/*; do
    verify "$dir/units" "$unit" || fail "systemd-analyze verify ${unit##*/}: $(cat "$dir/verify")"
done
mkdir "$dir/wrong"
cp "$dir"/units/* "$dir/wrong/"
echo 'WatchDog=1' >> "$dir/wrong/attestd.service"
sed -i 's/^NoNewPrivileges=yes/NoNewPrivilege=yes/' "$dir/wrong/attestd.service"
! verify "$dir/wrong" "$dir/wrong/attestd.service" || fail "systemd-analyze verify lets a misspelt line through"
ok "systemd-analyze verify: $(find "$dir/units" -type f | wc -l) units without a word"

# ---- users, folders ------------------------------------------------------------------------------------------
mkdir -p "$dir/root/etc"
: > "$dir/root/etc/passwd"
systemd-sysusers --root="$dir/root" "$units/attestd.sysusers" "$units/attest-issuerd.sysusers" "$units/attest-issuerd-tpm.sysusers" > "$dir/sysusers" 2>&1 || fail "systemd-sysusers: $(cat "$dir/sysusers")"
for service in "${services[@]}"; do
    user=$(sed -n 's/^User=//p' "$units/$service.service")
    grep -q "^$user:.*:/usr/sbin/nologin$" "$dir/root/etc/passwd" || fail "$service.service: no user $user without a shell"
    for group in $(sed -n 's/^\(Supplementary\)\?Groups\?=//p' "$units/$service.service"); do
        grep -q "^$group:" "$dir/root/etc/group" || fail "$service.service: no group $group"
    done
done
mkdir -p "$dir/root/run"
systemd-tmpfiles --root="$dir/root" --create "$units/attestd.tmpfiles" > "$dir/tmpfiles" 2>&1 || fail "systemd-tmpfiles: $(cat "$dir/tmpfiles")"
[ "$(id -u)" -ne 0 ] || [ "$(stat -c %a "$dir/root/run/attestd")" = 1775 ] || fail "run/attestd: $(stat -c %a "$dir/root/run/attestd")"
ok "every user and group of the units is made"

# ---- AppArmor ------------------------------------------------------------------------------------------------
if command -v apparmor_parser > /dev/null; then
    for service in "${services[@]}"; do
        program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$units/$service.service")
        named=$(sed -n 's/^AppArmorProfile=-//p' "$units/$service.service")
        name=${named:-${program##*/}} # one program may be two services, with a profile for one of them
        profile=$ATT_SOURCE_DIR/scripts/debian/apparmor/$name
        apparmor_parser --skip-kernel-load --skip-cache "$profile" > "$dir/apparmor" 2>&1 || fail "AppArmor $service: $(cat "$dir/apparmor")"
        attached=$program
        [ -z "$named" ] || attached="flags=(attach_disconnected)"
        grep -qF "profile $name $attached " "$profile" || fail "AppArmor $service is not for $program"
    done
    ok "AppArmor: a profile for each service's program, all of them compile"
else
    echo "left out: no apparmor_parser"
fi

# ---- lintian -------------------------------------------------------------------------------------------------
mapfile -t debs < <(find "$ATT_SOURCE_DIR/build/deb" -name '*.deb' 2> /dev/null)
if command -v lintian > /dev/null && [ ${#debs[@]} -gt 0 ]; then
    lintian --fail-on error,warning --allow-root "${debs[@]}" > "$dir/lintian" 2>&1 || fail "lintian: $(cat "$dir/lintian")"
    ok "lintian: ${#debs[@]} packages"
else
    echo "left out: no lintian, or no packages in build/deb"
fi
