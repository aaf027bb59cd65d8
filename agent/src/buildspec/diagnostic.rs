//! An error in a buildspec, shown with file, line and caret.

use std::fmt;

use super::yaml::Mark;

/// Characters of a source line that are shown; a longer line says nothing more.
const MAX_SHOWN: usize = 160;

/// What is wrong with a buildspec, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// What is wrong, as CodeBuild would put it in the phase context where it has words for it.
    pub(crate) message: String,
    file: String,
    place: Option<(Mark, String)>,
}

impl Diagnostic {
    /// For an error that has no place in the text, such as a missing file.
    pub(crate) fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            file: file.to_owned(),
            place: None,
        }
    }

    /// For an error at a place in `text`.
    pub(crate) fn at(file: &str, text: &str, mark: Mark, message: impl Into<String>) -> Self {
        let line = mark
            .line
            .checked_sub(1)
            .and_then(|index| text.lines().nth(index))
            .unwrap_or_default();
        let shown = line
            .chars()
            .take(MAX_SHOWN)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        Self {
            message: message.into(),
            file: file.to_owned(),
            place: Some((mark, shown)),
        }
    }
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.message)?;
        let Some((mark, line)) = &self.place else {
            return write!(formatter, "\n --> {}", self.file);
        };
        let number = mark.line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(mark.column.saturating_sub(1).min(MAX_SHOWN));
        let underlined: usize = line
            .chars()
            .skip(mark.column.saturating_sub(1))
            .collect::<String>()
            .trim_end()
            .chars()
            .count()
            .max(1);
        writeln!(formatter, "\n{margin}--> {}:{}:{}", self.file, mark.line, mark.column)?;
        writeln!(formatter, "{margin} |")?;
        writeln!(formatter, "{number} | {line}")?;
        write!(formatter, "{margin} | {indent}{}", "^".repeat(underlined))
    }
}
