//! The meaning of a buildspec: keys, phases and artifacts, with CodeBuild's leniency and its errors.
//!
//! Unknown keys are warned about, as CodeBuild does. What CodeBuild knows and this version does not honour yet is an error,
//! since a build without it would not be the build that was asked for.

use super::diagnostic::Diagnostic;
use super::yaml::{self, Mark, Node, Value};
use crate::environment::is_shell_identifier;

/// Which generation of buildspec: decides whether commands share their state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// Every command in a shell of its own.
    V0_1,
    /// Variables and directory carry over from command to command.
    V0_2,
}

/// The shell that runs the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShellKind {
    Sh,
    Bash,
}

/// The phases a user writes commands for, in the order they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PhaseName {
    Install,
    PreBuild,
    Build,
    PostBuild,
}

impl PhaseName {
    pub(crate) const ALL: [Self; 4] = [Self::Install, Self::PreBuild, Self::Build, Self::PostBuild];

    /// As a buildspec writes it.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::PreBuild => "pre_build",
            Self::Build => "build",
            Self::PostBuild => "post_build",
        }
    }

    /// As the log and the record write it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Install => "INSTALL",
            Self::PreBuild => "PRE_BUILD",
            Self::Build => "BUILD",
            Self::PostBuild => "POST_BUILD",
        }
    }
}

/// What follows a failed phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// The phase's own rule.
    #[default]
    Default,
    Abort,
    Continue,
}

/// One phase as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PhaseSpec {
    pub(crate) commands: Vec<String>,
    pub(crate) finally: Vec<String>,
    pub(crate) on_failure: OnFailure,
    /// Whether the buildspec has the phase at all.
    pub(crate) written: bool,
}

/// What to keep of the build's files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Artifacts {
    pub(crate) files: Vec<String>,
    pub(crate) exclude_paths: Vec<String>,
    pub(crate) base_directory: Option<String>,
    pub(crate) discard_paths: bool,
    /// A shell text that names the artifact.
    pub(crate) name: Option<String>,
}

/// A buildspec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Buildspec {
    pub(crate) version: Version,
    pub(crate) shell: ShellKind,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) exported_variables: Vec<String>,
    pub(crate) runtime_versions: bool,
    phases: [PhaseSpec; 4],
    pub(crate) artifacts: Option<Artifacts>,
    /// Log lines about keys that were not understood.
    pub(crate) warnings: Vec<String>,
}

impl Buildspec {
    /// Reads a buildspec; `file` names it in errors.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, Diagnostic> {
        if text.len() > yaml::MAX_BYTES {
            return Err(Diagnostic::of_file(
                file,
                format!("the buildspec has more than {} bytes", yaml::MAX_BYTES),
            ));
        }
        let root = yaml::read(text).map_err(|error| match error.mark {
            Some(mark) => Diagnostic::at(file, text, mark, format!("{} at line {}", error.message, mark.line)),
            None => Diagnostic::of_file(file, error.message),
        })?;
        let mut reader = Reader {
            file,
            text,
            warnings: Vec::new(),
        };
        let mut spec = reader.buildspec(&root)?;
        spec.warnings = reader.warnings;
        Ok(spec)
    }

    /// One phase; empty when the buildspec doesn't write it.
    pub(crate) fn phase(&self, name: PhaseName) -> &PhaseSpec {
        &self.phases[name as usize]
    }

    /// How many phases the buildspec writes.
    pub(crate) fn phases_written(&self) -> usize {
        self.phases.iter().filter(|phase| phase.written).count()
    }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    warnings: Vec<String>,
}

type Entries<'n> = Vec<(&'n str, &'n Node, &'n Node)>;

