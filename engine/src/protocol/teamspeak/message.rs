//! The grammar of ServerQuery: `name key=value key=value -option key=value|key=value`, answers that end in
//! `error id=<n> msg=<text>`, and escapes for what would break that. Total, and nothing is allocated but
//! a name that is asked for.

use super::vocabulary::is_parameter;
use crate::text::{TEXT_BYTES_MAX, Text};

/// Longest line that is read whole. Longer ones are legal (snapshots, lists): of a client's the beginning is
/// read, a server's never matter.
pub const LINE_BYTES_MAX: usize = 8192;

/// What a command does when it is answered with success, or by being sent.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Effect {
    /// Gives or takes rights, keys or accounts.
    Account,
    /// Bans a user or an address.
    Ban,
    /// Changes a channel.
    ChannelChanged,
    /// Makes a channel.
    ChannelCreated,
    /// Removes a channel.
    ChannelRemoved,
    /// Throws a user out.
    Kick,
    /// Logs in.
    Login,
    /// Logs out.
    Logout,
    /// Says something.
    Message,
    /// Moves a user.
    Move,
    /// Nothing that lasts.
    None,
    /// Uses a privilege key.
    PrivilegeKey,
    /// Changes the own nickname.
    Rename,
    /// Changes the server or stops it.
    Server,
}

/// Commands known by name and what they do. All else is reported as `unknown`.
const COMMANDS: &[(&str, Effect)] = &[
    ("apikeyadd", Effect::Account),
    ("apikeydel", Effect::Account),
    ("apikeylist", Effect::None),
    ("banadd", Effect::Ban),
    ("banclient", Effect::Ban),
    ("bandel", Effect::Server),
    ("bandelall", Effect::Server),
    ("banlist", Effect::None),
    ("bindinglist", Effect::None),
    ("channeladdperm", Effect::ChannelChanged),
    ("channelclientaddperm", Effect::Account),
    ("channelclientdelperm", Effect::Account),
    ("channelclientpermlist", Effect::None),
    ("channelcreate", Effect::ChannelCreated),
    ("channeldelete", Effect::ChannelRemoved),
    ("channeldelperm", Effect::ChannelChanged),
    ("channeledit", Effect::ChannelChanged),
    ("channelfind", Effect::None),
    ("channelgroupadd", Effect::Account),
    ("channelgroupaddperm", Effect::Account),
    ("channelgroupclientlist", Effect::None),
    ("channelgroupcopy", Effect::Account),
    ("channelgroupdel", Effect::Account),
    ("channelgroupdelperm", Effect::Account),
    ("channelgrouplist", Effect::None),
    ("channelgrouppermlist", Effect::None),
    ("channelgrouprename", Effect::Account),
    ("channelinfo", Effect::None),
    ("channellist", Effect::None),
    ("channelmove", Effect::ChannelChanged),
    ("channelpermlist", Effect::None),
    ("clientaddperm", Effect::Account),
    ("clientdbdelete", Effect::Account),
    ("clientdbedit", Effect::Account),
    ("clientdbfind", Effect::None),
    ("clientdbinfo", Effect::None),
    ("clientdblist", Effect::None),
    ("clientdelperm", Effect::Account),
    ("clientedit", Effect::None),
    ("clientfind", Effect::None),
    ("clientgetdbidfromuid", Effect::None),
    ("clientgetids", Effect::None),
    ("clientgetnamefromdbid", Effect::None),
    ("clientgetnamefromuid", Effect::None),
    ("clientgetuidfromclid", Effect::None),
    ("clientinfo", Effect::None),
    ("clientkick", Effect::Kick),
    ("clientlist", Effect::None),
    ("clientmove", Effect::Move),
    ("clientpermlist", Effect::None),
    ("clientpoke", Effect::Message),
    ("clientsetserverquerylogin", Effect::Account),
    ("clientupdate", Effect::Rename),
    ("complainadd", Effect::None),
    ("complaindel", Effect::None),
    ("complaindelall", Effect::None),
    ("complainlist", Effect::None),
    ("customdelete", Effect::None),
    ("custominfo", Effect::None),
    ("customsearch", Effect::None),
    ("customset", Effect::None),
    ("ftcreatedir", Effect::None),
    ("ftdeletefile", Effect::ChannelChanged),
    ("ftgetfileinfo", Effect::None),
    ("ftgetfilelist", Effect::None),
    ("ftinitdownload", Effect::None),
    ("ftinitupload", Effect::None),
    ("ftlist", Effect::None),
    ("ftrenamefile", Effect::ChannelChanged),
    ("ftstop", Effect::None),
    ("gm", Effect::Message),
    ("help", Effect::None),
    ("hostinfo", Effect::None),
    ("instanceedit", Effect::Server),
    ("instanceinfo", Effect::None),
    ("logadd", Effect::None),
    ("login", Effect::Login),
    ("logout", Effect::Logout),
    ("logview", Effect::None),
    ("messageadd", Effect::None),
    ("messagedel", Effect::None),
    ("messageget", Effect::None),
    ("messagelist", Effect::None),
    ("messageupdateflag", Effect::None),
    ("permfind", Effect::None),
    ("permget", Effect::None),
    ("permidgetbyname", Effect::None),
    ("permissionlist", Effect::None),
    ("permoverview", Effect::None),
    ("permreset", Effect::Server),
    ("privilegekeyadd", Effect::Account),
    ("privilegekeydelete", Effect::Account),
    ("privilegekeylist", Effect::None),
    ("privilegekeyuse", Effect::PrivilegeKey),
    ("queryloginadd", Effect::Account),
    ("querylogindel", Effect::Account),
    ("queryloginlist", Effect::None),
    ("quit", Effect::None),
    ("sendtextmessage", Effect::Message),
    ("servercreate", Effect::Server),
    ("serverdelete", Effect::Server),
    ("serveredit", Effect::Server),
    ("servergroupadd", Effect::Account),
    ("servergroupaddclient", Effect::Account),
    ("servergroupaddperm", Effect::Account),
    ("servergroupautoaddperm", Effect::Account),
    ("servergroupautodelperm", Effect::Account),
    ("servergroupclientlist", Effect::None),
    ("servergroupcopy", Effect::Account),
    ("servergroupdel", Effect::Account),
    ("servergroupdelclient", Effect::Account),
    ("servergroupdelperm", Effect::Account),
    ("servergrouplist", Effect::None),
    ("servergrouppermlist", Effect::None),
    ("servergrouprename", Effect::Account),
    ("servergroupsbyclientid", Effect::None),
    ("serveridgetbyport", Effect::None),
    ("serverinfo", Effect::None),
    ("serverlist", Effect::None),
    ("servernotifyregister", Effect::None),
    ("servernotifyunregister", Effect::None),
    ("serverprocessstop", Effect::Server),
    ("serverrequestconnectioninfo", Effect::None),
    ("serversnapshotcreate", Effect::Server),
    ("serversnapshotdeploy", Effect::Server),
    ("serverstart", Effect::Server),
    ("serverstop", Effect::Server),
    ("servertemppasswordadd", Effect::Server),
    ("servertemppassworddel", Effect::Server),
    ("servertemppasswordlist", Effect::None),
    ("setclientchannelgroup", Effect::Account),
    ("tokenadd", Effect::Account),
    ("tokendelete", Effect::Account),
    ("tokenlist", Effect::None),
    ("tokenuse", Effect::PrivilegeKey),
    ("use", Effect::None),
    ("version", Effect::None),
    ("whoami", Effect::None),
];

