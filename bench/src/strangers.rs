//! Ten million packets, each from a source that is not there and comes once: what the gate's maps and its controller take,
//! whether a regular loses a word, and how long somebody new takes to come in meanwhile.
//!
//! An eighth each are SYNs over IPv4 and over IPv6, the rest is voice over both, with right checksums. The guarded host has a way back to all
//! of them, as on the Internet: what the kernel answers goes out over the wire.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use floodwall_tests::{
    live::{Lab, SERVER, SERVER_V6, connect_from, now},
    packets::{self, voice},
};
use floodwall_wire::frame::tcp_flags;

use crate::{
    crowd::{NETWORKS, PORT, REGULARS, Regular, Server, log_in},
    load::{start_wall, wall_address},
};

/// Packets per second that are to be sent; the last is more than this machine can.
const OFFERED: [u64; 4] = [0, 50_000, 100_000, 400_000];
/// How long the slower ones go on at most; the last goes on until all have been sent.
const SECONDS: u64 = 20;
const MIB: f64 = (1 << 20) as f64;
/// What neither the gate's maps nor the controller may exceed.
const BYTES_MAX: f64 = 64.0 * MIB;
/// Newcomers at a time, and how long each of these waits for the next.
const DOORS: u32 = 4;
const NEXT_NEWCOMER: Duration = Duration::from_millis(100);
/// Whoever is not in by then has given up.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(10);

/// Whoever is not known by then is measured as they are, which is said.
const KNOWN_PATIENCE: Duration = Duration::from_secs(3);

/// What happened at one rate.
struct Phase {
    sent: u64,
    seconds: f64,
    /// Milliseconds until they were in, in order.
    entered: Vec<f64>,
    given_up: usize,
    said: u64,
    heard: u64,
    cookies: [u64; 2],
    /// Frames, of whomever, for which the wire had no room: this machine could not take them from it in time.
    overrun: u64,
}

impl Phase {
    fn report(&self) {
        let Self { sent, seconds, entered, given_up, said, heard, cookies: [made, taken], overrun } = self;
        let last = entered.len().saturating_sub(1) as f64;
        let at = |share: f64| entered.get((last * share) as usize).copied().unwrap_or(f64::NAN);
        say(&format!(
            "| {:.0} | {sent} | {} | {given_up} | {:.1} / {:.1} / {:.1} | {said} / {} | {overrun} | {made} / {taken} |",
            *sent as f64 / seconds,
            entered.len(),
            at(0.5),
            at(0.99),
            at(1.0),
            said.saturating_sub(*heard),
        ));
    }
}

/// Measures and prints.
pub(crate) fn run(claimed: u64, mode: &str) -> Result<()> {
    let mut lab = Lab::open("bench strangers").context("this takes root")?;
    let server = Server::start(&lab)?;
    make_ways(&lab)?;
    start_wall(&mut lab, mode)?;
    let resident_before = resident(&lab)?;
    say(
        "| offered, packets/s | claimed sources | newcomers let in | gave up | ms to enter, median / 99 % / worst | voice said / lost | frames the wire lost | SYN cookies sent / taken |",
    );
    say("|---|---|---|---|---|---|---|---|");
    let (mut numbers, newcomers) = (0..claimed, AtomicU32::new(0));
    let mut phases = Vec::new();
    for offered in OFFERED {
        let is_last = OFFERED.last() == Some(&offered);
        let until = if is_last { Duration::MAX } else { Duration::from_secs(SECONDS) };
        let phase = measure(&lab, &server, &mut numbers, (offered, until), &newcomers);
        let phase = phase.with_context(|| format!("at {offered} packets per second; {}", lab.read_log()))?;
        phase.report();
        phases.push(phase);
    }
    report(&lab, &phases, resident_before)
}

