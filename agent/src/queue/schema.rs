//! The file of an SQLite queue: how it is made, known again and opened.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::QueueError;
use super::results::private_directory;
use crate::error::FileError;

/// How long a writer waits for another's transaction. They are short; a longer wait means a stuck process.
const BUSY: Duration = Duration::from_secs(30);
/// Marks the file as Roadstead's in its `application_id`: "Road".
const MARK: i64 = 0x526f_6164;
/// The schema's version in `user_version`; a file of a later one is refused.
const VERSION: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE job (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    document     TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('QUEUED', 'IN_PROGRESS', 'DONE')),
    attempt      INTEGER NOT NULL DEFAULT 0,
    lease_until  INTEGER NOT NULL DEFAULT 0,
    agent        TEXT,
    submitted_at INTEGER NOT NULL,
    record       TEXT
) STRICT;
CREATE INDEX job_open ON job (state, number) WHERE state <> 'DONE';
CREATE TABLE attempt (
    job        INTEGER NOT NULL REFERENCES job (number),
    attempt    INTEGER NOT NULL,
    agent      TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at   INTEGER,
    status     TEXT,
    PRIMARY KEY (job, attempt)
) STRICT;
CREATE TABLE log (
    job      INTEGER NOT NULL REFERENCES job (number),
    attempt  INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    bytes    BLOB NOT NULL,
    PRIMARY KEY (job, attempt, sequence)
) STRICT;
";

/// Opens the file; with `make`, makes it and its directory when they are not there.
pub(super) fn connect(file: &Path, make: bool) -> Result<Connection, QueueError> {
    if make {
        if let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            private_directory(directory)?;
        }
        private_file(file)?;
    } else if !file.exists() {
        return Err(QueueError::None(file.to_owned()));
    }
    let failed = |operation| {
        move |source| QueueError::Database {
            operation,
            file: file.to_owned(),
            source,
        }
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(file, flags).map_err(failed("open the database"))?;
    connection.busy_timeout(BUSY).map_err(failed("open the database"))?;
    migrate(&mut connection, file)?;
    // FULL, since NORMAL may lose the last commits on a power cut, and with them a completed job.
    for (name, value) in [("journal_mode", "WAL"), ("synchronous", "FULL"), ("foreign_keys", "ON")] {
        connection
            .pragma_update(None, name, value)
            .map_err(failed("configure the database"))?;
    }
    Ok(connection)
}

/// Makes the file for its owner alone, since jobs and logs hold secrets. What SQLite puts beside it gets the same mode.
fn private_file(file: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(FileError::at("create", file)(error)),
        _ => Ok(()),
    }
}

fn migrate(connection: &mut Connection, file: &Path) -> Result<(), QueueError> {
    let failed = |source| QueueError::Database {
        operation: "prepare the tables",
        file: file.to_owned(),
        source,
    };
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    let version: i64 = transaction
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(failed)?;
    let mark: i64 = transaction
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(failed)?;
    let tables: i64 = transaction
        .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        .map_err(failed)?;
    match version {
        // Tables without a version are not Roadstead's, nor is any file with another's mark.
        0 if tables > 0 => return Err(QueueError::Foreign(file.to_owned())),
        _ if mark != MARK && mark != 0 => return Err(QueueError::Foreign(file.to_owned())),
        VERSION => {}
        0 => {
            transaction.execute_batch(SCHEMA).map_err(failed)?;
            for (name, value) in [("user_version", VERSION), ("application_id", MARK)] {
                transaction.pragma_update(None, name, value).map_err(failed)?;
            }
        }
        _ => return Err(QueueError::Newer(file.to_owned())),
    }
    transaction.commit().map_err(failed)
}
