//! Behind TLS the server's own log is the only witness: the real daemon follows it, end to end.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::{fs::File, io::Write, path::Path, process::Command};

use floodwall_tests::live::{Lab, eventually};
use nix::sys::signal::Signal;

/// A configuration that guards one service, whose log is followed.
fn configure(lab: &Lab, service: &str, log: &Path, server: &str) -> String {
    let path = lab.folder().join("floodwall.toml");
    let text = format!("{service}\n[[log]]\npath = \"{}\"\nserver = \"{server}\"\n", log.display());
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn explain(lab: &Lab, address: &str) -> String {
    String::from_utf8_lossy(&lab.ask(&["explain", address]).stdout).into_owned()
}

/// What `status` says of the log.
fn followed(lab: &Lab) -> serde_json::Value {
    lab.answer(&["status"])["logs"][0].clone()
}

#[test]
fn who_guesses_behind_tls_is_banned_by_what_a_real_server_logs() {
    let test = "who_guesses_behind_tls_is_banned_by_what_a_real_server_logs";
    let Some(mut lab) = Lab::open(test) else { return };
    let Some(log) = lab.start_ngircd_with_tls(test) else { return };
    let configuration = configure(&lab, "", &log, "ngircd");
    lab.start_daemon(&["--service", "irc=6697", "--config", &configuration]);
    let mut admin = lab.connect_tls("10.77.0.2", 6697);
    admin.say("NICK boss\r\nUSER boss 0 * :boss\r\nOPER admin right");
    assert!(admin.try_hear(" 381 "), "the administrator is let in");
    // Held open: connections that end soon after their handshake would be held against it by themselves.
    let mut guessers = Vec::new();
    for number in 0..15 {
        let mut guesser = lab.connect_tls("10.77.0.20", 6697);
        guesser.say(&format!("NICK g{number}\r\nUSER g{number} 0 * :x\r\nOPER admin wrong{number}"));
        guessers.push(guesser);
    }
    eventually("the ban of the guesser", || lab.banned() == ["10.77.0.20/32"]);
    let explained = explain(&lab, "10.77.0.20");
    for part in ["is banned since", "login.failed", "method oper", "account \"admin\""] {
        assert!(explained.contains(part), "{part:?} is missing in: {explained}");
    }
    assert!(!explained.contains("wrong"), "no password is kept: {explained}");
    // Its connections are cut, the administrator's stands.
    assert!(guessers.iter_mut().all(|guesser| !guesser.try_hear("never said")));
    admin.say("PING here");
    assert!(admin.try_hear("PONG"), "the administrator has noticed nothing");
    assert!(followed(&lab)["judged"].as_u64() > Some(5), "{}", followed(&lab));
    let status = String::from_utf8_lossy(&lab.ask(&["status"]).stdout).into_owned();
    assert!(status.contains("server-0.log: "), "the log is named: {status}");
}

/// A TeamTalk server's log, written by the test in the form of `tests/corpus`: no TeamTalk server can be had here.
struct TeamTalkLog {
    file: File,
    path: std::path::PathBuf,
    /// Lines of another day are not judged.
    second: String,
    lines: u64,
}

impl TeamTalkLog {
    fn new(lab: &Lab) -> Self {
        let path = lab.folder().join("tt5srv.log");
        let second = Command::new("date").args(["-u", "+%F %T"]).output().unwrap().stdout;
        let second = String::from_utf8(second).unwrap().trim().to_owned();
        Self { file: File::create(&path).unwrap(), path, second, lines: 0 }
    }

    fn write(&mut self, text: &str) {
        self.lines += 1;
        let micros = self.lines;
        writeln!(self.file, "{}.{micros:06} {text}", self.second).unwrap();
    }

    fn fail(&mut self, id: u64, address: &str) {
        self.write(&format!("User #{id} TCP address: {address} connected."));
        self.write(&format!(
            "User #{id} failed to authenticate for account \"admin\" IP address: {address} UDP address: :::0."
        ));
        self.write(&format!("User #{id} nickname: \"\" disconnected."));
    }

    fn log_in(&mut self, id: u64, address: &str) {
        self.write(&format!("User #{id} TCP address: {address} connected."));
        self.write(&format!(
            "User #{id} nickname: \"Anna\" username: \"anna\" IP address: {address} UDP address: :::0 logged in."
        ));
    }

    /// As `logrotate` does, and TeamTalk itself: the old file under another name, a new one in its place.
    fn rotate(&mut self) {
        std::fs::rename(&self.path, self.path.with_extension("log.1")).unwrap();
        self.file = File::create(&self.path).unwrap();
    }
}

#[test]
fn a_login_that_only_the_log_tells_earns_standing_and_rotation_loses_nothing() {
    let test = "a_login_that_only_the_log_tells_earns_standing_and_rotation_loses_nothing";
    let Some(mut lab) = Lab::open(test) else { return };
    let mut log = TeamTalkLog::new(&lab);
    let configuration = configure(&lab, "", &log.path, "teamtalk");
    let arguments = ["--service", "teamtalk=10333", "--config", &configuration];
    lab.start_daemon(&arguments);
    log.log_in(1, "10.77.0.5");
    eventually("the login", || followed(&lab)["judged"].as_u64() >= Some(1));
    eventually("standing", || explain(&lab, "10.77.0.5").contains("known"));
    // A guess before, one across and some after the rotation are one guesser's.
    log.fail(2, "10.77.0.40");
    log.fail(2, "10.77.0.40");
    log.rotate();
    for _ in 0..30 {
        log.fail(2, "10.77.0.40");
    }
    eventually("the ban", || lab.banned() == ["10.77.0.40/32"]);
    // A file that was restored looks like a new one, and its lines are of long ago.
    log.rotate();
    let second = std::mem::replace(&mut log.second, "2026-01-01 00:00:00".to_owned());
    for _ in 0..30 {
        log.fail(2, "10.77.0.43");
    }
    log.second = second;
    let lines = log.lines;
    eventually("every line", || followed(&lab)["lines"].as_u64() == Some(lines));
    assert_eq!((followed(&lab)["unparsed"].clone(), followed(&lab)["old"].clone()), (0.into(), 90.into()));
    // What is written while nobody watches is read afterwards to know who is there, and held against nobody.
    lab.stop_daemon(Signal::SIGTERM);
    for _ in 0..30 {
        log.fail(3, "10.77.0.41");
    }
    std::thread::sleep(std::time::Duration::from_secs(6));
    lab.start_daemon(&arguments);
    eventually("what was written meanwhile", || followed(&lab)["old"].as_u64() == Some(90));
    log.fail(4, "10.77.0.42");
    eventually("what is written now", || followed(&lab)["lines"].as_u64() == Some(93));
    assert_eq!(lab.banned(), ["10.77.0.40/32"]);
}
