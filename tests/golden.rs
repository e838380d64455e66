// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden cases: what dkms says, does and leaves behind, held against `tests/cases/*/expected`.
//! Runs each case in a root of its own; knows nothing of how dkms works.
//!
//! A case is a directory: `script` (lines `+ setup`, `$ command`, `# remark`), `expected`, and
//! perhaps `root/`, files for its root. Environment: `UPDATE=1` rewrites `expected`;
//! `DKMS_UNDER_TEST=/usr/sbin/dkms` runs another dkms, for which `tests/cases/differences.toml`
//! says where it is known to differ; `DKMS_BINARY` names our binary, by default cargo's.
#![allow(clippy::disallowed_types, reason = "a test drives programs itself")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, Trial};
use regex::Regex;
use serde::Deserialize;

/// The two kernels of every root, as `$K1` and `$K2` in the scripts.
const KERNELS: [&str; 2] = ["6.1.0-1-amd64", "6.1.0-2-amd64"];

fn main() -> Result<()> {
    let arguments = Arguments::from_args();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let bench = Arc::new(Bench::new(&tests)?);
    let mut cases = Vec::new();
    for entry in fs_err::read_dir(tests.join("cases"))? {
        let path = entry?.path();
        if path.join("script").exists() {
            cases.push(path);
        }
    }
    cases.sort();
    ensure!(!cases.is_empty(), "no cases in {}", tests.join("cases").display());
    let blocked = blocked();
    if let Some(why) = &blocked {
        writeln!(std::io::stderr(), "golden cases cannot run here: {why}")?;
    }
    let mut trials: Vec<_> = cases
        .iter()
        .map(|path| {
            let (bench, path) = (Arc::clone(&bench), path.clone());
            let name = name_of(&path);
            Trial::test(name, move || bench.check(&path).map_err(|error| format!("{error:#}").into()))
                .with_ignored_flag(blocked.is_some())
        })
        .collect();
    trials.push(Trial::test("listed_differences_are_of_something", move || {
        bench.check_list(&cases).map_err(|error| format!("{error:#}").into())
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

fn name_of(case: &Path) -> String {
    case.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The arguments of unshare(1) that make the namespaces of a case.
fn namespaces() -> &'static [&'static str] {
    if nix::unistd::geteuid().is_root() {
        &["--mount", "--propagation", "private"]
    } else {
        &["--user", "--map-root-user", "--mount", "--propagation", "private"]
    }
}

/// Why no case can run on this machine.
fn blocked() -> Option<String> {
    for program in ["bash", "make", "as", "find"] {
        if Command::new(program).arg("--version").stdin(Stdio::null()).output().is_err() {
            return Some(format!("{program} is not installed"));
        }
    }
    match Command::new("unshare").args(namespaces()).args(["mount", "-t", "tmpfs", "golden", "/tmp"]).output()
    {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("no namespaces: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("unshare (util-linux): {error}")),
    }
}

/// What all cases share.
struct Bench {
    /// `tests/golden`: the scripts and the files of every root.
    equipment: PathBuf,
    dkms: PathBuf,
    /// Becomes /usr/lib/dkms.
    helpers: Option<PathBuf>,
    /// Those that apply to the dkms under test.
    differences: Vec<Difference>,
    everywhere: Vec<Everywhere>,
    whole: Vec<Whole>,
    /// Whether it is not our dkms that is under test.
    other: bool,
    update: bool,
    normal: Normal,
}

/// One place where another dkms is known to do something else.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    case: String,
    /// The command whose block differs, or `tree`.
    command: String,
    /// Which one, where a case has that command several times; the first without it.
    #[serde(default = "first")]
    nth: usize,
    /// Only versions that begin like this; all without it.
    dkms: Option<String>,
    /// Lines of `expected`. None: `theirs` come first in the block.
    #[serde(default)]
    ours: String,
    /// What stands there instead.
    #[serde(default)]
    theirs: String,
    reason: String,
}

/// A wording that differs in many cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Everywhere {
    dkms: Option<String>,
    /// A regex, for the text of `expected`; `^` and `$` are the ends of a line.
    ours: String,
    /// What stands there instead; `$1` is the first group.
    theirs: String,
    reason: String,
    #[serde(skip)]
    pattern: Option<Regex>,
}

/// A case about what no other dkms does: all of it may differ.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    case: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Differences {
    #[serde(default)]
    whole: Vec<Whole>,
    #[serde(default)]
    everywhere: Vec<Everywhere>,
    #[serde(default)]
    difference: Vec<Difference>,
}

impl Bench {
    fn new(tests: &Path) -> Result<Self> {
        let listed = fs_err::read_to_string(tests.join("cases/differences.toml"))?;
        let Differences { whole, mut everywhere, mut difference } =
            toml::from_str(&listed).context("reading tests/cases/differences.toml")?;
        for rule in &mut everywhere {
            rule.pattern = Some(Regex::new(&format!("(?m){}", rule.ours))?);
        }
        let mut reasons = everywhere
            .iter()
            .map(|rule| &rule.reason)
            .chain(difference.iter().map(|difference| &difference.reason))
            .chain(whole.iter().map(|whole| &whole.reason));
        ensure!(reasons.all(|reason| !reason.trim().is_empty()), "a listed difference has no reason");
        let other = std::env::var_os("DKMS_UNDER_TEST").map(PathBuf::from);
        let helpers = match &other {
            Some(path) => path.parent().map(|sbin| sbin.join("../lib/dkms")),
            None => Some(tests.join("../hooks/lib")),
        };
        if let Some(path) = &other {
            let version = version(path)?;
            let applies =
                |dkms: &Option<String>| dkms.as_ref().is_none_or(|prefix| version.starts_with(prefix));
            everywhere.retain(|rule| applies(&rule.dkms));
            difference.retain(|difference| applies(&difference.dkms));
        }
        let ours = std::env::var_os("DKMS_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_dkms").into());
        Ok(Self {
            equipment: tests.join("golden"),
            other: other.is_some(),
            dkms: fs_err::canonicalize(other.unwrap_or(ours.into()))?,
            helpers: helpers.filter(|path| path.is_dir()),
            differences: difference,
            everywhere,
            whole,
            update: std::env::var_os("UPDATE").is_some(),
            normal: Normal::new()?,
        })
    }

    fn check(&self, case: &Path) -> Result<()> {
        let script = fs_err::read_to_string(case.join("script"))?;
        let got = self.run(case, &parse(&script)?)?;
        let path = case.join("expected");
        if self.update {
            return Ok(fs_err::write(path, got)?);
        }
        let mut expected = fs_err::read_to_string(&path)?;
        if self.other {
            for rule in &self.everywhere {
                expected = rule.apply(&expected);
            }
            for difference in self.differences.iter().filter(|difference| difference.case == name_of(case)) {
                expected = difference.apply(&expected)?;
            }
        }
        if self.other && self.whole.iter().any(|whole| whole.case == name_of(case)) {
            ensure!(expected != got, "it does the same as ours: its entry in the list has had its day");
            return Ok(());
        }
        if expected != got {
            let diff = similar::TextDiff::from_lines(&expected, &got);
            bail!("{}", diff.unified_diff().context_radius(4).header("expected", "got"));
        }
        Ok(())
    }

    /// Nothing in the list is left over from a case that went or changed.
    fn check_list(&self, cases: &[PathBuf]) -> Result<()> {
        let mut unused: Vec<_> = self.everywhere.iter().collect();
        for case in cases {
            let expected = fs_err::read_to_string(case.join("expected"))?;
            unused.retain(|rule| rule.apply(&expected) == expected);
        }
        ensure!(unused.is_empty(), "of no case: {unused:?}");
        let named = self.differences.iter().map(|difference| &difference.case);
        for named in named.chain(self.whole.iter().map(|whole| &whole.case)) {
            ensure!(cases.iter().any(|case| name_of(case) == *named), "no such case: {named}");
        }
        Ok(())
    }

    /// Runs the steps in a fresh root; gives the transcript and what changed on disk.
    fn run(&self, case: &Path, steps: &[Step]) -> Result<String> {
        let temporary = tempfile::Builder::new().prefix("dkms-golden-").tempdir()?;
        let work = temporary.path();
        fs_err::create_dir(work.join("root"))?;
        fs_err::copy(self.equipment.join("run.sh"), work.join("run.sh"))?;
        if case.join("root").is_dir() {
            fs_err::os::unix::fs::symlink(case.join("root"), work.join("case"))?;
        }
        for (number, step) in steps.iter().enumerate() {
            let (suffix, line) = match step {
                Step::Setup(line) => ("setup", line),
                Step::Command(line) => ("sh", line),
            };
            fs_err::write(work.join(format!("{number}.{suffix}")), format!("{line}\n"))?;
        }
        fs_err::write(work.join("steps"), steps.len().to_string())?;
        let output = Command::new("unshare")
            .args(namespaces())
            .arg(self.equipment.join("enter.sh"))
            .args([work, &self.equipment.join("root"), &self.dkms])
            .arg(self.helpers.as_deref().unwrap_or(Path::new("")))
            .env("K1", KERNELS[0])
            .env("K2", KERNELS[1])
            .stdin(Stdio::null())
            .output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && complaint.is_empty(), "making the root: {complaint}");

        let mut transcript = String::new();
        for (number, step) in steps.iter().enumerate() {
            let read = |suffix: &str| read_lossy(&work.join(format!("{number}.{suffix}")));
            let code = read("rc")?;
            match step {
                Step::Setup(line) => {
                    let complaint = read("err")?;
                    ensure!(
                        code.trim() == "0" && complaint.is_empty(),
                        "setting up with {line}: {complaint}"
                    );
                }
                Step::Command(line) => {
                    transcript += &format!("$ {line}\n");
                    transcript += &self.normal.apply(&quoted('1', &read("out")?));
                    transcript += &self.normal.apply(&quoted('2', &read("err")?));
                    for call in self.normal.apply(&read("calls")?).lines() {
                        transcript += &format!("call| {call}\n");
                    }
                    transcript += &format!("rc={}\n", code.trim());
                }
            }
        }
        let (before, after) = (read_lossy(&work.join("before"))?, read_lossy(&work.join("after"))?);
        transcript += "$ tree\n";
        transcript += &self.normal.apply(&changes(&listing(&before), &listing(&after)));
        Ok(transcript)
    }
}

