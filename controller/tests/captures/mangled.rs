//! Quiet captures stay quiet however they were recorded, and attacks are seen all the same: captured twice on a bridge,
//! snapped, in one direction, from the middle, with losses, with crooked clocks, behind a VLAN tag.

use serde_json::Value;

use crate::records::{Record, read, report_of};

type Mangler = fn(&[Record]) -> Vec<Record>;

const MANGLERS: [(&str, Mangler); 11] = [
    ("captured twice", |records| {
        records.iter().flat_map(|record| [record.clone(), record.clone()]).collect()
    }),
    ("snapped to 96 bytes", |records| snapped(records, 96)),
    ("snapped to 60 bytes", |records| snapped(records, 60)),
    ("clients alone", |records| records.iter().filter(|record| !is_from_server(record)).cloned().collect()),
    ("server alone", |records| records.iter().filter(|record| is_from_server(record)).cloned().collect()),
    ("from the middle", |records| records[records.len() / 3..].to_vec()),
    ("from the middle, eight times as slow", |records| slowed(&records[records.len() / 3..])),
    ("with a crooked clock", |records| {
        let shift = |index: usize| (index as u64 * 7_919) % 40_000;
        records
            .iter()
            .enumerate()
            .map(|(index, (at, wire, bytes))| (at + shift(index), *wire, bytes.clone()))
            .collect()
    }),
    ("with every 19th packet lost", |records| {
        records
            .iter()
            .enumerate()
            .filter(|(index, _)| index % 19 != 7)
            .map(|(_, record)| record.clone())
            .collect()
    }),
    ("behind a VLAN tag", |records| {
        let tag = |bytes: &[u8]| [&bytes[..12], &[0x81, 0, 0, 5], &bytes[12..]].concat();
        records.iter().map(|(at, wire, bytes)| (*at, wire + 4, tag(bytes))).collect()
    }),
    ("twice, a day apart", |records| {
        let tomorrow = records.iter().map(|(at, wire, bytes)| (at + 86_400_000_000, *wire, bytes.clone()));
        records.iter().cloned().chain(tomorrow).collect()
    }),
];

fn snapped(records: &[Record], length: usize) -> Vec<Record> {
    records.iter().map(|(at, wire, bytes)| (*at, *wire, bytes[..bytes.len().min(length)].to_vec())).collect()
}

fn slowed(records: &[Record]) -> Vec<Record> {
    let start = records[0].0;
    records.iter().map(|(at, wire, bytes)| (start + (at - start) * 8, *wire, bytes.clone())).collect()
}

/// Whether an IPv4 packet comes from one of the corpus' service ports.
fn is_from_server((_, _, bytes): &Record) -> bool {
    let transport = 14 + usize::from(bytes[14] & 15) * 4;
    let port = bytes.get(transport..transport + 2).map(|port| u16::from_be_bytes([port[0], port[1]]));
    bytes[12..14] == [8, 0] && matches!(port, Some(10_333 | 6_667))
}

/// Addresses with any outcome but `clean`.
fn flagged(records: &[Record]) -> Vec<(String, String)> {
    let report = report_of(records);
    let sources = report["sources"].as_array().expect("sources").iter();
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let all = sources.map(|source| (text(&source["address"]), text(&source["outcome"])));
    all.filter(|(_, outcome)| outcome != "clean").collect()
}

#[test]
fn quiet_captures_stay_quiet_however_they_were_recorded() {
    for name in [
        "teamtalk/01_baseline_session",
        "teamtalk/15_file_transfer",
        "teamtalk/16_benign_busy",
        "irc/hybrid-normal",
        "irc/hybrid-s2s",
    ] {
        let records = read(name);
        for (how, mangle) in MANGLERS {
            assert_eq!(flagged(&mangle(&records)), [], "{name}, {how}");
        }
    }
}

#[test]
fn attackers_are_seen_however_they_were_recorded() {
    // The second flood of connections comes with drones.
    for (name, attacker, others) in [
        ("teamtalk/03_login_storm_single", "10.77.0.66", ""),
        ("irc/hybrid-oper", "10.78.0.30", ""),
        ("irc/hybrid-connflood", "10.78.0.31", "10.78.0.4"),
        ("irc/ngircd-msgflood", "10.78.0.34", ""),
    ] {
        let records = read(name);
        for (how, mangle) in MANGLERS {
            // One side alone proves nothing, of 96 bytes too little is left to read, and two of the attacks are over
            // by the middle.
            let is_over =
                how.starts_with("from the middle") && !name.contains("login") && !name.contains("oper");
            if is_over || how.contains("alone") || how.contains("snapped") || how.contains("slow") {
                continue;
            }
            let found: Vec<String> =
                flagged(&mangle(&records)).into_iter().map(|(address, _)| address).collect();
            assert!(found.iter().any(|address| address == attacker), "{name}, {how}: {found:?}");
            let is_meant =
                |address: &String| address == attacker || !others.is_empty() && address.starts_with(others);
            assert!(found.iter().all(is_meant), "{name}, {how}: {found:?}");
        }
    }
}
