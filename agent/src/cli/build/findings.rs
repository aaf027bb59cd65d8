//! The findings of a check as text and as JSON, in buildx's form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roadstead_builder::dockerfile::SourceText;
use roadstead_builder::dockerfile::check::Finding;
use roadstead_builder::dockerfile::outline::Lines;
use serde::Serialize;

use super::progress::printable;

const RULER: &str = "--------------------";

/// Writes the findings, each with its page, its message and its lines.
pub(super) fn text(findings: &[Finding], source: &SourceText) -> String {
    let mut out = match findings.len() {
        0 => return "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        many => format!("Check complete, {many} warnings have been found!\n"),
    };
    let lines: Vec<&str> = source.text.split('\n').collect();
    for finding in findings {
        let (rule, message) = (finding.rule, printable(&finding.message));
        out.push_str(&format!("\nWARNING: {} - {}\n{message}\n", rule.name(), rule.url()));
        out.push_str(&format!("{}:{}\n", file_name(source), finding.span.line));
        excerpt(&mut out, &lines, finding.span.line, finding.last_line);
    }
    out
}

/// Writes the lines with those around them: two on each side of a single line, one of several.
fn excerpt(out: &mut String, lines: &[&str], first: usize, last: usize) {
    let around = if first == last { 2 } else { 1 };
    let begin = first.saturating_sub(around).max(1);
    let end = (last + around).min(lines.len());
    out.push_str(&format!("{RULER}\n"));
    for number in begin..=end {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let line = lines.get(number - 1).copied().unwrap_or_default();
        out.push_str(&format!(" {number:>3} | {mark} {}\n", printable(line)));
    }
    out.push_str(&format!("{RULER}\n"));
}

/// The Dockerfile as the user would name it.
fn file_name(source: &SourceText) -> String {
    printable(source.name.strip_prefix("./").unwrap_or(&source.name))
}

#[derive(Serialize)]
struct Results<'a> {
    warnings: Vec<Warning<'a>>,
    sources: [SourceFile; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Warning<'a> {
    rule_name: &'static str,
    description: &'static str,
    url: String,
    detail: &'a str,
    location: Location,
}

/// A place in the file: a range a line.
#[derive(Serialize)]
pub(super) struct Location {
    ranges: Vec<Range>,
}

#[derive(Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: usize,
}

#[derive(Serialize)]
struct SourceFile {
    filename: String,
    language: &'static str,
    data: String,
}

impl Location {
    pub(super) fn of(lines: Lines) -> Self {
        let range = |line| Range {
            start: Position { line },
            end: Position { line },
        };
        Self {
            ranges: (lines.first..=lines.last).map(range).collect(),
        }
    }
}

/// Writes the findings as buildx's `--call=check,format=json` does.
pub(super) fn json(findings: &[Finding], source: &SourceText) -> String {
    let warnings = findings.iter().map(|finding| Warning {
        rule_name: finding.rule.name(),
        description: finding.rule.description(),
        url: finding.rule.url(),
        detail: &finding.message,
        location: Location::of(Lines {
            first: finding.span.line,
            last: finding.last_line,
        }),
    });
    document(&Results {
        warnings: warnings.collect(),
        sources: [SourceFile {
            filename: file_name(source),
            language: "Dockerfile",
            data: encoded(source),
        }],
    })
}

/// The text of the file, as JSON documents carry it.
pub(super) fn encoded(source: &SourceText) -> String {
    STANDARD.encode(&source.text)
}

/// Writes a document with the line feed that ends it.
pub(super) fn document(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("it holds strings and numbers under field names");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_have_lines_around() {
        let lines = ["1", "2\x1b[2J", "3\r", "4", ""];
        let of = |first, last| {
            let mut out = String::new();
            excerpt(&mut out, &lines, first, last);
            out
        };
        assert_eq!(
            of(2, 2),
            format!("{RULER}\n   1 |     1\n   2 | >>> 2[2J\n   3 |     3\n   4 |     4\n{RULER}\n")
        );
        assert_eq!(
            of(3, 4),
            format!("{RULER}\n   2 |     2[2J\n   3 | >>> 3\n   4 | >>> 4\n   5 |     \n{RULER}\n")
        );
    }
}