fn report(lab: &Lab, phases: &[Phase], resident_before: f64) -> Result<()> {
    let (maps, resident_after) = (memory_of_maps(lab)?, resident(lab)?);
    let total: u64 = phases.iter().map(|phase| phase.sent).sum();
    let word = |reached: bool| if reached { "reached" } else { "MISSED" };
    say(&format!("{total} packets, each of a source of its own."));
    say(&format!("{:.1} MiB  kernel maps (at most 64: {})", maps / MIB, word(maps <= BYTES_MAX)));
    say(&format!(
        "{:.1} MiB  resident memory of the controller, {:.1} before (at most 64: {})",
        resident_after / MIB,
        resident_before / MIB,
        word(resident_after <= BYTES_MAX)
    ));
    let banned = lab.banned();
    say(&format!("{} bans made (none wanted: {})", banned.len(), word(banned.is_empty())));
    let status = lab.answer(&["status"]);
    say(&format!("{} logged in, {} addresses known", status["present"], status["known"]));
    for row in status["dropping"].as_array().into_iter().flatten() {
        say(&format!("dropped by the gate: {}, {}", row["packets"], row["reason"]));
    }
    for row in status["losses"].as_array().into_iter().flatten() {
        say(&format!("lost: {}, {}", row["count"], row["what"]));
    }
    for row in status["tables"].as_array().into_iter().flatten() {
        say(&format!("table {}: {} of {} entries", row["table"], row["entries"], row["capacity"]));
    }
    Ok(())
}

/// Gives the host a way back to everybody, and the clients addresses enough for newcomers.
pub(crate) fn make_ways(lab: &Lab) -> Result<()> {
    let ip = |arguments: &str| -> Result<()> {
        let output = Command::new("ip").args(arguments.split(' ')).output()?;
        ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    lab.on_host(|| {
        ip("route add default via 10.77.0.2 dev wall0")?;
        ip("-6 route add default via fd77::2 dev wall0")
    })?;
    lab.among_clients(|| {
        ip("route add local 10.96.0.0/11 dev lo")?;
        ip(&format!("route add local {NETWORKS} dev lo"))
    })
}

/// Each in a network of its own.
const fn newcomer(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a60_0000 | (number & 0x1fff) << 8 | ((1 + (number >> 13)) & 0x7f))
}

fn measure(
    lab: &Lab,
    server: &Server,
    numbers: &mut (impl Iterator<Item = u64> + Send),
    (offered, until): (u64, Duration),
    newcomers: &AtomicU32,
) -> Result<Phase> {
    let regulars: Vec<_> =
        (0..REGULARS).map(|number| Regular::arrive_from_afar(lab, number)).collect::<Result<_>>()?;
    let begun = now();
    let known = loop {
        let known = lab.answer(&["status"])["known"].as_u64().unwrap_or(0);
        if known >= u64::from(REGULARS) || begun.elapsed() > KNOWN_PATIENCE {
            break known;
        }
        thread::sleep(Duration::from_millis(50));
    };
    if known < u64::from(REGULARS) {
        say(&format!("{known} addresses are known, and there are {REGULARS} regulars: not all of them are"));
    }
    let mac = lab.on_host(wall_address)?;
    let over = AtomicBool::new(false);
    let overrun_before = overrun(lab)?;
    let (cookies_before, heard_before) = (cookies(lab)?, server.voice.load(Ordering::Relaxed));
    let begun = now();
    thread::scope(|scope| -> Result<Phase> {
        let talkers: Vec<_> =
            regulars.into_iter().map(|regular| scope.spawn(|| regular.talk_until(&over))).collect();
        let doors: Vec<_> =
            (0..DOORS).map(|_| scope.spawn(|| lab.among_clients(|| come_in(newcomers, &over)))).collect();
        let sent = if offered == 0 {
            thread::sleep(Duration::from_secs(SECONDS));
            Ok(0)
        } else {
            lab.among_clients(|| flood(&mac, numbers, offered, until))
        };
        let seconds = begun.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        let mut said = 0;
        for talker in talkers {
            said += talker.join().ok().context("a regular failed")??;
        }
        let (mut entered, mut given_up) = (Vec::new(), 0);
        for door in doors {
            let (times, gave_up) = door.join().ok().context("whoever came in failed")?;
            entered.extend(times);
            given_up += gave_up;
        }
        entered.sort_by(f64::total_cmp);
        ensure!(!entered.is_empty(), "nobody came in");
        // What is on its way still arrives.
        thread::sleep(Duration::from_millis(300));
        let heard = server.voice.load(Ordering::Relaxed) - heard_before;
        let [made, taken] = cookies(lab)?;
        let cookies = [made - cookies_before[0], taken - cookies_before[1]];
        let overrun = overrun(lab)? - overrun_before;
        Ok(Phase { overrun, sent: sent?, seconds, entered, given_up, said, heard, cookies })
    })
}

