# shellcheck shell=bash
# shellcheck disable=SC2154 # work, bin and cuts come from the script
# The cases in which the TPM decides, the clock is wrong, or the power goes.

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

case_clock() {
    machine_make clock
    issuer_knows clock
    issuer_mark
    machine_on clock "$work/good.esp" -rtc base=2020-01-01T00:00:00
    machine_up
    [ "$(guest 'date +%Y')" = 2020 ] || fail "the guest's clock: $(guest date)"
    wait_for 600 status_is '.lastError.reason != null and .lastError.reason != "" and .lastError.reason != "starting" and .lastError.reason != "noKeyd"'
    issuer_unmoved clock
    ok "a clock of 2020: nothing issued; $(jq -r '.lastError | "\(.reason): \(.message)"' "$work/status.json" | cut -c1-120)"
    guest "date -s @$(date +%s)" > /dev/null
    wait_for 900 newer clock none || fail "no certificate with the right time"
    wait_for 300 guest 'test -e /var/lib/attestd/host/agents/clock/chain.pem'
    chain_good clock
    ok "the time is right: certificate, without a restart"
    machine_cut
}

# ---- sealing ----
seal_sign() { # seal_sign VERSION BOOT=FILE...: $work/fleet.json
    local version=$1
    shift
    rm -f "$work/fleet.json"
    "$bin/attestctl" policy seal-sign --key "$work/seal-key.pem" --name fleet --version "$version" --pcrs sha256:0,4,7,9,12 \
        --out "$work/fleet.json" -- "$@" > /dev/null
}
seal_key() {
    [ ! -e "$work/seal.pem" ] || return 0
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/seal-key.pem" 2> /dev/null
    openssl pkey -in "$work/seal-key.pem" -pubout -out "$work/seal.pem"
}
seal_conf='tpm:
  pcr: signed
  policy_key: /state/seal.pem
  policies: /state/pcr-policies
'
case_sealing() {
    other_kernel_make || { say "left out: this Debian has one cloud kernel"; return 0; }
    [ -e "$work/other.json" ] || other_kernel_policy
    seal_key
    machine_conf=$seal_conf machine_make sealed
    issuer_knows sealed
    machine_put sealed /seal.pem "$work/seal.pem"
    # This month's kernel, and the second version of the policy.
    seal_sign 2 this="$work/good.json.pcrs"
    machine_put sealed /pcr-policies/fleet.json "$work/fleet.json"
    machine_on sealed "$work/good.esp"
    wait_for 900 newer sealed none || fail "no certificate with sealed keys"
    machine_up
    wait_for 300 status_is '.tpm.state == "ready" and .tpm.sealing.keysOutside == 0'
    guest_off
    ok "keys sealed to this boot by version 2: enrolled, certificate"
    # Last month's kernel with last month's policy, both good then.
    seal_sign 1 last="$work/other.json.pcrs"
    machine_put sealed /pcr-policies/fleet.json "$work/fleet.json"
    issuer_mark
    machine_on sealed "$work/other-kernel.esp"
    machine_up
    wait_for 600 status_is '.tpm.state == "sealed" and (.tpm.reason | test("older than what this host has accepted"))'
    grep -aq 'event=keyd.sealed.*reason=policyCounter' "$machine/console" || fail "keyd's reason: $(grep -a 'keyd.sealed' "$machine/console")"
    ! guest 'attestctl quote --nonce 00112233445566778899aabbccddeeff --out /tmp/quote' > "$work/answer" || fail "a quote by a sealed host"
    issuer_unmoved sealed
    ok "last month's kernel with last month's signed policy: policyCounter, nothing signs, nothing issued"
    # It was the version alone: the same boot under a third one opens.
    seal_sign 3 last="$work/other.json.pcrs" this="$work/good.json.pcrs"
    guest "echo $(base64 -w0 "$work/fleet.json") | base64 -d > /state/pcr-policies/fleet.json && kill -HUP \$(pidof attestd-keyd)"
    wait_for 600 status_is '.tpm.state == "ready"'
    ok "the same boot by version 3: ready, with the same keys"
    machine_cut
}

