//! The mounts of a RUN: what they depend on, and their files made ready for the sandbox.

use super::carried_mounts;
use super::copy_step::From;
use super::error::{BuildError, Result};
use super::shared::Shared;
use super::step::StageRun;
use crate::beneath::{Dir, FileError, Owner, clean};
use crate::cache::key::KeyBuilder;
use crate::cache::mounts::CacheMount;
use crate::context::Context;
use crate::context::files::{Choice, Selected, Tree};
use crate::dockerfile::mount::{Access, Mount, MountFlag, Sharing};
use crate::layer::limits::Limits;
use crate::layer::write::StepLayer;
use crate::rootfs::copy::{self, Target};
use crate::rootfs::overlay::{ChainId, Rootfs};
use crate::sandbox::plan;
use crate::sandbox::{Kind, Memory};
use crate::ssh::proxy::Proxy;
use roadstead_registry_client::Digest;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Mode of a new tmpfs, unless it hides a directory of the image, whose mode it then has.
const TMPFS_MODE: u32 = 0o1777;

/// Owner and mode of what nothing is said about.
const PLAIN: Access = Access {
    uid: 0,
    gid: 0,
    mode: 0o755,
};

/// Where the sockets of SSH agents appear, as with BuildKit; their number follows.
const AGENT_SOCKET: &str = "/run/buildkit/ssh_agent.";

/// One mount with what its files come from.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    mount: Mount,
    /// Absolute path inside; empty when nothing is mounted.
    target: PathBuf,
    origin: Files,
}

/// Where a mount's files come from.
#[derive(Debug, Clone)]
enum Files {
    /// From nowhere: it begins empty, or is a secret or a socket.
    Nothing,
    /// From the build context or a named one.
    Directory(Arc<Shown>),
    /// From a stage or an image.
    Layers(Vec<StepLayer>),
}

/// Files of a directory, as they were when the command's key was made of them.
#[derive(Debug)]
struct Shown {
    tree: Tree,
    selected: Vec<Selected>,
    digest: Digest,
}

/// What the sandbox is given.
#[derive(Debug, Default)]
pub(super) struct Ready {
    pub(super) mounts: Vec<plan::Mount>,
    /// Secrets that are variables.
    pub(super) env: Vec<(String, String)>,
    /// By their keys: a command that mounts one cache twice has one directory.
    caches: BTreeMap<Digest, CacheMount>,
    /// Whether files changed after the command's key was made of them.
    pub(super) has_changed: bool,
    _held: Vec<Held>,
}

/// What must stay while the command runs.
#[derive(Debug)]
#[expect(dead_code, reason = "held for what their drop does")]
enum Held {
    Rootfs(Rootfs),
    Memory(Memory),
    Proxy(Proxy),
}

impl StageRun<'_> {
    /// Finds out what the mounts of a RUN show.
    pub(super) async fn wanted_mounts(&self, flags: &[MountFlag]) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::with_capacity(flags.len());
        let mut agents = 0;
        for flag in flags {
            let one = Box::pin(self.wanted_mount(flag, &mut agents)).await;
            wanted.push(one.map_err(|error| super::shared::placed(self.shared, flag.span, None, error))?);
        }
        Ok(wanted)
    }

    /// `agents` counts the SSH agents so far: a socket without a target is named by its number.
    async fn wanted_mount(&self, flag: &MountFlag, agents: &mut usize) -> Result<Wanted> {
        let mount = flag.resolve(|text| self.expand(text)).map_err(BuildError::Other)?;
        let target = match &mount {
            Mount::Bind { target, .. } | Mount::Cache { target, .. } | Mount::Tmpfs { target, .. } => {
                self.inside(target)?
            }
            Mount::Secret {
                target: Some(target), ..
            } => self.inside(target)?,
            Mount::Secret { target: None, .. } => PathBuf::new(),
            Mount::Ssh { target, .. } => {
                let usual = PathBuf::from(format!("{AGENT_SOCKET}{agents}"));
                *agents += 1;
                self.inside(target.as_ref().unwrap_or(&usual))?
            }
        };
        let origin = match (&flag.from, &mount) {
            (Some(from), Mount::Bind { source, .. } | Mount::Cache { source, .. }) => match self.origin(from).await? {
                From::Layers(layers) => Files::Layers(layers),
                From::Directory(context) => self.shown(context, source).await?,
            },
            (None, Mount::Bind { source, .. }) => self.shown(self.shared.request.context.clone(), source).await?,
            _ => Files::Nothing,
        };
        Ok(Wanted { mount, target, origin })
    }

    async fn shown(&self, context: Context, source: &str) -> Result<Files> {
        let source = source.to_owned();
        self.blocking(move |_| {
            let tree = Tree::context(&context)?;
            // An ignored file is not shown.
            let selected = tree.select(&source, &Choice::default())?;
            let digest = tree.digest(&selected)?;
            Ok(Files::Directory(Arc::new(Shown { tree, selected, digest })))
        })
        .await
    }

    fn inside(&self, target: &Path) -> Result<PathBuf> {
        let target = clean(&Path::new("/").join(&self.state.working_dir).join(target));
        if target.as_os_str().is_empty() {
            return Err(BuildError::Other("cannot mount on `/`".to_owned()));
        }
        Ok(Path::new("/").join(target))
    }

    /// Brings the layers here that mounts show.
    pub(super) async fn unpack_mounts(&self, wanted: &[Wanted]) -> Result<()> {
        for one in wanted {
            if let Files::Layers(layers) = &one.origin {
                self.shared.bases.unpack(&self.shared.tools, layers).await?;
            }
            if let Mount::Cache { .. } = &one.mount {
                carried_mounts::fetch(self.shared, &one.cache_key(self.shared)).await;
            }
        }
        Ok(())
    }
}

