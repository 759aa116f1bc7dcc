//! `cargo xtask logs`: server logs as an attack writes them, with the truth beside: who is who, and what each did.
//!
//! One world of attackers and regulars acts; each flavour writes down what a server of that kind writes of it. The same seed
//! gives the same log. The pace is that of the attack the project began with: 349 million lines in a week.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context, Result};
use clap::ValueEnum;

/// Lines a second: 349 million in a week.
const PACE: u64 = 577;
/// Of a thousand lines, those of regulars.
const REGULAR_LINES: u64 = 12;
/// Attackers at work at once, each until its turn is over: attacks come in waves, and who floods, floods.
const WAVE: u64 = 16;
/// Microseconds of one turn.
const TURN: u64 = 300_000_000;
/// The evening it begins, in seconds since 1970: 2026-11-21 06:13:19 UTC.
const BEGINS: i64 = 1_795_241_599;
/// Numbers of connections: what a TeamTalk server has.
const NUMBERS: u16 = 1_000;

/// Whose log it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Flavour {
    /// TeamTalk 5.
    Teamtalk,
    /// ircd-hybrid 8.2.
    IrcdHybrid,
    /// InspIRCd 3.
    Inspircd,
    /// ngIRCd 26 in the foreground.
    Ngircd,
    /// solanum.
    Solanum,
    /// UnrealIRCd 6.
    Unrealircd,
    /// TeamSpeak 3.
    Teamspeak,
}

/// What to write.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// So many lines.
    pub lines: u64,
    /// The same again for the same seed.
    pub seed: u64,
    /// Whose log.
    pub flavour: Flavour,
}

/// Who somebody is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Must be found.
    Attacker,
    /// Must be left alone.
    Regular,
}

/// What is true of one address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Actor {
    /// Who it is.
    pub role: Role,
    /// What the log says it did, by name of the signal.
    pub signals: BTreeMap<&'static str, u64>,
}

/// What is true of a log, by address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Truth {
    /// Everybody who did something.
    pub actors: BTreeMap<String, Actor>,
    /// Bytes written.
    pub bytes: u64,
}

impl Truth {
    /// How often something happened, by address.
    pub fn counts(&self, signal: &str) -> BTreeMap<String, u64> {
        let count =
            |(address, actor): (&String, &Actor)| Some((address.clone(), *actor.signals.get(signal)?));
        self.actors.iter().filter_map(count).collect()
    }

    /// As JSON. Addresses and names of signals need no escaping.
    fn write(&self, plan: Plan, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{{\"lines\": {}, \"seed\": {}, \"actors\": {{", plan.lines, plan.seed)?;
        for (index, (address, actor)) in self.actors.iter().enumerate() {
            let role = if actor.role == Role::Attacker { "attacker" } else { "regular" };
            let counts: Vec<String> =
                actor.signals.iter().map(|(kind, count)| format!("\"{kind}\": {count}")).collect();
            let comma = if index == 0 { "" } else { ",\n" };
            let counts = counts.join(", ");
            write!(out, "{comma}\"{address}\": {{\"role\": \"{role}\", \"signals\": {{{counts}}}}}")?;
        }
        writeln!(out, "}}}}")
    }
}

/// Writes a log to a file, and its truth beside it (`FILE.truth.json`); without a file, the log to standard output.
///
/// # Errors
/// When something cannot be written.
pub fn run(plan: Plan, file: Option<&Path>) -> Result<()> {
    let Some(path) = file else {
        let mut out = BufWriter::new(io::stdout().lock());
        return match generate(plan, &mut out).and_then(|_| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        };
    };
    write_to(plan, path).map(|_| ())
}

/// Writes a log to a file, and its truth beside it.
///
/// # Errors
/// When something cannot be written.
pub fn write_to(plan: Plan, path: &Path) -> Result<Truth> {
    let why = || format!("cannot write {}", path.display());
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).with_context(why)?);
    let truth = generate(plan, &mut out).and_then(|truth| out.flush().map(|()| truth)).with_context(why)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".truth.json");
    let mut out = BufWriter::new(File::create(&beside)?);
    truth.write(plan, &mut out)?;
    out.flush()?;
    Ok(truth)
}

