//! `roadstead store`: the local store itself.

use std::process::ExitCode;

use serde_json::json;

use super::image::{human, local_store, print_json};
use super::print;
use crate::error::CliError;

/// Arguments of `roadstead store`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Compare every blob with its digest, and see whether every image has what it needs.
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Check {
    /// Remove blobs that are wrong, so that they are fetched or built again.
    #[arg(long)]
    repair: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Ends with status 1 when something is wrong.
pub(super) fn main(args: &Args) -> Result<ExitCode, CliError> {
    let Command::Check(check) = &args.command;
    let report = local_store()?.check(check.repair).map_err(CliError::registry)?;
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    if check.json {
        print_json(&json!({
            "blobs": report.blobs, "bytes": report.bytes, "images": report.images, "findings": findings
        }))?;
    } else {
        let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
        let (blobs, bytes, images) = (report.blobs, human(report.bytes), report.images);
        print(&format!(
            "{lines}checked {blobs} blobs ({bytes}) and {images} images: {} findings\n",
            findings.len()
        ))?;
    }
    Ok(match findings.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
