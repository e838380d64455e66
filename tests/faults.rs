// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults at every call of dkms that changes files: it is killed there, or the call fails. Afterwards
//! each module is the old one or the new one, and the next run ends as if nothing had happened.
//!
//! The root is that of golden cases, with their stand-in for a compiler, so that calls are dkms's own; but for
//! one row, which has a real one and real headers.
//! `tests/faults/run.sh` tells what is looked at. `DKMS_FAULTS=all` tries every point (make test-faults);
//! without it a sample of the rows of two faults is tried. `faults trace FAULT N FILE -- COMMAND…` is the tracer.
#![allow(clippy::disallowed_types, clippy::unwrap_used, reason = "a test drives programs itself")]

mod common;
#[cfg(target_arch = "x86_64")]
#[path = "faults/tracer.rs"]
mod tracer;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Result, ensure};
use common::{Lab, Series, good};
use libtest_mimic::{Arguments, Trial};

/// What is disturbed: a name, what is there before, and the command.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("install", "two foo 1.0; dkms add foo/1.0", "dkms install foo/1.0 -k $K1"),
    (
        "upgrade",
        "two foo 1.0; dkms install foo/1.0 -k $K1; two foo 2.0; dkms add foo/2.0",
        "dkms install foo/2.0 -k $K1",
    ),
    (
        "autoinstall",
        "two foo 1.0 'AUTOINSTALL=yes'; module bar 1.0 'AUTOINSTALL=yes'; dkms add foo/1.0; dkms add bar/1.0",
        "dkms autoinstall -k $K1",
    ),
    (
        "over_the_kernels_own",
        "two foo 1.0; own foo_a; dkms add foo/1.0",
        "dkms install foo/1.0 -k $K1 --force",
    ),
    (
        "uninstall",
        "two foo 1.0; own foo_a; dkms install foo/1.0 -k $K1 --force",
        "dkms uninstall foo/1.0 -k $K1",
    ),
    (
        "remove",
        "two foo 1.0; dkms install foo/1.0 -k $K1; dkms install foo/1.0 -k $K2",
        "dkms remove foo/1.0 --all",
    ),
    (
        "ldtarball",
        "two foo 1.0; dkms build foo/1.0 -k $K1; dkms mktarball foo/1.0 -k $K1 --archive /tmp/foo.tar.gz; \
         dkms remove foo/1.0 --all; rm -r /usr/src/foo-1.0",
        "dkms ldtarball /tmp/foo.tar.gz",
    ),
    (
        "hold",
        "module foo 1.0 'AUTOINSTALL=yes' 'BOOT_CRITICAL=yes'; dkms add foo/1.0; broken foo 1.0",
        "dkms hook debian postinst $K1",
    ),
    (
        "release",
        "module foo 1.0 'AUTOINSTALL=yes' 'BOOT_CRITICAL=yes'; dkms add foo/1.0; broken foo 1.0; \
         dkms hook debian postinst $K1; true",
        "dkms gate release $K1 --force",
    ),
];

/// What it is disturbed with.
const FAULTS: &[&str] = &["kill", "ENOSPC", "EIO", "EROFS", "EMFILE"];

/// A module of two images; and one of the kernel's own of that name.
const WORDS: &str = r#"
two() {
    local name=$1 version=$2
    shift 2
    module "$name" "$version" "$@"
    sed -i "s/^BUILT_MODULE_NAME.*/BUILT_MODULE_NAME[0]=${name}_a\nBUILT_MODULE_NAME[1]=${name}_b/; s/^\(DEST_MODULE_LOCATION\)\(\[0\]\)*=.*/DEST_MODULE_LOCATION[0]=\/updates\nDEST_MODULE_LOCATION[1]=\/updates/" "/usr/src/$name-$version/dkms.conf"
    echo "obj-m := ${name}_a.o ${name}_b.o" >"/usr/src/$name-$version/Makefile"
    for part in a b; do code "/usr/src/$name-$version/${name}_$part.c" "$version"; done
}
own() {
    echo "the kernel's own" >"/usr/lib/modules/$K1/kernel/$1.ko"
}
"#;

fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().collect();
    #[cfg(target_arch = "x86_64")]
    if words.get(1).is_some_and(|word| word == "trace") {
        return Ok(ExitCode::from(tracer::main(&words[2..])?));
    }
    drop(words);
    let arguments = Arguments::from_args();
    let all = std::env::var_os("DKMS_FAULTS").is_some_and(|wish| wish == "all");
    let possible = cfg!(target_arch = "x86_64") && nix::unistd::geteuid().is_root();
    let mut trials = Vec::new();
    for fault in FAULTS {
        for (name, prepare, command) in COMMANDS {
            let row =
                move || check(prepare, command, fault, all).map_err(|error| format!("{error:#}").into());
            let is_sampled = ["kill", "ENOSPC"].contains(fault);
            let trial = Trial::test(format!("{fault}::{name}"), row);
            trials.push(trial.with_ignored_flag(!possible || !(all || is_sampled)));
        }
    }
    let real = || killed_in_a_real_build().map_err(|error| format!("{error:#}").into());
    trials.push(Trial::test("kill::real_build", real).with_ignored_flag(!possible || !all));
    let rounds = if all { 100 } else { 5 };
    let together = move || {
        let what = format!("{rounds} rounds of eight at a time");
        carry_out("together.sh", &format!("ROUNDS={rounds}\n"), &what)
            .map_err(|error| format!("{error:#}").into())
    };
    trials.push(Trial::test("eight_at_a_time", together).with_ignored_flag(!possible));
    libtest_mimic::run(&arguments, trials).exit();
}

fn check(prepare: &str, command: &str, fault: &str, all: bool) -> Result<()> {
    // A sample looks at other points in each row, but the same ones each time.
    let (step, first) = if all { (1, 1) } else { (17, 1 + (command.len() + fault.len()) % 17) };
    let variables = variables(prepare, command, fault, step, first);
    carry_out("run.sh", &variables, &format!("{fault} in {command}"))
}

fn variables(prepare: &str, command: &str, fault: &str, step: usize, first: usize) -> String {
    let quoted = |text: &str| shell_words::quote(text).into_owned();
    format!(
        "{WORDS}\nPREPARE={}\nCOMMAND={}\nFAULT={fault}\nSTEP={step}\nFIRST={first}\n",
        quoted(prepare),
        quoted(command)
    )
}

/// An upgrade by a real compiler: it is slow, and what it leaves is more, so that every fifth point has to do.
fn killed_in_a_real_build() -> Result<()> {
    let release = Series::New.release();
    let lab =
        Lab::without_dkms().kernel(Series::New).source("foo", "1.0", good()).source("foo", "2.0", good());
    fs_err::create_dir_all(lab.path("usr/sbin"))?;
    fs_err::copy(binary(), lab.path("usr/sbin/dkms"))?;
    let work = lab.path(".golden");
    fs_err::create_dir(&work)?;
    let prepare = "dkms install foo/1.0 -k $K1 && dkms add foo/2.0";
    let command = "dkms install foo/2.0 -k $K1";
    let variables = variables(prepare, command, "kill", 5, 3);
    put(&work, "run.sh", &format!("K1={release}\nKEPT=(/var/lib/dkms /usr/lib/modules)\n{variables}"))?;
    let ran = lab.sh("bash /.golden/run.sh");
    judge(
        &ran.succeeds().stdout(),
        &ran.stderr(),
        &format!("kill in {command}, compiled by {release}'s makefiles"),
    )
}

fn binary() -> PathBuf {
    std::env::var_os("DKMS_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_dkms").into()).into()
}

/// What a script of ours works with.
fn put(work: &Path, script: &str, variables: &str) -> Result<()> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    fs_err::copy(tests.join("faults").join(script), work.join("run.sh"))?;
    fs_err::copy(tests.join("golden/run.sh"), work.join("golden.sh"))?;
    fs_err::copy(std::env::current_exe()?, work.join("tracer"))?;
    Ok(fs_err::write(work.join("faults.env"), variables)?)
}

/// Has a script of ours do its work in a root of its own, which tells how many points it tried and what
/// was lost.
fn carry_out(script: &str, variables: &str, what: &str) -> Result<()> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let temporary = tempfile::Builder::new().prefix("dkms-faults-").tempdir()?;
    let work = temporary.path();
    fs_err::create_dir(work.join("root"))?;
    put(work, script, variables)?;
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(tests.join("golden/enter.sh"))
        .args([work, &tests.join("golden/root"), &binary(), Path::new("")])
        .env("K1", "6.1.0-1-amd64")
        .env("K2", "6.1.0-2-amd64")
        .stdin(Stdio::null())
        .output()?;
    let [said, errors] =
        [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned());
    ensure!(output.status.success(), "{said}{errors}");
    judge(&said, &errors, what)
}

/// Tells how many points a script has tried; fails if anything was lost.
fn judge(said: &str, errors: &str, what: &str) -> Result<()> {
    let points: usize =
        said.lines().last().and_then(|line| line.strip_suffix(" points")?.parse().ok()).unwrap_or_default();
    let found = said.matches("LOST").count();
    writeln!(std::io::stderr(), "{what}: {points} points tried, {found} lost")?;
    ensure!(found == 0 && points > 0, "{said}{errors}");
    Ok(())
}
