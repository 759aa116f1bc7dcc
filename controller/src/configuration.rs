//! The configuration file: which services are guarded where, which servers are linked, and who is always let in.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use floodwall_engine::{
    Protocol, Span,
    protocol::{irc::link::Peer, log::Format as LogFormat},
    rule::{
        DefaultPorts,
        diagnostic::{Diagnostic, Diagnostics},
        file::read_all_ports,
        table::{Table, number, text, wrong_type},
    },
    text::Text,
};
use floodwall_wire::Address;
use toml::de::DeTable;

use crate::{
    cli::WantedMode,
    lists::{LISTS_MAX, ListEntry, Treatment},
    notify, rules,
};

mod tuning;

pub(crate) use tuning::Override;

/// What the file says; empty without one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configuration {
    pub(crate) services: Vec<ServiceEntry>,
    pub(crate) links: Vec<Peer>,
    pub(crate) logs: Vec<LogEntry>,
    pub(crate) allow: Vec<(Address, u32)>,
    /// Prefixes in files of their own.
    pub(crate) lists: Vec<ListEntry>,
    pub(crate) interfaces: Vec<String>,
    pub(crate) mode: Option<WantedMode>,
    pub(crate) observe: bool,
    pub(crate) rules: Option<PathBuf>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) socket: Option<PathBuf>,
    /// Where the gate is pinned.
    pub(crate) pins: Option<PathBuf>,
    pub(crate) metrics: Option<SocketAddr>,
    /// Who may read from the control socket.
    pub(crate) group: Option<String>,
    /// How long it is kept who belongs together; not at all without.
    pub(crate) people: Option<Span>,
    /// Where word can be sent.
    pub(crate) notify: notify::Settings,
}

/// Where the configuration is unless told otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/floodwall/floodwall.toml";

/// How long it is kept who belongs together, unless the file says otherwise.
const PEOPLE_KEPT: Span = Span::from_secs(30 * 24 * 3_600);

/// One `[[service]]`.
#[derive(Clone, Debug)]
pub(crate) struct ServiceEntry {
    /// File, line and column.
    pub(crate) place: Box<str>,
    pub(crate) protocol: Protocol,
    pub(crate) ports: DefaultPorts,
    /// Addresses it is guarded at; empty for all.
    pub(crate) addresses: Vec<Address>,
    /// Proxies and web gateways in front of it.
    pub(crate) gateways: Vec<Address>,
    /// Rules that are otherwise here.
    pub(crate) overrides: Vec<Override>,
}

/// One `[[log]]`: a server's log that is followed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LogEntry {
    pub(crate) source: LogSource,
    pub(crate) format: LogFormat,
}

/// Where a log is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum LogSource {
    File(PathBuf),
    /// In the journal, by the name of the unit.
    Journal(String),
}

impl LogSource {
    /// What it is called, here and in what is remembered of it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Journal(unit) => format!("journal:{unit}"),
        }
    }
}

/// Logs followed at most: each takes a thread.
const LOGS_MAX: usize = 16;

/// Why a configuration could not be used.
#[derive(Debug)]
pub(crate) enum ConfigurationError {
    Unreadable(String),
    Mistakes(Vec<Diagnostic>),
}

/// Reads a configuration file.
pub(crate) fn load(path: &Path) -> Result<Configuration, ConfigurationError> {
    let source = rules::read_text(path).map_err(ConfigurationError::Unreadable)?;
    parse(&path.display().to_string(), &source).map_err(ConfigurationError::Mistakes)
}

