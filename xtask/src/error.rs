//! The one error of the tasks: a text for the person at the terminal.

use std::fmt;
use std::path::Path;

/// Result of a step.
pub(crate) type Result<T> = std::result::Result<T, TaskError>;

/// Says what failed and why.
#[derive(Debug)]
pub(crate) struct TaskError(String);

impl TaskError {
    /// Makes an error of its text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Makes a function for `map_err` that says what was done to which file.
    pub(crate) fn at<E: fmt::Display>(operation: &str, path: &Path) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("cannot {operation} `{}`: {error}", path.display()))
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for TaskError {}
