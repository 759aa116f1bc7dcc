//! From bytes to bans, without a socket, file, thread, clock or random number.
//!
//! [`engine`] holds the order of the stages; each stage imports only those before it:
//! [`stream`] → [`protocol`] → [`signal`] → [`rule`] → [`decision`] → [`ledger`].
//! [`packet`] and [`order`] are what goes in, [`command`] what comes out; [`time`], [`text`], [`bounded`] and [`limits`] serve
//! all of them.

#![forbid(unsafe_code)]

pub mod baseline;
pub mod bounded;
pub mod catalogue;
pub mod command;
pub mod decision;
pub mod engine;
pub mod fragment;
pub mod identity;
pub mod ledger;
pub mod limits;
pub mod order;
pub mod packet;
pub mod protocol;
pub mod rule;
pub mod signal;
pub mod stream;
pub mod tenure;
pub mod text;
pub mod time;

pub use command::Command;
pub use engine::{Configuration, Engine, Service};
pub use order::Order;
pub use packet::Packet;
pub use protocol::{Protocol, Side};
pub use time::{Span, Timestamp};
