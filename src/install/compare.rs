// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a version's installed files relate to those that were built. Changes nothing.

use std::path::{Path, PathBuf};

use super::precedence::Precedence;
use super::{Placement, same_module};
use crate::conf::directives::ModuleConf;
use crate::tree::kernels::find_module;

/// How installed files relate to the built ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Comparison {
    pub missing: bool,
    pub differs: bool,
}

/// The files of one record, under whatever compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The module's name.
    pub name: String,
    /// Where it is installed to.
    pub directory: PathBuf,
    pub built: Option<PathBuf>,
    pub installed: Option<PathBuf>,
}

impl Files {
    /// Whether what is installed is what was built.
    pub fn are_same(&self) -> bool {
        matches!((&self.built, &self.installed), (Some(built), Some(installed)) if same_module(built, installed))
    }
}

impl Placement<'_> {
    /// The files of every record but for those that BUILD_EXCLUSIVE_* ruled out when the module
    /// was built; of a version that is not `installed` only the built ones are looked for. Where
    /// depmod is told to take a file from elsewhere, that is the installed one.
    pub fn files<'c>(&'c self, conf: &'c ModuleConf, installed: bool) -> impl Iterator<Item = Files> + 'c {
        let precedence = match installed {
            true => Precedence::read(self.tree, &self.target.kernel).unwrap_or_default(),
            false => Precedence::default(),
        };
        conf.records.iter().filter_map(move |record| {
            let built = self.built_file(&record.dest_name);
            if built.is_none() && self.was_left_out(&record.dest_name, conf) {
                return None;
            }
            let directory = self.directory(&record.dest_location);
            let found = || {
                let told = self.told_to_take(&precedence, &record.dest_name);
                told.or_else(|| find_module(&directory, &record.dest_name))
            };
            let installed = if installed { found() } else { None };
            Some(Files { name: record.dest_name.clone(), directory, built, installed })
        })
    }

    /// The file that depmod's configuration names for a module, whoever put it there.
    fn told_to_take(&self, precedence: &Precedence, name: &str) -> Option<PathBuf> {
        let kernel_dir = self.tree.kernel_dir(&self.target.kernel);
        let file = |directory: &Path| find_module(&kernel_dir.join(directory), name);
        precedence.overridden(name, |directory| file(directory).is_some()).and_then(file)
    }

    /// Whether this version's files are all where they should be, and how they differ.
    pub fn compare(&self, conf: &ModuleConf, installed: bool) -> Comparison {
        let mut comparison = Comparison::default();
        for files in self.files(conf, installed) {
            if files.built.is_none() {
                comparison.missing = true;
            } else if installed {
                comparison.differs |= !files.are_same();
            }
        }
        comparison
    }
}
