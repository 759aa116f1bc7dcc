//! Interfaces and addresses of this host.

use floodwall_wire::Address;
use pnet::datalink::{self, NetworkInterface};

/// Every interface.
pub(crate) fn interfaces() -> Vec<NetworkInterface> {
    datalink::interfaces()
}

/// The interface with this name.
///
/// # Errors
/// Names those that exist.
pub(crate) fn find(name: &str) -> Result<NetworkInterface, String> {
    let all = interfaces();
    let names = all.iter().map(|interface| interface.name.clone()).collect::<Vec<_>>().join(", ");
    all.into_iter()
        .find(|interface| interface.name == name)
        .ok_or_else(|| format!("there is no interface \"{name}\"; there are: {names}"))
}

/// Every address of this host, loopback included: services are guarded there and none of them is ever banned.
pub(crate) fn local_addresses() -> Vec<Address> {
    let all = interfaces();
    let addresses =
        all.iter().flat_map(|interface| &interface.ips).map(|network| Address::from(network.ip()));
    let mut addresses: Vec<Address> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// Gateways of this host's default routes: whoever bans one bans everybody behind it.
pub(crate) fn gateways() -> Vec<Address> {
    let v4 = std::fs::read_to_string("/proc/self/net/route").unwrap_or_default();
    let v6 = std::fs::read_to_string("/proc/self/net/ipv6_route").unwrap_or_default();
    let mut gateways: Vec<Address> = v4.lines().skip(1).filter_map(gateway_v4).collect();
    gateways.extend(v6.lines().filter_map(gateway_v6));
    gateways.sort_unstable();
    gateways.dedup();
    gateways
}

/// Third column: the gateway as a number in the host's byte order of what is in network order.
fn gateway_v4(line: &str) -> Option<Address> {
    let gateway = line.split_whitespace().nth(2)?;
    let number = u32::from_str_radix(gateway, 16).ok()?;
    (number != 0).then(|| Address::from_v4(u32::from_be(number)))
}

/// Fifth column: the next hop, 32 hexadecimal digits.
fn gateway_v6(line: &str) -> Option<Address> {
    let hop = line.split_whitespace().nth(4)?;
    let number = u128::from_str_radix(hop, 16).ok()?;
    (number != 0).then(|| Address::from_v6((number >> 64) as u64, number as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_read_from_the_kernels_tables() {
        let line = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0";
        assert_eq!(gateway_v4(line).unwrap().to_string(), "192.168.1.1");
        assert_eq!(gateway_v4("eth0\t0001A8C0\t00000000\t0001"), None);
        let line = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
                    fe800000000000000000000000000001 00000400 1 0 00000003 eth0";
        assert_eq!(gateway_v6(line).unwrap().to_string(), "fe80::1");
    }

    #[test]
    fn an_interface_that_does_not_exist_is_answered_with_those_that_do() {
        let error = find("nosuch0").unwrap_err();
        assert!(error.contains("there are: ") && error.contains("lo"), "{error}");
    }
}
