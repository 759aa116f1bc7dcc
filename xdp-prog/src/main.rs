//! The gate's kernel home: entry points and nothing else.
//!
//! Every judgement is made in `floodwall-wire`; here it is turned into an action, counted and mirrored. What
//! cannot be judged passes. Built by `cargo xtask ebpf`; a host build is an empty program that serves
//! `cargo check` and clippy.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "is_val_statically_known, see window.rs")
)]
#![expect(unsafe_code, reason = "contexts, map values and helpers are raw pointers in the kernel")]

mod clock;
mod maps;
mod mirror;
mod window;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use floodwall_wire::{
    Judgement, Reason, State, Verdict,
    gate::{arrive, judge_arrival},
    mirror::refuses_unread,
    observe,
    tables::{Standing, status_flags},
};

use crate::{
    maps::Tables,
    mirror::{Mirrored, Shown},
    window::{PacketWindow, judge_scattered},
};

/// Judges what arrives.
#[xdp(frags)]
fn floodwall_ingress(context: XdpContext) -> u32 {
    match judge_arriving(&context) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
    }
}

/// Watches what departs; decides nothing, so whatever else is attached goes on deciding.
#[classifier]
fn floodwall_egress(context: TcContext) -> i32 {
    observe_departing(&context);
    TC_ACT_UNSPEC
}

/// Reads the gate clock for user space, which has no other way to see jiffies. Never attached: run by
/// `BPF_PROG_TEST_RUN`.
#[xdp]
fn floodwall_clock(_context: XdpContext) -> u32 {
    maps::record_clock(clock::reading());
    xdp_action::XDP_PASS
}

#[inline(always)]
fn judge_arriving(context: &XdpContext) -> Verdict {
    let state = Tables::open();
    let window = PacketWindow::new(context);
    let mut judgement = match arrive(&window, &state) {
        Ok(arrival) if arrival.end() <= window.linear_bytes() => judge_arrival(&window, &state, &arrival),
        // Larger than a page, or cut.
        Ok(_) | Err(Judgement { reason: Reason::MalformedHeader, .. }) => judge_scattered(context.ctx),
        // Most packets of most hosts: they leave before anything of the rest is at hand.
        Err(unguarded) => {
            maps::count_arrival(&unguarded, window.linear_bytes());
            maps::record_judgement(&unguarded);
            return Verdict::Pass;
        }
    };
    if judgement.is_guarded() && is_lost(context, &state, &judgement) {
        judgement.reason = Reason::MirrorFull;
    }
    maps::count_arrival(&judgement, window.linear_bytes());
    maps::record_judgement(&judgement);
    let observing = state.status().flags & status_flags::OBSERVE != 0;
    if observing { Verdict::Pass } else { judgement.verdict() }
}

/// Shows a guarded packet to the controller; answers whether it must not pass because that failed.
#[inline(always)]
fn is_lost(context: &XdpContext, state: &Tables, judgement: &Judgement) -> bool {
    let Judgement { reason, service, class, standing, .. } = *judgement;
    let now = state.now();
    let mirrored = Mirrored { service, class, reason, standing };
    let shown = mirror::mirror_arriving(context, mirrored, now);
    shown == Shown::Lost
        && matches!(reason.verdict(), Verdict::Pass)
        && refuses_unread(state.status(), service, class, standing, now)
}

#[inline(always)]
fn observe_departing(context: &TcContext) {
    let mut state = Tables::open();
    let window = PacketWindow::new(context);
    let observation = observe(&window, &mut state);
    maps::record_observation(&observation);
    if !observation.is_guarded() {
        return;
    }
    maps::count_departure(&observation, context.len());
    mirror::mirror_departing(
        context,
        Mirrored {
            service: observation.service,
            class: observation.class,
            reason: Reason::Admitted,
            standing: Standing::Stranger,
        },
        state.now(),
    );
}

/// Some helpers exist for GPL-compatible programs only.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never runs: the verifier refuses a program that can reach it.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
