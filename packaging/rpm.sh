#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# make rpm: build/dkms-hooks-VERSION-RELEASE.ARCHITECTURE.rpm of what make install puts onto Fedora
# and its kin, made by rpmbuild from rpm/dkms-hooks.spec. Prints its path.
# DKMS_BINARY, when set, is packed instead of build/dkms.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."

if ! command -v rpmbuild >/dev/null; then
    echo "make rpm: there is no rpmbuild here (package rpm-build, on Debian rpm)" >&2
    exit 1
fi
version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
# The same files make the same package: as old as the newest entry of its changelog.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date -u -d "$(sed -n '/^%changelog/,$s/^\* \(.*[0-9]\{4\}\) .*/\1/p' \
    packaging/rpm/dkms-hooks.spec | head -n1)" +%s)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d "${TMPDIR:-/tmp}/dkms-hooks-rpm.XXXXXX")
trap 'rm -rf "$work"' EXIT
packaging/install.sh "$work/root" /usr redhat >&2
[ -z "${DKMS_BINARY:-}" ] || install -m 755 "$DKMS_BINARY" "$work/root/usr/sbin/dkms"
find "$work/root/usr/share/man" -type f -exec gzip -9n {} +
"${CARGO:-cargo}" tree --locked --offline -e normal,no-proc-macro --prefix none -f '{p}|{l}' |
    sed -E '1d; s/( \([^|]*)?\|/: /' | sort -u >"$work/crates"
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
