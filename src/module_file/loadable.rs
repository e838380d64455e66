// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a kernel would take a module.

use anyhow::{Context, Result, bail};
use object::Object as _;

use super::{ModInfo, canonical, same_magic};
use crate::kernel::KernelRelease;
use crate::machine::Machine;

/// What a module has to be for a kernel to take it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The module's own name, where it is known: a file may be installed under another
    /// (DEST_MODULE_NAME), by which modprobe finds it.
    pub name: Option<&'a str>,
    pub kernel: &'a KernelRelease,
    /// The machine that the kernel is built for, if we know it.
    pub machine: Option<&'a Machine>,
    /// The kernel's vermagic, where it could be found out; else its release alone is compared.
    pub vermagic: Option<&'a str>,
}

/// Checks that a kernel would take a module for what it is meant to be: an ELF module for its
/// machine, of this name, whose vermagic fits. The error says which of these failed.
pub fn check_loadable(image: &[u8], wanted: Wanted<'_>) -> Result<ModInfo> {
    let Wanted { name, kernel, machine, vermagic } = wanted;
    let info = ModInfo::read(image)?;
    let elf = object::File::parse(image).context("it is not an ELF file")?;
    let built_for = elf.architecture();
    if let Some(machine) = machine.filter(|machine| machine.elf != built_for) {
        bail!("it is built for {built_for:?}, not for {}", machine.name);
    }
    // Kernels before 4.13 wrote no name.
    if let (Some(own), Some(name)) = (info.get("name"), name)
        && canonical(own) != canonical(name)
    {
        bail!("it is the module '{own}', not '{name}'");
    }
    let own = info.get("vermagic").context("it has no vermagic")?;
    let fits = match vermagic {
        Some(magic) => {
            let with_versions = magic.split(' ').any(|word| word == "modversions");
            same_magic(own, magic, with_versions && elf.section_by_name("__versions").is_some())
        }
        None => own.split(' ').next() == Some(kernel.as_str()),
    };
    if !fits {
        bail!(
            "its vermagic is '{}', kernel {kernel} wants '{}'",
            own.trim_end(),
            vermagic.unwrap_or(kernel.as_str()).trim_end()
        );
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Made;
    use super::super::tests::module;
    use super::*;
    use crate::module::Arch;
    use rstest::rstest;

    fn release(text: &str) -> KernelRelease {
        text.parse().unwrap()
    }

    fn check(image: &[u8], arch: &str, vermagic: Option<&str>) -> Result<ModInfo> {
        let (kernel, machine) = (release("6.1"), Machine::of_name(&Arch::new(arch).unwrap()));
        check_loadable(image, Wanted { name: Some("foo"), kernel: &kernel, machine, vermagic })
    }

    #[rstest]
    #[case::x86("x86_64", true)]
    #[case::arm("aarch64", false)]
    #[case::unheard_of("vax", true)]
    fn a_module_is_for_one_machine(#[case] arch: &str, #[case] fits: bool) {
        assert_eq!(check(&module(b"name=foo\0vermagic=6.1 SMP \0"), arch, None).is_ok(), fits);
    }

    #[rstest]
    #[case::good(b"name=foo\0vermagic=6.1 SMP mod_unload \0", None)]
    #[case::dashes(b"name=foo_bar\0vermagic=6.1 SMP mod_unload \0", Some("not 'foo'"))]
    #[case::other_kernel(
        b"name=foo\0vermagic=5.10 SMP mod_unload \0",
        Some("vermagic is '5.10 SMP mod_unload'")
    )]
    #[case::no_magic(b"name=foo\0", Some("no vermagic"))]
    fn a_module_is_checked_by_name_and_vermagic(#[case] info: &[u8], #[case] problem: Option<&str>) {
        let checked = check(&module(info), "x86_64", Some("6.1 SMP mod_unload "));
        match problem {
            None => assert_eq!(checked.unwrap().get("name"), Some("foo")),
            Some(words) => assert!(format!("{:#}", checked.unwrap_err()).contains(words)),
        }
    }

    /// Only a module with a list of versions may come from another release.
    #[rstest]
    #[case::with_versions(Made::new("foo").version("printk", 1), true)]
    #[case::without(Made::new("foo"), false)]
    fn versions_stand_in_for_the_release(#[case] made: Made, #[case] fits: bool) {
        let checked = check(&made.build(), "x86_64", Some("6.1.0-56 SMP mod_unload modversions "));
        assert_eq!(checked.is_ok(), fits, "{checked:?}");
    }

    #[test]
    fn rubbish_is_no_module() {
        assert!(check(b"not an ELF file", "x86_64", None).is_err());
    }

    #[test]
    fn under_another_file_name_a_module_keeps_its_own() {
        let image = module(b"name=nvidia\0vermagic=6.1 SMP \0");
        let kernel = release("6.1");
        let wanted = Wanted { name: None, kernel: &kernel, machine: None, vermagic: None };
        assert!(check_loadable(&image, wanted).is_ok());
    }
}
