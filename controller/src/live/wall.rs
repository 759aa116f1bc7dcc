//! The wall: the one owner of engine, enforcer and ledger. Packets, orders and time go in; what follows is carried out
//! here, one command at a time.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Result;
use floodwall_engine::{
    Command, Engine, Order, Packet, Span, Timestamp,
    baseline::Learnt,
    catalogue::Catalogue,
    command::{Explanation, Merit, Prefix},
    decision::KNOWN_FOR,
    ledger::Ban,
    rule::RuleId,
    rule::evaluate::Subject,
    signal::Signal,
    stream::Ends,
};
use floodwall_wire::{
    Address, Judgement, Reason, Verdict,
    frame::{Fragment, Headers},
    tables::status_flags,
};

use prometheus::Histogram;

use super::{
    addresses,
    clock::WallClock,
    cut::{self, Cutter, Victim},
    follow::Batch,
    habits::Habits,
    incident::{Decision, Incidents},
    ledger::{BanRow, BaselineRow, Entry, Known, LedgerWriter, Remembered, parse_subject},
    log_budget::LogBudget,
    logs::{Join, LogFigures, Logs},
    people::People,
    roster::Roster,
    watching::{Watched, Watchers},
    worst::Worst,
};
use crate::{
    configuration::LogEntry,
    enforce::{
        Enforcer,
        tables::{Store, TablesEnforcer},
    },
    guard::Guard,
    lists::Lists,
    notify::{Message, Notifier},
    replay::rfc3339,
    suggest::peaks::Peak,
};

pub(crate) mod answer;
pub(crate) mod operate;
#[cfg(test)]
mod tests;

/// For how long drops that rest on what only we renew stay in force without us.
const HEARTBEAT: Span = Span::from_secs(5);
/// How long the terminal of an operator is remembered.
const OPERATOR_FOR: Span = Span::from_secs(24 * 3_600);
/// How long a ban of an operator lasts unless told otherwise.
pub(crate) const OPERATOR_BAN: Span = Span::from_secs(3_600);
/// How often, a second apart, connections are cut again with the numbers that were seen meanwhile.
const CUT_AGAIN: u8 = 2;
/// Cuts that are repeated; more are ordered once.
const UNSETTLED_MAX: usize = 4_096;
/// How long a lift waits for the disk.
const LIFT_PATIENCE: Duration = Duration::from_millis(250);
/// Between two looks at what changes slowly.
const SLOWLY: Span = Span::from_secs(10);
const PURGE_EVERY: Span = Span::from_secs(3_600);
/// Operators' terminals remembered.
const OPERATORS_MAX: usize = 32;

/// What the wall is built from.
pub(crate) struct Parts<S> {
    pub(crate) guard: Guard,
    pub(crate) store: S,
    pub(crate) clock: Arc<WallClock>,
    pub(crate) ledger: LedgerWriter,
    pub(crate) people: Option<People>,
    pub(crate) incidents: Incidents,
    /// Absent where nothing may be cut: observing.
    pub(crate) cutter: Option<Cutter>,
    pub(crate) watchers: Arc<Watchers>,
    pub(crate) settings: Settings,
    pub(crate) enforcing: Histogram,
}

/// How this run was set up.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Judge and count, change nothing.
    pub(crate) observe: bool,
    pub(crate) state_folder: PathBuf,
    pub(crate) mode: String,
    pub(crate) why: Vec<String>,
    pub(crate) interfaces: Vec<super::answers::Interface>,
    /// Everything is taken back then unless confirmed, by the engine's time.
    pub(crate) confirm_by: Option<Timestamp>,
    pub(crate) seed: u64,
}

