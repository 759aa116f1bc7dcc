//! `cargo xtask judge`: every capture whose truth is known, judged by `floodwall replay` and held against it.
//!
//! Truth is `NAME.truth.json` beside a capture: roles by address. Captures are those of `tests/corpus` and, where it is
//! there, `../shared/corpus`; third-party ones (`pcaps/`) have no truth, and nobody in them may be hurt. The attacks
//! made by hand come from the controller's tests (`controller/tests/captures`), which judge them too.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{process, root, say};

mod made;
mod table;

/// Where the tables stand for readers.
const PAGE: &str = "docs/judgement.md";

/// What somebody in a capture is, and so what may be done to them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Role {
    /// Must be limited, dropped or banned.
    Attacker,
    /// Takes over what it has a right to, or another's name: must be noted; what happens next is for people to say.
    Usurper,
    /// May be noted, never limited, dropped or banned.
    Regular,
    /// Never sends a packet and must not be named.
    Innocent,
}

impl Role {
    fn from_name(name: &str) -> Self {
        match name {
            "attacker" => Self::Attacker,
            "usurper" => Self::Usurper,
            "innocent" => Self::Innocent,
            _ => Self::Regular,
        }
    }
}

/// What replay said of one source.
type Outcomes = BTreeMap<String, String>;

/// How one capture was judged.
#[derive(Debug, Default)]
struct Judgement {
    /// Who had to be found, who was, and who was stopped.
    attackers: usize,
    /// Of those, who had to be stopped as well.
    to_stop: usize,
    flagged: usize,
    stopped: usize,
    /// Sources that did nothing wrong, and those of them that were hurt or only noted.
    others: usize,
    hurt: usize,
    noted: usize,
    misjudged: Vec<String>,
}

fn is_stopped(outcome: &str) -> bool {
    matches!(outcome, "limited" | "dropped" | "banned")
}

/// Judges every capture and prints the tables; with `write` they go into the page for readers as well, without it the page
/// must say the same.
///
/// # Errors
/// Names everybody who was misjudged, or says that the page is out of date.
pub fn run(write: bool) -> Result<()> {
    process::run(Command::new("cargo").current_dir(root()).args(["build", "--quiet", "-p", "floodwall"]))?;
    let mut rows = Vec::new();
    for (name, capture) in captures()? {
        rows.push((name, judge(&capture)?));
    }
    let made = made::judge()?;
    let (committed, others): (Vec<_>, Vec<_>) =
        rows.iter().partition(|(name, _)| root().join("tests/corpus").join(format!("{name}.pcap")).exists());
    let page = table::page(&table::corpus(&committed), &made);
    say(&page);
    if !others.is_empty() {
        say(&format!("## Captures that are not committed\n\n{}", table::corpus(&others)));
    }
    let misjudged: Vec<String> = rows
        .iter()
        .flat_map(|(name, judgement)| judgement.misjudged.iter().map(move |what| format!("{name}: {what}")))
        .chain(made.iter().flat_map(made::Row::misjudged))
        .collect();
    if !misjudged.is_empty() {
        bail!("{} misjudged:\n{}", misjudged.len(), misjudged.join("\n"));
    }
    let path = root().join(PAGE);
    if write {
        fs::write(&path, &page).with_context(|| format!("failed to write {PAGE}"))?;
    } else if fs::read_to_string(&path).with_context(|| format!("failed to read {PAGE}"))? != page {
        bail!("{PAGE} says something else: run `cargo xtask judge --write` and look at what changed");
    }
    Ok(())
}

/// The shared corpus, if it is there.
fn shared() -> Option<PathBuf> {
    let folder = env::var_os("FLOODWALL_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let corpus = folder.join("corpus");
    corpus.is_dir().then_some(corpus)
}

/// Every capture once, by its name within the corpus; a committed one is not read again from the shared corpus.
fn captures() -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    match shared() {
        Some(corpus) => list(&corpus, &corpus, &mut found)?,
        None => say("SKIPPED captures of the shared corpus: ../shared/corpus is not there."),
    }
    let corpus = root().join("tests/corpus");
    list(&corpus, &corpus, &mut found)?;
    Ok(found)
}

fn list(corpus: &Path, folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("failed to list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            list(corpus, &path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "pcap" || extension == "pcapng") {
            let name = path.strip_prefix(corpus).unwrap_or(&path).with_extension("");
            found.insert(name.display().to_string(), path);
        }
    }
    Ok(())
}

/// Roles by address; `None` where nobody has written down what is true.
fn truth(capture: &Path) -> Result<Option<BTreeMap<String, Role>>> {
    let path = capture.with_extension("truth.json");
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let truth: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let Some(actors) = truth.get("actors").and_then(Value::as_object) else {
        return Ok(None);
    };
    let role = |actor: &Value| Role::from_name(actor.get("role").and_then(Value::as_str).unwrap_or_default());
    Ok(Some(actors.iter().map(|(address, actor)| (address.clone(), role(actor))).collect()))
}

