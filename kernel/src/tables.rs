//! The gate's tables over its maps, for the one who writes them.

use std::{
    borrow::Cow,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context, Result};
use floodwall_wire::{
    Address, Class, Reason, SourceKey,
    lists::image::Image,
    tables::{
        Counter, FAULTS, FlowKey, GENERATIONS, HOSTS_MAX, LOCALS_MAX, OPAQUE_MAX, PORTS, PREFIXES_MAX,
        PROOFS_MAX, PROOFS_STORED, Port, Ports, Prefix, PrefixKey, Proof, ProofKey, SERVICES_MAX,
        SOURCES_MAX, ServiceSettings, Source, Status, USERS_PER_SERVICE, User, counter_index, departed_index,
        names,
    },
};

use serde::{Deserialize, Serialize};

use crate::{bpf, lists::Lists, object::Object, sources::Sources};

/// How full a table of the gate is, and what that has cost.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Fill {
    /// Its name in reports and metric labels: `sources`, `hosts`, `prefixes`, `lists`, `locals`, `proofs`, `opaque`.
    pub table: Cow<'static, str>,
    /// Entries; of lists nodes, 64 bytes each.
    pub entries: u64,
    /// Entries there can be.
    pub capacity: u32,
    /// New entries for which there was no room, since the controller started.
    pub refused: u64,
    /// Entries that made room for others, at least.
    pub evicted: u64,
}

/// What user space alone can count.
#[derive(Debug, Default)]
struct Counts {
    hosts_refused: AtomicU64,
    prefixes_refused: AtomicU64,
    locals_refused: AtomicU64,
    proofs_stored: AtomicU64,
    /// New entries, less those removed.
    opaque_stored: AtomicU64,
}

/// Counts a map's refusal for lack of room.
fn counted<T>(refusals: &AtomicU64, written: io::Result<T>) -> io::Result<T> {
    // A hash says `E2BIG` when it is full, a trie `ENOSPC`.
    if matches!(&written, Err(error) if matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC))) {
        refusals.fetch_add(1, Ordering::Relaxed);
    }
    written
}

/// Descriptors of the maps that user space reads or writes.
#[derive(Debug)]
pub struct KernelTables {
    status: OwnedFd,
    settings: OwnedFd,
    ports: OwnedFd,
    locals: OwnedFd,
    sources: Sources,
    hosts: OwnedFd,
    prefixes: OwnedFd,
    lists: Lists,
    proofs: OwnedFd,
    users: OwnedFd,
    opaque: OwnedFd,
    counters: OwnedFd,
    departed: OwnedFd,
    faults: OwnedFd,
    counts: Counts,
}

impl KernelTables {
    /// The tables of a loaded object.
    ///
    /// # Errors
    /// When the object lacks one, or descriptors are used up.
    pub fn open(object: &Object) -> Result<Self> {
        let open = |name: &str| -> Result<OwnedFd> {
            object.map(name)?.try_clone_to_owned().with_context(|| format!("failed to open map {name}"))
        };
        let status = open(names::STATUS)?;
        let held: Status = bpf::lookup(status.as_fd(), &0_u32)?.unwrap_or_default();
        let sizes = [object.entries(names::SOURCE_KEYS)?, object.entries(names::SOURCES)?];
        let (keys, entries) = (object.map(names::SOURCE_KEYS)?, object.map(names::SOURCES)?);
        let sources =
            Sources::map(keys, entries, sizes, held.sources_seed).context("failed to map the sources")?;
        let lists = Lists::map(object.map(names::LISTS)?, object.entries(names::LISTS)?)
            .context("failed to map the lists")?;
        Ok(Self {
            status,
            settings: open(names::SETTINGS)?,
            ports: open(names::PORTS)?,
            locals: open(names::LOCALS)?,
            sources,
            hosts: open(names::HOSTS)?,
            prefixes: open(names::PREFIXES)?,
            lists,
            proofs: open(names::PROOFS)?,
            users: open(names::USERS)?,
            opaque: open(names::OPAQUE)?,
            counters: open(names::COUNTERS)?,
            departed: open(names::DEPARTED)?,
            faults: open(names::FAULTS)?,
            counts: Counts::default(),
        })
    }

