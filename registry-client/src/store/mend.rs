//! The two documents of a store that no digest protects: damage keeps a store from being opened at all, so it is mended before.

use std::fs;
use std::path::Path;

use super::{Finding, INGEST, writer};
use crate::error::{RegistryError, Result};
use crate::layout::{INDEX_FILE, LAYOUT, LAYOUT_FILE, is_version_1};
use crate::manifest::{Index, MANIFEST_LIMIT};

/// What the list of names is called when it could not be read and another one took its place.
const DAMAGED: &str = "index.json.damaged";

/// Looks at the documents of the store in `dir`. With `repair`, one that cannot be read makes room for one without content: names
/// are lost, the old list stays beside it.
pub(super) fn documents(dir: &Path, repair: bool) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let layout = dir.join(LAYOUT_FILE);
    if read(&layout)?.is_some_and(|bytes| !is_version_1(&bytes)) {
        if repair {
            writer::replace(&dir.join(INGEST), &layout, LAYOUT.as_bytes())?;
        }
        let reason = "it names no version that is known here".to_owned();
        findings.push(Finding::Document {
            name: LAYOUT_FILE,
            reason,
        });
    }
    let index = dir.join(INDEX_FILE);
    if let Some(bytes) = read(&index)?
        && let Err(error) = Index::parse(&bytes)
    {
        if repair {
            fs::rename(&index, dir.join(DAMAGED)).map_err(|error| RegistryError::io("rename", &index, error))?;
        }
        let reason = error.to_string();
        findings.push(Finding::Document {
            name: INDEX_FILE,
            reason,
        });
    }
    Ok(findings)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let size = fs::metadata(path).map(|meta| meta.len());
    match size.and_then(|size| match size > MANIFEST_LIMIT {
        true => Ok(Vec::new()),
        false => fs::read(path),
    }) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RegistryError::io("read", path, error)),
    }
}
