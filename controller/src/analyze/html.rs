//! The report as a page: one file, no scripts, nothing fetched. Every plot has a sentence and a table that say the same.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use floodwall_engine::text::escape;

use super::report::{OverTime, Report, SliceRow, listed};

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;\
color:#111;background:#fff}table{border-collapse:collapse;margin:1rem 0}th,td{border:1px solid #767676;\
padding:.25rem .5rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}caption{text-align:left;font-weight:bold}\
svg{width:100%;height:auto;background:#f6f6f6}figure{margin:1rem 0}\
@media(prefers-color-scheme:dark){body{color:#eee;background:#111}svg{background:#222}a{color:#9cf}}";

/// Writes the page.
pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Floodwall: what the log tells</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>What the log tells</h1>\n<p><strong>{}</strong></p>\n<p>{}</p>",
        text(&report.answer()),
        text(&report.extent())
    )?;
    if let Some(attack) = report.attack() {
        writeln!(out, "<p>{}</p>", text(&attack))?;
    }
    for failure in &report.failures {
        writeln!(out, "<p>Not read to the end: {}</p>", text(failure))?;
    }
    over_time(&report.over_time, out)?;
    writeln!(out, "<h2>Who</h2>")?;
    table(
        out,
        "Addresses, those that matter most first",
        &["Address", "Outcome", "First seen", "Last seen", "What they did", "Rules"],
        report.sources.iter().map(|row| {
            let who = row.sources.map_or_else(|| row.address.clone(), |count| format!("{count} others"));
            let rules = row.rules.join(", ");
            vec![who, row.outcome.into(), row.first.clone(), row.last.clone(), listed(&row.signals), rules]
        }),
    )?;
    table(
        out,
        "Accounts that logins failed for",
        &["Account", "Failed logins"],
        report.accounts.iter().map(|row| vec![row.account.clone(), row.failed.to_string()]),
    )?;
    table(
        out,
        "Belong together",
        &["Nicknames", "Addresses"],
        report.people.iter().map(|row| vec![row.nicknames.join(", "), row.addresses.join(", ")]),
    )?;
    writeln!(
        out,
        "<h2>What the rules would have done</h2>\n<p>{} bans, {} notes.</p>",
        report.bans_total, report.notes_total
    )?;
    table(
        out,
        "Bans",
        &["Who", "From", "Until", "Rule", "Why", "Evidence"],
        report.bans.iter().map(|ban| {
            let why = format!("{}: {} within {}, the limit is {}", ban.why, ban.count, ban.within, ban.limit);
            let evidence = ban.evidence.join("; ");
            vec![ban.subject.clone(), ban.at.clone(), ban.until.clone(), ban.rule.clone(), why, evidence]
        }),
    )?;
    table(
        out,
        "Notes",
        &["Rule", "About", "At", "Evidence"],
        report.notes.iter().map(|note| {
            vec![note.rule.clone(), note.subject.clone(), note.at.clone(), note.evidence.join("; ")]
        }),
    )?;
    writeln!(out, "</main>\n</body>\n</html>")
}

/// One of the things that are plotted.
struct Curve {
    title: &'static str,
    value: fn(&SliceRow) -> u64,
}

fn over_time(over_time: &OverTime, out: &mut impl Write) -> io::Result<()> {
    if over_time.slices.is_empty() {
        return Ok(());
    }
    writeln!(out, "<h2>Over time</h2>")?;
    let curves = [
        Curve { title: "Lines", value: |slice| slice.lines },
        Curve { title: "Connections", value: |slice| slice.connections },
        Curve { title: "Failed logins", value: |slice| slice.failed_logins },
        Curve { title: "Logins", value: |slice| slice.logins },
        Curve { title: "Messages", value: |slice| slice.messages },
    ];
    for (index, curve) in curves.iter().enumerate() {
        plot(index, curve, over_time, out)?;
    }
    table(
        out,
        "The same as numbers: what happened in each slice of time",
        &["From", "Lines", "Connections", "Failed logins", "Logins", "Messages"],
        over_time.slices.iter().map(|slice| {
            let mut row = vec![slice.at.clone()];
            row.extend(curves.iter().map(|curve| (curve.value)(slice).to_string()));
            row
        }),
    )
}

/// Bars, and the sentence that says what they show.
fn plot(index: usize, curve: &Curve, over_time: &OverTime, out: &mut impl Write) -> io::Result<()> {
    const WIDTH: f64 = 960.0;
    const HEIGHT: f64 = 160.0;
    let values: Vec<u64> = over_time.slices.iter().map(curve.value).collect();
    let total: u64 = values.iter().sum();
    let most = values.iter().copied().max().unwrap_or(0);
    let peak = over_time.slices.iter().zip(&values).find(|(_, value)| **value == most);
    let slices = format!("{} slices of {} s each", values.len(), over_time.seconds_per_slice);
    let sentence = match peak.filter(|_| most > 0) {
        Some((slice, _)) => {
            format!("{}: {total} in {slices}, most in the slice from {}: {most}.", curve.title, slice.at)
        }
        None => format!("{}: none in {slices}.", curve.title),
    };
    let step = WIDTH / values.len() as f64;
    let mut bars = String::new();
    for (at, value) in values.iter().enumerate().filter(|(_, value)| **value > 0) {
        let height = HEIGHT * *value as f64 / most as f64;
        // Writing to a string does not fail.
        write!(
            bars,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
            at as f64 * step,
            HEIGHT - height,
            (step * 0.9).max(0.5)
        )
        .ok();
    }
    writeln!(
        out,
        "<figure>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"plot{index}\" fill=\"#1f6feb\">{bars}</svg>\n\
         <figcaption id=\"plot{index}\">{}</figcaption>\n</figure>",
        text(&sentence)
    )
}

fn table(
    out: &mut impl Write,
    caption: &str,
    headings: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> io::Result<()> {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return writeln!(out, "<p>{}: none.</p>", text(caption));
    }
    writeln!(out, "<table>\n<caption>{}</caption>\n<thead><tr>", text(caption))?;
    for heading in headings {
        write!(out, "<th scope=\"col\">{}</th>", text(heading))?;
    }
    writeln!(out, "</tr></thead>\n<tbody>")?;
    for row in rows {
        write!(out, "<tr>")?;
        for (index, cell) in row.iter().enumerate() {
            let (open, close) = if index == 0 { ("<th scope=\"row\">", "</th>") } else { ("<td>", "</td>") };
            write!(out, "{open}{}{close}", text(cell))?;
        }
        writeln!(out, "</tr>")?;
    }
    writeln!(out, "</tbody>\n</table>")
}

/// What somebody else chose must neither be markup nor look like another line.
fn text(plain: &str) -> String {
    let mut html = String::with_capacity(plain.len());
    for character in plain.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\\' => html.push('\\'),
            other => {
                let mut buffer = [0; 4];
                // Writing to a string does not fail.
                escape(other.encode_utf8(&mut buffer), &mut html).ok();
            }
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_neither_markup_nor_marks_that_turn_text_around() {
        assert_eq!(text("<b onx='1'>&\u{202e}\n"), "&lt;b onx=&#39;1&#39;&gt;&amp;\\u{202e}\\n");
    }
}
