//! `--against`: what another rule set would have done differently, source by source.

use std::collections::BTreeSet;

use serde::Serialize;

use super::tally::{Outcome, Tally};

/// One source that fares differently.
#[derive(Serialize)]
pub(super) struct Difference {
    address: String,
    packets: u64,
    outcome: &'static str,
    against_outcome: &'static str,
    dropped: u64,
    against_dropped: u64,
}

/// Every source whose outcome or drops differ, in order of address.
pub(super) fn differences(tally: &Tally, other: &Tally) -> Vec<Difference> {
    let (own, theirs) = (tally.by_address(), other.by_address());
    let addresses: BTreeSet<_> = own.keys().chain(theirs.keys()).copied().collect();
    let mut found = Vec::new();
    for address in addresses {
        let (own, theirs) = (own.get(&address), theirs.get(&address));
        let outcome = own.map_or(Outcome::Clean, |source| source.outcome);
        let against = theirs.map_or(Outcome::Clean, |source| source.outcome);
        let dropped = own.map_or(0, |source| source.dropped);
        let against_dropped = theirs.map_or(0, |source| source.dropped);
        if outcome != against || dropped != against_dropped {
            found.push(Difference {
                address: address.to_string(),
                packets: own.or(theirs).map_or(0, |source| source.volume.packets),
                outcome: outcome.as_str(),
                against_outcome: against.as_str(),
                dropped,
                against_dropped,
            });
        }
    }
    found
}

/// The same in sentences.
pub(super) fn text(tally: &Tally, other: &Tally) -> String {
    let found = differences(tally, other);
    if found.is_empty() {
        return "\nThe rules compared against would have done the same to every source.\n".to_owned();
    }
    let mut text = format!("\nThe rules compared against differ for {} sources:\n", found.len());
    for row in found {
        let change = match row.dropped.cmp(&row.against_dropped) {
            std::cmp::Ordering::Greater => {
                format!("newly dropped: {} packets", row.dropped - row.against_dropped)
            }
            std::cmp::Ordering::Less => {
                format!("newly let through: {} packets", row.against_dropped - row.dropped)
            }
            std::cmp::Ordering::Equal => "the same packets dropped".to_owned(),
        };
        text.push_str(&format!(
            "{}: {} here, {} there; {change} of {}.\n",
            row.address, row.outcome, row.against_outcome, row.packets
        ));
    }
    text
}
