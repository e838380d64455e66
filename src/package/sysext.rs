// SPDX-License-Identifier: MIT OR Apache-2.0
//! System extensions (systemd-sysext(8)) with the modules for one kernel.
//!
//! No index of depmod's is in one: the indexes hold all modules of a kernel, and of two extensions that
//! bring them the upper one's would hide the other's modules. modprobe.d(5) stands in for them, in a file
//! that no other extension has: aliases, soft dependencies, and for each module a command that loads it.
//! So nothing has to be made, or written, on the machine; whatever is merged can be loaded.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use fs_err as fs;

use super::built::{Built, Module};
use super::staging::{Staging, plain, write};
use crate::module::{Arch, ModuleId};
use crate::module_file::canonical;
use crate::sys::tools::{Run, Tool};

/// What an extension is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Whichever image can be made here.
    Image,
    Squashfs,
    Erofs,
    /// A plain directory.
    Directory,
}

/// An extension to be made.
#[derive(Debug)]
pub struct Extension<'a> {
    pub id: &'a ModuleId,
    pub built: &'a Built,
    pub form: Form,
    /// `ID` of the os-release that it is for; any without it.
    pub system: Option<&'a str>,
    /// `VERSION_ID` of that os-release.
    pub release: Option<&'a str>,
}

/// Loads one module of the running kernel, with what it depends on, in the stead of modprobe's index.
/// The same for all kernels of a module: two of its extensions may be there at once.
const LOAD: &str = include_str!("sysext/load");

impl Extension<'_> {
    /// `M-V-K-A`. The name of the image is the name of the extension-release file in it.
    pub fn name(&self) -> String {
        let target = &self.built.target;
        format!("{}-{}-{}-{}", self.id.name(), self.id.version(), target.kernel, target.arch)
    }

    /// The name of the image, or of the directory.
    pub fn file_name(&self) -> String {
        let suffix = if self.form == Form::Directory { "" } else { ".raw" };
        self.name() + suffix
    }

    /// Makes the extension beside its place and renames it. The directory must be there, and nobody else
    /// may be at work in it.
    pub fn write(&self, to: &Path) -> Result<()> {
        let staged = Staging::new(to)?;
        let tree = staged.directory("tree")?;
        self.fill(&tree)?;
        let image = staged.path("image");
        match self.form {
            Form::Directory => return staged.put_directory(&tree),
            Form::Squashfs => squashfs(&tree, &image)?,
            Form::Erofs => erofs(&tree, &image)?,
            Form::Image if Tool::Mksquashfs.find().is_none() && Tool::MkfsErofs.find().is_some() => {
                erofs(&tree, &image)?;
            }
            Form::Image => squashfs(&tree, &image)?,
        }
        staged.put_file(&image)
    }

    fn fill(&self, tree: &Path) -> Result<()> {
        let (name, module) = (self.name(), plain(self.id.name(), "a name")?);
        plain(&name, "a version, a kernel release or an architecture")?;
        let kernel = self.built.target.kernel.as_str();
        let release = format!("usr/lib/extension-release.d/extension-release.{name}");
        let units = self.has_aliases();
        write(tree, release, self.extension_release(units))?;
        for one in &self.built.modules {
            let file = plain(&one.file, "the name of a module")?;
            let path = format!("usr/lib/modules/{kernel}/updates/{module}/{file}");
            write(tree, path, &one.bytes)?;
        }
        let load = format!("usr/lib/dkms/sysext/{module}/load");
        write(tree, &load, LOAD.replace("@MODULE@", module))?;
        fs::set_permissions(tree.join(&load), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        write(tree, format!("usr/lib/modprobe.d/{name}.conf"), self.modprobe())?;
        if units {
            let unit = format!("dkms-sysext-{}.service", unit_word(&name));
            write(tree, format!("usr/lib/systemd/system/{unit}"), self.unit())?;
            // Not Wants=, which a manager that is starting up already would not look at again.
            let wanted = format!("[Unit]\nUpholds={unit}\n");
            write(
                tree,
                format!("usr/lib/systemd/system/multi-user.target.d/10-{}.conf", unit_word(&name)),
                wanted,
            )?;
        }
        Ok(())
    }

    fn has_aliases(&self) -> bool {
        self.built.modules.iter().any(|module| module.info.all("alias").any(is_word))
    }

    /// os-release(5), "Extension release". A module is for a kernel, not for a distribution: where another
    /// one runs, nothing in here has any effect.
    fn extension_release(&self, units: bool) -> String {
        let mut text = format!("ID={}\n", self.system.unwrap_or("_any"));
        if let Some(release) = self.release {
            let _ = writeln!(text, "VERSION_ID={release}");
        }
        if let Some(architecture) = architecture(&self.built.target.arch) {
            let _ = writeln!(text, "ARCHITECTURE={architecture}");
        }
        if units {
            text.push_str("EXTENSION_RELOAD_MANAGER=1\n");
        }
        text
    }

    /// What depmod would have found out, in the words of modprobe.d(5).
    fn modprobe(&self) -> String {
        let name = self.id.name();
        let mut text = format!("# The modules of {} for {}.\n", self.id, self.built.target.kernel);
        for module in &self.built.modules {
            let known_as = canonical(&module.name);
            for alias in module.info.all("alias").filter(|alias| is_word(alias)) {
                let _ = writeln!(text, "alias {alias} {known_as}");
            }
            soft_dependencies(module, &mut text);
            let _ = writeln!(
                text,
                "install {known_as} /usr/lib/dkms/sysext/{name}/load {} $CMDLINE_OPTS",
                module.name
            );
        }
        text
    }

    /// Devices that were there before the extension was are announced once more.
    fn unit(&self) -> String {
        format!(
            "[Unit]\nDescription=Look for devices of {}\n\
             After=systemd-sysext.service systemd-udevd.service\nConditionVirtualization=!container\n\
             ConditionKernelVersion={}\n\n\
             [Service]\nType=oneshot\nRemainAfterExit=yes\n\
             ExecStart=udevadm trigger --type=devices --action=add\n",
            self.id, self.built.target.kernel
        )
    }
}

