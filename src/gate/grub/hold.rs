// SPDX-License-Identifier: MIT OR Apache-2.0
//! The hold: the lines that make a proven kernel the default where a held one would be.
//! They set the default and nothing else: every entry of the menu stays as it was.

use super::default::{Choice, choose};
use super::env::GrubEnv;
use super::evaluate::Script;
use super::menu::Entry;
use super::pin::{When, indirect_spellings, pin, spellings};
use crate::kernel::KernelRelease;

/// What is to be appended to a grub.cfg that is being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Override {
    /// The default is an entry that may boot, or none of our kernels.
    NotNeeded,
    /// The script makes `kernel` the default.
    Pin { kernel: KernelRelease, script: String },
    /// The default is a held kernel, and there is no other that may boot.
    NothingToPin { held: KernelRelease },
    /// What the default will be cannot be told; the script, where there is one, decides at boot.
    Unknown { why: String, script: Option<String> },
}

/// Decides on the end of a grub.cfg from all that comes before it. `may_boot` answers for kernels
/// that are neither held nor pending.
pub fn override_default(
    cfg_so_far: &str,
    env: &GrubEnv,
    may_boot: &dyn Fn(&KernelRelease) -> bool,
) -> Override {
    let script = Script::run(cfg_so_far, &env.lasting());
    let next = Script::run(cfg_so_far, env);
    // A one-shot is the user's own choice, unless it names nothing: GRUB takes the first entry then.
    let stray =
        choose(&next).ok().filter(|choice| choice.by_mistake && held(choice.entry(), may_boot).is_some());
    let choice = match choose(&script) {
        Ok(choice) => choice,
        Err(why) => {
            let script = (script.menu.lost.is_none()).then(|| at_boot(&script, may_boot)).flatten();
            return Override::Unknown { why, script };
        }
    };
    let lasting_held = held(choice.entry(), may_boot);
    let stray_held = stray.as_ref().and_then(|stray| stray.entry().kernel());
    let stray = stray.map(|stray| stray.wanted);
    let (held, instead_of, when) = match (lasting_held, stray, stray_held) {
        (Some(held), or_default, _) => (held, choice.entry(), When::Lasting { or_default }),
        (None, Some(default), Some(held)) => (held, choice.entry(), When::DefaultIs(vec![default])),
        _ => return unnamed(&choice),
    };
    match candidate(&script, may_boot, instead_of) {
        None => Override::NothingToPin { held },
        Some((kernel, path)) => {
            let why = format!("kernel {held} is not proven");
            let script = pin(&script.menu, &path, &kernel, &why, &when);
            Override::Pin { kernel, script }
        }
    }
}

/// For a default that is known only at boot: lines that look at it there.
fn at_boot(script: &Script, may_boot: &dyn Fn(&KernelRelease) -> bool) -> Option<String> {
    let boots = script.menu.boots();
    let held: Vec<_> =
        boots.iter().filter(|path| path.last().is_some_and(|e| held(e, may_boot).is_some())).collect();
    let names: Vec<String> = held
        .iter()
        .flat_map(|path| [spellings(&script.menu, path), indirect_spellings(&script.menu, path)].concat())
        .collect();
    let first = held.first()?.last()?;
    let (kernel, path) = candidate(script, may_boot, first)?;
    let mut kernels: Vec<String> =
        held.iter().filter_map(|path| path.last()?.kernel()).map(|k| k.to_string()).collect();
    kernels.dedup();
    let why = format!("not proven: {}", kernels.join(", "));
    Some(pin(&script.menu, &path, &kernel, &why, &When::DefaultIs(names)))
}

fn held(entry: &Entry, may_boot: &dyn Fn(&KernelRelease) -> bool) -> Option<KernelRelease> {
    entry.kernel().filter(|kernel| !may_boot(kernel))
}

/// For a default that is no held kernel by its name: fine, unless it is a kernel without a name.
fn unnamed(choice: &Choice) -> Override {
    let entry = choice.entry();
    let images = entry.boot().map(|boot| boot.images.as_slice()).unwrap_or_default();
    if entry.foreign() || entry.kernel().is_some() {
        return Override::NotNeeded;
    }
    let kernel_like = |image: &&String| {
        let name = image.rsplit('/').next().unwrap_or_default();
        ["vmlinu", "kernel", "bzImage", "linux", "Image"].iter().any(|prefix| name.starts_with(prefix))
    };
    match images.iter().find(kernel_like) {
        Some(image) => Override::Unknown {
            why: format!("the default entry's image {image} does not name its kernel"),
            script: None,
        },
        None => Override::NotNeeded,
    }
}

