#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Disk images of a small Debian with a real boot loader, for tests that edit a machine and boot it.
#
#   disk.sh make-base [--suite SUITE] [--loader grub|systemd-boot] [--compiler] [--zfs] OUT.img
#                                                a fresh image (from the cache where it is there);
#                                                with gcc, make and its kernels' headers on demand,
#                                                and zfs-dkms in /root/zfs with what it needs
#   disk.sh run IMG -- CMD [ARG…]                run a command in the image's root
#   disk.sh copy IMG SRC… DIR                    copy files or trees into a directory of the image
#   disk.sh boot IMG [--serial FILE] [--limit S] boot it; prints "BOOTED <uname -r>"
#   disk.sh kernels IMG                          its kernel releases, oldest first
#
# GRUB's images have a BIOS and one partition. Those of systemd-boot have UEFI firmware, whose
# variables lie in IMG.vars, and two: the kernel of the machine need not know FAT, so what is in
# /boot/efi is kept in /.esp, and copied to the EFI partition before each boot.
#
# The guest's init prints BOOTED, runs /root/at-boot where there is one, and powers off.
# A slow machine makes it miss timer interrupts, for which its kernel would give up: no_timer_check.
# Wants root and Linux with loop devices and ext4; installs the tools that it lacks with apt-get.
# DKMS_TEST_CACHE: where base images are kept, default target/test-cache.
set -euo pipefail
# shellcheck source=debian-sources.sh
. "$(dirname "${BASH_SOURCE[0]}")/debian-sources.sh"

MACHINE_UUID=6b2f0d1e-5d0f-4c5e-9a43-1f3d5a7b9c01
PACKAGES="kmod udev initramfs-tools busybox lz4 linux-image-cloud-amd64"
FIRMWARE=/usr/share/OVMF

die() {
	echo "disk: $*" >&2
	exit 2
}

say() {
	echo "disk: $*" >&2
}

# need PROGRAM PACKAGE: install what is not there, and say so.
need() {
	command -v "$1" >/dev/null && return
	install_package "$2"
	hash -r
	command -v "$1" >/dev/null || die "there is no $1 even with $2 installed"
}

