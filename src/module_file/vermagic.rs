// SPDX-License-Identifier: MIT OR Apache-2.0
//! The line by which a kernel tells whether a module was built for it.

use crate::kernel::{KernelConfig, KernelRelease};

/// Compares two vermagics as the kernel's same_magic() does (kernel/module/main.c): with symbol
/// versions on both sides the release, the first word, does not count.
pub fn same_magic(module: &str, kernel: &str, has_crcs: bool) -> bool {
    if has_crcs {
        let rest =
            |magic: &'_ str| magic.find(' ').map_or(String::new(), |at| magic[at..].trim_end().to_owned());
        return rest(module) == rest(kernel);
    }
    module.trim_end() == kernel.trim_end()
}

/// The vermagic that modules of a kernel carry (include/linux/vermagic.h), as far as its
/// configuration tells: the architecture's own words are known for x86 and arm64 only.
pub fn kernel_vermagic(kernel: &KernelRelease, config: &KernelConfig) -> Option<String> {
    let on = |name: &str| config.enabled(name);
    let arch = if on("CONFIG_X86_64") {
        ""
    } else if on("CONFIG_ARM64") {
        "aarch64"
    } else {
        return None;
    };
    // RANDSTRUCT adds a hash that only a module of the same build knows.
    if on("CONFIG_RANDSTRUCT") || on("CONFIG_GCC_PLUGIN_RANDSTRUCT") {
        return None;
    }
    // PREEMPT_BUILD says it since 5.16, PREEMPT before that, whether it is dynamic or not.
    let preempt = if on("CONFIG_PREEMPT_RT") {
        "preempt_rt "
    } else if on("CONFIG_PREEMPT_BUILD") || on("CONFIG_PREEMPT") {
        "preempt "
    } else {
        ""
    };
    let word = |name: &str, word: &'static str| if on(name) { word } else { "" };
    Some(format!(
        "{kernel} {}{preempt}{}{}{arch}",
        word("CONFIG_SMP", "SMP "),
        word("CONFIG_MODULE_UNLOAD", "mod_unload "),
        word("CONFIG_MODVERSIONS", "modversions "),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn release(text: &str) -> KernelRelease {
        text.parse().unwrap()
    }

    #[rstest]
    #[case::same("6.1 SMP mod_unload ", "6.1 SMP mod_unload ", false, true)]
    #[case::other_release("6.1-55 SMP modversions ", "6.1-56 SMP modversions ", false, false)]
    #[case::other_release_with_crcs("6.1-55 SMP modversions ", "6.1-56 SMP modversions ", true, true)]
    #[case::other_flags_with_crcs("6.1-55 SMP preempt modversions ", "6.1-55 SMP modversions ", true, false)]
    fn magic_compares_as_in_the_kernel(
        #[case] a: &str,
        #[case] b: &str,
        #[case] crcs: bool,
        #[case] same: bool,
    ) {
        assert_eq!(same_magic(a, b, crcs), same);
    }

    #[test]
    fn a_kernels_vermagic_follows_its_configuration() {
        let config = KernelConfig::new(
            "CONFIG_X86_64=y\nCONFIG_SMP=y\nCONFIG_MODULE_UNLOAD=y\nCONFIG_MODVERSIONS=y\nCONFIG_PREEMPT_DYNAMIC=y\nCONFIG_PREEMPT_BUILD=y\n",
        );
        assert_eq!(
            kernel_vermagic(&release("6.1.0-56-amd64"), &config).as_deref(),
            Some("6.1.0-56-amd64 SMP preempt mod_unload modversions ")
        );
        assert_eq!(kernel_vermagic(&release("6.1"), &KernelConfig::default()), None);
    }

    #[rstest]
    #[case::since_5_16("CONFIG_PREEMPT_DYNAMIC=y\nCONFIG_PREEMPT_BUILD=y\n", "5.15 preempt ")]
    #[case::dynamic_before_5_16("CONFIG_PREEMPT=y\nCONFIG_PREEMPT_DYNAMIC=y\n", "5.15 preempt ")]
    #[case::real_time("CONFIG_PREEMPT_RT=y\n", "5.15 preempt_rt ")]
    #[case::voluntary("CONFIG_PREEMPT_VOLUNTARY=y\n", "5.15 ")]
    fn preemption_is_named_as_the_kernel_names_it(#[case] config: &str, #[case] want: &str) {
        let config = KernelConfig::new(format!("CONFIG_X86_64=y\n{config}"));
        assert_eq!(kernel_vermagic(&release("5.15"), &config).as_deref(), Some(want));
    }
}
