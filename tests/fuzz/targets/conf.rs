// SPDX-License-Identifier: MIT OR Apache-2.0
//! Confs and settings: dkms.conf in both evaluators, framework.conf, the policy, regular expressions.

use std::path::Path;

use dkms_hooks::conf::framework::{Framework, late};
use dkms_hooks::conf::plain::{Plain, evaluate};
use dkms_hooks::conf::{ConfFile, Variables, directives, ere, make, policy, shell};
use dkms_hooks::kernel::KernelConfig;
use dkms_hooks::module_file;

use super::{NEXT, Target, kernel, release, shown};

pub const TARGETS: &[Target] = &[
    Target { name: "conf", read: conf, words: SHELL, inputs: 3000 },
    Target {
        name: "shell",
        read: shell_answer,
        words: &["begin\0", "var\0", "end\0", "broken\0", "\0"],
        inputs: 2000,
    },
    Target {
        name: "framework",
        read: framework,
        words: &[
            "compress_xz_opts=",
            "compress_gzip_opts=",
            "compress_zstd_opts=",
            "--lzma2=",
            "dict=",
            "preset=",
            "lc=",
            "nice=",
            "-9e",
            "--ultra ",
            "--long=",
            "-22",
            "--fast=",
            "parallel_jobs=",
            "$kernelver",
            "${kernelver}",
            "try_sign_modules=",
            "MiB",
            ",",
        ],
        inputs: 2500,
    },
    Target {
        name: "policy",
        read: policy,
        words: &[
            "[boot]\n",
            "[build]\n",
            "[initramfs]\n",
            "[store]\n",
            "[module.",
            "]\n",
            "critical = ",
            "detect = ",
            "on_failure = ",
            "jobs = ",
            "timeout = ",
            "size = ",
            "[[",
            "{",
            "}",
            "[",
            "true",
            "\"auto\"",
            "\"\"\"",
            "'''",
            ".",
            "0x",
            "1979-05-27",
            "nan",
        ],
        inputs: 1500,
    },
    Target {
        name: "ere",
        read: regular_expression,
        words: &[
            "(",
            ")",
            "|",
            "*",
            "+",
            "?",
            "{",
            "}",
            "{1,}",
            "{65535}",
            "{0,255}",
            "[",
            "[^",
            "]",
            "[:alpha:]",
            "[=a=]",
            "[.-.]",
            "^",
            "$",
            "\\<",
            "\\1",
            ".",
            "a-z",
            "\\b",
            "6.1",
        ],
        inputs: 250,
    },
];

const SHELL: &[&str] = &[
    "A",
    "B",
    "$A",
    "${A}",
    "${A:-",
    "${A#",
    "${A%%",
    "${A//",
    "${#A}",
    "\"${A[@]}\"",
    "${A[*]}",
    "A[",
    "]",
    "(",
    ")",
    "+=",
    "$'",
    "export ",
    "}",
    "*",
    "?",
    "\\\n",
    "$",
    "${",
    "A=$A$A\n",
    "[999999999]=",
    ";",
    "`",
    "$(",
    "BUILT_MODULE_NAME[0]=",
    "DEST_MODULE_LOCATION[0]=",
    "PACKAGE_NAME=",
    "PACKAGE_VERSION=",
    "MAKE=",
    "kernelver",
];

fn evaluated(input: &[u8]) -> Result<Variables, String> {
    let mut scope = Variables::new();
    scope.set("kernelver", "6.1.0-56-amd64");
    scope.set("dkms_tree", "/var/lib/dkms");
    let file = ConfFile { path: "x".into(), text: String::from_utf8_lossy(input).into_owned() };
    match evaluate(&scope, &[file]) {
        Plain::Evaluated(vars) => Ok(vars),
        Plain::NeedsShell { what, .. } => Err(what),
    }
}

fn conf(input: &[u8], _: &Path) -> String {
    let vars = match evaluated(input) {
        Ok(vars) => vars,
        Err(what) => return what,
    };
    // What there is to be checked of anything that can be evaluated.
    let conf = match directives::read(&vars, "dkms.conf") {
        Ok(conf) => conf,
        Err(problems) => return shown(&problems),
    };
    let config = KernelConfig::new("CONFIG_X=y\n");
    let line = make::command_line(&conf, (&release(), "/build"), "-j2", "/m", "", false);
    let line = make::expanded(&line, |name| vars.scalar(name));
    let patches = conf.patches_for(&release()).len();
    let why = conf.why_excluded(&kernel(), &config);
    format!(
        "{} {patches} {why:?} {} {} {}",
        conf.records.len(),
        conf.strict_problems().len(),
        conf.warnings.len(),
        line.len().min(99)
    )
}

fn shell_answer(input: &[u8], _: &Path) -> String {
    let refused = shell::refused(&String::from_utf8_lossy(input)).is_some();
    match shell::parse(input) {
        Ok(vars) => format!("{:?} {refused}", vars.names().take(3).collect::<Vec<_>>()),
        Err(error) => format!("{error:#} {refused}"),
    }
}

fn framework(input: &[u8], _: &Path) -> String {
    let vars = match evaluated(input) {
        Ok(vars) => vars,
        Err(what) => return what,
    };
    let framework = Framework::read(&vars);
    let command = framework.post_transaction.as_deref().map(|command| late(command, "6.1"));
    // Whatever is said of compressors, something is compressed.
    for how in [module_file::Compression::Xz, module_file::Compression::Zstd] {
        let packed = how.compress(vec![7; 100], &framework.compressors).unwrap();
        assert_eq!(*module_file::unpacked(&packed).unwrap(), [7; 100]);
    }
    format!("{command:?} {} {:?}", shown(&framework.warnings), framework.about_compressors)
}

fn policy(input: &[u8], _: &Path) -> String {
    let text = String::from_utf8_lossy(input);
    let files: Vec<ConfFile> =
        text.split(NEXT).map(|text| ConfFile { path: "p".into(), text: text.to_owned() }).collect();
    match policy::merge(&files) {
        Ok(policy) => format!("{} {:?}", policy.all_critical().len(), policy.on_failure),
        Err(error) => error.what.chars().take(200).collect(),
    }
}

fn regular_expression(input: &[u8], _: &Path) -> String {
    let text = String::from_utf8_lossy(input);
    let (pattern, text) = text.split_once('\n').unwrap_or((&text, "6.1.0-56-amd64"));
    let matches = ere::matches(pattern, text);
    match ere::compile(pattern) {
        Ok(_) => matches.to_string(),
        Err(error) => error.root_cause().to_string().chars().take(200).collect(),
    }
}
