// SPDX-License-Identifier: MIT OR Apache-2.0
//! The menu that a grub.cfg makes: entries, submenus, and what each entry loads.
//! Which of them is the default is `default`'s question.

use super::env::GrubEnv;
use super::evaluate::Script;
use crate::kernel::KernelRelease;

/// A menu, as far as the text tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Menu {
    pub entries: Vec<Entry>,
    /// Why its entries or its default may be other than what is listed here.
    pub lost: Option<String>,
}

/// A line of a menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub title: String,
    pub id: Option<String>,
    /// Why the entry may be absent: it stands under a condition that is known only at boot.
    pub doubt: Option<String>,
    /// The `/etc/grub.d` script whose output it is.
    pub script: Option<String>,
    pub content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Submenu(Menu),
    Boot(Boot),
}

/// What an entry loads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boot {
    /// Kernel images (or what else `linux` loads), as written; several when a condition chooses.
    pub images: Vec<String>,
    pub initrds: Vec<String>,
    /// The kernel's command line, word by word.
    pub arguments: Vec<String>,
    /// The `insmod`, `search` and `set root` commands that make the images readable.
    pub(super) device: Vec<Vec<String>>,
    /// Whether booting it makes it the saved default.
    pub(super) saves_default: bool,
    /// Whether a hypervisor comes first.
    pub(super) xen: bool,
}

/// Reads the menu of a grub.cfg. Entries under conditions are included, with their doubt.
pub fn parse(cfg: &str) -> Menu {
    Script::run(cfg, &GrubEnv::default()).menu
}

impl Menu {
    /// Every entry that boots something, in the order of the menu, with the path of submenus to it
    /// (itself last).
    pub fn boots(&self) -> Vec<Vec<&Entry>> {
        fn walk<'a>(entries: &'a [Entry], above: &[&'a Entry], out: &mut Vec<Vec<&'a Entry>>) {
            for entry in entries {
                let mut path = above.to_vec();
                path.push(entry);
                match &entry.content {
                    Content::Submenu(menu) => walk(&menu.entries, &path, out),
                    Content::Boot(_) => out.push(path),
                }
            }
        }
        let mut out = Vec::new();
        walk(&self.entries, &[], &mut out);
        out
    }
}

impl Entry {
    /// Why it cannot be relied on: it may be absent, or its menu may be another.
    pub(super) fn uncertain(&self) -> Option<&String> {
        match &self.content {
            Content::Submenu(menu) => self.doubt.as_ref().or(menu.lost.as_ref()),
            Content::Boot(_) => self.doubt.as_ref(),
        }
    }

    /// What it boots; none for a submenu.
    pub fn boot(&self) -> Option<&Boot> {
        match &self.content {
            Content::Boot(boot) => Some(boot),
            Content::Submenu(_) => None,
        }
    }

    /// Whether os-prober found it on another system's disk: its kernels are not ours.
    pub fn foreign(&self) -> bool {
        self.id.as_deref().is_some_and(|id| id.starts_with("osprober-"))
            || self.script.as_deref().is_some_and(|script| script.ends_with("os-prober"))
    }

    /// The kernel of this system that it boots, where the image's name tells.
    pub fn kernel(&self) -> Option<KernelRelease> {
        let mut releases = self.boot().filter(|_| !self.foreign())?.images.iter().map(|i| release_of(i));
        let first = releases.next()??;
        releases.all(|other| other.as_ref() == Some(&first)).then_some(first)
    }

    /// Whether it is for repairs: a rescue image, or a command line that ends in a root shell.
    pub fn recovery(&self) -> bool {
        let Some(boot) = self.boot() else { return false };
        let repair = |word: &str| {
            matches!(word, "single" | "recovery" | "rescue" | "emergency" | "S" | "s" | "1")
                || word
                    .strip_prefix("systemd.unit=")
                    .is_some_and(|unit| matches!(unit.trim_end_matches(".target"), "rescue" | "emergency"))
        };
        self.id.as_deref().is_some_and(|id| id.contains("-recovery-"))
            || boot.arguments.iter().any(|word| repair(word))
            || boot.images.iter().any(|image| image.contains("-rescue"))
    }
}

