// SPDX-License-Identifier: MIT OR Apache-2.0
//! The grammar of GRUB's shell-like scripts (GRUB manual, "Writing full configuration files
//! directly"): text to statements. Gives no meaning to any command.

use std::rc::Rc;

/// A piece of a word. `quoted` pieces are neither split nor dropped when they are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text { text: String, quoted: bool },
    Variable { name: String, quoted: bool },
}

pub(super) type Word = Vec<Part>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    /// A command and, for `menuentry` and its like, its block.
    Command {
        words: Vec<Word>,
        block: Option<Vec<Statement>>,
    },
    /// `if`/`elif` arms in order (condition, body), and what `else` holds.
    If {
        arms: Vec<(Vec<Statement>, Vec<Statement>)>,
        otherwise: Vec<Statement>,
    },
    /// `while` and `until`.
    Loop {
        body: Vec<Statement>,
    },
    For {
        name: String,
        values: Vec<Word>,
        body: Vec<Statement>,
    },
    Function {
        name: String,
        body: Rc<[Statement]>,
    },
    /// The comments by which grub-mkconfig marks where the output of one of its scripts begins
    /// (its name) and ends (none).
    Section(Option<String>),
}

/// What a script says up to its first mistake, and that mistake.
pub(super) fn parse(text: &str) -> (Vec<Statement>, Option<String>) {
    let mut statements = Vec::new();
    let tokens = match tokens(text) {
        Ok(tokens) => tokens,
        Err(why) => return (statements, Some(why)),
    };
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0 };
    let mistake = parser.list(&mut statements, &[]).err();
    (statements, mistake)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Word),
    /// A newline or a semicolon.
    End,
    Section(Option<String>),
}

/// A token and the line that it is on, from 1.
type Placed = (Token, usize);

fn tokens(text: &str) -> Result<Vec<Placed>, String> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    let mut line = 1;
    while let Some(&c) = chars.peek() {
        match c {
            '\n' | ';' => {
                chars.next();
                out.push((Token::End, line));
                line += usize::from(c == '\n');
            }
            c if c.is_whitespace() => {
                chars.next();
            }
            '#' => {
                let mut comment = String::new();
                while let Some(c) = chars.next_if(|&c| c != '\n') {
                    comment.push(c);
                }
                let script = comment.strip_prefix("### BEGIN ").and_then(|rest| rest.strip_suffix(" ###"));
                if script.is_some() || comment.starts_with("### END ") {
                    out.push((Token::Section(script.map(str::to_owned)), line));
                }
            }
            _ => {
                let start = line;
                let word = word(&mut chars, &mut line)?;
                if !word.is_empty() {
                    out.push((Token::Word(word), start));
                }
            }
        }
    }
    Ok(out)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn word(chars: &mut Chars, line: &mut usize) -> Result<Word, String> {
    let mut word = Word::new();
    while let Some(&c) = chars.peek() {
        match c {
            '\n' | ';' => break,
            c if c.is_whitespace() => break,
            '\\' => {
                chars.next();
                match chars.next() {
                    Some('\n') => *line += 1,
                    Some(c) => push(&mut word, c, true),
                    None => {}
                }
            }
            '\'' => {
                chars.next();
                let start = *line;
                open_quote(&mut word);
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => {
                            *line += usize::from(c == '\n');
                            push(&mut word, c, true);
                        }
                        None => return Err(format!("line {start}: a quote is never closed")),
                    }
                }
            }
            '"' => {
                chars.next();
                double_quoted(chars, line, &mut word)?;
            }
            '$' => {
                chars.next();
                variable(chars, &mut word, false, *line)?;
            }
            // GRUB refuses them within words and has no use for the others yet.
            '{' | '}' if word.is_empty() => {
                chars.next();
                push(&mut word, c, false);
                if chars.peek().is_some_and(|&c| !c.is_whitespace() && c != ';') {
                    return Err(format!("line {line}: {c} is out of place"));
                }
            }
            '{' | '}' | '<' | '>' | '|' | '&' => return Err(format!("line {line}: {c} is out of place")),
            _ => {
                chars.next();
                push(&mut word, c, false);
            }
        }
    }
    Ok(word)
}

fn double_quoted(chars: &mut Chars, line: &mut usize, word: &mut Word) -> Result<(), String> {
    let start = *line;
    open_quote(word);
    loop {
        match chars.next() {
            Some('"') => return Ok(()),
            Some('$') => variable(chars, word, true, *line)?,
            Some('\\') => match chars.next() {
                Some('\n') => *line += 1,
                Some(c @ ('$' | '"' | '\\')) => push(word, c, true),
                Some(c) => {
                    push(word, '\\', true);
                    push(word, c, true);
                }
                None => {}
            },
            Some(c) => {
                *line += usize::from(c == '\n');
                push(word, c, true);
            }
            None => return Err(format!("line {start}: a double quote is never closed")),
        }
    }
}

