//! Typed header fields: what the exchange reads from them (RFC 3261 section 20).

use std::borrow::Cow;

use super::message::{Method, is_token, parse_decimal};
use super::uri::{Uri, UriError, parse_host_port};

/// Splits at commas outside quotes and angle brackets.
pub fn split_commas(value: &str) -> impl Iterator<Item = &str> {
    split_outside(value, ',')
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

/// The parts between separators outside quotes and angle brackets; one at least.
fn split_outside(value: &str, separator: char) -> Outside<'_> {
    Outside {
        rest: Some(value),
        separator,
    }
}

struct Outside<'a> {
    rest: Option<&'a str>,
    separator: char,
}

impl<'a> Iterator for Outside<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest.take()?;
        // Nothing is open where a part begins.
        let (mut quoted, mut escaped, mut bracket) = (false, false, false);
        for (at, c) in rest.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                '<' if !quoted => bracket = true,
                '>' if !quoted => bracket = false,
                c if c == self.separator && !quoted && !bracket => {
                    self.rest = Some(&rest[at + c.len_utf8()..]);
                    return Some(&rest[..at]);
                }
                _ => {}
            }
        }
        Some(rest)
    }
}

/// Parameters after a header value, copied only where quotes are to be taken off.
pub type Params<'a> = Vec<(&'a str, Option<Cow<'a, str>>)>;

fn parse_params<'a>(parts: impl Iterator<Item = &'a str>) -> Option<Params<'a>> {
    parts.map(|part| parse_param(part.trim())).collect()
}

fn parse_param(part: &str) -> Option<(&str, Option<Cow<'_, str>>)> {
    let (name, value) = match part.split_once('=') {
        Some((name, value)) => (name.trim(), Some(unquote(value.trim())?)),
        None => (part, None),
    };
    is_token(name).then_some((name, value))
}

/// Takes off quotes and their backslashes; `None` when the quotes do not balance.
pub fn unquote(value: &str) -> Option<Cow<'_, str>> {
    let Some(inner) = value.strip_prefix('"') else {
        return (!value.contains('"')).then_some(Cow::Borrowed(value));
    };
    if let Some(plain) = inner.strip_suffix('"').filter(|text| !text.contains(['"', '\\'])) {
        return Some(Cow::Borrowed(plain));
    }
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next()?),
            '"' => return chars.next().is_none().then_some(Cow::Owned(out)),
            c => out.push(c),
        }
    }
    None
}

/// Finds a parameter by name.
pub fn find_param<'p>(params: &'p Params<'_>, name: &str) -> Option<&'p str> {
    params
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_deref().unwrap_or(""))
}

/// The tag of a From or To value, without looking at the rest of it.
pub fn tag_of(value: &str) -> Option<&str> {
    let mut params = split_outside(value, ';').skip(1);
    let tag = params.find_map(|part| {
        let (name, tag) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("tag").then(|| tag.trim())
    });
    tag.filter(|tag| is_token(tag))
}

/// A name-addr or addr-spec with header parameters: From, To, Contact, Route, Refer-To.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// Display name, unquoted; empty when there is none.
    pub display: Cow<'a, str>,
    /// The URI as written.
    pub raw_uri: &'a str,
    /// The URI, when its scheme is sip or sips.
    pub uri: Option<Uri<'a>>,
    /// Header parameters.
    pub params: Params<'a>,
}

/// Contacts have the same shape.
pub type Contact<'a> = NameAddr<'a>;

impl<'a> NameAddr<'a> {
    /// Parses one element.
    pub fn parse(text: &'a str) -> Result<Self, UriError> {
        let text = text.trim();
        let bracketed = split_bracket(text)?;
        let (display, raw_uri, rest) = match bracketed {
            Some((display, uri, rest)) => (parse_display(display)?, uri, rest),
            None => {
                // Without brackets, parameters and a comma or '?' belong to the header, not the URI.
                let (uri, rest) = text.find(';').map_or((text, ""), |at| text.split_at(at));
                if uri.contains(['?', ',']) {
                    return Err(UriError::Malformed);
                }
                (Cow::Borrowed(""), uri.trim_end(), rest)
            }
        };
        let uri = match Uri::parse(raw_uri) {
            Ok(uri) => Some(uri),
            Err(UriError::Scheme) => None,
            Err(error) => return Err(error),
        };
        let rest = rest.trim();
        let params = match rest.strip_prefix(';') {
            Some(rest) => parse_params(split_outside(rest, ';')).ok_or(UriError::Malformed)?,
            None if rest.is_empty() => Params::new(),
            None => return Err(UriError::Malformed),
        };
        Ok(Self {
            display,
            raw_uri,
            uri,
            params,
        })
    }

