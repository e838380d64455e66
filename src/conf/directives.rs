// SPDX-License-Identifier: MIT OR Apache-2.0
//! dkms.conf's directives, checked and typed (dkms(8), "dkms.conf"). What is said about bad
//! ones is dkms's own wording, since packages' maintainers and scripts know it.

use std::collections::HashSet;

use super::exclusive::{self, Exclusive};
use super::record::{self, Record};
use super::{Variables, ere};
use crate::module::ModuleId;

/// The variables of a dkms.conf that mean something; dkms.conf(5) explains them all, and bash is
/// asked for no others.
pub const NAMES: &[&str] = &[
    "PACKAGE_NAME",
    "PACKAGE_VERSION",
    "BUILT_MODULE_NAME",
    "BUILT_MODULE_LOCATION",
    "DEST_MODULE_NAME",
    "DEST_MODULE_LOCATION",
    "STRIP",
    "MAKE",
    "MAKE_MATCH",
    "CLEAN",
    "PATCH",
    "PATCH_MATCH",
    "AUTOINSTALL",
    "BUILD_DEPENDS",
    "BUILD_DEPENDS_REBUILD",
    "BUILD_EXCLUSIVE_KERNEL",
    "BUILD_EXCLUSIVE_KERNEL_MIN",
    "BUILD_EXCLUSIVE_KERNEL_MAX",
    "BUILD_EXCLUSIVE_ARCH",
    "BUILD_EXCLUSIVE_CONFIG",
    "NO_WEAK_MODULES",
    "REMAKE_INITRD",
    "BOOT_CRITICAL",
    "OBSOLETE_BY",
    "MODULES_CONF",
    "MODULES_CONF_ALIAS_TYPE",
    "MODULES_CONF_OBSOLETES",
    "MODULES_CONF_OBSOLETE_ONLY",
    "POST_ADD",
    "PRE_BUILD",
    "POST_BUILD",
    "PRE_INSTALL",
    "POST_INSTALL",
    "POST_REMOVE",
    "build_exclude",
];

/// A command or file with the kernels that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditional {
    pub index: usize,
    pub value: String,
    /// An extended regular expression on the kernel release.
    pub condition: Option<String>,
}

/// The scripts of a module: a path in its source and perhaps arguments, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scripts {
    pub post_add: Option<String>,
    pub pre_build: Option<String>,
    pub post_build: Option<String>,
    pub pre_install: Option<String>,
    pub post_install: Option<String>,
    pub post_remove: Option<String>,
}

/// What a dkms.conf says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleConf {
    /// PACKAGE_NAME and PACKAGE_VERSION.
    pub id: ModuleId,
    pub records: Vec<Record>,
    /// MAKE with MAKE_MATCH, by index; see [`ModuleConf::make_command`].
    pub makes: Vec<Conditional>,
    /// PATCH with PATCH_MATCH, by index; see [`ModuleConf::patches_for`].
    pub patches: Vec<Conditional>,
    pub clean: Option<String>,
    pub scripts: Scripts,
    pub autoinstall: bool,
    /// The names of the modules that have to be installed first, without repetitions.
    pub build_depends: Vec<String>,
    pub build_depends_rebuild: bool,
    pub no_weak_modules: bool,
    pub remake_initrd: bool,
    /// The module's own word that the machine does not boot without it.
    pub boot_critical: bool,
    /// The kernel version from which on the module is not needed.
    pub obsolete_by: Option<String>,
    /// `build_exclude=yes`: the conf found out that this target is not for it.
    pub build_exclude: bool,
    /// The constraints on all records.
    pub exclusive: Exclusive,
    /// Lines for standard error, in dkms's wording.
    pub warnings: Vec<String>,
    /// `Deprecated feature: …` lines for standard error.
    pub deprecated: Vec<String>,
}

impl ModuleConf {
    /// The names by which a policy may speak of the module: its own, then those of its files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.id.name()).chain(self.records.iter().map(|record| record.dest_name.as_str()))
    }
}

/// The variables seen as directives: an empty one counts as unset, and a carriage return at the
/// end of a value belongs to the line.
pub(super) struct Directives<'a>(&'a Variables);

impl<'a> Directives<'a> {
    /// The variables, for a directive that is in [`NAMES`].
    fn of(&self, name: &str) -> &'a Variables {
        debug_assert!(NAMES.contains(&name), "{name} is read but not in NAMES");
        self.0
    }

    pub fn element(&self, name: &str, index: usize) -> Option<String> {
        let value = self.of(name).element(name, index)?;
        let value = value.strip_suffix('\r').unwrap_or(value);
        (!value.is_empty()).then(|| value.to_owned())
    }

    pub fn scalar(&self, name: &str) -> Option<String> {
        self.element(name, 0)
    }

    pub fn max_index(&self, name: &str) -> Option<usize> {
        self.of(name).max_index(name)
    }

    fn elements<'b>(&self, name: &'b str) -> impl Iterator<Item = (usize, &'a str)> + use<'a, 'b> {
        self.of(name).elements(name)
    }

    fn conditionals(&self, name: &str, condition: &str) -> Vec<Conditional> {
        self.elements(name)
            .filter_map(|(index, _)| {
                let value = self.element(name, index)?;
                Some(Conditional { index, value, condition: self.element(condition, index) })
            })
            .collect()
    }

    /// A directive that takes `yes` and `no`, in whatever letters.
    fn switch(&self, name: &str, problems: &mut Vec<String>) -> bool {
        match self.scalar(name) {
            Some(value) if value.eq_ignore_ascii_case("yes") => true,
            Some(value) if !value.eq_ignore_ascii_case("no") => {
                problems.push(problem(format!("Unsupported {name} value '{value}'")));
                false
            }
            _ => false,
        }
    }
}

