//! What the server says: how things ended.

use memchr::memmem;

use super::{Operator, Phase, State, client::may_be_early};
use crate::{
    catalogue::Sort,
    protocol::{
        Context,
        breadth::is_everybody,
        irc::{
            dialect::{self, Closing, ServiceAnswer},
            message::Message,
            server::Server,
        },
        tls::Listener,
    },
    signal::{Detail, Method, Signal, SignalKind},
    text::Text,
    time::Span,
};

impl State {
    /// Takes one line of the server.
    pub(super) fn on_server_line(&mut self, line: &[u8], server: &mut Server, context: &mut Context<'_>) {
        if line.starts_with(b"HTTP/1.1 101") {
            server.set_speaks_websocket();
            self.phase = Phase::Opaque;
            return;
        }
        let Ok(message) = Message::parse(line) else { return };
        if self.phase == Phase::Unknown || (self.phase == Phase::Registered && self.nickname.is_none()) {
            self.learn_midway(&message);
        }
        if context.catalogues() {
            meet_undocumented(&message, context);
        }
        match (message.numeric(), message.command) {
            (Some(number), _) => {
                self.on_numeric(number, &message, server, context);
                self.note_answer(number, line, context);
            }
            (None, b"ERROR") => self.on_error(message.last().unwrap_or_default(), server, context),
            (None, b"NOTICE") => self.on_notice(&message, server, context),
            (None, command) => {
                self.note_ctcp_request(&message);
                if message.is_from_user() && message.source_name().is_some_and(|name| self.is_own_name(name))
                {
                    let before = self.nickname.as_ref().map(|nickname| nickname.raw.clone());
                    self.on_own_deed(command, &message, context);
                    if command == b"NICK" {
                        if let Some(before) = before {
                            server.leave(&before, context.connection.id);
                        }
                        self.appear(server, context);
                    }
                }
                if command == b"JOIN"
                    && let Some(name) = message.source_name().filter(|name| !self.is_own_name(name))
                {
                    self.note_arrival(name, context);
                }
                if command == b"KILL" && message.param(0).is_some_and(|name| self.is_own_name(name)) {
                    self.on_killed(&message, server, context);
                }
                if command == b"KICK" && message.param(1).is_some_and(|name| self.is_own_name(name)) {
                    let channel = message.param(0).map(Text::new);
                    self.leave_channel(context);
                    context.signal(
                        SignalKind::ChannelLeft,
                        Detail { channel, reason: Some("kicked"), ..self.detail() },
                    );
                }
            }
        }
    }

    /// Whose connection this is, when its beginning was missed: what only registered users get shows that one is
    /// there, and some of it names them.
    fn learn_midway(&mut self, message: &Message<'_>) {
        let Some(first) = message.param(0).filter(|first| *first != b"*") else {
            return;
        };
        let names_them = match message.numeric() {
            // The rest of the registration, and answers to commands.
            Some(number) => matches!(number, 2..=19 | 200..=399),
            None => matches!(message.command, b"PRIVMSG" | b"NOTICE"),
        };
        if names_them && !first.iter().any(|byte| b"#&$@+!".contains(byte)) {
            if message.numeric().is_some() || message.is_from_user() {
                self.set_nickname(first);
                self.phase = Phase::Registered;
            }
        } else if message.is_from_user() {
            self.phase = Phase::Registered;
        }
    }