/// The kernel release in an image's name, as grub-mkconfig's 10_linux looks for images: `vmlinuz-K`,
/// `vmlinux-K`, `kernel-K`, also Gentoo's `kernel-genkernel-ARCH-K`. None for `….old`, which boots
/// something else than its name says, and for names without a release (Arch's `vmlinuz-linux`).
pub fn release_of(image: &str) -> Option<KernelRelease> {
    let name = image.rsplit('/').next()?;
    if name.ends_with(".old") {
        return None;
    }
    let mut release = ["vmlinuz-", "vmlinux-", "vmlinuz64-", "kernel-", "linux-", "bzImage-", "Image-"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))?;
    if let Some(rest) = release.strip_prefix("genkernel-") {
        release = rest.split_once('-')?.1;
    }
    release.parse().ok().filter(|_| release.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::debian("/boot/vmlinuz-6.1.0-56-amd64", Some("6.1.0-56-amd64"))]
    #[case::separate_boot("/vmlinuz-6.12.117+deb13-cloud-amd64", Some("6.12.117+deb13-cloud-amd64"))]
    #[case::btrfs("/@/boot/vmlinuz-6.8.0-1-generic", Some("6.8.0-1-generic"))]
    #[case::zfs("/BOOT/ubuntu_x@/vmlinuz-6.8.0-1-generic", Some("6.8.0-1-generic"))]
    #[case::uncompressed("/boot/vmlinux-6.1.0-1-powerpc64le", Some("6.1.0-1-powerpc64le"))]
    #[case::gentoo("/boot/kernel-6.6.1-gentoo", Some("6.6.1-gentoo"))]
    #[case::genkernel("/boot/kernel-genkernel-x86_64-6.6.1-gentoo", Some("6.6.1-gentoo"))]
    #[case::old("/boot/vmlinuz-6.1.0-56-amd64.old", None)]
    #[case::arch("/boot/vmlinuz-linux", None)]
    #[case::link("/vmlinuz", None)]
    #[case::memtest("/boot/memtest86+x64.bin", None)]
    fn the_image_names_its_kernel(#[case] image: &str, #[case] want: Option<&str>) {
        assert_eq!(release_of(image).as_ref().map(KernelRelease::as_str), want);
    }

    const DEBIAN: &str = r#"
### BEGIN /etc/grub.d/10_linux ###
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple-U' {
	load_video
	insmod gzio
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	insmod part_gpt
	insmod ext2
	set root='hd0,gpt2'
	if [ x$feature_platform_search_hint = xy ]; then
	  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt2 U
	else
	  search --no-floppy --fs-uuid --set=root U
	fi
	echo	'Loading Linux 6.1.0-56-amd64 ...'
	linux	/boot/vmlinuz-6.1.0-56-amd64 root=UUID=U ro quiet
	initrd	/boot/early.img /boot/initrd.img-6.1.0-56-amd64
}
submenu 'It'\''s advanced' --id=adv {
	menuentry 'K (recovery mode)' --id 'K-recovery-U' { linux /boot/vmlinuz-6.1.0-56-amd64 ro single; }
	menuentry 'no id' { savedefault; linux /boot/vmlinuz-6.1.0-55-amd64 ro; }
}
### END /etc/grub.d/10_linux ###
### BEGIN /etc/grub.d/30_os-prober ###
menuentry 'Debian (on /dev/sdb1)' { linux /boot/vmlinuz-6.1.0-13-amd64 root=/dev/sdb1; }
menuentry 'Windows 11' --class windows $menuentry_id_option 'osprober-efi-X' { chainloader /EFI/x.efi; }
### END /etc/grub.d/30_os-prober ###
if [ "$grub_platform" = "efi" ]; then
	menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' { fwsetup; }
