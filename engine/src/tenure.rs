//! Tenure: standing for those whose logins cannot be read, over TLS and at TeamSpeak's voice port.
//!
//! What counts is time on one connection on which the server has spoken unasked, as it does to those whom it has let in; TeamTalk
//! keeps whoever pings. Ten minutes of it, on end, while nothing is wrong, make an address known for a week. A client that
//! asks for something every few seconds all the time, and one that nobody ever joins, are not known by this.
//! Cheap for regulars, who are there anyway; dear for attackers:
//!
//! - only whole minutes count, of a connection as old as that: many short ones are worth nothing;
//! - while the service is alarmed no minute counts, so nobody buys standing during the attack it is for;
//! - whoever is limited, cut off or banned begins again, a day later at the earliest, and is known no longer;
//! - at most [`TENURED_PER_SITE`] addresses of one IPv4 /24 or IPv6 /48 are known by it at a time, and [`TENURED_MAX`] in all.
//!   Nobody is pushed out for a newcomer.
//!
//! Guests whose login can be read earn nothing by sitting there.

use std::collections::BTreeMap;

use floodwall_wire::Address;

use crate::{
    bounded::BoundedMap,
    limits::{SESSIONS_PER_ADDRESS_MAX, SUBJECTS_MAX},
    rule::evaluate::site,
    signal::{FlowId, Method, Signal, SignalKind},
    time::{Span, Timestamp},
};

/// How long an address stays known by tenure after its last ten minutes.
pub const TENURED_FOR: Span = Span::from_secs(7 * 24 * 3_600);
/// Whole minutes on end that make somebody known.
pub const TENURE_MINUTES: u8 = 10;
/// Addresses of one IPv4 /24 or IPv6 /48 that are known by tenure at a time.
pub const TENURED_PER_SITE: usize = 4;
/// Addresses that are known by tenure at a time.
pub const TENURED_MAX: usize = 8_192;
const MINUTE: Span = Span::from_secs(60);
/// Whoever was stopped earns nothing for so long.
const BARRED_FOR: Span = Span::from_secs(24 * 3_600);

/// Who is there, for how long, and who is known by it.
#[derive(Debug)]
pub struct Tenures {
    held: BoundedMap<Address, Tenure>,
    /// Until when, by address.
    tenured: BTreeMap<Address, Timestamp>,
    /// How many of them, by site.
    sites: BTreeMap<Address, usize>,
    minute_at: Timestamp,
    refused: u64,
}

/// One address.
#[derive(Debug, Default)]
struct Tenure {
    service: u8,
    /// Connections whose logins cannot be read, and since when the server has spoken unasked on them.
    flows: BTreeMap<FlowId, Option<Timestamp>>,
    /// Sessions at the voice port, and since when there is one.
    voice: u32,
    voice_since: Timestamp,
    minutes: u8,
    barred_until: Timestamp,
}

impl Tenure {
    fn is_present(&self) -> bool {
        !self.flows.is_empty() || self.voice > 0
    }

    /// Whether a session has been there for the whole of the last minute.
    fn has_stayed(&self, now: Timestamp) -> bool {
        let stays = |since: Timestamp| now.since(since) >= MINUTE;
        self.flows.values().flatten().any(|since| stays(*since))
            || (self.voice > 0 && stays(self.voice_since))
    }
}

impl Tenures {
    /// Nobody there; `seed` keys the table.
    pub fn new(seed: u64) -> Self {
        Self {
            held: BoundedMap::new(SUBJECTS_MAX, seed),
            tenured: BTreeMap::new(),
            sites: BTreeMap::new(),
            minute_at: Timestamp::EPOCH,
            refused: 0,
        }
    }

    /// Learns who comes and goes.
    pub fn handle_signal(&mut self, signal: &Signal) {
        let is_voice = signal.detail.method == Some(Method::Identity);
        let (begins, ends) = if is_voice {
            (signal.kind == SignalKind::LoginSucceeded, signal.kind == SignalKind::LoginEnded)
        } else {
            let begins = matches!(signal.kind, SignalKind::TlsHandshake | SignalKind::TlsAddressed);
            (begins, signal.kind == SignalKind::ConnectionClosed)
        };
        let tenure = match (begins, ends) {
            (true, _) => self.tenure(signal),
            (false, true) => self.held.touch(&signal.address, signal.at),
            (false, false) => return,
        };
        let Some(tenure) = tenure else { return };
        match (is_voice, signal.flow) {
            (true, _) if ends => tenure.voice = tenure.voice.saturating_sub(1),
            (true, _) => {
                if tenure.voice == 0 {
                    tenure.voice_since = signal.at;
                }
                tenure.voice = tenure.voice.saturating_add(1);
            }
            (false, Some(flow)) if ends => {
                tenure.flows.remove(&flow);
            }
            (false, Some(flow))
                if tenure.flows.len() < SESSIONS_PER_ADDRESS_MAX || tenure.flows.contains_key(&flow) =>
            {
                let since = tenure.flows.entry(flow).or_default();
                if signal.kind == SignalKind::TlsAddressed {
                    since.get_or_insert(signal.at);
                }
            }
            (false, _) => {}
        }
    }

