// SPDX-License-Identifier: MIT OR Apache-2.0
//! Archives that nobody should make, and what they come to.

use std::os::unix::fs::MetadataExt;

use rstest::rstest;
use tar::{Builder, Header};

use super::*;

const FEW: Limits = Limits { entries: 20, bytes: 10_000 };

/// One entry of an archive, its name as it is, however wrong.
struct Item<'a> {
    kind: EntryType,
    name: &'a str,
    link: &'a str,
    data: &'a [u8],
}

fn item<'a>(kind: EntryType, name: &'a str, link: &'a str) -> Item<'a> {
    Item { kind, name, link, data: b"" }
}

fn file<'a>(name: &'a str, data: &'a [u8]) -> Item<'a> {
    Item { kind: EntryType::Regular, name, link: "", data }
}

fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for item in items {
        let mut header = Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..item.name.len()].copy_from_slice(item.name.as_bytes());
        gnu.linkname[..item.link.len()].copy_from_slice(item.link.as_bytes());
        header.set_entry_type(item.kind);
        header.set_mode(0o6777);
        header.set_mtime(1_000_000);
        header.set_size(item.data.len() as u64);
        header.set_cksum();
        tar.append(&header, item.data).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Unpacks into `inner/into` of the directory that is returned.
fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, Result<()>) {
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().join("inner/into");
    fs::create_dir_all(&into).unwrap();
    fs::write(dir.path().join("inner/secret"), "secret").unwrap();
    fs::write(dir.path().join("a.tar"), bytes).unwrap();
    let result = unpack(&dir.path().join("a.tar"), &into, FEW);
    (dir, result)
}

fn refusal(result: Result<()>) -> String {
    let failure = result.unwrap_err().downcast::<Failure>().unwrap();
    assert_eq!(failure.code(), 7);
    failure.to_string()
}

#[rstest]
#[case::up("../evil", "leads out of")]
#[case::up_from_below("a/../../evil", "leads out of")]
#[case::up_and_back("a/../b", "leads out of")]
#[case::absolute("/tmp/evil", "leads out of")]
#[case::the_directory_itself("./", "stands for one")]
fn names_that_leave_are_refused(#[case] name: &str, #[case] why: &str) {
    let (dir, result) = unpacked(&archive(&[file(name, b"evil")]));
    let message = refusal(result);
    assert!(message.contains(why) && message.contains(name), "{message}");
    assert!(!dir.path().join("inner/evil").exists() && !Path::new("/tmp/evil").exists());
}

#[rstest]
#[case::link_up(EntryType::Symlink, "../secret", "leads out")]
#[case::link_absolute(EntryType::Symlink, "/etc/passwd", "leads out")]
#[case::hard_link_up(EntryType::Link, "../secret", "leads out")]
#[case::hard_link_absolute(EntryType::Link, "/etc/passwd", "leads out")]
#[case::hard_link_to_nothing(EntryType::Link, "missing", "no file of the archive")]
#[case::hard_link_to_a_link(EntryType::Link, "link", "no file of the archive")]
#[case::character_device(EntryType::Char, "", "is a device")]
#[case::block_device(EntryType::Block, "", "is a device")]
#[case::pipe(EntryType::Fifo, "", "is a pipe")]
#[case::unheard_of(EntryType::new(b'Q'), "", "neither")]
fn what_is_no_file_of_the_archive_is_refused(#[case] kind: EntryType, #[case] link: &str, #[case] why: &str) {
    let items = [file("file", b""), item(EntryType::Symlink, "link", "file"), item(kind, "evil", link)];
    let (dir, result) = unpacked(&archive(&items));
    let message = refusal(result);
    assert!(message.contains(why), "{message}");
    assert!(dir.path().join("inner/into/evil").symlink_metadata().is_err());
}

