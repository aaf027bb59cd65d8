//! What `cargo xtask bench` is asked for.

use std::path::PathBuf;

use crate::error::{Result, TaskError};

use super::builders::Builder;

/// Everything that can be measured, in the order of the page.
pub(super) const PARTS: [&str; 12] = [
    "w1", "w2", "w3", "w4", "w5", "w6", "cage", "memory", "startup", "growth", "limits", "copy",
];
const DEFAULT_ROUNDS: usize = 3;

/// What the person at the terminal asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) rounds: usize,
    /// What is measured.
    pub(super) parts: Vec<&'static str>,
    /// Who takes part.
    pub(super) builders: Vec<Builder>,
    /// What is measured in the place of a fresh build.
    pub(super) binary: Option<PathBuf>,
}

impl Options {
    /// Reads the words after `bench`.
    pub(super) fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self {
            rounds: DEFAULT_ROUNDS,
            parts: PARTS.to_vec(),
            builders: Builder::ALL.to_vec(),
            binary: None,
        };
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            let value = rest
                .next()
                .ok_or_else(|| TaskError::new(format!("`{option}` is no option with a value")))?;
            match *option {
                "--rounds" => {
                    let rounds = value.parse().ok().filter(|rounds| (1..=100).contains(rounds));
                    options.rounds = rounds.ok_or_else(|| TaskError::new("`--rounds` takes a number from 1 to 100"))?;
                }
                "--only" => options.only(value)?,
                "--binary" => options.binary = Some(PathBuf::from(value)),
                _ => return Err(TaskError::new(format!("bench knows no option `{option}`"))),
            }
        }
        Ok(options)
    }

    /// Takes parts and builders out of one list. Without a part it means all parts, and without a builder all builders.
    fn only(&mut self, list: &str) -> Result<()> {
        let names: Vec<&str> = list.split(',').collect();
        let known = |name: &str| PARTS.contains(&name) || Builder::ALL.iter().any(|builder| builder.name() == name);
        if let Some(name) = names.iter().find(|name| !known(name)) {
            let builders = Builder::ALL.map(Builder::name);
            return Err(TaskError::new(format!(
                "there is no part `{name}`, only {}, and the builders {}",
                PARTS.join(", "),
                builders.join(", ")
            )));
        }
        let parts: Vec<_> = PARTS.into_iter().filter(|part| names.contains(part)).collect();
        let builders: Vec<_> = Builder::ALL
            .into_iter()
            .filter(|builder| names.contains(&builder.name()))
            .collect();
        if !parts.is_empty() {
            self.parts = parts;
        }
        if !builders.is_empty() {
            self.builders = builders;
        }
        Ok(())
    }

    /// Whether a builder takes part.
    pub(super) fn has(&self, builder: Builder) -> bool {
        self.builders.contains(&builder)
    }

    /// The command that measures one part in the same way.
    pub(super) fn command(&self, part: &str) -> String {
        let builders = match self.builders.len() == Builder::ALL.len() {
            true => String::new(),
            false => self.builders.iter().map(|each| format!(",{}", each.name())).collect(),
        };
        format!("cargo xtask bench --only {part}{builders} --rounds {}", self.rounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_mistakes() {
        let defaults = Options::parse(&[]).unwrap();
        assert_eq!(
            (defaults.rounds, &*defaults.parts, &*defaults.builders),
            (3, &PARTS[..], &Builder::ALL[..])
        );
        let options = Options::parse(&["--only", "w3,buildkit,w1", "--rounds", "7"]).unwrap();
        assert_eq!(
            (options.rounds, &*options.parts, &*options.builders),
            (7, &["w1", "w3"][..], &[Builder::BuildKit][..])
        );
        assert_eq!(options.command("w1"), "cargo xtask bench --only w1,buildkit --rounds 7");
        let options = Options::parse(&["--only", "roadstead"]).unwrap();
        assert_eq!(
            (&*options.parts, &*options.builders),
            (&PARTS[..], &[Builder::Roadstead][..])
        );
        for wrong in [
            &["--rounds", "0"][..],
            &["--rounds"],
            &["--only", "kaniko"],
            &["--only", ""],
            &["--fast", "1"],
        ] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
