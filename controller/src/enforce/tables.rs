//! Decisions as entries of the gate's tables, in either home.
//!
//! What is wanted is kept here; an entry is worked out anew from it whenever something about its address changes.
//! Whatever can be settled when an entry is written is settled then: the gate asks one table, and prefixes only for
//! addresses without an entry. So an address under a banned prefix takes the ban over into its own entry, unless a
//! rule's ban meets somebody known, and an IPv6 address with an entry of its own marks its /64 as mixed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use floodwall_engine::{
    Command, Timestamp,
    command::{Front, Prefix},
    limits::BANS_MAX,
    stream::FlowKey as EngineFlow,
};
use floodwall_wire::{
    Address, SourceKey,
    lists::image::Range,
    tables::{
        self, FlowKey, PREFIXES_MAX, PrefixKey, SOURCES_MAX, Source, Status, source_flags, status_flags,
    },
};

use super::{
    Enforcer,
    prefixes::{self, Prefixes},
};
use crate::lists::{Lists, Treatment};

/// Entries of addresses that are not banned: the rest of the table is the bans'.
const UNBANNED_MAX: usize = SOURCES_MAX as usize - BANS_MAX;
/// Of those, entries of addresses that are only limited: whoever can make many of them takes no room from the known.
const LIMITED_MAX: usize = UNBANNED_MAX / 2;

/// The tables of one home, as an enforcer writes them.
pub(crate) trait Store {
    /// Gate clock, ns.
    fn now(&self) -> u64;
    /// An instant by the gate's clock; `u64::MAX` for never.
    fn deadline(&self, at: Timestamp) -> u64;
    fn source(&self, key: SourceKey) -> Result<Option<Source>>;
    fn set_source(&mut self, key: SourceKey, source: Source) -> Result<()>;
    fn remove_source(&mut self, key: SourceKey) -> Result<()>;
    fn host(&self, address: Address) -> Result<Option<Source>>;
    fn set_host(&mut self, address: Address, source: Source) -> Result<()>;
    fn remove_host(&mut self, address: Address) -> Result<()>;
    /// Writes or, without a value, removes.
    fn set_prefix(&mut self, key: PrefixKey, prefix: Option<tables::Prefix>) -> Result<()>;
    /// Puts what lists say in the place of what they said before, all of it at once: ranges that do not overlap, in order.
    fn set_lists(&mut self, lists: &[Range]) -> Result<()>;
    fn set_user(&mut self, service: u8, user_id: u16, owner: Option<Address>) -> Result<()>;
    fn set_opaque(&mut self, flow: FlowKey, opaque: bool) -> Result<()>;
    fn change_status(&mut self, change: &mut dyn FnMut(&mut Status)) -> Result<()>;
}

/// Writes decisions into the tables of one home.
#[derive(Debug)]
pub(crate) struct TablesEnforcer<S> {
    /// The home.
    pub(crate) store: S,
    addresses: BTreeMap<Address, Wanted>,
    prefixes: Prefixes,
    banned: usize,
    /// Addresses that were entered to be limited, as of the last look and since.
    limited: usize,
}

/// What is wanted of one address, by the gate's clock; 0 is nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Wanted {
    banned_until: u64,
    limited_until: u64,
    known_until: u64,
}

impl Wanted {
    fn is_over(&self, now: u64) -> bool {
        self.banned_until.max(self.limited_until).max(self.known_until) <= now
    }
}

/// What one home holds that was not wanted, or the other way round.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Repairs {
    pub(crate) written: usize,
    pub(crate) removed: usize,
}

impl<S: Store> TablesEnforcer<S> {
    /// Enforces with this home, whose tables of sources, hosts and prefixes are empty or to be reconciled.
    pub(crate) const fn new(store: S) -> Self {
        Self { store, addresses: BTreeMap::new(), prefixes: Prefixes::new(), banned: 0, limited: 0 }
    }

    /// Lets a prefix in, whatever the rules say, or no longer.
    ///
    /// # Errors
    /// When the table has no room, or the prefix is longer than a /64 and no single address: such prefixes would be
    /// hidden by the entry of their /64.
    pub(crate) fn allow(&mut self, prefix: Prefix, allowed: bool) -> Result<()> {
        let present = self.prefixes.get(prefix);
        self.change_prefix(prefix, prefixes::Wanted { allowed, ..present })
    }

    /// Allowed prefixes.
    pub(crate) fn allowed(&self) -> impl Iterator<Item = Prefix> {
        self.prefixes.iter().filter(|(_, wanted)| wanted.allowed).map(|(prefix, _)| prefix)
    }

