//! Checked reads of a packet in the kernel: directly from its linear part, and where need be through a helper beyond it.
//!
//! An arriving packet that lies in one piece, as all but the largest do, is judged in the program itself by direct reads
//! ([`XdpContext`] as a [`Packet`]). The others, and the rarer ways through the gate, are judged in functions that can
//! read anywhere ([`Scattered`]).

use core::{cell::UnsafeCell, ffi::c_void};

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_md,
    helpers::{bpf_skb_load_bytes, bpf_xdp_load_bytes},
    programs::{TcContext, XdpContext},
};
use floodwall_wire::{
    Address, Judgement, State, Window,
    gate::{self, Arrival, Contents, Settlement},
    shape::{self, Payload, Rest, Shape},
    tables::Role,
    window::WINDOW_BYTES,
};

use crate::maps::Tables;

/// What the two program types call the same things.
pub(crate) trait Packet: EbpfContext {
    /// Address of the first byte.
    fn start(&self) -> usize;

    /// Address behind the last byte of the linear part.
    fn linear_end(&self) -> usize;

    /// Copies bytes from any part of the packet; answers 0 or an error number.
    ///
    /// # Safety
    /// `into` must be valid for writes of `bytes` bytes.
    unsafe fn load(&self, offset: u32, into: *mut c_void, bytes: u32) -> i64;

    /// Checks a datagram against its protocol's grammar.
    #[inline(always)]
    fn check_datagram(&self, role: Role, payload: Payload) -> Shape
    where
        Self: Sized,
    {
        shape::check_datagram(&PacketWindow::new(self), role, payload)
    }

    /// Checks what of that is a loop or rare.
    #[inline(always)]
    fn check_rest(&self, rest: Rest) -> Shape
    where
        Self: Sized,
    {
        rest.check(&PacketWindow::new(self))
    }

    /// Checks what a guarded packet's own bytes tell.
    #[inline(always)]
    fn read_contents<S: State>(&self, state: &S, arrival: &Arrival) -> Contents
    where
        Self: Sized,
    {
        gate::read_contents(&PacketWindow::new(self), state, arrival)
    }

    /// Settles what becomes of a guarded packet.
    #[inline(always)]
    fn settle<S: State>(&self, state: &S, arrival: &Arrival) -> Settlement
    where
        Self: Sized,
    {
        gate::settle(&PacketWindow::new(self), state, arrival)
    }
}

/// In the program itself: only direct reads, so that no register waits on the stack for a call to end.
impl Packet for XdpContext {
    #[inline(always)]
    fn start(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn linear_end(&self) -> usize {
        self.data_end()
    }

    #[inline(always)]
    unsafe fn load(&self, _offset: u32, _into: *mut c_void, _bytes: u32) -> i64 {
        // Whoever reads this way has asked whether the packet lies in one piece.
        -1
    }

    #[inline(always)]
    fn check_rest(&self, rest: Rest) -> Shape {
        let (kind, from, to) = match rest {
            Rest::Fields { at, end } => (REST_FIELDS, at, end),
            Rest::Handshake { offset, bytes } => (REST_HANDSHAKE, offset, bytes),
        };
        Shape::from_code(floodwall_rest(self.ctx, kind, from, to))
    }

    #[inline(always)]
    fn settle<S: State>(&self, _state: &S, arrival: &Arrival) -> Settlement {
        Settlement::from_code(floodwall_settle(self.ctx, arrival.packed()))
    }
}

/// An arriving packet, any part of which can be read.
pub(crate) struct Scattered(XdpContext);

impl Scattered {
    #[inline(always)]
    pub(crate) fn new(context: *mut xdp_md) -> Self {
        Self(XdpContext::new(context))
    }
}

impl EbpfContext for Scattered {
    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr()
    }
}

impl Packet for Scattered {
    #[inline(always)]
    fn start(&self) -> usize {
        self.0.data()
    }

    #[inline(always)]
    fn linear_end(&self) -> usize {
        self.0.data_end()
    }

    #[inline(always)]
    unsafe fn load(&self, offset: u32, into: *mut c_void, bytes: u32) -> i64 {
        // SAFETY: the context is this program's own; the caller vouches for `into`.
        unsafe { bpf_xdp_load_bytes(self.0.ctx, offset, into, bytes) }
    }

