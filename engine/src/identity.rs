//! Who is who: whose nickname somebody uses, and from where administrators log in.
//!
//! Signals go in, in order, those of all services; what they show about people comes out as further signals. Memory lasts as
//! long as the engine's and is bounded: when a table is full, what was longest untouched goes, and with it what it would have
//! shown.

use std::collections::BTreeMap;

use floodwall_wire::Address;

use crate::{
    bounded::BoundedMap,
    limits::{IDENTITY_NETWORKS_MAX, IDENTITY_PENDING_MAX, IDENTITY_SESSIONS_PER_NICKNAME_MAX, SUBJECTS_MAX},
    rule::evaluate::network,
    signal::{Detail, FlowId, Method, Signal, SignalKind},
    text::{Text, is_plain},
    time::{Span, Timestamp},
};

/// The reason of a `login.succeeded` whose account may do everything.
pub const ADMINISTRATOR: &str = "administrator";
/// Nobody has proven that a nickname is theirs, and two use it.
const TWO_AT_ONCE: &str = "two-at-once";
/// What TeamTalk's own clients call somebody who has given themselves no name: nobody's, and everybody's.
const NAMELESS: &str = "noname";
/// On IRC a nickname comes first and the proof of its owner later.
const IDENTIFICATION_PATIENCE: Span = Span::from_secs(60);

/// A nickname of one service, folded.
type Key = (u8, Text);

/// What is remembered about people.
#[derive(Debug)]
pub struct Identities {
    nicknames: BoundedMap<Key, Nickname>,
    sessions: BoundedMap<FlowId, Session>,
    /// Networks from which each account that may do everything has logged in.
    administrators: BoundedMap<(u8, Method, Text), Networks>,
    /// Who may still prove that a nickname is theirs, by deadline.
    pending: BTreeMap<(Timestamp, FlowId), Signal>,
}

/// A nickname: whose it is, and who uses it now.
#[derive(Debug, Default)]
struct Nickname {
    owner: Option<Owner>,
    /// Logged-in connections that use it, with their households.
    present: Vec<(FlowId, Address)>,
}

/// The account that first used a nickname, and from where.
#[derive(Debug)]
struct Owner {
    account: Text,
    networks: Networks,
}

/// The last few places somebody was at.
#[derive(Debug, Default)]
struct Networks(Vec<Address>);

/// One logged-in connection.
#[derive(Debug)]
struct Session {
    nickname: Option<Key>,
    account: Option<Text>,
    /// The server lets nobody else have its nickname: IRC.
    is_unique: bool,
}

impl Networks {
    /// Adds one; whether it was there.
    fn add(&mut self, network: Address) -> bool {
        let known = self.0.iter().position(|held| *held == network);
        match known {
            Some(at) => {
                let held = self.0.remove(at);
                self.0.push(held);
            }
            None => {
                if self.0.len() >= IDENTITY_NETWORKS_MAX {
                    self.0.remove(0);
                }
                self.0.push(network);
            }
        }
        known.is_some()
    }

    fn contains(&self, network: Address) -> bool {
        self.0.contains(&network)
    }
}

impl Identities {
    /// Nobody is known; `seed` keys the tables.
    pub fn new(seed: u64) -> Self {
        Self {
            nicknames: BoundedMap::new(SUBJECTS_MAX, seed),
            sessions: BoundedMap::new(SUBJECTS_MAX, seed),
            administrators: BoundedMap::new(SUBJECTS_MAX, seed),
            pending: BTreeMap::new(),
        }
    }

    /// Takes a signal; what it shows about somebody is appended to `shown`.
    #[inline]
    pub fn handle_signal(&mut self, signal: &Signal, shown: &mut Vec<Signal>) {
        use SignalKind::{ConnectionClosed, LoginEnded, LoginSucceeded, NickChanged};
        if matches!(signal.kind, LoginSucceeded | NickChanged | LoginEnded | ConnectionClosed) {
            self.follow(signal, shown);
        }
    }

