// SPDX-License-Identifier: MIT OR Apache-2.0
//! `complete`: answers a shell's question for the next word with what is there. Changes nothing,
//! takes no lock and runs no program.

use std::collections::BTreeSet;

use anyhow::Result;

use super::session::Session;
use crate::cli::complete::{Candidate, Files, Kernels, Modules, Question, Wanted};
use crate::gate::verdict::Verdict;
use crate::kernel::compare_versions;
use crate::module::{Arch, ModuleId, State, Target};

/// Prints the kind of files that may stand there, then the candidates, each as a whole word with
/// its meaning behind a tab.
pub(super) fn complete(session: &Session, question: &Question) -> Result<()> {
    let candidates = Answer { session, question }.candidates()?;
    let fits = candidates.iter().any(|candidate| candidate.word.starts_with(&question.typed));
    let mut text = if fits { Files::None } else { question.files }.name().to_owned() + "\n";
    for Candidate { word, meaning } in candidates {
        text.push_str(&format!("{}{word}\t{meaning}\n", question.prefix));
    }
    session.report.out(text);
    Ok(())
}

struct Answer<'a> {
    session: &'a Session,
    question: &'a Question,
}

impl Answer<'_> {
    fn candidates(&self) -> Result<Vec<Candidate>> {
        let with_slash = self.question.typed.contains('/');
        Ok(match &self.question.wanted {
            Wanted::Words(words) => words.clone(),
            Wanted::Names(which) if !with_slash => {
                let names: BTreeSet<_> =
                    self.modules(*which)?.iter().map(|id| id.name().to_owned()).collect();
                names.into_iter().map(bare).collect()
            }
            Wanted::Modules(which) | Wanted::Names(which) => {
                self.modules(*which)?.iter().map(|id| bare(id.to_string())).collect()
            }
            Wanted::Versions(which) => {
                let name = self.question.module.as_ref().map(|(name, _)| name.as_str());
                let ids = self.modules(*which)?.into_iter().filter(|id| Some(id.name()) == name);
                ids.map(|id| bare(id.version().to_owned())).collect()
            }
            Wanted::Kernels(which) => {
                let running = self.session.tree.running_kernel().ok();
                let word = |Target { kernel, arch }: Target| Candidate {
                    meaning: if running.as_ref() == Some(&kernel) { "running" } else { "" }.to_owned(),
                    word: if with_slash { format!("{kernel}/{arch}") } else { kernel.to_string() },
                };
                let mut words: Vec<Candidate> = self.targets(*which)?.into_iter().map(word).collect();
                words.dedup();
                words
            }
            Wanted::Runs => super::log::candidates(self.session)?,
            Wanted::Arches(which) => {
                let targets = self.targets(*which)?.into_iter().filter(|target| self.names_kernel(target));
                let arches: BTreeSet<Arch> = targets.map(|target| target.arch).collect();
                arches.iter().map(|arch| bare(arch.to_string())).collect()
            }
        })
    }

    /// Whether the line leaves this kernel.
    fn names_kernel(&self, target: &Target) -> bool {
        let kernels = &self.question.kernels;
        kernels.is_empty() || kernels.iter().any(|kernel| kernel == target.kernel.as_str())
    }

    /// Whether the line leaves this module.
    fn names_module(&self, id: &ModuleId) -> bool {
        self.question.module.as_ref().is_none_or(|(name, version)| {
            name == id.name() && version.as_ref().is_none_or(|version| version == id.version())
        })
    }

    fn modules(&self, which: Modules) -> Result<Vec<ModuleId>> {
        let tree = &self.session.tree;
        let registered = tree.ids()?;
        let unregistered = || -> Result<Vec<ModuleId>> {
            Ok(tree.sources()?.into_iter().filter(|id| !registered.contains(id)).collect())
        };
        let built = |id: &ModuleId, state: Option<State>| {
            tree.targets(id).iter().any(|target| {
                self.names_kernel(target)
                    && state.as_ref().is_none_or(|state| tree.state(id, target) == *state)
            })
        };
        Ok(match which {
            Modules::Unregistered => unregistered()?,
            Modules::Known => registered.iter().cloned().chain(unregistered()?).collect(),
            Modules::Registered => registered,
            Modules::Built => registered.into_iter().filter(|id| built(id, None)).collect(),
            Modules::Installed => {
                registered.into_iter().filter(|id| built(id, Some(State::Installed))).collect()
            }
        })
    }

    /// Oldest kernel first.
    fn targets(&self, which: Kernels) -> Result<Vec<Target>> {
        let tree = &self.session.tree;
        let ids = tree.ids()?;
        let mut targets: Vec<Target> = match which {
            Kernels::Present | Kernels::WithHeaders => {
                let built = ids.iter().flat_map(|id| tree.targets(id)).map(|target| target.arch);
                let arches: BTreeSet<Arch> = built.chain([tree.arch.clone()]).collect();
                let kernels = tree.installed_kernels()?.into_iter();
                kernels
                    .filter(|kernel| which == Kernels::Present || tree.has_headers(kernel))
                    .flat_map(|kernel| {
                        arches.iter().map(move |arch| Target { kernel: kernel.clone(), arch: arch.clone() })
                    })
                    .collect()
            }
            Kernels::Held => {
                let verdicts = Verdict::all(tree)?.into_iter().filter(|verdict| !verdict.standing.may_boot());
                verdicts.map(|verdict| Target { kernel: verdict.kernel, arch: tree.arch.clone() }).collect()
            }
            Kernels::Built | Kernels::Listed | Kernels::Installed => {
                let mut targets = Vec::new();
                for id in ids.iter().filter(|id| self.names_module(id)) {
                    let wanted = |target: &Target| {
                        which != Kernels::Installed || tree.state(id, target) == State::Installed
                    };
                    targets.extend(tree.targets(id).into_iter().filter(wanted));
                    if which == Kernels::Listed {
                        targets.extend(tree.weak_links(id).into_iter().map(|(target, _)| target));
                    }
                }
                targets
            }
        };
        targets.sort_by(|a, b| {
            compare_versions(a.kernel.as_str(), b.kernel.as_str()).then_with(|| a.arch.cmp(&b.arch))
        });
        targets.dedup();
        Ok(targets)
    }
}

fn bare(word: String) -> Candidate {
    Candidate { word, meaning: String::new() }
}
