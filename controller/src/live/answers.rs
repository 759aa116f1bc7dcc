//! What the wall answers operators, as data. Each carries its schema: programs read these too.

use std::collections::BTreeMap;

use floodwall_kernel::tables::Fill;
use floodwall_wire::{Class, Reason, Verdict};
use serde::{Deserialize, Serialize};

use super::logs::LogFigures;

/// `floodwall.status/1`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Status {
    pub(crate) schema: String,
    pub(crate) version: String,
    /// `native`, `generic`, `nftables` or `pcap`; the best that all interfaces have.
    pub(crate) mode: String,
    /// Why not a better one; empty if there is none.
    pub(crate) why: Vec<String>,
    pub(crate) interfaces: Vec<Interface>,
    /// The gate's steps, and which of them drop packets. Walls before this one do not tell.
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
    /// Judging and counting without any effect.
    pub(crate) evaluating: bool,
    /// Seconds until strangers' media is dropped; 0 when learning is over.
    pub(crate) learning_seconds: u64,
    pub(crate) running_seconds: u64,
    /// Seconds until everything is taken back unless confirmed.
    pub(crate) unconfirmed_seconds: Option<u64>,
    pub(crate) services: Vec<Service>,
    /// Logged in now, as far as the control channels can be read.
    pub(crate) present: usize,
    /// Addresses that are known.
    pub(crate) known: usize,
    pub(crate) bans: usize,
    pub(crate) allowed: Vec<String>,
    /// Files of prefixes that are in force.
    #[serde(default)]
    pub(crate) lists: Vec<ReadList>,
    /// What came in since the start, by service and class of packets.
    pub(crate) traffic: Vec<Traffic>,
    /// Whom rules have dealt with lately, worst first.
    pub(crate) worst: Vec<Worst>,
    /// What is being dropped, most first.
    pub(crate) dropping: Vec<Dropping>,
    /// Interfaces that lose packets before the gate sees them.
    pub(crate) full_links: Vec<FullLink>,
    pub(crate) rules: Vec<FiredRule>,
    /// Whatever is not 0 weakens what is known.
    pub(crate) losses: Vec<Loss>,
    /// How full the gate's tables are. Walls before this one do not tell.
    #[serde(default)]
    pub(crate) tables: Vec<Fill>,
    /// Logs that are followed.
    pub(crate) logs: Vec<LogFigures>,
    pub(crate) ledger_failing: bool,
    /// What was put right at the start and since.
    pub(crate) repaired: Vec<String>,
}

/// One step of the gate.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Step {
    /// `allow`, `ban`, `shape`, `standing`, `user-id`, `limit-source`, `limit-prefix`, `limit-service`, `unread`.
    pub(crate) step: String,
    /// `enforced`, `partly`, or `advisory`: judged and counted, and nothing is dropped for it.
    pub(crate) state: String,
    /// What is not enforced of it; empty if all is.
    pub(crate) lacking: String,
}

/// A step, its state and what it lacks.
pub(super) type StepState = (&'static str, &'static str, &'static str);

/// In the kernel's home every step is.
pub(super) const STEPS_IN_KERNEL: [StepState; 9] = [
    ("allow", "enforced", ""),
    ("ban", "enforced", ""),
    ("shape", "enforced", ""),
    ("standing", "enforced", ""),
    ("user-id", "enforced", ""),
    ("limit-source", "enforced", ""),
    ("limit-prefix", "enforced", ""),
    ("limit-service", "enforced", ""),
    ("unread", "enforced", ""),
];

/// What nftables can do with sets, meters and rates.
pub(super) const STEPS_IN_NFTABLES: [StepState; 9] = [
    ("allow", "enforced", ""),
    ("ban", "enforced", ""),
    ("shape", "advisory", "what cannot be the service's traffic reaches it"),
    ("standing", "partly", "TeamTalk's datagrams need a session; TeamSpeak's do not"),
    ("user-id", "advisory", "a datagram with somebody else's user id reaches the server"),
    ("limit-source", "partly", "greetings and other datagrams are counted together, TCP by its SYNs alone"),
    ("limit-prefix", "partly", "as limit-source"),
    ("limit-service", "partly", "datagrams only; SYNs meet the kernel's SYN cookies"),
    ("unread", "advisory", "what the mirror has no room for is passed unread"),
];

/// The steps as answered; where nothing is put into force none is enforced.
pub(super) fn steps(states: &[StepState], evaluating: bool) -> Vec<Step> {
    let step = |(step, state, lacking): &StepState| Step {
        step: (*step).to_owned(),
        state: if evaluating { "advisory" } else { *state }.to_owned(),
        lacking: if evaluating { "nothing is put into force" } else { *lacking }.to_owned(),
    };
    states.iter().map(step).collect()
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) mode: String,
    /// Taken over from an earlier controller, without a gap.
    pub(crate) adopted: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) tcp_ports: Vec<u16>,
    pub(crate) udp_ports: Vec<u16>,
    /// The highest of its classes.
    pub(crate) level: String,
    pub(crate) classes: Vec<ClassOfTraffic>,
}

/// One class of a service's traffic, against what is usual.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ClassOfTraffic {
    /// `udp` or `tcp`.
    pub(crate) class: String,
    pub(crate) level: String,
    /// Different strangers within the last ten seconds.
    pub(crate) strangers: u16,
    /// How many are usual at this hour of the week; absent while that has not been learnt.
    pub(crate) usual: Option<u16>,
    /// So many raise the level.
    pub(crate) alarmed_from: u16,
    /// Hours of the week, of 168, that have been learnt.
    pub(crate) hours_learnt: u8,
}

