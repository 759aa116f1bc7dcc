//! A flood over a wire while twenty regulars talk: how much of their voice is lost and how long a login takes, by how much is
//! thrown at the server. Two namespaces, real sockets, real frames (AF_PACKET), bounded in time.
//!
//! Sender and receiver share this machine's processors, so what is offered is bounded by them; it is printed as sent.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use floodwall_tests::{
    live::{Lab, SERVER, now},
    packets::{self, voice},
};

use crate::{
    crowd::{LOGIN_PATIENCE, PORT, REGULARS, Regular, Server, log_in},
    paths::spread,
};

/// What is to be sent, packets per second.
const OFFERED: [u32; 6] = [0, 25_000, 50_000, 100_000, 200_000, 400_000];
/// Different sources of the flood.
const SOURCES: u32 = 65_536;
/// The gate learns for twice the time-out that the rules name.
const USER_TIMEOUT: &str = "4s";

/// What an expert writes who knows the port and not the protocol: each source has a rate, datagrams and SYNs apart.
const EXPERT: &str = "table inet expert {\n\
    set banned { type ipv4_addr; flags timeout; size 131072; }\n\
    set talkers { type ipv4_addr; flags dynamic,timeout; timeout 1m; size 131072; }\n\
    set callers { type ipv4_addr; flags dynamic,timeout; timeout 1m; size 131072; }\n\
    chain arriving { type filter hook prerouting priority raw; policy accept;\n\
    ip saddr @banned drop\n\
    udp dport 10333 update @talkers { ip saddr limit rate over 100/second burst 200 packets } drop\n\
    tcp dport 10333 tcp flags syn / fin,syn,rst,ack update @callers { ip saddr limit rate over 10/second burst 20 packets } drop\n\
    }\n}\n";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Filter {
    Nothing,
    Nftables,
    Generic,
    Native,
}

impl Filter {
    const ALL: [Self; 4] = [Self::Nothing, Self::Nftables, Self::Generic, Self::Native];

    const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no filter",
            Self::Nftables => "nftables, a rate per source",
            Self::Generic => "Floodwall generic",
            Self::Native => "Floodwall native",
        }
    }
}

/// What was measured at one rate, or what was in the middle of several rounds.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// Packets per second that were sent.
    offered: f64,
    /// Of what the regulars said, percent.
    lost: f64,
    /// Milliseconds, median and the worst.
    login: (f64, f64),
    failed_logins: usize,
    /// Packets of the flood per second that reached the server's socket.
    reached: f64,
}

/// All rounds of one filter: by round, by rate.
type Curve = Vec<Vec<Point>>;

/// Measures, prints and plots.
pub(crate) fn run(seconds: u64, rounds: usize, plots: Option<&Path>) -> Result<()> {
    let mut curves: Vec<(Filter, Curve)> =
        Filter::ALL.into_iter().map(|filter| (filter, Vec::new())).collect();
    for _ in 0..rounds {
        for (filter, curve) in &mut curves {
            let points = measure(*filter, Duration::from_secs(seconds));
            curve.push(points.with_context(|| format!("failed to measure {}", filter.name()))?);
        }
    }
    say(&format!("Least to most of {rounds} rounds:"));
    say(
        "| filter | offered, packets/s | voice lost, % | login, ms: median | worst | logins failed | flood at the server, packets/s |",
    );
    say("|---|---|---|---|---|---|---|");
    for (filter, curve) in &curves {
        for rate in 0..OFFERED.len() {
            let of = |value: fn(&Point) -> f64| -> Vec<f64> {
                curve.iter().filter_map(|round| round.get(rate)).map(value).collect()
            };
            say(&format!(
                "| {} | {} | {} | {} | {} | {} | {} |",
                filter.name(),
                spread(&of(|point| point.offered), 0),
                spread(&of(|point| point.lost), 2),
                spread(&of(|point| point.login.0), 1),
                spread(&of(|point| point.login.1), 1),
                spread(&of(|point| point.failed_logins as f64), 0),
                spread(&of(|point| point.reached), 0),
            ));
        }
    }
    if let Some(folder) = plots {
        let middle: Vec<(Filter, Vec<Point>)> =
            curves.iter().map(|(filter, curve)| (*filter, middle_of(curve))).collect();
        fs::create_dir_all(folder)?;
        fs::write(folder.join("load-voice-loss.svg"), plot("Voice lost, %", &middle, |point| point.lost))?;
        fs::write(folder.join("load-login.svg"), plot("Median login, ms", &middle, |point| point.login.0))?;
    }
    Ok(())
}

