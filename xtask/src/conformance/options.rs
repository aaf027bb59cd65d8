//! The command line of `cargo xtask conformance`.

use std::path::PathBuf;

use crate::cage::Kind;
use crate::error::{Result, TaskError};

/// What the person at the terminal asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Parts of names of cases, with commas between.
    pub(super) only: Option<String>,
    /// This many cases, drawn.
    pub(super) sample: Option<usize>,
    /// This many random Dockerfiles in place of the cases.
    pub(super) random: Option<u64>,
    pub(super) seed: u64,
    /// Compare digests of two builds in place of images of two builders.
    pub(super) digests: bool,
    /// Compare digests of builds out of every kind of cache with those of cold builds.
    pub(super) caches: bool,
    /// Compare images built in a cage of this kind with those built outside.
    pub(super) cage: Option<Kind>,
    pub(super) binary: Option<PathBuf>,
}

impl Options {
    pub(super) fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self {
            seed: 1,
            ..Self::default()
        };
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            match *option {
                "--digests" => {
                    options.digests = true;
                    continue;
                }
                "--caches" => {
                    options.caches = true;
                    continue;
                }
                "--cage" => {
                    options.cage = Some(Kind::Plain);
                    continue;
                }
                "--cage-ptrace" => {
                    options.cage = Some(Kind::Ptrace);
                    continue;
                }
                _ => {}
            }
            let value = *rest
                .next()
                .ok_or_else(|| TaskError::new(format!("`{option}` is no option with a value")))?;
            let number = || {
                let number = value.parse::<u64>().ok().filter(|number| *number > 0);
                number.ok_or_else(|| TaskError::new(format!("`{option}` takes a number from 1 on, not `{value}`")))
            };
            match *option {
                "--only" => options.only = Some(value.to_owned()),
                "--sample" => options.sample = usize::try_from(number()?).ok(),
                "--random" => options.random = Some(number()?),
                "--seed" => options.seed = number()?,
                "--binary" => options.binary = Some(value.into()),
                _ => return Err(TaskError::new(format!("conformance knows no option `{option}`"))),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_mistakes() {
        let options =
            Options::parse(&["--random", "9", "--digests", "--caches", "--seed", "3", "--only", "a,b"]).unwrap();
        assert_eq!((options.random, options.seed), (Some(9), 3));
        assert!(options.digests && options.caches);
        assert_eq!(options.only.as_deref(), Some("a,b"));
        assert_eq!(Options::parse(&["--cage-ptrace"]).unwrap().cage, Some(Kind::Ptrace));
        for wrong in [&["--random", "0"][..], &["--seed"], &["--seed", "x"], &["--fast", "1"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
