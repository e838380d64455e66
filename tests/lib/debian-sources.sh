# shellcheck shell=bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Sourced by what makes whole Debian systems: where this machine gets its own packages from.

own_suite() {
    sed -n 's/^VERSION_CODENAME=//p' /etc/os-release
}

# write_sources SUITE [COMPONENT…]: the machine's own Debian sources as lines of a sources.list,
# for another suite and other components where asked. No mirror is named here.
write_sources() {
    local suite=$1 own site release component
    own=$(own_suite)
    shift
    # shellcheck disable=SC2016 # the format is apt's
    apt-get indextargets --format '$(ORIGIN) $(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        sed -n 's/^Debian //p' | sed "s/ $own\\b/ $suite/" | while read -r site release component; do
            # What is not released has neither updates nor a security team's suite.
            case $release in
                sid-* | sid/*) ;;
                *) echo "deb $site $release ${*:-$component}" ;;
            esac
        done | sort -u
}
