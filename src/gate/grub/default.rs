// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which entry of its menu GRUB will boot when nobody touches a key.

use super::env::GrubEnv;
use super::evaluate::Script;
use super::expand::Value;
use super::menu::{Content, Entry};
use crate::kernel::KernelRelease;

/// What will boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prediction {
    Entry {
        /// Titles of the submenus on the way and of the entry (last).
        titles: Vec<String>,
        /// Their ids, where they have one.
        ids: Vec<Option<String>>,
        /// This system's kernel, where the entry boots one and its image names it.
        kernel: Option<KernelRelease>,
        /// The image as grub.cfg writes it: a path on the device that the entry searches for.
        image: Option<String>,
        initrds: Vec<String>,
    },
    Unknown {
        why: String,
    },
}

/// Foretells the next boot. For what lasts beyond it, give it [`GrubEnv::lasting`].
pub fn predict(cfg: &str, env: &GrubEnv) -> Prediction {
    let script = Script::run(cfg, env);
    let choice = match choose(&script) {
        Ok(choice) => choice,
        Err(why) => return Prediction::Unknown { why },
    };
    let entry = choice.entry();
    let boot = entry.boot();
    let image = boot.and_then(|boot| boot.images.first()).cloned();
    if let Some(image) = image.as_ref().filter(|image| env.is_missing(image)) {
        return Prediction::Unknown { why: format!("the default entry's kernel {image} is missing") };
    }
    Prediction::Entry {
        titles: choice.path.iter().map(|entry| entry.title.clone()).collect(),
        ids: choice.path.iter().map(|entry| entry.id.clone()).collect(),
        kernel: entry.kernel(),
        image,
        initrds: boot.map(|boot| boot.initrds.clone()).unwrap_or_default(),
    }
}

/// The default entry of a menu.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    /// The submenus on the way and the entry (last, always there).
    pub(super) path: Vec<&'a Entry>,
    /// The value of `default`.
    pub(super) wanted: String,
    /// Whether that value names no entry, so that GRUB takes the first.
    pub(super) by_mistake: bool,
    first: &'a Entry,
}

impl<'a> Choice<'a> {
    pub(super) fn entry(&self) -> &'a Entry {
        self.path.last().unwrap_or(&self.first)
    }
}

pub(super) fn choose(script: &Script) -> Result<Choice<'_>, String> {
    if let Some(why) = &script.menu.lost {
        return Err(why.clone());
    }
    let wanted = match script.variable("default") {
        Value::Known(text) => text,
        Value::Unknown { why, .. } => return Err(why),
    };
    let (mut path, mut by_mistake) = (Vec::new(), false);
    let mut entries = script.menu.entries.as_slice();
    let mut rest = wanted.as_str();
    loop {
        let (part, further) = split(rest);
        let (entry, found) = pick(entries, &part)?;
        path.push(entry);
        by_mistake |= !found && !part.is_empty();
        match &entry.content {
            Content::Submenu(menu) => {
                if let Some(why) = &menu.lost {
                    return Err(format!("the submenu '{}' is not known: {why}", entry.title));
                }
                (entries, rest) = (&menu.entries, further);
            }
            Content::Boot(_) => return Ok(Choice { first: entry, path, wanted, by_mistake }),
        }
    }
}

/// `a>b` to `a` and `b`; a doubled `>` belongs to a title.
fn split(spec: &str) -> (String, &str) {
    let mut part = String::new();
    let mut chars = spec.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == '>' && chars.next_if(|(_, c)| *c == '>').is_none() {
            return (part, &spec[at + 1..]);
        }
        part.push(c);
    }
    (part, "")
}

/// The number that GRUB reads in a part: whatever begins with one is one ("6.1" is 6), in C's
/// notation.
pub(super) fn number(part: &str) -> Option<usize> {
    let part = part.trim_start();
    let (digits, radix) = match part.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None if part.starts_with('0') => (part, 8),
        None => (part, 10),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    usize::from_str_radix(&digits[..end], radix).ok()
}

