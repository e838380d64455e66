// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whole command lines against what they mean, or how they fail.

use super::*;
use crate::module::Arch;
use rstest::rstest;

const K: &str = "6.1.0-56-amd64";

/// Words separated by one space; `''` stands for the empty word.
fn words(line: &str) -> Vec<OsString> {
    line.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace("''", "").into()).collect()
}

fn parse_line(line: &str) -> Result<(Options, Action), Box<Misuse>> {
    parse(words(line).into_iter(), &|_| None)
}

#[track_caller]
fn understood(line: &str) -> (Options, Action) {
    parse_line(line).unwrap_or_else(|misuse| panic!("{line:?}: {misuse:?}"))
}

#[track_caller]
fn refused(line: &str) -> Box<Misuse> {
    match parse_line(line) {
        Ok(result) => panic!("{line:?} was understood as {result:?}"),
        Err(misuse) => misuse,
    }
}

fn named(name: &str, version: &str) -> ModuleArg {
    ModuleArg::Named { name: name.to_owned(), version: Some(version.to_owned()) }
}

fn unversioned(name: &str) -> ModuleArg {
    ModuleArg::Named { name: name.to_owned(), version: None }
}

fn word(word: &str) -> ModuleArg {
    ModuleArg::Word(word.to_owned())
}

fn targets(kernels: &[&str], arches: &[&str]) -> TargetArgs {
    TargetArgs {
        kernels: kernels.iter().map(|kernel| kernel.parse().unwrap()).collect(),
        arches: arches.iter().map(|arch| Arch::new(arch).unwrap()).collect(),
    }
}

fn none() -> TargetArgs {
    TargetArgs::default()
}

fn on_k() -> TargetArgs {
    targets(&[K], &[])
}

fn mktarball(targets: TargetArgs, all: bool, content: ArchiveContent, archive: Option<&str>) -> Action {
    Action::Mktarball {
        module: named("foo", "1.0"),
        targets,
        all,
        content,
        archive: archive.map(PathBuf::from),
    }
}

fn driver_disk(disk: DiskArgs) -> Action {
    Action::Mkdriverdisk { module: named("foo", "1.0"), targets: on_k(), all: false, disk }
}

fn extension(extension: ExtensionArgs) -> Action {
    Action::Mksysext { module: named("foo", "1.0"), targets: on_k(), all: false, extension }
}

fn package(kind: PackageKind, targets: TargetArgs, all: bool, content: ArchiveContent) -> Action {
    Action::MakePackage { kind, module: named("foo", "1.0"), targets, all, content }
}

