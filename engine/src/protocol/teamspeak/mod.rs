//! TeamSpeak over TCP: ServerQuery in plain text, and file transfers, which are told apart and left alone.
//!
//! `message` is the grammar with the closed list of commands, `session` one connection, `server` what all
//! connections of one service share. The voice port is UDP and not read here.
//!
//! Every command is answered with one `error id=…` line, in order, so what was asked is remembered until then:
//! names of accounts and numbers of clients, never a password, privilege key or text.

pub mod message;
mod server;
mod session;

pub use server::{Flavour, Server};
pub use session::{HELD_BYTES_MAX, Session};