/// Engine, enforcer, ledger and everything that hangs on them.
pub(crate) struct Wall<S> {
    pub(crate) guard: Guard,
    pub(crate) engine: Engine,
    pub(crate) enforcer: TablesEnforcer<S>,
    pub(crate) clock: Arc<WallClock>,
    pub(crate) settings: Settings,
    ledger: LedgerWriter,
    cutter: Option<Cutter>,
    /// What was ordered to be cut in the last seconds, and how often it will be again.
    unsettled: Vec<(Victim, u8)>,
    watchers: Arc<Watchers>,
    roster: Roster,
    /// Absent until the configuration turns it on.
    people: Option<People>,
    incidents: Incidents,
    habits: Habits,
    worst: Worst,
    local: Vec<Address>,
    gateways: Vec<Address>,
    /// Where operators sit, and until when that is believed.
    operators: Vec<(Address, Timestamp)>,
    started: Timestamp,
    slowly_at: Timestamp,
    purge_at: Timestamp,
    repaired: Vec<String>,
    counts: Counts,
    log_budget: LogBudget,
    notifier: Notifier,
    /// What was not put into force, said once until it works again.
    failing: bool,
    learning_until: Timestamp,
    /// What the wire has told, where logs tell it again.
    join: Option<Join>,
    logs: Vec<LogFigures>,
    /// From the packet that crossed a limit to the entry in the table, seconds.
    enforcing: Histogram,
}

/// What the wall itself has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) made: u64,
    pub(crate) lifted: u64,
    pub(crate) expired: u64,
    pub(crate) refused: u64,
    pub(crate) not_enforced: u64,
    pub(crate) repairs: u64,
    pub(crate) packets: u64,
    pub(crate) samples: u64,
}

impl<S: Store> Wall<S> {
    /// Sets the wall up with what an earlier run remembers; the tables still hold what they held.
    pub(crate) fn new(parts: Parts<S>, remembered: &Remembered) -> Result<Self> {
        let Parts { guard, store, clock, ledger, people, incidents, cutter, watchers, settings, enforcing } =
            parts;
        let now = clock.now();
        let mut engine = Engine::new(guard.engine(settings.seed));
        engine.watch_signals();
        engine.keep_catalogue(Catalogue::default());
        let mut wall = Self {
            engine,
            enforcer: TablesEnforcer::new(store),
            clock,
            settings,
            ledger,
            cutter,
            unsettled: Vec::new(),
            watchers,
            roster: Roster::default(),
            people,
            incidents,
            habits: Habits::new(&guard),
            worst: Worst::default(),
            local: addresses::local_addresses(),
            gateways: addresses::gateways(),
            operators: Vec::new(),
            started: now,
            slowly_at: now + SLOWLY,
            purge_at: now,
            repaired: Vec::new(),
            counts: Counts::default(),
            log_budget: LogBudget::default(),
            notifier: Notifier::start(&guard.notify, &guard.notified())?,
            failing: false,
            learning_until: Timestamp::EPOCH,
            join: None,
            logs: Vec::new(),
            enforcing,
            guard,
        };
        wall.remember(remembered)?;
        Ok(wall)
    }

    /// Bans and the known of earlier runs. In the same boot the gate's deadline holds, otherwise UTC's.
    fn remember(&mut self, remembered: &Remembered) -> Result<()> {
        for (address, bits) in self.guard.allow.clone() {
            self.enforcer.allow(Prefix::new(address, u8::try_from(bits).unwrap_or(128)), true)?;
        }
        for prefix in &remembered.allowed {
            self.enforcer.allow(*prefix, true)?;
        }
        let now = self.clock.now();
        for row in &remembered.bans {
            let Some(subject) = parse_subject(&row.subject) else { continue };
            let until = if row.boot == self.clock.boot_id() {
                self.clock.at_gate(row.gate_until)
            } else {
                self.clock.at_utc(Timestamp::from_nanos(row.until))
            };
            if until <= now {
                continue;
            }
            let explanation =
                explanation_of(row, subject, self.clock.at_utc(Timestamp::from_nanos(row.since)));
            self.engine.restore_ban(
                subject,
                Ban { since: explanation.at, until, explanation: explanation.clone() },
                1,
            );
            self.enforce(&Command::Ban { subject, until, explanation });
        }
        for Known { address, until, by } in &remembered.known {
            let (address, by, until) = (*address, *by, self.clock.at_utc(*until));
            let is_known = until > now
                && match by {
                    Merit::Login => {
                        // When that login was, not now: else every restart would prolong it.
                        self.engine.restore_login(address, until - KNOWN_FOR);
                        true
                    }
                    Merit::Tenure => self.engine.restore_tenure(address, until),
                };
            if is_known {
                self.enforce(&Command::Know { address, until, by });
            }
        }
        self.engine.set_calendar(now, self.clock.to_utc(now));
        self.guard.restore_baseline(&mut self.engine, &remembered.baseline);
        for (rule, address, peak) in &remembered.peaks {
            let peak = Peak { at: self.clock.at_utc(peak.at), ..*peak };
            self.habits.restore(rule, *address, peak);
        }
        Ok(())
    }

