// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options as words: the one clap command, and what it found, still unjudged.
//! Knows no action; clap's errors become ours here and are never printed by clap.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, value_parser};

use super::usage;
use crate::failure::Failure;

/// Options of dkms that mean nothing any more; each is accepted with a notice.
pub(super) const DEPRECATED: [&str; 3] = ["no-initrd", "no-clean-kernel", "no-prepare-kernel"];

/// The same with a value: whether a package brings a postinst for a dkms before 2.1.
pub(super) const LEGACY_POSTINST: &str = "legacy-postinst";

/// Everything that the words of the command line say, text not yet validated.
#[derive(Debug, Default)]
pub(super) struct Flags {
    /// Words that are no option and no option's value; empty ones are left out, as scripts pass them.
    pub words: Vec<String>,
    pub module: Option<String>,
    pub module_version: Option<String>,
    pub kernels: Vec<String>,
    pub arches: Vec<String>,
    pub directives: Vec<String>,
    pub jobs: Option<String>,
    pub root: Option<PathBuf>,
    pub dkms_tree: Option<PathBuf>,
    pub source_tree: Option<PathBuf>,
    pub install_tree: Option<PathBuf>,
    pub conf: Option<PathBuf>,
    pub kernel_config: Option<PathBuf>,
    pub kernel_source_dir: Option<PathBuf>,
    pub archive: Option<PathBuf>,
    pub template_kernel: Option<String>,
    pub distro: Option<String>,
    pub release: Option<String>,
    pub media: Option<String>,
    pub size: Option<String>,
    pub directory: bool,
    pub source_only: bool,
    pub binaries_only: bool,
    pub quiet: bool,
    pub verbose: bool,
    pub force: bool,
    pub force_version_override: bool,
    pub all: bool,
    pub all_kernels: bool,
    pub rpm_safe_upgrade: bool,
    pub no_depmod: bool,
    pub modprobe_on_install: bool,
    pub json: bool,
    pub protocol: Option<String>,
    pub dry_run: bool,
    pub repair: bool,
    pub to: Option<String>,
    pub generate_key: bool,
    pub help: bool,
    pub version: bool,
    /// The deprecated options given, with their dashes.
    pub deprecated: Vec<String>,
}

/// The option `-<short>`/`--<long>` with a value; `long` may be empty. The identity is `id`.
fn value(id: &'static str, spelling: (Option<char>, &'static str), name: &'static str) -> Arg {
    // Any OsString will do for clap: whether it is UTF-8 and what it means is judged later.
    let arg = Arg::new(id).value_name(name).value_parser(value_parser!(OsString)).action(ArgAction::Set);
    let arg = spelling.0.map_or(arg.clone(), |short| arg.short(short));
    let arg = if spelling.1.is_empty() { arg } else { arg.long(spelling.1) };
    match name {
        "dir" => arg.value_hint(ValueHint::DirPath),
        "path" => arg.value_hint(ValueHint::FilePath),
        _ => arg,
    }
}

fn switch(long: &'static str) -> Arg {
    Arg::new(long).long(long).action(ArgAction::SetTrue)
}

