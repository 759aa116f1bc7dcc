//! Word to people: what rules with `notify` did, to web hooks, programs and the journal.
//!
//! A decision only puts a message into a bounded queue; one thread per target takes it out. A full queue loses the message and
//! counts it. Attackers cause decisions, so each target gets so many messages a minute at most, and the next one says how many
//! were left out.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use floodwall_engine::{command::Explanation, rule::RuleId};
use serde::Serialize;

use crate::clock;

mod exec;
mod webhook;

pub(crate) use webhook::{Template, Webhook};

/// Messages waiting for one target.
const QUEUE_MAX: usize = 256;
/// Messages to one target in a minute.
const PER_MINUTE_MAX: u32 = 30;
const MINUTE: Duration = Duration::from_secs(60);

/// What happened. JSON of it is what programs and plain web hooks get.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Message {
    schema: &'static str,
    /// `ban`, `limit`, `reset`, `note` or `raise-level`.
    event: &'static str,
    /// RFC 3339, UTC.
    at: String,
    subject: String,
    rule: String,
    why: String,
    count: u32,
    limit: u32,
    within: String,
    evidence: Vec<String>,
    /// How many messages to this target were left out before this one.
    left_out: u64,
}

impl Message {
    pub(crate) fn new(event: &'static str, at: String, subject: &str, explanation: &Explanation) -> Self {
        Self {
            schema: "floodwall.notification/1",
            event,
            at,
            subject: subject.to_owned(),
            rule: explanation.rule.to_string(),
            why: explanation.why.to_string(),
            count: explanation.count,
            limit: explanation.limit,
            within: explanation.within.to_string(),
            evidence: explanation.evidence.clone(),
            left_out: 0,
        }
    }

    /// One line for people.
    fn title(&self) -> String {
        let deed = match self.event {
            "ban" => "banned",
            "limit" => "limited",
            "reset" => "cut off",
            "raise-level" => "alarmed",
            _ => "noted",
        };
        format!("{} {deed}: {}", self.subject, self.why)
    }

    /// The rest, for people.
    fn text(&self) -> String {
        let Self { rule, count, within, at, left_out, .. } = self;
        let mut text = format!("{}. Rule {rule}: {count} within {within}. {at}", self.title());
        for line in self.evidence.iter().rev().take(3) {
            text.push_str("\n• ");
            text.push_str(line);
        }
        if *left_out > 0 {
            text.push_str(&format!("\n{left_out} more messages came too fast to be sent."));
        }
        text
    }
}

/// What became of messages, over all targets.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// The queue was full, or too many came in a minute.
    pub(crate) left_out: AtomicU64,
}

/// Where messages can go, as the configuration says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) webhooks: Vec<Webhook>,
    /// As whom programs run.
    pub(crate) exec_user: Option<String>,
}

/// One way out.
enum Outlet {
    Webhook(Webhook),
    Exec { path: PathBuf, user: Option<String> },
    Journal,
}

/// Everybody who is told something.
#[derive(Debug)]
pub(crate) struct Notifier {
    queues: BTreeMap<String, SyncSender<Message>>,
    /// By rule: the targets it names.
    wanted: BTreeMap<RuleId, Vec<String>>,
    counts: Arc<Counts>,
}

impl Notifier {
    /// A thread for each target that a rule names.
    ///
    /// # Errors
    /// When a rule names a web hook that the configuration does not have, or a thread cannot be started.
    pub(crate) fn start(settings: &Settings, rules: &[(RuleId, Vec<Box<str>>)]) -> Result<Self> {
        let counts = Arc::new(Counts::default());
        let (mut queues, mut wanted) = (BTreeMap::new(), BTreeMap::new());
        for (rule, targets) in rules {
            for target in targets {
                if !queues.contains_key(&**target) {
                    let outlet = outlet(settings, target).with_context(|| format!("rule {rule}"))?;
                    let (sender, receiver) = sync_channel(QUEUE_MAX);
                    let counts = Arc::clone(&counts);
                    thread::Builder::new()
                        .name("notify".into())
                        .spawn(move || serve(&outlet, &receiver, &counts))
                        .context("cannot start a thread for notifications")?;
                    queues.insert(target.to_string(), sender);
                }
            }
            if !targets.is_empty() {
                wanted.insert(rule.clone(), targets.iter().map(ToString::to_string).collect());
            }
        }
        Ok(Self { queues, wanted, counts })
    }

    /// Whether a rule wants somebody to be told: nothing is put into words otherwise.
    pub(crate) fn wants(&self, rule: &RuleId) -> bool {
        self.wanted.contains_key(rule)
    }

