// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this machine's firmware says about signatures: whether Secure Boot is on, and which
//! certificates it and shim hand to the kernel. UEFI specification 2.10, 3.3 and 32.4.1.

use std::path::Path;

use fs_err as fs;

use crate::gate::efi::{VARIABLES, variable};
use crate::module_file::Certificate;
use crate::sys::files;
use crate::tree::Tree;

/// The owners of variables: EFI, the security databases, shim.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const SECURITY: &str = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";
const SHIM: &str = "605dab50-e046-4300-abb6-3dd810dd8b23";

/// Whether firmware starts signed programs only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecureBoot {
    On,
    Off,
    /// Not this machine's business, or not to be found out.
    Unknown,
}

/// Looks at the machine. The kernel takes it for off, too, where shim was told not to insist
/// (drivers/firmware/efi/libstub/secureboot.c).
pub(super) fn secure_boot(tree: &Tree) -> SecureBoot {
    if !files::exists(&tree.path("/sys/firmware")) {
        return SecureBoot::Unknown;
    }
    if !files::exists(&tree.path("/sys/firmware/efi")) {
        return SecureBoot::Off;
    }
    let set =
        |name, owner| variable(tree, name, owner).map(|value| value.map(|value| value.first() == Some(&1)));
    match (set("SecureBoot", GLOBAL), set("MokSBStateRT", SHIM)) {
        (Ok(Some(true)), Ok(Some(true))) | (Ok(Some(false)), _) => SecureBoot::Off,
        (Ok(Some(true)), _) => SecureBoot::On,
        // Variables that are not mounted are as good as unreadable.
        (Ok(None), _) if is_mounted(&tree.path(VARIABLES)) => SecureBoot::Off,
        (Ok(None) | Err(_), _) => SecureBoot::Unknown,
    }
}

/// The certificates that are enrolled on this machine.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Enrolled {
    pub certificates: Vec<Certificate>,
    /// Some could not be read, so that there may be more.
    pub incomplete: bool,
}

/// Reads the machine owner's and the firmware's lists.
pub(super) fn enrolled(tree: &Tree) -> Enrolled {
    let mut enrolled = Enrolled::default();
    let mut names = vec![("db".to_owned(), SECURITY)];
    // A list that is too long for one variable goes on in MokListRT1 and so on.
    names.extend(
        (0..=9).map(|n| (format!("MokListRT{}", if n == 0 { String::new() } else { n.to_string() }), SHIM)),
    );
    for (name, owner) in names {
        match variable(tree, &name, owner) {
            Ok(Some(list)) => enrolled.add(&list),
            Ok(None) => {}
            Err(_) => enrolled.incomplete = true,
        }
    }
    let efi = tree.path("/sys/firmware/efi");
    enrolled.incomplete |= efi.is_dir() && !is_mounted(&tree.path(VARIABLES));
    enrolled
}

fn is_mounted(variables: &Path) -> bool {
    fs::read_dir(variables).is_ok_and(|mut names| names.next().is_some())
}