#[rstest]
#[case::version("--version", Action::Version)]
#[case::version_short("-V", Action::Version)]
#[case::version_of_an_action("status --version", Action::Version)]
#[case::help("--help", Action::Help)]
#[case::help_short("-h", Action::Help)]
#[case::help_before_judgement("add build --help", Action::Help)]
#[case::status("status", Action::Status { module: None, targets: none() })]
#[case::status_all("status --all", Action::Status { module: None, targets: none() })]
#[case::status_module("status foo", Action::Status { module: Some(word("foo")), targets: none() })]
#[case::status_no_module("status ''", Action::Status { module: None, targets: none() })]
#[case::status_conf_elsewhere("status -c /x", Action::Status { module: None, targets: none() })]
#[case::add_name("add foo/1.0", Action::Add { module: named("foo", "1.0") })]
#[case::add_directory("add ./foo-1.0", Action::Add { module: word("./foo-1.0") })]
#[case::add_option("add -m foo", Action::Add { module: unversioned("foo") })]
#[case::build("build foo/1.0", Action::Build { module: named("foo", "1.0"), targets: none() })]
#[case::install("install foo/1.0 -k 6.1.0-56-amd64", Action::Install { module: named("foo", "1.0"), targets: on_k() })]
#[case::unbuild("unbuild foo/1.0 --all", Action::Unbuild { module: named("foo", "1.0"), targets: none(), all: true })]
#[case::uninstall("uninstall -m a -k 6.1.0-56-amd64", Action::Uninstall { module: unversioned("a"), targets: on_k(), all: false })]
#[case::remove("remove --all foo/1.0", Action::Remove { module: named("foo", "1.0"), targets: none(), all: true })]
#[case::mktarball(
    "mktarball foo/1.0 -k 6.1.0-56-amd64",
    mktarball(on_k(), false, ArchiveContent::SourceAndBinaries, None)
)]
#[case::mkrpm(
    "mkrpm -m foo -v 1.0 -k 6.1.0-56-amd64",
    package(PackageKind::Rpm, on_k(), false, ArchiveContent::SourceAndBinaries)
)]
#[case::mkdeb_all(
    "mkdeb foo/1.0 --all --binaries-only",
    package(PackageKind::Deb, none(), true, ArchiveContent::BinariesOnly)
)]
#[case::mkdsc_source(
    "mkdsc foo/1.0 --source-only",
    package(PackageKind::DebianSource, none(), false, ArchiveContent::SourceOnly)
)]
#[case::mkbmdeb(
    "mkbmdeb foo/1.0",
    package(PackageKind::BinaryDeb, none(), false, ArchiveContent::BinariesOnly)
)]
#[case::mktarball_all(
    "mktarball foo/1.0 --all",
    mktarball(none(), true, ArchiveContent::SourceAndBinaries, None)
)]
#[case::mktarball_source(
    "mktarball foo/1.0 --source-only",
    mktarball(none(), false, ArchiveContent::SourceOnly, None)
)]
#[case::mktarball_binaries(
    "mktarball foo/1.0 --binaries-only --archive /a.tgz",
    mktarball(none(), false, ArchiveContent::BinariesOnly, Some("/a.tgz"))
)]
#[case::driver_disk(
    "mkdriverdisk foo/1.0 -d redhat3 -k 6.1.0-56-amd64",
    driver_disk(DiskArgs { layout: Layout::RedHat3, release: None, media: Media::Iso, size: 1440 })
)]
#[case::driver_disk_of_a_release(
    "mkdriverdisk foo/1.0 --distro suse --release=sles15 --media floppy --size 2880 -k 6.1.0-56-amd64",
    driver_disk(DiskArgs {
        layout: Layout::Suse,
        release: Some("sles15".to_owned()),
        media: Media::Floppy,
        size: 2880,
    })
)]
#[case::extension(
    "mksysext foo/1.0 -k 6.1.0-56-amd64",
    extension(ExtensionArgs { form: Form::Image, system: None, release: None })
)]
#[case::extension_for_a_system(
    "mksysext foo/1.0 --directory -d flatcar -r 3815 -k 6.1.0-56-amd64",
    extension(ExtensionArgs {
        form: Form::Directory,
        system: Some("flatcar".to_owned()),
        release: Some("3815".to_owned()),
    })
)]
#[case::ldtarball("ldtarball /a.tgz", Action::Ldtarball { archive: "/a.tgz".into() })]
#[case::ldtarball_option("ldtarball --archive=a.tgz --force", Action::Ldtarball { archive: "a.tgz".into() })]
#[case::add_archive("add --archive /a", Action::Add { module: ModuleArg::Archive("/a".into()) })]
#[case::build_archive("build --archive /a", Action::Build { module: ModuleArg::Archive("/a".into()), targets: none() })]
#[case::module_before_archive("build foo/1.0 --archive /a", Action::Build { module: named("foo", "1.0"), targets: none() })]
#[case::match_kernels(
    "match --templatekernel=6.0 -k 6.1.0-56-amd64",
    Action::Match { template: ("6.0".parse().unwrap(), None), module: None, targets: on_k() }
)]
#[case::match_module(
    "match --templatekernel 6.0/i686 foo",
    Action::Match {
        template: ("6.0".parse().unwrap(), Some(Arch::new("i686").unwrap())),
        module: Some(word("foo")),
        targets: none(),
    }
)]
#[case::autoinstall("autoinstall", Action::Autoinstall { targets: none() })]
#[case::autoinstall_all("autoinstall --all-kernels", Action::AutoinstallAll)]
#[case::autoinstall_kernel("autoinstall --kernelver 6.1.0-56-amd64", Action::Autoinstall { targets: on_k() })]
#[case::preinst("kernel_preinst -k 6.1.0-56-amd64", Action::KernelPreinst { targets: on_k() })]
#[case::postinst("kernel_postinst -k 6.1.0-56-amd64", Action::KernelPostinst { targets: on_k() })]
#[case::prerm("kernel_prerm -k 6.1.0-56-amd64", Action::KernelPrerm { targets: on_k() })]
#[case::generate_mok("generate_mok", Action::GenerateMok { targets: none() })]
#[case::generate_mok_kernel("generate_mok -k 6.1.0-56-amd64", Action::GenerateMok { targets: on_k() })]
#[case::gate("gate --json", Action::Gate { release: None })]
#[case::gate_release("gate release 6.1 --force", Action::Gate { release: Some("6.1".parse().unwrap()) })]
#[case::gate_release_by_option("gate release -k 6.1", Action::Gate { release: Some("6.1".parse().unwrap()) })]
#[case::reboot_safe("reboot-safe", Action::RebootSafe)]
#[case::verify("verify -k 6.1.0-56-amd64 --json", Action::Verify { module: None, targets: on_k() })]
#[case::verify_one("verify foo/1.0", Action::Verify { module: Some(named("foo", "1.0")), targets: none() })]
#[case::push("push", Action::Push { module: None, targets: none(), to: None })]
#[case::push_to(
    "push foo/1.0 --to /srv",
    Action::Push { module: Some(named("foo", "1.0")), targets: none(), to: Location::parse("/srv").ok() }
)]
#[case::generate_key("push --generate-key", Action::GenerateStoreKey)]
#[case::doctor("doctor --json", Action::Doctor { repair: false })]
#[case::doctor_repair("doctor --repair", Action::Doctor { repair: true })]
#[case::log("log --json", Action::Log { run: None })]
#[case::log_one("log 12", Action::Log { run: Some(Run::Number(12)) })]
#[case::log_last("log last", Action::Log { run: Some(Run::Last) })]
#[case::replay("replay", Action::Replay { what: Replayed::Run(Run::Last), dry_run: false })]
#[case::replay_one("--dry-run replay 12", Action::Replay { what: Replayed::Run(Run::Number(12)), dry_run: true })]
#[case::replay_protocol(
    "replay --protocol kernel-install add 6.1 /boot/t --dry-run",
    Action::Replay {
        what: Replayed::Protocol {
            protocol: "kernel-install".to_owned(),
            args: ["add", "6.1", "/boot/t"].map(str::to_owned).to_vec(),
        },
        dry_run: true,
    }
)]
#[case::action_last("-k 6.1.0-56-amd64 foo/1.0 build", Action::Build { module: named("foo", "1.0"), targets: on_k() })]
#[case::action_as_value("-m build status", Action::Status { module: Some(unversioned("build")), targets: none() })]
#[case::our_word_after_an_action("status gate", Action::Status { module: Some(word("gate")), targets: none() })]
#[case::hook_after_an_action("add hook", Action::Add { module: word("hook") })]
fn action_is_understood(#[case] line: &str, #[case] want: Action) {
    assert_eq!(understood(line).1, want);
}

