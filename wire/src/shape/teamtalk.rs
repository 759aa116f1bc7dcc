//! The TeamTalk 5 datagram grammar (`protocols/teamtalk.md` c.1, c.2, c.6). All fields little-endian.

use super::{Datagram, Payload, Rest, Shape};
use crate::{Class, Reason, Window};

const HEADER_BYTES: u32 = 8;
const HEADER_WITH_DESTINATION_BYTES: u32 = 10;
const FIELD_HEADER_BYTES: u32 = 2;
/// Longest datagram of the protocol.
const DATAGRAM_BYTES_MAX: u32 = 1350;
/// Fields walked before the chain is left unjudged. Clients send at most a handful.
const FIELDS_MAX: u32 = 24;

/// Length of the hello of a TeamTalk 4 client, and how it begins, in either order (`teamtalk.md` a.10). TeamTalk 5 has no
/// datagram of this length of these kinds.
const OLDER_HELLO_BYTES: u32 = 10;
const OLDER_HELLO_STARTS: [u32; 2] = [0x0201, 0x0102];

/// Highest user or channel id; 0 is the server, 4095 is reserved.
pub const ID_MAX: u32 = 0xffe;

const KIND_HELLO: u32 = 1;
const KIND_KEEPALIVE: u32 = 2;
/// Kinds from here to the last carry a destination user, marked by the top bit of the first byte.
const KIND_WITH_DESTINATION: u32 = 19;
const KIND_MAX: u32 = 22;

/// The first four bytes: kind and destination mark, source user id, channel id.
#[derive(Clone, Copy)]
struct Start {
    kind: u32,
    has_destination: bool,
    user_id: u32,
    channel_id: u32,
}

impl Start {
    #[inline(always)]
    fn read<W: Window>(window: &W, offset: u32) -> Option<Self> {
        let word = match window.read_u32(offset) {
            Some(word) => word.swap_bytes(),
            None => return None,
        };
        Some(Self {
            kind: word & 0x7f,
            has_destination: word & 0x80 != 0,
            user_id: (word >> 8) & 0xfff,
            channel_id: (word >> 20) & 0xfff,
        })
    }
}

/// Tells what a datagram claims to be.
#[inline(always)]
pub fn classify<W: Window>(window: &W, payload: Payload) -> Datagram {
    const OTHER: Datagram = Datagram { class: Class::UdpOther, user_id: 0 };
    if payload.bytes < HEADER_BYTES {
        return OTHER;
    }
    if let Some(user_id) = older_hello(window, payload) {
        return Datagram { class: Class::UdpHello, user_id };
    }
    let Some(start) = Start::read(window, payload.offset) else { return OTHER };
    let class = match start.kind {
        KIND_HELLO => Class::UdpHello,
        KIND_KEEPALIVE => Class::UdpKeepalive,
        3 | 4 => Class::UdpVoice,
        5 | 6 => Class::UdpVideo,
        7..=10 => Class::UdpMedia,
        11..=22 => Class::UdpDesktop,
        _ => Class::UdpOther,
    };
    Datagram { class, user_id: start.user_id as u16 }
}

/// The user id in the hello of a TeamTalk 4 client.
#[inline(always)]
fn older_hello<W: Window>(window: &W, payload: Payload) -> Option<u16> {
    if payload.bytes != OLDER_HELLO_BYTES {
        return None;
    }
    let word = match window.read_u32(payload.offset) {
        Some(word) => word.swap_bytes(),
        None => return None,
    };
    let begins = word & 0xffff;
    let user_id = word >> 16;
    let fits = (begins == OLDER_HELLO_STARTS[0] || begins == OLDER_HELLO_STARTS[1])
        && user_id != 0
        && user_id <= ID_MAX;
    if fits { Some(user_id as u16) } else { None }
}

