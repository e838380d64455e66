// SPDX-License-Identifier: MIT OR Apache-2.0
//! Turns a module's source into verified files kept in the dkms tree: prepare, patch, make,
//! strip, verify, sign, compress, keep; or takes from the store what was built before. Never writes
//! to the install tree.

mod bare;
mod cause;
pub mod cross;
pub mod jobs;
mod keep;
mod launcher;
pub use keep::STAGING;
pub mod keys;
pub mod log;
mod prepare;
mod sandbox;
pub use prepare::{has_source, script_command};
mod shared;
pub use shared::Taken;
pub mod sign;
mod stored;
pub use stored::made_of;
pub mod symbols;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::conf::compressors::Compressors;
use crate::conf::make;
use crate::conf::policy;
use crate::failure::Failure;
use crate::module::{ModuleId, Target};
use crate::store::Store;
use crate::store::remote::Remotes;
use crate::sys::files;
use crate::sys::report::Report;
use crate::sys::tools::{Ended, Run, Tool};
use crate::tree::Tree;
use crate::tree::kernels::BuildDir;
use crate::tree::registered::Loaded;
use cross::Cross;
use jobs::{Jobs, named_jobs};
use log::MakeLog;
use sandbox::Sandbox;
use sign::Signer;
use symbols::KernelSymbols;

/// One module to build for one kernel. The module's lock must be held.
#[derive(Debug)]
pub struct Build<'a> {
    pub tree: &'a Tree,
    pub jobs: &'a Jobs,
    pub report: &'a Report,
    pub limit: Option<Duration>,
    /// What is to stand before the compilers.
    pub launcher: Option<policy::Launcher>,
    /// Whether its own build system is kept from the rest of the machine.
    pub sandbox: policy::Sandbox,
    pub id: &'a ModuleId,
    pub target: &'a Target,
    pub loaded: &'a Loaded,
    /// Which records BUILD_EXCLUSIVE_* rules out, by position.
    pub excluded: &'a [bool],
    pub kernel: &'a BuildDir,
    pub symbols: &'a KernelSymbols,
    /// Without one modules stay unsigned.
    pub signer: Option<&'a Signer>,
    pub compressors: &'a Compressors,
    /// The installed dependencies whose new versions ask for a rebuild (BUILD_DEPENDS_REBUILD), with
    /// the versions that are built against; kept beside the files as `.dep_NAME`.
    pub built_against: &'a [(String, String)],
    /// How modules for another machine are built; nothing for this one's.
    pub cross: Option<&'a Cross>,
    /// dkms's variables, for commands and scripts.
    pub variables: &'a [(String, String)],
    /// Where builds are stored.
    pub store: &'a Store<'a>,
    /// The stores that are shared with other machines.
    pub remotes: &'a Remotes,
    /// The digest of what the administrator says of the build ([`Tree::settings`]).
    pub settings: &'a str,
    /// Whether there is anything to compile against; without, only shared stores can help.
    pub has_headers: bool,
    /// Whether it is to be compiled whatever is stored (`--force`).
    pub anew: bool,
}

/// A make command in its three forms.
struct Command {
    /// What is run.
    line: String,
    /// As dkms shows it.
    shown: String,
    /// Whether it is a make that shares our jobs.
    ours: bool,
}

/// A file that the build has to make, and what it is called when it is kept.
struct Product {
    path: PathBuf,
    /// The module's own name.
    built: String,
    /// Its file's name without `.ko`.
    name: String,
    strip: bool,
}

