//! `floodwall run`: puts the wall up, keeps it going, takes it down.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use floodwall_engine::{Span, command::Prefix};
use floodwall_kernel::{Clock, Gate, KernelTables, Mode, Ring, gate, priority};
use floodwall_wire::{
    Address,
    frame::{self, Fragment},
    mirror::Record,
    tables::{LIST_NODES_MIN, MAIN_LOCALS, PORTS, Port, ProofKey, SERVICES_MAX, USERS_PER_SERVICE, names},
    window::SliceWindow,
};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    addresses,
    answers::{self, STEPS_IN_KERNEL},
    clock::WallClock,
    control::{self, Asked, Refusal, Request},
    copies::{Copies, Frame},
    cut::Cutter,
    follow::Batch,
    incident::Incidents,
    ledger::{LedgerWriter, Remembered},
    logs::Logs,
    metrics::{self, Page},
    mirror::Assembler,
    observed::{Effect, Observed},
    people::People,
    rates::{Rates, SAMPLE_TICKS, dropped_by_gate},
    sockets,
    wall::{Parts, Seen, Settings, Wall, operate::to_value},
    watching::Watchers,
};
use crate::{
    cli::{DEFAULT_STATE, RunArguments, WantedMode},
    clock::{boot_id, utc_now},
    configuration::{self, Configuration, ConfigurationError, LogEntry},
    enforce::{
        kernel::KernelStore,
        nftables,
        prefixes::list_nodes,
        tables::{Store, TablesEnforcer},
    },
    guard::Guard,
    lists::Lists,
    notify::Notifier,
    output::{Exit, complain},
    rules::{self, RulesError},
};

/// Records taken from the ring before anybody else gets a turn.
const RECORDS_PER_TURN: usize = 1_024;
/// Requests waiting for the wall.
const REQUESTS_MAX: usize = 64;
pub(super) const TICK: Duration = Duration::from_secs(1);
/// Ticks between two comparisons of the tables with what is wanted.
const RECONCILE_TICKS: u64 = 30;

/// Everything the command line and the configuration say together.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) arguments: RunArguments,
    pub(crate) guard: Guard,
    pub(crate) interfaces: Vec<String>,
    pub(crate) mode: WantedMode,
    pub(crate) observe: bool,
    pub(crate) pins: PathBuf,
    pub(crate) state_folder: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) group: String,
    /// How long it is kept who belongs together; not at all unless the configuration says so.
    pub(crate) people: Option<Span>,
    pub(crate) logs: Vec<LogEntry>,
    pub(crate) lists: Arc<Lists>,
}

/// Runs the command.
pub(crate) fn run(arguments: &RunArguments) -> Exit {
    start_tracing(arguments);
    let plan = match Plan::read(arguments) {
        Ok(plan) => plan,
        Err(mistakes) => {
            complain(mistakes);
            return Exit::BadInput;
        }
    };
    if !nix::unistd::geteuid().is_root() {
        complain(
            "floodwall run takes root, or the capabilities CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_PERFMON: \
             start it with sudo or as the service",
        );
        return Exit::NotPermitted;
    }
    // What is kept names people: nobody else on this host is to read it.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    match guard_host(plan) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(format_args!("floodwall does not run: {error:#}"));
            Exit::Failed
        }
    }
}

