//! The variables a build's commands find.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;

use jiff::Timestamp;

use super::Request;
use crate::buildspec::Buildspec;
use crate::environment;
use crate::logs::Secrets;

/// What the variables are made of.
pub(super) struct Given<'a> {
    pub(super) request: &'a Request,
    pub(super) spec: &'a Buildspec,
    pub(super) start: Timestamp,
    pub(super) resolved_source_version: Option<&'a str>,
    /// What the shims need; its PATH entry goes before any other.
    pub(super) shims: Vec<(&'static str, OsString)>,
}

/// Region of a build that names none; CodeBuild always has one, and SDKs refuse to start without.
const DEFAULT_REGION: &str = "us-east-1";

/// Puts the variables together, the later of these winning: the caller's, CodeBuild's, the buildspec's, those given with the
/// job. The shims' directory stays first on PATH whatever they say. Secret values become known to `secrets`.
pub(super) fn assemble(given: &Given<'_>, secrets: &Secrets) -> BTreeMap<String, OsString> {
    let mut variables: BTreeMap<String, OsString> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| environment::passes_to_job(name))
        .collect();
    variables
        .entry("HOME".into())
        .or_insert_with(|| environment::home().into());
    regions(&mut variables);
    for (name, value) in codebuild(given) {
        variables.insert(name.to_owned(), value);
    }
    for (name, value) in given.spec.variables.iter().chain(&given.request.environment) {
        variables.insert(name.clone(), value.into());
    }
    for (name, value) in &given.shims {
        if *name == "PATH" {
            let rest = variables
                .get("PATH")
                .cloned()
                .unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
            let mut path = value.clone();
            path.push(":");
            path.push(rest);
            variables.insert("PATH".into(), path);
        } else {
            variables.insert((*name).to_owned(), value.clone());
        }
    }
    for name in environment::SECRET_NAMES {
        if let Some(value) = variables.get(name).and_then(|value| value.to_str()) {
            secrets.add(value);
        }
    }
    variables
}

fn regions(variables: &mut BTreeMap<String, OsString>) {
    let known = ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .find_map(|name| variables.get(name).cloned());
    let region = known.unwrap_or_else(|| DEFAULT_REGION.into());
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        variables.entry(name.into()).or_insert_with(|| region.clone());
    }
}

fn codebuild(given: &Given<'_>) -> Vec<(&'static str, OsString)> {
    let request = given.request;
    let id = format!("{}:{}", request.project, request.build);
    let region = env::var("AWS_REGION").or_else(|_| env::var("AWS_DEFAULT_REGION"));
    let region = region.unwrap_or_else(|_| DEFAULT_REGION.to_owned());
    let mut variables: Vec<(&'static str, OsString)> = vec![
        (
            "CODEBUILD_BUILD_ARN",
            format!("arn:aws:codebuild:{region}:000000000000:build/{id}").into(),
        ),
        ("CODEBUILD_BUILD_ID", id.into()),
        ("CODEBUILD_BUILD_NUMBER", request.number.to_string().into()),
        ("CODEBUILD_BUILD_SUCCEEDING", "1".into()),
        ("CODEBUILD_CI", "true".into()),
        ("CODEBUILD_CONTAINER_NAME", "default".into()),
        ("CODEBUILD_INITIATOR", request.initiator.clone().into()),
        ("CODEBUILD_LAST_EXIT", "0".into()),
        ("CODEBUILD_LOG_PATH", request.build.clone().into()),
        ("CODEBUILD_SRC_DIR", request.source.clone().into()),
        ("CODEBUILD_START_TIME", given.start.as_millisecond().to_string().into()),
    ];
    if let Some(version) = given.resolved_source_version {
        variables.push(("CODEBUILD_RESOLVED_SOURCE_VERSION", version.into()));
    }
    if let Some(version) = request.source_version.as_deref().or(given.resolved_source_version) {
        variables.push(("CODEBUILD_SOURCE_VERSION", version.into()));
    }
    if let Some(repository) = &request.repository {
        variables.push(("CODEBUILD_SOURCE_REPO_URL", repository.into()));
    }
    variables
}