    /// Whether an address is let in whatever the rules say.
    pub(crate) fn is_allowed(&self, address: Address) -> bool {
        self.prefixes.around(address).any(|(_, wanted)| wanted.allowed)
            || self.prefixes.listed(address) == Some(Treatment::Allow)
    }

    /// The allowed prefix that holds a subject or lies in it.
    pub(crate) fn allowed_overlap(&self, subject: Prefix) -> Option<Prefix> {
        let overlaps =
            |allowed: &Prefix| subject.contains(allowed.address()) || allowed.contains(subject.address());
        let lists = self.prefixes.lists();
        let listed = || {
            let around = lists.around(subject.address(), subject.bits()).map(|(prefix, _)| prefix);
            let mut all = around.chain(lists.within(subject));
            all.find(|prefix| lists.treatment(*prefix) == Some(Treatment::Allow))
        };
        self.allowed().find(overlaps).or_else(listed)
    }

    /// How many prefixes the gate is told of one by one; those of lists are not among them.
    pub(crate) fn prefix_count(&self) -> usize {
        self.prefixes.len()
    }

    /// What is read of lists.
    pub(crate) const fn lists(&self) -> &Lists {
        self.prefixes.lists()
    }

    /// What the lists do to an address, and which one does. The known and the spared only ever are let in by one.
    pub(crate) fn listed(&self, address: Address) -> Option<(Treatment, &std::path::Path)> {
        let known = self.addresses.get(&address).is_some_and(|wanted| wanted.known_until > self.store.now());
        let (_, listed) = self.lists().around(address, 128).max_by_key(|(_, listed)| listed.treatment)?;
        let is_concerned =
            listed.treatment == Treatment::Allow || !(known || self.prefixes.is_spared(address));
        is_concerned.then(|| Some((listed.treatment, self.lists().path(listed)?))).flatten()
    }

    /// Other lists from now on. When they cannot be written, those before stay in force.
    ///
    /// # Errors
    /// When the table has no room.
    pub(crate) fn set_lists(&mut self, lists: Lists) -> Result<()> {
        let before = self.prefixes.set_lists(lists);
        let Err(error) = self.write_lists(&before) else { return Ok(()) };
        let refused = self.prefixes.set_lists(before);
        self.write_lists(&refused).context("and the lists before cannot be written again")?;
        Err(error)
    }

    /// Spares these addresses whatever lists say: those of this host, its gateways and its operators.
    ///
    /// # Errors
    /// When an entry cannot be written.
    pub(crate) fn spare(&mut self, spared: BTreeSet<Address>) -> Result<()> {
        let changed = self.prefixes.set_spared(spared);
        if changed.is_empty() || self.lists().is_empty() {
            return Ok(());
        }
        self.store.set_lists(&self.prefixes.listed_ranges())?;
        self.write_entries_in(changed.into_iter().map(Prefix::host).collect())
    }

    /// Writes what lists say, and what that changes for addresses with entries of their own.
    fn write_lists(&mut self, before: &Lists) -> Result<()> {
        let lists = self.lists();
        let mut changed: Vec<Prefix> = lists.beyond(before).collect();
        changed.extend(before.beyond(lists).filter(|prefix| !lists.contains(*prefix)));
        if lists.is_empty() != before.is_empty() {
            changed.extend(self.prefixes.all_spared().map(Prefix::host));
        }
        self.store.set_lists(&self.prefixes.listed_ranges())?;
        self.write_flags()?;
        self.write_entries_in(changed)
    }

    /// Writes the entries of addresses in prefixes of which lists say something else now.
    fn write_entries_in(&mut self, changed: Vec<Prefix>) -> Result<()> {
        let mut addresses = BTreeSet::new();
        for prefix in changed {
            let address = prefix.address();
            if prefix.is_host()
                && !address.is_v4()
                && !self.prefixes.sets_apart(address)
                && !self.addresses.contains_key(&address)
            {
                self.store.remove_host(address)?;
            }
            // What is said of one address of a /64 is said in the entries of its neighbours, too.
            let network = if address.is_v4() { prefix } else { Prefix::new(address, prefix.bits().min(64)) };
            addresses.extend(self.hosts_in(network));
        }
        addresses.into_iter().try_for_each(|address| self.write_address(address))
    }