#[rstest]
#[case::name_and_version("-m foo -v 1.0", named("foo", "1.0"))]
#[case::in_one("-m foo/1.0", named("foo", "1.0"))]
#[case::long("--module foo -v 1.0", named("foo", "1.0"))]
#[case::long_equals("--module=foo/1.0", named("foo", "1.0"))]
#[case::word("foo/1.0", named("foo", "1.0"))]
#[case::odd_version("foo/1:2.0~rc1+git.3", named("foo", "1:2.0~rc1+git.3"))]
#[case::same_version_twice("foo/1.0 -v 1.0", named("foo", "1.0"))]
#[case::word_and_version("foo -v 1.0", named("foo", "1.0"))]
#[case::version_may_be_empty("-m foo -v ''", unversioned("foo"))]
#[case::last_one_counts("-m foo/1 -m bar/2", named("bar", "2"))]
#[case::bare_word("foo", word("foo"))]
#[case::absolute("/usr/src/foo-1.0", word("/usr/src/foo-1.0"))]
#[case::current("./foo", word("./foo"))]
#[case::parent("../foo", word("../foo"))]
#[case::deep("a/b/c", word("a/b/c"))]
#[case::trailing_slash("foo-1.0/", word("foo-1.0/"))]
#[case::hidden(".hidden/1.0", word(".hidden/1.0"))]
#[case::conf("foo-1.0/dkms.conf", word("foo-1.0/dkms.conf"))]
#[case::archive("dir/foo-1.0.dkms.tar.gz", word("dir/foo-1.0.dkms.tar.gz"))]
#[case::archive_short_suffix("dir/foo-1.0.tbz2", word("dir/foo-1.0.tbz2"))]
fn module_is_told_from_file(#[case] line: &str, #[case] want: ModuleArg) {
    assert_eq!(understood(&format!("add {line}")).1, Action::Add { module: want });
}

