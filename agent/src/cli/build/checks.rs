//! Build checks over what is built, for `--check` and for every build.

use roadstead_builder::dockerfile::check::{self, Finding, Input, Options};
use roadstead_builder::progress::Progress;
use roadstead_builder::solve::stored_base;
use roadstead_registry_client::{Platform, Store};

use super::Args;
use super::source::Source;
use crate::error::CliError;

/// Stands in place of the file's `# check=`.
const CHECK: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// What was found, and whether it fails a build.
pub(super) struct Checks {
    pub(super) findings: Vec<Finding>,
    fail: bool,
}

impl Checks {
    /// Checks every stage, or those the named target needs. `store` tells of base images that lie here.
    pub(super) fn of_file(args: &Args, source: &Source, store: Option<&Store>) -> Result<Self, CliError> {
        Self::run(args, source, store, true)
    }

    /// Checks the stages that a build needs.
    pub(super) fn of_build(args: &Args, source: &Source, store: &Store) -> Result<Self, CliError> {
        Self::run(args, source, Some(store), false)
    }

    fn run(args: &Args, source: &Source, store: Option<&Store>, all_stages: bool) -> Result<Self, CliError> {
        let options = match source.build_args.get(CHECK) {
            Some(text) => Options::parse(text).map_err(|e| CliError::usage(format!("`{CHECK}={text}`: {e}")))?,
            None => source.dockerfile.check.clone(),
        };
        let find_base = |name: &str, platform: &Platform| {
            // A store that cannot be read is an error of the build, which needs it.
            let base = stored_base(store?, name, platform).ok().flatten();
            // A build asks the registry for the right one.
            base.filter(|base| all_stages || platform.matches(&base.platform))
        };
        let input = Input {
            build_args: &source.build_args,
            platform: &first_platform(args)?,
            target: args.target.as_deref(),
            all_stages,
            ignored: &|path| source.context.ignore.excludes_source(path),
            find_base: &find_base,
        };
        Ok(Self {
            findings: check::check(&source.dockerfile, &input, &options),
            fail: options.findings_are_errors(),
        })
    }

    /// Tells the user, a line a finding.
    pub(super) fn warn(&self, progress: &Progress) {
        for finding in &self.findings {
            let (rule, line) = (finding.rule.name(), finding.span.line);
            progress.warn(format!("{rule}: {} (line {line})", finding.message));
        }
    }

    /// The error of `check=error=true`.
    pub(super) fn error(&self) -> Option<CliError> {
        let mut rules: Vec<_> = self.findings.iter().map(|finding| finding.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        let names: Vec<_> = rules.into_iter().map(check::Rule::name).collect();
        let error = || CliError::failed(format!("lint violation found for rules: {}", names.join(", ")));
        (self.fail && !names.is_empty()).then(|| {
            error().hint("`check` has `error=true`: mend what the warnings name, or name the rules in its `skip=`")
        })
    }
}

/// Reads `--platform`: all platforms, each once, or none. `local` is this machine's.
pub(super) fn platforms(args: &Args) -> Result<Vec<Platform>, CliError> {
    let mut platforms: Vec<Platform> = Vec::new();
    for text in args.platforms.iter().flat_map(|list| list.split(',')) {
        let platform = match text.trim() {
            "local" => Platform::host(),
            text => text.parse().map_err(CliError::usage)?,
        };
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// The platform that checks and outlines tell of: the first.
pub(super) fn first_platform(args: &Args) -> Result<Platform, CliError> {
    Ok(platforms(args)?.into_iter().next().unwrap_or_else(Platform::host))
}
