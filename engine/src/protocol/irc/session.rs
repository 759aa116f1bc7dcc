//! One connection: who is on it, what was asked, what was answered.
//!
//! `client` reads what the client says, `answers` what the server says; both work on one [`State`]. What is kept:
//! the nickname in force, names asked for and not answered yet (accounts, never passwords), a few flags. The two
//! line readers hold at most one unfinished line each.

mod answers;
mod client;
#[cfg(test)]
mod tests;

use super::{
    link::{self, Link},
    message::{LINE_BYTES_MAX, Message, is_same_name},
    server::Server,
};
use std::collections::VecDeque;

use crate::{
    protocol::{
        Connection, Context, Dissector, GIVEN_UP_AFTER, HeldPlace, IDLE_PATIENCE, Progress, Side,
        foreign::{Foreign, Head},
        lines::{Line, Lines},
        pending::Pending,
        tls::{Listener, TLS_BRIEF},
    },
    signal::{Detail, Method, SignalKind},
    stream::Ending,
    text::Text,
    time::{Span, Timestamp},
};

/// The most that [`Dissector::held_bytes`] of a [`Session`] that is no link ever says: two lines, of which a growing buffer may
/// hold twice as much, and the names.
pub const HELD_BYTES_MAX: usize = 4 * (LINE_BYTES_MAX + 2) + EARLY_BYTES_MAX + 16 * 1024;

/// A client registers within seconds; servers give it 20 to 37 (measured) before they close.
const HELD: Span = Span::from_secs(15);
/// Servers ask every two minutes at the latest whether whom they have let in is still there.
const UNHEARD_PATIENCE: Span = Span::from_secs(180);

/// Different names of one kind remembered until the server answers.
const NAMES_PENDING_MAX: usize = 16;

/// Bytes of lines kept until the server lets their client in. A flood sends hundreds in one write.
const EARLY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a nickname that are compared and kept.
const NICKNAME_BYTES_MAX: usize = 96;

/// A reader of one IRC connection.
pub struct Session {
    client_lines: Lines,
    server_lines: Lines,
    client_head: Head,
    server_head: ServerHead,
    state: State,
    /// From the first word on that only servers say.
    link: Option<Box<Link>>,
    /// Bytes of either side.
    has_missed: bool,
}

/// Where the connection is. Only `Opaque` is final.
///
/// `Registering` → `Registered` with 001. `Registering` → `LinkOffered` when the client introduces itself as
/// a server, from there to `Linked` when the server does the same, or to `Registered` after all.
/// `Unknown` → `Linked` with the first line of the server that only servers get.
/// `Unknown` → `Registered` with the first line that only registered users get.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// TLS, in which the server has only answered so far. From everywhere; to `Opaque` when it speaks unasked.
    Encrypted(Listener),
    /// Two servers talk: all is the link's reader's. From `LinkOffered` and `Unknown`.
    Linked,
    /// A server link was offered. From `Registering`.
    LinkOffered,
    /// Nothing more is read. From everywhere.
    Opaque,
    /// 001 was seen, or what only registered users get. From all but `Opaque`.
    Registered,
    /// From the beginning of a connection seen from its beginning.
    Registering,
    /// Its beginning was missed, or bytes of the server before 001 were.
    Unknown,
}

impl Phase {
    /// Whether a client's reader reads it line by line.
    const fn is_in_lines(self) -> bool {
        !matches!(self, Self::Encrypted(_) | Self::Linked | Self::Opaque)
    }
}

/// Whether the client is an operator of the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Operator {
    /// It has not become one.
    No,
    /// Its beginning was missed, and the server has refused nothing for it.
    Unknown,
    /// The server said so.
    Yes,
}

/// The first byte of the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ServerHead {
    /// Not seen yet.
    Expected,
    /// Text, as it should be.
    Text,
}

/// Nickname: as it came, for comparing, and as it is reported.
struct Nickname {
    raw: Box<[u8]>,
    text: Text,
}

/// SASL exchanges: the client's half of one, and those the server still answers.
struct Sasl {
    is_open: bool,
    is_plain: bool,
    asked: Pending<Option<Text>>,
    /// The account the server has named for the exchange it answers.
    named: Option<Text>,
}

impl Sasl {
    /// Whether the server still owes an answer.
    fn is_under_way(&self) -> bool {
        self.is_open || !self.asked.is_empty()
    }
}

impl Default for Sasl {
    fn default() -> Self {
        Self { is_open: false, is_plain: false, asked: Pending::new(NAMES_PENDING_MAX), named: None }
    }
}

