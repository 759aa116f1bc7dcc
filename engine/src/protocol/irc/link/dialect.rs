//! From one line to its meaning, in each dialect.
//!
//! Facts: ts3.txt, ts4.txt, ts5.txt and ts6.txt of irc-docs; solanum's `doc/technical/ts6.md`; ircd-hybrid 8.2.43,
//! InspIRCd 3.15 and ngIRCd 26.1 as recorded (`tests/corpus/irc-links`).

use super::event::{Arguments, Dialect, Event, Introduction, Members, Mistake, is_server_id, is_user_id};
use crate::protocol::{
    breadth::is_everybody,
    irc::{dialect::seconds, message::Message},
};

/// A server's SERVER line, as the first thing it says about itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting<'a> {
    pub(super) name: &'a [u8],
    /// The server's id, where the line has it.
    pub(super) id: Option<&'a [u8]>,
    /// What the line's form says about the dialect.
    pub(super) dialect: Option<Dialect>,
}

/// Reads `SERVER name …`.
pub(super) fn greeting<'a>(message: &Message<'a>) -> Option<Greeting<'a>> {
    let params = message.params();
    let (id, dialect) = match params {
        [_, auth, _, id, _]
            if is_server_id(id) && (auth.starts_with(b"AUTH:") || seconds(auth).is_none()) =>
        {
            (Some(*id), Some(Dialect::SpanningTree))
        }
        // InspIRCd 4: without hops.
        [_, _, id, _] if is_server_id(id) => (Some(*id), Some(Dialect::SpanningTree)),
        [_, _, id, flags, _] if is_server_id(id) && flags.starts_with(b"+") => {
            (Some(*id), Some(Dialect::Hybrid))
        }
        [_, ..] => (None, None),
        [] => return None,
    };
    Some(Greeting { name: params.first()?, id, dialect })
}

/// Reads one line after the greetings.
pub(super) fn read<'a>(dialect: Dialect, message: &Message<'a>) -> Result<Event<'a>, Mistake> {
    if message.numeric().is_some() {
        return Ok(Event::Other);
    }
    match dialect {
        Dialect::SpanningTree => read_tree(message),
        Dialect::Rfc2813 => read_rfc2813(message),
        Dialect::Hybrid | Dialect::Ts3 | Dialect::Ts4 | Dialect::Ts5 | Dialect::Ts6 | Dialect::Unknown => {
            read_ts(dialect, message)
        }
    }
}

/// Whether the mask of a ban fits people who have nothing in common: `user@host` or a prefix in one parameter, or user and host in
/// two that follow each other.
fn names_everybody(params: &[&[u8]]) -> bool {
    let is_mask = |param: &&&[u8]| param.contains(&b'@') || param.contains(&b'/');
    params.iter().filter(is_mask).any(|mask| is_everybody(mask))
        || params.windows(2).any(|pair| is_everybody(&pair.join(&b'@')))
}

/// What all dialects say alike.
fn read_common<'a>(message: &Message<'a>) -> Result<Event<'a>, Mistake> {
    let params = message.params();
    Ok(match (message.command, params) {
        (b"ERROR", _) => Event::Error,
        (b"KICK", [channel, target, ..]) => Event::Kick { channel, target },
        (b"KILL", [target, ..]) => Event::Kill { target },
        (b"PART", [channels, ..]) => Event::Part { channels },
        (b"QUIT", _) => Event::Quit,
        (b"SQUIT", [target, ..]) => Event::Split { target },
        (b"KICK" | b"KILL" | b"PART" | b"SQUIT", _) => return Err(Mistake::Arity),
        (
            b"KLINE" | b"DLINE" | b"XLINE" | b"RESV" | b"BAN" | b"GLINE" | b"ADDLINE" | b"SHUN" | b"ZLINE",
            _,
        ) => Event::Ban { is_of_everybody: names_everybody(params) },
        (b"ENCAP", [_, b"KLINE" | b"DLINE" | b"XLINE" | b"RESV" | b"BAN", ..]) => {
            Event::Ban { is_of_everybody: names_everybody(params) }
        }
        _ => Event::Other,
    })
}

fn required(param: Option<&[u8]>) -> Result<u64, Mistake> {
    param.and_then(seconds).ok_or(Mistake::Arity)
}

