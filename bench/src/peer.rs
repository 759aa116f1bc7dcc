//! xdp-filter (Debian package xdp-tools) on a veth in a network namespace of its own.

use std::{
    os::fd::{AsFd, BorrowedFd},
    process::Command,
};

use anyhow::{Context, Result, bail};
use aya::programs::{ProgramFd, loaded_programs};

/// A loaded xdp-filter. The namespace, and with it everything else, goes when the value does.
pub(crate) struct Peer {
    namespace: String,
    program: ProgramFd,
}

impl Peer {
    /// Loads xdp-filter with these options and one source address to drop.
    pub(crate) fn load(name: &str, options: &[&str], dropped: &str) -> Result<Self> {
        let namespace = format!("floodwall-bench-{name}-{}", std::process::id());
        command("ip", &["netns", "add", &namespace])?;
        let program = Self::load_in(&namespace, options, dropped);
        if program.is_err() {
            remove(&namespace);
        }
        Ok(Self { program: program?, namespace })
    }

    fn load_in(namespace: &str, options: &[&str], dropped: &str) -> Result<ProgramFd> {
        let before = filters()?;
        let inside = |arguments: &[&str]| command("ip", &[&["netns", "exec", namespace], arguments].concat());
        inside(&["ip", "link", "add", "fw0", "type", "veth", "peer", "name", "fw1"])?;
        inside(&["ip", "link", "set", "fw0", "up"])?;
        let load = ["xdp-filter", "load", "fw0", "-m", "native", "-p", "allow"];
        let script = format!(
            "mount -t bpf bpf /sys/fs/bpf && {} {} && xdp-filter ip {dropped} -m src",
            load.join(" "),
            options.join(" "),
        );
        inside(&["sh", "-c", &script])?;
        let id =
            filters()?.into_iter().find(|id| !before.contains(id)).context("xdp-filter loaded no program")?;
        let info = loaded_programs().filter_map(|info| info.ok()).find(|info| info.id() == id);
        Ok(info.context("xdp-filter's program is gone")?.fd()?)
    }

    /// Its program.
    pub(crate) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        remove(&self.namespace);
    }
}

/// Ids of the loaded programs of xdp-filter.
fn filters() -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for info in loaded_programs() {
        let info = info?;
        if info.name_as_str().is_some_and(|name| name.starts_with("xdpfilt")) {
            ids.push(info.id());
        }
    }
    Ok(ids)
}

fn remove(namespace: &str) {
    // Nothing more can be done about a namespace that will not go.
    command("ip", &["netns", "del", namespace]).ok();
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("failed to start {program}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}
