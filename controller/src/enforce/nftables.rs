//! nftables as what puts decisions into force where XDP cannot be attached: one table of ours, `inet floodwall`. Of other
//! tables nothing is read or changed.
//!
//! What is wanted is kept here; a thread of its own runs `nft`, one transaction at a time, each in force as a whole or not at
//! all. What changes meanwhile goes with the next. The kernel numbers its rulesets: a number that is not ours means that
//! somebody changed something, and then our table is compared with what it should be and put right if it is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::mpsc as jobs,
    thread::{self, JoinHandle},
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail};
use floodwall_engine::command::Prefix;
use floodwall_wire::{
    Address,
    lists::image::Range as ListedRange,
    tables::{self, ProofKey, SERVICES_MAX, Source, Status},
};
use nftables::{
    helper::{self, DEFAULT_NFT, NftablesError},
    schema::{NfCmd, NfObject, Nftables},
};
use tokio::sync::mpsc;

use self::{
    elements::{Entry, Listing},
    rules::{ALARMED, COUNTED, Family, LEARNING, List, TABLE},
};
use super::ranges::Addresses;
use crate::{
    clock::instant,
    live::{rates::Totals, sockets},
};

mod elements;
mod rules;

pub(crate) use rules::Shape;

/// What rests on a living controller is in force for so long without it.
const ALARM_SECONDS: u32 = 5;
/// A deadline nearer than this may have been carried out by one side only, ns.
const SLACK: u64 = 3_000_000_000;
/// Comparing takes at most one part in so many of the time.
const COMPARING_SHARE: u32 = 10;

/// Our table: what is wanted, and the thread that tells nft.
#[derive(Debug)]
pub(crate) struct Firewall {
    shape: Shape,
    entries: BTreeMap<Address, Entry>,
    prefixes: BTreeMap<Prefix, Entry>,
    lists: Vec<ListedRange>,
    locals: BTreeSet<Address>,
    levels: [u32; SERVICES_MAX],
    learning_until: u64,
    waiting: Waiting,
    worker: Worker,
    /// A job is under way.
    is_busy: bool,
    counted: Counted,
}

/// What nft has not been told.
#[derive(Debug, Default)]
struct Waiting {
    addresses: BTreeSet<Address>,
    prefixes: bool,
    locals: bool,
    learning: bool,
    levels: bool,
    /// All of it.
    everything: bool,
}

/// Packets and bytes our counters have counted, over every table there was.
#[derive(Debug, Default)]
struct Counted {
    last: BTreeMap<String, (u64, u64)>,
    totals: Totals,
}

/// What became of a job.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is in force.
    Applied,
    /// Nothing was changed.
    Failed(String),
    /// Nobody else has changed anything.
    Unchanged,
    /// Our table is not there.
    Gone,
    /// Our table has other rules or sets.
    Altered,
    /// Somebody changed something; the shape of our table is as it was.
    Listed(Contents),
}

/// What our table holds.
#[derive(Debug)]
pub(crate) struct Contents(Box<Listing>);

/// What was found in the table of an earlier controller.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Whether there was one.
    pub(crate) is_there: bool,
    /// Whom services had answered, and for how many seconds that held on.
    pub(crate) proven: Vec<(ProofKey, u64)>,
}

impl Firewall {
    /// Nothing is changed before [`install`](Self::install).
    ///
    /// # Errors
    /// When nft cannot be run or the kernel has no nftables.
    pub(crate) fn start(shape: Shape) -> Result<(Self, Found, mpsc::Receiver<Outcome>)> {
        let found = find(&shape)?;
        let (worker, outcomes) = Worker::start()?;
        let firewall = Self {
            shape,
            entries: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            lists: Vec::new(),
            locals: BTreeSet::new(),
            levels: [0; SERVICES_MAX],
            learning_until: 0,
            waiting: Waiting { everything: true, ..Waiting::default() },
            worker,
            is_busy: false,
            counted: Counted::default(),
        };
        Ok((firewall, found, outcomes))
    }

    /// Notes the entry of an address; none when there is none any longer.
    pub(crate) fn set_address(&mut self, address: Address, source: Option<&Source>) {
        let present = self.entries.get(&address).copied();
        let wanted = source.map(Entry::from).filter(|entry| *entry != Entry::default());
        if present == wanted {
            return;
        }
        match wanted {
            Some(entry) => self.entries.insert(address, entry),
            None => self.entries.remove(&address),
        };
        self.waiting.addresses.insert(address);
    }

