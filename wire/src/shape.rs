//! Stateless checks: can this packet be the service's traffic at all?
//!
//! What fails here is dropped and counted, never banned: one packet proves nothing about who sent it. What
//! cannot be read (snapped captures, first fragments) is not judged.

use crate::{
    Class, Reason, Window,
    frame::{Fragment, Headers, TcpHeader, tcp_flags},
    tables::Role,
};

pub mod irc;
pub mod teamspeak;
pub mod teamtalk;

/// The outcome of a stateless check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// Nothing speaks against it.
    Fits,
    /// Something needed lies beyond the bytes at hand.
    Unreadable,
    /// It cannot be the service's traffic, for this reason.
    Breaks(Reason),
}

impl Shape {
    /// As a number, the form in which it crosses a call in the kernel.
    #[inline(always)]
    pub const fn code(self) -> u32 {
        match self {
            Self::Fits => FITS,
            Self::Unreadable => UNREADABLE,
            Self::Breaks(reason) => reason as u32,
        }
    }

    /// Back from the number of a datagram's shape; what no datagram's shape has reads as unreadable, which passes.
    #[inline(always)]
    pub const fn from_code(code: u32) -> Self {
        match code {
            FITS => Self::Fits,
            LENGTH => Self::Breaks(Reason::ShapeLength),
            KIND => Self::Breaks(Reason::ShapeKind),
            ID => Self::Breaks(Reason::ShapeId),
            TLV => Self::Breaks(Reason::ShapeTlv),
            HANDSHAKE => Self::Breaks(Reason::ShapeHandshake),
            _ => Self::Unreadable,
        }
    }
}

// Numbers no shape reason has.
const FITS: u32 = 0;
const UNREADABLE: u32 = 1;
const LENGTH: u32 = Reason::ShapeLength as u32;
const KIND: u32 = Reason::ShapeKind as u32;
const ID: u32 = Reason::ShapeId as u32;
const TLV: u32 = Reason::ShapeTlv as u32;
const HANDSHAKE: u32 = Reason::ShapeHandshake as u32;

/// Class and user id of a datagram, from its first four bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Datagram {
    /// What it claims to be.
    pub class: Class,
    /// The TeamTalk user id it claims to come from; 0 for other protocols.
    pub user_id: u16,
}

/// Where a UDP payload lies.
#[derive(Clone, Copy, Debug)]
pub struct Payload {
    /// Offset of the first payload byte in the frame.
    pub offset: u32,
    /// Length the headers state.
    pub bytes: u32,
    /// Whether this packet holds all of it.
    pub whole: bool,
}

impl Payload {
    /// The payload of a UDP packet.
    #[inline(always)]
    pub const fn of(headers: &Headers) -> Self {
        Self {
            offset: headers.datagram_offset(),
            bytes: headers.datagram_bytes,
            whole: matches!(headers.fragment, Fragment::Whole),
        }
    }
}

/// What is left to check of a datagram when all that is quick has been checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rest {
    /// TeamTalk's second and later fields.
    Fields {
        /// Where the second begins in the frame.
        at: u32,
        /// Where the datagram ends.
        end: u32,
    },
    /// A handshake packet of TeamSpeak, all of which is there.
    Handshake {
        /// Offset of the first payload byte in the frame.
        offset: u32,
        /// Length the headers state.
        bytes: u32,
    },
}

impl Rest {
    /// Checks it.
    #[inline(always)]
    pub fn check<W: Window>(self, window: &W) -> Shape {
        match self {
            Self::Fields { at, end } => teamtalk::walk_fields(window, at, end),
            Self::Handshake { offset, bytes } => teamspeak::check_handshake(window, offset, bytes),
        }
    }
}

/// Tells what a datagram claims to be.
#[inline(always)]
pub fn classify_datagram<W: Window>(window: &W, role: Role, payload: Payload) -> Datagram {
    match role {
        Role::TeamTalk => teamtalk::classify(window, payload),
        Role::TeamSpeakVoice => teamspeak::classify(window, payload),
        Role::Irc | Role::IrcPlain | Role::TeamSpeakQuery | Role::TeamSpeakFiles => {
            Datagram { class: Class::UdpOther, user_id: 0 }
        }
    }
}

/// Checks a datagram against its protocol's grammar.
#[inline(always)]
pub fn check_datagram<W: Window>(window: &W, role: Role, payload: Payload) -> Shape {
    match role {
        Role::TeamTalk => teamtalk::check(window, payload),
        Role::TeamSpeakVoice => teamspeak::check(window, payload),
        Role::Irc | Role::IrcPlain | Role::TeamSpeakQuery | Role::TeamSpeakFiles => Shape::Fits,
    }
}

/// Tells what a TCP segment is.
#[inline(always)]
pub const fn classify_segment(tcp: &TcpHeader) -> Class {
    if tcp.flags & tcp_flags::SYN != 0 {
        Class::TcpSyn
    } else if tcp.flags & tcp_flags::RST != 0 {
        Class::TcpReset
    } else if tcp.payload_bytes != 0 {
        Class::TcpPayload
    } else if tcp.flags & tcp_flags::FIN != 0 {
        Class::TcpFin
    } else {
        Class::TcpAck
    }
}

/// Checks a TCP segment: flag combinations no correct sender produces (RFC 9293 section 3.10), and foreign
/// first bytes on a plain IRC port.
#[inline(always)]
pub fn check_segment<W: Window>(window: &W, role: Role, tcp: &TcpHeader) -> Shape {
    use tcp_flags::{ACK, FIN, RST, SYN, URG};

    let syn_with_end = tcp.flags & SYN != 0 && tcp.flags & (FIN | RST) != 0;
    let end_with_reset = tcp.flags & (FIN | RST) == FIN | RST;
    // Beside SYN and RST, every segment of a connection carries ACK: none at all is a null scan, FIN alone a
    // FIN scan, FIN with URG and PSH an Xmas scan.
    let no_acknowledgement = tcp.flags & (SYN | RST | ACK) == 0;
    let urgent_syn = tcp.flags & (SYN | URG) == SYN | URG;
    if syn_with_end || end_with_reset || no_acknowledgement || urgent_syn {
        return Shape::Breaks(Reason::ShapeTcpFlags);
    }
    match role {
        Role::IrcPlain => irc::check_first_bytes(window, tcp.payload_offset, tcp.payload_bytes),
        Role::Irc | Role::TeamTalk | Role::TeamSpeakVoice | Role::TeamSpeakQuery | Role::TeamSpeakFiles => {
            Shape::Fits
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_survives_its_number() {
        let reasons = [
            Reason::ShapeLength,
            Reason::ShapeKind,
            Reason::ShapeId,
            Reason::ShapeTlv,
            Reason::ShapeHandshake,
        ];
        for shape in reasons.map(Shape::Breaks).into_iter().chain([Shape::Fits, Shape::Unreadable]) {
            assert_eq!(Shape::from_code(shape.code()), shape);
        }
        assert_eq!(Shape::from_code(u32::MAX), Shape::Unreadable);
    }
}
