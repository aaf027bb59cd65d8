//! `.dockerignore`: which files of the context do not exist for the build. Source: moby/patternmatcher.

use super::pattern::{Pattern, PatternError};
use crate::beneath::clean;
use std::path::Path;

/// Holds the rules of one `.dockerignore` in order; the last that matches wins.
#[derive(Debug, Default, Clone)]
pub struct Ignore {
    rules: Vec<Rule>,
    exceptions: bool,
    /// Whether one rule leaves out everything.
    everything: bool,
}

#[derive(Debug, Clone)]
struct Rule {
    exception: bool,
    pattern: Pattern,
}

/// Tells which line of `.dockerignore` is malformed.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the ignore file")]
pub struct IgnoreError {
    /// From 1.
    pub line: usize,
    #[source]
    source: PatternError,
}

impl Ignore {
    /// Parses the text of a `.dockerignore`.
    ///
    /// # Errors
    /// A malformed pattern.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let mut ignore = Self::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in text.lines().enumerate() {
            if !line.starts_with('#') {
                ignore.add(line, number + 1)?;
            }
        }
        Ok(ignore)
    }

    fn add(&mut self, line: &str, number: usize) -> Result<(), IgnoreError> {
        let line = line.trim();
        let (exception, body) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
        let cleaned = clean(Path::new(body));
        let Some(cleaned) = cleaned.to_str().filter(|c| !c.is_empty()) else {
            return Ok(());
        };
        let pattern = Pattern::for_ignore(cleaned).map_err(|source| IgnoreError { line: number, source })?;
        self.exceptions |= exception;
        self.everything |= !exception && matches!(cleaned, "*" | "**" | "**/*");
        self.rules.push(Rule { exception, pattern });
        Ok(())
    }

    /// Reads patterns of `--exclude`, each as a line of `.dockerignore` that cannot be a comment.
    ///
    /// # Errors
    /// A malformed pattern; its line is its number.
    pub fn patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, IgnoreError> {
        let mut ignore = Self::default();
        for (number, pattern) in patterns.into_iter().enumerate() {
            ignore.add(pattern, number + 1)?;
        }
        Ok(ignore)
    }

    /// Makes one rule of `pattern`, which has no `!`.
    pub(super) fn only(pattern: &str) -> Result<Self, PatternError> {
        let pattern = Pattern::for_ignore(pattern)?;
        Ok(Self {
            rules: vec![Rule {
                exception: false,
                pattern,
            }],
            exceptions: false,
            everything: false,
        })
    }

    /// Tells whether there is no rule at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Tells whether `path` (relative, slash-separated bytes) is left out: it or one of its parents matches.
    #[must_use]
    pub fn excludes(&self, path: &[u8]) -> bool {
        let mut out = false;
        for rule in &self.rules {
            if rule.exception == out && rule.matches_with_parents(path) {
                out = !rule.exception;
            }
        }
        out
    }

    /// Tells whether a source of COPY, in its shortest spelling, certainly names nothing that is left.
    ///
    /// With `!` lines nobody can tell without the files; the whole context is left out only by a rule for everything.
    #[must_use]
    pub fn excludes_source(&self, path: &str) -> bool {
        let whole = matches!(path, "." | "/");
        !self.exceptions && (!whole || self.everything) && self.excludes(path.as_bytes())
    }

    /// Tells whether something below an excluded directory may still be taken back in by a `!` line.
    #[must_use]
    pub fn has_exceptions(&self) -> bool {
        self.exceptions
    }
}

impl Rule {
    fn matches_with_parents(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        ends.chain([path.len()]).any(|end| self.pattern.matches(&path[..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_are_certainly_left_out() {
        let excludes = |rules: &str, path: &str| Ignore::parse(rules).unwrap().excludes_source(path);
        assert!(excludes("a/*\n", "a/b/c") && excludes("**", ".") && excludes("*\n", "x"));
        assert!(!excludes("", "a") && !excludes("a\n!a/b\n", "a") && !excludes(".*\n", ".") && !excludes("?*", "."));
    }

    #[test]
    fn follows_the_reference() {
        let ignore =
            Ignore::parse("# comment\n\n/node_modules/\n*.md\n!README.md\n**/*.log\ntemp?\n.\nlogs\n!logs/keep\n")
                .unwrap();
        for (path, out) in [
            ("node_modules", true),
            ("node_modules/a/b", true),
            ("x/node_modules", false),
            ("a.md", true),
            ("README.md", false),
            ("docs/a.md", false),
            ("a/b/c.log", true),
            ("tempa", true),
            ("logs/x", true),
            ("logs/keep", false),
            ("logs/keep/y", false),
            ("src", false),
        ] {
            assert_eq!(ignore.excludes(path.as_bytes()), out, "{path}");
        }
        assert!(Ignore::parse("a\n[").unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn last_match_wins() {
        let ignore = Ignore::parse("!a\n*\n!b").unwrap();
        assert!(ignore.excludes(b"a"));
        assert!(!ignore.excludes(b"b"));
    }
}
