//! Rules on the instructions of a stage, in the order a build runs them, with the variables each of them sees.

use super::names::keyword;
use super::secrets::promises_secret;
use super::{BaseImage, Findings, Input, Rule, suggestion};
use crate::dockerfile::instruction::{Instruction, Transfer};
use crate::dockerfile::lexer::split_words;
use crate::dockerfile::needs::{Origin, needed, origins};
use crate::dockerfile::scope::{Expanded, Globals, Scope};
use crate::dockerfile::{Command, CopySource, Dockerfile, Kind, parse_trigger};

/// Variables that the builder reads and no stage has.
const BUILDER_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// What a stage leaves to those that stand on it.
#[derive(Debug, Clone, Default)]
struct State {
    scope: Scope,
    /// Whether all variables of the base are known. If not, no variable can be called undefined.
    base_known: bool,
    has_shell: bool,
    has_workdir: bool,
    /// ONBUILD instructions for the stages that stand on this one.
    triggers: Vec<String>,
}

pub(super) fn check(file: &Dockerfile, input: &Input<'_>, globals: &Globals, findings: &mut Findings<'_>) {
    let origins = origins(file, globals, input.platform);
    let needed = needed(file, input.target, &origins);
    let all = input.all_stages && input.target.is_none();
    let mut states: Vec<State> = Vec::with_capacity(file.stages.len());
    for (index, stage) in file.stages.iter().enumerate() {
        // What an unneeded stage leaves is never used.
        if !all && !needed.contains(&index) {
            states.push(State::default());
            continue;
        }
        let mut state = State::of_base(&origins[index], &states, input, &stage.from, findings);
        let triggers = std::mem::take(&mut state.triggers);
        let triggers: Vec<Instruction> = triggers
            .iter()
            .filter_map(|text| parse_trigger(text, stage.from.span).ok())
            .collect();
        let mut walk = Walk {
            escape: file.escape,
            input,
            globals,
            findings: &mut *findings,
            state,
            once: [None; 3],
        };
        for instruction in triggers.iter().chain(&stage.instructions) {
            walk.instruction(instruction);
        }
        states.push(walk.state);
    }
}

impl State {
    fn of_base(
        origin: &Origin,
        states: &[Self],
        input: &Input<'_>,
        from: &Instruction,
        findings: &mut Findings<'_>,
    ) -> Self {
        match origin {
            Origin::Stage(other) => states[*other].clone(),
            Origin::Scratch => Self::of_image(BaseImage::default()),
            Origin::Unknown => Self::default(),
            Origin::Image { name, platform } => {
                let Some(base) = (input.find_base)(name, platform) else {
                    return Self::default();
                };
                if (&base.platform.os, &base.platform.architecture) != (&platform.os, &platform.architecture) {
                    let message = format!(
                        "Base image {name} was pulled with platform {:?}, expected {:?} for current build",
                        base.platform.to_string(),
                        platform.to_string()
                    );
                    findings.add(Rule::InvalidBaseImagePlatform, from, message);
                }
                Self::of_image(base)
            }
        }
    }

    fn of_image(base: BaseImage) -> Self {
        let mut state = Self {
            base_known: true,
            has_shell: base.has_shell,
            triggers: base.triggers,
            ..Self::default()
        };
        // Every stage has one, whatever its base says.
        state.scope.values.insert("PATH".to_owned(), String::new());
        for entry in base.env {
            let (name, value) = entry.split_once('=').unwrap_or((&entry, ""));
            state.scope.values.insert(name.to_owned(), value.to_owned());
        }
        state
    }
}

/// Goes through one stage.
struct Walk<'a, 'f> {
    escape: char,
    input: &'a Input<'a>,
    globals: &'a Globals,
    findings: &'a mut Findings<'f>,
    state: State,
    /// The last CMD, ENTRYPOINT and HEALTHCHECK so far.
    once: [Option<&'a Instruction>; 3],
}

impl<'a> Walk<'a, '_> {
    fn instruction(&mut self, at: &'a Instruction) {
        match &at.kind {
            Kind::Arg(args) => {
                for (name, default) in args {
                    self.arg(at, name, default.as_deref());
                }
            }
            Kind::Env(pairs) => self.env(at, pairs),
            Kind::Label(pairs) => {
                self.legacy_format(at);
                self.expand_pairs(at, pairs);
            }
            Kind::Run { mounts, .. } => {
                let values = mounts.iter().flat_map(|mount| mount.values());
                values.for_each(|value| drop(self.expand(at, value)));
            }
            Kind::Copy(transfer) => self.transfer(at, "Copy", transfer),
            Kind::Add(transfer) => self.transfer(at, "Add", transfer),
            Kind::Workdir(path) => self.workdir(at, path),
            Kind::User(text) | Kind::Stopsignal(text) => drop(self.expand(at, text)),
            Kind::Volume(paths) => paths.iter().for_each(|path| drop(self.expand(at, path))),
            Kind::Expose(ports) => ports.iter().for_each(|port| self.expose(at, port)),
            Kind::Cmd(command) => {
                self.only_once(at, 0);
                self.json_form(at, command);
            }
            Kind::Entrypoint(command) => {
                self.only_once(at, 1);
                self.json_form(at, command);
            }
            Kind::Healthcheck(_) => self.only_once(at, 2),
            Kind::Shell(_) => self.state.has_shell = true,
            Kind::Onbuild(trigger) => self.state.triggers.push(trigger.clone()),
            Kind::From { .. } | Kind::Maintainer(_) => {}
        }
    }

