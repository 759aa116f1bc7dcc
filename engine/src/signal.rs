//! Signals: what happened, in one closed vocabulary for all services.

use std::{cell::OnceCell, ops::Deref, sync::Arc};

use floodwall_wire::Address;

use crate::{packet::Packet, protocol::LINK, text::Text, time::Timestamp};

macro_rules! vocabulary {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $evidence:ident;)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum SignalKind { $($(#[$doc])* $variant,)* }

        impl SignalKind {
            /// Every kind, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in rule files, reports and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What the signal proves about the address it names.
            pub const fn evidence(self) -> EvidenceClass {
                match self { $(Self::$variant => EvidenceClass::$evidence,)* }
            }
        }
    };
}

/// Whether a spoofed packet could have produced a signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EvidenceClass {
    /// It rests on bytes that the server's TCP has acknowledged, on the server's own answer, or on an echoed
    /// cookie: the address is real. May lead to a ban.
    Acknowledged,
    /// The address may be forged. May be dropped or limited, never banned.
    Spoofable,
}

vocabulary! {
    /// A TCP connection was established.
    ConnectionOpened = "connection.opened", Acknowledged;
    /// A TCP connection ended.
    ConnectionClosed = "connection.closed", Acknowledged;
    /// The server refused the connection in its own words: throttled, banned, full.
    ConnectionRefused = "connection.refused", Acknowledged;
    /// A connection stayed open without registering or logging in.
    ConnectionHeld = "connection.held", Acknowledged;
    /// A connection ended before anybody had tried to log in or registered.
    ConnectionUnused = "connection.unused", Acknowledged;
    /// The server was ready for a connection, and nothing more came of it.
    ConnectionAbandoned = "connection.abandoned", Spoofable;
    /// A login was tried.
    LoginAttempted = "login.attempted", Acknowledged;
    /// A login succeeded.
    LoginSucceeded = "login.succeeded", Acknowledged;
    /// Wrong account, password, key or cookie.
    LoginFailed = "login.failed", Acknowledged;
    /// A login was refused whatever the password: banned, full, too fast.
    LoginRefused = "login.refused", Acknowledged;
    /// A session ended by logging out.
    LoginEnded = "login.ended", Acknowledged;
    /// Somebody who may do everything logged in from a network they have not used before.
    LoginElsewhere = "login.elsewhere", Acknowledged;
    /// A client command that has no signal of its own when it is sent.
    CommandSent = "command.sent", Acknowledged;
    /// The server refused a command.
    CommandRejected = "command.rejected", Acknowledged;
    /// A command's answer is complete.
    CommandAnswered = "command.answered", Acknowledged;
    /// A message to one user.
    MessagePrivate = "message.private", Acknowledged;
    /// A message to a channel.
    MessageChannel = "message.channel", Acknowledged;
    /// A message to everybody.
    MessageBroadcast = "message.broadcast", Acknowledged;
    /// A nickname was changed.
    NickChanged = "nick.changed", Acknowledged;
    /// A status was changed.
    StatusChanged = "status.changed", Acknowledged;
    /// A channel was joined.
    ChannelJoined = "channel.joined", Acknowledged;
    /// A channel was left.
    ChannelLeft = "channel.left", Acknowledged;
    /// A channel was created.
    ChannelCreated = "channel.created", Acknowledged;
    /// A channel was changed.
    ChannelChanged = "channel.changed", Acknowledged;
    /// A channel was removed.
    ChannelRemoved = "channel.removed", Acknowledged;
    /// Joining a channel was refused: key, limit, ban, invitation.
    ChannelRefused = "channel.refused", Acknowledged;
    /// A user was kicked, by the one whom the signal names.
    UserKicked = "user.kicked", Acknowledged;
    /// A user or address was banned by the one whom the signal names.
    UserBanned = "user.banned", Acknowledged;
    /// A user was moved.
    UserMoved = "user.moved", Acknowledged;
    /// An account was created, changed or deleted.
    AccountChanged = "account.changed", Acknowledged;
    /// The server's settings were changed.
    ServerChanged = "server.changed", Acknowledged;
    /// A file was sent or received.
    FileTransferred = "file.transferred", Acknowledged;
    /// A datagram that is not the protocol's.
    DatagramMalformed = "datagram.malformed", Spoofable;
    /// A datagram from an address without a session.
    DatagramStranger = "datagram.stranger", Spoofable;
    /// A datagram with a user id that is another's.
    DatagramForeign = "datagram.foreign", Spoofable;
    /// A datagram for a user id that nobody has.
    DatagramAbsent = "datagram.absent", Spoofable;
    /// The port of a bound user id moved.
    DatagramRebound = "datagram.rebound", Spoofable;
    /// A user id that had no UDP address yet was given one by somebody else.
    DatagramPrebound = "datagram.prebound", Spoofable;
    /// One address asked for many user ids that are not its own.
    DatagramScan = "datagram.scan", Spoofable;
    /// Somebody else keeps a session alive.
    DatagramKeptAlive = "datagram.kept-alive", Spoofable;
    /// A TeamSpeak handshake was begun.
    HandshakeBegun = "handshake.begun", Spoofable;
    /// A cookie or puzzle came back that this server never gave this address: a recorded handshake, or a made-up one.
    HandshakeForged = "handshake.forged", Spoofable;
    /// The same first command came from another address before.
    HandshakeReplayed = "handshake.replayed", Spoofable;
    /// A puzzle came back as it was given, with a solution.
    HandshakeSolved = "handshake.solved", Acknowledged;
    /// The server did not take a solution.
    HandshakeFailed = "handshake.failed", Acknowledged;
    /// Several sessions fell silent together right after one login. Whoever falls silent can choose when, so it
    /// proves nothing against the one who logged in.
    ClientStalled = "client.stalled", Spoofable;
    /// A nickname that belongs to somebody known appeared from elsewhere.
    IdentitySpoofed = "identity.spoofed", Acknowledged;
    /// Somebody is active whom nobody saw join.
    IdentityUnseen = "identity.unseen", Acknowledged;
    /// A version or packet protocol that does not fit.
    VersionMismatch = "version.mismatch", Acknowledged;
    /// Clients of an IRC channel were told that its timestamp changed: somebody else's doing.
    ChannelTimestampChanged = "channel.timestamp-changed", Spoofable;
    /// Two servers have accepted each other.
    LinkOpened = "link.opened", Acknowledged;
    /// Both have told each other what they know.
    LinkEstablished = "link.established", Acknowledged;
    /// A server link ended.
    LinkClosed = "link.closed", Acknowledged;
    /// A server was lost, with all behind it.
    LinkSplit = "link.split", Acknowledged;
    /// A server that was lost is back.
    LinkRejoined = "link.rejoined", Acknowledged;
    /// Two users with one nickname met.
    LinkCollision = "link.collision", Acknowledged;
    /// A channel operator is none any more, because an older channel of that name won.
    LinkOpsLost = "link.ops-lost", Acknowledged;
    /// A server that no `[[link]]` names was let in, or from elsewhere.
    LinkStranger = "link.stranger", Acknowledged;
    /// Handshake lines in the wrong place, twice, or a client's.
    LinkDisordered = "link.disordered", Acknowledged;
    /// Versions that do not overlap, clocks too far apart, or neither told.
    LinkIncompatible = "link.incompatible", Acknowledged;
    /// A server speaks for somebody who is not behind it.
    LinkFakeDirection = "link.fake-direction", Acknowledged;
    /// A user or server introduced twice, or speaking after it left.
    LinkReintroduced = "link.reintroduced", Acknowledged;
    /// A line of a server that has no form of its dialect.
    LinkMalformed = "link.malformed", Acknowledged;
    /// Users put into a channel by somebody who cannot.
    LinkForgedJoin = "link.forged-join", Acknowledged;
    /// A channel's timestamp is said to be 0, which protects nothing.
    LinkTimestampZero = "link.timestamp-zero", Acknowledged;
    /// A timestamp in the future, or before there were networks.
    LinkTimestampImplausible = "link.timestamp-implausible", Acknowledged;
    /// A channel is said to be older than both sides had agreed: with an operator it is a takeover.
    LinkTimestampBackwards = "link.timestamp-backwards", Acknowledged;
    /// A change of a channel with another timestamp than the channel's.
    LinkTimestampMismatch = "link.timestamp-mismatch", Acknowledged;
    /// A server gave a rank by a mode.
    LinkServerMode = "link.server-mode", Acknowledged;
    /// A user or a join without the timestamp it must carry.
    LinkPlainJoin = "link.plain-join", Acknowledged;
    /// Somebody who lost a channel to an older one goes on changing it.
    LinkOpsKept = "link.ops-kept", Acknowledged;
    /// Somebody changes a channel whom nobody made its operator.
    LinkUnoppedAction = "link.unopped-action", Acknowledged;
    /// What cannot be: SAVE of another time, KILL of nobody, a nickname that grows older.
    LinkImpossible = "link.impossible", Acknowledged;
    /// A server takes back what a user of the other side has just set.
    LinkBouncedMode = "link.bounced-mode", Acknowledged;
    /// Kills, splits, bans or introductions in bulk.
    LinkMassAction = "link.mass-action", Acknowledged;
    /// Bytes that are not the protocol's.
    ProtocolGarbage = "protocol.garbage", Acknowledged;
    /// Overlapping segments carried different bytes.
    StreamConflict = "stream.conflict", Acknowledged;
    /// Bytes of a followed connection were missed.
    StreamGap = "stream.gap", Acknowledged;
    /// Overlapping IP fragments carried different bytes.
    FragmentConflict = "fragment.conflict", Spoofable;
    /// A TLS handshake was completed; what follows cannot be read.
    TlsHandshake = "tls.handshake", Acknowledged;
    /// The server spoke unasked on a TLS connection, as it does to those who are logged in; once a connection.
    TlsAddressed = "tls.addressed", Acknowledged;
    /// A connection ended within seconds of its TLS handshake.
    TlsBrief = "tls.brief", Acknowledged;
    /// A TLS handshake was begun and not completed.
    TlsFailed = "tls.failed", Acknowledged;
}

