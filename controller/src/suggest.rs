//! `floodwall suggest`: limits for rules, learnt from captures of quiet evenings, with what each would have cost.
//!
//! Every rule is tried with a ladder of limits at once, by the evaluation that judges packets too, as if the level were raised. On a
//! quiet evening nobody should be hit: whoever is, is a false positive.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use floodwall_engine::{
    rule::{Level, Rule, evaluate::Evaluation},
    signal::Signal,
};
use floodwall_wire::Address;
use serde::Serialize;

use crate::{
    cli::{Format, SuggestArguments},
    output::{Exit, complain, print, print_json},
    replay::{self, Wall},
};

/// Limits tried are these parts of a rule's own, in hundredths.
const LADDER: [u64; 11] = [10, 15, 25, 35, 50, 70, 100, 140, 200, 300, 400];
/// A proposal leaves this much room over what was seen, in hundredths.
const ROOM: u64 = 150;
const SEED: u64 = 11;
/// Addresses named of those a rule would have hit.
const NAMED_MAX: usize = 5;

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    packets: u64,
    signals: u64,
    rules: Vec<Suggestion>,
    /// Rules that counted nothing: these captures say nothing about them.
    silent: Vec<String>,
}

#[derive(Serialize)]
struct Suggestion {
    rule: String,
    limit: u32,
    /// Addresses that the rule as it is would have hit.
    false_positives: usize,
    /// Some of them.
    hit: Vec<String>,
    /// The highest limit on the ladder that anybody reached; 0 for none.
    reached: u32,
    /// With room over what was reached; the rule's own where it fires at the first.
    proposed: u32,
    tried: Vec<Tried>,
}

#[derive(Serialize)]
struct Tried {
    limit: u32,
    false_positives: usize,
}

/// One service's rules, each at every limit of its ladder.
struct Trial {
    /// Index of the rule and the limit, by index of the variant.
    origin: Vec<(usize, u32)>,
    variants: Vec<Rule>,
    evaluation: Evaluation,
    counted: Vec<bool>,
    hit: BTreeMap<usize, BTreeSet<Address>>,
}

impl Trial {
    fn new(rules: &[Rule]) -> Self {
        let (mut origin, mut variants) = (Vec::new(), Vec::new());
        for (index, rule) in rules.iter().enumerate() {
            for limit in ladder(rule.limit) {
                origin.push((index, limit));
                variants.push(Rule { limit, shadow: false, ..rule.clone() });
            }
        }
        let evaluation = Evaluation::new(&variants, SEED);
        Self { origin, variants, evaluation, counted: vec![false; rules.len()], hit: BTreeMap::new() }
    }

    fn take(&mut self, rules: &[Rule], signal: &Arc<Signal>) {
        for (rule, counted) in rules.iter().zip(&mut self.counted) {
            *counted |= rule.signals.contains(&signal.kind) && rule.concerns(signal);
        }
        let Self { variants, evaluation, hit, .. } = self;
        evaluation.handle_signal(variants, signal, Level::Attack, |_, finding| {
            let addresses = hit.entry(finding.rule).or_default();
            addresses.extend(finding.contributors.iter().map(|(address, _)| *address));
            addresses.insert(signal.address);
        });
    }

    fn suggestion(&self, index: usize, rule: &Rule) -> Suggestion {
        let variants = || self.origin.iter().enumerate().filter(|(_, (origin, _))| *origin == index);
        let hit = |variant: usize| self.hit.get(&variant).map_or(0, BTreeSet::len);
        let tried: Vec<Tried> = variants()
            .map(|(variant, (_, limit))| Tried { limit: *limit, false_positives: hit(variant) })
            .collect();
        let reached =
            tried.iter().filter(|one| one.false_positives > 0).map(|one| one.limit).max().unwrap_or(0);
        let own = variants().find(|(_, (_, limit))| *limit == rule.limit).map(|(variant, _)| variant);
        let hit_now = own.and_then(|variant| self.hit.get(&variant));
        // Where nothing was reached the lowest limit tried is a bound all the same.
        let seen = if reached == 0 { tried.first().map_or(1, |one| one.limit) } else { reached };
        let proposed =
            if rule.limit == 1 { 1 } else { u64::from(seen).saturating_mul(ROOM).div_ceil(100).max(2) };
        Suggestion {
            rule: rule.id.to_string(),
            limit: rule.limit,
            false_positives: hit_now.map_or(0, BTreeSet::len),
            hit: hit_now
                .into_iter()
                .flatten()
                .take(NAMED_MAX)
                .map(|address| address.to_ip().to_string())
                .collect(),
            reached,
            proposed: u32::try_from(proposed).unwrap_or(u32::MAX),
            tried,
        }
    }
}

/// Limits to try, the rule's own among them, each once.
fn ladder(limit: u32) -> BTreeSet<u32> {
    let part = |hundredths: u64| {
        u32::try_from(u64::from(limit).saturating_mul(hundredths) / 100).unwrap_or(u32::MAX)
    };
    LADDER.into_iter().map(part).map(|limit| limit.max(1)).chain([limit]).collect()
}

