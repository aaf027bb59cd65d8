//! `--call` and `--check`: what is told of a Dockerfile without building it, as buildx prints it.

use std::process::ExitCode;

use roadstead_builder::dockerfile::outline::{self, Outline};
use roadstead_builder::progress::Progress;
use roadstead_builder::solve::{self, BuildError};

use super::checks::{self, Checks};
use super::source::Source;
use super::{Args, describe, failed, findings, progress};
use crate::error::CliError;
use crate::{data_directory, environment};

/// A request in place of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    what: What,
    json: bool,
    /// Whether findings leave the exit status at 0.
    ignore_status: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Check,
    Outline,
    Targets,
}

impl Call {
    /// Parses `--call`; `None` is an ordinary build.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        let (mut name, mut json, mut ignore_status) = (None, false, false);
        for field in text.split(',') {
            match field.split_once('=') {
                None if name.is_none() => name = Some(field),
                Some(("format", format @ ("json" | "text"))) => json = format == "json",
                Some(("ignorestatus", status @ ("true" | "1" | "false" | "0"))) => {
                    ignore_status = matches!(status, "true" | "1");
                }
                _ => {
                    return Err(format!(
                        "invalid `--call={text}`: expected METHOD[,format=json|text][,ignorestatus=true]"
                    ));
                }
            }
        }
        let what = match name {
            None | Some("build") => return Ok(None),
            Some("check" | "lint") => What::Check,
            Some("outline") => What::Outline,
            Some("targets") => What::Targets,
            Some(other) => {
                return Err(format!(
                    "cannot honour `--call={other}`: it is one of build, check, outline and targets"
                ));
            }
        };
        Ok(Some(Self {
            what,
            json,
            ignore_status,
        }))
    }

    /// What `--check` is short for.
    pub(super) const CHECK: Self = Self {
        what: What::Check,
        json: false,
        ignore_status: false,
    };

    /// Answers on standard output. Findings make the exit status 1.
    pub(super) fn answer(self, args: &Args) -> Result<ExitCode, CliError> {
        let renderer = progress::renderer(args.progress, args.quiet)?;
        let source = Source::local(args, &Progress::new(renderer.clone()));
        renderer.finish();
        let source = source?;
        match self.what {
            What::Check => self.check(args, &source),
            What::Outline => {
                let outline = outline_of(args, &source)?;
                let text = if self.json {
                    describe::outline_json(&outline, source.dockerfile.source())
                } else {
                    describe::outline(&outline)
                };
                super::super::print(&text)?;
                Ok(ExitCode::SUCCESS)
            }
            What::Targets => {
                let targets = outline::targets(&source.dockerfile);
                let text = if self.json {
                    describe::targets_json(&targets, source.dockerfile.source())
                } else {
                    describe::targets(&targets)
                };
                super::super::print(&text)?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    fn check(self, args: &Args, source: &Source) -> Result<ExitCode, CliError> {
        let directory = environment::data_directory().join("store");
        // A check leaves nothing behind, not even an empty store.
        let store = directory.is_dir().then(data_directory::store).transpose();
        let store = store.map_err(data_directory::failed)?;
        let checks = Checks::of_file(args, source, store.as_ref())?;
        let file = source.dockerfile.source();
        super::super::print(&if self.json {
            findings::json(&checks.findings, file)
        } else {
            findings::text(&checks.findings, file)
        })?;
        // What a build would stumble over before its first step: a target that does not exist, a base without a name.
        let platform = checks::first_platform(args)?;
        let needed = solve::needed_images(
            &source.dockerfile,
            args.target.as_deref(),
            &source.build_args,
            &platform,
        );
        needed.map_err(failed)?;
        let found = !checks.findings.is_empty() && !self.ignore_status;
        Ok(ExitCode::from(u8::from(found)))
    }
}

fn outline_of(args: &Args, source: &Source) -> Result<Outline, CliError> {
    let platform = checks::first_platform(args)?;
    let target = args.target.as_deref();
    let outline = outline::outline(&source.dockerfile, &source.build_args, &platform, target);
    outline.ok_or_else(|| {
        failed(BuildError::NoTarget(
            target.unwrap_or_default().to_owned(),
            String::new(),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_buildx() {
        assert_eq!(Call::parse("build"), Ok(None));
        assert_eq!(Call::parse("lint"), Ok(Some(Call::CHECK)));
        let call = Call::parse("format=json,outline").unwrap().unwrap();
        assert!(call.json && call.what == What::Outline);
        assert!(Call::parse("check,ignorestatus=true").unwrap().unwrap().ignore_status);
        for text in ["check,format=xml", "check,targets", "convertllb", "", "check,what=1"] {
            Call::parse(text).unwrap_err();
        }
    }
}
