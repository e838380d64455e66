#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# make bench: what dkms-hooks costs, beside the bare work (kbuild and depmod alone) and beside
# Debian's dkms, all in throw-away roots with real headers. The contenders take turns, so that a
# busy machine slows all of them; figures are medians. Exits 1 if a limit is exceeded.
#
# Environment: BENCH_ROUNDS (3), BENCH_DKMS (a dkms_*.deb to stand beside us instead of the one
# that apt knows; "none" for none), and the lab's (tests/lib/lab.sh).
set -euo pipefail
export LC_ALL=C.UTF-8

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/lib/lab.sh
. "$HERE/../tests/lib/lab.sh"

ROUNDS=${BENCH_ROUNDS:-3}
MODULES=12
BINARY=${DKMS_BINARY:-$LAB_REPO/build/dkms}
ARCH=$(uname -m)
CPUS=$(nproc)
OVER=0
ROWS=()

# What measure prints, by column.
WALL=1 CPU=2 OWN=3 RSS=4

say() { printf '%s\n' "$*"; }
fail() {
    printf 'bench: %s\n' "$*" >&2
    exit 1
}

# ── figures ───────────────────────────────────────────────────────────────────

median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'; }
column() { awk -v at="$2" '{ print $at }' "$FIGURES/$1" | median; }
# The quotient of each round, because what disturbs one contender disturbs the next as well.
quotient() { paste "$FIGURES/$1" "$FIGURES/$2" | awk -v at="$3" '{ print $at / $(at + 4) }' | median; }
# Several quick runs stand for one round.
condense() {
    local at line=
    for at in $WALL $CPU $OWN $RSS; do
        line+="$(column "$1.runs" "$at") "
    done
    echo "$line" >>"$FIGURES/$1"
    rm "$FIGURES/$1.runs"
}
seconds() { awk -v s="$1" 'BEGIN { printf s < 1 ? "%.1f ms" : "%.2f s", s < 1 ? s * 1000 : s }'; }
times() { awk -v x="$1" 'BEGIN { printf x < 10 ? "%.2f x" : "%.0f x", x }'; }

row() { ROWS+=("$1|$2|$3|$4|$5|$6"); }
verdict() { # VALUE most|least LIMIT: sets WORD
    if awk -v v="$1" -v l="$3" -v way="$2" 'BEGIN { exit !(way == "most" ? v <= l : v >= l) }'; then
        WORD=ok
    else
        WORD=OVER OVER=1
    fi
}

# measured NAME ROOT COUNT COMMAND…: the figures go to $FIGURES/NAME, what it says to its log.
measured() {
    local name=$1 root=$2 count=$3
    shift 3
    lab_run "$root" measure "$count" "$@" >>"$FIGURES/$name" 2>>"$FIGURES/$name.log" </dev/null ||
        fail "$* failed: $(tail -n 20 "$FIGURES/$name.log")"
}

# ── roots ─────────────────────────────────────────────────────────────────────

# new_root VARIABLE NAME LAYER…
new_root() {
    local -n made=$1
    local layer layers=()
    for layer in "${@:3}"; do
        layers+=(--layer "$layer")
    done
    # shellcheck disable=SC2034 # the caller's variable
    made=$(lab_new "bench-$2")
    ALL+=("$made")
    lab_root "$made" "${layers[@]}"
    install -D -m 755 "$MEASURE" "$made/root/usr/bin/measure"
}

# shellcheck disable=SC2317,SC2329 # the trap calls it
drop_all() {
    local root
    for root in "${ALL[@]}"; do
        lab_drop "$root"
    done
    rm -rf "$FIGURES"
}

name_of() { printf 'bench%02d' "$1"; }

# register DIR COUNT: modules in the state "added", as all versions of dkms keep it.
register() {
    local i name
    rm -rf "$1/root/var/lib/dkms"
    for ((i = 1; i <= $2; i++)); do
        name=$(name_of "$i")
        [ -d "$1/root/usr/src/$name-1.0" ] || lab_source "$1" "$name" 1.0
        mkdir -p "$1/root/var/lib/dkms/$name/1.0"
        ln -s "/usr/src/$name-1.0" "$1/root/var/lib/dkms/$name/1.0/source"
    done
}

