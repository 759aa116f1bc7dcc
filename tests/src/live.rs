//! The live wall for tests: a host in a network namespace of its own, clients in another, a wire between them, the
//! real daemon in front of real servers. Everything goes when the value does.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Waits this long for anything; no test passes or fails by how fast a machine is.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// The guarded host.
pub const SERVER: &str = "10.77.0.1";
/// The same over IPv6.
pub const SERVER_V6: &str = "fd77::1";
/// A server in a container behind the guarded host.
pub const CONTAINER: &str = "10.80.0.2";
/// The same over IPv6.
pub const CONTAINER_V6: &str = "fd80::2";
/// Clients have the addresses 10.77.0.2 to 10.77.0.61 and fd77::2 to fd77::3d.
const CLIENTS: std::ops::RangeInclusive<u32> = 2..=61;

/// Longer than a SYN that is sent again takes; a banned client waits for all of it.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Which side opens the link between the two ngircds.
#[derive(Clone, Copy, Debug)]
pub enum Opener {
    /// The guarded host.
    Host,
    /// The peer among the clients.
    Peer,
}

/// A guarded host and its clients.
pub struct Lab {
    name: String,
    folder: tempfile::TempDir,
    servers: Vec<Child>,
    daemon: Option<Daemon>,
}

/// A running `floodwall run`.
pub struct Daemon {
    child: Child,
}

impl Lab {
    /// Two namespaces and a wire; `None` (said loudly) without root.
    pub fn open(test: &str) -> Option<Self> {
        if !crate::is_root() {
            crate::skip(test, "needs root for network namespaces");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("fw{}-{number}", std::process::id());
        let lab =
            Self { folder: tempfile::tempdir().expect("a folder"), servers: Vec::new(), daemon: None, name };
        lab.wire();
        Some(lab)
    }

    fn wire(&self) {
        let (host, clients) = (self.host(), self.clients());
        ip(&["netns", "add", &host]);
        ip(&["netns", "add", &clients]);
        ip(&[
            "link", "add", "wall0", "netns", &host, "type", "veth", "peer", "name", "out0", "netns", &clients,
        ]);
        ip(&["-n", &host, "addr", "add", &format!("{SERVER}/24"), "dev", "wall0"]);
        ip(&["-n", &host, "addr", "add", &format!("{SERVER_V6}/64"), "dev", "wall0", "nodad"]);
        for number in CLIENTS {
            ip(&["-n", &clients, "addr", "add", &format!("10.77.0.{number}/24"), "dev", "out0"]);
            ip(&["-n", &clients, "addr", "add", &format!("fd77::{number:x}/64"), "dev", "out0", "nodad"]);
        }
        for (namespace, device) in [(&host, "wall0"), (&clients, "out0"), (&host, "lo"), (&clients, "lo")] {
            ip(&["-n", namespace, "link", "set", device, "up"]);
        }
        // Addresses are of use only once each has been found to be nobody else's.
        eventually("IPv6 on the wire", || {
            let found = Command::new("ip").args(["-n", &host, "-6", "addr", "show", "dev", "wall0"]).output();
            found.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("fe80::"))
        });
    }

    /// Gives the clients one more address, of a network of its own behind the wire.
    pub fn add_client(&self, address: &str) {
        ip(&["-n", &self.clients(), "addr", "add", &format!("{address}/32"), "dev", "out0"]);
        ip(&["-n", &self.host(), "route", "add", &format!("{address}/32"), "dev", "wall0"]);
    }

