// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our plugins under the kernel-install of three releases of systemd (252, a shell script, 257 and
//! 262), with real kernels and real initramfs generators in small Debians: what is published, what is
//! not, and that nothing of it fails the caller.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::debian::Suite;
use common::{Lab, MACHINE_ID, Ran, Series, broken, good};
use fs_err as fs;
use rstest::rstest;

/// How kernel-install lays out what it publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Bls,
    /// Since 253: Debian 12 has neither 60-ukify nor 90-uki-copy, so it has no such rows.
    Uki,
    /// Some other plugin publishes, such as GRUB's.
    Other,
}

/// What makes the initramfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generator {
    /// Its own plugin from Debian 13 on; before, Debian's hook for kernels.
    Dracut,
    /// dracut makes the unified image as well.
    DracutUki,
    /// Debian's hook for kernels.
    InitramfsTools,
    /// A stand-in for mkinitcpio's plugin.
    Mkinitcpio,
    /// The stand-in, which makes the unified image as well.
    MkinitcpioUki,
}

use Generator::{Dracut, DracutUki, InitramfsTools, Mkinitcpio, MkinitcpioUki};
use Layout::{Bls, Other, Uki};
use Suite::{Bookworm, Sid, Trixie};

/// What ends up in the place of the kernel's entry where kernel-install itself makes none, and tells
/// in any layout that the later plugins were reached.
const PUBLISHED: &str = "/var/log/published";
const PUBLISHER: &str = "#!/bin/sh\n[ \"$1\" != add ] || echo \"$2\" >>/var/log/published\n";

/// dracut's own work on a whole system takes a minute, and says no more.
const DRACUT_CONF: &str = "hostonly=no\ndracutmodules=kernel-modules\nfilesystems=ext4\ndrivers=ext4\n\
    early_microcode=yes\ncompress=zstd\nuefi_stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub\n";

/// A machine with one kernel and our package; the module `foo` is to be in its initramfs.
struct Machine {
    lab: Lab,
    suite: Suite,
    layout: Layout,
    generator: Generator,
    /// The release of the suite's own kernel.
    kernel: &'static str,
}

impl Machine {
    fn new(suite: Suite, layout: Layout, generator: Generator) -> Self {
        let lab = Lab::debian_of(suite);
        let mut packages = vec!["systemd", "systemd-boot", "zstd", "cpio"];
        if layout == Uki {
            packages.extend(["systemd-ukify", "systemd-boot-efi"]);
        }
        if matches!(generator, Dracut | DracutUki) {
            packages.push("dracut");
            lab.write("etc/dracut.conf.d/small.conf", DRACUT_CONF);
            // For the early archive of which the main one is behind.
            lab.write("usr/lib/firmware/intel-ucode/06-00-00", "no microcode");
        }
        lab.fetch(&packages);
        lab.apt(&format!("install {}", packages.join(" "))).succeeds();
        lab.write("etc/machine-id", &format!("{MACHINE_ID}\n"));
        lab.write("etc/kernel/cmdline", "root=LABEL=lab ro quiet\n");
        let mut conf = format!("layout={}\n", format!("{layout:?}").to_lowercase());
        match generator {
            Dracut | InitramfsTools => {}
            DracutUki => conf += "uki_generator=dracut\n",
            Mkinitcpio => conf += "initrd_generator=mkinitcpio\n",
            MkinitcpioUki => conf += "initrd_generator=mkinitcpio\nuki_generator=mkinitcpio\n",
        }
        lab.write("etc/kernel/install.conf", &conf);
        if layout != Other {
            lab.write("boot/loader/entries.srel", "type1\n");
            fs::create_dir_all(lab.path("boot/loader/entries")).unwrap();
        }
        let lab = lab.executable("etc/kernel/install.d/95-publisher.install", PUBLISHER).executable(
            "etc/kernel/install.d/50-mkinitcpio.install",
            include_str!("lib/stand-ins/mkinitcpio.install"),
        );
        lab.apt_install_ours().succeeds();
        let kernel = suite.release(Series::Old);
        // depmod, which runs with every step, reads what is left in a tenth of the time.
        lab.sh(&format!("rm -r /lib/modules/{kernel}/kernel/{{drivers,net,sound}}")).succeeds();
        let machine = Self { lab, suite, layout, generator, kernel };
        machine.generator_takes_foo(true);
        machine
    }

