//! Lists of prefixes from local files, before real packets, in the kernel's gate and over nftables.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{fmt::Write as _, net::UdpSocket, process::Command, time::Duration};

use floodwall_tests::{
    live::{Lab, SERVER, SERVER_V6, eventually, now},
    packets::voice,
    skip,
};
use nix::sys::signal::Signal;

/// Half a million prefixes that nobody here has, IPv4 and IPv6, of many lengths.
const MANY: u32 = 499_990;

fn many() -> String {
    let mut text = String::from("# generated for a test\n");
    for number in 0..MANY {
        if number % 5 == 0 {
            writeln!(text, "2a{:02x}:{:x}::/{}", number >> 16 & 0xff, number & 0xffff, 32 + number % 17)
                .unwrap();
        } else {
            // Different /25s and longer from 11.0.0.0 on.
            let base = 0x0b00_0000 + number * 128;
            let address = std::net::Ipv4Addr::from(base);
            writeln!(text, "{address}/{}", 25 + number % 8).unwrap();
        }
    }
    text
}

/// Whether somebody's voice reaches a socket on the guarded host.
fn is_heard(lab: &Lab, udp: &UdpSocket, client: &str) -> bool {
    let server = if client.contains(':') { SERVER_V6 } else { SERVER };
    let speaker = lab.among_clients(|| UdpSocket::bind((client, 0)).unwrap());
    speaker.connect((server, 10_333)).unwrap();
    speaker.send(&voice(5, 100)).unwrap();
    let from: std::net::IpAddr = client.parse().unwrap();
    while let Ok((_, sender)) = udp.recv_from(&mut [0; 1_500]) {
        if sender.ip().to_canonical() == from {
            return true;
        }
    }
    false
}

#[test]
fn half_a_million_prefixes_hold_in_the_gate() {
    hold("half_a_million_prefixes_hold_in_the_gate", "auto", &many());
}

#[test]
fn prefixes_of_lists_hold_over_nftables() {
    let test = "prefixes_of_lists_hold_over_nftables";
    if Command::new("nft").arg("--version").output().is_err() {
        return skip(test, "needs Debian's nftables");
    }
    hold(test, "nftables", &many().lines().step_by(50).fold(String::new(), |text, line| text + line + "\n"));
}

#[test]
fn lists_for_which_the_gate_has_no_room_take_a_restart() {
    let Some(mut lab) = Lab::open("lists_for_which_the_gate_has_no_room_take_a_restart") else { return };
    let udp = lab.on_host(|| UdpSocket::bind(("::", 10_333)).unwrap());
    udp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let (list, configuration) = (lab.folder().join("vpn.txt"), lab.folder().join("floodwall.toml"));
    let configure = |allow: &str| {
        let text = format!("allow = [{allow}]\n[[list]]\npath = {list:?}\naction = \"ban\"\n");
        std::fs::write(&configuration, text).unwrap();
    };
    configure("\"10.77.0.11\"");
    let arguments = ["--service", "teamtalk=10333", "--config", configuration.to_str().unwrap()];
    std::fs::write(&list, "10.77.0.10\n10.77.0.11\n").unwrap();
    lab.start_daemon(&arguments);
    let heard = |lab: &Lab, client: &str| is_heard(lab, &udp, client);
    assert!(!heard(&lab, "10.77.0.10") && heard(&lab, "10.77.0.11") && heard(&lab, "10.77.0.20"));
    std::fs::write(&list, many() + "10.77.0.11\n10.77.0.20\n").unwrap();
    let refused = lab.ask(&["reload"]);
    let message = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(message.contains("restart floodwall, which makes room for them"), "{message}");
    assert!(!heard(&lab, "10.77.0.10") && heard(&lab, "10.77.0.20"), "the list before stays in force");
    let fill = |lab: &Lab| {
        let status = lab.answer(&["status"]);
        let tables = status["tables"].as_array().unwrap();
        tables.iter().find(|table| table["table"] == "lists").unwrap().clone()
    };
    assert_eq!(fill(&lab)["refused"], 1);
    lab.stop_daemon(Signal::SIGKILL);
    assert!(!heard(&lab, "10.77.0.10"), "the gate outlives its controller");
    // What was let in is so no longer when the configuration says it no longer.
    configure("");
    lab.start_daemon(&arguments);
    assert!(heard(&lab, "10.77.0.10") && !heard(&lab, "10.77.0.11") && !heard(&lab, "10.77.0.20"));
    let after = fill(&lab);
    assert_eq!(after["refused"], 0);
    assert!(after["entries"].as_u64().unwrap() > 50_000, "{after}");
}

