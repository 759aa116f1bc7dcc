//! What a client asks, as far as its answer needs it (`teamtalk.md` a.5), and what refusals mean (a.7).
//!
//! Values of `password`, `oppassword`, `serverpassword`, `filetxkey` and `content` are not kept.

use std::collections::VecDeque;

use crate::{
    protocol::{
        Context,
        breadth::{is_everybody, is_everybody_by_pattern},
    },
    signal::{Content, Method, SignalKind},
    text::Text,
};

use super::{
    Server,
    message::{Message, Value},
};

/// Different questions in a row kept until answered.
const QUESTIONS_MAX: usize = 4_096;
/// The counts in front of a shared text, and what an allocation costs besides.
const TEXT_OVERHEAD_BYTES: usize = 32;
/// Room for questions that is kept when all are answered.
const QUESTIONS_KEPT: usize = 16;

/// What was asked and is not answered yet, in order. Equal questions in a row take one place; beyond [`QUESTIONS_MAX`]
/// places they are only counted, so that the answers after them still find theirs.
#[derive(Debug, Default)]
pub(super) struct Questions {
    runs: VecDeque<(Question, u32)>,
    /// Questions after the last run that had no place.
    unnamed: u32,
    text_bytes: usize,
}

impl Questions {
    pub(super) const fn new() -> Self {
        Self { runs: VecDeque::new(), unnamed: 0, text_bytes: 0 }
    }

    /// One more was asked.
    pub(super) fn push(&mut self, question: Question) {
        if self.unnamed > 0 {
            self.unnamed = self.unnamed.saturating_add(1);
            return;
        }
        let has_place = self.runs.len() < QUESTIONS_MAX;
        match self.runs.back_mut() {
            Some((last, count)) if *last == question => *count = count.saturating_add(1),
            _ if has_place => {
                self.text_bytes = self.text_bytes.saturating_add(question.asked.text_bytes());
                self.runs.push_back((question, 1));
            }
            _ => self.unnamed = 1,
        }
    }

    /// The oldest one was answered; `None` if nobody knows what it was.
    pub(super) fn pop(&mut self) -> Option<Question> {
        if let Some((question, count)) = self.runs.front_mut()
            && *count > 1
        {
            *count = count.saturating_sub(1);
            return Some(question.clone());
        }
        let popped = self.runs.pop_front();
        match &popped {
            Some((question, _)) => {
                self.text_bytes = self.text_bytes.saturating_sub(question.asked.text_bytes());
            }
            None => self.unnamed = self.unnamed.saturating_sub(1),
        }
        if self.runs.is_empty() && self.runs.capacity() > QUESTIONS_KEPT {
            self.runs.shrink_to(QUESTIONS_KEPT);
        }
        popped.map(|(question, _)| question)
    }

    /// The answer to this id comes next: whatever was asked before it was answered or missed.
    pub(super) fn synchronise(&mut self, id: i64) {
        let Some(at) = self.runs.iter().position(|(question, _)| question.id == Some(id)) else { return };
        for _ in 0..at {
            if let Some((question, _)) = self.runs.pop_front() {
                self.text_bytes = self.text_bytes.saturating_sub(question.asked.text_bytes());
            }
        }
    }

    /// The oldest one.
    pub(super) fn front(&self) -> Option<&Asked> {
        self.runs.front().map(|(question, _)| &question.asked)
    }

    /// The oldest one for which `is` holds.
    pub(super) fn find(&self, is: impl Fn(&Asked) -> bool) -> Option<&Asked> {
        self.runs.iter().map(|(question, _)| &question.asked).find(|asked| is(asked))
    }

    /// Forgets all: after a gap nobody knows what belongs to what.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Bytes of heap held.
    pub(super) fn held_bytes(&self) -> usize {
        self.runs.capacity().saturating_mul(size_of::<(Question, u32)>()).saturating_add(self.text_bytes)
    }
}

/// A question and the number that its answer will repeat.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Question {
    /// The client's `id=`.
    pub(super) id: Option<i64>,
    /// What is asked.
    pub(super) asked: Asked,
}

/// A channel: TeamTalk 5 gives numbers (TeamTalk 4 by another name), TeamTalk 4 gives paths too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// By number.
    Number(i64),
    /// By path.
    Path(Text),
}

