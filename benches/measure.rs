// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a command costs, for `benches/bench.sh`: `measure COUNT COMMAND ARGUMENT…` runs it COUNT
//! times and prints a line per run: wall seconds, CPU seconds of the whole tree of processes, CPU
//! seconds of the command's own process alone, and the largest resident set so far in KiB. The
//! command's output goes to standard error.

use std::io::Write;
#[expect(clippy::disallowed_types, reason = "sys::tools would be part of what is measured")]
use std::process::Command;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match measure(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "measure: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(words: &[String]) -> Result<()> {
    let [count, program, arguments @ ..] = words else {
        bail!("expected: measure COUNT COMMAND ARGUMENT…");
    };
    for _ in 0..count.parse().context("reading COUNT")? {
        let before = tree_cpu()?;
        let started = Instant::now();
        #[expect(clippy::disallowed_types)]
        let mut command = Command::new(program);
        command.args(arguments).stdin(std::process::Stdio::null()).stdout(std::io::stderr());
        let mut child = command.spawn().with_context(|| format!("starting {program}"))?;
        // Ended but not reaped: the clock of its own threads still runs under its id, and does not
        // count its children, which wait4(2)'s figures do.
        let id = Pid::from_raw(child.id().try_into()?);
        waitid(Id::Pid(id), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).context("waiting")?;
        let wall = started.elapsed();
        let own: Duration = clock_gettime(clock_getcpuclockid(id)?).context("reading its clock")?.into();
        let status = child.wait().context("reaping")?;
        if !status.success() {
            bail!("{program}: {status}");
        }
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        writeln!(
            std::io::stdout(),
            "{:.6} {:.6} {:.6} {}",
            wall.as_secs_f64(),
            (tree_cpu()? - before).as_secs_f64(),
            own.as_secs_f64(),
            usage.max_rss()
        )?;
    }
    Ok(())
}

/// User and system time of all children that have been reaped, and of theirs.
fn tree_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(Duration::from_micros((usage.user_time() + usage.system_time()).num_microseconds().try_into()?))
}
