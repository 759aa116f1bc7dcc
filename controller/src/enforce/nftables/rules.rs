//! Our table: its sets, chains and rules. What stands in the sets is [`super::elements`]'s.
//!
//! The order of the rules is that of the gate: allowed, banned, limited, known, then prefixes, then who is proven, then
//! strangers. Names are words of nft's own language, so that a saved ruleset can be read again.

use std::{borrow::Cow, collections::HashSet};

use floodwall_engine::{
    Protocol,
    rule::{GateLimits, Rate},
};
use floodwall_wire::{
    Address, Reason,
    tables::{Kind, PROOFS_MAX, SOURCES_MAX, Standing},
};
use nftables::{
    expr::{BinaryOperation, Elem, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadBase},
    expr::{PayloadField, PayloadRaw, SetItem, Verdict},
    schema::{
        Chain, Counter, NfCmd, NfListObject, NfObject, Rule, Set, SetFlag, SetType, SetTypeValue, Table,
    },
    stmt::{self, JumpTarget, Limit, Match, Meter, Operator, Statement, VerdictMap},
    types::{NfChainPolicy, NfChainType, NfFamily, NfHook},
};

use crate::guard::Guard;

/// The one table that is ours.
pub(crate) const TABLE: &str = "floodwall";
/// Before everything but the reassembly of fragments: what is dropped costs nobody anything.
const ARRIVING_PRIORITY: i32 = -350;
/// After every translation of addresses: what departs bears the guarded port again.
const DEPARTING_PRIORITY: i32 = 300;
/// A source that has been silent for so long is counted anew.
const METER_SECONDS: u32 = 60;
/// An element that is replaced stands twice until the change is in force.
const SET_SIZE: u32 = 2 * SOURCES_MAX;
/// FIN, SYN, RST and ACK, and of them SYN alone: a connection that begins.
const BEGINS: (u32, u32) = (0x17, 0x02);
/// SYN, RST and PSH, and of them PSH alone: something was said.
const SAYS: (u32, u32) = (0x0e, 0x08);
/// What TeamSpeak's handshake begins with, in both directions; everything else is said to clients only.
const TS3_HANDSHAKE: u32 = u32::from_be_bytes(*b"TS3I");

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) const fn of(address: Address) -> Self {
        if address.is_v4() { Self::V4 } else { Self::V6 }
    }

    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::V4 => "4",
            Self::V6 => "6",
        }
    }

    const fn header(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    const fn set_type(self) -> SetType {
        match self {
            Self::V4 => SetType::Ipv4Addr,
            Self::V6 => SetType::Ipv6Addr,
        }
    }

    /// The bits by which a stranger is told from others: an IPv6 host has a whole /64.
    const fn stranger_mask(self) -> Option<&'static str> {
        match self {
            Self::V4 => None,
            Self::V6 => Some("ffff:ffff:ffff:ffff::"),
        }
    }

    const fn network_mask(self) -> &'static str {
        match self {
            Self::V4 => "255.255.255.0",
            Self::V6 => "ffff:ffff:ffff::",
        }
    }
}

/// Lists of addresses, each a set per family.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum List {
    Allowed,
    Banned,
    Limited,
    Known,
}

impl List {
    pub(super) const ALL: [Self; 4] = [Self::Allowed, Self::Banned, Self::Limited, Self::Known];
    /// Those that prefixes can stand on.
    pub(super) const OF_PREFIXES: [Self; 3] = [Self::Allowed, Self::Banned, Self::Limited];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Banned => "banned",
            Self::Limited => "limited",
            Self::Known => "known",
        }
    }

    pub(super) fn of_addresses(self, family: Family) -> String {
        format!("{}{}", self.as_str(), family.suffix())
    }

    pub(super) fn of_prefixes(self, family: Family) -> String {
        format!("{}_prefixes{}", self.as_str(), family.suffix())
    }
}

/// The addresses that are guarded.
pub(super) fn guarded(family: Family) -> String {
    format!("guarded{}", family.suffix())
}

