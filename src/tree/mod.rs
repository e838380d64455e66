// SPDX-License-Identifier: MIT OR Apache-2.0
//! The dkms tree: its paths and states, which are dkms's own, and `.hooks/` beside them, which
//! is ours (locks, journal, verdicts, attempts, made, store, runs).

pub mod abandoned;
pub mod attempts;
pub mod kernels;
pub mod made;
pub mod registered;
pub mod retained;
pub mod runs;
pub mod state;
pub mod transaction;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::kernel::KernelRelease;
use crate::module::{Arch, ModuleId, Target};
use crate::sys::files;
use crate::sys::lock::Lock;
use crate::sys::report::Report;
use crate::sys::root::Root;

/// The numbers that neither distributions nor systemd give to anybody (systemd's "Users, Groups, UIDs and
/// GIDs": below nobody's, unused).
const USERS: std::ops::Range<u32> = 65520..65534;

/// The directory in the source tree in which sources are staged.
pub const SOURCE_STAGING: &str = ".dkms-source";

/// Names in the directory of a version that are no kernels: what was made of the module, and of what.
pub const NO_KERNELS: [&str; 9] =
    ["source", "build", "tarball", "rpm", "deb", "bmdeb", "dsc", "driver_disk", "sysext"];

/// Where everything is: the root and the three trees (framework.conf, `--dkmstree` and so on).
#[derive(Debug, Clone)]
pub struct Tree {
    pub root: Root,
    /// `/var/lib/dkms` unless configured otherwise.
    pub dkms: PathBuf,
    /// `/usr/src` unless configured otherwise.
    pub source: PathBuf,
    /// `/lib/modules` unless configured otherwise.
    pub install: PathBuf,
    /// The architecture of this machine.
    pub arch: Arch,
}

impl Tree {
    /// The trees below a directory seen as a root, for tests.
    #[cfg(test)]
    pub(crate) fn at(directory: &Path) -> Self {
        let root = Root::at(directory);
        Self {
            dkms: root.path("/var/lib/dkms"),
            source: root.path("/usr/src"),
            install: root.path("/lib/modules"),
            arch: Arch::new("x86_64").expect("a valid name"),
            root,
        }
    }

    /// `<dkms tree>/M`.
    pub fn module_dir(&self, name: &str) -> PathBuf {
        self.dkms.join(name)
    }

    /// `<dkms tree>/M/V`.
    pub fn version_dir(&self, id: &ModuleId) -> PathBuf {
        self.dkms.join(id.name()).join(id.version())
    }

    /// `<dkms tree>/M/V/source`, the link to the source tree.
    pub fn source_link(&self, id: &ModuleId) -> PathBuf {
        self.version_dir(id).join("source")
    }

    /// `<source tree>/M-V`.
    pub fn source_dir(&self, id: &ModuleId) -> PathBuf {
        self.source.join(format!("{}-{}", id.name(), id.version()))
    }

    /// `<dkms tree>/M/V/build`, which real confs hard-code; guarded by the module's lock.
    pub fn build_dir(&self, id: &ModuleId) -> PathBuf {
        self.version_dir(id).join("build")
    }

    /// `<dkms tree>/M/V/K/A`, what is kept of a build.
    pub fn target_dir(&self, id: &ModuleId, target: &Target) -> PathBuf {
        self.version_dir(id).join(&target.kernel).join(&target.arch)
    }

    /// `<dkms tree>/M/V/K/A/module`, the built files.
    pub fn built_dir(&self, id: &ModuleId, target: &Target) -> PathBuf {
        self.target_dir(id, target).join("module")
    }

    /// `<dkms tree>/M/kernel-K-A`, the link that says which version is installed.
    pub fn active_link(&self, name: &str, target: &Target) -> PathBuf {
        self.module_dir(name).join(format!("kernel-{}-{}", target.kernel, target.arch))
    }