    fn follow(&mut self, signal: &Signal, shown: &mut Vec<Signal>) {
        if signal.kind == SignalKind::LoginSucceeded {
            return self.on_login(signal, shown);
        }
        let Some(flow) = signal.flow else { return };
        if signal.kind == SignalKind::NickChanged {
            if let Some(nickname) = &signal.detail.nickname {
                let account = self.sessions.get(&flow).and_then(|session| session.account.clone());
                self.take_nickname(signal, flow, nickname, account, shown);
            }
        } else if matches!(signal.kind, SignalKind::LoginEnded | SignalKind::ConnectionClosed)
            && let Some(key) = self.sessions.remove(&flow).and_then(|session| session.nickname)
        {
            self.leave_nickname(flow, &key, signal.at);
        }
    }

    /// Whose time to prove something is up.
    pub fn handle_timeout(&mut self, now: Timestamp, shown: &mut Vec<Signal>) {
        while let Some(entry) = self.pending.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((at, _), signal) = entry.remove_entry();
            shown.push(Signal { at, ..signal });
        }
    }

    fn on_login(&mut self, signal: &Signal, shown: &mut Vec<Signal>) {
        let detail = &signal.detail;
        let may_do_everything = detail.reason == Some(ADMINISTRATOR)
            || matches!(detail.method, Some(Method::Oper | Method::Query));
        if may_do_everything {
            self.on_administrator(signal, shown);
        }
        let Some(flow) = signal.flow else { return };
        let proves = matches!(detail.method, Some(Method::Account | Method::Sasl | Method::Services));
        let account = detail.account.clone().filter(|account| proves && !account.is_empty());
        if proves && account.is_some() {
            self.pending.retain(|(_, other), _| *other != flow);
        }
        let session = self.sessions.touch_or_insert(
            &flow,
            signal.at,
            || Session { nickname: None, account: None, is_unique: false },
            |_| true,
            |_, _| {},
        );
        let Some(session) = session else { return };
        if account.is_some() {
            session.account = account;
        }
        session.is_unique |= detail.method == Some(Method::Registration);
        let account = session.account.clone();
        if let Some(nickname) = detail.nickname.clone() {
            self.take_nickname(signal, flow, &nickname, account, shown);
        }
    }

    /// An account that may do everything is known by where it logs in from, from its second network on.
    fn on_administrator(&mut self, signal: &Signal, shown: &mut Vec<Signal>) {
        let (Some(method), Some(account)) = (signal.detail.method, signal.detail.account.clone()) else {
            return;
        };
        let key = (signal.service, method, account);
        let networks =
            self.administrators.touch_or_insert(&key, signal.at, Networks::default, |_| true, |_, _| {});
        let Some(networks) = networks else { return };
        let is_first = networks.0.is_empty();
        if !networks.add(network(signal.address)) && !is_first {
            shown.push(about(SignalKind::LoginElsewhere, signal, None));
        }
    }

    fn take_nickname(
        &mut self,
        signal: &Signal,
        flow: FlowId,
        nickname: &Text,
        account: Option<Text>,
        shown: &mut Vec<Signal>,
    ) {
        let key = (signal.service, fold(nickname));
        let mut is_unique = false;
        let before = self.sessions.touch(&flow, signal.at).and_then(|session| {
            is_unique = session.is_unique;
            let changed = session.nickname.as_ref() != Some(&key);
            if changed { session.nickname.replace(key.clone()) } else { None }
        });
        if let Some(before) = before {
            self.leave_nickname(flow, &before, signal.at);
        }
        if key.1.is_empty() {
            return;
        }
        let here = household(signal.address);
        let entry = self.nicknames.touch_or_insert(
            &key,
            signal.at,
            Nickname::default,
            |nickname| nickname.present.is_empty(),
            |_, _| {},
        );
        let Some(entry) = entry else { return };
        let is_nameless = key.1.as_str().starts_with(NAMELESS);
        // On IRC two have one nickname for as long as a netsplit or a dead connection lasts: the network's doing.
        let reason = entry
            .spoofed_by(&key.1, flow, here, account.as_ref())
            .filter(|reason| !((is_unique || is_nameless) && *reason == TWO_AT_ONCE));
        let is_present = entry.present.iter().any(|(other, _)| *other == flow);
        if !is_present && entry.present.len() < IDENTITY_SESSIONS_PER_NICKNAME_MAX {
            entry.present.push((flow, here));
        }
        match (&mut entry.owner, account) {
            (Some(owner), Some(account)) if owner.account == account => {
                owner.networks.add(here);
            }
            // A nickname that somebody else already uses is nobody's to claim.
            (owner @ None, Some(account)) if reason.is_none() => {
                let mut networks = Networks::default();
                networks.add(here);
                *owner = Some(Owner { account, networks });
            }
            _ => {}
        }
        let Some(reason) = reason else { return };
        let spoofed = about(SignalKind::IdentitySpoofed, signal, Some(reason));
        // IRC: the account is told after the nickname.
        if signal.detail.method == Some(Method::Registration) && self.pending.len() < IDENTITY_PENDING_MAX {
            self.pending.insert((signal.at + IDENTIFICATION_PATIENCE, flow), spoofed);
        } else if signal.detail.method != Some(Method::Registration) {
            shown.push(spoofed);
        }
    }

    fn leave_nickname(&mut self, flow: FlowId, key: &Key, now: Timestamp) {
        self.pending.retain(|(_, other), _| *other != flow);
        let Some(entry) = self.nicknames.touch(key, now) else { return };
        entry.present.retain(|(other, _)| *other != flow);
        if entry.owner.is_none() && entry.present.is_empty() {
            self.nicknames.remove(key);
        }
    }
}