/// The newest kernel that may boot, and the entry for it that keeps its name longest.
fn candidate<'a>(
    script: &'a Script,
    may_boot: &dyn Fn(&KernelRelease) -> bool,
    instead_of: &Entry,
) -> Option<(KernelRelease, Vec<&'a Entry>)> {
    let xen = instead_of.boot().is_some_and(|boot| boot.xen);
    let fits = |path: &Vec<&'a Entry>| {
        let entry = path.last()?;
        let kernel = entry.kernel().filter(|kernel| may_boot(kernel))?;
        let sure = path.iter().all(|entry| entry.uncertain().is_none());
        (sure && !entry.recovery() && entry.boot()?.xen == xen).then(|| (kernel, path.clone()))
    };
    let mut all: Vec<(KernelRelease, Vec<&Entry>)> = script.menu.boots().iter().filter_map(fits).collect();
    // grub-mkconfig lists the newest first; where a setting put another one on top, that is what its
    // owner wants. Entries written by hand come last: they may be for anything.
    let script = Some(&instead_of.script);
    all.sort_by_key(|(_, path)| path.last().map(|entry| &entry.script) != script);
    let (kernel, _) = all.first()?;
    let own = |path: &[&Entry]| {
        path.last().and_then(|entry| entry.id.as_deref()).is_some_and(|id| id.contains(kernel.as_str()))
    };
    let kernel = kernel.clone();
    let same = || all.iter().filter(|(other, _)| *other == kernel);
    let path = same().find(|(_, path)| own(path)).or_else(|| same().next())?.1.clone();
    Some((kernel, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::grub::default::{Prediction, predict};
    use crate::gate::grub::fixture::{MACHINE, Machine, NEW, OLD, OTHER_SYSTEMS, release};
    use rstest::rstest;

    const SAVED: Machine = Machine { default: "${saved_entry}", ..MACHINE };

    fn env(name: &str, value: &str) -> GrubEnv {
        GrubEnv::default().with(name, value)
    }

    fn hold(cfg: &str, env: &GrubEnv, held: &[&str]) -> Override {
        override_default(cfg, env, &|kernel| !held.contains(&kernel.as_str()))
    }

    /// What boots with the override in place; it must be an override.
    fn boots(cfg: &str, env: &GrubEnv, held: &[&str]) -> String {
        let script = match hold(cfg, env, held) {
            Override::Pin { script, .. } | Override::Unknown { script: Some(script), .. } => script,
            other => panic!("{other:?}"),
        };
        match predict(&format!("{cfg}{script}"), env) {
            Prediction::Entry { kernel, .. } => kernel.unwrap().to_string(),
            Prediction::Unknown { why } => panic!("{why} after\n{script}"),
        }
    }

    #[rstest]
    #[case::submenus(MACHINE)]
    #[case::flat(Machine { submenus: false, ..MACHINE })]
    #[case::no_recovery(Machine { recovery: false, ..MACHINE })]
    #[case::by_id(Machine { default: "gnulinux-simple-U", ..MACHINE })]
    #[case::by_path(Machine { default: "1>0", ..MACHINE })]
    #[case::bogus(Machine { default: "gone", ..MACHINE })]
    #[case::own_recovery(Machine { default: "1>1", ..MACHINE })]
    #[case::nothing_saved(SAVED)]
    #[case::other_systems(Machine { after: OTHER_SYSTEMS, ..MACHINE })]
    fn a_held_default_gives_way(#[case] machine: Machine) {
        let cfg = machine.cfg();
        assert!(
            matches!(hold(&cfg, &GrubEnv::default(), &[NEW]), Override::Pin { kernel, .. } if kernel == release(OLD))
        );
        assert_eq!(boots(&cfg, &GrubEnv::default(), &[NEW]), OLD);
    }

    #[rstest]
    #[case::saved_is_held(env("saved_entry", "1>0"))]
    #[case::saved_names_nothing(env("saved_entry", "gone"))]
    #[case::recordfail(env("recordfail", "1"))]
    fn a_held_saved_default_gives_way(#[case] env: GrubEnv) {
        assert_eq!(boots(&SAVED.cfg(), &env, &[NEW]), OLD);
    }

    #[rstest]
    #[case::nothing_held(MACHINE, GrubEnv::default(), &[])]
    #[case::old_is_held(MACHINE, GrubEnv::default(), &[OLD])]
    #[case::saved_is_fine(SAVED, env("saved_entry", "1>2"), &[NEW])]
    #[case::other_system_saved(Machine { after: OTHER_SYSTEMS, ..SAVED }, env("saved_entry", "osprober-efi-A"), &[NEW])]
    #[case::same_release_elsewhere(
        Machine { after: OTHER_SYSTEMS, default: "osprober-gnulinux-simple-B", ..MACHINE }, GrubEnv::default(), &[NEW]
    )]
    #[case::memory_test(
        Machine { after: "menuentry m --id m { linux16 /boot/memtest86+.bin; }", default: "m", ..MACHINE },
        GrubEnv::default(), &[NEW]
    )]
    #[case::one_shot_to_a_held_kernel(
        Machine { default: "1>2", ..MACHINE }, env("next_entry", "1>0"), &[NEW]
    )]
    fn a_default_that_may_boot_is_left_alone(
        #[case] machine: Machine,
        #[case] env: GrubEnv,
        #[case] held: &[&str],
    ) {
        assert_eq!(hold(&machine.cfg(), &env, held), Override::NotNeeded);
    }

    #[rstest]
    #[case::all_held(MACHINE, &[NEW, OLD], NEW)]
    #[case::one_kernel(Machine { kernels: &[NEW], ..MACHINE }, &[NEW], NEW)]
    #[case::only_elsewhere(Machine { kernels: &[NEW], after: OTHER_SYSTEMS, ..MACHINE }, &[NEW], NEW)]
    fn without_another_kernel_nothing_is_pinned(
        #[case] machine: Machine,
        #[case] held: &[&str],
        #[case] want: &str,
    ) {
        let want = Override::NothingToPin { held: release(want) };
        assert_eq!(hold(&machine.cfg(), &GrubEnv::default(), held), want);
    }

    #[test]
    fn the_newest_that_may_boot_is_pinned() {
        let cfg = Machine { kernels: &["6.1.0-57-amd64", NEW, OLD], ..MACHINE }.cfg();
        assert_eq!(boots(&cfg, &GrubEnv::default(), &["6.1.0-57-amd64"]), NEW);
        assert_eq!(boots(&cfg, &GrubEnv::default(), &["6.1.0-57-amd64", NEW]), OLD);
    }

    #[test]
    fn entries_of_the_users_own_come_last() {
        let own =
            "### BEGIN /etc/grub.d/09_own ###\nmenuentry 'mine' { linux /boot/vmlinuz-5.10.0-1-amd64; }\n";
        let cfg = Machine { default: "gnulinux-simple-U", ..MACHINE }.cfg().replacen(
            "### BEGIN /etc/grub.d/10_linux",
            &format!("{own}### BEGIN /etc/grub.d/10_linux"),
            1,
        );
        assert_eq!(boots(&cfg, &GrubEnv::default(), &[NEW]), OLD);
        assert_eq!(boots(&cfg, &GrubEnv::default(), &[NEW, OLD]), "5.10.0-1-amd64");
    }

    #[test]
    fn the_script_finds_the_image_without_touching_root() {
        let Override::Pin { script, .. } = hold(&MACHINE.cfg(), &GrubEnv::default(), &[NEW]) else {
            panic!()
        };
        let want = "\
# dkms: kernel 6.1.0-56-amd64 is not proven, so 6.1.0-55-amd64 is the default.
# Every entry can still be chosen by hand; 'dkms gate' tells more.
if [ \"${boot_once}\" != true ]; then
	set dkms_root=\"${root}\"
	insmod part_gpt
	insmod ext2
	set dkms_root=hd0,gpt2
	search --no-floppy --fs-uuid --set=dkms_root --hint-bios=hd0,gpt2 --hint=hd0,gpt2 U
	if [ -f \"(${dkms_root})\"'/boot/vmlinuz-6.1.0-55-amd64' ]; then
		set default='gnulinux-advanced-U>gnulinux-6.1.0-55-amd64-advanced-U'
	fi
	unset dkms_root
fi
";
        assert_eq!(script, want);
    }

    #[test]
    fn a_pinned_kernel_that_went_away_lets_grub_boot_another() {
        let cfg = MACHINE.cfg();
        let Override::Pin { script, .. } = hold(&cfg, &GrubEnv::default(), &[NEW]) else { panic!() };
        let gone = GrubEnv::default().with_missing(&format!("/boot/vmlinuz-{OLD}"));
        let Prediction::Entry { kernel, .. } = predict(&(cfg + &script), &gone) else { panic!() };
        assert_eq!(kernel, Some(release(NEW)));
    }

    #[test]
    fn a_one_shot_wins_over_the_hold() {
        let cfg = MACHINE.cfg();
        assert_eq!(boots(&cfg, &env("next_entry", "1>0"), &[NEW]), NEW);
    }

    #[rstest]
    #[case::default_held(MACHINE)]
    #[case::default_fine(Machine { default: "1>2", ..MACHINE })]
    fn a_one_shot_that_names_nothing_does_not_boot_a_held_kernel(#[case] machine: Machine) {
        assert_eq!(boots(&machine.cfg(), &env("next_entry", "it's gone"), &[NEW]), OLD);
    }

    #[test]
    fn a_pin_is_not_saved() {
        let cfg = Machine { save_default: true, ..SAVED }.cfg();
        let Override::Pin { script, .. } = hold(&cfg, &GrubEnv::default(), &[NEW]) else { panic!() };
        assert!(script.contains(
            "!= 'gnulinux-advanced-U>gnulinux-6.1.0-55-amd64-advanced-U' ]; then\n\t\tsaved_entry="
        ));
        let Override::Pin { script, .. } = hold(&SAVED.cfg(), &GrubEnv::default(), &[NEW]) else { panic!() };
        assert!(!script.contains("savedefault"));
    }

    #[rstest]
    #[case::same_title_twice(
        "menuentry 'a' { linux /vmlinuz-6.2; }\nmenuentry 'a' { linux /vmlinuz-6.1; }",
        "'1'"
    )]
    #[case::sign_in_title(
        "menuentry 'x' { linux /vmlinuz-6.2; }\nmenuentry 'a > b' { linux /vmlinuz-6.1; }",
        "'a >> b'"
    )]
    #[case::quote_in_title(
        "menuentry 'x' { linux /vmlinuz-6.2; }\nmenuentry \"it's\" { linux /vmlinuz-6.1; }",
        r"'it'\''s'"
    )]
    #[case::number_like(
        "menuentry 'x' { linux /vmlinuz-6.2; }\nmenuentry '0 a' { linux /vmlinuz-6.1; }",
        "'1'"
    )]
    fn names_lead_to_their_entry(#[case] cfg: &str, #[case] want: &str) {
        let Override::Pin { script, .. } = hold(cfg, &GrubEnv::default(), &["6.2"]) else { panic!() };
        assert!(script.contains(&format!("set default={want}\n")), "{script}");
        assert_eq!(boots(&format!("{cfg}\n"), &GrubEnv::default(), &["6.2"]), "6.1");
    }

    #[test]
    fn a_hypervisor_stays() {
        let cfg = "menuentry x { multiboot2 /xen.gz; module2 /vmlinuz-6.2; }\nmenuentry a { linux /vmlinuz-6.1; }\n\
                   menuentry b { multiboot2 /xen.gz; module2 /vmlinuz-6.1; }\n";
        let Override::Pin { script, .. } = hold(cfg, &GrubEnv::default(), &["6.2"]) else { panic!() };
        assert!(script.contains("default='b'"), "{script}");
    }

    #[test]
    fn a_default_decided_at_boot_is_looked_at_there() {
        let cfg = Machine { after: "if keystatus --shift; then set default=1; fi\n", ..MACHINE }.cfg();
        let Override::Unknown { script: Some(script), .. } = hold(&cfg, &GrubEnv::default(), &[NEW]) else {
            panic!()
        };
        for (default, want) in
            [("0", OLD), ("", OLD), ("1", OLD), ("gnulinux-advanced-U>0", OLD), ("1>2", OLD)]
        {
            let cfg = Machine { default, ..MACHINE }.cfg() + &script;
            let Prediction::Entry { kernel, .. } = predict(&cfg, &GrubEnv::default()) else { panic!() };
            assert_eq!(kernel, Some(release(want)), "default={default}");
        }
    }

    #[rstest]
    #[case::specification("blscfg\n")]
    #[case::mistake("if true; then\n")]
    fn a_menu_that_cannot_be_read_is_left_alone(#[case] after: &str) {
        let cfg = Machine { after, ..MACHINE }.cfg();
        assert!(matches!(hold(&cfg, &GrubEnv::default(), &[NEW]), Override::Unknown { script: None, .. }));
    }

    #[test]
    fn a_nameless_kernel_is_unknown() {
        let cfg = "menuentry Arch { linux /boot/vmlinuz-linux root=x; initrd /boot/initramfs-linux.img; }";
        assert!(matches!(hold(cfg, &GrubEnv::default(), &[NEW]), Override::Unknown { script: None, .. }));
    }
}