    /// A namespace behind the guarded host, which forwards to it: as where a server runs in a container.
    pub fn add_container(&self) {
        let (host, clients, container) = (self.host(), self.clients(), self.container());
        ip(&["netns", "add", &container]);
        let peer = ["type", "veth", "peer", "name", "inside0", "netns", &container];
        ip(&[&["-n", &host, "link", "add", "outside0"], &peer[..]].concat());
        for (namespace, device, address) in [
            (&host, "outside0", "10.80.0.1/24"),
            (&host, "outside0", "fd80::1/64"),
            (&container, "inside0", "10.80.0.2/24"),
            (&container, "inside0", "fd80::2/64"),
        ] {
            let no_check: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            ip(&[&["-n", namespace, "addr", "add", address, "dev", device], no_check].concat());
        }
        for (namespace, device) in [(&host, "outside0"), (&container, "inside0"), (&container, "lo")] {
            ip(&["-n", namespace, "link", "set", device, "up"]);
        }
        for (namespace, gateway) in
            [(&container, "10.80.0.1"), (&container, "fd80::1"), (&clients, SERVER), (&clients, SERVER_V6)]
        {
            ip(&["-n", namespace, "route", "add", "default", "via", gateway]);
        }
        self.on_host(|| {
            for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{switch}"), "1").expect("a host can forward");
            }
        });
    }

    /// Runs something in the container.
    pub fn in_container<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.container(), work)
    }

    fn container(&self) -> String {
        format!("{}s", self.name)
    }

    fn host(&self) -> String {
        format!("{}h", self.name)
    }

    fn clients(&self) -> String {
        format!("{}c", self.name)
    }

    /// A folder that goes with the lab.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs something on the guarded host.
    pub fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.host(), work)
    }

    /// Runs something among the clients.
    pub fn among_clients<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.clients(), work)
    }

    /// Starts a server on the guarded host; it ends with the lab.
    pub fn start_server(&mut self, command: &mut Command) {
        self.start_in(&self.host(), command);
    }

    fn start_in(&mut self, namespace: &str, command: &mut Command) {
        let log =
            File::create(self.folder().join(format!("server-{}.log", self.servers.len()))).expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let child = inside(namespace, || command.spawn().expect("the server starts"));
        self.servers.push(child);
    }

    /// A second ngircd, among the clients, that links to the guarded one.
    pub fn start_ngircd_peer(&mut self, opener: Opener) {
        let path = self.folder().join("peer.conf");
        let link = match opener {
            Opener::Host => "\tPassive = yes\n".to_owned(),
            Opener::Peer => format!("\tHost = {SERVER}\n\tBind = 10.77.0.9\n\tPort = 6667\n"),
        };
        let configuration = format!(
            "[Global]\n\tName = peer.example\n\tListen = 10.77.0.9\n\tPorts = 6668\n\tMotdPhrase = hi\n\
             \tServerUID = irc\n\tServerGID = irc\n[Options]\n\tDNS = no\n\tIdent = no\n\tPAM = no\n\
             [Server]\n\tName = lab.example\n\tMyPassword = from-peer\n\tPeerPassword = from-lab\n{link}"
        );
        std::fs::write(&path, configuration).expect("a configuration");
        let mut command = Command::new("/usr/sbin/ngircd");
        self.start_in(&self.clients(), command.args(["-n", "-f"]).arg(&path));
    }

    /// Debian's ngircd with an operator `admin`, password `right`; `false` (said loudly) where it is not installed.
    pub fn start_ngircd(&mut self, test: &str) -> bool {
        self.start_ngircd_linking(test, Opener::Peer)
    }

    /// The same, with the link to its peer opened by one side.
    pub fn start_ngircd_linking(&mut self, test: &str, opener: Opener) -> bool {
        if !Path::new("/usr/sbin/ngircd").exists() {
            crate::skip(test, "needs Debian's ngircd");
            return false;
        }
        let path = self.folder().join("ngircd.conf");
        let link = match opener {
            Opener::Host => "\tHost = 10.77.0.9\n\tPort = 6668\n",
            Opener::Peer => "\tPassive = yes\n",
        };
        let configuration = format!(
            "[Global]\n\tName = lab.example\n\tListen = 0.0.0.0,::\n\tPorts = 6667\n\tMotdPhrase = hi\n\
             \tServerUID = irc\n\tServerGID = irc\n\
             [Limits]\n\tMaxConnectionsIP = 20\n\tConnectRetry = 5\n\
             [Options]\n\tDNS = no\n\tIdent = no\n\tPAM = no\n\
             [Operator]\n\tName = admin\n\tPassword = right\n\
             [Server]\n\tName = peer.example\n\tMyPassword = from-lab\n\tPeerPassword = from-peer\n{link}"
        );
        std::fs::write(&path, configuration).expect("a configuration");
        self.start_server(Command::new("/usr/sbin/ngircd").args(["-n", "-f"]).arg(&path));
        self.await_port(6667);
        true
    }

    /// Debian's ngircd with TLS alone, at port 6697, and the same operator; answers where it writes its log. `None` (said loudly)
    /// where it or openssl is not installed.
    pub fn start_ngircd_with_tls(&mut self, test: &str) -> Option<PathBuf> {
        let (certificate, key) = (self.folder().join("certificate.pem"), self.folder().join("key.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "1",
            "-subj",
            "/CN=lab.example",
        ]);
        let made = openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output();
        if !Path::new("/usr/sbin/ngircd").exists() || !made.is_ok_and(|made| made.status.success()) {
            crate::skip(test, "needs Debian's ngircd and openssl");
            return None;
        }
        let path = self.folder().join("ngircd.conf");
        let configuration = format!(
            "[Global]\n\tName = lab.example\n\tListen = 0.0.0.0\n\tPorts = 6668\n\tMotdPhrase = hi\n\
             [Limits]\n\tMaxConnectionsIP = 50\n\
             [Options]\n\tDNS = no\n\tIdent = no\n\tPAM = no\n\
             [Operator]\n\tName = admin\n\tPassword = right\n\
             [SSL]\n\tCertFile = {}\n\tKeyFile = {}\n\tPorts = 6697\n",
            certificate.display(),
            key.display()
        );
        std::fs::write(&path, configuration).expect("a configuration");
        let log = self.folder().join(format!("server-{}.log", self.servers.len()));
        self.start_server(Command::new("/usr/sbin/ngircd").args(["-n", "-f"]).arg(&path));
        self.await_port(6697);
        Some(log)
    }

    /// Somebody who speaks TLS with the guarded host, from one of the clients' addresses. Ends with the value.
    pub fn connect_tls(&self, client: &str, port: u16) -> TlsClient {
        let (server, client) = (format!("{SERVER}:{port}"), format!("{client}:0"));
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-connect", &server, "-bind", &client]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = self.among_clients(|| command.spawn().expect("openssl starts"));
        let output = child.stdout.take().expect("a pipe");
        TlsClient { child, reader: BufReader::new(output) }
    }

    /// Debian's inspircd; `false` (said loudly) where it is not installed.
    pub fn start_inspircd(&mut self, test: &str) -> bool {
        if !Path::new("/usr/sbin/inspircd").exists() {
            crate::skip(test, "needs Debian's inspircd");
            return false;
        }
        let path = self.folder().join("inspircd.conf");
        let pid = self.folder().join("inspircd.pid");
        let configuration = format!(
            "<server name=\"lab.example\" description=\"lab\" network=\"lab\" id=\"1AB\">\n\
             <admin name=\"a\" nick=\"a\" email=\"a@b.example\">\n\
             <bind address=\"\" port=\"6697\" type=\"clients\">\n\
             <connect name=\"all\" allow=\"*\" timeout=\"20\" threshold=\"1000\" localmax=\"1000\" globalmax=\"1000\" \
             resolvehostnames=\"no\" useident=\"no\">\n\
             <class name=\"all\" commands=\"*\" privs=\"*\">\n\
             <type name=\"NetAdmin\" classes=\"all\" host=\"lab.example\">\n\
             <oper name=\"admin\" password=\"right\" host=\"*@*\" type=\"NetAdmin\">\n\
             <log method=\"file\" type=\"OPER\" level=\"default\" flush=\"1\" target=\"{}\">\n\
             <pid file=\"{}\">\n<path datadir=\"{}\">\n<performance clonesonconnect=\"no\">\n",
            self.folder().join("oper.log").display(),
            pid.display(),
            self.folder().display()
        );
        std::fs::write(&path, configuration).expect("a configuration");
        let mut command = Command::new("/usr/sbin/inspircd");
        command.args(["--nofork", "--runasroot", "--config"]).arg(&path);
        self.start_server(&mut command);
        self.await_port(6697);
        true
    }

    /// fail2ban on inspircd's log of operators: three failures in five minutes. Answers where it writes its bans, a time in seconds and
    /// an address a line; `None` (said loudly) without the program.
    pub fn start_fail2ban(&mut self, test: &str) -> Option<PathBuf> {
        if !Path::new("/usr/bin/fail2ban-server").exists() {
            crate::skip(test, "the comparison needs Debian's fail2ban");
            return None;
        }
        let folder = self.folder().join("fail2ban");
        let (log, record) = (self.folder().join("oper.log"), self.folder().join("fail2ban-bans"));
        for part in ["filter.d", "action.d"] {
            std::fs::create_dir_all(folder.join(part)).expect("a folder");
        }
        for (name, text) in [
            (
                "fail2ban.conf",
                format!(
                    "[Definition]\nloglevel = INFO\nlogtarget = {0}/log\nsocket = {0}/socket\npidfile = {0}/pid\n\
                 syslogsocket = auto\ndbfile = None\ndbpurgeage = 1d\ndbmaxmatches = 10\nallowipv6 = auto\n",
                    folder.display()
                ),
            ),
            (
                "jail.conf",
                format!(
                    "[DEFAULT]\nusedns = no\nignorecommand =\nignoreip =\nignoreself = false\nmaxmatches = 5\nbackend = auto\n\
                 [inspircd]\nenabled = true\nfilter = inspircd\nlogpath = {}\nmaxretry = 3\nfindtime = 300\n\
                 bantime = 600\naction = record\n",
                    log.display()
                ),
            ),
            (
                "filter.d/inspircd.conf",
                "[Definition]\nfailregex = Failed oper attempt by [^@\\s]+@<HOST>\ndatepattern = ^%%a %%b %%d %%Y %%H:%%M:%%S\n".to_owned(),
            ),
            (
                "action.d/record.conf",
                format!(
                    "[Definition]\nactionban = echo \"$(date +%%s.%%N) <ip>\" >> {}\nactionunban =\n",
                    record.display()
                ),
            ),
        ] {
            let path = folder.join(name);
            std::fs::write(path, text).expect("a configuration");
        }
        std::fs::write(&log, "").expect("a log");
        let mut command = Command::new("/usr/bin/fail2ban-server");
        command
            .arg("-f")
            .arg("-c")
            .arg(&folder)
            .arg("-s")
            .arg(folder.join("socket"))
            .arg("-p")
            .arg(folder.join("pid"));
        self.start_server(&mut command);
        let started = folder.join("log");
        eventually("fail2ban", || {
            std::fs::read_to_string(&started).is_ok_and(|said| said.contains("Jail 'inspircd' started"))
        });
        Some(record)
    }

    /// Occupies XDP at the guarded interface with somebody else's program; `false` (said loudly) without `xdp-filter`.
    pub fn block_xdp(&self, test: &str) -> bool {
        let loaded =
            self.on_host(|| Command::new("xdp-filter").args(["load", "-m", "skb", "wall0"]).output());
        match loaded {
            Ok(output) if output.status.success() => true,
            Ok(output) => {
                crate::skip(test, &format!("xdp-filter: {}", String::from_utf8_lossy(&output.stderr)));
                false
            }
            Err(_) => {
                crate::skip(test, "needs Debian's xdp-tools");
                false
            }
        }
    }

    /// Until something listens at a port of the guarded host.
    pub fn await_port(&self, port: u16) {
        eventually(&format!("something at port {port}"), || {
            self.on_host(|| TcpStream::connect((SERVER, port)).is_ok())
        });
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&mut self, arguments: &[&str]) {
        self.start_daemon_finding(None, arguments);
    }

    /// The same with other folders to find programs in.
    pub fn start_daemon_finding(&mut self, path: Option<&str>, arguments: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log()).expect("a log");
        let mut command = Command::new(floodwall());
        command.args(["run", "--interface", "wall0", "--plain"]);
        command.arg("--state").arg(self.folder().join("state"));
        command.arg("--socket").arg(self.socket()).arg("--pins").arg(self.pins());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let child = self.on_host(|| command.spawn().expect("the daemon starts"));
        self.daemon = Some(Daemon { child });
        eventually("the wall", || {
            let ended = self.daemon.as_mut().and_then(|daemon| daemon.child.try_wait().ok().flatten());
            assert!(ended.is_none(), "the daemon ended at once:\n{}", self.read_log());
            self.ask(&["status"]).status.success()
        });
    }

    fn socket(&self) -> PathBuf {
        self.folder().join("control.sock")
    }

    /// Where the gate is pinned.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf").join(&self.name)
    }

    fn log(&self) -> PathBuf {
        self.folder().join("daemon.log")
    }

    /// What the daemon has logged.
    pub fn read_log(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Runs a command of the binary against this daemon.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(floodwall());
        command.args(arguments).arg("--socket").arg(self.socket());
        self.on_host(|| command.output().expect("the command runs"))
    }

    /// Runs a command of the binary that does not talk to a daemon.
    pub fn ask_plain(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(floodwall());
        command.args(arguments);
        self.on_host(|| command.output().expect("the command runs"))
    }

    /// As [`ask`](Self::ask), for an answer that must come, as JSON.
    pub fn answer(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.ask(&[arguments, &["--format", "json"]].concat());
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {error}");
        serde_json::from_str(&out).unwrap_or_else(|problem| panic!("{arguments:?}: {problem}: {out}"))
    }

    /// Subjects of the bans that stand.
    pub fn banned(&self) -> Vec<String> {
        let bans = self.answer(&["bans"]);
        let mut subjects: Vec<String> = bans["bans"]
            .as_array()
            .expect("bans")
            .iter()
            .map(|ban| ban["subject"].as_str().expect("a subject").to_owned())
            .collect();
        subjects.sort();
        subjects
    }

    /// Sends a signal to the daemon and waits until it has ended.
    pub fn stop_daemon(&mut self, signal: Signal) {
        let Some(mut daemon) = self.daemon.take() else { return };
        daemon.signal(signal);
        let status = daemon.child.wait().expect("the daemon ends");
        if signal != Signal::SIGKILL {
            assert!(status.success(), "the daemon ended with {status}:\n{}", self.read_log());
        }
    }

    /// The running daemon.
    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a running daemon")
    }

    /// A connection from one of the clients' addresses.
    pub fn connect(&self, client: &str, port: u16) -> std::io::Result<TcpStream> {
        let server = if client.contains(':') { SERVER_V6 } else { SERVER };
        self.connect_to(client, server, port)
    }

    /// A connection from one of the clients' addresses to any other.
    pub fn connect_to(&self, client: &str, server: &str, port: u16) -> std::io::Result<TcpStream> {
        let client: IpAddr = client.parse().map_err(std::io::Error::other)?;
        let server: IpAddr = server.parse().map_err(std::io::Error::other)?;
        self.among_clients(|| connect_from(client, SocketAddr::new(server, port)))
    }

    /// Somebody on an IRC server, registered.
    pub fn join_irc(&self, client: &str, port: u16, nickname: &str) -> IrcClient {
        let stream = self.connect(client, port).unwrap_or_else(|error| panic!("{nickname}: {error}"));
        let mut client = IrcClient::new(stream);
        client.say(&format!("NICK {nickname}\r\nUSER {nickname} 0 * :{nickname}"));
        client.hear(" 001 ");
        client
    }
}

