//! The prebuilt object, loaded.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use anyhow::{Context, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData},
    programs::{ProgramError, SchedClassifier, Xdp},
};
use floodwall_wire::{
    sources::{BUCKET_KEYS, buckets_for},
    tables::{LIST_NODES_MIN, SOURCES_MAX, names},
};

use crate::{
    bpf,
    lists::{nodes_for, room_in},
};

/// The object as `cargo xtask ebpf` built it.
pub static PREBUILT: &[u8] = include_bytes!("../../xdp-prog/prebuilt/floodwall.bpf.o");

/// Name of the XDP program.
pub const INGRESS: &str = "floodwall_ingress";
/// Name of the tc program.
pub const EGRESS: &str = "floodwall_egress";
/// Name of the program that reads the clock.
pub const CLOCK: &str = "floodwall_clock";

/// Maps that hold what must outlive a controller; the others are scratch or tests'.
pub const PINNED: [&str; 19] = [
    names::STATUS,
    names::SETTINGS,
    names::PORTS,
    names::LOCALS,
    names::SOURCES,
    names::SOURCE_KEYS,
    names::HOSTS,
    names::PREFIXES,
    names::LISTS,
    names::PROOFS,
    names::USERS,
    names::SKETCH,
    names::BUDGETS,
    names::COUNTERS,
    names::DEPARTED,
    names::FAULTS,
    names::MIRROR,
    names::OPAQUE,
    names::ALLOWANCES,
];

/// Sizes of maps that not every gate has alike.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Entries of the table of sources.
    pub sources: u32,
    /// Nodes of an image of lists; there is room for [`LIST_NODES_MIN`] always.
    pub list_nodes: u32,
}

impl Sizes {
    /// Those whose memory is stated.
    pub const DEFAULT: Self = Self { sources: SOURCES_MAX, list_nodes: LIST_NODES_MIN };
}

/// The loaded programs and their maps. What is neither attached nor pinned ends with the value.
#[derive(Debug)]
pub struct Object {
    pub(crate) ebpf: Ebpf,
}

impl Object {
    /// Loads the object with maps of its own, for tests: with the clock injected and judgements recorded.
    ///
    /// # Errors
    /// When the kernel refuses a map or a program; the verifier's log is in the chain.
    pub fn for_tests(bytes: &[u8]) -> Result<Self> {
        Self::load(bytes, 1, None, Sizes::DEFAULT)
    }

    /// Loads the object with maps of its own, otherwise as the daemon does.
    ///
    /// # Errors
    /// As [`Self::for_tests`].
    pub fn unpinned(bytes: &[u8]) -> Result<Self> {
        Self::unpinned_with(bytes, Sizes::DEFAULT)
    }

    /// As [`Self::unpinned`], with other sizes.
    ///
    /// # Errors
    /// As [`Self::for_tests`].
    pub fn unpinned_with(bytes: &[u8], sizes: Sizes) -> Result<Self> {
        Self::load(bytes, 0, None, sizes)
    }

    /// Loads the prebuilt object over the maps pinned in a folder of the bpf file system; those that are missing are
    /// created and pinned there, and lists for which there is too little room are given another array.
    ///
    /// # Errors
    /// As [`Self::for_tests`].
    pub fn pinned(maps: &Path, list_nodes: u32) -> Result<Self> {
        make_room_for_lists(maps, list_nodes)?;
        Self::load(PREBUILT, 0, Some(maps), Sizes { list_nodes, ..Sizes::DEFAULT })
    }