    /// Notes what a prefix says, in place of what wider ones say.
    pub(crate) fn set_prefix(&mut self, prefix: Prefix, value: Option<&tables::Prefix>) {
        let wanted = value.map(Entry::from);
        if self.prefixes.get(&prefix).copied() != wanted {
            match wanted {
                Some(entry) => self.prefixes.insert(prefix, entry),
                None => self.prefixes.remove(&prefix),
            };
            self.waiting.prefixes = true;
        }
    }

    /// Notes what lists say.
    pub(crate) fn set_lists(&mut self, lists: &[ListedRange]) {
        if self.lists != lists {
            self.lists = lists.to_vec();
            self.waiting.prefixes = true;
        }
    }

    /// Guards these addresses.
    pub(crate) fn set_locals(&mut self, locals: impl Iterator<Item = Address>) {
        let locals = locals.collect();
        if self.locals != locals {
            self.locals = locals;
            self.waiting.locals = true;
        }
    }

    /// Guards other ports, or with other limits.
    pub(crate) fn set_shape(&mut self, shape: Shape) {
        if self.shape != shape {
            self.shape = shape;
            self.waiting.everything = true;
        }
    }

    /// Takes what concerns us from the gate's status. Called at every heartbeat.
    pub(crate) fn set_status(&mut self, status: &Status) {
        self.waiting.learning |= self.learning_until != status.learning_until;
        self.learning_until = status.learning_until;
        // Levels hold for a few seconds and are said again as long as there are any.
        self.waiting.levels |= self.levels != status.levels || status.levels.iter().any(|levels| *levels > 0);
        self.levels = status.levels;
    }

    /// Puts the whole table into force and waits for it.
    ///
    /// # Errors
    /// Says what nft says; nothing is changed then.
    pub(crate) fn install(
        &mut self,
        now: u64,
        proven: &[(ProofKey, u64)],
        outcomes: &mut mpsc::Receiver<Outcome>,
    ) -> Result<()> {
        self.tell(now, || proven.to_vec())?;
        let outcome = outcomes.blocking_recv().context("the thread that runs nft has ended")?;
        self.is_busy = false;
        match outcome {
            Outcome::Applied => Ok(()),
            Outcome::Failed(why) => bail!("{why}"),
            Outcome::Unchanged | Outcome::Gone | Outcome::Altered | Outcome::Listed(_) => {
                bail!("the thread that runs nft does something else")
            }
        }
    }

    /// Tells nft what it has not been told, unless it is at work. Answers whether there was anything.
    ///
    /// # Errors
    /// When the thread that runs nft is no more.
    pub(crate) fn tell(&mut self, now: u64, proven: impl FnOnce() -> Vec<(ProofKey, u64)>) -> Result<bool> {
        if self.is_busy {
            return Ok(false);
        }
        let is_whole = self.waiting.everything;
        let objects = if is_whole { self.everything(now, &proven()) } else { self.changes(now) };
        self.waiting = Waiting::default();
        if objects.is_empty() {
            return Ok(false);
        }
        self.set_to_work(Job::Apply { ruleset: Nftables { objects: objects.into() }, is_whole })?;
        Ok(true)
    }

    /// Asks whether somebody else changed our table, unless nft is at work.
    ///
    /// # Errors
    /// When the thread that runs nft is no more.
    pub(crate) fn check(&mut self) -> Result<()> {
        if !self.is_busy && !self.waiting.everything {
            self.set_to_work(Job::Check)?;
        }
        Ok(())
    }

    fn set_to_work(&mut self, job: Job) -> Result<()> {
        let jobs = self.worker.jobs.as_ref().context("nft is not run any longer")?;
        jobs.try_send(job).map_err(|_refused| anyhow!("the thread that runs nft has ended"))?;
        self.is_busy = true;
        Ok(())
    }

