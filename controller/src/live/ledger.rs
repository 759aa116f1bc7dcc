//! The ledger on disk: bans with their evidence, and who is known, in SQLite.
//!
//! A thread of its own writes, so that a slow or full disk never delays a decision. What cannot be written is kept and
//! tried again, up to [`WAITING_MAX`] entries; enforcement goes on from memory meanwhile, and says so.
//!
//! Instants are UTC in nanoseconds. A ban also has its deadline by the gate's clock and the boot it counts from: within
//! the same boot that one holds, whatever was done to the system's clock.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use floodwall_engine::{
    Span, Timestamp,
    baseline::Slot,
    command::{Front, Merit, Prefix},
    rule::RuleId,
};
use floodwall_wire::Address;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::habits;
use crate::suggest::peaks::Peak;

/// Entries on their way to the disk.
const QUEUE_MAX: usize = 16_384;
/// Entries kept while the disk refuses them.
const WAITING_MAX: usize = 200_000;
/// Entries written in one transaction.
const BATCH_MAX: usize = 1_024;
/// How long after a failure the disk is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long bans that are over are kept, for `bans --history` and `explain`.
const RETENTION: Span = Span::from_secs(90 * 24 * 3_600);

/// One step per schema version; the database says how many it has taken.
const MIGRATIONS: [&str; 4] = [
    "
    CREATE TABLE ban (
        id INTEGER PRIMARY KEY,
        address BLOB NOT NULL,
        bits INTEGER NOT NULL,
        since INTEGER NOT NULL,
        until INTEGER NOT NULL,
        gate_until INTEGER NOT NULL,
        boot TEXT NOT NULL,
        rule TEXT NOT NULL,
        why TEXT NOT NULL,
        counted TEXT NOT NULL,
        offender TEXT NOT NULL,
        count INTEGER NOT NULL,
        threshold INTEGER NOT NULL,
        within INTEGER NOT NULL,
        evidence TEXT NOT NULL,
        ended_at INTEGER,
        ended_why TEXT
    ) STRICT;
    CREATE INDEX ban_by_subject ON ban (address, bits);
    CREATE INDEX ban_by_end ON ban (ended_at, until);
    CREATE TABLE known (
        address BLOB PRIMARY KEY,
        until INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE allowed (
        address BLOB NOT NULL,
        bits INTEGER NOT NULL,
        since INTEGER NOT NULL,
        PRIMARY KEY (address, bits)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE baseline (
        service TEXT NOT NULL,
        class TEXT NOT NULL,
        hour INTEGER NOT NULL,
        weeks TEXT NOT NULL,
        usual INTEGER NOT NULL,
        week INTEGER NOT NULL,
        PRIMARY KEY (service, class, hour)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE peak (
        rule TEXT NOT NULL,
        address BLOB NOT NULL,
        count INTEGER NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (rule, address)
    ) STRICT, WITHOUT ROWID;
",
    "ALTER TABLE known ADD COLUMN merit TEXT NOT NULL DEFAULT 'login';",
];

/// One ban as it is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BanRow {
    /// Address or prefix.
    pub(crate) subject: String,
    /// UTC, ns since 1970.
    pub(crate) since: u64,
    /// UTC, ns since 1970; the largest number for ever.
    pub(crate) until: u64,
    /// By the gate's clock, ns.
    pub(crate) gate_until: u64,
    /// The boot that clock counts from.
    pub(crate) boot: String,
    pub(crate) rule: String,
    pub(crate) why: String,
    /// Whom the rule counted by.
    pub(crate) counted: String,
    /// Whose signal reached the limit.
    pub(crate) offender: String,
    pub(crate) count: u32,
    pub(crate) threshold: u32,
    /// Nanoseconds in which the rule counts.
    pub(crate) within: u64,
    pub(crate) evidence: Vec<String>,
    /// UTC, ns since 1970, if it was lifted or struck out.
    pub(crate) ended_at: Option<u64>,
    pub(crate) ended_why: Option<String>,
}

/// Somebody who is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Known {
    pub(crate) address: Address,
    /// UTC.
    pub(crate) until: Timestamp,
    pub(crate) by: Merit,
}

/// How many strangers are usual at one hour of the week, as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BaselineRow {
    /// See [`Guard::service_keys`](crate::guard::Guard::service_keys).
    pub(crate) service: String,
    pub(crate) class: Front,
    /// Of the week, from Monday 00:00 UTC.
    pub(crate) hour: u8,
    pub(crate) slot: Slot,
}