    /// What was learnt in the last hour of how many strangers are usual, to disk.
    fn keep_learnt(&mut self) {
        let learnt = self.engine.take_learnt();
        if learnt.is_empty() {
            return;
        }
        let keys = self.guard.service_keys();
        for learnt in learnt {
            if let Some(service) = keys.get(usize::from(learnt.service)) {
                let Learnt { front: class, hour, slot, .. } = learnt;
                self.ledger.write(Entry::Baseline(BaselineRow {
                    service: service.clone(),
                    class,
                    hour,
                    slot,
                }));
            }
        }
    }

    /// Rules were read again.
    pub(crate) fn replace_rules(&mut self, guard: &Guard) {
        self.engine.replace_rules(guard.rules());
        self.habits.replace_rules(guard);
        self.guard = guard.clone();
    }

    /// Takes over bans that the gate holds and the ledger does not: the controller was killed between the two.
    pub(crate) fn adopt_ban(&mut self, subject: Prefix, gate_until: u64) {
        let now = self.clock.now();
        if self.engine.ledger().standing(subject).is_some() {
            return;
        }
        let until = self.clock.at_gate(gate_until);
        let explanation = Explanation {
            rule: RuleId("floodwall/adopted".into()),
            why: "found in the gate; the controller ended before it could write down why".into(),
            subject: Subject::Address(subject.address()),
            offender: subject.address(),
            at: now,
            count: 0,
            limit: 0,
            within: Span::ZERO,
            evidence: Vec::new(),
        };
        self.engine.restore_ban(subject, Ban { since: now, until, explanation: explanation.clone() }, 1);
        self.record_ban(subject, until, &explanation);
        self.note_repair(format!("the ban of {subject} was in the gate and not in the ledger"));
    }

    pub(crate) fn note_repair(&mut self, what: impl Into<String>) {
        self.counts.repairs += 1;
        // Bounded: a table that somebody keeps tampering with is told about once in a while.
        if self.repaired.len() < 100 {
            self.repaired.push(what.into());
        }
    }

    /// One packet from the mirror to the ban.
    pub(crate) fn handle_packet(&mut self, at: Timestamp, frame: &[u8], headers: &Headers, seen: &Seen) {
        self.counts.packets += 1;
        match seen {
            Seen::Arriving(judgement) => {
                if judgement.verdict() == Verdict::Drop {
                    self.handle_sample(at, headers, judgement);
                }
                // A dropped segment is no part of its conversation: TCP sends it again. What is cut off a dropped datagram
                // does not matter.
                if judgement.verdict() == Verdict::Pass || !is_tcp(headers) || judgement.reason.is_shape() {
                    self.engine.handle_packet(&Packet::arriving(at, frame, headers, judgement));
                } else {
                    self.engine.handle_dropped(&Packet::arriving(at, frame, headers, judgement));
                }
            }
            Seen::Departing { service, class } => {
                self.engine.handle_packet(&Packet::departing(at, frame, headers, *service, *class));
            }
        }
        self.carry_out();
    }

