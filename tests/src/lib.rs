//! What the kernel-side tests share.

pub mod bpf;
pub mod kernel;

pub use kernel::{KernelGate, prebuilt_object};
