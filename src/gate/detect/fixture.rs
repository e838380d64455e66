// SPDX-License-Identifier: MIT OR Apache-2.0
//! Made-up machines: a directory with the /proc, /sys, /etc, /dev and /lib/modules that a machine
//! has, as far as anybody looks.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use fs_err as fs;
use tempfile::TempDir;

use super::{Detected, Question, detect};
use crate::conf::Variables;
use crate::conf::directives::{self, ModuleConf};
use crate::gate::Registered;
use crate::kernel::KernelRelease;
use crate::module::Target;
use crate::module_file::tests::module;
use crate::sys::root::Root;
use crate::tree::Tree;

/// The kernel that runs and the one that is asked about.
pub(super) const RUNNING: &str = "6.1";
pub(super) const NEW: &str = "6.2";

/// No line.
pub(super) const NOTHING: [&str; 0] = [];

/// A SAS controller, and what its driver says that it is for.
pub(super) const HBA: &str = "pci:v00001000d00000097sv00001000sd00003090bc01sc07i00";
pub(super) const HBAS: &str = "pci:v00001000d00000097sv*sd*bc*sc*i*";

pub(super) struct Machine {
    _dir: TempDir,
    pub tree: Tree,
    packages: RefCell<Vec<(ModuleConf, Vec<bool>)>>,
}