# Tests that run side by side take turns, because apt-get does not wait for another one.
install_package() {
	local turn
	exec {turn}>"${TMPDIR:-/tmp}/disk-install.lock"
	flock "$turn"
	if [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" != installed ]; then
		say "installing $1"
		apt-get -qq update >&2
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$1" >&2
	fi
	exec {turn}>&-
}

# Everything that holds a device or a mount is undone here, whatever ended the script. The mounts
# live in a mount namespace of our own (see the end of this file), so none can leak.
loop=
work=
leftovers=()
clean() {
	code=$?
	trap - EXIT INT TERM HUP
	detach || true
	[ ${#leftovers[@]} = 0 ] || rm -rf --one-file-system "${leftovers[@]}"
	exit "$code"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

workdir() {
	work=$(mktemp -d "${TMPDIR:-/tmp}/disk.XXXXXX")
	leftovers+=("$work")
}

# attach IMG: mount its root on $work/root, with the device nodes that GRUB's tools look at.
attach() {
	workdir
	mkdir "$work/root"
	loop=$(losetup -f --show "$1")
	# The kernel of the machine need not know partition tables: partx tells it.
	partx -a "$loop" 2>/dev/null || partx -u "$loop"
	# GRUB's images have nothing else, the others an EFI partition before it.
	part=p2
	[ -b "$loop$part" ] || part=p1
	mount "$loop$part" "$work/root"
	local dev=$work/root/dev node
	mount -t tmpfs -o mode=755 none "$dev"
	mkdir -p "$dev/pts" "$dev/shm" "$dev/disk/by-uuid"
	for node in null zero full random urandom tty "${loop##*/}" "${loop##*/}$part"; do
		cp -a "/dev/$node" "$dev/$node"
	done
	ln -s /proc/self/fd "$dev/fd"
	ln -s "../../${loop##*/}$part" "$dev/disk/by-uuid/$MACHINE_UUID"
	mount -t proc none "$work/root/proc"
	mount -t sysfs none "$work/root/sys"
	mount -t tmpfs none "$work/root/run"
	mount -t tmpfs none "$work/root/tmp"
	if [ "$part" != p1 ]; then
		# A file system of its own, as kernel-install tells paths within it by its device.
		mkdir -p "$work/root/.esp"
		mount -t tmpfs none "$work/root/boot/efi"
		cp -a "$work/root/.esp/." "$work/root/boot/efi/"
		# What the firmware of the machine that this runs on says is about that one.
		[ ! -d "$work/root/sys/firmware" ] || mount -t tmpfs none "$work/root/sys/firmware"
	fi
}

detach() {
	if [ -n "$work" ] && mountpoint -q "$work/root/boot/efi"; then
		rm -rf "$work/root/.esp"
		cp -a "$work/root/boot/efi" "$work/root/.esp"
	fi
	if [ -n "$work" ] && mountpoint -q "$work/root"; then
		umount -R "$work/root" || umount -Rl "$work/root"
	fi
	if [ -n "$loop" ]; then
		partx -d "$loop" 2>/dev/null || true
		losetup -d "$loop"
		loop=
	fi
}

inside() {
	local relaxed=()
	# systemd's tools look for a real partition below /boot/efi.
	[ "$part" = p1 ] || relaxed=(SYSTEMD_RELAX_ESP_CHECKS=1)
	env -i "${relaxed[@]}" PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
		chroot "$work/root" "$@"
}

# apt_as DIR …: apt-cache or apt-get on a private copy of the lists for another suite.
apt_as() {
	local dir=$1 tool=$2
	shift 2
	"$tool" -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null \
		-o Dir::State::lists="$dir/lists" -o Dir::State::status=/dev/null -o Dir::Cache="$dir/cache" \
		-o Debug::NoLocking=1 "$@"
}

# Two kernels of one series: what the meta package names and the one before it.
pick_kernels() {
	local newest series meta=linux-image-cloud-amd64
	newest=$(apt_as "$1" apt-cache depends $meta |
		sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1)
	[ -n "$newest" ] || die "apt knows no $meta"
	series=$(expr "$newest" : '\(linux-image-[0-9]*\.[0-9]*\)')
	apt_as "$1" apt-cache pkgnames "$series." | grep -E '^linux-image-[0-9][^-]*(-[0-9]+)?-cloud-amd64$' |
		sort -V | sed "/^$newest\$/q" | tail -n2
}

make_base() {
	local suite='' out compiler='' zfs='' loader=grub components=''
	while [ $# -gt 1 ]; do
		case $1 in
		--suite) suite=$2 && shift 2 ;;
		--loader) loader=$2 && shift 2 ;;
		--compiler) compiler=yes && shift ;;
		--zfs) zfs=yes components='main contrib' && shift ;;
		*) die "make-base: unknown option $1" ;;
		esac
	done
	[ $# = 1 ] || die "usage: make-base [--suite SUITE] [--loader LOADER] [--compiler] OUT.img"
	out=$1
	suite=${suite:-$(own_suite)}
	case $loader in
	grub) PACKAGES+=" grub-pc" ;;
	systemd-boot) PACKAGES+=" systemd-boot systemd-sysv" ;;
	*) die "unknown loader $loader" ;;
	esac
	need mmdebstrap mmdebstrap
	need sfdisk fdisk
	need mkfs.ext4 e2fsprogs
	local cache=${DKMS_TEST_CACHE:-target/test-cache} started=$SECONDS
	mkdir -p "$cache"
	cache=$(cd "$cache" && pwd)
	workdir
	chmod 755 "$work" # mmdebstrap's apt reads it as another user
	mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
	# shellcheck disable=SC2086 # a list of words
	write_sources "$suite" $components >"$work/apt/sources.list"
	[ -s "$work/apt/sources.list" ] || die "this machine's apt has no Debian sources"
	apt_as "$work/apt" apt-get -qq update >&2
	local kernels key image
	kernels=$(pick_kernels "$work/apt" | tr '\n' ' ')
	[ -z "$compiler" ] || kernels+="gcc libc6-dev make ${kernels//linux-image-/linux-headers-}"
	[ -z "$zfs" ] || PACKAGES+=" file lsb-release python3 python3-distutils perl"
	# shellcheck disable=SC2086 # lists of words
	key=$( (apt_as "$work/apt" apt-cache policy $PACKAGES $kernels ${zfs:+zfs-dkms} base-files libc6 | grep -E '^[a-z]|Candidate'
		declare -f build_base) | sha256sum | cut -c1-16)
	image=$cache/$loader-$suite${compiler:+-compiler}${zfs:+-zfs}-$key.img
	if [ ! -e "$image" ]; then
		leftovers+=("$image.$$")
		say "making the $suite base image ($kernels)"
		# shellcheck disable=SC2086
		build_base "$suite" "$loader" "$image.$$" $kernels
		mv "$image.$$" "$image"
		say "made $image in $((SECONDS - started)) s"
	fi
	cp --sparse=always "$image" "$out"
}

