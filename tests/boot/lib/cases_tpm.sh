# shellcheck shell=bash
# shellcheck disable=SC2154 # work and its like come from the script
# The cases in which the TPM decides.

# foreign NAME: machine NAME, which has one's disk, boots well and gets nothing
foreign() {
    local name=$1
    issuer_mark
    machine_on "$name" "$work/good.esp"
    machine_up
    wait_for 600 status_is '.tpm.state == "foreignTpm" and .lastError.reason == "foreignTpm"'
    ! guest 'attestctl agent rotate one' > "$work/answer" || fail "$name: a certificate"
    grep -q 'another TPM\|foreignTpm\|cleared' "$work/answer" || fail "$name: the refusal does not name the TPM: $(cat "$work/answer")"
    ! guest 'attestctl quote --nonce 00112233445566778899aabbccddeeff --out /tmp/quote' > "$work/answer" || fail "$name: a quote"
    [ "$(guest 'cd /state/attestd/keyd && find . -name "*.pem" | sort | xargs sha256sum')" = "$one_keys" ] || fail "$name: other keys: $(guest 'find /state/attestd/keyd')"
    issuer_unmoved "$name"
    machine_cut
}
# keys_of_one: what of one's keys lies on its disk; the machine is off
keys_of_one() {
    rm -rf "$work/dump"
    mkdir "$work/dump"
    e2fsck -fy "$work/vm/one/disk" > "$work/fsck" 2>&1 || [ $? -le 1 ] || fail "e2fsck: $(cat "$work/fsck")"
    debugfs -R "rdump /attestd/keyd $work/dump" "$work/vm/one/disk" > "$work/debugfs" 2>&1
    one_keys=$(cd "$work/dump/keyd" && find . -name '*.pem' | LC_ALL=C sort | xargs sha256sum)
    [ -n "$one_keys" ] || fail "no keys on the disk of one: $(cat "$work/debugfs")"
}

case_copied() {
    need_good
    keys_of_one
    machine_make copied
    cp "$work/vm/copied/tpm/ek-roots.pem" "$work/ek-roots/copied.pem" # even where its TPM is one that the issuer would trust
    kill -HUP "$(job_pid issuerd)"
    cp "$work/vm/one/disk" "$work/vm/copied/disk"
    foreign copied
    ok "the disk in another machine: foreignTpm; no key, no quote, no certificate, nobody at the issuer"
}
case_cleared() {
    need_good
    keys_of_one
    cp -a "$work/vm/one" "$work/vm/cleared" # that one stays as it is for the other cases
    swtpm_start "$work/vm/cleared/tpm"
    TPM2TOOLS_TCTI="swtpm:path=$work/vm/cleared/tpm/sock" tpm2_clear -c p > "$work/clear" 2>&1 || fail "tpm2_clear: $(cat "$work/clear")"
    swtpm_stop "$work/vm/cleared/tpm"
    foreign cleared
    ok "the TPM was cleared: foreignTpm; nothing was made anew, no quote, no certificate"
}