impl Daemon {
    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).expect("a signal can be sent");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            drop(daemon.child.kill());
            drop(daemon.child.wait());
        }
        if thread::panicking() {
            show_log(&self.read_log());
        }
        drop(Command::new(floodwall()).arg("detach").arg("--pins").arg(self.pins()).output());
        for mut server in self.servers.drain(..) {
            drop(server.kill());
            drop(server.wait());
        }
        // A container is not always there.
        for namespace in [self.host(), self.clients(), self.container()] {
            drop(Command::new("ip").args(["netns", "del", &namespace]).output());
        }
    }
}

/// A line-based client behind TLS.
pub struct TlsClient {
    child: Child,
    reader: BufReader<std::process::ChildStdout>,
}

impl TlsClient {
    /// Sends a line; whether the connection still stands shows in what is heard.
    pub fn say(&mut self, line: &str) {
        if let Some(input) = &mut self.child.stdin {
            drop(input.write_all(format!("{line}\r\n").as_bytes()));
        }
    }

    /// Reads until a line holds `text`; `false` when the connection ends before.
    pub fn try_hear(&mut self, text: &str) -> bool {
        let mut line = String::new();
        while self.reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if line.contains(text) {
                return true;
            }
            if let Some(cookie) = line.strip_prefix("PING ") {
                let answer = format!("PONG {}", cookie.trim_end());
                self.say(&answer);
            }
            line.clear();
        }
        false
    }
}