/// The entry that a part names (by index, title or id), or else the first, and whether it does.
pub(super) fn pick<'a>(entries: &'a [Entry], part: &str) -> Result<(&'a Entry, bool), String> {
    let number = number(part);
    let named = match number {
        Some(index) => Some(index).filter(|index| *index < entries.len()),
        None => entries.iter().position(|entry| entry.title == part || entry.id.as_deref() == Some(part)),
    };
    let counted = named.is_none() || number.is_some();
    let index = named.unwrap_or(0);
    let entry = entries.get(index).ok_or("the menu has no entries")?;
    // By name, only the entry itself must be sure to be there; by number, all before it too.
    let must = if counted { &entries[..=index] } else { std::slice::from_ref(entry) };
    match must.iter().find_map(|entry| entry.doubt.as_ref()) {
        Some(why) => Err(format!("which entry is number {index} is in doubt: {why}")),
        None => Ok((entry, named.is_some())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::grub::fixture::{MACHINE, Machine, NEW, OLD, OTHER_SYSTEMS};
    use rstest::rstest;

    const FLAT: Machine = Machine { submenus: false, ..MACHINE };
    const LEAN: Machine = Machine { recovery: false, ..MACHINE };

    fn env(name: &str, value: &str) -> GrubEnv {
        GrubEnv::default().with(name, value)
    }

    fn kernel(cfg: &str, env: &GrubEnv) -> Option<String> {
        match predict(cfg, env) {
            Prediction::Entry { kernel, .. } => kernel.map(|kernel| kernel.to_string()),
            Prediction::Unknown { why } => Some(why),
        }
    }

    #[rstest]
    #[case::first("0", NEW)]
    #[case::empty("", NEW)]
    #[case::id_path("gnulinux-advanced-U>gnulinux-6.1.0-55-amd64-advanced-U", OLD)]
    #[case::title_path(
        "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-55-amd64",
        OLD
    )]
    #[case::number_path("1>2", OLD)]
    #[case::number_with_letters("1x>2", OLD)]
    #[case::hexadecimal("0x1>2", OLD)]
    #[case::spaces("1 > 2", OLD)]
    #[case::sign("+1>2", NEW)]
    #[case::mixed_path("1>gnulinux-6.1.0-55-amd64-advanced-U", OLD)]
    #[case::recovery("1>3", OLD)]
    #[case::submenu_alone("1", NEW)]
    #[case::number_too_large_in_submenu("1>9", NEW)]
    #[case::inner_id_alone("gnulinux-6.1.0-55-amd64-advanced-U", NEW)]
    #[case::bogus("gone", NEW)]
    #[case::bogus_in_submenu("1>gone", NEW)]
    #[case::number_too_large("99", NEW)]
    fn grub_default_is_followed(#[case] default: &str, #[case] want: &str) {
        assert_eq!(kernel(&Machine { default, ..MACHINE }.cfg(), &GrubEnv::default()).as_deref(), Some(want));
    }

    #[rstest]
    #[case::id("gnulinux-6.1.0-55-amd64-advanced-U", OLD)]
    #[case::number("2", OLD)]
    #[case::stale_path("gnulinux-advanced-U>gnulinux-6.1.0-55-amd64-advanced-U", NEW)]
    fn menus_without_submenus_are_followed(#[case] default: &str, #[case] want: &str) {
        assert_eq!(kernel(&Machine { default, ..FLAT }.cfg(), &GrubEnv::default()).as_deref(), Some(want));
    }

    #[rstest]
    #[case::saved(env("saved_entry", "1>1"), OLD)]
    #[case::nothing_saved(GrubEnv::default(), NEW)]
    #[case::saved_names_nothing(env("saved_entry", "gone"), NEW)]
    #[case::one_shot(env("saved_entry", "0").with("next_entry", "1>1"), OLD)]
    #[case::bogus_one_shot(env("saved_entry", "1>1").with("next_entry", "gone"), NEW)]
    #[case::empty_one_shot(env("saved_entry", "1>1").with("next_entry", ""), OLD)]
    #[case::failed_before(env("saved_entry", "1>1").with("recordfail", "1"), OLD)]
    #[case::no_initramfs_failed(env("saved_entry", "0").with("initrdfail", "1").with("prev_entry", "1>1"), OLD)]
    fn the_environment_is_followed(#[case] env: GrubEnv, #[case] want: &str) {
        let cfg = Machine { default: "${saved_entry}", ..LEAN }.cfg();
        assert_eq!(kernel(&cfg, &env).as_deref(), Some(want));
    }

    #[rstest]
    #[case::windows("osprober-efi-A")]
    #[case::another_linux("osprober-gnulinux-simple-B")]
    #[case::by_number("3")]
    fn another_system_has_no_kernel_of_ours(#[case] default: &str) {
        let cfg = Machine { default, after: OTHER_SYSTEMS, ..MACHINE }.cfg();
        assert!(matches!(predict(&cfg, &GrubEnv::default()), Prediction::Entry { kernel: None, .. }));
    }

    #[test]
    fn the_entry_is_told_in_full() {
        let cfg = Machine { default: "1>2", ..MACHINE }.cfg();
        let want = Prediction::Entry {
            titles: vec![
                "Advanced options for Debian GNU/Linux".into(),
                format!("Debian GNU/Linux, with Linux {OLD}"),
            ],
            ids: vec![Some("gnulinux-advanced-U".into()), Some(format!("gnulinux-{OLD}-advanced-U"))],
            kernel: Some(OLD.parse().unwrap()),
            image: Some(format!("/boot/vmlinuz-{OLD}")),
            initrds: vec![format!("/boot/initrd.img-{OLD}")],
        };
        assert_eq!(predict(&cfg, &GrubEnv::default()), want);
    }

    #[rstest]
    #[case::custom_file_wins("", "set default='1>1'", OLD)]
    #[case::custom_entry_before("menuentry x { chainloader +1; }\n", "", NEW)]
    fn what_comes_later_counts(#[case] after: &str, #[case] custom: &str, #[case] want: &str) {
        let cfg = Machine { after, ..LEAN }.cfg();
        assert_eq!(kernel(&cfg, &GrubEnv::default().with_file("custom.cfg", custom)).as_deref(), Some(want));
    }

    #[rstest]
    #[case::firmware_decides(
        "if [ $grub_platform = efi ]; then set default=1; fi",
        "$grub_platform is known only at boot"
    )]
    #[case::a_key_decides(
        "if keystatus --shift; then default=1; fi",
        "whether keystatus succeeds is known only at boot"
    )]
    #[case::function_with_arguments("function f { set default=\"$1>$2\"; }\nf 1 2", OLD)]
    #[case::function_that_fails("function f { return 1; }\nif f; then true; else set default='1>2'; fi", OLD)]
    #[case::negated_command("if ! false; then set default='1>2'; fi", OLD)]
    #[case::status("false\nif [ $? = 1 ]; then set default='1>2'; fi", OLD)]
    #[case::status_passed_on(
        "function f { false; return; }\nif f; then true; else set default='1>2'; fi",
        OLD
    )]
    #[case::submenu_with_a_default(
        "submenu s --id s { set default=1\n menuentry a { true; }; }\nset default=s",
        "the submenu 's' is not known: it sets a default of its own"
    )]
    #[case::list("for x in 0 1; do set default=\"$x>2\"; done", OLD)]
    #[case::loop_matters("while sleep; do set default=1; done", "a loop runs an unknown number of times")]
    #[case::no_matter("if keystatus --shift; then timeout=9; fi", NEW)]
    #[case::both_ways_alike("if keystatus; then set default=1; else set default=1; fi", NEW)]
    #[case::other_file("source /boot/more.cfg", "/boot/more.cfg may add to it")]
    #[case::specification("blscfg", "its entries come from blscfg")]
    #[case::another_environment("load_env -f /boot/efi/env default", "/boot/efi/env may set it")]
    #[case::doubted_entry(
        "set default=uefi-firmware",
        "which entry is number 2 is in doubt: whether fwsetup succeeds is known only at boot"
    )]
    #[case::behind_a_doubted_entry(
        "menuentry after { chainloader +1; }\nif sleep; then menuentry b { true; }; fi\nset default=3",
        "which entry is number 3 is in doubt: whether sleep succeeds is known only at boot"
    )]
    fn what_cannot_be_told_is_not_guessed(#[case] after: &str, #[case] want: &str) {
        assert_eq!(kernel(&Machine { after, ..MACHINE }.cfg(), &GrubEnv::default()).as_deref(), Some(want));
    }

    #[test]
    fn a_missing_image_does_not_boot() {
        let env = GrubEnv::default().with_missing(&format!("/boot/vmlinuz-{NEW}"));
        assert!(matches!(predict(&MACHINE.cfg(), &env), Prediction::Unknown { .. }));
    }

    #[rstest]
    #[case::plain("a>b", "a", "b")]
    #[case::doubled("a>>b>c", "a>b", "c")]
    #[case::none("a", "a", "")]
    #[case::three("a>b>c", "a", "b>c")]
    fn paths_split_at_single_signs(#[case] spec: &str, #[case] part: &str, #[case] rest: &str) {
        assert_eq!(split(spec), (part.to_owned(), rest));
    }
}
