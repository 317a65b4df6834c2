#!/usr/bin/env bash
# Plain ACME clients, as Debian ships them, get, renew and revoke certificates for DNS names from an issuer
# whose configuration has a section dns: certbot, lego, uacme, dehydrated and acme-tiny, over http-01 on
# loopback. Accounts need an external binding; acme-tiny, which knows none, uses the account of dehydrated.
set -euo pipefail
# shellcheck disable=SC2154 # dir and bin come from job.sh
# shellcheck source=../support/job.sh
. "$ATT_SOURCE_DIR/tests/support/job.sh"
for tool in certbot lego uacme dehydrated acme-tiny; do
    command -v "$tool" > /dev/null || job_skip "no $tool (package $tool)"
done
[ "$(id -u)" = 0 ] || job_skip "uacme knows the system's roots only: a mount namespace needs root"
unshare -m true 2> /dev/null || job_skip "no mount namespaces here"
dir=$(mktemp -d "${TMPDIR:-/tmp}/att-acme.XXXXXX")
trap 'status=$?; job_stop http KILL; set +e; (exit $status); job_cleanup' EXIT
bin=$ATT_BIN_DIR
mkdir -p "$dir/run" "$dir/issuer-run" "$dir/ek-roots" "$dir/log" "$dir/tmp" "$dir/web/.well-known/acme-challenge" "$dir/out"
ok() { echo "ok: $*"; }

# ---- an issuer that asks names on a port of this test, on loopback ----
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/tmp/ek.key" -out "$dir/ek-roots/root.pem" \
    -days 2 -subj "/CN=A maker" -addext basicConstraints=critical,CA:TRUE 2> /dev/null
free_port() { /usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port) web=$(free_port)
cat > "$dir/issuer.yaml" << END
trust_domain: bank.example
listen: "127.0.0.1:$port"
url: "https://localhost:$port/acme"
state_dir: $dir/issuer
run_dir: $dir/issuer-run
policies_dir: $dir/policies
control_group: none
log: json
ek: { roots_dir: $dir/ek-roots }
enrolment: { boot: none, pcrs: "sha256:0,7" }
profiles:
  - { name: trading, boot: none, pcrs: "sha256:0,7" }
dns:
  profiles:
    - { name: legacy, lifetime: 2d, names: ["*.legacy.localhost"] }
    - { name: short, lifetime: 1h, names: ["*.short.localhost"] }
  http_port: $web
  allow: ["127.0.0.0/8"]
END
"$bin/attest-issuerd" --config "$dir/issuer.yaml" init > /dev/null
job_start issuerd "$bin/attest-issuerd" --config "$dir/issuer.yaml"
job_start http /usr/bin/python3 -m http.server --bind 127.0.0.1 --directory "$dir/web" "$web"
wait_for 30 test -S "$dir/issuer-run/admin.sock"
root=$dir/issuer/ca/tls-root.pem dns_root=$dir/issuer/ca/dns-root.crt dns_ca=$dir/issuer/ca/dns-ca.crt
url=https://localhost:$port/acme/directory
wait_for 30 curl -sf --cacert "$root" "$url" -o "$dir/tmp/directory"
wait_for 30 curl -s "http://127.0.0.1:$web/" -o /dev/null
jq -e '.meta.profiles.legacy and .meta.externalAccountRequired and .renewalInfo and .revokeCert and .keyChange' \
    "$dir/tmp/directory" > /dev/null
ticket() { # ticket: kid and mac, the key as base64url and in the form of the client
    "$bin/attestctl" --json --issuer "$dir/issuer-run/admin.sock" ticket create > "$dir/tmp/ticket"
    kid=$(jq -r .ticket.kid "$dir/tmp/ticket") mac=$(jq -r .ticket.macKey "$dir/tmp/ticket")
}
audit() { "$bin/attestctl" --json --issuer "$dir/issuer-run/admin.sock" audit list --limit 1000; }

