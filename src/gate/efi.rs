// SPDX-License-Identifier: MIT OR Apache-2.0
//! Variables of the EFI firmware, as Linux shows them (Documentation/filesystems/efivarfs.rst).

use std::io::{ErrorKind, Result};

use fs_err as fs;

use crate::tree::Tree;

/// Where they are.
pub(super) const VARIABLES: &str = "/sys/firmware/efi/efivars";

/// What a variable holds, without the four bytes of attributes before it; nothing if there is no
/// such variable.
pub(super) fn variable(tree: &Tree, name: &str, owner: &str) -> Result<Option<Vec<u8>>> {
    match fs::read(tree.path(format!("{VARIABLES}/{name}-{owner}"))) {
        Ok(bytes) => Ok(Some(bytes.get(4..).unwrap_or_default().to_vec())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
