//! How far the regulars come towards each rule's limit while nothing is wrong: what `floodwall suggest --live` is made from.
//!
//! Counted is only who has been logged in within a week, while their service is not alarmed, and so many signals a second at
//! most; whom a rule has stopped is left out for a day, unless they are known. Bound: see [`Peaks`], and [`LEFT_OUT_MAX`]
//! addresses left out; beyond that nobody new is, which only makes proposals more generous.

use std::{collections::BTreeMap, sync::Arc};

use floodwall_engine::{
    Engine, Span, Timestamp,
    rule::{Level, Rule, RuleId},
    signal::Signal,
};
use floodwall_wire::Address;

use crate::{
    guard::Guard,
    suggest::peaks::{Peak, Peaks},
};

/// How long it is remembered how far somebody came.
pub(crate) const KEPT: Span = Span::from_secs(30 * 24 * 3_600);
/// Signals counted between two ticks.
const SIGNALS_PER_TICK: u32 = 2_000;
/// Addresses left out at once.
const LEFT_OUT_MAX: usize = 4_096;
const LEFT_OUT_FOR: Span = Span::from_secs(24 * 3_600);

/// What everybody usually does.
#[derive(Debug)]
pub(crate) struct Habits {
    rules: Vec<Vec<Rule>>,
    peaks: Vec<Peaks>,
    left_out: BTreeMap<Address, Timestamp>,
    signals: u64,
    this_tick: u32,
}

impl Habits {
    /// Nothing counted.
    pub(crate) fn new(guard: &Guard) -> Self {
        let rules = guard.rules();
        let peaks = rules.iter().map(|rules| Peaks::new(rules)).collect();
        Self { rules, peaks, left_out: BTreeMap::new(), signals: 0, this_tick: 0 }
    }

    /// Counts by other rules from now on.
    pub(crate) fn replace_rules(&mut self, guard: &Guard) {
        self.rules = guard.rules();
        for (peaks, rules) in self.peaks.iter_mut().zip(&self.rules) {
            peaks.replace_rules(rules);
        }
    }

    /// What an earlier run remembers.
    pub(crate) fn restore(&mut self, rule: &RuleId, address: Address, peak: Peak) {
        let has_rule = |rules: &&Vec<Rule>| rules.iter().any(|one| one.id == *rule);
        let service = self.rules.iter().position(|rules| has_rule(&rules));
        if let Some(peaks) = service.and_then(|service| self.peaks.get_mut(service)) {
            peaks.restore(rule.clone(), address, peak);
        }
    }

    /// Takes a signal that the engine has judged.
    pub(crate) fn handle_signal(&mut self, signal: &Arc<Signal>, engine: &Engine) {
        let service = usize::from(signal.service);
        let (Some(rules), Some(peaks)) = (self.rules.get(service), self.peaks.get_mut(service)) else {
            return;
        };
        let left_out = &self.left_out;
        let is_nobody = |address| left_out.contains_key(&address) || !engine.is_familiar(address, signal.at);
        if self.this_tick >= SIGNALS_PER_TICK
            || is_nobody(signal.address)
            || engine.level(signal.service) > Level::Normal
        {
            return;
        }
        self.this_tick += 1;
        self.signals += 1;
        peaks.take(rules, signal, is_nobody);
    }

    /// A rule has stopped somebody.
    pub(crate) fn leave_out(&mut self, address: Address, now: Timestamp) {
        if self.left_out.len() < LEFT_OUT_MAX || self.left_out.contains_key(&address) {
            self.left_out.insert(address, now + LEFT_OUT_FOR);
        }
        for peaks in &mut self.peaks {
            peaks.forget(address);
        }
    }

    /// Once a second.
    pub(crate) const fn handle_tick(&mut self) {
        self.this_tick = 0;
    }

    /// Once in a while: forgets what is old, and hands over what is to be kept.
    pub(crate) fn settle(&mut self, now: Timestamp) -> Vec<(RuleId, Address, Option<Peak>)> {
        self.left_out.retain(|_, until| *until > now);
        for peaks in &mut self.peaks {
            peaks.forget_before(now - KEPT);
        }
        self.peaks.iter_mut().flat_map(Peaks::take_changed).collect()
    }

    /// Signals counted since the start.
    pub(crate) const fn signals(&self) -> u64 {
        self.signals
    }

    /// Rules and what was reached, by service.
    pub(crate) fn by_service(&self) -> (&[Vec<Rule>], &[Peaks]) {
        (&self.rules, &self.peaks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{configuration::Configuration, rules, suggest};
    use floodwall_engine::signal::{Detail, FlowId, Method, SignalKind};

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn signal(kind: SignalKind, service: u8, address: Address, number: u64) -> Signal {
        let detail = Detail { method: Some(Method::Account), ..Detail::default() };
        let at = NOW + Span::from_millis(number);
        Signal { kind, at, service, address, flow: Some(FlowId(number)), detail }
    }

    /// One regular, one stranger; both mistype three times.
    #[test]
    fn regulars_are_counted_and_strangers_and_the_stopped_are_not() {
        let guard = Guard::new(rules::load(None).unwrap(), &Configuration::default(), &[]).unwrap();
        let service = guard.services.iter().position(|service| service.name == "teamtalk").unwrap() as u8;
        let mut engine = Engine::new(guard.engine(1));
        let mut habits = Habits::new(&guard);
        let [regular, stranger] = [7, 8].map(|last| Address::from_v4(0xcb00_7100 + last));
        let login = signal(SignalKind::LoginSucceeded, service, regular, 0);
        engine.handle_log(NOW, &mut vec![login]);
        for number in 1..=3 {
            for address in [regular, stranger] {
                let failed = signal(SignalKind::LoginFailed, service, address, number);
                engine.handle_log(failed.at, &mut vec![failed.clone()]);
                habits.handle_signal(&Arc::new(failed.clone()), &engine);
            }
        }
        let find = |habits: &Habits| {
            let (rules, peaks) = habits.by_service();
            let report = suggest::report(rules, peaks);
            let found = report.rules.into_iter().find(|one| one.rule == "teamtalk/guessing-under-attack");
            found.map(|one| (one.false_positives, one.hit))
        };
        assert_eq!(find(&habits), Some((1, vec!["203.0.113.7".to_owned()])));
        assert!(habits.settle(NOW).iter().any(|(rule, address, peak)| {
            &*rule.0 == "teamtalk/login-storm"
                && *address == regular
                && peak.is_some_and(|peak| peak.count == 3)
        }));
        habits.leave_out(regular, NOW);
        assert_eq!(find(&habits), Some((0, Vec::new())));
        let failed = signal(SignalKind::LoginFailed, service, regular, 9);
        habits.handle_signal(&Arc::new(failed), &engine);
        assert_eq!(find(&habits), Some((0, Vec::new())));
    }
}