/// Checks a client's datagram against the grammar.
#[inline(always)]
pub fn check<W: Window>(window: &W, payload: Payload) -> Shape {
    if payload.bytes < HEADER_BYTES || payload.bytes > DATAGRAM_BYTES_MAX {
        return Shape::Breaks(Reason::ShapeLength);
    }
    if older_hello(window, payload).is_some() {
        return Shape::Fits;
    }
    let Some(start) = Start::read(window, payload.offset) else { return Shape::Unreadable };
    if start.kind == 0 || start.kind > KIND_MAX {
        return Shape::Breaks(Reason::ShapeKind);
    }
    if start.has_destination != (start.kind >= KIND_WITH_DESTINATION) {
        return Shape::Breaks(Reason::ShapeKind);
    }
    if start.user_id == 0 || start.user_id > ID_MAX {
        return Shape::Breaks(Reason::ShapeId);
    }
    match start.kind {
        KIND_HELLO => check_hello(window, payload, start),
        KIND_KEEPALIVE => check_keepalive(window, payload, start),
        _ => check_media(window, payload, start),
    }
}

/// Eleven bytes: the header and one field of type 1 and length 1, the packet protocol.
#[inline(always)]
fn check_hello<W: Window>(window: &W, payload: Payload, start: Start) -> Shape {
    if payload.bytes != 11 || start.channel_id != 0 {
        return Shape::Breaks(Reason::ShapeHandshake);
    }
    let Some(field) = window.read_u16(payload.offset + 8) else { return Shape::Unreadable };
    let Some(protocol) = window.read_u8(payload.offset + 10) else { return Shape::Unreadable };
    if field != 0x0110 || protocol == 0 { Shape::Breaks(Reason::ShapeHandshake) } else { Shape::Fits }
}

/// Eight bytes, or an MTU query padded by one field to one of four sizes.
#[inline(always)]
fn check_keepalive<W: Window>(window: &W, payload: Payload, start: Start) -> Shape {
    if start.channel_id != 0 {
        return Shape::Breaks(Reason::ShapeHandshake);
    }
    match payload.bytes {
        HEADER_BYTES => Shape::Fits,
        410 | 810 | 1010 | 1260 => {
            let Some(field) = window.read_u16(payload.offset + 8) else { return Shape::Unreadable };
            let expected = (payload.bytes - HEADER_BYTES - FIELD_HEADER_BYTES) as u16 | 1 << 12;
            if field.swap_bytes() == expected { Shape::Fits } else { Shape::Breaks(Reason::ShapeHandshake) }
        }
        _ => Shape::Breaks(Reason::ShapeHandshake),
    }
}

#[inline(always)]
fn check_media<W: Window>(window: &W, payload: Payload, start: Start) -> Shape {
    let header_bytes = if start.has_destination { HEADER_WITH_DESTINATION_BYTES } else { HEADER_BYTES };
    if payload.bytes < header_bytes + FIELD_HEADER_BYTES + 1 {
        return Shape::Breaks(Reason::ShapeLength);
    }
    if start.channel_id == 0 || start.channel_id > ID_MAX {
        return Shape::Breaks(Reason::ShapeId);
    }
    if !payload.whole {
        return Shape::Unreadable;
    }
    let fields = payload.offset + header_bytes;
    let end = payload.offset + payload.bytes;
    // Even kinds are encrypted: one field of type 1 with whole AES blocks.
    if start.kind & 1 == 0 {
        return check_encrypted(window, fields, end);
    }
    // Nearly every datagram has one field. What follows it is a loop, which in the kernel stands in a function.
    match walk_field(window, fields, end) {
        Ok(at) if at == end => Shape::Fits,
        Ok(at) => window.check_rest(Rest::Fields { at, end }),
        Err(shape) => shape,
    }
}

#[inline(always)]
fn check_encrypted<W: Window>(window: &W, fields: u32, end: u32) -> Shape {
    let Some(header) = window.read_u16(fields) else { return Shape::Unreadable };
    let header = header.swap_bytes() as u32;
    let bytes = header & 0xfff;
    let fits = header >> 12 == 1 && bytes & 15 == 0 && fields + FIELD_HEADER_BYTES + bytes == end;
    if fits { Shape::Fits } else { Shape::Breaks(Reason::ShapeTlv) }
}