fn start_tracing(arguments: &RunArguments) {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_env("FLOODWALL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // The journal keeps time itself.
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let ansi = std::io::stderr().is_terminal() && !arguments.plain && std::env::var_os("NO_COLOR").is_none();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    let started = if under_systemd { builder.without_time().try_init() } else { builder.try_init() };
    if let Err(error) = started {
        complain(format_args!("nothing will be logged: {error}"));
    }
}

impl Plan {
    /// Reads configuration and rules; answers every mistake at once.
    pub(crate) fn read(arguments: &RunArguments) -> Result<Self, String> {
        let configuration = read_configuration(arguments)?;
        let guard = read_guard(arguments, &configuration)?;
        let interfaces = if arguments.interfaces.is_empty() {
            configuration.interfaces.clone()
        } else {
            arguments.interfaces.clone()
        };
        let mut mistakes: Vec<String> =
            interfaces.iter().filter_map(|name| addresses::find(name).err()).collect();
        if interfaces.is_empty() {
            let names: Vec<String> = addresses::interfaces().into_iter().map(|found| found.name).collect();
            mistakes.push(format!("no interface is named: add --interface, one of {}", names.join(", ")));
        }
        let lists = Lists::read(&configuration.lists).map_err(|found| lines(&found));
        let lists = lists.map_err(|found| mistakes.push(found)).unwrap_or_default();
        if !mistakes.is_empty() {
            return Err(mistakes.join("\n"));
        }
        let mode = arguments.mode.or(configuration.mode).unwrap_or_default();
        let or = |given: &Option<PathBuf>, configured: &Option<PathBuf>, usual: &str| {
            given.clone().or_else(|| configured.clone()).unwrap_or_else(|| PathBuf::from(usual))
        };
        Ok(Self {
            guard,
            interfaces,
            mode,
            observe: arguments.observe || configuration.observe || mode == WantedMode::Observe,
            pins: or(&arguments.pins, &configuration.pins, gate::DEFAULT_PINS),
            state_folder: or(&arguments.state, &configuration.state, DEFAULT_STATE),
            socket: or(&arguments.socket, &configuration.socket, control::DEFAULT_SOCKET),
            metrics: arguments.metrics.or(configuration.metrics),
            group: configuration.group.clone().unwrap_or_else(|| "floodwall".to_owned()),
            people: configuration.people,
            logs: configuration.logs.clone(),
            lists: Arc::new(lists),
            arguments: arguments.clone(),
        })
    }

    /// Nodes that the gate must have room for: those of the lists, half as many for what a reload may bring, and some for
    /// the addresses that are spared.
    fn list_nodes(&self) -> u32 {
        let nodes = list_nodes(&self.lists);
        u32::try_from(nodes + nodes / 2).unwrap_or(u32::MAX).saturating_add(LIST_NODES_MIN / 2)
    }

    /// The plan as the files have it now, and who is told things from now on.
    pub(super) fn read_again(&self) -> Result<(Self, Notifier), Refusal> {
        let plan = Self::read(&self.arguments).map_err(Refusal::bad_input)?;
        let names = |guard: &Guard| -> Vec<&'static str> {
            guard.services.iter().map(|service| service.name).collect()
        };
        let is_other = plan.interfaces != self.interfaces
            || plan.guard.links() != self.guard.links()
            || plan.logs != self.logs
            || names(&plan.guard) != names(&self.guard);
        if is_other {
            return Err(Refusal::bad_input(
                "other interfaces, services, links or logs take a restart; the gate stays in force meanwhile",
            ));
        }
        let notifier = Notifier::start(&plan.guard.notify, &plan.guard.notified())
            .map_err(|error| Refusal::bad_input(format!("{error:#}")))?;
        Ok((plan, notifier))
    }

    /// Which lists differ from another plan's, a line each.
    pub(super) fn list_differences(&self, before: &Self) -> Vec<String> {
        let (all, old) = (self.lists.all(), before.lists.all());
        let has = |lists: &[crate::lists::List], path| lists.iter().any(|list| list.path == path);
        let mut lines = Vec::new();
        for list in all {
            let shown = crate::output::shown(&list.path);
            let (action, count) = (list.treatment.as_str(), list.prefixes);
            match old.iter().find(|one| one.path == list.path) {
                Some(one) if one == list && self.lists == before.lists => {}
                Some(_) => lines.push(format!("{shown}: read again, {action}, {count} prefixes")),
                None => lines.push(format!("{shown}: new, {action}, {count} prefixes")),
            }
        }
        let gone = old.iter().filter(|list| !has(all, list.path.clone()));
        lines.extend(gone.map(|list| format!("{}: gone", crate::output::shown(&list.path))));
        lines
    }

    /// Who belongs together, if that is to be kept.
    pub(crate) fn open_people(&self) -> Result<Option<People>> {
        self.people.map(|keep| People::open(&self.state_folder, keep)).transpose()
    }
}

fn read_configuration(arguments: &RunArguments) -> Result<Configuration, String> {
    let usual = PathBuf::from(configuration::DEFAULT_PATH);
    let path = match &arguments.config {
        Some(path) => path.clone(),
        None if usual.exists() => usual,
        None => return Ok(Configuration::default()),
    };
    configuration::load(&path).map_err(|error| match error {
        ConfigurationError::Unreadable(reason) => reason,
        ConfigurationError::Mistakes(found) => lines(&found),
    })
}

