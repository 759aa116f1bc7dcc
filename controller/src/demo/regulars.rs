//! Twelve regulars who log in, talk and chat, three of them behind one shared address. Eleven do as the official client
//! does: hello over UDP first, then the login, then the channel. Each of them leaves after a while and comes back, so
//! that there is always somebody at the door. The twelfth uses a text client, which has no voice, and stays until
//! everybody is to fall silent.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpSocket, TcpStream, UdpSocket,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::LocalSet,
    time::{interval, sleep, timeout},
};

use super::{
    irc,
    server::{CHANNEL, PORT, VOICE, password_of},
};
use crate::clock;

pub(super) const PEOPLE: usize = 12;
/// Those behind one address.
const SHARED: usize = 3;
/// Somebody who is not in by then goes away and tries again.
const LOGIN_PATIENCE: Duration = Duration::from_secs(5);
const HELLO_EVERY: Duration = Duration::from_millis(500);
const VOICE_EVERY: Duration = Duration::from_millis(20);
/// Of Opus at 32 kbit/s in 20 ms.
const VOICE_BYTES: u16 = 80;
/// Voice packets of one turn, after which others speak.
const TURN: u64 = 100;
const SPEAKERS: usize = 3;
const STAY: Duration = Duration::from_secs(6);
const AWAY: Duration = Duration::from_millis(200);
/// What is still on its way when somebody leaves.
const LAST_WORDS: Duration = Duration::from_millis(60);

/// What regulars went through so far.
#[derive(Debug, Default)]
pub(super) struct Experience {
    pub(super) voice_sent: AtomicU64,
    pub(super) voice_heard: AtomicU64,
    /// How long each login took; `None` for one that was given up.
    pub(super) logins: Mutex<Vec<Option<Duration>>>,
    /// Sessions that the other side ended.
    pub(super) cut: AtomicU64,
    /// Lines on IRC, and how often one was heard.
    pub(super) chat_sent: AtomicU64,
    pub(super) chat_heard: AtomicU64,
    /// While set nobody speaks: so that what was sent and what was heard can be compared.
    pub(super) hush: AtomicBool,
}

/// Addresses of the regulars: one each, and one shared.
pub(super) fn address(number: usize) -> Ipv4Addr {
    match u8::try_from(number) {
        Ok(number) if usize::from(number) < PEOPLE - SHARED => Ipv4Addr::new(10, 79, 1, 10 + number),
        Ok(_) | Err(_) => Ipv4Addr::new(10, 79, 2, 1),
    }
}

/// Lives the regulars' lives until told to stop, on the calling thread.
///
/// # Errors
/// When there is no runtime to be had.
pub(super) fn live(
    server: Ipv4Addr,
    timeout: Duration,
    irc_people: u8,
    experience: &Arc<Experience>,
    stop: &AtomicBool,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let turns = Rc::new(Cell::new(0));
    LocalSet::new().block_on(&runtime, async {
        for number in 0..PEOPLE {
            let person = Person {
                number,
                server: SocketAddr::from((server, PORT)),
                ping_every: timeout / 2,
                experience: Arc::clone(experience),
                turns: Rc::clone(&turns),
            };
            tokio::task::spawn_local(async move { person.live().await });
        }
        for number in 0..irc_people {
            tokio::task::spawn_local(irc::chat(server, number, Arc::clone(experience)));
        }
        let mut ticks = interval(VOICE_EVERY);
        while !stop.load(Ordering::Relaxed) {
            ticks.tick().await;
            turns.set(turns.get() + 1);
        }
    });
    Ok(())
}

struct Person {
    number: usize,
    server: SocketAddr,
    ping_every: Duration,
    experience: Arc<Experience>,
    /// Voice packets since the beginning: whose turn it is follows from it.
    turns: Rc<Cell<u64>>,
}

/// A person's connection.
struct Session {
    user_id: u16,
    lines: Lines,
    writer: OwnedWriteHalf,
    voice: UdpSocket,
}

impl Person {
    async fn live(&self) {
        // One after the other, all through the time that they stay.
        sleep(STAY * self.number as u32 / PEOPLE as u32).await;
        loop {
            let began = clock::instant();
            match timeout(LOGIN_PATIENCE, self.log_in()).await {
                Ok(Ok(session)) => {
                    self.note_login(Some(began.elapsed()));
                    if self.stay(session).await.is_err() {
                        self.experience.cut.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Err(_)) | Err(_) => {
                    self.note_login(None);
                    sleep(AWAY * 4).await;
                }
            }
            sleep(AWAY).await;
        }
    }

    fn note_login(&self, took: Option<Duration>) {
        let logins = self.experience.logins.lock();
        logins.unwrap_or_else(std::sync::PoisonError::into_inner).push(took);
    }

    async fn log_in(&self) -> Result<Session> {
        let own = IpAddr::from(address(self.number));
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(own, 0))?;
        let stream: TcpStream = socket.connect(self.server).await?;
        stream.set_nodelay(true)?;
        let (reader, mut writer) = stream.into_split();
        let mut lines = Lines(BufReader::new(reader));
        let welcome = lines.wait_for("teamtalk ").await?;
        let user_id = welcome
            .split_whitespace()
            .find_map(|word| word.strip_prefix("userid="))
            .and_then(|id| id.parse().ok())
            .context("a welcome without a user id")?;
        let voice = UdpSocket::bind(SocketAddr::new(own, 0)).await?;
        voice.connect(self.server).await?;
        if !self.is_text_only() {
            self.greet(&voice, user_id).await?;
        }
        let account = format!("regular{}", self.number);
        let password = password_of(&account);
        let login = format!(
            "login nickname=\"Regular {}\" username=\"{account}\" password=\"{password}\" clientname=\"demo\" \
             protocol=\"5.14\" version=\"5.23\" id=1\r\njoin chanid={CHANNEL} id=2\r\n",
            self.number
        );
        writer.write_all(login.as_bytes()).await?;
        lines.wait_for("joined ").await?;
        lines.wait_for("end id=2").await?;
        Ok(Session { user_id, lines, writer, voice })
    }