#[rstest]
#[case::file(file("link/evil", b"evil"), "no directory")]
#[case::directory(item(EntryType::Directory, "link/evil", ""), "no directory")]
#[case::hard_link(item(EntryType::Link, "evil", "link/file"), "no directory")]
#[case::below_a_file(file("sub/file/evil", b""), "no directory")]
#[case::file_for_a_directory(file("sub", b""), "replace a directory")]
#[case::link_for_a_directory(item(EntryType::Symlink, "sub", "link"), "replace a directory")]
#[case::hard_link_for_a_directory(item(EntryType::Link, "sub", "sub/file"), "replace a directory")]
#[case::directory_for_a_link(item(EntryType::Directory, "link", ""), "no directory")]
fn nothing_is_written_through_links(#[case] last: Item<'_>, #[case] why: &str) {
    let items = [file("sub/file", b""), item(EntryType::Symlink, "link", "sub"), last];
    let (dir, result) = unpacked(&archive(&items));
    let message = refusal(result);
    assert!(message.contains(why), "{message}");
    assert_eq!(fs::read_dir(dir.path().join("inner/into/sub")).unwrap().count(), 1);
}

#[test]
fn a_file_replaces_a_link_of_its_name_and_not_what_it_leads_to() {
    let items = [file("a", b"one"), item(EntryType::Symlink, "b", "a"), file("b", b"two")];
    let (dir, result) = unpacked(&archive(&items));
    result.unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join("inner/into").join(name)).unwrap();
    assert_eq!((read("a").as_str(), read("b").as_str()), ("one", "two"));
}

/// A link that is swapped for a directory and back leads nowhere else in between.
#[rstest]
#[case::directory_then_link(&[item(EntryType::Directory, "a", ""), item(EntryType::Symlink, "a", "b")], "replace a directory")]
#[case::link_then_file_below(&[item(EntryType::Symlink, "a", "."), file("a/a", b"")], "no directory")]
#[case::link_to_itself(&[item(EntryType::Symlink, "a", "a"), file("a/b", b"")], "no directory")]
#[case::chain_of_links(&[item(EntryType::Symlink, "a", "b"), item(EntryType::Symlink, "b", ".."), file("x", b"")], "leads out")]
#[case::file_then_link_then_hard_link(
    &[file("a", b"x"), item(EntryType::Symlink, "a", "b"), item(EntryType::Link, "c", "a")],
    "no file of the archive"
)]
fn swapped_entries_are_refused(#[case] items: &[Item<'_>], #[case] why: &str) {
    let (dir, result) = unpacked(&archive(items));
    let message = refusal(result);
    assert!(message.contains(why), "{message}");
    assert_eq!(fs::read_dir(dir.path().join("inner")).unwrap().count(), 2);
}

#[test]
fn of_several_files_of_a_name_the_last_one_counts() {
    let (dir, result) = unpacked(&archive(&[file("a", b"one"), file("./a", b"two"), file("a", b"three")]));
    result.unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("inner/into/a")).unwrap(), "three");
}

/// A file of so many bytes that holds three.
fn sparse(size: u64) -> Vec<u8> {
    let octal = |number: u64| -> [u8; 12] { format!("{number:011o}\0").into_bytes().try_into().unwrap() };
    let mut header = Header::new_gnu();
    header.set_path("sparse").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(3);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.realsize = octal(size);
    (gnu.sparse[0].offset, gnu.sparse[0].numbytes) = (octal(512), octal(3));
    (gnu.sparse[1].offset, gnu.sparse[1].numbytes) = (octal(size), octal(0));
    header.set_cksum();
    [header.as_bytes().as_slice(), b"abc", &[0; 509], &[0; 1024]].concat()
}

#[test]
fn a_sparse_file_has_its_holes() {
    let (dir, result) = unpacked(&sparse(4096));
    result.unwrap();
    let content = fs::read(dir.path().join("inner/into/sparse")).unwrap();
    assert_eq!((content.len(), &content[510..516]), (4096, &b"\0\0abc\0"[..]));
}

/// Of what is too large nothing is written, not even up to the limit.
#[rstest]
#[case::holes(sparse((8 << 30) - 1))]
#[case::of_ordinary_data(archive(&[file("sparse", &[0; 10_001])]))]
fn what_is_too_large_takes_no_place_before_that_is_told(#[case] archive: Vec<u8>) {
    let (dir, result) = unpacked(&archive);
    assert!(refusal(result).contains("MiB unpacked"));
    assert!(!dir.path().join("inner/into/sparse").exists());
}

