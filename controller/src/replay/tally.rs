//! What a replay counts, source by source.

use std::{collections::BTreeMap, path::PathBuf};

use floodwall_engine::{
    Command, Engine, Timestamp,
    command::{Explanation, Prefix},
    limits::NOTES_MAX,
    rule::{Level, RuleId},
    signal::SignalKind,
};
use floodwall_wire::{
    Address, Class, Judgement, Reason, Verdict, class::CLASSES, memory::Tables, tables::Standing,
};
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use crate::{capture::Frame, guard::Guard};

/// Sources counted one by one. A spoofed flood claims millions: beyond this they are summed.
const SOURCES_MAX: usize = 200_000;

/// The strongest thing that happened to a source.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Outcome {
    #[default]
    Clean,
    Noted,
    Limited,
    Dropped,
    Banned,
}

impl Outcome {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Noted => "noted",
            Self::Limited => "limited",
            Self::Dropped => "dropped",
            Self::Banned => "banned",
        }
    }
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Volume {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Volume {
    const fn add(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }
}

/// How many packets were dropped for what, by reason. Most sources have one or two.
#[derive(Clone, Debug, Default)]
pub(super) struct Reasons(Vec<(Reason, u64)>);

impl Reasons {
    fn add(&mut self, reason: Reason, packets: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += packets,
            None => {
                let at = self.0.partition_point(|(known, _)| *known < reason);
                self.0.insert(at, (reason, packets));
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        self.0.iter().copied()
    }
}

/// One source.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    pub(super) volume: Volume,
    pub(super) dropped: u64,
    pub(super) outcome: Outcome,
    pub(super) standing: Option<Standing>,
    pub(super) rules: Vec<RuleId>,
    pub(super) reasons: Reasons,
    pub(super) first_action: Option<Timestamp>,
}

impl Source {
    fn act(&mut self, outcome: Outcome, at: Timestamp) {
        self.outcome = self.outcome.max(outcome);
        self.first_action = Some(self.first_action.map_or(at, |first| first.min(at)));
    }

    fn act_by_rule(&mut self, outcome: Outcome, explanation: &Explanation) {
        self.act(outcome, explanation.at);
        if !self.rules.contains(&explanation.rule) {
            self.rules.push(explanation.rule.clone());
        }
    }
}

/// One guarded service.
#[derive(Clone, Debug)]
pub(super) struct ServiceTally {
    pub(super) name: &'static str,
    pub(super) volume: Volume,
    pub(super) classes: [Volume; CLASSES],
}

/// A ban, as reported.
#[derive(Clone, Debug)]
pub(super) struct BanRow {
    pub(super) subject: Prefix,
    pub(super) until: Timestamp,
    pub(super) explanation: Explanation,
}

/// A change of level, as reported.
#[derive(Clone, Debug)]
pub(super) struct LevelRow {
    pub(super) service: u8,
    pub(super) at: Timestamp,
    pub(super) level: Level,
    pub(super) rule: Option<RuleId>,
}

/// Sources one by one, and the sum of those beyond.
pub(super) struct Listing<'a> {
    pub(super) listed: Vec<(Address, &'a Source)>,
    /// How many, and their sum.
    pub(super) rest: Option<(usize, Source)>,
}

/// Everything a report is made from.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) files: Vec<PathBuf>,
    pub(super) total: Volume,
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
    pub(super) undecoded: u64,
    pub(super) services: Vec<ServiceTally>,
    pub(super) signals: BTreeMap<SignalKind, u64>,
    /// Packets that passed only because the gate was still learning who holds a session.
    pub(super) learning: u64,
    /// What bounds and brakes have cost, by name.
    pub(super) losses: BTreeMap<&'static str, u64>,
    /// How often shadow rules would have fired.
    pub(super) shadowed: BTreeMap<RuleId, u64>,
    /// How often the captures' clock went back.
    pub(super) restarts: u64,
    pub(super) bans: Vec<BanRow>,
    pub(super) notes: Vec<Explanation>,
    pub(super) notes_left_out: u64,
    pub(super) levels: Vec<LevelRow>,
    pub(super) failures: Vec<String>,
    sources: HashMap<Address, Source>,
    known: HashSet<Address>,
    rest: Source,
}

impl Tally {
    pub(super) fn new(guard: &Guard, files: &[PathBuf]) -> Self {
        let services = guard.services.iter().map(|service| ServiceTally {
            name: service.name,
            volume: Volume::default(),
            classes: [Volume::default(); CLASSES],
        });
        Self {
            files: files.to_vec(),
            total: Volume::default(),
            first: None,
            last: None,
            undecoded: 0,
            services: services.collect(),
            signals: BTreeMap::new(),
            learning: 0,
            losses: BTreeMap::new(),
            shadowed: BTreeMap::new(),
            restarts: 0,
            bans: Vec::new(),
            notes: Vec::new(),
            notes_left_out: 0,
            levels: Vec::new(),
            failures: Vec::new(),
            sources: HashMap::new(),
            known: HashSet::new(),
            rest: Source::default(),
        }
    }

    pub(super) fn count_frame(&mut self, frame: &Frame<'_>) {
        self.total.add(u64::from(frame.wire_bytes));
        self.first = Some(self.first.map_or(frame.at, |first| first.min(frame.at)));
        self.last = Some(self.last.map_or(frame.at, |last| last.max(frame.at)));
    }

    /// A frame without a TCP or UDP header to read.
    pub(super) const fn count_undecoded(&mut self) {
        self.undecoded += 1;
    }

