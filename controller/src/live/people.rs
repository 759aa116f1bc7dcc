//! Who belongs together: nicknames, accounts, identities and addresses that were seen together, since when and until when.
//!
//! Off until `[people]` in the configuration turns it on. What is kept: that two names were seen at one login, on which
//! service, how often, first and last; never what anybody said or where they were. What was last seen longer ago than
//! `keep` is deleted every hour; [`forget`](People::forget) deletes one name at once.
//!
//! Bounds: [`PENDING_MAX`] pairs on their way to the disk, [`LINKS_MAX`] on it, [`LINKS_PER_NAME_MAX`] of one name; beyond the
//! first, sightings are lost and counted, beyond the others, those longest unseen go. So whoever takes a thousand names
//! pushes out their own, and nobody else's.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use floodwall_engine::{
    Span, Timestamp,
    signal::{Method, Signal, SignalKind},
    text::Text,
};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use super::roster::Roster;
use crate::replay::rfc3339;

/// Pairs collected between two writes.
const PENDING_MAX: usize = 20_000;
/// Writes waiting for the disk.
const WRITES_MAX: usize = 4;
/// Pairs kept.
const LINKS_MAX: i64 = 1_000_000;
/// Pairs kept of one name.
const LINKS_PER_NAME_MAX: i64 = 512;
/// Names told about one person, at each distance.
const ROWS_MAX: usize = 200;
/// A name that is linked to more others than this is a place, not a person: it links nobody. Nicknames and identities, which
/// anybody makes in passing, count once they were seen [a while](LASTING) apart: or who takes a dozen would hide behind them.
const NEIGHBOURS_MAX: usize = 12;
/// A day, in nanoseconds.
const LASTING: i64 = 86_400_000_000_000;
/// How long until a write-ahead log is emptied that somebody was reading.
const CHECKPOINT_AGAIN: Duration = Duration::from_secs(1);
/// How long an order to forget waits for the disk. It is carried out all the same.
const FORGET_PATIENCE: Duration = Duration::from_millis(250);

const SCHEMA_VERSION: u32 = 1;
const SCHEMA: &str = "
    CREATE TABLE name (
        id INTEGER PRIMARY KEY,
        sort INTEGER NOT NULL,
        folded TEXT NOT NULL,
        value TEXT NOT NULL,
        UNIQUE (folded, sort)
    ) STRICT;
    CREATE TABLE link (
        one INTEGER NOT NULL REFERENCES name (id),
        other INTEGER NOT NULL REFERENCES name (id),
        service TEXT NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (one, other, service)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX link_by_other ON link (other);
    CREATE INDEX link_by_age ON link (last);
";

/// What kind of name.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sort {
    Account = 0,
    Identity = 1,
    Nickname = 2,
    Address = 3,
}

impl Sort {
    const fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Account,
            1 => Self::Identity,
            2 => Self::Nickname,
            _ => Self::Address,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Identity => "identity",
            Self::Nickname => "nickname",
            Self::Address => "address",
        }
    }
}

type Name = (Sort, String);

/// Two names that were seen together.
#[derive(Clone, Debug)]
struct Sighting {
    first: u64,
    last: u64,
    count: u64,
}

type Sightings = HashMap<(Name, Name, &'static str), Sighting>;

/// Collects who is seen with which names, and hands it to a thread that writes.
#[derive(Debug)]
pub(crate) struct People {
    folder: PathBuf,
    keep: Span,
    pending: Sightings,
    lost: u64,
    /// Sightings that the disk refused.
    refused: Arc<AtomicU64>,
    work: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Work {
    Write(Sightings),
    Purge { before: u64 },
    Forget { name: String, done: SyncSender<Result<usize>> },
}

/// What is known of one person.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Person {
    pub(crate) schema: String,
    pub(crate) asked: String,
    pub(crate) names: Vec<Known>,
    /// Names were left out: there are more than are told.
    pub(crate) more: bool,
}

/// One name and how it is linked to the one that was asked for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Known {
    pub(crate) sort: Sort,
    pub(crate) name: String,
    /// Where they were seen together.
    pub(crate) service: String,
    pub(crate) first: String,
    pub(crate) last: String,
    pub(crate) times: u64,
    /// The name that links them, where they were never seen together themselves.
    pub(crate) through: Option<(Sort, String)>,
}

