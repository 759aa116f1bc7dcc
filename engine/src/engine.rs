//! The engine: the only place that knows the order of the stages.
//!
//! A packet goes in with its time ([`Engine::handle_packet`]), commands come out ([`Engine::next_command`]);
//! between them lie stream → protocol → signal → rule → decision → ledger.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
};

use floodwall_wire::{Address, Reason, tables::Standing};

use crate::{
    baseline::{Baseline, Gauge, Learnt},
    catalogue::{Catalogue, Sort},
    command::{Command, Front, Prefix},
    decision::Decisions,
    identity::Identities,
    ledger::{Ban, Ledger},
    order::{GRACE, Order},
    packet::{Body, Packet},
    protocol::{
        Connection, Context, Dissector, Fact, Output, Progress, Protocol, Side,
        foreign::{Foreign, Head},
        irc::{self, link::LinkView},
        teamspeak, teamtalk,
    },
    rule::{Level, Rule, RuleId, evaluate::Evaluation},
    signal::{AtHand, Detail, FlowId, Signal, SignalKind},
    stream::{Ending, Event, Readers, Streams, Turn},
    time::{Span, Timestamp},
};

/// How often, in packet time, idle connections and bans that are over are looked for.
const HOUSEKEEPING: Span = Span::from_secs(1);
/// How often each connection is told that it is open still.
const ROUND: Span = Span::from_secs(15);

/// One guarded service, as the engine needs it.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it speaks.
    pub protocol: Protocol,
    /// TCP ports on which TeamSpeak's ServerQuery is spoken.
    pub query_ports: Vec<u16>,
    /// Its rules, in the order of their files.
    pub rules: Vec<Rule>,
    /// Server links of an IRC server, as the configuration names them.
    pub links: Vec<irc::link::Peer>,
    /// Proxies and web gateways of an IRC server: one address, many users.
    pub gateways: Vec<Address>,
}

/// What the engine is built from.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// By index of the service.
    pub services: Vec<Service>,
    /// Key of every hash table and content hash: random in production, fixed in tests.
    pub seed: u64,
}

/// How often each rule fired, with and without effect.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Fired {
    /// With effect.
    pub fired: u64,
    /// As a shadow: it would have.
    pub shadowed: u64,
}

/// From packets to commands.
#[derive(Debug)]
pub struct Engine {
    streams: Streams<Session>,
    conversations: Conversations,
    rules: Vec<Vec<Rule>>,
    evaluations: Vec<Evaluation>,
    identities: Identities,
    decisions: Decisions,
    baseline: Baseline,
    ledger: Ledger,
    /// By kind.
    signals: Vec<u64>,
    /// By service and rule.
    fired: Vec<Vec<Fired>>,
    commands: VecDeque<Command>,
    /// The signals of the last call, where somebody wants to see them.
    watched: Option<Vec<Arc<Signal>>>,
    housekeeping_at: Timestamp,
    round_at: Timestamp,
    now: Timestamp,
}

impl Engine {
    /// An engine that has seen nothing.
    pub fn new(configuration: Configuration) -> Self {
        let seed = configuration.seed;
        let services = configuration.services;
        Self {
            streams: Streams::new(seed),
            evaluations: services.iter().map(|service| Evaluation::new(&service.rules, seed)).collect(),
            rules: services.iter().map(|service| service.rules.clone()).collect(),
            conversations: Conversations::new(&services, seed),
            identities: Identities::new(seed),
            decisions: Decisions::new(seed),
            baseline: Baseline::new(services.len(), seed),
            ledger: Ledger::new(seed),
            signals: vec![0; SignalKind::ALL.len()],
            fired: services.iter().map(|service| vec![Fired::default(); service.rules.len()]).collect(),
            commands: VecDeque::new(),
            watched: None,
            housekeeping_at: Timestamp::EPOCH,
            round_at: Timestamp::EPOCH,
            now: Timestamp::EPOCH,
        }
    }

