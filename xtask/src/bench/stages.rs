//! W5: stages that don't know each other.

use crate::error::Result;
use crate::workspace::{make_empty, write};

use super::builders::{Recipe, Workshop};
use super::options::Options;
use super::race::{Race, Step};
use super::report::{self, Column};
use super::seeds;

const STAGES: usize = 20;
const COLUMNS: [Column; 1] = [Column {
    title: "time",
    target: None,
}];

/// Measures; gives the section of the page.
pub(super) fn run(workshop: &Workshop, options: &Options) -> Result<String> {
    let context = workshop.turns.join("w5");
    make_empty(&context)?;
    write(&context.join("base"), "ARG BASE\nFROM ${BASE}\nRUN true\n")?;
    write(&context.join("Dockerfile"), &dockerfile(STAGES))?;
    let seed = seeds::debian(workshop)?;
    let step = |name, file, tag| Step {
        name,
        recipe: Recipe {
            context: &context,
            file,
            base: seeds::DEBIAN,
            tag,
        },
        before: None,
    };
    let race = Race {
        name: "w5",
        seed: Some(&seed),
        steps: &[
            step(None, "base", "warm"),
            step(Some("twenty stages"), "Dockerfile", "1"),
        ],
        cannot: &[],
        large: false,
    };
    let rows = race.run(workshop, options)?;
    Ok(format!(
        "Twenty stages of one base, each with a RUN that waits half a second and writes 20 files, and a stage that copies from all of\n\
         them, with the push. One after the other they would wait ten seconds. The base lies in the builder's store when the clock\n\
         starts. buildah gets `--jobs 0`: as many stages at once as there are.\n\n{}",
        report::table(&COLUMNS, &rows)
    ))
}

fn dockerfile(stages: usize) -> String {
    let mut text = "ARG BASE\n".to_owned();
    for stage in 1..=stages {
        text.push_str(&format!(
            "FROM ${{BASE}} AS s{stage}\nRUN sleep 0.5; mkdir /out; for f in $(seq 20); do seq {stage}000 {stage}999 > /out/$f; done\n"
        ));
    }
    text.push_str("FROM ${BASE}\n");
    for stage in 1..=stages {
        text.push_str(&format!("COPY --from=s{stage} /out /out/{stage}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stage_copies_from_all() {
        assert_eq!(
            dockerfile(1),
            "ARG BASE\nFROM ${BASE} AS s1\n\
             RUN sleep 0.5; mkdir /out; for f in $(seq 20); do seq 1000 1999 > /out/$f; done\n\
             FROM ${BASE}\nCOPY --from=s1 /out /out/1\n"
        );
    }
}
