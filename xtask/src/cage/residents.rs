//! The processes of a cage, as this machine sees them.

use std::path::{Path, PathBuf};

use crate::command::capture;
use crate::error::{Result, TaskError};

use super::container::Cage;

impl Cage<'_> {
    /// The first process, by this machine's number.
    fn init(&self) -> Result<u32> {
        let printed = capture(
            self.client()
                .args(["inspect", "--format", "{{.State.Pid}}", self.name()]),
        )?;
        let wrong = |_| TaskError::new(format!("`{}` is no process", printed.trim()));
        printed.trim().parse().map_err(wrong)
    }

    /// Every process of the cage but those that keep it, eldest first.
    fn residents(&self) -> Result<Vec<u32>> {
        let init = self.init()?;
        let space = |process: u32| std::fs::read_link(format!("/proc/{process}/ns/pid")).ok();
        let own = space(init).ok_or_else(|| TaskError::new("the cage has ended"))?;
        let processes = std::fs::read_dir("/proc").map_err(TaskError::at("read", Path::new("/proc")))?;
        let mut found: Vec<u32> = processes
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|process| *process != init && space(*process).as_ref() == Some(&own))
            .filter(|process| !keeps(init, *process))
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Lines about every process that was started in the cage and has not ended.
    pub(crate) fn processes(&self) -> Result<Vec<String>> {
        let describe = |process: u32| {
            let words = read(process, "cmdline").replace('\0', " ");
            // One that has ended, and waits to be buried, has no words.
            (!words.is_empty()).then(|| format!("{process} {words}"))
        };
        Ok(self.residents()?.into_iter().filter_map(describe).collect())
    }

    /// Processes with this variable, eldest first.
    pub(crate) fn processes_with(&self, variable: &str) -> Result<Vec<u32>> {
        let mut found = self.residents()?;
        found.retain(|process| read(*process, "environ").split('\0').any(|pair| pair == variable));
        Ok(found)
    }
}

/// A file of a process; nothing when it has ended.
fn read(process: u32, name: &str) -> String {
    let path = PathBuf::from(format!("/proc/{process}/{name}"));
    std::fs::read(path).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether this is the sleeping child of the first process.
fn keeps(init: u32, process: u32) -> bool {
    read(process, "cmdline") == "sleep\0infinity\0" && read(process, "status").contains(&format!("PPid:\t{init}\n"))
}
