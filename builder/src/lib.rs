//! Dockerfile to OCI image, without a daemon.
//!
//! [`dockerfile`] parses, [`context`] reads files, [`rootfs`] and [`sandbox`] run steps, [`layer`] writes and reads layers, [`cache`]
//! remembers them, [`image`] assembles, and [`solve`] alone knows them all.

pub mod dockerfile;
