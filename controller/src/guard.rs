//! From rule files and configuration to what the gate and the engine are set up with.

use std::{collections::BTreeMap, sync::Arc};

use floodwall_engine::{
    Configuration as EngineConfiguration, Engine, Packet, Protocol, Service, Side, Span, Timestamp,
    baseline::Learnt,
    limits::DISTINCT_MAX,
    protocol::irc::link::Peer,
    rule::{DefaultPorts, GateLimits, Rate, Rule, RuleFile, RuleId, diagnostic::suggest},
};
use floodwall_wire::{
    Address, Class, Judgement, Reason,
    frame::{Headers, Transport},
    limit::Limit,
    memory::{TableFull, Tables},
    tables::{
        KINDS, LEVELS, PORTS, Port, Prefix, Role, SERVICES_MAX, STANDINGS, ServiceSettings, Standing,
        service_flags, source_flags, status_flags,
    },
};

use crate::{
    cli::ServicePorts,
    configuration::{Configuration, Override},
    live::ledger::BaselineRow,
    notify,
};

/// One service to be guarded.
#[derive(Clone, Debug)]
pub(crate) struct GuardedService {
    pub(crate) name: &'static str,
    /// Where the configuration names it: file, line and column. Empty where it does not.
    place: Box<str>,
    pub(crate) file: RuleFile,
    ports: DefaultPorts,
    addresses: Vec<Address>,
    gateways: Vec<Address>,
}

/// Everything that is guarded.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) services: Vec<GuardedService>,
    links: Vec<Peer>,
    /// Where word can be sent.
    pub(crate) notify: notify::Settings,
    pub(crate) allow: Vec<(Address, u32)>,
}

impl Guard {
    /// The services of a configuration, or else every protocol that has rules, at its default ports; ports
    /// given on the command line replace those of their protocol and win over everybody else's.
    ///
    /// # Errors
    /// When a service has no rules or there are too many services.
    pub(crate) fn new(
        rules: Vec<RuleFile>,
        configuration: &Configuration,
        overrides: &[ServicePorts],
    ) -> Result<Self, String> {
        let mut services = Vec::new();
        if configuration.services.is_empty() {
            for file in rules {
                let ports = file.ports.clone();
                services.push(GuardedService::new(file, ports, Vec::new()));
            }
        } else {
            for entry in &configuration.services {
                let name = entry.protocol.as_str();
                let file = rules.iter().find(|file| file.protocol == entry.protocol).ok_or_else(|| {
                    format!("there are no rules for {name}: add a file with protocol = \"{name}\"")
                })?;
                let ports = if has_ports(&entry.ports) { entry.ports.clone() } else { file.ports.clone() };
                let mut service = GuardedService::new(file.clone(), ports, entry.addresses.clone());
                service.gateways.clone_from(&entry.gateways);
                service.place.clone_from(&entry.place);
                override_rules(&mut service.file, &entry.overrides)?;
                services.push(service);
            }
        }
        if services.len() > SERVICES_MAX {
            return Err(format!("more than {SERVICES_MAX} services"));
        }
        for given in overrides {
            let taken = |other: &&ServicePorts| {
                other.protocol != given.protocol && other.ports.iter().any(|port| given.ports.contains(port))
            };
            if let Some(other) = overrides.iter().find(taken) {
                let (one, other) = (given.protocol.as_str(), other.protocol.as_str());
                return Err(format!(
                    "--service names one port for {one} and for {other}: leave it to one of them"
                ));
            }
            apply_override(&mut services, given, overrides)?;
        }
        refuse_shared_ports(&services)?;
        let links = configuration.links.clone();
        let notify = configuration.notify.clone();
        Ok(Self { services, links, notify, allow: configuration.allow.clone() })
    }

    /// What `[[link]]` names.
    pub(crate) fn links(&self) -> &[Peer] {
        &self.links
    }

    /// The service that links belong to: the first IRC server.
    fn linked_service(&self) -> Option<usize> {
        self.services.iter().position(|service| service.file.protocol == Protocol::Irc)
    }

