// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole machines for tests: disk images of a small Debian with its real GRUB, edited in a chroot
//! and booted. How images are made and booted is `tests/lib/disk.sh`'s business alone.

use std::env;
use std::fmt;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Instant;

use dkms_hooks::gate::grub::{GrubEnv, Prediction, predict};
use fs_err as fs;
use tempfile::TempDir;

use super::{Ran, lab_sh, text};

/// The kernel that GRUB boots with this menu and environment block.
#[track_caller]
pub fn grub_boots(cfg: &str, env: &str) -> String {
    match predict(cfg, &GrubEnv::parse(env.as_bytes())) {
        Prediction::Entry { kernel: Some(kernel), .. } => kernel.to_string(),
        other => panic!("{other:?} from {cfg}"),
    }
}

/// What a machine boots with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loader {
    Grub,
    SystemdBoot,
}

/// What an image is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Base {
    pub loader: Loader,
    /// Of Debian; this machine's own if there is none.
    pub suite: Option<&'static str>,
    /// With the packages of zfs, not installed.
    pub zfs: bool,
}

impl Base {
    pub const GRUB: Self = Self { loader: Loader::Grub, suite: None, zfs: false };
    pub const SYSTEMD_BOOT: Self = Self { loader: Loader::SystemdBoot, suite: None, zfs: false };
    pub const GRUB_TRIXIE: Self = Self { loader: Loader::Grub, suite: Some("trixie"), zfs: false };
    pub const GRUB_ZFS: Self = Self { loader: Loader::Grub, suite: None, zfs: true };
}

/// A disk image, gone with the test unless that failed.
#[derive(Debug)]
pub struct Disk {
    dir: TempDir,
    loader: Loader,
}

/// An image for many tests to begin from. It has no name any more: it cannot outlive the tests,
/// although a static is never dropped.
#[derive(Debug)]
pub struct Template {
    image: fs::File,
    loader: Loader,
}

/// What a machine said on its serial line, and which kernel it was.
#[derive(Debug)]
pub struct Booted {
    pub release: String,
    serial: String,
}

impl Disk {
    /// Debian with two kernels, both with headers and initramfs, a compiler, a boot loader, and no
    /// dkms. In /root/debs are the newer kernel's packages.
    pub fn new(base: Base) -> Self {
        let disk = Self::empty(base.loader);
        let loader = match base.loader {
            Loader::Grub => "grub",
            Loader::SystemdBoot => "systemd-boot",
        };
        let mut options = vec!["--compiler", "--loader", loader];
        options.extend(base.zfs.then_some("--zfs"));
        options.extend(base.suite.iter().flat_map(|suite| ["--suite", suite]));
        disk.script("make-base", &options, Some(disk.image()), &[]).succeeds();
        disk
    }

    pub fn loader(&self) -> Loader {
        self.loader
    }

    fn empty(loader: Loader) -> Self {
        let dir = tempfile::Builder::new().prefix("disk-").tempdir_in(super::roots()).unwrap();
        Self { dir, loader }
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("disk.img")
    }

    fn script(&self, verb: &str, options: &[&str], image: Option<PathBuf>, arguments: &[&str]) -> Ran {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lib/disk.sh");
        let output: Output =
            Command::new(script).arg(verb).args(options).args(image).args(arguments).output().unwrap();
        Ran::new(format!("{verb} {}", shell_words::join(arguments)), self.dir.path(), output)
    }

    /// The dkms under test, as `make install` puts it onto a Debian system.
    pub fn install_dkms(self) -> Self {
        static BUILT: OnceLock<()> = OnceLock::new();
        BUILT.get_or_init(|| drop(lab_sh("build", &[] as &[&str])));
        lab_sh("install", &[self.dir.path()]);
        let files = self.dir.path().join("root");
        self.copy_in(&files.join("."), "/");
        fs::remove_dir_all(files).unwrap();
        self
    }

