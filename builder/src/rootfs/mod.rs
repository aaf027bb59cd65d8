//! Root file systems: unpacked layers kept on disk, mounted as overlays, or trees of files where nothing can be mounted; changed by
//! copies and read back as diffs.

pub mod aside;
mod chain;
mod changes;
pub mod copy;
pub mod diff;
mod fingerprint;
mod kept;
pub mod kept_use;
pub mod overlay;
mod root;
pub mod scratch;
mod snapshot;
#[cfg(test)]
mod tests;
mod trees;
pub mod users;
