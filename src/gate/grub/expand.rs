// SPDX-License-Identifier: MIT OR Apache-2.0
//! Variables and conditions of a GRUB script, where a value or an answer may be unknown.
//! Knows nothing of menus.

use std::collections::BTreeMap;

use super::env::GrubEnv;
use super::syntax::{Part, Word};

/// Text, or why it cannot be known before the machine boots and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Known(String),
    Unknown { why: String, shown: String },
}

/// A longer value is nothing that a kernel or a menu could take, in bytes.
const LONGEST: usize = 16 << 10;

impl Value {
    /// How much work it is to copy, as [`Variables::size`] counts.
    pub(super) fn size(&self) -> usize {
        let (Self::Known(text) | Self::Unknown { shown: text, .. }) = self;
        1 + text.len() / 16
    }
}

/// The answer of a condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Truth {
    Yes,
    No,
    Unknown(String),
}

impl Truth {
    pub(super) fn of(answer: bool) -> Self {
        if answer { Self::Yes } else { Self::No }
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            unknown => unknown,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, other) => other,
            (unknown, _) => unknown,
        }
    }

    fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }
}

/// Where `$prefix` and `$config_directory` point: beside grub.cfg, wherever that is.
pub(super) const BESIDE: &str = "(beside)";

/// What the firmware, the disks or the user decide at boot.
const DECIDED_AT_BOOT: [&str; 9] = [
    "grub_platform",
    "grub_cpu",
    "root",
    "cmdpath",
    "fw_path",
    "lockdown",
    "shim_lock",
    "check_signatures",
    "chosen",
];

#[derive(Debug, Clone)]
pub(super) struct Variables(BTreeMap<String, Value>);

impl Variables {
    /// As GRUB 2.00 and later start out.
    pub(super) fn new() -> Self {
        let mut variables = Self(BTreeMap::new());
        for name in ["prefix", "config_directory"] {
            variables.set(name, Value::Known(BESIDE.to_owned()));
        }
        // Set by 00_header too: this serves those that give us part of a file.
        variables.set("menuentry_id_option", Value::Known("--id".to_owned()));
        variables
    }

    /// How much work it is to copy them.
    pub(super) fn size(&self) -> usize {
        self.0.values().map(Value::size).sum()
    }

    pub(super) fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    pub(super) fn unset(&mut self, name: &str) {
        self.0.remove(name);
    }

    pub(super) fn get(&self, name: &str) -> Value {
        if let Some(value) = self.0.get(name) {
            return value.clone();
        }
        let at_boot = DECIDED_AT_BOOT.contains(&name) || name.starts_with("net_") || name.starts_with("pxe_");
        match name {
            // GRUB 2.00 has those that grub-mkconfig asks for.
            _ if name.starts_with("feature_") => Value::Known("y".to_owned()),
            _ if at_boot => unknown(name, &format!("${name} is known only at boot")),
            _ => Value::Known(String::new()),
        }
    }

    /// The variables after a branch that was taken or not: what differs is unknown.
    pub(super) fn merge(&mut self, other: &Self, why: &str) {
        let names: Vec<String> = self.0.keys().chain(other.0.keys()).cloned().collect();
        for name in names {
            if self.get(&name) != other.get(&name) {
                self.set(&name, unknown(&name, why));
            }
        }
    }

    /// These variables may have any value from here on.
    pub(super) fn forget(&mut self, names: &[&str], why: &str) {
        for name in names {
            self.set(name, unknown(name, why));
        }
    }

    /// One value from all parts, as in an assignment or between double quotes.
    pub(super) fn join(&self, parts: &[Part]) -> Value {
        let mut out = String::new();
        for part in parts {
            match part {
                Part::Text { text, .. } => out.push_str(text),
                Part::Variable { name, .. } => match self.get(name) {
                    Value::Known(text) => out.push_str(&text),
                    Value::Unknown { why, .. } => return Value::Unknown { why, shown: self.display(parts) },
                },
            }
            if out.len() > LONGEST {
                return Value::Unknown { why: "a value is too long".to_owned(), shown: self.display(parts) };
            }
        }
        Value::Known(out)
    }

    /// The arguments that a word becomes: none when all that it holds is an empty variable.
    pub(super) fn arguments(&self, word: &Word) -> Vec<Value> {
        if let [Part::Variable { name, quoted: false }] = word.as_slice() {
            return match self.get(name) {
                Value::Known(text) => text.split_whitespace().map(|t| Value::Known(t.to_owned())).collect(),
                unknown => vec![unknown],
            };
        }
        vec![self.join(word)]
    }

