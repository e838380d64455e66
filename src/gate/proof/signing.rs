// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a kernel takes signed modules only, and whether it would know a signature's maker
//! (kernel/module/signing.c, security/lockdown).

use std::cell::OnceCell;

use anyhow::Result;
use fs_err as fs;

use super::command_line::{SIGNATURES_OFF, Word};
use super::firmware::{self, Enrolled, SecureBoot};
use crate::kernel::{KernelConfig, KernelRelease};
use crate::module_file::{Certificate, Signer, signed, signers};
use crate::tree::Tree;

/// What becomes of modules that are not signed as they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Enforcement {
    /// They are loaded.
    Off,
    /// They are refused where firmware insists on signatures, which cannot be told from here.
    WithSecureBoot,
    /// They are refused, because of this.
    On(String),
}

impl Enforcement {
    /// Finds out for a kernel from its configuration, its command line and this machine's firmware,
    /// if there is a machine to look at.
    pub fn of(config: &KernelConfig, words: &[Word], secure_boot: SecureBoot) -> Self {
        let on = |name: &str| config.enabled(name);
        if words.iter().any(|word| word.text == SIGNATURES_OFF) {
            return Self::Off;
        }
        if on("CONFIG_MODULE_SIG_FORCE") {
            return Self::On("CONFIG_MODULE_SIG_FORCE".to_owned());
        }
        if !on("CONFIG_MODULE_SIG") {
            return Self::Off;
        }
        let lockdown = on("CONFIG_SECURITY_LOCKDOWN_LSM")
            && (on("CONFIG_SECURITY_LOCKDOWN_LSM_EARLY")
                || config
                    .value("CONFIG_LSM")
                    .is_some_and(|list| list.split(',').any(|lsm| lsm == "lockdown")));
        for name in
            ["CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY", "CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY"]
        {
            if lockdown && on(name) {
                return Self::On(name.to_owned());
            }
        }
        let enforces = |word: &&Word| match word.text.split_once('=') {
            Some(("lockdown", level)) => lockdown && matches!(level, "integrity" | "confidentiality"),
            Some(("module.sig_enforce", value)) => value.starts_with(['1', 'y', 'Y']) || value == "on",
            _ => word.text == "module.sig_enforce",
        };
        if let Some(Word { text, source }) = words.iter().find(enforces) {
            return Self::On(format!("{text} in {source}"));
        }
        // The first two are patches of distributions; the third is in Linux since 5.0.
        let follows_firmware = (lockdown
            && (on("CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT") || on("CONFIG_EFI_SECURE_BOOT_LOCK_DOWN")))
            || on("CONFIG_IMA_ARCH_POLICY");
        match secure_boot {
            SecureBoot::On if follows_firmware => Self::On("Secure Boot".to_owned()),
            SecureBoot::Unknown if follows_firmware => Self::WithSecureBoot,
            _ => Self::Off,
        }
    }
}

/// What a kernel makes of signatures.
#[derive(Debug)]
pub(super) struct Signatures<'a> {
    tree: &'a Tree,
    kernel: &'a KernelRelease,
    enforcement: Enforcement,
    /// Signatures are looked at, enforced or not.
    checked: bool,
    /// No certificates were compiled in but those that the kernel's own modules are signed with.
    own_certificates_only: bool,
    /// The makers of the signature of one of the kernel's own modules.
    own: Vec<Signer>,
    machine: bool,
    enrolled: OnceCell<Enrolled>,
}

/// What is wrong with a signature, or may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Objection {
    Refused(String),
    Doubt(String),
}