/// Something to be written.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Ban(Box<BanRow>),
    /// The ban that stands for a subject is over.
    Lift {
        subject: Prefix,
        at: Timestamp,
        why: &'static str,
    },
    Known(Known),
    /// Somebody is known no longer, unless by something else.
    Unknown {
        address: Address,
        by: Merit,
    },
    Baseline(BaselineRow),
    /// How far somebody came towards a rule's limit, and when; without it nothing is known any more.
    Peak {
        rule: RuleId,
        address: Address,
        peak: Option<Peak>,
    },
    Allow {
        prefix: Prefix,
        since: Timestamp,
    },
    Disallow {
        prefix: Prefix,
    },
    /// Deadlines in UTC of the bans of this boot, after the system's clock was set.
    Shift {
        boot: String,
        offset: i64,
    },
    /// Drop what is older than the retention.
    Purge {
        now: Timestamp,
    },
    /// Say so when everything before this is on disk.
    Sync(SyncSender<()>),
}

/// What an earlier run left.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) bans: Vec<BanRow>,
    pub(crate) known: Vec<Known>,
    pub(crate) baseline: Vec<BaselineRow>,
    pub(crate) peaks: Vec<(RuleId, Address, Peak)>,
    pub(crate) allowed: Vec<Prefix>,
}

/// The writer.
#[derive(Debug)]
pub(crate) struct LedgerWriter {
    entries: Option<SyncSender<Entry>>,
    thread: Option<JoinHandle<()>>,
    health: Arc<Health>,
}

/// How the disk is doing.
#[derive(Debug, Default)]
pub(crate) struct Health {
    pub(crate) failing: AtomicBool,
    pub(crate) written: AtomicU64,
    pub(crate) lost: AtomicU64,
}

impl LedgerWriter {
    /// Opens the ledger in a folder, made if need be, and reads what an earlier run left.
    ///
    /// # Errors
    /// When the folder or file cannot be used, or a newer version wrote it. Nothing was changed.
    pub(crate) fn open(folder: &Path, now: Timestamp) -> Result<(Self, Remembered)> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the state folder {}", folder.display()))?;
        let connection = connect(&path_in(folder))?;
        let remembered = read(&connection, now)?;
        let (entries, receiver) = sync_channel(QUEUE_MAX);
        let health = Arc::new(Health::default());
        let theirs = Arc::clone(&health);
        let thread = thread::Builder::new()
            .name("ledger".into())
            .spawn(move || {
                Work { connection, waiting: VecDeque::new(), syncing: Vec::new(), health: theirs }
                    .run(&receiver)
            })
            .context("failed to start the thread that writes the ledger")?;
        Ok((Self { entries: Some(entries), thread: Some(thread), health }, remembered))
    }

    /// Has an entry written; never waits.
    pub(crate) fn write(&self, entry: Entry) {
        let sent = self.entries.as_ref().map(|entries| entries.try_send(entry));
        if let Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None = sent {
            self.health.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything handed over so far is on disk, for so long at most; answers whether it is.
    pub(crate) fn sync(&self, patience: Duration) -> bool {
        let (written, done) = sync_channel(1);
        self.write(Entry::Sync(written));
        done.recv_timeout(patience).is_ok()
    }

    /// How the disk is doing.
    pub(crate) const fn health(&self) -> &Arc<Health> {
        &self.health
    }
}

/// What was handed over is on disk, or refused by it, when this is over.
impl Drop for LedgerWriter {
    fn drop(&mut self) {
        self.entries = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("The ledger's thread failed");
        }
    }
}

/// The ledger's file in a state folder.
pub(crate) fn path_in(folder: &Path) -> PathBuf {
    folder.join("ledger.sqlite")
}

