#!/bin/bash
# Makes the structures in this folder anew from a fresh swtpm with swtpm_setup's EKs and tpm2-tools.
# They differ at every run; the tests hold no value of them, only that they belong together.
set -euo pipefail
out=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
swtpm_pid=
trap 'kill "$swtpm_pid" 2>/dev/null || true; rm -rf "$dir"' EXIT
mkdir "$dir/state" "$dir/config"
XDG_CONFIG_HOME=$dir/config swtpm_setup --tpm2 --tpmstate "$dir/state" --create-ek-cert \
    --config /etc/swtpm_setup.conf --overwrite >"$dir/setup.log"
swtpm socket --tpm2 --tpmstate dir="$dir/state" --server type=unixio,path="$dir/sock" \
    --ctrl type=unixio,path="$dir/sock.ctrl" --flags not-need-init,startup-clear 2>"$dir/swtpm.log" &
swtpm_pid=$!
for _ in $(seq 100); do [ -S "$dir/sock" ] && [ -S "$dir/sock.ctrl" ] && break; sleep 0.05; done
export TPM2TOOLS_TCTI="swtpm:path=$dir/sock"
cd "$dir"
q() { "$@" >/dev/null && tpm2_flushcontext -t; } # no resource manager: three slots
# TPM2B_PUBLIC → TPMT_PUBLIC
area() { tail -c +3 "$1" >"$out/$2"; }

q tpm2_readpublic -c 0x81010001 -o ek_rsa.pub && area ek_rsa.pub ek_rsa.area
q tpm2_readpublic -c 0x81010016 -o ek_p384.pub && area ek_p384.pub ek_p384.area
q tpm2_createek -G ecc -c ek_ecc.ctx -u ek_p256.pub && area ek_p256.pub ek_p256.area

# The AK as attestd makes it: an endorsement primary.
q tpm2_createprimary -C e -G ecc256:ecdsa-sha256:null -c ak.ctx \
    -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign|noda'
q tpm2_readpublic -c ak.ctx -o ak.pub -n ak.name -q ak.qname && area ak.pub ak.area
cp ak.name ak.qname "$out"
q tpm2_createprimary -C e -G rsa2048:rsassa-sha256:null -c akrsa.ctx \
    -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign|noda'
q tpm2_readpublic -c akrsa.ctx -o akrsa.pub && area akrsa.pub ak_rsassa.area
q tpm2_createprimary -C e -G rsa2048:rsapss-sha256:null -c akpss.ctx \
    -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign|noda'
q tpm2_readpublic -c akpss.ctx -o akpss.pub && area akpss.pub ak_rsapss.area

# SRK, a storage parent under it, an agent's key under that.
q tpm2_createprimary -C o -G ecc256 -c srk.ctx \
    -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt|noda'
q tpm2_readpublic -c srk.ctx -o srk.pub && area srk.pub srk.area
q tpm2_create -C srk.ctx -G ecc256 -u parent.pub -r parent.priv \
    -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt|noda'
q tpm2_load -C srk.ctx -u parent.pub -r parent.priv -c parent.ctx && area parent.pub parent.area
q tpm2_create -C parent.ctx -G ecc256 -u agent.pub -r agent.priv \
    -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign|noda'
q tpm2_load -C parent.ctx -u agent.pub -r agent.priv -c agent.ctx && area agent.pub agent.area
q tpm2_readpublic -c agent.ctx -n agent.name -q agent.qname
cp agent.name agent.qname "$out"
echo hello | q tpm2_create -C srk.ctx -i - -u sealed.pub -r sealed.priv && area sealed.pub sealed.area

nonce=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff
for ak in ak akrsa akpss; do
    scheme=rsassa; [ $ak = akpss ] && scheme=rsapss; [ $ak = ak ] && scheme=ecdsa
    q tpm2_quote -c $ak.ctx --scheme $scheme -l sha256:0,1,7,16 -q $nonce -g sha256 -m quote_$ak.attest \
        -s quote_$ak.sig -o quote_$ak.pcrs -F values
done
cp quote_ak.attest "$out/quote.attest"; cp quote_ak.sig "$out/quote.sig"
cp quote_ak.pcrs "$out/quote.pcrs"
cp quote_akrsa.attest "$out/quote_rsassa.attest"; cp quote_akrsa.sig "$out/quote_rsassa.sig"
cp quote_akpss.attest "$out/quote_rsapss.attest"; cp quote_akpss.sig "$out/quote_rsapss.sig"
# Nothing of an absent bank, a bank twice, no bank: signed all the same.
q tpm2_quote -c ak.ctx -l sha1:0,7 -q $nonce -g sha256 -m absent.attest -s absent.sig
q tpm2_quote -c ak.ctx -l sha256:0+sha256:7 -q $nonce -g sha256 -m twice.attest -s twice.sig
cp absent.attest twice.attest "$out"

q tpm2_certify -c agent.ctx -C ak.ctx -g sha256 -o certify.attest -s certify.sig
cp certify.attest certify.sig "$out"
q tpm2_nvdefine 0x1500001 -C o -s 32 -a 'ownerread|ownerwrite|authread|authwrite'
head -c 32 /dev/zero | q tpm2_nvwrite 0x1500001 -C o -i -
q tpm2_nvcertify -C ak.ctx -c o -g sha256 --size 32 -o nv.sig --attestation nv.attest \
    -q $nonce 0x1500001
cp nv.attest nv.sig "$out"
q tpm2_createprimary -C o -G ecc256 -c cp.ctx --creation-data cp.data -t cp.ticket -d cp.hash
q tpm2_certifycreation -C ak.ctx -c cp.ctx -d cp.hash -t cp.ticket -g sha256 -o creation.sig \
    --attestation creation.attest
cp creation.attest "$out"
ls -l "$out"
