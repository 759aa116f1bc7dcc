//! `floodwall analyze` from the outside: the truth of every committed log, hostile input, exit codes.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus").join(name)
}

fn analyze(arguments: &[&str], paths: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodwall"));
    command.arg("analyze").args(arguments).args(paths).output().unwrap()
}

fn report(paths: &[&Path]) -> Value {
    let output = analyze(&["--format", "json"], paths);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// How often a signal came, by address.
fn counts(report: &Value, signal: &str) -> BTreeMap<String, u64> {
    let sources = report["sources"].as_array().unwrap().iter();
    let count = |source: &Value| {
        Some((source["address"].as_str()?.to_owned(), source["signals"].get(signal)?.as_u64()?))
    };
    sources.filter_map(count).collect()
}

fn outcomes(report: &Value) -> BTreeMap<String, String> {
    let sources = report["sources"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    sources.map(|source| (text(&source["address"]), text(&source["outcome"]))).collect()
}

/// By the drivers of the recordings: who tried how often.
#[test]
fn failed_logins_are_those_of_the_truth() {
    for name in ["03_login_storm_single", "05_login_storm_distributed", "18_ipv6"] {
        let truth = fs::read_to_string(corpus(&format!("teamtalk/{name}.truth.json"))).unwrap();
        let truth: Value = serde_json::from_str(&truth).unwrap();
        let report = report(&[&corpus(&format!("teamtalk/{name}.server.log"))]);
        let failed = counts(&report, "login.failed");
        let attackers: Vec<&String> = truth["actors"]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(_, actor)| actor["role"] == "attacker")
            .map(|(address, _)| address)
            .collect();
        assert_eq!(failed.keys().collect::<Vec<_>>().len(), attackers.len(), "{name}: {failed:?}");
        assert!(attackers.iter().all(|address| failed.contains_key(*address)), "{name}: {failed:?}");
        if let Some(all) = truth["counts"]["bad_login_result_2002"].as_u64() {
            assert_eq!(failed.values().sum::<u64>(), all, "{name}");
        }
        let outcomes = outcomes(&report);
        for (address, actor) in truth["actors"].as_object().unwrap() {
            if actor["role"] == "legit" {
                assert_eq!(
                    outcomes.get(address).map_or("clean", String::as_str),
                    "clean",
                    "{name}: {address}"
                );
            }
        }
    }
}

#[test]
fn quiet_logs_stay_quiet_and_nothing_is_left_unread() {
    for entry in fs::read_dir(corpus("teamtalk")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "log") {
            continue;
        }
        let report = report(&[&path]);
        assert_eq!(report["unparsed"], 0, "{}", path.display());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if ["01", "15", "16"].iter().any(|quiet| name.starts_with(quiet)) {
            let outcomes = outcomes(&report);
            assert!(outcomes.values().all(|outcome| outcome == "clean"), "{name}: {outcomes:?}");
        }
    }
}

#[test]
fn logs_of_irc_servers_name_their_guessers() {
    for (name, guesser, tries) in
        [("server-hybrid-oper", "10.78.0.30", 62), ("server-ngircd", "10.78.0.30", 24)]
    {
        let report = report(&[&corpus(&format!("irc/{name}.log"))]);
        assert_eq!(report["unparsed"], 0, "{name}");
        assert_eq!(counts(&report, "login.failed"), BTreeMap::from([(guesser.to_owned(), tries)]), "{name}");
        assert_eq!(outcomes(&report)[guesser], "banned", "{name}");
    }
}

#[test]
fn somebody_who_is_named_by_others_is_nowhere() {
    let path = corpus("teamtalk/24_log_injection.server.log");
    let json = String::from_utf8(analyze(&["--format", "json"], &[&path]).stdout).unwrap();
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(outcomes(&report), BTreeMap::from([("10.77.0.68".to_owned(), "banned".to_owned())]));
    let people = report["people"].to_string();
    assert!(!people.contains("10.77.0.200\"]"), "{people}");
    let text = String::from_utf8(analyze(&[], &[&path]).stdout).unwrap();
    assert!(!text.chars().any(|character| character.is_control() && character != '\n'), "{text:?}");
    assert!(!text.contains('\u{202e}'), "direction marks are escaped: {text:?}");
}