impl Enrolled {
    /// Adds the X.509 certificates of a sequence of signature lists.
    fn add(&mut self, mut lists: &[u8]) {
        /// EFI_CERT_X509_GUID a5c059a1-94e4-4aa7-87b5-ab155c2bf072
        const X509: [u8; 16] =
            [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
        const HEADER: usize = 28;
        const OWNER: usize = 16;
        while !lists.is_empty() {
            let Some((list, rest)) = first_list(lists) else {
                self.incomplete = true;
                return;
            };
            lists = rest;
            let (header, size) = (number(list, 20), number(list, 24));
            let Some(signatures) = list.get(HEADER + header..).filter(|_| size > OWNER) else {
                self.incomplete = true;
                continue;
            };
            if list.starts_with(&X509) {
                for signature in signatures.chunks_exact(size) {
                    match Certificate::read(&signature[OWNER..]) {
                        Ok(certificate) => self.certificates.push(certificate),
                        Err(_) => self.incomplete = true,
                    }
                }
            }
        }
    }
}

/// The first list, as long as it says that it is.
fn first_list(lists: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = number(lists, 16);
    if length < 28 { None } else { lists.split_at_checked(length) }
}

/// A little-endian number of four bytes; 0 where there are fewer.
fn number(bytes: &[u8], at: usize) -> usize {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::module_file::signers;
    use rstest::rstest;

    const MOK: &[u8] = include_bytes!("../../../tests/fixtures/signing/mok.der");
    const OTHER: &[u8] = include_bytes!("../../../tests/fixtures/signing/other.der");
    const SIGNATURE: &[u8] = include_bytes!("../../../tests/fixtures/signing/by-certificate.p7s");
    const X509: &[u8] = b"\xa1\x59\xc0\xa5\xe4\x94\xa7\x4a\x87\xb5\xab\x15\x5c\x2b\xf0\x72";

    /// A list of signatures of one kind and one length.
    pub(crate) fn list(kind: &[u8], signatures: &[&[u8]]) -> Vec<u8> {
        let size = 16 + signatures[0].len();
        let length = 28 + size * signatures.len();
        let number = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
        let mut list = [kind, &number(length), &number(0), &number(size)].concat();
        for signature in signatures {
            list.extend([7; 16]);
            list.extend(*signature);
        }
        list
    }

    /// A list with one certificate.
    pub(crate) fn certificates(der: &[u8]) -> Vec<u8> {
        list(X509, &[der])
    }

    /// Sets a variable of a made-up machine.
    pub(crate) fn set(tree: &Tree, name: &str, value: &[u8]) {
        let owner = match name {
            "SecureBoot" => GLOBAL,
            "db" => SECURITY,
            _ => SHIM,
        };
        let path = tree.path(format!("{VARIABLES}/{name}-{owner}"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, [&[6, 0, 0, 0], value].concat()).unwrap();
    }

    #[rstest]
    #[case::bios(&[], true, SecureBoot::Off)]
    #[case::no_sysfs(&[], false, SecureBoot::Unknown)]
    #[case::on(&[("SecureBoot", 1)], true, SecureBoot::On)]
    #[case::off(&[("SecureBoot", 0)], true, SecureBoot::Off)]
    #[case::shim_does_not_insist(&[("SecureBoot", 1), ("MokSBStateRT", 1)], true, SecureBoot::Off)]
    #[case::shim_insists(&[("SecureBoot", 1), ("MokSBStateRT", 0)], true, SecureBoot::On)]
    #[case::firmware_without(&[("Boot0001", 0)], true, SecureBoot::Off)]
    fn secure_boot_is_what_the_kernel_takes_it_for(
        #[case] variables: &[(&str, u8)],
        #[case] sysfs: bool,
        #[case] want: SecureBoot,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        if sysfs {
            fs::create_dir_all(tree.path("/sys/firmware")).unwrap();
        }
        variables.iter().for_each(|(name, value)| set(&tree, name, &[*value]));
        assert_eq!(secure_boot(&tree), want);
    }

    #[test]
    fn variables_that_are_not_mounted_tell_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        fs::create_dir_all(tree.path(VARIABLES)).unwrap();
        assert_eq!(secure_boot(&tree), SecureBoot::Unknown);
        assert!(enrolled(&tree).incomplete);
    }

    #[rstest]
    #[case::mok("MokListRT", certificates(MOK), true, false)]
    #[case::next_mok("MokListRT1", certificates(MOK), true, false)]
    #[case::db("db", certificates(MOK), true, false)]
    #[case::another("db", certificates(OTHER), false, false)]
    #[case::behind_others("db", [list(&[9; 16], &[&[1; 32], &[2; 32]]), certificates(OTHER), certificates(MOK)].concat(), true, false)]
    #[case::cut_short("db", certificates(MOK)[..100].to_vec(), false, true)]
    #[case::no_certificate("db", certificates(b"rubbish"), false, true)]
    #[case::no_length("db", vec![0; 40], false, true)]
    #[case::not_of_the_kind_that_counts("dbx", certificates(MOK), false, false)]
    fn certificates_are_found_in_the_lists(
        #[case] name: &str,
        #[case] value: Vec<u8>,
        #[case] is_enrolled: bool,
        #[case] incomplete: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        set(&tree, name, &value);
        let enrolled = enrolled(&tree);
        let signer = &signers(SIGNATURE).unwrap()[0];
        assert_eq!(enrolled.certificates.iter().any(|certificate| certificate.is_of(signer)), is_enrolled);
        assert_eq!(enrolled.incomplete, incomplete);
    }
}