fn connect(path: &Path) -> Result<Connection> {
    let shown = path.display();
    let mut connection = Connection::open(path).with_context(|| format!("cannot open the ledger {shown}"))?;
    connection.busy_timeout(Duration::from_secs(2))?;
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .with_context(|| format!("cannot use the ledger {shown}: is it a file of ours, and writable?"))?;
    // A ban lost to a power failure is banned again; one lost to a crash of ours is in the gate's tables.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let taken: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let taken = taken as usize;
    if taken > MIGRATIONS.len() {
        bail!(
            "{shown} was written by a newer floodwall (schema {taken}); use that one or move the file away"
        );
    }
    for (number, step) in MIGRATIONS.iter().enumerate().skip(taken) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", number as u32 + 1)?;
        transaction.commit().with_context(|| format!("cannot bring the ledger {shown} up to date"))?;
    }
    Ok(connection)
}

fn read(connection: &Connection, now: Timestamp) -> Result<Remembered> {
    let mut statement =
        connection.prepare("SELECT * FROM ban WHERE ended_at IS NULL AND until > ?1 ORDER BY id")?;
    // Those of this boot may stand although UTC says otherwise, if the clock was set; who reads decides.
    let since = now - Span::from_secs(24 * 3_600);
    let bans = statement.query_map([signed(since.as_nanos())], ban_row)?.collect::<Result<_, _>>()?;
    let mut statement = connection.prepare("SELECT address, until, merit FROM known WHERE until > ?1")?;
    let known = statement.query_map([signed(now.as_nanos())], |row| {
        let address = address_of(&row.get::<_, Vec<u8>>(0)?);
        let until = Timestamp::from_nanos(unsigned(row.get(1)?));
        let by = Merit::from_name(&row.get::<_, String>(2)?);
        Ok(by.map(|by| Known { address, until, by }))
    })?;
    let known = known.filter_map(Result::transpose).collect::<Result<_, _>>()?;
    let mut statement = connection.prepare("SELECT address, bits FROM allowed")?;
    let allowed = statement
        .query_map([], |row| Ok(Prefix::new(address_of(&row.get::<_, Vec<u8>>(0)?), row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let baseline = read_baseline(connection)?;
    let mut statement = connection.prepare("SELECT rule, address, count, at FROM peak WHERE at > ?1")?;
    let peaks = statement
        .query_map([signed((now - habits::KEPT).as_nanos())], |row| {
            let (rule, address) = (row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?);
            let peak = Peak { count: row.get(2)?, at: Timestamp::from_nanos(unsigned(row.get(3)?)) };
            Ok((RuleId(rule.into()), address_of(&address), peak))
        })?
        .collect::<Result<_, _>>()?;
    Ok(Remembered { bans, known, baseline, peaks, allowed })
}

/// What is no class, hour or list of numbers was written by somebody else, and is passed over.
fn read_baseline(connection: &Connection) -> Result<Vec<BaselineRow>> {
    let mut statement =
        connection.prepare("SELECT service, class, hour, weeks, usual, week FROM baseline")?;
    let rows = statement.query_map([], |row| {
        let (class, weeks) = (row.get::<_, String>(1)?, row.get::<_, String>(3)?);
        let (Some(class), Ok(weeks)) = (Front::from_name(&class), serde_json::from_str(&weeks)) else {
            return Ok(None);
        };
        let slot = Slot { weeks, usual: row.get(4)?, week: row.get(5)? };
        Ok(Some(BaselineRow { service: row.get(0)?, class, hour: row.get(2)?, slot }))
    })?;
    rows.filter_map(Result::transpose).map(|row| Ok(row?)).collect()
}

/// What a running or earlier wall has learnt, from its state folder.
///
/// # Errors
/// When there is no ledger, or it is older than that.
pub(crate) fn baseline(folder: &Path) -> Result<Vec<BaselineRow>> {
    let path = path_in(folder);
    let shown = path.display();
    let connection = Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .with_context(|| format!("cannot open the ledger {shown}"))?;
    connection.busy_timeout(Duration::from_secs(2))?;
    read_baseline(&connection).with_context(|| format!("cannot read what is usual from {shown}"))
}

/// The latest bans, over or not, newest first.
///
/// # Errors
/// When the ledger cannot be read.
pub(crate) fn history(folder: &Path, subject: Option<Prefix>, limit: usize) -> Result<Vec<BanRow>> {
    let connection = Connection::open_with_flags(path_in(folder), rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .context("cannot open the ledger")?;
    connection.busy_timeout(Duration::from_secs(2))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = match subject {
        Some(subject) => connection
            .prepare("SELECT * FROM ban WHERE address = ?1 AND bits = ?2 ORDER BY id DESC LIMIT ?3")?
            .query_map(params![blob(subject.address()), subject.bits(), limit], ban_row)?
            .collect::<Result<_, _>>()?,
        None => connection
            .prepare("SELECT * FROM ban ORDER BY id DESC LIMIT ?1")?
            .query_map([limit], ban_row)?
            .collect::<Result<_, _>>()?,
    };
    Ok(rows)
}

struct Work {
    connection: Connection,
    waiting: VecDeque<Entry>,
    /// Who waits for what is written next.
    syncing: Vec<SyncSender<()>>,
    health: Arc<Health>,
}

impl Work {
    fn run(mut self, entries: &Receiver<Entry>) {
        loop {
            let next = if self.waiting.is_empty() {
                entries.recv().map_err(RecvTimeoutError::from)
            } else {
                entries.recv_timeout(RETRY)
            };
            match next {
                Ok(entry) => {
                    self.keep(entry);
                    for entry in entries.try_iter().take(BATCH_MAX) {
                        self.keep(entry);
                    }
                    // While the disk refuses, it is not asked for every entry.
                    if self.health.failing.load(Ordering::Relaxed) {
                        thread::sleep(Duration::from_millis(100));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.write_waiting();
                    return;
                }
            }
            self.write_waiting();
        }
    }

    fn keep(&mut self, entry: Entry) {
        if let Entry::Sync(written) = entry {
            return self.syncing.push(written);
        }
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
            self.health.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.waiting.push_back(entry);
    }

    fn write_waiting(&mut self) {
        // Bounded: as long as the disk refuses, nobody is told that it does not.
        self.syncing.truncate(BATCH_MAX);
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(BATCH_MAX);
            match write_batch(&mut self.connection, self.waiting.iter().take(count)) {
                Ok(()) => {
                    self.waiting.drain(..count);
                    self.health.written.fetch_add(count as u64, Ordering::Relaxed);
                    if self.health.failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("The ledger can be written again");
                    }
                }
                Err(error) => {
                    if !self.health.failing.swap(true, Ordering::Relaxed) {
                        tracing::error!(
                            error = format!("{error:#}"),
                            "The ledger cannot be written; bans hold from memory, free the disk"
                        );
                    }
                    return;
                }
            }
        }
        for written in self.syncing.drain(..) {
            // Whoever asked may have lost patience.
            written.try_send(()).unwrap_or_default();
        }
    }
}

fn write_batch<'a>(connection: &mut Connection, entries: impl Iterator<Item = &'a Entry>) -> Result<()> {
    let transaction = connection.transaction()?;
    for entry in entries {
        write_entry(&transaction, entry)?;
    }
    Ok(transaction.commit()?)
}

fn write_entry(transaction: &Transaction<'_>, entry: &Entry) -> Result<()> {
    match entry {
        Entry::Ban(ban) => write_ban(transaction, ban)?,
        Entry::Lift { subject, at, why } => {
            transaction.execute(
                "UPDATE ban SET ended_at = ?3, ended_why = ?4 WHERE address = ?1 AND bits = ?2 AND ended_at IS NULL",
                params![blob(subject.address()), subject.bits(), signed(at.as_nanos()), why],
            )?;
        }
        // A login outranks tenure, and lasts longer.
        Entry::Known(Known { address, until, by }) => {
            transaction.execute(
                "INSERT INTO known (address, until, merit) VALUES (?1, ?2, ?3)
                 ON CONFLICT (address) DO UPDATE SET until = max(until, excluded.until),
                     merit = min(merit, excluded.merit)",
                params![blob(*address), signed(until.as_nanos()), by.as_str()],
            )?;
        }
        Entry::Unknown { address, by } => {
            transaction.execute(
                "DELETE FROM known WHERE address = ?1 AND merit = ?2",
                params![blob(*address), by.as_str()],
            )?;
        }
        Entry::Peak { rule, address, peak: None } => {
            transaction.execute(
                "DELETE FROM peak WHERE rule = ?1 AND address = ?2",
                params![&*rule.0, blob(*address)],
            )?;
        }
        Entry::Peak { rule, address, peak: Some(peak) } => {
            transaction.execute(
                "INSERT OR REPLACE INTO peak (rule, address, count, at) VALUES (?1, ?2, ?3, ?4)",
                params![&*rule.0, blob(*address), peak.count, signed(peak.at.as_nanos())],
            )?;
        }
        Entry::Baseline(row) => {
            transaction.execute(
                "INSERT OR REPLACE INTO baseline (service, class, hour, weeks, usual, week)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    row.service,
                    row.class.as_str(),
                    row.hour,
                    serde_json::to_string(&row.slot.weeks)?,
                    row.slot.usual,
                    row.slot.week
                ],
            )?;
        }
        Entry::Allow { prefix, since } => {
            transaction.execute(
                "INSERT OR IGNORE INTO allowed (address, bits, since) VALUES (?1, ?2, ?3)",
                params![blob(prefix.address()), prefix.bits(), signed(since.as_nanos())],
            )?;
        }
        Entry::Disallow { prefix } => {
            transaction.execute(
                "DELETE FROM allowed WHERE address = ?1 AND bits = ?2",
                params![blob(prefix.address()), prefix.bits()],
            )?;
        }
        Entry::Shift { boot, offset } => {
            transaction.execute(
                "UPDATE ban SET until = gate_until + ?2
                 WHERE boot = ?1 AND ended_at IS NULL AND gate_until < 9223372036854775807",
                params![boot, offset],
            )?;
        }
        // Never kept.
        Entry::Sync(_) => {}
        Entry::Purge { now } => {
            let before = *now - RETENTION;
            transaction.execute(
                "DELETE FROM ban WHERE coalesce(ended_at, until) < ?1",
                [signed(before.as_nanos())],
            )?;
            transaction.execute("DELETE FROM known WHERE until < ?1", [signed(now.as_nanos())])?;
            let before = *now - habits::KEPT;
            transaction.execute("DELETE FROM peak WHERE at < ?1", [signed(before.as_nanos())])?;
        }
    }
    Ok(())
}

/// A ban that stands for the same subject is prolonged, not entered twice.
fn write_ban(transaction: &Transaction<'_>, ban: &BanRow) -> Result<()> {
    let subject = parse_subject(&ban.subject).with_context(|| format!("{} is no subject", ban.subject))?;
    let standing: Option<i64> = transaction
        .query_row(
            "SELECT id FROM ban WHERE address = ?1 AND bits = ?2 AND ended_at IS NULL AND until > ?3",
            params![blob(subject.address()), subject.bits(), signed(ban.since)],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(id) = standing {
        transaction.execute(
            "UPDATE ban SET ended_at = ?2, ended_why = 'replaced' WHERE id = ?1",
            params![id, signed(ban.since)],
        )?;
    }
    transaction.execute(
        "INSERT INTO ban (address, bits, since, until, gate_until, boot, rule, why, counted, offender, count,
             threshold, within, evidence) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            blob(subject.address()),
            subject.bits(),
            signed(ban.since),
            signed(ban.until),
            signed(ban.gate_until),
            ban.boot,
            ban.rule,
            ban.why,
            ban.counted,
            ban.offender,
            ban.count,
            ban.threshold,
            signed(ban.within),
            serde_json::to_string(&ban.evidence)?,
        ],
    )?;
    Ok(())
}

