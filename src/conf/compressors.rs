// SPDX-License-Identifier: MIT OR Apache-2.0
//! compress_*_opts of framework.conf: the options that people give to gzip(1), xz(1) and zstd(1),
//! read into settings for encoders of our own. What has no meaning without files is passed over;
//! what would make modules that a kernel cannot read is not taken.

use std::fmt::Display;
use std::str::FromStr;

/// How modules are compressed, whichever way a kernel asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compressors {
    /// 1 to 9.
    pub gzip: u32,
    pub xz: Xz,
    pub zstd: Zstd,
}

/// Settings of LZMA2 in an .xz file (xz(1)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xz {
    /// 0 to 9.
    pub preset: u32,
    pub extreme: bool,
    /// In bytes; nothing for the preset's.
    pub dict: Option<u32>,
    /// What else is set off the preset, in order.
    pub tuned: Vec<(Tuning, u32)>,
    /// Whether there is a CRC32; the kernel knows no other check (Documentation/staging/xz.rst).
    pub check: bool,
}

/// `lc`, `lp`, `pb`, `nice` and `depth` of `--lzma2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuning {
    LiteralContext,
    LiteralPosition,
    Position,
    Nice,
    Depth,
}

/// Settings of a .zst file (zstd(1)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zstd {
    /// Negative ones are fast.
    pub level: i32,
    /// `--long`: the window's size as a power of two. kmod reads none above 27.
    pub long: Option<u32>,
    pub check: bool,
}

/// The largest dictionary of `--lzma2=dict=`, in bytes (xz(1)): 1.5 GiB.
const LARGEST_DICT: u64 = 3 << 29;
/// The largest window that zstd's decoders read unless told otherwise.
const LARGEST_WINDOW: u32 = 27;
/// The highest level of zstd without `--ultra`.
const HIGHEST_LEVEL: i32 = 19;

impl Default for Compressors {
    /// What dkms asks for where framework.conf says nothing.
    fn default() -> Self {
        Self {
            gzip: 6,
            xz: Xz { dict: Some(1 << 20), ..Xz::of_preset(6) },
            zstd: Zstd { level: 3, long: None, check: true },
        }
    }
}

impl Xz {
    fn of_preset(preset: u32) -> Self {
        Self { preset, extreme: false, dict: None, tuned: Vec::new(), check: true }
    }
}

/// One option of a command line: `-9`, `-T`, `--check`; with what belongs to it.
struct Opt<'a> {
    name: &'a str,
    value: Option<&'a str>,
    /// As written, for messages.
    word: &'a str,
}

/// Takes a command line apart. `valued` are the options whose value may be the next word; digits
/// go together.
fn options<'a>(text: &'a str, valued: &[&str]) -> Vec<Opt<'a>> {
    let mut found = Vec::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        if word.starts_with("--") || !word.starts_with('-') {
            let (name, value) =
                word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let next = value.is_none() && valued.contains(&name);
            found.push(Opt { name, value: if next { words.next() } else { value }, word });
            continue;
        }
        let mut rest = &word[1..];
        while let Some(first) = rest.chars().next() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (name, after) = rest.split_at(digits.max(first.len_utf8()));
            let takes_value = valued.iter().any(|valued| valued.strip_prefix('-') == Some(name));
            let value = match (takes_value, after) {
                (false, _) => None,
                (true, "") => words.next(),
                (true, after) => Some(after),
            };
            found.push(Opt { name, value, word });
            rest = if takes_value { "" } else { after };
        }
    }
    found
}

/// What is said of one setting.
struct Said<'a> {
    setting: &'static str,
    unknown: Vec<&'a str>,
    warnings: Vec<String>,
}

impl<'a> Said<'a> {
    fn about(setting: &'static str) -> Self {
        Self { setting, unknown: Vec::new(), warnings: Vec::new() }
    }

    fn unknown(&mut self, word: &'a str) {
        if !self.unknown.contains(&word) {
            self.unknown.push(word);
        }
    }

    fn warn(&mut self, word: &str, why: impl Display) {
        self.warnings.push(format!("framework.conf: {}: {word}: {why}", self.setting));
    }

    fn end(mut self, warnings: &mut Vec<String>) {
        warnings.append(&mut self.warnings);
        if !self.unknown.is_empty() {
            let words = self.unknown.join(" ");
            warnings.push(format!("framework.conf: {}: {words}: this has no effect", self.setting));
        }
    }
}

/// Reads compress_gzip_opts.
pub fn gzip(text: &str, warnings: &mut Vec<String>) -> u32 {
    let mut said = Said::about("compress_gzip_opts");
    let mut level = Compressors::default().gzip;
    for Opt { name, word, .. } in options(text, &["-S", "--suffix"]) {
        match name {
            "--fast" => level = 1,
            "--best" => level = 9,
            // Of several digits each is a level of its own, and the last one counts.
            digits if is_number(digits) && last_digit(digits) > 0 => level = last_digit(digits),
            "n" | "N" | "f" | "q" | "v" | "k" => {}
            "--no-name" | "--name" | "--force" | "--quiet" | "--verbose" | "--keep" | "--synchronous" => {}
            _ => said.unknown(word),
        }
    }
    said.end(warnings);
    level
}

fn is_number(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}

fn last_digit(digits: &str) -> u32 {
    digits.chars().next_back().and_then(|digit| digit.to_digit(10)).unwrap_or_default()
}

