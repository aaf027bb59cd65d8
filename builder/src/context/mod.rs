//! What COPY and ADD take from: the build context and its `.dockerignore`, or another root file system.

pub mod files;
pub mod ignore;
pub mod pattern;
pub mod remote;
pub mod stat_cache;

use std::path::PathBuf;

/// A directory to build from.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where it is.
    pub path: PathBuf,
    /// Its `.dockerignore`.
    pub ignore: ignore::Ignore,
    /// Whether files keep their owners; those of a directory of the user's are root's in the image, those of an archive are not.
    pub keeps_owners: bool,
    /// What is known of its files, for a directory that lasts.
    pub stats: Option<stat_cache::StatCache>,
}

impl PartialEq for Context {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for Context {}