    /// One packet of a link between servers at a port that is not guarded; any other is none of ours.
    pub(crate) fn handle_link(&mut self, at: Timestamp, frame: &[u8], headers: &Headers) {
        if headers.fragment != Fragment::Whole {
            return;
        }
        if let Some(packet) = self.guard.link_packet(at, frame, headers) {
            self.counts.packets += 1;
            self.engine.handle_packet(&packet);
            self.carry_out();
        }
    }

    /// Follows logs from now on, where there are any.
    pub(super) fn follow_logs(&mut self, entries: &[LogEntry]) -> Result<Option<Logs>> {
        let logs = Logs::start(entries, &self.guard, &self.settings.state_folder, self.settings.seed)?;
        self.join = logs.as_ref().map(|_| Join::new(self.settings.seed));
        Ok(logs)
    }

    /// What a server's log says, but for what the wire has told already.
    pub(super) fn handle_log(&mut self, logs: &mut Logs, batch: &Batch) {
        let Some(join) = &mut self.join else { return };
        let (at, mut signals) = logs.read(batch, join, self.clock.now());
        self.engine.handle_log(at, &mut signals);
        let signals = self.engine.take_signals();
        self.carry_out_after(&signals);
    }

    /// Once a second: how far logs were read, and what is told of them.
    pub(super) fn note_logs(&mut self, logs: Option<&mut Logs>) {
        if let Some(logs) = logs {
            logs.handle_tick();
            self.logs = logs.figures();
        }
    }

    fn handle_sample(&mut self, at: Timestamp, headers: &Headers, judgement: &Judgement) {
        self.counts.samples += 1;
        if self.watchers.any() {
            let service = self.service_name(judgement.service);
            let (reason, class) = (judgement.reason.as_str(), judgement.class.as_str());
            let text = format!("{service}: {class} from {} dropped, {reason}", headers.source);
            self.tell("drop", at, text);
        }
    }

    /// Everything the engine wants done.
    fn carry_out(&mut self) {
        let signals = self.engine.take_signals();
        if let Some(join) = &mut self.join {
            for signal in &signals {
                join.note(signal);
            }
        }
        self.carry_out_after(&signals);
    }

    fn carry_out_after(&mut self, signals: &[Arc<Signal>]) {
        for signal in signals {
            self.roster.handle_signal(signal);
            let (at, service) = (self.clock.to_utc(signal.at), self.service_name(signal.service));
            self.incidents.handle_signal(at, service, signal);
            self.habits.handle_signal(signal, &self.engine);
            if let Some(people) = &mut self.people {
                people.handle_signal(signal, at, service, &self.roster);
            }
        }
        while let Some(command) = self.engine.next_command() {
            self.carry_out_one(&command);
        }
    }

