//! The gate's home in ordinary memory: replay, tests, and the pcap fallback.

use std::collections::{HashMap, HashSet, VecDeque};

use foldhash::fast::FixedState;

use crate::{
    Address, SourceKey,
    frame::Transport,
    lists::{Treatment, image::Image},
    state::State,
    tables::{
        GENERATIONS, HOSTS_MAX, KINDS, PORTS, PREFIXES_MAX, PROOFS_MAX, Port, Prefix, PrefixKey, Proof,
        ProofKey, SERVICES_MAX, SKETCH_COLUMNS, SKETCH_ROWS, SOURCES_MAX, ServiceSettings, Source, Status,
        USERS_PER_SERVICE, User,
    },
    word::Word,
};

/// A table had no room; nothing was changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TableFull {
    /// Name of the table.
    pub table: &'static str,
    /// Its capacity.
    pub capacity: u32,
}

impl std::fmt::Display for TableFull {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table `{}` is full ({} entries)", self.table, self.capacity)
    }
}

impl std::error::Error for TableFull {}

/// The tables of [`crate::tables`] as ordinary collections, and a clock that is set by hand.
///
/// Capacities and what happens when they are reached equal the kernel's maps: `SOURCES`, `HOSTS` and
/// `PREFIXES` refuse, `PROOFS` lets the longest unused go.
#[derive(Debug)]
pub struct Tables {
    now: u64,
    status: Status,
    ports: Vec<Port>,
    settings: Vec<ServiceSettings>,
    locals: HashSet<Address, FixedState>,
    sources: HashMap<SourceKey, Source, FixedState>,
    hosts: HashMap<Address, Source, FixedState>,
    /// One table per prefix length, longest first.
    prefixes: Vec<(u32, HashMap<PrefixKey, Prefix, FixedState>)>,
    lists: Image,
    proofs: HashMap<ProofKey, Proof, FixedState>,
    proofs_by_age: VecDeque<(ProofKey, u64)>,
    proofs_evicted: u64,
    users: Vec<User>,
    sketch: Vec<Word>,
    budgets: Vec<Word>,
}

impl Tables {
    /// Empty tables. `seed` keys the hash tables and the strangers' sketch: random in production, fixed in tests.
    pub fn new(seed: u64) -> Self {
        let hasher = || FixedState::with_seed(seed);
        Self {
            now: 0,
            status: Status { seed, ..Status::default() },
            ports: vec![Port::UNGUARDED; GENERATIONS * PORTS],
            settings: vec![ServiceSettings::default(); GENERATIONS * SERVICES_MAX],
            locals: HashSet::with_hasher(hasher()),
            sources: HashMap::with_hasher(hasher()),
            hosts: HashMap::with_hasher(hasher()),
            prefixes: Vec::new(),
            lists: Image::default(),
            proofs: HashMap::with_hasher(hasher()),
            proofs_by_age: VecDeque::new(),
            proofs_evicted: 0,
            users: vec![User::default(); SERVICES_MAX * USERS_PER_SERVICE],
            sketch: vec![Word::default(); (SKETCH_COLUMNS * SKETCH_ROWS) as usize],
            budgets: vec![Word::default(); SERVICES_MAX * KINDS],
        }
    }

    /// Sets the gate clock, ns.
    pub fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// The status, to be changed in place.
    pub fn status_mut(&mut self) -> &mut Status {
        &mut self.status
    }

    /// Sets who is guarded at a port, in one generation.
    pub fn set_port(&mut self, generation: u32, transport: Transport, port: u16, value: Port) {
        if let Some(entry) = self.ports.get_mut(port_index(generation, transport, port)) {
            *entry = value;
        }
    }

    /// All ports of one generation, TCP first: the block the kernel's array holds.
    pub fn ports(&self, generation: u32) -> &[Port] {
        let start = (generation as usize % GENERATIONS) * PORTS;
        self.ports.get(start..start + PORTS).unwrap_or_default()
    }

