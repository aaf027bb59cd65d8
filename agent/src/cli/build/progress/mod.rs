//! What a build shows while it works, on standard error: a live tree on a terminal, lines elsewhere, or JSON for machines.

mod plain;
mod raw_json;
mod tail;
mod terminal;
mod text;
mod tree;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;

use roadstead_builder::progress::{Event, Sink};

pub(super) use text::printable;

use super::flags::ProgressKind;
use crate::environment;
use crate::error::CliError;

/// Takes the events of a build and shows them.
pub(super) trait Renderer: Sink {
    /// Shows what is left to show. Nothing of the build may come afterwards; errors are printed after this.
    fn finish(&self) {}
}

/// Chooses the renderer.
pub(super) fn renderer(kind: ProgressKind, quiet: bool) -> Result<Arc<dyn Renderer>, CliError> {
    let terminal = io::stderr().is_terminal();
    Ok(match kind {
        _ if quiet => Arc::new(Silent),
        ProgressKind::Quiet => Arc::new(Silent),
        ProgressKind::Rawjson => raw_json::RawJson::start(),
        ProgressKind::Tty if !terminal => {
            return Err(
                CliError::usage("cannot honour `--progress=tty`: standard error is no terminal")
                    .hint("use `--progress=plain`"),
            );
        }
        ProgressKind::Tty => terminal::Terminal::start(colour_wanted()),
        ProgressKind::Auto if terminal && !is_dumb() => terminal::Terminal::start(colour_wanted()),
        ProgressKind::Auto | ProgressKind::Plain => Arc::new(plain::Plain::default()),
    })
}

fn colour_wanted() -> bool {
    std::env::var_os(environment::NO_COLOR).is_none_or(|value| value.is_empty())
}

/// Whether the terminal cannot move its cursor.
fn is_dumb() -> bool {
    std::env::var_os(environment::TERM).is_none_or(|name| name.is_empty() || name == "dumb")
}

/// Shows warnings only.
struct Silent;

impl Sink for Silent {
    fn event(&self, event: &Event) {
        if let Event::Warning { message } = event {
            write_line(&format!("warning: {}", text::printable(message)));
        }
    }
}

impl Renderer for Silent {}

fn write_line(text: &str) {
    // Nobody reads standard error any more: the build itself goes on.
    drop(writeln!(io::stderr().lock(), "{text}"));
}