impl SignalKind {
    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }

    /// Whether somebody said something.
    pub const fn is_message(self) -> bool {
        matches!(self, Self::MessagePrivate | Self::MessageChannel | Self::MessageBroadcast)
    }
}

macro_rules! methods {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// What was guessed or proven in a login.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Method { $($(#[$doc])* $variant,)* }

        impl Method {
            /// Every method, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in rule files and reports.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

methods! {
    /// An account with a password.
    Account = "account";
    /// An account without a password.
    Guest = "guest";
    /// IRC registration without credentials.
    Registration = "registration";
    /// IRC operator.
    Oper = "oper";
    /// IRC SASL.
    Sasl = "sasl";
    /// IRC services (NickServ).
    Services = "services";
    /// A password for the server as a whole.
    ServerPassword = "server-password";
    /// A channel password or key.
    ChannelKey = "channel-key";
    /// A channel operator password.
    ChannelOperator = "channel-operator";
    /// TeamSpeak ServerQuery.
    Query = "query";
    /// TeamSpeak privilege key.
    PrivilegeKey = "privilege-key";
    /// A server link.
    Link = "link";
    /// A TeamSpeak identity, which is a key of the client's own making.
    Identity = "identity";
}

/// Number of one followed connection, unique within a run.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FlowId(pub u64);

/// Something that happened, and to whom. Never carries message text, passwords, keys or tokens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signal {
    /// What.
    pub kind: SignalKind,
    /// When.
    pub at: Timestamp,
    /// Index of the service.
    pub service: u8,
    /// Who did it.
    pub address: Address,
    /// On which connection.
    pub flow: Option<FlowId>,
    /// More about it.
    pub detail: Detail,
}

impl Signal {
    /// Whether somebody may have done it who had a session at another address, and does not know yet that it is lost. Nobody else
    /// has that one still.
    pub fn may_be_of_moved(&self) -> bool {
        let claims = matches!(self.kind, SignalKind::DatagramForeign | SignalKind::DatagramStranger);
        claims && self.detail.reason.is_none()
    }

    /// Something a client's packet shows by itself, outside any connection.
    pub const fn of_packet(kind: SignalKind, packet: &Packet<'_>, detail: Detail) -> Self {
        Self { kind, at: packet.at, service: packet.service, address: packet.client, flow: None, detail }
    }
}

/// A signal that is being dealt with. It is put where several can keep it only when the first of them does: a flood brings one
/// with every packet, and nearly all are forgotten at once.
#[derive(Debug)]
pub struct AtHand<'a> {
    signal: &'a Signal,
    kept: OnceCell<Arc<Signal>>,
}

