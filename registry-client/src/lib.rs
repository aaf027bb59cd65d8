//! OCI registry client of Roadstead: names, credentials, streaming pull and push, OCI layout on disk, Amazon ECR.
//!
//! ```text
//! client -> copy -> pull | push/{one_patch, chunks, ecr_parts} -> transport -> credentials, ecr -> config
//!                   store, layout -> files; manifest -> digest
//! ```

#![forbid(unsafe_code)]

mod client;
mod config;
mod copy;
mod credentials;
mod digest;
mod download;
pub mod ecr;
mod error;
mod files;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod image_config;
mod layout;
mod manifest;
mod object;
mod options;
mod platform;
mod progress;
mod pull;
mod push;
mod reference;
mod secret;
mod store;
mod tags;
#[cfg(test)]
mod test_dir;
#[cfg(test)]
mod test_image;
mod transport;

pub use client::Client;
pub use config::{CredentialRule, Explanation, Location, RegistriesConfig, UploadKind};
pub use copy::{
    BlobStream, ComposedIndex, ImageSink, ImageSource, RegistryImage, RegistryTarget, Selection, StoreImage,
    StoreTarget, copy, read_small, select,
};
pub use credentials::{CredentialStore, login, logout};
pub use digest::{Digest, DigestWriter};
pub use download::Downloaded;
pub use error::{ConnectProblem, RegistryError, RegistryError as Error, Result};
pub use image_config::{CONFIG_LIMIT, ImageConfig};
pub use layout::{ArchiveKind, ArchiveTarget, ArchiveWriter, ImageArchive, LayoutImage, LayoutTarget, layout_names};
pub use manifest::{Descriptor, Index, MANIFEST_LIMIT, Manifest, media_type};
pub use options::ClientOptions;
pub use platform::Platform;
pub use progress::{BlobEvent, NoProgress, Progress};
pub use pull::Resolved;
pub use push::PushedHow;
pub use reference::Reference;
pub use secret::{Secret, without_login};
pub use store::{BlobUse, BlobWriter, CheckReport, Claim, Finding, Growing, Store};
pub use transport::retry::RetryBudget;
