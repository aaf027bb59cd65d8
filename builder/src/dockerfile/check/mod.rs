//! Build checks: what is legal in a Dockerfile and unwise all the same. They never change what a build does.
//!
//! `rules` names them, `options` says which count, `names` looks at how the file is written, `from` at the base images, `stage` walks
//! through the instructions of each stage. Source: BuildKit's checks, frontend 1.26; texts are equal so that filters on them still work.

mod from;
mod names;
mod options;
mod rules;
mod secrets;
mod stage;

pub use options::Options;
pub use rules::Rule;

use super::instruction::Instruction;
use super::scope::Globals;
use super::{Dockerfile, Span};
use roadstead_registry_client::Platform;
use std::collections::BTreeMap;

/// Holds one thing a rule finds fault with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// What is wrong at this place.
    pub message: String,
    /// The instruction's first line.
    pub span: Span,
    /// The instruction's last line.
    pub last_line: usize,
}

/// Holds what is known of a base image.
#[derive(Debug, Clone, Default)]
pub struct BaseImage {
    /// Its variables, as `NAME=value`.
    pub env: Vec<String>,
    /// Whether it sets SHELL.
    pub has_shell: bool,
    /// Its ONBUILD triggers.
    pub triggers: Vec<String>,
    /// What it is made for.
    pub platform: Platform,
}

/// Finds the config of a base image: its name, and the platform that is asked for. `None` when it is not known here.
pub type FindBase<'a> = &'a dyn Fn(&str, &Platform) -> Option<BaseImage>;

/// Holds what checks need besides the file.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// `--build-arg`s.
    pub build_args: &'a BTreeMap<String, String>,
    /// What is built for.
    pub platform: &'a Platform,
    /// The stage that is built, or the last.
    pub target: Option<&'a str>,
    /// Whether stages that the target does not need are looked at, too.
    pub all_stages: bool,
    /// Tells whether the ignore file leaves out a path of the context.
    pub ignored: &'a dyn Fn(&str) -> bool,
    /// Finds base images. Rules that need one which is not known find nothing.
    pub find_base: FindBase<'a>,
}

impl std::fmt::Debug for Input<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").finish_non_exhaustive()
    }
}

/// Applies all rules that `options` want. Gives what they find in the order of the lines.
#[must_use]
pub fn check(file: &Dockerfile, input: &Input<'_>, options: &Options) -> Vec<Finding> {
    let mut findings = Findings {
        options,
        list: Vec::new(),
    };
    names::check(file, &mut findings);
    let target = input.target.unwrap_or("default");
    let globals = Globals::new(file, input.build_args, input.platform, target);
    from::check(file, input, &globals, target, &mut findings);
    stage::check(file, input, &globals, &mut findings);
    let mut list = findings.list;
    list.sort_by_key(|finding| finding.span.line);
    list
}

/// Collects findings of the rules that count.
struct Findings<'a> {
    options: &'a Options,
    list: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, rule: Rule, at: &Instruction, message: String) {
        self.add_at(rule, at, at.span, at.extent.last_line, message);
    }

    fn add_at(&mut self, rule: Rule, owner: &Instruction, span: Span, last_line: usize, message: String) {
        if self.options.wants_below(rule, &owner.extent.comments) {
            self.list.push(Finding {
                rule,
                message,
                span,
                last_line,
            });
        }
    }
}

/// Finds the name that was probably meant: at most two edits away, the nearest.
fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Option<&'a str> {
    let near = known.map(|known| (super::instruction::distance(known, name), known.as_str()));
    let (distance, known) = near.min_by_key(|(distance, _)| *distance)?;
    (1..=2).contains(&distance).then_some(known)
}

#[cfg(test)]
mod tests;
