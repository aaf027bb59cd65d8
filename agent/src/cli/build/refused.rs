//! docker build's flags that are known and not honoured yet, so that the message says which one it is.

use clap::error::Error;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// Flags with a value, their short forms, and why they are refused.
const WITH_VALUE: &[(&str, Option<char>, &str)] = &[
    ("attest", None, YET),
    ("cgroup-parent", None, CONTROL_GROUP),
    ("cpu-period", None, CONTROL_GROUP),
    ("cpu-quota", None, CONTROL_GROUP),
    ("cpu-shares", Some('c'), CONTROL_GROUP),
    ("cpuset-cpus", None, CONTROL_GROUP),
    ("cpuset-mems", None, CONTROL_GROUP),
    ("isolation", None, YET),
    ("memory", Some('m'), CONTROL_GROUP),
    ("memory-swap", None, CONTROL_GROUP),
    ("policy", None, YET),
    ("security-opt", None, YET),
];
/// Flags without one.
const PLAIN: &[(&str, &str)] = &[("squash", YET)];

/// What there is not yet.
const YET: &str = " yet";
/// Why limits of a control group are refused.
const CONTROL_GROUP: &str = ": RUN commands have no control group of their own; limit the whole build, as with `systemd-run --scope -p MemoryMax=2G`";

/// The first such flag that was given, and why it is refused.
#[derive(Debug, Default)]
pub(super) struct Refused(Option<(&'static str, &'static str)>);

impl Refused {
    /// Says which flag cannot be honoured.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.0 {
            Some((name, why)) => Err(format!("cannot honour `--{name}`{why}")),
            None => Ok(()),
        }
    }
}

impl Args for Refused {
    fn augment_args(command: Command) -> Command {
        let with_value = WITH_VALUE.iter().map(|(name, short, _)| {
            let flag = Arg::new(*name).long(*name).hide(true).action(ArgAction::Append);
            let flag = flag.allow_hyphen_values(true);
            match short {
                Some(short) => flag.short(*short),
                None => flag,
            }
        });
        let plain = PLAIN
            .iter()
            .map(|(name, _)| Arg::new(*name).long(*name).hide(true).action(ArgAction::Count));
        command.args(with_value).args(plain)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Refused {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let with_value = WITH_VALUE.iter().map(|(name, _, why)| (*name, *why));
        let mut flags = with_value.chain(PLAIN.iter().copied());
        Ok(Self(flags.find(|(name, _)| {
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
            (
                &["-m", "512m", "."][..],
                "`--memory`: RUN commands have no control group",
            ),
            (&["-c512", "."], "`--cpu-shares`: RUN"),
            (&["--memory-swap", "-1", "."], "`--memory-swap`: RUN"),
            (&["--squash", "."], "`--squash` yet"),
            (
                &["--allow", "network.host,security.insecure", "."],
                "`--allow=security.insecure`: a RUN never gets",
            ),
            (
                &["--allow=device=vendor.com/gpu", "."],
                "`--allow=device=vendor.com/gpu`: a RUN sees no devices",
            ),
            (&["--allow=fs.read=/", "."], "`--allow=fs.read=/`: it is one of"),
        ] {
            let parsed = Build::try_parse_from([&["build"], given].concat()).unwrap();
            let error = parsed.args.check().unwrap_err();
            assert!(error.starts_with(&format!("cannot honour {named}")), "{error}");
        }
        for bad in ["--add-host=a:b", "--ulimit=files=1", "--shm-size=0", "--network=bridge"] {
            let error = Build::try_parse_from(["build", bad, "."]).unwrap_err().to_string();
            assert!(error.contains(bad.split('=').next().unwrap()), "{error}");
        }
        for given in [
            &["--compress", "."][..],
            &["--compress=false", "."],
            &["--allow=network.host", "--network=none", "."],
            &["."],
        ] {
            let parsed = Build::try_parse_from([&["build"], given].concat()).unwrap();
            assert_eq!(parsed.args.check(), Ok(()), "{given:?}");
        }
    }
}
