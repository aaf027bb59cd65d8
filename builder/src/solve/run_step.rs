//! RUN.

use super::error::{BuildError, Result};
use super::history;
use super::mounts::{Ready, Wanted};
use super::packing::{Packing, keep};
use super::shared::Shared;
use super::step::{StageRun, end};
use crate::beneath::{Dir, FileError, clean};
use crate::cache::local::Record;
use crate::dockerfile::{Command, Heredoc, Instruction, Kind};
use crate::image::config::DEFAULT_PATH;
use crate::progress::{Stream, Vertex};
use crate::rootfs::aside::Aside;
use crate::rootfs::overlay::ChainId;
use crate::rootfs::users::resolve_user;
use crate::sandbox::plan::{MOUNT_POINT_DIRS, Mount, Plan};
use crate::sandbox::{self, SandboxError, interpreter};
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the builder's own files appear inside; never part of a layer.
const INSIDE: &str = "run/roadstead";
/// Where a heredoc with an interpreter of its own lies, as BuildKit has it.
const SCRIPTS: &str = "dev/pipes";

/// Variables that name a CA bundle to the programs that read one each.
const CA_VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
];

/// Size of `/dev/shm` in bytes, as docker has it, when the caller gives none.
const SHM_SIZE: u64 = 64 << 20;

/// Longest line of output passed on whole, in bytes; longer ones are cut into pieces.
const MAX_LINE: u64 = 64 << 10;

/// One command with everything it depends on.
#[derive(Debug, Clone)]
struct Task {
    argv: Vec<String>,
    /// A script that a heredoc with `#!` brought, and its name.
    script: Option<(String, String)>,
    /// Environment that counts: ENV and ARG.
    env: Vec<(String, String)>,
    /// Environment that does not: proxies.
    proxies: Vec<(String, String)>,
    cwd: String,
    user: String,
    mounts: Vec<Wanted>,
    no_network: bool,
    /// What its changes are written for.
    packing: Packing,
}

impl StageRun<'_> {
    /// Does a RUN.
    pub(super) async fn run_command(&mut self, instruction: &Instruction) -> Result<()> {
        let Kind::Run {
            command,
            heredocs,
            mounts,
            network,
        } = &instruction.kind
        else {
            return Ok(());
        };
        let mut task = self.task(command, heredocs);
        task.mounts = self.wanted_mounts(mounts).await?;
        let options = &self.shared.request.run;
        task.no_network = options.no_network(*network);
        let created_by = self.created_by(&task);
        let mut key = self.key("RUN");
        key.add_all("argv", task.argv.iter());
        key.add("script", format!("{:?}", task.script));
        key.add_all("env", task.env.iter().map(|(k, v)| format!("{k}={v}")));
        key.add("cwd", &task.cwd)
            .add("user", &task.user)
            .add("hostname", &self.shared.hostname)
            .add("no network", task.no_network.to_string());
        options.add_to(&mut key);
        task.mounts.iter().for_each(|mount| mount.add_to(&mut key));
        let vertex = self.show(&instruction.text);
        let key = self.settled(key);
        if let Some(record) = self.find(&key).await? {
            vertex.cached();
            self.accept(record, &created_by);
            return Ok(());
        }
        self.explain(Vec::new);
        interpreter::check(&self.platform)?;
        if self.shared.tools.place.kind == sandbox::Kind::Nothing {
            return Err(BuildError::NoCommands(self.shared.tools.place.why.clone()));
        }
        let chain = self.shared.bases.unpack(&self.shared.tools, &self.layers).await?;
        self.unpack_mounts(&task.mounts).await?;
        let vertex = Arc::new(vertex);
        let shown = Arc::clone(&vertex);
        let result = self.commanding(move |shared| run(&shared, &task, &chain, &shown)).await;
        end(&vertex, &result);
        let (record, steady) = result?;
        self.remember_steady(&key, &record, steady)?;
        self.accept(record, &created_by);
        Ok(())
    }

    fn task(&self, command: &Command, heredocs: &[Heredoc]) -> Task {
        let (argv, script) = match (command, heredocs) {
            (Command::Shell(text), [only]) if is_bare_heredoc(text) => {
                if only.content.starts_with("#!") {
                    let (name, content) = (script_name(only), only.content.clone());
                    let path = Command::Shell(format!("/{SCRIPTS}/{name}"));
                    (self.state.words(&path), Some((name, content)))
                } else {
                    (self.state.words(&Command::Shell(only.content.clone())), None)
                }
            }
            (Command::Shell(text), heredocs) if !heredocs.is_empty() => {
                let mut whole = text.clone();
                whole.extend(heredocs.iter().flat_map(|h| ["\n", &h.written, &h.name]));
                (self.state.words(&Command::Shell(whole)), None)
            }
            (command, _) => (self.state.words(command), None),
        };
        let mut env = self.scope.environment().to_vec();
        if !env.iter().any(|(name, _)| name == "PATH") {
            env.push(("PATH".into(), DEFAULT_PATH.into()));
        }
        let cwd = if self.state.working_dir.is_empty() {
            "/".to_owned()
        } else {
            self.state.working_dir.clone()
        };
        Task {
            argv,
            script,
            env,
            proxies: self.scope.proxies(),
            cwd,
            user: self.state.user.clone(),
            mounts: Vec::new(),
            no_network: false,
            packing: self.packing(),
        }
    }

    /// The history's text, in docker's form: `RUN |COUNT ARG=VALUE … COMMAND`.
    fn created_by(&self, task: &Task) -> String {
        let args = self.scope.declared();
        let mut text = "RUN ".to_owned();
        if !args.is_empty() {
            text.push_str(&format!("|{} ", args.len()));
            text.extend(args.iter().flat_map(|(name, value)| [name, "=", value, " "]));
        }
        format!("{text}{}{}", task.argv.join(" "), history::MARK)
    }
}

