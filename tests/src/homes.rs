//! Both homes of the gate side by side: every write goes to both, every packet is judged by both, and they must agree.

use std::{collections::BTreeSet, path::Path};

use floodwall_wire::{
    Address, Judgement, Observation, SourceKey, State, Verdict,
    frame::Transport,
    judge,
    lists::image::{Image, Range},
    memory::Tables,
    observe,
    tables::{
        KINDS, Port, Ports, Prefix, PrefixKey, Proof, ProofKey, SERVICES_MAX, SKETCH_COLUMNS, SKETCH_ROWS,
        ServiceSettings, Source, Status, USERS_PER_SERVICE, User, names, status_flags,
    },
    window::SliceWindow,
    word::Word,
};

use floodwall_kernel::Ring;

use crate::{
    bpf,
    kernel::{KernelGate, prebuilt_object},
};

/// Seed of the sketch in all tests.
const SEED: u64 = 0x5eed;

/// The gate over ordinary tables and the gate over maps.
pub struct Homes {
    /// In user space. Reads only: writes go through the methods.
    pub memory: Tables,
    /// In the kernel.
    pub kernel: KernelGate,
    sources: BTreeSet<SourceKey>,
    hosts: BTreeSet<Address>,
    users: BTreeSet<(u8, u16)>,
    ring: Option<Ring>,
}

impl Homes {
    /// Empty tables on both sides, or `None` (said loudly) where programs cannot be loaded.
    pub fn open(test: &str) -> Option<Self> {
        if !crate::is_root() {
            crate::skip(test, "needs root to load programs");
            return None;
        }
        Some(Self::load(&prebuilt_object()).unwrap_or_else(|error| panic!("{error:#}")))
    }

    /// Empty tables on both sides.
    ///
    /// # Errors
    /// As [`KernelGate::for_tests`].
    pub fn load(object: &Path) -> anyhow::Result<Self> {
        let mut homes = Self {
            memory: Tables::new(SEED),
            kernel: KernelGate::for_tests(object)?,
            sources: BTreeSet::new(),
            hosts: BTreeSet::new(),
            users: BTreeSet::new(),
            ring: None,
        };
        homes.set_status(|_| {});
        homes.set_now(0);
        Ok(homes)
    }

    /// Empties every table.
    pub fn clear(&mut self) {
        self.clear_words();
        for key in std::mem::take(&mut self.sources) {
            self.kernel.tables().remove_source(key).expect("a source can be removed");
        }
        for key in std::mem::take(&mut self.hosts) {
            bpf::delete(self.kernel.map(names::HOSTS), &key).expect("a host can be removed");
        }
        for (service, user_id) in std::mem::take(&mut self.users) {
            self.kernel.write(names::USERS, &user_index(service, user_id), &User::default());
        }
        self.clear_map::<Address>(names::LOCALS);
        self.clear_map::<PrefixKey>(names::PREFIXES);
        self.clear_map::<ProofKey>(names::PROOFS);
        self.kernel.tables().set_lists(&Image::build(&[])).expect("there is room");
        self.memory = Tables::new(SEED);
        self.write_ports();
        self.set_status(|_| {});
        self.set_now(0);
    }

    fn clear_map<K: bpf::Plain + Clone>(&self, name: &str) {
        let map = self.kernel.map(name);
        for key in bpf::keys::<K>(map).expect("the keys can be listed") {
            bpf::delete(map, &key).expect("a key can be removed");
        }
    }

    fn clear_words(&self) {
        for cell in (0..SKETCH_ROWS * SKETCH_COLUMNS).filter(|cell| load(self.memory.sketch(*cell)) != 0) {
            self.kernel.write(names::SKETCH, &cell, &0_u64);
        }
        for index in 0..(SERVICES_MAX * KINDS) as u32 {
            self.kernel.write(names::BUDGETS, &index, &0_u64);
        }
    }

    /// Sets the gate clock, ns.
    pub fn set_now(&mut self, now: u64) {
        self.memory.set_now(now);
        self.kernel.set_now(now);
    }

    /// Changes the status.
    pub fn set_status(&mut self, change: impl FnOnce(&mut Status)) {
        change(self.memory.status_mut());
        self.kernel.write(names::STATUS, &0_u32, self.memory.status());
    }

    /// Guards a port in one generation.
    pub fn set_port(&mut self, generation: u32, transport: Transport, port: u16, value: Port) {
        self.memory.set_port(generation, transport, port, value);
        self.write_ports();
    }

    fn write_ports(&self) {
        let mut ports = Ports::unguarded();
        for (block, generation) in ports.0.iter_mut().zip(0..) {
            block.copy_from_slice(self.memory.ports(generation));
        }
        self.kernel.write(names::PORTS, &0_u32, &*ports);
    }

    /// Sets a service's limits in one generation.
    pub fn set_settings(&mut self, generation: u32, service: u8, settings: ServiceSettings) {
        self.memory.set_settings(generation, service, settings);
        self.kernel.write(
            names::SETTINGS,
            &(generation * SERVICES_MAX as u32 + u32::from(service)),
            &settings,
        );
    }

    /// Guards an address; an IPv4 address also as a main one, so that both ways to find it are compared.
    pub fn insert_local(&mut self, address: Address) {
        self.memory.insert_local(address);
        if address.is_v4() {
            self.set_status(|status| status.main_locals[0] = address);
        }
        self.kernel.write(names::LOCALS, &address, &1_u8);
    }