    fn on_numeric(
        &mut self,
        number: u32,
        message: &Message<'_>,
        server: &mut Server,
        context: &mut Context<'_>,
    ) {
        match number {
            1 => self.on_welcome(message, server, context),
            4 | 351 => server.learn(message),
            329 => {
                if let (Some(channel), Some(timestamp)) = (message.param(1), message.param(2)) {
                    dialect::seconds(timestamp)
                        .into_iter()
                        .for_each(|at| server.learn_timestamp(channel, at));
                }
            }
            381 => {
                self.operator = Operator::Yes;
                let account = self.opers.pop().flatten();
                self.login(SignalKind::LoginSucceeded, Method::Oper, account, Some(number), context);
            }
            // The MOTD is missing: nobody's mistake.
            422 => {}
            464 => self.on_password_incorrect(context),
            491 => self.on_oper_failed(number, context),
            463 | 465 => {
                let reason = if number == 465 { "banned" } else { "not-authorised" };
                self.refused(reason, Some(number), context);
            }
            471 | 473..=475 | 477 | 489 => self.on_channel_refused(number, message, context),
            670 => {
                context.signal(SignalKind::TlsHandshake, self.detail());
                self.is_tls = true;
                self.phase = Phase::Encrypted(Listener::new(context.at));
            }
            900 if self.sasl.is_under_way() => self.sasl.named = message.param(2).map(Text::new),
            903 => {
                let account = self.end_sasl();
                self.login(SignalKind::LoginSucceeded, Method::Sasl, account, Some(number), context);
            }
            902 | 904 | 905 => self.on_sasl_failed(number, context),
            691 => context.signal(SignalKind::TlsFailed, self.detail()),
            // Also sent for an exchange that never began.
            906 if self.sasl.is_under_way() => self.on_sasl_failed(number, context),
            263 | 400..=599 | 713 | 714 | 716 | 742 => self.on_rejected(number, message, context),
            _ => {}
        }
    }

    /// What the server has to say because it was asked.
    fn note_answer(&mut self, number: u32, line: &[u8], context: &mut Context<'_>) {
        if self.phase != Phase::Registered || !matches!(number, 5..=20 | 200..=399) {
            return;
        }
        self.answer_bytes = self.answer_bytes.saturating_add(line.len() as u64);
        if dialect::ends_answer(number) {
            let weight = std::mem::take(&mut self.answer_bytes);
            context.signal(
                SignalKind::CommandAnswered,
                Detail { number: Some(number), weight, ..self.detail() },
            );
        }
    }

    fn on_welcome(&mut self, message: &Message<'_>, server: &mut Server, context: &mut Context<'_>) {
        if self.phase == Phase::Registered {
            return;
        }
        self.phase = Phase::Registered;
        self.active_at = context.at;
        self.is_refused = false;
        self.link = None;
        if let Some(nickname) = message.param(0) {
            self.set_nickname(nickname);
        }
        self.appear(server, context);
        self.login(SignalKind::LoginSucceeded, Method::Registration, None, Some(1), context);
        self.say_early(message.param(0).unwrap_or_default(), context);
    }

    /// 464: before registration the server's password was wrong or missing, afterwards an operator's.
    fn on_password_incorrect(&mut self, context: &mut Context<'_>) {
        match self.phase {
            Phase::Registered => self.on_oper_failed(464, context),
            Phase::Unknown if !self.has_sent_password => self.on_oper_failed(464, context),
            Phase::Unknown
            | Phase::Registering
            | Phase::LinkOffered
            | Phase::Linked
            | Phase::Encrypted(_)
            | Phase::Opaque => {
                self.on_server_password_failed(Some(464), context);
            }
        }
    }

    fn on_oper_failed(&mut self, number: u32, context: &mut Context<'_>) {
        let account = self.opers.pop().flatten();
        self.login(SignalKind::LoginFailed, Method::Oper, account, Some(number), context);
    }

    fn on_server_password_failed(&mut self, number: Option<u32>, context: &mut Context<'_>) {
        self.is_refused = true;
        self.login(SignalKind::LoginFailed, Method::ServerPassword, None, number, context);
    }

    /// The end of a SASL exchange; the account it was about.
    fn end_sasl(&mut self) -> Option<Text> {
        let named = self.sasl.named.take();
        if self.sasl.asked.is_empty() {
            // Refused before the client had said all.
            self.sasl.is_open = false;
            return named;
        }
        let asked = self.sasl.asked.pop().flatten();
        named.or(asked)
    }

    /// 001 does not take it back: after 904 a client may register without an account.
    fn on_sasl_failed(&mut self, number: u32, context: &mut Context<'_>) {
        let account = self.end_sasl();
        self.login(SignalKind::LoginFailed, Method::Sasl, account, Some(number), context);
    }

    fn on_channel_refused(&self, number: u32, message: &Message<'_>, context: &mut Context<'_>) {
        let detail = Detail {
            method: (number == 475).then_some(Method::ChannelKey),
            channel: message.param(1).filter(|name| dialect::is_channel(name)).map(Text::new),
            number: Some(number),
            ..self.detail()
        };
        context.signal(SignalKind::ChannelRefused, detail);
    }

