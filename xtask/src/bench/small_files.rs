//! W3: very many small files, made in one RUN.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::workspace::{make_empty, write};

use super::builders::{Recipe, Workshop};
use super::options::Options;
use super::race::{Race, Step};
use super::report::{self, Column};
use super::seeds;

const FILES_IN_DIRECTORY: u64 = 1_000;
/// Files of W3.
const FILES: u64 = 100_000;
const COLUMNS: [Column; 1] = [Column {
    title: "time",
    target: None,
}];
/// The Dockerfile that brings the base into the builder's store, so that the clock shows the files alone.
const WARM_UP: &str = "base";

/// Measures; gives the section of the page.
pub(super) fn run(workshop: &Workshop, options: &Options) -> Result<String> {
    let context = make_context(workshop, FILES)?;
    let seed = seeds::debian(workshop)?;
    let step = |name, recipe| Step {
        name,
        recipe,
        before: None,
    };
    let [warm_up, build] = recipes(&context);
    let race = Race {
        name: "w3",
        seed: Some(&seed),
        steps: &[step(None, warm_up), step(Some("100,000 files"), build)],
        cannot: &[],
        large: false,
    };
    let rows = race.run(workshop, options)?;
    Ok(format!(
        "100,000 files of 512 bytes in 100 directories, made by `split` in one RUN, with the push. The base lies in the builder's\n\
         store when the clock starts. What the same command takes without a builder is told in *Limits of the machine*.\n\n{}",
        report::table(&COLUMNS, &rows)
    ))
}

/// The shell's command that makes so many files in the working directory.
pub(super) fn command(files: u64) -> String {
    let directories = files / FILES_IN_DIRECTORY;
    format!(
        "for d in $(seq {directories}); do mkdir $d; \
         seq ${{d}}00000 99999999999 2>/dev/null | head -c 512000 | (cd $d && split -b 512 -a 3 -d - f); done"
    )
}

/// Makes a context for so many files.
pub(super) fn make_context(workshop: &Workshop, files: u64) -> Result<PathBuf> {
    let context = workshop.turns.join(format!("w3-{files}"));
    make_empty(&context)?;
    write(
        &context.join(WARM_UP),
        "ARG BASE\nFROM ${BASE}\nWORKDIR /files\nRUN true\n",
    )?;
    write(
        &context.join("Dockerfile"),
        &format!("ARG BASE\nFROM ${{BASE}}\nWORKDIR /files\nRUN {}\n", command(files)),
    )?;
    Ok(context)
}

/// The build before the clock starts, and the one that is measured.
pub(super) fn recipes(context: &Path) -> [Recipe<'_>; 2] {
    [(WARM_UP, "warm"), ("Dockerfile", "1")].map(|(file, tag)| Recipe {
        context,
        file,
        base: seeds::DEBIAN,
        tag,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{capture, program};

    #[test]
    fn the_command_makes_the_files() {
        let directory = std::env::temp_dir().join(format!("xtask-files-{}", std::process::id()));
        make_empty(&directory).unwrap();
        let count = format!("{} && find . -type f -size -513c | wc -l", command(2_000));
        let text = capture(program("sh").args(["-c", &count]).current_dir(&directory)).unwrap();
        assert_eq!(text, "2000\n");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