/// A line about something wrong in a dkms.conf.
pub(super) fn problem(what: impl AsRef<str>) -> String {
    format!("dkms.conf: Error! {}", what.as_ref())
}

/// Checks the directives. `conf_path` is only for messages. Fails with everything that is
/// wrong, each ready to be printed to standard error (some are of two lines).
pub fn read(vars: &Variables, conf_path: &str) -> Result<ModuleConf, Vec<String>> {
    let from = Directives(vars);
    let mut problems = Vec::new();
    let mut package = |name: &str| {
        let value = from.scalar(name);
        if value.is_none() {
            problems.push(problem(format!("No '{name}' directive specified.")));
        }
        value
    };
    let name = package("PACKAGE_NAME");
    let version = package("PACKAGE_VERSION");
    let records = record::read(&from, name.as_deref().unwrap_or_default(), &mut problems);
    let autoinstall = from.switch("AUTOINSTALL", &mut problems);
    let build_depends_rebuild = from.switch("BUILD_DEPENDS_REBUILD", &mut problems);
    let no_weak_modules = from.switch("NO_WEAK_MODULES", &mut problems);
    let boot_critical = from.switch("BOOT_CRITICAL", &mut problems);
    let id = name.zip(version).and_then(|(name, version)| {
        ModuleId::new(&name, &version).map_err(|error| problems.push(problem(format!("{error}.")))).ok()
    });
    let Some(id) = id.filter(|_| problems.is_empty()) else { return Err(problems) };
    let mut seen = HashSet::new();
    let build_depends = from
        .elements("BUILD_DEPENDS")
        .flat_map(|(_, value)| value.split_whitespace())
        .filter(|name| seen.insert(*name))
        .map(str::to_owned)
        .collect();
    Ok(ModuleConf {
        warnings: warnings(&from, records.is_empty()),
        deprecated: deprecated(&from, conf_path),
        id,
        records,
        makes: from.conditionals("MAKE", "MAKE_MATCH"),
        patches: from.conditionals("PATCH", "PATCH_MATCH"),
        clean: from.scalar("CLEAN"),
        scripts: Scripts {
            post_add: from.scalar("POST_ADD"),
            pre_build: from.scalar("PRE_BUILD"),
            post_build: from.scalar("POST_BUILD"),
            pre_install: from.scalar("PRE_INSTALL"),
            post_install: from.scalar("POST_INSTALL"),
            post_remove: from.scalar("POST_REMOVE"),
        },
        autoinstall,
        build_depends,
        build_depends_rebuild,
        no_weak_modules,
        remake_initrd: from.scalar("REMAKE_INITRD").is_some_and(|value| value.starts_with(['y', 'Y'])),
        boot_critical,
        obsolete_by: from.scalar("OBSOLETE_BY"),
        build_exclude: from.scalar("build_exclude").as_deref() == Some("yes"),
        exclusive: Exclusive::read(&from, 0),
    })
}

impl ModuleConf {
    /// What add, build and install refuse beyond that: names that occur twice.
    pub fn strict_problems(&self) -> Vec<String> {
        let built = duplicates("BUILT_MODULE_NAME", &self.records, |record| &record.built_name);
        let dest = duplicates("DEST_MODULE_NAME", &self.records, |record| &record.dest_name);
        built.into_iter().chain(dest).collect()
    }
}

fn duplicates(directive: &str, records: &[Record], name: impl Fn(&Record) -> &str) -> Vec<String> {
    let mut seen = HashSet::new();
    records
        .iter()
        .filter(|record| !seen.insert(name(record)))
        .map(|record| {
            problem(format!("Duplicate module '{}' in '{directive}[{}]'.", name(record), record.index))
        })
        .collect()
}

fn warnings(from: &Directives, no_records: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    if no_records {
        warnings.push("dkms.conf: Warning! Zero modules specified.".to_owned());
    }
    let [kernel, _, _, arch, _] = exclusive::NAMES;
    for name in ["MAKE_MATCH", "PATCH_MATCH", kernel, arch] {
        for (index, _) in from.elements(name) {
            let pattern = from.element(name, index);
            if pattern.is_some_and(|pattern| ere::compile(&pattern).is_err()) {
                warnings.push(format!(
                    "dkms.conf: Warning! '{name}[{index}]' is not a regular expression and matches no kernel."
                ));
            }
        }
    }
    warnings
}

fn deprecated(from: &Directives, conf_path: &str) -> Vec<String> {
    const FEATURES: [(&str, &str); 6] = [
        ("MODULES_CONF", ""),
        ("MODULES_CONF_OBSOLETES", ""),
        ("MODULES_CONF_ALIAS_TYPE", ""),
        ("MODULES_CONF_OBSOLETE_ONLY", ""),
        ("OBSOLETE_BY", ": use BUILD_EXCLUSIVE_KERNEL_MAX instead"),
        ("CLEAN", ""),
    ];
    FEATURES
        .iter()
        .filter(|(name, _)| match *name {
            "CLEAN" => from.scalar(name).is_some_and(|value| value != "true"),
            _ => from.elements(name).any(|(_, value)| !value.is_empty()),
        })
        .map(|(name, advice)| format!("Deprecated feature: {name} ({conf_path}){advice}"))
        .collect()
}

#[cfg(test)]
#[path = "directives_tests.rs"]
mod tests;
