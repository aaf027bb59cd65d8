//! Text of a build made fit for a terminal: it may not steer it, and may not wrap.

use unicode_width::UnicodeWidthChar as _;

/// Columns from one tab stop to the next.
const TAB: usize = 8;

/// Takes out control characters other than tabs, and escape sequences other than colour, so that a build's output cannot steer the
/// terminal.
pub(in crate::cli::build) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(length) = colour_sequence(rest) {
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        if !c.is_control() || c == '\t' {
            out.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Gives the length of a colour sequence (`ESC [ 1 ; 31 m`) at the beginning of the text.
fn colour_sequence(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\x1b[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && !matches!(c, ';' | ':'))?;
    parameters[end..].starts_with('m').then_some(2 + end + 1)
}

/// Gives what a terminal would show of a line at last: no escape sequence, nothing that a carriage return went back over, tabs as
/// spaces.
pub(super) fn shown(line: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    let mut back = false;
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if c == '\x1b' {
            rest = &rest[escape_sequence(rest)..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '\r' => back = true,
            _ if c.is_control() && c != '\t' => {}
            _ => {
                if std::mem::take(&mut back) {
                    out.clear();
                    column = 0;
                }
                let width = if c == '\t' { TAB - column % TAB } else { columns_of(c) };
                match c {
                    '\t' => out.extend(std::iter::repeat_n(' ', width)),
                    _ => out.push(c),
                }
                column += width;
            }
        }
    }
    out
}

/// Gives the length of the escape sequence at the beginning of the text, which is at least that of ESC.
fn escape_sequence(text: &str) -> usize {
    let all = text.len();
    let body = &text[1..];
    let end = |found: Option<usize>, from: usize| found.map_or(all, |at| from + at);
    match body.chars().next() {
        // CSI: up to a letter or the like.
        Some('[') => end(body[1..].find(|c| matches!(c, '@'..='~')).map(|at| at + 1), 2),
        // OSC, DCS and other strings: up to BEL or ST, which is ESC and a backslash. Another ESC ends them, too.
        Some(']' | 'P' | 'X' | '^' | '_') => match body.find(['\x07', '\x1b']) {
            Some(at) if body[at..].starts_with('\x07') => at + 2,
            Some(at) if body[at..].starts_with("\x1b\\") => at + 3,
            Some(at) => at + 1,
            None => all,
        },
        // Others: intermediates, then one character.
        Some(_) => {
            let last = body.find(|c| !matches!(c, ' '..='/'));
            end(
                last.map(|at| at + body[at..].chars().next().map_or(0, char::len_utf8)),
                1,
            )
        }
        None => all,
    }
}

/// Gives the columns that a character takes, rather one too many than one too few.
fn columns_of(c: char) -> usize {
    // A variation selector makes some characters wide that are narrow otherwise.
    if c == '\u{fe0f}' { 1 } else { c.width().unwrap_or(0) }
}

/// Gives the columns that a text takes.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Cuts a text to at most `most` columns.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut taken = 0;
    let end = text.char_indices().find(|(_, c)| {
        taken += columns_of(*c);
        taken > most
    });
    end.map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_colour_reaches_the_terminal() {
        for (text, want) in [
            ("plain\ttext \u{e9}", "plain\ttext \u{e9}"),
            ("\x1b[1;31mred\x1b[0m \x1b[m", "\x1b[1;31mred\x1b[0m \x1b[m"),
            ("\x1b[2Jgone\x1b[H", "[2Jgone[H"),
            ("\x1b]0;title\x07", "]0;title"),
            ("a\rb\x08c\u{9b}31m", "abc31m"),
            ("\x1b[31", "[31"),
            ("\x1b", ""),
        ] {
            assert_eq!(printable(text), want, "{text:?}");
        }
    }

    #[test]
    fn what_a_terminal_would_show_at_last() {
        for (line, want) in [
            ("plain \u{e9}", "plain \u{e9}"),
            ("\x1b[1;31mred\x1b[0m", "red"),
            ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b", "ab"),
            ("\x1b(B\x1b=\x1b7x\x1b", "x"),
            ("\x1b[2", ""),
            ("\x1b]never ends", ""),
            ("\x1b]1\x1b]2\x07a\x1bP\x1b[1mb", "ab"),
            (" 10%\r 20%\r", " 20%"),
            ("old and long\rnew", "new"),
            ("a\tb\u{9b}31m", "a       b31m"),
            ("\x1b\u{e9}x", "x"),
        ] {
            assert_eq!(shown(line), want, "{line:?}");
        }
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(columns("a\u{6f22}e\u{301}"), 4);
        assert_eq!(cut("a\u{6f22}\u{6f22}", 4), "a\u{6f22}");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 0), "");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_tamed(text in "(\\PC|[\x1b\r\t\x07\\[\\]0;m]){0,40}", most in 0_usize..20) {
            let shown = shown(&text);
            proptest::prop_assert!(!shown.chars().any(char::is_control));
            proptest::prop_assert!(columns(cut(&shown, most)) <= most);
        }
    }
}
