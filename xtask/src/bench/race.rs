//! Lets the builders take turns at one workload.

use std::path::Path;
use std::time::Duration;

use crate::error::Result;

use super::builders::{Builder, Recipe, Workshop};
use super::options::Options;
use super::report::Row;

/// A build within a turn.
pub(super) struct Step<'a> {
    /// What it is called; one without a name is not measured.
    pub(super) name: Option<&'a str>,
    pub(super) recipe: Recipe<'a>,
    /// What is done to the context first.
    pub(super) before: Option<&'a dyn Fn() -> Result<()>>,
}

/// A workload for all builders.
pub(super) struct Race<'a> {
    /// Its name in the names of directories.
    pub(super) name: &'a str,
    /// The data of the registry that each turn gets a copy of.
    pub(super) seed: Option<&'a Path>,
    /// The builds of a turn, one after the other.
    pub(super) steps: &'a [Step<'a>],
    /// Who cannot take part, and why.
    pub(super) cannot: &'a [(Builder, &'a str)],
    /// Whether what a turn wrote is removed at once, for it is large and of few files.
    pub(super) large: bool,
}

impl Race<'_> {
    /// Lets those who were asked for take turns in each round.
    pub(super) fn run(&self, workshop: &Workshop, options: &Options) -> Result<Vec<Row>> {
        let measured = self.steps.iter().filter(|step| step.name.is_some()).count();
        let mut rows: Vec<Row> = options
            .builders
            .iter()
            .map(|builder| self.row(*builder, measured))
            .collect();
        for round in 1..=options.rounds {
            for row in rows.iter_mut().filter(|row| row.cannot.is_none()) {
                self.turn(workshop, round, row)?;
            }
        }
        Ok(rows)
    }

    fn row(&self, builder: Builder, measured: usize) -> Row {
        let cannot = self.cannot.iter().find(|(who, _)| *who == builder);
        Row {
            builder,
            times: vec![Vec::new(); measured],
            cannot: cannot.map(|(_, reason)| (*reason).to_owned()),
        }
    }

    fn turn(&self, workshop: &Workshop, round: usize, row: &mut Row) -> Result<()> {
        let turn = workshop.turn(row.builder, &format!("{}-{round}", self.name), self.seed)?;
        let mut columns = row.times.iter_mut();
        for step in self.steps {
            if let Some(before) = step.before {
                before()?;
            }
            let time = turn.build(&step.recipe)?;
            let Some(name) = step.name else { continue };
            say(self.name, round, row.builder, name, time);
            if let Some(column) = columns.next() {
                column.push(time);
            }
        }
        if self.large { turn.remove() } else { Ok(()) }
    }
}

/// Tells who took how long.
pub(super) fn say(workload: &str, round: usize, builder: Builder, what: &str, time: Duration) {
    println!(
        "{workload}, round {round}, {}, {what}: {:.2} s",
        builder.name(),
        time.as_secs_f64()
    );
}