    /// Whether the gate has prefixes and lists to ask.
    fn write_flags(&mut self) -> Result<()> {
        let (prefixes, lists) = (!self.prefixes.is_empty(), !self.lists().is_empty());
        self.store.change_status(&mut |status| {
            status.flags &= !(status_flags::PREFIXES | status_flags::LISTS);
            status.flags |= if prefixes { status_flags::PREFIXES } else { 0 };
            status.flags |= if lists { status_flags::LISTS } else { 0 };
        })
    }

    /// Addresses that are known now.
    pub(crate) fn known(&self) -> usize {
        let now = self.store.now();
        self.addresses.values().filter(|wanted| wanted.known_until > now).count()
    }

    /// Until when an address is banned, limited and known, by the gate's clock.
    pub(crate) fn deadlines(&self, address: Address) -> (u64, u64, u64) {
        let wanted = self.addresses.get(&address).copied().unwrap_or_default();
        let by_prefix = self.prefix_ban(address, false);
        (wanted.banned_until.max(by_prefix), wanted.limited_until, wanted.known_until)
    }

    fn change(&mut self, address: Address, change: impl FnOnce(&mut Wanted)) -> Result<()> {
        let now = self.store.now();
        let present = self.addresses.get(&address).copied();
        let mut wanted = present.unwrap_or_default();
        let was_banned = wanted.banned_until > now;
        change(&mut wanted);
        let is_banned = wanted.banned_until > now;
        if present.is_none()
            && !is_banned
            && self.addresses.len() - self.banned.min(self.addresses.len()) >= UNBANNED_MAX
        {
            bail!("no room to remember {address}: {UNBANNED_MAX} addresses have an entry already");
        }
        self.addresses.insert(address, wanted);
        if let Err(error) = self.write_address(address) {
            match present {
                Some(present) => self.addresses.insert(address, present),
                None => self.addresses.remove(&address),
            };
            return Err(error);
        }
        self.banned = self.banned + usize::from(is_banned) - usize::from(was_banned && self.banned > 0);
        Ok(())
    }

    /// Writes the entry of one address, and what its /64 needs with it.
    fn write_address(&mut self, address: Address) -> Result<()> {
        let wanted = self.addresses.get(&address).copied().unwrap_or_default();
        if address.is_v4() {
            let key = SourceKey::of(address);
            let present = self.store.source(key)?;
            let entry = self.entry(address, 128, wanted, present);
            return self.store.set_source(key, entry);
        }
        let present = self.store.host(address)?;
        let entry = self.entry(address, 128, wanted, present);
        self.store.set_host(address, entry)?;
        self.write_network(address)
    }

    /// The entry of the /64 an IPv6 address lies in.
    fn write_network(&mut self, address: Address) -> Result<()> {
        let network = Prefix::network64(address);
        let key = SourceKey::of(address);
        let present = self.store.source(key)?;
        // Single addresses that are let in, listed or spared: the entry of their network would hide them.
        let apart = self.prefixes.apart_in(network);
        let mixed = self.hosts_in(network).next().is_some() || !apart.is_empty();
        let mut entry = self.entry(network.address(), 64, Wanted::default(), present);
        // A single address that is let in is not the whole network's.
        let mut listed = self.lists().around(network.address(), network.bits());
        let whole = self.prefixes.value(network).flags & source_flags::ALLOWED != 0
            || listed.any(|(_, listed)| listed.treatment == Treatment::Allow);
        drop(listed);
        entry.flags &= !(source_flags::ALLOWED | source_flags::MIXED);
        entry.flags |= if whole { source_flags::ALLOWED } else { 0 };
        entry.flags |= if mixed { source_flags::MIXED } else { 0 };
        self.store.set_source(key, entry)?;
        for host in apart {
            if !self.addresses.contains_key(&host) {
                let present = self.store.host(host)?;
                let entry = self.entry(host, 128, Wanted::default(), present);
                self.store.set_host(host, entry)?;
            }
        }
        Ok(())
    }

    /// What the entry of an address, or of the network of `bits` bits it is the first of, has to say, with the budgets the
    /// gate has written. No list bans or limits the known.
    fn entry(&self, address: Address, bits: u8, wanted: Wanted, present: Option<Source>) -> Source {
        let known = wanted.known_until > self.store.now();
        let is_spared = known || (bits == 128 && self.prefixes.is_spared(address));
        let listed = |treatment: Treatment| {
            let is_listed = !is_spared
                && self.lists().around(address, bits).any(|(_, listed)| listed.treatment == treatment);
            if is_listed { u64::MAX } else { 0 }
        };
        let by_prefix = self.prefix_ban(address, known).max(listed(Treatment::Ban));
        let mut flags = 0;
        if by_prefix > wanted.banned_until {
            flags |= source_flags::PREFIX_BAN;
        }
        if self.is_allowed(address) {
            flags |= source_flags::ALLOWED;
        }
        Source {
            banned_until: wanted.banned_until.max(by_prefix),
            limited_until: wanted.limited_until.max(listed(Treatment::Limit)),
            known_until: wanted.known_until,
            flags,
            limits: present.unwrap_or_default().limits,
        }
    }

