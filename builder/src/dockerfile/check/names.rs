//! Rules on how a file is written: casing, stage names, comments, continuations. They look at every line.

use super::options::directive;
use super::{Findings, Rule};
use crate::dockerfile::instruction::Instruction;
use crate::dockerfile::lexer::split_words;
use crate::dockerfile::{Dockerfile, Kind, Span, scope};
use std::collections::HashSet;

pub(super) fn check(file: &Dockerfile, findings: &mut Findings<'_>) {
    for instruction in all(file) {
        continuation(instruction, findings);
        match &instruction.kind {
            Kind::From { name, .. } => {
                from_casing(instruction, file.escape, findings);
                description("FROM", name.as_slice(), instruction, findings);
            }
            Kind::Arg(_) => {
                let names: Vec<String> = scope::args(instruction).iter().map(|(name, _)| name.clone()).collect();
                description("ARG", &names, instruction, findings);
            }
            Kind::Maintainer(_) => {
                let message = "Maintainer instruction is deprecated in favor of using label".to_owned();
                findings.add(Rule::MaintainerDeprecated, instruction, message);
            }
            _ => {}
        }
    }
    stage_names(file, findings);
    instruction_casing(file, findings);
}

fn all(file: &Dockerfile) -> impl Iterator<Item = &Instruction> {
    file.global_args.iter().chain(in_stages(file))
}

fn in_stages(file: &Dockerfile) -> impl Iterator<Item = &Instruction> {
    let stages = file.stages.iter();
    stages.flat_map(|stage| std::iter::once(&stage.from).chain(&stage.instructions))
}

fn continuation(instruction: &Instruction, findings: &mut Findings<'_>) {
    let Some(line) = instruction.extent.empty_continuation else {
        return;
    };
    let span = Span {
        line,
        column: 1,
        length: 1,
    };
    let message = "Empty continuation line".to_owned();
    findings.add_at(Rule::NoEmptyContinuation, instruction, span, line, message);
}

/// The keyword as it is written.
pub(super) fn keyword(instruction: &Instruction) -> &str {
    instruction.text.split_whitespace().next().unwrap_or_default()
}

fn is_lower(word: &str) -> bool {
    word == word.to_lowercase()
}

fn is_upper(word: &str) -> bool {
    word == word.to_uppercase()
}

fn from_casing(from: &Instruction, escape: char, findings: &mut Findings<'_>) {
    let words = split_words(&from.text, escape);
    let words: Vec<&str> = words.into_iter().map(|(_, word)| word).collect();
    let [.., as_word, name] = words.as_slice() else { return };
    if words.len() < 4 || !as_word.eq_ignore_ascii_case("as") {
        return;
    }
    if !is_lower(name) {
        let message = format!("Stage name '{name}' should be lowercase");
        findings.add(Rule::StageNameCasing, from, message);
    }
    let keyword = keyword(from);
    // Mixed case has a rule of its own.
    let matches = if is_lower(keyword) {
        is_lower(as_word)
    } else {
        !is_upper(keyword) || is_upper(as_word)
    };
    if !matches {
        let message = format!("'{as_word}' and '{keyword}' keywords' casing do not match");
        findings.add(Rule::FromAsCasing, from, message);
    }
}

/// A comment right above a stage or an ARG is taken for its description and so must begin with its name.
fn description(keyword: &str, names: &[String], at: &Instruction, findings: &mut Findings<'_>) {
    let comment = at.extent.comments.iter().rfind(|comment| directive(comment).is_none());
    let (Some(comment), [first, others @ ..]) = (comment, names) else {
        return;
    };
    let word = comment.split(' ').next().unwrap_or_default();
    // An empty comment sets the text above it apart, as the rule's page has it.
    if word.is_empty() || names.iter().any(|name| name == word) {
        return;
    }
    let name = if others.is_empty() { first } else { "<arg_key>" };
    let message = format!("Comment for {keyword} should follow the format: `# {name} <description>`");
    findings.add(Rule::InvalidDefinitionDescription, at, message);
}

fn stage_names(file: &Dockerfile, findings: &mut Findings<'_>) {
    let mut seen = HashSet::new();
    for stage in &file.stages {
        let Some(name) = stage.name.as_deref() else { continue };
        if matches!(name, "scratch" | "context") {
            let message = format!("Stage name should not use the same name as reserved stage {name:?}");
            findings.add(Rule::ReservedStageName, &stage.from, message);
        }
        if !seen.insert(name) {
            let message = format!("Duplicate stage name {name:?}, stage names should be unique");
            findings.add(Rule::DuplicateStageName, &stage.from, message);
        }
    }
}

fn instruction_casing(file: &Dockerfile, findings: &mut Findings<'_>) {
    let lower = in_stages(file).filter(|i| is_lower(keyword(i))).count();
    let upper = in_stages(file).filter(|i| is_upper(keyword(i))).count();
    let lower_wins = lower > upper;
    let (wanted, casing): (fn(&str) -> bool, _) = if lower_wins {
        (is_lower, "lowercase")
    } else {
        (is_upper, "uppercase")
    };
    for instruction in in_stages(file) {
        let keyword = keyword(instruction);
        if !wanted(keyword) {
            let message = format!("Command '{keyword}' should match the case of the command majority ({casing})");
            findings.add(Rule::ConsistentInstructionCasing, instruction, message);
        }
    }
}
