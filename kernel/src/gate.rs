//! The gate in place: attached to interfaces, pinned so that it outlives its controller, adopted by the next one.
//!
//! Under one folder of the bpf file system lie
//!
//! ```text
//! maps-N/NAME                 the tables of layout version N
//! links/INTERFACE@ingress@native, INTERFACE@ingress@generic, INTERFACE@egress
//! filters/INTERFACE           an empty folder: the egress program is a tc filter there (before kernel 6.6)
//! qdiscs/INTERFACE            an empty folder: the clsact qdisc there is ours
//! ```
//!
//! A controller that starts loads its own programs over the pinned maps and puts them in the place of the old ones
//! with one atomic step per link, so there is no moment without a gate. Maps of another layout are left to the old
//! programs until that step and then removed. The folder is locked: two controllers cannot have the same gate.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
        xdp::XdpLink,
    },
    util::KernelVersion,
};
use floodwall_wire::tables::LAYOUT_VERSION;
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::statfs,
};

use crate::object::{EGRESS, INGRESS, Object};

/// Where the gate is pinned unless told otherwise.
pub const DEFAULT_PINS: &str = "/sys/fs/bpf/floodwall";
const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";
/// Kernels from here on have pinnable links for tc programs.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);
/// Priority and handle of our filter where it is not a link: fixed, so that the next controller finds it.
const FILTER_PRIORITY: u16 = 0xf100;
const FILTER_HANDLE: TcHandle = TcHandle::new(0, 1);

/// How XDP is attached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// In the driver, before the kernel has made anything of the packet.
    Native,
    /// In the network stack: works on every interface, costs more, sees merged frames.
    Generic,
}

impl Mode {
    /// The name in reports and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn flags(self) -> XdpMode {
        match self {
            Self::Native => XdpMode::Driver,
            Self::Generic => XdpMode::Skb,
        }
    }
}

/// Programs, maps and where they are attached. Dropping it leaves everything in place.
#[derive(Debug)]
pub struct Gate {
    object: Object,
    pins: Pins,
    /// The lock on the folder, held as long as the value lives.
    _lock: File,
    found: Found,
}

/// What an earlier controller left.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Maps of this layout were there: what they hold is in force.
    pub tables: bool,
    /// Layout versions of maps that cannot be used.
    pub other_layouts: Vec<u32>,
    /// Interfaces with a link.
    pub interfaces: Vec<String>,
}

/// What attaching came to.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// How.
    pub mode: Mode,
    /// Whether a link of an earlier controller was taken over, without a gap.
    pub adopted: bool,
    /// Why it is not native, if it is not.
    pub why_not_native: Option<String>,
}

impl Gate {
    /// Loads the programs over the maps in a folder of the bpf file system, which is made if need be, with room for an
    /// image of lists of so many nodes.
    ///
    /// # Errors
    /// When the folder is not on a bpf file system or belongs to a running controller, or the kernel refuses a map or
    /// a program. Nothing that is attached has changed.
    pub fn open(folder: &Path, list_nodes: u32) -> Result<Self> {
        let pins = Pins { folder: folder.to_owned() };
        mount_bpf_file_system(folder)?;
        pins.create().with_context(|| format!("failed to make {}", folder.display()))?;
        let lock = pins.lock()?;
        let found = pins.found()?;
        let object = Object::pinned(&pins.maps(), list_nodes)?;
        Ok(Self { object, pins, _lock: lock, found })
    }

    /// The loaded object.
    pub const fn object(&self) -> &Object {
        &self.object
    }

    /// What an earlier controller left.
    pub const fn found(&self) -> &Found {
        &self.found
    }

    /// Attaches to an interface, or takes over what is attached there. Asked for no particular mode it tries native
    /// first.
    ///
    /// # Errors
    /// When the kernel refuses; nothing of this call stays attached.
    pub fn attach(&mut self, interface: &str, wanted: Option<Mode>) -> Result<Attachment> {
        let attachment = match self.adopt_ingress(interface, wanted)? {
            Some(mode) => Attachment { mode, adopted: true, why_not_native: None },
            None => self.attach_ingress(interface, wanted)?,
        };
        if let Err(error) = self.attach_egress(interface) {
            if !attachment.adopted {
                self.pins.unlink(interface)?;
            }
            return Err(error.context(format!("failed to watch what departs from {interface}")));
        }
        Ok(attachment)
    }

