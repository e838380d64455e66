#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# make demo: a kernel update, replayed in a throw-away root. Real: the headers,
# the compiler, kmod, Debian's hook order (run-parts), systemd-boot's hooks,
# kernel-install, dkms. Stand-ins: the kernel image (text) and the initramfs
# generator (packs the modules only). Every step is asserted.
set -euo pipefail

HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=lib/lab.sh
. "$HERE/lib/lab.sh"

if [ -t 1 ]; then
    bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' dim='' green='' red='' plain=''
fi
STARTED=$SECONDS

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
tell() { printf '%s\n' "$@"; }
good() { printf '%s  ✓ %s%s\n' "$green" "$*" "$plain"; }

expect() {
    local what=$1
    shift
    if "$@"; then
        good "$what"
    else
        printf '%s  ✗ not so: %s%s\n' "$red" "$what" "$plain"
        tell "" "The demo stops here. Look around:  $ROOT/enter bash"
        exit 1
    fi
}

# Runs a command in the root and shows it, with its output and exit code, as a
# user would see them. $CODE and $OUTPUT keep the end of it.
show() {
    printf '  %s# %s%s\n' "$bold" "$*" "$plain"
    "${INSIDE[@]}" "$@" 2>&1 </dev/null | tee "$ROOT/output" | while IFS= read -r line; do
        printf '  %s│%s %s\n' "$dim" "$plain" "$line"
    done && CODE=0 || CODE=${PIPESTATUS[0]}
    OUTPUT=$(<"$ROOT/output")
    [ "$CODE" = 0 ] || printf '  %s│ (exit code %s)%s\n' "$dim" "$CODE" "$plain"
}

has_entry() { [ -f "$ESP/loader/entries/$MACHINE-$1.conf" ]; }
no_entry() { ! has_entry "$1" && [ -z "$(ls -A "$ESP/$MACHINE/$1" 2>/dev/null)" ]; }
not() { ! "$@"; }
code_is() { [ "$CODE" = "$1" ]; }
output_has() { grep -qF -- "$1" <<<"$OUTPUT"; }
is_installed() {
    "${INSIDE[@]}" modprobe --show-depends -S "$2" "$1" >/dev/null 2>&1 &&
        grep -q "^$1/1.0, $2, .*: installed" <<<"$("${INSIDE[@]}" dkms status 2>/dev/null)"
}
entries() {
    local entry
    tell "  Boot menu:"
    for entry in "$ESP"/loader/entries/*.conf; do
        [ -e "$entry" ] || entry=/nothing
        entry=${entry##*/"$MACHINE"-}
        tell "    • ${entry%.conf}"
    done
}

# What linux-image's maintainer script does once the kernel is unpacked.
install_kernel() {
    lab_kernel "$ROOT" "$1"
    show env "DEB_MAINT_PARAMS='configure' ''" \
        run-parts --report --exit-on-error "--arg=$1" "--arg=/boot/vmlinuz-$1" /etc/kernel/postinst.d
}

# write_module NAME STATEMENT [CONF-LINE…]: a module of ours in /usr/src/NAME-1.0.
write_module() {
    lab_source "$ROOT" "$1" 1.0 good "${@:3}"
    cat >"$ROOT/root/usr/src/$1-1.0/$1.c" <<END
#include <linux/module.h>
#include <linux/string.h>
#include <linux/device.h>

static int __init $1_init(void)
{
	$2
	return 0;
}
module_init($1_init);
MODULE_LICENSE("GPL");
END
}

# The archive has a single kernel series: no interface changes by itself.
age_by_hand() {
    echo "ccflags-\$(if \$(findstring $NEW,\$(KERNELRELEASE)),y) += -DTOO_NEW" >>"$ROOT/root/usr/src/$1-1.0/Makefile"
    sed -i -e '1i #ifdef TOO_NEW' -e '1i #error "this kernel has dropped what we call"' -e '1i #endif' \
        "$ROOT/root/usr/src/$1-1.0/$1.c"
}

# ── 1 ─────────────────────────────────────────────────────────────────────────

title "dkms-hooks: a kernel update that would have left this machine unbootable"

if REASON=$(lab_blocked ''); then
    tell "The demo cannot run here: $REASON"
    exit 1
fi
KERNELS=$(lab_kernels '')
while read -r role release; do
    case $role in
        old) OLD=$release ;;
        new) NEW=$release ;;
        next) NEW=$release ;; # a newer series, where the archive has one
    esac
done <<<"$KERNELS"

title "1. A throw-away machine"
tell "It gets real kernel headers, kmod and systemd-boot, fetched with apt-get" \
    "download and unpacked; nothing is installed on this machine."
LAYERS=()
for layer in "$(lab_tools)" "$(lab_headers "$OLD")" "$(lab_headers "$NEW")" \
    "$(lab_layer systemd-boot systemd-boot)" "$(lab_layer --only busybox-static busybox-static)"; do
    LAYERS+=(--layer "$layer")
done
FETCHED=$SECONDS

ROOT=$LAB_ROOTS/demo # one is enough: an earlier demo's makes room
if [ -e "$ROOT" ] && ! lab_drop "$ROOT" 2>/dev/null; then
    ROOT=$(lab_new demo)
