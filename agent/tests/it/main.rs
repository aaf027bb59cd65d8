//! The binary as its users see it, against real registries and a real AWS emulator.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod agents;
mod bad_input;
mod buildx;
mod interrupts;
mod run;
mod s3;
mod services;
mod shims;
mod workspace;
