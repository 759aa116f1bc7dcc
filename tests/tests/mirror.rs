//! The mirror shows the controller what it must see, whole and in order, and no media.

use floodwall_tests::{
    Homes, bpf,
    packets::{Path, data, tcp, udp, voice},
};
use floodwall_wire::{
    frame::{Transport, tcp_flags},
    mirror::{ARRIVING, CHUNK_BYTES, DEPARTING},
    tables::{Fault, Port, Role, ServiceSettings, Source, names, status_flags},
};

#[test]
fn control_channel_is_shown_in_chunks_and_media_is_not() {
    let Some(mut homes) = Homes::open("control_channel_is_shown_in_chunks_and_media_is_not") else { return };
    for transport in [Transport::Tcp, Transport::Udp] {
        homes.set_port(0, transport, 10_333, Port::guarded(0, Role::TeamTalk));
    }
    homes.set_settings(0, 0, ServiceSettings { proof_for: u64::MAX / 2, ..ServiceSettings::default() });
    homes.set_status(|status| status.flags |= status_flags::ANY_ADDRESS);
    homes.set_now(5_000);
    let mut ring = bpf::Ring::map(homes.kernel.map(names::MIRROR)).expect("the ring can be mapped");
    let path = Path::new("198.51.100.7", "192.0.2.1", 10_333);
    let long: Vec<u8> = (0..3_000_u32).map(|number| number as u8).collect();

    homes.judge(&tcp(path, tcp_flags::SYN, b""), &"SYN");
    homes.judge(&data(path, b"login\r\n"), &"login");
    homes.judge(&tcp(path, tcp_flags::ACK, b""), &"a client's ACK");
    homes.observe(&data(path.back(), b"accepted\r\n"), &"answer");
    homes.observe(&tcp(path.back(), tcp_flags::ACK, b""), &"a server's ACK");
    homes.judge(&udp(path, &voice(5, 100)), &"voice");
    homes.judge(&data(path, &long), &"a long segment");
    homes.insert_source(
        floodwall_wire::SourceKey::of(path.source.into()),
        &Source { banned_until: u64::MAX, ..Source::default() },
    );
    homes.judge(&data(path, b"from a banned source"), &"banned");

    let records = ring.drain();
    let seen: Vec<_> =
        records.iter().map(|(r, _)| (r.direction, r.packet_bytes, r.chunk_offset, r.chunk_bytes)).collect();
    let (chunk, rest) = (CHUNK_BYTES as u32, 3_040 - CHUNK_BYTES as u32);
    assert_eq!(
        seen,
        [
            (ARRIVING, 40, 0, 40),
            (ARRIVING, 47, 0, 47),
            (DEPARTING, 50, 0, 50),
            (DEPARTING, 40, 0, 40),
            (ARRIVING, 3_040, 0, chunk),
            (ARRIVING, 3_040, chunk, rest),
        ]
    );
    assert!(records.iter().all(|(record, _)| record.at == 5_000));
    assert!(records[1].1.ends_with(b"login\r\n") && records[2].1.ends_with(b"accepted\r\n"));
    assert_eq!([&records[4].1[40..], &records[5].1[..]].concat(), long);
    for fault in Fault::ALL {
        assert_eq!(homes.kernel.fault_count(fault), 0, "{}", fault.as_str());
    }
    // The reserved share: what arrives stops at three quarters, what departs goes on.
    for _ in 0..4_000 {
        homes.judge(&data(Path::new("198.51.100.8", "192.0.2.1", 10_333), &long), &"flood");
    }
    assert!(homes.kernel.fault_count(Fault::MirrorArriving) > 0);
    homes.observe(&data(path.back(), b"still shown\r\n"), &"answer");
    assert_eq!(homes.kernel.fault_count(Fault::MirrorDeparting), 0);
    assert!(ring.drain().last().is_some_and(|(_, bytes)| bytes.ends_with(b"still shown\r\n")));
}
