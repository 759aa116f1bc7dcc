//! Carrying out what the engine decides. A new enforcer is one file behind [`Enforcer`].

use floodwall_engine::Command;

pub(crate) mod copies;
pub(crate) mod kernel;
pub(crate) mod memory;
pub(crate) mod nftables;
pub(crate) mod prefixes;
mod ranges;
pub(crate) mod tables;

/// Something that can put a decision into force.
pub(crate) trait Enforcer {
    /// Carries out one command.
    ///
    /// # Errors
    /// Says what could not be put into force; the state is as before.
    fn apply(&mut self, command: &Command) -> anyhow::Result<()>;
}
