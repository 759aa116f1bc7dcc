//! TeamSpeak 3 packets as a client sends them (`protocols/teamspeak.md` 2, 3). All fields big-endian.

use super::{Datagram, Payload, Rest, Shape};
use crate::{Class, Reason, Window};

const HEADER_BYTES: u32 = 13;
/// TeamSpeak 3 ends at 500; later clients may send more (`teamspeak.md` 7), so the bound is a frame's.
const DATAGRAM_BYTES_MAX: u32 = 1500;

/// The MAC field of every handshake packet: `TS3INIT1`.
pub const HANDSHAKE_MAGIC: u64 = u64::from_be_bytes(*b"TS3INIT1");
/// Packet id 101 and client id 0 of every handshake packet.
const HANDSHAKE_IDS: u32 = 101 << 16;
/// Type 8 with only the "unencrypted" flag.
pub const HANDSHAKE_TYPE: u8 = 0x88;

const UNENCRYPTED: u8 = 0x80;
const NEW_PROTOCOL: u8 = 0x20;

/// Tells what a datagram claims to be.
#[inline(always)]
pub fn classify<W: Window>(window: &W, payload: Payload) -> Datagram {
    let class = match window.read_u8(payload.offset + 12) {
        Some(kind) if payload.bytes >= HEADER_BYTES => match kind & 0x0f {
            0 | 1 => Class::UdpVoice,
            2 | 3 | 6 | 7 => Class::UdpCommand,
            4 | 5 => Class::UdpKeepalive,
            8 => Class::UdpHandshake,
            _ => Class::UdpOther,
        },
        _ => Class::UdpOther,
    };
    Datagram { class, user_id: 0 }
}

/// Checks a client's datagram.
#[inline(always)]
pub fn check<W: Window>(window: &W, payload: Payload) -> Shape {
    if payload.bytes < HEADER_BYTES || payload.bytes > DATAGRAM_BYTES_MAX {
        return Shape::Breaks(Reason::ShapeLength);
    }
    if !payload.whole {
        return Shape::Unreadable;
    }
    let Some(magic) = window.read_u64(payload.offset) else { return Shape::Unreadable };
    let Some(kind) = window.read_u8(payload.offset + 12) else { return Shape::Unreadable };
    if magic == HANDSHAKE_MAGIC {
        let Payload { offset, bytes, .. } = payload;
        return window.check_rest(Rest::Handshake { offset, bytes });
    }
    check_session_packet(payload.bytes - HEADER_BYTES, kind)
}

/// Flags and length by type.
#[inline(always)]
fn check_session_packet(body_bytes: u32, kind: u8) -> Shape {
    let flags = kind & 0xf0;
    let (flags_fit, length_fits) = match kind & 0x0f {
        // Voice: end of stream is three bytes.
        0 => (flags & !UNENCRYPTED == 0, body_bytes >= 3),
        1 => (flags & !(UNENCRYPTED | NEW_PROTOCOL) == 0, body_bytes >= 5),
        // Commands are always encrypted and always "new protocol"; compressed and fragment flags may be set.
        2 | 3 => (flags & (UNENCRYPTED | NEW_PROTOCOL) == NEW_PROTOCOL, body_bytes >= 1),
        4 => (flags & !NEW_PROTOCOL == UNENCRYPTED, body_bytes == 0),
        5 => (flags & !NEW_PROTOCOL == UNENCRYPTED, body_bytes == 2),
        6 | 7 => (flags & !NEW_PROTOCOL == 0, body_bytes == 2),
        _ => (false, true),
    };
    if !flags_fit {
        Shape::Breaks(Reason::ShapeKind)
    } else if !length_fits {
        Shape::Breaks(Reason::ShapeLength)
    } else {
        Shape::Fits
    }
}

/// The three client steps of TS3INIT1.
#[inline(always)]
pub fn check_handshake<W: Window>(window: &W, offset: u32, bytes: u32) -> Shape {
    const BROKEN: Shape = Shape::Breaks(Reason::ShapeHandshake);
    let Some(kind) = window.read_u8(offset + 12) else { return Shape::Unreadable };
    let Some(ids) = window.read_u32(offset + 8) else { return Shape::Unreadable };
    if ids != HANDSHAKE_IDS || kind != HANDSHAKE_TYPE || bytes < 34 {
        return BROKEN;
    }
    let Some(step) = window.read_u8(offset + 17) else { return Shape::Unreadable };
    match step {
        0 => {
            let Some(zero) = window.read_u64(offset + 26) else { return Shape::Unreadable };
            if bytes == 34 && zero == 0 { Shape::Fits } else { BROKEN }
        }
        2 => {
            if bytes == 38 {
                Shape::Fits
            } else {
                BROKEN
            }
        }
        4 => check_solution(window, offset, bytes),
        _ => BROKEN,
    }
}

