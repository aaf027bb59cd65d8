//! What COPY and ADD take from: the build context and its `.dockerignore`, or another root file system.

pub mod files;
pub mod ignore;
pub mod pattern;
pub mod remote;
