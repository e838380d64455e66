// SPDX-License-Identifier: MIT OR Apache-2.0
//! What follows a `$`: bash(1), "Parameter Expansion" and "ANSI-C Quoting", as far as it can
//! be done exactly.

use super::cursor::{Cursor, Stop, is_name_start, stop};
use super::pattern::Pattern;
use super::{Evaluator, MOST_DEPTH};

/// What an expansion gives.
pub(super) enum Expansion {
    Text(String),
    /// `${NAME[@]}`: one word each if quoted in a list, joined by blanks in a value.
    List(Vec<String>),
}

/// What a word takes beside its text, in bytes: the word, its place and its index.
pub(super) const WORD: usize = 64;

impl Expansion {
    /// How much it comes to, in bytes.
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(words) => words.iter().map(|word| word.len() + WORD).sum(),
        }
    }
}

/// Which part of a variable is meant.
enum Selection {
    One(usize),
    /// `[@]`
    Each,
    /// `[*]`
    Joined,
}

impl Evaluator {
    /// An expansion in a place that takes no list.
    pub(super) fn dollar_text(&mut self, quoted: bool, input: &mut Cursor) -> Result<String, Stop> {
        let at = input.at();
        match self.dollar(quoted, input)? {
            Expansion::Text(text) => Ok(text),
            Expansion::List(_) => stop(at, "an array expanded within a word"),
        }
    }

    /// Expands from the `$` on, inside double quotes or outside.
    pub(super) fn dollar(&mut self, quoted: bool, input: &mut Cursor) -> Result<Expansion, Stop> {
        let at = input.at();
        if self.depth == MOST_DEPTH {
            return stop(at, "too many expansions within expansions");
        }
        self.depth += 1;
        let expansion = self.expansion(quoted, input)?;
        self.depth -= 1;
        self.spend(expansion.size(), at)?;
        Ok(expansion)
    }

    fn expansion(&mut self, quoted: bool, input: &mut Cursor) -> Result<Expansion, Stop> {
        let at = input.at();
        input.skip();
        let text = match input.peek() {
            Some('(') if input.rest().starts_with("((") => return stop(at, "arithmetic"),
            Some('(') => return stop(at, "a command substitution"),
            Some('[') => return stop(at, "arithmetic"),
            Some('{') => return self.braced(quoted, input),
            Some('@' | '*' | '#' | '?' | '$' | '!' | '-' | '0'..='9') => {
                return stop(at, "a special parameter");
            }
            Some('\'') if !quoted => ansi_quoted(at, input)?,
            Some('"') if !quoted => return stop(at, "a translated string"),
            Some(c) if is_name_start(c) => {
                let name = input.name();
                if input.rest().starts_with("\\\n") {
                    return stop(at, "a name that may go on in the next line");
                }
                self.value(name, at)?.unwrap_or_default().to_owned()
            }
            _ if input.rest().starts_with("\\\n") => return stop(at, "a '$' at the end of a line"),
            _ => "$".to_owned(),
        };
        Ok(Expansion::Text(text))
    }

    /// `${…}` from the brace on.
    fn braced(&mut self, quoted: bool, input: &mut Cursor) -> Result<Expansion, Stop> {
        let at = input.at();
        input.skip();
        let length = input.take("#");
        let name = input.name();
        if name.is_empty() {
            return stop(at, "a special parameter");
        }
        self.look_at(name, at)?;
        let selection = match input.peek() {
            Some('[') if input.take("[@]") => Selection::Each,
            Some('[') if input.take("[*]") => Selection::Joined,
            Some('[') => Selection::One(self.subscript(input)?),
            _ => Selection::One(0),
        };
        let list = || self.vars.elements(name).map(|(_, value)| value.to_owned()).collect::<Vec<_>>();
        let index = match selection {
            Selection::One(index) => index,
            _ if !input.take("}") => return stop(at, "an operation on a whole array"),
            _ if length => return Ok(Expansion::Text(list().len().to_string())),
            _ if !quoted => return stop(at, "an array expanded without quotes"),
            Selection::Each => return Ok(Expansion::List(list())),
            Selection::Joined => return Ok(Expansion::Text(list().join(" "))),
        };
        let value = self.vars.element(name, index).map(str::to_owned);
        if length {
            let value = ascii(value.unwrap_or_default(), at)?;
            return match input.take("}") {
                true => Ok(Expansion::Text(value.len().to_string())),
                false => stop(at, "an expansion"),
            };
        }
        self.operation(value, at, input).map(Expansion::Text)
    }

