// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looks at kernels: which are gone while something of them is still kept, and which may not boot.
//! Changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::super::session::Session;
use super::repair::Repair;
use super::{Finding, Kind, typed};
use crate::gate::verdict::Verdict;
use crate::install::is_index;
use crate::kernel::KernelRelease;
use crate::module::{ModuleId, Target};
use crate::sys::files;
use crate::tree::Tree;

/// A kernel that is gone, and what is kept for it.
pub(super) struct Gone {
    pub kernel: KernelRelease,
    targets: Vec<Target>,
    modules: Vec<ModuleId>,
}

/// The kernels that are gone and that something is kept for.
pub(super) fn gone(session: &Session) -> Result<Vec<Gone>> {
    let tree = &session.tree;
    let mut kept = Vec::new();
    for id in tree.ids()? {
        kept.extend(tree.targets(&id).into_iter().map(|target| (target, Some(id.clone()))));
    }
    kept.extend(tree.all_retained().into_iter().map(|kept| (kept.target, Some(kept.id))));
    for Verdict { kernel, .. } in Verdict::all(tree).unwrap_or_default() {
        kept.push((Target { kernel, arch: tree.arch.clone() }, None));
    }
    let mut found: BTreeMap<KernelRelease, Option<Gone>> = BTreeMap::new();
    for (target, id) in kept {
        let kernel = target.kernel.clone();
        let gone = found.entry(kernel.clone()).or_insert_with(|| {
            is_gone(session, &kernel).then_some(Gone { kernel, targets: Vec::new(), modules: Vec::new() })
        });
        let Some(gone) = gone else { continue };
        if !gone.targets.contains(&target) {
            gone.targets.push(target);
        }
        gone.modules.extend(id.filter(|id| !gone.modules.contains(id)));
    }
    Ok(found.into_values().flatten().collect())
}

/// Whether nothing is left of a kernel but what modules of ours leave. One with an image, or with
/// headers, may be about to come.
fn is_gone(session: &Session, kernel: &KernelRelease) -> bool {
    let tree = &session.tree;
    !has_image(tree, kernel) && !holds_more_than_ours(session, &tree.kernel_dir(kernel))
}

fn has_image(tree: &Tree, kernel: &KernelRelease) -> bool {
    let names = ["vmlinuz", "vmlinux", "kernel", "Image"];
    if names.iter().any(|name| files::exists(&tree.path(format!("/boot/{name}-{kernel}")))) {
        return true;
    }
    // <boot>/<machine or entry token>/K/linux, by the Boot Loader Specification.
    ["/boot", "/efi", "/boot/efi"].iter().any(|boot| {
        let boot = tree.path(boot);
        files::names(&boot).unwrap_or_default().iter().any(|token| boot.join(token).join(kernel).is_dir())
    })
}

/// Whether a kernel's directory holds anything but modules where ours go, indexes of depmod's, links
/// to nowhere and empty directories.
fn holds_more_than_ours(session: &Session, kernel_dir: &Path) -> bool {
    let ours = session.distribution.destinations();
    // A kernel has its own modules in `kernel`, whoever else puts some there.
    let is_ours = |path: &Path| {
        path.starts_with("weak-updates")
            || ours.iter().any(|own| own != Path::new("kernel") && path.starts_with(own))
    };
    let inside = |path: &Path| path.strip_prefix(kernel_dir).unwrap_or(path).to_owned();
    let counts = |path: &Path| {
        let inside = inside(path);
        let is_index = inside.components().count() == 1 && inside.file_name().is_some_and(is_index);
        !is_index && !is_ours(&inside)
    };
    files::files_below(kernel_dir).iter().any(|path| counts(path))
        || files::links_below(kernel_dir).iter().any(|path| counts(path) && path.exists())
}