fn is_bare_heredoc(text: &str) -> bool {
    text.starts_with("<<") && {
        let rest = text.trim_start_matches('<').trim_start_matches('-').trim();
        !rest.contains(char::is_whitespace)
    }
}

/// A file name out of a delimiter.
fn script_name(heredoc: &Heredoc) -> String {
    heredoc
        .name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}

/// Files of the builder's own that the command sees, and the directory of mount points that lies under the image.
struct Shown {
    mount_points: PathBuf,
    mounts: Vec<Mount>,
}

/// Tells also whether the files that it was shown kept still.
fn run(shared: &Shared, task: &Task, chain: &[ChainId], vertex: &Vertex) -> Result<(Record, bool)> {
    let scratch = tempdir(&shared.tools.scratch)?;
    let result = run_in(shared, task, chain, vertex, &scratch);
    // What is left goes with the build's scratch directory.
    drop(std::fs::remove_dir_all(&scratch));
    result
}

fn run_in(shared: &Shared, task: &Task, chain: &[ChainId], vertex: &Vertex, scratch: &Path) -> Result<(Record, bool)> {
    let shown = shown_files(shared, task, scratch)?;
    let mut ready = Ready::prepare(&task.mounts, shared, scratch)?;
    let mounts = all_mounts(&mut ready, shown.mounts);
    match shared.tools.place.kind {
        sandbox::Kind::Chroot => run_in_tree(shared, task, chain, vertex, scratch, (ready, mounts)),
        _ => run_mounted(
            shared,
            task,
            chain,
            vertex,
            scratch,
            (ready, mounts, &shown.mount_points),
        ),
    }
}

/// Runs in an overlay, with everything mounted.
fn run_mounted(
    shared: &Shared,
    task: &Task,
    chain: &[ChainId],
    vertex: &Vertex,
    scratch: &Path,
    (ready, mut mounts, mount_points): (Ready, Vec<Mount>, &Path),
) -> Result<(Record, bool)> {
    point_at(&mounts, mount_points)?;
    let rootfs = shared.tools.layers.mount(chain, Some(mount_points))?;
    let root = Dir::open(rootfs.path())?;
    let mut made = vec![];
    for name in MOUNT_POINT_DIRS {
        // A layer may have deleted what lies below it.
        if root.metadata(std::ffi::OsStr::new(name))?.is_none() {
            root.create_dir(std::ffi::OsStr::new(name), 0o755)?;
            made.push(name.into());
        }
    }
    for mount in &mut mounts {
        made.extend(ensure_target(&root, mount)?);
    }
    command(shared, &plan(shared, task, &root, scratch, (&ready, mounts))?, vertex)?;
    drop(root);
    let steady = !ready.has_changed;
    drop(ready);
    // The mount points lie below everything and hide nothing: for the diff the image's own layers are the lowers.
    Ok((keep_run(shared, rootfs, chain, &made, task.packing)?, steady))
}

