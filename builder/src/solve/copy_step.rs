//! COPY and ADD.

use super::bases::Base;
use super::error::{BuildError, Result};
use super::graph::{Origin, copy_origin};
use super::history;
use super::shared::{Shared, wait};
use super::step::{StageRun, end, keep, word};
use crate::beneath::{Dir, Owner};
use crate::cache::local::Record;
use crate::context::files::{Selected, Tree};
use crate::dockerfile::instruction::Transfer;
use crate::dockerfile::{CopySource, Instruction};
use crate::layer::write::StepLayer;
use crate::rootfs::copy::{self, Chmod, Target};
use crate::rootfs::overlay::{ChainId, Rootfs};
use crate::rootfs::users::resolve_owner;
use roadstead_registry_client::Digest;
use std::path::Path;

/// A copy with all its words expanded.
#[derive(Debug, Clone)]
struct Plan {
    paths: Vec<String>,
    inline: Vec<(String, Vec<u8>)>,
    destination: String,
    chown: Option<String>,
    chmod: Option<(String, Chmod)>,
    link: bool,
    unpack: bool,
    /// What the history says.
    created_by: String,
}

/// Where the files come from. A root file system stays mounted as long as this lives.
struct Source {
    tree: Tree,
    _rootfs: Option<Rootfs>,
}

impl Plan {
    /// The history's text; `destination` is what the Dockerfile has, variables expanded.
    fn created_by(&self, destination: &str) -> String {
        let mut text = if self.unpack { "ADD" } else { "COPY" }.to_owned();
        let chown = self.chown.as_ref().map(|owner| format!("--chown={owner}"));
        let chmod = self.chmod.as_ref().map(|(mode, _)| format!("--chmod={mode}"));
        let inline = self.inline.iter().map(|(name, _)| format!("<<{name}"));
        let words = chown.into_iter().chain(chmod).chain(self.paths.iter().cloned()).chain(inline);
        for word in words.chain([destination.to_owned()]) {
            text.push(' ');
            text.push_str(&word);
        }
        text + history::MARK
    }
}