/// Reads compress_xz_opts. As for xz, a preset takes back what filters were set to before it.
pub fn xz(text: &str, warnings: &mut Vec<String>) -> Xz {
    const VALUED: [&str; 12] = [
        "-C",
        "--check",
        "-T",
        "--threads",
        "-M",
        "--memlimit",
        "--memory",
        "-F",
        "--format",
        "-S",
        "--suffix",
        "--memlimit-compress",
    ];
    let mut said = Said::about("compress_xz_opts");
    let (mut settings, mut preset, mut extreme) = (Xz::of_preset(6), 6, false);
    let mut check = true;
    for Opt { name, value, word } in options(text, &VALUED) {
        match name {
            "--fast" => preset = 0,
            "--best" => preset = 9,
            "e" | "--extreme" => extreme = true,
            digits if is_number(digits) => preset = last_digit(digits),
            "C" | "--check" => match value {
                Some("crc32") => check = true,
                Some("none") => check = false,
                _ => said.warn(word, "kernels can check a CRC32 and nothing else, so that it is used"),
            },
            "--lzma2" => {
                settings = lzma2(value.unwrap_or_default(), word, &mut said);
                continue;
            }
            "T" | "--threads" | "M" | "--memlimit" | "--memory" | "--memlimit-compress" => continue,
            "z" | "f" | "k" | "q" | "v" | "Q" | "--compress" | "--force" | "--keep" | "--quiet"
            | "--verbose" | "--no-warn" => continue,
            "F" | "--format" if matches!(value, Some("xz" | "auto")) => continue,
            _ => {
                said.unknown(word);
                continue;
            }
        }
        if !matches!(name, "C" | "--check") {
            settings = Xz { extreme, ..Xz::of_preset(preset) };
        }
    }
    said.end(warnings);
    Xz { check, ..settings }
}

fn lzma2<'a>(text: &'a str, word: &'a str, said: &mut Said<'a>) -> Xz {
    let mut settings = Xz::of_preset(6);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let tuning = match name {
            "preset" => {
                let (digit, extreme) = value.strip_suffix('e').map_or((value, false), |digit| (digit, true));
                match digit.parse() {
                    Ok(preset @ 0..=9) => settings = Xz { extreme, ..Xz::of_preset(preset) },
                    _ => said.warn(word, format_args!("{part} is no preset")),
                }
                continue;
            }
            "dict" => {
                match bytes(value).filter(|size| (4096..=LARGEST_DICT).contains(size)) {
                    Some(size) => settings.dict = u32::try_from(size).ok(),
                    None => said.warn(word, format_args!("{part} is no size from 4KiB to 1536MiB")),
                }
                continue;
            }
            "lc" => Tuning::LiteralContext,
            "lp" => Tuning::LiteralPosition,
            "pb" => Tuning::Position,
            "nice" => Tuning::Nice,
            "depth" => Tuning::Depth,
            _ => {
                said.unknown(part);
                continue;
            }
        };
        let range = match tuning {
            Tuning::LiteralContext | Tuning::LiteralPosition | Tuning::Position => 0..=4,
            Tuning::Nice => 5..=273,
            Tuning::Depth => 0..=u32::MAX,
        };
        match value.parse().ok().filter(|value| range.contains(value)) {
            Some(value) => settings.tuned.push((tuning, value)),
            None => said.warn(word, format_args!("{part} is out of range")),
        }
    }
    let of =
        |wanted| settings.tuned.iter().rev().find(|(tuning, _)| *tuning == wanted).map(|(_, value)| *value);
    if of(Tuning::LiteralContext).unwrap_or(3) + of(Tuning::LiteralPosition).unwrap_or(0) > 4 {
        said.warn(word, "lc and lp must not be more than 4 together");
        settings.tuned.clear();
    }
    settings
}

/// Reads compress_zstd_opts.
pub fn zstd(text: &str, warnings: &mut Vec<String>) -> Zstd {
    let mut said = Said::about("compress_zstd_opts");
    let mut settings = Compressors::default().zstd;
    let (mut ultra, mut asked) = (false, "");
    for Opt { name, value, word } in options(text, &["-T", "--threads"]) {
        match name {
            "--ultra" => ultra = true,
            "--fast" => match number(value.unwrap_or("1")) {
                Some(level @ 1..=100_000) => settings.level = -level,
                _ => said.warn(word, "that is no level"),
            },
            "--max" => (settings.level, ultra) = (22, true),
            digits if is_number(digits) => match number(digits) {
                Some(level @ 1..=22) => (settings.level, asked) = (level, word),
                _ => said.warn(word, "levels go from 1 to 22"),
            },
            "--long" => match number(value.unwrap_or("27")) {
                Some(log @ 10..=LARGEST_WINDOW) => settings.long = Some(log),
                Some(28..=31) => {
                    settings.long = Some(LARGEST_WINDOW);
                    said.warn(
                        word,
                        format_args!("kmod reads no window above {LARGEST_WINDOW}, which is used"),
                    );
                }
                _ => said.warn(word, "that is no window"),
            },
            "--check" | "C" => settings.check = true,
            "--no-check" => settings.check = false,
            "T" | "--threads" | "--single-thread" | "--auto-threads" => {}
            "q" | "v" | "f" | "k" | "z" | "--rm" | "--quiet" | "--verbose" | "--force" | "--keep"
            | "--compress" | "--progress" | "--no-progress" | "--content-size" | "--format" => {}
            _ => said.unknown(word),
        }
    }
    if settings.level > HIGHEST_LEVEL && !ultra {
        said.warn(asked, format_args!("it takes --ultra as well; {HIGHEST_LEVEL} is used"));
        settings.level = HIGHEST_LEVEL;
    }
    said.end(warnings);
    settings
}

fn number<N: FromStr>(text: &str) -> Option<N> {
    text.parse().ok()
}

/// A size as xz takes it: `1MiB`, `512K`, `65536`.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (value, suffix) = text.split_at(digits);
    let shift = match suffix.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        _ => return None,
    };
    value.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
#[path = "compressors_tests.rs"]
mod tests;
