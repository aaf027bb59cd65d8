//! The parts that instructions share: `--flag=value` words, JSON arrays and Go durations.

use super::lexer::Line;
use super::{DockerfileError, SourceText, Span};
use std::sync::Arc;

/// Holds one `--name=value` as written.
#[derive(Debug, Clone)]
pub(super) struct Flag {
    pub(super) name: String,
    pub(super) value: Option<String>,
    pub(super) span: Span,
}

/// Walks along one logical line, keeping offsets for error places.
pub(super) struct Cursor<'a> {
    pub(super) source: &'a Arc<SourceText>,
    pub(super) line: &'a Line,
    pub(super) escape: char,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(source: &'a Arc<SourceText>, line: &'a Line, escape: char) -> Self {
        Self {
            source,
            line,
            escape,
            at: 0,
        }
    }

    pub(super) fn rest(&self) -> &'a str {
        self.line.text.get(self.at..).unwrap_or("")
    }

    pub(super) fn rest_span(&self) -> Span {
        self.line.span(self.at, self.rest().len().max(1))
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// Takes the next run of characters without white space.
    pub(super) fn word(&mut self) -> Option<(&'a str, Span)> {
        self.skip_space();
        let rest = self.rest();
        let length = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let word = rest.get(..length).filter(|w| !w.is_empty())?;
        let span = self.line.span(self.at, length);
        self.at += length;
        self.skip_space();
        Some((word, span))
    }

    /// Takes the words of the rest with their places; quotes keep words together and stay in them.
    pub(super) fn words(&self) -> Vec<(String, Span)> {
        super::lexer::split_words(self.rest(), self.escape)
            .into_iter()
            .map(|(offset, word)| (word.to_owned(), self.line.span(self.at + offset, word.len())))
            .collect()
    }

    /// Takes the leading `--name[=value]` words. A bare `--` ends them.
    pub(super) fn flags(&mut self) -> Result<Vec<Flag>, Box<DockerfileError>> {
        let mut flags: Vec<Flag> = Vec::new();
        loop {
            self.skip_space();
            let Some((_, word)) = super::lexer::first_word(self.rest(), self.escape) else {
                break;
            };
            let Some(body) = word.strip_prefix("--") else { break };
            let span = self.line.span(self.at, word.len());
            self.at += word.len();
            if body.is_empty() {
                break;
            }
            let (name, value) = body
                .split_once('=')
                .map_or((body, None), |(n, v)| (n, Some(v.to_owned())));
            if name != "mount" && name != "exclude" && flags.iter().any(|f| f.name == name) {
                return Err(self.error(span, format!("flag `--{name}` is given twice")));
            }
            flags.push(Flag {
                name: name.to_owned(),
                value,
                span,
            });
        }
        self.skip_space();
        Ok(flags)
    }

    pub(super) fn error(&self, span: Span, message: impl Into<String>) -> Box<DockerfileError> {
        Box::new(DockerfileError::new(self.source, span, message))
    }

    /// Makes the error for a flag of the language that cannot be honoured here.
    pub(super) fn not_honoured(&self, flag: &Flag, why: &str) -> Box<DockerfileError> {
        let written = match &flag.value {
            Some(value) => format!("--{}={value}", flag.name),
            None => format!("--{}", flag.name),
        };
        Box::new(
            DockerfileError::new(self.source, flag.span, format!("cannot honour `{written}`: {why}"))
                .with_hint("roadstead refuses what it would not do exactly; remove the flag"),
        )
    }

    /// Makes the error for a flag the instruction does not have.
    pub(super) fn unknown_flag(&self, keyword: &str, flag: &Flag, known: &[&str]) -> Box<DockerfileError> {
        let near = super::instruction::near(&flag.name, known.iter().copied());
        self.error(flag.span, format!("unknown flag `--{}` for {keyword}{near}", flag.name))
    }

    /// Refuses every flag of an instruction that has none; a bare `--` is passed over.
    pub(super) fn no_flags(&mut self, keyword: &str) -> Result<(), Box<DockerfileError>> {
        match self.flags()?.first() {
            Some(flag) => Err(self.unknown_flag(keyword, flag, &[])),
            None => Ok(()),
        }
    }

    /// Gives a flag's value; an empty one counts as not given.
    pub(super) fn flag_text(&self, flag: &Flag) -> Result<Option<String>, Box<DockerfileError>> {
        match flag.value.as_deref() {
            Some("") => Ok(None),
            _ => self.flag_value(flag).map(Some),
        }
    }

    /// Reads the rest as a JSON array of strings; `None` when it is none, and the shell form is meant.
    pub(super) fn json(&self) -> Result<Option<Vec<String>>, Box<DockerfileError>> {
        let text = self.rest();
        if let Some(words) = json_array(text) {
            return Ok(Some(words));
        }
        let is_array = text.trim_start().starts_with('[')
            && serde_json::from_str::<serde_json::Value>(text.trim()).is_ok_and(|value| value.is_array());
        match is_array {
            true => Err(self.error(
                self.rest_span(),
                "when using JSON array syntax, arrays must be comprised of strings only",
            )),
            false => Ok(None),
        }
    }

    pub(super) fn flag_value(&self, flag: &Flag) -> Result<String, Box<DockerfileError>> {
        match &flag.value {
            Some(value) if !value.is_empty() => Ok(value.clone()),
            _ => Err(self.error(flag.span, format!("flag `--{}` needs a value", flag.name))),
        }
    }

    pub(super) fn flag_bool(&self, flag: &Flag) -> Result<bool, Box<DockerfileError>> {
        match flag.value.as_deref() {
            None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(true),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
            Some(other) => Err(self.error(
                flag.span,
                format!("`--{}` takes true or false, not `{other}`", flag.name),
            )),
        }
    }
}

/// Reads a JSON array of strings, or `None` when the text is not one (the shell form is meant then).
pub(super) fn json_array(text: &str) -> Option<Vec<String>> {
    if !text.trim_start().starts_with('[') {
        return None;
    }
    serde_json::from_str::<Vec<String>>(text.trim()).ok()
}

/// Reads a Go duration such as `1m30s` or `500ms`, in nanoseconds.
pub(super) fn duration_ns(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let unit_length = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let scale = match rest.get(..unit_length)? {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * scale;
        rest = rest.get(unit_length..)?;
    }
    // 292 years: what Go's int64 of nanoseconds holds.
    if !(0.0..9.2e18).contains(&total) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "bounded just above")]
    Some(total.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("1m30s", Some(90_000_000_000)),
            ("0.5s", Some(500_000_000)),
            ("500ms", Some(500_000_000)),
            ("0", Some(0)),
            ("5", None),
            ("", None),
            ("1x", None),
            ("99999999h", None),
        ] {
            assert_eq!(duration_ns(text), want, "{text}");
        }
    }

    #[test]
    fn json_or_shell() {
        assert_eq!(json_array(r#" ["a", "b\n"] "#), Some(vec!["a".into(), "b\n".into()]));
        assert_eq!(json_array("[a, b]"), None);
        assert_eq!(json_array("[ -f x ] && y"), None);
        assert_eq!(json_array("['a']"), None);
    }
}
