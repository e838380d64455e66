#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Disturbs one command of dkms at each of its calls that change files, in the root of a golden case, and
# looks after each whether anything is lost. Takes its part of the work from /.golden/faults.env:
#
#   PREPARE     a shell line: what is there before
#   COMMAND     the command that is disturbed
#   FAULT       kill, or the name of an error (ENOSPC)
#   STEP, FIRST every STEP-th point, from the FIRST on
#   KEPT        the directories that are looked at and put back, if they are not the usual ones
#
# Prints one line "N points" and, for each that lost something, what.
# shellcheck disable=SC2153,SC2317 # faults.env gives names; eval calls functions
set -uo pipefail
# shellcheck source=tests/golden/run.sh
. /.golden/golden.sh 0
# shellcheck source=/dev/null
. /.golden/faults.env

[ -n "${KEPT+x}" ] || KEPT=(/var/lib/dkms /usr/lib/modules /etc /boot /usr/src)

# Everything with its content, but for what only we know of, which shows in what dkms does, and for what a
# build leaves in its directory, which the next build empties. Empty directories are nothing.
state() {
    {
        seen -type l -printf '%p -> %l\n'
        # Logs tell times and what was tried before.
        seen -type f -name make.log -print
        seen -type f ! -name make.log -exec md5sum {} +
    } | LC_ALL=C sort
}

seen() {
    find "${KEPT[@]}" -xdev \( -path /var/lib/dkms/.hooks -o -path '/var/lib/dkms/*/*/build' -o -path /etc/alternatives \) \
        -prune -o "$@"
}

modules() {
    (cd /usr/lib/modules && find . -regex '.*\.ko\(\.[gx]z\|\.zst\)?' -type f -exec md5sum {} + | LC_ALL=C sort -k2)
}

save() {
    rm -rf /saved && mkdir /saved
    for path in "${KEPT[@]}"; do
        mkdir -p "/saved$path" && cp -a "$path/." "/saved$path"
    done
}

restore() {
    for path in "${KEPT[@]}"; do
        find "$path" -xdev -mindepth 1 -maxdepth 1 ! -name alternatives -exec rm -rf {} +
        find "/saved$path" -mindepth 1 -maxdepth 1 ! -name alternatives -exec cp -a {} "$path" \;
    done
}

lost() {
    echo "LOST at $point ($(cat /tmp/point)): $*"
    sed 's/^/    /' /tmp/said
}

eval "$PREPARE" >/tmp/prepared 2>&1 || { echo "LOST: preparing: $(cat /tmp/prepared)"; exit 1; }
save
modules >/tmp/old
(eval "$COMMAND") >/tmp/said 2>&1
code=$?
modules >/tmp/new
state >/tmp/good
# Once more changes nothing, or the next run after a disturbed one could not be told from it.
(eval "$COMMAND") >/dev/null 2>&1
again=$?

for ((point = FIRST; ; point += STEP)); do
    restore
    : >/tmp/point
    (dkms() { /.golden/tracer trace "$FAULT" "$point" /tmp/point -- /usr/sbin/dkms "$@"; }; eval "$COMMAND") >/tmp/said 2>&1
    disturbed=$?
    # Past the last one.
    [ -s /tmp/point ] || break
    modules >/tmp/now
    # Each module is the old one or the new one, and one that was there before and after is there.
    while read -r line; do
        grep -qxF "$line" /tmp/old /tmp/new || lost "neither the old nor the new module: $line"
    done </tmp/now
    for path in $(comm -12 <(awk '{ print $2 }' /tmp/old | sort) <(awk '{ print $2 }' /tmp/new | sort)); do
        grep -qF " $path" /tmp/now || lost "there is no $path"
    done
    # The line that tells the error names a file.
    if [ "$FAULT" != kill ] && [ $disturbed != "$code" ] &&
        ! grep -qE '/(var|usr|lib|boot|etc|run|tmp)/.*(\(os error [0-9]+\)|: E[A-Z]+: )|\(os error [0-9]+\) at path "/|No write access to DKMS tree at /' /tmp/said; then
        lost "exit code $disturbed, and no file is named with the error"
    fi
    if [ "$FAULT" != kill ] && [ $disturbed -gt 125 ]; then
        lost "exit code $disturbed"
    fi
    # The next run ends as if nothing had happened.
    (eval "$COMMAND") >/tmp/said 2>&1
    next=$?
    [ $next = $code ] || [ $next = $again ] || lost "the next run ends with exit code $next, not $code or $again"
    state >/tmp/then
    cmp -s /tmp/good /tmp/then || lost "the next run leaves something else:
$(diff /tmp/good /tmp/then)"
done
echo "$(((point - FIRST) / STEP)) points"
