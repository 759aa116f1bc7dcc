use super::*;
use floodwall_wire::{Class, Reason, tables::Standing};
use proptest::prelude::*;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_000 + secs)
}

/// A UDP packet from 10.0.0.1:4000 to 10.0.0.2:10333.
fn packet(payload: &[u8]) -> Vec<u8> {
    let mut transport = vec![0x0f, 0xa0, 0x28, 0x5d];
    transport.extend(((payload.len() + 8) as u16).to_be_bytes());
    transport.extend([0, 0]);
    transport.extend(payload);
    transport
}

fn fragment_v4(identification: u16, offset: usize, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0]);
    frame.extend(((20 + payload.len()) as u16).to_be_bytes());
    frame.extend(identification.to_be_bytes());
    frame.extend(((offset / 8) as u16 | if more { 0x2000 } else { 0 }).to_be_bytes());
    frame.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(payload);
    frame.extend([0xee; 3]);
    frame
}

fn fragment_v6(identification: u32, offset: usize, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(((8 + payload.len()) as u16).to_be_bytes());
    frame.extend([IPV6_FRAGMENT, 64]);
    frame.extend([0xfd; 32]);
    frame.extend([17, 0]);
    frame.extend((offset as u16 | u16::from(more)).to_be_bytes());
    frame.extend(identification.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What the gate makes of a first fragment too short for its headers.
fn dropped() -> Passage {
    Passage::Arriving(Judgement {
        reason: Reason::ShapeHeader,
        service: 0,
        class: Class::Fragment,
        standing: Standing::Stranger,
        bytes: 0,
    })
}

/// The payload of what came out, by the same walk that the gate does.
fn payload_of(outcome: Outcome) -> (Vec<u8>, bool) {
    let Outcome::Complete(reassembled) = outcome else {
        panic!("not complete: {outcome:?}");
    };
    let headers = frame::walk(&SliceWindow::new(&reassembled.frame)).unwrap();
    assert_eq!((headers.source_port, headers.destination_port), (4_000, 10_333));
    let start = headers.datagram_offset() as usize;
    let payload = reassembled.frame[start..start + headers.datagram_bytes as usize].to_vec();
    assert_eq!(start + payload.len(), reassembled.frame.len());
    (payload, reassembled.has_conflict)
}

#[test]
fn a_whole_frame_is_none_of_its_business() {
    let mut reassembler = Reassembler::new(1);
    let frame = fragment_v4(1, 0, false, &packet(b"whole"));
    assert_eq!(reassembler.handle_frame(&frame, None, at(0)), Outcome::Whole);
    assert_eq!(reassembler.handle_frame(b"short", None, at(0)), Outcome::Whole);
    assert_eq!(reassembler.held(), (0, 0));
}

#[test]
fn pieces_in_any_order_make_the_packet_in_both_families() {
    let bytes: Vec<u8> = (0..200).collect();
    let whole = packet(&bytes);
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]] {
        let mut reassembler = Reassembler::new(1);
        let cuts = [(0, 64, true), (64, 128, true), (128, whole.len(), false)];
        let mut last = Outcome::Whole;
        for index in order {
            let (from, to, more) = cuts[index];
            last = reassembler.handle_frame(&fragment_v4(7, from, more, &whole[from..to]), None, at(0));
        }
        assert_eq!(payload_of(last), (bytes.clone(), false));
        let mut last = Outcome::Whole;
        for index in order {
            let (from, to, more) = cuts[index];
            last = reassembler.handle_frame(&fragment_v6(7, from, more, &whole[from..to]), None, at(0));
        }
        assert_eq!(payload_of(last), (bytes.clone(), false));
        assert_eq!(reassembler.held(), (0, 0));
    }
}

#[test]
fn the_first_copy_wins_and_a_different_one_is_told() {
    let whole = packet(b"login username=\"somebody\"");
    let mut other = whole.clone();
    other[20] ^= 0xff;
    let mut reassembler = Reassembler::new(1);
    reassembler.handle_frame(&fragment_v4(1, 16, false, &whole[16..]), None, at(0));
    reassembler.handle_frame(&fragment_v4(1, 16, false, &whole[16..]), None, at(0));
    reassembler.handle_frame(&fragment_v4(1, 16, false, &other[16..]), None, at(0));
    let outcome = reassembler.handle_frame(&fragment_v4(1, 0, true, &whole[..16]), None, at(0));
    assert_eq!(payload_of(outcome), (whole[8..].to_vec(), true));
}

#[test]
fn headers_for_routers_stay_in_front() {
    let whole = packet(b"behind two headers");
    let pieces = [(0, &whole[..16]), (16, &whole[16..])].map(|(offset, payload)| {
        let mut frame = fragment_v6(3, offset, offset == 0, payload);
        frame[20] = IPV6_HOP_BY_HOP;
        let extensions = [IPV6_DESTINATION, 0, 1, 4, 0, 0, 0, 0, IPV6_FRAGMENT, 0, 1, 4, 0, 0, 0, 0];
        frame.splice(54..54, extensions);
        let bytes = (frame.len() - 54) as u16;
        frame[18..20].copy_from_slice(&bytes.to_be_bytes());
        frame
    });
    let mut reassembler = Reassembler::new(1);
    assert_eq!(reassembler.handle_frame(&pieces[1], None, at(0)), Outcome::Waiting);
    let outcome = reassembler.handle_frame(&pieces[0], None, at(0));
    assert_eq!(payload_of(outcome), (b"behind two headers".to_vec(), false));
}

