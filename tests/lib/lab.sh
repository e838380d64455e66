#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The lab: throw-away roots made of real Debian packages, for the demo and the
# tests. Nothing is installed on the machine; nothing outside the cache and the
# roots' own directories is written (apt's package lists excepted).
#
# Source it, or call one function:  tests/lib/lab.sh kernels
#
#   lab_kernels [FLAVOUR]         lines "old REL", "new REL", "next REL": the two
#                                 newest ABIs of the oldest kernel series that the
#                                 archive carries and the newest of its newest series
#   lab_layer [--only] NAME PKG…  prints a directory holding PKG… unpacked, and what
#                                 they depend on that this machine lacks (--only:
#                                 nothing else). Cached by package versions
#   lab_headers REL               lab_layer of everything needed to build for REL
#   lab_foreign_headers REL ARCH  prints the release of the same ABI for another of
#                                 Debian's architectures, and a layer of what its
#                                 headers package adds to lab_headers of REL
#   lab_image REL                 lab_layer of REL's image package (vmlinuz, modules)
#   lab_package PKG               prints the path of PKG's .deb, downloaded
#   lab_tools                     lab_layer of kmod, and gcc and make where missing
#   lab_cargo_program CRATE VERSION FEATURES
#                                 prints the path of a program from crates.io, compiled
#   lab_new [PREFIX]              makes an empty directory for a root, prints it
#   lab_root DIR OPTION…          prepares DIR as a root. Options, each repeatable:
#                                   --layer L        a directory from lab_layer
#                                   --bind SRC:DST   SRC of this machine shown as DST
#                                   --sys            show this machine's /sys, read-only
#   lab_run DIR CMD…              runs CMD as root inside; what it writes stays in DIR
#   lab_kernel DIR REL            a stand-in for REL's image: an empty module tree and
#                                 a /boot/vmlinuz-REL that is plain text
#   lab_build                     makes build/dkms (not when DKMS_BINARY is set)
#   lab_install DIR [FAMILY]      make install into DIR (FAMILY: debian); DKMS_BINARY,
#                                 when set, is put there as /usr/sbin/dkms
#   lab_deb                       prints the path of our package, made of what lab_install installs
#   lab_rpm, lab_pkg              the same for the packages of rpm and pacman; what makes them is laid
#                                 over this machine's /usr and /etc for the time of the call
#   lab_bundle                    the same for the content of Clear Linux's bundle
#   lab_source DIR NAME VERSION [good|broken] [CONF-LINE…]
#                                 /usr/src/NAME-VERSION: a one-file module
#   lab_drop DIR                  removes a root
#   lab_blocked [root]            prints why the lab cannot work here (no network, no
#                                 namespaces…) and succeeds; silent and fails where it
#                                 can. With "root", a user namespace is not enough
#
# A root is DIR/root: seen from outside it holds exactly what was written (by
# lab_run or by hand), so files can be put in and looked at without entering.
# Inside, /usr, /etc and /var are overlays of DIR/root over the layers over this
# machine's own; the rest is DIR/root alone. This machine's kernel modules,
# headers, dkms and kernel hooks are hidden. Enter one by hand: DIR/enter bash
#
# Environment: DKMS_TEST_CACHE (default target/test-cache), DKMS_TEST_ROOTS
# (default target/test-roots; not on an overlay filesystem), DKMS_BINARY.

LAB_REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
LAB_CACHE=${DKMS_TEST_CACHE:-$LAB_REPO/target/test-cache}
LAB_ROOTS=${DKMS_TEST_ROOTS:-$LAB_REPO/target/test-roots}

# Without root, a root is a user namespace where we are root: good enough for
# the demo, but chown(2) to anybody else fails there, so not for dpkg.
LAB_USER=
[ "$(id -u)" = 0 ] || LAB_USER='--user --map-root-user'

