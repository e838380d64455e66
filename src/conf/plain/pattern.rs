// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shell patterns of literal characters, `*` and `?` within `${NAME#pattern}` and its like:
//! bash(1), "Pattern Matching". Brackets and quoting are left to bash.

use super::cursor::{Cursor, Stop, stop};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Byte(u8),
    One,
    Many,
}

/// A pattern for ASCII text.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Piece>);

impl Pattern {
    /// Reads up to the closing brace.
    pub fn read(at: usize, input: &mut Cursor) -> Result<Self, Stop> {
        Self::read_to(&['}'], at, input)
    }

    /// Reads up to the slash or the closing brace of a substitution. The pattern cannot match
    /// nothing and is not anchored.
    pub fn read_to_slash(at: usize, input: &mut Cursor) -> Result<Self, Stop> {
        if input.rest().starts_with(['#', '%']) {
            return stop(at, "an anchored pattern");
        }
        let pattern = Self::read_to(&['}', '/'], at, input)?;
        match pattern.0.iter().all(|piece| *piece == Piece::Many) {
            true => stop(at, "a pattern that matches nothing"),
            false => Ok(pattern),
        }
    }

    fn read_to(ends: &[char], at: usize, input: &mut Cursor) -> Result<Self, Stop> {
        let mut pieces = Vec::new();
        while let Some(c) = input.peek() {
            pieces.push(match c {
                _ if ends.contains(&c) => break,
                '*' => Piece::Many,
                '?' => Piece::One,
                'a'..='z' | 'A'..='Z' | '0'..='9' => Piece::Byte(c as u8),
                ' ' | '_' | '-' | '.' | '+' | ',' | ':' | '=' | '/' | '@' | '%' | '#' | '^' => {
                    Piece::Byte(c as u8)
                }
                _ => return stop(at, "a pattern within an expansion"),
            });
            input.skip();
        }
        Ok(Self(pieces))
    }

    /// Removes the shortest or longest match at the beginning or the end.
    pub fn remove<'a>(&self, value: &'a str, prefix: bool, longest: bool) -> &'a str {
        let bytes = value.as_bytes();
        let cut = |length: usize| match prefix {
            true => value.split_at(length),
            false => {
                let (kept, removed) = value.split_at(bytes.len() - length);
                (removed, kept)
            }
        };
        let mut lengths: Vec<usize> = (0..=bytes.len()).collect();
        if longest {
            lengths.reverse();
        }
        lengths
            .into_iter()
            .map(cut)
            .find(|(removed, _)| matches(&self.0, removed.as_bytes()))
            .map_or(value, |(_, kept)| kept)
    }

    /// Replaces the first match or all of them, each as long as possible.
    pub fn replace(&self, value: &str, replacement: &str, everywhere: bool) -> String {
        let mut out = String::new();
        let mut at = 0;
        while at < value.len() {
            let end = (at..=value.len()).rev().find(|end| matches(&self.0, &value.as_bytes()[at..*end]));
            match end {
                Some(end) => {
                    out.push_str(replacement);
                    at = end;
                    if !everywhere {
                        break;
                    }
                }
                None => {
                    out.push_str(&value[at..=at]);
                    at += 1;
                }
            }
        }
        out + &value[at..]
    }
}

/// Whether the pattern matches all of the text; linear in the product of their lengths.
fn matches(pattern: &[Piece], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to take up again, with one more byte in the last `*`.
    let mut retry = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Piece::Many) => {
                retry = Some((p, t));
                p += 1;
            }
            Some(Piece::One) => (p, t) = (p + 1, t + 1),
            Some(Piece::Byte(byte)) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    (p, t) = (star + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|piece| *piece == Piece::Many)
}