    /// Takes one packet of a guarded service, in either direction.
    pub fn handle_packet(&mut self, packet: &Packet<'_>) {
        self.handle_timeout(packet.at);
        self.note_stranger(packet);
        match packet.body {
            // What the gate drops for its shape never reaches the server, which would not have read it either.
            Body::Segment { ref tcp, payload, .. } if packet.reason.is_shape() => {
                if packet.reason == Reason::ShapeForeignProtocol
                    && let Some(flow) = self.streams.refuse(packet, tcp)
                {
                    self.conversations.on_refused(packet, flow, payload);
                }
            }
            Body::Segment { ref tcp, payload, .. } => {
                self.streams.handle_segment(packet, tcp, payload, &mut self.conversations);
            }
            Body::Datagram { payload, bytes } => self.conversations.on_datagram(packet, payload, bytes),
            Body::Other => {}
        }
        self.handle_output();
    }

    /// Takes a packet that the gate has dropped, where it is no part of any conversation: it only counts.
    pub fn handle_dropped(&mut self, packet: &Packet<'_>) {
        self.handle_timeout(packet.at);
        self.note_stranger(packet);
    }

    /// Strangers who ask for something are what the level is measured by. Whose ban stands is dealt with, and who was
    /// logged in lately is none: after a restart everybody comes at once.
    fn note_stranger(&mut self, packet: &Packet<'_>) {
        let is_banned = matches!(packet.reason, Reason::BanAddress | Reason::BanPrefix);
        if packet.from != Side::Client || packet.standing != Standing::Stranger || is_banned {
            return;
        }
        if let Some(front) = packet.asks()
            && !self.decisions.is_familiar(packet.client, packet.at)
        {
            self.baseline.note_stranger(packet.service, front, packet.client);
        }
    }

    /// What UTC is at an instant of the engine's clock: the hour of the week is UTC's. They are the same until this is called.
    pub const fn set_calendar(&mut self, now: Timestamp, utc: Timestamp) {
        self.baseline.set_calendar(now, utc);
    }

    /// Remembers how many strangers were usual in earlier runs.
    pub fn restore_baseline(&mut self, learnt: Learnt) {
        self.baseline.restore(learnt);
    }

    /// What was learnt of how many strangers are usual since this was called last.
    pub fn take_learnt(&mut self) -> Vec<Learnt> {
        self.baseline.take_learnt()
    }

    /// Whether somebody has logged in from there lately, in whatever way.
    pub fn is_familiar(&self, address: Address, at: Timestamp) -> bool {
        self.decisions.is_familiar(address, at)
    }

    /// Whether somebody has logged in from there with a password of their own.
    pub fn is_known(&self, address: Address, at: Timestamp) -> bool {
        self.decisions.is_known(address, at)
    }

    /// Whether an address is known by time spent where logins cannot be read.
    pub fn is_tenured(&self, address: Address, at: Timestamp) -> bool {
        self.decisions.is_tenured(address, at)
    }

    /// How many strangers come and how many are usual.
    pub fn gauge(&self, service: u8, front: Front) -> Gauge {
        self.baseline.gauge(service, front, self.now)
    }

    /// Takes a packet put together of fragments that contradicted each other, before the packet itself.
    pub fn handle_fragment_conflict(&mut self, packet: &Packet<'_>) {
        if packet.from == Side::Client {
            let signal = Signal::of_packet(SignalKind::FragmentConflict, packet, Detail::default());
            self.conversations.output.signals.push(signal);
        }
    }

    /// Takes what a server's log says happened, in the log's order. Whether it was somebody whose ban stands.
    pub fn handle_log(&mut self, at: Timestamp, signals: &mut Vec<Signal>) -> bool {
        self.handle_timeout(at);
        if !self.conversations.output.is_empty() {
            self.handle_output();
        }
        self.handle_signals(signals)
    }

    /// Whether a ban holds for an address, and until when.
    pub fn banned_until(&self, address: Address, at: Timestamp) -> Option<Timestamp> {
        self.ledger.ban_of(address, at).map(|ban| ban.until)
    }

