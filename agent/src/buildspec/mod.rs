//! `buildspec.yml`: its text, its meaning, and how its commands run.

pub(crate) mod diagnostic;
pub(crate) mod parse;
pub(crate) mod phases;
pub(crate) mod shell;
mod yaml;

pub(crate) use diagnostic::Diagnostic;
pub(crate) use parse::{Artifacts, Buildspec, OnFailure, PhaseName, PhaseSpec, ShellKind, Version};
