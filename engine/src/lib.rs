//! From bytes to bans, without a socket, file, thread, clock or random number.

#![forbid(unsafe_code)]

pub mod protocol;
pub mod signal;
pub mod text;
pub mod time;
