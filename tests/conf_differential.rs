// SPDX-License-Identifier: MIT OR Apache-2.0
//! Holds the two evaluators of shell confs against each other: whatever the in-process one
//! evaluates, a real bash must evaluate to the same variables.
#![allow(clippy::expect_used, reason = "the helpers of a test may fail like the test")]

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dkms_hooks::conf::plain::{Plain, evaluate};
use dkms_hooks::conf::{ConfFile, Variables};

/// The variables that the samples and the generator use.
const NAMES: [&str; 12] = ["A", "B", "C", "D", "E", "F", "G", "H", "i", "x", "PACKAGE_NAME", "_z9"];

fn scope() -> Variables {
    let mut scope = Variables::new();
    scope.set("kernelver", "6.1.0-56-amd64");
    scope.set("dkms_tree", "/var/lib/dkms");
    scope.set("empty", "");
    scope.set("blank", "a  b *");
    for (index, value) in [(0, "one"), (1, "two words"), (4, "")] {
        scope.set_element("list", index, value);
    }
    scope
}

fn bash(scope: &Variables, files: &[ConfFile]) -> Result<Variables, String> {
    common::bash::bash(scope, NAMES.into_iter(), files)
}

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    fn file(&self, name: &str, text: &str) -> ConfFile {
        let path: PathBuf = self.0.path().join(name);
        fs_err::write(&path, text).expect("a file");
        ConfFile { path, text: text.to_owned() }
    }
}

fn evaluated(text: &str) -> Option<Variables> {
    match evaluate(&scope(), &[ConfFile { path: "x".into(), text: text.to_owned() }]) {
        Plain::Evaluated(vars) => Some(vars),
        Plain::NeedsShell { .. } => None,
    }
}

