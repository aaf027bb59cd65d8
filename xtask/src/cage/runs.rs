//! The contexts of `tests/cage`, built in a cage and outside: whether all goes well, and how long it takes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::command::{logged, read_lossy};
use crate::error::{Result, TaskError};
use crate::workspace::make_empty;

use super::orphans;
use super::place::Place;
use super::site::Site;

/// Every context but that of the program which tries to get out.
pub(super) const NAMES: [&str; 13] = [
    "shell",
    "system",
    "user",
    "orphans",
    "network",
    "processes",
    "mounts",
    "gcc",
    "python",
    "go",
    "cargo",
    "npm",
    "java",
];
/// Lines of a failed build's log that are shown.
const SHOWN_LINES: usize = 30;
/// On the cage's own root, where no volume is mounted.
const OVERLAY: &str = "/var/lib/roadstead";

/// Seconds of the builds of a context, at the places where it was built well.
#[derive(Debug)]
struct Row {
    name: String,
    outside: Option<Duration>,
    inside: Option<Duration>,
}

/// Builds these contexts at these places; an error names those that failed.
pub(super) fn run(site: &Site, places: &[Place<'_>], names: &[&str], overlay: bool) -> Result<()> {
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for name in names {
        let mut row = Row {
            name: (*name).to_owned(),
            outside: None,
            inside: None,
        };
        for at in places {
            match build(site, *at, name, overlay) {
                Ok(time) => {
                    println!("ok      {name} {} {:.1} s", at.name(), time.as_secs_f64());
                    match at {
                        Place::Outside => row.outside = Some(time),
                        Place::Inside(_) => row.inside = Some(time),
                    }
                }
                Err(error) => {
                    println!("FAILED  {name} {}: {error}", at.name());
                    failed.push(format!("{name} {}", at.name()));
                }
            }
        }
        rows.push(row);
    }
    if places.len() > 1 {
        println!("\n{}", table(&rows));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(TaskError::new(format!("builds that failed: {}", failed.join(", ")))),
    }
}

/// Builds a context with nothing cached, and makes sure that no process is left.
fn build(site: &Site, at: Place<'_>, name: &str, overlay: bool) -> Result<Duration> {
    let place = site.context(name)?;
    let data = match (at, overlay) {
        (Place::Inside(_), true) => PathBuf::from(OVERLAY),
        _ => place.join("data"),
    };
    site.fresh_data(at, &data)?;
    let log = site.directory.with_file_name(format!("{name}-{}.log", at.name()));
    let command = site.build(at, &place, &data, &format!("cage/{name}"))?;
    let start = Instant::now();
    let built = logged(&mut at.take(command), &log);
    let time = start.elapsed();
    if built.is_err() {
        return Err(TaskError::new(end_of(&log)));
    }
    orphans::none_is_left("roadstead-orphan")?;
    make_empty(&place)?;
    Ok(time)
}

fn end_of(log: &Path) -> String {
    let text = read_lossy(log);
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
    format!("the end of `{}`:\n{end}", log.display())
}

/// The times side by side.
fn table(rows: &[Row]) -> String {
    let seconds = |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.1}", time.as_secs_f64()));
    let mut lines = vec![
        "| build | outside s | cage s | ratio |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    for row in rows {
        let ratio = match (row.outside, row.inside) {
            (Some(outside), Some(inside)) => format!("{:.2}", inside.as_secs_f64() / outside.as_secs_f64()),
            _ => "-".to_owned(),
        };
        let (outside, inside) = (seconds(row.outside), seconds(row.inside));
        lines.push(format!("| {} | {outside} | {inside} | {ratio} |", row.name));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_context_is_built() {
        let directory = crate::workspace::root().join("tests/cage");
        let mut found: Vec<String> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_dir())
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        found.sort();
        let mut known = [&NAMES[..], &["hostile"]].concat();
        known.sort_unstable();
        assert_eq!(found, known);
    }

    #[test]
    fn times_are_set_side_by_side() {
        let row = Row {
            name: "gcc".to_owned(),
            outside: Some(Duration::from_millis(2000)),
            inside: Some(Duration::from_millis(3000)),
        };
        assert!(table(&[row]).ends_with("\n| gcc | 2.0 | 3.0 | 1.50 |"));
    }
}
