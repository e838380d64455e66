// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machines that kernels are built for: what uname(2), kbuild, ELF and GNU toolchains call
//! them. Pure: nothing here looks at the disk.

use object::Architecture;

use crate::kernel::KernelConfig;
use crate::module::Arch;

/// A machine that kernels are built for.
#[derive(Debug, PartialEq, Eq)]
pub struct Machine {
    /// What uname(2) calls it; where that is one of several names, the usual one.
    pub name: &'static str,
    /// What kbuild calls it, `ARCH=`. Machines with the same one share a compiler.
    pub kernel: &'static str,
    pub elf: Architecture,
    /// What in a kernel's configuration tells the machine; `!` in front: what must be absent.
    symbols: &'static [&'static str],
    /// What the names of cross compilers begin with, without the last hyphen, the usual one first.
    toolchains: &'static [&'static str],
}

const fn machine(
    name: &'static str,
    kernel: &'static str,
    elf: Architecture,
    symbols: &'static [&'static str],
    toolchains: &'static [&'static str],
) -> Machine {
    Machine { name, kernel, elf, symbols, toolchains }
}

/// Toolchains as Debian names them (Multiarch/Tuples), then as Fedora and SUSE do.
const MACHINES: [Machine; 17] = [
    machine("x86_64", "x86", Architecture::X86_64, &["X86_64"], &["x86_64-linux-gnu", "x86_64-suse-linux"]),
    machine("i686", "x86", Architecture::I386, &["X86_32"], &["i686-linux-gnu", "i586-suse-linux"]),
    machine(
        "aarch64",
        "arm64",
        Architecture::Aarch64,
        &["ARM64"],
        &["aarch64-linux-gnu", "aarch64-suse-linux"],
    ),
    machine(
        "armv7l",
        "arm",
        Architecture::Arm,
        &["ARM"],
        &["arm-linux-gnueabihf", "arm-linux-gnueabi", "arm-linux-gnu", "arm-suse-linux-gnueabi"],
    ),
    machine(
        "ppc64le",
        "powerpc",
        Architecture::PowerPc64,
        &["PPC64", "CPU_LITTLE_ENDIAN"],
        &["powerpc64le-linux-gnu", "powerpc64le-suse-linux"],
    ),
    machine(
        "ppc64",
        "powerpc",
        Architecture::PowerPc64,
        &["PPC64", "!CPU_LITTLE_ENDIAN"],
        &["powerpc64-linux-gnu", "powerpc64-suse-linux"],
    ),
    machine("ppc", "powerpc", Architecture::PowerPc, &["PPC32"], &["powerpc-linux-gnu"]),
    machine(
        "riscv64",
        "riscv",
        Architecture::Riscv64,
        &["RISCV", "64BIT"],
        &["riscv64-linux-gnu", "riscv64-suse-linux"],
    ),
    machine("riscv32", "riscv", Architecture::Riscv32, &["RISCV", "!64BIT"], &["riscv32-linux-gnu"]),
    machine("s390x", "s390", Architecture::S390x, &["S390"], &["s390x-linux-gnu", "s390x-suse-linux"]),
    machine(
        "loongarch64",
        "loongarch",
        Architecture::LoongArch64,
        &["LOONGARCH"],
        &["loongarch64-linux-gnu"],
    ),
    machine(
        "mips64el",
        "mips",
        Architecture::Mips64,
        &["MIPS", "64BIT", "CPU_LITTLE_ENDIAN"],
        &["mips64el-linux-gnuabi64", "mips64el-linux-gnu"],
    ),
    machine(
        "mips64",
        "mips",
        Architecture::Mips64,
        &["MIPS", "64BIT", "!CPU_LITTLE_ENDIAN"],
        &["mips64-linux-gnuabi64", "mips64-linux-gnu"],
    ),
    machine(
        "mipsel",
        "mips",
        Architecture::Mips,
        &["MIPS", "!64BIT", "CPU_LITTLE_ENDIAN"],
        &["mipsel-linux-gnu", "mips64el-linux-gnu"],
    ),
    machine(
        "mips",
        "mips",
        Architecture::Mips,
        &["MIPS", "!64BIT", "!CPU_LITTLE_ENDIAN"],
        &["mips-linux-gnu", "mips64-linux-gnu"],
    ),
    machine("sparc64", "sparc", Architecture::Sparc64, &["SPARC64"], &["sparc64-linux-gnu"]),
    machine("alpha", "alpha", Architecture::Alpha, &["ALPHA"], &["alpha-linux-gnu"]),
];

