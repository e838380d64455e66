#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# make pkg: build/dkms-hooks-VERSION-RELEASE-ARCHITECTURE.pkg.tar.zst of what make install puts onto Arch
# Linux and its kin, made by makepkg from arch/PKGBUILD. Prints its path.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

# shellcheck source=stage.sh
. packaging/stage.sh
need pacman package pacman, on Debian pacman-package-manager
need makepkg package pacman, on Debian makepkg
need fakeroot package fakeroot
stage arch
cp LICENSE packaging/arch/* "$work"
mkdir "$work/out"
chmod 755 "$work"

# makepkg works for anybody but root; whose files they are is fakeroot's business.
as=()
if [ "$(id -u)" = 0 ]; then
    chown -R 65534:65534 "$work"
    as=(setpriv --reuid 65534 --regid 65534 --clear-groups)
fi
(cd "$work" && "${as[@]}" env HOME="$work" DKMS_WORK="$work" DKMS_VERSION="$version" \
    PKGDEST="$work/out" PKGEXT=.pkg.tar.zst BUILDDIR="$work" \
    makepkg --nodeps --force --noconfirm) >&2 </dev/null
mkdir -p build
package=$(basename "$work"/out/*)
cp "$work/out/$package" "build/$package"
echo "build/$package"
