//! What the wall tells of itself.

use std::collections::BTreeMap;

use floodwall_engine::{
    Side, Timestamp,
    command::{Front, Prefix},
    ledger::Ban as EngineBan,
    protocol::irc::link::LinkView,
    text::Text,
};

use super::{OPERATOR_RULE, Wall, operate::to_value};
use crate::{
    enforce::tables::Store,
    lists::{List, Treatment},
    live::{
        answers::{
            Ban, Bans, ClassOfTraffic, Explanation, FiredRule, Link, LinkChannel, LinkServer, LinkUser,
            Links, Loss, Present, ReadList, Service, Status, Who, Worst,
        },
        control::Refusal,
        ledger::{self, BanRow, parse_subject},
        metrics::Snapshot,
        people::People,
    },
    output::shown,
    replay::rfc3339,
    suggest,
};

/// Sources listed that rules have dealt with.
const WORST_LISTED: usize = 20;
/// Bans listed at most.
const BANS_LISTED_MAX: usize = 10_000;
/// Servers, users and channels listed of one link at most.
const LINK_ROWS_MAX: usize = 10_000;

impl<S: Store> Wall<S> {
    /// All but what the one who runs the wall adds: what is dropped, and which links are full.
    pub(crate) fn status(&self) -> Status {
        let now = self.clock.now();
        let services = self.guard.services.iter().enumerate().map(|(index, service)| {
            let (tcp_ports, udp_ports) = service.ports_by_transport();
            let index = u8::try_from(index).unwrap_or(u8::MAX);
            Service {
                name: service.name.to_owned(),
                level: self.engine.level(index).as_str().to_owned(),
                classes: self.classes(index, &tcp_ports, &udp_ports),
                tcp_ports,
                udp_ports,
            }
        });
        Status {
            schema: "floodwall.status/1".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            mode: self.settings.mode.clone(),
            why: self.settings.why.clone(),
            interfaces: self.settings.interfaces.clone(),
            steps: Vec::new(),
            evaluating: self.settings.observe,
            learning_seconds: self.learning_seconds(),
            running_seconds: now.since(self.started).as_secs(),
            unconfirmed_seconds: self.settings.confirm_by.map(|by| by.since(now).as_secs()),
            services: services.collect(),
            present: self.roster.len(),
            known: self.enforcer.known(),
            bans: self.engine.ledger().bans().count(),
            allowed: self.enforcer.allowed().map(|prefix| prefix.to_string()).collect(),
            lists: self.lists(),
            traffic: Vec::new(),
            worst: self.worst(),
            dropping: Vec::new(),
            full_links: Vec::new(),
            rules: self.fired_rules(),
            losses: self.losses(),
            tables: Vec::new(),
            logs: self.logs.clone(),
            ledger_failing: self.ledger.health().failing.load(std::sync::atomic::Ordering::Relaxed),
            repaired: self.repaired.clone(),
        }
    }

    fn lists(&self) -> Vec<ReadList> {
        let row = |list: &List| ReadList {
            path: list.path.to_string_lossy().into_owned(),
            action: list.treatment.as_str().to_owned(),
            prefixes: list.prefixes,
        };
        self.enforcer.lists().all().iter().map(row).collect()
    }

    /// Whom rules have dealt with lately.
    fn worst(&self) -> Vec<Worst> {
        let outcome = |action| match action {
            "ban" => "banned",
            "limit" => "limited",
            "note" => "noted",
            other => other,
        };
        let listed = self.worst.listed(WORST_LISTED).into_iter();
        listed
            .map(|(subject, dealt)| Worst {
                subject: subject.to_owned(),
                outcome: outcome(dealt.action).to_owned(),
                rule: dealt.rule.to_string(),
                at: rfc3339(self.clock.to_utc(dealt.at)),
                times: dealt.times,
            })
            .collect()
    }

