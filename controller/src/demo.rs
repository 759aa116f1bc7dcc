//! `floodwall demo`: a server, regulars and attackers in network namespaces of their own, first with the wall only
//! observing, then with it in force. Nothing outside those namespaces is touched, and everything goes at the end.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{IsTerminal, stderr},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use serde::de::DeserializeOwned;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{ConnectArguments, DemoArguments, Format},
    client, clock,
    live::{
        answers::{Bans, Status},
        control::Request,
    },
    namespace::Namespace,
    output::{Exit, complain, print, print_json},
    rules,
};
use attack::{Attack, Attacker};
use irc::IrcServer;
use regulars::Experience;
use report::{Attacked, Drops, Logins, Outcome, Phase, Report};
use server::{Ledger, Seen};

mod attack;
mod irc;
mod regulars;
mod report;
mod server;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
/// The guarded interface, and its other end.
const DEVICE: &str = "demo0";
const OTHER_DEVICE: &str = "demo1";
/// After how long a silent client is dropped. Short, because the gate learns for twice as long before it drops anything.
const USER_TIMEOUT: Duration = Duration::from_secs(4);
/// Until everybody has found their place.
const SETTLING: Duration = Duration::from_secs(2);
/// The gate learns for as long.
const QUIET: Duration = Duration::from_secs(9);
const ATTACKED: Duration = Duration::from_secs(20);
/// The end of an attack: who still gets through now is not stopped.
const LAST: Duration = Duration::from_secs(5);
/// Between falling silent and an attack.
const RETURN: Duration = Duration::from_secs(1);
/// What is on its way when everybody falls silent has arrived by then.
const HUSH: Duration = Duration::from_millis(400);
/// Between two looks at whether somebody interrupted.
const STEP: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(15);
/// Both ends of as many connections as the server takes, and room to spare.
const DESCRIPTORS: u64 = 4_096;

/// Runs the command.
pub(crate) fn run(arguments: &DemoArguments) -> Exit {
    if !nix::unistd::geteuid().is_root() {
        complain("floodwall demo makes network namespaces, which takes root: run it with sudo");
        return Exit::NotPermitted;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let progress = progress_bar(arguments.plain);
    let worker = thread::Builder::new().name("demo".into()).spawn({
        let (stop, progress) = (Arc::clone(&stop), progress.clone());
        move || Demo::set_up(stop, progress).and_then(Demo::play)
    });
    let outcome = worker.map_err(anyhow::Error::from).and_then(|worker| wait(worker, &stop));
    progress.finish_and_clear();
    match outcome {
        Ok(report) => match arguments.format {
            Format::Text => print(&report),
            Format::Json => print_json(&report),
        },
        Err(error) => {
            complain(format_args!("the demo ended early, and everything it made is removed: {error:#}"));
            Exit::Failed
        }
    }
}

/// Until the demo is over; a signal ends it early and in good order.
fn wait(worker: JoinHandle<Result<Report>>, stop: &AtomicBool) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        while !worker.is_finished() {
            tokio::select! {
                _ = interrupt.recv() => stop.store(true, Ordering::Relaxed),
                _ = terminate.recv() => stop.store(true, Ordering::Relaxed),
                () = tokio::time::sleep(STEP) => {}
            }
        }
        anyhow::Ok(())
    })?;
    worker.join().map_err(|_panic| anyhow!("the demo's thread failed"))?
}

fn progress_bar(plain: bool) -> ProgressBar {
    let target = if plain || !stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(4)
    };
    let style = ProgressStyle::with_template("{percent}%, {eta} left: {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let total = SETTLING + (QUIET + RETURN + ATTACKED) * 2;
    ProgressBar::with_draw_target(Some(total.as_millis() as u64), target).with_style(style)
}

/// The stage and everybody on it. The order of the fields is the order in which they leave.
struct Demo {
    attack: Option<Attack>,
    wall: Option<Wall>,
    crowd: Crowd,
    ledger: Arc<Ledger>,
    experience: Arc<Experience>,
    attackers: Vec<Arc<Attacker>>,
    irc: Option<IrcServer>,
    clients: Namespace,
    host: Namespace,
    folder: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    progress: ProgressBar,
}

