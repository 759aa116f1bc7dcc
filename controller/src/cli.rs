//! What can be typed. Exit codes: 0 done, 1 failed, 2 bad input or usage, 3 not permitted.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, str::FromStr};

use clap::{Parser, Subcommand, ValueEnum};
use floodwall_engine::{Protocol, Span, Timestamp, protocol::log::Format as LogFormat};

use crate::{
    analyze, catalogue, check, client, demo, detach, doctor, incident,
    live::{self, control::Request},
    output::Exit,
    replay, suggest, test, top,
};

/// Folder of ledger, people and incidents unless told otherwise.
pub(crate) const DEFAULT_STATE: &str = "/var/lib/floodwall";

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
    /// Read server logs: who did what, what the rules would have done, who belongs together.
    Analyze(AnalyzeArguments),
    /// Check rule files and configuration, and name every mistake.
    Check(CheckArguments),
    /// Run the cases of rules: those in which each must fire, and those in which it must not.
    Test(TestArguments),
    /// Propose limits for rules from captures of quiet evenings, with what each would have cost.
    Suggest(SuggestArguments),
    /// Guard this host: attach to its interfaces and stay until interrupted. Ctrl-C takes everything back.
    Run(RunArguments),
    /// What the wall does now: mode, levels, who is there, what is being dropped and why.
    Status(ConnectArguments),
    /// What is going on, anew every few seconds: levels, rates, worst sources, drops.
    Top(TopArguments),
    /// Who is banned, since when, until when and why.
    Bans(BansArguments),
    /// Ban an address, a prefix or somebody by nickname.
    Ban(BanArguments),
    /// Lift a ban and hold nothing against the address for ten minutes.
    Unban(UnbanArguments),
    /// Cut the connections of an address, a prefix or somebody by nickname, without a ban.
    Kick(SubjectArguments),
    /// Let an address or prefix in whatever the rules say; without one, list them.
    Allow(AllowArguments),
    /// Say in full sentences what holds for an address or person and why.
    Explain(SubjectArguments),
    /// Who is logged in, from where, in which channel; what belongs to one person; or what is known about IRC server links.
    Who(WhoArguments),
    /// Delete a nickname, account, identity or address from what is kept about people.
    Forget(ForgetArguments),
    /// Words, parameters, numbers and packet kinds that no documentation has: of a running wall, or of captures.
    Catalogue(CatalogueArguments),
    /// What was recorded of attacks and takeovers.
    Incident(IncidentArguments),
    /// Show decisions and samples of what is dropped as they happen.
    Watch(WatchArguments),
    /// Read rules and configuration again: all of it, or nothing if there is a mistake.
    Reload(ConnectArguments),
    /// Keep a wall that was started with --confirm.
    Confirm(ConnectArguments),
    /// Take the gate away, with or without a running controller.
    Detach(DetachArguments),
    /// Show a wall at work: a server, regulars and attackers in network namespaces that go at the end. Takes root.
    Demo(DemoArguments),
    /// Say whether this machine can run the wall, in which mode, and why not a better one.
    Doctor(DoctorArguments),
}

/// How to reach a running wall, and how to print what it says.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectArguments {
    /// Print for people or for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Control socket; /run/floodwall/control.sock otherwise.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

/// `floodwall top`
#[derive(Debug, clap::Args)]
pub(crate) struct TopArguments {
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// How often; 2s on a terminal, 10s otherwise. Text that is plain or piped comes every ten seconds at most.
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub(crate) every: Option<Span>,
    /// Look once, for a second.
    #[arg(long)]
    pub(crate) once: bool,
    /// Block after block, even on a terminal.
    #[arg(long)]
    pub(crate) plain: bool,
}

