//! Warnings and notes of all crates, as plain lines on stderr.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Shows warnings of every crate, and what Roadstead's own have to say besides.
#[derive(Debug, Default)]
struct Notices {
    spans: AtomicU64,
}

static DETAILS: AtomicBool = AtomicBool::new(false);

/// Shows what Roadstead does in detail, too. Comes before anything is told, since what is not shown once stays hidden.
pub(crate) fn show_details() {
    DETAILS.store(true, Ordering::Relaxed);
}

/// Begins to show notices; for `main`, before any other thread exists.
pub(crate) fn show() {
    // Only one subscriber can be set, and only here is one set.
    drop(tracing::subscriber::set_global_default(Notices::default()));
}

/// Takes notices where lines on stderr would be out of place.
type Taker = Box<dyn Fn(&str) + Send>;

static TAKER: Mutex<Option<Taker>> = Mutex::new(None);

/// Gives notices to `taker` instead of writing them, or writes them again.
pub(crate) fn redirect(taker: Option<Taker>) {
    *TAKER.lock().unwrap_or_else(PoisonError::into_inner) = taker;
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        debug_assert!(written.is_ok(), "a string takes all");
    }
}

impl Subscriber for Notices {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level()
            <= if metadata.target().starts_with("roadstead") && DETAILS.load(Ordering::Relaxed) {
                Level::DEBUG
            } else if metadata.target().starts_with("roadstead") {
                Level::INFO
            } else {
                Level::WARN
            }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1))
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    #[expect(
        clippy::print_stderr,
        reason = "notices belong on stderr, and this is where all of them pass"
    )]
    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let level = match *event.metadata().level() {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            _ => "",
        };
        let text = format!("{level}{}{}", line.message, line.fields);
        match &*TAKER.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(taker) => taker(&text),
            None => eprintln!("{text}"),
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
