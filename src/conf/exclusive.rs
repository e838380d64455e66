// SPDX-License-Identifier: MIT OR Apache-2.0
//! BUILD_EXCLUSIVE_*: for which kernels a module is meant (dkms(8)).

use super::directives::{Directives, ModuleConf};
use super::ere;
use crate::kernel::{KernelConfig, compare_versions};
use crate::module::Target;

/// The constraints of one index; what is `None` constrains nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exclusive {
    /// An extended regular expression on the kernel release.
    pub kernel: Option<String>,
    /// The lowest version, inclusive.
    pub kernel_min: Option<String>,
    /// The highest version; what continues it ("4.12-rc1" for "4.12") is above it.
    pub kernel_max: Option<String>,
    /// OBSOLETE_BY, which dkms takes for the highest version if that is not set.
    pub obsolete_by: Option<String>,
    /// An extended regular expression on the architecture.
    pub arch: Option<String>,
    /// Symbols that have to be enabled, or with `!` before them not to be.
    pub config: Option<String>,
}

/// The directives' names, in the order of the fields.
pub(super) const NAMES: [&str; 5] = [
    "BUILD_EXCLUSIVE_KERNEL",
    "BUILD_EXCLUSIVE_KERNEL_MIN",
    "BUILD_EXCLUSIVE_KERNEL_MAX",
    "BUILD_EXCLUSIVE_ARCH",
    "BUILD_EXCLUSIVE_CONFIG",
];

impl Exclusive {
    pub(super) fn read(from: &Directives, index: usize) -> Self {
        let [kernel, kernel_min, kernel_max, arch, config] = NAMES.map(|name| from.element(name, index));
        let obsolete_by = from.scalar("OBSOLETE_BY").filter(|_| index == 0 && kernel_max.is_none());
        Self { kernel, kernel_min, kernel_max, obsolete_by, arch, config }
    }

    /// Whether nothing is constrained.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the target meets all the constraints.
    pub fn admits(&self, target: &Target, config: &KernelConfig) -> bool {
        self.unmet(target, config).is_none()
    }

    /// The first constraint that the target does not meet, as the conf has it. An invalid regular
    /// expression matches nothing, as in dkms.
    fn unmet(&self, target: &Target, config: &KernelConfig) -> Option<String> {
        let kernel = target.kernel.as_str();
        let enabled = |words: &str| {
            words.split_whitespace().all(|word| match word.strip_prefix('!') {
                Some(symbol) => !config.enabled(symbol),
                None => config.enabled(word),
            })
        };
        let met =
            |constraint: &Option<String>, test: &dyn Fn(&str) -> bool| constraint.as_deref().is_none_or(test);
        let is_at_most = |max: &str| compare_versions(kernel, max).is_le();
        let constraints = [
            (&self.kernel, met(&self.kernel, &|pattern| ere::matches(pattern, kernel))),
            (&self.kernel_min, met(&self.kernel_min, &|min| compare_versions(kernel, min).is_ge())),
            (&self.kernel_max, met(&self.kernel_max, &is_at_most)),
            (&self.obsolete_by, met(&self.obsolete_by, &is_at_most)),
            (&self.arch, met(&self.arch, &|pattern| ere::matches(pattern, target.arch.as_str()))),
            (&self.config, met(&self.config, &enabled)),
        ];
        let [kernel, min, max, arch, config] = NAMES;
        let names = [kernel, min, max, "OBSOLETE_BY", arch, config];
        let (name, (constraint, _)) = names.iter().zip(constraints).find(|(_, (_, met))| !met)?;
        Some(format!("{name}=\"{}\"", constraint.as_deref().unwrap_or_default()))
    }
}

impl ModuleConf {
    /// For each record, whether it is not to be built for the target: index 0 constrains all of
    /// them, the others one record each. `build_exclude` excludes all.
    pub fn excluded_records(&self, target: &Target, config: &KernelConfig) -> Vec<bool> {
        let none = self.excludes_all(target, config);
        self.records.iter().map(|record| none || !record.exclusive.admits(target, config)).collect()
    }

    /// Whether nothing of the module is to be built for the target (exit code 77).
    pub fn is_excluded(&self, target: &Target, config: &KernelConfig) -> bool {
        let excluded = self.excluded_records(target, config);
        match excluded.is_empty() {
            true => self.excludes_all(target, config),
            false => excluded.into_iter().all(|excluded| excluded),
        }
    }

    /// What rules the target out, in the words of the conf; nothing if something is to be built.
    pub fn why_excluded(&self, target: &Target, config: &KernelConfig) -> Option<String> {
        if !self.is_excluded(target, config) {
            return None;
        }
        let unmet = || self.records.iter().find_map(|record| record.exclusive.unmet(target, config));
        let set = || "build_exclude=\"yes\"".to_owned();
        self.exclusive.unmet(target, config).or_else(unmet).or_else(|| Some(set()))
    }

    fn excludes_all(&self, target: &Target, config: &KernelConfig) -> bool {
        self.build_exclude || !self.exclusive.admits(target, config)
    }