    /// Until when the prefixes an address lies in are banned. A rule bans at most a /64, and spares the known in it;
    /// a wider ban is an operator's and means everybody.
    fn prefix_ban(&self, address: Address, known: bool) -> u64 {
        let spared = |prefix: Prefix| known && prefix.bits() == 64 && !address.is_v4();
        let around =
            self.prefixes.around(address).filter(|(prefix, _)| !prefix.is_host() && !spared(*prefix));
        around.map(|(_, wanted)| wanted.banned_until).max().unwrap_or(0)
    }

    fn hosts_in(&self, prefix: Prefix) -> impl Iterator<Item = Address> {
        self.addresses
            .range(prefix.address()..)
            .map(|(address, _)| *address)
            .take_while(move |address| prefix.contains(*address))
    }

    /// Changes what is wanted of a prefix; when that cannot be written, it stays as it was.
    fn change_prefix(&mut self, prefix: Prefix, wanted: prefixes::Wanted) -> Result<()> {
        if prefix.bits() > 64 && !prefix.is_host() && !prefix.address().is_v4() {
            bail!(
                "{prefix}: IPv6 prefixes longer than /64 are not kept apart; name a /64 or single addresses"
            );
        }
        let present = self.prefixes.get(prefix);
        let is_new = present == prefixes::Wanted::default() && wanted != present;
        if is_new && self.prefixes.len() >= PREFIXES_MAX as usize {
            bail!("no room for {prefix}: {PREFIXES_MAX} prefixes are banned or allowed already");
        }
        self.prefixes.set(prefix, wanted);
        let written = self.write_prefix(prefix);
        if written.is_err() {
            self.prefixes.set(prefix, present);
        }
        written
    }

    /// Writes a prefix, those that lie in it, and the entries of the addresses in it.
    fn write_prefix(&mut self, prefix: Prefix) -> Result<()> {
        let inner: Vec<Prefix> = self.prefixes.within(prefix).collect();
        for one in &inner {
            self.store.set_prefix(key_of(*one), Some(self.prefixes.value(*one)))?;
        }
        if !self.prefixes.holds(prefix) {
            self.store.set_prefix(key_of(prefix), None)?;
        }
        self.write_flags()?;
        let mut networks = BTreeSet::new();
        for address in self.hosts_in(prefix).collect::<Vec<_>>() {
            self.write_address(address)?;
            networks.insert(Prefix::network64(address));
        }
        // An entry of the /64 itself hides the prefix too.
        let address = prefix.address();
        let has_entry = !address.is_v4() && self.store.source(SourceKey::of(address))?.is_some();
        if has_entry && !networks.contains(&Prefix::network64(address)) {
            self.write_network(address)?;
        }
        Ok(())
    }

    fn ban(&mut self, subject: Prefix, until: u64) -> Result<()> {
        if subject.is_host() {
            return self.change(subject.address(), |wanted| wanted.banned_until = until);
        }
        let present = self.prefixes.get(subject);
        self.change_prefix(subject, prefixes::Wanted { banned_until: until, ..present })
    }

    /// Forgets what is over and removes its entries. Call it now and then.
    ///
    /// # Errors
    /// When an entry cannot be removed; the rest is.
    pub(crate) fn expire(&mut self) -> Result<usize> {
        let now = self.store.now();
        let over: Vec<Address> = self
            .addresses
            .iter()
            .filter(|(_, wanted)| wanted.is_over(now))
            .map(|(address, _)| *address)
            .collect();
        for address in &over {
            self.addresses.remove(address);
            self.remove_entry(*address)?;
        }
        let prefixes: Vec<Prefix> = self
            .prefixes
            .iter()
            .filter(|(_, wanted)| wanted.banned_until != 0 && wanted.banned_until <= now)
            .map(|(prefix, _)| prefix)
            .collect();
        for prefix in &prefixes {
            self.ban(*prefix, 0)?;
        }
        self.banned = self.addresses.values().filter(|wanted| wanted.banned_until > now).count();
        let is_limited = |wanted: &&Wanted| wanted.known_until <= now && wanted.banned_until <= now;
        self.limited = self.addresses.values().filter(is_limited).count();
        Ok(over.len() + prefixes.len())
    }