impl People {
    /// Opens what an earlier run has kept, in the state folder.
    ///
    /// # Errors
    /// When the file cannot be used, or a newer version wrote it.
    pub(crate) fn open(folder: &Path, keep: Span) -> Result<Self> {
        let connection = open(&path_in(folder))?;
        let (work, orders) = sync_channel(WRITES_MAX);
        let refused = Arc::new(AtomicU64::new(0));
        let theirs = Arc::clone(&refused);
        let thread = thread::Builder::new()
            .name("people".into())
            .spawn(move || write_all(connection, &orders, &theirs))
            .context("failed to start the thread that writes who belongs together")?;
        Ok(Self {
            folder: folder.to_owned(),
            keep,
            pending: HashMap::new(),
            lost: 0,
            refused,
            work: Some(work),
            thread: Some(thread),
        })
    }

    /// Learns from a signal; `roster` has learnt from it already.
    pub(crate) fn handle_signal(
        &mut self,
        signal: &Signal,
        at: Timestamp,
        service: &'static str,
        roster: &Roster,
    ) {
        if !matches!(signal.kind, SignalKind::LoginSucceeded | SignalKind::NickChanged) {
            return;
        }
        let detail = &signal.detail;
        let present = signal.flow.and_then(|flow| roster.present(flow));
        // Everybody's account is nobody's.
        let is_own = !matches!(detail.method, Some(Method::Guest | Method::ServerPassword));
        let account =
            detail.account.as_ref().or_else(|| present.and_then(|present| present.account.as_ref()));
        let nickname =
            detail.nickname.as_ref().or_else(|| present.and_then(|present| present.nickname.as_ref()));
        let names: Vec<Name> = [
            (Sort::Account, account.filter(|_| is_own)),
            (Sort::Identity, detail.identity.as_ref()),
            (Sort::Nickname, nickname),
        ]
        .into_iter()
        .filter_map(|(sort, name)| Some((sort, name.filter(|name| !name.is_empty())?.as_str().to_owned())))
        .chain([(Sort::Address, signal.address.to_string())])
        .collect();
        for (index, one) in names.iter().enumerate() {
            for other in names.iter().skip(index + 1) {
                self.see(one, other, service, at.as_nanos());
            }
        }
    }

    fn see(&mut self, one: &Name, other: &Name, service: &'static str, at: u64) {
        let key = (one.clone(), other.clone(), service);
        if self.pending.len() >= PENDING_MAX && !self.pending.contains_key(&key) {
            self.lost += 1;
            return;
        }
        let sighting = self.pending.entry(key).or_insert(Sighting { first: at, last: at, count: 0 });
        sighting.last = sighting.last.max(at);
        sighting.first = sighting.first.min(at);
        sighting.count += 1;
    }

    /// Has what was collected written; never waits.
    pub(crate) fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let Some(work) = &self.work else { return };
        if let Err(
            TrySendError::Full(Work::Write(pending)) | TrySendError::Disconnected(Work::Write(pending)),
        ) = work.try_send(Work::Write(std::mem::take(&mut self.pending)))
        {
            self.pending = pending;
        }
    }

    /// Has deleted what was last seen too long ago.
    pub(crate) fn purge(&self, now: Timestamp) {
        if let Some(work) = &self.work {
            // When the disk is behind, the next hour will do.
            drop(work.try_send(Work::Purge { before: (now - self.keep).as_nanos() }));
        }
    }

    /// Deletes a name with everything that links it; answers how many links there were, or nothing when the disk
    /// takes its time.
    ///
    /// # Errors
    /// When it cannot be done.
    pub(crate) fn forget(&mut self, name: &str) -> Result<Option<usize>> {
        let folded = fold(name);
        let is = |(_, value): &Name| fold(value) == folded;
        self.pending.retain(|(one, other, _), _| !is(one) && !is(other));
        let (done, answer) = sync_channel(1);
        let work = self.work.as_ref().context("the writer has ended")?;
        work.try_send(Work::Forget { name: name.to_owned(), done })
            .map_err(|_full| anyhow::anyhow!("the disk is behind; try again"))?;
        match answer.recv_timeout(FORGET_PATIENCE) {
            Ok(deleted) => deleted.map(Some),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the writer has ended"),
        }
    }

    /// What is known of a name.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn person(&mut self, name: &str) -> Result<Person> {
        self.flush();
        person(&self.folder, name)
    }

    /// Sightings not kept for lack of room, or because the disk refused them.
    pub(crate) fn lost(&self) -> u64 {
        self.lost + self.refused.load(Ordering::Relaxed)
    }
}

