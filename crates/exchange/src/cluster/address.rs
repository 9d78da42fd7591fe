//! An address that moves from machine to machine of one network.
//!
//! It is given to the kernel with a life of a few seconds and renewed every second, so it goes by itself when the
//! process that held it is killed. Whoever takes it tells the network with gratuitous ARP, several times: neighbours
//! refuse to change an entry within a second of the last change.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use pnet_datalink::{Channel, MacAddr, NetworkInterface};
use tokio::task::JoinHandle;

const LIFE_S: u32 = 4;
const RENEW: Duration = Duration::from_secs(1);
/// When the network is told, after the first time, ms.
const TOLD_AGAIN_MS: [u64; 5] = [20, 100, 300, 1_100, 2_500];

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;

/// The interface whose network an address belongs to.
pub(crate) fn interface_of(address: Ipv4Addr) -> Option<NetworkInterface> {
    let on_network = |interface: &NetworkInterface| {
        interface.ips.iter().any(|network| {
            network.ip() != std::net::IpAddr::V4(address) && network.prefix() < 32 && network.contains(address.into())
        })
    };
    pnet_datalink::interfaces().into_iter().find(on_network)
}

/// The address while it is ours; given up when dropped.
pub(crate) struct Held {
    address: Ipv4Addr,
    index: u32,
    renewals: JoinHandle<()>,
}

impl Held {
    /// Takes the address and tells the network.
    pub(crate) fn take(address: Ipv4Addr) -> io::Result<Self> {
        let interface = interface_of(address)
            .ok_or_else(|| io::Error::other(format!("no interface is on the network of {address}")))?;
        give_life(address, interface.index)?;
        // Sound is on its way already: a neighbour that is not told keeps sending to the old machine.
        announce(address, &interface)?;
        let index = interface.index;
        let renewals = tokio::spawn(keep(address, interface));
        Ok(Self {
            address,
            index,
            renewals,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewals.abort();
        // It may have run out already.
        let _ = request(RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK, self.address, self.index, 0);
    }
}

/// Removes an address that an earlier process of ours left.
pub(crate) fn drop_leftover(address: Ipv4Addr) {
    if let Some(interface) = interface_of(address) {
        let _ = request(RTM_DELADDR, NLM_F_REQUEST | NLM_F_ACK, address, interface.index, 0);
    }
}

async fn keep(address: Ipv4Addr, interface: NetworkInterface) {
    let begun = tokio::time::Instant::now();
    for after_ms in TOLD_AGAIN_MS {
        tokio::time::sleep_until(begun + Duration::from_millis(after_ms)).await;
        let _ = announce(address, &interface);
        let _ = give_life(address, interface.index);
    }
    let mut renew = tokio::time::interval(RENEW);
    loop {
        renew.tick().await;
        // A failure shows when the life is over; the next try is a second away.
        let _ = give_life(address, interface.index);
    }
}

fn give_life(address: Ipv4Addr, index: u32) -> io::Result<()> {
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    request(RTM_NEWADDR, flags, address, index, LIFE_S)
}

/// One rtnetlink request and its acknowledgement.
fn request(kind: u16, flags: u16, address: Ipv4Addr, index: u32, life_s: u32) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&address_message(kind, flags, address, index, life_s), 0)?;
    let (answer, _) = socket.recv_from_full()?;
    // nlmsghdr is 16 octets; an error message begins with its number, zero when all is well.
    let code = answer
        .get(16..20)
        .and_then(|bytes| bytes.try_into().ok())
        .map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// nlmsghdr, ifaddrmsg and attributes (rtnetlink(7)).
fn address_message(kind: u16, flags: u16, address: Ipv4Addr, index: u32, life_s: u32) -> Vec<u8> {
    const AF_INET: u8 = 2;
    let mut body = vec![AF_INET, 32, 0, 0];
    body.extend(index.to_ne_bytes());
    let mut attribute = |kind: u16, value: &[u8]| {
        body.extend((4 + value.len() as u16).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
    };
    attribute(IFA_LOCAL, &address.octets());
    attribute(IFA_ADDRESS, &address.octets());
    if life_s > 0 {
        let life = life_s.to_ne_bytes();
        let cache_info = [life, life, [0; 4], [0; 4]].concat();
        attribute(IFA_CACHEINFO, &cache_info);
    }
    let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

/// Gratuitous ARP as request and as reply: some neighbours heed only the one, some only the other.
fn announce(address: Ipv4Addr, interface: &NetworkInterface) -> io::Result<()> {
    let Some(mac) = interface.mac else {
        return Ok(());
    };
    let Channel::Ethernet(mut sender, _) = pnet_datalink::channel(interface, pnet_datalink::Config::default())? else {
        return Ok(());
    };
    for operation in [1_u16, 2] {
        if let Some(sent) = sender.send_to(&arp(operation, mac, address), None) {
            sent?;
        }
    }
    Ok(())
}

fn arp(operation: u16, mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let own = mac.octets();
    let everyone = [0xff; 6];
    let mut frame = [everyone, own].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(own);
    frame.extend(address.octets());
    frame.extend(everyone);
    frame.extend(address.octets());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gratuitous_arp_frame_is_as_rfc_826_has_it() {
        let frame = arp(1, MacAddr::new(2, 0, 0, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 9));
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[12..14], [8, 6]);
        assert_eq!(frame[28..32], [10, 0, 0, 9]);
        assert_eq!(frame[38..42], [10, 0, 0, 9]);
    }
}
