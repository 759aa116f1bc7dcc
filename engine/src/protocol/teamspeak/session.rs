//! One TCP connection: the banner, what was asked, what was answered; or a file transfer, which is let go.

#[cfg(test)]
mod tests;

use std::iter;

use super::{
    message::{Command, Effect, LINE_BYTES_MAX, answer, trim, undocumented_parameters, unescape},
    server::Server,
    vocabulary::{is_error, undocumented_notice},
};
use crate::{
    catalogue::Sort,
    protocol::{
        Connection, Context, Dissector, HeldPlace, Progress, Side,
        breadth::is_everybody_by_pattern,
        foreign::{Foreign, Head},
        lines::{Line, Lines},
        pending::Pending,
    },
    signal::{Detail, Method, SignalKind},
    text::{TEXT_BYTES_MAX, Text},
    time::Span,
};

/// The most that [`Dissector::held_bytes`] of a [`Session`] ever says: two lines, of which a growing buffer may
/// hold twice as much, and what is asked.
pub const HELD_BYTES_MAX: usize = 4 * (LINE_BYTES_MAX + 2) + 32 * 1024;

/// Different questions in a row remembered until the server answers. Servers allow 10 in 3 seconds.
const QUESTIONS_PENDING_MAX: usize = 64;

/// Targets of one command that are counted.
const TARGETS_MAX: usize = 6;

/// A query client says something as soon as it is greeted.
const HELD: Span = Span::from_secs(15);

/// Client bytes without a banner after which it is an upload. More than a receive buffer that nobody reads can
/// acknowledge, and a query server says its banner before it reads.
const UPLOAD_BYTES: u64 = 256 * 1024;

/// A reader of one TeamSpeak connection over TCP.
pub struct Session {
    client_lines: Lines,
    server_lines: Lines,
    client_head: Head,
    server_head: ServerHead,
    place: HeldPlace,
    state: State,
}

/// Where the connection is. `ExpectBanner` → `Query` with the banner or when it was missed; → `Opaque` when the
/// server says anything else, or nothing while the client sends a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// The server has said nothing.
    ExpectBanner,
    /// Not ServerQuery in plain text: nothing more is read.
    Opaque,
    /// ServerQuery.
    Query,
}

/// The first bytes of the server.
#[derive(Clone, Copy, Default)]
struct ServerHead {
    bytes: [u8; 3],
    count: usize,
}

/// What a server speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Speech {
    /// A file, SSH, HTTP: not for us.
    Other,
    /// The banner of ServerQuery.
    Query,
    /// A TLS handshake.
    Tls,
    /// A TLS alert.
    TlsAlert,
}

/// A command that has no answer yet.
#[derive(Clone, PartialEq)]
struct Question {
    keyword: &'static str,
    effect: Effect,
    /// Accounts, clients, addresses or names it is about.
    subjects: Vec<Text>,
    /// What is remarkable about it, in a word.
    reason: Option<&'static str>,
    undocumented: Undocumented,
}

/// What no documentation has in a command, kept until the server has shown that it knows it.
#[derive(Clone, Default, PartialEq)]
struct Undocumented {
    command: Option<Text>,
    /// Names of parameters, with a space between two.
    parameters: Option<Text>,
}

struct State {
    phase: Phase,
    account: Option<Text>,
    foreign: Option<Foreign>,
    questions: Pending<Question>,
    unanswered_bytes: u64,
    is_refused: bool,
    /// The client has said something.
    has_spoken: bool,
}

impl Session {
    /// A session for this connection.
    pub fn new(connection: &Connection) -> Self {
        let (mut client_lines, mut server_lines) = (Lines::new(LINE_BYTES_MAX), Lines::new(LINE_BYTES_MAX));
        let (client_head, phase) = if connection.midway {
            client_lines.skip_to_next();
            server_lines.skip_to_next();
            (Head::missed(), Phase::Query)
        } else {
            (Head::new(), Phase::ExpectBanner)
        };
        Self {
            client_lines,
            server_lines,
            client_head,
            server_head: ServerHead::default(),
            place: HeldPlace::new(),
            state: State::new(phase),
        }
    }

    /// Whether nothing was ever said on it, and it was not turned away.
    pub(crate) const fn is_unused(&self) -> bool {
        !self.state.has_spoken && !self.state.is_refused
    }

