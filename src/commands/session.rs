// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every verb needs at hand: options, trees, settings, the printer.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

use super::record::Recorder;
use crate::build::jobs;
use crate::build::sign::{Custom, Setting};
use crate::cli::{Options, TargetArgs};
use crate::conf::framework::Framework;
use crate::conf::policy::Policy;
use crate::failure::Failure;
use crate::gate::Gate;
use crate::install::distribution::Distribution;
use crate::install::finish_interrupted;
use crate::kernel::{KernelConfig, KernelRelease};
use crate::module::{Arch, ModuleId, Target};
use crate::store::remote::Remotes;
use crate::sys::report::Report;
use crate::sys::root::Root;
use crate::sys::{files, lock};
use crate::tree::Tree;
use crate::tree::registered::{self, Loaded, Scope};

/// What a compiler of C may need for a large file with debug information, in MiB.
const MEMORY_OF_A_JOB: u32 = 512;

/// One invocation.
#[derive(Debug)]
pub struct Session {
    pub options: Options,
    pub tree: Tree,
    pub framework: Framework,
    pub distribution: Distribution,
    pub report: Report,
    /// How we were called, and what we have done so far.
    pub recorder: Recorder,
    os_release_is_there: bool,
    /// The module that the command line names, which is the one that `-c` is for.
    asked: OnceLock<ModuleId>,
    /// The same for the whole run, whatever is written meanwhile.
    policy: OnceLock<Policy>,
    scope: OnceLock<Scope>,
    remotes: OnceLock<Remotes>,
}

impl Session {
    /// Reads the framework's configuration; options go before it. `regardless` goes on with the
    /// defaults where it cannot be read.
    pub fn open(root: Root, mut options: Options, regardless: bool, recorder: Recorder) -> Result<Self> {
        let framework = match registered::framework(&root) {
            Err(error) if regardless => {
                let report = Report::new(options.quiet, options.verbose);
                report.warning(format_args!("going on with the defaults: {error:#}"));
                Framework::default()
            }
            framework => framework?,
        };
        let report = Report::new(options.quiet, options.verbose || framework.verbose);
        framework.warnings.iter().for_each(|warning| report.warning(warning));
        // Programs run in other directories, and a later run finds a journal from another one.
        let whole = |path: &PathBuf| std::path::absolute(path).context("reading the options");
        let place = |option: &Option<PathBuf>, setting: &str| {
            option.as_ref().map_or_else(|| Ok(root.path(Path::new(setting))), whole)
        };
        options.kernel_source_dir = options.kernel_source_dir.as_ref().map(whole).transpose()?;
        options.kernel_config = options.kernel_config.as_ref().map(whole).transpose()?;
        let tree = Tree {
            dkms: place(&options.dkms_tree, &framework.dkms_tree)?,
            source: place(&options.source_tree, &framework.source_tree)?,
            install: place(&options.install_tree, &framework.install_tree)?,
            arch: machine()?,
            root,
        };
        let mut os_release = None;
        for path in ["/etc/os-release", "/usr/lib/os-release"] {
            if os_release.is_none() {
                os_release = files::read_if_there(&tree.path(path))?;
            }
        }
        Ok(Self {
            distribution: Distribution::from_os_release(os_release.as_deref().unwrap_or_default()),
            os_release_is_there: os_release.is_some(),
            options,
            tree,
            framework,
            report,
            recorder,
            asked: OnceLock::new(),
            policy: OnceLock::new(),
            scope: OnceLock::new(),
            remotes: OnceLock::new(),
        })
    }

    /// Remembers which module the command line asks for.
    pub fn asks_for(&self, id: &ModuleId) {
        self.asked.get_or_init(|| id.clone());
    }

    /// To be called before anything is changed: checks that we may, and finishes what an
    /// interrupted run left.
    pub fn begin_changes(&self) -> Result<()> {
        for (name, value) in &self.options.directives {
            self.report.line(format_args!("DIRECTIVE: {name}=\"{value}\""));
        }
        self.framework.about_compressors.iter().for_each(|warning| self.report.warning(warning));
        if !nix::unistd::geteuid().is_root() {
            return Err(Failure::NotRoot.into());
        }
        if !self.os_release_is_there {
            return Err(Failure::NoOsRelease.into());
        }
        if !self.tree.path("/dev/null").exists() {
            bail!("there is no /dev/null here, which every build needs; mount /dev in the image (or chroot)");
        }
        let unwritable = || Failure::TreeNotWritable { tree: self.tree.dkms.display().to_string() };
        fs_err::create_dir_all(&self.tree.dkms).map_err(|_| unwritable())?;
        nix::unistd::access(&self.tree.dkms, nix::unistd::AccessFlags::W_OK).map_err(|_| unwritable())?;
        // One that cannot be read is told of where it decides.
        if let Some(limit) = self.policy().ok().and_then(|policy| policy.lock_timeout) {
            lock::wait_at_most(limit);
        }
        finish_interrupted(&self.tree, &self.report)
    }

    /// The policy of this machine; an unreadable one is an error, because it may name what the
    /// machine needs to boot.
    pub fn policy(&self) -> Result<Policy> {
        if let Some(policy) = self.policy.get() {
            return Ok(policy.clone());
        }
        let policy = registered::policy(&self.tree.root)?;
        Ok(self.policy.get_or_init(|| policy).clone())
    }

    /// The shared stores: the same for all kernels, so that one that cannot be reached is waited for
    /// once.
    pub fn remotes(&self, policy: &Policy) -> &Remotes {
        self.remotes.get_or_init(|| Remotes::new(policy))
    }

    /// Whether a shared store may have what cannot be compiled here.
    pub fn can_ask_remotes(&self) -> Result<bool> {
        let policy = self.policy()?;
        Ok(self.remotes(&policy).can_be_asked(&self.tree.root, &self.report))
    }

