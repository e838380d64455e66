// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is seen on a terminal: a real one, in the roots of the golden cases, its screen worked out
//! by a model of a terminal and held against what the same command writes into a file.
#![allow(clippy::disallowed_types, reason = "a test drives programs itself")]
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::io::{Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use fs_err as fs;
use nix::pty::{OpenptyResult, Winsize, openpty};
use rstest::rstest;
use tempfile::TempDir;

const ROWS: NonZero<u16> = NonZero::new(60).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(150).unwrap();

/// Nothing here takes longer, even on a disk that others keep busy: each change waits for it.
const PATIENCE: Duration = Duration::from_secs(300);

/// Three modules for autoinstall that take a second each; the second one does not compile.
const MODULES: &str = "for m in aa bb cc; do \
    module $m 1.0 AUTOINSTALL=yes 'PRE_BUILD=\"slow.sh\"'; script /usr/src/$m-1.0/slow.sh 'sleep 1'; \
    dkms add $m/1.0 >/dev/null; done; broken bb 1.0;";

/// A shell script in the root of a golden case, whose terminal this is.
struct Terminal {
    work: TempDir,
    master: fs_err::File,
    output: Receiver<Vec<u8>>,
    child: Child,
    model: vt100::Parser,
    raw: Vec<u8>,
}

impl Terminal {
    fn run(script: &str) -> Self {
        let work = tempfile::Builder::new().prefix("dkms-terminal-").tempdir().unwrap();
        let equipment = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        fs::create_dir(work.path().join("root")).unwrap();
        fs::copy(equipment.join("run.sh"), work.path().join("words.sh")).unwrap();
        // The words of the golden cases, of which there is none here.
        let script = format!(". /.golden/words.sh 0\nexport TERM=xterm\n{script}\n");
        fs::write(work.path().join("run.sh"), script).unwrap();

        let size = Winsize { ws_row: ROWS.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let stream = || Stdio::from(slave.try_clone().unwrap());
        let child = Command::new("setsid")
            .args(["--ctty", "--wait", "unshare", "--mount", "--propagation", "private"])
            .arg(equipment.join("enter.sh"))
            .args([work.path(), &equipment.join("root"), Path::new(env!("CARGO_BIN_EXE_dkms"))])
            .arg(equipment.join("../../hooks/lib"))
            .envs([("K1", "6.1.0-1-amd64"), ("K2", "6.1.0-2-amd64")])
            .stdin(stream())
            .stdout(stream())
            .stderr(stream())
            .spawn()
            .unwrap();
        drop(slave);
        let master = fs_err::File::from_parts(std::fs::File::from(master), "the terminal");
        let mut reader = master.file().try_clone().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The last program that has the terminal open ends this with EIO.
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        let model = vt100::Parser::new(ROWS, COLUMNS, 0);
        Self { work, master, output, child, model, raw: Vec::new() }
    }

    /// What is on the screen, without the blanks at the ends of lines.
    fn screen(&self) -> String {
        let rows = self.model.screen().rows(0, COLUMNS.get());
        let text: String = rows.map(|row| format!("{}\n", row.trim_end())).collect();
        text.trim_end().to_owned()
    }

    /// Goes on until the screen shows all of this.
    #[track_caller]
    fn shows(&mut self, wanted: &[&str]) {
        let begun = Instant::now();
        while !wanted.iter().all(|wanted| self.screen().contains(wanted)) {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.take(&bytes),
                Err(_) => panic!("{wanted:?} was not shown:\n{}", self.screen()),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.model.process(bytes);
        self.raw.extend(bytes);
    }

    fn types(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    /// Goes on to the end of the script.
    #[track_caller]
    fn ends(&mut self) {
        let begun = Instant::now();
        loop {
            match self.output.recv_timeout(PATIENCE.saturating_sub(begun.elapsed())) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end:\n{}", self.screen()),
            }
        }
        self.child.wait().unwrap();
    }

    /// A file that the script has written to `/.golden`.
    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.work.path().join(name)).unwrap()
    }
}

#[rstest]
#[ignore = "makes namespaces (root): make test"]
fn modules_under_way_are_shown_below_those_that_are_done_and_nothing_of_it_stays() {
    let mut terminal = Terminal::run(&format!(
        "{MODULES} sed -i s/1/4/ /usr/src/*/slow.sh; module top 1.0 'BUILD_DEPENDS=aa'; dkms add top/1.0 >/dev/null\n\
         both() {{ dkms autoinstall -j 2 -k $K1; echo $?; dkms remove aa/1.0 -k $K1 -q; dkms add aa/1.0 -q; \
             dkms install top/1.0 -k $K1; }}\n\
         both >/.golden/plain 2>&1; dkms remove top/1.0 --all -q; dkms add top/1.0 -q; \
         rm -rf /var/lib/dkms/*/1.0/$K1 /var/lib/dkms/*/kernel-* /lib/modules/$K1/updates; both"
    ));
    terminal.shows(&[
        "aa/1.0: Running the pre_build script",
        "bb/1.0: Running the",
        "0 of 3 modules done, next: cc/1.0",
    ]);
    terminal.shows(&["Error! Bad return status", "cc/1.0: Running the", "00:00:0", "2 of 3 modules done"]);
    terminal.ends();
    assert_eq!(terminal.screen(), terminal.file("plain").trim_end());
    assert!(terminal.screen().contains("\n11\n"));
}

/// Of a single module the line that is not finished shows how long it takes.
#[rstest]
#[ignore = "makes namespaces (root): make test"]
fn a_step_of_a_single_module_shows_its_time_and_scripts_have_the_terminal_for_themselves() {
    let mut terminal = Terminal::run(
        "module foo 1.0 'PRE_BUILD=\"slow.sh\"' 'POST_INSTALL=\"talk.sh\"'\n\
         script /usr/src/foo-1.0/slow.sh 'sleep 4'\n\
         script /usr/src/foo-1.0/talk.sh 'echo one; sleep 1; echo two >&2; [ ! -t 1 ] || printf three'\n\
         dkms install foo/1.0 -k $K1 >/.golden/plain 2>&1; dkms remove foo/1.0 --all >/dev/null\n\
         dkms install foo/1.0 -k $K1; printf '[%s]' the end",
    );
    terminal.shows(&["Running the pre_build script... 00:00:0"]);
    terminal.shows(&["one"]);
    terminal.ends();
    let plain = terminal.file("plain").replace("Running depmod", "three\nRunning depmod");
    assert_eq!(terminal.screen(), format!("{plain}[the][end]"));
}

#[rstest]
#[ignore = "makes namespaces (root): make test"]
#[case::from_the_keyboard("dkms autoinstall -j 2 -k $K1", b"\x03", 2)]
#[case::from_elsewhere("timeout --foreground -s TERM 1.5 dkms autoinstall -j 2 -k $K1", b"", 15)]
fn a_run_that_is_stopped_leaves_a_clean_screen(
    #[case] command: &str,
    #[case] typed: &[u8],
    #[case] signal: i32,
) {
    let mut terminal = Terminal::run(&format!(
        "{MODULES} sed -i s/1/30/ /usr/src/*/slow.sh; trap : INT; {command}; dkms status --json >/.golden/json"
    ));
    terminal.shows(&["aa/1.0: Running the pre_build script", "bb/1.0: Running the", "0 of 3 modules done"]);
    terminal.types(typed);
    terminal.ends();
    let screen = terminal.screen();
    assert!(screen.contains(&format!("Stopped by signal {signal}")), "{screen}");
    for left in ["00:00:", "modules done", "aa/1.0: ", "^C"] {
        assert!(!screen.contains(left), "{left} is left:\n{screen}");
    }
    assert!(terminal.file("json").contains(&format!("\"code\": {}", 128 + signal)));
}

/// The inner terminal is gone from one moment to the next: the run rolls back and does not fall over
/// what it can no longer draw.
#[rstest]
#[ignore = "makes namespaces (root): make test"]
fn a_terminal_that_goes_away_stops_the_run_in_an_orderly_way() {
    let mut terminal = Terminal::run(&format!(
        "{MODULES} sed -i s/1/30/ /usr/src/*/slow.sh\n\
         script /usr/bin/inner \"trap '' HUP; dkms autoinstall -j 2 -k $K1; echo \\$? >/.golden/code\"\n\
         command script -qec inner /dev/null </dev/tty & sleep 2; kill -KILL $!\n\
         for i in {{1..2500}}; do [ ! -s /.golden/code ] || break; sleep .1; done"
    ));
    terminal.shows(&["aa/1.0: Running the pre_build script", "bb/1.0: Running the", "0 of 3 modules done"]);
    terminal.ends();
    assert_eq!(terminal.file("code"), "129\n");
}

#[rstest]
#[ignore = "makes namespaces (root): make test"]
#[case::dumb("TERM=dumb dkms autoinstall -k $K1")]
#[case::verbose("dkms autoinstall -k $K1 --verbose")]
#[case::quiet("dkms autoinstall -k $K1 -q")]
#[case::piped("dkms autoinstall -k $K1 | cat")]
#[case::errors_elsewhere("dkms autoinstall -k $K1 2>/dev/null")]
fn elsewhere_lines_are_plain(#[case] command: &str) {
    let mut terminal = Terminal::run(&format!("{MODULES} sed -i /sleep/d /usr/src/*/slow.sh; {command}"));
    terminal.ends();
    let shown = String::from_utf8_lossy(&terminal.raw);
    assert!(shown.contains("bb/1.0"), "it did nothing: {shown}");
    assert!(!terminal.raw.contains(&0x1b), "escape sequences: {shown:?}");
}