impl<'a> AtHand<'a> {
    /// Kept by nobody yet.
    pub const fn new(signal: &'a Signal) -> Self {
        Self { signal, kept: OnceCell::new() }
    }

    /// The one that all share who keep it.
    pub fn keep(&self) -> Arc<Signal> {
        Arc::clone(self.kept.get_or_init(|| Arc::new(self.signal.clone())))
    }
}

impl Deref for AtHand<'_> {
    type Target = Signal;

    fn deref(&self) -> &Signal {
        self.signal
    }
}

/// One line for evidence: kind, address and the fields that are set. Never message text or secrets, which a
/// signal does not hold.
impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let detail = &self.detail;
        write!(f, "{} from {}", self.kind.as_str(), self.address)?;
        if let Some(method) = detail.method {
            write!(f, " method {}", method.as_str())?;
        }
        let texts = [
            ("account", &detail.account),
            ("nickname", &detail.nickname),
            ("identity", &detail.identity),
            ("channel", &detail.channel),
            ("target", &detail.target),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                write!(f, " {name} {text}")?;
            }
        }
        if let Some(command) = detail.command {
            write!(f, " command {command}")?;
        }
        if let Some(number) = detail.number {
            write!(f, " number {number}")?;
        }
        if let Some(reason) = detail.reason {
            write!(f, " reason {reason}")?;
        }
        Ok(())
    }
}

