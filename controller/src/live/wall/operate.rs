//! What operators ask for.

use std::net::IpAddr;

use floodwall_engine::{
    Order, Span, Timestamp,
    command::{Explanation, Prefix},
    rule::{RuleId, evaluate::Subject},
    text::Text,
};
use floodwall_wire::Address;

use super::{OPERATOR_BAN, OPERATOR_RULE, Wall, cut::Victim, is_everybody};
use crate::{
    enforce::tables::Store,
    live::{
        answers::Done,
        control::{Refusal, Request},
        ledger::{BanRow, Entry, parse_subject},
        people::People,
    },
    replay::rfc3339,
};

/// Widest prefixes that are banned or allowed without `--force`.
const V4_BITS_MIN: u8 = 96 + 16;
const V6_BITS_MIN: u8 = 48;

type Answer = Result<serde_json::Value, Refusal>;

impl<S: Store> Wall<S> {
    /// Answers one request.
    pub(crate) fn handle_request(&mut self, request: Request) -> Answer {
        match request {
            Request::Snapshot => to_value(&self.snapshot()),
            Request::Bans { history, limit } => self.list_bans(history, limit),
            Request::Ban { subject, seconds, why, kick, force } => {
                self.ban_by_hand(&subject, seconds, why.as_deref(), kick, force)
            }
            Request::Unban { subject } => self.unban(subject.as_deref()),
            Request::Kick { subject } => self.kick(&subject),
            Request::Allow { prefix, remove, force } => self.allow(prefix.as_deref(), remove, force),
            Request::Explain { subject, people } => self.explain(&subject, people),
            Request::Who => to_value(&self.who()),
            Request::Catalogue => to_value(&self.catalogue()),
            Request::Suggest => to_value(&self.suggest()),
            Request::Person { name } => self.person(&name),
            Request::Forget { name } => self.forget(&name),
            Request::Links { rows } => to_value(&self.links(rows)),
            Request::Confirm => self.confirm(),
            Request::Import { bans } => self.import(bans),
            // Whoever runs the wall takes care of these.
            Request::Watch | Request::Reload | Request::Status => {
                Err(Refusal::failed("not asked of the wall itself"))
            }
        }
    }

    fn people(&mut self) -> Result<&mut People, Refusal> {
        let message = "nothing is kept about people; turn it on with [people] in the configuration";
        self.people.as_mut().ok_or_else(|| Refusal::bad_input(message))
    }

    fn person(&mut self, name: &str) -> Answer {
        let person = self.people()?.person(name).map_err(|error| Refusal::failed(format!("{error:#}")))?;
        to_value(&person)
    }

    fn forget(&mut self, name: &str) -> Answer {
        if name.trim().is_empty() {
            return Err(Refusal::bad_input("name whom to forget: floodwall forget NAME"));
        }
        let shown = Text::from(name);
        let deleted = self.people()?.forget(name).map_err(|error| Refusal::failed(format!("{error:#}")))?;
        to_value(&Done::new([match deleted {
            Some(0) => format!("Nothing was kept about {shown}."),
            Some(1) => format!("{shown} is deleted, with 1 link to others."),
            Some(links) => format!("{shown} is deleted, with {links} links to others."),
            None => format!("{shown} is being deleted; the disk is slow."),
        }]))
    }

    /// Whoever gives orders from a terminal on another host is never banned there.
    pub(crate) fn remember_terminal(&mut self, from: Option<&str>) {
        // "SSH_CONNECTION" begins with the client's address.
        let address = from.and_then(|from| from.split_whitespace().next()).map(str::parse::<IpAddr>);
        if let Some(Ok(address)) = address {
            self.remember_operator(Address::from(address));
        }
    }

    /// An address, a prefix, or somebody's nickname or account.
    fn subjects(&self, written: &str) -> Result<Vec<Prefix>, Refusal> {
        if let Some(subject) = parse_subject(written) {
            return Ok(vec![subject]);
        }
        if written.contains('/')
            && written.split('/').next().is_some_and(|start| start.parse::<IpAddr>().is_ok())
        {
            return Err(Refusal::bad_input(format!(
                "{written:?} is no prefix: write for example 192.0.2.0/24"
            )));
        }
        let mut subjects: Vec<Prefix> =
            self.roster.named(written).iter().map(|(_, present)| Prefix::host(present.address)).collect();
        subjects.sort_unstable();
        subjects.dedup();
        if subjects.is_empty() {
            let message = format!(
                "{written:?} is neither an address or prefix nor the nickname or account of anybody present; \
                 `floodwall who` lists those"
            );
            return Err(Refusal::bad_input(message));
        }
        Ok(subjects)
    }

