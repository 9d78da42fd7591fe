//! The internet, and the routers in front of it: nftables rules for each kind of NAT.
//!
//! Names are those of RFC 4787: *mapping* is which outside port an inside socket gets, *filtering* is who may send to it.
//!
//! | kind | mapping | filtering | how |
//! |---|---|---|---|
//! | full cone | endpoint-independent | endpoint-independent | masquerade; a dynamic map leads every packet to a used port back inside |
//! | address-restricted | endpoint-independent | address-dependent | the same for senders of an address that was spoken to |
//! | port-restricted | endpoint-independent | address- and port-dependent | plain masquerade: Linux keeps the port while it is free |
//! | symmetric | address- and port-dependent | address- and port-dependent | masquerade with a fresh port for every destination |
//!
//! Early packets from outside are dropped on the way *in* to the router itself: otherwise they become flows of the router, take the port, and the guest's own
//! packet gets another one, which looks symmetric.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;

use crate::site::{Namespace, Site, cable};
use crate::wire::{Faults, Wire};

/// The network of the internet here (RFC 5737 and RFC 2544: addresses for documentation and benchmarks).
const INTERNET: &str = "198.18.0.1/15";
const INTERNET_ROUTER: &str = "198.18.0.1";

/// The internet: one switch that routes nothing private.
pub(crate) struct Internet<'s> {
    site: &'s Site,
    /// The namespace of the switch; it has the address 198.18.0.1 and may get more.
    pub(crate) namespace: Namespace,
    seeds: AtomicU64,
}

impl<'s> Internet<'s> {
    pub(crate) fn new(site: &'s Site) -> Result<Self> {
        let namespace = site.namespace("internet")?;
        namespace.ip("link add internet type bridge")?;
        namespace.ip("link set internet up")?;
        namespace.ip(&format!("addr add {INTERNET} dev internet"))?;
        Ok(Self {
            site,
            namespace,
            seeds: AtomicU64::new(1),
        })
    }

    /// Gives the internet's own machine another address.
    pub(crate) fn add_address(&self, address: &str) -> Result<()> {
        self.namespace.ip(&format!("addr add {address}/32 dev internet"))
    }

    /// Connects a machine by a plain cable.
    pub(crate) fn attach(&self, machine: &Namespace, address: &str) -> Result<()> {
        let port = self.site.fresh_interface();
        cable(&self.namespace, &port, machine, "wan0")?;
        self.finish(machine, &port, address)
    }

    /// Connects a machine by a cable with faults.
    pub(crate) fn attach_by_wire(&self, machine: &Namespace, address: &str, faults: Faults) -> Result<Wire> {
        let port = self.site.fresh_interface();
        let seed = self.seeds.fetch_add(1, Ordering::Relaxed);
        let wire = Wire::new((&self.namespace, &port), (machine, "wan0"), faults, seed)?;
        self.finish(machine, &port, address)?;
        Ok(wire)
    }

    fn finish(&self, machine: &Namespace, port: &str, address: &str) -> Result<()> {
        self.namespace.ip(&format!("link set {port} master internet"))?;
        machine.ip(&format!("addr add {address}/15 dev wan0"))?;
        machine.ip(&format!("route add default via {INTERNET_ROUTER}"))
    }
}

/// A kind of NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nat {
    FullCone,
    AddressRestricted,
    PortRestricted,
    Symmetric,
}

impl Nat {
    pub(crate) const ALL: [Self; 4] = [
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
        }
    }

    /// Whether two hosts behind these can reach each other directly by sending at the same time. A symmetric NAT's next port cannot be told to the other side,
    /// so the other side must take packets from any port.
    pub(crate) fn can_punch(self, other: Self) -> bool {
        let strict = |nat| matches!(nat, Self::PortRestricted | Self::Symmetric);
        let symmetric = self == Self::Symmetric || other == Self::Symmetric;
        !(symmetric && strict(self) && strict(other))
    }
}

/// A router with NAT: `wan0` outside, the bridge `lan0` inside.
pub(crate) struct Gateway<'s> {
    site: &'s Site,
    pub(crate) namespace: Namespace,
    /// Its address inside, and the length of the prefix.
    inside: (String, u8),
}

