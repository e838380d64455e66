// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words that a kernel is, or will be, started with, from all places that are known to have a
//! say: what is in its configuration, in its boot entries, in the settings of GRUB and kernel-install.

use anyhow::Result;

use crate::conf::plain::{self, Plain};
use crate::conf::{ConfFile, Variables};
use crate::gate::{bls, clear};
use crate::kernel::{KernelConfig, KernelRelease};
use crate::sys::files;
use crate::tree::Tree;

/// Of Clear Linux's kernels: signatures are not enforced, whatever their configuration says.
pub(super) const SIGNATURES_OFF: &str = "module.sig_unenforce";

/// One word and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub text: String,
    pub source: String,
}

/// All words for a kernel.
pub(super) fn words(tree: &Tree, kernel: &KernelRelease, config: &KernelConfig) -> Result<Vec<Word>> {
    let mut words = Vec::new();
    let mut add = |text: &str, source: &str| {
        let new = text.split_whitespace().map(|word| word.trim_matches(['"', '\'']).to_owned());
        words.extend(new.map(|text| Word { text, source: source.to_owned() }));
    };
    add(config.value("CONFIG_CMDLINE").unwrap_or_default(), "CONFIG_CMDLINE");
    let entries = bls::Menu::read(tree).unwrap_or_default().entries;
    for entry in entries.iter().filter(|entry| entry.kernel.as_ref() == Some(kernel)) {
        add(&entry.options, &format!("the boot entry {}", entry.id));
    }
    // The first that is there is the one that new entries get.
    for path in ["/etc/kernel/cmdline", "/usr/lib/kernel/cmdline"] {
        if let Some(text) = files::read_if_there(&tree.path(path))? {
            add(&text, path);
            break;
        }
    }
    let clears = clear::command_lines(tree, kernel);
    for path in &clears {
        if let Some(text) = files::read_if_there(&tree.path(path))? {
            add(&text, path);
        }
    }
    for (path, value) in grub_settings(tree)? {
        add(&value, &path);
    }
    if tree.root.is_live()
        && !tree.root.is_chroot()
        && tree.running_kernel().is_ok_and(|running| running == *kernel)
        && let Some(text) = files::read_if_there(&tree.path("/proc/cmdline"))?
    {
        add(&text, "/proc/cmdline");
    }
    // Other kernels do not know it.
    if clears.is_empty() {
        words.retain(|word| word.text != SIGNATURES_OFF);
    }
    Ok(words)
}