    /// The entry of an address of which nothing is wanted any longer.
    fn remove_entry(&mut self, address: Address) -> Result<()> {
        if address.is_v4() {
            return self.store.remove_source(SourceKey::of(address));
        }
        if !self.prefixes.sets_apart(address) {
            self.store.remove_host(address)?;
        }
        let network = Prefix::network64(address);
        // Without an entry the gate asks for prefixes, which say the same.
        if self.hosts_in(network).next().is_some() {
            self.write_network(address)
        } else {
            self.store.remove_source(SourceKey::of(address))
        }
    }

    /// Compares what the tables hold with what is wanted and mends what differs.
    ///
    /// # Errors
    /// When an entry cannot be read or written.
    pub(crate) fn reconcile(&mut self, sources: &[SourceKey], hosts: &[Address]) -> Result<Repairs> {
        let mut repairs = Repairs::default();
        for address in self.addresses.keys().copied().collect::<Vec<_>>() {
            let wanted = self.addresses.get(&address).copied().unwrap_or_default();
            let held = if address.is_v4() {
                self.store.source(SourceKey::of(address))?
            } else {
                self.store.host(address)?
            };
            let right = self.entry(address, 128, wanted, held.clone());
            if held.as_ref() != Some(&right) {
                self.write_address(address)?;
                repairs.written += 1;
            }
        }
        let keys: BTreeSet<SourceKey> =
            self.addresses.keys().map(|address| SourceKey::of(*address)).collect();
        let prefixes: Vec<Prefix> = self.prefixes.iter().map(|(prefix, _)| prefix).collect();
        for key in sources.iter().filter(|key| !keys.contains(key)) {
            let hidden = prefixes.iter().any(|prefix| SourceKey::of(prefix.address()) == *key);
            if !hidden {
                self.store.remove_source(*key)?;
                repairs.removed += 1;
            }
        }
        for address in hosts {
            if !self.addresses.contains_key(address) && !self.prefixes.sets_apart(*address) {
                self.store.remove_host(*address)?;
                repairs.removed += 1;
            }
        }
        Ok(repairs)
    }

    /// Takes over an entry that was found in the tables and is not wanted yet. Deadlines only ever grow by it.
    pub(crate) fn adopt(&mut self, address: Address, held: &Source) {
        let own_ban = if held.flags & source_flags::PREFIX_BAN == 0 { held.banned_until } else { 0 };
        let now = self.store.now();
        let wanted = self.addresses.entry(address).or_default();
        wanted.banned_until = wanted.banned_until.max(own_ban);
        wanted.limited_until = wanted.limited_until.max(held.limited_until);
        wanted.known_until = wanted.known_until.max(held.known_until);
        if wanted.is_over(now) {
            self.addresses.remove(&address);
        }
    }

    /// Puts right what was found in the tables of a prefix, when what is wanted is known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn put_right(&mut self, prefix: Prefix, held: &tables::Prefix) -> Result<()> {
        let wanted = self.prefixes.holds(prefix).then(|| self.prefixes.value(prefix));
        if wanted.as_ref() == Some(held) {
            return Ok(());
        }
        self.store.set_prefix(key_of(prefix), wanted)
    }

    /// Takes over the ban of a prefix that was found in the tables.
    pub(crate) fn adopt_prefix(&mut self, prefix: Prefix, banned_until: u64) {
        if banned_until > self.store.now() {
            let present = self.prefixes.get(prefix);
            let banned_until = present.banned_until.max(banned_until);
            self.prefixes.set(prefix, prefixes::Wanted { banned_until, ..present });
        }
    }
}

