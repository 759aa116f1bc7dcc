//! Copies control-channel packets into the ring, in chunks. Lost chunks are counted; the packet passes anyway.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::bpf_loop,
    programs::{TcContext, XdpContext},
};
use floodwall_wire::{
    Class, frame,
    mirror::{ARRIVING, CHUNK_BYTES, CHUNKS_MAX, DEPARTING, Record, START_BYTES, Share, share},
    tables::Fault,
};

use crate::{
    maps::{self, Scratch},
    window::{Packet, PacketWindow},
};

/// A packet that passed, as far as the mirror needs to know it.
#[derive(Clone, Copy)]
pub(crate) struct Mirrored {
    pub(crate) service: u8,
    pub(crate) class: Class,
    pub(crate) reason: u8,
    pub(crate) standing: u8,
}

impl Mirrored {
    /// As one number, the form in which it crosses a call.
    #[inline(always)]
    fn packed(self) -> u32 {
        u32::from_le_bytes([self.service, self.class as u8, self.reason, self.standing])
    }

    #[inline(always)]
    fn unpacked(packed: u32) -> Self {
        let [service, class, reason, standing] = packed.to_le_bytes();
        Self { service, class: Class::from_number(class).unwrap_or(Class::UdpOther), reason, standing }
    }
}

/// Shows the controller an arriving packet that passed.
#[inline(always)]
pub(crate) fn mirror_arriving(packet: &XdpContext, mirrored: Mirrored, now: u64) {
    if share(mirrored.class, ARRIVING) != Share::Nothing {
        floodwall_mirror_arriving(packet.ctx, mirrored.packed(), now);
    }
}

/// Shows the controller a departing packet.
#[inline(always)]
pub(crate) fn mirror_departing(packet: &TcContext, mirrored: Mirrored, now: u64) {
    if share(mirrored.class, DEPARTING) != Share::Nothing {
        floodwall_mirror_departing(packet.skb.skb, mirrored.packed(), now);
    }
}

// Exported symbols make these global functions in the kernel's sense: verified once, on their own, and not once per
// way that leads to them. Such functions must answer a number.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_mirror_arriving(context: *mut xdp_md, packed: u32, now: u64) -> u32 {
    mirror(&XdpContext::new(context), ARRIVING, Mirrored::unpacked(packed), now);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_mirror_departing(context: *mut __sk_buff, packed: u32, now: u64) -> u32 {
    mirror(&TcContext::new(context), DEPARTING, Mirrored::unpacked(packed), now);
    0
}

#[inline(always)]
fn mirror<P: Packet>(packet: &P, direction: u8, mirrored: Mirrored, now: u64) {
    let bytes_max = match share(mirrored.class, direction) {
        Share::Nothing => return,
        Share::Start => START_BYTES,
        Share::Whole => u32::MAX,
    };
    let Some((offset, packet_bytes)) = frame::ip_packet(&PacketWindow::new(packet)) else { return };
    let record = Record {
        at: now,
        packet_bytes,
        chunk_offset: 0,
        chunk_bytes: 0,
        service: mirrored.service,
        direction,
        reason: mirrored.reason,
        standing: mirrored.standing,
    };
    copy_chunks(packet, record, offset, packet_bytes.min(bytes_max));
}

/// Counts a chunk that found no room, by direction.
#[inline(always)]
fn count_lost(direction: u8) {
    maps::count_fault(if direction == ARRIVING { Fault::MirrorArriving } else { Fault::MirrorDeparting });
}

#[inline(always)]
fn copy_chunks<P: Packet>(packet: &P, record: Record, offset: u32, bytes: u32) {
    if record.direction == ARRIVING && maps::is_mirror_reserved() {
        return count_lost(record.direction);
    }
    let Some(scratch) = maps::scratch(record.direction) else { return };
    let mut copying = Copying { packet, scratch, record, offset, bytes };
    let context = (&raw mut copying).cast();
    // SAFETY: the callback's second argument is what is given here, and it lives until the loop ends. A helper and not
    // a `while`: the verifier walks the body once, not once per chunk and way here.
    unsafe { bpf_loop(CHUNKS_MAX, copy_next::<P> as *const () as *mut c_void, context, 0) };
}

/// A packet on its way into the ring.
struct Copying<'a, P> {
    packet: &'a P,
    scratch: *mut Scratch,
    record: Record,
    /// Of the IP packet in the frame.
    offset: u32,
    /// To be copied in all.
    bytes: u32,
}

/// Copies the chunk with this index; answers 1 to stop.
unsafe extern "C" fn copy_next<P: Packet>(index: u32, copying: *const Copying<'_, P>) -> i64 {
    // SAFETY: `copy_chunks` passes a reference in this form.
    let copying = unsafe { &*copying };
    let done = index * CHUNK_BYTES as u32;
    if done >= copying.bytes {
        return 1;
    }
    let bytes = (copying.bytes - done).min(CHUNK_BYTES as u32);
    let record = Record { chunk_offset: done, chunk_bytes: bytes, ..copying.record };
    // SAFETY: a value of this CPU's map; `bytes` is at least 1 and at most `CHUNK_BYTES`.
    let copied = unsafe { copy_chunk(copying.packet, copying.scratch, record, copying.offset) };
    if copied { 0 } else { 1 }
}

/// Copies one chunk; answers whether to go on.
///
/// # Safety
/// `scratch` must be a value of the map `CHUNKS`, and `record.chunk_bytes` in 1 to `CHUNK_BYTES`.
#[inline(always)]
unsafe fn copy_chunk<P: Packet>(packet: &P, scratch: *mut Scratch, record: Record, offset: u32) -> bool {
    // SAFETY: the caller vouches for `scratch`.
    let (bytes, into) = unsafe {
        (*scratch).chunk.record = record;
        (provable_length(&raw const (*scratch).chunk.record), &raw mut (*scratch).chunk.bytes)
    };
    // SAFETY: `into` and the slack behind it have room for every length up to the mask's.
    if unsafe { packet.load(offset + record.chunk_offset, into.cast(), bytes) } != 0 {
        maps::count_fault(Fault::MirrorUnreadable);
        return false;
    }
    // SAFETY: header and bytes lie in the scratch.
    let emitted = unsafe { maps::emit(scratch, size_of::<Record>() as u64 + u64::from(bytes)) };
    if !emitted {
        count_lost(record.direction);
    }
    emitted
}

/// The chunk's length in a form that shows the verifier its bounds. LLVM knows them and so removes every check and
/// mask; behind a volatile read it does not.
///
/// # Safety
/// `record` must be valid for reads.
#[inline(always)]
unsafe fn provable_length(record: *const Record) -> u32 {
    // SAFETY: the caller vouches for `record`.
    let bytes = unsafe { (&raw const (*record).chunk_bytes).read_volatile() };
    (bytes.wrapping_sub(1) & (CHUNK_BYTES.next_power_of_two() as u32 - 1)) + 1
}
