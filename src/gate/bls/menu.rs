// SPDX-License-Identifier: MIT OR Apache-2.0
//! The menu as it lies on this machine's partitions, and entries that are held back: renamed to
//! `NAME.held`, which no loader reads, and renamed back when their kernel is fit. Owns `*.held`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use fs_err as fs;
use object::ReadCache;

use super::choose::Wishes;
use super::entry::Entry;
use crate::gate::efi;
use crate::initramfs::Joined;
use crate::kernel::{KernelRelease, compare_versions};
use crate::sys::files;
use crate::tree::Tree;

/// Where the partitions of boot loaders are mounted (UAPI.1, "Mount Points"; bootctl(1)).
const PARTITIONS: [&str; 3] = ["/efi", "/boot", "/boot/efi"];

/// What a held entry's name ends with.
const HELD: &str = ".held";

/// systemd-boot's vendor GUID (systemd-boot(7), "EFI VARIABLES").
pub(super) const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// All entries that the loader will show, in its order, and what was asked of it.
#[derive(Debug, Clone, Default)]
pub struct Menu {
    pub entries: Vec<Entry>,
    pub wishes: Wishes,
}

/// What became of a kernel's entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shelved {
    /// There is none in the menu.
    NotThere,
    /// Held back; these files.
    Held(Vec<PathBuf>),
    /// It is the only kernel that is left, so it stays.
    LastOne,
}

impl Menu {
    /// Reads the menu; nothing if this machine has no partition with entries.
    pub fn read(tree: &Tree) -> Option<Self> {
        let found = found(tree);
        let is_loader = |partition: &PathBuf| partition.join("loader/loader.conf").is_file();
        let partitions = partitions(tree);
        if found.is_empty() && !partitions.iter().any(is_loader) {
            return None;
        }
        let mut entries: Vec<Entry> = found.into_iter().map(|(_, entry)| entry).collect();
        entries.sort_by(Entry::before);
        let conf = partitions.iter().find_map(|partition| {
            let text = files::read_if_there(&partition.join("loader/loader.conf")).ok()??;
            default_of(&text)
        });
        let variable = |name| variable(tree, name);
        let wishes = Wishes {
            oneshot: variable("LoaderEntryOneShot"),
            variable: variable("LoaderEntryDefault"),
            conf,
            last_booted: variable("LoaderEntryLastBooted"),
        };
        Some(Self { entries, wishes })
    }
}

/// Which loader says that it has booted this machine ("systemd-boot 257", "GRUB 2.12"); nothing if
/// none has, or the firmware is no EFI (UAPI.2 Boot Loader Interface, "LoaderInfo").
pub(in crate::gate) fn booted_by(tree: &Tree) -> Option<String> {
    variable(tree, "LoaderInfo")
}

/// `default` of a loader.conf; the last one counts.
fn default_of(text: &str) -> Option<String> {
    let lines = text.lines().map(str::trim);
    let value = lines
        .filter_map(|line| line.strip_prefix("default")?.strip_prefix(char::is_whitespace))
        .next_back()?;
    Some(value.trim().to_owned())
}

/// An EFI variable of the loader's, in UTF-16.
fn variable(tree: &Tree, name: &str) -> Option<String> {
    let bytes = efi::variable(tree, name, VENDOR).ok()??;
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let text: String = char::decode_utf16(units).filter_map(Result::ok).take_while(|c| *c != '\0').collect();
    Some(text).filter(|text| !text.is_empty())
}

/// The mounted partitions, each once: /boot may be the same directory by another name.
fn partitions(tree: &Tree) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in PARTITIONS.map(|path| tree.path(path)) {
        if let Ok(real) = fs::canonicalize(&path)
            && !found.contains(&real)
        {
            found.push(real);
        }
    }
    found
}