impl Nickname {
    /// In what way somebody who takes it now is not who had it. Everybody in the owner's own networks is taken for the owner: a
    /// household, or the owner as a guest. Two who have accounts of their own may have one name, unless it is that of an account.
    fn spoofed_by(
        &self,
        name: &Text,
        flow: FlowId,
        here: Address,
        account: Option<&Text>,
    ) -> Option<&'static str> {
        if let Some(owner) = &self.owner {
            if account == Some(&owner.account) || owner.networks.contains(here) {
                return None;
            }
            let is_namesake = account.is_some() && fold(&owner.account) != *name;
            return (!is_namesake).then_some(if account.is_some() {
                "another-account"
            } else {
                "no-account"
            });
        }
        // Nobody has proven that it is theirs: two at the same time cannot both be right.
        let is_taken = self.present.iter().any(|(other, network)| *other != flow && *network != here);
        is_taken.then_some(TWO_AT_ONCE)
    }
}

/// A signal about who somebody is, from what they did.
fn about(kind: SignalKind, signal: &Signal, reason: Option<&'static str>) -> Signal {
    let Detail { method, account, nickname, .. } = &signal.detail;
    let detail = Detail {
        method: *method,
        account: account.clone(),
        nickname: nickname.clone(),
        reason,
        ..Detail::default()
    };
    Signal {
        kind,
        at: signal.at,
        service: signal.service,
        address: signal.address,
        flow: signal.flow,
        detail,
    }
}

/// What people at home share: an IPv4 address, an IPv6 /64.
const fn household(address: Address) -> Address {
    if address.is_v4() { address } else { network(address) }
}

/// A nickname as people read it: without case, blanks, invisible marks, and the difference between letters that look alike
/// (Unicode TR 39, the commonest of its confusables).
fn fold(nickname: &Text) -> Text {
    let folded: String = nickname
        .as_str()
        .chars()
        .filter(|character| is_plain(*character) && !character.is_whitespace())
        .flat_map(char::to_lowercase)
        .map(lookalike)
        .collect();
    Text::from(folded.as_str())
}

