//! Figures for Prometheus, on loopback unless told otherwise. Labels come from closed sets: never an address or a name.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get};
use floodwall_kernel::{KernelTables, tables::Fill};
use floodwall_wire::tables::Fault;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, sync::mpsc};

use super::{
    control::{Asked, Request, ask},
    logs::LogFigures,
};

/// What the wall tells the metrics page.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) services: Vec<String>,
    pub(crate) mode: String,
    pub(crate) evaluating: bool,
    /// By service: 0 normal, 1 elevated, 2 attack.
    pub(crate) levels: Vec<u8>,
    /// Service and class of traffic, level, strangers, so many raise the level.
    pub(crate) classes: Vec<(String, String, u8, u16, u16)>,
    pub(crate) signals: BTreeMap<String, u64>,
    /// Rule, fired, shadowed.
    pub(crate) rules: Vec<(String, u64, u64)>,
    pub(crate) bans: u64,
    pub(crate) bans_made: u64,
    pub(crate) bans_lifted: u64,
    pub(crate) bans_expired: u64,
    pub(crate) bans_refused: u64,
    pub(crate) not_enforced: u64,
    pub(crate) repairs: u64,
    pub(crate) packets: u64,
    pub(crate) samples: u64,
    pub(crate) known: u64,
    pub(crate) prefixes: u64,
    pub(crate) present: u64,
    pub(crate) connections: u64,
    pub(crate) losses: BTreeMap<String, u64>,
    /// Sent, failed, left out.
    pub(crate) notifications: [u64; 3],
    pub(crate) ledger_failing: bool,
    pub(crate) ledger_written: u64,
    pub(crate) destroyed: u64,
    pub(crate) reset: u64,
    pub(crate) learning_seconds: u64,
    /// By place in the configuration.
    pub(crate) logs: Vec<LogFigures>,
}

/// Where the page gets its figures.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) wall: mpsc::Sender<Asked>,
    /// Absent without a gate in the kernel.
    pub(crate) tables: Option<Arc<KernelTables>>,
    pub(crate) enforcing: Histogram,
}

/// Seconds from a packet that crosses a limit to the entry in the table.
///
/// # Errors
/// Never, for these buckets; the library does not know.
pub(crate) fn enforcing_histogram() -> Result<Histogram> {
    let buckets = vec![0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0];
    let help = "From the packet that crosses a rule's limit to the entry in the gate's table.";
    Ok(Histogram::with_opts(HistogramOpts::new("floodwall_enforcing_seconds", help).buckets(buckets))?)
}

/// Listens.
///
/// # Errors
/// When the address cannot be had.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot serve metrics at {address}"))
}

/// Serves `/metrics`, `/live` and `/ready` until the wall is gone.
///
/// # Errors
/// When the socket fails.
pub(crate) async fn serve(listener: TcpListener, page: Page) -> Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/live", get(|| async { "alive\n" }))
        .route("/ready", get(ready))
        .with_state(page);
    Ok(axum::serve(listener, router).await?)
}

async fn ready(State(page): State<Page>) -> (StatusCode, &'static str) {
    match snapshot(&page).await {
        Some(_) => (StatusCode::OK, "ready\n"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the wall does not answer\n"),
    }
}

async fn metrics(State(page): State<Page>) -> impl IntoResponse {
    let Some(snapshot) = snapshot(&page).await else {
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::CONTENT_TYPE, "text/plain")], Vec::new());
    };
    match render(&page, &snapshot) {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "The metrics cannot be written");
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], Vec::new())
        }
    }
}

async fn snapshot(page: &Page) -> Option<Snapshot> {
    let value = ask(&page.wall, Request::Snapshot, None).await.ok()?;
    serde_json::from_value(value).ok()
}

/// One page: a registry of its own, filled with totals and thrown away.
struct Sheet {
    registry: Registry,
}

impl Sheet {
    fn counters(&self, name: &str, help: &str, labels: &[&str], rows: &[(Vec<&str>, u64)]) -> Result<()> {
        let family = IntCounterVec::new(Opts::new(name, help), labels)?;
        for (values, count) in rows {
            family.with_label_values(values).inc_by(*count);
        }
        Ok(self.registry.register(Box::new(family))?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str], rows: &[(Vec<&str>, u64)]) -> Result<()> {
        let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
        for (values, value) in rows {
            family.with_label_values(values).set(i64::try_from(*value).unwrap_or(i64::MAX));
        }
        Ok(self.registry.register(Box::new(family))?)
    }
}

fn render(page: &Page, snapshot: &Snapshot) -> Result<Vec<u8>> {
    let sheet = Sheet { registry: Registry::new() };
    sheet.registry.register(Box::new(page.enforcing.clone()))?;
    write_wall(&sheet, snapshot)?;
    write_logs(&sheet, snapshot)?;
    if let Some(tables) = &page.tables {
        write_gate(&sheet, snapshot, tables)?;
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&sheet.registry.gather(), &mut text)?;
    Ok(text)
}