    fn on_rejected(&mut self, number: u32, message: &Message<'_>, context: &mut Context<'_>) {
        let subject = message.param(1).unwrap_or_default();
        let command = match number {
            421 | 461 => Some(dialect::keyword(subject).unwrap_or("unknown")),
            // 453: TS4's way of taking a nickname and leaving its owner connected.
            431..=433 | 436 | 438 | 453 => Some("NICK"),
            _ => None,
        };
        match number {
            481 if self.operator == Operator::Unknown => self.operator = Operator::No,
            431..=433 | 437 | 438 => self.nicknames_asked = self.nicknames_asked.saturating_sub(1),
            // The ERROR that follows says it again.
            436 => self.is_refused = true,
            451 => self.on_not_registered(message),
            _ => {}
        }
        let channel = dialect::is_channel(subject).then(|| Text::new(subject));
        let detail = Detail { command, channel, number: Some(number), ..self.detail() };
        context.signal(SignalKind::CommandRejected, detail);
    }

    /// 451 is the only answer to what came too early; some servers do not say what they answer.
    fn on_not_registered(&mut self, message: &Message<'_>) {
        let named = message.params().iter().take(2).find_map(|word| dialect::keyword(word));
        match named {
            Some("OPER") => {
                self.opers.pop();
            }
            None if !self.opers.is_empty() => {
                self.opers.pop();
            }
            Some(keyword) if !may_be_early(keyword) => {}
            Some(_) | None => {
                self.early.pop();
            }
        }
    }

    /// ERROR is the last line before the server closes.
    fn on_error(&mut self, text: &[u8], server: &mut Server, context: &mut Context<'_>) {
        server.learn_from_error(text);
        // ngIRCd repeats a quit message between quotes, alone or behind whose it was; others as it is.
        let repeats = |quit: &[u8]| {
            let quoted = [b"\"", quit].concat();
            let behind = [b" (\"", quit].concat();
            text == quit || text.starts_with(&quoted) || memmem::find(text, &behind).is_some()
        };
        if self.is_refused || self.quit_message.as_deref().is_some_and(repeats) {
            return;
        }
        let closing = dialect::closing(text);
        match closing {
            Closing::Ordinary => {}
            Closing::Held => self.on_held(context),
            Closing::Banned => self.refused("banned", None, context),
            Closing::Clones => self.refused("clones", None, context),
            Closing::Flood => self.refused("flood", None, context),
            Closing::Full => self.refused("full", None, context),
            Closing::Killed => self.refused("killed", None, context),
            Closing::SendQueue => self.refused("sendq", None, context),
            Closing::Throttled => self.refused("throttled", None, context),
            Closing::TooManyFailures => self.refused("too-many-failures", None, context),
            Closing::Collision => self.on_collision(context),
            Closing::Denied
            | Closing::LinkRefused
            | Closing::NotAuthorised
            | Closing::Password
            | Closing::Unknown => self.on_unwelcome(closing, context),
        }
    }

    /// Not registered in time. For a registered client it is a dead connection.
    fn on_held(&mut self, context: &mut Context<'_>) {
        if matches!(self.phase, Phase::Registering | Phase::LinkOffered) {
            self.is_refused = true;
            // The server knows best how long it has waited.
            if self.place.is_due(context.at, Span::ZERO, Span::ZERO) {
                let detail = Detail { reason: Some("timeout"), ..self.detail() };
                context.signal(SignalKind::ConnectionHeld, detail);
            }
        }
    }

    /// A collision is the network's doing: reported as a nickname refused, not as a connection refused.
    fn on_collision(&self, context: &mut Context<'_>) {
        let detail = Detail { command: Some("NICK"), reason: Some("collision"), ..self.detail() };
        context.signal(SignalKind::CommandRejected, detail);
    }

    /// Refusals that mean one thing to a client, another to a server and nothing new to a registered user.
    fn on_unwelcome(&mut self, closing: Closing, context: &mut Context<'_>) {
        if self.phase == Phase::LinkOffered {
            self.is_refused = true;
            // Already linked, no such class: no guess at a password.
            if closing == Closing::Unknown {
                let detail = Detail { reason: Some("other"), ..self.detail() };
                return context.signal(SignalKind::ConnectionRefused, detail);
            }
            return self.login(SignalKind::LoginFailed, Method::Link, self.link.clone(), None, context);
        }
        let is_password =
            closing == Closing::Password || (closing == Closing::Denied && self.has_sent_password);
        if is_password {
            return self.on_server_password_failed(None, context);
        }
        if closing != Closing::Unknown {
            return self.refused("not-authorised", None, context);
        }
        if self.phase == Phase::Registering {
            self.refused("other", None, context);
        }
    }