/// Step 4: an odd modulus, a solution that is not all zero, the identity's text behind it.
#[inline(always)]
fn check_solution<W: Window>(window: &W, offset: u32, bytes: u32) -> Shape {
    const MODULUS_LAST: u32 = 145;
    const SOLUTION: u32 = 250;
    const TEXT: u32 = 314;
    const BROKEN: Shape = Shape::Breaks(Reason::ShapeHandshake);
    if bytes < TEXT + 20 {
        return BROKEN;
    }
    let Some(modulus) = window.read_u8(offset + MODULUS_LAST) else { return Shape::Unreadable };
    let Some(text) = window.read_u64(offset + TEXT) else { return Shape::Unreadable };
    if modulus & 1 == 0 || text != u64::from_be_bytes(*b"clientin") {
        return BROKEN;
    }
    let mut solution = 0;
    let mut at = SOLUTION;
    while at < TEXT {
        let Some(part) = window.read_u64(offset + at) else { return Shape::Unreadable };
        solution |= part;
        at += 8;
    }
    if solution == 0 { BROKEN } else { Shape::Fits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::SliceWindow;

    fn shape(datagram: &[u8]) -> Shape {
        let mut frame = vec![0xee; 42];
        frame.extend_from_slice(datagram);
        let payload = Payload { offset: 42, bytes: datagram.len() as u32, whole: true };
        check(&SliceWindow::new(&frame), payload)
    }

    fn handshake(step: u8, bytes: usize) -> Vec<u8> {
        let mut datagram = b"TS3INIT1\x00\x65\x00\x00\x88\x06\x3b\xec\xe9".to_vec();
        datagram.push(step);
        datagram.resize(bytes, 0);
        datagram
    }

    fn packet(kind: u8, body_bytes: usize) -> Vec<u8> {
        let mut datagram = vec![0x5a; 13 + body_bytes];
        datagram[12] = kind;
        datagram
    }

    #[test]
    fn client_steps_have_exact_lengths() {
        assert_eq!(shape(&handshake(0, 34)), Shape::Fits);
        assert_eq!(shape(&handshake(2, 38)), Shape::Fits);
        for (step, bytes) in [(0, 35), (2, 34), (1, 34), (3, 244), (4, 314), (127, 34)] {
            assert_eq!(shape(&handshake(step, bytes)), Shape::Breaks(Reason::ShapeHandshake), "step {step}");
        }
        let mut dirty = handshake(0, 34);
        dirty[33] = 1;
        assert_eq!(shape(&dirty), Shape::Breaks(Reason::ShapeHandshake));
    }

    #[test]
    fn a_solution_has_an_odd_modulus_a_result_and_an_identity() {
        let mut solution = handshake(4, 470);
        solution[145] = 1;
        solution[260] = 9;
        solution[314..327].copy_from_slice(b"clientinitiv ");
        assert_eq!(shape(&solution), Shape::Fits);
        for at in [145, 260, 314] {
            let mut broken = solution.clone();
            broken[at] = 0;
            assert_eq!(shape(&broken), Shape::Breaks(Reason::ShapeHandshake), "byte {at}");
        }
    }

    #[test]
    fn types_flags_and_lengths_of_the_session() {
        for (kind, body_bytes) in [
            (0x00, 3),
            (0x80, 160),
            (0x01, 5),
            (0xa1, 13),
            (0x22, 175),
            (0x32, 400),
            (0x62, 20),
            (0x84, 0),
            (0xa4, 0),
            (0x85, 2),
            (0x06, 2),
            (0x27, 2),
        ] {
            assert_eq!(shape(&packet(kind, body_bytes)), Shape::Fits, "type byte {kind:#x}");
        }
        for kind in [0x08, 0x88, 0x0f, 0x09, 0x10, 0x02, 0xa2, 0x04, 0x86] {
            assert_eq!(shape(&packet(kind, 3)), Shape::Breaks(Reason::ShapeKind), "type byte {kind:#x}");
        }
        for (kind, body_bytes) in [(0x00, 2), (0x84, 1), (0x85, 0), (0x06, 3), (0x22, 0)] {
            assert_eq!(shape(&packet(kind, body_bytes)), Shape::Breaks(Reason::ShapeLength), "{kind:#x}");
        }
        assert_eq!(shape(&[0; 12]), Shape::Breaks(Reason::ShapeLength));
    }
}
