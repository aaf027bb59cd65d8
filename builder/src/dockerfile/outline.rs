//! What a build can be given: its targets, and the arguments and secrets of one of them. Source: BuildKit's subrequests
//! `frontend.targets` and `frontend.outline`.

use super::instruction::Instruction;
use super::mount::Mount;
use super::needs::{Origin, needed, origins};
use super::scope::{Globals, Scope, args};
use super::{Dockerfile, Kind, Stage};
use roadstead_registry_client::Platform;
use std::collections::BTreeMap;

/// Holds the lines of an instruction, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lines {
    /// The first.
    pub first: usize,
    /// The last.
    pub last: usize,
}

impl Lines {
    fn of(instruction: &Instruction) -> Self {
        Self {
            first: instruction.span.line,
            last: instruction.extent.last_line,
        }
    }
}

/// Holds a stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, when it has one.
    pub name: Option<String>,
    /// Whether it is built when no target is named.
    pub is_default: bool,
    /// What the comment above it says.
    pub description: String,
    /// What FROM names, before expansion.
    pub base: String,
    /// `--platform`, before expansion.
    pub platform: Option<String>,
    /// Its FROM.
    pub lines: Lines,
}

/// Lists the stages in order.
#[must_use]
pub fn targets(file: &Dockerfile) -> Vec<Target> {
    let last = file.stages.len() - 1;
    let stages = file.stages.iter().enumerate();
    stages
        .map(|(index, stage)| Target {
            name: stage.name.clone(),
            is_default: index == last,
            description: stage_description(stage),
            base: stage.image.clone(),
            platform: stage.platform.clone(),
            lines: Lines::of(&stage.from),
        })
        .collect()
}

/// Holds what a target takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The target's name, when it has one.
    pub name: Option<String>,
    /// What the comment above it says.
    pub description: String,
    /// Arguments in the order of the file.
    pub args: Vec<Argument>,
    /// Secrets in the order of the file.
    pub secrets: Vec<SecretUse>,
}

/// Holds an ARG that a target uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// What the comment above it says.
    pub description: String,
    /// Its value, or nothing.
    pub value: String,
    /// Where it is declared.
    pub lines: Lines,
}

/// Holds a secret that a target mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretUse {
    /// Its id.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// Where it is first mounted.
    pub lines: Lines,
}

/// Lists what the target takes, or `None` when there is no such target.
#[must_use]
pub fn outline(
    file: &Dockerfile,
    build_args: &BTreeMap<String, String>,
    platform: &Platform,
    target: Option<&str>,
) -> Option<Outline> {
    let globals = Globals::new(file, build_args, platform, target.unwrap_or("default"));
    let origins = origins(file, &globals, platform);
    let needed = needed(file, target, &origins);
    let built = &file.stages[*needed.last()?];
    let mut outline = Outline {
        name: built.name.clone(),
        description: stage_description(built),
        args: Vec::new(),
        secrets: Vec::new(),
    };
    let mut scopes: BTreeMap<usize, Scope> = BTreeMap::new();
    let mut found = Vec::new();
    for index in needed {
        let scope = match origins[index] {
            Origin::Stage(other) => scopes.get(&other).cloned().unwrap_or_default(),
            _ => Scope::default(),
        };
        let mut walk = Walk {
            file,
            globals: &globals,
            scope,
            args: Vec::new(),
            secrets: Vec::new(),
        };
        walk.stage(&file.stages[index]);
        scopes.insert(index, walk.scope);
        found.push((walk.args, walk.secrets));
    }
    // The target's own declarations come before those of the stages it needs.
    for (args, secrets) in found.into_iter().rev() {
        args.into_iter()
            .for_each(|arg| add(&mut outline.args, arg, |a, b| a.name == b.name));
        let same = |a: &SecretUse, b: &SecretUse| a.name == b.name;
        secrets
            .into_iter()
            .for_each(|secret| add(&mut outline.secrets, secret, same));
    }
    outline.args.sort_by_key(|arg| arg.lines.first);
    outline.secrets.sort_by_key(|secret| secret.lines.first);
    Some(outline)
}

/// Adds what is not there yet.
fn add<T>(list: &mut Vec<T>, item: T, same: impl Fn(&T, &T) -> bool) {
    if !list.iter().any(|other| same(other, &item)) {
        list.push(item);
    }
}

fn stage_description(stage: &Stage) -> String {
    let name = stage.name.as_deref().unwrap_or_default();
    description(&stage.from, name)
}

/// What the comments right above say of `name`: the line that begins with it.
fn description(instruction: &Instruction, name: &str) -> String {
    let mut comments = instruction.extent.comments.iter();
    let told = comments.find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '));
    told.filter(|_| !name.is_empty()).unwrap_or_default().to_owned()
}

/// Goes through one stage.
struct Walk<'a> {
    file: &'a Dockerfile,
    globals: &'a Globals,
    scope: Scope,
    args: Vec<Argument>,
    secrets: Vec<SecretUse>,
}

