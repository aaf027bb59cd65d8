//! The binary as its users see it, against real registries and a real AWS emulator.

mod agents;
mod bad_input;
mod interrupts;
mod run;
mod services;
mod shims;
mod workspace;
