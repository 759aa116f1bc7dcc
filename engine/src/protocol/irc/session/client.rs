//! What the client says.

use memchr::memchr;

use super::{Identification, Operator, Phase, State, answers::on_own_mode, cut};
use crate::{
    protocol::{
        Context, GREETED_WITHIN, GREETING,
        breadth::is_everybody,
        irc::{
            dialect::{self, Audience, Credentials, Rule},
            message::{CONTENT_BYTES_MAX, Malformed, Message},
        },
        lines::Line,
    },
    signal::{Content, Detail, Method, SignalKind},
    text::Text,
    time::Timestamp,
};

/// Length of a piece of a SASL payload that is not the last.
const SASL_PIECE_BYTES: usize = 400;

/// Targets of one message that are counted; servers refuse as many (407) or fewer.
const TARGETS_MAX: usize = 20;

/// Arrivals that are remembered: more than come within [`GREETED_WITHIN`] unless a network comes together again.
pub(super) const ARRIVALS_MAX: usize = 16;

impl State {
    /// Takes one line of the client.
    pub(super) fn on_client_line(&mut self, line: Line<'_>, is_gateway: bool, context: &mut Context<'_>) {
        let (line, is_too_long) = match line {
            Line::Complete(line) => (line, false),
            Line::TooLong(beginning) => (beginning, true),
        };
        // A NUL ends the line for ircd-hybrid and ngIRCd, so what stands before it is still a command.
        let text = memchr(0, line).and_then(|end| line.get(..end));
        if text.is_some() && self.foreign.is_none() {
            self.garbage("nul", context);
        }
        match Message::parse(text.unwrap_or(line)) {
            Ok(message) => {
                // The limit counts CR LF, which are gone here.
                if is_too_long || message.content_bytes > CONTENT_BYTES_MAX.saturating_sub(2) {
                    self.garbage("line-too-long", context);
                }
                if self.is_early(&message) {
                    self.early.push(text.unwrap_or(line));
                } else if !(is_gateway && is_introduction(&message)) {
                    self.on_client_message(&message, context);
                }
            }
            Err(Malformed::Empty) => {}
            Err(Malformed::BadCommand | Malformed::NoCommand) => {
                if self.foreign.is_none() && !self.is_link() {
                    self.garbage("malformed", context);
                }
            }
        }
    }

