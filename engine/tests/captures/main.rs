//! The engine over captures: committed ones, and conversations made here that no capture has.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test panics where it fails")]

mod corpus;
#[expect(unreachable_pub, reason = "a library where the fuzz targets are built")]
#[path = "../../../fuzz/src/lib.rs"]
mod entry;
mod fuzz_corpus;
mod links;
mod logs;
mod support;
mod teamtalk;
mod truth;
