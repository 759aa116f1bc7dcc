//! Copies control-channel packets into the ring, in chunks. Lost chunks are counted; the packet passes anyway.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::bpf_loop,
    programs::{TcContext, XdpContext},
};
use floodwall_wire::{
    Class, Reason, SourceKey, Verdict,
    frame::{self, Headers},
    mirror::{
        ARRIVING, Allowance, CHUNK_BYTES, CHUNKS_MAX, DEPARTING, Record, START_BYTES, Share, allowance, share,
    },
    tables::{Fault, FlowKey, Standing},
};

use crate::{
    maps::{self, Scratch},
    window::{Packet, PacketWindow, Scattered},
};

/// A judged packet, as far as the mirror needs to know it.
#[derive(Clone, Copy)]
pub(crate) struct Mirrored {
    pub(crate) service: u8,
    pub(crate) class: Class,
    pub(crate) reason: Reason,
    pub(crate) standing: Standing,
}

impl Mirrored {
    /// As one number, the form in which it crosses a call.
    #[inline(always)]
    fn packed(self) -> u32 {
        u32::from_le_bytes([self.service, self.class as u8, self.reason as u8, self.standing as u8])
    }

    #[inline(always)]
    fn unpacked(packed: u32) -> Self {
        let [service, class, reason, standing] = packed.to_le_bytes();
        Self {
            service,
            class: Class::from_number(class).unwrap_or(Class::UdpOther),
            reason: Reason::from_number(reason).unwrap_or(Reason::Admitted),
            standing: Standing::from_number(standing).unwrap_or(Standing::Stranger),
        }
    }
}

/// Whether the controller got to see what it should.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Shown {
    /// All of it, or there was nothing to be shown.
    Enough,
    /// It was too much or there was no room.
    Lost,
}

/// Shows the controller an arriving packet, or a sample of what is dropped.
///
/// A flood's packets are nearly all beyond the sample. That is asked here, before a call of 30 ns; whoever gets past this
/// look at the budget draws on it there.
#[inline(always)]
pub(crate) fn mirror_arriving(packet: &XdpContext, mirrored: Mirrored, now: u64) -> Shown {
    let wanted = match mirrored.reason.verdict() {
        Verdict::Drop => !maps::is_sample_spent(mirrored.service, now),
        Verdict::Pass => share(mirrored.class, mirrored.reason) != Share::Nothing,
    };
    if wanted && floodwall_mirror_arriving(packet.ctx, mirrored.packed(), now) != 0 {
        return Shown::Lost;
    }
    Shown::Enough
}

/// Shows the controller a departing packet.
#[inline(always)]
pub(crate) fn mirror_departing(packet: &TcContext, mirrored: Mirrored, now: u64) {
    if share(mirrored.class, mirrored.reason) != Share::Nothing {
        floodwall_mirror_departing(packet.skb.skb, mirrored.packed(), now);
    }
}

// Exported symbols make these global functions in the kernel's sense: verified once, on their own, and not once per
// way that leads to them. Such functions must answer a number.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_mirror_arriving(context: *mut xdp_md, packed: u32, now: u64) -> u32 {
    mirror(&Scattered::new(context), ARRIVING, Mirrored::unpacked(packed), now) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_mirror_departing(context: *mut __sk_buff, packed: u32, now: u64) -> u32 {
    mirror(&TcContext::new(context), DEPARTING, Mirrored::unpacked(packed), now) as u32
}

