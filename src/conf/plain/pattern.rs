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

    /// How many steps it takes to match it against a text.
    pub fn work_on(&self, value: &str) -> usize {
        self.0.len().saturating_add(1).saturating_mul(value.len())
    }

    /// Removes the shortest or longest match at the beginning or the end.
    pub fn remove<'a>(&self, value: &'a str, prefix: bool, longest: bool) -> &'a str {
        let bytes = value.as_bytes();
        let length = match prefix {
            true => match_length(&self.0, bytes.iter().copied(), longest),
            false => {
                let backwards: Vec<Piece> = self.0.iter().rev().copied().collect();
                match_length(&backwards, bytes.iter().rev().copied(), longest)
            }
        };
        let length = length.unwrap_or(0);
        if prefix { &value[length..] } else { &value[..bytes.len() - length] }
    }

    /// Replaces the first match or all of them, each as long as possible.
    pub fn replace(&self, value: &str, replacement: &str, everywhere: bool) -> String {
        let mut out = String::new();
        let mut at = 0;
        while at < value.len() {
            match match_length(&self.0, value.as_bytes()[at..].iter().copied(), true) {
                Some(length) => {
                    out.push_str(replacement);
                    at += length;
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

/// How much of the beginning of a text the pattern matches, at most or at least; nothing if it matches
/// none. Linear in the product of their lengths.
fn match_length(pattern: &[Piece], text: impl Iterator<Item = u8>, longest: bool) -> Option<usize> {
    // Whether what was read so far matches so many pieces.
    let mut matched = vec![false; pattern.len() + 1];
    matched[0] = true;
    // `*` matches nothing, too.
    let pass_many = |matched: &mut [bool]| {
        for (piece, kind) in pattern.iter().enumerate() {
            matched[piece + 1] |= *kind == Piece::Many && matched[piece];
        }
    };
    pass_many(&mut matched);
    let mut found = None;
    for (length, byte) in (0..).zip(text.map(Some).chain([None])) {
        if matched[pattern.len()] {
            found = Some(length);
            if !longest {
                break;
            }
        }
        let Some(byte) = byte else { break };
        for (piece, kind) in pattern.iter().enumerate().rev() {
            let fits = match kind {
                Piece::Many | Piece::One => true,
                Piece::Byte(wanted) => *wanted == byte,
            };
            let stays = *kind == Piece::Many && matched[piece + 1];
            matched[piece + 1] = stays || fits && matched[piece];
        }
        matched[0] = false;
        pass_many(&mut matched);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::shortest_prefix("*b", true, false, "cbab")]
    #[case::longest_prefix("*b", true, true, "")]
    #[case::shortest_suffix("b*", false, false, "abcba")]
    #[case::longest_suffix("b*", false, true, "a")]
    #[case::none("x*", true, true, "abcbab")]
    #[case::nothing("", true, true, "abcbab")]
    #[case::all("*", false, true, "")]
    #[case::all_but("*", true, false, "abcbab")]
    #[case::any("a?c", true, false, "bab")]
    fn matches_are_removed(
        #[case] pattern: &str,
        #[case] prefix: bool,
        #[case] longest: bool,
        #[case] want: &str,
    ) {
        let text = pattern.to_owned() + "}";
        let pattern = Pattern::read(0, &mut Cursor::new(&text)).unwrap();
        assert_eq!(pattern.remove("abcbab", prefix, longest), want);
    }

    #[rstest]
    #[case::each("b", true, "a.c.a.")]
    #[case::first("b", false, "a.cbab")]
    #[case::longest("b*", true, "a.")]
    #[case::any("?c", true, "a.bab")]
    fn matches_are_replaced(#[case] pattern: &str, #[case] everywhere: bool, #[case] want: &str) {
        let text = pattern.to_owned() + "}";
        let pattern = Pattern::read_to_slash(0, &mut Cursor::new(&text)).unwrap();
        assert_eq!(pattern.replace("abcbab", ".", everywhere), want);
    }
}
