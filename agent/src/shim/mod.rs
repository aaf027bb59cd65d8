//! Shims: `docker` and `aws` of a job are this binary under other names, served by the job's runner.
//!
//! The job's PATH begins with a directory of links to this binary. A shim sends its arguments, directory and environment over
//! a unix socket and copies what comes back; the runner does the work, with a docker configuration of the job's own.

mod aws;
mod builders;
mod client;
mod context;
mod deploy;
mod docker;
mod frame;
mod pushed;
mod server;
mod session;

pub(crate) use aws::{TokenArgs, print_token};
pub(crate) use client::{ask_pushed, main};
pub(crate) use pushed::size_of;
pub(crate) use server::{Server, ShimError};

/// Names under which this binary is a shim.
pub(crate) const NAMES: [&str; 4] = ["docker", "aws", "dockerd", "dockerd-entrypoint.sh"];
