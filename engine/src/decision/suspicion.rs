//! Who is suspected, and why something is done.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use floodwall_wire::Address;

use super::PRESSURE_RULE;
use crate::{
    baseline::{INTERVAL, Pressure},
    command::Explanation,
    protocol::LINK,
    rule::{
        By, Rule, RuleId,
        evaluate::{Finding, Subject},
    },
    signal::{EvidenceClass, Signal},
    time::{Span, Timestamp},
};

/// How long others are given before a limit.
pub(super) const PATIENCE: Span = Span::from_secs(15);
/// How long somebody is given to log in after all, with the right password.
pub(super) const PATIENCE_TO_LOG_IN: Span = Span::from_secs(45);

/// How long somebody is given to say something else: in a dozen that say one thing each in turn everybody has.
pub(super) const PATIENCE_TO_TALK_ON: Span = Span::from_secs(60);

/// Whether texts that are alike are so because figures were counted up in one, and not because many say the same. What a site is
/// named in is passed on for that.
pub(super) fn differ_in_figures(said: &VecDeque<Arc<Signal>>) -> bool {
    let contents = || said.iter().filter_map(|signal| signal.detail.content);
    let mut letters = contents().map(|content| content.letters);
    let first = letters.next();
    let exact: BTreeSet<u64> = contents().map(|content| content.exact).collect();
    letters.all(|other| Some(other) == first)
        && exact.len() == said.len()
        && !said.iter().any(|signal| signal.detail.reason == Some(LINK))
}

/// Somebody who contributed a little to an attack, and may have only mistyped.
#[derive(Debug)]
pub(super) struct Suspect {
    pub(super) until: Timestamp,
    pub(super) duration: Span,
    /// Several may have mistyped: one who logs in clears nobody but themselves.
    pub(super) is_of_several: bool,
    /// What they have said differs in figures from what the others have: people go on and say something else, scripts the next one.
    pub(super) may_talk_on: bool,
    pub(super) grounds: Suspicion,
}

impl Suspect {
    pub(super) fn new(rule: &Rule, finding: &Finding<'_>) -> Self {
        let may_talk_on = rule.by == By::Content && differ_in_figures(finding.evidence);
        let patience = match (rule.counts_failed_logins(), may_talk_on) {
            (true, _) => PATIENCE_TO_LOG_IN,
            (false, true) => PATIENCE_TO_TALK_ON,
            (false, false) => PATIENCE,
        };
        Self {
            until: finding.signal.at + patience,
            duration: rule.duration,
            is_of_several: false,
            may_talk_on,
            grounds: Suspicion::new(rule, finding),
        }
    }
}

/// A finding that may come to nothing: nearly all do, so it is not put into words yet.
#[derive(Debug)]
pub(super) struct Suspicion {
    pub(super) rule: RuleId,
    pub(super) why: Arc<str>,
    pub(super) limit: u32,
    pub(super) within: Span,
    pub(super) subject: Subject,
    pub(super) signal: Arc<Signal>,
    pub(super) count: u32,
    pub(super) evidence: VecDeque<Arc<Signal>>,
}

impl Suspicion {
    pub(super) fn new(rule: &Rule, finding: &Finding<'_>) -> Self {
        Self {
            rule: rule.id.clone(),
            why: Arc::clone(&rule.why),
            limit: rule.limit,
            within: rule.within,
            subject: finding.subject.clone(),
            signal: finding.signal.keep(),
            count: finding.count,
            evidence: finding.evidence.clone(),
        }
    }

    /// Whether it rests on what anybody can send in somebody's name.
    pub(super) fn is_forgeable(&self) -> bool {
        self.signal.kind.evidence() == EvidenceClass::Spoofable
    }

    pub(super) fn explain(&self) -> Explanation {
        Explanation {
            rule: self.rule.clone(),
            why: Arc::clone(&self.why),
            subject: self.subject.clone(),
            offender: self.signal.address,
            at: self.signal.at,
            count: self.count,
            limit: self.limit,
            within: self.within,
            evidence: self.evidence.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Why something is to be done. A flood gives reasons with every packet, and nearly all of them are put into words by nobody:
/// the address is limited or banned already.
#[derive(Clone, Copy, Debug)]
pub(super) enum Grounds<'a> {
    Finding(&'a Rule, &'a Finding<'a>),
    Suspicion(&'a Suspicion),
}

impl Grounds<'_> {
    pub(super) fn at(self) -> Timestamp {
        match self {
            Self::Finding(_, finding) => finding.signal.at,
            Self::Suspicion(suspicion) => suspicion.signal.at,
        }
    }

    pub(super) fn evidence(self) -> EvidenceClass {
        match self {
            Self::Finding(_, finding) => finding.signal.kind.evidence(),
            Self::Suspicion(suspicion) => suspicion.signal.kind.evidence(),
        }
    }

    pub(super) fn explain(self) -> Explanation {
        match self {
            Self::Finding(rule, finding) => explain(rule, finding),
            Self::Suspicion(suspicion) => suspicion.explain(),
        }
    }
}

/// Nobody in particular is to blame, and in a flood with forged senders nobody who is named.
pub(super) fn explain_pressure(pressure: &Pressure, at: Timestamp) -> Explanation {
    let usual = match pressure.usual {
        Some(usual) => format!("usual at this hour of the week: {usual}"),
        None => "what is usual at this hour of the week has not been learnt yet".to_owned(),
    };
    Explanation {
        rule: RuleId(PRESSURE_RULE.into()),
        why: "more different strangers than usual".into(),
        subject: Subject::Service,
        offender: Address::default(),
        at,
        count: u32::from(pressure.strangers),
        limit: u32::from(pressure.alarmed_from),
        within: INTERVAL,
        evidence: vec![usual],
    }
}

pub(super) fn explain(rule: &Rule, finding: &Finding<'_>) -> Explanation {
    Suspicion::new(rule, finding).explain()
}
