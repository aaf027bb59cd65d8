//! The error a subcommand ends with: what failed, the chain of causes, and what to do about it.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// Decides the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A build or an operation failed: status 1.
    Failed,
    /// A bad buildspec, file or argument: status 2.
    Usage,
    /// A signal ended it: status 128 + the signal's number, as shells report it.
    Signal(u8),
}

impl Kind {
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Self::Failed => ExitCode::from(1),
            Self::Usage => ExitCode::from(2),
            Self::Signal(number) => ExitCode::from(128_u8.saturating_add(number)),
        }
    }
}

/// An error on its way to the user, printed once by `main`.
#[derive(Debug)]
pub(crate) struct CliError {
    /// Decides the exit status.
    pub(crate) kind: Kind,
    error: Box<dyn Error + Send + Sync>,
    hints: Vec<String>,
    /// The lines of a Dockerfile that a step of a build failed at.
    excerpt: Option<String>,
}

impl CliError {
    /// An operation that failed.
    pub(crate) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind: Kind::Failed,
            error: error.into(),
            hints: Vec::new(),
            excerpt: None,
        }
    }

    /// Input that can't be taken.
    pub(crate) fn usage(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind: Kind::Usage,
            error: error.into(),
            hints: Vec::new(),
            excerpt: None,
        }
    }

    /// Gives it another exit status.
    #[must_use]
    pub(crate) fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// An error of the registry client, with what it says can be done.
    pub(crate) fn registry(error: roadstead_registry_client::Error) -> Self {
        let hint = error.hint();
        let failed = Self::failed(error);
        match hint {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    }

    /// Makes it the error of a failed step, shown as docker shows it: the excerpt, then the message.
    #[must_use]
    pub(crate) fn below_excerpt(mut self, excerpt: impl fmt::Display) -> Self {
        self.excerpt = Some(excerpt.to_string());
        self
    }

    /// Adds what the user can do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = chain(&*self.error);
        match &self.excerpt {
            Some(excerpt) => write!(formatter, "{excerpt}\nERROR: failed to build: failed to solve: {error}")?,
            None => write!(formatter, "error: {error}")?,
        }
        for hint in &self.hints {
            write!(formatter, "\n\nhint: {hint}")?;
        }
        Ok(())
    }
}

/// An error and its causes on one line, a cause that its effect already quotes being left out.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

/// A file operation that failed, with the path it failed on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} `{}`", path.display())]
pub(crate) struct FileError {
    operation: &'static str,
    path: std::path::PathBuf,
    source: std::io::Error,
}

impl FileError {
    /// For `map_err`: names the operation and the path.
    pub(crate) fn at(operation: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            operation,
            path,
            source,
        }
    }
}