impl Demo {
    fn set_up(stop: Arc<AtomicBool>, progress: ProgressBar) -> Result<Self> {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS.min(hard), hard)
            .context("no room for the demo's connections")?;
        let number = std::process::id();
        let host = Namespace::add(format!("fwdemo{number}h"))?;
        let clients = Namespace::add(format!("fwdemo{number}c"))?;
        host.wire(DEVICE, OTHER_DEVICE, &clients)?;
        host.add_address(&format!("{SERVER}/16"), DEVICE)?;
        host.switch_on(DEVICE)?;
        let folder = tempfile::tempdir().context("no folder for the demo")?;
        write_rules(folder.path())?;
        let irc = IrcServer::start(&host, folder.path())?;
        let attackers = attack::attackers(irc.is_some());
        let mut addresses: Vec<Ipv4Addr> = (0..regulars::PEOPLE).map(regulars::address).collect();
        addresses.dedup();
        addresses.extend((0..irc::PEOPLE).map(irc::address));
        addresses.extend(attackers.iter().flat_map(|attacker| attacker.addresses.iter()));
        for address in addresses {
            clients.add_address(&format!("{address}/16"), OTHER_DEVICE)?;
        }
        clients.switch_on(OTHER_DEVICE)?;
        Ok(Self {
            attack: None,
            wall: None,
            crowd: Crowd::default(),
            ledger: Arc::default(),
            experience: Arc::default(),
            attackers,
            irc,
            clients,
            host,
            folder,
            stop,
            progress,
        })
    }

    fn play(mut self) -> Result<Report> {
        self.open_server()?;
        self.gather_regulars()?;
        self.pause(SETTLING, "twelve regulars arrive")?;
        self.put_up_wall("observing", true)?;
        self.pause(QUIET, "the wall learns, observing")?;
        let observing = self.attacked("attackers; the wall observes")?;
        self.take_down_wall()?;
        self.put_up_wall("enforcing", false)?;
        let quiet = self.measure(|demo| demo.pause(QUIET, "nobody attacks; the wall learns"))?.0;
        let mode = self.ask::<Status>(Request::Status)?.mode;
        let enforcing = self.attacked("attackers; the wall is in force")?;
        self.take_down_wall()?;
        Ok(Report {
            schema: "floodwall.demo/1",
            server: "a stand-in for a TeamTalk server",
            mode,
            irc_server: self.irc.as_ref().map(|_| "ngircd"),
            regulars: regulars::PEOPLE,
            quiet,
            observing,
            enforcing,
        })
    }

    fn open_server(&mut self) -> Result<()> {
        let (ready, is_ready) = sync_channel(1);
        let (ledger, stop) = (Arc::clone(&self.ledger), Arc::clone(&self.crowd.stop));
        self.crowd
            .join(self.host.spawn("server", move || server::serve(USER_TIMEOUT, &ledger, &stop, ready))?);
        is_ready.recv_timeout(PATIENCE).context("the demo's server did not start")
    }

    fn gather_regulars(&mut self) -> Result<()> {
        let (experience, stop) = (Arc::clone(&self.experience), Arc::clone(&self.crowd.stop));
        let chatting = if self.irc.is_some() { irc::PEOPLE } else { 0 };
        let life = move || regulars::live(SERVER, USER_TIMEOUT, chatting, &experience, &stop);
        self.crowd.join(self.clients.spawn("regulars", life)?);
        Ok(())
    }

    /// Lets time pass; an error when somebody interrupts.
    fn pause(&mut self, time: Duration, message: &'static str) -> Result<()> {
        self.progress.set_message(message);
        let until = clock::instant() + time;
        while clock::instant() < until {
            if self.stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            thread::sleep(STEP);
            self.progress.inc(STEP.as_millis() as u64);
        }
        self.crowd.check()
    }

    /// What regulars and server go through meanwhile, and what the server saw of everybody.
    fn measure(
        &mut self,
        meanwhile: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<(Phase, BTreeMap<IpAddr, Seen>)> {
        let before = self.look();
        meanwhile(self)?;
        let after = self.look();
        let seconds = (after.at - before.at).as_secs_f64();
        let voice_sent = after.voice_sent - before.voice_sent;
        let taken = after.regulars.voice - before.regulars.voice;
        let passed_on = after.regulars.voice_to - before.regulars.voice_to;
        let heard = after.voice_heard - before.voice_heard;
        let phase = Phase {
            seconds,
            voice_sent,
            voice_relayed: passed_on,
            voice_lost: voice_sent.saturating_sub(taken) + passed_on.saturating_sub(heard),
            logins: Logins::of(after.logins.get(before.logins.len()..).unwrap_or_default()),
            chat_sent: after.chat_sent - before.chat_sent,
            chat_lost: ((after.chat_sent - before.chat_sent) * u64::from(irc::PEOPLE - 1))
                .saturating_sub(after.chat_heard - before.chat_heard),
            sessions_cut: after.cut - before.cut,
            server_cpu_percent: (after.cpu - before.cpu) as f64 / 1e7 / seconds,
            server_log_lines: after.log_lines - before.log_lines,
        };
        Ok((phase, difference(&before.seen, &after.seen)))
    }

    /// Everything that can be counted, while nobody speaks.
    fn look(&self) -> Look {
        self.experience.hush.store(true, Ordering::Relaxed);
        thread::sleep(HUSH);
        let seen = self.ledger.seen();
        let mut regulars = Seen::default();
        let mut addresses: Vec<Ipv4Addr> = (0..regulars::PEOPLE).map(regulars::address).collect();
        addresses.dedup();
        for address in addresses {
            let one = seen.get(&IpAddr::from(address)).copied().unwrap_or_default();
            regulars.voice += one.voice;
            regulars.voice_to += one.voice_to;
        }
        let logins = self.experience.logins.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let look = Look {
            at: clock::instant(),
            voice_sent: self.experience.voice_sent.load(Ordering::Relaxed),
            voice_heard: self.experience.voice_heard.load(Ordering::Relaxed),
            chat_sent: self.experience.chat_sent.load(Ordering::Relaxed),
            chat_heard: self.experience.chat_heard.load(Ordering::Relaxed),
            cut: self.experience.cut.load(Ordering::Relaxed),
            log_lines: self.ledger.log_lines.load(Ordering::Relaxed),
            cpu: self.ledger.cpu.load(Ordering::Relaxed),
            logins,
            regulars,
            seen,
        };
        self.experience.hush.store(false, Ordering::Relaxed);
        look
    }

    fn attacked(&mut self, message: &'static str) -> Result<Attacked> {
        let (tried_before, answered_before) = (self.counts(Attacker::tried), self.counts(Attacker::answered));
        let (mut at_last, mut answered_at_last) = (BTreeMap::new(), Vec::new());
        let (phase, seen) = self.measure(|demo| {
            // Whoever left when everybody fell silent has come back by then.
            demo.pause(RETURN, message)?;
            demo.attack = Some(Attack::start(&demo.clients, SERVER, &demo.attackers)?);
            demo.pause(ATTACKED - LAST, message)?;
            (at_last, answered_at_last) = (demo.ledger.seen(), demo.counts(Attacker::answered));
            demo.pause(LAST, message)
        })?;
        let at_last = difference(&at_last, &self.ledger.seen());
        // Everybody is called off and gone before the wall is asked.
        self.attack = None;
        let status: Status = self.ask(Request::Status)?;
        let bans: Bans = self.ask(Request::Bans { history: false, limit: 1_000 })?;
        let reached = |seen: &BTreeMap<IpAddr, Seen>, attacker: &Attacker| {
            let of = |address: &Ipv4Addr| seen.get(&IpAddr::from(*address)).copied().unwrap_or_default();
            attacker.addresses.iter().map(of).fold(Seen::default(), |sum, one| sum + one)
        };
        let outcome = |(index, attacker): (usize, &Arc<Attacker>)| {
            let since = |now: u64, before: &[u64]| now - before.get(index).copied().unwrap_or(now);
            Outcome {
                name: attacker.name,
                does: attacker.does,
                addresses: attacker.addresses.len(),
                tried: since(attacker.tried(), &tried_before),
                reached: reached(&seen, attacker).all() + since(attacker.answered(), &answered_before),
                reached_last: reached(&at_last, attacker).all()
                    + since(attacker.answered(), &answered_at_last),
            }
        };
        let drops = status.dropping.into_iter().filter(|drops| drops.packets > 0);
        Ok(Attacked {
            phase,
            voice_overheard: self.attackers.iter().map(|attacker| reached(&seen, attacker).voice_to).sum(),
            attackers: self.attackers.iter().enumerate().map(outcome).collect(),
            drops: drops
                .map(|drops| Drops { service: drops.service, reason: drops.reason, packets: drops.packets })
                .collect(),
            bans: bans.bans,
        })
    }

    fn counts(&self, count: fn(&Attacker) -> u64) -> Vec<u64> {
        self.attackers.iter().map(|attacker| count(attacker)).collect()
    }

    fn put_up_wall(&mut self, name: &str, observe: bool) -> Result<()> {
        let wall = Wall::start(&self.host, self.folder.path(), name, observe)?;
        self.wall = Some(wall);
        let until = clock::instant() + PATIENCE;
        while self.wall.as_mut().is_some_and(|wall| !wall.socket.exists()) {
            if let Some(wall) = &mut self.wall {
                wall.check()?;
            }
            if clock::instant() > until {
                bail!("the wall did not come up");
            }
            thread::sleep(STEP);
        }
        // It answers once everything is attached.
        self.ask::<Status>(Request::Status).map(drop)
    }

    fn take_down_wall(&mut self) -> Result<()> {
        self.wall.take().map_or(Ok(()), Wall::stop)
    }

    fn ask<T: DeserializeOwned>(&mut self, request: Request) -> Result<T> {
        let wall = self.wall.as_mut().context("there is no wall")?;
        wall.check()?;
        let connect = ConnectArguments { format: Format::Json, socket: Some(wall.socket.clone()) };
        let value =
            client::exchange(&connect, request).map_err(|_said| anyhow!("the wall does not answer"))?;
        Ok(serde_json::from_value(value)?)
    }
}