/// Plain confs: these must never start a bash.
const PLAIN: &[(&str, &str)] = &[
    ("nothing", ""),
    ("comments and blank lines", "# a\n\n  # b 'c\n\t\nA=1 # d\n"),
    ("no final newline", "A=1"),
    ("bare word", "A=foo-1.2+b~rc1\n"),
    ("hash within a word", "A=x#y B=#z\n"),
    ("empty values", "A=\nB=''\nC=\"\"\n"),
    ("single quotes", "A='a $x `b` \"c\" \\d'\n"),
    ("double quotes", "A=\"a 'b' \\$c \\\"d\\\" \\\\ \\e \\`\"\n"),
    ("backslashes", "A=a\\ b\\$c\\\\d\\'e\n"),
    ("pieces", "A=a'b c'\"d e\"f\\ g\n"),
    ("quoted newline", "A='a\nb' B=\"c\nd\"\n"),
    ("continuation in a word", "A=ab\\\ncd\n"),
    ("continuation in quotes", "A=\"ab\\\n  cd\" B='ef\\\ngh'\n"),
    ("continuation between words", "A=1 \\\n  B=2\n"),
    ("several on a line", "A=1 B=$A;C=$B ; D=4;\n"),
    ("expansion of the scope", "A=\"$dkms_tree/${kernelver}/x\"\n"),
    ("unset is empty", "A=\"[$nope]${nope}\"\n"),
    ("no splitting in values", "A=$blank B=${blank}c\n"),
    ("dollar alone", "A=\"cost$\" B='$' C=\"$ \" D=a$ E=\"$.$/\"\n"),
    ("regular expression", "A=\"^(5\\.(1[0-9])|6\\.[0-9]+)$\"\n"),
    ("special characters in values", "A=*.ko B=[a] C={a,b} D=a?b E=!x F=a=b G=x% H=a,b^@\n"),
    ("ansi quotes", "A=$'a\\tb\\n\\'c\\' \\\\' B=x$'y'z\n"),
    ("no ansi quotes in double quotes", "A=\"$'a'\"\n"),
    ("elements", "A[0]=a\nA[1]=\"b c\"\nA[10]=d\n"),
    ("element by variable", "i=3\nA[i]=a A[$i]=b B[${i}]=c B[4]+=d\n"),
    ("scalar is element zero", "A=a\nA[1]=b\nB=${A[0]}${A[1]}\nA=c\n"),
    ("append", "A=a\nA+=b\nA+=\" c\"\nB+=x\nC[2]+=y\nC[2]+=z\n"),
    ("array", "A=(a b \"c d\" 'e')\n"),
    ("array over lines", "A=(\n  a # first\n  \"b\"\n\n  c\\\n)\nB=( )\nC=()\n"),
    ("array with indexes", "A=([2]=x y [0]=z [5]='a b')\n"),
    ("array appended", "A=(a)\nA+=(b \"c\")\nB=s\nB+=(t)\nC+=([3]=u v)\n"),
    ("array replaced", "A=(a b c)\nA=(d)\n"),
    ("array element appended", "A=([0]=x [0]+=y)\n"),
    ("array copied", "A=(\"${list[@]}\" z) B=(\"${nope[@]}\") C=(\"${list[*]}\")\n"),
    ("array grown from itself", "A=(a)\nA=(\"${A[@]}\" b)\n"),
    ("safe expansion in an array", "A=($kernelver x$dkms_tree)\n"),
    ("array joined", "A=\"${list[@]}\" B=\"x${list[*]}y\"\n"),
    ("array counted", "A=${#list[@]} B=${#list[*]} C=${#nope[@]}\n"),
    ("array element read", "A=${list[1]} B=\"${list[3]}\" C=${kernelver[0]}${kernelver[1]}\n"),
    ("default", "A=${nope:-x y} B=${empty:-e} C=${empty-f} D=${nope-} E=\"${kernelver:-no}\"\n"),
    ("nested default", "A=\"${nope:-${empty:-$kernelver}}\"\n"),
    ("alternative", "A=${kernelver:+yes} B=${empty:+no} C=${empty+set} D=${nope+no}\n"),
    ("length", "A=${#kernelver} B=${#nope} C=${#list[1]}\n"),
    ("prefix", "A=${kernelver#*.} B=${kernelver##*.} C=${kernelver#6.} D=${kernelver#x}\n"),
    ("suffix", "A=${kernelver%-*} B=${kernelver%%-*} C=\"${kernelver%amd64}\" D=${kernelver%%.*}\n"),
    ("substitution", "A=${kernelver/-/_} B=${kernelver//-/_} C=${kernelver//6} D=${kernelver/.*-/+}\n"),
    ("question mark", "A=${kernelver#?} B=${kernelver%%??} C=${kernelver//?/x}\n"),
    ("export", "export A=1 B=$A\nexport C='x y'; export A\n"),
    ("carriage returns", "A=x\r\nB=\"y\"\r\n# c\r\nC='z'\\\r\n"),
    ("tildes in words", "A=1.0~rc1 B='~' C=\"~/x\" D=\\~\n"),
    ("operator characters in quotes", "A='a;b|c&d<e>f(g)' B=\"a;b|c&d<e>f(g)\"\n"),
    ("non-ascii", "A=größe B='ü' C=\"$A\"\n"),
    ("quotes and expansions meet", "A=\"a\"$kernelver'b'${empty}\"$empty\"\n"),
    ("bracket after a name", "A=\"$kernelver[0]\" B=$list[1]\n"),
    ("dollar name end", "A=\"$kernelver-$kernelver.$_z9/\"\n"),
    (
        "a real one",
        "PACKAGE_NAME=\"foo\"\nPACKAGE_VERSION=\"1.2.3\"\n\
         BUILT_MODULE_NAME[0]=\"${PACKAGE_NAME}\"\nDEST_MODULE_LOCATION[0]=\"/updates\"\n\
         MAKE[0]=\"make -C ${kernel_source_dir} M=${dkms_tree}/$PACKAGE_NAME/build ; find . -exec mv {} \\;\"\n\
         A=\"$PACKAGE_NAME\" AUTOINSTALL=yes\n",
    ),
];