impl Machine {
    /// The machine that a kernel is built for. Its configuration has the last word: on a 64-bit
    /// machine dkms calls 32-bit kernels by the machine's name. Nothing for a machine that we do not
    /// know, and for an i686, which a 64-bit one is called under a 32-bit personality.
    pub fn of_kernel(config: &KernelConfig, arch: &Arch) -> Option<&'static Self> {
        let by_name = || Self::of_name(arch).filter(|machine| machine.name != "i686");
        Self::of_config(config).or_else(by_name)
    }

    /// The machine that a configuration is for, if that says so.
    pub fn of_config(config: &KernelConfig) -> Option<&'static Self> {
        let holds = |symbol: &&str| match symbol.strip_prefix('!') {
            Some(symbol) => !config.enabled(&format!("CONFIG_{symbol}")),
            None => config.enabled(&format!("CONFIG_{symbol}")),
        };
        MACHINES.iter().find(|machine| machine.symbols.iter().all(holds))
    }

    /// The machine of this name, as `uname -m` and dkms write it.
    pub fn of_name(arch: &Arch) -> Option<&'static Self> {
        let name = match arch.as_str() {
            "i386" | "i486" | "i586" => "i686",
            arm if arm.starts_with("armv") => "armv7l",
            name => name,
        };
        MACHINES.iter().find(|machine| machine.name == name)
    }

    /// What the names of the programs that build for this machine begin with elsewhere
    /// (`CROSS_COMPILE`), the usual one first.
    pub fn prefixes(&self) -> impl Iterator<Item = String> {
        self.toolchains.iter().map(|toolchain| format!("{toolchain}-"))
    }
}

/// What the environment says of kbuild's variables (Documentation/kbuild/kbuild.rst), which goes
/// before what we would set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    pub arch: Option<String>,
    pub cross_compile: Option<String>,
    /// `LLVM=1`: clang, which builds for every machine.
    pub llvm: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::amd64("CONFIG_X86=y\nCONFIG_X86_64=y\nCONFIG_64BIT=y\n", Some("x86_64"))]
    #[case::pae("CONFIG_X86=y\nCONFIG_X86_32=y\n", Some("i686"))]
    #[case::arm64("CONFIG_ARM64=y\nCONFIG_64BIT=y\n", Some("aarch64"))]
    #[case::armhf("CONFIG_ARM=y\nCONFIG_CPU_V7=y\n", Some("armv7l"))]
    #[case::ppc64el("CONFIG_PPC=y\nCONFIG_PPC64=y\nCONFIG_CPU_LITTLE_ENDIAN=y\n", Some("ppc64le"))]
    #[case::ppc64("CONFIG_PPC=y\nCONFIG_PPC64=y\n", Some("ppc64"))]
    #[case::riscv64("CONFIG_RISCV=y\nCONFIG_64BIT=y\n", Some("riscv64"))]
    #[case::mips64el("CONFIG_MIPS=y\nCONFIG_64BIT=y\nCONFIG_CPU_LITTLE_ENDIAN=y\n", Some("mips64el"))]
    #[case::mipsel("CONFIG_MIPS=y\nCONFIG_CPU_LITTLE_ENDIAN=y\n", Some("mipsel"))]
    #[case::says_nothing("CONFIG_SMP=y\n", None)]
    fn a_configuration_tells_the_machine(#[case] config: &str, #[case] want: Option<&str>) {
        assert_eq!(Machine::of_config(&KernelConfig::new(config)).map(|machine| machine.name), want);
    }

    #[rstest]
    #[case::usual("x86_64", Some(("x86", "x86_64-linux-gnu-")))]
    #[case::old_pc("i486", Some(("x86", "i686-linux-gnu-")))]
    #[case::raspberry("armv6l", Some(("arm", "arm-linux-gnueabihf-")))]
    #[case::arm64("aarch64", Some(("arm64", "aarch64-linux-gnu-")))]
    #[case::power("ppc64le", Some(("powerpc", "powerpc64le-linux-gnu-")))]
    #[case::mainframe("s390x", Some(("s390", "s390x-linux-gnu-")))]
    #[case::unheard_of("vax", None)]
    fn a_name_tells_the_machine(#[case] name: &str, #[case] want: Option<(&str, &str)>) {
        let machine = Machine::of_name(&Arch::new(name).unwrap());
        let found = machine.map(|machine| (machine.kernel, machine.prefixes().next().unwrap()));
        assert_eq!(found.as_ref().map(|(kernel, prefix)| (*kernel, prefix.as_str())), want);
    }

    #[test]
    fn the_configuration_goes_before_the_name() {
        let (config, arch) = (KernelConfig::new("CONFIG_X86_32=y\n"), Arch::new("x86_64").unwrap());
        assert_eq!(Machine::of_kernel(&config, &arch).unwrap().elf, Architecture::I386);
        let silent = KernelConfig::default();
        assert_eq!(Machine::of_kernel(&silent, &arch).unwrap().elf, Architecture::X86_64);
        assert_eq!(Machine::of_kernel(&silent, &Arch::new("i686").unwrap()), None);
    }
}