/// Everything counted, at one moment.
struct Look {
    at: Instant,
    voice_sent: u64,
    voice_heard: u64,
    chat_sent: u64,
    chat_heard: u64,
    cut: u64,
    log_lines: u64,
    cpu: u64,
    logins: Vec<Option<Duration>>,
    /// What the server saw of all regulars.
    regulars: Seen,
    seen: BTreeMap<IpAddr, Seen>,
}

fn difference(before: &BTreeMap<IpAddr, Seen>, after: &BTreeMap<IpAddr, Seen>) -> BTreeMap<IpAddr, Seen> {
    let since = |(address, seen): (&IpAddr, &Seen)| {
        (*address, *seen - before.get(address).copied().unwrap_or_default())
    };
    after.iter().map(since).collect()
}

/// The shipped rules with a user time-out that a demo has the time for.
fn write_rules(folder: &Path) -> Result<()> {
    let rules_folder = folder.join("rules");
    std::fs::create_dir(&rules_folder)?;
    for (path, source) in rules::SHIPPED {
        let name = Path::new(path).file_name().context("a rule file without a name")?;
        let timeout = format!("user-timeout = \"{}s\"", USER_TIMEOUT.as_secs());
        let text: String = source
            .lines()
            .map(|line| if line.starts_with("user-timeout") { timeout.as_str() } else { line })
            .flat_map(|line| [line, "\n"])
            .collect();
        std::fs::write(rules_folder.join(name), text)?;
    }
    Ok(())
}