    /// What holds just now; all zeros in a map nobody has written yet.
    ///
    /// # Errors
    /// Whatever the kernel says, here and below.
    pub fn status(&self) -> io::Result<Status> {
        Ok(bpf::lookup(self.status.as_fd(), &0_u32)?.unwrap_or_default())
    }

    /// Replaces the status. With its seed the table of sources cannot be found again, so that may change only while there
    /// are none.
    pub fn set_status(&self, status: &Status) -> io::Result<()> {
        self.sources.set_seed(status.sources_seed)?;
        bpf::update(self.status.as_fd(), &0_u32, status)
    }

    /// Gives the table of sources a seed if it has none yet: once in its life, before its first entry.
    pub fn seed_sources(&self, seed: u64) -> io::Result<()> {
        let status = self.status()?;
        if status.sources_seed != 0 {
            return Ok(());
        }
        self.set_status(&Status { sources_seed: seed, ..status })
    }

    /// The ports of all generations.
    pub fn ports(&self) -> io::Result<Box<Ports>> {
        let mut all = Ports::unguarded();
        bpf::lookup_into(self.ports.as_fd(), &0_u32, &mut *all)?;
        Ok(all)
    }

    /// Replaces all ports of one generation. The other's are written with it, as they are, so that for a reader they do
    /// not change.
    pub fn set_ports(&self, generation: u32, ports: &[Port; PORTS]) -> io::Result<()> {
        let mut all = self.ports()?;
        all.0[generation as usize % GENERATIONS] = *ports;
        bpf::update(self.ports.as_fd(), &0_u32, &*all)
    }

    /// Replaces the limits of a service in one generation.
    pub fn set_settings(&self, generation: u32, service: u8, settings: &ServiceSettings) -> io::Result<()> {
        let index = generation * SERVICES_MAX as u32 + u32::from(service);
        bpf::update(self.settings.as_fd(), &index, settings)
    }

    /// Addresses at which services are guarded.
    pub fn locals(&self) -> io::Result<Vec<Address>> {
        bpf::keys(self.locals.as_fd())
    }

    /// Guards the named ports at an address.
    pub fn insert_local(&self, address: Address) -> io::Result<()> {
        counted(&self.counts.locals_refused, bpf::update(self.locals.as_fd(), &address, &1_u8))
    }

    /// Guards nothing at an address any longer.
    pub fn remove_local(&self, address: Address) -> io::Result<()> {
        bpf::delete(self.locals.as_fd(), &address)
    }

    /// The entry of an 8-byte key.
    pub fn source(&self, key: SourceKey) -> Option<Source> {
        self.sources.get(key)
    }

    /// Writes the entry of an 8-byte key; `E2BIG` when there is no room. The budgets of an entry that is there stay what the
    /// gate has left of them.
    pub fn set_source(&self, key: SourceKey, source: &Source) -> io::Result<()> {
        self.sources.set(key, source)
    }

    /// Removes the entry of an 8-byte key.
    pub fn remove_source(&self, key: SourceKey) -> io::Result<()> {
        self.sources.remove(key)
    }

    /// Every 8-byte key with an entry.
    pub fn source_keys(&self) -> Vec<SourceKey> {
        self.sources.keys()
    }

    /// The entry of a full address.
    pub fn host(&self, address: &Address) -> io::Result<Option<Source>> {
        bpf::lookup(self.hosts.as_fd(), address)
    }

    /// Writes the entry of a full address.
    pub fn set_host(&self, address: Address, source: &Source) -> io::Result<()> {
        counted(&self.counts.hosts_refused, bpf::update(self.hosts.as_fd(), &address, source))
    }

