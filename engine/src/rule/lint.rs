//! Rules that are no mistake and yet do nothing: they can never fire, or another one always comes first.

use super::{Action, By, Field, Level, Match, Pattern, Rule, RuleFile};
use crate::{
    protocol::Protocol::{self, Irc, TeamSpeak, TeamTalk},
    signal::{Method, SignalKind},
    time::Timestamp,
};

/// What is odd about a rule of a file, in words, by index of the rule.
pub fn warnings(file: &RuleFile, now: Timestamp) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, rule) in file.rules.iter().enumerate() {
        if let Some(why) = never_fires(rule, file, now) {
            found.push((index, format!("\"{}\" can never fire: {why}", rule.id)));
        } else if let Some(other) = file.rules.iter().find(|other| comes_first(other, rule, now)) {
            let why = format!("\"{}\" is shadowed by \"{}\"", rule.id, other.id);
            found.push((index, format!("{why}, which counts as much, fires no later and does no less")));
        }
    }
    found
}

fn never_fires(rule: &Rule, file: &RuleFile, now: Timestamp) -> Option<String> {
    if rule.expires <= now {
        return Some("it has expired".to_owned());
    }
    let is_raised = |kind: &&SignalKind| services(**kind).contains(&file.protocol);
    let Some(kind) = rule.signals.iter().find(is_raised) else {
        let names: Vec<&str> = rule.signals.iter().map(|kind| kind.as_str()).collect();
        return Some(format!("no {} server raises {}", file.protocol.as_str(), names.join(" or ")));
    };
    if rule.level > Level::Normal
        && !file.rules.iter().any(|other| other.action == Action::RaiseLevel && !other.shadow)
    {
        return Some("no rule raises the level".to_owned());
    }
    let by = [Some(rule.by), rule.distinct].into_iter().flatten();
    for by in by {
        let lacks = rule.signals.iter().filter(is_raised).all(|kind| lacks(*kind, by, file.protocol));
        if lacks {
            return Some(format!("{} has no {}", kind.as_str(), by.as_str()));
        }
    }
    if let Some(distinct) = rule.distinct.filter(|distinct| rule.limit > 1 && is_one(rule.by, *distinct)) {
        return Some(format!("one {} is never of more than one {}", rule.by.as_str(), distinct.as_str()));
    }
    let foreign = rule.matches.iter().find_map(|condition| foreign_method(condition, file.protocol));
    if let Some(method) = foreign {
        return Some(format!("no {} server has logins by {method}", file.protocol.as_str()));
    }
    if let Some(after) = &rule.after
        && !after.signals.iter().any(|kind| services(*kind).contains(&file.protocol))
    {
        return Some(format!("what it comes after is raised by no {} server", file.protocol.as_str()));
    }
    let against = rule.against.as_ref().filter(|against| against.ratio > 1);
    let outweighs_itself = against.is_some_and(|against| {
        !rule.sums_bytes && rule.signals.iter().all(|kind| against.signals.contains(kind))
    });
    outweighs_itself.then(|| "it is held against what it counts itself".to_owned())
}

/// Whether all that is counted by one thing is the same in another.
fn is_one(by: By, distinct: By) -> bool {
    by == distinct
        || distinct == By::Service
        || matches!((by, distinct), (By::Address | By::Session, By::Address | By::Prefix | By::Site))
        || matches!((by, distinct), (By::Prefix, By::Site))
}

/// What a condition asks of the method, if no server of the protocol has such logins.
fn foreign_method(condition: &Match, protocol: Protocol) -> Option<String> {
    let Pattern::Words(words) = &condition.pattern else { return None };
    let is_possible = |word: &str| methods(protocol).iter().any(|method| method.as_str() == word);
    let is_foreign = condition.field == Field::Method && !words.iter().any(|word| is_possible(word));
    is_foreign.then(|| words.join(" or "))
}

/// How one logs in, or is refused, at a server (docs/signals.md).
const fn methods(protocol: Protocol) -> &'static [Method] {
    use Method as M;
    match protocol {
        Irc => &[
            M::ChannelKey,
            M::ChannelOperator,
            M::Link,
            M::Oper,
            M::Registration,
            M::Sasl,
            M::ServerPassword,
            M::Services,
        ],
        TeamSpeak => &[M::ChannelKey, M::Identity, M::PrivilegeKey, M::Query],
        TeamTalk => &[M::Account, M::ChannelKey, M::ChannelOperator, M::Guest],
    }
}