# good FILE NAME...: a chain that our root, and no agent's, leads to, for exactly these names
good() {
    local file=$1
    shift
    openssl verify -CAfile "$dns_root" -untrusted "$dns_ca" -purpose sslserver "$file" > "$dir/tmp/verify" 2>&1 ||
        job_fail "$file does not verify: $(cat "$dir/tmp/verify")"
    if openssl verify -CAfile "$dir/issuer/ca/bundle.pem" -untrusted "$dns_ca" "$file" > /dev/null 2>&1; then
        job_fail "$file verifies under the agents' root"
    fi
    printf 'DNS:%s\n' "$@" | sort > "$dir/tmp/want"
    openssl x509 -in "$file" -noout -ext subjectAltName | tr -d ' ' | tr ',' '\n' | grep DNS: | sort > "$dir/tmp/have"
    diff "$dir/tmp/want" "$dir/tmp/have"
}
status_of() { # status_of FILE: what the issuer says of this certificate
    local serial
    serial=$(openssl x509 -in "$1" -noout -serial | sed 's/serial=//' | tr 'A-F' 'a-f')
    "$bin/attestctl" --json --issuer "$dir/issuer-run/admin.sock" cert list |
        jq -r --arg s "$serial" '.certificates[] | select(.serial == $s) | .status + " " + (.reason // "")'
}

# ---- certbot ----
ticket
export REQUESTS_CA_BUNDLE=$root
cb() { certbot "$@" --non-interactive --config-dir "$dir/cb" --work-dir "$dir/cb-work" --logs-dir "$dir/log/certbot" --server "$url" > "$dir/log/certbot.log" 2>&1; }
cb certonly --agree-tos --register-unsafely-without-email --eab-kid="$kid" --eab-hmac-key="$mac" --webroot -w "$dir/web" \
    -d b.legacy.localhost -d a.legacy.localhost
good "$dir/cb/live/b.legacy.localhost/cert.pem" a.legacy.localhost b.legacy.localhost
ok "certbot: one certificate for two names (EAB, P-256 by RSA account key)"
before=$(openssl x509 -in "$dir/cb/live/b.legacy.localhost/cert.pem" -noout -serial)
cb renew --force-renewal --no-random-sleep-on-renew
[ "$before" != "$(openssl x509 -in "$dir/cb/live/b.legacy.localhost/cert.pem" -noout -serial)" ] || job_fail "certbot did not renew"
ok "certbot: renewed"
cb certonly --webroot -w "$dir/web" -d rsa.legacy.localhost --key-type rsa
good "$dir/cb/live/rsa.legacy.localhost/cert.pem" rsa.legacy.localhost
cp "$dir/cb/live/rsa.legacy.localhost/cert.pem" "$dir/out/rsa.pem"
cb revoke --cert-path "$dir/cb/live/rsa.legacy.localhost/cert.pem" --key-path "$dir/cb/live/rsa.legacy.localhost/privkey.pem" \
    --reason keycompromise --no-delete-after-revoke
[ "$(status_of "$dir/out/rsa.pem")" = "revoked keyCompromise" ] || job_fail "by its key: $(status_of "$dir/out/rsa.pem")"
ok "certbot: revoked by the certificate's RSA key"
cp "$dir/cb/live/b.legacy.localhost/cert.pem" "$dir/out/b.pem"
cb revoke --cert-name b.legacy.localhost --reason superseded --no-delete-after-revoke
[ "$(status_of "$dir/out/b.pem")" = "revoked superseded" ] || job_fail "by its account: $(status_of "$dir/out/b.pem")"
ok "certbot: revoked by the account"
if cb certonly --webroot -w "$dir/web" -d www.elsewhere.localhost; then job_fail "a name of no profile was issued"; fi
grep -q 'profile does not allow this name' -r "$dir/log/certbot" || job_fail "certbot was not told why"
ok "certbot: a name of no profile is refused, with the reason"
if cb certonly --webroot -w "$dir/out" -d gone.legacy.localhost; then job_fail "a name that serves nothing was issued"; fi
grep -q 'status 404' -r "$dir/log/certbot" || job_fail "certbot was not told what the name answered"
ok "certbot: a name that serves nothing is refused, with the reason"
cb unregister
audit | jq -e '[.records[].record | select(.kind == "account" and .detail == "deactivated")] | length == 1' > /dev/null ||
    job_fail "certbot's account was not deactivated"
ok "certbot: account deactivated"