/// Whom a service has answered.
pub(super) fn proven(service: usize, family: Family) -> String {
    format!("proven{}.{service}", family.suffix())
}

/// Ports at which nothing is dropped yet for lack of a session.
pub(super) const LEARNING: &str = "learning";
/// Ports at which strangers are held tighter, by transport (UDP, TCP) and level.
pub(super) const ALARMED: [[&str; 2]; 2] = [["elevated_udp", "attack_udp"], ["elevated_tcp", "attack_tcp"]];

/// Everything the rules depend on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Shape {
    interfaces: Vec<String>,
    pub(super) services: Vec<ServiceShape>,
}

/// What the rules of one service depend on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ServiceShape {
    pub(super) tcp: Vec<u16>,
    pub(super) udp: Vec<u16>,
    /// Datagrams are for those who hold a session over TCP.
    pub(super) requires_session: bool,
    /// Who is spoken to by UDP is proven.
    answers_by_udp: bool,
    pub(super) proof_seconds: u32,
    limits: GateLimits,
}

impl Shape {
    pub(crate) fn new(guard: &Guard, interfaces: &[String]) -> Self {
        let service = |service: &crate::guard::GuardedService| {
            let (tcp, udp) = service.ports_by_transport();
            ServiceShape {
                tcp,
                udp,
                requires_session: service.file.require_session && service.file.protocol == Protocol::TeamTalk,
                answers_by_udp: service.file.protocol == Protocol::TeamSpeak,
                proof_seconds: u32::try_from(service.file.user_timeout.saturating_mul(2).as_secs())
                    .unwrap_or(u32::MAX),
                limits: service.file.limits,
            }
        };
        Self { interfaces: interfaces.to_vec(), services: guard.services.iter().map(service).collect() }
    }

