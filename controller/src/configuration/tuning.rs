//! What the configuration says otherwise than the rule files, and where word can be sent.

use std::path::PathBuf;

use floodwall_engine::{
    Span,
    command::Prefix,
    rule::{
        Rule, RuleId,
        diagnostic::Diagnostics,
        file::read_notify,
        table::{Table, text, wrong_type},
    },
};

use super::parse_prefix;
use crate::notify::{self, Template, Webhook};

/// One `[[service.override]]`: what of a rule is otherwise for this service, or for some networks of it.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    pub(crate) rule: RuleId,
    /// File, line and column.
    pub(crate) place: Box<str>,
    /// Whether it does not hold at all.
    off: bool,
    limit: Option<u32>,
    within: Option<Span>,
    duration: Option<Span>,
    shadow: Option<bool>,
    notify: Option<Vec<Box<str>>>,
    /// Empty for everybody.
    networks: Vec<Prefix>,
}

impl Override {
    /// Changes the rules of a service. Answers whether there is such a rule.
    pub(crate) fn apply(&self, rules: &mut Vec<Rule>) -> bool {
        let Some(at) = rules.iter().position(|rule| rule.id == self.rule) else { return false };
        if self.networks.is_empty() {
            if self.off {
                rules.remove(at);
            } else if let Some(rule) = rules.get_mut(at) {
                self.change(rule);
            }
            return true;
        }
        let Some(rule) = rules.get_mut(at) else { return false };
        let mut there = rule.clone();
        rule.except.extend(&self.networks);
        if !self.off {
            there.only.clone_from(&self.networks);
            let first = self.networks.first().map(ToString::to_string).unwrap_or_default();
            there.id = RuleId(format!("{}@{first}", there.id).into());
            self.change(&mut there);
            rules.insert(at + 1, there);
        }
        true
    }

    fn change(&self, rule: &mut Rule) {
        rule.limit = self.limit.unwrap_or(rule.limit);
        rule.within = self.within.unwrap_or(rule.within);
        rule.shadow = self.shadow.unwrap_or(rule.shadow);
        if let Some(duration) = self.duration {
            rule.duration = duration;
            rule.duration_max = rule.duration_max.max(duration);
        }
        if let Some(notify) = &self.notify {
            rule.notify.clone_from(notify);
        }
    }
}

/// Every `[[service.override]]` of one service.
pub(super) fn read_overrides(service: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Vec<Override> {
    let keys = ["rule", "off", "limit", "within", "for", "shadow", "notify", "networks"];
    let mut overrides: Vec<Override> = Vec::new();
    for value in service.list_of("override") {
        let Some(table) = value.get_ref().as_table() else {
            wrong_type(value, "override", "[[service.override]]", diagnostics);
            continue;
        };
        let table = Table::new(table, value.span(), "[[service.override]]", &keys, diagnostics);
        let rule = table.require("rule", "\"teamtalk/message-flood\"", diagnostics);
        let rule = rule.and_then(|value| text(value, "rule", diagnostics));
        let limit = table.number_of("limit", 1..=1_000_000, diagnostics);
        let shadow = table.get("shadow").is_some().then(|| table.flag("shadow", false, diagnostics));
        let notify = table.get("notify").is_some().then(|| read_notify(&table, diagnostics));
        let networks = read_networks(&table, diagnostics);
        let Some(rule) = rule else { continue };
        let rule = RuleId(rule.into());
        let place = table.get("rule").map_or_else(|| table.start(), |value| value.span().start);
        if overrides.iter().any(|other| other.rule == rule && other.networks == networks) {
            let message = format!("a second override of \"{rule}\" for the same networks");
            diagnostics.report(place, message, Some("put both into one".to_owned()));
        }
        overrides.push(Override {
            rule,
            place: diagnostics.place(place).into(),
            off: table.flag("off", false, diagnostics),
            limit: limit.and_then(|limit| u32::try_from(limit).ok()),
            within: table.span_of("within", diagnostics),
            duration: table.span_of("for", diagnostics),
            shadow,
            notify,
            networks,
        });
    }
    overrides
}

fn read_networks(table: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Vec<Prefix> {
    let mut networks = Vec::new();
    for value in table.list_of("networks") {
        let Some(written) = text(value, "networks", diagnostics) else { continue };
        match parse_prefix(written) {
            Some((address, bits)) => networks.push(Prefix::new(address, u8::try_from(bits).unwrap_or(128))),
            None => diagnostics.report(
                value.span().start,
                format!("{written:?} is no address or prefix"),
                Some("write for example \"192.0.2.0/24\" or \"2001:db8::/32\"".to_owned()),
            ),
        }
    }
    networks
}

/// `exec-user` and every `[[webhook]]`.
pub(super) fn read_notifications(top: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> notify::Settings {
    let exec_user = top.get("exec-user").and_then(|value| text(value, "exec-user", diagnostics));
    let keys = ["name", "url", "template", "secret-file", "ca-file"];
    let mut webhooks: Vec<Webhook> = Vec::new();
    for value in top.list_of("webhook") {
        let Some(table) = value.get_ref().as_table() else {
            wrong_type(value, "webhook", "[[webhook]]", diagnostics);
            continue;
        };
        let table = Table::new(table, value.span(), "[[webhook]]", &keys, diagnostics);
        let mut required = |key: &str, example: &str| {
            let value = table.require(key, example, diagnostics)?;
            text(value, key, diagnostics)
        };
        let name = required("name", "\"ops\"");
        let url = required("url", "\"https://ntfy.example/floodwall\"");
        let template = table.word_of("template", &Template::ALL, Template::as_str, diagnostics);
        let secret_file = table.get("secret-file").and_then(|value| text(value, "secret-file", diagnostics));
        let ca_file = table.get("ca-file").and_then(|value| text(value, "ca-file", diagnostics));
        let (Some(name), Some(url)) = (name, url) else { continue };
        if !(url.starts_with("https://") || url.starts_with("http://")) {
            let message = format!("the url of the web hook {name:?} is no web address");
            diagnostics.report(table.start(), message, Some("write https://HOST/PATH".to_owned()));
        }
        if webhooks.iter().any(|other| other.name == name) {
            diagnostics.report(table.start(), format!("a second web hook {name:?}"), None);
        }
        webhooks.push(Webhook {
            name: name.to_owned(),
            url: url.to_owned(),
            template: template.unwrap_or_default(),
            secret_file: secret_file.map(PathBuf::from),
            ca_file: ca_file.map(PathBuf::from),
        });
    }
    notify::Settings { webhooks, exec_user: exec_user.map(str::to_owned) }
}