/// What was collected is on disk, or refused by it, when this is over.
impl Drop for People {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            drop(work.send(Work::Write(std::mem::take(&mut self.pending))));
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("The thread that writes who belongs together failed");
        }
    }
}

fn path_in(folder: &Path) -> PathBuf {
    folder.join("people.sqlite")
}

fn open(path: &Path) -> Result<Connection> {
    let shown = path.display();
    let mut connection = Connection::open(path).with_context(|| format!("cannot open {shown}"))?;
    connection.busy_timeout(Duration::from_secs(2))?;
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .with_context(|| format!("cannot use {shown}: is it a file of ours, and writable?"))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // What is deleted is overwritten, not only unlinked.
    connection.pragma_update(None, "secure_delete", "ON")?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => {
            let transaction = connection.transaction()?;
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()?;
        }
        SCHEMA_VERSION => {}
        _ => bail!("{shown} was written by a newer floodwall; use that one or move the file away"),
    }
    Ok(connection)
}

fn write_all(mut connection: Connection, orders: &Receiver<Work>, refused: &AtomicU64) {
    let mut failing = false;
    // What was deleted is in the write-ahead log still.
    let mut is_deleted = false;
    loop {
        let work = if is_deleted {
            orders.recv_timeout(CHECKPOINT_AGAIN)
        } else {
            orders.recv().map_err(Into::into)
        };
        let outcome = match work {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(Work::Write(sightings)) => write(&mut connection, &sightings).inspect_err(|_| {
                let count: u64 = sightings.values().map(|sighting| sighting.count).sum();
                refused.fetch_add(count, Ordering::Relaxed);
            }),
            Ok(Work::Purge { before }) => {
                is_deleted = true;
                purge(&mut connection, before)
            }
            Ok(Work::Forget { name, done }) => {
                let deleted = delete(&mut connection, &name);
                // The one who asked is answered when nothing is left of it, if that can be had at once.
                is_deleted = !is_emptied(&connection);
                // Whoever asked may have given up.
                drop(done.send(deleted));
                Ok(())
            }
        };
        is_deleted = is_deleted && !is_emptied(&connection);
        if let Err(error) = &outcome
            && !failing
        {
            tracing::error!(error = format!("{error:#}"), "Who belongs together could not be written");
        }
        failing = outcome.is_err();
    }
}

/// Empties the write-ahead log into the file; `false` while somebody reads in it.
fn is_emptied(connection: &Connection) -> bool {
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
    busy.is_ok_and(|busy| busy == 0)
}

