//! The layer cache: what a step's result depends on ([`key`]), where results are remembered ([`local`]), and directories that outlive a build ([`mounts`]), and how
//! builds that share it keep from doing a step twice ([`turns`]).

pub mod key;
pub mod local;
pub mod mounts;
pub mod mounts_use;
pub mod turns;