/// What follows a `$`: `name`, `{name}`, a digit, or one of `? # @ *`; else the `$` stands for itself.
fn variable(chars: &mut Chars, word: &mut Word, quoted: bool, line: usize) -> Result<(), String> {
    let mut name = String::new();
    match chars.peek() {
        Some('{') => {
            chars.next();
            loop {
                match chars.next() {
                    Some('}') => break,
                    Some(c) if c != '\n' => name.push(c),
                    _ => return Err(format!("line {line}: a ${{ is never closed")),
                }
            }
        }
        Some(&c @ ('?' | '#' | '@' | '*' | '0'..='9')) => {
            chars.next();
            name.push(c);
        }
        Some(c) if c.is_ascii_alphabetic() || *c == '_' => {
            while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                name.push(c);
            }
        }
        _ => {
            push(word, '$', quoted);
            return Ok(());
        }
    }
    word.push(Part::Variable { name, quoted });
    Ok(())
}

/// Makes '' and "" count as an (empty) part.
fn open_quote(word: &mut Word) {
    if !matches!(word.last(), Some(Part::Text { quoted: true, .. })) {
        word.push(Part::Text { text: String::new(), quoted: true });
    }
}

fn push(word: &mut Word, c: char, now: bool) {
    match word.last_mut() {
        Some(Part::Text { text, quoted }) if *quoted == now => text.push(c),
        _ => word.push(Part::Text { text: c.to_string(), quoted: now }),
    }
}

/// Cases of one `if`, beyond which the same holds.
const MAX_ARMS: usize = 200;

/// Blocks within blocks, beyond which a file is not a boot menu but a mistake.
const MAX_DEPTH: usize = 100;

struct Parser<'a> {
    tokens: &'a [Placed],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    /// Statements up to one of the words in `until` (not taken), or to the end when there is none.
    fn list(&mut self, out: &mut Vec<Statement>, until: &[&str]) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.mistake("too many blocks within blocks"));
        }
        loop {
            match self.tokens.get(self.at) {
                None if until.is_empty() => break,
                None => return Err(self.mistake(&format!("the file ends before {}", until.join(" or ")))),
                Some((Token::End, _)) => self.at += 1,
                Some((Token::Section(script), _)) => {
                    out.push(Statement::Section(script.clone()));
                    self.at += 1;
                }
                Some((Token::Word(word), _)) => match keyword(word) {
                    Some(word) if until.contains(&word) => break,
                    Some(word) if RESERVED.contains(&word) => {
                        return Err(self.mistake(&format!("{word} is out of place")));
                    }
                    _ => {
                        let statement = self.statement()?;
                        out.push(statement);
                    }
                },
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn statement(&mut self) -> Result<Statement, String> {
        match self.keyword() {
            Some("if") => self.if_statement(),
            Some("while" | "until") => {
                self.at += 1;
                let mut condition = Vec::new();
                self.list(&mut condition, &["do"])?;
                Ok(Statement::Loop { body: self.closed("done")? })
            }
            Some("for") => {
                self.at += 1;
                let name = self.name()?;
                if self.keyword() != Some("in") {
                    return Err(self.mistake("for lacks its in"));
                }
                self.at += 1;
                let values = self.words();
                self.skip_ends();
                if self.keyword() != Some("do") {
                    return Err(self.mistake("for lacks its do"));
                }
                Ok(Statement::For { name, values, body: self.closed("done")? })
            }
            Some("function") => {
                self.at += 1;
                let name = self.name()?;
                self.skip_ends();
                if self.keyword() != Some("{") {
                    return Err(self.mistake("a function lacks its {"));
                }
                Ok(Statement::Function { name, body: self.closed("}")?.into() })
            }
            _ => {
                let words = self.words();
                let block = match self.keyword() {
                    Some("{") => Some(self.closed("}")?),
                    _ => None,
                };
                Ok(Statement::Command { words, block })
            }
        }
    }

    fn if_statement(&mut self) -> Result<Statement, String> {
        let mut arms = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            match self.keyword() {
                Some("if" | "elif") => {
                    self.at += 1;
                    let (mut condition, mut body) = (Vec::new(), Vec::new());
                    self.list(&mut condition, &["then"])?;
                    self.at += 1;
                    self.list(&mut body, &["elif", "else", "fi"])?;
                    arms.push((condition, body));
                    if arms.len() > MAX_ARMS {
                        return Err(self.mistake("an if has too many cases"));
                    }
                }
                Some("else") => {
                    self.at += 1;
                    self.list(&mut otherwise, &["fi"])?;
                }
                _ => {
                    self.at += 1; // fi: the lists above end nowhere else
                    return Ok(Statement::If { arms, otherwise });
                }
            }
        }
    }

    /// From the opening word (taken) to the closing one (taken).
    fn closed(&mut self, closing: &str) -> Result<Vec<Statement>, String> {
        self.at += 1;
        let mut body = Vec::new();
        self.list(&mut body, &[closing])?;
        self.at += 1;
        Ok(body)
    }

    fn words(&mut self) -> Vec<Word> {
        let mut words = Vec::new();
        while let Some((Token::Word(word), _)) = self.tokens.get(self.at) {
            if matches!(keyword(word), Some("{" | "}")) {
                break;
            }
            words.push(word.clone());
            self.at += 1;
        }
        words
    }

    fn name(&mut self) -> Result<String, String> {
        let name = self.keyword().map(str::to_owned).ok_or_else(|| self.mistake("a name is missing"))?;
        self.at += 1;
        Ok(name)
    }

    fn skip_ends(&mut self) {
        while let Some((Token::End, _)) = self.tokens.get(self.at) {
            self.at += 1;
        }
    }

    fn keyword(&self) -> Option<&str> {
        match self.tokens.get(self.at) {
            Some((Token::Word(word), _)) => keyword(word),
            _ => None,
        }
    }

    fn mistake(&self, what: &str) -> String {
        let line = self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |(_, line)| *line);
        format!("line {line}: {what}")
    }
}