/// Writes a log and answers what is true of it.
///
/// # Errors
/// When `out` takes no more.
pub fn generate(plan: Plan, out: &mut impl Write) -> io::Result<Truth> {
    let mut world = World::new(plan);
    let mut line = Vec::with_capacity(256);
    let mut written = 0;
    let mut bytes = 0;
    while written < plan.lines {
        line.clear();
        world.step(&mut line);
        if !line.is_empty() {
            out.write_all(&line)?;
            written += 1;
            bytes += line.len() as u64;
        }
    }
    Ok(Truth { actors: world.truth(), bytes })
}

/// Steele and Vigna's SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn of<T: Copy>(&mut self, choices: &[T], fallback: T) -> T {
        let index = self.below(choices.len() as u64) as usize;
        choices.get(index).copied().unwrap_or(fallback)
    }
}

/// How somebody behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Habit {
    /// Connects, guesses a few passwords, leaves, comes again.
    Guesser,
    /// Connects and leaves.
    Knocker,
    /// Logs in as a guest and talks without end.
    Talker,
    /// Comes in the evening, talks a little, goes.
    Regular,
}

/// Somebody at one address.
struct Person {
    habit: Habit,
    address: IpAddr,
    name: String,
    account: String,
    /// The connection, while there is one.
    number: Option<u16>,
    is_logged_in: bool,
    has_mistyped: bool,
    /// What is left to do before it ends.
    left: u64,
    /// Regulars: not before then, in microseconds.
    rests_until: u64,
    signals: BTreeMap<&'static str, u64>,
}

/// What somebody does.
enum Deed<'a> {
    Connect,
    Fail { account: &'a str },
    LogIn,
    Join,
    Say { words: u64 },
    LogOut,
    Leave,
}

struct World {
    random: Random,
    flavour: Flavour,
    attackers: Vec<Person>,
    regulars: Vec<Person>,
    free: Vec<u16>,
    /// Regulars who have mistyped their password and type it again next.
    mistyped: Vec<usize>,
    /// Since it began.
    micros: u64,
    clock: Clock,
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut random = Random(plan.seed);
        let mut attackers = Vec::new();
        for index in 0..240_u8 {
            let habit = match index % 10 {
                0..=6 => Habit::Guesser,
                7 => Habit::Knocker,
                _ => Habit::Talker,
            };
            let address = if index % 16 == 15 {
                IpAddr::V6(Ipv6Addr::new(
                    0xfd77,
                    u16::from(index),
                    0,
                    0,
                    0,
                    0,
                    0,
                    1 + random.below(200) as u16,
                ))
            } else {
                let network = 1 + random.below(90) as u8;
                IpAddr::V4(Ipv4Addr::new(10, network, index, 2 + random.below(250) as u8))
            };
            attackers.push(Person::new(habit, address, format!("visitor{index}"), "guest".into()));
        }
        let regulars = (0..60_u8).map(|index| {
            let address = IpAddr::V4(Ipv4Addr::new(10, 200, index, 10 + random.below(200) as u8));
            Person::new(Habit::Regular, address, format!("Regular {index}"), format!("regular{index}"))
        });
        Self {
            regulars: regulars.collect(),
            attackers,
            random,
            flavour: plan.flavour,
            free: (1..NUMBERS).rev().collect(),
            mistyped: Vec::new(),
            micros: 0,
            clock: Clock::default(),
        }
    }

    /// Somebody does one thing; what the server writes of it is added to `line`.
    fn step(&mut self, line: &mut Vec<u8>) {
        self.micros += self.random.below(2 * 1_000_000 / PACE);
        let Self { random, flavour, attackers, regulars, free, mistyped, micros, clock } = self;
        let is_ready =
            |index: &&usize| regulars.get(**index).is_some_and(|person| person.rests_until <= *micros);
        let hurried = mistyped.iter().find(is_ready).copied();
        let is_regular = hurried.is_some() || random.below(1_000) < REGULAR_LINES;
        let people = if is_regular { regulars } else { attackers };
        let all = people.len() as u64;
        // One line in fifty comes from an attacker whose turn it is not.
        let is_of_wave = !is_regular && random.below(50) > 0;
        let drawn = if is_of_wave { *micros / TURN * WAVE + random.below(WAVE) } else { random.below(all) };
        let index = hurried.unwrap_or((drawn % all) as usize);
        let Some(person) = people.get_mut(index).filter(|person| person.rests_until <= *micros) else {
            return;
        };
        let mut has_mistyped = false;
        person.act(random, free, |person, deed| {
            has_mistyped = matches!(deed, Deed::Fail { .. });
            clock.set(*micros);
            let number = person.number.unwrap_or_default();
            let kinds = flavour.write(line, clock, person, number, deed);
            for kind in kinds {
                *person.signals.entry(kind).or_default() += 1;
            }
        });
        if is_regular {
            // A minute or so between two deeds: people. A mistyped password is typed again at once.
            let patience = if has_mistyped { 5_000_000 } else { 60_000_000 };
            person.rests_until = *micros + 2_000_000 + random.below(patience);
            mistyped.retain(|other| *other != index);
            if has_mistyped {
                mistyped.push(index);
            }
        }
    }

    fn truth(self) -> BTreeMap<String, Actor> {
        let actor = |person: Person| {
            let role = if person.habit == Habit::Regular { Role::Regular } else { Role::Attacker };
            (person.address.to_string(), Actor { role, signals: person.signals })
        };
        let people = self.attackers.into_iter().chain(self.regulars);
        people.filter(|person| !person.signals.is_empty()).map(actor).collect()
    }
}