/// In modprobe.d(5) a line is words.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// `softdep=pre: a b post: c` means the same in a module and in a configuration.
fn soft_dependencies(module: &Module, text: &mut String) {
    for softdep in module.info.all("softdep").filter(|softdep| !softdep.contains(char::is_control)) {
        let _ = writeln!(text, "softdep {} {softdep}", canonical(&module.name));
    }
}

/// What units are named by (systemd.unit(5)): all else is written as a number.
fn unit_word(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || ":-_.".contains(c) { c } else { '_' }).collect()
}

/// What systemd calls a machine (os-release(5), `ARCHITECTURE=`); nothing where that is not known.
fn architecture(arch: &Arch) -> Option<&'static str> {
    Some(match arch.as_str() {
        "x86_64" => "x86-64",
        "i386" | "i486" | "i586" | "i686" => "x86",
        "aarch64" => "arm64",
        "ppc64le" => "ppc64-le",
        "ppc64" => "ppc64",
        "ppc" => "ppc",
        "riscv64" => "riscv64",
        "riscv32" => "riscv32",
        "s390x" => "s390x",
        "loongarch64" => "loongarch64",
        "mips64el" => "mips64-le",
        "mips64" => "mips64",
        "mipsel" => "mips-le",
        "mips" => "mips",
        "sparc64" => "sparc64",
        "alpha" => "alpha",
        arm if arm.starts_with("armv") => "arm",
        _ => return None,
    })
}

fn squashfs(tree: &Path, to: &Path) -> Result<()> {
    Run::new(Tool::Mksquashfs)?
        .arg(tree)
        .arg(to)
        .args(["-noappend", "-all-root", "-quiet", "-no-progress"])
        .succeed()
        .map(drop)
}

fn erofs(tree: &Path, to: &Path) -> Result<()> {
    Run::new(Tool::MkfsErofs)?.args(["--all-root", "--quiet"]).arg(to).arg(tree).succeed().map(drop)
}
