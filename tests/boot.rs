// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last word: a real kernel, booted under qemu, loads the module that dkms
//! installed for it. Software emulation (TCG): no KVM needed, some seconds.

mod common;

use common::{Lab, Series};
use rstest::rstest;

/// Loads the module in the guest and reports on the serial line.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
release=$(/bin/busybox uname -r)
if /bin/busybox modprobe acpi_call && /bin/busybox grep -q '^acpi_call ' /proc/modules; then
    echo "CRITICAL-OK $release"
else
    echo "CRITICAL-FAIL $release"
fi
/bin/busybox reboot -f
"#;

/// Boots the kernel with an initramfs of busybox, INIT and what is installed
/// below `updates/dkms`; returns what the guest said.
fn boot(lab: &Lab, release: &str) -> String {
    lab.write("tmp/guest/init", INIT);
    let run = lab.sh(&format!(
        "cd /tmp/guest
         mkdir -p bin proc dev lib/modules/{release}
         cp /usr/bin/busybox bin/
         cp /lib/modules/{release}/modules.* lib/modules/{release}/
         rm -rf lib/modules/{release}/updates
         [ ! -d /lib/modules/{release}/updates ] ||
             cp -r /lib/modules/{release}/updates lib/modules/{release}/
         chmod 755 init
         find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >/tmp/initrd
         timeout 120 qemu-system-x86_64 -M pc -accel tcg -cpu qemu64 -smp 1 -m 512 \
             -nodefaults -display none -serial stdio -no-reboot \
             -kernel /boot/vmlinuz-{release} -initrd /tmp/initrd \
             -append 'console=ttyS0 panic=-1 quiet'"
    ));
    run.succeeds();
    run.stdout()
}

#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn the_real_kernel_loads_the_installed_module() {
    let release = Series::New.cloud_release();
    let lab = Lab::new()
        .image(release)
        .headers(release)
        .packages(&["acpi-call-dkms"])
        .packages(&["busybox-static"])
        .packages_and_dependencies(&["qemu-system-x86"]);
    let target =
        lab.sh("echo /usr/src/acpi-call-*").stdout().trim().replace("/usr/src/acpi-call-", "acpi-call/");

    lab.run(["install", &target, "-k", release]).succeeds();
    let said = boot(&lab, release);
    assert!(said.contains(&format!("CRITICAL-OK {release}")), "{said}");

    // The control: the same machine without the module says so.
    lab.run(["uninstall", &target, "-k", release]).succeeds();
    let said = boot(&lab, release);
    assert!(said.contains(&format!("CRITICAL-FAIL {release}")), "{said}");
}
