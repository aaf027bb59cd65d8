//! The instructions of one stage, one after the other, each against the state the last one left.

use super::bases::Base;
use super::error::{BuildError, Result};
use super::history;
use super::packing::{Packing, keep};
use super::shared::{Results, Shared, StageResult, of_step, placed};
use super::steps::Doing;
use super::variables::Scope;
use crate::cache::key::KeyBuilder;
use crate::cache::local::Record;
use crate::dockerfile::words::WordError;
use crate::dockerfile::{Instruction, Kind};
use crate::layer::write::StepLayer;
use crate::progress::{Vertex, VertexId};
use crate::rootfs::aside::Aside;
use crate::rootfs::overlay::ChainId;
use roadstead_registry_client::{Digest, Platform};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// One stage under way.
pub(super) struct StageRun<'a> {
    pub(super) shared: &'a Arc<Shared>,
    pub(super) results: &'a Arc<Results>,
    pub(super) index: usize,
    /// Whether the image will hold this stage's layers.
    pub(super) in_image: bool,
    /// Whether its layers get blobs: those of other stages lie unpacked only.
    pub(super) packs: bool,
    pub(super) layers: Vec<StepLayer>,
    pub(super) state: crate::image::config::ImageState,
    pub(super) scope: Scope,
    /// The platform of the stage, as FROM has asked for it.
    pub(super) platform: Platform,
    /// Steps that are being done here.
    pub(super) doing: Vec<Doing>,
    /// The keys of the step under way.
    pub(super) keys: Vec<Digest>,
    /// The step that was shown last, and when it began.
    pub(super) showing: Option<(VertexId, Instant)>,
    /// What the base has for the stages that stand on it.
    triggers: Vec<Instruction>,
    /// Steps shown so far and in all.
    shown: usize,
    total: usize,
}

impl<'a> StageRun<'a> {
    pub(super) fn new(
        shared: &'a Arc<Shared>,
        results: &'a Arc<Results>,
        index: usize,
        in_image: bool,
        base: Base,
        triggers: Vec<Instruction>,
        scope: Scope,
    ) -> Self {
        let instructions = &shared.request.dockerfile.stages[index].instructions;
        let all = triggers.iter().chain(instructions);
        let total = 1 + all.filter(|i| makes_files(&i.kind)).count();
        Self {
            shared,
            results,
            index,
            in_image,
            packs: in_image || shared.request.pack_all,
            layers: base.layers,
            state: base.state,
            scope,
            platform: base.platform,
            doing: Vec::new(),
            keys: Vec::new(),
            showing: None,
            triggers,
            shown: 1,
            total,
        }
    }

    /// Runs every instruction.
    pub(super) async fn run(mut self) -> Result<StageResult> {
        let instructions = &self.shared.request.dockerfile.stages[self.index].instructions;
        let triggers = std::mem::take(&mut self.triggers);
        for instruction in triggers.iter().chain(instructions) {
            if self.shared.cancel.is_canceled() {
                return Err(BuildError::Canceled);
            }
            self.instruction(instruction)
                .await
                .map_err(|e| self.at(instruction, e))?;
        }
        Ok(self.ended())
    }

    /// What layers of this stage are written for.
    pub(super) fn packing(&self) -> Packing {
        match (self.in_image, self.packs) {
            (true, _) => Packing::InImage,
            (false, true) => Packing::Cached,
            (false, false) => Packing::Unpacked,
        }
    }

    /// Gives what the stage is so far.
    pub(super) fn ended(self) -> StageResult {
        StageResult {
            base: Base {
                layers: self.layers,
                state: self.state,
                platform: self.platform,
            },
            scope: self.scope,
        }
    }

    fn at(&self, instruction: &Instruction, error: BuildError) -> BuildError {
        if makes_files(&instruction.kind) {
            of_step(self.shared, instruction, error)
        } else {
            placed(self.shared, instruction.span, None, error)
        }
    }

    async fn instruction(&mut self, instruction: &Instruction) -> Result<()> {
        match &instruction.kind {
            Kind::Run { .. } => self.run_command(instruction).await,
            Kind::Copy(transfer) => self.copy(instruction, transfer, false).await,
            Kind::Add(transfer) => self.copy(instruction, transfer, true).await,
            Kind::Workdir(path) => self.workdir(path).await,
            kind => self.metadata(instruction, kind),
        }
    }

    pub(super) fn expand(&self, text: &str) -> Result<String> {
        self.scope.expand(text, self.escape()).map_err(word)
    }

    pub(super) fn escape(&self) -> char {
        self.shared.request.dockerfile.escape
    }

    pub(super) fn chain(&self) -> Vec<ChainId> {
        ChainId::stack(self.layers.iter().map(|l| &l.diff_id))
    }