/// `usertype` of accounts that may do everything (`teamtalk.md` a.6; 1 is everybody else's).
pub(super) const USERTYPE_ADMINISTRATOR: i64 = 2;

/// A client's command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Asked {
    /// `login`.
    Login { account: Text, has_password: bool, protocol: Option<u32> },
    /// `logout`.
    Logout,
    /// `message`, types 1 to 3.
    Message { kind: SignalKind, channel: Option<Place>, target: Option<u16>, content: Content, weight: u64 },
    /// `message` of other types: "is typing" and the like.
    TypedMessage,
    /// `changenick`.
    Nick(Text),
    /// `changestatus`.
    Status,
    /// `join`.
    Join { creates: Option<Text>, channel: Option<Place> },
    /// `kick`.
    Kick { user_id: Option<u16>, channel: Option<Place> },
    /// `ban`.
    Ban { user_id: Option<u16>, target: Text, scope: &'static str },
    /// `moveuser`.
    Move { user_id: Option<u16>, channel: Option<Place> },
    /// `makechannel`, `updatechannel`, `removechannel`.
    Channel { kind: SignalKind, name: Option<Text>, channel: Option<Place> },
    /// `newaccount`, `delaccount`.
    Account { command: &'static str, account: Text, is_administrators: bool },
    /// `updateserver`, with the time-out it sets, in seconds, and for how many users.
    ServerSettings {
        command: &'static str,
        user_timeout: Option<u32>,
        places: Option<u32>,
        /// Nothing is logged any more.
        is_silent: bool,
    },
    /// `sendfile`, `recvfile`.
    Transfer(&'static str),
    /// Whatever else, by its own name.
    Other(&'static str),
    /// What no documentation has; its name is kept only if the server takes it.
    Undocumented(Text),
}

impl Place {
    /// The channel a line is about.
    pub(super) fn of(message: &Message<'_>) -> Option<Self> {
        let [chanid, channelid, path] = message.values([b"chanid", b"channelid", b"channel"]);
        Self::read(chanid, channelid, path)
    }

    /// The same, of values that were found.
    fn read(
        chanid: Option<Value<'_>>,
        channelid: Option<Value<'_>>,
        path: Option<Value<'_>>,
    ) -> Option<Self> {
        let number = chanid.and_then(Value::number).or_else(|| channelid.and_then(Value::number));
        let path = || path.and_then(Value::text).filter(|path| !path.is_empty());
        number.map(Self::Number).or_else(|| path().map(|path| Self::Path(Text::new(&path))))
    }

    /// How it is shown.
    pub(super) fn name(&self, server: &Server) -> Text {
        match self {
            Self::Number(id) => server.channel(*id),
            Self::Path(path) => path.clone(),
        }
    }

    /// Its number, where it has one.
    pub(super) const fn number(&self) -> Option<i64> {
        match self {
            Self::Number(id) => Some(*id),
            Self::Path(_) => None,
        }
    }
}

impl Question {
    /// Reads a client's command. The one that floods are made of takes one walk over its line.
    pub(super) fn read(message: &Message<'_>, context: &Context<'_>) -> Self {
        if message.keyword == b"message" {
            return Self::read_message(message, context);
        }
        Self { id: message.number("id"), asked: Asked::read(message) }
    }

    fn read_message(message: &Message<'_>, context: &Context<'_>) -> Self {
        let [kind, content, target, id, chanid, channelid, path] =
            message.values([b"type", b"content", b"destuserid", b"id", b"chanid", b"channelid", b"channel"]);
        let id = id.and_then(Value::number);
        let kind = match kind.and_then(Value::number) {
            Some(1) => SignalKind::MessagePrivate,
            Some(2) => SignalKind::MessageChannel,
            Some(3) => SignalKind::MessageBroadcast,
            _ => return Self { id, asked: Asked::TypedMessage },
        };
        let content = content.and_then(Value::text).unwrap_or_default();
        let asked = Asked::Message {
            kind,
            channel: Place::read(chanid, channelid, path),
            target: target.and_then(Value::user_id),
            content: context.hash_content(&content),
            weight: content.len() as u64,
        };
        Self { id, asked }
    }
}

impl Asked {
    /// Reads a client's command other than `message`.
    fn read(message: &Message<'_>) -> Self {
        let text = |name: &str| Text::new(&message.text(name).unwrap_or_default());
        let channel = |kind, name| Self::Channel { kind, name, channel: Place::of(message) };
        match message.keyword {
            b"login" => {
                let [account, password, protocol] = message.values([b"username", b"password", b"protocol"]);
                Self::Login {
                    account: Text::new(&account.and_then(Value::text).unwrap_or_default()),
                    has_password: password.is_some_and(Value::has_text),
                    protocol: protocol.and_then(Value::text).and_then(|version| major(&version)),
                }
            }
            b"logout" => Self::Logout,
            b"changenick" => Self::Nick(text("nickname")),
            b"changestatus" => Self::Status,
            b"join" => {
                let creates = message.number("parentid").is_some().then(|| text("name"));
                Self::Join { creates, channel: Place::of(message) }
            }
            b"kick" => {
                // Channel 0 is the server itself.
                let channel = Place::of(message).filter(|place| place.number() != Some(0));
                Self::Kick { user_id: message.user_id("userid"), channel }
            }
            b"ban" => Self::read_ban(message),
            b"moveuser" => {
                let path = || message.text("destchannel").map(|path| Place::Path(Text::new(&path)));
                Self::Move { user_id: message.user_id("userid"), channel: Place::of(message).or_else(path) }
            }
            b"makechannel" => channel(SignalKind::ChannelCreated, Some(text("name"))),
            b"updatechannel" => channel(SignalKind::ChannelChanged, None),
            b"removechannel" => channel(SignalKind::ChannelRemoved, None),
            b"newaccount" => Self::Account {
                command: "newaccount",
                account: text("username"),
                is_administrators: message.number("usertype") == Some(USERTYPE_ADMINISTRATOR),
            },
            b"delaccount" => {
                Self::Account { command: "delaccount", account: text("username"), is_administrators: false }
            }
            b"updateserver" => {
                let number = |name| message.number(name).and_then(|number| u32::try_from(number).ok());
                let (user_timeout, places) = (number("usertimeout"), number("maxusers"));
                let is_silent = number("logevents") == Some(0);
                Self::ServerSettings { command: "updateserver", user_timeout, places, is_silent }
            }
            b"sendfile" => Self::Transfer("sendfile"),
            b"recvfile" => Self::Transfer("recvfile"),
            other => known_keyword(other).map_or_else(|| Self::Undocumented(Text::new(other)), Self::Other),
        }
    }

    fn read_ban(message: &Message<'_>) -> Self {
        const CHANNEL: i64 = 1;
        const ADDRESS: i64 = 2;
        const USERNAME: i64 = 4;
        let target = ["ipaddr", "username", "nickname", "channel"]
            .into_iter()
            .find_map(|name| message.text(name).filter(|text| !text.is_empty()))
            .map_or_else(|| Text::from(""), |text| Text::new(&text));
        let kind = message.number("type").unwrap_or(ADDRESS);
        // The server takes prefixes and regular expressions (`teamtalk.md` a.6), and a ban of nothing fits everybody.
        let subject = target.as_str().as_bytes();
        let fits_everybody = is_everybody(subject) || is_everybody_by_pattern(subject);
        let is_of_nobody = subject.is_empty() && message.user_id("userid").is_none();
        let scope = if is_of_nobody || fits_everybody {
            "everybody"
        } else if kind & CHANNEL != 0 {
            "channel"
        } else if kind & USERNAME != 0 {
            "account"
        } else {
            "address"
        };
        Self::Ban { user_id: message.user_id("userid"), target, scope }
    }

    /// Whether its success moves the one who asks: logging in leads to the account's own channel.
    pub(super) fn changes_channel(&self) -> bool {
        matches!(self, Self::Login { .. } | Self::Logout | Self::Join { .. } | Self::Other("leave"))
    }

    /// What its names take of the heap, with their counts.
    fn text_bytes(&self) -> usize {
        let text =
            |text: Option<&Text>| text.map_or(0, |text| text.len().saturating_add(TEXT_OVERHEAD_BYTES));
        let place = |place: &Option<Place>| match place {
            Some(Place::Path(path)) => text(Some(path)),
            Some(Place::Number(_)) | None => 0,
        };
        match self {
            Self::Login { account, .. } => text(Some(account)),
            Self::Message { channel, .. } | Self::Kick { channel, .. } | Self::Move { channel, .. } => {
                place(channel)
            }
            Self::Nick(name)
            | Self::Account { account: name, .. }
            | Self::Ban { target: name, .. }
            | Self::Undocumented(name) => text(Some(name)),
            Self::Join { creates: name, channel } | Self::Channel { name, channel, .. } => {
                text(name.as_ref()).saturating_add(place(channel))
            }
            Self::Logout
            | Self::TypedMessage
            | Self::Status
            | Self::ServerSettings { .. }
            | Self::Transfer(_)
            | Self::Other(_) => 0,
        }
    }

    /// The command's name.
    pub(super) const fn keyword(&self) -> &'static str {
        match self {
            Self::Login { .. } => "login",
            Self::Logout => "logout",
            Self::Message { .. } | Self::TypedMessage => "message",
            Self::Nick(_) => "changenick",
            Self::Status => "changestatus",
            Self::Join { .. } => "join",
            Self::Kick { .. } => "kick",
            Self::Ban { .. } => "ban",
            Self::Move { .. } => "moveuser",
            Self::Channel { kind: SignalKind::ChannelCreated, .. } => "makechannel",
            Self::Channel { kind: SignalKind::ChannelRemoved, .. } => "removechannel",
            Self::Channel { .. } => "updatechannel",
            Self::Account { command, .. }
            | Self::ServerSettings { command, .. }
            | Self::Transfer(command)
            | Self::Other(command) => command,
            Self::Undocumented(_) => "unknown",
        }
    }
}

/// The first number of a version: 5 of "5.14".
pub(super) fn major(version: &[u8]) -> Option<u32> {
    let digits = version.split(|byte| *byte == b'.').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The other commands of the protocol, by their own name.
fn known_keyword(keyword: &[u8]) -> Option<&'static str> {
    const KNOWN: [&str; 15] = [
        "deletefile",
        "filedeliver",
        "leave",
        "listaccounts",
        "listbans",
        "op",
        "ping",
        "querystats",
        "quit",
        "regrecvfile",
        "regsendfile",
        "saveconfig",
        "subscribe",
        "unban",
        "unsubscribe",
    ];
    KNOWN.into_iter().find(|known| known.as_bytes() == keyword)
}

/// An account without a name or a password is a guest's.
pub(super) fn login_method(account: &Text, has_password: bool) -> Method {
    if account.is_empty() || !has_password { Method::Guest } else { Method::Account }
}

/// What an error number means (`teamtalk.md` a.7), in one word for reports.
pub(super) const fn reason(number: u32) -> Option<&'static str> {
    Some(match number {
        1000 => "syntax",
        1001 => "unknown-command",
        1002 => "missing-parameter",
        1003 => "incompatible-protocol",
        1004 => "unknown-codec",
        1005 => "invalid-username",
        2001 => "wrong-channel-password",
        2002 => "wrong-account",
        2003 => "server-full",
        2004 => "channel-full",
        2005 => "banned",
        2006 => "not-authorised",
        2008 => "disk-usage",
        2010 => "wrong-operator-password",
        2011 => "codec-bitrate",
        2012 => "logins-per-address",
        2013 => "too-many-channels",
        2014 => "too-fast",
        2015 => "banned-from-channel",
        2016 => "too-many-transfers",
        3000 => "not-logged-in",
        3001 => "already-logged-in",
        3002 => "not-in-channel",
        3003 => "already-in-channel",
        3004 => "channel-exists",
        3005 => "channel-not-found",
        3006 => "user-not-found",
        3007 => "ban-not-found",
        3008 => "transfer-not-found",
        3009 => "file-not-opened",
        3010 => "account-not-found",
        3011 => "file-not-found",
        3012 => "file-exists",
        3013 => "files-disabled",
        3015 => "channel-has-users",
        3016 => "login-service",
        3017 => "cannot-be-hidden",
        4000 => "suspended",
        _ => return None,
    })
}