/// At each rate what lies in the middle of all rounds.
fn middle_of(curve: &Curve) -> Vec<Point> {
    let middle = |rate: usize, value: fn(&Point) -> f64| {
        let mut all: Vec<f64> = curve.iter().filter_map(|round| round.get(rate)).map(value).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let point = |rate| Point {
        offered: middle(rate, |point| point.offered),
        lost: middle(rate, |point| point.lost),
        login: (middle(rate, |point| point.login.0), middle(rate, |point| point.login.1)),
        failed_logins: 0,
        reached: middle(rate, |point| point.reached),
    };
    (0..OFFERED.len()).map(point).collect()
}

fn measure(filter: Filter, duration: Duration) -> Result<Vec<Point>> {
    let mut lab = Lab::open("bench load").context("this takes root")?;
    let server = Server::start(&lab)?;
    set_up(&mut lab, filter)?;
    let mut points = Vec::new();
    for offered in OFFERED {
        let point = measure_one(&lab, &server, offered, duration);
        points.push(point.with_context(|| format!("at {offered} packets per second; {}", lab.read_log()))?);
    }
    server.stop.store(true, Ordering::Relaxed);
    Ok(points)
}

/// Starts the wall with the shipped rules but for a shorter time-out, and waits until it has learnt: while the gate learns
/// it drops nothing for lack of a session, which is not what is measured.
pub(crate) fn start_wall(lab: &mut Lab, mode: &str) -> Result<()> {
    let rules = lab.folder().join("rules");
    fs::create_dir(&rules)?;
    let shipped = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/teamtalk.toml"))?;
    let timeout = format!("user-timeout = \"{USER_TIMEOUT}\"");
    let shortened = shipped.replace("user-timeout = \"60s\"", &timeout);
    ensure!(shortened.contains(&timeout), "the shipped rules name another time-out");
    fs::write(rules.join("teamtalk.toml"), shortened)?;
    let folder = rules.to_str().context("a folder's name")?;
    lab.start_daemon(&["--service", "teamtalk=10333", "--mode", mode, "--rules", folder]);
    while lab.answer(&["status"])["learning_seconds"] != 0 {
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn set_up(lab: &mut Lab, filter: Filter) -> Result<()> {
    let mode = match filter {
        Filter::Nothing => return Ok(()),
        Filter::Nftables => {
            let script = lab.folder().join("expert.nft");
            fs::write(&script, EXPERT)?;
            let output = lab.on_host(|| Command::new("nft").arg("-f").arg(&script).output())?;
            ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
            return Ok(());
        }
        Filter::Generic => "generic",
        Filter::Native => "native",
    };
    start_wall(lab, mode)
}

fn measure_one(lab: &Lab, server: &Server, offered: u32, duration: Duration) -> Result<Point> {
    let frames = lab.on_host(frames)?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Result<Point> {
        let regulars: Vec<_> =
            (0..REGULARS).map(|number| Regular::arrive(lab, number)).collect::<Result<_>>()?;
        let flood = scope.spawn(|| lab.among_clients(|| flood(&frames, offered, &stop, &sent)));
        let (voice_before, other_before, sent_before) = (
            server.voice.load(Ordering::Relaxed),
            server.other.load(Ordering::Relaxed),
            sent.load(Ordering::Relaxed),
        );
        let begun = now();
        let talkers: Vec<_> =
            regulars.into_iter().map(|regular| scope.spawn(move || regular.talk(duration))).collect();
        let logins = scope.spawn(|| log_in_again_and_again(lab, duration));
        let mut said = 0;
        for talker in talkers {
            said += talker.join().ok().context("a regular failed")??;
        }
        let mut logins = logins.join().ok().context("whoever logs in failed")?;
        let took = begun.elapsed().as_secs_f64();
        let flooded = (sent.load(Ordering::Relaxed) - sent_before) as f64 / took;
        stop.store(true, Ordering::Relaxed);
        flood.join().ok().context("the flood failed")??;
        // What is on its way still arrives.
        thread::sleep(Duration::from_millis(200));
        let heard = server.voice.load(Ordering::Relaxed) - voice_before;
        let reached = server.other.load(Ordering::Relaxed) - other_before;
        let failed = logins.iter().filter(|took| **took >= LOGIN_PATIENCE).count();
        logins.sort_unstable();
        let milliseconds = |at: usize| logins.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3);
        Ok(Point {
            offered: flooded,
            lost: 100.0 * (1.0 - heard as f64 / said as f64),
            login: (milliseconds(logins.len() / 2), milliseconds(logins.len() - 1)),
            failed_logins: failed,
            reached: reached as f64 / took,
        })
    })
}

/// One after the other comes in, none of the talkers; answers how long each took.
fn log_in_again_and_again(lab: &Lab, duration: Duration) -> Vec<Duration> {
    let begun = now();
    let mut times = Vec::new();
    for id in (REGULARS + 10..62).cycle() {
        if begun.elapsed() >= duration {
            break;
        }
        let start = now();
        let stream = lab.connect(&format!("10.77.0.{id}"), PORT).map_err(anyhow::Error::from);
        let outcome = stream.and_then(|stream| log_in(&stream, id));
        times.push(if outcome.is_ok() { start.elapsed() } else { LOGIN_PATIENCE.max(start.elapsed()) });
        thread::sleep(Duration::from_millis(200));
    }
    times
}

/// Where frames to the guarded host go.
pub(crate) fn wall_address() -> Result<Vec<u8>> {
    let output = Command::new("ip").args(["-br", "link", "show", "wall0"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let written = text.split_whitespace().nth(2).context("no address of the interface")?;
    Ok(written.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?)
}

/// Voice of many that are not there: right in every byte, from addresses all over.
pub(crate) fn frames() -> Result<Vec<Vec<u8>>> {
    let mac = wall_address()?;
    let frame = |number: u32| {
        // Not the regulars' network, and each its own.
        let source = std::net::Ipv4Addr::from(0x2d00_0000 + number.wrapping_mul(0x9e37_79b1) % 0x4000_0000);
        let path = packets::Path::new(&source.to_string(), SERVER, PORT);
        let mut frame = packets::udp(path, &voice(u16::try_from(number % 4_000).unwrap_or(0), 100));
        frame.splice(..6, mac.iter().copied());
        let sum =
            frame[14..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
        frame.splice(24..26, checksum.to_be_bytes());
        frame
    };
    Ok((0..SOURCES).map(frame).collect())
}

/// Sends until told to stop, as many as wanted in each millisecond or as many as it can.
pub(crate) fn flood(frames: &[Vec<u8>], per_second: u32, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    if per_second == 0 {
        return Ok(());
    }
    let mut wire = pcap::Capture::from_device("out0")?.open().context("cannot send at out0")?;
    let begun = now();
    let mut all = frames.iter().cycle();
    let mut count = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let due = (begun.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
        if count >= due {
            thread::sleep(Duration::from_micros(500));
            continue;
        }
        for frame in all.by_ref().take(usize::try_from((due - count).min(256))?) {
            match wire.sendpacket(frame.as_slice()) {
                Ok(()) => count += 1,
                // The receiver's ring is full. What is not taken was not sent.
                Err(pcap::Error::PcapError(why)) if why.contains("No buffer space") => {
                    thread::sleep(Duration::from_micros(50));
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        sent.store(count, Ordering::Relaxed);
    }
    Ok(())
}

/// A plot with its words: who cannot see it reads the table beside it.
fn plot(title: &str, curves: &[(Filter, Vec<Point>)], value: impl Fn(&Point) -> f64) -> String {
    const COLOURS: [&str; 4] = ["#777777", "#d55e00", "#0072b2", "#009e73"];
    const DASHES: [&str; 4] = ["2 3", "8 4", "1 0", "12 3 3 3"];
    let all = || curves.iter().flat_map(|(_, points)| points);
    let widest = all().map(|point| point.offered).fold(1.0, f64::max);
    let highest = all().map(&value).fold(1.0, f64::max);
    let (x, y) =
        (|offered: f64| 70.0 + 560.0 * offered / widest, |value: f64| 330.0 - 280.0 * value / highest);
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 900 390\" font-family=\"sans-serif\" font-size=\"13\" role=\"img\">\n",
    );
    let mut line = |text: String| svg.push_str(&(text + "\n"));
    line(format!("<title>{title}, by packets per second that are thrown at the server</title>"));
    line("<desc>The table in performance.md has every figure.</desc>".to_owned());
    line("<rect width=\"900\" height=\"390\" fill=\"white\"/>".to_owned());
    line("<path d=\"M70 50V330H630\" stroke=\"black\" fill=\"none\"/>".to_owned());
    line(format!("<text x=\"70\" y=\"30\">{title}</text>"));
    line("<text x=\"350\" y=\"375\" text-anchor=\"middle\">packets per second offered</text>".to_owned());
    for part in 0..=4 {
        let share = f64::from(part) / 4.0;
        let (across, up) = (widest * share, highest * share);
        line(format!("<text x=\"{:.0}\" y=\"348\" text-anchor=\"middle\">{across:.0}</text>", x(across)));
        line(format!("<text x=\"62\" y=\"{:.0}\" text-anchor=\"end\">{up:.1}</text>", y(up) + 4.0));
    }
    for (number, (filter, points)) in curves.iter().enumerate() {
        let (colour, dash) = (COLOURS[number % 4], DASHES[number % 4]);
        let mut path = String::new();
        for point in points {
            // Writing to a string does not fail.
            write!(path, "{:.1},{:.1} ", x(point.offered), y(value(point))).ok();
        }
        line(format!(
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>"
        ));
        let height = 60 + 24 * number;
        line(format!(
            "<path d=\"M650 {height}h40\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>"
        ));
        line(format!("<text x=\"698\" y=\"{}\">{}</text>", height + 4, filter.name()));
    }
    svg + "</svg>\n"
}

#[expect(clippy::print_stdout, reason = "the table is the product")]
fn say(line: &str) {
    println!("{line}");
}