    /// The latest time that was told.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The clock of what is read was set back: counting begins anew from there. Bans, people and levels stay.
    pub fn handle_clock_step(&mut self, at: Timestamp) {
        self.replace_rules(self.rules.clone());
        self.now = at;
        self.housekeeping_at = at;
        self.round_at = at;
    }

    /// Whether time that passes until then changes something: a ban is over, an alarm calms down.
    pub fn is_due(&self, at: Timestamp) -> bool {
        at >= self.housekeeping_at
    }

    /// Counts what somebody has done whose ban stands and who has no session: all that [`handle_log`](Self::handle_log) would
    /// do with it. Nothing may be [due](Self::is_due) at that time.
    pub fn handle_banned(&mut self, kind: SignalKind, at: Timestamp) {
        self.now = self.now.max(at);
        if let Some(tally) = self.signals.get_mut(kind as usize) {
            *tally = tally.saturating_add(1);
        }
    }

    /// Does what an operator says.
    pub fn handle_order(&mut self, order: Order, now: Timestamp) {
        self.handle_timeout(now);
        match order {
            Order::Ban { subject, until, explanation } => {
                let ban = Ban { since: now, until, explanation: explanation.clone() };
                if self.ledger.enter(subject, ban) {
                    self.commands.push_back(Command::Ban { subject, until, explanation });
                }
            }
            Order::Unban { subject } => {
                self.ledger.lift(subject);
                if subject.is_host() {
                    self.decisions.forgive(subject.address(), now, GRACE);
                }
                self.commands.push_back(Command::Unban { subject });
            }
        }
    }

    /// Remembers a ban of an earlier run; it is in force already.
    pub fn restore_ban(&mut self, subject: Prefix, ban: Ban, offences: u32) {
        if subject.is_host() {
            self.decisions.restore_offences(subject.address(), offences, ban.since);
        }
        self.ledger.enter(subject, ban);
    }

    /// Remembers a login with a password of an earlier run.
    pub fn restore_login(&mut self, address: Address, at: Timestamp) {
        self.decisions.restore_login(address, at);
    }

    /// Remembers who was known by tenure in an earlier run; answers whether there is room.
    pub fn restore_tenure(&mut self, address: Address, until: Timestamp) -> bool {
        self.decisions.restore_tenure(address, until)
    }

    /// Counts by other rules from now on. What the old ones had counted is forgotten; sessions, bans and levels stay.
    pub fn replace_rules(&mut self, rules: Vec<Vec<Rule>>) {
        let seed = self.conversations.seed;
        self.evaluations = rules.iter().map(|rules| Evaluation::new(rules, seed)).collect();
        // Counters go with their rule's name, wherever it stands now.
        let before: BTreeMap<RuleId, Fired> = self.fired().map(|(id, fired)| (id.clone(), fired)).collect();
        let counted = |rule: &Rule| before.get(&rule.id).copied().unwrap_or_default();
        self.fired = rules.iter().map(|rules| rules.iter().map(counted).collect()).collect();
        self.rules = rules;
    }

