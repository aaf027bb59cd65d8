//! COPY and ADD.

use super::bases::Base;
use super::copy_plan::{Plan, Source};
use super::error::Result;
use super::fetch::{Fetched, Identified};
use super::graph::{Origin, copy_origin};
use super::shared::{Shared, wait};
use super::step::{StageRun, end, keep};
use crate::beneath::{Dir, Owner};
use crate::cache::local::Record;
use crate::context::files::{Selected, Tree};
use crate::context::remote::Remote;
use crate::dockerfile::Instruction;
use crate::dockerfile::instruction::Transfer;
use crate::layer::write::StepLayer;
use crate::rootfs::copy::{self, Target};
use crate::rootfs::overlay::{ChainId, Rootfs};
use crate::rootfs::users::resolve_owner;
use roadstead_registry_client::Digest;

/// Files of one source, ready to be copied.
struct Opened {
    tree: Tree,
    selected: Vec<Selected>,
    unpack: bool,
}

/// Files of all sources in their order. The root file system they are taken from stays mounted as long as this lives.
struct Sources {
    opened: Vec<Opened>,
    content: Vec<Digest>,
    _rootfs: Option<Rootfs>,
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
        let mut identified = Vec::new();
        for remote in super::fetch::remotes(&plan) {
            identified.push(self.identify(&plan, remote).await?);
        }
        // What a stage gave is known by its layers, a repository by its commit: on a hit nothing needs to be fetched or unpacked.
        let by_identity = self.key_by_identity(&plan, origin.as_deref(), &identified);
        if let Some(key) = &by_identity
            && let Some(record) = self.find(key).await?
        {
            vertex.cached();
            self.accept(record, &plan.created_by);
            return Ok(());
        }
        let result = self.copy_by_content(&plan, origin.as_deref(), &identified).await;
        if let Ok((_, true)) = &result {
            vertex.cached();
        }
        end(&vertex, &result);
        let (record, _) = result?;
        if let Some(key) = by_identity {
            self.remember(&key, &record)?;
        }
        self.accept(record, &plan.created_by);
        Ok(())
    }

    fn copy_key(&self, plan: &Plan) -> crate::cache::key::KeyBuilder {
        let mut key = self.key("COPY");
        plan.add_to(&mut key);
        key
    }

    /// Makes the key of a copy all of whose sources are known without looking at their files.
    fn key_by_identity(&self, plan: &Plan, origin: Option<&[StepLayer]>, remotes: &[Identified]) -> Option<Digest> {
        let mut key = self.copy_key(plan);
        if let Some(layers) = origin {
            let chain = ChainId::stack(layers.iter().map(|layer| &layer.diff_id));
            key.add("from", format!("{:?}", chain.last()));
        }
        let mut remotes = remotes.iter();
        for source in &plan.sources {
            match source {
                Source::Path(path) if origin.is_some() => key.add("path", path),
                Source::Path(_) => return None,
                Source::Remote(_) => key.add("remote", remotes.next()?.identity.as_ref()?),
            };
        }
        // Heredocs alone are known by their content.
        let known = origin.is_some() || !plan.sources.is_empty();
        known.then(|| key.finish())
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
    async fn copy_by_content(
        &self,
        plan: &Plan,
        origin: Option<&[StepLayer]>,
        remotes: &[Identified],
    ) -> Result<(Record, bool)> {
        let from_chain = match origin {
            Some(layers) => Some(self.shared.bases.unpack(&self.shared.tools, layers).await?),
            None => None,
        };
        let mut fetched = Vec::new();
        for (remote, known) in super::fetch::remotes(plan).zip(remotes) {
            fetched.push(self.fetch(plan, remote, known).await?);
        }
        let (plan, mut key) = (plan.clone(), self.copy_key(plan));
        let task = plan.clone();
        let sources = self
            .blocking(move |shared| open(&shared, &task, from_chain.as_deref(), &fetched))
            .await?;
        key.add_all("content", sources.content.iter().map(ToString::to_string));
        let key = key.finish();
        if let Some(record) = self.find(&key).await? {
            return Ok((record, true));
        }
        let (record, steady) = self.copy_files(plan, sources).await?;
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
    async fn copy_files(&self, plan: Plan, sources: Sources) -> Result<(Record, bool)> {
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
            let target = |unpack| Target {
                root: &root,
                destination: &plan.destination,
                owner,
                mode: plan.chmod.as_ref().map(|(_, mode)| mode.clone()),
                unpack,
            };
            for source in &sources.opened {
                copy::copy(&source.tree, &source.selected, &target(source.unpack))?;
            }
            for (name, content) in &plan.inline {
                copy::write_inline(name, content, &target(false))?;
            }
            let steady = sources
                .opened
                .iter()
                .all(|source| source.tree.is_unchanged(&source.selected));
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

/// Selects the files of every source, and digests them.
fn open(shared: &Shared, plan: &Plan, from_chain: Option<&[ChainId]>, fetched: &[Fetched]) -> Result<Sources> {
    let rootfs = match from_chain {
        Some(chain) => Some(shared.tools.layers.mount_readonly(chain)?),
        None => None,
    };
    let mut fetched = fetched.iter();
    let mut sources = Sources {
        opened: Vec::new(),
        content: Vec::new(),
        _rootfs: None,
    };
    for source in &plan.sources {
        let opened = match source {
            Source::Path(path) => {
                let tree = match &rootfs {
                    Some(rootfs) => Tree::rootfs(rootfs.path())?,
                    None => Tree::context(&shared.request.context, shared.request.ignore.clone())?,
                };
                let selected = tree.select(path, &plan.choice)?;
                Opened {
                    tree,
                    selected,
                    unpack: plan.unpack,
                }
            }
            Source::Remote(remote) => {
                let Some(fetched) = fetched.next() else { continue };
                let (tree, selected) = fetched.select(&plan.choice)?;
                let unpack = plan.unpack_fetched && matches!(remote, Remote::Http(_));
                Opened { tree, selected, unpack }
            }
        };
        sources.content.push(opened.tree.digest(&opened.selected)?);
        sources.opened.push(opened);
    }
    sources._rootfs = rootfs;
    Ok(sources)
}
