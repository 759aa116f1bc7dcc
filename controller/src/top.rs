//! `floodwall top`: what is going on, anew every few seconds. Levels first, then what comes in by service and class, whom
//! rules have dealt with, and what is dropped for which reason.
//!
//! The wall tells totals; rates are what they grew by between two looks. Text is a block of lines. On a terminal each block
//! takes the place of the last, unless `--plain` or `NO_COLOR` says otherwise.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    thread,
    time::Duration,
};

use serde::Serialize;

use crate::{
    cli::{Format, TopArguments},
    client,
    clock::{instant, utc_now},
    live::{
        answers::{ClassOfTraffic, Status, Worst},
        control::Request,
    },
    output::{Exit, complain},
    replay::rfc3339,
};

/// Before the first block there is one look to compare with.
const FIRST: Duration = Duration::from_secs(1);
/// Between blocks on a terminal.
const LIVELY: Duration = Duration::from_secs(2);
/// Between blocks that are piped or read aloud, and the least there.
const CALM: Duration = Duration::from_secs(10);
/// Rows of drops shown as text.
const ROWS: usize = 10;

/// `floodwall.top/1`
#[derive(Debug, Serialize)]
struct Top<'a> {
    schema: &'static str,
    /// RFC 3339, UTC.
    at: String,
    /// Seconds between the two looks that rates are from.
    seconds: f64,
    mode: &'a str,
    evaluating: bool,
    present: usize,
    known: usize,
    bans: usize,
    services: Vec<Service<'a>>,
    sources: &'a [Worst],
    dropping: Vec<Drop<'a>>,
}

#[derive(Debug, Serialize)]
struct Service<'a> {
    name: &'a str,
    level: &'a str,
    classes: &'a [ClassOfTraffic],
    traffic: Vec<Rate<'a>>,
}

/// What comes in of one class of packets.
#[derive(Debug, Serialize)]
struct Rate<'a> {
    class: &'a str,
    passed_per_second: f64,
    passed_bytes_per_second: f64,
    dropped_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Drop<'a> {
    service: &'a str,
    reason: &'a str,
    packets_per_second: f64,
    packets: u64,
}

/// Runs the command.
pub(crate) fn run(arguments: &TopArguments) -> Exit {
    let redraws = io::stdout().is_terminal()
        && !arguments.plain
        && std::env::var_os("NO_COLOR").is_none()
        && arguments.connect.format == Format::Text;
    let usual = if redraws { LIVELY } else { CALM };
    let every = arguments.every.map_or(usual, |every| Duration::from_nanos(every.as_nanos()));
    let every = if redraws || arguments.connect.format == Format::Json { every } else { every.max(CALM) };
    let mut before = match look(arguments) {
        Ok(status) => (status, instant()),
        Err(exit) => return exit,
    };
    let mut pause = FIRST.min(every);
    loop {
        thread::sleep(pause);
        pause = every;
        let status = match look(arguments) {
            Ok(status) => status,
            Err(exit) => return exit,
        };
        let now = instant();
        let top = Top::between(&before.0, &status, now.duration_since(before.1));
        let block = match arguments.connect.format {
            Format::Json => serde_json::to_string(&top).map(|line| line + "\n"),
            Format::Text => Ok(text(&top)),
        };
        let block = match block {
            Ok(block) if redraws => format!("\u{1b}[H\u{1b}[2J{block}"),
            Ok(block) => block,
            Err(error) => {
                complain(format_args!("the answer cannot be written: {error}"));
                return Exit::Failed;
            }
        };
        if let Err(exit) = show(&block) {
            return exit;
        }
        if arguments.once {
            return Exit::Done;
        }
        before = (status, now);
    }
}

fn look(arguments: &TopArguments) -> Result<Status, Exit> {
    let value = client::exchange(&arguments.connect, Request::Status)?;
    serde_json::from_value(value).map_err(|error| {
        complain(format_args!("the wall's answer is not understood: {error}"));
        Exit::Failed
    })
}

/// Whoever read it may have seen enough.
fn show(block: &str) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    out.write_all(block.as_bytes()).and_then(|()| out.flush()).map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Exit::Done;
        }
        complain(format_args!("cannot write to standard output: {error}"));
        Exit::Failed
    })
}

impl<'a> Top<'a> {
    fn between(before: &'a Status, status: &'a Status, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64().max(0.001);
        // A wall that was started anew counts from nothing.
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let traffic_before: BTreeMap<_, _> =
            before.traffic.iter().map(|row| ((&row.service, &row.class), row)).collect();
        let drops_before: BTreeMap<_, _> =
            before.dropping.iter().map(|row| ((&row.service, &row.reason), row.packets)).collect();
        let services = status.services.iter().map(|service| {
            let rows = status.traffic.iter().filter(|row| row.service == service.name);
            let traffic = rows.map(|row| {
                let then = traffic_before.get(&(&row.service, &row.class));
                Rate {
                    class: &row.class,
                    passed_per_second: per_second(row.passed, then.map_or(0, |then| then.passed)),
                    passed_bytes_per_second: per_second(
                        row.passed_bytes,
                        then.map_or(0, |then| then.passed_bytes),
                    ),
                    dropped_per_second: per_second(row.dropped, then.map_or(0, |then| then.dropped)),
                }
            });
            let traffic = traffic.collect();
            Service { name: &service.name, level: &service.level, classes: &service.classes, traffic }
        });
        let mut dropping: Vec<Drop<'_>> = status
            .dropping
            .iter()
            .map(|row| {
                let then = drops_before.get(&(&row.service, &row.reason)).copied().unwrap_or(0);
                Drop {
                    service: &row.service,
                    reason: &row.reason,
                    packets_per_second: per_second(row.packets, then),
                    packets: row.packets,
                }
            })
            .collect();
        dropping.sort_by(|one, other| {
            other
                .packets_per_second
                .total_cmp(&one.packets_per_second)
                .then_with(|| other.packets.cmp(&one.packets))
        });
        Self {
            schema: "floodwall.top/1",
            at: rfc3339(utc_now()),
            seconds,
            mode: &status.mode,
            evaluating: status.evaluating,
            present: status.present,
            known: status.known,
            bans: status.bans,
            services: services.collect(),
            sources: &status.worst,
            dropping,
        }
    }
}

