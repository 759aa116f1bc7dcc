//! The report for people: linear, the answer first, one fact a line.

use std::fmt::Write;

use floodwall_engine::command::Explanation;

use crate::output::times;

use super::{
    rfc3339,
    tally::{Listing, Outcome, Source, Tally},
};

/// Sources named in full in the text; JSON has them all.
const SOURCES_SHOWN: usize = 40;
/// Bans explained in full in the text.
const BANS_SHOWN: usize = 20;

/// The report as text.
pub(super) fn report(tally: &Tally, sources: usize) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    write(&mut out, tally, sources.min(SOURCES_SHOWN)).unwrap_or_default();
    out
}

fn write(out: &mut String, tally: &Tally, sources: usize) -> std::fmt::Result {
    write_answer(out, tally)?;
    write_capture(out, tally)?;
    write_sources(out, tally, sources)?;
    write_bans(out, tally)?;
    write_notes(out, tally)?;
    write_levels(out, tally)?;
    write_signals(out, tally)?;
    for (rule, count) in &tally.shadowed {
        writeln!(out, "Shadow rule {rule} would have fired {}.", times(*count))?;
    }
    for (loss, count) in &tally.losses {
        writeln!(out, "Lost: {count} {loss}.")?;
    }
    for failure in &tally.failures {
        writeln!(out, "Not enforced: {failure}.")?;
    }
    Ok(())
}

fn write_answer(out: &mut String, tally: &Tally) -> std::fmt::Result {
    let all = tally.by_address();
    let count = |outcome| all.values().filter(|source| source.outcome == outcome).count();
    let flagged = all.values().filter(|source| source.outcome != Outcome::Clean).count();
    if flagged == 0 {
        return writeln!(out, "Nothing to object to: {} sources, all clean.", all.len());
    }
    writeln!(
        out,
        "{flagged} of {} sources flagged: {} banned, {} dropped, {} limited, {} noted.",
        all.len(),
        count(Outcome::Banned),
        count(Outcome::Dropped),
        count(Outcome::Limited),
        count(Outcome::Noted)
    )
}

fn write_capture(out: &mut String, tally: &Tally) -> std::fmt::Result {
    let span = match (tally.first, tally.last) {
        (Some(first), Some(last)) => format!(", {} to {}", rfc3339(first), rfc3339(last)),
        _ => String::new(),
    };
    writeln!(out, "Read: {} packets, {} bytes{span}.", tally.total.packets, tally.total.bytes)?;
    if tally.restarts > 0 {
        writeln!(
            out,
            "The clock of the captures went back {}; gate and rules began again there.",
            times(tally.restarts)
        )?;
    }
    if tally.learning > 0 {
        writeln!(
            out,
            "Passed only because the gate was still learning who holds a session: {} packets.",
            tally.learning
        )?;
    }
    if tally.undecoded > 0 {
        writeln!(out, "Without a TCP or UDP header: {} packets.", tally.undecoded)?;
    }
    for service in tally.services.iter().filter(|service| service.volume.packets > 0) {
        let classes: Vec<String> = service
            .classes()
            .map(|(class, volume)| format!("{} {}", class.as_str(), volume.packets))
            .collect();
        writeln!(out, "To {}: {} packets ({}).", service.name, service.volume.packets, classes.join(", "))?;
    }
    Ok(())
}

fn write_sources(out: &mut String, tally: &Tally, most: usize) -> std::fmt::Result {
    let Listing { listed, rest } = tally.sources(most);
    if listed.is_empty() {
        return writeln!(out, "\nNo packet was addressed to a guarded port.");
    }
    writeln!(out, "\nSources:")?;
    for (address, source) in listed {
        writeln!(out, "{address}: {}.", describe(source))?;
    }
    if let Some((count, sum)) = rest {
        writeln!(out, "{count} others: {} packets, {} dropped.", sum.volume.packets, sum.dropped)?;
    }
    Ok(())
}

fn describe(source: &Source) -> String {
    let mut text = format!("{}, {} packets", source.outcome.as_str(), source.volume.packets);
    if let Some(standing) = source.standing {
        text.push_str(&format!(", {}", standing.as_str()));
    }
    if source.dropped > 0 {
        let reasons: Vec<String> =
            source.reasons.iter().map(|(reason, count)| format!("{} {count}", reason.as_str())).collect();
        text.push_str(&format!(", {} dropped ({})", source.dropped, reasons.join(", ")));
    }
    if !source.rules.is_empty() {
        let rules: Vec<&str> = source.rules.iter().map(|rule| &*rule.0).collect();
        text.push_str(&format!(", by {}", rules.join(", ")));
    }
    text
}

fn write_bans(out: &mut String, tally: &Tally) -> std::fmt::Result {
    if tally.bans.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nBans:")?;
    for ban in tally.bans.iter().take(BANS_SHOWN) {
        writeln!(
            out,
            "{} would be banned from {} to {}, {}.",
            ban.subject,
            rfc3339(ban.explanation.at),
            rfc3339(ban.until),
            because(&ban.explanation)
        )?;
        for line in &ban.explanation.evidence {
            writeln!(out, "  {line}")?;
        }
    }
    if tally.bans.len() > BANS_SHOWN {
        writeln!(out, "And {} more; --format json lists them.", tally.bans.len() - BANS_SHOWN)?;
    }
    Ok(())
}

fn because(explanation: &Explanation) -> String {
    format!(
        "because of {} ({}): {} within {}, the limit is {}",
        explanation.rule, explanation.why, explanation.count, explanation.within, explanation.limit
    )
}

fn write_notes(out: &mut String, tally: &Tally) -> std::fmt::Result {
    if tally.notes.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nNotes:")?;
    for note in tally.notes.iter().take(BANS_SHOWN) {
        writeln!(out, "{} at {}, {}.", note.subject, rfc3339(note.at), because(note))?;
    }
    let left_out = tally.notes.len().saturating_sub(BANS_SHOWN) as u64 + tally.notes_left_out;
    if left_out > 0 {
        writeln!(out, "And {left_out} more.")?;
    }
    Ok(())
}

fn write_levels(out: &mut String, tally: &Tally) -> std::fmt::Result {
    for row in &tally.levels {
        let rule = row.rule.as_ref().map_or_else(String::new, |rule| format!(", because of {rule}"));
        let service = tally.service_name(row.service);
        writeln!(out, "Level of {service} at {}: {}{rule}.", rfc3339(row.at), row.level.as_str())?;
    }
    Ok(())
}

fn write_signals(out: &mut String, tally: &Tally) -> std::fmt::Result {
    if tally.signals.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nSignals:")?;
    for (kind, count) in &tally.signals {
        writeln!(out, "{}: {count}", kind.as_str())?;
    }
    Ok(())
}
