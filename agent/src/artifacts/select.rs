//! Which files the patterns of a buildspec mean.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::ArtifactsError;
use crate::buildspec::Artifacts;
use crate::error::FileError;
use crate::logs::Log;

/// Files of an artifact at most.
pub(super) const MAX_FILES: usize = 200_000;
/// Directories below the source at most, in depth; deeper than any real tree.
const MAX_DEPTH: usize = 200;

/// Selected files: path in the artifact -> path on disk.
pub(super) type Chosen = BTreeMap<String, PathBuf>;

/// Finds the files; `destination` itself is left out when it lies below `source`.
pub(super) fn select(
    artifacts: &Artifacts,
    source: &Path,
    destination: &Path,
    log: &Log,
) -> Result<Chosen, ArtifactsError> {
    let base = artifacts.base_directory.as_deref().unwrap_or(".");
    log.line(&format!("Expanding base directory path:  {base}"));
    log.line("Assembling file list");
    log.line(&format!("Expanding {base}"));
    let bases = base_directories(base, source)?;
    let excludes = matchers(&artifacts.exclude_paths)?;
    let mut chosen = Chosen::new();
    for base in bases {
        let shown = base
            .strip_prefix(source)
            .ok()
            .filter(|path| !path.as_os_str().is_empty());
        let shown = shown.map_or_else(|| ".".to_owned(), |path| path.display().to_string());
        log.line(&format!("Expanding file paths for base directory {shown}"));
        log.line("Assembling file list");
        let mut files = Vec::new();
        // A base directory may be a link, and files are compared by where they really are.
        let real = base.canonicalize().map_err(FileError::at("open", &base))?;
        walk(&real, "", &real, destination, 0, &mut files)?;
        files.retain(|(path, _)| !excludes.iter().any(|exclude| exclude.is_match(path)));
        for pattern in &artifacts.files {
            log.line(&format!("Expanding {pattern}"));
            let matcher = matcher(pattern)?;
            let mut found = 0_usize;
            for (path, place) in files.iter().filter(|(path, _)| matcher.is_match(path)) {
                found += 1;
                let name = if artifacts.discard_paths { file_name(path) } else { path };
                match chosen.get(name) {
                    Some(other) if other != place => return Err(ArtifactsError::SameName(name.to_owned())),
                    _ => chosen.insert(name.to_owned(), place.clone()),
                };
            }
            match found {
                0 => log.line(&format!("Skipping invalid file path {pattern}")),
                found => log.line(&format!("Found {found} file(s)")),
            }
        }
    }
    Ok(chosen)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The directories that `base-directory` means: one by its name, or those at the top that match a pattern.
fn base_directories(base: &str, source: &Path) -> Result<Vec<PathBuf>, ArtifactsError> {
    let plain = normal(base);
    let none = || ArtifactsError::NoBaseDirectory(base.to_owned());
    let inside = |path: &Path| {
        path.canonicalize()
            .is_ok_and(|real| real.starts_with(source) && real.is_dir())
    };
    if plain.split('/').any(|part| part == "..") || base.starts_with('/') {
        return Err(none());
    }
    let direct = if plain.is_empty() {
        source.to_owned()
    } else {
        source.join(&plain)
    };
    if inside(&direct) {
        return Ok(vec![direct]);
    }
    let matcher = matcher(&plain)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(source).map_err(FileError::at("read", source))? {
        let entry = entry.map_err(FileError::at("read", source))?;
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if directory && matcher.is_match(entry.file_name()) {
            found.push(entry.path());
        }
    }
    found.sort();
    if found.is_empty() { Err(none()) } else { Ok(found) }
}

/// A path without `./`, double and trailing slashes.
fn normal(path: &str) -> String {
    path.split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect::<Vec<_>>()
        .join("/")
}

fn matcher(pattern: &str) -> Result<GlobMatcher, ArtifactsError> {
    let glob = GlobBuilder::new(&normal(pattern))
        .literal_separator(true)
        .backslash_escape(true)
        .build();
    let glob = glob.map_err(|error| ArtifactsError::Pattern {
        pattern: pattern.to_owned(),
        reason: error.kind().to_string(),
    })?;
    Ok(glob.compile_matcher())
}

fn matchers(patterns: &[String]) -> Result<Vec<GlobMatcher>, ArtifactsError> {
    patterns.iter().map(|pattern| matcher(pattern)).collect()
}

/// Lists the files below `directory` by their path from the base. Links to directories are not followed; a link to a file
/// counts as the file when that lies in the same tree.
fn walk(
    directory: &Path,
    prefix: &str,
    base: &Path,
    skip: &Path,
    depth: usize,
    files: &mut Vec<(String, PathBuf)>,
) -> Result<(), ArtifactsError> {
    if depth > MAX_DEPTH || directory == skip {
        return Ok(());
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory).map_err(FileError::at("read", directory))? {
        entries.push(entry.map_err(FileError::at("read", directory))?);
    }
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // A name that is not UTF-8 cannot be written in a buildspec, nor in the record.
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}/{name}")
        };
        let kind = entry.file_type().map_err(FileError::at("read", &entry.path()))?;
        if kind.is_dir() {
            walk(&entry.path(), &path, base, skip, depth + 1, files)?;
        } else if kind.is_file() || kind.is_symlink() {
            let Ok(real) = entry.path().canonicalize() else {
                continue;
            };
            if real.starts_with(base) && real.is_file() {
                files.push((path, real));
            }
        }
        if files.len() > MAX_FILES {
            return Err(ArtifactsError::TooMany);
        }
    }
    Ok(())
}
