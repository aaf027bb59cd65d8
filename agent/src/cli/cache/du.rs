//! `roadstead cache du`.

use std::process::ExitCode;
use std::time::SystemTime;

use roadstead_builder::housekeeping::{House, Item};
use serde_json::{Value, json};

use super::super::image::{human, print_json};
use super::super::print;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whole names.
    #[arg(long)]
    verbose: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Digits of a name that are shown.
const SHORT: usize = 12;

pub(super) fn run(args: &Args, house: &House) -> Result<ExitCode, CliError> {
    let mut items = house.items(true).map_err(CliError::failed)?;
    // What was used last comes first, as docker has it.
    items.reverse();
    let sum = |wanted: fn(&Item) -> bool| {
        items
            .iter()
            .filter(|item| wanted(item))
            .map(|item| item.size)
            .sum::<u64>()
    };
    let (total, shared, reclaimable) = (sum(|_| true), sum(|item| item.is_named), sum(Item::is_reclaimable));
    if args.json {
        let documents: Vec<Value> = items.iter().map(document).collect();
        print_json(&json!({ "items": documents, "total": total, "shared": shared, "reclaimable": reclaimable }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let width = if args.verbose { 66 } else { SHORT };
    let mut table = format!(
        "{:<5}  {:<width$}  {:<11}  {:>9}  LAST USED\n",
        "KIND", "ID", "RECLAIMABLE", "SIZE"
    );
    for item in &items {
        let name = item.name.get(..width).unwrap_or(&item.name);
        let (reclaimable, size, ago) = (item.is_reclaimable(), human(item.size), ago(item.used));
        table.push_str(&format!(
            "{:<5}  {name:<width$}  {reclaimable:<11}  {size:>9}  {ago}\n",
            item.kind
        ));
    }
    table.push_str(&format!(
        "Needed by images: {}\nReclaimable: {}\nTotal: {}\n",
        human(shared),
        human(reclaimable),
        human(total)
    ));
    print(&table)?;
    Ok(ExitCode::SUCCESS)
}

/// An item as JSON.
pub(super) fn document(item: &Item) -> Value {
    let used = jiff::Timestamp::try_from(item.used).map(|time| time.to_string()).ok();
    json!({
        "kind": item.kind.to_string(), "id": item.name, "size": item.size, "lastUsed": used,
        "inUse": item.in_use, "neededByImage": item.is_named, "reclaimable": item.is_reclaimable()
    })
}

/// How long ago something was, in its largest unit.
fn ago(time: SystemTime) -> String {
    let seconds = SystemTime::now().duration_since(time).map_or(0, |age| age.as_secs());
    let (number, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86400 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural} ago")
}
