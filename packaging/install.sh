#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# make install: puts everything below DESTDIR, in the places of one family of distributions.
# Usage: install.sh DESTDIR PREFIX [debian|redhat|arch|clear|gentoo|void|alpine]
set -euo pipefail
cd "$(dirname "$0")/.."
dest=$1 prefix=$2 family=${3:-}

detect() {
    local words
    # shellcheck source=/dev/null
    words=$(. /etc/os-release 2>/dev/null || . /usr/lib/os-release; echo "${ID:-} ${ID_LIKE:-}")
    case " $words " in
        *" debian "* | *" ubuntu "*) echo debian ;;
        *" fedora "* | *" rhel "* | *" centos "* | *suse*) echo redhat ;;
        *" arch "*) echo arch ;;
        *" clear-linux-os "*) echo clear ;;
        *" gentoo "*) echo gentoo ;;
        *" void "*) echo void ;;
        *" alpine "*) echo alpine ;;
        *) return 1 ;;
    esac
}

if [ -z "$family" ] && ! family=$(detect); then
    echo "make install: cannot tell the family of this distribution; say FAMILY=debian|redhat|arch|clear|gentoo|void|alpine" >&2
    exit 1
fi

program() { install -D -m 755 "$1" "$dest$2"; }
data() { install -D -m 644 "$1" "$dest$2"; }
# Settings belong to the administrator once they are there.
settings() { [ -e "$dest$2" ] || data "$1" "$2"; }

case $family in
    # The hooks call /usr/sbin/dkms, which is /usr/bin/dkms where sbin is merged into bin.
    arch | clear | void) sbin=$prefix/bin ;;
    debian | redhat | gentoo | alpine) sbin=$prefix/sbin ;;
    *)
        echo "make install: unknown FAMILY '$family', expected debian, redhat, arch, clear, gentoo, void or alpine" >&2
        exit 1
        ;;
esac
zsh=site-functions
[ "$family" != debian ] || zsh=vendor-completions
program build/dkms "$sbin/dkms"
program hooks/lib/common.postinst "$prefix/lib/dkms/common.postinst"
program hooks/lib/dkms_autoinstaller "$prefix/lib/dkms/dkms_autoinstaller"
# What our hooks in /etc look for: they outlive the package where those are its configuration, and
# another dkms that takes its place knows nothing of them.
ln -sfn ../../sbin/dkms "$dest$prefix/lib/dkms/hook"
data hooks/systemd/dkms.service "$prefix/lib/systemd/system/dkms.service"
for plugin in install.d/*.install; do
    program "$plugin" "$prefix/lib/kernel/$plugin"
done
for page in man/*; do
    data "$page" "$prefix/share/man/man${page##*.}/${page#man/}"
done
data packaging/completions/dkms.bash "$prefix/share/bash-completion/completions/dkms"
data packaging/completions/dkms.fish "$prefix/share/fish/vendor_completions.d/dkms.fish"
data packaging/completions/_dkms "$prefix/share/zsh/$zsh/_dkms"
templates=$prefix/share/dkms
if [ "$family" != clear ]; then
    program hooks/grub/zz_dkms /etc/grub.d/zz_dkms
    settings hooks/etc/framework.conf /etc/dkms/framework.conf
    templates=/etc/dkms
    install -d -m 755 "$dest/etc/dkms/framework.conf.d" "$dest/etc/dkms/policy.d" "$dest/var/lib/dkms"
fi
# What mkrpm, mkdeb and mkbmdeb make packages by; a bundle's are nobody's to edit.
(cd hooks/etc && find template-* -type f) | while read -r template; do
    if [ ! -e "$dest$templates/$template" ]; then
        data "hooks/etc/$template" "$templates/$template"
        [ "$(head -c 2 "hooks/etc/$template")" != '#!' ] || chmod 755 "$dest$templates/$template"
    fi
done
if [ "$family" = redhat ]; then
    data dnf/dkms.py "$prefix/lib/dkms/dnf/dkms.py"
    # dnf looks for plugins beside itself, below one version of Python.
    for dnf in "$dest$prefix"/lib/python3*/*-packages/dnf; do
        [ ! -d "$dnf" ] || { mkdir -p "$dnf-plugins" && ln -sfn "$prefix/lib/dkms/dnf/dkms.py" "$dnf-plugins/dkms.py"; }
    done
    data dnf/dkms.actions /etc/dnf/libdnf5-plugins/actions.d/dkms.actions
fi
if [ "$family" = arch ]; then
    program hooks/initcpio/post/dkms "$prefix/lib/initcpio/post/dkms"
    for hook in pacman/*.hook; do
        data "$hook" "$prefix/share/libalpm/hooks/${hook#pacman/}"
    done
fi
if [ "$family" = gentoo ]; then
    for hook in hooks/gentoo/*.install; do
        program "$hook" "$prefix/lib/kernel/preinst.d/${hook##*/}"
    done
fi
if [ "$family" = void ]; then
    for hook in hooks/void/*/*; do
        program "$hook" "/etc/kernel.d/${hook#hooks/void/}"
    done
fi
if [ "$family" = alpine ]; then
    program hooks/alpine/dkms.hook /etc/kernel-hooks.d/dkms.hook
fi
if [ "$family" = debian ]; then
    for hook in hooks/kernel/*/*; do
        program "$hook" "/etc/${hook#hooks/}"
    done
    program hooks/initramfs/post-update.d/dkms /etc/initramfs/post-update.d/dkms
    data apt/99dkms /etc/apt/apt.conf.d/99dkms
fi
# A bundle has nothing in /etc and /var, which are the administrator's and the machine's alone.
if [ "$family" = clear ]; then
    units=$prefix/lib/systemd/system
    data clear-linux/dkms-new-kernel.service "$units/dkms-new-kernel.service"
    install -d -m 755 "$dest$units/update-triggers.target.wants" "$dest$prefix/share/kernel/cmdline.d" \
        "$dest$prefix/lib/motd.d"
    ln -sfn ../dkms-new-kernel.service "$dest$units/update-triggers.target.wants/dkms-new-kernel.service"
    # Clear Linux's kernels load nothing else than their own modules without it.
    echo module.sig_unenforce >"$dest$prefix/share/kernel/cmdline.d/clr-ignore-mod-sig.conf"
    echo " * Kernel modules are loaded without a look at their signatures, because dkms builds some of them here" \
        "($prefix/share/kernel/cmdline.d/clr-ignore-mod-sig.conf)" >"$dest$prefix/lib/motd.d/clr-ignore-mod-sig.motd"
fi
echo "installed for $family${dest:+ below $dest}"
