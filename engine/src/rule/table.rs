//! Reading TOML tables key by key, so that every mistake is named and none hides another.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::diagnostic::{Diagnostics, suggest};
use crate::time::Span;

/// A table of which every key must be asked for.
pub struct Table<'a, 'i> {
    table: &'a DeTable<'i>,
    span: Range<usize>,
    /// How messages call it: `[service]`.
    name: &'a str,
}

impl<'a, 'i> Table<'a, 'i> {
    /// A table as the parser gave it; keys other than `valid` are mistakes.
    pub fn new(
        table: &'a DeTable<'i>,
        span: Range<usize>,
        name: &'a str,
        valid: &[&str],
        diagnostics: &mut Diagnostics<'_>,
    ) -> Self {
        for key in table.keys() {
            let word = key.get_ref().as_ref();
            if !valid.contains(&word) {
                diagnostics.report(
                    key.span().start,
                    format!("unknown key \"{word}\" in {name}"),
                    suggest(word, valid.iter().copied()),
                );
            }
        }
        Self { table, span, name }
    }

    /// Where it begins.
    pub const fn start(&self) -> usize {
        self.span.start
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'i>>> {
        self.table.get(key)
    }

    /// A key that must be there.
    pub fn require(
        &self,
        key: &str,
        example: &str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<&'a Spanned<DeValue<'i>>> {
        let value = self.get(key);
        if value.is_none() {
            diagnostics.report(
                self.start(),
                format!("{} has no \"{key}\"", self.name),
                Some(format!("add a line such as: {key} = {example}")),
            );
        }
        value
    }

    /// A key that is a duration.
    pub fn span_of(&self, key: &str, diagnostics: &mut Diagnostics<'_>) -> Option<Span> {
        let value = self.get(key)?;
        let text = text(value, key, diagnostics)?;
        match Span::parse(text) {
            Ok(span) if span > Span::ZERO => Some(span),
            Ok(_) => {
                diagnostics.report(value.span().start, format!("\"{key}\" must be longer than 0"), None);
                None
            }
            Err(error) => {
                let remedy = Some("write for example \"60s\", \"10m\" or \"1h30m\"".to_owned());
                diagnostics.report(value.span().start, format!("bad duration {text:?}: {error}"), remedy);
                None
            }
        }
    }

    /// A key that is a word from a closed list.
    pub fn word_of<T: Copy>(
        &self,
        key: &str,
        valid: &[T],
        name: impl Fn(T) -> &'static str,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let text = text(value, key, diagnostics)?;
        word(text, value.span().start, key, valid, name, diagnostics)
    }

    /// A key that is true or false.
    pub fn flag(&self, key: &str, default: bool, diagnostics: &mut Diagnostics<'_>) -> bool {
        let Some(value) = self.get(key) else {
            return default;
        };
        match value.get_ref().as_bool() {
            Some(flag) => flag,
            None => {
                wrong_type(value, key, "true or false", diagnostics);
                default
            }
        }
    }

    /// A key that is a whole number within a range.
    pub fn number_of(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<u64>,
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<u64> {
        let value = self.get(key)?;
        number(value, key, range, diagnostics)
    }

    /// A key that is a list, or one element standing for a list.
    pub fn list_of(&self, key: &str) -> Vec<&'a Spanned<DeValue<'i>>> {
        match self.get(key) {
            None => Vec::new(),
            Some(value) => match value.get_ref().as_array() {
                Some(array) => array.iter().collect(),
                None => vec![value],
            },
        }
    }

    /// A key that is a table.
    pub fn table_of<'n>(
        &self,
        key: &str,
        name: &'n str,
        valid: &[&str],
        diagnostics: &mut Diagnostics<'_>,
    ) -> Option<Table<'n, 'i>>
    where
        'a: 'n,
    {
        let value = self.get(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Table::new(table, value.span(), name, valid, diagnostics)),
            None => {
                wrong_type(value, key, "a table", diagnostics);
                None
            }
        }
    }

    /// Every key and value.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Spanned<DeValue<'i>>)> {
        self.table.iter().map(|(key, value)| (key.get_ref().as_ref(), value))
    }
}

/// A value that must be a string.
pub fn text<'a>(
    value: &'a Spanned<DeValue<'_>>,
    key: &str,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<&'a str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        wrong_type(value, key, "a string", diagnostics);
    }
    text
}

/// A value that must be a whole number within a range.
pub fn number(
    value: &Spanned<DeValue<'_>>,
    key: &str,
    range: std::ops::RangeInclusive<u64>,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<u64> {
    let Some(integer) = value.get_ref().as_integer() else {
        wrong_type(value, key, "a whole number", diagnostics);
        return None;
    };
    match u64::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) if range.contains(&number) => Some(number),
        Ok(_) | Err(_) => {
            diagnostics.report(
                value.span().start,
                format!("\"{key}\" is {}, outside {} to {}", integer.as_str(), range.start(), range.end()),
                None,
            );
            None
        }
    }
}

/// A string that must be one of a closed list.
pub fn word<T: Copy>(
    text: &str,
    offset: usize,
    key: &str,
    valid: &[T],
    name: impl Fn(T) -> &'static str,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<T> {
    let found = valid.iter().copied().find(|candidate| name(*candidate) == text);
    if found.is_none() {
        let remedy = suggest(text, valid.iter().map(|candidate| name(*candidate)));
        diagnostics.report(offset, format!("unknown {key} {text:?}"), remedy);
    }
    found
}

/// Reports a value of another type than expected.
pub fn wrong_type(
    value: &Spanned<DeValue<'_>>,
    key: &str,
    expected: &str,
    diagnostics: &mut Diagnostics<'_>,
) {
    let found = value.get_ref().type_str();
    diagnostics.report(value.span().start, format!("\"{key}\" is {found}, expected {expected}"), None);
}