# What this machine may have and a root must not show. Bump the number in
# _lab_mask when it changes: masks are cached.
LAB_HIDDEN=(
    usr/lib/modules usr/src usr/lib/dkms usr/sbin/dkms etc/dkms var/lib/dkms
    etc/modprobe.d etc/depmod.d etc/machine-id etc/machine-info
    # kernel hooks, and the tools by which a system shows what boots it
    usr/lib/kernel usr/share/kernel etc/kernel usr/bin/kernel-install usr/bin/bootctl
    etc/grub.d etc/default/grub etc/default/grub.d usr/sbin/grub-mkconfig usr/sbin/update-grub
    etc/initramfs-tools etc/initramfs usr/sbin/update-initramfs usr/sbin/mkinitramfs
    usr/bin/dracut usr/bin/mkinitcpio usr/bin/booster usr/sbin/zipl usr/sbin/flash-kernel
    usr/sbin/u-boot-update usr/sbin/installkernel
)

_lab_say() { printf 'lab: %s\n' "$*" >&2; }

_lab_die() {
    _lab_say "$*"
    return 1
}

# ── packages ──────────────────────────────────────────────────────────────────

# Package lists are fetched when there are none, or when they are a week old:
# the archive drops superseded versions.
_lab_lists() {
    local lists
    eval "$(apt-config shell lists Dir::State::lists/d)"
    if compgen -G "$lists/*_Packages*" >/dev/null &&
        [ -z "$(find "$lists" -maxdepth 0 -mtime +7)" ]; then
        return 0
    fi
    _lab_update
}

_lab_update() {
    if [ "$(id -u)" != 0 ]; then
        _lab_say "apt's package lists are missing or old, and only root can fetch them"
        return 0
    fi
    _lab_say "fetching package lists (apt-get update)"
    apt-get -qq update >&2 || _lab_say "apt-get update failed, going on with what is there"
}

lab_kernels() {
    local flavour releases='' first last
    _lab_lists
    # Debian names the flavour of most machines by the architecture, Ubuntu
    # "generic". Exactly that: "amd64" is not "cloud-amd64" or "rt-amd64".
    for flavour in ${1:-"$(dpkg --print-architecture)" generic}; do
        [ -n "$releases" ] || releases=$(apt-cache pkgnames linux-headers- |
            sed -nE "s/^linux-headers-([0-9]+\.[0-9]+\.[0-9][^-]*(-[0-9]+)?-$flavour)\$/\1/p" | sort -V)
    done
    [ -n "$releases" ] || _lab_die "apt knows no linux-headers-*-$flavour" || return
    first=$(head -n1 <<<"$releases" | cut -d. -f1,2)
    last=$(tail -n1 <<<"$releases" | cut -d. -f1,2)
    grep "^$first\." <<<"$releases" | tail -n2 | sed -e '1s/^/old /' -e '2s/^/new /'
    if [ "$first" != "$last" ]; then
        grep "^$last\." <<<"$releases" | tail -n1 | sed 's/^/next /'
    fi
}

# Prints NAME=VERSION of each package a layer needs: those asked for, whether or
# not this machine has them, and what apt would have to install beside them.
_lab_resolve() {
    local only=$1 plan
    shift
    if [ "$only" = headers ]; then
        # Named one by one: a machine that has some of them installed hides them
        # from the root, so they must all be in the layer. The libraries are for
        # objtool and sign-file. (6.12 headers depend on an image: not to build.)
        only=yes
        # shellcheck disable=SC2046 # a word per package
        set -- $(apt-cache depends --recurse --important "$1" |
            grep -xE 'linux-(headers|kbuild)-.*|libelf1.*|libssl3.*|pahole')
    fi
    plan=$(apt-get -s -qq install --reinstall --no-install-recommends "$@" 2>&1) ||
        _lab_die "apt cannot resolve $*: $plan" || return
    # linux-compiler is an empty package; linux-perf and linux-libc-dev are only
    # upgraded along, and large.
    sed -nE 's/^Inst ([^ ]+)( \[[^]]*\])? \(([^ ]+) .*/\1=\3/p' <<<"$plan" |
        grep -vE '^linux-(compiler|perf|libc-dev)' |
        if [ "$only" = yes ]; then
            grep -E "^($(printf '%s\n' "$@" | sed 's/[.+]/\\&/g' | paste -sd'|'))="
        else
            cat
        fi | sort -u
}

