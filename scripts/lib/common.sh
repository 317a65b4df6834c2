# shellcheck shell=bash
# shellcheck disable=SC2034 # those who source this use the lists
# What every script needs: where the tree is, which Debian packages are wanted, how to install them.

ATT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export ATT_ROOT

ATT_PACKAGES_BUILD=(gcc libc6-dev cmake ninja-build pkg-config libtss2-dev libssl-dev libevent-dev
    libcurl4-openssl-dev libjansson-dev libcbor-dev libcyaml-dev libyaml-dev libsqlite3-dev libpq-dev
    libseccomp-dev libsystemd-dev zlib1g-dev libp11-kit-dev
    libnghttp2-dev libprotobuf-c-dev protobuf-c-compiler)
ATT_PACKAGES_RUN=(swtpm swtpm-tools tpm2-tools openssl jq xxd procps p11-kit-modules
    libengine-pkcs11-openssl gnutls-bin)
ATT_PACKAGES_TEST=(libcmocka-dev python3 python3-acme python3-cryptography curl sqlite3
    postgresql postgresql-client
    p11-kit p11-kit-modules gnutls-bin opensc libengine-pkcs11-openssl python3-requests python3-pycurl python3-gunicorn
    openssh-client util-linux
    python3-grpcio python3-protobuf python3-hpack python3-jwt python3-oauthlib python3-boto3 protobuf-compiler protobuf-compiler-grpc libprotobuf-dev
    softhsm2 libtpm2-pkcs11-1 libtpm2-pkcs11-tools
    iproute2 haproxy)
# Where this Debian has them (13, or 12 with backports); without them their part of a test is left out.
ATT_PACKAGES_MAYBE=(pkcs11-provider pebble)
ATT_PACKAGES_VALGRIND=(valgrind)
# Heavy, or servers that their package starts: for tests/interop.
ATT_PACKAGES_INTEROP=(nginx-light default-jdk-headless nodejs openssh-server golang-go
    golang-github-thalesignite-crypto11-dev golang-golang-x-mod-dev
    certbot lego uacme dehydrated acme-tiny)
ATT_PACKAGES_INTEROP_MAYBE=(golang-github-spiffe-go-spiffe-dev npm python3-venv maven) # 13; the rest both
# The clients of api.sock that the gate runs in its Debian 13 (scripts/fresh --interop).
ATT_PACKAGES_INTEROP_FRESH=(golang-go golang-github-spiffe-go-spiffe-dev nodejs)
# On a host with a TPM, tpm2-abrmd is a service that takes it: for CI and throw-away systems only; without it
# its test skips. systemd and apparmor bring the tools that test_units asks. The last line: who drives the ACME server.
ATT_PACKAGES_CI=(tpm2-abrmd libtss2-tcti-tabrmd0 dbus-daemon systemd apparmor
    certbot lego uacme dehydrated acme-tiny)
ATT_PACKAGES_BOOT=(qemu-system-x86 ovmf debootstrap debian-archive-keyring e2fsprogs xorriso)
# tests/boot/matrix; the kernels it fetches without installing them.
ATT_PACKAGES_MATRIX=(qemu-system-x86 ovmf systemd-boot-efi sbsigntool mtools e2fsprogs busybox-static cpio kmod binutils
    cryptsetup-bin dmsetup)
ATT_PACKAGES_DEB=(build-essential dpkg-dev debhelper dh-apparmor po-debconf fakeroot)
ATT_PACKAGES_LINT=(clang-format shellcheck git mandoc)
ATT_PACKAGES_FUZZ=(clang libclang-rt-dev)

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo > /dev/null; then
        sudo "$@"
    else
        die "root (or sudo) is needed for: $*"
    fi
}

# install_packages NAME...: says what is missing, installs just that.
install_packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$name" 2> /dev/null | grep -qx installed || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    say "installing Debian packages: ${missing[*]}"
    local try status
    for try in 1 2 3; do # mirrors and networks have their moments
        status=0
        as_root apt-get update -qq > /dev/null || status=$?
        [ "$status" -ne 0 ] || as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            "${missing[@]}" > /dev/null || status=$?
        [ "$status" -ne 0 ] || return 0
        say "apt-get ended with status $status (try $try of 3)"
        sleep $((try * 5))
    done
    die "apt-get could not install: ${missing[*]}"
}

# install_packages_maybe NAME...: those that this Debian's sources have.
install_packages_maybe() {
    local known=() name
    for name in "$@"; do
        apt-cache policy "$name" 2> /dev/null | grep -q 'Candidate: [0-9]' && known+=("$name")
    done
    [ ${#known[@]} -eq 0 ] || install_packages "${known[@]}"
}

# build_tree DIR [cmake options...]: configures if need be, builds everything.
build_tree() {
    local dir=$1
    shift
    cmake -S "$ATT_ROOT" -B "$dir" -G Ninja "$@" > "$dir.configure.log" 2>&1 || {
        cat "$dir.configure.log" >&2
        die "cmake failed"
    }
    rm -f "$dir.configure.log"
    cmake --build "$dir" -- --quiet || die "the build failed"
}
