//! What answering a SYN with a SYN cookie costs the kernel, and what it costs a program that does so before the kernel has
//! seen it (`cookies.bpf.c`). Both make the same cookie, and both are asked to let somebody in by it before they are
//! measured.
//!
//! SYNs go over a wire between two namespaces. Sender and receiver share a processor: a frame is received where it was
//! sent, before the next. So what a SYN takes longer than one that is dropped at once is what its answer costs.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::AsFd,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use aya::{
    Ebpf,
    programs::{Xdp, XdpMode, xdp::XdpLinkId},
};
use floodwall_tests::{
    bpf,
    live::{Lab, SERVER, SERVER_V6, connect_from, now},
};

use crate::{
    crowd::PORT,
    load::wall_address,
    paths::spread,
    strangers::{claim, cookies, make_ways, templates},
};

const CLANG: &str = "clang-22";
const SOURCE: &str = include_str!("cookies.bpf.c");
/// SYNs of one measurement.
const SYNS: u64 = 64_000;
const REPEAT: u32 = 200_000;
const PASS: u32 = 2;
const TX: u32 = 3;

/// Who answers.
#[derive(Clone, Copy, PartialEq)]
enum Answering {
    /// Nobody: every SYN is dropped in XDP.
    Nobody,
    Program,
    Kernel,
}

const ALL: [(Answering, &str); 3] = [
    (Answering::Nobody, "nobody: dropped in XDP"),
    (Answering::Program, "a program in XDP (bpf_tcp_raw_gen_syncookie_*)"),
    (Answering::Kernel, "the kernel"),
];

/// Measures and prints.
pub(crate) fn run(rounds: usize, require_peers: bool) -> Result<()> {
    let object = match compile() {
        Ok(object) => object,
        Err(error) if require_peers => return Err(error),
        Err(error) => {
            say(&format!("SKIPPED SYN cookies: {error:#}"));
            return Ok(());
        }
    };
    let lab = Lab::open("bench cookies").context("this takes root")?;
    make_ways(&lab)?;
    name_neighbours(&lab)?;
    let listener = lab.on_host(|| -> Result<_> {
        // Every SYN is answered with a cookie.
        fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2")?;
        Ok(TcpListener::bind(("::", PORT))?)
    })?;
    thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(drop));
    let mut wall = Ebpf::load(&object).context("failed to load the program that answers SYNs")?;
    let mut out = Ebpf::load(&object)?;
    check(&lab, &mut wall, &mut out)?;
    let by_itself = by_itself(&mut wall)?;
    let mut runs = ALL.map(|_| Vec::new());
    let mut answered = ALL.map(|_| 0_u64);
    // Answers need not be taken in: on this side they end at once.
    let sink = attach(&lab, Side::Clients, &mut out, "drop")?;
    for _ in 0..rounds {
        for ((answering, _), (runs, answered)) in ALL.iter().zip(runs.iter_mut().zip(&mut answered)) {
            let program = match answering {
                Answering::Nobody => Some(attach(&lab, Side::Host, &mut wall, "drop")?),
                Answering::Program => Some(attach(&lab, Side::Host, &mut wall, "cookies")?),
                Answering::Kernel => None,
            };
            let before = received(&lab)?;
            let mac = lab.on_host(wall_address)?;
            runs.push(lab.among_clients(|| send(&mac))?);
            *answered += received(&lab)? - before;
            if let Some(id) = program {
                let name = if *answering == Answering::Nobody { "drop" } else { "cookies" };
                detach(&lab, Side::Host, &mut wall, name, id)?;
            }
        }
    }
    detach(&lab, Side::Clients, &mut out, "drop", sink)?;
    report(rounds, &runs, answered, by_itself)
}

