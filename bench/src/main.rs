//! `cargo xtask bench WHAT`: measurements side by side, in one run, on one machine.

mod bulk;
mod gate;
mod held;
mod load;
mod logs;
mod peer;
mod replay;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures Floodwall against its peers.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Time to install 100,000 bans, beside an nftables set, and what a look-up costs among them.
    Bulk {
        /// Rounds; all subjects take turns in each.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Fail when nft cannot be had.
        #[arg(long)]
        require_peers: bool,
    },
    /// ns per packet in the kernel, beside an empty program and xdp-filter.
    Gate {
        /// Runs per measurement and round.
        #[arg(long, default_value_t = 1_000_000)]
        repeat: u32,
        /// Rounds; all subjects take turns in each.
        #[arg(long, default_value_t = 9)]
        rounds: usize,
        /// Fail when xdp-filter cannot be had.
        #[arg(long)]
        require_peers: bool,
    },
    /// What a look-up costs among few and among many bans, and among the prefixes of lists.
    Held {
        /// Rounds; all sizes take turns in each.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Voice loss and login time of 20 regulars under a spoofed flood: no filter, nftables, Floodwall generic and native.
    Load {
        /// Seconds of flood per measurement.
        #[arg(long, default_value_t = 4)]
        seconds: u64,
        /// Where to write the plots.
        #[arg(long)]
        plots: Option<std::path::PathBuf>,
    },
    /// Lines per second of `floodwall analyze`, beside ripgrep, grep, mawk, Python and fail2ban-regex on the same log.
    Logs {
        /// Lines of the log, which is written first.
        #[arg(long, default_value_t = 10_000_000)]
        lines: u64,
        /// Rounds after the first, which fills the page cache.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Fail when a peer cannot be had.
        #[arg(long)]
        require_peers: bool,
        /// Leave out the stream of 349 million lines.
        #[arg(long)]
        no_stream: bool,
    },
    /// Packets per second of `floodwall replay`, beside ndpiReader on the same capture.
    Replay {
        /// Size of the capture, made by repeating the committed corpus.
        #[arg(long, default_value_t = 500)]
        megabytes: u64,
        /// Rounds after the first, which fills the page cache.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Fail when ndpiReader cannot be had.
        #[arg(long)]
        require_peers: bool,
    },
}

#[expect(clippy::print_stderr, reason = "errors are printed once, here")]
fn main() -> ExitCode {
    let measured = match Arguments::parse().what {
        What::Bulk { rounds, require_peers } => bulk::run(rounds, require_peers),
        What::Gate { repeat, rounds, require_peers } => gate::run(repeat, rounds, require_peers),
        What::Held { rounds } => held::run(rounds),
        What::Load { seconds, plots } => load::run(seconds, plots.as_deref()),
        What::Logs { lines, rounds, require_peers, no_stream } => {
            logs::run(lines, rounds, require_peers, !no_stream)
        }
        What::Replay { megabytes, rounds, require_peers } => replay::run(megabytes, rounds, require_peers),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
