//! What servers tell each other, whatever dialect they say it in.

/// Bytes of a TS6 or InspIRCd server id.
pub(super) const SERVER_ID_BYTES: usize = 3;
/// Bytes of a TS6 or InspIRCd user id.
const USER_ID_BYTES: usize = 9;

/// How two servers speak.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Dialect {
    /// TS6 with the arities of ircd-hybrid 8.2: `SERVER name hops sid +flags :info`, UID of eleven parameters.
    Hybrid,
    /// RFC 2813 with `NJOIN`, as ngIRCd speaks it: no timestamps.
    Rfc2813,
    /// InspIRCd's spanning tree.
    SpanningTree,
    /// Nicknames as ids, timestamps, `PASS password :TS`.
    Ts3,
    /// TS3 with connection ids, half-operators, timestamped bans and compression.
    Ts4,
    /// TS3 without operators through a split.
    Ts5,
    /// TS6 as solanum, charybdis and ratbox speak it: `PASS password TS 6 sid`.
    Ts6,
    /// Not told yet.
    #[default]
    Unknown,
}

impl Dialect {
    /// The name in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hybrid => "ts6-hybrid",
            Self::Rfc2813 => "rfc2813",
            Self::SpanningTree => "spanningtree",
            Self::Ts3 => "ts3",
            Self::Ts4 => "ts4",
            Self::Ts5 => "ts5",
            Self::Ts6 => "ts6",
            Self::Unknown => "unknown",
        }
    }

    /// Whether users are named by ids that begin with their server's.
    pub(super) const fn has_ids(self) -> bool {
        matches!(self, Self::Hybrid | Self::SpanningTree | Self::Ts6)
    }

    /// Whether channels and nicknames carry timestamps.
    pub(super) const fn has_timestamps(self) -> bool {
        !matches!(self, Self::Rfc2813 | Self::Unknown)
    }

    /// Whether both sides must say SVINFO after SERVER.
    pub(super) const fn has_svinfo(self) -> bool {
        matches!(self, Self::Hybrid | Self::Ts3 | Self::Ts4 | Self::Ts5 | Self::Ts6)
    }

    /// TS3 lets operators of a younger channel in where the older one has none, and knows channels without a
    /// timestamp.
    pub(super) const fn is_lenient(self) -> bool {
        matches!(self, Self::Ts3 | Self::Ts4)
    }
}

