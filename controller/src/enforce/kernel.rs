//! The gate's tables in the kernel as something to enforce with.

use std::{fmt, sync::Arc};

use anyhow::{Context, Result, bail};
use floodwall_engine::Timestamp;
use floodwall_kernel::KernelTables;
use floodwall_wire::{
    Address, SourceKey,
    lists::image::{Image, Range},
    tables::{FlowKey, Prefix, PrefixKey, Source, Status},
};

use super::tables::Store;
use crate::live::clock::WallClock;

/// The kernel's maps and the clock their deadlines are told by. Entries are replaced whole: what the gate takes from a
/// budget between our reading and writing of its entry is given back, once per decision about that address.
pub(crate) struct KernelStore {
    tables: Arc<KernelTables>,
    clock: Arc<WallClock>,
    /// As last written; nobody else writes it.
    status: Status,
}

impl KernelStore {
    /// Over maps whose status is read once.
    pub(crate) fn new(tables: Arc<KernelTables>, clock: Arc<WallClock>) -> Result<Self> {
        let status = tables.status().context("failed to read the gate's status")?;
        Ok(Self { tables, clock, status })
    }

    /// The status in force.
    pub(crate) const fn status(&self) -> &Status {
        &self.status
    }
}

impl fmt::Debug for KernelStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelStore").finish_non_exhaustive()
    }
}

impl Store for KernelStore {
    fn now(&self) -> u64 {
        self.clock.gate_now()
    }

    fn deadline(&self, at: Timestamp) -> u64 {
        self.clock.to_gate(at)
    }

    fn source(&self, key: SourceKey) -> Result<Option<Source>> {
        Ok(self.tables.source(key))
    }

    fn set_source(&mut self, key: SourceKey, source: Source) -> Result<()> {
        self.tables.set_source(key, &source).context("failed to write the table of sources")
    }

    fn remove_source(&mut self, key: SourceKey) -> Result<()> {
        self.tables.remove_source(key).context("failed to write the table of sources")
    }

    fn host(&self, address: Address) -> Result<Option<Source>> {
        self.tables.host(&address).context("failed to read the table of hosts")
    }

    fn set_host(&mut self, address: Address, source: Source) -> Result<()> {
        self.tables.set_host(address, &source).context("failed to write the table of hosts")
    }

    fn remove_host(&mut self, address: Address) -> Result<()> {
        self.tables.remove_host(address).context("failed to write the table of hosts")
    }

    fn set_prefix(&mut self, key: PrefixKey, prefix: Option<Prefix>) -> Result<()> {
        match prefix {
            Some(prefix) => self.tables.set_prefix(key, &prefix),
            None => self.tables.remove_prefix(key),
        }
        .context("failed to write the table of prefixes")
    }

    fn set_lists(&mut self, lists: &[Range]) -> Result<()> {
        let image = Image::build(lists);
        match self.tables.set_lists(&image) {
            Err(error) if error.raw_os_error() == Some(nix::libc::E2BIG) => bail!(
                "the lists take {} nodes and this gate has room for {}: restart floodwall, which makes room for them; \
                 bans and limits stay in force meanwhile",
                image.nodes().len(),
                self.tables.list_nodes_max()
            ),
            written => written.context("failed to write the lists"),
        }
    }

    fn set_user(&mut self, service: u8, user_id: u16, owner: Option<Address>) -> Result<()> {
        self.tables.set_user(service, user_id, owner).context("failed to write the table of users")
    }

    fn set_opaque(&mut self, flow: FlowKey, opaque: bool) -> Result<()> {
        if opaque { self.tables.set_opaque(&flow) } else { self.tables.clear_opaque(&flow) }
            .context("failed to write the table of opaque connections")
    }

    fn change_status(&mut self, change: &mut dyn FnMut(&mut Status)) -> Result<()> {
        let mut status = self.status;
        change(&mut status);
        if status != self.status {
            self.tables.set_status(&status).context("failed to write the gate's status")?;
            self.status = status;
        }
        Ok(())
    }
}