    /// As `join`, with what is unknown left as it is written.
    pub(super) fn display(&self, parts: &[Part]) -> String {
        let piece = |part: &Part| match part {
            Part::Text { text, .. } => text.clone(),
            Part::Variable { name, .. } => match self.get(name) {
                Value::Known(text) => text,
                Value::Unknown { shown, .. } => shown,
            },
        };
        let mut length = 0;
        let fits = |text: &String| {
            length += text.len();
            length <= LONGEST
        };
        parts.iter().map(piece).take_while(fits).collect()
    }
}

fn unknown(name: &str, why: &str) -> Value {
    Value::Unknown { why: why.to_owned(), shown: format!("${{{name}}}") }
}

/// `test` and `[` (without the closing bracket), GRUB manual "test".
pub(super) fn test(arguments: &[Value], env: &GrubEnv) -> Truth {
    let mut test = Test { arguments, at: 0, depth: 0, env };
    if arguments.is_empty() {
        return Truth::Unknown("a condition is empty".to_owned());
    }
    match test.either() {
        Ok(_) if test.at < arguments.len() => {
            Truth::Unknown("a condition has more words than it can use".into())
        }
        Ok(truth) => truth,
        Err(why) => Truth::Unknown(why),
    }
}

/// Negations and brackets within each other.
const MAX_DEPTH: usize = 100;

struct Test<'a> {
    arguments: &'a [Value],
    at: usize,
    depth: usize,
    env: &'a GrubEnv,
}

impl Test<'_> {
    fn either(&mut self) -> Result<Truth, String> {
        let mut truth = self.both()?;
        while self.take("-o") {
            truth = truth.or(self.both()?);
        }
        Ok(truth)
    }

    fn both(&mut self) -> Result<Truth, String> {
        let mut truth = self.single()?;
        while self.take("-a") {
            truth = truth.and(self.single()?);
        }
        Ok(truth)
    }

    fn single(&mut self) -> Result<Truth, String> {
        self.depth += 1;
        let truth = if self.depth > MAX_DEPTH { Err("a condition is too deep".into()) } else { self.term() };
        self.depth -= 1;
        truth
    }

    fn term(&mut self) -> Result<Truth, String> {
        // A comparison first: `[ ! = x ]` and `[ -n = x ]` compare.
        if let Some(operator) = self.word(1).filter(|word| OPERATORS.contains(word)).map(str::to_owned)
            && self.at + 2 < self.arguments.len()
        {
            let (left, right) = (self.next()?, self.arguments[self.at + 1].clone());
            self.at += 2;
            return Ok(compare(&left, &operator, &right));
        }
        if self.take("!") {
            return Ok(self.single()?.not());
        }
        if self.take("(") {
            let truth = self.either()?;
            return if self.take(")") { Ok(truth) } else { Err("a condition lacks its )".into()) };
        }
        if let Some(operator) = self.word(0).filter(|word| UNARY.contains(word)).map(str::to_owned)
            && self.at + 1 < self.arguments.len()
        {
            self.at += 1;
            let operand = self.next()?;
            return Ok(self.unary(&operator, operand));
        }
        Ok(match self.next()? {
            Value::Known(text) => Truth::of(!text.is_empty()),
            Value::Unknown { why, .. } => Truth::Unknown(why),
        })
    }

    fn unary(&self, operator: &str, operand: Value) -> Truth {
        let text = match operand {
            Value::Known(text) => text,
            // A file on a disk that was searched for: which file is known all the same.
            Value::Unknown { shown, .. } if on_a_disk(&shown) && !matches!(operator, "-n" | "-z") => shown,
            Value::Unknown { why, .. } => return Truth::Unknown(why),
        };
        match operator {
            "-n" => Truth::of(!text.is_empty()),
            "-z" => Truth::of(text.is_empty()),
            _ => match self.env.exists(&text) {
                Some(there) => Truth::of(there && operator != "-d"),
                None => Truth::Unknown(format!("whether {text} is there is not known")),
            },
        }
    }

    fn next(&mut self) -> Result<Value, String> {
        let value = self.arguments.get(self.at).cloned().ok_or("a condition ends too early")?;
        self.at += 1;
        Ok(value)
    }

    fn word(&self, ahead: usize) -> Option<&str> {
        match self.arguments.get(self.at + ahead) {
            Some(Value::Known(text)) => Some(text),
            _ => None,
        }
    }

    fn take(&mut self, word: &str) -> bool {
        let taken = self.word(0) == Some(word);
        self.at += usize::from(taken);
        taken
    }
}