    /// Until the server answers, as often as the official client asks.
    async fn greet(&self, voice: &UdpSocket, user_id: u16) -> Result<()> {
        let [low, high] = user_id.to_le_bytes();
        let hello = [1, low, high, 0, 7, 7, 7, 7, 1, 0x10, 1];
        let mut answer = [0; 64];
        loop {
            voice.send(&hello).await?;
            if let Ok(heard) = timeout(HELLO_EVERY, voice.recv(&mut answer)).await {
                heard?;
                return Ok(());
            }
        }
    }

    /// Talks, listens and chats for a while, then leaves in good order.
    async fn stay(&self, session: Session) -> Result<()> {
        let Session { user_id, mut lines, mut writer, voice } = session;
        let until = clock::instant() + STAY;
        let packet = voice_packet(user_id);
        let mut heard = [0; 2_048];
        let mut voice_ticks = interval(VOICE_EVERY);
        let mut pings = interval(self.ping_every);
        let mut chats = interval(STAY / 2);
        // The first tick of an interval comes at once.
        chats.tick().await;
        while if self.is_text_only() { !self.is_hushed() } else { clock::instant() < until } {
            tokio::select! {
                _ = voice_ticks.tick() => {
                    if self.is_speaking() && voice.send(&packet).await.is_ok() {
                        self.experience.voice_sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
                received = voice.recv(&mut heard) => self.note_voice(&received, &heard),
                line = lines.next() => drop(line?),
                _ = pings.tick() => writer.write_all(b"ping\r\n").await?,
                _ = chats.tick() => {
                    let text = format!("message type=2 content=\"hello from {}\" chanid={CHANNEL}\r\n", self.number);
                    writer.write_all(text.as_bytes()).await?;
                }
            }
        }
        writer.write_all(b"quit\r\n").await?;
        while lines.next().await.is_ok() {}
        let gone = clock::instant() + LAST_WORDS;
        while let Ok(received) = timeout(remaining(gone), voice.recv(&mut heard)).await {
            self.note_voice(&received, &heard);
        }
        Ok(())
    }

    const fn is_text_only(&self) -> bool {
        self.number == 0
    }

    fn is_speaking(&self) -> bool {
        let turn = (self.turns.get() / TURN) as usize;
        !self.is_text_only() && !self.is_hushed() && (self.number + turn).is_multiple_of(PEOPLE / SPEAKERS)
    }

    fn is_hushed(&self) -> bool {
        self.experience.hush.load(Ordering::Relaxed)
    }

    fn note_voice(&self, received: &std::io::Result<usize>, bytes: &[u8]) {
        if received.is_ok() && bytes.first() == Some(&VOICE) {
            self.experience.voice_heard.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn remaining(until: Instant) -> Duration {
    until.saturating_duration_since(clock::instant())
}

/// A voice packet into the demo's channel, as `protocols/teamtalk.md` c.1 and c.2 have it.
pub(super) fn voice_packet(user_id: u16) -> Vec<u8> {
    let ids = u32::from(user_id) | u32::from(CHANNEL) << 12;
    let [low, middle, high, _] = ids.to_le_bytes();
    let [field_low, field_high] = (VOICE_BYTES | 4 << 12).to_le_bytes();
    let mut packet = vec![VOICE, low, middle, high, 1, 2, 3, 4, field_low, field_high];
    packet.resize(packet.len() + usize::from(VOICE_BYTES), 0xaa);
    packet.extend([3, 0x10, 1, 0, 0]);
    packet
}

/// Lines from the server.
struct Lines(BufReader<OwnedReadHalf>);

impl Lines {
    /// The next line; an error when the server is gone. What was read of a line is lost when this is cancelled: whoever
    /// listens to something else meanwhile waits for no particular line.
    async fn next(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line)
    }

    async fn wait_for(&mut self, start: &str) -> Result<String> {
        loop {
            let line = self.next().await?;
            if line.starts_with(start) {
                return Ok(line);
            }
            if line.starts_with("error ") {
                bail!("the server refused: {}", line.trim_end());
            }
        }
    }
}