    /// Links that `[[link]]` names at ports that no `[[service]]` guards: those that our side opens, and ports for
    /// servers alone. They are read; the gate drops nothing of them.
    fn unguarded_links(&self) -> impl Iterator<Item = &Peer> {
        let guarded = self.tcp_ports();
        self.links
            .iter()
            .filter(move |peer| peer.opened_by_us || !peer.ports.iter().all(|port| guarded.contains(port)))
    }

    /// The packet of a link at a port that is not guarded, which the caller has found out.
    pub(crate) fn link_packet<'a>(
        &self,
        at: Timestamp,
        frame: &'a [u8],
        headers: &Headers,
    ) -> Option<Packet<'a>> {
        if headers.transport != Transport::Tcp || self.links.is_empty() {
            return None;
        }
        let (source, destination) = (headers.source, headers.destination);
        let from = self.links.iter().find_map(|peer| {
            let is_peer = |address| peer.addresses.contains(&address);
            let is_port = |port| peer.ports.contains(&port);
            let (to, from) = if peer.opened_by_us { (destination, source) } else { (source, destination) };
            match () {
                () if is_port(headers.destination_port) && is_peer(to) => Some(Side::Client),
                () if is_port(headers.source_port) && is_peer(from) => Some(Side::Server),
                () => None,
            }
        })?;
        let service = u8::try_from(self.linked_service()?).ok()?;
        let class = Class::TcpPayload;
        Some(match from {
            Side::Client => {
                let (reason, standing) = (Reason::Admitted, Standing::Allowed);
                let judgement =
                    Judgement { reason, service, class, standing, bytes: headers.transport_bytes };
                Packet::arriving(at, frame, headers, &judgement)
            }
            Side::Server => Packet::departing(at, frame, headers, service, class),
        })
    }

    /// The links at ports that are not guarded, as a filter of libpcap, where there are any.
    pub(crate) fn link_filter(&self) -> Option<String> {
        let links = self.link_terms();
        (!links.is_empty()).then(|| tagged_too(&links.join(" or ")))
    }

    fn link_terms(&self) -> Vec<String> {
        let one = |peer: &Peer| {
            let hosts: Vec<String> =
                peer.addresses.iter().map(|address| format!("host {}", address.to_ip())).collect();
            let ports: Vec<String> = peer.ports.iter().map(|port| format!("tcp port {port}")).collect();
            format!("(({}) and ({}))", hosts.join(" or "), ports.join(" or "))
        };
        self.unguarded_links().map(one).collect()
    }

    /// How long the gate learns before anything is dropped for lack of standing: twice the longest time-out of
    /// a service that asks for standing.
    pub(crate) fn learning_time(&self) -> Span {
        let timeouts = self.services.iter().filter(|service| service.file.require_session);
        timeouts.map(|service| service.file.user_timeout).max().unwrap_or(Span::ZERO).saturating_mul(2)
    }

    /// What the engine is built from.
    pub(crate) fn engine(&self, seed: u64) -> EngineConfiguration {
        let linked = self.linked_service();
        let services = self.services.iter().enumerate().map(|(index, service)| Service {
            protocol: service.file.protocol,
            query_ports: service.ports.query.clone(),
            rules: service.file.rules.clone(),
            gateways: service.gateways.clone(),
            links: if linked == Some(index) { self.links.clone() } else { Vec::new() },
        });
        EngineConfiguration { services: services.collect(), seed }
    }

    /// Names of the services by index, each its own: of several of one protocol the second is `teamtalk#2`.
    pub(crate) fn service_keys(&self) -> Vec<String> {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut key = |service: &GuardedService| {
            let count = seen.entry(service.name).and_modify(|count| *count += 1).or_insert(1);
            if *count == 1 { service.name.to_owned() } else { format!("{}#{count}", service.name) }
        };
        self.services.iter().map(&mut key).collect()
    }

    /// Has an engine remember what is usual here. Services that are not guarded are passed over.
    pub(crate) fn restore_baseline(&self, engine: &mut Engine, rows: &[BaselineRow]) {
        let keys = self.service_keys();
        for row in rows {
            let service = keys.iter().position(|key| *key == row.service);
            if let Some(Ok(service)) = service.map(u8::try_from) {
                let (front, hour, slot) = (row.class, row.hour, row.slot.clone());
                engine.restore_baseline(Learnt { service, front, hour, slot });
            }
        }
    }

    /// Whom each rule wants to be told.
    pub(crate) fn notified(&self) -> Vec<(RuleId, Vec<Box<str>>)> {
        let rules = self.services.iter().flat_map(|service| &service.file.rules);
        rules.map(|rule| (rule.id.clone(), rule.notify.clone())).collect()
    }

    /// Rules by service, as the engine counts.
    pub(crate) fn rules(&self) -> Vec<Vec<Rule>> {
        self.services.iter().map(|service| service.file.rules.clone()).collect()
    }

    /// What a capture has to show, as a filter of libpcap: guarded ports either way, links, tagged frames too.
    pub(crate) fn capture_filter(&self) -> String {
        let mut ports = Vec::new();
        for service in &self.services {
            let (tcp, udp) = service.ports_by_transport();
            ports.extend(tcp.into_iter().map(|port| format!("tcp port {port}")));
            ports.extend(udp.into_iter().map(|port| format!("udp port {port}")));
        }
        ports.extend(self.link_terms());
        tagged_too(&ports.join(" or "))
    }

    /// Every guarded TCP port.
    pub(crate) fn tcp_ports(&self) -> Arc<[u16]> {
        self.services.iter().flat_map(|service| service.ports_by_transport().0).collect()
    }

    /// All ports of a generation, as the kernel holds them.
    pub(crate) fn port_block(&self) -> Box<[Port; PORTS]> {
        let mut tables = Tables::new(0);
        for (index, service) in self.services.iter().enumerate() {
            let number = u8::try_from(index).unwrap_or(u8::MAX);
            for (transport, port, role) in service.guarded_ports() {
                tables.set_port(0, transport, port, Port::guarded(number, role));
            }
        }
        let mut block = Box::new([Port::UNGUARDED; PORTS]);
        block.copy_from_slice(tables.ports(0));
        block
    }

    /// The limits of every service the gate knows a number for; those that are not guarded have none.
    pub(crate) fn all_settings(&self) -> Vec<ServiceSettings> {
        let mut all = vec![ServiceSettings::default(); SERVICES_MAX];
        for (slot, service) in all.iter_mut().zip(&self.services) {
            *slot = service.settings();
        }
        all
    }

    /// Addresses that services are limited to; none for every address of this host.
    pub(crate) fn listed_addresses(&self) -> Vec<Address> {
        let all = self.services.iter().flat_map(|service| service.addresses.iter().copied());
        let mut all: Vec<Address> = all.collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whose session a connection to a TCP port is, and how long it proves its address.
    pub(crate) fn session_of(&self, port: u16) -> Option<(u8, Span)> {
        let index =
            self.services.iter().position(|service| service.ports_by_transport().0.contains(&port))?;
        let timeout = self.services.get(index)?.file.user_timeout.saturating_mul(2);
        Some((u8::try_from(index).ok()?, timeout))
    }

    /// What differs from another set of rules, a line each.
    pub(crate) fn differences(&self, before: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (new, old) in self.services.iter().zip(&before.services) {
            let name = new.name;
            if new.ports != old.ports {
                lines.push(format!("{name}: other ports"));
            }
            if new.file.limits != old.file.limits {
                lines.push(format!("{name}: other limits of the gate"));
            }
            let find = |rules: &'_ [Rule], id: &RuleId| rules.iter().position(|rule| rule.id == *id);
            for rule in &new.file.rules {
                match find(&old.file.rules, &rule.id).and_then(|index| old.file.rules.get(index)) {
                    None => lines.push(format!("{}: new", rule.id)),
                    Some(old) if format!("{old:?}") != format!("{rule:?}") => {
                        lines.push(format!("{}: changed", rule.id));
                    }
                    Some(_) => {}
                }
            }
            for rule in &old.file.rules {
                if find(&new.file.rules, &rule.id).is_none() {
                    lines.push(format!("{}: gone", rule.id));
                }
            }
        }
        if self.allow != before.allow {
            lines.push("the allow list: changed".to_owned());
        }
        lines
    }

    /// Gate tables for a capture: the named ports at every address, unless the configuration lists addresses.
    ///
    /// # Errors
    /// When the allow list does not fit.
    pub(crate) fn tables(&self, seed: u64) -> Result<Tables, TableFull> {
        let mut tables = Tables::new(seed);
        let mut everywhere = true;
        for (index, service) in self.services.iter().enumerate() {
            let number = u8::try_from(index).unwrap_or(u8::MAX);
            for (transport, port, role) in service.guarded_ports() {
                tables.set_port(0, transport, port, Port::guarded(number, role));
            }
            tables.set_settings(0, number, service.settings());
            for address in &service.addresses {
                everywhere = false;
                tables.insert_local(*address);
            }
        }
        if everywhere {
            tables.status_mut().flags |= status_flags::ANY_ADDRESS;
        }
        // In a capture there is no controller to lose: what it knows is fresh.
        tables.status_mut().heartbeat_until = u64::MAX;
        for (address, bits) in &self.allow {
            let prefix = Prefix { flags: source_flags::ALLOWED, ..Prefix::default() };
            tables.insert_prefix(*address, *bits, prefix)?;
        }
        Ok(tables)
    }
}