    fn carry_out_one(&mut self, command: &Command) {
        match command {
            Command::Ban { subject, until, explanation } => {
                // What an operator asks for was checked when it was asked.
                let brake = if is_operators(explanation) { None } else { self.brake(*subject) };
                if let Some(reason) = brake {
                    self.counts.refused += 1;
                    if self.log_budget.take() {
                        tracing::warn!(%subject, rule = %explanation.rule, reason, "A ban was refused by a brake");
                    }
                    self.tell("note", explanation.at, format!("{subject} was not banned: {reason}"));
                    self.engine.handle_order(Order::Unban { subject: *subject }, explanation.at);
                    return;
                }
                self.enforce(command);
                if !is_operators(explanation) {
                    self.enforcing.observe(self.clock.now().since(explanation.at).as_nanos() as f64 / 1e9);
                }
                self.record_ban(*subject, *until, explanation);
                self.cut(Victim::Prefix(*subject));
                let until_utc = rfc3339(self.clock.to_utc(*until));
                if is_operators(explanation) || self.log_budget.take() {
                    tracing::info!(%subject, rule = %explanation.rule, until = until_utc, "Banned");
                }
                self.tell_why("ban", &format!("{subject} until {until_utc}"), explanation);
                self.note_decision("ban", &subject.to_string(), explanation);
            }
            Command::Unban { subject } => {
                self.enforce(command);
                self.counts.lifted += 1;
                let at = self.clock.to_utc(self.clock.now());
                self.ledger.write(Entry::Lift { subject: *subject, at, why: "lifted" });
                // A ban that a crash forgets is found in the gate again; a lift would be forgotten for good.
                if !self.ledger.sync(LIFT_PATIENCE) {
                    tracing::warn!(%subject, "The lift is not on disk yet: a crash now would bring the ban back");
                }
                tracing::info!(%subject, "Ban lifted");
                self.tell("unban", self.clock.now(), subject.to_string());
            }
            Command::Know { address, until, by } => {
                self.enforce(command);
                let (address, by) = (*address, *by);
                self.ledger.write(if *until == Timestamp::EPOCH {
                    Entry::Unknown { address, by }
                } else {
                    Entry::Known(Known { address, until: self.clock.to_utc(*until), by })
                });
            }
            Command::Limit { address, explanation, .. } => {
                if self.brake(Prefix::host(*address)).is_none() {
                    self.enforce(command);
                    tracing::debug!(%address, rule = %explanation.rule, "Limited");
                    self.tell_why("limit", &address.to_string(), explanation);
                    self.note_decision("limit", &address.to_string(), explanation);
                }
            }
            Command::Release { address } => {
                self.enforce(command);
                tracing::debug!(%address, "No longer limited: they logged in after all");
            }
            Command::Reset { address, flow, explanation } => {
                self.cut(Victim::Flow(*flow));
                self.tell_why("reset", &address.to_string(), explanation);
                self.note_decision("reset", &address.to_string(), explanation);
            }
            Command::Note { explanation, .. } => {
                if self.log_budget.take() {
                    tracing::info!(rule = %explanation.rule, count = explanation.count, "Noted");
                }
                self.tell_why("note", &explanation.subject.to_string(), explanation);
                self.note_decision("note", &explanation.subject.to_string(), explanation);
            }
            Command::SetLevel { service, front, level, at, explanation } => {
                self.enforce(command);
                let name = self.service_name(*service);
                let (class, level) = (front.as_str(), level.as_str());
                tracing::info!(service = name, class, level, "Level changed");
                self.tell("level", *at, format!("{name} is now at level {level} for {class}"));
                if let Some(explanation) = explanation {
                    self.note_decision("raise-level", name, explanation);
                }
            }
            Command::BindUser { .. }
            | Command::FreeUser { .. }
            | Command::Ignore { .. }
            | Command::Follow { .. } => self.enforce(command),
        }
    }