    /// Lets time pass.
    #[inline]
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        if now >= self.housekeeping_at {
            self.keep_house(now);
        }
    }

    fn keep_house(&mut self, now: Timestamp) {
        self.housekeeping_at = now + HOUSEKEEPING;
        self.streams.handle_timeout(now, &mut self.conversations);
        if now >= self.round_at {
            self.round_at = now + ROUND;
            self.streams.handle_passing_time(now, &mut self.conversations);
        }
        self.conversations.handle_timeout(now);
        self.handle_output();
        let mut shown = Vec::new();
        self.identities.handle_timeout(now, &mut shown);
        for signal in &shown {
            self.handle_signal(signal);
        }
        let mut commands = Vec::new();
        let mut pressures = Vec::new();
        let level = |service, front| self.decisions.level_of(service, front);
        self.baseline.handle_timeout(now, level, |pressure| pressures.push(pressure));
        for pressure in &pressures {
            self.decisions.handle_pressure(pressure, now, &mut commands);
        }
        self.decisions.handle_timeout(now, &mut commands);
        self.commands.extend(commands);
        self.ledger.expire(now);
    }

    /// The input is over: open connections end, open questions are settled.
    pub fn finish(&mut self) {
        self.streams.close_all(self.now, &mut self.conversations);
        self.handle_output();
        let mut commands = Vec::new();
        self.decisions.settle_all(&mut commands);
        self.commands.extend(commands);
    }

    /// Signals → rules → decisions; facts → commands.
    #[inline]
    fn handle_output(&mut self) {
        if self.streams.has_turns() || !self.conversations.output.facts.is_empty() {
            self.tell_turns_and_facts();
        }
        if self.conversations.output.signals.is_empty() {
            return;
        }
        let mut signals = std::mem::take(&mut self.conversations.output.signals);
        self.handle_signals(&mut signals);
        // Given back for its room: most packets say something.
        self.conversations.output.signals = signals;
    }

    fn tell_turns_and_facts(&mut self) {
        for turn in self.streams.take_turns() {
            self.commands.push_back(match turn {
                Turn::Opaque(flow) => Command::Ignore { flow },
                Turn::Over(flow) => Command::Follow { flow },
            });
        }
        for (service, owner, fact) in self.conversations.output.facts.drain(..) {
            self.commands.push_back(match fact {
                Fact::UserBound { user_id } => Command::BindUser { service, user_id, owner },
                Fact::UserFreed { user_id } => Command::FreeUser { service, user_id },
            });
        }
    }

    /// Signals → rules → decisions, and with them what they show about people. Whether one was of somebody whose ban stands.
    fn handle_signals(&mut self, signals: &mut Vec<Signal>) -> bool {
        let mut shown = Vec::new();
        let mut is_banned = false;
        for signal in signals.iter() {
            self.identities.handle_signal(signal, &mut shown);
            is_banned |= self.handle_signal(signal);
        }
        signals.clear();
        for signal in &shown {
            is_banned |= self.handle_signal(signal);
        }
        is_banned
    }

    /// From now on what no documentation has is added to this; see [`Self::catalogue`].
    pub fn keep_catalogue(&mut self, catalogue: Catalogue) {
        self.conversations.output.catalogue = Some(catalogue);
    }

    /// Hands the catalogue over and keeps none any more.
    pub const fn take_catalogue(&mut self) -> Option<Catalogue> {
        self.conversations.output.catalogue.take()
    }

    /// What was met that no documentation has, if that is kept.
    pub const fn catalogue(&self) -> Option<&Catalogue> {
        self.conversations.output.catalogue.as_ref()
    }

    /// From now on signals can be taken after each call; they are kept only if they are.
    pub fn watch_signals(&mut self) {
        self.watched = Some(Vec::new());
    }

    /// The signals since this was called last.
    pub fn take_signals(&mut self) -> Vec<Arc<Signal>> {
        self.watched.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Shows a signal to the rules and does what they find; answers whether it was of somebody whose ban stands.
    fn handle_signal(&mut self, signal: &Signal) -> bool {
        if let Some(tally) = self.signals.get_mut(signal.kind as usize) {
            *tally = tally.saturating_add(1);
        }
        let mut commands = Vec::new();
        // What a banned source still does in a capture would not have reached the server: it is reported, but
        // moves no rule. That its sessions end is true all the same: kept, they would make it look like several people.
        let is_banned = self.ledger.ban_of(signal.address, signal.at).is_some();
        if !is_banned || matches!(signal.kind, SignalKind::LoginEnded | SignalKind::ConnectionClosed) {
            self.decisions.handle_signal(signal, &mut commands);
        }
        if !commands.is_empty() {
            self.commands.extend(commands.drain(..));
        }
        let signal = AtHand::new(signal);
        if let Some(watched) = &mut self.watched {
            watched.push(signal.keep());
        }
        let service = usize::from(signal.service);
        let evaluation = self.evaluations.get_mut(service);
        if is_banned || evaluation.is_none_or(|evaluation| evaluation.passes(&signal)) {
            return is_banned;
        }
        if let (Some(rules), Some(evaluation)) = (self.rules.get(service), self.evaluations.get_mut(service))
        {
            let level = self.decisions.level_for_rules(signal.service, Front::of(signal.kind));
            let Self { decisions, ledger, fired, .. } = self;
            evaluation.handle_signal(rules, &signal, level, |rule, finding| {
                let stands = decisions.handle_finding(rule, &finding, ledger, &mut commands);
                let fired = fired.get_mut(service).and_then(|all| all.get_mut(finding.rule));
                if let Some(fired) = fired.filter(|_| stands) {
                    let counter = if rule.shadow { &mut fired.shadowed } else { &mut fired.fired };
                    *counter = counter.saturating_add(1);
                }
                stands
            });
        }
        if !commands.is_empty() {
            self.commands.extend(commands);
        }
        false
    }

    /// The next thing to be done.
    #[inline]
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let decisions = self.decisions.poll_timeout();
        let streams = (!self.streams.is_empty()).then_some(self.housekeeping_at);
        [decisions, streams].into_iter().flatten().min()
    }

    /// Signals since the start, by kind.
    pub fn signals(&self) -> impl Iterator<Item = (SignalKind, u64)> {
        SignalKind::ALL.iter().copied().zip(self.signals.iter().copied()).filter(|(_, count)| *count > 0)
    }

    /// Rules that fired since the start, service by service.
    pub fn fired(&self) -> impl Iterator<Item = (&RuleId, Fired)> {
        let numbered = self.rules.iter().flatten().zip(self.fired.iter().flatten());
        let fired = numbered.filter(|(_, fired)| **fired != Fired::default());
        fired.map(|(rule, fired)| (&rule.id, *fired))
    }

    /// What bounds and brakes have cost since the start, by name: whatever is not 0 weakens what is reported.
    pub fn losses(&self) -> [(&'static str, u64); 10] {
        let (flows_evicted, segments_refused) = self.streams.losses();
        let counters_evicted = self.evaluations.iter().map(|evaluation| evaluation.counters().1).sum();
        [
            ("connections let go for lack of room", flows_evicted),
            ("connection attempts let go for lack of room", self.streams.openings_lost()),
            ("segments not kept for lack of room", segments_refused),
            ("segments with a wrong checksum", self.streams.broken_segments()),
            ("counters let go for lack of room", counters_evicted),
            ("entries of server links not kept for lack of room", self.links_lost()),
            ("voice sessions not remembered for lack of room", self.voice_lost()),
            ("people not known by tenure for lack of room", self.decisions.tenures_refused()),
            ("bans that the brake made limits", self.decisions.bans_braked()),
            ("bans refused by a full ledger", self.ledger.refused()),
        ]
    }

    fn voice_lost(&self) -> u64 {
        let servers = self.conversations.servers.iter();
        let lost = servers.map(|(server, _)| match server {
            Server::TeamSpeak(server) => server.voice.lost(),
            Server::Irc(_) | Server::TeamTalk(_) => 0,
        });
        lost.sum()
    }

    /// By links that are over and by those that are open.
    fn links_lost(&self) -> u64 {
        let over = self.conversations.servers.iter().map(|(server, _)| match server {
            Server::Irc(server) => server.links().lost(),
            Server::TeamSpeak(_) | Server::TeamTalk(_) => 0,
        });
        let open = self.streams.flows().filter_map(|flow| match flow.session.as_ref()? {
            Session::Irc(session) => Some(session.link()?.lost()),
            Session::Opaque | Session::TeamSpeak(_) | Session::TeamTalk(_) => None,
        });
        over.chain(open).sum()
    }

    /// The bans that stand.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How alarmed one class of a service's traffic is.
    pub fn level_of(&self, service: u8, front: Front) -> Level {
        self.decisions.level_of(service, front)
    }

    /// How alarmed a service is, in whichever class of traffic it is most.
    pub fn level(&self, service: u8) -> Level {
        self.decisions.level(service)
    }

    /// What is known about each open IRC server link, with at most `rows` servers, users and channels each, ordered
    /// by service and peer. Nicknames and timestamps are what somebody needs who wants to take a channel over, so
    /// show them to those alone who may also change things.
    pub fn links(&self, rows: usize) -> Vec<LinkView> {
        let mut views: Vec<LinkView> = self
            .streams
            .flows()
            .filter_map(|flow| match flow.session.as_ref()? {
                Session::Irc(session) => Some(session.link()?.view(&flow.connection, rows)),
                Session::Opaque | Session::TeamSpeak(_) | Session::TeamTalk(_) => None,
            })
            .collect();
        views.sort_by(|one, other| {
            (one.service, &one.peer, one.opened).cmp(&(other.service, &other.peer, other.opened))
        });
        views
    }

    /// The connections that are followed.
    pub const fn streams(&self) -> &Streams<Session> {
        &self.streams
    }
}

