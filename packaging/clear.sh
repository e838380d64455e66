#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# make clear: build/dkms-hooks-VERSION-clear.tar.gz, the content of a bundle for Clear Linux: what make
# install puts there, all of it below /usr. mixer takes it unpacked, as the content of a bundle
# (mixer-tools, "Adding Custom Content from Build Root"). Prints its path.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

# shellcheck source=stage.sh
. packaging/stage.sh
stage clear
install -D -m 644 -t "$work/root/usr/share/package-licenses/dkms-hooks" LICENSE "$work/crates"
mkdir -p build
archive=build/dkms-hooks-$version-clear.tar.gz
tar -C "$work/root" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c usr |
    gzip -9n >"$archive"
echo "$archive"
