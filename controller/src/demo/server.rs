//! A stand-in for a TeamTalk server: not the real one, and it says so in its name. It keeps what matters of the real
//! one's manners (`protocols/teamtalk.md` a.7, a.8, a.9, c.3): five places to wait at the door, about a thousand
//! connections, unlimited guesses, and a UDP address that belongs to whoever says hello first.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::{Add, Sub},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::SyncSender,
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use floodwall_engine::protocol::teamtalk::message::Message;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpSocket, TcpStream, UdpSocket,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, mpsc},
    task::LocalSet,
    time::interval,
};

use crate::clock;

pub(super) const PORT: u16 = 10_333;
/// The channel everybody talks in.
pub(super) const CHANNEL: u16 = 1;
/// Both as the real server has them.
const BACKLOG: u32 = 5;
const CONNECTIONS_MAX: usize = 1_000;
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Lines waiting for a client that does not read.
const QUEUE_MAX: usize = 1_024;
const USER_ID_MAX: u16 = 0xffe;
const HELLO: u8 = 1;
const KEEPALIVE: u8 = 2;
pub(super) const VOICE: u8 = 3;
/// Header before the fields of a datagram.
const HEADER_BYTES: usize = 8;

/// What the server saw of one address.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) connections: u64,
    pub(super) lines: u64,
    pub(super) datagrams: u64,
    /// Voice packets taken and passed on.
    pub(super) voice: u64,
    /// Voice packets passed on to this address.
    pub(super) voice_to: u64,
}

impl Seen {
    /// Everything that reached the server.
    pub(super) const fn all(self) -> u64 {
        self.connections + self.lines + self.datagrams
    }
}

impl Add for Seen {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            lines: self.lines + other.lines,
            datagrams: self.datagrams + other.datagrams,
            voice: self.voice + other.voice,
            voice_to: self.voice_to + other.voice_to,
        }
    }
}

impl Sub for Seen {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            connections: self.connections - other.connections,
            lines: self.lines - other.lines,
            datagrams: self.datagrams - other.datagrams,
            voice: self.voice - other.voice,
            voice_to: self.voice_to - other.voice_to,
        }
    }
}

/// What is known of the server from outside.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) seen: Mutex<BTreeMap<IpAddr, Seen>>,
    /// Lines a real server would have written into its log.
    pub(super) log_lines: AtomicU64,
    /// CPU time of the server's only thread, ns.
    pub(super) cpu: AtomicU64,
}

impl Ledger {
    /// What was seen so far, by address.
    pub(super) fn seen(&self) -> BTreeMap<IpAddr, Seen> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn note(&self, address: IpAddr, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(seen.entry(address).or_default());
    }

    fn log(&self) {
        self.log_lines.fetch_add(1, Ordering::Relaxed);
    }
}

/// Serves until told to stop, on the calling thread. `ready` hears when it listens.
///
/// # Errors
/// When the ports cannot be opened.
pub(super) fn serve(
    timeout: Duration,
    ledger: &Arc<Ledger>,
    stop: &AtomicBool,
    ready: SyncSender<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let hall = Rc::new(RefCell::new(Hall::new(timeout, Arc::clone(ledger))));
    LocalSet::new().block_on(&runtime, async {
        let address = SocketAddr::from(([0, 0, 0, 0], PORT));
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address).context("the demo's server finds its port taken")?;
        let listener = socket.listen(BACKLOG)?;
        let voices = Rc::new(UdpSocket::bind(address).await?);
        tokio::task::spawn_local(relay(Rc::clone(&hall), Rc::clone(&voices)));
        tokio::task::spawn_local({
            let hall = Rc::clone(&hall);
            async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, peer)) => admit(&hall, stream, peer),
                        // Descriptors run out only under attack; the real server waits, too.
                        Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                }
            }
        });
        // Nobody waits for it if the demo was interrupted meanwhile.
        ready.send(()).unwrap_or_default();
        let mut ticks = interval(Duration::from_millis(100));
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            ledger.cpu.store(clock::thread_cpu_nanos(), Ordering::Relaxed);
            hall.borrow().expire();
        }
        Ok(())
    })
}

