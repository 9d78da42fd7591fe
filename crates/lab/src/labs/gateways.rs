//! The instruments themselves: is each gateway what it is called, and does the cable do what it is told?
//!
//! Without this the other labs prove nothing. The prober speaks a protocol of its own and knows nothing of Offhook.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::gateway::{Gateway, Internet, Nat};
use crate::prober::{self, Dependence, Observed, SERVERS, Server};
use crate::report::{Figures, Outcome};
use crate::site::{Namespace, Site};
use crate::wire::{Faults, Wire};

pub(super) fn run(site: &Site) -> Result<Outcome> {
    let internet = Internet::new(site)?;
    for address in SERVERS {
        internet.add_address(address)?;
    }
    let _server = Server::start(&internet.namespace)?;
    let mut figures = site.figures();
    let mut wrong = Vec::new();

    // The control: with no gateway between, nothing depends on anything.
    let open = site.namespace("open")?;
    internet.attach(&open, "198.18.0.50")?;
    judge(
        "no gateway",
        &open,
        (Nat::FullCone).expected(),
        &mut figures,
        &mut wrong,
    )?;

    let home = Gateway::new(site, "home", "192.168.1.1", 24)?;
    internet.attach(&home.namespace, "198.18.0.20")?;
    let guest = site.namespace("guest")?;
    home.attach(&guest, "192.168.1.10")?;
    for nat in Nat::ALL {
        home.set_nat(nat)?;
        judge(nat.name(), &guest, nat.expected(), &mut figures, &mut wrong)?;
    }

    let carrier = Gateway::new(site, "carrier", "100.64.0.1", 24)?;
    internet.attach(&carrier.namespace, "198.18.0.40")?;
    let flat = Gateway::new(site, "flat", "192.168.8.1", 24)?;
    carrier.attach_gateway(&flat, "100.64.0.2")?;
    carrier.set_nat(Nat::PortRestricted)?;
    flat.set_nat(Nat::PortRestricted)?;
    let behind = site.namespace("behind")?;
    flat.attach(&behind, "192.168.8.10")?;
    judge(
        "carrier",
        &behind,
        Nat::PortRestricted.expected(),
        &mut figures,
        &mut wrong,
    )?;

    cable(site, &mut figures, &mut wrong)?;
    figures.write()?;
    Ok(Outcome::of(wrong))
}

impl Nat {
    /// What RFC 4787 says that a NAT of this name does.
    fn expected(self) -> Observed {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        let (mapping, filtering) = match self {
            Self::FullCone => (EndpointIndependent, EndpointIndependent),
            Self::AddressRestricted => (EndpointIndependent, AddressDependent),
            Self::PortRestricted => (EndpointIndependent, AddressAndPortDependent),
            Self::Symmetric => (AddressAndPortDependent, AddressAndPortDependent),
        };
        Observed { mapping, filtering }
    }
}

fn judge(
    name: &str,
    from: &Namespace,
    expected: Observed,
    figures: &mut Figures,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let observed = prober::classify(from).with_context(|| format!("probing {name}"))?;
    let shown = json!({"mapping": format!("{:?}", observed.mapping), "filtering": format!("{:?}", observed.filtering)});
    figures.note(name, shown);
    if observed != expected {
        wrong.push(format!("{name}: expected {expected:?}, observed {observed:?}"));
    }
    Ok(())
}

/// Packets sent over the cable for each fault.
const PACKETS: u16 = 1_000;

