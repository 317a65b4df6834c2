# shellcheck shell=bash
# shellcheck disable=SC2154 # root comes from the script
# A guest's Debian 12 as root of a disk: made once by debootstrap, then copied by hard links and never written to.

debian_packages=systemd,systemd-sysv,udev,dbus,kmod,initramfs-tools,linux-image-cloud-amd64,tpm-udev
debian_packages+=,libtss2-esys-3.0.2-0,libtss2-mu0,libtss2-rc0,libtss2-sys1,libtss2-tctildr0,libtss2-tcti-device0
debian_packages+=,libssl3,libevent-core-2.1-7,libevent-extra-2.1-7,libevent-openssl-2.1-7,libevent-pthreads-2.1-7
debian_packages+=,libcurl4,libjansson4,libcbor0.8,libcyaml1,libyaml-0-2,libsqlite3-0,libseccomp2,libsystemd0,zlib1g
debian_packages+=,libnghttp2-14,libprotobuf-c1,libp11-kit0,p11-kit-modules

# debian_base FOLDER [PACKAGE...]: FOLDER/root, with an initial file system of what the machine needs and no more (it is
# unpacked in emulation); apt-get installs the PACKAGEs, since debootstrap knows no virtual ones
debian_base() {
    local base=$1 packages
    shift
    packages="$debian_packages $*"
    if [ "$(cat "$base/packages" 2> /dev/null)" = "$packages" ]; then
        return 0
    fi
    rm -rf --one-file-system "$base"
    mkdir -p "$base"
    # shellcheck disable=SC2086 # an empty ATT_MIRROR is no argument
    debootstrap --variant=minbase "--include=$debian_packages" bookworm "$base/root" ${ATT_MIRROR:-} > "$base/log" 2>&1 || {
        tail -n 20 "$base/log" >&2
        die "debootstrap bookworm failed"
    }
    [ $# -eq 0 ] || chroot "$base/root" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >> "$base/log" 2>&1 ||
        die "apt-get install $* failed: $base/log"
    printf '%s\n' virtio_pci virtio_blk ext4 > "$base/root/etc/initramfs-tools/modules"
    sed -i 's/^MODULES=.*/MODULES=list/' "$base/root/etc/initramfs-tools/initramfs.conf"
    chroot "$base/root" update-initramfs -u >> "$base/log" 2>&1 || die "update-initramfs failed: $base/log"
    rm -rf "$base/root/var/cache/apt" "$base/root/usr/share/doc" "$base/root/usr/share/locale" "$base/root/usr/share/man"
    printf '%s' "$packages" > "$base/packages"
}

put() { # put PATH: from standard input; never through a hard link into the base
    mkdir -p "$(dirname "$root$1")"
    rm -f "$root$1"
    cat > "$root$1"
}

# debian_configure NAME DISK PORT: a name, a root, a network, and the test's hand at virtio port PORT: one line of base64 is a
# command, one line answers
debian_configure() {
    put /etc/machine-id <<< "$(tr -d - < /proc/sys/kernel/random/uuid)"
    put /etc/hostname <<< "$1"
    put /etc/fstab <<< "$2 / ext4 defaults 0 1"
    put /etc/systemd/network/guest.network << END
[Match]
Driver=virtio_net
[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
END
    put /usr/local/sbin/guest-hand << END
#!/bin/bash
while [ ! -e /dev/virtio-ports/$3 ]; do sleep 0.2; done
exec 3<> /dev/virtio-ports/$3
END
    cat >> "$root/usr/local/sbin/guest-hand" << 'END'
echo "up" >&3
while IFS= read -r line <&3; do
    out=$(base64 -d <<< "$line" | bash 2>&1)
    status=$?
    echo "$({ [ -z "$out" ] || echo "$out"; } | base64 -w0) $status" >&3
done
END
    chmod 755 "$root/usr/local/sbin/guest-hand"
    put /etc/systemd/system/guest-hand.service << 'END'
[Service]
ExecStart=/usr/local/sbin/guest-hand
[Install]
WantedBy=multi-user.target
END
    chroot "$root" systemctl enable guest-hand systemd-networkd > "$work/enable.log" 2>&1 || { cat "$work/enable.log"; exit 1; }
    chroot "$root" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
        fstrim.timer getty@tty1.service systemd-logind.service > /dev/null 2>&1
}
