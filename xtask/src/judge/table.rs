//! The tables, for the terminal and for `docs/judgement.md` alike.

use std::fmt::Write;

use super::{Judgement, made::Row};

/// One row per capture, and the sum.
pub(super) fn corpus(rows: &[&(String, Judgement)]) -> String {
    let mut text = String::from(
        "| capture | attackers | flagged | stopped | others | noted | hurt |\n|---|---|---|---|---|---|---|\n",
    );
    let mut sum = Judgement::default();
    for (name, one) in rows {
        let Judgement { attackers, to_stop, flagged, stopped, others, hurt, noted, .. } = one;
        line(
            &mut text,
            &format!("{name} | {attackers} | {flagged} | {stopped} | {others} | {noted} | {hurt}"),
        );
        sum.attackers += attackers;
        sum.to_stop += to_stop;
        sum.flagged += flagged;
        sum.stopped += stopped;
        sum.others += others;
        sum.noted += noted;
        sum.hurt += hurt;
    }
    let Judgement { attackers, to_stop, flagged, stopped, others, hurt, noted, .. } = sum;
    line(&mut text, &format!("all | {attackers} | {flagged} | {stopped} | {others} | {noted} | {hurt}"));
    text.push_str(&figures(stopped, to_stop, hurt));
    text
}

fn line(text: &mut String, cells: &str) {
    text.push_str("| ");
    text.push_str(cells);
    text.push_str(" |\n");
}

/// Precision and recall of being stopped.
fn figures(stopped: usize, attackers: usize, hurt: usize) -> String {
    let share = |part: usize, whole: usize| {
        if whole == 0 { "none".to_owned() } else { format!("{:.3}", part as f64 / whole as f64) }
    };
    format!(
        "\nPrecision (of those who were stopped, attackers): {}. Recall (of attackers who had to be stopped, those who were): {}.\n",
        share(stopped, stopped + hurt),
        share(stopped, attackers),
    )
}

fn made(rows: &[Row]) -> String {
    let mut text = String::from(
        "| service | what | intensity | to be | was | by | neighbours | hurt |\n|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let Row { service, name, intensity, expected, outcome, rules, neighbours, hurt } = row;
        line(
            &mut text,
            &format!(
                "{service} | {name} | {intensity} | {expected} | {outcome} | {rules} | {neighbours} | {hurt}"
            ),
        );
    }
    let attacks = || rows.iter().filter(|row| row.expected == "stopped");
    let stopped = attacks().filter(|row| row.is_stopped()).count();
    let spared = rows.iter().filter(|row| row.expected != "stopped" && row.is_stopped()).count();
    let neighbours: u64 = rows.iter().map(|row| row.hurt).sum();
    text.push_str(&figures(stopped, attacks().count(), spared + usize::try_from(neighbours).unwrap_or(0)));
    text
}

/// The whole page.
pub(super) fn page(corpus: &str, rows: &[Row]) -> String {
    let mut text = String::from(
        "# How well the shipped rules judge\n\nWritten by `cargo xtask judge --write`; CI fails when it is no longer true. \
         *Flagged*: any outcome but clean. *Stopped*:\nlimited, dropped or banned. *Hurt*: stopped, and had done nothing \
         wrong. Takeovers and server links are to be flagged, not stopped.\n\n## Captures of real servers\n\n",
    );
    text.push_str(corpus);
    let places = "## Made by hand\n\nPacket by packet (`controller/tests/captures`), beside three regulars, and with honest \
                  neighbours behind the same address or in the\nsame /24 and /64.\n\n";
    let outcome = write!(text, "\n{places}{}", made(rows));
    debug_assert!(outcome.is_ok(), "a string takes everything");
    text
}
