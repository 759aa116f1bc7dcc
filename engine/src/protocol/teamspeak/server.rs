//! What all connections of one service share: which server it is, and who is at its voice port.

use super::voice::Voice;

/// Which program answers.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Flavour {
    /// A client's own query interface.
    ClientQuery,
    /// The TeaSpeak server.
    TeaSpeak,
    /// The TeamSpeak 3 server.
    TeamSpeak,
    /// Not known yet.
    #[default]
    Unknown,
}

impl Flavour {
    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientQuery => "clientquery",
            Self::TeaSpeak => "teaspeak",
            Self::TeamSpeak => "teamspeak",
            Self::Unknown => "unknown",
        }
    }
}

/// One service's server.
#[derive(Debug)]
pub struct Server {
    flavour: Flavour,
    pub(crate) voice: Voice,
}

impl Server {
    /// Nothing known yet; `seed` keys the tables.
    pub fn new(seed: u64) -> Self {
        Self { flavour: Flavour::Unknown, voice: Voice::new(seed) }
    }

    /// Which program it is.
    pub const fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// Takes the first line of a banner.
    pub(super) fn learn(&mut self, banner: &[u8]) {
        self.flavour = match banner {
            b"TS3" => Flavour::TeamSpeak,
            b"TS3 Client" => Flavour::ClientQuery,
            b"TeaSpeak" => Flavour::TeaSpeak,
            _ => self.flavour,
        };
    }
}
