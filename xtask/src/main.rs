//! `cargo xtask COMMAND`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use floodwall_xtask::{
    bench, check, ebpf, judge, kernels,
    logs::{self, Flavour, Plan},
};

/// The developer's one entry.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything that must be green before a change is pushed.
    Check,
    /// Build the kernel object into xdp-prog/prebuilt.
    Ebpf {
        /// Change nothing; fail if the object is not that of the sources.
        #[arg(long)]
        check: bool,
    },
    /// Load and run the kernel object on other kernels, in virtual machines.
    Kernels {
        /// A kernel image to boot in addition to those of the distribution.
        #[arg(long)]
        image: Vec<PathBuf>,
        /// Fail when a kernel or the emulator cannot be had.
        #[arg(long)]
        require: bool,
    },
    /// Judge every capture whose truth is known, and the attacks made by hand; fail if anybody is misjudged.
    Judge {
        /// Write the tables into docs/judgement.md.
        #[arg(long)]
        write: bool,
    },
    /// Write a server's log during an attack, and the truth of it beside: who is who and what each did.
    Logs {
        /// How many lines.
        #[arg(long, default_value_t = 10_000_000)]
        lines: u64,
        /// The same log again for the same seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Whose log.
        #[arg(long, value_enum, default_value_t = Flavour::Teamtalk)]
        flavour: Flavour,
        /// Where to; the truth goes to FILE.truth.json. Standard output otherwise, without the truth.
        #[arg(long)]
        file: Option<PathBuf>,
    },
    /// Measure: `gate` ns per packet in the kernel, `replay` packets per second from captures, `logs` lines per
    /// second; beside their peers.
    Bench {
        /// What to measure, and its options.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Check => check::run(),
        Command::Ebpf { check: false } => ebpf::build(),
        Command::Ebpf { check: true } => ebpf::check(),
        Command::Kernels { image, require } => kernels::run(&image, require),
        Command::Judge { write } => judge::run(write),
        Command::Logs { lines, seed, flavour, file } => {
            logs::run(Plan { lines, seed, flavour }, file.as_deref())
        }
        Command::Bench { arguments } => bench::run(&arguments),
    }
}

#[expect(clippy::print_stderr, reason = "errors are printed once, here")]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