impl Build<'_> {
    /// Builds the module, or takes it from a store, and keeps the files. A failure leaves `build/`
    /// with its make.log and whatever was kept of an earlier build.
    pub fn run(&self) -> Result<()> {
        let (key, of) = stored::key(self).unzip();
        let of = of.or_else(|| stored::made_of_now(self));
        if let Some(found) = key.as_ref().filter(|_| !self.anew).and_then(|key| stored::find(self, key)) {
            stored::bring(self, found, None)?;
            stored::note(self, of.as_ref());
            return Ok(());
        }
        if !self.anew && self.take_shared()? == Taken::Kept {
            return Ok(());
        }
        let build_dir = prepare::build_dir(self.tree, self.id)?;
        let mut log = MakeLog::start(&build_dir, self.id, self.target)?;
        let mut sandbox = Sandbox::open(self, &build_dir)?;
        prepare::patch(self, &build_dir, &sandbox, &mut log)?;
        if let Some(script) = &self.loaded.conf.scripts.pre_build {
            self.script("pre_build", script, &sandbox, &mut log)?;
        }
        self.make(&sandbox, &mut log)?;
        let images = keep::results(self, &build_dir, &sandbox, &log)?;
        let kept = keep::keep(self, &build_dir, &images, &[], &log)?;
        if let Some(script) = &self.loaded.conf.scripts.post_build {
            // It may look for the files where they are kept, and what it says belongs to the log.
            let lent = sandbox.lend(&self.tree.target_dir(self.id, self.target));
            if let Err(error) = lent.and_then(|()| self.script("post_build", script, &sandbox, &mut log)) {
                drop(sandbox);
                kept.undo()?;
                keep::tidy(self);
                return Err(error);
            }
            keep::keep_log(self, &log)?;
        }
        drop(sandbox);
        kept.keep()?;
        // Scripts around the build may change what it is made of, each time: then nothing can be compared.
        let of = of.filter(|of| key.is_some() || stored::made_of_now(self).as_ref() == Some(of));
        stored::note(self, of.as_ref());
        files::remove(&build_dir)?;
        stored::put(self, key.as_ref(), images);
        Ok(())
    }

    /// Takes the module from a shared store, and keeps the files.
    pub fn take_shared(&self) -> Result<Taken> {
        shared::take(self)
    }

    /// What a shared store is to have of the build that is kept: a name and an archive. Nothing if it
    /// is not in the local store, or would be built otherwise today.
    pub fn artefact(&self) -> Result<Option<(String, Vec<u8>)>> {
        shared::artefact(self)
    }

    fn command(&self) -> Command {
        let conf = &self.loaded.conf;
        let build_dir = self.tree.build_dir(self.id).display().to_string();
        let kernel_dir = self.kernel.path.display().to_string();
        let command = conf.make_command(&self.target.kernel);
        let cross = self.cross.map(|cross| cross.suffix(command)).unwrap_or_default();
        let line = |switch: &str| {
            let kernel = (&self.target.kernel, kernel_dir.as_str());
            make::command_line(conf, kernel, switch, &build_dir, &cross, self.kernel.clang)
        };
        let variables = &self.loaded.variables;
        let whole = line(&self.jobs.switch());
        let shown = make::expanded(&whole, |name| variables.scalar(name));
        // A make of ours gets no -jN, which would make it leave the jobserver; every other program
        // brings its own parallelism, if any.
        let ours = whole.starts_with("make ");
        Command { line: if ours { line("") } else { whole }, shown, ours }
    }

    fn make(&self, sandbox: &Sandbox, log: &mut MakeLog) -> Result<()> {
        let Command { line, shown, ours } = self.command();
        // One of ours whose conf says -jN leaves the jobserver all the same.
        let permit = self.jobs.take(named_jobs(&line))?;
        let mut run = self.bash(sandbox, &line)?;
        if ours {
            run = run.jobserver(self.jobs.client());
        }
        if self.kernel.clang {
            // To the makes that the conf's command comes to further down.
            run = run.env("LLVM", "1");
        }
        self.begin("Building module(s)", &shown);
        let ended = log.step("Building module(s)", &shown, run)?;
        drop(permit);
        if ended.success() {
            self.report.out(" done.\n");
            return Ok(());
        }
        self.failed(&ended, &shown);
        let remedy = sandbox.remedy(log);
        let (log, first_error) = (log.path().display().to_string(), log.first_error(&ended));
        Err(Failure::BuildFailed { target: self.target.clone(), log, first_error, remedy }.into())
    }

    /// Runs one of the module's scripts in the build directory, its output in make.log.
    fn script(&self, name: &'static str, words: &str, sandbox: &Sandbox, log: &mut MakeLog) -> Result<()> {
        let build_dir = self.tree.build_dir(self.id);
        let Some(command) = prepare::script_command(self.tree, self.id, &build_dir, words) else {
            self.report.line("");
            self.report.warning(format_args!("The {name} script is not executable."));
            return Ok(());
        };
        let permit = self.jobs.take(1)?;
        self.begin(&format!("Running the {name} script"), &command);
        let run = self.bash(sandbox, &command)?;
        let ended = log.step(&format!("Running the {name} script"), &command, run)?;
        drop(permit);
        if ended.success() {
            self.report.out(" done.\n");
            return Ok(());
        }
        self.failed(&ended, &command);
        let remedy = sandbox.remedy(log);
        let (log, first_error) = (log.path().display().to_string(), log.first_error(&ended));
        Err(Failure::Script { name, code: ended.code(), log, first_error, remedy }.into())
    }

    /// A step's title, or its command when the user wants to see commands.
    fn begin(&self, title: &str, command: &str) {
        if self.report.is_verbose() {
            self.report.out(format!("{command}\n"));
        } else {
            self.report.out(format!("{title}..."));
        }
    }

    /// The end of a step that failed.
    fn failed(&self, ended: &Ended, command: &str) {
        self.report.out(format!("(bad exit status: {})\nFailed command:\n{command}\n", ended.code()));
    }

    /// A command of the conf's for a shell that knows the conf's variables, as single quotes in a
    /// conf put that off until here.
    fn shell_script(&self, command: &str) -> String {
        let mut script = String::new();
        for name in self.loaded.variables.names() {
            let used = command.contains(&format!("${name}")) || command.contains(&format!("${{{name}"));
            if let (true, Some(value)) = (used, self.loaded.variables.scalar(name)) {
                script.push_str(&format!("{name}={}\n", shell_words::quote(value)));
            }
        }
        script + command
    }

    /// Runs a command of the conf's.
    fn bash(&self, sandbox: &Sandbox, command: &str) -> Result<Run> {
        Ok(sandbox
            .run(Tool::Bash)?
            .arg("-c")
            .arg(self.shell_script(command))
            .english()
            .envs(self.variables)
            .envs(&self.cross.map(Cross::variables).unwrap_or_default())
            .directory(&self.tree.build_dir(self.id))
            .limit(self.limit))
    }

    fn products(&self) -> Vec<Product> {
        let conf = &self.loaded.conf;
        let build_dir = self.tree.build_dir(self.id);
        conf.records
            .iter()
            .zip(self.excluded)
            .filter(|(_, excluded)| !**excluded)
            .map(|(record, _)| Product {
                path: build_dir
                    .join(record.built_location.trim_start_matches('/'))
                    .join(format!("{}.ko", record.built_name)),
                built: record.built_name.clone(),
                name: record.dest_name.clone(),
                strip: record.strip,
            })
            .collect()
    }
}
