//! One TCP connection to a TeamTalk server.
//!
//! Every client line but `ping` and `quit` is answered by exactly one `ok` or `error`, in order, so answers are
//! paired with a queue of what was asked (`Questions`); a `begin id=` re-synchronises it. What had no place in it counts
//! by its error number alone.
//!
//! An encrypted server is read as far as it can be: whether the handshake was completed, and how long it took.

use floodwall_wire::Address;

use crate::{
    catalogue::Sort,
    identity::ADMINISTRATOR,
    protocol::{
        Context, Dissector, Fact, GREETED_WITHIN, GREETING, HeldPlace, IDLE_PATIENCE, Progress, Side,
        foreign::{Foreign, Head},
        lines::{Line, Lines},
        tls::{Handshake, Listener, TLS_BRIEF, Tracker},
    },
    signal::{Detail, Method, Signal, SignalKind},
    stream::Ending,
    text::Text,
    time::{Span, Timestamp},
};

use super::{
    Server,
    datagram::{Binding, parse_udp_address},
    message::{Message, Value, shorten},
    question::{Asked, Place, Question, Questions, login_method, major, reason},
    stall::Login,
    vocabulary,
};

/// The server takes lines of up to 1 MiB (`teamtalk.md` a.1). Of a client's that are longer than this, long values are cut; what
/// is still longer is skipped.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// No hello is longer; whoever sends more before the server's is no TLS client.
const OFFERED_BYTES_MAX: usize = 18 * 1024;
/// A server without a free place closes at once; whoever closes later is somebody else.
const FULL_WITHIN: Span = Span::from_secs(2);
/// `usertype` of accounts that may do everything (`teamtalk.md` a.6; 1 is everybody else's).
const USERTYPE_ADMINISTRATOR: i64 = 2;
/// Seconds of a user time-out below which clients that keep themselves alive by the rules are dropped: theirs come every
/// 10 s, and the next one a second later only if that was lost (`teamtalk.md` a.8).
const USER_TIMEOUT_SHORT: u32 = 15;
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
    /// The connection goes on, but nobody looks any more.
    is_let_go: bool,
    /// The client asked the server to close.
    has_quit: bool,
    /// The server ended the connection, unasked.
    is_dropped: bool,
    place: HeldPlace,
    /// How it last logged in.
    method: Option<Method>,
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
                is_let_go: false,
                has_quit: false,
                is_dropped: false,
                place: HeldPlace::new(),
                method: None,
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

    /// Whether the server welcomed somebody who then tried nothing.
    pub const fn is_unused(&self) -> bool {
        let conversation = &self.conversation;
        matches!(conversation.state, State::ExpectLogin)
            && !conversation.had_login
            && !conversation.had_attempt
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
            server.part(context.connection.client);
        }
        // A server that has run out of handles accepts and closes without a word (`teamtalk.md` a.1).
        let is_tls = !matches!(conversation.tls.handshake(), Handshake::Undecided | Handshake::NotTls);
        let at_once = context.at.since(context.connection.opened) <= FULL_WITHIN;
        if !conversation.heard_server && !is_tls && at_once && !context.connection.midway {
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

    /// Whoever was connected before anybody looked holds a session all the same.
    fn begin(&mut self, server: &mut Server, context: &Context<'_>) {
        if context.connection.midway && self.user_id.is_none() && !self.is_met {
            self.is_met = true;
            self.head = Head::missed();
            self.tls = Tracker::ruled_out();
            server.meet(context.connection.client);
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
                self.tell_garbage(Foreign::Tls, context);
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
        self.tell_garbage(Foreign::Tls, context);
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
            self.tell_garbage(foreign, context);
        }
    }

    fn tell_garbage(&mut self, foreign: Foreign, context: &mut Context<'_>) {
        self.head = Head::missed();
        let detail = Detail { reason: Some(foreign.as_str()), ..Detail::default() };
        context.signal(SignalKind::ProtocolGarbage, detail);
    }

    /// A place taken without logging in, or by somebody who then does nothing and is nowhere. Whom a server keeps waiting that
    /// hangs takes none.
    fn tell_held(&mut self, context: &mut Context<'_>) {
        if context.connection.midway {
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
            let method = self.method;
            context
                .signal(SignalKind::ConnectionHeld, Detail { method, reason, weight, ..Detail::default() });
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
            self.has_quit |= message.keyword == b"quit";
            return;
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

/// What the server says.
impl Conversation {
    fn on_server_line(&mut self, line: &[u8], server: &mut Server, context: &mut Context<'_>) {
        let Some(message) = Message::parse(line) else {
            return;
        };
        if context.catalogues() {
            meet_undocumented(&message, context);
        }
        match message.keyword {
            b"teamtalk" | b"welcome" => self.on_welcome(&message, server, context),
            b"begin" => {
                self.is_listing = true;
                if let Some(id) = message.number("id") {
                    self.asked.synchronise(id);
                }
            }
            b"end" => self.is_listing = false,
            b"ok" => self.on_ok(server, context),
            b"error" => self.on_error(&message, server, context),
            b"accepted" => self.on_accepted(&message, server, context),
            b"loggedout" => self.on_logged_out(&message, server, context),
            b"kicked" => self.kicked = Some(Kicked::read(&message)),
            b"joined" | b"left" => self.on_moved(&message, server, context),
            b"addchannel" | b"updatechannel" => remember_channel(&message, server),
            b"removechannel" => {
                if let Some(id) = Place::of(&message).and_then(|place| place.number()) {
                    server.forget_channel(id);
                }
            }
            b"loggedin" | b"adduser" | b"updateuser" => self.on_user(&message, server, context),
            b"removeuser" => on_user_left(&message, server),
            b"filedeliver" | b"fileready" => self.on_transfer(context),
            b"messagedeliver" | b"serverupdate" => self.catch_up(server),
            // Events that change nothing here: pong, userbanned, useraccount, adduseraccount,
            // removeuseraccount, addfile, removefile, fileaccepted, filecompleted, stats.
            _ => {}
        }
    }

    fn on_welcome(&mut self, message: &Message<'_>, server: &mut Server, context: &mut Context<'_>) {
        if self.state != State::ExpectWelcome {
            return;
        }
        self.state = State::ExpectLogin;
        if let Some(major) = message.text("protocol").and_then(|version| major(&version)) {
            server.state_protocol(major);
        }
        if let Some(user_id) = message.user_id("userid") {
            self.bind(user_id, Binding::Free, server, context);
        }
    }

    fn bind(&mut self, user_id: u16, binding: Binding, server: &mut Server, context: &mut Context<'_>) {
        self.user_id = Some(user_id);
        let connection = context.connection;
        server.bind(user_id, connection.id, connection.client, binding, context.at);
        if std::mem::take(&mut self.is_met) {
            server.part(connection.client);
        }
        context.fact(Fact::UserBound { user_id });
    }

    fn on_accepted(&mut self, message: &Message<'_>, server: &mut Server, context: &mut Context<'_>) {
        let account = Text::new(&message.text("username").unwrap_or_default());
        let nickname = Text::new(&message.text("nickname").unwrap_or_default());
        let method = login_method(&account, message.has_text("password"));
        self.state = State::LoggedIn;
        self.had_login = true;
        self.active_at = context.at;
        self.method = Some(method);
        self.kicked = None;
        self.told_mismatch = false;
        if let (None, Some(user_id)) = (self.user_id, message.user_id("userid")) {
            self.bind(user_id, Binding::Unknown, server, context);
        }
        if let Some(user) = self.user_id.and_then(|user_id| server.user_mut(user_id)) {
            user.nickname = Some(nickname.clone());
            user.account = Some(account.clone());
            user.is_logged_in = true;
            user.came_at = Some(context.at);
            user.packet_protocol = None;
        }
        let connection = context.connection;
        let (at, flow, address) = (context.at, connection.id, connection.client);
        server.watch_login(Login { at, flow, address, nickname: nickname.clone(), account: account.clone() });
        let detail = Detail {
            method: Some(method),
            account: Some(account),
            nickname: Some(nickname),
            number: self.user_id.map(u32::from),
            reason: (message.number("usertype") == Some(USERTYPE_ADMINISTRATOR)).then_some(ADMINISTRATOR),
            ..Detail::default()
        };
        context.signal(SignalKind::LoginSucceeded, detail);
        if let Some(Asked::Login { protocol: Some(protocol), .. }) = self.asked.front() {
            let protocol = *protocol;
            if !server.speaks(protocol) {
                self.tell_mismatch("protocol", protocol, server, context);
            }
        }
    }

    /// Lines that only a logged-in user gets, on a connection whose login was missed.
    fn catch_up(&mut self, server: &mut Server) {
        if self.state == State::ExpectWelcome {
            self.state = State::LoggedIn;
            self.had_login = true;
            if let Some(user) = self.user_id.and_then(|user_id| server.user_mut(user_id)) {
                user.is_logged_in = true;
            }
        }
    }

    /// Without a user id it is this one's own.
    fn on_logged_out(&mut self, message: &Message<'_>, server: &mut Server, context: &mut Context<'_>) {
        if message.number("userid").is_some() || self.state != State::LoggedIn {
            return;
        }
        let reason = match self.kicked.take() {
            Some(Kicked::ByServer) => "kicked-by-server",
            Some(Kicked::FromServer | Kicked::FromChannel) => "kicked",
            None => "logout",
        };
        self.end_login(reason, server, context);
        self.state = State::ExpectLogin;
    }

    /// The server logs out whoever disconnects, and says so to the others.
    fn leave_with_connection(&mut self, server: &mut Server, context: &mut Context<'_>) {
        let reason = match (self.is_let_go, self.is_dropped) {
            (true, _) => "unwatched",
            (false, true) => "closed-by-server",
            (false, false) => "disconnected",
        };
        self.end_login(reason, server, context);
    }

    fn end_login(&mut self, reason: &'static str, server: &mut Server, context: &mut Context<'_>) {
        let own = self.own_detail(server);
        if let Some(place) = self.channel.take() {
            let channel = Some(place.name(server));
            context.signal(SignalKind::ChannelLeft, Detail { channel, reason: Some(reason), ..own.clone() });
        }
        self.was_thrown_out = false;
        context.signal(SignalKind::LoginEnded, Detail { reason: Some(reason), ..own });
        if let Some(user) = self.user_id.and_then(|user_id| server.user_mut(user_id)) {
            user.is_logged_in = false;
            user.channel = None;
        }
    }

    fn on_moved(&mut self, message: &Message<'_>, server: &mut Server, context: &mut Context<'_>) {
        let Some(place) = Place::of(message) else {
            return;
        };
        self.state = State::LoggedIn;
        self.had_login = true;
        let joined = message.keyword == b"joined";
        // Who asked for nothing of the kind was moved by somebody else.
        let is_own = self.kicked.is_some() || self.asked.front().is_some_and(Asked::changes_channel);
        // Many clients come back at once by themselves: the kicker's doing, not theirs.
        let was_thrown_out = joined && std::mem::take(&mut self.was_thrown_out);
        let reason = match (is_own, was_thrown_out) {
            (false, _) => Some("moved"),
            (true, true) => Some("after-kick"),
            (true, false) => None,
        };
        let detail = Detail { channel: Some(place.name(server)), reason, ..self.own_detail(server) };
        if let Some(user) = self.user_id.and_then(|user_id| server.user_mut(user_id)) {
            user.channel = if joined { place.number() } else { None };
            user.came_at = if joined { Some(context.at) } else { user.came_at };
        }
        if joined {
            self.channel = Some(place);
            context.signal(SignalKind::ChannelJoined, detail);
        } else {
            self.channel = None;
            self.active_at = context.at;
            let was_kicked = self.kicked == Some(Kicked::FromChannel);
            if was_kicked {
                self.kicked = None;
                self.was_thrown_out = true;
            }
            let reason = if was_kicked { Some("kicked") } else { reason };
            context.signal(SignalKind::ChannelLeft, Detail { reason, ..detail });
        }
    }

    /// Somebody's names and versions, this one's own among them.
    fn on_user(&mut self, message: &Message<'_>, server: &mut Server, context: &mut Context<'_>) {
        self.catch_up(server);
        let [user_id, nickname, packet_protocol, version] =
            message.first_values([b"userid", b"nickname", b"packetprotocol", b"version"]);
        let Some(user_id) = user_id.and_then(Value::user_id) else {
            return;
        };
        let Some(user) = server.user_mut(user_id) else {
            if message.keyword == b"loggedin" && !self.is_listing {
                server.miss(user_id, unseen(message, context));
            }
            return;
        };
        if let Some(nickname) = nickname.and_then(Value::text) {
            user.rename(&nickname);
        }
        let packet_protocol = packet_protocol.and_then(Value::number);
        if packet_protocol.is_some() {
            user.packet_protocol = packet_protocol;
        }
        if server.is_version_4() {
            follow_udp_address(user_id, message, server, context);
        }
        if self.user_id != Some(user_id) {
            return;
        }
        let Some(spoken) = packet_protocol.filter(|spoken| *spoken > 0) else {
            return;
        };
        let version = version.and_then(Value::text).and_then(|version| major(&version));
        match version {
            Some(version) if !server.speaks(version) => {
                self.tell_mismatch("version", version, server, context);
            }
            _ if !server.suits_channel(user_id, spoken) => {
                let number = u32::try_from(spoken).unwrap_or(u32::MAX);
                self.tell_mismatch("packet-protocol", number, server, context);
            }
            _ => {}
        }
    }

    /// Once per login.
    fn tell_mismatch(
        &mut self,
        reason: &'static str,
        number: u32,
        server: &Server,
        context: &mut Context<'_>,
    ) {
        if !std::mem::replace(&mut self.told_mismatch, true) {
            let own = self.own_detail(server);
            let detail = Detail { reason: Some(reason), number: Some(number), ..own };
            context.signal(SignalKind::VersionMismatch, detail);
        }
    }

    fn on_transfer(&mut self, context: &mut Context<'_>) {
        if self.state != State::ExpectLogin {
            return;
        }
        let Some(asked) = self.asked.find(|asked| matches!(asked, Asked::Transfer(_))) else {
            return;
        };
        let command = Some(asked.keyword());
        self.state = State::Transferring;
        self.asked.clear();
        context.signal(SignalKind::FileTransferred, Detail { command, ..Detail::default() });
    }

    /// The question that is answered now. Once a flood is answered it leaves no room behind.
    fn on_ok(&mut self, server: &Server, context: &mut Context<'_>) {
        let Some(Question { asked, .. }) = self.asked.pop() else {
            return;
        };
        let own = self.own_detail(server);
        let name = |user_id: Option<u16>| user_id.map(|id| server.name_of(id));
        let place = |channel: Option<Place>| channel.map(|place| place.name(server));
        let (kind, detail) = match asked {
            Asked::Message { kind, channel, target, content, weight } => {
                let came_at = target.and_then(|id| server.user(id)).and_then(|user| user.came_at);
                let reason = came_at.filter(|at| context.at.since(*at) <= GREETED_WITHIN).map(|_| GREETING);
                let (channel, target) = (place(channel), name(target));
                (kind, Detail { channel, target, reason, content: Some(content), weight, ..own })
            }
            Asked::Nick(nickname) => (SignalKind::NickChanged, Detail { nickname: Some(nickname), ..own }),
            Asked::Status => (SignalKind::StatusChanged, own),
            Asked::Join { creates: Some(name), .. } => {
                (SignalKind::ChannelCreated, Detail { channel: Some(name), ..own })
            }
            Asked::Kick { user_id, channel } => {
                let (target, channel) = (name(user_id), place(channel));
                (SignalKind::UserKicked, Detail { target, channel, ..own })
            }
            Asked::Ban { user_id, target, scope } => {
                let target = if target.is_empty() { name(user_id) } else { Some(target) };
                (SignalKind::UserBanned, Detail { target, reason: Some(scope), ..own })
            }
            Asked::Move { user_id, channel } => {
                let (target, channel) = (name(user_id), place(channel));
                (SignalKind::UserMoved, Detail { target, channel, ..own })
            }
            Asked::Channel { kind, name, channel } => {
                (kind, Detail { channel: name.or_else(|| place(channel)), ..own })
            }
            Asked::Account(command, account) => {
                let detail = Detail { command: Some(command), target: Some(account), ..own };
                (SignalKind::AccountChanged, detail)
            }
            Asked::ServerSettings { command, user_timeout, places } => {
                let is_short = user_timeout.is_some_and(|seconds| seconds < USER_TIMEOUT_SHORT);
                // Who is there stays, and nobody comes back.
                let is_narrow = places.is_some_and(|places| (places as usize) < server.logged_in().max(2));
                let reason = if is_short { Some("short-timeout") } else { is_narrow.then_some("few-places") };
                let number = user_timeout;
                (SignalKind::ServerChanged, Detail { command: Some(command), number, reason, ..own })
            }
            Asked::Undocumented(name) => {
                return context.meet(Sort::Command, name.as_str().as_bytes(), b"");
            }
            // Their success is told by an event of its own, or is no event at all.
            Asked::Login { .. }
            | Asked::Logout
            | Asked::Join { creates: None, .. }
            | Asked::TypedMessage
            | Asked::Transfer(_)
            | Asked::Other(_) => return,
        };
        context.signal(kind, detail);
    }

    /// `teamtalk.md` a.7. The number says what failed even where the question is not known.
    fn on_error(&mut self, message: &Message<'_>, server: &Server, context: &mut Context<'_>) {
        let question = self.asked.pop();
        self.had_attempt |= question.is_none();
        let number = message.number("number").and_then(|number| u32::try_from(number).ok());
        let asked = question.as_ref().map(|question| &question.asked);
        // A failed login needs no reason but its name.
        let reason = number.filter(|number| *number != 2002).and_then(reason);
        let own = Detail { number, reason, ..self.own_detail(server) };
        let login = if let Some(Asked::Login { account, has_password, .. }) = asked {
            let method = Some(login_method(account, *has_password));
            Some(Detail { method, account: Some(account.clone()), ..own.clone() })
        } else {
            None
        };
        match (number, login) {
            (Some(2002), login) => {
                let detail = login.unwrap_or(Detail { method: Some(Method::Account), ..own });
                context.signal(SignalKind::LoginFailed, detail);
            }
            (Some(2003 | 2005 | 2012 | 3016), login) => {
                context.signal(SignalKind::LoginRefused, login.unwrap_or(own));
            }
            (_, Some(login)) => context.signal(SignalKind::LoginRefused, login),
            (Some(2001 | 2004 | 2015), None) => {
                let channel = if let Some(Asked::Join { channel: Some(place), .. }) = asked {
                    Some(place.name(server))
                } else {
                    None
                };
                let method = (number == Some(2001)).then_some(Method::ChannelKey);
                context.signal(SignalKind::ChannelRefused, Detail { method, channel, ..own });
            }
            (_, None) => {
                let command = asked.map(Asked::keyword);
                let method = (number == Some(2010)).then_some(Method::ChannelOperator);
                context.signal(SignalKind::CommandRejected, Detail { method, command, ..own });
            }
        }
    }

    /// Who the client of this connection is.
    fn own_detail(&self, server: &Server) -> Detail {
        let user = self.user_id.and_then(|user_id| server.user(user_id));
        Detail {
            nickname: user.and_then(|user| user.nickname.clone()),
            account: user.and_then(|user| user.account.clone()),
            ..Detail::default()
        }
    }
}

impl Kicked {
    fn read(message: &Message<'_>) -> Self {
        if Place::of(message).is_some() {
            Self::FromChannel
        } else if message.number("kickerid") == Some(0) {
            Self::ByServer
        } else {
            Self::FromServer
        }
    }
}

/// TeamTalk 4 takes a new UDP address from anybody (`teamtalk.md` c.5), and tells everybody which.
fn follow_udp_address(user_id: u16, message: &Message<'_>, server: &mut Server, context: &mut Context<'_>) {
    let stated = message.text("udpaddr").and_then(|text| parse_udp_address(&text));
    let Some((address, port)) = stated else {
        return;
    };
    if !server.take_udp_address(user_id, address, port) {
        return;
    }
    let detail = Detail {
        number: Some(u32::from(user_id)),
        target: Some(server.name_of(user_id)),
        ..Detail::default()
    };
    context.output.signals.push(Signal {
        kind: SignalKind::DatagramPrebound,
        at: context.at,
        service: context.connection.service,
        address,
        flow: None,
        detail,
    });
}

fn remember_channel(message: &Message<'_>, server: &mut Server) {
    let [path, id] = match message.keyword {
        b"addchannel" => message.first_values([b"channel", b"chanid"]),
        _ => [None; 2],
    };
    let path = path.or_else(|| message.value("channel")).or_else(|| message.value("name"));
    let id = id.or_else(|| message.value("chanid")).or_else(|| message.value("channelid"));
    if let (Some(id), Some(path)) = (id.and_then(Value::number), path.and_then(Value::text))
        && !path.is_empty()
    {
        server.name_channel(id, &path);
    }
}

/// Somebody has just logged in on a connection that nobody has seen here.
fn unseen(message: &Message<'_>, context: &Context<'_>) -> Signal {
    let text = |name| message.text(name).map(|text| Text::new(&text));
    let address = message.text("ipaddr").and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
    let detail = Detail {
        nickname: text("nickname"),
        account: text("username"),
        number: message.user_id("userid").map(u32::from),
        ..Detail::default()
    };
    Signal {
        kind: SignalKind::IdentityUnseen,
        at: context.at,
        service: context.connection.service,
        address: address.map(|ip: std::net::IpAddr| Address::from(ip)).unwrap_or_default(),
        flow: None,
        detail,
    }
}

/// Somebody else left a channel.
fn on_user_left(message: &Message<'_>, server: &mut Server) {
    if let Some(user) = message.user_id("userid").and_then(|user_id| server.user_mut(user_id))
        && user.channel == Place::of(message).and_then(|place| place.number())
    {
        user.channel = None;
    }
}
