//! `cargo xtask bench WHAT`: measurements side by side, in one run, on one machine.

mod bulk;
mod cookies;
mod crowd;
mod gate;
mod held;
mod load;
mod logs;
mod machine;
mod paths;
mod peer;
mod replay;
mod strangers;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures Floodwall against its peers.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// What to measure; without it everything that concerns the gate, one after the other (a quarter of an hour).
    #[command(subcommand)]
    what: Option<What>,
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
    /// Voice that departs through veth, with and without the watcher.
    Egress {
        /// Runs of ten turns each, for the spread.
        #[arg(long, default_value_t = 3)]
        runs: usize,
    },
    /// Packets per second and core where XDP cannot be had, over copies of packets, beside the gate in the kernel.
    Fallback {
        /// Rounds; both take turns in each.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Seconds of flood per measurement.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// ns per packet in the kernel, beside an empty program and xdp-filter.
    Gate {
        /// Runs per measurement and round.
        #[arg(long, default_value_t = 1_000_000)]
        repeat: u32,
        /// Rounds; all subjects take turns in each.
        #[arg(long, default_value_t = 9)]
        rounds: usize,
        /// Runs of so many rounds, for the spread.
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// Fail when xdp-filter cannot be had.
        #[arg(long)]
        require_peers: bool,
    },
    /// What a SYN cookie costs: the kernel's, and one made in XDP before the kernel has seen the SYN.
    Cookies {
        /// Rounds; all take turns in each.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Fail when clang cannot be had.
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
        /// Rounds; all filters take turns in each.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
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
    /// What ten million claimed sources do to the gate's memory, to regulars, and to the time a newcomer takes to come in.
    Strangers {
        /// Packets, each of a source of its own.
        #[arg(long, default_value_t = 10_000_000)]
        claimed: u64,
        /// How the wall is attached.
        #[arg(long, default_value = "native")]
        mode: String,
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
    let measured = machine::say().and_then(|()| match Arguments::parse().what {
        Some(what) => measure(what),
        None => measure_all(),
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Every row of the design's table that concerns the gate, as far as it is a matter of speed or size. The others are tests,
/// which say what they measured.
fn measure_all() -> Result<()> {
    gate::run(1_000_000, 9, 3, true)?;
    bulk::run(3, true)?;
    held::run(3)?;
    paths::run_egress(3)?;
    paths::run_fallback(3, 5)?;
    load::run(4, 3, None)?;
    cookies::run(5, true)?;
    strangers::run(10_000_000, "native")?;
    machine::say_tests();
    Ok(())
}

fn measure(what: What) -> Result<()> {
    match what {
        What::Bulk { rounds, require_peers } => bulk::run(rounds, require_peers),
        What::Cookies { rounds, require_peers } => cookies::run(rounds, require_peers),
        What::Egress { runs } => paths::run_egress(runs),
        What::Fallback { rounds, seconds } => paths::run_fallback(rounds, seconds),
        What::Gate { repeat, rounds, runs, require_peers } => gate::run(repeat, rounds, runs, require_peers),
        What::Held { rounds } => held::run(rounds),
        What::Load { seconds, rounds, plots } => load::run(seconds, rounds, plots.as_deref()),
        What::Logs { lines, rounds, require_peers, no_stream } => {
            logs::run(lines, rounds, require_peers, !no_stream)
        }
        What::Strangers { claimed, mode } => strangers::run(claimed, &mode),
        What::Replay { megabytes, rounds, require_peers } => replay::run(megabytes, rounds, require_peers),
    }
}