/// Who is connected.
struct Hall {
    users: BTreeMap<u16, User>,
    last_id: u16,
    timeout: Duration,
    ledger: Arc<Ledger>,
}

struct User {
    address: IpAddr,
    account: Option<String>,
    nickname: String,
    in_channel: bool,
    voice: Option<SocketAddr>,
    alive: Instant,
    queue: mpsc::Sender<Vec<u8>>,
    close: Rc<Notify>,
}

impl Hall {
    fn new(timeout: Duration, ledger: Arc<Ledger>) -> Self {
        Self { users: BTreeMap::new(), last_id: 0, timeout, ledger }
    }

    fn enter(&mut self, address: IpAddr, queue: mpsc::Sender<Vec<u8>>) -> Option<(u16, Rc<Notify>)> {
        if self.users.len() >= CONNECTIONS_MAX {
            return None;
        }
        loop {
            self.last_id = if self.last_id >= USER_ID_MAX { 1 } else { self.last_id + 1 };
            if !self.users.contains_key(&self.last_id) {
                break;
            }
        }
        let close = Rc::new(Notify::new());
        let user = User {
            address,
            account: None,
            nickname: String::new(),
            in_channel: false,
            voice: None,
            alive: clock::instant(),
            queue,
            close: Rc::clone(&close),
        };
        self.users.insert(self.last_id, user);
        self.ledger.log();
        Some((self.last_id, close))
    }

    fn leave(&mut self, id: u16) {
        let Some(user) = self.users.remove(&id) else { return };
        self.ledger.log();
        if user.account.is_some() {
            self.tell_others(id, &format!("loggedout userid={id}\r\n"));
        }
    }

    /// Those who are silent for too long.
    fn expire(&self) {
        for user in self.users.values() {
            if user.alive.elapsed() > self.timeout {
                self.ledger.log();
                user.close.notify_one();
            }
        }
    }

    fn tell_others(&self, id: u16, line: &str) {
        for (_, user) in self.users.iter().filter(|(other, user)| **other != id && user.account.is_some()) {
            // Whoever does not read is thrown out, as the real server does.
            if user.queue.try_send(line.into()).is_err() {
                user.close.notify_one();
            }
        }
    }

    /// One line of a client; `None` ends the conversation.
    fn answer(&mut self, id: u16, line: &[u8]) -> Option<String> {
        let Some(message) = Message::parse(line) else {
            return Some(error(1000, "Syntax error"));
        };
        let bracket = message.number("id");
        let body = match message.keyword {
            b"quit" => return None,
            b"ping" => {
                self.users.get_mut(&id)?.alive = clock::instant();
                "pong\r\n".to_owned()
            }
            b"login" => self.login(id, &message)?,
            b"logout" => {
                self.users.get_mut(&id)?.account = None;
                "loggedout\r\nok\r\n".to_owned()
            }
            b"join" => {
                self.users.get_mut(&id)?.in_channel = true;
                self.ledger.log();
                self.tell_others(id, &format!("adduser userid={id} chanid={CHANNEL}\r\n"));
                format!("joined chanid={CHANNEL}\r\nok\r\n")
            }
            b"message" => self.message(id, &message)?,
            _ => error(1001, "Unknown command"),
        };
        Some(match bracket {
            Some(number) => format!("begin id={number}\r\n{body}end id={number}\r\n"),
            None => body,
        })
    }

