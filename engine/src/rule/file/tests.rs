use super::*;

const SERVICE: &str = "[service]\nprotocol = \"teamtalk\"\nports = [10333]\n";

fn rule(body: &str) -> String {
    format!("{SERVICE}\n[[rule]]\n{body}")
}

fn mistakes(source: &str) -> Vec<String> {
    match parse("t.toml", source) {
        Ok(_) => Vec::new(),
        Err(found) => found.iter().map(ToString::to_string).collect(),
    }
}

const STORM: &str = "id = \"a/b\"\nwhy = \"w\"\nsignal = \"login.failed\"\nby = \"address\"\nlimit = 8\n\
                     within = \"60s\"\naction = \"ban\"\nfor = \"10m\"\nmax = \"24h\"\n";

#[test]
fn a_good_file_is_read() {
    let source = format!(
        "{}\n[limits.stranger]\ngreeting = \"10/s burst 40\"\nsyn = \"6/m burst 3\"\npayload = \"off\"\n",
        rule(STORM)
    );
    let file = parse("t.toml", &source).unwrap();
    assert_eq!((file.protocol, file.ports.main.as_slice()), (Protocol::TeamTalk, &[10_333][..]));
    assert_eq!(file.limits.source[0][0], Rate { units: 10, per: Span::from_secs(1), burst: 40 });
    assert_eq!(file.limits.source[0][2], Rate { units: 6, per: Span::from_secs(60), burst: 3 });
    let rule = file.rules.first().unwrap();
    assert_eq!((rule.limit, rule.by, rule.action), (8, By::Address, Action::Ban));
    assert_eq!(rule.duration_max, Span::from_secs(86_400));
}

#[test]
fn every_mistake_is_named_at_once_with_place_and_remedy() {
    let source = "[service]\nprotocol = \"teamtlak\"\n[[rule]]\nid = \"a/b\"\nwhy = \"w\"\n\
                  signal = \"login.fail\"\nby = \"adress\"\nlimt = 8\nwithin = \"60\"\naction = \"ban\"\n\
                  where = { nickname = \"(\" }\n";
    assert_eq!(
        mistakes(source),
        [
            "t.toml:2:12: unknown protocol \"teamtlak\"; did you mean \"teamtalk\"?",
            "t.toml:3:1: [[rule]] counts but has no \"limit\"; a rule that counts has \"by\", \"limit\" and \
             \"within\"; a trigger has none of them",
            "t.toml:3:1: a ban needs \"for\"; add a line such as: for = \"10m\"",
            "t.toml:6:10: unknown signal \"login.fail\"; did you mean \"login.failed\"?",
            "t.toml:7:6: unknown by \"adress\"; did you mean \"address\"?",
            "t.toml:8:1: unknown key \"limt\" in [[rule]]; did you mean \"limit\"?",
            "t.toml:9:10: bad duration \"60\": a unit is missing: ms, s, m, h, d or w; write for example \
             \"60s\", \"10m\" or \"1h30m\"",
            "t.toml:11:22: bad regular expression \"(\": unclosed group; write \\. for a dot; use '…' quotes so \
             that \\ stays as it is",
        ]
    );
}

#[test]
fn a_ban_on_what_can_be_forged_is_refused() {
    let source = rule(&STORM.replace("login.failed", "datagram.foreign"));
    assert_eq!(
        mistakes(&source),
        [
            "t.toml:12:10: \"datagram.foreign\" can be forged in somebody else's name; use action = \"limit\" or \"note\""
        ]
    );
}

#[test]
fn broken_toml_is_named_with_its_place() {
    let found = mistakes(&rule("id = \"a/b\nwhy = \"w\"\n"));
    assert!(found.iter().any(|mistake| mistake.starts_with("t.toml:6:")), "{found:?}");
    assert!(!mistakes("").is_empty());
    assert!(!mistakes("[service]").is_empty());
}

#[test]
fn rates_that_make_no_sense_are_refused() {
    for rate in ["10", "10/s", "0/s burst 5", "10/d burst 5", "10/s burst 0", "-1/s burst 2", "x/s burst 1"] {
        let source = format!("{SERVICE}[limits.known]\nsyn = {rate:?}\n");
        assert_eq!(mistakes(&source).len(), 1, "{rate}");
    }
}

#[test]
fn dates_become_midnight_utc() {
    assert_eq!(start_of_day(1970, 1, 1), Timestamp::EPOCH);
    assert_eq!(start_of_day(2000, 2, 29), Timestamp::from_secs(951_782_400));
    assert_eq!(start_of_day(2027, 1, 31), Timestamp::from_secs(1_801_353_600));
}

#[test]
fn duplicate_rules_and_wrong_types_are_mistakes() {
    let twice = format!("{}\n[[rule]]\n{STORM}", rule(STORM));
    assert!(mistakes(&twice).iter().any(|mistake| mistake.contains("a second rule \"a/b\"")));
    let found = mistakes(&rule(&STORM.replace("limit = 8", "limit = \"8\"")));
    assert_eq!(found, ["t.toml:10:9: \"limit\" is string, expected a whole number"]);
    let found = mistakes(&rule(&STORM.replace("limit = 8", "limit = 0")));
    assert_eq!(found, ["t.toml:10:9: \"limit\" is 0, outside 1 to 1000000"]);
}

#[test]
fn a_maximum_below_the_first_time_and_control_characters_are_mistakes() {
    let found = mistakes(&rule(&STORM.replace("max = \"24h\"", "max = \"1m\"")));
    assert_eq!(found, ["t.toml:14:7: \"max\" is 1m, shorter than \"for\", 10m"]);
    let found = mistakes(&rule(&STORM.replace("why = \"w\"", "why = \"a\\u001b[2Jb\"")));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("control characters in \"why\""), "{found:?}");
}
