//! Dockerfile to OCI image, without a daemon.
//!
//! [`dockerfile`] parses, [`context`] reads files, [`rootfs`] and [`sandbox`] run steps, [`layer`] writes and reads layers, [`cache`]
//! remembers them, [`image`] assembles, [`ssh`] lends agents to commands, and [`solve`] alone knows them all. [`housekeeping`] makes
//! room in what builds leave behind. [`beneath`] keeps every file call below its root.

// The registry client's futures nest deeper than the default.
#![recursion_limit = "512"]

pub mod beneath;
pub mod cache;
pub mod context;
pub mod dockerfile;
pub mod housekeeping;
pub mod image;
pub mod layer;
mod notes;
pub mod progress;
pub mod rootfs;
pub mod sandbox;
mod sealed;
pub mod solve;
pub mod ssh;
