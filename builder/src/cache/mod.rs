//! The layer cache: what a step's result depends on ([`key`]), where results are remembered ([`local`]), how they come from other
//! machines ([`document`], [`imported`]), how builds that share a cache keep from doing a step twice ([`turns`]), and directories that
//! outlive a build ([`mounts`]).

pub mod document;
pub mod imported;
pub mod key;
pub mod local;
pub mod mounts;
pub mod mounts_use;
pub mod turns;