fn read_ts<'a>(dialect: Dialect, message: &Message<'a>) -> Result<Event<'a>, Mistake> {
    let params = message.params();
    let last = message.last().unwrap_or_default();
    Ok(match (message.command, params) {
        (b"SVINFO", [current, minimum, _, time]) => Event::Versions {
            current: required(Some(current))?,
            minimum: required(Some(minimum))?,
            time: required(Some(time))?,
        },
        (b"SVINFO", _) => return Err(Mistake::Arity),
        (b"UID" | b"EUID", _) => return read_uid(dialect, message),
        (b"CLIENT", [id, timestamp, nickname, _, modes, user, host, _]) => Event::User(Introduction {
            id,
            nickname,
            timestamp: Some(required(Some(timestamp))?),
            user,
            host,
            is_operator: modes.contains(&b'o'),
            server: None,
        }),
        (b"CLIENT", _) => return Err(Mistake::Arity),
        (b"NICK", [nickname, timestamp]) => Event::Nick { nickname, timestamp: seconds(timestamp) },
        (b"NICK", [nickname]) => Event::Nick { nickname, timestamp: None },
        (b"NICK", _) => return read_nick(message),
        (b"SID", [name, _, id, .., _]) => {
            if !is_server_id(id) {
                return Err(Mistake::ServerId);
            }
            Event::Server { id, name }
        }
        (b"SID", _) => return Err(Mistake::Arity),
        (b"SERVER", [name, ..]) => Event::Server { id: name, name },
        (b"SJOIN", [timestamp, channel, _, .., _]) => Event::Burst {
            channel,
            timestamp: Some(required(Some(timestamp))?),
            members: Members::marked(last),
        },
        (b"SJOIN", _) => return Err(Mistake::Arity),
        (b"JOIN", [b"0"]) => Event::LeaveAll,
        (b"JOIN", [channels]) => Event::Join { channels, timestamp: None, has_status: false },
        (b"JOIN", [timestamp, channels, ..]) => {
            Event::Join { channels, timestamp: Some(required(Some(timestamp))?), has_status: false }
        }
        (b"TMODE", [timestamp, channel, modes, arguments @ ..]) => Event::Modes {
            channel,
            timestamp: Some(required(Some(timestamp))?),
            modes,
            arguments: Arguments::new(arguments),
        },
        (b"MODE", [target, modes, arguments @ ..]) if target.starts_with(b"#") => {
            Event::Modes { channel: target, timestamp: None, modes, arguments: Arguments::new(arguments) }
        }
        (b"BMASK" | b"EBMASK", [timestamp, channel, _, _, ..]) => {
            Event::Mask { channel, timestamp: Some(required(Some(timestamp))?) }
        }
        (b"INVITE", [_, channel, timestamp]) => Event::Mask { channel, timestamp: seconds(timestamp) },
        (b"TMODE" | b"BMASK" | b"EBMASK" | b"JOIN", _) => return Err(Mistake::Arity),
        (b"SAVE", [target, timestamp]) => Event::Save { target, timestamp: required(Some(timestamp))? },
        (b"RESYNC", [channel, ..]) => Event::Resync { channel },
        (b"EOB", _) => Event::BurstEnded,
        _ => return read_common(message),
    })
}

/// `UID nick hops ts +modes user host ip uid :real` (solanum), with real host and account between them EUID; in
/// ircd-hybrid UID has eleven, with the id in another place. The id is found by its shape.
fn read_uid<'a>(dialect: Dialect, message: &Message<'a>) -> Result<Event<'a>, Mistake> {
    let params = message.params();
    let expected = match (dialect, message.command) {
        (Dialect::Hybrid, _) | (_, b"EUID") => 11,
        _ => 9,
    };
    if params.len() != expected {
        return Err(Mistake::Arity);
    }
    let tail = params.get(6..params.len().saturating_sub(1)).unwrap_or_default();
    let id = tail.iter().find(|id| is_user_id(id)).ok_or(Mistake::UserId)?;
    match params {
        [nickname, _, timestamp, modes, user, host, ..] => Ok(Event::User(Introduction {
            id,
            nickname,
            timestamp: Some(required(Some(timestamp))?),
            user,
            host,
            is_operator: modes.contains(&b'o'),
            server: None,
        })),
        _ => Err(Mistake::Arity),
    }
}

/// TS3: `NICK nick hops ts +modes user host server :real`. Without a timestamp it is RFC 1459's.
fn read_nick<'a>(message: &Message<'a>) -> Result<Event<'a>, Mistake> {
    match message.params() {
        [nickname, _, timestamp, modes, user, host, server, _] => {
            let Some(timestamp) = seconds(timestamp) else { return Err(Mistake::NoTimestamp) };
            Ok(Event::User(Introduction {
                id: nickname,
                nickname,
                timestamp: Some(timestamp),
                user,
                host,
                is_operator: modes.contains(&b'o'),
                server: Some(server),
            }))
        }
        [_, _, _, _, _, ..] => Err(Mistake::NoTimestamp),
        _ => Err(Mistake::Arity),
    }
}

