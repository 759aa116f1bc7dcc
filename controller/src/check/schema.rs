//! The JSON Schema of rule files, made from the words the reader knows.

use floodwall_engine::{
    Protocol,
    rule::{
        Action, By, Field, Level,
        file::{RULE_KEYS, SERVICE_KEYS},
    },
    signal::{Method, SignalKind},
};
use floodwall_wire::tables::{Kind, Standing};
use serde_json::{Map, Value, json};

/// Of one rule file, draft 2020-12.
pub(super) fn rule_file() -> Value {
    let scopes = Standing::ALL.iter().map(|standing| standing.as_str()).chain(["network", "service"]);
    let limits = object(scopes.map(|scope| (scope, rates())), &[]);
    let divisor = json!({"type": "integer", "minimum": 1, "maximum": 1000});
    let levels = object(["elevated", "attack"].map(|level| (level, divisor.clone())), &[]);
    let rule = object(RULE_KEYS.map(|key| (key, rule_key(key))), &["id", "why", "signal", "action"]);
    let mut schema = object(
        [
            ("service", object(SERVICE_KEYS.map(|key| (key, service_key(key))), &["protocol"])),
            ("limits", limits),
            ("levels", levels),
            ("rule", json!({"type": "array", "items": rule, "maxItems": 512})),
        ],
        &["service"],
    );
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        schema.insert("title".into(), "Floodwall rule file".into());
    }
    schema
}

fn object<'a>(properties: impl IntoIterator<Item = (&'a str, Value)>, required: &[&str]) -> Value {
    let properties: Map<String, Value> =
        properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> Value {
    json!({"enum": words.into_iter().collect::<Vec<_>>()})
}

fn one_or_more(item: &Value) -> Value {
    json!({"anyOf": [item, {"type": "array", "items": item}]})
}

fn span() -> Value {
    json!({"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d|w))+$"})
}

fn rates() -> Value {
    let rate = json!({"type": "string", "pattern": "^(off|[0-9]+/[smh] burst [0-9]+)$"});
    object(Kind::ALL.map(|kind| (kind.as_str(), rate.clone())), &[])
}

fn signals() -> Value {
    one_or_more(&one_of(SignalKind::ALL.iter().map(|kind| kind.as_str())))
}

fn conditions() -> Value {
    let condition = |field: Field| match field {
        Field::Method => one_or_more(&one_of(Method::ALL.iter().map(|method| method.as_str()))),
        Field::Number => one_or_more(&json!({"type": "integer", "minimum": 0})),
        Field::Account
        | Field::Nickname
        | Field::Identity
        | Field::Channel
        | Field::Target
        | Field::Command
        | Field::Reason => one_or_more(&json!({"type": "string"})),
    };
    object(Field::ALL.map(|field| (field.as_str(), condition(field))), &[])
}

fn rule_key(key: &str) -> Value {
    let subjects = || By::ALL.into_iter();
    match key {
        "signal" => signals(),
        "where" | "unless" => conditions(),
        "sum" => one_of(["bytes"]),
        "after" => object([("signal", signals()), ("within", span())], &["signal", "within"]),
        "against" => {
            let ratio = json!({"type": "integer", "minimum": 1, "maximum": 1000});
            object([("signal", signals()), ("ratio", ratio)], &["signal", "ratio"])
        }
        "by" => one_of(subjects().filter(|by| *by != By::Kind).map(By::as_str)),
        "distinct" => one_of(subjects().map(By::as_str)),
        "allowance" => json!({"type": "integer", "minimum": 0}),
        "limit" | "min-bytes" => json!({"type": "integer", "minimum": 1}),
        "within" | "for" | "max" => span(),
        "level" => one_of(Level::ALL.map(Level::as_str)),
        "action" => one_of(Action::ALL.map(Action::as_str)),
        "shadow" => json!({"type": "boolean"}),
        "expires" => json!({"description": "a date: 2027-01-31"}),
        "notify" => one_or_more(&json!({"type": "string", "pattern": "^(webhook:.+|exec:/.+|journal)$"})),
        // id, why
        _ => json!({"type": "string"}),
    }
}

fn service_key(key: &str) -> Value {
    match key {
        "protocol" => one_of(Protocol::ALL.map(Protocol::as_str)),
        "user-timeout" => span(),
        "require-session" | "require-own-id" => json!({"type": "boolean"}),
        // The lists of ports.
        _ => one_or_more(&json!({"type": "integer", "minimum": 1, "maximum": 65_535})),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schema_is_the_one_the_reader_knows() {
        let committed: Value = serde_json::from_str(include_str!("../../../rules/schema.json")).unwrap();
        let advice = "run: cargo run -p floodwall -- check --schema > rules/schema.json";
        // Not assert_eq: both are long.
        assert!(committed == rule_file(), "{advice}");
    }

    /// Each word of a shipped rule that is one of a closed list stands in the schema's list.
    #[test]
    fn the_schema_allows_the_words_of_the_shipped_rules() {
        let schema = rule_file();
        let properties = &schema["properties"]["rule"]["items"]["properties"];
        for (key, word) in [
            ("by", "site"),
            ("by", "target"),
            ("distinct", "kind"),
            ("action", "raise-level"),
            ("level", "elevated"),
        ] {
            let words = properties[key]["enum"].as_array().unwrap();
            assert!(words.iter().any(|allowed| allowed == word), "{key} {word}");
        }
        let by = properties["by"]["enum"].as_array().unwrap();
        assert!(!by.iter().any(|allowed| allowed == "kind"), "it only tells signals apart");
        assert_eq!(schema["properties"]["rule"]["items"]["additionalProperties"], false);
    }
}
