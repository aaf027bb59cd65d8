//! `cargo xtask test`: formatting, lints and all tests, with the real servers they need, and a part of the conformance run.

use crate::command::run;
use crate::conformance;
use crate::error::Result;
use crate::tools::{self, Need};
use crate::workspace::cargo;

const NEEDS: [Need; 8] = [
    Need::Program("openssl", "openssl"),
    Need::Program("skopeo", "skopeo"),
    Need::Program("umoci", "umoci"),
    Need::Package("busybox-static"),
    Need::Program("setcap", "libcap2-bin"),
    Need::Program("ssh-agent", "openssh-client"),
    Need::Program("ps", "procps"),
    Need::Program("script", "bsdutils"),
];

/// Cases and random Dockerfiles that are compared with Docker's here, and cases that are built out of caches; all of them by `cargo xtask conformance`.
const SAMPLE: &str = "80";
const RANDOM: &str = "25";
const CACHED: &str = "40";
const CAGED: &str = "60";
const SEED: &str = "20";

/// Runs everything; the first failure ends it.
pub(crate) fn run_all() -> Result<()> {
    tools::install(&[&tools::COMMON[..], &NEEDS].concat())?;
    let moto = tools::moto()?;
    println!("==> formatting");
    run(cargo().args(["fmt", "--all", "--check"]))?;
    println!("==> lints");
    run(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    println!("==> tests");
    run(cargo()
        .args(["test", "--workspace", "--locked"])
        .env("PATH", tools::path_with(&moto)?))?;
    println!("==> a part of the conformance cases");
    conformance::run(&["--sample", SAMPLE, "--seed", SEED])?;
    println!("==> some of them out of every kind of cache");
    conformance::run(&["--caches", "--sample", CACHED, "--seed", SEED])?;
    println!("==> some random Dockerfiles");
    conformance::run(&["--random", RANDOM, "--seed", SEED])?;
    println!("==> some cases where nothing can be mounted");
    conformance::run(&["--cage", "--sample", CAGED, "--seed", SEED])
}