    /// The whole table with empty sets, in place of what bears its name.
    pub(super) fn objects(&self) -> Vec<NfObject<'static>> {
        let mut objects = vec![add(table()), NfObject::CmdObject(NfCmd::Delete(table())), add(table())];
        self.add_sets(&mut objects);
        for service in 0..self.services.len() {
            for reason in COUNTED {
                let name = Cow::from(counter_name(service, reason));
                let (family, table) = (NfFamily::INet, TABLE.into());
                objects.push(add(NfListObject::Counter(Counter {
                    family,
                    table,
                    name,
                    ..Counter::default()
                })));
            }
        }
        for (number, service) in self.services.iter().enumerate() {
            let rules = Rules { number, limits: &service.limits };
            objects.extend(rules.udp(service));
            objects.extend(rules.tcp());
        }
        objects.extend(self.arriving());
        objects.extend(self.departing());
        objects
    }

    fn add_sets(&self, objects: &mut Vec<NfObject<'static>>) {
        let timed: &[SetFlag] = &[SetFlag::Timeout];
        for family in Family::ALL {
            let mut set = |name, flags: &[SetFlag], size| {
                objects.push(add(set(name, family.set_type(), flags, size)));
            };
            set(guarded(family), &[], None);
            for list in List::ALL {
                set(list.of_addresses(family), timed, Some(SET_SIZE));
            }
            for list in List::OF_PREFIXES {
                set(list.of_prefixes(family), &[SetFlag::Interval, SetFlag::Timeout], None);
            }
            for service in 0..self.services.len() {
                set(proven(service, family), timed, Some(2 * PROOFS_MAX));
            }
        }
        for name in ALARMED.as_flattened().iter().chain(&[LEARNING]) {
            objects.push(add(set((*name).to_owned(), SetType::InetService, timed, None)));
        }
    }

    /// What comes in at the guarded interfaces, to the guarded addresses and ports; all else is none of ours.
    fn arriving(&self) -> Vec<NfObject<'static>> {
        let chain_name = "arriving";
        let mut objects = vec![base_chain(chain_name, NfHook::Prerouting, ARRIVING_PRIORITY)];
        let interfaces = self.interfaces.iter().map(|name| SetItem::Element(word(name.clone()))).collect();
        let at = Expression::Named(NamedExpression::Meta(Meta { key: MetaKey::Iifname }));
        let elsewhere = compare(at, Operator::NEQ, Expression::Named(NamedExpression::Set(interfaces)));
        objects.push(rule(chain_name, vec![elsewhere, Statement::Accept(None)]));
        for family in Family::ALL {
            let unguarded =
                compare(field(family.header(), "daddr"), Operator::NEQ, set_name(&guarded(family)));
            objects.push(rule(chain_name, vec![unguarded, Statement::Accept(None)]));
        }
        for transport in ["tcp", "udp"] {
            let mut targets = Vec::new();
            for (number, service) in self.services.iter().enumerate() {
                for port in if transport == "tcp" { &service.tcp } else { &service.udp } {
                    let target = JumpTarget { target: format!("{transport}.{number}").into() };
                    targets.push(SetItem::Mapping(
                        Expression::Number(u32::from(*port)),
                        Expression::Verdict(Verdict::Jump(target)),
                    ));
                }
            }
            if !targets.is_empty() {
                let data = Expression::Named(NamedExpression::Set(targets));
                let jump = Statement::VerdictMap(VerdictMap { key: field(transport, "dport"), data });
                objects.push(rule(chain_name, vec![jump]));
            }
        }
        objects
    }

    /// What the server says proves whom it says it to: a source that was forged never hears an answer that it could go on
    /// from.
    fn departing(&self) -> Vec<NfObject<'static>> {
        let chain_name = "departing";
        let mut objects = vec![base_chain(chain_name, NfHook::Postrouting, DEPARTING_PRIORITY)];
        for (number, service) in self.services.iter().enumerate() {
            for family in Family::ALL {
                let from = compare(field(family.header(), "saddr"), Operator::EQ, set_name(&guarded(family)));
                let proves = Statement::Set(stmt::Set {
                    op: stmt::SetOp::Update,
                    elem: timed(field(family.header(), "daddr"), Some(service.proof_seconds)),
                    set: format!("@{}", proven(number, family)).into(),
                });
                if !service.tcp.is_empty() {
                    let port = compare(field("tcp", "sport"), Operator::EQ, port_set(&service.tcp));
                    let statements = vec![from.clone(), port, tcp_flags(SAYS), proves.clone()];
                    objects.push(rule(chain_name, statements));
                }
                if service.answers_by_udp && !service.udp.is_empty() {
                    let port = compare(field("udp", "sport"), Operator::EQ, port_set(&service.udp));
                    let raw = PayloadRaw { base: PayloadBase::TH, offset: 64, len: 32 };
                    let begins = Expression::Named(NamedExpression::Payload(Payload::PayloadRaw(raw)));
                    let client = compare(begins, Operator::NEQ, Expression::Number(TS3_HANDSHAKE));
                    objects.push(rule(chain_name, vec![from, port, client, proves]));
                }
            }
        }
        objects
    }
}

/// Reasons that nftables drops for, each with a counter per service.
pub(super) const COUNTED: [Reason; 6] = [
    Reason::BanAddress,
    Reason::BanPrefix,
    Reason::StandingStranger,
    Reason::LimitSource,
    Reason::LimitPrefix,
    Reason::LimitService,
];

pub(super) fn counter_name(service: usize, reason: Reason) -> String {
    format!("{}/{service}", reason.as_str())
}

/// The rules of one service.
struct Rules<'a> {
    number: usize,
    limits: &'a GateLimits,
}

