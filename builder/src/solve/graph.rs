//! Which stages and images the target needs. What it does not need is never looked at.

use super::error::{BuildError, Result};
use super::named::NamedContexts;
use super::variables::Globals;
use crate::context::Context;
use crate::dockerfile::Dockerfile;
use crate::dockerfile::instruction::near;
use roadstead_registry_client::{Descriptor, Platform, Reference, without_login};
use std::collections::{BTreeMap, BTreeSet};

/// Where a stage or a `COPY --from` takes its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Scratch,
    Stage(usize),
    Image {
        reference: Reference,
        platform: Option<Platform>,
    },
    /// An image that lies in the local store without a name.
    Stored(Descriptor),
    Directory(Context),
}

/// Holds what the target needs.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) target: usize,
    /// Needed stages by number, with what FROM names.
    pub(super) stages: BTreeMap<usize, Origin>,
    /// The target and the stages it stands on: their layers are the image's.
    pub(super) in_image: BTreeSet<usize>,
    /// Stages in whose place a named context stands: their instructions are not run.
    pub(super) replaced: BTreeSet<usize>,
}

impl Graph {
    /// Walks back from the target.
    pub(super) fn new(
        file: &Dockerfile,
        target: Option<&str>,
        globals: &Globals,
        named: &NamedContexts,
    ) -> Result<Self> {
        let target = match target {
            None => file.stages.len() - 1,
            Some(name) => named_stage(file, name)?,
        };
        let mut graph = Self {
            target,
            stages: BTreeMap::new(),
            in_image: BTreeSet::new(),
            replaced: BTreeSet::new(),
        };
        graph.need(target, file, globals, named)?;
        let mut below = Some(target);
        while let Some(index) = below {
            graph.in_image.insert(index);
            below = match graph.stages.get(&index) {
                Some(Origin::Stage(other)) => Some(*other),
                _ => None,
            };
        }
        Ok(graph)
    }

    /// Adds a stage with all it needs; gives those that are new.
    pub(super) fn need(
        &mut self,
        index: usize,
        file: &Dockerfile,
        globals: &Globals,
        named: &NamedContexts,
    ) -> Result<Vec<usize>> {
        let mut new = Vec::new();
        let mut open = vec![index];
        while let Some(index) = open.pop() {
            if self.stages.contains_key(&index) {
                continue;
            }
            new.push(index);
            let name = file.stages[index].name.as_ref();
            if let Some(origin) = name.and_then(|name| named.get(name, globals.platform())) {
                self.stages.insert(index, origin);
                self.replaced.insert(index);
                continue;
            }
            let origin = from_origin(file, index, globals, named)?;
            if let Origin::Stage(other) = origin {
                open.push(other);
            }
            self.stages.insert(index, origin);
            for instruction in &file.stages[index].instructions {
                for from in instruction.kind.sources() {
                    open.extend(file.stage_index(from, index));
                }
            }
        }
        Ok(new)
    }
}

/// Finds the target; as with BuildKit only by its name.
fn named_stage(file: &Dockerfile, name: &str) -> Result<usize> {
    let lower = name.to_ascii_lowercase();
    let names = || file.stages.iter().filter_map(|stage| stage.name.as_deref());
    let found = file
        .stages
        .iter()
        .rposition(|stage| stage.name.as_deref() == Some(lower.as_str()));
    found.ok_or_else(|| BuildError::NoTarget(name.to_owned(), near(&lower, names())))
}

/// Gives the platform that FROM names for a stage.
pub(super) fn stage_platform(file: &Dockerfile, index: usize, globals: &Globals) -> Result<Option<Platform>> {
    let stage = &file.stages[index];
    let Some(text) = &stage.platform else { return Ok(None) };
    let at = |message: String| BuildError::At {
        place: Box::new(file.error(stage.image_span, message)),
    };
    let text = globals.expand(text, file.escape).map_err(|e| at(e.to_string()))?;
    text.parse()
        .map(Some)
        .map_err(|e: roadstead_registry_client::Error| at(e.to_string()))
}