    /// Whether the generator puts the module in.
    fn generator_takes_foo(&self, takes: bool) {
        let name = if takes { "foo" } else { "" };
        match self.generator {
            Dracut | DracutUki => {
                self.lab.write("etc/dracut.conf.d/foo.conf", &format!("add_drivers+=\" {name} \"\n"));
            }
            InitramfsTools => self.lab.write("etc/initramfs-tools/modules", &format!("{name}\n")),
            Mkinitcpio | MkinitcpioUki => {
                self.lab.write("etc/mkinitcpio.conf", &format!("MODULES=({name})\n"));
            }
        }
    }

    /// Another kernel, as sid has only one: the suite's own headers under another release, which what
    /// is built with them bears, and no modules of its own.
    fn another_kernel(&self) -> String {
        let kernel = self.kernel;
        let (series, _) = kernel.rsplit_once('.').unwrap();
        let other = format!("{series}.999-amd64");
        self.lab
            .sh(&format!(
                "cp -a /usr/src/linux-headers-{kernel} /usr/src/linux-headers-{other}
                 cd /usr/src/linux-headers-{other}
                 grep -IrlF '{kernel}' . | xargs sed -i 's/{kernel}/{other}/'
                 mkdir -p /lib/modules/{other}/kernel
                 cp -a /lib/modules/{kernel}/modules.{{order,builtin,builtin.modinfo}} /lib/modules/{other}
                 ln -s /usr/src/linux-headers-{other} /lib/modules/{other}/build
                 depmod {other}
                 for file in config vmlinuz; do cp /boot/$file-{kernel} /boot/$file-{other}; done"
            ))
            .succeeds();
        other
    }

    /// A kernel arrives: what calls kernel-install differs.
    fn add(&self, kernel: &str) -> Ran {
        let image = format!("/boot/vmlinuz-{kernel}");
        let has_plugin = match self.generator {
            Dracut | DracutUki => self.suite != Bookworm,
            InitramfsTools => false,
            Mkinitcpio | MkinitcpioUki => true,
        };
        let add = format!("kernel-install add {kernel} {image}");
        if has_plugin {
            return self.lab.sh(&add);
        }
        // Debian's hooks for kernels, and what theirs for systemd-boot does last.
        let initrd = format!("/boot/initrd.img-{kernel}");
        self.lab.sh(&format!(
            "DEB_MAINT_PARAMS=configure run-parts --report --exit-on-error --arg={kernel} --arg={image} \
             /etc/kernel/postinst.d
             {add} $(ls {initrd} 2>/dev/null)"
        ))
    }

    /// What is published of a kernel: the file that the loader reads.
    fn entry(&self, kernel: &str) -> String {
        match self.layout {
            Bls => format!("/boot/loader/entries/{MACHINE_ID}-{kernel}.conf"),
            Uki => format!("/boot/EFI/Linux/{MACHINE_ID}-{kernel}.efi"),
            Other => PUBLISHED.to_owned(),
        }
    }

    fn forget_published(&self) {
        self.lab.write(PUBLISHED, "");
    }

    /// Fails unless the last run published this kernel, with the module.
    #[track_caller]
    fn assert_published(&self, kernel: &str) {
        self.lab.sh(&format!("grep -xF {kernel} {PUBLISHED}; ls {}", self.entry(kernel))).succeeds();
        self.lab.assert_installed("foo", "1.0", kernel);
        self.lab.run(["gate"]).succeeds().says(&format!("{kernel}: proven"));
        self.lab.sh("cat /etc/motd /run/motd.d/* 2>/dev/null || true").says_nothing_of(kernel);
    }

    /// Fails if the last run published this kernel, or left it in the menu.
    #[track_caller]
    fn assert_withheld(&self, kernel: &str) {
        self.lab.sh(&format!("grep -xF {kernel} {PUBLISHED}")).fails();
        if self.layout != Other {
            self.lab.sh(&format!("ls {}", self.entry(kernel))).fails();
        }
        self.lab.run(["gate"]).says(&format!("{kernel}: held"));
        // Staged images are large, and kernel-install's to remove.
        self.lab
            .sh("ls -d /tmp/kernel-install.staging.* /var/tmp/kernel-install.staging.* 2>/dev/null")
            .fails();
    }

    /// Whether the published image has the module by the word of others than us.
    #[track_caller]
    fn assert_in_image(&self, kernel: &str) {
        let Self { lab, layout, generator, .. } = self;
        let image = match layout {
            Bls => format!("/boot/{MACHINE_ID}/{kernel}/initrd*"),
            Uki => self.entry(kernel),
            Other => return,
        };
        let lister = match generator {
            Dracut | DracutUki => "lsinitrd",
            InitramfsTools if *layout == Bls => "lsinitramfs",
            _ => return,
        };
        // Debian 13 publishes /boot/initrd.img-K beside what dracut's plugin has made.
        lab.sh(&format!("for image in {image}; do {lister} $image; done"))
            .says(&format!("lib/modules/{kernel}/updates/dkms/foo.ko"));
    }

