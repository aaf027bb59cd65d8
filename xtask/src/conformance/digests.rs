//! Each case built twice by roadstead, by one thread and by as many as there are cores: the same digests.

use std::path::Path;

use crate::command::program;
use crate::error::{Result, TaskError};
use crate::workspace::make_empty;

use super::case::Case;
use super::workshop::Workshop;

/// Builds each case on fresh caches; an error names those with two digests.
pub(super) fn run(workshop: &Workshop, cases: &[Case], directory: &Path) -> Result<()> {
    let mut wrong: Vec<String> = Vec::new();
    let good: Vec<&Case> = cases.iter().filter(|case| case.fails.is_none()).collect();
    for case in &good {
        let place = workshop.prepare(case)?;
        let mut by_one = program("taskset");
        by_one.args(["-c", "0"]).arg(workshop.binary());
        let (one, _) = workshop.digest(case, &workshop.fresh_data(&place, "one")?, by_one, &[])?;
        let by_all = program(workshop.binary());
        let (all, _) = workshop.digest(case, &workshop.fresh_data(&place, "all")?, by_all, &[])?;
        let same = one == all;
        println!("{} {} {one}", if same { "same   " } else { "DIFFERS" }, case.name);
        match same {
            true => make_empty(&place)?,
            false => wrong.push(format!("{} (see {})", case.name, place.display())),
        }
    }
    println!(
        "{} cases built twice below {}: {} with other digests",
        good.len(),
        directory.display(),
        wrong.len()
    );
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(TaskError::new(format!("digests differ: {}", wrong.join(", ")))),
    }
}