    /// A header parameter's value.
    pub fn param(&self, name: &str) -> Option<&str> {
        find_param(&self.params, name)
    }

    /// The tag, of From and To.
    pub fn tag(&self) -> Option<&str> {
        self.param("tag").filter(|tag| !tag.is_empty())
    }
}

/// Display name, URI and rest around `<` and `>`, looked for outside quotes.
fn split_bracket(text: &str) -> Result<Option<(&str, &str, &str)>, UriError> {
    let (mut quoted, mut escaped, mut open) = (false, false, None);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if open.is_none() => quoted = !quoted,
            '<' if !quoted && open.is_none() => open = Some(at),
            '>' if !quoted => {
                let open = open.ok_or(UriError::Malformed)?;
                return Ok(Some((&text[..open], &text[open + 1..at], &text[at + 1..])));
            }
            _ => {}
        }
    }
    if quoted && open.is_none() && text.starts_with('"') || open.is_some() {
        Err(UriError::Malformed)
    } else {
        Ok(None)
    }
}

fn parse_display(text: &str) -> Result<Cow<'_, str>, UriError> {
    let text = text.trim();
    if text.starts_with('"') {
        return unquote(text).ok_or(UriError::Malformed);
    }
    let tokens = text.split_whitespace().all(is_token);
    tokens.then_some(Cow::Borrowed(text)).ok_or(UriError::Malformed)
}

/// The topmost or any other Via element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// Transport token in capitals: UDP, TCP, TLS, ...
    pub transport: Cow<'a, str>,
    /// Host of the sender.
    pub host: Cow<'a, str>,
    /// Port of the sender.
    pub port: Option<u16>,
    /// Parameters.
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Parses one element.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (protocol, rest) = split_protocol(text)?;
        let mut parts = split_outside(rest, ';');
        let (host, port) = parse_sent_by(parts.next()?.trim())?;
        let params = parse_via_params(parts)?;
        Some(Self {
            transport: protocol,
            host,
            port,
            params,
        })
    }

    /// The branch, without regard to its cookie.
    pub fn branch(&self) -> Option<&str> {
        find_param(&self.params, "branch").filter(|branch| !branch.is_empty())
    }
}

/// There may be white space around the colon.
fn parse_sent_by(text: &str) -> Option<(Cow<'_, str>, Option<u16>)> {
    if !text.contains(char::is_whitespace) {
        return parse_host_port(text).ok();
    }
    let joined: String = text.split_whitespace().collect();
    let (host, port) = parse_host_port(&joined).ok()?;
    Some((Cow::Owned(host.into_owned()), port))
}

/// Via's `received` may hold a bare IPv6 address, which is no token.
fn parse_via_params<'a>(parts: impl Iterator<Item = &'a str>) -> Option<Params<'a>> {
    parse_params(parts)
}

/// `SIP / 2.0 / UDP host` with any white space around the slashes.
fn split_protocol(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let (name, rest) = text.split_once('/')?;
    let (version, rest) = rest.split_once('/')?;
    let rest = rest.trim_start();
    let end = rest.find(char::is_whitespace)?;
    let (transport, rest) = rest.split_at(end);
    let ok = name.trim().eq_ignore_ascii_case("SIP") && version.trim() == "2.0" && is_token(transport);
    let capitals = match transport.bytes().any(|byte| byte.is_ascii_lowercase()) {
        true => Cow::Owned(transport.to_ascii_uppercase()),
        false => Cow::Borrowed(transport),
    };
    ok.then(|| (capitals, rest.trim_start()))
}

/// Sequence number and method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CSeq {
    /// Below 2^31.
    pub number: u32,
    /// The method.
    pub method: Method,
}

impl CSeq {
    /// Parses the header value.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split_whitespace();
        let number = parse_decimal(parts.next()?).filter(|number| *number < 1 << 31)?;
        let method = parts.next().filter(|method| is_token(method))?;
        parts.next().is_none().then(|| Self {
            number,
            method: Method::from_name(method),
        })
    }
}

/// Session-Expires or Min-SE: seconds and parameters (RFC 4028).
pub fn parse_delta(text: &str) -> Option<(u32, Params<'_>)> {
    let mut parts = text.split(';');
    let seconds = parse_decimal(parts.next()?.trim())?;
    Some((seconds, parse_params(parts)?))
}
