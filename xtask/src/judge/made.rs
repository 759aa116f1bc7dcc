//! Attacks made by hand: the controller's tests make and judge them, and say what became of each.

use std::{
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{process, root};

/// One attack or evening at one intensity.
pub(super) struct Row {
    pub(super) service: String,
    pub(super) name: String,
    /// just under, at, far over; or quiet.
    pub(super) intensity: String,
    /// What is to become of whoever does it: stopped, noted, spared (from being stopped), untouched.
    pub(super) expected: String,
    pub(super) outcome: String,
    pub(super) rules: String,
    /// Neighbours on the same address or in the same network, and those of them that were hurt.
    pub(super) neighbours: u64,
    pub(super) hurt: u64,
}

impl Row {
    fn read(value: &Value) -> Self {
        let text = |key| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |key| value.get(key).and_then(Value::as_u64).unwrap_or_default();
        Self {
            service: text("service"),
            name: text("name"),
            intensity: text("intensity"),
            expected: text("expected"),
            outcome: text("outcome"),
            rules: text("rules"),
            neighbours: number("neighbours"),
            hurt: number("hurt"),
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        super::is_stopped(&self.outcome)
    }

    pub(super) fn is_right(&self) -> bool {
        let is_met = match self.expected.as_str() {
            "stopped" => self.is_stopped(),
            "noted" => self.outcome == "noted",
            "untouched" => self.outcome == "clean",
            _ => !self.is_stopped(),
        };
        is_met && self.hurt == 0
    }

    pub(super) fn misjudged(&self) -> Option<String> {
        let Self { service, name, intensity, expected, outcome, hurt, .. } = self;
        let what = format!("{service}, {name}, {intensity}: to be {expected}, was {outcome}, {hurt} hurt");
        (!self.is_right()).then_some(what)
    }
}

/// Has them made and judged.
pub(super) fn judge() -> Result<Vec<Row>> {
    let folder = root().join("target");
    // Where cargo was told to build elsewhere there is none.
    fs::create_dir_all(&folder)?;
    let path = folder.join("judgement.jsonl");
    let mut command = Command::new("cargo");
    command.current_dir(root()).stdout(Stdio::null()).env("FLOODWALL_JUDGEMENT", &path);
    command.args(["test", "--quiet", "-p", "floodwall", "--test", "captures"]);
    process::run(command.args([
        "--",
        "intensity::every_attack_is_judged_right_at_every_intensity",
        "--exact",
    ]))?;
    let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    let rows = text.lines().map(|line| Ok(Row::read(&serde_json::from_str(line)?)));
    rows.collect::<Result<Vec<Row>>>().context("the tests wrote something else than JSON lines")
}
