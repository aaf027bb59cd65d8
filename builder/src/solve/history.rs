//! What the history says of an instruction: BuildKit's texts, which people and programs read in `docker history`.

use std::fmt::Write as _;

/// Ends the text of an instruction that runs or copies.
pub(super) const MARK: &str = " # buildkit";

/// Words in brackets, as VOLUME, EXPOSE and SHELL show them.
pub(super) fn list(keyword: &str, words: &[String]) -> String {
    format!("{keyword} [{}]", words.join(" "))
}

/// Quoted words in brackets, as CMD and ENTRYPOINT show them.
pub(super) fn quoted(keyword: &str, words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("{keyword} [{}]", words.join(" "))
}

/// Names with their values; one without a value stands alone.
pub(super) fn pairs<'a>(keyword: &str, pairs: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let mut text = keyword.to_owned();
    for (name, value) in pairs {
        text.extend([" ", name]);
        text.extend(value.iter().flat_map(|value| ["=", value]));
    }
    text
}

/// A word in Go's quotes (`%q`).
fn quote(word: &str) -> String {
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\x07' => text.push_str("\\a"),
            '\x08' => text.push_str("\\b"),
            '\x0b' => text.push_str("\\v"),
            '\x0c' => text.push_str("\\f"),
            c if c.is_ascii_control() => drop(write!(text, "\\x{:02x}", u32::from(c))),
            c if c.is_control() => drop(write!(text, "\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_shown_as_go_does() {
        let words = ["/bin/sh".to_owned(), "-c".to_owned(), "say \"\u{e4}\"\n\x01".to_owned()];
        assert_eq!(
            quoted("CMD", &words),
            "CMD [\"/bin/sh\" \"-c\" \"say \\\"\u{e4}\\\"\\n\\x01\"]"
        );
        assert_eq!(list("VOLUME", &words[..2]), "VOLUME [/bin/sh -c]");
        assert_eq!(pairs("ARG", [("A", Some("1")), ("B", None)].into_iter()), "ARG A=1 B");
    }
}