#[rstest]
#[case::none("", none())]
#[case::kernel("-k 6.12.111+deb12-amd64", targets(&["6.12.111+deb12-amd64"], &[]))]
#[case::attached("--kernelver=7.1~rc3-amd64", targets(&["7.1~rc3-amd64"], &[]))]
#[case::with_arch("-k k/x86_64", targets(&["k"], &["x86_64"]))]
#[case::arch_only("-a aarch64", targets(&[], &["aarch64"]))]
#[case::one_arch_for_all("-k a -k b --arch x", targets(&["a", "b"], &["x"]))]
#[case::pairs("-k k1 -k k2 -a i386 -k k3 -a i686 -a x86_64", targets(&["k1", "k2", "k3"], &["i386", "i686", "x86_64"]))]
#[case::mixed("-k a/x -k b -a y", targets(&["a", "b"], &["x", "y"]))]
fn kernels_and_arches_are_collected(#[case] line: &str, #[case] want: TargetArgs) {
    assert_eq!(understood(&format!("status {line}")).1, Action::Status { module: None, targets: want });
}

const NO_MODULE: &str = "Arguments <module> and <module-version> are not specified.\n\
    Usage: VERB <module>/<module-version> or\n       VERB -m <module>/<module-version> or\n       \
    VERB -m <module> -v <module-version>";

#[rstest]
#[case::add("add", "add")]
#[case::build("build -k 6.1.0-56-amd64", "add")]
#[case::install("install -v 1.0", "add")]
#[case::unbuild("unbuild", "unbuild")]
#[case::uninstall("uninstall ''", "uninstall")]
#[case::remove("remove --all", "remove")]
#[case::mktarball("mktarball --archive=/a", "mktarball")]
#[case::mkrpm("mkrpm --source-only", "mkrpm")]
#[case::mkbmdeb("mkbmdeb", "mkbmdeb")]
#[case::conf_is_no_module("add -c /x/dkms.conf", "add")]
#[case::empty_option("add --module=", "add")]
fn missing_module_is_explained_as_dkms_does(#[case] line: &str, #[case] asked_by: &str) {
    let misuse = refused(line);
    assert_eq!(
        (misuse.failure.code(), misuse.failure.to_string(), misuse.show_usage),
        (1, NO_MODULE.replace("VERB", asked_by), false)
    );
}

const ARCHES: &str = "If more than one arch is specified on the command line, then there\n\
    must be an equal number of kernel versions also specified (1:1 relationship).";
