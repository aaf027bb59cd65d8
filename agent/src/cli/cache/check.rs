//! `roadstead cache check`.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;

use roadstead_registry_client::{Finding, Store};
use serde_json::json;

use super::super::image::{human, print_json};
use super::super::print;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Remove what is damaged, so that builds make or fetch it again.
    #[arg(long)]
    repair: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// A line each.
    lines: Vec<String>,
    /// How many of them stay as they are.
    unrepaired: usize,
}

impl Found {
    fn add(&mut self, line: String, is_repaired: bool) {
        self.unrepaired += usize::from(!is_repaired);
        self.lines.push(line);
    }

    fn add_all(&mut self, findings: &[Finding], repair: bool) {
        for finding in findings {
            self.add(finding.to_string(), repair && finding.can_be_repaired());
        }
    }
}

/// Ends with status 1 when something is wrong and stays so.
pub(super) fn run(args: &Args, data: &Path) -> Result<ExitCode, CliError> {
    let mut found = Found::default();
    let documents = Store::check_documents(&data.join("store"), args.repair).map_err(CliError::registry)?;
    found.add_all(&documents, args.repair);
    if !args.repair && !documents.is_empty() {
        // The store cannot be opened, so this is all there is to say.
        return finish(args, &found, &json!({}), String::new());
    }
    let (parts, _scratch) = super::open(data)?;
    tell("checking records of steps");
    let (records, damaged) = parts.cache.check(args.repair).map_err(CliError::failed)?;
    for name in damaged {
        found.add(format!("record `{name}` of a step is damaged"), args.repair);
    }
    tell("checking unpacked layers");
    let (layers, damaged) = parts.layers.check(args.repair).map_err(CliError::failed)?;
    for name in damaged {
        found.add(format!("unpacked layer `{name}` was changed"), args.repair);
    }
    tell("checking blobs and images");
    let report = parts.store.check(args.repair).map_err(CliError::registry)?;
    found.add_all(&report.findings, args.repair);
    let counts = json!({
        "records": records, "layers": layers, "blobs": report.blobs, "bytes": report.bytes, "images": report.images
    });
    let summary = format!(
        "checked {records} records, {layers} unpacked layers, {} blobs ({}) and {} images: ",
        report.blobs,
        human(report.bytes),
        report.images
    );
    finish(args, &found, &counts, summary)
}

fn finish(args: &Args, found: &Found, counts: &serde_json::Value, summary: String) -> Result<ExitCode, CliError> {
    if args.json {
        let mut document = counts.clone();
        document["findings"] = found.lines.clone().into();
        document["unrepaired"] = found.unrepaired.into();
        print_json(&document)?;
    } else {
        let lines: String = found.lines.iter().map(|line| format!("{line}\n")).collect();
        let repaired = match found.lines.len() - found.unrepaired {
            0 => String::new(),
            some => format!(", {some} repaired"),
        };
        print(&format!("{lines}{summary}{} findings{repaired}\n", found.lines.len()))?;
    }
    Ok(match found.unrepaired {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Says on a terminal what takes time.
#[expect(clippy::print_stderr, reason = "progress goes to standard error")]
fn tell(what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("{what}");
    }
}