    /// Whether the conf sets any BUILD_EXCLUSIVE_* directive.
    pub fn has_exclusive(&self) -> bool {
        !self.exclusive.is_empty() || self.records.iter().any(|record| !record.exclusive.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::{Variables, directives};
    use crate::module::Arch;
    use rstest::rstest;

    fn target() -> Target {
        Target { kernel: "6.1.0-56-amd64".parse().unwrap(), arch: Arch::new("x86_64").unwrap() }
    }

    fn conf(settings: &[(&str, usize, &str)]) -> ModuleConf {
        let mut vars = Variables::new();
        vars.set("PACKAGE_NAME", "m");
        vars.set("PACKAGE_VERSION", "1");
        for index in 0..2 {
            vars.set_element("BUILT_MODULE_NAME", index, format!("m{index}"));
            vars.set_element("DEST_MODULE_LOCATION", index, "/updates");
        }
        for (name, index, value) in settings {
            vars.set_element(&format!("BUILD_EXCLUSIVE_{name}"), *index, *value);
        }
        directives::read(&vars, "/x").unwrap()
    }

    fn kernel_config() -> KernelConfig {
        KernelConfig::new("CONFIG_PCI=y\nCONFIG_USB=m\n# CONFIG_RT is not set\n")
    }

    #[rstest]
    #[case::unconstrained(&[], &[false, false])]
    #[case::kernel(&[("KERNEL", 0, "^6\\.1\\.")], &[false, false])]
    #[case::other_kernel(&[("KERNEL", 0, "^5\\.")], &[true, true])]
    #[case::invalid_pattern(&[("KERNEL", 0, "*")], &[true, true])]
    #[case::own_of_second(&[("KERNEL", 1, "^5\\.")], &[false, true])]
    #[case::both(&[("KERNEL", 0, "^6"), ("ARCH", 1, "i.86")], &[false, true])]
    #[case::arch(&[("ARCH", 0, "x86")], &[false, false])]
    #[case::min_same_series(&[("KERNEL_MIN", 0, "6.1")], &[false, false])]
    #[case::min_above(&[("KERNEL_MIN", 0, "6.9")], &[true, true])]
    #[case::max_same_series(&[("KERNEL_MAX", 0, "6.1")], &[true, true])]
    #[case::max_above(&[("KERNEL_MAX", 0, "6.12")], &[false, false])]
    #[case::max_itself(&[("KERNEL_MAX", 0, "6.1.0-56-amd64")], &[false, false])]
    #[case::enabled(&[("CONFIG", 0, "CONFIG_PCI CONFIG_USB !CONFIG_RT")], &[false, false])]
    #[case::not_enabled(&[("CONFIG", 0, "CONFIG_PCI CONFIG_RT")], &[true, true])]
    #[case::unwanted(&[("CONFIG", 0, "!CONFIG_USB")], &[true, true])]
    fn records_are_excluded(#[case] settings: &[(&str, usize, &str)], #[case] want: &[bool]) {
        let conf = conf(settings);
        let why = conf.why_excluded(&target(), &kernel_config());
        let (name, _, value) = settings.first().copied().unwrap_or_default();
        let set =
            want.iter().all(|excluded| *excluded).then(|| format!("BUILD_EXCLUSIVE_{name}=\"{value}\""));
        assert_eq!(why, set);
        assert_eq!(conf.excluded_records(&target(), &kernel_config()), want);
        assert_eq!(conf.is_excluded(&target(), &kernel_config()), want.iter().all(|excluded| *excluded));
        assert_eq!(conf.has_exclusive(), !settings.is_empty());
    }

    #[rstest]
    #[case::later_kernel("6.2", None, false)]
    #[case::this_series("6.1", None, true)]
    #[case::limit_of_its_own("6.1", Some("6.2"), false)]
    fn obsolete_by_stands_in_for_the_highest_version(
        #[case] obsolete_by: &str,
        #[case] max: Option<&str>,
        #[case] excluded: bool,
    ) {
        let mut vars = Variables::new();
        for (name, value) in
            [("PACKAGE_NAME", "m"), ("PACKAGE_VERSION", "1"), ("DEST_MODULE_LOCATION", "/updates")]
        {
            vars.set(name, value);
        }
        vars.set("OBSOLETE_BY", obsolete_by);
        max.into_iter().for_each(|max| vars.set("BUILD_EXCLUSIVE_KERNEL_MAX", max));
        let conf = directives::read(&vars, "/x").unwrap();
        let why = conf.why_excluded(&target(), &kernel_config());
        assert_eq!(why.as_deref(), excluded.then_some("OBSOLETE_BY=\"6.1\""));
    }

    #[test]
    fn a_conf_may_exclude_itself() {
        let mut conf = conf(&[]);
        conf.build_exclude = true;
        assert!(conf.is_excluded(&target(), &kernel_config()));
        assert_eq!(conf.why_excluded(&target(), &kernel_config()).unwrap(), "build_exclude=\"yes\"");
        conf.records.clear();
        assert!(conf.is_excluded(&target(), &kernel_config()));
        conf.build_exclude = false;
        assert!(!conf.is_excluded(&target(), &kernel_config()));
    }
}