    /// Writes a command into the gate's tables. A table that refuses is said loudly, once until it takes entries again.
    fn enforce(&mut self, command: &Command) {
        match self.enforcer.apply(command) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.counts.not_enforced += 1;
                if !self.failing {
                    self.failing = true;
                    tracing::error!(error = format!("{error:#}"), "A decision could not be put into force");
                }
            }
        }
    }

    /// Something was decided that could not be put into force.
    pub(crate) const fn note_not_enforced(&mut self) {
        self.counts.not_enforced += 1;
    }

    /// Bans made since the start.
    pub(crate) const fn bans_made(&self) -> u64 {
        self.counts.made
    }

    /// Why no rule may ban or limit a subject, if there is a reason.
    fn brake(&self, subject: Prefix) -> Option<&'static str> {
        if is_everybody(subject) {
            return Some("it is everybody");
        }
        self.neighbour(subject)
            .or_else(|| self.enforcer.allowed_overlap(subject).map(|_| "it is on the allow list"))
    }

    /// Who would be hit that no ban is meant for: this host, its gateways, its operators.
    fn neighbour(&self, subject: Prefix) -> Option<&'static str> {
        if self.local.iter().any(|local| subject.contains(*local)) {
            return Some("it holds an address of this host");
        }
        if self.gateways.iter().any(|gateway| subject.contains(*gateway)) {
            return Some("it holds a gateway of this host, and with it everybody behind that");
        }
        let now = self.clock.now();
        if self.operators.iter().any(|(address, until)| *until > now && subject.contains(*address)) {
            return Some("an operator sits there");
        }
        None
    }

    fn record_ban(&mut self, subject: Prefix, until: Timestamp, explanation: &Explanation) {
        self.counts.made += 1;
        let utc = |at| self.clock.to_utc(at).as_nanos();
        self.ledger.write(Entry::Ban(Box::new(BanRow {
            subject: subject.to_string(),
            since: utc(explanation.at),
            until: utc(until),
            gate_until: self.clock.to_gate(until),
            boot: self.clock.boot_id().to_owned(),
            rule: explanation.rule.to_string(),
            why: explanation.why.to_string(),
            counted: explanation.subject.to_string(),
            offender: explanation.offender.to_string(),
            count: explanation.count,
            threshold: explanation.limit,
            within: explanation.within.as_nanos(),
            evidence: explanation.evidence.clone(),
            ended_at: None,
            ended_why: None,
        })));
    }

    fn cut(&mut self, victim: Victim) {
        self.order_cut(vec![victim]);
        if self.cutter.is_some() && self.unsettled.len() < UNSETTLED_MAX {
            self.unsettled.push((victim, CUT_AGAIN));
        }
    }

    fn order_cut(&self, victims: Vec<Victim>) {
        let Some(cutter) = &self.cutter else { return };
        // Hundreds of hosts a second are banned in an attack, and tens of thousands of connections are looked through.
        let (mut hosts, mut others) = (HashSet::new(), Vec::new());
        for victim in &victims {
            match victim {
                Victim::Prefix(subject) if subject.is_host() => drop(hosts.insert(subject.address())),
                Victim::Prefix(_) | Victim::Flow(_) => others.push(*victim),
            }
        }
        let is_meant =
            |ends: &Ends| hosts.contains(&ends.key.client) || others.iter().any(|victim| victim.owns(ends));
        let ends = self.engine.streams().ends().filter(is_meant).collect();
        cutter.cut(cut::Order { at: self.clock.now(), victims, ports: self.guard.tcp_ports(), ends });
    }

    /// Orders the cuts of the last seconds once more, by what has been seen since.
    fn cut_again(&mut self) {
        if self.unsettled.is_empty() {
            return;
        }
        self.order_cut(self.unsettled.iter().map(|(victim, _)| *victim).collect());
        self.unsettled.retain_mut(|(_, left)| {
            *left -= 1;
            *left > 0
        });
    }

    fn tell(&self, kind: &str, at: Timestamp, text: String) {
        if self.watchers.any() {
            self.watchers.tell(Watched { at: rfc3339(self.clock.to_utc(at)), kind: kind.into(), text });
        }
    }

    fn tell_why(&self, kind: &str, whom: &str, explanation: &Explanation) {
        self.tell(kind, explanation.at, format!("{whom}, {}: {}", explanation.rule, explanation.why));
    }

    /// For the record of incidents: whatever a rule did. What operators do is theirs to know.
    fn note_decision(&mut self, action: &'static str, subject: &str, explanation: &Explanation) {
        if is_operators(explanation) {
            return;
        }
        let is_grave = !matches!(action, "limit" | "reset");
        if action != "raise-level" {
            self.worst.note(action, subject, &explanation.rule, explanation.at);
        }
        if matches!(action, "ban" | "limit" | "reset")
            && let Ok(address) = subject.split('/').next().unwrap_or(subject).parse::<std::net::IpAddr>()
            && !self.engine.is_known(address.into(), explanation.at)
        {
            self.habits.leave_out(address.into(), explanation.at);
        }
        if !self.settings.observe && self.notifier.wants(&explanation.rule) {
            let at = rfc3339(self.clock.to_utc(explanation.at));
            self.notifier.tell(&explanation.rule, &Message::new(action, at, subject, explanation));
        }
        let decision = Decision { action, subject, explanation, is_grave };
        self.incidents.handle_decision(self.clock.to_utc(explanation.at), &decision);
    }

    /// Tells other people from now on: rules and configuration were read again.
    pub(crate) fn set_notifier(&mut self, notifier: Notifier) {
        self.notifier = notifier;
    }

    pub(crate) fn service_name(&self, service: u8) -> &'static str {
        self.guard.services.get(usize::from(service)).map_or("unguarded", |service| service.name)
    }

    /// Lets time pass: call it about once a second. `clock_was_set` says that the system's clock jumped.
    pub(crate) fn handle_tick(&mut self, clock_was_set: bool) {
        let now = self.clock.now();
        let until = self.clock.to_gate(now + HEARTBEAT);
        let beat = self.enforcer.store.change_status(&mut |status| status.heartbeat_until = until);
        if let Err(error) = beat {
            tracing::error!(
                error = format!("{error:#}"),
                "The gate cannot be told that its controller is alive"
            );
        }
        self.engine.set_calendar(now, self.clock.to_utc(now));
        self.engine.handle_timeout(now);
        self.cut_again();
        self.keep_learnt();
        self.habits.handle_tick();
        self.carry_out();
        self.incidents.handle_tick(self.clock.to_utc(now));
        if let Some(left_out) = self.log_budget.handle_tick(now) {
            tracing::warn!(
                left_out,
                "Decisions of the last minute were left out of this log; floodwall bans has them"
            );
        }
        if clock_was_set {
            tracing::warn!("The system's clock was set; deadlines hold by the gate's clock");
            let offset = i128::from(self.clock.to_utc(now).as_nanos()) - i128::from(self.clock.to_gate(now));
            let offset = i64::try_from(offset).unwrap_or(i64::MAX);
            self.ledger.write(Entry::Shift { boot: self.clock.boot_id().to_owned(), offset });
        }
        if now >= self.slowly_at {
            self.slowly_at = now + SLOWLY;
            self.handle_slowly();
        }
        if now >= self.purge_at {
            self.purge_at = now + PURGE_EVERY;
            self.keep_habits();
            self.ledger.write(Entry::Purge { now: self.clock.to_utc(now) });
            self.incidents.purge(self.clock.to_utc(now));
            if let Some(people) = &self.people {
                people.purge(self.clock.to_utc(now));
            }
        }
    }

    fn handle_slowly(&mut self) {
        self.gateways = addresses::gateways();
        self.local = addresses::local_addresses();
        self.spare_neighbours();
        if let Some(people) = &mut self.people {
            people.flush();
        }
        match self.enforcer.expire() {
            Ok(count) => self.counts.expired += count as u64,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "Entries that are over could not be removed")
            }
        }
    }

    /// No list concerns this host, its gateways and its operators.
    fn spare_neighbours(&mut self) {
        let now = self.clock.now();
        let operators = self.operators.iter().filter(|(_, until)| *until > now).map(|(address, _)| *address);
        let spared = self.local.iter().chain(&self.gateways).copied().chain(operators).collect();
        if let Err(error) = self.enforcer.spare(spared) {
            tracing::error!(error = format!("{error:#}"), "Lists may ban neighbours of this host");
        }
    }

    /// Other lists from now on.
    ///
    /// # Errors
    /// When they cannot be written; those before stay in force.
    pub(crate) fn set_lists(&mut self, lists: Lists) -> Result<()> {
        self.spare_neighbours();
        self.enforcer.set_lists(lists)
    }

    /// Addresses of this host, as of the last look.
    pub(crate) fn local(&self) -> &[Address] {
        &self.local
    }

    /// Whether `--confirm` was given and its time has passed without a word.
    pub(crate) fn must_revert(&self) -> bool {
        self.settings.confirm_by.is_some_and(|by| self.clock.now() >= by)
    }

    /// Somebody at this address gives orders: it is never banned.
    pub(crate) fn remember_operator(&mut self, address: Address) {
        let until = self.clock.now() + OPERATOR_FOR;
        self.operators.retain(|(known, _)| *known != address);
        if self.operators.len() >= OPERATORS_MAX {
            self.operators.remove(0);
        }
        self.operators.push((address, until));
        self.spare_neighbours();
    }

    /// Sets how long the gate learns, and whether it drops at all.
    pub(crate) fn begin(&mut self, learning: Span) -> Result<()> {
        self.learning_until = self.clock.now() + learning;
        let until = self.clock.to_gate(self.learning_until);
        let observe = self.settings.observe;
        self.enforcer.store.change_status(&mut |status| {
            status.learning_until = status.learning_until.max(until);
            status.levels = Default::default();
            status.flags &= !status_flags::OBSERVE;
            status.flags |= if observe { status_flags::OBSERVE } else { 0 };
        })
    }
}

