//! Several cores on one log: lines are glanced at on all of them, and judged in the log's order by one.
//!
//! Whoever is free takes the next block and glances at its lines. The thread that judges does so too while the block that
//! comes next is not ready, but nobody else ever judges: its tables stay in its own core's cache. No more than a few
//! blocks are in memory, and what comes out does not depend on how many threads there are.

use std::{
    collections::BTreeMap,
    hash::BuildHasher,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Result, bail};
use floodwall_engine::protocol::log::{Format, Glance, QuotedAccount, Scanner};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::lines::{Block, LINE_BYTES_MAX, Lines};

/// Blocks in memory, for each thread.
const BLOCKS_PER_THREAD: usize = 4;
/// Lines that wait to be judged; short ones take more room for what was seen in them than for themselves.
const LINES_WAITING_MAX: usize = 500_000;

/// One line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// Without its end.
    pub(super) bytes: &'a [u8],
    /// What it says, where that was seen at a glance.
    pub(super) glance: Option<&'a Glance>,
    /// Which of the block's accounts a login failed for, if that was seen.
    pub(super) account: Option<usize>,
}

/// Who takes lines in their order.
pub(super) trait Judge {
    /// Takes the lines that come next.
    ///
    /// # Errors
    /// When nothing that follows can be read.
    fn judge(&mut self, glanced: &Glanced) -> Result<()>;
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
    threads: usize,
    stop: &AtomicBool,
    judge: &mut impl Judge,
) -> Result<()> {
    let threads = threads.max(1);
    let desk = Desk {
        input: Mutex::new(Input { lines, first: Some(first), taken: 0, is_over: false }),
        ready: Mutex::new(Ready::default()),
        changed: Condvar::new(),
        is_over: AtomicBool::new(false),
        ahead: BLOCKS_PER_THREAD * threads,
        stop,
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| desk.glance(format));
        }
        // Whatever becomes of the judge, nobody waits for it afterwards.
        let _over = Over(&desk);
        desk.judge(format, judge)
    })
}

/// A block and what was seen in it.
#[derive(Default)]
pub(super) struct Glanced {
    pub(super) block: Block,
    lines: Vec<Seen>,
    accounts: Accounts,
    /// Lines passed over as too long before or between its own.
    pub(super) overlong: u64,
}

/// A line of a block by its place there.
struct Seen {
    start: u32,
    length: u32,
    account: u32,
    glance: Option<Glance>,
}

/// No account.
const NONE: u32 = u32::MAX;

/// Different accounts that logins failed for: few are tried again and again. Whoever glances has them at hand, so they are told
/// apart there.
#[derive(Default)]
struct Accounts {
    hasher: RandomState,
    numbers: HashTable<u32>,
    /// A line that names each.
    named: Vec<u32>,
    /// Short ones, one at each place: nearly all are found there.
    short: Vec<(ShortText, u32)>,
}

/// A text of four to eight bytes: the first four and the last four, and how many.
type ShortText = (u64, usize);

/// Places for short accounts: a power of two.
const SHORT_PLACES: usize = 1 << 6;

fn short(text: &[u8]) -> Option<ShortText> {
    let (first, last) = (text.first_chunk::<4>()?, text.last_chunk::<4>()?);
    let word = u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
    (text.len() <= 8).then_some((word, text.len()))
}

impl Seen {
    fn bytes<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        let start = self.start as usize;
        block.get(start..start + self.length as usize).unwrap_or_default()
    }

    fn account<'a>(&self, block: &'a [u8]) -> Option<QuotedAccount<'a>> {
        self.glance.as_ref()?.account(self.bytes(block))
    }
}

impl Accounts {
    fn clear(&mut self) {
        self.numbers.clear();
        self.named.clear();
        self.short.clear();
        self.short.resize(SHORT_PLACES, ((0, 0), NONE));
    }