    /// Sets the limits of a service, in one generation.
    pub fn set_settings(&mut self, generation: u32, service: u8, settings: ServiceSettings) {
        if let Some(entry) = self.settings.get_mut(settings_index(generation, service)) {
            *entry = settings;
        }
    }

    /// Guards the named ports at this address.
    pub fn insert_local(&mut self, address: Address) {
        self.locals.insert(address);
    }

    /// Writes the entry of an 8-byte key. The budgets of one that is there stay what the gate has left of them.
    ///
    /// # Errors
    /// When the table has no room for a new key; nothing is evicted.
    pub fn insert_source(&mut self, key: SourceKey, mut source: Source) -> Result<(), TableFull> {
        if self.sources.len() >= SOURCES_MAX as usize && !self.sources.contains_key(&key) {
            return Err(TableFull { table: "SOURCES", capacity: SOURCES_MAX });
        }
        if let Some(present) = self.sources.get(&key) {
            source.limits = present.limits.clone();
        }
        self.sources.insert(key, source);
        Ok(())
    }

    /// The entry of an 8-byte key, to be changed in place.
    pub fn source_mut(&mut self, key: SourceKey) -> Option<&mut Source> {
        self.sources.get_mut(&key)
    }

    /// Removes the entry of an 8-byte key.
    pub fn remove_source(&mut self, key: SourceKey) {
        self.sources.remove(&key);
    }

    /// Writes the entry of a full address, asked for behind a *mixed* source.
    ///
    /// # Errors
    /// When the table has no room for a new address; nothing is evicted.
    pub fn insert_host(&mut self, address: Address, source: Source) -> Result<(), TableFull> {
        if self.hosts.len() >= HOSTS_MAX as usize && !self.hosts.contains_key(&address) {
            return Err(TableFull { table: "HOSTS", capacity: HOSTS_MAX });
        }
        self.hosts.insert(address, source);
        Ok(())
    }

    /// The entry of a full address, to be changed in place.
    pub fn host_mut(&mut self, address: &Address) -> Option<&mut Source> {
        self.hosts.get_mut(address)
    }

    /// Writes a prefix of `bits` bits (of 128; IPv4 prefixes are 96 longer than written).
    ///
    /// # Errors
    /// When the table has no room; nothing is evicted.
    pub fn insert_prefix(&mut self, address: Address, bits: u32, prefix: Prefix) -> Result<(), TableFull> {
        let bits = bits.min(128);
        let held: usize = self.prefixes.iter().map(|(_, table)| table.len()).sum();
        let key = PrefixKey::new(masked(address, bits), bits);
        let is_new = !self.prefixes.iter().any(|(length, table)| *length == bits && table.contains_key(&key));
        if is_new && held >= PREFIXES_MAX as usize {
            return Err(TableFull { table: "PREFIXES", capacity: PREFIXES_MAX });
        }
        let at = match self.prefixes.binary_search_by(|(length, _)| bits.cmp(length)) {
            Ok(at) => at,
            Err(at) => {
                let table = HashMap::with_hasher(self.sources.hasher().clone());
                self.prefixes.insert(at, (bits, table));
                at
            }
        };
        if let Some((_, table)) = self.prefixes.get_mut(at) {
            table.insert(key, prefix);
        }
        self.status.flags |= crate::tables::status_flags::PREFIXES;
        Ok(())
    }

    /// Removes the entry of a full address.
    pub fn remove_host(&mut self, address: &Address) {
        self.hosts.remove(address);
    }

    /// Removes a prefix of `bits` bits.
    pub fn remove_prefix(&mut self, address: Address, bits: u32) {
        let bits = bits.min(128);
        if let Some((_, table)) = self.prefixes.iter_mut().find(|(length, _)| *length == bits) {
            table.remove(&PrefixKey::new(masked(address, bits), bits));
        }
        self.prefixes.retain(|(_, table)| !table.is_empty());
        if self.prefixes.is_empty() {
            self.status.flags &= !crate::tables::status_flags::PREFIXES;
        }
    }