/// Lines of a client that has introduced itself and is not let in yet. No `Debug`: passwords may be in them.
#[derive(Default)]
struct Early {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl Early {
    fn push(&mut self, line: &[u8]) {
        let bytes = self.bytes.saturating_add(line.len()).saturating_add(size_of::<Box<[u8]>>());
        if bytes <= EARLY_BYTES_MAX {
            self.bytes = bytes;
            self.lines.push_back(line.into());
        }
    }

    fn pop(&mut self) -> Option<Box<[u8]>> {
        let line = self.lines.pop_front()?;
        self.bytes = self.bytes.saturating_sub(line.len()).saturating_sub(size_of::<Box<[u8]>>());
        Some(line)
    }
}

/// A login by talking to services.
#[derive(Clone, PartialEq)]
struct Identification {
    service: &'static str,
    account: Option<Text>,
    /// Taking a nickname back, which logs nobody in.
    takes_over: bool,
}

struct State {
    phase: Phase,
    nickname: Option<Nickname>,
    foreign: Option<Foreign>,
    is_tls_offered: bool,
    /// A handshake was answered.
    is_tls: bool,
    has_sent_user: bool,
    has_sent_password: bool,
    has_quit: bool,
    /// With which words: some servers say nothing else when they close.
    quit_message: Option<Box<[u8]>>,
    /// The server has said why it will close; what follows says it again.
    is_refused: bool,
    /// CTCP requests that the client may answer.
    ctcp_requests: u32,
    /// Who has come lately, by the hash of the name: at most [`client::ARRIVALS_MAX`].
    arrivals: VecDeque<(u64, Timestamp)>,
    /// The connection goes on, but nobody looks any more.
    is_let_go: bool,
    /// Whether a line has come.
    has_spoken: bool,
    /// The server ended the connection, unasked.
    is_dropped: bool,
    nicknames_asked: u32,
    operator: Operator,
    /// Of an answer that is not complete.
    answer_bytes: u64,
    place: HeldPlace,
    /// When it registered, said something or left its last channel.
    active_at: Timestamp,
    /// How many it is in.
    channels: u32,
    sasl: Sasl,
    /// What was said before the server let the client in, and may have been carried out right after.
    early: Early,
    opers: Pending<Option<Text>>,
    identifications: Pending<Identification>,
    link: Option<Text>,
}

impl Session {
    /// A session for this connection.
    pub fn new(connection: &Connection) -> Self {
        // Every CR ends a client's line, not only that before LF: ircd-hybrid, solanum, ngIRCd and UnrealIRCd take
        // it so, and a command hidden behind a lone CR is still a command.
        let mut client_lines = Lines::ending_at_cr(LINE_BYTES_MAX);
        let mut server_lines = Lines::new(LINE_BYTES_MAX);
        let (client_head, server_head, phase) = if connection.midway {
            client_lines.skip_to_next();
            server_lines.skip_to_next();
            (Head::missed(), ServerHead::Text, Phase::Unknown)
        } else {
            (Head::new(), ServerHead::Expected, Phase::Registering)
        };
        Self {
            client_lines,
            server_lines,
            client_head,
            server_head,
            state: State::new(phase),
            link: None,
            has_missed: false,
        }
    }

    /// A session for a link that the configuration names, which our side opens.
    pub fn of_link(connection: &Connection) -> Self {
        let mut session = Self::new(connection);
        session.state.phase = Phase::Linked;
        let (client_lines, server_lines) = session.take_lines();
        let link = if connection.midway { Link::midway } else { Link::new };
        session.link = Some(Box::new(link(Side::Server, client_lines, server_lines)));
        session
    }

    /// The link, where the connection is an open one.
    pub fn link(&self) -> Option<&Link> {
        self.link.as_deref().filter(|link| link.is_open())
    }

    /// How the connection ended; said before it is closed.
    pub fn note_ending(&mut self, ending: Ending) {
        self.state.is_let_go = !ending.is_of_the_connection();
        self.state.is_dropped = ending.is_by_server() && !self.state.has_quit;
        if let Some(link) = &mut self.link {
            link.note_ending(ending);
        }
    }

    /// Whether nobody has registered on it, the server has not said why, and did not keep them waiting.
    pub fn is_unused(&self, lasted: Span) -> bool {
        let has_spoken = matches!(self.server_head, ServerHead::Text);
        let is_left = !self.state.is_dropped && lasted <= GIVEN_UP_AFTER;
        matches!(self.state.phase, Phase::Registering)
            && (has_spoken || is_left)
            && !self.state.is_refused
            && self.state.foreign.is_none()
    }

