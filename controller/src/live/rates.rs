//! How fast packets are being dropped and lost, from two looks at counters.

use std::collections::BTreeMap;

use anyhow::Result;
use floodwall_kernel::KernelTables;
use floodwall_wire::{Reason, Verdict};

use super::answers::{Dropping, FullLink};

/// Ticks between two looks.
pub(super) const SAMPLE_TICKS: u64 = 5;

/// Packets and bytes dropped, by service and reason.
pub(crate) type Totals = BTreeMap<(u8, Reason), (u64, u64)>;

/// What the gate in the kernel has dropped.
pub(super) fn dropped_by_gate(tables: &KernelTables, services: usize) -> Result<Totals> {
    let mut totals = Totals::new();
    for service in (0..).take(services) {
        for (_, reason, counter) in tables.arrived(service)? {
            if reason.verdict() == Verdict::Drop {
                let total = totals.entry((service, reason)).or_default();
                total.0 += counter.packets;
                total.1 += counter.bytes;
            }
        }
    }
    Ok(totals)
}

/// What changed between the last two looks at the gate's counters.
#[derive(Debug, Default)]
pub(super) struct Rates {
    totals: Totals,
    deltas: BTreeMap<(u8, Reason), u64>,
    lost: BTreeMap<String, u64>,
    lost_deltas: BTreeMap<String, u64>,
}

impl Rates {
    /// Takes a look: everything dropped so far, by service and reason.
    pub(super) fn sample(&mut self, totals: Totals, interfaces: &[String]) {
        self.deltas = totals
            .iter()
            .map(|(key, total)| {
                (*key, total.0 - self.totals.get(key).map_or(total.0, |before| before.0.min(total.0)))
            })
            .collect();
        self.totals = totals;
        let lost = lost_by_links(interfaces);
        self.lost_deltas = lost
            .iter()
            .map(|(name, count)| {
                (name.clone(), count - self.lost.get(name).copied().unwrap_or(*count).min(*count))
            })
            .collect();
        self.lost = lost;
    }

    /// Packets dropped per second, by service and reason.
    pub(super) fn rows(&self) -> impl Iterator<Item = (u8, Reason, u64)> {
        self.deltas.iter().map(|((service, reason), delta)| (*service, *reason, delta / SAMPLE_TICKS))
    }

    pub(super) fn dropping(&self, name: &dyn Fn(u8) -> &'static str) -> Vec<Dropping> {
        let mut rows: Vec<Dropping> = self
            .totals
            .iter()
            .map(|((service, reason), (packets, bytes))| Dropping {
                service: name(*service).to_owned(),
                reason: reason.as_str().to_owned(),
                packets_per_second: self
                    .deltas
                    .get(&(*service, *reason))
                    .map_or(0, |delta| delta / SAMPLE_TICKS),
                packets: *packets,
                bytes: *bytes,
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.packets_per_second, row.packets)));
        rows
    }

    pub(super) fn full_links(&self) -> Vec<FullLink> {
        let losing = self.lost_deltas.iter().filter(|(_, lost)| **lost >= SAMPLE_TICKS);
        losing
            .map(|(name, lost)| FullLink { interface: name.clone(), lost_per_second: lost / SAMPLE_TICKS })
            .collect()
    }
}

/// Packets an interface lost for lack of room before anybody saw them: the column `fifo` of `/proc/net/dev`.
fn lost_by_links(interfaces: &[String]) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let row = |line: &str| {
        let (name, figures) = line.split_once(':')?;
        let fifo = figures.split_whitespace().nth(4)?.parse().ok()?;
        Some((name.trim().to_owned(), fifo))
    };
    text.lines().filter_map(row).filter(|(name, _)| interfaces.contains(name)).collect()
}
