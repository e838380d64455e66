// SPDX-License-Identifier: MIT OR Apache-2.0
//! The live area: on a terminal, below what has been printed, what is being worked on and for how
//! long, and a line that is not finished yet. Printing goes above it, and nothing of it stays.
//! There is one terminal and so at most one area, whatever handles print.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::{Piece, Stream};

/// How often the times go on: seldom enough for slow consoles, and for package managers that
/// record what their terminal shows.
const TICK: Duration = Duration::from_secs(1);

/// How often the area is drawn in a second, at most.
const DRAWS: u8 = 5;

static AREA: Mutex<Option<Area>> = Mutex::new(None);

fn area() -> MutexGuard<'static, Option<Area>> {
    AREA.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Area {
    bars: MultiProgress,
    /// The beginning of a line whose end has not been printed, and how it is shown.
    open: Vec<Piece>,
    open_bar: Option<ProgressBar>,
    /// The last line: how far the work is and what comes next.
    outlook: Option<ProgressBar>,
}

/// Keeps the live area; what is left of it goes when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Live {
    owns: bool,
}

impl Live {
    /// Nothing happens if it is not wanted, if there is an area already, or if standard output and
    /// standard error are not one and the same terminal that can move its cursor.
    pub(super) fn begin(wanted: bool) -> Self {
        let mut area = area();
        if !wanted || area.is_some() || !on_one_terminal() {
            return Self { owns: false };
        }
        let screen = ProgressDrawTarget::term_like_with_hz(Box::new(Screen(Term::buffered_stdout())), DRAWS);
        let bars = MultiProgress::with_draw_target(screen);
        *area = Some(Area { bars, open: Vec::new(), open_bar: None, outlook: None });
        Self { owns: true }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.owns
            && let Some(ended) = area().take()
        {
            // What cannot be written on a terminal that has gone away is no loss.
            let _ = ended.bars.clear();
            ended.bars.set_draw_target(ProgressDrawTarget::hidden());
            ended.open.iter().for_each(write);
        }
    }
}

fn on_one_terminal() -> bool {
    let (out, err) = (io::stdout(), io::stderr());
    if !out.is_terminal() || !err.is_terminal() || console::is_dumb() {
        return false;
    }
    let device = |stat: nix::sys::stat::FileStat| (stat.st_dev, stat.st_ino);
    match (nix::sys::stat::fstat(&out), nix::sys::stat::fstat(&err)) {
        (Ok(out), Ok(err)) => device(out) == device(err),
        _ => false,
    }
}

/// Prints pieces, above the area if there is one.
pub(super) fn print(pieces: Vec<Piece>) {
    match area().as_mut() {
        Some(area) => area.print(pieces),
        None => pieces.iter().for_each(write),
    }
}

fn write((stream, text): &Piece) {
    // A reader that has gone away is no reason to stop in the middle of a transaction.
    let _ = match stream {
        Stream::Out => {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        }
        Stream::Err => io::stderr().lock().write_all(text.as_bytes()),
    };
}

impl Area {
    fn print(&mut self, pieces: Vec<Piece>) {
        self.open.extend(pieces);
        if let Some(at) = self.open.iter().rposition(|(_, text)| text.contains('\n')) {
            let begun = self.open.split_off(at + 1);
            let mut whole = std::mem::replace(&mut self.open, begun);
            if let Some((stream, text)) = whole.last_mut() {
                let begun = text.split_off(text.rfind('\n').map_or(0, |end| end + 1));
                self.open.insert(0, (*stream, begun));
            }
            if let Some(bar) = self.open_bar.take() {
                self.remove(&bar);
            }
            self.bars.suspend(|| whole.iter().for_each(write));
        }
        let open: String = self.open.iter().map(|(_, text)| text.as_str()).collect();
        if open.is_empty() {
            return;
        }
        let bar = match self.open_bar.take() {
            Some(bar) => bar,
            None => begin(self.bars.insert(0, bar("{msg} {elapsed_precise}"))),
        };
        bar.set_message(open);
        self.open_bar = Some(bar);
    }

    fn remove(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.bars.remove(bar);
    }
}

fn bar(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

fn begin(bar: ProgressBar) -> ProgressBar {
    bar.enable_steady_tick(TICK);
    bar
}

/// A line of the area for something that is being worked on; gone when this is dropped.
#[derive(Debug)]
pub(super) struct Job {
    name: String,
    bar: ProgressBar,
}

impl Job {
    /// Nothing if there is no area.
    pub(super) fn begin(name: &str) -> Option<Self> {
        let area = area();
        let Area { bars, outlook, .. } = area.as_ref()?;
        let from_back = usize::from(outlook.is_some());
        let bar = bars.insert_from_back(from_back, bar("  {elapsed_precise} {wide_msg}"));
        bar.set_message(name.to_owned());
        Some(Self { name: name.to_owned(), bar: begin(bar) })
    }

    /// Shows what the work is at: the last line that was begun.
    pub(super) fn shows(&self, text: &str) {
        if let Some(line) = text.lines().rev().map(str::trim).find(|line| !line.is_empty()) {
            self.bar.set_message(format!("{}: {line}", self.name));
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(area) = area().as_ref() {
            area.remove(&self.bar);
        }
    }
}

/// Sets the last line of the area, if there is one.
pub(super) fn outlook(text: String) {
    if let Some(Area { bars, outlook, .. }) = area().as_mut() {
        outlook.get_or_insert_with(|| bars.add(bar("{wide_msg}"))).set_message(text);
    }
}

/// Does something with the terminal left alone, for programs that write on it or ask there.
pub fn aside<T>(work: impl FnOnce() -> T) -> T {
    let bars = area().as_ref().map(|area| area.bars.clone());
    let Some(bars) = bars else { return work() };
    bars.suspend(|| {
        let done = work();
        // To the next line, unless the program has ended its last one: that many spaces fit into a
        // line if the cursor is at its beginning.
        let term = Term::stdout();
        let spaces = " ".repeat(usize::from(term.size().1).saturating_sub(1));
        write(&(Stream::Out, format!("{spaces}\r\x1b[K")));
        done
    })
}

/// The terminal as a progress bar needs it. Errors are dropped: the bars would panic at them.
#[derive(Debug)]
struct Screen(Term);

impl TermLike for Screen {
    fn width(&self) -> u16 {
        self.0.size().1
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    /// Everything before this is collected. Leaves the cursor where the echo of Ctrl-C moves it to
    /// no other line.
    fn flush(&self) -> io::Result<()> {
        let _ = self.0.write_str("\r").and_then(|()| self.0.flush());
        Ok(())
    }
}
