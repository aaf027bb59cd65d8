//! `roadstead build` as a user meets it: the real binary, the real kernel, Debian's `docker-registry`, images read back whole.
//!
//! Tests named `privileged_*` need root and say so when they are skipped; the others also run as an ordinary user who has ranges in
//! `/etc/subuid` and `/etc/subgid`. Needed from Debian: bsdutils, busybox-static, docker-registry, skopeo, umoci, uidmap, libcap2-bin,
//! openssh-client.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panic, as tests do")]

mod add;
mod archives;
mod binary;
mod ca_bundle;
mod cache_command;
mod caching;
mod check;
mod chroot;
mod contexts;
mod copy;
mod corrupt;
mod data_directory;
mod directories;
mod files;
mod handmade;
mod hostile;
mod hostile_input;
mod image;
mod instructions;
mod interruption;
mod killed_builds;
mod limits;
mod mounts;
mod ordinary_user;
mod output_keys;
mod outputs;
mod platforms;
mod progress;
mod pulls;
mod random;
mod registries;
mod registry;
mod remote_cache;
mod round_trip;
mod run_flags;
mod sandbox;
mod secrets;
mod site;
mod ssh;
mod together;
mod untrue_cache;
