// SPDX-License-Identifier: MIT OR Apache-2.0
//! Modules packed for other machines: archives, which are also unpacked, without trusting them;
//! packages, driver disks and system extensions. Prints nothing, registers nothing; what an archive means
//! for the trees is decided in `commands`.

pub mod built;
pub mod compression;
pub mod debian;
pub mod driver_disk;
pub mod layout;
pub mod rpm;
mod staging;
pub mod sysext;
pub mod tarball;
pub mod unpack;

use std::path::{Component, Path};

/// Whether a symbolic link at `link` (relative to a directory) leads to something in that
/// directory, wherever the directory is moved to. A `..` after a name is refused as well: if the
/// name is a link itself, only the file system knows where that leads.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    let mut descended = false;
    target.components().all(|component| match component {
        Component::CurDir => true,
        Component::Normal(_) => {
            descended = true;
            true
        }
        Component::ParentDir if descended || depth == 0 => false,
        Component::ParentDir => {
            depth -= 1;
            true
        }
        Component::RootDir | Component::Prefix(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::beside("a/link", "file", true)]
    #[case::up("a/link", "../file", true)]
    #[case::the_directory_itself("a/link", "..", true)]
    #[case::here("link", "./file", true)]
    #[case::out("link", "../file", false)]
    #[case::out_from_below("a/link", "../../file", false)]
    #[case::absolute("a/link", "/etc/passwd", false)]
    #[case::down_and_up("a/link", "b/../c", false)]
    fn links_lead_where_they_may(#[case] link: &str, #[case] target: &str, #[case] inside: bool) {
        assert_eq!(stays_inside(Path::new(link), Path::new(target)), inside);
    }
}