    /// A place at ServerQuery that is taken without a word.
    fn tell_held(&mut self, context: &mut Context<'_>) {
        let lasted = context.at.since(context.connection.opened);
        let is_held = self.is_unused() && !context.connection.midway;
        if is_held && self.place.is_due(context.at, lasted, HELD) {
            let detail = Detail { reason: Some("silent"), ..self.state.detail() };
            context.signal(SignalKind::ConnectionHeld, detail);
        }
    }

    fn on_client_bytes(&mut self, bytes: &[u8], context: &mut Context<'_>) {
        let Self { client_lines, client_head, state, .. } = self;
        state.has_spoken = true;
        if let Some(foreign) = client_head.take(bytes) {
            state.foreign = Some(foreign);
            if state.phase == Phase::Query {
                state.garbage(foreign, context);
            }
        }
        let mut input = bytes;
        while let Some(line) = client_lines.next(&mut input) {
            let (Line::Complete(line) | Line::TooLong(line)) = line;
            state.on_command(line, context);
        }
        if state.phase == Phase::ExpectBanner {
            let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            state.unanswered_bytes = state.unanswered_bytes.saturating_add(count);
            if state.unanswered_bytes > UPLOAD_BYTES {
                state.phase = Phase::Opaque;
            }
        }
    }

    fn on_server_bytes(&mut self, bytes: &[u8], server: &mut Server, context: &mut Context<'_>) {
        let Self { server_lines, server_head, state, .. } = self;
        if state.phase == Phase::ExpectBanner
            && let Some(speech) = server_head.take(bytes)
        {
            state.on_speech(speech, context);
        }
        let mut input = bytes;
        while state.phase != Phase::Opaque
            && let Some(line) = server_lines.next(&mut input)
        {
            let (Line::Complete(line) | Line::TooLong(line)) = line;
            match answer(line) {
                Some(number) => state.on_answer(number, context),
                None => server.learn(trim(line)),
            }
            if context.catalogues() {
                meet_undocumented(trim(line), state.questions.front(), context);
            }
        }
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
        if self.state.phase != Phase::Opaque {
            match side {
                Side::Client => self.on_client_bytes(bytes, context),
                Side::Server => self.on_server_bytes(bytes, server, context),
            }
        }
        if self.state.phase == Phase::Opaque {
            self.client_lines.skip_to_next();
            self.server_lines.skip_to_next();
            return Progress::Opaque;
        }
        Progress::Following
    }

    fn on_gap(&mut self, side: Side, _missed: u64, _server: &mut Server, _context: &mut Context<'_>) {
        match side {
            Side::Client => {
                self.client_lines.skip_to_next();
                self.client_head = Head::missed();
            }
            Side::Server => {
                self.server_lines.skip_to_next();
                if self.state.phase == Phase::ExpectBanner {
                    self.state.phase = Phase::Query;
                }
            }
        }
        self.state.questions.clear();
    }

    fn on_passing_time(&mut self, context: &mut Context<'_>) {
        self.tell_held(context);
    }

    fn on_close(&mut self, _server: &mut Server, context: &mut Context<'_>) {
        // The server never said what it speaks, so the client's first words stand alone.
        if self.state.phase == Phase::ExpectBanner
            && let Some(foreign) = self.state.foreign
        {
            self.state.garbage(foreign, context);
        }
        self.tell_held(context);
    }

    fn is_logged_in(&self) -> bool {
        self.state.account.is_some()
    }

    fn held_bytes(&self) -> usize {
        self.client_lines
            .held_bytes()
            .saturating_add(self.server_lines.held_bytes())
            .saturating_add(self.state.account.as_ref().map_or(0, Text::len))
            .saturating_add(self.state.questions.held_bytes())
    }
}

impl ServerHead {
    /// Takes the next bytes; `Some` once they say enough.
    fn take(&mut self, bytes: &[u8]) -> Option<Speech> {
        for byte in bytes {
            *self.bytes.get_mut(self.count)? = *byte;
            self.count = self.count.saturating_add(1);
            let speech = match self.bytes.get(..self.count)? {
                [] | [b'T'] | [b'T', b'S' | b'e'] => continue,
                [b'T', b'S', b'3'] | [b'T', b'e', b'a'] => Speech::Query,
                [0x15, ..] => Speech::TlsAlert,
                [0x16, ..] => Speech::Tls,
                _ => Speech::Other,
            };
            return Some(speech);
        }
        None
    }
}

