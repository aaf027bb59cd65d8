//! Image configs, manifests and indexes: what the instructions say, assembled into documents with stable bytes.

pub mod assemble;
pub mod config;
pub mod form;
pub mod output;
