use super::*;
use crate::{rule::file, signal::Detail};

const HOUSE: u32 = 0xcb00_7107;

/// One rule, and signals of one address.
struct World {
    rules: Vec<Rule>,
    evaluation: Evaluation,
    fired: Vec<(Subject, u32)>,
}

impl World {
    fn new(rule: &str) -> Self {
        let source = format!(
            "[service]\nprotocol = \"irc\"\n[[rule]]\nid = \"a/b\"\nwhy = \"x\"\nwithin = \"10s\"\naction = \"limit\"\n{rule}"
        );
        let rules = file::parse("f.toml", &source).unwrap().rules;
        Self { evaluation: Evaluation::new(&rules, 7), rules, fired: Vec::new() }
    }

    fn tell(&mut self, kind: SignalKind, flow: u64, millis: u64, target: &str, address: u32) {
        let signal = Signal {
            kind,
            at: Timestamp::from_nanos(1_000_000_000_000_000_000 + millis * 1_000_000),
            service: 0,
            address: Address::from_v4(address),
            flow: Some(FlowId(flow)),
            detail: Detail { target: Some(Text::from(target)), content: Some(1.into()), ..Detail::default() },
        };
        let fired = &mut self.fired;
        self.evaluation.handle_signal(&self.rules, &AtHand::new(&signal), Level::Normal, |_, finding| {
            fired.push((finding.subject.clone(), finding.count));
            true
        });
    }

    fn say(&mut self, flow: u64, millis: u64) {
        self.tell(SignalKind::MessagePrivate, flow, millis, "somebody", HOUSE);
    }

    fn close(&mut self, flow: u64, millis: u64) {
        self.tell(SignalKind::ConnectionClosed, flow, millis, "", HOUSE);
    }

    fn counts(&self) -> Vec<u32> {
        self.fired.iter().map(|(_, count)| *count).collect()
    }
}

const FLOOD: &str = "signal = \"message.private\"\nby = \"address\"\nallowance = 15\nlimit = 60\n";

#[test]
fn one_connection_alone_has_the_limit_for_itself() {
    let mut world = World::new(FLOOD);
    for n in 0..59 {
        world.say(1, n * 150);
    }
    assert_eq!(world.counts(), [0; 0]);
    world.say(1, 59 * 150);
    assert_eq!(world.counts(), [60]);
}

#[test]
fn steady_talk_below_the_limit_never_adds_up_to_it() {
    let mut world = World::new(FLOOD);
    for n in 0..1_000 {
        world.say(1, n * 180);
    }
    assert_eq!(world.counts(), [0; 0]);
}

#[test]
fn what_connections_side_by_side_do_beyond_their_allowance_counts_together() {
    let mut world = World::new(FLOOD);
    for n in 0..40 {
        world.say(1, n * 100);
        world.say(2, n * 100);
    }
    assert_eq!(world.counts(), [60], "the 15 of one are counted, and 45 beyond");
}

#[test]
fn a_house_of_many_who_keep_to_their_allowance_is_left_alone() {
    let mut world = World::new(FLOOD);
    for n in 0..15 {
        for flow in 0..60 {
            world.say(flow, n * 600);
        }
    }
    assert_eq!(world.counts(), [0; 0]);
}

#[test]
fn what_others_have_done_beyond_theirs_is_forgotten_with_the_window() {
    let mut world = World::new(FLOOD);
    for n in 0..50 {
        world.say(1, n * 50);
    }
    for n in 0..50 {
        world.say(2, 12_600 + n * 50);
    }
    assert_eq!(world.counts(), [0; 0]);
    for n in 0..10 {
        world.say(2, 15_100 + n * 50);
    }
    assert_eq!(world.counts(), [60]);
}

#[test]
fn who_comes_back_on_a_new_connection_goes_on_counting() {
    for rule in [FLOOD, "signal = \"message.private\"\nby = \"session\"\nlimit = 60\n"] {
        let mut world = World::new(rule);
        for flow in 1..=4 {
            for n in 0..15 {
                world.say(flow, flow * 1_500 + n * 50);
            }
            world.close(flow, flow * 1_500 + 1_000);
        }
        assert_eq!(world.counts(), [60], "{rule}");
    }
}

#[test]
fn a_second_connection_is_no_heir_of_one_that_is_open() {
    let mut world = World::new("signal = \"message.private\"\nby = \"session\"\nlimit = 60\n");
    for n in 0..59 {
        world.say(1, n * 10);
        world.say(2, n * 10);
    }
    assert_eq!(world.counts(), [0; 0]);
}

#[test]
fn connections_that_are_over_are_bounded() {
    let mut world = World::new(FLOOD);
    for flow in 0..200 {
        world.say(flow, flow);
    }
    for flow in 0..200 {
        world.close(flow, 1_000 + flow);
    }
    let vacant = world.evaluation.counts.vacant.get(&Address::from_v4(HOUSE)).unwrap();
    assert_eq!(vacant.len(), VACANT_MAX);
}

