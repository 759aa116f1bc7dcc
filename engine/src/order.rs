//! Orders: what operators say, and what is remembered from before. The other way into the engine beside packets.

use crate::{
    command::{Explanation, Prefix},
    time::{Span, Timestamp},
};

/// How long somebody whose ban was lifted is noted instead of banned again: whoever lifts a ban has reasons.
pub const GRACE: Span = Span::from_secs(600);

/// One order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Order {
    /// Drop everything from there, whatever the rules say.
    Ban {
        /// From where.
        subject: Prefix,
        /// Until when.
        until: Timestamp,
        /// Who asked for it and why.
        explanation: Explanation,
    },
    /// Lift a ban, forget the offences and grant [`GRACE`].
    Unban {
        /// Whose.
        subject: Prefix,
    },
}
