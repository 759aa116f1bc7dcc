//! The live wall end to end: the real daemon in front of real servers, in namespaces of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, UdpSocket},
    os::unix::net::UnixStream,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use floodwall_tests::{
    live::{CONTAINER, CONTAINER_V6, IrcClient, Lab, Opener, PATIENCE, SERVER, SERVER_V6, eventually, now},
    packets::voice,
    skip,
};
use nix::sys::signal::Signal;

/// What most tests guard.
const IRC: [&str; 2] = ["--service", "irc=6667"];

/// Guesses the operator's password, on a new connection each time because servers make a guesser wait; answers how
/// many tries the server answered before no connection came about any more, or all of them.
fn guess(lab: &Lab, client: &str, port: u16, tries: usize) -> usize {
    for number in 0..tries {
        let Ok(stream) = lab.connect(client, port) else { return number };
        let mut guesser = IrcClient::new(stream);
        // Whoever is banned between SYN and first word hears nothing any more.
        guesser.stream().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // Nobody else's, and no longer than ngIRCd takes.
        let nickname = format!("g{}x{number}", client.split('.').nth(2).unwrap_or_default());
        let registered = guesser.try_say(&format!("NICK {nickname}\r\nUSER {nickname} 0 * :x")).is_ok()
            && guesser.try_hear(&[" 001 "]);
        let answered = registered
            && guesser.try_say(&format!("OPER admin wrong{number}")).is_ok()
            && guesser.try_hear(&[" 464 ", " 491 "]);
        if !answered {
            return number;
        }
    }
    tries
}

#[test]
fn guessing_and_flooding_addresses_are_stopped_while_users_chat() {
    let test = "guessing_and_flooding_addresses_are_stopped_while_users_chat";
    let Some(mut lab) = Lab::open(test) else { return };
    if !lab.start_ngircd(test) {
        return;
    }
    lab.start_daemon(&[&IRC[..], &["--metrics", "127.0.0.1:9464"]].concat());
    let mut users: Vec<IrcClient> = (2..7)
        .map(|number| {
            let mut user = lab.join_irc(&format!("10.77.0.{number}"), 6667, &format!("user{number}"));
            user.say("JOIN #talk");
            user.hear(" 366 ");
            user
        })
        .collect();
    let answered = guess(&lab, "10.77.0.20", 6667, 30);
    assert!((5..30).contains(&answered), "the guesser was answered {answered} times");
    eventually("the ban of the guesser", || lab.banned().contains(&"10.77.0.20/32".to_owned()));
    // The server takes twenty of one address; whoever comes back all the same is limited.
    let held: Vec<_> = (0..200).map_while(|_| lab.connect("10.77.0.21", 6667).ok()).collect();
    assert!((25..200).contains(&held.len()), "{} connections came about", held.len());
    let is_worst = |top: &serde_json::Value, subject: &str, outcome: &str| {
        let rows = top["sources"].as_array().unwrap();
        rows.iter().any(|row| row["subject"] == subject && row["outcome"] == outcome)
    };
    eventually("the limit of the flooder", || {
        is_worst(&lab.answer(&["top", "--once"]), "10.77.0.21", "limited")
    });
    let top = lab.answer(&["top", "--once"]);
    assert!(is_worst(&top, "10.77.0.20/32", "banned"), "{top}");
    assert_eq!(top["services"][0]["name"], "irc");
    let text = String::from_utf8(lab.ask(&["top", "--once"]).stdout).unwrap();
    assert!(text.contains("10.77.0.20/32: banned by irc/oper-guessing"), "{text}");
    assert!(!text.contains('\u{1b}'), "piped text moves no cursor: {text:?}");
    let suggested = lab.answer(&["suggest", "--live"]);
    assert_eq!(suggested["schema"], "floodwall.suggest/1");
    // Everybody else has noticed nothing: whatever one says, the others hear.
    for number in 0..5 {
        users[number].say(&format!("PRIVMSG #talk :words of {number}"));
        for (listener, user) in users.iter_mut().enumerate() {
            if listener != number {
                user.hear(&format!("words of {number}"));
            }
        }
    }
    assert_eq!(lab.banned(), ["10.77.0.20/32"]);
    let explained = lab.ask(&["explain", "10.77.0.20"]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    for part in
        ["is banned since", "The rule irc/", "Evidence: login.failed", "Lift it with: floodwall unban"]
    {
        assert!(explained.contains(part), "{part:?} is missing in: {explained}");
    }
    // From the packet that crosses the limit to the entry in the table.
    let page = fetch_metrics(&lab);
    let within =
        |bucket: &str| metric(&page, &format!("floodwall_enforcing_seconds_bucket{{le=\"{bucket}\"}}"));
    println!("bans within 1 ms {}, 10 ms {}, all {}", within("0.001"), within("0.01"), within("+Inf"));
    assert_eq!(within("+Inf"), 1.0);
    // Lifted, the address is served again and not held to what it did.
    assert!(lab.ask(&["unban", "10.77.0.20"]).status.success());
    drop(lab.join_irc("10.77.0.20", 6667, "pardoned"));
    check_with_promtool(&page);
}

/// Prints how long it took from the packet that crossed a limit to the entry in the table, over two hundred bans, beside fail2ban on
/// the server's own log. How fast this machine is decides nothing.
#[test]
fn each_of_two_hundred_guessers_is_banned() {
    let test = "each_of_two_hundred_guessers_is_banned";
    let Some(mut lab) = Lab::open(test) else { return };
    if !lab.start_inspircd(test) {
        return;
    }
    lab.start_daemon(&["--service", "irc=6697", "--metrics", "127.0.0.1:9464"]);
    let peer = lab.start_fail2ban(test);
    let guessers: Vec<String> = (1..=200).map(|number| format!("10.78.{number}.1")).collect();
    for guesser in &guessers {
        lab.add_client(guesser);
    }
    // Five guesses are too many, three once many guess. inspircd takes a second to let anybody in, so that six at a time stay under
    // the brake of 120 bans a minute.
    let third_answers: Mutex<BTreeMap<String, f64>> = Mutex::default();
    thread::scope(|scope| {
        for guessers in guessers.chunks(34) {
            let (lab, third_answers) = (&lab, &third_answers);
            scope.spawn(move || {
                for guesser in guessers {
                    let answered = guess(lab, guesser, 6697, 3);
                    // Whoever is banned with the third guess may not hear the answer, which was given all the same.
                    assert!(answered >= 2, "{guesser} was answered {answered} times");
                    third_answers.lock().unwrap().insert(guesser.clone(), seconds_now());
                    guess(lab, guesser, 6697, 2);
                }
            });
        }
    });
    let mut expected: Vec<String> = guessers.iter().map(|guesser| format!("{guesser}/32")).collect();
    expected.sort();
    eventually("two hundred bans", || lab.banned() == expected);
    let page = fetch_metrics(&lab);
    let within =
        |bucket: &str| metric(&page, &format!("floodwall_enforcing_seconds_bucket{{le=\"{bucket}\"}}"));
    assert_eq!(within("+Inf"), 200.0);
    println!("of 200 bans {} were in force within 1 ms, {} within 10 ms", within("0.001"), within("0.01"));
    let Some(record) = peer else { return };
    let read = || std::fs::read_to_string(&record).unwrap_or_default();
    eventually("what fail2ban makes of it", || read().lines().count() >= 200);
    let third_answers = third_answers.into_inner().unwrap();
    let mut delays: Vec<f64> = read()
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(at, address)| Some(at.parse::<f64>().ok()? - third_answers.get(address)?))
        .collect();
    delays.sort_by(f64::total_cmp);
    let at = |share: usize| delays[(delays.len() * share / 100).min(delays.len() - 1)];
    println!(
        "fail2ban, {} bans, from the third answer: median {:.3} s, p99 {:.3} s",
        delays.len(),
        at(50),
        at(99)
    );
}