fn report(rounds: usize, runs: &[Vec<f64>; 3], answered: [u64; 3], [v4, v6]: [u32; 2]) -> Result<()> {
    let [nobody, program, kernel] = runs.each_ref().map(|runs| runs.iter().copied().fold(f64::NAN, f64::min));
    // On the wire the program's answer may be lost in the noise; it costs no less than what the program takes by itself.
    let (program, kernel) = ((program - nobody).max(f64::from(v4.max(v6))), kernel - nobody);
    say(&format!(
        "{:.2} x  SYN answered with a cookie in XDP against the kernel's ({program:.0} ns to {kernel:.0}, beyond one that is dropped)",
        program / kernel
    ));
    say(&format!(
        "ns per SYN sent and received over a wire, median of volleys in {rounds} rounds of {SYNS}, IPv4 and IPv6 in turns:"
    ));
    for (((answering, who), runs), answered) in ALL.iter().zip(runs).zip(answered) {
        let share = 100.0 * answered as f64 / (SYNS * rounds as u64) as f64;
        say(&format!("{:>16}  {who}; {share:.1} % answered", spread(runs, 0)));
        ensure!(
            *answering == Answering::Nobody || share > 90.0,
            "SYNs went unanswered: nothing was measured"
        );
    }
    say(&format!(
        "{v4} ns IPv4, {v6} ns IPv6  the program by itself (BPF_PROG_TEST_RUN), beyond one that does nothing"
    ));
    Ok(())
}

fn compile() -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let (source, object) = (folder.path().join("cookies.bpf.c"), folder.path().join("cookies.o"));
    fs::write(&source, SOURCE)?;
    let mut clang = Command::new(CLANG);
    clang.args(["-O2", "-g", "-target", "bpf", "-c"]).arg(&source).arg("-o").arg(&object);
    let output =
        clang.output().with_context(|| format!("{CLANG} cannot be run (Debian's package clang-22)"))?;
    ensure!(output.status.success(), "{CLANG}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(fs::read(object)?)
}

/// Lets somebody in by a cookie of the kernel's, and then by one of the program's, over IPv4 and IPv6.
fn check(lab: &Lab, wall: &mut Ebpf, out: &mut Ebpf) -> Result<()> {
    let connect = || {
        lab.among_clients(|| -> Result<()> {
            for (client, server) in [("10.77.0.5", SERVER), ("fd77::5", SERVER_V6)] {
                let server = SocketAddr::new(server.parse::<IpAddr>()?, PORT);
                connect_from(client.parse()?, server).with_context(|| format!("{client} was not let in"))?;
            }
            Ok(())
        })
    };
    let begun = cookies(lab)?;
    connect()?;
    let by_kernel = cookies(lab)?;
    ensure!([by_kernel[0] - begun[0], by_kernel[1] - begun[1]] == [2, 2], "the kernel made no cookies");
    let ours = attach(lab, Side::Host, wall, "cookies")?;
    // A wire takes in what a program sends back only where there is a program too.
    let theirs = attach(lab, Side::Clients, out, "pass")?;
    connect().context("by a cookie of the program's")?;
    let by_program = cookies(lab)?;
    let new = [by_program[0] - by_kernel[0], by_program[1] - by_kernel[1]];
    ensure!(new == [0, 2], "{new:?} cookies were made and taken by the kernel, instead of none and two");
    detach(lab, Side::Host, wall, "cookies", ours)?;
    detach(lab, Side::Clients, out, "pass", theirs)
}

/// ns of one run over a SYN, IPv4 and IPv6, beyond one of a program that does nothing. The program writes into the frame, and a
/// run begins with what the one before has left: so each is a call of its own.
fn by_itself(wall: &mut Ebpf) -> Result<[u32; 2]> {
    let [four, six] = syns(&[2; 6]);
    let nothing = alone(wall, "pass", &four, PASS)?;
    let beyond = |frame: &[u8], wall: &mut Ebpf| -> Result<u32> {
        Ok(alone(wall, "cookies", frame, TX)?.saturating_sub(nothing))
    };
    Ok([beyond(&four, wall)?, beyond(&six, wall)?])
}

/// ns of a run of a program, the least mean of many.
fn alone(wall: &mut Ebpf, name: &str, frame: &[u8], action: u32) -> Result<u32> {
    const AT_ONCE: u32 = 1_000;
    let program = xdp(wall, name)?.fd()?.try_clone()?;
    let mut least = u32::MAX;
    for _ in 0..REPEAT / AT_ONCE {
        let mut total = 0_u64;
        for _ in 0..AT_ONCE {
            let run = bpf::run(program.as_fd(), frame, 1)?;
            ensure!(run.action == action, "a SYN ended with {}", run.action);
            total += u64::from(run.nanoseconds);
        }
        least = least.min(u32::try_from(total / u64::from(AT_ONCE))?);
    }
    Ok(least)
}

