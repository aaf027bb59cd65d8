//! COPY and ADD.

use super::bases::Base;
use super::copy_plan::{Plan, Source};
use super::error::{BuildError, Result};
use super::fetch::{Fetched, Identified};
use super::graph::{Origin, copy_origin};
use super::packing::keep;
use super::shared::{Shared, wait};
use super::step::{StageRun, end};
use crate::beneath::{Dir, Owner};
use crate::cache::local::Record;
use crate::context::Context;
use crate::context::files::{Selected, Tree};
use crate::context::remote::Remote;
use crate::dockerfile::Instruction;
use crate::dockerfile::instruction::Transfer;
use crate::layer::write::StepLayer;
use crate::rootfs::aside::Aside;
use crate::rootfs::copy::{self, Target};
use crate::rootfs::overlay::{ChainId, Rootfs};
use crate::rootfs::users::resolve_owner;
use roadstead_registry_client::Digest;

/// Where a copy or a mount takes its files.
#[derive(Debug, Clone)]
pub(super) enum From {
    /// A stage or an image.
    Layers(Vec<StepLayer>),
    /// The build context, or a named one.
    Directory(Context),
}

/// The same, with the layers unpacked.
enum Below {
    Chain(Vec<ChainId>),
    Directory(Context),
}

/// Files of one source, ready to be copied.
struct Opened {
    tree: Tree,
    selected: Vec<Selected>,
    unpack: bool,
    /// Whether a destination that is not there becomes the source directory, mode included, as with git repositories.
    becomes: bool,
}

/// Files of all sources in their order. The root file system they are taken from stays mounted as long as this lives.
struct Sources {
    opened: Vec<Opened>,
    /// What the result depends on, a line a source.
    content: Vec<String>,
    _rootfs: Option<Rootfs>,
}

