//! What must hold for any bytes, and agreement with an independent packet builder.

use std::sync::{LazyLock, Mutex};

use etherparse::{IpFragOffset, PacketBuilder};
use floodwall_wire::{
    Address, Judgement, Verdict,
    frame::{self, Fragment, Transport, tcp_flags},
    judge,
    memory::Tables,
    observe,
    tables::{Port, Role, ServiceSettings, service_flags, status_flags},
    window::SliceWindow,
};
use proptest::prelude::*;

const TEAMTALK: u16 = 10_333;
const IRC: u16 = 6_667;
const TEAMSPEAK: u16 = 9_987;

/// Guards one port of each protocol everywhere, past the learning time.
fn tables() -> Tables {
    let mut tables = Tables::new(1);
    tables.set_port(0, Transport::Tcp, TEAMTALK, Port::guarded(0, Role::TeamTalk));
    tables.set_port(0, Transport::Udp, TEAMTALK, Port::guarded(0, Role::TeamTalk));
    tables.set_port(0, Transport::Tcp, IRC, Port::guarded(1, Role::IrcPlain));
    tables.set_port(0, Transport::Udp, TEAMSPEAK, Port::guarded(2, Role::TeamSpeakVoice));
    let flags = service_flags::REQUIRE_SESSION | service_flags::REQUIRE_OWN_ID;
    for service in 0..3 {
        tables.set_settings(0, service, ServiceSettings { flags, proof_for: 1_000, ..Default::default() });
    }
    tables.status_mut().flags |= status_flags::ANY_ADDRESS;
    tables.status_mut().heartbeat_until = u64::MAX;
    tables.set_now(1_000_000);
    tables
}

/// Shared by all cases: without limits a judgement changes nothing.
static TABLES: LazyLock<Mutex<Tables>> = LazyLock::new(|| Mutex::new(tables()));

fn judged(frame: &[u8]) -> Judgement {
    judge(&SliceWindow::new(frame), &*TABLES.lock().expect("no test panics with the lock"))
}

fn judge_and_observe(frame: &[u8]) {
    let mut tables = TABLES.lock().expect("no test panics with the lock");
    judge(&SliceWindow::new(frame), &*tables);
    observe(&SliceWindow::new(frame), &mut *tables);
}

/// A frame to a guarded port, by somebody else's hand.
fn built() -> impl Strategy<Value = (Vec<u8>, Built)> {
    let ports = prop::sample::select(vec![TEAMTALK, IRC, TEAMSPEAK, 53, 10_334]);
    let payload = prop::collection::vec(any::<u8>(), 0..200);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (any::<bool>(), any::<bool>(), 0usize..3, any::<u32>(), any::<u16>(), ports, payload, flags, any::<u32>())
        .prop_map(|(is_v6, is_tcp, tags, source, source_port, port, payload, flags, sequence)| {
            let built = Built { is_v6, is_tcp, tags, source, source_port, port, payload, flags, sequence };
            (built.frame(), built)
        })
}

#[derive(Clone, Debug)]
struct Built {
    is_v6: bool,
    is_tcp: bool,
    tags: usize,
    source: u32,
    source_port: u16,
    port: u16,
    payload: Vec<u8>,
    flags: (bool, bool, bool, bool),
    sequence: u32,
}

impl Built {
    fn source_v6(&self) -> [u8; 16] {
        (0x2001_0db8_u128 << 96 | u128::from(self.source)).to_be_bytes()
    }

    fn address(&self) -> Address {
        if self.is_v6 {
            let bits = u128::from_be_bytes(self.source_v6());
            Address::from_v6((bits >> 64) as u64, bits as u64)
        } else {
            Address::from_v4(self.source)
        }
    }

