//! What is done to whom, or what the brakes leave of it.

use floodwall_wire::Address;

use super::{
    CONTRIBUTIONS_OF_KNOWN, CONTRIBUTIONS_PLAIN, Decisions, KNOWN_FOR, MINUTE,
    person::{COMES_BACK_WITHIN, Person, Talk, is_fresh},
    suspicion::{Grounds, Suspect, differ_in_figures},
};
use crate::{
    command::{Command, Prefix},
    ledger::{Ban, Ledger},
    rule::{
        Action, By, Rule,
        evaluate::{Finding, Subject},
    },
    signal::{EvidenceClass, FlowId},
    time::{Span, Timestamp},
};

/// Bans made per minute at most.
pub const BANS_PER_MINUTE_MAX: u32 = 120;
/// Of so many who are known, one may be banned...
pub const KNOWN_PER_BAN: usize = 20;
/// ...within this time. If more of them seem to have turned bad at once, a rule is wrong and not they.
pub const KNOWN_BANS_WITHIN: Span = Span::from_secs(3_600);
/// So many of them may be banned however few there are.
const KNOWN_BANS_MIN: usize = 3;
/// Contributing addresses of one /64 from which on it is treated as one.
const ROTATING_ADDRESSES: usize = 16;
/// Other logged-in sessions behind an address from which on it counts as shared.
const SHARED_SESSIONS: usize = 2;
/// Sessions behind an address, however new, from which on whoever mistypes passwords there may be somebody else.
const CLASS_SESSIONS: usize = 5;
/// How long guests must have been there to be others than whoever floods from their address.
const NEIGHBOURS_AFTER: Span = Span::from_secs(20);
/// Resets of a shared address within [`RESETS_WITHIN`] from which on it is limited as well.
const RESETS_MAX: u32 = 10;
/// See [`RESETS_MAX`].
const RESETS_WITHIN: Span = Span::from_secs(600);
/// An offence counts as a repeat for this long.
const REPEAT_WITHIN: Span = Span::from_secs(7 * 24 * 3_600);

/// Whose an address is besides the offender's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Others {
    /// Nobody's that anything is known of.
    None,
    /// Guests', who have been there for a while. That costs nothing.
    Guests,
    /// People's with accounts of their own.
    People,
}

impl Decisions {
    /// Those who contributed often at once; the others after some patience.
    pub(super) fn sanction_contributors(
        &mut self,
        rule: &Rule,
        finding: &Finding<'_>,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) {
        let now = finding.signal.at;
        // An IPv4 /24 is a street, not a household: who contributed little there is somebody else.
        let is_neighbourhood =
            matches!(finding.subject, Subject::Prefix(first) | Subject::Site(first) if first.is_v4());
        // Whoever makes others' words their own often enough would have them punished for it: of those who said a text once or
        // twice nobody is to blame unless they are a crowd themselves.
        let light =
            finding.contributors.iter().map(|(_, count)| *count).filter(|count| *count < CONTRIBUTIONS_PLAIN);
        let is_parroted =
            rule.by == By::Content && finding.is_reached(rule) && light.sum::<u32>() < rule.limit;
        // Who has gone a little beyond what everybody may is no better than whom it was allowed to.
        let has_allowance = rule.allowed().is_some_and(|allowed| allowed > 0);
        for (address, count) in &finding.contributors {
            let contribution = (address, *count);
            if self.is_bystander(rule, finding, contribution) || ledger.ban_of(*address, now).is_some() {
                continue;
            }
            let plain = if self.may_have_mistyped(rule, finding, address) {
                CONTRIBUTIONS_OF_KNOWN
            } else {
                CONTRIBUTIONS_PLAIN
            };
            let talks_on = self.suspects.get(address).is_some_and(|suspect| suspect.may_talk_on)
                && self.talk.get(address).is_some_and(|talk| talk.keeps_up_with(*count));
            if *count >= plain && !talks_on {
                if self.is_mistaken(rule, finding, *address) {
                    continue;
                }
                self.suspects.remove(address);
                let limits = matches!(rule.action, Action::Limit | Action::RaiseLevel);
                if limits && self.people.get(address).is_some_and(|person| person.is_limited(now, rule)) {
                    continue;
                }
                self.sanction(rule, *address, None, Grounds::Finding(rule, finding), ledger, commands);
            } else if (!is_neighbourhood || *count >= CONTRIBUTIONS_PLAIN) && !is_parroted && !has_allowance {
                self.suspect(*address, || Suspect::new(rule, finding));
            }
        }
    }