    /// The number of the account that a line names, if it does; `before` are those before it.
    fn number(&mut self, seen: &Seen, before: &[Seen], block: &[u8]) -> u32 {
        let Some(account) = seen.account(block) else { return NONE };
        let Some(short) = short(account.as_it_stands()) else { return self.search(account, before, block) };
        // The highest bits of a product depend on all of its factors'.
        let place = (short.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % SHORT_PLACES;
        if let Some((known, number)) = self.short.get(place)
            && *known == short
        {
            return *number;
        }
        let number = self.search(account, before, block);
        if let Some(held) = self.short.get_mut(place) {
            *held = (short, number);
        }
        number
    }

    fn search(&mut self, account: QuotedAccount<'_>, before: &[Seen], block: &[u8]) -> u32 {
        let Self { hasher, numbers, named, .. } = self;
        let of = |number: u32| before.get(*named.get(number as usize)? as usize)?.account(block);
        let hash = hasher.hash_one(account);
        if let Some(number) = numbers.find(hash, |number| of(*number) == Some(account)) {
            return *number;
        }
        // Blocks have far fewer lines than 32 bits can count.
        let number = named.len() as u32;
        let rehash = |number: &u32| of(*number).map_or(0, |account| hasher.hash_one(account));
        numbers.insert_unique(hash, number, rehash);
        named.push(before.len() as u32);
        number
    }
}

impl Glanced {
    /// Its lines, in their order.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let block = self.block.bytes();
        self.lines.iter().map(move |seen| Line {
            bytes: seen.bytes(block),
            glance: seen.glance.as_ref(),
            account: (seen.account != NONE).then_some(seen.account as usize),
        })
    }

    /// How many accounts lines name for which logins failed.
    pub(super) const fn accounts(&self) -> usize {
        self.accounts.named.len()
    }

    /// One of them by its number.
    pub(super) fn account(&self, number: usize) -> Option<QuotedAccount<'_>> {
        let line = *self.accounts.named.get(number)?;
        self.lines.get(line as usize)?.account(self.block.bytes())
    }

    /// Takes the block apart. `look` is shown what is left of it, and answers what its first line says and how long it is, where
    /// it can tell.
    pub(super) fn glance(&mut self, mut look: impl FnMut(&[u8]) -> Option<(Glance, usize)>) {
        self.lines.clear();
        self.accounts.clear();
        self.overlong = self.block.overlong;
        let bytes = self.block.bytes();
        let mut start = 0;
        while let Some(rest) = bytes.get(start..).filter(|rest| !rest.is_empty()) {
            let (glance, length) = match look(rest) {
                Some((glance, length)) => (Some(glance), length),
                None => (None, memchr::memchr(b'\n', rest).unwrap_or(rest.len())),
            };
            if length > LINE_BYTES_MAX {
                self.overlong += 1;
            } else {
                // Blocks are far smaller than 32 bits can count.
                let (start, length) = (start as u32, length as u32);
                let mut seen = Seen { start, length, account: NONE, glance };
                seen.account = self.accounts.number(&seen, &self.lines, bytes);
                self.lines.push(seen);
            }
            start += length + 1;
        }
    }
}

/// What comes at a place in the log's order.
enum Item {
    Lines(Glanced),
    /// The input ends here, or cannot be read from here on.
    End(Option<anyhow::Error>),
}

/// What is read, and how many blocks of it were taken.
struct Input {
    lines: Lines,
    first: Option<Block>,
    taken: u64,
    is_over: bool,
}

/// What was glanced at and not judged yet.
#[derive(Default)]
struct Ready {
    /// Number of the block that is judged next.
    next: u64,
    items: BTreeMap<u64, Item>,
    /// In those.
    lines: usize,
    /// Used again: room made anew for each block would cost more than what is put into it.
    spare: Vec<Glanced>,
    /// Threads that have a block now.
    glancing: usize,
}

/// Where blocks change hands.
struct Desk<'a> {
    input: Mutex<Input>,
    ready: Mutex<Ready>,
    changed: Condvar,
    /// Nobody judges any more.
    is_over: AtomicBool,
    /// Blocks that may be taken before the one that is judged next.
    ahead: usize,
    stop: &'a AtomicBool,
}