impl<'a> Signatures<'a> {
    /// `machine` says whether the firmware in /sys is that of the machine that boots this kernel;
    /// `own` are the makers of one of its own modules' signature.
    pub fn new(
        tree: &'a Tree,
        kernel: &'a KernelRelease,
        config: &KernelConfig,
        words: &[Word],
        machine: bool,
        own: Vec<Signer>,
    ) -> Self {
        let secure_boot = if machine { firmware::secure_boot(tree) } else { SecureBoot::Unknown };
        let on = |name: &str| config.enabled(name);
        Self {
            tree,
            kernel,
            enforcement: Enforcement::of(config, words, secure_boot),
            checked: on("CONFIG_MODULE_SIG") || on("CONFIG_MODULE_SIG_FORCE"),
            own_certificates_only: on("CONFIG_MODULE_SIG")
                && config.value("CONFIG_SYSTEM_TRUSTED_KEYS").is_none_or(str::is_empty),
            own,
            machine,
            enrolled: OnceCell::new(),
        }
    }

    /// Looks at an unpacked module.
    pub fn object(&self, image: &[u8]) -> Option<Objection> {
        let signature = match signed(image) {
            // Refused whether or not signatures are enforced.
            Err(error) if self.checked => return Some(Objection::Refused(format!("{error:#}"))),
            Err(_) => None,
            Ok(signature) => signature,
        };
        let kernel = self.kernel;
        let (because, certain) = match &self.enforcement {
            Enforcement::Off => return None,
            Enforcement::On(because) => (because.as_str(), true),
            Enforcement::WithSecureBoot => ("Secure Boot", false),
        };
        let Some(signature) = signature else {
            return Some(if certain {
                Objection::Refused(format!(
                    "it is not signed, and kernel {kernel} takes signed modules only ({because}; once it can be \
                     signed, build and install it with --force)"
                ))
            } else {
                Objection::Doubt(format!(
                    "it is not signed: with Secure Boot, kernel {kernel} would refuse it"
                ))
            });
        };
        let makers = match signers(signature.signature) {
            Ok(makers) => makers,
            Err(error) => return Some(Objection::Doubt(format!("could not tell who signed it: {error:#}"))),
        };
        if makers.iter().any(|maker| self.own.contains(maker)) {
            return None;
        }
        let names: Vec<String> = makers.iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        if !self.machine {
            return Some(Objection::Doubt(format!(
                "it is signed with the key of '{names}': could not tell from here whether the machine knows that"
            )));
        }
        let enrolled = self.enrolled.get_or_init(|| firmware::enrolled(self.tree));
        let is_one = |certificate: &Certificate| makers.iter().any(|maker| certificate.is_of(maker));
        if enrolled.certificates.iter().any(is_one) {
            return None;
        }
        // Made on this machine, it cannot have been compiled into the kernel.
        let mok = self.tree.dkms.join("mok.pub");
        let is_ours = fs::read(&mok).is_ok_and(|der| Certificate::read(&der).is_ok_and(|one| is_one(&one)));
        let can_be_compiled_in = !is_ours && (!self.own_certificates_only || self.own.is_empty());
        if !enrolled.incomplete && certain && !can_be_compiled_in {
            return Some(Objection::Refused(format!(
                "it is signed with the key of '{names}', which is not enrolled on this machine, and kernel {kernel} \
                 takes no other ({because}); enroll it (mokutil --import {}) and confirm at the next boot",
                mok.display()
            )));
        }
        Some(Objection::Doubt(format!("could not tell whether kernel {kernel} knows the key of '{names}'")))
    }

    /// The makers of a module's signature, if it has one that can be read.
    pub fn makers(image: &[u8]) -> Result<Vec<Signer>> {
        signed(image)?.map_or_else(|| Ok(Vec::new()), |signed| signers(signed.signature))
    }
}

#[cfg(test)]
mod tests {
    use super::super::firmware::tests::{certificates, set};
    use super::*;
    use rstest::rstest;

