# shellcheck shell=bash
# scripts/deb's packages, for the tests that install them.

# deb_of DIR PACKAGE: the newest of this tree's version there
deb_of() {
    local version
    version=$(sed -n 's/^project(attestd VERSION \([0-9.]*\) .*/\1/p' "$ATT_ROOT/CMakeLists.txt")
    find "$1" -maxdepth 1 -name "$2_${version}*.deb" | sort -V | tail -n 1
}

# deb_earlier DEB OUT: the same package under a lower number, so that there is something to upgrade from
deb_earlier() {
    local tree version
    tree=$(mktemp -d)
    dpkg-deb -R "$1" "$tree"
    version=$(dpkg-deb -f "$1" Version)
    sed -i "s/^Version: .*/Version: $version~earlier/; s/\(attestctl\|attest-issuerd\) (= [^)]*)/\1 (= $version~earlier)/g" "$tree/DEBIAN/control"
    dpkg-deb --root-owner-group -b "$tree" "$2" > /dev/null
    rm -rf "$tree"
}