const ALL_KERNEL: &str = "You cannot specify a kernel version and also specify\n--all on the command line.";
const ALL_ARCH: &str = "You cannot specify an arch and also specify\n--all on the command line.";
const TWO: &str = "Cannot specify more than one action.";

#[rstest]
#[case::two_actions("add build", 4, TWO)]
#[case::same_action_twice("add add", 4, TWO)]
#[case::two_actions_before_all("add build --all", 4, TWO)]
#[case::arches("build -a a -a b -k 6.1.0-56-amd64 x/1", 1, ARCHES)]
#[case::arches_without_kernel("build -a a -a b", 1, ARCHES)]
#[case::arch_twice("status -k a/x -a x", 1, ARCHES)]
#[case::arches_before_all("remove --all -k a -a b -a c", 1, ARCHES)]
#[case::all_kernel("status --all -k 6.1.0-56-amd64", 2, ALL_KERNEL)]
#[case::all_kernel_before_arch("status --all -k a -a b", 2, ALL_KERNEL)]
#[case::all_kernel_before_refusal("build foo/1.0 --all -k a", 2, ALL_KERNEL)]
#[case::all_arch("remove --all -a x86_64 x/1", 3, ALL_ARCH)]
#[case::all_add("add --all x/1", 5, "The action add does not support the --all parameter.")]
#[case::all_build("build --all x/1", 5, "The action build does not support the --all parameter.")]
#[case::all_install("install --all", 5, "The action install does not support the --all parameter.")]
#[case::all_autoinstall(
    "autoinstall --all",
    5,
    "The action autoinstall does not support the --all parameter."
)]
#[case::all_match("match --all", 5, "The action match does not support the --all parameter.")]
#[case::all_kernels_and_one(
    "autoinstall --all-kernels -k a",
    2,
    "Invalid value for --all-kernels: -k names one kernel already"
)]
#[case::all_kernels_of_an_arch(
    "autoinstall --all-kernels -a i686",
    2,
    "Invalid value for --all-kernels: kernels are installed for this machine's architecture only, which -a cannot change"
)]
#[case::all_kernels_with_the_headers_of_one(
    "autoinstall --all-kernels --kernelsourcedir /b",
    2,
    "Invalid value for --all-kernels: --kernelsourcedir and --config are about one kernel"
)]
#[case::all_kernels_of_another_action(
    "install foo/1.0 --all-kernels",
    2,
    "Invalid value for --all-kernels: only the action autoinstall has it"
)]
#[case::both_only(
    "mktarball --binaries-only --source-only",
    8,
    "You have specified both --binaries-only and --source-only.\nYou cannot do this."
)]
#[case::package_both_only(
    "mkrpm foo/1.0 --binaries-only --source-only",
    8,
    "You have specified both --binaries-only and --source-only.\nYou cannot do this."
)]
#[case::binaries_of_two_kernels(
    "mkbmdeb foo/1.0 -k a -k b",
    4,
    "The action mkbmdeb does not support multiple kernel version parameters on the command line."
)]
#[case::binaries_of_all("mkbmdeb --all", 5, "The action mkbmdeb does not support the --all parameter.")]
#[case::binaries_without_binaries(
    "mkbmdeb foo/1.0 --source-only",
    2,
    "Invalid value for --source-only: mkbmdeb packs nothing but built modules"
)]
#[case::match_two(
    "match -k a -k b",
    4,
    "The action match does not support multiple kernel version parameters on the command line."
)]
#[case::match_without_template(
    "match -k a",
    1,
    "Invalid number of parameters passed.\n\
     Usage: match --templatekernel=<kernel-version> -k <kernel-version>\n   \
     or: match --templatekernel=<kernel-version> -k <kernel-version> <module>"
)]
#[case::match_empty_template(
    "match --templatekernel= -k a",
    1,
    "Invalid number of parameters passed.\n\
     Usage: match --templatekernel=<kernel-version> -k <kernel-version>\n   \
     or: match --templatekernel=<kernel-version> -k <kernel-version> <module>"
)]
#[case::bad_template(
    "match --templatekernel=../x -k a",
    2,
    "Invalid value for --templatekernel: '..' is not a valid kernel release"
)]
#[case::no_archive(
    "ldtarball",
    2,
    "No archive is specified.\nUsage: ldtarball /path/to/archive or\n       ldtarball --archive=/path/to/archive"
)]
#[case::empty_archive("add --archive=", 2, "Invalid value for --archive: the path is empty")]
#[case::all_gate("gate --all", 5, "The action gate does not support the --all parameter.")]
#[case::autoinstall_two(
    "autoinstall -k a -k b",
    4,
    "The action autoinstall does not support multiple kernel version parameters on the command line."
)]
#[case::preinst(
    "kernel_preinst",
    4,
    "The action kernel_preinst requires exactly one kernel version parameter on the command line."
)]
#[case::postinst_two(
    "kernel_postinst -k a -k b",
    4,
    "The action kernel_postinst requires exactly one kernel version parameter on the command line."
)]
#[case::prerm(
    "kernel_prerm",
    4,
    "The action kernel_prerm requires exactly one kernel version parameter on the command line."
)]
#[case::empty_kernel("status -k ''", 16, "The value of -k is empty.")]
#[case::empty_kernel_attached("status --kernelver=", 16, "The value of -k is empty.")]
#[case::empty_kernel_part("status -k /x86_64", 16, "The value of -k is empty.")]
#[case::empty_arch_part("status -k k/", 16, "The value of -k is empty.")]
#[case::empty_arch("status -a ''", 16, "The value of -a is empty.")]
#[case::kernel_is_no_path(
    "remove foo/1.0 -k ../..",
    2,
    "Invalid value for -k: '..' is not a valid kernel release"
)]
#[case::too_many_parts("status -k a/b/c", 2, "Invalid value for -k: 'b/c' is not a valid architecture")]
#[case::bad_arch("status -a x/y", 2, "Invalid value for -a: 'x/y' is not a valid architecture")]
#[case::bad_module("add -m ./foo", 2, "Invalid value for -m: '.' is not a valid module name")]
#[case::bad_version("add foo -v a/b", 2, "Invalid value for -v: 'a/b' is not a valid module version")]
#[case::two_versions(
    "remove foo/1.0 -v 2.0",
    2,
    "Invalid value for -v: 2.0 contradicts the 1.0 given with the module"
)]
#[case::no_value("status -m a -v", 1, "The option -v requires a value.\n-v <module-version>: its version")]
#[case::option_for_value(
    "status -k -q",
    16,
    "The option -k requires a value.\n\
     -k, --kernelver <kernel[/arch]>: kernel release, repeatable (else: running)"
)]
#[case::no_value_long(
    "status --dkmstree",
    2,
    "The option --dkmstree requires a value.\n--dkmstree <dir>: instead of /var/lib/dkms"
)]
#[case::value_for_switch("status --force=yes", 2, "Invalid value for --force: this option takes no value")]
#[case::empty_path("status --root=", 2, "Invalid value for --root: the path is empty")]
#[case::jobs("build foo/1.0 -j x", 2, "Invalid value for -j: 'x' is not a number")]
#[case::directive(
    "build foo/1.0 --directive=MAKE",
    2,
    "Invalid value for --directive: 'MAKE' is not of the form NAME=value"
)]
#[case::directive_code(
    "build foo/1.0 --directive=$(x)=1",
    2,
    "Invalid value for --directive: '$(x)=1' is not of the form NAME=value"
)]
#[case::hook_alone(
    "hook",
    2,
    "Invalid value for hook: a protocol has to follow, and options come before the word hook"
)]
fn misuse_has_code_and_wording(#[case] line: &str, #[case] code: u8, #[case] message: &str) {
    let misuse = refused(line);
    assert_eq!(
        (misuse.failure.code(), misuse.failure.to_string().as_str(), misuse.show_usage),
        (code, message, false)
    );
}

