//! `cargo xtask bench`: runs the benchmarks, built as they are shipped.

use std::process::Command;

use anyhow::Result;

use crate::{process, root};

/// Runs `floodwall-bench` with these arguments.
///
/// # Errors
/// When it does not build or fails.
pub fn run(arguments: &[String]) -> Result<()> {
    process::run(
        Command::new("cargo")
            .current_dir(root())
            .args(["run", "--quiet", "--release", "--package", "floodwall-bench", "--"])
            .args(arguments),
    )
}
