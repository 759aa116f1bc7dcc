//! Network namespaces of our own, in which packets may fly that the host must never see.

use std::{
    fs::File,
    path::Path,
    process::Command,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// A network namespace that goes with the value, and with it its interfaces.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// Without root, without iproute2, or when there is one of that name.
    pub(crate) fn add(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.switch_on("lo")?;
        Ok(namespace)
    }

    /// Lays a wire: an interface here, its other end in another namespace.
    pub(crate) fn wire(&self, device: &str, other_device: &str, other: &Self) -> Result<()> {
        let (from, to) = (self.name.as_str(), other.name.as_str());
        ip(&["-n", from, "link", "add", device, "type", "veth", "peer", "name", other_device, "netns", to])
    }

    /// Gives an interface an address such as 192.0.2.1/24, usable at once.
    pub(crate) fn add_address(&self, address: &str, device: &str) -> Result<()> {
        let mut arguments = vec!["-n", &self.name, "addr", "add", address, "dev", device];
        if address.contains(':') {
            arguments.push("nodad");
        }
        ip(&arguments)
    }

    /// Sets an interface up.
    pub(crate) fn switch_on(&self, device: &str) -> Result<()> {
        ip(&["-n", &self.name, "link", "set", device, "up"])
    }

    /// Runs something on a thread of its own in here. Sockets and processes it makes stay here.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| -> Result<T> {
                self.enter()?;
                Ok(work())
            });
            worker.join().unwrap_or_else(|_| bail!("a thread in a namespace failed"))
        })
    }

    /// Starts a thread that lives in here.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        // Threads inherit the namespace of the one that starts them.
        self.run(|| thread::Builder::new().name(name.to_owned()).spawn(work))?.context("no thread can be had")
    }

    /// Moves the calling thread in here, for good.
    fn enter(&self) -> Result<()> {
        let file = File::open(Path::new("/run/netns").join(&self.name)).context("the namespace is gone")?;
        setns(file, CloneFlags::CLONE_NEWNET).context("failed to enter a namespace")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            crate::output::complain(format_args!("{error:#}"));
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("iproute2 is not installed")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