const RESERVED: [&str; 8] = ["then", "elif", "else", "fi", "do", "done", "{", "}"];

/// A word that is plain text without quotes, as only keywords and names are.
fn keyword(word: &Word) -> Option<&str> {
    match word.as_slice() {
        [Part::Text { text, quoted: false }] => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn text(text: &str, quoted: bool) -> Part {
        Part::Text { text: text.to_owned(), quoted }
    }

    fn variable(name: &str, quoted: bool) -> Part {
        Part::Variable { name: name.to_owned(), quoted }
    }

    #[rstest]
    #[case::plain("a", vec![text("a", false)])]
    #[case::single(r"'a b $c'", vec![text("a b $c", true)])]
    #[case::apostrophe_as_grub_mkconfig_writes_it(r"'it'\''s'", vec![text("it's", true)])]
    #[case::double("\"${x}>$y\"", vec![text("", true), variable("x", true), text(">", true), variable("y", true)])]
    #[case::escape_in_double("\"\\$x\\n\"", vec![text("$x\\n", true)])]
    #[case::empty("''", vec![text("", true)])]
    #[case::mixed("x${p}=\"q\"", vec![text("x", false), variable("p", false), text("=", false), text("q", true)])]
    #[case::lone_dollar("a$", vec![text("a$", false)])]
    #[case::hash_within("a#b", vec![text("a#b", false)])]
    fn words_keep_what_was_quoted(#[case] source: &str, #[case] want: Word) {
        let (statements, mistake) = parse(source);
        assert_eq!(
            (statements, mistake),
            (vec![Statement::Command { words: vec![want], block: None }], None)
        );
    }

    #[test]
    fn blocks_nest() {
        let (statements, mistake) = parse(
            "### BEGIN /etc/grub.d/10_linux ###\n# note\nif a ; then b; elif c\nthen\nd; else e; fi\n\
             function f { g\n}\nsubmenu s { menuentry t { linux /x } ; }\nfor i in 1 2; do h; done",
        );
        assert_eq!(mistake, None);
        assert!(
            matches!(&statements[0], Statement::Section(Some(script)) if script == "/etc/grub.d/10_linux")
        );
        assert!(
            matches!(&statements[1], Statement::If { arms, otherwise } if arms.len() == 2 && otherwise.len() == 1)
        );
        assert!(
            matches!(&statements[2], Statement::Function { name, body } if name == "f" && body.len() == 1)
        );
        let Statement::Command { block: Some(submenu), .. } = &statements[3] else {
            panic!("{statements:?}")
        };
        assert!(matches!(&submenu[0], Statement::Command { block: Some(entry), .. } if entry.len() == 1));
        assert!(matches!(&statements[4], Statement::For { values, .. } if values.len() == 2));
    }

    #[rstest]
    #[case::if_without_end("a\nif b; then c\n", "line 2: the file ends before elif or else or fi")]
    #[case::stray_brace("a\n}\n", "line 2: } is out of place")]
    #[case::sign("set default=1>2\n", "line 1: > is out of place")]
    #[case::brace_in_word("a\nb=x{y}\n", "line 2: { is out of place")]
    #[case::open_quote("a\nb 'c\n\n", "line 2: a quote is never closed")]
    fn mistakes_are_told_with_their_line(#[case] source: &str, #[case] want: &str) {
        assert_eq!(parse(source).1.as_deref(), Some(want));
    }

    #[test]
    fn depth_is_bounded() {
        let source = "if a; then ".repeat(100_000);
        assert!(parse(&source).1.is_some());
    }
}
