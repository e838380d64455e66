// SPDX-License-Identifier: MIT OR Apache-2.0
//! The other evaluator: what to have a real bash run, and how to read what it prints.
//! It starts nothing itself.
//!
//! Run `bash --noprofile --norc -c SCRIPT dkms ARGUMENTS…` with an environment of nothing but
//! PATH and LC_ALL=C, standard input closed or /dev/null, and a time limit. Standard output is
//! for [`parse`]; standard error is the conf's own, with bash's messages.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::{ConfFile, Variables, directives, framework};

/// The program for bash 4.4 or later.
///
/// Its arguments are `NAME[index]=value` for every variable of the scope, `--`, the names of the
/// variables to print, `--`, and the files.
/// It prints fields that end in NUL: `begin FILE` before each file; `broken FILE` and nothing
/// more if that is no valid shell; after the last one `var NAME INDEX VALUE` for every element
/// of those variables and finally `end`.
///
/// The files are sourced at the top level, not in a function, so that their `declare` is global;
/// without positional parameters; and with standard output at /dev/null, where bash keeps the
/// real one in a descriptor that the conf's children do not inherit. The status of a file means
/// nothing, as its last line may well be a test that was false: only `bash -n` tells a syntax
/// error. As under dkms, `set -e` has no effect while a file is sourced. Only the variables asked for are printed, because real confs source a kernel's .config
/// and bash takes a quarter of a second to enumerate ten thousand names.
///
/// A conf that goes wrong gets half a gibibyte of memory, not all that there is.
pub const SCRIPT: &str = r#"
ulimit -S -v 524288 2>/dev/null
while [ "$1" != -- ]; do
    _dkms_name=${1%%=*}
    case $_dkms_name in
        *'[0]') printf -v "${_dkms_name%'[0]'}" %s "${1#*=}" ;;
        *) printf -v "$_dkms_name" %s "${1#*=}" ;;
    esac
    shift
done
shift
_dkms_names=()
while [ "$1" != -- ]; do
    _dkms_names+=("$1")
    shift