    fn on_client_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let is_first = !std::mem::replace(&mut self.has_spoken, true);
        let Some(keyword) = dialect::keyword(message.command) else {
            if self.foreign.is_none() && !self.is_link() {
                // Whoever begins with it speaks another protocol.
                if is_first && self.phase == Phase::Registering {
                    self.garbage("foreign-words", context);
                }
                self.command("unknown", context);
            }
            return;
        };
        // A word of services: nobody has a nickname yet. TeamTalk and ServerQuery begin with it.
        if is_first && keyword == "LOGIN" && self.phase == Phase::Registering && !self.is_link() {
            self.garbage("foreign-words", context);
        }
        match keyword {
            "PING" if !self.is_link() => self.command(keyword, context),
            "CAP" | "PING" | "PONG" | "ERROR" => {}
            "PASS" => self.on_pass(message),
            "NICK" => self.on_nick(message, context),
            "USER" => self.on_user(context),
            "QUIT" => {
                self.has_quit = true;
                self.quit_message = message.param(0).map(|words| cut(words).into());
            }
            "AUTHENTICATE" => self.on_authenticate(message, context),
            "OPER" | "CHALLENGE" => self.on_oper(message, context),
            "CAPAB" | "PROTOCTL" | "SERVER" => self.on_link_word(keyword, message, context),
            "PRIVMSG" | "NOTICE" | "SQUERY" => self.on_talk(keyword, message, context),
            "MODE" if asks_for_channel_password(message) => {
                self.on_operator_guess(keyword, message.param(0), context)
            }
            "COOKIE" => self.on_operator_guess(keyword, None, context),
            _ => match dialect::service_by_command(keyword) {
                Some(service) => self.on_service_command(keyword, service, message, context),
                None if keyword == "INVITE" => {
                    let target = message.param(0).map(Text::new);
                    let detail = Detail { command: Some(keyword), target, ..self.detail() };
                    context.signal(SignalKind::CommandSent, detail);
                }
                None => {
                    self.command(keyword, context);
                    self.on_rule(keyword, message, context);
                }
            },
        }
    }

    /// What only an operator may do. That the server carried it out is not always said, that it did not is (481, 723).
    fn on_rule(&self, keyword: &'static str, message: &Message<'_>, context: &mut Context<'_>) {
        let Some(rule) = dialect::rule(keyword).filter(|_| self.operator != Operator::No) else { return };
        let detail = Detail { command: Some(keyword), ..self.detail() };
        match rule {
            Rule::Ban => {
                let is_duration =
                    |word: &&&[u8]| word.iter().all(|byte| byte.is_ascii_digit() || b"smhdwy".contains(byte));
                let mask = message.params().iter().find(|word| !is_duration(word));
                if let Some(mask) = mask.filter(|mask| is_everybody(mask.strip_prefix(b"+").unwrap_or(mask)))
                {
                    let detail =
                        Detail { target: Some(Text::new(mask)), reason: Some("everybody"), ..detail };
                    context.signal(SignalKind::UserBanned, detail);
                }
            }
            Rule::Modes => {
                let channel = message.param(0).map(Text::new);
                on_own_mode(&Detail { channel, command: None, ..detail }, message, context);
            }
            Rule::Force(argument) => {
                let target = message.param(argument).map(Text::new);
                context.signal(SignalKind::UserMoved, Detail { target, ..detail });
            }
            Rule::Change => context.signal(SignalKind::ServerChanged, detail),
        }
    }

    /// Whether the client has said who it is and goes on before the server has let it in: a server that does so at once
    /// carries all of it out, another answers 451.
    fn is_early(&self, message: &Message<'_>) -> bool {
        self.phase == Phase::Registering
            && self.has_sent_user
            && self.nickname.is_some()
            && !self.has_quit
            && dialect::keyword(message.command).is_some_and(may_be_early)
    }

    /// The client is in: what it had said before is said now.
    pub(super) fn say_early(&mut self, nickname: &[u8], context: &mut Context<'_>) {
        let early = std::mem::take(&mut self.early);
        // The last wish for the name that came out was part of registering, and so were those before.
        let is_wish = |line: &[u8]| {
            Message::parse(line).is_ok_and(|message| {
                message.command.eq_ignore_ascii_case(b"NICK") && message.param(0) == Some(nickname)
            })
        };
        let granted = early.lines.iter().rposition(|line| is_wish(line));
        for (at, line) in early.lines.iter().enumerate() {
            let Ok(message) = Message::parse(line) else { continue };
            let was_wish =
                message.command.eq_ignore_ascii_case(b"NICK") && granted.is_some_and(|last| at <= last);
            if !was_wish {
                self.on_client_message(&message, context);
            }
        }
    }

    fn is_link(&self) -> bool {
        matches!(self.phase, Phase::LinkOffered | Phase::Linked)
    }

    fn command(&self, keyword: &'static str, context: &mut Context<'_>) {
        context.signal(SignalKind::CommandSent, Detail { command: Some(keyword), ..self.detail() });
    }

    /// `PASS password`, or a server's `PASS password TS 6 sid`, `PASS password 0210-IRC+ …`.
    fn on_pass(&mut self, message: &Message<'_>) {
        if !matches!(self.phase, Phase::Registering | Phase::Unknown) {
            return;
        }
        self.has_sent_password = true;
        let is_link = message.param(1).is_some_and(|second| {
            second.eq_ignore_ascii_case(b"TS")
                || (second.len() > 4 && second.iter().take(4).all(u8::is_ascii_digit))
        });
        if is_link && self.phase == Phase::Registering {
            self.phase = Phase::LinkOffered;
        }
    }

    fn on_nick(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let Some(wish) = message.param(0) else { return };
        match self.phase {
            Phase::Registered | Phase::Unknown => {
                self.nicknames_asked = self.nicknames_asked.saturating_add(1);
                self.command("NICK", context);
            }
            // The last wish before 001 is the best name for what fails before it.
            Phase::Registering | Phase::LinkOffered => self.set_nickname(wish),
            Phase::Encrypted(_) | Phase::Linked | Phase::Opaque => {}
        }
    }

    fn on_user(&mut self, context: &mut Context<'_>) {
        if self.phase == Phase::Registered {
            return self.command("USER", context);
        }
        if !std::mem::replace(&mut self.has_sent_user, true) {
            self.login(SignalKind::LoginAttempted, Method::Registration, None, None, context);
        }
    }

    /// `AUTHENTICATE mechanism`, then the payload, of which the account alone is read.
    fn on_authenticate(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let Some(argument) = message.param(0) else { return };
        if self.sasl.is_open {
            let is_plain = std::mem::take(&mut self.sasl.is_plain);
            let account = if is_plain { plain_account(argument) } else { None };
            // A full piece is followed by another (IRCv3 SASL 3.1).
            if argument.len() < SASL_PIECE_BYTES {
                self.sasl.is_open = false;
                self.sasl.asked.push(account);
            }
        } else if argument != b"*" {
            self.sasl.is_open = true;
            self.sasl.is_plain = argument.eq_ignore_ascii_case(b"PLAIN");
            self.login(SignalKind::LoginAttempted, Method::Sasl, None, None, context);
        }
    }

    /// `OPER name password`, or solanum's `CHALLENGE name`.
    fn on_oper(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let is_challenge = message.command.eq_ignore_ascii_case(b"CHALLENGE");
        let name = match message.params() {
            // The second half of a challenge.
            [first, ..] if is_challenge && first.starts_with(b"+") => return,
            [name] if is_challenge => *name,
            [name, _, ..] => *name,
            // 461, which says so itself.
            _ => return self.command(if is_challenge { "CHALLENGE" } else { "OPER" }, context),
        };
        let account = Some(Text::new(name));
        self.opers.push(account.clone());
        self.login(SignalKind::LoginAttempted, Method::Oper, account, None, context);
    }

    /// What makes a channel operator on TS4 servers and may be tried as often as one likes: `MODE #channel =c password`,
    /// which the server answers with 338 or 339 whoever asks, and `COOKIE cookie` after a reconnection.
    fn on_operator_guess(&self, keyword: &'static str, channel: Option<&[u8]>, context: &mut Context<'_>) {
        let detail = Detail {
            method: Some(Method::ChannelOperator),
            channel: channel.map(Text::new),
            command: Some(keyword),
            ..self.detail()
        };
        context.signal(SignalKind::LoginAttempted, detail);
    }

    /// What only servers say before they are known: CAPAB, SERVER, PROTOCTL with a server's tokens.
    fn on_link_word(&mut self, keyword: &'static str, message: &Message<'_>, context: &mut Context<'_>) {
        let is_possible = match self.phase {
            Phase::Registering | Phase::LinkOffered => !self.has_sent_user,
            Phase::Encrypted(_) | Phase::Linked | Phase::Registered | Phase::Unknown | Phase::Opaque => false,
        };
        let is_server = match keyword {
            "PROTOCTL" => message.params().iter().any(|token| {
                [b"EAUTH=".as_slice(), b"SID=", b"SERVERS=", b"NOQUIT"]
                    .iter()
                    .any(|mark| token.starts_with(mark))
            }),
            "SERVER" => message.params().len() >= 2,
            _ => true,
        };
        if !is_possible || !is_server {
            return self.command(keyword, context);
        }
        self.phase = Phase::LinkOffered;
        if keyword == "SERVER" {
            self.link = message.param(0).map(Text::new);
            self.login(SignalKind::LoginAttempted, Method::Link, self.link.clone(), None, context);
        }
    }

    /// `PRIVMSG targets :text`, `NOTICE targets :text`. Before registration the server only answers 451.
    fn on_talk(&mut self, keyword: &'static str, message: &Message<'_>, context: &mut Context<'_>) {
        if !matches!(self.phase, Phase::Registered | Phase::Unknown) {
            return;
        }
        let (Some(targets), Some(text)) = (message.param(0), message.param(1)) else {
            return self.command(keyword, context);
        };
        self.active_at = context.at;
        let service = dialect::service_by_name(targets);
        if let Some(service) = service
            && keyword != "NOTICE"
            && self.on_service_words(service, text.split(|byte| *byte == b' '), context)
        {
            return;
        }
        // Whoever asks is one user, wherever they asked.
        let is_to_one = !targets.contains(&b',') && dialect::audience(targets).0 == Audience::User;
        let is_ctcp = keyword == "NOTICE" && text.starts_with(b"\x01");
        let is_answer = is_ctcp && is_to_one && self.take_ctcp_request();
        let command = talk_command(keyword, text, is_answer);
        let weight = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let content = service.is_none().then(|| context.hash_content(text));
        let link = content.and_then(Content::reason);
        let targets = targets.split(|byte| *byte == b',').filter(|target| !target.is_empty());
        for target in targets.take(TARGETS_MAX) {
            let detail = Detail { command: Some(command), content, weight, ..self.detail() };
            let (audience, name) = dialect::audience(target);
            let name = Some(Text::new(name));
            match audience {
                Audience::Broadcast => context.signal(SignalKind::MessageBroadcast, detail),
                Audience::Channel => {
                    context
                        .signal(SignalKind::MessageChannel, Detail { channel: name, reason: link, ..detail });
                }
                Audience::User => {
                    let is_greeting = self.has_just_come(target, context);
                    let reason = if is_greeting { Some(GREETING) } else { link };
                    context.signal(SignalKind::MessagePrivate, Detail { target: name, reason, ..detail })
                }
            }
        }
    }

    /// `NS IDENTIFY …`, `IDENTIFY …`: a server's short cuts to services.
    fn on_service_command(
        &mut self,
        keyword: &'static str,
        service: &'static str,
        message: &Message<'_>,
        context: &mut Context<'_>,
    ) {
        let is_verb = matches!(keyword, "IDENTIFY" | "ID" | "LOGIN");
        let verb = is_verb.then_some(keyword.as_bytes());
        let params = message.params().iter().flat_map(|param| param.split(|byte| *byte == b' '));
        if !self.on_service_words(service, verb.into_iter().chain(params), context) {
            self.command(keyword, context);
        }
    }

    /// Whether these words to services were a login.
    fn on_service_words<'a>(
        &mut self,
        service: &'static str,
        words: impl Iterator<Item = &'a [u8]>,
        context: &mut Context<'_>,
    ) -> bool {
        let Some(Credentials { account, takes_over }) =
            dialect::credentials(words.filter(|word| !word.is_empty()))
        else {
            return false;
        };
        let own = || self.nickname.as_ref().map(|nickname| nickname.text.clone());
        let account = account.map(Text::new).or_else(own);
        self.identifications.push(Identification { service, account, takes_over });
        // No account here: whoever swaps the two words would have the password reported. The answer settles it.
        self.login(SignalKind::LoginAttempted, Method::Services, None, None, context);
        true
    }
}