fn ban_row(row: &Row<'_>) -> rusqlite::Result<BanRow> {
    let address = address_of(&row.get::<_, Vec<u8>>("address")?);
    let evidence: String = row.get("evidence")?;
    Ok(BanRow {
        subject: Prefix::new(address, row.get("bits")?).to_string(),
        since: unsigned(row.get("since")?),
        until: unsigned(row.get("until")?),
        gate_until: unsigned(row.get("gate_until")?),
        boot: row.get("boot")?,
        rule: row.get("rule")?,
        why: row.get("why")?,
        counted: row.get("counted")?,
        offender: row.get("offender")?,
        count: row.get("count")?,
        threshold: row.get("threshold")?,
        within: unsigned(row.get("within")?),
        evidence: serde_json::from_str(&evidence).unwrap_or_default(),
        ended_at: row.get::<_, Option<i64>>("ended_at")?.map(unsigned),
        ended_why: row.get("ended_why")?,
    })
}

/// An address, or an address and a length as it is written.
pub(crate) fn parse_subject(written: &str) -> Option<Prefix> {
    let (address, bits) = crate::configuration::parse_prefix(written)?;
    Some(Prefix::new(address, u8::try_from(bits).ok()?))
}

/// The database counts in signed numbers; for ever is its largest.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