impl State {
    const fn new(phase: Phase) -> Self {
        Self {
            phase,
            account: None,
            foreign: None,
            questions: Pending::new(QUESTIONS_PENDING_MAX),
            unanswered_bytes: 0,
            is_refused: false,
            has_spoken: false,
        }
    }

    fn on_speech(&mut self, speech: Speech, context: &mut Context<'_>) {
        self.phase = Phase::Opaque;
        match speech {
            Speech::Other => {}
            Speech::Query => {
                self.phase = Phase::Query;
                if let Some(foreign) = self.foreign {
                    self.garbage(foreign, context);
                }
            }
            Speech::Tls if self.foreign == Some(Foreign::Tls) => {
                context.signal(SignalKind::TlsHandshake, Detail::default());
            }
            Speech::TlsAlert if self.foreign == Some(Foreign::Tls) => {
                context.signal(SignalKind::TlsFailed, Detail::default());
            }
            // A file that begins like a TLS record.
            Speech::Tls | Speech::TlsAlert => {}
        }
    }

    /// Takes one line of the client.
    fn on_command(&mut self, line: &[u8], context: &mut Context<'_>) {
        let Some(command) = Command::parse(line) else { return };
        // A transferred file has lines too, and another protocol's are no commands.
        let is_certain = self.phase == Phase::Query && self.foreign.is_none();
        if !command.is_known() && !is_certain {
            return self.ask(&command, Vec::new(), Undocumented::default());
        }
        let subjects = subjects(&command);
        let account = subjects.first().cloned();
        match command.effect {
            Effect::Login => self.login(SignalKind::LoginAttempted, Method::Query, account, None, context),
            Effect::PrivilegeKey => {
                self.login(SignalKind::LoginAttempted, Method::PrivilegeKey, None, None, context);
            }
            Effect::Message => self.on_message(&command, context),
            Effect::Account
            | Effect::Ban
            | Effect::ChannelChanged
            | Effect::ChannelCreated
            | Effect::ChannelRemoved
            | Effect::Kick
            | Effect::Logout
            | Effect::Move
            | Effect::None
            | Effect::Rename
            | Effect::Server => {
                let detail = Detail { command: Some(command.keyword), ..self.detail() };
                context.signal(SignalKind::CommandSent, detail);
            }
        }
        let undocumented =
            if context.catalogues() { Undocumented::find(&command, line) } else { Undocumented::default() };
        self.ask(&command, subjects, undocumented);
    }

    fn ask(&mut self, command: &Command<'_>, subjects: Vec<Text>, undocumented: Undocumented) {
        let Command { keyword, effect, .. } = *command;
        let reason = closes(command);
        self.questions.push(Question { keyword, effect, subjects, reason, undocumented });
    }

    /// Counted when it is said, like talk everywhere.
    fn on_message(&self, command: &Command<'_>, context: &mut Context<'_>) {
        let text = command.value("msg").unwrap_or_default();
        let detail = Detail {
            command: Some(command.keyword),
            target: command.value("target").or_else(|| command.value("clid")).and_then(number),
            content: Some(context.hash_content(text)),
            weight: u64::try_from(text.len()).unwrap_or(u64::MAX),
            ..self.detail()
        };
        let kind = match (command.keyword, command.value("targetmode")) {
            ("gm", _) | (_, Some(b"3")) => SignalKind::MessageBroadcast,
            (_, Some(b"2")) => SignalKind::MessageChannel,
            _ => SignalKind::MessagePrivate,
        };
        context.signal(kind, detail);
    }

