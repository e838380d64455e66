// SPDX-License-Identifier: MIT OR Apache-2.0
//! Menus on made-up partitions.

use super::*;
use crate::gate::bls::Choice;
use crate::gate::bls::fixture::Partition;
use rstest::rstest;

/// Two kernels as kernel-install leaves them, and a rescue system.
struct Machine(Partition);

impl std::ops::Deref for Machine {
    type Target = Partition;

    fn deref(&self) -> &Partition {
        &self.0
    }
}

fn kernel(release: &str) -> KernelRelease {
    release.parse().unwrap()
}

impl Machine {
    fn new() -> Self {
        let machine = Self(Partition::new());
        machine.write("boot/efi/loader/loader.conf", b"timeout 3\n");
        for release in ["6.1", "6.12"] {
            machine.entry(release);
        }
        machine.write("boot/efi/EFI/rescue.efi", b"");
        machine.write("boot/efi/loader/entries/a-rescue.conf", b"title Rescue\nefi /EFI/rescue.efi\n");
        machine
    }

    fn ids(&self) -> Vec<String> {
        Menu::read(&self.tree).unwrap().entries.into_iter().map(|entry| entry.id).collect()
    }

    fn default(&self) -> String {
        let menu = Menu::read(&self.tree).unwrap();
        match menu.wishes.choose(&menu.entries) {
            Choice::Entry(entry) => entry.id.clone(),
            other => format!("{other:?}"),
        }
    }

    fn hold(&self, release: &str) -> Shelved {
        hold(&self.tree, &kernel(release), &|_| true).unwrap()
    }
}

#[test]
fn the_menu_is_read_from_every_partition_once() {
    let machine = Machine::new();
    std::os::unix::fs::symlink("boot/efi", machine.tree.path("/efi")).unwrap();
    machine.write("boot/loader/entries/x.conf", b"linux /vmlinuz-6.6\n");
    machine.write("boot/vmlinuz-6.6", b"");
    assert_eq!(machine.ids(), ["m-6.12.conf", "m-6.1.conf", "x.conf", "a-rescue.conf"]);
}

#[test]
fn an_entry_without_its_image_is_none() {
    let machine = Machine::new();
    fs::remove_file(machine.tree.path("/boot/efi/m/6.12/linux")).unwrap();
    assert_eq!(machine.default(), "m-6.1.conf");
}

#[test]
fn wishes_come_from_loader_conf_and_the_firmware() {
    let machine = Machine::new();
    machine.write("boot/efi/loader/loader.conf", b"#default m-6.12*\n default  m-6.1.conf \n");
    assert_eq!(machine.default(), "m-6.1.conf");
    machine.variable("LoaderEntryDefault", "a-*");
    assert_eq!(machine.default(), "a-rescue.conf");
    machine.variable("LoaderEntryOneShot", "m-6.12.conf");
    assert_eq!(machine.default(), "m-6.12.conf");
}

#[test]
fn images_called_after_their_package_are_found_by_it() {
    let machine = Machine::new();
    machine.write("boot/efi/vmlinuz-linux-lts", b"");
    machine.write("boot/efi/loader/entries/lts.conf", b"linux /vmlinuz-linux-lts\n");
    machine.write("lib/modules/6.12.9-1-lts/pkgbase", b"linux-lts\n");
    let menu = Menu::read(&machine.tree).unwrap();
    let entry = menu.entries.iter().find(|entry| entry.id == "lts.conf").unwrap();
    assert_eq!(entry.kernel, Some(kernel("6.12.9-1-lts")));
}

#[test]
fn a_machine_without_entries_has_no_menu() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("boot")).unwrap();
    assert!(Menu::read(&Tree::at(dir.path())).is_none());
}

#[test]
fn a_held_kernel_is_not_in_the_menu_until_it_is_put_back() {
    let machine = Machine::new();
    machine.variable("LoaderEntryDefault", "m-6.12.conf");
    let path = machine.tree.path("/boot/efi/loader/entries/m-6.12.conf");
    let path = fs::canonicalize(path).unwrap();
    assert_eq!(machine.hold("6.12"), Shelved::Held(vec![path]));
    assert_eq!(machine.default(), "m-6.1.conf");
    assert_eq!(machine.hold("6.12"), Shelved::NotThere);

    assert!(!put_back(&machine.tree, &kernel("6.1")).unwrap());
    assert!(put_back(&machine.tree, &kernel("6.12")).unwrap());
    assert_eq!(machine.default(), "m-6.12.conf");
    assert!(!put_back_all(&machine.tree).unwrap());
}

#[test]
fn an_entry_that_was_made_anew_is_the_one_that_counts() {
    let machine = Machine::new();
    machine.hold("6.12");
    machine.entry("6.12");
    assert!(put_back_all(&machine.tree).unwrap());
    let names = files::names(&machine.tree.path("/boot/efi/loader/entries")).unwrap();
    assert_eq!(names, ["a-rescue.conf", "m-6.1.conf", "m-6.12.conf"]);
}

#[rstest]
#[case::only_kernel(&["6.1"], Shelved::LastOne)]
#[case::others_are_held_too(&["6.1", "6.12"], Shelved::LastOne)]
fn the_last_kernel_stays_in_the_menu(#[case] unfit: &[&str], #[case] want: Shelved) {
    let machine = Machine::new();
    if unfit.len() == 1 {
        fs::remove_file(machine.tree.path("/boot/efi/loader/entries/m-6.1.conf")).unwrap();
    }
    let may_boot = |other: &KernelRelease| !unfit.contains(&other.as_str());
    assert_eq!(hold(&machine.tree, &kernel("6.12"), &may_boot).unwrap(), want);
    assert_eq!(machine.default(), "m-6.12.conf");
}

