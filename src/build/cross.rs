// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules for other machines than this one: which compiler makes them, and how kbuild is told
//! (Documentation/kbuild/kbuild.rst: ARCH, CROSS_COMPILE).

use std::path::PathBuf;

use crate::machine::{Given, Machine};
use crate::module::{Arch, Target};
use crate::sys::tools;
use crate::tree::kernels::BuildDir;

/// How modules for another machine are built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cross {
    /// kbuild's name for the machine.
    arch: String,
    /// `aarch64-linux-gnu-`; also a path.
    prefix: String,
    clang: bool,
}

/// Why modules cannot be built for another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoCross {
    /// The headers are for this other machine.
    Headers(&'static str),
    /// There is no compiler; the usual one's prefix.
    Compiler(String),
}

/// Whether a kernel's modules can be built here; nothing if this machine's own compiler makes them.
/// `is_there` tells whether there are programs whose names begin like this.
pub fn find(
    kernel: &BuildDir,
    target: &Target,
    own: &Arch,
    command: Option<&str>,
    given: &Given,
    is_there: &dyn Fn(&str) -> bool,
) -> Result<Option<Cross>, NoCross> {
    let headers = Machine::of_config(&kernel.config);
    let asked = Machine::of_name(&target.arch);
    // dkms calls every kernel by this machine's name unless it is told otherwise.
    if let (Some(headers), Some(asked)) = (headers, asked)
        && headers.kernel != asked.kernel
        && target.arch != *own
    {
        return Err(NoCross::Headers(headers.name));
    }
    let (Some(machine), Some(own)) = (headers.or(asked), Machine::of_name(own)) else { return Ok(None) };
    if machine.kernel == own.kernel {
        return Ok(None);
    }
    let arch = given.arch.clone().unwrap_or_else(|| machine.kernel.to_owned());
    let clang = kernel.clang || given.llvm;
    let usual = || machine.prefixes().next().unwrap_or_default();
    let compiler = |prefix: &String| is_there(&format!("{prefix}gcc"));
    let prefix = match &given.cross_compile {
        Some(prefix) => prefix.clone(),
        // clang takes its target from it, whatever is installed.
        None if clang => usual(),
        None => match machine.prefixes().find(compiler) {
            Some(prefix) => prefix,
            // The conf may know where its own compiler is.
            None if command.is_some_and(names_compiler) => usual(),
            None => return Err(NoCross::Compiler(usual())),
        },
    };
    Ok(Some(Cross { arch, prefix, clang }))
}

fn names_compiler(command: &str) -> bool {
    ["CROSS_COMPILE=", "CC=", "LLVM="].iter().any(|variable| command.contains(variable))
}

impl Cross {
    /// The variables for commands and scripts; what the environment has of them is the same.
    pub(super) fn variables(&self) -> Vec<(String, String)> {
        vec![("ARCH".to_owned(), self.arch.clone()), ("CROSS_COMPILE".to_owned(), self.prefix.clone())]
    }

    /// What is appended to a make command, which overrules makefiles; not what the command says
    /// itself.
    pub(super) fn suffix(&self, command: Option<&str>) -> String {
        let said = |name: &str| {
            let assigns = |word: &str| word.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
            command.is_some_and(|command| command.split_whitespace().any(assigns))
        };
        let words = self.variables().into_iter().filter(|(name, _)| !said(name));
        words.map(|(name, value)| format!(" {name}={}", shell_words::quote(&value))).collect()
    }