/// One line of a client.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    /// The command's name, from the closed list; `unknown` for all else.
    pub keyword: &'static str,
    /// What it does.
    pub effect: Effect,
    rest: &'a [u8],
}

impl<'a> Command<'a> {
    /// Reads one line; `None` for an empty one, which gets no answer.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let line = trim(line);
        let name = line.split(|byte| *byte == b' ').next().filter(|name| !name.is_empty())?;
        let rest = line.get(name.len()..).unwrap_or_default();
        let known = COMMANDS.iter().find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
        let (keyword, effect) = known.copied().unwrap_or(("unknown", Effect::None));
        Some(Self { keyword, effect, rest })
    }

    /// Whether the name is one of the closed list.
    pub fn is_known(&self) -> bool {
        self.keyword != "unknown"
    }

    /// The name as it was written, if it is no documented one and could be one: letters and digits, as all are. It may be
    /// something secret, typed by mistake, unless the server knows it.
    pub fn undocumented_name(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        let name = trim(line).split(|byte| *byte == b' ').next()?;
        let is_name = (2..=40).contains(&name.len()) && name.iter().all(u8::is_ascii_alphanumeric);
        (!self.is_known() && is_name).then_some(name)
    }

    /// The parameters and flags that no documentation has. None of a line whose grammar leaves room for a secret or for talk
    /// in their place: one that logs in, uses a key, or has a word that is neither.
    pub fn undocumented_parameters(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let is_plain = !matches!(self.effect, Effect::Login | Effect::PrivilegeKey)
            && self.words().all(|word| parameter(word).is_some());
        self.words().filter(move |_| is_plain).filter_map(parameter).filter(|name| !is_parameter(name))
    }

    /// Every value of this key, in order, still escaped.
    pub fn values<'k>(&self, key: &'k str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'k> {
        self.words().filter_map(move |word| word.strip_prefix(key.as_bytes())?.strip_prefix(b"="))
    }

    /// The first value of this key, still escaped.
    pub fn value(&self, key: &str) -> Option<&'a [u8]> {
        self.values(key).next()
    }

    /// The words after the name, those of lists too.
    pub fn words(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.rest.split(|byte| matches!(byte, b' ' | b'|')).filter(|word| !word.is_empty())
    }
}