    /// Removes the entry of a full address.
    pub fn remove_host(&self, address: Address) -> io::Result<()> {
        bpf::delete(self.hosts.as_fd(), &address)
    }

    /// Every full address with an entry.
    pub fn host_keys(&self) -> io::Result<Vec<Address>> {
        bpf::keys(self.hosts.as_fd())
    }

    /// Writes a prefix.
    pub fn set_prefix(&self, key: PrefixKey, prefix: &Prefix) -> io::Result<()> {
        counted(&self.counts.prefixes_refused, bpf::update(self.prefixes.as_fd(), &key, prefix))
    }

    /// Removes a prefix.
    pub fn remove_prefix(&self, key: PrefixKey) -> io::Result<()> {
        bpf::delete(self.prefixes.as_fd(), &key)
    }

    /// Puts other lists in the place of those before, with one word; `E2BIG` when there is no room.
    pub fn set_lists(&self, lists: &Image) -> io::Result<()> {
        self.lists.set(lists)
    }

    /// Nodes that an image of lists may have.
    pub fn list_nodes_max(&self) -> u32 {
        self.lists.capacity()
    }

    /// Every prefix and what holds for it.
    pub fn prefixes(&self) -> io::Result<Vec<(PrefixKey, Prefix)>> {
        let keys = bpf::keys::<PrefixKey>(self.prefixes.as_fd())?;
        // Looking a prefix up answers the longest that contains it: itself.
        let look = |key: PrefixKey| Ok(bpf::lookup(self.prefixes.as_fd(), &key)?.map(|prefix| (key, prefix)));
        keys.into_iter().filter_map(|key| look(key).transpose()).collect()
    }

    /// Records that an address holds a session, if nothing better is known.
    pub fn prove(&self, key: ProofKey, until: u64) -> io::Result<()> {
        let present: Option<Proof> = bpf::lookup(self.proofs.as_fd(), &key)?;
        if present.as_ref().is_some_and(|proof| proof.until.load() >= until) {
            return Ok(());
        }
        if present.is_none() {
            self.counts.proofs_stored.fetch_add(1, Ordering::Relaxed);
        }
        let proof = Proof { until: floodwall_wire::word::Word::new(until), ..Proof::default() };
        bpf::update(self.proofs.as_fd(), &key, &proof)
    }

    /// Number of addresses that the server's answers prove, whether still or no longer.
    pub fn proofs(&self) -> io::Result<usize> {
        bpf::keys::<ProofKey>(self.proofs.as_fd()).map(|keys| keys.len())
    }

    /// The owner of a user id; the unspecified address for none.
    pub fn user(&self, service: u8, user_id: u16) -> io::Result<User> {
        Ok(bpf::lookup(self.users.as_fd(), &user_index(service, user_id))?.unwrap_or_default())
    }

    /// Binds a user id to an address, or to nobody.
    pub fn set_user(&self, service: u8, user_id: u16, owner: Option<Address>) -> io::Result<()> {
        let user = User { owner: owner.unwrap_or_default() };
        bpf::update(self.users.as_fd(), &user_index(service, user_id), &user)
    }

    /// Shows no more payload of a connection.
    pub fn set_opaque(&self, flow: &FlowKey) -> io::Result<()> {
        if bpf::lookup::<_, u64>(self.opaque.as_fd(), flow)?.is_none() {
            self.counts.opaque_stored.fetch_add(1, Ordering::Relaxed);
        }
        bpf::update(self.opaque.as_fd(), flow, &1_u64)
    }

