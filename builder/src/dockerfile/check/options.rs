//! `# check=skip=a,b|all;error=bool;experimental=a,b|all`: which rules count, and whether a finding fails the build.

use super::rules::Rule;

/// Holds what `check` says; nothing by default. A rule name that does not exist means nothing, as with BuildKit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    skip: Selection,
    experimental: Selection,
    error: bool,
}

/// Names some rules or all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Selection {
    all: bool,
    names: Vec<String>,
}

impl Selection {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        Self {
            all: text == "all",
            names: text.split(',').map(|name| name.trim().to_owned()).collect(),
        }
    }

    fn holds(&self, rule: Rule) -> bool {
        self.all || self.names.iter().any(|name| name == rule.name())
    }
}

impl Options {
    /// Parses the value of the directive, of a comment above an instruction, or of the build argument `BUILDKIT_DOCKERFILE_CHECK`.
    ///
    /// # Errors
    /// Says which option is none, or has no such value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(options);
        }
        for part in text.split(';') {
            let invalid = || {
                format!(
                    "invalid check option `{}`: it takes skip, error and experimental",
                    part.trim()
                )
            };
            let (key, value) = part.split_once('=').ok_or_else(invalid)?;
            match key.trim() {
                "skip" => options.skip = Selection::parse(value),
                "experimental" => options.experimental = Selection::parse(value),
                "error" => options.error = boolean(value.trim())?,
                _ => return Err(invalid()),
            }
        }
        Ok(options)
    }

    /// Tells whether a finding fails the build.
    #[must_use]
    pub fn findings_are_errors(&self) -> bool {
        self.error
    }

    /// Tells whether a rule counts here. `experimental` is asked for by name and so beats `skip`.
    #[must_use]
    pub fn wants(&self, rule: Rule) -> bool {
        if rule.is_experimental() {
            self.experimental.holds(rule)
        } else {
            !self.skip.holds(rule)
        }
    }

    /// Tells the same below comments of which the first `check=skip=…` speaks for one instruction (since 1.21).
    pub(super) fn wants_below(&self, rule: Rule, comments: &[String]) -> bool {
        let own = comments.iter().find_map(|comment| directive(comment));
        // One that cannot be read changes nothing.
        let own = own.and_then(|text| Self::parse(text).ok()).unwrap_or_default();
        if rule.is_experimental() {
            self.wants(rule) || own.wants(rule)
        } else {
            self.wants(rule) && own.wants(rule)
        }
    }
}

/// Reads `check=…` out of a comment; what follows a space is a remark.
pub(super) fn directive(comment: &str) -> Option<&str> {
    let (key, value) = comment.split_once('=')?;
    let value = value.trim();
    let named = key.trim().eq_ignore_ascii_case("check") && !value.is_empty();
    named.then(|| value.split(' ').next().unwrap_or(value))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("check option `error` takes true or false, not `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let options = Options::parse(" skip = StageNameCasing, UndefinedVar ; error=true").unwrap();
        assert!(options.findings_are_errors());
        let wanted = |options: &Options| Rule::ALL.into_iter().filter(|rule| options.wants(*rule)).count();
        assert_eq!(wanted(&options), 19);
        assert_eq!(wanted(&Options::default()), 21);
        assert_eq!(wanted(&Options::parse("skip=all;experimental=all").unwrap()), 1);
        assert_eq!(
            wanted(&Options::parse("experimental=InvalidDefinitionDescription").unwrap()),
            22
        );
        for text in ["skip", "skip=a;what=b", "error=perhaps", ";"] {
            Options::parse(text).unwrap_err();
        }
    }

    #[test]
    fn comments_speak_for_one_instruction() {
        let options = Options::parse("skip=UndefinedVar").unwrap();
        let below = |rule, comment: &str| options.wants_below(rule, &["first".to_owned(), comment.to_owned()]);
        assert!(!below(Rule::StageNameCasing, "check=skip=StageNameCasing // why"));
        assert!(!below(Rule::StageNameCasing, "Check = skip=all"));
        assert!(below(Rule::StageNameCasing, "check=skip=FromAsCasing"));
        assert!(below(Rule::StageNameCasing, "check=nonsense"));
        assert!(below(Rule::InvalidDefinitionDescription, "check=experimental=all"));
        assert!(!below(Rule::UndefinedVar, "check=error=true"));
    }
}
