//! One TCP connection to a TeamTalk server.
//!
//! Every client line but `ping` and `quit` is answered by exactly one `ok` or `error`, in order, so answers are
//! paired with a queue of what was asked (`Questions`); a `begin id=` re-synchronises it. What had no place in it counts
//! by its error number alone.
//!
//! An encrypted server is read as far as it can be: whether the handshake was completed, and how long it took.

use crate::{
    catalogue::Sort,
    protocol::{
        Context, Dissector, Fact, GIVEN_UP_AFTER, HeldPlace, IDLE_PATIENCE, Progress, Side,
        foreign::{Foreign, Head},
        lines::{Line, Lines},
        tls::{Handshake, Listener, TLS_BRIEF, Tracker},
    },
    signal::{Detail, Method, SignalKind},
    stream::Ending,
    text::Text,
    time::{Span, Timestamp},
};

mod answers;

use super::{
    Server,
    message::{Message, shorten},
    question::{Asked, Place, Question, Questions, login_method, reason},
    vocabulary,
};

/// The server takes lines of up to 1 MiB (`teamtalk.md` a.1). Of a client's that are longer than this, long values are cut; what
/// is still longer is skipped.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// No hello is longer; whoever sends more before the server's is no TLS client.
const OFFERED_BYTES_MAX: usize = 18 * 1024;
/// A server without a free place closes at once; whoever closes later is somebody else.
const FULL_WITHIN: Span = Span::from_secs(2);
/// Clients log in as soon as their UDP is answered, and give up after 10 s (`teamtalk.md` a.8); servers may drop who is
/// silent after 15 s.
const LOGIN_PATIENCE: Span = Span::from_secs(14);
/// Whoever has mistyped a password looks for the right one.
const PASSWORD_PATIENCE: Span = Span::from_secs(60);
/// Who is logged in hears of everybody who comes, goes or joins a channel.
const UNHEARD_PATIENCE: Span = Span::from_secs(60);

/// Follows one connection. No `Debug`: half a line with a password may be in it.
pub struct Session {
    client_lines: Lines,
    server_lines: Lines,
    conversation: Conversation,
}

/// `ExpectWelcome` → `ExpectLogin` ⇄ `LoggedIn`; `ExpectLogin` → `Transferring`; `ExpectWelcome` → `Unreadable`, over TLS
/// through `Encrypted`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// From the start.
    ExpectWelcome,
    /// From the welcome line, or after logging out or being kicked.
    ExpectLogin,
    /// From `accepted`, or from the first line only a logged-in user gets.
    LoggedIn,
    /// From the server's go-ahead for a file: raw bytes follow.
    Transferring,
    /// From a TLS handshake that was completed, while the server only answers.
    Encrypted(Listener),
    /// From a handshake that failed, TLS in which the server has spoken unasked, or bytes met midway that are no commands: a file transfer.
    Unreadable,
}

struct Conversation {
    state: State,
    user_id: Option<u16>,
    /// Whether the address was counted without a user id.
    is_met: bool,
    asked: Questions,
    head: Head,
    tls: Tracker,
    /// What the client has sent since it began what may be a TLS handshake, until the server shows what it is.
    offered: Vec<u8>,
    heard_server: bool,
    /// Somebody logged in on it, ever.
    had_login: bool,
    /// Somebody tried to, or may have: not everything was seen.
    had_attempt: bool,
    /// Not everything was seen: what was not said may have been missed.
    has_missed: bool,
    /// The connection goes on, but nobody looks any more.
    is_let_go: bool,
    /// That somebody speaks another protocol is told once.
    told_garbage: bool,
    /// The client asked the server to close.
    has_quit: bool,
    /// The server ended the connection, unasked.
    is_dropped: bool,
    place: HeldPlace,
    /// How it last logged in.
    method: Option<Method>,
    /// The account it was logged in with last.
    account: Option<Text>,
    /// When it last logged in, said something, changed something or was in a channel.
    active_at: Timestamp,
    kicked: Option<Kicked>,
    /// Kicked from a channel, and in none since.
    was_thrown_out: bool,
    /// The channel it is in.
    channel: Option<Place>,
    told_mismatch: bool,
    /// Between `begin` and `end`: an answer, which lists what was before.
    is_listing: bool,
}

/// A `kicked` line that the event it announces has not followed yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kicked {
    FromChannel,
    FromServer,
    /// The server did it: the account logged in elsewhere and may do so only once.
    ByServer,
}