    fn refused(&mut self, reason: &'static str, number: Option<u32>, context: &mut Context<'_>) {
        if !std::mem::replace(&mut self.is_refused, true) {
            let detail = Detail { reason: Some(reason), number, ..self.detail() };
            context.signal(SignalKind::ConnectionRefused, detail);
        }
    }

    /// An answer of services counts only from the pseudo-client that was asked, while it owes one.
    fn on_notice(&mut self, message: &Message<'_>, server: &mut Server, context: &mut Context<'_>) {
        if !message.is_from_user() {
            self.on_timestamp_notice(message, server, context);
        }
        if self.identifications.is_empty() {
            return;
        }
        let (Some(source), Some(text)) = (message.source_name(), message.param(1)) else {
            return;
        };
        let Some(service) = dialect::service_by_name(source) else {
            return;
        };
        // Where a network has no such service its name is free for anybody to take, and to hand out logins.
        if server.is_taken(source) {
            return;
        }
        let Some(answer) = dialect::service_answer(text) else { return };
        // A service that is not there never answers, and must not keep the others from being heard.
        while self.identifications.front().is_some_and(|asked| asked.service != service) {
            self.identifications.pop();
        }
        if self.identifications.is_empty() {
            return;
        }
        let (kind, is_named) = match answer {
            ServiceAnswer::Failed => (SignalKind::LoginFailed, true),
            ServiceAnswer::Refused => (SignalKind::LoginRefused, true),
            ServiceAnswer::Succeeded => (SignalKind::LoginSucceeded, true),
            ServiceAnswer::Unknown => (SignalKind::LoginFailed, false),
            ServiceAnswer::TakenOver => {
                if self.identifications.front().is_some_and(|asked| asked.takes_over) {
                    self.identifications.pop();
                }
                return;
            }
        };
        // What logs somebody in is no answer to taking a nickname back: services said something else to that, or nothing.
        while kind == SignalKind::LoginSucceeded
            && self.identifications.front().is_some_and(|asked| asked.takes_over)
        {
            self.identifications.pop();
        }
        let account = self.identifications.pop().and_then(|asked| asked.account).filter(|_| is_named);
        self.login(kind, Method::Services, account, None, context);
    }

    /// `:server NOTICE #c :*** Notice -- TS for #c changed from 2 to 1`: told to every member, reported once.
    fn on_timestamp_notice(&self, message: &Message<'_>, server: &mut Server, context: &mut Context<'_>) {
        let (Some(channel), Some(text)) = (message.param(0), message.param(1)) else { return };
        let Some((old, new)) = dialect::timestamp_change(channel, text) else { return };
        if let Some(reason) = server.learn_change(channel, old, new) {
            let detail = Detail {
                channel: Some(Text::new(channel)),
                number: Some(u32::try_from(new).unwrap_or(u32::MAX)),
                reason: Some(reason),
                weight: old,
                ..Detail::default()
            };
            context.signal(SignalKind::ChannelTimestampChanged, detail);
        }
    }

    /// Under this name the one on this connection acts from now on.
    fn appear(&self, server: &mut Server, context: &Context<'_>) {
        if let Some(nickname) = &self.nickname {
            server.appear(&nickname.raw, context.connection.client, context.connection.id, context.at);
        }
    }

    /// An operator's KILL is shown to its victim alone: it counts for the operator, if they are connected here.
    fn on_killed(&self, message: &Message<'_>, server: &Server, context: &mut Context<'_>) {
        let Some(name) = message.source_name() else { return };
        let Some((address, flow)) = server.present(name) else { return };
        let target = self.nickname.as_ref().map(|nickname| nickname.text.clone());
        let nickname = Some(Text::new(name));
        let detail = Detail { nickname, target, command: Some("KILL"), ..Detail::default() };
        let (kind, at, service) = (SignalKind::UserKicked, context.at, context.connection.service);
        context.output.signals.push(Signal { kind, at, service, address, flow: Some(flow), detail });
    }

