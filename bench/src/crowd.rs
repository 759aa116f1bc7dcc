//! Those who are there while the gate is measured: a server, regulars who talk, and whoever logs in.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use floodwall_tests::{
    live::{Lab, SERVER, connect_from, now},
    packets::voice,
};

pub(crate) const PORT: u16 = 10_333;
pub(crate) const REGULARS: u16 = 20;
/// Networks of regulars from afar. Whoever measures has to lead the clients to them.
pub(crate) const NETWORKS: &str = "10.160.0.0/16";
/// Voice of one regular: a packet each 40 ms, as TeamTalk sends.
const VOICE_EVERY: Duration = Duration::from_millis(40);
/// Longer, and the login has failed.
pub(crate) const LOGIN_PATIENCE: Duration = Duration::from_secs(2);

/// A server that keeps TeamTalk's manners as far as it matters here: it greets, lets everybody in, answers pings, and
/// counts what it hears.
pub(crate) struct Server {
    /// Datagrams of the regulars, and all others.
    pub(crate) voice: Arc<AtomicU64>,
    pub(crate) other: Arc<AtomicU64>,
    pub(crate) stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let server = Self { voice: Arc::default(), other: Arc::default(), stop: Arc::default() };
        let (listener, udp) = lab.on_host(|| -> std::io::Result<_> {
            Ok((TcpListener::bind(("::", PORT))?, UdpSocket::bind(("::", PORT))?))
        })?;
        udp.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (voice, other, stop) =
            (Arc::clone(&server.voice), Arc::clone(&server.other), Arc::clone(&server.stop));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Ok((_, from)) = udp.recv_from(&mut [0; 1_500]) {
                    let is_regular = matches!(
                        from.ip().to_canonical(),
                        IpAddr::V4(ip) if matches!(ip.octets(), [10, 77, 0, _] | [10, 160, _, _])
                    );
                    (if is_regular { &voice } else { &other }).fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Whoever leaves while being answered is none of the server's.
                thread::spawn(move || drop(serve(&stream)));
            }
        });
        Ok(server)
    }
}

fn serve(mut stream: &TcpStream) -> std::io::Result<()> {
    let address = stream.peer_addr()?.ip().to_canonical();
    let IpAddr::V4(v4) = address else { return Ok(()) };
    let id = v4.octets()[3];
    stream.write_all(
        format!("teamtalk userid={id} servername=\"bench\" usertimeout=60 protocol=\"5.15\"\r\n").as_bytes(),
    )?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let answer = if line.starts_with("login") {
            format!(
                "accepted userid={id} nickname=\"r{id}\" ipaddr=\"{address}\" username=\"r{id}\" password=\"bench\" usertype=1\r\nok\r\n"
            )
        } else {
            "pong\r\n".to_owned()
        };
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// Somebody who is logged in.
pub(crate) struct Regular {
    stream: TcpStream,
    udp: UdpSocket,
    id: u16,
}

impl Regular {
    /// One of those who live beside each other.
    pub(crate) fn arrive(lab: &Lab, number: u16) -> Result<Self> {
        let id = number + 2;
        Self::arrive_from(lab, id, format!("10.77.0.{id}").parse()?)
    }

    /// One of those who have a network each, [`NETWORKS`]: of a network only so many can be known.
    pub(crate) fn arrive_from_afar(lab: &Lab, number: u16) -> Result<Self> {
        let id = number + 2;
        Self::arrive_from(lab, id, format!("10.160.{id}.{id}").parse()?)
    }

    fn arrive_from(lab: &Lab, id: u16, client: IpAddr) -> Result<Self> {
        let (stream, udp) = lab.among_clients(|| -> Result<_> {
            Ok((connect_from(client, format!("{SERVER}:{PORT}").parse()?)?, UdpSocket::bind((client, 0))?))
        })?;
        log_in(&stream, id)?;
        udp.connect((SERVER, PORT))?;
        Ok(Self { stream, udp, id })
    }

    /// Talks for so long; answers how many packets were said.
    pub(crate) fn talk(self, duration: Duration) -> Result<u64> {
        let begun = now();
        self.talk_while(|| begun.elapsed() < duration)
    }

    /// Talks until it is over; answers how many packets were said.
    pub(crate) fn talk_until(self, over: &AtomicBool) -> Result<u64> {
        self.talk_while(|| !over.load(Ordering::Relaxed))
    }

    fn talk_while(mut self, goes_on: impl Fn() -> bool) -> Result<u64> {
        let begun = now();
        let mut said = 0;
        while goes_on() {
            self.udp.send(&voice(self.id, 100))?;
            said += 1;
            // The control channel goes on too: once a second.
            if said % 25 == 0 {
                self.stream.write_all(b"ping\r\n")?;
            }
            let due = VOICE_EVERY * u32::try_from(said)?;
            thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        Ok(said)
    }
}

pub(crate) fn log_in(mut stream: &TcpStream, id: u16) -> Result<()> {
    stream.set_read_timeout(Some(LOGIN_PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    stream.write_all(
        format!("login nickname=\"r{id}\" username=\"r{id}\" password=\"bench\" protocol=\"5.15\"\r\n")
            .as_bytes(),
    )?;
    line.clear();
    reader.read_line(&mut line)?;
    ensure!(line.starts_with("accepted"), "{line:?} in answer to a login");
    Ok(())
}
