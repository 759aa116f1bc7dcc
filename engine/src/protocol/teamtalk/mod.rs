//! TeamTalk 5, with TeamTalk 4's names, control channel and datagrams (`protocols/teamtalk.md`).
//!
//! [`message`] reads one line, `question` what a client asks, [`session`] follows one TCP connection, [`server`]
//! holds what all connections of one server share: user ids, whose address each belongs to, channel names.
//! [`datagram`] follows to which UDP address the server binds each user id, [`stall`] who falls silent together.

pub mod datagram;
pub mod log;
pub mod message;
mod question;
pub mod server;
pub mod session;
pub mod stall;
mod vocabulary;

pub use server::Server;
pub use session::Session;
