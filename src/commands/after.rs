// SPDX-License-Identifier: MIT OR Apache-2.0
//! Those who come after us while a kernel is installed: they make its initramfs and its boot entry.
//! Where a person calls us in the package manager's stead nobody calls them but us.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::record;
use super::revise::look_again;
use super::session::Session;
use crate::gate::verdict::{Standing, Verdict};
use crate::gate::{Outcome, loader};
use crate::initramfs;
use crate::kernel::KernelRelease;
use crate::sys::tools::{Output, Run, Tool};

/// Set for those that we call: of what they call in turn our own part has been done.
pub const BY_HAND: &str = "DKMS_REPLAYS";

/// Those who are to be called for a kernel.
#[derive(Debug)]
pub struct After {
    kernel: KernelRelease,
    tool: Tool,
    args: Vec<OsString>,
    /// What the package's script would have passed on to them.
    parameters: Option<String>,
    /// Whether they expect an initramfs that is there already.
    needs_initramfs: bool,
}

impl After {
    /// Debian's further hooks for a kernel that has been installed; nothing where there are none. The
    /// tool of linux-base knows of more directories than run-parts is told of (linux-run-hooks).
    pub fn kernel_hooks(session: &Session, kernel: &KernelRelease, image: Option<&str>) -> Option<Self> {
        let tree = &session.tree;
        let directory = tree.path("/etc/kernel/postinst.d");
        let image = image.map_or_else(|| tree.path(format!("/boot/vmlinuz-{kernel}")), PathBuf::from);
        let told = session.variable("DEB_MAINT_PARAMS").map(str::to_owned);
        let (tool, args, parameters) = if Tool::LinuxRunHooks.find().is_some() {
            let words = told.as_deref().and_then(|told| shell_words::split(told).ok());
            let words = words.unwrap_or_else(|| vec!["configure".to_owned()]);
            let mut args = ["image", "postinst", kernel.as_str()].map(OsString::from).to_vec();
            args.extend([image.into(), "--".into()]);
            args.extend(words.into_iter().map(OsString::from));
            (Tool::LinuxRunHooks, args, None)
        } else {
            Tool::RunParts.find()?;
            let mut args = ["--report", "--exit-on-error"].map(OsString::from).to_vec();
            args.push(format!("--arg={kernel}").into());
            let mut word = OsString::from("--arg=");
            word.push(image);
            args.extend([word, directory.clone().into()]);
            (Tool::RunParts, args, Some(told.unwrap_or_else(|| "configure".to_owned())))
        };
        let kernel = kernel.clone();
        directory.is_dir().then_some(Self { kernel, tool, args, parameters, needs_initramfs: false })
    }

    /// kernel-install with all its plugins; nothing where it, or the kernel's image, is not there.
    pub fn kernel_install(
        session: &Session,
        kernel: &KernelRelease,
        image: Option<&Path>,
        initrds: &[PathBuf],
    ) -> Option<Self> {
        Tool::KernelInstall.find()?;
        let tree = &session.tree;
        let image = image.filter(|image| image.is_file()).map(Path::to_owned);
        let image = image.or_else(|| loader::kernel_image(tree, kernel))?;
        let staged = session.variable("KERNEL_INSTALL_STAGING_AREA").map(|area| tree.path(area));
        let is_given =
            |path: &&PathBuf| path.is_file() && !staged.as_ref().is_some_and(|area| path.starts_with(area));
        let mut given: Vec<PathBuf> = initrds.iter().filter(is_given).cloned().collect();
        let usual = tree.path(format!("/boot/initrd.img-{kernel}"));
        if given.is_empty() && usual.is_file() {
            given.push(usual);
        }
        let mut args: Vec<OsString> = vec!["add".into(), kernel.as_str().into(), image.into()];
        let needs_initramfs = !given.is_empty();
        args.extend(given.into_iter().map(OsString::from));
        let (kernel, tool, parameters) = (kernel.clone(), Tool::KernelInstall, None);
        Some(Self { kernel, tool, args, parameters, needs_initramfs })
    }

    /// The command as one can paste it into a shell.
    pub fn pasteable(&self) -> String {
        let words = self.args.iter().map(|word| word.to_string_lossy().into_owned());
        shell_words::join(std::iter::once(self.tool.name().to_owned()).chain(words))
    }

    /// Calls them, after making the initramfs if they only take one. No lock may be held. Returns
    /// whether the kernel may boot now.
    pub fn call(self, session: &Session) -> Result<bool> {
        let (tree, report) = (&session.tree, &session.report);
        let policy = session.policy()?;
        let before = Verdict::load(tree, &self.kernel)?.map(|verdict| verdict.standing);
        if self.needs_initramfs && initramfs::generator(policy.generator).is_some() {
            initramfs::remake(tree, &self.kernel, policy.generator, report)?;
        }
        report.line(format_args!("Calling those who come after dkms: {}", self.pasteable()));
        let mut run = Run::new(self.tool)?.args(&self.args).env(BY_HAND, "1");
        if let Some(parameters) = &self.parameters {
            run = run.env("DEB_MAINT_PARAMS", parameters);
        }
        let ended = run.end(Output::Shown)?;
        if !ended.success() {
            bail!("{} ended with exit code {}", self.pasteable(), ended.code());
        }
        let gate = session.gate(&policy);
        let may_boot = gate.may_boot(&self.kernel);
        if let Some(verdict) = Verdict::load(tree, &self.kernel)? {
            // What is held our part of their work has told of.
            if !may_boot && verdict.standing == Standing::Pending {
                gate.announce(&verdict);
            }
            record::judged(session, &Outcome { verdict, before });
        }
        Ok(may_boot)
    }
}

/// Makes a kernel's initramfs where a hook of the generator's own does that after us, and tells the
/// boot loader what has become of the kernel. Returns whether it may boot now.
pub fn make_image(session: &Session, kernel: &KernelRelease) -> Result<bool> {
    let policy = session.policy()?;
    if initramfs::generator(policy.generator).is_some() {
        initramfs::remake(&session.tree, kernel, policy.generator, &session.report)?;
    }
    look_again(session, kernel, false)?;
    Ok(session.gate(&policy).may_boot(kernel))
}

/// Whether a replay has called those who call us now, so that our own part has been done.
pub fn is_done_already() -> bool {
    std::env::var_os(BY_HAND).is_some()
}