/// Whether a command is kept for when its client is let in; the others mean the same before.
pub(super) fn may_be_early(keyword: &str) -> bool {
    matches!(keyword, "NICK" | "PRIVMSG" | "NOTICE" | "SQUERY")
        || dialect::service_by_command(keyword).is_some()
}

/// `MODE #channel =c password` (irc.md C3): the sign is no sign of any other server's modes.
fn asks_for_channel_password(message: &Message<'_>) -> bool {
    message.param(1).is_some_and(|modes| modes.starts_with(b"=") && modes.contains(&b'c'))
        && message.param(2).is_some()
}

impl State {
    /// Whether somebody has sent a CTCP request that is not answered yet: one answer each, or a flood could be told as answers.
    fn take_ctcp_request(&mut self) -> bool {
        let has_one = self.ctcp_requests > 0;
        self.ctcp_requests = self.ctcp_requests.saturating_sub(1);
        has_one
    }

    /// Somebody else joined a channel this one is in.
    pub(super) fn note_arrival(&mut self, name: &[u8], context: &Context<'_>) {
        self.arrivals.retain(|(_, at)| context.at.since(*at) <= GREETED_WITHIN);
        if self.arrivals.len() >= ARRIVALS_MAX {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back((context.hash(&name.to_ascii_lowercase()), context.at));
    }

    fn has_just_come(&self, name: &[u8], context: &Context<'_>) -> bool {
        if self.arrivals.is_empty() {
            return false;
        }
        let hash = context.hash(&name.to_ascii_lowercase());
        let is_recent = |at: Timestamp| context.at.since(at) <= GREETED_WITHIN;
        self.arrivals.iter().any(|(known, at)| *known == hash && is_recent(*at))
    }

    /// Somebody may have sent one.
    pub(super) fn note_ctcp_request(&mut self, message: &Message<'_>) {
        let is_ctcp = message.param(1).is_some_and(is_ctcp_request);
        if message.command == b"PRIVMSG" && is_ctcp {
            self.ctcp_requests = self.ctcp_requests.saturating_add(1);
        }
    }
}

fn is_ctcp_request(text: &[u8]) -> bool {
    text.strip_prefix(b"\x01").is_some_and(|ctcp| !ctcp.starts_with(b"ACTION"))
}

/// How a gateway says whom it brings: `WEBIRC password gateway host address`, or a HAProxy header.
fn is_introduction(message: &Message<'_>) -> bool {
    [b"WEBIRC".as_slice(), b"PROXY"].iter().any(|word| message.command.eq_ignore_ascii_case(word))
}

/// The keyword a message is reported under. An ACTION is talk like any other; an answer to a CTCP is not
/// a question, lest the victim of a CTCP flood be taken for its source.
fn talk_command(keyword: &'static str, text: &[u8], is_answer: bool) -> &'static str {
    match keyword {
        "PRIVMSG" if is_ctcp_request(text) => "CTCP",
        "NOTICE" if is_answer => "CTCP-REPLY",
        _ => keyword,
    }
}

/// The account in a SASL PLAIN payload: base64 of `authzid NUL authcid NUL password`. Decodes on the stack, and
/// only up to the second NUL; a payload without it names nobody.
fn plain_account(payload: &[u8]) -> Option<Text> {
    let mut account = [0_u8; 96];
    let (mut count, mut nuls) = (0_usize, 0_u32);
    for byte in Base64::new(payload) {
        match (byte, nuls) {
            (0, 0) => nuls = 1,
            (0, _) => {
                return account.get(..count).filter(|name| !name.is_empty()).map(Text::new);
            }
            (_, 0) => {}
            (byte, _) => {
                *account.get_mut(count)? = byte;
                count = count.saturating_add(1);
            }
        }
    }
    None
}

/// Bytes out of base64, up to the first character that is not.
struct Base64<'a> {
    characters: std::slice::Iter<'a, u8>,
    bits: u32,
    count: u32,
}

impl<'a> Base64<'a> {
    fn new(characters: &'a [u8]) -> Self {
        Self { characters: characters.iter(), bits: 0, count: 0 }
    }
}

impl Iterator for Base64<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        while self.count < 8 {
            let value = match *self.characters.next()? {
                upper @ b'A'..=b'Z' => upper.saturating_sub(b'A'),
                lower @ b'a'..=b'z' => lower.saturating_sub(b'a').saturating_add(26),
                digit @ b'0'..=b'9' => digit.saturating_sub(b'0').saturating_add(52),
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            self.bits = ((self.bits & 0xff) << 6) | u32::from(value);
            self.count = self.count.saturating_add(6);
        }
        self.count = self.count.saturating_sub(8);
        u8::try_from((self.bits >> self.count) & 0xff).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_of_a_plain_payload_is_read_and_nothing_more() {
        // "alice\0alice\0s3cret", "\0bob\0pw", "alice\0s3cret" (malformed: no second NUL).
        assert_eq!(plain_account(b"YWxpY2UAYWxpY2UAczNjcmV0"), Some(Text::from("alice")));
        assert_eq!(plain_account(b"AGJvYgBwdw=="), Some(Text::from("bob")));
        assert_eq!(plain_account(b"YWxpY2UAczNjcmV0"), None);
        assert_eq!(plain_account(b"+"), None);
        assert_eq!(plain_account(&[b'A'; 400]), None);
    }

    #[test]
    fn base64_is_decoded() {
        assert_eq!(Base64::new(b"TWFu").collect::<Vec<_>>(), b"Man");
        assert_eq!(Base64::new(b"TWE=").collect::<Vec<_>>(), b"Ma");
        assert_eq!(Base64::new(b"T*").collect::<Vec<_>>(), b"");
    }
}