impl Rules<'_> {
    /// Datagrams. Greetings are not told from the others: both limits together hold for all.
    fn udp(&self, service: &ServiceShape) -> Vec<NfObject<'static>> {
        let kinds = [Kind::Greeting, Kind::Datagram];
        let mut objects = self.common("udp", &kinds, |_| Some(Vec::new()));
        let chain_name = format!("udp.{}", self.number);
        if service.requires_session {
            let learnt = compare(field("udp", "dport"), Operator::NEQ, set_name(LEARNING));
            objects.push(rule(&chain_name, self.dropping(vec![learnt], Reason::StandingStranger)));
        }
        self.strangers("udp", &kinds, &mut objects);
        for (level, divisor) in self.limits.divisors.into_iter().enumerate().rev() {
            if let Some(limit) = limit_over(&self.limits.service, &kinds, divisor) {
                let mut statements = at_level("udp", level);
                statements.push(Statement::Limit(limit));
                objects.push(rule(&chain_name, self.dropping(statements, Reason::LimitService)));
            }
        }
        objects
    }

    /// Only the beginnings of connections are limited. Above what strangers share they meet the kernel's SYN cookies.
    fn tcp(&self) -> Vec<NfObject<'static>> {
        let kinds = [Kind::Syn];
        let chain_name = format!("tcp.{}", self.number);
        let mut objects = self.common("tcp", &kinds, |standing| match standing {
            // Whoever is allowed pays for datagrams alone, whose senders can be forged.
            Standing::Allowed => None,
            Standing::Stranger | Standing::Proven | Standing::Known | Standing::Limited => {
                Some(vec![tcp_flags(BEGINS)])
            }
        });
        let mut goes_on = tcp_flags(BEGINS);
        if let Statement::Match(test) = &mut goes_on {
            test.op = Operator::NEQ;
        }
        objects.push(rule(&chain_name, vec![goes_on, Statement::Accept(None)]));
        self.strangers("tcp", &kinds, &mut objects);
        objects
    }

    /// Everybody of whom anything is known. `also` is what a packet must be too to count; without it nothing is limited.
    fn common(
        &self,
        transport: &str,
        kinds: &[Kind],
        also: impl Fn(Standing) -> Option<Vec<Statement<'static>>>,
    ) -> Vec<NfObject<'static>> {
        let chain_name = format!("{transport}.{}", self.number);
        let mut objects = vec![add(NfListObject::Chain(Chain {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: chain_name.clone().into(),
            ..Chain::default()
        }))];
        for family in Family::ALL {
            let source = || field(family.header(), "saddr");
            let on = |name: &str| compare(source(), Operator::EQ, set_name(name));
            let limited = |objects: &mut Vec<NfObject<'static>>, name: &str, standing: Standing| {
                let limits = self.limits.source.get(standing as usize);
                let limit = limits.and_then(|limits| limit_over(limits, kinds, 1));
                if let (Some(limit), Some(also)) = (limit, also(standing)) {
                    let mut statements = vec![on(name)];
                    statements.extend(also);
                    statements.push(meter(format!("{transport}.{name}.{}", self.number), source(), limit));
                    objects.push(rule(&chain_name, self.dropping(statements, Reason::LimitSource)));
                }
            };
            let (addresses, prefixes) =
                (|list: List| list.of_addresses(family), |list: List| list.of_prefixes(family));
            let accepted = |name: &str| rule(&chain_name, vec![on(name), Statement::Accept(None)]);
            let dropped = |name: &str, reason| rule(&chain_name, self.dropping(vec![on(name)], reason));
            limited(&mut objects, &addresses(List::Allowed), Standing::Allowed);
            objects.push(accepted(&addresses(List::Allowed)));
            objects.push(dropped(&addresses(List::Banned), Reason::BanAddress));
            limited(&mut objects, &addresses(List::Limited), Standing::Limited);
            limited(&mut objects, &addresses(List::Known), Standing::Known);
            objects.push(accepted(&addresses(List::Known)));
            limited(&mut objects, &prefixes(List::Allowed), Standing::Allowed);
            objects.push(accepted(&prefixes(List::Allowed)));
            objects.push(dropped(&prefixes(List::Banned), Reason::BanPrefix));
            limited(&mut objects, &prefixes(List::Limited), Standing::Limited);
            let proven = proven(self.number, family);
            limited(&mut objects, &proven, Standing::Proven);
            objects.push(accepted(&proven));
        }
        objects
    }

    /// Everybody else: by source, then by network, tighter while the port is alarmed.
    fn strangers(&self, transport: &str, kinds: &[Kind], objects: &mut Vec<NfObject<'static>>) {
        let chain_name = format!("{transport}.{}", self.number);
        let own = self.limits.source.get(Standing::Stranger as usize);
        for (level, divisor) in self.limits.divisors.into_iter().enumerate().rev() {
            for family in Family::ALL {
                let source = || field(family.header(), "saddr");
                let host = match family.stranger_mask() {
                    Some(mask) => masked(source(), mask),
                    None => source(),
                };
                for (what, key, rates, reason) in [
                    ("source", host, own, Reason::LimitSource),
                    (
                        "network",
                        masked(source(), family.network_mask()),
                        Some(&self.limits.network),
                        Reason::LimitPrefix,
                    ),
                ] {
                    if let Some(limit) = rates.and_then(|rates| limit_over(rates, kinds, divisor)) {
                        let name = format!("{transport}.{what}{}.{}.{level}", family.suffix(), self.number);
                        let mut statements = at_level(transport, level);
                        statements.push(meter(name, key, limit));
                        objects.push(rule(&chain_name, self.dropping(statements, reason)));
                    }
                }
            }
        }
    }

    fn dropping(&self, mut statements: Vec<Statement<'static>>, reason: Reason) -> Vec<Statement<'static>> {
        statements.push(Statement::Counter(stmt::Counter::Named(counter_name(self.number, reason).into())));
        statements.push(Statement::Drop(None));
        statements
    }
}

