// SPDX-License-Identifier: MIT OR Apache-2.0
//! `verify`: whether a kernel can load what is installed for it and what this machine needs to boot,
//! by the kernel's own rules. Takes no lock and changes nothing.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Serialize;

use super::critical::needed;
use super::session::Session;
use crate::cli::{ModuleArg, TargetArgs};
use crate::failure::Failure;
use crate::gate::proof::{Examiner, Looked, Proof, look};
use crate::gate::verdict::Critical;
use crate::module::{ModuleId, State, Target};

/// The exit code if anything that was looked at cannot be loaded.
const NOT_VERIFIED: u8 = 1;

/// What `--json` prints; the schema's number changes when a field changes its meaning.
#[derive(Debug, Serialize)]
struct Document {
    schema: u32,
    verified: bool,
    kernels: Vec<Kernel>,
}

#[derive(Debug, Serialize)]
struct Kernel {
    #[serde(flatten)]
    target: Target,
    verified: bool,
    packages: Vec<Package>,
    /// What else it lacks to boot.
    reasons: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Package {
    name: String,
    /// The installed one.
    version: Option<String>,
    /// Who says that the machine does not boot without it.
    critical: Option<String>,
    verified: bool,
    modules: Vec<Module>,
    /// What is wrong with the package as such.
    reasons: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Module {
    name: String,
    builtin: bool,
    /// What modprobe would load, and what before it.
    files: Vec<PathBuf>,
    reasons: Vec<String>,
    warnings: Vec<String>,
}

/// The verb `verify`; returns the exit code.
pub(super) fn verify(session: &Session, module: Option<&ModuleArg>, targets: &TargetArgs) -> Result<u8> {
    let wanted = wanted(module);
    let targets = session.targets(targets)?;
    let kernels: Vec<Kernel> =
        targets.into_iter().map(|target| of_kernel(session, wanted, target)).collect::<Result<_>>()?;
    let verified = kernels.iter().all(|kernel| kernel.verified);
    if session.options.json {
        let document = Document { schema: 1, verified, kernels };
        session.report.line(serde_json::to_string_pretty(&document)?);
    } else {
        kernels.iter().for_each(|kernel| session.report.out(kernel.text()));
    }
    Ok(if verified { 0 } else { NOT_VERIFIED })
}

/// The name and the version that the command line gives.
fn wanted(module: Option<&ModuleArg>) -> Option<(&str, Option<&str>)> {
    match module? {
        ModuleArg::Archive(_) => None,
        ModuleArg::Named { name, version } => Some((name, version.as_deref())),
        ModuleArg::Word(name) => Some((name, None)),
    }
}

/// A package to be looked at.
struct Subject {
    name: String,
    /// The installed one.
    version: Option<String>,
    modules: Vec<String>,
    /// What the machine needs of it to boot.
    critical: Option<Critical>,
}

fn of_kernel(session: &Session, wanted: Option<(&str, Option<&str>)>, target: Target) -> Result<Kernel> {
    let directory = session.tree.kernel_dir(&target.kernel);
    if !directory.is_dir() {
        bail!("kernel {} is not installed: there is no {}", target.kernel, directory.display());
    }
    let policy = session.policy()?;
    let mut subjects = subjects(session, &target, needed(session, &target, &policy)?)?;
    if let Some((name, version)) = wanted {
        subjects.retain(|subject| subject.name == name);
        if subjects.is_empty() {
            subjects.push(not_installed(session, &target, name, version)?);
        }
    }
    let mut examiner = Examiner::new(&session.tree, &target.kernel)?;
    let mut critical = Vec::new();
    let mut packages = Vec::new();
    for subject in &subjects {
        let looked = look(&mut examiner, &subject.name, &subject.modules);
        packages.push(Package::of(subject, wanted, &looked));
        critical.extend(subject.critical.as_ref().map(|critical| (critical, looked)));
    }
    // The initramfs is the whole kernel's.
    let mut proof = Proof::default();
    if wanted.is_none() {
        let image = session.gate(&policy).image_now(&target.kernel);
        proof.look_at_initramfs(&session.tree, &target.kernel, &critical, &image);
    }
    let reasons = proof.reasons();
    let verified = packages.iter().all(|package| package.verified) && reasons.is_empty();
    Ok(Kernel { target, verified, packages, reasons })
}

/// What the machine needs of a kernel, and what is installed for it, by name.
fn subjects(session: &Session, target: &Target, critical: Vec<Critical>) -> Result<Vec<Subject>> {
    let version = |name: &str| Some(session.tree.active(name, target)?.version().to_owned());
    let of_critical = |critical: Critical| {
        let (name, modules) = (critical.name.clone(), critical.modules.clone());
        Subject { version: version(&name), name, modules, critical: Some(critical) }
    };
    let mut subjects: Vec<Subject> = critical.into_iter().map(of_critical).collect();
    for id in session.tree.ids()? {
        let is_weak = || session.tree.weak_links(&id).iter().any(|(linked, _)| linked == target);
        let is_installed = session.tree.state(&id, target) == State::Installed || is_weak();
        if is_installed && !subjects.iter().any(|subject| subject.name == id.name()) {
            subjects.push(Subject {
                name: id.name().to_owned(),
                version: Some(id.version().to_owned()),
                modules: modules(session, &id, target),
                critical: None,
            });
        }
    }
    subjects.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(subjects)
}

/// What a package is to bring for a kernel. Where its configuration cannot be read, its name is
/// the best guess.
fn modules(session: &Session, id: &ModuleId, target: &Target) -> Vec<String> {
    let loaded = session.load(id, Some(target));
    let records = loaded.and_then(|loaded| {
        let excluded = loaded.conf.excluded_records(target, &session.kernel_config(&target.kernel)?);
        let records = loaded.conf.records.into_iter().zip(excluded);
        Ok(records.filter(|(_, excluded)| !excluded).map(|(record, _)| record.dest_name).collect())
    });
    records.unwrap_or_else(|_| vec![id.name().to_owned()])
}

/// A registered package that was asked for and is not installed; fails if there is none.
fn not_installed(session: &Session, target: &Target, name: &str, version: Option<&str>) -> Result<Subject> {
    let versions = session.tree.versions(name)?;
    let id = match version {
        Some(version) => {
            let id = ModuleId::new(name, version)?;
            versions.contains(&id).then_some(id.clone()).ok_or(Failure::NotInTree { id })?
        }
        None => versions.into_iter().next_back().ok_or(Failure::ModuleNotInTree { name: name.to_owned() })?,
    };
    let modules = modules(session, &id, target);
    Ok(Subject { name: name.to_owned(), version: None, modules, critical: None })
}

impl Package {
    fn of(subject: &Subject, wanted: Option<(&str, Option<&str>)>, looked: &[Looked<'_>]) -> Self {
        let mut reasons = Vec::new();
        if let Some((_, Some(wanted))) = wanted
            && subject.version.as_deref() != Some(wanted)
        {
            let other =
                subject.version.as_deref().map(|version| format!(", {version} is")).unwrap_or_default();
            reasons.push(format!("version {wanted} is not installed{other}"));
        }
        let modules: Vec<Module> = looked
            .iter()
            .map(|Looked { module, finding, .. }| Module {
                name: (*module).to_owned(),
                builtin: finding.builtin,
                files: finding.files.clone(),
                reasons: finding.problems.clone(),
                warnings: finding.warnings.clone(),
            })
            .collect();
        Self {
            name: subject.name.clone(),
            version: subject.version.clone(),
            critical: subject.critical.as_ref().map(|critical| critical.because.clone()),
            verified: reasons.is_empty() && modules.iter().all(|module| module.reasons.is_empty()),
            modules,
            reasons,
        }
    }
}

impl Kernel {
    fn text(&self) -> String {
        let Target { kernel, arch } = &self.target;
        let mut text = String::new();
        for package in &self.packages {
            let version = package.version.as_ref().map(|version| format!("/{version}")).unwrap_or_default();
            let word = if package.verified { "verified" } else { "NOT LOADABLE" };
            let critical = package.critical.as_ref().map(|because| format!(" (needed to boot: {because})"));
            text.push_str(&format!(
                "{}{version}, {kernel}, {arch}: {word}{}\n",
                package.name,
                critical.unwrap_or_default()
            ));
            package.reasons.iter().for_each(|reason| text.push_str(&format!("  {reason}\n")));
            for module in &package.modules {
                match module.files.first() {
                    _ if module.builtin => text.push_str(&format!("  {}: compiled in\n", module.name)),
                    Some(file) if module.reasons.is_empty() => {
                        text.push_str(&format!("  {}: {}\n", module.name, file.display()));
                    }
                    _ => {}
                }
                module.reasons.iter().for_each(|reason| text.push_str(&format!("  {reason}\n")));
                module.warnings.iter().for_each(|warning| text.push_str(&format!("  Warning: {warning}\n")));
            }
        }
        if self.packages.is_empty() {
            text.push_str(&format!("Kernel {kernel}: nothing of dkms is installed or needed to boot.\n"));
        }
        for reason in &self.reasons {
            text.push_str(&format!("Kernel {kernel}: {reason}\n"));
        }
        text
    }
}