    fn frame(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let network = if self.is_v6 {
            ethernet.ipv6(self.source_v6(), [3; 16], 60)
        } else {
            ethernet.ipv4(self.source.to_be_bytes(), [10, 0, 0, 1], 60)
        };
        let mut frame = Vec::new();
        if self.is_tcp {
            let mut tcp = network.tcp(self.source_port, self.port, self.sequence, 1_000);
            tcp = if self.flags.0 { tcp.syn() } else { tcp };
            tcp = if self.flags.1 { tcp.ack(9) } else { tcp };
            tcp = if self.flags.2 { tcp.fin() } else { tcp };
            tcp = if self.flags.3 { tcp.rst() } else { tcp };
            tcp.write(&mut frame, &self.payload).expect("a frame");
        } else {
            network.udp(self.source_port, self.port).write(&mut frame, &self.payload).expect("a frame");
        }
        // The builder knows one tag layout; tags are put in by hand, outer (802.1ad) first.
        for tag in 0..self.tags {
            let kind = if tag + 1 == self.tags && tag > 0 { [0x88, 0xa8] } else { [0x81, 0x00] };
            frame.splice(12..12, [kind[0], kind[1], 0, 7]);
        }
        frame
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn headers_agree_with_the_builder((frame, built) in built()) {
        let headers = frame::walk(&SliceWindow::new(&frame)).expect("a packet");
        prop_assert_eq!(headers.source, built.address());
        prop_assert_eq!(headers.source_port, built.source_port);
        prop_assert_eq!(headers.destination_port, built.port);
        prop_assert_eq!(headers.fragment, Fragment::Whole);
        let payload = if built.is_tcp {
            let tcp = headers.tcp(&SliceWindow::new(&frame)).expect("a TCP header");
            prop_assert_eq!(tcp.sequence, built.sequence);
            for (set, flag) in [
                (built.flags.0, tcp_flags::SYN),
                (built.flags.1, tcp_flags::ACK),
                (built.flags.2, tcp_flags::FIN),
                (built.flags.3, tcp_flags::RST),
            ] {
                prop_assert_eq!(tcp.flags & flag != 0, set);
            }
            (tcp.payload_offset, tcp.payload_bytes)
        } else {
            (headers.datagram_offset(), headers.datagram_bytes)
        };
        let start = payload.0 as usize;
        prop_assert_eq!(&frame[start..start + payload.1 as usize], built.payload.as_slice());
    }

    #[test]
    fn padding_and_trailers_change_nothing((frame, _) in built(), trailer in prop::collection::vec(any::<u8>(), 1..40)) {
        let mut padded = frame.clone();
        padded.resize(frame.len().max(60), 0);
        let mut trailed = frame.clone();
        trailed.extend_from_slice(&trailer);
        prop_assert_eq!(judged(&padded), judged(&frame));
        prop_assert_eq!(judged(&trailed), judged(&frame));
    }

    #[test]
    fn ports_that_are_not_guarded_pass_unread((frame, built) in built()) {
        let judgement = judged(&frame);
        if built.port == 53 || built.port == 10_334 {
            prop_assert!(!judgement.is_guarded());
            prop_assert_eq!(judgement.verdict(), Verdict::Pass);
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_never_dropped_for_what_cannot_be_read((frame, _) in built(), cut in 0usize..300) {
        let whole = judged(&frame);
        let cut = judged(&frame[..cut.min(frame.len())]);
        // A snapped packet may lose its shape check, never gain one.
        if whole.verdict() == Verdict::Pass {
            prop_assert!(cut.verdict() == Verdict::Pass || cut.reason == whole.reason, "{:?} {:?}", cut, whole);
        }
    }

    #[test]
    fn any_bytes_are_judged_and_observed_without_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        ethertype in prop::sample::select(vec![0x0800u16, 0x86dd, 0x8100, 0x88a8, 0x0806]),
        version in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60, 0x00]),
    ) {
        if bytes.len() > 15 {
            bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
            bytes[14] = version;
        }
        judge_and_observe(&bytes);
    }

    #[test]
    fn a_packet_with_any_bytes_changed_is_judged_without_panic(
        (mut frame, _) in built(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for (index, byte) in changes {
            let at = index.index(frame.len());
            frame[at] = byte;
        }
        judge_and_observe(&frame);
    }
}

#[test]
fn later_fragments_pass_and_first_fragments_too_short_are_dropped() {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 9], [10, 0, 0, 1], 60);
    packet.tcp(4_000, TEAMTALK, 1, 1_000).ack(1).write(&mut frame, b"").expect("a frame");
    let set_fragment = |frame: &mut Vec<u8>, more: bool, offset: u16| {
        let field = u16::from(more) << 13 | IpFragOffset::try_new(offset).expect("an offset").value();
        frame[20..22].copy_from_slice(&field.to_be_bytes());
    };
    let mut later = frame.clone();
    set_fragment(&mut later, true, 3);
    assert_eq!(judged(&later).verdict(), Verdict::Pass);
    let mut tiny = frame;
    set_fragment(&mut tiny, true, 0);
    tiny[16..18].copy_from_slice(&28u16.to_be_bytes());
    assert_eq!(judged(&tiny).reason, floodwall_wire::Reason::ShapeHeader);
}

/// Whoever sends a file hears nothing else of the server; later anybody could have it said to somebody else.
#[test]
fn an_acknowledgement_alone_proves_while_the_gate_learns_and_never_later() {
    let departing = |is_syn: bool| {
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 9], 60);
        let segment = packet.tcp(TEAMTALK, 4_000, 1, 1_000).ack(1);
        let segment = if is_syn { segment.syn() } else { segment };
        segment.write(&mut frame, b"").expect("a frame");
        frame
    };
    let mut tables = tables();
    assert!(!observe(&SliceWindow::new(&departing(false)), &mut tables).proves);
    tables.status_mut().learning_until = u64::MAX;
    assert!(!observe(&SliceWindow::new(&departing(true)), &mut tables).proves, "it answers whoever asks");
    assert!(observe(&SliceWindow::new(&departing(false)), &mut tables).proves);
}
