#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# make rpm: build/dkms-hooks-VERSION-RELEASE.ARCHITECTURE.rpm of what make install puts onto Fedora
# and its kin, made by rpmbuild from rpm/dkms-hooks.spec. Prints its path.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

# shellcheck source=stage.sh
. packaging/stage.sh
need rpmbuild package rpm-build, on Debian rpm
stage redhat
cp LICENSE "$work"

# Whatever the machine's own macros say of where things are, but for the tools.
rpmbuild --quiet -bb --define "_topdir $work/top" --define "dkms_work $work" --define "dkms_version $version" \
    --define '_prefix /usr' --define '_sbindir /usr/sbin' --define '_sysconfdir /etc' --define '_localstatedir /var' \
    --define '_mandir /usr/share/man' --define '_datadir /usr/share' --define '_build_id_links none' \
    --define '_rpmfilename %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm' \
    --define 'use_source_date_epoch_as_buildtime 1' --define 'clamp_mtime_to_source_date_epoch 1' \
    packaging/rpm/dkms-hooks.spec >&2
mkdir -p build
rpm=$(basename "$work"/top/RPMS/*.rpm)
cp "$work/top/RPMS/$rpm" "build/$rpm"
echo "build/$rpm"
