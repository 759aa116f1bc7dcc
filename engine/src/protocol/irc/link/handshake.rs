//! What two servers say before they trust each other: PASS, CAPAB, SERVER, then SVINFO.
//!
//! The dialect is told by what is said, first come: the second argument of PASS, the arity of SERVER, CAPAB, and
//! for the TS family without ids the version in SVINFO.

use super::{
    dialect,
    event::{Dialect, is_server_id},
    network::{Name, exact},
};
use crate::protocol::irc::message::Message;

/// One side's greeting so far.
#[derive(Default)]
pub(super) struct Greeted {
    /// The name and the id, once SERVER was said.
    pub(super) server: Option<(Name, Name)>,
    has_capab: bool,
    /// The id that PASS announced (TS6 of solanum).
    pass_id: Option<Name>,
    offers_compression: bool,
    claims: Option<Dialect>,
    /// The first thing that was out of order, told once the link is accepted.
    pub(super) disorder: Option<&'static str>,
}

/// What a line of the handshake was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// SERVER: this side has introduced itself.
    Introduced,
    /// The server closes.
    Error,
    /// Anything else.
    Other,
}

impl Greeted {
    /// Takes one line of this side before both have introduced themselves.
    pub(super) fn take(&mut self, message: &Message<'_>) -> Step {
        match message.command {
            b"PASS" => self.on_pass(message),
            b"CAPAB" => self.on_capab(message),
            b"SERVER" if self.server.is_none() => return self.on_server(message),
            b"ERROR" => return Step::Error,
            b"PROTOCTL" => self.on_protoctl(message),
            b"PING" | b"PONG" | b"NOTICE" => {}
            b"SERVER" => self.note("server-twice"),
            b"USER" | b"CAP" => self.note("client-command"),
            _ if message.numeric().is_some() => {}
            _ if self.server.is_none() => self.note("before-server"),
            // The faster side's burst may come before the other's greeting is seen.
            _ => {}
        }
        Step::Other
    }

    fn note(&mut self, disorder: &'static str) {
        self.disorder.get_or_insert(disorder);
    }

    /// `PASS password TS 6 sid`, `PASS password :TS`, `PASS password 0210-IRC+ make|version:flags options`.
    fn on_pass(&mut self, message: &Message<'_>) {
        let params = message.params();
        match params {
            [_, mark, b"6", id, ..] if mark.ends_with(b"TS") && is_server_id(id) => {
                self.claims = Some(Dialect::Ts6);
                self.pass_id = Some(exact(id));
            }
            [_, mark, ..] if mark.ends_with(b"TS") => {
                self.claims.get_or_insert(Dialect::Ts3);
            }
            [_, version, rest @ ..]
                if version.iter().take(4).all(u8::is_ascii_digit) && version.len() >= 4 =>
            {
                self.claims = Some(Dialect::Rfc2813);
                // The flags of IRC+ stand after the colon of the second argument, the options in the third.
                let flags = rest.first().and_then(|make| make.split(|byte| *byte == b':').nth(1));
                let options = rest.get(1).copied().unwrap_or_default();
                self.offers_compression =
                    flags.is_some_and(|flags| flags.contains(&b'Z')) && options.contains(&b'Z');
            }
            _ => {}
        }
    }

    /// UnrealIRCd says its id here and not in SERVER: `PROTOCTL EAUTH=name SID=001`.
    fn on_protoctl(&mut self, message: &Message<'_>) {
        let id = message.params().iter().find_map(|token| token.strip_prefix(b"SID="));
        if let Some(id) = id.filter(|id| is_server_id(id)) {
            self.pass_id = Some(exact(id));
        }
    }

    fn on_capab(&mut self, message: &Message<'_>) {
        let last = message.last().unwrap_or_default();
        // InspIRCd's come in parts.
        const PARTS: [&[u8]; 8] = [
            b"START",
            b"CAPABILITIES",
            b"CHANMODES",
            b"END",
            b"EXTBANS",
            b"MODSUPPORT",
            b"MODULES",
            b"USERMODES",
        ];
        if message.param(0).is_some_and(|part| PARTS.contains(&part)) {
            self.claims = Some(Dialect::SpanningTree);
        }
        let is_tree = self.claims == Some(Dialect::SpanningTree);
        if std::mem::replace(&mut self.has_capab, true) && !is_tree {
            self.note("capab-twice");
        }
        for word in last.split(|byte| *byte == b' ') {
            match word {
                b"TS4" => self.claims = Some(Dialect::Ts4),
                b"ZIP" => self.offers_compression = true,
                _ => {}
            }
        }
    }

    fn on_server(&mut self, message: &Message<'_>) -> Step {
        let Some(greeting) = dialect::greeting(message) else { return Step::Other };
        if let Some(dialect) = greeting.dialect {
            self.claims = Some(dialect);
        }
        let id = greeting.id.map(exact).or_else(|| self.pass_id.clone());
        let name = exact(greeting.name);
        self.server = Some((name.clone(), id.unwrap_or(name)));
        Step::Introduced
    }
}

/// The dialect of two sides that have introduced themselves. Ids of one side decide: no TS6 server links to one
/// without.
pub(super) fn dialect_of(greeted: &[Greeted; 2]) -> Dialect {
    let [one, other] = [greeted[0].claims, greeted[1].claims];
    match (one, other) {
        (Some(one), Some(other)) if one == other => one,
        // A TS3 server ignores the capabilities it does not know.
        (Some(Dialect::Ts4), Some(Dialect::Ts3)) | (Some(Dialect::Ts3), Some(Dialect::Ts4)) => Dialect::Ts3,
        (Some(claim), _) | (None, Some(claim)) => claim,
        (None, None) => Dialect::Unknown,
    }
}

/// Whether everything after SERVER is a zlib stream.
pub(super) fn is_compressed(greeted: &[Greeted; 2], dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Rfc2813 | Dialect::Ts4) && greeted.iter().all(|side| side.offers_compression)
}
