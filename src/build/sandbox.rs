// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a module's own build system may do to the machine: nothing but write to its build directory and
//! to what is kept of the module for the kernel. Decides what is lent to it and takes it back; how a
//! program is confined is known in `sys::confine`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use fs_err as fs;

use super::Build;
use super::launcher::Launcher;
use super::log::MakeLog;
use crate::conf::policy;
use crate::failure::Failure;
use crate::sys::confine::{Confinement, why_no_other_user};
use crate::sys::files;
use crate::sys::lock::Lock;
use crate::sys::tools::{Run, Tool};

/// The room that the steps of one build have. What was lent to them is root's again when it is dropped.
#[derive(Debug)]
pub(super) struct Sandbox {
    confined: Option<Confined>,
    launcher: Option<Launcher>,
    /// By which name the policy speaks of the module.
    module: String,
}

#[derive(Debug)]
struct Confined {
    confinement: Confinement,
    /// The user is of this build alone.
    _user: Lock,
}

/// What of a sandbox this process can make. It is the same for every build.
struct Obstacles {
    user: Option<String>,
    namespaces: Option<String>,
}

static OBSTACLES: OnceLock<Obstacles> = OnceLock::new();
static SAID: AtomicBool = AtomicBool::new(false);

/// What programs say that were kept from something (strerror(3), gai_strerror(3)).
const KEPT_FROM: [&str; 7] = [
    "Read-only file system",
    "Permission denied",
    "Operation not permitted",
    "Network is unreachable",
    "Could not resolve host",
    "Temporary failure in name resolution",
    "unable to resolve host",
];

impl Sandbox {
    /// Lends the build directory, as far as the policy wants that and the system lets us.
    pub(super) fn open(build: &Build<'_>, build_dir: &Path) -> Result<Self> {
        let module = build.id.name().to_owned();
        let launcher = Launcher::of(build);
        if build.sandbox == policy::Sandbox::Off {
            return Ok(Self { confined: None, launcher, module });
        }
        let (user, lock) = build.tree.borrow_user()?;
        let scratch = build.tree.hooks_dir().join("sandbox").join(user.to_string());
        files::remove(&scratch)?;
        fs::create_dir_all(&scratch)?;
        files::give(&scratch, user)?;
        let mut confinement = confinement(build, build_dir, user, scratch)?;
        let obstacles = OBSTACLES.get_or_init(|| Obstacles {
            user: why_no_other_user(user),
            namespaces: confinement.why_no_namespaces(),
        });
        confinement.has_namespaces = obstacles.namespaces.is_none();
        if let Some(why) = obstacles.user.as_ref().or(obstacles.namespaces.as_ref()) {
            if build.sandbox == policy::Sandbox::Require {
                return Err(Failure::NoSandbox { why: why.clone(), module }.into());
            }
            if !SAID.swap(true, Ordering::Relaxed) {
                let how =
                    if obstacles.user.is_some() { "without a sandbox" } else { "with less of a sandbox" };
                build.report.warning(format_args!(
                    "Modules are built {how} here: {why}.\n\
                     sandbox = \"off\" in [build] of /etc/dkms/policy.toml says that this is all right."
                ));
            }
        }
        if obstacles.user.is_some() {
            return Ok(Self { confined: None, launcher, module });
        }
        if let Some(launcher) = &launcher {
            confinement.writable.push(launcher.cache().to_owned());
            confinement.has_network = launcher.needs_network();
        }
        let confined = Confined { confinement, _user: lock };
        confined.confinement.writable.iter().try_for_each(|directory| files::give(directory, user))?;
        Ok(Self { confined: Some(confined), launcher, module })
    }

    /// A program that works in the sandbox.
    pub(super) fn run(&self, tool: Tool) -> Result<Run> {
        let run = match &self.confined {
            Some(confined) => Run::confined(tool, &confined.confinement),
            None => Run::new(tool),
        };
        let run = run?;
        Ok(match &self.launcher {
            Some(launcher) => launcher.before(run),
            None => run,
        })
    }

    /// Lends a further directory, without what is in it.
    pub(super) fn lend(&mut self, directory: &Path) -> Result<()> {
        if let Some(confined) = &mut self.confined {
            files::give_alone(directory, confined.confinement.user)?;
            confined.confinement.writable.push(directory.to_owned());
        }
        Ok(())
    }

    /// Whether a file that the build made is one: not a link by which we would read what the build
    /// itself may not.
    pub(super) fn may_be_read(&self, path: &Path) -> bool {
        let Some(confined) = &self.confined else { return true };
        let Ok(path) = fs::canonicalize(path) else { return true };
        let inside = |directory: &PathBuf| fs::canonicalize(directory).is_ok_and(|it| path.starts_with(it));
        confined.confinement.writable.iter().any(inside)
    }

    /// What to do if the last step failed for what it was kept from.
    pub(super) fn remedy(&self, log: &MakeLog) -> Option<String> {
        self.confined.as_ref()?;
        let said = log.last_step()?;
        let was_kept = said.lines().any(|line| KEPT_FROM.iter().any(|what| line.contains(what)));
        was_kept.then(|| policy_line(&self.module))
    }
}

/// What a build is kept to: it may see everything, also what is where it gets a place of its own.
fn confinement(build: &Build<'_>, build_dir: &Path, user: u32, scratch: PathBuf) -> Result<Confinement> {
    let tree = build.tree;
    let mut visible = vec![tree.dkms.clone(), tree.source.clone(), tree.install.clone()];
    visible.push(fs::canonicalize(tree.source_link(build.id))?);
    // A link's place is to be seen as well as what it names.
    visible.push(build.kernel.path.clone());
    visible.push(fs::canonicalize(&build.kernel.path)?);
    visible.retain(|path| path.is_dir());
    let writable = vec![build_dir.to_owned()];
    Ok(Confinement { user, writable, visible, scratch, has_namespaces: true, has_network: false })
}

/// How one module is built without a sandbox.
fn policy_line(module: &str) -> String {
    // Every name of a module is a quoted key (TOML 1.0, "Keys").
    format!(
        "A build may write to its own directory only, and has no network. If this one needs more, put\n\
         [module.\"{module}\"]\nsandbox = \"off\"\n\
         into /etc/dkms/policy.d/{module}.toml and build it again."
    )
}

impl Drop for Confined {
    fn drop(&mut self) {
        // Whatever stays behind is nobody's: no process has that user any more.
        for directory in &self.confinement.writable {
            if directory.is_dir() {
                let _ = files::give(directory, 0);
            }
        }
        let _ = files::remove(&self.confinement.scratch);
    }
}
