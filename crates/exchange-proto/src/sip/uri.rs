//! SIP URIs (RFC 3261 section 19.1): scheme, user, host, port, parameters, headers.

use std::borrow::Cow;
use std::fmt;

/// A `sip:` or `sips:` URI. Other schemes do not parse: the caller answers 416.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// `sips` rather than `sip`.
    pub secure: bool,
    /// User part, unescaped; empty when there is none.
    pub user: Cow<'a, str>,
    /// Host as written, lower case; IPv6 in brackets.
    pub host: Cow<'a, str>,
    /// Port, when given.
    pub port: Option<u16>,
    /// Parameters in order.
    pub params: Vec<(&'a str, Option<&'a str>)>,
    /// What follows `?`, raw.
    pub headers: Option<&'a str>,
}

/// Why a URI was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// A scheme other than sip and sips: answer 416.
    #[error("unsupported URI scheme")]
    Scheme,
    /// Not a URI: answer 400.
    #[error("malformed URI")]
    Malformed,
}

impl<'a> Uri<'a> {
    /// Parses a URI without angle brackets.
    pub fn parse(text: &'a str) -> Result<Self, UriError> {
        let (scheme, rest) = text.split_once(':').ok_or(UriError::Malformed)?;
        let secure = match scheme {
            s if s.eq_ignore_ascii_case("sip") => false,
            s if s.eq_ignore_ascii_case("sips") => true,
            s if is_scheme(s) => return Err(UriError::Scheme),
            _ => return Err(UriError::Malformed),
        };
        if rest
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || "<>\"".contains(c))
        {
            return Err(UriError::Malformed);
        }
        // The user part may hold ';' and '?', so it is cut off first.
        let (user, rest) = match rest.split_once('@') {
            Some((user, rest)) => (unescape(user.split(':').next().unwrap_or(user))?, rest),
            None => (Cow::Borrowed(""), rest),
        };
        let (rest, headers) = match rest.split_once('?') {
            Some((rest, headers)) => (rest, Some(headers)),
            None => (rest, None),
        };
        let mut parts = rest.split(';');
        let (host, port) = parse_host_port(parts.next().unwrap_or(""))?;
        let params = parts.map(parse_param).collect::<Result<_, _>>()?;
        Ok(Self {
            secure,
            user,
            host,
            port,
            params,
            headers,
        })
    }

    /// A parameter's value; `Some(None)` when it stands without one.
    pub fn param(&self, name: &str) -> Option<Option<&str>> {
        self.params
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    /// Equivalence as needed for Contact matching (RFC 3261 section 19.1.4, without header comparison).
    pub fn same_address(&self, other: &Uri<'_>) -> bool {
        self.secure == other.secure
            && self.user == other.user
            && self.host == other.host
            && self.port == other.port
            && ["transport", "ttl", "method", "maddr", "user"]
                .iter()
                .all(|name| self.param(name) == other.param(name))
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn parse_param(text: &str) -> Result<(&str, Option<&str>), UriError> {
    match text.split_once('=') {
        Some(("", _)) => Err(UriError::Malformed),
        Some((name, value)) => Ok((name, Some(value))),
        None if text.is_empty() => Err(UriError::Malformed),
        None => Ok((text, None)),
    }
}

/// Host and optional port, of URIs and Via.
pub fn parse_host_port(text: &str) -> Result<(Cow<'_, str>, Option<u16>), UriError> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or(UriError::Malformed)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_| UriError::Malformed)?;
        (
            Cow::Borrowed(&text[..address.len() + 2]),
            rest.strip_prefix(':')
                .or(rest.is_empty().then_some(""))
                .ok_or(UriError::Malformed)?,
        )
    } else {
        let (host, port) = text.split_once(':').unwrap_or((text, ""));
        if text.ends_with(':') || !is_host(host) {
            return Err(UriError::Malformed);
        }
        let lower = match host.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        (lower, port)
    };
    let port = match port {
        "" => None,
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().map_err(|_| UriError::Malformed)?),
        _ => return Err(UriError::Malformed),
    };
    Ok((host, port))
}

fn is_host(host: &str) -> bool {
    !host.is_empty() && host.len() <= 253 && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// Undoes %-escapes; a stray `%` is malformed.
pub fn unescape(text: &str) -> Result<Cow<'_, str>, UriError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()].map(|d| d.and_then(|d| (d as char).to_digit(16)));
        let [Some(high), Some(low)] = digits else {
            return Err(UriError::Malformed);
        };
        bytes.push((high * 16 + low) as u8);
    }
    let text = String::from_utf8(bytes).map_err(|_| UriError::Malformed)?;
    Ok(Cow::Owned(text))
}

/// Escapes what may not stand in a user part.
pub fn escape_user(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, b| {
        if b.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
        out
    })
}

impl fmt::Display for Uri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secure { "sips:" } else { "sip:" })?;
        if !self.user.is_empty() {
            write!(f, "{}@", escape_user(&self.user))?;
        }
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        for (name, value) in &self.params {
            match value {
                Some(value) => write!(f, ";{name}={value}")?,
                None => write!(f, ";{name}")?,
            }
        }
        if let Some(headers) = &self.headers {
            write!(f, "?{headers}")?;
        }
        Ok(())
    }
}