fn write(connection: &mut Connection, sightings: &Sightings) -> Result<()> {
    let transaction = connection.transaction()?;
    let mut touched = BTreeSet::new();
    for ((one, other, service), sighting) in sightings {
        let (one, other) = (name_id(&transaction, one)?, name_id(&transaction, other)?);
        touched.extend([one, other]);
        transaction
            .prepare_cached(
                "INSERT INTO link VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET
                 first = min(first, excluded.first), last = max(last, excluded.last), count = count + excluded.count",
            )?
            .execute(params![one, other, service, signed(sighting.first), signed(sighting.last), signed(sighting.count)])?;
    }
    let mut is_crowded = false;
    for name in touched {
        is_crowded |= let_go_of(&transaction, name)?;
    }
    if is_crowded {
        drop_unlinked(&transaction)?;
    }
    let links: i64 = transaction.query_row("SELECT count(*) FROM link", [], |row| row.get(0))?;
    if links > LINKS_MAX {
        transaction.execute(
            "DELETE FROM link WHERE (one, other, service) IN
             (SELECT one, other, service FROM link ORDER BY last LIMIT ?1)",
            [links - LINKS_MAX / 10 * 9],
        )?;
        drop_unlinked(&transaction)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Deletes the links of a name longest unseen, if it has too many; answers whether it had.
fn let_go_of(transaction: &Transaction<'_>, name: i64) -> Result<bool> {
    let links: i64 = transaction
        .prepare_cached(
            "SELECT (SELECT count(*) FROM link WHERE one = ?1) + (SELECT count(*) FROM link WHERE other = ?1)",
        )?
        .query_row([name], |row| row.get(0))?;
    if links <= LINKS_PER_NAME_MAX {
        return Ok(false);
    }
    transaction
        .prepare_cached(
            "DELETE FROM link WHERE (one, other, service) IN
             (SELECT one, other, service FROM link WHERE one = ?1 OR other = ?1 ORDER BY last, count LIMIT ?2)",
        )?
        .execute([name, links - LINKS_PER_NAME_MAX / 10 * 9])?;
    Ok(true)
}

fn name_id(transaction: &Transaction<'_>, (sort, value): &Name) -> Result<i64> {
    let folded = fold(value);
    let known = transaction
        .prepare_cached("SELECT id FROM name WHERE folded = ?1 AND sort = ?2")?
        .query_row(params![folded, *sort as i64], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    transaction
        .prepare_cached("INSERT INTO name (sort, folded, value) VALUES (?1, ?2, ?3)")?
        .execute(params![*sort as i64, folded, value])?;
    Ok(transaction.last_insert_rowid())
}

fn purge(connection: &mut Connection, before: u64) -> Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute("DELETE FROM link WHERE last < ?1", [signed(before)])?;
    drop_unlinked(&transaction)?;
    transaction.commit()?;
    Ok(())
}

fn drop_unlinked(transaction: &Transaction<'_>) -> Result<()> {
    transaction.execute(
        "DELETE FROM name WHERE NOT EXISTS (SELECT 1 FROM link WHERE one = id)
         AND NOT EXISTS (SELECT 1 FROM link WHERE other = id)",
        [],
    )?;
    Ok(())
}

fn delete(connection: &mut Connection, name: &str) -> Result<usize> {
    let transaction = connection.transaction()?;
    let named = "SELECT id FROM name WHERE folded = ?1";
    let links = transaction
        .execute(&format!("DELETE FROM link WHERE one IN ({named}) OR other IN ({named})"), [fold(name)])?;
    drop_unlinked(&transaction)?;
    transaction.commit()?;
    Ok(links)
}

/// What is kept about a name: those it was seen with, and those that these were seen with.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn person(folder: &Path, asked: &str) -> Result<Person> {
    let connection = Connection::open_with_flags(path_in(folder), OpenFlags::SQLITE_OPEN_READ_ONLY)
        .context("cannot open what is kept about people")?;
    connection.busy_timeout(Duration::from_secs(2))?;
    let mut statement =
        connection.prepare("SELECT id, sort, value FROM name WHERE folded = ?1 ORDER BY sort")?;
    let own: Vec<(i64, Name)> = statement
        .query_map([fold(asked)], |row| Ok((row.get(0)?, (Sort::from_number(row.get(1)?), row.get(2)?))))?
        .collect::<Result<_, _>>()?;
    let (mut names, mut more) = (Vec::new(), false);
    let mut seen: Vec<i64> = own.iter().map(|(id, _)| *id).collect();
    let mut near = Vec::new();
    for (id, _) in &own {
        let found = neighbours(&connection, *id, "last DESC, sort, folded", ROWS_MAX + 1)?;
        more |= found.len() > ROWS_MAX;
        for neighbour in found.into_iter().take(ROWS_MAX) {
            if !seen.contains(&neighbour.id) {
                seen.push(neighbour.id);
                near.push((neighbour.id, neighbour.name.clone()));
            }
            names.push(neighbour.known(None));
        }
    }
    for (id, name) in near {
        if lasting_neighbours(&connection, id)? > NEIGHBOURS_MAX {
            continue;
        }
        // What is hard to come by first: names taken in passing must not hide it.
        let found = neighbours(&connection, id, "sort, last DESC, folded", NEIGHBOURS_MAX)?;
        for neighbour in found {
            if seen.contains(&neighbour.id) {
                continue;
            }
            if names.len() >= 2 * ROWS_MAX {
                more = true;
                break;
            }
            names.push(neighbour.known(Some(name.clone())));
        }
    }
    Ok(Person { schema: "floodwall.person/1".into(), asked: asked.to_owned(), names, more })
}

/// A name next to another.
struct Neighbour {
    id: i64,
    name: Name,
    service: String,
    first: u64,
    last: u64,
    count: u64,
}

impl Neighbour {
    fn known(self, through: Option<Name>) -> Known {
        Known {
            sort: self.name.0,
            name: self.name.1,
            service: self.service,
            first: rfc3339(Timestamp::from_nanos(self.first)),
            last: rfc3339(Timestamp::from_nanos(self.last)),
            times: self.count,
            through,
        }
    }
}

/// How many a name belongs to, as far as they are not passing ones.
fn lasting_neighbours(connection: &Connection, id: i64) -> Result<usize> {
    let mut statement = connection.prepare_cached(
        "SELECT count(DISTINCT id) FROM (
             SELECT other AS next, last - first AS lasted FROM link WHERE one = ?1
             UNION ALL SELECT one, last - first FROM link WHERE other = ?1)
         JOIN name ON id = next WHERE lasted >= ?2 OR sort NOT IN (?3, ?4)",
    )?;
    let passing = [Sort::Nickname as i64, Sort::Identity as i64];
    let count: i64 = statement.query_row(params![id, LASTING, passing[0], passing[1]], |row| row.get(0))?;
    Ok(usize::try_from(count)?)
}