    fn source(self, source: common::Source) -> Self {
        Self { lab: self.lab.source("foo", "1.0", source.critical().remakes_initrd()), ..self }
    }
}

/// What a kernel goes through on one machine, from its first entry to its removal.
fn story(suite: Suite, layout: Layout, generator: Generator) {
    let machine = Machine::new(suite, layout, generator).source(good());
    let (kernel, other) = (machine.kernel, machine.another_kernel());
    machine.lab.run(["add", "foo/1.0"]).succeeds();

    // A kernel whose module builds.
    machine.add(kernel).succeeds();
    machine.assert_published(kernel);
    machine.assert_in_image(kernel);

    // Another one, for which it does not: neither an entry nor an error.
    let machine = machine.source(broken());
    machine.forget_published();
    machine
        .add(&other)
        .succeeds()
        .says(&format!("kernel {other} is held"))
        .says("no_such_kernel_function")
        .says(&format!("dkms autoinstall -k {other}"));
    machine.assert_withheld(&other);
    machine.lab.assert_not_installed("foo", &other);
    machine.lab.sh(&format!("ls {}", machine.entry(kernel))).succeeds();

    // It may go, and come again.
    machine.lab.sh(&format!("kernel-install remove {other}")).succeeds();
    machine.lab.run(["gate"]).says_nothing_of(&other);
    machine.add(&other).succeeds();
    machine.assert_withheld(&other);

    if suite != Bookworm && layout != Other {
        add_all(&machine, &other);
    }

    // Mended, it gets what it was denied.
    machine.lab.mend("foo", "1.0");
    machine.forget_published();
    machine.add(&other).succeeds();
    machine.assert_published(&other);
    machine.assert_in_image(&other);

    // An initramfs without the module, while the entry is there already.
    machine.generator_takes_foo(false);
    machine.forget_published();
    machine.add(&other).succeeds().says("foo: the initramfs").says(&format!("kernel {other} is held"));
    machine.assert_withheld(&other);
    machine.generator_takes_foo(true);
    machine.add(&other).succeeds();
    machine.assert_published(&other);

    // Whatever is wrong with the module, the kernel can be removed.
    machine.lab.sh("echo 'if then (' >/usr/src/foo-1.0/dkms.conf").succeeds();
    machine.lab.sh(&format!("kernel-install remove {other}")).succeeds();
    if layout != Other {
        machine.lab.sh(&format!("ls -d {}* /boot/{MACHINE_ID}/{other}", machine.entry(&other))).fails();
    }
    machine.lab.sh("kernel-install remove 1.2.3-nowhere").succeeds();
}

/// All kernels at once, of which one is held (kernel-install 255 and newer).
fn add_all(machine: &Machine, held: &str) {
    let Machine { lab, kernel, .. } = machine;
    lab.sh(&format!(
        "rm {}; for kernel in {kernel} {held}; do ln -f /boot/vmlinuz-$kernel /usr/lib/modules/$kernel/vmlinuz; done",
        machine.entry(kernel)
    ))
    .succeeds();
    machine.forget_published();
    // They come where their numbers say.
    let asked = lab.sh(&format!("kernel-install inspect {held} /boot/vmlinuz-{held}"));
    let plugins = ["15-dkms.", "50-depmod.", "88-dkms-proof.", "90-loaderentry."];
    let places = plugins.map(|plugin| asked.stdout().find(plugin).unwrap());
    assert!(places.is_sorted(), "{asked}");
    lab.sh("kernel-install add-all").succeeds().says(&format!("kernel {held} is held"));
    machine.assert_published(kernel);
    machine.assert_withheld(held);
}

/// One of each suite and layout.
#[rstest]
#[case::bookworm_bls(Bookworm, Bls, InitramfsTools)]
#[case::bookworm_other(Bookworm, Other, Mkinitcpio)]
#[case::trixie_bls(Trixie, Bls, InitramfsTools)]
#[case::trixie_uki(Trixie, Uki, DracutUki)]
#[case::trixie_other(Trixie, Other, Dracut)]
#[case::sid_bls(Sid, Bls, Dracut)]
#[case::sid_uki(Sid, Uki, Mkinitcpio)]
#[case::sid_other(Sid, Other, Dracut)]
#[ignore = "runs in the lab (root, network): make test"]
fn a_kernel_is_published_when_it_has_what_it_needs(
    #[case] suite: Suite,
    #[case] layout: Layout,
    #[case] generator: Generator,
) {
    story(suite, layout, generator);
}

