#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Roots of a small Debian with everything that makes initramfs images, for tests that read them back.
#
#   image-root.sh make SUITE      prints a directory that holds the root; it must not be written to.
#                                 Cached for a week, as the archive moves on
#   image-root.sh run ROOT DIR -- CMD [ARG…]
#                                 runs a command in it; what it writes stays in DIR/written
#
# Wants root and overlay mounts, and mmdebstrap (installed on demand).
# DKMS_TEST_CACHE: where roots are kept, default target/test-cache.
set -euo pipefail

# shellcheck source=debian-sources.sh
. "$(dirname "${BASH_SOURCE[0]}")/debian-sources.sh"

PACKAGES=(
    kmod udev initramfs-tools dracut-core busybox cpio gzip bzip2 xz-utils zstd lz4 lzop
    libarchive-tools binutils systemd-boot-efi linux-image-cloud-amd64 linux-headers-cloud-amd64
    gcc libc6-dev make
)

say() { printf 'image-root: %s\n' "$*" >&2; }

die() {
    say "$*"
    exit 2
}

make_root() {
    local suite=$1 cache=${DKMS_TEST_CACHE:-target/test-cache} root
    # Not in every suite.
    [ "$suite" = bookworm ] || PACKAGES+=(systemd-ukify)
    mkdir -p "$cache"
    cache=$(cd "$cache" && pwd)
    root=$cache/image-root-$suite-$({
        printf '%s\n' "${PACKAGES[@]}"
        declare -f unpack
    } | sha256sum | cut -c1-12)
    exec 9>"$cache/.image-root-$suite.lock"
    flock 9
    if [ -z "$(find "$root" -maxdepth 0 -mtime -7 2>/dev/null)" ]; then
        if unpack "$suite" "$root.new"; then
            [ ! -d "$root" ] || rm -rf --one-file-system "$root"
            mv -T "$root.new" "$root"
            touch "$root"
        else
            rm -rf --one-file-system "$root.new"
            [ -d "$root" ] || die "cannot make a root of $suite"
            say "cannot make a new root of $suite, using the one of $(date -r "$root" +%F)"
        fi
    fi
    printf '%s\n' "$root"
}

unpack() {
    local suite=$1 root=$2 sources started=$SECONDS
    sources=$(write_sources "$suite")
    [ -n "$sources" ] || die "this machine's apt has no Debian sources"
    if ! command -v mmdebstrap >/dev/null; then
        say "installing mmdebstrap"
        apt-get -qq update >&2 && apt-get -qq install -y --no-install-recommends mmdebstrap >&2 || return
    fi
    say "making a root of $suite"
    rm -rf --one-file-system "$root"
    # The images that packages would make are not wanted.
    # shellcheck disable=SC2016 # for mmdebstrap's shell
    mmdebstrap --quiet --mode=root --variant=minbase \
        --include="$(
            IFS=,
            echo "${PACKAGES[*]}"
        )" \
        --aptopt='APT::Install-Recommends "false"' --dpkgopt=force-unsafe-io --dpkgopt=force-confold \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools" &&
            echo update_initramfs=no >"$1/etc/initramfs-tools/update-initramfs.conf"' \
        "$suite" "$root" - <<<"$sources" >&2 || return
    chmod 755 "$root"
    say "made it in $((SECONDS - started)) s"
}

run() {
    local root=$1 dir=$2 there node
    shift 3
    there=$dir/root
    mkdir -p "$dir/written" "$dir/work" "$there"
    mount -t overlay -o "lowerdir=$root,upperdir=$dir/written,workdir=$dir/work" lab "$there"
    mount -t tmpfs -o mode=755 none "$there/dev"
    for node in null zero full random urandom tty; do
        cp -a "/dev/$node" "$there/dev/$node"
    done
    ln -s /proc/self/fd "$there/dev/fd"
    mount -t proc none "$there/proc"
    mount -t tmpfs none "$there/run"
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 chroot "$there" "$@"
}

[ "$(id -u)" = 0 ] || die "this needs root"
case ${1:-} in
    make)
        [ $# = 2 ] || die "usage: make SUITE"
        make_root "$2"
        ;;
    run)
        if [ $# -lt 5 ] || [ "$4" != -- ]; then
            die "usage: run ROOT DIR -- CMD [ARG…]"
        fi
        if [ -z "${IMAGE_ROOT_NAMESPACE:-}" ]; then
            IMAGE_ROOT_NAMESPACE=1 exec unshare -m --propagation private "$0" "$@"
        fi
        unset IMAGE_ROOT_NAMESPACE
        shift
        run "$@"
        ;;
    *) die "usage: see the head of $0" ;;
esac
