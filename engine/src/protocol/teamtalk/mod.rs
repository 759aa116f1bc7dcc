//! TeamTalk 5, control channel and datagrams (`protocols/teamtalk.md`).
//!
//! [`message`] reads one line, [`session`] follows one TCP connection, [`server`] holds what all connections
//! of one server share: user ids, whose address each belongs to, channel names, UDP bindings.

pub mod message;
pub mod server;
pub mod session;

pub use server::Server;
pub use session::Session;
