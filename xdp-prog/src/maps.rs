//! The maps. Their statics are private to this file; everybody else calls a function.
//!
//! Names, keys, values and capacities are those of `floodwall_wire::tables`. Hash tables are allocated whole
//! when the object is loaded: what a ban needs is there when memory is short, and the total is known at load
//! time (`tests/tests/map_memory.rs` adds it up).

use core::{cell::UnsafeCell, ffi::c_void};

use aya_ebpf::{
    Global,
    bindings::{BPF_ANY, BPF_F_MMAPABLE, BPF_RB_AVAIL_DATA, BPF_RB_RING_SIZE},
    helpers::bpf_ringbuf_output,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, lpm_trie::Key},
};
use floodwall_wire::{
    Address, Judgement, Observation, SourceKey, State,
    frame::Transport,
    limit::{self, Admission, Limit},
    lists::{self, Node, Nodes, Treatment},
    mirror::{self, CHUNK_BYTES, Chunk, FLOOD_ALLOWANCE, Flood, Record, SAMPLE_ALLOWANCE, SOURCE_ALLOWANCE},
    sources::{self, BUCKET_KEYS, Bucket},
    tables::{
        self, ClockReading, Counter, Fault, FlowKey, Port, Ports, Prefix, PrefixKey, Proof, ProofKey, Source,
    },
    tables::{ServiceSettings, Status, User},
    word::Word,
};

use crate::{
    clock,
    window::{blurred, kept},
};

/// A section of its own becomes an array of one entry, and access to it no look-up but an address the loader writes into
/// the program. Everything read for every packet lies so. The symbol is exported because the compiler would otherwise see
/// that no program writes it, and read zeros.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.STATUS")]
static STATUS: Shared<Status> = Shared(UnsafeCell::new(Status::ZERO));
#[map]
static SETTINGS: Array<ServiceSettings> = Array::with_max_entries(SETTINGS_MAX, 0);
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.PORTS")]
static PORTS: Shared<Ports> = Shared(UnsafeCell::new(Ports::UNGUARDED));
#[map]
static LOCALS: HashMap<Address, u8> = HashMap::with_max_entries(tables::LOCALS_MAX, 0);
#[map]
static SOURCES: Array<Source> = Array::with_max_entries(BUCKETS * BUCKET_KEYS as u32, BPF_F_MMAPABLE);
#[map]
static SOURCE_KEYS: Array<Bucket> = Array::with_max_entries(BUCKETS, BPF_F_MMAPABLE);
/// The loader sets it for a table of another size.
#[unsafe(no_mangle)]
static SOURCES_MASK: Global<u32> = Global::new(BUCKETS - 1);
#[map]
static HOSTS: HashMap<Address, Source> = HashMap::with_max_entries(tables::HOSTS_MAX, 0);
#[map]
static PREFIXES: LpmTrie<[u32; 4], Prefix> = LpmTrie::with_max_entries(tables::PREFIXES_MAX, 0);
/// The loader makes it larger for who has long lists.
#[map]
static LISTS: Array<Node> = Array::with_max_entries(1 + 2 * tables::LIST_NODES_MIN, BPF_F_MMAPABLE);
#[map]
static PROOFS: LruHashMap<ProofKey, Proof> = LruHashMap::with_max_entries(tables::PROOFS_MAX, 0);
#[map]
static USERS: Array<User> = Array::with_max_entries(USERS_MAX, 0);
#[map]
static SKETCH: Array<Word> = Array::with_max_entries(SKETCH_MAX, 0);
#[map]
static BUDGETS: Array<Word> = Array::with_max_entries(BUDGETS_MAX, 0);
#[map]
static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(tables::COUNTERS as u32, 0);
#[map]
static DEPARTED: PerCpuArray<Counter> = PerCpuArray::with_max_entries(tables::DEPARTED as u32, 0);
#[map]
static FAULTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(tables::FAULT_CELLS, 0);
#[map]
static MIRROR: RingBuf = RingBuf::with_byte_size(tables::MIRROR_BYTES, 0);
#[map]
static OPAQUE: LruHashMap<FlowKey, u64> = LruHashMap::with_max_entries(tables::OPAQUE_MAX, 0);
#[map]
static ALLOWANCES: Array<Word> = Array::with_max_entries(mirror::ALLOWANCES, 0);
#[map]
static CHUNKS: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(2, 0);
#[map]
static CLOCK: Array<ClockReading> = Array::with_max_entries(1, 0);
#[map]
static TEST_CLOCK: Array<u64> = Array::with_max_entries(1, 0);
#[map]
static LAST_JUDGEMENT: Array<u64> = Array::with_max_entries(1, 0);

