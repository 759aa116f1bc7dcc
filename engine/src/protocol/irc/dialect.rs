//! The servers' own words: which number or ERROR text means what, on ircd-hybrid, solanum and charybdis,
//! UnrealIRCd, InspIRCd and ngIRCd, and how their services answer.
//!
//! Only the fixed beginning of a text decides: what follows may be somebody's quit message or kill reason.

use std::ops::RangeInclusive;

use memchr::{memchr, memmem};

use super::{message::is_same_name, server::Flavour};

/// Commands known by name, sorted: all else is reported as `unknown`.
const KEYWORDS: [&str; 156] = [
    "ACCEPT",
    "ADMIN",
    "AUTHENTICATE",
    "AUTHSERV",
    "AWAY",
    "BATCH",
    "BOTSERV",
    "BS",
    "CAP",
    "CAPAB",
    "CBAN",
    "CHALLENGE",
    "CHANSERV",
    "CHATHISTORY",
    "CHECK",
    "CHGHOST",
    "CHGIDENT",
    "CHGNAME",
    "CLEARCHAN",
    "CLONES",
    "CLOSE",
    "CNOTICE",
    "CONNECT",
    "COOKIE",
    "CPRIVMSG",
    "CS",
    "CYCLE",
    "DIE",
    "DISCONNECT",
    "DLINE",
    "DNS",
    "ENCAP",
    "ERROR",
    "ETRACE",
    "EXTBAN",
    "FILTER",
    "GLINE",
    "GLOADMODULE",
    "GLOBOPS",
    "GRELOADMODULE",
    "GUNLOADMODULE",
    "GZLINE",
    "HELP",
    "HELPOP",
    "HOSTSERV",
    "HS",
    "ID",
    "IDENTIFY",
    "INFO",
    "INVITE",
    "ISON",
    "JOIN",
    "JUMPSERVER",
    "KICK",
    "KILL",
    "KLINE",
    "KNOCK",
    "LINKS",
    "LIST",
    "LOADMODULE",
    "LOCKSERV",
    "LOCOPS",
    "LOGIN",
    "LUSERS",
    "MAP",
    "MEMOSERV",
    "METADATA",
    "MODE",
    "MODLIST",
    "MODLOAD",
    "MODRELOAD",
    "MODRESTART",
    "MODULE",
    "MODUNLOAD",
    "MONITOR",
    "MOTD",
    "MS",
    "NAMES",
    "NICK",
    "NICKSERV",
    "NOTICE",
    "NS",
    "OJOIN",
    "OKICK",
    "OMODE",
    "OPER",
    "OPERSERV",
    "OPERWALL",
    "OPME",
    "OS",
    "PART",
    "PASS",
    "PING",
    "PONG",
    "PRIVMSG",
    "PROTOCTL",
    "QLINE",
    "QUIT",
    "RCONNECT",
    "REDACT",
    "REGISTER",
    "REHASH",
    "RELOADMODULE",
    "REMOVE",
    "RENAME",
    "RESTART",
    "RESV",
    "RSQUIT",
    "RULES",
    "SAJOIN",
    "SAKICK",
    "SAMODE",
    "SANICK",
    "SAPART",
    "SAQUIT",
    "SASL",
    "SATOPIC",
    "SERVER",
    "SERVLIST",
    "SET",
    "SETHOST",
    "SETNAME",
    "SHUN",
    "SID",
    "SILENCE",
    "SPAMFILTER",
    "SQUERY",
    "SQUIT",
    "STARTTLS",
    "STATS",
    "SUMMON",
    "SVINFO",
    "TAGMSG",
    "TEMPSHUN",
    "TESTLINE",
    "TIME",
    "TOPIC",
    "TRACE",
    "UNDLINE",
    "UNKLINE",
    "UNLOADMODULE",
    "UNRESV",
    "UNXLINE",
    "USER",
    "USERHOST",
    "USERIP",
    "USERS",
    "VERSION",
    "WALLOPS",
    "WATCH",
    "WEBIRC",
    "WHO",
    "WHOIS",
    "WHOWAS",
    "XLINE",
    "ZLINE",
];

