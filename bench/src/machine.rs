//! Where all this was measured, and beside what.

use std::{fs, process::Command, thread};

use anyhow::{Context, Result};

/// Names the processor, how many of it, how busy they are, the kernel, and the versions of the gate's peers.
pub(crate) fn say() -> Result<()> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let load = fs::read_to_string("/proc/loadavg")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    print(&format!(
        "{}, {} processors, load {}, kernel {}; xdp-tools {}, {}",
        model.trim_start_matches([':', '\t', ' ']),
        thread::available_parallelism().context("the processors cannot be counted")?,
        load.split(' ').next().unwrap_or("unknown"),
        kernel.trim(),
        package("xdp-tools"),
        first_line("nft", "--version"),
    ));
    Ok(())
}

/// What is measured by tests and not here.
pub(crate) fn say_tests() {
    for (what, command) in [
        ("rate precision on two CPUs", "--test exactness"),
        ("packet over a limit to dropped, beside fail2ban", "--test live -E 'test(two_hundred)'"),
        ("a thousand reloads", "--test live -E 'test(thousand)'"),
        ("memory of all maps", "--test map_memory"),
    ] {
        print(&format!("{what}: cargo nextest run -p floodwall-tests --no-capture {command}"));
    }
}

fn package(name: &str) -> String {
    let output = Command::new("dpkg-query").args(["-W", "-f", "${Version}", name]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => "not installed by a package".to_owned(),
    }
}

fn first_line(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().map_or_else(|| format!("no {program}"), str::to_owned)
}

#[expect(clippy::print_stdout, reason = "the table is the product")]
fn print(line: &str) {
    println!("{line}");
}