#[test]
fn compressed_piped_and_rotated_logs_give_the_same() {
    let path = corpus("teamtalk/09_message_flood.server.log");
    let whole = fs::read(&path).unwrap();
    let expected = report(&[&path]);
    let folder = tempfile::tempdir().unwrap();
    let zipped = folder.path().join("log.gz");
    let mut encoder =
        flate2::write::GzEncoder::new(fs::File::create(&zipped).unwrap(), flate2::Compression::fast());
    encoder.write_all(&whole).unwrap();
    encoder.finish().unwrap();
    assert_eq!(report(&[&zipped]), expected);
    let xz = folder.path().join("log.xz");
    let options = lzma_rust2::XzOptions::default();
    let mut encoder = lzma_rust2::XzWriter::new(fs::File::create(&xz).unwrap(), options).unwrap();
    encoder.write_all(&whole).unwrap();
    encoder.finish().unwrap();
    assert_eq!(report(&[&xz]), expected);
    let standard = folder.path().join("log.zst");
    fs::write(&standard, zstd::encode_all(whole.as_slice(), 1).unwrap()).unwrap();
    assert_eq!(report(&[&standard]), expected);
    // Rotated, and named in the wrong order.
    let cut =
        whole.iter().skip(whole.len() / 2).position(|byte| *byte == b'\n').unwrap() + whole.len() / 2 + 1;
    let (old, new) = (folder.path().join("tt5srv.log.1"), folder.path().join("tt5srv.log"));
    fs::write(&old, &whole[..cut]).unwrap();
    fs::write(&new, &whole[cut..]).unwrap();
    assert_eq!(report(&[&new, &old]), expected);
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodwall"));
    command.args(["analyze", "--format", "json", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&whole).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), expected);
}

/// What was read is reported, the rest is named, and the exit code says so.
#[test]
fn what_cannot_be_read_to_the_end_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(corpus("teamtalk/03_login_storm_single.server.log")).unwrap();
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(&whole).unwrap();
    let mut zipped = zipped.finish().unwrap();
    zipped.truncate(zipped.len() / 2);
    let mut switched = whole.clone();
    switched.extend_from_slice(b"[2026-11-21T05:51:28+0000] OPER boss by dave[~dave@10.78.0.23]\n");
    let mut long = b"2026-11-21 05:56:10.214782 User #1 TCP address: 10.77.0.21 connected.\n".to_vec();
    long.extend(std::iter::repeat_n(b'x', 3 << 20));
    long.push(b'\n');
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    // A clock that no calendar has.
    let far = [&b"9999"[..], whole.get(4..).unwrap()].concat();
    for (name, bytes, complaint, code, least) in [
        ("empty.log", Vec::new(), "is empty", 1, 0),
        ("binary.log", (0..=255).cycle().take(100_000).collect(), "no log that is known", 1, 0),
        ("cut.log.gz", zipped, "the rest cannot be read", 1, 100),
        ("switched.log", switched, "from here on it is a log of ircd-hybrid", 1, lines as u64),
        ("long.log", long, "were not read: 1", 1, 2),
        ("far.log", far, "", 0, lines as u64),
        (
            "holes.log",
            [vec![0; 400_000], b"\n".to_vec(), whole.clone()].concat(),
            "were not read: 1",
            1,
            lines as u64,
        ),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let output = analyze(&["--format", "json"], &[&path]);
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{name}: {complaints}");
        assert!(complaints.contains(complaint), "{name}: {complaints}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["lines"].as_u64().unwrap() >= least, "{name}: {report}");
        if code == 1 {
            assert!(complaints.contains(name), "{name}: {complaints}");
        }
    }
    let output = analyze(&["--log-format", "unreal"], &[&folder.path().join("long.log")]);
    assert_eq!(output.status.code(), Some(2));
}

/// Two gigabytes without a line feed, then a line: memory stays bounded and the line is read.
#[test]
fn a_line_of_two_gigabytes_is_passed_over() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodwall"));
    command.args(["analyze", "--format", "json", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let line = b"2026-11-21 05:56:10.214782 User #1 TCP address: 10.77.0.21 connected.\n";
    input.write_all(line).unwrap();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..2_048 {
        input.write_all(&piece).unwrap();
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
    let kibibytes: u64 = most.trim_end_matches(" kB").trim().parse().unwrap();
    assert!(kibibytes < 256 << 10, "{most}");
    input.write_all(b"\n").unwrap();
    input.write_all(line).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "a line that was not read is no success");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["lines"], &report["overlong"]), (&Value::from(3), &Value::from(1)));
    assert_eq!(counts(&report, "connection.opened"), BTreeMap::from([("10.77.0.21".to_owned(), 2)]));
}