impl Ready {
    /// Makes the mounts of a command ready. Caches come last: who waits for one of them waits for no other mount's files as well.
    pub(super) fn prepare(wanted: &[Wanted], shared: &Shared, scratch: &Path) -> Result<Self> {
        let mut ready = Self::default();
        for (number, one) in wanted.iter().enumerate() {
            one.prepare(shared, scratch, number, &mut ready)?;
        }
        ready.take_caches(wanted, shared, scratch)?;
        Ok(ready)
    }

    /// Takes each cache once, by the strictest sharing that one of its mounts asks for. All commands take them in the order of their whole
    /// keys, by which they are locked, so that no two wait for each other.
    fn take_caches(&mut self, wanted: &[Wanted], shared: &Shared, scratch: &Path) -> Result<()> {
        let mut caches: BTreeMap<Digest, (&Wanted, Sharing)> = BTreeMap::new();
        for one in wanted {
            let Mount::Cache { sharing, .. } = &one.mount else {
                continue;
            };
            // What is lent can be lent to one command at a time.
            let sharing = match (shared.tools.place.kind, *sharing) {
                (Kind::Chroot, Sharing::Shared) => Sharing::Locked,
                (_, sharing) => sharing,
            };
            let (_, strictest) = caches.entry(one.cache_key(shared)).or_insert((one, sharing));
            *strictest = (*strictest).max(sharing);
        }
        for (key, (one, sharing)) in caches {
            let cache = one.cache(shared, &key, sharing)?;
            self.has_changed |= one.origin.has_changed();
            self.caches.insert(key, cache);
        }
        for one in wanted {
            let mount = match shared.tools.place.kind {
                Kind::Chroot => one.lent_cache(&self.caches, shared, scratch, &self.mounts)?,
                _ => one.cache_bind(&self.caches, shared),
            };
            self.mounts.extend(mount);
        }
        Ok(())
    }
}

impl Wanted {
    /// Adds what the result of the command depends on: what is shown, never what a cache, a secret or an agent holds.
    pub(super) fn add_to(&self, key: &mut KeyBuilder) {
        key.add("mount", format!("{:?}", self.mount));
        key.add("target", self.target.as_os_str().as_encoded_bytes());
        key.add("files", self.origin.name());
    }

