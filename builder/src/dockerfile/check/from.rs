//! Rules on FROM: its variables, its platform, and what it comes to when no build argument is given.

use super::{Findings, Input, Rule, suggestion};
use crate::dockerfile::scope::{Expanded, Globals};
use crate::dockerfile::{Dockerfile, Stage};
use roadstead_registry_client::{Platform, Reference};
use std::collections::BTreeMap;

pub(super) fn check(
    file: &Dockerfile,
    input: &Input<'_>,
    globals: &Globals,
    target: &str,
    findings: &mut Findings<'_>,
) {
    defaults(file, input, target, findings);
    for stage in &file.stages {
        let image = globals.expand(&stage.image, file.escape).ok();
        let platform = stage.platform.as_deref().map(|text| globals.expand(text, file.escape));
        let platform = platform.and_then(Result::ok);
        for expanded in [&image, &platform].into_iter().flatten() {
            undeclared(stage, expanded, globals, findings);
        }
        if let Some(platform) = &platform {
            redundant_platform(stage, platform, globals, findings);
            constant_platform(stage, platform, findings);
        }
    }
}

/// A base must have a name even when no build argument is given.
fn defaults(file: &Dockerfile, input: &Input<'_>, target: &str, findings: &mut Findings<'_>) {
    let globals = Globals::new(file, &BTreeMap::new(), input.platform, target);
    for stage in &file.stages {
        let Ok(image) = globals.expand(&stage.image, file.escape) else {
            return;
        };
        if image.text.parse::<Reference>().is_err() {
            let message = format!(
                "Default value for ARG {} results in empty or invalid base image name",
                stage.image
            );
            findings.add(Rule::InvalidDefaultArgInFrom, &stage.from, message);
        }
    }
}

fn undeclared(stage: &Stage, expanded: &Expanded, globals: &Globals, findings: &mut Findings<'_>) {
    for name in &expanded.unmatched {
        if globals.declared.contains(name) {
            continue;
        }
        let mut message = format!("FROM argument '{name}' is not declared");
        if let Some(near) = suggestion(name, globals.names()) {
            message = format!("{message} (did you mean {near}?)");
        }
        findings.add(Rule::UndefinedArgInFrom, &stage.from, message);
    }
}

fn redundant_platform(stage: &Stage, platform: &Expanded, globals: &Globals, findings: &mut Findings<'_>) {
    let alone = platform.matched == ["TARGETPLATFORM"] && platform.unmatched.is_empty();
    if alone && globals.get("TARGETPLATFORM") == Some(&platform.text) {
        let written = stage.platform.as_deref().unwrap_or_default();
        let message =
            format!("Setting platform to predefined {written} in FROM is redundant as this is the default behavior");
        findings.add(Rule::RedundantTargetPlatform, &stage.from, message);
    }
}

/// A stage whose name says for what it is built may say it in its platform as well.
fn constant_platform(stage: &Stage, expanded: &Expanded, findings: &mut Findings<'_>) {
    let Ok(platform) = expanded.text.parse::<Platform>() else {
        return;
    };
    let name = stage.name.as_deref().unwrap_or_default();
    let constant = expanded.matched.is_empty() && expanded.unmatched.is_empty();
    if constant && !name.contains(&platform.os) && !name.contains(&platform.architecture) {
        let message = format!("FROM --platform flag should not use constant value {:?}", expanded.text);
        findings.add(Rule::FromPlatformFlagConstDisallowed, &stage.from, message);
    }
}
