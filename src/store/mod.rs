// SPDX-License-Identifier: MIT OR Apache-2.0
//! The store of built modules, `.hooks/store` in the dkms tree: one file for each build, named by
//! the digest of all that the build depends on, bounded in size. It may be deleted at any time.
//! Stores that machines share are in `remote`, what they hold in `artefact`. What a key consists of
//! for one module is known in `build`; nothing here builds or installs.

pub mod artefact;
pub mod command;
pub mod entry;
pub mod environment;
pub mod headers;
pub mod key;
pub mod remote;
mod sbom;
pub mod signature;
pub mod toolchain;
pub mod trees;

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result};
use blake3::Hash;
use fs_err as fs;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use crate::conf::directives::ModuleConf;
use crate::conf::policy::Policy;
use crate::kernel::KernelConfig;
use crate::machine::Machine;
use crate::sys::files;
use crate::sys::report::Report;
use crate::tree::Tree;
use crate::tree::kernels::BuildDir;
use entry::Entry;
use key::Key;

/// `[store] size` where the policy does not say: a dozen builds of the largest modules there are.
const DEFAULT_MIB: u32 = 512;

/// The store, and what is the same for all builds of a run.
#[derive(Debug)]
pub struct Store<'a> {
    tree: &'a Tree,
    /// In bytes.
    bound: u64,
    policy: &'a Policy,
    /// Whether nothing is to be written, not even what only saves time.
    only_reads: bool,
    headers: OnceLock<Option<Hash>>,
    toolchain: OnceLock<Option<Hash>>,
}

impl<'a> Store<'a> {
    /// The store of a tree, as the policy wants it.
    pub fn new(tree: &'a Tree, policy: &'a Policy) -> Self {
        let bound = u64::from(policy.store_size.unwrap_or(DEFAULT_MIB)) << 20;
        let (headers, toolchain) = (OnceLock::new(), OnceLock::new());
        Self { tree, bound, policy, only_reads: false, headers, toolchain }
    }

    /// The same for whoever changes nothing.
    pub fn to_read(tree: &'a Tree, policy: &'a Policy) -> Self {
        Self { only_reads: true, ..Self::new(tree, policy) }
    }

    /// Whether nothing is to be stored at all.
    pub fn is_off(&self) -> bool {
        self.bound == 0
    }

    /// Whether what is built of a module is to be kept. Scripts around the build may do anything
    /// anywhere; only the administrator can say of such a module that nothing is missing without them.
    pub fn wants(&self, conf: &ModuleConf) -> bool {
        !self.is_off() && self.may_share(conf)
    }

    /// The same for shared stores, which may be asked although nothing is kept here.
    pub fn may_share(&self, conf: &ModuleConf) -> bool {
        let said = conf.names().find_map(|name| self.policy.module_store.get(name).copied());
        let has_scripts = conf.scripts.pre_build.is_some() || conf.scripts.post_build.is_some();
        said.unwrap_or(!has_scripts)
    }

    /// The digest of the headers of the kernel that this run builds for; nothing if they cannot be
    /// read.
    pub fn headers(&self, kernel: &BuildDir, machine: Option<&Machine>) -> Option<Hash> {
        let digest = || self.digest_headers(kernel, machine.map(|machine| machine.kernel)).ok();
        *self.headers.get_or_init(digest)
    }

    /// Thousands of files are not read again as long as the file system says that they are the same.
    fn digest_headers(&self, kernel: &BuildDir, arch: Option<&str>) -> Result<Hash> {
        let mut listing = headers::list(&kernel.path, arch)?;
        let Some(fingerprint) = listing.fingerprint()? else { return listing.digest() };
        let place = kernel.path.join(arch.unwrap_or_default()).display().to_string();
        let name = format!("headers-{}", blake3::hash(place.as_bytes()));
        let noted = files::read_if_there(&self.directory().join(&name)).ok().flatten().unwrap_or_default();
        if let Some((of, digest)) = noted.trim().split_once(' ')
            && of == fingerprint.to_hex().as_str()
            && let Ok(digest) = Hash::from_hex(digest)
        {
            return Ok(digest);
        }
        let digest = listing.digest()?;
        if self.only_reads {
            return Ok(digest);
        }
        // Without the note they are read again.
        let noted = self.tree.lock_store(&Report::new(true, false).block());
        let _ = noted.and_then(|_lock| self.write(&name, format!("{fingerprint} {digest}\n").as_bytes()));
        Ok(digest)
    }

