//! `floodwall doctor`: can this machine run the wall, in which mode, and why not in a better one. Changes nothing: what
//! is tried is tried in a network namespace of its own that goes with it.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use floodwall_engine::command::Prefix;
use floodwall_kernel::{Clock, Gate, KernelTables, gate};
use floodwall_wire::{
    Address, SourceKey,
    tables::{LIST_NODES_MIN, Source, Status},
};
use serde_json::json;

use crate::{
    cli::{DEFAULT_STATE, DoctorArguments, Format},
    configuration::{self, Configuration},
    guard::Guard,
    live::{addresses, ledger},
    namespace::Namespace,
    output::{Exit, print},
    rules,
};

/// What must be had, by number in `CapEff` (`capability.h`).
const CAPABILITIES: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
/// Drivers that reset the card when an XDP program is attached: a second or two without network.
const RESETTING_DRIVERS: [&str; 6] = ["ixgbe", "i40e", "ice", "igb", "bnxt_en", "mlx4_en"];
/// Oldest kernel the gate is tested on.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// The self-test's guarded port.
const PORT: u16 = 10_333;
/// TeamTalk's HELLO of user 1 (`protocols/teamtalk.md`): kind, user id, a time, protocol version.
const HELLO: [u8; 11] = [1, 1, 0, 0, 9, 9, 9, 9, 1, 0x10, 1];
const WAIT: Duration = Duration::from_millis(400);

/// How one thing is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Good,
    /// The wall runs, but not at its best.
    Fair,
    /// The wall does not run.
    Bad,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Fair => "fair",
            Self::Bad => "bad",
        }
    }
}

/// One thing looked at.
struct Finding {
    what: &'static str,
    state: State,
    text: String,
}

/// Runs the command.
pub(crate) fn run(arguments: &DoctorArguments) -> Exit {
    let mut findings = vec![kernel(), capabilities(), clock()];
    findings.extend(interfaces());
    findings.extend(files(arguments));
    if !arguments.quick {
        findings.push(self_test());
    }
    let worst = if findings.iter().any(|finding| finding.state == State::Bad) {
        State::Bad
    } else if findings.iter().any(|finding| finding.state == State::Fair) {
        State::Fair
    } else {
        State::Good
    };
    let printed = match arguments.format {
        Format::Json => {
            let rows: Vec<_> = findings
                .iter()
                .map(|finding| json!({"what": finding.what, "state": finding.state.as_str(), "text": finding.text}))
                .collect();
            let answer = json!({"schema": "floodwall.doctor/1", "state": worst.as_str(), "findings": rows});
            print(format_args!("{answer:#}\n"))
        }
        Format::Text => {
            let answer = match worst {
                State::Good => "This machine can run the wall.",
                State::Fair => "This machine can run the wall; what is marked fair could be better.",
                State::Bad => "This machine cannot run the wall as it is; what is marked bad must be mended.",
            };
            let lines: String = findings
                .iter()
                .map(|finding| format!("{}, {}: {}\n", finding.what, finding.state.as_str(), finding.text))
                .collect();
            print(format_args!("{answer}\n{lines}"))
        }
    };
    if worst == State::Bad { Exit::Failed } else { printed }
}

fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim().to_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (state, text) = if version < KERNEL_MIN {
        (State::Bad, format!("{release} is older than 6.1, the oldest the gate loads on"))
    } else if version < (6, 6) {
        (
            State::Good,
            format!("{release}; before 6.6 the egress program is a tc filter, adopted all the same"),
        )
    } else {
        (State::Good, release)
    };
    Finding { what: "Kernel", state, text }
}

fn capabilities() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let missing: Vec<&str> = CAPABILITIES
        .iter()
        .filter(|(number, _)| effective >> number & 1 == 0)
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Finding { what: "Rights", state: State::Good, text: "all that is needed".into() };
    }
    let text = format!("{} missing: run it with sudo, or as the service", missing.join(", "));
    Finding { what: "Rights", state: State::Bad, text }
}

