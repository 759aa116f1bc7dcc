//! The wall where XDP cannot be attached: the same gate in user space over copies of the packets, from libpcap. It
//! judges, counts and learns. What it decides is put into force by a table of nftables, as far as nftables can; without
//! that it says what it would do.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result};
use floodwall_engine::Timestamp;
use floodwall_kernel::{gate, tables::Fill};
use floodwall_wire::{
    Address, Judgement, Reason, State, Verdict,
    frame::{self, Fragment, Headers, Transport},
    judge_walked,
    memory::Tables,
    observe_walked,
    tables::{PROOFS_MAX, ProofKey, status_flags},
    window::SliceWindow,
};
use prometheus::Histogram;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    answers::{self, STEPS_IN_NFTABLES},
    clock::WallClock,
    control::{Asked, Refusal, Request},
    copies::{Copies, Frame},
    cut::Cutter,
    incident::Incidents,
    ledger::LedgerWriter,
    logs::Logs,
    metrics,
    rates::{Rates, SAMPLE_TICKS, Totals},
    run::{Plan, TICK, change_allowed, next_lines, random_seed, reloaded},
    sockets,
    wall::{Parts, Seen, Settings, Wall, operate::to_value},
    watching::Watchers,
};
use crate::{
    clock::{boot_id, utc_now},
    enforce::{
        copies::CopiesStore,
        nftables::{Firewall, Outcome, Shape},
    },
    guard::Guard,
    lists::Lists,
};

/// What decisions do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Effect {
    /// nftables puts them into force.
    Nftables,
    /// Nothing.
    Nothing,
}

/// The wall over copies.
pub(super) struct Observed {
    plan: Plan,
    wall: Wall<CopiesStore>,
    copies: Copies,
    logs: Option<Logs>,
    clock: Arc<WallClock>,
    /// What the gate would have dropped, where nothing is.
    dropped: Totals,
    rates: Rates,
    traffic: answers::TrafficTally,
    /// What became of what nft was told; absent where it is told nothing.
    outcomes: Option<mpsc::Receiver<Outcome>>,
    enforcing: Histogram,
    /// The packet whose consequences nft is being told, and the first since.
    telling_of: Option<Timestamp>,
    waiting_of: Option<Timestamp>,
    ticks: u64,
    is_failing: bool,
}

impl Observed {
    /// Opens the captures and, where decisions are to have an effect, installs our table: last, so that whatever fails
    /// leaves the host as it was.
    pub(super) fn put_up(
        plan: &Plan,
        effect: Effect,
        why: Vec<String>,
        watchers: Arc<Watchers>,
        enforcing: Histogram,
    ) -> Result<Self> {
        // Without a gate in the kernel UTC is the clock of everything. Deadlines by it mean nothing to a gate that counts
        // from the boot on, so they are written down as of another boot: there UTC holds.
        let utc = utc_now();
        let clock = Arc::new(WallClock::new(utc.as_nanos(), utc, format!("{}-utc", boot_id())));
        let copies = Copies::start(&plan.interfaces, &plan.guard.capture_filter())?;
        let has_effect = effect == Effect::Nftables && !plan.observe;
        let (firewall, found, mut outcomes) = if has_effect {
            let (firewall, found, outcomes) = Firewall::start(Shape::new(&plan.guard, &plan.interfaces))?;
            (Some(firewall), found, Some(outcomes))
        } else {
            Default::default()
        };
        let (ledger, remembered) = LedgerWriter::open(&plan.state_folder, utc)?;
        let seed = random_seed()?;
        let mut tables = plan.guard.tables(seed)?;
        tables.set_now(utc.as_nanos());
        tables.status_mut().flags &= !status_flags::ANY_ADDRESS;
        tables.status_mut().heartbeat_until = 0;
        prove_connected(&plan.guard, &mut tables)?;
        for (key, seconds) in &found.proven {
            tables.prove(key, utc.as_nanos().saturating_add(seconds.saturating_mul(1_000_000_000)));
        }
        let parts = Parts {
            guard: plan.guard.clone(),
            store: CopiesStore { tables, firewall },
            clock: Arc::clone(&clock),
            ledger,
            people: plan.open_people()?,
            incidents: Incidents::open(&plan.state_folder)?,
            cutter: if has_effect { Some(Cutter::start()?) } else { None },
            watchers,
            settings: settings(plan, has_effect, why, &clock, found.is_there, seed),
            // Of what becomes of decisions later only we know.
            enforcing: if has_effect { metrics::enforcing_histogram()? } else { enforcing.clone() },
        };
        let mut wall = Wall::new(parts, &remembered)?;
        let learning = if found.is_there { floodwall_engine::Span::ZERO } else { plan.guard.learning_time() };
        wall.set_lists(Lists::clone(&plan.lists))?;
        wall.begin(learning)?;
        guard_locals(&mut wall, &plan.guard);
        wall.handle_tick(false);
        if let Some(outcomes) = &mut outcomes {
            install(&mut wall.enforcer.store, outcomes)?;
            // One gate is enough: what an earlier controller left of XDP was told to the ledger.
            for interface in gate::detach(&plan.pins)? {
                wall.note_repair(format!("the gate at {interface} was removed: nftables is in force"));
            }
        }
        let logs = wall.follow_logs(&plan.logs)?;
        Ok(Self {
            plan: plan.clone(),
            wall,
            copies,
            logs,
            clock,
            dropped: Totals::new(),
            rates: Rates::default(),
            traffic: answers::TrafficTally::default(),
            outcomes,
            enforcing,
            telling_of: None,
            waiting_of: None,
            ticks: 0,
            is_failing: false,
        })
    }