/// Whether bytes have the shape of a server id: a digit, then two digits or capitals.
pub(super) fn is_server_id(id: &[u8]) -> bool {
    id.len() == SERVER_ID_BYTES
        && id.first().is_some_and(u8::is_ascii_digit)
        && id.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// Whether bytes have the shape of a user id: a server id, a capital, then five digits or capitals.
pub(super) fn is_user_id(id: &[u8]) -> bool {
    id.len() == USER_ID_BYTES
        && is_server_id(id.get(..SERVER_ID_BYTES).unwrap_or_default())
        && id.get(SERVER_ID_BYTES).is_some_and(u8::is_ascii_uppercase)
        && id.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// One line's meaning. Ids are those of the dialect: UIDs and SIDs, or nicknames and server names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event<'a> {
    /// K-lines and their kin.
    Ban { is_of_everybody: bool },
    /// SJOIN, FJOIN, NJOIN: members of a channel with their status.
    Burst { channel: &'a [u8], timestamp: Option<u64>, members: Members<'a> },
    /// The side's burst is over.
    BurstEnded,
    /// A side's clock.
    Clock { time: u64 },
    /// The link is about to close.
    Error,
    /// A user came into channels alone. `status` is ngIRCd's, given with the name.
    Join { channels: &'a [u8], timestamp: Option<u64>, has_status: bool },
    /// Out with somebody.
    Kick { channel: &'a [u8], target: &'a [u8] },
    /// A user is removed from the network.
    Kill { target: &'a [u8] },
    /// A user left every channel.
    LeaveAll,
    /// A ban list or invitation with the channel's timestamp.
    Mask { channel: &'a [u8], timestamp: Option<u64> },
    /// Modes of a channel.
    Modes { channel: &'a [u8], timestamp: Option<u64>, modes: &'a [u8], arguments: Arguments<'a> },
    /// Another nickname.
    Nick { nickname: &'a [u8], timestamp: Option<u64> },
    /// Nothing that changes anything.
    Other,
    /// A user left channels.
    Part { channels: &'a [u8] },
    /// The user left the network.
    Quit,
    /// The receiver asks for a channel anew.
    Resync { channel: &'a [u8] },
    /// A nickname is taken from a user, whose id becomes it.
    Save { target: &'a [u8], timestamp: u64 },
    /// A server behind the sender.
    Server { id: &'a [u8], name: &'a [u8] },
    /// A server is removed, and all behind it.
    Split { target: &'a [u8] },
    /// SVINFO.
    Versions { current: u64, minimum: u64, time: u64 },
    /// A user.
    User(Introduction<'a>),
}

/// A user as introduced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Introduction<'a> {
    pub(super) id: &'a [u8],
    pub(super) nickname: &'a [u8],
    pub(super) timestamp: Option<u64>,
    pub(super) user: &'a [u8],
    pub(super) host: &'a [u8],
    pub(super) is_operator: bool,
    /// The server, where the line names it.
    pub(super) server: Option<&'a [u8]>,
}

/// What is wrong with a line that says nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mistake {
    Arity,
    ServerId,
    UserId,
    /// A nickname introduced without a timestamp where all have one.
    NoTimestamp,
}

impl Mistake {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Arity => "arity",
            Self::ServerId => "sid",
            Self::UserId => "uid",
            Self::NoTimestamp => "nick",
        }
    }
}

/// Arguments of a mode change.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arguments<'a> {
    params: [&'a [u8]; 15],
    count: usize,
}

impl<'a> Arguments<'a> {
    pub(super) fn new(given: &[&'a [u8]]) -> Self {
        let mut arguments = Self::default();
        for (slot, param) in arguments.params.iter_mut().zip(given) {
            *slot = param;
            arguments.count = arguments.count.saturating_add(1);
        }
        arguments
    }

    fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        self.params.iter().take(self.count).copied()
    }
}

/// One letter of a mode change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Change<'a> {
    pub(super) is_adding: bool,
    pub(super) letter: u8,
    pub(super) argument: &'a [u8],
}

impl Change<'_> {
    /// Whether it is about a member's rank, of which voice is one.
    pub(super) const fn is_rank(&self) -> bool {
        matches!(self.letter, b'o' | b'h' | b'v' | b'a' | b'q')
    }

    /// Whether it is about a rank that may change a channel.
    pub(super) const fn is_operator(&self) -> bool {
        matches!(self.letter, b'o' | b'h' | b'a' | b'q')
    }
}

/// Walks `+ov-b` with its arguments.
pub(super) fn changes<'a>(modes: &'a [u8], arguments: &Arguments<'a>) -> impl Iterator<Item = Change<'a>> {
    let mut arguments = arguments.iter();
    let mut is_adding = true;
    modes.iter().filter_map(move |letter| {
        match letter {
            b'+' => is_adding = true,
            b'-' => is_adding = false,
            _ => {
                let takes = match letter {
                    b'b' | b'e' | b'I' | b'o' | b'h' | b'v' | b'a' | b'q' | b'k' => true,
                    b'l' | b'f' | b'j' | b'L' | b'H' => is_adding,
                    _ => false,
                };
                let argument = if takes { arguments.next().unwrap_or_default() } else { b"" };
                return Some(Change { is_adding, letter: *letter, argument });
            }
        }
        None
    })
}

/// How members are written in one list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Style {
    /// `@id`, separated by spaces; in TS4 also `b)mask`.
    Marks,
    /// `@nick`, separated by commas.
    Commas,
    /// `o,id:membership`.
    Letters,
}

/// The members of a burst, with whether each may change the channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members<'a> {
    list: &'a [u8],
    style: Style,
}

impl<'a> Members<'a> {
    pub(super) const fn marked(list: &'a [u8]) -> Self {
        Self { list, style: Style::Marks }
    }

    pub(super) const fn with_commas(list: &'a [u8]) -> Self {
        Self { list, style: Style::Commas }
    }

    pub(super) const fn lettered(list: &'a [u8]) -> Self {
        Self { list, style: Style::Letters }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a [u8], bool)> {
        let style = self.style;
        let separator = if style == Style::Commas { b',' } else { b' ' };
        self.list.split(move |byte| *byte == separator).filter_map(move |word| match style {
            Style::Letters => lettered(word),
            Style::Marks | Style::Commas => marked(word),
        })
    }
}

fn marked(word: &[u8]) -> Option<(&[u8], bool)> {
    // TS4's bans and exceptions stand in the same list; `*` is an empty one.
    if word == b"*" || (word.get(1) == Some(&b')') && word.first().is_some_and(u8::is_ascii_alphabetic)) {
        return None;
    }
    let marks = word.iter().take_while(|byte| b"@+%&~!*".contains(byte)).count();
    let (marks, id) = word.split_at(marks);
    (!id.is_empty()).then(|| (id, marks.iter().any(|mark| b"@%&~!".contains(mark))))
}

fn lettered(word: &[u8]) -> Option<(&[u8], bool)> {
    let comma = word.iter().position(|byte| *byte == b',')?;
    let (letters, rest) = word.split_at(comma);
    let id = rest.get(1..)?.split(|byte| *byte == b':').next()?;
    (!id.is_empty()).then(|| (id, letters.iter().any(|letter| b"ohaqyY".contains(letter))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_a_shape() {
        assert!(
            is_server_id(b"0HA") && is_server_id(b"000") && !is_server_id(b"AHA") && !is_server_id(b"0ha")
        );
        assert!(is_user_id(b"0HAAAAAAA") && is_user_id(b"1HBA00000"));
        assert!(!is_user_id(b"0HA0AAAAA") && !is_user_id(b"7rgaaaaaa") && !is_user_id(b"0HAAAAAA"));
    }

    #[test]
    fn members_are_read_in_every_style() {
        let of = |members: Members<'static>| members.iter().collect::<Vec<_>>();
        let expected: Vec<(&[u8], bool)> = vec![(b"0HAAAAAAA", true), (b"0HAAAAAAB", false)];
        assert_eq!(of(Members::marked(b"@0HAAAAAAA +0HAAAAAAB")), expected);
        assert_eq!(of(Members::marked(b"@+%0HAAAAAAA b)*!*@x e)*!*@y 0HAAAAAAB *")), expected);
        assert_eq!(of(Members::with_commas(b"@0HAAAAAAA,0HAAAAAAB")), expected);
        assert_eq!(of(Members::lettered(b"o,0HAAAAAAA:0 ,0HAAAAAAB:12")), expected);
    }

    #[test]
    fn a_mode_change_is_walked_with_its_arguments() {
        let arguments = Arguments::new(&[b"anna", b"*!*@x", b"5"]);
        let found: Vec<_> = changes(b"+o-b+nl", &arguments)
            .map(|change| (change.is_adding, change.letter, change.argument))
            .collect();
        let expected: [(bool, u8, &[u8]); 4] =
            [(true, b'o', b"anna"), (false, b'b', b"*!*@x"), (true, b'n', b""), (true, b'l', b"5")];
        assert_eq!(found, expected);
    }
}
