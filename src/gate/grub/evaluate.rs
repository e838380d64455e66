// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a grub.cfg as far as that can be done before the machine boots: branches whose condition
//! is unknown are both taken, and what differs after them is unknown.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::env::GrubEnv;
use super::expand::{BESIDE, Truth, Value, Variables, test};
use super::menu::{Boot, Content, Entry, Menu, release_of};
use super::syntax::{Part, Statement, Word, parse};

/// A grub.cfg after it has run: its menu and its variables.
pub(super) struct Script {
    pub(super) menu: Menu,
    variables: Variables,
}

impl Script {
    pub(super) fn run(cfg: &str, env: &GrubEnv) -> Self {
        let mut env = env.clone();
        let mut state = State {
            variables: Variables::new(),
            functions: BTreeMap::new(),
            menu: Menu::default(),
            section: None,
            boot: None,
            returned: false,
            nested: 0,
            left: Rc::new(Cell::new(MOST_WORK)),
        };
        state.text(cfg, &mut env, 0);
        if state.left.get() == 0 {
            state.lose("it does more than any menu takes".to_owned());
        }
        Self { menu: state.menu, variables: state.variables }
    }

    /// A variable's value when the menu is shown.
    pub(super) fn variable(&self, name: &str) -> Value {
        self.variables.get(name)
    }
}

/// Variables that decide on the default: what an unknown command may have changed.
const DECIDING: [&str; 4] = ["default", "saved_entry", "next_entry", "boot_once"];
/// Calls within calls, files within files.
const MAX_DEPTH: usize = 20;
/// Lists of statements within each other, through all calls and files.
const MAX_NESTED: usize = 300;
/// How much a script may do: statements, and what they copy of texts and variables. A menu of a hundred
/// kernels takes a tenth of it; functions that call each other twice would take for ever.
const MOST_WORK: usize = 1 << 19;

struct State {
    variables: Variables,
    functions: BTreeMap<String, Rc<[Statement]>>,
    menu: Menu,
    section: Option<String>,
    /// What is being loaded, within an entry.
    boot: Option<Boot>,
    returned: bool,
    nested: usize,
    /// What remains of [`MOST_WORK`] for all states of a run together.
    left: Rc<Cell<usize>>,
}

impl State {
    fn text(&mut self, text: &str, env: &mut GrubEnv, depth: usize) -> Truth {
        let (statements, mistake) = parse(text);
        let truth = self.list(&statements, env, depth);
        if let Some(mistake) = mistake {
            self.lose(mistake);
        }
        truth
    }

    /// The menu or its default may be other than what is seen here.
    fn lose(&mut self, why: String) {
        if self.boot.is_none() {
            self.menu.lost.get_or_insert(why);
        }
    }

    /// Accounts for work; false once there has been too much, and nothing is done any more.
    fn spend(&self, work: usize) -> bool {
        self.left.set(self.left.get().saturating_sub(work));
        self.left.get() > 0
    }

    /// What may go on instead of this, with a menu of its own: what is new in it.
    fn fork(&self) -> Self {
        self.spend(self.functions.len() + self.variables.size());
        Self {
            variables: self.variables.clone(),
            functions: self.functions.clone(),
            menu: Menu::default(),
            section: self.section.clone(),
            boot: self.boot.clone(),
            returned: self.returned,
            nested: self.nested,
            left: Rc::clone(&self.left),
        }
    }

    fn list(&mut self, statements: &[Statement], env: &mut GrubEnv, depth: usize) -> Truth {
        if self.nested == MAX_NESTED {
            self.left.set(0);
        }
        self.nested += 1;
        let mut truth = Truth::Yes;
        for statement in statements {
            if self.returned {
                break;
            }
            if !self.spend(1) {
                truth = Truth::Unknown("it comes after more than could be followed".to_owned());
                break;
            }
            truth = self.statement(statement, env, depth);
            match &truth {
                Truth::Yes => self.variables.set("?", Value::Known("0".to_owned())),
                Truth::No => self.variables.set("?", Value::Known("1".to_owned())),
                Truth::Unknown(why) => self.variables.forget(&["?"], why),
            }
        }
        self.nested -= 1;
        truth
    }

