// SPDX-License-Identifier: MIT OR Apache-2.0
//! framework.conf and framework.conf.d: the typed settings of the framework (dkms(8),
//! "framework.conf"). The files are shell and go through the same evaluators as a dkms.conf.
//! `continue_on_error` is known and means nothing: a run always goes on past a module that fails.

use super::Variables;
use super::compressors::{self, Compressors};

/// The variables that a framework.conf may set; dkms(8) explains them all, and bash is asked for no
/// others.
pub const NAMES: &[&str] = &[
    "source_tree",
    "dkms_tree",
    "install_tree",
    "tmp_location",
    "verbose",
    "symlink_modules",
    "autoinstall_all_kernels",
    "modprobe_on_install",
    "parallel_jobs",
    "compress_gzip_opts",
    "compress_xz_opts",
    "compress_zstd_opts",
    "build_environment",
    "post_transaction",
    "sign_file",
    "mok_signing_key",
    "mok_certificate",
    "try_sign_modules",
    "continue_on_error",
];

/// When modules are signed (`try_sign_modules`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signing {
    Always,
    Never,
    /// Everywhere but in a chroot.
    #[default]
    NotInChroot,
}

/// The settings. Where the text says *late*, it may hold `$kernelver`; see [`late`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Framework {
    /// Where sources lie, one directory `M-V` each.
    pub source_tree: String,
    pub dkms_tree: String,
    pub install_tree: String,
    pub tmp_location: String,
    pub verbose: bool,
    /// Whether installed modules are links into the dkms tree.
    pub symlink_modules: bool,
    pub autoinstall_all_kernels: bool,
    pub modprobe_on_install: bool,
    /// 0 for no limit, nothing for as many jobs as there are processors.
    pub parallel_jobs: Option<u32>,
    /// A shell file to source before builds; late.
    pub build_environment: Option<String>,
    /// A command to run after a transaction; late.
    pub post_transaction: Option<String>,
    /// The signing program; late. Without it the distribution's own.
    pub sign_file: Option<String>,
    /// A file or a `pkcs11:` URI; late. Without it `mok.key` in the dkms tree.
    pub mok_signing_key: Option<String>,
    /// Late. Without it `mok.pub` in the dkms tree.
    pub mok_certificate: Option<String>,
    pub try_sign_modules: Signing,
    /// How modules are compressed where the kernel's are.
    pub compressors: Compressors,
    /// What of the compressors' options has no effect, as warnings for those who build.
    pub about_compressors: Vec<String>,
    /// What could not be made sense of, as warnings; the default stands in for it.
    pub warnings: Vec<String>,
}

impl Default for Framework {
    fn default() -> Self {
        Self::read(&Variables::new())
    }
}

impl Framework {
    /// Takes the settings from the variables; what is unset or empty gets its default.
    pub fn read(vars: &Variables) -> Self {
        let text = |name: &str| {
            debug_assert!(NAMES.contains(&name), "{name} is read but not in NAMES");
            let value = vars.scalar(name)?;
            let value = value.strip_suffix('\r').unwrap_or(value);
            (!value.is_empty()).then(|| value.to_owned())
        };
        let switch = |name: &str| text(name).is_some();
        let directory = |name: &str, default: &str| text(name).unwrap_or_else(|| default.to_owned());
        let mut warnings = Vec::new();
        let parallel_jobs = text("parallel_jobs").and_then(|word| match word.parse::<u32>() {
            Ok(jobs) => Some(jobs),
            Err(_) => {
                warnings.push(format!("parallel_jobs is not a number: '{word}'"));
                None
            }
        });
        let try_sign_modules = match text("try_sign_modules").as_deref() {
            None | Some("not_in_chroot") => Signing::NotInChroot,
            Some("true") => Signing::Always,
            Some("false") => Signing::Never,
            Some(word) => {
                warnings.push(format!("try_sign_modules is none of true, false and not_in_chroot: '{word}'"));
                Signing::NotInChroot
            }
        };
        let (mut compressors, mut about_compressors) = (Compressors::default(), Vec::new());
        if let Some(options) = text("compress_gzip_opts") {
            compressors.gzip = compressors::gzip(&options, &mut about_compressors);
        }
        if let Some(options) = text("compress_xz_opts") {
            compressors.xz = compressors::xz(&options, &mut about_compressors);
        }
        if let Some(options) = text("compress_zstd_opts") {
            compressors.zstd = compressors::zstd(&options, &mut about_compressors);
        }
        Self {
            source_tree: directory("source_tree", "/usr/src"),
            dkms_tree: directory("dkms_tree", "/var/lib/dkms"),
            install_tree: directory("install_tree", "/lib/modules"),
            tmp_location: directory("tmp_location", "/tmp"),
            verbose: switch("verbose"),
            symlink_modules: switch("symlink_modules"),
            autoinstall_all_kernels: switch("autoinstall_all_kernels"),
            modprobe_on_install: switch("modprobe_on_install"),
            parallel_jobs,
            build_environment: text("build_environment"),
            post_transaction: text("post_transaction"),
            sign_file: text("sign_file"),
            mok_signing_key: text("mok_signing_key"),
            mok_certificate: text("mok_certificate"),
            try_sign_modules,
            compressors,
            about_compressors,
            warnings,
        }
    }
}

