//! Commands for a running wall: asks over the control socket and prints the answer, for people or programs.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use floodwall_engine::text::Text;
use floodwall_kernel::tables::Fill;
use serde::de::DeserializeOwned;

use crate::{
    cli::{ConnectArguments, Format},
    live::{
        answers::{Bans, ClassOfTraffic, Done, Explanation, Link, Links, Present, Status, Who},
        control::{DEFAULT_SOCKET, Envelope, Outcome, Refusal, RefusalKind, Reply, Request, VERSION},
        ledger::BanRow,
        logs::LogFigures,
        people::Person,
        watching::Watched,
    },
    output::{Exit, complain, print, shown, times},
};

/// The wall answers in milliseconds; this long it may be busy.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bans sent in one request.
const IMPORT_BATCH: usize = 200;

/// Asks one thing and prints the answer with `text` unless JSON is wanted.
pub(crate) fn ask<T: DeserializeOwned>(
    arguments: &ConnectArguments,
    request: Request,
    text: impl FnOnce(&T) -> String,
) -> Exit {
    let value = match exchange(arguments, request) {
        Ok(value) => value,
        Err(exit) => return exit,
    };
    match arguments.format {
        Format::Json => print(format_args!("{value:#}\n")),
        Format::Text => match serde_json::from_value(value) {
            Ok(answer) => print(text(&answer)),
            Err(error) => {
                complain(format_args!("the wall's answer is not understood: {error}"));
                Exit::Failed
            }
        },
    }
}

/// Asks one thing. What goes wrong is said here.
pub(crate) fn exchange(arguments: &ConnectArguments, request: Request) -> Result<serde_json::Value, Exit> {
    let mut stream = connect(arguments)?;
    send(&mut stream, request)?;
    let mut line = String::new();
    let failed = |error: std::io::Error| {
        complain(format_args!("the wall did not answer: {error}"));
        Exit::Failed
    };
    BufReader::new(&stream).read_line(&mut line).map_err(failed)?;
    understand(&line)
}

fn understand(line: &str) -> Result<serde_json::Value, Exit> {
    match serde_json::from_str::<Reply>(line) {
        Ok(Reply { outcome: Outcome::Answer(value), .. }) => Ok(value),
        Ok(Reply { outcome: Outcome::Refusal(refusal), .. }) => Err(refused(&refusal)),
        Err(_) if line.is_empty() => {
            complain("the wall closed the connection without an answer");
            Err(Exit::Failed)
        }
        Err(error) => {
            complain(format_args!("the wall's answer is not understood: {error}"));
            Err(Exit::Failed)
        }
    }
}

fn refused(refusal: &Refusal) -> Exit {
    complain(&refusal.message);
    match refusal.kind {
        RefusalKind::Failed => Exit::Failed,
        RefusalKind::BadInput => Exit::BadInput,
        RefusalKind::NotPermitted => Exit::NotPermitted,
    }
}

fn connect(arguments: &ConnectArguments) -> Result<UnixStream, Exit> {
    let path = arguments.socket.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
    let stream = UnixStream::connect(&path).map_err(|error| {
        let shown = path.display();
        let (hint, exit) = if error.kind() == std::io::ErrorKind::PermissionDenied {
            ("run it with sudo, or join the group floodwall", Exit::NotPermitted)
        } else {
            ("is the wall running? start it with: floodwall run", Exit::Failed)
        };
        complain(format_args!("cannot reach the wall at {shown}: {error}; {hint}"));
        exit
    })?;
    if let Err(error) = stream.set_read_timeout(Some(ANSWER_TIMEOUT)) {
        complain(format_args!("the socket has no time limit: {error}"));
    }
    Ok(stream)
}

fn send(stream: &mut UnixStream, request: Request) -> Result<(), Exit> {
    let envelope = Envelope { version: VERSION, request, from: std::env::var("SSH_CONNECTION").ok() };
    let sent = serde_json::to_vec(&envelope).map_err(std::io::Error::other).and_then(|mut line| {
        line.push(b'\n');
        stream.write_all(&line)
    });
    sent.map_err(|error| {
        complain(format_args!("the wall did not take the request: {error}"));
        Exit::Failed
    })
}

