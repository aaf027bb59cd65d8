//! What one core and the disk of this machine can do, to hold the times against.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command::{capture, program};
use crate::error::{Result, TaskError};
use crate::workspace::{make_empty, write};

use super::builders::Workshop;
use super::workload::Generator;
use super::{report, small_files};

const BLOCK_BYTES: usize = 16 * 1024 * 1024;
const BLOCKS: usize = 32;
const FILES: u64 = 100_000;
const RUNS: usize = 3;

/// Measures; gives the section of the page.
pub(super) fn run(workshop: &Workshop) -> Result<String> {
    let directory = workshop.turns.join("limits");
    make_empty(&directory)?;
    let file = directory.join("text");
    let block = Generator::new().block(BLOCK_BYTES);
    std::fs::write(&file, block.repeat(BLOCKS)).map_err(TaskError::at("write", &file))?;
    let mut lines = String::new();
    for (name, median) in [
        ("`openssl dgst -sha256`", hash(&file)?),
        (
            "`gzip -1`",
            by_program(program("gzip").args(["-1", "--stdout"]).arg(&file))?,
        ),
        ("`roadstead build`: a layer of it", layer(workshop, &directory, "gzip")?),
        (
            "`roadstead build --compression uncompressed`: the same",
            layer(workshop, &directory, "uncompressed")?,
        ),
        ("`dd bs=1M conv=fdatasync`", write_through(&directory, &file)?),
    ] {
        lines.push_str(&format!("| {name} | {:.0} MB/s |\n", megabytes_per_second(median)));
    }
    let files = make_files(&directory)?;
    lines.push_str(&format!(
        "| 100,000 files of 512 bytes made by W3's command | {} s |\n",
        report::seconds(files)
    ));
    println!("{lines}");
    Ok(format!(
        "One core, and the disk, with 512 MiB of the text that W4 is made of; median of {RUNS}. A builder hashes each layer twice, as it is\n\
         and compressed, compresses it once and writes it; the registry on the same machine hashes and writes it again. roadstead does\n\
         all of the former here, into its store, on one core (`taskset`).\n\n\
         | | |\n|---|---|\n{lines}"
    ))
}

fn timed(run: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed())
}

/// The median of some runs.
fn median(mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    let times = (0..RUNS).map(|_| timed(&mut run)).collect::<Result<Vec<_>>>()?;
    Ok(report::median(&times))
}

fn by_program(command: &mut Command) -> Result<Duration> {
    median(|| {
        let status = command.stdout(std::process::Stdio::null()).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            other => Err(TaskError::new(format!("{command:?} failed: {other:?}"))),
        }
    })
}

fn hash(file: &Path) -> Result<Duration> {
    by_program(program("openssl").args(["dgst", "-sha256"]).arg(file))
}

/// `roadstead build` of the file on one core, into its own store: reading, tar, two checksums, compression, writing.
fn layer(workshop: &Workshop, directory: &Path, compression: &str) -> Result<Duration> {
    let store = directory.join("store");
    write(&directory.join("Dockerfile"), "FROM scratch\nCOPY text /\n")?;
    let mut times = Vec::new();
    for _ in 0..RUNS {
        make_empty(&store)?;
        let mut command = program("taskset");
        command.args(["--cpu-list", "0"]).arg(&workshop.roadstead);
        Workshop::settle(&mut command, &store);
        command
            .args(["build", "--quiet", "--compression", compression, "--tag", "layer:1"])
            .arg(directory);
        times.push(timed(|| capture(&mut command).map(drop))?);
    }
    Ok(report::median(&times))
}

fn write_through(directory: &Path, file: &Path) -> Result<Duration> {
    let mut from = std::ffi::OsString::from("if=");
    from.push(file);
    let mut to = std::ffi::OsString::from("of=");
    to.push(directory.join("copy"));
    median(|| capture(program("dd").args(["bs=1M", "conv=fdatasync"]).args([&from, &to])).map(drop))
}

fn make_files(directory: &Path) -> Result<Duration> {
    let home = directory.join("files");
    make_empty(&home)?;
    let command = small_files::command(FILES);
    timed(|| capture(program("sh").args(["-c", &command]).current_dir(&home)).map(drop))
}

fn megabytes_per_second(time: Duration) -> f64 {
    let megabytes = f64::from(u32::try_from(BLOCK_BYTES * BLOCKS).unwrap_or(u32::MAX)) / 1e6;
    megabytes / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds() {
        assert_eq!(format!("{:.1}", megabytes_per_second(Duration::from_secs(2))), "268.4");
    }
}