#[expect(clippy::disallowed_methods, reason = "fail2ban writes the system's time")]
fn seconds_now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

fn fetch_metrics(lab: &Lab) -> String {
    fetch(lab, 9464, "/metrics").unwrap()
}

/// An HTTP answer of something on the guarded host, head and all.
fn fetch(lab: &Lab, port: u16, path: &str) -> std::io::Result<String> {
    lab.on_host(|| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    })
}

#[test]
fn a_real_prometheus_scrapes_the_wall() {
    let test = "a_real_prometheus_scrapes_the_wall";
    let Some(mut lab) = Lab::open(test) else { return };
    if Command::new("prometheus").arg("--version").output().is_err() {
        return skip(test, "needs Debian's prometheus");
    }
    lab.start_daemon(&[&IRC[..], &["--metrics", "127.0.0.1:9464"]].concat());
    let configuration = lab.folder().join("prometheus.yml");
    let text = "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: floodwall\n  static_configs:\n  \
                - targets: ['127.0.0.1:9464']\n";
    std::fs::write(&configuration, text).unwrap();
    let mut prometheus = Command::new("prometheus");
    prometheus
        .arg(format!("--config.file={}", configuration.display()))
        .arg(format!("--storage.tsdb.path={}", lab.folder().join("tsdb").display()))
        .arg("--web.listen-address=127.0.0.1:9090");
    lab.start_server(&mut prometheus);
    eventually("a scrape", || {
        fetch(&lab, 9090, "/api/v1/query?query=floodwall_build_info")
            .is_ok_and(|answer| answer.contains("\"version\":\"0.1.0\""))
    });
    let up = fetch(&lab, 9090, "/api/v1/query?query=up").unwrap();
    assert!(up.contains(",\"1\"]"), "{up}");
    for (path, word) in [("/live", "alive"), ("/ready", "ready")] {
        assert!(fetch(&lab, 9464, path).unwrap().ends_with(&format!("{word}\n")));
    }
}

