// SPDX-License-Identifier: MIT OR Apache-2.0
//! How this run was called: what it has to be given again to be replayed. Of the environment only
//! what is on the list is looked at, so that nothing secret is written down.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::kernel::KernelRelease;
use crate::tree::runs::Record;

/// Variables of kbuild, which the programs that we run get as well.
pub const KBUILD: [&str; 9] =
    ["ARCH", "CROSS_COMPILE", "LLVM", "LLVM_IAS", "CC", "HOSTCC", "LD", "KCFLAGS", "KCPPFLAGS"];

/// Further variables that decide what a run does, or tell who comes after it.
const OTHERS: [&str; 15] = [
    "parallel_jobs",
    "DEB_MAINT_PARAMS",
    "DPKG_MAINTSCRIPT_NAME",
    "DPKG_MAINTSCRIPT_PACKAGE",
    "INITRD",
    "INSTALLKERNEL_INITRD_GENERATOR",
    "INSTALLKERNEL_STAGING_AREA",
    "KERNEL_INSTALL_BOOT_ENTRY_TYPE",
    "KERNEL_INSTALL_BOOT_ROOT",
    "KERNEL_INSTALL_ENTRY_TOKEN",
    "KERNEL_INSTALL_IMAGE_TYPE",
    "KERNEL_INSTALL_INITRD_GENERATOR",
    "KERNEL_INSTALL_LAYOUT",
    "KERNEL_INSTALL_STAGING_AREA",
    "KERNEL_INSTALL_UKI_GENERATOR",
];

/// A longer value is none of what these variables are for.
const MOST_VALUE: usize = 4096;

/// How a run was called.
#[derive(Debug, Default)]
pub struct Call {
    /// The words behind the program's name.
    pub argv: Vec<String>,
    pub directory: PathBuf,
    pub environment: BTreeMap<String, String>,
    /// What standard input gave, once somebody has asked.
    stdin: OnceLock<String>,
    /// The kernel that a replayed run took for the running one.
    pub running_kernel: Option<KernelRelease>,
    /// Whether a person calls in a package manager's stead: nobody comes after us.
    pub by_hand: bool,
    /// The run that is replayed.
    pub replay_of: Option<u64>,
}

impl Call {
    /// This process's own.
    pub fn of_this_process() -> Self {
        let argv = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let environment = listed(&|name| std::env::var(name).ok());
        Self { argv, directory, environment, ..Self::default() }
    }

    /// A protocol that a person calls.
    pub fn made_up(protocol: &str, args: &[String]) -> Self {
        let words = ["hook", protocol].into_iter().map(str::to_owned);
        let argv = words.chain(args.iter().cloned()).collect();
        Self { argv, by_hand: true, ..Self::of_this_process() }
    }

    /// That of a recorded run.
    pub fn recorded(record: &Record) -> Self {
        Self {
            argv: record.argv.clone(),
            directory: record.directory.clone(),
            environment: record.environment.clone(),
            stdin: record.stdin.clone().map(OnceLock::from).unwrap_or_default(),
            running_kernel: record.running_kernel.clone(),
            by_hand: true,
            replay_of: Some(record.run),
        }
    }

    /// A variable of the environment; only those on the list are known.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// What is given on standard input, read to its end; a recorded run's is what it was given then.
    /// `needed` leaves of it what the protocol needs, because it is written down.
    pub fn stdin(&self, needed: impl FnOnce(&str) -> String) -> Result<&str> {
        if let Some(text) = self.stdin.get() {
            return Ok(text);
        }
        let text = match self.replay_of {
            None => all_of(std::io::stdin()).context("reading standard input")?,
            Some(_) => String::new(),
        };
        Ok(self.stdin.get_or_init(|| needed(&text)))
    }

    /// Notes what a dialogue has brought: a replay is given it on standard input.
    pub fn heard(&self, text: String) {
        self.stdin.get_or_init(|| text);
    }

    /// What standard input gave, if anybody has asked.
    pub(super) fn stdin_so_far(&self) -> Option<&String> {
        self.stdin.get()
    }
}

/// What a stream gives. One file name in another encoding says nothing against the others.
fn all_of(mut stream: impl Read) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The variables on the list that are there.
fn listed(env: &dyn Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let value = |name: &&str| env(name).filter(|value| value.len() <= MOST_VALUE);
    KBUILD.iter().chain(&OTHERS).filter_map(|name| Some(((*name).to_owned(), value(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_on_the_list() {
        let all = |name: &str| Some(if name == "CC" { "x".repeat(5000) } else { "x".to_owned() });
        let found = listed(&all);
        for name in ["DEB_MAINT_PARAMS", "KERNEL_INSTALL_LAYOUT", "CROSS_COMPILE"] {
            assert!(found.contains_key(name), "{name}");
        }
        for name in ["KBUILD_SIGN_PIN", "http_proxy", "https_proxy", "PATH", "HOME", "CC"] {
            assert!(!found.contains_key(name), "{name}");
        }
    }

    #[test]
    fn a_name_in_another_encoding_hides_no_other() {
        let text = all_of(&b"usr/lib/modules/gr\xfc\xdfe/x\nusr/lib/modules/6.1/vmlinuz\n"[..]).unwrap();
        assert_eq!(text.lines().nth(1), Some("usr/lib/modules/6.1/vmlinuz"));
    }

    #[test]
    fn a_replayed_run_reads_what_it_was_given() {
        let record = Record { stdin: Some("zfs\n".to_owned()), run: 3, ..Record::default() };
        let call = Call::recorded(&record);
        assert_eq!((call.stdin(str::to_owned).unwrap(), call.replay_of), ("zfs\n", Some(3)));
        assert_eq!(Call::recorded(&Record::default()).stdin(str::to_owned).unwrap(), "");
    }
}