    /// Makes the files ready, and says how they are mounted. Not those of a cache, which are taken together with all others.
    fn prepare(&self, shared: &Shared, scratch: &Path, number: usize, ready: &mut Ready) -> Result<()> {
        match &self.mount {
            Mount::Tmpfs { size, .. } => ready.mounts.push(plan::Mount::Tmpfs {
                target: self.target.clone(),
                size: *size,
                mode: TMPFS_MODE,
            }),
            Mount::Bind { source, .. } if shared.tools.place.kind == Kind::Chroot => {
                let mount = self.lent_files(shared, source, &scratch.join(format!("bind-{number}")))?;
                ready.has_changed |= self.origin.has_changed();
                ready.mounts.push(mount);
            }
            Mount::Bind { source, writable, .. } => {
                let (rootfs, source) = self.files(shared, source)?;
                ready.has_changed |= self.origin.has_changed();
                let stat = Dir::open(rootfs.path())?.follow(&source)?;
                let Some(stat) = stat else {
                    return Err(BuildError::Other(format!(
                        "`{}` is not there to be mounted",
                        source.display()
                    )));
                };
                ready.mounts.push(plan::Mount::Bind {
                    root: rootfs.path().to_owned(),
                    source,
                    target: self.target.clone(),
                    directory: crate::beneath::kind(&stat).is_dir(),
                    writable: *writable,
                });
                ready._held.push(Held::Rootfs(rootfs));
            }
            Mount::Cache { .. } => {}
            Mount::Secret { .. } => self.secret(shared, scratch, number, ready)?,
            Mount::Ssh { .. } => self.ssh(shared, scratch, number, ready)?,
        }
        Ok(())
    }

    /// Mounts the files that are shown somewhere outside; gives also the path below.
    fn files(&self, shared: &Shared, source: &str) -> Result<(Rootfs, PathBuf)> {
        let layers = &shared.tools.layers;
        let from = match &self.origin {
            Files::Layers(layers) => layers.as_slice(),
            Files::Nothing => &[],
            Files::Directory(shown) => {
                let rootfs = layers.mount(&[], None)?;
                copy_into(&shown.tree, &shown.selected, rootfs.path())?;
                return Ok((
                    rootfs,
                    single_file(&shown.selected).unwrap_or_else(|| PathBuf::from(".")),
                ));
            }
        };
        let chain = ChainId::stack(from.iter().map(|layer| &layer.diff_id));
        let rootfs = match &self.mount {
            // What the command writes is seen by nobody else, and goes with the mount.
            Mount::Bind { writable: true, .. } => layers.mount(&chain, None)?,
            _ => layers.mount_readonly(&chain)?,
        };
        Ok((rootfs, Path::new(".").join(clean(Path::new(source)))))
    }

    /// Copies the files that are shown to `directory`, from where they are lent: what the command writes is seen by nobody else.
    fn lent_files(&self, shared: &Shared, source: &str, directory: &Path) -> Result<plan::Mount> {
        super::run_step::directories(directory, Path::new(""))?;
        let single = match &self.origin {
            Files::Nothing => None,
            Files::Directory(shown) => {
                copy_into(&shown.tree, &shown.selected, directory)?;
                single_file(&shown.selected)
            }
            Files::Layers(layers) => {
                let chain = ChainId::stack(layers.iter().map(|layer| &layer.diff_id));
                let rootfs = shared.tools.layers.mount_readonly(&chain)?;
                let tree = Tree::rootfs(rootfs.path())?;
                let selected = tree.select(source, &Choice::default())?;
                copy_into(&tree, &selected, directory)?;
                give(directory, access_of(&selected, PLAIN))?;
                single_file(&selected)
            }
        };
        Ok(plan::Mount::Lend {
            directory: single.is_none(),
            source: single.map_or_else(|| directory.to_owned(), |name| directory.join(name)),
            target: self.target.clone(),
            stays: false,
            writable: matches!(self.mount, Mount::Bind { writable: true, .. }),
        })
    }

    /// Says how a cache that was taken is lent. A second time in one command it is a link to the first; one that is not to be written is
    /// a copy.
    fn lent_cache(
        &self,
        caches: &BTreeMap<Digest, CacheMount>,
        shared: &Shared,
        scratch: &Path,
        lent: &[plan::Mount],
    ) -> Result<Option<plan::Mount>> {
        let Mount::Cache { writable, .. } = &self.mount else {
            return Ok(None);
        };
        let Some(cache) = caches.get(&self.cache_key(shared)) else {
            return Ok(None);
        };
        let own = scratch.join(format!("cache-{}", lent.len()));
        let first = lent.iter().find_map(|mount| match mount {
            plan::Mount::Lend { source, target, .. } if source == cache.path() => Some(target),
            _ => None,
        });
        let source = match (first, writable) {
            (Some(first), _) => {
                std::os::unix::fs::symlink(first, &own).map_err(|e| FileError::new("create link", &own, e))?;
                own
            }
            (None, true) => cache.path().to_owned(),
            (None, false) => {
                super::run_step::directories(&own, Path::new(""))?;
                let tree = Tree::rootfs(cache.path())?;
                let selected = tree.select(".", &Choice::default())?;
                copy_into(&tree, &selected, &own)?;
                own
            }
        };
        Ok(Some(plan::Mount::Lend {
            directory: first.is_none(),
            stays: source == cache.path(),
            source,
            target: self.target.clone(),
            writable: *writable,
        }))
    }

