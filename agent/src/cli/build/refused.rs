//! docker build's flags that are known and not honoured yet, so that the message says which one it is.

use clap::error::Error;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// Flags with a value, and their short forms.
const WITH_VALUE: &[(&str, Option<char>)] = &[
    ("add-host", None),
    ("allow", None),
    ("attest", None),
    ("cache-from", None),
    ("cache-to", None),
    ("cgroup-parent", None),
    ("cpu-period", None),
    ("cpu-quota", None),
    ("cpu-shares", Some('c')),
    ("cpuset-cpus", None),
    ("cpuset-mems", None),
    ("isolation", None),
    ("memory", Some('m')),
    ("memory-swap", None),
    ("no-cache-filter", None),
    ("policy", None),
    ("security-opt", None),
    ("shm-size", None),
    ("ssh", None),
    ("ulimit", None),
];
/// Flags without one.
const PLAIN: &[&str] = &["squash"];

/// The first such flag that was given.
#[derive(Debug, Default)]
pub(super) struct Refused(Option<&'static str>);

impl Refused {
    /// Says which flag cannot be honoured.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.0 {
            Some(name) => Err(format!("cannot honour `--{name}` yet")),
            None => Ok(()),
        }
    }
}

impl Args for Refused {
    fn augment_args(command: Command) -> Command {
        let with_value = WITH_VALUE.iter().map(|(name, short)| {
            let flag = Arg::new(*name).long(*name).hide(true).action(ArgAction::Append);
            let flag = flag.allow_hyphen_values(true);
            match short {
                Some(short) => flag.short(*short),
                None => flag,
            }
        });
        let plain = PLAIN
            .iter()
            .map(|name| Arg::new(*name).long(*name).hide(true).action(ArgAction::Count));
        command.args(with_value).args(plain)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Refused {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut names = WITH_VALUE.iter().map(|(name, _)| *name).chain(PLAIN.iter().copied());
        Ok(Self(names.find(|name| {
            matches.value_source(name) == Some(ValueSource::CommandLine)
        })))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Args;

    #[derive(Debug, Parser)]
    struct Build {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn each_is_named_and_harmless_ones_are_taken() {
        for (given, named) in [
            (&["--ssh=default", "."][..], "--ssh"),
            (&["--cache-from", "a", "--cache-from", "b", "."], "--cache-from"),
            (&[".", "--add-host", "a:1.2.3.4"], "--add-host"),
            (&["--ulimit", "nofile=1", "."], "--ulimit"),
            (&["-m", "512m", "."], "--memory"),
            (&["-c512", "."], "--cpu-shares"),
            (&["--memory-swap", "-1", "."], "--memory-swap"),
            (&["--squash", "."], "--squash"),
        ] {
            let parsed = Build::try_parse_from([&["build"], given].concat()).unwrap();
            assert_eq!(parsed.args.check(), Err(format!("cannot honour `{named}` yet")));
        }
        for given in [&["--compress", "."][..], &["--compress=false", "."], &["."]] {
            let parsed = Build::try_parse_from([&["build"], given].concat()).unwrap();
            assert_eq!(parsed.args.check(), Ok(()), "{given:?}");
        }
    }
}
