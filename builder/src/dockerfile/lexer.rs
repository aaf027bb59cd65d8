//! Text to logical lines: comments, continuations and heredocs, with every character's place kept.

use super::check::Options;
use super::{DockerfileError, SourceText, Span, directives};
use std::sync::Arc;

/// Largest Dockerfile taken, in bytes. BuildKit has the same order of bound; a larger file is a mistake or an attack.
const MAX_BYTES: usize = 4 << 20;

/// Most bytes that are counted to find a place.
const MAX_PIECE: usize = 1024;

type Result<T> = std::result::Result<T, Box<DockerfileError>>;

/// Holds the logical lines of a Dockerfile and its escape character.
#[derive(Debug)]
pub struct Lexed {
    /// The instructions in order.
    pub lines: Vec<Line>,
    /// `\` or `` ` ``.
    pub escape: char,
    /// The `check` directive.
    pub check: Options,
}

/// Holds one logical line: an instruction with its continuations joined.
#[derive(Debug, Clone)]
pub struct Line {
    /// The joined text, without leading white space.
    pub text: String,
    /// Byte offsets in `text` at which physical lines, and parts of long ones, begin.
    pieces: Vec<Piece>,
    /// Heredocs that follow the line.
    pub heredocs: Vec<RawHeredoc>,
    /// Where it ends, and what stands above it.
    pub extent: Extent,
}

/// Tells where an instruction ends and what stands around it, for checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extent {
    /// Its last physical line, heredocs included.
    pub last_line: usize,
    /// The comments right above it, without `#`; an empty line ends them.
    pub comments: Vec<String>,
    /// Where its continuations end, when an empty line is among them.
    pub empty_continuation: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    offset: usize,
    line: usize,
    column: usize,
}

/// Holds one heredoc as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawHeredoc {
    /// The delimiter, without quotes.
    pub name: String,
    /// The body, each line with its line feed; leading tabs gone for `<<-`.
    pub content: String,
    /// The body as it was written.
    pub written: String,
    /// Whether variables in the body are expanded (delimiter not quoted).
    pub expand: bool,
    /// The file descriptor number before `<<`, as written.
    pub descriptor: String,
    /// Whether `<<-` was written.
    pub chomp: bool,
}

impl Extent {
    /// Takes note of a comment or an empty line. Only what stands above the instruction counts.
    fn pass_over(&mut self, trimmed: &str, above: bool) {
        match trimmed.strip_prefix('#') {
            Some(comment) if above => self.comments.push(comment.trim().to_owned()),
            None if above => self.comments.clear(),
            _ => {}
        }
    }
}

impl Line {
    /// Gives the place of `length` bytes at `offset` of the joined text.
    #[must_use]
    pub fn span(&self, offset: usize, length: usize) -> Span {
        let at = self.pieces.partition_point(|p| p.offset <= offset).saturating_sub(1);
        let Some(piece) = self.pieces.get(at) else {
            return Span {
                line: 1,
                column: 1,
                length: 1,
            };
        };
        let behind = self.pieces.partition_point(|p| p.line <= piece.line);
        let end = self.pieces.get(behind).map_or(self.text.len(), |p| p.offset);
        let before = self.text.get(piece.offset..offset).map_or(0, |s| s.chars().count());
        let stop = (offset + length).min(end).max(offset);
        let chars = self.text.get(offset..stop).map_or(1, |s| s.trim_end().chars().count());
        Span {
            line: piece.line,
            column: piece.column + before,
            length: chars.max(1),
        }
    }

    /// Divides long pieces, so that the place of a word is found without counting from the start of its line: a line may have very
    /// many words.
    fn divide(&mut self) {
        let mut divided = Vec::with_capacity(self.pieces.len());
        for (at, piece) in self.pieces.iter().enumerate() {
            divided.push(*piece);
            let end = self.pieces.get(at + 1).map_or(self.text.len(), |p| p.offset);
            let mut last = piece.offset;
            for (count, (offset, _)) in self
                .text
                .get(piece.offset..end)
                .unwrap_or("")
                .char_indices()
                .enumerate()
            {
                if piece.offset + offset >= last + MAX_PIECE {
                    last = piece.offset + offset;
                    divided.push(Piece {
                        offset: last,
                        line: piece.line,
                        column: piece.column + count,
                    });
                }
            }
        }
        self.pieces = divided;
    }

