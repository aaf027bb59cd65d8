//! W4: one large file.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Result, TaskError};
use crate::workspace::{make_empty, write};

use super::builders::{Recipe, Workshop};
use super::options::Options;
use super::race::{Race, Step};
use super::report::{self, Column};
use super::workload::Generator;

const GIB: u64 = 4;
const COLUMNS: [Column; 1] = [Column {
    title: "time",
    target: None,
}];

/// Measures; gives the section of the page.
pub(super) fn run(workshop: &Workshop, options: &Options) -> Result<String> {
    workshop.need_disk(24)?;
    let context = make_context(workshop, GIB)?;
    let race = Race {
        name: "w4",
        seed: None,
        steps: &[Step {
            name: Some("4 GiB"),
            recipe: recipe(&context),
            before: None,
        }],
        cannot: &[],
        large: true,
    };
    let rows = race.run(workshop, options)?;
    remove_context(&context)?;
    Ok(format!(
        "`COPY` of one file of 4 GiB, which compresses as sources do, into an empty image, with the push.\n\n{}",
        report::table(&COLUMNS, &rows)
    ))
}

/// Makes the context of a file of so many GiB.
pub(super) fn make_context(workshop: &Workshop, gib: u64) -> Result<PathBuf> {
    const BLOCKS_IN_GIB: u64 = 64;
    const BLOCK_BYTES: usize = 16 * 1024 * 1024;
    let context = workshop.turns.join(format!("w4-{gib}"));
    make_empty(&context)?;
    write(&context.join("Dockerfile"), "FROM scratch\nCOPY large /\n")?;
    let path = context.join("large");
    // No compressor in use looks back far enough to see that the blocks are alike.
    let block = Generator::new().block(BLOCK_BYTES);
    let mut file = std::fs::File::create(&path).map_err(TaskError::at("write", &path))?;
    for _ in 0..gib * BLOCKS_IN_GIB {
        file.write_all(&block).map_err(TaskError::at("write", &path))?;
    }
    Ok(context)
}

/// Removes a context at once, for it is large.
pub(super) fn remove_context(context: &Path) -> Result<()> {
    std::fs::remove_dir_all(context).map_err(TaskError::at("remove", context))
}

/// How it is built.
pub(super) fn recipe(context: &Path) -> Recipe<'_> {
    Recipe {
        context,
        file: "Dockerfile",
        base: "none:1",
        tag: "1",
    }
}
