//! One TCP connection to a TeamTalk server.
//!
//! Every client line but `ping` and `quit` is answered by exactly one `ok` or `error`, in order, so answers are
//! paired with a queue of what was asked; a `begin id=` re-synchronises it. The queue holds `ASKED_MAX`
//! entries; beyond that the oldest is forgotten and its answer counts by its error number alone.

use std::collections::VecDeque;

use crate::{
    protocol::{
        Context, Dissector, Fact, Progress, Side,
        lines::{Line, Lines},
    },
    signal::{Detail, Method, SignalKind},
    text::Text,
};

use super::{Server, message::Message};

/// The server cuts a connection that sends more than this without a line end (`teamtalk.md` a.1); far longer
/// lines than any client writes are skipped here.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Questions kept until answered. A flood pipelines hundreds.
const ASKED_MAX: usize = 2_048;

/// Follows one connection. No `Debug`: half a line with a password may be in it.
pub struct Session {
    client_lines: Lines,
    server_lines: Lines,
    conversation: Conversation,
}

/// `ExpectWelcome` → `ExpectLogin` ⇄ `LoggedIn`; `ExpectLogin` → `Transferring`.
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
}

#[derive(Debug)]
struct Conversation {
    state: State,
    user_id: Option<u16>,
    asked: VecDeque<Question>,
    /// The client has begun a TLS handshake.
    is_tls: bool,
    heard_server: bool,
    was_kicked: bool,
    /// The channel it is in.
    channel: Option<i64>,
}

#[derive(Debug)]
struct Question {
    id: Option<i64>,
    asked: Asked,
}