    /// Puts other lists in the place of those before.
    pub fn set_lists(&mut self, lists: Image) {
        self.lists = lists;
    }

    /// Binds a user id to the address of its session, or to nobody.
    pub fn set_user(&mut self, service: u8, user_id: u16, owner: Option<Address>) {
        if let Some(user) = self.users.get_mut(user_index(service, user_id)) {
            user.owner = owner.unwrap_or_default();
        }
    }

    /// Proofs let go for lack of room since the start.
    pub fn proofs_evicted(&self) -> u64 {
        self.proofs_evicted
    }

    /// Every present proof, in no particular order.
    pub fn proofs(&self) -> impl Iterator<Item = (&ProofKey, &Proof)> {
        self.proofs.iter()
    }

    /// Makes room for one proof: the first in line that has not been prolonged since it joined goes.
    fn evict_proof(&mut self) {
        while let Some((key, until)) = self.proofs_by_age.pop_front() {
            let Some(proof) = self.proofs.get(&key) else { continue };
            let prolonged = proof.until.load();
            if prolonged == until {
                self.proofs.remove(&key);
                self.proofs_evicted += 1;
                return;
            }
            self.proofs_by_age.push_back((key, prolonged));
        }
    }
}

const fn port_index(generation: u32, transport: Transport, port: u16) -> usize {
    let transport = match transport {
        Transport::Tcp => 0,
        Transport::Udp => 65_536,
    };
    (generation as usize % GENERATIONS) * PORTS + transport + port as usize
}

const fn settings_index(generation: u32, service: u8) -> usize {
    (generation as usize % GENERATIONS) * SERVICES_MAX + service as usize % SERVICES_MAX
}

const fn user_index(service: u8, user_id: u16) -> usize {
    (service as usize % SERVICES_MAX) * USERS_PER_SERVICE + user_id as usize % USERS_PER_SERVICE
}

fn masked(address: Address, bits: u32) -> Address {
    let whole = u128::from(address.high) << 64 | u128::from(address.low);
    let mask = if bits == 0 { 0 } else { u128::MAX << (128 - bits) };
    let whole = whole & mask;
    Address { high: (whole >> 64) as u64, low: whole as u64 }
}

impl State for Tables {
    fn now(&self) -> u64 {
        self.now
    }

    fn status(&self) -> &Status {
        &self.status
    }

    fn port(&self, generation: u32, transport: Transport, port: u16) -> Port {
        self.ports.get(port_index(generation, transport, port)).copied().unwrap_or_default()
    }

    fn settings(&self, generation: u32, service: u8) -> Option<&ServiceSettings> {
        self.settings.get(settings_index(generation, service))
    }

    fn is_local(&self, address: &Address) -> bool {
        self.locals.contains(address)
    }

    fn source(&self, key: SourceKey) -> Option<&Source> {
        self.sources.get(&key)
    }

    fn host(&self, address: &Address) -> Option<&Source> {
        self.hosts.get(address)
    }

    fn prefix(&self, address: &Address) -> Option<&Prefix> {
        self.prefixes
            .iter()
            .find_map(|(bits, table)| table.get(&PrefixKey::new(masked(*address, *bits), *bits)))
    }

    fn listed(&self, address: &Address) -> Option<Treatment> {
        self.lists.listed(address)
    }

    fn proof(&self, key: &ProofKey) -> Option<&Proof> {
        self.proofs.get(key)
    }

    fn prove(&mut self, key: &ProofKey, until: u64) {
        if self.proofs.len() >= PROOFS_MAX as usize {
            self.evict_proof();
        }
        self.proofs_by_age.push_back((*key, until));
        self.proofs.insert(*key, Proof { until: Word::new(until), ..Proof::default() });
    }

    fn user(&self, service: u8, user_id: u16) -> Option<&User> {
        self.users.get(user_index(service, user_id))
    }

    fn sketch(&self, cell: u32) -> Option<&Word> {
        self.sketch.get(cell as usize)
    }

    fn budget(&self, index: u32) -> Option<&Word> {
        self.budgets.get(index as usize)
    }
}