/// The Latin letter that a letter of another script is drawn like.
const fn lookalike(character: char) -> char {
    match character {
        'а' | 'α' => 'a',
        'с' => 'c',
        'ԁ' => 'd',
        'е' | 'ё' => 'e',
        'һ' => 'h',
        'і' | 'ї' | 'ι' => 'i',
        'ј' => 'j',
        'к' | 'κ' => 'k',
        'ӏ' => 'l',
        'о' | 'ο' => 'o',
        'р' | 'ρ' => 'p',
        'ԛ' => 'q',
        'ѕ' => 's',
        'т' | 'τ' => 't',
        'υ' => 'u',
        'ν' | 'ѵ' => 'v',
        'ԝ' => 'w',
        'х' | 'χ' => 'x',
        'у' => 'y',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct People {
        identities: Identities,
        now: Timestamp,
    }

    impl People {
        fn new() -> Self {
            Self { identities: Identities::new(7), now: Timestamp::from_nanos(1_000_000_000) }
        }

        fn tell(&mut self, kind: SignalKind, flow: u64, last: u8, detail: Detail) -> Vec<String> {
            self.now = self.now + Span::from_secs(1);
            let address = Address::from_v4(0x0a00_0001 | (u32::from(last) << 8));
            let signal = Signal { kind, at: self.now, service: 0, address, flow: Some(FlowId(flow)), detail };
            let mut shown = Vec::new();
            self.identities.handle_timeout(self.now, &mut shown);
            self.identities.handle_signal(&signal, &mut shown);
            shown.iter().map(ToString::to_string).collect()
        }

        fn log_in(&mut self, flow: u64, network: u8, account: &str, nickname: &str) -> Vec<String> {
            let method = if account.is_empty() { Method::Guest } else { Method::Account };
            let detail = Detail {
                method: Some(method),
                account: Some(Text::from(account)),
                nickname: Some(Text::from(nickname)),
                ..Detail::default()
            };
            self.tell(SignalKind::LoginSucceeded, flow, network, detail)
        }

        fn rename(&mut self, flow: u64, network: u8, nickname: &str) -> Vec<String> {
            let detail = Detail { nickname: Some(Text::from(nickname)), ..Detail::default() };
            self.tell(SignalKind::NickChanged, flow, network, detail)
        }

        fn leave(&mut self, flow: u64, network: u8) {
            assert!(self.tell(SignalKind::ConnectionClosed, flow, network, Detail::default()).is_empty());
        }
    }

    #[test]
    fn a_friends_nickname_from_elsewhere_is_told() {
        let mut people = People::new();
        assert!(people.log_in(1, 1, "alice", "Alice").is_empty());
        people.leave(1, 1);
        assert_eq!(
            people.log_in(2, 2, "", "ALICE "),
            [
                "identity.spoofed from 10.0.2.1 method guest account \"\" nickname \"ALICE \" reason no-account"
            ]
        );
        assert!(people.rename(2, 2, "somebody").is_empty());
        // Cyrillic А and е.
        let told = people.rename(2, 2, "Аlicе");
        assert!(told[0].ends_with("reason no-account"), "{told:?}");
        let told = people.log_in(3, 3, "mallory", "alice");
        assert!(told[0].ends_with("reason another-account"), "{told:?}");
    }

    #[test]
    fn two_with_accounts_may_have_one_name_and_a_guest_may_not() {
        let mut people = People::new();
        assert!(people.log_in(1, 1, "maria1", "Maria").is_empty());
        assert!(people.log_in(2, 2, "maria2", "Maria").is_empty());
        let told = people.log_in(3, 3, "", "Maria");
        assert!(told[0].ends_with("reason no-account"), "{told:?}");
    }

    #[test]
    fn the_owner_the_household_and_the_owners_next_network_are_not_told() {
        let mut people = People::new();
        people.log_in(1, 1, "alice", "Alice");
        assert!(people.log_in(2, 5, "alice", "alice").is_empty());
        people.leave(1, 1);
        people.leave(2, 5);
        assert!(people.log_in(3, 5, "", "Alice").is_empty());
        assert!(people.log_in(4, 1, "bob", "Alice").is_empty());
    }

    #[test]
    fn guests_share_nicknames_one_after_the_other_and_never_at_once() {
        let mut people = People::new();
        assert!(people.log_in(1, 1, "", "guest").is_empty());
        people.leave(1, 1);
        assert!(people.log_in(2, 2, "", "guest").is_empty());
        let told = people.log_in(3, 3, "", "Guest");
        assert!(told[0].ends_with("reason two-at-once"), "{told:?}");
        assert!(people.log_in(4, 4, "", "").is_empty());
        assert!(people.log_in(5, 5, "", "").is_empty());
    }

    #[test]
    fn on_irc_a_netsplit_gives_one_nickname_to_two() {
        let mut people = People::new();
        for (flow, network) in [(1, 1), (2, 2)] {
            let detail = Detail {
                method: Some(Method::Registration),
                nickname: Some(Text::from("anna")),
                ..Detail::default()
            };
            assert!(people.tell(SignalKind::LoginSucceeded, flow, network, detail).is_empty());
        }
        let mut later = Vec::new();
        people.identities.handle_timeout(people.now + Span::from_secs(3_600), &mut later);
        assert!(later.is_empty(), "{later:?}");
    }

    #[test]
    fn on_irc_the_owner_has_a_minute_to_say_so() {
        let mut people = People::new();
        let register = |people: &mut People, flow, network| {
            let detail = Detail {
                method: Some(Method::Registration),
                nickname: Some(Text::from("anna")),
                ..Detail::default()
            };
            people.tell(SignalKind::LoginSucceeded, flow, network, detail)
        };
        let identify = |people: &mut People, flow, network| {
            let detail = Detail {
                method: Some(Method::Services),
                account: Some(Text::from("anna")),
                nickname: Some(Text::from("anna")),
                ..Detail::default()
            };
            people.tell(SignalKind::LoginSucceeded, flow, network, detail)
        };
        assert!(register(&mut people, 1, 1).is_empty());
        assert!(identify(&mut people, 1, 1).is_empty());
        people.leave(1, 1);
        assert!(register(&mut people, 2, 2).is_empty());
        assert!(identify(&mut people, 2, 2).is_empty());
        people.leave(2, 2);
        assert!(register(&mut people, 3, 3).is_empty());
        people.now = people.now + IDENTIFICATION_PATIENCE;
        let mut shown = Vec::new();
        people.identities.handle_timeout(people.now, &mut shown);
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].kind, SignalKind::IdentitySpoofed);
        assert_eq!(shown[0].flow, Some(FlowId(3)));
    }

    #[test]
    fn an_administrator_from_a_new_network_is_told_once() {
        let mut people = People::new();
        let log_in = |people: &mut People, flow, network| {
            let detail = Detail {
                method: Some(Method::Account),
                account: Some(Text::from("admin")),
                nickname: Some(Text::from("root")),
                reason: Some(ADMINISTRATOR),
                ..Detail::default()
            };
            people.tell(SignalKind::LoginSucceeded, flow, network, detail)
        };
        assert!(log_in(&mut people, 1, 1).is_empty());
        assert!(log_in(&mut people, 2, 1).is_empty());
        assert_eq!(
            log_in(&mut people, 3, 9),
            ["login.elsewhere from 10.0.9.1 method account account \"admin\" nickname \"root\""]
        );
        assert!(log_in(&mut people, 4, 9).is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let mut people = People::new();
        for flow in 0..(SUBJECTS_MAX as u64 + 2_000) {
            people.log_in(flow, (flow % 200) as u8, "", &format!("n{flow}"));
        }
        assert!(people.identities.nicknames.len() <= SUBJECTS_MAX);
        assert!(people.identities.sessions.len() <= SUBJECTS_MAX);
    }
}
