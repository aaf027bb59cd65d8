//! Variable expansion in the way of BuildKit's shell lexer: quotes, escapes and the `${…}` modifiers.

use std::fmt;

/// Gives the value of a variable, or `None` when it is unset.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Deepest nesting of `${a:-${b}}` taken. Deeper text is an attack on the stack, not a Dockerfile.
const MAX_DEPTH: usize = 32;

/// Tells why a word could not be expanded. The message needs the instruction's place to be of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordError(String);

impl fmt::Display for WordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WordError {}

type Result<T> = std::result::Result<T, WordError>;

/// Expands variables and removes quotes; the result is one word even where it holds spaces.
///
/// # Errors
/// Unterminated quotes or braces, unknown modifiers, and `${v:?message}` of an unset variable.
pub fn expand(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String> {
    let (words, _) = Expander::new(text, escape, lookup, Mode::Word).run()?;
    Ok(words.concat())
}

/// Expands a heredoc body: variables and escapes, but quotes are ordinary characters.
///
/// # Errors
/// As [`expand`].
pub fn expand_heredoc(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String> {
    let (words, _) = Expander::new(text, escape, lookup, Mode::Heredoc).run()?;
    Ok(words.concat())
}

/// Expands variables, removes quotes, and splits at unquoted white space, also such as a variable brought.
///
/// # Errors
/// As [`expand`].
pub fn expand_split(text: &str, escape: char, lookup: Lookup<'_>) -> Result<Vec<String>> {
    let (words, open) = Expander::new(text, escape, lookup, Mode::Split).run()?;
    let mut words = words;
    if !open {
        words.pop();
    }
    Ok(words)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Word,
    Split,
    Heredoc,
}

struct Expander<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    lookup: Lookup<'a>,
    mode: Mode,
    depth: usize,
    words: Vec<String>,
    /// Whether the last word has begun (it may be empty, as `""` is).
    open: bool,
    /// Whether the words read are a glob pattern, in which an escaped `*` or `?` stays escaped.
    pattern: bool,
}

impl<'a> Expander<'a> {
    fn new(text: &str, escape: char, lookup: Lookup<'a>, mode: Mode) -> Self {
        Self {
            chars: text.chars().collect(),
            at: 0,
            escape,
            lookup,
            mode,
            depth: 0,
            words: vec![String::new()],
            open: false,
            pattern: false,
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn push(&mut self, text: &str) {
        self.open = true;
        if let Some(word) = self.words.last_mut() {
            word.push_str(text);
        }
    }

    fn push_char(&mut self, c: char) {
        let mut buffer = [0; 4];
        self.push(c.encode_utf8(&mut buffer));
    }

    fn run(mut self) -> Result<(Vec<String>, bool)> {
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '\'' if self.mode != Mode::Heredoc => self.single_quoted()?,
                '"' if self.mode != Mode::Heredoc => self.double_quoted()?,
                '$' => {
                    let value = self.dollar()?;
                    self.push_value(&value);
                }
                c if c == self.escape => self.escaped(),
                c if self.mode == Mode::Split && c.is_whitespace() => self.end_word(),
                c => self.push_char(c),
            }
        }
        Ok((self.words, self.open))
    }

    fn escaped(&mut self) {
        let Some(next) = self.peek() else {
            return self.push_char(self.escape);
        };
        self.at += 1;
        self.push_char(next);
    }

    fn end_word(&mut self) {
        if self.open {
            self.words.push(String::new());
            self.open = false;
        }
    }

    fn push_value(&mut self, value: &str) {
        if self.mode != Mode::Split {
            return self.push(value);
        }
        for c in value.chars() {
            if c.is_whitespace() {
                self.end_word();
            } else {
                self.push_char(c);
            }
        }
    }

    fn single_quoted(&mut self) -> Result<()> {
        self.push("");
        while let Some(c) = self.peek() {
            self.at += 1;
            if c == '\'' {
                return Ok(());
            }
            self.push_char(c);
        }
        Err(WordError(
            "unexpected end of statement while looking for a matching single quote".into(),
        ))
    }

    fn double_quoted(&mut self) -> Result<()> {
        self.push("");
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '"' => return Ok(()),
                '$' => {
                    let value = self.dollar()?;
                    self.push(&value);
                }
                c if c == self.escape => match self.peek() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        self.at += 1;
                        self.push_char(next);
                    }
                    _ => self.push_char(c),
                },
                c => self.push_char(c),
            }
        }
        Err(WordError(
            "unexpected end of statement while looking for a matching double quote".into(),
        ))
    }

    /// Expands what follows a `$` that has been read.
    fn dollar(&mut self) -> Result<String> {
        match self.peek() {
            Some('{') => {
                self.at += 1;
                self.braced()
            }
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let name = self.name();
                Ok((self.lookup)(&name).unwrap_or_default())
            }
            Some(c) if c.is_ascii_digit() => {
                while self.peek().is_some_and(|c| c.is_ascii_digit()) {
                    self.at += 1;
                }
                Ok(String::new())
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.at += 1;
                Ok(String::new())
            }
            _ => Ok("$".into()),
        }
    }

    fn name(&mut self) -> String {
        let begin = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            self.at += 1;
        }
        self.chars[begin..self.at].iter().collect()
    }

    fn braced(&mut self) -> Result<String> {
        let name = match self.peek() {
            Some(c) if c.is_ascii_alphabetic() || c == '_' => self.name(),
            Some(c) if c.is_ascii_digit() || "@*#?-$!".contains(c) => {
                self.at += 1;
                while self.peek().is_some_and(|c| c.is_ascii_digit()) {
                    self.at += 1;
                }
                String::new()
            }
            Some('}') => return Err(WordError("bad substitution: `${}` names no variable".into())),
            _ => return Err(WordError("bad substitution: a variable name must follow `${`".into())),
        };
        let value = if name.is_empty() { None } else { (self.lookup)(&name) };
        let Some(c) = self.peek() else {
            return Err(WordError(format!("missing `}}` after `${{{name}`")));
        };
        self.at += 1;
        match c {
            '}' => Ok(value.unwrap_or_default()),
            ':' => {
                let Some(operator) = self.peek() else {
                    return Err(WordError(format!("missing `}}` after `${{{name}`")));
                };
                self.at += 1;
                let value = value.filter(|v| !v.is_empty());
                if !matches!(operator, '-' | '+' | '?') {
                    return Err(WordError(format!(
                        "unsupported modifier `:{operator}` in substitution of `{name}`"
                    )));
                }
                self.choose(&name, value, operator)
            }
            '-' | '+' | '?' => self.choose(&name, value, c),
            '#' | '%' => self.trim(&value.unwrap_or_default(), c),
            '/' => self.replace(&value.unwrap_or_default()),
            c => Err(WordError(format!(
                "unsupported modifier `{c}` in substitution of `{name}`"
            ))),
        }
    }

    fn choose(&mut self, name: &str, value: Option<String>, operator: char) -> Result<String> {
        let word = self.inner(&['}'])?;
        match (operator, value) {
            ('-', Some(value)) => Ok(value),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            (_, None) => {
                let why = if word.is_empty() {
                    "is not allowed to be unset".to_owned()
                } else {
                    word
                };
                Err(WordError(format!("{name}: {why}")))
            }
        }
    }

    fn trim(&mut self, value: &str, side: char) -> Result<String> {
        let greedy = self.peek() == Some(side);
        if greedy {
            self.at += 1;
        }
        self.pattern = true;
        let pattern = self.inner(&['}']);
        self.pattern = false;
        let pattern = Pattern::parse(&pattern?);
        let chars: Vec<char> = value.chars().collect();
        let mut lengths: Vec<usize> = (0..=chars.len()).collect();
        if greedy {
            lengths.reverse();
        }
        for length in lengths {
            let (part, rest) = if side == '#' {
                (&chars[..length], &chars[length..])
            } else {
                (&chars[chars.len() - length..], &chars[..chars.len() - length])
            };
            if pattern.matches(part) {
                return Ok(rest.iter().collect());
            }
        }
        Ok(value.to_owned())
    }

    fn replace(&mut self, value: &str) -> Result<String> {
        let all = self.peek() == Some('/');
        if all {
            self.at += 1;
        }
        self.pattern = true;
        let pattern = self.inner(&['/', '}']);
        self.pattern = false;
        let pattern = pattern?;
        if self.chars.get(self.at - 1) != Some(&'/') {
            let message = "missing `/` in a substitution: `${name/pattern/replacement}` has two";
            return Err(WordError(message.to_owned()));
        }
        let replacement = self.inner(&['}'])?;
        if pattern.is_empty() {
            return Ok(value.to_owned());
        }
        let pattern = Pattern::parse(&pattern);
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        let mut done = false;
        while at < chars.len() {
            let hit = if done {
                None
            } else {
                (at + 1..=chars.len())
                    .rev()
                    .find(|&end| pattern.matches(&chars[at..end]))
            };
            if let Some(end) = hit {
                out.push_str(&replacement);
                at = end;
                done = !all;
            } else {
                out.push(chars[at]);
                at += 1;
            }
        }
        Ok(out)
    }

    /// Reads and expands up to one of `ends`, which is consumed. Quotes and nested substitutions count.
    fn inner(&mut self, ends: &[char]) -> Result<String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(WordError("substitutions are nested too deeply".into()));
        }
        let outer = (std::mem::take(&mut self.words), self.open, self.mode);
        self.words = vec![String::new()];
        self.mode = Mode::Word;
        let ended = self.inner_until(ends);
        let word = std::mem::replace(&mut self.words, outer.0).concat();
        (self.open, self.mode) = (outer.1, outer.2);
        self.depth -= 1;
        if ended? {
            Ok(word)
        } else {
            Err(WordError("missing `}` in a substitution".into()))
        }
    }

    fn inner_until(&mut self, ends: &[char]) -> Result<bool> {
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                c if ends.contains(&c) => return Ok(true),
                '\'' => self.single_quoted()?,
                '"' => self.double_quoted()?,
                '$' => {
                    let value = self.dollar()?;
                    self.push(&value);
                }
                c if c == self.escape => {
                    // Kept before a glob character so that the pattern sees it as escaped.
                    if let Some(next) = self.peek() {
                        self.at += 1;
                        if self.pattern && matches!(next, '*' | '?' | '\\') {
                            self.push_char('\\');
                        }
                        self.push_char(next);
                    }
                }
                c => self.push_char(c),
            }
        }
        Ok(false)
    }
}