    /// What follows the name in `${NAME…}`, to past the closing brace.
    fn operation(&mut self, value: Option<String>, at: usize, input: &mut Cursor) -> Result<String, Stop> {
        let filled = value.as_ref().is_some_and(|value| !value.is_empty());
        let is_set = value.is_some();
        let value = value.unwrap_or_default();
        if input.take("}") {
            return Ok(value);
        }
        // A colon makes an empty value count as none.
        for (operator, present) in [(":-", filled), ("-", is_set)] {
            if input.take(operator) {
                let other = self.operand(at, input)?;
                return Ok(if present { value } else { other });
            }
        }
        for (operator, present) in [(":+", filled), ("+", is_set)] {
            if input.take(operator) {
                let other = self.operand(at, input)?;
                return Ok(if present { other } else { String::new() });
            }
        }
        let value = ascii(value, at)?;
        for (operator, prefix, longest) in
            [("##", true, true), ("#", true, false), ("%%", false, true), ("%", false, false)]
        {
            if input.take(operator) {
                let pattern = Pattern::read(at, input)?;
                close(at, input)?;
                self.spend(pattern.work_on(&value), at)?;
                return Ok(pattern.remove(&value, prefix, longest).to_owned());
            }
        }
        if input.take("/") {
            let everywhere = input.take("/");
            let pattern = Pattern::read_to_slash(at, input)?;
            let other = if input.take("/") { replacement(at, input)? } else { String::new() };
            close(at, input)?;
            // From every place to the end, and what is put there instead.
            let each = pattern.work_on(&value).saturating_add(other.len());
            self.spend(each.saturating_mul(value.len()), at)?;
            return Ok(pattern.replace(&value, &other, everywhere));
        }
        stop(at, "an expansion")
    }

    /// The word after `:-` and its like, to past the closing brace.
    fn operand(&mut self, at: usize, input: &mut Cursor) -> Result<String, Stop> {
        let mut text = String::new();
        loop {
            match input.peek() {
                None => return stop(at, "an unclosed '${'"),
                Some('}') => {
                    input.skip();
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar_text(true, input)?),
                Some('\'' | '"' | '\\' | '`' | '~' | '{' | '<' | '>' | '\n' | '\0' | '\u{1}' | '\u{7f}') => {
                    return stop(at, "quoting within an expansion");
                }
                Some(c) => {
                    text.push(c);
                    input.skip();
                }
            }
        }
    }
}

/// The replacement of `${NAME/pattern/replacement}`. What `&` and quotes mean in it depends on
/// the version of bash.
fn replacement(at: usize, input: &mut Cursor) -> Result<String, Stop> {
    let rest = input.rest();
    let end = rest.find('}').unwrap_or(rest.len());
    let text = &rest[..end];
    if text.contains(|c: char| !c.is_ascii_alphanumeric() && !" _-.+,:=/@%^".contains(c)) {
        return stop(at, "quoting within an expansion");
    }
    input.advance(end);
    Ok(text.to_owned())
}

fn close(at: usize, input: &mut Cursor) -> Result<(), Stop> {
    match input.take("}") {
        true => Ok(()),
        false => stop(at, "a pattern within an expansion"),
    }
}

/// Lengths and patterns count characters in one locale and bytes in another.
fn ascii(value: String, at: usize) -> Result<String, Stop> {
    match value.is_ascii() {
        true => Ok(value),
        false => stop(at, "an operation on text that is not ASCII"),
    }
}

/// `$'…'` from the quote on; only the escapes that stand for one fixed character.
fn ansi_quoted(at: usize, input: &mut Cursor) -> Result<String, Stop> {
    input.skip();
    let mut text = String::new();
    loop {
        match input.next() {
            None => return stop(at, "an unclosed quote"),
            Some('\'') => return Ok(text),
            Some('\\') => text.push(match input.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('r') => '\r',
                Some('a') => '\u{7}',
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('v') => '\u{b}',
                Some('e' | 'E') => '\u{1b}',
                Some(c @ ('\\' | '\'' | '"' | '?')) => c,
                _ => return stop(at, "an escape within $'…'"),
            }),
            Some('\0' | '\u{1}' | '\u{7f}' | char::REPLACEMENT_CHARACTER) => {
                return stop(at, "a byte that is not text");
            }
            Some(c) => text.push(c),
        }
    }
}