fn parse(path: &str, source: &str) -> Result<Configuration, Vec<Diagnostic>> {
    let mut diagnostics = Diagnostics::new(path, source);
    let (document, errors) = DeTable::parse_recoverable(source);
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        diagnostics.report(offset, format!("not TOML: {}", error.message()), None);
    }
    let valid = [
        "service",
        "link",
        "log",
        "list",
        "allow",
        "interfaces",
        "mode",
        "observe",
        "rules",
        "state",
        "socket",
        "pins",
        "metrics",
        "group",
        "people",
        "webhook",
        "exec-user",
    ];
    let top = Table::new(document.get_ref(), document.span(), "the configuration", &valid, &mut diagnostics);
    let services = read_services(&top, &mut diagnostics);
    let links = read_links(&top, &services, &mut diagnostics);
    let logs = read_logs(&top, &services, &mut diagnostics);
    let allow = top
        .list_of("allow")
        .into_iter()
        .filter_map(|value| {
            let written = text(value, "allow", &mut diagnostics)?;
            let prefix = parse_prefix(written);
            if prefix.is_none() {
                let remedy = Some("write for example \"192.0.2.7\" or \"2001:db8::/32\"".to_owned());
                diagnostics.report(
                    value.span().start,
                    format!("{written:?} is no address or prefix"),
                    remedy,
                );
            }
            prefix
        })
        .collect();
    let word = |key: &str, diagnostics: &mut Diagnostics<'_>| {
        top.get(key).and_then(|value| text(value, key, diagnostics)).map(str::to_owned)
    };
    let path = |key: &str, diagnostics: &mut Diagnostics<'_>| word(key, diagnostics).map(PathBuf::from);
    let configuration = Configuration {
        services,
        links,
        logs,
        allow,
        lists: read_lists(&top, &mut diagnostics),
        interfaces: top
            .list_of("interfaces")
            .into_iter()
            .filter_map(|value| text(value, "interfaces", &mut diagnostics).map(str::to_owned))
            .collect(),
        mode: top.word_of("mode", &WantedMode::ALL, WantedMode::as_str, &mut diagnostics),
        observe: top.flag("observe", false, &mut diagnostics),
        rules: path("rules", &mut diagnostics),
        state: path("state", &mut diagnostics),
        socket: path("socket", &mut diagnostics),
        pins: path("pins", &mut diagnostics),
        metrics: read_metrics(&top, &mut diagnostics),
        group: word("group", &mut diagnostics),
        people: read_people(&top, &mut diagnostics),
        notify: tuning::read_notifications(&top, &mut diagnostics),
    };
    if diagnostics.is_empty() { Ok(configuration) } else { Err(diagnostics.into_sorted()) }
}

/// `[people]`: its being there turns it on, unless it says otherwise.
fn read_people(top: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Option<Span> {
    let table = top.table_of("people", "[people]", &["enabled", "keep"], diagnostics)?;
    let is_enabled = table.flag("enabled", true, diagnostics);
    let keep = table.span_of("keep", diagnostics).unwrap_or(PEOPLE_KEPT);
    is_enabled.then_some(keep)
}

fn read_metrics(top: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Option<SocketAddr> {
    let value = top.get("metrics")?;
    let written = text(value, "metrics", diagnostics)?;
    let address = written.parse().ok();
    if address.is_none() {
        let remedy = Some("write for example \"127.0.0.1:9464\"".to_owned());
        diagnostics.report(value.span().start, format!("{written:?} is no address and port"), remedy);
    }
    address
}

fn read_services(top: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Vec<ServiceEntry> {
    let keys = [
        "protocol",
        "ports",
        "query-ports",
        "file-ports",
        "plain-ports",
        "addresses",
        "gateways",
        "override",
    ];
    let mut services = Vec::new();
    for value in top.list_of("service") {
        let Some(table) = value.get_ref().as_table() else {
            wrong_type(value, "service", "[[service]]", diagnostics);
            continue;
        };
        let table = Table::new(table, value.span(), "[[service]]", &keys, diagnostics);
        table.require("protocol", "\"teamtalk\"", diagnostics);
        let protocol = table.word_of("protocol", &Protocol::ALL, Protocol::as_str, diagnostics);
        let ports = read_all_ports(&table, diagnostics);
        let addresses = read_addresses(&table, "addresses", diagnostics);
        let gateways = read_addresses(&table, "gateways", diagnostics);
        if let Some(protocol) = protocol {
            let place = table.get("ports").map_or_else(|| table.start(), |value| value.span().start);
            let place = diagnostics.place(place).into();
            let overrides = tuning::read_overrides(&table, diagnostics);
            services.push(ServiceEntry { place, protocol, ports, addresses, gateways, overrides });
        }
    }
    services
}

/// Who opens a link.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum OpenedBy {
    Them,
    Us,
}

impl OpenedBy {
    const ALL: [Self; 2] = [Self::Them, Self::Us];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Them => "them",
            Self::Us => "us",
        }
    }
}