    /// The gate under a policy.
    pub fn gate<'a>(&'a self, policy: &'a Policy) -> Gate<'a> {
        Gate { tree: &self.tree, policy, report: &self.report }
    }

    /// What signing for a kernel is decided by.
    pub fn signing<'a>(&'a self, kernel: &'a KernelRelease) -> Setting<'a> {
        let custom = match self.distribution {
            Distribution::Debian => Custom::Debian,
            Distribution::Ubuntu => Custom::Ubuntu,
            _ => Custom::Other,
        };
        Setting { tree: &self.tree, framework: &self.framework, custom, kernel }
    }

    /// `-j`, else the framework's `parallel_jobs`, else the policy's.
    pub fn jobs_wish(&self, policy: &Policy) -> Option<u32> {
        self.options.jobs.or(self.framework.parallel_jobs).or(policy.jobs.map(u32::from))
    }

    /// As many as there are processors and memory for.
    pub fn usual_jobs(&self) -> usize {
        // A policy that cannot be read is told of where it decides.
        let memory = self.policy().ok().and_then(|policy| policy.memory).unwrap_or(MEMORY_OF_A_JOB);
        jobs::suitable(u64::from(memory) << 20)
    }

    /// What is in scope for confs; the same for all, and the number of processors takes a dozen
    /// system calls to find out.
    pub fn scope(&self) -> &Scope {
        self.scope.get_or_init(|| self.new_scope())
    }

    fn new_scope(&self) -> Scope {
        let jobs = match self.options.jobs.or(self.framework.parallel_jobs) {
            Some(0) => String::new(),
            Some(jobs) => jobs.to_string(),
            None => self.usual_jobs().to_string(),
        };
        Scope {
            directives: self.options.directives.clone(),
            conf: self.options.conf.clone(),
            kernel_source_dir: self.options.kernel_source_dir.clone(),
            kernel_config: self.options.kernel_config.clone(),
            parallel_jobs: jobs,
            tmp_location: self.framework.tmp_location.clone(),
            build_environment: self.framework.build_environment.clone(),
            verbose: self.report.is_verbose(),
        }
    }

    /// Reads a registered module's configuration for a target.
    pub fn load(&self, id: &ModuleId, target: Option<&Target>) -> Result<Loaded> {
        self.tree.load(id, target, &self.scope_of(id))
    }

    /// The digest of what the administrator says of a module's build.
    pub fn settings(&self, id: &ModuleId, target: &Target) -> Result<String> {
        self.tree.settings(id, target, &self.scope_of(id))
    }

    /// What is in scope for one module's conf: `-c` is for the one that was asked for.
    fn scope_of(&self, id: &ModuleId) -> Cow<'_, Scope> {
        let scope = self.scope();
        if scope.conf.is_none() || self.asked.get() == Some(id) {
            return Cow::Borrowed(scope);
        }
        Cow::Owned(Scope { conf: None, ..scope.clone() })
    }

    /// The configuration of a kernel that is built for: `--config` and `--kernelsourcedir` go before
    /// what the system has.
    pub fn kernel_config(&self, kernel: &KernelRelease) -> Result<KernelConfig> {
        let (given, config) =
            (self.options.kernel_source_dir.as_deref(), self.options.kernel_config.as_deref());
        if (given.is_some() || config.is_some())
            && let Some(build_dir) = self.tree.kernel_build_dir(kernel, given, config)?
        {
            return Ok(build_dir.config);
        }
        self.tree.kernel_config(kernel)
    }

    /// The kernel that stands in for one that was not named: the running one, or for a replay the one
    /// that was running then.
    pub fn running_kernel(&self) -> Result<KernelRelease> {
        self.recorder.call.running_kernel.clone().map_or_else(|| self.tree.running_kernel(), Ok)
    }

    /// A variable of the environment that we were called with, or that a replayed run was.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.recorder.call.variable(name)
    }

    /// Whether a person calls in a package manager's stead: nobody comes after us.
    pub fn is_by_hand(&self) -> bool {
        self.recorder.call.by_hand
    }

    /// Pairs `-k` and `-a`; the running kernel and this machine's architecture stand in for what
    /// was not given.
    pub fn targets(&self, args: &TargetArgs) -> Result<Vec<Target>> {
        let kernels = match args.kernels.as_slice() {
            [] => vec![self.running_kernel()?],
            given => given.to_vec(),
        };
        let arch = |at: usize| match args.arches.as_slice() {
            [] => self.tree.arch.clone(),
            [one] => one.clone(),
            several => several.get(at).unwrap_or(&self.tree.arch).clone(),
        };
        Ok(kernels.into_iter().enumerate().map(|(at, kernel)| Target { kernel, arch: arch(at) }).collect())
    }

    /// The first target; the command line has made sure that there is no second.
    pub fn one_target(&self, args: &TargetArgs) -> Result<Target> {
        self.targets(args)?.into_iter().next().context("finding the kernel to work for")
    }

    /// The variables that dkms exports to commands and scripts.
    pub fn environment(&self, id: &ModuleId, target: Option<&Target>) -> Vec<(String, String)> {
        let variables = self.tree.variables(Some(id), target, self.scope());
        ["arch", "kernelver", "kernel_source_dir", "module", "module_version"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), variables.scalar(name)?.to_owned())))
            .collect()
    }
}

/// The machine's architecture as uname(2) tells it, which is what dkms's trees are named by.
fn machine() -> Result<Arch> {
    let names = nix::sys::utsname::uname().context("asking for the machine's architecture")?;
    Ok(Arch::new(&names.machine().to_string_lossy())?)
}
