# shellcheck shell=bash
# The guest's kernels: Debian's cloud kernel and the one before it, from their packages, which are fetched and unpacked but
# not installed. kernel_file and kernel_modules say where.

boot_kernels=$ATT_ROOT/build/boot-kernels

# kernel_names: the package that Debian's meta-package means, then the newest of those before it, if there is one
kernel_names() {
    local now
    now=$(apt-cache depends --important linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
    [ -n "$now" ] || die "this Debian has no linux-image-cloud-amd64"
    apt-cache search --names-only '^linux-image-[0-9].*[0-9]-cloud-amd64$' | cut -d' ' -f1 | { cat; echo "$now"; } | sort -uV |
        awk -v now="$now" '$0 == now { print now; if (before != "") print before; exit } { before = $0 }'
}

# kernel_fetch NAME: into build/boot-kernels/NAME, once
kernel_fetch() {
    local to=$boot_kernels/$1
    [ ! -e "$to/done" ] || return 0
    rm -rf "$to"
    mkdir -p "$to/fetched"
    (cd "$to/fetched" && apt-get download -qq "$1" -o APT::Sandbox::User=root > "$to/log" 2>&1) || {
        cat "$to/log" >&2
        die "apt-get download $1 failed"
    }
    dpkg-deb -x "$to"/fetched/*.deb "$to/root"
    rm -rf "$to/fetched"
    touch "$to/done"
}

kernel_file() { find "$boot_kernels/$1/root/boot" -name 'vmlinuz-*'; }

# kernel_modules NAME MODULE...: their files, in the order in which they are loaded
kernel_modules() {
    local root=$boot_kernels/$1/root version
    version=$(basename "$(kernel_file "$1")")
    version=${version#vmlinuz-}
    shift
    [ -e "$root/lib/modules/$version/modules.dep.bin" ] || depmod -b "$root" "$version"
    modprobe -d "$root" -S "$version" --show-depends -a "$@" | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++'
}