/// The known command with this name.
pub fn keyword(command: &[u8]) -> Option<&'static str> {
    KEYWORDS.iter().copied().find(|known| known.as_bytes().eq_ignore_ascii_case(command))
}

/// What an operator does to the network or its people.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    /// Bans by a mask, which is the first argument that is no duration.
    Ban,
    /// Changes a channel's modes without being its operator.
    Modes,
    /// Makes somebody join, leave or take another name: the argument with that number.
    Force(usize),
    /// Changes the server itself.
    Change,
}

/// What a command does that only operators may use.
pub fn rule(keyword: &str) -> Option<Rule> {
    Some(match keyword {
        "CBAN" | "DLINE" | "GLINE" | "GZLINE" | "KLINE" | "QLINE" | "RESV" | "SHUN" | "TEMPSHUN"
        | "XLINE" | "ZLINE" => Rule::Ban,
        "OMODE" | "SAMODE" => Rule::Modes,
        "SAJOIN" | "SANICK" | "SAPART" | "SAQUIT" => Rule::Force(0),
        "OKICK" | "SAKICK" => Rule::Force(1),
        "CLEARCHAN" | "CLOSE" | "CONNECT" | "DIE" | "DISCONNECT" | "GLOADMODULE" | "GRELOADMODULE"
        | "GUNLOADMODULE" | "JUMPSERVER" | "LOADMODULE" | "LOCKSERV" | "MODLOAD" | "MODRELOAD"
        | "MODRESTART" | "MODULE" | "MODUNLOAD" | "OJOIN" | "OPME" | "RCONNECT" | "REHASH"
        | "RELOADMODULE" | "RESTART" | "RSQUIT" | "SET" | "SPAMFILTER" | "SQUIT" | "UNLOADMODULE" => {
            Rule::Change
        }
        _ => return None,
    })
}

/// Numerics that end an answer of many lines: WHOIS, WHO, LIST, STATS and the like.
pub const fn ends_answer(number: u32) -> bool {
    matches!(number, 7 | 17 | 219 | 262 | 315 | 318 | 323 | 347 | 349 | 365 | 366 | 368 | 369 | 374 | 376)
}

/// Numerics of RFC 1459 and RFC 2812, and those that the makes of `irc.md` have added.
const NUMERICS: &[RangeInclusive<u32>] = &[
    1..=10,
    15..=20,
    42..=43,
    105..=105,
    200..=213,
    215..=219,
    221..=223,
    225..=229,
    231..=246,
    248..=272,
    276..=276,
    281..=284,
    290..=296,
    300..=353,
    360..=396,
    400..=426,
    429..=447,
    449..=504,
    511..=526,
    531..=531,
    600..=609,
    670..=671,
    687..=696,
    700..=743,
    747..=747,
    750..=774,
    900..=908,
    926..=926,
    936..=940,
    942..=942,
    972..=975,
    981..=982,
    999..=999,
];

/// Whether a numeric is documented.
pub fn is_numeric(number: u32) -> bool {
    NUMERICS.iter().any(|known| known.contains(&number))
}

/// Who answers login attempts made by talking: their nicknames, and the commands that reach them.
const SERVICES: [(&str, &[&str]); 6] = [
    ("AuthServ", &["AUTHSERV"]),
    ("ChanServ", &["CHANSERV", "CS"]),
    ("NickServ", &["NICKSERV", "NS", "IDENTIFY", "ID", "LOGIN"]),
    ("Q", &[]),
    ("UserServ", &[]),
    ("X", &[]),
];

/// The pseudo-client with this nickname; `target` may name its server too (`NickServ@services.example`).
pub fn service_by_name(target: &[u8]) -> Option<&'static str> {
    let nickname = target.split(|byte| *byte == b'@').next()?;
    SERVICES.iter().map(|(name, _)| *name).find(|name| is_same_name(name.as_bytes(), nickname))
}