/// `floodwall watch`: lines as they come, until interrupted.
pub(crate) fn watch(arguments: &ConnectArguments, bell: bool) -> Exit {
    let mut stream = match connect(arguments) {
        Ok(stream) => stream,
        Err(exit) => return exit,
    };
    if let Err(exit) = send(&mut stream, Request::Watch) {
        return exit;
    }
    if stream.set_read_timeout(None).is_err() {
        return Exit::Failed;
    }
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        let value = match understand(&line) {
            Ok(value) => value,
            Err(exit) => return exit,
        };
        let shown = match (arguments.format, serde_json::from_value::<Watched>(value.clone())) {
            (Format::Json, _) | (Format::Text, Err(_)) => format!("{value}\n"),
            (Format::Text, Ok(Watched { at, kind, text })) => {
                let ring = if bell && kind == "ban" { "\u{7}" } else { "" };
                format!("{at} {kind} {text}{ring}\n")
            }
        };
        if print(shown) != Exit::Done {
            return Exit::Failed;
        }
    }
    complain("the wall has stopped");
    Exit::Failed
}

/// `floodwall bans --export`: JSON lines, one ban each.
pub(crate) fn export(state: &Path) -> Exit {
    match crate::live::ledger::history(state, None, usize::MAX) {
        Ok(rows) => {
            let lines: Result<Vec<String>, _> = rows.iter().map(serde_json::to_string).collect();
            match lines {
                Ok(lines) => print(lines.into_iter().map(|line| line + "\n").collect::<String>()),
                Err(error) => {
                    complain(format_args!("a ban cannot be written: {error}"));
                    Exit::Failed
                }
            }
        }
        Err(error) => {
            complain(format_args!("{error:#}"));
            Exit::Failed
        }
    }
}

/// `floodwall bans --import FILE`.
pub(crate) fn import(arguments: &ConnectArguments, path: &Path) -> Exit {
    let text = match crate::rules::read_text(path) {
        Ok(text) => text,
        Err(reason) => {
            complain(reason);
            return Exit::BadInput;
        }
    };
    let mut rows: Vec<BanRow> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(row) => rows.push(row),
            Err(error) => {
                complain(format_args!("{}:{}:{}: {error}", path.display(), number + 1, error.column()));
                return Exit::BadInput;
            }
        }
    }
    for batch in rows.chunks(IMPORT_BATCH) {
        let exit = ask(arguments, Request::Import { bans: batch.to_vec() }, done);
        if exit != Exit::Done {
            return exit;
        }
    }
    Exit::Done
}

/// One sentence a line.
pub(crate) fn done(done: &Done) -> String {
    done.sentences.iter().map(|sentence| format!("{sentence}\n")).collect()
}

/// One class of traffic against what is usual.
pub(crate) fn class_of_traffic(class: &ClassOfTraffic) -> String {
    let ClassOfTraffic { class, level, strangers, usual, alarmed_from, hours_learnt } = class;
    let usual = match usual {
        Some(usual) => format!("{usual} are usual at this hour of the week"),
        None => format!("this hour of the week is not learnt yet ({hours_learnt} of 168 are)"),
    };
    format!(
        "{class}: level {level}, {strangers} strangers within 10 s, {usual}, alarmed from {alarmed_from}."
    )
}

