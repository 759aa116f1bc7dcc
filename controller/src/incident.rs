//! `floodwall incident`: what was recorded of attacks and takeovers, with or without a running wall.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    cli::{DEFAULT_STATE, Format, IncidentArguments, IncidentCommand},
    live::incident::{Line, folder_in, names_in, read},
    output::{Exit, complain, print, print_json, shown},
};

#[derive(Debug, Serialize)]
struct List {
    schema: &'static str,
    incidents: Vec<Row>,
}

/// One record, in a line.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    opened: Option<String>,
    closed: Option<String>,
    rule: Option<String>,
    why: Option<String>,
    subject: Option<String>,
    signals: u64,
    decisions: u64,
    /// Signals that were too many to be recorded: their number stands in the record.
    left_out: u64,
    /// Lines that the disk refused or was too slow for.
    lost: u64,
    /// Lines cut off or damaged afterwards.
    torn: u64,
}

/// Runs the command.
pub(crate) fn run(arguments: &IncidentArguments) -> Exit {
    let state = arguments.state.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_STATE));
    if !state.is_dir() {
        complain(format_args!(
            "there is no state folder {}; name the one that the wall was started with: --state FOLDER",
            shown(&state)
        ));
        return Exit::BadInput;
    }
    let folder = folder_in(&state);
    match &arguments.command {
        IncidentCommand::List => list(&folder, arguments.format),
        IncidentCommand::Export { name } => export(&folder, name),
    }
}

fn list(folder: &Path, format: Format) -> Exit {
    let names = match names_in(folder) {
        Ok(names) => names,
        Err(error) => return failed(&error),
    };
    let mut incidents = Vec::new();
    for name in names {
        match read(&folder.join(format!("{name}.jsonl"))) {
            Ok((lines, broken)) => incidents.push(row(name, &lines, broken)),
            Err(error) => return failed(&error),
        }
    }
    match format {
        Format::Json => print_json(&List { schema: "floodwall.incidents/1", incidents }),
        Format::Text if incidents.is_empty() => print("No incident is recorded.\n"),
        Format::Text => print(incidents.iter().map(|row| sentence(row) + "\n").collect::<String>()),
    }
}

fn row(name: String, lines: &[Line], broken: u64) -> Row {
    let mut row = Row {
        name,
        opened: None,
        closed: None,
        rule: None,
        why: None,
        subject: None,
        signals: 0,
        decisions: 0,
        left_out: 0,
        lost: 0,
        torn: broken,
    };
    for line in lines {
        match line {
            Line::Opened { at, rule, why, subject, .. } => {
                row.opened = Some(at.clone());
                row.rule = Some(rule.clone());
                row.why = Some(why.clone());
                row.subject = Some(subject.clone());
            }
            Line::Signal { .. } => row.signals += 1,
            Line::Decision { .. } => row.decisions += 1,
            Line::LeftOut { signals, .. } => row.left_out += signals,
            Line::Closed { at, lost_lines, .. } => {
                row.closed = Some(at.clone());
                row.lost += lost_lines;
            }
        }
    }
    row
}

fn sentence(row: &Row) -> String {
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let until =
        row.closed.as_ref().map_or_else(|| "still open or cut short".to_owned(), |at| format!("until {at}"));
    let mut text = format!(
        "{}: {}, {}, by {}, {until}. Signals {}, decisions {}",
        row.name,
        or(&row.rule),
        or(&row.why),
        or(&row.subject),
        row.signals,
        row.decisions
    );
    for (count, what) in
        [(row.left_out, "signals counted only"), (row.lost, "lines lost"), (row.torn, "lines torn")]
    {
        if count > 0 {
            text.push_str(&format!(", {what} {count}"));
        }
    }
    text + "."
}

/// The record as it stands: JSON Lines.
fn export(folder: &Path, name: &str) -> Exit {
    let names = match names_in(folder) {
        Ok(names) => names,
        Err(error) => return failed(&error),
    };
    // Only what is listed: a name is no path.
    if !names.iter().any(|known| known == name) {
        complain(format_args!("no incident is named {name:?}; see: floodwall incident list"));
        return Exit::BadInput;
    }
    let copied = File::open(folder.join(format!("{name}.jsonl")))
        .and_then(|mut file| io::copy(&mut file, &mut io::stdout().lock()));
    match copied {
        Ok(_) => Exit::Done,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => failed(&error.into()),
    }
}

fn failed(error: &anyhow::Error) -> Exit {
    complain(format_args!("{error:#}"));
    Exit::Failed
}