    fn login(&mut self, id: u16, message: &Message<'_>) -> Option<String> {
        self.ledger.log();
        let text = |name| message.text(name).map(|text| String::from_utf8_lossy(&text).into_owned());
        let account = text("username").unwrap_or_default();
        if text("password") != Some(password_of(&account)) {
            return Some(error(2002, "Invalid user account"));
        }
        let nickname = text("nickname").unwrap_or_else(|| account.clone());
        let user = self.users.get_mut(&id)?;
        user.account = Some(account.clone());
        user.nickname.clone_from(&nickname);
        let address = user.address;
        self.tell_others(id, &format!("loggedin userid={id} nickname=\"{nickname}\"\r\n"));
        Some(format!(
            "accepted userid={id} nickname=\"{nickname}\" ipaddr=\"{address}\" username=\"{account}\" usertype=1\r\n\
             ok\r\n"
        ))
    }

    fn message(&self, id: u16, message: &Message<'_>) -> Option<String> {
        if self.users.get(&id)?.account.is_none() {
            return Some(error(3000, "Not logged in"));
        }
        self.ledger.log();
        let content = message.text("content").unwrap_or_default();
        let content = String::from_utf8_lossy(&content).replace(['"', '\\'], "'");
        let line =
            format!("messagedeliver type=2 srcuserid={id} content=\"{content}\" more=0 chanid={CHANNEL}\r\n");
        self.tell_others(id, &line);
        Some("ok\r\n".to_owned())
    }

    /// To whom a datagram goes, and what.
    fn datagram(&mut self, from: SocketAddr, bytes: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        self.ledger.note(from.ip(), |seen| seen.datagrams += 1);
        let Some(&[kind, low, high, _, t0, t1, t2, t3]) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Vec::new();
        };
        let id = u16::from(low) | u16::from(high & 0xf) << 8;
        let Some(user) = self.users.get_mut(&id) else { return Vec::new() };
        if user.voice.is_some_and(|bound| bound.ip() != from.ip()) {
            return Vec::new();
        }
        match kind {
            HELLO if bytes.len() == 11 => {
                user.voice = Some(from);
                vec![(from, vec![HELLO, 0, 0, 0, t0, t1, t2, t3, 1, 0x10, 1])]
            }
            KEEPALIVE => {
                user.voice = Some(from);
                user.alive = clock::instant();
                vec![(from, vec![KEEPALIVE, 0, 0, 0, t0, t1, t2, t3])]
            }
            VOICE if user.in_channel && user.voice.is_some() && has_whole_fields(bytes) => {
                self.ledger.note(from.ip(), |seen| seen.voice += 1);
                let listeners = self.users.iter().filter(|(other, user)| **other != id && user.in_channel);
                listeners.filter_map(|(_, user)| user.voice).map(|to| (to, bytes.to_vec())).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Every account has a password of its own, good for nothing elsewhere.
pub(super) fn password_of(account: &str) -> String {
    format!("{account}-demo")
}

fn error(number: u16, text: &str) -> String {
    format!("error number={number} message=\"{text}\"\r\n")
}

/// Whether the chain of fields ends where the datagram does.
fn has_whole_fields(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(HEADER_BYTES..).unwrap_or_default();
    while let Some((head, fields)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*head) & 0xfff);
        let Some(after) = fields.get(length..) else { return false };
        rest = after;
    }
    rest.is_empty()
}

fn admit(hall: &Rc<RefCell<Hall>>, stream: TcpStream, peer: SocketAddr) {
    let (queue, waiting) = mpsc::channel(QUEUE_MAX);
    let (entered, ledger, timeout) = {
        let mut hall = hall.borrow_mut();
        (hall.enter(peer.ip(), queue.clone()), Arc::clone(&hall.ledger), hall.timeout)
    };
    ledger.note(peer.ip(), |seen| seen.connections += 1);
    let Some((id, close)) = entered else { return };
    // Without it every answer waits for the client's acknowledgement of the last.
    drop(stream.set_nodelay(true));
    let (reader, writer) = stream.into_split();
    let welcome = format!(
        "teamtalk userid={id} servername=\"Floodwall demo (a stand-in)\" maxusers=1000 maxiplogins=0 usertimeout={} \
         protocol=\"5.14\"\r\n",
        timeout.as_secs()
    );
    tokio::task::spawn_local(write(writer, waiting));
    let hall = Rc::clone(hall);
    tokio::task::spawn_local(async move {
        // A client that is gone before its welcome is found out by reading.
        drop(queue.try_send(welcome.into_bytes()));
        tokio::select! {
            () = read(&hall, id, peer.ip(), reader, &queue) => {}
            () = close.notified() => {}
        }
        hall.borrow_mut().leave(id);
    });
}

async fn read(
    hall: &Rc<RefCell<Hall>>,
    id: u16,
    address: IpAddr,
    reader: OwnedReadHalf,
    queue: &mpsc::Sender<Vec<u8>>,
) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(LINE_BYTES_MAX);
        match bounded.read_until(b'\n', &mut line).await {
            Ok(read) if read > 0 && line.last() == Some(&b'\n') => {}
            Ok(_) | Err(_) => return,
        }
        let answer = {
            let mut hall = hall.borrow_mut();
            hall.ledger.note(address, |seen| seen.lines += 1);
            hall.answer(id, line.trim_ascii_end())
        };
        let Some(answer) = answer else { return };
        if queue.try_send(answer.into_bytes()).is_err() {
            return;
        }
    }
}

