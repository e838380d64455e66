// SPDX-License-Identifier: MIT OR Apache-2.0
//! The matrix of real boots (`make test-boot`): each boot loader with each way in which a kernel can
//! come to lack what the machine needs. A representative row of each loader is in `grub.rs` and
//! `systemd_boot.rs`, where the traps are too that only one loader has.
//!
//! Every row is booted three times: as it is held, as it would boot without the gate, and mended.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::disk::{Base, Loader};
use common::machine::{KILLER, Machine, OUTSIDE, write};
use rstest::rstest;

/// What is wrong with the new kernel.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// The module does not compile.
    DoesNotCompile,
    /// What was built for it before was built against other symbols than it has now.
    ChecksumMismatch,
    /// It needs a symbol that nobody has.
    MissingSymbol,
    /// It is installed, and is not in the initramfs that the root file system is found from.
    NotInInitramfs,
    /// The kernel came without its headers.
    NoHeaders,
    /// The build took the machine's last block.
    DiskFull,
    /// dkms was ended in the middle.
    Killed,
}

/// Takes all there is.
const FILLER: &str = "#!/bin/sh\ndd if=/dev/zero of=/filler bs=1M 2>/dev/null\ndd if=/dev/zero of=/filler2 bs=512 2>/dev/null\ntrue\n";

