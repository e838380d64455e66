// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of an override: a default, under the conditions that make it safe. Decides nothing.

use super::default::{number, pick};
use super::menu::{Content, Entry, Menu};
use crate::kernel::KernelRelease;

/// When a pin takes effect.
pub(super) enum When {
    /// At every boot but a one-shot, unless `default` has this value.
    Lasting { or_default: Option<String> },
    /// When `default` is one of these.
    DefaultIs(Vec<String>),
}

/// The lines that make the entry at `path`, for `kernel`, the default.
pub(super) fn pin(menu: &Menu, path: &[&Entry], kernel: &KernelRelease, why: &str, when: &When) -> String {
    let default = spellings(menu, path).into_iter().next().unwrap_or_default();
    let default = quote(&default);
    let mut lines = vec![
        format!("# dkms: {why}, so {kernel} is the default."),
        "# Every entry can still be chosen by hand; 'dkms gate' tells more.".to_owned(),
    ];
    let boot = path.last().and_then(|entry| entry.boot());
    // What boots because of us must not become what is saved: that would outlive the hold.
    if boot.is_some_and(|boot| boot.saves_default) {
        lines.push("function savedefault {".to_owned());
        lines.push(format!("\tif [ -z \"${{boot_once}}\" -a \"${{chosen}}\" != {default} ]; then"));
        lines.push("\t\tsaved_entry=\"${chosen}\"\n\t\tsave_env saved_entry\n\tfi\n}".to_owned());
    }
    match when {
        When::Lasting { or_default: None } => lines.push("if [ \"${boot_once}\" != true ]; then".to_owned()),
        When::Lasting { or_default: Some(stray) } => {
            lines.push(format!("if [ \"${{boot_once}}\" != true -o {} ]; then", default_is(stray)));
        }
        When::DefaultIs(names) => {
            let tests: Vec<String> = names.iter().map(|name| default_is(name)).collect();
            lines.push(format!("if [ {} ]; then", tests.join(" -o ")));
        }
    }
    // The entry's own way to its disk, into a variable of ours: $root stays what later entries expect.
    lines.push("\tset dkms_root=\"${root}\"".to_owned());
    for command in boot.map(|boot| boot.device.as_slice()).unwrap_or_default() {
        lines.extend(replay(command).map(|command| format!("\t{command}")));
    }
    let image = boot.and_then(|boot| boot.images.first()).map_or("", String::as_str);
    let file =
        if image.starts_with('(') { quote(image) } else { format!("\"(${{dkms_root}})\"{}", quote(image)) };
    lines.push(format!("\tif [ -f {file} ]; then"));
    lines.push(format!("\t\tset default={default}"));
    lines.push("\tfi\n\tunset dkms_root\nfi\n".to_owned());
    lines.join("\n")
}

fn default_is(value: &str) -> String {
    format!("\"${{default}}\" = {}", quote(value))
}

/// A value that GRUB's script reader takes literally.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// One of an entry's commands that make its disk readable, for `$dkms_root` instead of `$root`.
fn replay(command: &[String]) -> Option<String> {
    let (name, arguments) = command.split_first()?;
    let arguments: Vec<String> = match name.as_str() {
        "insmod" if arguments.iter().any(|module| for_later(module)) => return None,
        "insmod" => arguments.to_vec(),
        "set" => vec![format!("dkms_{}", arguments.first().filter(|word| word.starts_with("root="))?)],
        "search" => {
            let at = arguments.iter().position(|word| word == "--set" || word.starts_with("--set="))?;
            let mut arguments = arguments.to_vec();
            if arguments[at] == "--set" && arguments.get(at + 1).is_some_and(|word| word == "root") {
                arguments.remove(at + 1);
            }
            "--set=dkms_root".clone_into(&mut arguments[at]);
            arguments
        }
        // search.fs_uuid UUID root HINT…
        _ => {
            let mut arguments = arguments.to_vec();
            "dkms_root".clone_into(arguments.get_mut(1).filter(|word| *word == "root")?);
            arguments
        }
    };
    // What is known only at boot is not ours to repeat.
    if arguments.iter().any(|word| word.contains('$')) {
        return None;
    }
    let plain = |word: &String| {
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_=,./:+".contains(c);
        if !word.is_empty() && word.chars().all(safe) { word.clone() } else { quote(word) }
    };
    Some(std::iter::once(name).chain(&arguments).map(plain).collect::<Vec<_>>().join(" "))
}

/// Modules that an entry loads for the screen or for the image, not to reach its disk.
fn for_later(module: &str) -> bool {
    let prefixes = ["all_video", "video", "gfx", "efi_", "ieee1275", "vbe", "vga", "gzio", "xzio", "lzopio"];
    prefixes.iter().any(|prefix| module.starts_with(prefix))
}

/// More than this many names for one entry are not worth their place in grub.cfg.
const MAX_SPELLINGS: usize = 64;

/// Every value of `default` that names the entry at `path`, the most lasting first: ids before
/// titles before numbers.
pub(super) fn spellings(menu: &Menu, path: &[&Entry]) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut entries = menu.entries.as_slice();
    for (level, entry) in path.iter().enumerate() {
        let names = names(entries, entry);
        all = all
            .iter()
            .flat_map(|above| {
                names
                    .iter()
                    .map(move |name| if level == 0 { name.clone() } else { format!("{above}>{name}") })
            })
            .take(MAX_SPELLINGS)
            .collect();
        if let Content::Submenu(inside) = &entry.content {
            entries = &inside.entries;
        }
    }
    all
}

/// The values of `default` that lead to the entry at `path` because it is the first where they end:
/// none at all, and the names of submenus.
pub(super) fn indirect_spellings(menu: &Menu, path: &[&Entry]) -> Vec<String> {
    let mut all = Vec::new();
    for (level, entry) in path.iter().enumerate().rev() {
        let above = level.checked_sub(1).and_then(|above| path.get(above));
        let siblings = match above.map(|above| &above.content) {
            Some(Content::Submenu(inside)) => &inside.entries,
            _ => &menu.entries,
        };
        if !siblings.first().is_some_and(|first| std::ptr::eq(first, *entry)) {
            break;
        }
        match path.get(..level) {
            Some(above) if level > 0 => all.extend(spellings(menu, above)),
            _ => all.push(String::new()),
        }
    }
    all
}

fn names(entries: &[Entry], entry: &Entry) -> Vec<String> {
    let index = entries.iter().position(|other| std::ptr::eq(other, entry));
    // GRUB reads what begins with a digit as a number.
    let worded = entry.id.iter().chain([&entry.title]).filter(|name| number(name).is_none());
    let mut names: Vec<String> = worded
        .filter(|name| !name.is_empty() && !name.contains("${"))
        .cloned()
        .chain(index.map(|index| index.to_string()))
        .filter(|name| pick(entries, name).is_ok_and(|(found, named)| named && std::ptr::eq(found, entry)))
        .map(|name| name.replace('>', ">>"))
        .collect();
    names.dedup();
    names
}
