//! Processes that outlived what started them.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Result, TaskError};

/// Time the kernel has to end what belonged to a build.
const GONE: Duration = Duration::from_secs(2);

/// Makes sure that no process has `needle` in its command line or environment, now or in a moment.
pub(crate) fn none_is_left(needle: &str) -> Result<()> {
    let until = Instant::now() + GONE;
    loop {
        let left = find(needle);
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(TaskError::new(format!("left running: {}", left.join(", "))));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes with `needle` in their command line or environment, but this one and those it stands on.
pub(crate) fn find(needle: &str) -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id().to_string();
    processes
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own)
        .filter(|id| holds(&Path::new("/proc").join(id), needle))
        .map(|id| format!("{id} {}", command_line(&id)))
        .collect()
}

/// A process that ended while it was looked at holds nothing.
fn holds(process: &Path, needle: &str) -> bool {
    ["cmdline", "environ"].iter().any(|name| {
        std::fs::read(process.join(name))
            .is_ok_and(|bytes| bytes.windows(needle.len()).any(|window| window == needle.as_bytes()))
    })
}

fn command_line(id: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::program;

    #[test]
    fn a_process_is_found_and_missed() {
        let needle = format!("roadstead-test-{}", std::process::id());
        let mut child = program("sleep").arg("30").env("MARKER", &needle).spawn().unwrap();
        while find(&needle).is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(none_is_left(&needle).is_err());
        child.kill().unwrap();
        child.wait().unwrap();
        none_is_left(&needle).unwrap();
    }
}