    /// Whether nftables puts decisions into force.
    pub(super) const fn has_firewall(&self) -> bool {
        self.outcomes.is_some()
    }

    /// Until told to stop. Answers whether everything is to be taken back for want of confirmation.
    pub(super) fn work(&mut self, mut asked: mpsc::Receiver<Asked>, stop: &AtomicBool) -> Result<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !stop.load(Ordering::Relaxed) {
                tokio::select! {
                    biased;
                    _ = ticks.tick() => self.handle_tick()?,
                    request = asked.recv() => match request {
                        Some(request) => self.answer(request),
                        None => break,
                    },
                    outcome = next_outcome(&mut self.outcomes) => self.handle_outcome(outcome?),
                    frame = self.copies.next() => match frame {
                        Some(frame) => self.handle_frame(&frame),
                        None => anyhow::bail!("no interface can be read any longer"),
                    },
                    Some(batch) = next_lines(&mut self.logs) => {
                        if let Some(logs) = &mut self.logs {
                            self.wall.handle_log(logs, &batch);
                        }
                    }
                }
                self.tell_nft()?;
                if self.wall.must_revert() {
                    tracing::warn!("Nobody confirmed the wall; everything is taken back");
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    fn handle_tick(&mut self) -> Result<()> {
        let utc = utc_now();
        self.clock.update(utc.as_nanos(), utc);
        self.wall.enforcer.store.tables.set_now(utc.as_nanos());
        self.wall.handle_tick(false);
        self.wall.note_logs(self.logs.as_mut());
        self.ticks += 1;
        if self.ticks.is_multiple_of(SAMPLE_TICKS) {
            guard_locals(&mut self.wall, &self.plan.guard);
            self.count_dropped();
            let dropped = self.dropped.clone();
            self.rates.sample(dropped, &self.plan.interfaces);
        }
        match &mut self.wall.enforcer.store.firewall {
            Some(firewall) => firewall.check(),
            None => Ok(()),
        }
    }

    /// What nftables has dropped, where it does.
    fn count_dropped(&mut self) {
        if let Some(firewall) = &mut self.wall.enforcer.store.firewall {
            match firewall.count() {
                Ok(totals) => self.dropped.clone_from(totals),
                Err(error) => tracing::debug!(error = format!("{error:#}"), "nft does not tell its counters"),
            }
        }
    }

    /// Whatever the last packet, order or second has changed.
    fn tell_nft(&mut self) -> Result<()> {
        let CopiesStore { tables, firewall } = &mut self.wall.enforcer.store;
        let Some(firewall) = firewall else { return Ok(()) };
        if firewall.tell(State::now(tables), || proofs(tables))? {
            self.telling_of = self.waiting_of.take();
        }
        Ok(())
    }

    fn handle_outcome(&mut self, outcome: Outcome) {
        let store = &mut self.wall.enforcer.store;
        let Some(firewall) = &mut store.firewall else { return };
        let is_applied = matches!(outcome, Outcome::Applied);
        match firewall.handle_outcome(outcome, State::now(&store.tables)) {
            Ok(None) => {}
            Ok(Some(wrong)) => {
                tracing::warn!(wrong, "Somebody else changed our table; it is put right");
                self.wall.note_repair(format!("{wrong}; it was put right"));
            }
            Err(error) => {
                self.wall.note_not_enforced();
                // Said once until it works again.
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(error = format!("{error:#}"), "nftables does not take what is decided");
                }
            }
        }
        if is_applied {
            self.is_failing = false;
            if let Some(at) = self.telling_of.take() {
                self.enforcing.observe(utc_now().since(at).as_nanos() as f64 / 1e9);
            }
        }
    }

    /// One packet: judged as the kernel would have, then as one that was mirrored.
    fn handle_frame(&mut self, frame: &Frame) {
        let window = SliceWindow::new(&frame.bytes);
        let Ok(headers) = frame::walk(&window) else { return };
        let tables = &mut self.wall.enforcer.store.tables;
        tables.set_now(State::now(tables).max(frame.at.as_nanos()));
        let judgement = judge_walked(&window, tables, &headers);
        let seen = if judgement.is_guarded() {
            let Judgement { service, class, reason, bytes, .. } = judgement;
            self.traffic.add(service, class, reason, 1, u64::from(bytes));
            if judgement.verdict() == Verdict::Drop && self.outcomes.is_none() {
                let total = self.dropped.entry((service, reason)).or_default();
                total.0 += 1;
                total.1 += u64::from(bytes);
            }
            Seen::Arriving(as_it_went(judgement, &headers))
        } else {
            let observation = observe_walked(&window, tables, &headers);
            if !observation.is_guarded() {
                return self.wall.handle_link(frame.at, &frame.bytes, &headers);
            }
            Seen::Departing { service: observation.service, class: observation.class }
        };
        if headers.fragment == Fragment::Whole {
            let bans = self.wall.bans_made();
            self.wall.handle_packet(frame.at, &frame.bytes, &headers, &seen);
            if self.wall.bans_made() > bans {
                self.waiting_of.get_or_insert(frame.at);
            }
        }
    }

    fn answer(&mut self, asked: Asked) {
        self.wall.remember_terminal(asked.from.as_deref());
        asked.answer(|request| {
            if matches!(request, Request::Reload) {
                self.reload()
            } else if matches!(request, Request::Status) {
                self.status()
            } else {
                self.wall.handle_request(request)
            }
        });
    }

    /// Rules and services anew, all or nothing.
    fn reload(&mut self) -> Result<serde_json::Value, Refusal> {
        let failed = |error: anyhow::Error| {
            Refusal::failed(format!("the rules as they were stay in force: {error:#}"))
        };
        let (plan, notifier) = self.plan.read_again()?;
        let filter = plan.guard.capture_filter();
        if filter != self.plan.guard.capture_filter() {
            self.copies = Copies::start(&plan.interfaces, &filter).map_err(failed)?;
        }
        let mut changes = plan.guard.differences(&self.plan.guard);
        changes.extend(plan.list_differences(&self.plan));
        self.wall.set_lists(Lists::clone(&plan.lists)).map_err(failed)?;
        let before = std::mem::replace(&mut self.plan, plan);
        let CopiesStore { tables, firewall } = &mut self.wall.enforcer.store;
        let ports = self.plan.guard.port_block();
        for (transport, block) in
            [Transport::Tcp, Transport::Udp].into_iter().zip(ports.as_chunks::<65_536>().0)
        {
            for (port, value) in (0..=u16::MAX).zip(block) {
                tables.set_port(0, transport, port, *value);
            }
        }
        for (service, settings) in (0..).zip(self.plan.guard.all_settings()) {
            tables.set_settings(0, service, settings);
        }
        if let Some(firewall) = firewall {
            firewall.set_shape(Shape::new(&self.plan.guard, &self.plan.interfaces));
        }
        self.wall.replace_rules(&self.plan.guard);
        self.wall.set_notifier(notifier);
        change_allowed(&mut self.wall.enforcer, &before.guard, &self.plan.guard).map_err(failed)?;
        guard_locals(&mut self.wall, &self.plan.guard);
        reloaded(changes)
    }

    fn status(&mut self) -> Result<serde_json::Value, Refusal> {
        self.count_dropped();
        let mut status = self.wall.status();
        status.steps = answers::steps(&STEPS_IN_NFTABLES, status.evaluating);
        let rates: BTreeMap<_, _> =
            self.rates.rows().map(|(service, reason, per_second)| ((service, reason), per_second)).collect();
        let mut dropping: Vec<_> = self
            .dropped
            .iter()
            .map(|((service, reason), (packets, bytes))| answers::Dropping {
                service: self.wall.service_name(*service).to_owned(),
                reason: reason.as_str().to_owned(),
                packets_per_second: rates.get(&(*service, *reason)).copied().unwrap_or(0),
                packets: *packets,
                bytes: *bytes,
            })
            .filter(|row| row.packets > 0)
            .collect();
        dropping.sort_by_key(|row| std::cmp::Reverse((row.packets_per_second, row.packets)));
        status.dropping = dropping;
        status.full_links = self.rates.full_links();
        status.traffic = self.traffic.rows(&|service| self.wall.service_name(service));
        let tables = &self.wall.enforcer.store.tables;
        status.tables.push(Fill {
            table: "proofs".into(),
            entries: tables.proofs().count() as u64,
            capacity: PROOFS_MAX,
            refused: 0,
            evicted: tables.proofs_evicted(),
        });
        let lost = self.copies.lost();
        if lost > 0 {
            status.losses.push(answers::Loss { what: "packets not captured".into(), count: lost });
        }
        to_value(&status)
    }
}

fn settings(
    plan: &Plan,
    has_effect: bool,
    mut why: Vec<String>,
    clock: &WallClock,
    adopted: bool,
    seed: u64,
) -> Settings {
    let mode = if has_effect { "nftables" } else { "pcap" };
    if !has_effect {
        why.push("copies of packets cannot be dropped: nothing is put into force".into());
    }
    let interface = |name: &String| answers::Interface { name: name.clone(), mode: mode.into(), adopted };
    Settings {
        observe: !has_effect,
        state_folder: plan.state_folder.clone(),
        mode: mode.into(),
        why,
        interfaces: plan.interfaces.iter().map(interface).collect(),
        confirm_by: plan.arguments.confirm.filter(|_| has_effect).map(|within| clock.now() + within),
        seed,
    }
}

/// Whoever is connected already holds a session.
fn prove_connected(guard: &Guard, tables: &mut Tables) -> Result<()> {
    let now = State::now(tables);
    for connected in sockets::connected()?.iter().filter(|one| one.state == sockets::ESTABLISHED) {
        if let Some((service, lasts)) = guard.session_of(connected.local.port()) {
            let key = ProofKey { address: Address::from(connected.remote.ip()), service: u64::from(service) };
            tables.prove(&key, now.saturating_add(lasts.as_nanos()));
        }
    }
    Ok(())
}

/// Services are guarded at the addresses the configuration lists, or at every one of this host.
fn guard_locals(wall: &mut Wall<CopiesStore>, guard: &Guard) {
    let listed = guard.listed_addresses();
    let locals: Vec<Address> = if listed.is_empty() { wall.local().to_vec() } else { listed };
    let CopiesStore { tables, firewall } = &mut wall.enforcer.store;
    for address in &locals {
        tables.insert_local(*address);
    }
    if let Some(firewall) = firewall {
        firewall.set_locals(locals.into_iter());
    }
}

fn install(store: &mut CopiesStore, outcomes: &mut mpsc::Receiver<Outcome>) -> Result<()> {
    let CopiesStore { tables, firewall } = store;
    let firewall = firewall.as_mut().context("there is nothing to install")?;
    firewall.install(State::now(tables), &proofs(tables), outcomes)
}

fn proofs(tables: &Tables) -> Vec<(ProofKey, u64)> {
    tables.proofs().map(|(key, proof)| (*key, proof.until.load())).collect()
}

/// What the gate alone would have dropped has passed, and what nftables drops of it TCP sends again: either way a segment
/// counts once the server has acknowledged it. Only the banned are cut off for sure.
fn as_it_went(judgement: Judgement, headers: &Headers) -> Judgement {
    let is_banned = matches!(judgement.reason, Reason::BanAddress | Reason::BanPrefix);
    let is_tcp = headers.transport == Transport::Tcp;
    if is_tcp && judgement.verdict() == Verdict::Drop && !is_banned && !judgement.reason.is_shape() {
        return Judgement { reason: Reason::Admitted, ..judgement };
    }
    judgement
}

/// What became of the next job of nft, where it has any; for ever otherwise.
async fn next_outcome(outcomes: &mut Option<mpsc::Receiver<Outcome>>) -> Result<Outcome> {
    match outcomes {
        Some(outcomes) => outcomes.recv().await.context("the thread that runs nft has ended"),
        None => std::future::pending().await,
    }
}
