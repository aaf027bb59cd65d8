//! OCI registry client of Roadstead: names, credentials, streaming pull and push, OCI layout on disk, Amazon ECR.
//!
//! ```text
//! pull | push/{one_patch} -> transport -> credentials, ecr -> config; store | manifest -> digest
//! ```

#![forbid(unsafe_code)]

mod digest;
mod error;
mod image_config;
mod manifest;
mod platform;
mod reference;
mod store;
#[cfg(test)]
mod test_dir;

pub use digest::{Digest, DigestWriter};
pub use error::{ConnectProblem, RegistryError, RegistryError as Error, Result};
pub use image_config::{CONFIG_LIMIT, ImageConfig};
pub use manifest::{Descriptor, Index, MANIFEST_LIMIT, Manifest, media_type};
pub use platform::Platform;
pub use reference::Reference;
pub use store::{BlobWriter, Store};