const BUCKETS: u32 = sources::buckets_for(tables::SOURCES_MAX);
const PORTS_MAX: usize = tables::GENERATIONS * tables::PORTS;
const SETTINGS_MAX: u32 = (tables::GENERATIONS * tables::SERVICES_MAX) as u32;
const USERS_MAX: u32 = (tables::SERVICES_MAX * tables::USERS_PER_SERVICE) as u32;
const SKETCH_MAX: u32 = tables::SKETCH_ROWS * tables::SKETCH_COLUMNS;
const BUDGETS_MAX: u32 = (tables::SERVICES_MAX * tables::KINDS) as u32;

/// A chunk and, behind it, room for every length the verifier can imagine: it follows masks, not minima.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) chunk: Chunk,
    slack: [u8; SCRATCH_BYTES - size_of::<Chunk>()],
}

/// Header and the next power of two above [`CHUNK_BYTES`].
const SCRATCH_BYTES: usize = size_of::<Record>() + CHUNK_BYTES.next_power_of_two();

/// The tables over the maps.
pub(crate) struct Tables {
    status: &'static Status,
}

impl Tables {
    #[inline(always)]
    pub(crate) fn open() -> Self {
        Self { status: STATUS.get() }
    }
}

/// What only user space writes.
#[repr(transparent)]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: programs only read it; user space replaces it whole, which no reader may assume to be atomic.
unsafe impl<T: Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    #[inline(always)]
    const fn get(&'static self) -> &'static T {
        // SAFETY: a valid static; see above.
        unsafe { &*self.0.get() }
    }
}

impl State for Tables {
    #[inline(always)]
    fn now(&self) -> u64 {
        clock::now(self.status)
    }

    #[inline(always)]
    fn status(&self) -> &Status {
        self.status
    }

    #[inline(always)]
    fn port(&self, generation: u32, transport: Transport, port: u16) -> Port {
        let row = match transport {
            Transport::Tcp => 0,
            Transport::Udp => 65_536,
        };
        // The sum is below the length; the mask lets the verifier see it.
        let index = (generation as usize * tables::PORTS + row + port as usize) & (PORTS_MAX - 1);
        PORTS.get().0.as_flattened().get(index).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn settings(&self, generation: u32, service: u8) -> Option<&ServiceSettings> {
        let generation = generation % tables::GENERATIONS as u32;
        SETTINGS.get(generation * tables::SERVICES_MAX as u32 + service as u32 % tables::SERVICES_MAX as u32)
    }

    #[inline(always)]
    fn is_local(&self, address: &Address) -> bool {
        let [first, second] = &self.status.main_locals;
        // A copy that lies nowhere before it is asked for: most packets are not asked about.
        let key = || Address { high: kept(address.high), low: kept(address.low) };
        address == first || address == second || LOCALS.get_ptr(key()).is_some()
    }

    #[inline(always)]
    fn source(&self, key: SourceKey) -> Option<&Source> {
        let (first, second) = sources::buckets(self.status.sources_seed, key, SOURCES_MASK.load());
        let stored = sources::stored(key);
        let slot = match find(first, stored) {
            Some(slot) => slot,
            None => find(second, stored)?,
        };
        // Words change under the reference, one by one and in an order that leaves nothing between what was and what is
        // (`kernel/src/sources.rs`); no slot is given to another key before every program that may have found it has ended.
        SOURCES.get(slot)
    }

    #[inline(always)]
    fn host(&self, address: &Address) -> Option<&Source> {
        // SAFETY: only the limit words change under the reference, and they are read atomically; a deleted
        // entry's memory stays readable until the program ends (RCU).
        unsafe { HOSTS.get(copied(address)) }
    }

    #[inline(always)]
    fn prefix(&self, address: &Address) -> Option<&Prefix> {
        let PrefixKey { bits, address } = PrefixKey::host(*address);
        PREFIXES.get(Key::new(bits, address))
    }

    #[inline(always)]
    fn listed(&self, address: &Address) -> Option<Treatment> {
        Treatment::from_number(floodwall_listed(address.high, address.low) as u8)
    }

    #[inline(always)]
    fn proof(&self, key: &ProofKey) -> Option<&Proof> {
        // SAFETY: all fields are words, read and written atomically.
        unsafe { PROOFS.get(key) }
    }

    #[inline(always)]
    fn prove(&mut self, key: &ProofKey, until: u64) {
        floodwall_prove(key.address.high, key.address.low, key.service, until);
    }

    #[inline(always)]
    fn user(&self, service: u8, user_id: u16) -> Option<&User> {
        let row = service as u32 % tables::SERVICES_MAX as u32 * tables::USERS_PER_SERVICE as u32;
        USERS.get(row + user_id as u32 % tables::USERS_PER_SERVICE as u32)
    }

    #[inline(always)]
    fn sketch(&self, cell: u32) -> Option<&Word> {
        SKETCH.get(cell)
    }

    #[inline(always)]
    fn budget(&self, index: u32) -> Option<&Word> {
        BUDGETS.get(index)
    }

    #[inline(always)]
    fn take(&self, word: &Word, limit: &Limit, now: u64, units: u64) -> Admission {
        let word = core::ptr::from_ref(word);
        Admission::from_code(floodwall_take(word, limit.interval, limit.tolerance, now, units))
    }
}

/// The slot of a bucket that holds a key.
#[inline(always)]
fn find(bucket: u32, stored: u64) -> Option<u32> {
    let Bucket(keys) = SOURCE_KEYS.get(bucket)?;
    let mut slot = 0;
    while slot < BUCKET_KEYS {
        let held = keys[slot].load();
        if held == stored {
            // What is read of the entry depends on what was read here, so no processor reads the entry first; and to
            // the verifier one slot is like another.
            return Some(bucket * BUCKET_KEYS as u32 + slot as u32 + kept(held ^ stored) as u32);
        }
        slot += 1;
    }
    None
}

/// Asks the lists. A function, so that the verifier walks its loops once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_listed(high: u64, low: u64) -> u32 {
    // One word says which image is in force, and where every node lies that is read here depends on it: whoever published
    // the word had written the nodes before, and no processor reads them earlier (`kernel/src/lists.rs`).
    let Some(Node([front, ..])) = ListNodes.node(lists::FRONT) else { return 0 };
    match front.load() as u32 {
        0 => 0,
        head => {
            lists::listed(&ListNodes, head, &Address { high, low }).map_or(0, |treatment| treatment as u32)
        }
    }
}

