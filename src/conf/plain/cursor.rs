// SPDX-License-Identifier: MIT OR Apache-2.0
//! A position in the text of a shell file, and the tokens that need no variables: blanks,
//! comments, continuations, names, the ends of statements.

/// Where and why the evaluator gives up; `at` is a byte offset.
#[derive(Debug)]
pub(super) struct Stop {
    pub at: usize,
    pub what: String,
}

/// Gives up.
pub(super) fn stop<T>(at: usize, what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop { at, what: what.into() })
}

/// Whether a shell name can begin with this character.
pub(super) fn is_name_start(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

/// The text and how far it has been read.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Passes over the character that was peeked at.
    pub fn skip(&mut self) {
        self.next();
    }

    /// Passes over so many bytes, which have been looked at.
    pub fn advance(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// Goes back to a position that `at` gave.
    pub fn back_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Passes over a token if it comes next.
    pub fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    /// Passes over spaces, tabs and continued line ends; true if there were any spaces or tabs.
    pub fn skip_blanks(&mut self) -> bool {
        let mut blank = false;
        loop {
            match self.peek() {
                Some(' ' | '\t') => {
                    self.skip();
                    blank = true;
                }
                _ if self.take("\\\n") => {}
                _ => return blank,
            }
        }
    }

    /// Passes over the rest of the line, without its end.
    pub fn skip_comment(&mut self) {
        self.at += self.rest().find('\n').unwrap_or(self.rest().len());
    }

    /// The name that comes next, empty if none does.
    pub fn name(&mut self) -> &'a str {
        let rest = self.rest();
        if !rest.starts_with(is_name_start) {
            return "";
        }
        let end = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Passes over what ends a statement; false if another word of it follows.
    pub fn end_of_statement(&mut self) -> Result<bool, Stop> {
        let blank = self.skip_blanks();
        match self.peek() {
            None | Some('\n') => Ok(true),
            Some(';') => {
                self.skip();
                Ok(true)
            }
            Some('#') if blank => {
                self.skip_comment();
                Ok(true)
            }
            Some(_) if blank => Ok(false),
            Some(_) => stop(self.at, "a character that ends a word"),
        }
    }

    /// What stands at the beginning of a statement that is no assignment.
    pub fn describe(&self, start: usize) -> String {
        let rest = &self.text[start..];
        let end = rest.find([' ', '\t', '\n', ';', '(', '|', '&', '<', '>']).unwrap_or(rest.len());
        let word: String = rest[..end].chars().take(40).collect();
        match rest[end..].chars().next() {
            Some('(') if !word.is_empty() => format!("the function '{}'", word.escape_debug()),
            Some(c) if word.is_empty() => format!("the operator '{c}'"),
            _ => format!("the command '{}'", word.escape_debug()),
        }
    }
}