    /// Expands a word and reports the variables that nothing defines. `None` when nobody can tell what it comes to.
    fn expand(&mut self, at: &Instruction, text: &str) -> Option<String> {
        let expanded = self.state.scope.expand(text, self.escape).ok()?;
        self.undefined(at, &expanded);
        let known = self.state.base_known || expanded.unmatched.is_empty();
        known.then_some(expanded.text)
    }

    fn undefined(&mut self, at: &Instruction, expanded: &Expanded) {
        if !self.state.base_known {
            return;
        }
        for name in &expanded.unmatched {
            if self.state.scope.declared.contains(name) || BUILDER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let mut message = format!("Usage of undefined variable '${name}'");
            if let Some(near) = suggestion(name, self.state.scope.values.keys()) {
                message = format!("{message} (did you mean ${near}?)");
            }
            self.findings.add(Rule::UndefinedVar, at, message);
        }
    }

    fn secret_name(&mut self, at: &Instruction, keyword: &str, name: &str) {
        if promises_secret(name) {
            let message = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
            self.findings.add(Rule::SecretsUsedInArgOrEnv, at, message);
        }
    }

    fn arg(&mut self, at: &Instruction, name: &str, default: Option<&str>) {
        self.secret_name(at, "ARG", name);
        let expanded = self
            .state
            .scope
            .expand_default(self.globals, name, default, self.escape);
        if let Some(expanded) = &expanded {
            self.undefined(at, expanded);
        }
        let expanded = expanded.map(|expanded| expanded.text);
        self.state.scope.declare(self.globals, name, default, expanded);
    }

    fn env(&mut self, at: &Instruction, pairs: &[(String, String)]) {
        self.legacy_format(at);
        for (name, value) in self.expand_pairs(at, pairs) {
            self.secret_name(at, "ENV", &name);
            self.state.scope.values.insert(name, value);
        }
    }

    /// Expands all before any of them counts. What cannot be expanded is defined all the same.
    fn expand_pairs(&mut self, at: &Instruction, pairs: &[(String, String)]) -> Vec<(String, String)> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            let name = self.expand(at, name).unwrap_or_else(|| name.clone());
            expanded.push((name, self.expand(at, value).unwrap_or_default()));
        }
        expanded
    }

    /// `ENV name value`, which an instruction has once if at all.
    fn legacy_format(&mut self, at: &Instruction) {
        let words = split_words(&at.text, self.escape);
        if words.get(1).is_some_and(|(_, word)| !word.contains('=')) {
            let keyword = keyword(at);
            let message =
                format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
            self.findings.add(Rule::LegacyKeyValueFormat, at, message);
        }
    }

    fn transfer(&mut self, at: &Instruction, verb: &str, transfer: &Transfer) {
        for flag in [&transfer.chown, &transfer.chmod].into_iter().flatten() {
            self.expand(at, flag);
        }
        for source in &transfer.sources {
            match source {
                CopySource::Path(path) => {
                    let path = self.expand(at, path);
                    let path = path.filter(|_| transfer.from.is_none()).map(|path| clean(&path));
                    if let Some(path) = path.filter(|path| (self.input.ignored)(path)) {
                        let message = format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
                        self.findings.add(Rule::CopyIgnoredFile, at, message);
                    }
                }
                CopySource::Inline(heredoc) if heredoc.expand => {
                    if let Ok(expanded) = self.state.scope.expand_heredoc(&heredoc.content) {
                        self.undefined(at, &expanded);
                    }
                }
                CopySource::Inline(_) => {}
            }
        }
        self.expand(at, &transfer.destination);
    }

    fn workdir(&mut self, at: &Instruction, path: &str) {
        let path = self.expand(at, path);
        let relative = path.filter(|path| !path.starts_with('/') && !self.state.has_workdir);
        if let Some(path) = relative {
            let message = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            self.findings.add(Rule::WorkdirRelativePath, at, message);
        }
        self.state.has_workdir = true;
    }

    fn expose(&mut self, at: &Instruction, word: &str) {
        let ports = self.state.scope.expand_split(word, self.escape).unwrap_or_default();
        for port in ports {
            let (addresses, container) = port.rsplit_once(':').unwrap_or(("", &port));
            let protocol = container.split_once('/').map_or("", |(_, protocol)| protocol);
            if protocol != protocol.to_lowercase() {
                let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
                self.findings.add(Rule::ExposeProtoCasing, at, message);
            }
            if addresses.contains(|c| c != ':') {
                let message =
                    format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
                self.findings.add(Rule::ExposeInvalidFormat, at, message);
            }
        }
    }

    /// Only the last one counts; the one before it is pointed at.
    fn only_once(&mut self, at: &'a Instruction, slot: usize) {
        if let Some(earlier) = self.once[slot].replace(at) {
            let message = format!(
                "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                keyword(at)
            );
            self.findings
                .add(Rule::MultipleInstructionsDisallowed, earlier, message);
        }
    }

    fn json_form(&mut self, at: &Instruction, command: &Command) {
        if matches!(command, Command::Shell(_)) && !self.state.has_shell {
            let message = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                keyword(at)
            );
            self.findings.add(Rule::JsonArgsRecommended, at, message);
        }
    }
}

/// Brings a source to its shortest spelling, as Go's `path.Clean` does.
fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".to_owned(),
        (false, path) => path,
    }
}
