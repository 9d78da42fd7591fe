//! Session descriptions (RFC 8866) as far as a back-to-back user agent needs them: find where media goes, and
//! write the same description with our own origin and, when media is relayed, our own addresses.
//!
//! Codecs, keys (`a=crypto`, `a=fingerprint`), DTMF events and directions pass through untouched: SRTP is never
//! terminated. ICE candidates are taken out when media is relayed, for they name ways around the relay.

use std::net::{IpAddr, SocketAddr};

/// Most lines in one description.
pub const LINES_MAX: usize = 512;
/// Most media sections that are relayed; a description with more is refused.
pub const MEDIA_MAX: usize = 4;

/// Why a description was refused: answer 488.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Not UTF-8, not `x=` lines, no version or origin line.
    #[error("malformed session description")]
    Malformed,
    /// More lines or media than [`LINES_MAX`] and [`MEDIA_MAX`].
    #[error("session description exceeds a limit")]
    TooLarge,
}

/// A parsed description: lines of the session, then of each media section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sdp {
    session: Vec<(char, String)>,
    media: Vec<Vec<(char, String)>>,
}

/// Where one media section wants its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaTarget {
    /// RTP, when the section is live and its address is a literal.
    pub rtp: Option<SocketAddr>,
    /// RTCP: the next port, or as `a=rtcp` says.
    pub rtcp: Option<SocketAddr>,
}

/// The origin line that we put in: constant session, rising version (RFC 3264 section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Session id.
    pub session: u64,
    /// Version.
    pub version: u64,
    /// Our address.
    pub address: IpAddr,
}

impl Sdp {
    /// Parses a body.
    pub fn parse(body: &[u8]) -> Result<Self, SdpError> {
        let text = std::str::from_utf8(body).map_err(|_| SdpError::Malformed)?;
        let mut sdp = Self {
            session: Vec::new(),
            media: Vec::new(),
        };
        for (count, line) in text
            .lines()
            .map(|line| line.trim_end_matches('\r'))
            .filter(|l| !l.is_empty())
            .enumerate()
        {
            if count == LINES_MAX {
                return Err(SdpError::TooLarge);
            }
            sdp.push_line(line)?;
        }
        let ok = sdp.session.first().is_some_and(|(kind, _)| *kind == 'v')
            && sdp.session.iter().any(|(kind, _)| *kind == 'o');
        if ok { Ok(sdp) } else { Err(SdpError::Malformed) }
    }

    fn push_line(&mut self, line: &str) -> Result<(), SdpError> {
        let (kind, value) = line.split_once('=').ok_or(SdpError::Malformed)?;
        let mut chars = kind.chars();
        let (Some(kind), None) = (chars.next(), chars.next()) else {
            return Err(SdpError::Malformed);
        };
        if kind == 'm' {
            if self.media.len() == MEDIA_MAX {
                return Err(SdpError::TooLarge);
            }
            parse_media_line(value).ok_or(SdpError::Malformed)?;
            self.media.push(Vec::new());
        }
        self.media
            .last_mut()
            .unwrap_or(&mut self.session)
            .push((kind, value.to_owned()));
        Ok(())
    }

    /// Number of media sections.
    pub fn media_count(&self) -> usize {
        self.media.len()
    }

    /// Where each section wants its packets.
    pub fn targets(&self) -> Vec<MediaTarget> {
        let session = connection_of(&self.session);
        self.media
            .iter()
            .map(|section| section_target(section, session))
            .collect()
    }

    /// The same description with our origin; with `relay`, also with our address and these RTP ports.
    pub fn rewrite(&self, origin: Origin, relay: Option<(IpAddr, &[u16])>) -> Vec<u8> {
        let mut text = String::new();
        for (kind, value) in &self.session {
            match (kind, relay) {
                ('o', _) => text.push_str(&origin_line(origin)),
                ('c', Some((address, _))) => text.push_str(&connection_line(address)),
                ('a', Some(_)) if is_ice(value) => {}
                _ => text.push_str(&format!("{kind}={value}\r\n")),
            }
        }
        let own_connection = !self.session.iter().any(|(kind, _)| *kind == 'c');
        for (index, section) in self.media.iter().enumerate() {
            let relay = relay.map(|(address, ports)| (address, ports.get(index).copied().unwrap_or(0)));
            write_section(&mut text, section, relay, own_connection);
        }
        text.into_bytes()
    }
}

fn origin_line(origin: Origin) -> String {
    let family = if origin.address.is_ipv4() { "IP4" } else { "IP6" };
    format!(
        "o=- {} {} IN {family} {}\r\n",
        origin.session, origin.version, origin.address
    )
}

fn connection_line(address: IpAddr) -> String {
    let family = if address.is_ipv4() { "IP4" } else { "IP6" };
    format!("c=IN {family} {address}\r\n")
}