    /// Gives the place of the whole line, as far as its first physical line goes.
    #[must_use]
    pub fn whole(&self) -> Span {
        self.span(0, self.text.len())
    }
}

/// Cuts `source` into logical lines.
pub(super) fn lex(source: &Arc<SourceText>, frontend: Option<&str>) -> Result<Lexed> {
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    let start = Span {
        line: 1,
        column: 1,
        length: 1,
    };
    if text.len() > MAX_BYTES {
        return Err(Box::new(DockerfileError::new(
            source,
            start,
            "Dockerfile is larger than 4 MiB",
        )));
    }
    if let Some(at) = text.find('\0') {
        let span = Span {
            line: text[..at].matches('\n').count() + 1,
            ..start
        };
        let message = "Dockerfile holds a NUL byte; is it a text file?";
        return Err(Box::new(DockerfileError::new(source, span, message)));
    }
    let raw: Vec<&str> = text.split('\n').collect();
    let physical: Vec<&str> = raw.iter().map(|l| l.strip_suffix('\r').unwrap_or(l)).collect();
    let directives = directives::read(source, &physical, frontend)?;
    let mut reader = Reader {
        source,
        physical: &physical,
        raw: &raw,
        next: directives.lines,
        escape: directives.escape,
    };
    let mut lines = Vec::new();
    while let Some(line) = reader.logical_line()? {
        lines.push(line);
    }
    if lines.is_empty() {
        return Err(Box::new(
            DockerfileError::new(source, start, "the Dockerfile holds no instruction")
                .with_hint("begin with `FROM image` or `FROM scratch`"),
        ));
    }
    Ok(Lexed {
        lines,
        escape: directives.escape,
        check: directives.check,
    })
}

struct Reader<'a> {
    source: &'a Arc<SourceText>,
    physical: &'a [&'a str],
    /// The same with their carriage returns, which are content of a heredoc.
    raw: &'a [&'a str],
    next: usize,
    escape: char,
}

impl Reader<'_> {
    fn logical_line(&mut self) -> Result<Option<Line>> {
        let mut line = Line {
            text: String::new(),
            pieces: Vec::new(),
            heredocs: Vec::new(),
            extent: Extent::default(),
        };
        let mut empty = false;
        while let Some(raw) = self.physical.get(self.next) {
            let number = self.next + 1;
            self.next += 1;
            let trimmed = raw.trim_start();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                // What follows the last line feed is no line.
                empty |= trimmed.is_empty() && !line.pieces.is_empty() && number < self.physical.len();
                line.extent.pass_over(trimmed, line.pieces.is_empty());
                continue;
            }
            let begin = if line.pieces.is_empty() {
                raw.len() - trimmed.len()
            } else {
                0
            };
            let column = raw.get(..begin).map_or(0, |s| s.chars().count()) + 1;
            line.pieces.push(Piece {
                offset: line.text.len(),
                line: number,
                column,
            });
            let body = raw.get(begin..).unwrap_or("");
            if let Some(kept) = self.continued(body) {
                line.text.push_str(kept);
                continue;
            }
            line.text.push_str(body);
            break;
        }
        if line.pieces.is_empty() {
            return Ok(None);
        }
        line.text.truncate(line.text.trim_end().len());
        line.divide();
        line.extent.empty_continuation = empty.then_some(self.passed());
        self.heredocs(&mut line)?;
        line.extent.last_line = self.passed();
        Ok(Some(line))
    }

    /// The number of the last line that was read: what follows the last line feed is none.
    fn passed(&self) -> usize {
        let ends_with_feed = self.physical.last().is_some_and(|last| last.is_empty());
        self.next.min(self.physical.len() - usize::from(ends_with_feed))
    }

    /// Gives the line without its trailing escape when it is continued on the next one.
    fn continued<'b>(&self, body: &'b str) -> Option<&'b str> {
        let kept = body.trim_end_matches([' ', '\t']).strip_suffix(self.escape)?;
        (!kept.ends_with(self.escape)).then_some(kept)
    }

    fn heredocs(&mut self, line: &mut Line) -> Result<()> {
        for (offset, mut heredoc) in heredoc_words(&line.text, self.escape) {
            let mut closed = false;
            while let (Some(line), Some(raw)) = (self.physical.get(self.next), self.raw.get(self.next)) {
                self.next += 1;
                let tabs = raw.len() - raw.trim_start_matches('\t').len();
                let begin = if heredoc.chomp { tabs } else { 0 };
                if line.get(begin..) == Some(heredoc.name.as_str()) {
                    closed = true;
                    break;
                }
                heredoc.written.push_str(raw);
                heredoc.written.push('\n');
                heredoc.content.push_str(raw.get(begin..).unwrap_or_default());
                heredoc.content.push('\n');
            }
            if !closed {
                let message = format!("unterminated heredoc: no line holds just `{}`", heredoc.name);
                let span = line.span(offset, heredoc.name.len() + 2);
                return Err(Box::new(DockerfileError::new(self.source, span, message)));
            }
            line.heredocs.push(heredoc);
        }
        Ok(())
    }
}