    /// Takes `error id=<number>`.
    fn on_answer(&mut self, number: u32, context: &mut Context<'_>) {
        // A ban may be told before anything is asked.
        let question = self.questions.pop();
        if context.catalogues() {
            meet_answer(number, question.as_ref(), context);
        }
        let effect = question.as_ref().map_or(Effect::None, |question| question.effect);
        match number {
            0 => {
                if let Some(question) = question {
                    self.on_done(question, context);
                }
            }
            // An empty result.
            1281 => {}
            520 => {
                let account = question.filter(|question| question.effect == Effect::Login);
                let account = account.and_then(|question| question.subjects.into_iter().next());
                self.login(SignalKind::LoginFailed, Method::Query, account, Some(number), context);
            }
            521 | 522 | 525 | 527 if effect == Effect::Login => {
                let account = question.and_then(|question| question.subjects.into_iter().next());
                self.login(SignalKind::LoginRefused, Method::Query, account, Some(number), context);
            }
            781 => {
                let detail =
                    Detail { method: Some(Method::ChannelKey), number: Some(number), ..self.detail() };
                context.signal(SignalKind::ChannelRefused, detail);
            }
            3329 => self.refused("banned", number, context),
            3331 => self.refused("flood", number, context),
            3840 => self.login(SignalKind::LoginFailed, Method::PrivilegeKey, None, Some(number), context),
            _ => {
                let command = question.map(|question| question.keyword);
                let detail = Detail { command, number: Some(number), ..self.detail() };
                context.signal(SignalKind::CommandRejected, detail);
            }
        }
    }

    /// A command was carried out.
    fn on_done(&mut self, question: Question, context: &mut Context<'_>) {
        let Question { keyword, effect, subjects, reason, .. } = question;
        let kind = match effect {
            Effect::Login => {
                self.account = Some(subjects.into_iter().next().unwrap_or_else(|| Text::from("")));
                let account = self.account.clone();
                return self.login(SignalKind::LoginSucceeded, Method::Query, account, None, context);
            }
            Effect::Logout => {
                let detail = Detail { method: Some(Method::Query), ..self.detail() };
                self.account = None;
                return context.signal(SignalKind::LoginEnded, detail);
            }
            Effect::PrivilegeKey => {
                return self.login(SignalKind::LoginSucceeded, Method::PrivilegeKey, None, None, context);
            }
            Effect::Rename => {
                let Some(nickname) = subjects.into_iter().next() else { return };
                let detail = Detail { nickname: Some(nickname), ..self.detail() };
                return context.signal(SignalKind::NickChanged, detail);
            }
            Effect::Message | Effect::None => return,
            Effect::Account => SignalKind::AccountChanged,
            Effect::Ban => SignalKind::UserBanned,
            Effect::ChannelChanged => SignalKind::ChannelChanged,
            Effect::ChannelCreated => SignalKind::ChannelCreated,
            Effect::ChannelRemoved => SignalKind::ChannelRemoved,
            Effect::Kick => SignalKind::UserKicked,
            Effect::Move => SignalKind::UserMoved,
            Effect::Server => SignalKind::ServerChanged,
        };
        // Patterns are looked at once the server has taken them: only then somebody is banned.
        let is_wide = |subject: &Text| is_everybody_by_pattern(subject.as_str().as_bytes());
        let bans_everybody = keyword == "banadd" && subjects.iter().any(is_wide);
        let reason = if bans_everybody { Some("everybody") } else { reason };
        let detail = Detail { command: Some(keyword), reason, ..self.detail() };
        if subjects.is_empty() {
            context.signal(kind, detail.clone());
        }
        for subject in subjects {
            context.signal(kind, Detail { target: Some(subject), ..detail.clone() });
        }
    }

    fn refused(&mut self, reason: &'static str, number: u32, context: &mut Context<'_>) {
        if !std::mem::replace(&mut self.is_refused, true) {
            let detail = Detail { reason: Some(reason), number: Some(number), ..self.detail() };
            context.signal(SignalKind::ConnectionRefused, detail);
        }
    }

    fn login(
        &self,
        kind: SignalKind,
        method: Method,
        account: Option<Text>,
        number: Option<u32>,
        context: &mut Context<'_>,
    ) {
        context.signal(kind, Detail { method: Some(method), account, number, ..Detail::default() });
    }

    fn garbage(&self, foreign: Foreign, context: &mut Context<'_>) {
        let detail = Detail { reason: Some(foreign.as_str()), ..self.detail() };
        context.signal(SignalKind::ProtocolGarbage, detail);
    }

    fn detail(&self) -> Detail {
        Detail { account: self.account.clone(), ..Detail::default() }
    }
}

impl Undocumented {
    /// What of it is in this line.
    fn find(command: &Command<'_>, line: &[u8]) -> Self {
        let mut names = Vec::new();
        for name in command.undocumented_parameters() {
            let separator = usize::from(!names.is_empty());
            if names.len().saturating_add(separator).saturating_add(name.len()) > TEXT_BYTES_MAX {
                break;
            }
            names.extend(iter::repeat_n(b' ', separator));
            names.extend_from_slice(name);
        }
        Self {
            command: command.undocumented_name(line).map(Text::new),
            parameters: (!names.is_empty()).then(|| Text::new(&names)),
        }
    }
}