#[rstest]
#[case::nothing("", "Unknown action specified: \"\"")]
#[case::options_only("-q --force", "Unknown action specified: \"\"")]
#[case::bogus_action("bogus", "Unknown action specified: \"bogus\"")]
#[case::not_in_this_program("frobnicate", "Unknown action specified: \"frobnicate\"")]
#[case::bogus_option("--bogus status", "Unknown option: --bogus")]
#[case::bogus_option_with_value("status --bogus=1", "Unknown option: --bogus")]
#[case::bogus_short("status -x", "Unknown option: -x")]
#[case::bogus_before_actions("add --bogus build", "Unknown option: --bogus")]
#[case::bogus_before_hook("--bogus hook apt", "Unknown option: --bogus")]
#[case::no_abbreviation("status --kernel=3", "Unknown option: --kernel")]
fn unknown_words_show_the_usage(#[case] line: &str, #[case] message: &str) {
    let misuse = refused(line);
    assert_eq!(
        (misuse.failure.code(), misuse.failure.to_string().as_str(), misuse.show_usage),
        (2, message, true)
    );
}

#[rstest]
#[case::extra_word("status foo bar", &["Warning: I do not know how to handle bar."])]
#[case::extra_words("status foo bar baz", &["Warning: I do not know how to handle bar.", "Warning: I do not know how to handle baz."])]
#[case::word_beside_option("status -m foo bar", &["Warning: I do not know how to handle bar."])]
#[case::no_module_wanted("autoinstall foo", &["Warning: I do not know how to handle foo."])]
#[case::version_without_name("status -v 1.0", &["Warning: I do not know how to handle -v 1.0."])]
#[case::version_of_directory("add ./foo -v 1.0", &["Warning: I do not know how to handle -v 1.0."])]
#[case::archive_beside_a_module("add foo/1.0 --archive=/a", &["Warning: I do not know how to handle --archive /a."])]
#[case::second_archive("ldtarball /a /b", &["Warning: I do not know how to handle /b."])]
#[case::deprecated(
    "status --no-initrd --no-clean-kernel --no-prepare-kernel",
    &["Deprecated feature: --no-initrd", "Deprecated feature: --no-clean-kernel", "Deprecated feature: --no-prepare-kernel"]
)]
#[case::deprecated_first("status foo bar --no-initrd", &["Deprecated feature: --no-initrd", "Warning: I do not know how to handle bar."])]
#[case::deprecated_with_a_value("mkdeb foo/1.0 --legacy-postinst=0", &["Deprecated feature: --legacy-postinst"])]
#[case::nothing("status foo", &[])]
fn notices_are_left_to_the_caller(#[case] line: &str, #[case] want: &[&str]) {
    assert_eq!(understood(line).0.notices, want);
}

