// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processes that led to this one, from proc(5).

use std::path::Path;

/// A process that may have ended since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// When it began, in clock ticks since the machine's start: with the pid, nobody else.
    pub started: u64,
    /// Its command line.
    pub words: Vec<String>,
}

/// The processes that led to this one, the parent first; as far as `proc` shows them.
pub fn ancestors(proc: &Path) -> Vec<Process> {
    let mut found = Vec::new();
    let mut pid = nix::unistd::getppid().as_raw();
    // Parents that end meanwhile could make a circle of reused numbers.
    while pid > 0 && found.len() < 64 {
        let directory = proc.join(pid.to_string());
        let Some((parent, started)) =
            fs_err::read_to_string(directory.join("stat")).ok().and_then(|stat| parse(&stat))
        else {
            break;
        };
        let line = fs_err::read(directory.join("cmdline")).unwrap_or_default();
        let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        let mut words: Vec<String> = words.collect();
        // Each word is ended by a NUL.
        words.pop();
        found.push(Process { pid, started, words });
        pid = parent;
    }
    found
}

/// The parent's pid and the start time of `/proc/PID/stat`: fields 4 and 22, counted behind the
/// program's name, which may hold anything.
fn parse(stat: &str) -> Option<(i32, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    Some((parent, fields.nth(17)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_hides_nothing() {
        let stat = "42 (a) b) 7 S) S 17 42 42 0 -1 4194560 9 0 0 0 0 0 0 0 20 0 1 0 123456 2 3\n";
        assert_eq!(parse(stat), Some((17, 123_456)));
    }

    #[test]
    fn our_parents_are_there_and_end_with_the_first_process() {
        let found = ancestors(Path::new("/proc"));
        assert_eq!(found[0].pid, nix::unistd::getppid().as_raw());
        assert!(found[0].started > 0 && !found[0].words.is_empty(), "{:?}", found[0]);
    }
}