const fn unsigned(number: i64) -> u64 {
    if number == i64::MAX { u64::MAX } else { number.unsigned_abs() }
}

fn blob(address: Address) -> Vec<u8> {
    [address.high.to_be_bytes(), address.low.to_be_bytes()].concat()
}

/// Anything but 16 bytes is an address nobody has.
fn address_of(bytes: &[u8]) -> Address {
    let number = bytes.try_into().map_or(0, u128::from_be_bytes);
    Address { high: (number >> 64) as u64, low: number as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(subject: &str, since: u64, until: u64) -> BanRow {
        BanRow {
            subject: subject.into(),
            since,
            until,
            gate_until: until,
            boot: "boot".into(),
            rule: "t/r".into(),
            why: "test".into(),
            counted: subject.into(),
            offender: "192.0.2.7".into(),
            count: 8,
            threshold: 8,
            within: 60,
            evidence: vec!["login.failed from 192.0.2.7".into()],
            ended_at: None,
            ended_why: None,
        }
    }

    const DAY: u64 = 24 * 3_600_000_000_000;

    #[test]
    fn what_was_written_is_remembered_and_what_was_lifted_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::from_nanos(100 * DAY);
        let (writer, remembered) = LedgerWriter::open(folder.path(), now).unwrap();
        assert!(remembered.bans.is_empty());
        let kept = ban("192.0.2.7/32", 100 * DAY, 101 * DAY);
        let forever = ban("2001:db8::/64", 100 * DAY, u64::MAX);
        for row in [&kept, &forever, &ban("192.0.2.8/32", 100 * DAY, 101 * DAY)] {
            writer.write(Entry::Ban(Box::new(row.clone())));
        }
        let lifted = parse_subject("192.0.2.8").unwrap();
        writer.write(Entry::Lift { subject: lifted, at: now, why: "operator" });
        let address = Address::from("2001:db8::5".parse::<std::net::IpAddr>().unwrap());
        let known = |last: u64, by, days| Known {
            address: Address { low: last, ..address },
            until: Timestamp::from_nanos(days * DAY),
            by,
        };
        writer.write(Entry::Known(known(5, Merit::Login, 200)));
        writer.write(Entry::Known(known(5, Merit::Tenure, 150)));
        writer.write(Entry::Unknown { address: known(5, Merit::Login, 0).address, by: Merit::Tenure });
        for (last, by) in [(6, Merit::Login), (7, Merit::Tenure)] {
            writer.write(Entry::Known(known(last, by, 200)));
            writer.write(Entry::Unknown { address: known(last, by, 0).address, by });
        }
        writer.write(Entry::Known(known(8, Merit::Tenure, 110)));
        writer.write(Entry::Allow { prefix: lifted, since: now });
        drop(writer);
        let (_writer, remembered) = LedgerWriter::open(folder.path(), now).unwrap();
        assert_eq!(remembered.bans, [kept, forever]);
        assert_eq!(remembered.known, [known(5, Merit::Login, 200), known(8, Merit::Tenure, 110)]);
        assert_eq!(remembered.allowed, [lifted]);
        let past = history(folder.path(), Some(lifted), 10).unwrap();
        assert_eq!(past.first().unwrap().ended_why.as_deref(), Some("operator"));
    }

    #[test]
    fn a_ledger_of_an_earlier_version_is_brought_up_to_date_and_keeps_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let old = Connection::open(path_in(folder.path())).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.execute(
            "INSERT INTO known (address, until) VALUES (?1, ?2)",
            params![vec![1_u8; 16], 200 * DAY as i64],
        )
        .unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        assert!(baseline(folder.path()).is_err());
        let now = Timestamp::from_nanos(100 * DAY);
        let (writer, remembered) = LedgerWriter::open(folder.path(), now).unwrap();
        assert_eq!((remembered.known.len(), remembered.baseline.len()), (1, 0));
        let row = |usual| BaselineRow {
            service: "teamtalk".into(),
            class: Front::Tcp,
            hour: 167,
            slot: Slot { weeks: vec![3, 4, usual], usual, week: 2_900 },
        };
        writer.write(Entry::Baseline(row(9)));
        writer.write(Entry::Baseline(row(4)));
        let [rule, other] = ["teamtalk/a", "teamtalk/b"].map(|id| RuleId(id.into()));
        let (address, peak) = (Address::from_v4(7), Peak { count: 3, at: now });
        for rule in [&rule, &other] {
            writer.write(Entry::Peak { rule: rule.clone(), address, peak: Some(peak) });
        }
        writer.write(Entry::Peak { rule: other, address, peak: None });
        drop(writer);
        let (_writer, remembered) = LedgerWriter::open(folder.path(), now).unwrap();
        assert_eq!(remembered.baseline, [row(4)]);
        assert_eq!(remembered.peaks, [(rule, address, peak)]);
        assert_eq!(baseline(folder.path()).unwrap(), [row(4)]);
    }

    #[test]
    fn a_ban_that_is_prolonged_stands_once_and_old_ones_are_purged() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::from_nanos(200 * DAY);
        let (writer, _) = LedgerWriter::open(folder.path(), now).unwrap();
        writer.write(Entry::Ban(Box::new(ban("192.0.2.9/32", DAY, 2 * DAY))));
        writer.write(Entry::Ban(Box::new(ban("192.0.2.7/32", 200 * DAY, 201 * DAY))));
        writer.write(Entry::Ban(Box::new(ban("192.0.2.7/32", 200 * DAY + 1, 202 * DAY))));
        writer.write(Entry::Purge { now });
        drop(writer);
        let all = history(folder.path(), None, 10).unwrap();
        let ended: Vec<_> = all.iter().map(|row| (row.until / DAY, row.ended_why.as_deref())).collect();
        assert_eq!(ended, [(202, None), (201, Some("replaced"))]);
    }

    #[test]
    fn a_file_of_somebody_else_or_from_the_future_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(path_in(folder.path()), b"not a database, certainly not one of ours").unwrap();
        let error = LedgerWriter::open(folder.path(), Timestamp::EPOCH).unwrap_err();
        assert!(format!("{error:#}").contains("ledger.sqlite"), "{error:#}");
        std::fs::remove_file(path_in(folder.path())).unwrap();
        let connection = Connection::open(path_in(folder.path())).unwrap();
        connection.pragma_update(None, "user_version", 999).unwrap();
        drop(connection);
        let error = LedgerWriter::open(folder.path(), Timestamp::EPOCH).unwrap_err();
        assert!(format!("{error:#}").contains("newer floodwall"), "{error:#}");
    }

    #[test]
    fn a_disk_that_refuses_loses_nothing_and_says_so() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&MIGRATIONS.concat()).unwrap();
        let pages: u32 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        connection.pragma_update(None, "max_page_count", pages + 6).unwrap();
        let health = Arc::new(Health::default());
        let mut work =
            Work { connection, waiting: VecDeque::new(), syncing: Vec::new(), health: Arc::clone(&health) };
        for number in 0..200_u64 {
            let row = ban(&format!("192.0.2.{number}/32"), number, DAY);
            work.keep(Entry::Ban(Box::new(row)));
        }
        work.write_waiting();
        assert!(health.failing.load(Ordering::Relaxed) && !work.waiting.is_empty());
        connection = work.connection;
        connection.pragma_update(None, "max_page_count", 1_000_000).unwrap();
        work.connection = connection;
        work.write_waiting();
        assert!(!health.failing.load(Ordering::Relaxed) && work.waiting.is_empty());
        let written: i64 =
            work.connection.query_row("SELECT count(*) FROM ban", [], |row| row.get(0)).unwrap();
        assert_eq!(written, 200);
    }
}
