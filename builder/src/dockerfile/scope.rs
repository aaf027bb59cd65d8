//! What a variable means at a place of the Dockerfile, read without building: for checks and outlines.

use super::instruction::Instruction;
use super::words::{self, WordError};
use super::{Dockerfile, Kind};
use roadstead_registry_client::Platform;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Holds the values known outside the stages: ARGs before the first FROM, and the automatic ones.
#[derive(Debug, Clone)]
pub(super) struct Globals {
    values: BTreeMap<String, String>,
    /// The ARGs before the first FROM, with a value or without.
    pub(super) declared: Vec<String>,
    given: BTreeMap<String, String>,
}

impl Globals {
    /// Reads the ARGs before the first FROM. Defaults that cannot be expanded count as unset.
    pub(super) fn new(file: &Dockerfile, given: &BTreeMap<String, String>, platform: &Platform, target: &str) -> Self {
        let mut globals = Self {
            values: automatic(platform, target),
            declared: Vec::new(),
            given: given.clone(),
        };
        for (name, default) in file.global_args.iter().flat_map(args) {
            let value = given.get(name).cloned().or_else(|| {
                let default = default.as_deref()?;
                globals.expand(default, file.escape).ok().map(|found| found.text)
            });
            if let Some(value) = value {
                globals.values.insert(name.clone(), value);
            }
            globals.declared.push(name.clone());
        }
        globals
    }

    pub(super) fn get(&self, name: &str) -> Option<&String> {
        self.values.get(name)
    }

    /// Tells whether a `--build-arg` gives the value.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The names that have a meaning in FROM.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        let without_value = self.declared.iter().filter(|name| !self.values.contains_key(*name));
        self.values.keys().chain(without_value)
    }

    /// Expands a word of FROM.
    pub(super) fn expand(&self, text: &str, escape: char) -> Result<Expanded, WordError> {
        expand(text, escape, &self.values)
    }
}

fn automatic(platform: &Platform, target: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::from([("TARGETSTAGE".to_owned(), target.to_owned())]);
    for (prefix, platform) in [("TARGET", platform), ("BUILD", &Platform::host())] {
        values.insert(format!("{prefix}PLATFORM"), platform.to_string());
        values.insert(format!("{prefix}OS"), platform.os.clone());
        values.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        values.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    values
}

/// The names and defaults of an ARG; nothing for other instructions.
pub(super) fn args(instruction: &Instruction) -> &[(String, Option<String>)] {
    match &instruction.kind {
        Kind::Arg(args) => args,
        _ => &[],
    }
}

/// Holds an expanded word and the variables it was made from.
#[derive(Debug, Clone)]
pub(super) struct Expanded {
    pub(super) text: String,
    /// Variables that have a value, in order, each once.
    pub(super) matched: Vec<String>,
    /// Variables that have none.
    pub(super) unmatched: Vec<String>,
}

fn expand(text: &str, escape: char, values: &BTreeMap<String, String>) -> Result<Expanded, WordError> {
    let noted = Noted::default();
    let text = words::expand(text, escape, &|name: &str| noted.note(name, values.get(name)))?;
    Ok(noted.with(text))
}

/// Takes note of the variables that are looked up.
#[derive(Debug, Default)]
struct Noted(RefCell<[Vec<String>; 2]>);

impl Noted {
    fn note(&self, name: &str, value: Option<&String>) -> Option<String> {
        let mut lists = self.0.borrow_mut();
        let list = &mut lists[usize::from(value.is_none())];
        if !list.iter().any(|known| known == name) {
            list.push(name.to_owned());
        }
        value.cloned()
    }

    fn with(self, text: String) -> Expanded {
        let [matched, unmatched] = self.0.into_inner();
        Expanded {
            text,
            matched,
            unmatched,
        }
    }
}

/// Holds the variables of one stage at one instruction.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    pub(super) values: BTreeMap<String, String>,
    /// The ARGs so far, with a value or without.
    pub(super) declared: Vec<String>,
}

impl Scope {
    /// Expands a word.
    pub(super) fn expand(&self, text: &str, escape: char) -> Result<Expanded, WordError> {
        expand(text, escape, &self.values)
    }

    /// Expands words and splits them at white space.
    pub(super) fn expand_split(&self, text: &str, escape: char) -> Result<Vec<String>, WordError> {
        words::expand_split(text, escape, &|name: &str| self.values.get(name).cloned())
    }

    /// Expands a heredoc body.
    pub(super) fn expand_heredoc(&self, text: &str) -> Result<Expanded, WordError> {
        let noted = Noted::default();
        let text = words::expand_heredoc(text, '\\', &|name: &str| noted.note(name, self.values.get(name)))?;
        Ok(noted.with(text))
    }

    /// Expands the default of an ARG, when it is used.
    pub(super) fn expand_default(
        &self,
        globals: &Globals,
        name: &str,
        default: Option<&str>,
        escape: char,
    ) -> Option<Expanded> {
        let default = default.filter(|_| !globals.is_given(name))?;
        self.expand(default, escape).ok()
    }

    /// Declares an ARG: it has the value given for it, or its default, or that of the ARG before the first FROM.
    pub(super) fn declare(&mut self, globals: &Globals, name: &str, default: Option<&str>, expanded: Option<String>) {
        let given = globals.given.get(name).cloned();
        let inherited = || globals.get(name).filter(|_| default.is_none()).cloned();
        if let Some(value) = given.or(expanded).or_else(inherited) {
            self.values.insert(name.to_owned(), value);
        }
        self.declared.push(name.to_owned());
    }
}