    /// Takes note of what became of a job. Answers what had to be put right, if anything: it will be with the next
    /// [`tell`](Self::tell).
    ///
    /// # Errors
    /// When nft refused a change. All of it is told anew, then.
    pub(crate) fn handle_outcome(&mut self, outcome: Outcome, now: u64) -> Result<Option<&'static str>> {
        self.is_busy = false;
        let wrong = match outcome {
            Outcome::Applied | Outcome::Unchanged => return Ok(None),
            Outcome::Failed(why) => {
                self.waiting.everything = true;
                bail!("{why}");
            }
            Outcome::Gone => "somebody deleted the table inet floodwall",
            Outcome::Altered => "somebody changed the rules of the table inet floodwall",
            Outcome::Listed(Contents(listing)) => {
                if self.is_right(&listing, now) {
                    return Ok(None);
                }
                "somebody changed the sets of the table inet floodwall"
            }
        };
        self.waiting.everything = true;
        Ok(Some(wrong))
    }

    /// Reads our counters, which takes a few milliseconds. Answers all that was ever counted.
    ///
    /// # Errors
    /// When nft does not tell.
    pub(crate) fn count(&mut self) -> Result<&Totals> {
        if let Some(text) = list(&["list", "counters", "table", "inet", TABLE])? {
            let counters = Listing::read(&text)?.counters;
            self.counted.add(counters);
        }
        Ok(&self.counted.totals)
    }

    fn everything(&self, now: u64, proven: &[(ProofKey, u64)]) -> Vec<NfObject<'static>> {
        let mut objects = self.shape.objects();
        let mut add = |set: &str, elements: &mut dyn Iterator<Item = (Addresses, u64)>| {
            objects.extend(elements::add_elements(set, elements, now));
        };
        for family in Family::ALL {
            for list in List::ALL {
                let mut of_list = self.entries_of(family, list);
                add(&list.of_addresses(family), &mut of_list);
            }
            let guarded = self.locals.iter().filter(|address| Family::of(**address) == family);
            add(&rules::guarded(family), &mut guarded.map(|address| (alone(*address), u64::MAX)));
            for service in 0..self.shape.services.len() {
                let of_service = proven.iter().filter(|(key, _)| {
                    usize::try_from(key.service) == Ok(service) && Family::of(key.address) == family
                });
                let mut of_service = of_service.map(|(key, until)| (alone(key.address), *until));
                add(&rules::proven(service, family), &mut of_service);
            }
        }
        for (set, elements) in elements::prefix_elements(&self.prefixes, &self.lists) {
            add(&set, &mut elements.into_iter());
        }
        objects.extend(self.learning(now));
        objects.extend(self.alarms());
        objects
    }

    fn entries_of(&self, family: Family, list: List) -> impl Iterator<Item = (Addresses, u64)> {
        self.entries
            .iter()
            .filter(move |(address, _)| Family::of(**address) == family)
            .map(move |(address, entry)| (alone(*address), entry.until(list)))
    }

    fn changes(&self, now: u64) -> Vec<NfObject<'static>> {
        let mut objects = Vec::new();
        for family in Family::ALL {
            let changed = self.waiting.addresses.iter().filter(|address| Family::of(**address) == family);
            let changed: Vec<Address> = changed.copied().collect();
            for list in List::ALL {
                let until =
                    |address: &Address| self.entries.get(address).map_or(0, |entry| entry.until(list));
                let wanted: Vec<(Address, u64)> =
                    changed.iter().map(|address| (*address, until(address))).collect();
                objects.extend(elements::replace_addresses(&list.of_addresses(family), &wanted, now));
            }
            if self.waiting.locals {
                let set = rules::guarded(family);
                let guarded = self.locals.iter().filter(|address| Family::of(**address) == family);
                let guarded = guarded.map(|address| (alone(*address), u64::MAX));
                objects.push(elements::flush(&set));
                objects.extend(elements::add_elements(&set, guarded, now));
            }
        }
        if self.waiting.prefixes {
            for family in Family::ALL {
                objects.extend(List::OF_PREFIXES.map(|list| elements::flush(&list.of_prefixes(family))));
            }
            for (set, elements) in elements::prefix_elements(&self.prefixes, &self.lists) {
                objects.extend(elements::add_elements(&set, elements.into_iter(), now));
            }
        }
        if self.waiting.learning {
            objects.push(elements::flush(LEARNING));
            objects.extend(self.learning(now));
        }
        if self.waiting.levels {
            objects.extend(ALARMED.as_flattened().iter().map(|set| elements::flush(set)));
            objects.extend(self.alarms());
        }
        objects
    }

    fn learning(&self, now: u64) -> Vec<NfObject<'static>> {
        let seconds = self.learning_until.saturating_sub(now).div_ceil(1_000_000_000);
        let services = self.shape.services.iter().filter(|service| service.requires_session);
        let ports: Vec<u16> = services.flat_map(|service| service.udp.iter().copied()).collect();
        match u32::try_from(seconds) {
            Ok(0) => Vec::new(),
            Ok(seconds) if !ports.is_empty() => elements::add_ports(LEARNING, &ports, seconds),
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    /// Ports of services at a raised level.
    fn alarms(&self) -> Vec<NfObject<'static>> {
        let mut objects = Vec::new();
        for (shift, sets) in [0, 8].into_iter().zip(ALARMED) {
            for (level, set) in (1..).zip(sets) {
                let alarmed = self.shape.services.iter().zip(self.levels);
                let alarmed = alarmed.filter(|(_, levels)| levels >> shift & 0xff == level);
                let ports =
                    alarmed.flat_map(|(service, _)| if shift == 0 { &service.udp } else { &service.tcp });
                let ports: Vec<u16> = ports.copied().collect();
                if !ports.is_empty() {
                    objects.extend(elements::add_ports(set, &ports, ALARM_SECONDS));
                }
            }
        }
        objects
    }

    /// Whether the sets hold what they should, but for what is on its way.
    fn is_right(&self, listing: &Listing, now: u64) -> bool {
        let waiting: BTreeSet<Addresses> = self.waiting.addresses.iter().map(|one| alone(*one)).collect();
        let is_held = |set: &str, wanted: BTreeMap<Addresses, u64>| {
            let nothing = BTreeMap::new();
            let held = listing.elements.get(set).unwrap_or(&nothing);
            let lasts = |until: &u64| *until > now.saturating_add(SLACK);
            let missing = wanted
                .iter()
                .any(|(range, until)| lasts(until) && !held.contains_key(range) && !waiting.contains(range));
            let strange = held.keys().any(|range| {
                wanted.get(range).is_none_or(|until| until.saturating_add(SLACK) < now)
                    && !waiting.contains(range)
            });
            !missing && !strange
        };
        let mut of_prefixes = elements::prefix_elements(&self.prefixes, &self.lists);
        Family::ALL.into_iter().all(|family| {
            let guarded = self.locals.iter().filter(|address| Family::of(**address) == family);
            let guarded = guarded.map(|address| (alone(*address), u64::MAX)).collect();
            (self.waiting.locals || is_held(&rules::guarded(family), guarded))
                && List::ALL.into_iter().all(|list| {
                    let wanted = self.entries_of(family, list).filter(|(_, until)| *until > 0).collect();
                    is_held(&list.of_addresses(family), wanted)
                })
                && List::OF_PREFIXES.into_iter().all(|list| {
                    let set = list.of_prefixes(family);
                    let wanted = of_prefixes.remove(&set).unwrap_or_default();
                    self.waiting.prefixes || is_held(&set, wanted)
                })
        })
    }
}

