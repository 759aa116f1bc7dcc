//! `floodwall replay` and `check` as an operator runs them: captures with ground truth in, reports out.
//!
//! Committed captures are in `tests/corpus`. Third-party ones are read from `$FLOODWALL_SHARED` (default
//! `../shared` beside the checkout); without it those tests say that they were skipped.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn corpus(name: &str) -> PathBuf {
    repository().join("tests/corpus").join(name)
}

#[expect(clippy::print_stdout, reason = "a skipped check says so")]
fn third_party() -> Option<PathBuf> {
    let shared = std::env::var_os("FLOODWALL_SHARED")
        .map_or_else(|| repository().join("../shared"), PathBuf::from)
        .join("corpus/pcaps");
    if shared.is_dir() {
        return Some(shared);
    }
    println!("SKIPPED: third-party captures, because {} is not there", shared.display());
    None
}

fn floodwall(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_floodwall"))
        .args(arguments)
        .current_dir(repository())
        .output()
        .expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are UTF-8")
}

fn replay(capture: &Path, more: &[&str]) -> Value {
    let path = capture.display().to_string();
    let output = floodwall(&[&["replay", "--format", "json"], more, &[&path]].concat());
    assert_eq!(output.status.code(), Some(0), "{path}: {}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a JSON document");
    assert_eq!(report["schema"], "floodwall.replay/1");
    report
}

/// Address and outcome of every source.
fn outcomes(report: &Value) -> Vec<(String, String)> {
    let sources = report["sources"].as_array().expect("sources");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    sources.iter().map(|source| (text(&source["address"]), text(&source["outcome"]))).collect()
}

fn flagged(report: &Value) -> BTreeSet<String> {
    outcomes(report)
        .into_iter()
        .filter(|(_, outcome)| outcome != "clean")
        .map(|(address, _)| address)
        .collect()
}

/// Addresses of a role in a capture's ground truth.
fn actors(capture: &Path, is_role: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let truth = fs::read_to_string(capture.with_extension("truth.json")).expect("ground truth");
    let truth: Value = serde_json::from_str(&truth).expect("JSON");
    let actors = truth["actors"].as_object().expect("actors").iter();
    let of_role = actors.filter(|(_, actor)| is_role(actor["role"].as_str().expect("a role")));
    of_role.map(|(address, _)| address.clone()).collect()
}

#[test]
fn every_attacker_is_flagged_and_every_regular_clean() {
    for name in [
        "03_login_storm_single",
        "05_login_storm_distributed",
        "10_udp_junk_flood",
        "11_udp_masquerade",
        "18_ipv6",
        "24_log_injection",
    ] {
        let capture = corpus(&format!("teamtalk/{name}.pcap"));
        let report = replay(&capture, &[]);
        assert_eq!(flagged(&report), actors(&capture, |role| role == "attacker"), "{name}");
    }
}

#[test]
fn message_floods_are_stopped_and_the_audience_is_clean() {
    let capture = corpus("teamtalk/09_message_flood.pcap");
    let found = flagged(&replay(&capture, &[]));
    assert_eq!(found, actors(&capture, |role| role == "attacker"), "{found:?}");
}

#[test]
fn quiet_evenings_stay_quiet() {
    for name in ["01_baseline_session", "15_file_transfer", "16_benign_busy"] {
        let report = replay(&corpus(&format!("teamtalk/{name}.pcap")), &[]);
        assert!(flagged(&report).is_empty(), "{name}: {:?}", outcomes(&report));
        for list in ["bans", "notes", "levels"] {
            assert!(report[list].as_array().expect("a list").is_empty(), "{name}: {list}");
        }
    }
    for name in ["hybrid-normal", "hybrid-s2s"] {
        let report = replay(&corpus(&format!("irc/{name}.pcap")), &[]);
        assert!(flagged(&report).is_empty(), "{name}: {:?}", outcomes(&report));
    }
}

#[test]
fn irc_attackers_are_flagged_and_their_neighbours_clean() {
    for (name, attacker) in
        [("hybrid-oper", "10.78.0.30"), ("hybrid-connflood", "10.78.0.31"), ("ngircd-msgflood", "10.78.0.34")]
    {
        let found = flagged(&replay(&corpus(&format!("irc/{name}.pcap")), &[]));
        assert!(found.contains(attacker), "{name}: {found:?}");
        assert!(!found.contains("10.78.0.20"), "{name}: {found:?}");
        // Ten addresses of drones that all say the same.
        let drones = (40..50).filter(|number| found.contains(&format!("10.78.0.{number}"))).count();
        assert_eq!(drones, if name == "hybrid-connflood" { 10 } else { 0 }, "{name}: {found:?}");
    }
}