    const SIG: &str = "CONFIG_MODULE_SIG=y\n";
    const DEBIAN: &str = "CONFIG_MODULE_SIG=y\nCONFIG_SECURITY_LOCKDOWN_LSM=y\nCONFIG_SECURITY_LOCKDOWN_LSM_EARLY=y\n\
                          CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT=y\nCONFIG_SYSTEM_TRUSTED_KEYS=\"debian.pem\"\n";
    const FORCE: &str = "CONFIG_MODULE_SIG=y\nCONFIG_MODULE_SIG_FORCE=y\nCONFIG_SYSTEM_TRUSTED_KEYS=\"\"\n";
    const LSM: &str = "CONFIG_MODULE_SIG=y\nCONFIG_SECURITY_LOCKDOWN_LSM=y\nCONFIG_LSM=\"yama,lockdown\"\n";
    const MOK: &[u8] = include_bytes!("../../../tests/fixtures/signing/mok.der");
    const OTHER: &[u8] = include_bytes!("../../../tests/fixtures/signing/other.der");
    const SIGNATURE: &[u8] = include_bytes!("../../../tests/fixtures/signing/by-certificate.p7s");

    #[rstest]
    #[case::nothing("", "", SecureBoot::On, "off")]
    #[case::signatures_only(SIG, "quiet", SecureBoot::On, "off")]
    #[case::force(FORCE, "", SecureBoot::Off, "CONFIG_MODULE_SIG_FORCE")]
    #[case::force_switched_off(FORCE, "module.sig_unenforce", SecureBoot::Off, "off")]
    #[case::word(SIG, "quiet module.sig_enforce=1", SecureBoot::Off, "module.sig_enforce=1 in f")]
    #[case::bare_word(SIG, "module.sig_enforce", SecureBoot::Off, "module.sig_enforce in f")]
    #[case::word_off(SIG, "module.sig_enforce=0", SecureBoot::Off, "off")]
    #[case::word_without_signatures("", "module.sig_enforce=1", SecureBoot::Off, "off")]
    #[case::lockdown(LSM, "lockdown=integrity", SecureBoot::Off, "lockdown=integrity in f")]
    #[case::lockdown_none(LSM, "lockdown=none", SecureBoot::Off, "off")]
    #[case::lockdown_unknown_to_it(SIG, "lockdown=integrity", SecureBoot::Off, "off")]
    #[case::lockdown_compiled_in(
        &format!("{LSM}CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY=y\n"), "", SecureBoot::Off,
        "CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY"
    )]
    #[case::debian_with_secure_boot(DEBIAN, "", SecureBoot::On, "Secure Boot")]
    #[case::debian_without(DEBIAN, "", SecureBoot::Off, "off")]
    #[case::debian_somewhere(DEBIAN, "", SecureBoot::Unknown, "with secure boot")]
    #[case::vanilla_with_secure_boot(LSM, "", SecureBoot::On, "off")]
    #[case::ima(&format!("{SIG}CONFIG_IMA_ARCH_POLICY=y\n"), "", SecureBoot::On, "Secure Boot")]
    fn signatures_are_enforced_by_many(
        #[case] config: &str,
        #[case] words: &str,
        #[case] secure_boot: SecureBoot,
        #[case] want: &str,
    ) {
        let word = |text: &str| Word { text: text.to_owned(), source: "f".to_owned() };
        let words: Vec<Word> = words.split_whitespace().map(word).collect();
        let found = match Enforcement::of(&KernelConfig::new(config), &words, secure_boot) {
            Enforcement::Off => "off".to_owned(),
            Enforcement::WithSecureBoot => "with secure boot".to_owned(),
            Enforcement::On(because) => because,
        };
        assert_eq!(found, want);
    }

    /// A module with this signature.
    fn module(signature: &[u8]) -> Vec<u8> {
        let length = u32::try_from(signature.len()).unwrap().to_be_bytes();
        [b"content", signature, &[0, 0, 2, 0, 0, 0, 0, 0], &length, b"~Module signature appended~\n"].concat()
    }

    #[rstest]
    #[case::not_enforced(DEBIAN, b"content".to_vec(), &[("SecureBoot", vec![0])], None)]
    #[case::unsigned(FORCE, b"content".to_vec(), &[], Some(("refused", "takes signed modules only (CONFIG_MODULE_SIG_FORCE;")))]
    #[case::broken(SIG, [b"too short", b"~Module signature appended~\n" as &[u8]].concat(), &[], Some(("refused", "cut short")))]
    #[case::not_looked_at("", [b"too short", b"~Module signature appended~\n" as &[u8]].concat(), &[], None)]
    #[case::unreadable(FORCE, module(b"rubbish"), &[], Some(("doubt", "who signed it")))]
    #[case::enrolled(DEBIAN, module(SIGNATURE), &[("SecureBoot", vec![1]), ("MokListRT", certificates(MOK))], None)]
    #[case::not_enrolled_and_ours(
        DEBIAN, module(SIGNATURE), &[("SecureBoot", vec![1]), ("MokListRT", certificates(OTHER))],
        Some(("refused", "'DKMS module signing key', which is not enrolled on this machine"))
    )]
    #[case::lists_unreadable(
        DEBIAN, module(SIGNATURE), &[("SecureBoot", vec![1]), ("MokListRT", b"rubbish".to_vec())],
        Some(("doubt", "knows the key of 'DKMS module signing key'"))
    )]
    fn a_signature_has_to_be_of_a_known_key(
        #[case] config: &str,
        #[case] image: Vec<u8>,
        #[case] variables: &[(&str, Vec<u8>)],
        #[case] want: Option<(&str, &str)>,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        fs::create_dir_all(tree.path("/sys/firmware")).unwrap();
        fs::create_dir_all(&tree.dkms).unwrap();
        fs::write(tree.dkms.join("mok.pub"), MOK).unwrap();
        variables.iter().for_each(|(name, value)| set(&tree, name, value));
        expect(&tree, config, true, Vec::new(), &image, want);
    }

    #[rstest]
    #[case::in_an_image(FORCE, false, another(), Some(("doubt", "could not tell from here")))]
    #[case::as_the_kernels_own_modules(FORCE, false, signers(SIGNATURE).unwrap(), None)]
    #[case::of_nobody_whom_the_kernel_knows(FORCE, true, another(), Some(("refused", "not enrolled")))]
    #[case::own_modules_unsigned(FORCE, true, Vec::new(), Some(("doubt", "knows the key of")))]
    #[case::perhaps_compiled_in(
        &FORCE.replace("\"\"", "\"vendor.pem\""), true, another(), Some(("doubt", "knows the key of"))
    )]
    fn a_key_of_others_may_be_the_kernels_own(
        #[case] config: &str,
        #[case] machine: bool,
        #[case] own: Vec<Signer>,
        #[case] want: Option<(&str, &str)>,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        expect(&tree, config, machine, own, &module(SIGNATURE), want);
    }

    fn another() -> Vec<Signer> {
        vec![Signer::Key(vec![1])]
    }

    fn expect(
        tree: &Tree,
        config: &str,
        machine: bool,
        own: Vec<Signer>,
        image: &[u8],
        want: Option<(&str, &str)>,
    ) {
        let kernel = "6.1".parse().unwrap();
        let signatures = Signatures::new(tree, &kernel, &KernelConfig::new(config), &[], machine, own);
        let found = signatures.object(image);
        let (kind, words) = match &found {
            None => ("", ""),
            Some(Objection::Refused(words)) => ("refused", words.as_str()),
            Some(Objection::Doubt(words)) => ("doubt", words.as_str()),
        };
        let (want_kind, want_words) = want.unwrap_or_default();
        assert!(kind == want_kind && words.contains(want_words), "{found:?}");
    }

    #[test]
    fn with_secure_boot_an_unsigned_module_may_be_refused() {
        let dir = tempfile::tempdir().unwrap();
        expect(
            &Tree::at(dir.path()),
            DEBIAN,
            false,
            Vec::new(),
            b"content",
            Some(("doubt", "with Secure Boot, kernel 6.1 would refuse it")),
        );
    }
}
