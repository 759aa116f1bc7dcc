//! The live wall: the gate in front of real servers with the engine behind it.
//!
//! Follow one packet downward: the gate mirrors it into a ring; [`mirror`] puts its chunks together; [`wall`] hands it
//! to the engine and carries out what comes back: into the gate's tables ([`crate::enforce`]), into the [`ledger`],
//! onto connections ([`cut`]). Logs of the servers are followed too ([`follow`]), and joined with what the wire has told
//! ([`logs`]). Beside it: [`control`] answers operators, [`metrics`] Prometheus, [`roster`] remembers who
//! is there. [`run`] puts it all up and takes it down.

pub(crate) mod addresses;
pub(crate) mod answers;
pub(crate) mod clock;
pub(crate) mod control;
pub(crate) mod copies;
pub(crate) mod cut;
pub(crate) mod follow;
pub(crate) mod habits;
pub(crate) mod incident;
pub(crate) mod ledger;
mod log_budget;
pub(crate) mod logs;
pub(crate) mod metrics;
pub(crate) mod mirror;
pub(crate) mod observed;
pub(crate) mod people;
pub(crate) mod rates;
mod roster;
pub(crate) mod run;
pub(crate) mod sockets;
pub(crate) mod wall;
pub(crate) mod watching;
pub(crate) mod worst;