/// One fact a line, the answer first.
pub(crate) fn status(status: &Status) -> String {
    let mut lines = Vec::new();
    let effect = if status.evaluating { "only observes" } else { "is in force" };
    lines.push(format!(
        "The wall {effect}, mode {}, running {} seconds.",
        status.mode, status.running_seconds
    ));
    if let Some(seconds) = status.unconfirmed_seconds {
        lines.push(format!(
            "Not confirmed: everything is taken back in {seconds} seconds. Keep it with: floodwall confirm"
        ));
    }
    if status.learning_seconds > 0 {
        lines.push(format!(
            "Learning who is there for another {} seconds: nothing is dropped for lack of standing.",
            status.learning_seconds
        ));
    }
    for service in &status.services {
        let ports = |ports: &[u16]| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (tcp, udp) = (ports(&service.tcp_ports), ports(&service.udp_ports));
        let tcp = if tcp.is_empty() { String::new() } else { format!(", TCP {tcp}") };
        let udp = if udp.is_empty() { String::new() } else { format!(", UDP {udp}") };
        lines.push(format!("Service {}: level {}{tcp}{udp}.", service.name, service.level));
        lines.extend(service.classes.iter().map(|class| format!("  {}", class_of_traffic(class))));
    }
    lines.push(format!("Present: {} logged in; {} addresses known.", status.present, status.known));
    lines.push(format!("Bans: {}.", status.bans));
    let dropping: Vec<_> = status.dropping.iter().filter(|row| row.packets_per_second > 0).collect();
    if dropping.is_empty() {
        lines.push("Nothing is being dropped now.".into());
    }
    for row in dropping {
        lines.push(format!(
            "Dropping on {}: {} packets per second, {}; {} since the gate was made.",
            row.service, row.packets_per_second, row.reason, row.packets
        ));
    }
    for link in &status.full_links {
        lines.push(format!(
            "The link itself is full: {} loses {} packets per second before the gate sees them. Only your provider \
             can help with that.",
            link.interface, link.lost_per_second
        ));
    }
    for interface in &status.interfaces {
        let adopted = if interface.adopted { ", taken over from the controller before" } else { "" };
        lines.push(format!("Interface {}: {}{adopted}.", interface.name, interface.mode));
    }
    let advisory: Vec<&str> =
        status.steps.iter().filter(|step| step.state == "advisory").map(|step| step.step.as_str()).collect();
    if !status.evaluating && !advisory.is_empty() {
        lines.push(format!("Advisory only, nothing is dropped for it: {}.", advisory.join(", ")));
    }
    for step in status.steps.iter().filter(|step| step.state == "partly") {
        lines.push(format!("Enforced in part: {}: {}.", step.step, step.lacking));
    }
    lines.extend(status.why.iter().map(|why| format!("Why not better: {why}")));
    if !status.allowed.is_empty() {
        lines.push(format!("Allowed: {}.", status.allowed.join(", ")));
    }
    for list in &status.lists {
        let path = shown(Path::new(&list.path));
        lines.push(format!("List {path}: {}, {} prefixes.", list.action, list.prefixes));
    }
    for rule in &status.rules {
        let shadowed =
            if rule.shadowed > 0 { format!(", would have {}", times(rule.shadowed)) } else { String::new() };
        lines.push(format!("Rule {}: fired {}{shadowed}.", rule.rule, times(rule.fired)));
    }
    lines.extend(status.logs.iter().map(followed_log));
    if status.ledger_failing {
        lines.push("The ledger cannot be written; bans hold from memory. Free the disk.".into());
    }
    for table in status.tables.iter().filter(|table| table.refused + table.evicted > 0) {
        let Fill { table, entries, capacity, refused, evicted } = table;
        lines.push(format!(
            "Table {table}: {entries} of {capacity} entries; no room for {refused}, and {evicted} made room for others."
        ));
    }
    lines.extend(status.losses.iter().map(|loss| format!("Lost: {}, {}.", loss.what, loss.count)));
    lines.extend(status.repaired.iter().map(|what| format!("Put right: {what}.")));
    lines.join("\n") + "\n"
}

fn followed_log(log: &LogFigures) -> String {
    let mut line = format!(
        "Log {}: {} lines read, {} signals only it has told, {} the wire had told already",
        log.name, log.lines, log.judged, log.joined
    );
    for (count, what) in [
        (log.unparsed, "lines not understood"),
        (log.old, "lines older than a few seconds, not judged"),
        (log.behind_bytes, "bytes behind"),
        (log.passed_over_bytes, "bytes passed over: what it says is a sample"),
    ] {
        if count > 0 {
            line.push_str(&format!("; {count} {what}"));
        }
    }
    if log.is_failing { line + "; it cannot be read now." } else { line + "." }
}

pub(crate) fn bans(bans: &Bans) -> String {
    if bans.bans.is_empty() {
        return "Nobody is banned.\n".into();
    }
    let mut lines = Vec::new();
    for ban in &bans.bans {
        let ended = match (&ban.ended, &ban.ended_why) {
            (Some(at), why) => format!(" Ended {at}, {}.", why.as_deref().unwrap_or("lifted")),
            (None, _) => String::new(),
        };
        lines.push(format!("{} until {}, rule {}: {}.{ended}", ban.subject, ban.until, ban.rule, ban.why));
    }
    lines.push("Why in full: floodwall explain ADDRESS. Lift one: floodwall unban ADDRESS".into());
    lines.join("\n") + "\n"
}

pub(crate) fn explanation(explanation: &Explanation) -> String {
    explanation.sentences.iter().map(|sentence| format!("{sentence}\n")).collect()
}

const NOBODY: &str = "Nobody is logged in, as far as the control channels can be read.\n";

/// By server and channel, as people would read it out.
pub(crate) fn who(who: &Who) -> String {
    if who.present.is_empty() {
        return NOBODY.into();
    }
    let mut lines = Vec::new();
    for (service, channels) in by_place(who) {
        let count = channels.values().map(Vec::len).sum::<usize>();
        lines.push(format!("{service}: {count} logged in."));
        for (channel, present) in channels {
            lines.push(match channel {
                Some(channel) => format!("Channel {}, {}:", quoted(channel), present.len()),
                None => format!("In no channel, {}:", present.len()),
            });
            for present in present {
                let nickname = present.nickname.as_deref().map_or_else(|| "somebody".to_owned(), quoted);
                let account = present.account.as_deref().filter(|account| !account.is_empty());
                let account = account.map_or_else(
                    || "no account".to_owned(),
                    |account| format!("account {}", quoted(account)),
                );
                lines.push(format!(
                    "{nickname}, {account}, from {}, since {}.",
                    present.address, present.since
                ));
            }
        }
    }
    if who.unlisted > 0 {
        lines.push(format!("{} more are not listed for lack of room.", who.unlisted));
    }
    lines.join("\n") + "\n"
}

