//! Layers: file trees to tar, compressed and digested in one pass, and back.

pub(crate) mod ahead;
pub mod compress;
pub mod compression;
mod deflate;
pub(crate) mod digest_reader;
pub mod extract;
pub mod limits;
pub mod lowers;
mod own;
pub mod read;
pub mod recompress;
pub mod sparse;
pub mod tar;
pub mod write;