/// Totals of one class of packets.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Traffic {
    pub(crate) service: String,
    pub(crate) class: String,
    pub(crate) passed: u64,
    pub(crate) passed_bytes: u64,
    pub(crate) dropped: u64,
    pub(crate) dropped_bytes: u64,
}

/// Adds up what came in.
#[derive(Debug, Default)]
pub(crate) struct TrafficTally {
    /// Packets and bytes, passed and dropped.
    totals: BTreeMap<(u8, Class), [(u64, u64); 2]>,
}

impl TrafficTally {
    pub(crate) fn add(&mut self, service: u8, class: Class, reason: Reason, packets: u64, bytes: u64) {
        let [passed, dropped] = self.totals.entry((service, class)).or_default();
        let total = if reason.verdict() == Verdict::Drop { dropped } else { passed };
        total.0 += packets;
        total.1 += bytes;
    }

    pub(crate) fn rows(&self, name: &dyn Fn(u8) -> &'static str) -> Vec<Traffic> {
        let row = |(&(service, class), &[passed, dropped]): (&(u8, Class), &[(u64, u64); 2])| Traffic {
            service: name(service).to_owned(),
            class: class.as_str().to_owned(),
            passed: passed.0,
            passed_bytes: passed.1,
            dropped: dropped.0,
            dropped_bytes: dropped.1,
        };
        self.totals.iter().map(row).collect()
    }
}

/// A file of prefixes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ReadList {
    pub(crate) path: String,
    /// `allow`, `limit` or `ban`.
    pub(crate) action: String,
    pub(crate) prefixes: usize,
}

/// Somebody rules have dealt with.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Worst {
    /// An address, a prefix, or what a rule counted by.
    pub(crate) subject: String,
    /// The gravest: `noted`, `limited`, `reset` or `banned`.
    pub(crate) outcome: String,
    /// What did that last.
    pub(crate) rule: String,
    /// When, RFC 3339, UTC.
    pub(crate) at: String,
    /// How often rules did anything to them.
    pub(crate) times: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Dropping {
    pub(crate) service: String,
    pub(crate) reason: String,
    pub(crate) packets_per_second: u64,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct FullLink {
    pub(crate) interface: String,
    pub(crate) lost_per_second: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct FiredRule {
    pub(crate) rule: String,
    pub(crate) fired: u64,
    pub(crate) shadowed: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Loss {
    pub(crate) what: String,
    pub(crate) count: u64,
}

/// `floodwall.bans/1`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Bans {
    pub(crate) schema: String,
    pub(crate) bans: Vec<Ban>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Ban {
    pub(crate) subject: String,
    pub(crate) rule: String,
    pub(crate) why: String,
    /// RFC 3339, UTC.
    pub(crate) since: String,
    /// RFC 3339, UTC, or `never`.
    pub(crate) until: String,
    pub(crate) count: u32,
    pub(crate) limit: u32,
    pub(crate) within: String,
    pub(crate) evidence: Vec<String>,
    /// RFC 3339, UTC, if it is over before its time.
    pub(crate) ended: Option<String>,
    pub(crate) ended_why: Option<String>,
}

/// `floodwall.explain/1`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Explanation {
    pub(crate) schema: String,
    pub(crate) subject: String,
    /// `banned`, `limited`, `allowed`, `known`, `proven` or `stranger`.
    pub(crate) state: String,
    /// In full.
    pub(crate) sentences: Vec<String>,
}

/// `floodwall.who/1`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Who {
    pub(crate) schema: String,
    pub(crate) present: Vec<Present>,
    /// Not listed for lack of room.
    pub(crate) unlisted: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Present {
    pub(crate) service: String,
    pub(crate) channel: Option<String>,
    pub(crate) nickname: Option<String>,
    pub(crate) account: Option<String>,
    pub(crate) address: String,
    /// RFC 3339, UTC.
    pub(crate) since: String,
}

/// `floodwall.links/1`: what is known about each open IRC server link.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Links {
    pub(crate) schema: String,
    pub(crate) links: Vec<Link>,
}

/// One server link. Timestamps of nicknames and channels are the servers' own, in seconds since 1970.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Link {
    pub(crate) service: String,
    pub(crate) peer: Option<String>,
    pub(crate) peer_address: String,
    pub(crate) own: Option<String>,
    pub(crate) dialect: String,
    pub(crate) established: bool,
    pub(crate) compressed: bool,
    /// RFC 3339, UTC.
    pub(crate) since: String,
    /// Everything since the first line was seen and kept.
    pub(crate) complete: bool,
    /// Not kept for lack of room.
    pub(crate) lost: u64,
    /// How many there are; those below are at most as many as were asked for.
    pub(crate) servers_total: usize,
    pub(crate) users_total: usize,
    pub(crate) channels_total: usize,
    pub(crate) servers: Vec<LinkServer>,
    pub(crate) users: Vec<LinkUser>,
    pub(crate) channels: Vec<LinkChannel>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct LinkServer {
    pub(crate) name: String,
    pub(crate) id: String,
    /// Behind the peer, not on our side.
    pub(crate) remote: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct LinkUser {
    pub(crate) nickname: String,
    pub(crate) id: String,
    pub(crate) timestamp: Option<u64>,
    pub(crate) remote: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct LinkChannel {
    pub(crate) name: String,
    /// The oldest that either side has said.
    pub(crate) timestamp: Option<u64>,
    pub(crate) peer_said: Option<u64>,
    pub(crate) own_said: Option<u64>,
    pub(crate) members: usize,
    pub(crate) operators: usize,
}

/// What was done, in sentences: `floodwall.done/1`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Done {
    pub(crate) schema: String,
    pub(crate) sentences: Vec<String>,
}

impl Done {
    pub(crate) fn new(sentences: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { schema: "floodwall.done/1".into(), sentences: sentences.into_iter().map(Into::into).collect() }
    }
}
