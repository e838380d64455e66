// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which registered modules the machine does not boot without: those that bring what it needs,
//! where the target kernel has nothing of its own for it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use serde::Serialize;

use super::own::{Aliases, Own, dependencies};
use super::{Need, Surveyed, survey};
use crate::gate::Registered;
use crate::kernel::KernelRelease;
use crate::module::Target;
use crate::module_file::canonical;
use crate::tree::Tree;

/// What is asked of a machine.
#[derive(Debug)]
pub struct Question<'a> {
    pub tree: &'a Tree,
    pub target: &'a Target,
    /// The kernel that /sys tells of.
    pub running: Option<&'a KernelRelease>,
    pub registered: &'a [Registered<'a>],
}

/// Why a package is needed to boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub because: String,
    /// Whether the initramfs needs it, not only what comes after.
    pub early: bool,
}

/// A package that brings what the machine needs, as the kernel itself does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Spared {
    pub name: String,
    pub because: String,
    /// What the kernel has instead.
    pub instead: String,
}

/// The answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detected {
    /// By the package's name.
    pub critical: BTreeMap<String, Found>,
    pub spared: Vec<Spared>,
    /// What could not be told.
    pub warnings: Vec<String>,
    /// Why nothing could be looked at.
    pub off: Option<String>,
}

/// A registered package with the modules that it brings to the target kernel.
struct Provider<'a> {
    name: &'a str,
    modules: HashSet<String>,
    /// Whether the running kernel has it.
    in_use: bool,
}

/// Looks at the machine and at what is registered.
pub fn detect(question: &Question<'_>) -> Detected {
    let Surveyed { mut needs, warnings, off } = survey(&question.tree.root);
    let mut detected = Detected { warnings, off, ..Detected::default() };
    let providers: Vec<_> = question.registered.iter().map(|one| provider(question, one)).collect();
    if needs.is_empty() || providers.is_empty() {
        return detected;
    }
    let kernel_dir = question.tree.kernel_dir(&question.target.kernel);
    let running_dir = question.running.map(|running| question.tree.kernel_dir(running));
    let claims = claims(&needs, &providers, running_dir.as_ref());
    let mut own = None;
    let mut at = 0;
    // What is critical may need others in its turn.
    while let Some(need) = needs.get(at).cloned() {
        let bringing = bringing(&need, claims.get(&at), &providers);
        at += 1;
        if bringing.is_empty() {
            continue;
        }
        let own = own.get_or_insert_with(|| {
            if !kernel_dir.is_dir() {
                let kernel = &question.target.kernel;
                detected
                    .warnings
                    .push(format!("kernel {kernel} is not there: what it brings itself is not known"));
            }
            let originals =
                providers.iter().map(|one| question.tree.originals_dir(one.name, question.target));
            Own::read(&kernel_dir, running_dir.as_deref(), originals.collect())
        });
        let offer = own.offer(&need);
        for provider in bringing {
            if let Some(instead) = offer.clone() {
                spare(&mut detected.spared, provider.name, &need, instead);
                continue;
            }
            let found = || Found { because: need.because.clone(), early: need.early };
            let is_new = !detected.critical.contains_key(provider.name);
            detected.critical.entry(provider.name.to_owned()).or_insert_with(found).early |= need.early;
            if is_new {
                let dirs = running_dir.iter().chain([&kernel_dir]);
                needs.extend(of_dependencies(provider, dirs, &need));
            }
        }
    }
    detected.spared.retain(|spared| !detected.critical.contains_key(&spared.name));
    detected
}

fn provider<'a>(question: &Question<'a>, registered: &Registered<'a>) -> Provider<'a> {
    let Registered { conf, excluded } = registered;
    let all_out = excluded.iter().all(|excluded| *excluded);
    let records = conf.records.iter().zip(*excluded).filter(|(_, excluded)| all_out || !**excluded);
    let running =
        question.running.cloned().map(|kernel| Target { kernel, arch: question.target.arch.clone() });
    Provider {
        name: conf.id.name(),
        modules: records
            .flat_map(|(record, _)| [&record.built_name, &record.dest_name])
            .map(|name| canonical(name))
            .collect(),
        in_use: running.is_some_and(|running| question.tree.active(conf.id.name(), &running).is_some()),
    }
}

/// Which registered modules of the running kernel say that they are for what is needed, by the
/// number of the need: the device may be another driver's today.
fn claims(
    needs: &[Need],
    providers: &[Provider<'_>],
    running_dir: Option<&PathBuf>,
) -> BTreeMap<usize, BTreeSet<String>> {
    let mut claims: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let Some(running_dir) = running_dir else { return claims };
    let (numbers, aliases): (Vec<_>, Vec<_>) = needs
        .iter()
        .enumerate()
        .flat_map(|(at, need)| need.aliases.iter().map(move |alias| (at, alias.clone())))
        .unzip();
    let names: HashSet<&str> = providers.iter().flat_map(|one| &one.modules).map(String::as_str).collect();
    let registered = |module: &str| names.contains(module);
    for (alias, module) in Aliases::of_kernel(running_dir, None).owners(&aliases, &registered) {
        claims.entry(numbers[alias]).or_default().insert(module);
    }
    claims
}

/// Who brings what is needed: those that have the module by its name before those that claim to be
/// for the same; of several, those that the running kernel has.
fn bringing<'a, 'b>(
    need: &Need,
    claims: Option<&BTreeSet<String>>,
    providers: &'b [Provider<'a>],
) -> Vec<&'b Provider<'a>> {
    let having = |names: &mut dyn Iterator<Item = &String>| {
        let names: Vec<_> = names.collect();
        let has = |provider: &&Provider<'_>| names.iter().any(|name| provider.modules.contains(*name));
        providers.iter().filter(has).collect::<Vec<_>>()
    };
    let mut found = having(&mut need.names.iter());
    if found.is_empty() {
        found = having(&mut claims.into_iter().flatten());
    }
    if found.iter().any(|provider| provider.in_use) {
        found.retain(|provider| provider.in_use);
    }
    found
}

fn spare(spared: &mut Vec<Spared>, name: &str, need: &Need, instead: String) {
    if !spared.iter().any(|other| other.name == name) {
        spared.push(Spared { name: name.to_owned(), because: need.because.clone(), instead });
    }
}

fn of_dependencies<'a>(
    provider: &Provider<'_>,
    kernel_dirs: impl Iterator<Item = &'a PathBuf>,
    need: &Need,
) -> Vec<Need> {
    let needed: BTreeSet<_> = kernel_dirs.flat_map(|dir| dependencies(dir, &provider.modules)).collect();
    let needed = needed.into_iter().filter(|module| !provider.modules.contains(module));
    let because = format!("{} needs it, and {}", provider.name, need.because);
    needed
        .map(|module| Need {
            names: vec![module],
            aliases: Vec::new(),
            because: because.clone(),
            early: need.early,
        })
        .collect()
}
