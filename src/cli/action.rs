// SPDX-License-Identifier: MIT OR Apache-2.0
//! Flags to a validated action and its options: which words make sense together.
//! The order of the checks is dkms's, because each has an exit code of its own.

use super::flags::{Flags, spelled};
use super::verb::Verb;
use super::{Action, ArchiveContent, ModuleArg, Options, PackageKind, Replayed, Run, TargetArgs, pack};
use crate::conf::remotes::Location;
use crate::failure::Failure;
use crate::kernel::{BadName, KernelRelease};
use crate::machine::Given;
use crate::module::{Arch, ModuleId};

/// Judges everything that does not depend on the action. `env` is asked for `parallel_jobs`.
pub(super) fn options(flags: &mut Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Options, Failure> {
    let mut notices: Vec<String> =
        flags.deprecated.drain(..).map(|option| format!("Deprecated feature: {option}")).collect();
    let from_env = env("parallel_jobs").filter(|jobs| !jobs.is_empty()).and_then(|jobs| {
        let parsed = jobs.parse().ok();
        if parsed.is_none() && flags.jobs.is_none() {
            // Not ours to fail on: somebody else's environment, and a default exists.
            notices.push(format!(
                "Warning: ignoring parallel_jobs='{}' in the environment: not a number.",
                jobs.escape_debug()
            ));
        }
        parsed
    });
    let jobs = match flags.jobs.take() {
        Some(jobs) => Some(jobs.parse().map_err(|_| invalid("jobs", format!("'{jobs}' is not a number")))?),
        None => from_env,
    };
    if flags.all_kernels && (flags.kernel_source_dir.is_some() || flags.kernel_config.is_some()) {
        return Err(invalid("all-kernels", "--kernelsourcedir and --config are about one kernel"));
    }
    let directives = flags.directives.drain(..).map(directive).collect::<Result<_, _>>()?;
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    Ok(Options {
        root: flags.root.take(),
        dkms_tree: flags.dkms_tree.take(),
        source_tree: flags.source_tree.take(),
        install_tree: flags.install_tree.take(),
        quiet: flags.quiet,
        verbose: flags.verbose,
        force: flags.force,
        force_version_override: flags.force_version_override,
        no_depmod: flags.no_depmod,
        modprobe_on_install: flags.modprobe_on_install,
        rpm_safe_upgrade: flags.rpm_safe_upgrade,
        jobs,
        directives,
        conf: flags.conf.take(),
        kernel_config: flags.kernel_config.take(),
        kernel_source_dir: flags.kernel_source_dir.take(),
        json: flags.json,
        kbuild: Given { arch: set("ARCH"), cross_compile: set("CROSS_COMPILE"), llvm: set("LLVM").is_some() },
        notices,
    })
}

/// Judges the rest. Words nobody asked for become notices.
pub(super) fn action(mut flags: Flags, notices: &mut Vec<String>) -> Result<Action, Failure> {
    if flags.help {
        return Ok(Action::Help);
    }
    if flags.version {
        return Ok(Action::Version);
    }
    let (verb, mut words) = verb(&flags.words)?;
    let targets = targets(&flags.kernels, &flags.arches)?;
    let all = flags.all;
    if all && !targets.kernels.is_empty() {
        return Err(Failure::AllWithKernel);
    }
    if all && !targets.arches.is_empty() {
        return Err(Failure::AllWithArch);
    }
    if all && !verb.takes_all() {
        return Err(Failure::AllUnsupported { action: verb.name() });
    }
    if flags.all_kernels {
        all_kernels_fit(verb, &targets)?;
    }
    if flags.source_only && flags.binaries_only {
        return Err(Failure::BothOnly);
    }
    let mut module = if verb.takes_module() {
        module(flags.module.as_deref(), flags.module_version.as_deref(), &mut words, notices)?
    } else {
        None
    };
    if flags.protocol.is_some() && verb != Verb::Replay {
        return Err(invalid("protocol", "only the action replay has it"));
    }
    if flags.dry_run && verb != Verb::Replay {
        return Err(invalid("dry-run", "only the action replay has it"));
    }
    if flags.repair && verb != Verb::Doctor {
        return Err(invalid("repair", "only the action doctor has it"));
    }
    if verb != Verb::Push && (flags.to.is_some() || flags.generate_key) {
        let option = if flags.generate_key { "generate-key" } else { "to" };
        return Err(invalid(option, "only the action push has it"));
    }
    pack::options_fit(verb, &flags)?;
    let run = if matches!(verb, Verb::Log | Verb::Replay) && flags.protocol.is_none() {
        run(&mut words)?
    } else {
        None
    };
    let protocol = flags
        .protocol
        .take()
        .map(|protocol| Replayed::Protocol { protocol, args: words.drain(..).map(str::to_owned).collect() });
    let release = if verb == Verb::Gate { release(&mut words, &targets)? } else { None };
    let mut archive = flags.archive.take();
    match verb {
        Verb::Add | Verb::Build | Verb::Install if module.is_none() => {
            module = archive.take().map(ModuleArg::Archive);
        }
        Verb::Ldtarball if archive.is_none() && !words.is_empty() => {
            archive = Some(words.remove(0).into());
        }
        _ => {}
    }
    notices.extend(words.iter().map(|word| unhandled(word)));
    if let (Verb::Add | Verb::Build | Verb::Install, Some(archive)) = (verb, &archive) {
        notices.push(unhandled(&format!("--archive {}", archive.display())));
    }

    let named = module.clone().ok_or(Failure::NoModule { action: verb.asks_for_module().unwrap_or("") });
    Ok(match verb {
        Verb::Add => Action::Add { module: named? },
        Verb::Build => Action::Build { module: named?, targets },
        Verb::Install => Action::Install { module: named?, targets },
        Verb::Unbuild => Action::Unbuild { module: named?, targets, all },
        Verb::Uninstall => Action::Uninstall { module: named?, targets, all },
        Verb::Remove => Action::Remove { module: named?, targets, all },
        Verb::Status => Action::Status { module, targets },
        Verb::Mktarball => {
            Action::Mktarball { module: named?, targets, all, content: content(&flags), archive }
        }
        Verb::Ldtarball => Action::Ldtarball { archive: archive.ok_or(Failure::NoArchive)? },
        Verb::Mkdriverdisk => {
            let module = named?;
            Action::Mkdriverdisk { module, targets, all, disk: pack::disk(&flags)? }
        }
        Verb::Mksysext => {
            let module = named?;
            Action::Mksysext { module, targets, all, extension: pack::extension(&flags)? }
        }
        Verb::Mkbmdeb if targets.kernels.len() > 1 => {
            return Err(Failure::OneKernelOnly { action: verb.name() });
        }
        Verb::Mkbmdeb if flags.source_only => {
            return Err(invalid("source-only", "mkbmdeb packs nothing but built modules"));
        }
        Verb::Mkbmdeb => {
            let content = ArchiveContent::BinariesOnly;
            Action::MakePackage { kind: PackageKind::BinaryDeb, module: named?, targets, all, content }
        }
        Verb::Mkrpm | Verb::Mkdeb | Verb::Mkdsc => {
            let kind = match verb {
                Verb::Mkrpm => PackageKind::Rpm,
                Verb::Mkdeb => PackageKind::Deb,
                _ => PackageKind::DebianSource,
            };
            Action::MakePackage { kind, module: named?, targets, all, content: content(&flags) }
        }
        Verb::Match if targets.kernels.len() > 1 => {
            return Err(Failure::OneKernelOnly { action: verb.name() });
        }
        Verb::Match => Action::Match { template: template(&flags)?, module, targets },
        Verb::Autoinstall if targets.kernels.len() > 1 => return Err(Failure::AutoinstallSeveralKernels),
        Verb::Autoinstall if flags.all_kernels => Action::AutoinstallAll,
        Verb::Autoinstall => Action::Autoinstall { targets },
        // Nothing is asked of a module: dkms passes over one, and over --all.
        Verb::GenerateMok => Action::GenerateMok { targets },
        Verb::KernelPreinst | Verb::KernelPostinst | Verb::KernelPrerm if targets.kernels.len() != 1 => {
            return Err(Failure::ExactlyOneKernel { action: verb.name() });
        }
        Verb::KernelPreinst => Action::KernelPreinst { targets },
        Verb::KernelPostinst => Action::KernelPostinst { targets },
        Verb::KernelPrerm => Action::KernelPrerm { targets },
        // A hook that can be called was taken out before the options were read.
        Verb::Hook => return Err(no_protocol()),
        Verb::Gate => Action::Gate { release },
        Verb::RebootSafe => Action::RebootSafe,
        Verb::Verify => Action::Verify { module, targets },
        Verb::Critical if targets.kernels.len() > 1 => {
            return Err(Failure::OneKernelOnly { action: verb.name() });
        }
        Verb::Critical => Action::Critical { targets },
        Verb::Log => Action::Log { run },
        Verb::Doctor => Action::Doctor { repair: flags.repair },
        Verb::Push if flags.generate_key => {
            if module.is_some() || flags.to.is_some() || !targets.kernels.is_empty() {
                return Err(invalid("generate-key", "it makes keys and pushes nothing: leave out the rest"));
            }
            Action::GenerateStoreKey
        }
        Verb::Push => {
            let to = flags.to.as_deref().map(Location::parse).transpose();
            Action::Push { module, targets, to: to.map_err(|why| invalid("to", why))? }
        }
        Verb::Replay => Action::Replay {
            what: protocol.unwrap_or(Replayed::Run(run.unwrap_or(Run::Last))),
            dry_run: flags.dry_run,
        },
    })
}

/// `--all-kernels` stands for kernels that nobody has to name.
fn all_kernels_fit(verb: Verb, targets: &TargetArgs) -> Result<(), Failure> {
    let refused = |why: &str| Err(invalid("all-kernels", why));
    match verb {
        Verb::Autoinstall if !targets.kernels.is_empty() => refused("-k names one kernel already"),
        Verb::Autoinstall if !targets.arches.is_empty() => {
            refused("kernels are installed for this machine's architecture only, which -a cannot change")
        }
        Verb::Autoinstall => Ok(()),
        _ => refused("only the action autoinstall has it"),
    }
}

fn content(flags: &Flags) -> ArchiveContent {
    if flags.source_only {
        ArchiveContent::SourceOnly
    } else if flags.binaries_only {
        ArchiveContent::BinariesOnly
    } else {
        ArchiveContent::SourceAndBinaries
    }
}

fn template(flags: &Flags) -> Result<(KernelRelease, Option<Arch>), Failure> {
    let word = flags.template_kernel.as_deref().ok_or(Failure::NoTemplate)?;
    let (release, arch) = match word.split_once('/') {
        Some((release, arch)) => (release, Some(arch)),
        None => (word, None),
    };
    let bad = |why| invalid("templatekernel", why);
    Ok((release.parse().map_err(bad)?, arch.map(Arch::new).transpose().map_err(bad)?))
}

/// `last` or the number of a run, if a word says so.
fn run(words: &mut Vec<&str>) -> Result<Option<Run>, Failure> {
    if words.is_empty() {
        return Ok(None);
    }
    match words.remove(0) {
        "last" => Ok(Some(Run::Last)),
        word => {
            word.parse().map(|number| Some(Run::Number(number))).map_err(|_| Failure::InvalidOptionValue {
                option: "the run".to_owned(),
                why: format!("'{word}' is neither 'last' nor a number that dkms log shows"),
            })
        }
    }
}

/// The kernel of `gate release KERNEL` or `gate release -k KERNEL`.
fn release(words: &mut Vec<&str>, targets: &TargetArgs) -> Result<Option<KernelRelease>, Failure> {
    if words.first() != Some(&"release") {
        return Ok(None);
    }
    words.remove(0);
    match (targets.kernels.as_slice(), words.is_empty()) {
        ([kernel], _) => Ok(Some(kernel.clone())),
        ([], false) => words.remove(0).parse().map(Some).map_err(|why| invalid("kernel", why)),
        _ => Err(Failure::ExactlyOneKernel { action: "gate release" }),
    }
}

/// `hook` without the one word it needs.
pub(super) fn no_protocol() -> Failure {
    Failure::InvalidOptionValue {
        option: "hook".to_owned(),
        why: "a protocol has to follow, and options come before the word hook".to_owned(),
    }
}

/// The action among the words, and the other words.
fn verb(words: &[String]) -> Result<(Verb, Vec<&str>), Failure> {
    let mut found = None;
    let mut others = Vec::new();
    for word in words {
        match Verb::from_word(word) {
            // What follows is a protocol's.
            Some(_) if found == Some(Verb::Replay) => others.push(word.as_str()),
            Some(verb) if found.is_none() => found = Some(verb),
            Some(verb) if verb.is_dkms_own() => return Err(Failure::SeveralActions),
            _ => others.push(word.as_str()),
        }
    }
    let word = others.first().copied().unwrap_or_default().to_owned();
    found.map(|verb| (verb, others)).ok_or(Failure::UnknownAction { word })
}

fn targets(kernels: &[String], arches: &[String]) -> Result<TargetArgs, Failure> {
    let mut targets = TargetArgs::default();
    for kernel in kernels {
        let (release, brought) = match kernel.split_once('/') {
            Some((release, arch)) => (release, Some(arch)),
            None => (kernel.as_str(), None),
        };
        if release.is_empty() || brought == Some("") {
            return Err(Failure::EmptyValue { option: spelled("kernel") });
        }
        targets.kernels.push(release.parse::<KernelRelease>().map_err(|why| invalid("kernel", why))?);
        if let Some(arch) = brought {
            targets.arches.push(Arch::new(arch).map_err(|why| invalid("kernel", why))?);
        }
    }
    for arch in arches {
        if arch.is_empty() {
            return Err(Failure::EmptyValue { option: spelled("arch") });
        }
        targets.arches.push(Arch::new(arch).map_err(|why| invalid("arch", why))?);
    }
    if targets.arches.len() > 1 && targets.arches.len() != targets.kernels.len() {
        return Err(Failure::ArchCount);
    }
    Ok(targets)
}

/// The module from `-m` or else from the first word, which is then taken off `words`.
fn module(
    option: Option<&str>,
    version: Option<&str>,
    words: &mut Vec<&str>,
    notices: &mut Vec<String>,
) -> Result<Option<ModuleArg>, Failure> {
    let version = version.map(|version| match BadName::check("module version", version) {
        Ok(()) => Ok(version),
        Err(why) => Err(invalid("module-version", why)),
    });
    let version = version.transpose()?;
    let arg = match option {
        Some(option) => Some(module_option(option)?),
        None if words.is_empty() => None,
        None => Some(module_word(words.remove(0))),
    };
    match (arg, version) {
        (Some(ModuleArg::Named { version: Some(one), .. }), Some(other)) if one != other => {
            Err(invalid("module-version", format!("{other} contradicts the {one} given with the module")))
        }
        (Some(ModuleArg::Named { name, .. }), Some(version)) => {
            Ok(Some(ModuleArg::Named { name, version: Some(version.to_owned()) }))
        }
        (Some(ModuleArg::Word(name)), Some(version)) if BadName::check("module name", &name).is_ok() => {
            Ok(Some(ModuleArg::Named { name, version: Some(version.to_owned()) }))
        }
        (arg, Some(version)) => {
            notices.push(unhandled(&format!("-v {version}")));
            Ok(arg)
        }
        (arg, None) => Ok(arg),
    }
}

fn module_option(word: &str) -> Result<ModuleArg, Failure> {
    let bad = |why| invalid("module", why);
    match word.split_once('/') {
        Some((name, version)) => {
            let id = ModuleId::new(name, version).map_err(bad)?;
            Ok(ModuleArg::Named { name: id.name().to_owned(), version: Some(id.version().to_owned()) })
        }
        None => {
            BadName::check("module name", word).map_err(bad)?;
            Ok(ModuleArg::Named { name: word.to_owned(), version: None })
        }
    }
}

/// `M/V` is a name unless it looks like a path to a file: `./x`, `dir/dkms.conf`, `dir/x.tar.gz`.
fn module_word(word: &str) -> ModuleArg {
    let id = word.split_once('/').and_then(|(name, version)| ModuleId::new(name, version).ok());
    match id {
        Some(id) if !word.starts_with('.') && !names_file(id.version()) => {
            ModuleArg::Named { name: id.name().to_owned(), version: Some(id.version().to_owned()) }
        }
        _ => ModuleArg::Word(word.to_owned()),
    }
}

fn names_file(word: &str) -> bool {
    let suffixes = [".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst"];
    word == "dkms.conf" || word.contains(".tar.") || suffixes.iter().any(|suffix| word.ends_with(suffix))
}

/// `NAME=value` or `NAME[n]=value`. The name becomes a shell variable's: anything else could be code.
fn directive(word: String) -> Result<(String, String), Failure> {
    let bad = || invalid("directive", format!("'{}' is not of the form NAME=value", word.escape_debug()));
    let (name, value) = word.split_once('=').ok_or_else(bad)?;
    let (variable, index) = match name.split_once('[') {
        Some((variable, index)) => (variable, index.strip_suffix(']').ok_or_else(bad)?),
        None => (name, "0"),
    };
    let identifier = variable.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !identifier || index.is_empty() || !index.chars().all(|c| c.is_ascii_digit()) {
        return Err(bad());
    }
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn invalid(id: &str, why: impl ToString) -> Failure {
    Failure::InvalidOptionValue { option: spelled(id), why: why.to_string() }
}

fn unhandled(word: &str) -> String {
    format!("Warning: I do not know how to handle {word}.")
}
