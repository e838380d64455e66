// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the configuration of modules, of the framework and of the policy from the disk: in
//! process where a file is plain, with a real bash where it is a program.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Tree;
use crate::conf::directives::{self, ModuleConf};
use crate::conf::framework::{Framework, LATE_KERNELVER};
use crate::conf::plain::{self, Plain};
use crate::conf::policy::{self, Policy};
use crate::conf::{ConfFile, Variables, shell};
use crate::failure::Failure;
use crate::module::{ModuleId, Target};
use crate::sys::files;
use crate::sys::root::Root;
use crate::sys::tools::{Output, Run, Tool};

/// How long a configuration may take that is a program.
const SHELL_LIMIT: Duration = Duration::from_secs(60);

/// A dkms.conf evaluated for one target, with the variables that it set.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub conf: ModuleConf,
    pub variables: Variables,
}

/// What is in scope while a dkms.conf is evaluated, but for the module and its target.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// `--directive NAME=VALUE`, in order; they have the last word.
    pub directives: Vec<(String, String)>,
    /// `-c`: read this instead of the dkms.conf in the source tree.
    pub conf: Option<PathBuf>,
    pub kernel_source_dir: Option<PathBuf>,
    pub kernel_config: Option<PathBuf>,
    pub parallel_jobs: String,
    pub tmp_location: String,
    pub build_environment: Option<String>,
    pub verbose: bool,
}

impl Tree {
    /// The modules whose sources lie in the source tree, registered or not. Runs no program.
    pub fn sources(&self) -> Result<Vec<ModuleId>> {
        let mut found = Vec::new();
        for directory in files::names(&self.source)? {
            let conf = read_conf(&self.source.join(&directory).join("dkms.conf"))?;
            found.extend(conf.and_then(|conf| identify_source(&directory, conf)));
        }
        Ok(found)
    }

    /// Reads the configuration of a registered module for a target.
    pub fn load(&self, id: &ModuleId, target: Option<&Target>, scope: &Scope) -> Result<Loaded> {
        let conf = scope.conf.clone().unwrap_or_else(|| self.source_link(id).join("dkms.conf"));
        self.load_from(&conf, Some(id), target, scope)
    }

