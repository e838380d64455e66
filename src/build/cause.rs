// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a build failed: the line of its log by which a compiler, modpost, make, patch or a shell
//! names the cause. Pure.

/// How much a line explains; the first line of the best kind is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Names what is wrong: no build survives it.
    Cause,
    /// A program complains; there are builds that go on after it.
    Complaint,
    /// Says that something failed, not why.
    Failed,
}

/// Finds the line in the log of a failed build that tells why; of a log in several steps only the
/// last, failed one counts. Nothing if the step said nothing.
pub(super) fn first_error(log: &str) -> Option<String> {
    let lines: Vec<&str> = last_step(log).lines().map(str::trim).filter(is_said).collect();
    let best = |wanted: Kind| lines.iter().position(|line| kind(line) == Some(wanted));
    if let Some(at) = best(Kind::Cause).or_else(|| best(Kind::Complaint)) {
        return Some(whole(&lines[at..]));
    }
    // A recipe that does not complain in any known way says why before make passes its end on.
    let failed = best(Kind::Failed);
    let before = lines[..failed.unwrap_or(lines.len())].iter().rev().find(|line| !is_progress(line));
    before.or(failed.map(|at| &lines[at])).map(|line| (*line).to_owned())
}

/// What the program of the last step said (see `MakeLog::step`).
pub(super) fn last_step(log: &str) -> &str {
    let step = log.rfind("\n# command: ").map_or(log, |at| &log[at + 1..]);
    step.strip_prefix("# command: ").and_then(|step| step.split_once('\n')).map_or(step, |(_, said)| said)
}

/// Neither empty nor a remark or a rule of ours or of a makefile's.
fn is_said(line: &&str) -> bool {
    !line.starts_with('#') && line.bytes().any(|byte| byte != b'-' && byte != b'*')
}

fn kind(line: &str) -> Option<Kind> {
    let has = |texts: &[&str]| texts.iter().any(|text| line.contains(text));
    let begins = |texts: &[&str]| texts.iter().any(|text| line.starts_with(text));
    let ends = |texts: &[&str]| texts.iter().any(|text| line.ends_with(text));
    // A makefile's commands, shown before they are run, and what is no failure.
    if begins(&["echo ", "printf ", "test ", "[ ", "if ", "checking "])
        || has(&["warning:", "WARNING: ", "(ignored)"])
        || is_progress(line)
    {
        return None;
    }
    let passes_on = has(&["*** [", "*** Waiting for unfinished jobs"])
        || has(&["ld returned ", "linker command failed", "error: aborting due to", "could not compile `"]);
    if passes_on {
        return Some(Kind::Failed);
    }
    // Compilers, assemblers and linkers (GNU coding standards, "Formatting Error Messages").
    let compiler = has(&[": error: ", ": fatal error: ", ": Error: ", ": Fatal error: "])
        || begins(&["error: ", "error[E", "fatal error: ", "CMake Error at "])
        || ends(&[": error:"])
        || has(&["undefined reference to ", "multiple definition of "]);
    // scripts/mod/modpost.c; before Linux 5.9 without its name.
    let modpost = begins(&["ERROR: modpost: ", "FATAL: modpost: ", "ERROR: \""]);
    let make = has(&["*** "]) && ends(&["Stop."]);
    let kbuild = has(&["ERROR: Kernel configuration is invalid"]);
    let patch =
        (has(&[" out of "]) && has(&["FAILED -- "])) || begins(&["patch: **** ", "can't find file to patch"]);
    let system = has(&["No space left on device", "Disk quota exceeded", "Read-only file system"])
        || has(&["Cannot allocate memory", "virtual memory exhausted", "Killed signal"]);
    if compiler || modpost || make || kbuild || patch || system {
        return Some(Kind::Cause);
    }
    let complaint = has(&["No such file or directory", "Permission denied", "not found", "cannot find"])
        || has(&["Operation not permitted", "Network is unreachable", "Could not resolve host"])
        || has(&["Temporary failure in name resolution"])
        || has(&["Exec format error", "syntax error", "Segmentation fault", "FAILED at ", "Can't locate "])
        || has(&["Error: ", "Error! ", "ERROR: ", "ERROR! ", "error: ", "fatal: "]);
    complaint.then_some(Kind::Complaint)
}

/// What kbuild and make say while all is well: `  CC [M]  foo.o`, directories.
fn is_progress(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_make = first.starts_with("make") && line.contains(" directory '");
    let is_kbuild = first.len() >= 2
        && first.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        && (second == "[M]" || second.contains(['/', '.']));
    is_make || is_kbuild
}

