//! How blobs are coming along: a bar for each on a terminal, plain lines elsewhere.

use std::collections::HashMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use roadstead_registry_client::{BlobEvent, Descriptor, Digest, NoProgress, Progress};

use crate::environment;

/// Values of `--progress`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ProgressKind {
    /// Bars on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    /// Plain lines.
    Plain,
    /// Bars.
    Tty,
    /// Nothing.
    Quiet,
}

/// Chooses the renderer. What machines read goes to standard output, so this goes to standard error.
pub(in crate::cli) fn renderer(kind: ProgressKind, quiet: bool) -> Box<dyn Progress> {
    match kind {
        _ if quiet => Box::new(NoProgress),
        ProgressKind::Quiet => Box::new(NoProgress),
        ProgressKind::Tty => Box::new(Bars::new()),
        ProgressKind::Auto if io::stderr().is_terminal() => Box::new(Bars::new()),
        ProgressKind::Auto | ProgressKind::Plain => Box::new(Lines::default()),
    }
}

fn short(digest: &Digest) -> &str {
    &digest.hex()[..12]
}

/// A bar for each blob that moves: digest, bytes, rate. One that is there already gets a line only.
struct Bars {
    all: MultiProgress,
    moving: ProgressStyle,
    ended: ProgressStyle,
    bars: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Bars {
    fn new() -> Self {
        let colour = std::env::var_os(environment::NO_COLOR).is_none_or(|value| value.is_empty());
        let bar = if colour { "{bar:28.cyan/blue}" } else { "{bar:28}" };
        let moving = format!("{{prefix}} {bar} {{bytes:>10}} / {{total_bytes:>10}} {{bytes_per_sec:>12}} {{msg}}");
        let style = |template: &str| {
            ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> ")
        };
        Self {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)),
            moving: style(&moving),
            ended: style("{prefix} {msg}"),
            bars: Mutex::default(),
        }
    }

    fn bar(&self, digest: &Digest, length: u64) -> ProgressBar {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(digest.clone()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(length).with_style(self.moving.clone()));
            bar.set_prefix(short(digest).to_owned());
            bar
        });
        bar.clone()
    }

    fn end(&self, digest: &Digest, message: String) {
        let bar = self.bar(digest, 0);
        bar.set_style(self.ended.clone());
        bar.finish_with_message(message);
    }
}

impl Progress for Bars {
    fn blob(&self, digest: &Digest, event: BlobEvent) {
        match event {
            BlobEvent::Exists => self.end(digest, "already there".to_owned()),
            BlobEvent::Mounted { from } => self.end(digest, format!("mounted from {}", from.name())),
            BlobEvent::Started { total } => {
                let bar = self.bar(digest, total);
                bar.set_length(total);
                bar.set_message("");
            }
            BlobEvent::Advanced { bytes } => self.bar(digest, 0).inc(bytes),
            BlobEvent::Done => {
                let total = self.bar(digest, 0).length().unwrap_or_default();
                self.end(digest, format!("done, {}", human(total)));
            }
            BlobEvent::Retrying { reason, from } => {
                let bar = self.bar(digest, 0);
                bar.set_position(from);
                bar.set_message(format!("again: {}", printable(&reason)));
            }
        }
    }
}

/// A line when a blob begins, one each some seconds while it moves, one at its end.
#[derive(Default)]
struct Lines {
    blobs: Mutex<HashMap<Digest, Moving>>,
}

struct Moving {
    total: u64,
    moved: u64,
    begun: Instant,
    told: Instant,
}

const TELL_EVERY: Duration = Duration::from_secs(5);

impl Lines {
    /// What is said of an event, if anything.
    fn line(&self, digest: &Digest, event: BlobEvent) -> Option<String> {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match event {
            BlobEvent::Exists => Some("already there".to_owned()),
            BlobEvent::Mounted { from } => Some(format!("mounted from {}", from.name())),
            BlobEvent::Started { total } => {
                let moving = Moving {
                    total,
                    moved: 0,
                    begun: now,
                    told: now,
                };
                blobs.insert(digest.clone(), moving);
                Some(format!("copying {}", human(total)))
            }
            BlobEvent::Advanced { bytes } => {
                let moving = blobs.get_mut(digest)?;
                moving.moved += bytes;
                if now.duration_since(moving.told) < TELL_EVERY {
                    return None;
                }
                moving.told = now;
                Some(format!("{} of {}", human(moving.moved), human(moving.total)))
            }
            BlobEvent::Done => {
                let took = blobs.remove(digest).map(|moving| now.duration_since(moving.begun));
                Some(format!("done in {:.1}s", took.unwrap_or_default().as_secs_f64()))
            }
            BlobEvent::Retrying { reason, from } => {
                if let Some(moving) = blobs.get_mut(digest) {
                    moving.moved = from;
                }
                Some(format!("again from {}: {}", human(from), printable(&reason)))
            }
        }
    }
}

impl Progress for Lines {
    fn blob(&self, digest: &Digest, event: BlobEvent) {
        if let Some(line) = self.line(digest, event) {
            // Nobody reads standard error any more: the copy itself goes on.
            drop(writeln!(io::stderr().lock(), "{}: {line}", short(digest)));
        }
    }

    fn plan(&self, blobs: &[Descriptor]) {
        let bytes = blobs.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.size));
        let count = blobs.len();
        drop(writeln!(io::stderr().lock(), "{count} blobs, {}", human(bytes)));
    }
}

/// What a registry says may hold anything.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A size for people, as docker prints it: powers of 1000, about four digits.
pub(in crate::cli) fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let digits = match size {
        _ if unit == 0 => 0,
        small if small < 10.0 => 2,
        middle if middle < 100.0 => 1,
        _ => 0,
    };
    format!("{size:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1500, "1.50 kB"),
            (82_600_000, "82.6 MB"),
            (4 << 30, "4.29 GB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn lines_tell_beginning_end_and_faults() {
        let lines = Lines::default();
        let digest = Digest::of(b"x");
        let say = |event| lines.line(&digest, event);
        assert_eq!(
            say(BlobEvent::Started { total: 2000 }).as_deref(),
            Some("copying 2.00 kB")
        );
        assert_eq!(say(BlobEvent::Advanced { bytes: 1000 }), None);
        let again = BlobEvent::Retrying {
            reason: "it\x1b[2J broke".to_owned(),
            from: 0,
        };
        assert_eq!(say(again).as_deref(), Some("again from 0 B: it?[2J broke"));
        assert!(say(BlobEvent::Done).unwrap().starts_with("done in "));
    }
}