    /// The server shows this client what it did, in its own name.
    fn on_own_deed(&mut self, command: &[u8], message: &Message<'_>, context: &mut Context<'_>) {
        let first = message.param(0).unwrap_or_default();
        let detail = Detail { channel: Some(Text::new(first)), ..self.detail() };
        match command {
            b"JOIN" => {
                self.channels = self.channels.saturating_add(1);
                context.signal(SignalKind::ChannelJoined, detail);
            }
            b"PART" => {
                self.leave_channel(context);
                context.signal(SignalKind::ChannelLeft, detail);
            }
            b"TOPIC" => {
                context.signal(SignalKind::ChannelChanged, Detail { command: Some("TOPIC"), ..detail });
            }
            b"KICK" => {
                let target = message.param(1).map(Text::new);
                let detail = Detail { target, command: Some("KICK"), ..detail };
                context.signal(SignalKind::UserKicked, detail);
            }
            b"MODE" if dialect::is_channel(first) => on_own_mode(&detail, message, context),
            b"NICK" => self.on_own_nick(first, context),
            _ => {}
        }
    }

    const fn leave_channel(&mut self, context: &Context<'_>) {
        self.channels = self.channels.saturating_sub(1);
        self.active_at = context.at;
    }

    /// A new nickname is in force. One that was not asked for (services, a collision on TS6) changes the name
    /// but is not the client's doing.
    fn on_own_nick(&mut self, nickname: &[u8], context: &mut Context<'_>) {
        self.set_nickname(nickname);
        if self.nicknames_asked > 0 {
            self.nicknames_asked = self.nicknames_asked.saturating_sub(1);
            context.signal(SignalKind::NickChanged, self.detail());
        }
    }
}

/// Commands and numerics of the server that no documentation has.
fn meet_undocumented(message: &Message<'_>, context: &mut Context<'_>) {
    let is_known = match message.numeric() {
        Some(number) => dialect::is_numeric(number),
        None => dialect::keyword(message.command).is_some(),
    };
    if !is_known {
        let sort = if message.numeric().is_some() { Sort::Number } else { Sort::Event };
        context.meet(sort, message.command, b"");
    }
}

/// Whether it can be whom a ban is against. The arguments of modes that only some servers have are not known: a channel's
/// key may stand where the mask was expected, and must not be shown.
fn is_mask(argument: &[u8]) -> bool {
    let has = |byte: u8| argument.contains(&byte);
    (has(b'!') && has(b'@')) || matches!(argument, [b'~' | b'$', _, b':', ..] | [_, b':', ..])
}

/// `MODE #channel +modes arguments`: each `+b` is a ban, a line without one a change of the channel.
pub(super) fn on_own_mode(detail: &Detail, message: &Message<'_>, context: &mut Context<'_>) {
    let modes = message.param(1).unwrap_or_default();
    let mut arguments = message.params().iter().skip(2);
    let (mut is_adding, mut has_banned) = (true, false);
    for mode in modes {
        match mode {
            b'+' => is_adding = true,
            b'-' => is_adding = false,
            b'b' if is_adding => {
                has_banned = true;
                let mask = arguments.next().filter(|mask| is_mask(mask));
                let reason = mask.is_some_and(|mask| is_everybody(mask)).then_some("everybody");
                let target = mask.map(|mask| Text::new(mask));
                let detail = Detail { target, reason, command: Some("MODE"), ..detail.clone() };
                context.signal(SignalKind::UserBanned, detail);
            }
            // Taken from somebody else: one's own rank is one's own affair.
            b'o' | b'a' | b'h' if !is_adding => {
                let target = arguments.next().map(|name| Text::new(name));
                if target.is_some() && target != detail.nickname {
                    let detail = Detail { target, command: Some("DEOP"), ..detail.clone() };
                    context.signal(SignalKind::ChannelChanged, detail);
                }
            }
            // Lists and ranks always have an argument, limits only when they are set.
            b'b' | b'e' | b'I' | b'q' | b'o' | b'h' | b'v' | b'a' | b'k' | b'g' | b'w' | b'X' => {
                arguments.next();
            }
            b'l' | b'f' | b'j' | b'L' | b'H' if is_adding => {
                arguments.next();
            }
            _ => {}
        }
    }
    if !has_banned {
        context.signal(SignalKind::ChannelChanged, Detail { command: Some("MODE"), ..detail.clone() });
    }
}