struct ListNodes;

impl Nodes for ListNodes {
    #[inline(always)]
    fn node(&self, number: u32) -> Option<&Node> {
        LISTS.get(number)
    }

    #[inline(always)]
    fn opaque(&self, number: u64) -> u64 {
        kept(number)
    }

    #[inline(always)]
    fn blur(&self, number: u32) -> u32 {
        blurred(number)
    }
}

/// The address on this function's own stack. Up to some kernel after 6.1 a key may not lie in memory that a caller lent;
/// read plainly, LLVM would see that a copy is not needed.
#[inline(always)]
fn copied(address: &Address) -> Address {
    // SAFETY: valid references.
    unsafe {
        Address {
            high: core::ptr::read_volatile(&raw const address.high),
            low: core::ptr::read_volatile(&raw const address.low),
        }
    }
}

/// Takes from a budget. An exported symbol makes it a global function in the kernel's sense: verified once, on its
/// own, for any arguments.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_take(word: *const Word, interval: u64, tolerance: u64, now: u64, units: u64) -> u32 {
    // SAFETY: the verifier admits only null, which is refused here, and memory of a word's size.
    match unsafe { word.as_ref() } {
        Some(word) => limit::take(word, &Limit { interval, tolerance }, now, units).code(),
        None => Admission::Contended.code(),
    }
}

/// Stores a proof. A function for the sake of the stack, as `floodwall_is_opaque`; such functions must answer a number.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_prove(high: u64, low: u64, service: u64, until: u64) -> u32 {
    let key = ProofKey { address: Address { high, low }, service };
    let proof = Proof { until: Word::new(until), ..Proof::default() };
    let refused = PROOFS.insert(key, proof, u64::from(BPF_ANY)).is_err();
    if refused {
        count_fault(Fault::ProofRefused);
    } else {
        count(tables::PROOFS_STORED);
    }
    u32::from(refused)
}

/// Counts an arriving packet by service, class and reason.
#[inline(always)]
pub(crate) fn count_arrival(judgement: &Judgement, linear_bytes: u32) {
    let bytes = if judgement.bytes == 0 { linear_bytes } else { judgement.bytes };
    let index = tables::counter_index(judgement.service, judgement.class, judgement.reason);
    add(COUNTERS.get_ptr_mut(index), bytes);
}

/// Counts a departing packet by service and class.
#[inline(always)]
pub(crate) fn count_departure(observation: &Observation, bytes: u32) {
    add(DEPARTED.get_ptr_mut(tables::departed_index(observation.service, observation.class)), bytes);
}

#[inline(always)]
fn add(counter: Option<*mut Counter>, bytes: u32) {
    let Some(counter) = counter else { return };
    // SAFETY: a valid map value of this CPU; programs of one kind do not interrupt each other on a CPU.
    unsafe {
        (*counter).packets += 1;
        (*counter).bytes += u64::from(bytes);
    }
}

/// Counts what went wrong without touching a packet.
#[inline(always)]
pub(crate) fn count_fault(fault: Fault) {
    count(fault as u32);
}

#[inline(always)]
fn count(cell: u32) {
    let Some(count) = FAULTS.get_ptr_mut(cell) else { return };
    // SAFETY: a valid map value of this CPU. Both programs count here; should one ever interrupt the other
    // between load and store, a fault is lost from the count.
    unsafe { *count += 1 };
}