# lay_installed DIR FILE SUFFIX COUNT KERNEL…: modules in the state "installed".
lay_installed() {
    local dir=$1 file=$2 suffix=$3 count=$4 tree kernel i name
    shift 4
    register "$dir" "$count"
    for kernel in "$@"; do
        lab_kernel "$dir" "$kernel"
        mkdir -p "$dir/root/usr/lib/modules/$kernel/updates/dkms"
        for ((i = 1; i <= count; i++)); do
            name=$(name_of "$i")
            tree=$dir/root/var/lib/dkms/$name
            mkdir -p "$tree/1.0/$kernel/$ARCH"/{module,log}
            cp "$file" "$tree/1.0/$kernel/$ARCH/module/$name.ko$suffix"
            ln -s "1.0/$kernel/$ARCH" "$tree/kernel-$kernel-$ARCH"
            cp "$file" "$dir/root/usr/lib/modules/$kernel/updates/dkms/$name.ko$suffix"
        done
        # Where dkms looks for how a kernel's modules are compressed.
        lab_run "$dir" depmod -a "$kernel"
    done
}

# ── what is measured ──────────────────────────────────────────────────────────

# With TLS and the clients of the shared store in it.
size_and_linkage() {
    local size linked
    size=$(stat -c %s "$BINARY")
    verdict "$size" most 12000000
    row "size of the binary" "$(awk -v s="$size" 'BEGIN { printf "%.2f MB", s / 1e6 }')" - - "<= 12 MB" "$WORD"
    linked=$(ldd "$BINARY" 2>&1) || true
    case $linked in
        *"not a dynamic"* | *"statically linked"*) row "ldd" "not dynamic" - - "not dynamic" ok ;;
        *) row "ldd" "dynamic" - - "not dynamic" OVER && OVER=1 ;;
    esac
}

bare_reset() {
    local i name
    rm -rf "$BARE/root/var/lib/bare" "$BARE/root/usr/lib/modules/$KERNEL"
    lab_kernel "$BARE" "$KERNEL"
    for ((i = 1; i <= MODULES; i++)); do
        name=$(name_of "$i")
        [ -d "$BARE/root/usr/src/$name-1.0" ] || lab_source "$BARE" "$name" 1.0
        mkdir -p "$BARE/root/var/lib/bare"
        cp -r "$BARE/root/usr/src/$name-1.0" "$BARE/root/var/lib/bare/$name"
    done
}

dkms_reset() {
    rm -rf "$1/root/usr/lib/modules/$KERNEL"
    lab_kernel "$1" "$KERNEL"
    register "$1" "$MODULES"
}

# once_more: what has been built is deleted and asked for again.
once_more() {
    local i deletes=''
    for ((i = 1; i <= MODULES; i++)); do
        deletes+="dkms unbuild $(name_of "$i")/1.0 -k $KERNEL && "
    done
    measured stored "$OURS" 1 bash -c "$deletes dkms autoinstall -k $KERNEL"
    has_files "$OURS/root/usr/lib/modules/$KERNEL/updates" $MODULES
    i=$(grep -l "^Taken from the store" "$OURS"/root/var/lib/dkms/bench*/1.0/*/*/log/make.log | wc -l)
    [ "$i" = $MODULES ] || fail "$i of $MODULES modules came from the store: nothing was measured"
}

has_files() {
    local found
    found=$(find "$1" -name 'bench*.ko' | wc -l)
    [ "$found" = "$2" ] || fail "$found of $2 modules in $1: nothing was measured"
}

