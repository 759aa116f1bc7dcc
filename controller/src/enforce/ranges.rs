//! What nested prefixes say, as ranges that do not overlap.

use floodwall_engine::command::Prefix;
use floodwall_wire::Address;

/// Addresses from the first to the last.
pub(super) type Addresses = (u128, u128);

pub(super) fn number(address: Address) -> u128 {
    u128::from(address.high) << 64 | u128::from(address.low)
}

pub(super) const fn address(number: u128) -> Address {
    Address { high: (number >> 64) as u64, low: number as u64 }
}

/// Ranges that do not overlap, in order. `within` tells what holds inside of a prefix, from what holds around it and what the
/// prefix says. Prefixes come in order, each after those it lies in.
pub(super) fn ranges<T, U: Copy + PartialEq>(
    prefixes: impl Iterator<Item = (Prefix, T)>,
    within: impl Fn(Option<U>, T) -> U,
) -> Vec<(Addresses, U)> {
    let mut found: Vec<(Addresses, U)> = Vec::new();
    let mut emit = |first: u128, last: u128, said: U| {
        if first > last {
            return;
        }
        match found.last_mut() {
            Some(((_, end), before)) if *before == said && end.checked_add(1) == Some(first) => *end = last,
            _ => found.push(((first, last), said)),
        }
    };
    // Prefixes that are open, the innermost last, and what of it has not been told yet.
    let mut open: Vec<(u128, U)> = Vec::new();
    let mut next = 0;
    for (prefix, said) in prefixes {
        let first = number(prefix.address());
        let last = first | u128::MAX.checked_shr(u32::from(prefix.bits())).unwrap_or(0);
        while let Some((end, outer)) = open.pop_if(|(end, _)| *end < first) {
            emit(next, end, outer);
            next = end.saturating_add(1).max(next);
        }
        let outer = open.last().map(|(_, outer)| *outer);
        if let Some(outer) = outer
            && next < first
        {
            emit(next, first - 1, outer);
        }
        next = first;
        open.push((last, within(outer, said)));
    }
    while let Some((end, outer)) = open.pop() {
        emit(next, end, outer);
        match end.checked_add(1) {
            Some(after) => next = after.max(next),
            None => break,
        }
    }
    found
}
