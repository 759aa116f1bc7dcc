//! The fast way and the plain way give the same report: whatever the log, the blocks and the number of workers.

use std::{fs, io, path::Path, sync::atomic::AtomicBool};

use floodwall_engine::protocol::log::Format;
use floodwall_xtask::logs::{Flavour, Plan, Role, Truth, generate};
use serde_json::Value;

use super::{
    Report,
    judgement::{Judgement, Window, first_time},
    lines::{Block, Lines},
    recognise, workers,
    workers::{Glanced, Judge},
};
use crate::rules;

const ROWS: usize = 10_000;

fn judgement(log: &[u8], window: Window) -> (Judgement, Format) {
    let rules = rules::load(None).unwrap_or_else(|_| panic!("the shipped rules are sound"));
    let mut judgement = Judgement::new(rules, window).unwrap();
    let format = recognise(log).unwrap();
    judgement.begin("test", format, false).unwrap();
    (judgement, format)
}

fn report(judgement: Judgement) -> Value {
    serde_json::to_value(Report::of(&judgement.finish(), ROWS, &[])).unwrap()
}

/// Each line shown to reader and rules in full.
fn plain(log: &[u8], window: Window) -> Value {
    let (mut judgement, _) = judgement(log, window);
    let mut lines = Lines::new(Box::new(io::Cursor::new(log.to_vec())), "test".into(), 1 << 18);
    let mut glanced = Glanced::default();
    while lines.next(&mut glanced.block).unwrap() {
        glanced.glance(|_| None);
        judgement.judge(&glanced).unwrap();
    }
    report(judgement)
}

fn fast(log: &[u8], window: Window, block_bytes: usize, count: usize) -> Value {
    let (mut judgement, format) = judgement(log, window);
    let mut lines = Lines::new(Box::new(io::Cursor::new(log.to_vec())), "test".into(), block_bytes);
    let mut first = Block::default();
    assert!(lines.next(&mut first).unwrap());
    workers::read(lines, first, format, count, &AtomicBool::new(false), &mut judgement).unwrap();
    report(judgement)
}

fn compare(name: &str, log: &[u8], window: Window) {
    let expected = plain(log, window);
    for (block_bytes, count) in [(150, 3), (4_096, 2), (1 << 18, 1), (1 << 18, 2)] {
        let found = fast(log, window, block_bytes, count);
        assert!(
            found == expected,
            "{name}, blocks of {block_bytes}, {count} workers:\n{found:#}\n{expected:#}"
        );
    }
}

fn generated(lines: u64, seed: u64, flavour: Flavour) -> (Vec<u8>, Truth) {
    let mut log = Vec::new();
    let truth = generate(Plan { lines, seed, flavour }, &mut log).unwrap();
    (log, truth)
}

#[test]
fn committed_logs_read_the_same_both_ways() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus");
    let mut compared = 0;
    for folder in ["teamtalk", "irc"] {
        for entry in fs::read_dir(corpus.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "log") {
                compare(&path.display().to_string(), &fs::read(&path).unwrap(), Window::default());
                compared += 1;
            }
        }
    }
    assert!(compared >= 13, "{compared}");
}

#[test]
fn generated_logs_read_the_same_both_ways_and_as_they_were_meant() {
    for seed in 1..=3 {
        let (log, truth) = generated(30_000, seed, Flavour::Teamtalk);
        compare(&format!("seed {seed}"), &log, Window::default());
        judge(&fast(&log, Window::default(), 1 << 18, 2), &truth, "teamtalk");
    }
}

/// Counts by address are those of the truth, attackers of any size are found, regulars are left alone.
fn judge(report: &Value, truth: &Truth, name: &str) {
    let sources = report["sources"].as_array().unwrap();
    assert_eq!(sources.len(), truth.actors.len(), "{name}");
    for source in sources {
        let address = source["address"].as_str().unwrap();
        let actor = &truth.actors[address];
        let expected = serde_json::to_value(&actor.signals).unwrap();
        assert_eq!(source["signals"], expected, "{name}: {address}");
        let failed = actor.signals.get("login.failed").copied().unwrap_or(0);
        match actor.role {
            Role::Attacker => assert!(failed < 100 || source["outcome"] == "banned", "{name}: {source:#}"),
            // The log ends before they typed their password again.
            Role::Regular if failed > 0 && !actor.signals.contains_key("login.succeeded") => {}
            Role::Regular => assert_eq!(source["outcome"], "clean", "{name}: {source:#}"),
        }
    }
}

#[test]
fn every_servers_log_is_counted_as_it_was_meant() {
    for flavour in [
        Flavour::IrcdHybrid,
        Flavour::Inspircd,
        Flavour::Ngircd,
        Flavour::Solanum,
        Flavour::Unrealircd,
        Flavour::Teamspeak,
    ] {
        let (log, truth) = generated(8_000, 5, flavour);
        let report = fast(&log, Window::default(), 1 << 14, 2);
        let name = format!("{flavour:?}");
        assert_eq!(report["unparsed"], 0, "{name}");
        for source in report["sources"].as_array().unwrap() {
            let actor = &truth.actors[source["address"].as_str().unwrap()];
            assert_eq!(
                source["signals"],
                serde_json::to_value(&actor.signals).unwrap(),
                "{name}: {source:#}"
            );
        }
        assert_eq!(report["sources"].as_array().unwrap().len(), truth.actors.len(), "{name}");
        compare(&name, &log, Window::default());
    }
}

#[test]
fn a_part_of_the_time_and_a_clock_that_is_set_back_read_the_same_both_ways() {
    let (log, _) = generated(40_000, 9, Flavour::Teamtalk);
    let first = first_time(log.split(|byte| *byte == b'\n')).unwrap();
    let second = |seconds| Some(first + floodwall_engine::Span::from_secs(seconds));
    let window = Window { since: second(10), until: second(50) };
    compare("window", &log, window);
    let report = plain(&log, window);
    assert!(report["outside"].as_u64().unwrap() > 10_000, "{report:#}");
    assert_eq!(report["lines"].as_u64().unwrap() + report["outside"].as_u64().unwrap(), 40_000);
    let twice = [log.as_slice(), log.as_slice()].concat();
    compare("twice", &twice, Window::default());
    let report = plain(&twice, Window::default());
    assert_eq!(report["clock_steps"], 1);
    let clean = |report: &Value| {
        report["sources"].as_array().unwrap().iter().filter(|row| row["outcome"] == "clean").count()
    };
    assert_eq!(
        clean(&report),
        clean(&plain(&log, Window::default())),
        "who chats as before is clean as before"
    );
}