/// Sends numbered packets over a cable with faults and looks at what comes out.
fn cable(site: &Site, figures: &mut Figures, wrong: &mut Vec<String>) -> Result<()> {
    let (wire, near, far) = lay(site)?;
    let plain = shoot(&near, &far)?;
    wire.set(Faults::delay_ms(80));
    let delayed = shoot(&near, &far)?;
    wire.set(Faults {
        loss: 0.3,
        ..Faults::default()
    });
    let lossy = shoot(&near, &far)?;
    wire.set(Faults {
        duplicate: 0.3,
        ..Faults::default()
    });
    let doubled = shoot(&near, &far)?;
    wire.set(Faults {
        jitter: Duration::from_millis(30),
        delay: Duration::from_millis(40),
        reorder: true,
        ..Faults::default()
    });
    let shuffled = shoot(&near, &far)?;
    wire.set(Faults {
        down: true,
        ..Faults::default()
    });
    let cut = shoot(&near, &far)?;
    for (name, shot) in [
        ("wire_plain", &plain),
        ("wire_delay_80_ms", &delayed),
        ("wire_loss_30_percent", &lossy),
        ("wire_duplicate_30_percent", &doubled),
        ("wire_jitter_30_ms", &shuffled),
        ("wire_down", &cut),
    ] {
        let first = shot
            .first
            .map(|first| u32::try_from(first.as_millis()).unwrap_or(u32::MAX));
        figures.note(
            name,
            json!({"of": PACKETS, "arrived": shot.arrived, "overtaken": shot.overtaken, "first_ms": first}),
        );
    }
    // A binomial share of 1,000 is within 6 standard deviations (87) of its mean but once in 10^8, and the dice are seeded anyway.
    let near_share = |count: u16, mean: u16| count.abs_diff(mean) < 87;
    let checks = [
        (
            "a plain cable loses or shuffles",
            plain.arrived == PACKETS && plain.overtaken == 0,
        ),
        (
            "the delay is too short",
            delayed.first.is_some_and(|first| first >= Duration::from_millis(80)),
        ),
        ("loss is not 30 %", near_share(lossy.arrived, 700)),
        ("duplicates are not 30 %", near_share(doubled.arrived, 1_300)),
        (
            "jitter shuffles nothing",
            shuffled.arrived == PACKETS && shuffled.overtaken > 100,
        ),
        ("an unplugged cable carries", cut.arrived == 0),
    ];
    wrong.extend(
        checks
            .iter()
            .filter(|(_, holds)| !holds)
            .map(|(what, _)| (*what).to_owned()),
    );
    Ok(())
}

/// A cable with a socket at each end.
fn lay(site: &Site) -> Result<(Wire, UdpSocket, UdpSocket)> {
    let (a, b) = (site.namespace("near")?, site.namespace("far")?);
    let wire = Wire::new((&a, "w0"), (&b, "w1"), Faults::default(), 7)?;
    for (end, interface, address) in [(&a, "w0", "10.9.0.1"), (&b, "w1", "10.9.0.2")] {
        end.ip(&format!("addr add {address}/24 dev {interface}"))?;
    }
    let near = a.within(|| Ok(UdpSocket::bind("10.9.0.1:7000")?))?;
    let far = b.within(|| Ok(UdpSocket::bind("10.9.0.2:7000")?))?;
    far.set_read_timeout(Some(Duration::from_millis(600)))?;
    near.send_to(b"so that the address is resolved", "10.9.0.2:7000")?;
    far.recv(&mut [0; 64]).context("the cable carries nothing")?;
    Ok((wire, near, far))
}

/// What came out.
struct Shot {
    arrived: u16,
    /// Packets that came after a later one.
    overtaken: u16,
    first: Option<Duration>,
}

fn shoot(near: &UdpSocket, far: &UdpSocket) -> Result<Shot> {
    let start = Instant::now();
    let sending = near.try_clone()?;
    let sender = std::thread::spawn(move || {
        for number in 0..PACKETS {
            // What is not sent is not received, which is looked at.
            let _ = sending.send_to(&number.to_be_bytes(), "10.9.0.2:7000");
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    let mut shot = Shot {
        arrived: 0,
        overtaken: 0,
        first: None,
    };
    let (mut newest, mut packet) = (0, [0; 2]);
    while let Ok(2) = far.recv(&mut packet) {
        shot.first.get_or_insert_with(|| start.elapsed());
        let number = u16::from_be_bytes(packet);
        shot.arrived += 1;
        shot.overtaken += u16::from(number < newest);
        newest = newest.max(number);
    }
    // It only sends.
    let _ = sender.join();
    Ok(shot)
}