async fn write(mut writer: OwnedWriteHalf, mut waiting: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = waiting.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn relay(hall: Rc<RefCell<Hall>>, voices: Rc<UdpSocket>) {
    let mut bytes = vec![0; 65_536];
    loop {
        // Errors are those of earlier datagrams to somebody who has gone.
        let Ok((length, from)) = voices.recv_from(&mut bytes).await else { continue };
        let outgoing = hall.borrow_mut().datagram(from, bytes.get(..length).unwrap_or_default());
        for (to, datagram) in outgoing {
            let is_voice = datagram.first() == Some(&VOICE);
            if voices.send_to(&datagram, to).await.is_ok() && is_voice {
                hall.borrow().ledger.note(to.ip(), |seen| seen.voice_to += 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hall() -> (Hall, mpsc::Receiver<Vec<u8>>, u16) {
        let mut hall = Hall::new(Duration::from_secs(60), Arc::new(Ledger::default()));
        let (queue, waiting) = mpsc::channel(8);
        let (id, _) = hall.enter(IpAddr::from([10, 0, 0, 1]), queue).unwrap();
        (hall, waiting, id)
    }

    #[test]
    fn it_answers_as_the_real_server_does() {
        let (mut hall, _waiting, id) = hall();
        assert_eq!(
            hall.answer(id, b"login username=\"anna\" password=\"x\" id=3").unwrap(),
            "begin id=3\r\nerror number=2002 message=\"Invalid user account\"\r\nend id=3\r\n"
        );
        let accepted = hall.answer(id, b"login username=\"anna\" password=\"anna-demo\"").unwrap();
        assert!(accepted.starts_with("accepted userid=1 ") && accepted.ends_with("ok\r\n"), "{accepted}");
        assert_eq!(hall.answer(id, b"ping").unwrap(), "pong\r\n");
        assert!(hall.answer(id, b"PING").unwrap().contains("1001"));
        assert!(hall.answer(id, b"quit").is_none());
    }

    #[test]
    fn whoever_says_hello_first_owns_the_voice_of_an_id() {
        let (mut hall, _waiting, id) = hall();
        let hello = [HELLO, id as u8, 0, 0, 1, 2, 3, 4, 1, 0x10, 1];
        let (thief, owner) = (SocketAddr::from(([10, 0, 0, 9], 1)), SocketAddr::from(([10, 0, 0, 1], 1)));
        assert_eq!(hall.datagram(thief, &hello).len(), 1);
        assert!(hall.datagram(owner, &hello).is_empty());
        let junk = [VOICE, id as u8, 0x10, 0, 1, 2, 3, 4, 9, 0x40, 1];
        assert!(hall.datagram(thief, &junk).is_empty());
    }
}
