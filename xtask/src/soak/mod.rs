//! `cargo xtask soak`: tests that draw their cases, with many more cases than `cargo xtask test` has time for, and what
//! needs Docker.

mod docker;

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
const PARTS: [&str; 3] = ["chaos", "kill", "docker"];
/// A killed process costs more time than a broken connection.
const ROUNDS_FOR_A_KILL: u64 = 4;
const DEFAULT_ROUNDS: u64 = 200;

/// What the person at the terminal asked for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    rounds: u64,
    /// Repeats what was drawn; without it each part draws its own, and prints it.
    seed: Option<u64>,
    parts: Vec<&'static str>,
}

impl Options {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self {
            rounds: DEFAULT_ROUNDS,
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
                    options.rounds = rounds.ok_or_else(|| TaskError::new("`--rounds` takes a number from 1 on"))?;
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
        match *part {
            "docker" => docker::run()?,
            part => run_command(&mut command(part, &options))?,
        }
    }
    Ok(())
}

fn command(part: &str, options: &Options) -> Command {
    let (package, target, filter, rounds) = match part {
        "kill" => (
            "roadstead-tests",
            "it",
            "a_pull_killed_at_any_moment",
            options.rounds.div_ceil(ROUNDS_FOR_A_KILL),
        ),
        part => ("roadstead-registry-client", "registry", part, options.rounds),
    };
    let variable = |what: &str| format!("ROADSTEAD_{}_{what}", part.to_uppercase());
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
            (200, None, &PARTS[..])
        );
        let options = Options::parse(&["--only", "chaos", "--rounds", "7", "--seed", "18446744073709551615"]).unwrap();
        assert_eq!((options.rounds, options.seed), (7, Some(u64::MAX)));
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
