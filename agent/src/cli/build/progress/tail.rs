//! The last lines a step has written, and how they are shown when it fails.

use std::collections::VecDeque;

/// Bytes kept of one step's output, however few lines they are.
const MOST_BYTES: usize = 256 << 10;

/// Keeps the last lines, with the seconds since the step began.
#[derive(Debug)]
pub(super) struct Tail {
    lines: VecDeque<(f64, String)>,
    bytes: usize,
    most: usize,
}

impl Tail {
    /// One that keeps `most` lines.
    pub(super) fn new(most: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            most,
        }
    }

    pub(super) fn push(&mut self, seconds: f64, line: String) {
        self.bytes += line.len();
        self.lines.push_back((seconds, line));
        while self.lines.len() > self.most || self.bytes > MOST_BYTES {
            let Some((_, line)) = self.lines.pop_front() else { break };
            self.bytes -= line.len();
        }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.lines = VecDeque::new();
        self.bytes = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The last `count` lines.
    pub(super) fn last(&self, count: usize) -> impl Iterator<Item = &str> {
        let skipped = self.lines.len().saturating_sub(count);
        self.lines.iter().skip(skipped).map(|(_, line)| line.as_str())
    }

    /// What is shown of the step `name` once it has failed, in BuildKit's form. Of work that is no instruction's the error tells all.
    pub(super) fn of_failed(&self, name: &str) -> Vec<String> {
        if self.lines.is_empty() && name.starts_with("[internal]") {
            return Vec::new();
        }
        let mut shown = vec!["------".to_owned(), format!(" > {name}:")];
        let lines = self.lines.iter();
        shown.extend(lines.map(|(at, line)| format!("{} {line}", seconds(*at))));
        shown.push("------".to_owned());
        shown
    }
}

/// Seconds in BuildKit's precision: `0.312`, `12.31`, `123.1`.
pub(super) fn seconds(seconds: f64) -> String {
    let digits = match seconds {
        few if few < 10.0 => 3,
        some if some < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept() {
        let mut tail = Tail::new(3);
        for number in 0..5 {
            tail.push(f64::from(number) * 40.0, format!("line {number}"));
        }
        assert_eq!(tail.last(2).collect::<Vec<_>>(), ["line 3", "line 4"]);
        assert_eq!(
            tail.of_failed("[2/2] RUN false"),
            [
                "------",
                " > [2/2] RUN false:",
                "80.00 line 2",
                "120.0 line 3",
                "160.0 line 4",
                "------"
            ]
        );
        tail.push(0.5, "x".repeat(MOST_BYTES));
        assert_eq!(tail.len(), 1);
        tail.clear();
        assert_eq!(tail.of_failed("x"), ["------", " > x:", "------"]);
        assert_eq!(tail.of_failed("[internal] x"), [""; 0]);
    }
}