    /// Whether nothing is to be laid at the door of one who contributed.
    fn is_bystander(&self, rule: &Rule, finding: &Finding<'_>, (address, count): (&Address, u32)) -> bool {
        let now = finding.signal.at;
        let has_made_good = rule.counts_failed_logins()
            && self.mistyped.get(address).is_some_and(|mistyped| mistyped.is_made_good(now, rule.within));
        // Who has done far less than others, or has been there all along and has done less than half of it, is not why the limit
        // was reached.
        let is_less_than = |part: u32| count.saturating_mul(part) <= finding.most;
        let is_minor = rule.allowed().is_some_and(|allowed| allowed > 0)
            && (is_less_than(3) || (is_less_than(2) && self.has_lasted(address, now)));
        if has_made_good || is_minor {
            return true;
        }
        let is_known = |excused: u32| {
            self.behaves_well(address, now)
                && (count < excused || self.others(*address, None, now) == Others::People)
        };
        if rule.by != By::Content {
            // Who has enough sessions of their own needs nobody else's.
            let is_own_deed = rule.distinct == Some(By::Session) && count >= rule.limit;
            return !is_own_deed && is_known(CONTRIBUTIONS_OF_KNOWN);
        }
        // An account that was made for it is as new as what it says, and accounts of one's own making cost nothing where
        // anybody may register: being known excuses little.
        let talk = self.talk.get(address);
        // Whoever alone says enough of one text is no bystander, whoever else logs in from there, unless as many have been there for
        // a while. Other deeds have rules that count by address.
        let is_one_text = !(differ_in_figures(finding.evidence) && talk.is_some_and(Talk::is_varied));
        let is_own_deed =
            is_one_text && count >= rule.limit && self.lasting_sessions(address, now) < count as usize;
        let is_new = !self.people.get(address).is_some_and(|person| person.has_been_known(now))
            && !talk.is_some_and(Talk::is_of_several);
        // At midnight everybody wishes the same; drones come for what they say, and say nothing else.
        let is_talker = self.has_lasted(address, now) || talk.is_some_and(Talk::is_varied);
        (is_talker || (!is_new && is_known(CONTRIBUTIONS_PLAIN))) && !is_own_deed
    }

    /// Many addresses of one IPv6 /64, or many /64s of one /48, none of them anybody's: one host that has them all.
    pub(super) fn ban_rotating_network(
        &mut self,
        rule: &Rule,
        finding: &Finding<'_>,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) -> bool {
        let (Subject::Prefix(first) | Subject::Site(first)) = *finding.subject else { return false };
        if first.is_v4() {
            return false;
        }
        let (good, subject) = if matches!(finding.subject, Subject::Prefix(_)) {
            (&self.good_networks, Prefix::network64(first))
        } else {
            (&self.good_sites, Prefix::new(first, 48))
        };
        let now = finding.signal.at;
        let rotating = rule.action == Action::Ban
            && finding.contributors.len() >= ROTATING_ADDRESSES
            && good.get(&first).is_none_or(|at| now.since(*at) > KNOWN_FOR);
        if rotating && self.is_class(rule, finding, first) {
            return false;
        }
        if rotating {
            self.ban(rule, subject, first, Grounds::Finding(rule, finding), ledger, commands);
        }
        rotating
    }

    /// Does to one address what the rule says, or what the brakes leave of it.
    pub(super) fn sanction(
        &mut self,
        rule: &Rule,
        address: Address,
        flow: Option<FlowId>,
        grounds: Grounds<'_>,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) {
        match rule.action {
            Action::Ban => match self.others(address, flow, grounds.at()) {
                Others::None if rule.counts_failed_logins() && self.is_of_class(&address, grounds.at()) => {
                    self.cut(rule, address, flow, Others::Guests, grounds, commands);
                }
                Others::None => self.ban(rule, Prefix::host(address), address, grounds, ledger, commands),
                others @ (Others::Guests | Others::People) => {
                    self.cut(rule, address, flow, others, grounds, commands);
                }
            },
            Action::Reset => self.cut(rule, address, flow, Others::People, grounds, commands),
            Action::Limit | Action::RaiseLevel => self.limit(address, rule.duration, grounds, commands),
            Action::Note => {
                commands.push(Command::Note {
                    address: Some(address),
                    notify: rule.notify.clone(),
                    explanation: grounds.explain(),
                });
            }
        }
    }

    /// Cuts one connection; limits the address if there is none, if it is shared with guests only, or if it has been cut
    /// again and again.
    fn cut(
        &mut self,
        rule: &Rule,
        address: Address,
        flow: Option<FlowId>,
        others: Others,
        grounds: Grounds<'_>,
        commands: &mut Vec<Command>,
    ) {
        let now = grounds.at();
        let resets = self.person(address, now).map_or(0, |person| person.resets.count(now, RESETS_WITHIN));
        if let Some(flow) = flow {
            commands.push(Command::Reset { address, flow, explanation: grounds.explain() });
            self.offend(address, now, commands);
        }
        if flow.is_none() || others != Others::People || resets >= RESETS_MAX {
            self.limit(address, rule.duration, grounds, commands);
        }
    }

