//! `floodwall demo`, as an operator sees it: everybody stopped, nobody hurt, nothing left behind.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use floodwall_tests::live::floodwall;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// What a demo of this process number has made on this host, and what still is there of it.
fn left_behind(number: u32) -> Vec<String> {
    let names = |folder: &str| -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    let mut found = names("/run/netns");
    found.extend(names("/sys/fs/bpf"));
    found.retain(|name| name.contains(&format!("demo{number}")) || name.contains(&format!("demo-{number}")));
    found
}

fn start() -> Child {
    let mut command = Command::new(floodwall());
    command.args(["demo", "--format", "json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn every_attacker_is_stopped_and_no_regular_hurt() {
    if !floodwall_tests::is_root() {
        return floodwall_tests::skip("every_attacker_is_stopped_and_no_regular_hurt", "needs root");
    }
    let demo = start();
    let number = demo.id();
    let output = demo.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaints}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], "floodwall.demo/1");
    let (quiet, observing, enforcing) = (&report["quiet"], &report["observing"], &report["enforcing"]);
    for phase in [quiet, observing, enforcing] {
        assert!(phase["voice_sent"].as_u64().unwrap() > 500, "{phase}");
    }
    println!(
        "login p99: quiet {}, attacked {} ms; voice lost in force: {} of {}",
        quiet["logins"]["p99_ms"],
        enforcing["logins"]["p99_ms"],
        enforcing["voice_lost"],
        enforcing["voice_sent"].as_u64().unwrap() + enforcing["voice_relayed"].as_u64().unwrap(),
    );
    assert_eq!(enforcing["voice_lost"], 0);
    assert_eq!(enforcing["logins"]["failed"], 0);
    assert_eq!(enforcing["sessions_cut"], 0);
    assert_eq!(enforcing["chat_lost"], 0);
    assert!(observing["voice_overheard"].as_u64().unwrap() > 0, "nobody was overheard: {observing}");
    assert_eq!(enforcing["voice_overheard"], 0);
    let attackers = |phase: &Value| phase["attackers"].as_array().unwrap().clone();
    for (before, now) in attackers(observing).iter().zip(&attackers(enforcing)) {
        let reached = |outcome: &Value| outcome["reached_last"].as_u64().unwrap();
        assert!(reached(before) > 0, "it did nothing at all: {before}");
        assert!(reached(now) * 20 < reached(before) || reached(now) == 0, "not stopped: {now}");
    }
    for ban in enforcing["bans"].as_array().unwrap() {
        let subject = ban["subject"].as_str().unwrap();
        let is_regular = ["10.79.1.", "10.79.2.", "10.79.3."].iter().any(|start| subject.starts_with(start));
        assert!(!is_regular, "a regular was banned: {ban}");
    }
    assert_eq!(left_behind(number), Vec::<String>::new());
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    if !floodwall_tests::is_root() {
        return floodwall_tests::skip("an_interrupted_demo_leaves_nothing", "needs root");
    }
    let mut demo = start();
    // The wall is up and learning by then, or not yet: either way everything has to go.
    thread::sleep(Duration::from_secs(6));
    assert!(demo.try_wait().unwrap().is_none());
    let number = demo.id();
    assert!(!left_behind(number).is_empty(), "it has made nothing yet");
    kill(Pid::from_raw(number.cast_signed()), Signal::SIGINT).unwrap();
    let output = demo.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("interrupted") && complaint.lines().count() == 1, "{complaint}");
    assert_eq!(left_behind(number), Vec::<String>::new());
}
