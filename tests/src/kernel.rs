//! The gate's kernel home, loaded from the prebuilt object and driven by hand.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData},
    programs::{ProgramError, SchedClassifier, Xdp},
};
use floodwall_wire::{
    Class, Judgement, Observation, Reason, Verdict,
    tables::{ClockReading, Standing, names},
};

use crate::bpf::{self, Plain, Run};

/// What XDP returns for a packet that passes.
const XDP_PASS: u32 = 2;
/// What XDP returns for a packet that is dropped.
const XDP_DROP: u32 = 1;
/// What the egress program returns: undecided.
const TC_ACT_UNSPEC: u32 = u32::MAX;

/// The loaded programs and their maps. Nothing is attached, nothing is pinned: it ends with the value.
pub struct KernelGate {
    ebpf: Ebpf,
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
        Self::load(object, 1)
    }

    /// Loads the object exactly as production does.
    ///
    /// # Errors
    /// As [`Self::for_tests`].
    pub fn as_in_production(object: &Path) -> Result<Self> {
        Self::load(object, 0)
    }

    fn load(object: &Path, test_clock: u32) -> Result<Self> {
        let bytes = std::fs::read(object).with_context(|| format!("failed to read {}", object.display()))?;
        let mut ebpf = EbpfLoader::new()
            .override_global(names::TEST_CLOCK_ENABLED, &test_clock, true)
            .load(&bytes)
            .context("failed to create the maps")?;
        load_xdp(&mut ebpf, "floodwall_ingress")?;
        load_xdp(&mut ebpf, "floodwall_clock")?;
        let egress: &mut SchedClassifier =
            ebpf.program_mut("floodwall_egress").context("no floodwall_egress")?.try_into()?;
        egress.load().context("failed to load floodwall_egress")?;
        Ok(Self { ebpf })
    }

    /// A map, by its name in `floodwall_wire::tables::names`.
    pub fn map(&self, name: &str) -> BorrowedFd<'_> {
        let map = self.ebpf.map(name).unwrap_or_else(|| panic!("the object has no map `{name}`"));
        map_data(map).fd().as_fd()
    }

    /// Names and descriptors of all maps.
    pub fn maps(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.ebpf.maps().map(|(name, map)| (name, map_data(map).fd().as_fd()))
    }

    /// A program, by its function's name.
    pub fn program(&self, name: &str) -> BorrowedFd<'_> {
        let program = self.ebpf.program(name).unwrap_or_else(|| panic!("the object has no program `{name}`"));
        program.fd().unwrap_or_else(|error| panic!("`{name}` is not loaded: {error}")).as_fd()
    }

    /// Instructions the verifier walked, and instructions of the program as the kernel holds it.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn instructions(&self, name: &str) -> Result<(u32, u32)> {
        let program = self.ebpf.program(name).context("no such program")?;
        let info = program.info()?;
        let translated = info.size_translated().unwrap_or(0) / 8;
        Ok((info.verified_instruction_count().unwrap_or(0), translated))
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
        self.run("floodwall_clock", &[0; 64]);
        self.read(names::CLOCK, &0_u32).unwrap_or_default()
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

fn load_xdp(ebpf: &mut Ebpf, name: &str) -> Result<()> {
    let program: &mut Xdp = ebpf.program_mut(name).with_context(|| format!("no {name}"))?.try_into()?;
    match program.load() {
        Err(ProgramError::LoadError { io_error, verifier_log }) => {
            let io_error: io::Error = io_error;
            bail!("failed to load {name}: {io_error}\n{verifier_log}")
        }
        other => other.with_context(|| format!("failed to load {name}")),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "aya names two dozen kinds of maps")]
fn map_data(map: &Map) -> &MapData {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => data,
        other => panic!("a map of a kind the gate does not use: {other:?}"),
    }
}