#[test]
fn a_packet_of_which_a_piece_breaks_the_shape_never_arrives() {
    let whole = packet(&[7; 40]);
    let mut reassembler = Reassembler::new(1);
    reassembler.handle_frame(&fragment_v4(1, 0, true, &whole[..16]), Some(dropped()), at(0));
    let outcome = reassembler.handle_frame(&fragment_v4(1, 16, false, &whole[16..]), None, at(0));
    assert_eq!(outcome, Outcome::Waiting);
    let outcome = reassembler.handle_frame(&fragment_v4(1, 0, true, &whole[..16]), None, at(1));
    assert_eq!(outcome, Outcome::Waiting);
}

#[test]
fn what_waits_too_long_is_given_up() {
    let whole = packet(&[7; 40]);
    let mut reassembler = Reassembler::new(1);
    reassembler.handle_frame(&fragment_v4(1, 0, true, &whole[..16]), None, at(0));
    let outcome = reassembler.handle_frame(&fragment_v4(1, 16, false, &whole[16..]), None, at(31));
    assert_eq!((outcome, reassembler.given_up()), (Outcome::Waiting, 1));
}

#[test]
fn contradicting_ends_and_overlong_packets_are_given_up() {
    let mut reassembler = Reassembler::new(1);
    reassembler.handle_frame(&fragment_v4(1, 16, false, &[1; 8]), None, at(0));
    reassembler.handle_frame(&fragment_v4(1, 32, true, &[1; 8]), None, at(0));
    assert_eq!(reassembler.handle_frame(&fragment_v4(1, 0, true, &[1; 16]), None, at(0)), Outcome::Waiting);
    let long = fragment_v4(2, 0xfff8, true, &[1; 64]);
    assert_eq!(reassembler.handle_frame(&long, None, at(0)), Outcome::Waiting);
    let (packets, bytes) = reassembler.held();
    assert_eq!((packets, bytes), (2, 2 * PIECE_BYTES), "remembered as spoilt");
}

#[test]
fn floods_of_pieces_stay_within_the_bounds() {
    let mut reassembler = Reassembler::new(1);
    for n in 0..20_000u32 {
        let frame = fragment_v4((n % 3_000) as u16, 8 * (n as usize / 3_000 * 2), true, &[1; 8]);
        reassembler.handle_frame(&frame, None, at(0));
    }
    let (packets, bytes) = reassembler.held();
    assert!(packets <= PACKETS_MAX && bytes <= PACKETS_MAX * PIECES_MAX * 2 * PIECE_BYTES);
    for n in 0..20_000u32 {
        let frame = fragment_v4((n / 40) as u16, 1_408 * (n as usize % 40), true, &[1; 1_400]);
        reassembler.handle_frame(&frame, None, at(1));
        assert!(reassembler.held().1 <= BYTES_MAX + 2_048);
    }
    assert!(reassembler.given_up() > 0);
}

proptest! {
    /// Any bytes where a fragment is expected: no panic, no bound broken.
    #[test]
    fn any_fragments_keep_the_bounds(
        frames in prop::collection::vec((0u16..4, 0usize..8_192, any::<bool>(), 0usize..1_500, any::<u8>()), 0..200)
    ) {
        let mut reassembler = Reassembler::new(1);
        for (id, offset, more, bytes, byte) in frames {
            let frame = fragment_v4(id, offset * 8, more, &vec![byte; bytes]);
            if let Outcome::Complete(whole) = reassembler.handle_frame(&frame, None, at(0)) {
                prop_assert!(whole.frame.len() <= PACKET_BYTES_MAX + 100);
            }
            prop_assert!(reassembler.held().1 <= 4 * (PACKET_BYTES_MAX + (PIECES_MAX + 1) * PIECE_BYTES * 2));
        }
    }

    /// Any cut at multiples of eight, in any order, with any piece twice.
    #[test]
    fn any_cut_makes_the_same_packet(
        bytes in prop::collection::vec(any::<u8>(), 1..2_000),
        dice in prop::collection::vec(any::<u16>(), 64),
    ) {
        let whole = packet(&bytes);
        let mut dice = dice.into_iter().cycle();
        let mut cuts = Vec::new();
        let mut from = 0;
        while from < whole.len() {
            let to = (from + 8 * (1 + usize::from(dice.next().unwrap_or(0) % 40))).min(whole.len());
            cuts.push((from, to));
            from = to;
        }
        let doubled: Vec<_> = cuts.iter().filter(|_| dice.next().unwrap_or(0) % 4 == 0).copied().collect();
        let end = whole.len();
        for index in 0..cuts.len() {
            let other = usize::from(dice.next().unwrap_or(0)) % cuts.len();
            cuts.swap(index, other);
        }
        let all: Vec<_> = doubled.into_iter().filter(|(_, to)| *to != end).chain(cuts).collect();
        let mut reassembler = Reassembler::new(1);
        let mut made = None;
        for (from, to) in all {
            let is_whole = (from, to) == (0, whole.len());
            let frame = fragment_v6(9, from, to < whole.len(), &whole[from..to]);
            let outcome = reassembler.handle_frame(&frame, None, at(0));
            prop_assert_eq!(outcome == Outcome::Whole, is_whole);
            if is_whole {
                return Ok(());
            }
            if let Outcome::Complete(_) = outcome {
                made.get_or_insert_with(|| payload_of(outcome));
            }
        }
        prop_assert_eq!(made, Some((bytes, false)));
    }
}
