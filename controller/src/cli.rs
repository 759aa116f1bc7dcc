//! What can be typed. Exit codes: 0 done, 1 failed, 2 bad input or usage, 3 not permitted.

use std::{path::PathBuf, process::ExitCode, str::FromStr};

use clap::{Parser, Subcommand, ValueEnum};
use floodwall_engine::Protocol;

use crate::{check, output::Exit, replay};

/// Inline firewall and adaptive traffic controller for TeamTalk, IRC and TeamSpeak servers.
///
/// Exit codes: 0 done, 1 failed, 2 bad input or usage, 3 not permitted.
#[derive(Debug, Parser)]
#[command(name = "floodwall", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Judge captures as if they arrived now: who would be dropped, limited or banned, and why.
    Replay(ReplayArguments),
    /// Check rule files and configuration, and name every mistake.
    Check(CheckArguments),
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// For people: linear, the answer first.
    #[default]
    Text,
    /// For programs: one JSON document with a `schema` field.
    Json,
}

/// `floodwall replay`
#[derive(Debug, clap::Args)]
pub(crate) struct ReplayArguments {
    /// Print for people or for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Folder with rule files (*.toml); the shipped rules otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,
    /// Judge with these rules too and show what differs.
    #[arg(long, value_name = "DIR")]
    pub(crate) against: Option<PathBuf>,
    /// Configuration file with services and allowed prefixes.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Ports of a service, instead of its default ports: teamtalk=10333,10335.
    #[arg(long = "service", value_name = "PROTOCOL=PORTS")]
    pub(crate) services: Vec<ServicePorts>,
    /// Sources listed one by one; the rest is summed in one row.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) sources: usize,
    /// No progress bar, even on a terminal.
    #[arg(long)]
    pub(crate) plain: bool,
    /// Captures: pcap or pcapng, also .gz and .zst, in time order.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// `floodwall check`
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArguments {
    /// Print for people or for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Folder with rule files (*.toml); the shipped rules otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The value of `--service`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ServicePorts {
    pub(crate) protocol: Protocol,
    pub(crate) ports: Vec<u16>,
}

impl FromStr for ServicePorts {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, Self::Err> {
        let (name, ports) =
            written.split_once('=').ok_or("write PROTOCOL=PORTS, such as teamtalk=10333,10335")?;
        let names = Protocol::ALL.map(Protocol::as_str).join(", ");
        let protocol = Protocol::from_name(name)
            .ok_or_else(|| format!("unknown protocol \"{name}\"; valid: {names}"))?;
        let ports = ports.split(',').map(parse_port).collect::<Result<_, _>>()?;
        Ok(Self { protocol, ports })
    }
}

fn parse_port(written: &str) -> Result<u16, String> {
    match written.trim().parse() {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => Err(format!("\"{written}\" is no port: write a number from 1 to 65535")),
    }
}

/// Parses the command line and runs the command.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::BadInput } else { Exit::Done };
            drop(error.print());
            return exit.into();
        }
    };
    match cli.command {
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn service_ports_are_read_and_mistakes_named() {
        let ports: ServicePorts = "teamtalk=10333,10335".parse().unwrap();
        assert_eq!((ports.protocol, ports.ports), (Protocol::TeamTalk, vec![10_333, 10_335]));
        assert!("teamtalk".parse::<ServicePorts>().unwrap_err().contains("PROTOCOL=PORTS"));
        assert!("tt=1".parse::<ServicePorts>().unwrap_err().contains("valid: irc, teamspeak, teamtalk"));
        assert!("irc=0".parse::<ServicePorts>().unwrap_err().contains("1 to 65535"));
    }
}
