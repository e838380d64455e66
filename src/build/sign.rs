// SPDX-License-Identifier: MIT OR Apache-2.0
//! Signs modules (Documentation/admin-guide/module-signing.rst): finds the kernel's own signing
//! program and this machine's key, and says what becomes of it. Never fails a build: a module
//! that could not be signed is built all the same. Keys are made in `keys`.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use fs_err as fs;

use super::keys::Keys;
use crate::conf::framework::{Framework, Signing, late};
use crate::kernel::KernelRelease;
use crate::module_file::signed;
use crate::sys::files;
use crate::sys::report::Report;
use crate::sys::tools::{Output, Run, Tool};
use crate::tree::Tree;
use crate::tree::kernels::BuildDir;

/// Where a distribution keeps the signing program and the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Custom {
    Debian,
    /// `kmodsign` and the keys of shim.
    Ubuntu,
    Other,
}

/// What signing is decided by.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    pub tree: &'a Tree,
    pub framework: &'a Framework,
    pub custom: Custom,
    pub kernel: &'a KernelRelease,
}

/// Signs the modules of one run.
#[derive(Debug)]
pub struct Signer {
    program: PathBuf,
    hash: String,
    keys: Keys,
    /// One at a time: the program may ask for a passphrase, and tokens have few sessions.
    turn: Mutex<()>,
}

impl Signer {
    /// Finds everything that signing needs, making the key if there is none, and prints dkms's
    /// lines about it. Nothing if modules will not be signed; the lines say why.
    pub fn prepare(setting: Setting<'_>, build_dir: &BuildDir, report: &Report) -> Option<Self> {
        let signer = Self::find(setting, build_dir, report).inspect_err(|why| report.line(why)).ok();
        report.line("");
        signer
    }

    fn find(setting: Setting<'_>, build_dir: &BuildDir, report: &Report) -> Result<Self, String> {
        match setting.framework.try_sign_modules {
            Signing::Never => return Err(unsigned("Module signing is disabled by policy")),
            Signing::NotInChroot if setting.tree.root.is_chroot() => {
                return Err(unsigned("Running in chroot"));
            }
            Signing::NotInChroot | Signing::Always => {}
        }
        let Some(hash) = build_dir.config.value("CONFIG_MODULE_SIG_HASH") else {
            return Err(unsigned("The kernel is built without module signing facility"));
        };
        let program = program(setting, build_dir);
        report.line(format_args!("Sign command: {}", program.display()));
        if !files::is_executable(&program) {
            return Err(unsigned(&format!("Binary {} not found", program.display())));
        }
        let keys = Keys::ready(setting, report)?;
        Ok(Self { program, hash: hash.to_owned(), keys, turn: Mutex::default() })
    }

    /// Signs a module in its place and returns what is to be kept: the signed image, or the one
    /// from before where signing failed, which is told as a warning.
    pub fn sign(
        &self,
        module: &Path,
        image: Vec<u8>,
        variables: &[(String, String)],
        report: &Report,
    ) -> Vec<u8> {
        report.line(format_args!("Signing module {}", module.display()));
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.run(module, &image, variables).unwrap_or_else(|error| {
            report.warning(format_args!("Failed to sign module '{}'!", module.display()));
            report.err(format!("{error:#}").trim_end());
            image
        })
    }

    fn run(&self, module: &Path, image: &[u8], variables: &[(String, String)]) -> Result<Vec<u8>> {
        let ended = Run::program(&self.program)
            .arg(&self.hash)
            .arg(&self.keys.key)
            .arg(&self.keys.certificate)
            .arg(module)
            .envs(variables)
            .foreground()
            .end(Output::Merged)?;
        if !ended.success() {
            let said = String::from_utf8_lossy(&ended.output).trim_end().to_owned();
            if said.is_empty() {
                bail!("{} ended with status {}", self.program.display(), ended.code());
            }
            bail!(said);
        }
        let bytes = fs::read(module)?;
        let sign_program = || format!("looking at what {} made", self.program.display());
        match signed(&bytes).with_context(sign_program)? {
            Some(signed) if signed.content == image => Ok(bytes),
            Some(_) => bail!("{} changed more than the signature", self.program.display()),
            None => bail!("{} succeeded without signing", self.program.display()),
        }
    }
}

/// The signing program, whether it is there or not.
fn program(setting: Setting<'_>, build_dir: &BuildDir) -> PathBuf {
    let Setting { tree, framework, custom, kernel } = setting;
    if let Some(path) = &framework.sign_file {
        return tree.path(late(path, kernel.as_str()));
    }
    let packaged = match custom {
        Custom::Debian => {
            let series = kernel.as_str().rsplit_once('.').map_or(kernel.as_str(), |(series, _)| series);
            Some(tree.path(format!("/usr/lib/linux-kbuild-{series}/scripts/sign-file")))
        }
        Custom::Ubuntu => Some(
            Tool::Kmodsign
                .find()
                .unwrap_or_else(|| tree.path(format!("/usr/src/linux-headers-{kernel}/scripts/sign-file"))),
        ),
        Custom::Other => None,
    };
    packaged
        .filter(|path| files::is_executable(path))
        .unwrap_or_else(|| build_dir.path.join("scripts/sign-file"))
}