/// The pseudo-client that this command talks to.
pub fn service_by_command(command: &str) -> Option<&'static str> {
    SERVICES.iter().find(|(_, commands)| commands.contains(&command)).map(|(name, _)| *name)
}

/// What somebody asks of services that a password decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Credentials<'a> {
    /// The account, when one was named.
    pub account: Option<&'a [u8]>,
    /// It takes a nickname back from whoever uses it, or joins one's own to another's, and logs nobody in.
    pub takes_over: bool,
}

/// What somebody asks of services, if a password decides it.
pub fn credentials<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Option<Credentials<'a>> {
    let verb = words.next()?;
    let (first, second) = (words.next()?, words.next());
    let is = |known: &[&[u8]]| known.iter().any(|known| known.eq_ignore_ascii_case(verb));
    if is(&[b"IDENTIFY", b"ID", b"AUTH", b"LOGIN", b"SIDENTIFY"]) {
        return Some(Credentials { account: second.map(|_| first), takes_over: false });
    }
    let takes_over = is(&[b"GHOST", b"RECOVER", b"REGAIN", b"RELEASE", b"GROUP", b"LINK"]);
    (takes_over && second.is_some()).then_some(Credentials { account: Some(first), takes_over })
}

/// How services answered a login attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ServiceAnswer {
    /// Wrong password, for an account that exists.
    Failed,
    /// Whatever the password: too many tries, suspended.
    Refused,
    /// Right.
    Succeeded,
    /// A nickname was taken back, or nobody had it.
    TakenOver,
    /// There is no such account. What was named may be a misplaced password.
    Unknown,
}

/// Fragments of answers of Atheme, Anope, DALnet's services, GameSurge, QuakeNet and Undernet, lower case.
const SERVICE_ANSWERS: [(&[u8], ServiceAnswer); 30] = [
    (b"invalid password for", ServiceAnswer::Failed),
    (b"password incorrect", ServiceAnswer::Failed),
    (b"incorrect password", ServiceAnswer::Failed),
    (b"invalid password", ServiceAnswer::Failed),
    (b"authentication failed", ServiceAnswer::Failed),
    (b"password is incorrect", ServiceAnswer::Failed),
    (b"triggered services flood protection", ServiceAnswer::Refused),
    (b"too many failed", ServiceAnswer::Refused),
    (b"is suspended", ServiceAnswer::Refused),
    (b"is frozen", ServiceAnswer::Refused),
    (b"isn't registered", ServiceAnswer::Unknown),
    (b"is not registered", ServiceAnswer::Unknown),
    (b"is not a registered", ServiceAnswer::Unknown),
    (b"you are now identified", ServiceAnswer::Succeeded),
    (b"you are now logged in", ServiceAnswer::Succeeded),
    (b"you are now recognized", ServiceAnswer::Succeeded),
    (b"password accepted", ServiceAnswer::Succeeded),
    (b"authentication successful", ServiceAnswer::Succeeded),
    (b"i recognize you", ServiceAnswer::Succeeded),
    (b"has been ghosted", ServiceAnswer::TakenOver),
    (b"ghost with your nick", ServiceAnswer::TakenOver),
    (b"ghost with nickname", ServiceAnswer::TakenOver),
    (b"has been killed", ServiceAnswer::TakenOver),
    (b"has been released", ServiceAnswer::TakenOver),
    (b"has been recovered", ServiceAnswer::TakenOver),
    (b"has been regained", ServiceAnswer::TakenOver),
    (b"you are now in the group of", ServiceAnswer::TakenOver),
    (b"is not online", ServiceAnswer::TakenOver),
    (b"isn't currently in use", ServiceAnswer::TakenOver),
    (b"is not currently", ServiceAnswer::TakenOver),
];

/// Reads a NOTICE of services.
pub fn service_answer(text: &[u8]) -> Option<ServiceAnswer> {
    let lower = text.to_ascii_lowercase();
    let plain = lower.get(..lower.len().min(400)).unwrap_or_default();
    SERVICE_ANSWERS
        .iter()
        .find(|(fragment, _)| memmem::find(plain, fragment).is_some())
        .map(|(_, answer)| *answer)
}