/// Changes the checksum of the first symbol that the kept module was built against.
const TAMPER: &str = "set -e
dkms build crit/1.0 -k NEW
cd /var/lib/dkms/crit/1.0/NEW/*/module
if [ -e crit.ko.xz ]; then busybox unxz crit.ko.xz; fi
objcopy --dump-section __versions=/tmp/versions crit.ko
printf '\\1\\2\\3\\4' | dd of=/tmp/versions conv=notrunc bs=1 2>/dev/null
objcopy --update-section __versions=/tmp/versions crit.ko
";

const SOURCE: &str = "/usr/src/crit-1.0";

impl Fault {
    /// Brings it about before the kernel comes.
    fn inflict(self, machine: &Machine) {
        let Machine { disk, new, .. } = machine;
        let script = |name: &str, text: &str, when: &str| {
            let path = format!("{SOURCE}/{name}");
            format!(
                "{OUTSIDE}{}chmod 755 {path}; echo {when}={name} >>{SOURCE}/dkms.conf\n",
                write(&path, text)
            )
        };
        if !matches!(self, Self::DoesNotCompile) {
            machine.mend();
        }
        let change = match self {
            Self::DoesNotCompile => String::new(),
            Self::ChecksumMismatch => TAMPER.replace("NEW", new),
            Self::MissingSymbol => format!(
                "cd {SOURCE}; sed -i 's/return 0;/return nobody_has_this();/' crit.c\n\
                 sed -i '1i #ifdef CHANGED_INTERFACE\\nint nobody_has_this(void);\\n#else\\n\
                 static inline int nobody_has_this(void) {{ return 0; }}\\n#endif' crit.c\n\
                 echo 'MAKE[0]=\"KBUILD_MODPOST_WARN=1 make -C $kernel_source_dir M=$dkms_tree/crit/1.0/build\"' \
                 >>dkms.conf\n"
            ),
            Self::NotInInitramfs => format!(
                "echo crit >>/etc/initramfs-tools/modules; echo REMAKE_INITRD=yes >>{SOURCE}/dkms.conf\n\
                 dkms install --force crit/1.0 -k {}; sed -i /crit/d /etc/initramfs-tools/modules\n",
                machine.old
            ),
            Self::NoHeaders => format!("dpkg --purge linux-headers-{new}\n"),
            Self::DiskFull => script("filler", FILLER, "PRE_BUILD"),
            Self::Killed => script("killer", KILLER, "PRE_BUILD"),
        };
        disk.sh(&change).succeeds();
    }

    /// Mends it, and has the work done again as somebody would.
    fn mend(self, machine: &Machine) {
        let Machine { disk, new, .. } = machine;
        machine.mend();
        let change = match self {
            Self::DoesNotCompile => "",
            Self::ChecksumMismatch => "dkms unbuild crit/1.0 -k NEW",
            Self::MissingSymbol => "sed -i 's/^#ifdef CHANGED_INTERFACE/#if 0/' /usr/src/crit-1.0/crit.c",
            Self::NotInInitramfs => "echo crit >>/etc/initramfs-tools/modules",
            Self::NoHeaders => "dpkg -i /root/debs/linux-headers-*.deb",
            Self::DiskFull => "rm -f /filler*; sed -i /PRE_BUILD/d /usr/src/crit-1.0/dkms.conf",
            Self::Killed => "sed -i /PRE_BUILD/d /usr/src/crit-1.0/dkms.conf",
        };
        disk.sh(&change.replace("NEW", new)).succeeds();
        disk.sh("dpkg --configure -a").succeeds();
        let again = match self {
            Self::NotInInitramfs => format!("update-initramfs -u -k {new}"),
            _ => format!("dkms autoinstall -k {new}"),
        };
        disk.sh(&again).succeeds();
    }

    /// Whether the package goes through: where dkms itself could not work it is for dpkg to say.
    fn lets_dpkg_go_on(self) -> bool {
        !matches!(self, Self::DiskFull | Self::Killed)
    }
}

#[rstest]
#[ignore = "a matrix of boots (root, network, ten minutes): make test-boot"]
fn a_kernel_that_lacks_what_the_machine_needs_is_not_booted(
    #[values(Base::GRUB, Base::GRUB_TRIXIE, Base::SYSTEMD_BOOT)] base: Base,
    #[values(
        Fault::DoesNotCompile,
        Fault::ChecksumMismatch,
        Fault::MissingSymbol,
        Fault::NotInInitramfs,
        Fault::NoHeaders,
        Fault::DiskFull,
        Fault::Killed
    )]
    fault: Fault,
) {
    let machine = Machine::new(base);
    fault.inflict(&machine);
    let installed = machine.install_new();
    if fault.lets_dpkg_go_on() {
        installed.succeeds();
        machine.disk.sh("dpkg --audit").succeeds().says_nothing_of("linux");
    }
    if matches!(fault, Fault::DiskFull) {
        machine.disk.sh("rm -f /filler*").succeeds();
    }
    machine.assert_stays_on_old();
    machine.update_the_loader().succeeds();
    machine.boots_old_with_module();

    // A package that has failed leaves systemd-boot without an entry, gate or none.
    let has_control = fault.lets_dpkg_go_on() || base.loader == Loader::Grub;
    if has_control && !matches!(fault, Fault::NotInInitramfs) {
        machine.assert_new_without_gate();
        if fault.lets_dpkg_go_on() {
            machine.boots_new("FAIL");
        } else {
            // It has no initramfs yet.
            machine.disk.does_not_come_up();
        }
        // As it was.
        machine.update_the_loader().succeeds();
        machine.assert_stays_on_old();
    }

    fault.mend(&machine);
    machine.gate_says(&format!("{}: proven", machine.new));
    machine.boots_new("OK");
}

/// The control of every row: nothing is wrong, nothing is held.
#[rstest]
#[ignore = "a matrix of boots (root, network, ten minutes): make test-boot"]
fn a_kernel_that_lacks_nothing_is_booted(
    #[values(Base::GRUB, Base::GRUB_TRIXIE, Base::SYSTEMD_BOOT)] base: Base,
) {
    let machine = Machine::new(base);
    machine.mend();
    machine.install_new().succeeds();
    machine.gate_says(&format!("{}: proven", machine.new));
    machine.boots_new("OK");
}

/// Says which of the two is there.
const LOOK_FOR_ZFS: &str =
    "#!/bin/sh\nmodprobe zfs && grep -q '^zfs ' /proc/modules && echo \"ZFS-OK $(uname -r)\"\n";

/// A real module of many files, with a configure script, which takes minutes to build.
#[rstest]
#[ignore = "a matrix of boots (root, network, ten minutes): make test-boot"]
fn a_kernel_without_zfs_is_not_booted() {
    let machine = Machine::new(Base::GRUB_ZFS);
    let Machine { disk, old, new } = &machine;
    machine.mend();
    disk.sh(&format!(
        "dpkg --purge linux-headers-{new}; dpkg -i --force-depends /root/zfs/*.deb
         mkdir -p /etc/dkms; printf '[boot]\\ncritical = [\"zfs\"]\\n[module.zfs]\\ninitramfs = false\\n' >/etc/dkms/policy.toml
         dkms autoinstall -k {old}; {}chmod 755 /root/then",
        write("/root/then", LOOK_FOR_ZFS)
    ))
    .succeeds();
    machine.gate_says(&format!("{old}: proven"));

    machine.install_new().succeeds().says(&format!("kernel {new} is held"));
    machine.update_the_loader().succeeds();
    let booted = disk.boots();
    assert_eq!(booted.release, *old);
    booted.says(&format!("ZFS-OK {old}"));

    disk.sh("dpkg -i /root/debs/linux-headers-*.deb").succeeds();
    machine.gate_says(&format!("{new}: proven"));
    let booted = disk.boots();
    assert_eq!(booted.release, *new);
    booted.says(&format!("ZFS-OK {new}"));
}
