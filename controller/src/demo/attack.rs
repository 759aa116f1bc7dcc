//! Attackers, each doing what real ones were seen to do, each bounded in rate and in time. They work on threads of their
//! own inside the demo's namespace and know nothing that an outsider would not.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::{
    irc,
    regulars::voice_packet,
    server::{CHANNEL, PORT, password_of},
};
use crate::{clock, namespace::Namespace};

/// A banned attacker's SYN is never answered; it does not wait for ever.
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);
const GUESSES_PER_SECOND: u32 = 100;
const GUESSERS: u8 = 40;
const GUESS_EVERY: Duration = Duration::from_secs(2);
const CONNECTIONS_PER_SECOND: u32 = 300;
/// More than the server has places for.
const HELD_MAX: usize = 1_050;
const JUNK_PER_SECOND: u32 = 30_000;
const IMPOSTURES_PER_SECOND: u32 = 300;
const MESSAGES_PER_SECOND: u32 = 200;
/// Attackers act in bursts this long, and sleep in between.
const BURST: Duration = Duration::from_millis(5);
/// User ids an impostor tries, over and over: the newest, of which a flood beside it takes most.
const IDS: u16 = 600;

/// One attacker, and what it has tried so far.
#[derive(Debug)]
pub(super) struct Attacker {
    pub(super) name: &'static str,
    pub(super) does: &'static str,
    pub(super) addresses: Vec<Ipv4Addr>,
    /// Connections, lines and datagrams sent, or tried to send.
    tried: AtomicU64,
    /// Answers to it, where no server of ours counts what arrives.
    answered: AtomicU64,
    work: fn(&Self, &Target),
}

/// Where attackers go, and until when.
#[derive(Debug)]
pub(super) struct Target {
    server: Ipv4Addr,
    stop: AtomicBool,
}

/// The attackers of the demo; one more where there is an IRC server to attack.
pub(super) fn attackers(with_irc: bool) -> Vec<Arc<Attacker>> {
    let one = |last: u8| vec![Ipv4Addr::new(10, 79, 66, last)];
    let many = (0..GUESSERS).map(|number| Ipv4Addr::new(10, 79, 100 + number, 1)).collect();
    let attacker = |name, does, addresses, work| {
        let (tried, answered) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Attacker { name, does, addresses, tried, answered, work })
    };
    let mut all = vec![
        attacker("login storm", "guesses passwords, 100 a second", one(1), storm),
        attacker(
            "distributed guessing",
            "40 addresses guess once every two seconds each",
            many,
            guess_together,
        ),
        attacker("reconnect flood", "opens 300 connections a second and holds them", one(2), reconnect),
        attacker("UDP junk", "sends 30,000 datagrams a second that mean nothing", one(3), junk),
        attacker("masquerade", "says hello and speaks over UDP in others' names", one(4), masquerade),
        attacker("message flood", "logs in with an account and writes 200 messages a second", one(5), flood),
    ];
    if with_irc {
        all.push(attacker(
            "IRC operator",
            "guesses the operator's password, four times a second",
            one(6),
            irc::guess,
        ));
    }
    all
}

/// A running attack.
#[derive(Debug)]
pub(super) struct Attack {
    target: Arc<Target>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    /// Lets every attacker loose.
    ///
    /// # Errors
    /// When no thread can be had, or the namespace is gone.
    pub(super) fn start(from: &Namespace, server: Ipv4Addr, attackers: &[Arc<Attacker>]) -> Result<Self> {
        let target = Arc::new(Target { server, stop: AtomicBool::new(false) });
        let mut attack = Self { target: Arc::clone(&target), threads: Vec::new() };
        for attacker in attackers {
            let (attacker, target) = (Arc::clone(attacker), Arc::clone(&target));
            let thread = from.spawn("attacker", move || (attacker.work)(&attacker, &target))?;
            attack.threads.push(thread);
        }
        Ok(attack)
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.target.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                crate::output::complain("an attacker's thread failed");
            }
        }
    }
}

