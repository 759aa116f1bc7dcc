//! Servers made by hand, with three regulars each, and what their clients say.

use std::collections::BTreeMap;

use crate::conversation::{Connection, Report, Wire};

/// A server that somebody can be on.
pub(crate) trait Server {
    const NAME: &'static str;

    /// With its regulars.
    fn new() -> Self;

    /// Somebody comes and stays.
    fn welcome(&mut self, address: &str, name: &str);

    /// The regulars say something once more, and what became of everybody.
    fn end(self) -> Report;
}

impl Server for TeamTalk {
    const NAME: &'static str = "teamtalk";

    fn new() -> Self {
        Self::new()
    }

    fn welcome(&mut self, address: &str, name: &str) {
        let (mut connection, id) = self.connect(address);
        self.log_in(&mut connection, id, address, name);
    }

    fn end(mut self) -> Report {
        self.breathe();
        self.wire.report()
    }
}

impl Server for Irc {
    const NAME: &'static str = "irc";

    fn new() -> Self {
        Self::new()
    }

    fn welcome(&mut self, address: &str, name: &str) {
        let mut connection = self.join(address, name);
        self.identify(&mut connection, name);
    }

    fn end(mut self) -> Report {
        self.chat();
        self.wire.report()
    }
}

impl Server for TeamSpeak {
    const NAME: &'static str = "teamspeak";

    fn new() -> Self {
        let mut server = Self { wire: Wire::new(QUERY_PORT), regulars: Vec::new() };
        for address in REGULARS {
            server.welcome(address, address);
        }
        // The gate learns for as long as a TeamTalk server would need, whatever is guarded.
        server.wire.wait_millis(130_000);
        server
    }

    fn welcome(&mut self, address: &str, name: &str) {
        let mut connection = self.query(address);
        self.ask(&mut connection, &format!("login bot-{name} throw-away"), "error id=0 msg=ok");
        self.regulars.push(connection);
    }

    fn end(mut self) -> Report {
        for index in 0..self.regulars.len() {
            let mut connection = self.regulars[index];
            self.ask(&mut connection, "whoami", "error id=0 msg=ok");
        }
        self.wire.report()
    }
}

const QUERY_PORT: u16 = 10_011;
const VOICE_PORT: u16 = 9_987;

/// A TeamSpeak server and three query bots.
pub(crate) struct TeamSpeak {
    pub(crate) wire: Wire,
    regulars: Vec<Connection>,
}

impl TeamSpeak {
    /// A ServerQuery connection.
    pub(crate) fn query(&mut self, client: &str) -> Connection {
        self.wire.server = QUERY_PORT;
        let mut connection = self.wire.connect(client);
        self.wire.answer(&mut connection, b"TS3\n\rWelcome to the TeamSpeak 3 ServerQuery interface\n\r");
        connection
    }

    pub(crate) fn ask(&mut self, connection: &mut Connection, line: &str, answer: &str) {
        self.wire.ask(connection, format!("{line}\n").as_bytes());
        self.wire.answer(connection, format!("{answer}\n\r").as_bytes());
    }

