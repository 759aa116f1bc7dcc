//! `cargo xtask check`: what must be green before a change is pushed.

use std::process::Command;

use anyhow::Result;

use crate::{ebpf, judge, process, root, say};

/// Runs every check and stops at the first that fails.
///
/// # Errors
/// Names the check that failed.
pub fn run() -> Result<()> {
    cargo("fmt", &["--all", "--check"])?;
    cargo("clippy", &["--workspace", "--all-targets", "--", "-D", "warnings"])?;
    if process::is_there("cargo", "nextest") || process::is_there("cargo-nextest", "--version") {
        cargo("nextest", &["run"])?;
    } else {
        say("cargo-nextest is not installed: tests run by `cargo test`.");
        cargo("test", &[])?;
    }
    judge::run(false)?;
    process::run(doc().env("RUSTDOCFLAGS", "-D warnings"))?;
    optional("cargo-deny", "deny", &["check", "bans", "licenses", "sources"])?;
    optional("cargo-shear", "shear", &[])?;
    ebpf::check()?;
    say("Everything is green.");
    Ok(())
}

fn doc() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root()).args(["doc", "--quiet", "--no-deps", "--document-private-items"]);
    command
}

fn cargo(subcommand: &str, arguments: &[&str]) -> Result<()> {
    say(&format!("cargo {subcommand} {}", arguments.join(" ")));
    process::run(Command::new("cargo").current_dir(root()).arg(subcommand).args(arguments))
}

/// A check whose tool need not be installed.
fn optional(program: &str, subcommand: &str, arguments: &[&str]) -> Result<()> {
    if process::is_there(program, "--version") {
        return cargo(subcommand, arguments);
    }
    say(&format!("SKIPPED cargo {subcommand}: {program} is not installed."));
    Ok(())
}
