//! `cargo xtask test`: formatting, lints and all tests, with the real servers they need.

use crate::command::run;
use crate::error::Result;
use crate::tools::{self, Need};
use crate::workspace::cargo;

const NEEDS: [Need; 7] = [
    Need::Program("openssl", "openssl"),
    Need::Program("skopeo", "skopeo"),
    Need::Program("umoci", "umoci"),
    Need::Package("busybox-static"),
    Need::Program("setcap", "libcap2-bin"),
    Need::Program("ps", "procps"),
    Need::Program("script", "bsdutils"),
];

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
        .env("PATH", tools::path_with(&moto)?))
}