    fn ban_by_hand(
        &mut self,
        written: &str,
        seconds: Option<u64>,
        why: Option<&str>,
        kick: bool,
        force: bool,
    ) -> Answer {
        let subjects = self.subjects(written)?;
        for subject in &subjects {
            self.check_ban(*subject, force)?;
        }
        let now = self.clock.now();
        let duration = seconds.map_or(OPERATOR_BAN, Span::from_secs);
        let until = now + duration;
        let why = why.unwrap_or("an operator asked for it");
        let mut sentences = Vec::new();
        for subject in subjects {
            let explanation = by_operator(subject, why, now);
            self.engine.handle_order(Order::Ban { subject, until, explanation }, now);
            self.carry_out();
            if self.engine.ledger().standing(subject).is_none() {
                return Err(Refusal::failed(format!("{subject} was not banned: the ledger is full")));
            }
            if kick {
                // A ban cuts anyway; asked for by name, everybody of that name goes at once too.
                self.cut(Victim::Prefix(subject));
            }
            let until = rfc3339(self.clock.to_utc(until));
            sentences
                .push(format!("{subject} is banned until {until}. Lift it with: floodwall unban {subject}"));
        }
        to_value(&Done::new(sentences))
    }

    fn check_ban(&self, subject: Prefix, force: bool) -> Result<(), Refusal> {
        let refuse = |why: &str| Err(Refusal::bad_input(format!("{subject} is not banned: {why}")));
        // A brake that even --force does not release: it would lock everybody out, operators included.
        if is_everybody(subject) {
            return refuse("it is everybody");
        }
        if force {
            return Ok(());
        }
        if let Some(why) = self.neighbour(subject) {
            return refuse(&format!("{why}; --force does it all the same"));
        }
        if is_wide(subject) {
            return refuse("so wide a prefix takes --force (IPv4 wider than /16, IPv6 wider than /48)");
        }
        match self.enforcer.allowed_overlap(subject) {
            Some(allowed) => refuse(&format!(
                "{allowed} is on the allow list, which wins; floodwall allow --remove {allowed}"
            )),
            None => Ok(()),
        }
    }

    fn unban(&mut self, written: Option<&str>) -> Answer {
        let now = self.clock.now();
        let subjects: Vec<Prefix> = match written {
            Some(written) => {
                let subject = match parse_subject(written) {
                    Some(subject) => subject,
                    None => *self.subjects(written)?.first().ok_or_else(|| Refusal::bad_input("nobody"))?,
                };
                if self.engine.ledger().standing(subject).is_none() {
                    let by_prefix = self.engine.ledger().ban_of(subject.address(), now).is_some();
                    let hint = if by_prefix { "; a prefix it lies in is, see: floodwall bans" } else { "" };
                    return Err(Refusal::bad_input(format!("{subject} is not banned{hint}")));
                }
                vec![subject]
            }
            None => self.engine.ledger().bans().map(|(banned, _)| banned).collect(),
        };
        for subject in &subjects {
            self.engine.handle_order(Order::Unban { subject: *subject }, now);
        }
        self.carry_out();
        let sentence = match subjects.as_slice() {
            [] => "Nobody is banned.".to_owned(),
            [one] => {
                format!("The ban of {one} is lifted; for ten minutes rules note it instead of banning again.")
            }
            many => format!(
                "{} bans are lifted; for ten minutes rules note instead of banning again.",
                many.len()
            ),
        };
        to_value(&Done::new([sentence]))
    }

    fn kick(&mut self, written: &str) -> Answer {
        if self.cutter.is_none() {
            return Err(Refusal::failed("this wall only observes: it cuts nothing"));
        }
        let subjects = self.subjects(written)?;
        let mut connections = 0;
        for subject in &subjects {
            let victim = Victim::Prefix(*subject);
            connections +=
                self.engine.streams().ends().filter(|ends| ends.is_open && victim.owns(ends)).count();
            self.cut(victim);
        }
        let plural = if connections == 1 { "connection" } else { "connections" };
        to_value(&Done::new([format!("{connections} followed {plural} of {written} are being cut.")]))
    }