/// The entries with their files. An entry whose image is not there is none: the loader passes it
/// over, too.
fn found(tree: &Tree) -> Vec<(PathBuf, Entry)> {
    let mut found = Vec::new();
    for partition in partitions(tree) {
        for (path, name) in listed(&partition.join("loader/entries")) {
            let Ok(Some(text)) = files::read_if_there(&path) else { continue };
            let entry = conf(tree, &name, &text);
            let is_there =
                |entry: &Entry| entry.image.as_ref().is_none_or(|name| file(&partition, name).is_some());
            found.extend(entry.filter(is_there).map(|entry| (path, entry)));
        }
        for (path, name) in listed(&partition.join("EFI/Linux")) {
            let entry = uki(tree, &path, &name);
            found.extend(entry.map(|entry| (path, entry)));
        }
    }
    found
}

fn conf(tree: &Tree, name: &str, text: &str) -> Option<Entry> {
    let mut entry = Entry::from_conf(name, text, tree.arch.as_str())?;
    // Arch's images are called after the package, which the module directory tells.
    if let Some(kernel) = &entry.kernel
        && !tree.kernel_dir(kernel).is_dir()
    {
        let is_called = |other: &KernelRelease| {
            let base = files::read_if_there(&tree.kernel_dir(other).join("pkgbase")).ok().flatten();
            base.is_some_and(|base| base.trim() == kernel.as_str())
        };
        let named = tree.installed_kernels().ok().and_then(|kernels| kernels.into_iter().find(is_called));
        entry.kernel = named.or(entry.kernel);
    }
    Some(entry)
}

/// Of an image that may be large only the small sections are read. dracut's have none that tells the
/// kernel, so the name does (kernel-install: `TOKEN-K.efi`, dracut(8): `linux-K-MACHINE-BUILD.efi`).
fn uki(tree: &Tree, path: &Path, name: &str) -> Option<Entry> {
    let stem = name.strip_suffix(".efi")?;
    let file = fs::File::open(path).ok()?;
    let mut entry = Entry::from_uki(name, &ReadCache::new(file.file()))?;
    if entry.kernel.is_none() {
        let named = tree.installed_kernels().unwrap_or_default().into_iter();
        entry.kernel = named.filter(|kernel| names(stem, kernel)).max_by_key(|kernel| kernel.as_str().len());
    }
    Some(entry)
}

/// Whether a kernel is part of a name, between dashes or before a boot counter.
fn names(stem: &str, kernel: &KernelRelease) -> bool {
    stem.match_indices(kernel.as_str()).any(|(at, release)| {
        let (before, behind) = (&stem[..at], &stem[at + release.len()..]);
        (before.is_empty() || before.ends_with('-')) && (behind.is_empty() || behind.starts_with(['-', '+']))
    })
}

/// The file that an entry in a partition names. Where that is no file system of its own, GRUB's names
/// are from the root of the one that it is in, or of a subvolume's: `/boot/M/K/linux`.
fn file(partition: &Path, name: &str) -> Option<PathBuf> {
    let name = name.replace('\\', "/");
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty()).collect();
    let below = |from: usize| parts[from..].iter().fold(partition.to_owned(), |path, part| path.join(part));
    (0..parts.len()).map(below).find(|path| path.is_file())
}

fn listed(directory: &Path) -> Vec<(PathBuf, String)> {
    let names = files::names(directory).unwrap_or_default();
    names.into_iter().map(|name| (directory.join(&name), name)).collect()
}

/// Takes a kernel's entries out of the menu, unless no other kernel's would be left in it.
/// `may_boot` tells which of the others count.
pub fn hold(
    tree: &Tree,
    kernel: &KernelRelease,
    may_boot: &dyn Fn(&KernelRelease) -> bool,
) -> Result<Shelved> {
    let (ours, others): (Vec<_>, Vec<_>) =
        found(tree).into_iter().partition(|(_, entry)| entry.kernel.as_ref() == Some(kernel));
    if ours.is_empty() {
        return Ok(Shelved::NotThere);
    }
    if !others.iter().any(|(_, entry)| entry.kernel.as_ref().is_some_and(may_boot)) {
        return Ok(Shelved::LastOne);
    }
    let mut held = Vec::new();
    for (path, _) in ours {
        let mut name = path.clone().into_os_string();
        name.push(HELD);
        moved(&path, Path::new(&name))?;
        held.push(path);
    }
    Ok(Shelved::Held(held))
}