autoinstalls() {
    local round limit contender
    # shellcheck disable=SC2016 # for the shell in the root
    local bare='cd /var/lib/bare && printf "%s\n" * |
        xargs -P "$2" -I{} make -C "/lib/modules/$1/build" "M=/var/lib/bare/{}" && depmod -a "$1"'
    for ((round = 1; round <= ROUNDS; round++)); do
        say "autoinstall, round $round of $ROUNDS"
        # Who comes first changes: a load that rises or falls favours nobody.
        for contender in $( ((round % 2)) && echo bare ours || echo ours bare); do
            if [ "$contender" = bare ]; then
                bare_reset
                measured bare "$BARE" 1 bash -c "$bare" bare "$KERNEL" "$CPUS"
                has_files "$BARE/root/var/lib/bare" $MODULES
            else
                dkms_reset "$OURS"
                # The store went with the tree: all of it is compiled.
                measured ours "$OURS" 1 dkms autoinstall -k "$KERNEL"
                has_files "$OURS/root/usr/lib/modules/$KERNEL/updates" $MODULES
                once_more
            fi
        done
        # It has no limit to keep: once is enough to stand beside.
        if [ -n "$DKMS" ] && [ "$round" = 1 ]; then
            dkms_reset "$DKMS"
            measured dkms "$DKMS" 1 dkms autoinstall -k "$KERNEL"
            has_files "$DKMS/root/usr/lib/modules/$KERNEL/updates" $MODULES
        fi
    done
    local what="autoinstall of $MODULES modules" column unit
    for unit in wall CPU; do
        [ $unit = wall ] && column=$WALL || column=$CPU
        limit=$(quotient ours bare $column)
        verdict "$limit" most 1.15
        row "$what, $unit" "$(seconds "$(column ours $column)")" "$(seconds "$(column bare $column)") bare work" \
            "$(times "$limit")" "<= 1.15 x" "$WORD"
        if [ -n "$DKMS" ]; then
            row "  $DKMS_NAME, $unit" "" "$(seconds "$(column dkms $column)")" \
                "$(times "$(head -n1 "$FIGURES/dkms" | paste - <(head -n1 "$FIGURES/bare") |
                    awk -v at=$column '{ print $at / $(at + 4) }')")" "(bare work)" ""
        fi
    done
}

# What the store of built modules saves.
store_rows() {
    local saved column unit
    for unit in wall CPU; do
        [ $unit = wall ] && column=$WALL || column=$CPU
        saved=$(quotient ours stored $column)
        verdict "$saved" least 20
        row "unbuild of $MODULES modules and autoinstall, $unit" "$(seconds "$(column stored $column)")" \
            "$(seconds "$(column ours $column)") compiling" "$(times "$saved")" ">= 20 x" "$WORD"
    done
}

# compare_status NAME WHAT LINES: the roots hold the same state.
compare_status() {
    local name=$1 what=$2 lines=$3 round ratio contender
    for contender in "$OURS" ${DKMS:+"$DKMS"}; do
        lab_run "$contender" dkms status >"$FIGURES/status" 2>"$FIGURES/status.log"
        [ "$(grep -c ': installed$' "$FIGURES/status")" = "$lines" ] ||
            fail "status shows not $lines installed modules: $(head -n 3 "$FIGURES/status" "$FIGURES/status.log")"
    done
    for ((round = 1; round <= ROUNDS; round++)); do
        say "status of $what, round $round of $ROUNDS"
        measured "$name.runs" "$OURS" 9 dkms status
        condense "$name"
        if [ -n "$DKMS" ]; then
            measured "$name-dkms" "$DKMS" 1 dkms status
        fi
    done
    if [ -n "$DKMS" ]; then
        ratio=$(quotient "$name-dkms" "$name" $WALL)
        verdict "$ratio" least 500
        row "status of $what" "$(seconds "$(column "$name" $WALL)")" \
            "$(seconds "$(column "$name-dkms" $WALL)") $DKMS_NAME" "$(times "$ratio")" ">= 500 x" "$WORD"
    else
        row "status of $what" "$(seconds "$(column "$name" $WALL)")" - - "" ""
    fi
    verdict "$(column "$name" $RSS)" most 15360
    row "  peak memory" "$(awk -v k="$(column "$name" $RSS)" 'BEGIN { printf "%.1f MB", k / 1024 }')" \
        - - "<= 15 MB" "$WORD"
}