impl Session {
    /// A connection about to be followed.
    #[expect(clippy::new_without_default, reason = "a connection is begun, not defaulted")]
    pub const fn new() -> Self {
        Self {
            client_lines: Lines::shortened(LINE_BYTES_MAX, shorten),
            server_lines: Lines::new(LINE_BYTES_MAX),
            conversation: Conversation {
                state: State::ExpectWelcome,
                user_id: None,
                is_met: false,
                asked: Questions::new(),
                head: Head::new(),
                tls: Tracker::new(),
                offered: Vec::new(),
                heard_server: false,
                had_login: false,
                had_attempt: false,
                has_missed: false,
                is_let_go: false,
                told_garbage: false,
                has_quit: false,
                is_dropped: false,
                place: HeldPlace::new(),
                method: None,
                account: None,
                active_at: Timestamp::EPOCH,
                kicked: None,
                was_thrown_out: false,
                channel: None,
                told_mismatch: false,
                is_listing: false,
            },
        }
    }

    /// How the connection ended; said before it is closed.
    pub const fn note_ending(&mut self, ending: Ending) {
        self.conversation.is_let_go = !ending.is_of_the_connection();
        self.conversation.is_dropped = ending.is_by_server() && !self.conversation.has_quit;
    }

    /// Whether the server welcomed somebody who then tried nothing, or who did not wait for it.
    pub fn is_unused(&self, lasted: Span) -> bool {
        let conversation = &self.conversation;
        let waited = match conversation.state {
            State::ExpectLogin => true,
            State::ExpectWelcome => {
                conversation.tls.is_untouched() && !conversation.is_dropped && lasted <= GIVEN_UP_AFTER
            }
            State::LoggedIn | State::Transferring | State::Encrypted(_) | State::Unreadable => false,
        };
        waited && !conversation.had_login && !conversation.had_attempt
    }

    /// The user id that the welcome line gave it.
    pub const fn user_id(&self) -> Option<u16> {
        self.conversation.user_id
    }
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
        let Self { client_lines, server_lines, conversation } = self;
        conversation.begin(server, context);
        if conversation.follow_tls(side, bytes, context) {
            return conversation.progress();
        }
        // What began like TLS and was none has been said before this.
        let offered = std::mem::take(&mut conversation.offered);
        let mut input = offered.as_slice();
        while let Some(line) = client_lines.next(&mut input) {
            conversation.on_client_line(line, context);
        }
        server.settle_unseen(context.at, &mut context.output.signals);
        let mut input = bytes;
        match side {
            Side::Client => {
                conversation.meet_head(bytes, context);
                if let Some(user_id) = conversation.user_id {
                    server.hear(user_id, context.at);
                    server.settle_stalls(context.connection.service, context.at, &mut context.output.signals);
                }
                while let Some(line) = client_lines.next(&mut input) {
                    conversation.on_client_line(line, context);
                }
            }
            Side::Server => {
                conversation.heard_server = true;
                while let Some(line) = server_lines.next(&mut input) {
                    if let Line::Complete(line) = line {
                        conversation.on_server_line(line, server, context);
                    }
                }
            }
        }
        conversation.tell_held(context);
        conversation.progress()
    }

    fn on_gap(&mut self, side: Side, missed: u64, server: &mut Server, context: &mut Context<'_>) {
        server.note_gap(context.at);
        if let State::Encrypted(listener) = &mut self.conversation.state {
            // What was missed may have been a question.
            *listener = Listener::new(context.at);
        }
        self.conversation.is_listing = false;
        self.conversation.had_attempt = true;
        self.conversation.has_missed = true;
        match side {
            Side::Client => {
                self.client_lines.skip_to_next();
                self.conversation.offered = Vec::new();
            }
            Side::Server => self.server_lines.skip_to_next(),
        }
        // Which answers belong to which questions is no longer certain; error numbers still speak.
        self.conversation.asked.clear();
        self.conversation.head = Head::missed();
        if self.conversation.tls.handshake() == Handshake::Undecided {
            self.conversation.tls = Tracker::ruled_out();
        }
        context.signal(SignalKind::StreamGap, Detail { weight: missed, ..Detail::default() });
    }

    fn on_passing_time(&mut self, context: &mut Context<'_>) {
        self.conversation.tell_held(context);
    }

    fn on_close(&mut self, server: &mut Server, context: &mut Context<'_>) {
        let conversation = &mut self.conversation;
        if conversation.state == State::LoggedIn {
            conversation.leave_with_connection(server, context);
        }
        // Who is gone takes no place any longer, but who never logged in has taken one.
        if !conversation.had_login {
            conversation.tell_held(context);
        }
        let lasted = context.at.since(context.connection.opened);
        let is_brief = matches!(conversation.state, State::Encrypted(_)) && lasted <= TLS_BRIEF;
        if is_brief && !conversation.is_let_go {
            conversation.tell_tls(SignalKind::TlsBrief, None, context);
        }
        if conversation.tls.is_under_way() {
            conversation.tell_tls(SignalKind::TlsFailed, Some("closed"), context);
        }
        if let Some(user_id) = conversation.user_id.take()
            && server.free(user_id, context.connection.id)
        {
            context.fact(Fact::UserFreed { user_id });
        }
        if std::mem::take(&mut conversation.is_met) {
            server.part(context.connection.client, context.connection.midway);
        }
        // A server that has run out of handles accepts and closes without a word (`teamtalk.md` a.1).
        let is_tls = !matches!(conversation.tls.handshake(), Handshake::Undecided | Handshake::NotTls);
        let at_once = context.at.since(context.connection.opened) <= FULL_WITHIN;
        if conversation.is_dropped
            && !conversation.heard_server
            && !is_tls
            && at_once
            && !context.connection.midway
        {
            let detail = Detail { reason: Some("full"), ..Detail::default() };
            context.signal(SignalKind::ConnectionRefused, detail);
        }
    }

    fn is_logged_in(&self) -> bool {
        self.conversation.state == State::LoggedIn
    }

    fn held_bytes(&self) -> usize {
        self.client_lines
            .held_bytes()
            .saturating_add(self.server_lines.held_bytes())
            .saturating_add(self.conversation.offered.capacity())
            .saturating_add(self.conversation.asked.held_bytes())
    }
}