/// Those a name was seen with.
fn neighbours(connection: &Connection, id: i64, order: &'static str, most: usize) -> Result<Vec<Neighbour>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, sort, value, service, first, last, count FROM (
             SELECT other AS next, service, first, last, count FROM link WHERE one = ?1
             UNION ALL SELECT one, service, first, last, count FROM link WHERE other = ?1)
         JOIN name ON id = next ORDER BY {order} LIMIT ?2",
    ))?;
    let rows = statement.query_map(params![id, i64::try_from(most)?], |row| {
        Ok(Neighbour {
            id: row.get(0)?,
            name: (Sort::from_number(row.get(1)?), row.get(2)?),
            service: row.get(3)?,
            first: unsigned(row.get(4)?),
            last: unsigned(row.get(5)?),
            count: unsigned(row.get(6)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// A name as it is looked for: letter case aside.
fn fold(name: &str) -> String {
    Text::from(name).as_str().to_lowercase()
}

/// SQLite has no unsigned numbers; instants reach to the year 2262.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const DAY: u64 = 86_400_000_000_000;
    const START: u64 = 1_800_000_000_000_000_000;

    fn sight(people: &mut People, day: u64, names: &[(Sort, &str)]) {
        for (index, (sort, one)) in names.iter().enumerate() {
            for (other_sort, other) in &names[index + 1..] {
                let (one, other) = ((*sort, (*one).to_owned()), (*other_sort, (*other).to_owned()));
                people.see(&one, &other, "teamtalk", START + day * DAY);
            }
        }
        people.flush();
    }

    fn forgotten(people: &mut People, name: &str) -> usize {
        loop {
            match people.forget(name) {
                Ok(Some(links)) => return links,
                // Behind.
                Ok(None) | Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn direct(person: &Person) -> Vec<(Sort, &str)> {
        let direct = person.names.iter().filter(|name| name.through.is_none());
        let mut names: Vec<_> = direct.map(|name| (name.sort, name.name.as_str())).collect();
        names.sort_unstable();
        names
    }

    /// 300 regulars, each with an account, two nicknames and an address that changes every ten days; half of them share it
    /// with somebody they live with.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "how long it takes is printed, and nothing depends on it")]
    fn a_year_of_a_busy_server_is_answered_right() {
        let folder = tempfile::tempdir().unwrap();
        let mut people = People::open(folder.path(), Span::from_secs(400 * 86_400)).unwrap();
        for day in 0..365 {
            for regular in 0..300u64 {
                let house = if regular < 150 { regular / 2 } else { regular };
                let address = format!("10.{}.{}.{}", day / 10, house / 100, house % 100);
                let names = [
                    (Sort::Account, format!("account{regular}")),
                    (Sort::Nickname, format!("Nick{regular}{}", if day % 3 == 0 { "_away" } else { "" })),
                    (Sort::Address, address),
                ];
                for (index, one) in names.iter().enumerate() {
                    for other in &names[index + 1..] {
                        people.see(one, other, "teamtalk", START + day * DAY);
                    }
                }
            }
            // The writer may be behind: what is pending then waits for the next day.
            while !people.pending.is_empty() {
                people.flush();
                thread::sleep(Duration::from_millis(1));
            }
        }
        drop(people);
        let asked = Instant::now();
        let person = person(folder.path(), "nick7").unwrap();
        println!("answered in {:?} over a year", asked.elapsed());
        let direct = direct(&person);
        assert_eq!(direct.iter().filter(|(sort, _)| *sort == Sort::Account).count(), 1);
        assert!(direct.contains(&(Sort::Account, "account7")));
        assert_eq!(direct.iter().filter(|(sort, _)| *sort == Sort::Address).count(), 37);
        let through: Vec<_> = person.names.iter().filter(|name| name.through.is_some()).collect();
        assert!(through.iter().any(|name| name.name == "Nick7_away"));
        // Who lives with them, and nobody else's names.
        for name in &through {
            assert!(
                ["Nick7_away", "Nick6", "Nick6_away", "account6"].contains(&name.name.as_str()),
                "{name:?}"
            );
        }
        let seven = person.names.iter().find(|name| name.sort == Sort::Account).unwrap();
        assert_eq!((seven.times, seven.first.as_str()), (243, "2027-01-16T08:00:00.000000Z"));
    }

    #[test]
    fn what_is_old_goes_and_what_is_forgotten_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let mut people = People::open(folder.path(), Span::from_secs(30 * 86_400)).unwrap();
        sight(&mut people, 0, &[(Sort::Account, "alice"), (Sort::Address, "192.0.2.1")]);
        sight(&mut people, 40, &[(Sort::Account, "Alice"), (Sort::Address, "192.0.2.2")]);
        sight(&mut people, 40, &[(Sort::Account, "bob"), (Sort::Address, "192.0.2.2")]);
        people.purge(Timestamp::from_nanos(START + 41 * DAY));
        assert_eq!(forgotten(&mut people, "carol"), 0);
        let alice = people.person("ALICE").unwrap();
        assert_eq!(direct(&alice), [(Sort::Address, "192.0.2.2")]);
        assert_eq!(alice.names.iter().filter(|name| name.name == "bob").count(), 1);
        assert_eq!(forgotten(&mut people, "alice"), 1);
        assert!(people.person("alice").unwrap().names.is_empty());
        let raw: Vec<u8> = std::fs::read(path_in(folder.path())).unwrap();
        assert!(!raw.windows(5).any(|bytes| bytes.eq_ignore_ascii_case(b"alice")), "overwritten on disk");
    }

    #[test]
    fn a_dozen_new_names_hide_nobody_and_push_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut people = People::open(folder.path(), Span::from_secs(30 * 86_400)).unwrap();
        sight(&mut people, 1, &[(Sort::Account, "carol"), (Sort::Address, "192.0.2.7")]);
        sight(&mut people, 1, &[(Sort::Account, "mallory"), (Sort::Address, "192.0.2.9")]);
        for number in 0..2_000 {
            let (nickname, address) =
                ((Sort::Nickname, format!("flood{number}")), (Sort::Address, "192.0.2.9".to_owned()));
            people.see(&nickname, &address, "teamtalk", START + 2 * DAY + number);
            people.flush();
        }
        sight(&mut people, 3, &[(Sort::Account, "mallory"), (Sort::Address, "192.0.2.9")]);
        while !people.pending.is_empty() {
            people.flush();
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(forgotten(&mut people, "nobody"), 0);
        let carol = people.person("carol").unwrap();
        assert_eq!(direct(&carol), [(Sort::Address, "192.0.2.7")]);
        let flooder = people.person("flood1999").unwrap();
        assert!(
            flooder.names.iter().any(|name| name.name == "mallory" && name.through.is_some()),
            "{flooder:?}"
        );
        let address = people.person("192.0.2.9").unwrap();
        assert!(address.more, "no more of one name are told");
        let links: i64 = Connection::open(path_in(folder.path()))
            .unwrap()
            .query_row("SELECT count(*) FROM link", [], |row| row.get(0))
            .unwrap();
        assert!(links <= LINKS_PER_NAME_MAX + 1, "{links}");
    }

    #[test]
    fn a_place_links_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let mut people = People::open(folder.path(), Span::from_secs(30 * 86_400)).unwrap();
        for student in 0..40 {
            let account = format!("student{student}");
            sight(&mut people, 1, &[(Sort::Account, &account), (Sort::Address, "192.0.2.9")]);
            while !people.pending.is_empty() {
                people.flush();
                thread::sleep(Duration::from_millis(1));
            }
        }
        assert_eq!(forgotten(&mut people, "nobody"), 0);
        let person = people.person("student3").unwrap();
        assert_eq!(person.names.len(), 1, "{person:?}");
    }
}