/// `(${disk})/path` with a path that is known.
fn on_a_disk(shown: &str) -> bool {
    shown.strip_prefix('(').and_then(|rest| rest.split_once(')')).is_some_and(|(_, path)| !path.contains('$'))
}

const UNARY: [&str; 6] = ["-n", "-z", "-f", "-e", "-s", "-d"];
const OPERATORS: [&str; 16] =
    ["=", "==", "!=", "<", ">", "<=", ">=", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-pgt"];

fn compare(left: &Value, operator: &str, right: &Value) -> Truth {
    let (left, right) = match (left, right) {
        (Value::Known(left), Value::Known(right)) => (left, right),
        (Value::Unknown { why, .. }, _) | (_, Value::Unknown { why, .. }) => {
            return Truth::Unknown(why.clone());
        }
    };
    let numbers = || Some((left.parse::<i64>().ok()?, right.parse::<i64>().ok()?));
    match operator {
        "=" | "==" => Truth::of(left == right),
        "!=" => Truth::of(left != right),
        "<" => Truth::of(left < right),
        ">" => Truth::of(left > right),
        "<=" => Truth::of(left <= right),
        ">=" => Truth::of(left >= right),
        "-nt" | "-ot" | "-pgt" => Truth::Unknown(format!("{operator} compares what is known only at boot")),
        _ => match numbers() {
            None => Truth::Unknown(format!("'{left}' {operator} '{right}' compares no numbers")),
            Some((left, right)) => Truth::of(match operator {
                "-eq" => left == right,
                "-ne" => left != right,
                "-lt" => left < right,
                "-le" => left <= right,
                "-gt" => left > right,
                _ => left >= right,
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::grub::syntax::{Statement, parse};
    use rstest::rstest;

    fn answer(condition: &str) -> Truth {
        let mut variables = Variables::new();
        variables.set("saved", Value::Known("1>2".into()));
        variables.set("none", Value::Known(String::new()));
        let (statements, _) = parse(condition);
        let Statement::Command { words, .. } = &statements[0] else { panic!() };
        let arguments: Vec<Value> = words.iter().flat_map(|word| variables.arguments(word)).collect();
        test(&arguments, &GrubEnv::default().with_file("custom.cfg", ""))
    }

    #[rstest]
    #[case::set("\"${saved}\"", true)]
    #[case::unset("\"${other}\"", false)]
    #[case::equal("x${saved} = 'x1>2'", true)]
    #[case::feature("x$feature_menuentry_id = xy", true)]
    #[case::dropped_word("${other} = 1", true)] // `[ = 1 ]` has one operand too few: see below
    #[case::quoted_empty("\"${none}\" = 1", false)]
    #[case::not_empty("-n \"$saved\"", true)]
    #[case::and("-z \"$none\" -a -n \"$saved\"", true)]
    #[case::or_binds_weaker("a = a -o a = b -a b = c", true)]
    #[case::negated("! ( a = b )", true)]
    #[case::number("2 -gt 10", false)]
    #[case::text_order("2 '>' 10", true)]
    #[case::file("-f $prefix/custom.cfg", true)]
    #[case::other_file("-s ${config_directory}/user.cfg", false)]
    fn conditions_are_answered(#[case] condition: &str, #[case] want: bool) {
        if condition.starts_with("${other}") {
            assert!(matches!(answer(condition), Truth::Unknown(_)));
        } else {
            assert_eq!(answer(condition), Truth::of(want));
        }
    }

    #[rstest]
    #[case::platform("x$grub_platform = xefi", "$grub_platform is known only at boot")]
    #[case::disk("-f /etc/fstab", "whether /etc/fstab is there is not known")]
    #[case::beside_an_unknown("\"$saved\" -a -f /x", "whether /x is there is not known")]
    fn the_unanswerable_is_told(#[case] condition: &str, #[case] why: &str) {
        assert_eq!(answer(condition), Truth::Unknown(why.to_owned()));
    }

    #[rstest]
    #[case::no_matters("-f /x -a \"$none\"", Truth::No)]
    #[case::yes_matters("-f /x -o \"$saved\"", Truth::Yes)]
    fn one_side_may_decide(#[case] condition: &str, #[case] want: Truth) {
        assert_eq!(answer(condition), want);
    }
}