impl Counted {
    /// Counters begin anew with every table.
    fn add(&mut self, counters: BTreeMap<String, (u64, u64)>) {
        for service in 0..SERVICES_MAX {
            for reason in COUNTED {
                let name = rules::counter_name(service, reason);
                let Some((packets, bytes)) = counters.get(&name).copied() else { continue };
                let (packets_before, bytes_before) = self.last.get(&name).copied().unwrap_or_default();
                let anew = packets < packets_before;
                let total = self.totals.entry((service as u8, reason)).or_default();
                total.0 += if anew { packets } else { packets - packets_before };
                total.1 += if anew { bytes } else { bytes.saturating_sub(bytes_before) };
            }
        }
        self.last = counters;
    }
}

const fn alone(address: Address) -> Addresses {
    let number = (address.high as u128) << 64 | address.low as u128;
    (number, number)
}

/// Takes our table away. Answers whether there was one.
///
/// # Errors
/// When it is there and cannot be deleted.
pub(crate) fn remove() -> Result<bool> {
    match list(&["list", "tables", "inet"]) {
        // Who cannot run nft has no table of ours.
        Err(error) if is_absent(&error) => return Ok(false),
        Err(error) => return Err(error),
        Ok(None) => return Ok(false),
        Ok(Some(text)) => {
            let tables: serde_json::Value = serde_json::from_str(&text)?;
            let all = tables.get("nftables").and_then(serde_json::Value::as_array);
            let is_ours = |object: &serde_json::Value| {
                object.pointer("/table/name").and_then(serde_json::Value::as_str) == Some(TABLE)
            };
            if !all.is_some_and(|all| all.iter().any(is_ours)) {
                return Ok(false);
            }
        }
    }
    let objects = vec![NfObject::CmdObject(NfCmd::Delete(rules::table()))];
    apply(&Nftables { objects: objects.into() }).context("failed to delete the table inet floodwall")?;
    Ok(true)
}

fn is_absent(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref::<NftablesError>(),
        Some(NftablesError::NftExecution { inner, .. }) if inner.kind() == std::io::ErrorKind::NotFound
    )
}