impl Target {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A socket at an address of the attacker's.
    fn socket(from: Ipv4Addr) -> std::io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((from, 0)).into())?;
        Ok(socket)
    }

    /// A connection, if one comes about in time.
    pub(super) fn connect(&self, from: Ipv4Addr, port: u16) -> Option<TcpStream> {
        let socket = Self::socket(from).ok()?;
        socket.connect_timeout(&SocketAddr::from((self.server, port)).into(), CONNECT_PATIENCE).ok()?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(CONNECT_PATIENCE)).ok()?;
        Some(stream)
    }

    /// Asks for a connection and does not wait for it.
    fn knock(&self, from: Ipv4Addr) -> Option<Socket> {
        let socket = Self::socket(from).ok()?;
        socket.set_nonblocking(true).ok()?;
        match socket.connect(&SocketAddr::from((self.server, PORT)).into()) {
            Ok(()) => Some(socket),
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => Some(socket),
            Err(_) => None,
        }
    }

    /// A UDP socket that speaks to the server.
    fn speaker(&self, from: Ipv4Addr) -> Option<UdpSocket> {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((self.server, PORT)).ok()?;
        Some(socket)
    }

    /// Calls `act` so many times a second until the attack is over, in small bursts; it never catches up for more than
    /// one of them, so that an attacker that was held up does no more than it says.
    pub(super) fn at_rate(&self, per_second: u32, mut act: impl FnMut()) {
        let mut due = clock::instant();
        while !self.is_over() {
            let now = clock::instant();
            if due > now {
                thread::sleep(BURST / 2);
                continue;
            }
            act();
            due = (due + Duration::from_secs(1) / per_second).max(now.checked_sub(BURST).unwrap_or(now));
        }
    }
}

impl Attacker {
    pub(super) fn address(&self) -> Ipv4Addr {
        self.addresses.first().copied().unwrap_or(Ipv4Addr::LOCALHOST)
    }