#[expect(clippy::print_stdout, reason = "how long it took is told")]
fn hold(test: &str, mode: &str, bulk: &str) {
    let Some(mut lab) = Lab::open(test) else { return };
    let udp = lab.on_host(|| UdpSocket::bind(("::", 10_333)).unwrap());
    udp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let (list, friends) = (lab.folder().join("vpn.txt"), lab.folder().join("friends.txt"));
    let configuration = lab.folder().join("floodwall.toml");
    let write = |banned: &str| std::fs::write(&list, format!("{bulk}{banned}")).unwrap();
    // The second holds the host itself and its neighbours.
    write("10.77.0.8/29\nfd77::/64 # a lab\n");
    std::fs::write(&friends, "fd77::9\n").unwrap();
    let text = format!(
        "allow = [\"10.77.0.9\"]\n[[list]]\npath = {list:?}\naction = \"ban\"\n[[list]]\npath = {friends:?}\naction = \"allow\"\n"
    );
    std::fs::write(&configuration, text).unwrap();
    let arguments =
        ["--service", "teamtalk=10333", "--mode", mode, "--config", configuration.to_str().unwrap()];
    let checked = lab.ask_plain(&["check", "--config", configuration.to_str().unwrap()]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    let begun = now();
    lab.start_daemon(&arguments);
    println!("{mode}: {} prefixes in force {:?} after the start", bulk.lines().count(), begun.elapsed());
    let heard = |lab: &Lab, client: &str| is_heard(lab, &udp, client);
    for (client, is_let_in) in [
        ("10.77.0.10", false),
        ("fd77::10", false),
        ("10.77.0.9", true),
        ("fd77::9", true),
        ("10.77.0.20", true),
    ] {
        assert_eq!(heard(&lab, client), is_let_in, "{client}");
    }
    let status = lab.answer(&["status"]);
    assert_eq!(
        status["lists"][0]["prefixes"],
        bulk.lines().filter(|line| !line.starts_with('#')).count() + 2
    );
    let explained = String::from_utf8(lab.ask(&["explain", "10.77.0.10"]).stdout).unwrap();
    assert!(explained.contains("is banned for as long as the list"), "{explained}");
    // A mistake changes nothing and has its place.
    write("10.77.0.16/28\n10.77.0/24\n");
    let refused = lab.ask(&["reload"]);
    let message = String::from_utf8(refused.stderr).unwrap();
    let line = bulk.lines().count() + 2;
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(
        message.contains(&format!("vpn.txt:{line}:1: \"10.77.0/24\" is no address or prefix")),
        "{message}"
    );
    assert!(!heard(&lab, "10.77.0.10") && heard(&lab, "10.77.0.20"));
    // Put right, it is in force, by a signal too.
    write("10.77.0.16/28\n");
    lab.daemon().signal(Signal::SIGHUP);
    let begun = now();
    eventually("the other list", || heard(&lab, "10.77.0.10") && !heard(&lab, "10.77.0.20"));
    println!("{mode}: reloaded within {:?}", begun.elapsed());
    eventually("the IPv6 part", || heard(&lab, "fd77::10"));
    // What a list bans is nobody's ban, and what a controller left behind is not for ever.
    assert_eq!(lab.banned(), Vec::<String>::new());
    lab.stop_daemon(Signal::SIGKILL);
    assert!(!heard(&lab, "10.77.0.20"), "the gate outlives its controller");
    write("10.77.0.32/28\n");
    lab.start_daemon(&arguments);
    assert!(heard(&lab, "10.77.0.20") && !heard(&lab, "10.77.0.40"));
    assert_eq!(lab.banned(), Vec::<String>::new());
}
