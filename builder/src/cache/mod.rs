//! The layer cache: what a step's result depends on ([`key`]), and where results are remembered ([`local`]).

pub mod key;
pub mod local;
