//! `cargo xtask soak`: tests that draw their cases, with many more cases than `cargo xtask test` has time for, and what
//! needs Docker.

mod docker;
mod killed_cage;
mod killed_w1;

use std::process::Command;

use crate::command::run as run_command;
use crate::error::{Result, TaskError};
use crate::tools::{self, Need};
use crate::workspace::{self, cargo};

const NEEDS: [Need; 4] = [
    Need::Program("docker-registry", "docker-registry"),
    Need::Program("mmdebstrap", "mmdebstrap"),
    Need::Package("busybox-static"),
    Need::Program("newuidmap", "uidmap"),
];

/// Everything that can be asked for by `--only`.
const PARTS: [&str; 8] = [
    "chaos",
    "kill",
    "corrupt",
    "together",
    "killed-builds",
    "killed-w1",
    "killed-cage",
    "docker",
];

/// A part that is a test: where it is, and how often it draws when nobody says.
#[derive(Debug, Clone, Copy)]
struct Drawn {
    package: &'static str,
    target: &'static str,
    /// Its name, or the beginning of the names of several.
    filter: &'static str,
    /// Between `ROADSTEAD_` and `_ROUNDS` or `_SEED` in the variables that it reads.
    variable: &'static str,
    rounds: u64,
}

/// The part of the name `part`, if it is a test.
fn drawn(part: &str) -> Option<Drawn> {
    let registry = |filter, variable, rounds| Drawn {
        package: "roadstead-registry-client",
        target: "registry",
        filter,
        variable,
        rounds,
    };
    let it = |filter, variable, rounds| Drawn {
        package: "roadstead-tests",
        target: "it",
        filter,
        variable,
        rounds,
    };
    match part {
        "chaos" => Some(registry("chaos", "CHAOS", 200)),
        "kill" => Some(it("a_pull_killed_at_any_moment", "KILL", 50)),
        "corrupt" => Some(it("a_damaged_data_directory", "CORRUPT", 500)),
        "together" => Some(it("builds_together", "TOGETHER", 50)),
        "killed-builds" => Some(it("a_build_killed_at_any_moment", "KILLED_BUILDS", 100)),
        _ => None,
    }
}

/// What the person at the terminal asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    /// Without it each part draws as often as it thinks right.
    rounds: Option<u64>,
    /// Repeats what was drawn; without it each part draws its own, and prints it.
    seed: Option<u64>,
    parts: Vec<&'static str>,
}

impl Options {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self {
            rounds: None,
            seed: None,
            parts: PARTS.to_vec(),
        };
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            let value = rest
                .next()
                .ok_or_else(|| TaskError::new(format!("`{option}` is no option with a value")))?;
            match *option {
                "--rounds" => {
                    let rounds = value.parse().ok().filter(|rounds| *rounds > 0);
                    let wrong = || TaskError::new("`--rounds` takes a number from 1 on");
                    options.rounds = Some(rounds.ok_or_else(wrong)?);
                }
                "--seed" => {
                    let seed = value.parse();
                    options.seed = Some(seed.map_err(|_| TaskError::new("`--seed` takes a number of up to 64 bits"))?);
                }
                "--only" => options.parts = value.split(',').map(part).collect::<Result<_>>()?,
                _ => return Err(TaskError::new(format!("soak knows no option `{option}`"))),
            }
        }
        Ok(options)
    }
}

fn part(name: &str) -> Result<&'static str> {
    let found = PARTS.iter().find(|part| **part == name);
    found
        .copied()
        .ok_or_else(|| TaskError::new(format!("there is no part `{name}`, only {}", PARTS.join(", "))))
}

/// Runs the parts asked for; the first failure ends it.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let _lock = workspace::lock("soak")?;
    tools::install(&NEEDS)?;
    for part in &options.parts {
        println!("==> {part}");
        match (drawn(part), *part) {
            (Some(drawn), _) => run_command(&mut command(drawn, &options))?,
            (None, "killed-w1") => killed_w1::run(options.rounds, options.seed)?,
            (None, "killed-cage") => killed_cage::run(options.rounds, options.seed)?,
            (None, _) => docker::run()?,
        }
    }
    Ok(())
}

fn command(part: Drawn, options: &Options) -> Command {
    let Drawn {
        package,
        target,
        filter,
        variable,
        rounds,
    } = part;
    let rounds = options.rounds.unwrap_or(rounds);
    let variable = |what: &str| format!("ROADSTEAD_{variable}_{what}");
    let mut command = cargo();
    // The output is shown as it comes, for the seed stands in it.
    command
        .args(["test", "--locked", "--package", package])
        .args(["--test", target, "--", "--nocapture", filter])
        .env(variable("ROUNDS"), rounds.to_string());
    if let Some(seed) = options.seed {
        command.env(variable("SEED"), seed.to_string());
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_mistakes() {
        let defaults = Options::parse(&[]).unwrap();
        assert_eq!(
            (defaults.rounds, defaults.seed, &*defaults.parts),
            (None, None, &PARTS[..])
        );
        let options = Options::parse(&["--only", "chaos", "--rounds", "7", "--seed", "18446744073709551615"]).unwrap();
        assert_eq!((options.rounds, options.seed), (Some(7), Some(u64::MAX)));
        assert!(
            PARTS
                .iter()
                .all(|part| drawn(part).is_some() || ["killed-w1", "killed-cage", "docker"].contains(part))
        );
        for wrong in [
            &["--rounds", "0"][..],
            &["--seed"],
            &["--seed", "x"],
            &["--only", "calm"],
            &["--fast", "1"],
        ] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
