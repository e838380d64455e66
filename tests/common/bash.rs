// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a real bash makes of a conf, by the program that dkms itself has it run.

use std::process::{Command, Stdio};

use dkms_hooks::conf::{ConfFile, Variables, shell};

/// Evaluates the files with that scope; the result holds these names and those of the scope.
pub fn bash<'a>(
    scope: &'a Variables,
    names: impl Iterator<Item = &'a str>,
    files: &[ConfFile],
) -> Result<Variables, String> {
    let output = Command::new("bash")
        .args(["--noprofile", "--norc", "-c", shell::SCRIPT, "dkms"])
        .args(shell::arguments_for(scope, names, files))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    shell::parse(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Leaves out what bash was not asked for.
pub fn only<'a>(vars: &Variables, names: impl Iterator<Item = &'a str>, scope: &'a Variables) -> Variables {
    let mut known = Variables::new();
    for name in names.chain(scope.names()) {
        vars.elements(name).for_each(|(index, value)| known.set_element(name, index, value));
    }
    known
}
