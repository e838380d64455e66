// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much memory programs of ours may still take: what the kernel calls available (proc(5), meminfo),
//! or what a control group leaves us where that is less (Documentation/admin-guide/cgroup-v2.rst,
//! "Memory Interface Files").

use std::path::Path;

use crate::sys::files;

/// In bytes; nothing where nobody tells.
pub fn available() -> Option<u64> {
    let of_the_machine = read(Path::new("/proc/meminfo")).and_then(|text| available_in(&text));
    let groups = read(Path::new("/proc/self/cgroup")).and_then(|text| {
        let group = group_in(&text)?.to_owned();
        // Each group up to the root may have a limit of its own.
        let mut left = None;
        for group in Path::new(&group).ancestors() {
            let directory = Path::new("/sys/fs/cgroup").join(group.strip_prefix("/").ok()?);
            let number = |name: &str| read(&directory.join(name))?.trim().parse::<u64>().ok();
            // "max" is no number, and no limit.
            if let (Some(most), Some(used)) = (number("memory.max"), number("memory.current")) {
                // Pages of files go when others are wanted.
                let cached = read(&directory.join("memory.stat")).and_then(|text| inactive_files_in(&text));
                let free = most.saturating_sub(used.saturating_sub(cached.unwrap_or_default()));
                left = Some(left.map_or(free, |left: u64| left.min(free)));
            }
        }
        left
    });
    of_the_machine.into_iter().chain(groups).min()
}

fn read(path: &Path) -> Option<String> {
    files::read_if_there(path).ok().flatten()
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The group in the unified hierarchy (cgroups(7), "/proc/pid/cgroup").
fn group_in(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

fn inactive_files_in(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_available_is_read_in_bytes() {
        let text = "MemTotal:       16302328 kB\nMemFree:          512000 kB\nMemAvailable:   12000000 kB\n";
        assert_eq!(available_in(text), Some(12_288_000_000));
        assert_eq!(available_in("MemTotal: 1 kB\n"), None);
        assert_eq!(available_in("MemAvailable: 99999999999999999999 kB\n"), None);
    }

    #[test]
    fn the_group_is_that_of_the_unified_hierarchy() {
        assert_eq!(
            group_in("12:memory:/old\n0::/system.slice/apt.service\n"),
            Some("/system.slice/apt.service")
        );
        assert_eq!(group_in("12:memory:/old\n"), None);
        assert_eq!(inactive_files_in("anon 5\ninactive_file 4096\nactive_file 1\n"), Some(4096));
    }
}