/// A connection's reader. Its `Debug` form names the protocol alone: half a line with a password may be in it.
pub enum Session {
    /// IRC.
    Irc(Box<irc::Session>),
    /// Not read: file transfers.
    Opaque,
    /// TeamSpeak ServerQuery.
    TeamSpeak(Box<teamspeak::Session>),
    /// TeamTalk.
    TeamTalk(Box<teamtalk::Session>),
}

impl Session {
    /// Whether it was seen from its beginning and nobody has made anything of it.
    fn is_unused(&self, lasted: Span) -> bool {
        match self {
            Self::Irc(session) => session.is_unused(lasted),
            Self::TeamTalk(session) => session.is_unused(lasted),
            Self::TeamSpeak(session) => session.is_unused(),
            Self::Opaque => false,
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Irc(_) => "Irc",
            Self::Opaque => "Opaque",
            Self::TeamSpeak(_) => "TeamSpeak",
            Self::TeamTalk(_) => "TeamTalk",
        })
    }
}

/// What the connections of one service share.
#[derive(Debug)]
enum Server {
    Irc(Box<irc::Server>),
    TeamSpeak(Box<teamspeak::Server>),
    TeamTalk(Box<teamtalk::Server>),
}

/// Protocol knowledge: the readers' side of the streams.
#[derive(Debug)]
struct Conversations {
    servers: Vec<(Server, Vec<u16>)>,
    output: Output,
    seed: u64,
}