/// What only a shell can do, and the line where that is seen.
const SHELL: &[(&str, usize, &str)] = &[
    ("command", 2, "A=1\necho\n"),
    ("if", 1, "if true; then A=1; fi\n"),
    ("function", 1, "f() { :; }\n"),
    ("substitution", 3, "#\n\nA=$(echo x)\n"),
    ("substitution in quotes", 1, "A=\"$(echo x)\"\n"),
    ("backquotes", 1, "A=`echo x`\n"),
    ("backquotes in quotes", 1, "A=\"`echo x`\"\n"),
    ("arithmetic", 1, "A=$((1+1))\n"),
    ("old arithmetic", 1, "A=$[1+1]\n"),
    ("computed index", 1, "A[1+1]=x\n"),
    ("negative index", 1, "A[-1]=x\n"),
    ("octal index", 1, "A[010]=x\n"),
    ("test", 1, "[[ a ]] && A=1\n"),
    ("and", 1, "A=1 && B=2\n"),
    ("background", 1, "A=1 &\n"),
    ("pipe", 1, "A=1 | true\n"),
    ("redirection", 1, "A=1 >/dev/null\n"),
    ("assignment for a command", 1, "A=1 true\n"),
    ("space after equals", 1, "A= x\n"),
    ("space before equals", 1, "A =x\n"),
    ("two semicolons", 1, "A=1;;\n"),
    ("semicolon first", 1, "; A=1\n"),
    ("unclosed single quote", 2, "A=1\nB='x\n"),
    ("unclosed double quote", 1, "A=\"x\nB=2\n"),
    ("unclosed array", 1, "A=(a\n"),
    ("unclosed brace", 1, "A=${x\n"),
    ("stray parenthesis", 1, "A=x)\n"),
    ("parenthesis in a value", 1, "A=a(b\n"),
    ("text after an array", 1, "A=(a)b\n"),
    ("operator in an array", 1, "A=(a;b)\n"),
    ("file names in an array", 1, "A=(*.ko)\n"),
    ("braces in an array", 1, "A=(a{b,c})\n"),
    ("splitting in an array", 1, "A=($blank)\n"),
    ("empty in an array", 1, "A=($empty x)\n"),
    ("tilde", 1, "A=~/x\n"),
    ("tilde after a colon", 1, "A=/a:~/x\n"),
    ("error if unset", 1, "A=${nope:?no}\n"),
    ("assign if unset", 1, "A=${nope:=x}\n"),
    ("indirection", 1, "A=${!kernelver}\n"),
    ("substring", 1, "A=${kernelver:0:3}\n"),
    ("case change", 1, "A=${kernelver^^}\n"),
    ("bracket pattern", 1, "A=${kernelver%[0-9]*}\n"),
    ("quotes in a default", 1, "A=${nope:-\"x\"}\n"),
    ("positional parameter", 1, "A=$1\n"),
    ("status", 1, "A=$?\n"),
    ("bash's variable read", 1, "A=$BASH_SOURCE\n"),
    ("home", 1, "A=\"${HOME}\"\n"),
    ("bash's variable set", 1, "IFS=:\n"),
    ("path set", 1, "export PATH=/x\n"),
    ("readonly", 1, "readonly A=1\n"),
    ("declare", 1, "declare -A A\n"),
    ("unset", 1, "unset A\n"),
    ("source", 1, ". /dev/null\n"),
    ("line of a carriage return", 2, "A=1\n\r\n"),
    ("numeric escape", 1, "A=$'\\x41'\n"),
    ("translated string", 1, "A=$\"x\"\n"),
    ("here-document", 1, "cat <<E\nx\nE\n"),
    ("array from itself by index", 2, "A=(x y)\nA=([0]=\"${A[1]}\")\n"),
];

