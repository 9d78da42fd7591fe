//! Digest access authentication (RFC 7616, RFC 8760): SHA-256 and MD5, with nonces that need no memory.
//!
//! A nonce is `time || MAC(key, time, source address)`, so every node that knows the key can check it, and one
//! that was overheard is worthless from another address and after [`NONCE_LIFE_S`]. Within that time and from that
//! address a request can be replayed; over UDP in the clear only TLS prevents that. `auth-int` is not offered.

use std::borrow::Cow;
use std::net::IpAddr;

use md5::Md5;
use sha2::{Digest as _, Sha256};

use super::header::unquote;

/// How long a nonce is good for, seconds.
pub const NONCE_LIFE_S: u64 = 120;

/// Hash function of a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 8760's stronger one, offered first.
    Sha256,
    /// What older phones know.
    Md5,
}

impl Algorithm {
    /// The name in challenges.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Md5 => "MD5",
        }
    }

    /// Lower-case hexadecimal hash.
    pub fn hash(self, text: &str) -> String {
        match self {
            Self::Sha256 => hex(&Sha256::digest(text.as_bytes())),
            Self::Md5 => hex(&Md5::digest(text.as_bytes())),
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(digits.map(|digit| char::from(DIGITS[usize::from(digit)])));
    text
}

/// H(user:realm:password) in both hashes: what is kept instead of the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// With SHA-256.
    pub sha256: String,
    /// With MD5.
    pub md5: String,
}

impl Secret {
    /// Derives the secret of an account.
    pub fn new(user: &str, realm: &str, password: &str) -> Self {
        let text = format!("{user}:{realm}:{password}");
        Self {
            sha256: Algorithm::Sha256.hash(&text),
            md5: Algorithm::Md5.hash(&text),
        }
    }
}

/// The parameters of an Authorization header field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Credentials<'a> {
    pub username: Cow<'a, str>,
    pub realm: Cow<'a, str>,
    pub nonce: Cow<'a, str>,
    pub uri: Cow<'a, str>,
    pub response: Cow<'a, str>,
    pub algorithm: Algorithm,
    pub qop: Option<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Credentials<'a> {
    /// Parses `Digest ...`; other schemes and unknown algorithms give `None`.
    pub fn parse(value: &'a str) -> Option<Self> {
        let (scheme, rest) = value.split_once(char::is_whitespace)?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let mut params = Vec::new();
        for part in super::header::split_commas(rest) {
            let (name, value) = part.split_once('=')?;
            params.push((name.trim(), unquote(value.trim())?));
        }
        let mut get = |name: &str| {
            let found = params.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| std::mem::take(value))
        };
        let algorithm = match get("algorithm").as_deref() {
            None => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("MD5") => Algorithm::Md5,
            Some(name) if name.eq_ignore_ascii_case("SHA-256") => Algorithm::Sha256,
            Some(_) => return None,
        };
        let qop = match get("qop").as_deref() {
            None => None,
            Some("auth") => Some((get("nc")?, get("cnonce")?)),
            Some(_) => return None,
        };
        Some(Self {
            username: get("username")?,
            realm: get("realm")?,
            nonce: get("nonce")?,
            uri: get("uri")?,
            response: get("response")?,
            algorithm,
            qop,
        })
    }

    /// Whether the response proves knowledge of the secret.
    pub fn proves(&self, secret: &Secret, method: &str) -> bool {
        let ha1 = match self.algorithm {
            Algorithm::Sha256 => &secret.sha256,
            Algorithm::Md5 => &secret.md5,
        };
        let expected = self.expected(ha1, method);
        constant_time_eq(expected.as_bytes(), self.response.to_ascii_lowercase().as_bytes())
    }

    fn expected(&self, ha1: &str, method: &str) -> String {
        let ha2 = self.algorithm.hash(&format!("{method}:{}", self.uri));
        let text = match &self.qop {
            Some((nc, cnonce)) => format!("{ha1}:{}:{nc}:{cnonce}:auth:{ha2}", self.nonce),
            None => format!("{ha1}:{}:{ha2}", self.nonce),
        };
        self.algorithm.hash(&text)
    }
}

fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

/// Makes and checks nonces.
#[derive(Clone)]
pub struct Nonces {
    key: [u8; 32],
}

/// What a nonce is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Made by us, for this source, lately.
    Fresh,
    /// Made by us or not, it is not good any more: challenge again with `stale=true`.
    Stale,
}

impl Nonces {
    /// All nodes of one exchange share the key.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// A nonce for that source at that time.
    pub fn issue(&self, unix_s: u64, source: IpAddr) -> String {
        let time = format!("{:08x}", unix_s & 0xffff_ffff);
        let mac = self.mac(&time, source);
        time + &mac
    }

    /// Checks a nonce that came back.
    pub fn check(&self, nonce: &str, unix_s: u64, source: IpAddr) -> Freshness {
        let Some((time, mac)) = nonce.split_at_checked(8) else {
            return Freshness::Stale;
        };
        let made_s = u64::from_str_radix(time, 16).unwrap_or(0);
        let age_s = (unix_s & 0xffff_ffff).wrapping_sub(made_s) & 0xffff_ffff;
        let genuine = constant_time_eq(mac.as_bytes(), self.mac(time, source).as_bytes());
        if genuine && age_s <= NONCE_LIFE_S {
            Freshness::Fresh
        } else {
            Freshness::Stale
        }
    }

    fn mac(&self, time: &str, source: IpAddr) -> String {
        let hash = blake3::keyed_hash(&self.key, format!("{time} {source}").as_bytes());
        hex(&hash.as_bytes()[..8])
    }
}

/// A challenge's header value.
pub fn challenge(realm: &str, nonce: &str, algorithm: Algorithm, stale: bool) -> String {
    let stale = if stale { ",stale=true" } else { "" };
    format!(
        "Digest realm=\"{realm}\",nonce=\"{nonce}\",algorithm={},qop=\"auth\"{stale}",
        algorithm.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7616 section 3.9.1, both algorithms.
    #[test]
    fn rfc_7616_example() {
        let secret = Secret::new("Mufasa", "http-auth@example.org", "Circle of Life");
        for (algorithm, response) in [
            ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
            (
                "SHA-256",
                "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
            ),
        ] {
            let header = format!(
                "Digest username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", algorithm={algorithm}, \
                 nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, \
                 cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", qop=auth, response=\"{response}\", \
                 opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
            );
            let credentials = Credentials::parse(&header).unwrap();
            assert!(credentials.proves(&secret, "GET"));
            assert!(!credentials.proves(&secret, "PUT"));
        }
    }

    #[test]
    fn a_nonce_is_good_for_its_source_and_time_only() {
        let (here, there) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let nonces = Nonces::new([7; 32]);
        let nonce = nonces.issue(1_000, here);
        assert_eq!(nonces.check(&nonce, 1_000 + NONCE_LIFE_S, here), Freshness::Fresh);
        assert_eq!(nonces.check(&nonce, 1_001 + NONCE_LIFE_S, here), Freshness::Stale);
        assert_eq!(nonces.check(&nonce, 1_000, there), Freshness::Stale);
        assert_eq!(Nonces::new([8; 32]).check(&nonce, 1_000, here), Freshness::Stale);
        assert_eq!(nonces.check("\u{e9}\u{e9}\u{e9}\u{e9}x", 1_000, here), Freshness::Stale);
    }
}
