//! Checked reads of a packet in the kernel: directly from its linear part, through a helper beyond it.

use core::{cell::UnsafeCell, ffi::c_void};

use aya_ebpf::{
    EbpfContext,
    bindings::xdp_md,
    helpers::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::{TcContext, XdpContext},
};
use floodwall_wire::{
    Class, Reason, State, Window,
    gate::{self, Arrival, Settlement},
    shape::{self, Payload, Shape},
    tables::{Role, Standing},
    window::WINDOW_BYTES,
};

use crate::maps::Tables;

/// What the two program types call the same things.
pub(crate) trait Packet: EbpfContext {
    /// Address of the first byte.
    fn start(&self) -> usize;

    /// Address behind the last byte of the linear part.
    fn linear_end(&self) -> usize;

    /// Length of the frame, all buffers included. For XDP a call of 10 ns, so not for every packet.
    fn bytes(&self) -> u32;

    /// Copies bytes from any part of the packet; answers 0 or an error number.
    ///
    /// # Safety
    /// `into` must be valid for writes of `bytes` bytes.
    unsafe fn load(&self, offset: u32, into: *mut c_void, bytes: u32) -> i64;

    /// Checks a datagram against its protocol's grammar.
    fn check_datagram(&self, role: Role, payload: Payload) -> Shape;

    /// Settles what becomes of a guarded packet.
    fn settle<S: State>(&self, state: &S, arrival: &Arrival) -> Settlement;
}

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
    fn bytes(&self) -> u32 {
        // SAFETY: the context is this program's own.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as u32 }
    }

    #[inline(always)]
    unsafe fn load(&self, offset: u32, into: *mut c_void, bytes: u32) -> i64 {
        // SAFETY: the context is this program's own; the caller vouches for `into`.
        unsafe { bpf_xdp_load_bytes(self.ctx, offset, into, bytes) }
    }

    #[inline(always)]
    fn check_datagram(&self, role: Role, payload: Payload) -> Shape {
        if !matches!(role, Role::TeamTalk | Role::TeamSpeakVoice) {
            return shape::check_datagram(&PacketWindow::new(self), role, payload);
        }
        let (role, whole) = (role as u32, u32::from(payload.whole));
        Shape::from_code(floodwall_shape(self.ctx, role, payload.offset, payload.bytes, whole))
    }

    #[inline(always)]
    fn settle<S: State>(&self, _state: &S, arrival: &Arrival) -> Settlement {
        Settlement::from_code(floodwall_settle(self.ctx, arrival))
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
    fn bytes(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    unsafe fn load(&self, offset: u32, into: *mut c_void, bytes: u32) -> i64 {
        // SAFETY: the context is this program's own; the caller vouches for `into`.
        unsafe { bpf_skb_load_bytes(self.as_ptr().cast(), offset, into, bytes) }
    }

    #[inline(always)]
    fn check_datagram(&self, role: Role, payload: Payload) -> Shape {
        // What departs is watched, never checked; this is not called and not compiled in.
        shape::check_datagram(&PacketWindow::new(self), role, payload)
    }

    #[inline(always)]
    fn settle<S: State>(&self, state: &S, arrival: &Arrival) -> Settlement {
        // As above.
        gate::settle(&PacketWindow::new(self), state, arrival)
    }
}

/// What becomes of a guarded packet; a global function like `floodwall_shape`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn floodwall_settle(context: *mut xdp_md, arrival: *const Arrival) -> u32 {
    const PASS: Settlement =
        Settlement { class: Class::UdpOther, standing: Standing::Stranger, reason: Reason::Unreadable };
    let context = XdpContext::new(context);
    // SAFETY: the verifier admits only null, which is refused here, and memory of this type's size.
    match (Tables::open(), unsafe { arrival.as_ref() }) {
        (Some(state), Some(arrival)) => gate::settle(&PacketWindow::new(&context), &state, arrival).code(),
        _ => PASS.code(),
    }
}

/// The shape of an arriving datagram. An exported symbol makes it a global function in the kernel's sense: verified
/// once, on its own, for any arguments.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn floodwall_shape(
    context: *mut xdp_md,
    role: u32,
    offset: u32,
    bytes: u32,
    whole: u32,
) -> u32 {
    let context = XdpContext::new(context);
    let payload = Payload { offset, bytes, whole: whole != 0 };
    // Only these two speak by datagram.
    let role = if role == Role::TeamTalk as u32 { Role::TeamTalk } else { Role::TeamSpeakVoice };
    shape::check_datagram(&PacketWindow::new(&context), role, payload).code()
}

/// An offset below [`WINDOW_BYTES`], which it is anyway. Written in Rust, LLVM drops the mask as needless, and a
/// verifier as old as 6.1 forgets the check that made it so when the number has been on the stack.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn masked(offset: u32) -> usize {
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

/// Nobody ever writes it, but only we know: to the verifier and to LLVM it is some number.
static ZERO: Zero = Zero(UnsafeCell::new(0));

struct Zero(UnsafeCell<u32>);

// SAFETY: never written.
unsafe impl Sync for Zero {}

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
    fn read<T: Copy + Default>(&self, offset: u32) -> Option<T> {
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
    fn load<T: Copy + Default>(&self, offset: u32) -> Option<T> {
        let mut value = T::default();
        // SAFETY: `value` is a local of exactly that size.
        let result = unsafe { self.packet.load(offset, (&raw mut value).cast(), size_of::<T>() as u32) };
        if result == 0 { Some(value) } else { None }
    }
}

impl<P: Packet> Window for PacketWindow<'_, P> {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.packet.bytes()
    }

    #[inline(always)]
    fn blur(&self, number: u32) -> u32 {
        // SAFETY: a valid static.
        number + unsafe { core::ptr::read_volatile(ZERO.0.get()) }
    }

    #[inline(always)]
    fn check_datagram(&self, role: Role, payload: Payload) -> Shape {
        self.packet.check_datagram(role, payload)
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
}