/// A line and, where it ends with a colon, what it announces.
fn whole(lines: &[&str]) -> String {
    match lines {
        [line, next, ..] if line.ends_with(':') => format!("{line} {next}"),
        [line, ..] => (*line).to_owned(),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    // Shortened from what the programs wrote: gcc 12, clang 16, binutils 2.40, make 4.3, patch 2.7,
    // kernels 3.10 to 6.13.
    #[rstest]
    #[case::gcc(
        "  CC [M]  /b/foo.o\n/b/foo.c: In function ‘f’:\n/b/foo.c:3:5: error: ‘x’ undeclared (first use in this function)\n\
         \x20   3 | x;\nmake[2]: *** [scripts/Makefile.build:250: /b/foo.o] Error 1\n",
        "/b/foo.c:3:5: error: ‘x’ undeclared (first use in this function)"
    )]
    #[case::warnings_before(
        "/b/foo.c:1:1: warning: no previous prototype for ‘error: x’\n/b/foo.c:3:5: error: too few arguments\n\
         cc1: all warnings being treated as errors\n",
        "/b/foo.c:3:5: error: too few arguments"
    )]
    #[case::gcc_missing_header(
        "/b/foo.c:1:10: fatal error: linux/nope.h: No such file or directory\n    1 | #include <linux/nope.h>\n\
         compilation terminated.\n",
        "/b/foo.c:1:10: fatal error: linux/nope.h: No such file or directory"
    )]
    #[case::clang_missing_header(
        "In file included from /b/foo.c:1:\n/b/foo.h:2:10: fatal error: 'linux/nope.h' file not found\n\
         1 error generated.\nmake[1]: *** [Makefile:1944: /b] Error 2\n",
        "/b/foo.h:2:10: fatal error: 'linux/nope.h' file not found"
    )]
    #[case::gcc_unknown_option(
        "warning: the compiler differs from the one used to build the kernel\n\
         gcc: error: unrecognized command-line option ‘-ftrivial-auto-var-init=zero’\n\
         make[1]: *** [scripts/Makefile.build:250: /b/foo.o] Error 1\n",
        "gcc: error: unrecognized command-line option ‘-ftrivial-auto-var-init=zero’"
    )]
    #[case::assembler(
        "/b/foo.s: Assembler messages:\n/b/foo.s:2: Error: no such instruction: `foo bar'\n",
        "/b/foo.s:2: Error: no such instruction: `foo bar'"
    )]
    #[case::linker(
        "/usr/bin/ld: /b/d.o: in function `main':\nd.c:(.text+0x5): undefined reference to `g'\n\
         collect2: error: ld returned 1 exit status\n",
        "d.c:(.text+0x5): undefined reference to `g'"
    )]
    #[case::lld(
        "ld.lld: error: undefined symbol: g\n>>> referenced by d.c\n\
         clang: error: linker command failed with exit code 1 (use -v to see invocation)\n",
        "ld.lld: error: undefined symbol: g"
    )]
    #[case::modpost(
        "  MODPOST /b/Module.symvers\nWARNING: modpost: missing MODULE_DESCRIPTION() in /b/foo.o\n\
         ERROR: modpost: \"gone\" [/b/foo.ko] undefined!\nmake[1]: *** [scripts/Makefile.modpost:126: /b/Module.symvers] Error 1\n",
        "ERROR: modpost: \"gone\" [/b/foo.ko] undefined!"
    )]
    #[case::old_modpost("ERROR: \"gone\" [/b/foo.ko] undefined!\n", "ERROR: \"gone\" [/b/foo.ko] undefined!")]
    #[case::gpl_only(
        "FATAL: modpost: GPL-incompatible module foo.ko uses GPL-only symbol 'x'\n",
        "FATAL: modpost: GPL-incompatible module foo.ko uses GPL-only symbol 'x'"
    )]
    #[case::no_rule(
        "make[2]: *** No rule to make target '/b/foo.o', needed by '/b/foo.mod'.  Stop.\nmake[1]: *** [Makefile:1: /b] Error 2\n",
        "make[2]: *** No rule to make target '/b/foo.o', needed by '/b/foo.mod'.  Stop."
    )]
    #[case::no_build_dir(
        "make -C /lib/modules/6.1/build\nmake[1]: *** /lib/modules/6.1/build: No such file or directory.  Stop.\n\
         make: *** [Makefile:3: all] Error 2\n",
        "make[1]: *** /lib/modules/6.1/build: No such file or directory.  Stop."
    )]
    #[case::makefile_gives_up(
        "Makefile:9: *** Kernel headers not found.  Stop.\n",
        "Makefile:9: *** Kernel headers not found.  Stop."
    )]
    #[case::kernel_not_configured(
        "make: Entering directory '/usr/src/linux'\n\n  ERROR: Kernel configuration is invalid.\n\
         \x20        include/generated/autoconf.h or include/config/auto.conf are missing.\n\
         Makefile:613: include/config/auto.conf: No such file or directory\n\
         make: *** [Makefile:685: include/config/auto.conf] Error 1\n",
        "ERROR: Kernel configuration is invalid."
    )]
    #[case::new_kernel_not_configured(
        "***\n***  ERROR: Kernel configuration is invalid. The following files are missing:\n***    - include/config/auto.conf\n",
        "***  ERROR: Kernel configuration is invalid. The following files are missing: ***    - include/config/auto.conf"
    )]
    #[case::commands_are_shown(
        "test -e include/config/auto.conf || (   \\\necho >&2 \"  ERROR: Kernel configuration is invalid.\";\\\n/bin/false)\n\
         /b/foo.c:3:5: error: unknown type name\n",
        "/b/foo.c:3:5: error: unknown type name"
    )]
    #[case::compiler_not_installed_dash(
        "/bin/sh: 1: gcc-12: not found\nmake[1]: *** [scripts/Makefile.build:250: /b/foo.o] Error 127\n",
        "/bin/sh: 1: gcc-12: not found"
    )]
    #[case::compiler_not_installed_bash(
        "bash: line 1: gcc-12: command not found\n",
        "bash: line 1: gcc-12: command not found"
    )]
    #[case::compiler_not_installed_make(
        "  CC [M]  /b/foo.o\nmake[2]: gcc-12: No such file or directory\nmake[2]: *** [Makefile:250: /b/foo.o] Error 127\n",
        "make[2]: gcc-12: No such file or directory"
    )]
    #[case::unimportant_complaint(
        "/bin/sh: 1: pahole: not found\n/b/foo.c:3:5: error: expected ‘;’\n",
        "/b/foo.c:3:5: error: expected ‘;’"
    )]
    #[case::disk_full_assembler(
        "/tmp/ccWblJub.s: Assembler messages:\n\
         /tmp/ccWblJub.s: Fatal error: can't write 11 bytes to section .text of d.o: 'No space left on device'\n",
        "/tmp/ccWblJub.s: Fatal error: can't write 11 bytes to section .text of d.o: 'No space left on device'"
    )]
    #[case::disk_full_copy(
        "cp: error writing './ls': No space left on device\nmake: *** [Makefile:2: all] Error 1\n",
        "cp: error writing './ls': No space left on device"
    )]
    #[case::disk_full_linker(
        "/usr/bin/ld: final link failed: No space left on device\ncollect2: error: ld returned 1 exit status\n",
        "/usr/bin/ld: final link failed: No space left on device"
    )]
    #[case::out_of_memory(
        "gcc: fatal error: Killed signal terminated program cc1\ncompilation terminated.\n",
        "gcc: fatal error: Killed signal terminated program cc1"
    )]
    #[case::patch_does_not_fit(
        "patching file a.c\nHunk #1 FAILED at 1.\n1 out of 1 hunk FAILED -- saving rejects to file a.c.rej\n",
        "1 out of 1 hunk FAILED -- saving rejects to file a.c.rej"
    )]
    #[case::patch_of_nothing(
        "can't find file to patch at input line 3\nPerhaps you used the wrong -p or --strip option?\n",
        "can't find file to patch at input line 3"
    )]
    #[case::patch_is_none(
        "patch: **** Only garbage was found in the patch input.\n",
        "patch: **** Only garbage was found in the patch input."
    )]
    #[case::configure(
        "checking for gcc... gcc\nchecking for zlib.h... not found\nconfigure: error:\n\t*** Please make sure the kernel devel package\n",
        "configure: error: *** Please make sure the kernel devel package"
    )]
    #[case::cmake(
        "CMake Error at CMakeLists.txt:3 (find_package):\n  Could not find Qt5\n",
        "CMake Error at CMakeLists.txt:3 (find_package): Could not find Qt5"
    )]
    #[case::rust(
        "error[E0425]: cannot find value `x` in this scope\nerror: aborting due to 1 previous error\n",
        "error[E0425]: cannot find value `x` in this scope"
    )]
    #[case::not_executable(
        "make: ./build.sh: Permission denied\nmake: *** [Makefile:2: all] Error 127\n",
        "make: ./build.sh: Permission denied"
    )]
    #[case::own_words(
        "make: Entering directory '/b'\nfirmware is too old\nmake: *** [Makefile:2: all] Error 1\nmake: Leaving directory '/b'\n",
        "firmware is too old"
    )]
    #[case::own_words_of_a_script("looking at the firmware\nfirmware is too old\n", "firmware is too old")]
    #[case::only_make(
        "make: Entering directory '/b'\nmake: *** [Makefile:2: all] Error 1\nmake: Leaving directory '/b'\n",
        "make: *** [Makefile:2: all] Error 1"
    )]
    #[case::last_step_only(
        "DKMS (dkms-4) make.log\n\nApplying patch x\n# command: patch -p1\nHunk #1 FAILED at 1.\n\n# exit code: 0\n\n\
         Building module(s)\n# command: make\nfoo.c:3:5: error: x\n\n# exit code: 2\n",
        "foo.c:3:5: error: x"
    )]
    fn the_cause_goes_before_what_follows_from_it(#[case] log: &str, #[case] want: &str) {
        assert_eq!(first_error(log).as_deref(), Some(want));
    }

    #[rstest]
    #[case::nothing("")]
    #[case::only_an_exit_code(
        "\nBuilding module(s)\n# command: ./build.sh\n\n# exit code: 3\n# elapsed time: 00:00:00\n"
    )]
    #[case::only_progress("# error: in a comment\n  LD [M]  foo.ko\nmake: Leaving directory '/b'\n")]
    fn a_log_that_says_nothing_has_no_error(#[case] log: &str) {
        assert_eq!(first_error(log), None);
    }
}