lab_layer() {
    local only=no name memo dir
    case $1 in
        --only) only=yes && shift ;;
        --headers) only=headers && shift ;;
    esac
    name=$1
    shift
    mkdir -p "$LAB_CACHE/layers" "$LAB_CACHE/resolved" "$LAB_CACHE/debs"
    # apt needs a second to resolve; its answer holds while its inputs do.
    memo=$LAB_CACHE/resolved/$(stat -c '%n %Y' /var/lib/apt/lists /var/lib/dpkg/status |
        sha256sum - <(printf '%s\n' 1 "$only" "$name" "$@") | sha256sum | cut -c1-24)
    if [ -s "$memo" ]; then
        dir=$LAB_CACHE/layers/$(<"$memo")
        if [ -d "$dir" ]; then
            printf '%s\n' "$dir"
            return 0
        fi
    fi
    (
        set -e
        flock 9
        if ! dir=$(_lab_build_layer "$only" "$name" "$@"); then
            # Off line, an older copy of the same packages will do.
            dir=$(grep -lsxF "$*" "$LAB_CACHE/layers/$name"-*/.packages-asked | tail -n1)
            [ -n "$dir" ] || exit 1
            dir=${dir%/*}
            _lab_say "cannot fetch $name, using the copy in ${dir##*/}"
        else
            printf '%s\n' "${dir##*/}" >"$memo.$$"
            mv "$memo.$$" "$memo"
        fi
        printf '%s\n' "$dir"
    ) 9>"$LAB_CACHE/.lock"
}

_lab_build_layer() {
    local only=$1 name=$2 packages dir build file
    shift 2
    _lab_lists
    packages=$(_lab_resolve "$only" "$@") && [ -n "$packages" ] || return 1
    dir=$LAB_CACHE/layers/$name-$(sha256sum <<<"$packages" | cut -c1-12)
    if [ ! -d "$dir" ]; then
        # shellcheck disable=SC2086 # a word per package
        _lab_download $packages || {
            _lab_update
            packages=$(_lab_resolve "$only" "$@")
            dir=$LAB_CACHE/layers/$name-$(sha256sum <<<"$packages" | cut -c1-12)
            # shellcheck disable=SC2086
            _lab_download $packages
        } || return 1
        build=$(mktemp -d "$LAB_CACHE/layers/.build-XXXXXX")
        # Packages of split-usr days unpack into /lib, /bin, /sbin: these links
        # bring everything below usr, where the overlay merges it.
        mkdir -p "$build"/usr/{bin,sbin,lib,lib64}
        ln -s usr/bin usr/sbin usr/lib usr/lib64 "$build"
        # shellcheck disable=SC2086
        _lab_files $packages | while read -r file _; do
            dpkg-deb --fsys-tarfile "$LAB_CACHE/debs/$file" |
                tar -x -C "$build" --no-same-owner --keep-directory-symlink || exit 1
        done || {
            rm -rf "$build"
            return 1
        }
        chmod 755 "$build"
        printf '%s\n' "$packages" >"$build/.packages"
        printf '%s\n' "$*" >"$build/.packages-asked"
        mv -T "$build" "$dir"
    fi
    printf '%s\n' "$dir"
}

# Prints "FILE SIZE" of each NAME=VERSION. Not from within debs: apt leaves out
# what it finds in the current directory.
_lab_files() {
    (cd "$LAB_CACHE/resolved" && apt-get -qq download --print-uris "$@") | awk '{ print $2, $3 }'
}

