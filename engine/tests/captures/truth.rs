//! What the drivers of the TeamTalk captures wrote down while they did it (`truth.json`) and what the engine saw are the
//! same, number for number. Where they differ it is by the server's own rules or because a driver kept no count of
//! its own; each such case is named in `NOT_WRITTEN_DOWN`.

use std::collections::BTreeMap;

use crate::support::{captures, corpus, signals};
use serde_json::Value;

type Kinds = BTreeMap<&'static str, u64>;

/// The signals that a driver can be held to.
const KINDS: [&str; 15] = [
    "account.changed",
    "channel.changed",
    "channel.created",
    "channel.joined",
    "channel.refused",
    "channel.removed",
    "login.failed",
    "login.refused",
    "login.succeeded",
    "message.broadcast",
    "message.channel",
    "message.private",
    "user.banned",
    "user.kicked",
    "user.moved",
];

/// Capture, signal, how many more there are than events that say so, and why.
const NOT_WRITTEN_DOWN: [(&str, &str, u64, &str); 1] = [(
    "18_ipv6",
    "login.succeeded",
    1,
    "fd77::11, the admin who lists and makes bans, had to log in for that",
)];

/// What one event, answered with `result`, must have been seen as.
fn kinds_of(what: &str, result: i64) -> Vec<&'static str> {
    let done = |kinds: &[&'static str]| if result == 0 { kinds.to_vec() } else { Vec::new() };
    let is_login = ["login", "re-login", "bad login", "mistyped password", "CASE5 login"];
    match what {
        _ if is_login.iter().any(|start| what.starts_with(start)) => match result {
            0 => vec!["login.succeeded"],
            2002 => vec!["login.failed"],
            _ => vec!["login.refused"],
        },
        // Whoever joins a channel that is not there makes it.
        "join new temp channel" | "crafted temp channel" => done(&["channel.created", "channel.joined"]),
        _ if what.starts_with("join") && !what.contains("flood") => {
            if result == 0 {
                vec!["channel.joined"]
            } else {
                vec!["channel.refused"]
            }
        }
        "connection lost (RST), reconnected" => vec!["login.succeeded", "channel.joined"],
        "usermsg" => done(&["message.private"]),
        "chanmsg" | "crafted channel message" => done(&["message.channel"]),
        "broadcast" => done(&["message.broadcast"]),
        "makechannel" => done(&["channel.created"]),
        "updatechannel" => done(&["channel.changed"]),
        "removechannel" => done(&["channel.removed"]),
        "newaccount" | "delaccount" => done(&["account.changed"]),
        // The one who is moved joins.
        "moveuser" => done(&["user.moved", "channel.joined"]),
        _ if what.starts_with("kick from") => done(&["user.kicked"]),
        _ if what.starts_with("ban ") => done(&["user.banned"]),
        _ => Vec::new(),
    }
}

/// What a flood of `n` was made of.
fn kinds_of_flood(what: &str) -> &'static [&'static str] {
    match what {
        "channel message flood end" => &["message.channel"],
        "private message flood end" => &["message.private"],
        "join/leave flood end" => &["channel.joined"],
        "temp channel flood end" => &["channel.created", "channel.joined"],
        _ => &[],
    }
}

/// Counts that stand for events which were not written down one by one.
fn kind_of_count(name: &str) -> Option<&'static str> {
    match name {
        "bad_login_result_2002" => Some("login.failed"),
        "bg_messages" | "chat_messages" => Some("message.channel"),
        _ => None,
    }
}

fn truth(name: &str) -> Kinds {
    let path = corpus().join("teamtalk").join(format!("{name}.truth.json"));
    let truth: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut kinds: Kinds = KINDS.into_iter().map(|kind| (kind, 0)).collect();
    let mut add = |kind: &'static str, count: u64| *kinds.get_mut(kind).unwrap() += count;
    for event in truth["events"].as_array().unwrap() {
        let what = event["what"].as_str().unwrap();
        let result = [&event["result"], &event["r"]].into_iter().find_map(Value::as_i64);
        for kind in kinds_of(what, result.unwrap_or_default()) {
            add(kind, 1);
        }
        for kind in kinds_of_flood(what) {
            add(kind, event["n"].as_u64().unwrap());
        }
        if what == "limited flood end" {
            add("message.channel", event["results"]["0"].as_u64().unwrap());
        }
    }
    for (name, count) in truth["counts"].as_object().unwrap() {
        if let Some(kind) = kind_of_count(name) {
            add(kind, count.as_u64().unwrap());
        }
    }
    for (capture, kind, count, _why) in NOT_WRITTEN_DOWN {
        if capture == name {
            add(kind, count);
        }
    }
    kinds
}

#[test]
fn signals_equal_what_the_drivers_wrote_down() {
    let mut differences = Vec::new();
    for (name, packets) in captures("teamtalk") {
        let found = signals("teamtalk", &packets);
        for (kind, expected) in truth(&name) {
            let seen = found.iter().filter(|signal| signal.kind.as_str() == kind).count() as u64;
            if seen != expected {
                differences.push(format!("{name}: {seen} {kind}, {expected} in truth.json"));
            }
        }
    }
    assert_eq!(differences, Vec::<String>::new());
}
