// SPDX-License-Identifier: MIT OR Apache-2.0
//! One module of a run, built or taken from a store; and what a shared store is to have of it.

use anyhow::Result;

use super::super::attempts;
use super::super::items::{Item, Redo, cross_build, headers_missing};
use super::{Engine, USUAL_LIMIT};
use crate::build::{Build, Taken};
use crate::failure::Failure;
use crate::module::State;
use crate::sys::report::Report;

impl Engine<'_> {
    pub(super) fn build(&self, item: &Item, report: &Report) -> Result<()> {
        let (session, target, id) = (self.session, self.target, &item.id);
        let tree = &session.tree;
        if item.loaded.conf.is_excluded(target, &session.kernel_config(&target.kernel)?) {
            let conf = tree.target_dir(id, target).join("dkms.conf").display().to_string();
            return Err(Failure::Excluded { conf, id: id.clone() }.into());
        }
        let _lock = tree.lock_module(id, report)?;
        // Whoever held the lock may have done it for us.
        let anew = session.options.force || item.redo == Redo::Build;
        if !anew && tree.state(id, target) != State::Added {
            return Ok(());
        }
        if self.has_headers {
            let built = self.with_build(item, report, |build| build.run())?;
            return built.inspect_err(|error| attempts::keep_log(session, target, id, error, report));
        }
        match self.with_build(item, report, |build| build.take_shared())?? {
            Taken::Kept => Ok(()),
            Taken::No(refused) => Err(headers_missing(session, target, &refused).into()),
        }
    }

    /// Hands over what there is to know of an item's build; fails if there is nothing to build for.
    fn with_build<T>(&self, item: &Item, report: &Report, work: impl FnOnce(&Build<'_>) -> T) -> Result<T> {
        let (session, target, id) = (self.session, self.target, &item.id);
        let Some((kernel, symbols)) = &self.kernel else {
            return Err(headers_missing(session, target, &[]).into());
        };
        let cross = if self.has_headers { cross_build(session, item, target, kernel)? } else { None };
        Ok(work(&Build {
            tree: &session.tree,
            jobs: &self.jobs,
            report,
            limit: Some(self.policy.timeout.unwrap_or(USUAL_LIMIT)),
            launcher: self.policy.launcher,
            sandbox: self.policy.sandbox(item.loaded.conf.names()),
            id,
            target,
            loaded: &item.loaded,
            excluded: &item.excluded,
            kernel,
            symbols,
            signer: self.signer.as_ref(),
            compressors: &session.framework.compressors,
            built_against: &self.built_against(item),
            cross: cross.as_ref(),
            variables: &session.environment(id, Some(target)),
            store: &self.store,
            remotes: self.remotes,
            settings: &session.settings(id, target)?,
            has_headers: self.has_headers,
            anew: session.options.force,
        }))
    }

    /// What a shared store is to have of an item that is built: a name and an archive.
    pub(in crate::commands) fn artefact(&self, item: &Item) -> Result<Option<(String, Vec<u8>)>> {
        if !self.has_headers {
            return Err(headers_missing(self.session, self.target, &[]).into());
        }
        let _lock = self.session.tree.lock_module(&item.id, &self.session.report)?;
        self.with_build(item, &self.session.report, |build| build.artefact())?
    }

    /// The installed versions of the dependencies that a new version of asks for a rebuild.
    fn built_against(&self, item: &Item) -> Vec<(String, String)> {
        let conf = &item.loaded.conf;
        let names = conf.build_depends.iter().filter(|_| conf.build_depends_rebuild);
        names
            .filter_map(|name| {
                let active = self.session.tree.active(name, self.target)?;
                Some((name.clone(), active.version().to_owned()))
            })
            .collect()
    }
}
