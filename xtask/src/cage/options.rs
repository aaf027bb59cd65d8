//! The command line of `cargo xtask cage`.

use std::path::PathBuf;

use crate::error::{Result, TaskError};

use super::container::Kind;

/// What the person at the terminal asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) kind: Kind,
    /// Names of directories below `tests/cage`.
    pub(super) only: Option<Vec<String>>,
    /// Build outside as well, and compare the times.
    pub(super) compare: bool,
    /// Build outside alone.
    pub(super) outside: bool,
    /// Keep the data directory on the cage's own root, not on a volume.
    pub(super) overlay: bool,
    /// Run the program that tries to get out.
    pub(super) hostile: bool,
    /// What there is time for in `cargo xtask test`.
    pub(super) short: bool,
    pub(super) binary: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kind: Kind::Plain,
            only: None,
            compare: true,
            outside: false,
            overlay: false,
            hostile: false,
            short: false,
            binary: None,
        }
    }
}

impl Options {
    pub(super) fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(option) = rest.next() {
            let mut value = || {
                rest.next()
                    .copied()
                    .ok_or_else(|| TaskError::new(format!("`{option}` needs a value")))
            };
            match *option {
                "--ptrace" => options.kind = Kind::Ptrace,
                "--restricted" => options.kind = Kind::Restricted,
                "--no-compare" => options.compare = false,
                "--outside" => options.outside = true,
                "--overlay" => options.overlay = true,
                "--hostile" => options.hostile = true,
                "--short" => options.short = true,
                "--only" => options.only = Some(value()?.split(',').map(str::to_owned).collect()),
                "--binary" => options.binary = Some(value()?.into()),
                _ => return Err(TaskError::new(format!("cage knows no option `{option}`"))),
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
        let options = Options::parse(&["--only", "gcc,go", "--no-compare", "--ptrace", "--binary", "x"]).unwrap();
        assert_eq!((options.kind, options.compare), (Kind::Ptrace, false));
        assert_eq!(options.only.unwrap(), ["gcc", "go"]);
        assert_eq!(Options::parse(&[]).unwrap(), Options::default());
        for wrong in [&["--only"][..], &["--fast"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