pub(super) fn finding(session: &Session, gone: &Gone) -> Finding {
    let tree = &session.tree;
    let Gone { kernel, targets, modules } = gone;
    let directory = tree.kernel_dir(kernel);
    let left = if directory.is_dir() {
        format!("{} holds nothing but what modules of dkms leave", directory.display())
    } else {
        format!("there is no {}", directory.display())
    };
    let names: Vec<String> = modules.iter().map(ToString::to_string).collect();
    let (kept, remedy) = if names.is_empty() {
        let verdict = tree.hooks_dir().join(format!("verdicts/{kernel}.json"));
        ("its verdict".to_owned(), format!("rm {}", verdict.display()))
    } else {
        let call = |target| format!("dkms kernel_prerm -k {}", typed(tree, target));
        (names.join(", "), targets.iter().map(call).collect::<Vec<_>>().join(" && "))
    };
    // An install tree without any kernel is more likely not there than empty.
    let is_sure = tree.installed_kernels().is_ok_and(|kernels| !kernels.is_empty());
    Finding {
        kind: Kind::KernelGone,
        what: format!("Kernel {kernel} is gone ({left}), and dkms still keeps for it: {kept}"),
        why: "Nobody can boot it. What is kept takes room, and status tells of it.".to_owned(),
        remedy,
        place: directory,
        repair: is_sure.then(|| Repair::ForgetKernel(targets.clone())),
    }
}

/// Kernels that are held or pending, for `dkms gate` to explain.
pub(super) fn not_proven(session: &Session, gone: &[Gone], found: &mut Vec<Finding>) {
    let tree = &session.tree;
    let directory = tree.hooks_dir().join("verdicts");
    let verdicts = match Verdict::all(tree) {
        Ok(verdicts) => verdicts,
        Err(error) => {
            found.push(Finding {
                kind: Kind::NotProven,
                place: directory,
                what: format!("What is known of kernels cannot be read: {error:#}"),
                why: "Nobody can tell which of them may boot.".to_owned(),
                remedy: "remove that file, then: dkms autoinstall -k KERNEL".to_owned(),
                repair: None,
            });
            return;
        }
    };
    for Verdict { kernel, standing, .. } in verdicts {
        if standing.may_boot() || gone.iter().any(|gone| gone.kernel == kernel) {
            continue;
        }
        found.push(Finding {
            kind: Kind::NotProven,
            place: directory.join(format!("{kernel}.json")),
            what: format!("Kernel {kernel} is {standing}"),
            why: "It does not boot by default until it is seen to have what this machine needs.".to_owned(),
            remedy: "dkms gate (it tells what is missing, and what to do)".to_owned(),
            repair: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Options;
    use crate::commands::call::Call;
    use crate::commands::record::Recorder;
    use crate::sys::root::Root;
    use fs_err as fs;
    use rstest::rstest;

    #[rstest]
    #[case::nothing(&[], &[], true)]
    #[case::ours(&["lib/modules/6.1/updates/dkms/foo.ko", "lib/modules/6.1/modules.dep"], &[], true)]
    #[case::empty(&["lib/modules/6.1/kernel/"], &[], true)]
    #[case::headers_that_went(&[], &[("lib/modules/6.1/build", "/nowhere")], true)]
    #[case::headers(&["usr/src/h/Makefile"], &[("lib/modules/6.1/build", "../../../usr/src/h")], false)]
    #[case::modules(&["lib/modules/6.1/kernel/fs/ext4.ko"], &[], false)]
    #[case::package(&["lib/modules/6.1/modules.order"], &[], false)]
    #[case::others_module(&["lib/modules/6.1/extra/foo.ko"], &[], false)]
    #[case::image(&["boot/vmlinuz-6.1"], &[], false)]
    #[case::image_of_an_entry(&["boot/0123/6.1/linux"], &[], false)]
    fn a_kernel_is_gone_when_only_ours_is_left(
        #[case] paths: &[&str],
        #[case] links: &[(&str, &str)],
        #[case] gone: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let at = dir.path().join(path);
            match path.ends_with('/') {
                true => fs::create_dir_all(at).unwrap(),
                false => files::write_atomically(&at, text.as_bytes(), 0o644).unwrap(),
            }
        };
        write("etc/os-release", "ID=debian\n");
        paths.iter().for_each(|path| write(path, ""));
        for (link, target) in links {
            let link = dir.path().join(link);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            fs::os::unix::fs::symlink(target, link).unwrap();
        }
        let recorder = Recorder::new(Call::of_this_process(), &crate::cli::Action::RebootSafe);
        let session = Session::open(Root::at(dir.path()), Options::default(), false, recorder).unwrap();
        assert_eq!(is_gone(&session, &"6.1".parse().unwrap()), gone);
    }
}
