//! Which stages a target needs and what they stand on, read without building.

use super::scope::Globals;
use super::{Dockerfile, Stage};
use roadstead_registry_client::Platform;
use std::collections::{BTreeSet, HashMap};

/// What a stage stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Scratch,
    Stage(usize),
    Image {
        name: String,
        platform: Platform,
    },
    /// A name that cannot be told, for which the build itself has an error.
    Unknown,
}

/// Tells what each stage stands on.
pub(super) fn origins(file: &Dockerfile, globals: &Globals, platform: &Platform) -> Vec<Origin> {
    // A later stage takes over the name of an earlier one.
    let mut named: HashMap<&str, usize> = HashMap::new();
    let mut origins = Vec::with_capacity(file.stages.len());
    for (index, stage) in file.stages.iter().enumerate() {
        origins.push(origin(file, stage, &named, globals, platform));
        named.extend(stage.name.as_deref().map(|name| (name, index)));
    }
    origins
}

fn origin(
    file: &Dockerfile,
    stage: &Stage,
    named: &HashMap<&str, usize>,
    globals: &Globals,
    platform: &Platform,
) -> Origin {
    let Ok(image) = globals.expand(&stage.image, file.escape) else {
        return Origin::Unknown;
    };
    let name = image.text;
    if let Some(other) = named.get(name.to_ascii_lowercase().as_str()) {
        return Origin::Stage(*other);
    }
    let platform = match stage.platform.as_deref().map(|text| globals.expand(text, file.escape)) {
        None => Some(platform.clone()),
        Some(expanded) => expanded.ok().and_then(|expanded| expanded.text.parse().ok()),
    };
    match (name.as_str(), platform) {
        ("scratch", _) => Origin::Scratch,
        ("", _) | (_, None) => Origin::Unknown,
        (_, Some(platform)) => Origin::Image { name, platform },
    }
}

/// Lists the stages that the target needs, itself among them; nothing when there is no such target.
pub(super) fn needed(file: &Dockerfile, target: Option<&str>, origins: &[Origin]) -> BTreeSet<usize> {
    let count = file.stages.len();
    let target = match target {
        None => Some(count - 1),
        Some(name) => file.stage_index(name, count),
    };
    let mut needed = BTreeSet::new();
    let mut open: Vec<usize> = target.into_iter().collect();
    while let Some(index) = open.pop() {
        if !needed.insert(index) {
            continue;
        }
        if let Origin::Stage(other) = origins[index] {
            open.push(other);
        }
        let sources = file.stages[index].instructions.iter().flat_map(|i| i.kind.sources());
        open.extend(sources.filter_map(|from| file.stage_index(from, index)));
    }
    needed
}