    fn load(bytes: &[u8], test_clock: u32, pins: Option<&Path>, sizes: Sizes) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        let buckets = buckets_for(sizes.sources);
        loader.map_max_entries(names::LISTS, nodes_for(sizes.list_nodes));
        loader.map_max_entries(names::SOURCE_KEYS, buckets);
        loader.map_max_entries(names::SOURCES, buckets * BUCKET_KEYS as u32);
        let mask = buckets - 1;
        loader.override_global(names::SOURCES_MASK, &mask, true);
        loader.override_global(names::TEST_CLOCK_ENABLED, &test_clock, true);
        // A section's map is written when it is loaded, also one that is adopted: with what it holds.
        let sections = pins.map(adopted_sections).transpose()?.unwrap_or_default();
        for (symbol, value) in &sections {
            loader.override_global(symbol, value.as_slice(), true);
        }
        if let Some(folder) = pins {
            for name in PINNED {
                loader.map_pin_path(name, folder.join(pin_name(name)));
            }
        }
        let mut ebpf = loader.load(bytes).context("failed to create the maps")?;
        load_xdp(&mut ebpf, INGRESS)?;
        load_xdp(&mut ebpf, CLOCK)?;
        let egress: &mut SchedClassifier =
            ebpf.program_mut(EGRESS).with_context(|| format!("no {EGRESS}"))?.try_into()?;
        egress.load().with_context(|| format!("failed to load {EGRESS}"))?;
        Ok(Self { ebpf })
    }

    /// A map, by its name in `floodwall_wire::tables::names`.
    ///
    /// # Errors
    /// When the object has no such map, or one of a kind the gate does not use.
    pub fn map(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let map = self.ebpf.map(name).with_context(|| format!("the object has no map {name}"))?;
        Ok(map_data(map).with_context(|| format!("map {name} is of an unexpected kind"))?.fd().as_fd())
    }

    /// How many entries a map can hold.
    ///
    /// # Errors
    /// As [`Self::map`], or when the kernel does not tell.
    pub fn entries(&self, name: &str) -> Result<u32> {
        let map = self.ebpf.map(name).with_context(|| format!("the object has no map {name}"))?;
        let data = map_data(map).with_context(|| format!("map {name} is of an unexpected kind"))?;
        data.info()
            .map(|info| info.max_entries())
            .with_context(|| format!("failed to ask for the size of {name}"))
    }

    /// Names and descriptors of all maps.
    pub fn maps(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.ebpf.maps().filter_map(|(name, map)| Some((name, map_data(map)?.fd().as_fd())))
    }

    /// A program, by its function's name.
    ///
    /// # Errors
    /// When the object has no such program.
    pub fn program(&self, name: &str) -> Result<BorrowedFd<'_>> {
        let program = self.ebpf.program(name).with_context(|| format!("the object has no program {name}"))?;
        Ok(program.fd()?.as_fd())
    }

    /// Instructions the verifier walked, and instructions of the program as the kernel holds it.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn instructions(&self, name: &str) -> Result<(u32, u32)> {
        let info = self.ebpf.program(name).context("no such program")?.info()?;
        let translated = info.size_translated().unwrap_or(0) / 8;
        Ok((info.verified_instruction_count().unwrap_or(0), translated))
    }
}

/// The bpf file system keeps dots to itself: a section is pinned by what follows its last one.
fn pin_name(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Unpins an array of lists that is too small: the loader makes another. Programs that are attached go on with the one they
/// have until others take their place.
fn make_room_for_lists(folder: &Path, list_nodes: u32) -> Result<()> {
    let path = folder.join(names::LISTS);
    if !path.try_exists().with_context(|| format!("failed to look at {}", path.display()))? {
        return Ok(());
    }
    let map = MapData::from_pin(&path).with_context(|| format!("failed to open {}", path.display()))?;
    let info = map.info().with_context(|| format!("failed to ask for the size of {}", path.display()))?;
    if room_in(info.max_entries()) < list_nodes {
        fs::remove_file(&path).with_context(|| format!("failed to remove {}", path.display()))?;
    }
    Ok(())
}

/// What the pinned sections hold, by the names of their symbols.
fn adopted_sections(folder: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut sections = Vec::new();
    for name in PINNED.into_iter().filter(|name| name.starts_with('.')).map(pin_name) {
        let path = folder.join(name);
        if !path.try_exists().with_context(|| format!("failed to look at {}", path.display()))? {
            continue;
        }
        let map = MapData::from_pin(&path).with_context(|| format!("failed to open {}", path.display()))?;
        let bytes = map
            .info()
            .map(|info| info.value_size())
            .with_context(|| format!("failed to ask for the size of {}", path.display()))?;
        let value = bpf::lookup_bytes(map.fd().as_fd(), 0, bytes as usize)
            .with_context(|| format!("failed to read {}", path.display()))?;
        sections.push((name, value));
    }
    Ok(sections)
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
const fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}