fi
ESP=$ROOT/esp
MACHINE=00112233445566778899aabbccddeeff
mkdir -p "$ESP"
lab_root "$ROOT" "${LAYERS[@]}" --bind "$ESP:/boot/efi"
# The ESP is a directory: bootctl must not look for a partition of that type.
INSIDE=(lab_run "$ROOT" env SYSTEMD_RELAX_ESP_CHECKS=1)
mkdir -p "$ROOT"/root/etc/{kernel/postinst.d,dkms}
echo "$MACHINE" >"$ROOT/root/etc/machine-id"
echo "root=LABEL=demo ro quiet" >"$ROOT/root/etc/kernel/cmdline"
install -m 755 "$HERE/lib/stand-ins/update-initramfs" -t "$ROOT/root/usr/sbin" -D
install -m 755 "$HERE/lib/stand-ins/postinst-initramfs" "$ROOT/root/etc/kernel/postinst.d/initramfs-tools"
"${INSIDE[@]}" bootctl --quiet --esp-path=/boot/efi --no-variables install >/dev/null 2>&1
lab_install "$ROOT" debian
expect "dkms-hooks is installed in it" "${INSIDE[@]}" sh -c 'dkms --version >/dev/null'

# rootdisk and blinker call what Linux 6.8 dropped and 6.4 changed: they age by
# themselves where the archive has kernels from before and after.
write_module hello 'pr_info("hello\n");'
write_module rootdisk 'char name[16]; strlcpy(name, "rootdisk", sizeof(name)); pr_info("%s\n", name);' 'REMAKE_INITRD="yes"'
write_module blinker 'struct class *lights = class_create(THIS_MODULE, "blinker"); (void)lights;'
if ! sort -VC <<<"$OLD"$'\n6.4\n6.8\n'"$NEW"; then
    age_by_hand rootdisk
    age_by_hand blinker
fi
cat >"$ROOT/root/etc/dkms/policy.toml" <<'END'
# This machine's root file system needs it.
[boot]
critical = ["rootdisk"]
END

tell "" "Three modules from /usr/src, all with AUTOINSTALL=yes:" \
    "    hello      a good one" \
    "    blinker    optional: lights on the front panel" \
    "    rootdisk   boot-critical, says /etc/dkms/policy.toml: without it, no root disk"
for module in hello blinker rootdisk; do
    "${INSIDE[@]}" dkms add "$module/1.0" >/dev/null
done

# ── 2 ─────────────────────────────────────────────────────────────────────────

title "2. Kernel $OLD is installed: all is well"
tell "linux-image's maintainer script runs the hooks in /etc/kernel/postinst.d: ours," \
    "the initramfs generator, systemd-boot's (which calls kernel-install)."
install_kernel "$OLD"
expect "the hooks succeed" code_is 0
for module in hello blinker rootdisk; do
    expect "$module is installed, and modprobe finds it" is_installed "$module" "$OLD"
done
expect "$OLD has its boot entry" has_entry "$OLD"
entries

# ── 3 ─────────────────────────────────────────────────────────────────────────

title "3. The update: kernel $NEW"
tell "blinker and rootdisk call functions that this kernel has changed or dropped." \
    "With dkms alone, this is where a machine gets a kernel that cannot boot."
install_kernel "$NEW"
expect "hello is installed: a failing module blocks nothing but itself" is_installed hello "$NEW"
expect "rootdisk is not" not is_installed rootdisk "$NEW"
expect "and is named as the reason" output_has rootdisk
expect "the package manager is not left half-configured" code_is 0
expect "$NEW got NO boot entry: it is withheld" no_entry "$NEW"
expect "$OLD, the last proven kernel, still has its own" has_entry "$OLD"
entries
show dkms gate

# ── 4 ─────────────────────────────────────────────────────────────────────────

title "4. Somebody mends rootdisk (strlcpy becomes strscpy); blinker stays broken"
sed -i -e 's/strlcpy/strscpy/' -e '/^#error/d' "$ROOT/root/usr/src/rootdisk-1.0/rootdisk.c"
tell "And does what the hold's message said. (The next run of the hooks would do as well.)"
show dkms autoinstall -k "$NEW"
expect "rootdisk is installed, and modprobe finds it" is_installed rootdisk "$NEW"
expect "the initramfs was remade, once" output_has "Remaking the initramfs"
expect "blinker's failure is still named" output_has blinker
expect "$NEW has its boot entry: it is released" has_entry "$NEW"
entries

# ── 5 ─────────────────────────────────────────────────────────────────────────

title "5. What dkms says now"
show dkms status
expect "rootdisk is there for the old kernel" output_has "rootdisk/1.0, $OLD"
expect "and for the new one" output_has "rootdisk/1.0, $NEW"
show dkms gate
expect "the gate answers" code_is 0

title "That was all, in $((SECONDS - FETCHED)) s (and $((FETCHED - STARTED)) s of fetching). What to try next:"
tell "    $ROOT/enter bash" \
    "        a shell in the machine above: dkms status, dkms gate," \
    "        less /var/lib/dkms/blinker/1.0/build/make.log" \
    "    make test           the whole suite, with a real kernel booted under qemu" \
    "    less README.md      installing it for good, policy, exit codes" \
    "    rm -rf ${ROOT#"$PWD"/}" \
    "        when you have seen enough"
