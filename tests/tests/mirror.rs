//! The mirror shows the controller what it must see, whole and in order, and no media; nobody can blind it.

use floodwall_kernel::{KernelTables, Ring};
use floodwall_tests::{
    Homes,
    packets::{Path, data, tcp, udp, voice},
};
use floodwall_wire::{
    Reason, SourceKey, Verdict,
    frame::{Transport, tcp_flags},
    mirror::{ARRIVING, CHUNK_BYTES, DEPARTING, Record},
    tables::{Fault, FlowKey, Port, Role, ServiceSettings, Source, names, status_flags},
};

const SERVER: &str = "192.0.2.1";

/// A guarded TeamTalk port and the reader's end of the mirror.
fn open(test: &str) -> Option<(Homes, Ring)> {
    let mut homes = Homes::open(test)?;
    for transport in [Transport::Tcp, Transport::Udp] {
        homes.set_port(0, transport, 10_333, Port::guarded(0, Role::TeamTalk));
    }
    homes.set_settings(0, 0, ServiceSettings { proof_for: u64::MAX / 2, ..ServiceSettings::default() });
    homes.set_status(|status| {
        status.flags |= status_flags::ANY_ADDRESS;
        status.heartbeat_until = u64::MAX;
    });
    homes.set_now(5_000);
    let ring = Ring::map(homes.kernel.map(names::MIRROR)).expect("the ring can be mapped");
    Some((homes, ring))
}

fn drain(ring: &mut Ring) -> Vec<(Record, Vec<u8>)> {
    let mut records = Vec::new();
    ring.drain(usize::MAX, |record, bytes| records.push((*record, bytes.to_vec())));
    records
}

fn client(number: u8) -> Path {
    Path::new(&format!("198.51.100.{number}"), SERVER, 10_333)
}

fn long() -> Vec<u8> {
    (0..3_000_u32).map(|number| number as u8).collect()
}

#[test]
fn control_channel_is_shown_in_chunks_and_media_is_not() {
    let Some((mut homes, mut ring)) = open("control_channel_is_shown_in_chunks_and_media_is_not") else {
        return;
    };
    let (path, long) = (client(7), long());
    homes.judge(&tcp(path, tcp_flags::SYN, b""), &"SYN");
    homes.judge(&data(path, b"login\r\n"), &"login");
    homes.judge(&tcp(path, tcp_flags::ACK, b""), &"a client's ACK");
    homes.observe(&data(path.back(), b"accepted\r\n"), &"answer");
    homes.observe(&tcp(path.back(), tcp_flags::ACK, b""), &"a server's ACK");
    homes.judge(&udp(path, &voice(5, 100)), &"voice");
    homes.judge(&data(path, &long), &"a long segment");

    let records = drain(&mut ring);
    let seen: Vec<_> =
        records.iter().map(|(r, _)| (r.direction, r.packet_bytes, r.chunk_offset, r.chunk_bytes)).collect();
    let (chunk, rest) = (CHUNK_BYTES as u32, 3_040 - CHUNK_BYTES as u16);
    assert_eq!(
        seen,
        [
            (ARRIVING, 40, 0, 40),
            (ARRIVING, 47, 0, 47),
            (ARRIVING, 40, 0, 40),
            (DEPARTING, 50, 0, 50),
            (DEPARTING, 40, 0, 40),
            (ARRIVING, 3_040, 0, CHUNK_BYTES as u16),
            (ARRIVING, 3_040, chunk, rest),
        ]
    );
    assert!(records.iter().all(|(record, _)| record.at == 5_000));
    assert!(records[1].1.ends_with(b"login\r\n") && records[3].1.ends_with(b"accepted\r\n"));
    assert_eq!([&records[5].1[40..], &records[6].1[..]].concat(), long);
    for fault in Fault::ALL {
        assert_eq!(homes.kernel.fault_count(fault), 0, "{}", fault.as_str());
    }
}

#[test]
fn what_is_dropped_is_shown_as_a_bounded_sample() {
    let Some((mut homes, mut ring)) = open("what_is_dropped_is_shown_as_a_bounded_sample") else { return };
    let path = client(9);
    let banned = Source { banned_until: u64::MAX, ..Source::default() };
    homes.insert_source(SourceKey::of(path.source.into()), &banned);
    for _ in 0..2_000 {
        homes.judge(&data(path, &long()), &"banned");
    }
    let records = drain(&mut ring);
    assert!((190..=210).contains(&records.len()), "{} of 2000", records.len());
    for (record, bytes) in &records {
        assert_eq!((record.reason, record.chunk_offset), (Reason::BanAddress as u8, 0));
        assert!(bytes.len() <= 128, "{} bytes", bytes.len());
    }
    // A sample that is left out is no loss.
    assert_eq!(homes.kernel.fault_count(Fault::MirrorAllowance), 0);
}