/// Where the field at `at` ends.
#[inline(always)]
fn walk_field<W: Window>(window: &W, at: u32, end: u32) -> Result<u32, Shape> {
    const BROKEN: Shape = Shape::Breaks(Reason::ShapeTlv);
    if at + FIELD_HEADER_BYTES > end {
        return Err(BROKEN);
    }
    let Some(header) = window.read_u16(at) else { return Err(Shape::Unreadable) };
    let after = at + FIELD_HEADER_BYTES + (header.swap_bytes() as u32 & 0xfff);
    if after > end { Err(BROKEN) } else { Ok(after) }
}

/// The chain of fields, whose second begins at `fields`, must end exactly where the datagram ends.
#[inline(always)]
pub fn walk_fields<W: Window>(window: &W, fields: u32, end: u32) -> Shape {
    let mut at = fields;
    let mut walked = 1;
    while walked < FIELDS_MAX && at != end {
        at = match walk_field(window, at, end) {
            Ok(after) => after,
            Err(shape) => return shape,
        };
        walked += 1;
    }
    if at == end { Shape::Fits } else { Shape::Unreadable }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::SliceWindow;

    fn shape(datagram: &[u8]) -> Shape {
        check(&SliceWindow::new(datagram), Payload { offset: 0, bytes: datagram.len() as u32, whole: true })
    }

    /// The reads go through a frame, so a payload is never at offset 0.
    fn framed(datagram: &[u8]) -> Shape {
        let mut frame = vec![0xee; 42];
        frame.extend_from_slice(datagram);
        let payload = Payload { offset: 42, bytes: datagram.len() as u32, whole: true };
        check(&SliceWindow::new(&frame), payload)
    }

    fn media(kind: u8, user_id: u16, channel_id: u16, fields: &[u8]) -> Vec<u8> {
        let ids = u32::from(user_id) | u32::from(channel_id) << 12;
        let mut datagram = vec![kind, ids as u8, (ids >> 8) as u8, (ids >> 16) as u8, 1, 2, 3, 4];
        if kind & 0x80 != 0 {
            datagram.extend_from_slice(&[7, 0]);
        }
        datagram.extend_from_slice(fields);
        datagram
    }

    const HELLO: [u8; 11] = [1, 2, 0, 0, 9, 9, 9, 9, 1, 0x10, 1];

    #[test]
    fn the_hello_of_teamtalk_4_is_ten_bytes_and_names_its_user() {
        for start in [[1, 2], [2, 1]] {
            let datagram = [&start[..], &[44, 1, 0, 0, 0, 0, 0, 0]].concat();
            assert_eq!(shape(&datagram), Shape::Fits);
        }
        for broken in [
            &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 2, 0xff, 0x0f, 0, 0, 0, 0, 0, 0],
            &[1, 3, 44, 1, 0, 0, 0, 0, 0, 0],
            &[1, 2, 44, 1, 0, 0, 0, 0, 0],
        ] {
            assert!(matches!(shape(broken), Shape::Breaks(_)), "{broken:?}");
        }
    }

    #[test]
    fn hello_is_eleven_fixed_bytes() {
        assert_eq!(framed(&HELLO), Shape::Fits);
        let with = |at: usize, byte: u8| {
            let mut hello = HELLO;
            hello[at] = byte;
            framed(&hello)
        };
        assert_eq!(with(2, 0x10), Shape::Breaks(Reason::ShapeHandshake), "channel");
        assert_eq!(with(8, 2), Shape::Breaks(Reason::ShapeHandshake), "field length");
        assert_eq!(with(9, 0x20), Shape::Breaks(Reason::ShapeHandshake), "field type");
        assert_eq!(with(10, 0), Shape::Breaks(Reason::ShapeHandshake), "protocol");
        assert_eq!(with(1, 0), Shape::Breaks(Reason::ShapeId), "user id 0 is the server");
        assert_eq!(framed(&HELLO[..10]), Shape::Breaks(Reason::ShapeHandshake));
        assert_eq!(framed(&HELLO[..7]), Shape::Breaks(Reason::ShapeLength));
        assert_eq!(shape(&[]), Shape::Breaks(Reason::ShapeLength));
    }

    #[test]
    fn keepalive_is_eight_bytes_or_one_of_four_queries() {
        assert_eq!(framed(&[2, 2, 0, 0, 9, 9, 9, 9]), Shape::Fits);
        for (bytes, field) in
            [(410, [0x90, 0x11]), (810, [0x20, 0x13]), (1010, [0xe8, 0x13]), (1260, [0xe2, 0x14])]
        {
            let mut query = vec![2, 2, 0, 0, 9, 9, 9, 9, field[0], field[1]];
            query.resize(bytes, 0);
            assert_eq!(framed(&query), Shape::Fits, "{bytes}");
            query.pop();
            assert_eq!(framed(&query), Shape::Breaks(Reason::ShapeHandshake), "{bytes} less one");
        }
        assert_eq!(framed(&[2, 2, 0x10, 0, 9, 9, 9, 9]), Shape::Breaks(Reason::ShapeHandshake));
    }

    #[test]
    fn kinds_and_their_header_length() {
        let field = [1, 0x40, 0xaa];
        assert_eq!(framed(&media(0, 5, 1, &field)), Shape::Breaks(Reason::ShapeKind));
        assert_eq!(framed(&media(23, 5, 1, &field)), Shape::Breaks(Reason::ShapeKind));
        assert_eq!(framed(&media(3 | 0x80, 5, 1, &field)), Shape::Breaks(Reason::ShapeKind));
        assert_eq!(framed(&media(19, 5, 1, &field)), Shape::Breaks(Reason::ShapeKind));
        assert_eq!(framed(&media(19 | 0x80, 5, 1, &field)), Shape::Fits);
        assert_eq!(framed(&media(3, 5, 1, &field)), Shape::Fits);
    }

    #[test]
    fn ids_have_ranges() {
        let field = [1, 0x40, 0xaa];
        assert_eq!(framed(&media(3, 4094, 4094, &field)), Shape::Fits);
        assert_eq!(framed(&media(3, 4095, 1, &field)), Shape::Breaks(Reason::ShapeId));
        assert_eq!(framed(&media(3, 1, 0, &field)), Shape::Breaks(Reason::ShapeId));
        assert_eq!(framed(&media(3, 1, 4095, &field)), Shape::Breaks(Reason::ShapeId));
    }

    #[test]
    fn field_chain_ends_where_the_datagram_ends() {
        assert_eq!(framed(&media(3, 5, 1, &[2, 0x40, 1, 2, 3, 0x10, 1, 2, 3])), Shape::Fits);
        assert_eq!(framed(&media(3, 5, 1, &[2, 0x40, 1, 2, 3, 0x10, 1, 2])), Shape::Breaks(Reason::ShapeTlv));
        assert_eq!(framed(&media(3, 5, 1, &[2, 0x40, 1, 2, 3])), Shape::Breaks(Reason::ShapeTlv));
        assert_eq!(framed(&media(3, 5, 1, &[2, 0x40])), Shape::Breaks(Reason::ShapeLength));
        let mut long = vec![0x45, 0x45];
        long.resize(2 + 0x545, 0);
        assert_eq!(framed(&media(3, 5, 1, &long)), Shape::Breaks(Reason::ShapeLength));
    }

    #[test]
    fn encrypted_kinds_carry_whole_blocks() {
        let mut block = vec![16, 0x10];
        block.resize(18, 7);
        assert_eq!(framed(&media(4, 5, 1, &block)), Shape::Fits);
        block[0] = 15;
        block.pop();
        assert_eq!(framed(&media(4, 5, 1, &block)), Shape::Breaks(Reason::ShapeTlv));
    }

    #[test]
    fn a_chain_of_more_fields_than_are_walked_is_left_unjudged() {
        let fields = [1, 0x10, 0].repeat(FIELDS_MAX as usize + 1);
        assert_eq!(framed(&media(3, 5, 1, &fields)), Shape::Unreadable);
    }
}