    fn statement(&mut self, statement: &Statement, env: &mut GrubEnv, depth: usize) -> Truth {
        match statement {
            Statement::Section(script) => {
                self.section.clone_from(script);
                Truth::Yes
            }
            Statement::Function { name, body } => {
                self.functions.insert(name.clone(), Rc::clone(body));
                Truth::Yes
            }
            Statement::If { arms, otherwise } => self.branch(arms, otherwise, env, depth),
            Statement::For { name, values, body } => {
                let values = self.arguments(values);
                let mut truth = Truth::Yes;
                for value in values {
                    self.variables.set(name, value);
                    truth = self.list(body, env, depth);
                }
                truth
            }
            Statement::Loop { body } => {
                // As an `if` of which nobody knows how often it holds.
                let why = "a loop runs an unknown number of times";
                let mut once = self.fork();
                once.list(body, env, depth);
                self.join(once, self.menu.entries.len(), why);
                Truth::Unknown(why.to_owned())
            }
            Statement::Command { words, block } => self.command(words, block.as_deref(), env, depth),
        }
    }

    fn branch(
        &mut self,
        arms: &[(Vec<Statement>, Vec<Statement>)],
        otherwise: &[Statement],
        env: &mut GrubEnv,
        depth: usize,
    ) -> Truth {
        let Some(((condition, body), rest)) = arms.split_first() else {
            return self.list(otherwise, env, depth);
        };
        match self.list(condition, env, depth) {
            Truth::Yes => self.list(body, env, depth),
            Truth::No => self.branch(rest, otherwise, env, depth),
            Truth::Unknown(why) => {
                let mut taken = self.fork();
                let yes = taken.list(body, env, depth);
                let entries = self.menu.entries.len();
                let no = self.branch(rest, otherwise, env, depth);
                for entry in &mut self.menu.entries[entries..] {
                    entry.doubt.get_or_insert_with(|| why.clone());
                }
                self.join(taken, entries, &why);
                if yes == no { yes } else { Truth::Unknown(why) }
            }
        }
    }

    /// The words of a command, as many as can be accounted for.
    fn arguments(&self, words: &[Word]) -> Vec<Value> {
        let known = |value: &Value| match value {
            Value::Known(text) => self.spend(1 + text.len() / 16),
            Value::Unknown { .. } => self.spend(1),
        };
        words.iter().flat_map(|word| self.variables.arguments(word)).take_while(known).collect()
    }

    /// Merges a run that was forked off here, and may have happened instead; its entries go in at
    /// `at`, in doubt.
    fn join(&mut self, other: Self, at: usize, why: &str) {
        let doubted = other.menu.entries.into_iter().map(|mut entry| {
            entry.doubt.get_or_insert_with(|| why.to_owned());
            entry
        });
        self.menu.entries.splice(at..at, doubted);
        self.variables.merge(&other.variables, why);
        for (name, body) in other.functions {
            self.functions.entry(name).or_insert(body);
        }
        if let Some(lost) = other.menu.lost {
            self.menu.lost.get_or_insert(lost);
        }
        if let (Some(boot), Some(other)) = (&mut self.boot, other.boot) {
            // What makes a device readable is taken from where it is certain only.
            for (mine, theirs) in [
                (&mut boot.images, other.images),
                (&mut boot.initrds, other.initrds),
                (&mut boot.arguments, other.arguments),
            ] {
                let new: Vec<String> = theirs.into_iter().filter(|item| !mine.contains(item)).collect();
                mine.extend(new);
            }
            boot.device.retain(|command| other.device.contains(command));
            boot.saves_default |= other.saves_default;
            boot.xen |= other.xen;
        }
        if self.returned != other.returned {
            self.returned = false;
            self.lose(format!("the script may end early: {why}"));
        }
    }