    /// Begins the key of a step upon the layers so far: their content, not the way they came about.
    pub(super) fn key(&self, kind: &str) -> KeyBuilder {
        let mut key = KeyBuilder::new(kind);
        key.add("parent", format!("{:?}", self.chain().last()));
        key.add("epoch", self.shared.epoch.to_string());
        key.add("platform", self.platform.to_string());
        key
    }

    /// Begins showing a step.
    pub(super) fn show(&mut self, text: &str) -> Vertex {
        self.shown += 1;
        let file = &self.shared.request.dockerfile;
        let stage = match &file.stages[self.index].name {
            Some(name) => format!("{name} "),
            None if file.stages.len() == 1 => String::new(),
            None => format!("stage-{} ", self.index),
        };
        let platform = match self.shared.shows_platform {
            true => shown_platform(&self.platform, &self.shared.platform),
            false => String::new(),
        };
        let width = self.total.to_string().len();
        let name = format!("[{platform}{stage}{:>width$}/{}] {text}", self.shown, self.total);
        let vertex = self.shared.tools.progress.start(name);
        self.showing = Some((vertex.id(), Instant::now()));
        vertex
    }

    /// Ends a key, and notes what it depends on.
    pub(super) fn settled(&self, key: KeyBuilder) -> Digest {
        self.shared.request.explain.note(&self.place(), key.inputs());
        key.finish()
    }

    /// The step's place among those of the build.
    fn place(&self) -> String {
        let stage = &self.shared.request.dockerfile.stages[self.index].name;
        let stage = stage.clone().unwrap_or_else(|| self.index.to_string());
        format!("{} {stage} {}", self.platform, self.shown)
    }

    /// Tells why the step runs that was shown last, if somebody wants to know.
    pub(super) fn explain(&self, files: impl FnOnce() -> Vec<String>) {
        let explain = &self.shared.request.explain;
        let is_asked = self.is_asked();
        let place = self.place();
        let why = explain
            .speaks()
            .then(|| explain.why(&place, is_asked, &files()))
            .flatten();
        if let (Some(why), Some((id, begun))) = (why, self.showing) {
            self.shared.tools.progress.tell(id, &why, begun.elapsed().as_secs_f64());
        }
    }

    async fn workdir(&mut self, path: &str) -> Result<()> {
        let written = self.expand(path)?;
        let path = self.absolute(&written);
        // As BuildKit: the config keeps an absolute path as it was written.
        self.state.working_dir = match written.starts_with('/') {
            true => written,
            false => path.to_string_lossy().into_owned(),
        };
        let text = format!("WORKDIR {}", self.state.working_dir);
        let mut key = self.key("WORKDIR");
        key.add("path", self.state.working_dir.as_bytes())
            .add("user", &self.state.user);
        let vertex = self.show(&text);
        let key = self.settled(key);
        if let Some(record) = self.find(&key).await? {
            vertex.cached();
            self.accept(record, &text);
            return Ok(());
        }
        self.explain(Vec::new);
        let user = self.state.user.clone();
        let make = move |root: &crate::beneath::Dir| -> Result<()> {
            let owner = if user.is_empty() {
                None
            } else {
                // As for --chown: a number without group has the group of the same number.
                Some(crate::rootfs::users::resolve_owner(root, &user)?)
            };
            root.make_dirs(&path, owner)?;
            Ok(())
        };
        let record = self.change(&vertex, make).await?;
        self.remember(&key, &record)?;
        self.accept(record, &text);
        Ok(())
    }

    /// Makes a path absolute by WORKDIR and cleans it.
    fn absolute(&self, path: &str) -> PathBuf {
        let joined = Path::new("/").join(&self.state.working_dir).join(path);
        Path::new("/").join(crate::beneath::clean(&joined))
    }

    /// Mounts the stage's files, has `make` change them, and writes what changed as a layer.
    pub(super) async fn change(
        &self,
        vertex: &Vertex,
        make: impl FnOnce(&crate::beneath::Dir) -> Result<()> + Send + 'static,
    ) -> Result<Record> {
        let chain = self.shared.bases.unpack(&self.shared.tools, &self.layers).await?;
        let packing = self.packing();
        let result = self
            .blocking(move |shared| {
                let rootfs = shared.tools.layers.mount(&chain, None)?;
                make(&crate::beneath::Dir::open(rootfs.path())?)?;
                keep(&shared, rootfs, &chain, Some(&chain), &Aside::of_own_step(), packing)
            })
            .await;
        end(vertex, &result);
        result
    }

