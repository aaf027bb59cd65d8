//! W1: a middling project, as it is built again and again.

use std::time::Duration;

use crate::error::Result;

use super::builders::{Recipe, Workshop};
use super::options::Options;
use super::race::{Race, Step};
use super::report::{self, Column, Target};
use super::{seeds, workload};

const COLUMNS: [Column; 3] = [
    Column {
        title: "cold",
        target: Some(Target::Ratio(0.5)),
    },
    Column {
        title: "one file edited",
        target: Some(Target::Ratio(0.33)),
    },
    Column {
        title: "nothing changed",
        target: Some(Target::Time(Duration::from_millis(150))),
    },
];

/// Measures; gives the section of the page.
pub(super) fn run(workshop: &Workshop, options: &Options) -> Result<String> {
    let context = workshop.turns.join("w1");
    workload::make_w1(&context)?;
    let seed = seeds::debian(workshop)?;
    let recipe = recipe(&context);
    let restore = || workload::restore(&context);
    let edit = || workload::edit(&context);
    let step = |name, before| Step {
        name: Some(name),
        recipe,
        before,
    };
    let steps = [
        step(COLUMNS[0].title, Some(&restore as &dyn Fn() -> Result<()>)),
        step(COLUMNS[1].title, Some(&edit)),
        step(COLUMNS[2].title, None),
    ];
    let race = Race {
        name: "w1",
        seed: Some(&seed),
        steps: &steps,
        cannot: &[],
        large: false,
    };
    let rows = race.run(workshop, options)?;
    Ok(format!(
        "A Debian base of 170 MB, 5,000 source files (82.6 MB), two stages, three RUNs, and a push to a registry on the same\n\
         machine.\n\n{}\n\
         - *Cold*: nothing cached, the base comes from the registry. *One file edited*: a line appended to one of the sources.\n",
        report::table(&COLUMNS, &rows)
    ))
}

/// How W1 is built.
pub(super) fn recipe(context: &std::path::Path) -> Recipe<'_> {
    Recipe {
        context,
        file: "Dockerfile",
        base: seeds::DEBIAN,
        tag: "1",
    }
}
