// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which modules an image holds: by their paths, through hard and symbolic links, and where there
//! are several of a name by the image's own modules.dep.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::rc::Rc;

use cpio::newc::Entry;

use super::{Unreadable, buffer::Visitor};
use crate::kernel::KernelRelease;
use crate::module_file::{canonical, stem};

/// How much is kept of an image, in bytes: the modules that are asked for, and modules.dep.
const KEPT: u64 = 1 << 30;

/// As the kernel has it for links (PATH_MAX).
const LONGEST_TARGET: u64 = 4096;

/// Where modules are, after the `usr` that many systems have and others do not.
const MODULES: &str = "lib/modules";

/// A module in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Without a leading slash or `usr`.
    pub path: String,
    /// As it is in the image: it may be compressed.
    pub content: Rc<Vec<u8>>,
}

/// What an image holds for a kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Whether it has any module for that kernel.
    pub has_modules: bool,
    modules: BTreeMap<String, Vec<Found>>,
}

impl Contents {
    /// The files of a module (by its canonical name) that modprobe may take. More than one only
    /// where the image does not say in plain text which it takes.
    pub fn module(&self, name: &str) -> &[Found] {
        self.modules.get(name).map_or(&[], Vec::as_slice)
    }
}

/// A file under lib/modules.
enum Node {
    /// Where its content is.
    File(usize),
    /// What it points at, from the image's root.
    Link(String),
}

pub(super) struct Collector<'a> {
    /// The kernel's directory.
    kernel: String,
    wanted: &'a BTreeSet<String>,
    nodes: BTreeMap<String, Node>,
    contents: Vec<Rc<Vec<u8>>>,
    /// Contents of the files in this archive that have several names, by device and inode.
    linked: HashMap<[u32; 3], usize>,
    index: String,
    has_modules: bool,
    /// How much may still be kept, in bytes.
    left: u64,
}

impl<'a> Collector<'a> {
    pub(super) fn new(kernel: &KernelRelease, wanted: &'a BTreeSet<String>) -> Self {
        Self {
            kernel: format!("{MODULES}/{kernel}"),
            wanted,
            nodes: BTreeMap::new(),
            contents: Vec::new(),
            linked: HashMap::new(),
            index: String::new(),
            has_modules: false,
            left: KEPT,
        }
    }

    fn keep(&mut self, content: &mut dyn Read) -> io::Result<Rc<Vec<u8>>> {
        let mut kept = Vec::new();
        content.take(self.left + 1).read_to_end(&mut kept)?;
        self.left = self.left.checked_sub(kept.len() as u64).ok_or(Unreadable::TooLarge)?;
        Ok(Rc::new(kept))
    }

    /// Whether a path is one of this kernel's modules: below its directory or, as booster has them,
    /// right in the directory above.
    fn is_ours(&self, path: &str) -> bool {
        let below = path.strip_prefix(&self.kernel).is_some_and(|rest| rest.starts_with('/'));
        below || path.rsplit_once('/').is_some_and(|(directory, _)| directory == MODULES)
    }

    /// The content behind a path, through links.
    fn resolve(&self, path: &str) -> Option<usize> {
        let mut path = path;
        // As many as path_resolution(7) follows.
        for _ in 0..40 {
            match self.nodes.get(path)? {
                Node::File(content) => return Some(*content),
                Node::Link(target) => path = target,
            }
        }
        None
    }

    pub(super) fn finish(self) -> Contents {
        let mut found: BTreeMap<String, Vec<(String, usize)>> = BTreeMap::new();
        for path in self.nodes.keys().filter(|path| self.is_ours(path)) {
            if let Some(name) = name(path)
                && let Some(content) = self.resolve(path)
                && self.wanted.contains(&name)
            {
                found.entry(name).or_default().push((path.clone(), content));
            }
        }
        let indexed = |path: &String| {
            let path = path.strip_prefix(&self.kernel).and_then(|path| path.strip_prefix('/'));
            path.is_some_and(|path| self.index.lines().any(|line| line.split(':').next() == Some(path)))
        };
        for copies in found.values_mut().filter(|copies| copies.len() > 1) {
            if let Some(chosen) = copies.iter().position(|(path, _)| indexed(path)) {
                *copies = vec![copies.swap_remove(chosen)];
            }
        }
        let take = |(path, content): (String, usize)| Found { path, content: self.contents[content].clone() };
        let modules =
            found.into_iter().map(|(name, copies)| (name, copies.into_iter().map(take).collect())).collect();
        Contents { has_modules: self.has_modules, modules }
    }
}

impl Visitor for Collector<'_> {
    fn file(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        const KIND: u32 = 0o170_000;
        const REGULAR: u32 = 0o100_000;
        const LINK: u32 = 0o120_000;
        let Some(path) = path(entry.name()) else { return Ok(()) };
        if path.strip_prefix(&self.kernel) == Some("/modules.dep") {
            let index = self.keep(content)?;
            self.index = String::from_utf8_lossy(&index).into_owned();
            return Ok(());
        }
        let Some(name) = name(&path) else { return Ok(()) };
        self.has_modules |= self.is_ours(&path);
        if !self.wanted.contains(&name) {
            return Ok(());
        }
        match entry.mode() & KIND {
            REGULAR => {
                // A file with several names comes with its content under any one of them.
                let inode = [entry.dev_major(), entry.dev_minor(), entry.ino()];
                let inode = Some(inode).filter(|_| entry.nlink() > 1);
                let known = inode.and_then(|inode| self.linked.get(&inode).copied());
                let place = known.unwrap_or_else(|| {
                    self.contents.push(Rc::default());
                    self.contents.len() - 1
                });
                self.linked.extend(inode.map(|inode| (inode, place)));
                if entry.file_size() > 0 {
                    self.contents[place] = self.keep(content)?;
                }
                self.nodes.insert(path, Node::File(place));
            }
            LINK => {
                let mut target = String::new();
                content.take(LONGEST_TARGET).read_to_string(&mut target)?;
                let target = from_root(&path, target.trim_end_matches('\0'));
                self.nodes.insert(path, Node::Link(target));
            }
            _ => {}
        }
        Ok(())
    }

    fn end_of_archive(&mut self) {
        self.linked.clear();
    }
}

/// The module that a path is one of, by its canonical name.
fn name(path: &str) -> Option<String> {
    stem(path.rsplit('/').next()?).map(canonical)
}

/// A name in an archive as a path below lib/modules, if it is one.
fn path(name: &str) -> Option<String> {
    let path = from_root("", name);
    path.strip_prefix(MODULES).is_some_and(|rest| rest.starts_with('/')).then_some(path)
}

/// Where a link at `path` points, from the root of the image and without `usr`.
fn from_root(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    if target.starts_with('/') {
        parts.clear();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.first() == Some(&"usr") {
        parts.remove(0);
    }
    parts.join("/")
}