impl StageRun<'_> {
    /// Does a COPY, or an ADD when `add` is set.
    pub(super) async fn copy(&mut self, instruction: &Instruction, transfer: &Transfer, add: bool) -> Result<()> {
        let plan = self.plan(transfer, add)?;
        let vertex = self.show(&instruction.text);
        let from = match &transfer.from {
            Some(from) => self.origin(from).await?,
            None => From::Directory(self.shared.request.context.clone()),
        };
        let mut identified = Vec::new();
        for remote in super::fetch::remotes(&plan) {
            identified.push(self.identify(&plan, remote).await?);
        }
        // What a stage gave is known by its layers, a repository by its commit: on a hit nothing needs to be fetched or unpacked.
        let by_identity = self.key_by_identity(&plan, &from, &identified);
        if let Some(key) = &by_identity
            && let Some(record) = self.find(key).await?
        {
            vertex.cached();
            self.accept(record, &plan.created_by);
            return Ok(());
        }
        let result = self.copy_by_content(&plan, &from, &identified).await;
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
    fn key_by_identity(&self, plan: &Plan, from: &From, remotes: &[Identified]) -> Option<Digest> {
        let mut key = self.copy_key(plan);
        if let From::Layers(layers) = from {
            let chain = ChainId::stack(layers.iter().map(|layer| &layer.diff_id));
            key.add("from", format!("{:?}", chain.last()));
        }
        let mut remotes = remotes.iter();
        for source in &plan.sources {
            match source {
                Source::Path(path) if matches!(from, From::Layers(_)) => key.add("path", path),
                Source::Path(_) => return None,
                Source::Remote(_) => key.add("remote", remotes.next()?.identity.as_ref()?),
            };
        }
        Some(self.settled(key))
    }

    /// Finds the files that the `from` of a copy or of a mount names.
    pub(super) async fn origin(&self, from: &str) -> Result<From> {
        let request = &self.shared.request;
        let platform = &self.shared.platform;
        match copy_origin(&request.dockerfile, self.index, from, &request.named, platform)? {
            Origin::Scratch => Ok(From::Layers(Vec::new())),
            Origin::Directory(context) => Ok(From::Directory(context)),
            Origin::Stage(index) => Ok(From::Layers(wait(self.shared, self.results, index).await?.base.layers)),
            Origin::Stored(descriptor) => {
                let reading = self.shared.bases.stored(&self.shared.tools, &descriptor, platform);
                Ok(From::Layers(reading.await?.layers))
            }
            Origin::Image { reference, .. } => {
                let bases = &self.shared.bases;
                let resolving = bases.resolve(&self.shared.tools, &reference, platform, request.pull);
                let Base { layers, .. } = resolving.await?;
                Ok(From::Layers(layers))
            }
        }
    }

    /// Makes the files of a named context that FROM names the first layer.
    pub(super) async fn begin_with(&mut self, origin: &Origin) -> Result<()> {
        let Origin::Directory(context) = origin else {
            return Ok(());
        };
        let vertex = self
            .shared
            .tools
            .progress
            .start(format!("load context {}", context.path.display()));
        let (record, _) = self
            .copy_by_content(&Plan::whole(), &From::Directory(context.clone()), &[])
            .await?;
        end(&vertex, &Ok(()));
        self.put(record);
        Ok(())
    }

    /// Looks the copy up by what it would copy, and does it when it is not known. Tells whether it was.
    async fn copy_by_content(&mut self, plan: &Plan, from: &From, remotes: &[Identified]) -> Result<(Record, bool)> {
        let from = match from {
            From::Layers(layers) => Below::Chain(self.shared.bases.unpack(&self.shared.tools, layers).await?),
            From::Directory(context) => Below::Directory(context.clone()),
        };
        let mut fetched = Vec::new();
        for (remote, known) in super::fetch::remotes(plan).zip(remotes) {
            fetched.push(self.fetch(plan, remote, known).await?);
        }
        let (plan, mut key) = (plan.clone(), self.copy_key(plan));
        let task = plan.clone();
        let sources = self
            .blocking(move |shared| open(&shared, &task, &from, &fetched))
            .await?;
        key.add_all("content", sources.content.iter());
        let key = self.settled(key);
        if let Some(record) = self.find(&key).await? {
            return Ok((record, true));
        }
        self.explain(|| {
            sources
                .opened
                .iter()
                .flat_map(|one| one.tree.changes(&one.selected))
                .collect()
        });
        let (record, steady) = self.copy_files(plan, sources).await?;
        self.remember_steady(&key, &record, steady)?;
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
        let packing = self.packing();
        self.blocking(move |shared| {
            let layers = &shared.tools.layers;
            let owner = match &plan.chown {
                None => None,
                Some(spec) => Some(chown(&shared, spec, &chain, needs_base)?),
            };
            let below: &[ChainId] = if plan.link { &[] } else { &chain };
            let rootfs = layers.mount(below, None)?;
            let root = Dir::open(rootfs.path())?;
            let target = |unpack, becomes| Target {
                root: &root,
                destination: &plan.destination,
                owner,
                mode: plan.chmod.as_ref().map(|(_, mode)| mode.clone()),
                unpack,
                becomes,
                limits: layers.limits(),
                epoch: Some(shared.epoch),
            };
            for source in &sources.opened {
                copy::copy(&source.tree, &source.selected, &target(source.unpack, source.becomes))?;
            }
            for (name, content) in &plan.inline {
                copy::write_inline(name, content, &target(false, false))?;
            }
            let steady = sources
                .opened
                .iter()
                .all(|source| source.tree.is_unchanged(&source.selected));
            let unpacked_on = if plan.link { None } else { Some(chain.as_slice()) };
            Ok((
                keep(&shared, rootfs, &chain, unpacked_on, &Aside::of_own_step(), packing)?,
                steady,
            ))
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
fn open(shared: &Shared, plan: &Plan, from: &Below, fetched: &[Fetched]) -> Result<Sources> {
    let rootfs = match from {
        Below::Chain(chain) => Some(shared.tools.layers.mount_readonly(chain)?),
        Below::Directory(_) => None,
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
                let tree = match (&rootfs, from) {
                    (Some(rootfs), _) => Tree::rootfs(rootfs.path())?,
                    (None, Below::Directory(context)) => Tree::context(context)?,
                    (None, Below::Chain(_)) => return Err(BuildError::Other("no files to copy from".into())),
                };
                let selected = tree.select(path, &plan.choice)?;
                Opened {
                    tree,
                    selected,
                    unpack: plan.unpack,
                    becomes: false,
                }
            }
            Source::Remote(remote) => {
                let Some(fetched) = fetched.next() else { continue };
                let (tree, selected) = fetched.select(&plan.choice)?;
                let unpack = plan.unpack_fetched && matches!(remote, Remote::Http(_));
                Opened {
                    tree,
                    selected,
                    unpack,
                    becomes: matches!(remote, Remote::Git(_)),
                }
            }
        };
        // A time that all files are given is content, too: another commit may differ in nothing else.
        let time = opened.tree.time();
        sources
            .content
            .push(format!("{} {time:?}", opened.tree.digest(&opened.selected)?));
        sources.opened.push(opened);
    }
    sources._rootfs = rootfs;
    Ok(sources)
}
