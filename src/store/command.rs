// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a build's command names outside of the build: files are part of its key; directories, and
//! what only a shell could tell, make a build that cannot be known in advance.

use std::path::{Component, Path};

use anyhow::Result;

use super::key::Inputs;
use super::toolchain::{self, identity};
use crate::sys::root::Root;

/// Takes a command's files in. Returns whether that is all that it names beside what lies below
/// `known`, whose content is in the key already.
pub fn take(inputs: &mut Inputs, root: &Root, command: &str, known: &[&Path]) -> Result<bool> {
    // How many processors there are changes nothing in what is built.
    let rest = command.replace("$(nproc)", "").replace("`nproc`", "");
    if rest.contains("$(") || rest.contains('`') {
        return Ok(false);
    }
    for word in rest.split(|c: char| c.is_whitespace() || "=\"';&|()<>,:{}".contains(c)) {
        // An option may have its argument joined to it: `-C/usr/src/x`.
        let argument = word.find('/').filter(|_| word.starts_with('-'));
        let word = argument.map_or(word, |at| &word[at..]);
        let path = Path::new(word);
        if path.components().any(|part| part == Component::ParentDir) {
            return Ok(false);
        }
        if word.len() > 1 && word.ends_with('-') && !word.starts_with('-') {
            inputs.digest(word, toolchain::digest(root, word)?);
        }
        if !word.starts_with('/') || known.iter().any(|known| path.starts_with(known)) {
            continue;
        }
        if path.is_dir() {
            return Ok(false);
        }
        if path.is_file() {
            inputs.text(word, &identity(path)?);
        }
    }
    Ok(true)
}

/// Takes in the programs that variables name: `CC=/opt/bin/gcc`, `CROSS_COMPILE=/opt/bin/x-`.
pub fn take_programs(inputs: &mut Inputs, root: &Root, variables: &[(String, String)]) -> Result<()> {
    for (_, value) in variables {
        if value.ends_with('-') && value.len() > 1 && !value.contains(char::is_whitespace) {
            inputs.digest(value, toolchain::digest(root, value)?);
        }
        for word in value.split_whitespace().filter(|word| word.starts_with('/')) {
            if Path::new(word).is_file() {
                inputs.text(word, &identity(Path::new(word))?);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::files;
    use rstest::rstest;

    fn machine() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in ["opt/gcc/bin/gcc", "opt/gcc/bin/x-gcc", "usr/src/jobs.mk", "usr/src/other-1.0/Makefile"]
        {
            files::write_atomically(&dir.path().join(path), b"one", 0o755).unwrap();
        }
        dir
    }

    #[rstest]
    #[case::usual("make -C <headers> M=/d/foo/1.0/build", true)]
    #[case::below_known("make -C /d/foo/1.0/build/src all", true)]
    #[case::not_there("make DESTDIR=/nowhere", true)]
    #[case::file("make -f @/usr/src/jobs.mk", true)]
    #[case::processors("make -j$(nproc) all", true)]
    #[case::substitution("make KVER=$(uname -r)", false)]
    #[case::old_substitution("make KVER=`uname -r`", false)]
    #[case::other_sources("make -C @/usr/src/other-1.0", false)]
    #[case::other_headers("make EXTRA='-I@/usr/src/other-1.0'", false)]
    #[case::joined("make -C@/usr/src/other-1.0", false)]
    #[case::upwards("make -C src/../../other", false)]
    fn some_commands_name_more_than_can_be_known(#[case] command: &str, #[case] want: bool) {
        let (dir, mut inputs) = (machine(), Inputs::default());
        let known = [Path::new("/d/foo/1.0/build")];
        let command = command.replace('@', dir.path().to_str().unwrap());
        assert_eq!(take(&mut inputs, &Root::at(dir.path()), &command, &known).unwrap(), want);
    }

    #[rstest]
    #[case::makefile("make -f @/usr/src/jobs.mk", "usr/src/jobs.mk")]
    #[case::compiler("make CC=@/opt/gcc/bin/gcc", "opt/gcc/bin/gcc")]
    #[case::prefix("make CROSS_COMPILE=@/opt/gcc/bin/x-", "opt/gcc/bin/x-gcc")]
    fn a_named_file_is_an_input(#[case] command: &str, #[case] path: &str) {
        let dir = machine();
        let key = || {
            let (root, mut inputs) = (Root::at(dir.path()), Inputs::default());
            let command = command.replace('@', dir.path().to_str().unwrap());
            assert!(take(&mut inputs, &root, &command, &[]).unwrap());
            inputs.key()
        };
        let before = key();
        fs_err::write(dir.path().join(path), "two").unwrap();
        assert_ne!(key(), before);
    }

    #[test]
    fn a_program_in_the_environment_is_an_input() {
        let dir = machine();
        let key = || {
            let (root, mut inputs) = (Root::at(dir.path()), Inputs::default());
            let compiler = format!("ccache {}/opt/gcc/bin/gcc", dir.path().display());
            take_programs(&mut inputs, &root, &[("CC".to_owned(), compiler)]).unwrap();
            inputs.key()
        };
        let before = key();
        fs_err::write(dir.path().join("opt/gcc/bin/gcc"), "two").unwrap();
        assert_ne!(key(), before);
    }
}