    fn tenure(&mut self, signal: &Signal) -> Option<&mut Tenure> {
        let tenure = self.held.touch_or_insert(
            &signal.address,
            signal.at,
            Tenure::default,
            |tenure| !tenure.is_present(),
            |_, _| {},
        )?;
        tenure.service = signal.service;
        Some(tenure)
    }

    /// Whether somebody is there whose login cannot be read.
    pub fn is_present(&self, address: &Address) -> bool {
        self.held.get(address).is_some_and(Tenure::is_present)
    }

    /// Whether an address is known by tenure.
    pub fn is_tenured(&self, address: &Address, now: Timestamp) -> bool {
        self.tenured.get(address).is_some_and(|until| *until > now)
    }

    /// Somebody was stopped by a rule. Answers whether they were known by tenure until then.
    pub fn offend(&mut self, address: Address, now: Timestamp) -> bool {
        if let Some(tenure) = self.held.touch(&address, now) {
            tenure.minutes = 0;
            tenure.barred_until = now + BARRED_FOR;
        }
        self.forget(address)
    }

    fn forget(&mut self, address: Address) -> bool {
        let was_tenured = self.tenured.remove(&address).is_some();
        if was_tenured && let Some(count) = self.sites.get_mut(&site(address)) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.sites.remove(&site(address));
            }
        }
        was_tenured
    }

    /// Remembers who was known by tenure before this run; answers whether there is room.
    pub fn restore(&mut self, address: Address, until: Timestamp) -> bool {
        self.admit(address, until)
    }

    /// Whether there is room for an address; if so it is known until then.
    fn admit(&mut self, address: Address, until: Timestamp) -> bool {
        if let Some(held) = self.tenured.get_mut(&address) {
            *held = until.max(*held);
            return true;
        }
        let count = self.sites.get(&site(address)).copied().unwrap_or_default();
        if count >= TENURED_PER_SITE || self.tenured.len() >= TENURED_MAX {
            self.refused = self.refused.saturating_add(1);
            return false;
        }
        self.sites.insert(site(address), count.saturating_add(1));
        self.tenured.insert(address, until);
        true
    }

    /// Lets time pass. `is_calm` tells of a service; hands on who is known from now on, and until when.
    pub fn handle_timeout(
        &mut self,
        now: Timestamp,
        is_calm: impl Fn(u8) -> bool,
        mut known: impl FnMut(Address, Timestamp),
    ) {
        if now < self.minute_at {
            return;
        }
        self.minute_at = now + MINUTE;
        let over: Vec<Address> =
            self.tenured.iter().filter(|(_, until)| **until <= now).map(|(address, _)| *address).collect();
        for address in over {
            self.forget(address);
        }
        let mut due = Vec::new();
        for (address, tenure) in self.held.iter_mut() {
            if !tenure.has_stayed(now) {
                tenure.minutes = 0;
            } else if is_calm(tenure.service) && tenure.barred_until <= now {
                tenure.minutes = tenure.minutes.saturating_add(1);
                if tenure.minutes >= TENURE_MINUTES {
                    tenure.minutes = 0;
                    due.push(*address);
                }
            }
        }
        // Whoever is first by address would be, if there is not room for all.
        due.sort_unstable();
        for address in due {
            if self.admit(address, now + TENURED_FOR) {
                known(address, now + TENURED_FOR);
            }
        }
    }

    /// How often there was no room for somebody who had stayed for long enough.
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Detail;

    struct World {
        tenures: Tenures,
        now: Timestamp,
        is_calm: bool,
        known: Vec<Address>,
    }

    impl World {
        fn new() -> Self {
            let now = Timestamp::from_secs(1_800_000_000);
            let mut world = Self { tenures: Tenures::new(7), now, is_calm: true, known: Vec::new() };
            world.wait(0);
            world
        }

        fn signal(&mut self, kind: SignalKind, address: Address, flow: u64) {
            let is_voice = flow == 0;
            let method = is_voice.then_some(Method::Identity);
            let detail = Detail { method, ..Detail::default() };
            let flow = (!is_voice).then_some(FlowId(flow));
            self.tenures.handle_signal(&Signal { kind, at: self.now, service: 0, address, flow, detail });
        }

        fn wait(&mut self, seconds: u64) {
            for _ in 0..=seconds {
                let (is_calm, known) = (self.is_calm, &mut self.known);
                self.tenures.handle_timeout(self.now, |_| is_calm, |address, _| known.push(address));
                self.now = self.now + Span::from_secs(1);
            }
        }
    }

    fn v4(bits: u32) -> Address {
        Address::from_v4(bits)
    }

    #[test]
    fn ten_minutes_behind_tls_or_at_the_voice_port_make_somebody_known() {
        let mut world = World::new();
        let (tls, voice) = (v4(0x0a00_0001), v4(0x0b00_0001));
        world.signal(SignalKind::TlsAddressed, tls, 1);
        world.signal(SignalKind::LoginSucceeded, voice, 0);
        world.wait(9 * 60);
        assert_eq!(world.known, []);
        world.wait(3 * 60);
        assert_eq!(world.known, [tls, voice]);
        assert!(world.tenures.is_tenured(&tls, world.now + Span::from_secs(6 * 24 * 3_600)));
        assert!(!world.tenures.is_tenured(&tls, world.now + TENURED_FOR));
    }

    #[test]
    fn whom_the_server_only_answers_is_there_and_earns_nothing() {
        let mut world = World::new();
        let address = v4(0x0a00_0001);
        world.signal(SignalKind::TlsHandshake, address, 1);
        world.wait(3_600);
        assert!(world.tenures.is_present(&address));
        assert_eq!(world.known, []);
        world.signal(SignalKind::TlsAddressed, address, 1);
        world.wait(12 * 60);
        assert_eq!(world.known, [address]);
    }

    #[test]
    fn connections_that_come_and_go_earn_nothing() {
        let mut world = World::new();
        let address = v4(0x0a00_0001);
        for flow in 1..200 {
            world.signal(SignalKind::TlsAddressed, address, flow);
            world.wait(55);
            world.signal(SignalKind::ConnectionClosed, address, flow);
            world.signal(SignalKind::LoginSucceeded, address, 0);
            world.wait(20);
            world.signal(SignalKind::LoginEnded, address, 0);
        }
        assert_eq!(world.known, []);
    }

    #[test]
    fn nobody_earns_anything_while_the_service_is_alarmed() {
        let mut world = World::new();
        let address = v4(0x0a00_0001);
        world.signal(SignalKind::TlsAddressed, address, 1);
        world.is_calm = false;
        world.wait(3_600);
        assert_eq!(world.known, []);
        world.is_calm = true;
        world.wait(11 * 60);
        assert_eq!(world.known, [address]);
    }

    #[test]
    fn a_thousand_hosts_of_one_network_buy_four_places_and_push_nobody_out() {
        let mut world = World::new();
        let regular = v4(0x0a00_0001);
        world.signal(SignalKind::TlsAddressed, regular, 1);
        world.wait(12 * 60);
        for number in 2..200 {
            world.signal(SignalKind::TlsAddressed, v4(0x0a00_0000 + number), u64::from(number));
        }
        for low in 0..1_000_u64 {
            let address = Address::from_v6(0x2001_0db8_0001_0000 | low, low);
            world.signal(SignalKind::TlsAddressed, address, 1_000 + low);
        }
        world.wait(3_600);
        assert!(world.tenures.is_tenured(&regular, world.now));
        assert_eq!(world.tenures.tenured.len(), 2 * TENURED_PER_SITE);
        assert!(world.tenures.refused() > 1_000);
    }

    #[test]
    fn places_in_all_are_bounded() {
        let mut world = World::new();
        for number in 0..12_000_u32 {
            world.signal(SignalKind::TlsAddressed, v4(0x1000_0000 + number * 256), u64::from(number) + 1);
        }
        world.wait(11 * 60);
        assert_eq!(world.tenures.tenured.len(), TENURED_MAX);
    }

    #[test]
    fn who_is_stopped_is_known_no_longer_and_begins_again_a_day_later() {
        let mut world = World::new();
        let address = v4(0x0a00_0001);
        world.signal(SignalKind::TlsAddressed, address, 1);
        world.wait(12 * 60);
        assert!(world.tenures.offend(address, world.now));
        assert!(!world.tenures.is_tenured(&address, world.now));
        world.known.clear();
        world.wait(23 * 3_600);
        assert_eq!(world.known, []);
        world.wait(3_600 + 12 * 60);
        assert!(world.known.contains(&address));
    }

    #[test]
    fn a_place_that_is_over_is_free_again() {
        let mut world = World::new();
        for number in 1..=4 {
            assert!(world.tenures.restore(v4(0x0a00_0000 + number), world.now + Span::from_secs(60)));
        }
        let fifth = v4(0x0a00_0009);
        assert!(!world.tenures.restore(fifth, world.now + TENURED_FOR));
        world.wait(130);
        assert!(world.tenures.restore(fifth, world.now + TENURED_FOR));
    }
}