    /// Puts our program into the place of the one that is attached by a pinned link.
    fn adopt_ingress(&mut self, interface: &str, wanted: Option<Mode>) -> Result<Option<Mode>> {
        for mode in [Mode::Native, Mode::Generic] {
            let path = self.pins.ingress(interface, mode);
            if !path.exists() {
                continue;
            }
            if wanted.is_none_or(|wanted| wanted == mode) {
                let link: XdpLink = FdLink::from(PinnedLink::from_pin(&path)?).try_into()?;
                match self.xdp()?.attach_to_link(link) {
                    Ok(id) => {
                        // Our descriptor may close: the pin holds the link.
                        drop(self.xdp()?.take_link(id)?);
                        return Ok(Some(mode));
                    }
                    // The interface of that name is another one than then.
                    Err(ProgramError::SyscallError(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            fs::remove_file(&path)?;
        }
        Ok(None)
    }

    fn attach_ingress(&mut self, interface: &str, wanted: Option<Mode>) -> Result<Attachment> {
        let modes = match wanted {
            Some(mode) => vec![mode],
            None => vec![Mode::Native, Mode::Generic],
        };
        let mut refusals = Vec::new();
        for mode in modes {
            match self.xdp()?.attach(interface, mode.flags()) {
                Ok(id) => {
                    let link: FdLink = self.xdp()?.take_link(id)?.try_into()?;
                    link.pin(self.pins.ingress(interface, mode))?;
                    let why_not_native = refusals.pop();
                    return Ok(Attachment { mode, adopted: false, why_not_native });
                }
                Err(error) => refusals.push(format!("{}: {:#}", mode.as_str(), anyhow!(error))),
            }
        }
        bail!("XDP cannot be attached to {interface}: {}", refusals.join("; "))
    }

    fn attach_egress(&mut self, interface: &str) -> Result<()> {
        if KernelVersion::current().is_ok_and(|current| current >= TCX) {
            self.attach_egress_link(interface)
        } else {
            self.attach_egress_filter(interface)
        }
    }

    fn attach_egress_link(&mut self, interface: &str) -> Result<()> {
        let path = self.pins.egress(interface);
        if path.exists() {
            let link: SchedClassifierLink = FdLink::from(PinnedLink::from_pin(&path)?).try_into()?;
            match self.classifier()?.attach_to_link(link) {
                Ok(id) => {
                    drop(self.classifier()?.take_link(id)?);
                    return Ok(());
                }
                Err(ProgramError::SyscallError(_)) => fs::remove_file(&path)?,
                Err(error) => return Err(error.into()),
            }
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let program = self.classifier()?;
        let id = program.attach_with_options(interface, TcAttachType::Egress, options)?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        link.pin(path)?;
        Ok(())
    }

    /// Before kernel 6.6: a filter of the clsact qdisc, which stays until it is removed.
    fn attach_egress_filter(&mut self, interface: &str) -> Result<()> {
        match tc::qdisc_add_clsact(interface) {
            Ok(()) => fs::create_dir_all(self.pins.qdisc(interface))?,
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let marker = self.pins.filter(interface);
        let program = self.classifier()?;
        if marker.exists() {
            let link = filter(interface)?;
            if let Ok(id) = program.attach_to_link(link) {
                forget(program.take_link(id)?);
                return Ok(());
            }
        }
        let options = TcAttachOptions::Netlink(NlOptions {
            priority: FILTER_PRIORITY,
            handle: FILTER_HANDLE,
            classid: None,
        });
        let id = program.attach_with_options(interface, TcAttachType::Egress, options)?;
        forget(program.take_link(id)?);
        fs::create_dir_all(marker)?;
        Ok(())
    }

    /// Removes maps of other layouts and links of interfaces that are not wanted any longer; answers what was removed.
    /// Call it when every wanted interface has been attached.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn settle(&self, interfaces: &[String]) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for version in &self.found.other_layouts {
            remove_folder(&self.pins.maps_of(*version))?;
            removed.push(format!("tables of layout {version}"));
        }
        for interface in &self.found.interfaces {
            if !interfaces.contains(interface) {
                self.pins.unlink(interface)?;
                removed.push(format!("the gate at {interface}"));
            }
        }
        Ok(removed)
    }

    fn xdp(&mut self) -> Result<&mut Xdp> {
        Ok(self.object.ebpf.program_mut(INGRESS).context("no ingress program")?.try_into()?)
    }

    fn classifier(&mut self) -> Result<&mut SchedClassifier> {
        Ok(self.object.ebpf.program_mut(EGRESS).context("no egress program")?.try_into()?)
    }
}

/// Takes everything away that is attached or pinned in a folder, with or without a running controller. Answers what
/// was removed; nothing if there was nothing.
///
/// # Errors
/// When something cannot be removed; the rest is removed all the same.
pub fn detach(folder: &Path) -> Result<Vec<String>> {
    let pins = Pins { folder: folder.to_owned() };
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let found = pins.found()?;
    let mut failures = Vec::new();
    let mut removed = Vec::new();
    for interface in &found.interfaces {
        match pins.unlink(interface) {
            Ok(()) => removed.push(interface.clone()),
            Err(error) => failures.push(format!("{interface}: {error:#}")),
        }
    }
    if let Err(error) = remove_folder(folder) {
        failures.push(format!("{}: {error}", folder.display()));
    }
    if failures.is_empty() { Ok(removed) } else { bail!("{}", failures.join("; ")) }
}

/// Interfaces the gate is attached to, by what is pinned in a folder.
///
/// # Errors
/// When the folder cannot be read.
pub fn attached(folder: &Path) -> Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    Ok(Pins { folder: folder.to_owned() }.found()?.interfaces)
}

/// The paths under the folder.
#[derive(Debug)]
struct Pins {
    folder: PathBuf,
}

impl Pins {
    fn create(&self) -> io::Result<()> {
        for folder in
            [self.maps(), self.folder.join("links"), self.folder.join("filters"), self.folder.join("qdiscs")]
        {
            fs::create_dir_all(folder)?;
        }
        Ok(())
    }

    fn lock(&self) -> Result<File> {
        let folder = File::open(&self.folder)?;
        match folder.try_lock() {
            Ok(()) => Ok(folder),
            Err(TryLockError::WouldBlock) => bail!(
                "another floodwall runs this gate ({} is locked); stop it first, or give this one its own --pins",
                self.folder.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).context("failed to lock the gate"),
        }
    }

    fn maps(&self) -> PathBuf {
        self.maps_of(LAYOUT_VERSION)
    }

    fn maps_of(&self, version: u32) -> PathBuf {
        self.folder.join(format!("maps-{version}"))
    }

    fn ingress(&self, interface: &str, mode: Mode) -> PathBuf {
        self.folder.join("links").join(format!("{}@ingress@{}", encoded(interface), mode.as_str()))
    }

    fn egress(&self, interface: &str) -> PathBuf {
        self.folder.join("links").join(format!("{}@egress", encoded(interface)))
    }

    fn filter(&self, interface: &str) -> PathBuf {
        self.folder.join("filters").join(encoded(interface))
    }

    fn qdisc(&self, interface: &str) -> PathBuf {
        self.folder.join("qdiscs").join(encoded(interface))
    }

    fn found(&self) -> Result<Found> {
        let mut found = Found::default();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let Some(version) = name.to_str().and_then(|name| name.strip_prefix("maps-")) else { continue };
            match version.parse::<u32>() {
                Ok(LAYOUT_VERSION) => found.tables = fs::read_dir(self.maps())?.next().is_some(),
                Ok(other) => found.other_layouts.push(other),
                Err(_) => {}
            }
        }
        for (folder, suffixes) in
            [("links", ["@ingress@native", "@ingress@generic", "@egress"].as_slice()), ("filters", &[""])]
        {
            let Ok(entries) = fs::read_dir(self.folder.join(folder)) else { continue };
            for entry in entries {
                let name = entry?.file_name();
                let Some(name) = name.to_str() else { continue };
                let interface = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).map(decoded);
                if let Some(interface) = interface
                    && !found.interfaces.contains(&interface)
                {
                    found.interfaces.push(interface);
                }
            }
        }
        found.interfaces.sort();
        Ok(found)
    }

    /// Detaches both programs from an interface. Ingress goes last: what departs unwatched proves nobody, what arrives
    /// unjudged passes.
    fn unlink(&self, interface: &str) -> Result<()> {
        if self.filter(interface).exists() {
            // Gone with its interface is gone as well.
            if let Ok(link) = filter(interface) {
                drop(link);
            }
            fs::remove_dir(self.filter(interface))?;
        }
        if self.qdisc(interface).exists() {
            fs::remove_dir(self.qdisc(interface))?;
        }
        for path in [
            self.egress(interface),
            self.ingress(interface, Mode::Native),
            self.ingress(interface, Mode::Generic),
        ] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("failed to remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// An interface's name as a name in the bpf file system, which takes no dots (`bpf_lookup` in kernel/bpf/inode.c).
fn encoded(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

fn decoded(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

/// Our filter at an interface, as it was attached. Dropping it detaches.
fn filter(interface: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, TcAttachType::Egress, FILTER_PRIORITY, FILTER_HANDLE, None)
}

/// Leaves a filter attached when the controller ends.
#[expect(clippy::mem_forget, reason = "dropping the link would detach the filter, and it cannot be pinned")]
fn forget(link: SchedClassifierLink) {
    std::mem::forget(link);
}

/// Sees to it that the folder lies on a bpf file system. The usual one is mounted if it is not, as `bpftool` does.
fn mount_bpf_file_system(folder: &Path) -> Result<()> {
    let Some(existing) = folder.ancestors().find(|ancestor| ancestor.exists()) else {
        bail!("{} is no absolute path", folder.display());
    };
    if statfs(existing)?.filesystem_type().0 == libc::BPF_FS_MAGIC {
        return Ok(());
    }
    if !folder.starts_with(BPF_FILE_SYSTEM) {
        bail!("{} is not on a bpf file system; name a folder under {BPF_FILE_SYSTEM}", folder.display());
    }
    mount(Some("bpf"), BPF_FILE_SYSTEM, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("failed to mount the bpf file system at {BPF_FILE_SYSTEM}"))
}

/// The bpf file system has no recursive removal of its own, and `remove_dir_all` opens what cannot be opened.
fn remove_folder(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_folder(&entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_survive_the_bpf_file_system() {
        for name in ["eth0", "eth0.100", "odd%2ename", "%", "a.b.c"] {
            assert!(!encoded(name).contains('.'));
            assert_eq!(decoded(&encoded(name)), name);
        }
    }
}