impl Person {
    const fn new(habit: Habit, address: IpAddr, name: String, account: String) -> Self {
        Self {
            habit,
            address,
            name,
            account,
            number: None,
            is_logged_in: false,
            has_mistyped: false,
            left: 0,
            rests_until: 0,
            signals: BTreeMap::new(),
        }
    }

    fn act(&mut self, random: &mut Random, free: &mut Vec<u16>, mut does: impl FnMut(&mut Self, Deed<'_>)) {
        let Some(number) = self.number else {
            let Some(number) = free.pop() else { return };
            self.number = Some(number);
            self.left = match self.habit {
                Habit::Guesser => 1 + random.below(6),
                Habit::Knocker => 0,
                Habit::Talker => 20 + random.below(400),
                Habit::Regular => 4 + random.below(40),
            };
            return does(self, Deed::Connect);
        };
        if self.habit == Habit::Guesser && self.left > 0 {
            const ACCOUNTS: [&str; 8] = [
                "admin",
                "root",
                "guest",
                "teamtalk",
                "test",
                "bear \\\"the\\\" ware",
                "müller",
                "moderator",
            ];
            self.left -= 1;
            let account = random.of(&ACCOUNTS, "admin");
            return does(self, Deed::Fail { account });
        }
        let is_talking = matches!(self.habit, Habit::Talker | Habit::Regular);
        if is_talking && self.left > 0 {
            if !self.is_logged_in {
                // Some people mistype their password now and then.
                if self.habit == Habit::Regular && !self.has_mistyped && random.below(12) == 0 {
                    self.has_mistyped = true;
                    let account = self.account.clone();
                    return does(self, Deed::Fail { account: &account });
                }
                self.is_logged_in = true;
                self.has_mistyped = false;
                return does(self, Deed::LogIn);
            }
            self.left -= 1;
            let deed =
                if random.below(20) == 0 { Deed::Join } else { Deed::Say { words: 1 + random.below(12) } };
            return does(self, deed);
        }
        if self.is_logged_in {
            self.is_logged_in = false;
            return does(self, Deed::LogOut);
        }
        does(self, Deed::Leave);
        self.number = None;
        free.insert(0, number);
    }
}

impl Flavour {
    /// Writes what a server writes of a deed, or nothing; answers what it says of the address.
    fn write(
        self,
        line: &mut Vec<u8>,
        clock: &Clock,
        person: &Person,
        number: u16,
        deed: Deed<'_>,
    ) -> &'static [&'static str] {
        let written = match self {
            Self::Teamtalk => teamtalk(line, clock, person, number, deed),
            Self::IrcdHybrid => hybrid(line, clock, person, deed),
            Self::Inspircd => inspircd(line, clock, person, deed),
            Self::Ngircd => ngircd(line, clock, person, number, deed),
            Self::Solanum => solanum(line, clock, person, deed),
            Self::Unrealircd => unrealircd(line, clock, person, deed),
            Self::Teamspeak => teamspeak(line, clock, person, number, deed),
        };
        // Writing to memory does not fail.
        written.unwrap_or_default()
    }
}