/// dkms's words for the reason why modules stay unsigned.
pub(super) fn unsigned(why: &str) -> String {
    format!("{why}, modules won't be signed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::KernelConfig;
    use rstest::rstest;

    struct Machine {
        dir: tempfile::TempDir,
        tree: Tree,
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let tree = Tree::at(dir.path());
            Self { dir, tree }
        }

        /// A program below the machine's root; the script sees the module as `$4`.
        fn program(&self, path: &str, script: &str) -> PathBuf {
            let path = self.tree.path(path);
            files::write_atomically(&path, format!("#!/bin/sh\n{script}\n").as_bytes(), 0o755).unwrap();
            path
        }

        fn build_dir(&self) -> BuildDir {
            let config = KernelConfig::new("CONFIG_MODULE_SIG_HASH=\"sha512\"\n");
            BuildDir { path: self.tree.path("/lib/modules/6.1.0-5-amd64/build"), config, clang: false }
        }

        fn found(&self, framework: &Framework, custom: Custom) -> PathBuf {
            let kernel = "6.1.0-5-amd64".parse().unwrap();
            let setting = Setting { tree: &self.tree, framework, custom, kernel: &kernel };
            let path = program(setting, &self.build_dir());
            Path::new("/").join(path.strip_prefix(self.dir.path()).unwrap_or(&path))
        }
    }

    #[rstest]
    #[case::debian(Custom::Debian, "/usr/lib/linux-kbuild-6.1/scripts/sign-file")]
    #[case::other(Custom::Other, "/lib/modules/6.1.0-5-amd64/build/scripts/sign-file")]
    fn distributions_have_their_own_program(#[case] custom: Custom, #[case] want: &str) {
        let machine = Machine::new();
        machine.program("/usr/lib/linux-kbuild-6.1/scripts/sign-file", "");
        assert_eq!(machine.found(&Framework::default(), custom), Path::new(want));
    }

    #[test]
    fn debian_falls_back_on_the_build_directory() {
        let found = Machine::new().found(&Framework::default(), Custom::Debian);
        assert_eq!(found, Path::new("/lib/modules/6.1.0-5-amd64/build/scripts/sign-file"));
    }

    #[test]
    fn the_configured_program_comes_first_and_knows_the_kernel() {
        let framework =
            Framework { sign_file: Some("/sign/$kernelver/go".to_owned()), ..Framework::default() };
        assert_eq!(Machine::new().found(&framework, Custom::Ubuntu), Path::new("/sign/6.1.0-5-amd64/go"));
    }

    #[rstest]
    #[case::policy(Signing::Never, "Module signing is disabled by policy, modules won't be signed")]
    #[case::image(Signing::NotInChroot, "Running in chroot, modules won't be signed")]
    #[case::no_program(Signing::Always, "Binary /nowhere/sign-file not found, modules won't be signed")]
    fn it_says_why_modules_stay_unsigned(#[case] try_sign_modules: Signing, #[case] want: &str) {
        let machine = Machine::new();
        let sign_file = Some("/nowhere/sign-file".to_owned());
        let framework = Framework { try_sign_modules, sign_file, ..Framework::default() };
        let kernel = "6.1.0-5-amd64".parse().unwrap();
        let setting =
            Setting { tree: &machine.tree, framework: &framework, custom: Custom::Other, kernel: &kernel };
        let report = Report::new(true, false);
        let why = Signer::find(setting, &machine.build_dir(), &report).unwrap_err();
        assert_eq!(why.replace(machine.dir.path().to_str().unwrap(), ""), want);
    }

    #[rstest]
    #[case::signed(
        r#"printf 'sig\0\0\2\0\0\0\0\0\0\0\0\3~Module signature appended~\n' >>"$4""#,
        Ok(())
    )]
    #[case::failed("echo no such key; exit 1", Err("no such key"))]
    #[case::failed_in_silence("exit 1", Err("ended with status 1"))]
    #[case::did_nothing("exit 0", Err("without signing"))]
    #[case::ruined_it(
        r#"printf 'sig\0\0\2\0\0\0\0\0\0\0\0\3~Module signature appended~\n' >"$4""#,
        Err("changed more than")
    )]
    fn only_a_signature_may_come_of_signing(#[case] script: &str, #[case] want: Result<(), &str>) {
        let machine = Machine::new();
        let keys = Keys { key: "/k".to_owned(), certificate: PathBuf::from("/c") };
        let signer = Signer {
            program: machine.program("/sign", script),
            hash: "sha256".to_owned(),
            keys,
            turn: Mutex::default(),
        };
        let module = machine.tree.path("/foo.ko");
        fs::write(&module, "module").unwrap();
        let result = signer.run(&module, b"module", &[]);
        match want {
            Ok(()) => assert!(result.unwrap().starts_with(b"modulesig")),
            Err(words) => assert!(format!("{:#}", result.unwrap_err()).contains(words)),
        }
    }
}