/// Server and regulars, each on a thread.
#[derive(Default)]
struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Crowd {
    fn join(&mut self, thread: JoinHandle<Result<()>>) {
        self.threads.push(thread);
    }

    /// An error when somebody has left early.
    fn check(&mut self) -> Result<()> {
        match self.threads.iter().position(JoinHandle::is_finished) {
            None => Ok(()),
            Some(index) => match self.threads.swap_remove(index).join() {
                Ok(outcome) => outcome.and_then(|()| bail!("server or regulars stopped early")),
                Err(_) => bail!("server or regulars failed"),
            },
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if !matches!(thread.join(), Ok(Ok(()))) {
                complain("server or regulars did not end in good order");
            }
        }
    }
}

/// A running `floodwall run`.
struct Wall {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

impl Wall {
    fn start(host: &Namespace, folder: &Path, name: &str, observe: bool) -> Result<Self> {
        let own = folder.join(name);
        std::fs::create_dir(&own)?;
        let (log, socket) = (own.join("log"), own.join("control.sock"));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["run", "--interface", DEVICE, "--plain"]);
        command.arg("--service").arg(format!("teamtalk={}", server::PORT));
        command.arg("--service").arg(format!("irc={}", irc::PORT));
        command.arg("--rules").arg(folder.join("rules")).arg("--state").arg(own.join("state"));
        command.arg("--config").arg(own.join("floodwall.toml"));
        command.arg("--socket").arg(&socket).arg("--pins").arg(pins());
        if observe {
            command.arg("--observe");
        }
        std::fs::write(own.join("floodwall.toml"), "")?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let child = host.run(|| command.spawn())?.context("cannot start the wall")?;
        Ok(Self { child, log, socket })
    }

    /// An error with its last words if it has ended.
    fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(_) => bail!("the wall ended: {}", std::fs::read_to_string(&self.log)?.trim_end()),
        }
    }

    /// Interrupts it, as Ctrl-C would: it takes the gate away.
    fn stop(mut self) -> Result<()> {
        self.check()?;
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the wall ended badly: {}", std::fs::read_to_string(&self.log)?.trim_end());
        }
        Ok(())
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        // One that was stopped in good order has left nothing to do.
        if let Ok(None) = self.child.try_wait() {
            drop(self.child.kill());
            drop(self.child.wait());
            if let Err(error) = floodwall_kernel::gate::detach(&pins()) {
                complain(format_args!("the demo left something behind: {error:#}"));
            }
        }
    }
}

/// Where the demo's gate is pinned: not where a wall of the host's is.
fn pins() -> PathBuf {
    PathBuf::from(format!("/sys/fs/bpf/floodwall-demo-{}", std::process::id()))
}
