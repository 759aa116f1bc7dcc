//! The few `bpf(2)` commands the controller and the tests need, over plain values.
//!
//! aya loads the object; maps and test runs go through this module because
//! the values of `floodwall_wire::tables` hold words that aya's `Pod`, which asks for `Copy`, cannot hold.

#![expect(unsafe_code, reason = "system calls over plain memory")]

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use floodwall_wire::{
    Address, SourceKey,
    lists::Node,
    sources::Bucket,
    tables::{
        ClockReading, Counter, FlowKey, Ports, Prefix, PrefixKey, Proof, ProofKey, ServiceSettings, Source,
        Status, User,
    },
    word::Word,
};

/// A type without padding and without pointers, for which any bytes are a value.
///
/// # Safety
/// Both must hold.
pub unsafe trait Plain {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: `repr(C)` or `repr(transparent)` over integers without padding; `floodwall_wire` tests the
            // sizes.
            unsafe impl Plain for $type {}
        )*
    };
}

plain!(
    u8,
    u32,
    u64,
    Address,
    Bucket,
    ClockReading,
    Counter,
    FlowKey,
    Node,
    Ports,
    Prefix,
    PrefixKey,
    Proof,
    ProofKey,
    ServiceSettings,
    Source,
    SourceKey,
    Status,
    User,
    Word,
);

const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const MAP_DELETE: libc::c_long = 3;
const MAP_NEXT_KEY: libc::c_long = 4;
const PROGRAM_LOAD: libc::c_long = 5;
const PROGRAM_TEST_RUN: libc::c_long = 10;

/// The part of `union bpf_attr` that map commands read.
#[repr(C)]
#[derive(Default)]
struct MapAttributes {
    fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that test runs read.
#[repr(C)]
#[derive(Default)]
struct RunAttributes {
    fd: u32,
    verdict: u32,
    data_in_bytes: u32,
    data_out_bytes: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    nanoseconds: u32,
    context_in_bytes: u32,
    context_out_bytes: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch: u32,
    padding: u32,
}

/// Answers what the command does: a descriptor or 0.
fn bpf<A>(command: libc::c_long, attributes: &mut A) -> io::Result<i32> {
    // SAFETY: the attributes are a prefix of `union bpf_attr` of the stated size; the pointers in them are
    // valid for the sizes the kernel derives from the map or that stand beside them (see the callers).
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<A>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

fn attributes<K, V>(map: BorrowedFd<'_>, key: *const K, value: *const V) -> MapAttributes {
    MapAttributes {
        fd: map.as_raw_fd().cast_unsigned(),
        key: key as u64,
        value: value as u64,
        ..MapAttributes::default()
    }
}

/// The value of a key.
///
/// # Errors
/// Whatever the kernel says, except that an absent key is `None`.
pub fn lookup<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::uninit();
    match bpf(MAP_LOOKUP, &mut attributes(map, key, value.as_mut_ptr())) {
        // SAFETY: the kernel filled the value, and any bytes are one.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the value of a key into one that is there, which large values should be; answers whether the key is present.
///
/// # Errors
/// Whatever the kernel says, except that an absent key is none.
pub fn lookup_into<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K, value: &mut V) -> io::Result<bool> {
    match bpf(MAP_LOOKUP, &mut attributes(map, key, std::ptr::from_mut(value))) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The value of an entry of an array, of which `bytes` must be the size.
///
/// # Errors
/// Whatever the kernel says.
pub(crate) fn lookup_bytes(map: BorrowedFd<'_>, key: u32, bytes: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0_u8; bytes];
    bpf(MAP_LOOKUP, &mut attributes(map, &raw const key, value.as_mut_ptr()))?;
    Ok(value)
}

/// The values of a key of a per-CPU map, one per possible CPU.
///
/// # Errors
/// Whatever the kernel says.
pub fn lookup_per_cpu<V: Plain + Clone + Default>(map: BorrowedFd<'_>, key: u32) -> io::Result<Vec<V>> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let mut values = vec![V::default(); cpus];
    bpf(MAP_LOOKUP, &mut attributes(map, &raw const key, values.as_mut_ptr()))?;
    Ok(values)
}

/// Writes the value of a key.
///
/// # Errors
/// Whatever the kernel says; `E2BIG` or `ENOSPC` when the map is full.
pub fn update<K: Plain, V: Plain>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    bpf(MAP_UPDATE, &mut attributes(map, key, value)).map(|_| ())
}

/// Removes a key.
///
/// # Errors
/// Whatever the kernel says, except that an absent key is no error.
pub fn delete<K: Plain>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    match bpf(MAP_DELETE, &mut attributes(map, key, std::ptr::null::<u8>())) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// The keys of a map that nobody changes meanwhile.
///
/// # Errors
/// Whatever the kernel says.
pub fn keys<K: Plain + Clone>(map: BorrowedFd<'_>) -> io::Result<Vec<K>> {
    let mut keys: Vec<K> = Vec::new();
    loop {
        let previous = keys.last().map_or(std::ptr::null(), std::ptr::from_ref);
        let mut next = MaybeUninit::<K>::uninit();
        match bpf(MAP_NEXT_KEY, &mut attributes(map, previous, next.as_mut_ptr())) {
            // SAFETY: the kernel filled the key, and any bytes are one.
            Ok(_) => keys.push(unsafe { next.assume_init() }),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
            Err(error) => return Err(error),
        }
    }
}

/// The part of `union bpf_attr` that loading reads.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    version: u32,
    flags: u32,
}

/// Loads an XDP program that passes everything and looks at nothing: the floor of every measurement.
///
/// # Errors
/// Whatever the kernel says.
pub fn load_empty_xdp() -> io::Result<OwnedFd> {
    const XDP: u32 = 6;
    // r0 = 2 (XDP_PASS); exit
    const CODE: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
    let mut attributes = LoadAttributes {
        kind: XDP,
        instructions: 2,
        code: CODE.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..LoadAttributes::default()
    };
    let fd = bpf(PROGRAM_LOAD, &mut attributes)?;
    // SAFETY: the kernel just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What a program made of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What it returned.
    pub action: u32,
    /// Mean time of one run, ns.
    pub nanoseconds: u32,
}

/// Runs a program over one frame, `repeat` times.
///
/// # Errors
/// Whatever the kernel says; frames below 14 bytes cannot be run.
pub fn run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<Run> {
    let mut attributes = RunAttributes {
        fd: program.as_raw_fd().cast_unsigned(),
        data_in: frame.as_ptr() as u64,
        data_in_bytes: u32::try_from(frame.len()).map_err(io::Error::other)?,
        repeat,
        ..RunAttributes::default()
    };
    bpf(PROGRAM_TEST_RUN, &mut attributes)?;
    Ok(Run { action: attributes.verdict, nanoseconds: attributes.nanoseconds })
}
