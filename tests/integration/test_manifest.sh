#!/usr/bin/env bash
# attestctl manifest: a Python agent's files listed, signed, checked; each difference by its name.
set -euo pipefail
ctl=${ATT_BIN_DIR:?}/attestctl
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

fail() {
    printf 'FAIL: %s\n' "$*" >&2
    exit 1
}

# differs WORD PATH TEXT: check refuses, with exactly one difference, which is this.
differs() {
    local rc=0
    "$ctl" --json manifest check "$dir/m.json" > "$dir/out" 2> "$dir/err" || rc=$?
    [ "$rc" -eq 1 ] || fail "$1 $2: exit $rc, expected 1"
    jq -e --arg is "$1" --arg path "$2" --arg text "$3" '.differences == 1 and .findings[0].is == $is
        and .findings[0].path == $path and (.findings[0].text | contains($text))' "$dir/out" > /dev/null ||
        fail "$1 $2: $(cat "$dir/out")"
    grep -q '^attestctl: modelDigest: ' "$dir/err" || fail "$1 $2: $(cat "$dir/err")"
}
agrees() {
    "$ctl" manifest check "$dir/m.json" > "$dir/out" || fail "check: $(cat "$dir/out")"
}
# refused REASON ARG...: fails and names the reason.
refused() {
    local reason=$1 rc=0
    shift
    "$ctl" "$@" > "$dir/out" 2> "$dir/err" || rc=$?
    [ "$rc" -eq 1 ] || fail "$*: exit $rc, expected 1"
    grep -q "$reason" "$dir/err" || fail "$*: $(cat "$dir/err")"
}
sha() {
    sha256sum "$1" | cut -d' ' -f1
}