_lab_download() {
    local missing
    missing=$(
        _lab_files "$@" | while read -r file size; do
            [ "$(stat -c %s "$LAB_CACHE/debs/$file" 2>/dev/null)" != "$size" ] || continue
            file=${file%_*}
            file=${file//%3a/:}
            printf '%s=%s\n' "${file%%_*}" "${file#*_}"
        done
    ) || return 1
    [ -n "$missing" ] || return 0
    _lab_say "downloading $(paste -sd' ' <<<"$missing")"
    # shellcheck disable=SC2086 # a word per package
    (cd "$LAB_CACHE/debs" && apt-get -qq -o APT::Sandbox::User=root download $missing >&2)
}

lab_headers() { lab_layer --headers "headers-$1" "linux-headers-$1"; }

lab_foreign_headers() {
    local layer=$LAB_CACHE/layers/linux-headers-${1%-*}-$2
    mkdir -p "$LAB_CACHE/layers"
    (
        flock 9
        [ -d "$layer" ] || _lab_fetch_foreign "$layer" "$2"
    ) 9>"$LAB_CACHE/.lock" || return
    printf '%s %s\n' "${1%-*}-$2" "$layer"
}

# The other architecture has lists of its own: this machine's apt knows nothing of it.
_lab_fetch_foreign() {
    local layer=$1 arch=$2 package=${1##*/} apt=$LAB_CACHE/apt-$2 build
    mkdir -p "$apt"/{lists,cache}/partial
    touch "$apt/status"
    printf '%s "%s";\n' APT::Architecture "$arch" APT::Architectures "$arch" APT::Sandbox::User root \
        Dir::State::lists "$apt/lists" Dir::State::status "$apt/status" Dir::Cache "$apt/cache" >"$apt/conf"
    _lab_say "fetching package lists of $arch, and $package"
    (
        cd "$apt" && export APT_CONFIG=$apt/conf
        apt-get -qq update >&2 && apt-get -qq download "$package" >&2
    ) || return 1
    build=$(mktemp -d "$LAB_CACHE/layers/.build-XXXXXX")
    mkdir -p "$build"/usr/lib
    ln -s usr/lib "$build"
    dpkg-deb --fsys-tarfile "$apt/$package"_*.deb |
        tar -x -C "$build" --no-same-owner --keep-directory-symlink || return 1
    chmod 755 "$build"
    mv -T "$build" "$layer"
}

lab_image() { lab_layer --only "image-$1" "linux-image-$1"; }

lab_package() {
    local version
    lab_layer --only "package-$1" "$1" >/dev/null || return
    version=$(cat "$LAB_CACHE"/layers/package-"$1"-*/.packages | sort -V | tail -n1)
    printf '%s\n' "$LAB_CACHE/debs/$(_lab_files "$version" | cut -d' ' -f1)"
}

lab_tools() {
    local packages=(kmod)
    command -v gcc >/dev/null || packages+=(gcc libc6-dev)
    command -v make >/dev/null || packages+=(make)
    lab_layer tools "${packages[@]}"
}

# ── roots ─────────────────────────────────────────────────────────────────────

# By cargo's own client; compiled once for the cache.
lab_cargo_program() {
    local root=$LAB_CACHE/cargo/$1-$2
    mkdir -p "$LAB_CACHE/cargo"
    (
        flock 9
        [ -x "$root/bin/$1" ] || {
            _lab_say "compiling $1 $2"
            cargo install -q --locked --root "$root" --target-dir "$root/target" --features "$3" "$1@$2" >&2 &&
                rm -rf "$root/target"
        }
    ) 9>"$LAB_CACHE/.lock-cargo" || return
    printf '%s\n' "$root/bin/$1"
}

lab_blocked() {
    local dir error
    if [ "${1:-}" = root ] && [ -n "$LAB_USER" ]; then
        echo "not root"
    elif ! command -v apt-get >/dev/null; then
        echo "no apt-get: the lab is made of Debian packages"
    elif ! command -v unshare >/dev/null; then
        echo "no unshare (package util-linux)"
    elif ! lab_tools >/dev/null; then
        echo "packages cannot be downloaded (apt-get update, apt-get download)"
    elif ! { mkdir -p "$LAB_ROOTS" && [ "$(stat -f -c %T "$LAB_ROOTS")" != overlayfs ]; }; then
        echo "$LAB_ROOTS is on an overlay filesystem: set DKMS_TEST_ROOTS to a directory that is not"
    elif dir=$(lab_new probe) && ! error=$(lab_root "$dir" 2>&1 && lab_run "$dir" true 2>&1); then
        lab_drop "$dir" 2>/dev/null || rm -rf -- "$dir"
        echo "no private mounts here (unshare, overlay${LAB_USER:+; as root there may be}): $error"
    else
        lab_drop "$dir"
        return 1
    fi
}

lab_new() {
    mkdir -p "$LAB_ROOTS"
    mktemp -d "$LAB_ROOTS/${1:-root}-XXXXXX"
}

# The layer between the packages and this machine: overlay whiteouts (0:0
# character devices) for all that must not show through.
_lab_mask() {
    local mask=$LAB_CACHE/mask-3 build path
    if [ ! -d "$mask" ]; then
        mkdir -p "$LAB_CACHE"
        build=$(mktemp -d "$LAB_CACHE/.mask-XXXXXX")
        for path in "${LAB_HIDDEN[@]}"; do
            mkdir -p "$build/${path%/*}"
            # shellcheck disable=SC2086 # two words, or none
            ${LAB_USER:+unshare} $LAB_USER mknod "$build/$path" c 0 0 || return 1
        done
        # Another process may have been faster; then ours is not needed.
        mv -T "$build" "$mask" 2>/dev/null || rm -rf "$build"
    fi
    printf '%s\n' "$mask"
}

lab_root() {
    local dir=$1 layers=() binds=() sys=no top lower layer options=redirect_dir=on
    [ -z "$LAB_USER" ] || options=userxattr
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            --layer)
                # overlayfs refuses a layer that is given twice.
                case " ${layers[*]+"${layers[*]}"} " in
                    *" $2 "*) ;;
                    *) layers+=("$2") ;;
                esac
                shift 2
                ;;
            --bind) binds+=("$2") && shift 2 ;;
            --sys) sys=yes && shift ;;
            *) _lab_die "lab_root: unknown option $1" || return ;;
        esac
    done
    layers+=("$(_lab_mask)") || return
    case $LAB_CACHE/ in
        /usr/* | /etc/* | /var/*)
            _lab_die "DKMS_TEST_CACHE must not be below /usr, /etc or /var: overlays cannot nest" || return
            ;;
    esac
    mkdir -p "$dir"/root/{boot,dev,proc,sys,run,root,home,mnt,opt,srv,tmp}
    # Made here, these belong to us: without root, this machine's do not.
    mkdir -p "$dir"/root/{etc,var/log,var/lib,var/cache,var/tmp,usr/lib/modules,usr/src,usr/local}
    chmod 1777 "$dir"/root/tmp "$dir"/root/var/tmp
    ln -sfn usr/bin "$dir/root/bin"
    ln -sfn usr/sbin "$dir/root/sbin"
    ln -sfn usr/lib "$dir/root/lib"
    ln -sfn usr/lib64 "$dir/root/lib64"
    # All mounts live in the private namespace of one call, made anew by each.
    {
        echo '#!/bin/sh'
        echo '# Made by lab_root: runs its arguments inside this throw-away root.'
        # shellcheck disable=SC2016 # for the script, not for now
        echo '[ "$LAB_NAMESPACE" ] || LAB_NAMESPACE=1 exec unshare '"$LAB_USER"' --mount --propagation private "$0" "$@"'
        echo 'set -e'
        for top in usr etc var; do
            lower=
            mkdir -p "$dir/work/$top"
            for layer in "${layers[@]}"; do
                [ ! -d "$layer/$top" ] || lower+=$layer/$top:
            done
            printf 'mount -t overlay lab -o %s,lowerdir=%q,upperdir=%q,workdir=%q %q\n' \
                "$options" "$lower/$top" "$dir/root/$top" "$dir/work/$top" "$dir/root/$top"
        done
        printf 'mount --rbind /dev %q\nmount --rbind /proc %q\n' "$dir/root/dev" "$dir/root/proc"
        [ $sys = no ] || printf 'mount --rbind -o ro /sys %q\n' "$dir/root/sys"
        for layer in "${binds[@]+"${binds[@]}"}"; do
            printf 'mkdir -p %q\nmount --bind %q %q\n' \
                "$dir/root${layer#*:}" "${layer%%:*}" "$dir/root${layer#*:}"
        done
        # A fixed environment: what a test means to set, it sets with env(1).
        printf 'exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 %s %s chroot %q "$@"\n' \
            'DEBIAN_FRONTEND=noninteractive' "TERM=\"\${TERM:-dumb}\"" "$dir/root"
    } >"$dir/enter"
    chmod 755 "$dir/enter"
}

lab_run() {
    local dir=$1
    shift
    "$dir/enter" "$@"
}

lab_drop() {
    [ -x "$1/enter" ] || _lab_die "$1 is not a root of the lab" || return
    # overlayfs leaves its work directories without any permission.
    [ -z "$LAB_USER" ] || chmod -f u+rwx "$1"/work/*/work
    rm -rf -- "$1"
}