#[test]
fn plain_samples_are_evaluated_as_bash_does() {
    let room = Room::new();
    for (name, text) in PLAIN {
        let plain = evaluate(&scope(), &[room.file("plain.conf", text)]);
        let Plain::Evaluated(ours) = plain else { panic!("{name}: {plain:?}") };
        let theirs = bash(&scope(), &[room.file("plain.conf", text)]);
        assert_eq!(theirs.as_ref(), Ok(&only_known(&ours)), "{name}");
    }
}

/// Leaves out what the bash side is not asked for.
fn only_known(vars: &Variables) -> Variables {
    common::bash::only(vars, NAMES.into_iter(), &scope())
}

#[test]
fn shell_code_is_left_to_bash_with_its_place() {
    for (name, want, text) in SHELL {
        match evaluate(&scope(), &[ConfFile { path: "/etc/x".into(), text: (*text).to_owned() }]) {
            Plain::NeedsShell { line, path, what } => {
                assert_eq!((line, path), (*want, "/etc/x".into()), "{name}: {what}");
                assert!(!what.is_empty(), "{name}");
            }
            Plain::Evaluated(vars) => panic!("{name} was evaluated to {vars:?}"),
        }
    }
}

#[test]
fn a_chain_shares_its_variables() {
    let room = Room::new();
    let files = [room.file("a", "A=1\nB=(x)\n"), room.file("b", "A+=2\nB+=(y)\n"), room.file("c", "C=$A\n")];
    let Plain::Evaluated(ours) = evaluate(&scope(), &files) else { panic!("the chain is plain") };
    assert_eq!(ours.scalar("C"), Some("12"));
    assert_eq!(bash(&scope(), &files), Ok(only_known(&ours)));
}

#[test]
fn bash_evaluates_what_the_conf_does() {
    let room = Room::new();
    let text = "if [ -n \"$kernelver\" ]; then A=$(echo out; echo err >&2); fi\n\
                echo noise; B=\"${BASH_SOURCE##*/}\"; declare -a C=([3]='x\ny'); set -eu; IFS=:; [ -d \"$A\" ]||D=$#\n";
    let vars = bash(&scope(), &[room.file("real.conf", text)]).expect("a valid conf");
    assert_eq!(vars.scalar("A"), Some("out"));
    assert_eq!(vars.scalar("B"), Some("real.conf"));
    assert_eq!(vars.element("C", 3), Some("x\ny"));
    assert_eq!(vars.scalar("D"), Some("0"));
    assert_eq!(vars.element("list", 1), Some("two words"));
}

#[test]
fn a_false_test_at_the_end_is_no_error() {
    let room = Room::new();
    let vars = bash(&scope(), &[room.file("a.conf", "set -e\nfalse\nA=1\n[ -e /nonexistent ] && A=2\n")]);
    assert_eq!(vars.expect("a valid conf").scalar("A"), Some("1"));
}

#[test]
fn a_conf_that_breaks_or_ends_bash_is_named() {
    let room = Room::new();
    let good = room.file("good.conf", "A=1\n");
    for (name, text, want) in [
        ("syntax.conf", "A=1\nif\n", "is not valid shell"),
        ("quote.conf", "A='x\n", "is not valid shell"),
        ("exit.conf", "exit 0\n", "bash ended while it was evaluating"),
        ("unset.conf", "A=${nope:?missing}\n", "bash ended while it was evaluating"),
    ] {
        let error = bash(&scope(), &[good.clone(), room.file(name, text)]).expect_err(name);
        assert!(error.contains(want) && error.contains(name), "{name}: {error}");
    }
    let absent = ConfFile { path: room.0.path().join("absent"), text: String::new() };
    assert!(bash(&scope(), &[absent]).is_err());
}