fn judge(capture: &Path) -> Result<Judgement> {
    let report = replay(capture)?;
    let outcomes = outcomes(&report);
    let Some(roles) = truth(capture)? else {
        let hurt = outcomes.iter().filter(|(_, outcome)| is_stopped(outcome));
        let misjudged: Vec<String> =
            hurt.map(|(address, outcome)| format!("{address} was {outcome}")).collect();
        let (others, hurt) = (outcomes.len(), misjudged.len());
        return Ok(Judgement { others, hurt, misjudged, ..Judgement::default() });
    };
    let mut judgement = held_against(&roles, &outcomes);
    let banned = subjects(&report, "bans");
    for (address, role) in &roles {
        if *role == Role::Innocent && (outcomes.contains_key(address) || named(&report).contains(address)) {
            judgement.misjudged.push(format!("{address}, who never sent a packet, is named"));
        }
        if *role == Role::Regular && banned.iter().any(|subject| *subject == format!("{address}/32")) {
            judgement.misjudged.push(format!("{address} has a ban"));
        }
    }
    Ok(judgement)
}

/// Outcomes against roles. Who has no role is somebody who does nothing wrong.
fn held_against(roles: &BTreeMap<String, Role>, outcomes: &Outcomes) -> Judgement {
    let mut judgement = Judgement::default();
    let everybody: BTreeSet<&String> = roles.keys().chain(outcomes.keys()).collect();
    for address in everybody {
        let role = roles.get(address).copied().unwrap_or(Role::Regular);
        let outcome = outcomes.get(address).map_or("clean", String::as_str);
        match role {
            Role::Innocent => {}
            Role::Attacker | Role::Usurper => {
                judgement.attackers += 1;
                judgement.to_stop += usize::from(role == Role::Attacker);
                judgement.flagged += usize::from(outcome != "clean");
                judgement.stopped += usize::from(role == Role::Attacker && is_stopped(outcome));
                if outcome == "clean" || (role == Role::Attacker && !is_stopped(outcome)) {
                    judgement.misjudged.push(format!("attacker {address} was {outcome}"));
                }
            }
            Role::Regular => {
                judgement.others += 1;
                judgement.noted += usize::from(outcome == "noted");
                if is_stopped(outcome) {
                    judgement.hurt += 1;
                    judgement.misjudged.push(format!("{address} was {outcome}"));
                }
            }
        }
    }
    judgement
}

fn replay(capture: &Path) -> Result<Value> {
    let mut command = Command::new("cargo");
    command.current_dir(root()).args([
        "run",
        "--quiet",
        "-p",
        "floodwall",
        "--",
        "replay",
        "--format",
        "json",
    ]);
    let printed = process::output(command.args(["--sources", "100000"]).arg(capture))?;
    serde_json::from_str(&printed).with_context(|| format!("no report about {}", capture.display()))
}

fn outcomes(report: &Value) -> Outcomes {
    let sources = report.get("sources").and_then(Value::as_array).into_iter().flatten();
    let pair = |source: &Value| {
        let text = |key| source.get(key).and_then(Value::as_str).map(str::to_owned);
        Some((text("address")?, text("outcome")?))
    };
    sources.filter_map(pair).collect()
}

fn subjects(report: &Value, list: &str) -> BTreeSet<String> {
    let entries = report.get(list).and_then(Value::as_array).into_iter().flatten();
    entries.filter_map(|entry| entry.get("subject")?.as_str()).map(str::to_owned).collect()
}

/// Everybody whom a ban or a note is about.
fn named(report: &Value) -> BTreeSet<String> {
    let all = subjects(report, "bans").into_iter().chain(subjects(report, "notes"));
    all.map(|subject| subject.split('/').next().unwrap_or_default().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome_of(role: Role, outcome: &str) -> Judgement {
        let roles = BTreeMap::from([("a".to_owned(), role)]);
        held_against(&roles, &BTreeMap::from([("a".to_owned(), outcome.to_owned())]))
    }

    #[test]
    fn each_role_has_outcomes_that_are_misjudgements() {
        for (role, outcome, is_right) in [
            (Role::Attacker, "clean", false),
            (Role::Attacker, "noted", false),
            (Role::Attacker, "limited", true),
            (Role::Usurper, "clean", false),
            (Role::Usurper, "noted", true),
            (Role::Regular, "clean", true),
            (Role::Regular, "noted", true),
            (Role::Regular, "dropped", false),
            (Role::Regular, "banned", false),
        ] {
            assert_eq!(outcome_of(role, outcome).misjudged.is_empty(), is_right, "{role:?} {outcome}");
        }
    }

    #[test]
    fn who_has_no_role_must_be_spared() {
        let outcomes = BTreeMap::from([("b".to_owned(), "limited".to_owned())]);
        assert_eq!(held_against(&BTreeMap::new(), &outcomes).misjudged.len(), 1);
    }
}