#[test]
fn nobody_is_banned_on_what_can_be_forged() {
    for name in ["10_udp_junk_flood", "11_udp_masquerade"] {
        let report = replay(&corpus(&format!("teamtalk/{name}.pcap")), &[]);
        assert!(report["bans"].as_array().expect("bans").is_empty(), "{name}");
    }
}

#[test]
fn unrelated_traffic_is_left_alone_whatever_it_is_declared_to_be() {
    let Some(folder) = third_party() else { return };
    let mut captures = 0;
    for entry in fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path()) {
        if !entry.to_string_lossy().contains(".pcap") {
            continue;
        }
        captures += 1;
        let report = replay(&entry, &[]);
        assert!(flagged(&report).is_empty(), "{}: {:?}", entry.display(), outcomes(&report));
        // Declared to be something it is not, it may be dropped, but nothing may break.
        for service in ["teamtalk", "irc", "teamspeak"] {
            let ports = "53,80,443,5060,25,27015,64738,3478,6667,9987,2010,8080,21,1900,50004";
            replay(&entry, &["--service", &format!("{service}={ports}")]);
        }
    }
    assert!(captures >= 10, "{captures} captures");
}

#[test]
fn packets_of_sources_add_up_to_packets_of_services() {
    let report = replay(&corpus("teamtalk/10_udp_junk_flood.pcap"), &["--sources", "3"]);
    let sum = |rows: &Value| -> u64 {
        let rows = rows.as_array().expect("rows");
        rows.iter().map(|row| row["packets"].as_u64().expect("a number")).sum()
    };
    let services = report["services"].as_object().expect("services");
    let total: u64 = services.values().map(|service| service["packets"].as_u64().expect("a number")).sum();
    assert_eq!(sum(&report["sources"]), total);
    let last = report["sources"].as_array().and_then(|rows| rows.last()).expect("rows");
    assert_eq!((last["address"].as_str(), last["sources"].as_u64()), (Some("others"), Some(6)));
}

#[test]
fn reports_are_as_they_were() {
    for name in [
        "teamtalk/03_login_storm_single",
        "teamtalk/11_udp_masquerade",
        "teamtalk/16_benign_busy",
        "teamtalk/18_ipv6",
        "irc/hybrid-oper",
    ] {
        let path = format!("tests/corpus/{name}.pcap");
        let text = stdout(&floodwall(&["replay", &path]));
        let json = stdout(&floodwall(&["replay", "--format", "json", &path]));
        let file = name.replace('/', "_");
        insta::assert_snapshot!(format!("{file}.text"), text);
        insta::assert_snapshot!(format!("{file}.json"), json);
    }
}

#[test]
fn compressed_captures_and_several_files_give_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let capture = corpus("teamtalk/18_ipv6.pcap");
    let bytes = fs::read(&capture).expect("the capture");
    let gzip = folder.path().join("c.pcap.gz");
    let mut encoder =
        flate2::write::GzEncoder::new(fs::File::create(&gzip).expect("a file"), flate2::Compression::fast());
    encoder.write_all(&bytes).and_then(|()| encoder.finish().map(drop)).expect("gzip");
    let zstandard = folder.path().join("c.pcap.zst");
    fs::write(&zstandard, zstd::encode_all(bytes.as_slice(), 1).expect("zstd")).expect("a file");
    let plain = replay(&capture, &[]);
    for path in [gzip, zstandard] {
        let packed = replay(&path, &[]);
        for key in ["services", "signals", "sources", "bans"] {
            assert_eq!(packed[key], plain[key], "{}", path.display());
        }
    }
    let twice = replay(&capture, &[&*capture.display().to_string()]);
    let packets = |report: &Value| report["capture"]["packets"].as_u64().expect("a number");
    assert_eq!(packets(&twice), 2 * packets(&plain));
}

#[test]
fn a_truncated_capture_reports_what_was_read_and_then_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cut.pcap");
    let bytes = fs::read(corpus("teamtalk/03_login_storm_single.pcap")).expect("the capture");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("a file");
    let output = floodwall(&["replay", &path.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("10.77.0.66: banned"));
    let message = stderr(&output);
    assert!(message.contains("cut.pcap: packet ") && message.contains("truncated"), "{message}");
}

#[test]
fn what_is_no_capture_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path.display().to_string()
    };
    // A pcap header with link type 105 (IEEE 802.11).
    let mut wireless = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0];
    wireless.extend_from_slice(&105u32.to_le_bytes());
    for (path, expected) in [
        (write("empty.pcap", b""), "is empty"),
        (write("text.pcap", b"this is not a capture at all, but text"), "pcap or pcapng"),
        (write("wireless.pcap", &wireless), "link type IEEE802_11 is not understood"),
        (write("cut.gz", &[0x1f, 0x8b, 8, 0, 0]), "cut.gz"),
        (folder.path().join("absent.pcap").display().to_string(), "cannot read"),
        (folder.path().display().to_string(), "is a folder"),
    ] {
        let output = floodwall(&["replay", &path]);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{path}: {message}");
        assert!(message.contains(expected), "{path}: {message}");
    }
}