/// Runs in a tree of files. The sandbox puts in place what the command is to see, and takes it back.
fn run_in_tree(
    shared: &Shared,
    task: &Task,
    chain: &[ChainId],
    vertex: &Vertex,
    scratch: &Path,
    (ready, mounts): (Ready, Vec<Mount>),
) -> Result<(Record, bool)> {
    let rootfs = shared.tools.layers.mount(chain, None)?;
    let root = Dir::open(rootfs.path())?;
    let plan = plan(shared, task, &root, scratch, (&ready, mounts))?;
    command(shared, &plan, vertex)?;
    drop(root);
    let report = sandbox::chroot::report(&plan)?;
    let steady = !ready.has_changed;
    drop(ready);
    let aside = Aside {
        untouched_dirs: report.untouched_dirs,
        untouched: report.untouched,
        ..Aside::default()
    };
    let _slot = shared.slot()?;
    Ok((keep(shared, rootfs, chain, Some(chain), &aside, task.packing)?, steady))
}

/// Says what the sandbox is to do in `root`.
fn plan(
    shared: &Shared,
    task: &Task,
    root: &Dir,
    scratch: &Path,
    (ready, mounts): (&Ready, Vec<Mount>),
) -> Result<Plan> {
    root.make_dirs(&clean(Path::new(&task.cwd)), None)?;
    let user = resolve_user(root, &task.user)?;
    let aside = scratch.join("aside");
    directories(&aside, Path::new(""))?;
    Ok(Plan {
        rootfs: root.path().to_owned(),
        mounts,
        no_network: task.no_network,
        allow_metadata: shared.request.run.allow_metadata,
        aside,
        argv: task.argv.clone(),
        env: environment(shared, task, &user.home, &ready.env),
        cwd: task.cwd.clone().into(),
        uid: user.owner.uid,
        gid: user.owner.gid,
        groups: user.groups,
        hostname: shared.hostname.clone(),
        shm_size: shared.request.run.shm_size.unwrap_or(SHM_SIZE),
        ulimits: shared.request.run.ulimits.clone(),
    })
}

/// Puts the mounts in the order in which one can lie within another, and the builder's own files behind them.
fn all_mounts(ready: &mut Ready, own: Vec<Mount>) -> Vec<Mount> {
    let mut mounts = std::mem::take(&mut ready.mounts);
    mounts.sort_by_key(|mount| mount.target().0.components().count());
    // Who mounts something in place of a file of ours wants to see that.
    let own: Vec<Mount> = own
        .into_iter()
        .filter(|own| !mounts.iter().any(|mount| mount.target().0 == own.target().0))
        .collect();
    mounts.extend(own);
    mounts
}

/// Makes the mount points under the image. A tmpfs has none: its mode depends on what the image has there.
fn point_at(mounts: &[Mount], mount_points: &Path) -> Result<()> {
    for mount in mounts.iter().filter(|mount| !matches!(mount, Mount::Tmpfs { .. })) {
        let (target, directory) = mount.target();
        let below = target.strip_prefix("/").unwrap_or(target);
        // The sandbox has its own there.
        if MOUNT_POINT_DIRS.iter().any(|name| below.starts_with(name)) {
            continue;
        }
        if directory {
            directories(mount_points, below)?;
        } else {
            directories(mount_points, below.parent().unwrap_or(Path::new("")))?;
            let path = mount_points.join(below);
            if !path.exists() {
                write(&path, b"", 0o644)?;
            }
        }
    }
    Ok(())
}

