//! Image configs and manifests: what the instructions say, assembled into documents with stable bytes.

pub mod assemble;
pub mod config;
pub mod output;