impl Reader<'_> {
    fn error(&self, mark: Mark, message: impl Into<String>) -> Diagnostic {
        Diagnostic::at(self.file, self.text, mark, message)
    }

    fn refuse(&self, key: &Node, what: &str) -> Diagnostic {
        self.error(
            key.mark,
            format!("`{what}` is not supported by this version of Roadstead"),
        )
    }

    fn entries<'n>(&self, node: &'n Node, what: &str) -> Result<Entries<'n>, Diagnostic> {
        match &node.value {
            Value::Null => Ok(Vec::new()),
            Value::Map(entries) => entries
                .iter()
                .map(|(key, value)| match key.text() {
                    Some(name) => Ok((name, key, value)),
                    None => Err(self.error(key.mark, format!("a key of `{what}` is {}", key.kind()))),
                })
                .collect(),
            _ => Err(self.error(node.mark, format!("`{what}` must be a map, but is {}", node.kind()))),
        }
    }

    fn warn_unknown(&mut self, section: &str, unknown: &[&str]) {
        if !unknown.is_empty() {
            self.warnings.push(format!(
                "Found possible syntax errors in buildspec: \nIn the section {section}\n    The following keys cannot be \
                 identified:\n        {}",
                unknown.join("\n        ")
            ));
        }
    }

    fn buildspec(&mut self, root: &Node) -> Result<Buildspec, Diagnostic> {
        if !matches!(root.value, Value::Map(_)) {
            return Err(self.error(
                root.mark,
                format!("a buildspec must be a map, but this is {}", root.kind()),
            ));
        }
        let mut spec = Buildspec {
            version: Version::V0_2,
            shell: ShellKind::Sh,
            variables: Vec::new(),
            exported_variables: Vec::new(),
            runtime_versions: false,
            phases: Default::default(),
            artifacts: None,
            warnings: Vec::new(),
        };
        let (mut has_version, mut has_phases, mut unknown) = (false, false, Vec::new());
        for (name, key, value) in self.entries(root, "buildspec")? {
            match name {
                "version" => {
                    spec.version = self.version(value)?;
                    has_version = true;
                }
                "env" => self.env(value, &mut spec)?,
                "environment_variables" => self.old_env(value, &mut spec)?,
                "phases" => {
                    self.phases(key, value, &mut spec)?;
                    has_phases = true;
                }
                "artifacts" => spec.artifacts = self.artifacts(key, value)?,
                "proxy" => self.proxy(value)?,
                "run-as" | "batch" | "reports" | "cache" => {
                    // A section without content asks for nothing, and templates leave such ones behind.
                    if !is_empty(value) {
                        return Err(self.refuse(key, name));
                    }
                }
                _ => unknown.push(name),
            }
        }
        self.warn_unknown("buildspec", &unknown);
        if !has_version {
            return Err(Diagnostic::of_file(
                self.file,
                "the buildspec has no `version`; write `version: 0.2`",
            ));
        }
        if !has_phases {
            return Err(Diagnostic::of_file(self.file, "the buildspec has no `phases`"));
        }
        Ok(spec)
    }

    fn version(&self, node: &Node) -> Result<Version, Diagnostic> {
        match node.text().map(str::trim) {
            Some("0.1") => Ok(Version::V0_1),
            Some("0.2") => Ok(Version::V0_2),
            Some(other) => Err(self.error(
                node.mark,
                format!("unknown buildspec version `{other}`; 0.1 and 0.2 exist"),
            )),
            None => Err(self.error(
                node.mark,
                format!("`version` must be 0.1 or 0.2, but is {}", node.kind()),
            )),
        }
    }

    fn env(&mut self, node: &Node, spec: &mut Buildspec) -> Result<(), Diagnostic> {
        let mut unknown = Vec::new();
        for (name, key, value) in self.entries(node, "env")? {
            match name {
                "variables" => spec.variables = self.variables(value, "env.variables")?,
                "exported-variables" => {
                    for (name, mark) in self.texts(value, "env.exported-variables")? {
                        if !is_shell_identifier(&name) || name.starts_with("AWS_") {
                            return Err(self.error(mark, format!("`{name}` cannot be exported")));
                        }
                        spec.exported_variables.push(name);
                    }
                }
                "shell" => {
                    spec.shell = match value.text() {
                        Some("sh" | "/bin/sh") => ShellKind::Sh,
                        Some("bash" | "/bin/bash") => ShellKind::Bash,
                        _ => return Err(self.error(value.mark, "`env.shell` must be `bash` or `/bin/sh`")),
                    }
                }
                "git-credential-helper" if !self.boolean(value, "env.git-credential-helper")? => {}
                "parameter-store" | "secrets-manager" | "git-credential-helper" => {
                    if !is_empty(value) {
                        return Err(self.refuse(key, &format!("env.{name}")));
                    }
                }
                _ => unknown.push(name),
            }
        }
        self.warn_unknown("env", &unknown);
        Ok(())
    }

    /// Version 0.1's name for `env`.
    fn old_env(&mut self, node: &Node, spec: &mut Buildspec) -> Result<(), Diagnostic> {
        let mut unknown = Vec::new();
        for (name, _, value) in self.entries(node, "environment_variables")? {
            match name {
                "plaintext" => spec.variables = self.variables(value, "environment_variables.plaintext")?,
                _ => unknown.push(name),
            }
        }
        self.warn_unknown("environment_variables", &unknown);
        Ok(())
    }

    fn variables(&self, node: &Node, what: &str) -> Result<Vec<(String, String)>, Diagnostic> {
        let mut variables = Vec::new();
        for (name, key, value) in self.entries(node, what)? {
            if !is_shell_identifier(name) {
                return Err(self.error(key.mark, format!("`{name}` is no name for an environment variable")));
            }
            if name.starts_with("CODEBUILD_") {
                return Err(self.error(
                    key.mark,
                    format!("`{name}`: names that begin with `CODEBUILD_` are reserved"),
                ));
            }
            match value.text() {
                Some(text) if !text.contains('\0') => variables.push((name.to_owned(), text.to_owned())),
                Some(_) => return Err(self.error(value.mark, format!("the value of `{name}` holds a zero byte"))),
                None => {
                    return Err(self.error(
                        value.mark,
                        format!("the value of `{name}` must be text, but is {}", value.kind()),
                    ));
                }
            }
        }
        Ok(variables)
    }

    fn proxy(&mut self, node: &Node) -> Result<(), Diagnostic> {
        let mut unknown = Vec::new();
        for (name, key, value) in self.entries(node, "proxy")? {
            match name {
                "upload-artifacts" | "logs" => {
                    if self.boolean(value, name)? {
                        return Err(self.refuse(key, &format!("proxy.{name}")));
                    }
                }
                _ => unknown.push(name),
            }
        }
        self.warn_unknown("proxy", &unknown);
        Ok(())
    }

    fn phases(&mut self, key: &Node, node: &Node, spec: &mut Buildspec) -> Result<(), Diagnostic> {
        let entries = self.entries(node, "phases")?;
        if entries.is_empty() {
            return Err(self.error(key.mark, "`phases` is empty"));
        }
        for (name, key, value) in entries {
            let Some(phase) = PhaseName::ALL.into_iter().find(|phase| phase.key() == name) else {
                let known = "install, pre_build, build, post_build";
                return Err(self.error(key.mark, format!("unknown phase `{name}`; the phases are {known}")));
            };
            spec.phases[phase as usize] = self.phase(phase, value, spec)?;
        }
        Ok(())
    }

    fn phase(&mut self, phase: PhaseName, node: &Node, spec: &mut Buildspec) -> Result<PhaseSpec, Diagnostic> {
        let mut written = PhaseSpec {
            written: true,
            ..PhaseSpec::default()
        };
        let mut unknown = Vec::new();
        for (name, key, value) in self.entries(node, phase.key())? {
            match name {
                "commands" => written.commands = self.commands(value, "Commands")?,
                "finally" => written.finally = self.commands(value, "Finally")?,
                "on-failure" => written.on_failure = self.on_failure(key, value)?,
                "runtime-versions" if phase == PhaseName::Install => spec.runtime_versions = !is_empty(value),
                "run-as" => {
                    if !is_empty(value) {
                        return Err(self.refuse(key, "run-as"));
                    }
                }
                _ => unknown.push(name),
            }
        }
        self.warn_unknown(phase.key(), &unknown);
        Ok(written)
    }

    fn commands(&self, node: &Node, title: &str) -> Result<Vec<String>, Diagnostic> {
        let items: &[Node] = match &node.value {
            Value::Null => &[],
            Value::Scalar(_) => std::slice::from_ref(node),
            Value::List(items) => items,
            Value::Map(_) => {
                let what = title.to_lowercase();
                return Err(self.error(node.mark, format!("`{what}` must be a list of commands, but is a map")));
            }
        };
        let mut commands = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match &item.value {
                Value::Scalar(text) if text.contains('\0') => {
                    return Err(self.error(item.mark, format!("{title}[{index}] holds a zero byte")));
                }
                Value::Scalar(text) => commands.push(text.clone()),
                // An empty item is an empty command to a shell, and does nothing there either.
                Value::Null => commands.push(String::new()),
                Value::Map(_) | Value::List(_) => {
                    let line = item.mark.line;
                    let before = line.saturating_sub(1);
                    let message = format!(
                        "Expected {title}[{index}] to be of string type: found subkeys instead at line {line}, value of the \
                         key tag on line {before} might be empty"
                    );
                    return Err(self.error(item.mark, message));
                }
            }
        }
        Ok(commands)
    }

    fn on_failure(&self, key: &Node, node: &Node) -> Result<OnFailure, Diagnostic> {
        let word = node.text().unwrap_or_default().to_ascii_uppercase();
        match word.as_str() {
            "ABORT" => Ok(OnFailure::Abort),
            "CONTINUE" => Ok(OnFailure::Continue),
            retry if retry == "RETRY" || retry.starts_with("RETRY-") => Err(self.refuse(key, "on-failure: RETRY")),
            _ => Err(self.error(node.mark, "`on-failure` must be ABORT or CONTINUE")),
        }
    }

    fn artifacts(&mut self, key: &Node, node: &Node) -> Result<Option<Artifacts>, Diagnostic> {
        if is_empty(node) {
            return Ok(None);
        }
        let mut artifacts = Artifacts::default();
        let (mut files_given, mut unknown) = (false, Vec::new());
        for (name, key, value) in self.entries(node, "artifacts")? {
            match name {
                "files" => {
                    artifacts.files = self.paths(value, "artifacts.files")?;
                    files_given = true;
                }
                "exclude-paths" => artifacts.exclude_paths = self.paths(value, "artifacts.exclude-paths")?,
                "base-directory" => {
                    artifacts.base_directory = self.one_text(value, "artifacts.base-directory")?;
                }
                "discard-paths" => artifacts.discard_paths = self.boolean(value, "artifacts.discard-paths")?,
                "name" => artifacts.name = self.one_text(value, "artifacts.name")?,
                "enable-symlinks" if !self.boolean(value, "artifacts.enable-symlinks")? => {}
                "enable-symlinks" | "s3-prefix" | "secondary-artifacts" => {
                    if !is_empty(value) {
                        return Err(self.refuse(key, &format!("artifacts.{name}")));
                    }
                }
                _ => unknown.push(name),
            }
        }
        self.warn_unknown("artifacts", &unknown);
        if !files_given || artifacts.files.is_empty() {
            return Err(self.error(key.mark, "`artifacts` has no `files`"));
        }
        Ok(Some(artifacts))
    }

    fn one_text(&self, node: &Node, what: &str) -> Result<Option<String>, Diagnostic> {
        match node.text() {
            Some(text) if text.contains('\0') => Err(self.error(node.mark, format!("`{what}` holds a zero byte"))),
            Some(text) => Ok(Some(text.to_owned()).filter(|text| !text.is_empty())),
            None => Err(self.error(node.mark, format!("`{what}` must be text, but is {}", node.kind()))),
        }
    }

    fn paths(&self, node: &Node, what: &str) -> Result<Vec<String>, Diagnostic> {
        Ok(self.texts(node, what)?.into_iter().map(|(text, _)| text).collect())
    }

    /// A list of texts. A lone text stands for a list of one, as buildspecs in the wild have it.
    fn texts(&self, node: &Node, what: &str) -> Result<Vec<(String, Mark)>, Diagnostic> {
        let items: &[Node] = match &node.value {
            Value::Null => &[],
            Value::Scalar(_) => std::slice::from_ref(node),
            Value::List(items) => items,
            Value::Map(_) => return Err(self.error(node.mark, format!("`{what}` must be a list, but is a map"))),
        };
        let mut texts = Vec::new();
        for item in items {
            match &item.value {
                Value::Scalar(text) if !text.is_empty() && !text.contains('\0') => {
                    texts.push((text.clone(), item.mark));
                }
                _ => {
                    return Err(self.error(
                        item.mark,
                        format!("an item of `{what}` must be text, but is {}", item.kind()),
                    ));
                }
            }
        }
        Ok(texts)
    }

    /// A boolean by YAML 1.1's words, which CodeBuild takes.
    fn boolean(&self, node: &Node, what: &str) -> Result<bool, Diagnostic> {
        match node.text().unwrap_or("?").to_ascii_lowercase().as_str() {
            "yes" | "true" | "on" | "y" => Ok(true),
            "no" | "false" | "off" | "n" | "" => Ok(false),
            _ => Err(self.error(node.mark, format!("`{what}` must be yes or no"))),
        }
    }
}

fn is_empty(node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Scalar(text) => text.is_empty(),
        Value::List(items) => items.iter().all(is_empty),
        Value::Map(entries) => entries.iter().all(|(_, value)| is_empty(value)),
    }
}

#[cfg(test)]
mod tests;