fi
"#;

    #[test]
    fn entries_have_their_ids_and_images() {
        let menu = parse(DEBIAN);
        assert_eq!(menu.lost, None);
        let simple = &menu.entries[0];
        assert_eq!(
            (simple.title.as_str(), simple.id.as_deref()),
            ("Debian GNU/Linux", Some("gnulinux-simple-U"))
        );
        let boot = simple.boot().unwrap();
        assert_eq!(boot.images, ["/boot/vmlinuz-6.1.0-56-amd64"]);
        assert_eq!(boot.initrds, ["/boot/early.img", "/boot/initrd.img-6.1.0-56-amd64"]);
        assert_eq!(boot.arguments, ["root=UUID=U", "ro", "quiet"]);
        let device: Vec<String> = boot.device.iter().map(|words| words.join(" ")).collect();
        assert_eq!(
            device,
            [
                "insmod gzio",
                "insmod part_gpt",
                "insmod ext2",
                "set root=hd0,gpt2",
                "search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt2 U"
            ]
        );
    }

    #[test]
    fn submenus_nest_and_recovery_is_seen() {
        let menu = parse(DEBIAN);
        assert_eq!(
            (menu.entries[1].title.as_str(), menu.entries[1].id.as_deref()),
            ("It's advanced", Some("adv"))
        );
        let boots = menu.boots();
        let flags: Vec<(bool, bool, bool)> = boots
            .iter()
            .map(|path| path[path.len() - 1])
            .map(|entry| (entry.recovery(), entry.foreign(), entry.boot().unwrap().saves_default))
            .collect();
        let (no, yes) = (false, true);
        assert_eq!(
            flags,
            [(no, no, no), (yes, no, no), (no, no, yes), (no, yes, no), (no, yes, no), (no, no, no)]
        );
        assert_eq!(boots[2].len(), 2);
    }

    #[test]
    fn another_systems_kernel_is_not_ours() {
        let menu = parse(DEBIAN);
        assert_eq!(menu.entries[2].kernel(), None);
        assert_eq!(menu.entries[0].kernel().unwrap().as_str(), "6.1.0-56-amd64");
    }

    #[test]
    fn entries_under_conditions_are_doubted() {
        let menu = parse(DEBIAN);
        assert_eq!(menu.entries[4].doubt.as_deref(), Some("$grub_platform is known only at boot"));
    }

    #[rstest]
    #[case::xen(
        "multiboot2 /boot/xen.gz\nmodule2 /boot/vmlinuz-6.1-a root=x\nmodule2 --nounzip /boot/initrd-6.1-a"
    )]
    #[case::linux16("linux16 /boot/vmlinuz-6.1-a root=x\ninitrd16 /boot/initrd-6.1-a")]
    #[case::efi("linuxefi /boot/vmlinuz-6.1-a root=x\ninitrdefi /boot/initrd-6.1-a")]
    #[case::from_a_function("load /boot/vmlinuz-6.1-a")]
    fn every_loader_command_is_known(#[case] body: &str) {
        let cfg = format!(
            "function load {{ linux $1 root=x; initrd /boot/initrd-6.1-a; }}\nmenuentry a {{ {body}\n}}"
        );
        let menu = parse(&cfg);
        assert_eq!(menu.entries[0].kernel().unwrap().as_str(), "6.1-a");
        let boot = menu.entries[0].boot().unwrap();
        assert_eq!(
            (boot.initrds.as_slice(), boot.arguments.as_slice()),
            (&["/boot/initrd-6.1-a".to_owned()][..], &["root=x".to_owned()][..])
        );
    }

    #[test]
    fn a_submenu_from_another_file_leaves_the_others_known() {
        let menu =
            parse("submenu s { configfile $prefix/grub-btrfs.cfg }\nmenuentry a { linux /vmlinuz-6.1; }");
        let Content::Submenu(inside) = &menu.entries[0].content else { panic!() };
        assert_eq!((menu.lost, inside.lost.as_deref()), (None, Some("(beside)/grub-btrfs.cfg takes over")));
    }

    #[rstest]
    #[case::boot_loader_specification("insmod blscfg\nblscfg\n", "its entries come from blscfg")]
    #[case::another_file("configfile $prefix/other.cfg", "(beside)/other.cfg takes over")]
    #[case::mistake("menuentry a { linux /x\n", "line 1: the file ends before }")]
    fn a_menu_that_is_not_all_in_the_text_says_so(#[case] cfg: &str, #[case] why: &str) {
        assert_eq!(parse(cfg).lost.as_deref(), Some(why));
    }
}