    /// Says how a cache that was taken is mounted.
    fn cache_bind(&self, caches: &BTreeMap<Digest, CacheMount>, shared: &Shared) -> Option<plan::Mount> {
        let Mount::Cache { writable, .. } = &self.mount else {
            return None;
        };
        Some(plan::Mount::Bind {
            root: caches.get(&self.cache_key(shared))?.path().to_owned(),
            source: PathBuf::from("."),
            target: self.target.clone(),
            directory: true,
            writable: *writable,
        })
    }

    /// Tells caches apart. Another beginning is another cache, as with BuildKit.
    fn cache_key(&self, shared: &Shared) -> Digest {
        let mut key = KeyBuilder::new("cache mount");
        let space = shared.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS");
        key.add("space", space.map_or("", String::as_str));
        if let Mount::Cache { id, source, access, .. } = &self.mount {
            key.add("id", id).add("access", format!("{access:?}"));
            key.add("files", self.origin.name()).add("source", source);
        }
        key.finish()
    }

    fn cache(&self, shared: &Shared, key: &Digest, sharing: Sharing) -> Result<CacheMount> {
        let Mount::Cache { source, access, .. } = &self.mount else {
            return Err(BuildError::Other("no cache mount".to_owned()));
        };
        shared.used.add_mount(key);
        let carried = std::cell::Cell::new(None);
        let fill = |path: &Path| -> Result<()> {
            if let Some(layer) = carried_mounts::fill(shared, key, path)? {
                give(path, *access)?;
                carried.set(Some(carried_mounts::filled(layer, path)?));
                return Ok(());
            }
            match &self.origin {
                Files::Nothing => {}
                Files::Layers(_) => {
                    let (rootfs, _) = self.files(shared, source)?;
                    let tree = Tree::rootfs(rootfs.path())?;
                    let selected = tree.select(source, &Choice::default())?;
                    copy_into(&tree, &selected, path)?;
                    return give(path, access_of(&selected, *access));
                }
                Files::Directory(shown) => {
                    copy_into(&shown.tree, &shown.selected, path)?;
                    return give(path, access_of(&shown.selected, *access));
                }
            }
            give(path, *access)
        };
        let mounts = &shared.tools.mounts;
        let taken = mounts.take(key, sharing, || shared.cancel.is_canceled(), fill)?;
        let taken = taken.ok_or(BuildError::Canceled)?;
        if let Some(saved) = carried.take() {
            taken.note_saved(&saved)?;
        }
        Ok(taken)
    }

    fn secret(&self, shared: &Shared, scratch: &Path, number: usize, ready: &mut Ready) -> Result<()> {
        let Mount::Secret {
            id,
            target,
            variable,
            required,
            access,
        } = &self.mount
        else {
            return Ok(());
        };
        let Some(secret) = shared.request.secrets.get(id) else {
            return match required {
                true => Err(BuildError::Other(format!(
                    "secret `{id}` is required and was not given: give it with `--secret id={id},src=FILE` or `env=NAME`"
                ))),
                false => Ok(()),
            };
        };
        if let Some(name) = variable {
            let text = std::str::from_utf8(secret.bytes())
                .ok()
                .filter(|text| !text.contains('\0'));
            let text =
                text.ok_or_else(|| BuildError::Other(format!("secret `{id}` is no text: it cannot be a variable")))?;
            ready.env.push((name.clone(), text.to_owned()));
        }
        if target.is_some() && shared.tools.place.kind == Kind::Chroot {
            ready.mounts.push(plan::Mount::Secret {
                content: secret.bytes().to_vec(),
                target: self.target.clone(),
                owner: (access.uid, access.gid),
                mode: access.mode,
            });
            return Ok(());
        }
        if target.is_some() {
            let memory = Memory::mount(&scratch.join(format!("secret-{number}")))?;
            let file = memory.path().join("secret");
            let mut open = Dir::open(memory.path())?.create_file("secret".as_ref())?;
            open.write_all(secret.bytes())
                .map_err(|e| FileError::new("write", &file, e))?;
            give(&file, *access)?;
            ready.mounts.push(plan::Mount::file(&file, self.target.clone()));
            ready._held.push(Held::Memory(memory));
        }
        Ok(())
    }