build_base() {
	local suite=$1 loader=$2 image=$3 root=$work/new
	shift 3
	# Before initramfs-tools is set up, so that the first image made is already the small one.
	mkdir -p "$work/early/etc/initramfs-tools/conf.d" "$work/early/usr/share/initramfs-tools/modules.d" \
		"$work/early/etc/default/grub.d" "$work/early/etc/kernel"
	printf 'MODULES=list\nCOMPRESS=lz4\n' >"$work/early/etc/initramfs-tools/conf.d/small"
	printf 'virtio_pci\nvirtio_blk\next4\n' >"$work/early/usr/share/initramfs-tools/modules.d/small"
	echo "root=UUID=$MACHINE_UUID ro console=ttyS0 init=/usr/sbin/lab-init panic=-1 no_timer_check" >"$work/early/etc/kernel/cmdline"
	echo 'layout=bls' >"$work/early/etc/kernel/install.conf"
	# mmdebstrap has the network; tests have none.
	local debs="cd /root/debs && apt-get -qq download $2 ${2/image/headers}"
	[ -z "$zfs" ] || debs+=" && mkdir /root/zfs && cd /root/zfs && apt-get -qq download zfs-dkms"
	mmdebstrap --quiet --mode=root --variant=minbase --include="${PACKAGES// /,},$(echo "$*" | tr ' ' ',')" \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' --aptopt='APT::Install-Recommends "false"' \
		--essential-hook="cp -r $work/early/etc \"\$1/\" && cp -r $work/early/usr \"\$1/\"" \
		--customize-hook="mkdir -p \"\$1/root/debs\" && chroot \"\$1\" sh -c '$debs'" \
		"$suite" "$root" "$work/apt/sources.list" >&2
	echo "UUID=$MACHINE_UUID / ext4 defaults 0 1" >"$root/etc/fstab"
	echo lab >"$root/etc/hostname"
	echo 00112233445566778899aabbccddeeff >"$root/etc/machine-id"
	mkdir -p "$root/etc/default/grub.d" "$root/boot/efi"
	cat >"$root/etc/default/grub" <<-'CFG'
		GRUB_DEFAULT=0
		GRUB_TIMEOUT=0
		GRUB_DISTRIBUTOR=Debian
		GRUB_CMDLINE_LINUX_DEFAULT=""
		GRUB_CMDLINE_LINUX=""
	CFG
	# What the lab needs whatever a test writes to /etc/default/grub.
	cat >"$root/etc/default/grub.d/lab.cfg" <<-'CFG'
		GRUB_TIMEOUT=0
		GRUB_RECORDFAIL_TIMEOUT=0
		GRUB_TERMINAL=serial
		GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX console=ttyS0 init=/usr/sbin/lab-init panic=-1 no_timer_check"
	CFG
	cat >"$root/usr/sbin/lab-init" <<-'INIT'
		#!/bin/sh
		mountpoint -q /proc || mount -t proc none /proc
		mountpoint -q /sys || mount -t sysfs none /sys
		mountpoint -q /dev || mount -t devtmpfs none /dev
		exec </dev/ttyS0 >/dev/ttyS0 2>&1
		echo "BOOTED $(uname -r)"
		if [ -x /root/at-boot ]; then
			mount -o remount,rw /
			/root/at-boot
			sync
			mount -o remount,ro /
		fi
		exec busybox reboot -f
	INIT
	chmod 755 "$root/usr/sbin/lab-init"
	truncate -s 2048M "$image"
	"install_$loader" "$image" "$root"
}

install_grub() {
	local image=$1 root=$2
	echo 'start=1MiB, type=83, bootable' | sfdisk -q "$image"
	mkfs.ext4 -q -F -U "$MACHINE_UUID" -E offset=1048576 -d "$root" "$image" 2046M
	rm -rf --one-file-system "$root"
	attach "$image"
	inside grub-install --target=i386-pc "$loop" >&2
	inside update-grub >&2
	detach
}