fn keep_run(
    shared: &Shared,
    rootfs: crate::rootfs::overlay::Rootfs,
    chain: &[ChainId],
    made: &[PathBuf],
    packing: Packing,
) -> Result<Record> {
    let changes = rootfs.changes()?;
    let mut leave_out = Vec::new();
    if present(&changes, Path::new(INSIDE)) {
        leave_out.push(PathBuf::from(INSIDE));
    }
    // What was made last lies deepest. A directory in which the command has put something is the command's.
    for path in made.iter().rev() {
        if is_untouched(&changes, path, &leave_out)? {
            leave_out.push(path.clone());
        }
    }
    drop(changes);
    // The command is over; what follows is file work like any other.
    let _slot = shared.slot()?;
    let aside = Aside {
        leave_out,
        ..Aside::default()
    };
    keep(shared, rootfs, chain, Some(chain), &aside, packing)
}

fn present(dir: &Dir, path: &Path) -> bool {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return false;
    };
    dir.plain_dir(parent)
        .is_ok_and(|parent| parent.metadata(name).is_ok_and(|stat| stat.is_some()))
}

/// Tells whether a mount point that was made is still there, and holds nothing.
fn is_untouched(changes: &Dir, path: &Path, leave_out: &[PathBuf]) -> Result<bool> {
    if !present(changes, path) {
        return Ok(false);
    }
    let Ok(dir) = changes.plain_dir(path) else {
        let stat = changes.follow(path)?;
        return Ok(stat.is_some_and(|stat| stat.st_size == 0));
    };
    Ok(dir.names()?.iter().all(|name| leave_out.contains(&path.join(name))))
}

/// Makes a missing mount target, such as where the image's `/etc/resolv.conf` is a link to nowhere. Gives what was made.
fn ensure_target(root: &Dir, mount: &mut Mount) -> Result<Vec<PathBuf>> {
    let (target, directory) = mount.target();
    let path = root.landing(target)?;
    if MOUNT_POINT_DIRS.iter().any(|name| path.starts_with(name)) {
        return Ok(Vec::new());
    }
    if let Some(stat) = root.follow(&path)? {
        if let Mount::Tmpfs { mode, .. } = mount {
            *mode = stat.st_mode & 0o7777;
        }
        return Ok(Vec::new());
    }
    let mut made = Vec::new();
    let mut above = PathBuf::new();
    for part in path.iter() {
        above.push(part);
        if root.follow(&above)?.is_none() {
            made.push(above.clone());
        }
    }
    if directory {
        root.make_dirs(&path, None)?;
    } else if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
        root.make_dirs(parent, None)?.create_file(name)?;
    }
    Ok(made)
}

fn tempdir(scratch: &Path) -> Result<PathBuf> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = scratch.join(format!("run-{number}"));
    std::fs::create_dir(&path).map_err(|e| FileError::new("create directory", &path, e))?;
    Ok(path)
}

/// Makes `path` below `base` with mode 0755 throughout: the command sees these directories, and a layer may come to hold them, so they
/// must not have the caller's umask.
pub(super) fn directories(base: &Path, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut full = base.to_owned();
    for part in std::iter::once(std::ffi::OsStr::new("")).chain(path.iter()) {
        full.push(part);
        let failed = |e| FileError::new("create directory", &full, e);
        std::fs::create_dir_all(&full).map_err(failed)?;
        std::fs::set_permissions(&full, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
    }
    Ok(())
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |e| FileError::new("write", path, e);
    std::fs::write(path, content).map_err(failed)?;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?)
}