    fn command(
        &mut self,
        words: &[Word],
        block: Option<&[Statement]>,
        env: &mut GrubEnv,
        depth: usize,
    ) -> Truth {
        if let [word] = words
            && let Some((name, value)) = assignment(word)
        {
            let value = self.variables.join(&value);
            self.spend(value.size());
            self.variables.set(&name, value);
            return Truth::Yes;
        }
        let not = words.iter().take_while(|word| is_not(word)).count();
        if not > 0 {
            let truth = self.command(&words[not..], block, env, depth);
            return if not % 2 == 0 { truth } else { truth.not() };
        }
        let values = self.arguments(words);
        let Some((Value::Known(name), values)) = values.split_first() else {
            return Truth::Unknown("a command's name is known only at boot".into());
        };
        if let Some(boot) = self.boot.as_mut().filter(|_| name == "savedefault") {
            boot.saves_default = true;
            return Truth::Yes;
        }
        if let Some(body) = self.functions.get(name).cloned() {
            return self.call(name, &body, values, env, depth);
        }
        // The words as text; a value that is unknown shows as it is written.
        let fits = |text: &String| self.spend(1 + text.len() / 16);
        let shown: Vec<String> =
            words.iter().map(|word| self.variables.display(word)).take_while(fits).collect();
        if self.left.get() == 0 {
            return Truth::Unknown("it takes more than could be followed".to_owned());
        }
        let arguments = shown.get(1..).unwrap_or_default();
        match name.as_str() {
            "[" => test(values.strip_suffix(&[Value::Known("]".into())]).unwrap_or(values), env),
            "test" => test(values, env),
            "true" => Truth::Yes,
            "false" => Truth::No,
            "set" => {
                for word in &words[1..] {
                    if let Some((name, value)) = assignment(word) {
                        let value = self.variables.join(&value);
                        self.spend(value.size());
                        self.variables.set(&name, value);
                        if let (Some(boot), "root") = (&mut self.boot, name.as_str()) {
                            boot.device.push(shown.clone());
                        }
                    }
                }
                Truth::Yes
            }
            "unset" => {
                arguments.iter().for_each(|name| self.variables.unset(name));
                Truth::Yes
            }
            "load_env" => self.load_env(arguments, env),
            "save_env" | "export" | "echo" => Truth::Yes,
            "menuentry" | "submenu" => {
                if let Some(block) = block {
                    self.entry(name == "submenu", arguments, block, env, depth);
                }
                Truth::Yes
            }
            "source" | "." => self.source(arguments, env, depth),
            "return" => {
                self.returned = true;
                match arguments
                    .first()
                    .map_or_else(|| self.variables.get("?"), |word| Value::Known(word.clone()))
                {
                    Value::Known(status) => Truth::of(matches!(status.as_str(), "0" | "")),
                    Value::Unknown { why, .. } => Truth::Unknown(why),
                }
            }
            _ if self.boot.is_some() => self.load(name, &shown, env),
            "configfile" | "normal" | "legacy_configfile" | "syslinux_configfile" => {
                self.lose(format!("{} takes over", arguments.first().map_or("another file", String::as_str)));
                Truth::Unknown(format!("{name} was run"))
            }
            "blscfg" | "bls_import" | "uki" | "ukicfg" | "legacy_source" | "extract_entries_source" => {
                self.lose(format!("its entries come from {name}"));
                Truth::Unknown(format!("{name} was run"))
            }
            "exit" | "halt" | "reboot" | "boot" | "normal_exit" => {
                self.lose(format!("{name} ends it before the menu"));
                Truth::Unknown(format!("{name} was run"))
            }
            "eval" => {
                self.variables.forget(&DECIDING, "eval may set it");
                Truth::Unknown("eval was run".into())
            }
            _ => {
                self.set_by_option(name, arguments);
                Truth::Unknown(format!("whether {name} succeeds is known only at boot"))
            }
        }
    }

    fn call(
        &mut self,
        name: &str,
        body: &[Statement],
        values: &[Value],
        env: &mut GrubEnv,
        depth: usize,
    ) -> Truth {
        if depth >= MAX_DEPTH {
            self.lose(format!("{name} calls itself"));
            return Truth::Unknown(format!("{name} calls itself"));
        }
        // The parameters are put away and come back.
        self.spend(50);
        let before: Vec<Value> = (1..=9).map(|n: usize| self.variables.get(&n.to_string())).collect();
        for n in 1..=9_usize {
            let value = values.get(n - 1).cloned().unwrap_or(Value::Known(String::new()));
            self.variables.set(&n.to_string(), value);
        }
        let truth = self.list(body, env, depth + 1);
        self.returned = false;
        for (n, value) in (1..=9_usize).zip(before) {
            self.variables.set(&n.to_string(), value);
        }
        truth
    }