fn read_guard(arguments: &RunArguments, configuration: &Configuration) -> Result<Guard, String> {
    let usual = PathBuf::from(rules::DEFAULT_FOLDER);
    let folder = arguments
        .rules
        .clone()
        .or_else(|| configuration.rules.clone())
        .or_else(|| usual.is_dir().then_some(usual));
    let rules = rules::load(folder.as_deref()).map_err(|error| match error {
        RulesError::Unreadable(reason) => reason,
        RulesError::Mistakes(found) => lines(&found),
    })?;
    Guard::new(rules, configuration, &arguments.services)
}

fn lines(items: &[impl ToString]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Puts the wall up and stays until told to stop.
fn guard_host(plan: Plan) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (requests, asked) = mpsc::channel(REQUESTS_MAX);
    let watchers = Arc::new(Watchers::new());
    let enforcing = metrics::enforcing_histogram()?;
    // Whatever may fail fails before anything is attached.
    let listener = {
        let _guard = runtime.enter();
        control::listen(&plan.socket, &plan.group)?
    };
    let page_listener = plan.metrics.map(|address| runtime.block_on(metrics::listen(address))).transpose()?;
    let mut home = Home::put_up(&plan, &watchers, &enforcing)?;
    let (tables, has_table) = (home.tables(), home.has_nftables());
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = Arc::clone(&stop);
    let (ended, end) = tokio::sync::oneshot::channel();
    let worker = thread::Builder::new().name("wall".into()).spawn(move || {
        if let Err(error) = priority::raise() {
            tracing::warn!(%error, "Bans may come late while the processors are busy: the wall cannot go before others");
        }
        let outcome = home.work(asked, &stopping);
        // The other side has stopped listening only if it was told to stop before.
        ended.send(()).unwrap_or_default();
        outcome
    })?;
    tracing::info!(interfaces = plan.interfaces.join(","), observe = plan.observe, "The wall is up");
    let keep = runtime.block_on(async {
        tokio::spawn(control::serve(listener, requests.clone(), watchers));
        if let Some(listener) = page_listener {
            let page = Page { wall: requests.clone(), tables, enforcing };
            tokio::spawn(async move {
                if let Err(error) = metrics::serve(listener, page).await {
                    tracing::error!(error = format!("{error:#}"), "The metrics page ended");
                }
            });
        }
        wait(&requests, end, plan.arguments.keep).await
    })?;
    stop.store(true, Ordering::Relaxed);
    drop(requests);
    let outcome = worker.join().map_err(|_panic| anyhow!("the wall's thread failed"))?;
    // A socket that is gone already was somebody else's to remove.
    drop(std::fs::remove_file(&plan.socket));
    let reverted = outcome?;
    if keep && !reverted {
        tracing::info!("The controller stops; the gate stays");
        return Ok(());
    }
    let table = if has_table { nftables::remove() } else { Ok(false) };
    let removed = gate::detach(&plan.pins)?;
    tracing::info!(interfaces = removed.join(","), nftables = table?, "The wall is down");
    Ok(())
}

/// Until a signal comes or the wall ends by itself; answers whether the gate stays.
async fn wait(
    requests: &mpsc::Sender<Asked>,
    mut end: tokio::sync::oneshot::Receiver<()>,
    keep: bool,
) -> Result<bool> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(false),
            _ = terminate.recv() => return Ok(keep),
            _ = hangup.recv() => match control::ask(requests, Request::Reload, None).await {
                Ok(_) => {}
                Err(refusal) => tracing::error!(reason = refusal.message, "Nothing was reloaded"),
            },
            _ = &mut end => return Ok(keep),
        }
    }
}

/// Where the gate is: in the kernel, or over copies of packets where that cannot be.
enum Home {
    Kernel(Box<Live>),
    Observed(Box<Observed>),
}

