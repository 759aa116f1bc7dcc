//! Why a packet passed or was dropped: one closed set, shared by counters, reports and metrics.

/// The outcome for one packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Let it through.
    Pass,
    /// Discard it.
    Drop,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $verdict:ident;)*) => {
        /// Why a packet got its verdict; the number is an index into the counters.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant = $number,)* }

        impl Reason {
            /// Every reason, in order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in reports and metric labels.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The reason with this number.
            #[inline(always)]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// What the reason leads to. Written as one shift, not as a table: the kernel home evaluates it
            /// per packet.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                const DROPS: u64 = 0 $(| ((matches!(Verdict::$verdict, Verdict::Drop) as u64) << $number))*;
                if (DROPS >> self as u8) & 1 == 1 { Verdict::Drop } else { Verdict::Pass }
            }
        }
    };
}

reasons! {
    /// Admitted: guarded, of the right shape, in standing, within limits.
    Admitted = 0, "admitted", Pass;
    /// Not IPv4 or IPv6.
    NotIp = 1, "not-ip", Pass;
    /// Neither a guarded port at a guarded address nor a transport with ports.
    Unguarded = 2, "unguarded", Pass;
    /// A fragment that is not the first: it carries no port.
    LaterFragment = 3, "later-fragment", Pass;
    /// A header contradicts itself; the kernel will discard it.
    MalformedHeader = 4, "malformed-header", Pass;
    /// In an allow prefix.
    Allowed = 5, "allowed", Pass;
    /// The payload could not be read, so its shape was not judged.
    Unreadable = 6, "unreadable", Pass;
    /// Would lack standing, but the gate is still learning who holds a session.
    Learning = 7, "learning", Pass;
    /// Would be dropped on facts the controller has not renewed in time.
    Stale = 8, "stale", Pass;
    /// The limit's word was contended beyond its attempts; the source is known.
    Contended = 9, "contended", Pass;
    /// A stranger's SYN above the service's budget, left to the SYN cookies of the kernel.
    SynCookie = 10, "syn-cookie", Pass;

    /// The source address is banned.
    BanAddress = 16, "ban.address", Drop;
    /// The source lies in a banned prefix.
    BanPrefix = 17, "ban.prefix", Drop;
    /// No correct host sends from this address.
    ShapeAddress = 18, "shape.address", Drop;
    /// A first fragment or TCP segment too short for its headers.
    ShapeHeader = 19, "shape.header", Drop;
    /// TCP flags that no correct sender combines.
    ShapeTcpFlags = 20, "shape.tcp-flags", Drop;
    /// An HTTP request or TLS hello on a plain IRC port.
    ShapeForeignProtocol = 21, "shape.foreign-protocol", Drop;
    /// A length this protocol does not have.
    ShapeLength = 22, "shape.length", Drop;
    /// A packet kind or type this protocol does not have.
    ShapeKind = 23, "shape.kind", Drop;
    /// A user, client or channel id outside its range.
    ShapeId = 24, "shape.id", Drop;
    /// A TeamTalk field chain that does not end where the datagram ends.
    ShapeTlv = 25, "shape.tlv", Drop;
    /// A handshake packet (TeamTalk HELLO or MTU query, TS3INIT1) with impossible content.
    ShapeHandshake = 26, "shape.handshake", Drop;
    /// Media from an address that holds no session with the service.
    StandingStranger = 27, "standing.stranger", Drop;
    /// A datagram with a user id that belongs to another live address.
    StandingForeign = 28, "standing.foreign", Drop;
    /// Over the limit of its source.
    LimitSource = 29, "limit.source", Drop;
    /// Over the limit that the strangers of its network share.
    LimitPrefix = 30, "limit.prefix", Drop;
    /// Over the limit that all strangers of the service share.
    LimitService = 31, "limit.service", Drop;
    /// The limit's word was contended beyond its attempts; the source is not known.
    LimitContended = 32, "limit.contended", Drop;
    /// Nobody known, the service is alarmed, and the controller could not be shown the segment. TCP sends it again.
    MirrorFull = 33, "mirror.full", Drop;
}

/// Upper bound of the reason numbers; the counter tables have this many cells per class.
pub const REASONS: usize = 40;

impl Reason {
    /// Whether it says that the packet cannot be the service's traffic.
    pub const fn is_shape(self) -> bool {
        matches!(
            self,
            Self::ShapeAddress
                | Self::ShapeHeader
                | Self::ShapeTcpFlags
                | Self::ShapeForeignProtocol
                | Self::ShapeLength
                | Self::ShapeKind
                | Self::ShapeId
                | Self::ShapeTlv
                | Self::ShapeHandshake
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_number_and_name_within_the_counter_table() {
        let mut numbers: Vec<u8> = Reason::ALL.iter().map(|reason| *reason as u8).collect();
        let mut names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert!(numbers.iter().all(|number| usize::from(*number) < REASONS));
        numbers.dedup();
        names.sort_unstable();
        names.dedup();
        assert_eq!((numbers.len(), names.len()), (Reason::ALL.len(), Reason::ALL.len()));
    }

    #[test]
    fn dotted_names_are_drops_and_plain_names_pass() {
        for reason in Reason::ALL {
            let drops = reason.verdict() == Verdict::Drop;
            assert_eq!(reason.as_str().contains('.'), drops, "{}", reason.as_str());
            assert_eq!(Reason::from_number(*reason as u8), Some(*reason));
        }
    }
}