/// The command line that dkms accepts, without its actions: those are words like any other.
pub fn command() -> Command {
    Command::new("dkms")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .no_binary_name(true)
        // The last one counts, as in dkms; wrappers append to what they were given.
        .args_override_self(true)
        .arg(Arg::new("words").num_args(0..).value_parser(value_parser!(OsString)))
        .arg(value("module", (Some('m'), "module"), "module[/version]").help("the module to work on"))
        .arg(value("module-version", (Some('v'), ""), "module-version").help("its version"))
        .arg(
            value("kernel", (Some('k'), "kernelver"), "kernel[/arch]")
                .action(ArgAction::Append)
                .help("kernel release, repeatable (else: running)"),
        )
        .arg(
            value("arch", (Some('a'), "arch"), "arch")
                .action(ArgAction::Append)
                .help("one for all kernels, or one for each -k"),
        )
        .arg(switch("all").help("every kernel the module is built for"))
        .arg(switch("all-kernels").help("autoinstall for every kernel with headers"))
        .arg(value("conf", (Some('c'), ""), "path").help("a dkms.conf that lies elsewhere"))
        .arg(
            value("directive", (None, "directive"), "NAME=value")
                .action(ArgAction::Append)
                .help("set a dkms.conf directive, repeatable"),
        )
        .arg(value("config", (None, "config"), "path").help("the kernel's configuration file"))
        .arg(value("kernelsourcedir", (None, "kernelsourcedir"), "dir").help("the kernel's build directory"))
        .arg(value("archive", (None, "archive"), "path").help("the archive to load, or to make"))
        .arg(
            value("templatekernel", (None, "templatekernel"), "kernel").help("the kernel that match goes by"),
        )
        .arg(switch("source-only").help("pack no built modules"))
        .arg(switch("binaries-only").help("pack built modules without the source"))
        .arg(value("distro", (Some('d'), "distro"), "distro").help("whose installer, or system, it is for"))
        .arg(value("release", (Some('r'), "release"), "release").help("the release of that distribution"))
        .arg(value("media", (None, "media"), "media").help("floppy, iso, tar; mksysext: squashfs, erofs"))
        .arg(value("size", (None, "size"), "KiB").help("of a floppy image (1440)"))
        .arg(switch("directory").help("mksysext: a directory, no image"))
        .arg(value("jobs", (Some('j'), ""), "number").help("parallel jobs; 0: no limit; default: all CPUs"))
        .arg(switch("force").help("do it although it is done or refused"))
        .arg(switch("force-version-override").help("install over a module with another version"))
        .arg(switch("no-depmod").help("leave modules.dep alone"))
        .arg(switch("modprobe-on-install").help("load the modules once they are installed"))
        .arg(
            switch("rpm_safe_upgrade")
                .alias("rpm-safe-upgrade")
                .help("add, remove: called by an rpm scriptlet"),
        )
        .arg(value("dkmstree", (None, "dkmstree"), "dir").help("instead of /var/lib/dkms"))
        .arg(value("sourcetree", (None, "sourcetree"), "dir").help("instead of /usr/src"))
        .arg(value("installtree", (None, "installtree"), "dir").help("instead of /lib/modules"))
        .arg(value("root", (None, "root"), "dir").help("work on the system image in this directory"))
        .arg(value("protocol", (None, "protocol"), "protocol").help("replay: a hook, with the words given"))
        .arg(switch("dry-run").help("replay: only tell what would be done"))
        .arg(switch("repair").help("doctor: mend what can be mended without loss"))
        .arg(value("to", (None, "to"), "store").help("push: where to (else: the policy's first)"))
        .arg(switch("generate-key").help("push: make the keys that it signs with"))
        .arg(switch("json").help("machine-readable output, of what only tells"))
        .arg(switch("quiet").short('q').help("print errors and warnings only"))
        .arg(switch("verbose").help("show the commands that are run"))
        .arg(switch("version").short('V').help("print the version"))
        .arg(switch("help").short('h').help("print this text"))
        .args(DEPRECATED.map(|long| switch(long).help("deprecated, has no effect")))
        .arg(value(LEGACY_POSTINST, (None, LEGACY_POSTINST), "0|1").help("deprecated, has no effect"))
}

/// Sorts the words after the program's name into [`Flags`].
///
/// Fails with the failures of the options' form: unknown, without a value, not UTF-8.
pub(super) fn read(words: &[OsString]) -> Result<Flags, Failure> {
    sorted(command().try_get_matches_from(words).map_err(failure)?)
}

/// As [`read`], of a command line that is still being typed: goes as far as it can be understood.
pub(super) fn read_unfinished(words: &[OsString]) -> Flags {
    let matches = command().ignore_errors(true).try_get_matches_from(words);
    matches.ok().and_then(|matches| sorted(matches).ok()).unwrap_or_default()
}