impl<'s> Gateway<'s> {
    /// A router whose outside is not connected yet; `inside` is its own address there.
    pub(crate) fn new(site: &'s Site, name: &str, inside: &str, prefix: u8) -> Result<Self> {
        let namespace = site.namespace(name)?;
        namespace.ip("link add lan0 type bridge")?;
        namespace.ip("link set lan0 up")?;
        namespace.ip(&format!("addr add {inside}/{prefix} dev lan0"))?;
        namespace.sysctl(&["net.netfilter.nf_conntrack_acct=1"])?;
        Ok(Self {
            site,
            namespace,
            inside: (inside.to_owned(), prefix),
        })
    }

    /// Takes this kind of NAT, and forgets all flows.
    pub(crate) fn set_nat(&self, nat: Nat) -> Result<()> {
        self.namespace.nft(&rules(nat))?;
        self.forget_flows()
    }

    /// Forgets all flows, as a restart does.
    pub(crate) fn forget_flows(&self) -> Result<()> {
        self.namespace.output("conntrack", &["-F"]).map(drop)
    }

    /// Connects a machine inside by its interface `eth0`, with this address; returns the name of the router's end.
    pub(crate) fn attach(&self, machine: &Namespace, address: &str) -> Result<String> {
        let port = self.site.fresh_interface();
        cable(&self.namespace, &port, machine, "eth0")?;
        self.namespace.ip(&format!("link set {port} master lan0"))?;
        let (router, prefix) = &self.inside;
        machine.ip(&format!("addr add {address}/{prefix} dev eth0"))?;
        machine.ip(&format!("route add default via {router}"))?;
        Ok(port)
    }

    /// Puts another gateway inside this one: carrier-grade NAT.
    pub(crate) fn attach_gateway(&self, inner: &Gateway<'_>, address: &str) -> Result<()> {
        let port = self.site.fresh_interface();
        cable(&self.namespace, &port, &inner.namespace, "wan0")?;
        self.namespace.ip(&format!("link set {port} master lan0"))?;
        let (router, prefix) = &self.inside;
        inner.namespace.ip(&format!("addr add {address}/{prefix} dev wan0"))?;
        inner.namespace.ip(&format!("route add default via {router}"))
    }
}

/// Replaces the table `nat`.
fn rules(nat: Nat) -> String {
    let masquerade = match nat {
        Nat::Symmetric => "masquerade fully-random",
        _ => "masquerade",
    };
    let (inward, outward) = match nat {
        Nat::FullCone => ("iifname \"wan0\" dnat to udp dport map @used", REMEMBER),
        Nat::AddressRestricted => (
            "iifname \"wan0\" ip saddr . udp dport @spoken dnat to udp dport map @used",
            REMEMBER,
        ),
        Nat::PortRestricted | Nat::Symmetric => ("", ""),
    };
    format!(
        "add table ip nat
delete table ip nat
table ip nat {{
  map used {{ type inet_service : ipv4_addr . inet_service; flags dynamic,timeout; timeout 2m; size 65535; }}
  set spoken {{ type ipv4_addr . inet_service; flags dynamic,timeout; timeout 2m; size 65535; }}
  chain inward {{ type nat hook prerouting priority dstnat; {inward}
  }}
  chain outward {{ type nat hook postrouting priority srcnat; {outward}
    oifname \"wan0\" {masquerade}
  }}
  chain itself {{ type filter hook input priority filter; iifname \"wan0\" ct state new meta l4proto {{ tcp, udp }} drop
  }}
  chain unasked {{ type filter hook forward priority 10; ct status dnat accept
    iifname \"wan0\" ct state new drop
  }}
}}
"
    )
}

/// Notes which inside socket an outside port belongs to, and whom it spoke to.
const REMEMBER: &str = "oifname \"wan0\" meta l4proto udp update @used { udp sport : ip saddr . udp sport }
    oifname \"wan0\" meta l4proto udp update @spoken { ip daddr . udp sport }";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirteen_of_sixteen_pairs_can_punch() {
        let pairs = Nat::ALL.iter().flat_map(|a| Nat::ALL.map(|b| a.can_punch(b)));
        assert_eq!(pairs.filter(|can| *can).count(), 13);
        assert!(!Nat::Symmetric.can_punch(Nat::PortRestricted));
        assert!(!Nat::PortRestricted.can_punch(Nat::Symmetric));
        assert!(!Nat::Symmetric.can_punch(Nat::Symmetric));
    }
}