/// Runs the command.
pub(crate) fn run(arguments: &SuggestArguments) -> Exit {
    let guard = match replay::guard_of(
        arguments.rules.as_deref(),
        arguments.config.as_deref(),
        &arguments.services,
    ) {
        Ok(guard) => guard,
        Err(mistakes) => {
            complain(mistakes);
            return Exit::BadInput;
        }
    };
    let mut wall = match Wall::new(&guard, &arguments.files) {
        Ok(wall) => wall,
        Err(reason) => {
            complain(reason);
            return Exit::BadInput;
        }
    };
    wall.watch_signals();
    let rules = guard.rules();
    let mut trials: Vec<Trial> = rules.iter().map(|rules| Trial::new(rules)).collect();
    let mut signals = 0;
    let mut take = |wall: &mut Wall| {
        for signal in wall.take_signals() {
            signals += 1;
            let service = usize::from(signal.service);
            if let (Some(rules), Some(trial)) = (rules.get(service), trials.get_mut(service)) {
                trial.take(rules, &signal);
            }
        }
    };
    let mut failed = false;
    for path in &arguments.files {
        let walls = std::slice::from_mut(&mut wall);
        let outcome =
            replay::read_file(path, arguments.plain, walls, |walls| walls.iter_mut().for_each(&mut take));
        if let Err(error) = outcome {
            complain(format!("{error:#}"));
            failed = true;
        }
    }
    let report = report(wall.packets(), signals, &rules, &trials);
    let printed = match arguments.format {
        Format::Text => print(text(&report)),
        Format::Json => print_json(&report),
    };
    if failed { Exit::Failed } else { printed }
}

fn report(packets: u64, signals: u64, rules: &[Vec<Rule>], trials: &[Trial]) -> Report {
    let (mut suggestions, mut silent) = (Vec::new(), Vec::new());
    for (rules, trial) in rules.iter().zip(trials) {
        for (index, rule) in rules.iter().enumerate() {
            if trial.counted.get(index).copied().unwrap_or(false) {
                suggestions.push(trial.suggestion(index, rule));
            } else {
                silent.push(rule.id.to_string());
            }
        }
    }
    Report { schema: "floodwall.suggest/1", packets, signals, rules: suggestions, silent }
}

fn text(report: &Report) -> String {
    let Report { packets, signals, rules, silent, .. } = report;
    let hitting = rules.iter().filter(|rule| rule.false_positives > 0).count();
    let mut text = format!(
        "{hitting} of {} rules that counted something would have hit somebody; {packets} packets, {signals} signals.\n",
        rules.len()
    );
    for rule in rules {
        let Suggestion { rule, limit, false_positives, hit, reached, proposed, tried } = rule;
        let seen = if *reached == 0 {
            "none of the limits tried was reached".to_owned()
        } else {
            format!("{reached} was reached")
        };
        text.push_str(&format!(
            "{rule}: limit {limit} would have hit {false_positives}; {seen}; proposed {proposed}.\n"
        ));
        if !hit.is_empty() {
            text.push_str(&format!("  Hit: {}.\n", hit.join(", ")));
        }
        let costs: Vec<String> = tried
            .iter()
            .filter(|one| one.false_positives > 0)
            .map(|one| format!("{} would have hit {}", one.limit, one.false_positives))
            .collect();
        if !costs.is_empty() {
            text.push_str(&format!("  {}.\n", costs.join(", ")));
        }
    }
    if !silent.is_empty() {
        text.push_str(&format!("These captures say nothing about {} other rules.\n", silent.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodwall_engine::{
        Timestamp,
        rule::file,
        signal::{Detail, FlowId, SignalKind},
    };

    #[test]
    fn the_limit_reached_and_what_each_would_have_cost_are_told() {
        let source = "[service]\nprotocol = \"teamtalk\"\n[[rule]]\nid = \"a\"\nwhy = \"x\"\nsignal = \"login.failed\"\n\
                      by = \"address\"\nlimit = 10\nwithin = \"60s\"\naction = \"note\"\n";
        let rules = file::parse("f.toml", source).unwrap().rules;
        let mut trial = Trial::new(&rules);
        for (last, failures) in [(1, 2), (2, 5)] {
            for number in 0..failures {
                trial.take(
                    &rules,
                    &Arc::new(Signal {
                        kind: SignalKind::LoginFailed,
                        at: Timestamp::from_secs(1_000 + number),
                        service: 0,
                        address: Address::from_v4(0xcb00_7100 + last),
                        flow: Some(FlowId(u64::from(last))),
                        detail: Detail::default(),
                    }),
                );
            }
        }
        let found = trial.suggestion(0, rules.first().unwrap());
        assert_eq!((found.false_positives, found.reached, found.proposed), (0, 5, 8));
        let costs: Vec<(u32, usize)> =
            found.tried.iter().map(|one| (one.limit, one.false_positives)).collect();
        assert_eq!(costs[..4], [(1, 2), (2, 2), (3, 1), (5, 1)]);
        assert!(costs[4..].iter().all(|(_, hit)| *hit == 0), "{costs:?}");
    }
}
