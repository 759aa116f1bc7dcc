//! From bytes to bans, without a socket, file, thread, clock or random number.

#![forbid(unsafe_code)]

pub mod bounded;
pub mod limits;
pub mod packet;
pub mod protocol;
pub mod rule;
pub mod signal;
pub mod stream;
pub mod text;
pub mod time;