/// The name of the entry of the newest kernel that may boot, as GRUB's environment has it: its file's,
/// without the ending.
pub fn newest(tree: &Tree, may_boot: &dyn Fn(&KernelRelease) -> bool) -> Option<String> {
    let fit = found(tree).into_iter().filter_map(|(path, entry)| Some((path, entry.kernel?)));
    let fit = fit.filter(|(_, kernel)| may_boot(kernel));
    let newest = fit.max_by(|(_, a), (_, b)| compare_versions(a.as_str(), b.as_str()));
    Some(newest?.0.file_stem()?.to_string_lossy().into_owned())
}

/// Puts a kernel's held entries back, unless they have been made anew meanwhile. Tells whether
/// there were any.
pub fn put_back(tree: &Tree, kernel: &KernelRelease) -> Result<bool> {
    put_back_where(tree, &|of| of == Some(kernel))
}

/// Puts every held entry back: the gate is off, or our package goes.
pub fn put_back_all(tree: &Tree) -> Result<bool> {
    put_back_where(tree, &|_| true)
}

fn put_back_where(tree: &Tree, wanted: &dyn Fn(Option<&KernelRelease>) -> bool) -> Result<bool> {
    let mut any = false;
    for (path, _) in held(tree).into_iter().filter(|(_, entry)| wanted(entry.kernel.as_ref())) {
        any = true;
        let original = path.with_extension("");
        if files::exists(&original) {
            files::remove(&path)?;
        } else {
            moved(&path, &original)?;
        }
    }
    Ok(any)
}

/// The initramfs of every entry that a kernel has, in the files that the loader joins: of those in
/// the menu, and of those that are held, which come back as they are once the kernel is fit.
pub(in crate::gate) fn initramfs_of(tree: &Tree, kernel: &KernelRelease) -> Vec<Joined> {
    let entries = found(tree).into_iter().chain(held(tree));
    let mut images = Vec::new();
    for (path, entry) in entries.filter(|(_, entry)| entry.kernel.as_ref() == Some(kernel)) {
        let joined: Joined = match entry.image {
            None => vec![path],
            // GRUB's own entries have variables behind the name (`$tuned_initrd`).
            Some(_) => entry
                .initrds
                .iter()
                .flat_map(|line| line.split_whitespace())
                .filter(|word| !word.starts_with('$'))
                .map(|word| initrd(tree, &path, word))
                .collect(),
        };
        if !joined.is_empty() && !images.contains(&joined) {
            images.push(joined);
        }
    }
    images
}

/// An initrd that the entry in a file names; where it would be if it is not there.
fn initrd(tree: &Tree, entry: &Path, name: &str) -> PathBuf {
    let partition = entry.ancestors().nth(3).unwrap_or(entry);
    let there = file(partition, name).or_else(|| file(&tree.path("/boot"), name));
    there.unwrap_or_else(|| partition.join(name.replace('\\', "/").trim_start_matches('/')))
}

/// Forgets those held entries of a kernel that go.
pub fn remove_held(tree: &Tree, kernel: &KernelRelease, goes: &dyn Fn(&Entry) -> bool) -> Result<()> {
    held(tree)
        .into_iter()
        .filter(|(_, entry)| entry.kernel.as_ref() == Some(kernel) && goes(entry))
        .try_for_each(|(path, _)| files::remove(&path))
}

/// The held entries with their files.
fn held(tree: &Tree) -> Vec<(PathBuf, Entry)> {
    let mut found = Vec::new();
    for partition in partitions(tree) {
        for (path, name) in listed(&partition.join("loader/entries")) {
            let Some(name) = name.strip_suffix(HELD) else { continue };
            let text = files::read_if_there(&path).ok().flatten().unwrap_or_default();
            let entry = conf(tree, name, &text).unwrap_or_default();
            found.push((path, entry));
        }
        for (path, name) in listed(&partition.join("EFI/Linux")) {
            let Some(name) = name.strip_suffix(HELD) else { continue };
            let entry = uki(tree, &path, name).unwrap_or_default();
            found.push((path, entry));
        }
    }
    found
}

fn moved(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)?;
    files::sync_directory(files::parent(to)?)
}

#[cfg(test)]
#[path = "menu_tests.rs"]
mod tests;
