//! Reading a rule file: everything wrong with it at once, or a [`RuleFile`].

use floodwall_wire::tables::{Kind, LEVELS, Standing};
use regex::RegexBuilder;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Action, After, Against, By, DefaultPorts, Field, GateLimits, Level, Match, Pattern, Rate, Rule, RuleFile,
    RuleId,
    diagnostic::{Diagnostic, Diagnostics},
    table::{Table, number, text, word, wrong_type},
};
use crate::{
    protocol::Protocol,
    signal::{EvidenceClass, Method, SignalKind},
    time::{Span, Timestamp},
};

/// Bytes a compiled regular expression may take.
const REGEX_BYTES_MAX: usize = 256 * 1024;
/// Largest limit a rule may have.
const LIMIT_MAX: u64 = 1_000_000;
/// Largest limit of a distinct-count: as many values as are remembered.
const DISTINCT_LIMIT_MAX: u64 = crate::limits::DISTINCT_MAX as u64;
/// Largest limit of a rule that counts bytes.
const BYTES_LIMIT_MAX: u64 = 4_000_000_000;
/// Rules in one file.
const RULES_MAX: usize = 512;

/// The keys of a `[[rule]]`.
pub const RULE_KEYS: [&str; 21] = [
    "id",
    "why",
    "signal",
    "where",
    "unless",
    "min-bytes",
    "sum",
    "after",
    "against",
    "by",
    "distinct",
    "allowance",
    "limit",
    "within",
    "level",
    "action",
    "for",
    "max",
    "shadow",
    "expires",
    "notify",
];

/// The keys of `[service]`.
pub const SERVICE_KEYS: [&str; 8] = [
    "protocol",
    "ports",
    "query-ports",
    "file-ports",
    "plain-ports",
    "user-timeout",
    "require-session",
    "require-own-id",
];

/// Reads the text of a rule file.
///
/// # Errors
/// Every mistake in it, in file order.
pub fn parse(path: &str, source: &str) -> Result<RuleFile, Vec<Diagnostic>> {
    let mut diagnostics = Diagnostics::new(path, source);
    let (document, errors) = DeTable::parse_recoverable(source);
    for error in &errors {
        let offset = error.span().map_or(0, |span| span.start);
        diagnostics.report(offset, format!("not TOML: {}", error.message()), None);
    }
    let valid = ["service", "limits", "levels", "rule"];
    let top = Table::new(document.get_ref(), document.span(), "a rule file", &valid, &mut diagnostics);
    let file = read_file(path, &top, &mut diagnostics);
    match file {
        Some(file) if diagnostics.is_empty() => Ok(file),
        _ => Err(diagnostics.into_sorted()),
    }
}