/// `floodwall run`
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RunArguments {
    /// Configuration file; /etc/floodwall/floodwall.toml if it exists.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Interface to guard; may be repeated.
    #[arg(long = "interface", value_name = "IF")]
    pub(crate) interfaces: Vec<String>,
    /// Folder with rule files; /etc/floodwall/rules if it exists, else the shipped rules.
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,
    /// Ports of a service, instead of its default ports: teamtalk=10333,10335.
    #[arg(long = "service", value_name = "PROTOCOL=PORTS")]
    pub(crate) services: Vec<ServicePorts>,
    /// How to attach: auto takes native if the driver can, else generic.
    #[arg(long, value_enum)]
    pub(crate) mode: Option<WantedMode>,
    /// Judge and count, but drop, ban and cut nothing.
    #[arg(long)]
    pub(crate) observe: bool,
    /// Take everything back after this long unless `floodwall confirm` is run: 10m.
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub(crate) confirm: Option<Span>,
    /// Leave the gate in force when stopped by SIGTERM, as the service does.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Folder of the ledger; /var/lib/floodwall otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Control socket; /run/floodwall/control.sock otherwise.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Folder of the bpf file system in which the gate is pinned; /sys/fs/bpf/floodwall otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) pins: Option<PathBuf>,
    /// Serve metrics for Prometheus here: 127.0.0.1:9464. Not served otherwise.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// No colours in the log.
    #[arg(long)]
    pub(crate) plain: bool,
}

/// How to attach.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum WantedMode {
    /// Native if the driver can, else generic, else nftables.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
    /// As auto, but nothing is dropped, banned or cut.
    Observe,
    /// By a table of nftables of our own, over copies of packets, where XDP cannot be attached.
    Nftables,
    /// From copies of packets alone: nothing is dropped, banned or cut.
    Pcap,
}

impl WantedMode {
    pub(crate) const ALL: [Self; 6] =
        [Self::Auto, Self::Native, Self::Generic, Self::Nftables, Self::Observe, Self::Pcap];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Observe => "observe",
            Self::Nftables => "nftables",
            Self::Pcap => "pcap",
        }
    }
}

