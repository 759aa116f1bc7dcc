//! Synthetic weeks: a quiet Monday at four, a full Saturday evening, and attackers who would like both to look the same.

use proptest::prelude::*;

use super::*;

/// Monday, 2026-11-30, 00:00 UTC.
const MONDAY: Timestamp = Timestamp::from_secs(1_795_996_800);
const MONDAY_4: u8 = 4;
const SATURDAY_21: u8 = 5 * 24 + 21;

/// A service whose time passes in hours.
struct Weeks {
    baseline: Baseline,
    now: Timestamp,
    pressures: Vec<Pressure>,
    /// As the decisions would keep it.
    level: Level,
}

impl Weeks {
    fn new() -> Self {
        Self { baseline: Baseline::new(1, 7), now: MONDAY, pressures: Vec::new(), level: Level::Normal }
    }

    /// One interval with so many different strangers.
    fn interval(&mut self, strangers: u16) {
        for stranger in 0..u32::from(strangers) {
            self.baseline.note_stranger(0, Front::Tcp, Address::from_v4(0x0a00_0000 + stranger));
        }
        self.now = self.now + INTERVAL;
        let level = self.level;
        self.baseline.handle_timeout(self.now, |_, _| level, |pressure| self.pressures.push(pressure));
    }

    /// One hour, whose every interval has so many strangers.
    fn hour(&mut self, strangers: u16) {
        for _ in 0..INTERVALS {
            self.interval(strangers);
        }
    }

    /// One week by hour of the week. What is not said is quiet.
    fn week(&mut self, strangers: impl Fn(u8) -> u16) {
        for hour in 0..HOURS {
            self.hour(strangers(hour));
        }
    }

    fn alarmed_from(&self, hour: u8) -> u16 {
        self.baseline.counts[&(0, Front::Tcp)].alarmed_from(hour)
    }

    fn raised(&mut self) -> Level {
        let raised = self.pressures.drain(..).map(|pressure| pressure.raises).max();
        raised.unwrap_or_default()
    }
}

/// A bursty community: nobody at night, a full house on Saturday evening.
fn usual_week(hour: u8) -> u16 {
    match hour {
        SATURDAY_21 => 40,
        _ if hour % 24 < 7 => 0,
        _ => 5,
    }
}

#[test]
fn hours_of_the_week_begin_on_monday() {
    assert_eq!(Hour::of(MONDAY).of_week(), 0);
    assert_eq!(Hour::of(MONDAY + Span::from_secs(4 * 3_600 + 59)).of_week(), MONDAY_4);
    assert_eq!(Hour::of(MONDAY - Span::from_secs(1)).of_week(), HOURS - 1);
    assert_eq!(Hour::of(MONDAY).week(), Hour::of(MONDAY - Span::from_secs(1)).week() + 1);
}

#[test]
fn the_same_crowd_is_an_attack_on_monday_at_four_and_none_on_saturday_evening() {
    let mut weeks = Weeks::new();
    for _ in 0..4 {
        weeks.week(usual_week);
    }
    assert_eq!(weeks.raised(), Level::Normal);
    assert_eq!(weeks.alarmed_from(MONDAY_4), STRANGERS_LEAST);
    assert_eq!(weeks.alarmed_from(SATURDAY_21), 160);
    // An evening may begin an hour earlier, and end an hour later.
    assert_eq!([SATURDAY_21 - 1, SATURDAY_21 + 1].map(|hour| weeks.alarmed_from(hour)), [160, 160]);
    for hour in 0..SATURDAY_21 {
        let strangers = if hour == MONDAY_4 { 100 } else { usual_week(hour) };
        weeks.hour(strangers);
        let expected = if hour == MONDAY_4 { Level::Attack } else { Level::Normal };
        assert_eq!(weeks.raised(), expected, "hour {hour}");
    }
    weeks.hour(100);
    assert_eq!(weeks.raised(), Level::Normal);
}

