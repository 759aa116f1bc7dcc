//! The wall where XDP cannot be attached: the same gate in user space over copies of the packets, from libpcap. It
//! judges, counts, learns and says what it would do; copies cannot be dropped, so nothing is put into force.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Result;
use floodwall_wire::{
    Address, Reason,
    frame::{self, Fragment},
    judge_walked,
    memory::Tables,
    observe_walked,
    tables::status_flags,
    window::SliceWindow,
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    answers::{self, Dropping},
    clock::WallClock,
    control::{Asked, Refusal, Request},
    copies::{Copies, Frame},
    incident::Incidents,
    ledger::LedgerWriter,
    logs::Logs,
    run::{Plan, TICK, next_lines, random_seed},
    wall::{Parts, Seen, Settings, Wall, operate::to_value},
    watching::Watchers,
};
use crate::clock::{boot_id, utc_now};

/// The wall over copies.
pub(super) struct Observed {
    wall: Wall<Tables>,
    copies: Copies,
    logs: Option<Logs>,
    clock: Arc<WallClock>,
    dropped: std::collections::BTreeMap<(u8, Reason), (u64, u64)>,
    traffic: answers::TrafficTally,
}

impl Observed {
    /// Opens the captures. Nothing of the host is changed.
    pub(super) fn put_up(
        plan: &Plan,
        why: String,
        watchers: Arc<Watchers>,
        enforcing: prometheus::Histogram,
    ) -> Result<Self> {
        // Without a gate in the kernel UTC is the clock of everything.
        let utc = utc_now();
        let clock = Arc::new(WallClock::new(utc.as_nanos(), utc, boot_id()));
        let (ledger, remembered) = LedgerWriter::open(&plan.state_folder, utc)?;
        let seed = random_seed()?;
        let mut tables = plan.guard.tables(seed)?;
        tables.status_mut().flags &= !status_flags::ANY_ADDRESS;
        tables.status_mut().heartbeat_until = 0;
        let interfaces = plan
            .interfaces
            .iter()
            .map(|name| answers::Interface { name: name.clone(), mode: "pcap".into(), adopted: false })
            .collect();
        let settings = Settings {
            observe: true,
            state_folder: plan.state_folder.clone(),
            mode: "pcap".into(),
            why: vec![why, "copies of packets cannot be dropped: nothing is put into force".into()],
            interfaces,
            confirm_by: None,
            seed,
        };
        let parts = Parts {
            guard: plan.guard.clone(),
            store: tables,
            clock: Arc::clone(&clock),
            ledger,
            people: plan.open_people()?,
            incidents: Incidents::open(&plan.state_folder)?,
            cutter: None,
            watchers,
            settings,
            enforcing,
        };
        let mut wall = Wall::new(parts, &remembered)?;
        let listed = plan.guard.listed_addresses();
        let locals: Vec<Address> = if listed.is_empty() { wall.local().to_vec() } else { listed };
        for address in locals {
            wall.enforcer.store.insert_local(address);
        }
        wall.begin(plan.guard.learning_time())?;
        wall.handle_tick(false);
        let copies = Copies::start(&plan.interfaces, &plan.guard.capture_filter())?;
        let logs = wall.follow_logs(&plan.logs)?;
        Ok(Self {
            wall,
            copies,
            logs,
            clock,
            dropped: std::collections::BTreeMap::new(),
            traffic: answers::TrafficTally::default(),
        })
    }

    /// Until told to stop.
    pub(super) fn work(&mut self, mut asked: mpsc::Receiver<Asked>, stop: &AtomicBool) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !stop.load(Ordering::Relaxed) {
                tokio::select! {
                    biased;
                    _ = ticks.tick() => {
                        let utc = utc_now();
                        self.clock.update(utc.as_nanos(), utc);
                        self.wall.handle_tick(false);
                        self.wall.note_logs(self.logs.as_mut());
                    }
                    request = asked.recv() => match request {
                        Some(request) => self.answer(request),
                        None => break,
                    },
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
            }
            Ok(())
        })
    }

    /// One packet: judged as the kernel would have, then as one that was mirrored.
    fn handle_frame(&mut self, frame: &Frame) {
        let window = SliceWindow::new(&frame.bytes);
        let Ok(headers) = frame::walk(&window) else { return };
        let tables = &mut self.wall.enforcer.store;
        tables.set_now(frame.at.as_nanos());
        let judgement = judge_walked(&window, tables, &headers);
        let seen = if judgement.is_guarded() {
            let floodwall_wire::Judgement { service, class, reason, bytes, .. } = judgement;
            self.traffic.add(service, class, reason, 1, u64::from(bytes));
            if judgement.verdict() == floodwall_wire::Verdict::Drop {
                let total = self.dropped.entry((judgement.service, judgement.reason)).or_default();
                total.0 += 1;
                total.1 += u64::from(judgement.bytes);
            }
            Seen::Arriving(judgement)
        } else {
            let observation = observe_walked(&window, tables, &headers);
            if !observation.is_guarded() {
                return self.wall.handle_link(frame.at, &frame.bytes, &headers);
            }
            Seen::Departing { service: observation.service, class: observation.class }
        };
        if headers.fragment == Fragment::Whole {
            self.wall.handle_packet(frame.at, &frame.bytes, &headers, &seen);
        }
    }

    fn answer(&mut self, asked: Asked) {
        self.wall.remember_terminal(asked.from.as_deref());
        asked.answer(|request| {
            if matches!(request, Request::Reload) {
                Err(Refusal::bad_input("observing from a capture, other rules take a restart"))
            } else if matches!(request, Request::Status) {
                self.status()
            } else {
                self.wall.handle_request(request)
            }
        });
    }

    fn status(&self) -> Result<serde_json::Value, Refusal> {
        let mut status = self.wall.status();
        status.dropping = self
            .dropped
            .iter()
            .map(|((service, reason), (packets, bytes))| Dropping {
                service: self.wall.service_name(*service).to_owned(),
                reason: reason.as_str().to_owned(),
                packets_per_second: 0,
                packets: *packets,
                bytes: *bytes,
            })
            .collect();
        status.traffic = self.traffic.rows(&|service| self.wall.service_name(service));
        let lost = self.copies.lost();
        if lost > 0 {
            status.losses.push(answers::Loss { what: "packets not captured".into(), count: lost });
        }
        to_value(&status)
    }
}
