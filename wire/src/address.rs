//! Addresses as the gate holds them: 128 bits, IPv4 mapped.

#[cfg(feature = "std")]
use core::fmt;
#[cfg(feature = "std")]
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The upper half of every mapped IPv4 address's lower 64 bits: `::ffff:0:0/96` (RFC 4291 section 2.5.5.2).
const MAPPED: u64 = 0x0000_ffff_0000_0000;

/// An IPv6 address, or an IPv4 address in its mapped form `::ffff:a.b.c.d`.
///
/// Both halves are in host order, so that numeric order is address order.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(C)]
pub struct Address {
    /// The routing prefix half, 0 for IPv4.
    pub high: u64,
    /// The interface half; `0xffff` and the 32 address bits for IPv4.
    pub low: u64,
}

impl Address {
    /// The address of an IPv4 header, given in host order.
    #[inline(always)]
    pub const fn from_v4(bits: u32) -> Self {
        Self { high: 0, low: MAPPED | bits as u64 }
    }

    /// The address of an IPv6 header. `::ffff:a.b.c.d` is `a.b.c.d` from here on.
    #[inline(always)]
    pub const fn from_v6(high: u64, low: u64) -> Self {
        Self { high, low }
    }

    /// The IPv4 address in host order, if it is one.
    #[inline(always)]
    pub const fn as_v4(self) -> Option<u32> {
        if self.is_v4() { Some((self.low & 0xffff_ffff) as u32) } else { None }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.high == 0 && self.low & !0xffff_ffff == MAPPED
    }

    /// Whether no correct host can send from this address: unspecified, "this network", multicast, broadcast
    /// (RFC 1122 section 3.2.1.3, RFC 4291 section 2.7).
    #[inline(always)]
    pub const fn is_impossible_source(self) -> bool {
        match self.as_v4() {
            Some(bits) => {
                let first = bits >> 24;
                first == 0 || (first >= 224 && first < 240) || bits == u32::MAX
            }
            None => self.high >> 56 == 0xff || (self.high == 0 && self.low == 0),
        }
    }
}

#[cfg(feature = "std")]
impl Address {
    /// The standard library's form.
    pub fn to_ip(self) -> IpAddr {
        match self.as_v4() {
            Some(bits) => IpAddr::V4(Ipv4Addr::from_bits(bits)),
            None => IpAddr::V6(Ipv6Addr::from_bits(u128::from(self.high) << 64 | u128::from(self.low))),
        }
    }
}

#[cfg(feature = "std")]
impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::from_v4(v4.to_bits()),
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                Self { high: (bits >> 64) as u64, low: bits as u64 }
            }
        }
    }
}

#[cfg(feature = "std")]
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

/// The 8-byte key of the source table: an IPv4 address or the upper 64 bits of an IPv6 address.
///
/// IPv4 keys carry `ffff:ffff` in front. As an IPv6 prefix that is multicast, which the gate drops before any
/// look-up, so the two families cannot meet.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(transparent)]
pub struct SourceKey(pub u64);

impl SourceKey {
    /// The key under which `address` is looked up.
    #[inline(always)]
    pub const fn of(address: Address) -> Self {
        match address.as_v4() {
            Some(bits) => Self(0xffff_ffff_0000_0000 | bits as u64),
            None => Self(address.high),
        }
    }

    /// The IPv4 address it stands for; `None` for the upper half of IPv6 addresses.
    pub const fn as_v4(self) -> Option<Address> {
        if self.0 >> 32 == 0xffff_ffff { Some(Address::from_v4(self.0 as u32)) } else { None }
    }

    /// The key under which the strangers of one network share a budget: /24 for IPv4, /48 for IPv6.
    #[inline(always)]
    pub const fn network_of(address: Address) -> Self {
        match address.as_v4() {
            Some(bits) => Self(0xffff_ffff_0000_0000 | (bits & 0xffff_ff00) as u64),
            None => Self(address.high & 0xffff_ffff_ffff_0000),
        }
    }
}

#[cfg(test)]
#[cfg(feature = "std")]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn mapped_ipv4_is_ipv4_everywhere() {
        assert_eq!(address("::ffff:192.0.2.7"), address("192.0.2.7"));
        assert_eq!(Address::from_v6(0, 0xffff_c000_0207), address("192.0.2.7"));
        assert_eq!(address("192.0.2.7").to_string(), "192.0.2.7");
        assert_eq!(address("2001:db8::1").to_string(), "2001:db8::1");
    }

    #[test]
    fn keys_of_the_two_families_cannot_meet() {
        let v4 = SourceKey::of(address("192.0.2.7"));
        let v6_with_same_key = Address::from_v6(v4.0, 1);
        assert_eq!(SourceKey::of(v6_with_same_key), v4);
        assert!(v6_with_same_key.is_impossible_source());
    }

    #[test]
    fn impossible_sources_are_named() {
        for text in ["0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.255", "255.255.255.255", "::", "ff02::1"]
        {
            assert!(address(text).is_impossible_source(), "{text}");
        }
        for text in ["127.0.0.1", "10.0.0.1", "223.255.255.255", "240.0.0.1", "::1", "fe80::1", "2001:db8::1"]
        {
            assert!(!address(text).is_impossible_source(), "{text}");
        }
    }

    #[test]
    fn networks_are_24_and_48() {
        assert_eq!(
            SourceKey::network_of(address("192.0.2.7")),
            SourceKey::network_of(address("192.0.2.250"))
        );
        assert_ne!(SourceKey::network_of(address("192.0.2.7")), SourceKey::network_of(address("192.0.3.7")));
        let one = SourceKey::network_of(address("2001:db8:1:2::3"));
        assert_eq!(one, SourceKey::network_of(address("2001:db8:1:ffff::3")));
        assert_ne!(one, SourceKey::network_of(address("2001:db8:2:2::3")));
    }
}