/// Sources that are silent for a while make room; while there is none, those without a place are not counted.
fn meter(name: String, key: Expression<'static>, limit: Limit<'static>) -> Statement<'static> {
    let key = timed(key, Some(METER_SECONDS));
    Statement::Meter(Meter { name: name.into(), key, stmt: Box::new(Statement::Limit(limit)) })
}

/// Nothing at level normal, which holds always.
fn at_level(transport: &str, level: usize) -> Vec<Statement<'static>> {
    let sets = ALARMED.get(usize::from(transport == "tcp"));
    let set = level.checked_sub(1).and_then(|above| sets?.get(above));
    set.map(|set| compare(field(transport, "dport"), Operator::EQ, set_name(set))).into_iter().collect()
}

/// What is over the limits of these kinds together; nothing where one of them has none.
///
/// nft counts whole packets in a second, a minute, an hour or a day: the shortest of these that is at most a fiftieth
/// too generous.
fn limit_over(rates: &[Rate], kinds: &[Kind], divisor: u64) -> Option<Limit<'static>> {
    const PERIODS: [(&str, u64); 4] = [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400)];
    let divisor = u128::from(divisor.max(1));
    let rates: Vec<&Rate> = kinds.iter().filter_map(|kind| rates.get(*kind as usize)).collect();
    if rates.iter().any(|rate| rate.units == 0 || rate.per.as_nanos() == 0) {
        return None;
    }
    // Thousandths of a unit in a period.
    let within = |seconds: u64| -> u128 {
        let of = |rate: &&Rate| {
            u128::from(rate.units) * u128::from(seconds) * 1_000_000_000_000
                / (u128::from(rate.per.as_nanos()) * divisor)
        };
        rates.iter().map(of).sum()
    };
    let whole = |seconds: u64| within(seconds).div_ceil(1_000).max(1);
    let is_close =
        |seconds: u64| (whole(seconds) * 1_000).saturating_sub(within(seconds)) * 50 <= within(seconds);
    let (per, seconds) =
        PERIODS.into_iter().find(|(_, seconds)| is_close(*seconds)).unwrap_or(("day", 86_400));
    let burst = rates.iter().map(|rate| u128::from(rate.burst)).sum::<u128>() / divisor;
    Some(Limit {
        rate: u32::try_from(whole(seconds)).unwrap_or(u32::MAX),
        rate_unit: None,
        per: Some(per.into()),
        burst: Some(u32::try_from(burst.max(1)).unwrap_or(u32::MAX)),
        burst_unit: None,
        inv: Some(true),
    })
}

