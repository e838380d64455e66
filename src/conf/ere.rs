// SPDX-License-Identifier: MIT OR Apache-2.0
//! POSIX extended regular expressions (regex(7)), which is what dkms.conf means by a regular
//! expression, translated to the syntax of the regex crate. Matching is by bytes, as in the C
//! locale.

use anyhow::{Context, Result, bail};
use regex::bytes::{Regex, RegexBuilder};

/// Compiles an extended regular expression. Back references are not supported.
pub fn compile(pattern: &str) -> Result<Regex> {
    let translated =
        translate(pattern).with_context(|| format!("reading the regular expression '{pattern}'"))?;
    RegexBuilder::new(&translated)
        .unicode(false)
        .dot_matches_new_line(true)
        .build()
        .with_context(|| format!("reading the regular expression '{pattern}'"))
}

/// Whether the pattern matches anywhere in the text; one that is invalid matches nothing.
pub fn matches(pattern: &str, text: &str) -> bool {
    compile(pattern).is_ok_and(|regex| regex.is_match(text.as_bytes()))
}

/// The translation so far.
#[derive(Default)]
struct Translation {
    out: String,
    /// Where what a repetition would apply to begins, if there is anything.
    atom: Option<usize>,
    /// Whether that is repeated already.
    repeated: bool,
    /// Where the open groups begin.
    groups: Vec<usize>,
}

impl Translation {
    fn atom(&mut self, text: &str) {
        self.atom = Some(self.out.len());
        self.repeated = false;
        self.out.push_str(text);
    }

    fn literal(&mut self, c: char) {
        self.atom(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }

    /// A second repetition needs a group of its own: in the regex crate, `a*?` is lazy.
    fn repeat(&mut self, operator: &str) -> Result<()> {
        let Some(start) = self.atom else { bail!("nothing to repeat before '{operator}'") };
        if self.repeated {
            self.out.insert_str(start, "(?:");
            self.out.push(')');
        }
        self.out.push_str(operator);
        self.repeated = true;
        Ok(())
    }

    /// Something that cannot be repeated.
    fn structure(&mut self, text: &str) {
        self.out.push_str(text);
        self.atom = None;
    }
}

fn translate(pattern: &str) -> Result<String> {
    let mut to = Translation::default();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let Some(c) = rest.chars().next() else { bail!("a backslash at the end") };
                rest = &rest[c.len_utf8()..];
                match c {
                    'w' | 'W' | 's' | 'S' => to.atom(&format!("\\{c}")),
                    'b' | 'B' => to.structure(&format!("\\{c}")),
                    '<' => to.structure("\\b{start}"),
                    '>' => to.structure("\\b{end}"),
                    '`' => to.structure("\\A"),
                    '\'' => to.structure("\\z"),
                    '1'..='9' => bail!("a back reference"),
                    _ => to.literal(c),
                }
            }
            '[' => {
                let (class, after) = bracket(rest)?;
                to.atom(&class);
                rest = after;
            }
            '(' => {
                to.groups.push(to.out.len());
                to.structure("(?:");
            }
            ')' => match to.groups.pop() {
                Some(start) => {
                    to.out.push(')');
                    to.atom = Some(start);
                    to.repeated = false;
                }
                None => to.literal(')'),
            },
            '|' | '^' | '$' => to.structure(c.encode_utf8(&mut [0; 4])),
            '*' | '+' | '?' => to.repeat(c.encode_utf8(&mut [0; 4]))?,
            '{' => {
                let Some((bounds, after)) = rest.split_once('}') else { bail!("a brace that is not closed") };
                rest = after;
                to.repeat(&interval(bounds)?)?;
            }
            '.' => to.atom("."),
            _ => to.literal(c),
        }
    }
    match to.groups.is_empty() {
        true => Ok(to.out),
        false => bail!("a parenthesis that is not closed"),
    }
}

fn interval(bounds: &str) -> Result<String> {
    let (low, high) = bounds.split_once(',').unwrap_or((bounds, bounds));
    let number = |text: &str| text.parse::<u16>().with_context(|| format!("bad bounds '{bounds}'"));
    let low = if low.is_empty() && bounds.contains(',') { 0 } else { number(low)? };
    Ok(match (high.is_empty(), bounds.contains(',')) {
        (true, _) => format!("{{{low},}}"),
        (false, true) => format!("{{{low},{}}}", number(high)?),
        (false, false) => format!("{{{low}}}"),
    })
}