/// Why the server closes a connection, as its ERROR line says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closing {
    /// By a ban of any kind.
    Banned,
    /// Too many connections from one place.
    Clones,
    /// Two users with one nickname met.
    Collision,
    /// No allow or connect block lets the client in; with a password sent, none that it opens (InspIRCd and
    /// UnrealIRCd say no more than that).
    Denied,
    /// Too much, too fast.
    Flood,
    /// No room.
    Full,
    /// Not registered in time.
    Held,
    /// By an operator.
    Killed,
    /// A server link that is not wanted.
    LinkRefused,
    /// Not allowed to connect, whatever the password.
    NotAuthorised,
    /// The client left, or its connection broke.
    Ordinary,
    /// Wrong or missing server password.
    Password,
    /// The client does not read what it asks for.
    SendQueue,
    /// Too many connections in too short a time.
    Throttled,
    /// Too many failed logins.
    TooManyFailures,
    /// A text not known here.
    Unknown,
}

/// Beginnings of reasons, lower case; the first that fits counts.
const CLOSINGS: [(&[u8], Closing); 73] = [
    (b"quit", Closing::Ordinary),
    (b"client quit", Closing::Ordinary),
    (b"client exit", Closing::Ordinary),
    (b"client closed", Closing::Ordinary),
    (b"remote host closed", Closing::Ordinary),
    (b"connection reset", Closing::Ordinary),
    (b"connection closed", Closing::Ordinary),
    (b"read error", Closing::Ordinary),
    (b"write error", Closing::Ordinary),
    (b"got quit command", Closing::Ordinary),
    (b"oops, http request", Closing::Ordinary),
    (b"server shutdown", Closing::Ordinary),
    (b"server going down", Closing::Ordinary),
    (b"shutting down", Closing::Ordinary),
    (b"ping timeout", Closing::Held),
    (b"registration time", Closing::Held),
    (b"connection time", Closing::Held),
    (b"timeout", Closing::Held),
    (b"your host is trying to (re)connect too fast", Closing::Throttled),
    (b"reconnecting too fast", Closing::Throttled),
    (b"trying to reconnect too fast", Closing::Throttled),
    (b"throttled", Closing::Throttled),
    (b"too many unknown connections", Closing::Clones),
    (b"too many host connections", Closing::Clones),
    (b"too many user connections", Closing::Clones),
    (b"too many local connections", Closing::Clones),
    (b"too many global connections", Closing::Clones),
    (b"too many connections", Closing::Clones),
    (b"no more local connections", Closing::Clones),
    (b"no more global connections", Closing::Clones),
    (b"connection refused, too many connections", Closing::Clones),
    (b"connection rejected - too many connections", Closing::Clones),
    (b"connection rejected - not auth", Closing::NotAuthorised),
    (b"connection rejected - banned", Closing::Banned),
    (b"connection rejected - connection class", Closing::Full),
    (b"connection class is full", Closing::Full),
    (b"your connection class is full", Closing::Full),
    (b"sorry, your connection class is full", Closing::Full),
    (b"no more connections allowed", Closing::Full),
    (b"all connections in use", Closing::Full),
    (b"server is full", Closing::Full),
    (b"sorry, server is full", Closing::Full),
    (b"server full", Closing::Full),
    (b"bad password", Closing::Password),
    (b"bad server password", Closing::Password),
    (b"access denied by configuration", Closing::Denied),
    (b"you are not authorized to connect", Closing::Denied),
    (b"you are not authorised to connect", Closing::Denied),
    (b"access denied", Closing::NotAuthorised),
    (b"not authorized", Closing::NotAuthorised),
    (b"unauthori", Closing::NotAuthorised),
    (b"excess flood", Closing::Flood),
    (b"recvq exceeded", Closing::Flood),
    (b"handshake data flood", Closing::Flood),
    (b"flood", Closing::Flood),
    (b"request too long", Closing::Flood),
    (b"max sendq", Closing::SendQueue),
    (b"sendq exceeded", Closing::SendQueue),
    (b"too many failed authentication", Closing::TooManyFailures),
    (b"banned", Closing::Banned),
    (b"*** banned", Closing::Banned),
    (b"user has been", Closing::Banned),
    (b"you are banned", Closing::Banned),
    (b"you're banned", Closing::Banned),
    (b"killed", Closing::Killed),
    (b"nick collision", Closing::Collision),
    (b"nick/user collision", Closing::Collision),
    (b"nickname collision", Closing::Collision),
    (b"id collision", Closing::Collision),
    (b"overridden", Closing::Collision),
    (b"invalid password", Closing::LinkRefused),
    (b"server not configured", Closing::LinkRefused),
    (b"you can not connect a server", Closing::LinkRefused),
];