/// The number in an `error id=<n> …` line.
pub fn answer(line: &[u8]) -> Option<u32> {
    let digits = trim(line).strip_prefix(b"error id=")?;
    let digits = digits.split(|byte| *byte == b' ').next()?;
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u32::from(byte.saturating_sub(b'0')))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

/// The name of a parameter, or a flag with its `-`; `None` for a word that is neither.
pub fn parameter(word: &[u8]) -> Option<&[u8]> {
    let is_name = |name: &[u8]| {
        name.first().is_some_and(u8::is_ascii_lowercase)
            && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    };
    match word.strip_prefix(b"-") {
        Some(flag) => is_name(flag).then_some(word),
        None => {
            let end = word.iter().position(|byte| *byte == b'=')?;
            word.get(..end).filter(|name| is_name(name))
        }
    }
}

/// The parameters of what a server says that no documentation has.
pub fn undocumented_parameters(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = line.split(|byte| matches!(byte, b' ' | b'|'));
    words.filter_map(parameter).filter(|name| !name.starts_with(b"-") && !is_parameter(name))
}

/// A line without the CR that stands before or after its LF, depending on who wrote it, and without spaces.
pub fn trim(line: &[u8]) -> &[u8] {
    line.trim_ascii()
}

/// A value with its escapes undone, cut to what a [`Text`] keeps.
pub fn unescape(value: &[u8]) -> Text {
    let mut plain = Vec::with_capacity(value.len().min(TEXT_BYTES_MAX));
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next()
        && plain.len() < TEXT_BYTES_MAX
    {
        plain.push(match byte {
            b'\\' => match bytes.next() {
                Some(b's') => b' ',
                Some(b'p') => b'|',
                Some(b'a') => 0x07,
                Some(b'b') => 0x08,
                Some(b'f') => 0x0c,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'v') => 0x0b,
                Some(other) => other,
                None => b'\\',
            },
            plain => plain,
        });
    }
    Text::new(&plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_and_lists_are_read() {
        let command = Command::parse(b"clientkick reasonid=5 clid=3|clid=4 reasonmsg=go\\saway\r").unwrap();
        assert_eq!((command.keyword, command.effect), ("clientkick", Effect::Kick));
        assert_eq!(command.values("clid").collect::<Vec<_>>(), [b"3", b"4"]);
        assert_eq!(command.value("reasonid"), Some(b"5".as_slice()));
        assert_eq!(command.value("cl"), None);
    }

    #[test]
    fn the_list_of_commands_is_sorted() {
        assert!(COMMANDS.is_sorted_by(|one, next| one.0 < next.0));
    }

    #[test]
    fn names_that_are_not_known_are_not_repeated() {
        let command = Command::parse(b"hunter2 x").unwrap();
        assert_eq!(command.keyword, "unknown");
        assert!(Command::parse(b" \r").is_none());
    }

    #[test]
    fn parameters_that_no_documentation_has_are_named() {
        let of = |line: &'static [u8]| -> Vec<_> {
            Command::parse(line).unwrap().undocumented_parameters().collect()
        };
        assert_eq!(of(b"channeledit cid=1 channel_colour=3|cid=2 -glow"), [&b"channel_colour"[..], b"-glow"]);
        assert!(of(b"clientlist -uid -away").is_empty());
        // A password with an equals sign, a key, talk that is not escaped.
        for line in [
            &b"login admin hunter=2"[..],
            b"login hunter=2",
            b"tokenuse hunter=2",
            b"gm msg=my key is hunter=2",
        ] {
            assert!(of(line).is_empty());
        }
        assert_eq!(
            undocumented_parameters(b"cid=1 channel_name=a=b channel_glow=1|cid=2 -x Hi=1")
                .collect::<Vec<_>>(),
            [b"channel_glow"],
        );
    }

    #[test]
    fn answers_are_numbers() {
        assert_eq!(answer(b"\rerror id=520 msg=invalid\\sloginname\\sor\\spassword"), Some(520));
        assert_eq!(answer(b"error id=0 msg=ok"), Some(0));
        assert_eq!(answer(b"error id=x"), None);
        assert_eq!(answer(b"notifytextmessage msg=error"), None);
        assert_eq!(answer(b"error id=99999999999"), None);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(b"a\\sb\\pc\\\\d\\/e\\").as_str(), "a b|c\\d/e\\");
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(command) = Command::parse(&line) {
                command.words().for_each(drop);
            }
            answer(&line);
            prop_assert!(unescape(&line).len() <= TEXT_BYTES_MAX * 3);
        }
    }
}
