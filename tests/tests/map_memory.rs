//! Promise 5: every table is bounded. All maps together, at default capacity, stay within 64 MiB.

use std::os::fd::AsRawFd;

use floodwall_tests::{KernelGate, is_root, prebuilt_object, skip};
use floodwall_wire::{
    Address,
    tables::{PREFIXES_MAX, Prefix, PrefixKey, names},
};

const BYTES_MAX: u64 = 64 * 1024 * 1024;

#[test]
fn all_maps_together_fit_64_mib() {
    if !is_root() {
        return skip("all_maps_together_fit_64_mib", "needs root to create maps");
    }
    let gate = KernelGate::as_in_production(&prebuilt_object()).expect("the object loads");
    // The only map that is not allocated whole when it is created; a list takes more when the gate is loaded.
    for number in 0..PREFIXES_MAX {
        let key = PrefixKey::new(Address::from_v4(number << 16), 96 + 16 + number % 17);
        gate.write(names::PREFIXES, &key, &Prefix::default());
    }
    let mut total = 0;
    for (name, map) in gate.maps() {
        let bytes = memory_of(map.as_raw_fd());
        println!("{name:>16} {bytes:>10} bytes");
        total += bytes;
    }
    println!("{:>16} {total:>10} bytes of {BYTES_MAX}", "all");
    assert!(total > 16 * 1024 * 1024, "the kernel does not tell what its maps take: {total}");
    assert!(total <= BYTES_MAX, "{total} bytes");
}

/// What the kernel says a map takes (`memlock` in its descriptor's information).
fn memory_of(fd: i32) -> u64 {
    let info =
        std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("a descriptor has information");
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:")).expect("a map has memory");
    line.trim().parse().expect("a number")
}
