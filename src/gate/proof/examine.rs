// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a kernel could load a module, with all that has to be loaded before it, by the kernel's
//! own rules. Each file is read once; nothing is changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use fs_err as fs;

use super::command_line::{self, Word};
use super::index::{Entry, Found, Index, name_of};
use super::modprobe::Settings;
use super::own::{Offered, Sample, offered};
use super::signing::{Objection, Signatures};
use crate::kernel::{KernelConfig, KernelRelease};
use crate::machine::Machine;
use crate::module_file::{
    Compression, Exports, ModInfo, Offer, Strictness, Symbols, VMLINUX, Wanted, canonical, check_loadable,
    kernel_vermagic, link, unpacked,
};
use crate::sys::files;
use crate::sys::tools::{Output, Run, Tool};
use crate::tree::Tree;

/// What came of the look at one module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// The kernel has it compiled in.
    pub builtin: bool,
    /// What modprobe would load, and what before it.
    pub files: Vec<PathBuf>,
    /// Why it cannot be loaded; empty if it can.
    pub problems: Vec<String>,
    /// What may be wrong, or could not be told.
    pub warnings: Vec<String>,
}

/// One module file, read.
#[derive(Debug)]
struct File {
    name: String,
    info: ModInfo,
    symbols: Symbols,
    warnings: Vec<String>,
}

/// A file, or why the kernel would not even look at its symbols.
type Read = std::result::Result<File, String>;

/// Looks at the modules of one kernel.
#[derive(Debug)]
pub struct Examiner<'a> {
    tree: &'a Tree,
    kernel: &'a KernelRelease,
    config: KernelConfig,
    index: Index,
    settings: Settings,
    words: Vec<Word>,
    sample: Option<Sample>,
    vermagic: Option<String>,
    offered: Offered,
    signatures: Signatures<'a>,
    files: BTreeMap<PathBuf, Rc<Read>>,
}

impl<'a> Examiner<'a> {
    /// Reads what a kernel says about itself and its modules.
    pub fn new(tree: &'a Tree, kernel: &'a KernelRelease) -> Result<Self> {
        let kernel_dir = tree.kernel_dir(kernel);
        let index = Index::read(&kernel_dir)?;
        let config = tree.kernel_config(kernel)?;
        let words = command_line::words(tree, kernel, &config)?;
        let sample = Sample::find(&index, &kernel_dir);
        // What the kernel's own modules carry is surer than what its configuration leads to.
        let vermagic =
            sample.as_ref().map(|own| own.vermagic.clone()).or_else(|| kernel_vermagic(kernel, &config));
        let machine = tree.root.is_live() && !tree.root.is_chroot();
        let own = sample.as_ref().map(|own| own.signers.clone()).unwrap_or_default();
        Ok(Self {
            signatures: Signatures::new(tree, kernel, &config, &words, machine, own),
            offered: offered(tree, kernel, sample.as_ref()),
            settings: Settings::read(tree)?,
            files: BTreeMap::new(),
            tree,
            kernel,
            config,
            index,
            words,
            sample,
            vermagic,
        })
    }

    /// Looks at what modprobe would load for a name.
    pub fn module(&mut self, name: &str) -> Finding {
        let mut finding = match self.index.find(name) {
            Found::Nowhere => Finding {
                problems: vec![format!("kernel {} has no module {name}", self.kernel)],
                ..Finding::default()
            },
            Found::Builtin => Finding { builtin: true, ..Finding::default() },
            Found::Files(entries) => {
                let entries: Vec<Entry> = entries.into_iter().cloned().collect();
                let found: Vec<Finding> = entries.iter().map(|entry| self.entry(entry)).collect();
                // For an alias modprobe tries all that have it, and one will do.
                let good = found.iter().position(|finding| finding.problems.is_empty());
                match good.and_then(|at| found.get(at)) {
                    Some(good) => good.clone(),
                    None => found.into_iter().reduce(merged).unwrap_or_default(),
                }
            }
        };
        if !finding.builtin {
            finding.warnings.extend(self.hindrances(name));
            finding.warnings.extend(self.wishes(name));
        }
        finding
    }

    fn entry(&mut self, entry: &Entry) -> Finding {
        let mut finding = Finding { files: vec![entry.path.clone()], ..Finding::default() };
        let shown = entry.path.display();
        match self.linked(entry) {
            Err(problems) => {
                finding.problems =
                    problems.iter().map(|problem| format!("{shown} cannot be loaded: {problem}")).collect();
            }
            Ok(warnings) => {
                finding.warnings = warnings.iter().map(|warning| format!("{shown}: {warning}")).collect();
            }
        }
        for path in &entry.needs {
            finding.files.push(path.clone());
            let needed = match self.index.entry(path).cloned() {
                Some(needed) => self.linked(&needed),
                None => Err(vec!["modules.dep does not list it".to_owned()]),
            };
            match needed {
                Err(problems) => finding.problems.extend(problems.iter().map(|problem| {
                    format!("{shown} cannot be loaded: it needs {}: {problem}", path.display())
                })),
                Ok(warnings) => finding
                    .warnings
                    .extend(warnings.iter().map(|warning| format!("{}: {warning}", path.display()))),
            }
        }
        finding
    }