/// A message's content by its keyed hashes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Content {
    /// The same for texts that are nearly the same.
    pub alike: u64,
    /// The same for texts that differ in figures, marks, blanks and letter case alone.
    pub letters: u64,
    /// The text as it is.
    pub exact: u64,
    /// The host of the first site that it names.
    pub site: Option<u64>,
}

impl Content {
    /// The reason of a message that says this: that it names a site.
    pub fn reason(self) -> Option<&'static str> {
        self.site.map(|_| LINK)
    }
}

/// A text of which nothing is known but whether another is the same.
impl From<u64> for Content {
    fn from(hash: u64) -> Self {
        Self { alike: hash, letters: hash, exact: hash, site: None }
    }
}

/// The fields a rule can match or count by.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Detail {
    /// What was guessed or proven.
    pub method: Option<Method>,
    /// Account concerned.
    pub account: Option<Text>,
    /// Nickname of the one who did it.
    pub nickname: Option<Text>,
    /// Identity (TeamSpeak UID).
    pub identity: Option<Text>,
    /// Channel concerned.
    pub channel: Option<Text>,
    /// Whom it was done to.
    pub target: Option<Text>,
    /// Command or event keyword, always one of the protocol's own words.
    pub command: Option<&'static str>,
    /// Error or reply number of the protocol.
    pub number: Option<u32>,
    /// A reason from a closed list.
    pub reason: Option<&'static str>,
    /// What a message says, so that equal texts can be counted without being kept.
    pub content: Option<Content>,
    /// How much: bytes of a message, of a gap, of a transfer.
    pub weight: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for kind in SignalKind::ALL {
            assert_eq!(SignalKind::from_name(kind.as_str()), Some(*kind));
        }
        assert_eq!(SignalKind::from_name("login.fail"), None);
    }
}
