//! What is said means the same in fragments: guarded packets of both families and transports are cut at IP, reordered,
//! doubled and contradicted, and `replay` reports the same signals.

use std::collections::BTreeMap;

use crate::records::{Record, read, report_of};

const CAPTURES: [&str; 5] = [
    "teamtalk/01_baseline_session",
    "teamtalk/03_login_storm_single",
    "teamtalk/11_udp_masquerade",
    "teamtalk/18_ipv6",
    "irc/hybrid-oper",
];
const GUARDED: [u16; 2] = [10_333, 6_667];
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT_HEADER: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// An IP packet in its parts.
struct Packet<'a> {
    /// Ethernet and IP headers.
    head: &'a [u8],
    is_v6: bool,
    protocol: u8,
    transport: &'a [u8],
    comes_from_client: bool,
}

impl<'a> Packet<'a> {
    /// `None` for what is not to or from a guarded port.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let is_v6 = bytes.get(12..14)? == [0x86, 0xdd];
        let (protocol, head_bytes, total) = if is_v6 {
            (bytes[20], 54, 54 + usize::from(u16::from_be_bytes([bytes[18], bytes[19]])))
        } else if bytes.get(12..14)? == [8, 0] {
            let total = 14 + usize::from(u16::from_be_bytes([bytes[16], bytes[17]]));
            (bytes[23], 14 + usize::from(bytes[14] & 15) * 4, total)
        } else {
            return None;
        };
        let transport = bytes.get(head_bytes..total)?;
        if ![TCP, UDP].contains(&protocol) {
            return None;
        }
        let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
        let comes_from_client = GUARDED.contains(&port(2));
        (comes_from_client || GUARDED.contains(&port(0))).then_some(Self {
            head: &bytes[..head_bytes],
            is_v6,
            protocol,
            transport,
            comes_from_client,
        })
    }

    /// Cut at multiples of eight; the first piece holds the transport header and a little more. Whole, if it is too short.
    fn cuts(&self) -> Vec<(usize, usize)> {
        let header = if self.protocol == TCP { usize::from(self.transport[12] >> 4) * 4 } else { 8 };
        let first = (header + 8).next_multiple_of(8);
        let mut cuts = Vec::new();
        let mut at = 0;
        while at < self.transport.len() {
            let size = if at == 0 { first } else { 24 };
            let end = (at + size).min(self.transport.len());
            cuts.push((at, end));
            at = end;
        }
        // Very long ones exceed the pieces of one packet that are kept; the rest goes in one.
        if cuts.len() > 40 {
            cuts.truncate(40);
            cuts.push((cuts[39].1, self.transport.len()));
        }
        cuts
    }

    fn fragment(&self, identification: u16, from: usize, payload: &[u8], behind_options: bool) -> Vec<u8> {
        let is_last = from + payload.len() == self.transport.len();
        let mut frame = self.head.to_vec();
        if self.is_v6 {
            let options: &[u8] = if behind_options { &[FRAGMENT_HEADER, 0, 1, 4, 0, 0, 0, 0] } else { &[] };
            frame[20] = if behind_options { DESTINATION_OPTIONS } else { FRAGMENT_HEADER };
            frame[18..20].copy_from_slice(&((options.len() + 8 + payload.len()) as u16).to_be_bytes());
            frame.extend_from_slice(options);
            frame.extend([self.protocol, 0]);
            frame.extend((from as u16 | u16::from(!is_last)).to_be_bytes());
            frame.extend(u32::from(identification).to_be_bytes());
        } else {
            let total = frame.len() - 14 + payload.len();
            frame[16..18].copy_from_slice(&(total as u16).to_be_bytes());
            frame[18..20].copy_from_slice(&identification.to_be_bytes());
            let field = (from / 8) as u16 | if is_last { 0 } else { 0x2000 };
            frame[20..22].copy_from_slice(&field.to_be_bytes());
        }
        frame.extend_from_slice(payload);
        frame
    }
}

/// How the pieces of one packet are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sending {
    InOrder,
    Backwards,
    /// The second half first, behind another extension header.
    Rotated,
    /// Each piece begins with the last eight bytes of the one before.
    Overlapping,
    /// A client's packets also come with other bytes for a place that is filled already.
    Contradicted,
}

/// Cuts every guarded packet that can be cut; answers how many were contradicted.
fn cut(records: &[Record], sending: Sending) -> (Vec<Record>, u64) {
    let mut sent = Vec::new();
    let mut contradicted = 0;
    let mut identification = 0u16;
    for (at, wire, bytes) in records {
        let parsed = Packet::parse(bytes).map(|packet| (packet.cuts(), packet));
        let Some((cuts, packet)) = parsed.filter(|(cuts, _)| cuts.len() > 1) else {
            sent.push((*at, *wire, bytes.clone()));
            continue;
        };
        identification = identification.wrapping_add(1);
        let behind_options = sending == Sending::Rotated;
        let piece = |from: usize, to: usize| {
            packet.fragment(identification, from, &packet.transport[from..to], behind_options)
        };
        let mut pieces: Vec<Vec<u8>> = cuts.iter().map(|(from, to)| piece(*from, *to)).collect();
        match sending {
            Sending::InOrder => {}
            Sending::Backwards => pieces.reverse(),
            Sending::Rotated => pieces.rotate_left(cuts.len() / 2),
            Sending::Overlapping => {
                pieces = cuts.iter().map(|(from, to)| piece(from.saturating_sub(8), *to)).collect();
            }
            Sending::Contradicted if packet.comes_from_client && cuts.len() > 2 => {
                let (from, to) = cuts[1];
                let other: Vec<u8> = packet.transport[from..to].iter().map(|byte| byte ^ 1).collect();
                pieces.insert(2, packet.fragment(identification, from, &other, false));
                contradicted += 1;
            }
            Sending::Contradicted => {}
        }
        sent.extend(pieces.into_iter().map(|piece| (*at, piece.len() as u32, piece)));
    }
    (sent, contradicted)
}

fn signals(records: &[Record]) -> BTreeMap<String, u64> {
    let report = report_of(records);
    let signals = report["signals"].as_object().expect("signals").iter();
    signals.map(|(kind, count)| (kind.clone(), count.as_u64().expect("a count"))).collect()
}

#[test]
fn fragments_in_any_order_mean_what_the_packet_means() {
    for name in CAPTURES {
        let records = read(name);
        let whole = signals(&records);
        assert!(whole.values().sum::<u64>() > 20, "{name} says hardly anything");
        for sending in [Sending::InOrder, Sending::Backwards, Sending::Rotated, Sending::Overlapping] {
            let (sent, _) = cut(&records, sending);
            assert!(sent.len() > records.len(), "{name}: nothing to cut");
            assert_eq!(signals(&sent), whole, "{name}, {sending:?}");
        }
    }
}

#[test]
fn the_first_copy_of_a_fragment_counts_and_a_different_one_is_told() {
    for name in CAPTURES {
        let records = read(name);
        let (sent, contradicted) = cut(&records, Sending::Contradicted);
        assert!(contradicted > 0, "{name}: nothing to contradict");
        let mut expected = signals(&records);
        expected.insert("fragment.conflict".to_owned(), contradicted);
        assert_eq!(signals(&sent), expected, "{name}");
    }
}
