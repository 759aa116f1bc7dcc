//! `floodwall replay` over captures: committed ones, changed as a recorder may change them, and attacks made by hand.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test panics where it fails")]

mod attacks;
mod conversation;
mod evasions;
mod evenings;
mod fragments;
mod intensity;
mod mangled;
mod records;
mod servers;
mod teamspeak;
