//! `floodwall test`: each rule against its cases, those that must make it fire and those that must not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use floodwall_engine::{
    Engine,
    rule::{RuleFile, RuleId, diagnostic::Diagnostic},
};
use serde::Serialize;

use crate::{
    cli::{Format, TestArguments},
    configuration::Configuration,
    guard::Guard,
    output::{Exit, complain, print, print_json, shown},
    rules::{self, RulesError},
};

mod case;

use case::{Case, Expected};

/// The cases of the shipped rules.
const SHIPPED: [(&str, &str); 3] = [
    ("rules/cases/irc.txt", include_str!("../../rules/cases/irc.txt")),
    ("rules/cases/teamspeak.txt", include_str!("../../rules/cases/teamspeak.txt")),
    ("rules/cases/teamtalk.txt", include_str!("../../rules/cases/teamtalk.txt")),
];
/// Key of every table: the same cases give the same result.
const SEED: u64 = 7;

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    rules: usize,
    cases: usize,
    failed: Vec<Failure>,
    /// Rules without a case that fires, or without one that stays quiet.
    without: Vec<Without>,
}

#[derive(Serialize)]
struct Failure {
    rule: String,
    expected: &'static str,
    file: String,
    line: usize,
}

#[derive(Debug, Serialize)]
struct Without {
    rule: String,
    fires: bool,
    quiet: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &TestArguments) -> Exit {
    let (files, cases) = match load(arguments.rules.as_deref()) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            complain(mistakes);
            return Exit::BadInput;
        }
    };
    let report = match judge(&files, &cases) {
        Ok(report) => report,
        Err(mistakes) => {
            complain(mistakes);
            return Exit::BadInput;
        }
    };
    let is_good = report.failed.is_empty() && (report.without.is_empty() || !arguments.require_both);
    let printed = match arguments.format {
        Format::Text => print(text(&report)),
        Format::Json => print_json(&report),
    };
    if is_good { printed } else { Exit::Failed }
}

/// Rules of a folder with the cases in its folder `cases`, or the shipped ones.
fn load(folder: Option<&Path>) -> Result<(Vec<RuleFile>, Vec<Case>), String> {
    let files = rules::load(folder).map_err(|error| match error {
        RulesError::Unreadable(reason) => reason,
        RulesError::Mistakes(found) => lines(&found),
    })?;
    let sources = match folder {
        Some(folder) => read_folder(&folder.join("cases"))?,
        None => SHIPPED.map(|(path, source)| (path.to_owned(), source.to_owned())).to_vec(),
    };
    let (mut cases, mut mistakes) = (Vec::new(), Vec::new());
    for (path, source) in &sources {
        match case::parse(path, source) {
            Ok(read) => cases.extend(read),
            Err(found) => mistakes.extend(found),
        }
    }
    if !mistakes.is_empty() {
        return Err(lines(&mistakes));
    }
    if cases.is_empty() {
        let place = folder.map(|folder| shown(&folder.join("cases"))).unwrap_or_default();
        return Err(format!(
            "{place} holds no case: nothing was tested; write some into PROTOCOL.txt files there"
        ));
    }
    Ok((files, cases))
}

fn lines(found: &[Diagnostic]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn read_folder(folder: &Path) -> Result<Vec<(String, String)>, String> {
    let unreadable =
        |error| format!("cannot read {}: {error}; cases are PROTOCOL.txt files there", shown(folder));
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.into_iter().map(|path| Ok((shown(&path), rules::read_text(&path)?))).collect()
}

fn judge(files: &[RuleFile], cases: &[Case]) -> Result<Report, String> {
    let mut owners: BTreeMap<&RuleId, &RuleFile> = BTreeMap::new();
    for file in files {
        owners.extend(file.rules.iter().map(|rule| (&rule.id, file)));
    }
    let (mut failed, mut strangers) = (Vec::new(), Vec::new());
    let mut covered: BTreeSet<(&str, bool)> = BTreeSet::new();
    for case in cases {
        let id = RuleId(case.rule.as_str().into());
        let Some(file) = owners.get(&id) else {
            strangers.push(format!("{}:{}: there is no rule \"{}\"", case.path, case.line, case.rule));
            continue;
        };
        covered.insert((&case.rule, case.expected == Expected::Fires));
        if fires(file, &id, case)? != (case.expected == Expected::Fires) {
            failed.push(Failure {
                rule: case.rule.clone(),
                expected: case.expected.as_str(),
                file: case.path.clone(),
                line: case.line,
            });
        }
    }
    if !strangers.is_empty() {
        return Err(strangers.join("\n"));
    }
    let has = |id: &RuleId, fires| covered.contains(&(&*id.0, fires));
    let without = owners.keys().filter(|id| !(has(id, true) && has(id, false)));
    let without =
        without.map(|id| Without { rule: id.to_string(), fires: has(id, true), quiet: has(id, false) });
    let without = without.collect();
    Ok(Report { schema: "floodwall.test/1", rules: owners.len(), cases: cases.len(), failed, without })
}

/// Whether the rule fires, as all rules of its file are in force.
fn fires(file: &RuleFile, id: &RuleId, case: &Case) -> Result<bool, String> {
    let guard = Guard::new(vec![file.clone()], &Configuration::default(), &[])?;
    let mut engine = Engine::new(guard.engine(SEED));
    for signal in &case.signals {
        engine.handle_log(signal.at, &mut vec![signal.clone()]);
    }
    let fired = engine.fired().find(|(rule, _)| *rule == id).map(|(_, fired)| fired);
    Ok(fired.is_some_and(|fired| fired.fired > 0 || fired.shadowed > 0))
}

fn text(report: &Report) -> String {
    let mut text = match report.failed.len() {
        0 => format!("All {} cases of {} rules are as they should be.\n", report.cases, report.rules),
        1 => format!("1 of {} cases is not as it should be:\n", report.cases),
        failed => format!("{failed} of {} cases are not as they should be:\n", report.cases),
    };
    for Failure { rule, expected, file, line } in &report.failed {
        let what = if *expected == "fires" { "did not fire" } else { "fired" };
        text.push_str(&format!("{file}:{line}: {rule} {what}\n"));
    }
    for Without { rule, fires, quiet } in &report.without {
        let missing = match (fires, quiet) {
            (false, false) => "no case",
            (false, true) => "no case that fires",
            (true, _) => "no case that stays quiet",
        };
        text.push_str(&format!("{rule} has {missing}.\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_rule_has_a_case_that_fires_and_one_that_stays_quiet() {
        let (files, cases) = load(None).unwrap();
        let report = judge(&files, &cases).unwrap();
        let failed: Vec<String> =
            report.failed.iter().map(|one| format!("{}:{} {}", one.file, one.line, one.rule)).collect();
        assert!(failed.is_empty(), "{failed:#?}");
        assert!(report.without.is_empty(), "{:#?}", report.without);
    }

    /// The first column is the name, the second the limit.
    #[test]
    fn the_default_of_every_shipped_rule_is_explained() {
        let readme = include_str!("../../rules/README.md");
        for rule in load(None).unwrap().0.iter().flat_map(|file| &file.rules) {
            let row = readme.lines().find(|line| line.starts_with(&format!("| `{}` |", rule.id)));
            let row = row.unwrap_or_else(|| panic!("{} is not explained", rule.id));
            let limit = row.split('|').nth(2).unwrap().trim();
            let said =
                if limit == "the first" { 1 } else { limit.split(' ').next().unwrap().parse().unwrap() };
            assert_eq!(said, rule.limit, "{}", rule.id);
        }
    }
}