fn write_wall(sheet: &Sheet, snapshot: &Snapshot) -> Result<()> {
    let s = snapshot;
    let one = |value: u64| vec![(Vec::new(), value)];
    sheet.gauges(
        "floodwall_build_info",
        "Always 1.",
        &["version"],
        &[(vec![env!("CARGO_PKG_VERSION")], 1)],
    )?;
    let modes = ["native", "generic", "nftables", "pcap"].map(|mode| (vec![mode], u64::from(mode == s.mode)));
    sheet.gauges("floodwall_mode_info", "1 for the mode in force.", &["mode"], &modes)?;
    sheet.gauges(
        "floodwall_evaluating",
        "1 while nothing is put into force.",
        &[],
        &one(u64::from(s.evaluating)),
    )?;
    let help = "Seconds until strangers' media is dropped; 0 when learning is over.";
    sheet.gauges("floodwall_learning_seconds", help, &[], &one(s.learning_seconds))?;
    let levels: Vec<_> = s
        .services
        .iter()
        .zip(&s.levels)
        .map(|(service, level)| (vec![service.as_str()], u64::from(*level)))
        .collect();
    sheet.gauges("floodwall_level", "0 normal, 1 elevated, 2 attack.", &["service"], &levels)?;
    let classes = |value: fn(&(String, String, u8, u16, u16)) -> u64| -> Vec<_> {
        s.classes.iter().map(|row| (vec![row.0.as_str(), row.1.as_str()], value(row))).collect()
    };
    let labels = &["service", "class"];
    let help = "The same by class of traffic.";
    sheet.gauges("floodwall_class_level", help, labels, &classes(|row| row.2.into()))?;
    let help = "Different strangers within the last ten seconds.";
    sheet.gauges("floodwall_strangers", help, labels, &classes(|row| row.3.into()))?;
    let help = "So many strangers within ten seconds raise the level.";
    sheet.gauges("floodwall_strangers_alarm", help, labels, &classes(|row| row.4.into()))?;
    let signals: Vec<_> = s.signals.iter().map(|(kind, count)| (vec![kind.as_str()], *count)).collect();
    sheet.counters("floodwall_signals_total", "Signals, by kind.", &["signal"], &signals)?;
    let fired: Vec<_> = s.rules.iter().map(|(rule, fired, _)| (vec![rule.as_str()], *fired)).collect();
    sheet.counters("floodwall_rules_fired_total", "Rules that fired with effect.", &["rule"], &fired)?;
    let shadowed: Vec<_> =
        s.rules.iter().map(|(rule, _, shadowed)| (vec![rule.as_str()], *shadowed)).collect();
    sheet.counters("floodwall_rules_shadowed_total", "Rules that would have.", &["rule"], &shadowed)?;
    sheet.gauges("floodwall_bans", "Bans that stand.", &[], &one(s.bans))?;
    let events = [
        (vec!["made"], s.bans_made),
        (vec!["lifted"], s.bans_lifted),
        (vec!["expired"], s.bans_expired),
        (vec!["refused"], s.bans_refused),
    ];
    let help =
        "What became of bans; expired counts every entry that ran out, refused those a brake held back.";
    sheet.counters("floodwall_ban_events_total", help, &["event"], &events)?;
    let help = "Decisions that the gate's tables refused.";
    sheet.counters("floodwall_decisions_refused_total", help, &[], &one(s.not_enforced))?;
    sheet.counters("floodwall_repairs_total", "Table entries put right.", &[], &one(s.repairs))?;
    sheet.counters(
        "floodwall_mirrored_packets_total",
        "Packets the engine was shown.",
        &[],
        &one(s.packets),
    )?;
    sheet.counters("floodwall_drop_samples_total", "Dropped packets it was shown.", &[], &one(s.samples))?;
    sheet.gauges("floodwall_present", "People logged in.", &[], &one(s.present))?;
    sheet.gauges("floodwall_connections", "Connections followed.", &[], &one(s.connections))?;
    let cut = [(vec!["destroyed"], s.destroyed), (vec!["reset"], s.reset)];
    sheet.counters("floodwall_connections_cut_total", "Connections cut.", &["how"], &cut)?;
    let help = "What bounds have cost; whatever is not 0 weakens what is known.";
    let losses: Vec<_> = s.losses.iter().map(|(what, count)| (vec![what.as_str()], *count)).collect();
    sheet.counters("floodwall_losses_total", help, &["what"], &losses)?;
    let [sent, failed, left_out] = s.notifications;
    let notifications = [(vec!["sent"], sent), (vec!["failed"], failed), (vec!["left-out"], left_out)];
    let help = "What became of notifications; left-out came faster than they could be sent.";
    sheet.counters("floodwall_notifications_total", help, &["outcome"], &notifications)?;
    let help = "1 while the ledger cannot be written.";
    sheet.gauges("floodwall_ledger_failing", help, &[], &one(u64::from(s.ledger_failing)))?;
    sheet.counters("floodwall_ledger_entries_total", "Entries written.", &[], &one(s.ledger_written))
}