impl Conversations {
    fn new(services: &[Service], seed: u64) -> Self {
        let servers = services
            .iter()
            .map(|service| {
                let server = match service.protocol {
                    Protocol::Irc => {
                        let links = irc::link::Links::new(service.links.clone());
                        Server::Irc(Box::new(irc::Server::configured(links, service.gateways.clone(), seed)))
                    }
                    Protocol::TeamSpeak => Server::TeamSpeak(Box::new(teamspeak::Server::new(seed))),
                    Protocol::TeamTalk => Server::TeamTalk(Box::new(teamtalk::Server::new(seed))),
                };
                (server, service.query_ports.clone())
            })
            .collect();
        Self { servers, output: Output::default(), seed }
    }

    /// The first words on a connection were another protocol's, and the gate dropped them for it.
    fn on_refused(&mut self, packet: &Packet<'_>, flow: FlowId, payload: &[u8]) {
        let reason = Head::new().take(payload).map_or("foreign", Foreign::as_str);
        let detail = Detail { reason: Some(reason), weight: payload.len() as u64, ..Detail::default() };
        let signal = Signal::of_packet(SignalKind::ProtocolGarbage, packet, detail);
        self.output.signals.push(Signal { flow: Some(flow), ..signal });
    }

    /// What happens at voice ports without a packet.
    fn handle_timeout(&mut self, now: Timestamp) {
        for (service, (server, _)) in (0..).zip(&mut self.servers) {
            if let Server::TeamSpeak(server) = server {
                server.voice.handle_timeout(service, now, &mut self.output.signals);
            }
        }
    }