# ── what goes into a root ─────────────────────────────────────────────────────

lab_kernel() {
    local tree=$1/root/usr/lib/modules/$2
    mkdir -p "$tree/kernel"
    touch "$tree"/modules.{order,builtin,builtin.modinfo}
    echo "stand-in for the kernel image of $2" | tee "$tree/vmlinuz" >"$1/root/boot/vmlinuz-$2"
}

lab_build() { [ -n "${DKMS_BINARY:-}" ] || make -s -C "$LAB_REPO" build/dkms >&2; }

lab_install() {
    local root=$1/root
    # An existing build/dkms is taken as it is (-o): see lab_build.
    make -s -C "$LAB_REPO" -o build/dkms install DESTDIR="$root" PREFIX=/usr FAMILY="${2:-debian}" >&2 || return
    [ -z "${DKMS_BINARY:-}" ] || install -m 755 "$DKMS_BINARY" "$root/usr/sbin/dkms"
}

lab_deb() { _lab_made deb; }

# _lab_made TARGET: the path of what make TARGET makes with what every machine has.
_lab_made() {
    local made
    lab_build && made=$(make -s -C "$LAB_REPO" -o build/dkms "$1") && printf '%s/%s\n' "$LAB_REPO" "$made"
}

# _lab_make TARGET PROGRAM PACKAGE…: the path of what make TARGET makes, with these packages where
# this machine has no such program.
_lab_make() {
    local target=$1 program=$2 tools=
    shift 2
    lab_build || return
    command -v "$program" >/dev/null || tools=$(lab_layer "$1" "$@") || return
    printf '%s/' "$LAB_REPO"
    # shellcheck disable=SC2016,SC2086 # for the inner shell; words
    unshare $LAB_USER --mount --propagation private sh -euc '
        for top in usr etc; do
            [ ! -d "${1:-/none}/$top" ] || mount -t overlay lab -o "ro,lowerdir=$1/$top:/$top" "/$top"
        done
        exec make -s -C "$2" -o build/dkms "$3"' sh "$tools" "$LAB_REPO" "$target"
}