fn read_lossy(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&fs_err::read(path)?).into_owned())
}

impl Everywhere {
    fn apply(&self, expected: &str) -> String {
        let apply = |pattern: &Regex| pattern.replace_all(expected, self.theirs.as_str()).into_owned();
        self.pattern.as_ref().map_or_else(|| expected.to_owned(), apply)
    }
}

/// What `--version` ends with.
fn version(dkms: &Path) -> Result<String> {
    let output = Command::new(dkms).arg("--version").stdin(Stdio::null()).output()?;
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(line.trim().rsplit(['-', ' ']).next().unwrap_or_default().to_owned())
}

impl Difference {
    /// Puts what the other dkms does in the place of what is expected from ours.
    fn apply(&self, expected: &str) -> Result<String> {
        let title = format!("$ {}\n", self.command);
        let mut titles = expected.match_indices(&title).map(|(at, _)| at);
        let start = titles
            .by_ref()
            .filter(|&at| at == 0 || expected[..at].ends_with('\n'))
            .nth(self.nth.saturating_sub(1))
            .map(|at| at + title.len());
        let start = start.with_context(|| format!("a listed difference is of no command here: {self:?}"))?;
        let end = expected[start..].find("\n$ ").map_or(expected.len(), |length| start + length + 1);
        let block = &expected[start..end];
        let at = if self.ours.is_empty() { Some(0) } else { block.find(&self.ours) };
        let at = at.with_context(|| format!("a listed difference is not in the expected block: {self:?}"))?;
        let rest = &expected[start + at + self.ours.len()..];
        Ok(format!("{}{}{rest}", &expected[..start + at], self.theirs))
    }
}