    fn take_lines(&mut self) -> (Lines, Lines) {
        let take = |lines: &mut Lines| std::mem::replace(lines, Lines::new(0));
        (take(&mut self.client_lines), take(&mut self.server_lines))
    }

    fn on_client_bytes(&mut self, bytes: &[u8], server: &mut Server, context: &mut Context<'_>) -> Progress {
        let Self { client_head, server_head, state, .. } = self;
        if let Some(foreign) = client_head.take(bytes) {
            state.on_foreign(foreign, *server_head, server, context);
        }
        let mut input = bytes;
        while self.state.phase.is_in_lines() {
            let Self { client_lines, state, link, .. } = self;
            let Some(line) = client_lines.next(&mut input) else { break };
            let (Line::Complete(text) | Line::TooLong(text)) = line;
            state.on_client_line(line, server.is_gateway(context.connection.client), context);
            if state.phase == Phase::LinkOffered {
                note_greeting(link, Side::Client, text, context);
            }
        }
        self.on_link_bytes(Side::Client, input, server, context)
    }

    fn on_server_bytes(&mut self, bytes: &[u8], server: &mut Server, context: &mut Context<'_>) -> Progress {
        let Self { server_head, state, .. } = self;
        if let (ServerHead::Expected, Some(first)) = (*server_head, bytes.first()) {
            *server_head = ServerHead::Text;
            state.on_server_head(*first, context);
        }
        let mut input = bytes;
        while self.state.phase.is_in_lines() {
            let Self { server_lines, state, link, .. } = self;
            let Some(line) = server_lines.next(&mut input) else { break };
            let (Line::Complete(line) | Line::TooLong(line)) = line;
            state.on_server_line(line, server, context);
            if state.phase == Phase::LinkOffered {
                note_greeting(link, Side::Server, line, context);
            } else if state.phase == Phase::Unknown && is_link_line(line) {
                self.begin_link();
            }
            if self.link.as_deref().is_some_and(Link::is_greeted) {
                self.begin_link();
            }
        }
        self.on_link_bytes(Side::Server, input, server, context)
    }

    /// From here on two servers talk.
    fn begin_link(&mut self) {
        self.state.phase = Phase::Linked;
        let (client_lines, server_lines) = self.take_lines();
        match &mut self.link {
            Some(link) => {
                link.take_lines(client_lines, server_lines);
                if self.has_missed {
                    link.note_missed();
                }
            }
            None => self.link = Some(Box::new(Link::midway(Side::Client, client_lines, server_lines))),
        }
    }

    fn on_link_bytes(
        &mut self,
        side: Side,
        bytes: &[u8],
        server: &mut Server,
        context: &mut Context<'_>,
    ) -> Progress {
        match (self.state.phase, &mut self.link) {
            (Phase::Linked, Some(link)) => link.on_bytes(side, bytes, &mut server.links, context),
            (Phase::Encrypted(mut listener), _) => {
                if listener.is_addressed(side, context.at) {
                    context.signal(SignalKind::TlsAddressed, Detail::default());
                    self.state.phase = Phase::Opaque;
                    return Progress::Opaque;
                }
                self.state.phase = Phase::Encrypted(listener);
                Progress::Following
            }
            (Phase::Opaque, _) => Progress::Opaque,
            _ => Progress::Following,
        }
    }
}

/// Takes a line of a handshake between servers, as long as the client's own reader splits them.
fn note_greeting(link: &mut Option<Box<Link>>, side: Side, line: &[u8], context: &mut Context<'_>) {
    let Ok(message) = Message::parse(line) else { return };
    let mut buffer = [0; 16];
    let message = message.in_capitals(&mut buffer);
    let link = link.get_or_insert_with(|| {
        let mut link = Link::new(Side::Client, Lines::new(0), Lines::new(0));
        // Both are reported by the client's reader.
        link.note_attempt();
        Box::new(link)
    });
    // An ERROR to a client that is no server is the client's reader's.
    if message.command != b"ERROR" {
        link.on_greeting(side, &message, context);
    }
}

fn is_link_line(line: &[u8]) -> bool {
    Message::parse(line).is_ok_and(|message| link::is_link_line(&message))
}

impl Dissector for Session {
    type Server = Server;