    /// The program that strips such modules.
    pub(super) fn strip(&self) -> Option<PathBuf> {
        tools::find(&format!("{}strip", self.prefix))
            .or_else(|| tools::find("llvm-strip").filter(|_| self.clang))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{KernelConfig, KernelRelease};
    use rstest::rstest;

    const ARM64: &str = "CONFIG_ARM64=y\n";
    const AMD64: &str = "CONFIG_X86_64=y\n";

    fn kernel(config: &str) -> BuildDir {
        BuildDir { path: PathBuf::from("/b"), config: KernelConfig::new(config), clang: false }
    }

    fn on(
        own: &str,
        config: &str,
        asked: &str,
        given: &Given,
        there: &[&str],
    ) -> Result<Option<Cross>, NoCross> {
        let kernel_release: KernelRelease = "6.1".parse().unwrap();
        let target = Target { kernel: kernel_release, arch: Arch::new(asked).unwrap() };
        let is_there = |name: &str| there.iter().any(|program| program.starts_with(name));
        find(&kernel(config), &target, &Arch::new(own).unwrap(), None, given, &is_there)
    }

    fn cross(arch: &str, prefix: &str) -> Result<Option<Cross>, NoCross> {
        Ok(Some(Cross { arch: arch.to_owned(), prefix: prefix.to_owned(), clang: false }))
    }

    #[rstest]
    #[case::own("x86_64", AMD64, "x86_64", Ok(None))]
    #[case::own_without_configuration("x86_64", "", "x86_64", Ok(None))]
    #[case::under_a_32_bit_personality("i686", AMD64, "i686", Ok(None))]
    #[case::a_32_bit_kernel("x86_64", "CONFIG_X86_32=y\n", "x86_64", Ok(None))]
    #[case::a_32_bit_kernel_by_name("x86_64", "CONFIG_X86_32=y\n", "i686", Ok(None))]
    #[case::unheard_of("x86_64", "", "vax", Ok(None))]
    #[case::on_the_unheard_of("vax", ARM64, "aarch64", Ok(None))]
    #[case::asked_for("x86_64", ARM64, "aarch64", cross("arm64", "aarch64-linux-gnu-"))]
    #[case::without_configuration("x86_64", "", "aarch64", cross("arm64", "aarch64-linux-gnu-"))]
    #[case::by_the_headers_alone("x86_64", ARM64, "x86_64", cross("arm64", "aarch64-linux-gnu-"))]
    #[case::versioned_compiler("x86_64", "CONFIG_S390=y\n", "s390x", cross("s390", "s390x-linux-gnu-"))]
    #[case::by_another_name("aarch64", "CONFIG_ARM=y\n", "armv7l", cross("arm", "arm-linux-gnu-"))]
    #[case::other_headers("x86_64", AMD64, "aarch64", Err(NoCross::Headers("x86_64")))]
    #[case::no_compiler("x86_64", "", "riscv64", Err(NoCross::Compiler("riscv64-linux-gnu-".to_owned())))]
    fn compilers_are_found(
        #[case] own: &str,
        #[case] config: &str,
        #[case] asked: &str,
        #[case] want: Result<Option<Cross>, NoCross>,
    ) {
        let there = ["aarch64-linux-gnu-gcc", "s390x-linux-gnu-gcc-12", "arm-linux-gnu-gcc"];
        assert_eq!(on(own, config, asked, &Given::default(), &there), want);
    }

    #[test]
    fn the_environment_goes_first() {
        let given = Given { cross_compile: Some("/opt/a64-".to_owned()), ..Given::default() };
        assert_eq!(on("x86_64", ARM64, "aarch64", &given, &[]), cross("arm64", "/opt/a64-"));
        let given = Given { llvm: true, ..Given::default() };
        let want = Cross { arch: "arm64".to_owned(), prefix: "aarch64-linux-gnu-".to_owned(), clang: true };
        assert_eq!(on("x86_64", ARM64, "aarch64", &given, &[]), Ok(Some(want)));
    }

    #[rstest]
    #[case::default(None, " ARCH=arm64 CROSS_COMPILE=a64-")]
    #[case::none_said(Some("make -C src KARCH=x"), " ARCH=arm64 CROSS_COMPILE=a64-")]
    #[case::one_said(Some("make CROSS_COMPILE=/opt/b-"), " ARCH=arm64")]
    fn a_command_keeps_what_it_says(#[case] command: Option<&str>, #[case] want: &str) {
        let cross = Cross { arch: "arm64".to_owned(), prefix: "a64-".to_owned(), clang: false };
        assert_eq!(cross.suffix(command), want);
    }
}
