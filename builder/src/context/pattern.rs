//! Two kinds of patterns: Go's `filepath.Match` for COPY sources, and moby/patternmatcher's for `.dockerignore`.

/// Tells what is wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern `{0}`")]
pub struct PatternError(pub String);

/// Holds a parsed pattern. Matching takes time in proportion to both lengths multiplied at most.
#[derive(Debug, Clone)]
pub struct Pattern(Vec<Token>);

#[derive(Debug, Clone)]
enum Token {
    Literal(u8),
    /// One byte of a name.
    Any,
    /// Any part of one name.
    Star,
    /// `**` at the end: everything.
    All,
    /// `**/`: any number of directories.
    Dirs,
    Class {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

impl Pattern {
    /// Parses a COPY source as Go's `filepath.Match` reads it.
    ///
    /// # Errors
    /// Malformed brackets or a trailing backslash.
    pub fn for_copy(text: &str) -> Result<Self, PatternError> {
        Self::parse(text, false)
    }

    /// Parses one line of `.dockerignore`, cleaned already; `**` is known.
    ///
    /// # Errors
    /// Malformed brackets or a trailing backslash.
    pub fn for_ignore(text: &str) -> Result<Self, PatternError> {
        Self::parse(text, true)
    }

    /// Tells whether text has any character of the pattern language.
    #[must_use]
    pub fn is_pattern(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\'])
    }

    fn parse(text: &str, double_star: bool) -> Result<Self, PatternError> {
        let bytes = text.as_bytes();
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'*' if double_star && bytes.get(at) == Some(&b'*') => {
                    at += 1;
                    if bytes.get(at) == Some(&b'/') {
                        at += 1;
                    }
                    tokens.push(if at == bytes.len() { Token::All } else { Token::Dirs });
                }
                b'*' => tokens.push(Token::Star),
                b'?' => tokens.push(Token::Any),
                b'[' => {
                    let (class, next) = class(bytes, at).ok_or_else(|| PatternError(text.to_owned()))?;
                    tokens.push(class);
                    at = next;
                }
                b'\\' => {
                    let literal = bytes.get(at).ok_or_else(|| PatternError(text.to_owned()))?;
                    tokens.push(Token::Literal(*literal));
                    at += 1;
                }
                byte => tokens.push(Token::Literal(byte)),
            }
        }
        Ok(Self(tokens))
    }

    /// Tells whether the whole of `text` matches.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        // reach[i]: the tokens so far can match text[..i].
        let mut reach = vec![false; text.len() + 1];
        reach[0] = true;
        for token in &self.0 {
            let mut next = vec![false; text.len() + 1];
            for (at, _) in reach.iter().enumerate().filter(|(_, reached)| **reached) {
                token.extend(text, at, &mut next);
            }
            reach = next;
        }
        reach[text.len()]
    }
}

impl Token {
    fn extend(&self, text: &[u8], at: usize, next: &mut [bool]) {
        let byte = text.get(at).copied();
        match self {
            Self::Literal(literal) => {
                if byte == Some(*literal) {
                    next[at + 1] = true;
                }
            }
            Self::Any => {
                if byte.is_some_and(|b| b != b'/') {
                    next[at + 1] = true;
                }
            }
            Self::Class { negated, ranges } => {
                let inside = |b: u8| ranges.iter().any(|(low, high)| (*low..=*high).contains(&b));
                if byte.is_some_and(|b| b != b'/' && inside(b) != *negated) {
                    next[at + 1] = true;
                }
            }
            Self::Star => {
                let end = text[at..]
                    .iter()
                    .position(|b| *b == b'/')
                    .map_or(text.len(), |n| at + n);
                next[at..=end].fill(true);
            }
            Self::All => next[at..].fill(true),
            Self::Dirs => {
                next[at] = true;
                for end in at + 1..=text.len() {
                    if text[end - 1] == b'/' {
                        next[end] = true;
                    }
                }
            }
        }
    }
}

/// Reads a bracket class whose `[` has been read; gives it and the place after its `]`.
fn class(bytes: &[u8], mut at: usize) -> Option<(Token, usize)> {
    let negated = bytes.get(at) == Some(&b'^');
    if negated {
        at += 1;
    }
    let mut ranges = Vec::new();
    loop {
        if bytes.get(at) == Some(&b']') && !ranges.is_empty() {
            return Some((Token::Class { negated, ranges }, at + 1));
        }
        let (low, after) = class_byte(bytes, at)?;
        at = after;
        let mut high = low;
        if bytes.get(at) == Some(&b'-') {
            (high, at) = class_byte(bytes, at + 1)?;
        }
        ranges.push((low, high));
    }
}

fn class_byte(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    match *bytes.get(at)? {
        b'-' | b']' => None,
        b'\\' => Some((*bytes.get(at + 1)?, at + 2)),
        byte => Some((byte, at + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn copy_patterns() {
        for (pattern, text, want) in [
            ("*.js", "a.js", true),
            ("*.js", "d/a.js", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("**", "a/b", false),
            ("a[\\]]b", "a]b", true),
        ] {
            assert_eq!(
                Pattern::for_copy(pattern).unwrap().matches(text.as_bytes()),
                want,
                "{pattern} {text}"
            );
        }
        for bad in ["[", "[]", "[a", "a\\", "[-]", "[a-]"] {
            assert!(Pattern::for_copy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ignore_patterns() {
        for (pattern, text, want) in [
            ("**/a", "a", true),
            ("**/a", "x/y/a", true),
            ("**/a", "xa", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("**", "x/y", true),
            ("*/temp*", "a/temporary", true),
            ("*/temp*", "a/b/temp", false),
        ] {
            assert_eq!(
                Pattern::for_ignore(pattern).unwrap().matches(text.as_bytes()),
                want,
                "{pattern} {text}"
            );
        }
    }

    proptest! {
        #[test]
        fn never_panics(pattern in "[a-c*?\\[\\]^/\\\\-]{0,12}", text in "[a-c/]{0,12}") {
            if let Ok(pattern) = Pattern::for_ignore(&pattern) {
                // The same answer twice: matching has no state.
                prop_assert_eq!(pattern.matches(text.as_bytes()), pattern.matches(text.as_bytes()));
            }
        }

        #[test]
        fn literals_match_themselves_only(a in "[a-c/]{0,6}", b in "[a-c/]{0,6}") {
            prop_assert_eq!(Pattern::for_copy(&a).unwrap().matches(b.as_bytes()), a == b);
        }
    }
}
