//! The live tree of a build: what is known of its steps, and the lines that show it. Nothing here touches a terminal.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roadstead_builder::progress::{Event, VertexId};

use super::tail::Tail;
use super::text::{columns, cut, shown};

/// Lines of output shown below a running step, as many as docker shows.
const OUTPUT_LINES: usize = 6;

/// Lines of a failed step's output that are shown at the end: on a terminal the rest is gone.
const LAST_LINES: usize = 200;

/// Columns below which no time is shown.
const MIN_COLUMNS: usize = 20;

/// A build's steps.
#[derive(Debug)]
pub(super) struct Tree {
    begun: Instant,
    steps: BTreeMap<VertexId, Step>,
    /// Lines that belong to no step, to be shown once, above the tree.
    above: Vec<String>,
}

#[derive(Debug)]
struct Step {
    name: String,
    begun: Instant,
    ended: Option<(Instant, End)>,
    notes: Vec<String>,
    tail: Tail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Cached,
    Failed,
    Canceled,
}

/// Room for the tree, and how it is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Canvas {
    pub(super) columns: usize,
    pub(super) rows: usize,
    pub(super) colour: bool,
}

/// One line of the tree.
struct Row {
    text: String,
    time: Option<Duration>,
    end: Option<End>,
}

impl Tree {
    /// A build that began at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            steps: BTreeMap::new(),
            above: Vec::new(),
        }
    }

    /// Takes what happened at `now`.
    pub(super) fn event(&mut self, event: &Event, now: Instant) {
        let (id, end) = match event {
            Event::Started { id, name } => {
                let step = Step {
                    name: shown(name),
                    begun: now,
                    ended: None,
                    notes: Vec::new(),
                    tail: Tail::new(LAST_LINES),
                };
                self.steps.insert(*id, step);
                return;
            }
            Event::Log { id, line, seconds, .. } => {
                if let Some(step) = self.steps.get_mut(id) {
                    step.tail.push(*seconds, shown(line));
                }
                return;
            }
            Event::Note { id, text } => {
                if let Some(step) = self.steps.get_mut(id) {
                    step.notes.push(shown(text));
                }
                return;
            }
            Event::Warning { message } => {
                self.tell(&format!("warning: {message}"));
                return;
            }
            Event::Cached { id } => (id, End::Cached),
            Event::Done { id, .. } => (id, End::Done),
            Event::Failed { id, .. } => (id, End::Failed),
            Event::Canceled { id } => (id, End::Canceled),
        };
        if let Some(step) = self.steps.get_mut(id) {
            step.ended = Some((now, end));
            if end != End::Failed {
                step.tail.clear();
            }
        }
    }

    /// Shows a line once, above the tree.
    pub(super) fn tell(&mut self, line: &str) {
        self.above.push(shown(line));
    }

    /// Takes the lines to be shown above the tree.
    pub(super) fn take_above(&mut self) -> Vec<String> {
        std::mem::take(&mut self.above)
    }

    /// Draws the tree as it stands at `now`: never more than fits above the cursor's row, no line wider than the canvas.
    pub(super) fn draw(&self, now: Instant, canvas: Canvas) -> Vec<String> {
        let room = canvas.rows.saturating_sub(2);
        let running = self.steps.values().filter(|step| step.ended.is_none()).count();
        let mut hidden = running.saturating_sub(room);
        let mut free = room.saturating_sub(running);
        let mut rows = Vec::new();
        for step in self.steps.values() {
            if step.ended.is_some() {
                rows.extend(step.rows(now));
            } else if hidden > 0 {
                hidden -= 1;
            } else {
                rows.extend(step.rows(now).take(1));
                let count = OUTPUT_LINES.min(free).min(step.tail.len());
                free -= count;
                rows.extend(step.tail.last(count).map(Row::of_output));
            }
        }
        let finished = rows.iter().filter(|row| row.end.is_some()).count();
        let mut gone = finished.saturating_sub(free);
        let mut lines = vec![self.header(now, canvas, "")];
        for row in rows {
            if row.end.is_some() && gone > 0 {
                gone -= 1;
                continue;
            }
            lines.push(row.line(canvas));
        }
        lines
    }

    /// Draws the tree for the last time: all steps, however many, and no output.
    pub(super) fn draw_whole(&self, now: Instant, canvas: Canvas) -> Vec<String> {
        let all = !self.steps.is_empty() && self.steps.values().all(|step| step.ended.is_some());
        let mut lines = vec![self.header(now, canvas, if all { " FINISHED" } else { "" })];
        let rows = self.steps.values().flat_map(|step| step.rows(now));
        lines.extend(rows.map(|row| row.line(canvas)));
        lines
    }

    /// What is shown of failed steps below the last tree.
    pub(super) fn failures(&self) -> Vec<String> {
        let failed = self
            .steps
            .values()
            .filter(|step| matches!(step.ended, Some((_, End::Failed))));
        failed.flat_map(|step| step.tail.of_failed(&step.name)).collect()
    }

    fn header(&self, now: Instant, canvas: Canvas, state: &str) -> String {
        let seconds = now.saturating_duration_since(self.begun).as_secs_f64();
        let ended = self.steps.values().filter(|step| step.ended.is_some()).count();
        let text = format!("[+] Building {seconds:.1}s ({ended}/{}){state}", self.steps.len());
        cut(&text, canvas.columns).to_owned()
    }
}

impl Step {
    /// Its line, and one for each note.
    fn rows(&self, now: Instant) -> impl Iterator<Item = Row> {
        let end = self.ended.map(|(_, end)| end);
        let word = match end {
            Some(End::Cached) => "CACHED ",
            Some(End::Failed) => "ERROR ",
            Some(End::Canceled) => "CANCELED ",
            Some(End::Done) | None => "",
        };
        let until = self.ended.map_or(now, |(at, _)| at);
        let own = Row {
            text: format!(" => {word}{}", self.name),
            time: Some(until.saturating_duration_since(self.begun)),
            end,
        };
        let notes = self.notes.iter().map(move |note| Row {
            text: format!(" => => {note}"),
            time: None,
            end,
        });
        std::iter::once(own).chain(notes)
    }
}

impl Row {
    fn of_output(line: &str) -> Self {
        Self {
            text: format!(" => => # {line}"),
            time: None,
            end: None,
        }
    }

    /// The row as a line of the terminal, its time at the right edge.
    fn line(&self, canvas: Canvas) -> String {
        let time = match self.time {
            Some(time) if canvas.columns >= MIN_COLUMNS => {
                // As docker: what took less is shown as nothing.
                let seconds = Some(time.as_secs_f64()).filter(|s| *s >= 0.05).unwrap_or(0.0);
                format!(" {seconds:.1}s")
            }
            _ => String::new(),
        };
        let left = canvas.columns.saturating_sub(time.len());
        let mut text = cut(&self.text, left).to_owned();
        if !time.is_empty() {
            text.push_str(&" ".repeat(left - columns(&text)));
            text.push_str(&time);
        }
        let code = match self.end {
            Some(End::Done | End::Cached) => "34",
            Some(End::Failed) => "31",
            Some(End::Canceled) => "33",
            None if self.time.is_none() => "2",
            None => return text,
        };
        if canvas.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text
        }
    }
}

#[cfg(test)]
mod tests;