/// A client's command, as far as its answer needs it.
#[derive(Debug)]
enum Asked {
    Login { account: Text, has_password: bool },
    Logout,
    Message { kind: SignalKind, channel: Option<i64>, target: Option<u16>, content: u64, weight: u64 },
    TypedMessage,
    Nick(Text),
    Status,
    Join { creates: Option<Text>, channel: Option<i64> },
    Kick { user_id: Option<u16>, channel: Option<i64> },
    Ban(Text),
    Move(Option<u16>),
    Channel { kind: SignalKind, name: Text },
    Account(&'static str, Text),
    ServerSettings(&'static str),
    Transfer(&'static str),
    Other(&'static str),
}

impl Session {
    /// A connection about to be followed.
    #[expect(clippy::new_without_default, reason = "a connection is begun, not defaulted")]
    pub const fn new() -> Self {
        Self {
            client_lines: Lines::new(LINE_BYTES_MAX),
            server_lines: Lines::new(LINE_BYTES_MAX),
            conversation: Conversation {
                state: State::ExpectWelcome,
                user_id: None,
                asked: VecDeque::new(),
                is_tls: false,
                heard_server: false,
                was_kicked: false,
                channel: None,
            },
        }
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
        let mut input = bytes;
        match side {
            Side::Client => {
                if conversation.begins_tls(bytes, context) {
                    return Progress::Opaque;
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
        if conversation.state == State::Transferring { Progress::Opaque } else { Progress::Following }
    }

    fn on_gap(&mut self, side: Side, missed: u64, _server: &mut Server, context: &mut Context<'_>) {
        match side {
            Side::Client => self.client_lines.skip_to_next(),
            Side::Server => self.server_lines.skip_to_next(),
        }
        // Which answers belong to which questions is no longer certain; error numbers still speak.
        self.conversation.asked.clear();
        context.signal(SignalKind::StreamGap, Detail { weight: missed, ..Detail::default() });
    }

    fn on_close(&mut self, server: &mut Server, context: &mut Context<'_>) {
        let conversation = &mut self.conversation;
        if conversation.state == State::LoggedIn {
            conversation.leave_with_connection(server, context);
        }
        if let Some(user_id) = conversation.user_id.take()
            && server.free(user_id, context.connection.id)
        {
            context.fact(Fact::UserFreed { user_id });
        }
        // A server that has run out of handles accepts and closes without a word (`teamtalk.md` a.1).
        if !conversation.heard_server && !conversation.is_tls && !context.connection.midway {
            let detail = Detail { reason: Some("full"), ..Detail::default() };
            context.signal(SignalKind::ConnectionRefused, detail);
        }
    }

    fn is_logged_in(&self) -> bool {
        self.conversation.state == State::LoggedIn
    }

    fn held_bytes(&self) -> usize {
        let questions = self.conversation.asked.len().saturating_mul(size_of::<Question>());
        self.client_lines
            .held_bytes()
            .saturating_add(self.server_lines.held_bytes())
            .saturating_add(questions)
    }
}

impl Conversation {
    /// A TLS server never speaks first; its clients begin with a ClientHello (RFC 8446 section 5.1).
    fn begins_tls(&mut self, bytes: &[u8], context: &mut Context<'_>) -> bool {
        if self.heard_server || self.is_tls || !matches!(bytes, [0x16, 0x03, 0..=4, ..]) {
            return false;
        }
        self.is_tls = true;
        context.signal(SignalKind::TlsHandshake, Detail::default());
        true
    }

    fn on_client_line(&mut self, line: Line<'_>, context: &mut Context<'_>) {
        let message = match line {
            Line::Complete(line) => Message::parse(line),
            Line::TooLong(line) => Message::parse(line),
        };
        let Some(message) = message else {
            return self.ask(None, Asked::Other("unknown"), context);
        };
        if matches!(message.keyword, b"ping" | b"quit") {
            return;
        }
        let asked = Asked::read(&message, context);
        self.ask(message.number("id"), asked, context);
    }

    fn ask(&mut self, id: Option<i64>, asked: Asked, context: &mut Context<'_>) {
        if let Asked::Login { account, has_password } = &asked {
            let method = Some(login_method(account, *has_password));
            let detail = Detail { method, account: Some(account.clone()), ..Detail::default() };
            context.signal(SignalKind::LoginAttempted, detail);
        } else {
            let detail = Detail { command: Some(asked.keyword()), ..Detail::default() };
            context.signal(SignalKind::CommandSent, detail);
        }
        if self.asked.len() >= ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back(Question { id, asked });
    }

    fn on_server_line(&mut self, line: &[u8], server: &mut Server, context: &mut Context<'_>) {
        let Some(message) = Message::parse(line) else {
            return;
        };
        match message.keyword {
            b"teamtalk" | b"welcome" => self.on_welcome(&message, server, context),
            b"begin" => self.synchronise(message.number("id")),
            b"ok" => self.on_ok(server, context),
            b"error" => self.on_error(&message, server, context),
            b"accepted" => self.on_accepted(&message, server, context),
            b"loggedout" => self.on_logged_out(&message, context),
            b"kicked" => self.was_kicked = !message.has_text("chanid") || self.was_kicked,
            b"joined" | b"left" => self.on_moved(&message, server, context),
            b"addchannel" | b"updatechannel" => remember_channel(&message, server),
            b"removechannel" => {
                if let Some(id) = message.number("chanid") {
                    server.forget_channel(id);
                }
            }
            b"loggedin" | b"adduser" | b"updateuser" => remember_user(&message, server),
            b"filedeliver" | b"fileready" => self.on_transfer(context),
            _ => {}
        }
    }

    fn on_welcome(&mut self, message: &Message<'_>, server: &mut Server, context: &mut Context<'_>) {
        if self.state != State::ExpectWelcome {
            return;
        }
        self.state = State::ExpectLogin;
        let Some(user_id) = message.user_id("userid") else {
            return;
        };
        self.user_id = Some(user_id);
        server.bind(user_id, context.connection.id, context.connection.client);
        context.fact(Fact::UserBound { user_id });
    }

    /// The answer to this id comes next: whatever was asked before it was answered or missed.
    fn synchronise(&mut self, id: Option<i64>) {
        let Some(at) = self.asked.iter().position(|question| question.id == id && id.is_some()) else {
            return;
        };
        self.asked.drain(..at);
    }

    fn on_accepted(&mut self, message: &Message<'_>, server: &mut Server, context: &mut Context<'_>) {
        let account = Text::new(&message.text("username").unwrap_or_default());
        let nickname = Text::new(&message.text("nickname").unwrap_or_default());
        let method = login_method(&account, message.has_text("password"));
        self.state = State::LoggedIn;
        self.was_kicked = false;
        let user_id = self.user_id.or_else(|| message.user_id("userid"));
        if let Some(user_id) = user_id {
            if self.user_id.is_none() {
                self.user_id = Some(user_id);
                server.bind(user_id, context.connection.id, context.connection.client);
                context.fact(Fact::UserBound { user_id });
            }
            if let Some(user) = server.user_mut(user_id) {
                user.nickname = Some(nickname.clone());
                user.account = Some(account.clone());
            }
        }
        let detail = Detail {
            method: Some(method),
            account: Some(account),
            nickname: Some(nickname),
            number: user_id.map(u32::from),
            ..Detail::default()
        };
        context.signal(SignalKind::LoginSucceeded, detail);
    }

    fn on_logged_out(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        // With a user id it is somebody else's.
        if message.number("userid").is_some() || self.state != State::LoggedIn {
            return;
        }
        self.state = State::ExpectLogin;
        let reason = if self.was_kicked { "kicked" } else { "logout" };
        self.was_kicked = false;
        context.signal(SignalKind::LoginEnded, Detail { reason: Some(reason), ..Detail::default() });
    }

    fn on_moved(&mut self, message: &Message<'_>, server: &Server, context: &mut Context<'_>) {
        let Some(id) = message.number("chanid") else {
            return;
        };
        self.state = State::LoggedIn;
        let joined = message.keyword == b"joined";
        self.channel = joined.then_some(id);
        let kind = if joined { SignalKind::ChannelJoined } else { SignalKind::ChannelLeft };
        context.signal(kind, Detail { channel: Some(server.channel(id)), ..self.own_detail(server) });
    }

    /// The server logs out whoever disconnects, and says so to the others.
    fn leave_with_connection(&mut self, server: &Server, context: &mut Context<'_>) {
        let own = self.own_detail(server);
        if let Some(id) = self.channel.take() {
            let channel = Some(server.channel(id));
            let detail = Detail { channel, reason: Some("disconnected"), ..own.clone() };
            context.signal(SignalKind::ChannelLeft, detail);
        }
        context.signal(SignalKind::LoginEnded, Detail { reason: Some("disconnected"), ..own });
    }

    fn on_transfer(&mut self, context: &mut Context<'_>) {
        if self.state != State::ExpectLogin {
            return;
        }
        let Some(at) = self.asked.iter().position(|question| matches!(question.asked, Asked::Transfer(_)))
        else {
            return;
        };
        let command = self.asked.get(at).map(|question| question.asked.keyword());
        self.state = State::Transferring;
        self.asked.clear();
        context.signal(SignalKind::FileTransferred, Detail { command, ..Detail::default() });
    }

    fn on_ok(&mut self, server: &Server, context: &mut Context<'_>) {
        let Some(Question { asked, .. }) = self.asked.pop_front() else {
            return;
        };
        let own = self.own_detail(server);
        let (kind, detail) = match asked {
            Asked::Message { kind, channel, target, content, weight } => {
                let channel = channel.map(|id| server.channel(id));
                let target = target.map(|id| server.name_of(id));
                (kind, Detail { channel, target, content: Some(content), weight, ..own })
            }
            Asked::Nick(nickname) => (SignalKind::NickChanged, Detail { nickname: Some(nickname), ..own }),
            Asked::Status => (SignalKind::StatusChanged, own),
            Asked::Join { creates: Some(name), .. } => {
                (SignalKind::ChannelCreated, Detail { channel: Some(name), ..own })
            }
            Asked::Kick { user_id, channel } => {
                let target = user_id.map(|id| server.name_of(id));
                let channel = channel.filter(|id| *id > 0).map(|id| server.channel(id));
                (SignalKind::UserKicked, Detail { target, channel, ..own })
            }
            Asked::Ban(target) => (SignalKind::UserBanned, Detail { target: Some(target), ..own }),
            Asked::Move(user_id) => {
                let target = user_id.map(|id| server.name_of(id));
                (SignalKind::UserMoved, Detail { target, ..own })
            }
            Asked::Channel { kind, name } => (kind, Detail { channel: Some(name), ..own }),
            Asked::Account(command, account) => {
                let detail = Detail { command: Some(command), target: Some(account), ..own };
                (SignalKind::AccountChanged, detail)
            }
            Asked::ServerSettings(command) => {
                (SignalKind::ServerChanged, Detail { command: Some(command), ..own })
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
        let question = self.asked.pop_front();
        let number = message.number("number").and_then(|number| u32::try_from(number).ok());
        let asked = question.as_ref().map(|question| &question.asked);
        let own = Detail { number, ..self.own_detail(server) };
        let login = if let Some(Asked::Login { account, has_password }) = asked {
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
                let channel = if let Some(Asked::Join { channel: Some(id), .. }) = asked {
                    Some(server.channel(*id))
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

fn login_method(account: &Text, has_password: bool) -> Method {
    if account.is_empty() || !has_password { Method::Guest } else { Method::Account }
}

fn remember_channel(message: &Message<'_>, server: &mut Server) {
    let path = message.text("channel").or_else(|| message.text("name"));
    if let (Some(id), Some(path)) = (message.number("chanid"), path)
        && !path.is_empty()
    {
        server.name_channel(id, &path);
    }
}

fn remember_user(message: &Message<'_>, server: &mut Server) {
    let (Some(user_id), Some(nickname)) = (message.user_id("userid"), message.text("nickname")) else {
        return;
    };
    if let Some(user) = server.user_mut(user_id) {
        user.nickname = Some(Text::new(&nickname));
    }
}

impl Asked {
    /// Reads a client's command. Values of `password`, `oppassword`, `filetxkey` and `content` are not kept.
    fn read(message: &Message<'_>, context: &Context<'_>) -> Self {
        let text = |name: &str| Text::new(&message.text(name).unwrap_or_default());
        match message.keyword {
            b"login" => Self::Login { account: text("username"), has_password: message.has_text("password") },
            b"logout" => Self::Logout,
            b"message" => Self::read_message(message, context),
            b"changenick" => Self::Nick(text("nickname")),
            b"changestatus" => Self::Status,
            b"join" => {
                let parent = message.number("parentid").is_some();
                Self::Join { creates: parent.then(|| text("name")), channel: message.number("chanid") }
            }
            b"kick" => Self::Kick { user_id: message.user_id("userid"), channel: message.number("chanid") },
            b"ban" => Self::Ban(ban_target(message)),
            b"moveuser" => Self::Move(message.user_id("userid")),
            b"makechannel" => Self::Channel { kind: SignalKind::ChannelCreated, name: text("name") },
            b"updatechannel" => {
                Self::Channel { kind: SignalKind::ChannelChanged, name: channel_number(message) }
            }
            b"removechannel" => {
                Self::Channel { kind: SignalKind::ChannelRemoved, name: channel_number(message) }
            }
            b"newaccount" => Self::Account("newaccount", text("username")),
            b"delaccount" => Self::Account("delaccount", text("username")),
            b"updateserver" => Self::ServerSettings("updateserver"),
            b"saveconfig" => Self::Other("saveconfig"),
            b"sendfile" => Self::Transfer("sendfile"),
            b"recvfile" => Self::Transfer("recvfile"),
            other => Self::Other(known_keyword(other)),
        }
    }

    fn read_message(message: &Message<'_>, context: &Context<'_>) -> Self {
        let kind = match message.number("type") {
            Some(1) => SignalKind::MessagePrivate,
            Some(2) => SignalKind::MessageChannel,
            Some(3) => SignalKind::MessageBroadcast,
            // Type 4 carries "is typing" and the like.
            _ => return Self::TypedMessage,
        };
        let content = message.text("content").unwrap_or_default();
        Self::Message {
            kind,
            channel: message.number("chanid"),
            target: message.user_id("destuserid"),
            content: context.content_hash(&content),
            weight: content.len() as u64,
        }
    }

    const fn keyword(&self) -> &'static str {
        match self {
            Self::Login { .. } => "login",
            Self::Logout => "logout",
            Self::Message { .. } | Self::TypedMessage => "message",
            Self::Nick(_) => "changenick",
            Self::Status => "changestatus",
            Self::Join { .. } => "join",
            Self::Kick { .. } => "kick",
            Self::Ban(_) => "ban",
            Self::Move(_) => "moveuser",
            Self::Channel { kind: SignalKind::ChannelCreated, .. } => "makechannel",
            Self::Channel { kind: SignalKind::ChannelRemoved, .. } => "removechannel",
            Self::Channel { .. } => "updatechannel",
            Self::Account(command, _)
            | Self::ServerSettings(command)
            | Self::Transfer(command)
            | Self::Other(command) => command,
        }
    }
}

fn ban_target(message: &Message<'_>) -> Text {
    for name in ["ipaddr", "username", "nickname", "channel"] {
        if let Some(text) = message.text(name).filter(|text| !text.is_empty()) {
            return Text::new(&text);
        }
    }
    match message.user_id("userid") {
        Some(user_id) => Text::from(format!("#{user_id}").as_str()),
        None => Text::from(""),
    }
}

fn channel_number(message: &Message<'_>) -> Text {
    Text::from(format!("#{}", message.number("chanid").unwrap_or(0)).as_str())
}

/// The other commands of the protocol, by their own name; anything else is "unknown".
fn known_keyword(keyword: &[u8]) -> &'static str {
    const KNOWN: [&str; 13] = [
        "leave",
        "subscribe",
        "unsubscribe",
        "unban",
        "listbans",
        "op",
        "querystats",
        "listaccounts",
        "regsendfile",
        "regrecvfile",
        "deletefile",
        "filedeliver",
        "begin",
    ];
    KNOWN.into_iter().find(|known| known.as_bytes() == keyword).unwrap_or("unknown")
}
