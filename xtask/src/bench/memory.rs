//! Peak memory of a process and all of its children, read from `/proc` while they run.

use std::process::Command;
use std::time::Duration;

use crate::error::{Result, TaskError};

/// Time between two looks. A peak shorter than this can be missed in the sum, not in the largest process.
const INTERVAL: Duration = Duration::from_millis(20);

/// What was seen while a program ran.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Peak {
    /// The largest sum of the processes' shares (PSS: memory that several share counts once), in KiB.
    pub(super) tree_kib: u64,
    /// The largest resident size that one process ever had, as the kernel recorded it (VmHWM), in KiB.
    pub(super) process_kib: u64,
}

/// Runs a program and watches it.
pub(super) fn watch(command: &mut Command) -> Result<Peak> {
    let failed = |error: std::io::Error| TaskError::new(format!("cannot watch a program: {error}"));
    let mut child = command.spawn().map_err(failed)?;
    let mut peak = Peak::default();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        look(child.id(), &mut peak);
        std::thread::sleep(INTERVAL);
    };
    if status.success() {
        Ok(peak)
    } else {
        Err(TaskError::new(format!("the watched program failed: {status}")))
    }
}

fn look(root: u32, peak: &mut Peak) {
    let mut tree_kib = 0;
    let mut processes = vec![root];
    while let Some(id) = processes.pop() {
        // A process may end between two reads; it then counts as nothing.
        tree_kib += field(&format!("/proc/{id}/smaps_rollup"), "Pss:");
        peak.process_kib = peak.process_kib.max(field(&format!("/proc/{id}/status"), "VmHWM:"));
        processes.extend(children(id));
    }
    peak.tree_kib = peak.tree_kib.max(tree_kib);
}

fn children(id: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn field(path: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    kib(&text, name).unwrap_or(0)
}

fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::program;

    #[test]
    fn lines_of_proc() {
        let text = "Rss:     10 kB\nPss:                1234 kB\nPss_Anon: 5 kB\n";
        assert_eq!(kib(text, "Pss:"), Some(1234));
        assert_eq!(kib(text, "VmHWM:"), None);
    }

    #[test]
    fn children_count() {
        // The shell's child reads 64 MiB at once and holds them while it writes.
        let mut command = program("sh");
        command.args([
            "-c",
            "(dd if=/dev/zero bs=64M count=16 of=/dev/null 2>&1; true) | cat > /dev/null",
        ]);
        let peak = watch(&mut command).unwrap();
        assert!(peak.process_kib > 60_000, "{peak:?}");
        assert!(peak.tree_kib > 60_000, "{peak:?}");
    }
}