/// Writes the files of the builder's own that the command sees.
fn shown_files(shared: &Shared, task: &Task, scratch: &Path) -> Result<Shown> {
    let mount_points = scratch.join("mount-points");
    for name in MOUNT_POINT_DIRS {
        directories(&mount_points, Path::new(name))?;
    }
    let mut files: Vec<(&str, Vec<u8>, u32)> = vec![(
        "etc/hosts",
        shared.request.run.hosts_file(&shared.hostname).into_bytes(),
        0o644,
    )];
    if let Ok(resolv) = std::fs::read("/etc/resolv.conf") {
        files.push(("etc/resolv.conf", resolv, 0o644));
    }
    let script_path = task.script.as_ref().map(|(name, _)| format!("{SCRIPTS}/{name}"));
    if let (Some(path), Some((_, content))) = (&script_path, &task.script) {
        files.push((path, content.clone().into_bytes(), 0o755));
    }
    let bundle_path = format!("{INSIDE}/ca-bundle.pem");
    if let Some(bundle) = &shared.request.ca_bundle {
        let content = std::fs::read(bundle).map_err(|e| FileError::new("read CA bundle", bundle, e))?;
        files.push((&bundle_path, content, 0o444));
    }
    let mut mounts = Vec::new();
    for (target, content, mode) in files {
        let (source, target) = (scratch.join("shown").join(target), Path::new(target));
        directories(&scratch.join("shown"), target.parent().unwrap_or(Path::new("")))?;
        write(&source, &content, mode)?;
        mounts.push(show(shared, &source, Path::new("/").join(target)));
    }
    Ok(Shown { mount_points, mounts })
}

/// Shows a file of the builder's own, read-only where that can be held.
fn show(shared: &Shared, source: &Path, target: PathBuf) -> Mount {
    match shared.tools.place.kind {
        sandbox::Kind::Chroot => Mount::Lend {
            source: source.to_owned(),
            target,
            directory: false,
            stays: false,
            writable: false,
        },
        _ => Mount::file(source, target),
    }
}

fn environment(shared: &Shared, task: &Task, home: &str, secrets: &[(String, String)]) -> Vec<(String, String)> {
    let mut env = task.env.clone();
    let mut add = |name: &str, value: &str| {
        if !env.iter().any(|(known, _)| known == name) {
            env.push((name.to_owned(), value.to_owned()));
        }
    };
    add("HOME", home);
    // Also when the agent was not given: what the command sees must not depend on what its key leaves out.
    if let Some(socket) = task.mounts.iter().find_map(Wanted::agent_socket) {
        add("SSH_AUTH_SOCK", &socket.to_string_lossy());
    }
    if shared.request.ca_bundle.is_some() {
        for name in CA_VARIABLES {
            add(name, &format!("/{INSIDE}/ca-bundle.pem"));
        }
    }
    // These beat a variable of their name: the last one counts.
    env.extend(task.proxies.iter().cloned());
    env.extend(secrets.iter().cloned());
    env
}

fn command(shared: &Shared, plan: &Plan, vertex: &Vertex) -> Result<()> {
    let mut running = sandbox::start(plan, shared.tools.place.kind)?;
    let registered = shared.cancel.register(running.id());
    let (out, err) = running.output();
    let last = std::thread::scope(|scope| {
        let errors = scope.spawn(|| err.map(|err| pass_on(err, Stream::Error, vertex)).unwrap_or_default());
        if let Some(out) = out {
            pass_on(out, Stream::Output, vertex);
        }
        errors.join().unwrap_or_default()
    });
    let status = running.wait()?;
    drop(registered);
    if shared.cancel.is_canceled() {
        return Err(BuildError::Canceled);
    }
    if let Some(reason) = sandbox::setup_failure(status, &last) {
        return Err(SandboxError::Setup(reason.to_owned()).into());
    }
    if status != 0 {
        return Err(BuildError::Run {
            command: plan.argv.join(" "),
            status,
        });
    }
    Ok(())
}

/// Passes output on line by line and gives the last one.
fn pass_on(from: impl Read, stream: Stream, vertex: &Vertex) -> String {
    let mut reader = BufReader::new(from);
    let mut last = String::new();
    loop {
        let mut line = Vec::new();
        // A read error means that the other end is gone, as its end does.
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).unwrap_or(0);
        if read == 0 {
            return last;
        }
        let text = String::from_utf8_lossy(&line);
        last = text.trim_end_matches(['\n', '\r']).to_owned();
        if sandbox::own_word(&last).is_none() {
            vertex.log(stream, last.clone());
        }
    }
}
