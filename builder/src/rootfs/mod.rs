//! Root file systems: unpacked layers kept on disk, mounted as overlays, changed by copies and read back as diffs.

pub mod copy;
pub mod diff;
mod fingerprint;
mod kept;
pub mod kept_use;
pub mod overlay;
pub mod scratch;
pub mod users;