/// One newcomer after the other, none of whom has been here before; answers how many milliseconds each took, and how many
/// gave up.
fn come_in(newcomers: &AtomicU32, over: &AtomicBool) -> (Vec<f64>, usize) {
    let (mut times, mut given_up) = (Vec::new(), 0);
    let server = format!("{SERVER}:{PORT}").parse().expect("an address");
    while !over.load(Ordering::Relaxed) {
        let address = newcomer(newcomers.fetch_add(1, Ordering::Relaxed));
        let begun = now();
        // A client that gets no answer tries again.
        let mut is_in = false;
        while !is_in && begun.elapsed() < NEWCOMER_PATIENCE {
            let stream = connect_from(IpAddr::V4(address), server).map_err(anyhow::Error::from);
            is_in = stream.and_then(|stream| log_in(&stream, 200)).is_ok();
        }
        if is_in {
            times.push(1e3 * begun.elapsed().as_secs_f64());
        } else {
            given_up += 1;
        }
        thread::sleep(NEXT_NEWCOMER);
    }
    (times, given_up)
}

/// SYN cookies that the guarded host's kernel has made, and that came back.
pub(crate) fn cookies(lab: &Lab) -> Result<[u64; 2]> {
    let text = lab.on_host(|| fs::read_to_string("/proc/thread-self/net/netstat"))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next().context("no TcpExt")?, lines.next().context("no TcpExt")?);
    let all: BTreeMap<&str, &str> = names.split_whitespace().zip(values.split_whitespace()).collect();
    let value =
        |name: &str| -> Result<u64> { Ok(all.get(name).with_context(|| format!("no {name}"))?.parse()?) };
    Ok([value("SyncookiesSent")?, value("SyncookiesRecv")?])
}

/// Frames to the guarded host for which the wire had no room.
fn overrun(lab: &Lab) -> Result<u64> {
    let text = lab.among_clients(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("out0:")).context("no out0")?;
    // Eight columns of what came in, then bytes, packets, errors and drops of what went out.
    Ok(line.split_whitespace().nth(11).context("too few columns")?.parse()?)
}

