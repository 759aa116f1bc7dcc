//! What a home must supply: tables and a clock.

use crate::{
    Address, SourceKey,
    frame::Transport,
    limit::{self, Admission, Limit},
    lists::Treatment,
    tables::{Port, Prefix, Proof, ProofKey, ServiceSettings, Source, Status, User},
    word::Word,
};

/// The tables of [`crate::tables`] and the gate's clock, in one home.
///
/// An absent entry is `None`; no method fails or blocks.
pub trait State {
    /// Gate clock, ns. In the kernel monotonic since boot; in user space whatever time the packets carry.
    fn now(&self) -> u64;

    /// The controller's word on what holds just now.
    fn status(&self) -> &Status;

    /// Who is guarded at this port, in the rule set `generation`.
    fn port(&self, generation: u32, transport: Transport, port: u16) -> Port;

    /// The limits of a service, in the rule set `generation`.
    fn settings(&self, generation: u32, service: u8) -> Option<&ServiceSettings>;

    /// Whether services are guarded at this address.
    fn is_local(&self, address: &Address) -> bool;

    /// The source with this 8-byte key.
    fn source(&self, key: SourceKey) -> Option<&Source>;

    /// The source with this full address, asked for only behind a *mixed* entry.
    fn host(&self, address: &Address) -> Option<&Source>;

    /// The longest prefix that contains the address.
    fn prefix(&self, address: &Address) -> Option<&Prefix>;

    /// What lists say of the address.
    fn listed(&self, address: &Address) -> Option<Treatment>;

    /// Whether and until when the server's answers prove an address.
    fn proof(&self, key: &ProofKey) -> Option<&Proof>;

    /// Records that the server answered an address, which had no entry.
    fn prove(&mut self, key: &ProofKey, until: u64);

    /// The owner of a user id.
    fn user(&self, service: u8, user_id: u16) -> Option<&User>;

    /// A cell of the strangers' sketch.
    fn sketch(&self, cell: u32) -> Option<&Word>;

    /// A service-wide budget of strangers.
    fn budget(&self, index: u32) -> Option<&Word>;

    /// Takes `units` from a budget. The kernel's home makes a function of this, which the verifier walks once and not
    /// once per way that leads to it.
    #[inline(always)]
    fn take(&self, word: &Word, limit: &Limit, now: u64, units: u64) -> Admission {
        limit::take(word, limit, now, units)
    }
}
