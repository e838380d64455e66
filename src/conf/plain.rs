// SPDX-License-Identifier: MIT OR Apache-2.0
//! The in-process evaluator of plain confs: assignments only, with the semantics of bash(1).
//! It either gives exactly what bash would, or says that the file needs a shell; it never
//! guesses, and it reports no error of its own (bash words those).

use std::path::PathBuf;

use super::{ConfFile, Variables, belongs_to_bash};
use cursor::{Cursor, Stop, is_name_start, stop};
use word::Place;

mod cursor;
mod expand;
mod pattern;
mod word;

/// What the in-process evaluator makes of a chain of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plain {
    /// The variables after the last file, those of the scope included.
    Evaluated(Variables),
    /// Some file is more than assignments: bash has to evaluate the whole chain.
    NeedsShell {
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What was met there, as a noun phrase ("the command 'if'").
        what: String,
    },
}

/// Evaluates the files in order, each seeing what came before it. `scope` holds the variables
/// that are set before the first one.
pub fn evaluate(scope: &Variables, files: &[ConfFile]) -> Plain {
    let mut evaluator = Evaluator { vars: scope.clone(), read: Vec::new(), left: MOST_WORK, depth: 0 };
    for file in files {
        if let Err(Stop { at, what }) = evaluator.file(&mut Cursor::new(&file.text)) {
            let line = 1 + file.text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
            return Plain::NeedsShell { path: file.path.clone(), line, what };
        }
    }
    Plain::Evaluated(evaluator.vars)
}

/// How much expansions may come to in one evaluation: bytes of texts and lists, steps of patterns. No
/// conf that anybody means takes a thousandth of it; some lines that double a value take all memory.
const MOST_WORK: usize = 8 << 20;

/// Expansions within expansions, each of which takes some of the stack.
const MOST_DEPTH: usize = 50;

/// The state of one evaluation.
struct Evaluator {
    vars: Variables,
    /// The variables that the current assignment has looked at.
    read: Vec<String>,
    /// What remains of [`MOST_WORK`].
    left: usize,
    /// How many expansions the current one is within.
    depth: usize,
}

/// One element of a compound assignment: `[index]=text`, `[index]+=text` or plain text.
struct Item {
    index: Option<usize>,
    append: bool,
    text: String,
}

/// The right side of an assignment, expanded.
enum Value {
    Text(String),
    List(Vec<Item>),
}

/// One assignment, expanded and not yet carried out.
struct Assignment {
    name: String,
    index: Option<usize>,
    append: bool,
    value: Value,
}

impl Evaluator {
    fn file(&mut self, input: &mut Cursor) -> Result<(), Stop> {
        loop {
            input.skip_blanks();
            match input.peek() {
                None => return Ok(()),
                Some('\n') => input.skip(),
                Some('#') => input.skip_comment(),
                Some(_) => self.statement(input)?,
            }
        }
    }

    /// Assignments up to the end of the line or a semicolon.
    fn statement(&mut self, input: &mut Cursor) -> Result<(), Stop> {
        if input.rest().starts_with("export ") || input.rest().starts_with("export\t") {
            return self.export(input);
        }
        loop {
            let assignment = self.assignment(input)?;
            self.assign(assignment);
            if input.end_of_statement()? {
                return Ok(());
            }
        }
    }

    /// `export NAME=word NAME …`: bash expands all the words before it assigns the first.
    fn export(&mut self, input: &mut Cursor) -> Result<(), Stop> {
        input.advance("export".len());
        let mut assignments = Vec::new();
        while !input.end_of_statement()? {
            let start = input.at();
            let name = input.name().to_owned();
            if name.is_empty() || belongs_to_bash(&name) {
                return stop(start, "an argument of 'export'");
            }
            if matches!(input.peek(), None | Some(' ' | '\t' | '\n' | ';')) {
                continue;
            }
            let value_at = input.at() + 1;
            input.back_to(start);
            let assignment = self.assignment(input)?;
            if assignment.append || assignment.index.is_some() || matches!(assignment.value, Value::List(_)) {
                return stop(value_at, "an argument of 'export'");
            }
            assignments.push(assignment);
        }
        assignments.into_iter().for_each(|assignment| self.assign(assignment));
        Ok(())
    }

    fn assignment(&mut self, input: &mut Cursor) -> Result<Assignment, Stop> {
        let start = input.at();
        self.read.clear();
        let name = input.name().to_owned();
        if name.is_empty() {
            return stop(start, input.describe(start));
        }
        let index = match input.peek() {
            Some('[') => Some(self.subscript(input)?),
            _ => None,
        };
        let append = input.take("+=");
        if !append && !input.take("=") {
            return stop(start, input.describe(start));
        }
        if belongs_to_bash(&name) {
            return stop(start, format!("an assignment to bash's own variable {name}"));
        }
        let value = match input.peek() {
            Some('(') if index.is_none() => Value::List(self.compound(&name, input)?),
            _ => Value::Text(self.word(Place::Value, input)?.concat()),
        };
        Ok(Assignment { name, index, append, value })
    }