fn metric(page: &str, name: &str) -> f64 {
    let line = page.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("{name} is not in:\n{page}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap()
}

fn check_with_promtool(page: &str) {
    let body = page.split_once("\r\n\r\n").unwrap().1;
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else {
        return skip("check_with_promtool", "needs Debian's prometheus");
    };
    promtool.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{complaint}\n{body}");
}

#[test]
fn a_link_of_two_real_servers_is_shown_to_root() {
    let test = "a_link_of_two_real_servers_is_shown_to_root";
    let Some(mut lab) = Lab::open(test) else { return };
    if !lab.start_ngircd(test) {
        return;
    }
    lab.start_daemon(&IRC);
    assert_eq!(lab.answer(&["who", "--links"])["links"].as_array().unwrap().len(), 0);
    lab.start_ngircd_peer(Opener::Peer);
    let mut anna = lab.join_irc("10.77.0.2", 6667, "anna");
    anna.say("JOIN #talk");
    anna.hear(" 366 ");
    eventually("the link", || {
        let links = lab.answer(&["who", "--links"]);
        let link = &links["links"][0];
        link["established"] == true && link["channels"][0]["name"] == "#talk"
    });
    let links = lab.answer(&["who", "--links"]);
    let link = &links["links"][0];
    assert_eq!((&link["peer"], &link["own"]), (&"peer.example".into(), &"lab.example".into()));
    assert_eq!((&link["dialect"], &link["complete"]), (&"rfc2813".into(), &true.into()));
    assert_eq!((&link["users"][0]["nickname"], &link["users"][0]["remote"]), (&"anna".into(), &false.into()));
    let shown = String::from_utf8(lab.ask(&["who", "--links"]).stdout).unwrap();
    assert!(
        shown.contains("\"lab.example\" to \"peer.example\" at 10.77.0.9, rfc2813, established"),
        "{shown}"
    );
    assert!(!shown.contains("from-peer") && !shown.contains("from-lab"), "{shown}");
}

#[test]
fn a_link_that_our_side_opens_is_read_beside_the_gate() {
    let test = "a_link_that_our_side_opens_is_read_beside_the_gate";
    for mode in ["auto", "pcap"] {
        let Some(mut lab) = Lab::open(test) else { return };
        let configuration = lab.folder().join("floodwall.toml");
        let link = "[[link]]\nname = \"peer.example\"\naddresses = [\"10.77.0.9\"]\nports = [6668]\n\
                    opened-by = \"us\"\n";
        std::fs::write(&configuration, link).unwrap();
        let configuration = configuration.to_str().unwrap().to_owned();
        lab.start_daemon(&["--config", &configuration, "--service", "irc=6667", "--mode", mode]);
        lab.start_ngircd_peer(Opener::Host);
        if !lab.start_ngircd_linking(test, Opener::Host) {
            return;
        }
        let mut anna = lab.join_irc("10.77.0.2", 6667, "anna");
        anna.say("JOIN #talk");
        anna.hear(" 366 ");
        eventually("the link", || {
            let links = lab.answer(&["who", "--links"]);
            let link = &links["links"][0];
            link["established"] == true && link["channels"][0]["name"] == "#talk"
        });
        let links = lab.answer(&["who", "--links"]);
        assert_eq!(links["links"].as_array().unwrap().len(), 1);
        let link = &links["links"][0];
        assert_eq!((&link["peer"], &link["own"]), (&"peer.example".into(), &"lab.example".into()));
    }
}

#[test]
fn people_are_banned_and_kicked_by_nickname() {
    let test = "people_are_banned_and_kicked_by_nickname";
    let Some(mut lab) = Lab::open(test) else { return };
    if !lab.start_ngircd(test) {
        return;
    }
    lab.start_daemon(&IRC);
    let (mut anna, mut berta) =
        (lab.join_irc("10.77.0.2", 6667, "Anna"), lab.join_irc("10.77.0.3", 6667, "berta"));
    eventually("both", || lab.answer(&["who"])["present"].as_array().unwrap().len() == 2);
    assert_eq!(lab.answer(&["who"])["present"][0]["nickname"], "Anna");
    assert!(lab.ask(&["kick", "berta"]).status.success());
    berta.await_end();
    drop(lab.join_irc("10.77.0.3", 6667, "berta2"));
    assert!(lab.ask(&["ban", "anna"]).status.success());
    anna.await_end();
    assert_eq!(lab.banned(), ["10.77.0.2/32"]);
}

#[test]
fn people_are_remembered_where_it_is_wanted_and_a_ban_leaves_a_record() {
    let test = "people_are_remembered_where_it_is_wanted_and_a_ban_leaves_a_record";
    let Some(mut lab) = Lab::open(test) else { return };
    if !lab.start_ngircd(test) {
        return;
    }
    let configuration = lab.folder().join("floodwall.toml");
    std::fs::write(&configuration, "[people]\n").unwrap();
    lab.start_daemon(&[&IRC[..], &["--config", configuration.to_str().unwrap()]].concat());
    drop(lab.join_irc("10.77.0.2", 6667, "Anna"));
    drop(lab.join_irc("10.77.0.2", 6667, "Anna_away"));
    let names = |lab: &Lab| {
        let person = lab.answer(&["who", "--person", "anna"]);
        let names = person["names"].as_array().unwrap().iter();
        names.map(|name| name["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually("what belongs to Anna", || names(&lab) == ["10.77.0.2", "Anna_away"]);
    assert!(lab.ask(&["forget", "anna"]).status.success());
    eventually("nothing belongs to Anna", || names(&lab).is_empty());
    let catalogue = lab.answer(&["catalogue"]);
    assert_eq!(catalogue["entries"], serde_json::json!([]), "ngircd says nothing that is not documented");
    guess(&lab, "10.77.0.30", 6667, 30);
    eventually("the ban of the guesser", || lab.banned() == ["10.77.0.30/32"]);
    let state = lab.folder().join("state");
    let list = || {
        let output =
            lab.ask_plain(&["incident", "list", "--format", "json", "--state", state.to_str().unwrap()]);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["incidents"].clone()
    };
    eventually("the record of the ban", || list()[0]["decisions"].as_u64() >= Some(1));
    let incident = list()[0].clone();
    assert!(incident["signals"].as_u64() >= Some(3), "{incident}");
    let name = incident["name"].as_str().unwrap();
    let record = lab.ask_plain(&["incident", "export", name, "--state", state.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&record.stdout);
    assert!(text.contains("10.77.0.30") && text.contains("login.failed"), "{text}");
}

#[test]
fn inspircd_is_guarded_over_ipv6() {
    let test = "inspircd_is_guarded_over_ipv6";
    let Some(mut lab) = Lab::open(test) else { return };
    if !lab.start_inspircd(test) {
        return;
    }
    lab.start_daemon(&["--service", "irc=6697"]);
    let mut user = lab.join_irc("fd77::2", 6697, "anna");
    guess(&lab, "fd77::20", 6697, 30);
    eventually("the ban of the guesser", || lab.banned().contains(&"fd77::20/128".to_owned()));
    // The neighbour in the same /64 goes on.
    user.say("VERSION");
    user.hear(" 351 ");
    drop(lab.join_irc("fd77::3", 6697, "berta"));
}

#[test]
fn a_ban_cuts_tcp_and_udp_over_both_families() {
    let Some(mut lab) = Lab::open("a_ban_cuts_tcp_and_udp_over_both_families") else { return };
    let (listener, udp) =
        lab.on_host(|| (TcpListener::bind("[::]:10333").unwrap(), UdpSocket::bind("[::]:10333").unwrap()));
    udp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    lab.start_daemon(&["--service", "teamtalk=10333"]);
    for (client, server, banned) in
        [("10.77.0.9", SERVER, "10.77.0.9/32"), ("fd77::9", SERVER_V6, "fd77::9/128")]
    {
        let stream = lab.connect(client, 10_333).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.write_all(b"teamtalk servername=\"lab\"\r\n").unwrap();
        let speaker = lab.among_clients(|| UdpSocket::bind((client, 0)).unwrap());
        speaker.connect((server, 10_333)).unwrap();
        speaker.send(&voice(5, 100)).unwrap();
        assert!(udp.recv(&mut [0; 1_500]).is_ok(), "{client}: voice passes before the ban");
        let mut client_side = IrcClient::new(stream);
        assert!(lab.ask(&["ban", client, "--why", "a test"]).status.success());
        let begun = now();
        let ended = client_side.await_end();
        accepted.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(accepted.read(&mut [0; 16]).is_err(), "the server's side is cut too");
        println!(
            "{client}: cut {:?} after the command returned, the server's side after {:?}",
            ended,
            begun.elapsed()
        );
        speaker.send(&voice(5, 100)).unwrap_or_default();
        assert!(udp.recv(&mut [0; 1_500]).is_err(), "{client}: voice is dropped");
        assert!(lab.connect(client, 10_333).is_err(), "{client}: no new connection");
        assert_eq!(lab.banned(), [banned]);
        assert!(lab.ask(&["unban", client]).status.success());
        lab.connect(client, 10_333).unwrap();
        drop(listener.accept().unwrap());
    }
}

/// The host has no sockets of a container's server: its connections are reset with the numbers the engine knows.
#[test]
fn a_ban_cuts_connections_to_a_server_in_a_container() {
    let Some(mut lab) = Lab::open("a_ban_cuts_connections_to_a_server_in_a_container") else { return };
    lab.add_container();
    let listener = lab.in_container(|| TcpListener::bind("[::]:10333").unwrap());
    let configuration = lab.folder().join("floodwall.toml");
    let text = format!(
        "[[service]]\nprotocol = \"teamtalk\"\nports = [10333]\naddresses = [\"{CONTAINER}\", \"{CONTAINER_V6}\"]\n"
    );
    std::fs::write(&configuration, text).unwrap();
    lab.start_daemon(&["--config", configuration.to_str().unwrap()]);
    for (client, server) in [("10.77.0.9", CONTAINER), ("fd77::9", CONTAINER_V6)] {
        let mut stream = lab.connect_to(client, server, 10_333).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.write_all(b"teamtalk userid=1 servername=\"lab\"\r\n").unwrap();
        stream.write_all(b"ping\r\n").unwrap();
        assert!(accepted.read(&mut [0; 16]).unwrap() > 0);
        // The order comes before the daemon has seen all that was said: the numbers it goes by are old.
        lab.daemon().signal(Signal::SIGSTOP);
        accepted.set_nodelay(true).unwrap();
        // Read one by one, they are sent one by one.
        stream.read_exact(&mut [0; 6]).unwrap();
        for _ in 0..8_000 {
            accepted.write_all(b"pong\r\n").unwrap();
            stream.read_exact(&mut [0; 6]).unwrap();
        }
        thread::scope(|scope| {
            let ban = scope.spawn(|| lab.ask(&["ban", client]));
            thread::sleep(Duration::from_millis(300));
            lab.daemon().signal(Signal::SIGCONT);
            assert!(ban.join().unwrap().status.success());
        });
        for mut end in [stream, accepted] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
            let ended = std::io::copy(&mut end, &mut std::io::sink()).unwrap_err();
            assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset, "{client}");
        }
        assert!(lab.connect_to(client, server, 10_333).is_err(), "{client}: no new connection");
    }
}

#[test]
fn nobody_is_hurt_by_switching_on() {
    let Some(mut lab) = Lab::open("nobody_is_hurt_by_switching_on") else { return };
    let (listener, udp) = lab
        .on_host(|| (TcpListener::bind("0.0.0.0:10333").unwrap(), UdpSocket::bind("0.0.0.0:10333").unwrap()));
    udp.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let talkers: Vec<_> = (2..22)
        .map(|number| {
            let client = format!("10.77.0.{number}");
            let stream = lab.connect(&client, 10_333).unwrap();
            let accepted = listener.accept().unwrap().0;
            let speaker = lab.among_clients(|| UdpSocket::bind((client.as_str(), 0)).unwrap());
            speaker.connect((SERVER, 10_333)).unwrap();
            (stream, accepted, speaker)
        })
        .collect();
    let (stop, sent, received) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut packet = [0; 1_500];
            while !stop.load(Ordering::Relaxed)
                || received.load(Ordering::Relaxed) < sent.load(Ordering::Relaxed)
            {
                match udp.recv(&mut packet) {
                    Ok(_) => drop(received.fetch_add(1, Ordering::Relaxed)),
                    Err(_) if stop.load(Ordering::Relaxed) => return,
                    Err(_) => {}
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for (index, (_, _, speaker)) in talkers.iter().enumerate() {
                    speaker.send(&voice(index as u16 + 1, 100)).unwrap();
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        thread::sleep(Duration::from_millis(300));
        lab.start_daemon(&["--service", "teamtalk=10333"]);
        thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
    });
    let (sent, received) = (sent.into_inner(), received.into_inner());
    println!("{sent} voice packets of 20 talkers, {} lost", sent - received);
    assert!(sent > 1_000);
    assert_eq!(received, sent, "voice was lost while switching on");
    for (mut stream, mut accepted, _) in talkers {
        accepted.write_all(b"still here\r\n").unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
    }
}

#[test]
fn killed_twenty_times_under_attack_no_ban_is_lost() {
    let Some(mut lab) = Lab::open("killed_twenty_times_under_attack_no_ban_is_lost") else { return };
    let udp = lab.on_host(|| UdpSocket::bind("0.0.0.0:10333").unwrap());
    udp.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    lab.start_daemon(&["--service", "teamtalk=10333"]);
    assert!(lab.ask(&["allow", "10.77.0.2"]).status.success());
    assert!(lab.ask(&["ban", "10.77.0.9", "--for", "1h"]).status.success());
    let (attacker, regular) = lab.among_clients(|| {
        let bind = |address: &str| {
            let socket = UdpSocket::bind((address, 0)).unwrap();
            socket.connect((SERVER, 10_333)).unwrap();
            socket
        };
        (bind("10.77.0.9"), bind("10.77.0.2"))
    });
    let (stop, sent, received, wrong) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut packet = [0; 1_500];
            loop {
                match udp.recv_from(&mut packet) {
                    Ok((_, from)) if from.ip().to_string() == "10.77.0.2" => {
                        received.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => drop(wrong.fetch_add(1, Ordering::Relaxed)),
                    Err(_) if stop.load(Ordering::Relaxed) => return,
                    Err(_) => {}
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                attacker.send(&voice(5, 100)).unwrap_or_default();
                regular.send(&voice(1, 100)).unwrap();
                sent.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        for number in 0..20 {
            let one = format!("203.0.113.{number}");
            assert!(lab.ask(&["ban", &one, "--for", "1h"]).status.success());
            lab.stop_daemon(Signal::SIGKILL);
            let begun = now();
            lab.start_daemon(&["--service", "teamtalk=10333"]);
            slowest = slowest.max(begun.elapsed());
        }
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(wrong.into_inner(), 0, "a banned source came through");
    assert_eq!(received.into_inner(), sent.into_inner(), "an allowed source was dropped");
    assert_eq!(lab.banned().len(), 21, "{:?}", lab.banned());
    println!("adopted and answering after at most {slowest:?}");
    let status = lab.answer(&["status"]);
    assert_eq!(status["interfaces"][0]["adopted"], true);
    assert_eq!(status["learning_seconds"], 0, "what is adopted need not be learnt again");
}

#[test]
fn a_lifted_ban_stays_lifted_whenever_the_controller_dies() {
    let Some(mut lab) = Lab::open("a_lifted_ban_stays_lifted_whenever_the_controller_dies") else { return };
    lab.start_daemon(&["--service", "teamtalk=10333"]);
    for number in 0..5 {
        let subject = format!("198.51.100.{number}");
        assert!(lab.ask(&["ban", &subject, "--for", "1h"]).status.success());
        assert!(lab.ask(&["unban", &subject]).status.success());
        lab.stop_daemon(Signal::SIGKILL);
        lab.start_daemon(&["--service", "teamtalk=10333"]);
        assert!(lab.banned().is_empty(), "{:?}", lab.banned());
    }
}

#[test]
fn a_ban_the_ledger_never_saw_is_adopted_from_the_gate() {
    let Some(mut lab) = Lab::open("a_ban_the_ledger_never_saw_is_adopted_from_the_gate") else { return };
    lab.start_daemon(&["--service", "teamtalk=10333"]);
    for subject in ["10.77.0.9", "fd77::9", "198.51.100.0/24"] {
        assert!(lab.ask(&["ban", subject, "--for", "1h"]).status.success());
    }
    lab.stop_daemon(Signal::SIGKILL);
    std::fs::remove_dir_all(lab.folder().join("state")).unwrap();
    lab.start_daemon(&["--service", "teamtalk=10333", "--metrics", "127.0.0.1:9464"]);
    assert_eq!(lab.banned(), ["10.77.0.9/32", "198.51.100.0/24", "fd77::9/128"]);
    let status = lab.answer(&["status"]);
    assert!(status["repaired"].to_string().contains("was in the gate and not in the ledger"), "{status}");
    // The /64 of an address that has an entry of its own has one too.
    let page = fetch_metrics(&lab);
    for (table, entries) in [("sources", 2), ("hosts", 1), ("prefixes", 1)] {
        let rows = status["tables"].as_array().unwrap();
        let row = rows.iter().find(|row| row["table"] == table).unwrap();
        assert_eq!(
            (&row["entries"], &row["refused"], &row["evicted"]),
            (&entries.into(), &0.into(), &0.into()),
            "{row}"
        );
        for (family, value) in [("entries", entries), ("refused_total", 0), ("evicted_total", 0)] {
            assert_eq!(
                metric(&page, &format!("floodwall_table_{family}{{table=\"{table}\"}}")),
                f64::from(value)
            );
        }
    }
}

/// Two rule sets in turns: in one the port is guarded and everything passes, in the other nearly nothing passes and the port
/// is not guarded. Whatever is dropped there was judged by half of each.
#[test]
fn reloading_a_thousand_times_judges_no_packet_by_half_a_rule_set() {
    let Some(mut lab) = Lab::open("reloading_a_thousand_times_judges_no_packet_by_half_a_rule_set") else {
        return;
    };
    let udp = lab.on_host(|| UdpSocket::bind("0.0.0.0:10333").unwrap());
    udp.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let configuration = lab.folder().join("floodwall.toml");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/teamtalk.toml");
    let shipped = std::fs::read_to_string(shipped).unwrap();
    let generous = lab.folder().join("generous");
    let strict = lab.folder().join("strict");
    for (folder, rate) in [(&generous, "off"), (&strict, "1/m burst 1")] {
        let line = |line: &str| match line.strip_prefix("datagram = ") {
            Some(_) => format!("datagram = \"{rate}\"\n"),
            None => line.replace("require-session = true", "require-session = false") + "\n",
        };
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("teamtalk.toml"), shipped.lines().map(line).collect::<String>()).unwrap();
    }
    let write = |extra: &str, rules: &std::path::Path, port: u16| {
        let text =
            format!("{extra}rules = {rules:?}\n[[service]]\nprotocol = \"teamtalk\"\nports = [{port}]\n");
        std::fs::write(&configuration, text).unwrap();
    };
    write("", &generous, 10_333);
    lab.start_daemon(&["--config", configuration.to_str().unwrap()]);
    let sender = lab.among_clients(|| UdpSocket::bind("10.77.0.2:0").unwrap());
    sender.connect((SERVER, 10_333)).unwrap();
    let (stop, sent, received) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                match udp.recv(&mut [0; 1_500]) {
                    Ok(_) => drop(received.fetch_add(1, Ordering::Relaxed)),
                    Err(_) if stop.load(Ordering::Relaxed) => return,
                    Err(_) => {}
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                sender.send(&voice(1, 100)).unwrap();
                sent.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        for _ in 0..500 {
            for (rules, port) in [(&strict, 10_444), (&generous, 10_333)] {
                write("", rules, port);
                assert!(lab.ask(&["reload"]).status.success());
            }
        }
        // A mistake changes nothing and is named with its place.
        write("alow = []\n", &strict, 10_333);
        let refused = lab.ask(&["reload"]);
        assert_eq!(refused.status.code(), Some(2));
        let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(complaint.contains("floodwall.toml:1:1: unknown key \"alow\""), "{complaint}");
        stop.store(true, Ordering::Relaxed);
    });
    let (sent, received) = (sent.into_inner(), received.into_inner());
    println!("{sent} packets during a thousand reloads");
    assert_eq!(received, sent);
    let status = lab.answer(&["status"]);
    assert_eq!(status["services"][0]["udp_ports"][0], 10_333);
    assert_eq!(status["dropping"], serde_json::json!([]));
    // The strict set is one that drops.
    write("", &strict, 10_333);
    assert!(lab.ask(&["reload"]).status.success());
    for _ in 0..3 {
        sender.send(&voice(1, 100)).unwrap();
    }
    eventually("a drop", || lab.answer(&["status"])["traffic"].to_string().contains("\"dropped\":2"));
}

#[test]
fn interrupting_and_detaching_leave_nothing_behind() {
    let Some(mut lab) = Lab::open("interrupting_and_detaching_leave_nothing_behind") else { return };
    let attached = |lab: &Lab| {
        let output = lab.on_host(|| Command::new("bpftool").args(["net", "show"]).output());
        let text =
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        text.contains("floodwall_ingress") || text.contains("floodwall_egress") || text.contains("wall0")
    };
    if Command::new("bpftool").arg("version").output().is_err() {
        return skip("interrupting_and_detaching_leave_nothing_behind", "needs bpftool");
    }
    lab.start_daemon(&IRC);
    assert!(attached(&lab) && lab.pins().exists());
    lab.stop_daemon(Signal::SIGINT);
    assert!(!attached(&lab) && !lab.pins().exists());
    // Stopped as the service is, the gate stays; detach takes it away without a controller.
    lab.start_daemon(&[&IRC[..], &["--keep"]].concat());
    lab.stop_daemon(Signal::SIGTERM);
    assert!(attached(&lab) && lab.pins().exists());
    let pins = lab.pins();
    let gone = lab.ask_plain(&["detach", "--pins", pins.to_str().unwrap()]);
    assert!(gone.status.success(), "{gone:?}");
    assert!(!attached(&lab) && !pins.exists());
    let again = lab.ask_plain(&["detach", "--pins", pins.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("no gate"), "{again:?}");
    let clsact = lab.on_host(|| Command::new("tc").args(["qdisc", "show", "dev", "wall0"]).output().unwrap());
    assert!(!String::from_utf8_lossy(&clsact.stdout).contains("clsact"));
}

#[test]
fn bad_input_is_refused_with_the_reason_and_changes_nothing() {
    let Some(mut lab) = Lab::open("bad_input_is_refused_with_the_reason_and_changes_nothing") else { return };
    let run = |lab: &Lab, arguments: &[&str]| {
        let state = lab.folder().join("other");
        let socket = lab.folder().join("other.sock");
        let pins = lab.pins();
        let more = [
            "--state",
            state.to_str().unwrap(),
            "--socket",
            socket.to_str().unwrap(),
            "--pins",
            pins.to_str().unwrap(),
        ];
        let output = lab.ask_plain(&[&["run"], arguments, &more].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, complaint) = run(&lab, &["--interface", "nosuch0"]);
    assert_eq!(code, Some(2));
    assert!(complaint.contains("no interface \"nosuch0\"") && complaint.contains("wall0"), "{complaint}");
    let broken = lab.folder().join("broken.toml");
    std::fs::write(&broken, "[[service]]\nprotocol = \"teamtork\"\n").unwrap();
    let (code, complaint) = run(&lab, &["--interface", "wall0", "--config", broken.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(complaint.contains("broken.toml:2:12") && complaint.contains("teamtalk"), "{complaint}");
    assert!(!lab.pins().exists(), "nothing was attached");

    lab.start_daemon(&IRC);
    let (code, complaint) = run(&lab, &["--interface", "wall0"]);
    assert_eq!(code, Some(1));
    assert!(complaint.contains("another floodwall runs this gate"), "{complaint}");
    assert!(lab.ask(&["allow", "10.77.0.40"]).status.success());
    for (subject, reason) in [
        ("0.0.0.0/0", "everybody"),
        ("::/0", "everybody"),
        (SERVER, "address of this host"),
        ("10.77.0.40", "allow list"),
        ("11.0.0.0/8", "--force"),
        ("2001:db8::/32", "--force"),
        ("10.77.0.300", "neither an address"),
        ("10.77.0.0/33", "no prefix"),
        ("nobody-of-that-name", "floodwall who"),
    ] {
        let refused = lab.ask(&["ban", subject]);
        let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{subject}: {complaint}");
        assert!(complaint.contains(reason), "{subject}: {complaint}");
    }
    assert!(lab.banned().is_empty());
    assert!(lab.ask(&["ban", "11.0.0.0/8", "--force"]).status.success());
    assert_eq!(lab.banned(), ["11.0.0.0/8"]);
    // This host lies in it, and somebody who is let in.
    assert_eq!(lab.ask(&["ban", "10.77.0.0/24"]).status.code(), Some(2));
    assert!(lab.ask(&["ban", "10.77.0.0/24", "--force"]).status.success());
    assert!(lab.banned().contains(&"10.77.0.0/24".to_owned()));
    assert!(lab.ask(&["unban", "--all"]).status.success());
    assert!(lab.banned().is_empty());
}

/// A file system of its own that goes with the value.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: std::path::PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"]).arg(&path).status();
        assert!(mounted.unwrap().success());
        Self(path)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[test]
fn a_full_disk_is_told_about_and_bans_go_on() {
    let Some(mut lab) = Lab::open("a_full_disk_is_told_about_and_bans_go_on") else { return };
    let disk = SmallDisk::mount(lab.folder().join("state"));
    let udp = lab.on_host(|| UdpSocket::bind("0.0.0.0:10333").unwrap());
    udp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    lab.start_daemon(&["--service", "teamtalk=10333"]);
    let failing = |lab: &Lab| lab.answer(&["status"])["ledger_failing"].as_bool().unwrap();
    assert!(!failing(&lab));
    let speaker = lab.among_clients(|| UdpSocket::bind("10.77.0.9:0").unwrap());
    speaker.send_to(&voice(5, 100), (SERVER, 10_333)).unwrap();
    assert!(udp.recv(&mut [0; 1_500]).is_ok(), "voice passes before the ban");
    // As large as the disk takes.
    let filler = disk.0.join("filler");
    assert!(std::fs::write(&filler, vec![0; 1 << 20]).is_err());
    assert!(lab.ask(&["ban", "10.77.0.9"]).status.success());
    eventually("the complaint", || failing(&lab) && lab.read_log().contains("ledger"));
    speaker.send_to(&voice(5, 100), (SERVER, 10_333)).unwrap();
    assert!(udp.recv(&mut [0; 1_500]).is_err(), "a ban that is on no disk is in force");
    std::fs::remove_file(&filler).unwrap();
    assert!(lab.ask(&["ban", "10.77.0.10"]).status.success());
    eventually("the ledger", || !failing(&lab));
}

#[test]
fn garbage_huge_and_slow_requests_do_not_stall_the_wall() {
    let Some(mut lab) = Lab::open("garbage_huge_and_slow_requests_do_not_stall_the_wall") else { return };
    lab.start_daemon(&IRC);
    let path = lab.folder().join("control.sock");
    // More slow ones than the wall has places for.
    let slow: Vec<UnixStream> = (0..40)
        .map(|_| {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(b"{\"version\":").unwrap();
            stream
        })
        .collect();
    let mut garbage = UnixStream::connect(&path).unwrap();
    garbage.write_all(b"\xff\xfe\x00garbage\n").unwrap();
    let mut answer = [0; 200];
    let length = garbage.read(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer[..length]).contains("bad-input"));
    let mut huge = UnixStream::connect(&path).unwrap();
    let block = vec![b'x'; 1 << 20];
    huge.write_all(&block).unwrap();
    let mut answer = String::new();
    drop(huge.read_to_string(&mut answer));
    assert!(answer.contains("longer than"), "{answer}");
    let begun = now();
    assert!(lab.ask(&["status"]).status.success());
    println!("status beside {} slow requests: {:?}", slow.len(), begun.elapsed());
}

#[test]
fn whoever_decides_goes_before_others() {
    let Some(mut lab) = Lab::open("whoever_decides_goes_before_others") else { return };
    lab.start_daemon(&IRC);
    let tasks = std::fs::read_dir(format!("/proc/{}/task", lab.daemon().pid())).unwrap();
    let mut nice = BTreeMap::new();
    for task in tasks {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        let (name, fields) = stat.split_once('(').unwrap().1.rsplit_once(") ").unwrap();
        // proc(5), field 19; the state is field 3.
        nice.insert(name.to_owned(), fields.split(' ').nth(16).unwrap().parse::<i32>().unwrap());
    }
    assert!(nice.len() > 1, "{nice:?}");
    for (thread, nice) in nice {
        assert_eq!(nice, if thread == "wall" { -10 } else { 0 }, "{thread}");
    }
}

#[test]
fn a_wall_that_nobody_confirms_takes_itself_back() {
    let Some(mut lab) = Lab::open("a_wall_that_nobody_confirms_takes_itself_back") else { return };
    lab.start_daemon(&[&IRC[..], &["--confirm", "1s"]].concat());
    eventually("the end of the unconfirmed wall", || !lab.pins().exists());
    lab.stop_daemon(Signal::SIGTERM);
    lab.start_daemon(&[&IRC[..], &["--confirm", "3s"]].concat());
    assert!(lab.ask(&["confirm"]).status.success());
    thread::sleep(Duration::from_secs(4));
    assert!(lab.pins().exists(), "a confirmed wall stays");
}

#[test]
fn observing_bans_on_paper_only() {
    let test = "observing_bans_on_paper_only";
    let Some(mut lab) = Lab::open(test) else { return };
    if !lab.start_ngircd(test) {
        return;
    }
    lab.start_daemon(&[&IRC[..], &["--observe"]].concat());
    let answered = guess(&lab, "10.77.0.20", 6667, 12);
    eventually("the ban on paper", || lab.banned().contains(&"10.77.0.20/32".to_owned()));
    assert_eq!(answered, 12, "an observing wall stopped the guesser");
    assert_eq!(lab.answer(&["status"])["evaluating"], true);
}

#[test]
fn where_xdp_cannot_be_attached_nftables_bans_and_without_it_nothing_does() {
    let test = "where_xdp_cannot_be_attached_nftables_bans_and_without_it_nothing_does";
    for path in [None, Some("/nowhere")] {
        let Some(mut lab) = Lab::open(test) else { return };
        if !lab.start_ngircd(test) {
            return;
        }
        // A program that is attached in the old way, outside links, is one that XDP cannot be attached beside.
        if !lab.block_xdp(test) {
            return;
        }
        lab.start_daemon_finding(path, &IRC);
        let status = lab.answer(&["status"]);
        let expected = if path.is_none() { ("nftables", false) } else { ("pcap", true) };
        assert_eq!(
            (status["mode"].as_str(), status["evaluating"].as_bool()),
            (Some(expected.0), Some(expected.1))
        );
        assert!(status["why"].to_string().contains("XDP cannot be attached to wall0"), "{status}");
        let user = lab.join_irc("10.77.0.2", 6667, "anna");
        eventually("anna in the roster", || {
            lab.answer(&["who"])["present"].as_array().is_some_and(|present| present.len() == 1)
        });
        let answered = guess(&lab, "10.77.0.20", 6667, 12);
        eventually("the ban", || lab.banned().contains(&"10.77.0.20/32".to_owned()));
        match path {
            None => assert!((5..12).contains(&answered), "the guesser was answered {answered} times"),
            Some(_) => assert_eq!(answered, 12, "an observing wall stopped the guesser"),
        }
        drop(user);
    }
}

#[test]
fn bans_go_from_wall_to_wall_as_json_lines() {
    let Some(mut lab) = Lab::open("bans_go_from_wall_to_wall_as_json_lines") else { return };
    lab.start_daemon(&IRC);
    assert!(lab.ask(&["ban", "192.0.2.7", "--why", "exported"]).status.success());
    let state = lab.folder().join("state");
    let mut lines = Vec::new();
    eventually("the ban in the ledger", || {
        lines = lab.ask_plain(&["bans", "--export", "--state", state.to_str().unwrap()]).stdout;
        !lines.is_empty()
    });
    let file = lab.folder().join("bans.jsonl");
    std::fs::write(&file, &lines).unwrap();
    assert!(lab.ask(&["unban", "192.0.2.7"]).status.success());
    let imported = lab.ask(&["bans", "--import", file.to_str().unwrap()]);
    assert!(imported.status.success(), "{imported:?}");
    assert_eq!(lab.banned(), ["192.0.2.7/32"]);
    std::fs::write(&file, "{\"subject\": 5}\n").unwrap();
    let refused = lab.ask(&["bans", "--import", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bans.jsonl:1:"), "{refused:?}");
}

/// Takes web hooks over TLS, with a certificate of its own authority; what was posted comes back, head and body.
fn take_hooks(listener: TcpListener, posts: &Mutex<Vec<(String, String)>>) {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server-key.pem")).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = std::sync::Arc::new(config);
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut session = rustls::ServerConnection::new(std::sync::Arc::clone(&config)).unwrap();
        let mut tls = rustls::Stream::new(&mut session, &mut stream);
        let mut bytes = Vec::new();
        let mut chunk = [0; 4_096];
        // Somebody who does not believe the certificate, and the end of the test, hang up.
        while let Ok(count @ 1..) = tls.read(&mut chunk) {
            bytes.extend_from_slice(&chunk[..count]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.to_ascii_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap_or("0");
            if body.len() < length.trim().parse().unwrap() {
                continue;
            }
            posts.lock().unwrap().push((head.to_ascii_lowercase(), body.to_owned()));
            tls.write_all(b"HTTP/1.1 204 x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            tls.conn.send_close_notify();
            drop(tls.flush());
            break;
        }
    }
}

#[test]
fn a_ban_is_told_over_tls_to_whoever_has_the_right_certificate() {
    let test = "a_ban_is_told_over_tls_to_whoever_has_the_right_certificate";
    let Some(mut lab) = Lab::open(test) else { return };
    if !lab.start_ngircd(test) {
        return;
    }
    let listener = lab.on_host(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    let folder = lab.folder();
    std::fs::write(folder.join("ca.pem"), include_bytes!("tls/ca.pem")).unwrap();
    std::fs::write(folder.join("secret"), "throw-away\n").unwrap();
    let configuration = folder.join("floodwall.toml");
    let text = format!(
        "[[service]]\nprotocol = \"irc\"\nports = [6667]\n\
         [[service.override]]\nrule = \"irc/oper-guessing\"\nnotify = [\"webhook:own\", \"webhook:stranger\"]\n\
         [[webhook]]\nname = \"own\"\nurl = \"https://127.0.0.1:{port}/own\"\nsecret-file = \"{folder}/secret\"\n\
         ca-file = \"{folder}/ca.pem\"\n\
         [[webhook]]\nname = \"stranger\"\nurl = \"https://127.0.0.1:{port}/stranger\"\n",
        port = address.port(),
        folder = folder.display(),
    );
    std::fs::write(&configuration, text).unwrap();
    lab.start_daemon(&["--config", configuration.to_str().unwrap(), "--metrics", "127.0.0.1:9464"]);
    let posts: &'static Mutex<Vec<(String, String)>> = Box::leak(Box::default());
    thread::spawn(move || take_hooks(listener, posts));
    guess(&lab, "10.77.0.20", 6667, 5);
    eventually("the message", || !posts.lock().unwrap().is_empty());
    let (head, body) = posts.lock().unwrap().first().cloned().unwrap();
    assert!(head.starts_with("post /own http/1.1"), "{head}");
    assert!(
        head.contains("floodwall-signature: sha256=") && head.contains("floodwall-timestamp: "),
        "{head}"
    );
    let message: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (message["schema"].as_str(), message["rule"].as_str(), message["subject"].as_str()),
        (Some("floodwall.notification/1"), Some("irc/oper-guessing"), Some("10.77.0.20/32")),
        "{message}"
    );
    assert!(!body.contains("wrong"), "a password was told: {body}");
    // An authority that nobody knows is believed by nobody else: nothing was said to it.
    eventually("the refusal", || {
        metric(&fetch_metrics(&lab), "floodwall_notifications_total{outcome=\"failed\"}") >= 1.0
    });
    assert!(posts.lock().unwrap().iter().all(|(head, _)| !head.contains("/stranger")));
}