    /// Never waits.
    pub(crate) fn tell(&self, rule: &RuleId, message: &Message) {
        for target in self.wanted.get(rule).into_iter().flatten() {
            let taken = self.queues.get(target).is_some_and(|queue| queue.try_send(message.clone()).is_ok());
            if !taken {
                self.counts.left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }
}

/// What rules name that the configuration does not have.
pub(crate) fn missing(settings: &Settings, rules: &[(RuleId, Vec<Box<str>>)]) -> Vec<String> {
    let targets = rules.iter().flat_map(|(rule, targets)| targets.iter().map(move |target| (rule, target)));
    let missing = targets.filter_map(|(rule, target)| Some((rule, outlet(settings, target).err()?)));
    missing.map(|(rule, error)| format!("rule {rule}: {error}")).collect()
}

fn outlet(settings: &Settings, target: &str) -> Result<Outlet> {
    if target == "journal" {
        return Ok(Outlet::Journal);
    }
    if let Some(path) = target.strip_prefix("exec:") {
        return Ok(Outlet::Exec { path: path.into(), user: settings.exec_user.clone() });
    }
    let name = target.strip_prefix("webhook:").unwrap_or(target);
    let webhook = settings.webhooks.iter().find(|webhook| webhook.name == name);
    let webhook = webhook.with_context(|| {
        format!("there is no web hook {name:?}: add [[webhook]] with name = {name:?} to the configuration")
    })?;
    Ok(Outlet::Webhook(webhook.clone()))
}

/// Takes messages until nobody can send any more.
fn serve(outlet: &Outlet, messages: &Receiver<Message>, counts: &Counts) {
    let (mut since, mut sent, mut left_out) = (clock::instant(), 0, 0);
    while let Ok(mut message) = messages.recv() {
        if since.elapsed() >= MINUTE {
            (since, sent) = (clock::instant(), 0);
        }
        if sent >= PER_MINUTE_MAX {
            left_out += 1;
            counts.left_out.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        sent += 1;
        message.left_out = std::mem::take(&mut left_out);
        let outcome = match outlet {
            Outlet::Webhook(webhook) => webhook.deliver(&message),
            Outlet::Exec { path, user } => exec::run(path, user.as_deref(), &message),
            Outlet::Journal => {
                tracing::warn!(target: "floodwall::notify", rule = message.rule, subject = message.subject, "{}", message.title());
                Ok(())
            }
        };
        match outcome {
            Ok(()) => counts.sent.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    rule = message.rule,
                    "A notification was not delivered"
                );
                counts.failed.fetch_add(1, Ordering::Relaxed)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use floodwall_engine::{Span, Timestamp, rule::evaluate::Subject};
    use floodwall_wire::Address;

    pub(super) fn message() -> Message {
        let offender = Address::from_v4(0xcb00_7107);
        let explanation = Explanation {
            rule: RuleId("teamtalk/login-storm".into()),
            why: "guessing passwords".into(),
            subject: Subject::Address(offender),
            offender,
            at: Timestamp::from_secs(1_800_000_000),
            count: 8,
            limit: 8,
            within: Span::from_secs(60),
            evidence: vec!["login.failed from 203.0.113.7 account \"admin\"".into()],
        };
        Message::new("ban", "2027-01-15T08:00:00Z".into(), "203.0.113.7", &explanation)
    }

    #[test]
    fn a_rule_that_names_an_unknown_web_hook_is_refused_with_a_remedy() {
        let rules = [(RuleId("a/b".into()), vec!["webhook:ops".into()])];
        let error = Notifier::start(&Settings::default(), &rules).unwrap_err();
        let said = format!("{error:#}");
        assert!(said.contains("rule a/b") && said.contains("add [[webhook]] with name = \"ops\""), "{said}");
    }

    /// Nobody takes anything out of the queue: telling goes on at once, and what did not fit is counted.
    #[test]
    fn a_target_that_hangs_holds_nobody_up() {
        let (sender, _receiver) = sync_channel(QUEUE_MAX);
        let rule = RuleId("teamtalk/login-storm".into());
        let notifier = Notifier {
            queues: BTreeMap::from([("journal".to_owned(), sender)]),
            wanted: BTreeMap::from([(rule.clone(), vec!["journal".to_owned()])]),
            counts: Arc::default(),
        };
        let started = clock::instant();
        for _ in 0..QUEUE_MAX + 100 {
            notifier.tell(&rule, &message());
        }
        assert!(started.elapsed() < Duration::from_secs(1));
        assert_eq!(notifier.counts().left_out.load(Ordering::Relaxed), 100);
        assert!(!notifier.wants(&RuleId("other".into())));
    }
}