    fn load_env(&mut self, arguments: &[String], env: &GrubEnv) -> Truth {
        let mut file = format!("{BESIDE}/grubenv");
        let mut wanted: Vec<&str> = Vec::new();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "-f" | "--file" => file = words.next().cloned().unwrap_or_default(),
                "-s" | "--skip-sig" => {}
                word => match word.strip_prefix("--file=") {
                    Some(name) => name.clone_into(&mut file),
                    None => wanted.push(word),
                },
            }
        }
        if file != format!("{BESIDE}/grubenv") {
            let names = if wanted.is_empty() { &DECIDING[..] } else { &wanted };
            self.variables.forget(names, &format!("{file} may set it"));
            return Truth::Unknown(format!("whether {file} is there is not known"));
        }
        for (name, value) in env.variables().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)) {
            self.variables.set(name, Value::Known(value.to_owned()));
        }
        Truth::Yes
    }

    fn source(&mut self, arguments: &[String], env: &mut GrubEnv, depth: usize) -> Truth {
        let path = arguments.first().map_or("", String::as_str);
        match env.text(path).map(str::to_owned) {
            Some(text) if depth < MAX_DEPTH => self.text(&text, env, depth + 1),
            None if env.exists(path) == Some(false) => Truth::No,
            _ => {
                self.lose(format!("{path} may add to it"));
                Truth::Unknown(format!("{path} was run"))
            }
        }
    }

    fn entry(
        &mut self,
        submenu: bool,
        arguments: &[String],
        block: &[Statement],
        env: &mut GrubEnv,
        depth: usize,
    ) {
        let (mut title, mut id) = (None, None);
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--id" => id = words.next().cloned(),
                "--class" | "--users" | "--hotkey" | "--source" => {
                    words.next();
                }
                option if option.starts_with("--id=") => id = option.strip_prefix("--id=").map(str::to_owned),
                option if option.starts_with("--") => {}
                _ => {
                    title.get_or_insert_with(|| word.clone());
                }
            }
        }
        let mut inside = self.fork();
        let content = if submenu {
            if depth < MAX_DEPTH {
                inside.list(block, env, depth + 1);
            }
            if inside.variables.get("default") != self.variables.get("default") {
                inside.lose("it sets a default of its own".to_owned());
            }
            Content::Submenu(inside.menu)
        } else {
            inside.boot = Some(Boot::default());
            inside.list(block, env, depth);
            let boot = inside.boot.unwrap_or_default();
            boot.images.iter().for_each(|image| env.list(image));
            Content::Boot(boot)
        };
        self.menu.entries.push(Entry {
            title: title.unwrap_or_default(),
            id,
            doubt: None,
            script: self.section.clone(),
            content,
        });
    }

    /// A command within an entry.
    fn load(&mut self, name: &str, shown: &[String], env: &GrubEnv) -> Truth {
        self.set_by_option(name, &shown[1..]);
        let Some(boot) = &mut self.boot else { return Truth::Yes };
        let mut rest = shown[1..].iter().filter(|word| !word.starts_with("--")).cloned();
        match name {
            "linux" | "linux16" | "linuxefi" | "xen_linux" => {
                boot.images.extend(rest.next());
                boot.arguments.extend(rest);
            }
            "initrd" | "initrd16" | "initrdefi" | "xen_initrd" => boot.initrds.extend(rest),
            "multiboot" | "multiboot2" | "xen_hypervisor" => boot.xen = true,
            "module" | "module2" => match rest.next() {
                Some(image) if boot.images.is_empty() && release_of(&image).is_some() => {
                    boot.images.push(image);
                    boot.arguments.extend(rest);
                }
                other => boot.initrds.extend(other),
            },
            "insmod" => boot.device.push(shown.to_vec()),
            _ if name == "search" || name.starts_with("search.") => boot.device.push(shown.to_vec()),
            _ => {}
        }
        match shown.get(1).filter(|_| name.starts_with("linux")).map(|image| env.is_missing(image)) {
            Some(true) => Truth::No,
            _ => Truth::Unknown(format!("whether {name} succeeds is known only at boot")),
        }
    }

    /// Commands such as `search`, `probe` and `regexp` set a variable that an option names.
    fn set_by_option(&mut self, name: &str, arguments: &[String]) {
        let why = format!("{name} sets it at boot");
        let mut named = false;
        let mut words = arguments.iter().peekable();
        while let Some(word) = words.next() {
            let variable = match word.strip_prefix("--set=") {
                Some(variable) => Some(variable),
                None if word == "--set" || word == "-s" => words.peek().map(|word| word.as_str()),
                None => None,
            };
            if let Some(variable) = variable {
                let variable = variable.rsplit(':').next().unwrap_or_default();
                self.variables.forget(&[variable], &why);
                named = true;
            }
        }
        if let (false, Some(word)) = (named, arguments.first().filter(|_| matches!(name, "read" | "getkey")))
        {
            self.variables.forget(&[word], &why);
        }
        if name.starts_with("search") {
            self.variables.forget(&["root"], &why);
        }
    }
}

