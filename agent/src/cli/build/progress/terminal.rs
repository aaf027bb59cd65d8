//! Draws the tree on the terminal, ten times a second.
//!
//! Each picture is one write that takes the place of the last. It hides the cursor at its beginning and shows it at its end, so that a
//! build leaves the terminal as it was, however it ends.

use std::io::{self, Write as _};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use roadstead_builder::progress::{Event, Sink};

use super::text::columns;
use super::tree::{Canvas, Tree};
use super::{Renderer, write_line};
use crate::notices;

/// Time between two pictures.
const PAUSE: Duration = Duration::from_millis(100);

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
/// Lines that a terminal finds wider than this program does are cut by it: a wrapped one would shift all that follows.
const WRAP_OFF: &str = "\x1b[?7l";
const WRAP_ON: &str = "\x1b[?7h";
/// Erases the line the cursor is in.
const ERASE_LINE: &str = "\x1b[2K";
/// Erases all from the cursor on.
const ERASE_BELOW: &str = "\x1b[J";

/// A tree on the terminal of standard error, drawn by a thread of its own.
pub(super) struct Terminal {
    shared: Arc<Shared>,
    drawing: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    tree: Mutex<Tree>,
    colour: bool,
    finished: Mutex<bool>,
    wake: Condvar,
}

impl Terminal {
    /// Begins to draw.
    pub(super) fn start(colour: bool) -> Arc<Self> {
        let shared = Arc::new(Shared {
            tree: Mutex::new(Tree::new(Instant::now())),
            colour,
            finished: Mutex::new(false),
            wake: Condvar::new(),
        });
        let tree: Weak<Shared> = Arc::downgrade(&shared);
        // A line written past the tree would spoil it.
        notices::redirect(Some(Box::new(move |line| {
            if let Some(shared) = tree.upgrade() {
                shared.tree().tell(line);
            }
        })));
        let drawn = Arc::clone(&shared);
        let drawing = std::thread::spawn(move || drawn.draw());
        Arc::new(Self {
            shared,
            drawing: Mutex::new(Some(drawing)),
        })
    }
}

impl Sink for Terminal {
    fn event(&self, event: &Event) {
        self.shared.tree().event(event, Instant::now());
    }
}

impl Renderer for Terminal {
    fn finish(&self) {
        *self.shared.finished.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        let drawing = self.drawing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(drawing) = drawing {
            // One that panicked has said so.
            drop(drawing.join());
            notices::redirect(None);
            // What came after the last picture.
            self.shared.tree().take_above().iter().for_each(|line| write_line(line));
        }
    }
}

impl Shared {
    fn tree(&self) -> std::sync::MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self) {
        let mut screen = Screen::default();
        while !self.pause() {
            let canvas = self.canvas();
            let (above, lines) = {
                let mut tree = self.tree();
                (tree.take_above(), tree.draw(Instant::now(), canvas))
            };
            screen.show(&above, lines, canvas.columns + 1);
        }
        let canvas = self.canvas();
        let mut tree = self.tree();
        let lines = tree.draw_whole(Instant::now(), canvas);
        screen.show(&tree.take_above(), lines, canvas.columns + 1);
        tree.failures().iter().for_each(|line| write_line(line));
    }

    /// Waits until the next picture is due; tells whether it is the last one.
    fn pause(&self) -> bool {
        let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(finished, PAUSE, |finished| !*finished);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Asks the terminal for its size, each time anew: it may have been resized.
    fn canvas(&self) -> Canvas {
        let size = rustix::termios::tcgetwinsize(io::stderr()).ok();
        let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()));
        Canvas {
            // A cursor behind the last column is where terminals differ.
            columns: columns - 1,
            rows,
            colour: self.colour,
        }
    }
}

/// What stands on the terminal now.
#[derive(Default)]
struct Screen {
    lines: Vec<String>,
}

impl Screen {
    /// Replaces what stands there.
    fn show(&mut self, above: &[String], lines: Vec<String>, width: usize) {
        if above.is_empty() && lines == self.lines {
            return;
        }
        let picture = picture(&self.lines, above, &lines, width);
        let mut out = io::stderr().lock();
        // Nobody reads standard error any more: the build itself goes on.
        drop(out.write_all(picture.as_bytes()).and_then(|()| out.flush()));
        self.lines = lines;
    }
}

/// The bytes that put `above` and `lines` in the place of `old`, the cursor being below it.
fn picture(old: &[String], above: &[String], lines: &[String], width: usize) -> String {
    // A terminal that has become narrower has wrapped the old lines.
    let rows: usize = old
        .iter()
        .map(|line| plain_columns(line).max(1).div_ceil(width.max(1)))
        .sum();
    let mut text = HIDE_CURSOR.to_owned();
    if rows > 0 {
        text.push_str(&format!("\x1b[{rows}A"));
    }
    text.push('\r');
    if !above.is_empty() {
        text.push_str(ERASE_BELOW);
    }
    for line in above {
        text.push_str(&format!("{line}\n"));
    }
    text.push_str(WRAP_OFF);
    for line in lines {
        text.push_str(&format!("{ERASE_LINE}{line}\n"));
    }
    for last in [ERASE_BELOW, WRAP_ON, SHOW_CURSOR] {
        text.push_str(last);
    }
    text
}

/// Columns of a line of the tree, whose only escape sequences are colours around the whole.
fn plain_columns(line: &str) -> usize {
    match line.strip_prefix("\x1b[").and_then(|rest| rest.split_once('m')) {
        Some((_, rest)) => columns(rest.trim_end_matches("\x1b[0m")),
        None => columns(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_takes_the_place_of_the_last() {
        let lines = |texts: &[&str]| -> Vec<String> { texts.iter().map(|text| (*text).to_owned()).collect() };
        assert_eq!(
            picture(&[], &[], &lines(&["a"]), 10),
            "\x1b[?25l\r\x1b[?7l\x1b[2Ka\n\x1b[J\x1b[?7h\x1b[?25h"
        );
        let old = lines(&["12345", "\x1b[34m123456\x1b[0m", ""]);
        let first = |width| picture(&old, &lines(&["w"]), &lines(&["b"]), width);
        assert!(first(6).starts_with("\x1b[?25l\x1b[3A\r\x1b[Jw\n\x1b[?7l\x1b[2Kb\n\x1b[J"));
        assert!(first(5).contains("\x1b[4A\r"));
        assert!(first(1).contains("\x1b[12A\r"));
        assert!(first(0).contains("\x1b[12A\r"));
    }
}