    /// The classes of traffic that a service has ports for.
    fn classes(&self, service: u8, tcp: &[u16], udp: &[u16]) -> Vec<ClassOfTraffic> {
        let has_ports = |front: &Front| match front {
            Front::Udp => !udp.is_empty(),
            Front::Tcp => !tcp.is_empty(),
        };
        let class = |front| {
            let gauge = self.engine.gauge(service, front);
            ClassOfTraffic {
                class: front.as_str().to_owned(),
                level: self.engine.level_of(service, front).as_str().to_owned(),
                strangers: gauge.strangers,
                usual: gauge.usual,
                alarmed_from: gauge.alarmed_from,
                hours_learnt: gauge.hours_learnt,
            }
        };
        Front::ALL.into_iter().filter(has_ports).map(class).collect()
    }

    fn learning_seconds(&self) -> u64 {
        self.learning_until.since(self.clock.now()).as_secs()
    }

    fn fired_rules(&self) -> Vec<FiredRule> {
        let rule = |(rule, fired): (&floodwall_engine::rule::RuleId, floodwall_engine::engine::Fired)| {
            FiredRule { rule: rule.to_string(), fired: fired.fired, shadowed: fired.shadowed }
        };
        self.engine.fired().map(rule).collect()
    }

    fn losses(&self) -> Vec<Loss> {
        use std::sync::atomic::Ordering::Relaxed;
        let mut losses: Vec<Loss> =
            self.engine.losses().into_iter().map(|(what, count)| Loss { what: what.into(), count }).collect();
        let mut add = |what: &str, count: u64| losses.push(Loss { what: what.into(), count });
        add("ledger entries lost", self.ledger.health().lost.load(Relaxed));
        add("decisions not put into force", self.counts.not_enforced);
        add("people not listed for lack of room", self.roster.unlisted());
        add("lines of incidents not recorded", self.incidents.lost());
        add("sightings of people not kept", self.people.as_ref().map_or(0, People::lost));
        if let Some(cutter) = &self.cutter {
            add("connections that could not be cut", cutter.counts().failed.load(Relaxed));
        }
        losses.retain(|loss| loss.count > 0);
        losses
    }

    pub(super) fn list_bans(&self, history: bool, limit: usize) -> Result<serde_json::Value, Refusal> {
        let limit = limit.min(BANS_LISTED_MAX);
        let bans: Vec<Ban> = if history {
            let rows = ledger::history(&self.settings.state_folder, None, limit);
            let rows = rows.map_err(|error| Refusal::failed(format!("{error:#}")))?;
            rows.iter().map(ban_of_row).collect()
        } else {
            let mut standing: Vec<_> = self.engine.ledger().bans().collect();
            standing.sort_by_key(|(_, ban)| std::cmp::Reverse(ban.since));
            standing.into_iter().take(limit).map(|(subject, ban)| self.ban_of(subject, ban)).collect()
        };
        to_value(&Bans { schema: "floodwall.bans/1".into(), bans })
    }

    fn ban_of(&self, subject: Prefix, ban: &EngineBan) -> Ban {
        let explanation = &ban.explanation;
        Ban {
            subject: subject.to_string(),
            rule: explanation.rule.to_string(),
            why: explanation.why.to_string(),
            since: rfc3339(self.clock.to_utc(ban.since)),
            until: self.until(ban.until),
            count: explanation.count,
            limit: explanation.limit,
            within: explanation.within.to_string(),
            evidence: explanation.evidence.clone(),
            ended: None,
            ended_why: None,
        }
    }

    fn until(&self, at: Timestamp) -> String {
        if at == Timestamp::NEVER { "never".into() } else { rfc3339(self.clock.to_utc(at)) }
    }