    /// `<dkms tree>/M/original_module/K/A`, files that stood where ours went.
    pub fn originals_dir(&self, name: &str, target: &Target) -> PathBuf {
        self.module_dir(name).join("original_module").join(&target.kernel).join(&target.arch)
    }

    /// `<install tree>/K`.
    pub fn kernel_dir(&self, kernel: &KernelRelease) -> PathBuf {
        self.install.join(kernel)
    }

    /// `<dkms tree>/.hooks`, all that is ours alone.
    pub fn hooks_dir(&self) -> PathBuf {
        self.dkms.join(".hooks")
    }

    /// Guards the build directory and the kept files of one module and version.
    pub fn lock_module(&self, id: &ModuleId, report: &Report) -> Result<Lock> {
        self.lock(&format!("module-{}-{}", id.name(), id.version()), report)
    }

    /// Whether somebody is at work on one module and version, for all that can be seen.
    pub fn module_is_busy(&self, id: &ModuleId) -> bool {
        let lock = self.lock_path(&format!("module-{}-{}", id.name(), id.version()));
        Lock::is_held(&lock).unwrap_or(true)
    }

    /// Whether somebody is looking at an archive, or putting a source into its place.
    pub fn unpacking_is_busy(&self) -> bool {
        Lock::is_held(&self.lock_path("unpacking")).unwrap_or(true)
    }

    /// Guards one kernel's install tree.
    pub fn lock_kernel(&self, kernel: &KernelRelease, report: &Report) -> Result<Lock> {
        self.lock(&format!("kernel-{kernel}"), report)
    }

    /// Guards the list of registered modules, for short changes only.
    pub fn lock_registry(&self, report: &Report) -> Result<Lock> {
        self.lock("registry", report)
    }

    /// Guards the making of the signing key; not to be taken under any other lock.
    pub fn lock_signing_key(&self, report: &Report) -> Result<Lock> {
        self.lock("signing-key", report)
    }

    /// Guards `.hooks/unpacked`, where archives are looked at; taken before any other.
    pub fn lock_unpacking(&self, report: &Report) -> Result<Lock> {
        self.lock("unpacking", report)
    }

    /// An empty directory in the source tree for what is about to be moved into its place there. It goes
    /// when dropped, and what a run left that was killed goes now: the lock on unpacking says that
    /// nobody else is at work.
    pub fn stage_source(&self, _unpacking: &Lock) -> Result<tempfile::TempDir> {
        fs_err::create_dir_all(&self.source)?;
        files::remove(&self.source.join(SOURCE_STAGING))?;
        Ok(tempfile::Builder::new().prefix(SOURCE_STAGING).rand_bytes(0).tempdir_in(&self.source)?)
    }

    /// Guards the writing of the store of built modules, for short changes only; taken after any other.
    pub fn lock_store(&self, report: &Report) -> Result<Lock> {
        self.lock("store", report)
    }

    /// A user, and group, for one build: a number that no account has and that is its own as long as the
    /// lock is held.
    pub fn borrow_user(&self) -> Result<(u32, Lock)> {
        let accounts = files::read_if_there(&self.path("/etc/passwd"))?.unwrap_or_default();
        let has_account = |user: &u32| {
            let number = user.to_string();
            accounts.lines().any(|line| line.split(':').nth(2) == Some(&number))
        };
        let free: Vec<u32> = USERS.filter(|user| !has_account(user)).collect();
        let locks: Vec<PathBuf> = free.iter().map(|user| self.lock_path(&format!("user-{user}"))).collect();
        let (at, lock) = Lock::take_any(&locks).context("looking for a user for the build")?;
        Ok((free[at], lock))
    }

    fn lock(&self, name: &str, report: &Report) -> Result<Lock> {
        Lock::take(&self.lock_path(name), report)
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.hooks_dir().join("locks").join(name)
    }

    /// An absolute path of the system that this tree belongs to.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        self.root.path(absolute)
    }
}
