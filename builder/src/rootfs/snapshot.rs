//! What a tree of files looks like at one moment, in about forty bytes a file, so that what changed later can be told without reading
//! any content.
//!
//! A file that is written to, replaced, given another mode, owner or attribute gets a new change time, which nobody can set. The clock of
//! change times may tick only every few milliseconds: a change counts only when it comes a tick later, see [`Snapshot::wait`].

use super::aside::Aside;
use super::diff::{DiffError, MAX_DEPTH};
use crate::beneath::{Dir, FileError, kind};
use rustix::fs::{FileType, Stat};
use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::fs::File;
use std::hash::BuildHasher as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Directories found before other threads are worth their start.
const FEW: usize = 16;
/// Longest wait for the clock. Only one that was set back makes it wait so long, and then no change has an old time by chance.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Marks the end of a directory's name.
const IS_DIRECTORY: u32 = 1 << 31;

/// A time of the file system: seconds and nanoseconds since 1970.
type Moment = (i64, u64);

/// All files of a tree.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// The root first, each behind the one it lies in.
    directories: Vec<Directory>,
    /// The newest change of all.
    newest: Moment,
}

/// The files of one directory, in byte order of their names.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    /// Tells it from one that was made in its place.
    pub(super) identity: u64,
    /// All names, one behind the other.
    names: Arc<[u8]>,
    entries: Arc<[Entry]>,
    /// The numbers of the directories among them.
    inside: Box<[u32]>,
    /// Of files with several names: their place, and the hash of all but the change time, which is another when a name goes.
    linked: Vec<(u32, u64)>,
}

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Hash of all that its metadata says.
    looks: u64,
    /// Where its name ends, and [`IS_DIRECTORY`].
    end: u32,
}

/// One file with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen<'a> {
    pub(super) name: &'a OsStr,
    /// Its place in its directory.
    pub(super) at: usize,
    pub(super) looks: u64,
    /// The same without the change time, of a file with several names.
    pub(super) without_change: Option<u64>,
    /// Its number, if it is a directory.
    pub(super) directory: Option<u32>,
}

/// Hashes what the metadata says. The key is nobody's to know, so that nobody can make two files look the same.
fn looks(stat: &Stat) -> u64 {
    hash([without_change(stat), stat.st_ctime.cast_unsigned(), stat.st_ctime_nsec])
}

/// The same, but for the change time.
fn without_change(stat: &Stat) -> u64 {
    hash([
        stat.st_dev,
        stat.st_ino,
        stat.st_mtime.cast_unsigned(),
        stat.st_mtime_nsec,
        stat.st_size.cast_unsigned(),
        u64::from(stat.st_mode),
        u64::from(stat.st_uid) << 32 | u64::from(stat.st_gid),
        stat.st_rdev,
    ])
}

fn hash<const N: usize>(numbers: [u64; N]) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(numbers)
}

fn changed_at(stat: &Stat) -> Moment {
    (stat.st_ctime, stat.st_ctime_nsec)
}

impl Directory {
    pub(super) fn files(&self) -> impl Iterator<Item = Seen<'_>> {
        let (mut start, mut inside) = (0, self.inside.iter());
        let mut linked = self.linked.iter().peekable();
        self.entries.iter().enumerate().map(move |(at, entry)| {
            let end = (entry.end & !IS_DIRECTORY) as usize;
            let name = OsStr::from_bytes(&self.names[start..end]);
            start = end;
            let is_directory = entry.end & IS_DIRECTORY != 0;
            Seen {
                name,
                at,
                looks: entry.looks,
                without_change: linked
                    .next_if(|(place, _)| *place as usize == at)
                    .map(|(_, rest)| *rest),
                directory: is_directory.then(|| inside.next().copied()).flatten(),
            }
        })
    }

    /// Shares what is the same in `before`.
    fn share(&mut self, before: &Self) {
        if self.names == before.names {
            self.names = Arc::clone(&before.names);
        }
        if self.entries == before.entries {
            self.entries = Arc::clone(&before.entries);
        }
    }
}

impl Snapshot {
    pub(super) fn directory(&self, number: u32) -> &Directory {
        &self.directories[number as usize]
    }

    /// Notes what a file looks like now.
    pub(super) fn note(&mut self, directory: u32, at: usize, stat: &Stat) {
        let directory = &mut self.directories[directory as usize];
        Arc::make_mut(&mut directory.entries)[at].looks = looks(stat);
        if let Some((_, rest)) = directory.linked.iter_mut().find(|(place, _)| *place as usize == at) {
            *rest = without_change(stat);
        }
        self.newest = self.newest.max(changed_at(stat));
    }

