//! IRC as clients speak it: registration, talk, and what the server says about both.
//!
//! `foreign` looks at the first bytes of a connection (HTTP, TLS, SOCKS and others reach IRC ports too), `message`
//! is the grammar, `dialect` the servers' own words, `session` one connection, `server` what all connections of
//! one service share.
//!
//! What a signal rests on: the client's own words for what it tried, the server's answer for how that ended. A
//! password, key, SASL payload or message text is never in a signal and never outlives the line it came in.
//!
//! A server link that turns up on a client port is followed by [`link`] from the lines on that give it away.

pub mod dialect;
pub mod link;
pub mod log;
pub mod message;
mod server;
mod session;

pub use server::{Flavour, Server};
pub use session::{HELD_BYTES_MAX, Session};