/// Reads the text of an ERROR line.
pub fn closing(text: &[u8]) -> Closing {
    let reason = closing_reason(text);
    if is_lined(reason) {
        return Closing::Banned;
    }
    if memmem::find(text.get(..64).unwrap_or(text), b"Local kill by").is_some() {
        return Closing::Killed;
    }
    CLOSINGS
        .iter()
        .find(|(beginning, _)| starts_with(reason, beginning))
        .map_or(Closing::Unknown, |(_, closing)| *closing)
}

/// Whether a reason is `K-Lined`, `G-lined: …`, `Global Z-lined`, `D-lined` and so on.
fn is_lined(reason: &[u8]) -> bool {
    let reason = if starts_with(reason, b"global ") { reason.get(7..).unwrap_or_default() } else { reason };
    let letters = reason.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
    (1..=3).contains(&letters) && starts_with(reason.get(letters..).unwrap_or_default(), b"-lined")
}

/// The reason within `Closing Link: host (reason)`, `Closing link: (user@host) [reason]`, `Closing connection:
/// nick[user@host] ("reason")`, or the whole text where a server says nothing around it.
fn closing_reason(text: &[u8]) -> &[u8] {
    let reason = if starts_with(text, b"closing link: (") {
        // InspIRCd's form; solanum's refusals at accept have the reason where InspIRCd has the user.
        after(text, b") [").or_else(|| after(text, b"("))
    } else if starts_with(text, b"closing ") {
        after(text, b" (")
    } else {
        None
    };
    let reason = reason.unwrap_or(text);
    reason.strip_prefix(b"\"").unwrap_or(reason)
}

fn after<'a>(text: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    let start = memmem::find(text, mark)?.saturating_add(mark.len());
    text.get(start..)
}

fn starts_with(text: &[u8], beginning: &[u8]) -> bool {
    text.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning))
}

/// The make that a version string names.
pub(super) fn flavour(version: &[u8]) -> Flavour {
    const NAMES: [(&[u8], Flavour); 9] = [
        (b"ircd-hybrid", Flavour::Hybrid),
        (b"hybrid", Flavour::Hybrid),
        (b"inspircd", Flavour::InspIrcd),
        (b"ngircd", Flavour::NgIrcd),
        (b"solanum", Flavour::Solanum),
        (b"charybdis", Flavour::Solanum),
        (b"ircd-seven", Flavour::Solanum),
        (b"ircd-ratbox", Flavour::Solanum),
        (b"unreal", Flavour::Unreal),
    ];
    NAMES
        .iter()
        .find(|(name, _)| starts_with(version, name))
        .map_or(Flavour::Unknown, |(_, flavour)| *flavour)
}

/// The make that the form of an ERROR line gives away.
pub(super) fn flavour_of_error(text: &[u8]) -> Flavour {
    if text.starts_with(b"Closing link: (") {
        Flavour::InspIrcd
    } else if text.starts_with(b"Closing connection: ") || text.starts_with(b"\"") {
        Flavour::NgIrcd
    } else if text.starts_with(b"Your host is trying to (re)connect too fast") {
        Flavour::Hybrid
    } else if text.starts_with(b"Closing Link: ") && memchr(b'[', text.get(..80).unwrap_or(text)).is_some() {
        Flavour::Unreal
    } else {
        Flavour::Unknown
    }
}