/// Followed logs, by their place in the configuration.
fn write_logs(sheet: &Sheet, snapshot: &Snapshot) -> Result<()> {
    if snapshot.logs.is_empty() {
        return Ok(());
    }
    let numbers: Vec<String> = (0..snapshot.logs.len()).map(|number| number.to_string()).collect();
    let rows = |value: fn(&LogFigures) -> u64| -> Vec<_> {
        numbers.iter().zip(&snapshot.logs).map(|(number, log)| (vec![number.as_str()], value(log))).collect()
    };
    let labels = &["log"];
    sheet.counters("floodwall_log_lines_total", "Lines read.", labels, &rows(|log| log.lines))?;
    let help = "Lines that are not the server's.";
    sheet.counters("floodwall_log_unparsed_lines_total", help, labels, &rows(|log| log.unparsed))?;
    let help = "Lines read to know who is there and not judged, because they are old.";
    sheet.counters("floodwall_log_old_lines_total", help, labels, &rows(|log| log.old))?;
    let help = "Signals that the wire had told already.";
    sheet.counters("floodwall_log_joined_signals_total", help, labels, &rows(|log| log.joined))?;
    let help = "Signals that only the log has told.";
    sheet.counters("floodwall_log_judged_signals_total", help, labels, &rows(|log| log.judged))?;
    let help = "From lines being there to being judged, of the last ones.";
    sheet.gauges("floodwall_log_lag_milliseconds", help, labels, &rows(|log| log.lag_millis))?;
    let help = "Bytes that are there and not read yet.";
    sheet.gauges("floodwall_log_behind_bytes", help, labels, &rows(|log| log.behind_bytes))?;
    let help =
        "Bytes passed over because there were too many: what the log says is a sample where this grows.";
    sheet.counters(
        "floodwall_log_passed_over_bytes_total",
        help,
        labels,
        &rows(|log| log.passed_over_bytes),
    )?;
    let help = "1 while the log cannot be read.";
    sheet.gauges("floodwall_log_failing", help, labels, &rows(|log| u64::from(log.is_failing)))
}

fn write_gate(sheet: &Sheet, snapshot: &Snapshot, tables: &KernelTables) -> Result<()> {
    let (mut packets, mut bytes, mut departed_packets, mut departed_bytes) = (vec![], vec![], vec![], vec![]);
    for (index, name) in snapshot.services.iter().enumerate() {
        let service = u8::try_from(index).unwrap_or(u8::MAX);
        for (class, reason, counter) in tables.arrived(service)? {
            let outcome = match reason.verdict() {
                floodwall_wire::Verdict::Pass => "pass",
                floodwall_wire::Verdict::Drop => "drop",
            };
            let labels = vec![name.as_str(), class.as_str(), outcome, reason.as_str()];
            packets.push((labels.clone(), counter.packets));
            bytes.push((labels, counter.bytes));
        }
        for (class, counter) in tables.departed(service)? {
            departed_packets.push((vec![name.as_str(), class.as_str()], counter.packets));
            departed_bytes.push((vec![name.as_str(), class.as_str()], counter.bytes));
        }
    }
    let labels = ["service", "class", "outcome", "reason"];
    sheet.counters("floodwall_packets_total", "Packets to guarded services.", &labels, &packets)?;
    sheet.counters("floodwall_bytes_total", "Bytes to guarded services.", &labels, &bytes)?;
    let labels = ["service", "class"];
    sheet.counters("floodwall_departed_packets_total", "Packets from them.", &labels, &departed_packets)?;
    sheet.counters("floodwall_departed_bytes_total", "Bytes from them.", &labels, &departed_bytes)?;
    let faults: Vec<_> = Fault::ALL
        .into_iter()
        .zip(tables.faults()?)
        .map(|(fault, count)| (vec![fault.as_str()], count))
        .collect();
    let help = "What went wrong in the gate without touching a packet; mirror.* are packets the engine was not shown.";
    sheet.counters("floodwall_faults_total", help, &["fault"], &faults)?;
    let fills = tables.fills(snapshot.prefixes)?;
    let rows = |value: fn(&Fill) -> u64| {
        fills.iter().map(|fill| (vec![&*fill.table], value(fill))).collect::<Vec<_>>()
    };
    let label = &["table"];
    let help = "Entries of a table of the gate.";
    sheet.gauges("floodwall_table_entries", help, label, &rows(|fill| fill.entries))?;
    let help = "Capacity of a table of the gate. proofs and opaque let the longest unused go beyond it, all others refuse.";
    sheet.gauges("floodwall_table_capacity", help, label, &rows(|fill| fill.capacity.into()))?;
    let help = "New entries for which a table of the gate had no room.";
    sheet.counters("floodwall_table_refused_total", help, label, &rows(|fill| fill.refused))?;
    let help = "Entries of a table of the gate that made room for others.";
    sheet.counters("floodwall_table_evicted_total", help, label, &rows(|fill| fill.evicted))?;
    sheet.gauges("floodwall_known", "Addresses that are known.", &[], &[(Vec::new(), snapshot.known)])
}