/// Whether a signal never has this field.
fn lacks(kind: SignalKind, by: By, protocol: Protocol) -> bool {
    let name = kind.as_str();
    let is_of_packet = name.starts_with("datagram.")
        || name.starts_with("fragment.")
        || kind == SignalKind::ConnectionAbandoned;
    match by {
        By::Session => is_of_packet,
        By::Content | By::Link => !name.starts_with("message."),
        By::Identity => protocol != TeamSpeak,
        By::Account | By::Nickname | By::Channel => is_of_packet,
        By::Address | By::Prefix | By::Site | By::Service | By::Target | By::Kind => false,
    }
}

/// Whether one rule does all that another does, and no later.
fn comes_first(one: &Rule, other: &Rule, now: Timestamp) -> bool {
    let is_plain = one.after.is_none()
        && one.against.is_none()
        && one.except.is_empty()
        && one.only.is_empty()
        && one.exceptions.is_empty();
    let same_unit =
        one.by == other.by && one.distinct == other.distinct && one.sums_bytes == other.sums_bytes;
    let same_unit = same_unit && one.allowance == other.allowance;
    one.id != other.id
        && is_plain
        && same_unit
        && !one.shadow
        && one.expires > now
        && other.signals.iter().all(|kind| one.signals.contains(kind))
        && one.matches.iter().all(|condition| other.matches.iter().any(|same| is_same(condition, same)))
        && one.bytes_min <= other.bytes_min
        && one.limit <= other.limit
        && one.within >= other.within
        && one.level <= other.level
        && one.action >= other.action
        && one.duration >= other.duration
        && other.notify.iter().all(|target| one.notify.contains(target))
}

fn is_same(one: &Match, other: &Match) -> bool {
    one.field == other.field && format!("{:?}", one.pattern) == format!("{:?}", other.pattern)
}

