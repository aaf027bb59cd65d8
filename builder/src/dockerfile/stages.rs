//! Instructions grouped into stages, with the ARGs before the first FROM kept apart.

use super::check::Options;
use super::instruction::{Instruction, Kind};
use super::{DockerfileError, Excerpt, SourceText, Span};
use std::collections::HashMap;
use std::sync::Arc;

/// Holds a parsed Dockerfile.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// ARGs before the first FROM.
    pub global_args: Vec<Instruction>,
    /// The stages in order.
    pub stages: Vec<Stage>,
    /// The escape character.
    pub escape: char,
    /// The `check` directive.
    pub check: Options,
    pub(crate) source: Arc<SourceText>,
    /// The numbers of the stages that have a name, in order: files of very many stages are searched for each of them.
    numbers: HashMap<String, Vec<usize>>,
}

/// Holds one stage.
#[derive(Debug, Clone)]
pub struct Stage {
    /// `AS name`, in lower case.
    pub name: Option<String>,
    /// The image or stage named by FROM, before expansion.
    pub image: String,
    /// `--platform`, before expansion.
    pub platform: Option<String>,
    /// The FROM instruction.
    pub from: Instruction,
    /// Where the image's name stands.
    pub image_span: Span,
    /// What follows FROM.
    pub instructions: Vec<Instruction>,
}

impl Dockerfile {
    /// Finds a stage by name (any case) or by number.
    #[must_use]
    pub fn stage_index(&self, name: &str, before: usize) -> Option<usize> {
        self.stage_named(name, before)
            .or_else(|| name.parse::<usize>().ok().filter(|n| *n < before))
    }

    /// Finds the last stage of a name (any case) before stage `before`.
    #[must_use]
    pub fn stage_named(&self, name: &str, before: usize) -> Option<usize> {
        let numbers = self.numbers.get(&name.to_ascii_lowercase())?;
        let earlier = numbers.partition_point(|number| *number < before);
        numbers.get(earlier.checked_sub(1)?).copied()
    }

    /// Gives the file's name and text.
    #[must_use]
    pub fn source(&self) -> &SourceText {
        &self.source
    }

    /// Makes an error at a place of this file.
    #[must_use]
    pub fn error(&self, span: Span, message: impl Into<String>) -> DockerfileError {
        DockerfileError::new(&self.source, span, message)
    }

    /// Cuts out an instruction with the lines around it.
    #[must_use]
    pub fn excerpt(&self, instruction: &Instruction) -> Excerpt {
        Excerpt::new(&self.source, instruction.span.line, instruction.extent.last_line)
    }
}

pub(super) fn group(
    source: &Arc<SourceText>,
    instructions: Vec<Instruction>,
    escape: char,
    check: Options,
) -> Result<Dockerfile, Box<DockerfileError>> {
    let mut file = Dockerfile {
        global_args: Vec::new(),
        stages: Vec::new(),
        escape,
        check,
        source: Arc::clone(source),
        numbers: HashMap::new(),
    };
    for instruction in instructions {
        match (&instruction.kind, file.stages.last_mut()) {
            (
                Kind::From {
                    image,
                    platform,
                    name,
                    image_span,
                },
                _,
            ) => {
                let stage = Stage {
                    name: name.clone(),
                    image: image.clone(),
                    platform: platform.clone(),
                    image_span: *image_span,
                    from: instruction.clone(),
                    instructions: Vec::new(),
                };
                if let Some(name) = name {
                    file.numbers.entry(name.clone()).or_default().push(file.stages.len());
                }
                file.stages.push(stage);
            }
            (_, Some(stage)) => stage.instructions.push(instruction),
            (Kind::Arg(_), None) => file.global_args.push(instruction),
            (_, None) => {
                let error = DockerfileError::new(source, instruction.span, "no build stage in current context")
                    .with_hint("only ARG may stand before the first FROM");
                return Err(Box::new(error));
            }
        }
    }
    if file.stages.is_empty() {
        let span = Span {
            line: 1,
            column: 1,
            length: 1,
        };
        return Err(Box::new(DockerfileError::new(
            source,
            span,
            "no FROM instruction found",
        )));
    }
    check_sources(&file)?;
    Ok(file)
}

/// Refuses a source whose number names no earlier stage; a name may still be an image.
fn check_sources(file: &Dockerfile) -> Result<(), Box<DockerfileError>> {
    for (index, stage) in file.stages.iter().enumerate() {
        for instruction in &stage.instructions {
            for from in instruction.kind.sources() {
                check_source(file, index, stage, from)
                    .map_err(|message| Box::new(file.error(instruction.span, message)))?;
            }
        }
    }
    Ok(())
}

fn check_source(file: &Dockerfile, index: usize, stage: &Stage, from: &str) -> Result<(), String> {
    if file.stage_index(from, index).is_some() {
        return Ok(());
    }
    if from.parse::<usize>().is_ok() {
        return Err(format!(
            "`from={from}` names no earlier stage: there are {index} before this one"
        ));
    }
    if stage.name.as_deref() == Some(from.to_ascii_lowercase().as_str()) {
        return Err(format!("`from={from}` names the stage it stands in"));
    }
    Ok(())
}
