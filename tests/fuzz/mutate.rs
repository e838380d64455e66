// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes new inputs of known ones. The same seed gives the same inputs.

use fastrand::Rng;

/// How long inputs may become, in bytes.
const LONGEST: usize = 64 << 10;

/// Numbers at which readers stumble.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1e9",
    "007",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "999999999999999999999999999999",
];

/// What many formats have in common.
const COMMON: [&str; 20] = [
    "\n",
    "\0",
    " ",
    "\t",
    "\r\n",
    "\\",
    "\"",
    "'",
    "/",
    "..",
    "../",
    "=",
    ":",
    ",",
    "#",
    "-",
    "\u{fffd}",
    "é",
    "\u{1b}[2J",
    "%s",
];

pub struct Mutator {
    rng: Rng,
    words: &'static [&'static str],
}

impl Mutator {
    /// `words` are what a format is made of.
    pub fn new(seed: u64, words: &'static [&'static str]) -> Self {
        Self { rng: Rng::with_seed(seed), words }
    }

    /// One of the inputs, changed in a few places.
    pub fn mutated(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.one_of(corpus).clone();
        for _ in 0..1 << self.rng.u32(..4) {
            self.change(&mut input, corpus);
            input.truncate(LONGEST);
        }
        input
    }

    fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.rng.usize(..items.len())]
    }

    /// A part of so many bytes, mostly a short one.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let longest = if self.rng.u8(..) < 200 { length.min(32) } else { length };
        let start = self.rng.usize(..=length);
        start..length.min(start + self.rng.usize(..=longest))
    }

    fn word(&mut self) -> &'static str {
        let words: &[&str] = match self.rng.u8(..8) {
            0 => &NUMBERS,
            1 | 2 => &COMMON,
            _ if self.words.is_empty() => &COMMON,
            _ => self.words,
        };
        words[self.rng.usize(..words.len())]
    }

    fn change(&mut self, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let part = self.part(input.len());
        let at = part.start;
        match self.rng.u8(..14) {
            0 if at < input.len() => input[at] ^= 1 << self.rng.u8(..8),
            1 if at < input.len() => input[at] = self.rng.u8(..),
            2 => drop(input.drain(part)),
            3 => input.truncate(at),
            4 => {
                let copy = input[part].to_vec();
                let to = self.rng.usize(..=input.len());
                drop(input.splice(to..to, copy));
            }
            // Deep, long or many.
            5 => {
                let copy = match self.rng.bool() {
                    true => input[part].to_vec(),
                    false => self.word().as_bytes().to_vec(),
                };
                let times = 1 << self.rng.u32(..14);
                let times = times.min(LONGEST / copy.len().max(1));
                drop(input.splice(at..at, copy.repeat(times)));
            }
            6 => {
                let other = self.one_of(corpus);
                let theirs = self.part(other.len());
                drop(input.splice(part, other[theirs].iter().copied()));
            }
            7 => {
                let other = self.one_of(corpus);
                let from = self.rng.usize(..=other.len());
                input.truncate(at);
                input.extend(&other[from..]);
            }
            8 => {
                let number = self.rng.u64(..) >> self.rng.u32(..64);
                let number = *self.one_of(&[0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, u64::MAX, number]);
                let bytes = 1 << self.rng.usize(..4);
                let little = number.to_le_bytes();
                let big = number.to_be_bytes();
                let number = if self.rng.bool() { &little[..bytes] } else { &big[8 - bytes..] };
                for (to, from) in input[at..].iter_mut().zip(number) {
                    *to = *from;
                }
            }
            9 => {
                let start = input[at..].iter().position(u8::is_ascii_digit).map(|digit| at + digit);
                if let Some(start) = start {
                    let digits = input[start..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                    let number = self.one_of(&NUMBERS).as_bytes();
                    drop(input.splice(start..start + digits, number.iter().copied()));
                }
            }
            10 => drop(input.splice(part, self.word().bytes())),
            _ => drop(input.splice(at..at, self.word().bytes())),
        }
    }
}