#[test]
fn nothing_is_believed_before_the_third_week() {
    let mut weeks = Weeks::new();
    for week in 0..3 {
        assert_eq!(weeks.alarmed_from(MONDAY_4), STRANGERS_MOST, "week {week}");
        weeks.week(usual_week);
    }
    // The hour after the last one begins it is learnt.
    weeks.hour(0);
    assert_eq!(weeks.alarmed_from(MONDAY_4), STRANGERS_LEAST);
}

#[test]
fn a_single_interval_above_the_alarm_is_chance_and_two_are_not() {
    let mut weeks = Weeks::new();
    for _ in 0..4 {
        weeks.week(usual_week);
    }
    for strangers in [35, 0, 35, 0] {
        weeks.interval(strangers);
    }
    assert_eq!(weeks.raised(), Level::Normal);
    weeks.interval(35);
    weeks.interval(35);
    assert_eq!(weeks.raised(), Level::Elevated);
    weeks.interval(60);
    assert_eq!(weeks.raised(), Level::Attack);
}

#[test]
fn half_as_many_keep_an_alarm_and_do_not_raise_one() {
    let mut weeks = Weeks::new();
    for _ in 0..4 {
        weeks.week(usual_week);
    }
    for (strangers, sustains) in
        [(14, None), (15, Some(Level::Elevated)), (29, Some(Level::Elevated)), (30, Some(Level::Attack))]
    {
        weeks.interval(strangers);
        let pressure = weeks.pressures.pop();
        assert_eq!(pressure.map(|one| one.sustains), sustains, "{strangers}");
        assert!(pressure.is_none_or(|one| one.raises == Level::Normal), "{strangers}");
    }
}

#[test]
fn an_attack_while_learning_teaches_nothing_that_two_quiet_weeks_do_not_outweigh() {
    let mut weeks = Weeks::new();
    // It lies below the alarm of the first day, so that nothing tells it from a large service.
    weeks.week(|hour| if hour == MONDAY_4 { 250 } else { usual_week(hour) });
    for _ in 0..2 {
        weeks.week(usual_week);
    }
    weeks.hour(0);
    assert_eq!(weeks.alarmed_from(MONDAY_4), STRANGERS_LEAST);
}

#[test]
fn an_attack_once_learnt_teaches_nothing_however_long_it_lasts() {
    let mut weeks = Weeks::new();
    for _ in 0..4 {
        weeks.week(usual_week);
    }
    // Nobody reacts: the level stays as it is, and the intervals are alarmed all the same.
    for _ in 0..12 {
        weeks.week(|hour| if hour == MONDAY_4 { 200 } else { 0 });
        assert_eq!(weeks.raised(), Level::Attack);
        assert_eq!(weeks.alarmed_from(MONDAY_4), STRANGERS_LEAST);
    }
}

#[test]
fn short_bursts_within_an_hour_teach_nothing() {
    let mut weeks = Weeks::new();
    for _ in 0..4 {
        for hour in 0..HOURS {
            for interval in 0..INTERVALS {
                let burst = hour == MONDAY_4 && interval % 11 == 0;
                weeks.interval(if burst { 250 } else { 0 });
            }
        }
    }
    assert_eq!(weeks.alarmed_from(MONDAY_4), STRANGERS_LEAST);
}

#[test]
fn who_ramps_up_slowly_is_found_out() {
    let mut weeks = Weeks::new();
    let base = 20_u16;
    for _ in 0..5 {
        weeks.week(|hour| if hour == MONDAY_4 { base } else { 0 });
    }
    weeks.raised();
    // A tenth more every week.
    let (mut strangers, mut found) = (f64::from(base), None);
    for week in 1..60 {
        strangers = (strangers * 1.1).min(290.0);
        weeks.week(|hour| if hour == MONDAY_4 { strangers as u16 } else { 0 });
        if weeks.raised() > Level::Normal {
            found = Some(week);
            break;
        }
    }
    assert!(found.is_some(), "reached {strangers}");
}