pub(super) const fn add(object: NfListObject<'static>) -> NfObject<'static> {
    NfObject::CmdObject(NfCmd::Add(object))
}

pub(super) fn table() -> NfListObject<'static> {
    NfListObject::Table(Table { family: NfFamily::INet, name: TABLE.into(), handle: None })
}

fn set(name: String, set_type: SetType, flags: &[SetFlag], size: Option<u32>) -> NfListObject<'static> {
    NfListObject::Set(Box::new(Set {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        set_type: SetTypeValue::Single(set_type),
        flags: (!flags.is_empty()).then(|| flags.iter().copied().collect::<HashSet<_>>()),
        size,
        ..Set::default()
    }))
}

fn base_chain(name: &'static str, hook: NfHook, priority: i32) -> NfObject<'static> {
    add(NfListObject::Chain(Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        _type: Some(NfChainType::Filter),
        hook: Some(hook),
        prio: Some(priority),
        policy: Some(NfChainPolicy::Accept),
        ..Chain::default()
    }))
}

fn rule(chain: &str, statements: Vec<Statement<'static>>) -> NfObject<'static> {
    add(NfListObject::Rule(Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: chain.to_owned().into(),
        expr: statements.into(),
        ..Rule::default()
    }))
}

fn compare(left: Expression<'static>, op: Operator, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}

fn tcp_flags((mask, value): (u32, u32)) -> Statement<'static> {
    let flags = BinaryOperation::AND(field("tcp", "flags"), Expression::Number(mask));
    compare(Expression::BinaryOperation(Box::new(flags)), Operator::EQ, Expression::Number(value))
}

fn field(protocol: &str, field: &'static str) -> Expression<'static> {
    let field = PayloadField { protocol: protocol.to_owned().into(), field: field.into() };
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(field)))
}

fn masked(value: Expression<'static>, mask: &'static str) -> Expression<'static> {
    Expression::BinaryOperation(Box::new(BinaryOperation::AND(value, word(mask.to_owned()))))
}

pub(super) fn word(text: String) -> Expression<'static> {
    Expression::String(text.into())
}

fn set_name(name: &str) -> Expression<'static> {
    word(format!("@{name}"))
}

fn port_set(ports: &[u16]) -> Expression<'static> {
    let port = |port: &u16| SetItem::Element(Expression::Number(u32::from(*port)));
    Expression::Named(NamedExpression::Set(ports.iter().map(port).collect()))
}

/// An element that lasts for so many seconds, or for good.
pub(super) fn timed(value: Expression<'static>, seconds: Option<u32>) -> Expression<'static> {
    match seconds {
        None => value,
        Some(_) => Expression::Named(NamedExpression::Elem(Elem {
            val: Box::new(value),
            timeout: seconds,
            ..Elem::default()
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodwall_engine::Span;

    #[test]
    fn rates_become_the_shortest_period_that_is_close() {
        let rate = |units, seconds, burst| Rate { units, per: Span::from_secs(seconds), burst };
        let over = |greeting, datagram, divisor| {
            let limit =
                limit_over(&[greeting, datagram], &[Kind::Greeting, Kind::Datagram], divisor).unwrap();
            (limit.rate, limit.per.unwrap().into_owned(), limit.burst.unwrap())
        };
        assert_eq!(over(rate(10, 1, 40), rate(10, 1, 50), 1), (20, "second".to_owned(), 90));
        assert_eq!(over(rate(10, 1, 40), rate(10, 1, 50), 4), (5, "second".to_owned(), 22));
        assert_eq!(over(rate(1, 2, 1), rate(1, 1, 1), 1), (90, "minute".to_owned(), 2));
        assert_eq!(over(rate(1, 86_400, 1), rate(1, 86_400, 1), 1), (2, "day".to_owned(), 2));
        let off = Rate { units: 0, per: Span::from_secs(1), burst: 0 };
        assert_eq!(limit_over(&[off, rate(1, 1, 1)], &[Kind::Greeting, Kind::Datagram], 1), None);
    }
}
