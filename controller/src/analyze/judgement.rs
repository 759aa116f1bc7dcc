//! Lines in the log's order: read, counted, shown to the rules.
//!
//! During an attack nearly all lines are those of somebody whose ban would stand already. They move no rule, so they are
//! counted and no more; everything else is read in full. Both ways give the same (`tests.rs`).

use anyhow::{Result, bail};
use floodwall_engine::{
    Engine, Timestamp,
    protocol::log::{Format, Glance, LogReader, Reading},
    rule::RuleFile,
    signal::Signal,
};

use super::{
    hitters::Place,
    lines::Block,
    tally::Tally,
    workers::{Glanced, Judge, Line},
};
use crate::{configuration::Configuration, guard::Guard};

/// Fixed, so that the same log gives the same report.
const SEED: u64 = 1;

/// The time that is asked for; what lies before it is read to know who is who.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
}

impl Window {
    fn contains(self, at: Timestamp) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }
}

/// Readers, engine and counts.
pub(super) struct Judgement {
    engine: Engine,
    guard: Guard,
    tally: Tally,
    window: Window,
    /// One of each format: a rotated log goes on where the one before ended.
    readers: Vec<(Format, LogReader)>,
    /// Which of them reads now.
    current: usize,
    file: String,
    /// Whose log it is was said by the caller: then what looks like another's is not believed.
    is_forced: bool,
    /// Lines of the file that came before.
    before: u64,
    signals: Vec<Signal>,
    /// Where the accounts of the block at hand are counted.
    accounts: Vec<Place>,
}

impl Judgement {
    /// Nothing read yet.
    ///
    /// # Errors
    /// When the rules guard nothing.
    pub(super) fn new(rules: Vec<RuleFile>, window: Window) -> Result<Self, String> {
        let guard = Guard::new(rules, &Configuration::default(), &[])?;
        let engine = Engine::new(guard.engine(SEED));
        Ok(Self {
            engine,
            guard,
            tally: Tally::new(),
            window,
            readers: Vec::new(),
            current: 0,
            file: String::new(),
            is_forced: false,
            before: 0,
            signals: Vec::new(),
            accounts: Vec::new(),
        })
    }

    /// The lines that follow are those of this file.
    ///
    /// # Errors
    /// When the rules know no such service.
    pub(super) fn begin(&mut self, file: &str, format: Format, is_forced: bool) -> Result<()> {
        file.clone_into(&mut self.file);
        self.is_forced = is_forced;
        self.before = 0;
        if let Some(at) = self.readers.iter().position(|(known, _)| *known == format) {
            self.current = at;
            return Ok(());
        }
        let protocol = format.protocol();
        let service = self.guard.services.iter().position(|service| service.file.protocol == protocol);
        let Some(service) = service.and_then(|service| u8::try_from(service).ok()) else {
            bail!("the rules have no service {}", protocol.as_str());
        };
        self.current = self.readers.len();
        self.readers.push((format, LogReader::new(format, service, SEED)));
        Ok(())
    }

    /// Lines before the first that shows whose log it is.
    pub(super) fn pass_over(&mut self, block: &Block) {
        let lines = block.bytes().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64;
        self.tally.lines += lines + block.overlong;
        self.tally.unparsed += lines;
        self.tally.overlong += block.overlong;
    }

    /// Lines passed over as too long.
    pub(super) const fn overlong(&self) -> u64 {
        self.tally.overlong
    }

    /// The input is over.
    pub(super) fn finish(mut self) -> Tally {
        self.engine.finish();
        self.take_commands();
        self.tally
    }

    /// Takes one line in full; answers whose it is if it is not this server's.
    fn take_line(&mut self, line: &[u8]) -> Option<Format> {
        let (format, reader) = self.readers.get_mut(self.current)?;
        let (reading, at) = reader.read_line(line, &mut self.signals);
        if reading == Reading::Unknown {
            let other = Format::recognise(line).filter(|other| other != format && !self.is_forced);
            if other.is_some() {
                return other;
            }
        }
        if !self.is_wanted(at) {
            self.signals.clear();
            return None;
        }
        if reading == Reading::Unknown {
            self.tally.unparsed += 1;
        }
        self.judge_signals(at);
        None
    }