fn first() -> usize {
    1
}

enum Step {
    Setup(String),
    Command(String),
}

fn parse(script: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for line in script.lines() {
        match line.split_at_checked(2) {
            Some(("+ ", rest)) => steps.push(Step::Setup(rest.to_owned())),
            Some(("$ ", rest)) => steps.push(Step::Command(rest.to_owned())),
            _ if line.is_empty() || line.starts_with('#') => {}
            _ => bail!("neither a setup (+) nor a command ($): {line}"),
        }
    }
    Ok(steps)
}

/// `1| line`; `1> line` where the line does not end.
fn quoted(stream: char, text: &str) -> String {
    let mut quoted = String::new();
    for line in text.split_inclusive('\n') {
        let mark = if line.ends_with('\n') { '|' } else { '>' };
        let line = line.trim_end_matches('\n');
        quoted += format!("{stream}{mark} {line}").trim_end();
        quoted.push('\n');
    }
    quoted
}

/// Path → what it is: `/` for a directory, ` -> target` for a link. Without an empty `build`
/// directory, which dkms leaves in some states and nobody looks for, and what each program keeps
/// for itself.
fn listing(found: &str) -> BTreeMap<String, String> {
    let own = |path: &str| {
        path.contains("/.hooks/") || path.ends_with("/.hooks") || path.ends_with("/dkms_dbversion")
    };
    let mut listing: BTreeMap<_, _> = found
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let (kind, path) = (fields.next()?, fields.next()?);
            let what = match kind {
                "d" => "/".to_owned(),
                "l" => format!(" -> {}", fields.next()?),
                _ => String::new(),
            };
            Some((path.replacen("/usr/lib/modules", "/lib/modules", 1), what))
        })
        .filter(|(path, _)| !own(path))
        .collect();
    let paths: Vec<_> = listing.keys().cloned().collect();
    for (number, path) in paths.iter().enumerate() {
        let empty = paths.get(number + 1).is_none_or(|next| !next.starts_with(&format!("{path}/")));
        if path.starts_with("/var/lib/dkms/") && path.ends_with("/build") && empty {
            listing.remove(path);
        }
    }
    listing
}