/// A filter of libpcap that looks behind a VLAN tag too: `vlan` moves where the words after it look.
fn tagged_too(filter: &str) -> String {
    format!("({filter}) or (vlan and ({filter}))")
}

/// A port can be guarded for one protocol only, and once at the same addresses.
fn refuse_shared_ports(services: &[GuardedService]) -> Result<(), String> {
    let mut owners: BTreeMap<(Transport, u16), (usize, &GuardedService)> = BTreeMap::new();
    for (index, service) in services.iter().enumerate() {
        for (transport, port, _) in service.guarded_ports() {
            if let Some((other, owner)) = owners.insert((transport, port), (index, service))
                && other != index
                && (owner.name != service.name || owner.addresses == service.addresses)
            {
                let place =
                    if service.place.is_empty() { String::new() } else { format!("{}: ", service.place) };
                let (one, other) = (owner.name, service.name);
                return Err(format!(
                    "{place}port {port} is named for {one} and for {other}: leave it to one of them"
                ));
            }
        }
    }
    Ok(())
}

/// What the configuration says otherwise than the rule files.
fn override_rules(file: &mut RuleFile, overrides: &[Override]) -> Result<(), String> {
    for change in overrides {
        if !change.apply(&mut file.rules) {
            let remedy =
                suggest(&change.rule.0, file.rules.iter().map(|rule| &*rule.id.0)).unwrap_or_default();
            return Err(format!("{}: there is no rule \"{}\"; {remedy}", change.place, change.rule));
        }
        let counts_different = |rule: &&Rule| rule.distinct.is_some() && rule.limit as usize > DISTINCT_MAX;
        if let Some(rule) = file.rules.iter().find(counts_different) {
            return Err(format!(
                "{}: the limit of \"{}\" is {}, and of different values no more than {DISTINCT_MAX} are told apart",
                change.place, rule.id, rule.limit
            ));
        }
    }
    Ok(())
}