/// What `kernelver` has to be while framework.conf is evaluated, so that `"$kernelver"` stays
/// as it is until the target kernel is known; [`late`] puts that in.
pub const LATE_KERNELVER: &str = "$kernelver";

/// Puts the kernel release into a late setting.
pub fn late(setting: &str, kernel: &str) -> String {
    let mut out = String::with_capacity(setting.len());
    let mut rest = setting;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let braced = rest.strip_prefix("${kernelver}");
        let bare = rest
            .strip_prefix("$kernelver")
            .filter(|after| !after.starts_with(|c: char| c == '_' || c.is_ascii_alphanumeric()));
        match braced.or(bare) {
            Some(after) => {
                out.push_str(kernel);
                rest = after;
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn read(settings: &[(&str, &str)]) -> Framework {
        let mut vars = Variables::new();
        settings.iter().for_each(|(name, value)| vars.set(name, *value));
        Framework::read(&vars)
    }

    #[test]
    fn defaults_are_dkms_own() {
        let framework = Framework::default();
        assert_eq!(framework.source_tree, "/usr/src");
        assert_eq!(framework.dkms_tree, "/var/lib/dkms");
        assert_eq!(framework.install_tree, "/lib/modules");
        assert_eq!(framework.tmp_location, "/tmp");
        assert_eq!(framework.try_sign_modules, Signing::NotInChroot);
        assert!(!framework.verbose && framework.parallel_jobs.is_none() && framework.sign_file.is_none());
    }

    #[test]
    fn empty_means_unset_and_anything_else_is_on() {
        let framework = read(&[("verbose", ""), ("symlink_modules", "no"), ("dkms_tree", "")]);
        assert!(!framework.verbose && framework.symlink_modules);
        assert_eq!(framework.dkms_tree, "/var/lib/dkms");
    }

    /// `continue_on_error` says what is always so.
    #[test]
    fn every_setting_but_one_has_an_effect() {
        let (plain, odd) = (Framework::default(), |name: &str| read(&[(name, "odd")]));
        let idle: Vec<&str> = NAMES.iter().copied().filter(|name| odd(name) == plain).collect();
        assert_eq!(idle, ["continue_on_error"]);
    }

    #[test]
    fn options_of_compressors_are_settings_and_what_has_no_effect_is_told() {
        let framework = read(&[("compress_xz_opts", "-9 --x86"), ("compress_gzip_opts", "")]);
        assert_eq!((framework.compressors.xz.preset, framework.compressors.gzip), (9, 6));
        assert_eq!(framework.about_compressors.len(), 1);
        assert_eq!(Framework::default().compressors, Compressors::default());
    }

    #[rstest]
    #[case::number("3", Some(3), 0)]
    #[case::carriage_return("3\r", Some(3), 0)]
    #[case::no_limit("0", Some(0), 0)]
    #[case::word("many", None, 1)]
    fn parallel_jobs_is_a_number(#[case] word: &str, #[case] want: Option<u32>, #[case] warnings: usize) {
        let framework = read(&[("parallel_jobs", word)]);
        assert_eq!(framework.parallel_jobs, want);
        assert_eq!(framework.warnings.len(), warnings);
    }

    #[rstest]
    #[case::bare("/k/$kernelver/sign", "/k/6.1/sign")]
    #[case::braced("/k/${kernelver}x", "/k/6.1x")]
    #[case::longer_name("$kernelversion", "$kernelversion")]
    #[case::other("$HOME/$kernelver", "$HOME/6.1")]
    #[case::trailing("a$", "a$")]
    fn kernelver_expands_late(#[case] setting: &str, #[case] want: &str) {
        assert_eq!(late(setting, "6.1"), want);
    }
}