/// A whole number of seconds, or none.
pub(super) fn seconds(text: &[u8]) -> Option<u64> {
    let fits = !text.is_empty() && text.len() <= 20 && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| fits)?.parse().ok()
}

/// The old and the new timestamp in `*** Notice -- TS for #c changed from 2 to 1` (ircd-hybrid 5 to 8, charybdis,
/// solanum), which the server tells the members of a channel.
pub(super) fn timestamp_change(channel: &[u8], text: &[u8]) -> Option<(u64, u64)> {
    let rest = text.strip_prefix(b"*** Notice -- TS for ")?.strip_prefix(channel)?;
    let rest = rest.strip_prefix(b" changed from ")?;
    let mut words = rest.split(|byte| *byte == b' ');
    let old = seconds(words.next()?)?;
    (words.next()? == b"to").then_some(())?;
    Some((old, seconds(words.next()?)?))
}

/// To whom a message goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Audience {
    /// Everybody on a server.
    Broadcast,
    /// The members of a channel, or some of them (`@#channel`).
    Channel,
    /// One user.
    User,
}

/// Reads the target of a message; the target without the status marks before a channel.
pub fn audience(target: &[u8]) -> (Audience, &[u8]) {
    if target.first() == Some(&b'$') {
        return (Audience::Broadcast, target);
    }
    let marks = target.iter().take_while(|byte| b"@%+~&!".contains(byte)).count();
    let bare = target.get(marks..).unwrap_or_default();
    if bare.first() == Some(&b'#') {
        return (Audience::Channel, bare);
    }
    if is_channel(target) { (Audience::Channel, target) } else { (Audience::User, target) }
}