    fn allow(&mut self, written: Option<&str>, remove: bool, force: bool) -> Answer {
        let Some(written) = written else {
            let all: Vec<String> = self.enforcer.allowed().map(|prefix| prefix.to_string()).collect();
            let none = vec!["Nobody is on the allow list.".to_owned()];
            return to_value(&Done::new(if all.is_empty() { none } else { all }));
        };
        let prefix = parse_subject(written).ok_or_else(|| {
            Refusal::bad_input(format!("{written:?} is no address or prefix: write for example 192.0.2.7"))
        })?;
        let is_on = self.enforcer.allowed().any(|allowed| allowed == prefix);
        if remove && !is_on {
            return Err(Refusal::bad_input(format!("{prefix} is not on the allow list")));
        }
        if !remove && is_wide(prefix) && !force {
            return Err(Refusal::bad_input(format!("{prefix} is wide: letting it in takes --force")));
        }
        self.enforcer.allow(prefix, !remove).map_err(|error| Refusal::failed(format!("{error:#}")))?;
        let since = self.clock.to_utc(self.clock.now());
        self.ledger.write(if remove { Entry::Disallow { prefix } } else { Entry::Allow { prefix, since } });
        tracing::info!(%prefix, remove, "The allow list was changed");
        let configured = self
            .guard
            .allow
            .iter()
            .any(|(address, bits)| Prefix::new(*address, u8::try_from(*bits).unwrap_or(128)) == prefix);
        let sentence = match (remove, configured) {
            (true, true) => {
                format!("{prefix} is off the allow list until the next start: the configuration names it.")
            }
            (true, false) => format!("{prefix} is off the allow list."),
            (false, _) => format!("{prefix} is let in, whatever the rules say."),
        };
        to_value(&Done::new([sentence]))
    }

    fn confirm(&mut self) -> Answer {
        let sentence = match self.settings.confirm_by.take() {
            Some(_) => "Confirmed: the wall stays.",
            None => "There was nothing to confirm: the wall stays.",
        };
        to_value(&Done::new([sentence]))
    }

    /// Bans of another wall, or of this one from before. Those that are over are passed over.
    fn import(&mut self, rows: Vec<BanRow>) -> Answer {
        let now = self.clock.now();
        let (mut taken, mut over, mut refused) = (0, 0, Vec::new());
        for row in rows {
            let Some(subject) = parse_subject(&row.subject) else {
                refused.push(format!("{:?} is no address or prefix", row.subject));
                continue;
            };
            let until = self.clock.at_utc(Timestamp::from_nanos(row.until));
            if until <= now || row.ended_at.is_some() {
                over += 1;
                continue;
            }
            if let Err(refusal) = self.check_ban(subject, false) {
                refused.push(refusal.message);
                continue;
            }
            let explanation = super::explanation_of(&row, subject, now);
            self.engine.handle_order(Order::Ban { subject, until, explanation }, now);
            self.carry_out();
            taken += 1;
        }
        let mut sentences =
            vec![format!("{taken} bans taken over, {over} were over, {} refused.", refused.len())];
        sentences.extend(refused.into_iter().take(20));
        to_value(&Done::new(sentences))
    }
}

fn is_wide(subject: Prefix) -> bool {
    subject.bits() < if subject.address().is_v4() { V4_BITS_MIN } else { V6_BITS_MIN }
}

fn by_operator(subject: Prefix, why: &str, at: Timestamp) -> Explanation {
    Explanation {
        rule: RuleId(OPERATOR_RULE.into()),
        why: why.into(),
        subject: Subject::Address(subject.address()),
        offender: subject.address(),
        at,
        count: 1,
        limit: 1,
        within: Span::ZERO,
        evidence: Vec::new(),
    }
}

pub(crate) fn to_value(answer: &impl serde::Serialize) -> Answer {
    serde_json::to_value(answer)
        .map_err(|error| Refusal::failed(format!("the answer cannot be written: {error}")))
}