    #[inline(always)]
    fn read_contents<S: State>(&self, _state: &S, arrival: &Arrival) -> Contents {
        let Address { high, low } = arrival.source;
        Contents::from_code(floodwall_contents(self.0.ctx, high, low, arrival.packed()))
    }

    #[inline(always)]
    fn check_datagram(&self, role: Role, payload: Payload) -> Shape {
        // Only these two speak by datagram.
        if !matches!(role, Role::TeamTalk | Role::TeamSpeakVoice) {
            return Shape::Fits;
        }
        let (role, whole) = (role as u32, u32::from(payload.whole));
        Shape::from_code(floodwall_shape(self.0.ctx, role, payload.offset, payload.bytes, whole))
    }
}

impl Packet for TcContext {
    #[inline(always)]
    fn start(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn linear_end(&self) -> usize {
        self.data_end()
    }

    #[inline(always)]
    unsafe fn load(&self, offset: u32, into: *mut c_void, bytes: u32) -> i64 {
        // SAFETY: the context is this program's own; the caller vouches for `into`.
        unsafe { bpf_skb_load_bytes(self.as_ptr().cast(), offset, into, bytes) }
    }
}

/// Judges a packet that does not lie in one piece.
#[inline(always)]
pub(crate) fn judge_scattered(context: *mut xdp_md) -> Judgement {
    let packed = floodwall_arrive(context);
    match Arrival::unpacked(packed) {
        Ok(arrival) => Settlement::from_code(floodwall_settle(context, packed)).judgement(&arrival),
        Err(unguarded) => unguarded,
    }
}

// An exported symbol makes each of these a global function in the kernel's sense: verified once, on its own, for any
// arguments, and not once per way that leads to it.

/// Whether and how a packet is to be judged; see [`Arrival::packed`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_arrive(context: *mut xdp_md) -> u64 {
    match gate::arrive(&PacketWindow::new(&Scattered::new(context)), &Tables::open()) {
        Ok(arrival) => arrival.packed(),
        Err(unguarded) => Arrival::packed_unguarded(&unguarded),
    }
}

/// What becomes of a guarded packet.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_settle(context: *mut xdp_md, packed: u64) -> u32 {
    let scattered = Scattered::new(context);
    gate::settle_packed(&PacketWindow::new(&scattered), &Tables::open(), packed).code()
}

/// What a guarded packet's own bytes tell.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_contents(context: *mut xdp_md, high: u64, low: u64, packed: u64) -> u64 {
    let arrival = Arrival::from_parts(Address { high, low }, packed);
    gate::read_contents(&PacketWindow::new(&Scattered::new(context)), &Tables::open(), &arrival).code()
}

/// The shape of an arriving datagram.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_shape(context: *mut xdp_md, role: u32, offset: u32, bytes: u32, whole: u32) -> u32 {
    let payload = Payload { offset, bytes, whole: whole != 0 };
    let role = if role == Role::TeamTalk as u32 { Role::TeamTalk } else { Role::TeamSpeakVoice };
    shape::check_datagram(&PacketWindow::new(&Scattered::new(context)), role, payload).code()
}

const REST_FIELDS: u32 = 0;
const REST_HANDSHAKE: u32 = 1;

/// The shape of what of a datagram is a loop or rare.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn floodwall_rest(context: *mut xdp_md, kind: u32, from: u32, to: u32) -> u32 {
    let rest = if kind == REST_FIELDS {
        Rest::Fields { at: from, end: to }
    } else {
        Rest::Handshake { offset: from, bytes: to }
    };
    rest.check(&PacketWindow::new(&Scattered::new(context))).code()
}

/// An offset below [`WINDOW_BYTES`], which it is anyway. Written in Rust, LLVM drops the mask as needless, and a
/// verifier as old as 6.1 forgets the check that made it so when the number has been on the stack.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn masked(offset: u32) -> usize {
    if core::intrinsics::is_val_statically_known(offset) {
        return offset as usize;
    }
    let mut masked = u64::from(offset);
    // SAFETY: one instruction on one register.
    unsafe {
        core::arch::asm!(
            "{offset} &= {mask}",
            offset = inout(reg) masked,
            mask = const WINDOW_BYTES - 1,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    masked as usize
}

#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
fn masked(offset: u32) -> usize {
    (offset & (WINDOW_BYTES - 1)) as usize
}

/// The number, about which the compiler knows nothing any longer. An instruction that does nothing: without one,
/// two lines of source would begin at the same, which the kernel refuses.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) fn kept(mut number: u64) -> u64 {
    // SAFETY: one instruction on one register.
    unsafe {
        core::arch::asm!("{number} = {number}", number = inout(reg) number, options(pure, nomem, nostack, preserves_flags));
    }
    number
}

