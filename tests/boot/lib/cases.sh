# shellcheck shell=bash
# shellcheck disable=SC2154 # work, bin and wanted come from the script
# The cases in which a boot is judged by the issuer. Machine "one" is the host; "good" has to have run before the others.

matrix_prepare() {
    local names
    mapfile -t names < <(kernel_names)
    kernel=${names[0]} other_kernel=${names[1]:-}
    kernel_fetch "$kernel"
    image_sign /usr/lib/systemd/boot/efi/systemd-bootx64.efi "$work/loader.efi"
    image_sign "$(kernel_file "$kernel")" "$work/kernel.efi"
    image_initrd "$kernel" "$work/initrd"
    image_esp "$work/good.esp" "$work/kernel.efi" "$work/initrd" "$boot_options"
    # The first boot is of a machine like the others that nobody enrols: the policy is drafted from it.
    machine_make reference
    issuer_make
    machine_on reference "$work/good.esp"
    machine_up
    policy_draft "$work/good.json"
    policy_apply "$work/good.json"
    machine_cut
    ok "a policy of $(jq '.components | length' "$work/good.json") components, drafted from a boot of $kernel and signed; its boot took $(since "$booted_at")"
}

# The other kernel, which has modules of its own and so another initial file system.
other_kernel_make() {
    [ -n "$other_kernel" ] || return 1
    [ ! -e "$work/other-kernel.esp" ] || return 0
    kernel_fetch "$other_kernel"
    image_sign "$(kernel_file "$other_kernel")" "$work/other-kernel.efi"
    image_initrd "$other_kernel" "$work/other-kernel-initrd"
    image_esp "$work/other-kernel.esp" "$work/other-kernel.efi" "$work/other-kernel-initrd" "$boot_options"
}

other_kernel_policy() { # a reference boot of it
    machine_on reference "$work/other-kernel.esp"
    machine_up
    policy_draft "$work/other.json"
    machine_cut
}

need_good() {
    [ -e "$work/vm/one" ] || case_good
}
# first_boot NAME: a new host, until it has its first certificate; up_ms and first_ms since power on
first_boot() {
    machine_make "$1"
    issuer_knows "$1"
    machine_on "$1" "$work/good.esp"
    machine_up
    up_ms=$(($(now_ms) - booted_at))
    wait_for 900 newer "$1" none || fail "no certificate"
    first_ms=$(($(now_ms) - booted_at))
    wait_for 300 guest "test -e /var/lib/attestd/host/agents/$1/chain.pem"
    chain_good "$1"
    ok "$1: power on to first certificate: $(seconds "$first_ms"), of them $(seconds "$up_ms") until its first process; the chain verifies"
}
case_good() {
    [ ! -e "$work/vm/one" ] || return 0
    local n
    first_boot one
    guest_off
    [ -n "$rows" ] || return 0
    printf '%s %s\n' "$first_ms" "$up_ms" > "$work/first"
    for ((n = 2; n <= boots; n++)); do
        first_boot "first$n"
        machine_cut
        printf '%s %s\n' "$first_ms" "$up_ms" >> "$work/first"
    done
    jq -cRn '[inputs | split(" ") | map(tonumber)] | {name: "boot/first-certificate", unit: "ms", n: length,
        p50: (map(.[0]) | sort | .[length / 2 | floor]), floor_p50: (map(.[1]) | sort | .[length / 2 | floor])}' "$work/first" >> "$rows"
}

case_again() {
    need_good
    local before
    rm -f "$work/vm/one/ticket"
    before=$(newest one)
    machine_on one "$work/good.esp"
    wait_for 900 newer one "$before" || fail "no certificate"
    ok "power on to renewed certificate: $(since "$booted_at"), without a ticket"
    machine_up
    wait_for 300 status_is '.enrolment.state == "enrolled"'
    [ "$(ictl --json host list | jq '.hosts | length')" = 1 ] || fail "hosts: $(ictl --json host list)"
    guest_off
}

# refused CASE ESP FINDING...: machine one boots from ESP; the issuer refuses the boot with just these findings
refused() {
    local name=$1 esp=$2
    shift 2
    need_good
    issuer_mark
    machine_on one "$esp"
    wait_for 900 refusal_since bootPolicy || fail "$name: the issuer has not refused it"
    jq -r '[.records[].record | select(.kind == "enrol" and .reason == "bootPolicy")][0].verdict.findings[]
        | select(.severity == "refuse") | "\(.id) \(.component // "-")"' "$work/records" | sort > "$work/found"
    printf '%s\n' "$@" | sort > "$work/expected"
    diff "$work/expected" "$work/found" > "$work/diff" || fail "$name: findings: $(cat "$work/diff")"
    machine_up
    wait_for 300 status_is '.lastError.reason == "bootPolicy"'
    issuer_unmoved "$name"
    ok "refused: bootPolicy, $(tr '\n' ',' < "$work/found" | sed 's/,$//; s/,/, /g'); nothing issued"
    machine_cut
}
refusal_since() {
    ictl --json audit list --after "$mark_record" > "$work/records"
    jq -e --arg r "$1" '[.records[].record | select(.kind == "enrol" and .reason == $r)] | length > 0' "$work/records"
}

case_cmdline() {
    image_esp "$work/cmdline.esp" "$work/kernel.efi" "$work/initrd" "$boot_options audit=0"
    refused cmdline "$work/cmdline.esp" "variantUnknown cmdline" "variantUnknown cmdline-2"
}
case_initrd() {
    image_initrd "$kernel" "$work/other-initrd" "a file more"
    image_esp "$work/initrd.esp" "$work/kernel.efi" "$work/other-initrd" "$boot_options"
    refused initrd "$work/initrd.esp" "variantUnknown initrd"
}
case_secureboot_off() {
    need_good
    cp "$work/vm/one/vars.fd" "$work/vars.on"
    machine_firmware one plain
    refused secureboot-off "$work/good.esp" "variantUnknown secureboot.state" "variantUnknown secureboot.pk" \
        "variantUnknown secureboot.kek" "variantUnknown secureboot.db" "variantUnknown secureboot.dbx" "componentMissing secureboot.authority"
    cp "$work/vars.on" "$work/vm/one/vars.fd"
}
case_kernel() {
    other_kernel_make || { say "left out: this Debian has one cloud kernel"; return 0; }
    refused kernel "$work/other-kernel.esp" "variantUnknown kernel" "variantUnknown initrd"
}
case_kernel_allowed() {
    other_kernel_make || { say "left out: this Debian has one cloud kernel"; return 0; }
    need_good
    local before
    before=$(newest one)
    # Its variants beside the old ones, as for an update of the fleet.
    [ -e "$work/other.json" ] || other_kernel_policy
    jq --slurpfile other "$work/other.json" '.components |= map(. as $c | if .id == "kernel" or .id == "initrd"
        then .variants += ($other[0].components[] | select(.id == $c.id) | .variants) else . end)' "$work/good.json" > "$work/both.json"
    policy_apply "$work/both.json"
    machine_on one "$work/other-kernel.esp"
    wait_for 900 newer one "$before" || fail "no certificate with a kernel that the policy allows"
    machine_up
    [ "$(guest 'uname -r')" = "${other_kernel#linux-image-}" ] || fail "kernel: $(guest 'uname -r')"
    guest_off
    policy_apply "$work/good.json"
    ok "the second variant: $other_kernel enrolled again, certificate renewed"
}