/// One line a server.
pub(crate) fn who_shortly(who: &Who) -> String {
    if who.present.is_empty() {
        return NOBODY.into();
    }
    let line = |(service, channels): (&str, Channels<'_>)| {
        let count = channels.values().map(Vec::len).sum::<usize>();
        let named = channels.iter().filter_map(|(channel, present)| {
            channel.map(|channel| format!("{} {}", quoted(channel), present.len()))
        });
        let named: Vec<String> = named.collect();
        let elsewhere = channels.get(&None).map_or(0, Vec::len);
        let places = if named.is_empty() { "no channel".to_owned() } else { named.join(", ") };
        format!("{service}: {count} logged in; {places}; {elsewhere} in no channel.\n")
    };
    by_place(who).into_iter().map(line).collect()
}

type Channels<'a> = BTreeMap<Option<&'a str>, Vec<&'a Present>>;

fn by_place(who: &Who) -> BTreeMap<&str, Channels<'_>> {
    let mut services: BTreeMap<&str, Channels<'_>> = BTreeMap::new();
    for present in &who.present {
        let channels = services.entry(&present.service).or_default();
        channels.entry(present.channel.as_deref()).or_default().push(present);
    }
    services
}

/// What belongs to one person, one link a line; what is certain comes first.
pub(crate) fn person(person: &Person) -> String {
    let asked = quoted(&person.asked);
    if person.names.is_empty() {
        return format!("Nothing is kept about {asked}.\n");
    }
    let mut lines = vec![format!("{} names are linked to {asked}.", person.names.len())];
    for known in &person.names {
        let (sort, name) = (known.sort.as_str(), quoted(&known.name));
        let when = format!(
            "{} on {}, first {}, last {}",
            times(known.times),
            known.service,
            known.first,
            known.last
        );
        lines.push(match &known.through {
            None => format!("{sort} {name}: seen together {when}."),
            Some((through, by)) => {
                format!(
                    "{sort} {name}: through {} {}, with which it was seen {when}.",
                    through.as_str(),
                    quoted(by)
                )
            }
        });
    }
    if person.more {
        lines.push("There are more than are told.".to_owned());
    }
    lines.join("\n") + "\n"
}

/// A name that somebody else chose: it must not write lines or colours into a terminal.
fn quoted(name: &str) -> String {
    Text::from(name).to_string()
}

pub(crate) fn links(links: &Links) -> String {
    if links.links.is_empty() {
        return "No IRC server link is open, as far as it can be seen.\n".into();
    }
    links.links.iter().flat_map(link).map(|line| line + "\n").collect()
}

fn link(link: &Link) -> Vec<String> {
    let name =
        |name: &Option<String>| name.as_deref().map_or_else(|| "a server without a name".to_owned(), quoted);
    let time = |time: Option<u64>| time.map_or_else(|| "unknown".to_owned(), |time| time.to_string());
    let side = |remote: bool| if remote { "theirs" } else { "ours" };
    let mut lines = vec![format!(
        "{}: {} to {} at {}, {}, {}{}, since {}. {} servers, {} nicknames, {} channels.",
        link.service,
        name(&link.own),
        name(&link.peer),
        link.peer_address,
        link.dialect,
        if link.established { "established" } else { "in its burst" },
        if link.compressed { ", compressed" } else { "" },
        link.since,
        link.servers_total,
        link.users_total,
        link.channels_total
    )];
    if !link.complete {
        lines.push(format!("Not everything was seen from the beginning; {} entries had no room.", link.lost));
    }
    for server in &link.servers {
        lines.push(format!(
            "Server {} ({}), {}.",
            quoted(&server.name),
            quoted(&server.id),
            side(server.remote)
        ));
    }
    for user in &link.users {
        let (id, since) = (quoted(&user.id), time(user.timestamp));
        lines.push(format!(
            "Nickname {} ({id}), timestamp {since}, {}.",
            quoted(&user.nickname),
            side(user.remote)
        ));
    }
    for channel in &link.channels {
        lines.push(format!(
            "Channel {}, timestamp {}: we said {}, they said {}; {} members, {} operators.",
            quoted(&channel.name),
            time(channel.timestamp),
            time(channel.own_said),
            time(channel.peer_said),
            channel.members,
            channel.operators
        ));
    }
    lines
}
