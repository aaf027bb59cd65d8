//! The solver: which steps a target needs, what each depends on, and the running of those whose result is not known yet.

mod bases;
mod cancel;
mod copy_plan;
mod copy_step;
mod error;
mod execute;
mod export;
mod fetch;
mod graph;
mod history;
mod images;
mod mounts;
mod named;
mod packing;
mod platforms;
mod run_options;
mod run_step;
mod secret;
mod shared;
mod step;
mod steps;
mod stored_base;
mod tools;
mod variables;

pub use cancel::Cancel;
pub use error::BuildError;
pub use export::{export, unpacked};
pub use fetch::Fetcher;
pub use images::{NeededImage, needed_images};
pub use named::{Named, NamedContexts};
pub use platforms::{build, is_index};
pub use run_options::{Host, RunOptions};
pub use secret::{MAX_SECRET, Secret};
pub use shared::{Built, BuiltPlatform, LayerHook, Request};
pub use stored_base::stored_base;
pub use tools::Tools;