install_systemd-boot() {
	local image=$1 root=$2 kernel
	printf '%s\n' 'label: gpt' 'start=1MiB, size=192MiB, type=U' 'type=L' | sfdisk -q "$image"
	mkfs.ext4 -q -F -U "$MACHINE_UUID" -E "offset=$((193 << 20))" -d "$root" "$image" 1853M
	rm -rf --one-file-system "$root"
	attach "$image"
	inside bootctl --esp-path=/boot/efi --no-variables install >&2
	inside sh -c 'printf "timeout 0\n" >/boot/efi/loader/loader.conf'
	for kernel in "$work"/root/boot/vmlinuz-*; do
		kernel=${kernel##*/vmlinuz-}
		inside kernel-install add "$kernel" "/boot/vmlinuz-$kernel" "/boot/initrd.img-$kernel" >&2
	done
	detach
}

# fill_esp IMG: what the root has at /boot/efi becomes the EFI partition.
fill_esp() {
	need mcopy mtools
	attach "$1"
	mformat -i "$1@@1M" -F -T $((192 << 11)) -h 255 -s 63 ::
	# Another program than cp, because nobody mounts it.
	mcopy -i "$1@@1M" -s -Q "$work"/root/boot/efi/* ::
	detach
}

boot() {
	local image=$1 serial='' limit=60
	shift
	while [ $# -gt 0 ]; do
		case $1 in
		--serial) serial=$2 ;;
		--limit) limit=$2 ;;
		*) die "boot: unknown option $1" ;;
		esac
		shift 2
	done
	need qemu-system-x86_64 qemu-system-x86
	workdir
	serial=${serial:-$work/serial}
	local machine=(-M pc)
	if sfdisk -d "$image" | grep -q '^label: gpt'; then
		[ -e "$FIRMWARE/OVMF_CODE_4M.fd" ] || install_package ovmf
		[ -e "$image.vars" ] || cp "$FIRMWARE/OVMF_VARS_4M.fd" "$image.vars"
		fill_esp "$image"
		machine=(-M q35 -drive "if=pflash,unit=0,format=raw,readonly=on,file=$FIRMWARE/OVMF_CODE_4M.fd"
			-drive "if=pflash,unit=1,format=raw,file=$image.vars")
	fi
	timeout "$limit" qemu-system-x86_64 "${machine[@]}" -accel tcg -cpu qemu64 -smp 1 -m 512 -nodefaults \
		-display none -monitor none -serial stdio -no-reboot \
		-drive "file=$image,format=raw,if=virtio,cache=unsafe" </dev/null >"$serial" || true
	if ! tr -d '\r' <"$serial" | grep -o 'BOOTED [0-9][^ ]*'; then
		say "$image did not boot within $limit s; the end of its serial line:"
		tail -n 30 "$serial" >&2
		return 1
	fi
}

[ "$(id -u)" = 0 ] || die "this needs root"
[ $# -ge 1 ] || die "usage: see the head of $0"
if [ -z "${DISK_NAMESPACE:-}" ]; then
	trap - EXIT
	DISK_NAMESPACE=1 exec unshare -m --propagation private "$0" "$@"
fi
unset DISK_NAMESPACE
verb=$1
shift
case $verb in
make-base) make_base "$@" ;;
run)
	if [ $# -lt 3 ] || [ "$2" != -- ]; then
		die "usage: run IMG -- CMD [ARG…]"
	fi
	attach "$1"
	shift 2
	inside "$@"
	;;
copy)
	[ $# -ge 3 ] || die "usage: copy IMG SRC… DIR"
	attach "$1"
	shift
	target=${*: -1}
	mkdir -p "$work/root/$target"
	cp -a "${@:1:$#-1}" "$work/root/$target/"
	;;
boot)
	[ $# -ge 1 ] || die "usage: boot IMG [--serial FILE] [--limit SECONDS]"
	boot "$@"
	;;
kernels)
	attach "$1"
	find "$work/root/boot" -name 'vmlinuz-*' -printf '%f\n' | sed 's/^vmlinuz-//' | sort -V
	;;
*) die "unknown verb $verb" ;;
esac