    fn on_bytes(
        &mut self,
        side: Side,
        bytes: &[u8],
        server: &mut Server,
        context: &mut Context<'_>,
    ) -> Progress {
        let progress = match side {
            Side::Client => self.on_client_bytes(bytes, server, context),
            Side::Server => self.on_server_bytes(bytes, server, context),
        };
        if progress == Progress::Opaque {
            self.client_lines.skip_to_next();
            self.server_lines.skip_to_next();
        }
        progress
    }

    fn on_gap(&mut self, side: Side, _missed: u64, _server: &mut Server, context: &mut Context<'_>) {
        // One before or in the greeting counts too: what was in it will be missed all along.
        self.has_missed = true;
        if let Some(link) = self.link.as_deref_mut() {
            link.on_gap(side);
        }
        if self.state.phase == Phase::Linked {
            return;
        }
        if let Phase::Encrypted(listener) = &mut self.state.phase {
            // What was missed may have been a question.
            *listener = Listener::new(context.at);
            return;
        }
        match side {
            Side::Client => {
                self.client_lines.skip_to_next();
                self.client_head = Head::missed();
            }
            Side::Server => {
                self.server_lines.skip_to_next();
                self.server_head = ServerHead::Text;
                if self.state.phase == Phase::Registering {
                    self.state.phase = Phase::Unknown;
                }
            }
        }
        self.state.opers.clear();
        self.state.identifications.clear();
        self.state.early = Early::default();
        self.state.nicknames_asked = 0;
    }

    fn on_passing_time(&mut self, context: &mut Context<'_>) {
        if !self.has_missed {
            self.state.tell_held(context);
        }
    }

    fn on_close(&mut self, server: &mut Server, context: &mut Context<'_>) {
        let lasted = context.at.since(context.connection.opened);
        let is_unheard = matches!(self.state.phase, Phase::Encrypted(_));
        if is_unheard && !self.state.is_let_go && lasted <= TLS_BRIEF {
            let weight = lasted.as_nanos() / 1_000_000;
            context.signal(SignalKind::TlsBrief, Detail { weight, ..Detail::default() });
        }
        self.state.settle_tls(context);
        // Who is gone takes no place any longer, but who never registered has taken one.
        if self.state.phase != Phase::Registered && !self.has_missed {
            self.state.tell_held(context);
        }
        self.state.end_login(context);
        if let Some(nickname) = &self.state.nickname {
            server.leave(&nickname.raw, context.connection.id);
        }
        if let Some(link) = self.link.as_deref_mut().filter(|_| self.state.phase == Phase::Linked) {
            link.on_close(&mut server.links, context);
        }
    }

    fn is_logged_in(&self) -> bool {
        matches!(self.state.phase, Phase::Registered | Phase::Linked)
    }

    fn held_bytes(&self) -> usize {
        self.client_lines
            .held_bytes()
            .saturating_add(self.server_lines.held_bytes())
            .saturating_add(self.state.held_bytes())
            .saturating_add(self.link.as_deref().map_or(0, Link::held_bytes))
    }
}

impl State {
    fn new(phase: Phase) -> Self {
        Self {
            phase,
            nickname: None,
            foreign: None,
            is_tls_offered: false,
            is_tls: false,
            has_sent_user: false,
            has_sent_password: false,
            has_quit: false,
            quit_message: None,
            is_refused: false,
            ctcp_requests: 0,
            arrivals: VecDeque::new(),
            is_let_go: false,
            has_spoken: false,
            is_dropped: false,
            nicknames_asked: 0,
            operator: if phase == Phase::Unknown { Operator::Unknown } else { Operator::No },
            answer_bytes: 0,
            place: HeldPlace::new(),
            active_at: Timestamp::EPOCH,
            channels: 0,
            sasl: Sasl::default(),
            early: Early::default(),
            opers: Pending::new(NAMES_PENDING_MAX),
            identifications: Pending::new(NAMES_PENDING_MAX),
            link: None,
        }
    }

    /// The client began with another protocol.
    ///
    /// A TLS hello is not believed until the server answers with TLS too: a plain-text server skips such a line
    /// and goes on, and so must its reader. HTTP is what WebSocket begins with, where the server speaks that.
    fn on_foreign(
        &mut self,
        foreign: Foreign,
        server_head: ServerHead,
        server: &Server,
        context: &mut Context<'_>,
    ) {
        if foreign == Foreign::Proxy && server.is_gateway(context.connection.client) {
            return;
        }
        self.foreign = Some(foreign);
        if foreign == Foreign::Tls && server_head == ServerHead::Expected {
            self.is_tls_offered = true;
        } else if foreign != Foreign::Http || !server.speaks_websocket() {
            self.garbage(foreign.as_str(), context);
        }
    }

