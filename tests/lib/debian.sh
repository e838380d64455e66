#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Whole small Debians for tests with the real apt: nothing of this machine but its kernel shows.
# They are roots of the lab (see lab.sh: lab_new before, DIR/enter and lab_drop after).
#
#   debian.sh root DIR [SUITE [PACKAGE…]]
#                          makes DIR a root over the base system, with PACKAGE… installed once for
#                          all roots that ask for the same
#   debian.sh fetch DIR PACKAGE…
#                          downloads what installing PACKAGE… in that root will need. Roots share
#                          one archive, where only this takes turns: apt there locks nothing
#   debian.sh base [SUITE] prints the base's directory: a minimal system of a suite, this machine's
#                          own without an argument, with one kernel, its headers and a toolchain,
#                          package lists of all components, and no dkms. Cached for a week, as the
#                          archive moves on
#   debian.sh kernels [SUITE]
#                          lines "old REL", "new REL": the base's kernel, and the newest one that
#                          its apt knows. A suite that has only one has no line "new"
#
# Wants root, and mmdebstrap (installed on demand).
# Environment: DKMS_TEST_CACHE, DKMS_TEST_ROOTS, as for lab.sh.
set -euo pipefail

HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=lab.sh
. "$HERE/lab.sh"
# shellcheck source=debian-sources.sh
. "$HERE/debian-sources.sh"

ARCHIVES=$LAB_CACHE/archives

debian_base() {
    local suite=${1:-} name dir
    suite=${suite:-$(own_suite)}
    # shellcheck disable=SC2119 # lab_kernels goes without its argument
    name=debian-$suite-$({
        lab_kernels
        declare -f _debian_make _debian_kernels
    } | sha256sum | cut -c1-12)
    mkdir -p "$LAB_CACHE" "$ARCHIVES/partial"
    (
        flock 9
        dir=$LAB_CACHE/$name
        if [ -z "$(find "$dir" -maxdepth 0 -mtime -7 2>/dev/null)" ]; then
            if _debian_make "$suite" "$dir.new"; then
                [ ! -d "$dir" ] || rm -rf --one-file-system "$dir"
                mv "$dir.new" "$dir"
                touch "$dir"
            else
                rm -rf --one-file-system "$dir.new"
                [ -d "$dir" ] || exit 1
                _lab_say "cannot make a new base system, using the one of $(date -r "$dir" +%F)"
            fi
        fi
        printf '%s\n' "$dir"
    ) 9>"$LAB_CACHE/.debian-lock-$suite"
}

_debian_make() {
    local suite=$1 dir=$2 sources started=$SECONDS turn
    sources=$(write_sources "$suite" main contrib non-free)
    [ -n "$sources" ] || _lab_die "this machine's apt has no Debian sources" || return
    exec {turn}>"$LAB_CACHE/.mmdebstrap-lock"
    flock "$turn"
    if ! command -v mmdebstrap >/dev/null; then
        _lab_say "installing mmdebstrap"
        apt-get -qq update >&2 && apt-get -qq install -y --no-install-recommends mmdebstrap >&2 || return
    fi
    exec {turn}>&-
    _lab_say "making a base system of $suite"
    rm -rf --one-file-system "$dir"
    # The hook has the first initramfs small already; nothing here boots. Lists of a suite that is
    # not released are good for a week: this machine's mirror or its clock may be further off.
    # shellcheck disable=SC2016 # for mmdebstrap's shell
    mmdebstrap --quiet --mode=root --variant=minbase --skip=cleanup/apt/lists \
        --include=initramfs-tools,gcc,libc6-dev,make,kmod,ca-certificates \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
        --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Debug::NoLocking "1"' \
        --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/locale/*' \
        --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" &&
            printf "MODULES=list\nCOMPRESS=gzip\n" >"$1/etc/initramfs-tools/conf.d/small"' \
        --customize-hook="$(declare -f _debian_kernels); "'kernels=$(_debian_kernels "$1") &&
            echo "$kernels" >"$1/var/lib/test-kernels" &&
            old=$(echo "$kernels" | sed -n "s/^old //p") && [ -n "$old" ] &&
            chroot "$1" apt-get -qq install -y "linux-image-$old" "linux-headers-$old" >/dev/null' \
        "$suite" "$dir" - <<<"$sources" >&2 || return
    chmod 755 "$dir"
    _lab_say "made it in $((SECONDS - started)) s"
}

