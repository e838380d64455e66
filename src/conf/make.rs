// SPDX-License-Identifier: MIT OR Apache-2.0
//! MAKE and PATCH: which of them are for a kernel, and the command line that dkms makes of a
//! make command. Runs nothing.

use super::directives::{Conditional, ModuleConf};
use super::ere;
use crate::kernel::KernelRelease;

impl ModuleConf {
    /// The make command for the kernel as written, or nothing if the default one is to be used:
    /// the last one whose MAKE_MATCH matches; only MAKE[0] needs none.
    pub fn make_command(&self, kernel: &KernelRelease) -> Option<&str> {
        let applies = |make: &&Conditional| match &make.condition {
            Some(pattern) => ere::matches(pattern, kernel.as_str()),
            None => make.index == 0,
        };
        self.makes.iter().rev().find(applies).map(|make| make.value.as_str())
    }

    /// The patches for the kernel, in the order they are applied in.
    pub fn patches_for(&self, kernel: &KernelRelease) -> Vec<&str> {
        self.patches
            .iter()
            .filter(|patch| {
                patch.condition.as_deref().is_none_or(|pattern| ere::matches(pattern, kernel.as_str()))
            })
            .map(|patch| patch.value.as_str())
            .collect()
    }
}

/// The command line to build with, for a shell to run in the module's build directory.
///
/// `kernel` is the release and its build directory; `jobs` make's option ("-j2", "-j"), empty for
/// none; `m_dir` the module's directory; `cross` further words for a make of ours, each after a
/// blank; `llvm` whether the kernel was built with clang.
pub fn command_line(
    conf: &ModuleConf,
    (kernel, build_dir): (&KernelRelease, &str),
    jobs: &str,
    m_dir: &str,
    cross: &str,
    llvm: bool,
) -> String {
    let separator = if jobs.is_empty() { "" } else { " " };
    let make = format!("make{separator}{jobs} KERNELRELEASE={kernel}{cross}");
    let suffix = if llvm { " LLVM=1" } else { "" };
    let Some(command) = conf.make_command(kernel) else {
        return format!("{make} -C {build_dir} M={m_dir}{suffix}");
    };
    match (after_make(command), is_list(command)) {
        (Some(arguments), false) => format!("{make}{arguments}{suffix}"),
        // Behind a list of commands, the variable would reach the last of them, or none.
        (Some(arguments), true) => format!("{make}{suffix}{arguments}"),
        (None, false) => format!("{command}{suffix}"),
        (None, true) => command.to_owned(),
    }
}