    /// Makes a socket that passes on to the agent. It lies where only the builder and, through the mount, the command get to.
    fn ssh(&self, shared: &Shared, scratch: &Path, number: usize, ready: &mut Ready) -> Result<()> {
        let Mount::Ssh {
            id, required, access, ..
        } = &self.mount
        else {
            return Ok(());
        };
        let Some(agent) = shared.request.ssh.get(id) else {
            return match required {
                true => Err(BuildError::Other(format!(
                    "SSH agent `{id}` is required and was not given: give it with `--ssh {id}`, `--ssh {id}=SOCKET` or `--ssh {id}=KEYFILE`"
                ))),
                false => Ok(()),
            };
        };
        let directory = scratch.join(format!("ssh-{number}"));
        if shared.tools.place.kind == Kind::Chroot {
            crate::rootfs::scratch::private_dir(&directory)?;
            let socket = directory.join("agent");
            let proxy = Proxy::listen(&socket, agent.clone()).map_err(|e| FileError::new("listen on", &socket, e))?;
            give(&socket, *access)?;
            ready.mounts.push(plan::Mount::Lend {
                source: socket,
                target: self.target.clone(),
                directory: false,
                stays: false,
                writable: true,
            });
            ready._held.push(Held::Proxy(proxy));
            return Ok(());
        }
        let memory = Memory::mount(&directory)?;
        let socket = memory.path().join("agent");
        let proxy = Proxy::listen(&socket, agent.clone()).map_err(|e| FileError::new("listen on", &socket, e))?;
        give(&socket, *access)?;
        ready.mounts.push(plan::Mount::file(&socket, self.target.clone()));
        // The socket is closed before its directory goes.
        ready._held.push(Held::Proxy(proxy));
        ready._held.push(Held::Memory(memory));
        Ok(())
    }

    /// The place of the socket, when this is an SSH agent.
    pub(super) fn agent_socket(&self) -> Option<&Path> {
        matches!(self.mount, Mount::Ssh { .. }).then_some(self.target.as_path())
    }
}

impl Files {
    /// Whether files are others now than when the key was made of them. What was copied meanwhile may be either.
    fn has_changed(&self) -> bool {
        match self {
            Self::Directory(shown) => !shown.tree.is_unchanged(&shown.selected),
            Self::Nothing | Self::Layers(_) => false,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Directory(shown) => format!("directory {}", shown.digest),
            Self::Layers(layers) => format!("layers {:?}", ChainId::stack(layers.iter().map(|l| &l.diff_id)).last()),
        }
    }
}

/// Copies what is selected into a directory, as it is.
fn copy_into(tree: &Tree, selected: &[Selected], directory: &Path) -> Result<()> {
    let target = Target {
        root: &Dir::open(directory)?,
        destination: "/",
        owner: None,
        mode: None,
        unpack: false,
        becomes: false,
        limits: Limits::NONE,
        epoch: None,
    };
    Ok(copy::copy(tree, selected, &target)?)
}

/// Names what was copied when it is no directory: a directory's content was.
fn single_file(selected: &[Selected]) -> Option<PathBuf> {
    let [only] = selected else { return None };
    let itself = only.entries.first()?;
    (!itself.file_type.is_dir()).then(|| PathBuf::from(&only.name))
}

/// A cache that begins with a directory's files has its owner and mode, unless the mount says others.
fn access_of(selected: &[Selected], access: Access) -> Access {
    let top = selected.first().and_then(|one| one.entries.first());
    match top.filter(|top| top.file_type.is_dir() && access == PLAIN) {
        Some(top) => Access {
            uid: top.uid,
            gid: top.gid,
            mode: top.mode,
        },
        None => access,
    }
}

/// Sets owner and mode of what a mount makes.
fn give(path: &Path, access: Access) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let parent = Dir::open(parent)?;
    let Access { uid, gid, mode } = access;
    if (uid, gid) != (0, 0) {
        parent.set_owner(name, Owner { uid, gid })?;
    }
    Ok(parent.set_mode(name, mode)?)
}