    /// Whether the address is several people's: others have accounts of their own (after a restart nobody is logged in
    /// yet), or have been there for long enough to be no clones of the offender.
    fn others(&self, address: Address, offender: Option<FlowId>, now: Timestamp) -> Others {
        let Some(person) = self.people.get(&address) else { return Others::None };
        let others = || person.sessions.iter().filter(|(flow, _)| Some(**flow) != offender);
        let own =
            offender.and_then(|flow| person.sessions.get(&flow)).and_then(|session| session.account.as_ref());
        let accounts = person
            .accounts
            .iter()
            .filter(|(account, at)| Some(*account) != own && now.since(**at) < KNOWN_FOR);
        let accounts = accounts.count();
        let lasting = others()
            .filter(|(_, session)| session.account.is_none() || session.account.as_ref() == own)
            .filter(|(_, session)| now.since(session.since) >= NEIGHBOURS_AFTER)
            .count();
        match accounts.saturating_add(lasting) {
            0..SHARED_SESSIONS => Others::None,
            _ if accounts >= SHARED_SESSIONS => Others::People,
            _ => Others::Guests,
        }
    }

    /// Whether many are logged in from there or were lately, as a class is: with one account, and some of them a moment ago. Where
    /// nobody asks for an account (IRC) it takes longer to be somebody.
    pub(super) fn is_of_class(&self, address: &Address, now: Timestamp) -> bool {
        let count = |person: &Person| {
            let came_lately =
                person.accounts.values().filter(|at| now.since(**at) < COMES_BACK_WITHIN).count();
            let named = person.sessions.values().filter(|session| session.named.is_some()).count();
            named.max(person.crowd(now)).max(came_lately)
        };
        self.people.get(address).is_some_and(|person| count(person) >= CLASS_SESSIONS)
    }

    /// Whether another one who is known may be banned now.
    fn may_ban_known(&mut self, now: Timestamp) -> bool {
        let known = self.people.iter().filter(|(_, person)| person.behaves_well(now)).count();
        let most = (known / KNOWN_PER_BAN).max(KNOWN_BANS_MIN);
        self.known_bans_made.count(now, KNOWN_BANS_WITHIN) as usize <= most
    }

    fn ban(
        &mut self,
        rule: &Rule,
        subject: Prefix,
        address: Address,
        grounds: Grounds<'_>,
        ledger: &mut Ledger,
        commands: &mut Vec<Command>,
    ) {
        let now = grounds.at();
        if ledger.ban_of(address, now).is_some() {
            return;
        }
        if self.people.get(&address).is_some_and(|person| person.grace_until > now) {
            let (notify, explanation) = (rule.notify.clone(), grounds.explain());
            return commands.push(Command::Note { address: Some(address), notify, explanation });
        }
        // Those made count, not those wanted: under an attack that goes on the brake would never come off.
        if self.bans_made.held(now, MINUTE) >= BANS_PER_MINUTE_MAX {
            self.bans_braked = self.bans_braked.saturating_add(1);
            return self.limit(address, rule.duration, grounds, commands);
        }
        if self.behaves_well(&address, now) && !self.may_ban_known(now) {
            self.bans_braked = self.bans_braked.saturating_add(1);
            let (notify, explanation) = (rule.notify.clone(), grounds.explain());
            commands.push(Command::Note { address: None, notify, explanation });
            return self.limit(address, rule.duration, grounds, commands);
        }
        self.bans_made.count(now, MINUTE);
        self.suspects.remove(&address);
        let until = now + self.escalated(address, rule, now);
        let explanation = grounds.explain();
        let entered = ledger.enter(subject, Ban { since: now, until, explanation: explanation.clone() });
        if entered {
            commands.push(Command::Ban { subject, until, explanation });
            self.offend(address, now, commands);
        } else {
            self.limit(address, rule.duration, grounds, commands);
        }
    }

    /// Twice as long as the last time, up to the rule's maximum; forgiven after a week.
    fn escalated(&mut self, address: Address, rule: &Rule, now: Timestamp) -> Span {
        let Some(person) = self.person(address, now) else {
            return rule.duration;
        };
        if now.since(person.offended_at) > REPEAT_WITHIN {
            person.offences = 0;
        }
        let factor = 1u64.checked_shl(person.offences.min(40)).unwrap_or(u64::MAX);
        person.offences = person.offences.saturating_add(1);
        person.offended_at = now;
        rule.duration.saturating_mul(factor).min(rule.duration_max)
    }

    pub(super) fn limit(
        &mut self,
        address: Address,
        duration: Span,
        grounds: Grounds<'_>,
        commands: &mut Vec<Command>,
    ) {
        let now = grounds.at();
        let until = now + duration;
        if let Some(person) = self.person(address, now) {
            if is_fresh(person.limited_until, now, duration) {
                return;
            }
            person.limited_until = until;
            // What may have been forged, or come from a telephone that has changed networks, ends with a login.
            person.is_suspected = grounds.evidence() == EvidenceClass::Spoofable;
        }
        commands.push(Command::Limit { address, until, explanation: grounds.explain() });
        self.offend(address, now, commands);
    }
}