    /// Writes the entry of an 8-byte key.
    pub fn insert_source(&mut self, key: SourceKey, source: &Source) {
        self.memory.insert_source(key, source.clone()).expect("the table has room");
        self.kernel.set_source(key, source);
        self.sources.insert(key);
    }

    /// Removes the entry of an 8-byte key.
    pub fn remove_source(&mut self, key: SourceKey) {
        self.memory.remove_source(key);
        self.kernel.tables().remove_source(key).expect("a source can be removed");
        self.sources.remove(&key);
    }

    /// Writes the entry of a full address.
    pub fn insert_host(&mut self, address: Address, source: &Source) {
        self.memory.insert_host(address, source.clone()).expect("the table has room");
        self.kernel.write(names::HOSTS, &address, source);
        self.hosts.insert(address);
    }

    /// Writes a prefix.
    pub fn insert_prefix(&mut self, address: Address, bits: u32, prefix: Prefix) {
        self.memory.insert_prefix(address, bits, prefix).expect("the table has room");
        self.kernel.write(names::PREFIXES, &PrefixKey::new(address, bits), &prefix);
        self.set_status(|status| status.flags |= status_flags::PREFIXES);
    }

    /// Puts other lists in the place of those before.
    pub fn set_lists(&mut self, lists: &[Range]) {
        let image = Image::build(lists);
        self.kernel.tables().set_lists(&image).expect("there is room");
        self.memory.set_lists(image);
        self.set_status(|status| status.flags |= status_flags::LISTS);
    }

    /// Binds a user id.
    pub fn set_user(&mut self, service: u8, user_id: u16, owner: Option<Address>) {
        self.memory.set_user(service, user_id, owner);
        let user = User { owner: owner.unwrap_or_default() };
        self.kernel.write(names::USERS, &user_index(service, user_id), &user);
        self.users.insert((service, user_id));
    }

    /// Judges an arriving frame in both homes; `what` names it if they disagree.
    pub fn judge(&self, frame: &[u8], what: &dyn std::fmt::Display) -> Judgement {
        let expected = judge(&SliceWindow::new(frame), &self.memory);
        let (action, judged) = self.kernel.judge(frame);
        assert_eq!(judged, expected, "{what}: kernel (left) and memory (right) disagree");
        let observing = self.memory.status().flags & status_flags::OBSERVE != 0;
        let verdict = if observing { Verdict::Pass } else { expected.verdict() };
        assert_eq!(action, verdict, "{what}: {expected:?}");
        expected
    }

    /// Shows a departing frame to the watcher in both homes.
    pub fn observe(&mut self, frame: &[u8], what: &dyn std::fmt::Display) -> Observation {
        let expected = observe(&SliceWindow::new(frame), &mut self.memory);
        assert_eq!(self.kernel.observe(frame), expected, "{what}: kernel (left) and memory (right) disagree");
        expected
    }

    /// Empties the mirror, as a controller that keeps up does. Otherwise it would fill up, and what cannot be mirrored is
    /// dropped in alarm: the one step for which memory has no counterpart.
    pub fn empty_mirror(&mut self) {
        let ring = self.ring.get_or_insert_with(|| {
            Ring::map(self.kernel.map(names::MIRROR)).unwrap_or_else(|error| panic!("map `MIRROR`: {error}"))
        });
        ring.drain(usize::MAX, |_, _| {});
    }

    /// Compares everything the gate writes; answers how many proofs and words were compared.
    pub fn compare_tables(&self) -> usize {
        let kernel_proofs =
            bpf::keys::<ProofKey>(self.kernel.map(names::PROOFS)).expect("proofs can be listed");
        assert_eq!(kernel_proofs.len(), self.memory.proofs().count(), "number of proofs");
        for (key, proof) in self.memory.proofs() {
            assert_eq!(self.kernel.read::<_, Proof>(names::PROOFS, key).as_ref(), Some(proof), "{key:?}");
        }
        for key in &self.sources {
            let held = self.kernel.tables().source(*key);
            assert_eq!(held.as_ref(), self.memory.source(*key), "{key:?}");
        }
        for address in &self.hosts {
            let held: Option<Source> = self.kernel.read(names::HOSTS, address);
            assert_eq!(held.as_ref(), self.memory.host(address), "{address}");
        }
        let cells = SKETCH_ROWS * SKETCH_COLUMNS;
        for cell in 0..cells {
            let held: Option<u64> = self.kernel.read(names::SKETCH, &cell);
            assert_eq!(held, Some(load(self.memory.sketch(cell))), "cell {cell} of the sketch");
        }
        for index in 0..(SERVICES_MAX * KINDS) as u32 {
            let held: Option<u64> = self.kernel.read(names::BUDGETS, &index);
            assert_eq!(held, Some(load(self.memory.budget(index))), "budget {index}");
        }
        kernel_proofs.len() + self.sources.len() + self.hosts.len() + cells as usize + SERVICES_MAX * KINDS
    }
}

fn load(word: Option<&Word>) -> u64 {
    word.map(Word::load).unwrap_or_default()
}

fn user_index(service: u8, user_id: u16) -> u32 {
    u32::from(service) * USERS_PER_SERVICE as u32 + u32::from(user_id)
}