/// Numbers that no file has: as GNU tar writes large ones, and in PAX records.
#[rstest]
#[case::largest_of_gnu(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])]
#[case::negative(&[0xff; 12])]
#[case::largest_of_octal(b"777777777777")]
#[case::none(b"no number at")]
fn sizes_that_no_file_has_are_refused(#[case] size: &[u8; 12]) {
    let mut archive = archive(&[file("a", b"x")]);
    archive[124..136].copy_from_slice(size);
    archive[148..156].fill(b' ');
    let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let (dir, result) = unpacked(&archive);
    refusal(result);
    assert_eq!(fs::read_dir(dir.path().join("inner/into")).unwrap().count(), 0);
}

#[test]
fn modes_lose_setuid_and_foreign_writing_and_times_are_kept() {
    let (dir, result) =
        unpacked(&archive(&[file("./sub/run", b"x"), item(EntryType::Link, "sub/same", "./sub/run")]));
    result.unwrap();
    for name in ["run", "same"] {
        let meta = fs::metadata(dir.path().join("inner/into/sub").join(name)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime(), meta.nlink()), (0o755, 1_000_000, 1), "{name}");
    }
}

#[rstest]
#[case::one_file(&[file("a", &[b'x'; 10_001])])]
#[case::together(&[file("a", &[b'x'; 6_000]), file("b", &[b'x'; 6_000])])]
#[case::by_copies(&[file("a", &[b'x'; 6_000]), item(EntryType::Link, "b", "a")])]
fn too_many_bytes_are_refused(#[case] items: &[Item<'_>]) {
    let message = refusal(unpacked(&archive(items)).1);
    assert!(message.contains("MiB unpacked"), "{message}");
}

#[test]
fn too_many_files_are_refused() {
    let names: Vec<String> = (0..21).map(|number| number.to_string()).collect();
    let items: Vec<Item<'_>> = names.iter().map(|name| file(name, b"")).collect();
    assert!(refusal(unpacked(&archive(&items)).1).contains("more than 20 files"));
}

#[test]
fn too_deep_directories_are_refused() {
    let mut tar = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(0);
    tar.append_data(&mut header, "a/".repeat(65) + "file", &[][..]).unwrap();
    assert!(refusal(unpacked(&tar.into_inner().unwrap()).1).contains("deeper"));
}

#[test]
fn names_of_a_megabyte_are_refused() {
    let name = vec![b'n'; 2 << 20];
    let long = Item { kind: EntryType::GNULongName, name: "././@LongLink", link: "", data: &name };
    assert!(refusal(unpacked(&archive(&[long, file("a", b"")])).1).contains("headers"));
}

#[test]
fn files_larger_than_headers_may_be_are_fine() {
    let data = vec![b'x'; 3 << 20];
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.tar"), archive(&[file("a", &data), file("b", &data)])).unwrap();
    fs::create_dir(dir.path().join("into")).unwrap();
    unpack(&dir.path().join("a.tar"), &dir.path().join("into"), LIMITS).unwrap();
    assert_eq!(fs::metadata(dir.path().join("into/b")).unwrap().len(), 3 << 20);
}

#[rstest]
#[case::no_archive(b"this is a text, not an archive\n".repeat(40))]
#[case::cut(archive(&[file("a", &[b'x'; 5_000])])[..2_000].to_vec())]
#[case::gzip_of_nothing(vec![0x1f, 0x8b, 8, 0])]
#[case::xz_of_nonsense(b"\xfd7zXZ\0nonsense".to_vec())]
fn damaged_archives_are_refused(#[case] bytes: Vec<u8>) {
    assert!(refusal(unpacked(&bytes).1).contains("damaged or is none"));
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let message = refusal(unpacked(&archive(&[item(EntryType::Fifo, "\u{1b}[31mx", "")])).1);
    assert!(!message.contains('\u{1b}') && message.contains("u{1b}"), "{message}");
}