impl<S> Wall<S> {
    /// How far regulars came towards limits, to disk.
    fn keep_habits(&mut self) {
        for (rule, address, peak) in self.habits.settle(self.clock.now()) {
            let peak = peak.map(|peak| Peak { at: self.clock.to_utc(peak.at), ..peak });
            self.ledger.write(Entry::Peak { rule, address, peak });
        }
    }
}

/// What is being recorded ends with the wall.
impl<S> Drop for Wall<S> {
    fn drop(&mut self) {
        self.keep_habits();
        self.incidents.finish(self.clock.to_utc(self.clock.now()));
    }
}

/// A packet as the gate saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seen {
    Arriving(Judgement),
    Departing { service: u8, class: floodwall_wire::Class },
}

impl Seen {
    /// From a record of the mirror; `None` for one that no version of the gate writes.
    pub(crate) fn of(record: &floodwall_wire::mirror::Record) -> Option<Self> {
        let class = floodwall_wire::Class::from_number(record.class)?;
        if record.direction == floodwall_wire::mirror::DEPARTING {
            return Some(Self::Departing { service: record.service, class });
        }
        Some(Self::Arriving(Judgement {
            reason: Reason::from_number(record.reason)?,
            service: record.service,
            class,
            standing: floodwall_wire::tables::Standing::from_number(record.standing)?,
            bytes: record.packet_bytes,
        }))
    }
}

fn is_tcp(headers: &Headers) -> bool {
    headers.transport == floodwall_wire::frame::Transport::Tcp
}

/// Rule of what operators do.
pub(crate) const OPERATOR_RULE: &str = "floodwall/operator";

/// Whether a prefix holds all of IPv4 or of IPv6.
fn is_everybody(subject: Prefix) -> bool {
    subject.contains(Address::from_v4(0)) && subject.bits() <= 96
}

fn is_operators(explanation: &Explanation) -> bool {
    &*explanation.rule.0 == OPERATOR_RULE
}

fn explanation_of(row: &BanRow, subject: Prefix, at: Timestamp) -> Explanation {
    let offender = row
        .offender
        .parse::<std::net::IpAddr>()
        .map_or_else(|_not_an_address| subject.address(), Address::from);
    Explanation {
        rule: RuleId(row.rule.clone().into()),
        why: row.why.clone().into(),
        subject: if subject.is_host() {
            Subject::Address(subject.address())
        } else {
            Subject::Prefix(subject.address())
        },
        offender,
        at,
        count: row.count,
        limit: row.threshold,
        within: Span::from_nanos(row.within),
        evidence: row.evidence.clone(),
    }
}
