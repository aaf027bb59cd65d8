//! The machine and the versions that were measured.

use std::path::Path;

use crate::command::{capture, program};
use crate::error::{Result, TaskError};
use crate::oracle::Docker;
use crate::workspace::root;

use super::builders::{Builder, Workshop};
use super::options::Options;

/// Gives the section of the page.
pub(super) fn section(workshop: &Workshop, options: &Options) -> Result<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = capture(program("uname").arg("-r"))?;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let versions = versions(workshop, options)?;
    let versions: String = versions.iter().map(|version| format!("- {version}\n")).collect();
    Ok(format!(
        "At the last run, of whatever part. Figures are noisy where the load average is not near 0, and those of parts that ran on\n\
         different days must not be compared.\n\n\
         - {cores} cores ({}), memory {}\n- {}, Linux {}\n{versions}",
        value(&read("/proc/cpuinfo"), "model name", ':'),
        value(&read("/proc/meminfo"), "MemTotal", ':'),
        value(&read("/etc/os-release"), "PRETTY_NAME", '='),
        kernel.trim(),
    ))
}

/// The load averages, over 1, 5 and 15 minutes.
pub(super) fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").map_err(TaskError::at("read", Path::new("/proc/loadavg")))?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// What is measured: the commit of the work tree, unless a binary was given, which may be of any.
pub(super) fn measured(options: &Options) -> Result<String> {
    if options.binary.is_some() {
        return Ok("a binary given by `--binary`".to_owned());
    }
    let mut git = program("git");
    git.arg("-C").arg(root()).args(["describe", "--always", "--dirty"]);
    Ok(format!("roadstead at {}", capture(&mut git)?.trim()))
}

fn versions(workshop: &Workshop, options: &Options) -> Result<Vec<String>> {
    let mut versions = vec![capture(program("buildah").arg("--version"))?.trim().to_owned()];
    if options.has(Builder::BuildKit) {
        versions.push(Docker::start(&workshop.directory, &workshop.turns.join("version"))?.version()?);
    }
    let registry = capture(program("docker-registry").arg("--version"))?;
    let version = registry.split_whitespace().last().unwrap_or_default();
    versions.push(format!("docker-registry {version}"));
    Ok(versions)
}

fn value(text: &str, name: &str, separator: char) -> String {
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .and_then(|line| line.split_once(separator));
    line.map_or_else(
        || "unknown".to_owned(),
        |(_, value)| value.trim().trim_matches('"').to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_proc_and_release() {
        assert_eq!(value("a: 1\nmodel name\t: A CPU\n", "model name", ':'), "A CPU");
        assert_eq!(value("PRETTY_NAME=\"Debian\"\n", "PRETTY_NAME", '='), "Debian");
        assert_eq!(value("", "x", ':'), "unknown");
    }
}