    /// Step 0 of the handshake.
    pub(crate) fn greet(&mut self, client: &str) {
        self.wire.server = VOICE_PORT;
        let mut datagram = b"TS3INIT1\x00\x65\x00\x00\x88\x0d\xd0\x57\x66\x00".to_vec();
        datagram.extend((self.wire.now / 1_000_000).to_be_bytes()[4..].iter());
        datagram.extend([7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.wire.datagram(client, &datagram);
    }

    /// A voice packet that belongs to no connection.
    pub(crate) fn voice_datagram(&mut self, client: &str) {
        self.wire.server = VOICE_PORT;
        let mut datagram = vec![1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 5, 0x80];
        datagram.resize(60, 0xaa);
        self.wire.datagram(client, &datagram);
    }
}

/// People who must not notice anything.
pub(crate) const REGULARS: [&str; 3] = ["10.77.0.21", "10.77.0.22", "10.77.0.23"];
/// Somebody in the same /24 as the regulars.
pub(crate) const ATTACKER: &str = "10.77.0.66";

/// A TeamTalk server and its regulars.
pub(crate) struct TeamTalk {
    pub(crate) wire: Wire,
    last_id: u16,
    regulars: Vec<(Connection, u16)>,
}

impl TeamTalk {
    /// Three regulars, logged in, after the gate has learnt who is there.
    pub(crate) fn new() -> Self {
        let mut server = Self { wire: Wire::new(10_333), last_id: 0, regulars: Vec::new() };
        for (index, address) in REGULARS.iter().enumerate() {
            let (mut connection, id) = server.connect(address);
            server.log_in(&mut connection, id, address, &format!("user{index}"));
            server.regulars.push((connection, id));
        }
        // Twice the user time-out, in which they keep their sessions.
        for _ in 0..9 {
            server.wire.wait_millis(15_000);
            server.breathe();
        }
        server
    }

    /// Regulars ping, speak and chat.
    pub(crate) fn breathe(&mut self) {
        for (index, address) in REGULARS.iter().enumerate() {
            let Some((mut connection, id)) = self.regulars.get(index).copied() else { continue };
            self.command(&mut connection, "ping", "pong\r\n");
            self.wire.datagram(address, &voice(id));
            let delivered =
                format!("messagedeliver type=2 srcuserid={id} content=\"hi\" more=0 chanid=1\r\nok\r\n");
            self.command(&mut connection, "message type=2 content=\"hi\" chanid=1", &delivered);
            self.regulars[index] = (connection, id);
        }
    }

    pub(crate) fn connect(&mut self, client: &str) -> (Connection, u16) {
        let mut connection = self.wire.connect(client);
        self.last_id += 1;
        let id = self.last_id;
        let welcome = format!(
            "teamtalk userid={id} servername=\"Lab Server\" maxusers=1000 maxiplogins=0 usertimeout=60 protocol=\"5.14\"\r\n"
        );
        self.wire.answer(&mut connection, welcome.as_bytes());
        (connection, id)
    }

    pub(crate) fn command(&mut self, connection: &mut Connection, line: &str, answer: &str) {
        self.wire.ask(connection, format!("{line}\r\n").as_bytes());
        self.wire.answer(connection, answer.as_bytes());
    }

    pub(crate) fn log_in(&mut self, connection: &mut Connection, id: u16, address: &str, account: &str) {
        self.enter(connection, id, address, account);
        self.command(
            connection,
            "join chanid=1 password=\"\" id=2",
            "begin id=2\r\njoined chanid=1\r\nok\r\nend id=2\r\n",
        );
    }

    /// The same, without going into a channel.
    pub(crate) fn enter(&mut self, connection: &mut Connection, id: u16, address: &str, account: &str) {
        self.wire.datagram(address, &[1, id as u8, (id >> 8) as u8, 0, 9, 9, 9, 9, 1, 0x10, 1]);
        let line = format!(
            "login nickname=\"{account}\" username=\"{account}\" password=\"throw-away\" clientname=\"Lab\" protocol=\"5.14\" \
             version=\"5.23\" id=1"
        );
        let answer = format!(
            "begin id=1\r\naccepted userid={id} nickname=\"{account}\" ipaddr=\"{address}\" username=\"{account}\" \
             password=\"throw-away\" usertype=1 userrights=12842503 userdata=0 audiocodeclimit=0 cmdflood=[0,0]\r\nok\r\n\
             end id=1\r\n"
        );
        self.command(connection, &line, &answer);
    }

    /// Without a password; everybody's account.
    pub(crate) fn log_in_as_guest(
        &mut self,
        connection: &mut Connection,
        id: u16,
        address: &str,
        nickname: &str,
    ) {
        self.enter_as_guest(connection, id, address, nickname);
        self.command(
            connection,
            "join chanid=1 password=\"\" id=2",
            "begin id=2\r\njoined chanid=1\r\nok\r\nend id=2\r\n",
        );
    }

    /// The same, without going into a channel.
    pub(crate) fn enter_as_guest(
        &mut self,
        connection: &mut Connection,
        id: u16,
        address: &str,
        nickname: &str,
    ) {
        self.wire.datagram(address, &[1, id as u8, (id >> 8) as u8, 0, 9, 9, 9, 9, 1, 0x10, 1]);
        let line = format!(
            "login nickname=\"{nickname}\" username=\"guest\" password=\"\" clientname=\"Lab\" protocol=\"5.14\" \
             version=\"5.23\" id=1"
        );
        let answer = format!(
            "begin id=1\r\naccepted userid={id} nickname=\"{nickname}\" ipaddr=\"{address}\" username=\"guest\" \
             usertype=1 userrights=12842503 userdata=0 audiocodeclimit=0 cmdflood=[0,0]\r\nok\r\nend id=1\r\n"
        );
        self.command(connection, &line, &answer);
    }

    pub(crate) fn guess(&mut self, connection: &mut Connection, account: &str) {
        let line = format!("login username=\"{account}\" password=\"guess\"");
        self.command(connection, &line, "error number=2002 message=\"Invalid user account\"\r\n");
    }

    /// Outcomes, after the regulars were found untouched.
    pub(crate) fn judge(mut self) -> BTreeMap<String, String> {
        self.breathe();
        let outcomes = self.wire.outcomes();
        for regular in REGULARS {
            assert_eq!(outcomes[regular], "clean", "a regular was hurt: {outcomes:?}");
        }
        outcomes
    }
}

/// An IRC server and its regulars.
pub(crate) struct Irc {
    pub(crate) wire: Wire,
    regulars: Vec<Connection>,
}

impl Irc {
    pub(crate) fn new() -> Self {
        let mut server = Self { wire: Wire::new(6_667), regulars: Vec::new() };
        for (index, address) in REGULARS.iter().enumerate() {
            let connection = server.join(address, &format!("regular{index}"));
            server.regulars.push(connection);
        }
        for _ in 0..3 {
            server.wire.wait_millis(20_000);
            server.chat();
        }
        server
    }

    /// Somebody who registers and joins a channel.
    pub(crate) fn join(&mut self, address: &str, nickname: &str) -> Connection {
        let mut connection = self.register(address, nickname);
        self.say(&mut connection, "JOIN #talk", &format!(":{nickname}!x@{address} JOIN #talk"));
        connection
    }

    pub(crate) fn register(&mut self, address: &str, nickname: &str) -> Connection {
        let mut connection = self.wire.connect(address);
        self.wire.ask(&mut connection, format!("NICK {nickname}\r\nUSER {nickname} 0 * :x\r\n").as_bytes());
        let welcome = format!(
            ":lab.example 001 {nickname} :Welcome\r\n:lab.example 004 {nickname} lab.example hybrid-8.2 o o\r\n\
             :lab.example 376 {nickname} :End\r\n"
        );
        self.wire.answer(&mut connection, welcome.as_bytes());
        connection
    }

    pub(crate) fn say(&mut self, connection: &mut Connection, line: &str, answer: &str) {
        self.wire.ask(connection, format!("{line}\r\n").as_bytes());
        if !answer.is_empty() {
            self.wire.answer(connection, format!("{answer}\r\n").as_bytes());
        }
    }

    /// Proves to services who it is.
    pub(crate) fn identify(&mut self, connection: &mut Connection, account: &str) {
        let yes = format!(":NickServ!s@services NOTICE {account} :You are now identified for {account}.");
        self.say(connection, &format!("PRIVMSG NickServ :IDENTIFY {account} throw-away"), &yes);
    }

    pub(crate) fn chat(&mut self) {
        for index in 0..self.regulars.len() {
            let mut connection = self.regulars[index];
            self.say(&mut connection, "PRIVMSG #talk :good evening", "");
            self.say(&mut connection, "PING :x", ":lab.example PONG lab.example :x");
            self.regulars[index] = connection;
        }
    }

    pub(crate) fn judge(mut self) -> BTreeMap<String, String> {
        self.chat();
        let outcomes = self.wire.outcomes();
        for regular in REGULARS {
            assert_eq!(outcomes[regular], "clean", "a regular was hurt: {outcomes:?}");
        }
        outcomes
    }
}

/// A voice packet of a user in channel 1.
pub(crate) fn voice(id: u16) -> Vec<u8> {
    let ids = u32::from(id) | 1 << 12;
    let [low, middle, high, _] = ids.to_le_bytes();
    let mut packet = vec![3, low, middle, high, 1, 2, 3, 4, 40, 0x40];
    packet.resize(50, 0xaa);
    packet.extend([3, 0x10, 1, 0, 0]);
    packet
}