type Written = io::Result<&'static [&'static str]>;

fn teamtalk(line: &mut Vec<u8>, clock: &Clock, person: &Person, number: u16, deed: Deed<'_>) -> Written {
    let Person { address, name, account, is_logged_in, .. } = person;
    write!(line, "{} {}.{:06} ", clock.date(), clock.time(), clock.micros)?;
    Ok(match deed {
        Deed::Connect => {
            writeln!(line, "User #{number} TCP address: {address} connected.")?;
            &["connection.opened"]
        }
        Deed::Fail { account } => {
            writeln!(
                line,
                "User #{number} failed to authenticate for account \"{account}\" IP address: {address} UDP address: :::0."
            )?;
            &["login.failed"]
        }
        Deed::LogIn => {
            writeln!(
                line,
                "User #{number} nickname: \"{name}\" username: \"{account}\" IP address: {address} UDP address: :::0 \
                 logged in."
            )?;
            &["login.succeeded"]
        }
        Deed::Join => {
            writeln!(
                line,
                "User #{number} nickname: \"{name}\" username: \"{account}\" joined channel: \"/lobby/\"."
            )?;
            &["channel.joined"]
        }
        Deed::Say { words } => {
            write!(
                line,
                "Channel message from #{number} nickname: \"{name}\" username: \"{account}\" to channel: \"/lobby/\" \
                 content: \""
            )?;
            // People do not all say the same.
            let mut state = clock.micros | 1;
            for _ in 0..words {
                state = state.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
                let letters = [0, 5, 10, 15, 20].map(|shift| char::from(b'a' + (state >> shift) as u8 % 26));
                write!(line, "{} ", String::from_iter(letters))?;
            }
            writeln!(line, "{}\".", clock.micros)?;
            &["message.channel"]
        }
        Deed::LogOut => {
            writeln!(line, "User #{number} nickname: \"{name}\" username: \"{account}\" logged out.")?;
            &["login.ended"]
        }
        Deed::Leave => {
            let name = if *is_logged_in { name.as_str() } else { "" };
            writeln!(line, "User #{number} nickname: \"{name}\" disconnected.")?;
            &["connection.closed"]
        }
    })
}

/// A nickname as IRC allows it.
fn nick(person: &Person) -> String {
    person.name.replace(' ', "_")
}

fn hybrid(line: &mut Vec<u8>, clock: &Clock, person: &Person, deed: Deed<'_>) -> Written {
    let (address, nick) = (person.address, nick(person));
    let stamp = format!("[{}T{}+0000]", clock.date(), clock.time());
    Ok(match deed {
        Deed::Fail { .. } => {
            writeln!(
                line,
                "{stamp} Failed OPER attempt as boss by {nick}[~{nick}@{address}] - password mismatch"
            )?;
            &["login.failed"]
        }
        Deed::Leave => {
            let day = clock.words();
            writeln!(line, "{stamp} {day} (75): {nick}!~{nick}@{address} {address} * 3/0 :somebody")?;
            &["connection.closed"]
        }
        Deed::Connect | Deed::LogIn | Deed::Join | Deed::Say { .. } | Deed::LogOut => &[],
    })
}

