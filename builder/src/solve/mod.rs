//! The solver: which steps a target needs, what each depends on, and the running of those whose result is not known yet.

mod bases;
mod cancel;
mod copy_step;
mod error;
mod execute;
mod graph;
mod images;
mod mounts;
mod run_step;
mod secret;
mod shared;
mod step;
mod stored_base;
mod tools;
mod variables;

pub use cancel::Cancel;
pub use error::BuildError;
pub use execute::{build, unpacked};
pub use images::{NeededImage, needed_images};
pub use secret::{MAX_SECRET, Secret};
pub use shared::{Built, LayerHook, Request};
pub use stored_base::stored_base;
pub use tools::Tools;