impl Home {
    fn put_up(plan: &Plan, watchers: &Arc<Watchers>, enforcing: &prometheus::Histogram) -> Result<Self> {
        let over_copies = |effect: Effect, why: Vec<String>| {
            let observed = Observed::put_up(plan, effect, why, Arc::clone(watchers), enforcing.clone())?;
            Ok(Self::Observed(Box::new(observed)))
        };
        match plan.mode {
            WantedMode::Pcap => {
                return over_copies(Effect::Nothing, vec!["asked for: --mode pcap".to_owned()]);
            }
            WantedMode::Nftables => {
                return over_copies(Effect::Nftables, vec!["asked for: --mode nftables".to_owned()]);
            }
            WantedMode::Auto | WantedMode::Native | WantedMode::Generic | WantedMode::Observe => {}
        }
        match Live::put_up(plan, Arc::clone(watchers), enforcing.clone()) {
            Ok(live) => Ok(Self::Kernel(Box::new(live))),
            // Whoever asked for a mode, or whose gate is somebody else's, is not served by another.
            Err(error) if plan.mode == WantedMode::Auto && error.is::<CannotAttach>() => {
                let why = format!("{error:#}");
                tracing::warn!(why, "XDP cannot be attached");
                if plan.observe {
                    return over_copies(Effect::Nothing, vec![why]);
                }
                over_copies(Effect::Nftables, vec![why.clone()]).or_else(|error| {
                    let why_not_nftables = format!("nftables: {error:#}");
                    tracing::warn!(why = why_not_nftables, "The wall only observes");
                    over_copies(Effect::Nothing, vec![why, why_not_nftables])
                })
            }
            Err(error) => Err(error),
        }
    }

    fn tables(&self) -> Option<Arc<KernelTables>> {
        match self {
            Self::Kernel(live) => Some(Arc::clone(&live.tables)),
            Self::Observed(_) => None,
        }
    }

    /// Whether a table of nftables is in force.
    const fn has_nftables(&self) -> bool {
        match self {
            Self::Kernel(_) => false,
            Self::Observed(observed) => observed.has_firewall(),
        }
    }

    /// Until told to stop. Answers whether everything is to be taken back for want of confirmation.
    fn work(&mut self, asked: mpsc::Receiver<Asked>, stop: &AtomicBool) -> Result<bool> {
        match self {
            Self::Kernel(live) => live.work(asked, stop),
            Self::Observed(observed) => observed.work(asked, stop),
        }
    }
}

/// XDP is not to be had at an interface.
#[derive(Debug)]
struct CannotAttach(String);

impl std::fmt::Display for CannotAttach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CannotAttach {}

/// The gate in the kernel and the wall behind it.
struct Live {
    plan: Plan,
    gate: Gate,
    tables: Arc<KernelTables>,
    tick: Clock,
    clock: Arc<WallClock>,
    ring: Option<Ring>,
    /// Links at ports that the gate does not look at.
    server_links: Option<Copies>,
    logs: Option<Logs>,
    wall: Wall<KernelStore>,
    assembler: Assembler,
    generation: u32,
    ticks: u64,
    rates: Rates,
    links: Vec<answers::Interface>,
}