/// Whether a word turns the answer of the command behind it.
fn is_not(word: &Word) -> bool {
    matches!(word.as_slice(), [Part::Text { text, .. }] if text == "!")
}

/// `name=value`: the name, and the parts of the value.
fn assignment(word: &Word) -> Option<(String, Word)> {
    let (Part::Text { text, .. }, rest) = word.split_first()? else { return None };
    let (name, start) = text.split_once('=')?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return None;
    }
    let mut value = vec![Part::Text { text: start.to_owned(), quoted: true }];
    value.extend(rest.iter().cloned());
    Some((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn calls() -> String {
        let function = |n: usize| format!("function f{n} {{ {} }}\n", format!("f{} ; ", n + 1).repeat(10));
        (0..18).map(function).collect::<String>() + "f0\n"
    }

    fn blocks() -> String {
        let (open, close) = ("if true; then ".repeat(90), "; fi".repeat(90));
        let function = |n: usize| format!("function f{n} {{ {open}f{}{close} ; }}\n", n + 1);
        (0..19).map(function).collect::<String>() + "f0\n"
    }

    #[rstest]
    #[case::calls_that_multiply(calls(), "more than any menu takes")]
    #[case::loops_that_multiply(format!("{}true; {}", "for a in 1 2 3 4 5 6 7 8; do ".repeat(12), "done; ".repeat(12)), "more than any menu takes")]
    #[case::blocks_through_calls(blocks(), "more than any menu takes")]
    #[case::values_of_commands(format!("set a={}\nmenuentry x {{ linux {} }}\n", "x".repeat(15_000), "$a ".repeat(9_000)), "more than any menu takes")]
    #[case::cases(format!("if [ $root = a ]; then true\n{}fi\n", "elif [ $root = b ]; then true\n".repeat(300)), "too many cases")]
    fn a_script_that_does_too_much_is_given_up(#[case] cfg: String, #[case] why: &str) {
        let lost = Script::run(&cfg, &GrubEnv::default()).menu.lost;
        assert!(lost.as_ref().is_some_and(|lost| lost.contains(why)), "{lost:?}");
    }

    #[rstest]
    #[case::known("set a=xx\n")]
    #[case::unknown("set a=$root\n")]
    fn a_value_that_doubles_is_given_up(#[case] first: &str) {
        let script = Script::run(&(first.to_owned() + &"set a=$a$a\n".repeat(40)), &GrubEnv::default());
        let Value::Unknown { shown, .. } = script.variable("a") else { panic!("it is known") };
        assert!(shown.len() <= 16 << 10);
        assert_eq!(script.menu.lost, None);
    }

    #[rstest]
    #[case::even(6000, "yes")]
    #[case::odd(6001, "no")]
    fn negations_take_no_stack(#[case] times: usize, #[case] want: &str) {
        let cfg = format!("if {}true; then set a=yes; else set a=no; fi\n", "! ".repeat(times));
        assert_eq!(Script::run(&cfg, &GrubEnv::default()).variable("a"), Value::Known(want.to_owned()));
    }

    /// A machine with all the kernels that anybody keeps, each with its entry for repairs.
    #[test]
    fn a_large_menu_is_far_from_the_limit() {
        let function =
            "function savedefault { if [ -z \"${boot_once}\" ]; then saved_entry=\"${chosen}\"; fi; }\n";
        let variables: String = (0..60).map(|n| format!("set v{n}=some_value_or_other\n")).collect();
        let entry = |n: usize| {
            format!(
                "menuentry 'Linux {n}' $menuentry_id_option 'a-{n}' {{\nsavedefault\n\
                 if [ x$grub_platform = xxen ]; then insmod xzio; fi\nsearch --set=root x\n\
                 linux /vmlinuz-6.1.0-{n} root=/dev/sda1 ro quiet\ninitrd /initrd.img-6.1.0-{n}\n}}\n"
            )
        };
        let cfg =
            format!("{variables}{function}submenu x {{\n{}}}\n", (0..200).map(entry).collect::<String>());
        let menu = Script::run(&cfg, &GrubEnv::default()).menu;
        assert_eq!((menu.boots().len(), &menu.lost), (200, &None));
        let Content::Submenu(inside) = &menu.entries[0].content else { panic!("no submenu") };
        assert_eq!(inside.lost, None);
    }
}