/// A deterministic source of choices (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }

    fn expansion(&mut self) -> String {
        const ATOMS: [&str; 10] =
            ["A", "B", "C", "kernelver", "empty", "blank", "nope", "list[1]", "list[4]", "A[2]"];
        let name = self.pick(&ATOMS);
        let word = self.pick(&["", "x", "a-b", "$kernelver", "6.1"]);
        let pattern =
            self.pick(&["*", "-*", "*.", "6", "?", "*6*", "a ", "o?e", "*?", "?*-", "*1*0*", "**o", ""]);
        match self.roll(13) {
            0 | 1 if !name.contains('[') => format!("${name}"),
            2..=4 => format!("${{{name}}}"),
            5 => format!("${{{name}:-{word}}}"),
            6 => format!("${{{name}+{word}}}"),
            7 => format!("${{{name}{}{pattern}}}", self.pick(&["#", "##"])),
            8 => format!("${{{name}{}{pattern}}}", self.pick(&["%", "%%"])),
            11 => format!("${{{name}{}{pattern}/{}}}", self.pick(&["/", "//"]), self.pick(&["", "_", "66"])),
            9 => format!("${{{name}//6/{}}}", self.pick(&["", "_", "66"])),
            10 => format!("${{#{name}}}"),
            _ => format!("${{{name}-{word}}}"),
        }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        for _ in 0..self.roll(4) {
            match self.roll(6) {
                0 => word.push_str(self.pick(&["foo", "1.0~rc", "a=b", "x#y", "+", "/p/q:r"])),
                1 => word.push_str(self.pick(&["'a b'", "'$A'", "''", "'\\'", "'#'", "'x\ny'"])),
                2 => {
                    let inner = self.expansion();
                    let more = self.pick(&["", " ", "\\$", "\\\"", "'", "\\x", "$", "*", "\\\n"]);
                    word.push_str(&format!("\"{more}{inner}{}\"", self.pick(&["", " z", "\\\\"])));
                }
                3 => word.push_str(self.pick(&["\\ ", "\\$", "\\\"", "\\\n", "\\n", "$'\\n'", "$'\\''"])),
                _ => word.push_str(&self.expansion()),
            }
        }
        word
    }

    fn assignment(&mut self) -> String {
        let name = self.pick(&["A", "B", "C", "D"]);
        let operator = self.pick(&["=", "=", "+="]);
        match self.roll(6) {
            0 => {
                let mut list = format!("{name}{operator}(");
                for _ in 0..self.roll(4) {
                    match self.roll(3) {
                        0 => list.push_str(&format!("[{}]={} ", self.roll(5), self.word())),
                        1 => {
                            list.push_str(self.pick(&["\"${list[@]}\" ", "\"${A[@]}\"\n", "# c\n", "'q r' "]))
                        }
                        _ => list.push_str(&format!("{} ", self.word())),
                    }
                }
                list + ")"
            }
            1 => format!("{name}[{}]{operator}{}", self.pick(&["0", "1", "2", "$i", "i", "7"]), self.word()),
            _ => format!("{name}{operator}{}", self.word()),
        }
    }
}

#[test]
fn generated_confs_are_evaluated_as_bash_does() {
    let room = Room::new();
    let (mut dice, more) = longer(0x5eed_1234_abcd_0001);
    let (mut batch, mut plain) = (0, 0);
    while batch < 6 || more() {
        batch += 1;
        // Each case saves its variables under its own numbers and starts from the last one's.
        let mut text = "i=3\n".to_owned();
        for _ in 0..50 {
            let mut case = dice.assignment();
            for _ in 0..dice.roll(3) {
                case.push_str(dice.pick(&["\n", "; ", " ", " \\\n"]));
                case.push_str(&dice.assignment());
            }
            case.push_str("\nE+=(\"${A[@]}\" \"${B[@]}\" \"${C[@]}\" \"${D[@]}\" ---)\n");
            if let Some(vars) = evaluated(&format!("{text}{case}")) {
                // Values that grow by half with every case would drown the test.
                if NAMES.iter().all(|name| vars.elements(name).all(|(_, value)| value.len() < 400)) {
                    text.push_str(&case);
                    plain += 1;
                }
            }
        }
        let file = room.file("generated.conf", &text);
        let ours = only_known(&evaluated(&text).expect("the sum of plain cases is plain"));
        let theirs = bash(&scope(), std::slice::from_ref(&file)).expect("a plain conf is valid");
        for name in NAMES {
            let ours: Vec<_> = ours.elements(name).collect();
            let theirs: Vec<_> = theirs.elements(name).collect();
            assert_eq!(ours, theirs, "{name} in\n{text}");
        }
    }
    assert!(plain >= batch * 25, "only {plain} of {} generated confs are plain", batch * 50);
}