    /// Waits until whatever changes gets a later time than any that was seen. Usually that is so already.
    ///
    /// `scratch` is a directory of the same file system.
    pub(super) fn wait(&self, scratch: &Path) -> Result<(), FileError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = scratch.join(format!("clock-{number}"));
        let failed = |e| FileError::new("tell the time by", &path, e);
        let clock = File::create_new(&path).map_err(failed)?;
        let begun = Instant::now();
        let waited = loop {
            let touched = clock.set_modified(SystemTime::now()).and_then(|()| clock.metadata());
            match touched {
                Ok(now) if (now.ctime(), now.ctime_nsec().cast_unsigned()) > self.newest => break Ok(()),
                Ok(_) if begun.elapsed() > LONGEST_WAIT => break Ok(()),
                Ok(_) => std::thread::sleep(Duration::from_micros(200)),
                Err(e) => break Err(failed(e)),
            }
        };
        std::fs::remove_file(&path).map_err(failed)?;
        waited
    }
}

/// A snapshot, and what is other in it than in the one before.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) snapshot: Snapshot,
    /// Of each directory, whether anything in it or below has changed.
    pub(super) changed: Vec<bool>,
}

/// A directory to look at.
#[derive(Debug)]
struct Job {
    number: u32,
    path: PathBuf,
    depth: usize,
    /// What it was before.
    before: Option<u32>,
}

/// A directory that was looked at.
#[derive(Debug)]
struct Found {
    number: u32,
    directory: Directory,
    has_changed: bool,
    newest: Moment,
}

/// Looks at all files below `root` and compares them with what they were `before`.
///
/// # Errors
/// When something cannot be read, or is nested too deeply.
pub(super) fn compare(root: &Dir, before: Option<&Snapshot>, aside: &Aside) -> Result<Compared, DiffError> {
    let walk = Walk {
        root,
        before,
        aside,
        next: AtomicU32::new(1),
        queue: Mutex::default(),
        news: Condvar::new(),
    };
    let first = Job {
        number: 0,
        path: PathBuf::new(),
        depth: 0,
        before: before.map(|_| 0),
    };
    Ok(joined(walk.all(first)?))
}

/// Looks at all files below `root`.
///
/// # Errors
/// As [`compare`].
pub(super) fn of(root: &Dir) -> Result<Snapshot, DiffError> {
    Ok(compare(root, None, &Aside::default())?.snapshot)
}

/// Puts directories in their order, and passes on to those above what has changed in them.
fn joined(mut found: Vec<Found>) -> Compared {
    found.sort_unstable_by_key(|one| one.number);
    let newest = found.iter().map(|one| one.newest).max().unwrap_or_default();
    let mut changed: Vec<bool> = found.iter().map(|one| one.has_changed).collect();
    for (at, one) in found.iter().enumerate().rev() {
        changed[at] |= one.directory.inside.iter().any(|inside| changed[*inside as usize]);
    }
    let directories = found.into_iter().map(|one| one.directory).collect();
    Compared {
        snapshot: Snapshot { directories, newest },
        changed,
    }
}

/// What the threads of a walk share.
struct Walk<'a> {
    root: &'a Dir,
    before: Option<&'a Snapshot>,
    aside: &'a Aside,
    /// The next directory's number.
    next: AtomicU32,
    queue: Mutex<Queue>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: Vec<Job>,
    /// Threads that may still find more.
    busy: usize,
    failed: bool,
}