    /// The digest of the programs that build for this machine; nothing if they cannot be read.
    pub fn toolchain(&self) -> Option<Hash> {
        *self.toolchain.get_or_init(|| toolchain::digest(&self.tree.root, "").ok())
    }

    fn directory(&self) -> PathBuf {
        self.tree.hooks_dir().join("store")
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.directory().join(key.as_str())
    }

    /// What was stored under a key, which counts as used now. What is damaged goes, with a warning.
    pub fn take(&self, key: &Key, report: &Report) -> Option<Entry> {
        let file = self.file(key);
        let read = match fs::read(&file) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return None;
            }
            other => other.map_err(anyhow::Error::from),
        };
        match read.and_then(|bytes| Entry::unpack(&bytes)) {
            Ok(entry) => {
                // Where that is refused, the entry only goes earlier.
                let (at, now) = (nix::fcntl::AT_FDCWD, TimeSpec::UTIME_NOW);
                let _ = utimensat(at, &file, &now, &now, UtimensatFlags::NoFollowSymlink);
                Some(entry)
            }
            Err(error) => {
                let file = file.display();
                report.warning(format_args!("{file} is damaged ({error:#}); building the module anew"));
                self.forget(key);
                None
            }
        }
    }

    /// Drops what is stored under a key.
    pub fn forget(&self, key: &Key) {
        // What cannot be removed now is found damaged again.
        let _ = files::remove(&self.file(key));
    }

    /// Stores a build in the place of an earlier one with the same key. Those that have not been
    /// used for longest go where there is no room; what is larger than the whole store is not kept.
    pub fn put(&self, key: &Key, entry: &Entry, about: &str) -> Result<()> {
        let packed = entry.pack(about)?;
        // Others who store are done in no time: there is nothing to say about waiting for them.
        let _lock = self.tree.lock_store(&Report::new(true, false).block())?;
        if packed.len() as u64 > self.bound {
            return files::remove(&self.file(key));
        }
        self.make_room(packed.len() as u64, key)?;
        self.write(key.as_str(), &packed)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        // Keys are digests of the environment among other things, which is nobody's business.
        let directory = self.directory();
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, PermissionsExt::from_mode(0o700))?;
        files::write_atomically(&directory.join(name), content, 0o600)
    }

    /// Drops everything, as the policy wants nothing stored.
    pub fn clear(&self) -> Result<()> {
        let directory = self.directory();
        for path in files::files_below(&directory) {
            files::remove(&path)?;
        }
        // While something is tried out, it is mounted, and stays.
        let _ = fs::remove_dir(directory);
        Ok(())
    }

    /// Makes room for so many bytes; what has this key makes room as well.
    fn make_room(&self, wanted: u64, key: &Key) -> Result<()> {
        let directory = self.directory();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let (name, meta) = (entry.file_name(), entry.metadata()?);
            if name.to_string_lossy().starts_with('.') {
                // Whoever wrote it was killed: we have the lock.
                files::remove(&entry.path())?;
            } else if name != *key.as_str() {
                found.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), name, meta.len()));
            }
        }
        found.sort();
        let mut total: u64 = found.iter().map(|(.., size)| size).sum();
        for (_, name, size) in found {
            if total + wanted <= self.bound {
                break;
            }
            files::remove(&directory.join(&name)).context("making room in the store")?;
            total -= size;
        }
        Ok(())
    }
}

/// The digest of a kernel's configuration as builds see it.
pub fn configuration(config: &KernelConfig) -> Hash {
    blake3::hash(config.text().as_bytes())
}

#[cfg(test)]
mod tests;