impl Walk<'_> {
    fn stage(&mut self, stage: &Stage) {
        for word in [Some(&stage.image), stage.platform.as_ref()].into_iter().flatten() {
            let used = self.globals.expand(word, self.file.escape);
            used.iter()
                .flat_map(|used| &used.matched)
                .for_each(|name| self.global(name));
        }
        for instruction in &stage.instructions {
            self.instruction(instruction);
        }
    }

    /// Takes an ARG before the first FROM, and those its default is made of.
    fn global(&mut self, name: &str) {
        let mut open = vec![name.to_owned()];
        while let Some(name) = open.pop() {
            let mut declarations = self.file.global_args.iter().rev();
            let Some((instruction, default)) = declarations.find_map(|instruction| {
                let found = args(instruction).iter().find(|(known, _)| *known == name)?;
                Some((instruction, &found.1))
            }) else {
                continue;
            };
            if self.args.iter().any(|arg| arg.name == name) {
                continue;
            }
            let value = self.globals.get(&name).cloned();
            self.args.push(Argument {
                description: description(instruction, &name),
                value: value.unwrap_or_default(),
                lines: Lines::of(instruction),
                name,
            });
            let made_of = default
                .as_deref()
                .map(|text| self.globals.expand(text, self.file.escape));
            open.extend(made_of.and_then(Result::ok).into_iter().flat_map(|used| used.matched));
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        match &instruction.kind {
            Kind::Arg(args) => {
                for (name, default) in args {
                    self.arg(instruction, name, default.as_deref());
                }
            }
            Kind::Env(pairs) => {
                let expand = |text: &str| {
                    self.scope
                        .expand(text, self.file.escape)
                        .map_or_else(|_| String::new(), |e| e.text)
                };
                let pairs: Vec<_> = pairs
                    .iter()
                    .map(|(name, value)| (expand(name), expand(value)))
                    .collect();
                self.scope.values.extend(pairs);
            }
            Kind::Run { mounts, .. } => {
                for mount in mounts {
                    let expand = |text: &str| self.scope.expand(text, self.file.escape).map(|e| e.text);
                    if let Ok(Mount::Secret { id, required, .. }) = mount.resolve(expand) {
                        self.secrets.push(SecretUse {
                            name: id,
                            required,
                            lines: Lines::of(instruction),
                        });
                    }
                }
            }
            _ => {}
        }
    }

    fn arg(&mut self, instruction: &Instruction, name: &str, default: Option<&str>) {
        let expanded = self.scope.expand_default(self.globals, name, default, self.file.escape);
        self.scope
            .declare(self.globals, name, default, expanded.map(|expanded| expanded.text));
        // One that only takes over an outer ARG is described there.
        let declared = self.globals.declared.iter().any(|outer| outer == name);
        let automatic = self.globals.get(name).is_some() && !self.globals.is_given(name);
        if default.is_none() && (declared || automatic) {
            return self.global(name);
        }
        self.args.retain(|arg| arg.name != name);
        self.args.push(Argument {
            name: name.to_owned(),
            description: description(instruction, name),
            value: self.scope.values.get(name).cloned().unwrap_or_default(),
            lines: Lines::of(instruction),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::parse;

    const TEXT: &str = "# V is the version\nARG V=1\nARG T=$V-x\nARG UNUSED=1\n# base has tools\nFROM b:$T AS base\n\
        # A is more\nARG A=${V:-none} B\nENV E=e\nARG TARGETARCH\nRUN --mount=type=secret,id=s$E,required x\nFROM c AS other\nARG C\n\
        # last is built\n#\nFROM base AS last\nARG V\nARG D=$E\nRUN --mount=type=secret,id=se y\n";

    #[test]
    fn targets_in_order() {
        let file = parse("Dockerfile", TEXT).unwrap();
        let targets = targets(&file);
        let told: Vec<_> = targets
            .iter()
            .map(|t| {
                (
                    t.name.as_deref().unwrap(),
                    t.description.as_str(),
                    t.is_default,
                    t.lines.first,
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("base", "has tools", false, 6),
                ("other", "", false, 12),
                ("last", "is built", true, 16)
            ]
        );
    }

    #[test]
    fn what_a_target_takes() {
        let file = parse("Dockerfile", TEXT).unwrap();
        let given = BTreeMap::from([("B".to_owned(), "b".to_owned())]);
        let of = |target| outline(&file, &given, &Platform::host(), target).unwrap();
        let told = |outline: &Outline| -> Vec<String> {
            let args = outline.args.iter();
            args.map(|a| format!("{}={} {} {}", a.name, a.value, a.lines.first, a.description))
                .collect()
        };
        let last = of(None);
        assert_eq!(
            (last.name.as_deref(), last.description.as_str()),
            (Some("last"), "is built")
        );
        assert_eq!(
            told(&last),
            [
                "V=1 2 is the version",
                "T=1-x 3 ",
                "A=none 8 is more",
                "B=b 8 ",
                "D=e 18 "
            ]
        );
        assert_eq!(last.secrets.len(), 1);
        assert_eq!(last.secrets[0].lines.first, 19);
        assert!(of(Some("base")).secrets[0].required);
        assert_eq!(told(&of(Some("other"))), ["C= 13 "]);
        assert_eq!(outline(&file, &given, &Platform::host(), Some("none")), None);
    }
}
