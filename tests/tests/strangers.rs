//! Promise 5 under a spoofed flood: as many claimed sources as there may be, the gate's tables do not grow, nobody who is
//! known is dropped for it, and what strangers share is what they get.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use floodwall_tests::{
    KernelGate, bpf, is_root,
    packets::{Path, tcp, udp, voice},
    prebuilt_object, skip,
};
use floodwall_wire::{
    Address, Class, Reason, SourceKey,
    frame::{Transport, tcp_flags},
    limit::Limit,
    tables::{
        Counter, KINDS, LEVELS, PORTS, Port, Ports, ProofKey, Role, STANDINGS, ServiceSettings, Source,
        Status, counter_index, names, service_flags, status_flags,
    },
};

const SECOND: u64 = 1_000_000_000;
const SERVER: &str = "192.0.2.1";
const SERVER_V6: &str = "2001:db8::1";
const KNOWN: &str = "198.51.100.7";
const TEAMTALK: u16 = 10_333;
/// Claimed sources of each kind of packet and family.
const CLAIMED: u32 = 250_000;
/// What they are all together allowed in a second.
const SHARED_SYNS: u64 = 100;

fn set_up(gate: &KernelGate) {
    let generous = Limit::per_second(1_000, 1_000);
    let shared = Limit::per_second(SHARED_SYNS, SHARED_SYNS);
    let settings = ServiceSettings {
        flags: service_flags::REQUIRE_SESSION,
        proof_for: 60 * SECOND,
        source: [[[generous; KINDS]; STANDINGS]; LEVELS],
        network: [[generous; KINDS]; LEVELS],
        service: [[shared; KINDS]; LEVELS],
    };
    let mut ports = Ports::unguarded();
    for row in [0, PORTS / 2] {
        ports.0[0][row + usize::from(TEAMTALK)] = Port::guarded(0, Role::TeamTalk);
    }
    gate.write(names::PORTS, &0_u32, &*ports);
    gate.write(names::SETTINGS, &0_u32, &settings);
    let known = Source { known_until: u64::MAX, ..Source::default() };
    let address = Address::from(KNOWN.parse::<IpAddr>().expect("an address"));
    gate.set_source(SourceKey::of(address), &known);
    let status = Status { flags: status_flags::ANY_ADDRESS, seed: 7, ..Status::default() };
    gate.write(names::STATUS, &0_u32, &status);
    assert_eq!(Transport::Udp as usize, 1, "the UDP ports are the second half");
}

fn counted(gate: &KernelGate, class: Class, reason: Reason) -> u64 {
    let cells = bpf::lookup_per_cpu::<Counter>(gate.map(names::COUNTERS), counter_index(0, class, reason));
    cells.expect("a counter").iter().map(|cell| cell.packets).sum()
}

#[test]
fn a_spoofed_flood_grows_no_table_and_drops_nobody_known() {
    if !is_root() {
        return skip("a_spoofed_flood_grows_no_table_and_drops_nobody_known", "needs root");
    }
    let gate = KernelGate::for_tests(&prebuilt_object()).expect("the object loads");
    set_up(&gate);
    let regular = udp(Path::new(KNOWN, SERVER, TEAMTALK), &voice(5, 100));
    let templates = [
        tcp(Path::new("10.0.0.0", SERVER, TEAMTALK), tcp_flags::SYN, b""),
        udp(Path::new("10.0.0.0", SERVER, TEAMTALK), &voice(6, 100)),
        tcp(Path::new("2001:db8:ff::", SERVER_V6, TEAMTALK), tcp_flags::SYN, b""),
        udp(Path::new("2001:db8:ff::", SERVER_V6, TEAMTALK), &voice(6, 100)),
    ];
    let ingress = gate.program("floodwall_ingress");
    let mut regulars = 0;
    for number in 0..CLAIMED {
        // A flood of 250,000 of each a second.
        gate.set_now(1_000 * SECOND + u64::from(number) * (SECOND / u64::from(CLAIMED)));
        for template in &templates {
            let mut frame = template.clone();
            // Scattered over networks as a sender that makes sources up would.
            let claimed = number.wrapping_mul(0x9e37_79b1);
            match frame[12..14] {
                [8, 0] => {
                    let address = Ipv4Addr::from_bits(0x1000_0000 | claimed >> 4);
                    frame[26..30].copy_from_slice(&address.octets());
                }
                _ => {
                    let address = Ipv6Addr::from_bits(0x2a00 << 112 | u128::from(claimed) << 64 | 1);
                    frame[22..38].copy_from_slice(&address.octets());
                }
            }
            bpf::run(ingress, &frame, 1).expect("a run");
        }
        if number % 500 == 0 {
            assert_eq!(bpf::run(ingress, &regular, 1).expect("a run").action, 2, "a known user was dropped");
            regulars += 1;
        }
    }
    let keys = |count: usize| format!("{count} entries");
    let sources = gate.tables().source_keys().len();
    let proofs = bpf::keys::<ProofKey>(gate.map(names::PROOFS)).expect("keys").len();
    let (admitted, cookies) =
        (counted(&gate, Class::TcpSyn, Reason::Admitted), counted(&gate, Class::TcpSyn, Reason::SynCookie));
    println!(
        "{} packets of {} claimed sources: {admitted} SYNs admitted, {cookies} left to SYN cookies, {regulars} of a \
         known user passed; sources: {}, proofs: {}",
        4 * CLAIMED,
        2 * CLAIMED,
        keys(sources),
        keys(proofs),
    );
    assert_eq!((sources, proofs), (1, 0), "claiming an address makes no entry");
    // The burst and what a second earns, for both families together.
    assert!((2 * SHARED_SYNS - 4..=2 * SHARED_SYNS).contains(&admitted), "{admitted}");
    let limited: u64 = [Reason::LimitSource, Reason::LimitPrefix]
        .map(|reason| counted(&gate, Class::TcpSyn, reason))
        .iter()
        .sum();
    assert_eq!(admitted + cookies + limited, u64::from(2 * CLAIMED));
    // One cell in a sketch that everybody shares is no reason to drop a newcomer's SYN.
    assert!(limited * 50 < u64::from(2 * CLAIMED), "{limited} SYNs were dropped for what others sent");
    let strangers = counted(&gate, Class::UdpVoice, Reason::StandingStranger);
    assert_eq!(strangers, u64::from(2 * CLAIMED), "voice without a session");
    assert_eq!(counted(&gate, Class::UdpVoice, Reason::Admitted), regulars);
}
