//! `floodwall catalogue`: what servers say that no documentation has, of a running wall or of captures.

use std::collections::BTreeMap;

use floodwall_engine::{
    Timestamp,
    catalogue::{Catalogue, Sort},
    text::Text,
};
use serde::{Deserialize, Serialize};

use crate::{
    cli::{CatalogueArguments, Format},
    client,
    live::control::Request,
    output::{Exit, complain, print, print_json},
    replay,
};

/// `floodwall.catalogue/1`
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: String,
    pub(crate) entries: Vec<Row>,
    /// Occurrences of what was not kept for lack of room.
    pub(crate) not_kept: u64,
}

/// One thing that is not documented.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) service: String,
    /// `event`, `command`, `parameter`, `number` or `datagram`.
    pub(crate) sort: String,
    pub(crate) name: String,
    /// The words of the lines it stood in.
    pub(crate) within: Vec<String>,
    pub(crate) count: u64,
    /// RFC 3339, UTC.
    pub(crate) first: String,
    pub(crate) last: String,
}

/// Runs the command.
pub(crate) fn run(arguments: &CatalogueArguments) -> Exit {
    if arguments.files.is_empty() {
        return client::ask(&arguments.connect, Request::Catalogue, text);
    }
    let (walls, failures) = match replay::catalogue(&arguments.files, &arguments.services, arguments.plain) {
        Ok(read) => read,
        Err(mistakes) => {
            complain(mistakes);
            return Exit::BadInput;
        }
    };
    for failure in &failures {
        complain(failure);
    }
    let printed = match arguments.connect.format {
        Format::Json => print_json(&walls),
        Format::Text => print(text(&walls)),
    };
    if failures.is_empty() { printed } else { Exit::Failed }
}

/// Puts a catalogue into words; one row for a name, whatever lines it stood in.
pub(crate) fn report(
    catalogue: Option<&Catalogue>,
    service_name: impl Fn(u8) -> &'static str,
    time: impl Fn(Timestamp) -> String,
) -> Report {
    let mut found: BTreeMap<(u8, Sort, &Text), Vec<_>> = BTreeMap::new();
    for (key, entry) in catalogue.iter().flat_map(|catalogue| catalogue.entries()) {
        found.entry((key.service, key.sort, &key.name)).or_default().push((&key.within, entry));
    }
    let rows = found.into_iter().map(|((service, sort, name), places)| {
        let words = places.iter().map(|(within, _)| within.as_str()).filter(|within| !within.is_empty());
        let first = places.iter().map(|(_, entry)| entry.first).min();
        let last = places.iter().map(|(_, entry)| entry.last).max();
        Row {
            service: service_name(service).to_owned(),
            sort: sort.as_str().to_owned(),
            name: name.as_str().to_owned(),
            within: words.map(str::to_owned).collect(),
            count: places.iter().map(|(_, entry)| entry.count).sum(),
            first: first.map(&time).unwrap_or_default(),
            last: last.map(&time).unwrap_or_default(),
        }
    });
    Report {
        schema: "floodwall.catalogue/1".into(),
        entries: rows.collect(),
        not_kept: catalogue.map_or(0, Catalogue::refused),
    }
}

fn text(report: &Report) -> String {
    if report.entries.is_empty() {
        return "Nothing was met that is not documented.\n".into();
    }
    let mut lines = vec![format!("{} things are not documented.", report.entries.len())];
    for row in &report.entries {
        let within =
            if row.within.is_empty() { String::new() } else { format!(" in {}", row.within.join(", ")) };
        lines.push(format!(
            "{}: {} {}{within}, {} times, first {}, last {}.",
            row.service, row.sort, row.name, row.count, row.first, row.last
        ));
    }
    if report.not_kept > 0 {
        lines.push(format!("{} more occurrences had no room.", report.not_kept));
    }
    lines.join("\n") + "\n"
}