fn read_tree<'a>(message: &Message<'a>) -> Result<Event<'a>, Mistake> {
    let params = message.params();
    let last = message.last().unwrap_or_default();
    Ok(match (message.command, params) {
        (b"UID", [id, timestamp, nickname, _, host, user, .., _, modes, _]) if params.len() >= 10 => {
            if !is_user_id(id) {
                return Err(Mistake::UserId);
            }
            // Modes may have arguments, so the last `+` word counts.
            let modes = params.iter().skip(8).find(|param| param.starts_with(b"+")).unwrap_or(modes);
            // The cloaked host is what people see, the user name what they gave: both sides tell the same two.
            let (user, host) = tree_person(params).unwrap_or((user, host));
            Event::User(Introduction {
                id,
                nickname,
                timestamp: Some(required(Some(timestamp))?),
                user,
                host,
                is_operator: modes.contains(&b'o'),
                server: None,
            })
        }
        (b"UID", _) => return Err(Mistake::Arity),
        (b"SERVER", [name, rest @ ..]) => match rest.iter().find(|id| is_server_id(id)) {
            Some(id) => Event::Server { id, name },
            None => return Err(Mistake::ServerId),
        },
        (b"BURST", [time, ..]) => match seconds(time) {
            Some(time) => Event::Clock { time },
            None => Event::Other,
        },
        (b"ENDBURST", _) => Event::BurstEnded,
        (b"FJOIN", [channel, timestamp, _, ..]) => Event::Burst {
            channel,
            timestamp: Some(required(Some(timestamp))?),
            members: Members::lettered(if params.len() > 3 { last } else { b"" }),
        },
        (b"IJOIN", [channel, _, timestamp, ..]) => {
            Event::Join { channels: channel, timestamp: seconds(timestamp), has_status: true }
        }
        (b"IJOIN", [channel, ..]) => Event::Join { channels: channel, timestamp: None, has_status: true },
        (b"FMODE", [channel, timestamp, modes, arguments @ ..]) if channel.starts_with(b"#") => {
            Event::Modes {
                channel,
                timestamp: Some(required(Some(timestamp))?),
                modes,
                arguments: Arguments::new(arguments),
            }
        }
        (b"LMODE", [channel, timestamp, ..]) => {
            Event::Mask { channel, timestamp: Some(required(Some(timestamp))?) }
        }
        (b"FJOIN" | b"IJOIN" | b"LMODE", _) => return Err(Mistake::Arity),
        (b"NICK", [nickname, timestamp]) => Event::Nick { nickname, timestamp: seconds(timestamp) },
        (b"SAVE", [target, timestamp]) => Event::Save { target, timestamp: required(Some(timestamp))? },
        (b"RESYNC", [channel, ..]) => Event::Resync { channel },
        (b"RSQUIT", [target, ..]) => Event::Split { target },
        _ => return read_common(message),
    })
}

/// `UID id ts nick host displayed-host [real-user] user ip signon +modes … :real`: user and address, which both
/// versions have before the time of signing on.
fn tree_person<'a>(params: &[&'a [u8]]) -> Option<(&'a [u8], &'a [u8])> {
    let modes = params.iter().position(|param| param.starts_with(b"+")).filter(|at| *at >= 8)?;
    Some((params.get(modes.checked_sub(3)?)?, params.get(modes.checked_sub(2)?)?))
}

