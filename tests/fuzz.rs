// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever others wrote is read without a panic, without end in neither time nor memory, and without
//! leaving its place: damaged and hostile inputs for everything that reads files and standard input.
//!
//! One row per reader (`fuzz/targets/`). Seeds (`fuzz/seeds/TARGET/`, and what is made by
//! `fuzz/made.rs`) are mutated (`fuzz/mutate.rs`), the same way each time. What comes to something that
//! no input came to before is mutated further, which leads deeper without instrumented code: that
//! takes a nightly compiler. Each row runs in a process of its own, because a stack that overflows
//! cannot be caught, and because memory can be bounded for processes only.
//!
//! `FUZZ_SECONDS=600` takes that long for each row, with other mutations each time (make fuzz);
//! `FUZZ_SEED` tells which. What fails is kept in `target/fuzz/TARGET-HASH`, and tried again by
//! `FUZZ_INPUT=target/fuzz/TARGET-HASH cargo test --test fuzz TARGET`.
#![allow(
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test drives programs itself"
)]

#[path = "fuzz/made.rs"]
mod made;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/targets/mod.rs"]
mod targets;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use libtest_mimic::{Arguments, Trial};
use nix::sys::resource::{Resource, setrlimit};
use nix::time::{ClockId, clock_gettime};

use mutate::Mutator;
use targets::{Target, targets};

/// What one input may take of a processor, in a build without optimization.
const TIME: Duration = Duration::from_secs(2);

/// What a row's process may take of memory, in bytes, with all libraries and stacks.
const MEMORY: u64 = 1 << 30;

/// How many inputs are mutated further, beside the seeds.
const KEPT: usize = 4000;

fn main() -> Result<ExitCode> {
    let words: Vec<String> = std::env::args().collect();
    if let [_, worker, name, scratch] = words.as_slice()
        && worker == "worker"
    {
        let target = targets().find(|target| target.name == name).expect("a target of this name");
        return Ok(work(target, Path::new(scratch)).unwrap_or_else(|error| {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }));
    }
    let arguments = Arguments::from_args();
    let row = |target: &'static Target| {
        Trial::test(target.name, move || watch(target).map_err(|error| format!("{error:#}").into()))
    };
    libtest_mimic::run(&arguments, targets().map(row).collect()).exit();
}

/// Has another process do the work, and keeps the input that ends it.
fn watch(target: &Target) -> Result<()> {
    let mut scratch = tempfile::Builder::new();
    let scratch = scratch.prefix("dkms-fuzz-");
    // Inputs are written by the thousand, some with an fsync.
    let memory = Path::new("/dev/shm");
    let scratch = if memory.is_dir() { scratch.tempdir_in(memory)? } else { scratch.tempdir()? };
    let output = Command::new(std::env::current_exe()?)
        .args(["worker", target.name])
        .arg(scratch.path())
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        write!(std::io::stderr(), "{said}")?;
        return Ok(());
    }
    let input = fs_err::read(scratch.path().join("input"))?;
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    fs_err::create_dir_all(&kept)?;
    let name = format!("{}-{:016x}", target.name, hash(&input));
    fs_err::write(kept.join(&name), &input)?;
    let how = output.status.signal().map(|signal| format!("killed by signal {signal}\n")).unwrap_or_default();
    bail!(
        "{how}{said}{}\nagain: FUZZ_INPUT=target/fuzz/{name} cargo test --test fuzz {} -- --exact",
        String::from_utf8_lossy(&output.stderr),
        target.name
    )
}

/// Reads inputs until there were enough of them. The one that is being read is in `input`.
fn work(target: &Target, scratch: &Path) -> Result<ExitCode> {
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let file = fs_err::File::create(scratch.join("input"))?;
    let room = scratch.join("room");
    fs_err::create_dir(&room)?;
    let started = watchdog();
    let read = |input: &[u8]| -> Result<String> {
        file.file().set_len(input.len() as u64)?;
        file.file().write_all_at(input, 0)?;
        let before = cpu()?;
        started.store(u64::try_from(before.as_millis())?, Ordering::Relaxed);
        let came_to = (target.read)(input, &room);
        let took = cpu()?.saturating_sub(before);
        if took > TIME {
            bail!("an input of {} bytes took {:.1} s", input.len(), took.as_secs_f32());
        }
        Ok(came_to)
    };
    if let Some(path) = std::env::var_os("FUZZ_INPUT").map(PathBuf::from) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        writeln!(std::io::stdout(), "{}", read(&fs_err::read(path)?)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seconds = number("FUZZ_SECONDS").map(Duration::from_secs);
    let seed = number("FUZZ_SEED").unwrap_or_else(|| seconds.map_or(1, |_| fastrand::u64(..)));
    let began = Instant::now();
    let mut mutator = Mutator::new(seed, target.words);
    let mut corpus = made::seeds(target.name)?;
    let seeds = corpus.len();
    assert!(seeds > 0, "no seeds for {}", target.name);
    let mut known = HashSet::new();
    for input in &corpus {
        known.insert(shape(&read(input)?));
    }
    let mut count = seeds;
    while seconds.map_or(count < target.inputs, |seconds| began.elapsed() < seconds) {
        let input = mutator.mutated(&corpus);
        count += 1;
        if known.insert(shape(&read(&input)?)) && corpus.len() < seeds + KEPT {
            corpus.push(input);
        }
    }
    writeln!(
        std::io::stdout(),
        "{}: {count} inputs, {} outcomes, {:.1} s, seed {seed}",
        target.name,
        known.len(),
        cpu()?.as_secs_f32()
    )?;
    Ok(ExitCode::SUCCESS)
}

/// What this process has taken of processors.
fn cpu() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// Ends this process where one input takes for ever. It is told when each one began.
fn watchdog() -> Arc<AtomicU64> {
    let started = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&started);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let since = Duration::from_millis(seen.load(Ordering::Relaxed));
            if cpu().is_ok_and(|now| now.saturating_sub(since) > 5 * TIME) {
                let _ = writeln!(std::io::stderr(), "an input takes for ever");
                std::process::abort();
            }
        }
    });
    started
}

/// What an input came to, large numbers and quoted words aside: these would make everything new.
fn shape(came_to: &str) -> u64 {
    let outside: String = came_to.split(['"', '\'', '`']).step_by(2).collect();
    let parts = outside.split_inclusive(|c: char| !c.is_ascii_digit());
    let is_large = |part: &str| part.starts_with(|c: char| c.is_ascii_digit()) && part.len() > 2;
    hash(parts.map(|part| if is_large(part) { "#" } else { part }).collect::<String>().as_bytes())
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