/// Whether a name is a channel's.
pub fn is_channel(name: &[u8]) -> bool {
    name.first().is_some_and(|first| b"#&+!".contains(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_found_in_any_case_and_listed_once() {
        assert_eq!(keyword(b"privmsg"), Some("PRIVMSG"));
        assert_eq!(keyword(b"FROBNICATE"), None);
        let mut sorted = KEYWORDS.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), KEYWORDS.len());
    }

    /// One text as it came over the wire and what it means, per line.
    const CASES: &[(&str, Closing)] = &[
        ("Your host is trying to (re)connect too fast -- throttled.", Closing::Throttled),
        ("Reconnecting too fast, throttled.", Closing::Throttled),
        ("Closing Link: [10.78.0.31] (Throttled: Reconnecting too fast - Email a@b)", Closing::Throttled),
        ("Closing Link: [10.78.0.31] (Too many unknown connections from your IP)", Closing::Clones),
        ("Closing link: (unknown@10.78.0.50) [Z-lined: Your IP range has been attempting]", Closing::Banned),
        ("Closing link: (a@10.78.0.50) [No more local connections allowed from your host]", Closing::Clones),
        ("Connection refused, too many connections from your IP address", Closing::Clones),
        ("Closing Link: 10.78.0.31 (Too many host connections (local))", Closing::Clones),
        ("Closing Link: 10.78.0.31 (Connection rejected - too many connections on IP)", Closing::Clones),
        ("Closing Link: 10.78.0.31 (Connection rejected - connection class is full)", Closing::Full),
        ("Closing Link: 10.78.0.31 (Connection rejected - not authorized)", Closing::NotAuthorised),
        ("Closing Link: 10.78.0.31 (Registration timed out)", Closing::Held),
        ("Closing link: (a@10.78.0.31) [Registration timeout]", Closing::Held),
        ("Closing Link: 10.78.0.31 (Connection timed out)", Closing::Held),
        ("Closing Link: 10.78.0.31 (Bad Password)", Closing::Password),
        ("Bad server password", Closing::Password),
        ("Closing link: (a@10.78.0.31) [Access denied by configuration]", Closing::Denied),
        ("Closing Link: 10.78.0.31 (Excess Flood)", Closing::Flood),
        ("Closing link: (a@10.78.0.31) [RecvQ exceeded]", Closing::Flood),
        ("Closing Link: [10.78.0.31] (Handshake data flood detected)", Closing::Flood),
        ("Closing Link: 10.78.0.31 (Max SendQ exceeded)", Closing::SendQueue),
        ("Closing Link: 10.78.0.31 (Too many failed authentication attempts)", Closing::TooManyFailures),
        ("Closing Link: (*** Banned (cache))", Closing::Banned),
        ("Closing Link: 10.78.0.31 (K-Lined)", Closing::Banned),
        ("Closing Link: x[10.78.0.31] (User has been banned from server (spam))", Closing::Banned),
        ("Closing Link: 10.78.0.31 (Killed (boss (spam)))", Closing::Killed),
        ("Closing Link: 10.78.0.31 (Nick collision (new))", Closing::Collision),
        ("Closing Link: 10.78.0.30 (Quit: bye)", Closing::Ordinary),
        ("Closing Link: 10.78.0.30 (Client Exit)", Closing::Ordinary),
        ("\"Oops, HTTP request received? This is IRC!\"", Closing::Ordinary),
        ("Server not configured here", Closing::LinkRefused),
        ("Closing Link: 10.78.0.30 (Something new)", Closing::Unknown),
    ];

    #[test]
    fn closings_are_read_in_every_dialect() {
        for (text, expected) in CASES {
            assert_eq!(closing(text.as_bytes()), *expected, "{text}");
        }
    }

    #[test]
    fn a_quit_message_cannot_pass_for_a_reason() {
        assert_eq!(closing(b"Closing Link: 10.78.0.30 (Quit: (Excess Flood))"), Closing::Ordinary);
        assert_eq!(closing(b"Closing link: (a@10.78.0.30) [Quit: ) [Z-lined: x]"), Closing::Ordinary);
    }

    #[test]
    fn targets_have_an_audience() {
        assert_eq!(audience(b"#chat"), (Audience::Channel, b"#chat".as_slice()));
        assert_eq!(audience(b"@#chat"), (Audience::Channel, b"#chat".as_slice()));
        assert_eq!(audience(b"&local"), (Audience::Channel, b"&local".as_slice()));
        assert_eq!(audience(b"$$*"), (Audience::Broadcast, b"$$*".as_slice()));
        assert_eq!(audience(b"bob"), (Audience::User, b"bob".as_slice()));
    }

    #[test]
    fn only_what_a_password_decides_is_a_login() {
        let words = |text: &'static [u8]| credentials(text.split(|byte| *byte == b' '));
        let asks = |account: Option<&'static [u8]>, takes_over| Some(Credentials { account, takes_over });
        assert_eq!(words(b"identify secret"), asks(None, false));
        assert_eq!(words(b"IDENTIFY alice secret"), asks(Some(b"alice"), false));
        assert_eq!(words(b"GHOST alice secret"), asks(Some(b"alice"), true));
        assert_eq!(words(b"GHOST alice"), None);
        assert_eq!(words(b"GROUP alice secret"), asks(Some(b"alice"), true));
        assert_eq!(words(b"REGISTER secret a@b"), None);
    }

    #[test]
    fn services_answers_are_read_across_packages() {
        assert_eq!(service_answer(b"Invalid password for \x02alice\x02."), Some(ServiceAnswer::Failed));
        assert_eq!(service_answer(b"Password incorrect."), Some(ServiceAnswer::Failed));
        assert_eq!(
            service_answer(b"You are now identified for \x02alice\x02."),
            Some(ServiceAnswer::Succeeded)
        );
        assert_eq!(service_answer(b"Nick \x02hunter2\x02 isn't registered."), Some(ServiceAnswer::Unknown));
        assert_eq!(
            service_answer(b"You have triggered services flood protection."),
            Some(ServiceAnswer::Refused)
        );
        assert_eq!(service_answer(b"This nickname is owned by somebody else."), None);
    }
}