impl Walk<'_> {
    fn all(&self, first: Job) -> Result<Vec<Found>, DiffError> {
        let (mut jobs, mut found) = (vec![first], Vec::new());
        while jobs.len() < FEW
            && let Some(job) = jobs.pop()
        {
            self.directory(job, &mut jobs, &mut found)?;
        }
        if jobs.is_empty() {
            return Ok(found);
        }
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        self.lock().jobs = jobs;
        let results: Vec<_> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..cores).map(|_| scope.spawn(|| self.work())).collect();
            let own = self.work();
            let others = others.into_iter().map(|other| other.join());
            std::iter::once(Ok(own)).chain(others).collect()
        });
        for result in results {
            let ended_early = |_| {
                FileError::new(
                    "look at",
                    self.root.path(),
                    std::io::Error::other("a thread ended early"),
                )
            };
            found.extend(result.map_err(ended_early)??);
        }
        Ok(found)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes directories until there are none, or another thread has failed.
    fn work(&self) -> Result<Vec<Found>, DiffError> {
        let mut found = Vec::new();
        while let Some(job) = self.take() {
            let mut jobs = Vec::new();
            let result = self.directory(job, &mut jobs, &mut found);
            let mut queue = self.lock();
            queue.busy -= 1;
            queue.failed |= result.is_err();
            queue.jobs.append(&mut jobs);
            drop(queue);
            self.news.notify_all();
            result?;
        }
        Ok(found)
    }

    fn take(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if queue.failed {
                return None;
            }
            if let Some(job) = queue.jobs.pop() {
                queue.busy += 1;
                return Some(job);
            }
            if queue.busy == 0 {
                return None;
            }
            queue = self.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn directory(&self, job: Job, jobs: &mut Vec<Job>, found: &mut Vec<Found>) -> Result<(), DiffError> {
        if job.depth > MAX_DEPTH {
            return Err(DiffError::TooDeep);
        }
        let before = self.before.zip(job.before).map(|(all, number)| all.directory(number));
        let dir = self.root.plain_dir(&job.path)?;
        let identity = hash(dir.identity()?);
        let mut has_changed = before.is_none_or(|before| before.identity != identity && job.depth > 0);
        let mut known = before.into_iter().flat_map(Directory::files).peekable();
        let (mut names, mut entries, mut inside, mut linked) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut newest = Moment::default();
        for name in dir.names()? {
            let Some(stat) = dir.metadata(&name)? else { continue };
            let gone = std::iter::from_fn(|| known.next_if(|old| old.name < name)).count();
            let old = known.next_if(|old| old.name == name);
            let is_directory = kind(&stat) == FileType::Directory;
            let stays = old.filter(|old| old.directory.is_some() == is_directory);
            has_changed |= gone > 0 || !self.is_same(&job.path, &name, stays, &stat);
            let had_names = old.is_some_and(|old| old.without_change.is_some());
            if !is_directory && (stat.st_nlink > 1 || had_names) {
                linked.push((u32::try_from(entries.len()).unwrap_or(u32::MAX), without_change(&stat)));
            }
            names.extend_from_slice(name.as_bytes());
            newest = newest.max(changed_at(&stat));
            entries.push(Entry {
                looks: looks(&stat),
                end: ends_at(names.len(), is_directory),
            });
            if is_directory {
                let was = stays.and_then(|old| old.directory);
                inside.push(self.inside(&job, &name, was, jobs, found));
            }
        }
        has_changed |= known.next().is_some();
        let mut directory = Directory {
            identity,
            names: names.into(),
            entries: entries.into(),
            inside: inside.into(),
            linked,
        };
        before.into_iter().for_each(|before| directory.share(before));
        found.push(Found {
            number: job.number,
            directory,
            has_changed,
            newest,
        });
        Ok(())
    }

    /// Tells whether a file looks as it did, or counts as doing so.
    fn is_same(&self, path: &Path, name: &OsStr, old: Option<Seen<'_>>, now: &Stat) -> bool {
        old.is_some_and(|old| {
            old.looks == looks(now)
                || (self.aside.is_own_step && old.without_change == Some(without_change(now)))
                || self.aside.is_untouched(path, name)
                || (old.directory.is_some() && self.aside.is_untouched_dir(path, name))
        })
    }

    /// Gives a directory within another one its number, and has it looked at, unless it is known that nobody touched it.
    fn inside(&self, job: &Job, name: &OsStr, was: Option<u32>, jobs: &mut Vec<Job>, found: &mut Vec<Found>) -> u32 {
        if let Some((all, was)) = self.before.zip(was)
            && self.aside.is_untouched(&job.path, name)
        {
            return self.taken_over(all, was, found);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        jobs.push(Job {
            number,
            path: job.path.join(name),
            depth: job.depth + 1,
            before: was,
        });
        number
    }

    /// Takes a directory over as it was, with all below; gives its number.
    fn taken_over(&self, all: &Snapshot, was: u32, found: &mut Vec<Found>) -> u32 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut directory = all.directory(was).clone();
        for inside in &mut directory.inside {
            *inside = self.taken_over(all, *inside, found);
        }
        found.push(Found {
            number,
            directory,
            has_changed: false,
            newest: all.newest,
        });
        number
    }
}

fn ends_at(length: usize, is_directory: bool) -> u32 {
    // No directory holds two gigabytes of names.
    let end = u32::try_from(length).unwrap_or(u32::MAX) & !IS_DIRECTORY;
    if is_directory { end | IS_DIRECTORY } else { end }
}
