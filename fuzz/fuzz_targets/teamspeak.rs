#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| floodwall_fuzz::teamspeak(bytes));