impl Desk<'_> {
    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The judge's thread.
    fn judge(&self, format: Format, judge: &mut impl Judge) -> Result<()> {
        let mut scanner = Scanner::new(format);
        loop {
            let mut ready = self.ready();
            let next = ready.next;
            let Some(item) = ready.items.remove(&next) else {
                let is_stopped = self.stop.load(Ordering::Relaxed);
                if is_stopped && ready.glancing == 0 {
                    return Ok(());
                }
                if is_stopped {
                    // What somebody has read already is reported too.
                    drop(ready);
                    self.await_next()?;
                } else if !self.take(ready, &mut scanner) {
                    self.await_next()?;
                }
                continue;
            };
            if let Item::Lines(glanced) = &item {
                ready.lines -= glanced.lines.len();
            }
            drop(ready);
            let glanced = match item {
                Item::Lines(glanced) => glanced,
                Item::End(None) => return Ok(()),
                Item::End(Some(error)) => return Err(error),
            };
            judge.judge(&glanced)?;
            let mut ready = self.ready();
            ready.next += 1;
            ready.spare.push(glanced);
            drop(ready);
            self.changed.notify_all();
        }
    }

    /// Until the block that comes next is there.
    fn await_next(&self) -> Result<()> {
        let ready = self.ready();
        let waiting = |ready: &mut Ready| ready.glancing > 0 && !ready.items.contains_key(&ready.next);
        let ready = self.changed.wait_while(ready, waiting).unwrap_or_else(PoisonError::into_inner);
        // Where somebody says stop nothing more comes.
        if !ready.items.contains_key(&ready.next) && !self.stop.load(Ordering::Relaxed) {
            bail!("a thread that read the log has failed");
        }
        Ok(())
    }

    /// A thread that only glances.
    fn glance(&self, format: Format) {
        let mut scanner = Scanner::new(format);
        while !self.stop.load(Ordering::Relaxed) && !self.is_over.load(Ordering::Relaxed) {
            if self.take(self.ready(), &mut scanner) {
                continue;
            }
            let ready = self.ready();
            let is_over = self.input.lock().unwrap_or_else(PoisonError::into_inner).is_over;
            if is_over {
                return;
            }
            let is_full = |ready: &mut Ready| !self.is_over.load(Ordering::Relaxed) && self.is_full(ready);
            drop(self.changed.wait_while(ready, is_full));
        }
    }

    fn is_full(&self, ready: &Ready) -> bool {
        ready.items.len() >= self.ahead || ready.lines >= LINES_WAITING_MAX
    }

    /// Takes the next block and glances at it; `false` when there is none, or enough are waiting.
    fn take(&self, mut ready: MutexGuard<'_, Ready>, scanner: &mut Scanner) -> bool {
        if self.is_full(&ready) {
            return false;
        }
        let mut glanced = ready.spare.pop().unwrap_or_default();
        ready.glancing += 1;
        drop(ready);
        let leaving = Leaving(self);
        let Some((number, read)) =
            self.input.lock().unwrap_or_else(PoisonError::into_inner).next(&mut glanced)
        else {
            return false;
        };
        let item = match read {
            Ok(true) => {
                glanced.glance(|text| scanner.glance(text));
                Item::Lines(glanced)
            }
            Ok(false) => Item::End(None),
            Err(error) => Item::End(Some(error)),
        };
        let mut ready = self.ready();
        if let Item::Lines(glanced) = &item {
            ready.lines += glanced.lines.len();
        }
        ready.items.insert(number, item);
        drop(ready);
        drop(leaving);
        true
    }
}

impl Input {
    /// Reads the next block; answers its number and whether there was one, and nothing after the end.
    fn next(&mut self, glanced: &mut Glanced) -> Option<(u64, Result<bool>)> {
        if self.is_over {
            return None;
        }
        let read = match self.first.take() {
            Some(first) => {
                glanced.block = first;
                Ok(true)
            }
            None => self.lines.next(&mut glanced.block),
        };
        self.is_over = !matches!(read, Ok(true));
        let number = self.taken;
        self.taken += 1;
        Some((number, read))
    }
}

/// A thread puts its block down, whatever happened.
struct Leaving<'a, 'b>(&'a Desk<'b>);

impl Drop for Leaving<'_, '_> {
    fn drop(&mut self) {
        self.0.ready().glancing -= 1;
        self.0.changed.notify_all();
    }
}

/// Nobody judges any more, whatever happened.
struct Over<'a, 'b>(&'a Desk<'b>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        // Whoever is about to wait has the lock: what it waits for must not change in between.
        drop(self.0.ready());
        self.0.changed.notify_all();
    }
}