/// Whether the controller has seen enough of a connection.
#[inline(always)]
pub(crate) fn is_opaque(flow: &FlowKey) -> bool {
    let FlowKey { client, server, ports } = *flow;
    floodwall_is_opaque(client.high, client.low, server.high, server.low, ports) != 0
}

/// A function for the sake of the stack: the key is a tenth of it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_is_opaque(
    client_high: u64,
    client_low: u64,
    server_high: u64,
    server_low: u64,
    ports: u64,
) -> u32 {
    let client = Address { high: client_high, low: client_low };
    let server = Address { high: server_high, low: server_low };
    u32::from(OPAQUE.get_ptr(FlowKey { client, server, ports }).is_some())
}

/// Takes what a source says from what it may say to the controller.
#[inline(always)]
pub(crate) fn allow_source(source: SourceKey, known: bool, now: u64, bytes: u32) -> bool {
    allow(mirror::source_cell(STATUS.get().seed, source, known), &SOURCE_ALLOWANCE, now, u64::from(bytes))
}

/// Takes one packet from what is shown of a kind that anybody can provoke.
#[inline(always)]
pub(crate) fn allow_flood(service: u8, flood: Flood, now: u64) -> bool {
    let limit = if matches!(flood, Flood::Dropped) { &SAMPLE_ALLOWANCE } else { &FLOOD_ALLOWANCE };
    allow(mirror::flood_cell(service, flood), limit, now, 1)
}

/// Whether no more of what is dropped is shown just now.
#[inline(always)]
pub(crate) fn is_sample_spent(service: u8, now: u64) -> bool {
    match ALLOWANCES.get(mirror::flood_cell(service, Flood::Dropped)) {
        Some(word) => SAMPLE_ALLOWANCE.is_spent(word.load(), now),
        None => true,
    }
}

#[inline(always)]
fn allow(cell: u32, limit: &Limit, now: u64, units: u64) -> bool {
    let Some(word) = ALLOWANCES.get(cell) else { return true };
    floodwall_take(word, limit.interval, limit.tolerance, now, units) == Admission::Admitted.code()
}

/// This CPU's place to put a record together, one per direction so that the two programs never share it.
#[inline(always)]
pub(crate) fn scratch(direction: u8) -> Option<*mut Scratch> {
    CHUNKS.get_ptr_mut(u32::from(direction & 1))
}

/// Whether the ring is too full for what arrives: the last quarter is kept for the server's answers.
#[inline(always)]
pub(crate) fn is_mirror_reserved() -> bool {
    let ring_bytes = MIRROR.query(u64::from(BPF_RB_RING_SIZE));
    MIRROR.query(u64::from(BPF_RB_AVAIL_DATA)) > ring_bytes - ring_bytes / 4
}

/// Puts the first `bytes` bytes of a record into the ring; answers whether there was room. The kernel wakes the
/// reader only when it had caught up.
///
/// # Safety
/// `scratch` must be a value of the map `CHUNKS`, and `bytes` at most its size.
#[inline(always)]
pub(crate) unsafe fn emit(scratch: *mut Scratch, bytes: u64) -> bool {
    let ring = (&raw const MIRROR).cast_mut().cast::<c_void>();
    // SAFETY: the ring is a map; the caller vouches for the record.
    unsafe { bpf_ringbuf_output(ring, scratch.cast(), bytes, 0) == 0 }
}

/// Publishes both clocks.
#[inline(always)]
pub(crate) fn record_clock(reading: ClockReading) {
    let Some(entry) = CLOCK.get_ptr_mut(0) else { return };
    // SAFETY: a valid map value; only the run that asks writes it.
    unsafe { *entry = reading };
}

/// The injected clock.
#[inline(always)]
pub(crate) fn test_clock() -> u64 {
    TEST_CLOCK.get(0).copied().unwrap_or_default()
}

/// Leaves a judgement for the test that asked for it.
#[inline(always)]
pub(crate) fn record_judgement(judgement: &Judgement) {
    let Judgement { service, class, reason, standing, bytes } = *judgement;
    leave([service, class as u8, reason as u8, standing as u8], bytes);
}

/// Leaves an observation for the test that asked for it.
#[inline(always)]
pub(crate) fn record_observation(observation: &Observation) {
    leave([observation.service, observation.class as u8, observation.proves as u8, 1], 0);
}

#[inline(always)]
fn leave(parts: [u8; 4], bytes: u32) {
    if !clock::is_test() {
        return;
    }
    let Some(entry) = LAST_JUDGEMENT.get_ptr_mut(0) else { return };
    // SAFETY: a valid map value; tests run one packet at a time.
    unsafe { *entry = u64::from(bytes) << 32 | u64::from(u32::from_le_bytes(parts)) };
}