fn inspircd(line: &mut Vec<u8>, clock: &Clock, person: &Person, deed: Deed<'_>) -> Written {
    let (address, nick, day) = (person.address, nick(person), clock.words_year_first());
    Ok(match deed {
        Deed::Connect => {
            writeln!(
                line,
                "{day} CONNECT: Client connecting on port 6667 (class main): {nick}!{nick}@{address} ({address}) [real]"
            )?;
            &["connection.opened", "login.succeeded"]
        }
        Deed::Fail { .. } => {
            writeln!(
                line,
                "{day} OPER: WARNING! Failed oper attempt by {nick}!{nick}@{address} using login 'boss': The following \
                 fields do not match: password"
            )?;
            &["login.failed"]
        }
        Deed::Leave => {
            writeln!(line, "{day} QUIT: Client exiting: {nick}!{nick}@{address} ({address}) [Quit: bye]")?;
            &["connection.closed"]
        }
        Deed::LogIn | Deed::Join | Deed::Say { .. } | Deed::LogOut => &[],
    })
}

fn ngircd(line: &mut Vec<u8>, clock: &Clock, person: &Person, number: u16, deed: Deed<'_>) -> Written {
    let (address, nick, seconds) = (person.address, nick(person), clock.second);
    let stamp = format!("[9848:5 {seconds:>4}]");
    Ok(match deed {
        Deed::Connect => {
            writeln!(line, "{stamp} Accepted connection {number} from \"{address}:56285\" on socket 6.")?;
            &["connection.opened"]
        }
        Deed::Fail { .. } => {
            writeln!(
                line,
                "{stamp} Got invalid OPER from \"{nick}!~{nick}@{address}\": \"boss\" -- bad password!"
            )?;
            &["login.failed"]
        }
        Deed::LogIn => {
            writeln!(line, "{stamp} User \"{nick}!~{nick}@{address}\" registered (connection {number}).")?;
            &["login.succeeded"]
        }
        Deed::Leave => {
            writeln!(
                line,
                "{stamp} Connection {number} with \"{address}:56285\" closed (in: 0.1k, out: 1.5k)."
            )?;
            &["connection.closed"]
        }
        Deed::Join | Deed::Say { .. } | Deed::LogOut => &[],
    })
}

fn solanum(line: &mut Vec<u8>, clock: &Clock, person: &Person, deed: Deed<'_>) -> Written {
    let (address, nick) = (person.address, nick(person));
    let stamp = clock.slashes();
    Ok(match deed {
        Deed::Fail { .. } => {
            writeln!(line, "{stamp} FAILED OPER (boss) by ({nick}!~{nick}@{address}) ({address})")?;
            &["login.failed"]
        }
        Deed::Leave => {
            let day = clock.words();
            writeln!(line, "{stamp} {day} (0:01:02): {nick}!~{nick}@{address} {address} 3/0")?;
            &["connection.closed"]
        }
        Deed::Connect | Deed::LogIn | Deed::Join | Deed::Say { .. } | Deed::LogOut => &[],
    })
}

fn unrealircd(line: &mut Vec<u8>, clock: &Clock, person: &Person, deed: Deed<'_>) -> Written {
    let (address, nick) = (person.address, nick(person));
    let stamp = format!("[{} {} GMT]", clock.date(), clock.time());
    Ok(match deed {
        Deed::Connect => {
            writeln!(
                line,
                "{stamp} connect.LOCAL_CLIENT_CONNECT info: Client connecting: {nick} (~{nick}@{address}) [{address}] \
                 [class: clients]"
            )?;
            &["connection.opened", "login.succeeded"]
        }
        Deed::Fail { .. } => {
            writeln!(
                line,
                "{stamp} oper.OPER_FAILED warn: Failed OPER attempt by {nick}!~{nick}@{address} [reason: Authentication \
                 failed] [oper-block: boss]"
            )?;
            &["login.failed"]
        }
        Deed::Leave => {
            writeln!(
                line,
                "{stamp} connect.LOCAL_CLIENT_DISCONNECT info: Client exiting: {nick} (~{nick}@{address}) [{address}] \
                 (Quit: bye)"
            )?;
            &["connection.closed"]
        }
        Deed::LogIn | Deed::Join | Deed::Say { .. } | Deed::LogOut => &[],
    })
}