#[test]
fn a_flood_at_the_control_port_hides_no_answer_and_nobody_else() {
    let Some((mut homes, mut ring)) = open("a_flood_at_the_control_port_hides_no_answer_and_nobody_else")
    else {
        return;
    };
    let (long, regular) = (long(), client(7));
    // One source: it stops being shown at its own allowance, long before the ring is full.
    for _ in 0..1_000 {
        homes.judge(&data(client(8), &long), &"flood");
    }
    assert!(homes.kernel.fault_count(Fault::MirrorAllowance) > 0);
    assert_eq!(homes.kernel.fault_count(Fault::MirrorArriving), 0);
    homes.judge(&data(regular, b"hello\r\n"), &"a regular");
    assert!(drain(&mut ring).last().is_some_and(|(_, bytes)| bytes.ends_with(b"hello\r\n")));
    // Many sources: what arrives stops at three quarters, what departs goes on.
    for number in 10..40 {
        for _ in 0..120 {
            homes.judge(&data(client(number), &long), &"flood");
        }
    }
    assert!(homes.kernel.fault_count(Fault::MirrorArriving) > 0);
    let answers = 1_000;
    for number in 0..answers {
        homes.observe(&data(regular.back(), format!("answer {number}\r\n").as_bytes()), &"answer");
    }
    assert_eq!(homes.kernel.fault_count(Fault::MirrorDeparting), 0);
    let records = drain(&mut ring);
    assert_eq!(records.iter().filter(|(record, _)| record.direction == DEPARTING).count(), answers);
}

#[test]
fn forged_syns_and_what_they_provoke_have_an_allowance_of_their_own() {
    let Some((mut homes, mut ring)) =
        open("forged_syns_and_what_they_provoke_have_an_allowance_of_their_own")
    else {
        return;
    };
    for number in 0..8_000_u32 {
        let [_, _, c, d] = number.to_be_bytes();
        let path = Path::new(&format!("203.0.{c}.{d}"), SERVER, 10_333);
        homes.judge(&tcp(path, tcp_flags::SYN, b""), &"SYN");
        homes.observe(&tcp(path.back(), tcp_flags::SYN | tcp_flags::ACK, b""), &"SYN and ACK");
    }
    let records = drain(&mut ring);
    for direction in [ARRIVING, DEPARTING] {
        let shown = records.iter().filter(|(record, _)| record.direction == direction).count();
        assert!((4_900..=5_100).contains(&shown), "{shown} in direction {direction}");
    }
    homes.observe(&tcp(client(7).back(), tcp_flags::ACK, b""), &"an acknowledgement");
    assert_eq!(drain(&mut ring).len(), 1);
}

#[test]
fn an_opaque_connection_is_cut_from_the_mirror_until_it_ends() {
    let Some((mut homes, mut ring)) = open("an_opaque_connection_is_cut_from_the_mirror_until_it_ends")
    else {
        return;
    };
    let path = client(7);
    let tables = KernelTables::open(homes.kernel.object()).expect("the tables can be opened");
    let flow =
        FlowKey::new(path.source.into(), path.source_port, path.destination.into(), path.destination_port);
    tables.set_opaque(&flow).expect("a flow can be cut");
    homes.judge(&data(path, b"encrypted"), &"payload");
    homes.observe(&data(path.back(), b"encrypted"), &"payload");
    homes.judge(&data(client(8), b"plain"), &"somebody else's");
    homes.judge(&tcp(path, tcp_flags::RST, b""), &"the end");
    let shown: Vec<_> = drain(&mut ring).into_iter().map(|(record, _)| record.packet_bytes).collect();
    assert_eq!(shown, [45, 40]);
    tables.clear_opaque(&flow).expect("a flow can be shown again");
    homes.judge(&data(path, b"plain"), &"payload");
    assert_eq!(drain(&mut ring).len(), 1);
}

#[test]
fn in_alarm_no_stranger_speaks_unread() {
    let Some((mut homes, mut ring)) = open("in_alarm_no_stranger_speaks_unread") else { return };
    homes.set_status(|status| status.levels[0] = 1 << 8);
    let (stranger, known) = (client(8), client(7));
    let entry = Source { known_until: u64::MAX, ..Source::default() };
    homes.insert_source(SourceKey::of(known.source.into()), &entry);
    let outcomes = |homes: &mut Homes, path| -> Vec<(Verdict, Reason)> {
        (0..1_000)
            .map(|_| {
                let (verdict, judgement) = homes.kernel.judge(&data(path, &long()));
                (verdict, judgement.reason)
            })
            .collect()
    };
    let refused = outcomes(&mut homes, stranger);
    assert_eq!(refused.first(), Some(&(Verdict::Pass, Reason::Admitted)));
    assert_eq!(refused.last(), Some(&(Verdict::Drop, Reason::MirrorFull)));
    assert_eq!(outcomes(&mut homes, known).last(), Some(&(Verdict::Pass, Reason::Admitted)));
    drain(&mut ring);
    // What rests on the level is suspended while the controller is away.
    homes.set_status(|status| status.heartbeat_until = 0);
    assert_eq!(outcomes(&mut homes, stranger).last(), Some(&(Verdict::Pass, Reason::Admitted)));
}