    /// The digest of what the administrator says of a module's build beside its sources: files in
    /// `/etc/dkms`, directives, a conf that lies elsewhere.
    pub fn settings(&self, id: &ModuleId, target: &Target, scope: &Scope) -> Result<String> {
        let mut said: Vec<(String, String)> = scope.directives.clone();
        for name in override_names(id, Some(target)) {
            said.extend(read_conf(&self.path("/etc/dkms").join(&name))?.map(|conf| (name, conf.text)));
        }
        if let Some(path) = scope.build_environment.as_deref() {
            let path = self.path(crate::conf::framework::late(path, target.kernel.as_str()));
            said.extend(read_conf(&path)?.map(|conf| ("build_environment".to_owned(), conf.text)));
        }
        if let Some(path) = &scope.conf {
            said.extend(read_conf(path)?.map(|conf| ("conf".to_owned(), conf.text)));
        }
        let mut hasher = blake3::Hasher::new();
        for part in said.iter().flat_map(|(name, text)| [name, text]) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Reads a dkms.conf that need not be registered, then what `/etc/dkms` adds to it.
    pub fn load_from(
        &self,
        conf: &Path,
        id: Option<&ModuleId>,
        target: Option<&Target>,
        scope: &Scope,
    ) -> Result<Loaded> {
        let unusable = |error: anyhow::Error| {
            let problems = vec![format!("dkms.conf: Error! {error:#}.")];
            Failure::BadConf { path: conf.display().to_string(), problems }
        };
        let Some(text) = files::read_regular_if_there(conf).map_err(unusable)? else {
            return Err(Failure::ConfMissing { path: conf.display().to_string() }.into());
        };
        let mut sources = Vec::new();
        if let Some(path) = scope.build_environment.as_deref() {
            let kernel = target.map_or("", |target| target.kernel.as_str());
            let path = self.path(crate::conf::framework::late(path, kernel));
            sources.extend(read_conf(&path).map_err(unusable)?);
        }
        sources.push(ConfFile { path: conf.to_owned(), text });
        if let Some(id) = id {
            for name in override_names(id, target) {
                sources.extend(read_conf(&self.path("/etc/dkms").join(name)).map_err(unusable)?);
            }
        }
        let (mut variables, said) =
            evaluate(&self.variables(id, target, scope), &sources).map_err(unusable)?;
        for (name, value) in &scope.directives {
            set_directive(&mut variables, name, value);
        }
        let path = conf.display().to_string();
        // What bash said in passing may well be the reason for what is missing now.
        let conf = directives::read(&variables, &path).map_err(|missing| {
            let problems = said.lines().map(str::to_owned).chain(missing).collect();
            Failure::BadConf { path, problems }
        })?;
        Ok(Loaded { conf, variables })
    }

    /// The variables that dkms has in scope for its confs, commands and scripts.
    pub fn variables(&self, id: Option<&ModuleId>, target: Option<&Target>, scope: &Scope) -> Variables {
        let mut variables = Variables::new();
        let mut set = |name: &str, value: String| variables.set(name, value);
        if let Some(target) = target {
            let build_dir = scope
                .kernel_source_dir
                .clone()
                .unwrap_or_else(|| self.kernel_dir(&target.kernel).join("build"));
            let config =
                scope.kernel_config.clone().unwrap_or_else(|| build_dir.join("include/config/auto.conf"));
            set("kernelver", target.kernel.to_string());
            set("arch", target.arch.to_string());
            set("kernel_source_dir", build_dir.display().to_string());
            set("kernel_config", config.display().to_string());
        }
        if let Some(id) = id {
            set("module", id.name().to_owned());
            set("module_version", id.version().to_owned());
        }
        set("dkms_tree", self.dkms.display().to_string());
        set("source_tree", self.source.display().to_string());
        set("install_tree", self.install.display().to_string());
        set("tmp_location", scope.tmp_location.clone());
        set("parallel_jobs", scope.parallel_jobs.clone());
        set("verbose", if scope.verbose { "1" } else { "" }.to_owned());
        variables
    }
}

/// What a source directory `M-V` holds. A conf that is a program is not run for that: then a version
/// is what begins with a digit.
fn identify_source(directory: &str, conf: ConfFile) -> Option<ModuleId> {
    let named = match plain::evaluate(&Variables::new(), &[conf]) {
        Plain::Evaluated(variables) => {
            let scalar = |name| variables.scalar(name);
            Some((scalar("PACKAGE_NAME")?.to_owned(), scalar("PACKAGE_VERSION")?.to_owned()))
        }
        Plain::NeedsShell { .. } => directory
            .match_indices('-')
            .map(|(at, _)| (&directory[..at], &directory[at + 1..]))
            .find(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()))
            .map(|(name, version)| (name.to_owned(), version.to_owned())),
    };
    let (name, version) = named.filter(|(name, version)| format!("{name}-{version}") == directory)?;
    ModuleId::new(&name, &version).ok()
}

/// The file names below `/etc/dkms` that have a say about a module, least specific first.
fn override_names(id: &ModuleId, target: Option<&Target>) -> Vec<String> {
    let (name, version) = (id.name(), id.version());
    let mut names = vec![format!("{name}.conf"), format!("{name}-{version}.conf")];
    if let Some(Target { kernel, arch }) = target {
        names.push(format!("{name}-{version}-{kernel}.conf"));
        names.push(format!("{name}-{version}-{kernel}-{arch}.conf"));
        names.push(format!("{name}--{kernel}.conf"));
        names.push(format!("{name}--{kernel}-{arch}.conf"));
    }
    names
}

/// `NAME` or `NAME[n]`, as the command line gives it.
fn set_directive(variables: &mut Variables, name: &str, value: &str) {
    let indexed = name.strip_suffix(']').and_then(|name| name.split_once('['));
    match indexed.and_then(|(name, index)| Some((name, index.parse().ok()?))) {
        Some((name, index)) => variables.set_element(name, index, value),
        None => variables.set(name, value),
    }
}

fn read_conf(path: &Path) -> Result<Option<ConfFile>> {
    Ok(files::read_regular_if_there(path)?.map(|text| ConfFile { path: path.to_owned(), text }))
}

/// Evaluates files one after the other, in this process if all of them are plain. With the variables
/// comes what the files, or bash, said to standard error.
fn evaluate(scope: &Variables, files: &[ConfFile]) -> Result<(Variables, String)> {
    match plain::evaluate(scope, files) {
        Plain::Evaluated(variables) => Ok((variables, String::new())),
        Plain::NeedsShell { .. } => {
            let ended = Run::new(Tool::Bash)?
                .clean_environment()
                .env("LC_ALL", "C")
                .args(["--noprofile", "--norc", "-c", shell::SCRIPT, "dkms"])
                .args(shell::arguments(scope, files))
                .limit(Some(SHELL_LIMIT))
                .end(Output::Apart)?;
            let said = String::from_utf8_lossy(&ended.errors).into_owned();
            if let Some(complaint) = shell::refused(&said) {
                bail!("{complaint}");
            }
            let late = if ended.timed_out() { " (it took longer than a minute)" } else { "" };
            let separator = if said.trim().is_empty() { "" } else { ": " };
            let variables = shell::parse(&ended.output)
                .map_err(|error| anyhow::anyhow!("{error}{late}{separator}{}", said.trim()))?;
            Ok((variables, said))
        }
    }
}