/// What came (`+`) and went (`-`); of directories only what else would not show: new empty ones,
/// and the topmost of those that went.
fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> String {
    let mut lines = Vec::new();
    for (path, what) in before {
        let parent_went = path
            .rsplit_once('/')
            .is_some_and(|(parent, _)| before.contains_key(parent) && !after.contains_key(parent));
        if after.get(path) != Some(what) && !parent_went {
            lines.push((path, format!("- {path}{what}\n")));
        }
    }
    for (path, what) in after {
        let within = format!("{path}/");
        let shows = what == "/"
            && after.range(within.clone()..).next().is_some_and(|(next, _)| next.starts_with(&within));
        if before.get(path) != Some(what) && !shows {
            lines.push((path, format!("+ {path}{what}\n")));
        }
    }
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Takes the machine, the time and the version out of an output.
struct Normal(Vec<(Regex, String)>);

impl Normal {
    fn new() -> Result<Self> {
        let host = nix::sys::utsname::uname()?;
        let (release, machine) = (host.release().to_string_lossy(), host.machine().to_string_lossy());
        let jobs = std::thread::available_parallelism()?;
        // Written for a regex crate without Unicode classes.
        let patterns = [
            (r"dkms-[0-9]+(\.[0-9]+)+[^ )\n]*".to_owned(), "dkms-X.Y.Z"),
            (format!(r"(make.*) -j{jobs}( |$)"), "$1 -jN$2"),
            (regex::escape(&release), "RUNNING"),
            (regex::escape(&machine), "x86_64"),
            (
                r"(?m)(Mon|Tue|Wed|Thu|Fri|Sat|Sun) .*[0-9]:[0-9][0-9]:[0-9][0-9].* [0-9]{4}$".to_owned(),
                "DATE",
            ),
            (r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z".to_owned(), "TIME"),
            (r"elapsed time: [0-9][0-9]:[0-9][0-9]:[0-9][0-9]".to_owned(), "elapsed time: hh:mm:ss"),
        ];
        let compiled = patterns.into_iter().map(|(pattern, by)| Ok((Regex::new(&pattern)?, by.to_owned())));
        Ok(Self(compiled.collect::<Result<_>>()?))
    }

    fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (pattern, by)| pattern.replace_all(&text, by).into_owned())
    }
}