/// What grub-mkconfig puts behind every kernel, with the file that says so last. Its settings are a
/// shell script, of which the lines in question are mostly plain; where they are not, all that any
/// of them says counts.
fn grub_settings(tree: &Tree) -> Result<Vec<(String, String)>> {
    const DROP_INS: &str = "/etc/default/grub.d";
    let mut paths = vec!["/etc/default/grub".to_owned()];
    let drop_ins = files::names(&tree.path(DROP_INS)).unwrap_or_default();
    paths.extend(
        drop_ins.iter().filter(|name| name.ends_with(".cfg")).map(|name| format!("{DROP_INS}/{name}")),
    );
    let mut sources = Vec::new();
    for path in paths {
        let Some(text) = files::read_if_there(&tree.path(&path))? else { continue };
        let lines: Vec<&str> =
            text.lines().filter(|line| line.trim_start().starts_with("GRUB_CMDLINE_LINUX")).collect();
        if !lines.is_empty() {
            sources.push(ConfFile { path: path.into(), text: lines.join("\n") + "\n" });
        }
    }
    let Some(last) = sources.last().map(|source| source.path.display().to_string()) else {
        return Ok(Vec::new());
    };
    Ok(match plain::evaluate(&Variables::new(), &sources) {
        Plain::Evaluated(variables) => ["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"]
            .iter()
            .filter_map(|name| Some((last.clone(), variables.scalar(name)?.to_owned())))
            .collect(),
        Plain::NeedsShell { .. } => sources
            .iter()
            .flat_map(|source| source.text.lines().map(|line| (source.path.display().to_string(), line)))
            .filter_map(|(path, line)| Some((path, line.split_once('=')?.1.to_owned())))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fs_err as fs;
    use rstest::rstest;

    fn found(files: &[(&str, &str)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::at(dir.path());
        for (path, text) in files {
            fs::create_dir_all(tree.path(path).parent().unwrap()).unwrap();
            fs::write(tree.path(path), text).unwrap();
        }
        let config = KernelConfig::new("CONFIG_CMDLINE=\"built=in\"\n");
        let words = words(&tree, &"6.1-1".parse().unwrap(), &config).unwrap();
        let shown = words.iter().map(|word| format!("{} ({})", word.text, word.source));
        shown.collect::<Vec<_>>().join(", ")
    }

    #[rstest]
    #[case::none(&[], "")]
    #[case::grub(
        &[("/etc/default/grub", "GRUB_DISTRIBUTOR=`uname`\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet a=b\"\n")],
        "quiet (/etc/default/grub), a=b (/etc/default/grub)"
    )]
    #[case::grub_drop_in(
        &[("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"one\"\n"),
          ("/etc/default/grub.d/10.cfg", "GRUB_CMDLINE_LINUX=\"two $GRUB_CMDLINE_LINUX\"\n"),
          ("/etc/default/grub.d/10.cfg.old", "GRUB_CMDLINE_LINUX=three\n")],
        "two (/etc/default/grub.d/10.cfg), one (/etc/default/grub.d/10.cfg)"
    )]
    #[case::grub_replaced(
        &[("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"one\"\nGRUB_CMDLINE_LINUX='two'\n")],
        "two (/etc/default/grub)"
    )]
    #[case::grub_program(
        &[("/etc/default/grub", "GRUB_CMDLINE_LINUX=\"one $(two)\"\n")],
        "one (/etc/default/grub), $(two) (/etc/default/grub)"
    )]
    #[case::kernel_install(
        &[("/etc/kernel/cmdline", "root=x\nquiet\n"), ("/usr/lib/kernel/cmdline", "hidden\n")],
        "root=x (/etc/kernel/cmdline), quiet (/etc/kernel/cmdline)"
    )]
    #[case::entries(
        &[("/boot/loader/entries/A.conf", "title A\nversion 6.1-1\nlinux /vmlinuz-6.1-1\noptions one\noptions two\n"),
          ("/boot/loader/entries/b.conf", "version 6.1-2\nlinux /vmlinuz-6.1-1.old\noptions three\n"),
          ("/boot/vmlinuz-6.1-1", ""), ("/boot/vmlinuz-6.1-1.old", ""),
          ("/efi/loader/entries/c.conf", "linux\t/token/6.1-1/linux\noptions\tfour\n"), ("/efi/token/6.1-1/linux", "")],
        "four (the boot entry c.conf), one (the boot entry a.conf), two (the boot entry a.conf)"
    )]
    #[case::clear(
        &[("/usr/lib/kernel/cmdline-6.1-1", "quiet"),
          ("/usr/share/kernel/cmdline.d/a.conf", "module.sig_unenforce\n")],
        "quiet (/usr/lib/kernel/cmdline-6.1-1), module.sig_unenforce (/usr/share/kernel/cmdline.d/a.conf)"
    )]
    #[case::unknown_word(&[("/etc/kernel/cmdline", "module.sig_unenforce quiet")], "quiet (/etc/kernel/cmdline)")]
    fn words_come_from_all_places_that_have_a_say(#[case] files: &[(&str, &str)], #[case] want: &str) {
        let want = format!("built=in (CONFIG_CMDLINE){}{want}", if want.is_empty() { "" } else { ", " });
        assert_eq!(found(files), want);
    }
}