fn read_file(path: &str, top: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Option<RuleFile> {
    top.require("service", "{ protocol = \"teamtalk\" }", diagnostics)?;
    let service = top.table_of("service", "[service]", &SERVICE_KEYS, diagnostics)?;
    service.require("protocol", "\"teamtalk\"", diagnostics);
    let protocol = service.word_of("protocol", &Protocol::ALL, Protocol::as_str, diagnostics);
    let ports = read_all_ports(&service, diagnostics);
    let user_timeout = service.span_of("user-timeout", diagnostics).unwrap_or(Span::from_secs(60));
    let require_session = service.flag("require-session", false, diagnostics);
    let require_own_id = service.flag("require-own-id", false, diagnostics);
    let limits = read_limits(top, diagnostics);
    let rules = read_rules(top, diagnostics);
    Some(RuleFile {
        path: path.to_owned(),
        protocol: protocol?,
        ports,
        user_timeout,
        require_session,
        require_own_id,
        limits,
        rules,
    })
}

/// Reads the four keys that name ports, in a rule file's `[service]` or a configuration's `[[service]]`.
pub fn read_all_ports(service: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> DefaultPorts {
    DefaultPorts {
        main: read_ports(service, "ports", diagnostics),
        query: read_ports(service, "query-ports", diagnostics),
        files: read_ports(service, "file-ports", diagnostics),
        plain: read_ports(service, "plain-ports", diagnostics),
    }
}

fn read_ports(service: &Table<'_, '_>, key: &str, diagnostics: &mut Diagnostics<'_>) -> Vec<u16> {
    let ports = service.list_of(key);
    ports
        .into_iter()
        .filter_map(|value| number(value, key, 1..=65_535, diagnostics))
        .filter_map(|port| u16::try_from(port).ok())
        .collect()
}

fn read_limits(top: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> GateLimits {
    let mut limits = GateLimits { divisors: [1, 2, 4], ..GateLimits::default() };
    let kinds = Kind::ALL.map(Kind::as_str);
    let mut scopes: Vec<&str> = Standing::ALL.iter().map(|standing| standing.as_str()).collect();
    scopes.extend(["network", "service"]);
    if let Some(table) = top.table_of("limits", "[limits]", &scopes, diagnostics) {
        for standing in Standing::ALL {
            if let Some(scope) = table.table_of(standing.as_str(), "[limits.…]", &kinds, diagnostics)
                && let Some(rates) = limits.source.get_mut(standing as usize)
            {
                read_rates(&scope, rates, diagnostics);
            }
        }
        if let Some(scope) = table.table_of("network", "[limits.network]", &kinds, diagnostics) {
            read_rates(&scope, &mut limits.network, diagnostics);
        }
        if let Some(scope) = table.table_of("service", "[limits.service]", &kinds, diagnostics) {
            read_rates(&scope, &mut limits.service, diagnostics);
        }
    }
    let levels = ["elevated", "attack"];
    if let Some(table) = top.table_of("levels", "[levels]", &levels, diagnostics) {
        for level in [Level::Elevated, Level::Attack] {
            if let Some(divisor) = table.number_of(level.as_str(), 1..=1_000, diagnostics)
                && let Some(entry) = limits.divisors.get_mut(level as usize % LEVELS)
            {
                *entry = divisor;
            }
        }
    }
    limits
}

fn read_rates(scope: &Table<'_, '_>, rates: &mut [Rate], diagnostics: &mut Diagnostics<'_>) {
    for kind in Kind::ALL {
        let Some(value) = scope.get(kind.as_str()) else {
            continue;
        };
        let Some(written) = text(value, kind.as_str(), diagnostics) else {
            continue;
        };
        match (Rate::parse(written), rates.get_mut(kind as usize)) {
            (Some(rate), Some(entry)) => *entry = rate,
            _ => diagnostics.report(
                value.span().start,
                format!("bad rate {written:?}"),
                Some("write for example \"10/s burst 40\", \"6/m burst 3\" or \"off\"".to_owned()),
            ),
        }
    }
}

impl Rate {
    /// Reads `"10/s burst 40"`, `"6/m burst 3"`, `"off"`.
    fn parse(written: &str) -> Option<Self> {
        if written == "off" {
            return Some(Self::default());
        }
        let (rate, burst) = written.split_once(" burst ")?;
        let (units, unit) = rate.split_once('/')?;
        let per = match unit {
            "s" => Span::from_secs(1),
            "m" => Span::from_secs(60),
            "h" => Span::from_secs(3_600),
            _ => return None,
        };
        let units: u64 = units.parse().ok()?;
        let burst: u64 = burst.parse().ok()?;
        let sane = (1..=1_000_000_000).contains(&units) && (1..=1_000_000_000).contains(&burst);
        sane.then_some(Self { units, per, burst })
    }
}

fn read_rules(top: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut places: Vec<usize> = Vec::new();
    for value in top.list_of("rule") {
        let Some(table) = value.get_ref().as_table() else {
            wrong_type(value, "rule", "[[rule]]", diagnostics);
            continue;
        };
        let table = Table::new(table, value.span(), "[[rule]]", &RULE_KEYS, diagnostics);
        let Some(rule) = read_rule(&table, diagnostics) else {
            continue;
        };
        let offset = table.get("id").map_or_else(|| table.start(), |id| id.span().start);
        let earlier = rules.iter().zip(&places).find(|(earlier, _)| earlier.id == rule.id);
        if let Some((_, place)) = earlier {
            let (line, _) = diagnostics.position(*place);
            let remedy = Some("give it a name of its own".to_owned());
            diagnostics.report(offset, format!("a second rule \"{}\", after line {line}", rule.id), remedy);
        } else if rules.len() >= RULES_MAX {
            diagnostics.report(table.start(), format!("more than {RULES_MAX} rules"), None);
            break;
        } else {
            rules.push(rule);
            places.push(offset);
        }
    }
    rules
}

fn read_rule(table: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Option<Rule> {
    let before = diagnostics.len();
    let id = table.require("id", "\"teamtalk/login-storm\"", diagnostics);
    let id = id.and_then(|value| text(value, "id", diagnostics));
    let why = table.require("why", "\"guessing passwords\"", diagnostics);
    let why = why.and_then(|value| text(value, "why", diagnostics));
    table.require("signal", "\"login.failed\"", diagnostics);
    let signals = read_signals(table, diagnostics);
    let matches = read_matches(table, "where", diagnostics);
    let exceptions = read_matches(table, "unless", diagnostics);
    let bytes_min = table.number_of("min-bytes", 1..=LIMIT_MAX, diagnostics).unwrap_or(0);
    let sums_bytes = table.word_of("sum", &["bytes"], |word| word, diagnostics).is_some();
    let (after, against) = (read_after(table, diagnostics), read_against(table, diagnostics));
    let by = table.word_of("by", &By::ALL, By::as_str, diagnostics);
    let distinct = table.word_of("distinct", &By::ALL, By::as_str, diagnostics);
    if by == Some(By::Kind) {
        let start = table.get("by").map_or_else(|| table.start(), |value| value.span().start);
        let remedy = Some("write distinct = \"kind\", and by whom it is counted".to_owned());
        diagnostics.report(start, "\"kind\" only tells signals apart", remedy);
    }
    let limit = read_limit(table, distinct, sums_bytes, diagnostics);
    let allowance = read_allowance(table, by, limit, diagnostics);
    let within = table.span_of("within", diagnostics);
    let level = table.word_of("level", &Level::ALL, Level::as_str, diagnostics).unwrap_or_default();
    table.require("action", "\"note\"", diagnostics);
    let action = table.word_of("action", &Action::ALL, Action::as_str, diagnostics);
    let duration = table.span_of("for", diagnostics);
    let duration_max = table.span_of("max", diagnostics);
    let shadow = table.flag("shadow", false, diagnostics);
    let expires = read_expiry(table, diagnostics);
    let notify = read_notify(table, diagnostics);
    if let (Some(duration), Some(most), Some(value)) = (duration, duration_max, table.get("max"))
        && most < duration
    {
        diagnostics.report(
            value.span().start,
            format!("\"max\" is {most}, shorter than \"for\", {duration}"),
            None,
        );
    }
    for (key, written) in [("id", id), ("why", why)] {
        if let (Some(written), Some(value)) = (written, table.get(key))
            && written.chars().any(char::is_control)
        {
            let remedy = Some("write plain text on one line".to_owned());
            diagnostics.report(value.span().start, format!("control characters in \"{key}\""), remedy);
        }
    }
    check_counting(table, by, diagnostics);
    check_action(table, action, &signals, diagnostics);
    if diagnostics.len() > before {
        return None;
    }
    let duration = duration.unwrap_or(Span::from_secs(600));
    Some(Rule {
        id: RuleId(id?.into()),
        why: why?.into(),
        signals,
        matches,
        exceptions,
        bytes_min,
        sums_bytes,
        after,
        against,
        by: by.unwrap_or(By::Address),
        distinct,
        allowance,
        limit: u32::try_from(limit.unwrap_or(1)).unwrap_or(u32::MAX),
        within: within.unwrap_or(Span::from_secs(60)),
        level,
        action: action?,
        duration,
        duration_max: duration_max.unwrap_or(duration).max(duration),
        shadow,
        expires,
        notify,
        except: Vec::new(),
        only: Vec::new(),
    })
}

/// `after = { signal = "login.elsewhere", within = "10m" }`.
fn read_after(table: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Option<After> {
    let after = table.table_of("after", "after", &["signal", "within"], diagnostics)?;
    after.require("signal", "\"login.elsewhere\"", diagnostics);
    after.require("within", "\"10m\"", diagnostics);
    Some(After { signals: read_signals(&after, diagnostics), within: after.span_of("within", diagnostics)? })
}

/// `against = { signal = "login.succeeded", ratio = 4 }`.
fn read_against(table: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Option<Against> {
    let against = table.table_of("against", "against", &["signal", "ratio"], diagnostics)?;
    against.require("signal", "\"login.succeeded\"", diagnostics);
    against.require("ratio", "4", diagnostics);
    let ratio = against.number_of("ratio", 1..=1_000, diagnostics)?;
    let ratio = u32::try_from(ratio).unwrap_or(u32::MAX);
    Some(Against { signals: read_signals(&against, diagnostics), ratio })
}

fn read_signals(table: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Vec<SignalKind> {
    let mut signals = Vec::new();
    if let Some(value) = table.get("signal")
        && value.get_ref().as_array().is_some_and(|names| names.is_empty())
    {
        let remedy = Some("write for example signal = \"login.failed\"".to_owned());
        diagnostics.report(value.span().start, "\"signal\" names no signal", remedy);
    }
    for value in table.list_of("signal") {
        let Some(name) = text(value, "signal", diagnostics) else {
            continue;
        };
        let found =
            word(name, value.span().start, "signal", SignalKind::ALL, SignalKind::as_str, diagnostics);
        signals.extend(found);
    }
    signals
}

fn read_limit(
    table: &Table<'_, '_>,
    distinct: Option<By>,
    sums_bytes: bool,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<u64> {
    let most = match (distinct, sums_bytes) {
        (Some(_), _) => DISTINCT_LIMIT_MAX,
        (None, true) => BYTES_LIMIT_MAX,
        (None, false) => LIMIT_MAX,
    };
    table.number_of("limit", 1..=most, diagnostics)
}

/// Less than the limit, and not of what is counted by connection: one has no others.
fn read_allowance(
    table: &Table<'_, '_>,
    by: Option<By>,
    limit: Option<u64>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<u32> {
    let allowance = table.number_of("allowance", 0..=BYTES_LIMIT_MAX, diagnostics)?;
    let start = table.get("allowance").map_or_else(|| table.start(), |value| value.span().start);
    if by == Some(By::Session) {
        let remedy = Some("write by = \"address\"".to_owned());
        diagnostics.report(start, "\"allowance\" is each connection's, and \"by\" counts one alone", remedy);
    }
    if let Some(limit) = limit.filter(|limit| allowance >= *limit) {
        diagnostics.report(
            start,
            format!("\"allowance\" is {allowance}, no less than \"limit\", {limit}"),
            None,
        );
    }
    u32::try_from(allowance).ok()
}

/// `where = { … }`, `unless = { … }`.
fn read_matches(table: &Table<'_, '_>, key: &str, diagnostics: &mut Diagnostics<'_>) -> Vec<Match> {
    let fields = Field::ALL.map(Field::as_str);
    let Some(conditions) = table.table_of(key, key, &fields, diagnostics) else {
        return Vec::new();
    };
    let mut matches = Vec::new();
    for (key, value) in conditions.entries() {
        let Some(field) = Field::ALL.into_iter().find(|field| field.as_str() == key) else {
            continue;
        };
        if let Some(pattern) = read_pattern(field, value, diagnostics) {
            matches.push(Match { field, pattern });
        }
    }
    matches
}

fn read_pattern(
    field: Field,
    value: &Spanned<DeValue<'_>>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Pattern> {
    let values: Vec<&Spanned<DeValue<'_>>> = match value.get_ref().as_array() {
        Some(array) => array.iter().collect(),
        None => vec![value],
    };
    match field {
        Field::Number => {
            let most = u64::from(u32::MAX);
            let numbers = values.iter().filter_map(|value| number(value, "number", 0..=most, diagnostics));
            Some(Pattern::Numbers(numbers.filter_map(|number| u32::try_from(number).ok()).collect()))
        }
        Field::Method => {
            let mut words = Vec::new();
            for value in values {
                let name = text(value, "method", diagnostics)?;
                let start = value.span().start;
                let method = word(name, start, "method", Method::ALL, Method::as_str, diagnostics)?;
                words.push(method.as_str().into());
            }
            Some(Pattern::Words(words))
        }
        Field::Command | Field::Reason => {
            let mut words = Vec::new();
            for value in values {
                words.push(text(value, field.as_str(), diagnostics)?.into());
            }
            Some(Pattern::Words(words))
        }
        Field::Account | Field::Nickname | Field::Identity | Field::Channel | Field::Target => {
            read_regex(field, value, diagnostics)
        }
    }
}

fn read_regex(
    field: Field,
    value: &Spanned<DeValue<'_>>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Pattern> {
    let written = text(value, field.as_str(), diagnostics)?;
    match RegexBuilder::new(written).size_limit(REGEX_BYTES_MAX).build() {
        Ok(regex) => Some(Pattern::Regex(regex)),
        Err(error) => {
            // The first line of the library's message is a heading, the last says what is wrong.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
            let remedy = Some("write \\. for a dot; use '…' quotes so that \\ stays as it is".to_owned());
            diagnostics.report(
                value.span().start,
                format!("bad regular expression {written:?}: {reason}"),
                remedy,
            );
            None
        }
    }
}

fn read_expiry(table: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Timestamp {
    let Some(value) = table.get("expires") else {
        return Timestamp::NEVER;
    };
    let date = value.get_ref().as_datetime().and_then(|datetime| datetime.date);
    match date {
        Some(date) => start_of_day(u64::from(date.year), u64::from(date.month), u64::from(date.day)),
        None => {
            let remedy = Some("write a date without quotes, such as 2027-01-31".to_owned());
            diagnostics.report(value.span().start, "\"expires\" is not a date", remedy);
            Timestamp::NEVER
        }
    }
}

/// Midnight UTC of a date of the Gregorian calendar, counted from the March before (Hinnant, "chrono-compatible
/// low-level date algorithms").
fn start_of_day(year: u64, month: u64, day: u64) -> Timestamp {
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let month = if month > 2 { month.saturating_sub(3) } else { month.saturating_add(9) };
    let day_of_year = (153 * month).saturating_add(2) / 5 + day.saturating_sub(1);
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    Timestamp::from_secs(days.saturating_sub(719_468).saturating_mul(86_400))
}

/// Reads `notify = ["webhook:ops", "journal"]`.
pub fn read_notify(table: &Table<'_, '_>, diagnostics: &mut Diagnostics<'_>) -> Vec<Box<str>> {
    let mut notify = Vec::new();
    for value in table.list_of("notify") {
        let Some(target) = text(value, "notify", diagnostics) else {
            continue;
        };
        if target.starts_with("webhook:") || target.starts_with("exec:") || target == "journal" {
            notify.push(target.into());
        } else {
            let remedy = Some("write \"webhook:NAME\", \"exec:PATH\" or \"journal\"".to_owned());
            diagnostics.report(value.span().start, format!("unknown notify target {target:?}"), remedy);
        }
    }
    notify
}

/// A limit without a window (or the reverse) is a mistake; a trigger has neither.
fn check_counting(table: &Table<'_, '_>, by: Option<By>, diagnostics: &mut Diagnostics<'_>) {
    let counts = ["limit", "within", "by"].map(|key| table.get(key).is_some());
    let remedy = "a rule that counts has \"by\", \"limit\" and \"within\"; a trigger has none of them";
    if counts.contains(&true) && counts.contains(&false) {
        let missing: Vec<&str> =
            ["limit", "within", "by"].into_iter().filter(|key| table.get(key).is_none()).collect();
        diagnostics.report(
            table.start(),
            format!("[[rule]] counts but has no \"{}\"", missing.join("\", no \"")),
            Some(remedy.to_owned()),
        );
    }
    for key in ["distinct", "allowance", "sum", "after", "against"] {
        if let (Some(value), None) = (table.get(key), by) {
            diagnostics.report(
                value.span().start,
                format!("\"{key}\" needs \"by\""),
                Some(remedy.to_owned()),
            );
        }
    }
    if let (Some(sum), Some(_)) = (table.get("sum"), table.get("distinct")) {
        let remedy = Some("leave one of them out".to_owned());
        diagnostics.report(sum.span().start, "\"sum\" adds bytes, \"distinct\" counts values", remedy);
    }
}

/// A ban must rest on evidence that a spoofed packet cannot produce, and must end.
fn check_action(
    table: &Table<'_, '_>,
    action: Option<Action>,
    signals: &[SignalKind],
    diagnostics: &mut Diagnostics<'_>,
) {
    let Some(value) = table.get("action") else { return };
    if !matches!(action, Some(Action::Ban | Action::Reset)) {
        return;
    }
    if let Some(spoofable) = signals.iter().find(|kind| kind.evidence() == EvidenceClass::Spoofable) {
        diagnostics.report(
            value.span().start,
            format!("\"{}\" can be forged in somebody else's name", spoofable.as_str()),
            Some("use action = \"limit\" or \"note\"".to_owned()),
        );
    }
    if matches!(action, Some(Action::Ban)) && table.get("for").is_none() {
        let remedy = Some("add a line such as: for = \"10m\"".to_owned());
        diagnostics.report(table.start(), "a ban needs \"for\"", remedy);
    }
}

#[cfg(test)]
mod tests;