#[test]
fn an_interrupt_gives_the_report_so_far() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodwall"));
    command.args(["analyze", "--format", "json", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // More than one block, so that something was judged for certain.
    let whole = fs::read(corpus("teamtalk/03_login_storm_single.server.log")).unwrap();
    for _ in 0..40 {
        input.write_all(&whole).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(1_500));
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    drop(input);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["lines"].as_u64().unwrap() > 100, "{report:#}");
}

#[test]
fn a_redacted_report_names_nobody_and_counts_the_same() {
    let path = corpus("teamtalk/05_login_storm_distributed.server.log");
    let plain = report(&[&path]);
    let output = analyze(&["--format", "json", "--redact"], &[&path]);
    let text = String::from_utf8(output.stdout).unwrap();
    let redacted: Value = serde_json::from_str(&text).unwrap();
    let names = plain["sources"].as_array().unwrap().iter().map(|source| source["address"].as_str().unwrap());
    for name in names {
        assert!(
            !text.contains(&format!("{name}\"")) && !text.contains(&format!("{name} ")),
            "{name} is named"
        );
    }
    for account in plain["accounts"].as_array().unwrap() {
        assert!(!text.contains(account["account"].as_str().unwrap()), "{account}");
    }
    assert_eq!(redacted["signals"], plain["signals"]);
    assert_eq!(redacted["flagged"], plain["flagged"]);
    let shape = |report: &Value| -> Vec<Value> {
        report["sources"].as_array().unwrap().iter().map(|row| row["signals"].clone()).collect()
    };
    assert_eq!(shape(&redacted), shape(&plain));
}

/// One file that needs nothing else, whose every plot has a sentence and whose numbers stand in a table.
#[test]
fn the_page_stands_alone_and_says_in_words_what_it_plots() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let path = corpus("teamtalk/24_log_injection.server.log");
    let output = analyze(&["--html", page.to_str().unwrap()], &[&path]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.ends_with("</html>\n"));
    for outside in ["http:", "https:", "<script", "<link", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    let plots = html.matches("<svg").count();
    assert_eq!(plots, 5);
    assert_eq!(html.matches("<figcaption").count(), plots);
    assert_eq!(html.matches("aria-labelledby").count(), plots);
    assert!(html.contains("<caption>The same as numbers"));
    assert!(!html.contains('\u{202e}'), "direction marks are escaped");
}

#[test]
fn a_part_of_the_time_can_be_asked_for() {
    let path = corpus("teamtalk/03_login_storm_single.server.log");
    let whole = report(&[&path]);
    let (first, last) = (whole["first"].as_str().unwrap(), whole["last"].as_str().unwrap());
    let after: Value =
        serde_json::from_slice(&analyze(&["--format", "json", "--since", last], &[&path]).stdout).unwrap();
    assert!(after["lines"].as_u64().unwrap() >= 1 && after["lines"].as_u64().unwrap() < 5, "{after:#}");
    let before: Value =
        serde_json::from_slice(&analyze(&["--format", "json", "--until", last], &[&path]).stdout).unwrap();
    assert_eq!(
        before["lines"].as_u64().unwrap() + after["lines"].as_u64().unwrap(),
        whole["lines"].as_u64().unwrap()
    );
    assert_eq!(before["first"], first);
    assert_eq!(analyze(&["--since", "yesterday"], &[&path]).status.code(), Some(2));
}

/// ircd-hybrid writes several logs at once: together they are one.
#[test]
fn logs_written_side_by_side_are_read_by_the_times_of_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let line = |number: u32| {
        let (minute, second) = (number / 2, number % 2 * 30);
        format!(
            "[2026-11-21T05:{minute:02}:{second:02}+0000] Failed OPER attempt as boss by a[~a@10.78.0.30] - Password mismatch\n"
        )
    };
    let path = |name: &str| folder.path().join(name);
    let lines = |step: &dyn Fn(&u32) -> bool| (0..8).filter(step).map(line).collect::<String>();
    fs::write(path("all.log"), lines(&|_| true)).unwrap();
    fs::write(path("even.log"), lines(&|number| number % 2 == 0)).unwrap();
    fs::write(path("odd.log"), lines(&|number| number % 2 == 1)).unwrap();
    let together = report(&[&path("odd.log"), &path("even.log")]);
    assert_eq!(together, report(&[&path("all.log")]));
    assert_eq!((&together["clock_steps"], &together["bans_total"]), (&Value::from(0), &Value::from(1)));
}
