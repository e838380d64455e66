// SPDX-License-Identifier: MIT OR Apache-2.0
//! `push`: what was built here goes, signed, into a store that other machines share.

use anyhow::{Context, Result, bail};

use super::engine::Engine;
use super::items::{Goal, Item, Kind, Redo};
use super::select::registered;
use super::session::Session;
use crate::cli::{ModuleArg, TargetArgs};
use crate::conf::policy::Policy;
use crate::conf::remotes::Location;
use crate::module::{ModuleId, State, Target};
use crate::store::remote;
use crate::store::signature::{self, SigningKey, TRUSTED};

/// The verb `push`; the result is the exit code.
pub(super) fn push(
    session: &Session,
    module: Option<&ModuleArg>,
    targets: &TargetArgs,
    to: Option<&Location>,
) -> Result<u8> {
    session.begin_changes()?;
    let policy = session.policy()?;
    let to = to.or_else(|| policy.remotes.first());
    let to = to.context(
        "there is no shared store to push to; name one with --to, or in [store] remotes of the policy",
    )?;
    let key = SigningKey::read(&session.tree.root)?;
    let ids = match module {
        Some(module) => vec![registered(session, module, "push")?],
        None => session.tree.ids()?,
    };
    let built = built(session, &ids, targets);
    if built.is_empty() {
        match ids.as_slice() {
            [id] if module.is_some() => {
                bail!("nothing is built of {id} to be pushed; build it first: dkms build {id}")
            }
            _ => bail!("nothing is built here to be pushed; build it first: dkms autoinstall"),
        }
    }
    let mut failed = None;
    for (id, target) in built {
        session.report.out(format!("Pushing {id} for {target} to {to}..."));
        match one(session, &policy, &key, (&id, &target), to) {
            Ok(()) => session.report.out(" done.\n"),
            Err(error) => {
                session.report.line("");
                let code = super::report_error(&session.report, &error);
                failed.get_or_insert(code);
            }
        }
    }
    Ok(failed.unwrap_or(0))
}

/// What is built of these modules for the kernels that were named, or for all.
fn built(session: &Session, ids: &[ModuleId], targets: &TargetArgs) -> Vec<(ModuleId, Target)> {
    let tree = &session.tree;
    let mut found = Vec::new();
    for id in ids.iter().filter(|id| !tree.is_broken(id)) {
        let targets = tree.targets(id).into_iter().filter(|target| targets.includes(target));
        let is_built = |target: &Target| matches!(tree.state(id, target), State::Built | State::Installed);
        found.extend(targets.filter(is_built).map(|target| (id.clone(), target)));
    }
    found
}

fn one(
    session: &Session,
    policy: &Policy,
    key: &SigningKey,
    (id, target): (&ModuleId, &Target),
    to: &Location,
) -> Result<()> {
    let loaded = session.load(id, Some(target))?;
    let excluded = loaded.conf.excluded_records(target, &session.kernel_config(&target.kernel)?);
    let item = Item {
        id: id.clone(),
        loaded,
        excluded,
        after: Vec::new(),
        goal: Goal::Built,
        redo: Redo::No,
        kind: Kind::Asked,
        doomed: None,
    };
    let items = [item];
    let artefact = Engine::new(session, target, &items, policy)?.artefact(&items[0])?;
    let Some((name, archive)) = artefact else {
        bail!(
            "what is kept of {id} for {target} is not in this machine's store, or would be built otherwise now \
             (dkms doctor says why); build it anew: dkms build --force {id} -k {}/{}\nModules with scripts around \
             their build are stored only if the policy says so: [module.{}] store = true.",
            target.kernel,
            target.arch,
            id.name()
        );
    };
    let signature = key.sign(&archive, &format!("{id} for {target}"))?;
    remote::push(&session.tree.root, to, &name, &archive, &signature)
}

/// `push --generate-key`: keys that are there are never overwritten.
pub(super) fn generate_key(session: &Session) -> Result<()> {
    session.begin_changes()?;
    let (secret, public) = signature::generate(&session.tree.root)?;
    session.report.line(format_args!(
        "The key to sign with is {}; keep it to yourself.\nMachines that are to install what it signs need {} \
         in {TRUSTED}.",
        secret.display(),
        public.display()
    ));
    Ok(())
}