    pub(super) fn who(&self) -> Who {
        let present =
            |(_, present): (floodwall_engine::signal::FlowId, &crate::live::roster::Present)| Present {
                service: self.service_name(present.service).to_owned(),
                channel: raw(present.channel.as_ref()),
                nickname: raw(present.nickname.as_ref()),
                account: raw(present.account.as_ref()),
                address: present.address.to_string(),
                since: rfc3339(self.clock.to_utc(present.since)),
            };
        Who {
            schema: "floodwall.who/1".into(),
            present: self.roster.everybody().into_iter().map(present).collect(),
            unlisted: self.roster.unlisted(),
        }
    }

    /// What other limits would have cost, by what was counted while nothing was wrong.
    pub(super) fn suggest(&self) -> suggest::Report {
        let (rules, peaks) = self.habits.by_service();
        suggest::Report {
            since: Some(rfc3339(self.clock.to_utc(self.started))),
            packets: self.counts.packets,
            signals: self.habits.signals(),
            ..suggest::report(rules, peaks)
        }
    }

    pub(super) fn catalogue(&self) -> crate::catalogue::Report {
        let utc = |at| rfc3339(self.clock.to_utc(at));
        crate::catalogue::report(self.engine.catalogue(), |service| self.service_name(service), utc)
    }

    /// What the debugging dumps of TS servers showed: who and what each link believes in, and since when.
    pub(super) fn links(&self, rows: usize) -> Links {
        let views = self.engine.links(rows.min(LINK_ROWS_MAX));
        Links {
            schema: "floodwall.links/1".into(),
            links: views.into_iter().map(|view| self.link(view)).collect(),
        }
    }

    fn link(&self, view: LinkView) -> Link {
        let [servers_total, users_total, channels_total] = view.totals;
        let peer_connected = view.peer_side == Side::Client;
        Link {
            service: self.service_name(view.service).to_owned(),
            peer: raw(view.peer.as_ref()),
            peer_address: view.peer_address.to_string(),
            own: raw(view.own.as_ref()),
            dialect: view.dialect.as_str().to_owned(),
            established: view.is_established,
            compressed: view.is_compressed,
            since: rfc3339(self.clock.to_utc(view.opened)),
            complete: view.is_complete,
            lost: view.lost,
            servers_total,
            users_total,
            channels_total,
            servers: view
                .servers
                .into_iter()
                .map(|server| LinkServer {
                    name: server.name.as_str().to_owned(),
                    id: server.id.as_str().to_owned(),
                    remote: server.side == view.peer_side,
                })
                .collect(),
            users: view
                .users
                .into_iter()
                .map(|user| LinkUser {
                    nickname: user.nickname.as_str().to_owned(),
                    id: user.id.as_str().to_owned(),
                    timestamp: user.timestamp,
                    remote: user.side == view.peer_side,
                })
                .collect(),
            channels: view
                .channels
                .into_iter()
                .map(|channel| {
                    let [connecting, connected] = channel.said;
                    let (peer_said, own_said) =
                        if peer_connected { (connecting, connected) } else { (connected, connecting) };
                    LinkChannel {
                        name: channel.name.as_str().to_owned(),
                        timestamp: channel.timestamp,
                        peer_said,
                        own_said,
                        members: channel.members,
                        operators: channel.operators,
                    }
                })
                .collect(),
        }
    }

    pub(super) fn explain(&self, written: &str, people: bool) -> Result<serde_json::Value, Refusal> {
        let subject = match parse_subject(written) {
            Some(subject) => subject,
            None if !people => {
                return Err(Refusal::bad_input(format!(
                    "{written:?} is no address or prefix; to ask by name takes root"
                )));
            }
            None => {
                let found = self.roster.named(written);
                let (_, present) = found.first().ok_or_else(|| {
                    Refusal::bad_input(format!("{written:?} is neither an address nor anybody present"))
                })?;
                Prefix::host(present.address)
            }
        };
        let (state, sentences) = self.explain_subject(subject, people);
        to_value(&Explanation {
            schema: "floodwall.explain/1".into(),
            subject: subject.to_string(),
            state: state.into(),
            sentences,
        })
    }

