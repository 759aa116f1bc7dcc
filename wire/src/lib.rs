//! The gate: the code that looks at one packet and says pass or drop, written once for two homes.
//!
//! In the kernel it runs inside the XDP and tc programs of `xdp-prog`, over BPF maps. In user space it runs
//! over [`memory::Tables`] for replay, tests and the pcap fallback. Both homes supply a [`Window`] (checked
//! reads of one frame) and a [`State`] (tables and clock); everything that decides is in this crate, so the
//! same tables and the same clock give the same verdict, packet for packet.
//!
//! Reading order, which is the order a packet walks: [`frame`] → [`gate`] (which calls [`shape`] and
//! [`limit`]) for what arrives, [`frame`] → [`watcher`] for what the server answers, and [`mirror`] for what
//! the controller gets to see. [`tables`] is the contract with user space: every key, value and map name.
//!
//! The crate allocates nothing, keeps no state of its own and never panics on any input.

#![cfg_attr(not(feature = "std"), no_std)]
// BPF targets have a compare-and-swap instruction but `core::sync::atomic` does not offer it there.
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "atomic_cxchg, see word.rs"))]

pub mod address;
pub mod class;
pub mod frame;
pub mod gate;
pub mod limit;
pub mod lists;
#[cfg(feature = "std")]
pub mod memory;
pub mod mirror;
pub mod reason;
pub mod shape;
pub mod sources;
pub mod state;
pub mod tables;
pub mod watcher;
pub mod window;
pub mod word;

pub use address::{Address, SourceKey};
pub use class::Class;
pub use gate::{Judgement, judge, judge_walked};
pub use reason::{Reason, Verdict};
pub use state::State;
pub use watcher::{Observation, observe, observe_walked};
pub use window::Window;
