//! Targets and outlines as tables and as JSON, in buildx's form.

use roadstead_builder::dockerfile::SourceText;
use roadstead_builder::dockerfile::outline::{Outline, Target};
use serde::Serialize;

use super::findings::{Location, document, encoded};
use super::progress::printable;

const DEFAULT: &str = "(default)";

/// Writes the targets with what their comments say.
pub(super) fn targets(targets: &[Target]) -> String {
    let mut rows = vec![vec!["TARGET".to_owned(), "DESCRIPTION".to_owned()]];
    for target in targets {
        let name = match (&target.name, target.is_default) {
            (Some(name), true) => format!("{name} {DEFAULT}"),
            (None, true) => DEFAULT.to_owned(),
            (name, false) => name.clone().unwrap_or_default(),
        };
        rows.push(vec![name, target.description.clone()]);
    }
    table(&rows, 1)
}

/// Writes what a target takes.
pub(super) fn outline(outline: &Outline) -> String {
    let mut out = String::new();
    if outline.name.is_some() || !outline.description.is_empty() {
        let name = outline.name.as_deref().unwrap_or(DEFAULT);
        let mut rows = vec![vec!["TARGET:".to_owned(), name.to_owned()]];
        if !outline.description.is_empty() {
            rows.push(vec!["DESCRIPTION:".to_owned(), outline.description.clone()]);
        }
        out = table(&rows, 1) + "\n";
    }
    if !outline.args.is_empty() {
        let mut rows = vec![["BUILD ARG", "VALUE", "DESCRIPTION"].map(str::to_owned).to_vec()];
        let args = outline.args.iter();
        rows.extend(args.map(|arg| vec![arg.name.clone(), arg.value.clone(), arg.description.clone()]));
        out.push_str(&format!("{}\n", table(&rows, 3)));
    }
    if !outline.secrets.is_empty() {
        let mut rows = vec![["SECRET", "REQUIRED"].map(str::to_owned).to_vec()];
        for secret in &outline.secrets {
            let required = if secret.required { "true" } else { "" };
            rows.push(vec![secret.name.clone(), required.to_owned()]);
        }
        out.push_str(&format!("{}\n", table(&rows, 3)));
    }
    out
}

/// Lays out rows in columns that are `gap` spaces apart.
fn table(rows: &[Vec<String>], gap: usize) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| printable(cell).chars().count()).max().unwrap_or(0) + gap
    };
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(&format!("{:<width$}", printable(cell), width = width(column)));
        }
        out.push_str(&format!("{}\n", line.trim_end()));
    }
    out
}

#[derive(Serialize)]
struct TargetList<'a> {
    targets: Vec<TargetEntry<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct TargetEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    location: Location,
}

/// Writes the targets as buildx's `--call=targets,format=json` does.
pub(super) fn targets_json(targets: &[Target], source: &SourceText) -> String {
    let entries = targets.iter().map(|target| TargetEntry {
        name: target.name.as_deref(),
        default: target.is_default,
        description: &target.description,
        base: &target.base,
        platform: target.platform.as_deref(),
        location: Location::of(target.lines),
    });
    document(&TargetList {
        targets: entries.collect(),
        sources: [encoded(source)],
    })
}

#[derive(Serialize)]
struct OutlineDocument<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<ArgEntry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<SecretEntry<'a>>,
    sources: [String; 1],
}

#[derive(Serialize)]
struct ArgEntry<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct SecretEntry<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

/// Writes an outline as buildx's `--call=outline,format=json` does.
pub(super) fn outline_json(outline: &Outline, source: &SourceText) -> String {
    let args = outline.args.iter().map(|arg| ArgEntry {
        name: &arg.name,
        description: &arg.description,
        value: &arg.value,
        location: Location::of(arg.lines),
    });
    let secrets = outline.secrets.iter().map(|secret| SecretEntry {
        name: &secret.name,
        required: secret.required,
        location: Location::of(secret.lines),
    });
    document(&OutlineDocument {
        name: outline.name.as_deref(),
        description: &outline.description,
        args: args.collect(),
        secrets: secrets.collect(),
        sources: [encoded(source)],
    })
}