/// A bracket expression, from after its opening bracket; gives what follows it too. A backslash
/// is an ordinary character in it.
fn bracket(text: &str) -> Result<(String, &str)> {
    let mut class = "[".to_owned();
    let mut rest = text;
    if let Some(after) = rest.strip_prefix('^') {
        class.push('^');
        rest = after;
    }
    let mut first = true;
    loop {
        let Some(c) = rest.chars().next() else { bail!("a bracket that is not closed") };
        if c == ']' && !first {
            return Ok((class + "]", &rest[1..]));
        }
        first = false;
        if let Some(named) = rest.strip_prefix("[:") {
            let Some((name, after)) = named.split_once(":]") else { bail!("a bracket that is not closed") };
            class.push_str(&format!("[:{name}:]"));
            rest = after;
            continue;
        }
        if rest.starts_with("[.") || rest.starts_with("[=") {
            bail!("a collating element");
        }
        push_escaped(&mut class, c);
        rest = &rest[c.len_utf8()..];
        let mut ahead = rest.chars();
        match (ahead.next(), ahead.next()) {
            (Some('-'), Some(end)) if end != ']' => {
                class.push('-');
                push_escaped(&mut class, end);
                rest = ahead.as_str();
            }
            _ => {}
        }
    }
}

fn push_escaped(class: &mut String, c: char) {
    if c.is_ascii_punctuation() {
        class.push('\\');
    }
    class.push(c);
}

#[cfg(test)]
#[allow(clippy::disallowed_types, reason = "bash's own matcher is the reference")]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::unanchored("1\\.0", "6.1.0-56-amd64", true)]
    #[case::anchored("^2\\.4.*", "6.1.0-56-amd64", false)]
    #[case::either("^(5\\.1[0-9]|6\\.)", "6.1.0-56-amd64", true)]
    #[case::range("^[4-6]\\.", "6.1.0", true)]
    #[case::class("[[:alpha:]]+$", "6.1.0-amd64x", true)]
    #[case::negated_class("^[^[:digit:].-]+$", "6.1.0", false)]
    #[case::backslash_in_bracket("^[\\d]$", "d", true)]
    #[case::bracket_in_bracket("^[][]+$", "[]", true)]
    #[case::set_operators("^[a&&b~~-]+$", "&~-", true)]
    #[case::interval("^6\\.1{1,2}", "6.1.0", true)]
    #[case::open_interval("^6{,1}\\.", "6.1", true)]
    #[case::repeated_twice("^a*?b", "aab", true)]
    #[case::optional_interval("^(ab){2}?$", "", true)]
    #[case::empty("", "6.1.0", true)]
    #[case::empty_branch("^(a|)$", "", true)]
    #[case::word_edges("\\<amd64\\>", "6.1.0-amd64", true)]
    #[case::stray_parenthesis("a)", "a)", true)]
    #[case::nothing_to_repeat("*", "6.1.0", false)]
    #[case::plus_first("+a", "a", false)]
    #[case::open_parenthesis("(6", "6", false)]
    #[case::open_bracket("[6", "6", false)]
    #[case::open_brace("6{1", "6{1", false)]
    #[case::bad_interval("6{x}", "6{x}", false)]
    #[case::sentence("REQUIRES CONFIG_VIDEO_DEV", "6.1.0", false)]
    #[case::escaped_letter("6\\.1\\-56", "6.1-56", true)]
    #[case::not_lookahead("(?!6)", "6", false)]
    #[case::dollar_within("a$b", "a$b", false)]
    fn agrees_with_bash(#[case] pattern: &str, #[case] text: &str, #[case] want: bool) {
        assert_eq!(matches(pattern, text), want);
        let status = std::process::Command::new("bash")
            .args(["-c", "[[ $2 =~ $1 ]] 2>/dev/null", "bash", pattern, text])
            .env("LC_ALL", "C")
            .status()
            .unwrap();
        assert_eq!(status.success(), want, "bash says otherwise");
    }
}