    /// Runs file work on a thread of its own, as many at once as there are slots.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Arc<Shared>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.within(&self.shared.slots, work).await
    }

    /// Runs a command on a thread of its own. Commands wait more than they work: more of them run than there are slots.
    pub(super) async fn commanding<T: Send + 'static>(
        &self,
        work: impl FnOnce(Arc<Shared>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.within(&self.shared.commands, work).await
    }

    async fn within<T: Send + 'static>(
        &self,
        places: &tokio::sync::Semaphore,
        work: impl FnOnce(Arc<Shared>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = places.acquire().await.map_err(|_| BuildError::Canceled)?;
        if self.shared.cancel.is_canceled() {
            return Err(BuildError::Canceled);
        }
        let shared = Arc::clone(self.shared);
        let result = tokio::task::spawn_blocking(move || work(shared)).await;
        drop(permit);
        let result = result.map_err(|e| BuildError::Other(format!("a step ended early: {e}")))?;
        result.map_err(|error| self.shared.bases.or_unusable(&self.shared.tools, error))
    }

    fn metadata(&mut self, instruction: &Instruction, kind: &Kind) -> Result<()> {
        if let Some(text) = self.set(instruction, kind)? {
            self.state.add_history(&self.shared.created, &text, true);
        }
        Ok(())
    }

    /// Applies an instruction that changes only the config. Gives the history's text, when it has one.
    fn set(&mut self, instruction: &Instruction, kind: &Kind) -> Result<Option<String>> {
        let text = match kind {
            Kind::Arg(args) => self.declare(args)?,
            Kind::Env(pairs) => {
                // All values see the environment as it was before the instruction.
                let values = self.expand_pairs(pairs)?;
                for (name, value) in &values {
                    self.state.set_env(name, value);
                    self.scope.set(name, value);
                }
                pairs_text("ENV", &values)
            }
            Kind::Label(pairs) => {
                let values = self.expand_pairs(pairs)?;
                let text = pairs_text("LABEL", &values);
                self.state.labels.extend(values);
                text
            }
            Kind::User(user) => {
                self.state.user = self.expand(user)?;
                format!("USER {}", self.state.user)
            }
            Kind::Expose(ports) => self.expose(ports)?,
            Kind::Volume(paths) => self.volumes(paths)?,
            Kind::Cmd(command) => {
                self.state.set_cmd(command);
                history::quoted("CMD", &self.state.words(command))
            }
            Kind::Entrypoint(command) => {
                self.state.set_entrypoint(command);
                history::quoted("ENTRYPOINT", &self.state.words(command))
            }
            Kind::Healthcheck(check) => {
                self.state.set_healthcheck(check);
                instruction.text.clone()
            }
            Kind::Stopsignal(signal) => {
                let signal = stop_signal(&self.expand(signal)?)?;
                let text = format!("STOPSIGNAL {signal}");
                self.state.stop_signal = Some(signal);
                text
            }
            Kind::Shell(words) => {
                self.state.shell = Some(words.clone());
                history::list("SHELL", words)
            }
            Kind::Maintainer(author) => {
                self.state.author = Some(author.clone());
                format!("MAINTAINER {author}")
            }
            Kind::Onbuild(trigger) => {
                self.state.on_build.push(trigger.clone());
                return Ok(None);
            }
            Kind::From { .. } | Kind::Run { .. } | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_) => return Ok(None),
        };
        Ok(Some(text))
    }

    fn declare(&mut self, args: &[(String, Option<String>)]) -> Result<String> {
        let mut declared = Vec::with_capacity(args.len());
        for (name, default) in args {
            let escape = self.escape();
            let value = self.scope.declare(name, default.as_deref(), escape);
            declared.push((name.as_str(), value.map_err(word)?));
        }
        let pairs = declared.iter().map(|(name, value)| (*name, value.as_deref()));
        Ok(history::pairs("ARG", pairs))
    }

    fn expose(&mut self, words: &[String]) -> Result<String> {
        let mut ports = Vec::new();
        for word in words {
            let expanded = self.scope.expand_split(word, self.escape());
            for port in expanded.map_err(self::word)? {
                ports.extend(exposed(&port)?);
            }
        }
        let text = history::list("EXPOSE", &ports);
        self.state.exposed.extend(ports);
        Ok(text)
    }

    fn volumes(&mut self, paths: &[String]) -> Result<String> {
        let paths = paths.iter().map(|path| self.expand(path)).collect::<Result<Vec<_>>>()?;
        if paths.iter().any(String::is_empty) {
            return Err(BuildError::Other("VOLUME specified can not be an empty string".into()));
        }
        let text = history::list("VOLUME", &paths);
        self.state.volumes.extend(paths);
        Ok(text)
    }

    fn expand_pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>> {
        pairs
            .iter()
            .map(|(name, value)| Ok((self.expand(name)?, self.expand(value)?)))
            .collect()
    }
}

