# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # the parts of one script: work and build come from the script
# What the small guest boots: an initial file system with attestd's programs, and a boot disk (systemd-boot, kernel, initrd,
# one entry). Each is measured by an event of its own: loader and kernel in PCR 4, initrd and options in PCR 9, options in 12.

boot_options="console=ttyS0 quiet panic=1 no_timer_check mitigations=off ima_policy=tcb ima_template=ima-ngv2"
snakeoil=/usr/share/ovmf/PkKek-1-snakeoil # OVMF's test key, enrolled in OVMF_VARS_4M.snakeoil.fd

# image_initrd KERNEL FILE [NOTE]: with NOTE in a file of its own it is another initrd
image_initrd() {
    local root=$work/initrd-root program module
    rm -rf "$root"
    mkdir -p "$root/bin" "$root/lib/modules" "$root/etc"
    cp "$(command -v busybox)" "$root/bin/busybox"
    install -m 755 "$ATT_ROOT/tests/boot/lib/init" "$root/init"
    for program in attestd attestd-keyd attestd-whod attestctl; do
        install -m 755 "$build/bin/$program" "$root/bin/$program"
        strip "$root/bin/$program"
    done
    install -m 755 "$(command -v dmsetup)" "$root/bin/dmsetup"
    image_libraries "$root"
    for module in $(kernel_modules "$1" virtio_pci virtio_blk ext4 virtio_net virtio_console virtio_rng qemu_fw_cfg dm_verity); do
        cp "$module" "$root/lib/modules/"
        basename "$module" >> "$root/lib/modules/order"
    done
    [ -z "${3:-}" ] || echo "$3" > "$root/etc/note"
    find "$root" -exec touch -h -d @0 {} +
    (cd "$root" && find . | LC_ALL=C sort | cpio --quiet --reproducible -o -H newc -R 0:0 | gzip -6n) > "$2"
}

# What the programs are linked with, and what libtss2 loads by name.
image_libraries() {
    local library
    {
        for library in attestd attestd-keyd attestd-whod attestctl; do ldd "$build/bin/$library"; done
        ldd "$(command -v dmsetup)"
        library=$(ldconfig -p | sed -n 's/.*libtss2-tcti-device.so.0 .* => //p' | head -n 1)
        [ -n "$library" ] || die "no libtss2-tcti-device.so.0"
        echo "x => $library (0)"
        ldd "$library"
    } | sed -n -e 's/.* => \([^ ]*\) (.*/\1/p' -e 's/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | sort -u |
        while read -r library; do
            mkdir -p "$1$(dirname "$library")"
            cp -L "$library" "$1$library"
        done
}

# image_sign IN OUT: by OVMF's test key
image_sign() {
    [ -e "$work/snakeoil.key" ] || openssl rsa -in "$snakeoil.key" -passin pass:snakeoil -out "$work/snakeoil.key" 2> /dev/null
    sbsign --key "$work/snakeoil.key" --cert "$snakeoil.pem" --output "$2" "$1" > "$work/sbsign.log" 2>&1 ||
        die "sbsign: $(cat "$work/sbsign.log")"
}

# image_esp FILE KERNEL INITRD OPTIONS
image_esp() {
    local stage=$work/esp
    rm -rf "$stage" "$1"
    mkdir -p "$stage/EFI/BOOT" "$stage/loader/entries"
    cp "$work/loader.efi" "$stage/EFI/BOOT/BOOTX64.EFI"
    cp "$2" "$stage/kernel.efi"
    cp "$3" "$stage/initrd"
    printf 'title attestd\nlinux /kernel.efi\ninitrd /initrd\noptions %s\n' "$4" > "$stage/loader/entries/attestd.conf"
    find "$stage" -exec touch -d @0 {} +
    truncate -s 64M "$1"
    mformat -i "$1" -F -N 12345678 -v ESP ::
    mcopy -i "$1" -s -m "$stage"/* ::/
}