#[test]
fn notices_and_quiet_survive_misuse() {
    let options = refused("-q --no-initrd add build").options;
    assert!(options.quiet);
    assert_eq!(options.notices, ["Deprecated feature: --no-initrd"]);
    assert!(refused("-q --bogus").options.quiet && !refused("--bogus").options.quiet);
}

#[test]
fn every_option_reaches_its_field() {
    let line = "status -q --verbose --force --force-version-override --no-depmod --modprobe-on-install --json \
        -j 3 --directive=MAKE=make\u{a0}all --directive POST_ADD[1]= -c /c --config /cfg --kernelsourcedir=/ksd \
        --rpm_safe_upgrade --dkmstree /t --sourcetree=/s --installtree /i --root /r";
    let path = |path: &str| Some(PathBuf::from(path));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let want = Options {
        root: path("/r"),
        dkms_tree: path("/t"),
        source_tree: path("/s"),
        install_tree: path("/i"),
        quiet: true,
        verbose: true,
        force: true,
        force_version_override: true,
        no_depmod: true,
        modprobe_on_install: true,
        rpm_safe_upgrade: true,
        jobs: Some(3),
        directives: vec![pair("MAKE", "make\u{a0}all"), pair("POST_ADD[1]", "")],
        conf: path("/c"),
        kernel_config: path("/cfg"),
        kernel_source_dir: path("/ksd"),
        json: true,
        kbuild: Given::default(),
        notices: vec![],
    };
    assert_eq!(understood(line).0, want);
    assert_eq!(understood("status").0, Options::default());
}