/// Ports given for a protocol belong to it alone.
fn apply_override(
    services: &mut [GuardedService],
    given: &ServicePorts,
    overrides: &[ServicePorts],
) -> Result<(), String> {
    let name = given.protocol.as_str();
    if !services.iter().any(|service| service.file.protocol == given.protocol) {
        return Err(format!("there are no rules for {name}: add a file with protocol = \"{name}\""));
    }
    for service in services {
        if service.file.protocol == given.protocol {
            let mut all = overrides.iter().filter(|other| other.protocol == given.protocol);
            let ports: Vec<u16> = all.by_ref().flat_map(|other| other.ports.iter().copied()).collect();
            service.ports = sort_by_role(&service.file.ports, &ports);
        } else {
            for ports in service.ports.lists_mut() {
                ports.retain(|port| !given.ports.contains(port));
            }
        }
    }
    Ok(())
}

/// A port that is one of the protocol's usual ones for something else keeps that meaning.
fn sort_by_role(usual: &DefaultPorts, given: &[u16]) -> DefaultPorts {
    let mut ports = DefaultPorts::default();
    for port in given {
        if usual.query.contains(port) {
            ports.query.push(*port);
        } else if usual.files.contains(port) {
            ports.files.push(*port);
        } else if usual.plain.contains(port) {
            ports.plain.push(*port);
        } else {
            ports.main.push(*port);
        }
    }
    ports
}