    fn explain_subject(&self, subject: Prefix, people: bool) -> (&'static str, Vec<String>) {
        let address = subject.address();
        let (now, gate_now) = (self.clock.now(), self.enforcer.store.now());
        let held = || subject.is_host().then(|| self.engine.ledger().ban_of(address, now)).flatten();
        let ban = self.engine.ledger().standing(subject).or_else(held);
        let (_, limited_until, known_until) = self.enforcer.deadlines(address);
        let listed = self.enforcer.listed(address);
        let mut sentences = Vec::new();
        let state = if let Some((Treatment::Allow, list)) = listed {
            let list = shown(list);
            sentences.push(format!(
                "{subject} is let in by the list {list}: nothing it does over TCP is dropped."
            ));
            sentences.push(format!("Take it out of {list}, then: floodwall reload"));
            "allowed"
        } else if self.enforcer.is_allowed(address) {
            sentences.push(format!("{subject} is on the allow list: nothing it does over TCP is dropped."));
            sentences.push(format!("Take it off with: floodwall allow --remove {subject}"));
            "allowed"
        } else if let Some(ban) = ban {
            self.explain_ban(subject, ban, &mut sentences);
            "banned"
        } else if let Some((treatment, list)) = listed {
            let list = shown(list);
            let (state, how) = match treatment {
                Treatment::Ban => ("banned", "banned"),
                Treatment::Limit | Treatment::Allow => ("limited", "held to the tightest limits"),
            };
            sentences.push(format!("{subject} is {how} for as long as the list {list} names it."));
            sentences.push(format!(
                "Take it out of {list}, then: floodwall reload. Or: floodwall allow {subject}"
            ));
            state
        } else if limited_until > gate_now {
            let until = self.until(self.clock.at_gate(limited_until));
            sentences.push(format!(
                "{subject} is not banned. A rule holds it to the tightest limits until {until}."
            ));
            sentences
                .push(format!("Lift that with: floodwall unban {subject}, or floodwall allow {subject}"));
            "limited"
        } else if known_until > gate_now {
            let until = self.until(self.clock.at_gate(known_until));
            let why = if self.engine.is_known(address, now) || !self.engine.is_tenured(address, now) {
                "somebody logged in from there with a password of their own"
            } else {
                "somebody was there for long and gave no trouble, where logins cannot be read"
            };
            sentences.push(format!(
                "{subject} is known, because {why}. It is served first, from a budget nobody else draws on, until {until}."
            ));
            "known"
        } else {
            sentences.push(format!("Nothing is held against {subject}, and nothing is known of it."));
            "stranger"
        };
        if people && subject.is_host() {
            for present in self.roster.at(address) {
                let name = present.nickname.as_ref().map_or_else(|| "Somebody".into(), ToString::to_string);
                let service = self.service_name(present.service);
                let since = rfc3339(self.clock.to_utc(present.since));
                sentences.push(format!("{name} is logged in from there on {service} since {since}."));
            }
        }
        if let Ok(past) = ledger::history(&self.settings.state_folder, Some(subject), 100) {
            let earlier = past
                .iter()
                .filter(|row| row.ended_at.is_some() || row.until <= self.clock.to_utc(now).as_nanos());
            let count = earlier.count();
            if count > 0 {
                let plural = if count == 1 { "ban" } else { "bans" };
                sentences.push(format!(
                    "The ledger holds {count} earlier {plural} of it: floodwall bans --history"
                ));
            }
        }
        if self.settings.observe {
            sentences.push("The wall only observes: nothing of this is in force.".into());
        }
        (state, sentences)
    }