fn sorted(mut matches: ArgMatches) -> Result<Flags, Failure> {
    let mut text = |id: &str| -> Result<Vec<String>, Failure> {
        let values: Vec<OsString> = matches.remove_many(id).map(Iterator::collect).unwrap_or_default();
        values.into_iter().map(|value| utf8(id, value)).collect()
    };
    let words = text("words")?.into_iter().filter(|word| !word.is_empty()).collect();
    let module = text("module")?.pop();
    let module_version = text("module-version")?.pop();
    let kernels = text("kernel")?;
    let arches = text("arch")?;
    let directives = text("directive")?;
    let jobs = text("jobs")?.pop();
    let template_kernel = text("templatekernel")?.pop();
    let protocol = text("protocol")?.pop();
    let legacy_postinst = text(LEGACY_POSTINST)?.pop();
    let to = text("to")?.pop();
    let [distro, release, media, size] = ["distro", "release", "media", "size"].map(text);
    Ok(Flags {
        words,
        module: module.filter(|name| !name.is_empty()),
        module_version: module_version.filter(|version| !version.is_empty()),
        kernels,
        arches,
        directives,
        jobs,
        root: path(&mut matches, "root")?,
        dkms_tree: path(&mut matches, "dkmstree")?,
        source_tree: path(&mut matches, "sourcetree")?,
        install_tree: path(&mut matches, "installtree")?,
        conf: path(&mut matches, "conf")?,
        kernel_config: path(&mut matches, "config")?,
        kernel_source_dir: path(&mut matches, "kernelsourcedir")?,
        archive: path(&mut matches, "archive")?,
        template_kernel: template_kernel.filter(|kernel| !kernel.is_empty()),
        distro: distro?.pop(),
        release: release?.pop(),
        media: media?.pop(),
        size: size?.pop(),
        directory: matches.get_flag("directory"),
        source_only: matches.get_flag("source-only"),
        binaries_only: matches.get_flag("binaries-only"),
        quiet: matches.get_flag("quiet"),
        verbose: matches.get_flag("verbose"),
        force: matches.get_flag("force"),
        force_version_override: matches.get_flag("force-version-override"),
        all: matches.get_flag("all"),
        all_kernels: matches.get_flag("all-kernels"),
        rpm_safe_upgrade: matches.get_flag("rpm_safe_upgrade"),
        no_depmod: matches.get_flag("no-depmod"),
        modprobe_on_install: matches.get_flag("modprobe-on-install"),
        json: matches.get_flag("json"),
        protocol: protocol.filter(|name| !name.is_empty()),
        dry_run: matches.get_flag("dry-run"),
        repair: matches.get_flag("repair"),
        to: to.filter(|store| !store.is_empty()),
        generate_key: matches.get_flag("generate-key"),
        help: matches.get_flag("help"),
        version: matches.get_flag("version"),
        deprecated: DEPRECATED
            .iter()
            .filter(|long| matches.get_flag(long))
            .copied()
            .chain(legacy_postinst.map(|_| LEGACY_POSTINST))
            .map(|long| format!("--{long}"))
            .collect(),
    })
}

/// An empty path is refused: joined to a root it would silently mean the root itself.
fn path(matches: &mut ArgMatches, id: &str) -> Result<Option<PathBuf>, Failure> {
    match matches.remove_one::<OsString>(id) {
        Some(value) if value.is_empty() => {
            Err(Failure::InvalidOptionValue { option: spelled(id), why: "the path is empty".to_owned() })
        }
        value => Ok(value.map(PathBuf::from)),
    }
}

fn utf8(id: &str, value: OsString) -> Result<String, Failure> {
    value.into_string().map_err(|value| Failure::InvalidOptionValue {
        option: spelled(id),
        why: format!("'{}' is not UTF-8", value.to_string_lossy()),
    })
}

/// The option that a word spells, if it takes a value.
pub(super) fn with_value(word: &str) -> Option<Arg> {
    let spells = |arg: &&Arg| match word.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => arg.get_short().is_some_and(|short| word == format!("-{short}")),
    };
    let takes_value = |arg: &&Arg| arg.get_action().takes_values();
    command().get_arguments().filter(takes_value).find(spells).cloned()
}

/// How users write an option: the short form where there is one.
pub(super) fn spelled(id: &str) -> String {
    let command = command();
    let arg = command.get_arguments().find(|arg| arg.get_id() == id);
    match arg.map(|arg| (arg.get_short(), arg.get_long())) {
        Some((Some(short), _)) => format!("-{short}"),
        Some((None, Some(long))) => format!("--{long}"),
        _ => "the argument".to_owned(),
    }
}

fn failure(error: clap::Error) -> Failure {
    let word = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word)) => word.clone(),
        _ => String::new(),
    };
    // For a value gone missing clap names the option as "--module <module>", not as it was typed.
    let mut command = command();
    // Only a built command's arguments can be displayed.
    command.build();
    let Some(arg) = command.get_arguments().find(|arg| arg.to_string() == word) else {
        return Failure::UnknownOption { word };
    };
    let option = spelled(arg.get_id().as_str());
    match error.kind() {
        ErrorKind::TooManyValues => {
            Failure::InvalidOptionValue { option, why: "this option takes no value".to_owned() }
        }
        _ => Failure::MissingOptionValue { hint: usage::option(arg), option },
    }
}