    /// The server's first byte settles whether a TLS hello was in its place.
    fn on_server_head(&mut self, first: u8, context: &mut Context<'_>) {
        const TLS_ALERT: u8 = 0x15;
        const TLS_HANDSHAKE: u8 = 0x16;
        if !self.is_tls_offered || !matches!(first, TLS_ALERT | TLS_HANDSHAKE) {
            return self.settle_tls(context);
        }
        self.is_tls_offered = false;
        self.is_tls = first == TLS_HANDSHAKE;
        let kind = if self.is_tls { SignalKind::TlsHandshake } else { SignalKind::TlsFailed };
        context.signal(kind, Detail::default());
        self.phase = if self.is_tls { Phase::Encrypted(Listener::new(context.at)) } else { Phase::Opaque };
    }

    /// A place taken for long without registering (ngIRCd closes such a connection without a word), or by somebody who then
    /// says nothing and is in no channel.
    fn tell_held(&mut self, context: &mut Context<'_>) {
        let is_waiting = matches!(self.phase, Phase::Registering | Phase::LinkOffered) && !self.is_refused;
        let is_idle = self.phase == Phase::Registered && self.channels == 0 && !context.connection.midway;
        let (since, patience, reason) = if is_waiting {
            (context.connection.opened, HELD, "unregistered")
        } else if is_idle {
            (self.active_at, IDLE_PATIENCE, "idle")
        } else if matches!(self.phase, Phase::Encrypted(_)) {
            (context.connection.opened, UNHEARD_PATIENCE, "unheard")
        } else {
            return;
        };
        if self.place.is_due(context.at, context.at.since(since), patience) {
            context.signal(SignalKind::ConnectionHeld, Detail { reason: Some(reason), ..self.detail() });
        }
    }

    /// Whoever registered is gone with the connection.
    fn end_login(&self, context: &mut Context<'_>) {
        if self.phase == Phase::Registered {
            let reason = match (self.is_let_go, self.is_dropped) {
                (true, _) => "unwatched",
                (false, true) => "closed-by-server",
                (false, false) => "disconnected",
            };
            context.signal(SignalKind::LoginEnded, Detail { reason: Some(reason), ..self.detail() });
        }
    }

    /// Nobody answered the TLS hello with TLS.
    fn settle_tls(&mut self, context: &mut Context<'_>) {
        if std::mem::take(&mut self.is_tls_offered) {
            self.garbage(Foreign::Tls.as_str(), context);
        }
    }

    fn garbage(&self, reason: &'static str, context: &mut Context<'_>) {
        context.signal(SignalKind::ProtocolGarbage, Detail { reason: Some(reason), ..self.detail() });
    }

    fn login(
        &self,
        kind: SignalKind,
        method: Method,
        account: Option<Text>,
        number: Option<u32>,
        context: &mut Context<'_>,
    ) {
        context.signal(kind, Detail { method: Some(method), account, number, ..self.detail() });
    }

    fn detail(&self) -> Detail {
        Detail { nickname: self.nickname.as_ref().map(|nickname| nickname.text.clone()), ..Detail::default() }
    }

    fn set_nickname(&mut self, nickname: &[u8]) {
        let is_same = |known: &Nickname| *known.raw == *cut(nickname);
        if !nickname.is_empty() && !self.nickname.as_ref().is_some_and(is_same) {
            self.nickname = Some(Nickname { raw: cut(nickname).into(), text: Text::new(nickname) });
        }
    }

    fn is_own_name(&self, name: &[u8]) -> bool {
        self.nickname.as_ref().is_some_and(|nickname| is_same_name(&nickname.raw, cut(name)))
    }

    fn held_bytes(&self) -> usize {
        let nickname = self
            .nickname
            .as_ref()
            .map_or(0, |nickname| nickname.raw.len().saturating_add(nickname.text.len()));
        let names = [&self.sasl.named, &self.link].into_iter().flatten().map(Text::len);
        names
            .fold(nickname, usize::saturating_add)
            .saturating_add(self.opers.held_bytes())
            .saturating_add(self.identifications.held_bytes())
            .saturating_add(self.sasl.asked.held_bytes())
            .saturating_add(self.early.bytes)
            .saturating_add(self.arrivals.len().saturating_mul(size_of::<(u64, Timestamp)>()))
    }
}

fn cut(nickname: &[u8]) -> &[u8] {
    nickname.get(..NICKNAME_BYTES_MAX).unwrap_or(nickname)
}