/// Looks for the table of an earlier controller.
fn find(shape: &Shape) -> Result<Found> {
    let Some(text) = list(&["list", "table", "inet", TABLE])? else { return Ok(Found::default()) };
    let listing = Listing::read(&text)?;
    let mut proven = Vec::new();
    for service in 0..shape.services.len() {
        for family in Family::ALL {
            let held = listing.elements.get(&rules::proven(service, family));
            for ((first, _), seconds) in held.into_iter().flatten() {
                let address = Address { high: (first >> 64) as u64, low: *first as u64 };
                proven.push((ProofKey { address, service: service as u64 }, seconds.unwrap_or(0)));
            }
        }
    }
    Ok(Found { is_there: true, proven })
}

/// What `nft --json` answers; nothing when what is asked for is not there.
fn list(arguments: &[&str]) -> Result<Option<String>> {
    match helper::get_current_ruleset_raw(DEFAULT_NFT, arguments.iter().copied()) {
        Ok(text) => Ok(Some(text)),
        Err(NftablesError::NftFailed { stderr, .. }) if stderr.contains("No such file or directory") => {
            Ok(None)
        }
        Err(error) => Err(explained(error)),
    }
}

fn apply(ruleset: &Nftables<'_>) -> Result<()> {
    helper::apply_ruleset(ruleset).map_err(explained)
}

/// The error with what nft wrote: its first lines, which name what it objects to.
fn explained(error: NftablesError) -> anyhow::Error {
    let said = match &error {
        NftablesError::NftFailed { stderr, .. } => stderr
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .take(3)
            .collect::<Vec<_>>()
            .join("; "),
        NftablesError::NftExecution { .. }
        | NftablesError::NftInvalidJson(_)
        | NftablesError::NftOutputEncoding { .. } => String::new(),
    };
    let error = anyhow::Error::from(error);
    if said.is_empty() { error } else { error.context(format!("nft: {said}")) }
}

/// What the thread is to do.
#[derive(Debug)]
enum Job {
    Apply { ruleset: Nftables<'static>, is_whole: bool },
    Check,
}

/// The thread that runs nft. It ends with the value, after what it is at.
#[derive(Debug)]
struct Worker {
    jobs: Option<jobs::SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start() -> Result<(Self, mpsc::Receiver<Outcome>)> {
        let generation = sockets::ruleset_generation()?;
        let (jobs, to_do) = jobs::sync_channel(1);
        let (done, outcomes) = mpsc::channel(2);
        let thread = thread::Builder::new().name("nft".to_owned()).spawn(move || {
            let mut nft =
                Nft { generation, shape: String::new(), is_suspicious: false, next_look: instant() };
            while let Ok(job) = to_do.recv() {
                let outcome = nft.run(job).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
                if done.blocking_send(outcome).is_err() {
                    return;
                }
            }
        })?;
        Ok((Self { jobs: Some(jobs), thread: Some(thread) }, outcomes))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("The thread that runs nft failed");
        }
    }
}

/// What the thread knows of the kernel's ruleset.
struct Nft {
    /// The number of the last ruleset that was ours.
    generation: u32,
    /// Our table after it was installed.
    shape: String,
    /// Somebody else's change was missed.
    is_suspicious: bool,
    next_look: Instant,
}

impl Nft {
    fn run(&mut self, job: Job) -> Result<Outcome> {
        match job {
            Job::Apply { ruleset, is_whole } => self.apply(&ruleset, is_whole),
            Job::Check => self.check(),
        }
    }

    fn apply(&mut self, ruleset: &Nftables<'_>, is_whole: bool) -> Result<Outcome> {
        let before = sockets::ruleset_generation()?;
        apply(ruleset)?;
        if is_whole {
            let text = list(&["list", "table", "inet", TABLE])?.context("the table went as it came")?;
            self.shape = Listing::read(&text)?.shape;
        }
        let after = sockets::ruleset_generation()?;
        // Every transaction counts one. More than ours is somebody else's.
        self.is_suspicious |= before != self.generation || after != before.wrapping_add(1);
        self.generation = after;
        Ok(Outcome::Applied)
    }

    fn check(&mut self) -> Result<Outcome> {
        let generation = sockets::ruleset_generation()?;
        let begun = instant();
        if (generation == self.generation && !self.is_suspicious) || begun < self.next_look {
            return Ok(Outcome::Unchanged);
        }
        let Some(text) = list(&["list", "table", "inet", TABLE])? else { return Ok(Outcome::Gone) };
        let listing = Listing::read(&text)?;
        self.generation = generation;
        self.is_suspicious = false;
        let took = begun.elapsed();
        self.next_look = begun + took * COMPARING_SHARE;
        if listing.shape != self.shape {
            return Ok(Outcome::Altered);
        }
        Ok(Outcome::Listed(Contents(Box::new(listing))))
    }
}