/// FUZZ_SECONDS has more of it, other each time.
fn longer(seed: u64) -> (Dice, impl Fn() -> bool) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let dice = Dice(if until.is_some() { fastrand::u64(1..) } else { seed });
    (dice, move || until.is_some_and(|until| Instant::now() < until))
}

/// The samples with damage: words of them cut, moved, doubled.
#[test]
fn damaged_confs_are_never_evaluated_wrongly() {
    let room = Room::new();
    let (mut dice, more) = longer(0xdead_beef_0000_0003);
    // What is in them is run if it is taken for something else than it is.
    let samples: Vec<&str> =
        PLAIN.iter().map(|(_, text)| *text).filter(|text| !text.contains(['`', ';', '<', '>'])).collect();
    let (mut evaluations, mut tried) = (0, 0);
    while evaluations < 150 || more() {
        tried += 1;
        let mut text = dice.pick(&samples).to_owned() + dice.pick(&samples);
        for _ in 0..1 + dice.roll(3) {
            let mut place =
                || (0..=dice.roll(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            let (from, to, at) = (place(), place(), place());
            let part = text[from.min(to)..from.max(to)].to_owned();
            match dice.roll(3) {
                0 => text.replace_range(from.min(to)..from.max(to), ""),
                1 => text.insert_str(at, &part),
                _ => text.insert_str(
                    at,
                    dice.pick(&["$", "${", "}", "\"", "'", "\\", "(", ")", "[", "]", " ", "\n"]),
                ),
            }
        }
        let Some(ours) = evaluated(&text) else { continue };
        evaluations += 1;
        let theirs = bash(&scope(), &[room.file("damaged.conf", &text)]);
        assert_eq!(theirs.as_ref(), Ok(&only_known(&ours)), "{text}");
    }
    assert!(tried < 20 * evaluations, "only {evaluations} of {tried} damaged confs are plain");
}

#[test]
fn random_text_is_never_evaluated_wrongly() {
    const SOUP: [&str; 34] = [
        "A",
        "A",
        "B",
        "=",
        "=",
        "=",
        "+=",
        "$",
        "${",
        "}",
        "\"",
        "'",
        "\\",
        "(",
        ")",
        "[",
        "]",
        "0",
        "#",
        ":-",
        "-",
        "+",
        "%",
        "/",
        " ",
        " ",
        "\n",
        "\n",
        ";",
        "@",
        "kernelver",
        "~",
        "$'",
        "list",
    ];
    let room = Room::new();
    let mut dice = Dice(0xfeed_f00d_0000_0007);
    let mut evaluations = 0;
    for _ in 0..60_000 {
        let mut text = dice.pick(&["A=", "B=\"", "A=(", "A[0]=", "A=${list"]).to_owned();
        (0..2 + dice.roll(9)).for_each(|_| text.push_str(dice.pick(&SOUP)));
        let Some(ours) = evaluated(&text) else { continue };
        evaluations += 1;
        if evaluations % 20 == 0 {
            let theirs = bash(&scope(), &[room.file("soup.conf", &text)]);
            assert_eq!(theirs.as_ref(), Ok(&only_known(&ours)), "{text}");
        }
    }
    assert!(evaluations > 1000, "only {evaluations} random texts are plain");
}