/// Sends, each second so many and no longer than `until`; answers how many.
fn flood(
    mac: &[u8],
    numbers: &mut impl Iterator<Item = u64>,
    per_second: u64,
    until: Duration,
) -> Result<u64> {
    const AT_ONCE: u64 = 256;
    let mut wire = pcap::Capture::from_device("out0")?.open().context("cannot send at out0")?;
    let mut templates = templates(mac);
    let begun = now();
    let (mut sent, mut waiting) = (0, None);
    while begun.elapsed() < until {
        let due = (begun.elapsed().as_secs_f64() * per_second as f64) as u64;
        if sent >= due {
            thread::sleep(Duration::from_micros(500));
            continue;
        }
        for _ in 0..(due - sent).min(AT_ONCE) {
            let Some(number) = waiting.take().or_else(|| numbers.next()) else { return Ok(sent) };
            let template = &mut templates[kind(number)];
            claim(template, number);
            match wire.sendpacket(template.as_slice()) {
                Ok(()) => sent += 1,
                // The receiver's ring is full. What is not taken was not sent.
                Err(pcap::Error::PcapError(why)) if why.contains("No buffer space") => {
                    waiting = Some(number);
                    thread::sleep(Duration::from_micros(50));
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(sent)
}

/// Place among the templates of the packet with this number.
const fn kind(number: u64) -> usize {
    match number % 8 {
        kind @ (0 | 1) => kind as usize,
        other => 2 + (other % 2) as usize,
    }
}

/// SYN and voice, IPv4 and IPv6.
pub(crate) fn templates(mac: &[u8]) -> [Vec<u8>; 4] {
    let four = packets::Path::new("192.0.2.1", SERVER, PORT);
    let six = packets::Path::new("2001:db8::1", SERVER_V6, PORT);
    let frames = [
        packets::tcp(four, tcp_flags::SYN, b""),
        packets::tcp(six, tcp_flags::SYN, b""),
        packets::udp(four, &voice(4_000, 100)),
        packets::udp(six, &voice(4_000, 100)),
    ];
    frames.map(|mut frame| {
        frame.splice(..6, mac.iter().copied());
        frame
    })
}

/// Gives a frame the source with this number, and the checksums that go with it.
pub(crate) fn claim(frame: &mut [u8], number: u64) {
    // Odd factors: no source comes twice.
    let mixed = (number as u32).wrapping_mul(0x9e37_79b1);
    let (addresses, segment) = if frame[12..14] == [0x08, 0x00] {
        // Neither the clients' networks nor one that no host can have.
        frame[26..30].copy_from_slice(&(0x2d00_0000 + mixed % 0x4000_0000).to_be_bytes());
        frame[24..26].fill(0);
        let header = checksum(0, &frame[14..34]);
        frame[24..26].copy_from_slice(&header.to_be_bytes());
        (26..34, 34)
    } else {
        frame[22..28].copy_from_slice(&[
            0x2a,
            0,
            (mixed >> 24) as u8,
            (mixed >> 16) as u8,
            (mixed >> 8) as u8,
            mixed as u8,
        ]);
        (22..54, 54)
    };
    let is_tcp = kind(number) < 2;
    let at = segment + if is_tcp { 16 } else { 6 };
    frame[at..at + 2].fill(0);
    let bytes = (frame.len() - segment) as u32;
    let pseudo = bytes + u32::from(if is_tcp { packets::TCP } else { packets::UDP });
    let sum = !checksum(pseudo, &frame[addresses]);
    let sum = checksum(u32::from(sum), &frame[segment..]);
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071) of some bytes and a sum of others.
fn checksum(sum: u32, bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let sum = bytes.chunks(2).map(word).sum::<u32>() + sum;
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// Resident memory of the daemon, bytes.
fn resident(lab: &Lab) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", lab.daemon().pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0)
}

/// What all maps take that the daemon has open, as the kernel says, bytes.
fn memory_of_maps(lab: &Lab) -> Result<f64> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", lab.daemon().pid()))? {
        // Descriptors come and go.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let value =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(map), Some(bytes)) = (value("map_id:"), value("memlock:")) {
            maps.insert(map, bytes);
        }
    }
    ensure!(maps.len() > 10, "the daemon has {} maps open", maps.len());
    Ok(maps.values().sum::<u64>() as f64)
}

#[expect(clippy::print_stdout, reason = "the table is the product")]
fn say(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn checksums_are_right_and_no_source_comes_twice() {
        let mut templates = templates(&[2; 6]);
        let mut sources = HashSet::new();
        for number in 0..40_000_u64 {
            let frame = &mut templates[kind(number)];
            claim(frame, number);
            let (addresses, segment, next) =
                if frame[12..14] == [8, 0] { (26..34, 34, frame[23]) } else { (22..54, 54, frame[20]) };
            assert!(sources.insert(frame[addresses.start..][..addresses.len() / 2].to_vec()), "{number}");
            // The sum over all, its own checksum included, is all ones.
            let pseudo = (frame.len() - segment) as u32 + u32::from(next);
            let sum = !checksum(pseudo, &frame[addresses]);
            assert_eq!(checksum(u32::from(sum), &frame[segment..]), 0, "{number}");
        }
    }
}