impl<S: Store> Enforcer for TablesEnforcer<S> {
    fn apply(&mut self, command: &Command) -> Result<()> {
        match command {
            Command::Ban { subject, until, .. } => {
                let until = self.store.deadline(*until);
                self.ban(*subject, until)
            }
            Command::Unban { subject } => self.ban(*subject, 0),
            Command::Limit { address, until, .. } => {
                let until = self.store.deadline(*until);
                let is_new = !self.addresses.contains_key(address);
                if is_new && self.limited >= LIMITED_MAX {
                    bail!("no room to limit {address}: {LIMITED_MAX} addresses are limited already");
                }
                self.change(*address, |wanted| wanted.limited_until = until)?;
                self.limited += usize::from(is_new);
                Ok(())
            }
            Command::Release { address } => self.change(*address, |wanted| wanted.limited_until = 0),
            Command::Know { address, until, .. } => {
                let until = self.store.deadline(*until);
                self.change(*address, |wanted| wanted.known_until = until)
            }
            Command::BindUser { service, user_id, owner } => {
                self.store.set_user(*service, *user_id, Some(*owner))
            }
            Command::FreeUser { service, user_id } => self.store.set_user(*service, *user_id, None),
            Command::Ignore { flow } => self.store.set_opaque(flow_key(flow), true),
            Command::Follow { flow } => self.store.set_opaque(flow_key(flow), false),
            Command::SetLevel { service, front, level, .. } => {
                let shift = match front {
                    Front::Udp => 0,
                    Front::Tcp => 8,
                };
                self.store.change_status(&mut |status| {
                    if let Some(levels) = status.levels.get_mut(usize::from(*service)) {
                        *levels = *levels & !(0xff << shift) | (*level as u32) << shift;
                    }
                })
            }
            // Cutting a connection is not the tables' to do, and a note changes nothing.
            Command::Reset { .. } | Command::Note { .. } => Ok(()),
        }
    }
}

fn key_of(prefix: Prefix) -> PrefixKey {
    PrefixKey::new(prefix.address(), u32::from(prefix.bits()))
}

