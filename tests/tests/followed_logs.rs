//! Behind TLS the server's own log is the only witness: the real daemon follows it, end to end.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::{
    fs::{File, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use floodwall_tests::{
    live::{Lab, eventually},
    skip,
};
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
    // What `status` says of logs is brought up to date once a second.
    eventually("the guesses in status", || followed(&lab)["judged"].as_u64() > Some(5));
    let status = String::from_utf8_lossy(&lab.ask(&["status"]).stdout).into_owned();
    assert!(status.contains("server-0.log: "), "the log is named: {status}");
}

/// A TeamTalk server's log, written by the test in the form of `tests/corpus`: no TeamTalk server can be had here.
struct TeamTalkLog {
    out: Box<dyn Write>,
    path: PathBuf,
    /// Lines of another day are not judged.
    second: String,
    lines: u64,
}

impl TeamTalkLog {
    fn new(lab: &Lab) -> Self {
        let path = lab.folder().join("tt5srv.log");
        let out = Box::new(File::create(&path).unwrap());
        Self::over(out, path)
    }

    fn over(out: Box<dyn Write>, path: PathBuf) -> Self {
        let second = Command::new("date").args(["-u", "+%F %T"]).output().unwrap().stdout;
        let second = String::from_utf8(second).unwrap().trim().to_owned();
        Self { out, path, second, lines: 0 }
    }

    fn write(&mut self, text: &str) {
        self.lines += 1;
        let micros = self.lines;
        // In one piece, as the server does.
        self.out.write_all(format!("{}.{micros:06} {text}\n", self.second).as_bytes()).unwrap();
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
        self.out = Box::new(File::create(&self.path).unwrap());
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

/// `systemd-journald` in a mount namespace of its own: the host's journal, if it has one, is left alone.
struct Journal {
    daemon: Child,
    /// Whose lines are followed: it has a control group of that name.
    unit: Child,
}

const UNIT: &str = "floodwall-lab.service";
const JOURNALD: &str = "/lib/systemd/systemd-journald";

impl Journal {
    /// Nothing where there is no journald.
    fn start(test: &str) -> Option<Self> {
        if !Path::new(JOURNALD).exists() {
            skip(test, "needs systemd-journald");
            return None;
        }
        let script = format!(
            "set -e; umount -R /sys/fs/cgroup || true; mount -t cgroup2 none /sys/fs/cgroup; mkdir -p /run/log /run/systemd; \
             mount -t tmpfs tmpfs /run/log; mount -t tmpfs tmpfs /run/systemd; \
             if [ -d /var/log/journal ]; then mount -t tmpfs tmpfs /var/log/journal; fi; \
             mkdir -p /run/systemd/journal /run/log/journal; exec {JOURNALD}"
        );
        let daemon = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the journal", || {
            let test = ["test", "-S", "/run/systemd/journal/stdout"];
            Self::inside(daemon.id(), "/usr/bin/env").args(test).status().unwrap().success()
        });
        let script = format!(
            "group=/sys/fs/cgroup/system.slice/{UNIT}; mkdir -p $group; echo $$ > $group/cgroup.procs; \
             exec systemd-cat --identifier tt5srv cat"
        );
        let unit =
            Self::inside(daemon.id(), "sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        Some(Self { daemon, unit })
    }

    fn inside(journald: u32, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{journald}/ns/mnt")).arg(program);
        command
    }

    /// A folder for `PATH` whose `journalctl` reads this journal.
    fn path(&self, lab: &Lab) -> String {
        let folder = lab.folder().join("bin");
        std::fs::create_dir(&folder).unwrap();
        let wrapper = folder.join("journalctl");
        let mount = format!("--mount=/proc/{}/ns/mnt", self.daemon.id());
        std::fs::write(&wrapper, format!("#!/bin/sh\nexec nsenter {mount} /usr/bin/journalctl \"$@\"\n"))
            .unwrap();
        std::fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).unwrap();
        format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        drop(self.unit.kill());
        drop(self.unit.wait());
        let group = format!("/sys/fs/cgroup/system.slice/{UNIT}");
        drop(Self::inside(self.daemon.id(), "rmdir").arg(group).status());
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

#[test]
fn a_real_journal_is_followed_and_its_place_is_kept() {
    let test = "a_real_journal_is_followed_and_its_place_is_kept";
    let Some(mut lab) = Lab::open(test) else { return };
    let Some(mut journal) = Journal::start(test) else { return };
    let mut log = TeamTalkLog::over(Box::new(journal.unit.stdin.take().unwrap()), PathBuf::new());
    let configuration = lab.folder().join("floodwall.toml");
    std::fs::write(&configuration, format!("[[log]]\njournal = \"{UNIT}\"\nserver = \"teamtalk\"\n"))
        .unwrap();
    let arguments = ["--service", "teamtalk=10333", "--config", configuration.to_str().unwrap()];
    let path = journal.path(&lab);
    lab.start_daemon_finding(Some(&path), &arguments);
    // Followed from its end on, whenever that is.
    eventually("the first line", || {
        log.log_in(1, "10.77.0.5");
        followed(&lab)["judged"].as_u64() >= Some(1)
    });
    eventually("standing", || explain(&lab, "10.77.0.5").contains("known"));
    std::thread::sleep(std::time::Duration::from_secs(1));
    let before = followed(&lab)["lines"].as_u64().unwrap();
    for _ in 0..30 {
        log.fail(2, "10.77.0.40");
    }
    eventually("the ban", || lab.banned() == ["10.77.0.40/32"]);
    eventually("every line", || followed(&lab)["lines"].as_u64() == Some(before + 90));
    eventually("nothing left", || followed(&lab)["behind_bytes"].as_u64() == Some(0));
    lab.stop_daemon(Signal::SIGTERM);
    for _ in 0..30 {
        log.fail(3, "10.77.0.41");
    }
    std::thread::sleep(std::time::Duration::from_secs(6));
    lab.start_daemon_finding(Some(&path), &arguments);
    eventually("what was written meanwhile", || followed(&lab)["old"].as_u64() == Some(90));
    log.fail(4, "10.77.0.42");
    eventually("what is written now", || followed(&lab)["lines"].as_u64() == Some(93));
    assert_eq!(lab.banned(), ["10.77.0.40/32"]);
}