/// Finds the heredoc words of an ADD, COPY or RUN line (also below ONBUILD), with their offsets.
fn heredoc_words(text: &str, escape: char) -> Vec<(usize, RawHeredoc)> {
    let mut words = split_words(text, escape);
    let mut keyword = words.first().map(|(_, w)| w.to_ascii_uppercase());
    if keyword.as_deref() == Some("ONBUILD") {
        words.remove(0);
        keyword = words.first().map(|(_, w)| w.to_ascii_uppercase());
    }
    if !matches!(keyword.as_deref(), Some("ADD" | "COPY" | "RUN")) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((offset, word)) = words.get(at) {
        at += 1;
        // `<< EOF`: the delimiter may stand as a word of its own.
        let bare = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let joined = if matches!(bare, "<<" | "<<-") {
            let Some((_, name)) = words.get(at) else { break };
            at += 1;
            format!("{word}{name}")
        } else {
            (*word).to_owned()
        };
        if let Some(heredoc) = heredoc_word(&joined) {
            found.push((*offset, heredoc));
        }
    }
    found
}

fn heredoc_word(word: &str) -> Option<RawHeredoc> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let descriptor = &word[..word.len() - rest.len()];
    let rest = rest.strip_prefix("<<")?;
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |r| (true, r));
    if rest.is_empty() || rest.contains('<') {
        return None;
    }
    let unquoted: String = rest.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect();
    if unquoted.is_empty() {
        return None;
    }
    let expand = unquoted == rest;
    Some(RawHeredoc {
        name: unquoted,
        content: String::new(),
        written: String::new(),
        expand,
        descriptor: descriptor.to_owned(),
        chomp,
    })
}

/// Splits at white space outside quotes; quotes and escapes stay in the words. Gives byte offsets.
#[must_use]
pub fn split_words(text: &str, escape: char) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut at = 0;
    while let Some((begin, word)) = text.get(at..).and_then(|rest| first_word(rest, escape)) {
        words.push((at + begin, word));
        at += begin + word.len();
    }
    words
}