/// Before there are lines.
impl Conversation {
    const fn progress(&self) -> Progress {
        match self.state {
            State::Transferring | State::Unreadable => Progress::Opaque,
            State::Encrypted(_) | State::ExpectWelcome | State::ExpectLogin | State::LoggedIn => {
                Progress::Following
            }
        }
    }

    /// Whoever is connected holds a session, though the user id may not be seen: it was given before anybody looked, in bytes that
    /// were missed, or over TLS.
    fn begin(&mut self, server: &mut Server, context: &Context<'_>) {
        if self.user_id.is_some() || std::mem::replace(&mut self.is_met, true) {
            return;
        }
        server.meet(context.connection.client, context.connection.midway);
        if context.connection.midway {
            self.head = Head::missed();
            self.tls = Tracker::ruled_out();
        }
    }

    /// A TLS server never speaks first; its clients begin with a ClientHello. Whether the bytes are TLS's.
    fn follow_tls(&mut self, side: Side, bytes: &[u8], context: &mut Context<'_>) -> bool {
        let before = self.tls.handshake();
        if before == Handshake::NotTls {
            return false;
        }
        if let State::Encrypted(listener) = &mut self.state {
            if listener.is_addressed(side, context.at) {
                self.state = State::Unreadable;
                self.tell_tls(SignalKind::TlsAddressed, None, context);
            }
            return true;
        }
        match self.tls.take(side, bytes) {
            Handshake::Undecided => false,
            // It was a client's hello, to a server that talks plain text.
            Handshake::NotTls if before == Handshake::Offered => {
                self.tell_garbage(Foreign::Tls.as_str(), context);
                false
            }
            Handshake::NotTls => false,
            Handshake::Offered if side == Side::Client => self.keep_offered(bytes, context),
            Handshake::Offered => true,
            Handshake::Answered | Handshake::Concluded => {
                self.offered = Vec::new();
                true
            }
            Handshake::Completed => {
                self.state = State::Encrypted(Listener::new(context.at));
                self.tell_tls(SignalKind::TlsHandshake, None, context);
                true
            }
            Handshake::Failed => {
                self.state = State::Unreadable;
                self.tell_tls(SignalKind::TlsFailed, Some("alert"), context);
                true
            }
        }
    }

    /// Until the server answers, what the client sends may be lines behind something that looks like a hello. Whether it is
    /// still taken for one.
    fn keep_offered(&mut self, bytes: &[u8], context: &mut Context<'_>) -> bool {
        if self.offered.len().saturating_add(bytes.len()) <= OFFERED_BYTES_MAX {
            self.offered.extend_from_slice(bytes);
            return true;
        }
        self.tls = Tracker::ruled_out();
        self.tell_garbage(Foreign::Tls.as_str(), context);
        false
    }

    /// With the milliseconds since the connection was opened.
    fn tell_tls(&self, kind: SignalKind, reason: Option<&'static str>, context: &mut Context<'_>) {
        let weight = context.at.since(context.connection.opened).as_nanos() / 1_000_000;
        context.signal(kind, Detail { reason, weight, ..Detail::default() });
    }

    /// First words of other protocols: scanners.
    fn meet_head(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        if let Some(foreign) = self.head.take(bytes) {
            self.tell_garbage(foreign.as_str(), context);
        }
    }

