//! What the kernel-side tests share: the two homes side by side, packets by hand, captures.

#![expect(clippy::panic, reason = "only tests and benchmarks call this, and a panic is how they fail")]

pub mod homes;
pub mod kernel;
pub mod live;
pub mod packets;

pub use floodwall_kernel::bpf;
pub use homes::Homes;
pub use kernel::{KernelGate, prebuilt_object};

/// Whether programs can be loaded at all.
pub fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status.lines().any(|line| {
            line.strip_prefix("Uid:").is_some_and(|ids| ids.split_whitespace().nth(1) == Some("0"))
        })
    })
}

/// Says that something was not tested, in a form that a script can count.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
}
