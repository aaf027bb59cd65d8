//! The layer cache: what a step's result depends on ([`key`]), where results are remembered ([`local`]), and directories that outlive a build ([`mounts`]).

pub mod key;
pub mod local;
pub mod mounts;