#[test]
fn rpm_safe_upgrade_may_be_spelled_with_hyphens() {
    assert!(understood("remove foo/1.0 --rpm-safe-upgrade --all").0.rpm_safe_upgrade);
}

#[test]
fn repeated_options_are_no_error() {
    let options = understood("status -q -q --force --force -j 1 -j 2 --root /a --root /b").0;
    assert!(options.quiet && options.force);
    assert_eq!((options.jobs, options.root), (Some(2), Some(PathBuf::from("/b"))));
}

#[rstest]
#[case::unset("status", None, None, 0)]
#[case::from_environment("status", Some("1"), Some(1), 0)]
#[case::option_wins("status -j 8", Some("1"), Some(8), 0)]
#[case::no_limit("status -j 0", Some("1"), Some(0), 0)]
#[case::empty_is_unset("status", Some(""), None, 0)]
#[case::nonsense_is_reported("status", Some("many"), None, 1)]
#[case::nonsense_overridden("status -j 2", Some("many"), Some(2), 0)]
fn jobs_come_from_the_option_or_the_environment(
    #[case] line: &str,
    #[case] env: Option<&str>,
    #[case] jobs: Option<u32>,
    #[case] notices: usize,
) {
    let env = |name: &str| env.filter(|_| name == "parallel_jobs").map(str::to_owned);
    let (options, _) = parse(words(line).into_iter(), &env).unwrap();
    assert_eq!((options.jobs, options.notices.len()), (jobs, notices), "{:?}", options.notices);
}

#[rstest]
#[case::plain("hook kernel-install add 6.1 /boot", "kernel-install", &["add", "6.1", "/boot"])]
#[case::dashes("hook apt --help -k -x -- --bogus", "apt", &["--help", "-k", "-x", "--", "--bogus"])]
#[case::empty_words("hook debian '' ''", "debian", &["", ""])]
#[case::actions("hook pacman add build hook", "pacman", &["add", "build", "hook"])]
#[case::after_options("--root /img -q hook dnf", "dnf", &[])]
#[case::root_named_hook("--root hook hook dnf x", "dnf", &["x"])]
fn hook_takes_the_rest_untouched(#[case] line: &str, #[case] protocol: &str, #[case] args: &[&str]) {
    let want = Action::Hook {
        protocol: protocol.to_owned(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
    };
    assert_eq!(understood(line).1, want);
}

#[test]
fn options_before_hook_hold_and_those_after_do_not() {
    let options = understood("--root=/img -q hook apt --root /other --verbose").0;
    assert_eq!(options.root, Some(PathBuf::from("/img")));
    assert!(options.quiet && !options.verbose);
    assert_eq!(understood("--help hook apt").1, Action::Help);
}

#[test]
fn words_that_are_not_utf8_are_refused_but_paths_are_not() {
    use std::os::unix::ffi::OsStringExt;
    let odd = || OsString::from_vec(b"/x\xff".to_vec());
    let line = |words: [OsString; 3]| parse(words.into_iter(), &|_| None);
    let (options, _) = line(["status".into(), "--root".into(), odd()]).unwrap();
    assert_eq!(options.root, Some(PathBuf::from(odd())));
    for words in [
        ["add".into(), "-m".into(), odd()],
        ["add".into(), "-q".into(), odd()],
        ["hook".into(), "apt".into(), odd()],
    ] {
        let failure = line(words).unwrap_err().failure;
        assert!(failure.to_string().ends_with("'/x\u{fffd}' is not UTF-8"), "{failure}");
        assert_eq!(failure.code(), 2);
    }
}