    pub(super) fn tried(&self) -> u64 {
        self.tried.load(Ordering::Relaxed)
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub(super) fn note(&self) {
        self.tried.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note_answer(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Guesses without waiting for the answers, on a connection for as long as it lasts.
fn storm(attacker: &Attacker, target: &Target) {
    let mut stream = None;
    let mut number = 0;
    target.at_rate(GUESSES_PER_SECOND, || {
        attacker.note();
        number += 1;
        stream = stream.take().or_else(|| target.connect(attacker.address(), PORT));
        let guess = format!("login username=\"admin\" password=\"guess{number}\"\r\n");
        if let Some(open) = &mut stream
            && (open.write_all(guess.as_bytes()).is_err() || is_gone(open))
        {
            stream = None;
        }
    });
}

/// Takes what the server has said, and tells whether it hung up.
fn is_gone(stream: &TcpStream) -> bool {
    let mut heard = [0; 4_096];
    if stream.set_nonblocking(true).is_err() {
        return true;
    }
    let gone = loop {
        match (&*stream).read(&mut heard) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break error.kind() != ErrorKind::WouldBlock,
        }
    };
    gone || stream.set_nonblocking(false).is_err()
}

/// Each address guesses rarely, on a connection of its own each time.
fn guess_together(attacker: &Attacker, target: &Target) {
    let mut turn = attacker.addresses.iter().cycle();
    let count = u32::try_from(attacker.addresses.len()).unwrap_or(1);
    let per_second = count / u32::try_from(GUESS_EVERY.as_secs()).unwrap_or(1);
    target.at_rate(per_second, || {
        attacker.note();
        let Some(address) = turn.next() else { return };
        if let Some(mut stream) = target.connect(*address, PORT) {
            let said = stream.write_all(b"login username=\"regular1\" password=\"summer\"\r\n");
            let mut answer = [0; 512];
            // The welcome, then the refusal; whoever hangs up early has been seen by nobody.
            while said.is_ok() {
                match stream.read(&mut answer) {
                    Ok(length) if length > 0 && !has(answer.get(..length).unwrap_or_default(), b"error") => {}
                    Ok(_) | Err(_) => break,
                }
            }
        }
    });
}

/// Whether a word stands somewhere in a text.
pub(super) fn has(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|found| found == word)
}

fn reconnect(attacker: &Attacker, target: &Target) {
    let mut held = VecDeque::new();
    target.at_rate(CONNECTIONS_PER_SECOND, || {
        attacker.note();
        held.extend(target.knock(attacker.address()));
        if held.len() > HELD_MAX {
            held.pop_front();
        }
    });
}

/// Noise, and every third time something well formed with a user id that nobody has.
fn junk(attacker: &Attacker, target: &Target) {
    let Some(socket) = target.speaker(attacker.address()) else { return };
    let voice = voice_packet(4_000);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = [0; 96];
    target.at_rate(JUNK_PER_SECOND, || {
        attacker.note();
        // Xorshift: noise that is the same in every run.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        for (index, chunk) in noise.chunks_exact_mut(8).enumerate() {
            chunk.copy_from_slice(&state.rotate_left(index as u32 * 5).to_le_bytes());
        }
        let datagram: &[u8] = if state.is_multiple_of(3) { &voice } else { &noise };
        // A full buffer of its own host drops what an attacker sends; that is the attacker's loss.
        drop(socket.send(datagram));
    });
}

/// Says hello for the user ids before its own, one after the other, and speaks in the name of each that the server
/// answers for. It holds a connection, which tells it the newest id, but is nobody.
fn masquerade(attacker: &Attacker, target: &Target) {
    let Some(socket) = target.speaker(attacker.address()) else { return };
    if socket.set_nonblocking(true).is_err() {
        return;
    }
    let mut connection = None;
    let mut newest = IDS;
    let mut taken = VecDeque::new();
    let (mut step, mut asked) = (0_u16, 0_u16);
    target.at_rate(IMPOSTURES_PER_SECOND, || {
        attacker.note();
        if connection.is_none() {
            connection = target.connect(attacker.address(), PORT);
            newest = connection.as_mut().and_then(user_id).unwrap_or(newest);
        }
        step = step.wrapping_add(1);
        let mut heard = [0; 2_048];
        while let Ok(length) = socket.recv(&mut heard) {
            // An answer repeats the time of the question; here that is the id.
            if let (11, Some(&[low, high])) = (length, heard.get(4..6).and_then(<[u8]>::first_chunk::<2>)) {
                taken.push_back(u16::from_le_bytes([low, high]));
            }
        }
        taken.truncate(usize::from(IDS));
        let speaks_as = taken.front().copied().filter(|_| step.is_multiple_of(4));
        taken.rotate_left(usize::from(speaks_as.is_some()));
        let datagram = speaks_as.map_or_else(
            || {
                asked = asked.wrapping_add(1);
                let [low, high] = newest.saturating_sub(asked % IDS.min(newest.max(1))).to_le_bytes();
                vec![1, low, high, 0, low, high, 0, 0, 1, 0x10, 1]
            },
            voice_packet,
        );
        // Whatever its own host refuses to send is the attacker's loss.
        drop(socket.send(&datagram));
    });
}

/// From the welcome.
fn user_id(stream: &mut TcpStream) -> Option<u16> {
    let mut welcome = [0; 512];
    let length = stream.read(&mut welcome).ok()?;
    let text = String::from_utf8_lossy(welcome.get(..length)?).into_owned();
    text.split_whitespace().find_map(|word| word.strip_prefix("userid="))?.parse().ok()
}

/// Somebody with an account of their own who shouts everybody down.
fn flood(attacker: &Attacker, target: &Target) {
    let mut stream: Option<TcpStream> = None;
    let line = format!("message type=2 content=\"BUY NOW\" chanid={CHANNEL}\r\n");
    target.at_rate(MESSAGES_PER_SECOND, || {
        attacker.note();
        if stream.is_none() {
            stream = target.connect(attacker.address(), PORT);
            let login = format!(
                "login nickname=\"Mallory\" username=\"mallory\" password=\"{}\"\r\njoin chanid={CHANNEL}\r\n",
                password_of("mallory")
            );
            if stream.as_mut().is_some_and(|open| open.write_all(login.as_bytes()).is_err()) {
                stream = None;
            }
        }
        if let Some(open) = &mut stream
            && (open.write_all(line.as_bytes()).is_err() || is_gone(open))
        {
            stream = None;
        }
    });
}
