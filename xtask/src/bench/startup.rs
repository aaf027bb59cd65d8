//! What it costs to start the program, whatever it then does.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Result, TaskError};

use super::builders::Workshop;
use super::report;

const RUNS: usize = 50;

/// Measures; gives the section of the page.
pub(super) fn run(workshop: &Workshop) -> Result<String> {
    let docker = workshop.directory.join("trixie/usr/bin/docker");
    let programs: [(&str, PathBuf); 3] = [
        ("roadstead --version", workshop.roadstead.clone()),
        ("docker --version", docker),
        ("buildah --version", PathBuf::from("/usr/bin/buildah")),
    ];
    let mut lines = String::new();
    for (name, path) in programs {
        if !path.exists() {
            lines.push_str(&format!("| `{name}` | not installed |\n"));
            continue;
        }
        let times = (0..RUNS).map(|_| time(&path)).collect::<Result<Vec<_>>>()?;
        lines.push_str(&format!("| `{name}` | {} |\n", milliseconds(&times)));
    }
    println!("{lines}");
    Ok(format!(
        "Median (least–most) of {RUNS} starts, from the fork to the end. docker is the client alone; its daemon runs already.\n\n\
         | | time |\n|---|---|\n{lines}"
    ))
}

fn time(path: &Path) -> Result<Duration> {
    // Started as it is: `setpriv` before it would cost a millisecond of its own.
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status().map_err(TaskError::at("start", path))?;
    let time = start.elapsed();
    match status.success() {
        true => Ok(time),
        false => Err(TaskError::new(format!("`{}` failed: {status}", path.display()))),
    }
}

fn milliseconds(times: &[Duration]) -> String {
    let show = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    let least = times.iter().min().copied().unwrap_or_default();
    let most = times.iter().max().copied().unwrap_or_default();
    format!(
        "**{}** ms ({}–{})",
        show(report::median(times)),
        show(least),
        show(most)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_have_one_digit() {
        let times = [5_120, 1_000, 9_000].map(Duration::from_micros);
        assert_eq!(milliseconds(&times), "**5.1** ms (1.0–9.0)");
    }
}
