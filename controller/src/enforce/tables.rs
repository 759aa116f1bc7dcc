//! Decisions as entries of the gate's tables in ordinary memory: what replay enforces with.
//!
//! Whatever can be settled when an entry is written is settled here: an address under a banned /64 that is not
//! known takes the ban over into its own entry, and an IPv6 address with an entry of its own marks its /64
//! as mixed.

use std::collections::BTreeSet;

use anyhow::Result;
use floodwall_engine::{Command, Timestamp, command::Front, command::Prefix};
use floodwall_wire::{
    Address, SourceKey, State,
    memory::Tables,
    tables::{Source, source_flags},
};

use super::Enforcer;

/// Writes decisions into the tables of the gate's home in memory.
#[derive(Debug)]
pub(crate) struct TablesEnforcer {
    /// The gate's tables.
    pub(crate) tables: Tables,
    hosts: BTreeSet<Address>,
}

impl TablesEnforcer {
    /// Enforces with these tables.
    pub(crate) const fn new(tables: Tables) -> Self {
        Self { tables, hosts: BTreeSet::new() }
    }

    /// The entry of one address, made if absent.
    fn entry(&mut self, address: Address) -> Result<&mut Source> {
        let key = SourceKey::of(address);
        if self.tables.source(key).is_none() {
            let flags = self.allow_flag(address);
            self.tables.insert_source(key, Source { flags, ..Source::default() })?;
        }
        if address.is_v4() {
            return self.tables.source_mut(key).ok_or_else(|| anyhow::anyhow!("source entry vanished"));
        }
        if self.tables.host(&address).is_none() {
            let mut host = self.tables.source(key).cloned().unwrap_or_default();
            host.flags = host.flags & source_flags::PREFIX_BAN | self.allow_flag(address);
            host.known_until = 0;
            host.limited_until = 0;
            self.tables.insert_host(address, host)?;
            self.hosts.insert(address);
        }
        if let Some(network) = self.tables.source_mut(key) {
            network.flags |= source_flags::MIXED;
        }
        self.tables.host_mut(&address).ok_or_else(|| anyhow::anyhow!("host entry vanished"))
    }

    fn allow_flag(&self, address: Address) -> u64 {
        self.tables.prefix(&address).map_or(0, |prefix| prefix.flags & source_flags::ALLOWED)
    }

    fn ban(&mut self, subject: Prefix, until: Timestamp) -> Result<()> {
        if subject.is_host() {
            let entry = self.entry(subject.address())?;
            entry.banned_until = until.as_nanos();
            entry.flags &= !source_flags::PREFIX_BAN;
            return Ok(());
        }
        self.ban_network(subject, until)
    }

    /// A /64: its own entry, and the entries of its addresses that are not known.
    fn ban_network(&mut self, subject: Prefix, until: Timestamp) -> Result<()> {
        let key = SourceKey::of(subject.address());
        if self.tables.source(key).is_none() {
            self.tables.insert_source(key, Source::default())?;
        }
        if let Some(network) = self.tables.source_mut(key) {
            network.banned_until = until.as_nanos();
            network.flags |= source_flags::PREFIX_BAN;
        }
        let last = Address::from_v6(subject.address().high, u64::MAX);
        let now = self.tables.now();
        for address in self.hosts.range(subject.address()..=last) {
            if let Some(host) = self.tables.host_mut(address)
                && host.known_until <= now
            {
                host.banned_until = host.banned_until.max(until.as_nanos());
                host.flags |= source_flags::PREFIX_BAN;
            }
        }
        Ok(())
    }
}

impl Enforcer for TablesEnforcer {
    fn apply(&mut self, command: &Command) -> Result<()> {
        match command {
            Command::Ban { subject, until, .. } => self.ban(*subject, *until)?,
            Command::Limit { address, until, .. } => self.entry(*address)?.limited_until = until.as_nanos(),
            Command::Know { address, until } => self.entry(*address)?.known_until = until.as_nanos(),
            Command::BindUser { service, user_id, owner } => {
                self.tables.set_user(*service, *user_id, Some(*owner));
            }
            Command::FreeUser { service, user_id } => self.tables.set_user(*service, *user_id, None),
            Command::SetLevel { service, front, level, .. } => {
                let shift = match front {
                    Front::Udp => 0,
                    Front::Tcp => 8,
                };
                if let Some(levels) = self.tables.status_mut().levels.get_mut(usize::from(*service)) {
                    *levels = *levels & !(0xff << shift) | (*level as u32) << shift;
                }
            }
            // A connection in a capture cannot be cut, and a note changes nothing.
            Command::Reset { .. } | Command::Note { .. } => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodwall_engine::{command::Explanation, rule::RuleId, rule::evaluate::Subject};

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

    fn banned(enforcer: &TablesEnforcer, text: &str) -> bool {
        let address = address(text);
        let source = enforcer.tables.source(SourceKey::of(address));
        let entry = match source {
            Some(source) if source.flags & source_flags::MIXED != 0 => {
                enforcer.tables.host(&address).or(Some(source))
            }
            other => other,
        };
        entry.is_some_and(|entry| entry.banned_until > 0)
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
        let known = Command::Know { address: address("2001:db8::5"), until: Timestamp::from_secs(9) };
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
}