impl Machine {
    /// A machine whose kernels have no modules and on which nothing is mounted.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::machine(&dir.path().canonicalize().unwrap());
        let tree = Tree { root, ..Tree::at(dir.path()) };
        let machine = Self { _dir: dir, tree, packages: RefCell::default() };
        fs::create_dir_all(machine.path("/sys/devices")).unwrap();
        let devices = "Character devices:\n  1 mem\n\nBlock devices:\n  7 loop\n  8 sd\n  9 md\n 43 nbd\n230 zvol\n\
                       252 bcache\n253 device-mapper\n259 blkext\n";
        machine.file("/proc/devices", devices).link("/proc/1/root", "/");
        for kernel in [RUNNING, NEW] {
            fs::create_dir_all(machine.tree.install.join(kernel)).unwrap();
        }
        machine
    }

    /// An ordinary one whose root is /dev/sda1, on a controller of this driver.
    pub fn on_sda(driver: &str) -> Self {
        let machine = Self::new();
        machine.ordinary().mount("/", "8:1", "ext4", "/dev/sda1", "").scsi("sda", "0000:00:17.0", driver);
        machine
    }

    pub fn path(&self, absolute: &str) -> PathBuf {
        self.tree.path(absolute)
    }

    pub fn file(&self, absolute: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(absolute);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn line(&self, absolute: &str, line: &str) -> &Self {
        let so_far = fs::read_to_string(self.path(absolute)).unwrap_or_default();
        self.file(absolute, format!("{so_far}{line}\n"))
    }

    /// A link as /sys has them: relative.
    pub fn link(&self, absolute: &str, to: &str) -> &Self {
        let path = self.path(absolute);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let up = "../".repeat(Path::new(absolute).components().count() - 2);
        fs_err::os::unix::fs::symlink(format!("{up}{}", to.trim_start_matches('/')), path).unwrap();
        self
    }

    /// Something is mounted; `number` is that of its device.
    pub fn mount(&self, point: &str, number: &str, fs: &str, source: &str, options: &str) -> &Self {
        self.line(
            "/proc/self/mountinfo",
            &format!("30 1 {number} / {point} rw shared:1 - {fs} {source} rw,{options}"),
        )
    }

    pub fn fstab(&self, line: &str) -> &Self {
        self.line("/etc/fstab", line)
    }

    /// A device below /sys/devices with its driver, `DRIVER` or `DRIVER MODALIAS`.
    pub fn device(&self, path: &str, driver: &str) -> &Self {
        let (driver, modalias) = driver.split_once(' ').unwrap_or((driver, ""));
        let module = driver.replace('-', "_");
        let driver_dir = format!("/sys/bus/b/drivers/{driver}");
        if !self.path(&driver_dir).exists() {
            self.file(&format!("/sys/module/{module}/refcnt"), "1\n");
            self.link(&format!("{driver_dir}/module"), &format!("/sys/module/{module}"));
        }
        self.file(&format!("/sys/devices/{path}/modalias"), format!("{modalias}\n"));
        self.link(&format!("/sys/devices/{path}/driver"), &driver_dir)
    }

    /// A disk or a partition by its path below /sys/devices, and its node in /dev.
    pub fn disk(&self, path: &str, number: &str) -> &Self {
        let (directory, name) = (format!("/sys/devices/{path}"), path.rsplit('/').next().unwrap());
        self.file(&format!("{directory}/dev"), format!("{number}\n"));
        self.link(&format!("/sys/class/block/{name}"), &directory);
        self.link(&format!("/sys/dev/block/{number}"), &directory);
        self.file(&format!("/dev/{name}"), "")
    }

    pub fn partition(&self, path: &str, number: &str) -> &Self {
        self.disk(path, number).file(&format!("/sys/devices/{path}/partition"), "1\n")
    }

    /// A SATA or SAS disk of the driver at a PCI address, with a partition: `sda`, `sda1`.
    pub fn scsi(&self, name: &str, address: &str, driver: &str) -> &Self {
        let number = u32::from(name.as_bytes()[2] - b'a') * 16;
        let unit = format!("pci0000:00/{address}/host0/target0:0:0/{number}:0:0:0");
        self.device(&format!("pci0000:00/{address}"), driver);
        self.device(&unit, "sd scsi:t-0x00");
        self.disk(&format!("{unit}/block/{name}"), &format!("8:{number}"));
        self.partition(&format!("{unit}/block/{name}/{name}1"), &format!("8:{}", number + 1))
    }

    /// A disk that is made of others.
    pub fn made(&self, name: &str, number: &str, of: &[&str]) -> &Self {
        let path = format!("virtual/block/{name}");
        fs::create_dir_all(self.path(&format!("/sys/devices/{path}/slaves"))).unwrap();
        for slave in of {
            let device = fs::canonicalize(self.path(&format!("/sys/class/block/{slave}"))).unwrap();
            let device = device.strip_prefix(self.path("/")).unwrap().to_str().unwrap().to_owned();
            self.link(&format!("/sys/devices/{path}/slaves/{slave}"), &device);
        }
        self.disk(&path, number)
    }

    /// What udev knows of a disk.
    pub fn udev(&self, number: &str, lines: &str) -> &Self {
        self.file(&format!("/run/udev/data/b{number}"), lines)
    }

    /// A network device of a driver at a PCI address.
    pub fn card(&self, name: &str, address: &str, driver: &str) -> &Self {
        self.device(&format!("pci0000:00/{address}"), driver);
        self.interface(&format!("pci0000:00/{address}/net/{name}"), &[])
    }

    /// A network device on top of others.
    pub fn interface(&self, path: &str, lower: &[&str]) -> &Self {
        let name = path.rsplit('/').next().unwrap();
        fs::create_dir_all(self.path(&format!("/sys/devices/{path}"))).unwrap();
        for lower in lower {
            self.link(&format!("/sys/devices/{path}/lower_{lower}"), &format!("/sys/class/net/{lower}"));
        }
        self.link(&format!("/sys/class/net/{name}"), &format!("/sys/devices/{path}"))
    }

    /// The default route, and that to 10.0.0.0/8.
    pub fn routes(&self, default: &str, ten: &str) -> &Self {
        let ten_address = u32::from_ne_bytes([10, 0, 0, 0]);
        let mask = u32::from_ne_bytes([255, 0, 0, 0]);
        self.file(
            "/proc/net/route",
            format!(
                "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                 {default}\t00000000\t00000000\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                 {ten}\t{ten_address:08X}\t00000000\t0001\t0\t0\t0\t{mask:08X}\t0\t0\t0\n"
            ),
        )
    }

    /// A registered package with its modules.
    pub fn package(&self, name: &str, modules: &[&str]) -> &Self {
        let mut variables = Variables::new();
        variables.set("PACKAGE_NAME", name);
        variables.set("PACKAGE_VERSION", "1");
        for (at, module) in modules.iter().enumerate() {
            variables.set_element("BUILT_MODULE_NAME", at, *module);
            variables.set_element("DEST_MODULE_LOCATION", at, "/updates");
        }
        let conf = directives::read(&variables, "/x").unwrap();
        let excluded = vec![false; modules.len()];
        self.packages.borrow_mut().push((conf, excluded));
        self
    }

    /// The new kernel rules out all records of the last package but one.
    pub fn only(&self, record: usize) -> &Self {
        let mut packages = self.packages.borrow_mut();
        let (_, excluded) = packages.last_mut().unwrap();
        excluded.iter_mut().enumerate().for_each(|(at, excluded)| *excluded = at != record);
        self
    }

    /// A package's version 1 is the active one for a kernel.
    pub fn active(&self, package: &str, kernel: &str) -> &Self {
        fs::create_dir_all(self.path(&format!("/var/lib/dkms/{package}/1/{kernel}/x86_64/module"))).unwrap();
        let to = format!("1/{kernel}/x86_64");
        let link = self.path(&format!("/var/lib/dkms/{package}/kernel-{kernel}-x86_64"));
        fs_err::os::unix::fs::symlink(to, link).unwrap();
        self
    }

    /// A module of a kernel's own, for these devices.
    pub fn own(&self, kernel: &str, path: &str, aliases: &[&str]) -> &Self {
        self.line(&format!("/lib/modules/{kernel}/modules.order"), path);
        self.installed(kernel, path, aliases).written(&format!("/lib/modules/{kernel}/{path}"), aliases, "Y")
    }

    /// The file of a module that was built with the kernel, if it says so.
    pub fn written(&self, absolute: &str, aliases: &[&str], intree: &str) -> &Self {
        let intree = if intree.is_empty() { String::new() } else { format!("intree={intree}\0") };
        let aliases: String = aliases.iter().map(|alias| format!("alias={alias}\0")).collect();
        self.file(absolute, module(format!("license=GPL\0{intree}{aliases}").as_bytes()))
    }

    /// A module in a kernel's tree, and in its index.
    pub fn installed(&self, kernel: &str, path: &str, aliases: &[&str]) -> &Self {
        let name = path.rsplit('/').next().unwrap().trim_end_matches(".ko").replace('-', "_");
        self.written(&format!("/lib/modules/{kernel}/{path}"), aliases, "");
        self.line(&format!("/lib/modules/{kernel}/modules.dep"), &format!("{path}:"));
        for alias in aliases {
            self.line(&format!("/lib/modules/{kernel}/modules.alias"), &format!("alias {alias} {name}"));
        }
        self
    }

    /// What both kernels of a distribution have of their own for an ordinary machine.
    pub fn ordinary(&self) -> &Self {
        for kernel in [RUNNING, NEW] {
            self.own(kernel, "kernel/fs/ext4/ext4.ko", &["fs-ext4", "fs-ext3", "fs-ext2"]);
            self.own(kernel, "kernel/fs/btrfs/btrfs.ko", &["fs-btrfs"]);
            self.own(kernel, "kernel/drivers/ata/ahci.ko", &["pci:v*d*sv*sd*bc01sc06i01*"]);
            self.own(kernel, "kernel/drivers/scsi/sd_mod.ko", &["scsi:t-0x00*"]);
            self.own(kernel, "kernel/drivers/md/dm-mod.ko", &[]);
            self.own(kernel, "kernel/drivers/md/md-mod.ko", &[]);
        }
        self
    }

    /// What is to be said of the new kernel.
    pub fn ask(&self) -> Detected {
        let packages = self.packages.borrow();
        let registered: Vec<_> =
            packages.iter().map(|(conf, excluded)| Registered { conf, excluded }).collect();
        let target = Target { kernel: NEW.parse().unwrap(), arch: self.tree.arch.clone() };
        let running: KernelRelease = RUNNING.parse().unwrap();
        detect(&Question {
            tree: &self.tree,
            target: &target,
            running: Some(&running),
            registered: &registered,
        })
    }

    /// `NAME: REASON` of what is critical; with ` (later)` where the initramfs need not have it.
    pub fn critical(&self) -> Vec<String> {
        let critical = self.ask().critical;
        let later = |early| if early { "" } else { " (later)" };
        critical
            .iter()
            .map(|(name, found)| format!("{name}: {}{}", found.because, later(found.early)))
            .collect()
    }

    /// `NAME: REASON, but WHAT INSTEAD` of what is not.
    pub fn spared(&self) -> Vec<String> {
        let spared = self.ask().spared;
        spared
            .iter()
            .map(|spared| format!("{}: {}, but {}", spared.name, spared.because, spared.instead))
            .collect()
    }
}
