# shellcheck shell=bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Sourced inside of a Debian: an archive of its own in /srv/repository, and packages in it.

REPOSITORY=/srv/repository

# repository_package NAME VERSION DEPENDS [KERNEL-RELEASE]: adds a package that holds nothing, or
# with the fourth argument what is left of a kernel when it has neither code nor modules.
repository_package() {
    local dir=/root/package version=${4:-}
    rm -rf "$dir"
    mkdir -p "$dir/DEBIAN" "$REPOSITORY"
    printf '%s: %s\n' Package "$1" Version "$2" Architecture "$(dpkg --print-architecture)" \
        Maintainer 'nobody <nobody@example.org>' Description 'made for a test' >"$dir/DEBIAN/control"
    [ -z "$3" ] || echo "Depends: $3" >>"$dir/DEBIAN/control"
    if [ -n "$version" ]; then
        mkdir -p "$dir/usr/lib/modules/$version/kernel" "$dir/boot"
        touch "$dir/usr/lib/modules/$version"/modules.{order,builtin,builtin.modinfo}
        echo "no kernel" >"$dir/boot/vmlinuz-$version"
        for script in preinst postinst; do
            printf '#!/bin/sh -e\nexec linux-run-hooks image %s %s /boot/vmlinuz-%s -- "$@"\n' \
                $script "$version" "$version" >"$dir/DEBIAN/$script"
            chmod 755 "$dir/DEBIAN/$script"
        done
    fi
    dpkg-deb --build "$dir" "$REPOSITORY/$1_$2.deb" >/dev/null
}

# repository_publish: has apt know what is there now.
repository_publish() {
    local file
    (
        cd "$REPOSITORY" || exit
        for file in *.deb; do
            dpkg-deb -f "$file"
            printf '%s: %s\n' Filename "./$file" Size "$(stat -c %s "$file")" \
                SHA256 "$(sha256sum "$file" | cut -d' ' -f1)"
            echo
        done >Packages
        {
            printf '%s: %s\n' Origin test Label test Suite test Codename test Date "$(date -Ru)"
            printf 'SHA256:\n %s %s Packages\n' "$(sha256sum Packages | cut -d' ' -f1)" "$(stat -c %s Packages)"
        } >Release
    )
    echo "deb [trusted=yes] file:$REPOSITORY ./" >/etc/apt/sources.list.d/test.list
    apt-get -qq -o Dir::Etc::sourcelist=sources.list.d/test.list -o Dir::Etc::sourceparts=- \
        -o APT::Get::List-Cleanup=false update
}