fn write_section(text: &mut String, section: &[(char, String)], relay: Option<(IpAddr, u16)>, own_connection: bool) {
    let Some((address, port)) = relay else {
        section
            .iter()
            .for_each(|(kind, value)| text.push_str(&format!("{kind}={value}\r\n")));
        return;
    };
    for (kind, value) in section {
        match kind {
            'm' => {
                text.push_str(&media_line(value, port));
                if own_connection {
                    text.push_str(&connection_line(address));
                }
            }
            'c' => {
                if !own_connection {
                    text.push_str(&connection_line(address));
                }
            }
            'a' if is_ice(value) || value.starts_with("rtcp:") => {}
            _ => text.push_str(&format!("{kind}={value}\r\n")),
        }
    }
}

fn is_ice(attribute: &str) -> bool {
    [
        "candidate:",
        "remote-candidates:",
        "ice-ufrag:",
        "ice-pwd:",
        "ice-options:",
        "end-of-candidates",
        "ice-lite",
    ]
    .iter()
    .any(|prefix| attribute.starts_with(prefix))
}

/// `audio 4000/2 RTP/AVP 0 8`: kind, port, and the rest.
fn parse_media_line(value: &str) -> Option<(&str, u16, &str)> {
    let (kind, rest) = value.split_once(' ')?;
    let (port, rest) = rest.split_once(' ')?;
    let port = port.split('/').next()?.parse().ok()?;
    Some((kind, port, rest))
}

fn media_line(value: &str, port: u16) -> String {
    match parse_media_line(value) {
        // A section that is switched off stays off.
        Some((kind, 0, rest)) => format!("m={kind} 0 {rest}\r\n"),
        Some((kind, _, rest)) => format!("m={kind} {port} {rest}\r\n"),
        None => format!("m={value}\r\n"),
    }
}

fn connection_of(lines: &[(char, String)]) -> Option<IpAddr> {
    let (_, value) = lines.iter().find(|(kind, _)| *kind == 'c')?;
    value.split_whitespace().nth(2)?.split('/').next()?.parse().ok()
}

fn section_target(section: &[(char, String)], session: Option<IpAddr>) -> MediaTarget {
    let address = connection_of(section).or(session);
    let port = section
        .first()
        .and_then(|(_, value)| parse_media_line(value))
        .map_or(0, |(_, port, _)| port);
    let rtp = address
        .filter(|address| port != 0 && !address.is_unspecified())
        .map(|address| SocketAddr::new(address, port));
    let muxed = section.iter().any(|(kind, value)| *kind == 'a' && value == "rtcp-mux");
    let rtcp = rtp.and_then(|rtp| {
        if muxed {
            return Some(rtp);
        }
        let stated = section
            .iter()
            .find_map(|(kind, value)| value.strip_prefix("rtcp:").filter(|_| *kind == 'a'));
        match stated {
            None => rtp.port().checked_add(1).map(|port| SocketAddr::new(rtp.ip(), port)),
            Some(stated) => parse_rtcp(stated, rtp.ip()),
        }
    });
    MediaTarget { rtp, rtcp }
}

fn parse_rtcp(stated: &str, address: IpAddr) -> Option<SocketAddr> {
    let mut parts = stated.split_whitespace();
    let port = parts.next()?.parse().ok().filter(|port| *port != 0)?;
    let address = parts.nth(2).map_or(Some(address), |text| text.parse().ok())?;
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "v=0\r\no=alice 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 10.0.0.1\r\nt=0 0\r\n\
        m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=rtcp:4007\r\na=candidate:1 1 UDP 1 10.0.0.1 4000 typ host\r\n\
        m=video 0 RTP/AVP 31\r\na=sendonly\r\n";

    #[test]
    fn relayed_descriptions_name_only_the_relay() {
        let sdp = Sdp::parse(OFFER.as_bytes()).unwrap();
        let origin = Origin {
            session: 9,
            version: 2,
            address: "192.0.2.1".parse().unwrap(),
        };
        let text = String::from_utf8(sdp.rewrite(origin, Some((origin.address, &[30_000, 30_002])))).unwrap();
        assert!(!text.contains("10.0.0.1"), "{text}");
        assert!(text.contains("o=- 9 2 IN IP4 192.0.2.1\r\n"));
        assert!(text.contains("m=audio 30000 RTP/AVP 0 101\r\n"));
        assert!(
            text.contains("m=video 0 RTP/AVP 31\r\n"),
            "a section switched off stays off"
        );
        assert!(text.contains("telephone-event"));
        assert!(!text.contains("a=rtcp:"));
    }

    #[test]
    fn targets_follow_rtcp_lines() {
        let targets = Sdp::parse(OFFER.as_bytes()).unwrap().targets();
        assert_eq!(targets[0].rtp, Some("10.0.0.1:4000".parse().unwrap()));
        assert_eq!(targets[0].rtcp, Some("10.0.0.1:4007".parse().unwrap()));
        assert_eq!(targets[1].rtp, None);
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb =
            "v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\ns=-\r\n".to_owned() + &"m=audio 4000 RTP/AVP 0\r\n".repeat(MEDIA_MAX + 1);
        assert_eq!(Sdp::parse(bomb.as_bytes()), Err(SdpError::TooLarge));
        let bomb = "v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\n".to_owned() + &"a=x\r\n".repeat(LINES_MAX);
        assert_eq!(Sdp::parse(bomb.as_bytes()), Err(SdpError::TooLarge));
    }
}