/// Matches `*` and `?` with `\` escapes; there are no bracket classes in Dockerfile patterns.
struct Pattern(Vec<PatternPart>);

#[derive(PartialEq)]
enum PatternPart {
    One(char),
    Any,
    Many,
}

impl Pattern {
    fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            parts.push(match c {
                '*' => PatternPart::Many,
                '?' => PatternPart::Any,
                '\\' => PatternPart::One(chars.next().unwrap_or('\\')),
                c => PatternPart::One(c),
            });
        }
        Self(parts)
    }

    /// Matches in time linear in both lengths multiplied, without recursion.
    fn matches(&self, text: &[char]) -> bool {
        let (mut p, mut t, mut back) = (0, 0, None);
        while t < text.len() {
            match self.0.get(p) {
                Some(PatternPart::Many) => {
                    back = Some((p, t));
                    p += 1;
                }
                Some(PatternPart::Any) => (p, t) = (p + 1, t + 1),
                Some(PatternPart::One(c)) if *c == text[t] => (p, t) = (p + 1, t + 1),
                _ => match back {
                    Some((star, from)) => {
                        back = Some((star, from + 1));
                        (p, t) = (star + 1, from + 1);
                    }
                    None => return false,
                },
            }
        }
        self.0[p..].iter().all(|part| *part == PatternPart::Many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "a" => Some("x y".into()),
            "e" => Some(String::new()),
            "p" => Some("/usr/lib/foo.tar.gz".into()),
            _ => None,
        }
    }

    #[test]
    fn expands_every_form() {
        for (text, want) in [
            ("$a-${a}", "x y-x y"),
            ("'$a'\"$a\"", "$ax y"),
            ("\\$a", "$a"),
            ("${u:-d}${u-d}${e:-d}${e-d}", "ddd"),
            ("${a:+s}${u:+s}${e:+s}${e+s}", "ss"),
            (
                "${p#*/}|${p##*/}|${p%.*}|${p%%.*}",
                "usr/lib/foo.tar.gz|foo.tar.gz|/usr/lib/foo.tar|/usr/lib/foo",
            ),
            ("${p/\\//-}|${p//\\//-}", "-usr/lib/foo.tar.gz|-usr-lib-foo.tar.gz"),
            ("${u:-${u:-\"q\"}}", "q"),
            ("$1$@$$x", "x"),
            ("a$", "a$"),
        ] {
            assert_eq!(expand(text, '\\', &lookup).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_the_language_refuses() {
        for text in [
            "${a:=b}", "${a:#b}", "${", "${}", "'a", "\"a", "${u:?m}", "${u?m}", "${a", "${a:-b",
        ] {
            assert!(expand(text, '\\', &lookup).is_err(), "{text}");
        }
        assert_eq!(expand("${u:?gone}", '\\', &lookup).unwrap_err().to_string(), "u: gone");
    }

    #[test]
    fn splits_words() {
        assert_eq!(
            expand_split("a \"b c\" $a '' d\\ e", '\\', &lookup).unwrap(),
            ["a", "b c", "x", "y", "", "d e"]
        );
        assert_eq!(expand_split("  ", '\\', &lookup).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn heredoc_keeps_quotes() {
        assert_eq!(
            expand_heredoc("'$a' \"\\$a\" \\n\n", '\\', &lookup).unwrap(),
            "'x y' \"$a\" n\n"
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,60}") {
            for result in [expand(&text, '\\', &lookup), expand_heredoc(&text, '`', &lookup)] {
                if let Err(e) = result {
                    prop_assert!(!e.to_string().is_empty());
                }
            }
        }

        #[test]
        fn plain_text_is_itself(text in "[a-zA-Z0-9 ./:-]{0,40}") {
            prop_assert_eq!(expand(&text, '\\', &lookup).unwrap(), text);
        }
    }
}