# ---- lego ----
ticket
lg() { LEGO_CA_CERTIFICATES=$root lego --server "$url" --accept-tos --email x@bank.example --path "$dir/lego" "$@" > "$dir/log/lego.log" 2>&1; }
lg --eab --kid="$kid" --hmac="$mac" --domains l.legacy.localhost --http --http.webroot "$dir/web" run
good "$dir/lego/certificates/l.legacy.localhost.crt" l.legacy.localhost
lg --eab --kid="$kid" --hmac="$mac" --domains l.legacy.localhost --http --http.webroot "$dir/web" renew --days 90 --no-random-sleep
cp "$dir/lego/certificates/l.legacy.localhost.crt" "$dir/out/l.pem"
lg --eab --kid="$kid" --hmac="$mac" --domains l.legacy.localhost revoke --reason 5
[ "$(status_of "$dir/out/l.pem")" = "revoked cessationOfOperation" ] || job_fail "lego: $(status_of "$dir/out/l.pem")"
ok "lego: issued, renewed, revoked"

# ---- uacme, whose TLS asks the system's roots ----
ticket
cat /etc/ssl/certs/ca-certificates.crt "$root" > "$dir/tmp/roots.pem" 2> /dev/null || cp "$root" "$dir/tmp/roots.pem"
# shellcheck disable=SC2016 # the inner shell's
ua() {
    UACME_CHALLENGE_PATH=$dir/web/.well-known/acme-challenge unshare -m sh -c \
        'mount --bind "$0" /etc/ssl/certs/ca-certificates.crt && exec uacme "$@"' "$dir/tmp/roots.pem" \
        -a "$url" -c "$dir/uacme" -h /usr/share/uacme/uacme.sh "$@" > "$dir/log/uacme.log" 2>&1
}
ua -v -y -e "$kid:$mac" new
ua -v -t EC issue u.legacy.localhost v.legacy.localhost
good "$dir/uacme/u.legacy.localhost/cert.pem" u.legacy.localhost v.legacy.localhost
cp "$dir/uacme/private/key.pem" "$dir/tmp/uacme-old.pem"
ua -v -t EC newkey
cmp -s "$dir/uacme/private/key.pem" "$dir/tmp/uacme-old.pem" && job_fail "uacme has the old account key"
audit | jq -e '[.records[].record | select(.kind == "account" and .detail == "keyChange")] | length == 1' > /dev/null ||
    job_fail "the issuer recorded no change of key"
ok "uacme: issued for two names; newkey"
cp "$dir/uacme/u.legacy.localhost/cert.pem" "$dir/out/u.pem"
cp "$dir/out/u.pem" "$dir/tmp/u.pem" # uacme gives the file another name
ua -v -f -t EC issue u.legacy.localhost v.legacy.localhost
ua -v revoke "$dir/tmp/u.pem"
[ "$(status_of "$dir/out/u.pem" | cut -d' ' -f1)" = revoked ] || job_fail "uacme: $(status_of "$dir/out/u.pem")"
ua -v deactivate
ok "uacme: with the new key it renewed, revoked and deactivated"

# ---- dehydrated ----
ticket
mkdir -p "$dir/deh"
cat > "$dir/deh/config" << END
CA="$url"
BASEDIR="$dir/deh"
WELLKNOWN="$dir/web/.well-known/acme-challenge"
CURL_OPTS="--cacert $root"
EAB_KID="$kid"
EAB_HMAC_KEY="$mac"
KEY_ALGO=secp384r1
END
dh() { dehydrated --config "$dir/deh/config" "$@" > "$dir/log/dehydrated.log" 2>&1; }
dh --register --accept-terms
dh --cron --domain "d.legacy.localhost e.legacy.localhost"
good "$dir/deh/certs/d.legacy.localhost/cert.pem" d.legacy.localhost e.legacy.localhost
dh --cron --force --domain "d.legacy.localhost e.legacy.localhost"
dh --revoke "$dir/deh/certs/d.legacy.localhost/cert.pem"
ok "dehydrated: issued with a P-384 key, renewed, revoked"

# ---- acme-tiny, with dehydrated's account key ----
key=$(find "$dir/deh/accounts" -name account_key.pem)
openssl req -new -newkey rsa:2048 -nodes -keyout "$dir/tmp/tiny.key" -subj "/CN=t.short.localhost" -out "$dir/tmp/tiny.csr" 2> /dev/null
SSL_CERT_FILE=$root acme-tiny --account-key "$key" --csr "$dir/tmp/tiny.csr" --acme-dir "$dir/web/.well-known/acme-challenge" \
    --disable-check --directory-url "$url" > "$dir/out/tiny.pem" 2> "$dir/log/acme-tiny.log"
good "$dir/out/tiny.pem" t.short.localhost
ok "acme-tiny: issued by the profile that allows the name"

job_stop issuerd
ok "the issuer ended on SIGTERM"
