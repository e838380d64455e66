#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Runs one golden case: enter.sh WORK BASE DKMS HELPERS. To be called in a mount
# namespace of its own, as root or as a user namespace's root. WORK holds the
# commands (N.sh) and takes their streams; nothing else is written, because the
# root is a tmpfs that ends with the namespace.
#
# The root: /usr is this machine's below a tmpfs, with /usr/src, /lib/modules
# and /usr/lib/dkms empty; /etc, /var, /tmp are the case's own.

set -euo pipefail
work=$1 base=$2 dkms=$3 helpers=$4
root=$work/root

mount -t tmpfs golden "$root"
mkdir -p "$root"/{usr,dev,proc,tmp,run,root,boot,.golden,.overlay/usr,.overlay/work} "$root"/{etc/dkms/policy.d,var/lib/dkms,var/tmp}
for link in bin sbin lib lib32 libx32 lib64; do
    [ ! -L /$link ] || cp -P /$link "$root/$link"
done
# Where something is added, the directories must be ours: an ordinary user's
# namespace may not write into root's, not even above an overlay.
sbin=$(realpath /usr/sbin)
mkdir -p "$root/.overlay$sbin" "$root"/.overlay/usr/{src,lib/modules,lib/dkms}
# Without the privileges of the first user namespace, overlayfs keeps its notes
# in user.* attributes, where the tmpfs has those (6.6).
overlay=lowerdir=/usr,upperdir=$root/.overlay/usr,workdir=$root/.overlay/work
mount -t overlay golden -o "$overlay" "$root/usr" 2>/dev/null ||
    mount -t overlay golden -o "userxattr,$overlay" "$root/usr"
for hidden in src lib/modules lib/dkms; do
    mount -t tmpfs -o mode=755 golden "$root/usr/$hidden"
done
[ ! -e /etc/ld.so.cache ] || cp /etc/ld.so.cache "$root/etc/"
if [ -d /etc/alternatives ]; then
    mkdir "$root/etc/alternatives"
    mount --bind /etc/alternatives "$root/etc/alternatives"
fi
cp -rP "$base/etc" "$root/"
# An ordinary user has no other users to build as.
if [ "$(awk '{ print $3 }' /proc/self/uid_map)" = 1 ]; then
    printf '[build]\nsandbox = "off"\n' >"$root/etc/dkms/policy.d/ordinary-user.toml"
fi
# This machine's may be links to elsewhere, out of the root.
cp --remove-destination "$base"/usr/sbin/* "$root$sbin/"
[ -z "$helpers" ] || cp -rP "$helpers/." "$root/usr/lib/dkms/"
rm -f "$root$sbin/dkms"
touch "$root$sbin/dkms"
mount --bind "$dkms" "$root$sbin/dkms"
for release in "$K1" "$K2"; do
    mkdir -p "$root/usr/lib/modules/$release/kernel" "$root/usr/src"
    cp -r "$base/kbuild" "$root/usr/src/linux-headers-$release"
    mkdir -p "$root/usr/src/linux-headers-$release/include/generated"
    echo "#define UTS_RELEASE \"$release\"" >"$root/usr/src/linux-headers-$release/include/generated/utsrelease.h"
    ln -s "/usr/src/linux-headers-$release" "$root/usr/lib/modules/$release/build"
    touch "$root/usr/lib/modules/$release/modules."{order,builtin}
    echo "# made" >"$root/usr/lib/modules/$release/modules.dep"
done
[ ! -d "$work/case" ] || cp -rP "$work/case/." "$root/"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount --bind "$work" "$root/.golden"
# Not chroot: in a chroot no user namespace can be made, and that is how a case
# becomes an ordinary user.
cd "$root"
mkdir .old
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TERM=dumb \
    K1="$K1" K2="$K2" A="$(uname -m)" /bin/bash /.golden/run.sh
