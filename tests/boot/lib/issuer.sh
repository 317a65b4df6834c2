# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # the parts of one script: work, bin, machine and port come from those who source this
# The issuer, outside of the machines, and what must hold there after a boot.

boot_pcrs=sha256:0,2,3,4,7,9,10,12

ictl() { "$bin/attestctl" --issuer "$work/issuer-run/admin.sock" "$@"; }
# issuer_make [unjudged]: it demands a boot policy "matrix" for enrolments and certificates, or none
issuer_make() {
    job_port
    mkdir -p "$work/issuer-run" "$work/ek-roots"
    local vm
    for vm in "$work"/vm/*; do cp "$vm/tpm/ek-roots.pem" "$work/ek-roots/${vm##*/}.pem"; done
    openssl ecparam -genkey -name secp384r1 -noout -out "$work/policy-key.pem"
    policy_version=0
    local signer demands
    signer=$(openssl pkey -in "$work/policy-key.pem" -pubout -outform DER | sha256sum | cut -d' ' -f1)
    demands="boot: matrix
    pcrs: \"$boot_pcrs\"
    logs: [firmware, ima]
    policy_signers: [ \"$signer\" ]"
    [ "${1:-}" != unjudged ] || demands="boot: none
    pcrs: \"$boot_pcrs\"
    logs: [firmware, ima]"
    # The guest reaches this machine's loopback as 10.0.2.2: the TLS certificate is for that name.
    cat > "$work/issuer.yaml" << END
trust_domain: bank.example
listen: "127.0.0.1:$port"
url: "https://10.0.2.2:$port/acme"
state_dir: $work/issuer
run_dir: $work/issuer-run
control_group: none
ek:
  roots_dir: $work/ek-roots
enrolment:
    $demands
profiles:
  - name: trading
    description: agents that trade, on hosts whose boot is known
    lifetime: 1h
    keys: [tpm]
    $demands
END
    "$bin/attest-issuerd" --config "$work/issuer.yaml" init > "$work/log/init.log" 2>&1 || fail "init: $(cat "$work/log/init.log")"
    job_start issuerd "$bin/attest-issuerd" --config "$work/issuer.yaml"
    wait_for 30 ictl issuer status
}

# issuer_knows NAME [MEASURED]: its TPM's maker, a ticket for that TPM alone, an agent NAME on it, measured if that is given
issuer_knows() {
    local vm=$work/vm/$1
    cp "$vm/tpm/ek-roots.pem" "$work/ek-roots/$1.pem"
    kill -HUP "$(job_pid issuerd)"
    ictl ticket create --ek "$(cat "$vm/ek")" --host "$1" --out "$vm/ticket" > /dev/null
    [ -e "$work/agents.yaml" ] || printf 'trust_domain: bank.example\nagents:\n' > "$work/agents.yaml"
    cat >> "$work/agents.yaml" << END
  - name: $1
    owner: test@bank.example
    hosts: [ "ek:$(cat "$vm/ek")" ]
    workload: { uid: 1001 }
    key: tpm
    profile: trading
END
    [ -z "${2:-}" ] || printf '    measured: %s\n' "$2" >> "$work/agents.yaml"
    ictl entry apply -f "$work/agents.yaml" > /dev/null
}

# policy_draft FILE: of the boot that runs now, as docs/OPERATIONS.md has it; its PCR values beside it in FILE.pcrs
policy_draft() {
    guest 'base64 -w0 /sys/kernel/security/tpm0/binary_bios_measurements' | base64 -d > "$work/eventlog.bin"
    guest 'for n in $(seq 0 23); do echo "$n $(cat /sys/class/tpm/tpm0/pcr-sha256/$n)"; done' |
        jq -Rn '{sha256: ([inputs | split(" ") | {(.[0]): (.[1] | ascii_downcase)}] | add)}' > "$work/pcrs.json"
    "$bin/attestctl" measure --from "$work/eventlog.bin" --values "$work/pcrs.json" --pcrs "${boot_pcrs/,10,/,}" --name matrix \
        --out "$work/draft.json" > "$work/measure" 2>&1 || fail "measure: $(cat "$work/measure")"
    jq '.logs = ["firmware", "ima"] | .imaViolations = "allow"' "$work/draft.json" > "$1"
    rm "$work/draft.json"
    cp "$work/pcrs.json" "$1.pcrs"
}

policy_apply() { # policy_apply FILE: with the next version number, signed
    policy_version=$((policy_version + 1))
    jq --argjson v $policy_version '.version = $v' "$1" > "$work/policy.json"
    rm -f "$work/policy.signed.json"
    "$bin/attestctl" policy sign "$work/policy.json" --key "$work/policy-key.pem" --out "$work/policy.signed.json" > /dev/null
    ictl policy apply -f "$work/policy.signed.json" > /dev/null
}

issued() { ictl --json cert list | jq '.certificates | length'; }
newest() { ictl --json cert list --name "$1" --limit 1 | jq -r '.certificates[0].serial // "none"'; }
newer() { [ "$(newest "$1")" != "$2" ]; }
last_record() { ictl --json audit list --limit 1 | jq .head.seq; }

# issuer_mark: what there is now; the checks below are of what came since
issuer_mark() {
    mark_record=$(last_record)
    mark_issued=$(issued)
    mark_hosts=$(ictl --json host list | jq -c '[.hosts[] | .id]')
}
issuer_unmoved() {
    [ "$(issued)" = "$mark_issued" ] || fail "$1: a certificate was issued"
    [ "$(ictl --json host list | jq -c '[.hosts[] | .id]')" = "$mark_hosts" ] || fail "$1: another host"
}
status_is() { guest 'attestctl --json status' > "$work/status.json" && jq -e "$1" "$work/status.json" > /dev/null; }
# chain_good NAME: the chain that the guest holds is good under the issuer's roots, and that agent's
chain_good() {
    guest "cat /var/lib/attestd/host/agents/$1/chain.pem" > "$work/chain.pem"
    openssl verify -x509_strict -CAfile "$work/issuer/ca/bundle.pem" -untrusted "$work/chain.pem" "$work/chain.pem" > "$work/verify" 2>&1 ||
        fail "$1's chain: $(cat "$work/verify")"
    [ "$(openssl x509 -in "$work/chain.pem" -noout -ext subjectAltName | grep -o 'URI:[^,]*')" = "URI:spiffe://bank.example/agent/$1" ] ||
        fail "$1's chain is another agent's"
}
