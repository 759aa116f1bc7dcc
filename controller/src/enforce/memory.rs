//! The gate's tables in ordinary memory as something to enforce with: what replay and the pcap fallback use.

use anyhow::Result;
use floodwall_engine::Timestamp;
use floodwall_wire::{
    Address, SourceKey, State,
    lists::image::{Image, Range},
    memory::Tables,
    tables::{FlowKey, Prefix, PrefixKey, Source, Status},
};

use super::tables::Store;

impl Store for Tables {
    fn now(&self) -> u64 {
        State::now(self)
    }

    /// The gate's clock is the packets'.
    fn deadline(&self, at: Timestamp) -> u64 {
        at.as_nanos()
    }

    fn source(&self, key: SourceKey) -> Result<Option<Source>> {
        Ok(State::source(self, key).cloned())
    }

    fn set_source(&mut self, key: SourceKey, source: Source) -> Result<()> {
        Ok(self.insert_source(key, source)?)
    }

    fn remove_source(&mut self, key: SourceKey) -> Result<()> {
        Self::remove_source(self, key);
        Ok(())
    }

    fn host(&self, address: Address) -> Result<Option<Source>> {
        Ok(State::host(self, &address).cloned())
    }

    fn set_host(&mut self, address: Address, source: Source) -> Result<()> {
        Ok(self.insert_host(address, source)?)
    }

    fn remove_host(&mut self, address: Address) -> Result<()> {
        Self::remove_host(self, &address);
        Ok(())
    }

    fn set_prefix(&mut self, key: PrefixKey, prefix: Option<Prefix>) -> Result<()> {
        match prefix {
            Some(prefix) => self.insert_prefix(key.address(), key.bits, prefix)?,
            None => self.remove_prefix(key.address(), key.bits),
        }
        Ok(())
    }

    fn set_lists(&mut self, lists: &[Range]) -> Result<()> {
        Self::set_lists(self, Image::build(lists));
        Ok(())
    }

    fn set_user(&mut self, service: u8, user_id: u16, owner: Option<Address>) -> Result<()> {
        Self::set_user(self, service, user_id, owner);
        Ok(())
    }

    /// Memory has no mirror to cut a connection from.
    fn set_opaque(&mut self, _flow: FlowKey, _opaque: bool) -> Result<()> {
        Ok(())
    }

    fn change_status(&mut self, change: &mut dyn FnMut(&mut Status)) -> Result<()> {
        change(self.status_mut());
        Ok(())
    }
}