# The two newest kernels of the oldest series that the apt of a root knows, as lab_kernels says them.
# For whatever shell sh is.
_debian_kernels() {
    arch=$(chroot "$1" dpkg --print-architecture)
    releases=$(chroot "$1" apt-cache pkgnames linux-headers- |
        sed -nE "s/^linux-headers-([0-9]+\.[0-9]+\.[0-9][^-]*(-[0-9]+)?([+]deb[0-9]+)?-$arch)\$/\1/p" | sort -V)
    series=$(echo "$releases" | head -n 1 | cut -d. -f1,2)
    releases=$(echo "$releases" | grep "^$series\." | tail -n 2)
    echo "old $(echo "$releases" | head -n 1)"
    echo "$releases" | sed -n '2s/^/new /p'
}

debian_kernels() {
    local base
    base=$(debian_base "$@") || return
    cat "$base/var/lib/test-kernels"
}

# Prints a layer over a base in which packages are installed. It is cached for as long as the base is.
_debian_installed() {
    local base=$1 layer dir
    shift
    layer=$base-$(printf '%s\n' "$(stat -c %Y "$base")" "$@" | sha256sum | cut -c1-12)
    (
        flock 9
        if [ ! -d "$layer" ]; then
            _lab_say "installing $* in ${base##*/}"
            find "$LAB_CACHE" -maxdepth 1 -name "${base##*/}-*" -mtime +7 \
                -exec rm -rf --one-file-system {} +
            dir=$(lab_new installed)
            _debian_over "$base" "$dir"
            if "$dir/enter" apt-get -qq install -y --no-install-recommends "$@" </dev/null >&2; then
                mv -T "$dir/root" "$layer.new" && mv -T "$layer.new" "$layer" && mkdir "$dir/root"
            fi
            lab_drop "$dir"
        fi
        [ -d "$layer" ] && printf '%s\n' "$layer"
    ) 9>"$LAB_CACHE/.archives-lock"
}

debian_root() {
    local dir=$1 base layer=
    base=$(debian_base "${2:-}") || return
    if [ $# -gt 2 ]; then
        layer=$(_debian_installed "$base" "${@:3}") || return
    fi
    _debian_over "${layer:+$layer:}$base" "$dir"
}

# Makes a directory a root over these layers.
_debian_over() {
    local lower=$1 dir=$2
    mkdir -p "$dir"/root/etc "$dir/work"
    # Of the machine: how it reaches its mirrors.
    cp -L /etc/resolv.conf "$dir/root/etc/resolv.conf"
    cp /etc/hosts "$dir/root/etc/hosts"
    {
        echo '#!/bin/sh'
        echo '# Made by debian_root: runs its arguments inside this throw-away Debian.'
        # shellcheck disable=SC2016 # for the script, not for now
        echo '[ "$LAB_NAMESPACE" ] || LAB_NAMESPACE=1 exec unshare --mount --propagation private "$0" "$@"'
        echo 'set -e'
        printf 'mount -t overlay lab -o redirect_dir=on,lowerdir=%q,upperdir=%q,workdir=%q %q\n' \
            "$lower" "$dir/root" "$dir/work" "$dir/root"
        printf 'mount --rbind /dev %q\nmount --rbind /proc %q\n' "$dir/root/dev" "$dir/root/proc"
        printf 'mount --bind %q %q\n' "$ARCHIVES" "$dir/root/var/cache/apt/archives"
        # shellcheck disable=SC2016
        printf 'exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 %s %s chroot %q "$@"\n' \
            'DEBIAN_FRONTEND=noninteractive' 'http_proxy="$http_proxy" https_proxy="$https_proxy"' "$dir/root"
    } >"$dir/enter"
    chmod 755 "$dir/enter"
}

debian_fetch() {
    local dir=$1
    shift
    (
        flock 9
        "$dir/enter" apt-get -qq install -y --no-install-recommends --download-only "$@" >&2
    ) 9>"$LAB_CACHE/.archives-lock"
}

"debian_$1" "${@:2}"
