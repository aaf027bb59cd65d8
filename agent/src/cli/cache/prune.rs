//! `roadstead cache prune`.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use roadstead_builder::housekeeping::{House, Wanted};
use serde_json::{Value, json};

use super::super::image::{human, print_json};
use super::super::print;
use super::du::document;
use crate::config::size;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Remove cache mounts (`RUN --mount=type=cache`), too.
    #[arg(short, long)]
    all: bool,
    /// Do not ask.
    #[arg(short, long)]
    force: bool,
    /// Remove only what matches: until=24h is what was not used for so long.
    #[arg(long, value_name = "until=DURATION", value_parser = until)]
    filter: Vec<Duration>,
    /// Remove only what was used longest ago, until so much is left; what named images need does not count.
    #[arg(long, visible_alias = "keep-storage", value_name = "SIZE", value_parser = size)]
    max_used_space: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, house: &House) -> Result<ExitCode, CliError> {
    if !args.force && !is_confirmed(args.all)? {
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = Wanted {
        unused_for: args.filter.iter().max().copied(),
        keep: args.max_used_space,
        mounts: args.all,
    };
    let removed = house.prune(&wanted).map_err(CliError::failed)?;
    let total: u64 = removed.iter().map(|item| item.size).sum();
    if args.json {
        let documents: Vec<Value> = removed.iter().map(document).collect();
        print_json(&json!({ "removed": documents, "total": total }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let lines = removed
        .iter()
        .map(|item| format!("{:<5}  {}  {:>9}\n", item.kind, item.name, human(item.size)));
    print(&format!("{}Total: {}\n", lines.collect::<String>(), human(total)))?;
    Ok(ExitCode::SUCCESS)
}

/// Asks, if there is somebody to be asked.
#[expect(
    clippy::print_stderr,
    reason = "the question is for a person, not for what reads the result"
)]
fn is_confirmed(all: bool) -> Result<bool, CliError> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(
            CliError::usage("nobody can be asked here whether to remove the build cache")
                .hint("`--force` removes it without a question"),
        );
    }
    let what = if all {
        "the build cache and all cache mounts"
    } else {
        "the build cache"
    };
    eprint!("This removes {what}, as far as no running build and no image needs it. Go on? [y/N] ");
    let mut answer = String::new();
    stdin.read_line(&mut answer).map_err(CliError::failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Reads `until=DURATION`, such as `until=24h`.
fn until(text: &str) -> Result<Duration, String> {
    let Some(("until", duration)) = text.split_once('=') else {
        return Err("the only filter is until=DURATION, such as until=24h".to_owned());
    };
    let parsed: Result<jiff::SignedDuration, _> = duration.parse();
    let parsed = parsed.ok().and_then(|duration| Duration::try_from(duration).ok());
    parsed.ok_or_else(|| format!("`{duration}` is no duration such as 24h or 90m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_durations() {
        assert_eq!(until("until=24h"), Ok(Duration::from_secs(24 * 3600)));
        assert_eq!(until("until=1h30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["until=", "until=x", "until=-1h", "type=regular", "24h"] {
            assert!(until(wrong).is_err(), "{wrong}");
        }
    }
}