/// Writes a stage's platform as BuildKit does: with an arrow where it is not the one that is built for.
fn shown_platform(stage: &Platform, target: &Platform) -> String {
    if stage.matches(target) {
        return format!("{stage} ");
    }
    let target_text = target.to_string();
    let prefix = format!("{}/", stage.os);
    let short = target_text.strip_prefix(&prefix).unwrap_or(&target_text);
    format!("{stage}->{short} ")
}

fn makes_files(kind: &Kind) -> bool {
    matches!(kind, Kind::Run { .. } | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_))
}

pub(super) fn word(error: WordError) -> BuildError {
    BuildError::Other(format!("failed to process words: {error}"))
}

fn pairs_text(keyword: &str, pairs: &[(String, String)]) -> String {
    history::pairs(
        keyword,
        pairs.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))),
    )
}

/// Ends a step's line by its result.
pub(super) fn end<T>(vertex: &Vertex, result: &Result<T>) {
    match result {
        Ok(_) => vertex.done(),
        Err(e) if e.is_canceled() || e.is_lost() => {}
        Err(e) => vertex.failed(e.to_string()),
    }
}

/// Reads `[[ip:]port:]port[-port][/protocol]`; address and port of the host mean nothing in an image.
fn exposed(text: &str) -> Result<Vec<String>> {
    let bad = || {
        BuildError::Other(format!(
            "invalid port `{text}` in EXPOSE: expected port[-port][/tcp|udp|sctp]"
        ))
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        (first <= last).then_some((first, last))
    };
    let (host, port) = text
        .rsplit_once(':')
        .map_or((None, text), |(host, port)| (Some(host), port));
    let (ports, protocol) = port.split_once('/').unwrap_or((port, ""));
    let protocol = match protocol.to_ascii_lowercase() {
        none if none.is_empty() => "tcp".to_owned(),
        known if matches!(known.as_str(), "tcp" | "udp" | "sctp") => known,
        _ => return Err(bad()),
    };
    let (first, last) = range(ports).ok_or_else(bad)?;
    if let Some(host) = host {
        let (address, host_ports) = host
            .rsplit_once(':')
            .map_or((None, host), |(ip, port)| (Some(ip), port));
        let address = address.map(|ip| ip.trim_start_matches('[').trim_end_matches(']'));
        let known = address.is_none_or(|ip| ip.is_empty() || ip.parse::<std::net::IpAddr>().is_ok());
        let fits = host_ports.is_empty()
            || range(host_ports).is_some_and(|(from, to)| to - from == last - first || first == last);
        if !known || !fits {
            return Err(bad());
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// Checks a signal name or number as docker does.
fn stop_signal(text: &str) -> Result<String> {
    const NAMES: &[&str] = &[
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
        "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
        "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
    ];
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = name
        .strip_prefix("RTMIN+")
        .or_else(|| name.strip_prefix("RTMAX-"))
        .is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n <= 15));
    if text.parse::<u8>().is_ok_and(|n| (1..=64).contains(&n)) || NAMES.contains(&name) || real_time {
        return Ok(text.to_owned());
    }
    Err(BuildError::Other(format!("invalid signal `{text}` in STOPSIGNAL")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_shown_as_buildkit_does() {
        let shown = |stage: &str, target: &str| shown_platform(&stage.parse().unwrap(), &target.parse().unwrap());
        assert_eq!(shown("linux/arm64", "linux/arm64"), "linux/arm64 ");
        assert_eq!(shown("linux/amd64", "linux/arm/v7"), "linux/amd64->arm/v7 ");
        assert_eq!(shown("linux/amd64", "windows/amd64"), "linux/amd64->windows/amd64 ");
    }

    #[test]
    fn ports_and_signals() {
        assert_eq!(exposed("80").unwrap(), ["80/tcp"]);
        assert_eq!(exposed("1-3/UDP").unwrap(), ["1/udp", "2/udp", "3/udp"]);
        assert_eq!(exposed("127.0.0.1:8080:80/").unwrap(), ["80/tcp"]);
        assert_eq!(exposed("[::1]:1-2:3-4/sctp").unwrap(), ["3/sctp", "4/sctp"]);
        for bad in ["", "x", "3-1", "80/xyz", "70000", "x:80", "a:80:80", "1-3:80-81"] {
            assert!(exposed(bad).is_err(), "{bad}");
        }
        for good in ["SIGTERM", "term", "9", "SIGRTMIN+3"] {
            assert!(stop_signal(good).is_ok(), "{good}");
        }
        for bad in ["", "0", "SIGNOPE", "65"] {
            assert!(stop_signal(bad).is_err(), "{bad}");
        }
    }
}