#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
pub(crate) fn kept(number: u64) -> u64 {
    number
}

/// Nobody ever writes it, but only we know: to the verifier and to LLVM it is some number.
static ZERO: Zero = Zero(UnsafeCell::new(0));

struct Zero(UnsafeCell<u32>);

// SAFETY: never written.
unsafe impl Sync for Zero {}

/// The number, about which the verifier knows nothing any longer.
#[inline(always)]
pub(crate) fn blurred(number: u32) -> u32 {
    // SAFETY: a valid static.
    number + unsafe { core::ptr::read_volatile(ZERO.0.get()) }
}

/// What is read as it lies there: numbers, for which any bytes are a value.
trait Number: Copy {
    const ZERO: Self;
}

impl Number for u16 {
    const ZERO: Self = 0;
}

impl Number for u32 {
    const ZERO: Self = 0;
}

impl Number for u64 {
    const ZERO: Self = 0;
}

impl<const WORDS: usize> Number for [u32; WORDS] {
    const ZERO: Self = [0; WORDS];
}

/// One packet, as the gate reads it.
pub(crate) struct PacketWindow<'a, P> {
    packet: &'a P,
    start: usize,
    linear_end: usize,
}

impl<'a, P: Packet> PacketWindow<'a, P> {
    #[inline(always)]
    pub(crate) fn new(packet: &'a P) -> Self {
        Self { packet, start: packet.start(), linear_end: packet.linear_end() }
    }

    /// Length of the linear part.
    #[inline(always)]
    pub(crate) fn linear_bytes(&self) -> u32 {
        (self.linear_end - self.start) as u32
    }

    /// The number at `offset`, in memory order.
    #[inline(always)]
    fn read<T: Number>(&self, offset: u32) -> Option<T> {
        if offset >= WINDOW_BYTES {
            return None;
        }
        let at = self.start + masked(offset);
        if at + size_of::<T>() <= self.linear_end {
            // SAFETY: in bounds by the check above, which the verifier repeats. The load may be misaligned:
            // the kernel allows that for packets, and `read_unaligned` would become single-byte loads.
            return Some(unsafe { core::ptr::read(at as *const T) });
        }
        self.load(offset)
    }

    /// A large frame's later buffers, and all but the first bytes of what departs, are not linear.
    #[inline(always)]
    fn load<T: Number>(&self, offset: u32) -> Option<T> {
        let mut value = T::ZERO;
        // SAFETY: `value` is a local of exactly that size.
        let result = unsafe { self.packet.load(offset, (&raw mut value).cast(), size_of::<T>() as u32) };
        if result == 0 { Some(value) } else { None }
    }
}

impl<P: Packet> Window for PacketWindow<'_, P> {
    #[inline(always)]
    fn blur(&self, number: u32) -> u32 {
        blurred(number)
    }

    #[inline(always)]
    fn opaque(&self, number: u64) -> u64 {
        kept(number)
    }

    #[inline(always)]
    fn check_datagram(&self, role: Role, payload: Payload) -> Shape {
        self.packet.check_datagram(role, payload)
    }

    #[inline(always)]
    fn check_rest(&self, rest: Rest) -> Shape {
        self.packet.check_rest(rest)
    }

    #[inline(always)]
    fn read_contents<S: State>(&self, state: &S, arrival: &Arrival) -> Contents {
        self.packet.read_contents(state, arrival)
    }

    #[inline(always)]
    fn settle<S: State>(&self, state: &S, arrival: &Arrival) -> Settlement {
        self.packet.settle(state, arrival)
    }

    #[inline(always)]
    fn read_u16(&self, offset: u32) -> Option<u16> {
        self.read(offset).map(u16::from_be)
    }

    #[inline(always)]
    fn read_u32(&self, offset: u32) -> Option<u32> {
        self.read(offset).map(u32::from_be)
    }

    #[inline(always)]
    fn read_u64(&self, offset: u32) -> Option<u64> {
        self.read(offset).map(u64::from_be)
    }

    #[inline(always)]
    fn read_words<const WORDS: usize>(&self, offset: u32) -> Option<[u32; WORDS]> {
        self.read(offset).map(|words: [u32; WORDS]| words.map(u32::from_be))
    }
}
