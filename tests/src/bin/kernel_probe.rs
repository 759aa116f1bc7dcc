//! Loads the gate's programs on the running kernel, says what the verifier made of them and runs a few packets.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use floodwall_kernel::{Gate, KernelTables, gate};
use floodwall_tests::{
    Homes, KernelGate,
    packets::{self, data, hello, tcp, udp, voice},
    prebuilt_object,
};
use floodwall_wire::{
    Reason, SourceKey,
    frame::{Transport, tcp_flags},
    tables::{
        LIST_NODES_MIN, Port, Ports, Role, ServiceSettings, Source, Status, service_flags, status_flags,
    },
};

fn main() -> Result<()> {
    let object = std::env::args_os().nth(1).map_or_else(prebuilt_object, PathBuf::from);
    let loaded = KernelGate::as_in_production(&object)?;
    for program in ["floodwall_ingress", "floodwall_egress", "floodwall_clock"] {
        let (walked, held) = loaded.instructions(program)?;
        println!("{program}: {held} instructions, {walked} walked by the verifier");
    }
    println!("floodwall_clock says {:?}", loaded.clock());
    println!("floodwall gate: {} packets judged alike in both homes", judge_some(&object)?);
    drop(loaded);
    adopt()?;
    println!("floodwall gate: attached to lo, adopted by a second controller, taken away");
    Ok(())
}

/// Attaches to loopback as one controller, adopts as the next, and leaves nothing. Before kernel 6.6 the egress program
/// is a tc filter and no link.
fn adopt() -> Result<()> {
    let pins = Path::new("/sys/fs/bpf/floodwall-probe");
    let open = || Gate::open(pins, LIST_NODES_MIN);
    let mut first = open()?;
    ensure!(!first.attach("lo", None)?.adopted, "adopted from nobody");
    ensure!(open().is_err(), "a second controller was let in beside the first");
    let tables = KernelTables::open(first.object())?;
    let banned = Source { banned_until: u64::MAX, ..Source::default() };
    let key = SourceKey::of(packets::Path::new("198.51.100.9", "192.0.2.1", 10_333).source.into());
    tables.set_source(key, &banned)?;
    let status = Status { generation: 1, learning_until: u64::MAX, seed: 7, ..Status::default() };
    tables.set_status(&status)?;
    let mut ports = Ports::unguarded();
    ports.0[1][10_333] = Port::guarded(0, Role::TeamTalk);
    tables.set_ports(1, &ports.0[1])?;
    drop(first);
    let mut second = open()?;
    ensure!(second.found().tables && second.found().interfaces == ["lo"], "{:?}", second.found());
    ensure!(second.attach("lo", None)?.adopted, "attached anew instead of adopted");
    let tables = KernelTables::open(second.object())?;
    ensure!(tables.status()? == status, "the status was lost: {:?}", tables.status()?);
    ensure!(tables.ports()? == ports, "the ports were lost");
    let held = tables.source(key);
    ensure!(held.as_ref() == Some(&banned), "a ban was lost: {held:?}");
    drop(second);
    ensure!(gate::detach(pins)? == ["lo"] && !pins.exists(), "something is left");
    Ok(())
}

/// A stranger, its login, its voice, its ban. [`Homes`] panics where the homes disagree.
fn judge_some(object: &Path) -> Result<usize> {
    let mut homes = Homes::load(object)?;
    for transport in [Transport::Tcp, Transport::Udp] {
        homes.set_port(0, transport, 10_333, Port::guarded(0, Role::TeamTalk));
    }
    let flags = service_flags::REQUIRE_SESSION;
    homes.set_settings(0, 0, ServiceSettings { flags, proof_for: 1_000, ..ServiceSettings::default() });
    homes.set_status(|status| status.flags |= status_flags::ANY_ADDRESS);
    let path = packets::Path::new("198.51.100.7", "192.0.2.1", 10_333);
    let expect = |homes: &Homes, frame: &[u8], reason| -> Result<()> {
        let judged = homes.judge(frame, &"probe");
        ensure!(judged.reason == reason, "{judged:?}, expected {reason:?}");
        Ok(())
    };
    expect(&homes, &tcp(path, tcp_flags::SYN, b""), Reason::Admitted)?;
    expect(&homes, &udp(path, &voice(5, 100)), Reason::StandingStranger)?;
    expect(&homes, &udp(path, &hello(0)), Reason::ShapeId)?;
    expect(&homes, &data(path, &[b'x'; 1_400]), Reason::Admitted)?;
    ensure!(homes.observe(&data(path.back(), b"welcome"), &"probe").proves, "the answer proves nothing");
    expect(&homes, &udp(path, &voice(5, 100)), Reason::Admitted)?;
    let banned = Source { banned_until: u64::MAX, ..Source::default() };
    homes.insert_source(SourceKey::of(path.source.into()), &banned);
    expect(&homes, &udp(path, &voice(5, 100)), Reason::BanAddress)?;
    homes.compare_tables();
    Ok(7)
}