/// Reads framework.conf and its `.d`.
pub fn framework(root: &Root) -> Result<Framework> {
    let mut sources: Vec<ConfFile> = read_conf(&root.path("/etc/dkms/framework.conf"))?.into_iter().collect();
    sources.extend(drop_ins(&root.path("/etc/dkms/framework.conf.d"), ".conf")?);
    if sources.is_empty() {
        return Ok(Framework::default());
    }
    let mut scope = Variables::new();
    scope.set("kernelver", LATE_KERNELVER);
    let (variables, _) = evaluate(&scope, &sources).context("reading framework.conf")?;
    Ok(Framework::read(&variables))
}

/// Reads the policy: what packages bring, then what the administrator says.
pub fn policy(root: &Root) -> Result<Policy> {
    let mut sources = drop_ins(&root.path("/usr/lib/dkms/policy.d"), ".toml")?;
    sources.extend(read_conf(&root.path("/etc/dkms/policy.toml"))?);
    sources.extend(drop_ins(&root.path("/etc/dkms/policy.d"), ".toml")?);
    policy::merge(&sources).context("reading the policy")
}

fn drop_ins(directory: &Path, suffix: &str) -> Result<Vec<ConfFile>> {
    let mut sources = Vec::new();
    for name in files::names(directory)?.iter().filter(|name| name.ends_with(suffix)) {
        sources.extend(read_conf(&directory.join(name))?);
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn overrides_go_from_general_to_specific() {
        let id = ModuleId::new("foo", "1.0").unwrap();
        let target =
            Target { kernel: "6.1".parse().unwrap(), arch: crate::module::Arch::new("x86_64").unwrap() };
        assert_eq!(
            override_names(&id, Some(&target)),
            [
                "foo.conf",
                "foo-1.0.conf",
                "foo-1.0-6.1.conf",
                "foo-1.0-6.1-x86_64.conf",
                "foo--6.1.conf",
                "foo--6.1-x86_64.conf"
            ]
        );
    }

    #[rstest]
    #[case::plain("v4l-1-2.0", "PACKAGE_NAME=v4l-1\nPACKAGE_VERSION=2.0\n", Some(("v4l-1", "2.0")))]
    #[case::elsewhere("other-1.0", "PACKAGE_NAME=foo\nPACKAGE_VERSION=1.0\n", None)]
    #[case::unfinished("foo-1.0", "PACKAGE_NAME=foo\nPACKAGE_VERSION=#V#\n", None)]
    #[case::program("nvidia-current-470.2-1", "PACKAGE_VERSION=$(date)\n", Some(("nvidia-current", "470.2-1")))]
    #[case::program_without_version("scripts", "exit $(true)\n", None)]
    fn sources_are_told_by_conf_and_directory(
        #[case] directory: &str,
        #[case] conf: &str,
        #[case] want: Option<(&str, &str)>,
    ) {
        let conf = ConfFile { path: "/usr/src/x/dkms.conf".into(), text: conf.to_owned() };
        let want = want.map(|(name, version)| ModuleId::new(name, version).unwrap());
        assert_eq!(identify_source(directory, conf), want);
    }

    #[test]
    fn a_conf_that_doubles_without_end_does_not_take_the_memory_of_the_machine() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dkms.conf");
        let text = "x=$(echo aaaaaaaa)\nwhile :; do x=$x$x; done\n".to_owned();
        fs_err::write(&path, &text).unwrap();
        let error = evaluate(&Variables::default(), &[ConfFile { path, text }]).unwrap_err().to_string();
        assert!(error.contains("cannot allocate"), "{error}");
    }

    #[test]
    fn directives_reach_elements() {
        let mut variables = Variables::new();
        set_directive(&mut variables, "MAKE[1]", "x");
        set_directive(&mut variables, "AUTOINSTALL", "yes");
        assert_eq!(variables.element("MAKE", 1), Some("x"));
        assert_eq!(variables.scalar("AUTOINSTALL"), Some("yes"));
    }
}
