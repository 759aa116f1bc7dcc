//! What kind of packet it is, as far as one packet tells.

/// The closed set of packet classes; the class is an index into the counters.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Class {
    /// TCP with SYN set.
    TcpSyn = 0,
    /// TCP with RST set.
    TcpReset = 1,
    /// TCP with FIN set.
    TcpFin = 2,
    /// TCP with payload.
    TcpPayload = 3,
    /// TCP without payload.
    TcpAck = 4,
    /// The first fragment of a datagram, or a TCP segment cut inside its header.
    Fragment = 5,
    /// TeamTalk HELLO.
    UdpHello = 6,
    /// TeamTalk KEEPALIVE and MTU query; TeamSpeak ping and pong.
    UdpKeepalive = 7,
    /// Voice; TeamSpeak whisper too.
    UdpVoice = 8,
    /// TeamTalk video capture.
    UdpVideo = 9,
    /// TeamTalk media files.
    UdpMedia = 10,
    /// TeamTalk desktop sharing.
    UdpDesktop = 11,
    /// TeamSpeak TS3INIT1.
    UdpHandshake = 12,
    /// TeamSpeak commands and their acknowledgements.
    UdpCommand = 13,
    /// UDP that is nothing of the service's protocol.
    UdpOther = 14,
}

/// Number of classes; the counter tables have this many columns, rounded up to a power of two.
pub const CLASSES: usize = 15;

impl Class {
    /// Every class, in order of its number.
    pub const ALL: [Self; CLASSES] = [
        Self::TcpSyn,
        Self::TcpReset,
        Self::TcpFin,
        Self::TcpPayload,
        Self::TcpAck,
        Self::Fragment,
        Self::UdpHello,
        Self::UdpKeepalive,
        Self::UdpVoice,
        Self::UdpVideo,
        Self::UdpMedia,
        Self::UdpDesktop,
        Self::UdpHandshake,
        Self::UdpCommand,
        Self::UdpOther,
    ];

    /// The class with this number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::TcpSyn,
            1 => Self::TcpReset,
            2 => Self::TcpFin,
            3 => Self::TcpPayload,
            4 => Self::TcpAck,
            5 => Self::Fragment,
            6 => Self::UdpHello,
            7 => Self::UdpKeepalive,
            8 => Self::UdpVoice,
            9 => Self::UdpVideo,
            10 => Self::UdpMedia,
            11 => Self::UdpDesktop,
            12 => Self::UdpHandshake,
            13 => Self::UdpCommand,
            14 => Self::UdpOther,
            _ => return None,
        })
    }

    /// The name in reports and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TcpSyn => "tcp.syn",
            Self::TcpReset => "tcp.reset",
            Self::TcpFin => "tcp.fin",
            Self::TcpPayload => "tcp.payload",
            Self::TcpAck => "tcp.ack",
            Self::Fragment => "fragment",
            Self::UdpHello => "udp.hello",
            Self::UdpKeepalive => "udp.keepalive",
            Self::UdpVoice => "udp.voice",
            Self::UdpVideo => "udp.video",
            Self::UdpMedia => "udp.media",
            Self::UdpDesktop => "udp.desktop",
            Self::UdpHandshake => "udp.handshake",
            Self::UdpCommand => "udp.command",
            Self::UdpOther => "udp.other",
        }
    }

    /// Whether it asks for service without carrying anything yet: the datagrams a stranger legitimately sends.
    #[inline(always)]
    pub const fn is_greeting(self) -> bool {
        matches!(self, Self::UdpHello | Self::UdpKeepalive | Self::UdpHandshake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_numbered_in_order() {
        for (number, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, number);
            assert_eq!(Class::from_number(number as u8), Some(class));
        }
        assert_eq!(Class::from_number(CLASSES as u8), None);
    }
}
