//! TeamSpeak. Over UDP: the handshake and who has a session (`datagram` the grammar, `voice` what is made of it); what is
//! said in a session is encrypted and stays so. Over TCP: ServerQuery in plain text (`message` the grammar with the
//! closed list of commands, `vocabulary` all other words, `session` one connection), and file transfers, which are told apart and left alone. `server`
//! is what all of one service share.
//!
//! Every command is answered with one `error id=…` line, in order, so what was asked is remembered until then:
//! names of accounts and numbers of clients, never a password, privilege key or text.

pub mod datagram;
pub mod log;
pub mod message;
mod server;
mod session;
mod vocabulary;
mod voice;

pub use server::{Flavour, Server};
pub use session::{HELD_BYTES_MAX, Session};
