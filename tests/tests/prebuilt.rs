//! The committed kernel object is that of the committed sources. Needs neither root nor a BPF toolchain.

use floodwall_xtask::{ebpf, root};

#[test]
fn object_was_built_from_these_sources() {
    ebpf::check_digest(&root()).unwrap_or_else(|error| panic!("{error:#}"));
}
