// SPDX-License-Identifier: MIT OR Apache-2.0
//! A view of the running system for this process and its children alone: the same paths, with more
//! files, and whatever is written there is gone with it (overlayfs in a mount namespace).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fs_err as fs;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::sys::namespace::{bind, keep_private, make_read_only, mount_points};

/// Where things are in the scratch directory.
const NEW: &str = "new";

/// A view under construction.
#[derive(Debug)]
pub struct View {
    scratch: PathBuf,
    /// Upper layers are made on it, which not every file system can be.
    is_tmpfs: bool,
    layers: usize,
}

impl View {
    /// Leaves the mounts that everybody sees. The process must have a single thread (unshare(2));
    /// `scratch` is an empty directory, and the caller removes it when the process is gone.
    ///
    /// Fails where mounting is not allowed, as in most containers.
    pub fn begin(scratch: &Path) -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNS).context("leaving the mounts that everybody sees")?;
        keep_private(&[scratch, Path::new("/usr")])?;
        let mut view = Self { scratch: scratch.to_owned(), is_tmpfs: false, layers: 0 };
        // Many file systems cannot carry an upper layer: another overlay, network file systems.
        if view.overlay(&view.probe()?, Path::new("/usr"), None, true).is_err() {
            mount(Some("tmpfs"), scratch, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))
                .context("mounting a place for what is thrown away")?;
            view.is_tmpfs = true;
            view.overlay(&view.probe()?, Path::new("/usr"), None, true).context("trying overlayfs")?;
        }
        fs::create_dir_all(view.new_files())?;
        Ok(view)
    }

    fn probe(&self) -> Result<PathBuf> {
        let probe = self.scratch.join("probe");
        fs::create_dir_all(&probe)?;
        Ok(probe)
    }

    /// Where the files go that the view is to show besides, by their paths in the root.
    pub fn new_files(&self) -> PathBuf {
        self.scratch.join(NEW)
    }

    /// Lays the new files and a place for changes over directories, with what is mounted in them.
    /// `kept` are places whose changes stay.
    pub fn cover(&mut self, directories: &[PathBuf], kept: &[PathBuf]) -> Result<()> {
        let mounted = mount_points()?;
        if let Some(outside) =
            directories.iter().find(|directory| !mounted.iter().any(|point| directory.starts_with(point)))
        {
            bail!("{} is in a chroot that is no mount point", outside.display());
        }
        let mut lower = Vec::new();
        for directory in directories {
            lower.push((directory.clone(), true));
            let inner = mounted.iter().filter(|point| point.starts_with(directory) && *point != directory);
            lower.extend(inner.map(|point| (point.clone(), false)));
        }
        lower.sort();
        lower.dedup_by(|a, b| a.0 == b.0);
        // All are held on to before the first is covered.
        let mut held = Vec::new();
        for (path, is_asked_for) in lower {
            held.push((self.hold(&path)?, path, is_asked_for));
        }
        let kept: Vec<_> = kept
            .iter()
            .filter(|path| path.is_dir())
            .map(|path| Ok((self.hold(path)?, path)))
            .collect::<Result<_>>()?;
        for (layer, path, is_asked_for) in &held {
            let new = self.new_files().join(path.strip_prefix("/").unwrap_or(path));
            let covered = self.overlay(layer, path, new.is_dir().then_some(&new), false);
            if covered.is_err() && !is_asked_for {
                // No file system for layers: it is shown as it is, and cannot be changed.
                bind(&layer.join("lower"), path)?;
                make_read_only(path, MsFlags::empty())?;
            } else {
                covered?;
            }
        }
        kept.iter().try_for_each(|(layer, path)| bind(&layer.join("lower"), path))
    }

    /// Makes a directory reachable at a place that nothing covers.
    fn hold(&mut self, path: &Path) -> Result<PathBuf> {
        let layer = self.scratch.join(self.layers.to_string());
        self.layers += 1;
        let lower = layer.join("lower");
        fs::create_dir_all(&lower)?;
        bind(path, &lower)?;
        Ok(layer)
    }

    /// Mounts a directory with the new files over it, and a place for changes: at the directory, or
    /// where nobody looks to see whether it can be done.
    fn overlay(&self, layer: &Path, path: &Path, new: Option<&PathBuf>, is_probe: bool) -> Result<()> {
        let (upper, work, at) = (layer.join("upper"), layer.join("work"), layer.join("at"));
        for directory in [&upper, &work, &at] {
            fs::create_dir_all(directory)?;
        }
        let lower = if is_probe { path.to_owned() } else { layer.join("lower") };
        let at = if is_probe { &at } else { path };
        let mut options = OsString::from("lowerdir=");
        if let Some(directory) = new {
            options.push(directory);
            options.push(":");
        }
        options.push(lower);
        options.push(",upperdir=");
        options.push(&upper);
        options.push(",workdir=");
        options.push(&work);
        mount(Some("overlay"), at, Some("overlay"), MsFlags::empty(), Some(options.as_os_str()))
            .with_context(|| format!("covering {}", path.display()))?;
        if is_probe {
            nix::mount::umount(at).context("taking the trial away")?;
        }
        Ok(())
    }
}