const fn has_ports(ports: &DefaultPorts) -> bool {
    !(ports.main.is_empty() && ports.query.is_empty() && ports.files.is_empty() && ports.plain.is_empty())
}

impl GuardedService {
    fn new(file: RuleFile, ports: DefaultPorts, addresses: Vec<Address>) -> Self {
        let place = Box::default();
        Self { name: file.protocol.as_str(), place, file, ports, addresses, gateways: Vec::new() }
    }

    /// TCP and UDP ports.
    pub(crate) fn ports_by_transport(&self) -> (Vec<u16>, Vec<u16>) {
        let (tcp, udp): (Vec<_>, Vec<_>) =
            self.guarded_ports().into_iter().partition(|(transport, ..)| *transport == Transport::Tcp);
        let ports =
            |entries: Vec<(Transport, u16, Role)>| entries.into_iter().map(|(_, port, _)| port).collect();
        (ports(tcp), ports(udp))
    }

    fn guarded_ports(&self) -> Vec<(Transport, u16, Role)> {
        let ports = &self.ports;
        let entries = |list: &[u16], transport, role| -> Vec<(Transport, u16, Role)> {
            list.iter().map(|port| (transport, *port, role)).collect()
        };
        match self.file.protocol {
            Protocol::TeamTalk => {
                let mut all = entries(&ports.main, Transport::Tcp, Role::TeamTalk);
                all.extend(entries(&ports.main, Transport::Udp, Role::TeamTalk));
                all
            }
            Protocol::Irc => {
                let mut all = entries(&ports.main, Transport::Tcp, Role::Irc);
                all.extend(entries(&ports.plain, Transport::Tcp, Role::IrcPlain));
                all
            }
            Protocol::TeamSpeak => {
                let mut all = entries(&ports.main, Transport::Udp, Role::TeamSpeakVoice);
                all.extend(entries(&ports.query, Transport::Tcp, Role::TeamSpeakQuery));
                all.extend(entries(&ports.files, Transport::Tcp, Role::TeamSpeakFiles));
                all
            }
        }
    }

    fn settings(&self) -> ServiceSettings {
        let mut flags = 0;
        if self.file.require_session {
            flags |= service_flags::REQUIRE_SESSION;
        }
        if self.file.require_own_id {
            flags |= service_flags::REQUIRE_OWN_ID;
        }
        let limits = &self.file.limits;
        ServiceSettings {
            flags,
            proof_for: self.file.user_timeout.saturating_mul(2).as_nanos(),
            source: source_limits(limits),
            network: shared_limits(&limits.network, limits),
            service: shared_limits(&limits.service, limits),
        }
    }
}

/// A level tightens strangers' limits; the known and the proven feel nothing.
fn source_limits(limits: &GateLimits) -> [[[Limit; KINDS]; STANDINGS]; LEVELS] {
    let mut all = [[[Limit::OFF; KINDS]; STANDINGS]; LEVELS];
    for (by_standing, divisor) in all.iter_mut().zip(limits.divisors) {
        for ((by_kind, rates), standing) in by_standing.iter_mut().zip(&limits.source).zip(Standing::ALL) {
            let divisor = if standing == Standing::Stranger { divisor } else { 1 };
            fill(by_kind, rates, divisor);
        }
    }
    all
}