fn read_rfc2813<'a>(message: &Message<'a>) -> Result<Event<'a>, Mistake> {
    let params = message.params();
    let last = message.last().unwrap_or_default();
    Ok(match (message.command, params) {
        (b"NICK", [nickname]) => Event::Nick { nickname, timestamp: None },
        (b"NICK", [nickname, _hops]) => Event::Nick { nickname, timestamp: None },
        (b"NICK", [nickname, _, user, host, _, modes, _]) => Event::User(Introduction {
            id: nickname,
            nickname,
            timestamp: None,
            user,
            host,
            is_operator: modes.contains(&b'o'),
            server: None,
        }),
        (b"NICK", _) => return Err(Mistake::Arity),
        (b"SERVER", [name, ..]) => Event::Server { id: name, name },
        (b"NJOIN", [channel, _, ..]) => {
            Event::Burst { channel, timestamp: None, members: Members::with_commas(last) }
        }
        (b"NJOIN", _) => return Err(Mistake::Arity),
        (b"JOIN", [b"0"]) => Event::LeaveAll,
        (b"JOIN", [channels, ..]) => Event::Join { channels, timestamp: None, has_status: true },
        (b"MODE", [target, modes, arguments @ ..]) if target.starts_with(b"#") => {
            Event::Modes { channel: target, timestamp: None, modes, arguments: Arguments::new(arguments) }
        }
        _ => return read_common(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake(dialect: Dialect, line: &'static str) -> Mistake {
        read(dialect, &Message::parse(line.as_bytes()).unwrap()).unwrap_err()
    }

    fn introduction(dialect: Dialect, line: &'static str) -> (String, String, Option<u64>) {
        let Ok(Event::User(user)) = read(dialect, &Message::parse(line.as_bytes()).unwrap()) else {
            panic!("no introduction: {line}")
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(user.id), text(user.nickname), user.timestamp)
    }

    #[test]
    fn a_user_is_introduced_in_every_dialect() {
        let lines = [
            (
                Dialect::Hybrid,
                ":0HA UID anna 1 1795240924 +i ~a h h h 0HAAAAACT * :x",
                "0HAAAAACT",
                Some(1_795_240_924),
            ),
            (
                Dialect::Ts6,
                ":0HA UID anna 1 1795240924 +i ~a h 0 0HAAAAACT :x",
                "0HAAAAACT",
                Some(1_795_240_924),
            ),
            (Dialect::Ts6, ":0HA EUID anna 1 17 +i ~a h 0 0HAAAAACT * * :x", "0HAAAAACT", Some(17)),
            (Dialect::Ts3, "NICK anna 1 17 +i ~a h alpha.test :x", "anna", Some(17)),
            (Dialect::Ts5, "NICK anna 1 17 +i ~a h alpha.test :x", "anna", Some(17)),
            (Dialect::Ts4, ":alpha.test CLIENT .aB3 17 anna 1 +i ~a h :x", ".aB3", Some(17)),
            (Dialect::Rfc2813, ":alpha.test NICK anna 1 ~a h 1 +i :x", "anna", None),
            (
                Dialect::SpanningTree,
                ":0HA UID 0HAAAAAAA 17 anna h h a 10.0.0.1 17 + :x",
                "0HAAAAAAA",
                Some(17),
            ),
            (
                Dialect::SpanningTree,
                ":0HA UID 0HAAAAAAA 17 anna h h a a 10.0.0.1 17 +k x :x",
                "0HAAAAAAA",
                Some(17),
            ),
        ];
        for (dialect, line, id, timestamp) in lines {
            assert_eq!(introduction(dialect, line), (id.to_owned(), "anna".to_owned(), timestamp), "{line}");
        }
    }

    #[test]
    fn arities_of_one_dialect_are_mistakes_in_another() {
        let hybrid = ":0HA UID anna 1 17 +i ~a h h h 0HAAAAACT * :x";
        let solanum = ":0HA UID anna 1 17 +i ~a h 0 0HAAAAACT :x";
        assert_eq!(mistake(Dialect::Ts6, hybrid), Mistake::Arity);
        assert_eq!(mistake(Dialect::Hybrid, solanum), Mistake::Arity);
        let malformed = ":0HA UID anna 1 17 +i ~a h h h 0haaaaact * :x";
        assert_eq!(mistake(Dialect::Hybrid, malformed), Mistake::UserId);
        assert_eq!(mistake(Dialect::Ts6, ":0HA SID x.test 2 aaa :x"), Mistake::ServerId);
        assert_eq!(mistake(Dialect::Ts3, "NICK anna 1 ~a h alpha.test :x"), Mistake::NoTimestamp);
    }

    #[test]
    fn greetings_tell_dialects_apart() {
        let of = |line: &'static str| {
            greeting(&Message::parse(line.as_bytes()).unwrap()).map(|greeting| greeting.dialect)
        };
        assert_eq!(of("SERVER alpha.test 1 0HA + :hybrid"), Some(Some(Dialect::Hybrid)));
        assert_eq!(of("SERVER alpha.test AUTH:3oI7 0 0HA :insp"), Some(Some(Dialect::SpanningTree)));
        assert_eq!(of("SERVER alpha.test secret 0HA :insp4"), Some(Some(Dialect::SpanningTree)));
        assert_eq!(of("SERVER alpha.test 1 :ts"), Some(None));
    }
}
