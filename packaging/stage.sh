# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034 # who sources it uses them
# Sourced by what makes packages: what goes into them, whatever their form.
# DKMS_BINARY, when set, is packed instead of build/dkms.

# need PROGRAM HINT…: stops where a program is missing that packages are made with.
need() {
    command -v "$1" >/dev/null && return
    local script=${0##*/}
    echo "make ${script%.sh}: there is no $1 here (${*:2})" >&2
    exit 1
}

version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# The same files make the same package: as old as the newest entry of the changelog.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date -d "$(sed -n 's/^ -- .*>  //p;T;q' packaging/debian/changelog)" +%s)}
export SOURCE_DATE_EPOCH

# stage FAMILY: everything below $work/root, with manual pages compressed as packages have them; the
# licences of what the binary was made of in $work/crates.
# All of it goes when the shell ends.
stage() {
    work=$(mktemp -d "${TMPDIR:-/tmp}/dkms-hooks-package.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    packaging/install.sh "$work/root" /usr "$1" >&2
    [ -z "${DKMS_BINARY:-}" ] || install -m 755 "$DKMS_BINARY" "$work"/root/usr/*bin/dkms
    find "$work/root/usr/share/man" -type f -exec gzip -9n {} +
    "${CARGO:-cargo}" tree --locked --offline -e normal,no-proc-macro --prefix none -f '{p}|{l}' |
        sed -E '1d; s/( \([^|]*)?\|/: /' | sort -u >"$work/crates"
}
