//! Progress as lines on standard error, in BuildKit's plain form, or as JSON documents.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use roadstead_builder::progress::{Event, Sink, VertexId};

use super::flags::ProgressKind;
use crate::environment;

/// Chooses the renderer.
pub(super) fn sink(kind: ProgressKind, quiet: bool) -> Arc<dyn Sink> {
    let colour_wanted = std::env::var_os(environment::NO_COLOR).is_none_or(|v| v.is_empty());
    let terminal = io::stderr().is_terminal();
    match kind {
        _ if quiet => Arc::new(Silent),
        ProgressKind::Quiet => Arc::new(Silent),
        ProgressKind::Rawjson => Arc::new(RawJson),
        ProgressKind::Plain => Arc::new(Plain::new(false)),
        ProgressKind::Tty => Arc::new(Plain::new(colour_wanted)),
        ProgressKind::Auto => Arc::new(Plain::new(terminal && colour_wanted)),
    }
}

/// Shows warnings only.
struct Silent;

impl Sink for Silent {
    fn event(&self, event: &Event) {
        if let Event::Warning { message } = event {
            write_line(&format!("warning: {message}"));
        }
    }
}

/// One JSON document a line.
struct RawJson;

impl Sink for RawJson {
    fn event(&self, event: &Event) {
        if let Ok(text) = serde_json::to_string(event) {
            write_line(&text);
        }
    }
}

/// `#5 [2/3] RUN npm ci`, `#5 0.312 output`, `#5 DONE 1.2s`; a step's name again when another one's lines came between.
struct Plain {
    colour: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    names: HashMap<VertexId, String>,
    last: VertexId,
}

impl Plain {
    fn new(colour: bool) -> Self {
        Self {
            colour,
            state: Mutex::new(State::default()),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn line(&self, state: &mut State, id: VertexId, text: &str) {
        if state.last != id {
            if state.last != 0 {
                write_line("");
            }
            if let Some(name) = state.names.get(&id) {
                write_line(&format!("#{id} {}", self.paint("36", name)));
            }
            state.last = id;
        }
        write_line(&format!("#{id} {text}"));
    }
}

impl Sink for Plain {
    fn event(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { id, name } => {
                state.names.insert(*id, printable(name));
                if state.last != 0 {
                    write_line("");
                }
                write_line(&format!("#{id} {}", self.paint("36", &printable(name))));
                state.last = *id;
            }
            Event::Log { id, line, seconds } => {
                self.line(&mut state, *id, &format!("{seconds:.3} {}", printable(line)));
            }
            Event::Cached { id } => self.line(&mut state, *id, &self.paint("34", "CACHED")),
            Event::Done { id, seconds } => {
                self.line(&mut state, *id, &self.paint("32", &format!("DONE {seconds:.1}s")));
            }
            Event::Failed { id, message } => self.line(
                &mut state,
                *id,
                &self.paint("31", &format!("ERROR: {}", printable(message))),
            ),
            Event::Canceled { id } => self.line(&mut state, *id, "CANCELED"),
            Event::Warning { message } => {
                write_line(&format!("{}: {}", self.paint("33", "warning"), printable(message)));
            }
        }
    }
}

/// Takes out control characters other than tabs, and escape sequences other than colour, so that a build's output cannot steer the
/// terminal.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(length) = colour_sequence(rest) {
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        if !c.is_control() || c == '\t' {
            out.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Gives the length of a colour sequence (`ESC [ 1 ; 31 m`) at the beginning of the text.
fn colour_sequence(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && !matches!(c, ';' | ':'))?;
    parameters[end..].starts_with('m').then_some(2 + end + 1)
}

fn write_line(text: &str) {
    // Nobody reads standard error any more: the build itself goes on.
    drop(writeln!(io::stderr().lock(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_colour_reaches_the_terminal() {
        for (text, want) in [
            ("plain\ttext \u{e9}", "plain\ttext \u{e9}"),
            ("\x1b[1;31mred\x1b[0m \x1b[m", "\x1b[1;31mred\x1b[0m \x1b[m"),
            ("\x1b[2Jgone\x1b[H", "[2Jgone[H"),
            ("\x1b]0;title\x07", "]0;title"),
            ("a\rb\x08c\u{9b}31m", "abc31m"),
            ("\x1b[31", "[31"),
            ("\x1b", ""),
        ] {
            assert_eq!(printable(text), want, "{text:?}");
        }
    }
}
