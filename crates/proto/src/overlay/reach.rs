//! In which order a peer's addresses are tried: those that can be reached from here before those that cannot.
//!
//! A device names all addresses that it has: of the flat, of a VPN, of a container bridge, and what others see it at. Each that is tried in vain is a flow at the gateway for half a
//! minute and, where it takes one of the two places of a dial, ten seconds lost. So, as RFC 6724 (section 5, rules 2 and 8) prefers what has the same scope: first what is on a network that this device is on
//! itself, then what is global, and last private addresses of other networks (RFC 1918, RFC 4193, RFC 6598, link-local) and families that this device has no address of. Among
//! equals the order is kept, and nothing is left out: a private network can have routes that nobody told of.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// How likely an address is to be reached from a device with the addresses `own`; the smallest first.
pub fn distance(address: &SocketAddr, own: &[SocketAddr]) -> u8 {
    let ip = address.ip().to_canonical();
    let mut own = own.iter().map(|at| at.ip().to_canonical()).peekable();
    if own.peek().is_none() {
        return u8::from(!is_global(ip));
    }
    let (mut is_near, mut has_family) = (false, false);
    for mine in own {
        is_near |= !is_global(ip) && block(mine) == block(ip);
        has_family |= mine.is_ipv4() == ip.is_ipv4();
    }
    match (is_near, is_global(ip) && has_family) {
        (true, _) => 0,
        (_, true) => 1,
        _ => 2,
    }
}

fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared(ip)),
        IpAddr::V6(ip) => !(ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local()),
    }
}

/// Addresses that carriers and VPNs share out (RFC 6598).
fn is_shared(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    a == 100 && b & 0xc0 == 64
}

/// The network that a private address is likely to be on: a site's, or where every home takes the same block, one of its 256.
fn block(ip: IpAddr) -> (u8, u64) {
    match ip {
        IpAddr::V4(ip) => {
            let bits = match ip.octets() {
                [127, ..] => 8,
                [100, ..] => 10,
                [192, 168, ..] => 24,
                _ => 16,
            };
            (4, u64::from(ip.to_bits() >> (32 - bits)))
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            (6, u64::from(a) << 32 | u64::from(b) << 16 | u64::from(c))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted<'a>(addresses: &[&'a str], own: &[&str]) -> Vec<&'a str> {
        let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 1);
        let own: Vec<SocketAddr> = own.iter().map(|text| at(text)).collect();
        let mut sorted = addresses.to_vec();
        sorted.sort_by_key(|text| distance(&at(text), &own));
        sorted
    }

    #[test]
    fn what_is_global_comes_before_other_peoples_private_networks() {
        let all = ["172.17.0.2", "10.8.0.3", "203.0.113.9", "192.168.1.5", "100.100.1.2"];
        let expected = ["203.0.113.9", "172.17.0.2", "10.8.0.3", "192.168.1.5", "100.100.1.2"];
        assert_eq!(sorted(&all, &["10.77.0.11"]), expected);
        assert_eq!(sorted(&all, &[]), expected, "nothing is known of the own network");
    }

    #[test]
    fn the_own_network_comes_first() {
        let all = ["203.0.113.9", "192.168.7.5", "192.168.1.5", "10.8.0.3"];
        let expected = ["192.168.1.5", "203.0.113.9", "192.168.7.5", "10.8.0.3"];
        assert_eq!(sorted(&all, &["192.168.1.20"]), expected);
        assert_eq!(sorted(&["203.0.113.9", "10.8.200.3"], &["10.8.0.1"])[0], "10.8.200.3");
        assert_eq!(sorted(&["203.0.113.9", "127.0.0.1"], &["127.0.0.1"])[0], "127.0.0.1");
        assert_eq!(
            sorted(&["203.0.113.9", "fd00:1:2:3::4"], &["fd00:1:2::1"])[0],
            "fd00:1:2:3::4"
        );
    }

    #[test]
    fn a_family_without_an_own_address_comes_last() {
        assert_eq!(
            sorted(&["2001:db8::1", "203.0.113.9"], &["192.168.1.20"])[0],
            "203.0.113.9"
        );
        let both = ["2001:db8::1", "203.0.113.9"];
        assert_eq!(sorted(&both, &["192.168.1.20", "2001:db8:1::2"]), both);
        assert_eq!(
            sorted(&["10.0.0.1", "::ffff:203.0.113.9"], &["192.168.1.20"])[0],
            "::ffff:203.0.113.9"
        );
    }
}
