# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # from and for job.sh
# The issuer's authorities in an HSM: source this after job.sh and hsm.sh.

# ca_token LABEL: a SoftHSM token and the sections of issuer.yaml that put new keys into it
ca_token() {
    [ -r /usr/lib/softhsm/libsofthsm2.so ] && command -v softhsm2-util > /dev/null || job_skip "no softhsm2"
    export SOFTHSM2_CONF=$dir/softhsm2.conf
    mkdir -p "$dir/tokens"
    printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$dir/tokens" > "$SOFTHSM2_CONF"
    softhsm2-util --init-token --free --label "$1" --pin "$hsm_pin" --so-pin 08154711 > /dev/null
    (umask 077 && echo "$hsm_pin" > "$dir/hsm.pin")
    ca_serial=$(find "$dir/tokens" -mindepth 1 -maxdepth 1 -printf '%f\n' | tr -d - | cut -c 17-)
    cat >> "$dir/issuer.yaml" << END
ca:
  keys: hsm
  publish_wait: 1s
hsm:
  module: ${job_hsm_module:-/usr/lib/softhsm/libsofthsm2.so}
  token: "pkcs11:token=$1;serial=$ca_serial?pin-source=file:$dir/hsm.pin"
  files: [ $SOFTHSM2_CONF, $dir/tokens${job_hsm_files:-} ]
END
}
ca_hsm_ready() { [ "$(grep -c hsmd.token-ready "$dir/log/ca-hsmd.log")" -gt "$ca_starts" ]; }
ca_start_hsmd() {
    ca_starts=$(grep -c hsmd.token-ready "$dir/log/ca-hsmd.log" 2> /dev/null || true)
    ca_starts=${ca_starts:-0}
    job_start ca-hsmd "$bin/attestd-hsmd" --issuer --config "$dir/issuer.yaml"
    wait_for 30 ca_hsm_ready
}
