//! Several cores on one log: lines are glanced at on all of them, and judged in the log's order.
//!
//! Every worker takes the next block, glances at its lines, waits for its block's turn and hands it to the one who judges.
//! So there are never more blocks in memory than workers, and what comes out does not depend on how many there are.

use std::sync::{
    Condvar, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Result;
use floodwall_engine::protocol::log::{Format, Glance, Scanner};

use super::lines::{Block, LINE_BYTES_MAX, Lines};

/// One line of a block.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// Without its end.
    pub(super) bytes: &'a [u8],
    /// What it says, where that was seen at a glance.
    pub(super) glance: Option<Glance<'a>>,
}

/// Who takes lines in their order.
pub(super) trait Judge: Send {
    /// Takes the lines of the next block.
    ///
    /// # Errors
    /// When nothing that follows can be read.
    fn judge(&mut self, lines: &[Line<'_>], overlong: u64) -> Result<()>;
}

/// Reads a log to its end, until somebody says stop, or until the judge or the input fails; the judge has been given
/// everything before that. `first` is its first block, read already.
///
/// # Errors
/// Those of the judge and of the input.
pub(super) fn read(
    lines: Lines,
    first: Block,
    format: Format,
    workers: usize,
    stop: &AtomicBool,
    judge: &mut impl Judge,
) -> Result<()> {
    let input = Mutex::new(Input { lines, first: Some(first), taken: 0 });
    let turn = Mutex::new(Turn { next: 0, failure: None, judge });
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 1..workers.max(1) {
            scope.spawn(|| work(&input, &turn, &changed, format, stop));
        }
        work(&input, &turn, &changed, format, stop);
    });
    let turn = turn.into_inner().unwrap_or_else(PoisonError::into_inner);
    turn.failure.map_or(Ok(()), Err)
}

/// What is read, and how many blocks of it were taken.
struct Input {
    lines: Lines,
    first: Option<Block>,
    taken: u64,
}

/// Whose turn it is.
struct Turn<'a, J> {
    /// Number of the block that comes next.
    next: u64,
    /// Why nothing comes any more.
    failure: Option<anyhow::Error>,
    judge: &'a mut J,
}

fn work<J: Judge>(
    input: &Mutex<Input>,
    turn: &Mutex<Turn<'_, J>>,
    changed: &Condvar,
    format: Format,
    stop: &AtomicBool,
) {
    let mut scanner = Scanner::new(format);
    let mut block = Block::default();
    let mut room = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (number, read) = {
            let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
            let read = match input.first.take() {
                Some(first) => {
                    block = first;
                    Ok(true)
                }
                None => input.lines.next(&mut block),
            };
            let number = input.taken;
            input.taken += 1;
            (number, read)
        };
        let (has_more, failure) = match read {
            Ok(has_more) => (has_more, None),
            Err(error) => (false, Some(error)),
        };
        let mut overlong = block.overlong;
        let mut lines = emptied(room);
        if has_more {
            glance(&mut scanner, block.bytes(), &mut overlong, &mut lines);
        }
        let _wake = Wake(changed);
        // Whoever panicked while it was their turn has ended the whole.
        let Ok(turn) = turn.lock() else { return };
        let Ok(mut turn) = changed.wait_while(turn, |turn| turn.next != number) else { return };
        if turn.failure.is_none() {
            turn.failure = failure;
        }
        if has_more && turn.failure.is_none() {
            turn.failure = turn.judge.judge(&lines, overlong).err();
        }
        turn.next += 1;
        if !has_more || turn.failure.is_some() {
            return;
        }
        room = emptied(lines);
    }
}

/// Wakes those who wait for their turn, whatever happened during this one.
struct Wake<'a>(&'a Condvar);

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        self.0.notify_all();
    }
}

/// The same list with nothing in it, for lines of another block: one made anew for each block would cost more than what is
/// put into it (a list of nothing is collected into the room of the one it came from).
fn emptied<'a>(mut lines: Vec<Line<'_>>) -> Vec<Line<'a>> {
    lines.clear();
    lines.into_iter().filter_map(|_| None).collect()
}

/// Takes a block apart and looks at each line.
fn glance<'a>(scanner: &mut Scanner, bytes: &'a [u8], overlong: &mut u64, lines: &mut Vec<Line<'a>>) {
    let mut start = 0;
    let ends = memchr::memchr_iter(b'\n', bytes);
    let last = (bytes.last().is_some_and(|byte| *byte != b'\n')).then_some(bytes.len());
    for end in ends.chain(last) {
        let line = bytes.get(start..end).unwrap_or_default();
        start = end + 1;
        if line.len() > LINE_BYTES_MAX {
            *overlong += 1;
            continue;
        }
        lines.push(Line { bytes: line, glance: scanner.glance(line) });
    }
}