/// Sends SYNs, each of a source of its own; answers ns per SYN in the middle one of all volleys. A volley is less than a wire
/// holds, and there is a pause before the next: what is late is not lost, and what was interrupted does not count.
fn send(mac: &[u8]) -> Result<f64> {
    const VOLLEY: u64 = 64;
    const PAUSE: Duration = Duration::from_micros(300);
    let mut wire = pcap::Capture::from_device("out0")?.open().context("cannot send at out0")?;
    let mut syns = syns(mac);
    let mut volleys = Vec::new();
    for volley in 0..SYNS / VOLLEY {
        let begun = now();
        for number in volley * VOLLEY..(volley + 1) * VOLLEY {
            // Of eight numbers the first two are SYNs.
            let number = number / 2 * 8 + number % 2;
            let frame = &mut syns[(number % 8) as usize];
            claim(frame, number);
            wire.sendpacket(frame.as_slice())?;
        }
        volleys.push(begun.elapsed().as_secs_f64() * 1e9 / VOLLEY as f64);
        thread::sleep(PAUSE);
    }
    volleys.sort_by(f64::total_cmp);
    volleys.get(volleys.len() / 2).copied().context("no volleys")
}

/// SYNs over IPv4 and IPv6 with a header as long as those of usual clients have. Of options they name the segment size alone: then the
/// kernel's answer says no more than the program's.
fn syns(mac: &[u8]) -> [Vec<u8>; 2] {
    const OPTIONS: [u8; 20] = [2, 4, 0x05, 0xb4, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
    let [mut four, mut six, ..] = templates(mac);
    for (frame, header, length) in [(&mut four, 34, 16), (&mut six, 54, 18)] {
        frame.truncate(header + 20);
        frame.extend(OPTIONS);
        frame[header + 12] = 10 << 4;
        let bytes = u16::from_be_bytes([frame[length], frame[length + 1]]) + OPTIONS.len() as u16;
        frame[length..length + 2].copy_from_slice(&bytes.to_be_bytes());
    }
    [four, six]
}

/// What is received on one side and meant for the other would be asked for by address, and nobody answers there.
fn name_neighbours(lab: &Lab) -> Result<()> {
    let output = lab.among_clients(|| Command::new("ip").args(["-br", "link", "show", "out0"]).output())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mac = text.split_whitespace().nth(2).context("no address of the interface")?;
    for gateway in ["10.77.0.2", "fd77::2"] {
        let arguments = ["neigh", "replace", gateway, "lladdr", mac, "dev", "wall0"];
        let status = lab.on_host(|| Command::new("ip").args(arguments).status())?;
        ensure!(status.success(), "{gateway} cannot be made a neighbour");
    }
    Ok(())
}

/// Frames that have come in at the clients.
fn received(lab: &Lab) -> Result<u64> {
    let text = lab.among_clients(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("out0:")).context("no out0")?;
    Ok(line.split_whitespace().nth(1).context("too few columns")?.parse()?)
}

#[derive(Clone, Copy)]
enum Side {
    Host,
    Clients,
}

fn xdp<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program: &mut Xdp =
        object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
    if program.fd().is_err() {
        program.load().with_context(|| format!("failed to load {name}"))?;
    }
    Ok(program)
}

fn attach(lab: &Lab, side: Side, object: &mut Ebpf, name: &str) -> Result<XdpLinkId> {
    let program = xdp(object, name)?;
    match side {
        Side::Host => lab.on_host(|| program.attach("wall0", XdpMode::Driver)),
        Side::Clients => lab.among_clients(|| program.attach("out0", XdpMode::Driver)),
    }
    .with_context(|| format!("failed to attach {name}"))
}

fn detach(lab: &Lab, side: Side, object: &mut Ebpf, name: &str, id: XdpLinkId) -> Result<()> {
    let program = xdp(object, name)?;
    let detached = match side {
        Side::Host => lab.on_host(|| program.detach(id)),
        Side::Clients => lab.among_clients(|| program.detach(id)),
    };
    if let Err(error) = detached {
        bail!("failed to detach {name}: {error}");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the table is the product")]
fn say(line: &str) {
    println!("{line}");
}
