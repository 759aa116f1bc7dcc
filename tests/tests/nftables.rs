//! The wall over nftables: the real `nft`, real packets over a wire, in namespaces of their own.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use floodwall_tests::{
    live::{Lab, PATIENCE, SERVER, SERVER_V6, eventually, now},
    packets::voice,
    skip,
};
use nix::sys::signal::Signal;

const MODE: [&str; 2] = ["--mode", "nftables"];
const TEAMTALK: [&str; 2] = ["--service", "teamtalk=10333"];
/// Somebody else's firewall, which nothing here concerns.
const FOREIGN: &str = "table inet foreign {\n\
    set friends { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.7 } }\n\
    chain input { type filter hook input priority 0; policy accept; ip saddr @friends counter accept; }\n}\n\
    table ip older { chain forward { type filter hook forward priority 10; tcp dport 25 drop; }; }\n";

/// A guarded host with `nft`; `None` (said loudly) without.
fn open(test: &str) -> Option<Lab> {
    if Command::new("nft").arg("--version").output().is_err() {
        skip(test, "needs Debian's nftables");
        return None;
    }
    Lab::open(test)
}

fn nft(lab: &Lab, script: &str) -> String {
    let output = lab.on_host(|| Command::new("nft").args(script.split_whitespace()).output().unwrap());
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether our table is there.
fn is_there(lab: &Lab) -> bool {
    nft(lab, "list tables").contains("table inet floodwall")
}

/// A server that takes connections and datagrams, and a client of each family.
struct Server {
    listener: TcpListener,
    udp: UdpSocket,
}

impl Server {
    fn start(lab: &Lab, port: u16) -> Self {
        let (listener, udp) = lab
            .on_host(|| (TcpListener::bind(("::", port)).unwrap(), UdpSocket::bind(("::", port)).unwrap()));
        udp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        Self { listener, udp }
    }

    /// Whether somebody's voice reaches it now.
    fn hears(&self, lab: &Lab, client: &str, port: u16) -> bool {
        let server = if client.contains(':') { SERVER_V6 } else { SERVER };
        let speaker = lab.among_clients(|| UdpSocket::bind((client, 0)).unwrap());
        speaker.connect((server, port)).unwrap();
        speaker.send(&voice(5, 100)).unwrap();
        let mut bytes = [0; 1_500];
        let from: std::net::IpAddr = client.parse().unwrap();
        while let Ok((_, sender)) = self.udp.recv_from(&mut bytes) {
            if sender.ip().to_canonical() == from {
                return true;
            }
        }
        false
    }

    /// A connection on which the server has said something.
    fn greet(&self, lab: &Lab, client: &str, port: u16) -> std::net::TcpStream {
        let stream = lab.connect(client, port).unwrap();
        let (mut accepted, _) = self.listener.accept().unwrap();
        accepted.write_all(b"teamtalk servername=\"lab\"\r\n").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        (&stream).read_exact(&mut [0; 8]).unwrap();
        // The server's side stays open as long as the client's.
        thread::spawn(move || drop(accepted.read_to_end(&mut Vec::new())));
        stream
    }
}

#[test]
fn a_ban_stops_packets_of_both_families_until_it_is_over() {
    let test = "a_ban_stops_packets_of_both_families_until_it_is_over";
    let Some(mut lab) = open(test) else { return };
    let server = Server::start(&lab, 10_333);
    let other = Server::start(&lab, 10_999);
    lab.start_daemon(&[&MODE[..], &TEAMTALK].concat());
    let status = lab.answer(&["status"]);
    assert_eq!((status["mode"].as_str(), status["evaluating"].as_bool()), (Some("nftables"), Some(false)));
    let state = |step: &str| {
        let steps = status["steps"].as_array().unwrap();
        steps.iter().find(|row| row["step"] == step).unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (state("ban"), state("shape"), state("limit-source")),
        ("enforced".into(), "advisory".into(), "partly".into())
    );
    let text = String::from_utf8(lab.ask(&["status"]).stdout).unwrap();
    assert!(text.contains("Advisory only, nothing is dropped for it: shape, user-id, unread."), "{text}");
    for (client, neighbour) in [("10.77.0.9", "10.77.0.10"), ("fd77::9", "fd77::10")] {
        let mut stream = server.greet(&lab, client, 10_333);
        assert!(server.hears(&lab, client, 10_333), "{client} before the ban");
        assert!(lab.ask(&["ban", client, "--for", "4s"]).status.success());
        eventually("the ban in the table", || !server.hears(&lab, client, 10_333));
        // What is open is cut; nothing new comes about. Other ports and addresses are none of its.
        assert!(stream.read_to_end(&mut Vec::new()).is_ok() || stream.take_error().is_ok());
        assert!(lab.connect(client, 10_333).is_err(), "{client} connects although it is banned");
        assert!(server.hears(&lab, neighbour, 10_333), "{neighbour} beside the ban");
        assert!(other.hears(&lab, client, 10_999), "a ban covers guarded ports alone");
        eventually("the end of the ban", || server.hears(&lab, client, 10_333));
        drop(server.greet(&lab, client, 10_333));
        // Lifted, it ends at once.
        assert!(lab.ask(&["ban", client]).status.success());
        eventually("the second ban", || !server.hears(&lab, client, 10_333));
        assert!(lab.ask(&["unban", client]).status.success());
        eventually("the lift", || server.hears(&lab, client, 10_333));
    }
    let dropping = lab.answer(&["status"])["dropping"].to_string();
    assert!(dropping.contains("ban.address"), "{dropping}");
}

#[test]
fn prefixes_are_banned_but_for_whom_the_operator_allows() {
    let test = "prefixes_are_banned_but_for_whom_the_operator_allows";
    let Some(mut lab) = open(test) else { return };
    let server = Server::start(&lab, 10_333);
    let configuration = lab.folder().join("floodwall.toml");
    std::fs::write(&configuration, "allow = [\"10.77.0.8\", \"fd77::8\", \"10.77.0.32/28\"]\n").unwrap();
    lab.start_daemon(&[&MODE[..], &TEAMTALK, &["--config", configuration.to_str().unwrap()]].concat());
    for (prefix, inside, allowed) in
        [("10.77.0.0/24", "10.77.0.9", "10.77.0.8"), ("fd77::/64", "fd77::9", "fd77::8")]
    {
        assert!(lab.ask(&["ban", prefix, "--force"]).status.success());
        eventually("the ban of the prefix", || !server.hears(&lab, inside, 10_333));
        assert!(server.hears(&lab, allowed, 10_333), "{allowed} is allowed");
    }
    assert!(server.hears(&lab, "10.77.0.40", 10_333), "an allowed prefix inside a banned one");
    // A longer ban of a smaller prefix inside, and a ban of somebody who is allowed.
    for subject in ["10.77.0.48/28", "10.77.0.8"] {
        assert!(lab.ask(&["ban", subject, "--force", "--for", "2h"]).status.success());
    }
    assert!(lab.ask(&["unban", "10.77.0.0/24"]).status.success());
    eventually("the lift", || server.hears(&lab, "10.77.0.9", 10_333));
    assert!(!server.hears(&lab, "10.77.0.50", 10_333) && server.hears(&lab, "10.77.0.8", 10_333));
    // Who is no longer allowed is banned from then on; who is added, let in.
    std::fs::write(&configuration, "allow = [\"10.77.0.50\"]\n").unwrap();
    assert!(lab.ask(&["reload"]).status.success());
    eventually("the other allow list", || {
        server.hears(&lab, "10.77.0.50", 10_333) && !server.hears(&lab, "10.77.0.8", 10_333)
    });
}

/// All that is somebody else's.
fn foreign(lab: &Lab) -> String {
    nft(lab, "list table inet foreign") + &nft(lab, "list table ip older")
}

#[test]
fn what_others_do_to_our_table_is_put_right_and_theirs_is_left_alone() {
    let test = "what_others_do_to_our_table_is_put_right_and_theirs_is_left_alone";
    let Some(mut lab) = open(test) else { return };
    let server = Server::start(&lab, 10_333);
    let script = lab.folder().join("foreign.nft");
    std::fs::write(&script, FOREIGN).unwrap();
    nft(&lab, &format!("-f {}", script.display()));
    let before = foreign(&lab);
    lab.start_daemon(&[&MODE[..], &TEAMTALK].concat());
    for subject in ["10.77.0.9", "fd77::9", "10.77.0.48/28"] {
        assert!(lab.ask(&["ban", subject, "--force"]).status.success());
    }
    let is_blocked =
        || ["10.77.0.9", "fd77::9", "10.77.0.50"].iter().all(|client| !server.hears(&lab, client, 10_333));
    eventually("the bans", is_blocked);
    let repairs = || lab.answer(&["status"])["repaired"].as_array().unwrap().len();
    for (number, damage) in [
        "flush set inet floodwall banned4",
        "delete element inet floodwall banned6 { fd77::9 }",
        "flush set inet floodwall banned_prefixes4",
        "flush chain inet floodwall arriving",
        "add element inet floodwall allowed4 { 10.77.0.9 }",
        "flush table inet floodwall",
        "delete table inet floodwall",
        "delete rule inet floodwall arriving handle HANDLE",
    ]
    .iter()
    .enumerate()
    {
        let arriving = nft(&lab, "-a list chain inet floodwall arriving");
        let jump = arriving.lines().find_map(|line| line.split_once("udp dport vmap"));
        let handle = jump.unwrap().1.rsplit(' ').next().unwrap();
        nft(&lab, &damage.replace("HANDLE", handle));
        eventually(&format!("the repair after {damage}"), || repairs() == number + 1);
        eventually(&format!("the bans after {damage}"), is_blocked);
        assert!(server.hears(&lab, "10.77.0.10", 10_333));
    }
    // What somebody else does to their own table is noticed and nothing to put right.
    nft(&lab, "add element inet foreign friends { 203.0.113.9 }");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(repairs(), 8, "{}", lab.answer(&["status"])["repaired"]);
    nft(&lab, "delete element inet foreign friends { 203.0.113.9 }");
    assert_eq!(foreign(&lab), before);
    lab.stop_daemon(Signal::SIGINT);
    assert!(!is_there(&lab));
    assert_eq!(foreign(&lab), before, "byte for byte");
}

#[test]
fn the_table_outlives_its_controller_and_is_taken_over() {
    let test = "the_table_outlives_its_controller_and_is_taken_over";
    let Some(mut lab) = open(test) else { return };
    let server = Server::start(&lab, 10_333);
    let arguments = [&MODE[..], &TEAMTALK, &["--keep"]].concat();
    lab.start_daemon(&arguments);
    let _session = server.greet(&lab, "10.77.0.9", 10_333);
    assert!(lab.ask(&["ban", "fd77::9"]).status.success());
    eventually("the ban", || !server.hears(&lab, "fd77::9", 10_333));
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        lab.stop_daemon(signal);
        assert!(is_there(&lab) && !server.hears(&lab, "fd77::9", 10_333), "after {signal}");
        lab.start_daemon(&arguments);
        assert!(!server.hears(&lab, "fd77::9", 10_333), "after the restart");
        assert_eq!(lab.banned(), ["fd77::9/128"]);
    }
    // Taken over, there is nothing to learn: who holds a session is heard, who holds none is not.
    assert_eq!(lab.answer(&["status"])["learning_seconds"], 0);
    assert!(server.hears(&lab, "10.77.0.9", 10_333));
    eventually("strangers without a session are not heard", || !server.hears(&lab, "10.77.0.10", 10_333));
    lab.stop_daemon(Signal::SIGTERM);
    let detached = lab.ask_plain(&["detach", "--format", "json", "--pins", lab.pins().to_str().unwrap()]);
    let answer: serde_json::Value = serde_json::from_slice(&detached.stdout).unwrap();
    assert_eq!((&answer["nftables"], is_there(&lab)), (&true.into(), false));
    assert!(server.hears(&lab, "fd77::9", 10_333));
    // A gate in the kernel takes the place of a table that was left behind, and bans go with it.
    lab.start_daemon(&arguments);
    eventually("the ban again", || !server.hears(&lab, "fd77::9", 10_333));
    lab.stop_daemon(Signal::SIGKILL);
    lab.start_daemon(&TEAMTALK);
    assert!(!is_there(&lab) && !server.hears(&lab, "fd77::9", 10_333));
    lab.stop_daemon(Signal::SIGKILL);
    lab.start_daemon(&MODE);
    let status = lab.answer(&["status"]);
    assert_eq!((status["mode"].as_str(), lab.pins().exists()), (Some("nftables"), false), "{status}");
    assert_eq!(lab.banned(), ["fd77::9/128"]);
    assert!(!server.hears(&lab, "fd77::9", 10_333));
}