/// `floodwall bans`
#[derive(Debug, clap::Args)]
pub(crate) struct BansArguments {
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// Also those that are over.
    #[arg(long)]
    pub(crate) history: bool,
    /// At most so many, the newest first.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) limit: usize,
    /// Write every ban of the ledger as JSON lines, for --import elsewhere.
    #[arg(long, conflicts_with_all = ["history", "import"])]
    pub(crate) export: bool,
    /// Take over the bans of such a file.
    #[arg(long, value_name = "FILE", conflicts_with = "history")]
    pub(crate) import: Option<PathBuf>,
    /// Folder of the ledger to export; /var/lib/floodwall otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

/// `floodwall ban`
#[derive(Debug, clap::Args)]
pub(crate) struct BanArguments {
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// Address, prefix, or the nickname or account of somebody present.
    #[arg(value_name = "ADDRESS|PREFIX|NICKNAME")]
    pub(crate) subject: String,
    /// For how long; an hour otherwise.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_span)]
    pub(crate) duration: Option<Span>,
    /// Why, for the ledger.
    #[arg(long, value_name = "TEXT")]
    pub(crate) why: Option<String>,
    /// Cut every connection of the subject at once, also those that the ban would only starve.
    #[arg(long)]
    pub(crate) kick: bool,
    /// Also if a brake objects: wide prefixes, this host, its gateway, the allow list.
    #[arg(long)]
    pub(crate) force: bool,
}

/// `floodwall unban`
#[derive(Debug, clap::Args)]
pub(crate) struct UnbanArguments {
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// Address, prefix, or the nickname or account of somebody present.
    #[arg(value_name = "ADDRESS|PREFIX|NICKNAME", required_unless_present = "all")]
    pub(crate) subject: Option<String>,
    /// Every ban.
    #[arg(long, conflicts_with = "subject")]
    pub(crate) all: bool,
}

/// `floodwall kick`, `floodwall explain`
#[derive(Debug, clap::Args)]
pub(crate) struct SubjectArguments {
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// Address, prefix, or the nickname or account of somebody present.
    #[arg(value_name = "ADDRESS|PREFIX|NICKNAME")]
    pub(crate) subject: String,
}

/// `floodwall allow`
#[derive(Debug, clap::Args)]
pub(crate) struct AllowArguments {
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// Address or prefix.
    #[arg(value_name = "ADDRESS|PREFIX")]
    pub(crate) prefix: Option<String>,
    /// Take it off the list.
    #[arg(long, requires = "prefix")]
    pub(crate) remove: bool,
    /// Also if the prefix is wide.
    #[arg(long)]
    pub(crate) force: bool,
}

/// `floodwall watch`
#[derive(Debug, clap::Args)]
pub(crate) struct WatchArguments {
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// Ring the terminal's bell at every ban.
    #[arg(long)]
    pub(crate) bell: bool,
}

/// `floodwall detach`
#[derive(Debug, clap::Args)]
pub(crate) struct DetachArguments {
    /// Print for people or for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Folder of the bpf file system in which the gate is pinned; /sys/fs/bpf/floodwall otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) pins: Option<PathBuf>,
}

/// `floodwall doctor`
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArguments {
    /// Print for people or for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Configuration file; /etc/floodwall/floodwall.toml if it exists.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Folder with rule files.
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,
    /// Folder of the ledger; /var/lib/floodwall otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Leave the self-test in a network namespace out.
    #[arg(long)]
    pub(crate) quick: bool,
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
    /// State folder of a wall, whose learnt baseline raises levels; without it only rules do.
    #[arg(long, value_name = "DIR")]
    pub(crate) baseline: Option<PathBuf>,
    /// Sources listed one by one; the rest is summed in one row.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) sources: usize,
    /// No progress bar, even on a terminal.
    #[arg(long)]
    pub(crate) plain: bool,
    /// Captures: pcap or pcapng, also .gz and .zst, in time order; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// `floodwall analyze`
#[derive(Debug, clap::Args)]
pub(crate) struct AnalyzeArguments {
    /// Print for people or for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Whose log it is; found out from the first lines otherwise.
    #[arg(long, value_name = "SERVER", alias = "log-format", value_parser = parse_flavour)]
    pub(crate) flavour: Option<LogFormat>,
    /// Folder with rule files (*.toml); the shipped rules otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,
    /// Only what happened from then on: 2026-11-21, 2026-11-21T06:00 or 2026-11-21T06:00:00Z. Logs without a zone are taken
    /// for UTC, and so is a time without one.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) since: Option<Timestamp>,
    /// Only what happened before then.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) until: Option<Timestamp>,
    /// Addresses listed one by one, those that matter most first; the others are summed. 20 in text, 1000 in JSON.
    #[arg(long, value_name = "N", alias = "sources")]
    pub(crate) top: Option<usize>,
    /// Write a page with plots too, in one file that needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// For passing on: addresses, networks, names and accounts are replaced by numbers, the same ones by the same.
    #[arg(long)]
    pub(crate) redact: bool,
    /// Cores used; all otherwise. The report does not depend on it.
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// No progress bar, even on a terminal.
    #[arg(long)]
    pub(crate) plain: bool,
    /// Logs, also .gz, .xz and .zst, in any order; - is standard input.
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
    /// Print the JSON Schema of rule files instead, for editors.
    #[arg(long, conflicts_with_all = ["rules", "config"])]
    pub(crate) schema: bool,
}

/// `floodwall suggest`
#[derive(Debug, clap::Args)]
pub(crate) struct SuggestArguments {
    /// Print for people or for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Folder with rule files (*.toml); the shipped rules otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,
    /// Configuration file with services and allowed prefixes.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Ports of a service, instead of its default ports: teamtalk=10333,10335.
    #[arg(long = "service", value_name = "PROTOCOL=PORTS")]
    pub(crate) services: Vec<ServicePorts>,
    /// Ask the running wall for what it has counted so far.
    #[arg(long, conflicts_with_all = ["rules", "config", "services", "files"])]
    pub(crate) live: bool,
    /// Control socket of the wall.
    #[arg(long, value_name = "PATH", requires = "live")]
    pub(crate) socket: Option<PathBuf>,
    /// No progress bar, even on a terminal.
    #[arg(long)]
    pub(crate) plain: bool,
    /// Captures of evenings on which nothing was wrong; - is standard input.
    #[arg(required_unless_present = "live", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// `floodwall test`
#[derive(Debug, clap::Args)]
pub(crate) struct TestArguments {
    /// Print for people or for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Folder with rule files (*.toml), its cases in its folder cases; the shipped ones otherwise.
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,
    /// Fail also if a rule has no case that fires, or none that stays quiet.
    #[arg(long)]
    pub(crate) require_both: bool,
}

/// `floodwall who`
#[derive(Debug, clap::Args)]
pub(crate) struct WhoArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// Show IRC server links instead: their servers, nicknames and channels with the timestamps each side has said.
    #[arg(long)]
    links: bool,
    /// Servers, nicknames and channels shown of each link at most.
    #[arg(long, value_name = "N", default_value_t = 100, requires = "links")]
    rows: usize,
    /// One line a server.
    #[arg(long, conflicts_with_all = ["links", "person"])]
    short: bool,
    /// Which nicknames, accounts, identities and addresses were seen together with this one, and when. Takes a `people` table in the
    /// configuration.
    #[arg(long, value_name = "NAME", conflicts_with = "links")]
    person: Option<String>,
}

/// `floodwall catalogue`
#[derive(Debug, clap::Args)]
pub(crate) struct CatalogueArguments {
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,
    /// Ports of a service, instead of its default ports: teamtalk=10333,10335.
    #[arg(long = "service", value_name = "PROTOCOL=PORTS", requires = "files")]
    pub(crate) services: Vec<ServicePorts>,
    /// No progress bar, even on a terminal.
    #[arg(long)]
    pub(crate) plain: bool,
    /// Captures: pcap or pcapng, also .gz and .zst; - is standard input. Without any, a running wall is asked.
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// `floodwall forget`
#[derive(Debug, clap::Args)]
pub(crate) struct ForgetArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// Nickname, account, identity or address.
    #[arg(value_name = "NAME")]
    name: String,
}

/// `floodwall incident`
#[derive(Debug, clap::Args)]
pub(crate) struct IncidentArguments {
    #[command(subcommand)]
    pub(crate) command: IncidentCommand,
    /// Print for people or for programs.
    #[arg(long, value_enum, default_value_t, global = true)]
    pub(crate) format: Format,
    /// Folder of the ledger; /var/lib/floodwall otherwise.
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IncidentCommand {
    /// One line an incident, oldest first.
    List,
    /// Write one record to standard output as JSON lines.
    Export {
        /// As listed.
        #[arg(value_name = "INCIDENT")]
        name: String,
    },
}

/// `floodwall demo`
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArguments {
    /// Print for people or for programs.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// No progress bar, even on a terminal.
    #[arg(long)]
    pub(crate) plain: bool,
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
        Command::Analyze(arguments) => analyze::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Suggest(arguments) => suggest::run(&arguments),
        Command::Run(arguments) => live::run::run(&arguments),
        Command::Detach(arguments) => detach::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Catalogue(arguments) => catalogue::run(&arguments),
        Command::Incident(arguments) => incident::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        live @ (Command::Status(_)
        | Command::Bans(_)
        | Command::Ban(_)
        | Command::Unban(_)
        | Command::Kick(_)
        | Command::Allow(_)
        | Command::Explain(_)
        | Command::Who(_)
        | Command::Forget(_)
        | Command::Watch(_)
        | Command::Reload(_)
        | Command::Confirm(_)) => run_live(live),
    }
    .into()
}

/// Commands for a running wall.
fn run_live(command: Command) -> Exit {
    match command {
        Command::Status(connect) => client::ask(&connect, Request::Status, client::status),
        Command::Bans(arguments) => run_bans(&arguments),
        Command::Ban(BanArguments { connect, subject, duration, why, kick, force }) => {
            // Less than a second is none.
            let seconds = duration.map(|duration| duration.as_secs().max(1));
            client::ask(&connect, Request::Ban { subject, seconds, why, kick, force }, client::done)
        }
        Command::Unban(UnbanArguments { connect, subject, .. }) => {
            client::ask(&connect, Request::Unban { subject }, client::done)
        }
        Command::Kick(SubjectArguments { connect, subject }) => {
            client::ask(&connect, Request::Kick { subject }, client::done)
        }
        Command::Allow(AllowArguments { connect, prefix, remove, force }) => {
            client::ask(&connect, Request::Allow { prefix, remove, force }, client::done)
        }
        Command::Explain(SubjectArguments { connect, subject }) => {
            client::ask(&connect, Request::Explain { subject, people: true }, client::explanation)
        }
        Command::Who(WhoArguments { connect, links: true, rows, .. }) => {
            client::ask(&connect, Request::Links { rows }, client::links)
        }
        Command::Who(WhoArguments { connect, person: Some(name), .. }) => {
            client::ask(&connect, Request::Person { name }, client::person)
        }
        Command::Who(WhoArguments { connect, short: true, .. }) => {
            client::ask(&connect, Request::Who, client::who_shortly)
        }
        Command::Who(WhoArguments { connect, .. }) => client::ask(&connect, Request::Who, client::who),
        Command::Forget(ForgetArguments { connect, name }) => {
            client::ask(&connect, Request::Forget { name }, client::done)
        }
        Command::Watch(arguments) => client::watch(&arguments.connect, arguments.bell),
        Command::Reload(connect) => client::ask(&connect, Request::Reload, client::done),
        Command::Confirm(connect) => client::ask(&connect, Request::Confirm, client::done),
        Command::Replay(_)
        | Command::Analyze(_)
        | Command::Check(_)
        | Command::Test(_)
        | Command::Suggest(_)
        | Command::Run(_)
        | Command::Demo(_)
        | Command::Detach(_)
        | Command::Doctor(_)
        | Command::Catalogue(_)
        | Command::Incident(_)
        | Command::Top(_) => Exit::BadInput,
    }
}

fn run_bans(arguments: &BansArguments) -> Exit {
    if arguments.export {
        let usual = || PathBuf::from(DEFAULT_STATE);
        return client::export(&arguments.state.clone().unwrap_or_else(usual));
    }
    match &arguments.import {
        Some(path) => client::import(&arguments.connect, path),
        None => {
            let request = Request::Bans { history: arguments.history, limit: arguments.limit };
            client::ask(&arguments.connect, request, client::bans)
        }
    }
}

/// A day, a time of a day, or an instant.
fn parse_time(written: &str) -> Result<Timestamp, String> {
    let instant = written.parse::<jiff::Timestamp>().or_else(|_| {
        let local: jiff::civil::DateTime = written.parse()?;
        Ok::<_, jiff::Error>(local.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp())
    });
    let instant =
        instant.map_err(|error| format!("{error}; write 2026-11-21T06:00 or 2026-11-21T06:00:00Z"))?;
    let nanos = u64::try_from(instant.as_nanosecond()).map_err(|_negative| "it is before 1970".to_owned())?;
    Ok(Timestamp::from_nanos(nanos))
}

fn parse_flavour(written: &str) -> Result<LogFormat, String> {
    let names = LogFormat::ALL.map(LogFormat::as_str).join(", ");
    LogFormat::from_name(written).ok_or_else(|| format!("unknown server; valid: {names}"))
}

fn parse_span(written: &str) -> Result<Span, String> {
    Span::parse(written).map_err(|error| error.to_string())
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
