//! A real IRC server, Debian's ngircd, with a few who chat on it and one who guesses its operator's password. Where it
//! is not installed the demo does without and says so.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader as AsyncBufReader},
    net::TcpSocket,
    time::{interval, sleep},
};

use super::{
    attack::{Attacker, Target, has},
    regulars::Experience,
};
use crate::namespace::Namespace;

pub(super) const PORT: u16 = 6_667;
pub(super) const PEOPLE: u8 = 3;
const SERVER: &str = "/usr/sbin/ngircd";
const CHAT_EVERY: Duration = Duration::from_secs(1);
/// Between two tries to come back.
const AWAY: Duration = Duration::from_millis(500);
const GUESSES_PER_SECOND: u32 = 4;
/// Connections on which an answer is still to come.
const WAITING_MAX: usize = 40;

/// A running ngircd; it ends with the value.
pub(super) struct IrcServer(Child);

impl IrcServer {
    /// Starts one in a namespace; `None` where it is not installed.
    ///
    /// # Errors
    /// When it is installed and does not start.
    pub(super) fn start(host: &Namespace, folder: &Path) -> Result<Option<Self>> {
        if !Path::new(SERVER).exists() {
            return Ok(None);
        }
        let path = folder.join("ngircd.conf");
        let configuration = format!(
            "[Global]\nName = demo.example\nListen = 0.0.0.0\nPorts = {PORT}\nMotdPhrase = demo\nServerUID = irc\n\
             ServerGID = irc\n[Limits]\nMaxConnectionsIP = 0\n[Options]\nDNS = no\nIdent = no\nPAM = no\n\
             [Operator]\nName = admin\nPassword = demo-only\n"
        );
        std::fs::write(&path, configuration)?;
        let mut command = Command::new(SERVER);
        command.arg("-n").arg("-f").arg(&path);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = host.run(|| command.spawn())?.context("ngircd does not start")?;
        Ok(Some(Self(child)))
    }
}

impl Drop for IrcServer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Addresses of those who chat.
pub(super) const fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 79, 3, 1 + number)
}

/// Chats for ever, in the channel of all regulars.
pub(super) async fn chat(server: Ipv4Addr, number: u8, experience: Arc<Experience>) {
    loop {
        // Whatever ended it, such as a server that is not up yet: somebody who chats comes back.
        if converse(server, number, &experience).await.is_ok() {
            return;
        }
        sleep(AWAY).await;
    }
}

async fn converse(server: Ipv4Addr, number: u8, experience: &Experience) -> Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((address(number), 0)))?;
    let stream = socket.connect(SocketAddr::from((server, PORT))).await?;
    let (reader, mut writer) = stream.into_split();
    let mut lines = AsyncBufReader::new(reader).lines();
    let hello = format!("NICK chatter{number}\r\nUSER chatter{number} 0 * :chatter\r\nJOIN #lounge\r\n");
    writer.write_all(hello.as_bytes()).await?;
    let mut chats = interval(CHAT_EVERY);
    let mut joined = false;
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let line = line?.context("the server closed the connection")?;
                if let Some(token) = line.strip_prefix("PING ") {
                    writer.write_all(format!("PONG {token}\r\n").as_bytes()).await?;
                } else if line.contains(" 366 ") {
                    joined = true;
                } else if line.contains(" PRIVMSG #lounge ") {
                    experience.chat_heard.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ = chats.tick() => {
                if joined && !experience.hush.load(Ordering::Relaxed) {
                    writer.write_all(b"PRIVMSG #lounge :hello\r\n").await?;
                    experience.chat_sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// Guesses the operator's password, on a connection of its own each time, and lets the slow server take its time.
pub(super) fn guess(attacker: &Attacker, target: &Target) {
    let mut waiting: VecDeque<TcpStream> = VecDeque::new();
    let mut number = 0;
    target.at_rate(GUESSES_PER_SECOND, || {
        attacker.note();
        waiting.retain_mut(|stream| {
            let mut heard = [0; 4_096];
            match stream.read(&mut heard) {
                Ok(length) if has(heard.get(..length).unwrap_or_default(), b" 464 ") => {
                    attacker.note_answer();
                    false
                }
                Ok(length) => length > 0,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            }
        });
        if waiting.len() >= WAITING_MAX {
            waiting.pop_front();
        }
        number += 1;
        let lines =
            format!("NICK guess{number}\r\nUSER guesser 0 * :guesser\r\nOPER admin summer{number}\r\n");
        let asked = target.connect(attacker.address(), PORT).filter(|stream| {
            let mut writer = stream;
            writer.write_all(lines.as_bytes()).and_then(|()| stream.set_nonblocking(true)).is_ok()
        });
        waiting.extend(asked);
    });
}
