//! `cargo xtask cage`: builds where nothing can be mounted and no namespace made, as in a container with Docker's defaults.

mod container;
mod place;

pub(crate) use container::{CA_BUNDLE, Cage, Kind};
pub(crate) use place::Place;
