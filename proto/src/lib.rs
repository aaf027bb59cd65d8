//! Documents of Roadstead that cross a process or a machine.
//!
//! Serde types only: no I/O, no runtime. Names of fields are those of the documents' owners, CodeBuild and CodePipeline,
//! so that what their tools print can be read here and the other way round.
#![forbid(unsafe_code)]

pub mod image_definitions;
pub mod job;
pub mod record;
