// SPDX-License-Identifier: MIT OR Apache-2.0
//! systemd-boot and its kind: the entries of the Boot Loader Specification, which of them boots by
//! default, and holding one back. A held entry is renamed so that no loader takes it for one.

mod choose;
mod entry;
#[cfg(test)]
pub(super) mod fixture;
mod menu;

pub use choose::{Choice, Wishes};
pub use entry::Entry;
pub use menu::{Menu, Shelved, hold, newest, put_back, put_back_all, remove_held};
pub(super) use menu::{booted_by, initramfs_of};
