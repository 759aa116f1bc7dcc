//! Bans of everybody: masks, prefixes and patterns that fit people who have nothing in common.
//!
//! Masks are tried on made-up people and addresses: one that fits all of a kind is for everybody of that kind.

use regex::RegexBuilder;

/// Addresses and hosts without anything in common, by kind.
const HOSTS: [&[&str]; 3] = [
    &["23.4.5.6", "91.203.17.88", "178.11.200.9", "203.0.113.77"],
    &["2001:db8::5", "2a02:8109:91::7", "fd12:3456:789a::1"],
    &["anna.example.net", "p5b007.dip0.example.de", "host-7.uni.example.org"],
];
/// Nicknames and users, as many as there are hosts of a kind at most.
const PEOPLE: [(&str, &str); 4] = [("anna", "~anna"), ("Bert77", "bb"), ("x_y", "~id"), ("koenig", "web")];
/// Bits of a prefix in which somebody from everywhere is.
const PREFIX_BITS_V4: u32 = 8;
/// The same for IPv6.
const PREFIX_BITS_V6: u32 = 16;
/// Longer patterns name somebody.
const PATTERN_BYTES_MAX: usize = 256;
/// Bytes a compiled pattern may take.
const PATTERN_SIZE_MAX: usize = 64 * 1024;

/// Whether a ban by a mask (`nick!user@host`, `user@host`, a host, a name) or prefix (`192.0.2.0/24`) is one of everybody.
pub(super) fn is_everybody(mask: &[u8]) -> bool {
    let Ok(mask) = std::str::from_utf8(mask) else { return false };
    let (person, host) = mask.rsplit_once('@').map_or((None, mask), |(person, host)| (Some(person), host));
    let (nickname, user) = match person.map(|person| person.split_once('!').unwrap_or(("*", person))) {
        Some((nickname, user)) => (nickname, user),
        None => ("*", "*"),
    };
    let fits_people = PEOPLE.iter().all(|(name, own)| fits(nickname, name) && fits(user, own));
    fits_people && (is_wide_prefix(host) || HOSTS.iter().any(|hosts| hosts.iter().all(|own| fits(host, own))))
}

/// Whether a ban by a regular expression, which has to fit the whole, is one of everybody.
pub(super) fn is_everybody_by_pattern(pattern: &[u8]) -> bool {
    let pattern = std::str::from_utf8(pattern).ok().filter(|pattern| pattern.len() <= PATTERN_BYTES_MAX);
    let Some(pattern) = pattern else { return false };
    let whole = RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(PATTERN_SIZE_MAX).build();
    let Ok(whole) = whole else { return false };
    let names = PEOPLE.map(|(name, _)| name);
    HOSTS.iter().copied().chain([names.as_slice()]).any(|kind| kind.iter().all(|one| whole.is_match(one)))
}

fn is_wide_prefix(host: &str) -> bool {
    let Some((network, bits)) = host.split_once('/') else { return false };
    let (Ok(network), Ok(bits)) = (network.parse::<std::net::IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    bits <= if network.is_ipv4() { PREFIX_BITS_V4 } else { PREFIX_BITS_V6 }
}

/// Whether a mask with `*` and `?` fits, letter case aside. Linear but for one retry at the last `*`.
fn fits(mask: &str, text: &str) -> bool {
    let (mask, text) = (mask.as_bytes(), text.as_bytes());
    let (mut at_mask, mut at_text) = (0_usize, 0_usize);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(at_text) {
        match mask.get(at_mask) {
            Some(b'*') => {
                star = Some((at_mask, at_text));
                at_mask = at_mask.saturating_add(1);
            }
            Some(own) if *own == b'?' || own.eq_ignore_ascii_case(byte) => {
                at_mask = at_mask.saturating_add(1);
                at_text = at_text.saturating_add(1);
            }
            Some(_) | None => {
                let Some((mask_star, text_star)) = star else { return false };
                let next = text_star.saturating_add(1);
                star = Some((mask_star, next));
                at_mask = mask_star.saturating_add(1);
                at_text = next;
            }
        }
    }
    mask.get(at_mask..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_that_fit_everybody_are_told_from_those_that_fit_many() {
        for mask in [
            "*",
            "*!*@*",
            "*@*",
            "*!*@*.*",
            "**!?*@*",
            "0.0.0.0/0",
            "128.0.0.0/1",
            "::/0",
            "*@0.0.0.0/0",
            "*:*",
        ] {
            assert!(is_everybody(mask.as_bytes()), "{mask}");
        }
        for mask in [
            "*!*@91.203.17.88",
            "*!*@*.example.net",
            "*!~*@*",
            "a*!*@*",
            "10.0.0.0/9",
            "192.0.2.0/24",
            "2001:db8::/32",
            "bad",
            "",
            "*!*@*.de",
            "?",
            "*/x",
        ] {
            assert!(!is_everybody(mask.as_bytes()), "{mask}");
        }
        assert!(!is_everybody(b"\xff*"));
    }

    #[test]
    fn a_mask_of_many_stars_costs_little() {
        assert!(!fits(&"*a".repeat(200), &"a".repeat(150)));
    }

    #[test]
    fn patterns_that_fit_everybody_are_told() {
        for pattern in [".*", ".+", "^.*$", "[0-9.]+", "\\d+(\\.\\d+){3}", "(?i).*", "[^q]*"] {
            assert!(is_everybody_by_pattern(pattern.as_bytes()), "{pattern}");
        }
        for pattern in ["91\\.203\\..*", ".", "bad.*", "(", "a{1000}{1000}", "192\\.0\\.2\\.\\d+"] {
            assert!(!is_everybody_by_pattern(pattern.as_bytes()), "{pattern}");
        }
        assert!(!is_everybody_by_pattern(".*".repeat(300).as_bytes()));
    }
}
