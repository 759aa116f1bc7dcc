//! First bytes that never begin an IRC client's line (`protocols/irc.md` A3).

use super::Shape;
use crate::{Reason, Window};

/// Recognises HTTP requests and TLS hellos on a port that speaks plain IRC.
///
/// A segment in mid-stream may begin anywhere, so only prefixes are taken that chat text practically never
/// puts at the start of a segment: a method with its slash, and the eight fixed bytes of a ClientHello.
#[inline(always)]
pub fn check_first_bytes<W: Window>(window: &W, offset: u32, bytes: u32) -> Shape {
    if bytes < 8 {
        return Shape::Fits;
    }
    let Some(start) = window.read_u64(offset) else { return Shape::Unreadable };
    let begins = |text: [u8; 8], length: u32| (start ^ u64::from_be_bytes(text)) >> (64 - 8 * length) == 0;
    let http = begins(*b"GET /\0\0\0", 5)
        || begins(*b"PUT /\0\0\0", 5)
        || begins(*b"POST /\0\0", 6)
        || begins(*b"HEAD /\0\0", 6)
        || begins(*b"OPTIONS ", 8);
    // Record type 22, version 3.0 to 3.4; then a ClientHello whose own length fits one record (RFC 8446 5.1).
    let tls = start >> 48 == 0x1603 && (start >> 40) & 0xff <= 4 && (start >> 8) & 0xffff == 0x0100;
    if http || tls { Shape::Breaks(Reason::ShapeForeignProtocol) } else { Shape::Fits }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::SliceWindow;

    fn shape(text: &[u8]) -> Shape {
        let mut frame = vec![0xee; 54];
        frame.extend_from_slice(text);
        check_first_bytes(&SliceWindow::new(&frame), 54, text.len() as u32)
    }

    #[test]
    fn http_and_tls_are_foreign() {
        for text in
            [&b"GET / HTTP/1.1\r\n"[..], b"POST /x HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1", b"PUT /a HTTP"]
        {
            assert_eq!(shape(text), Shape::Breaks(Reason::ShapeForeignProtocol));
        }
        let hello = [0x16, 3, 1, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 3, 3];
        assert_eq!(shape(&hello), Shape::Breaks(Reason::ShapeForeignProtocol));
    }

    #[test]
    fn irc_fits() {
        for text in [
            &b"NICK alice\r\n"[..],
            b"CAP LS 302\r\n",
            b"GETTING / there\r\n",
            b"POSTAL/ x\r\n",
            b"\x16\x03coloured text",
            b"QUIT\r\n",
        ] {
            assert_eq!(shape(text), Shape::Fits, "{text:?}");
        }
    }
}