/// Deadlines rest on the kernel's clock alone; the ledger's words for people on the system's.
fn clock() -> Finding {
    let year_2024 = floodwall_engine::Timestamp::from_secs(1_704_067_200);
    if crate::clock::utc_now() < year_2024 {
        let text =
            "the system's clock is before 2024: bans hold, but the ledger will show wrong dates".into();
        return Finding { what: "Clock", state: State::Fair, text };
    }
    Finding { what: "Clock", state: State::Good, text: "set".into() }
}

fn interfaces() -> Vec<Finding> {
    let mut findings = Vec::new();
    for interface in addresses::interfaces().iter().filter(|interface| !interface.is_loopback()) {
        let folder = Path::new("/sys/class/net").join(&interface.name);
        let driver = fs::read_link(folder.join("device/driver")).ok();
        let driver = driver.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
        let queues = fs::read_dir(folder.join("queues")).map_or(0, |entries| {
            entries
                .filter_map(Result::ok)
                .filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-"))
                .count()
        });
        let name = driver.as_deref().unwrap_or("none of its own");
        let resets = driver.as_deref().is_some_and(|driver| RESETTING_DRIVERS.contains(&driver));
        let mut text =
            format!("{}: driver {name}, {queues} receive queues, MTU {}", interface.name, mtu(&folder));
        if resets {
            text.push_str("; attaching resets this card: expect a second or two without network");
        }
        let state = if resets { State::Fair } else { State::Good };
        findings.push(Finding { what: "Interface", state, text });
    }
    if findings.is_empty() {
        let text = "none but loopback".to_owned();
        findings.push(Finding { what: "Interface", state: State::Bad, text });
    }
    findings
}

fn mtu(folder: &Path) -> String {
    fs::read_to_string(folder.join("mtu")).map_or_else(|_| "unknown".into(), |mtu| mtu.trim().to_owned())
}

fn files(arguments: &DoctorArguments) -> Vec<Finding> {
    let mut findings = Vec::new();
    let path = arguments.config.clone().unwrap_or_else(|| PathBuf::from(configuration::DEFAULT_PATH));
    let mut configuration = Configuration::default();
    if arguments.config.is_some() || path.exists() {
        findings.push(match configuration::load(&path) {
            Ok(read) => {
                configuration = read;
                Finding { what: "Configuration", state: State::Good, text: path.display().to_string() }
            }
            Err(_) => {
                let text = format!("{0} has mistakes: floodwall check --config {0}", path.display());
                Finding { what: "Configuration", state: State::Bad, text }
            }
        });
    }
    let usual = PathBuf::from(rules::DEFAULT_FOLDER);
    let folder = arguments.rules.clone().or_else(|| usual.is_dir().then_some(usual));
    let guarded = rules::load(folder.as_deref())
        .map_err(|_mistakes| "mistakes: floodwall check names them".to_owned())
        .and_then(|rules| Guard::new(rules, &configuration, &[]));
    findings.push(match guarded {
        Ok(guard) => {
            let count: usize = guard.services.iter().map(|service| service.file.rules.len()).sum();
            let text = format!("{count} rules for {} services", guard.services.len());
            Finding { what: "Rules", state: State::Good, text }
        }
        Err(text) => Finding { what: "Rules", state: State::Bad, text },
    });
    let state = arguments.state.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_STATE));
    findings.push(if ledger::path_in(&state).exists() {
        match ledger::history(&state, None, 1) {
            Ok(_) => Finding { what: "Ledger", state: State::Good, text: state.display().to_string() },
            Err(error) => Finding { what: "Ledger", state: State::Bad, text: format!("{error:#}") },
        }
    } else {
        let text = format!("none yet in {}; it is made at the first start", state.display());
        Finding { what: "Ledger", state: State::Good, text }
    });
    findings
}

/// A synthetic source is banned and must be dropped on TCP and UDP, IPv4 and IPv6.
fn self_test() -> Finding {
    let what = "Self-test";
    match SelfTest::set_up().and_then(|test| test.run()) {
        Ok(text) => Finding { what, state: State::Good, text },
        Err(error) => Finding { what, state: State::Bad, text: format!("{error:#}") },
    }
}