    /// Whether the kernel would take one file once what it needs is there: what to warn of, or what
    /// is wrong with it.
    fn linked(&mut self, entry: &Entry) -> std::result::Result<Vec<String>, Vec<String>> {
        let read = self.file(&entry.path);
        let file = (*read).as_ref().map_err(|problem| vec![problem.clone()])?;
        let needs: Vec<Rc<Read>> = entry.needs.iter().map(|path| self.file(path)).collect();
        let others: Vec<&Exports> =
            needs.iter().filter_map(|read| Some(&(**read).as_ref().ok()?.symbols.exports)).collect();
        let find = |symbol: &str, _| {
            let (Offered::All(exports) | Offered::Some(exports, _)) = &self.offered;
            let listed = exports.get(symbol);
            let kernels = listed.filter(|export| *export.owner == *VMLINUX);
            let loaded = kernels.or_else(|| others.iter().find_map(|exports| exports.get(symbol)));
            match (loaded, listed, &self.offered) {
                (Some(export), ..) => Offer::Found(export),
                (None, Some(export), _) => Offer::Absent(export),
                (None, None, Offered::All(_)) => Offer::Nowhere,
                (None, None, Offered::Some(..)) => Offer::Unknown,
            }
        };
        let strictness = Strictness::of(self.kernel, &self.config);
        let mut linked = link(&file.name, &file.symbols, &file.info, strictness, &find);
        if !linked.problems.is_empty() {
            return Err(linked.problems);
        }
        if let (Offered::Some(_, why), Some(untold)) = (&self.offered, linked.untold) {
            linked.warnings.push(format!("{untold}, because {why}"));
        }
        linked.warnings.extend(file.warnings.iter().cloned());
        Ok(linked.warnings)
    }

    /// Reads a file, once.
    fn file(&mut self, path: &Path) -> Rc<Read> {
        if let Some(read) = self.files.get(path) {
            return Rc::clone(read);
        }
        let read = Rc::new(self.read(path).map_err(|error| format!("{error:#}")));
        self.files.insert(path.to_owned(), Rc::clone(&read));
        read
    }

    fn read(&self, path: &Path) -> Result<File> {
        if !files::exists(path) {
            bail!("it is not there");
        }
        let bytes = fs::read(path)?;
        let image = unpacked(&bytes)?;
        // modprobe finds it by the file's name.
        let wanted = Wanted {
            name: None,
            kernel: self.kernel,
            machine: Machine::of_kernel(&self.config, &self.tree.arch),
            vermagic: self.vermagic.as_deref(),
        };
        let info = check_loadable(&image, wanted)?;
        let mut warnings = Vec::new();
        match self.signatures.object(&image) {
            Some(Objection::Refused(problem)) => bail!(problem),
            Some(Objection::Doubt(warning)) => warnings.push(warning),
            None => {}
        }
        warnings.extend(self.compression_doubt(Compression::of_bytes(&bytes)));
        let name = info.get("name").map_or_else(|| name_of(path).unwrap_or_default(), canonical);
        let symbols = Symbols::read(&image, &name, &info)?;
        Ok(File { name, info, symbols, warnings })
    }

    /// Who unpacks a module is kmod, or the kernel if it can: what the kernel's own modules are
    /// packed with is known to work, other things are asked for.
    fn compression_doubt(&self, compression: Compression) -> Option<String> {
        let (feature, setting) = match compression {
            Compression::None => return None,
            Compression::Gzip => ("ZLIB", "CONFIG_MODULE_COMPRESS_GZIP"),
            Compression::Xz => ("XZ", "CONFIG_MODULE_COMPRESS_XZ"),
            Compression::Zstd => ("ZSTD", "CONFIG_MODULE_COMPRESS_ZSTD"),
        };
        let by_kernel = self.config.enabled("CONFIG_MODULE_DECOMPRESS") && self.config.enabled(setting);
        if by_kernel || self.sample.as_ref().is_some_and(|own| own.compression == compression) {
            return None;
        }
        let features = Run::new(Tool::Kmod).and_then(|run| run.arg("--version").end(Output::Apart));
        match features.context("asking kmod what it can unpack") {
            Err(error) => Some(format!("could not tell whether kmod can unpack it: {error:#}")),
            Ok(ended) if String::from_utf8_lossy(&ended.output).contains(&format!("+{feature}")) => None,
            Ok(_) => Some(format!("this system's kmod says that it cannot unpack it (no {feature})")),
        }
    }

    /// Who else would keep the module from being loaded.
    fn hindrances(&self, name: &str) -> Vec<String> {
        let listed = |word: &&Word| {
            word.text.split_once('=').is_some_and(|(key, names)| {
                matches!(key, "module_blacklist" | "modprobe.blacklist" | "rd.driver.blacklist")
                    && names.split(',').any(|one| canonical(one) == canonical(name))
            })
        };
        let words = self.words.iter().filter(listed);
        let words =
            words.map(|Word { text, source }| format!("{name} may not be loaded: {source} says: {text}"));
        let files = self.settings.hindrances(name);
        words.chain(files.map(|line| format!("{name} may not be loaded: {line}"))).collect()
    }

    /// Modules that should be loaded before and are not there.
    fn wishes(&self, name: &str) -> Vec<String> {
        let wishes = self.index.wished_before(name).into_iter().chain(self.settings.wished_before(name));
        wishes
            .filter(|wish| self.index.find(wish) == Found::Nowhere)
            .map(|wish| {
                format!("{name} asks for {wish} to be loaded before it, which kernel {} lacks", self.kernel)
            })
            .collect()
    }
}

fn merged(mut one: Finding, other: Finding) -> Finding {
    one.files.extend(other.files);
    one.problems.extend(other.problems);
    one.warnings.extend(other.warnings);
    one
}

#[cfg(test)]
#[path = "examine_tests.rs"]
mod tests;