const fn flow_key(flow: &EngineFlow) -> FlowKey {
    FlowKey::new(flow.client, flow.client_port, flow.server, flow.server_port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodwall_engine::{
        command::{Explanation, Merit},
        rule::{RuleId, evaluate::Subject},
    };
    use floodwall_wire::{State, memory::Tables};

    fn ban(subject: Prefix) -> Command {
        Command::Ban { subject, until: Timestamp::from_secs(100), explanation: explanation() }
    }

    fn explanation() -> Explanation {
        Explanation {
            rule: RuleId("t/r".into()),
            why: "test".into(),
            subject: Subject::Service,
            offender: Address::default(),
            at: Timestamp::EPOCH,
            count: 1,
            limit: 1,
            within: floodwall_engine::Span::ZERO,
            evidence: Vec::new(),
        }
    }

    fn address(text: &str) -> Address {
        Address::from(text.parse::<std::net::IpAddr>().unwrap())
    }

    fn banned(enforcer: &TablesEnforcer<Tables>, text: &str) -> bool {
        let address = address(text);
        let tables = &enforcer.store;
        let source = State::source(tables, SourceKey::of(address));
        let entry = match source {
            Some(source) if source.flags & source_flags::MIXED != 0 => {
                State::host(tables, &address).or(Some(source))
            }
            Some(source) => Some(source),
            None => {
                let prefix = State::prefix(tables, &address).copied().unwrap_or_default();
                let listed = State::listed(tables, &address);
                let is_allowed =
                    prefix.flags & source_flags::ALLOWED != 0 || listed == Some(Treatment::Allow);
                return !is_allowed && (prefix.banned_until > 0 || listed == Some(Treatment::Ban));
            }
        };
        entry.is_some_and(|entry| entry.banned_until > 0 && entry.flags & source_flags::ALLOWED == 0)
    }

    #[test]
    fn a_ban_of_one_ipv6_address_leaves_its_neighbours() {
        let mut enforcer = TablesEnforcer::new(Tables::new(1));
        enforcer.apply(&ban(Prefix::host(address("2001:db8::1")))).unwrap();
        assert!(banned(&enforcer, "2001:db8::1"));
        assert!(!banned(&enforcer, "2001:db8::2"));
    }

    #[test]
    fn a_ban_of_a_64_spares_the_known_and_reaches_the_rest() {
        let mut enforcer = TablesEnforcer::new(Tables::new(1));
        let known = Command::Know {
            address: address("2001:db8::5"),
            until: Timestamp::from_secs(9),
            by: Merit::Login,
        };
        enforcer.apply(&known).unwrap();
        enforcer
            .apply(&Command::Limit {
                address: address("2001:db8::6"),
                until: Timestamp::from_secs(9),
                explanation: explanation(),
            })
            .unwrap();
        enforcer.apply(&ban(Prefix::network64(address("2001:db8::1")))).unwrap();
        assert!(!banned(&enforcer, "2001:db8::5"));
        assert!(banned(&enforcer, "2001:db8::6") && banned(&enforcer, "2001:db8::77"));
        assert!(!banned(&enforcer, "2001:db8:0:1::1"));
    }

    #[test]
    fn lifting_a_ban_leaves_no_entry_and_no_neighbour_banned() {
        let mut enforcer = TablesEnforcer::new(Tables::new(1));
        for (text, bits) in [("192.0.2.7", 120), ("2001:db8::", 64)] {
            let address = address(text);
            let subject = Prefix::new(address, bits);
            let until = Timestamp::from_secs(9);
            enforcer.apply(&Command::Limit { address, until, explanation: explanation() }).unwrap();
            enforcer.apply(&ban(subject)).unwrap();
            assert!(banned(&enforcer, text), "{text}");
            enforcer.apply(&Command::Unban { subject }).unwrap();
            assert!(!banned(&enforcer, text), "{text}");
        }
        enforcer.store.set_now(Timestamp::from_secs(10).as_nanos());
        assert_eq!(enforcer.expire().unwrap(), 2);
        for text in ["192.0.2.7", "2001:db8::"] {
            let address = address(text);
            assert!(State::source(&enforcer.store, SourceKey::of(address)).is_none(), "{text}");
            assert!(State::host(&enforcer.store, &address).is_none(), "{text}");
        }
    }

    #[test]
    fn what_is_allowed_stays_allowed_beside_banned_neighbours() {
        let mut enforcer = TablesEnforcer::new(Tables::new(1));
        for text in ["2001:db8::9", "192.0.2.9"] {
            enforcer.allow(Prefix::host(address(text)), true).unwrap();
        }
        enforcer.apply(&ban(Prefix::network64(address("2001:db8::1")))).unwrap();
        enforcer.apply(&ban(Prefix::host(address("2001:db8::2")))).unwrap();
        enforcer.apply(&ban(Prefix::new(address("192.0.2.0"), 120))).unwrap();
        assert!(!banned(&enforcer, "2001:db8::9") && banned(&enforcer, "2001:db8::3"));
        enforcer.apply(&ban(Prefix::host(address("192.0.2.9")))).unwrap();
        assert!(!banned(&enforcer, "192.0.2.9") && banned(&enforcer, "192.0.2.10"));
    }

    #[test]
    fn a_banned_prefix_inside_an_allowed_one_is_let_in_as_long_as_that_is() {
        for (inside, bits, around, around_bits) in
            [("192.0.2.77", 120, "192.0.0.0", 112), ("2001:db8:0:1::7", 64, "2001:db8::", 32)]
        {
            let mut enforcer = TablesEnforcer::new(Tables::new(1));
            let (banned_prefix, allowed) =
                (Prefix::new(address(inside), bits), Prefix::new(address(around), around_bits));
            let admits = |enforcer: &TablesEnforcer<Tables>| {
                let prefix = State::prefix(&enforcer.store, &address(inside)).unwrap();
                prefix.flags & source_flags::ALLOWED != 0
            };
            enforcer.allow(allowed, true).unwrap();
            enforcer.apply(&ban(banned_prefix)).unwrap();
            assert!(admits(&enforcer), "{inside}");
            enforcer.allow(allowed, false).unwrap();
            assert!(!admits(&enforcer) && banned(&enforcer, inside), "{inside}");
            enforcer.allow(allowed, true).unwrap();
            assert!(admits(&enforcer), "{inside}");
        }
    }

    #[test]
    fn addresses_that_are_limited_take_no_room_from_the_known() {
        let mut enforcer = TablesEnforcer::new(Tables::new(1));
        let until = Timestamp::from_secs(9);
        let refused = (0..UNBANNED_MAX as u32 + 10).filter(|number| {
            let address = Address::from_v4(0x0a00_0000 + number);
            enforcer.apply(&Command::Limit { address, until, explanation: explanation() }).is_err()
        });
        assert_eq!(refused.count(), UNBANNED_MAX + 10 - LIMITED_MAX);
        let regular = address("192.0.2.7");
        enforcer.apply(&Command::Know { address: regular, until, by: Merit::Login }).unwrap();
        assert_eq!(enforcer.known(), 1);
        // Who is known can be limited all the same.
        enforcer.apply(&Command::Limit { address: regular, until, explanation: explanation() }).unwrap();
    }

    #[test]
    fn tables_that_were_tampered_with_are_mended() {
        let mut enforcer = TablesEnforcer::new(Tables::new(1));
        enforcer.apply(&ban(Prefix::host(address("192.0.2.7")))).unwrap();
        enforcer.apply(&ban(Prefix::host(address("2001:db8::7")))).unwrap();
        let key = SourceKey::of(address("192.0.2.7"));
        Tables::remove_source(&mut enforcer.store, key);
        let stray = SourceKey::of(address("203.0.113.1"));
        enforcer.store.insert_source(stray, Source { banned_until: 99, ..Source::default() }).unwrap();
        let keys = [stray, SourceKey::of(address("2001:db8::7"))];
        let repairs = enforcer.reconcile(&keys, &[address("2001:db8::7")]).unwrap();
        assert_eq!(repairs, Repairs { written: 1, removed: 1 });
        assert!(banned(&enforcer, "192.0.2.7") && !banned(&enforcer, "203.0.113.1"));
        assert!(banned(&enforcer, "2001:db8::7") && !banned(&enforcer, "2001:db8::8"));
    }

    fn lists(banned: &str, limited: &str) -> Lists {
        let files = [(banned, Treatment::Ban), (limited, Treatment::Limit)].map(|(text, treatment)| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let path = file.path().to_owned();
            (file, crate::lists::ListEntry { path, treatment, wide: false })
        });
        Lists::read(&files.each_ref().map(|(_, entry)| entry.clone())).unwrap()
    }

    #[test]
    fn a_list_bans_strangers_and_neither_the_known_nor_the_allowed_nor_the_neighbours() {
        let mut enforcer = TablesEnforcer::new(Tables::new(1));
        let until = Timestamp::from_secs(9);
        for text in ["192.0.2.5", "2001:db8::5"] {
            enforcer.apply(&Command::Know { address: address(text), until, by: Merit::Login }).unwrap();
        }
        for text in ["192.0.2.6", "2001:db8::6"] {
            enforcer.allow(Prefix::host(address(text)), true).unwrap();
            let limited = address(&text.replace('6', "8"));
            enforcer.apply(&Command::Limit { address: limited, until, explanation: explanation() }).unwrap();
        }
        enforcer.spare([address("192.0.2.7"), address("2001:db8::7")].into()).unwrap();
        enforcer
            .set_lists(lists(
                "192.0.2.0/24\n2001:db8::/32\n203.0.113.9\n2001:db8:1::9\n",
                "198.51.100.0/24\n",
            ))
            .unwrap();
        for network in ["192.0.2.", "2001:db8::"] {
            let of = |host: &str| format!("{network}{host}");
            for spared in ["5", "6", "7"] {
                assert!(!banned(&enforcer, &of(spared)), "{network}{spared}");
            }
            for stranger in ["8", "77"] {
                assert!(banned(&enforcer, &of(stranger)), "{network}{stranger}");
            }
        }
        assert!(banned(&enforcer, "203.0.113.9") && !banned(&enforcer, "203.0.113.8"));
        let limited =
            |enforcer: &TablesEnforcer<Tables>| State::listed(&enforcer.store, &address("198.51.100.1"));
        assert_eq!(limited(&enforcer), Some(Treatment::Limit));
        assert_eq!(enforcer.listed(address("192.0.2.5")), None);
        assert_eq!(enforcer.listed(address("192.0.2.9")).unwrap().0, Treatment::Ban);
        // The ban of a rule inside stays when the list goes; all else ends with it.
        enforcer.apply(&ban(Prefix::host(address("192.0.2.77")))).unwrap();
        enforcer.apply(&ban(Prefix::network64(address("2001:db8:0:7::")))).unwrap();
        enforcer.set_lists(Lists::new()).unwrap();
        assert!(banned(&enforcer, "192.0.2.77") && banned(&enforcer, "2001:db8:0:7::1"));
        for text in ["192.0.2.8", "2001:db8::8", "2001:db8::77", "203.0.113.9", "2001:db8:1::9"] {
            assert!(!banned(&enforcer, text), "{text}");
        }
        assert_eq!(limited(&enforcer), None);
    }

    #[test]
    fn lists_take_no_room_from_bans_of_prefixes_and_bans_none_from_lists() {
        let mut enforcer = TablesEnforcer::new(Tables::new(1));
        let network =
            |number: u32| Prefix::new(Address::from_v6(0x2001_0db8_0000_0000 + u64::from(number), 0), 64);
        for number in 0..PREFIXES_MAX {
            enforcer.apply(&ban(network(number))).unwrap();
        }
        assert!(enforcer.apply(&ban(network(PREFIXES_MAX))).is_err());
        let text: String =
            (0..1_000).map(|number| format!("{}\n", Address::from_v4(0x0b00_0000 + number))).collect();
        enforcer.set_lists(lists(&text, "")).unwrap();
        assert!(banned(&enforcer, "11.0.3.231") && banned(&enforcer, "2001:db8::1"));
    }
}