fn teamspeak(line: &mut Vec<u8>, clock: &Clock, person: &Person, number: u16, deed: Deed<'_>) -> Written {
    let (name, stamp) = (&person.name, format!("{} {}.{:06}", clock.date(), clock.time(), clock.micros));
    let address = match person.address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    Ok(match deed {
        Deed::Connect if matches!(person.habit, Habit::Talker | Habit::Regular) => {
            writeln!(
                line,
                "{stamp}|INFO    |VirtualServerBase|1  |client connected '{name}'(id:{number}) from {address}:58631"
            )?;
            &["connection.opened", "login.succeeded"]
        }
        Deed::Fail { .. } => {
            writeln!(
                line,
                "{stamp}|INFO    |Query         |   |query from {number} {address}:22420 attempted to login with account \
                 \"serveradmin\" and failed!"
            )?;
            &["login.failed"]
        }
        Deed::Leave if matches!(person.habit, Habit::Talker | Habit::Regular) => {
            writeln!(
                line,
                "{stamp}|INFO    |VirtualServerBase|1  |client disconnected '{name}'(id:{number}) reason \
                 'reasonmsg=leaving'"
            )?;
            &["connection.closed"]
        }
        Deed::Connect | Deed::Leave | Deed::LogIn | Deed::Join | Deed::Say { .. } | Deed::LogOut => &[],
    })
}

/// The time of a line.
#[derive(Default)]
struct Clock {
    second: u64,
    micros: u64,
    /// Of the second, once it is known.
    civil: Option<jiff::civil::DateTime>,
    date: String,
    time: String,
}

impl Clock {
    fn set(&mut self, micros: u64) {
        self.micros = micros % 1_000_000;
        let second = micros / 1_000_000;
        if second == self.second && self.civil.is_some() {
            return;
        }
        self.second = second;
        let instant = jiff::Timestamp::from_second(BEGINS + second.cast_signed()).unwrap_or_default();
        let civil = instant.to_zoned(jiff::tz::TimeZone::UTC).datetime();
        self.date = civil.date().to_string();
        self.time = format!("{:02}:{:02}:{:02}", civil.hour(), civil.minute(), civil.second());
        self.civil = Some(civil);
    }

    fn date(&self) -> &str {
        &self.date
    }

    fn time(&self) -> &str {
        &self.time
    }

    /// `Sat Nov 21 06:15:12 2026`
    fn words(&self) -> String {
        self.strftime("%a %b %e %H:%M:%S %Y")
    }

    /// `Sat Nov 21 2026 06:15:12`
    fn words_year_first(&self) -> String {
        self.strftime("%a %b %e %Y %H:%M:%S")
    }

    /// `2026/11/21 06.15`
    fn slashes(&self) -> String {
        self.strftime("%Y/%-m/%-d %H.%M")
    }

    fn strftime(&self, format: &str) -> String {
        self.civil.map(|civil| civil.strftime(format).to_string()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_log_and_another_another() {
        let log = |seed| {
            let mut log = Vec::new();
            let truth = generate(Plan { lines: 5_000, seed, flavour: Flavour::Teamtalk }, &mut log).unwrap();
            (log, truth)
        };
        let (one, truth) = log(1);
        assert_eq!((one.clone(), truth.clone()), log(1));
        assert_ne!(one, log(2).0);
        assert_eq!(one.iter().filter(|byte| **byte == b'\n').count(), 5_000);
        // Counted by somebody who knows nothing of the world.
        let text = String::from_utf8(one).unwrap();
        let failed =
            text.lines().filter(|line| line.contains(" failed to authenticate for account ")).count();
        assert_eq!(truth.counts("login.failed").values().sum::<u64>(), failed as u64);
    }

    #[test]
    fn every_flavour_has_lines() {
        for flavour in Flavour::value_variants() {
            let mut log = Vec::new();
            generate(Plan { lines: 500, seed: 3, flavour: *flavour }, &mut log).unwrap();
            assert_eq!(log.iter().filter(|byte| **byte == b'\n').count(), 500, "{flavour:?}");
        }
    }
}
