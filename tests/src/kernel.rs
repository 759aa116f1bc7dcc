//! The gate's kernel home, loaded from the prebuilt object and driven by hand.

use std::{
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use floodwall_kernel::{
    KernelTables, Object, Sizes,
    bpf::{self, Plain, Run},
    clock,
};
use floodwall_wire::{
    Class, Judgement, Observation, Reason, SourceKey, Verdict,
    tables::{ClockReading, Source, Standing, names},
};

/// What XDP returns for a packet that passes.
const XDP_PASS: u32 = 2;
/// What XDP returns for a packet that is dropped.
const XDP_DROP: u32 = 1;
/// What the egress program returns: undecided.
const TC_ACT_UNSPEC: u32 = u32::MAX;

/// The loaded programs and their maps. Nothing is attached, nothing is pinned: it ends with the value.
pub struct KernelGate {
    object: Object,
    tables: KernelTables,
}

/// Where `cargo xtask ebpf` puts the object.
pub fn prebuilt_object() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../xdp-prog/prebuilt/floodwall.bpf.o")
}

impl KernelGate {
    /// Loads the object as production does, with the clock injected and judgements recorded.
    ///
    /// # Errors
    /// When the object cannot be read or the kernel refuses a map or a program; the verifier's log is in the chain.
    pub fn for_tests(object: &Path) -> Result<Self> {
        Self::new(Object::for_tests(&read(object)?)?)
    }

    /// Loads the object exactly as production does.
    ///
    /// # Errors
    /// As [`Self::for_tests`].
    pub fn as_in_production(object: &Path) -> Result<Self> {
        Self::new(Object::unpinned(&read(object)?)?)
    }

    /// The same with other sizes.
    ///
    /// # Errors
    /// As [`Self::for_tests`].
    pub fn with_sizes(object: &Path, sizes: Sizes) -> Result<Self> {
        Self::new(Object::unpinned_with(&read(object)?, sizes)?)
    }

    fn new(object: Object) -> Result<Self> {
        let tables = KernelTables::open(&object)?;
        Ok(Self { object, tables })
    }

    /// The tables, as the controller writes them.
    pub const fn tables(&self) -> &KernelTables {
        &self.tables
    }

    /// Writes the entry of an 8-byte key, which must be accepted.
    pub fn set_source(&self, key: SourceKey, source: &Source) {
        self.tables.set_source(key, source).unwrap_or_else(|error| panic!("{key:?}: {error}"));
    }

    /// The loaded object.
    pub const fn object(&self) -> &Object {
        &self.object
    }

    /// A map, by its name in `floodwall_wire::tables::names`.
    pub fn map(&self, name: &str) -> BorrowedFd<'_> {
        self.object.map(name).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Names and descriptors of all maps.
    pub fn maps(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.object.maps()
    }

    /// A program, by its function's name.
    pub fn program(&self, name: &str) -> BorrowedFd<'_> {
        self.object.program(name).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Instructions the verifier walked, and instructions of the program as the kernel holds it.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn instructions(&self, name: &str) -> Result<(u32, u32)> {
        self.object.instructions(name)
    }

    /// Sets the injected clock, ns.
    pub fn set_now(&self, now: u64) {
        self.write(names::TEST_CLOCK, &0_u32, &now);
    }

    /// Writes a map entry that must be accepted.
    pub fn write<K: Plain, V: Plain>(&self, map: &str, key: &K, value: &V) {
        bpf::update(self.map(map), key, value).unwrap_or_else(|error| panic!("map `{map}`: {error}"));
    }

    /// Reads a map entry.
    pub fn read<K: Plain, V: Plain>(&self, map: &str, key: &K) -> Option<V> {
        bpf::lookup(self.map(map), key).unwrap_or_else(|error| panic!("map `{map}`: {error}"))
    }

    /// Sums an entry of a per-CPU map of `u64` cells.
    pub fn fault_count(&self, fault: floodwall_wire::tables::Fault) -> u64 {
        let values = bpf::lookup_per_cpu::<u64>(self.map(names::FAULTS), fault as u32);
        values.unwrap_or_else(|error| panic!("map `FAULTS`: {error}")).iter().sum()
    }

    /// Judges an arriving frame: what XDP did with it and what the gate said of it.
    pub fn judge(&self, frame: &[u8]) -> (Verdict, Judgement) {
        let action = match self.run("floodwall_ingress", frame).action {
            XDP_PASS => Verdict::Pass,
            XDP_DROP => Verdict::Drop,
            other => panic!("XDP action {other}"),
        };
        let ([service, class, reason, standing], bytes) = self.last_judgement();
        let judgement = Judgement {
            reason: Reason::from_number(reason).unwrap_or_else(|| panic!("reason {reason}")),
            service,
            class: Class::ALL[usize::from(class)],
            standing: Standing::ALL[usize::from(standing)],
            bytes,
        };
        (action, judgement)
    }

    /// Shows the watcher a departing frame.
    pub fn observe(&self, frame: &[u8]) -> Observation {
        assert_eq!(self.run("floodwall_egress", frame).action, TC_ACT_UNSPEC);
        let ([service, class, proves, departing], _) = self.last_judgement();
        assert_eq!(departing, 1);
        Observation { service, class: Class::ALL[usize::from(class)], proves: proves == 1 }
    }

    /// Both clocks of the kernel.
    pub fn clock(&self) -> ClockReading {
        clock::read(&self.object).unwrap_or_else(|error| panic!("{error:#}"))
    }

    fn last_judgement(&self) -> ([u8; 4], u32) {
        let packed: u64 = self.read(names::LAST_JUDGEMENT, &0_u32).unwrap_or(u64::MAX);
        assert_ne!(packed, u64::MAX, "the program left no judgement");
        // A program that leaves nothing must not be taken to repeat itself.
        self.write(names::LAST_JUDGEMENT, &0_u32, &u64::MAX);
        let [a, b, c, d, bytes @ ..] = packed.to_le_bytes();
        ([a, b, c, d], u32::from_le_bytes(bytes))
    }

    fn run(&self, program: &str, frame: &[u8]) -> Run {
        let run = bpf::run(self.program(program), frame, 1);
        run.unwrap_or_else(|error| panic!("{program} over {} bytes: {error}", frame.len()))
    }
}

fn read(object: &Path) -> Result<Vec<u8>> {
    std::fs::read(object).with_context(|| format!("failed to read {}", object.display()))
}