#[test]
fn bad_rules_are_refused_with_every_mistake_before_anything_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = fs::read_to_string(repository().join("rules/teamtalk.toml")).expect("rules");
    let broken =
        rules.replacen("limit = 8", "limt = 8", 1).replacen("within = \"60s\"", "within = \"60\"", 2);
    fs::write(folder.path().join("teamtalk.toml"), broken).expect("a file");
    let shown = folder.path().display().to_string();
    for command in ["check", "replay"] {
        let mut arguments = vec![command, "--rules", &shown];
        if command == "replay" {
            arguments.push("tests/corpus/teamtalk/18_ipv6.pcap");
        }
        let output = floodwall(&arguments);
        assert_eq!(output.status.code(), Some(2), "{command}");
        let printed = if command == "check" { stdout(&output) } else { stderr(&output) };
        for expected in [
            "teamtalk.toml:",
            "unknown key \"limt\" in [[rule]]; did you mean \"limit\"?",
            "bad duration \"60\": a unit is missing",
        ] {
            assert!(printed.contains(expected), "{command}: {printed}");
        }
    }
}

#[test]
fn usage_mistakes_exit_with_two() {
    for arguments in
        [&["replay"][..], &["replay", "--service", "tt=1", "x"], &["fly"], &["check", "--rules", "/absent"]]
    {
        assert_eq!(floodwall(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(floodwall(&["--help"]).status.code(), Some(0));
}

#[test]
fn the_shipped_rules_pass_the_check() {
    let output = floodwall(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let output = floodwall(&["check", "--rules", "rules", "--format", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (report["schema"].as_str(), report["mistakes"].as_array().map(Vec::len)),
        (Some("floodwall.check/1"), Some(0))
    );
}

#[test]
fn the_check_finds_what_would_keep_the_wall_from_starting() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let service = "[[service]]\nprotocol = \"teamtalk\"\nports = [10333]\n";
    let changed =
        |rule: &str, more: &str| format!("{service}[[service.override]]\nrule = \"{rule}\"\n{more}\n");
    for (name, text, expected) in [
        (
            "unknown.toml",
            changed("teamtalk/login-strom", "limit = 9"),
            "unknown.toml:5:8: there is no rule \"teamtalk/login-strom\"; did you mean \"teamtalk/login-storm\"?",
        ),
        (
            "twice.toml",
            format!("{service}{service}"),
            "twice.toml:6:9: port 10333 is named for teamtalk and for teamtalk: leave it to one of them",
        ),
        (
            "hook.toml",
            changed("teamtalk/login-storm", "notify = \"webhook:ops\""),
            "rule teamtalk/login-storm: there is no web hook \"ops\": add [[webhook]] with name = \"ops\"",
        ),
        (
            "far.toml",
            changed("teamtalk/distributed-guessing", "limit = 100000"),
            "far.toml:5:8: the limit of \"teamtalk/distributed-guessing\" is 100000",
        ),
    ] {
        let config = path(name, text.as_bytes());
        let output = floodwall(&["check", "--config", &config]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(stderr(&output).contains(expected), "{name}: {}", stderr(&output));
    }
    path("rules.toml", b"[service]\nprotocol = \"irc\" # caf\xe9\n");
    let rules = folder.path().join("only");
    fs::create_dir(&rules).expect("a folder");
    fs::rename(folder.path().join("rules.toml"), rules.join("rules.toml")).expect("moved");
    let output = floodwall(&["check", "--rules", &rules.display().to_string()]);
    assert!(stderr(&output).contains("rules.toml:2:23: this byte is no UTF-8"), "{}", stderr(&output));
}

#[test]
fn rules_without_a_case_are_not_called_tested() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::copy(repository().join("rules/irc.toml"), folder.path().join("irc.toml")).expect("rules");
    fs::create_dir(folder.path().join("cases")).expect("a folder");
    let output = floodwall(&["test", "--rules", &folder.path().display().to_string()]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stderr(&output).contains("holds no case: nothing was tested"), "{}", stderr(&output));
}

#[test]
fn against_shows_what_other_rules_would_do_by_source() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["irc.toml", "teamspeak.toml", "teamtalk.toml"] {
        let mut rules = fs::read_to_string(repository().join("rules").join(name)).expect("rules");
        if name == "teamtalk.toml" {
            // Without its rules the gate alone remains.
            rules.truncate(rules.find("[[rule]]").expect("a rule"));
        }
        fs::write(folder.path().join(name), rules).expect("a file");
    }
    let against = folder.path().display().to_string();
    let report = replay(&corpus("teamtalk/03_login_storm_single.pcap"), &["--against", &against]);
    let rows = report["against"].as_array().expect("a comparison");
    assert_eq!(rows.len(), 1);
    let row = rows.first().expect("a row");
    assert_eq!((row["address"].as_str(), row["outcome"].as_str()), (Some("10.77.0.66"), Some("banned")));
    assert_ne!(row["against_outcome"], row["outcome"]);
}

#[test]
fn shadow_rules_say_what_they_would_have_done_and_do_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let rules = fs::read_to_string(repository().join("rules/teamtalk.toml")).expect("rules");
    fs::write(folder.path().join("teamtalk.toml"), rules.replace("[[rule]]", "[[rule]]\nshadow = true"))
        .expect("a file");
    let shown = folder.path().display().to_string();
    let report = replay(&corpus("teamtalk/03_login_storm_single.pcap"), &["--rules", &shown]);
    assert!(flagged(&report).is_empty(), "{:?}", outcomes(&report));
    assert!(report["shadowed"]["teamtalk/login-storm"].as_u64() > Some(30), "{}", report["shadowed"]);
    let text = stdout(&floodwall(&[
        "replay",
        "--rules",
        &shown,
        "tests/corpus/teamtalk/03_login_storm_single.pcap",
    ]));
    assert!(text.contains("Shadow rule teamtalk/login-storm would have fired "), "{text}");
}

#[test]
fn nothing_is_called_clean_that_was_not_read() {
    let output = floodwall(&["replay", "/absent.pcap"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    assert!(stderr(&output).contains("/absent.pcap"));
}

#[test]
fn a_clock_that_goes_back_is_held_against_nobody() {
    let capture = corpus("teamtalk/16_benign_busy.pcap");
    let report = replay(&capture, &[&*capture.display().to_string()]);
    assert_eq!(report["capture"]["restarts"], 1);
    assert!(flagged(&report).is_empty(), "{:?}", outcomes(&report));
}

/// A server link at a port that no service guards is read once `[[link]]` names it, whoever opened it; nothing of it
/// is dropped, and nobody is banned for it.
#[test]
fn links_that_the_configuration_names_are_read_and_never_dropped() {
    let capture = corpus("irc/hybrid-s2s.pcap");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("floodwall.toml");
    let collisions = |text: &str| {
        fs::write(&file, format!("[[service]]\nprotocol = \"irc\"\n{text}")).expect("written");
        let report = replay(&capture, &["--config", &file.display().to_string()]);
        let dropped: u64 = report["sources"]
            .as_array()
            .expect("sources")
            .iter()
            .filter_map(|source| source["dropped"].as_u64())
            .sum();
        assert_eq!((dropped, report["bans"].as_array().map(Vec::len)), (0, Some(0)));
        report["signals"]["link.collision"].as_u64().unwrap_or_default()
    };
    let link = |name: &str, address: &str, opened_by: &str| {
        format!(
            "[[link]]\nname = \"{name}\"\naddresses = [\"{address}\"]\nports = [7700]\nopened-by = \"{opened_by}\"\n"
        )
    };
    assert_eq!(collisions(""), 0, "an unguarded port is not read");
    assert_eq!(collisions(&link("beta.test", "10.78.0.2", "us")), 3);
    assert_eq!(collisions(&link("alpha.test", "10.78.0.1", "them")), 3);
    assert_eq!(collisions(&link("alpha.test", "10.78.0.9", "them")), 0, "from elsewhere it is not read");
}

/// Whoever breaks a rule of the network is noted at once, with evidence, and by default never banned.
#[test]
fn a_rogue_server_is_noted_and_not_banned() {
    let report = replay(&corpus("irc-links/hybrid-rogue.pcap"), &[]);
    assert_eq!(report["bans"].as_array().map(Vec::len), Some(0));
    let noted: BTreeSet<&str> = report["notes"]
        .as_array()
        .expect("notes")
        .iter()
        .filter(|note| note["evidence"].as_array().is_some_and(|lines| !lines.is_empty()))
        .filter_map(|note| note["rule"].as_str())
        .collect();
    assert!(noted.contains("irc/link-violation") && noted.contains("irc/link-takeover"), "{noted:?}");
}

#[test]
fn a_capture_from_standard_input_is_the_same_capture() {
    let path = corpus("teamtalk/01_baseline_session.pcap");
    let from_file = replay(&path, &[]);
    let plain = fs::read(&path).expect("a capture");
    for bytes in [plain.clone(), zstd::encode_all(plain.as_slice(), 1).expect("zstd")] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_floodwall"))
            .args(["replay", "--format", "json", "-"])
            .current_dir(repository())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("the binary runs");
        child.stdin.take().expect("a pipe").write_all(&bytes).expect("it reads on");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0));
        let mut report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report["capture"]["files"] = from_file["capture"]["files"].clone();
        assert_eq!(report, from_file);
    }
}
