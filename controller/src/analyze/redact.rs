//! For passing on: the same address, network or name is always replaced by the same number. Passwords, keys and messages need
//! no replacing, because no report holds any.

use std::{collections::HashMap, net::IpAddr};

use floodwall_engine::text::escape;

/// Numbers given so far.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    addresses: HashMap<String, usize>,
    networks: HashMap<String, usize>,
    names: HashMap<String, usize>,
}

impl Redactor {
    /// What stands for a name, or an account.
    pub(super) fn name(&mut self, name: &str) -> String {
        let mut escaped = String::new();
        // Writing to a string does not fail.
        escape(name, &mut escaped).ok();
        self.escaped_name(&escaped)
    }

    fn escaped_name(&mut self, name: &str) -> String {
        // That somebody has none is no secret.
        if name.is_empty() { String::new() } else { format!("name-{}", number(&mut self.names, name)) }
    }

    /// What stands for a text of ours that quotes names and holds addresses.
    pub(super) fn text(&mut self, text: &str) -> String {
        let mut redacted = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first == '"' {
                let inside = rest.get(1..).unwrap_or_default();
                let end = quote_end(inside);
                let name = self.escaped_name(inside.get(..end).unwrap_or(inside));
                redacted.push('"');
                redacted.push_str(&name);
                redacted.push('"');
                rest = inside.get(end + 1..).unwrap_or_default();
            } else if first.is_ascii_hexdigit() || first == ':' {
                let end = rest.find(|character: char| !is_of_word(character)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                redacted.push_str(&self.word(word));
                rest = after;
            } else if is_of_word(first) {
                let end = rest.find(|character: char| !is_of_word(character)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(end);
                redacted.push_str(word);
                rest = after;
            } else {
                redacted.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
        redacted
    }

    fn word(&mut self, word: &str) -> String {
        // A sentence may end with an address.
        let bare = word.trim_end_matches(['.', ':']);
        let end = word.get(bare.len()..).unwrap_or_default();
        let (address, bits) = match bare.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (bare, None),
        };
        if address.parse::<IpAddr>().is_err() {
            return word.to_owned();
        }
        match bits {
            None | Some("128" | "32") if bits != Some("32") || address.contains('.') => {
                format!("address-{}{end}", number(&mut self.addresses, address))
            }
            _ => format!("network-{}{end}", number(&mut self.networks, bare)),
        }
    }
}

fn number(numbers: &mut HashMap<String, usize>, key: &str) -> usize {
    let next = numbers.len() + 1;
    *numbers.entry(key.to_owned()).or_insert(next)
}

/// Where the quote that ends a name is, which is not one behind a backslash.
fn quote_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    text.len()
}

const fn is_of_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, ':' | '.' | '/' | '-' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_replaced_the_same_by_the_same() {
        let mut redactor = Redactor::default();
        let evidence = r#"login.failed from 10.77.0.66 method account account "ad\"min 10.0.0.1""#;
        assert_eq!(redactor.text(evidence), r#"login.failed from address-1 method account account "name-1""#);
        assert_eq!(redactor.name("ad\"min 10.0.0.1"), "name-1");
        assert_eq!(
            redactor.text("10.77.0.66/32, fd77::1/128 and fd77::/64."),
            "address-1, address-2 and network-1."
        );
        assert_eq!(
            redactor.text("channel.joined from fd77::1 account \"\""),
            "channel.joined from address-2 account \"\""
        );
        assert_eq!(redactor.text("service"), "service");
    }
}