#[test]
fn nothing_is_left_of_a_kernel_that_goes() {
    let machine = Machine::new();
    machine.hold("6.12");
    remove_held(&machine.tree, &kernel("6.12"), &|_| true).unwrap();
    assert!(!put_back_all(&machine.tree).unwrap());
    assert_eq!(machine.ids(), ["m-6.1.conf", "a-rescue.conf"]);
}

#[test]
fn of_a_kernel_that_stays_only_the_entries_that_go_are_forgotten() {
    let machine = Machine::new();
    machine.write("boot/efi/EFI/Linux/m-6.12.efi", &uki("6.12"));
    machine.hold("6.12");
    remove_held(&machine.tree, &kernel("6.12"), &Entry::is_unified).unwrap();
    assert!(put_back_all(&machine.tree).unwrap());
    assert_eq!(machine.ids(), ["m-6.12.conf", "m-6.1.conf", "a-rescue.conf"]);
}

#[rstest]
#[case::its_own_file_system("/m/6.6", "boot/m/6.6")]
#[case::in_the_root_file_system("/boot/m/6.6", "boot/m/6.6")]
#[case::in_a_subvolume("/@/boot/m/6.6", "boot/m/6.6")]
fn an_entry_is_held_wherever_its_loader_sees_the_partition(#[case] named: &str, #[case] directory: &str) {
    let machine = Machine::new();
    machine.write(
        "boot/loader/entries/m-6.6.conf",
        format!("linux {named}/linux\ninitrd {named}/i\n").as_bytes(),
    );
    for file in ["linux", "i"] {
        machine.write(&format!("{directory}/{file}"), b"");
    }
    let initrd = machine.tree.path(directory).join("i");
    assert_eq!(initramfs_of(&machine.tree, &kernel("6.6")), [vec![initrd]]);
    assert!(matches!(machine.hold("6.6"), Shelved::Held(_)));
}

#[test]
fn a_unified_image_is_held_like_any_entry() {
    let machine = Machine::new();
    machine.write("boot/efi/EFI/Linux/m-6.18.efi", &uki("6.18"));
    assert_eq!(machine.default(), "m-6.18.efi");
    assert!(matches!(machine.hold("6.18"), Shelved::Held(_)));
    assert_eq!(machine.default(), "m-6.12.conf");
    assert!(put_back(&machine.tree, &kernel("6.18")).unwrap());
    assert_eq!(machine.default(), "m-6.18.efi");
}

/// dracut's images do not say which kernel they boot.
#[rstest]
#[case::by_kernel_install("m-6.18-a.efi", Some("6.18-a"))]
#[case::with_a_counter("m-6.18-a+3-0.efi", Some("6.18-a"))]
#[case::by_dracut("linux-6.18-0011-22.efi", Some("6.18"))]
#[case::the_name_alone("6.18-a.efi", Some("6.18-a"))]
#[case::another_kernel("m-6.180.efi", None)]
#[case::a_kernel_within_a_word("m6.18.efi", None)]
fn a_unified_image_without_a_release_is_known_by_its_name(#[case] file: &str, #[case] want: Option<&str>) {
    let machine = Machine::new();
    for release in ["6.1", "6.18", "6.18-a"] {
        fs::create_dir_all(machine.tree.kernel_dir(&kernel(release))).unwrap();
    }
    machine.write(&format!("boot/efi/EFI/Linux/{file}"), &pe(&[(b".osrel\0\0", "ID=debian\n")]));
    let kernels = found(&machine.tree).into_iter().filter(|(path, _)| path.ends_with(file));
    let kernels: Vec<_> = kernels.map(|(_, entry)| entry.kernel).collect();
    assert_eq!(kernels, [want.map(kernel)]);
}

/// The smallest PE image with the sections that systemd's ukify writes.
fn uki(release: &str) -> Vec<u8> {
    let osrel = "ID=debian\nPRETTY_NAME=\"Debian 13\"\n";
    pe(&[(b".osrel\0\0", osrel), (b".uname\0\0", release)])
}

fn pe(sections: &[(&[u8; 8], &str)]) -> Vec<u8> {
    let count = u16::try_from(sections.len()).unwrap();
    let mut image = vec![0; 0x40];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x40;
    let le16 = |value: u16| value.to_le_bytes().to_vec();
    let le32 = |value: u32| value.to_le_bytes().to_vec();
    let optional = 112;
    image.extend(b"PE\0\0");
    image.extend([le16(0x8664), le16(count), le32(0), le32(0), le32(0), le16(optional), le16(0x22)].concat());
    let mut header = vec![0; usize::from(optional)];
    header[..2].copy_from_slice(&0x20b_u16.to_le_bytes());
    image.extend(header);
    let data = 0x200;
    for (at, (name, text)) in (0..).zip(sections) {
        let size = u32::try_from(text.len()).unwrap();
        let place = le32(data + 0x100 * at);
        image.extend(*name);
        image.extend([le32(size), place.clone(), le32(size), place].concat());
        image.extend([0; 16]);
    }
    for (at, (_, text)) in (0..).zip(sections) {
        image.resize(0x200 + 0x100 * at, 0);
        image.extend(text.as_bytes());
    }
    image
}
