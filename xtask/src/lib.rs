//! What `cargo xtask` does, one module per command.

pub mod bench;
pub mod check;
pub mod ebpf;
pub mod judge;
pub mod kernels;
pub mod logs;
pub mod sources;

mod process;

use std::path::PathBuf;

/// The root of the checkout.
pub fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Says something to the developer.
#[expect(clippy::print_stdout, reason = "the terminal is where the developer is")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}