impl StageRun<'_> {
    /// Does a COPY, or an ADD when `add` is set.
    pub(super) async fn copy(&mut self, instruction: &Instruction, transfer: &Transfer, add: bool) -> Result<()> {
        let plan = self.plan(transfer, add)?;
        let vertex = self.show(&instruction.text);
        let origin = match &transfer.from {
            Some(from) => Some(self.origin(from).await?),
            None => None,
        };
        let mut by_origin = None;
        if let Some(layers) = &origin {
            // What a stage gave is known by its layers: on a hit nothing needs to be unpacked.
            let mut key = self.copy_key(&plan);
            key.add(
                "from",
                format!("{:?}", ChainId::stack(layers.iter().map(|l| &l.diff_id)).last()),
            );
            key.add_all("paths", plan.paths.iter());
            let key = key.finish();
            if let Some(record) = self.find(&key).await? {
                vertex.cached();
                self.accept(record, &plan.created_by);
                return Ok(());
            }
            by_origin = Some(key);
        }
        let result = self.copy_by_content(&plan, origin.as_deref()).await;
        if let Ok((_, true)) = &result {
            vertex.cached();
        }
        end(&vertex, &result);
        let (record, _) = result?;
        if let Some(key) = by_origin {
            self.remember(&key, &record)?;
        }
        self.accept(record, &plan.created_by);
        Ok(())
    }

    fn plan(&self, transfer: &Transfer, add: bool) -> Result<Plan> {
        let (mut paths, mut inline) = (Vec::new(), Vec::new());
        for source in &transfer.sources {
            match source {
                CopySource::Path(path) => paths.push(self.expand(path)?),
                CopySource::Inline(heredoc) => {
                    let body = if heredoc.expand {
                        self.scope
                            .expand_heredoc(&heredoc.content, &self.state, self.escape())
                            .map_err(word)?
                    } else {
                        heredoc.content.clone()
                    };
                    inline.push((heredoc.name.clone(), body.into_bytes()));
                }
            }
        }
        if paths.iter().any(String::is_empty) {
            return Err(BuildError::Other("a source is empty after expansion".into()));
        }
        let written = self.expand(&transfer.destination)?;
        let destination = self.destination(&written)?;
        if paths.len() + inline.len() > 1 && !destination.ends_with('/') {
            return Err(BuildError::Other(
                "with more than one source, the destination must end with a `/`".into(),
            ));
        }
        let chmod = match &transfer.chmod {
            None => None,
            Some(text) => {
                let text = self.expand(text)?;
                let message = format!(
                    "invalid `--chmod={text}`: expected an octal mode such as 755 or clauses such as u=rwX,go=rX"
                );
                let mode = Chmod::parse(&text).ok_or(BuildError::Other(message))?;
                Some((text, mode))
            }
        };
        let chown = transfer.chown.as_ref().map(|text| self.expand(text)).transpose()?;
        let mut plan = Plan {
            paths,
            inline,
            destination,
            chown,
            // BuildKit makes a layer of its own only without a mode.
            link: transfer.link && chmod.is_none(),
            chmod,
            unpack: add,
            created_by: String::new(),
        };
        plan.created_by = plan.created_by(&written);
        Ok(plan)
    }

    /// Makes the destination absolute; a trailing slash, which means a directory, stays.
    fn destination(&self, text: &str) -> Result<String> {
        if text.is_empty() {
            return Err(BuildError::Other("the destination is empty after expansion".into()));
        }
        let joined = Path::new("/").join(&self.state.working_dir).join(text);
        let directory =
            text.ends_with('/') || matches!(text, "." | "..") || text.ends_with("/.") || text.ends_with("/..");
        let cleaned = crate::beneath::clean(&joined);
        let slash = if directory && !cleaned.as_os_str().is_empty() {
            "/"
        } else {
            ""
        };
        Ok(format!("/{}{slash}", cleaned.display()))
    }

    fn copy_key(&self, plan: &Plan) -> crate::cache::key::KeyBuilder {
        let mut key = self.key(if plan.unpack { "ADD" } else { "COPY" });
        key.add("destination", &plan.destination);
        key.add("chown", format!("{:?}", plan.chown));
        key.add("chmod", format!("{:?}", plan.chmod.as_ref().map(|(text, _)| text)));
        key.add("link", plan.link.to_string());
        key.add("inline", plan.inline.len().to_string());
        for (name, content) in &plan.inline {
            key.add("name", name).add("content", content);
        }
        key
    }

    /// Gives the layers of what the `from` of a copy or of a mount names.
    pub(super) async fn origin(&self, from: &str) -> Result<Vec<StepLayer>> {
        match copy_origin(&self.shared.request.dockerfile, self.index, from)? {
            Origin::Scratch => Ok(Vec::new()),
            Origin::Stage(index) => Ok(wait(self.shared, self.results, index).await?.base.layers),
            Origin::Image { reference, .. } => {
                let pull = self.shared.request.pull;
                let Base { layers, .. } = self
                    .shared
                    .bases
                    .resolve(&self.shared.tools, &reference, &self.shared.platform, pull)
                    .await?;
                Ok(layers)
            }
        }
    }

    /// Looks the copy up by what it would copy, and does it when it is not known. Tells whether it was.
    async fn copy_by_content(&self, plan: &Plan, origin: Option<&[StepLayer]>) -> Result<(Record, bool)> {
        let from_chain = match origin {
            Some(layers) => Some(self.shared.bases.unpack(&self.shared.tools, layers).await?),
            None => None,
        };
        let (plan, mut key) = (plan.clone(), self.copy_key(plan));
        let task = plan.clone();
        let (source, selected, content) = self
            .blocking(move |shared| {
                let source = open_source(&shared, from_chain.as_deref(), &task)?;
                let selected = select(source.as_ref(), &task)?;
                let content = match &source {
                    Some(source) => source.tree.digest(&selected)?,
                    None => Digest::of(b""),
                };
                Ok((source, selected, content))
            })
            .await?;
        key.add("content", content.to_string());
        let key = key.finish();
        if let Some(record) = self.find(&key).await? {
            return Ok((record, true));
        }
        let (record, steady) = self.copy_files(plan, source, selected).await?;
        if steady {
            self.remember(&key, &record)?;
        } else {
            // The key tells of files as they were read first, the layer holds them as they were read next.
            let message = "files changed while they were copied: the result is used, but not remembered";
            self.shared.tools.progress.warn(message);
        }
        Ok((record, false))
    }

    /// Copies. Tells also whether the sources kept still.
    async fn copy_files(&self, plan: Plan, source: Option<Source>, selected: Vec<Selected>) -> Result<(Record, bool)> {
        // With --link the files go into a layer of their own that knows nothing of those below, save for user names.
        let needs_base = !plan.link
            || plan
                .chown
                .as_deref()
                .is_some_and(|c| c.split(':').any(|part| part.parse::<u32>().is_err()));
        let chain = if needs_base {
            self.shared.bases.unpack(&self.shared.tools, &self.layers).await?
        } else {
            self.chain()
        };
        let in_image = self.in_image;
        self.blocking(move |shared| {
            let layers = &shared.tools.layers;
            let owner = match &plan.chown {
                None => None,
                Some(spec) => Some(chown(&shared, spec, &chain, needs_base)?),
            };
            let below: &[ChainId] = if plan.link { &[] } else { &chain };
            let rootfs = layers.mount(below, None)?;
            let root = Dir::open(rootfs.path())?;
            let mode = plan.chmod.as_ref().map(|(_, mode)| mode.clone());
            let target = Target {
                root: &root,
                destination: &plan.destination,
                owner,
                mode,
                unpack: plan.unpack,
            };
            if let Some(source) = &source {
                copy::copy(&source.tree, &selected, &target)?;
            }
            for (name, content) in &plan.inline {
                copy::write_inline(name, content, &target)?;
            }
            let steady = source.is_none_or(|source| source.tree.is_unchanged(&selected));
            let unpacked_on = if plan.link { None } else { Some(chain.as_slice()) };
            Ok((keep(&shared, rootfs, &chain, unpacked_on, &[], in_image)?, steady))
        })
        .await
    }
}

fn chown(shared: &Shared, spec: &str, chain: &[ChainId], unpacked: bool) -> Result<Owner> {
    let rootfs = if unpacked {
        shared.tools.layers.mount_readonly(chain)?
    } else {
        shared.tools.layers.mount_readonly(&[])?
    };
    Ok(resolve_owner(&Dir::open(rootfs.path())?, spec)?)
}

fn open_source(shared: &Shared, from_chain: Option<&[ChainId]>, plan: &Plan) -> Result<Option<Source>> {
    if let Some(chain) = from_chain {
        let rootfs = shared.tools.layers.mount_readonly(chain)?;
        return Ok(Some(Source {
            tree: Tree::rootfs(rootfs.path())?,
            _rootfs: Some(rootfs),
        }));
    }
    if plan.paths.is_empty() {
        return Ok(None);
    }
    let tree = Tree::context(&shared.request.context, shared.request.ignore.clone())?;
    Ok(Some(Source { tree, _rootfs: None }))
}

fn select(source: Option<&Source>, plan: &Plan) -> Result<Vec<Selected>> {
    let mut selected = Vec::new();
    if let Some(source) = source {
        for path in &plan.paths {
            selected.extend(source.tree.select(path)?);
        }
    }
    Ok(selected)
}