/// What an answer and the question it settles have that no documentation has.
fn meet_answer(number: u32, question: Option<&Question>, context: &mut Context<'_>) {
    let command = question.and_then(|question| question.undocumented.command.as_ref());
    let within = command.map(Text::as_str).or_else(|| question.map(|question| question.keyword));
    let within = within.unwrap_or("").as_bytes();
    if !is_error(number) {
        context.meet(Sort::Number, number.to_string().as_bytes(), within);
    }
    // Done, nothing found, wrong parameters, no right to: only of a command that is there (`teamspeak.md` 5).
    if let Some(name) = command
        && matches!(number, 0 | 1281 | 1536..=1544 | 2568)
    {
        context.meet(Sort::Command, name.as_str().as_bytes(), b"");
    }
    // Wrong parameters are what the server says to those it does not know.
    let parameters = question.and_then(|question| question.undocumented.parameters.as_ref());
    if let Some(names) = parameters
        && matches!(number, 0 | 1281)
    {
        for name in names.as_str().split(' ') {
            context.meet(Sort::Parameter, name.as_bytes(), within);
        }
    }
}

/// Notices and parameters in a server's line that no documentation has. What `help` tells is no grammar.
fn meet_undocumented(line: &[u8], question: Option<&Question>, context: &mut Context<'_>) {
    if let Some(name) = undocumented_notice(line) {
        context.meet(Sort::Event, name, b"");
    }
    let within = match line.split(|byte| *byte == b' ').next() {
        Some(first) if first == b"error" || first.starts_with(b"notify") => first,
        _ => match question {
            Some(question) if question.keyword != "help" => question.keyword.as_bytes(),
            _ => return,
        },
    };
    for name in undocumented_parameters(line) {
        context.meet(Sort::Parameter, name, within);
    }
}

/// Clients for whom a server has no use: with as many it is closed.
const FEW_PLACES: u32 = 2;

/// How a change closes the server to everybody, in a word.
fn closes(command: &Command<'_>) -> Option<&'static str> {
    if command.keyword != "serveredit" {
        return None;
    }
    let places = command.value("virtualserver_maxclients").and_then(number);
    let is_narrow = places
        .and_then(|places| places.as_str().parse().ok())
        .is_some_and(|places: u32| places <= FEW_PLACES);
    let has_password = command.value("virtualserver_password").is_some_and(|password| !password.is_empty());
    if is_narrow { Some("few-places") } else { has_password.then_some("password") }
}

/// Whom or what a command is about: never a password, key, reason or text.
fn subjects(command: &Command<'_>) -> Vec<Text> {
    let numbers = |key| command.values(key).filter_map(number).take(TARGETS_MAX).collect();
    match command.effect {
        Effect::Login => login_name(command).map(unescape).into_iter().collect(),
        Effect::Kick | Effect::Move => numbers("clid"),
        Effect::Ban => {
            let named = ["ip", "uid", "name", "mytsid"].into_iter().find_map(|key| command.value(key));
            named.map_or_else(|| numbers("clid"), |name| vec![unescape(name)])
        }
        Effect::Account => numbers("cldbid"),
        Effect::Rename => command.value("client_nickname").map(unescape).into_iter().collect(),
        Effect::ChannelChanged
        | Effect::ChannelCreated
        | Effect::ChannelRemoved
        | Effect::Logout
        | Effect::Message
        | Effect::None
        | Effect::PrivilegeKey
        | Effect::Server => Vec::new(),
    }
}

/// `login client_login_name=x client_login_password=y` or `login x y`. A single word may be a password, and so may any word
/// where one is written as a parameter.
fn login_name<'a>(command: &Command<'a>) -> Option<&'a [u8]> {
    command.value("client_login_name").or_else(|| {
        if command.words().any(|word| word.contains(&b'=')) {
            return None;
        }
        let mut words = command.words();
        let name = words.next()?;
        words.next().map(|_| name)
    })
}

fn number(value: &[u8]) -> Option<Text> {
    let is_number = (1..=10).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    is_number.then(|| Text::new(value))
}