done
shift
_dkms_bash=$BASH
_dkms_files=("$@")
set --
for ((_dkms_at = 0; _dkms_at < ${#_dkms_files[@]}; _dkms_at++)); do
    builtin printf 'begin\0%s\0' "${_dkms_files[_dkms_at]}"
    if ! . "${_dkms_files[_dkms_at]}" >/dev/null && ! "$_dkms_bash" -n -- "${_dkms_files[_dkms_at]}" 2>/dev/null; then
        builtin printf 'broken\0%s\0' "${_dkms_files[_dkms_at]}"
        exit 1
    fi
done
set +efux
trap - EXIT ERR DEBUG RETURN
for _dkms_name in "${_dkms_names[@]}"; do
    eval "for _dkms_at in \"\${!$_dkms_name[@]}\"; do
        builtin printf 'var\0%s\0%s\0%s\0' $_dkms_name \"\$_dkms_at\" \"\${$_dkms_name[\$_dkms_at]}\"
    done"
done
builtin printf 'end\0'
exit 0
"#;

/// The arguments that follow `dkms` on bash's command line, for the variables that mean
/// something to us and those of the scope.
pub fn arguments(scope: &Variables, files: &[ConfFile]) -> Vec<String> {
    let known = directives::NAMES.iter().chain(framework::NAMES).copied();
    arguments_for(scope, known, files)
}

/// The same for other variables.
pub fn arguments_for<'a>(
    scope: &'a Variables,
    names: impl Iterator<Item = &'a str>,
    files: &[ConfFile],
) -> Vec<String> {
    let in_scope = || scope.names().filter(|name| is_name(name));
    let variables = in_scope()
        .flat_map(|name| scope.elements(name).map(move |(index, value)| format!("{name}[{index}]={value}")));
    let names: BTreeSet<&str> = names.chain(in_scope()).collect();
    // A bare name would be looked up in PATH.
    let paths = files.iter().map(|file| {
        let path = file.path.display().to_string();
        if path.contains('/') { path } else { format!("./{path}") }
    });
    let separator = || std::iter::once("--".to_owned());
    variables
        .chain(separator())
        .chain(names.into_iter().map(str::to_owned))
        .chain(separator())
        .chain(paths)
        .collect()
}

/// Environments may hold names that no shell variable can have.
fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

/// An assignment that bash refused and went on after, as it said on standard error: what the conf
/// wanted is not what it came to.
pub fn refused(errors: &str) -> Option<&str> {
    errors.lines().find(|line| line.ends_with(": bad array subscript"))
}

/// Reads what the script printed. Associative arrays are left out.
///
/// Fails if a file is no valid shell, ended the shell (`exit`, `${NAME:?}`) or bash was stopped
/// otherwise; the error names the file, standard error has bash's reason.
pub fn parse(output: &[u8]) -> Result<Variables> {
    let mut fields = output.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let mut variables = Variables::new();
    let mut file = None;
    while let Some(kind) = fields.next() {
        match kind.as_ref() {
            "begin" => file = fields.next(),
            "broken" => bail!("{} is not valid shell", fields.next().unwrap_or_default()),
            "end" => return Ok(variables),
            "var" => {
                let (Some(name), Some(index), Some(value)) = (fields.next(), fields.next(), fields.next())
                else {
                    break;
                };
                if let Ok(index) = index.parse() {
                    variables.set_element(&name, index, value);
                }
            }
            "" => break,
            other => {
                let start: String = other.chars().take(40).collect();
                bail!("bash printed something else than variables: {start:?}");
            }
        }
    }
    match file {
        Some(file) => bail!("bash ended while it was evaluating {file}, as if that had called exit"),
        None => bail!("bash ended before it had evaluated anything"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn arguments_hand_over_scope_names_and_files() {
        let mut scope = Variables::new();
        scope.set("kernelver", "6.1");
        scope.set_element("list", 2, "a b");
        scope.set("BASH_FUNC_x%%", "() { :; }");
        let files = [ConfFile { path: "dkms.conf".into(), text: String::new() }];
        assert_eq!(
            arguments_for(&scope, ["MAKE", "kernelver"].into_iter(), &files),
            ["kernelver[0]=6.1", "list[2]=a b", "--", "MAKE", "kernelver", "list", "--", "./dkms.conf"]
        );
        let all = arguments(&scope, &files);
        assert!(all.iter().any(|word| word == "PACKAGE_NAME") && all.iter().any(|word| word == "sign_file"));
    }

    #[test]
    fn output_is_read_back() {
        let vars = parse(b"begin\0/a\0var\0A\x000\0x\ny\0var\0A\x003\0\0var\0M\0key\0v\0end\0").unwrap();
        assert_eq!(vars.elements("A").collect::<Vec<_>>(), [(0, "x\ny"), (3, "")]);
        assert_eq!(vars.max_index("M"), None);
    }

    #[test]
    fn an_assignment_that_bash_refused_is_found() {
        assert_eq!(
            refused("noise\n/a: line 2: X[-1]: bad array subscript\n"),
            Some("/a: line 2: X[-1]: bad array subscript")
        );
        assert_eq!(refused("/a: line 2: nosuch: command not found\n"), None);
    }

    #[rstest]
    #[case::nothing(b"", "before it had evaluated anything")]
    #[case::ended(b"begin\0/a\0begin\0/b\0", "evaluating /b")]
    #[case::cut_off(b"begin\0/a\0var\0A\x000", "evaluating /a")]
    #[case::broken(b"begin\0/a\0broken\0/a\0", "/a is not valid shell")]
    #[case::noise(b"hello\n", "something else")]
    fn incomplete_output_is_an_error(#[case] output: &[u8], #[case] want: &str) {
        let error = parse(output).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
}