    fn on_datagram(&mut self, packet: &Packet<'_>, payload: &[u8], bytes: u32) {
        let signals = &mut self.output.signals;
        let Some((server, _)) = self.servers.get_mut(usize::from(packet.service)) else { return };
        if packet.from == Side::Server {
            match server {
                Server::TeamTalk(server) => server.on_answer(packet, payload, signals),
                Server::TeamSpeak(server) => server.voice.on_answer(packet, payload, signals),
                Server::Irc(_) => {}
            }
            return;
        }
        let before = signals.len();
        let is_older = matches!(server, Server::TeamTalk(server) if server.is_older_hello(payload));
        if packet.reason.is_shape() && !is_older {
            let reason = Some(packet.reason.as_str());
            let detail = Detail { reason, ..Detail::default() };
            signals.push(Signal::of_packet(SignalKind::DatagramMalformed, packet, detail));
            if let (Some(catalogue), Reason::ShapeKind) = (&mut self.output.catalogue, packet.reason) {
                // Junk comes from anybody; what a client says that is let in may be something new.
                let kind = match server {
                    Server::TeamTalk(server) if server.has_session(&packet.client) => {
                        payload.first().map(|kind| kind & 0x7f).filter(|kind| *kind > 22)
                    }
                    Server::TeamSpeak(server) if server.voice.has_session(packet) => {
                        payload.get(12).map(|kind| kind & 0x0f).filter(|kind| *kind > 8)
                    }
                    Server::TeamTalk(_) | Server::TeamSpeak(_) | Server::Irc(_) => None,
                };
                if let Some(kind) = kind {
                    catalogue.meet(
                        packet.at,
                        packet.service,
                        Sort::Datagram,
                        kind.to_string().as_bytes(),
                        b"",
                    );
                }
            }
        } else {
            match server {
                Server::TeamTalk(server) => server.on_datagram(packet, payload, signals),
                // What the gate drops never reaches the server, which would have answered.
                Server::TeamSpeak(server) if !packet.is_dropped() => {
                    server.voice.on_datagram(packet, payload, bytes, signals);
                }
                Server::TeamSpeak(_) | Server::Irc(_) => {}
            }
        }
        if signals.len() == before && packet.reason == Reason::StandingStranger {
            signals.push(Signal::of_packet(SignalKind::DatagramStranger, packet, Detail::default()));
        }
    }
}

/// Runs one call of whichever dissector a session has.
fn with_dissector(
    session: &mut Session,
    server: Option<&mut (Server, Vec<u16>)>,
    context: &mut Context<'_>,
    event: &Event<'_>,
) -> Progress {
    fn call<D: Dissector>(
        dissector: &mut D,
        server: &mut D::Server,
        context: &mut Context<'_>,
        event: &Event<'_>,
    ) -> Progress {
        match event {
            Event::Bytes(side, bytes) => return dissector.on_bytes(*side, bytes, server, context),
            Event::Gap(side, missed) => dissector.on_gap(*side, *missed, server, context),
            Event::Closed(_) => dissector.on_close(server, context),
            Event::StillOpen => dissector.on_passing_time(context),
            Event::Opened | Event::Conflict(_) => {}
        }
        Progress::Following
    }
    match (session, server.map(|(server, _)| server)) {
        (Session::TeamTalk(session), Some(Server::TeamTalk(server))) => {
            if let Event::Closed(ending) = event {
                session.note_ending(*ending);
            }
            call(&mut **session, server, context, event)
        }
        (Session::Irc(session), Some(Server::Irc(server))) => {
            if let Event::Closed(ending) = event {
                session.note_ending(*ending);
            }
            call(&mut **session, server, context, event)
        }
        (Session::TeamSpeak(session), Some(Server::TeamSpeak(server))) => {
            call(&mut **session, server, context, event)
        }
        _ => Progress::Opaque,
    }
}