#[inline(always)]
fn mirror<P: Packet>(packet: &P, direction: u8, mirrored: Mirrored, now: u64) -> Shown {
    let reason = mirrored.reason;
    let bytes_max = match share(mirrored.class, reason) {
        Share::Nothing => return Shown::Enough,
        Share::Start => START_BYTES,
        Share::Whole => u32::MAX,
    };
    let window = PacketWindow::new(packet);
    let Some((offset, packet_bytes)) = frame::ip_packet(&window) else { return Shown::Enough };
    let passed = matches!(reason.verdict(), Verdict::Pass);
    let is_cut = passed && matches!(mirrored.class, Class::TcpPayload | Class::TcpAck);
    let source = match is_cut.then(|| frame::walk(&window)) {
        Some(Ok(headers)) => {
            if maps::is_opaque(&flow_key(&headers, direction)) {
                return Shown::Enough;
            }
            SourceKey::of(headers.source)
        }
        // Beginning and end of a connection are always shown.
        _ => SourceKey(0),
    };
    let allowed = match allowance(mirrored.class, direction, reason, mirrored.standing) {
        Allowance::Free => true,
        Allowance::Source { .. } if source.0 == 0 => true,
        Allowance::Source { known } => maps::allow_source(source, known, now, packet_bytes),
        Allowance::Service(flood) => maps::allow_flood(mirrored.service, flood, now),
    };
    if !allowed {
        // A sample that is left out is no loss.
        if passed {
            maps::count_fault(Fault::MirrorAllowance);
        }
        return Shown::Lost;
    }
    let record = Record {
        at: now,
        packet_bytes,
        chunk_offset: 0,
        chunk_bytes: 0,
        class: mirrored.class as u8,
        reserved: 0,
        service: mirrored.service,
        direction,
        reason: mirrored.reason as u8,
        standing: mirrored.standing as u8,
    };
    copy_chunks(packet, record, offset, packet_bytes.min(bytes_max))
}

/// The connection a segment belongs to, seen from either side.
#[inline(always)]
fn flow_key(headers: &Headers, direction: u8) -> FlowKey {
    let Headers { source, destination, source_port, destination_port, .. } = *headers;
    if direction == ARRIVING {
        FlowKey::new(source, source_port, destination, destination_port)
    } else {
        FlowKey::new(destination, destination_port, source, source_port)
    }
}

/// Counts a chunk that found no room, by direction.
#[inline(always)]
fn count_lost(direction: u8) {
    maps::count_fault(if direction == ARRIVING { Fault::MirrorArriving } else { Fault::MirrorDeparting });
}

#[inline(always)]
fn copy_chunks<P: Packet>(packet: &P, record: Record, offset: u32, bytes: u32) -> Shown {
    if record.direction == ARRIVING && maps::is_mirror_reserved() {
        count_lost(record.direction);
        return Shown::Lost;
    }
    let mut copying = Copying { packet, record, offset, bytes, lost: 0 };
    let context = (&raw mut copying).cast();
    // SAFETY: the callback's second argument is what is given here, and it lives until the loop ends. A helper and not
    // a `while`: the verifier walks the body once, not once per chunk and way here.
    unsafe { bpf_loop(CHUNKS_MAX, copy_next::<P> as *const () as *mut c_void, context, 0) };
    // SAFETY: a local; the callback wrote it behind the compiler's back.
    if unsafe { (&raw const copying.lost).read_volatile() } == 0 { Shown::Enough } else { Shown::Lost }
}

/// A packet on its way into the ring.
struct Copying<'a, P> {
    packet: &'a P,
    record: Record,
    /// Of the IP packet in the frame.
    offset: u32,
    /// To be copied in all.
    bytes: u32,
    /// 1 when a chunk found no room.
    lost: u32,
}

/// Copies the chunk with this index; answers 1 to stop.
unsafe extern "C" fn copy_next<P: Packet>(index: u32, copying: *mut Copying<'_, P>) -> i64 {
    // SAFETY: `copy_chunks` passes a reference in this form.
    let copying = unsafe { &mut *copying };
    // Looked up here and not handed over: the caller's stack is full.
    let Some(scratch) = maps::scratch(copying.record.direction) else {
        copying.lost = 1;
        return 1;
    };
    let done = index * CHUNK_BYTES as u32;
    if done >= copying.bytes {
        return 1;
    }
    let bytes = (copying.bytes - done).min(CHUNK_BYTES as u32);
    let record = Record { chunk_offset: done, chunk_bytes: bytes as u16, ..copying.record };
    // SAFETY: a value of this CPU's map; `bytes` is at least 1 and at most `CHUNK_BYTES`.
    let copied = unsafe { copy_chunk(copying.packet, scratch, record, copying.offset) };
    if copied {
        return 0;
    }
    copying.lost = 1;
    1
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
    let bytes = unsafe { (&raw const (*record).chunk_bytes).read_volatile() as u32 };
    (bytes.wrapping_sub(1) & (CHUNK_BYTES.next_power_of_two() as u32 - 1)) + 1
}