#[test]
fn the_same_people_written_to_after_coming_back_are_others() {
    let rule =
        "signal = \"message.private\"\nby = \"address\"\ndistinct = \"target\"\nallowance = 6\nlimit = 20\n";
    let mut world = World::new(rule);
    for flow in 1..=2 {
        for n in 0..19 {
            let at = flow * 3_000 + n * 100;
            world.tell(SignalKind::MessagePrivate, flow, at, &format!("t{n}"), HOUSE);
            // Once more to the same is nobody new.
            world.tell(SignalKind::MessagePrivate, flow, at + 1, &format!("t{n}"), HOUSE);
        }
        assert_eq!(world.counts().len(), usize::from(flow == 2));
        world.close(flow, flow * 3_000 + 2_000);
    }
}

#[test]
fn with_an_allowance_what_comes_before_is_the_same_connections() {
    let rule = "signal = \"message.private\"\nafter = { signal = \"login.succeeded\", within = \"5s\" }\n\
                by = \"content\"\ndistinct = \"session\"\nallowance = 0\nlimit = 3\n";
    let mut world = World::new(rule);
    for flow in 1..=3 {
        world.say(flow, 100);
    }
    assert_eq!(world.counts(), [0; 0], "nobody has come");
    for flow in 4..=6 {
        world.tell(SignalKind::LoginSucceeded, flow, 200, "", HOUSE);
        world.say(flow, 300 + flow);
        world.say(flow, 400 + flow);
    }
    assert_eq!(world.counts().first(), Some(&3), "whoever joins in afterwards is told apart");
}

#[test]
fn floods_of_many_are_counted_by_whom_they_are_aimed_at() {
    let rule = "signal = \"message.private\"\nby = \"target\"\nallowance = 3\nlimit = 100\n";
    let mut world = World::new(rule);
    for n in 0..30 {
        for flow in 0..15 {
            let address = HOUSE + flow as u32 * 0x1_0000;
            world.tell(SignalKind::MessagePrivate, flow, n * 300, "victim", address);
        }
    }
    assert!(world.fired.iter().any(|(subject, _)| *subject == Subject::Target(Text::from("victim"))));
    let mut world = World::new(rule);
    for n in 0..3 {
        for flow in 0..500 {
            let address = HOUSE + flow as u32 * 0x1_0000;
            world.tell(SignalKind::MessagePrivate, flow, n * 3_000, "quizmaster", address);
        }
    }
    assert_eq!(world.counts(), [0; 0], "many who answer are no flood");
}

#[test]
fn what_is_aimed_at_several_is_counted_for_each_and_many_connections_of_one_address_are_no_crowd() {
    let rule = "signal = \"message.private\"\nby = \"target\"\nallowance = 3\nlimit = 100\n";
    let mut world = World::new(rule);
    for n in 0..60 {
        world.tell(SignalKind::MessagePrivate, 1, n * 50, "one", HOUSE);
        world.tell(SignalKind::MessagePrivate, 1, n * 50, "another", HOUSE);
    }
    assert_eq!(world.counts(), [0; 0], "sixty for each are not a hundred and twenty for either");
    let mut world = World::new(rule);
    for n in 0..99 {
        world.tell(SignalKind::MessagePrivate, n, n * 50, "victim", HOUSE);
    }
    assert_eq!(world.counts(), [0; 0]);
    world.tell(SignalKind::MessagePrivate, 99, 99 * 50, "victim", HOUSE);
    assert_eq!(world.counts(), [100], "a connection for each message has no allowance for each");
}

#[test]
fn one_address_that_logs_in_often_outweighs_nothing_where_addresses_are_told_apart() {
    let rule = "signal = \"login.failed\"\nagainst = { signal = \"login.succeeded\", ratio = 2 }\n\
                by = \"service\"\ndistinct = \"address\"\nlimit = 10\n";
    let mut world = World::new(rule);
    for n in 0..50 {
        world.tell(SignalKind::LoginSucceeded, 1, n * 10, "", HOUSE);
    }
    for n in 0..10u32 {
        world.tell(SignalKind::LoginFailed, 2, 1_000 + u64::from(n), "", HOUSE + n * 0x1_0000 + 1);
    }
    assert_eq!(world.counts(), [10]);
}

#[test]
fn forged_sources_take_no_room_from_what_real_ones_have_counted() {
    const TWO: &str = "signal = \"login.failed\"\nby = \"address\"\nlimit = 8\n[[rule]]\nid = \"a/c\"\nwhy = \"x\"\nwithin = \"10s\"\n\
        action = \"limit\"\nsignal = \"datagram.malformed\"\nby = \"address\"\nlimit = 20\n";
    let mut world = World::new(TWO);
    for n in 0..7 {
        world.tell(SignalKind::LoginFailed, 1, n * 10, "", HOUSE);
    }
    let forged = COUNTERS_MAX as u32 * 2;
    for source in 0..forged {
        world.tell(SignalKind::DatagramMalformed, 2, 100, "", source);
    }
    let (held, let_go) = world.evaluation.counters();
    assert!(
        held <= CLAIMED_COUNTERS_MAX + 2 && let_go >= u64::from(forged) - held as u64,
        "{held}, {let_go}"
    );
    world.tell(SignalKind::LoginFailed, 1, 200, "", HOUSE);
    assert_eq!(world.fired, [(Subject::Address(Address::from_v4(HOUSE)), 8)]);
}