mkdir -p "$dir/agent/lib/risk" "$dir/agent/model"
echo 'import risk' > "$dir/agent/agent.py"
echo 'LIMIT = 3' > "$dir/agent/lib/risk/__init__.py"
head -c 70000 /dev/zero > "$dir/agent/model/weights.bin"
ln -s weights.bin "$dir/agent/model/latest"
echo 'be careful' > "$dir/agent/prompt.txt"
for key in one two; do
    (umask 077 && openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$dir/$key.pem" 2> /dev/null)
done
signer=$(openssl pkey -in "$dir/one.pem" -pubout -outform DER | sha256sum | cut -d' ' -f1)
create=(manifest create executable="$(command -v python3)" script="$dir/agent/agent.py" prompt="$dir/agent/prompt.txt"
    package="$dir/agent/lib" model="$dir/agent/model")

# ---- what cannot be listed ----
refused "expected executable, script" manifest create modle="$dir/agent/model"
refused "No such file" manifest create "$dir/agent/nothing"
mkfifo "$dir/agent/lib/fifo"
refused "neither file, folder nor link" "${create[@]}"
rm "$dir/agent/lib/fifo"
mkdir "$dir/empty"
refused "no file is listed" manifest create "$dir/empty"

# ---- made, signed ----
"$ctl" "${create[@]}" --out "$dir/m.json" 2> "$dir/err"
agrees
"$ctl" "${create[@]}" 2> /dev/null | cmp - "$dir/m.json" || fail "two manifests of the same files"
refused "manifestSignature" manifest check "$dir/m.json" --signer "$signer"
"$ctl" manifest sign "$dir/m.json" --key "$dir/one.pem" 2> "$dir/err"
grep -q "^signer $signer$" "$dir/err" || fail "sign: $(cat "$dir/err")"
"$ctl" manifest check "$dir/m.json" --signer "$signer" > /dev/null || fail "the signer is not the one"
if command -v fsverity > /dev/null; then # of fsverity-utils
    while read -r path verity; do
        [ "$(fsverity digest --compact "$path")" = "$verity" ] || fail "fsverity digest of $path"
    done < <(jq -r '.files[] | .path + " " + .verity' "$dir/m.json")
fi

# ---- another's signature, a manifest that was edited ----
"$ctl" manifest sign "$dir/m.json" --key "$dir/two.pem" --out "$dir/two.json" 2> /dev/null
refused "manifestSignature: the manifest is signed by" manifest check "$dir/two.json" --signer "$signer"
jq --arg s "$(jq -r .signature "$dir/m.json" | tr 'A-Ma-m' 'N-Zn-z')" '.signature = $s' "$dir/m.json" > "$dir/bad.json"
refused "manifestSignature" manifest check "$dir/bad.json"
sed 's/"size":70000/"size":70001/' "$dir/m.json" > "$dir/bad.json"
refused "manifestRoot" manifest check "$dir/bad.json"
refused "manifestRoot" manifest check "$dir/m.json" --root "$signer"
chmod 644 "$dir/one.pem"
refused "lets others at the key" manifest sign "$dir/m.json" --key "$dir/one.pem"

# ---- each difference alone ----
model=$dir/agent/model/weights.bin
was=$(sha "$model")
cp "$model" "$dir/model"
printf 'x' | dd of="$model" bs=1 seek=4000 conv=notrunc status=none
differs changed "$model" "expected sha256 $was, found $(sha "$model")"
cp "$dir/model" "$model"
agrees
echo 'print("and more")' >> "$dir/agent/agent.py" # written to in place
differs changed "$dir/agent/agent.py" "found $(sha "$dir/agent/agent.py")"
echo 'import risk' > "$dir/agent/.new" && mv "$dir/agent/.new" "$dir/agent/agent.py" # and replaced
agrees
mv "$dir/agent/prompt.txt" "$dir/agent/gone"
differs missing "$dir/agent/prompt.txt" "found nothing"
ln -s gone "$dir/agent/prompt.txt" # the same content by way of a link
differs notAFile "$dir/agent/prompt.txt" "a symbolic link"
rm "$dir/agent/prompt.txt"
ln "$dir/agent/gone" "$dir/agent/prompt.txt" # a hard link is the file
agrees
echo 'be careless' > "$dir/agent/gone" # written to by its other name
differs changed "$dir/agent/prompt.txt" "found $(sha "$dir/agent/gone")"
rm "$dir/agent/prompt.txt"
echo 'be careful' > "$dir/agent/prompt.txt"
touch "$dir/agent/lib/risk/sitecustomize.py"
differs extra "$dir/agent/lib/risk/sitecustomize.py" "not listed"
rm "$dir/agent/lib/risk/sitecustomize.py"
ln -sfn /etc/passwd "$dir/agent/model/latest"
differs changed "$dir/agent/model/latest" "to /etc/passwd"
ln -sfn weights.bin "$dir/agent/model/latest"
mv "$dir/agent/lib" "$dir/agent/lib2"
ln -s lib2 "$dir/agent/lib" # the folder itself is a link by now
rc=0
"$ctl" --json manifest check "$dir/m.json" > "$dir/out" 2> /dev/null || rc=$?
[ "$rc" -eq 1 ] && grep -q 'symbolic link on the way' "$dir/out" || fail "a folder became a link: $(cat "$dir/out")"
rm "$dir/agent/lib"
mv "$dir/agent/lib2" "$dir/agent/lib"
agrees
# ---- a model-signing bundle: made by hand, as the standard says ----
if python3 -c 'import cryptography' 2> /dev/null; then
    rm "$dir/agent/model/latest" # a link is in no bundle
    openssl pkey -in "$dir/one.pem" -pubout -out "$dir/one.pub"
    openssl pkey -in "$dir/two.pem" -pubout -out "$dir/two.pub"
    python3 - "$dir/one.pem" "$dir/agent/model/weights.bin" "$dir/agent/model/model.sig" << 'END'
import base64, hashlib, json, sys
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
key = serialization.load_pem_private_key(open(sys.argv[1], "rb").read(), None)
digest = hashlib.sha256(open(sys.argv[2], "rb").read())
kind = b"application/vnd.in-toto+json"
payload = json.dumps({
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "m", "digest": {"sha256": hashlib.sha256(digest.digest()).hexdigest()}}],
    "predicateType": "https://model_signing/signature/v1.0",
    "predicate": {
        "resources": [{"name": "weights.bin", "algorithm": "sha256", "digest": digest.hexdigest()}],
        "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False}}}).encode()
signature = key.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload), ec.ECDSA(hashes.SHA256()))
json.dump({"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
           "verificationMaterial": {"publicKey": {"hint": ""}, "tlogEntries": []},
           "dsseEnvelope": {"payload": base64.b64encode(payload).decode(), "payloadType": kind.decode(),
                            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}]}},
          open(sys.argv[3], "w"))
END
    bundle=(--bundle "$dir/agent/model/model.sig" --bundle-dir "$dir/agent/model" --bundle-key)
    "$ctl" "${create[@]}" --out "$dir/m.json" "${bundle[@]}" "$dir/one.pub" 2> /dev/null || fail "create with a bundle"
    "$ctl" manifest check "$dir/m.json" "${bundle[@]}" "$dir/one.pub" > /dev/null || fail "check with a bundle"
    refused "bundleSignature" "${create[@]}" "${bundle[@]}" "$dir/two.pub"
    refused "expected --bundle" "${create[@]}" --bundle "$dir/agent/model/model.sig"
    echo more > "$dir/agent/model/adapter.bin"
    refused "bundleFile: $dir/agent/model/adapter.bin" "${create[@]}" "${bundle[@]}" "$dir/one.pub"
    rm "$dir/agent/model/adapter.bin"
    printf 'x' | dd of="$model" bs=1 seek=4000 conv=notrunc status=none
    refused "bundleFile: $model: the model-signing bundle has $was, found $(sha "$model")" "${create[@]}" "${bundle[@]}" "$dir/one.pub"
    sed -i 's/"payload": "ey/"payload": "eZ/' "$dir/agent/model/model.sig"
    refused "bundleSignature" "${create[@]}" "${bundle[@]}" "$dir/one.pub"
fi
echo "manifests: made, signed, checked; every difference named"