# ---- the power goes while keys move under the storage parent, or while a policy comes ----
# said_since BYTES PATTERN: on the console of the machine that runs
said_since() { tail -c "+$(($1 + 1))" "$machine/console" > "$work/said" && grep -aq "$2" "$work/said"; }
# cut_after BYTES PATTERN: power off some moments after that line, or after the bring-up was through
cut_after() {
    local wait_ms=$((RANDOM % 400)) until=$(($(date +%s) + 2400))
    until said_since "$1" "$2\|event=keyd.ready"; do
        [ "$(date +%s)" -lt $until ] || fail "keyd says nothing: $(tail -n 5 "$machine/console")"
        sleep 0.03
    done
    sleep "0.$(printf %03d $wait_ms)"
    machine_cut
    say "      cut $wait_ms ms after ${2#event=}; $(power_point "${machine##*/}")"
}
case_sealing_power() {
    local said step version key
    seal_key
    machine_make moved
    issuer_knows moved
    machine_on moved "$work/good.esp"
    machine_up
    wait_for 900 newer moved none || fail "no certificate"
    wait_for 300 guest "test -e /var/lib/attestd/host/agents/moved/chain.pem"
    # It was not sealed. What seals it comes onto the disk, and keyd starts anew.
    seal_sign 1 this="$work/good.json.pcrs"
    printf '%s' "$seal_conf" > "$work/conf"
    said=$(stat -c %s "$machine/console")
    guest "echo $(base64 -w0 "$work/fleet.json") | base64 -d > /state/pcr-policies/fleet.json; echo $(base64 -w0 "$work/seal.pem") | base64 -d > /state/seal.pem
        echo $(base64 -w0 "$work/conf") | base64 -d >> /state/attestd.yaml; sync; kill \$(pidof attestd-keyd)" > /dev/null
    cut_after "$said" "event=keyd.sandbox"
    for step in "created.*storageParent" "policy-counter.*defined" "migrated.*host.pem"; do
        machine_on moved "$work/good.esp"
        cut_after 0 "event=keyd.$step"
    done
    machine_on moved "$work/good.esp"
    machine_up
    machine_settled moved
    wait_for 300 guest 'attestctl agent rotate moved'
    wait_for 300 status_is '.tpm.sealing.open and .tpm.sealing.counter.value == 1'
    chain_good moved
    ok "four cuts while the host moved under the storage parent: moved, one host, certificate by a key inside"
    key=$(guest 'attestctl --json agent show moved' | jq -r .keyId)
    for version in 2 3 4; do
        seal_sign "$version" this="$work/good.json.pcrs"
        said=$(stat -c %s "$machine/console")
        # As an operator copies it: what the kernel has not written yet, the cut takes.
        guest "cd /state && echo $(base64 -w0 "$work/fleet.json") | base64 -d > new && mv new pcr-policies/fleet.json && kill -HUP \$(pidof attestd-keyd)" > /dev/null
        if [ "$version" = 2 ]; then
            wait_for 300 said_since "$said" "event=keyd.policy-counter.*raised to $version"
            machine_cut
        else
            cut_after "$said" "event=keyd"
        fi
        machine_on moved "$work/good.esp"
        machine_up
        machine_settled moved
        # Either version is on the disk, but never one that the counter is past.
        if [ "$version" = 2 ]; then
            status_is '.tpm.sealing.counter.value == 2' || fail "the counter: $(jq -c .tpm.sealing "$work/status.json")"
        fi
    done
    # Each boot renewed with a key of its own; the one from before the cuts is kept until its certificate ends.
    guest 'attestctl --json agent show moved' | jq -e --arg key "$key" '[.keyId, .retired[].keyId] | index($key) != null' > /dev/null ||
        fail "the key from before the cuts is gone"
    machine_cut
    ok "three cuts while a newer policy came: open in each next boot, no key lost, and no counter past the policy on the disk"
}

# ---- power ----
machine_settled() { # enrolled, certificate, no half file
    wait_for 300 status_is '.tpm.state == "ready" and .enrolment.state == "enrolled"'
    guest 'attestctl --json doctor' > "$work/doctor.json" || true
    jq -e 'all(.checks[] | select(.name == "keydState"); .ok)' "$work/doctor.json" > /dev/null || fail "$1: $(jq -c '.checks[] | select(.name == "keydState")' "$work/doctor.json")"
    chain_good "$1"
    [ "$(ictl --json host list | jq --arg name "$1" '[.hosts[] | select(.label == $name)] | length')" = 1 ] || fail "$1: hosts: $(ictl --json host list)"
}
case_power() {
    local n=0 vm=0 name here wait_ms window=15000 up_at
    while [ $n -lt "$cuts" ]; do
        vm=$((vm + 1)) here=0 name=power$vm
        machine_make "$name"
        issuer_knows "$name"
        while :; do
            machine_on "$name" "$work/good.esp"
            machine_up
            if [ $n -ge "$cuts" ] || [ $here -ge 5 ] || [ "$(newest "$name")" != none ]; then break; fi
            wait_ms=$((RANDOM % window))
            sleep "$((wait_ms / 1000)).$(printf %03d $((wait_ms % 1000)))"
            machine_cut
            n=$((n + 1)) here=$((here + 1))
            say "      cut $n: $name, $wait_ms ms after its first process; $(power_point "$name")"
        done
        up_at=$(now_ms)
        wait_for 900 newer "$name" none || fail "$name: no certificate after $here cuts"
        window=$(($(now_ms) - up_at + 3000))
        wait_for 300 guest "test -e /var/lib/attestd/host/agents/$name/chain.pem"
        machine_settled "$name"
        machine_cut
        ok "$name: after $here cuts enrolled by the same ticket, one host, certificate, no half file"
    done
}
# How far it had come, by its own log.
power_point() {
    local said
    said=$(grep -ao 'event=[a-z.-]*\( phase=[A-Za-z]*\)\?' "$work/vm/$1/console" | tail -n 1)
    echo "${said:-nothing was logged}"
}