/// Gives the first of these words, without a look at what follows it.
pub(super) fn first_word(text: &str, escape: char) -> Option<(usize, &str)> {
    let begin = text.len() - text.trim_start().len();
    let word = text.get(begin..)?;
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in word.char_indices() {
        if escaped {
            escaped = false;
        } else if c == escape && quote != Some('\'') {
            escaped = true;
        } else if let Some(q) = quote {
            if c == q {
                quote = None;
            }
        } else if matches!(c, '"' | '\'') {
            quote = Some(c);
        } else if c.is_whitespace() {
            return Some((begin, word.get(..at)?));
        }
    }
    (!word.is_empty()).then_some((begin, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lexed(text: &str) -> Lexed {
        lex(
            &Arc::new(SourceText {
                name: "Dockerfile".into(),
                text: text.into(),
            }),
            None,
        )
        .unwrap()
    }

    #[test]
    fn continuations_drop_comments_and_blank_lines() {
        let l = lexed("FROM a\nRUN one \\\n# no\n\n  two\\\n three\n");
        assert_eq!(l.lines[1].text, "RUN one   two three");
        assert_eq!(
            l.lines[1].span(10, 3),
            Span {
                line: 5,
                column: 3,
                length: 3
            }
        );
    }

    #[test]
    fn places_in_long_lines_are_right() {
        let long = "\u{e9}".repeat(3000);
        let l = lexed(&format!("FROM a\nRUN {long} \\\n {long} x\n"));
        let at = l.lines[1].text.find('x').unwrap();
        let place = |line, column, length| Span { line, column, length };
        assert_eq!(l.lines[1].span(at, 1), place(3, 3003, 1));
        assert_eq!(l.lines[1].span(4, 6000), place(2, 5, 3000));
        assert_eq!(l.lines[1].span(4 + 2 * 2000, 2), place(2, 2005, 1));
    }

    #[test]
    fn extents_tell_what_stands_around() {
        let l = lexed("# a\n\n# b\n#c\nFROM a\n# d\nRUN one \\\n\n  <<E\nx\nE\nRUN y \\\n");
        let extents: Vec<_> = l.lines.iter().map(|line| &line.extent).collect();
        assert_eq!(
            (extents[0].comments.as_slice(), extents[0].last_line),
            (&["b".to_owned(), "c".into()][..], 5)
        );
        assert_eq!(extents[1].comments, ["d"]);
        assert_eq!((extents[1].empty_continuation, extents[1].last_line), (Some(9), 11));
        assert_eq!(extents[2].empty_continuation, None);
        let at_the_end = lexed("FROM a \\\n\n\n");
        let extent = &at_the_end.lines[0].extent;
        assert_eq!((extent.empty_continuation, extent.last_line), (Some(3), 3));
    }

    #[test]
    fn escape_directive_and_double_escape() {
        let l = lexed("# escape=`\nFROM a\nRUN dir c:\\ `\n more\n");
        assert_eq!(l.escape, '`');
        assert_eq!(l.lines[1].text, "RUN dir c:\\  more");
        let l = lexed("FROM a\nRUN x\\\\\nRUN y");
        assert_eq!(l.lines.len(), 3);
    }

    #[test]
    fn heredocs_in_all_spellings() {
        let l = lexed("FROM a\nRUN <<EOF cat 3<<-'B'\nx $y\nEOF\n\tz\n\tB\nCOPY << E /f\nq\nE\n");
        let h = &l.lines[1].heredocs;
        assert_eq!((h[0].content.as_str(), h[0].expand), ("x $y\n", true));
        assert_eq!(
            (h[1].content.as_str(), h[1].expand, h[1].descriptor.as_str()),
            ("z\n", false, "3")
        );
        assert_eq!(l.lines[2].heredocs[0].content, "q\n");
    }

    #[test]
    fn faults_name_the_place() {
        for (text, want) in [
            ("", "no instruction"),
            ("# escape=x\nFROM a", "invalid escape"),
            ("# escape=\\\n# escape=\\\nFROM a", "only one"),
            ("# syntax=evil/frontend\nFROM a", "cannot honour"),
            ("FROM a\nRUN cat <<EOF\nx", "unterminated heredoc"),
        ] {
            let e = lex(
                &Arc::new(SourceText {
                    name: "D".into(),
                    text: text.into(),
                }),
                None,
            )
            .unwrap_err();
            assert!(e.to_string().contains(want), "{e}");
        }
    }
}
