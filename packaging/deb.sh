#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# make deb: build/dkms-hooks_VERSION_ARCHITECTURE.deb of what make install puts onto a Debian
# system, made by dpkg-deb from the files in debian/. Prints its path.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

# shellcheck source=stage.sh
. packaging/stage.sh
need dpkg-deb package dpkg
architecture=$(dpkg --print-architecture)
read -r _ newest _ <packaging/debian/changelog
if [ "$newest" != "($version)" ]; then
    echo "make deb: packaging/debian/changelog begins with $newest, Cargo.toml says $version" >&2
    exit 1
fi
stage debian
root=$work/root doc=$work/root/usr/share/doc/dkms-hooks

install -d -m 755 "$doc" "$root/DEBIAN"
gzip -9n <packaging/debian/changelog >"$doc/changelog.gz"
sed -i 's/^/  /' "$work/crates"
sed -n '/^Permission/,$s/^$/./; /^Permission/,$s/^/ /; /^ Permission/,$p' LICENSE >"$work/mit"
sed -e "/^@CRATES@/{r $work/crates" -e 'd}' -e "/^@MIT@/{r $work/mit" -e 'd}' \
    packaging/debian/copyright >"$doc/copyright"
install -D -m 644 packaging/debian/lintian-overrides "$root/usr/share/lintian/overrides/dkms-hooks"

(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
size=$(du -ks --apparent-size --exclude=DEBIAN "$root" | cut -f1)
sed -e "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@SIZE@/$size/" \
    packaging/debian/control >"$root/DEBIAN/control"
install -m 755 packaging/debian/{preinst,postinst,prerm,postrm} "$root/DEBIAN"
sed -i "/^@FRAMEWORK@/{r $root/etc/dkms/framework.conf"$'\n''d}' "$root/DEBIAN/preinst"

mkdir -p build
deb=build/dkms-hooks_${version}_$architecture.deb
dpkg-deb --root-owner-group --build "$root" "$deb" >&2
echo "$deb"