/// Of which servers a signal can be heard (docs/signals.md).
pub const fn services(kind: SignalKind) -> &'static [Protocol] {
    use SignalKind as S;
    match kind {
        S::ChannelJoined | S::ChannelLeft | S::IdentitySpoofed | S::TlsAddressed | S::TlsBrief => {
            &[Irc, TeamTalk]
        }
        S::StatusChanged
        | S::FileTransferred
        | S::DatagramAbsent
        | S::DatagramRebound
        | S::DatagramPrebound
        | S::DatagramScan
        | S::DatagramKeptAlive
        | S::ClientStalled
        | S::IdentityUnseen
        | S::VersionMismatch
        | S::StreamGap => &[TeamTalk],
        S::ChannelCreated
        | S::ChannelRemoved
        | S::AccountChanged
        | S::DatagramMalformed
        | S::DatagramStranger
        | S::DatagramForeign => &[TeamSpeak, TeamTalk],
        S::HandshakeBegun
        | S::HandshakeForged
        | S::HandshakeReplayed
        | S::HandshakeSolved
        | S::HandshakeFailed => &[TeamSpeak],
        S::ChannelTimestampChanged
        | S::CommandAnswered
        | S::LinkOpened
        | S::LinkEstablished
        | S::LinkClosed
        | S::LinkSplit
        | S::LinkRejoined
        | S::LinkCollision
        | S::LinkOpsLost
        | S::LinkStranger
        | S::LinkDisordered
        | S::LinkIncompatible
        | S::LinkFakeDirection
        | S::LinkReintroduced
        | S::LinkMalformed
        | S::LinkForgedJoin
        | S::LinkTimestampZero
        | S::LinkTimestampImplausible
        | S::LinkTimestampBackwards
        | S::LinkTimestampMismatch
        | S::LinkServerMode
        | S::LinkPlainJoin
        | S::LinkOpsKept
        | S::LinkUnoppedAction
        | S::LinkImpossible
        | S::LinkBouncedMode
        | S::LinkMassAction => &[Irc],
        S::ConnectionOpened
        | S::ConnectionClosed
        | S::ConnectionRefused
        | S::LoginAttempted
        | S::LoginSucceeded
        | S::LoginFailed
        | S::LoginRefused
        | S::LoginEnded
        | S::LoginElsewhere
        | S::CommandSent
        | S::CommandRejected
        | S::MessagePrivate
        | S::MessageChannel
        | S::MessageBroadcast
        | S::NickChanged
        | S::ChannelChanged
        | S::ChannelRefused
        | S::UserKicked
        | S::UserBanned
        | S::UserMoved
        | S::ServerChanged
        | S::ProtocolGarbage
        | S::StreamConflict
        | S::FragmentConflict
        | S::TlsHandshake
        | S::ConnectionHeld
        | S::ConnectionUnused
        | S::ConnectionAbandoned
        | S::TlsFailed => &[Irc, TeamSpeak, TeamTalk],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::file;

    fn said(rules: &str) -> Vec<String> {
        let source = format!("[service]\nprotocol = \"teamtalk\"\n{rules}");
        let file = file::parse("f.toml", &source).unwrap();
        warnings(&file, Timestamp::from_secs(1_800_000_000)).into_iter().map(|(_, text)| text).collect()
    }

    fn rule(id: &str, more: &str) -> String {
        format!("[[rule]]\nid = \"{id}\"\nwhy = \"x\"\n{more}\n")
    }

    #[test]
    fn rules_that_can_never_fire_are_told() {
        for (more, expected) in [
            ("signal = \"link.split\"\naction = \"note\"", "no teamtalk server raises link.split"),
            ("signal = \"login.failed\"\naction = \"note\"\nexpires = 2020-01-01", "it has expired"),
            (
                "signal = \"login.failed\"\nby = \"address\"\nlimit = 3\nwithin = \"60s\"\nlevel = \"attack\"\naction = \"note\"",
                "no rule raises the level",
            ),
            (
                "signal = \"datagram.stranger\"\nby = \"session\"\nlimit = 3\nwithin = \"60s\"\naction = \"note\"",
                "datagram.stranger has no session",
            ),
            (
                "signal = \"login.failed\"\nby = \"address\"\nlimit = 3\nwithin = \"60s\"\naction = \"note\"\n\
                 against = { signal = \"login.failed\", ratio = 2 }",
                "it is held against what it counts itself",
            ),
            (
                "signal = \"login.failed\"\nby = \"address\"\ndistinct = \"prefix\"\nlimit = 3\nwithin = \"60s\"\naction = \"note\"",
                "one address is never of more than one prefix",
            ),
            (
                "signal = \"login.failed\"\nwhere = { method = \"oper\" }\naction = \"note\"",
                "no teamtalk server has logins by oper",
            ),
        ] {
            assert_eq!(said(&rule("a", more)), [format!("\"a\" can never fire: {expected}")]);
        }
    }

    #[test]
    fn a_rule_behind_another_that_does_no_less_is_told() {
        let of = |limit: u32, action: &str, more: &str| {
            format!(
                "signal = \"login.failed\"\nby = \"address\"\nlimit = {limit}\nwithin = \"60s\"\naction = \"{action}\"\n{more}"
            )
        };
        let both = |one: &str, other: &str| said(&format!("{}{}", rule("a", one), rule("b", other)));
        let ban = of(8, "ban", "for = \"10m\"");
        let behind = "\"b\" is shadowed by \"a\", which counts as much, fires no later and does no less";
        assert_eq!(both(&ban, &of(9, "limit", "")), [behind]);
        assert_eq!(both(&ban, &of(9, "limit", "where = { method = \"account\" }")), [behind]);
        assert_eq!(both(&ban, &of(7, "limit", "")), [""; 0]);
        assert_eq!(both(&of(8, "ban", "for = \"10m\"\nshadow = true"), &of(9, "limit", "")), [""; 0]);
    }

    /// The third column of the table of signals.
    #[test]
    fn who_raises_what_is_as_documented() {
        let table = include_str!("../../../docs/signals.md");
        for kind in SignalKind::ALL {
            let row = table.lines().find(|line| line.starts_with(&format!("| `{}` |", kind.as_str())));
            let written = row.unwrap().split('|').nth(3).unwrap().trim();
            let expected: Vec<Protocol> = Protocol::ALL
                .into_iter()
                .filter(|protocol| {
                    written == "all" || written.split(", ").any(|name| name == protocol.as_str())
                })
                .collect();
            let mut found = services(*kind).to_vec();
            found.sort();
            assert_eq!(found, expected, "{}", kind.as_str());
        }
    }
}