/// Each `[[link]]`: a server of the IRC network that is linked to ours.
fn read_links(
    top: &Table<'_, '_>,
    services: &[ServiceEntry],
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<Peer> {
    let keys = ["name", "addresses", "ports", "opened-by", "services"];
    let mut links = Vec::new();
    for value in top.list_of("link") {
        let Some(table) = value.get_ref().as_table() else {
            wrong_type(value, "link", "[[link]]", diagnostics);
            continue;
        };
        let table = Table::new(table, value.span(), "[[link]]", &keys, diagnostics);
        if !services.is_empty() && !services.iter().any(|service| service.protocol == Protocol::Irc) {
            let remedy = Some("add a [[service]] with protocol = \"irc\"".to_owned());
            diagnostics.report(table.start(), "[[link]] without an IRC server to link to".to_owned(), remedy);
        }
        table.require("addresses", "[\"192.0.2.7\"]", diagnostics);
        table.require("ports", "[7000]", diagnostics);
        table.require("opened-by", "\"them\"", diagnostics);
        let name = table
            .require("name", "\"irc2.example.net\"", diagnostics)
            .and_then(|value| text(value, "name", diagnostics));
        let addresses = read_addresses(&table, "addresses", diagnostics);
        let ports = table
            .list_of("ports")
            .into_iter()
            .filter_map(|value| number(value, "ports", 1..=u64::from(u16::MAX), diagnostics))
            .filter_map(|port| u16::try_from(port).ok())
            .collect();
        let opened_by = table.word_of("opened-by", &OpenedBy::ALL, OpenedBy::as_str, diagnostics);
        let behind = table.list_of("services").into_iter();
        let services =
            behind.filter_map(|value| text(value, "services", diagnostics)).map(Text::from).collect();
        if let (Some(name), Some(opened_by)) = (name, opened_by) {
            let opened_by_us = opened_by == OpenedBy::Us;
            links.push(Peer { name: Text::from(name), addresses, ports, opened_by_us, services });
        }
    }
    links
}

/// Each `[[log]]`: a file or a unit of the journal, and which server writes it.
fn read_logs(
    top: &Table<'_, '_>,
    services: &[ServiceEntry],
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<LogEntry> {
    let mut logs = Vec::new();
    for value in top.list_of("log") {
        let Some(table) = value.get_ref().as_table() else {
            wrong_type(value, "log", "[[log]]", diagnostics);
            continue;
        };
        let table = Table::new(table, value.span(), "[[log]]", &["path", "journal", "server"], diagnostics);
        table.require("server", "\"teamtalk\"", diagnostics);
        let format = table.word_of("server", &LogFormat::ALL, LogFormat::as_str, diagnostics);
        let mut word =
            |key| table.get(key).and_then(|value| text(value, key, diagnostics)).map(str::to_owned);
        let source = match (word("path"), word("journal")) {
            (Some(path), None) => Some(LogSource::File(PathBuf::from(path))),
            (None, Some(unit)) => Some(LogSource::Journal(unit)),
            (Some(_), Some(_)) | (None, None) => {
                let remedy =
                    Some("write path = \"/var/log/tt5srv.log\" or journal = \"ngircd.service\"".to_owned());
                diagnostics.report(
                    table.start(),
                    "[[log]] is either a path or a unit of the journal".to_owned(),
                    remedy,
                );
                None
            }
        };
        let protocol = format.map(LogFormat::protocol);
        let is_guarded = |protocol| services.iter().any(|service| service.protocol == protocol);
        if let Some(protocol) = protocol.filter(|protocol| !services.is_empty() && !is_guarded(*protocol)) {
            let remedy = Some(format!("add a [[service]] with protocol = \"{}\"", protocol.as_str()));
            diagnostics.report(table.start(), "[[log]] of a server that is not guarded".to_owned(), remedy);
        }
        if logs.len() >= LOGS_MAX {
            diagnostics.report(table.start(), format!("more than {LOGS_MAX} logs"), None);
        } else if let (Some(source), Some(format)) = (source, format) {
            logs.push(LogEntry { source, format });
        }
    }
    logs
}

/// Each `[[list]]`: a file with a prefix a line, and what is done to who is in one.
fn read_lists(top: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Vec<ListEntry> {
    let mut lists = Vec::new();
    for value in top.list_of("list") {
        let Some(table) = value.get_ref().as_table() else {
            wrong_type(value, "list", "[[list]]", diagnostics);
            continue;
        };
        let table = Table::new(table, value.span(), "[[list]]", &["path", "action", "wide"], diagnostics);
        table.require("action", "\"ban\"", diagnostics);
        let path = table
            .require("path", "\"/etc/floodwall/lists/vpn.txt\"", diagnostics)
            .and_then(|value| text(value, "path", diagnostics));
        let treatment = table.word_of("action", &Treatment::ALL, Treatment::as_str, diagnostics);
        let wide = table.flag("wide", false, diagnostics);
        if lists.len() >= LISTS_MAX {
            diagnostics.report(table.start(), format!("more than {LISTS_MAX} lists"), None);
        } else if let (Some(path), Some(treatment)) = (path, treatment) {
            lists.push(ListEntry { path: PathBuf::from(path), treatment, wide });
        }
    }
    lists
}

fn read_addresses(table: &Table<'_, '_>, key: &str, diagnostics: &mut Diagnostics<'_>) -> Vec<Address> {
    let mut addresses = Vec::new();
    for value in table.list_of(key) {
        let Some(written) = text(value, key, diagnostics) else {
            continue;
        };
        match written.parse::<IpAddr>() {
            Ok(address) => addresses.push(Address::from(address)),
            Err(_) => diagnostics.report(value.span().start, format!("{written:?} is no address"), None),
        }
    }
    addresses
}

/// An address, or an address and a prefix length; the length is of 128.
pub(crate) fn parse_prefix(written: &str) -> Option<(Address, u32)> {
    let (address, bits) = match written.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u32>().ok()?)),
        None => (written, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(whole);
    (bits <= whole).then(|| (Address::from(address), bits + 128 - whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_allowed_prefixes_are_read() {
        let source = "allow = [\"192.0.2.0/24\", \"2001:db8::1\"]\n[[service]]\nprotocol = \"teamtalk\"\n\
                      ports = [10335]\naddresses = [\"203.0.113.5\"]\n";
        let configuration = parse("f.toml", source).unwrap();
        assert_eq!(configuration.allow.iter().map(|(_, bits)| *bits).collect::<Vec<_>>(), [120, 128]);
        let service = configuration.services.first().unwrap();
        assert_eq!((service.ports.main.as_slice(), service.addresses.len()), (&[10_335][..], 1));
    }

    #[test]
    fn people_are_forgotten_unless_the_file_says_otherwise() {
        let people = |source: &str| parse("f.toml", source).unwrap().people;
        assert_eq!(people(""), None);
        assert_eq!(people("[people]\n"), Some(Span::from_secs(30 * 86_400)));
        assert_eq!(people("[people]\nkeep = \"1w\"\n"), Some(Span::from_secs(7 * 86_400)));
        assert_eq!(people("[people]\nenabled = false\n"), None);
        let mistakes = parse("f.toml", "[people]\nkeap = \"1w\"\n").unwrap_err();
        assert_eq!(
            mistakes[0].to_string(),
            "f.toml:2:1: unknown key \"keap\" in [people]; did you mean \"keep\"?"
        );
    }

    #[test]
    fn links_are_read() {
        let source = "[[link]]\nname = \"hub.test\"\naddresses = [\"192.0.2.7\"]\nports = [7000]\n\
                      opened-by = \"us\"\nservices = [\"services.test\"]\n";
        let configuration = parse("f.toml", source).unwrap();
        let link = configuration.links.first().unwrap();
        assert_eq!((link.name.as_str(), link.opened_by_us), ("hub.test", true));
        assert_eq!((link.ports.as_slice(), link.addresses.len(), link.services.len()), (&[7_000][..], 1, 1));
    }

    #[test]
    fn logs_are_read_and_their_mistakes_named() {
        let source = "[[log]]\npath = \"/var/log/tt5srv.log\"\nserver = \"teamtalk\"\n[[log]]\njournal = \"ngircd.service\"\n\
                      server = \"ngircd\"\n";
        let logs = parse("f.toml", source).unwrap().logs;
        assert_eq!(
            logs.iter().map(|log| log.source.name()).collect::<Vec<_>>(),
            ["/var/log/tt5srv.log", "journal:ngircd.service"]
        );
        let source = "[[service]]\nprotocol = \"irc\"\n[[log]]\npath = \"a\"\njournal = \"b\"\nserver = \"teamtalk\"\n[[log]]\npath = \"a\"\n\
                      server = \"ngirc\"\n";
        let found: Vec<String> =
            parse("f.toml", source).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "f.toml:3:1: [[log]] is either a path or a unit of the journal; write path = \"/var/log/tt5srv.log\" or \
                 journal = \"ngircd.service\"",
                "f.toml:3:1: [[log]] of a server that is not guarded; add a [[service]] with protocol = \"teamtalk\"",
                "f.toml:9:10: unknown server \"ngirc\"; did you mean \"ngircd\"?",
            ]
        );
    }

    #[test]
    fn mistakes_in_links_are_named_with_their_place() {
        let source = "[[service]]\nprotocol = \"teamtalk\"\n[[link]]\nname = \"hub.test\"\n\
                      addresses = [\"hub\"]\nport = 7000\nports = [0]\nopened-by = \"me\"\n";
        let found: Vec<String> =
            parse("f.toml", source).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "f.toml:3:1: [[link]] without an IRC server to link to; add a [[service]] with protocol = \"irc\"",
                "f.toml:5:14: \"hub\" is no address",
                "f.toml:6:1: unknown key \"port\" in [[link]]; did you mean \"ports\"?",
                "f.toml:7:10: \"ports\" is 0, outside 1 to 65535",
                "f.toml:8:13: unknown opened-by \"me\"; valid: them, us",
            ]
        );
    }

    #[test]
    fn rules_are_overridden_for_a_service_and_for_networks_of_it() {
        let source = "[[service]]\nprotocol = \"teamtalk\"\n[[service.override]]\nrule = \"teamtalk/message-flood\"\n\
                      limit = 90\n[[service.override]]\nrule = \"teamtalk/message-flood\"\nnetworks = [\"192.0.2.0/24\"]\n\
                      limit = 500\nshadow = true\n[[service.override]]\nrule = \"teamtalk/drones\"\noff = true\n";
        let configuration = parse("f.toml", source).unwrap();
        let files = rules::load(None).unwrap();
        let mut all = files.into_iter().find(|file| file.protocol == Protocol::TeamTalk).unwrap().rules;
        for change in &configuration.services.first().unwrap().overrides {
            assert!(change.apply(&mut all));
        }
        let named = |name: &str| all.iter().find(|rule| &*rule.id.0 == name);
        assert!(named("teamtalk/drones").is_none());
        let everywhere = named("teamtalk/message-flood").unwrap();
        assert_eq!((everywhere.limit, everywhere.shadow, everywhere.except.len()), (90, false, 1));
        let there = named("teamtalk/message-flood@192.0.2.0/24").unwrap();
        assert_eq!((there.limit, there.shadow, there.only.len()), (500, true, 1));
    }

    #[test]
    fn mistakes_in_web_hooks_are_named_with_their_place() {
        let source = "[[webhook]]\nname = \"ops\"\nurl = \"ntfy\"\ntemplate = \"slack\"\n[[webhook]]\nname = \"ops\"\n";
        let found: Vec<String> =
            parse("f.toml", source).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "f.toml:1:1: the url of the web hook \"ops\" is no web address; write https://HOST/PATH",
                "f.toml:4:12: unknown template \"slack\"; valid: json, ntfy, matrix, discord",
                "f.toml:5:1: [[webhook]] has no \"url\"; add a line such as: url = \"https://ntfy.example/floodwall\"",
            ]
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let source = "alow = []\nallow = [\"192.0.2.0/33\"]\n[[service]]\nprotocol = \"irc\"\nports = [0]\n";
        let found: Vec<String> =
            parse("f.toml", source).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "f.toml:1:1: unknown key \"alow\" in the configuration; did you mean \"allow\"?",
                "f.toml:2:10: \"192.0.2.0/33\" is no address or prefix; write for example \"192.0.2.7\" or \
                 \"2001:db8::/32\"",
                "f.toml:5:10: \"ports\" is 0, outside 1 to 65535",
            ]
        );
    }
}