    fn judge_signals(&mut self, at: Timestamp) {
        if self.signals.is_empty() {
            return;
        }
        for signal in &self.signals {
            self.tally.note_signal(signal);
        }
        let address = self.signals.first().map(|signal| signal.address);
        let is_banned = self.engine.handle_log(at, &mut self.signals);
        let bans = self.tally.bans_made;
        self.take_commands();
        // Whose ban neither stood nor was made now has none.
        if (is_banned || self.tally.bans_made != bans)
            && let Some(address) = address
            && let Some(until) = self.engine.banned_until(address, at)
            && let Some(source) = self.tally.sources.get_mut(&address)
        {
            source.banned_until = until;
        }
    }

    /// Takes a line that was glanced at.
    fn take_glance(&mut self, glance: &Glance, line: Line<'_>, glanced: &Glanced) -> Option<Format> {
        let Self { engine, tally, window, readers, current, accounts, .. } = self;
        let (_, reader) = readers.get_mut(*current)?;
        let at = glance.at;
        let actor = reader.actor(glance).filter(|actor| actor.is_plain && window.contains(at));
        let is_step = actor.and_then(|actor| {
            tally.count_banned(actor.address, glance.number, glance.kind, at, engine.now())
        });
        let Some(is_step) = is_step else { return self.take_in_full(glance, line.bytes) };
        reader.pass(glance);
        if let Some(number) = line.account
            && let Some(account) = glanced.account(number)
            && let Some(place) = accounts.get_mut(number)
        {
            tally.count_account_at(place, account);
        }
        if is_step {
            engine.handle_clock_step(at);
        }
        if engine.is_due(at) {
            engine.handle_timeout(at);
            self.take_commands();
        }
        self.engine.handle_banned(glance.kind, at);
        None
    }

    /// Takes a line of somebody whom rules still look at.
    fn take_in_full(&mut self, glance: &Glance, line: &[u8]) -> Option<Format> {
        let (_, reader) = self.readers.get_mut(self.current)?;
        if !reader.read_glance(glance, &mut self.signals) {
            return self.take_line(line);
        }
        if self.is_wanted(glance.at) {
            self.judge_signals(glance.at);
        } else {
            self.signals.clear();
        }
        None
    }

    /// Counts a line that is asked for.
    fn is_wanted(&mut self, at: Timestamp) -> bool {
        if !self.window.contains(at) {
            self.tally.outside += 1;
            return false;
        }
        self.tally.lines += 1;
        if self.tally.note_time(at) {
            self.engine.handle_clock_step(at);
        }
        true
    }

    fn take_commands(&mut self) {
        while let Some(command) = self.engine.next_command() {
            self.tally.note_command(&command);
        }
    }
}

impl Judge for Judgement {
    fn judge(&mut self, glanced: &Glanced) -> Result<()> {
        self.before += glanced.overlong;
        self.tally.overlong += glanced.overlong;
        self.tally.lines += glanced.overlong;
        self.accounts.clear();
        self.accounts.resize(glanced.accounts(), Place::NONE);
        for line in glanced.lines() {
            self.before += 1;
            let other = match line.glance {
                Some(glance) => self.take_glance(glance, line, glanced),
                None => self.take_line(line.bytes),
            };
            if let Some(other) = other {
                let format = self.readers.get(self.current).map_or("another", |(format, _)| format.as_str());
                bail!(
                    "{}, line {}: from here on it is a log of {}, not of {format}; cut it there, or name its server \
                     with --flavour",
                    self.file,
                    self.before,
                    other.as_str(),
                );
            }
        }
        Ok(())
    }
}

/// The time of the first of some lines that has one.
pub(super) fn first_time<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Option<Timestamp> {
    lines.find_map(|line| {
        let mut reader = LogReader::new(Format::recognise(line)?, 0, SEED);
        let (_, at) = reader.read_line(line, &mut Vec::new());
        (at != Timestamp::EPOCH).then_some(at)
    })
}
