//! Parser directives: the `# key=value` lines at the very top of a Dockerfile.
//!
//! The language is built in, so `syntax` chooses nothing; it is read to refuse a file that is written in another language.

use super::check::Options;
use super::{DockerfileError, SourceText, Span};
use std::sync::Arc;

/// Newest version of the Dockerfile language that is built in: 1.x.
const NEWEST_MINOR: u32 = 26;

type Result<T> = std::result::Result<T, Box<DockerfileError>>;

/// Holds what the directives say.
#[derive(Debug)]
pub(super) struct Directives {
    /// `\` or `` ` ``.
    pub(super) escape: char,
    /// `check`.
    pub(super) check: Options,
    /// How many physical lines they take.
    pub(super) lines: usize,
}

/// Reads the directives. `frontend` is what `--build-arg BUILDKIT_SYNTAX` names in place of the file's `syntax`.
pub(super) fn read(source: &Arc<SourceText>, physical: &[&str], frontend: Option<&str>) -> Result<Directives> {
    let mut found = Directives {
        escape: '\\',
        check: Options::default(),
        lines: shebang(physical),
    };
    let mut seen: Vec<String> = Vec::new();
    while let Some((key, value)) = physical.get(found.lines).and_then(|line| directive(line, "#")) {
        let span = whole_line(physical, found.lines);
        let wrong = |message: String| Box::new(DockerfileError::new(source, span, message));
        if seen.contains(&key) {
            return Err(wrong(format!("only one `{key}` parser directive can be used")));
        }
        match key.as_str() {
            "escape" => found.escape = escape(value).map_err(wrong)?,
            "check" => found.check = Options::parse(first_word(value)).map_err(wrong)?,
            _ if frontend.is_none() => accept(source, span, value)?,
            _ => {}
        }
        seen.push(key);
        found.lines += 1;
    }
    if frontend.is_none() && !seen.iter().any(|key| key == "syntax") {
        other_forms(source, physical)?;
    }
    Ok(found)
}

/// Skips a first line that names an interpreter (since 1.5).
fn shebang(physical: &[&str]) -> usize {
    usize::from(physical.first().is_some_and(|line| line.starts_with("#!")))
}

/// Reads one directive line; `None` ends the directives.
fn directive<'a>(line: &'a str, comment: &str) -> Option<(String, &'a str)> {
    let (key, value) = line.strip_prefix(comment)?.split_once('=')?;
    let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
    let known = matches!(key.as_str(), "syntax" | "escape" | "check");
    (known && !value.is_empty()).then_some((key, value))
}

fn escape(value: &str) -> std::result::Result<char, String> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        _ => Err(format!("invalid escape `{value}`: it must be `\\` or a backtick")),
    }
}

/// Looks for `syntax` as frontends for other languages write it: behind `//`, or in a JSON document (since 1.5).
fn other_forms(source: &Arc<SourceText>, physical: &[&str]) -> Result<()> {
    let first = shebang(physical);
    let mut at = first;
    while let Some((key, value)) = physical.get(at).and_then(|line| directive(line, "//")) {
        if key == "syntax" {
            return accept(source, whole_line(physical, at), value);
        }
        at += 1;
    }
    if !physical
        .get(first)
        .is_some_and(|line| line.trim_start().starts_with('{'))
    {
        return Ok(());
    }
    let text = physical.get(first..).unwrap_or_default().join("\n");
    let Ok(serde_json::Value::Object(document)) = serde_json::from_str(&text) else {
        return Ok(());
    };
    match document.get("syntax") {
        Some(serde_json::Value::String(value)) => accept(source, whole_line(physical, first), value),
        _ => Ok(()),
    }
}

fn whole_line(physical: &[&str], at: usize) -> Span {
    Span {
        line: at + 1,
        column: 1,
        length: physical.get(at).map_or(1, |line| line.chars().count()),
    }
}

fn first_word(value: &str) -> &str {
    value.split(' ').next().unwrap_or(value)
}

fn accept(source: &Arc<SourceText>, span: Span, value: &str) -> Result<()> {
    check_frontend(value).map_err(|refused| {
        let error = DockerfileError::new(source, span, format!("cannot honour `syntax={value}`: {}", refused.why));
        Box::new(error.with_hint(refused.hint))
    })
}

/// Tells why a frontend is refused, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedFrontend {
    /// Why, lower case, no full stop.
    pub why: &'static str,
    /// What to do.
    pub hint: &'static str,
}