    fn explain_ban(&self, subject: Prefix, ban: &EngineBan, sentences: &mut Vec<String>) {
        let explanation = &ban.explanation;
        let (since, until) = (rfc3339(self.clock.to_utc(ban.since)), self.until(ban.until));
        sentences.push(format!("{subject} is banned since {since}, until {until}."));
        if &*explanation.rule.0 == OPERATOR_RULE {
            sentences.push(format!("An operator did that: {}.", explanation.why));
        } else {
            sentences.push(format!("The rule {} did that: {}.", explanation.rule, explanation.why));
            sentences.push(format!(
                "It counted {} within {}, by {}; {} are too many.",
                explanation.count, explanation.within, explanation.subject, explanation.limit
            ));
        }
        for line in &explanation.evidence {
            sentences.push(format!("Evidence: {line}"));
        }
        sentences.push(format!("Lift it with: floodwall unban {subject}"));
    }

    /// Figures for the metrics page.
    pub(super) fn snapshot(&self) -> Snapshot {
        use std::sync::atomic::Ordering::Relaxed;
        let levels = (0..self.guard.services.len())
            .map(|index| self.engine.level(u8::try_from(index).unwrap_or(u8::MAX)) as u8)
            .collect();
        let mut classes = Vec::new();
        for (index, service) in (0..).zip(&self.guard.services) {
            for front in Front::ALL {
                let gauge = self.engine.gauge(index, front);
                let (name, class) = (service.name.to_owned(), front.as_str().to_owned());
                let level = self.engine.level_of(index, front) as u8;
                classes.push((name, class, level, gauge.strangers, gauge.alarmed_from));
            }
        }
        Snapshot {
            classes,
            services: self.guard.services.iter().map(|service| service.name.to_owned()).collect(),
            mode: self.settings.mode.clone(),
            evaluating: self.settings.observe,
            levels,
            signals: self.engine.signals().map(|(kind, count)| (kind.as_str().to_owned(), count)).collect(),
            rules: self
                .fired_rules()
                .into_iter()
                .map(|rule| (rule.rule, rule.fired, rule.shadowed))
                .collect(),
            bans: self.engine.ledger().bans().count() as u64,
            bans_made: self.counts.made,
            bans_lifted: self.counts.lifted,
            bans_expired: self.counts.expired,
            bans_refused: self.counts.refused,
            not_enforced: self.counts.not_enforced,
            repairs: self.counts.repairs,
            packets: self.counts.packets,
            samples: self.counts.samples,
            known: self.enforcer.known() as u64,
            prefixes: self.enforcer.prefix_count() as u64,
            present: self.roster.len() as u64,
            connections: self.engine.streams().len() as u64,
            losses: self.losses().into_iter().map(|loss| (loss.what, loss.count)).collect::<BTreeMap<_, _>>(),
            notifications: {
                let counts = self.notifier.counts();
                [&counts.sent, &counts.failed, &counts.left_out].map(|count| count.load(Relaxed))
            },
            ledger_failing: self.ledger.health().failing.load(Relaxed),
            ledger_written: self.ledger.health().written.load(Relaxed),
            destroyed: self.cutter.as_ref().map_or(0, |cutter| cutter.counts().destroyed.load(Relaxed)),
            reset: self.cutter.as_ref().map_or(0, |cutter| cutter.counts().reset.load(Relaxed)),
            learning_seconds: self.learning_seconds(),
            logs: self.logs.clone(),
        }
    }
}

/// A name as it came: JSON escapes it, and whoever prints it must.
fn raw(name: Option<&Text>) -> Option<String> {
    name.map(|name| name.as_str().to_owned())
}

fn ban_of_row(row: &BanRow) -> Ban {
    let written = |nanos: u64| {
        if nanos == u64::MAX { "never".to_owned() } else { rfc3339(Timestamp::from_nanos(nanos)) }
    };
    Ban {
        subject: row.subject.clone(),
        rule: row.rule.clone(),
        why: row.why.clone(),
        since: written(row.since),
        until: written(row.until),
        count: row.count,
        limit: row.threshold,
        within: floodwall_engine::Span::from_nanos(row.within).to_string(),
        evidence: row.evidence.clone(),
        ended: row.ended_at.map(written),
        ended_why: row.ended_why.clone(),
    }
}