    /// Shows every connection again.
    pub fn clear_all_opaque(&self) -> io::Result<()> {
        for flow in bpf::keys::<FlowKey>(self.opaque.as_fd())? {
            bpf::delete(self.opaque.as_fd(), &flow)?;
        }
        self.counts.opaque_stored.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Shows a connection again: another may have begun between the same ports.
    pub fn clear_opaque(&self, flow: &FlowKey) -> io::Result<()> {
        if bpf::lookup::<_, u64>(self.opaque.as_fd(), flow)?.is_some() {
            self.counts.opaque_stored.fetch_sub(1, Ordering::Relaxed);
        }
        bpf::delete(self.opaque.as_fd(), flow)
    }

    /// How full every table is that can be full. Only who wrote the prefixes knows how many there are: to count them takes
    /// as long as to read them.
    pub fn fills(&self, prefixes: u64) -> io::Result<[Fill; 7]> {
        let counts = &self.counts;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (sources, sources_refused) = self.sources.held_and_refused();
        let (list_nodes, lists_refused) = self.lists.held_and_refused();
        let stored: u64 = bpf::lookup_per_cpu::<u64>(self.faults.as_fd(), PROOFS_STORED)?.iter().sum();
        let (proofs, hosts) = (self.proofs()? as u64, self.host_keys()?.len() as u64);
        let (locals, opaque) =
            (self.locals()?.len() as u64, bpf::keys::<FlowKey>(self.opaque.as_fd())?.len() as u64);
        let refusing = |table, entries, capacity, refused| Fill {
            table: Cow::Borrowed(table),
            entries,
            capacity,
            refused,
            evicted: 0,
        };
        let evicting = |table, entries, capacity, stored: u64| Fill {
            evicted: stored.saturating_sub(entries),
            ..refusing(table, entries, capacity, 0)
        };
        Ok([
            refusing("sources", sources as u64, SOURCES_MAX, sources_refused),
            refusing("hosts", hosts, HOSTS_MAX, load(&counts.hosts_refused)),
            refusing("prefixes", prefixes, PREFIXES_MAX, load(&counts.prefixes_refused)),
            refusing("lists", list_nodes, self.lists.capacity(), lists_refused),
            refusing("locals", locals, LOCALS_MAX, load(&counts.locals_refused)),
            evicting("proofs", proofs, PROOFS_MAX, stored + load(&counts.proofs_stored)),
            evicting("opaque", opaque, OPAQUE_MAX, load(&counts.opaque_stored)),
        ])
    }

    /// Counters of what arrived for a service, summed over all CPUs; those at zero are left out.
    pub fn arrived(&self, service: u8) -> io::Result<Vec<(Class, Reason, Counter)>> {
        let mut counts = Vec::new();
        for class in Class::ALL {
            for reason in Reason::ALL {
                let total = sum(self.counters.as_fd(), counter_index(service, class, *reason))?;
                if total.packets > 0 {
                    counts.push((class, *reason, total));
                }
            }
        }
        Ok(counts)
    }

    /// Counters of what departed from a service.
    pub fn departed(&self, service: u8) -> io::Result<Vec<(Class, Counter)>> {
        let mut counts = Vec::new();
        for class in Class::ALL {
            let total = sum(self.departed.as_fd(), departed_index(service, class))?;
            if total.packets > 0 {
                counts.push((class, total));
            }
        }
        Ok(counts)
    }

    /// Counts of what went wrong, in the order of `floodwall_wire::tables::Fault`.
    pub fn faults(&self) -> io::Result<[u64; FAULTS]> {
        let mut counts = [0; FAULTS];
        for (index, count) in counts.iter_mut().enumerate() {
            *count = bpf::lookup_per_cpu::<u64>(self.faults.as_fd(), index as u32)?.iter().sum();
        }
        Ok(counts)
    }
}

fn sum(map: BorrowedFd<'_>, index: u32) -> io::Result<Counter> {
    let counts = bpf::lookup_per_cpu::<Counter>(map, index)?;
    Ok(counts.iter().fold(Counter::default(), |sum, one| Counter {
        packets: sum.packets + one.packets,
        bytes: sum.bytes + one.bytes,
    }))
}

fn user_index(service: u8, user_id: u16) -> u32 {
    (usize::from(service) % SERVICES_MAX * USERS_PER_SERVICE + usize::from(user_id) % USERS_PER_SERVICE)
        as u32
}