fn from_origin(file: &Dockerfile, index: usize, globals: &Globals, named: &NamedContexts) -> Result<Origin> {
    let stage = &file.stages[index];
    let at = |message: String| BuildError::At {
        place: Box::new(file.error(stage.image_span, message)),
    };
    let image = globals
        .expand(&stage.image, file.escape)
        .map_err(|e| at(e.to_string()))?;
    if image.is_empty() {
        return Err(at(format!("base name `{}` should not be blank", stage.image)));
    }
    // A stage may be named `scratch`; the check ReservedStageName warns of it.
    if let Some(other) = file.stage_named(&image, index) {
        return Ok(Origin::Stage(other));
    }
    if image == "scratch" {
        return Ok(Origin::Scratch);
    }
    let platform = stage_platform(file, index, globals)?;
    if let Some(origin) = named.get(&image, platform.as_ref().unwrap_or(globals.platform())) {
        return Ok(origin);
    }
    let reference = image.parse().map_err(|e: roadstead_registry_client::Error| {
        at(format!("invalid image name `{}`: {e}", without_login(&image)))
    })?;
    Ok(Origin::Image { reference, platform })
}

/// Finds what the `from` of a COPY or of a mount names: an earlier stage, or an image.
pub(super) fn copy_origin(
    file: &Dockerfile,
    index: usize,
    from: &str,
    named: &NamedContexts,
    platform: &Platform,
) -> Result<Origin> {
    if let Some(stage) = file.stage_index(from, index) {
        return Ok(Origin::Stage(stage));
    }
    if let Some(origin) = named.get(from, platform) {
        return Ok(origin);
    }
    if from == "scratch" {
        return Ok(Origin::Scratch);
    }
    let reference = from.parse().map_err(|e: roadstead_registry_client::Error| {
        let from = without_login(from);
        BuildError::Other(format!("`from={from}` names no stage and no image: {e}"))
    })?;
    Ok(Origin::Image {
        reference,
        platform: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;
    use crate::solve::named::Named;

    fn graph(text: &str, target: Option<&str>, args: &[(&str, &str)]) -> Result<Graph> {
        let file = parse("Dockerfile", text).unwrap();
        let args: BTreeMap<String, String> = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let globals = Globals::new(&file, None, &args, &"linux/amd64".parse().unwrap())?;
        Graph::new(&file, target, &globals, &NamedContexts::default())
    }

    #[test]
    fn unused_stages_are_left_out() {
        let text = "ARG V=1\nFROM a:$V AS one\nFROM b AS two\nFROM one AS three\nFROM scratch\nCOPY --from=three /x /\nCOPY --from=img /y /";
        let mounted = "FROM a AS one\nFROM b AS two\nFROM scratch\nRUN --mount=type=cache,target=/c,from=two --mount=from=img,target=/d x";
        assert_eq!(
            graph(mounted, None, &[])
                .unwrap()
                .stages
                .keys()
                .copied()
                .collect::<Vec<_>>(),
            [1, 2]
        );
        let g = graph(text, None, &[("V", "2")]).unwrap();
        assert_eq!(g.stages.keys().copied().collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(
            g.stages[&0],
            Origin::Image {
                reference: "a:2".parse().unwrap(),
                platform: None
            }
        );
        assert_eq!(g.stages[&2], Origin::Stage(0));
        assert_eq!(g.in_image.iter().copied().collect::<Vec<_>>(), [3]);
        let on_one = graph(text, Some("three"), &[]).unwrap();
        assert_eq!(on_one.in_image.iter().copied().collect::<Vec<_>>(), [0, 2]);
        assert_eq!(graph(text, Some("TWO"), &[]).unwrap().stages.len(), 1);
        assert!(matches!(graph(text, Some("nope"), &[]), Err(BuildError::NoTarget(..))));
    }

    #[test]
    fn named_contexts_stand_in() {
        let file = parse(
            "Dockerfile",
            "FROM a AS one\nRUN x\nFROM b AS two\nFROM one\nCOPY --from=two /x /",
        )
        .unwrap();
        let globals = Globals::new(&file, None, &BTreeMap::new(), &"linux/amd64".parse().unwrap()).unwrap();
        let mut named = NamedContexts::default();
        named.insert("one", Named::Scratch);
        named.insert("b", Named::Image("c".parse().unwrap()));
        let graph = Graph::new(&file, None, &globals, &named).unwrap();
        assert_eq!(graph.stages[&0], Origin::Scratch);
        assert_eq!(graph.replaced.iter().copied().collect::<Vec<_>>(), [0]);
        assert!(matches!(&graph.stages[&1], Origin::Image { reference, .. } if reference.familiar() == "c"));
        assert_eq!(graph.stages[&2], Origin::Stage(0));
    }

    #[test]
    fn bad_bases_show_their_place() {
        for (text, want) in [
            ("FROM $X", "should not be blank"),
            ("FROM UPPER/x:y:z", "invalid image name"),
            ("FROM --platform=x/y/z/w a", "Dockerfile:1"),
        ] {
            let error = graph(text, None, &[]).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