    /// Copies a file or a tree into a directory of the image.
    pub fn copy_in(&self, source: &Path, directory: &str) {
        self.script("copy", &[], Some(self.image()), &[source.to_str().unwrap(), directory]).succeeds();
    }

    /// Runs a shell script (`bash -eu`) in the image's root, as root.
    pub fn sh(&self, script: &str) -> Ran {
        self.script("run", &[], Some(self.image()), &["--", "bash", "-euc", script])
    }

    /// The releases of the kernels in /boot, oldest first.
    pub fn kernels(&self) -> Vec<String> {
        let said = self.script("kernels", &[], Some(self.image()), &[]);
        said.succeeds().stdout().lines().map(str::to_owned).collect()
    }

    /// The kernel that boots next: as `dkms reboot-safe` says, or, where there is no dkms, as
    /// `gate::grub` reads grub.cfg.
    ///
    /// # Panics
    /// When they do not tell.
    pub fn predicted(&self) -> String {
        let said = self.sh("if [ -x /usr/sbin/dkms ]; then dkms reboot-safe --json || [ $? = 1 ]; fi");
        let said = said.succeeds().stdout();
        if said.is_empty() {
            return self.predicted_from_outside();
        }
        let answer: serde_json::Value = serde_json::from_str(&said).unwrap();
        match answer["kernel"].as_str() {
            Some(kernel) => kernel.to_owned(),
            None => panic!("{said} from {self}"),
        }
    }

    fn predicted_from_outside(&self) -> String {
        assert_eq!(self.loader, Loader::Grub);
        let said = self.sh("cat /boot/grub/grub.cfg; echo @@@; cat /boot/grub/grubenv").succeeds().stdout();
        let (cfg, env) = said.split_once("@@@\n").unwrap();
        grub_boots(cfg, env)
    }

    /// Boots the machine, which must not get as far as its init.
    pub fn does_not_come_up(&self) {
        let ran = self.script("boot", &[], Some(self.image()), &["--limit", "60"]);
        ran.fails().says("did not boot");
    }

    /// Boots the machine until it powers off, and holds what was foretold against what came.
    pub fn boots(&self) -> Booted {
        let foretold = self.predicted();
        let serial = self.dir.path().join("serial");
        let started = Instant::now();
        let options = ["--serial", serial.to_str().unwrap(), "--limit", "180"];
        let ran = self.script("boot", &[], Some(self.image()), &options);
        let release = ran.succeeds().stdout().trim().replace("BOOTED ", "");
        // Past the test harness, which would swallow it.
        let test = std::thread::current().name().unwrap_or("?").to_owned();
        let seconds = started.elapsed().as_secs_f32();
        drop(writeln!(std::io::stderr(), "{test}: {release} booted and off in {seconds:.1} s"));
        assert_eq!(release, foretold, "another kernel than foretold: {self}");
        Booted { release, serial: text(&fs::read(serial).unwrap()) }
    }
}

impl Template {
    /// From here on the image is only copied.
    pub fn from(disk: Disk) -> Self {
        Self { image: fs::File::open(disk.image()).unwrap(), loader: disk.loader }
    }

    pub fn disk(&self) -> Disk {
        let copy = Disk::empty(self.loader);
        let image = format!("/proc/{}/fd/{}", std::process::id(), self.image.as_raw_fd());
        // Not fs::copy: it would fill in the holes.
        let status = Command::new("cp").arg("--sparse=always").arg(image).arg(copy.image()).status();
        assert!(status.unwrap().success());
        copy
    }
}

impl Booted {
    /// Fails unless the guest printed this line.
    #[track_caller]
    pub fn says(&self, line: &str) -> &Self {
        assert!(self.serial.lines().any(|said| said.trim() == line), "no line {line:?}:\n{}", self.serial);
        self
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.image().display())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if std::thread::panicking() || env::var_os("DKMS_TEST_KEEP").is_some() {
            self.dir.disable_cleanup(true);
            println!("kept: tests/lib/disk.sh run {self} -- bash");
        }
    }
}