impl Readers<Session> for Conversations {
    fn open(&mut self, connection: &Connection) -> Session {
        match self.servers.get(usize::from(connection.service)) {
            Some((Server::TeamTalk(_), _)) => Session::TeamTalk(Box::new(teamtalk::Session::new())),
            Some((Server::Irc(server), _)) => {
                let is_ours = server.links().is_ours(connection.server, connection.server_port);
                let make = if is_ours { irc::Session::of_link } else { irc::Session::new };
                Session::Irc(Box::new(make(connection)))
            }
            Some((Server::TeamSpeak(_), query_ports)) if query_ports.contains(&connection.server_port) => {
                Session::TeamSpeak(Box::new(teamspeak::Session::new(connection)))
            }
            Some((Server::TeamSpeak(_), _)) | None => Session::Opaque,
        }
    }

    fn tell(
        &mut self,
        connection: &Connection,
        session: &mut Session,
        at: Timestamp,
        event: Event<'_>,
    ) -> Progress {
        let server = self.servers.get_mut(usize::from(connection.service));
        let mut context = Context { at, connection, seed: self.seed, output: &mut self.output };
        if is_own_link(server.as_deref(), connection) {
            // What our own side opens is no visitor: only what is said on it counts.
            return with_dissector(session, server, &mut context, &event);
        }
        match &event {
            Event::Opened => context.signal(SignalKind::ConnectionOpened, Detail::default()),
            Event::Conflict(side) => {
                let command = Some(if *side == Side::Client { "client" } else { "server" });
                context.signal(SignalKind::StreamConflict, Detail { command, ..Detail::default() });
            }
            Event::Bytes(..) | Event::Gap(..) | Event::StillOpen | Event::Closed(_) => {}
        }
        let progress = with_dissector(session, server, &mut context, &event);
        if let Event::Closed(ending) = event {
            let detail = closing_detail(connection, at, ending);
            let lasted = at.since(connection.opened);
            if ending.is_of_the_connection() && !connection.midway && session.is_unused(lasted) {
                context.signal(SignalKind::ConnectionUnused, detail.clone());
            }
            context.signal(SignalKind::ConnectionClosed, detail);
        }
        progress
    }

    fn abandon(&mut self, connection: &Connection, at: Timestamp) {
        let server = self.servers.get(usize::from(connection.service));
        if !is_own_link(server, connection) {
            self.output.signals.push(Signal {
                kind: SignalKind::ConnectionAbandoned,
                at,
                service: connection.service,
                address: connection.client,
                // Anybody can begin a handshake in somebody else's name.
                flow: None,
                detail: Detail::default(),
            });
        }
    }

    fn is_protected(&self, session: &Session) -> bool {
        match session {
            Session::Irc(session) => session.is_logged_in(),
            Session::TeamSpeak(session) => session.is_logged_in(),
            Session::TeamTalk(session) => session.is_logged_in(),
            Session::Opaque => false,
        }
    }

    fn held_bytes(&self, session: &Session) -> usize {
        match session {
            Session::Irc(session) => session.held_bytes(),
            Session::TeamSpeak(session) => session.held_bytes(),
            Session::TeamTalk(session) => session.held_bytes(),
            Session::Opaque => 0,
        }
    }
}

/// Whether our side has opened this connection, to a peer that `[[link]]` names.
fn is_own_link(server: Option<&(Server, Vec<u16>)>, connection: &Connection) -> bool {
    matches!(server, Some((Server::Irc(server), _))
        if server.links().is_ours(connection.server, connection.server_port))
}

/// How it ended, and after how many milliseconds.
fn closing_detail(connection: &Connection, at: Timestamp, ending: Ending) -> Detail {
    let weight = at.since(connection.opened).as_nanos() / 1_000_000;
    Detail { reason: Some(ending.as_str()), weight, ..Detail::default() }
}