/// Two namespaces, a wire and a gate, all of which go with the value.
struct SelfTest {
    host: Namespace,
    client: Namespace,
    pins: PathBuf,
}

impl SelfTest {
    fn set_up() -> Result<Self> {
        let number = std::process::id();
        let test = Self {
            host: Namespace::add(format!("fwdoctor{number}h"))?,
            client: Namespace::add(format!("fwdoctor{number}c"))?,
            pins: Path::new("/sys/fs/bpf").join(format!("floodwall-doctor-{number}")),
        };
        test.host.wire("fwdoc0", "fwdoc1", &test.client)?;
        for (namespace, device, number) in [(&test.host, "fwdoc0", 1), (&test.client, "fwdoc1", 2)] {
            namespace.add_address(&format!("10.78.0.{number}/24"), device)?;
            namespace.add_address(&format!("fd78::{number}/64"), device)?;
            namespace.switch_on(device)?;
        }
        Ok(test)
    }

    fn run(&self) -> Result<String> {
        let (gate, mode) = self.host.run(|| -> Result<_> {
            let mut gate = Gate::open(&self.pins, LIST_NODES_MIN)?;
            let attachment = gate.attach("fwdoc0", None)?;
            Ok((gate, attachment.mode))
        })??;
        let tables = KernelTables::open(gate.object())?;
        let clock = Clock::calibrate(gate.object())?;
        let configuration = Configuration::default();
        let rules = rules::load(None).ok().context("the shipped rules cannot be read")?;
        let guard = Guard::new(rules, &configuration, &[]).map_err(anyhow::Error::msg)?;
        tables.set_ports(0, &guard.port_block())?;
        let learning_until = u64::MAX;
        tables.set_status(&Status { tick: clock.tick(), seed: 1, learning_until, ..Status::default() })?;
        for (server, client) in [("10.78.0.1", "10.78.0.2"), ("fd78::1", "fd78::2")] {
            let (server, client): (IpAddr, IpAddr) = (server.parse()?, client.parse()?);
            tables.insert_local(Address::from(server))?;
            self.check(server, client, true).with_context(|| format!("before a ban of {client}"))?;
            let until = Source { banned_until: u64::MAX, ..Source::default() };
            tables.set_source(SourceKey::of(Prefix::network64(Address::from(client)).address()), &until)?;
            if client.is_ipv4() {
                tables.set_source(SourceKey::of(Address::from(client)), &until)?;
            }
            self.check(server, client, false).with_context(|| format!("after a ban of {client}"))?;
        }
        drop(gate.settle(&["fwdoc0".to_owned()])?);
        Ok(format!(
            "a banned source is dropped, TCP and UDP, IPv4 and IPv6; XDP {} on a virtual wire",
            mode.as_str()
        ))
    }

    /// Whether TCP and UDP come through as they should.
    fn check(&self, server: IpAddr, client: IpAddr, wanted: bool) -> Result<()> {
        let (listener, socket) = self.host.run(|| -> Result<_> {
            Ok((TcpListener::bind((server, PORT))?, UdpSocket::bind((server, PORT))?))
        })??;
        socket.set_read_timeout(Some(WAIT))?;
        let connected = self.client.run(|| {
            let speaker = UdpSocket::bind((client, 0))?;
            speaker.send_to(&HELLO, (server, PORT))?;
            TcpStream::connect_timeout(&SocketAddr::new(server, PORT), WAIT)
        })?;
        drop(listener);
        let tcp = match connected {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::TimedOut => false,
            Err(error) => return Err(error).context("the test's own wire failed"),
        };
        if tcp != wanted {
            bail!("TCP {}", if tcp { "came through" } else { "did not come through" });
        }
        let udp = socket.recv(&mut [0; 64]).is_ok();
        if udp != wanted {
            bail!("UDP {}", if udp { "came through" } else { "did not come through" });
        }
        Ok(())
    }
}

impl Drop for SelfTest {
    fn drop(&mut self) {
        if let Err(error) = gate::detach(&self.pins) {
            crate::output::complain(format_args!("the self-test left something behind: {error:#}"));
        }
    }
}