#[test]
fn an_hour_that_was_not_seen_whole_teaches_nothing() {
    let mut weeks = Weeks::new();
    for _ in 0..4 {
        for hour in 0..HOURS {
            if hour == MONDAY_4 {
                for _ in 0..INTERVALS_SEEN_MIN - 10 {
                    weeks.interval(0);
                }
                // The controller was away for the rest.
                weeks.now = weeks.now + Span::from_secs(1_000);
            } else {
                weeks.hour(0);
            }
        }
    }
    assert_eq!(weeks.alarmed_from(MONDAY_4), STRANGERS_MOST);
    assert_eq!(weeks.alarmed_from(MONDAY_4 + 2), STRANGERS_LEAST);
}

#[test]
fn a_restart_loses_nothing_but_the_running_hour() {
    let mut weeks = Weeks::new();
    let mut kept = BTreeMap::new();
    for _ in 0..3 {
        weeks.week(usual_week);
        for learnt in weeks.baseline.take_learnt() {
            kept.insert((learnt.service, learnt.front, learnt.hour), learnt);
        }
    }
    weeks.hour(0);
    for learnt in weeks.baseline.take_learnt() {
        kept.insert((learnt.service, learnt.front, learnt.hour), learnt);
    }
    let mut restarted = Weeks { now: weeks.now, ..Weeks::new() };
    for learnt in kept.into_values() {
        restarted.baseline.restore(learnt);
    }
    for hour in 0..HOURS {
        assert_eq!(restarted.alarmed_from(hour), weeks.alarmed_from(hour), "hour {hour}");
    }
    assert_eq!(restarted.alarmed_from(SATURDAY_21), 160);
}

#[test]
fn one_host_is_one_stranger_whatever_it_sends() {
    let mut weeks = Weeks::new();
    for number in 0..100_000_u64 {
        weeks.baseline.note_stranger(0, Front::Tcp, Address::from_v6(0x2001_0db8_0001_0000, number));
        weeks.baseline.note_stranger(
            0,
            Front::Tcp,
            Address::from_v6(0x2001_0db8_0001_0000 | number & 0xffff, 1),
        );
        weeks.baseline.note_stranger(0, Front::Tcp, Address::from_v4(0xcb00_7107));
    }
    weeks.interval(0);
    weeks.interval(0);
    for number in 0..3 {
        weeks.baseline.note_stranger(0, Front::Tcp, Address::from_v6(0x2001_0db8_0001_0000, number));
    }
    weeks.interval(0);
    let gauge = weeks.baseline.gauge(0, Front::Tcp, weeks.now);
    assert_eq!(gauge.strangers, 1);
}

#[test]
fn the_hour_is_that_of_utc_whatever_the_engines_clock_says() {
    let mut baseline = Baseline::new(1, 7);
    let engine = Timestamp::from_secs(1_000_000);
    baseline.set_calendar(engine, MONDAY + Span::from_secs(4 * 3_600));
    assert_eq!(baseline.hour(engine).of_week(), MONDAY_4);
    assert_eq!(baseline.hour(engine + Span::from_secs(3_600)).of_week(), MONDAY_4 + 1);
    assert_eq!(baseline.hour(engine - Span::from_secs(3_600)).of_week(), MONDAY_4 - 1);
}

proptest! {
    #[test]
    fn whatever_comes_the_alarm_stays_within_its_bounds_and_grows_slowly(
        taught in prop::collection::vec((0_u16..2_000, 0_u32..4), 1..80),
    ) {
        let mut slot = Slot::default();
        let mut week = 2_900;
        for (strangers, gap) in taught {
            week += gap;
            let (before, was_trusted, last) = (slot.usual, slot.is_trusted(), slot.week);
            slot.learn(strangers, week);
            prop_assert!(slot.weeks.len() <= WEEKS);
            if was_trusted && week - last <= WEEKS_STALE {
                prop_assert!(slot.usual <= before + (before / GROWTH_PARTS).max(1));
            }
            let mut count = Count::new();
            count.slots[3] = slot.clone();
            prop_assert!((STRANGERS_LEAST..=STRANGERS_MOST).contains(&count.alarmed_from(3)));
        }
    }
}
