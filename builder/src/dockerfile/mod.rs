//! The Dockerfile language: text to typed instructions with spans.
//!
//! `directives` reads the top of the file, `lexer` cuts the rest into logical lines, `instruction` gives each its type, `stages` groups
//! them, `words` expands variables. `check` finds what is legal and unwise; `outline` lists what a build can be given.
//! Nothing here touches the file system or the network.

pub mod check;
pub mod csv;
pub mod directives;
mod excerpt;
pub mod instruction;
mod instruction_flags;
pub mod lexer;
pub mod mount;
mod needs;
pub mod outline;
mod scope;
pub mod stages;
mod transfer;
pub mod words;

pub use excerpt::Excerpt;
pub use instruction::{Command, CopySource, Heredoc, Instruction, Kind};
pub use stages::{Dockerfile, Stage};

use std::fmt;
use std::sync::Arc;

/// Names and holds the text of one Dockerfile, for errors that show the line.
#[derive(Debug)]
pub struct SourceText {
    /// What the user calls the file.
    pub name: String,
    /// Its whole text.
    pub text: String,
}

/// Marks a stretch of one physical line: line and column count from 1, columns and length in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Length in characters; at least 1 is drawn.
    pub length: usize,
}

/// Tells what is wrong in a Dockerfile and where. Displays file, line and a caret below the words meant.
#[derive(Debug, Clone)]
pub struct DockerfileError {
    /// What is wrong, lower case, no full stop.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What to do about it.
    pub hint: Option<String>,
    source: Arc<SourceText>,
}

impl DockerfileError {
    /// Makes an error at `span` of `source`.
    #[must_use]
    pub fn new(source: &Arc<SourceText>, span: Span, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            span,
            hint: None,
            source: Arc::clone(source),
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for DockerfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span { line, column, length } = self.span;
        let number = line.to_string();
        let pad = " ".repeat(number.len());
        writeln!(f, "{}", self.message)?;
        writeln!(f, "{pad}--> {}:{line}:{column}", self.source.name)?;
        let text = self.source.text.lines().nth(line.saturating_sub(1)).unwrap_or("");
        let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let room = shown.chars().count().saturating_sub(column.saturating_sub(1)).max(1);
        writeln!(f, "{pad} |")?;
        writeln!(f, "{number} | {shown}")?;
        write!(
            f,
            "{pad} | {}{}",
            " ".repeat(column.saturating_sub(1)),
            "^".repeat(length.clamp(1, room))
        )
    }
}

impl std::error::Error for DockerfileError {}

/// Parses a whole Dockerfile.
///
/// `name` is used in messages only. Source: Dockerfile reference, frontend 1.26.
///
/// # Errors
/// Any text outside the language, and any instruction or flag that cannot be honoured yet.
pub fn parse(name: &str, text: &str) -> Result<Dockerfile, Box<DockerfileError>> {
    parse_as(name, text, None)
}

/// Parses a whole Dockerfile whose `syntax` directive is overruled, as `--build-arg BUILDKIT_SYNTAX` does.
///
/// `frontend` has been accepted by [`directives::check_frontend`].
///
/// # Errors
/// As [`parse`].
pub fn parse_as(name: &str, text: &str, frontend: Option<&str>) -> Result<Dockerfile, Box<DockerfileError>> {
    let source = Arc::new(SourceText {
        name: name.to_owned(),
        text: text.to_owned(),
    });
    let lexed = lexer::lex(&source, frontend)?;
    let mut instructions = Vec::with_capacity(lexed.lines.len());
    for line in &lexed.lines {
        instructions.push(instruction::parse(&source, line, lexed.escape)?);
    }
    stages::group(&source, instructions, lexed.escape, lexed.check)
}

/// Parses a trigger that a base image keeps (ONBUILD); it stands at `span`, where the image is named.
///
/// # Errors
/// What is wrong with it, as a message without a place: the image's text is not the user's.
pub fn parse_trigger(text: &str, span: Span) -> Result<Instruction, String> {
    let source = Arc::new(SourceText {
        name: "ONBUILD".to_owned(),
        text: text.to_owned(),
    });
    let wrong = |message: &str| format!("the base image's trigger `ONBUILD {}`: {message}", text.escape_debug());
    let lexed = lexer::lex(&source, None).map_err(|error| wrong(&error.message))?;
    let [line] = lexed.lines.as_slice() else {
        return Err(wrong("it is not one instruction"));
    };
    let instruction = instruction::parse(&source, line, lexed.escape).map_err(|error| wrong(&error.message))?;
    match instruction.kind {
        Kind::From { .. } | Kind::Onbuild(_) | Kind::Maintainer(_) => Err(wrong("it isn't allowed as a trigger")),
        _ => Ok(instruction.moved_to(span)),
    }
}
