//! Progress as lines, in BuildKit's plain form: `#5 [2/3] RUN npm ci`, `#5 0.312 output`, `#5 DONE 1.2s`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use roadstead_builder::progress::{Event, Sink, VertexId};

use super::tail::{Tail, seconds};
use super::text::printable;
use super::{Renderer, write_line};

/// Lines of a failed step's output that are shown again at the end, as many as BuildKit shows.
const LAST_LINES: usize = 10;

/// Writes a line for each event; a step's name again when another one's lines came between.
#[derive(Default)]
pub(super) struct Plain(Mutex<State>);

#[derive(Default)]
struct State {
    steps: BTreeMap<VertexId, Step>,
    /// The step whose lines are being written.
    current: Option<VertexId>,
    begun: bool,
}

struct Step {
    name: String,
    tail: Tail,
    failed: bool,
}

impl State {
    /// Gives the lines that an event makes.
    fn lines(&mut self, event: &Event) -> Vec<String> {
        match event {
            Event::Started { id, name } => {
                let step = Step {
                    name: printable(name),
                    tail: Tail::new(LAST_LINES),
                    failed: false,
                };
                self.steps.insert(*id, step);
                self.turn_to(*id)
            }
            Event::Log {
                id, line, seconds: at, ..
            } => {
                let line = printable(line);
                let text = format!("{} {line}", seconds(*at));
                if let Some(step) = self.steps.get_mut(id) {
                    step.tail.push(*at, line);
                }
                self.of_step(*id, &text)
            }
            Event::Note { id, text } => self.of_step(*id, &format!("{} done", printable(text))),
            Event::Cached { id } => self.end(*id, "CACHED"),
            Event::Done { id, seconds } => self.end(*id, &format!("DONE {seconds:.1}s")),
            Event::Failed { id, message } => {
                if let Some(step) = self.steps.get_mut(id) {
                    step.failed = true;
                }
                self.end(*id, &format!("ERROR: {}", printable(message)))
            }
            Event::Canceled { id } => self.end(*id, "CANCELED"),
            Event::Warning { message } => vec![format!("warning: {}", printable(message))],
        }
    }

    /// Begins or goes on with the lines of a step.
    fn turn_to(&mut self, id: VertexId) -> Vec<String> {
        let mut lines = Vec::new();
        if self.current == Some(id) {
            return lines;
        }
        if let Some(left) = self.current.replace(id) {
            lines.push(format!("#{left} ..."));
        }
        if std::mem::replace(&mut self.begun, true) {
            lines.push(String::new());
        }
        let name = self.steps.get(&id).map_or("", |step| step.name.as_str());
        lines.push(format!("#{id} {name}"));
        lines
    }

    fn of_step(&mut self, id: VertexId, text: &str) -> Vec<String> {
        let mut lines = self.turn_to(id);
        lines.push(format!("#{id} {text}"));
        lines
    }

    fn end(&mut self, id: VertexId, text: &str) -> Vec<String> {
        let lines = self.of_step(id, text);
        self.current = None;
        if self.steps.get(&id).is_some_and(|step| !step.failed) {
            self.steps.remove(&id);
        }
        lines
    }
}

impl Sink for Plain {
    fn event(&self, event: &Event) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.lines(event).iter().for_each(|line| write_line(line));
    }
}

impl Renderer for Plain {
    fn finish(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for step in std::mem::take(&mut state.steps)
            .into_values()
            .filter(|step| step.failed)
        {
            step.tail.of_failed(&step.name).iter().for_each(|line| write_line(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use roadstead_builder::progress::Stream;

    use super::*;

    #[test]
    fn the_lines_are_buildkits() {
        let name = |text: &str| text.to_owned();
        let log = |id, line: &str| Event::Log {
            id,
            stream: Stream::Output,
            line: line.to_owned(),
            seconds: 12.3456,
        };
        let mut state = State::default();
        let events = [
            Event::Started {
                id: 1,
                name: name("[1/2] RUN a\x1b[2J"),
            },
            log(1, "one"),
            Event::Started {
                id: 2,
                name: name("[2/2] RUN b"),
            },
            log(1, "two"),
            Event::Note {
                id: 1,
                text: name("exporting"),
            },
            Event::Done { id: 1, seconds: 1.26 },
            Event::Cached { id: 2 },
            Event::Started { id: 3, name: name("c") },
            Event::Canceled { id: 3 },
            Event::Started { id: 4, name: name("d") },
            log(4, "said"),
            Event::Failed {
                id: 4,
                message: name("no\n"),
            },
        ];
        let lines: Vec<String> = events.iter().flat_map(|event| state.lines(event)).collect();
        let want = "#1 [1/2] RUN a[2J\n#1 12.35 one\n#1 ...\n\n#2 [2/2] RUN b\n#2 ...\n\n#1 [1/2] RUN a[2J\n#1 12.35 two\n\
                    #1 exporting done\n#1 DONE 1.3s\n\n#2 [2/2] RUN b\n#2 CACHED\n\n#3 c\n#3 CANCELED\n\n#4 d\n#4 12.35 said\n#4 ERROR: no";
        assert_eq!(lines.join("\n"), want);
        assert_eq!(state.steps.keys().collect::<Vec<_>>(), [&4]);
    }
}
