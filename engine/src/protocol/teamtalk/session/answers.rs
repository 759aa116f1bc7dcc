//! What the server says.

use floodwall_wire::Address;

use super::{Conversation, Kicked, State, meet_undocumented};
use crate::{
    catalogue::Sort,
    identity::ADMINISTRATOR,
    protocol::{
        Context, Fact, GREETED_WITHIN, GREETING,
        teamtalk::{
            Server,
            datagram::{Binding, parse_udp_address},
            message::{Message, Value},
            question::{Asked, Place, Question, USERTYPE_ADMINISTRATOR, login_method, major, reason},
            stall::Login,
        },
    },
    signal::{Detail, Method, Signal, SignalKind},
    text::Text,
};

/// Seconds of a user time-out below which clients that keep themselves alive by the rules are dropped: theirs come every
/// 10 s, and the next one a second later only if that was lost (`teamtalk.md` a.8).
const USER_TIMEOUT_SHORT: u32 = 15;

impl Conversation {
    pub(super) fn on_server_line(&mut self, line: &[u8], server: &mut Server, context: &mut Context<'_>) {
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
            server.part(connection.client, connection.midway);
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
        self.account = Some(account.clone());
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
    pub(super) fn leave_with_connection(&mut self, server: &mut Server, context: &mut Context<'_>) {
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
                let is_greeting = came_at.is_some_and(|at| context.at.since(at) <= GREETED_WITHIN);
                let reason = if is_greeting { Some(GREETING) } else { content.reason() };
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
            Asked::Account { command, account, is_administrators } => {
                let reason = is_administrators.then_some(ADMINISTRATOR);
                let detail = Detail { command: Some(command), target: Some(account), reason, ..own };
                (SignalKind::AccountChanged, detail)
            }
            Asked::ServerSettings { command, user_timeout, places, is_silent } => {
                let is_short = user_timeout.is_some_and(|seconds| seconds < USER_TIMEOUT_SHORT);
                // Who is there stays, and nobody comes back.
                let is_narrow = places.is_some_and(|places| (places as usize) < server.logged_in().max(2));
                let reason = match (is_short, is_narrow, is_silent) {
                    (true, _, _) => Some("short-timeout"),
                    (_, true, _) => Some("few-places"),
                    (_, _, true) => Some("log-off"),
                    (false, false, false) => None,
                };
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