statuses() {
    local module=$FIGURES/module.ko kernels i
    cp "$BARE/root/var/lib/bare/bench01/bench01.ko" "$module"
    strip -g "$module"
    kernels=()
    for i in 1 2 3 4; do
        kernels+=("6.1.0-10$i-$ARCH")
    done
    for i in "$OURS" ${DKMS:+"$DKMS"}; do
        lay_installed "$i" "$module" "" 50 "${kernels[@]}"
    done
    compare_status small "50 modules x 4 kernels" 200

    # As large as the largest of real modules, with the code of a real program in it.
    head -c 5000000 "$(gcc -print-prog-name=cc1)" >"$FIGURES/padding"
    objcopy --add-section .padding="$FIGURES/padding" "$module" "$FIGURES/large.ko"
    xz --check=crc32 --keep "$FIGURES/large.ko"
    for i in "$OURS" ${DKMS:+"$DKMS"}; do
        rm -rf "$i/root/usr/lib/modules"/* "$i/root/usr/src"/bench*
        lay_installed "$i" "$FIGURES/large.ko.xz" .xz 10 "${kernels[@]}"
    done
    compare_status large "10 modules of 5 MB (xz) x 4 kernels" 40
}

# idle WHAT COMMAND…: what the hook files call, without the millisecond of the shell in them.
idle() {
    local what=$1 name=${1//[^a-z]/_} own
    shift
    measured "idle-$name" "$OURS" 25 "$@"
    own=$(column "idle-$name" $OWN)
    verdict "$own" most 0.005
    row "idle: $what, own CPU" "$(seconds "$own")" - - "<= 5.0 ms" "$WORD"
}

nothing_to_do() {
    local running entry image
    running=$(uname -r)
    image=/boot/vmlinuz-$KERNEL entry=/boot/token/$KERNEL
    say "hooks with nothing to do"
    rm -rf "$OURS/root/usr/lib/modules"/* "$OURS/root/usr/src"/bench*
    lay_installed "$OURS" "$FIGURES/module.ko" "" $MODULES "$KERNEL" "$running"
    echo "stand-in" >"$OURS/root/boot/initrd.img-$KERNEL"
    idle autoinstall dkms autoinstall -k "$KERNEL"
    idle "kernel-install, build" dkms hook kernel-install build add "$KERNEL" "$entry" "$image"
    idle "kernel-install, prove" dkms hook kernel-install prove add "$KERNEL" "$entry" "$image" \
        "/boot/initrd.img-$KERNEL"
    idle "debian, preinst" dkms hook debian preinst "$KERNEL" "$image"
    idle "debian, postinst" dkms hook debian postinst "$KERNEL" "$image"
    idle "debian, header_postinst" dkms hook debian header-postinst "$KERNEL"
    idle "debian, prerm of an unknown kernel" dkms hook debian prerm 5.4.0-999-generic /boot/vmlinuz-5.4.0-999-generic
    idle grub dkms hook grub
    idle "apt, before a transaction without a kernel" dkms hook apt pre-install-pkgs
    idle boot dkms hook boot
    idle autoinstaller dkms hook autoinstaller start "$KERNEL"

    # A package that is configured again has its module built again: from the store.
    set -- dkms hook common-postinst "$(name_of 1)" 1.0 /usr/share/bench ""
    lab_run "$OURS" "$@" >"$FIGURES/postinst.log" 2>&1
    measured postinst "$OURS" 5 "$@"
    verdict "$(column postinst $CPU)" most 0.25
    row "common.postinst of the same module, CPU" "$(seconds "$(column postinst $CPU)")" - - "<= 250 ms" "$WORD"

    # The same where a module is boot-critical, in place, and known to be.
    printf '[boot]\ncritical = ["%s"]\n[initramfs]\ngenerator = "none"\n' "$(name_of 1)" \
        >"$OURS/root/etc/dkms/policy.toml"
    lab_run "$OURS" dkms hook debian postinst "$KERNEL" "$image" >"$FIGURES/gate.log" 2>&1 || true
    lab_run "$OURS" dkms gate >>"$FIGURES/gate.log" 2>&1
    grep -q "^$KERNEL: proven" "$FIGURES/gate.log" ||
        fail "the kernel is not proven: $(<"$FIGURES/gate.log")"
    idle "proven kernel, autoinstall" dkms autoinstall -k "$KERNEL"
    idle "proven kernel, kernel-install, build" \
        dkms hook kernel-install build add "$KERNEL" "$entry" "$image"
    idle "proven kernel, kernel-install, prove" \
        dkms hook kernel-install prove add "$KERNEL" "$entry" "$image"
    idle "proven kernel, debian, postinst" dkms hook debian postinst "$KERNEL" "$image"
    idle "proven kernel, grub" dkms hook grub
}

# ── all of it ─────────────────────────────────────────────────────────────────

STARTED=$SECONDS
if REASON=$(lab_blocked ''); then
    fail "cannot run here: $REASON"
fi
MEASURE=$(cargo build --quiet --locked --manifest-path "$LAB_REPO/Cargo.toml" --bench measure \
    --message-format json-render-diagnostics | sed -n 's/.*"executable":"\([^"]*measure[^"]*\)".*/\1/p')
[ -x "$MEASURE" ] || fail "benches/measure.rs was not built"

KERNELS=$(lab_kernels '')
KERNEL=$(awk '$1 == "new" || $1 == "old" { release = $2 } END { print release }' <<<"$KERNELS")
TOOLS=$(lab_tools)
HEADERS=$(lab_headers "$KERNEL")
FIGURES=$(mktemp -d)
ALL=()
trap drop_all EXIT

OURS='' BARE='' DKMS='' DKMS_NAME=''
new_root BARE bare "$TOOLS" "$HEADERS"
new_root OURS ours "$TOOLS" "$HEADERS"
lab_install "$OURS" debian
if [ "${BENCH_DKMS:-}" = none ]; then
    say "no dkms to stand beside: BENCH_DKMS says so"
elif LAYER=$(
    if [ -n "${BENCH_DKMS:-}" ]; then
        dpkg-deb -x "$BENCH_DKMS" "$FIGURES/dkms-layer" && echo "$FIGURES/dkms-layer"
    else
        lab_layer --only dkms dkms
    fi
); then
    new_root DKMS dkms "$LAYER" "$TOOLS" "$HEADERS"
    DKMS_NAME=$(lab_run "$DKMS" dkms --version | tr - ' ')
else
    say "no dkms to stand beside: apt cannot fetch it"
fi

size_and_linkage
autoinstalls
store_rows
statuses
nothing_to_do

echo
say "$CPUS CPUs, load $(cut -d' ' -f1 /proc/loadavg), kernel $KERNEL, $ROUNDS rounds, $((SECONDS - STARTED)) s"
{
    say "what|ours|reference|ratio|limit|"
    printf '%s\n' "${ROWS[@]}"
} | awk -F'|' '
    { for (i = 1; i <= NF; i++) { cell[NR, i] = $i; if (length($i) > width[i]) width[i] = length($i) } }
    END {
        for (r = 1; r <= NR; r++) {
            line = ""
            for (i = 1; i <= 6; i++) line = line sprintf(i == 1 || i == 6 ? "%-*s  " : "%*s  ", width[i], cell[r, i])
            sub(/ +$/, "", line); print line
        }
    }'
if [ "$OVER" = 1 ]; then
    printf '\nA limit is exceeded.\n'
    awk -v cpus="$CPUS" '{ if ($1 > cpus) print "The machine is busy: wall figures wander. Try BENCH_ROUNDS=7, or later." }' \
        /proc/loadavg
fi
exit "$OVER"
