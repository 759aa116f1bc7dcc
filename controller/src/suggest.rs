//! `floodwall suggest`: limits for rules, learnt from captures of quiet evenings or by a running wall, with what each would have
//! cost.
//!
//! Every rule counts as if no limit were ever reached and as if the level were raised. On a quiet evening nobody should be hit:
//! whoever would have been is a false positive.

use floodwall_engine::rule::Rule;
use serde::{Deserialize, Serialize};

use crate::{
    cli::{ConnectArguments, Format, SuggestArguments},
    client,
    live::control::Request,
    output::{Exit, complain, print, print_json},
    replay::{self, Wall},
};

pub(crate) mod peaks;

use peaks::Peaks;

/// `floodwall.suggest/1`
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: String,
    /// Since when the wall has counted; absent for captures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<String>,
    pub(crate) packets: u64,
    pub(crate) signals: u64,
    pub(crate) rules: Vec<Suggestion>,
    /// Rules that counted nothing: this says nothing about them.
    pub(crate) silent: Vec<String>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Suggestion {
    pub(crate) rule: String,
    pub(crate) limit: u32,
    /// Addresses that the rule as it is would have hit.
    pub(crate) false_positives: usize,
    /// Some of them.
    pub(crate) hit: Vec<String>,
    /// The highest limit on the ladder that anybody reached; 0 for none.
    pub(crate) reached: u32,
    /// With room over what was reached, and no less than half the rule's own; the rule's own where it fires at the first, or
    /// nothing was reached.
    pub(crate) proposed: u32,
    pub(crate) tried: Vec<Tried>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Tried {
    pub(crate) limit: u32,
    pub(crate) false_positives: usize,
}

/// Runs the command.
pub(crate) fn run(arguments: &SuggestArguments) -> Exit {
    if arguments.live {
        let connect = ConnectArguments { format: arguments.format, socket: arguments.socket.clone() };
        return client::ask(&connect, Request::Suggest, text);
    }
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
    let mut peaks: Vec<Peaks> = rules.iter().map(|rules| Peaks::new(rules)).collect();
    let mut signals = 0;
    let mut take = |wall: &mut Wall| {
        for signal in wall.take_signals() {
            signals += 1;
            let service = usize::from(signal.service);
            if let (Some(rules), Some(peaks)) = (rules.get(service), peaks.get_mut(service)) {
                peaks.take(rules, &signal, |_| false);
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
    let report = Report { packets: wall.packets(), signals, ..report(&rules, &peaks) };
    let printed = match arguments.format {
        Format::Text => print(text(&report)),
        Format::Json => print_json(&report),
    };
    if failed { Exit::Failed } else { printed }
}

/// What every rule's limits would have cost; without the figures that only the caller knows.
pub(crate) fn report(rules: &[Vec<Rule>], peaks: &[Peaks]) -> Report {
    let (mut suggestions, mut silent) = (Vec::new(), Vec::new());
    for (rules, peaks) in rules.iter().zip(peaks) {
        for rule in rules {
            match peaks.suggestion(rule) {
                Some(suggestion) => suggestions.push(suggestion),
                None => silent.push(rule.id.to_string()),
            }
        }
    }
    let schema = "floodwall.suggest/1".to_owned();
    Report { schema, since: None, packets: 0, signals: 0, rules: suggestions, silent }
}

fn text(report: &Report) -> String {
    let Report { since, packets, signals, rules, silent, .. } = report;
    let hitting = rules.iter().filter(|rule| rule.false_positives > 0).count();
    let mut text = format!(
        "{hitting} of {} rules that counted something would have hit somebody; {packets} packets, {signals} signals.\n",
        rules.len()
    );
    if let Some(since) = since {
        text.push_str(&format!(
            "Counted since {since}, while nothing was alarmed, of those who have been logged in; whom rules have stopped is left \
             out unless they are known.\n"
        ));
    }
    for rule in rules {
        let Suggestion { rule, limit, false_positives, hit, reached, proposed, tried } = rule;
        let seen = if *reached == 0 {
            "none of the limits tried was reached".to_owned()
        } else {
            format!("{reached} was reached")
        };
        let advice =
            if proposed == limit { "nothing to change".to_owned() } else { format!("proposed {proposed}") };
        text.push_str(&format!(
            "{rule}: limit {limit} would have hit {false_positives}; {seen}; {advice}.\n"
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
        text.push_str(&format!("This says nothing about {} other rules.\n", silent.len()));
    }
    text
}
