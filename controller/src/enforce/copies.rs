//! The gate's tables in ordinary memory and, where there is one, a firewall that is told what stands in them: what the wall
//! enforces with where it sees copies of packets.

use anyhow::Result;
use floodwall_engine::{Timestamp, command};
use floodwall_wire::{
    Address, SourceKey, State,
    lists::image::Range,
    memory::Tables,
    tables::{FlowKey, Prefix, PrefixKey, Source, Status},
};

use super::{nftables::Firewall, tables::Store};

/// Tables that are judged by, and who puts them into force.
#[derive(Debug)]
pub(crate) struct CopiesStore {
    pub(crate) tables: Tables,
    /// Absent where the wall only observes.
    pub(crate) firewall: Option<Firewall>,
}

impl Store for CopiesStore {
    fn now(&self) -> u64 {
        Store::now(&self.tables)
    }

    fn deadline(&self, at: Timestamp) -> u64 {
        self.tables.deadline(at)
    }

    fn source(&self, key: SourceKey) -> Result<Option<Source>> {
        Store::source(&self.tables, key)
    }

    fn set_source(&mut self, key: SourceKey, source: Source) -> Result<()> {
        self.tables.set_source(key, source.clone())?;
        // The entry of a /64 says what the prefixes around it say, and those are told by themselves.
        if let (Some(firewall), Some(address)) = (&mut self.firewall, key.as_v4()) {
            firewall.set_address(address, Some(&source));
        }
        Ok(())
    }

    fn remove_source(&mut self, key: SourceKey) -> Result<()> {
        if let (Some(firewall), Some(address)) = (&mut self.firewall, key.as_v4()) {
            firewall.set_address(address, None);
        }
        Store::remove_source(&mut self.tables, key)
    }

    fn host(&self, address: Address) -> Result<Option<Source>> {
        Store::host(&self.tables, address)
    }

    fn set_host(&mut self, address: Address, source: Source) -> Result<()> {
        self.tables.set_host(address, source.clone())?;
        if let Some(firewall) = &mut self.firewall {
            firewall.set_address(address, Some(&source));
        }
        Ok(())
    }

    fn remove_host(&mut self, address: Address) -> Result<()> {
        if let Some(firewall) = &mut self.firewall {
            firewall.set_address(address, None);
        }
        Store::remove_host(&mut self.tables, address)
    }

    fn set_prefix(&mut self, key: PrefixKey, prefix: Option<Prefix>) -> Result<()> {
        self.tables.set_prefix(key, prefix)?;
        if let Some(firewall) = &mut self.firewall {
            let bits = u8::try_from(key.bits).unwrap_or(128);
            firewall.set_prefix(command::Prefix::new(key.address(), bits), prefix.as_ref());
        }
        Ok(())
    }

    fn set_lists(&mut self, lists: &[Range]) -> Result<()> {
        Store::set_lists(&mut self.tables, lists)?;
        if let Some(firewall) = &mut self.firewall {
            firewall.set_lists(lists);
        }
        Ok(())
    }

    fn set_user(&mut self, service: u8, user_id: u16, owner: Option<Address>) -> Result<()> {
        Store::set_user(&mut self.tables, service, user_id, owner)
    }

    fn set_opaque(&mut self, flow: FlowKey, opaque: bool) -> Result<()> {
        self.tables.set_opaque(flow, opaque)
    }

    fn change_status(&mut self, change: &mut dyn FnMut(&mut Status)) -> Result<()> {
        self.tables.change_status(change)?;
        if let Some(firewall) = &mut self.firewall {
            firewall.set_status(State::status(&self.tables));
        }
        Ok(())
    }
}
