//! The directory of jobs: `ID/attempt-N/artifacts`, and for queues that keep nothing themselves also the log and the record.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use roadstead_proto::job::{Job, JobId};
use roadstead_proto::record::Record;
use serde::de::DeserializeOwned;

use super::QueueError;
use crate::error::FileError;

/// Results of jobs on disk.
#[derive(Debug, Clone)]
pub(super) struct Results {
    root: PathBuf,
}

impl Results {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Makes the directory of all jobs when it is not there.
    pub(super) fn prepare(&self) -> Result<(), QueueError> {
        Ok(private_directory(&self.root)?)
    }

    fn job(&self, id: &JobId) -> PathBuf {
        self.root.join(id.as_str())
    }

    fn attempt(&self, id: &JobId, token: u64) -> PathBuf {
        self.job(id).join(format!("attempt-{token}"))
    }

    /// Where an attempt's artifacts belong.
    pub(super) fn artifacts(&self, id: &JobId, token: u64) -> PathBuf {
        self.attempt(id, token).join("artifacts")
    }

    /// Notes that an attempt begins.
    pub(super) fn begin(&self, job: &Job, token: u64) -> Result<(), QueueError> {
        self.prepare()?;
        let directory = self.attempt(&job.id, token);
        fs::create_dir_all(&directory).map_err(FileError::at("create", &directory))?;
        let document = serde_json::to_vec(job).map_err(QueueError::Document)?;
        let path = self.job(&job.id).join("job.json");
        fs::write(&path, document).map_err(FileError::at("write", &path))?;
        Ok(())
    }

    /// The number of the last attempt.
    pub(super) fn attempts(&self, id: &JobId) -> u64 {
        let Ok(entries) = fs::read_dir(self.job(id)) else {
            return 0;
        };
        let number = |name: &str| name.strip_prefix("attempt-").and_then(|number| number.parse().ok());
        entries
            .flatten()
            .filter_map(|entry| number(entry.file_name().to_str()?))
            .max()
            .unwrap_or(0)
    }

    pub(super) fn append_log(&self, id: &JobId, token: u64, bytes: &[u8]) -> Result<(), QueueError> {
        let path = self.attempt(id, token).join("log");
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(bytes))
            .map_err(FileError::at("write", &path))?;
        Ok(())
    }

    pub(super) fn log(&self, id: &JobId) -> Result<Vec<u8>, QueueError> {
        let path = self.attempt(id, self.attempts(id)).join("log");
        match fs::read(&path) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(FileError::at("read", &path)(error).into()),
        }
    }

    /// Keeps the record unless there is one; says whether it was kept. The first one wins for good, on a power cut too.
    pub(super) fn finish(&self, id: &JobId, record: &Record) -> Result<bool, QueueError> {
        self.prepare()?;
        let directory = self.job(id);
        fs::create_dir_all(&directory).map_err(FileError::at("create", &directory))?;
        let new = directory.join(format!("record.{}", uuid::Uuid::new_v4().simple()));
        let bytes = serde_json::to_vec(record).map_err(QueueError::Document)?;
        let written = fs::File::create_new(&new).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(FileError::at("write", &new))?;
        let linked = fs::hard_link(&new, directory.join("record.json"));
        fs::remove_file(&new).map_err(FileError::at("remove", &new))?;
        match linked {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(FileError::at("write", &directory.join("record.json"))(error).into()),
        }
    }

    pub(super) fn record(&self, id: &JobId) -> Result<Option<Record>, QueueError> {
        read(&self.job(id).join("record.json"))
    }

    pub(super) fn document(&self, id: &JobId) -> Result<Option<Job>, QueueError> {
        read(&self.job(id).join("job.json"))
    }

    /// All jobs that have begun here, by their names.
    pub(super) fn ids(&self) -> Result<Vec<JobId>, QueueError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FileError::at("read", &self.root)(error).into()),
        };
        let mut ids: Vec<JobId> = entries
            .flatten()
            .filter_map(|entry| JobId::new(entry.file_name().to_str()?))
            .collect();
        ids.sort();
        Ok(ids)
    }
}

/// Makes a directory, and those above it, for their owner alone: logs, artifacts and documents may hold secrets.
pub(super) fn private_directory(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(FileError::at("create", path))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, QueueError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(QueueError::Document),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::at("read", path)(error).into()),
    }
}