impl Live {
    /// Loads, fills the tables, attaches. Until the last step nothing is judged by the new tables, or by those an
    /// earlier controller left it is judged as before.
    fn put_up(plan: &Plan, watchers: Arc<Watchers>, enforcing: prometheus::Histogram) -> Result<Self> {
        let gate = Gate::open(&plan.pins, plan.list_nodes())?;
        let tables = Arc::new(KernelTables::open(gate.object())?);
        let tick = Clock::calibrate(gate.object())?;
        let clock = Arc::new(WallClock::new(tick.now(gate.object())?, utc_now(), boot_id()));
        tables.seed_sources(random_seed()?).context("failed to write the gate's status")?;
        let (ledger, remembered) = LedgerWriter::open(&plan.state_folder, clock.to_utc(clock.now()))?;
        let store = KernelStore::new(Arc::clone(&tables), Arc::clone(&clock))?;
        let status = *store.status();
        let adopted = gate.found().tables && !gate.found().interfaces.is_empty();
        let seed = if adopted && status.seed != 0 { status.seed } else { random_seed()? };
        let confirm_by = plan.arguments.confirm.map(|within| clock.now() + within);
        let settings = Settings {
            observe: plan.observe,
            state_folder: plan.state_folder.clone(),
            mode: String::new(),
            why: Vec::new(),
            interfaces: Vec::new(),
            confirm_by,
            seed,
        };
        let cutter = if plan.observe { None } else { Some(Cutter::start()?) };
        let parts = Parts {
            guard: plan.guard.clone(),
            store,
            clock: Arc::clone(&clock),
            ledger,
            people: plan.open_people()?,
            incidents: Incidents::open(&plan.state_folder)?,
            cutter,
            watchers,
            settings,
            enforcing,
        };
        let wall = Wall::new(parts, &remembered)?;
        let ring = Ring::map(gate.object().map(names::MIRROR)?).context("failed to map the mirror")?;
        let mut live = Self {
            plan: plan.clone(),
            tables,
            tick,
            clock,
            ring: Some(ring),
            server_links: None,
            logs: None,
            wall,
            assembler: Assembler::default(),
            generation: status.generation,
            ticks: 0,
            rates: Rates::default(),
            links: Vec::new(),
            gate,
        };
        live.adopt_tables(&remembered)?;
        live.wall.set_lists(Lists::clone(&plan.lists))?;
        live.begin(adopted)?;
        live.server_links =
            plan.guard.link_filter().map(|filter| Copies::start(&plan.interfaces, &filter)).transpose()?;
        live.attach()?;
        // Of an earlier controller, for which XDP was not to be had. Its bans are in the ledger, and so in the gate now.
        match nftables::remove() {
            Ok(true) => live
                .wall
                .note_repair("the table inet floodwall of nftables was removed: the gate is in force"),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "nftables cannot be asked for a table of ours")
            }
        }
        live.logs = live.wall.follow_logs(&plan.logs)?;
        Ok(live)
    }

    /// Takes over what the gate holds and forgets what only a living controller can vouch for.
    fn adopt_tables(&mut self, remembered: &Remembered) -> Result<()> {
        let held = self.gate.found().tables;
        if !held {
            return Ok(());
        }
        let found = self.tables.prefixes()?;
        for (key, prefix) in &found {
            let subject = prefix_of(*key);
            if !subject.is_host() && prefix.banned_until > self.clock.gate_now() {
                self.wall.enforcer.adopt_prefix(subject, prefix.banned_until);
                self.wall.adopt_ban(subject, prefix.banned_until);
            }
        }
        for key in self.tables.source_keys() {
            // An IPv6 key is a /64: its own ban is a prefix's and stands in the table of prefixes.
            if let (Some(address), Some(source)) = (key.as_v4(), self.tables.source(key)) {
                self.adopt_entry(address, &source);
            }
        }
        for address in self.tables.host_keys()? {
            if let Some(source) = self.tables.host(&address)? {
                self.adopt_entry(address, &source);
            }
        }
        for (key, prefix) in &found {
            self.wall.enforcer.put_right(prefix_of(*key), prefix)?;
        }
        // Lists may be others now; those before hold until then.
        self.wall.set_lists(Lists::clone(&self.plan.lists))?;
        // What nobody wants any more, and what an update in progress left behind.
        let repairs = self.wall.enforcer.reconcile(&self.tables.source_keys(), &self.tables.host_keys()?)?;
        let count = repairs.written + repairs.removed;
        if count > 0 {
            self.wall.note_repair(format!("{count} table entries were put right"));
        }
        for service in 0..SERVICES_MAX as u8 {
            for user_id in 0..USERS_PER_SERVICE as u16 {
                if self.tables.user(service, user_id)?.owner != Address::default() {
                    self.tables.set_user(service, user_id, None)?;
                }
            }
        }
        self.tables.clear_all_opaque()?;
        for version in &self.gate.found().other_layouts {
            self.wall.note_repair(format!("tables of layout {version} were replaced"));
        }
        tracing::info!(bans = remembered.bans.len(), "Adopted what an earlier controller left");
        Ok(())
    }

    fn adopt_entry(&mut self, address: Address, source: &floodwall_wire::tables::Source) {
        self.wall.enforcer.adopt(address, source);
        let own_ban = source.flags & floodwall_wire::tables::source_flags::PREFIX_BAN == 0;
        if own_ban && source.banned_until > self.clock.gate_now() {
            self.wall.adopt_ban(Prefix::host(address), source.banned_until);
        }
    }

    /// Rules, addresses, sessions, status; in this order, so that the first packet finds everything.
    fn begin(&mut self, adopted: bool) -> Result<()> {
        self.install_rules()?;
        self.refresh_locals()?;
        self.seed_sessions()?;
        let learning = if adopted { Span::ZERO } else { self.plan.guard.learning_time() };
        self.wall.begin(learning)?;
        self.wall.handle_tick(false);
        Ok(())
    }

    /// Writes ports and limits into the generation that is not in force, then puts it in force with one write.
    fn install_rules(&mut self) -> Result<()> {
        let next = (self.generation + 1) % 2;
        let ports: Box<[Port; PORTS]> = self.plan.guard.port_block();
        self.tables.set_ports(next, &ports).context("failed to write the table of ports")?;
        for (number, settings) in self.plan.guard.all_settings().iter().enumerate() {
            let number = u8::try_from(number).unwrap_or(u8::MAX);
            self.tables.set_settings(next, number, settings).context("failed to write the limits")?;
        }
        let (tick, seed) = (self.tick.tick(), self.wall.settings.seed);
        self.wall.enforcer.store.change_status(&mut |status| {
            status.generation = next;
            status.tick = tick;
            status.seed = seed;
        })?;
        self.generation = next;
        Ok(())
    }

    /// Services are guarded at the addresses the configuration lists, or at every one of this host.
    fn refresh_locals(&mut self) -> Result<()> {
        let listed = self.plan.guard.listed_addresses();
        let wanted = if listed.is_empty() { self.wall.local().to_vec() } else { listed };
        let held = self.tables.locals()?;
        for address in wanted.iter().filter(|address| !held.contains(address)) {
            self.tables.insert_local(*address)?;
        }
        for address in held.iter().filter(|address| !wanted.contains(address)) {
            self.tables.remove_local(*address)?;
        }
        let mut main = [Address::default(); MAIN_LOCALS];
        let outside = wanted.iter().filter(|address| !address.to_ip().is_loopback());
        for (slot, address) in main.iter_mut().zip(outside) {
            *slot = *address;
        }
        self.wall.enforcer.store.change_status(&mut |status| status.main_locals = main)
    }

    /// Whoever is connected already holds a session: seen in the kernel's socket tables.
    fn seed_sessions(&self) -> Result<()> {
        let now = self.clock.gate_now();
        let mut seeded = 0;
        for connected in sockets::connected()?.iter().filter(|one| one.state == sockets::ESTABLISHED) {
            let Some((service, lasts)) = self.plan.guard.session_of(connected.local.port()) else { continue };
            let key = ProofKey { address: Address::from(connected.remote.ip()), service: u64::from(service) };
            self.tables.prove(key, now.saturating_add(lasts.as_nanos()))?;
            seeded += 1;
        }
        tracing::info!(sessions = seeded, "Sessions that are open already are taken for granted");
        Ok(())
    }

    fn attach(&mut self) -> Result<()> {
        let wanted = match self.plan.mode {
            WantedMode::Auto | WantedMode::Observe | WantedMode::Nftables | WantedMode::Pcap => None,
            WantedMode::Native => Some(Mode::Native),
            WantedMode::Generic => Some(Mode::Generic),
        };
        let mut done: Vec<String> = Vec::new();
        for interface in &self.plan.interfaces {
            match self.gate.attach(interface, wanted) {
                Ok(attachment) => {
                    let mode = attachment.mode.as_str();
                    tracing::info!(interface, mode, adopted = attachment.adopted, "Attached");
                    if let Some(why) = &attachment.why_not_native {
                        self.wall.settings.why.push(format!("{interface} is not native: {why}"));
                    }
                    self.links.push(answers::Interface {
                        name: interface.clone(),
                        mode: mode.to_owned(),
                        adopted: attachment.adopted,
                    });
                    done.push(interface.clone());
                }
                Err(error) => {
                    // What was attached by an earlier controller stays as it was; what is new goes.
                    if !self.gate.found().tables {
                        gate::detach(&self.plan.pins)?;
                    }
                    return Err(CannotAttach(format!("{error:#}")).into());
                }
            }
        }
        for removed in self.gate.settle(&self.plan.interfaces)? {
            self.wall.note_repair(format!("removed {removed}"));
        }
        let worst = self.links.iter().any(|link| link.mode == Mode::Generic.as_str());
        self.wall.settings.mode = if worst { Mode::Generic } else { Mode::Native }.as_str().to_owned();
        self.wall.settings.interfaces = self.links.clone();
        Ok(())
    }

    /// Until told to stop. Answers whether everything is to be taken back for want of confirmation.
    fn work(&mut self, mut asked: mpsc::Receiver<Asked>, stop: &AtomicBool) -> Result<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ring = self.ring.take().context("the mirror is read already")?;
        runtime.block_on(async {
            #[expect(deprecated, reason = "its replacement is unsafe, and the ring keeps its descriptor")]
            let mut ring = AsyncFd::new(ring)?;
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !stop.load(Ordering::Relaxed) {
                // Whatever woke us: time and operators come first, and neither can keep packets waiting for long.
                tokio::select! {
                    biased;
                    _ = ticks.tick() => self.handle_tick()?,
                    request = asked.recv() => match request {
                        Some(request) => self.answer(request),
                        None => return Ok(false),
                    },
                    guard = ring.readable_mut() => {
                        let mut guard = guard?;
                        if self.read(guard.get_inner_mut()) < RECORDS_PER_TURN {
                            guard.clear_ready();
                        }
                    }
                    Some(frame) = next_of(&mut self.server_links) => self.handle_link(&frame),
                    Some(batch) = next_lines(&mut self.logs) => {
                        if let Some(logs) = &mut self.logs {
                            self.wall.handle_log(logs, &batch);
                        }
                    }
                }
                if self.wall.must_revert() {
                    tracing::warn!("Nobody confirmed the wall; everything is taken back");
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Hands what is in the mirror to the wall; answers how many records.
    fn read(&mut self, ring: &mut Ring) -> usize {
        let (assembler, wall, clock) = (&mut self.assembler, &mut self.wall, &self.clock);
        ring.drain(RECORDS_PER_TURN, |record, bytes| {
            assembler.take(record, bytes, |record, frame| hand_over(wall, clock, record, frame));
        })
    }

    fn handle_link(&mut self, frame: &Frame) {
        let window = SliceWindow::new(&frame.bytes);
        if let Ok(headers) = frame::walk(&window) {
            self.wall.handle_link(self.clock.now(), &frame.bytes, &headers);
        }
    }

    fn handle_tick(&mut self) -> Result<()> {
        let was_set = self.clock.update(self.tick.now(self.gate.object())?, utc_now());
        self.wall.handle_tick(was_set);
        self.wall.note_logs(self.logs.as_mut());
        self.ticks += 1;
        if self.ticks.is_multiple_of(SAMPLE_TICKS) {
            let dropped = dropped_by_gate(&self.tables, self.plan.guard.services.len())?;
            self.rates.sample(dropped, &self.plan.interfaces);
            self.refresh_locals()?;
        }
        if self.ticks.is_multiple_of(RECONCILE_TICKS) {
            let repairs =
                self.wall.enforcer.reconcile(&self.tables.source_keys(), &self.tables.host_keys()?)?;
            let count = repairs.written + repairs.removed;
            if count > 0 {
                tracing::warn!(count, "Somebody else changed the gate's tables; they were put right");
                self.wall.note_repair(format!("{count} table entries were put right"));
            }
        }
        Ok(())
    }

    fn answer(&mut self, asked: Asked) {
        self.wall.remember_terminal(asked.from.as_deref());
        asked.answer(|request| {
            if matches!(request, Request::Reload) {
                self.reload()
            } else if matches!(request, Request::Status) {
                self.status()
            } else {
                self.wall.handle_request(request)
            }
        });
    }

    fn status(&self) -> Result<serde_json::Value, Refusal> {
        let mut status = self.wall.status();
        status.steps = answers::steps(&STEPS_IN_KERNEL, status.evaluating);
        status.dropping = self.rates.dropping(&|service| self.wall.service_name(service));
        status.full_links = self.rates.full_links();
        status.traffic = self.traffic().map_err(|error| Refusal::failed(error.to_string()))?;
        let prefixes = self.wall.enforcer.prefix_count() as u64;
        let fills = self.tables.fills(prefixes).map_err(|error| Refusal::failed(error.to_string()))?;
        status.tables = fills.into();
        let faults = self.tables.faults().map_err(|error| Refusal::failed(error.to_string()))?;
        for (fault, count) in floodwall_wire::tables::Fault::ALL.into_iter().zip(faults) {
            if count > 0 {
                status.losses.push(answers::Loss { what: fault.as_str().to_owned(), count });
            }
        }
        let lost = self.server_links.as_ref().map_or(0, Copies::lost);
        if lost > 0 {
            status.losses.push(answers::Loss { what: "packets of server links".into(), count: lost });
        }
        if self.assembler.given_up() > 0 {
            let what = "packets whose end was not mirrored".to_owned();
            status.losses.push(answers::Loss { what, count: self.assembler.given_up() });
        }
        to_value(&status)
    }

    /// What came in since the start, by service and class of packets.
    fn traffic(&self) -> std::io::Result<Vec<answers::Traffic>> {
        let mut traffic = answers::TrafficTally::default();
        for service in (0..).take(self.plan.guard.services.len()) {
            for (class, reason, counter) in self.tables.arrived(service)? {
                traffic.add(service, class, reason, counter.packets, counter.bytes);
            }
        }
        Ok(traffic.rows(&|service| self.wall.service_name(service)))
    }

    /// Rules and services anew, all or nothing.
    fn reload(&mut self) -> Result<serde_json::Value, Refusal> {
        let (plan, notifier) = self.plan.read_again()?;
        let mut changes = plan.guard.differences(&self.plan.guard);
        changes.extend(plan.list_differences(&self.plan));
        self.wall.set_lists(Lists::clone(&plan.lists)).map_err(|error| {
            Refusal::failed(format!("the lists and rules as they were stay in force: {error:#}"))
        })?;
        let before = std::mem::replace(&mut self.plan, plan);
        if let Err(error) = self.install_rules() {
            self.plan = before;
            return Err(Refusal::failed(format!("the rules as they were stay in force: {error:#}")));
        }
        self.wall.replace_rules(&self.plan.guard);
        self.wall.set_notifier(notifier);
        let take_over = change_allowed(&mut self.wall.enforcer, &before.guard, &self.plan.guard);
        take_over.map_err(|error| Refusal::failed(format!("{error:#}")))?;
        self.refresh_locals().map_err(|error| Refusal::failed(format!("{error:#}")))?;
        reloaded(changes)
    }
}

/// What was reloaded, in sentences.
pub(super) fn reloaded(changes: Vec<String>) -> Result<serde_json::Value, Refusal> {
    tracing::info!(changes = changes.len(), "Reloaded");
    let mut sentences = vec![format!("Reloaded; {} changed.", count(changes.len(), "thing"))];
    sentences.extend(changes);
    to_value(&answers::Done::new(sentences))
}

/// Lets in whom the configuration names now, and no longer whom it named before.
pub(super) fn change_allowed<S: Store>(
    enforcer: &mut TablesEnforcer<S>,
    before: &Guard,
    after: &Guard,
) -> Result<()> {
    let allowed = |guard: &Guard| -> Vec<Prefix> {
        guard
            .allow
            .iter()
            .map(|(address, bits)| Prefix::new(*address, u8::try_from(*bits).unwrap_or(128)))
            .collect()
    };
    let (old, new) = (allowed(before), allowed(after));
    for prefix in old.iter().filter(|one| !new.contains(one)) {
        enforcer.allow(*prefix, false)?;
    }
    for prefix in &new {
        enforcer.allow(*prefix, true)?;
    }
    Ok(())
}

/// The next copy, where there are copies; for ever otherwise.
async fn next_of(copies: &mut Option<Copies>) -> Option<Frame> {
    match copies {
        Some(copies) => copies.next().await,
        None => std::future::pending().await,
    }
}

/// The next lines of a followed log, where any is; for ever otherwise.
pub(super) async fn next_lines(logs: &mut Option<Logs>) -> Option<Batch> {
    match logs {
        Some(logs) => logs.next().await,
        None => std::future::pending().await,
    }
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn prefix_of(key: floodwall_wire::tables::PrefixKey) -> Prefix {
    Prefix::new(key.address(), u8::try_from(key.bits).unwrap_or(128))
}

/// One packet from the mirror into the wall. A fragment's rest cannot be seen, so only its first part's headers count.
fn hand_over(wall: &mut Wall<KernelStore>, clock: &WallClock, record: &Record, bytes: &[u8]) {
    let window = SliceWindow::new(bytes);
    let (Some(seen), Ok(headers)) = (Seen::of(record), frame::walk(&window)) else { return };
    if headers.fragment == Fragment::First {
        return;
    }
    wall.handle_packet(clock.at_gate(record.at), bytes, &headers, &seen);
}

pub(super) fn random_seed() -> Result<u64> {
    use std::io::Read;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes).context("no random numbers")?;
    Ok(u64::from_ne_bytes(bytes))
}