/// Names of the administrator's choosing (262), and the removal of one type of entries (258).
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn an_entry_of_any_name_is_held_and_may_go_without_its_kernel() {
    let machine = Machine::new(Sid, Bls, Mkinitcpio).source(good());
    let (kernel, other) = (machine.kernel, machine.another_kernel());
    let lab = &machine.lab;
    lab.sh("echo entry_name_format=%o.%v >>/etc/kernel/install.conf").succeeds();
    let entries = || lab.sh("ls /boot/loader/entries").succeeds().stdout();
    let (of_kernel, of_other) = (format!("debian.{kernel}.conf\n"), format!("debian.{other}.conf\n"));
    lab.run(["add", "foo/1.0"]).succeeds();
    for kernel in [kernel, &other] {
        machine.add(kernel).succeeds();
    }
    assert_eq!(entries(), format!("{of_kernel}{of_other}"));

    machine.generator_takes_foo(false);
    machine.add(&other).succeeds().says(&format!("kernel {other} is held"));
    assert_eq!(entries(), format!("{of_kernel}debian.{other}.conf.held\n"));

    // The kernel stays, and may get another entry.
    lab.sh(&format!("kernel-install --entry-type=type1 remove {other}")).succeeds();
    assert_eq!(entries(), of_kernel);
    lab.assert_installed("foo", "1.0", &other);
    machine.generator_takes_foo(true);
    machine.add(&other).succeeds();
    assert_eq!(entries(), format!("{of_kernel}{of_other}"));

    lab.sh(&format!("kernel-install remove {other}")).succeeds();
    assert_eq!(entries(), of_kernel);
    lab.assert_not_installed("foo", &other);
}

/// A kernel that is a unified image already, as some distributions build it (254).
#[rstest]
#[ignore = "runs in the lab (root, network): make test"]
fn a_unified_image_that_comes_ready_made_is_looked_into() {
    let machine = Machine::new(Trixie, Uki, MkinitcpioUki).source(good());
    let Machine { lab, kernel, .. } = &machine;
    lab.run(["add", "foo/1.0"]).succeeds();
    machine.add(kernel).succeeds();
    let entry = machine.entry(kernel);
    // The initramfs that came with the kernel knows nothing of the module.
    lab.sh(&format!(
        "mv {entry} /root/with.efi; ukify build --linux=/boot/vmlinuz-{kernel} --uname={kernel} --cmdline=quiet \
         --initrd=/boot/initrd.img-{kernel} --output=/root/without.efi"
    ))
    .succeeds();

    machine.forget_published();
    let ran = lab.sh(&format!("kernel-install add {kernel} /root/without.efi"));
    ran.succeeds().says("foo: the initramfs /root/without.efi");
    machine.assert_withheld(kernel);

    lab.sh(&format!("kernel-install add {kernel} /root/with.efi")).succeeds();
    machine.assert_published(kernel);
}

/// The other generators of each: `make test-kernel-install`.
#[rstest]
#[case::bookworm_bls_dracut(Bookworm, Bls, Dracut)]
#[case::bookworm_bls_mkinitcpio(Bookworm, Bls, Mkinitcpio)]
#[case::trixie_bls_dracut(Trixie, Bls, Dracut)]
#[case::trixie_bls_mkinitcpio(Trixie, Bls, Mkinitcpio)]
#[case::trixie_uki_dracut_and_ukify(Trixie, Uki, Dracut)]
#[case::trixie_uki_initramfs_tools(Trixie, Uki, InitramfsTools)]
#[case::trixie_uki_mkinitcpio_alone(Trixie, Uki, MkinitcpioUki)]
#[case::sid_bls_initramfs_tools(Sid, Bls, InitramfsTools)]
#[case::sid_bls_mkinitcpio(Sid, Bls, Mkinitcpio)]
#[case::sid_uki_dracut_and_ukify(Sid, Uki, Dracut)]
#[case::sid_uki_dracut_alone(Sid, Uki, DracutUki)]
#[case::sid_uki_initramfs_tools(Sid, Uki, InitramfsTools)]
#[case::sid_uki_mkinitcpio_alone(Sid, Uki, MkinitcpioUki)]
#[ignore = "runs in the lab (root, network), long: make test-kernel-install"]
fn with_every_generator_of_its_suite(
    #[case] suite: Suite,
    #[case] layout: Layout,
    #[case] generator: Generator,
) {
    story(suite, layout, generator);
}