/// Sends datagrams from a client, so many per second; answers how many arrived.
fn flood(lab: &Lab, server: &Server, client: &str, per_second: u32, seconds: u32) -> u32 {
    let address = if client.contains(':') { SERVER_V6 } else { SERVER };
    let speaker = lab.among_clients(|| UdpSocket::bind((client, 0)).unwrap());
    speaker.connect((address, 10_333)).unwrap();
    let begun = now();
    let mut arrived = 0;
    server.udp.set_nonblocking(true).unwrap();
    for number in 0..per_second * seconds {
        let due = Duration::from_secs(1) * number / per_second;
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            thread::sleep(early);
        }
        speaker.send(&voice(5, 100)).unwrap();
        while server.udp.recv(&mut [0; 1_500]).is_ok() {
            arrived += 1;
        }
    }
    server.udp.set_nonblocking(false).unwrap();
    while server.udp.recv(&mut [0; 1_500]).is_ok() {
        arrived += 1;
    }
    arrived
}

#[test]
fn sources_are_limited_by_what_they_are() {
    let test = "sources_are_limited_by_what_they_are";
    let Some(mut lab) = open(test) else { return };
    let server = Server::start(&lab, 10_333);
    lab.start_daemon(&[&MODE[..], &TEAMTALK].concat());
    for (stranger, holder) in [("10.77.0.9", "10.77.0.8"), ("fd77:0:0:0::9", "fd77::8")] {
        // While it learns, a stranger has 20 datagrams per second and 90 at once.
        let heard = flood(&lab, &server, stranger, 400, 2);
        assert!((100..=150).contains(&heard), "of {stranger} {heard} were heard");
        let _session = server.greet(&lab, holder, 10_333);
        let heard = flood(&lab, &server, holder, 400, 2);
        assert_eq!(heard, 800, "of {holder}, who holds a session");
    }
    let dropping = lab.answer(&["status"])["dropping"].to_string();
    assert!(dropping.contains("limit.source"), "{dropping}");
    // A ruleset that is saved can be read again, elsewhere.
    let saved = lab.folder().join("saved.nft");
    std::fs::write(&saved, nft(&lab, "list ruleset")).unwrap();
    let checked = lab.among_clients(|| Command::new("nft").args(["-c", "-f"]).arg(&saved).output().unwrap());
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn no_packet_slips_through_while_the_table_is_written_anew() {
    let test = "no_packet_slips_through_while_the_table_is_written_anew";
    let Some(mut lab) = open(test) else { return };
    let server = Server::start(&lab, 10_333);
    let configuration = lab.folder().join("floodwall.toml");
    let write = |number: u32| {
        let text = format!(
            "allow = [\"192.0.2.{}\"]\n[[service]]\nprotocol = \"teamtalk\"\nports = [10333, {}]\n",
            number % 200,
            20_000 + number % 2
        );
        std::fs::write(&configuration, text).unwrap();
    };
    write(0);
    lab.start_daemon(&[&MODE[..], &["--config", configuration.to_str().unwrap()]].concat());
    let _session = server.greet(&lab, "10.77.0.8", 10_333);
    assert!(lab.ask(&["ban", "10.77.0.9"]).status.success());
    eventually("the ban", || !server.hears(&lab, "10.77.0.9", 10_333));
    let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for client in ["10.77.0.9", "10.77.0.8"] {
            let (lab, stop, sent) = (&lab, &stop, &sent);
            scope.spawn(move || {
                let speaker = lab.among_clients(|| UdpSocket::bind((client, 0)).unwrap());
                speaker.connect((SERVER, 10_333)).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    speaker.send(&voice(5, 100)).unwrap();
                    sent.fetch_add(usize::from(client.ends_with('8')), Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let heard = scope.spawn(|| {
            let mut heard = [0_usize; 2];
            while let Ok((_, from)) = server.udp.recv_from(&mut [0; 1_500]) {
                heard[usize::from(from.ip().to_canonical().to_string().ends_with('9'))] += 1;
            }
            heard
        });
        for number in 1..=100 {
            write(number);
            assert!(lab.ask(&["reload"]).status.success());
            let subject = format!("198.51.100.{number}");
            assert!(lab.ask(&["ban", &subject]).status.success());
        }
        stop.store(true, Ordering::Relaxed);
        let [holder, banned] = heard.join().unwrap();
        assert_eq!((holder, banned), (sent.load(Ordering::Relaxed), 0));
    });
    assert_eq!(lab.answer(&["status"])["losses"], serde_json::json!([]));
}

#[test]
fn a_raised_level_holds_no_longer_than_who_raised_it() {
    let test = "a_raised_level_holds_no_longer_than_who_raised_it";
    let Some(mut lab) = open(test) else { return };
    let server = Server::start(&lab, 10_333);
    let rules = lab.folder().join("rules");
    std::fs::create_dir(&rules).unwrap();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/teamtalk.toml");
    let alarming = "\n[[rule]]\nid = \"teamtalk/alarm\"\nwhy = \"a test\"\nsignal = \"connection.opened\"\n\
                    by = \"service\"\nlimit = 2\nwithin = \"60s\"\naction = \"raise-level\"\nfor = \"10m\"\n";
    std::fs::write(rules.join("teamtalk.toml"), std::fs::read_to_string(shipped).unwrap() + alarming)
        .unwrap();
    lab.start_daemon(&[&MODE[..], &TEAMTALK, &["--rules", rules.to_str().unwrap()]].concat());
    let _sessions: Vec<_> =
        (2..8).map(|number| server.greet(&lab, &format!("10.77.0.{number}"), 10_333)).collect();
    let is_alarmed = |lab: &Lab| {
        ["elevated_tcp", "attack_tcp"]
            .iter()
            .any(|set| nft(lab, &format!("list set inet floodwall {set}")).contains("10333"))
    };
    eventually("the alarm", || is_alarmed(&lab));
    // Said again and again it goes on.
    thread::sleep(Duration::from_secs(7));
    assert!(is_alarmed(&lab));
    lab.stop_daemon(Signal::SIGKILL);
    eventually("the end of the alarm", || !is_alarmed(&lab));
}