/// Tells whether a `syntax` value names a version of Docker's own Dockerfile frontend, whose language is built in.
///
/// # Errors
/// Another frontend, or a version this language is older than or that nobody can tell.
pub fn check_frontend(value: &str) -> std::result::Result<(), RefusedFrontend> {
    let name = first_word(value);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let (name, digest) = name.split_once('@').map_or((name, None), |(n, d)| (n, Some(d)));
    let (name, tag) = name.split_once(':').map_or((name, None), |(n, t)| (n, Some(t)));
    if !matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream") {
        return Err(RefusedFrontend {
            why: "frontends are not loaded",
            hint: "the Dockerfile language is built in; remove the line, or name docker/dockerfile:1",
        });
    }
    match (tag, digest) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(RefusedFrontend {
            why: "a digest alone does not tell the version of the language",
            hint: "name the tag as well: docker/dockerfile:1@sha256:…",
        }),
        (Some(tag), _) if known_tag(tag) => Ok(()),
        (Some(_), _) => Err(RefusedFrontend {
            why: "the built-in language is version 1.26",
            hint: "name docker/dockerfile:1, or a version from 1.0 to 1.26",
        }),
    }
}

/// Tells whether a tag is one of a language version up to the built-in one.
fn known_tag(tag: &str) -> bool {
    let channel = ["labs", "experimental"]
        .into_iter()
        .find_map(|name| tag.strip_suffix(name));
    let version = match channel {
        Some("") => return true,
        Some(version) => version.strip_suffix('-').unwrap_or("none"),
        None if tag == "latest" => return true,
        None => tag,
    };
    let numbers: Option<Vec<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([1]) => true,
        Some([1, minor] | [1, minor, _]) => *minor <= NEWEST_MINOR,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse_as;
    use super::*;

    #[test]
    fn frontends() {
        let digest = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
        for tag in [
            "1",
            "1.0",
            "1.26",
            "1.26.3",
            "latest",
            "1-labs",
            "1.7-labs",
            "labs",
            "1.1-experimental",
        ] {
            for name in ["docker/dockerfile", "docker.io/docker/dockerfile-upstream"] {
                check_frontend(&format!("{name}:{tag}")).unwrap();
                check_frontend(&format!("{name}:{tag}@{digest} # why")).unwrap();
            }
        }
        check_frontend("docker/dockerfile").unwrap();
        for refused in [
            "docker/dockerfile:1.27",
            "docker/dockerfile:2",
            "docker/dockerfile:1.",
            "docker/dockerfile:master",
            "docker/dockerfile:",
            "docker/dockerfile:1.2labs",
            "docker/dockerfile:1.2.3.4",
            "evil/dockerfile:1",
            "example.com/docker/dockerfile:1",
            "docker/dockerfile-x:1",
            &format!("docker/dockerfile@{digest}"),
        ] {
            check_frontend(refused).unwrap_err();
        }
    }

    fn told(text: &str, frontend: Option<&str>) -> String {
        match parse_as("D", text, frontend) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn all_forms_are_refused_with_their_place() {
        assert_eq!(
            told("# Syntax = a/b:1\nFROM a", None),
            "cannot honour `syntax=a/b:1`: frontends are not loaded\n --> D:1:1\n  |\n1 | # Syntax = a/b:1\n  | ^^^^^^^^^^^^^^^^"
        );
        for (text, want) in [
            ("#!/usr/bin/env x\n# escape=`\n# syntax=a/b\nFROM a", "D:3:1"),
            ("// escape=`\n// syntax=a/b\nFROM a", "D:2:1"),
            ("#!x\n{\n \"syntax\": \"a/b\"}", "D:2:1"),
            ("\u{feff}# syntax=docker/dockerfile:1.27\nFROM a", "version 1.26"),
            ("# CHECK=skip=all\n# check=skip=all\nFROM a", "only one `check`"),
            ("# check=what=1\nFROM a", "invalid check option"),
            ("// syntax=docker/dockerfile:1\nFROM a", "unknown instruction `//`"),
        ] {
            let error = told(text, None);
            assert!(error.contains(want), "{error}");
        }
        for text in [
            "# a comment ends the directives\n# syntax=a/b\nFROM a",
            "\n# syntax=a/b\nFROM a",
            "# other=x\n# syntax=a/b\nFROM a",
            "# syntax=docker/dockerfile:1\n# check=skip=all // why\n# ESCAPE=`\nFROM a",
        ] {
            assert_eq!(told(text, None), "");
        }
        assert_eq!(told("# syntax=a/b\nFROM a", Some("docker/dockerfile:1")), "");
    }
}