    fn tell_garbage(&mut self, reason: &'static str, context: &mut Context<'_>) {
        self.head = Head::missed();
        self.told_garbage = true;
        let detail = Detail { reason: Some(reason), ..Detail::default() };
        context.signal(SignalKind::ProtocolGarbage, detail);
    }

    /// A place taken without logging in, or by somebody who then does nothing and is nowhere. Whom a server keeps waiting that
    /// hangs takes none.
    fn tell_held(&mut self, context: &mut Context<'_>) {
        if context.connection.midway || self.has_missed {
            return;
        }
        let span = context.at.since(context.connection.opened);
        let (held, patience, reason) = match self.state {
            // A server that speaks TLS waits for the client's hello, and for all of it.
            State::ExpectWelcome if self.tls.is_under_way() || self.tls.is_unfinished() => {
                (span, LOGIN_PATIENCE, Some("handshake"))
            }
            State::ExpectWelcome if !self.had_login => (span, LOGIN_PATIENCE, Some("unwelcomed")),
            State::Encrypted(_) => (span, UNHEARD_PATIENCE, Some("unheard")),
            State::ExpectLogin if !self.had_login => {
                (span, if self.had_attempt { PASSWORD_PATIENCE } else { LOGIN_PATIENCE }, None)
            }
            State::LoggedIn if self.channel.is_none() => {
                (context.at.since(self.active_at), IDLE_PATIENCE, Some("idle"))
            }
            State::ExpectWelcome
            | State::ExpectLogin
            | State::LoggedIn
            | State::Transferring
            | State::Unreadable => return,
        };
        if self.place.is_due(context.at, held, patience) {
            let weight = span.as_nanos() / 1_000_000;
            let (method, account) = (self.method, self.account.clone());
            let detail = Detail { method, account, reason, weight, ..Detail::default() };
            context.signal(SignalKind::ConnectionHeld, detail);
        }
    }
}

/// What the client says.
impl Conversation {
    fn on_client_line(&mut self, line: Line<'_>, context: &mut Context<'_>) {
        let (Line::Complete(line) | Line::TooLong(line)) = line;
        let Some(message) = Message::parse(line) else {
            return self.ask(Question { id: None, asked: Asked::Other("unknown") }, context);
        };
        let is_met_midway = self.state == State::ExpectWelcome && context.connection.midway;
        if is_met_midway && !message.keyword.iter().all(u8::is_ascii_lowercase) {
            self.state = State::Unreadable;
            return;
        }
        // `pong` or nothing, unless the server cannot read the line: that is an error like any other.
        if matches!(message.keyword, b"ping" | b"quit") && message.is_well_formed() {
            if message.keyword == b"quit" {
                self.has_quit = true;
            } else {
                let detail = Detail { command: Some("ping"), ..Detail::default() };
                context.signal(SignalKind::CommandSent, detail);
            }
            return;
        }
        // The server knows no keyword with another letter (`vocabulary.rs`): these are the words of another protocol.
        let is_foreign = !message.keyword.iter().all(u8::is_ascii_lowercase);
        if is_foreign && !std::mem::replace(&mut self.told_garbage, true) {
            self.tell_garbage("foreign-words", context);
        }
        self.active_at = context.at;
        let question = Question::read(&message, context);
        self.ask(question, context);
    }

    fn ask(&mut self, question: Question, context: &mut Context<'_>) {
        if matches!(self.state, State::Encrypted(_) | State::Unreadable) {
            return;
        }
        if let Asked::Login { account, has_password, .. } = &question.asked {
            self.had_attempt = true;
            let method = Some(login_method(account, *has_password));
            let detail = Detail { method, account: Some(account.clone()), ..Detail::default() };
            context.signal(SignalKind::LoginAttempted, detail);
        } else {
            let detail = Detail { command: Some(question.asked.keyword()), ..Detail::default() };
            context.signal(SignalKind::CommandSent, detail);
        }
        self.asked.push(question);
    }
}

/// Words and parameters of the server, and error numbers, that no documentation has.
fn meet_undocumented(message: &Message<'_>, context: &mut Context<'_>) {
    if !vocabulary::is_event(message.keyword) {
        context.meet(Sort::Event, message.keyword, b"");
    }
    for (name, _) in message.parameters() {
        if !vocabulary::is_parameter(name) {
            context.meet(Sort::Parameter, name, message.keyword);
        }
    }
    if message.keyword == b"error"
        && let Some(number) = message.number("number").and_then(|number| u32::try_from(number).ok())
        && reason(number).is_none()
    {
        context.meet(Sort::Number, number.to_string().as_bytes(), message.keyword);
    }
}