/// One fact a line, the answer first.
fn text(top: &Top<'_>) -> String {
    let highest = |service: &&Service<'_>| service.level != "normal";
    let alarmed: Vec<String> = top
        .services
        .iter()
        .filter(highest)
        .map(|service| format!("{} is at level {}", service.name, service.level))
        .collect();
    let levels =
        if alarmed.is_empty() { "all services are at level normal".to_owned() } else { alarmed.join(", ") };
    let effect = if top.evaluating { "the wall only observes" } else { "the wall is in force" };
    let mut lines = vec![
        format!("{}: {levels}; {effect}, mode {}.", top.at, top.mode),
        format!("{} present, {} known, {} banned.", top.present, top.known, top.bans),
    ];
    for service in &top.services {
        lines.push(format!("Service {}: level {}.", service.name, service.level));
        lines.extend(service.classes.iter().map(|class| format!("  {}", client::class_of_traffic(class))));
        for rate in &service.traffic {
            let Rate { class, passed_per_second, passed_bytes_per_second, dropped_per_second } = rate;
            if passed_per_second + dropped_per_second > 0.0 {
                lines.push(format!(
                    "  {class}: {passed_per_second:.1} packets/s passed ({passed_bytes_per_second:.0} bytes/s), \
                     {dropped_per_second:.1} dropped."
                ));
            }
        }
    }
    lines.push(if top.sources.is_empty() {
        "No rule has dealt with anybody.".to_owned()
    } else {
        "Worst sources:".to_owned()
    });
    lines.extend(top.sources.iter().map(|source| {
        let Worst { subject, outcome, rule, at, times } = source;
        let often = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
        format!("  {subject}: {outcome} by {rule} at {at}; dealt with {often}.")
    }));
    let shown = top.dropping.iter().take(ROWS);
    lines.push(if top.dropping.is_empty() { "Nothing was dropped." } else { "Dropped:" }.to_owned());
    lines.extend(shown.map(|row| {
        let Drop { service, reason, packets_per_second, packets } = row;
        format!("  {service}, {reason}: {packets_per_second:.1} packets/s, {packets} since the start.")
    }));
    lines.push(String::new());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(passed: u64, dropped: u64) -> Status {
        serde_json::from_value(json!({
            "schema": "floodwall.status/1", "version": "0", "mode": "native", "why": [], "interfaces": [],
            "evaluating": false, "learning_seconds": 0, "running_seconds": 1, "unconfirmed_seconds": null,
            "services": [{"name": "teamtalk", "tcp_ports": [1], "udp_ports": [1], "level": "attack", "classes": [
                {"class": "tcp", "level": "attack", "strangers": 90, "usual": 2, "alarmed_from": 30, "hours_learnt": 168},
            ]}],
            "present": 3, "known": 9, "bans": 1, "allowed": [],
            "traffic": [{"service": "teamtalk", "class": "tcp.syn", "passed": passed, "passed_bytes": passed * 60,
                "dropped": dropped, "dropped_bytes": dropped * 60}],
            "worst": [{"subject": "192.0.2.7/32", "outcome": "banned", "rule": "teamtalk/login-storm", "at": "T", "times": 2}],
            "dropping": [{"service": "teamtalk", "reason": "limit.source", "packets_per_second": 0, "packets": dropped,
                "bytes": 0}],
            "full_links": [], "rules": [], "losses": [], "ledger_failing": false, "repaired": [], "logs": [],
        }))
        .unwrap()
    }

    #[test]
    fn rates_are_what_totals_grew_by_and_text_is_linear() {
        let (before, after) = (status(100, 0), status(140, 1_000));
        let top = Top::between(&before, &after, Duration::from_secs(4));
        let rate = &top.services[0].traffic[0];
        assert_eq!(
            (rate.passed_per_second, rate.passed_bytes_per_second, rate.dropped_per_second),
            (10.0, 600.0, 250.0)
        );
        let text = text(&top);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].ends_with(": teamtalk is at level attack; the wall is in force, mode native."),
            "{text}"
        );
        assert_eq!(
            lines[1..],
            [
                "3 present, 9 known, 1 banned.",
                "Service teamtalk: level attack.",
                "  tcp: level attack, 90 strangers within 10 s, 2 are usual at this hour of the week, alarmed from 30.",
                "  tcp.syn: 10.0 packets/s passed (600 bytes/s), 250.0 dropped.",
                "Worst sources:",
                "  192.0.2.7/32: banned by teamtalk/login-storm at T; dealt with 2 times.",
                "Dropped:",
                "  teamtalk, limit.source: 250.0 packets/s, 1000 since the start.",
                "",
            ]
        );
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
    }

    #[test]
    fn a_wall_that_was_started_anew_has_no_negative_rates() {
        let (before, after) = (status(100, 50), status(7, 5));
        let top = Top::between(&before, &after, Duration::from_secs(1));
        assert_eq!(top.services[0].traffic[0].passed_per_second, 0.0);
        assert_eq!(top.dropping[0].packets_per_second, 0.0);
    }
}