/// A command with the variables in it that are known, as one can read and paste it. What else a
/// shell would expand stays, and so does what is in single quotes.
pub fn expanded<'a>(command: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(command.len());
    let (mut in_double, mut rest) = (false, command);
    while let Some(at) = rest.find(['$', '\\', '\'', '"']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match rest.as_bytes() {
            [b'\\', ..] => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            [b'\'', ..] if !in_double => rest[1..].find('\'').map_or(rest.len(), |end| end + 2),
            [b'"', ..] => {
                in_double = !in_double;
                1
            }
            [b'$', ..] => {
                let braced =
                    rest.strip_prefix("${").and_then(|name| name.split_once('}')).map(|(name, _)| name);
                let bare = &rest[1..1 + rest[1..].bytes().take_while(|b| is_in_name(*b)).count()];
                let (name, length) = braced.map_or((bare, 1 + bare.len()), |name| (name, name.len() + 3));
                if let Some(value) = value(name) {
                    out.push_str(value);
                    rest = &rest[length..];
                    continue;
                }
                1
            }
            _ => 1,
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out + rest
}

fn is_in_name(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// What follows the word `make` that a command begins with; nothing if it begins otherwise or
/// with a quoted make, which is how a conf asks for its command to be left as it is.
pub fn after_make(command: &str) -> Option<&str> {
    let rest = command.strip_prefix("make")?;
    let ends = rest.chars().next().is_none_or(|c| c.is_whitespace() || ";&|".contains(c));
    ends.then_some(rest)
}

/// Whether the command is more than one simple command.
fn is_list(command: &str) -> bool {
    let mut quote = None;
    let mut chars = command.trim().chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None | Some('"'), '\\') => {
                chars.next();
            }
            (None, '\'' | '"') => quote = Some(c),
            (None, ';' | '&' | '|' | '(' | '\n') => return true,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::{Variables, directives};
    use rstest::rstest;

    fn conf(settings: &[(&str, usize, &str)]) -> ModuleConf {
        let mut vars = Variables::new();
        vars.set("PACKAGE_NAME", "m");
        vars.set("PACKAGE_VERSION", "1");
        vars.set("DEST_MODULE_LOCATION", "/updates");
        settings.iter().for_each(|(name, index, value)| vars.set_element(name, *index, *value));
        directives::read(&vars, "/x").unwrap()
    }

    fn kernel() -> KernelRelease {
        "6.1.0-56-amd64".parse().unwrap()
    }

    #[rstest]
    #[case::none(&[], None)]
    #[case::first(&[("MAKE", 0, "a")], Some("a"))]
    #[case::first_does_not_match(&[("MAKE", 0, "a"), ("MAKE_MATCH", 0, "^5")], None)]
    #[case::later_matches(&[("MAKE", 0, "a"), ("MAKE", 1, "b"), ("MAKE_MATCH", 1, "^6")], Some("b"))]
    #[case::later_without_match(&[("MAKE", 0, "a"), ("MAKE", 1, "b")], Some("a"))]
    #[case::last_wins(
        &[("MAKE", 1, "b"), ("MAKE_MATCH", 1, "6"), ("MAKE", 4, "c"), ("MAKE_MATCH", 4, "amd64$")],
        Some("c")
    )]
    #[case::invalid_pattern(&[("MAKE", 0, "a"), ("MAKE", 1, "b"), ("MAKE_MATCH", 1, "(")], Some("a"))]
    #[case::carriage_return(&[("MAKE", 0, "a\r")], Some("a"))]
    fn make_command_is_chosen(#[case] settings: &[(&str, usize, &str)], #[case] want: Option<&str>) {
        assert_eq!(conf(settings).make_command(&kernel()), want);
    }

    #[rstest]
    #[case::nothing("make all", "make all")]
    #[case::both_forms("make -C ${dir} M=$dir/x", "make -C /d M=/d/x")]
    #[case::in_double_quotes("make X=\"$dir '$dir'\"", "make X=\"/d '/d'\"")]
    #[case::in_single_quotes("make X='$dir' $dir", "make X='$dir' /d")]
    #[case::escaped("echo \\$dir \\\\$dir", "echo \\$dir \\\\/d")]
    #[case::unknown("$(nproc) $nope ${dir:-x} $$ $dirs $", "$(nproc) $nope ${dir:-x} $$ $dirs $")]
    #[case::cut_off("a '$dir", "a '$dir")]
    #[case::ends_in_a_backslash("$dir\\", "/d\\")]
    fn known_variables_are_shown(#[case] command: &str, #[case] want: &str) {
        assert_eq!(expanded(command, |name| (name == "dir").then_some("/d")), want);
    }

    #[test]
    fn patches_are_chosen_in_order() {
        let conf = conf(&[
            ("PATCH", 0, "a.patch"),
            ("PATCH", 2, "c.patch"),
            ("PATCH_MATCH", 2, "^6\\."),
            ("PATCH", 1, "b.patch"),
            ("PATCH_MATCH", 1, "^5\\."),
        ]);
        assert_eq!(conf.patches_for(&kernel()), ["a.patch", "c.patch"]);
    }

    #[rstest]
    #[case::default(None, false, "make -j2 KERNELRELEASE=6.1.0-56-amd64 -C /b M=/m")]
    #[case::default_clang(None, true, "make -j2 KERNELRELEASE=6.1.0-56-amd64 -C /b M=/m LLVM=1")]
    #[case::bare(Some("make"), false, "make -j2 KERNELRELEASE=6.1.0-56-amd64")]
    #[case::own(Some("make -C x all"), false, "make -j2 KERNELRELEASE=6.1.0-56-amd64 -C x all")]
    #[case::quoted(Some("'make' all"), false, "'make' all")]
    #[case::quoted_clang(Some("'make' all"), true, "'make' all LLVM=1")]
    #[case::script(Some("./build.sh && make"), false, "./build.sh && make")]
    #[case::script_clang(Some("(./configure && make)"), true, "(./configure && make)")]
    #[case::list(Some("make a ; find . \\;"), false, "make -j2 KERNELRELEASE=6.1.0-56-amd64 a ; find . \\;")]
    #[case::list_clang(
        Some("make a ; find . \\;"),
        true,
        "make -j2 KERNELRELEASE=6.1.0-56-amd64 LLVM=1 a ; find . \\;"
    )]
    #[case::quoted_operator_clang(
        Some("make X='a;b' Y=\\;"),
        true,
        "make -j2 KERNELRELEASE=6.1.0-56-amd64 X='a;b' Y=\\; LLVM=1"
    )]
    #[case::other_word(Some("makefoo"), false, "makefoo")]
    #[case::indented(Some(" make"), false, " make")]
    fn command_lines_are_made(#[case] make: Option<&str>, #[case] llvm: bool, #[case] want: &str) {
        let conf = conf(&make.map(|make| ("MAKE", 0, make)).into_iter().collect::<Vec<_>>());
        assert_eq!(command_line(&conf, (&kernel(), "/b"), "-j2", "/m", "", llvm), want);
    }
}