    pub(super) fn count_arriving(&mut self, frame: &Frame<'_>, address: Address, judgement: &Judgement) {
        let bytes = u64::from(frame.wire_bytes);
        if let Some(service) = self.services.get_mut(usize::from(judgement.service)) {
            service.volume.add(bytes);
            if let Some(class) = service.classes.get_mut(judgement.class as usize) {
                class.add(bytes);
            }
        }
        if judgement.reason == Reason::Learning {
            self.learning += 1;
        }
        let source = self.source(address);
        source.volume.add(bytes);
        if judgement.verdict() == Verdict::Drop {
            source.dropped += 1;
            source.reasons.add(judgement.reason, 1);
            source.act(Outcome::Dropped, frame.at);
        }
    }

    fn source(&mut self, address: Address) -> &mut Source {
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&address) {
            return &mut self.rest;
        }
        self.sources.entry(address).or_default()
    }

    pub(super) fn note_command(&mut self, command: &Command) {
        match command {
            Command::Ban { subject, until, explanation } => {
                if subject.is_host() {
                    self.source(subject.address()).act_by_rule(Outcome::Banned, explanation);
                } else {
                    // Whoever is known in a network is spared; the signal that made its ban due came from an address in it.
                    self.source(explanation.offender);
                    let banned = self
                        .sources
                        .iter_mut()
                        .filter(|(address, _)| subject.contains(**address) && !self.known.contains(*address));
                    for (_, source) in banned {
                        source.act_by_rule(Outcome::Banned, explanation);
                    }
                }
                self.bans.push(BanRow { subject: *subject, until: *until, explanation: explanation.clone() });
            }
            Command::Limit { address, explanation, .. } | Command::Reset { address, explanation, .. } => {
                self.source(*address).act_by_rule(Outcome::Limited, explanation);
            }
            Command::Note { address, explanation, .. } => {
                // Who sent nothing to a guarded service is no source: a link's signals may name our own server.
                if let Some(source) = address.and_then(|address| self.sources.get_mut(&address)) {
                    source.act_by_rule(Outcome::Noted, explanation);
                }
                if self.notes.len() < NOTES_MAX {
                    self.notes.push(explanation.clone());
                } else {
                    self.notes_left_out += 1;
                }
            }
            Command::Release { .. } => {}
            Command::Know { address, until, .. } => {
                if *until == Timestamp::EPOCH {
                    self.known.remove(address);
                } else if self.known.len() < SOURCES_MAX {
                    self.known.insert(*address);
                }
            }
            Command::SetLevel { service, level, at, explanation, .. } => self.levels.push(LevelRow {
                service: *service,
                at: *at,
                level: *level,
                rule: explanation.as_ref().map(|explanation| explanation.rule.clone()),
            }),
            Command::BindUser { .. }
            | Command::FreeUser { .. }
            | Command::Ignore { .. }
            | Command::Follow { .. }
            // Only operators lift bans.
            | Command::Unban { .. } => {}
        }
    }

    pub(super) fn note_failure(&mut self, error: &anyhow::Error) {
        if self.failures.len() < NOTES_MAX {
            self.failures.push(format!("{error:#}"));
        }
    }

    /// Takes over what an engine and its gate have learnt; called once for each pair of them.
    pub(super) fn absorb(&mut self, engine: &Engine, tables: &Tables) {
        for (kind, count) in engine.signals() {
            *self.signals.entry(kind).or_default() += count;
        }
        for (loss, count) in engine.losses().into_iter().filter(|(_, count)| *count > 0) {
            *self.losses.entry(loss).or_default() += count;
        }
        for (rule, fired) in engine.fired().filter(|(_, fired)| fired.shadowed > 0) {
            *self.shadowed.entry(rule.clone()).or_default() += fired.shadowed;
        }
        let proven: HashSet<Address> = tables.proofs().map(|(key, _)| key.address).collect();
        for (address, source) in &mut self.sources {
            let standing = if self.known.contains(address) {
                Standing::Known
            } else if proven.contains(address) {
                Standing::Proven
            } else {
                Standing::Stranger
            };
            source.standing = source.standing.max(Some(standing));
        }
    }

    /// The captures' clock went back, and gate and engine began again.
    pub(super) const fn count_restart(&mut self) {
        self.restarts += 1;
    }

    /// Sources worst first, then by packets, then by address; beyond `most` one sum and how many it is of.
    pub(super) fn sources(&self, most: usize) -> Listing<'_> {
        let mut all: Vec<(Address, &Source)> =
            self.sources.iter().map(|(address, source)| (*address, source)).collect();
        all.sort_by_key(|(address, source)| {
            (std::cmp::Reverse(source.outcome), std::cmp::Reverse(source.volume.packets), *address)
        });
        let beyond = all.split_off(most.min(all.len()));
        let uncounted = self.rest.volume.packets > 0;
        if beyond.is_empty() && !uncounted {
            return Listing { listed: all, rest: None };
        }
        let mut sum = self.rest.clone();
        for (_, source) in &beyond {
            sum.volume.packets += source.volume.packets;
            sum.volume.bytes += source.volume.bytes;
            sum.dropped += source.dropped;
            sum.outcome = sum.outcome.max(source.outcome);
            for (reason, count) in source.reasons.iter() {
                sum.reasons.add(reason, count);
            }
        }
        Listing { rest: Some((beyond.len(), sum)), listed: all }
    }

    /// Every source that was seen, in order of address.
    pub(super) fn by_address(&self) -> BTreeMap<Address, &Source> {
        self.sources.iter().map(|(address, source)| (*address, source)).collect()
    }

    pub(super) fn service_name(&self, service: u8) -> &'static str {
        self.services.get(usize::from(service)).map_or("", |service| service.name)
    }
}

impl ServiceTally {
    /// Classes that occurred.
    pub(super) fn classes(&self) -> impl Iterator<Item = (Class, Volume)> {
        Class::ALL.into_iter().zip(self.classes).filter(|(_, volume)| volume.packets > 0)
    }
}
