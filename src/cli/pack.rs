// SPDX-License-Identifier: MIT OR Apache-2.0
//! The options of `mkdriverdisk` and `mksysext`: which of them go with which action, and what they mean.

use super::action::invalid;
use super::flags::Flags;
use super::verb::Verb;
use super::{DiskArgs, ExtensionArgs};
use crate::failure::Failure;
use crate::kernel::BadName;
use crate::package::driver_disk::{FLOPPY, Layout, Media};
use crate::package::sysext::Form;

/// Refuses options of these actions with any other.
pub(super) fn options_fit(verb: Verb, flags: &Flags) -> Result<(), Failure> {
    let (disk, extension) = (verb == Verb::Mkdriverdisk, verb == Verb::Mksysext);
    let both = "only the actions mkdriverdisk and mksysext have it";
    for (option, given, fits, who) in [
        ("distro", flags.distro.is_some(), disk || extension, both),
        ("release", flags.release.is_some(), disk || extension, both),
        ("media", flags.media.is_some(), disk || extension, both),
        ("size", flags.size.is_some(), disk, "only the action mkdriverdisk has it"),
        ("directory", flags.directory, extension, "only the action mksysext has it"),
    ] {
        if given && !fits {
            return Err(invalid(option, who));
        }
    }
    Ok(())
}

/// What `mkdriverdisk` is to make.
pub(super) fn disk(flags: &Flags) -> Result<DiskArgs, Failure> {
    let word = flags.distro.as_deref().filter(|word| !word.is_empty()).ok_or(Failure::NoDistro)?;
    let layout = Layout::from_word(word).ok_or_else(|| {
        invalid("distro", format!("'{word}' is none of {}", Layout::WORDS.map(|(word, _)| word).join(", ")))
    })?;
    let release = release_name(flags)?;
    if release.is_none() && layout.names_release() {
        return Err(invalid(
            "release",
            format!("disks for {word} are laid out by it; give one, as -r sles15"),
        ));
    }
    let media = match flags.media.as_deref() {
        None => layout.usual_media(),
        Some("floppy") => Media::Floppy,
        Some("iso") => Media::Iso,
        Some("tar") => Media::Tar,
        Some(other) => return Err(invalid("media", format!("'{other}' is none of floppy, iso, tar"))),
    };
    let size = match flags.size.as_deref() {
        None => FLOPPY,
        // As dkms has it: floppies of unusual sizes still have twenty sectors of a kibibyte or more.
        Some(word) => word
            .parse()
            .ok()
            .filter(|size| *size > 0 && size % 20 == 0)
            .ok_or_else(|| invalid("size", format!("'{word}' is no number of KiB that 20 divides")))?,
    };
    Ok(DiskArgs { layout, release, media, size })
}

/// What `mksysext` is to make.
pub(super) fn extension(flags: &Flags) -> Result<ExtensionArgs, Failure> {
    let form = match flags.media.as_deref() {
        Some(_) if flags.directory => {
            return Err(invalid("media", "--directory asks for no image"));
        }
        None if flags.directory => Form::Directory,
        None => Form::Image,
        Some("squashfs") => Form::Squashfs,
        Some("erofs") => Form::Erofs,
        Some(other) => return Err(invalid("media", format!("'{other}' is none of squashfs, erofs"))),
    };
    let system = flags.distro.as_deref().filter(|word| !word.is_empty());
    if let Some(word) = system {
        BadName::check("os-release ID", word).map_err(|why| invalid("distro", why))?;
    }
    Ok(ExtensionArgs { form, system: system.map(str::to_owned), release: release_name(flags)? })
}

/// A release becomes part of names and of files with one value a line.
fn release_name(flags: &Flags) -> Result<Option<String>, Failure> {
    let Some(word) = flags.release.as_deref().filter(|word| !word.is_empty()) else { return Ok(None) };
    BadName::check("release", word).map_err(|why| invalid("release", why))?;
    Ok(Some(word.to_owned()))
}