impl Drop for TlsClient {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A line-based client that answers pings.
pub struct IrcClient {
    reader: BufReader<TcpStream>,
    /// Lines heard so far.
    pub heard: Vec<String>,
}

impl IrcClient {
    /// On an open connection.
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time limit");
        Self { reader: BufReader::new(stream), heard: Vec::new() }
    }

    /// Sends a line.
    pub fn say(&mut self, line: &str) {
        self.try_say(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }

    /// Sends a line, if the connection still stands.
    ///
    /// # Errors
    /// When it does not.
    pub fn try_say(&mut self, line: &str) -> std::io::Result<()> {
        self.reader.get_mut().write_all(format!("{line}\r\n").as_bytes())
    }

    /// Reads until a line holds `text`.
    pub fn hear(&mut self, text: &str) -> String {
        loop {
            let line = self.next_line().unwrap_or_else(|error| panic!("waiting for {text:?}: {error}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Reads until a line holds one of these; `false` when the connection ends before.
    pub fn try_hear(&mut self, texts: &[&str]) -> bool {
        while let Ok(line) = self.next_line() {
            if texts.iter().any(|text| line.contains(text)) {
                return true;
            }
        }
        false
    }

    /// The next line; pings are answered.
    ///
    /// # Errors
    /// When the connection ends.
    pub fn next_line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_owned();
        if let Some(cookie) = line.strip_prefix("PING ") {
            self.try_say(&format!("PONG {cookie}"))?;
        }
        self.heard.push(line.clone());
        Ok(line)
    }

    /// The connection.
    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Waits until the connection ends; answers how long that took.
    pub fn await_end(&mut self) -> Duration {
        let begun = now();
        let mut rest = Vec::new();
        drop(self.reader.read_to_end(&mut rest));
        begun.elapsed()
    }
}

#[expect(clippy::print_stdout, reason = "a test that fails shows what the daemon said")]
fn show_log(log: &str) {
    println!("the daemon's log:\n{log}");
}

/// An instant of the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "tests measure real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Connects from an address of this namespace.
///
/// # Errors
/// Whatever the kernel says.
pub fn connect_from(client: IpAddr, server: SocketAddr) -> std::io::Result<TcpStream> {
    let domain = if client.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(client, 0).into())?;
    socket.connect_timeout(&server.into(), CONNECT_TIMEOUT)?;
    let stream: TcpStream = socket.into();
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Polls until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = now() + PATIENCE;
    while !holds() {
        assert!(now() < deadline, "{what} did not come about in {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs something on a thread of its own inside a network namespace. Sockets and children stay there.
fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(Path::new("/run/netns").join(namespace)).expect("the namespace is there");
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            setns(file, CloneFlags::CLONE_NEWNET).expect("a namespace can be entered");
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The daemon's binary, built if it is not fresh.
pub fn floodwall() -> &'static Path {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    BUILT.get_or_init(|| {
        let own = std::env::current_exe().expect("a test binary");
        // Tests lie one folder deeper than programs do.
        let folder = own.parent().expect("the folder of binaries");
        let folder =
            if folder.ends_with("deps") { folder.parent().expect("a profile's folder") } else { folder };
        let binary = folder.join("floodwall");
        let profile: &[&str] = if folder.ends_with("release") { &["--release"] } else { &[] };
        let cargo = option_env!("CARGO").unwrap_or("cargo");
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--package", "floodwall"])
            .args(profile)
            .arg("--manifest-path")
            .arg(manifest)
            .status()
            .expect("cargo runs");
        assert!(built.success() && binary.exists(), "the daemon cannot be built");
        binary
    })
}