fn shared_limits(rates: &[Rate; KINDS], limits: &GateLimits) -> [[Limit; KINDS]; LEVELS] {
    let mut all = [[Limit::OFF; KINDS]; LEVELS];
    for (by_kind, divisor) in all.iter_mut().zip(limits.divisors) {
        fill(by_kind, rates, divisor);
    }
    all
}

fn fill(limits: &mut [Limit; KINDS], rates: &[Rate; KINDS], divisor: u64) {
    for (limit, rate) in limits.iter_mut().zip(rates) {
        *limit = to_limit(*rate, divisor);
    }
}

fn to_limit(rate: Rate, divisor: u64) -> Limit {
    let Some(interval) = rate.per.as_nanos().saturating_mul(divisor).checked_div(rate.units) else {
        return Limit::OFF;
    };
    let interval = interval.max(1);
    Limit { interval, tolerance: interval.saturating_mul((rate.burst / divisor).max(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules;

    fn guard(overrides: &[&str]) -> Guard {
        let overrides: Vec<ServicePorts> = overrides.iter().map(|text| text.parse().unwrap()).collect();
        Guard::new(rules::load(None).unwrap(), &Configuration::default(), &overrides).unwrap()
    }

    fn ports_of(guard: &Guard, name: &str) -> Vec<(Transport, u16, Role)> {
        guard.services.iter().find(|service| service.name == name).unwrap().guarded_ports()
    }

    #[test]
    fn ports_given_replace_the_default_ones_and_win() {
        let guard = guard(&["teamtalk=6667,10335", "teamspeak=9988,10011"]);
        assert_eq!(
            ports_of(&guard, "teamtalk").iter().map(|(_, port, _)| *port).collect::<Vec<_>>(),
            [6667, 10_335, 6667, 10_335]
        );
        assert!(!ports_of(&guard, "irc").iter().any(|(_, port, _)| *port == 6667));
        assert_eq!(
            ports_of(&guard, "teamspeak"),
            [(Transport::Udp, 9988, Role::TeamSpeakVoice), (Transport::Tcp, 10_011, Role::TeamSpeakQuery)]
        );
    }

    #[test]
    fn a_port_named_for_two_services_is_refused() {
        let overrides = ["teamtalk=10333", "irc=10333"].map(|text| text.parse().unwrap());
        let error =
            Guard::new(rules::load(None).unwrap(), &Configuration::default(), &overrides).unwrap_err();
        assert_eq!(error, "--service names one port for teamtalk and for irc: leave it to one of them");
        let entry = |protocol| crate::configuration::ServiceEntry {
            place: Box::default(),
            protocol,
            ports: DefaultPorts { main: vec![10_333], ..DefaultPorts::default() },
            addresses: Vec::new(),
            overrides: Vec::new(),
            gateways: Vec::new(),
        };
        let services = vec![entry(Protocol::TeamTalk), entry(Protocol::Irc)];
        let configuration = Configuration { services, ..Configuration::default() };
        let error = Guard::new(rules::load(None).unwrap(), &configuration, &[]).unwrap_err();
        assert_eq!(error, "port 10333 is named for teamtalk and for irc: leave it to one of them");
    }

    #[test]
    fn levels_tighten_strangers_and_nobody_else() {
        let guard = guard(&[]);
        let settings = guard.services.iter().find(|service| service.name == "teamtalk").unwrap().settings();
        let interval =
            |level: usize, standing: Standing| settings.source[level][standing as usize][0].interval;
        assert_eq!(interval(2, Standing::Stranger), 4 * interval(0, Standing::Stranger));
        for standing in [Standing::Proven, Standing::Known, Standing::Limited, Standing::Allowed] {
            assert_eq!(interval(2, standing), interval(0, standing));
        }
    }
}
