#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Eight of dkms at a time, ROUNDS times over (from /.golden/faults.env), in the root of a golden case. None
# may fail, and all rounds must end alike.
# shellcheck disable=SC2153 # faults.env gives names
set -uo pipefail
# shellcheck source=tests/golden/run.sh
. /.golden/golden.sh 0
# shellcheck source=/dev/null
. /.golden/faults.env

for name in foo bar baz; do module $name 1.0 'AUTOINSTALL=yes'; done
module gone 1.0

state() {
    dkms status
    find /usr/lib/modules /var/lib/dkms -path /var/lib/dkms/.hooks -prune -o -type f ! -name make.log -exec md5sum {} + |
        LC_ALL=C sort -k2
}

run() {
    "$@" >"/tmp/said.$BASHPID" 2>&1 || echo "LOST: $* ended with exit code $?: $(cat "/tmp/said.$BASHPID")"
}

for ((round = 1; round <= ROUNDS; round++)); do
    rm -rf /var/lib/dkms/* /usr/lib/modules/*/updates /tmp/said.*
    for name in foo bar baz gone; do dkms add $name/1.0 >/dev/null; done
    dkms install gone/1.0 -k "$K1" >/dev/null
    run dkms install foo/1.0 -k "$K1" &
    run dkms install bar/1.0 -k "$K2" &
    run dkms autoinstall -k "$K1" &
    run dkms autoinstall -k "$K2" &
    run dkms autoinstall -k "$K1" &
    run dkms remove gone/1.0 --all &
    run dkms status &
    run dkms install baz/1.0 -k "$K1" &
    wait
    state >/tmp/state
    [ -e /tmp/first ] || cp /tmp/state /tmp/first
    cmp -s /tmp/first /tmp/state || echo "LOST: round $round ends otherwise: $(diff /tmp/first /tmp/state)"
    grep -c ': installed$' /tmp/state | grep -qx 6 || echo "LOST: not everything is installed: $(cat /tmp/state)"
done
echo "$ROUNDS points"
