// SPDX-License-Identifier: MIT OR Apache-2.0
//! Words and quoting: bash(1), "Quoting". Expansions are `expand`'s.

use super::Evaluator;
use super::cursor::{Cursor, Stop, stop};
use super::expand::{Expansion, WORD};

/// Where a word stands, which decides what bash does to it after expansion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The right side of `NAME=`: neither split nor matched against file names.
    Value,
    /// A word of `NAME=(…)`: split and matched like an argument.
    Element,
    /// The word after `[index]=` in such a list.
    IndexedElement,
}

impl Evaluator {
    /// Reads and expands one word. Several results (or none) come only from `"${NAME[@]}"`
    /// standing alone as an element.
    pub(super) fn word(&mut self, place: Place, input: &mut Cursor) -> Result<Vec<String>, Stop> {
        if place == Place::Element
            && let Some(list) = self.whole_array(input)?
        {
            return Ok(list);
        }
        let listed = place != Place::Value;
        let mut text = String::new();
        // The last character if it was neither quoted nor expanded: tildes depend on it.
        let mut bare = None;
        loop {
            let at = input.at();
            let Some(c) = input.peek() else { break };
            let before = bare.take();
            match c {
                ' ' | '\t' | '\n' => break,
                ';' if !listed => break,
                ')' if listed => break,
                ';' | '&' | '|' | '<' | '>' | '(' | ')' => return stop(at, format!("the operator '{c}'")),
                '\'' => {
                    input.skip();
                    let Some(end) = input.rest().find('\'') else { return stop(at, "an unclosed quote") };
                    printable(&input.rest()[..end], at)?;
                    text.push_str(&input.rest()[..end]);
                    input.advance(end + 1);
                }
                '"' => self.double_quoted(&mut text, place, input)?,
                '\\' => {
                    input.skip();
                    match input.next() {
                        None => return stop(at, "a backslash at the end of the file"),
                        Some('\n') => bare = before,
                        Some(c) => text.push(c),
                    }
                }
                '$' => {
                    let value = self.dollar_text(false, input)?;
                    // After an expansion that is empty or more than one word, the number of
                    // elements depends on splitting and on the files that are there.
                    if listed && (value.is_empty() || value.contains([' ', '\t', '\n', '*', '?', '[', '\\']))
                    {
                        return stop(at, "an unquoted expansion in an array");
                    }
                    text.push_str(&value);
                }
                '`' => return stop(at, "a command substitution"),
                '~' if matches!(before, None | Some(':' | '=')) => return stop(at, "a tilde"),
                '*' | '?' | '[' if listed => return stop(at, "a file name pattern in an array"),
                '{' if listed => return stop(at, "a brace expansion"),
                _ => {
                    printable(c.encode_utf8(&mut [0; 4]), at)?;
                    text.push(c);
                    input.skip();
                    bare = Some(c);
                }
            }
        }
        Ok(vec![text])
    }

    /// `"${NAME[@]}"` as a whole element: as many words as the array has elements.
    fn whole_array(&mut self, input: &mut Cursor) -> Result<Option<Vec<String>>, Stop> {
        let start = input.at();
        if input.take("\"${") {
            let name = input.name();
            let whole = !name.is_empty() && input.take("[@]}\"");
            if whole && matches!(input.peek(), None | Some(' ' | '\t' | '\n' | ')')) {
                self.look_at(name, start)?;
                let size = self.vars.elements(name).map(|(_, value)| value.len() + WORD).sum();
                self.spend(size, start)?;
                return Ok(Some(self.vars.elements(name).map(|(_, value)| value.to_owned()).collect()));
            }
            input.back_to(start);
        }
        Ok(None)
    }

    fn double_quoted(&mut self, text: &mut String, place: Place, input: &mut Cursor) -> Result<(), Stop> {
        let start = input.at();
        input.skip();
        loop {
            let at = input.at();
            match input.peek() {
                None => return stop(start, "an unclosed quote"),
                Some('"') => {
                    input.skip();
                    return Ok(());
                }
                Some('\\') => {
                    input.skip();
                    match input.next() {
                        None => return stop(start, "an unclosed quote"),
                        Some('\n') => {}
                        Some(c @ ('$' | '`' | '"' | '\\')) => text.push(c),
                        Some(c) => {
                            text.push('\\');
                            text.push(c);
                        }
                    }
                }
                Some('$') => match self.dollar(true, input)? {
                    Expansion::Text(value) => text.push_str(&value),
                    Expansion::List(values) if place == Place::Value => text.push_str(&values.join(" ")),
                    Expansion::List(_) => return stop(at, "an array expanded within a word"),
                },
                Some('`') => return stop(at, "a command substitution"),
                Some(c) => {
                    printable(c.encode_utf8(&mut [0; 4]), at)?;
                    text.push(c);
                    input.skip();
                }
            }
        }
    }
}

/// Gives up on bytes that bash uses internally, and on what stands for bytes that are no UTF-8.
fn printable(text: &str, at: usize) -> Result<(), Stop> {
    match text.contains(['\0', '\u{1}', '\u{7f}', char::REPLACEMENT_CHARACTER]) {
        true => stop(at, "a byte that is not text"),
        false => Ok(()),
    }
}