    /// The words between the parentheses of `NAME=(…)`.
    fn compound(&mut self, name: &str, input: &mut Cursor) -> Result<Vec<Item>, Stop> {
        let start = input.at();
        input.skip();
        let mut items = Vec::new();
        let mut indexed = false;
        loop {
            input.skip_blanks();
            match input.peek() {
                None => return stop(start, "an array that is not closed"),
                Some('\n') => input.skip(),
                Some('#') => input.skip_comment(),
                Some(')') => break,
                Some('[') => {
                    indexed = true;
                    let index = Some(self.subscript(input)?);
                    let append = input.take("+=");
                    if !append && !input.take("=") {
                        return stop(input.at(), "a file name pattern in an array");
                    }
                    let text = self.word(Place::IndexedElement, input)?.concat();
                    items.push(Item { index, append, text });
                }
                Some(_) => {
                    let words = self.word(Place::Element, input)?;
                    items.extend(words.into_iter().map(|text| Item { index: None, append: false, text }));
                }
            }
        }
        input.skip();
        // Bash versions differ in whether such words see the old elements or the new ones.
        if indexed && self.read.iter().any(|read| read == name) {
            return stop(start, "an array assigned from itself by index");
        }
        match input.peek() {
            None | Some(' ' | '\t' | '\n' | ';') => Ok(items),
            Some(_) => stop(input.at(), "text after an array"),
        }
    }

    fn assign(&mut self, assignment: Assignment) {
        let Assignment { name, index, append, value } = assignment;
        match value {
            Value::Text(text) if append => self.vars.append_to_element(&name, index.unwrap_or(0), &text),
            Value::Text(text) => self.vars.set_element(&name, index.unwrap_or(0), text),
            Value::List(items) => {
                if !append {
                    self.vars.unset(&name);
                }
                let mut next = self.vars.max_index(&name).map_or(0, |index| index + 1);
                for item in items {
                    let index = item.index.unwrap_or(next);
                    next = index + 1;
                    if item.append {
                        self.vars.append_to_element(&name, index, &item.text);
                    } else {
                        self.vars.set_element(&name, index, item.text);
                    }
                }
            }
        }
    }

    /// An index in brackets, from the opening one to past the closing one: a number, the name of
    /// a variable that holds one, or an expansion to either.
    fn subscript(&mut self, input: &mut Cursor) -> Result<usize, Stop> {
        let start = input.at();
        input.skip();
        let mut text = String::new();
        loop {
            match input.peek() {
                Some(']') => break,
                Some('$') => text.push_str(&self.dollar_text(true, input)?),
                Some(c) if c == '_' || c.is_ascii_alphanumeric() => {
                    text.push(c);
                    input.skip();
                }
                _ => return stop(start, "an array index that has to be computed"),
            }
        }
        input.skip();
        if text.starts_with(is_name_start) {
            text = self.value(&text, start)?.unwrap_or("0").to_owned();
        }
        let canonical = text == "0"
            || !text.starts_with('0') && text.len() < 10 && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(index) if canonical => Ok(index),
            _ => stop(start, "an array index that has to be computed"),
        }
    }

    /// Accounts for work, before it is done where that can be.
    fn spend(&mut self, work: usize, at: usize) -> Result<(), Stop> {
        match self.left.checked_sub(work) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => stop(at, "an expansion to more than any conf needs"),
        }
    }

    /// What a variable holds in element 0.
    fn value(&mut self, name: &str, at: usize) -> Result<Option<&str>, Stop> {
        self.look_at(name, at)?;
        Ok(self.vars.scalar(name))
    }

    /// Remembers that a variable is read, if it is one that we know everything about.
    fn look_at(&mut self, name: &str, at: usize) -> Result<(), Stop> {
        if belongs_to_bash(name) {
            return stop(at, format!("bash's own variable {name}"));
        }
        self.read.push(name.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn evaluated(text: &str) -> Plain {
        evaluate(&Variables::new(), &[ConfFile { path: "x".into(), text: text.to_owned() }])
    }

    #[rstest]
    #[case::doubled_text("A=x\n", "A=$A$A\n", 40, "more than any conf needs")]
    #[case::doubled_list("A=(x)\n", "A=(\"${A[@]}\" \"${A[@]}\")\n", 40, "more than any conf needs")]
    #[case::text_by_replacement("A=aaaaaaaa\n", "A=${A//a/aaaaaaaa}\n", 12, "more than any conf needs")]
    #[case::nested("A=", "${B:-", 4000, "expansions within expansions")]
    #[case::nested_in_indexes("A=", "${B[", 4000, "expansions within expansions")]
    fn what_takes_more_than_there_is_is_left_to_bash(
        #[case] start: &str,
        #[case] line: &str,
        #[case] times: usize,
        #[case] why: &str,
    ) {
        let Plain::NeedsShell { what, .. } = evaluated(&(start.to_owned() + &line.repeat(times))) else {
            panic!("it was evaluated")
        };
        assert!(what.contains(why), "{what}");
    }

    #[test]
    fn what_real_confs_do_is_far_from_the_limits() {
        let text = "A=6.1.0-56-amd64\n".to_owned() + &"B=${A//-/_} C=${A//-/_}${A%%-*}\n".repeat(1000);
        assert!(matches!(evaluated(&text), Plain::Evaluated(_)));
        let deep = "A=".to_owned() + &"${B:-".repeat(40) + "x" + &"}".repeat(40);
        let Plain::Evaluated(vars) = evaluated(&deep) else { panic!("it needs a shell") };
        assert_eq!(vars.scalar("A"), Some("x"));
    }
}