lab_rpm() { _lab_make rpm rpmbuild rpm cpio; }

lab_pkg() { _lab_make pkg makepkg makepkg pacman-package-manager fakeroot libarchive-tools zstd; }

lab_bundle() { _lab_made clear; }

lab_source() {
    local name=$2 version=$3 kind=${4:-good} src=$1/root/usr/src/$2-$3
    shift $(($# < 4 ? $# : 4))
    mkdir -p "$src"
    echo "obj-m := $name.o" >"$src/Makefile"
    {
        printf 'PACKAGE_NAME="%s"\nPACKAGE_VERSION="%s"\n' "$name" "$version"
        printf 'BUILT_MODULE_NAME[0]="%s"\nDEST_MODULE_LOCATION[0]="/updates/dkms"\n' "$name"
        printf 'AUTOINSTALL="yes"\n'
        [ $# = 0 ] || printf '%s\n' "$@"
    } >"$src/dkms.conf"
    {
        printf '#include <linux/module.h>\n'
        if [ "$kind" = broken ]; then
            printf 'static int __init start(void) { return no_such_kernel_function(); }\n'
        else
            printf 'static int __init start(void) { pr_info("%s %s is here\\n"); return 0; }\n' "$name" "$version"
        fi
        printf 'static void __exit stop(void) {}\nmodule_init(start);\nmodule_exit(stop);\n'
        printf 'MODULE_LICENSE("GPL");\nMODULE_VERSION("%s");\n' "$version"
    } >"$src/$name.c"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    "lab_$1" "${@:2}"
fi
